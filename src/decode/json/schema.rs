//! JSON Schemas as decoding needs them: what values a place may have, and nothing of how they are validated.
//! `reader` finds that out.

use std::sync::Arc;

use serde_json::Value;

use super::documents::Documents;
use super::reader::Reader;
use crate::error::{Error, Result};
use crate::ports::RegisteredSchema;

/// What values a place may have.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// Their type.
    pub kind: Kind,
    /// True where null is one of them.
    pub nullable: bool,
    /// The title, by which branches of unions are named.
    pub title: Option<String>,
    /// The description.
    pub doc: Option<String>,
    /// The place among the members of an object that Kafka Connect gave it.
    pub index: Option<i64>,
    /// The values of `const` or `enum`; empty where there is neither.
    pub allowed: Vec<Value>,
}

/// Types of values.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing but null, or nothing at all.
    Null,
    /// Anything, or what no column type describes.
    Any,
    /// True or false.
    Boolean,
    /// A whole number; Connect's int8, int16 and int32.
    Int,
    /// A whole number.
    Long,
    /// A number; Connect's float32.
    Float,
    /// A number.
    Double,
    /// Text.
    Text(Option<Format>),
    /// Connect's bytes: text in base64.
    Bytes,
    /// Connect's Date: days since the epoch.
    Days,
    /// Connect's Time: milliseconds since midnight.
    TimeMillis,
    /// Connect's Timestamp: milliseconds since the epoch.
    TimestampMillis,
    /// Connect's Decimal, precision and scale: a number, or its unscaled digits (two's complement, big endian) in
    /// base64, which is what the converter writes by default.
    Decimal(u64, i64),
    /// An array.
    Array(Box<Schema>),
    /// An object whose members are all alike.
    Map(Box<Schema>),
    /// Connect's map of other keys than strings: an array of objects with `key` and `value`.
    Entries(Box<Schema>, Box<Schema>),
    /// An object of known members.
    Object(Arc<Object>),
    /// Values of several types, named.
    Union(Arc<[(String, Schema)]>),
}

/// Formats of texts that have column types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 3339.
    DateTime,
    /// RFC 3339's full-date.
    Date,
    /// RFC 3339's full-time.
    Time,
    /// RFC 4122.
    Uuid,
}

/// The members of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// In the order of `connect.index`, then of the schema.
    pub properties: Vec<Property>,
    /// True where there may be no others.
    pub closed: bool,
}

/// A member of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// Name.
    pub name: String,
    /// Values.
    pub schema: Schema,
    /// True where every object has it.
    pub required: bool,
}

impl Schema {
    /// Values of type `kind`, without anything else said of them.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self { kind, nullable: false, title: None, doc: None, index: None, allowed: Vec::new() }
    }
}

impl Property {
    /// True where nothing is to be stored, or under no name: what comes nevertheless is an unknown member.
    #[must_use]
    pub fn is_columnless(&self) -> bool {
        self.schema.kind == Kind::Null || self.name.is_empty()
    }
}

/// Reads a registered schema and what it refers to. Drafts 4, 6, 7, 2019-09 and 2020-12.
///
/// # Errors
/// `InvalidRecord` where the text is no JSON Schema or refers to something that is not there.
pub fn parse(registered: &RegisteredSchema) -> Result<Schema> {
    let mut texts = vec![("", value(&registered.text)?)];
    collect(registered, &mut texts)?;
    read(&texts)
}

/// Reads a schema's text that refers to nothing outside of itself.
///
/// # Errors
/// As [`parse`].
pub fn parse_text(text: &str) -> Result<Schema> {
    read(&[("", value(text)?)])
}

fn collect<'a>(registered: &'a RegisteredSchema, texts: &mut Vec<(&'a str, Value)>) -> Result<()> {
    for (name, reference) in &registered.references {
        texts.push((name, value(&reference.text)?));
        collect(reference, texts)?;
    }
    Ok(())
}

fn read(texts: &[(&str, Value)]) -> Result<Schema> {
    let (documents, root) = Documents::new(texts.iter().map(|(name, value)| (*name, value)))?;
    let root = root.ok_or_else(|| Error::bug("a schema without text"))?;
    Reader::new(&documents).read(&[root])
}

fn value(text: &str) -> Result<Value> {
    let value = serde_json::from_str(text).map_err(|e| invalid("the text is not JSON").with_source(e))?;
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(value),
        _ => Err(invalid("a schema is an object or a boolean")),
    }
}

pub(super) fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_record(format!("read JSON Schema: {what}"))
}
