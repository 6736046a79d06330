//! Which columns a table has for its records' key, value and metadata, and under which names.

use std::sync::Arc;

use super::evolution::Evolution;
use super::mapping::MappingOptions;
use super::schema::{Columns, Schema};
use crate::error::Result;
use crate::model::projection::Projection;
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::SchemaFormat;

/// How records of a table are read and laid out.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// How keys are read.
    pub key_format: Format,
    /// What becomes of keys.
    pub key_columns: KeyColumns,
    /// How values are read.
    pub value_format: Format,
    /// Which fields of keys and values have columns.
    pub projection: Arc<Projection>,
    /// The names of the metadata columns.
    pub names: MetadataNames,
    /// The metadata columns, in the order that the naming scheme gives.
    pub metadata: Vec<Metadata>,
    /// The mapping of types.
    pub mapping: MappingOptions,
    /// What becomes of a record without value that has a key.
    pub tombstones: Tombstones,
    /// Key, value and headers of a record together may have that many bytes.
    pub record_bytes_max: usize,
    /// What becomes of schemas that the table's columns do not fit.
    pub evolution: Evolution,
    /// Columns whose own values partition the table: their types stay, since files are told apart by them.
    pub partitioned: Vec<String>,
    /// Columns that the configuration counts on, `address.city` for a field of a struct: their names stay.
    pub pinned: Vec<String>,
    /// Schemas that the configuration gives.
    pub given: Given,
}

/// Schemas that the configuration gives, where the format is [`Format::Given`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Given {
    /// For keys.
    pub key: Option<GivenSchema>,
    /// For values.
    pub value: Option<GivenSchema>,
}

/// A schema that the configuration gives. Two are the same where their texts are.
#[derive(Debug, Clone)]
pub struct GivenSchema {
    /// Its language and text.
    pub written: (SchemaFormat, String),
    /// It.
    pub schema: Arc<Schema>,
}

impl PartialEq for GivenSchema {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

/// How bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not decided yet: by the registry's subjects, else by the first record.
    Auto,
    /// Confluent framing; the schema is the registry's.
    Registry,
    /// No framing; the schema is the configuration's.
    Given,
    /// JSON without a schema: types are taken from the values.
    Json,
    /// UTF-8 text in one column.
    String,
    /// Bytes in one column.
    Bytes,
    /// Not read, no column.
    None,
}

/// What becomes of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyColumns {
    /// A record's fields become columns; any other key becomes column `key`.
    Flatten,
    /// Column `key`, a struct where the key is a record.
    Struct,
    /// Column `key` with the bytes as they are.
    Raw,
    /// No column.
    None,
}

/// What becomes of records without value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// A row of nulls beside the key.
    Keep,
    /// A dead letter.
    DeadLetter,
}

/// Naming schemes of metadata columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataNames {
    /// `kafka_offset`
    Kafka,
    /// `$$offset`
    Tableflow,
    /// `cflt_metadata_offset`
    TableflowPortable,
}

/// Metadata columns, in table order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metadata {
    /// Topic name.
    Topic,
    /// Partition number.
    Partition,
    /// Headers.
    Headers,
    /// Epoch of the leader that wrote the record.
    LeaderEpoch,
    /// Offset.
    Offset,
    /// Timestamp.
    Timestamp,
    /// Who set the timestamp.
    TimestampType,
    /// Key bytes.
    RawKey,
    /// Value bytes.
    RawValue,
    /// How often the topic was declared made anew.
    Incarnation,
}

impl Metadata {
    /// All, in table order.
    pub const ALL: [Self; 10] = [
        Self::Topic,
        Self::Partition,
        Self::Headers,
        Self::LeaderEpoch,
        Self::Offset,
        Self::Timestamp,
        Self::TimestampType,
        Self::RawKey,
        Self::RawValue,
        Self::Incarnation,
    ];

    /// The column's name in a scheme.
    #[must_use]
    pub fn name(self, names: MetadataNames) -> String {
        let word = match self {
            Self::Topic => "topic",
            Self::Partition => "partition",
            Self::Headers => "headers",
            Self::LeaderEpoch => "leader-epoch",
            Self::Offset => "offset",
            Self::Timestamp => "timestamp",
            Self::TimestampType => "timestamp-type",
            Self::RawKey => "raw-key",
            Self::RawValue => "raw-value",
            Self::Incarnation => "incarnation",
        };
        match names {
            MetadataNames::Kafka => format!("kafka_{}", word.replace('-', "_")),
            MetadataNames::Tableflow => format!("$${word}"),
            MetadataNames::TableflowPortable => format!("cflt_metadata_{}", word.replace('-', "_")),
        }
    }

    /// The column's type in a scheme.
    #[must_use]
    pub fn kind(self, names: MetadataNames) -> Type {
        match self {
            Self::Topic | Self::TimestampType => Type::String,
            Self::Partition | Self::LeaderEpoch | Self::Incarnation => Type::Int,
            Self::Offset => Type::Long,
            Self::Timestamp => Type::TimestampTz,
            Self::RawKey | Self::RawValue => Type::Binary,
            Self::Headers => {
                let key = Field::required("key", Type::String);
                let value = Field::optional("value", Type::Binary);
                if names == MetadataNames::Kafka {
                    Type::List(Box::new(Field::optional("element", Type::Struct(vec![key, value]))))
                } else {
                    Type::Map(Box::new(key), Box::new(value))
                }
            }
        }
    }
}

impl Layout {
    /// The columns for records with this key and this value: key columns, value columns, metadata columns.
    ///
    /// # Errors
    /// `InvalidRecord` where two fields would have one column.
    pub fn table_schema(&self, key: Columns, value: Columns) -> Result<TableSchema> {
        self.table_schema_with(key, value, false)
    }

    /// As [`Layout::table_schema`], where the table may have a value column `key` already.
    pub(super) fn table_schema_with(&self, key: Columns, value: Columns, key_is_taken: bool) -> Result<TableSchema> {
        let mut fields = self.projection.columns(self.fields(key, value, key_is_taken))?;
        fields.extend(self.metadata.iter().map(|m| Field::optional(m.name(self.names), m.kind(self.names))));
        Ok(TableSchema::of(fields))
    }

    /// All fields of records with this key and this value, as columns would be called if nothing were chosen.
    #[must_use]
    pub fn fields(&self, key: Columns, value: Columns, key_is_taken: bool) -> Vec<Field> {
        let value_columns = side_columns(value, "value", false);
        let has = |name: &str| value_columns.iter().any(|field| field.name == name);
        let key_name = if key_is_taken || has("key") { "key_key" } else { "key" };
        let mut fields = side_columns(key, key_name, self.key_columns == KeyColumns::Struct);
        fields.retain(|field| value_columns.iter().all(|other| !other.name.eq_ignore_ascii_case(&field.name)));
        fields.extend(value_columns);
        fields
    }

    /// True where `name` is one of this layout's metadata columns.
    #[must_use]
    pub fn is_metadata(&self, name: &str) -> bool {
        self.metadata.iter().any(|metadata| metadata.name(self.names) == name)
    }
}

pub(super) fn side_columns(shape: Columns, name: &str, as_one: bool) -> Vec<Field> {
    match shape {
        Columns::Each(fields) if !as_one => fields,
        shape => shape.into_type().map(|kind| Field::optional(name, kind)).into_iter().collect(),
    }
}
