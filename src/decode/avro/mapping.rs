//! From an Avro schema to Iceberg types: the table of the mapping, one arm per row.
//!
//! A reference to a record from inside its own definition becomes JSON text (see `json` for its form): the first level
//! of a recursive record has columns, every further one is text. This goes by the definition, so that a type has one
//! mapping wherever it is referred to. What Kafka Connect and Debezium say in `connect.name` counts always.

use super::default::default;
use super::schema::{Kind, Logical, Node, Record, RecordField, Schema, simple_name};
use crate::decode::mapping::{MappingOptions, TIME_DOC, TableFormat, TimeAs, unique_name};
use crate::error::{Error, Result};
use crate::model::schema::{Field, Marks, Source, Type};

/// Iceberg's limit of digits; decimals of more become text.
const PRECISION_MAX: u32 = 38;

/// What the values of a schema are to a table.
#[derive(Debug)]
pub(super) enum Row<'a> {
    /// Nothing that is stored.
    Nothing,
    /// A column per field; `nullable` where null is a value beside the record.
    Record { fields: &'a [RecordField], nullable: bool },
    /// A column per branch.
    Union(Vec<RecordField>),
    /// One column.
    Value,
}

impl<'a> Row<'a> {
    pub(super) fn of(schema: &'a Schema) -> Self {
        let (node, nullable) = split_optional(&schema.root);
        match &node.kind {
            _ if is_columnless(node) => Self::Nothing,
            Kind::Record(record) => Self::Record { fields: &record.fields, nullable },
            Kind::Union(branches) => Self::Union(branch_fields(branches)),
            _ => Self::Value,
        }
    }
}

/// The columns of a schema whose values are rows: records, unions of several branches, and what has no columns at all.
/// `None`: its values are for one column.
///
/// # Errors
/// `InvalidRecord` where a field has no column type; the text names the field.
pub fn columns_of(schema: &Schema, options: MappingOptions) -> Result<Option<Vec<Field>>> {
    Ok(match Row::of(schema) {
        Row::Nothing => Some(Vec::new()),
        Row::Record { fields, nullable } => Some(columns(fields, nullable, options, "")?),
        Row::Union(branches) => Some(columns(&branches, true, options, "")?),
        Row::Value => None,
    })
}

/// The column type of `node`, and whether null is one of its values.
///
/// # Errors
/// As [`columns_of`].
pub fn column_type(node: &Node, options: MappingOptions, path: &str) -> Result<(Type, bool)> {
    let (node, nullable) = split_optional(node);
    Ok((non_null(node, options, path)?, nullable))
}

/// A union with null and one other branch is that branch, optional; a union of one branch is that branch.
#[must_use]
pub fn split_optional(node: &Node) -> (&Node, bool) {
    let Kind::Union(branches) = &node.kind else { return (node, false) };
    match branches.as_ref() {
        [one] => (one, false),
        [a, b] if a.kind == Kind::Null => (b, true),
        [a, b] if b.kind == Kind::Null => (a, true),
        _ => (node, branches.iter().any(|branch| branch.kind == Kind::Null)),
    }
}

/// The branches of a union as the fields of a record, by their simple names; by full names where two of those clash.
pub(super) fn branch_fields(branches: &[Node]) -> Vec<RecordField> {
    let simple = |branch: &Node| branch.name.as_ref().map_or(branch.word(), |name| name.simple()).to_owned();
    let names: Vec<String> = branches.iter().map(simple).collect();
    let field = |(branch, name): (&Node, &String)| {
        let clashes = names.iter().filter(|other| *other == name).count() > 1;
        let name = if clashes { branch.word().replace('.', "_") } else { name.clone() };
        let aliases = branch.name.iter().flat_map(|name| &name.aliases).map(|alias| simple_name(alias).to_owned());
        RecordField { name, aliases: aliases.collect(), doc: None, default: None, node: branch.clone() }
    };
    branches.iter().zip(&names).map(field).collect()
}

/// The columns of `fields`; all optional where `nullable`.
///
/// # Errors
/// As [`columns_of`].
pub(super) fn columns(
    fields: &[RecordField],
    nullable: bool,
    options: MappingOptions,
    path: &str,
) -> Result<Vec<Field>> {
    let mut columns: Vec<Field> = Vec::with_capacity(fields.len());
    let is_top = path.is_empty();
    for field in fields.iter().filter(|field| !is_columnless(&field.node)) {
        let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        let (kind, null) = column_type(&field.node, options, &path)?;
        let time = kind == Type::Long && is_time(&field.node);
        let doc = field.doc.clone().or_else(|| time.then(|| TIME_DOC.to_owned()));
        let required = options.keep_required && !nullable && !null;
        // An alias that a sibling has as its name is that sibling.
        let aliases = field.aliases.iter().filter(|alias| fields.iter().all(|other| other.name != **alias));
        let sources = aliases.filter(|_| !options.by_name).cloned().map(Source::Alias).collect();
        let mut marks = Marks::default();
        if options.format == TableFormat::V3 && is_top {
            marks.initial_default = field.default.as_ref().and_then(|value| default(&field.node, &kind, value));
            marks.write_default.clone_from(&marks.initial_default);
        }
        let name = unique_name(&columns, &field.name);
        columns.push(Field { required, doc, sources, marks, ..Field::optional(name, kind) });
    }
    Ok(columns)
}

/// True where nothing is to be stored: type null, values of no bytes, records without fields, since Iceberg has no
/// empty struct, and collections and unions of these.
#[must_use]
pub fn is_columnless(node: &Node) -> bool {
    let any = |record: &Record| record.fields.iter().any(|field| is_columnless(&field.node));
    match &node.kind {
        Kind::Null | Kind::Fixed(0) => true,
        Kind::Record(record) => record.fields.iter().all(|field| is_columnless(&field.node)),
        Kind::Array(items) | Kind::Map(items) => is_columnless(items),
        Kind::Entries(entry) => any(entry),
        Kind::Union(branches) => branches.iter().all(is_columnless),
        _ => false,
    }
}

fn is_time(node: &Node) -> bool {
    matches!(split_optional(node).0.logical, Some(Logical::TimeMillis | Logical::TimeMicros | Logical::TimeNanos))
}

fn non_null(node: &Node, options: MappingOptions, path: &str) -> Result<Type> {
    if let Some(logical) = node.logical {
        return Ok(logical_type(logical, options));
    }
    let none = |what: &str| Err(Error::invalid_record(format!("field `{path}`: {what} has no column type")));
    Ok(match &node.kind {
        Kind::Null => return none("type null"),
        Kind::Boolean => Type::Boolean,
        Kind::Int => Type::Int,
        Kind::Long => Type::Long,
        Kind::Float => Type::Float,
        Kind::Double => Type::Double,
        Kind::Bytes => Type::Binary,
        Kind::Fixed(size) => Type::Fixed(u32::try_from(*size).unwrap_or(u32::MAX)),
        Kind::String | Kind::Enum(_) | Kind::Recursive(_) => Type::String,
        Kind::Record(record) => Type::Struct(columns(&record.fields, false, options, path)?),
        Kind::Union(branches) => Type::Struct(columns(&branch_fields(branches), true, options, path)?),
        Kind::Array(items) => Type::List(Box::new(nested("element", items, options, path)?)),
        Kind::Map(values) => {
            let key = Field::required("key", Type::String);
            Type::Map(Box::new(key), Box::new(nested("value", values, options, path)?))
        }
        Kind::Entries(entry) => {
            let [key, value] = entry.fields.as_slice() else {
                return none("a map of other entries than key and value");
            };
            let (kind, _) = column_type(&key.node, options, &format!("{path}.key"))?;
            let value = nested("value", &value.node, options, path)?;
            Type::Map(Box::new(Field::required("key", kind)), Box::new(value))
        }
    })
}

fn nested(name: &str, node: &Node, options: MappingOptions, path: &str) -> Result<Field> {
    let (kind, nullable) = column_type(node, options, &format!("{path}.{name}"))?;
    let required = options.keep_required && !nullable;
    Ok(Field { required, ..Field::optional(name, kind) })
}

fn logical_type(logical: Logical, options: MappingOptions) -> Type {
    match logical {
        Logical::Date => Type::Date,
        Logical::TimeMillis | Logical::TimeMicros | Logical::TimeNanos => match options.time_as {
            TimeAs::Long => Type::Long,
            TimeAs::Time => Type::Time,
            TimeAs::String => Type::String,
        },
        Logical::TimestampNanos if options.format == TableFormat::V3 => Type::TimestampTzNs,
        Logical::LocalTimestampNanos if options.format == TableFormat::V3 => Type::TimestampNs,
        Logical::TimestampMillis | Logical::TimestampMicros | Logical::TimestampNanos | Logical::ZonedTimestamp => {
            Type::TimestampTz
        }
        Logical::LocalTimestampMillis | Logical::LocalTimestampMicros | Logical::LocalTimestampNanos => Type::Timestamp,
        Logical::Decimal(precision, scale) => match (u8::try_from(precision), u8::try_from(scale)) {
            (Ok(digits), Ok(scale)) if precision <= PRECISION_MAX => Type::Decimal(digits, scale),
            _ => Type::String,
        },
        Logical::Uuid if options.uuid_as_string => Type::String,
        Logical::Uuid => Type::Uuid,
    }
}
