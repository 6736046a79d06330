//! From a JSON Schema to Iceberg types: the table of the mapping, one arm per row. And what comments of columns say
//! of the JSON in them, where there is no schema to say it.

use std::borrow::Cow;

use super::schema::{Format, Kind, Object, Property, Schema};
use crate::decode::mapping::{JsonFormats, MappingOptions, TIME_DOC, TimeAs, free_name, unique_name};
use crate::error::{Error, Result};
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};

/// The comment of a text column whose values are JSON texts, a string in its quotes: decoding without a schema knows
/// such a column by it.
pub const JSON_DOC: &str = "JSON text";

/// Behind this a comment names the member that a column holds, where the column had to be called otherwise.
const MEMBER_DOC: &str = "of member ";

/// The columns of a record; `None` where it is no object and so makes one column. The branches of a union are columns.
///
/// # Errors
/// `InvalidRecord` where a member has no column type; the text names it.
pub fn columns(schema: &Schema, options: MappingOptions) -> Result<Option<Vec<Field>>> {
    Ok(match &schema.kind {
        Kind::Object(object) => Some(members(object, options, "")?.into_iter().map(|(_, field)| field).collect()),
        Kind::Union(branches) => Some(union(branches, options, "")?),
        _ => None,
    })
}

/// The column type of `schema`.
///
/// # Errors
/// As [`columns`].
pub fn column_type(schema: &Schema, options: MappingOptions) -> Result<Type> {
    kind_of(schema, options, "")
}

/// The members that have columns, and these.
pub(super) fn members<'s>(
    object: &'s Object,
    options: MappingOptions,
    path: &str,
) -> Result<Vec<(&'s Property, Field)>> {
    let mut members: Vec<(&Property, Field)> = Vec::with_capacity(object.properties.len());
    let mut fields: Vec<Field> = Vec::with_capacity(object.properties.len());
    for property in object.properties.iter().filter(|property| !property.is_columnless()) {
        let name = unique_name(&fields, &property.name);
        let field = field(name, &property.schema, !property.required, options, path)?;
        fields.push(field.clone());
        members.push((property, field));
    }
    Ok(members)
}

/// The fields of a union, one per branch.
pub(super) fn union(branches: &[(String, Schema)], options: MappingOptions, path: &str) -> Result<Vec<Field>> {
    let mut fields: Vec<Field> = Vec::with_capacity(branches.len());
    for (name, schema) in branches {
        let field = field(unique_name(&fields, name), schema, true, options, path)?;
        fields.push(field);
    }
    Ok(fields)
}

fn field(name: String, schema: &Schema, absent: bool, options: MappingOptions, path: &str) -> Result<Field> {
    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
    let kind = kind_of(schema, options, &path)?;
    let required = options.keep_required && !absent && !schema.nullable;
    let says = match schema.kind {
        Kind::Any => Some(JSON_DOC),
        Kind::TimeMillis | Kind::Text(Some(Format::Time)) if kind == Type::Long => Some(TIME_DOC),
        _ => None,
    };
    let doc = schema.doc.clone().or_else(|| says.map(str::to_owned));
    Ok(Field { required, doc, ..Field::optional(name, kind) })
}

fn kind_of(schema: &Schema, options: MappingOptions, path: &str) -> Result<Type> {
    let typed = options.json_formats == JsonFormats::Typed;
    Ok(match &schema.kind {
        Kind::Null | Kind::Any => Type::String,
        Kind::Boolean => Type::Boolean,
        Kind::Int => Type::Int,
        Kind::Long => Type::Long,
        Kind::Float => Type::Float,
        Kind::Double => Type::Double,
        Kind::Text(Some(Format::DateTime)) if typed => Type::TimestampTz,
        Kind::Text(Some(Format::Date)) if typed => Type::Date,
        Kind::Text(Some(Format::Time)) if typed => time_type(options),
        Kind::Text(Some(Format::Uuid)) if typed && !options.uuid_as_string => Type::Uuid,
        Kind::Text(_) => Type::String,
        Kind::Bytes => Type::Binary,
        Kind::Days => Type::Date,
        Kind::TimeMillis => time_type(options),
        Kind::TimestampMillis => Type::TimestampTz,
        Kind::Decimal(precision, scale) => match (u8::try_from(*precision), u8::try_from(*scale)) {
            (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => Type::Decimal(precision, scale),
            _ => {
                return Err(Error::invalid_record(format!(
                    "field `{path}`: decimal of precision {precision} and scale {scale} is beyond Iceberg's 38 digits"
                )));
            }
        },
        Kind::Array(items) => Type::List(Box::new(field("element".to_owned(), items, false, options, path)?)),
        Kind::Map(values) => {
            let value = field("value".to_owned(), values, false, options, path)?;
            Type::Map(Box::new(Field::required("key", Type::String)), Box::new(value))
        }
        Kind::Entries(key, value) => {
            let key = Field::required("key", kind_of(key, options, &format!("{path}.key"))?);
            Type::Map(Box::new(key), Box::new(field("value".to_owned(), value, false, options, path)?))
        }
        Kind::Object(object) => {
            Type::Struct(members(object, options, path)?.into_iter().map(|(_, field)| field).collect())
        }
        Kind::Union(branches) => Type::Struct(union(branches, options, path)?),
    })
}

fn time_type(options: MappingOptions) -> Type {
    match options.time_as {
        TimeAs::Long => Type::Long,
        TimeAs::Time => Type::Time,
        TimeAs::String => Type::String,
    }
}

/// A column for the member `key` where no schema names it, called so that no sibling's name differs only by case. Where that is not the member's own name, the comment says which member it is: so a member keeps its column
/// for ever, whatever comes later.
pub(super) fn inferred(siblings: &[Field], key: &str, projection: &Projection, kind: Type, is_json: bool) -> Field {
    let name = free_name(projection.name(key), |name| {
        siblings.iter().all(|field| !field.name.eq_ignore_ascii_case(name)) && projection.leaves_free(name, key)
    });
    let says = is_json.then(|| JSON_DOC.to_owned());
    let of = (name != key).then(|| format!("{MEMBER_DOC}{}", serde_json::Value::from(key)));
    let doc: Vec<String> = says.into_iter().chain(of).collect();
    Field { doc: (!doc.is_empty()).then(|| doc.join(" ")), ..Field::optional(name, kind) }
}

/// The member that `column` holds, where no schema says it: the one that its comment names, else the one whose column
/// is called so. `None` where that member has another column.
pub(super) fn member_of<'a>(column: &'a Field, projection: &'a Projection) -> Option<Cow<'a, str>> {
    let doc = column.doc.as_deref().unwrap_or_default();
    let doc = doc.strip_prefix(JSON_DOC).map_or(doc, str::trim_start);
    let key = doc.strip_prefix(MEMBER_DOC).and_then(|key| serde_json::from_str(key).ok());
    key.map(Cow::Owned).or_else(|| projection.field(&column.name).map(Cow::Borrowed))
}

/// True where the comment says that the column's texts are JSON.
pub(super) fn is_json(column: &Field) -> bool {
    column.kind == Type::String && column.doc.as_deref().is_some_and(|doc| doc.starts_with(JSON_DOC))
}
