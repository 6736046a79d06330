//! Values of recursive records as JSON text, straight from their bytes.
//!
//! Records and maps are objects, arrays arrays, a union's value stands bare. Bytes and fixed are base64, enums their
//! symbols, decimals text with all their digits, uuids canonical text. Dates, times of day and timestamps are ISO 8601,
//! the fraction as long as it has to be, `Z` behind instants; those outside the calendar stay numbers. Floating-point
//! numbers that JSON lacks are the texts `NaN`, `Infinity` and `-Infinity`.

use std::fmt::Debug;
use std::io::Write as _;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveTime};

use super::cursor::Cursor;
use super::schema::{Definitions, Kind, LEVELS_MAX, Logical, Node, Record, Schema};
use super::skip::{NO_BRANCH, NO_SYMBOL, TOO_DEEP};
use crate::decode::Failure;
use crate::decode::decimal;
use crate::model::decoded::Reason;

/// The text of one value: the names of fields stand in it again and again, and not in the record's bytes.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// A value to be written as JSON.
#[derive(Debug)]
pub(super) struct Json {
    node: Node,
    definitions: Definitions,
}

impl Json {
    pub(super) fn new(node: &Node, schema: &Schema) -> Self {
        Self { node: node.clone(), definitions: schema.definitions.clone() }
    }

    /// Appends the text of the value that comes next; what is wrong with it leaves half a text behind.
    #[cold]
    pub(super) fn write(&self, cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
        let bytes_max = out.len() + TEXT_BYTES_MAX;
        Writer { definitions: &self.definitions, cursor, out, bytes_max }.value(&self.node, LEVELS_MAX)
    }
}

struct Writer<'a, 'b, 'c> {
    definitions: &'a Definitions,
    cursor: &'b mut Cursor<'c>,
    out: &'b mut Vec<u8>,
    bytes_max: usize,
}

impl Writer<'_, '_, '_> {
    /// A value in which at most `levels` records, arrays and maps stand in one another.
    fn value(&mut self, node: &Node, levels: u32) -> Result<(), Failure> {
        if self.out.len() > self.bytes_max {
            return Err((Reason::TooLarge, "the JSON text of a value has more than 16 MiB"));
        }
        if let Some(logical) = node.logical {
            return self.logical(&node.kind, logical);
        }
        let inside = || levels.checked_sub(1).ok_or(TOO_DEEP);
        match &node.kind {
            Kind::Union(branches) => {
                let index = self.cursor.index(NO_BRANCH, branches.len())?;
                self.value(&branches[index], levels)?;
            }
            Kind::Record(record) => self.record(record, inside()?)?,
            Kind::Recursive(index) => {
                let definitions = self.definitions;
                self.record(&definitions[*index], inside()?)?;
            }
            Kind::Array(items) => {
                let levels = inside()?;
                self.list([b'[', b']'], |writer| writer.value(items, levels))?;
            }
            Kind::Entries(entry) => {
                let levels = inside()?.checked_sub(1).ok_or(TOO_DEEP)?;
                self.list([b'[', b']'], |writer| writer.record(entry, levels))?;
            }
            Kind::Map(values) => {
                let levels = inside()?;
                self.list([b'{', b'}'], |writer| {
                    let key = writer.cursor.text()?;
                    writer.text(key);
                    writer.out.push(b':');
                    writer.value(values, levels)
                })?;
            }
            flat => self.flat(flat)?,
        }
        Ok(())
    }

    /// A value that holds no others.
    fn flat(&mut self, kind: &Kind) -> Result<(), Failure> {
        match kind {
            Kind::Null => self.bare("null"),
            Kind::Boolean => {
                let value = self.cursor.boolean()?;
                self.bare(value);
            }
            Kind::Int => {
                let value = self.cursor.int()?;
                self.bare(value);
            }
            Kind::Long => {
                let value = self.cursor.long()?;
                self.bare(value);
            }
            Kind::Float => {
                let value = f32::from_le_bytes(self.cursor.array()?);
                self.float(value, value.into());
            }
            Kind::Double => {
                let value = f64::from_le_bytes(self.cursor.array()?);
                self.float(value, value);
            }
            Kind::Bytes => {
                let bytes = self.cursor.bytes()?;
                self.base64(bytes);
            }
            Kind::Fixed(size) => {
                let bytes = self.cursor.take(*size)?;
                self.base64(bytes);
            }
            Kind::String => {
                let text = self.cursor.text()?;
                self.text(text);
            }
            Kind::Enum(symbols) => {
                let index = self.cursor.index(NO_SYMBOL, symbols.symbols.len())?;
                self.text(&symbols.symbols[index]);
            }
            _ => return Err((Reason::TypeMismatch, "a value that holds others is taken for a flat one")),
        }
        Ok(())
    }

    fn record(&mut self, record: &Record, levels: u32) -> Result<(), Failure> {
        self.out.push(b'{');
        for (index, field) in record.fields.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.text(&field.name);
            self.out.push(b':');
            self.value(&field.node, levels)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn list(
        &mut self,
        [open, close]: [u8; 2],
        mut element: impl FnMut(&mut Writer<'_, '_, '_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.out.push(open);
        let Self { definitions, cursor, out, bytes_max } = self;
        let mut first = true;
        cursor.blocks(|cursor| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            element(&mut Writer { definitions, cursor, out, bytes_max: *bytes_max })
        })?;
        self.out.push(close);
        Ok(())
    }

    fn logical(&mut self, kind: &Kind, logical: Logical) -> Result<(), Failure> {
        let per_second = match logical {
            Logical::TimeMillis | Logical::TimestampMillis | Logical::LocalTimestampMillis => 1_000,
            Logical::TimeMicros | Logical::TimestampMicros | Logical::LocalTimestampMicros => 1_000_000,
            Logical::TimeNanos | Logical::TimestampNanos | Logical::LocalTimestampNanos => 1_000_000_000,
            Logical::Date => 1,
            Logical::ZonedTimestamp | Logical::Decimal(..) | Logical::Uuid => return self.texts(kind, logical),
        };
        let value = if *kind == Kind::Int { self.cursor.int()?.into() } else { self.cursor.long()? };
        let seconds = value.div_euclid(per_second);
        let nanos = u32::try_from(value.rem_euclid(per_second) * (1_000_000_000 / per_second)).unwrap_or(0);
        match logical {
            Logical::Date => {
                let midnight = DateTime::from_timestamp(value * 86_400, 0);
                self.quoted(midnight.map(|midnight| midnight.date_naive()), value);
            }
            Logical::TimeMillis | Logical::TimeMicros | Logical::TimeNanos => {
                let seconds = u32::try_from(seconds).ok();
                let time = seconds.and_then(|seconds| NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos));
                self.quoted(time, value);
            }
            Logical::TimestampMillis | Logical::TimestampMicros | Logical::TimestampNanos => {
                self.quoted(DateTime::from_timestamp(seconds, nanos), value);
            }
            _ => self.quoted(DateTime::from_timestamp(seconds, nanos).map(|instant| instant.naive_utc()), value),
        }
        Ok(())
    }

    fn texts(&mut self, kind: &Kind, logical: Logical) -> Result<(), Failure> {
        let bytes = match kind {
            Kind::Fixed(size) => self.cursor.take(*size)?,
            Kind::String => self.cursor.text()?.as_bytes(),
            _ => self.cursor.bytes()?,
        };
        if let Logical::Decimal(_, scale) = logical {
            self.out.push(b'"');
            decimal::write(bytes, scale as usize, self.out)?;
            self.out.push(b'"');
        } else if let (Kind::Fixed(_), Ok(uuid)) = (kind, uuid::Uuid::from_slice(bytes)) {
            self.text(uuid.hyphenated().encode_lower(&mut [0; 36]));
        } else {
            self.text(std::str::from_utf8(bytes).unwrap_or_default());
        }
        Ok(())
    }

    fn quoted(&mut self, value: Option<impl Debug>, number: i64) {
        match value {
            Some(value) => drop(write!(self.out, "\"{value:?}\"")),
            None => self.bare(number),
        }
    }

    fn float(&mut self, value: impl Debug, wide: f64) {
        match wide {
            wide if wide.is_finite() => drop(write!(self.out, "{value:?}")),
            wide if wide.is_nan() => self.text("NaN"),
            wide => self.text(if wide > 0.0 { "Infinity" } else { "-Infinity" }),
        }
    }

    fn bare(&mut self, value: impl std::fmt::Display) {
        let _ = write!(self.out, "{value}");
    }

    fn base64(&mut self, bytes: &[u8]) {
        let _ = write!(self.out, "\"{}\"", Base64Display::new(bytes, &STANDARD));
    }

    fn text(&mut self, text: &str) {
        // A vector takes all bytes and a text has a JSON form always.
        let _ = serde_json::to_writer(&mut *self.out, text);
    }
}
