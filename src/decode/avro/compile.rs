//! A writer's schema compiled against a table's columns: which step reads what into which column.

use std::cmp::Ordering;
use std::sync::Arc;

use super::choice::Choice;
use super::json::Json;
use super::mapping::{Row, branch_fields, column_type, columns, is_columnless, split_optional};
use super::program::{Body, Op, Plan, Program, Step};
use super::schema::{Kind, Logical, Node, RecordField, Schema};
use super::skip::Skip;
use crate::decode::mapping::{ColumnsFor, MappingOptions, mismatch};
use crate::error::{Error, Result};
use crate::model::projection::{self, Projection};
use crate::model::schema::{Field, Type};

impl Program {
    /// Compiles a schema whose values are rows against the columns of `table`, of which it may fill those that `open`
    /// lists: the others belong to key, metadata or another source, and fields of their names are passed over.
    ///
    /// # Errors
    /// `InvalidRecord` where a field has no column type or one that the table's column cannot take.
    pub fn compile(
        schema: &Schema,
        table: &[Field],
        open: &[usize],
        options: MappingOptions,
        projection: &Projection,
    ) -> Result<Self> {
        let compiler = Compiler { schema, options, projection };
        let body = match Row::of(schema) {
            Row::Nothing => Body::Record(Plan { steps: vec![compiler.skip(&schema.root)], absent: Vec::new() }),
            Row::Record { fields, nullable } => {
                let mut plan = compiler.plan(fields, nullable, table, open, "")?;
                plan.absent.clear();
                match &schema.root.kind {
                    Kind::Union(branches) => {
                        let columns = plan.filled().collect();
                        let null = branches.iter().position(|branch| branch.kind == Kind::Null);
                        let mut plans = vec![plan];
                        if let Some(null) = null {
                            plans.insert(null, Plan::default());
                        }
                        Body::Union(Choice { branches: plans, null, columns })
                    }
                    _ => Body::Record(plan),
                }
            }
            Row::Union(branches) => {
                let mut plan = compiler.plan(&branches, true, table, open, "")?;
                plan.absent.clear();
                Body::Union(choice(plan, &branches))
            }
            Row::Value => return Err(Error::bug("a schema of one value compiled as a row")),
        };
        Ok(Self { body })
    }

    /// Compiles a schema whose values go into the one column `index`.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile_single(
        schema: &Schema,
        table: &[Field],
        index: usize,
        options: MappingOptions,
        projection: &Projection,
    ) -> Result<Self> {
        let field = &table[index];
        let path = projection.field(&field.name).unwrap_or(&field.name);
        let (kind, _) = column_type(&schema.root, options, &field.name)?;
        if !field.kind.takes(&kind) {
            return Err(mismatch(&field.name, &kind, &field.kind));
        }
        let op = Compiler { schema, options, projection }.op(&schema.root, &field.kind, path)?;
        Ok(Self { body: Body::Record(Plan { steps: vec![Step::Read(op, index)], absent: Vec::new() }) })
    }
}

/// The choice among the steps of `plan`, one per branch.
fn choice(plan: Plan, branches: &[RecordField]) -> Choice {
    let columns: Vec<usize> = plan.filled().chain(plan.absent.iter().copied()).collect();
    let null = branches.iter().position(|branch| branch.node.kind == Kind::Null);
    let alone = |step: Step| {
        let absent = columns.iter().copied().filter(|column| Some(*column) != step.column()).collect();
        Plan { steps: vec![step], absent }
    };
    let branches = plan.steps.into_iter().map(alone).collect();
    Choice { branches, null, columns }
}

#[derive(Clone, Copy)]
struct Compiler<'a> {
    schema: &'a Schema,
    options: MappingOptions,
    projection: &'a Projection,
}

impl Compiler<'_> {
    /// For what is inside a map.
    fn whole(&self) -> Self {
        Self { projection: &projection::ALL, ..*self }
    }

    fn skip(&self, node: &Node) -> Step {
        Step::Skip(Box::new(Skip::new(node, self.schema)))
    }

    /// `nullable`: any of the fields may get a null, whatever its type.
    fn plan(
        &self,
        fields: &[RecordField],
        nullable: bool,
        table: &[Field],
        open: &[usize],
        path: &str,
    ) -> Result<Plan> {
        // The mapping names columns (case collisions get a suffix); going through it keeps one rule for names.
        let mapped = columns(fields, nullable, self.options, path.trim_end_matches('.'))?;
        let mut columns = ColumnsFor::new(self.projection, table, open, &mapped, path);
        let mut mapped = mapped.into_iter();
        let mut steps = Vec::with_capacity(fields.len());
        let mut present = Vec::new();
        for field in fields {
            if is_columnless(&field.node) {
                steps.push(self.skip(&field.node));
                continue;
            }
            let column = mapped.next().ok_or_else(|| Error::bug("fewer columns than fields"))?;
            let path = self.projection.path(path, &column);
            let nullable = nullable || split_optional(&field.node).1;
            let Some(index) = columns.next(nullable, &path)? else {
                steps.push(self.skip(&field.node));
                continue;
            };
            present.push(index);
            steps.push(Step::Read(self.op(&field.node, &table[index].kind, &path)?, index));
        }
        let absent: Vec<usize> = open.iter().copied().filter(|index| !present.contains(index)).collect();
        if let Some(index) = absent.iter().find(|index| !path.is_empty() && table[**index].required) {
            let name = &table[*index].name;
            return Err(Error::invalid_record(format!(
                "column `{path}{name}` is required in the table and not in the schema"
            )));
        }
        Ok(Plan { steps, absent })
    }

    fn nested(&self, fields: &[RecordField], nullable: bool, columns: &[Field], path: &str) -> Result<Plan> {
        let all: Vec<usize> = (0..columns.len()).collect();
        self.plan(fields, nullable, columns, &all, &format!("{path}."))
    }

    fn op(&self, node: &Node, target: &Type, path: &str) -> Result<Op> {
        if let Some(logical) = node.logical {
            return logical_op(node, logical, target);
        }
        Ok(match (&node.kind, target) {
            (Kind::Boolean, _) => Op::Boolean,
            (Kind::Int, Type::Long) => Op::IntToLong,
            (Kind::Int, _) => Op::Int,
            (Kind::Long, _) => Op::Long,
            (Kind::Float, Type::Double) => Op::FloatToDouble,
            (Kind::Float, _) => Op::Float,
            (Kind::Double, _) => Op::Double,
            (Kind::Bytes, _) => Op::Bytes,
            (Kind::String, _) => Op::Text,
            (Kind::Enum(symbols), _) => Op::Enum(Arc::clone(&symbols.symbols)),
            (Kind::Fixed(size), _) => Op::Fixed(*size),
            (Kind::Recursive(_), Type::String) => Op::Json(Box::new(Json::new(node, self.schema))),
            (Kind::Union(branches), _) => self.union(branches, node, target, path)?,
            (Kind::Record(record), Type::Struct(columns)) => {
                Op::Record(self.nested(&record.fields, false, columns, path)?)
            }
            (Kind::Array(items), Type::List(element)) => {
                Op::List(Box::new(self.op(items, &element.kind, &format!("{path}.element"))?))
            }
            (Kind::Map(values), Type::Map(_, value)) => {
                Op::Map(Box::new(self.whole().op(values, &value.kind, &format!("{path}.value"))?))
            }
            (Kind::Entries(entry), Type::Map(key, value)) => {
                let pair = [key.as_ref().clone(), value.as_ref().clone()];
                Op::Entries(self.whole().nested(&entry.fields, false, &pair, path)?)
            }
            _ => return Err(Error::bug(format!("field `{path}`: no way to read it into {target:?}"))),
        })
    }

    fn union(&self, branches: &[Node], node: &Node, target: &Type, path: &str) -> Result<Op> {
        let (inner, _) = split_optional(node);
        Ok(match (branches, target) {
            ([_], _) => Op::OneBranch(Box::new(self.op(inner, target, path)?)),
            ([first, _], _) if inner != node => {
                let inner = Box::new(self.op(inner, target, path)?);
                Op::Optional { null: i64::from(first.kind != Kind::Null), inner }
            }
            (_, Type::Struct(columns)) => {
                let fields = branch_fields(branches);
                Op::Union(Box::new(choice(self.nested(&fields, true, columns, path)?, &fields)))
            }
            _ => return Err(Error::bug(format!("field `{path}`: no way to read a union into {target:?}"))),
        })
    }
}

fn logical_op(node: &Node, logical: Logical, target: &Type) -> Result<Op> {
    Ok(match (logical, target) {
        (Logical::Date, _) => Op::Int,
        (Logical::TimeMillis, Type::String) => Op::TimeText { per_second: 1_000, bits_32: true },
        (Logical::TimeMicros, Type::String) => Op::TimeText { per_second: 1_000_000, bits_32: false },
        (Logical::TimeMillis, Type::Time) => Op::TimeOfDay { per_second: 1_000, bits_32: true },
        (Logical::TimeMicros, Type::Time) => Op::TimeOfDay { per_second: 1_000_000, bits_32: false },
        (Logical::TimeNanos, Type::String) => Op::TimeText { per_second: 1_000_000_000, bits_32: false },
        (Logical::TimeNanos, Type::Time) => Op::TimeOfDay { per_second: 1_000_000_000, bits_32: false },
        (Logical::TimeMillis, _) => Op::IntTimesToLong(1_000),
        (Logical::TimeMicros, _) => Op::Long,
        (Logical::TimeNanos, _) => Op::LongDividedBy(1_000),
        (Logical::TimestampMillis | Logical::LocalTimestampMillis, _) => instant(1_000, target),
        (Logical::TimestampMicros | Logical::LocalTimestampMicros, _) => instant(1_000_000, target),
        (Logical::TimestampNanos | Logical::LocalTimestampNanos, _) => instant(1_000_000_000, target),
        (Logical::Decimal(..), Type::Decimal(precision, _)) => match node.kind {
            Kind::Fixed(size) => Op::DecimalFixed(size, *precision),
            _ => Op::DecimalBytes(*precision),
        },
        (Logical::Decimal(_, scale), Type::String) => {
            let size = if let Kind::Fixed(size) = node.kind { Some(size) } else { None };
            Op::DecimalText { size, scale: scale as usize }
        }
        (Logical::ZonedTimestamp, _) => Op::ZonedText { nanos: target.per_second() == Some(1_000_000_000) },
        (Logical::Uuid, Type::String) => match node.kind {
            Kind::Fixed(_) => Op::UuidFixedText,
            _ => Op::Text,
        },
        (Logical::Uuid, _) => match node.kind {
            Kind::Fixed(size) => Op::Fixed(size),
            _ => Op::UuidText,
        },
        (Logical::Decimal(..), _) => return Err(Error::bug(format!("no way to read a decimal into {target:?}"))),
    })
}

/// An instant that counts parts of a second into a column that counts others.
fn instant(per_second: i64, target: &Type) -> Op {
    let wanted = target.per_second().unwrap_or(1_000_000);
    match wanted.cmp(&per_second) {
        Ordering::Equal => Op::Long,
        Ordering::Greater => Op::LongTimes(wanted / per_second),
        Ordering::Less => Op::LongDividedBy(per_second / wanted),
    }
}
