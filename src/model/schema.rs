//! A table's schema in Iceberg's types, each field with its id, and the Arrow schema that follows from it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};

/// The Arrow metadata key that carries a field's id into Parquet and back.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// The one spelling of UTC that Arrow's kernels, Iceberg and Parquet agree on.
pub const UTC: &str = "+00:00";

/// Columns of a table, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSchema {
    /// Iceberg's id of this schema; -1 before it is committed.
    pub schema_id: i32,
    /// Top-level columns.
    pub fields: Vec<Field>,
}

/// A column or a nested field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Iceberg's field id; 0 before it is committed.
    pub id: i32,
    /// Name, unique among its siblings.
    pub name: String,
    /// Type.
    pub kind: Type,
    /// True where null is no value.
    pub required: bool,
    /// Comment.
    pub doc: Option<String>,
}

/// Iceberg's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// True or false.
    Boolean,
    /// 32 bits, signed.
    Int,
    /// 64 bits, signed.
    Long,
    /// 32-bit IEEE 754.
    Float,
    /// 64-bit IEEE 754.
    Double,
    /// Fixed-point number: precision (1 to 38), scale.
    Decimal(u8, u8),
    /// Days since 1970-01-01.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since the epoch, without zone.
    Timestamp,
    /// Microseconds since the epoch, UTC.
    TimestampTz,
    /// UTF-8 text.
    String,
    /// 16 bytes.
    Uuid,
    /// That many bytes.
    Fixed(u32),
    /// Any bytes.
    Binary,
    /// Named fields.
    Struct(Vec<Field>),
    /// Elements; the field's name is `element`.
    List(Box<Field>),
    /// Keys (required) and values; the fields' names are `key` and `value`.
    Map(Box<Field>, Box<Field>),
}

impl Field {
    /// An optional field without an id yet.
    pub fn optional(name: impl Into<String>, kind: Type) -> Self {
        Self { id: 0, name: name.into(), kind, required: false, doc: None }
    }

    /// A required field without an id yet.
    pub fn required(name: impl Into<String>, kind: Type) -> Self {
        Self { required: true, ..Self::optional(name, kind) }
    }

    /// The Arrow field, its id in the metadata.
    #[must_use]
    pub fn to_arrow(&self) -> ArrowField {
        let metadata = HashMap::from([(FIELD_ID_KEY.to_owned(), self.id.to_string())]);
        ArrowField::new(&self.name, self.kind.to_arrow(), !self.required).with_metadata(metadata)
    }
}

impl Type {
    /// True where a column of this type takes values of type `value`: the same, or one that Iceberg promotes to it
    /// (spec, "Schema Evolution"). Structs take each other: their fields are matched one by one.
    #[must_use]
    pub fn takes(&self, value: &Self) -> bool {
        match (self, value) {
            (Self::Long, Self::Int) | (Self::Double, Self::Float) | (Self::Struct(_), Self::Struct(_)) => true,
            (Self::Decimal(p, s), Self::Decimal(q, t)) => p >= q && s == t,
            (Self::List(a), Self::List(b)) => a.kind.takes(&b.kind),
            (Self::Map(k, a), Self::Map(l, b)) => k.kind.takes(&l.kind) && a.kind.takes(&b.kind),
            _ => self == value,
        }
    }

    /// True for structs, lists and maps.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        matches!(self, Self::Struct(_) | Self::List(_) | Self::Map(..))
    }

    /// The Arrow type that batches of this column have.
    #[must_use]
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, scale.cast_signed()),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::String => DataType::Utf8,
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::Fixed(len) => DataType::FixedSizeBinary(i32::try_from(*len).unwrap_or(i32::MAX)),
            Self::Binary => DataType::Binary,
            Self::Struct(fields) => DataType::Struct(fields.iter().map(Field::to_arrow).collect()),
            Self::List(element) => DataType::List(Arc::new(element.to_arrow())),
            Self::Map(key, value) => {
                let entries = Fields::from(vec![key.to_arrow(), value.to_arrow()]);
                DataType::Map(Arc::new(ArrowField::new("key_value", DataType::Struct(entries), false)), false)
            }
        }
    }
}

/// A type in Iceberg's words.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::String => "string",
            Self::Uuid => "uuid",
            Self::Binary => "binary",
            Self::Decimal(precision, scale) => return write!(f, "decimal({precision}, {scale})"),
            Self::Fixed(bytes) => return write!(f, "fixed[{bytes}]"),
            Self::List(element) => return write!(f, "list<{}>", element.kind),
            Self::Map(key, value) => return write!(f, "map<{}, {}>", key.kind, value.kind),
            Self::Struct(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|field| format!("{}: {}", field.name, field.kind)).collect();
                return write!(f, "struct<{}>", fields.join(", "));
            }
        };
        f.write_str(word)
    }
}

impl TableSchema {
    /// The Arrow schema of this table's batches.
    #[must_use]
    pub fn to_arrow(&self) -> SchemaRef {
        Arc::new(ArrowSchema::new(self.fields.iter().map(Field::to_arrow).collect::<Fields>()))
    }

    /// The top-level column called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}
