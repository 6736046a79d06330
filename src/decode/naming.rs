//! The name of a record's type, by the schema that it names, without reading the record.

use std::collections::HashMap;
use std::sync::Arc;

use super::MessagePath;
use super::framing::{SchemaKey, Which, framed};
use super::layout::Format;
use super::protobuf::framing;
use super::schema::Schema;
use crate::model::raw::{RawBatch, RawRecord};

/// Schemas looked up so far; `None` stands for one that cannot be used.
pub type Schemas = HashMap<SchemaKey, Option<Arc<Schema>>, ahash::RandomState>;

/// What a value says of its record's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// Its full name, as [`Schema::name`] says it.
    Name(&'a str),
    /// The schema is to be looked up first.
    By(SchemaKey),
    /// Nothing: there is no value, no schema, or one without a name.
    Nothing,
}

/// The name of the type of a record's value in the registry's framing.
#[must_use]
pub fn record_name<'a>(schemas: &'a Schemas, batch: &RawBatch, record: &RawRecord) -> Named<'a> {
    let Some(bytes) = batch.value(record) else { return Named::Nothing };
    let framed = framed(Format::Registry, Which::Value, bytes, batch.headers(record));
    let Ok(Some(framed)) = framed else { return Named::Nothing };
    let schema = match schemas.get(&framed.key) {
        None => return Named::By(framed.key),
        Some(None) => return Named::Nothing,
        Some(Some(schema)) => schema,
    };
    let path = match (schema.as_ref(), framed.behind) {
        (Schema::Avro(_) | Schema::Json(_), _) | (Schema::Protobuf(_), Some([])) => Ok((MessagePath::FIRST, 0)),
        (Schema::Protobuf(_), Some(behind)) => framing::read(behind),
        (Schema::Protobuf(_), None) => framing::read(&bytes[framed.start..]),
    };
    path.ok().and_then(|(path, _)| schema.name(path)).map_or(Named::Nothing, Named::Name)
}
