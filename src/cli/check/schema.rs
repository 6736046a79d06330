//! `frazil check --table T --schema FILE`: what a new version of a schema would do to a table, before anybody writes a
//! record with it. Asks the catalog for the table and the registry for the schema of the other side; changes nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::formats::{self, Chosen};
use super::{services, table};
use crate::app;
use crate::cli::view::View;
use crate::cli::{DONE, FAILED};
use crate::config::{Config, process_env};
use crate::decode::evolution::{Changed, Evolution, differences, evolved};
use crate::decode::layout::Layout;
use crate::decode::schema::Schema;
use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::model::schema::TableSchema;
use crate::pipeline::driver::TableSpec;
use crate::pipeline::driver::takeover::layout_for;
use crate::pipeline::event::OnError;
use crate::ports::{RegisteredSchema, SchemaFormat};
use crate::runtime::clock::Clock;

/// What a version would do.
#[derive(Debug, Serialize)]
pub(super) struct Forecast {
    table: String,
    changes: Vec<Change>,
    /// Why records of it would be no rows, and what becomes of them.
    refused: Option<Refused>,
}

#[derive(Debug, Serialize)]
struct Refused {
    because: String,
    /// `dead_letter`, `skip` or `suspend`.
    consequence: &'static str,
}

/// A change of one column.
#[derive(Debug, Serialize)]
struct Change {
    /// `add`, `promote`, `relax`, `rename` or `drop`.
    action: &'static str,
    /// Names from the top, by dots.
    column: String,
    /// Its type or name after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip)]
    text: String,
}

impl Change {
    fn new(change: &Changed) -> Self {
        let text = text(change);
        let (action, column, to) = match change {
            Changed::Added(column, kind) => ("add", column, Some(kind.to_string())),
            Changed::Promoted(column, _, kind) => ("promote", column, Some(kind.to_string())),
            Changed::Relaxed(column) => ("relax", column, None),
            Changed::Renamed(column, name) => ("rename", column, Some(name.clone())),
            Changed::Dropped(column) => ("drop", column, None),
        };
        Self { action, column: column.clone(), to, text }
    }
}

/// A change in words.
pub(super) fn text(change: &Changed) -> String {
    match change {
        Changed::Added(column, kind) => format!("add column `{column}` ({kind})"),
        Changed::Promoted(column, from, to) => format!("promote column `{column}` from {from} to {to}"),
        Changed::Relaxed(column) => format!("let column `{column}` be null"),
        Changed::Renamed(column, name) => format!("rename column `{column}` to `{name}`"),
        Changed::Dropped(column) => format!("drop column `{column}`"),
    }
}

impl View for Forecast {
    fn text(&self) -> String {
        let mut text = self.changes.iter().fold(String::new(), |mut text, change| {
            let _ = writeln!(text, "{}", change.text);
            text
        });
        match &self.refused {
            Some(Refused { because, consequence }) => {
                let consequence = match *consequence {
                    "suspend" => "the first record of it suspends the table",
                    "skip" => "records of it are left out",
                    _ => "records of it become dead letters",
                };
                let _ = writeln!(text, "refused: {because}; {consequence}");
            }
            None if self.changes.is_empty() => text.push_str("no column changes\n"),
            None => {}
        }
        text
    }
}

impl Forecast {
    pub(super) fn exit_code(&self) -> u8 {
        if self.refused.is_some() { FAILED } else { DONE }
    }

    /// What `new` on one side, with `other` on the other, does to `before`.
    fn new(
        (spec, layout): (&TableSpec, &Layout),
        before: &TableSchema,
        new: Chosen,
        other: Chosen,
        is_key: bool,
    ) -> Self {
        let (key, value) = if is_key { (new, other) } else { (other, new) };
        let wanted = table::wanted(layout, before, &key, &value).map_err(|error| error.chain());
        let after = wanted.and_then(|wanted| evolved(before, &wanted, layout));
        let table = spec.settings.table.to_string();
        match after {
            Ok(after) => {
                let changes = after.iter().flat_map(|after| differences(before, after));
                Self { table, changes: changes.map(|change| Change::new(&change)).collect(), refused: None }
            }
            Err(because) => {
                let consequence = match spec.settings.on_error {
                    _ if spec.layout.evolution == Evolution::Strict => "suspend",
                    OnError::DeadLetter => "dead_letter",
                    OnError::Skip => "skip",
                    OnError::Suspend => "suspend",
                };
                Self { table, changes: Vec::new(), refused: Some(Refused { because, consequence }) }
            }
        }
    }
}

/// What the schema in `file` does to the table of that name.
///
/// # Errors
/// `InvalidConfig` where there is no such table in the configuration, or the file is no schema; what the catalog says
/// where it cannot be asked.
pub(super) async fn forecast(
    config: &Path,
    table: &TableName,
    file: &Path,
    is_key: bool,
    clock: &Clock,
) -> Result<Forecast> {
    let mut config = Config::load(config, &process_env)?;
    config.tables.retain(|known| known.table == *table);
    let Some(found) = config.tables.first() else {
        return Err(Error::invalid_config(format!("the configuration has no table `{table}`; name one of its tables")));
    };
    let spec = app::table_spec(&config, found)?;
    let new = read(file)?;
    let (registry, lake) = tokio::join!(services::registry(&config, clock), services::catalog(&config, clock));
    let Some(states) = lake.found else {
        let found = lake.checks.into_iter().map(|check| check.found).collect::<Vec<_>>().join("; ");
        return Err(Error::unavailable(format!("ask the catalog for table `{table}`: {found}")));
    };
    let state = states.get(table).and_then(Option::as_ref);
    let before = state.map(|state| state.schema.as_ref().clone()).unwrap_or_default();
    let subjects = registry.found.unwrap_or_default();
    let (key, value) = formats::choose(&spec, &subjects, config.schema_registry.is_some())
        .map_err(|problem| Error::invalid_config(format!("table `{table}`: {problem}")))?;
    let layout = state.map_or_else(|| spec.layout.clone(), |state| layout_for(&spec, state));
    Ok(Forecast::new((&spec, &layout), &before, new, if is_key { value } else { key }, is_key))
}

/// A schema that nobody has registered yet: newer than all that are.
fn read(file: &Path) -> Result<Chosen> {
    let name = file.display();
    let format = match file.extension().and_then(|extension| extension.to_str()) {
        Some("avsc") => SchemaFormat::Avro,
        Some("proto") => SchemaFormat::Protobuf,
        Some("json") => SchemaFormat::Json,
        _ => {
            let text = format!("`{name}` names no language of schemas; name it .avsc, .proto or .json");
            return Err(Error::invalid_config(text));
        }
    };
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::invalid_config(format!("read schema `{name}`")).with_source(e))?;
    let registered = RegisteredSchema { id: u32::MAX, format, text, references: Vec::new() };
    let schema = Schema::parse(&registered)
        .map_err(|e| Error::invalid_config(format!("`{name}` cannot be read; mend it")).with_source(e))?;
    Ok(Chosen::Schema(Arc::new(schema), name.to_string(), u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::{Field, Type};

    const OLD: &str = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"int"},{"name":"note","type":"string"},
        {"name":"ship","type":{"type":"record","name":"Ship","fields":[{"name":"street","type":"string"}]}}]}"#;

    /// What version `text` would do to a table of version [`OLD`].
    fn told(options: &str, text: &str) -> (String, u8) {
        let yaml = format!(
            "kafka: {{bootstrap_servers: 'b:1'}}\nschema_registry: {{url: 'http://r:1'}}\n\
             catalog: {{uri: 'sqlite:///c.db', warehouse: /w}}\n\
             tables: [{{topic: orders, table: shop.orders, key: {{format: none}}, {options}}}]\n"
        );
        let config = Config::from_yaml(&yaml, &|_| None).unwrap();
        let spec = app::table_spec(&config, &config.tables[0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let version = |text: &str, id: u32| {
            let file = dir.path().join("order.avsc");
            std::fs::write(&file, text).unwrap();
            let Chosen::Schema(schema, by, _) = read(&file).unwrap() else { panic!("no schema") };
            Chosen::Schema(schema, by, id)
        };
        let made = table::wanted(&spec.layout, &TableSchema::default(), &Chosen::Nothing, &version(OLD, 1)).unwrap();
        let mut ids = 0;
        let mut before = crate::decode::evolution::founded(&made, &spec.layout);
        number(&mut before.fields, &mut ids);
        let forecast = Forecast::new((&spec, &spec.layout), &before, version(text, u32::MAX), Chosen::Nothing, false);
        (forecast.text(), forecast.exit_code())
    }

    fn number(fields: &mut [Field], last: &mut i32) {
        for field in fields {
            *last += 1;
            field.id = *last;
            if let Type::Struct(fields) = &mut field.kind {
                number(fields, last);
            }
        }
    }

    #[test]
    fn what_a_version_would_change_is_told() {
        let new = r#"{"type":"record","name":"Order","fields":[{"name":"order_id","aliases":["id"],"type":"long"},
            {"name":"ship","type":{"type":"record","name":"Ship","fields":[{"name":"road","aliases":["street"],"type":"string"}]}},
            {"name":"country","type":["null","string"]}]}"#;
        let changes = "rename column `id` to `order_id`\npromote column `order_id` from int to long\n\
                       rename column `ship.street` to `road`\nadd column `country` (string)\n";
        assert_eq!(told("", OLD), ("no column changes\n".to_owned(), DONE));
        assert_eq!(told("", new), (changes.to_owned(), DONE));
        assert_eq!(told("evolution: full", new), (format!("{changes}drop column `note`\n"), DONE));
        // What the configuration names keeps its name; what it leaves out changes nothing.
        let named = "columns: {exclude: [ship.street, country]}, sort_by: [id]";
        assert_eq!(told(named, new), ("promote column `id` from int to long\n".to_owned(), DONE));
        let filtered = "columns: {exclude: [ship.street, country], rename: {note: text}}, where: id > 7 AND text <> ''";
        assert_eq!(told(filtered, new), ("promote column `id` from int to long\n".to_owned(), DONE));
        let (text, code) = told("evolution: strict", new);
        assert!(code == FAILED && text.contains("column `id` is called `order_id` in the schema; the first"), "{text}");
    }

    #[test]
    fn a_version_that_does_not_fit_is_refused_and_the_consequence_told() {
        let other = OLD.replace(r#""int""#, r#""string""#);
        for (options, consequence) in [
            ("", "records of it become dead letters"),
            ("on_error: skip", "records of it are left out"),
            ("on_error: suspend", "the first record of it suspends the table"),
            ("evolution: strict", "the first record of it suspends the table"),
        ] {
            let (text, code) = told(options, &other);
            let expected =
                format!("refused: column `id` is int in the table and string in the schema; {consequence}\n");
            assert_eq!((text, code), (expected, FAILED), "{options}");
        }
        assert_eq!(told("evolution: branch", &other), ("add column `id__string` (string)\n".to_owned(), DONE));
    }

    #[test]
    fn a_file_that_is_no_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text, expected) in [
            ("order.txt", "", "names no language of schemas"),
            ("order.avsc", "{", "cannot be read; mend it"),
            ("order.proto", "message", "cannot be read; mend it"),
        ] {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            let error = read(&file).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(read(&dir.path().join("none.json")).is_err());
    }
}
