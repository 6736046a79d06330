//! From an Avro schema to Iceberg types: the table of the mapping, one arm per row.

use super::schema::{Kind, Logical, Record, Schema};
use crate::error::{Error, Result};
use crate::model::schema::{Field, Type};

/// How values without one natural column type are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingOptions {
    /// What a time of day becomes.
    pub time_as: TimeAs,
    /// What a uuid becomes: its own type, or text as Tableflow has it.
    pub uuid_as_string: bool,
    /// True where a field without a null branch becomes a required column.
    pub keep_required: bool,
}

/// What a time of day becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeAs {
    /// Microseconds since midnight: Spark cannot load a table with a time column.
    Long,
    /// Iceberg's time.
    Time,
    /// `HH:MM:SS.ffffff`.
    String,
}

/// The comment of a column that holds a time of day as a number.
pub const TIME_DOC: &str = "microseconds since midnight";

/// The columns of a record.
///
/// # Errors
/// `InvalidRecord` where a field has no column type yet; the text names the field.
pub fn columns(record: &Record, options: MappingOptions) -> Result<Vec<Field>> {
    fields(record, options, "")
}

/// The column type of `schema`, and whether null is one of its values.
///
/// # Errors
/// As [`columns`].
pub fn column_type(schema: &Schema, options: MappingOptions, path: &str) -> Result<(Type, bool)> {
    let (schema, nullable) = split_optional(schema);
    Ok((non_null(schema, options, path)?, nullable))
}

/// A union with null and one other branch is that branch, optional; a union of one branch is that branch.
#[must_use]
pub fn split_optional(schema: &Schema) -> (&Schema, bool) {
    let Kind::Union(branches) = &schema.kind else { return (schema, false) };
    match branches.as_ref() {
        [one] => (one, false),
        [a, b] if a.kind == Kind::Null => (b, true),
        [a, b] if b.kind == Kind::Null => (a, true),
        _ => (schema, branches.iter().any(|branch| branch.kind == Kind::Null)),
    }
}

fn fields(record: &Record, options: MappingOptions, path: &str) -> Result<Vec<Field>> {
    let mut columns: Vec<Field> = Vec::with_capacity(record.fields.len());
    for field in &record.fields {
        let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        if is_columnless(&field.schema) {
            continue;
        }
        let (kind, nullable) = column_type(&field.schema, options, &path)?;
        let time = kind == Type::Long && is_time(&field.schema);
        let doc = field.doc.clone().or_else(|| time.then(|| TIME_DOC.to_owned()));
        let required = options.keep_required && !nullable;
        columns.push(Field { id: 0, name: unique_name(&columns, &field.name), kind, required, doc });
    }
    Ok(columns)
}

/// The name, or with a suffix where a sibling before it differs only by case: engines compare names without case.
fn unique_name(siblings: &[Field], name: &str) -> String {
    let taken = |name: &str| siblings.iter().any(|field| field.name.eq_ignore_ascii_case(name));
    if !taken(name) {
        return name.to_owned();
    }
    (2..).map(|n| format!("{name}_{n}")).find(|name| !taken(name)).unwrap_or_default()
}

/// True where nothing is to be stored: type null, values of no bytes, records without fields, since Iceberg has no
/// empty struct, and collections of these.
#[must_use]
pub fn is_columnless(schema: &Schema) -> bool {
    match &split_optional(schema).0.kind {
        Kind::Null | Kind::Fixed(0) => true,
        Kind::Record(record) => record.fields.iter().all(|field| is_columnless(&field.schema)),
        Kind::Array(items) | Kind::Map(items) => is_columnless(items),
        Kind::Entries(entry) => entry.fields.iter().any(|field| is_columnless(&field.schema)),
        _ => false,
    }
}

fn is_time(schema: &Schema) -> bool {
    matches!(split_optional(schema).0.logical, Some(Logical::TimeMillis | Logical::TimeMicros))
}

fn non_null(schema: &Schema, options: MappingOptions, path: &str) -> Result<Type> {
    let not_yet = |what: &str| Err(Error::invalid_record(format!("field `{path}`: {what} has no column type yet")));
    if let Some(logical) = schema.logical {
        return logical_type(logical, options, path);
    }
    Ok(match &schema.kind {
        Kind::Null => return not_yet("type null"),
        Kind::Boolean => Type::Boolean,
        Kind::Int => Type::Int,
        Kind::Long => Type::Long,
        Kind::Float => Type::Float,
        Kind::Double => Type::Double,
        Kind::Bytes => Type::Binary,
        Kind::Fixed(size) => Type::Fixed(u32::try_from(*size).unwrap_or(u32::MAX)),
        Kind::String | Kind::Enum(_) => Type::String,
        Kind::Record(record) => Type::Struct(fields(record, options, path)?),
        Kind::Array(items) => {
            let path = format!("{path}.element");
            Type::List(Box::new(nested("element", items, options, &path)?))
        }
        Kind::Map(values) => {
            let path = format!("{path}.value");
            let key = Field::required("key", Type::String);
            Type::Map(Box::new(key), Box::new(nested("value", values, options, &path)?))
        }
        Kind::Entries(entry) => {
            let [key, value] = entry.fields.as_slice() else {
                return not_yet("a map of other entries than key and value");
            };
            let (kind, _) = column_type(&key.schema, options, &format!("{path}.key"))?;
            let value = nested("value", &value.schema, options, &format!("{path}.value"))?;
            Type::Map(Box::new(Field::required("key", kind)), Box::new(value))
        }
        Kind::Union(_) => return not_yet("a union of several branches"),
        Kind::Recursive(name) => return not_yet(&format!("recursion into `{name}`")),
    })
}

fn nested(name: &str, schema: &Schema, options: MappingOptions, path: &str) -> Result<Field> {
    let (kind, nullable) = column_type(schema, options, path)?;
    let required = options.keep_required && !nullable;
    Ok(Field { required, ..Field::optional(name, kind) })
}

fn logical_type(logical: Logical, options: MappingOptions, path: &str) -> Result<Type> {
    Ok(match logical {
        Logical::Date => Type::Date,
        Logical::TimeMillis | Logical::TimeMicros => match options.time_as {
            TimeAs::Long => Type::Long,
            TimeAs::Time => Type::Time,
            TimeAs::String => Type::String,
        },
        Logical::TimestampMillis | Logical::TimestampMicros | Logical::TimestampNanos => Type::TimestampTz,
        Logical::LocalTimestampMillis | Logical::LocalTimestampMicros | Logical::LocalTimestampNanos => Type::Timestamp,
        Logical::Decimal(precision, scale) => match (u8::try_from(precision), u8::try_from(scale)) {
            (Ok(precision), Ok(scale)) if precision <= 38 => Type::Decimal(precision, scale),
            _ => {
                return Err(Error::invalid_record(format!(
                    "field `{path}`: decimal precision {precision} is beyond Iceberg's 38"
                )));
            }
        },
        Logical::Uuid if options.uuid_as_string => Type::String,
        Logical::Uuid => Type::Uuid,
    })
}
