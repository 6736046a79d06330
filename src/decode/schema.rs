//! A schema in any language: the columns that it makes, and the program that reads its bytes. One arm per language.

use super::avro::{mapping as avro_mapping, names, program as avro_program, schema as avro_schema};
use super::columns::Column;
use super::json::{RESCUED, mapping as json_mapping, program as json_program, schema as json_schema};
use super::mapping::MappingOptions;
use super::protobuf::{mapping as protobuf_mapping, program as protobuf_program, schema as protobuf_schema};
use super::{Failure, MessagePath};
use crate::error::Result;
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};
use crate::ports::{RegisteredSchema, SchemaFormat};

/// A schema of keys or values.
#[derive(Debug)]
pub enum Schema {
    /// Avro.
    Avro(avro_schema::Schema),
    /// Protobuf: a file with one message or many.
    Protobuf(protobuf_schema::File),
    /// JSON Schema.
    Json(json_schema::Schema),
}

/// What a schema makes of columns.
#[derive(Debug, Clone, PartialEq)]
pub enum Columns {
    /// Nothing is to be stored.
    Nothing,
    /// One column, whose name the side of the record gives.
    One(Type),
    /// A column per field.
    Each(Vec<Field>),
}

impl Columns {
    /// The type of the one column that holds all of it; `None` where nothing is to be stored.
    #[must_use]
    pub fn into_type(self) -> Option<Type> {
        match self {
            Self::Nothing => None,
            Self::One(kind) => Some(kind),
            Self::Each(mut fields) => {
                fields.retain(|field| field.name != RESCUED);
                // Iceberg has no empty struct.
                (!fields.is_empty()).then_some(Type::Struct(fields))
            }
        }
    }
}

impl Schema {
    /// Reads a registered schema and what it refers to.
    ///
    /// # Errors
    /// `InvalidRecord` where the text is no schema of its language.
    pub fn parse(registered: &RegisteredSchema) -> Result<Self> {
        match registered.format {
            SchemaFormat::Avro => names::parse(registered).map(Self::Avro),
            SchemaFormat::Protobuf => protobuf_schema::parse(registered).map(Self::Protobuf),
            SchemaFormat::Json => json_schema::parse(registered).map(Self::Json),
        }
    }

    /// The language's name.
    #[must_use]
    pub fn language(&self) -> &'static str {
        match self {
            Self::Avro(_) => "avro",
            Self::Protobuf(_) => "protobuf",
            Self::Json(_) => "json",
        }
    }

    /// The full name of what `path` picks: of an Avro type with its namespace, of a Protobuf message with its package, a
    /// JSON Schema's title.
    #[must_use]
    pub fn name(&self, path: MessagePath) -> Option<&str> {
        let name = match self {
            Self::Avro(schema) => schema.root.name.as_ref().map(|name| name.full.as_str()),
            Self::Protobuf(file) => file.message(path).ok().map(|message| message.full_name()),
            Self::Json(schema) => schema.title.as_deref(),
        };
        name.filter(|name| !name.is_empty())
    }

    /// The message types that a record may be one of, where the language has such.
    #[must_use]
    pub fn messages(&self) -> Option<&protobuf_schema::File> {
        match self {
            Self::Protobuf(file) => Some(file),
            Self::Avro(_) | Self::Json(_) => None,
        }
    }

    /// The columns of what `path` picks. JSON has one more, for what fits no other.
    ///
    /// # Errors
    /// `InvalidRecord` where a field has no column type; the text names the field.
    pub fn columns(&self, path: MessagePath, options: MappingOptions) -> Result<Columns> {
        Ok(match self {
            Self::Avro(schema) => match avro_mapping::columns_of(schema, options)? {
                Some(columns) => Columns::Each(columns),
                None => Columns::One(avro_mapping::column_type(&schema.root, options, "")?.0),
            },
            Self::Protobuf(file) => Columns::Each(protobuf_mapping::columns(file.message(path)?, options)?),
            Self::Json(schema) => match json_mapping::columns(schema, options)? {
                Some(columns) => Columns::Each(with_rescued(columns)),
                None => Columns::One(json_mapping::column_type(schema, options)?),
            },
        })
    }
}

/// `columns` and the one for what fits none of them; a field of its name has it for itself.
pub(super) fn with_rescued(mut columns: Vec<Field>) -> Vec<Field> {
    if columns.iter().all(|field| !field.name.eq_ignore_ascii_case(RESCUED)) {
        columns.push(Field::optional(RESCUED, Type::String));
    }
    columns
}

/// Where a record's values go.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Each field into the column of its name among these.
    Fields(&'a [usize]),
    /// All of it into one column.
    One(usize),
}

/// A schema, or a table's columns alone, compiled for reading.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and each lies in a box")]
pub enum Program {
    /// Avro.
    Avro(avro_program::Program),
    /// Protobuf.
    Protobuf(protobuf_program::Program),
    /// JSON, with or without schema.
    Json(json_program::Program),
}

impl Program {
    /// Compiles what `path` picks of `schema`, and `projection` of that, against the columns of `table`.
    ///
    /// # Errors
    /// `InvalidRecord` where a field has no column type or one that the table's column cannot take.
    pub fn compile(
        schema: &Schema,
        path: MessagePath,
        table: &[Field],
        target: Target<'_>,
        options: MappingOptions,
        projection: &Projection,
    ) -> Result<Self> {
        use Target::{Fields, One};
        match (schema, target) {
            (Schema::Avro(schema), Fields(open)) => {
                avro_program::Program::compile(schema, table, open, options, projection).map(Self::Avro)
            }
            (Schema::Avro(schema), One(index)) => {
                avro_program::Program::compile_single(schema, table, index, options, projection).map(Self::Avro)
            }
            (Schema::Protobuf(file), Fields(open)) => {
                let message = file.message(path)?;
                protobuf_program::Program::compile(message, table, open, options, projection).map(Self::Protobuf)
            }
            (Schema::Protobuf(file), One(index)) => {
                let message = file.message(path)?;
                protobuf_program::Program::compile_single(message, table, index, options, projection)
                    .map(Self::Protobuf)
            }
            (Schema::Json(schema), Fields(open)) => {
                let rescued = rescued(schema, table, open, options)?;
                json_program::Program::compile(schema, table, open, options, projection, rescued).map(Self::Json)
            }
            (Schema::Json(schema), One(index)) => {
                json_program::Program::compile_single(schema, table, index, options, projection, None).map(Self::Json)
            }
        }
    }

    /// Compiles the columns of `table` that `open` lists for JSON without a schema.
    ///
    /// # Errors
    /// `InvalidRecord` where the column for what fits no other is no text.
    pub fn schemaless(table: &[Field], open: &[usize], projection: &Projection) -> Result<Self> {
        json_program::Program::schemaless(table, open, projection, place(table, open)).map(Self::Json)
    }

    /// The columns that it fills.
    #[must_use]
    pub fn filled(&self) -> Vec<usize> {
        match self {
            Self::Avro(program) => program.filled(),
            Self::Protobuf(program) => program.filled().collect(),
            Self::Json(program) => program.filled().collect(),
        }
    }

    /// Reads one record that is exactly `bytes` and appends a value to each column that the program fills.
    ///
    /// # Errors
    /// What is wrong with the bytes; some columns then have half a row.
    #[inline]
    pub(super) fn run(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), Failure> {
        match self {
            Self::Avro(program) => program.run(bytes, columns),
            Self::Protobuf(program) => program.run(bytes, columns),
            Self::Json(program) => program.run(bytes, columns),
        }
    }
}

/// The column for what fits no other, unless the schema has a field of its name.
fn rescued(
    schema: &json_schema::Schema,
    table: &[Field],
    open: &[usize],
    options: MappingOptions,
) -> Result<Option<usize>> {
    let own = json_mapping::columns(schema, options)?.unwrap_or_default();
    Ok(place(table, open).filter(|_| own.iter().all(|field| field.name != RESCUED)))
}

fn place(table: &[Field], open: &[usize]) -> Option<usize> {
    open.iter().copied().find(|index| table[*index].name == RESCUED)
}
