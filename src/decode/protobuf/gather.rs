//! A message's bytes sorted by field, with the rules for what comes more than once applied. For what the compiled
//! program does not do in its one pass: messages in several pieces, repeated keys of maps, and JSON.

use std::borrow::Cow;
use std::collections::HashMap;

use super::schema::{Kind, Message, MessageField, Presence, Scalar};
use super::value::integer;
use super::wire::{Cursor, DEPTH_MAX, END_GROUP, GROUP, LEN, TOO_DEEP, wire_type, write_varint};
use crate::decode::Failure;

/// Encoded values of one field, without tags and lengths.
pub(super) type Values<'a> = Vec<Cow<'a, [u8]>>;

/// The values of each field of a message, in the order of its fields: of single values the last, of single messages
/// all pieces as one, of a oneof only the member that came last, of a map's entries the last with each key.
pub(super) fn gather<'a>(message: &Message, bytes: &'a [u8]) -> Result<Vec<Values<'a>>, Failure> {
    let fields = message.fields();
    let mut found: Vec<Values<'a>> = fields.iter().map(|_| Vec::new()).collect();
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_empty() {
        let tag = cursor.tag()?;
        let at = message.position(tag >> 3);
        let Some((at, field)) = at.map(|at| (at, &fields[at])).filter(|(_, field)| is_read(field, tag & 7)) else {
            cursor.pass_over(tag)?;
            continue;
        };
        if tag & 7 == LEN && wire_type(&field.kind) != LEN {
            let mut run = Cursor::new(cursor.bytes()?);
            while !run.is_empty() {
                found[at].push(run.value(tag & !7 | wire_type(&field.kind))?.into());
            }
            continue;
        }
        if let Some(oneof) = field.oneof {
            let others = fields.iter().zip(&mut found).filter(|(other, _)| other.oneof == Some(oneof));
            others.filter(|(other, _)| other.number != field.number).for_each(|(_, values)| values.clear());
        }
        let single = field.presence != Presence::Repeated;
        if single && !matches!(field.kind, Kind::Message(_) | Kind::Group(_)) {
            found[at].clear();
        }
        found[at].push(cursor.value(tag)?.into());
    }
    for (field, values) in fields.iter().zip(&mut found) {
        match field.kind {
            Kind::Message(_) | Kind::Group(_) if field.presence != Presence::Repeated && values.len() > 1 => {
                *values = vec![values.concat().into()];
            }
            Kind::Entry(index) => keep_last(&message.of(index), values)?,
            _ => {}
        }
    }
    Ok(found)
}

/// True where values of the field come with this wire type. Repeated numbers come one by one or as a packed run,
/// whatever is declared; any other difference makes a field an unknown one, as in Google's runtimes.
fn is_read(field: &MessageField, wire: u32) -> bool {
    let own = wire_type(&field.kind);
    wire == own || wire == LEN && own != GROUP && field.presence == Presence::Repeated
}

/// Drops the entries whose keys come again.
fn keep_last(entry: &Message, values: &mut Values<'_>) -> Result<(), Failure> {
    let mut last: HashMap<Vec<u8>, usize> = HashMap::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        last.insert(key(entry, value)?, at);
    }
    let mut at = 0..;
    let mut kept: Vec<usize> = last.into_values().collect();
    kept.sort_unstable();
    values.retain(|_| at.next().is_some_and(|at| kept.binary_search(&at).is_ok()));
    Ok(())
}

/// The key of an entry in a form that is the same for equal keys.
fn key(entry: &Message, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let at = entry.position(1).unwrap_or_default();
    let found = gather(entry, bytes)?.swap_remove(at).pop().unwrap_or_default();
    Ok(match &entry.fields()[at].kind {
        Kind::Scalar(Scalar::String | Scalar::Bytes) => found.into_owned(),
        Kind::Scalar(_) if found.is_empty() => 0_i64.to_le_bytes().to_vec(),
        Kind::Scalar(scalar) => integer(*scalar, &mut Cursor::new(&found))?.to_le_bytes().to_vec(),
        _ => Vec::new(),
    })
}

/// The same message in bytes that the compiled program reads in one pass: no single message comes in pieces, no key
/// of a map comes twice.
pub(super) fn merged(message: &Message, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut out = Vec::with_capacity(bytes.len());
    write(message, bytes, &mut out, 0)?;
    Ok(out)
}

fn write(message: &Message, bytes: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err(TOO_DEEP);
    }
    for (field, values) in message.fields().iter().zip(gather(message, bytes)?) {
        let number = field.number << 3;
        for value in values {
            write_varint(out, u64::from(number | wire_type(&field.kind)));
            match field.kind {
                Kind::Group(index) => {
                    write(&message.of(index), &value, out, depth + 1)?;
                    write_varint(out, u64::from(number | END_GROUP));
                }
                Kind::Message(index) | Kind::Entry(index) => {
                    let mut inner = Vec::with_capacity(value.len());
                    write(&message.of(index), &value, &mut inner, depth + 1)?;
                    write_varint(out, inner.len() as u64);
                    out.extend(inner);
                }
                Kind::Scalar(Scalar::String | Scalar::Bytes) => {
                    write_varint(out, value.len() as u64);
                    out.extend_from_slice(&value);
                }
                Kind::Scalar(_) | Kind::Enum(_) => out.extend_from_slice(&value),
            }
        }
    }
    Ok(())
}
