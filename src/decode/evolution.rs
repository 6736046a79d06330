//! What a schema changes about a table's columns: added, promoted, relaxed, renamed, branched, dropped. Decides; changes
//! nothing. Which column a field is, `identity` says.
//!
//! Versions of a schema alternate in a topic, and several replicas meet them in different orders, so each of these
//! rules holds whatever was there before, and none undoes what another version's record led to:
//!
//! - A column is renamed to a name that is news to it, and only by a schema that is not older (by its id in the registry)
//!   than the newest one that named columns of its type of record. The name that it had stays noted, so that no name is
//!   given to it twice, and fields of both names are its own from then on.
//! - A name stays where the configuration counts on it (`Layout::pinned`) or a sibling has the new one. The column takes
//!   the renamed field's values all the same.
//! - With `Full`, the first record of a schema newer than all before drops the columns that only its type of record had
//!   and it has no more. Should a record of an older schema bring the field again, nothing of it is lost: it gets a new
//!   column, which stays until a still newer schema comes.

use std::collections::{BTreeSet, HashSet};

use super::identity::{self, branched, each_struct, goes_by, had_name, knows_name, matching};
use super::json::RESCUED;
use super::layout::{KeyColumns, Layout};
use super::mapping::{Added, columns_of, mismatch, position, unique_name};
use super::schema::Columns;
use crate::error::Result;
use crate::model::projection::is_within;
use crate::model::schema::{Field, Marks, Source, TableSchema, Type};

/// What becomes of schemas that the table's columns do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evolution {
    /// Columns are added, promoted, relaxed and renamed; records of a schema that fits none the less are rejected.
    Extend,
    /// As `Extend`, and columns are dropped that the newest schema no longer has.
    Full,
    /// As `Extend`, but nothing is renamed, and a schema that does not fit suspends the table.
    Strict,
    /// As `Extend`, but a field of another type gets a column of its own, `name__type`.
    Branch,
}

/// One side of records: its columns, and its version.
#[derive(Debug)]
pub struct Side {
    /// The columns that it makes.
    pub columns: Columns,
    /// The name of its type of record, which all versions of that have, and the id of the schema in the registry, 0 where
    /// it has none; `None` where there is no such name.
    pub version: Option<(String, u32)>,
}

/// The columns that records with this key and this value want of `table`. A field of the key whose column is also one of
/// the value's is left to the value.
///
/// # Errors
/// `InvalidRecord` where two fields would have one column.
pub fn wanted(table: &TableSchema, layout: &Layout, mut key: Side, mut value: Side) -> Result<TableSchema> {
    // Connect gives keys and values types of one name, and their versions have nothing to do with each other.
    if let Some((of, _)) = &mut key.version {
        of.push_str(" key");
    }
    for Side { columns, version } in [&mut key, &mut value] {
        stamp(columns, version.as_ref().map(|(of, _)| of.as_str()));
    }
    let projection = &layout.projection;
    if let (Columns::Each(keys), Columns::Each(values)) = (&mut key.columns, &mut value.columns)
        && layout.key_columns != KeyColumns::Struct
    {
        let column = |field: Option<(Field, Option<usize>)>| field?.1;
        let of = |fields: &[Field]| columns_of(projection, &table.fields, fields, "").into_iter().map(column);
        let (mut of_keys, of_values) = (of(keys), of(values).collect::<Vec<_>>());
        keys.retain(|key| {
            let column = of_keys.next().flatten();
            let shared = of_values.iter().position(|of_value| column.is_some() && *of_value == column);
            if let Some(value) = shared {
                // Where there is no value, the key's field is the one that fills it.
                values[value].sources.extend(key.sources.iter().cloned());
            }
            shared.is_none()
        });
    }
    let key_is_taken = table.field(projection.name("key_key")).is_some();
    let newest = [key.version, value.version].into_iter().flatten().collect();
    Ok(TableSchema { newest, ..layout.table_schema_with(key.columns, value.columns, key_is_taken)? })
}

/// Notes for all fields that they are of this type of record.
fn stamp(columns: &mut Columns, of: Option<&str>) {
    match (columns, of) {
        (Columns::Each(fields), Some(of)) => identity::stamp(fields, of),
        (Columns::One(kind), Some(of)) => each_struct(kind, &mut |fields| identity::stamp(fields, of)),
        (Columns::Nothing, _) | (_, None) => {}
    }
}

/// `table` as records of `wanted` need it: columns that it lacks are added at any depth, always optional, new ones of
/// the top level before the first metadata column and the one for what fits no other; types are promoted as Iceberg
/// allows; what is required and may be null or missing becomes optional; what the schema calls otherwise is renamed.
/// Names that differ by case alone are one column, as they are to engines. `None` where nothing changes.
///
/// # Errors
/// The path and both types of the first column that `table` has with a type that cannot become `wanted`'s, that of one
/// that may not become optional, the path that two columns would share, or the column that `Strict` does not rename.
pub fn evolved(table: &TableSchema, wanted: &TableSchema, layout: &Layout) -> Result<Option<TableSchema>, String> {
    let newest = |of: &str| table.newest.get(of).copied().unwrap_or_default();
    let of = |is: fn(u32, u32) -> bool| {
        wanted.newest.iter().filter(move |(of, id)| is(**id, newest(of))).map(|(of, _)| of.as_str()).collect()
    };
    let mut change = Change {
        layout,
        older: of(|id, newest| id < newest),
        newer: if layout.evolution == Evolution::Full { of(|id, newest| id > newest) } else { BTreeSet::new() },
        has_defaults: is_later_version(table, wanted, layout),
        changed: false,
    };
    let mut fields = table.fields.clone();
    let kept = change.fields(&mut fields, &wanted.fields, "")?;
    if !change.changed && change.newer.is_empty() {
        return Ok(None);
    }
    let new = fields.split_off(kept);
    let (metadata, data): (Vec<_>, Vec<_>) = new.into_iter().partition(|field| layout.is_metadata(&field.name));
    let is_last = |field: &Field| layout.is_metadata(&field.name) || field.name == RESCUED;
    let position = fields.iter().position(is_last).unwrap_or(fields.len());
    fields.splice(position..position, data);
    fields.extend(metadata);
    check_paths(&fields, "", &mut HashSet::new())?;
    let mut next = TableSchema { newest: table.newest.clone(), ..TableSchema::of(fields) };
    note_newest(&mut next, wanted, layout);
    Ok(Some(next))
}

/// The columns of a table that is made for `wanted`.
#[must_use]
pub fn founded(wanted: &TableSchema, layout: &Layout) -> TableSchema {
    let mut table = TableSchema::of(wanted.fields.clone());
    forget_types(&mut table.fields, layout);
    note_newest(&mut table, wanted, layout);
    table
}

/// What a change makes of one column; the column by its names from the top, joined by dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A new column of this type.
    Added(String, Type),
    /// From this type to that.
    Promoted(String, Type, Type),
    /// Null is one of its values from now on.
    Relaxed(String),
    /// To this name.
    Renamed(String, String),
    /// It is there no more.
    Dropped(String),
}

/// What differs between the columns of a table and what becomes of them, parents before what is inside them.
#[must_use]
pub fn differences(before: &TableSchema, after: &TableSchema) -> Vec<Changed> {
    let mut found = Vec::new();
    differ(&before.fields, &after.fields, "", &mut found);
    found
}

fn differ(before: &[Field], after: &[Field], path: &str, found: &mut Vec<Changed>) {
    let is_same = |a: &Field, b: &Field| if a.id == 0 || b.id == 0 { a.name == b.name } else { a.id == b.id };
    for now in after {
        let here = format!("{path}{}", now.name);
        let Some(was) = before.iter().find(|was| is_same(was, now)) else {
            found.push(Changed::Added(here, now.kind.clone()));
            continue;
        };
        if was.name != now.name {
            found.push(Changed::Renamed(format!("{path}{}", was.name), now.name.clone()));
        }
        if was.required && !now.required {
            found.push(Changed::Relaxed(here.clone()));
        }
        differ_in_type(&was.kind, &now.kind, &here, found);
    }
    for gone in before.iter().filter(|was| !after.iter().any(|now| is_same(was, now))) {
        found.push(Changed::Dropped(format!("{path}{}", gone.name)));
    }
}

fn differ_in_type(before: &Type, after: &Type, path: &str, found: &mut Vec<Changed>) {
    let one = std::slice::from_ref;
    match (before, after) {
        (Type::Struct(before), Type::Struct(after)) => differ(before, after, &format!("{path}."), found),
        (Type::List(before), Type::List(after)) => differ(one(before), one(after), &format!("{path}."), found),
        (Type::Map(_, before), Type::Map(_, after)) => differ(one(before), one(after), &format!("{path}."), found),
        (before, after) if before != after => {
            found.push(Changed::Promoted(path.to_owned(), before.clone(), after.clone()));
        }
        _ => {}
    }
}

/// Takes note of the newest schemas, where anything depends on which these are.
fn note_newest(table: &mut TableSchema, wanted: &TableSchema, layout: &Layout) {
    if layout.evolution == Evolution::Full || has_sources(&mut table.fields) {
        for (of, id) in wanted.newest.iter().filter(|(_, id)| **id > 0) {
            let newest = table.newest.entry(of.clone()).or_default();
            *newest = (*newest).max(*id);
        }
    }
}

fn has_sources(fields: &mut [Field]) -> bool {
    fields.iter_mut().any(|field| {
        let mut below = false;
        each_struct(&mut field.kind, &mut |fields| below |= has_sources(fields));
        below || !field.sources.is_empty()
    })
}

/// What is of which type matters only where columns are dropped.
fn forget_types(fields: &mut [Field], layout: &Layout) {
    if layout.evolution != Evolution::Full {
        for field in fields {
            field.sources.retain(|source| !matches!(source, Source::Of(_)));
            each_struct(&mut field.kind, &mut |fields| forget_types(fields, layout));
        }
    }
}

struct Change<'a> {
    layout: &'a Layout,
    /// Types of records whose schema here is older than the newest that named columns.
    older: BTreeSet<&'a str>,
    /// Types of records whose schema here is newer than all before, and drops columns.
    newer: BTreeSet<&'a str>,
    /// True where what is added keeps the schema's defaults.
    has_defaults: bool,
    changed: bool,
}

impl Change<'_> {
    /// Brings siblings into `table`, new ones last; answers how many of those before are left.
    fn fields(&mut self, table: &mut Vec<Field>, wanted: &[Field], path: &str) -> Result<usize, String> {
        let known = table.len();
        let found = matching(table, wanted);
        let mut met = vec![false; known];
        found.iter().flatten().for_each(|at| met[*at] = true);
        let gone: Vec<bool> =
            table.iter_mut().zip(&met).map(|(column, met)| !met && self.drops(column, path)).collect();
        self.rename(table, wanted, &found, &gone, path)?;
        for (field, at) in wanted.iter().zip(found) {
            let Some(at) = at else {
                self.add(table, field.clone());
                continue;
            };
            let (mut column, before) = (table[at].clone(), self.changed);
            let path = format!("{path}{}", column.name);
            match self.item(&mut column, field, &path) {
                Ok(()) => table[at] = column,
                Err(misfit) if self.layout.evolution != Evolution::Branch => return Err(misfit),
                Err(misfit) => {
                    self.changed = before;
                    let branch = branched(field);
                    if position(wanted, &branch.name).is_some() {
                        return Err(misfit);
                    }
                    match matching(&table[..known], std::slice::from_ref(&branch))[0] {
                        Some(at) => {
                            let mut column = table[at].clone();
                            self.item(&mut column, &branch, &branch.name)?;
                            table[at] = column;
                            met[at] = true;
                        }
                        None => self.add(table, branch),
                    }
                }
            }
        }
        for (column, _) in table.iter_mut().zip(met).filter(|(_, met)| !met) {
            // What has a default is filled with it.
            if column.marks.write_default.is_none() {
                self.relax(column, &format!("{path}{}", column.name))?;
            }
        }
        let mut gone = gone.into_iter();
        let dropped = table.extract_if(..known, |_| gone.next() == Some(true)).count();
        Ok(known - dropped)
    }

    fn add(&mut self, table: &mut Vec<Field>, field: Field) {
        let kind = match self.layout.mapping.added {
            Added::AsWritten => field.kind,
            Added::Optional => optional(field.kind),
        };
        let marks = if self.has_defaults { field.marks } else { Marks::default() };
        let mut field = Field { required: false, kind, marks, ..field };
        let name = unique_name(table, &field.name);
        if name != field.name {
            field.sources.push(Source::Name(std::mem::replace(&mut field.name, name)));
        }
        forget_types(std::slice::from_mut(&mut field), self.layout);
        table.push(field);
        self.changed = true;
    }

    /// Gives columns the names that the schema has for them.
    fn rename(
        &mut self,
        table: &mut [Field],
        wanted: &[Field],
        found: &[Option<usize>],
        gone: &[bool],
        path: &str,
    ) -> Result<(), String> {
        let mut names: Vec<Option<&str>> = vec![None; table.len()];
        for (field, at) in wanted.iter().zip(found) {
            let Some(at) = at.filter(|at| !knows_name(&table[*at], field) && !self.is_older(field)) else { continue };
            let name = &table[at].name;
            if self.layout.evolution == Evolution::Strict {
                return Err(format!("column `{path}{name}` is called `{}` in the schema", field.name));
            }
            let column = format!("{path}{name}");
            if !self.is_pinned(&column) && !self.is_named(&column) {
                names[at] = Some(&field.name);
            }
        }
        let name = |at: usize, names: &[Option<&str>]| names[at].map_or_else(|| table[at].name.clone(), str::to_owned);
        let all = || (0..table.len()).filter(|at| !gone[*at]);
        while let Some(clash) = all().find(|at| {
            let is_same = |other: &usize| other != at && name(*other, &names).eq_ignore_ascii_case(&name(*at, &names));
            names[*at].is_some() && all().any(|other| is_same(&other))
        }) {
            names[clash] = None;
        }
        for (column, name) in table.iter_mut().zip(names) {
            if let Some(name) = name {
                let before = std::mem::replace(&mut column.name, name.to_owned());
                column
                    .sources
                    .retain(|source| !matches!(source, Source::Name(had) | Source::Alias(had) if had == name));
                column.sources.push(Source::Name(before));
                self.changed = true;
            }
        }
        Ok(())
    }

    fn is_older(&self, field: &Field) -> bool {
        let of = field.sources.iter().find_map(|source| match source {
            Source::Of(of) => Some(of.as_str()),
            Source::Name(_) | Source::Alias(_) | Source::Number { .. } => None,
        });
        of.is_some_and(|of| self.older.contains(of))
    }

    /// True where the configuration counts on a column's name, or on one of a column that it is in.
    fn is_pinned(&self, path: &str) -> bool {
        self.layout.pinned.iter().any(|pinned| is_within(pinned, path) || is_within(path, pinned))
    }

    /// True where the configuration gives the column its name.
    fn is_named(&self, path: &str) -> bool {
        self.layout.projection.rename.values().any(|name| name.eq_ignore_ascii_case(path))
    }

    /// True where a column that the schema lacks was only of types of records that have it no more.
    fn drops(&mut self, column: &mut Field, path: &str) -> bool {
        let before = column.sources.len();
        column.sources.retain(|source| !matches!(source, Source::Of(of) if self.newer.contains(of.as_str())));
        if column.sources.len() == before {
            return false;
        }
        self.changed = true;
        let is_of_others = column.sources.iter().any(|source| matches!(source, Source::Of(_)));
        let path = format!("{path}{}", column.name);
        // A field that is left out may be there.
        !is_of_others && !identifies(column) && !self.is_pinned(&path) && self.layout.projection.takes_column(&path)
    }

    fn relax(&mut self, column: &mut Field, path: &str) -> Result<(), String> {
        if column.required && column.marks.identifies {
            return Err(format!("column `{path}` tells the table's rows apart and cannot be null"));
        }
        self.changed |= column.required;
        column.required = false;
        Ok(())
    }

    fn item(&mut self, table: &mut Field, wanted: &Field, path: &str) -> Result<(), String> {
        match (&mut table.kind, &wanted.kind) {
            (Type::Struct(fields), Type::Struct(wanted)) => {
                self.fields(fields, wanted, &format!("{path}."))?;
            }
            (Type::List(element), Type::List(wanted)) => self.item(element, wanted, &format!("{path}.element"))?,
            (Type::Map(key, value), Type::Map(wanted_key, wanted)) if same_key(&key.kind, &wanted_key.kind) => {
                self.item(value, wanted, &format!("{path}.value"))?;
            }
            (kind, wanted) if kind.takes(wanted) && !matches!(kind, Type::Map(..)) => {}
            (kind, wanted) if kind.becomes(wanted) && !self.layout.partitioned.contains(&table.name) => {
                *kind = wanted.clone();
                self.changed = true;
            }
            (kind, wanted) => return Err(mismatch(path, wanted, kind).to_string()),
        }
        if !wanted.required {
            self.relax(table, path)?;
        }
        self.learn(table, wanted);
        Ok(())
    }

    /// Notes what the schema says of the field that the column does not know yet.
    fn learn(&mut self, column: &mut Field, field: &Field) {
        let is_numbered = field.sources.iter().any(|source| matches!(source, Source::Number { .. }));
        let own = Some(Source::Name(field.name.clone())).filter(|_| !is_numbered);
        for source in own.into_iter().chain(field.sources.iter().cloned()) {
            let is_news = match &source {
                Source::Name(name) => !name.eq_ignore_ascii_case(&column.name) && !had_name(column, name),
                Source::Alias(name) => !name.eq_ignore_ascii_case(&column.name) && !goes_by(column, name),
                Source::Number { .. } => !column.sources.contains(&source),
                Source::Of(_) => self.layout.evolution == Evolution::Full && !column.sources.contains(&source),
            };
            if is_news {
                if let Source::Name(name) = &source {
                    column.sources.retain(|source| !matches!(source, Source::Alias(alias) if alias == name));
                }
                column.sources.push(source);
                self.changed = true;
            }
        }
    }
}

/// True where the column, or one inside it, tells the table's rows apart.
fn identifies(column: &Field) -> bool {
    let within = if let Type::Struct(fields) = &column.kind { fields.iter().any(identifies) } else { false };
    column.marks.identifies || within
}

/// True where `wanted` has all that the records have which filled `table` before. Where it has not, it may be of another
/// kind of record in the same topic, whose defaults say nothing of them.
fn is_later_version(table: &TableSchema, wanted: &TableSchema, layout: &Layout) -> bool {
    let found = matching(&table.fields, &wanted.fields);
    let is_own = |(_, field): &(usize, &Field)| !layout.is_metadata(&field.name) && field.name != RESCUED;
    let mut own = table.fields.iter().enumerate().filter(is_own).peekable();
    own.peek().is_some() && own.all(|(at, _)| found.contains(&Some(at)))
}

/// The type with all that lies in it optional, but for the keys of maps.
fn optional(kind: Type) -> Type {
    let inner = |field: Field| Field { required: false, kind: optional(field.kind), ..field };
    match kind {
        Type::Struct(fields) => Type::Struct(fields.into_iter().map(inner).collect()),
        Type::List(element) => Type::List(Box::new(inner(*element))),
        Type::Map(key, value) => Type::Map(key, Box::new(inner(*value))),
        kind => kind,
    }
}

/// Keys that lose a field may become the same key.
fn same_key(table: &Type, wanted: &Type) -> bool {
    if table.is_nested() { table.to_string() == wanted.to_string() } else { table.takes(wanted) }
}

/// Iceberg finds columns by their names from the top, joined by dots: no two may be the same.
fn check_paths(fields: &[Field], path: &str, taken: &mut HashSet<String>) -> Result<(), String> {
    for field in fields {
        let path = format!("{path}{}", field.name);
        let below = format!("{path}.");
        match &field.kind {
            Type::Struct(fields) => check_paths(fields, &below, taken)?,
            Type::List(element) => check_paths(std::slice::from_ref(element), &below, taken)?,
            Type::Map(key, value) => {
                check_paths(std::slice::from_ref(key), &below, taken)?;
                check_paths(std::slice::from_ref(value), &below, taken)?;
            }
            _ => {}
        }
        if !taken.insert(path.clone()) {
            return Err(format!("two columns would be called `{path}`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
