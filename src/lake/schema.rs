//! Between the table schema that everything shares and Iceberg's own, and the ids of new columns.

use std::sync::Arc;

use iceberg::spec::{
    ListType, Literal, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, TableMetadata,
    Type as IcebergType,
};

use super::identity;
use super::literal::{bytes_of, literal_of};
use super::storage::from_iceberg;
use crate::error::{Error, Result};
use crate::model::schema::{Field, Marks, TableSchema, Type};

/// Iceberg's schema as the table schema that everything shares.
///
/// # Errors
/// `Corrupt` where it has a type that Frazil does not know.
pub fn from_iceberg_schema(schema: &Schema) -> Result<TableSchema> {
    let identifiers: Vec<i32> = schema.identifier_field_ids().collect();
    let fields = from_fields(schema.as_struct(), &identifiers)?;
    Ok(TableSchema { schema_id: schema.schema_id(), ..TableSchema::of(fields) })
}

/// The current columns of a table, with what they are in the schemas of records.
///
/// # Errors
/// As [`from_iceberg_schema`]; `Corrupt` where the property that says it cannot be read.
pub fn current(metadata: &TableMetadata) -> Result<TableSchema> {
    let mut schema = from_iceberg_schema(metadata.current_schema())?;
    if let Some(text) = metadata.properties().get(identity::PROPERTY) {
        identity::read(text, &mut schema)?;
    }
    Ok(schema)
}

fn from_fields(fields: &StructType, identifiers: &[i32]) -> Result<Vec<Field>> {
    fields.fields().iter().map(|field| from_field(field, identifiers)).collect()
}

fn from_field(field: &NestedField, identifiers: &[i32]) -> Result<Field> {
    let kind = match field.field_type.as_ref() {
        IcebergType::Primitive(primitive) => from_primitive(primitive).ok_or_else(|| {
            Error::corrupt(format!("column `{}` is of type {primitive}, which frazil cannot write yet", field.name))
        })?,
        IcebergType::Struct(inner) => Type::Struct(from_fields(inner, identifiers)?),
        IcebergType::List(list) => Type::List(Box::new(from_field(&list.element_field, identifiers)?)),
        IcebergType::Map(map) => {
            let entry = [&map.key_field, &map.value_field].map(|field| from_field(field, identifiers).map(Box::new));
            let [key, value] = entry;
            Type::Map(key?, value?)
        }
    };
    let default = |literal: &Option<Literal>| match literal {
        None => Ok(None),
        Some(literal) => bytes_of(literal).map(Some).ok_or_else(|| {
            Error::corrupt(format!("column `{}` has a default of a nested type, which frazil cannot read", field.name))
        }),
    };
    let marks = Marks {
        identifies: identifiers.contains(&field.id),
        initial_default: default(&field.initial_default)?,
        write_default: default(&field.write_default)?,
    };
    let (name, doc) = (field.name.clone(), field.doc.clone());
    Ok(Field { id: field.id, required: field.required, doc, marks, ..Field::optional(name, kind) })
}

fn from_primitive(primitive: &PrimitiveType) -> Option<Type> {
    Some(match primitive {
        PrimitiveType::Boolean => Type::Boolean,
        PrimitiveType::Int => Type::Int,
        PrimitiveType::Long => Type::Long,
        PrimitiveType::Float => Type::Float,
        PrimitiveType::Double => Type::Double,
        PrimitiveType::Decimal { precision, scale } => {
            Type::Decimal(u8::try_from(*precision).ok()?, u8::try_from(*scale).ok()?)
        }
        PrimitiveType::Date => Type::Date,
        PrimitiveType::Time => Type::Time,
        PrimitiveType::Timestamp => Type::Timestamp,
        PrimitiveType::Timestamptz => Type::TimestampTz,
        PrimitiveType::String => Type::String,
        PrimitiveType::Uuid => Type::Uuid,
        PrimitiveType::Fixed(size) => Type::Fixed(u32::try_from(*size).ok()?),
        PrimitiveType::Binary => Type::Binary,
        PrimitiveType::TimestampNs => Type::TimestampNs,
        PrimitiveType::TimestamptzNs => Type::TimestampTzNs,
    })
}

/// `schema` with the next ids after `last_id` for fields that have none.
pub fn numbered(schema: &TableSchema, mut last_id: i32) -> TableSchema {
    let mut schema = schema.clone();
    number(&mut schema.fields.iter_mut().collect::<Vec<_>>(), &mut last_id);
    schema
}

/// Ids of a level come before those of the levels below it, as other writers give them.
fn number(fields: &mut [&mut Field], last: &mut i32) {
    for field in fields.iter_mut().filter(|field| field.id == 0) {
        *last += 1;
        field.id = *last;
    }
    for field in fields {
        match &mut field.kind {
            Type::Struct(fields) => number(&mut fields.iter_mut().collect::<Vec<_>>(), last),
            Type::List(element) => number(&mut [element], last),
            Type::Map(key, value) => number(&mut [key, value], last),
            _ => {}
        }
    }
}

/// The table schema as Iceberg's; all fields have their ids.
///
/// # Errors
/// `Bug` where ids clash, or a default is not of its column's type.
pub fn to_iceberg_schema(schema: &TableSchema) -> Result<Schema> {
    let fields = schema.fields.iter().map(to_field).collect::<Result<Vec<_>>>()?;
    let mut identifiers = Vec::new();
    identifying(&schema.fields, &mut identifiers);
    let schema = Schema::builder().with_fields(fields).with_identifier_field_ids(identifiers).build();
    schema.map_err(|e| from_iceberg("build Iceberg schema", e).context("make the table's schema"))
}

/// The ids of the fields that tell the table's rows apart.
fn identifying(fields: &[Field], ids: &mut Vec<i32>) {
    for field in fields {
        ids.extend(field.marks.identifies.then_some(field.id));
        if let Type::Struct(inner) = &field.kind {
            identifying(inner, ids);
        }
    }
}

/// A field that has its id as Iceberg's.
///
/// # Errors
/// `Bug` where a default is not of its column's type.
pub(super) fn to_field(field: &Field) -> Result<NestedFieldRef> {
    let mut nested = NestedField::new(field.id, &field.name, to_type(&field.kind)?, field.required);
    nested.doc.clone_from(&field.doc);
    let literal = |bytes: &Vec<u8>| literal_of(bytes, &nested.field_type);
    let initial = field.marks.initial_default.as_ref().map(literal).transpose()?;
    let written = field.marks.write_default.as_ref().map(literal).transpose()?;
    (nested.initial_default, nested.write_default) = (initial, written);
    Ok(Arc::new(nested))
}

fn to_type(kind: &Type) -> Result<IcebergType> {
    Ok(IcebergType::Primitive(match kind {
        Type::Boolean => PrimitiveType::Boolean,
        Type::Int => PrimitiveType::Int,
        Type::Long => PrimitiveType::Long,
        Type::Float => PrimitiveType::Float,
        Type::Double => PrimitiveType::Double,
        Type::Decimal(precision, scale) => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
        }
        Type::Date => PrimitiveType::Date,
        Type::Time => PrimitiveType::Time,
        Type::Timestamp => PrimitiveType::Timestamp,
        Type::TimestampTz => PrimitiveType::Timestamptz,
        Type::TimestampNs => PrimitiveType::TimestampNs,
        Type::TimestampTzNs => PrimitiveType::TimestamptzNs,
        Type::String => PrimitiveType::String,
        Type::Uuid => PrimitiveType::Uuid,
        Type::Fixed(size) => PrimitiveType::Fixed(u64::from(*size)),
        Type::Binary => PrimitiveType::Binary,
        Type::Struct(fields) => {
            let fields = fields.iter().map(to_field).collect::<Result<Vec<_>>>()?;
            return Ok(IcebergType::Struct(StructType::new(fields)));
        }
        Type::List(element) => return Ok(IcebergType::List(ListType::new(to_field(element)?))),
        Type::Map(key, value) => return Ok(IcebergType::Map(MapType::new(to_field(key)?, to_field(value)?))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_level_by_level_and_those_given_stay() {
        let point = |fields: Vec<Field>| Field::optional("point", Type::Struct(fields));
        let field = |id, name: &str| Field { id, ..Field::optional(name, Type::Int) };
        let created = numbered(&TableSchema::of(vec![field(0, "a"), point(vec![field(0, "x")]), field(0, "b")]), 0);
        assert_eq!(created.fields, [field(1, "a"), Field { id: 2, ..point(vec![field(4, "x")]) }, field(3, "b")]);
        let mut more = created;
        let Type::Struct(inner) = &mut more.fields[1].kind else { panic!("no struct") };
        inner.insert(0, field(0, "y"));
        more.fields.insert(1, field(0, "c"));
        let more = numbered(&more, 9);
        assert_eq!(
            more.fields,
            [
                field(1, "a"),
                field(10, "c"),
                Field { id: 2, ..point(vec![field(11, "y"), field(4, "x")]) },
                field(3, "b")
            ]
        );
        assert_eq!(from_iceberg_schema(&to_iceberg_schema(&more).unwrap()).unwrap().fields, more.fields);
    }
}
