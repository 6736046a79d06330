//! Columns by field id: how SQL types a table's columns, how rows of an older schema become rows of a newer one, and
//! how expressions over the table's columns find them in files that named or typed them otherwise.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column as ColumnExpr, Literal};
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};

use crate::model::names::{self, NameMapping};
use crate::model::schema::{FIELD_ID_KEY, Field as Column, TableSchema, Type};
use crate::model::{conform, constant};

/// The columns as SQL sees them: text and bytes as views, which filters and groups compare without copying.
pub(super) fn sql_schema(schema: &TableSchema) -> SchemaRef {
    let arrow = schema.to_arrow();
    let fields = arrow.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        DataType::Binary | DataType::LargeBinary => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::BinaryView))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

/// Per column what stands in rows that lack it, since they are older; the others are null there.
pub(super) type Defaults = HashMap<String, ScalarValue>;

/// The defaults of a table whose columns SQL sees as `sql`.
///
/// # Errors
/// `NotImplemented` for a default inside a nested column.
pub(super) fn defaults(schema: &TableSchema, sql: &SchemaRef) -> Result<Defaults> {
    let mut defaults = Defaults::new();
    for (field, sql) in schema.fields.iter().zip(sql.fields()) {
        if has_default_within(&field.kind) {
            let text = format!("column `{}` has a default inside, which queries cannot read yet", field.name);
            return Err(DataFusionError::NotImplemented(text));
        }
        let Some(bytes) = &field.marks.initial_default else { continue };
        let value = constant::array(&field.kind, bytes, 1);
        let value =
            value.ok_or_else(|| DataFusionError::Execution(format!("column `{}` has no such default", field.name)))?;
        defaults.insert(field.name.clone(), ScalarValue::try_from_array(&cast(&value, sql.data_type())?, 0)?);
    }
    Ok(defaults)
}

fn has_default_within(kind: &Type) -> bool {
    let has = |field: &Column| field.marks.initial_default.is_some() || has_default_within(&field.kind);
    match kind {
        Type::Struct(fields) => fields.iter().any(has),
        Type::List(element) => has(element),
        Type::Map(key, value) => has(key) || has(value),
        _ => false,
    }
}

/// `rows` as rows of `table`, whose schema in SQL is `wanted`: columns found by field id at any depth, cast where the
/// type was another; where they are missing, their default or null.
pub(super) fn conform(
    rows: &RecordBatch,
    table: &TableSchema,
    wanted: &SchemaRef,
    defaults: &Defaults,
) -> Result<RecordBatch> {
    let held = rows.schema();
    let by_id: HashMap<&str, usize> =
        held.fields().iter().enumerate().filter_map(|(at, field)| Some((id(field)?, at))).collect();
    let columns = wanted.fields().iter().zip(&table.fields).map(|(field, column)| -> Result<ArrayRef> {
        let Some(at) = id(field).and_then(|id| by_id.get(id)) else {
            return match defaults.get(field.name()) {
                Some(default) => default.to_array_of_size(rows.num_rows()),
                None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            };
        };
        let held = rows.column(*at);
        if held.data_type() == field.data_type() {
            Ok(Arc::clone(held))
        } else if column.kind.is_nested() {
            nested(held, column)
        } else {
            Ok(cast(held, field.data_type())?)
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(wanted), columns.collect::<Result<Vec<_>>>()?, &options)?)
}

fn nested(held: &ArrayRef, column: &Column) -> Result<ArrayRef> {
    conform::column(held, column).map_err(|error| DataFusionError::External(Box::new(error)))
}

fn id(field: &Field) -> Option<&str> {
    field.metadata().get(FIELD_ID_KEY).map(String::as_str)
}

/// Adapts expressions to a file by the field ids that stand in both schemas, or, for files that have none, by those of
/// the table's name mapping.
#[derive(Debug, Default)]
pub(super) struct ByFieldId {
    pub(super) table: Arc<TableSchema>,
    pub(super) names: Option<NameMapping>,
    pub(super) defaults: Defaults,
}

impl PhysicalExprAdapterFactory for ByFieldId {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let columns: HashMap<String, &Column> =
            self.table.fields.iter().map(|column| (column.id.to_string(), column)).collect();
        let identified = self.names.as_ref().filter(|_| !names::has_ids(&file)).map(|names| names.identify(&file));
        let ids = identified.as_ref().unwrap_or(&file);
        let mut by_id = HashMap::new();
        // The file's columns under the names that the table has for them now. Those that it has no more get names that
        // no column can have, lest a column of the same name that came later be taken for them.
        let renamed = ids.fields().iter().enumerate().map(|(at, field)| {
            let nobodys = || field.as_ref().clone().with_name(format!("\0{at}"));
            let Some(id) = id(field) else {
                return if identified.is_some() { nobodys() } else { field.as_ref().clone() };
            };
            let Some(column) = columns.get(id) else { return nobodys() };
            let renamed = field.as_ref().clone().with_name(&column.name);
            let kind = column.kind.to_arrow();
            let goes_by_id = identified.is_none() && has_ids(field.data_type());
            if !column.kind.is_nested() || kind == *field.data_type() || !goes_by_id {
                return renamed;
            }
            by_id.insert(at, Arc::new(Column::clone(column)));
            renamed.with_data_type(kind)
        });
        let renamed = Arc::new(Schema::new(renamed.collect::<Vec<_>>()));
        let is_missing = |(name, _): &(&String, &ScalarValue)| renamed.field_with_name(name).is_err();
        let defaults = self.defaults.iter().filter(is_missing);
        let defaults = defaults.map(|(name, default)| (name.clone(), default.clone())).collect();
        let inner = DefaultPhysicalExprAdapterFactory.create(table, renamed)?;
        Ok(Arc::new(Renaming { inner, file, by_id, defaults }))
    }
}

/// True where all fields of structs have ids: files of other writers may lack them, and then go by name.
fn has_ids(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(fields) => fields.iter().all(|field| id(field).is_some() && has_ids(field.data_type())),
        DataType::List(item) => has_ids(item.data_type()),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair.iter().all(|field| has_ids(field.data_type())),
            _ => false,
        },
        _ => true,
    }
}

#[derive(Debug)]
struct Renaming {
    inner: Arc<dyn PhysicalExprAdapter>,
    file: SchemaRef,
    /// Nested columns that the table has otherwise, by their places in the file.
    by_id: HashMap<usize, Arc<Column>>,
    /// Of columns that the file lacks.
    defaults: Defaults,
}

impl PhysicalExprAdapter for Renaming {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = expr.transform(|expr| {
            let default = expr.downcast_ref::<ColumnExpr>().and_then(|column| self.defaults.get(column.name()));
            Ok(match default {
                Some(default) => Transformed::yes(Arc::new(Literal::new(default.clone())) as Arc<dyn PhysicalExpr>),
                None => Transformed::no(expr),
            })
        });
        let expr = self.inner.rewrite(expr.data()?)?;
        // From the leaves up, so that what is put in place of a column is not looked into again. Pruning looks a
        // column's statistics up by the name that the file has for it.
        expr.transform_up(|expr| {
            let Some(column) = expr.downcast_ref::<ColumnExpr>() else { return Ok(Transformed::no(expr)) };
            let (index, name) = (column.index(), self.file.field(column.index()).name());
            let held: Arc<dyn PhysicalExpr> = Arc::new(ColumnExpr::new(name, index));
            Ok(match self.by_id.get(&index) {
                Some(column) => Transformed::yes(Arc::new(Conformed { held, column: Arc::clone(column) })),
                None if name == column.name() => Transformed::no(expr),
                None => Transformed::yes(held),
            })
        })
        .data()
    }
}

/// A nested column of a file as the table has it now.
#[derive(Debug, Eq)]
struct Conformed {
    held: Arc<dyn PhysicalExpr>,
    column: Arc<Column>,
}

// Derived, it would move out of what `held` points to.
impl PartialEq for Conformed {
    fn eq(&self, other: &Self) -> bool {
        self.held.eq(&other.held) && self.column == other.column
    }
}

impl Hash for Conformed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.held.hash(state);
        self.column.hash(state);
    }
}

impl fmt::Display for Conformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by field id", self.held)
    }
}

impl PhysicalExpr for Conformed {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.column.kind.to_arrow())
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.held.nullable(input)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let held = self.held.evaluate(rows)?.into_array(rows.num_rows())?;
        Ok(ColumnarValue::Array(nested(&held, &self.column)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.held]
    }

    fn with_new_children(self: Arc<Self>, mut held: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let held = held.pop().unwrap_or_else(|| Arc::clone(&self.held));
        Ok(Arc::new(Self { held, column: Arc::clone(&self.column) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int32Array, StringArray, StructArray};
    use datafusion::arrow::datatypes::Int64Type;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::BinaryExpr;

    use super::*;
    use crate::model::schema::Marks;

    fn field(id: i32, name: &str, kind: Type) -> Column {
        Column { id, ..Column::optional(name, kind) }
    }

    fn columns(fields: Vec<Column>) -> TableSchema {
        TableSchema::of(fields)
    }

    /// Column 1 was `a: int`, column 2 was dropped, `b` is another column now; in the struct column 5 was `x`.
    fn before() -> RecordBatch {
        let point = field(4, "point", Type::Struct(vec![field(5, "x", Type::Int), field(6, "gone", Type::Int)]));
        let schema = columns(vec![field(1, "a", Type::Int), field(2, "b", Type::String), point]).to_arrow();
        let numbers = || Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef;
        let DataType::Struct(children) = schema.field(2).data_type().clone() else { panic!("no struct") };
        let point = StructArray::new(children, vec![numbers(), numbers()], None);
        let columns: Vec<ArrayRef> = vec![numbers(), Arc::new(StringArray::from(vec!["x", "y"])), Arc::new(point)];
        RecordBatch::try_new(schema, columns).unwrap()
    }

    fn now() -> TableSchema {
        let point =
            field(4, "point", Type::Struct(vec![field(7, "gone", Type::String), field(5, "across", Type::Long)]));
        columns(vec![field(3, "b", Type::String), field(1, "amount", Type::Long), point])
    }

    #[test]
    fn rows_of_an_older_schema_take_their_columns_by_id() {
        let rows = conform(&before(), &now(), &sql_schema(&now()), &Defaults::new()).unwrap();
        assert_eq!(rows.column(0).null_count(), 2, "the new `b` is not the old one");
        assert_eq!(rows.column(1).as_primitive::<Int64Type>().values(), &[1, 2]);
        let point = rows.column(2).as_struct();
        assert_eq!(point.column(0).null_count(), 2, "the new `gone` is not the old one");
        assert_eq!(point.column(1).as_primitive::<Int64Type>().values(), &[1, 2]);
    }

    #[test]
    fn what_files_lack_is_the_tables_default() {
        let marks = Marks { initial_default: Some(b"was".to_vec()), ..Marks::default() };
        let schema = columns(vec![Column { marks, ..field(3, "b", Type::String) }, field(1, "amount", Type::Long)]);
        let sql = sql_schema(&schema);
        let defaults = defaults(&schema, &sql).unwrap();
        let rows = conform(&before(), &schema, &sql, &defaults).unwrap();
        assert_eq!(rows.column(0).as_string_view().iter().collect::<Vec<_>>(), [Some("was"); 2]);
        // The file has a column of that name, which is another one.
        let by_id = ByFieldId { table: Arc::new(schema.clone()), names: None, defaults };
        let adapter = by_id.create(Arc::clone(&sql), before().schema()).unwrap();
        let b = adapter.rewrite(Arc::new(ColumnExpr::new("b", 0))).unwrap();
        let values = b.evaluate(&before()).unwrap().into_array(2).unwrap();
        assert_eq!(values.as_string_view().iter().collect::<Vec<_>>(), [Some("was"); 2]);
        // A file that has the column has its values.
        let newer = RecordBatch::try_new(
            columns(vec![field(3, "b", Type::String)]).to_arrow(),
            vec![Arc::new(StringArray::from(vec![None, Some("is")]))],
        );
        let newer = newer.unwrap();
        let adapter = by_id.create(sql, newer.schema()).unwrap();
        let b = adapter.rewrite(Arc::new(ColumnExpr::new("b", 0))).unwrap();
        let values = b.evaluate(&newer).unwrap().into_array(2).unwrap();
        assert_eq!(
            cast(&values, &DataType::Utf8).unwrap().as_string::<i32>().iter().collect::<Vec<_>>(),
            [None, Some("is")]
        );
        let within = field(4, "s", Type::Struct(vec![schema.fields[0].clone()]));
        let schema = columns(vec![within]);
        assert!(super::defaults(&schema, &sql_schema(&schema)).is_err());
    }

    #[test]
    fn files_without_ids_are_read_by_the_tables_names_for_them() {
        let text = r#"[{"field-id": 1, "names": ["a"]}, {"field-id": 3, "names": ["c"]}]"#;
        let names = Some(NameMapping::parse(text).unwrap());
        let by_id = ByFieldId { table: Arc::new(now()), names, defaults: Defaults::new() };
        let bare = Schema::new(vec![Field::new("b", DataType::Utf8, true), Field::new("a", DataType::Int32, true)]);
        let adapter = by_id.create(sql_schema(&now()), Arc::new(bare)).unwrap();
        let shown = |name: &str, at| adapter.rewrite(Arc::new(ColumnExpr::new(name, at))).unwrap().to_string();
        assert!(shown("amount", 1).contains("a@1"), "{}", shown("amount", 1));
        assert!(shown("b", 0).contains("NULL"), "the file's `b` is no column of the table: {}", shown("b", 0));
    }

    #[test]
    fn expressions_find_renamed_columns_in_old_files() {
        let by_id = ByFieldId { table: Arc::new(now()), ..ByFieldId::default() };
        let adapter = by_id.create(sql_schema(&now()), before().schema()).unwrap();
        let column = |name: &str, at| Arc::new(ColumnExpr::new(name, at)) as Arc<dyn PhysicalExpr>;
        let one = Arc::new(Literal::new(ScalarValue::Int64(Some(1))));
        let above = adapter.rewrite(Arc::new(BinaryExpr::new(column("amount", 1), Operator::Gt, one))).unwrap();
        let result = above.evaluate(&before()).unwrap().into_array(2).unwrap();
        assert_eq!(result.as_boolean().iter().collect::<Vec<_>>(), [Some(false), Some(true)]);
        assert!(above.to_string().contains("a@0"), "{above}");
        let b = adapter.rewrite(column("b", 0)).unwrap();
        assert_eq!(b.evaluate(&before()).unwrap().into_array(2).unwrap().null_count(), 2);
        let point = adapter.rewrite(column("point", 2)).unwrap().evaluate(&before()).unwrap().into_array(2).unwrap();
        assert_eq!(point.as_struct().column(0).null_count(), 2);
        assert_eq!(point.as_struct().column(1).as_primitive::<Int64Type>().values(), &[1, 2]);
    }
}
