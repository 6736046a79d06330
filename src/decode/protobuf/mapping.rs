//! From a Protobuf message to Iceberg types: the table of the mapping, one arm per row.

use std::sync::Arc;

use super::schema::{Enum, Kind, Message, MessageField, Presence, Scalar};
use super::wire::DEPTH_MAX;
use crate::decode::mapping::{MappingOptions, OneofAs, TIME_DOC, TableFormat, TimeAs, unique_name};
use crate::error::{Error, Result};
use crate::model::schema::{Field, Source as Identity, Type};

/// The comment of a column that holds a `google.protobuf.Duration`.
pub const DURATION_DOC: &str = "microseconds";

/// Precision and scale of a `confluent.type.Decimal` whose field says neither: each value carries a scale of its own,
/// and half of the digits on either side lets most amounts in without a loss. What does not fit is out of range.
pub const DECIMAL_DEFAULT: (u8, u8) = (38, 18);

/// Fields that one message may come to, nested ones included: a short schema can ask for 2^50.
const FIELDS_MAX: usize = 20_000;

/// The columns of a message.
///
/// # Errors
/// `InvalidRecord` where a field has no column type, or there are too many; the text names the message.
pub fn columns(message: &Message, options: MappingOptions) -> Result<Vec<Field>> {
    Ok(Walk::new(options).parts(message)?.columns)
}

/// The type of one column that holds all of a message.
///
/// # Errors
/// As [`columns`], and where the message has none: Iceberg has no empty struct.
pub fn column_type(message: &Message, options: MappingOptions) -> Result<Type> {
    match columns(message, options)? {
        columns if columns.is_empty() => {
            Err(Error::invalid_record(format!("message `{}` has no fields for columns", message.full_name())))
        }
        columns => Ok(Type::Struct(columns)),
    }
}

/// What one value of a field becomes.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Scalar(Scalar),
    Enum(Arc<Enum>),
    Struct(Message),
    Timestamp,
    Duration,
    Date,
    TimeOfDay,
    Wrapper(Scalar),
    Decimal,
    Json(Message),
}

/// What a column is filled from.
pub(super) enum Source<'a> {
    /// A field, and what one of its values becomes; of a map, the entry's value.
    Field(&'a MessageField, Shape),
    /// The members of a oneof.
    Oneof(Parts<'a>),
}

/// A message's columns, each with its source. Fields that store nothing have none.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) columns: Vec<Field>,
    pub(super) sources: Vec<Source<'a>>,
}

/// The way from the outermost message down.
pub(super) struct Walk {
    options: MappingOptions,
    /// Messages that lie inside each other here; one of them inside itself is recursion.
    pub(super) open: Vec<usize>,
    /// Fields met so far; who walks the same messages again sets it back.
    pub(super) fields: usize,
}

impl Walk {
    pub(super) fn new(options: MappingOptions) -> Self {
        Self { options, open: Vec::new(), fields: 0 }
    }

    /// The columns of a message inside those that are open.
    pub(super) fn parts<'a>(&mut self, message: &'a Message) -> Result<Parts<'a>> {
        self.fields += message.fields().len();
        if self.open.len() >= DEPTH_MAX || self.fields > FIELDS_MAX {
            let name = message.full_name();
            return Err(Error::invalid_record(format!("message `{name}` lies too deep or is one of too many")));
        }
        self.open.push(message.index());
        let mut parts = Parts::default();
        let mut groups: Vec<Parts<'a>> = message.oneofs().iter().map(|_| Parts::default()).collect();
        for field in message.fields() {
            let Some((kind, shape)) = self.field(message, field)? else { continue };
            let siblings = match field.oneof {
                Some(oneof) if self.options.oneof == OneofAs::Struct => &mut groups[oneof],
                _ => &mut parts,
            };
            let doc = field.doc.clone().or_else(|| match shape {
                Shape::Duration => Some(DURATION_DOC.to_owned()),
                Shape::TimeOfDay if self.options.time_as == TimeAs::Long => Some(TIME_DOC.to_owned()),
                _ => None,
            });
            let name = unique_name(&siblings.columns, &field.name);
            let required = self.options.keep_required && field.presence != Presence::Optional;
            let sources = vec![number(message.full_name().to_owned(), field, &field.name)];
            siblings.columns.push(Field { required, doc, sources, ..Field::optional(name, kind) });
            siblings.sources.push(Source::Field(field, shape));
        }
        self.open.pop();
        for (name, members) in message.oneofs().iter().zip(groups).filter(|(_, members)| !members.columns.is_empty()) {
            // A oneof has no number; it is the one that has its members.
            let of = format!("{} oneof", message.full_name());
            let numbers = members.sources.iter().filter_map(|source| match source {
                Source::Field(field, _) => Some(number(of.clone(), field, name)),
                Source::Oneof(_) => None,
            });
            let (sources, name) = (numbers.collect(), unique_name(&parts.columns, name));
            let column = Field::optional(name, Type::Struct(members.columns.clone()));
            parts.columns.push(Field { sources, ..column });
            parts.sources.push(Source::Oneof(members));
        }
        Ok(parts)
    }

    /// The type of a field's column and what one value of it becomes; `None` where nothing is to be stored.
    fn field(&mut self, message: &Message, field: &MessageField) -> Result<Option<(Type, Shape)>> {
        let required = self.options.keep_required;
        let nested = |name: &str, kind| Box::new(Field { required, ..Field::optional(name, kind) });
        if let Kind::Entry(index) = field.kind {
            let entry = message.of(index);
            let [key, value] = [1, 2].map(|number| entry.position(number).map(|at| &entry.fields()[at]));
            let (Some(MessageField { kind: Kind::Scalar(key), .. }), Some(value)) = (key, value) else {
                return Err(Error::invalid_record(format!("`{}` is no entry of a map", entry.full_name())));
            };
            let key = Box::new(Field::required("key", self.scalar(*key)));
            let value = self.value(&entry, value)?;
            return Ok(value.map(|(kind, shape)| (Type::Map(key, nested("value", kind)), shape)));
        }
        let value = self.value(message, field)?;
        Ok(value.map(|(kind, shape)| match field.presence {
            Presence::Repeated => (Type::List(nested("element", kind)), shape),
            _ => (kind, shape),
        }))
    }

    fn value(&mut self, message: &Message, field: &MessageField) -> Result<Option<(Type, Shape)>> {
        let inner = match &field.kind {
            Kind::Scalar(scalar) => return Ok(Some((self.scalar(*scalar), Shape::Scalar(*scalar)))),
            Kind::Enum(names) => return Ok(Some((Type::String, Shape::Enum(Arc::clone(names))))),
            Kind::Message(index) | Kind::Group(index) | Kind::Entry(index) => message.of(*index),
        };
        if let Some(scalar) = wrapped(inner.full_name()) {
            return Ok(Some((self.scalar(scalar), Shape::Wrapper(scalar))));
        }
        Ok(Some(match inner.full_name() {
            "google.protobuf.Timestamp" if self.options.format == TableFormat::V3 => {
                (Type::TimestampTzNs, Shape::Timestamp)
            }
            "google.protobuf.Timestamp" => (Type::TimestampTz, Shape::Timestamp),
            "google.protobuf.Duration" => (Type::Long, Shape::Duration),
            "google.type.Date" => (Type::Date, Shape::Date),
            "google.type.TimeOfDay" => match self.options.time_as {
                TimeAs::Long => (Type::Long, Shape::TimeOfDay),
                TimeAs::Time => (Type::Time, Shape::TimeOfDay),
                TimeAs::String => (Type::String, Shape::TimeOfDay),
            },
            "confluent.type.Decimal" => (decimal(field)?, Shape::Decimal),
            "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
                (Type::String, Shape::Json(inner))
            }
            _ if self.open.contains(&inner.index()) => (Type::String, Shape::Json(inner)),
            _ => match self.parts(&inner)?.columns {
                columns if columns.is_empty() => return Ok(None),
                columns => (Type::Struct(columns), Shape::Struct(inner)),
            },
        }))
    }

    fn scalar(&self, scalar: Scalar) -> Type {
        match scalar {
            Scalar::Double => Type::Double,
            Scalar::Float => Type::Float,
            Scalar::Int32 | Scalar::Sint32 | Scalar::Sfixed32 => Type::Int,
            Scalar::Uint32 | Scalar::Fixed32 | Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 => Type::Long,
            Scalar::Uint64 | Scalar::Fixed64 if self.options.uint64_as_long => Type::Long,
            Scalar::Uint64 | Scalar::Fixed64 => Type::Decimal(20, 0),
            Scalar::Bool => Type::Boolean,
            Scalar::String => Type::String,
            Scalar::Bytes => Type::Binary,
        }
    }
}

fn number(of: String, field: &MessageField, name: &str) -> Identity {
    Identity::Number { of, number: field.number, name: name.to_owned() }
}

/// What the messages of `google/protobuf/wrappers.proto` hold.
pub(super) fn wrapped(full_name: &str) -> Option<Scalar> {
    Some(match full_name.strip_prefix("google.protobuf.")? {
        "DoubleValue" => Scalar::Double,
        "FloatValue" => Scalar::Float,
        "Int64Value" => Scalar::Int64,
        "UInt64Value" => Scalar::Uint64,
        "Int32Value" => Scalar::Int32,
        "UInt32Value" => Scalar::Uint32,
        "BoolValue" => Scalar::Bool,
        "StringValue" => Scalar::String,
        "BytesValue" => Scalar::Bytes,
        _ => return None,
    })
}

/// As the parameters of `confluent.field_meta` say; a precision alone means scale 0, as in Confluent's converter.
fn decimal(field: &MessageField) -> Result<Type> {
    let (precision, scale) = match field.decimal {
        (None, None) => DECIMAL_DEFAULT,
        (precision, scale) => (precision.unwrap_or(38), scale.unwrap_or(0)),
    };
    if !(1..=38).contains(&precision) || scale > precision {
        let name = &field.name;
        return Err(Error::invalid_record(format!("field `{name}`: no decimal has ({precision}, {scale})")));
    }
    Ok(Type::Decimal(precision, scale))
}
