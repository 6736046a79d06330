//! The table property that keeps what columns are in the schemas of records: read into columns, and written of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub(super) use crate::model::mapping::IDENTITY as PROPERTY;
use crate::model::schema::{Field, Source, TableSchema, Type};

/// The property's text, JSON. Columns go by their ids.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    /// [`TableSchema::newest`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    newest: BTreeMap<String, u32>,
    /// [`Source::Name`]: names by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    names: BTreeMap<i32, BTreeSet<String>>,
    /// [`Source::Alias`]: aliases by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    aliases: BTreeMap<i32, BTreeSet<String>>,
    /// [`Source::Number`]: columns by message, number and name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    numbers: BTreeMap<String, BTreeMap<u32, BTreeMap<String, BTreeSet<i32>>>>,
    /// [`Source::Of`]: columns by type of record.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    types: BTreeMap<String, BTreeSet<i32>>,
}

/// Adds to the columns of `schema` what the property says of them. What it says of columns that are no more is passed
/// over.
///
/// # Errors
/// `Corrupt` where the text cannot be read.
pub(super) fn read(text: &str, schema: &mut TableSchema) -> Result<()> {
    let identity: Identity = serde_json::from_str(text).map_err(|e| {
        let text = format!("read property `{PROPERTY}`; a newer frazil may have written it, or another tool");
        Error::corrupt(text).with_source(e)
    })?;
    let mut sources: BTreeMap<i32, Vec<Source>> = BTreeMap::new();
    for (id, names) in identity.names {
        sources.entry(id).or_default().extend(names.into_iter().map(Source::Name));
    }
    for (id, aliases) in identity.aliases {
        sources.entry(id).or_default().extend(aliases.into_iter().map(Source::Alias));
    }
    for (of, numbers) in &identity.numbers {
        for (number, names) in numbers {
            for (name, ids) in names {
                let source = Source::Number { of: of.clone(), number: *number, name: name.clone() };
                ids.iter().for_each(|id| sources.entry(*id).or_default().push(source.clone()));
            }
        }
    }
    for (of, ids) in identity.types {
        ids.iter().for_each(|id| sources.entry(*id).or_default().push(Source::Of(of.clone())));
    }
    schema.newest = identity.newest;
    schema.fields.iter_mut().for_each(|field| give(field, &mut sources));
    Ok(())
}

fn give(field: &mut Field, sources: &mut BTreeMap<i32, Vec<Source>>) {
    field.sources = sources.remove(&field.id).unwrap_or_default();
    match &mut field.kind {
        Type::Struct(fields) => fields.iter_mut().for_each(|field| give(field, sources)),
        Type::List(element) => give(element, sources),
        Type::Map(key, value) => [key, value].into_iter().for_each(|field| give(field, sources)),
        _ => {}
    }
}

/// The property's text for columns that have their ids; `None` where there is nothing to say.
pub(super) fn write(schema: &TableSchema) -> Option<String> {
    let mut identity = Identity { newest: schema.newest.clone(), ..Identity::default() };
    schema.fields.iter().for_each(|field| identity.take(field));
    let text = serde_json::to_string(&identity).ok()?;
    (text != "{}").then_some(text)
}

impl Identity {
    fn take(&mut self, field: &Field) {
        for source in field.sources.iter().cloned() {
            let (ids, id) = match source {
                Source::Name(name) => {
                    self.names.entry(field.id).or_default().insert(name);
                    continue;
                }
                Source::Alias(alias) => {
                    self.aliases.entry(field.id).or_default().insert(alias);
                    continue;
                }
                Source::Number { of, number, name } => {
                    let numbers = self.numbers.entry(of).or_default().entry(number).or_default();
                    (numbers.entry(name).or_default(), field.id)
                }
                Source::Of(of) => (self.types.entry(of).or_default(), field.id),
            };
            ids.insert(id);
        }
        match &field.kind {
            Type::Struct(fields) => fields.iter().for_each(|field| self.take(field)),
            Type::List(element) => self.take(element),
            Type::Map(key, value) => [key, value].into_iter().for_each(|field| self.take(field)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form that tables have: never to be edited.
    const WRITTEN: &str = concat!(
        r#"{"newest":{"shop.Order":7},"names":{"1":["a","b"],"4":["street"]},"aliases":{"4":["lane"]},"#,
        r#""numbers":{"shop.Address":{"1":{"road":[4],"street":[4]}},"shop.Order":{"1":{"a":[1],"c":[1]},"3":{"home":[3]}}},"#,
        r#""types":{"shop.Order":[1,3]}}"#
    );

    fn number(of: &str, number: u32, name: &str) -> Source {
        Source::Number { of: of.to_owned(), number, name: name.to_owned() }
    }

    fn table() -> TableSchema {
        let name = |name: &str| Source::Name(name.to_owned());
        let alias = Source::Alias("lane".to_owned());
        let of = || Source::Of("shop.Order".to_owned());
        let field = |id, name: &str, kind, sources| Field { id, sources, ..Field::optional(name, kind) };
        let numbers =
            vec![name("street"), alias, number("shop.Address", 1, "road"), number("shop.Address", 1, "street")];
        let road = field(4, "road", Type::String, numbers);
        let home = field(5, "element", Type::Struct(vec![road]), Vec::new());
        let mut table = TableSchema::of(vec![
            field(
                1,
                "c",
                Type::Long,
                vec![name("a"), name("b"), number("shop.Order", 1, "a"), number("shop.Order", 1, "c"), of()],
            ),
            field(2, "plain", Type::Long, Vec::new()),
            field(3, "home", Type::List(Box::new(home)), vec![number("shop.Order", 3, "home"), of()]),
        ]);
        table.newest.insert("shop.Order".to_owned(), 7);
        table
    }

    fn bare(mut table: TableSchema) -> TableSchema {
        table.newest.clear();
        table.fields.iter_mut().for_each(|field| give(field, &mut BTreeMap::new()));
        table
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(write(&table()).as_deref(), Some(WRITTEN));
        let mut read_back = bare(table());
        read(WRITTEN, &mut read_back).unwrap();
        assert_eq!(read_back, table());
        assert_eq!(write(&bare(table())), None);
    }

    #[test]
    fn columns_that_are_no_more_are_passed_over_and_what_is_not_understood_is_not() {
        let mut less = bare(table());
        less.fields.remove(0);
        read(WRITTEN, &mut less).unwrap();
        assert_eq!(less.fields, table().fields[1..]);
        for wrong in ["", "7", r#"{"newest":{"a":-1}}"#, r#"{"later":1}"#] {
            assert_eq!(read(wrong, &mut less).unwrap_err().kind(), crate::error::ErrorKind::Corrupt, "{wrong}");
        }
    }
}
