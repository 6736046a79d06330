//! From a schema, or from a table's columns alone, to the parts of a program.

use super::mapping::{column_type, is_json, member_of, members, union};
use super::read::{Item, Op, Plan, Slot};
use super::schema::{Kind, Object, Schema};
use super::union::{Branch, Union};
use crate::decode::mapping::{MappingOptions, column_for, mismatch};
use crate::error::{Error, Result};
use crate::model::schema::{Field, Type};

/// An object's members into those columns of `table` that `open` lists.
pub(super) fn plan(
    object: &Object,
    table: &[Field],
    open: &[usize],
    options: MappingOptions,
    path: &str,
) -> Result<Plan> {
    let mut slots = Vec::with_capacity(object.properties.len());
    for (property, wanted) in members(object, options, path)? {
        let path = format!("{path}{}", wanted.name);
        let nullable = !property.required || property.schema.nullable;
        let Some(index) = column_for(table, open, &wanted, nullable, &path)? else { continue };
        let item = item(&property.schema, &table[index], options, &path)?;
        slots.push(Slot::new(&property.name, index, item));
    }
    let filled: Vec<usize> = slots.iter().map(|slot| slot.column).collect();
    let absent = absent(table, open, &filled, path)?;
    Ok(Plan::new(slots, absent))
}

/// A union's branches into those columns of `table` that `open` lists.
pub(super) fn branches(
    schemas: &[(String, Schema)],
    table: &[Field],
    open: &[usize],
    options: MappingOptions,
    path: &str,
) -> Result<Union> {
    let mut branches = Vec::with_capacity(schemas.len());
    for (wanted, (_, schema)) in union(schemas, options, path)?.into_iter().zip(schemas) {
        let path = format!("{path}{}", wanted.name);
        let column = match column_for(table, open, &wanted, true, &path)? {
            Some(index) => Some((index, item(schema, &table[index], options, &path)?)),
            None => None,
        };
        branches.push(Branch::new(schema, column));
    }
    let filled: Vec<usize> = branches.iter().filter_map(|branch| Some(branch.column.as_ref()?.0)).collect();
    let absent = absent(table, open, &filled, path)?;
    Ok(Union { branches, absent })
}

/// Columns of a nested struct that the schema does not have. At the top they are the caller's to fill.
fn absent(table: &[Field], open: &[usize], filled: &[usize], path: &str) -> Result<Vec<usize>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let absent: Vec<usize> = open.iter().copied().filter(|index| !filled.contains(index)).collect();
    if let Some(index) = absent.iter().find(|index| table[**index].required) {
        let name = &table[*index].name;
        return Err(Error::invalid_record(format!(
            "column `{path}{name}` is required in the table and not in the schema"
        )));
    }
    Ok(absent)
}

/// A schema's values, all of them, into one column.
pub(super) fn single(schema: &Schema, column: &Field, options: MappingOptions) -> Result<Item> {
    let kind = column_type(schema, options)?;
    if !column.kind.takes(&kind) {
        return Err(mismatch(&column.name, &kind, &column.kind));
    }
    item(schema, column, options, &column.name)
}

fn item(schema: &Schema, column: &Field, options: MappingOptions, path: &str) -> Result<Item> {
    Ok(Item { op: op(schema, &column.kind, options, path)?, required: column.required })
}

fn op(schema: &Schema, target: &Type, options: MappingOptions, path: &str) -> Result<Op> {
    Ok(match (&schema.kind, target) {
        (Kind::Any | Kind::Null, _) => Op::Json,
        (Kind::Boolean, _) => Op::Boolean,
        (Kind::Int, Type::Int) | (Kind::Days, _) => Op::Int,
        (Kind::Int | Kind::Long, _) => Op::Long,
        (Kind::Float, Type::Float) => Op::Float,
        (Kind::Float | Kind::Double, _) => Op::Double,
        (Kind::Text(_), Type::TimestampTz) => Op::Timestamp(true),
        (Kind::Text(_), Type::Date) => Op::Date,
        (Kind::Text(_), Type::Time | Type::Long) => Op::Time,
        (Kind::Text(_), Type::Uuid) => Op::Uuid,
        (Kind::Text(_), _) => Op::Text,
        (Kind::Bytes, _) => Op::Base64,
        (Kind::TimeMillis, Type::String) => Op::TimeMillisText,
        (Kind::TimeMillis, _) => Op::TimeMillis,
        (Kind::TimestampMillis, _) => Op::LongTimes(1_000),
        (Kind::Decimal(..), Type::Decimal(precision, scale)) => Op::ConnectDecimal(*precision, *scale),
        (Kind::Array(items), Type::List(element)) => Op::List(Box::new(item(items, element, options, path)?)),
        (Kind::Map(values), Type::Map(_, value)) => Op::Map(Box::new(item(values, value, options, path)?)),
        (Kind::Entries(key, value), Type::Map(key_column, value_column)) => {
            let slots = vec![
                Slot::new("key", 0, item(key, key_column, options, path)?),
                Slot::new("value", 1, item(value, value_column, options, path)?),
            ];
            Op::Entries(Plan::new(slots, Vec::new()))
        }
        (Kind::Object(object), Type::Struct(fields)) => {
            Op::Struct(plan(object, fields, &all(fields), options, &format!("{path}."))?)
        }
        (Kind::Union(schemas), Type::Struct(fields)) => {
            Op::Union(branches(schemas, fields, &all(fields), options, &format!("{path}."))?)
        }
        _ => return Err(Error::bug(format!("field `{path}`: no way to read it into {target:?}"))),
    })
}

fn all(fields: &[Field]) -> Vec<usize> {
    (0..fields.len()).collect()
}

/// An object's members into the columns of `table` that `open` lists, as the columns themselves say.
pub(super) fn plan_of_columns(table: &[Field], open: &[usize]) -> Plan {
    let slot = |index: &usize| {
        let column = &table[*index];
        Some(Slot::new(&member_of(column), *index, item_of_column(column)?))
    };
    let slots: Vec<Slot> = open.iter().filter_map(slot).collect();
    let absent = open.iter().copied().filter(|index| slots.iter().all(|slot| slot.column != *index)).collect();
    Plan::new(slots, absent)
}

/// `None` for a map whose keys are no texts: no JSON value is one.
fn item_of_column(column: &Field) -> Option<Item> {
    let op = match &column.kind {
        Type::Boolean => Op::Boolean,
        Type::Int => Op::Int,
        Type::Long => Op::Long,
        Type::Float => Op::Float,
        Type::Double => Op::Double,
        Type::Decimal(precision, scale) => Op::TextDecimal(*precision, *scale),
        Type::Date => Op::Date,
        Type::Time => Op::Time,
        Type::Timestamp => Op::Timestamp(false),
        Type::TimestampTz => Op::Timestamp(true),
        Type::String if is_json(column) => Op::Json,
        Type::String => Op::Text,
        Type::Uuid => Op::Uuid,
        Type::Fixed(_) => Op::Base64Fixed,
        Type::Binary => Op::Base64,
        Type::Struct(fields) => Op::Struct(plan_of_columns(fields, &all(fields))),
        Type::List(element) => Op::List(Box::new(item_of_column(element)?)),
        Type::Map(key, value) if key.kind == Type::String => Op::Map(Box::new(item_of_column(value)?)),
        Type::Map(..) => return None,
    };
    Some(Item { op, required: column.required })
}
