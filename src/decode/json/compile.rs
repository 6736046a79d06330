//! From a schema, or from a table's columns alone, to the parts of a program.

use super::mapping::{column_type, is_json, member_of, members, union};
use super::read::{Item, Op, Plan, Slot};
use super::schema::{Kind, Object, Schema};
use super::union::{Branch, Union};
use crate::decode::mapping::{ColumnsFor, MappingOptions, mismatch};
use crate::error::{Error, Result};
use crate::model::projection::{self, Projection};
use crate::model::schema::{Field, Type};

/// Compiles by a schema.
#[derive(Clone, Copy)]
pub(super) struct Compiler<'a> {
    pub(super) options: MappingOptions,
    pub(super) projection: &'a Projection,
}

impl Compiler<'_> {
    /// For what is inside a map.
    fn whole(&self) -> Self {
        Self { projection: &projection::ALL, ..*self }
    }

    /// An object's members into those columns of `table` that `open` lists.
    pub(super) fn plan(&self, object: &Object, table: &[Field], open: &[usize], path: &str) -> Result<Plan> {
        let mut slots = Vec::with_capacity(object.properties.len());
        let mut left_out = Vec::new();
        let members = members(object, self.options, path)?;
        let wanted: Vec<Field> = members.iter().map(|(_, wanted)| wanted.clone()).collect();
        let mut columns = ColumnsFor::new(self.projection, table, open, &wanted, path);
        for (property, wanted) in members {
            let outer = path;
            let path = self.projection.path(outer, &wanted);
            let nullable = !property.required || property.schema.nullable;
            match columns.next(nullable, &path)? {
                Some(index) => {
                    let item = self.item(&property.schema, &table[index], &path)?;
                    slots.push(Slot::new(&property.name, index, item, self.projection.inside(&path)));
                }
                None if self.projection.column(wanted, outer).is_none() => {
                    left_out.push(property.name.as_bytes().into());
                }
                None => {}
            }
        }
        let filled: Vec<usize> = slots.iter().map(|slot| slot.column).collect();
        let absent = absent(table, open, &filled, path)?;
        let inside = self.projection.inside(path.strip_suffix('.').unwrap_or(path));
        Ok(Plan::new(slots, absent).leaving_out(left_out, &inside))
    }

    /// A union's branches into those columns of `table` that `open` lists.
    pub(super) fn branches(
        &self,
        schemas: &[(String, Schema)],
        table: &[Field],
        open: &[usize],
        path: &str,
    ) -> Result<Union> {
        let mut branches = Vec::with_capacity(schemas.len());
        let wanted = union(schemas, self.options, path)?;
        let mut columns = ColumnsFor::new(self.projection, table, open, &wanted, path);
        for (wanted, (_, schema)) in wanted.into_iter().zip(schemas) {
            let outer = path;
            let path = self.projection.path(outer, &wanted);
            let column = match columns.next(true, &path)? {
                Some(index) => Some((index, self.item(schema, &table[index], &path)?)),
                None => None,
            };
            let name = wanted.name.clone();
            let left_out = self.projection.column(wanted, outer).is_none();
            branches.push(Branch::new(schema, name, column, left_out));
        }
        let filled: Vec<usize> = branches.iter().filter_map(|branch| Some(branch.column.as_ref()?.0)).collect();
        let absent = absent(table, open, &filled, path)?;
        Ok(Union { branches, absent })
    }

    /// A schema's values, all of them, into one column.
    pub(super) fn single(&self, schema: &Schema, index: usize, column: &Field) -> Result<Slot> {
        let kind = column_type(schema, self.options)?;
        if !column.kind.takes(&kind) {
            return Err(mismatch(&column.name, &kind, &column.kind));
        }
        let path = self.projection.field(&column.name).unwrap_or(&column.name);
        let item = self.item(schema, column, path)?;
        Ok(Slot::new(&column.name, index, item, self.projection.inside(path)))
    }

    fn item(&self, schema: &Schema, column: &Field, path: &str) -> Result<Item> {
        Ok(Item { op: self.op(schema, &column.kind, path)?, required: column.required })
    }

    fn op(&self, schema: &Schema, target: &Type, path: &str) -> Result<Op> {
        Ok(match (&schema.kind, target) {
            (Kind::Any | Kind::Null, _) => Op::Json(self.projection.inside(path)),
            (Kind::Boolean, _) => Op::Boolean,
            (Kind::Int, Type::Int) | (Kind::Days, _) => Op::Int,
            (Kind::Int | Kind::Long, _) => Op::Long,
            (Kind::Float, Type::Float) => Op::Float,
            (Kind::Float | Kind::Double, _) => Op::Double,
            (Kind::Text(_), Type::TimestampTz | Type::TimestampTzNs) => Op::Timestamp(true, ticks(target)),
            (Kind::Text(_), Type::Date) => Op::Date,
            (Kind::Text(_), Type::Time | Type::Long) => Op::Time,
            (Kind::Text(_), Type::Uuid) => Op::Uuid,
            (Kind::Text(_), _) => Op::Text,
            (Kind::Bytes, _) => Op::Base64,
            (Kind::TimeMillis, Type::String) => Op::TimeMillisText,
            (Kind::TimeMillis, _) => Op::TimeMillis,
            (Kind::TimestampMillis, _) => Op::LongTimes(ticks(target) / 1_000),
            (Kind::Decimal(..), Type::Decimal(precision, scale)) => Op::ConnectDecimal(*precision, *scale),
            (Kind::Array(items), Type::List(element)) => {
                Op::List(Box::new(self.item(items, element, &format!("{path}.element"))?))
            }
            (Kind::Map(values), Type::Map(_, value)) => Op::Map(Box::new(self.whole().item(values, value, path)?)),
            (Kind::Entries(key, value), Type::Map(key_column, value_column)) => {
                let slots = vec![
                    Slot::new("key", 0, self.whole().item(key, key_column, path)?, projection::ALL.clone()),
                    Slot::new("value", 1, self.whole().item(value, value_column, path)?, projection::ALL.clone()),
                ];
                Op::Entries(Plan::new(slots, Vec::new()))
            }
            (Kind::Object(object), Type::Struct(fields)) => {
                Op::Struct(self.plan(object, fields, &all(fields), &format!("{path}."))?)
            }
            (Kind::Union(schemas), Type::Struct(fields)) => {
                Op::Union(self.branches(schemas, fields, &all(fields), &format!("{path}."))?)
            }
            _ => return Err(Error::bug(format!("field `{path}`: no way to read it into {target:?}"))),
        })
    }
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

/// Parts of a second that a column of instants counts.
fn ticks(kind: &Type) -> i64 {
    kind.per_second().unwrap_or(1_000_000)
}

fn all(fields: &[Field]) -> Vec<usize> {
    (0..fields.len()).collect()
}

/// An object's members into the columns of `table` that `open` lists, as the columns themselves say.
pub(super) fn plan_of_columns(table: &[Field], open: &[usize], projection: &Projection) -> Plan {
    let slot = |index: &usize| {
        let column = &table[*index];
        let key = member_of(column, projection).filter(|key| projection.takes(key))?;
        let inside = projection.inside(&key);
        Some(Slot::new(&key, *index, item_of_column(column, &inside)?, inside))
    };
    let slots: Vec<Slot> = open.iter().filter_map(slot).collect();
    let absent = open.iter().copied().filter(|index| slots.iter().all(|slot| slot.column != *index)).collect();
    Plan::new(slots, absent).leaving_out(Vec::new(), projection)
}

/// `None` for a map whose keys are no texts, since no JSON value is one, and for a list whose elements are left out.
fn item_of_column(column: &Field, inside: &Projection) -> Option<Item> {
    let op = match &column.kind {
        Type::Boolean => Op::Boolean,
        Type::Int => Op::Int,
        Type::Long => Op::Long,
        Type::Float => Op::Float,
        Type::Double => Op::Double,
        Type::Decimal(precision, scale) => Op::TextDecimal(*precision, *scale),
        Type::Date => Op::Date,
        Type::Time => Op::Time,
        kind @ (Type::Timestamp | Type::TimestampNs) => Op::Timestamp(false, ticks(kind)),
        kind @ (Type::TimestampTz | Type::TimestampTzNs) => Op::Timestamp(true, ticks(kind)),
        Type::String if is_json(column) => Op::Json(inside.clone()),
        Type::String => Op::Text,
        Type::Uuid => Op::Uuid,
        Type::Fixed(_) => Op::Base64Fixed,
        Type::Binary => Op::Base64,
        Type::Struct(fields) => Op::Struct(plan_of_columns(fields, &all(fields), inside)),
        Type::List(element) if inside.takes(&element.name) => {
            Op::List(Box::new(item_of_column(element, &inside.inside(&element.name))?))
        }
        Type::Map(key, value) if key.kind == Type::String => {
            Op::Map(Box::new(item_of_column(value, &projection::ALL)?))
        }
        Type::List(_) | Type::Map(..) => return None,
    };
    Some(Item { op, required: column.required })
}
