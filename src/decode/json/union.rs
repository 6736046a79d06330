//! Values of several types: which branch of a union takes a value.
//!
//! The rule: a branch with constants takes these only. An object goes to the branch of which it has all required
//! members, whose constants it meets and of whose members it has the most; others follow by number of members. What
//! is not told apart so is tried in the schema's order, and a branch that takes anything comes last. The first branch
//! that the value fits has it, and where there is none the value does not fit the column.

use ahash::AHashSet;
use serde_json::Value;

use super::cursor::{Cursor, Stop};
use super::read::{Item, Run};
use super::schema::{Kind, Schema};
use crate::decode::columns::{Column, Struct};

/// Branches that one union may have, kept apart by the bits of a number; a place of more takes anything.
pub(super) const BRANCHES_MAX: usize = 64;

/// A compiled union.
#[derive(Debug)]
pub(super) struct Union {
    pub(super) branches: Vec<Branch>,
    /// Columns that no branch fills.
    pub(super) absent: Vec<usize>,
}

/// A branch: its column, where the table has it, and what tells its values from others.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) column: Option<(usize, Item)>,
    /// The name of its column.
    name: String,
    /// True where the table is not to have it: its values go nowhere.
    left_out: bool,
    /// True where it takes any value.
    anything: bool,
    allowed: Constants,
    shape: Option<Shape>,
}

/// What is known of a branch's objects.
#[derive(Debug)]
struct Shape {
    known: AHashSet<Box<[u8]>>,
    required: Vec<Box<[u8]>>,
    constants: Vec<(Box<[u8]>, Constants)>,
    closed: bool,
}

/// The values that a place may have, and how they are written shortest; any where there are none.
#[derive(Debug)]
struct Constants(Vec<(Box<[u8]>, Value)>);

impl Constants {
    fn new(values: &[Value]) -> Self {
        Self(values.iter().map(|value| (value.to_string().into_bytes().into(), value.clone())).collect())
    }

    fn allow(&self, written: &[u8]) -> bool {
        if self.0.is_empty() || self.0.iter().any(|(short, _)| **short == *written) {
            return true;
        }
        let plain = written.starts_with(b"\"") && !written.contains(&b'\\');
        !plain && serde_json::from_slice::<Value>(written).is_ok_and(|read| self.0.iter().any(|(_, v)| *v == read))
    }
}

impl Branch {
    pub(super) fn new(schema: &Schema, name: String, column: Option<(usize, Item)>, left_out: bool) -> Self {
        let shape = match &schema.kind {
            Kind::Object(object) => {
                let names = |required: bool| object.properties.iter().filter(move |p| p.required || !required);
                let name = |property: &super::schema::Property| property.name.as_bytes().into();
                let constants = names(false).filter(|property| !property.schema.allowed.is_empty());
                Some(Shape {
                    known: names(false).map(name).collect(),
                    required: names(true).map(name).collect(),
                    constants: constants.map(|p| (name(p), Constants::new(&p.schema.allowed))).collect(),
                    closed: object.closed,
                })
            }
            _ => None,
        };
        let anything = matches!(schema.kind, Kind::Any | Kind::Null);
        Self { column, name, left_out, anything, allowed: Constants::new(&schema.allowed), shape }
    }

    /// How well the value at `cursor` suits; `None` where it cannot be meant.
    fn score(&self, mut cursor: Cursor<'_>) -> Result<Option<usize>, Stop> {
        if !self.allowed.0.is_empty() && !self.allowed.allow(cursor.skip()?) {
            return Ok(None);
        }
        let Some(shape) = &self.shape else {
            return Ok(Some(usize::from(!self.anything)));
        };
        if cursor.peek()? != b'{' {
            return Ok(None);
        }
        let (mut known, mut missing, mut first) = (0, shape.required.len(), true);
        cursor.open(b'{')?;
        while cursor.more(b'}', first)? {
            first = false;
            let key = cursor.key()?;
            let unescaped = if key.escaped { key.to_vec() } else { Vec::new() };
            let key = if key.escaped { unescaped.as_slice() } else { key.raw };
            let value = cursor.skip()?;
            let constant = shape.constants.iter().find(|(name, _)| **name == *key);
            if constant.is_some_and(|(_, constants)| !constants.allow(value)) {
                return Ok(None);
            }
            match shape.known.contains(key) {
                true => known += 1,
                false if shape.closed => return Ok(None),
                false => {}
            }
            missing -= usize::from(missing > 0 && shape.required.iter().any(|name| **name == *key));
        }
        Ok((missing == 0).then_some(known + 1))
    }
}

impl Union {
    /// The names of its branches' columns.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.branches.iter().map(|branch| branch.name.as_str())
    }

    pub(super) fn structure(&self, run: &mut Run<'_>, column: &mut Struct) -> Result<(), Stop> {
        self.run(run, &mut column.children)?;
        column.close();
        Ok(())
    }

    /// Reads the next value into the column of its branch, and null into the others'.
    pub(super) fn run(&self, run: &mut Run<'_>, columns: &mut [Column]) -> Result<(), Stop> {
        run.cursor.peek()?;
        let (start, unknown) = (run.cursor.position(), run.unknown);
        let mut tried = 0_u64;
        let mut last = Stop::Misfit;
        let taken = loop {
            let Some(index) = self.best(run.cursor, tried)? else { return Err(last) };
            if self.branches[index].left_out {
                run.cursor.skip()?;
                break None;
            }
            // A branch that the table has no column for may still be the one that is meant.
            let Some((column, item)) = &self.branches[index].column else { return Err(Stop::Misfit) };
            let rows = columns[*column].len();
            match item.read(run, &mut columns[*column]) {
                Ok(()) => break Some(*column),
                Err(stop) if stop.is_misfit() => {
                    columns[*column].truncate(rows);
                    run.cursor.go_back(start);
                    (run.unknown, last) = (unknown, stop);
                    tried |= 1 << index;
                }
                Err(stop) => return Err(stop),
            }
        };
        let columns_of_branches = self.branches.iter().filter_map(|branch| Some(branch.column.as_ref()?.0));
        for column in columns_of_branches.filter(|column| Some(*column) != taken).chain(self.absent.iter().copied()) {
            columns[column].push_null();
        }
        Ok(())
    }

    fn best(&self, cursor: Cursor<'_>, tried: u64) -> Result<Option<usize>, Stop> {
        let mut best: Option<(usize, usize)> = None;
        for (index, branch) in self.branches.iter().enumerate().filter(|(index, _)| tried & (1 << index) == 0) {
            if let Some(score) = branch.score(cursor)?
                && best.is_none_or(|(_, most)| score > most)
            {
                best = Some((index, score));
            }
        }
        Ok(best.map(|(index, _)| index))
    }
}
