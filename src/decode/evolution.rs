//! What a schema changes about a table's columns: added, promoted, relaxed, branched. Decides; changes nothing.

use std::collections::HashSet;

use super::json::RESCUED;
use super::layout::Layout;
use super::mapping::{branch_name, mismatch, position};
use crate::model::schema::{Field, TableSchema, Type};

/// What becomes of schemas that the table's columns do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evolution {
    /// Columns are added, promoted and relaxed; records of a schema that fits none the less are rejected.
    Extend,
    /// As `Extend`, but a schema that does not fit suspends the table.
    Strict,
    /// As `Extend`, but a field of another type gets a column of its own, `name__type`.
    Branch,
}

/// `table` as records of `wanted` need it: columns that it lacks are added at any depth, always optional, new ones of
/// the top level before the first metadata column and the one for what fits no other; types are promoted as Iceberg
/// allows; what is required and may be null or missing becomes optional. Names that differ by case alone are one
/// column, as they are to engines. `None` where nothing changes.
///
/// # Errors
/// The path and both types of the first column that `table` has with a type that cannot become `wanted`'s, or the path
/// that two columns would share.
pub fn evolved(table: &TableSchema, wanted: &TableSchema, layout: &Layout) -> Result<Option<TableSchema>, String> {
    let mut change = Change { layout, changed: false };
    let mut fields = table.fields.clone();
    let is_last = |field: &Field| layout.is_metadata(&field.name) || field.name == RESCUED;
    let position = fields.iter().position(is_last).unwrap_or(fields.len());
    let known = fields.len();
    change.fields(&mut fields, &wanted.fields, "")?;
    if fields.len() > known {
        let new = fields.split_off(known);
        let (metadata, data): (Vec<_>, Vec<_>) = new.into_iter().partition(|field| layout.is_metadata(&field.name));
        fields.splice(position..position, data);
        fields.extend(metadata);
    }
    if !change.changed {
        return Ok(None);
    }
    check_paths(&fields, "", &mut HashSet::new())?;
    Ok(Some(TableSchema { schema_id: -1, fields }))
}

struct Change<'a> {
    layout: &'a Layout,
    changed: bool,
}

impl Change<'_> {
    fn fields(&mut self, table: &mut Vec<Field>, wanted: &[Field], path: &str) -> Result<(), String> {
        let known = table.len();
        let mut met = vec![false; known];
        for field in wanted {
            let path = format!("{path}{}", field.name);
            let Some(at) = position(&table[..known], &field.name) else {
                self.add(table, field.clone());
                continue;
            };
            met[at] = true;
            let (mut column, before) = (table[at].clone(), self.changed);
            match self.item(&mut column, field, &path) {
                Ok(()) => table[at] = column,
                Err(misfit) if self.layout.evolution != Evolution::Branch => return Err(misfit),
                Err(misfit) => {
                    self.changed = before;
                    let name = branch_name(field);
                    if position(wanted, &name).is_some() {
                        return Err(misfit);
                    }
                    match position(&table[..known], &name) {
                        Some(at) => {
                            let mut column = table[at].clone();
                            self.item(&mut column, field, &name)?;
                            table[at] = column;
                            met[at] = true;
                        }
                        None => self.add(table, Field { name, ..field.clone() }),
                    }
                }
            }
        }
        for (column, _) in table.iter_mut().zip(met).filter(|(_, met)| !met) {
            self.relax(column);
        }
        Ok(())
    }

    fn add(&mut self, table: &mut Vec<Field>, field: Field) {
        table.push(Field { required: false, ..field });
        self.changed = true;
    }

    fn relax(&mut self, column: &mut Field) {
        self.changed |= column.required;
        column.required = false;
    }

    fn item(&mut self, table: &mut Field, wanted: &Field, path: &str) -> Result<(), String> {
        match (&mut table.kind, &wanted.kind) {
            (Type::Struct(fields), Type::Struct(wanted)) => self.fields(fields, wanted, &format!("{path}."))?,
            (Type::List(element), Type::List(wanted)) => self.item(element, wanted, &format!("{path}.element"))?,
            (Type::Map(key, value), Type::Map(wanted_key, wanted)) if same_key(&key.kind, &wanted_key.kind) => {
                self.item(value, wanted, &format!("{path}.value"))?;
            }
            (kind, wanted) if kind.takes(wanted) && !matches!(kind, Type::Map(..)) => {}
            (kind, wanted)
                if !kind.is_nested() && wanted.takes(kind) && !self.layout.partitioned.contains(&table.name) =>
            {
                *kind = wanted.clone();
                self.changed = true;
            }
            (kind, wanted) => return Err(mismatch(path, wanted, kind).to_string()),
        }
        if !wanted.required {
            self.relax(table);
        }
        Ok(())
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
