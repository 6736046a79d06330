//! A message type compiled against a table's columns: a plan per message that reads fields as they come and appends
//! values.
//!
//! One program per schema and message appends to the same columns, so records of several may alternate at no cost. A
//! program that fails leaves half a row behind; its caller truncates the columns.

use super::compile::plan;
use super::gather::merged;
use super::mapping::columns;
use super::op::Op;
use super::schema::Message;
use super::wire::Cursor;
use crate::decode::Failure;
use crate::decode::columns::Column;
use crate::decode::mapping::{MappingOptions, mismatch};
use crate::error::Result;
use crate::model::decoded::Reason;
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};

/// A compiled message type.
#[derive(Debug)]
pub struct Program {
    message: Message,
    plan: Plan,
    filled: Vec<usize>,
    /// The struct column that takes all of the message, instead of columns for its fields.
    single: Option<usize>,
}

/// How the fields of one message are read.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Ascending by field number.
    pub(super) slots: Vec<Slot>,
    /// Of each field number below its length the slot, or [`NO_SLOT`]; larger ones are searched for.
    pub(super) dense: Vec<u32>,
    /// Of each word of the set of fields seen those that must not stay unseen without a word.
    pub(super) expected: Vec<u64>,
    pub(super) oneofs: Vec<Oneof>,
    /// Columns of a nested struct that the message does not have.
    pub(super) absent: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    /// The tag that values come with.
    pub(super) tag: u32,
    /// The tag of packed runs; the same as `tag` where there are none.
    pub(super) packed: u32,
    /// `None`: the value goes nowhere, but puts out other members of its oneof.
    pub(super) place: Option<Place>,
    pub(super) op: Op,
    pub(super) when_absent: Absent,
    pub(super) repeated: bool,
    pub(super) oneof: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Column(usize),
    /// Column of a oneof, and child in it.
    Member(usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// An explicit default of proto2 is no value: it is the reader's, and another reader's may differ.
    Null,
    Zero,
    Close,
    Error,
}

#[derive(Debug, Default)]
pub(super) struct Oneof {
    /// Slots of all members.
    pub(super) members: Vec<usize>,
    /// The struct column of the members, and its children that are no members.
    pub(super) column: Option<(usize, Vec<usize>)>,
}

/// Why a plan did not come to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes are no such message.
    Failed(Failure),
    /// A single message comes in pieces, or a key of a map comes twice: one pass cannot bring that together.
    Repeated,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub(super) const NO_SLOT: u32 = u32::MAX;

impl Program {
    /// Compiles a message type against the columns of `table`, of which it may fill those that `open` lists: the
    /// others belong to key, metadata or another source, and fields of their names are passed over.
    ///
    /// # Errors
    /// `InvalidRecord` where a field has no column type or one that the table's column cannot take.
    pub fn compile(
        message: &Message,
        table: &[Field],
        open: &[usize],
        options: MappingOptions,
        projection: &Projection,
    ) -> Result<Self> {
        let mut plan = plan(message, table, open, options, projection, "")?;
        plan.absent.clear();
        let filled = plan.columns();
        Ok(Self { message: message.clone(), plan, filled, single: None })
    }

    /// Compiles a message type whose values go as structs into the one column `index`.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile_single(
        message: &Message,
        table: &[Field],
        index: usize,
        options: MappingOptions,
        projection: &Projection,
    ) -> Result<Self> {
        let field = &table[index];
        let path = projection.field(&field.name).unwrap_or(&field.name);
        let Type::Struct(fields) = &field.kind else {
            return Err(mismatch(&field.name, &Type::Struct(columns(message, options)?), &field.kind));
        };
        let all: Vec<usize> = (0..fields.len()).collect();
        let plan = plan(message, fields, &all, options, projection, &format!("{path}."))?;
        Ok(Self { message: message.clone(), plan, filled: vec![index], single: Some(index) })
    }

    /// The columns that it fills.
    pub fn filled(&self) -> impl Iterator<Item = usize> {
        self.filled.iter().copied()
    }

    /// Reads one message that is exactly `bytes` and appends a value to each column that the program fills.
    ///
    /// # Errors
    /// What is wrong with the bytes; some columns then have half a row.
    pub fn run(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), Failure> {
        let rows = self.filled.first().map_or(0, |index| columns[*index].len());
        match self.pass(bytes, columns) {
            Ok(()) => Ok(()),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Repeated) => {
                self.filled.iter().for_each(|index| columns[*index].truncate(rows));
                self.pass(&merged(&self.message, bytes)?, columns).map_err(|stop| match stop {
                    Stop::Failed(failure) => failure,
                    Stop::Repeated => (Reason::TypeMismatch, "values that come twice cannot be brought together"),
                })
            }
        }
    }

    #[inline]
    fn pass(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), Stop> {
        let Some(index) = self.single else { return self.plan.run(bytes, columns) };
        let Column::Struct(column) = &mut columns[index] else {
            return Err((Reason::TypeMismatch, "the column is not of the compiled type").into());
        };
        self.plan.run(bytes, &mut column.children)?;
        column.close();
        Ok(())
    }
}

impl Plan {
    /// The columns that it gives values, but for absent ones.
    fn columns(&self) -> Vec<usize> {
        let fields = self.slots.iter().filter_map(|slot| match slot.place {
            Some(Place::Column(index)) => Some(index),
            _ => None,
        });
        fields.chain(self.oneofs.iter().filter_map(|oneof| Some(oneof.column.as_ref()?.0))).collect()
    }

    fn find(&self, tag: u32) -> Option<usize> {
        let number = tag >> 3;
        let at = match self.dense.get(number as usize) {
            Some(at) if *at == NO_SLOT => return None,
            Some(at) => *at as usize,
            None => self.slots.binary_search_by_key(&number, |slot| slot.number).ok()?,
        };
        // A field of another wire type than declared is an unknown field, as in Google's runtimes.
        let slot = &self.slots[at];
        (slot.tag == tag || slot.packed == tag).then_some(at)
    }

    /// Reads a message that is exactly `bytes` into `columns`.
    pub(super) fn run(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), Stop> {
        let (mut few, mut many) = ([0_u64; 4], Vec::new());
        let seen = match few.get_mut(..self.expected.len()) {
            Some(seen) => seen,
            None => {
                many.resize(self.expected.len(), 0);
                many.as_mut_slice()
            }
        };
        let mut cursor = Cursor::new(bytes);
        let mut next = 0;
        while !cursor.is_empty() {
            let tag = cursor.tag()?;
            // Writers put fields in the order of their numbers.
            let at = match self.slots.get(next) {
                Some(slot) if slot.tag == tag => next,
                _ => match self.find(tag) {
                    Some(at) => at,
                    None => {
                        cursor.pass_over(tag)?;
                        continue;
                    }
                },
            };
            let slot = &self.slots[at];
            if slot.repeated {
                next = at;
                let Some(column) = slot.column(columns) else { continue };
                if slot.tag == tag {
                    slot.op.read(&mut cursor, tag, column)?;
                } else {
                    slot.op.read_run(cursor.bytes()?, column)?;
                }
                continue;
            }
            next = at + 1;
            let (word, bit) = (at / 64, 1_u64 << (at % 64));
            if seen[word] & bit != 0 {
                slot.take_back(columns)?;
            }
            seen[word] |= bit;
            if let Some(oneof) = slot.oneof {
                self.put_out_others(oneof, at, seen, columns);
            }
            match slot.column(columns) {
                Some(column) => slot.op.read(&mut cursor, tag, column)?,
                None => cursor.pass_over(tag)?,
            }
        }
        self.finish(seen, columns)
    }

    /// The last of a oneof's members wins.
    fn put_out_others(&self, oneof: usize, at: usize, seen: &mut [u64], columns: &mut [Column]) {
        for other in &self.oneofs[oneof].members {
            let (word, bit) = (other / 64, 1_u64 << (other % 64));
            if *other != at && seen[word] & bit != 0 {
                seen[word] &= !bit;
                if let Some(column) = self.slots[*other].column(columns) {
                    column.truncate(column.len() - 1);
                }
            }
        }
    }

    /// Gives each column that has got no value the one that absence stands for.
    #[inline]
    fn finish(&self, seen: &[u64], columns: &mut [Column]) -> Result<(), Stop> {
        for (word, (expected, seen)) in self.expected.iter().zip(seen.iter()).enumerate() {
            let mut missing = expected & !seen;
            while missing != 0 {
                let slot = &self.slots[word * 64 + missing.trailing_zeros() as usize];
                missing &= missing - 1;
                let Some(column) = slot.column(columns) else { continue };
                match slot.when_absent {
                    Absent::Null => column.push_null(),
                    Absent::Zero => slot.op.push_zero(column)?,
                    Absent::Close => Op::close(column)?,
                    Absent::Error => return Err((Reason::TypeMismatch, "a required field is absent").into()),
                }
            }
        }
        for Oneof { members, column } in &self.oneofs {
            let Some((index, absent)) = column else { continue };
            let is_seen = |at: usize| seen[at / 64] & (1 << (at % 64)) != 0;
            if !members.iter().any(|at| is_seen(*at)) {
                columns[*index].push_null();
                continue;
            }
            for slot in members.iter().filter(|at| !is_seen(**at)).map(|at| &self.slots[*at]) {
                if let Some(column) = slot.column(columns) {
                    column.push_null();
                }
            }
            if let Column::Struct(group) = &mut columns[*index] {
                absent.iter().for_each(|child| group.children[*child].push_null());
                group.close();
            }
        }
        self.absent.iter().for_each(|index| columns[*index].push_null());
        Ok(())
    }
}

impl Slot {
    #[inline]
    fn column<'a>(&self, columns: &'a mut [Column]) -> Option<&'a mut Column> {
        match self.place? {
            Place::Column(index) => columns.get_mut(index),
            Place::Member(index, child) => match columns.get_mut(index)? {
                Column::Struct(group) => group.children.get_mut(child),
                _ => None,
            },
        }
    }

    /// The last of several values wins.
    #[cold]
    fn take_back(&self, columns: &mut [Column]) -> Result<(), Stop> {
        match self.column(columns) {
            Some(_) if self.op.merges() => Err(Stop::Repeated),
            Some(column) => {
                column.truncate(column.len() - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
