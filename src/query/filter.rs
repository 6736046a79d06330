//! A table's filter: a condition in the words of SQL over one row, as DataFusion's physical expression. What it cannot
//! be: a query, a function over several rows, or one whose answer changes.
//!
//! Names are found as columns without case, quoted or not. One that the table does not have stands for null.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::{TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue, plan_err};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, ExprWithAlias, Ident, Query, Subscript, Value, VisitMut, VisitorMut,
};

use super::exact::ExactLiterals;
use crate::error::{Error, ErrorKind, Result};
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::{PlannedFilter, RowFilter, Verdicts};

/// What null is written as where a function takes none without a type, tried in turn.
const NULLS: [&str; 7] = [
    "NULL",
    "CAST(NULL AS VARCHAR)",
    "CAST(NULL AS BIGINT)",
    "CAST(NULL AS DOUBLE)",
    "CAST(NULL AS TIMESTAMP WITH TIME ZONE)",
    "CAST(NULL AS DATE)",
    "CAST(NULL AS VARCHAR[])",
];

/// A condition, not yet for any table.
pub struct SqlFilter {
    text: String,
    condition: ast::Expr,
    /// Functions.
    state: SessionState,
}

impl SqlFilter {
    /// Reads a condition.
    ///
    /// # Errors
    /// `InvalidConfig` where it is none, or could not be asked of any table.
    pub fn new(text: &str) -> Result<Self> {
        let state = SessionStateBuilder::new().with_default_features().build();
        let condition = parse(&state, text).map_err(|error| refused(text, &error))?;
        let filter = Self { text: text.to_owned(), condition, state };
        // What is wrong with it whatever the columns are.
        let logical = filter.null(NULLS[0]).map(|null| {
            let (condition, _) = filter.resolved(&TableSchema::default(), &null)?;
            filter.logical(condition, &DFSchema::empty())
        })?;
        logical.map(|_| filter).map_err(|error| refused(text, &error))
    }

    fn null(&self, text: &str) -> Result<ast::Expr> {
        parse(&self.state, text).map_err(|e| Error::bug(format!("write null as `{text}`")).with_source(e))
    }

    /// The condition in `table`'s own names, with `null` for what the table does not have; and the names of that.
    fn resolved(&self, table: &TableSchema, null: &ast::Expr) -> Result<(ast::Expr, Vec<String>), DataFusionError> {
        let mut names = Names { table, null, missing: Vec::new() };
        let mut condition = self.condition.clone();
        match condition.visit(&mut names) {
            ControlFlow::Continue(()) => Ok((condition, names.missing)),
            ControlFlow::Break(what) => plan_err!("{what}"),
        }
    }

    fn logical(&self, condition: ast::Expr, schema: &DFSchema) -> Result<Expr, DataFusionError> {
        let written = ExprWithAlias { expr: condition, alias: None };
        let expr = self.state.create_logical_expr_from_sql_expr(written, schema)?;
        expr.apply(|expr| match unfit(expr) {
            Some(what) => plan_err!("{what}"),
            None => Ok(TreeNodeRecursion::Continue),
        })?;
        Ok(expr)
    }

    fn physical(&self, condition: ast::Expr, table: &TableSchema) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
        let schema = DFSchema::try_from(table.to_arrow())?;
        let config = self.state.config_options();
        let expr = self.logical(condition, &schema)?;
        let expr = expr.transform_up(|expr| ExactLiterals.rewrite(expr, &schema, config)).data()?;
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(config))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let expr = simplifier.simplify(simplifier.coerce(expr, &schema)?)?;
        match expr.get_type(&schema)? {
            DataType::Boolean | DataType::Null => {}
            other => return plan_err!("it is {other}, and neither true nor false"),
        }
        let expr = self.state.create_physical_expr(expr, &schema)?;
        // What no row of these types can be asked fails here, and not record by record.
        expr.evaluate(&RecordBatch::new_empty(table.to_arrow()))?;
        Ok(expr)
    }
}

impl RowFilter for SqlFilter {
    fn plan(&self, table: &TableSchema) -> Result<Arc<dyn PlannedFilter>> {
        let mut unknown = Vec::new();
        for null in NULLS {
            let resolved = self.resolved(table, &self.null(null)?);
            let (condition, missing) = resolved.map_err(|error| refused(&self.text, &error))?;
            match self.physical(condition, table) {
                Ok(expr) => return Ok(Arc::new(Planned { expr, missing })),
                Err(error) if missing.is_empty() => return Err(refused(&self.text, &error)),
                Err(_) => unknown = missing,
            }
        }
        // Nobody knows what the missing columns will be: no row is decided before they are there.
        Ok(Arc::new(Planned { expr: lit(ScalarValue::Null), missing: unknown }))
    }
}

/// The one expression that `text` is.
fn parse(state: &SessionState, text: &str) -> Result<ast::Expr, DataFusionError> {
    state.sql_to_expr(text, &state.config().options().sql_parser.dialect)
}

fn refused(text: &str, error: &DataFusionError) -> Error {
    let why = error.strip_backtrace();
    let why = why.strip_prefix("Error during planning: ").unwrap_or(&why);
    Error::new(ErrorKind::InvalidConfig, format!("`where` cannot be `{text}`: {why}"))
}

/// What an expression is that cannot be asked of one row, always with the same answer.
fn unfit(expr: &Expr) -> Option<String> {
    Some(match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            format!("`{}` does not always answer the same", call.func.name())
        }
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::GroupingSet(_) | Expr::Unnest(_) => {
            "it asks more than one row".to_owned()
        }
        Expr::Placeholder(_) | Expr::ScalarVariable(..) => "it has a parameter, and nobody to give it".to_owned(),
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => LAMBDA.to_owned(),
        _ => return None,
    })
}

const QUERY: &str = "it holds a query, and may ask one row alone";
const LAMBDA: &str = "it holds a function of its own, which is not supported";

/// Puts the table's names for columns in the place of those that are written.
struct Names<'a> {
    table: &'a TableSchema,
    null: &'a ast::Expr,
    missing: Vec<String>,
}

impl Names<'_> {
    /// The column that `root` is, and of its fields those that `access` begins with; null where one is not there.
    fn resolved(&mut self, root: &[Ident], access: &[AccessExpr]) -> ast::Expr {
        let mut path: Vec<&str> = root.iter().map(|ident| ident.value.as_str()).collect();
        path.extend(access.iter().map_while(name_of));
        let (mut fields, mut found) = (self.table.fields.as_slice(), Vec::new());
        for name in &path {
            let Some(field) = field(fields, name) else {
                let missing = path[..=found.len()].join(".");
                if !self.missing.contains(&missing) {
                    self.missing.push(missing);
                }
                return self.null.clone();
            };
            found.push(field.name.as_str());
            let Type::Struct(inner) = &field.kind else { break };
            fields = inner;
        }
        let column = ast::Expr::Identifier(Ident::with_quote('"', found[0]));
        // Behind a list or a map no fields are looked for: what is written there stays.
        let fields = found[1..].iter().map(|name| subscript(name));
        let dots = root.iter().skip(found.len()).map(|ident| subscript(&ident.value));
        let rest = access.iter().skip(found.len().saturating_sub(root.len())).cloned();
        let access_chain: Vec<AccessExpr> = fields.chain(dots).chain(rest).collect();
        if access_chain.is_empty() {
            return column;
        }
        ast::Expr::CompoundFieldAccess { root: Box::new(column), access_chain }
    }
}

fn field<'a>(fields: &'a [Field], name: &str) -> Option<&'a Field> {
    let exact = fields.iter().find(|field| field.name == name);
    exact.or_else(|| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)))
}

/// The field that an access names, if it does.
fn name_of(access: &AccessExpr) -> Option<&str> {
    match access {
        AccessExpr::Dot(ast::Expr::Identifier(ident)) => Some(&ident.value),
        AccessExpr::Subscript(Subscript::Index { index: ast::Expr::Value(value) }) => match &value.value {
            Value::SingleQuotedString(name) => Some(name),
            _ => None,
        },
        _ => None,
    }
}

fn subscript(name: &str) -> AccessExpr {
    let name = Value::SingleQuotedString(name.to_owned());
    AccessExpr::Subscript(Subscript::Index { index: ast::Expr::Value(name.into()) })
}

impl VisitorMut for Names<'_> {
    type Break = &'static str;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Self::Break> {
        ControlFlow::Break(QUERY)
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Self::Break> {
        match expr {
            ast::Expr::Lambda(_) => return ControlFlow::Break(LAMBDA),
            ast::Expr::Identifier(ident) => *expr = self.resolved(std::slice::from_ref(ident), &[]),
            ast::Expr::CompoundIdentifier(path) => *expr = self.resolved(&path.clone(), &[]),
            ast::Expr::CompoundFieldAccess { root, access_chain } => {
                let path = match root.as_ref() {
                    ast::Expr::Identifier(ident) => vec![ident.clone()],
                    ast::Expr::CompoundIdentifier(path) => path.clone(),
                    _ => Vec::new(),
                };
                if !path.is_empty() {
                    *expr = self.resolved(&path, &access_chain.clone());
                }
                if let ast::Expr::CompoundFieldAccess { access_chain, .. } = expr {
                    // A name behind a dot is a field's, not a column's.
                    for access in access_chain {
                        if let Some(name) = name_of(access).map(subscript) {
                            *access = name;
                        }
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A condition over the columns of one table.
struct Planned {
    expr: Arc<dyn PhysicalExpr>,
    missing: Vec<String>,
}

impl Planned {
    fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let verdicts = self.expr.evaluate(rows)?.into_array(rows.num_rows())?;
        Ok(match verdicts.as_boolean_opt() {
            Some(verdicts) => verdicts.clone(),
            // Nothing but null has no type.
            None => BooleanArray::new_null(verdicts.len()),
        })
    }

    /// Verdicts on `rows`, of which the first is number `from`: where the condition fails for some, on both halves.
    fn verdicts(
        &self,
        rows: &RecordBatch,
        from: usize,
        all: &mut Vec<BooleanArray>,
        failed: &mut Vec<(usize, &'static str)>,
    ) {
        match self.evaluate(rows) {
            Ok(verdicts) => all.push(verdicts),
            Err(error) if rows.num_rows() < 2 => {
                failed.push((from, failure(&error)));
                all.push(BooleanArray::new_null(rows.num_rows()));
            }
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.verdicts(&rows.slice(0, half), from, all, failed);
                self.verdicts(&rows.slice(half, rows.num_rows() - half), from + half, all, failed);
            }
        }
    }
}

impl PlannedFilter for Planned {
    fn decide(&self, rows: &RecordBatch) -> Result<Verdicts> {
        let (mut all, mut failed) = (Vec::new(), Vec::new());
        self.verdicts(rows, 0, &mut all, &mut failed);
        let kept = match all.as_slice() {
            [one] => one.clone(),
            parts => {
                let parts: Vec<&dyn Array> = parts.iter().map(|part| part as &dyn Array).collect();
                let joined = concat(&parts).map_err(|e| Error::bug("join verdicts").with_source(e))?;
                joined.as_boolean().clone()
            }
        };
        Ok(Verdicts { kept, failed })
    }

    fn missing(&self) -> &[String] {
        &self.missing
    }
}

/// How a condition fails for one row. The engine's own text may hold the row's values.
fn failure(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => "`where` divides by zero",
            ArrowError::ArithmeticOverflow(_) => "`where` comes to a number that is too large",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "`where` takes a value for what it is not",
            _ => "`where` fails",
        },
        _ => "`where` fails",
    }
}

#[cfg(test)]
mod tests;
