//! One step of a compiled program: how one value is read from the wire into its column.

use std::io::Write as _;
use std::sync::Arc;

use super::json;
use super::program::{Plan, Stop};
use super::schema::{Enum, Message, Scalar};
use super::value::{date, decimal, duration, integer, ticks, time_of_day, timestamp};
use super::wire::{Cursor, GROUP};
use crate::decode::Failure;
use crate::decode::columns::Column;
use crate::model::decoded::Reason;

/// How one value is read.
#[derive(Debug)]
pub(super) enum Op {
    /// Into an int column.
    Int(Scalar),
    /// Into a long column.
    Long(Scalar),
    /// Into a decimal column.
    Unsigned(Scalar),
    UnsignedLong(Scalar),
    Bool,
    Float,
    FloatToDouble,
    Double,
    Bytes,
    Text,
    Enum(Arc<Enum>),
    Message(Plan),
    /// Parts of a second that the column counts.
    Timestamp(i64),
    Duration,
    Date,
    TimeOfDay,
    TimeText,
    /// A message of one value, which has this tag.
    Wrapper(Box<Op>, u32),
    /// Precision, scale.
    Decimal(u8, u8),
    Json(Message),
    List(Box<Op>),
    /// The plan of an entry: key and value.
    Map(Box<Plan>),
}

const WRONG_COLUMN: Failure = (Reason::TypeMismatch, "the column is not of the compiled type");

/// Gives the column's inside if it is of the wanted variant; the compiler of programs made sure that it is.
macro_rules! column {
    ($column:expr, $variant:ident) => {
        match $column {
            Column::$variant(inner) => inner,
            _ => return Err(WRONG_COLUMN.into()),
        }
    };
}

impl Op {
    /// Reads a value whose tag has been read, and appends it; to a list or map as one element, which stays open.
    #[inline]
    pub(super) fn read(&self, cursor: &mut Cursor<'_>, tag: u32, column: &mut Column) -> Result<(), Stop> {
        match self {
            Self::Int(kind) => column!(column, Int32).push(integer(*kind, cursor)? as i32),
            Self::Long(kind) => column!(column, Int64).push(integer(*kind, cursor)?),
            Self::Unsigned(kind) => {
                column!(column, Decimal).push(i128::from(integer(*kind, cursor)?.cast_unsigned()));
            }
            Self::UnsignedLong(kind) => {
                let value = integer(*kind, cursor)?;
                if value < 0 {
                    return Err((Reason::ValueOutOfRange, "an unsigned integer is beyond a long").into());
                }
                column!(column, Int64).push(value);
            }
            Self::Bool => column!(column, Boolean).push(cursor.varint()? != 0),
            Self::Float => column!(column, Float32).push(f32::from_le_bytes(cursor.array()?)),
            Self::FloatToDouble => column!(column, Float64).push(f64::from(f32::from_le_bytes(cursor.array()?))),
            Self::Double => column!(column, Float64).push(f64::from_le_bytes(cursor.array()?)),
            Self::Enum(names) => return push_name(names, (cursor.varint()? as u32).cast_signed(), column),
            Self::Bytes => column!(column, Bytes).push(cursor.bytes()?),
            Self::Text => return push_text(cursor.bytes()?, column),
            Self::List(element) => return element.read(cursor, tag, &mut column!(column, List).child),
            _ => {
                let payload = if tag & 7 == GROUP { cursor.group(tag >> 3)? } else { cursor.bytes()? };
                return self.read_message(payload, column);
            }
        }
        Ok(())
    }

    fn read_message(&self, payload: &[u8], column: &mut Column) -> Result<(), Stop> {
        match self {
            Self::Message(plan) => {
                let message = column!(column, Struct);
                plan.run(payload, &mut message.children)?;
                message.close();
            }
            Self::Map(entry) => {
                let Column::Struct(entries) = column!(column, Map).child.as_mut() else {
                    return Err(WRONG_COLUMN.into());
                };
                entry.run(payload, &mut entries.children)?;
                entries.close();
            }
            Self::Timestamp(per_second) => column!(column, Int64).push(ticks(timestamp(payload)?, *per_second)?),
            Self::Duration => column!(column, Int64).push(ticks(duration(payload)?, 1_000_000)?),
            Self::Date => column!(column, Int32).push(date(payload)?),
            Self::TimeOfDay => column!(column, Int64).push(time_of_day(payload)?),
            Self::TimeText => {
                let micros = time_of_day(payload)?;
                let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
                let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                let mut text = [0; 15];
                let _ = write!(&mut text[..], "{hours:02}:{minutes:02}:{seconds:02}.{micros:06}");
                column!(column, Bytes).push(&text);
            }
            Self::Wrapper(inner, tag) => {
                let (mut cursor, mut last) = (Cursor::new(payload), None);
                while !cursor.is_empty() {
                    let found = cursor.tag()?;
                    let value = cursor.value(found)?;
                    last = if found == *tag { Some(value) } else { last };
                }
                return match last {
                    Some(value) => inner.read_bare(value, column),
                    None => inner.push_zero(column),
                };
            }
            Self::Decimal(precision, scale) => {
                column!(column, Decimal).push(decimal(payload, *precision, *scale)?);
            }
            Self::Json(message) => column!(column, Bytes).push(&json::text(message, payload)?),
            _ => return Err(WRONG_COLUMN.into()),
        }
        Ok(())
    }

    /// Reads a value that is exactly `bytes`: texts and bytes without their length.
    fn read_bare(&self, bytes: &[u8], column: &mut Column) -> Result<(), Stop> {
        match self {
            Self::Bytes => column!(column, Bytes).push(bytes),
            Self::Text => return push_text(bytes, column),
            _ => return self.read(&mut Cursor::new(bytes), 0, column),
        }
        Ok(())
    }

    /// Reads a packed run of numbers into an open list.
    pub(super) fn read_run(&self, run: &[u8], column: &mut Column) -> Result<(), Stop> {
        let Self::List(element) = self else { return Err(WRONG_COLUMN.into()) };
        let child = &mut column!(column, List).child;
        let mut cursor = Cursor::new(run);
        while !cursor.is_empty() {
            element.read(&mut cursor, 0, child)?;
        }
        Ok(())
    }

    /// Appends what an absent value stands for: zero, false, the first name of an enum, a message without fields.
    pub(super) fn push_zero(&self, column: &mut Column) -> Result<(), Stop> {
        match self {
            Self::Int(_) => column!(column, Int32).push(0),
            Self::Long(_) | Self::UnsignedLong(_) => column!(column, Int64).push(0),
            Self::Unsigned(_) => column!(column, Decimal).push(0),
            Self::Bool => column!(column, Boolean).push(false),
            Self::Float => column!(column, Float32).push(0.0),
            Self::FloatToDouble | Self::Double => column!(column, Float64).push(0.0),
            Self::Bytes | Self::Text => column!(column, Bytes).push(&[]),
            Self::Enum(names) => return push_name(names, names.default_number(), column),
            _ => return self.read_message(&[], column),
        }
        Ok(())
    }

    /// Ends a list or map.
    pub(super) fn close(column: &mut Column) -> Result<(), Stop> {
        match column {
            Column::List(list) => list.close(),
            Column::Map(map) => {
                let Column::Struct(entries) = map.child.as_ref() else { return Err(WRONG_COLUMN.into()) };
                if entries.children.first().is_some_and(|keys| keys.repeats(map.start())) {
                    return Err(Stop::Repeated);
                }
                map.close();
            }
            _ => return Err(WRONG_COLUMN.into()),
        }
        Ok(())
    }

    /// True where a second value is to be merged into the first instead of taking its place.
    pub(super) fn merges(&self) -> bool {
        matches!(
            self,
            Self::Message(_)
                | Self::Timestamp(_)
                | Self::Duration
                | Self::Date
                | Self::TimeOfDay
                | Self::TimeText
                | Self::Wrapper(..)
                | Self::Decimal(..)
                | Self::Json(_)
        )
    }
}

/// An enum's name, or its number as text where it has none: of closed enums too, whose unknown numbers runtimes hide
/// among the unknown fields, since that would lose what was sent.
#[inline]
fn push_name(names: &Enum, number: i32, column: &mut Column) -> Result<(), Stop> {
    let column = column!(column, Bytes);
    match names.name(number) {
        Some(name) => column.push(name.as_bytes()),
        None => column.push(number.to_string().as_bytes()),
    }
    Ok(())
}

/// Text of proto2 is held to be UTF-8 too, which its runtimes do not check: a column of text is nothing else.
#[inline]
fn push_text(bytes: &[u8], column: &mut Column) -> Result<(), Stop> {
    if std::str::from_utf8(bytes).is_err() {
        return Err((Reason::TypeMismatch, "a string is not UTF-8").into());
    }
    column!(column, Bytes).push(bytes);
    Ok(())
}
