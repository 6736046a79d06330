//! Objects whose members are the entries of a map.

use ahash::AHashSet;

use super::cursor::{Position, Stop};
use super::read::{Item, Run, column};
use crate::decode::columns::{Bytes, Column, List, Struct};

/// Up to that many keys are compared each with each.
const FEW: usize = 8;

/// Reads the object that is the next value into `map`, whose keys are texts.
pub(super) fn read(item: &Item, run: &mut Run<'_>, map: &mut List) -> Result<(), Stop> {
    let from = map.child.len();
    run.cursor.peek()?;
    let start = run.cursor.position();
    run.cursor.open(b'{')?;
    let mut first = true;
    let entries = column!(map.child.as_mut(), Struct);
    while run.cursor.more(b'}', first)? {
        first = false;
        entry(item, run, entries)?;
    }
    if repeats(column!(&entries.children[0], Bytes), from, entries.children[0].len()) {
        map.child.truncate(from);
        run.cursor.go_back(start);
        last_of_each(item, run, column!(map.child.as_mut(), Struct))?;
    }
    map.close();
    Ok(())
}

fn entry(item: &Item, run: &mut Run<'_>, entries: &mut Struct) -> Result<(), Stop> {
    let [keys, values] = entries.children.as_mut_slice() else { return Err(Stop::Misfit) };
    let keys = column!(keys, Bytes);
    run.cursor.key()?.pieces(|piece| keys.append(piece));
    keys.end();
    item.read(run, values)?;
    entries.close();
    Ok(())
}

fn repeats(keys: &Bytes, from: usize, to: usize) -> bool {
    if to - from <= FEW {
        return (from..to).any(|one| (from..one).any(|other| keys.get(one) == keys.get(other)));
    }
    let mut seen = AHashSet::with_capacity(to - from);
    !(from..to).all(|index| seen.insert(keys.get(index)))
}

/// Of members of one name the last counts, as everywhere; a map with one key twice is none to those who read it.
#[cold]
fn last_of_each(item: &Item, run: &mut Run<'_>, entries: &mut Struct) -> Result<(), Stop> {
    run.cursor.open(b'{')?;
    let mut members: Vec<(Vec<u8>, Position)> = Vec::new();
    let mut first = true;
    while run.cursor.more(b'}', first)? {
        first = false;
        let member = run.cursor.position();
        let key = run.cursor.key()?.to_vec();
        run.cursor.skip()?;
        members.push((key, member));
    }
    let end = run.cursor.position();
    let mut seen = AHashSet::new();
    let last: Vec<_> = members.iter().rev().filter(|(key, _)| seen.insert(key)).map(|(_, member)| *member).collect();
    for member in last.into_iter().rev() {
        run.cursor.go_back(member);
        entry(item, run, entries)?;
    }
    run.cursor.go_back(end);
    Ok(())
}
