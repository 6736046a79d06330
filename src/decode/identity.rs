//! Which of a table's columns a schema's fields are, whatever both are called. What follows for the table, `evolution`
//! decides.
//!
//! The rules, of siblings, the first that holds: the column with the field's number, of that name or else of any; the
//! column of its name; of its name but for case; the one that had its name; the one that has or had one of its aliases.
//! A column that has never had the field's name is the field's only where their types go together: else it is another
//! field, and number or alias were taken over.

use std::collections::HashMap;

use crate::model::schema::{Field, RESCUED, Source, Type};

/// For each of `wanted` the index of its column in `table`; no column is that of two fields, unless they share a name.
pub(super) fn matching(table: &[Field], wanted: &[Field]) -> Vec<Option<usize>> {
    let mut found = vec![None; wanted.len()];
    let mut taken: Vec<Option<usize>> = vec![None; table.len()];
    let by_name: HashMap<&str, usize> = table.iter().enumerate().rev().map(|(at, f)| (f.name.as_str(), at)).collect();
    let is_name = |source: &Source| matches!(source, Source::Name(_) | Source::Alias(_));
    let had_names = table.iter().any(|column| column.sources.iter().any(is_name));
    for rule in Rule::ALL {
        for (at, field) in wanted.iter().enumerate().filter(|(_, field)| rule.is_for(field, had_names)) {
            if found[at].is_some() {
                continue;
            }
            let free = |index: &usize| taken[*index].is_none();
            let index = match rule {
                Rule::Name => by_name
                    .get(field.name.as_str())
                    .copied()
                    .filter(|index| free(index) || taken[*index].is_some_and(|by| wanted[by].name == field.name)),
                _ => (0..table.len()).filter(free).find(|index| rule.holds(&table[*index], field)),
            };
            if let Some(index) = index {
                (found[at], taken[index]) = (Some(index), Some(at));
            }
        }
    }
    found
}

#[derive(Clone, Copy)]
enum Rule {
    NumberAndName,
    Number,
    Name,
    NameButForCase,
    FormerName,
    Alias,
}

impl Rule {
    const ALL: [Self; 6] =
        [Self::NumberAndName, Self::Number, Self::Name, Self::NameButForCase, Self::FormerName, Self::Alias];

    /// False where it holds for no column.
    fn is_for(self, field: &Field, had_names: bool) -> bool {
        match self {
            Self::NumberAndName | Self::Number | Self::Alias => !field.sources.is_empty(),
            Self::FormerName => had_names,
            Self::Name | Self::NameButForCase => true,
        }
    }

    fn holds(self, column: &Field, field: &Field) -> bool {
        match self {
            Self::NumberAndName => column.name == field.name && numbers(column, field).any(|(a, b)| a == b),
            Self::Number => {
                numbers(column, field).any(|(a, b)| a == b) && (knows_name(column, field) || goes_into(field, column))
            }
            Self::Name => column.name == field.name,
            Self::NameButForCase => column.name.eq_ignore_ascii_case(&field.name),
            // A name that another number of the same message has now is another field's.
            Self::FormerName => {
                (had_name(column, &field.name) || goes_by(column, &field.name) && goes_into(field, column))
                    && !numbers(column, field).any(|((a, _), (b, _))| a == b)
            }
            Self::Alias => field.sources.iter().any(|source| match source {
                Source::Alias(alias) => (column.name == *alias || goes_by(column, alias)) && goes_into(field, column),
                Source::Name(_) | Source::Number { .. } | Source::Of(_) => false,
            }),
        }
    }
}

/// All pairs of a number of the one and a number of the other.
fn numbers<'a>(a: &'a Field, b: &'a Field) -> impl Iterator<Item = ((&'a str, u32), (&'a str, u32))> {
    let of = |field: &'a Field| {
        field.sources.iter().filter_map(|source| match source {
            Source::Number { of, number, .. } => Some((of.as_str(), *number)),
            Source::Name(_) | Source::Alias(_) | Source::Of(_) => None,
        })
    };
    of(a).flat_map(move |one| of(b).map(move |other| (one, other)))
}

/// True where the column had that name.
pub(super) fn had_name(column: &Field, name: &str) -> bool {
    column.sources.iter().any(|source| matches!(source, Source::Name(had) if had == name))
}

/// True where the column had that name, or a schema says that it may have had.
pub(super) fn goes_by(column: &Field, name: &str) -> bool {
    column.sources.iter().any(|source| matches!(source, Source::Name(had) | Source::Alias(had) if had == name))
}

/// True where the field's values may become the column's, promoted one way or the other.
fn goes_into(field: &Field, column: &Field) -> bool {
    match (&field.kind, &column.kind) {
        (Type::Struct(_), Type::Struct(_)) => true,
        (Type::List(a), Type::List(b)) => goes_into(a, b),
        (Type::Map(k, a), Type::Map(l, b)) => l.kind.takes(&k.kind) && goes_into(a, b),
        (a, b) => b.takes(a) || a.takes(b),
    }
}

/// True where the field's name is no news to the column: it is, was or goes by the same name.
pub(super) fn knows_name(column: &Field, field: &Field) -> bool {
    // The numbers of its own message come first; what follows is of a key's field that has the same column.
    let message = |source: &Source| if let Source::Number { of, .. } = source { Some(of.clone()) } else { None };
    let own = field.sources.iter().find_map(message);
    let is_own = |source: &&Source| own.is_some() && message(source) == own;
    column.name.eq_ignore_ascii_case(&field.name)
        || goes_by(column, &field.name)
        || field.sources.iter().filter(is_own).any(|source| column.sources.contains(source))
}

/// `field` as a column for values of another type than its own column's, `name__type`.
pub(super) fn branched(field: &Field) -> Field {
    let kind = match &field.kind {
        Type::Struct(_) => "struct".to_owned(),
        Type::List(_) => "list".to_owned(),
        Type::Map(..) => "map".to_owned(),
        Type::Decimal(precision, scale) => format!("decimal_{precision}_{scale}"),
        Type::Fixed(bytes) => format!("fixed_{bytes}"),
        kind => kind.to_string(),
    };
    let branch = |name: &str| format!("{name}__{kind}");
    let sources = field.sources.iter().map(|source| match source {
        Source::Name(name) => Source::Name(branch(name)),
        Source::Alias(alias) => Source::Alias(branch(alias)),
        Source::Number { of, number, name } => Source::Number { of: branch(of), number: *number, name: branch(name) },
        Source::Of(of) => Source::Of(of.clone()),
    });
    Field { name: branch(&field.name), sources: sources.collect(), ..field.clone() }
}

/// Notes for all fields, at any depth, that they are of this type of record. The column for what fits no other is
/// nobody's.
pub(super) fn stamp(fields: &mut [Field], of: &str) {
    for field in fields.iter_mut().filter(|field| field.name != RESCUED) {
        field.sources.push(Source::Of(of.to_owned()));
        each_struct(&mut field.kind, &mut |fields| stamp(fields, of));
    }
}

/// Calls `visit` with the fields of the struct next below, in lists and values of maps too; keys of maps never change.
pub(super) fn each_struct(kind: &mut Type, visit: &mut impl FnMut(&mut Vec<Field>)) {
    match kind {
        Type::Struct(fields) => visit(fields),
        Type::List(element) => each_struct(&mut element.kind, visit),
        Type::Map(_, value) => each_struct(&mut value.kind, visit),
        _ => {}
    }
}
