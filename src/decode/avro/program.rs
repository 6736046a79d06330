//! A compiled schema: a tree of steps that reads bytes and appends values. How one is made stands in `compile`.
//!
//! One program per schema id appends to the same columns, so records of several schema versions may alternate at no
//! cost. A program that fails leaves half a row behind; its caller truncates the columns.

use std::io::Write as _;
use std::sync::Arc;

use chrono::DateTime;

use super::choice::Choice;
use super::cursor::Cursor;
use super::json::Json;
use super::skip::{NO_BRANCH, NO_SYMBOL, Skip};
use crate::decode::Failure;
use crate::decode::columns::Column;
use crate::decode::decimal;
use crate::model::decoded::Reason;

/// A compiled schema.
#[derive(Debug)]
pub struct Program {
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Record(Plan),
    Union(Choice),
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the writer's field order: what to read.
    pub steps: Vec<Step>,
    /// Columns of a nested struct that the writer does not have.
    pub absent: Vec<usize>,
}

/// A value to read, and the column that takes it; or one to pass over.
#[derive(Debug)]
pub(super) enum Step {
    Read(Op, usize),
    Skip(Box<Skip>),
}

#[derive(Debug)]
pub(super) enum Op {
    Boolean,
    Int,
    IntToLong,
    Long,
    LongTimes(i64),
    LongDividedBy(i64),
    IntTimesToLong(i64),
    TimeOfDay { per_second: i64, bits_32: bool },
    TimeText { per_second: i64, bits_32: bool },
    ZonedText { nanos: bool },
    Float,
    FloatToDouble,
    Double,
    Bytes,
    Text,
    Enum(Arc<[String]>),
    Fixed(usize),
    DecimalBytes(u8),
    DecimalFixed(usize, u8),
    DecimalText { size: Option<usize>, scale: usize },
    UuidText,
    UuidFixedText,
    Optional { null: i64, inner: Box<Op> },
    OneBranch(Box<Op>),
    Union(Box<Choice>),
    Record(Plan),
    List(Box<Op>),
    Map(Box<Op>),
    Entries(Plan),
    Json(Box<Json>),
}

impl Program {
    /// The columns that it fills.
    pub fn filled(&self) -> Vec<usize> {
        match &self.body {
            Body::Record(plan) => plan.filled().collect(),
            Body::Union(choice) => choice.columns.clone(),
        }
    }

    /// Reads one value that is exactly `bytes` and appends a value to each column that the program fills.
    ///
    /// # Errors
    /// What is wrong with the bytes; some columns then have half a row.
    pub fn run(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), Failure> {
        let mut cursor = Cursor::new(bytes);
        match &self.body {
            Body::Record(plan) => plan.run(&mut cursor, columns)?,
            Body::Union(choice) => choice.run_row(&mut cursor, columns)?,
        }
        if cursor.is_empty() { Ok(()) } else { Err((Reason::Truncated, "bytes go on behind the record")) }
    }
}

impl Plan {
    /// The columns that its steps fill.
    pub(super) fn filled(&self) -> impl Iterator<Item = usize> {
        self.steps.iter().filter_map(Step::column)
    }

    #[inline]
    pub(super) fn run(&self, cursor: &mut Cursor<'_>, columns: &mut [Column]) -> Result<(), Failure> {
        for step in &self.steps {
            match step {
                Step::Read(op, column) => op.read(cursor, &mut columns[*column])?,
                Step::Skip(skip) => skip.run(cursor)?,
            }
        }
        for index in &self.absent {
            columns[*index].push_null();
        }
        Ok(())
    }
}

impl Step {
    /// The column that it fills.
    pub(super) fn column(&self) -> Option<usize> {
        match self {
            Self::Read(_, column) => Some(*column),
            Self::Skip(_) => None,
        }
    }
}

/// Microseconds span 292,000 years to either side of 1970, nanoseconds the years 1677 to 2262.
const OUT_OF_COLUMN: &str = "a time lies outside of what its column can hold";
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
            Self::Boolean => column!(column, Boolean).push(cursor.boolean()?),
            Self::Int => column!(column, Int32).push(cursor.int()?),
            Self::IntToLong => column!(column, Int64).push(i64::from(cursor.int()?)),
            Self::Long => column!(column, Int64).push(cursor.long()?),
            Self::LongTimes(factor) => {
                let value = cursor.long()?.checked_mul(*factor);
                column!(column, Int64).push(value.ok_or((Reason::ValueOutOfRange, OUT_OF_COLUMN))?);
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
                let symbol = index.and_then(|i| symbols.get(i)).ok_or((Reason::TypeMismatch, NO_SYMBOL))?;
                column!(column, Bytes).push(symbol.as_bytes());
            }
            Self::Fixed(size) => column!(column, Fixed).push(cursor.take(*size)?),
            Self::DecimalBytes(precision) => {
                let bytes = cursor.bytes()?;
                column!(column, Decimal).push(decimal::unscaled(bytes, *precision)?);
            }
            Self::DecimalFixed(size, precision) => {
                let bytes = cursor.take(*size)?;
                column!(column, Decimal).push(decimal::unscaled(bytes, *precision)?);
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
            Self::Optional { .. } | Self::OneBranch(_) => return self.read_branch(cursor, column),
            Self::Record(_) | Self::List(_) | Self::Map(_) | Self::Entries(_) => {
                return self.read_nested(cursor, column);
            }
            Self::Union(_) | Self::Json(_) | Self::DecimalText { .. } | Self::ZonedText { .. } => {
                return self.read_rare(cursor, column);
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

    #[cold]
    fn read_rare(&self, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Failure> {
        match self {
            Self::Union(choice) => {
                let branches = column!(column, Struct);
                if choice.run(cursor, &mut branches.children)? {
                    branches.close();
                } else {
                    column.push_null();
                }
            }
            Self::Json(json) => column!(column, Bytes).push_by(|out| json.write(cursor, out))?,
            Self::DecimalText { size, scale } => {
                let bytes = if let Some(size) = size { cursor.take(*size)? } else { cursor.bytes()? };
                column!(column, Bytes).push_by(|out| decimal::write(bytes, *scale, out))?;
            }
            Self::ZonedText { nanos } => {
                let instant = DateTime::parse_from_rfc3339(cursor.text()?);
                let instant = instant.map_err(|_| (Reason::TypeMismatch, "a zoned timestamp is not ISO 8601"))?;
                let ticks = if *nanos { instant.timestamp_nanos_opt() } else { Some(instant.timestamp_micros()) };
                column!(column, Int64).push(ticks.ok_or((Reason::ValueOutOfRange, OUT_OF_COLUMN))?);
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
            _ => return Err((Reason::TypeMismatch, NO_BRANCH)),
        }
        Ok(())
    }
}
