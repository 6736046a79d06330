//! What is kept of a value as JSON text: all but what the table is not to have.

use super::cursor::{Cursor, Stop};
use super::read::Op;
use crate::model::projection::Projection;

/// Writes the next value without what `choice` does not take. `op` is what reads such values, where something does.
pub(super) fn trim(
    cursor: &mut Cursor<'_>,
    op: Option<&Op>,
    choice: &Projection,
    out: &mut Vec<u8>,
) -> Result<(), Stop> {
    match (cursor.peek()?, op) {
        _ if choice.takes_all() => out.extend_from_slice(cursor.skip()?),
        // The way to a field leads through a branch, of which the text says nothing.
        (_, Some(Op::Union(union))) => trim(cursor, None, &choice.inside_any(union.names()), out)?,
        (b'{', op) => object(cursor, op, choice, out)?,
        (b'[', _) if !choice.takes("element") => {
            cursor.skip()?;
            out.extend_from_slice(b"[]");
        }
        (b'[', op) => {
            let element = if let Some(Op::List(item)) = op { Some(&item.op) } else { None };
            let inside = choice.inside("element");
            cursor.open(b'[')?;
            out.push(b'[');
            let mut first = true;
            while cursor.more(b']', first)? {
                out.extend_from_slice(if first { b"" } else { b"," });
                first = false;
                trim(cursor, element, &inside, out)?;
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(cursor.skip()?),
    }
    Ok(())
}

fn object(cursor: &mut Cursor<'_>, op: Option<&Op>, choice: &Projection, out: &mut Vec<u8>) -> Result<(), Stop> {
    let plan = if let Some(Op::Struct(plan)) = op { Some(plan) } else { None };
    cursor.open(b'{')?;
    out.push(b'{');
    let (mut first, mut empty) = (true, true);
    while cursor.more(b'}', first)? {
        first = false;
        let key = cursor.key()?;
        let slot = plan.and_then(|plan| plan.slot(key));
        let name = String::from_utf8(key.to_vec()).unwrap_or_default();
        if slot.is_none() && (plan.is_some_and(|plan| plan.leaves_out(key)) || !choice.takes(&name)) {
            cursor.skip()?;
            continue;
        }
        out.extend_from_slice(if empty { b"\"" } else { b",\"" });
        empty = false;
        out.extend_from_slice(key.raw);
        out.extend_from_slice(b"\":");
        match slot {
            Some(slot) => trim(cursor, Some(&slot.item.op), &slot.inside, out)?,
            None => trim(cursor, None, &choice.inside(&name), out)?,
        }
    }
    out.push(b'}');
    Ok(())
}
