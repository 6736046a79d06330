//! Between the table schema that everything shares and Iceberg's own: conversion, creation, added columns.

use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, SchemaRef, StructType, Type as IcebergType,
};

use super::storage::from_iceberg;
use crate::error::{Error, Result};
use crate::model::schema::{Field, TableSchema, Type};

/// Iceberg's schema as the table schema that everything shares.
///
/// # Errors
/// `Corrupt` where it has a type that Frazil does not know.
pub fn from_iceberg_schema(schema: &Schema) -> Result<TableSchema> {
    let fields = schema.as_struct().fields().iter().map(|field| from_field(field)).collect::<Result<_>>()?;
    Ok(TableSchema { schema_id: schema.schema_id(), fields })
}

fn from_field(field: &NestedField) -> Result<Field> {
    let kind = match field.field_type.as_ref() {
        IcebergType::Primitive(primitive) => from_primitive(primitive).ok_or_else(|| {
            Error::corrupt(format!("column `{}` is of type {primitive}, which frazil cannot write yet", field.name))
        })?,
        IcebergType::Struct(inner) => {
            Type::Struct(inner.fields().iter().map(|f| from_field(f)).collect::<Result<_>>()?)
        }
        IcebergType::List(list) => Type::List(Box::new(from_field(&list.element_field)?)),
        IcebergType::Map(map) => {
            Type::Map(Box::new(from_field(&map.key_field)?), Box::new(from_field(&map.value_field)?))
        }
    };
    Ok(Field { id: field.id, name: field.name.clone(), kind, required: field.required, doc: field.doc.clone() })
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
        PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => return None,
    })
}

/// The table schema as Iceberg's. Fields without an id get the next ones after `last_id`.
///
/// # Errors
/// `Bug` where ids clash.
pub fn to_iceberg_schema(schema: &TableSchema, last_id: i32) -> Result<Schema> {
    let mut ids = Ids { last: last_id };
    // Ids of a level come before those of the levels below it, as other writers give them.
    let fields = ids.fields(&schema.fields);
    let schema = Schema::builder().with_fields(fields).build();
    schema.map_err(|e| from_iceberg("build Iceberg schema", e).context("make the table's schema"))
}

struct Ids {
    last: i32,
}

impl Ids {
    fn of(&mut self, field: &Field) -> i32 {
        if field.id > 0 {
            return field.id;
        }
        self.last += 1;
        self.last
    }

    fn fields(&mut self, fields: &[Field]) -> Vec<NestedFieldRef> {
        let ids: Vec<i32> = fields.iter().map(|field| self.of(field)).collect();
        fields.iter().zip(ids).map(|(field, id)| self.field(field, id)).collect()
    }

    fn field(&mut self, field: &Field, id: i32) -> NestedFieldRef {
        let nested = NestedField::new(id, &field.name, self.kind(&field.kind), field.required);
        Arc::new(match &field.doc {
            Some(doc) => nested.with_doc(doc),
            None => nested,
        })
    }

    fn kind(&mut self, kind: &Type) -> IcebergType {
        let primitive = match kind {
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
            Type::String => PrimitiveType::String,
            Type::Uuid => PrimitiveType::Uuid,
            Type::Fixed(size) => PrimitiveType::Fixed(u64::from(*size)),
            Type::Binary => PrimitiveType::Binary,
            Type::Struct(fields) => return IcebergType::Struct(StructType::new(self.fields(fields))),
            Type::List(element) => {
                let id = self.of(element);
                return IcebergType::List(ListType::new(self.field(element, id)));
            }
            Type::Map(key, value) => {
                let (key_id, value_id) = (self.of(key), self.of(value));
                return IcebergType::Map(MapType::new(self.field(key, key_id), self.field(value, value_id)));
            }
        };
        IcebergType::Primitive(primitive)
    }
}

/// `base` with the columns of `wanted` that it lacks, in `wanted`'s order, new ids after `last_id`; types promoted to
/// `wanted`'s and required columns relaxed where it has them so; `None` where nothing changes. Columns that only `base`
/// has stay, last.
///
/// # Errors
/// `Corrupt` where both have a column with types that do not go together.
pub fn merged(base: &TableSchema, wanted: &TableSchema, last_id: i32) -> Result<Option<SchemaRef>> {
    let mut changed = false;
    let fields = merge_fields(&base.fields, &wanted.fields, &mut changed)?;
    if !changed {
        return Ok(None);
    }
    Ok(Some(Arc::new(to_iceberg_schema(&TableSchema { schema_id: -1, fields }, last_id)?)))
}

fn merge_fields(base: &[Field], wanted: &[Field], changed: &mut bool) -> Result<Vec<Field>> {
    let mut fields = Vec::with_capacity(wanted.len());
    for field in wanted {
        if let Some(known) = base.iter().find(|known| known.name == field.name) {
            fields.push(merge_field(known, field, changed)?);
        } else {
            *changed = true;
            fields.push(Field { required: false, ..without_ids(field) });
        }
    }
    fields.extend(base.iter().filter(|known| wanted.iter().all(|field| field.name != known.name)).cloned());
    Ok(fields)
}

fn merge_field(known: &Field, wanted: &Field, changed: &mut bool) -> Result<Field> {
    let kind = match (&known.kind, &wanted.kind) {
        (Type::Struct(base), Type::Struct(wanted)) => Type::Struct(merge_fields(base, wanted, changed)?),
        (Type::List(base), Type::List(wanted)) => Type::List(Box::new(merge_field(base, wanted, changed)?)),
        (Type::Map(key, base), Type::Map(_, wanted)) => {
            Type::Map(key.clone(), Box::new(merge_field(base, wanted, changed)?))
        }
        // Another writer may have promoted it further.
        (base, wanted) if base.takes(wanted) => base.clone(),
        (base, wanted) if !base.is_nested() && wanted.takes(base) => {
            *changed = true;
            wanted.clone()
        }
        (base, wanted) => {
            let name = &known.name;
            return Err(Error::corrupt(format!("column `{name}` is {base} in the table, {wanted} is wanted")));
        }
    };
    let required = known.required && wanted.required;
    *changed |= required != known.required;
    Ok(Field { kind, required, ..known.clone() })
}

fn without_ids(field: &Field) -> Field {
    let kind = match &field.kind {
        Type::Struct(fields) => Type::Struct(fields.iter().map(without_ids).collect()),
        Type::List(element) => Type::List(Box::new(without_ids(element))),
        Type::Map(key, value) => Type::Map(Box::new(without_ids(key)), Box::new(without_ids(value))),
        kind => kind.clone(),
    };
    Field { id: 0, kind, ..field.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: Vec<Field>) -> TableSchema {
        TableSchema { schema_id: 0, fields }
    }

    #[test]
    fn columns_added_by_two_writers_never_share_an_id() {
        let point = |fields: &[&str]| {
            Field::optional(
                "point",
                Type::Struct(fields.iter().map(|name| Field::optional(*name, Type::Int)).collect()),
            )
        };
        let created = to_iceberg_schema(&schema(vec![Field::optional("a", Type::Long), point(&["x"])]), 0).unwrap();
        let base = from_iceberg_schema(&created).unwrap();
        let first =
            merged(&base, &schema(vec![Field::optional("b", Type::String), point(&["x", "y"])]), 3).unwrap().unwrap();
        let after_first = from_iceberg_schema(&first).unwrap();
        let second = merged(&after_first, &schema(vec![point(&["z"]), Field::optional("c", Type::String)]), 5);
        let second = from_iceberg_schema(&second.unwrap().unwrap()).unwrap();
        let names: Vec<_> = second.fields.iter().map(|field| (field.name.as_str(), field.id)).collect();
        assert_eq!(names, [("point", 2), ("c", 6), ("b", 4), ("a", 1)]);
        let Type::Struct(point_fields) = &second.fields[0].kind else { panic!("no struct") };
        let nested: Vec<_> = point_fields.iter().map(|field| (field.name.as_str(), field.id)).collect();
        assert_eq!(nested, [("z", 7), ("x", 3), ("y", 5)]);
        assert!(merged(&second, &after_first, 7).unwrap().is_none());
    }

    #[test]
    fn types_are_promoted_and_columns_relaxed_and_never_taken_back() {
        let of = |a: Field, b: Type| {
            schema(vec![a, Field::optional("l", Type::List(Box::new(Field::optional("element", b))))])
        };
        let narrow = of(Field::required("a", Type::Int), Type::Decimal(9, 2));
        let base = from_iceberg_schema(&to_iceberg_schema(&narrow, 0).unwrap()).unwrap();
        let wide = of(Field::optional("a", Type::Long), Type::Decimal(12, 2));
        let changed = from_iceberg_schema(&merged(&base, &wide, 3).unwrap().unwrap()).unwrap();
        let expected = of(Field { id: 1, ..Field::optional("a", Type::Long) }, Type::Decimal(12, 2));
        assert_eq!(changed.fields[0], expected.fields[0]);
        assert_eq!(changed.fields[1].kind.to_string(), expected.fields[1].kind.to_string());
        assert!(merged(&changed, &narrow, 3).unwrap().is_none(), "an older view takes nothing back");
        let other = of(Field::optional("a", Type::String), Type::Decimal(9, 2));
        assert_eq!(merged(&base, &other, 3).unwrap_err().kind(), crate::error::ErrorKind::Corrupt);
    }
}
