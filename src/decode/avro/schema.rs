//! Avro schemas as decoding needs them: named types resolved, logical types recognised, annotations kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::ports::RegisteredSchema;

/// A schema: what the bytes are, and what they mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// What the bytes are.
    pub kind: Kind,
    /// What they mean, where the pair of type and annotation is one that the specification knows.
    pub logical: Option<Logical>,
}

/// Avro's types.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// No bytes.
    Null,
    /// One byte.
    Boolean,
    /// Zigzag varint of 32 bits.
    Int,
    /// Zigzag varint of 64 bits.
    Long,
    /// Four bytes, little endian.
    Float,
    /// Eight bytes, little endian.
    Double,
    /// Length and bytes.
    Bytes,
    /// Length and UTF-8.
    String,
    /// That many bytes.
    Fixed(usize),
    /// Index into the symbols.
    Enum(Arc<[String]>),
    /// Fields in order.
    Record(Arc<Record>),
    /// Blocks of elements.
    Array(Box<Schema>),
    /// Blocks of string keys and values.
    Map(Box<Schema>),
    /// An array whose elements are the entries of a map: records of a `key` that is never null and a `value`.
    Entries(Arc<Record>),
    /// Branch index and value.
    Union(Arc<[Schema]>),
    /// A record inside itself, by full name.
    Recursive(String),
}

/// A record type.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Full name.
    pub name: String,
    /// Fields in order.
    pub fields: Vec<RecordField>,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordField {
    /// Name.
    pub name: String,
    /// Comment.
    pub doc: Option<String>,
    /// Type.
    pub schema: Schema,
}

/// Logical types of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logical {
    /// Days since the epoch.
    Date,
    /// Milliseconds since midnight.
    TimeMillis,
    /// Microseconds since midnight.
    TimeMicros,
    /// Milliseconds since the epoch, UTC.
    TimestampMillis,
    /// Microseconds since the epoch, UTC.
    TimestampMicros,
    /// Nanoseconds since the epoch, UTC.
    TimestampNanos,
    /// Milliseconds since the epoch, no zone.
    LocalTimestampMillis,
    /// Microseconds since the epoch, no zone.
    LocalTimestampMicros,
    /// Nanoseconds since the epoch, no zone.
    LocalTimestampNanos,
    /// Two's complement, big endian: precision, scale.
    Decimal(u32, u32),
    /// Canonical text or 16 bytes.
    Uuid,
}

/// Reads a registered schema and what it refers to.
///
/// # Errors
/// `InvalidRecord` where the text is no Avro schema.
pub fn parse(registered: &RegisteredSchema) -> Result<Schema> {
    let mut names = Names::default();
    read_registered(registered, &mut names)
}

/// Reads a schema's text that refers to nothing outside of itself.
///
/// # Errors
/// As [`parse`].
pub fn parse_text(text: &str) -> Result<Schema> {
    read_text(text, &mut Names::default())
}

fn read_registered(registered: &RegisteredSchema, names: &mut Names) -> Result<Schema> {
    for (_, reference) in &registered.references {
        read_registered(reference, names)?;
    }
    read_text(&registered.text, names)
}

fn read_text(text: &str, names: &mut Names) -> Result<Schema> {
    let json: Value = serde_json::from_str(text)
        .or_else(|e| {
            if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
                Ok(Value::String(text.to_owned()))
            } else {
                Err(e)
            }
        })
        .map_err(|e| invalid("the text is not JSON").with_source(e))?;
    names.read(&json, None)
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_record(format!("read Avro schema: {what}"))
}

#[derive(Default)]
struct Names {
    /// `None` while the type is being read: a reference to it then is recursion.
    known: BTreeMap<String, Option<Schema>>,
}

impl Names {
    fn read(&mut self, json: &Value, namespace: Option<&str>) -> Result<Schema> {
        match json {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|b| self.read(b, namespace)).collect::<Result<Vec<_>>>()?;
                Ok(plain(Kind::Union(branches.into())))
            }
            Value::Object(object) => self.object(object, namespace),
            _ => Err(invalid("a type is a name, a list of branches or an object")),
        }
    }

    fn named(&self, name: &str, namespace: Option<&str>) -> Result<Schema> {
        if let Some(kind) = primitive(name) {
            return Ok(plain(kind));
        }
        let full = full_name(name, namespace);
        let known = self.known.get(&full).or_else(|| self.known.get(name));
        match known {
            Some(Some(schema)) => Ok(schema.clone()),
            Some(None) => Ok(plain(Kind::Recursive(full))),
            None => Err(invalid(format!("type `{full}` is not defined"))),
        }
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: Option<&str>) -> Result<Schema> {
        let kind = match object.get("type") {
            Some(Value::String(name)) => name.as_str(),
            Some(nested) => return self.read(nested, namespace),
            None => return Err(invalid("an object without `type`")),
        };

        match kind {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols =
                    object.get("symbols").and_then(Value::as_array).ok_or_else(|| invalid("enum without `symbols`"))?;
                let symbols = symbols.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
                self.define(object, namespace, plain(Kind::Enum(symbols.into())))
            }
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
                let kind = Kind::Fixed(size.ok_or_else(|| invalid("fixed without `size`"))?);
                let logical = logical(&kind, object);
                self.define(object, namespace, Schema { kind, logical })
            }
            "array" => {
                let items = object.get("items").ok_or_else(|| invalid("array without `items`"))?;
                Ok(plain(array(self.read(items, namespace)?, object, items)))
            }
            "map" => {
                let values = object.get("values").ok_or_else(|| invalid("map without `values`"))?;
                Ok(plain(Kind::Map(Box::new(self.read(values, namespace)?))))
            }
            name => {
                let mut schema = self.named(name, namespace)?;
                schema.logical = logical(&schema.kind, object).or(schema.logical);
                Ok(schema)
            }
        }
    }

    fn define(&mut self, object: &Map<String, Value>, namespace: Option<&str>, schema: Schema) -> Result<Schema> {
        let (full, _) = definition_name(object, namespace)?;
        self.known.insert(full, Some(schema.clone()));
        Ok(schema)
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: Option<&str>) -> Result<Schema> {
        let (full, inner) = definition_name(object, namespace)?;
        self.known.insert(full.clone(), None);
        let fields =
            object.get("fields").and_then(Value::as_array).ok_or_else(|| invalid("record without `fields`"))?;
        let fields = fields
            .iter()
            .map(|field| {
                let name = field.get("name").and_then(Value::as_str).ok_or_else(|| invalid("field without `name`"))?;
                let kind = field.get("type").ok_or_else(|| invalid(format!("field `{name}` without `type`")))?;
                // A common slip puts `logicalType` beside the field's `type` instead of inside; the specification
                // gives it no meaning there, and so do we.
                let schema = self.read(kind, inner.as_deref())?;
                let doc = field.get("doc").and_then(Value::as_str).map(str::to_owned);
                Ok(RecordField { name: name.to_owned(), doc, schema })
            })
            .collect::<Result<Vec<_>>>()?;
        let schema = plain(Kind::Record(Arc::new(Record { name: full.clone(), fields })));
        self.known.insert(full, Some(schema.clone()));
        Ok(schema)
    }
}

/// An array, or a map where it says to be one: Kafka Connect writes maps of other keys than strings so, and Iceberg's
/// own Avro files do.
fn array(items: Schema, array: &Map<String, Value>, written: &Value) -> Kind {
    if let Kind::Record(entry) = &items.kind
        && let [key, value] = entry.fields.as_slice()
        && (key.name.as_str(), value.name.as_str()) == ("key", "value")
        && !matches!(key.schema.kind, Kind::Null | Kind::Union(_))
    {
        let says = |value: Option<&Value>, text: &str| value.and_then(Value::as_str) == Some(text);
        if entry.name.rsplit('.').next() == Some("MapEntry")
            || says(array.get("logicalType"), "map")
            || says(written.get("connect.internal.type"), "MapEntry")
        {
            return Kind::Entries(Arc::clone(entry));
        }
    }
    Kind::Array(Box::new(items))
}

fn plain(kind: Kind) -> Schema {
    Schema { kind, logical: None }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn full_name(name: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(space) if !name.contains('.') && !space.is_empty() => format!("{space}.{name}"),
        _ => name.to_owned(),
    }
}

/// The full name that `object` defines and the namespace that holds inside it.
fn definition_name(object: &Map<String, Value>, outer: Option<&str>) -> Result<(String, Option<String>)> {
    let name = object.get("name").and_then(Value::as_str).ok_or_else(|| invalid("named type without `name`"))?;
    let namespace = object.get("namespace").and_then(Value::as_str).or(outer);
    let full = full_name(name, namespace);
    let inner = full.rsplit_once('.').map(|(space, _)| space.to_owned());
    Ok((full, inner))
}

/// The logical type, where the annotation is one that the specification defines for this type; else none, and the
/// type is taken as what it is, as the specification demands.
fn logical(kind: &Kind, object: &Map<String, Value>) -> Option<Logical> {
    let number = |key: &str| object.get(key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
    match (object.get("logicalType")?.as_str()?, kind) {
        ("date", Kind::Int) => Some(Logical::Date),
        ("time-millis", Kind::Int) => Some(Logical::TimeMillis),
        ("time-micros", Kind::Long) => Some(Logical::TimeMicros),
        ("timestamp-millis", Kind::Long) => Some(Logical::TimestampMillis),
        ("timestamp-micros", Kind::Long) => Some(Logical::TimestampMicros),
        ("timestamp-nanos", Kind::Long) => Some(Logical::TimestampNanos),
        ("local-timestamp-millis", Kind::Long) => Some(Logical::LocalTimestampMillis),
        ("local-timestamp-micros", Kind::Long) => Some(Logical::LocalTimestampMicros),
        ("local-timestamp-nanos", Kind::Long) => Some(Logical::LocalTimestampNanos),
        ("uuid", Kind::String | Kind::Fixed(16)) => Some(Logical::Uuid),
        ("decimal", Kind::Bytes | Kind::Fixed(_)) => {
            let (precision, scale) = (number("precision")?, number("scale").unwrap_or(0));
            (precision > 0 && scale <= precision).then_some(Logical::Decimal(precision, scale))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_by_namespace_and_recursion_is_seen() {
        let schema = parse_text(
            r#"{"type":"record","name":"Node","namespace":"a.b","fields":[
                {"name":"id","type":{"type":"fixed","name":"Id","size":16,"logicalType":"uuid"}},
                {"name":"other","type":"Id"},
                {"name":"next","type":["null","Node"]},
                {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}}]}"#,
        )
        .unwrap();
        let Kind::Record(record) = schema.kind else { panic!("no record") };
        assert_eq!(record.name, "a.b.Node");
        assert_eq!(record.fields[1].schema, record.fields[0].schema);
        assert_eq!(record.fields[0].schema.logical, Some(Logical::Uuid));
        let Kind::Union(branches) = &record.fields[2].schema.kind else { panic!("no union") };
        assert_eq!(branches[1].kind, Kind::Recursive("a.b.Node".to_owned()));
        assert_eq!(record.fields[3].schema.logical, Some(Logical::Decimal(10, 2)));
    }

    #[test]
    fn an_annotation_that_does_not_fit_is_ignored() {
        let schema = parse_text(r#"{"type":"string","logicalType":"date"}"#).unwrap();
        assert_eq!(schema, plain(Kind::String));
        let schema = parse_text(r#"{"type":"bytes","logicalType":"decimal","precision":2,"scale":5}"#).unwrap();
        assert_eq!(schema.logical, None);
    }
}
