//! Which of a record's fields have columns, and what those are called.
//!
//! A field is told by the name that its column has where nothing is chosen; a nested one by the path to it, with dots
//! between, as Iceberg has it (`element` inside a list). A field that the choice does not name goes by an alias that it
//! does name, so that a rename in a schema chooses nothing else. A map is taken whole or not at all. Names are compared
//! without case, as engines do.

use std::collections::BTreeMap;

use super::schema::{Field, RESCUED, Source, Type};
use crate::error::{Error, Result};

/// All fields, by their own names.
pub static ALL: Projection = Projection { include: None, exclude: Vec::new(), rename: BTreeMap::new() };

/// A choice among fields, and names for them; by default all have columns of their own names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Projection {
    /// The fields to have, with all that is inside them; `None`: all.
    pub include: Option<Vec<String>>,
    /// The fields to leave out, with all that is inside them.
    pub exclude: Vec<String>,
    /// Top-level fields, and what their columns are called.
    pub rename: BTreeMap<String, String>,
}

impl Projection {
    /// True where a field has a column, or fields inside it have.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        let included = |paths: &Vec<String>| paths.iter().any(|other| is_within(path, other) || is_within(other, path));
        self.include.as_ref().is_none_or(included) && !self.exclude.iter().any(|other| is_within(path, other))
    }

    /// True where every field has a column of its own name.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// The choice among what is inside a field that is taken; of an empty path among the fields themselves.
    #[must_use]
    pub fn inside(&self, path: &str) -> Self {
        if path.is_empty() {
            return Self { rename: BTreeMap::new(), ..self.clone() };
        }
        let inside = |paths: &Vec<String>| -> Vec<String> {
            paths.iter().filter(|other| is_within(other, path)).filter_map(|other| rest(other, path)).collect()
        };
        let include = self.include.as_ref().filter(|paths| !paths.iter().any(|other| is_within(path, other)));
        Self { include: include.map(inside), exclude: inside(&self.exclude), rename: BTreeMap::new() }
    }

    /// The choice among what is inside a field of one of these names, taken or not: what one of them leaves out is left
    /// out of all.
    #[must_use]
    pub fn inside_any<'a>(&self, paths: impl Iterator<Item = &'a str>) -> Self {
        let mut any = Self { include: Some(Vec::new()), ..Self::default() };
        for inside in paths.map(|path| self.inside(path)) {
            any.exclude.extend(inside.exclude);
            any.include = any.include.zip(inside.include).map(|(any, more)| [any, more].concat());
        }
        any
    }

    /// True where the field of the column at `path` would have one.
    #[must_use]
    pub fn takes_column(&self, path: &str) -> bool {
        let (top, inside) = path.split_at(path.find('.').unwrap_or(path.len()));
        self.field(top).is_none_or(|top| self.takes(&format!("{top}{inside}")))
    }

    /// What the column of a top-level field is called.
    #[must_use]
    pub fn name<'a>(&'a self, field: &'a str) -> &'a str {
        self.renamed(field).unwrap_or(field)
    }

    fn renamed(&self, field: &str) -> Option<&str> {
        self.rename.iter().find(|(from, _)| from.eq_ignore_ascii_case(field)).map(|(_, to)| to.as_str())
    }

    /// The path by which the choice knows a field; `outer` is the path to it, with a dot behind, or empty.
    #[must_use]
    pub fn path(&self, outer: &str, field: &Field) -> String {
        let named = |path: &String| {
            let choices = self.include.iter().flatten().chain(&self.exclude).chain(self.rename.keys());
            choices.into_iter().any(|other| is_within(other, path))
        };
        let known = names(field).map(|name| format!("{outer}{name}")).find(named);
        known.unwrap_or_else(|| format!("{outer}{}", field.name))
    }

    /// The top-level field whose column is called so; `None` where the field of that name has another column.
    #[must_use]
    pub fn field<'a>(&'a self, column: &'a str) -> Option<&'a str> {
        let renamed = self.rename.iter().find(|(_, to)| to.eq_ignore_ascii_case(column));
        renamed.map(|(from, _)| from.as_str()).or_else(|| (self.name(column) == column).then_some(column))
    }

    /// True where no other field than this one has the column by a rename.
    #[must_use]
    pub fn leaves_free(&self, column: &str, field: &str) -> bool {
        let mut renamed = self.rename.iter().filter(|(_, to)| to.eq_ignore_ascii_case(column));
        renamed.all(|(from, _)| from.eq_ignore_ascii_case(field))
    }

    /// The columns of `fields`.
    ///
    /// # Errors
    /// `InvalidRecord` where two fields would have one column.
    pub fn columns(&self, fields: Vec<Field>) -> Result<Vec<Field>> {
        if *self == ALL {
            return Ok(fields);
        }
        let mut columns: Vec<(String, Field)> = Vec::with_capacity(fields.len());
        for field in fields {
            let path = field.name.clone();
            let Some(column) = self.column(field, "") else { continue };
            if let Some((other, _)) = columns.iter().find(|(_, other)| other.name.eq_ignore_ascii_case(&column.name)) {
                let column = column.name;
                let text = format!("fields `{other}` and `{path}` would both be column `{column}`");
                return Err(Error::invalid_record(format!("{text}; exclude or rename one of them under `columns`")));
            }
            columns.push((path, column));
        }
        Ok(columns.into_iter().map(|(_, column)| column).collect())
    }

    /// The column of a field, to which `outer` is the path, with a dot behind, or empty; `None` where nothing of it is
    /// taken.
    #[must_use]
    pub fn column(&self, field: Field, outer: &str) -> Option<Field> {
        let path = self.path(outer, &field);
        // The column for what fits no other is nobody's field.
        let kind = if path == RESCUED || self.takes(&path) { self.kind(field.kind, &path)? } else { return None };
        let renamed = self.renamed(&path).filter(|_| outer.is_empty());
        let name = renamed.map_or(field.name, str::to_owned);
        Some(Field { name, kind, ..field })
    }

    /// What is taken of a type; `None` where that is nothing.
    fn kind(&self, kind: Type, path: &str) -> Option<Type> {
        let inside = |field: Field| self.column(field, &format!("{path}."));
        Some(match kind {
            Type::Struct(fields) => {
                let fields: Vec<Field> = fields.into_iter().filter_map(inside).collect();
                // Iceberg has no empty struct.
                if fields.is_empty() {
                    return None;
                }
                Type::Struct(fields)
            }
            Type::List(element) => Type::List(Box::new(inside(*element)?)),
            kind => kind,
        })
    }

    /// The names among `include`, `exclude` and `rename` that no field has.
    #[must_use]
    pub fn unknown(&self, fields: &[Field]) -> Vec<&str> {
        let mut known = Vec::new();
        fields.iter().for_each(|field| paths(field, "", &mut known));
        let names = self.include.iter().flatten().chain(&self.exclude).chain(self.rename.keys());
        let unknown = names.filter(|name| !known.iter().any(|path| path.eq_ignore_ascii_case(name)));
        unknown.map(String::as_str).collect()
    }
}

/// True where the field at `path` is the one at `other` or inside it.
#[must_use]
pub fn is_within(path: &str, other: &str) -> bool {
    let (path, other) = (path.as_bytes(), other.as_bytes());
    path.get(..other.len()).is_some_and(|start| start.eq_ignore_ascii_case(other))
        && path.get(other.len()).is_none_or(|next| *next == b'.')
}

/// What follows `outer` and its dot in `path`.
fn rest(path: &str, outer: &str) -> Option<String> {
    Some(path.get(outer.len() + 1..)?.to_owned())
}

fn paths(field: &Field, outer: &str, all: &mut Vec<String>) {
    for name in names(field) {
        let path = format!("{outer}{name}");
        let inside = format!("{path}.");
        match &field.kind {
            Type::Struct(fields) => fields.iter().for_each(|field| paths(field, &inside, all)),
            Type::List(element) => paths(element, &inside, all),
            _ => {}
        }
        all.push(path);
    }
}

/// The names that a field goes by, its own first.
fn names(field: &Field) -> impl Iterator<Item = &str> {
    let aliases = field.sources.iter().filter_map(|source| match source {
        Source::Alias(alias) => Some(alias.as_str()),
        Source::Name(_) | Source::Number { .. } | Source::Of(_) => None,
    });
    std::iter::once(field.name.as_str()).chain(aliases)
}
