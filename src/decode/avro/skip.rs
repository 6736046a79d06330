//! Passing over values that no column takes.

use super::cursor::Cursor;
use super::schema::{Definitions, Kind, LEVELS_MAX, Node, Schema};
use crate::decode::Failure;
use crate::model::decoded::Reason;

/// Values of a recursive type may stand in one another without end, and a stack may not.
pub(super) const TOO_DEEP: Failure = (Reason::TooLarge, "values stand more than 100 deep in one another");

/// What a union with an index beyond its branches fails with.
pub(super) const NO_BRANCH: &str = "a union index has no branch";

/// What an enum with an index beyond its symbols fails with.
pub(super) const NO_SYMBOL: &str = "an enum index has no symbol";

/// A value to pass over.
#[derive(Debug)]
pub(super) struct Skip {
    node: Node,
    definitions: Definitions,
}

impl Skip {
    pub(super) fn new(node: &Node, schema: &Schema) -> Self {
        Self { node: node.clone(), definitions: schema.definitions.clone() }
    }

    pub(super) fn run(&self, cursor: &mut Cursor<'_>) -> Result<(), Failure> {
        skip(&self.node, &self.definitions, cursor, LEVELS_MAX)
    }
}

/// Passes over a value in which at most `levels` records, arrays and maps stand in one another.
fn skip(node: &Node, definitions: &Definitions, cursor: &mut Cursor<'_>, levels: u32) -> Result<(), Failure> {
    let inside = || levels.checked_sub(1).ok_or(TOO_DEEP);
    match &node.kind {
        Kind::Null => {}
        Kind::Boolean => drop(cursor.boolean()?),
        Kind::Int => drop(cursor.int()?),
        Kind::Enum(symbols) => drop(cursor.index(NO_SYMBOL, symbols.symbols.len())?),
        Kind::Long => drop(cursor.long()?),
        Kind::Float => drop(cursor.take(4)?),
        Kind::Double => drop(cursor.take(8)?),
        Kind::Bytes | Kind::String => drop(cursor.bytes()?),
        Kind::Fixed(size) => drop(cursor.take(*size)?),
        Kind::Union(branches) => {
            let branch = &branches[cursor.index(NO_BRANCH, branches.len())?];
            skip(branch, definitions, cursor, levels)?;
        }
        Kind::Array(items) => {
            let levels = inside()?;
            cursor.blocks(|cursor| skip(items, definitions, cursor, levels))?;
        }
        Kind::Map(values) => {
            let levels = inside()?;
            cursor.blocks(|cursor| {
                cursor.bytes()?;
                skip(values, definitions, cursor, levels)
            })?;
        }
        Kind::Record(record) => {
            let levels = inside()?;
            record.fields.iter().try_for_each(|field| skip(&field.node, definitions, cursor, levels))?;
        }
        Kind::Entries(entry) => {
            let levels = inside()?;
            let levels = levels.checked_sub(1).ok_or(TOO_DEEP)?;
            cursor.blocks(|cursor| {
                entry.fields.iter().try_for_each(|field| skip(&field.node, definitions, cursor, levels))
            })?;
        }
        Kind::Recursive(index) => {
            let levels = inside()?;
            let fields = &definitions[*index].fields;
            fields.iter().try_for_each(|field| skip(&field.node, definitions, cursor, levels))?;
        }
    }
    Ok(())
}
