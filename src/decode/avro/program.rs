//! A writer's schema compiled against a table's columns: a tree of steps that reads bytes and appends values.
//!
//! One program per schema id appends to the same columns, so records of several schema versions may alternate at no
//! cost. A program that fails leaves half a row behind; its caller truncates the columns.

use std::io::Write as _;
use std::sync::Arc;

use super::cursor::{Cursor, Failure, decimal};
use super::mapping::{MappingOptions, column_type, columns, is_columnless, split_optional};
use super::schema::{Kind, Logical, Record, Schema};
use crate::decode::columns::Column;
use crate::error::{Error, Result};
use crate::model::decoded::Reason;
use crate::model::schema::{Field, Type};

/// A compiled record schema.
#[derive(Debug)]
pub struct Program {
    plan: Plan,
}

#[derive(Debug, Default)]
struct Plan {
    /// In the writer's field order: what to read, and which column takes it.
    steps: Vec<(Op, Option<usize>)>,
    /// Columns of a nested struct that the writer does not have.
    absent: Vec<usize>,
}

#[derive(Debug)]
enum Op {
    Null,
    Boolean,
    Int,
    IntToLong,
    Long,
    LongTimes(i64),
    LongDividedBy(i64),
    IntTimesToLong(i64),
    TimeOfDay { per_second: i64, bits_32: bool },
    TimeText { per_second: i64, bits_32: bool },
    Float,
    FloatToDouble,
    Double,
    Bytes,
    Text,
    Enum(Arc<[String]>),
    Fixed(usize),
    DecimalBytes(u8),
    DecimalFixed(usize, u8),
    UuidText,
    UuidFixedText,
    Optional { null: i64, inner: Box<Op> },
    OneBranch(Box<Op>),
    AnyBranch(Vec<Op>),
    Record(Plan),
    List(Box<Op>),
    Map(Box<Op>),
    Entries(Plan),
}

impl Program {
    /// Compiles a record schema against the columns of `table`, of which it may fill those that `open` lists: the
    /// others belong to key, metadata or another source, and fields of their names are passed over.
    ///
    /// # Errors
    /// `InvalidRecord` where a field has no column type or one that the table's column cannot take.
    pub fn compile(record: &Record, table: &[Field], open: &[usize], options: MappingOptions) -> Result<Self> {
        let mut plan = plan(record, table, open, options, "")?;
        plan.absent.clear();
        Ok(Self { plan })
    }

    /// The columns that it fills.
    pub fn filled(&self) -> impl Iterator<Item = usize> {
        self.plan.steps.iter().filter_map(|(_, column)| *column)
    }

    /// Compiles a schema that is no record: its value goes into the one column `index`.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile_single(schema: &Schema, table: &[Field], index: usize, options: MappingOptions) -> Result<Self> {
        let (kind, _) = column_type(schema, options, "")?;
        let field = &table[index];
        if !takes(&field.kind, &kind) {
            return Err(mismatch(&field.name, &kind, &field.kind));
        }
        let steps = vec![(op(schema, &field.kind, options, &field.name)?, Some(index))];
        Ok(Self { plan: Plan { steps, ..Plan::default() } })
    }

    /// Reads one record that is exactly `bytes` and appends a value to each column that the program fills.
    ///
    /// # Errors
    /// What is wrong with the bytes; some columns then have half a row.
    pub fn run(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), Failure> {
        let mut cursor = Cursor::new(bytes);
        self.plan.run(&mut cursor, columns)?;
        if cursor.is_empty() { Ok(()) } else { Err((Reason::Truncated, "bytes go on behind the record")) }
    }
}

fn mismatch(name: &str, found: &Type, wanted: &Type) -> Error {
    Error::invalid_record(format!("column `{name}` is {wanted:?} in the table and {found:?} in the schema"))
}

/// True where a column of type `column` takes values of type `value`: the same, or one of Iceberg's promotions.
pub fn takes(column: &Type, value: &Type) -> bool {
    match (column, value) {
        (Type::Long, Type::Int) | (Type::Double, Type::Float) => true,
        (Type::Decimal(p, s), Type::Decimal(q, t)) => p >= q && s == t,
        (Type::Struct(_), Type::Struct(_)) => true,
        (Type::List(a), Type::List(b)) => takes(&a.kind, &b.kind),
        (Type::Map(k, a), Type::Map(l, b)) => takes(&k.kind, &l.kind) && takes(&a.kind, &b.kind),
        _ => column == value,
    }
}

fn plan(record: &Record, table: &[Field], open: &[usize], options: MappingOptions, path: &str) -> Result<Plan> {
    // The mapping names columns (case collisions get a suffix); going through it keeps one rule for names.
    let mut mapped = columns(record, options)?.into_iter();
    let mut steps = Vec::with_capacity(record.fields.len());
    let mut present = Vec::new();
    for field in &record.fields {
        if is_columnless(&field.schema) {
            steps.push((skip(&field.schema)?, None));
            continue;
        }
        let column = mapped.next().ok_or_else(|| Error::bug("fewer columns than fields"))?;
        let path = format!("{path}{}", column.name);
        let target = open.iter().copied().find(|index| table[*index].name == column.name);
        let Some(index) = target else {
            steps.push((skip(&field.schema)?, None));
            continue;
        };
        if !takes(&table[index].kind, &column.kind) {
            return Err(mismatch(&path, &column.kind, &table[index].kind));
        }
        if table[index].required && split_optional(&field.schema).1 {
            return Err(Error::invalid_record(format!(
                "column `{path}` is required in the table and optional in the schema"
            )));
        }
        present.push(index);
        steps.push((op(&field.schema, &table[index].kind, options, &path)?, Some(index)));
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

fn op(schema: &Schema, target: &Type, options: MappingOptions, path: &str) -> Result<Op> {
    if let Kind::Union(branches) = &schema.kind {
        let (inner, _) = split_optional(schema);
        let inner = Box::new(op(inner, target, options, path)?);
        return Ok(match branches.as_ref() {
            [_] => Op::OneBranch(inner),
            [first, _] => Op::Optional { null: i64::from(first.kind != Kind::Null), inner },
            _ => {
                return Err(Error::invalid_record(format!(
                    "field `{path}`: a union of several branches has no column type yet"
                )));
            }
        });
    }
    if let Some(logical) = schema.logical {
        return logical_op(schema, logical, target);
    }
    Ok(match (&schema.kind, target) {
        (Kind::Boolean, _) => Op::Boolean,
        (Kind::Int, Type::Long) => Op::IntToLong,
        (Kind::Int, _) => Op::Int,
        (Kind::Long, _) => Op::Long,
        (Kind::Float, Type::Double) => Op::FloatToDouble,
        (Kind::Float, _) => Op::Float,
        (Kind::Double, _) => Op::Double,
        (Kind::Bytes, _) => Op::Bytes,
        (Kind::String, _) => Op::Text,
        (Kind::Enum(symbols), _) => Op::Enum(Arc::clone(symbols)),
        (Kind::Fixed(size), _) => Op::Fixed(*size),
        (Kind::Record(record), Type::Struct(fields)) => {
            let all: Vec<usize> = (0..fields.len()).collect();
            Op::Record(plan(record, fields, &all, options, &format!("{path}."))?)
        }
        (Kind::Array(items), Type::List(element)) => Op::List(Box::new(op(items, &element.kind, options, path)?)),
        (Kind::Map(values), Type::Map(_, value)) => Op::Map(Box::new(op(values, &value.kind, options, path)?)),
        (Kind::Entries(entry), Type::Map(key, value)) => {
            let pair = [key.as_ref().clone(), value.as_ref().clone()];
            Op::Entries(plan(entry, &pair, &[0, 1], options, &format!("{path}."))?)
        }
        _ => return Err(Error::bug(format!("field `{path}`: no way to read it into {target:?}"))),
    })
}

fn logical_op(schema: &Schema, logical: Logical, target: &Type) -> Result<Op> {
    Ok(match (logical, target) {
        (Logical::Date, _) => Op::Int,
        (Logical::TimeMillis, Type::String) => Op::TimeText { per_second: 1_000, bits_32: true },
        (Logical::TimeMicros, Type::String) => Op::TimeText { per_second: 1_000_000, bits_32: false },
        (Logical::TimeMillis, Type::Time) => Op::TimeOfDay { per_second: 1_000, bits_32: true },
        (Logical::TimeMicros, Type::Time) => Op::TimeOfDay { per_second: 1_000_000, bits_32: false },
        (Logical::TimeMillis, _) => Op::IntTimesToLong(1_000),
        (Logical::TimeMicros | Logical::TimestampMicros | Logical::LocalTimestampMicros, _) => Op::Long,
        (Logical::TimestampMillis | Logical::LocalTimestampMillis, _) => Op::LongTimes(1_000),
        (Logical::TimestampNanos | Logical::LocalTimestampNanos, _) => Op::LongDividedBy(1_000),
        (Logical::Decimal(..), Type::Decimal(precision, _)) => match schema.kind {
            Kind::Fixed(size) => Op::DecimalFixed(size, *precision),
            _ => Op::DecimalBytes(*precision),
        },
        (Logical::Uuid, Type::String) => match schema.kind {
            Kind::Fixed(_) => Op::UuidFixedText,
            _ => Op::Text,
        },
        (Logical::Uuid, _) => match schema.kind {
            Kind::Fixed(size) => Op::Fixed(size),
            _ => Op::UuidText,
        },
        (Logical::Decimal(..), _) => return Err(Error::bug(format!("no way to read a decimal into {target:?}"))),
    })
}

/// How to pass over a value that no column takes.
fn skip(schema: &Schema) -> Result<Op> {
    Ok(match &schema.kind {
        Kind::Null => Op::Null,
        Kind::Boolean => Op::Boolean,
        Kind::Int | Kind::Enum(_) => Op::Int,
        Kind::Long => Op::Long,
        Kind::Float => Op::Float,
        Kind::Double => Op::Double,
        Kind::Bytes | Kind::String => Op::Bytes,
        Kind::Fixed(size) => Op::Fixed(*size),
        Kind::Record(record) => skip_record(record)?,
        Kind::Entries(entry) => Op::List(Box::new(skip_record(entry)?)),
        Kind::Array(items) => Op::List(Box::new(skip(items)?)),
        Kind::Map(values) => Op::Map(Box::new(skip(values)?)),
        Kind::Union(branches) => Op::AnyBranch(branches.iter().map(skip).collect::<Result<Vec<_>>>()?),
        Kind::Recursive(name) => {
            return Err(Error::invalid_record(format!("recursion into `{name}` cannot be read yet")));
        }
    })
}

fn skip_record(record: &Record) -> Result<Op> {
    let steps = record.fields.iter().map(|f| Ok((skip(&f.schema)?, None))).collect::<Result<Vec<_>>>()?;
    Ok(Op::Record(Plan { steps, ..Plan::default() }))
}

impl Plan {
    #[inline]
    fn run(&self, cursor: &mut Cursor<'_>, columns: &mut [Column]) -> Result<(), Failure> {
        for (op, index) in &self.steps {
            match index {
                Some(index) => op.read(cursor, &mut columns[*index])?,
                None => op.skip(cursor)?,
            }
        }
        for index in &self.absent {
            columns[*index].push_null();
        }
        Ok(())
    }
}

const WRONG_COLUMN: Failure = (Reason::TypeMismatch, "the column is not of the compiled type");

/// Gives the column's inside if it is of the wanted variant; the compiler of programs made sure that it is.
macro_rules! column {
    ($column:expr, $variant:ident) => {
        match $column {
            Column::$variant(inner) => inner,
            _ => return Err(WRONG_COLUMN),
        }
    };
}

impl Op {
    #[inline]
    fn read(&self, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Failure> {
        match self {
            Self::Null => column.push_null(),
            Self::Boolean => column!(column, Boolean).push(cursor.boolean()?),
            Self::Int => column!(column, Int32).push(cursor.int()?),
            Self::IntToLong => column!(column, Int64).push(i64::from(cursor.int()?)),
            Self::Long => column!(column, Int64).push(cursor.long()?),
            Self::LongTimes(factor) => {
                let value = cursor.long()?.checked_mul(*factor);
                column!(column, Int64)
                    .push(value.ok_or((Reason::ValueOutOfRange, "a time lies outside microseconds"))?);
            }
            Self::LongDividedBy(divisor) => column!(column, Int64).push(cursor.long()?.div_euclid(*divisor)),
            Self::IntTimesToLong(factor) => column!(column, Int64).push(i64::from(cursor.int()?) * factor),
            Self::TimeOfDay { per_second, bits_32 } => {
                let (seconds, micros) = cursor.time(*per_second, *bits_32)?;
                column!(column, Int64).push(seconds * 1_000_000 + micros);
            }
            Self::TimeText { per_second, bits_32 } => {
                let (seconds, micros) = cursor.time(*per_second, *bits_32)?;
                let mut text = [0; 15];
                let _ = write!(
                    &mut text[..],
                    "{:02}:{:02}:{:02}.{micros:06}",
                    seconds / 3600,
                    seconds / 60 % 60,
                    seconds % 60
                );
                column!(column, Bytes).push(&text);
            }
            Self::Float => column!(column, Float32).push(f32::from_le_bytes(cursor.array()?)),
            Self::FloatToDouble => column!(column, Float64).push(f64::from(f32::from_le_bytes(cursor.array()?))),
            Self::Double => column!(column, Float64).push(f64::from_le_bytes(cursor.array()?)),
            Self::Bytes => column!(column, Bytes).push(cursor.bytes()?),
            Self::Text => column!(column, Bytes).push(cursor.text()?.as_bytes()),
            Self::Enum(symbols) => {
                let index = usize::try_from(cursor.int()?).ok();
                let symbol =
                    index.and_then(|i| symbols.get(i)).ok_or((Reason::TypeMismatch, "an enum index has no symbol"))?;
                column!(column, Bytes).push(symbol.as_bytes());
            }
            Self::Fixed(size) => column!(column, Fixed).push(cursor.take(*size)?),
            Self::DecimalBytes(precision) => {
                let bytes = cursor.bytes()?;
                column!(column, Decimal).push(decimal(bytes, *precision)?);
            }
            Self::DecimalFixed(size, precision) => {
                let bytes = cursor.take(*size)?;
                column!(column, Decimal).push(decimal(bytes, *precision)?);
            }
            Self::UuidText => {
                let uuid =
                    uuid::Uuid::try_parse(cursor.text()?).map_err(|_| (Reason::TypeMismatch, "a uuid is not one"))?;
                column!(column, Fixed).push(uuid.as_bytes());
            }
            Self::UuidFixedText => {
                let uuid = uuid::Uuid::from_bytes(cursor.array()?);
                column!(column, Bytes).push(uuid.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
            }
            Self::Optional { .. } | Self::OneBranch(_) | Self::AnyBranch(_) => return self.read_branch(cursor, column),
            Self::Record(_) | Self::List(_) | Self::Map(_) | Self::Entries(_) => {
                return self.read_nested(cursor, column);
            }
        }
        Ok(())
    }

    fn read_nested(&self, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Failure> {
        match self {
            Self::Record(plan) => {
                let record = column!(column, Struct);
                plan.run(cursor, &mut record.children)?;
                record.close();
            }
            Self::List(element) => {
                let list = column!(column, List);
                cursor.blocks(|cursor| element.read(cursor, &mut list.child))?;
                list.close();
            }
            Self::Map(value) => {
                let map = column!(column, Map);
                let Column::Struct(entries) = map.child.as_mut() else { return Err(WRONG_COLUMN) };
                cursor.blocks(|cursor| {
                    let [keys, values] = entries.children.as_mut_slice() else { return Err(WRONG_COLUMN) };
                    column!(keys, Bytes).push(cursor.text()?.as_bytes());
                    value.read(cursor, values)?;
                    entries.close();
                    Ok(())
                })?;
                map.close();
            }
            Self::Entries(plan) => {
                let map = column!(column, Map);
                let Column::Struct(entries) = map.child.as_mut() else { return Err(WRONG_COLUMN) };
                cursor.blocks(|cursor| {
                    plan.run(cursor, &mut entries.children)?;
                    entries.close();
                    Ok(())
                })?;
                map.close();
            }
            _ => return Err(WRONG_COLUMN),
        }
        Ok(())
    }

    #[inline]
    fn read_branch(&self, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Failure> {
        let branch = cursor.long()?;
        match self {
            Self::Optional { null, .. } if branch == *null => column.push_null(),
            Self::Optional { null, inner } if branch == 1 - *null => inner.read(cursor, column)?,
            Self::OneBranch(inner) if branch == 0 => inner.read(cursor, column)?,
            _ => return Err((Reason::TypeMismatch, "a union index has no branch")),
        }
        Ok(())
    }

    fn skip(&self, cursor: &mut Cursor<'_>) -> Result<(), Failure> {
        match self {
            Self::Null => {}
            Self::Boolean => drop(cursor.boolean()?),
            Self::Int => drop(cursor.int()?),
            Self::Long => drop(cursor.long()?),
            Self::Float => drop(cursor.take(4)?),
            Self::Double => drop(cursor.take(8)?),
            Self::Bytes => drop(cursor.bytes()?),
            Self::Fixed(size) => drop(cursor.take(*size)?),
            Self::Record(plan) => plan.steps.iter().try_for_each(|(op, _)| op.skip(cursor))?,
            Self::List(element) => cursor.blocks(|cursor| element.skip(cursor))?,
            Self::Map(value) => cursor.blocks(|cursor| {
                cursor.bytes()?;
                value.skip(cursor)
            })?,
            Self::AnyBranch(branches) => {
                let branch = usize::try_from(cursor.long()?).ok().and_then(|i| branches.get(i));
                branch.ok_or((Reason::TypeMismatch, "a union index has no branch"))?.skip(cursor)?;
            }
            _ => return Err((Reason::TypeMismatch, "a value cannot be passed over")),
        }
        Ok(())
    }
}
