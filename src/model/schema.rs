//! A table's schema in Iceberg's types, each field with its id, and the Arrow schema that follows from it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};

/// The Arrow metadata key that carries a field's id into Parquet and back.
pub const FIELD_ID_KEY: &str = "PARQUET:field_id";

/// The column of a table for what fits no other of its columns, as JSON.
pub const RESCUED: &str = "_rescued";

/// The one spelling of UTC that Arrow's kernels, Iceberg and Parquet agree on.
pub const UTC: &str = "+00:00";

/// Columns of a table, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableSchema {
    /// Iceberg's id of this schema; -1 before it is committed.
    pub schema_id: i32,
    /// Top-level columns.
    pub fields: Vec<Field>,
    /// By type of record the newest schema that names columns, by its id in the registry: an older one renames and drops
    /// nothing any more. Types are missing that nothing depends on.
    pub newest: BTreeMap<String, u32>,
}

/// A column or a nested field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// What it is in the schemas of records, beside a field of its name.
    pub sources: Vec<Source>,
    /// What the table says of it beside its type.
    pub marks: Marks,
}

/// What a table's metadata may say of a field beside its type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Marks {
    /// True for one of the fields that tell the table's rows apart, which are never null.
    pub identifies: bool,
    /// Format 3: the value of rows in files that lack the field, since they are older. In Iceberg's single-value binary
    /// form (spec, appendix D), as bounds are.
    pub initial_default: Option<Vec<u8>>,
    /// Format 3: the value of rows for which a writer has none. In the same form.
    pub write_default: Option<Vec<u8>>,
}

/// What a column is in the schemas of records, or what else a schema says that its field may be known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A field of another name, which it had.
    Name(String),
    /// A field of another name, by what a schema says, of which no record has been met.
    Alias(String),
    /// A field of a Protobuf message.
    Number {
        /// The message's full name; of a oneof, with ` oneof` behind it.
        of: String,
        /// The field's number; of a oneof, a member's.
        number: u32,
        /// What it is called there.
        name: String,
    },
    /// A field of this type of record, at any depth. Only kept where columns are dropped with their last field.
    Of(String),
}

/// Iceberg's types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    /// Nanoseconds since the epoch, without zone; format 3.
    TimestampNs,
    /// Nanoseconds since the epoch, UTC; format 3.
    TimestampTzNs,
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
        Self {
            id: 0,
            name: name.into(),
            kind,
            required: false,
            doc: None,
            sources: Vec::new(),
            marks: Marks::default(),
        }
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
    /// True where a column of this type takes values of type `value`: the same, one that Iceberg promotes to it, or an
    /// instant of another precision, whose finer part is cut off. Structs take each other: their fields are matched one
    /// by one.
    #[must_use]
    pub fn takes(&self, value: &Self) -> bool {
        match (self, value) {
            (Self::Struct(_), Self::Struct(_))
            | (Self::Timestamp, Self::TimestampNs)
            | (Self::TimestampNs, Self::Timestamp)
            | (Self::TimestampTz, Self::TimestampTzNs)
            | (Self::TimestampTzNs, Self::TimestampTz) => true,
            (wide, narrow) if narrow.becomes(wide) => true,
            (Self::List(a), Self::List(b)) => a.kind.takes(&b.kind),
            (Self::Map(k, a), Self::Map(l, b)) => k.kind.takes(&l.kind) && a.kind.takes(&b.kind),
            _ => self == value,
        }
    }

    /// True where Iceberg promotes a column of this type to `wider` (spec, "Schema Evolution").
    #[must_use]
    pub fn becomes(&self, wider: &Self) -> bool {
        match (self, wider) {
            (Self::Int, Self::Long) | (Self::Float, Self::Double) => true,
            (Self::Decimal(p, s), Self::Decimal(q, t)) => p < q && s == t,
            _ => false,
        }
    }

    /// Into how many parts an instant of this type divides a second; `None` for what is no instant.
    #[must_use]
    pub fn per_second(&self) -> Option<i64> {
        match self {
            Self::Timestamp | Self::TimestampTz => Some(1_000_000),
            Self::TimestampNs | Self::TimestampTzNs => Some(1_000_000_000),
            _ => None,
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
            Self::TimestampNs => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Self::TimestampTzNs => DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into())),
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
            Self::TimestampNs => "timestamp_ns",
            Self::TimestampTzNs => "timestamptz_ns",
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
    /// Columns that are not committed.
    #[must_use]
    pub fn of(fields: Vec<Field>) -> Self {
        Self { schema_id: -1, fields, newest: BTreeMap::new() }
    }

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
