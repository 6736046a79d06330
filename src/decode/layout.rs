//! Which columns a table has for its records' key, value and metadata, and under which names.

use super::avro::mapping::{MappingOptions, column_type, columns, is_columnless};
use super::avro::schema::{Kind, Schema};
use crate::error::Result;
use crate::model::schema::{Field, TableSchema, Type};

/// How records of a table are read and laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How keys are read.
    pub key_format: Format,
    /// What becomes of keys.
    pub key_columns: KeyColumns,
    /// How values are read.
    pub value_format: Format,
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
}

/// How bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not decided yet: by the registry's subjects, else by the first record.
    Auto,
    /// Confluent framing; the schema is the registry's.
    Registry,
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

/// A schema on one side of a record, as far as columns go.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    /// Nothing is known yet, or nothing is stored.
    Nothing,
    /// One column of this type.
    Column(&'a Type),
    /// As the schema says.
    Avro(&'a Schema),
}

impl Layout {
    /// The columns for records with this key and this value: key columns, value columns, metadata columns.
    ///
    /// # Errors
    /// `InvalidRecord` where a schema has a type without column type; the text names the field.
    pub fn table_schema(&self, key: Side<'_>, value: Side<'_>) -> Result<TableSchema> {
        let value_columns = self.side_columns(value, "value", false)?;
        let has = |name: &str| value_columns.iter().any(|field| field.name == name);
        let key_name = if has("key") { "key_key" } else { "key" };
        let as_struct = self.key_columns == KeyColumns::Struct;
        let mut fields = self.side_columns(key, key_name, as_struct)?;
        fields.retain(|field| !has(&field.name));
        fields.extend(value_columns);
        fields.extend(self.metadata.iter().map(|m| Field::optional(m.name(self.names), m.kind(self.names))));
        Ok(TableSchema { schema_id: -1, fields })
    }

    fn side_columns(&self, side: Side<'_>, name: &str, as_struct: bool) -> Result<Vec<Field>> {
        Ok(match side {
            Side::Nothing => Vec::new(),
            Side::Column(kind) => vec![Field::optional(name, kind.clone())],
            Side::Avro(schema) if is_columnless(schema) => Vec::new(),
            Side::Avro(Schema { kind: Kind::Record(record), .. }) if !as_struct => columns(record, self.mapping)?,
            Side::Avro(schema) => vec![Field::optional(name, column_type(schema, self.mapping, name)?.0)],
        })
    }

    /// True where `name` is one of this layout's metadata columns.
    #[must_use]
    pub fn is_metadata(&self, name: &str) -> bool {
        self.metadata.iter().any(|metadata| metadata.name(self.names) == name)
    }
}

/// `table` with the columns of `wanted` that it lacks, at any depth, always optional; new top-level columns stand
/// before the first metadata column. `None` where it lacks none.
///
/// # Errors
/// The path and both types of the first column that `table` has with a type that cannot take `wanted`'s.
pub fn extended(table: &TableSchema, wanted: &TableSchema, layout: &Layout) -> Result<Option<TableSchema>, String> {
    let mut fields = table.fields.clone();
    let position = fields.iter().position(|field| layout.is_metadata(&field.name)).unwrap_or(fields.len());
    let known = fields.len();
    let mut changed = extend_fields(&mut fields, &wanted.fields, "")?;
    if fields.len() > known {
        let new = fields.split_off(known);
        let (metadata, data): (Vec<_>, Vec<_>) = new.into_iter().partition(|field| layout.is_metadata(&field.name));
        fields.splice(position..position, data);
        fields.extend(metadata);
        changed = true;
    }
    Ok(changed.then_some(TableSchema { schema_id: -1, fields }))
}

fn extend_fields(table: &mut Vec<Field>, wanted: &[Field], path: &str) -> Result<bool, String> {
    let mut changed = false;
    for field in wanted {
        let path = format!("{path}{}", field.name);
        match table.iter_mut().find(|known| known.name == field.name) {
            Some(known) if known.required && !field.required => {
                return Err(format!("column `{path}` is required in the table and optional in the schema"));
            }
            Some(known) => changed |= extend_type(&mut known.kind, &field.kind, &path)?,
            None => {
                table.push(Field { required: false, ..field.clone() });
                changed = true;
            }
        }
    }
    Ok(changed)
}

fn extend_item(table: &mut Field, wanted: &Field, path: &str) -> Result<bool, String> {
    if table.required && !wanted.required {
        return Err(format!("column `{path}` is required in the table and optional in the schema"));
    }
    extend_type(&mut table.kind, &wanted.kind, path)
}

fn extend_type(table: &mut Type, wanted: &Type, path: &str) -> Result<bool, String> {
    match (table, wanted) {
        (Type::Struct(fields), Type::Struct(wanted)) => extend_fields(fields, wanted, &format!("{path}.")),
        (Type::List(element), Type::List(wanted)) => extend_item(element, wanted, &format!("{path}.element")),
        (Type::Map(key, value), Type::Map(wanted_key, wanted))
            if super::avro::program::takes(&key.kind, &wanted_key.kind) =>
        {
            extend_item(value, wanted, &format!("{path}.value"))
        }
        (table, wanted) if super::avro::program::takes(table, wanted) => Ok(false),
        (table, wanted) => Err(format!("column `{path}` is {table:?} in the table and {wanted:?} in the schema")),
    }
}
