//! How a message type and a table's columns become a plan: which column takes which field, and by which step.

use super::mapping::{Parts, Shape, Source, Walk};
use super::op::Op;
use super::program::{Absent, NO_SLOT, Oneof, Place, Plan, Slot};
use super::schema::{Kind, Message, MessageField, Presence, Scalar};
use super::wire::{GROUP, LEN, wire_type};
use crate::decode::mapping::{ColumnsFor, MappingOptions, mismatch};
use crate::error::{Error, Result};
use crate::model::projection::{self, Projection};
use crate::model::schema::{Field, Type};

/// Field numbers that are looked up in one step.
const DENSE_MAX: u32 = 1024;

/// The plan for a message type and the columns of `table`, of which it may fill those that `open` lists.
pub(super) fn plan(
    message: &Message,
    table: &[Field],
    open: &[usize],
    options: MappingOptions,
    projection: &Projection,
    path: &str,
) -> Result<Plan> {
    Compiler { walk: Walk::new(options), projection }.plan(message, table, open, path)
}

struct Compiler<'p> {
    walk: Walk,
    projection: &'p Projection,
}

impl Compiler<'_> {
    fn plan(&mut self, message: &Message, table: &[Field], open: &[usize], path: &str) -> Result<Plan> {
        self.walk.fields = 0;
        let Parts { columns, sources } = self.walk.parts(message)?;
        self.walk.open.push(message.index());
        let mut plan = Plan { oneofs: message.oneofs().iter().map(|_| Oneof::default()).collect(), ..Plan::default() };
        let mut present = Vec::new();
        let mut of_table = ColumnsFor::new(self.projection, table, open, &columns, path);
        for (column, source) in columns.iter().zip(&sources) {
            let path = self.projection.path(path, column);
            let nullable = match source {
                Source::Field(field, _) => field.presence == Presence::Optional,
                Source::Oneof(_) => true,
            };
            let Some(index) = of_table.next(nullable, &path)? else { continue };
            present.push(index);
            match (source, &table[index].kind) {
                (Source::Field(field, shape), kind) => {
                    let op = self.field(message, field, shape, kind, &path)?;
                    plan.slots.push(Slot::new(field, Some(Place::Column(index)), op));
                }
                (Source::Oneof(parts), Type::Struct(fields)) => {
                    self.oneof(message, parts, fields, index, &path, &mut plan)?;
                }
                (Source::Oneof(_), kind) => return Err(mismatch(&path, &column.kind, kind)),
            }
        }
        self.walk.open.pop();
        plan.absent = absent(table, open, &present, path)?;
        plan.complete(message);
        Ok(plan)
    }

    fn oneof(
        &mut self,
        message: &Message,
        parts: &Parts<'_>,
        table: &[Field],
        index: usize,
        path: &str,
        plan: &mut Plan,
    ) -> Result<()> {
        let all: Vec<usize> = (0..table.len()).collect();
        let mut present = Vec::new();
        let mut oneof = None;
        let outer = format!("{path}.");
        let mut of_table = ColumnsFor::new(self.projection, table, &all, &parts.columns, &outer);
        for (column, source) in parts.columns.iter().zip(&parts.sources) {
            let Source::Field(field, shape) = source else { continue };
            oneof = field.oneof;
            let path = self.projection.path(&outer, column);
            let Some(child) = of_table.next(true, &path)? else { continue };
            present.push(child);
            let op = self.field(message, field, shape, &table[child].kind, &path)?;
            plan.slots.push(Slot::new(field, Some(Place::Member(index, child)), op));
        }
        if let Some(oneof) = oneof {
            plan.oneofs[oneof].column = Some((index, absent(table, &all, &present, &outer)?));
        }
        Ok(())
    }

    fn field(
        &mut self,
        message: &Message,
        field: &MessageField,
        shape: &Shape,
        target: &Type,
        path: &str,
    ) -> Result<Op> {
        Ok(match (&field.kind, target) {
            (Kind::Entry(index), Type::Map(key_column, value_column)) => {
                let entry = message.of(*index);
                let mut plan = Plan::default();
                let outside = std::mem::replace(&mut self.projection, &projection::ALL);
                for (child, column) in [key_column, value_column].into_iter().enumerate() {
                    let part = entry.fields().iter().find(|part| part.number as usize == child + 1);
                    let part = part.ok_or_else(|| Error::bug("a map's entry without key or value"))?;
                    let shape = match &part.kind {
                        Kind::Scalar(scalar) => &Shape::Scalar(*scalar),
                        _ => shape,
                    };
                    let op = self.value(shape, &column.kind, &format!("{path}.{}", column.name))?;
                    let slot = Slot::new(part, Some(Place::Column(child)), op);
                    // What an entry lacks is the zero of its type, whatever the language says of other fields.
                    plan.slots.push(Slot { when_absent: Absent::Zero, ..slot });
                }
                self.projection = outside;
                plan.complete(&entry);
                Op::Map(Box::new(plan))
            }
            (_, Type::List(element)) if field.presence == Presence::Repeated => {
                Op::List(Box::new(self.value(shape, &element.kind, &format!("{path}.element"))?))
            }
            _ => self.value(shape, target, path)?,
        })
    }

    fn value(&mut self, shape: &Shape, target: &Type, path: &str) -> Result<Op> {
        Ok(match (shape, target) {
            (Shape::Scalar(scalar), _) => scalar_op(*scalar, target),
            (Shape::Wrapper(scalar), _) => {
                Op::Wrapper(Box::new(scalar_op(*scalar, target)), 1 << 3 | wire_type(&Kind::Scalar(*scalar)))
            }
            (Shape::Enum(names), _) => Op::Enum(names.clone()),
            (Shape::Timestamp, _) => Op::Timestamp(target.per_second().unwrap_or(1_000_000)),
            (Shape::Duration, _) => Op::Duration,
            (Shape::Date, _) => Op::Date,
            (Shape::TimeOfDay, Type::String) => Op::TimeText,
            (Shape::TimeOfDay, _) => Op::TimeOfDay,
            (Shape::Decimal, Type::Decimal(precision, scale)) => Op::Decimal(*precision, *scale),
            (Shape::Json(inner), _) => Op::Json(inner.clone()),
            (Shape::Struct(inner), Type::Struct(fields)) => {
                let all: Vec<usize> = (0..fields.len()).collect();
                Op::Message(self.plan(inner, fields, &all, &format!("{path}."))?)
            }
            _ => return Err(Error::bug(format!("field `{path}`: no way to read it into {target:?}"))),
        })
    }
}

/// Columns that are open and not present; they get nulls.
fn absent(table: &[Field], open: &[usize], present: &[usize], path: &str) -> Result<Vec<usize>> {
    let absent: Vec<usize> = open.iter().copied().filter(|index| !present.contains(index)).collect();
    match absent.iter().find(|index| !path.is_empty() && table[**index].required) {
        Some(index) => Err(Error::invalid_record(format!(
            "column `{path}{}` is required in the table and not in the schema",
            table[*index].name
        ))),
        None => Ok(absent),
    }
}

fn scalar_op(scalar: Scalar, target: &Type) -> Op {
    match (scalar, target) {
        (Scalar::Double, _) => Op::Double,
        (Scalar::Float, Type::Double) => Op::FloatToDouble,
        (Scalar::Float, _) => Op::Float,
        (Scalar::Bool, _) => Op::Bool,
        (Scalar::String, _) => Op::Text,
        (Scalar::Bytes, _) => Op::Bytes,
        (Scalar::Uint64 | Scalar::Fixed64, Type::Long) => Op::UnsignedLong(scalar),
        (Scalar::Uint64 | Scalar::Fixed64, _) => Op::Unsigned(scalar),
        (_, Type::Int) => Op::Int(scalar),
        (_, _) => Op::Long(scalar),
    }
}

impl Slot {
    fn new(field: &MessageField, place: Option<Place>, op: Op) -> Self {
        let wire = wire_type(&field.kind);
        let repeated = field.presence == Presence::Repeated;
        let packs = repeated && wire_type(&field.kind) != GROUP;
        let tag = field.number << 3 | wire;
        Self {
            number: field.number,
            tag,
            packed: if packs { field.number << 3 | LEN } else { tag },
            place,
            op,
            when_absent: match field.presence {
                Presence::Required => Absent::Error,
                Presence::Optional => Absent::Null,
                Presence::Implicit => Absent::Zero,
                Presence::Repeated => Absent::Close,
            },
            repeated,
            oneof: field.oneof,
        }
    }
}

impl Plan {
    /// Adds slots for members of oneofs that go nowhere, and what the slots are found and finished by.
    fn complete(&mut self, message: &Message) {
        for field in message.fields().iter().filter(|field| field.oneof.is_some()) {
            if !self.slots.iter().any(|slot| slot.number == field.number) {
                self.slots.push(Slot::new(field, None, Op::Bytes));
            }
        }
        self.slots.sort_by_key(|slot| slot.number);
        let last = self.slots.iter().map(|slot| slot.number).filter(|number| *number < DENSE_MAX).max();
        self.dense = vec![NO_SLOT; last.map_or(0, |number| number as usize + 1)];
        self.expected = vec![0; self.slots.len().div_ceil(64)];
        for (at, slot) in self.slots.iter().enumerate() {
            if let Some(entry) = self.dense.get_mut(slot.number as usize) {
                *entry = at as u32;
            }
            if matches!(slot.place, Some(Place::Column(_))) {
                self.expected[at / 64] |= 1 << (at % 64);
            }
            if let Some(oneof) = slot.oneof {
                self.oneofs[oneof].members.push(at);
            }
        }
    }
}
