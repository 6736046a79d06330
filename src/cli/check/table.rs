//! One table: its formats, its columns, and whether it can go on where it stands. Asks nobody; everything is found.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use super::formats::{self, Chosen};
use super::services::{States, Subjects};
use crate::app;
use crate::cli::topics::TopicNow;
use crate::config::{Config, TableConfig};
use crate::decode::evolution::evolved;
use crate::error::Result;
use crate::lake::inspect;
use crate::model::ids::TopicPartition;
use crate::model::mapping;
use crate::model::schema::TableSchema;
use crate::pipeline::driver::TableSpec;
use crate::pipeline::event::Survey;
use crate::pipeline::recovery::{Decision, decide};
use crate::ports::{Recovery, TableState};

/// The checks of one table. `None` for what could not be asked.
pub(super) fn checks(
    config: &Config,
    table: &TableConfig,
    topics: &BTreeMap<String, TopicNow>,
    subjects: Option<&Subjects>,
    states: Option<&States>,
) -> Vec<Check> {
    let (formats, name) = (format!("formats of table `{}`", table.table), format!("table `{}`", table.table));
    let spec = match app::table_spec(config, table) {
        Ok(spec) => spec,
        Err(error) => return vec![Check::failed(name, error.chain(), "mend the named setting")],
    };
    let mut checks = Vec::new();
    let mut chosen = None;
    match subjects.map(|subjects| formats::choose(&spec, subjects, config.schema_registry.is_some())) {
        Some(Ok((key, value))) => {
            checks.push(Check::ok(formats, format!("key: {}; value: {}", key.text(), value.text())));
            chosen = Some((key, value));
        }
        Some(Err(problem)) => {
            let remedy = "register a schema that can be read, or set the format to `bytes`";
            checks.push(Check::failed(formats, problem, remedy));
        }
        None => checks.push(Check::skipped(formats, "the schema registry cannot be asked")),
    }
    checks.push(match states {
        None => Check::skipped(name, "the catalog cannot be asked"),
        Some(states) => match states.get(&table.table).and_then(Option::as_ref) {
            Some(state) => existing(name, &spec, state, topics, chosen.as_ref()),
            None => new(name, &spec, chosen.as_ref()),
        },
    });
    checks
}

/// A table that is to be made.
fn new(name: String, spec: &TableSpec, chosen: Option<&(Chosen, Chosen)>) -> Check {
    let Some((key, value)) = chosen else { return Check::skipped(name, "its columns are not known") };
    let schema = match wanted(spec, key, value) {
        Ok(schema) => schema,
        Err(error) => {
            let remedy = "change the schema, or set the format to `bytes`";
            return Check::failed(name, error.chain(), remedy);
        }
    };
    let is_open = key.is_open() || value.is_open();
    let used = spec.partition_by.iter().map(|field| ("partition_by", &field.column));
    let used = used.chain(spec.sort_by.iter().map(|column| ("sort_by", column)));
    for (setting, column) in used {
        if schema.field(column).is_none() {
            let found = format!("`{setting}` names column `{column}`, which it will not have when it is made");
            let remedy = if is_open {
                "register the topic's schema first, or name another column"
            } else {
                "name one of its columns"
            };
            return Check::failed(name, format!("{found}; columns: {}", names(&schema)), remedy);
        }
    }
    let more = if is_open { ", and more with the first record" } else { "" };
    Check::ok(name, format!("will be made with columns {}{more}", names(&schema)))
}

fn wanted(spec: &TableSpec, key: &Chosen, value: &Chosen) -> Result<TableSchema> {
    Ok(spec.layout.table_schema(key.columns(&spec.layout)?, value.columns(&spec.layout)?))
}

fn names(schema: &TableSchema) -> String {
    let columns = inspect::columns(schema).into_iter();
    columns.map(|column| format!("{} {}", column.name, column.kind)).collect::<Vec<_>>().join(", ")
}

/// A table that is there: settings that changed, what stops it, where it goes on.
fn existing(
    name: String,
    spec: &TableSpec,
    state: &TableState,
    topics: &BTreeMap<String, TopicNow>,
    chosen: Option<&(Chosen, Chosen)>,
) -> Check {
    let differences = mapping::difference(&state.properties, &spec.properties);
    if !differences.is_empty() {
        return Check::failed(
            name,
            differences.join("; "),
            "set it back, write to another table, or see `frazil tables alter`",
        );
    }
    let mut columns = String::new();
    if let Some((key, value)) = chosen {
        let schema = wanted(spec, key, value).map_err(|error| error.chain());
        match schema.and_then(|wanted| evolved(&state.schema, &wanted, &spec.layout)) {
            Ok(None) => {}
            Ok(Some(schema)) => {
                let added = schema.fields.into_iter().filter(|field| state.schema.field(&field.name).is_none());
                let added: Vec<String> = added.map(|field| field.name).collect();
                columns = match added.as_slice() {
                    [] => ", columns will be changed".to_owned(),
                    added => format!(", columns will be added: {}", added.join(", ")),
                };
            }
            Err(misfit) => {
                return Check::failed(name, misfit, "register a schema that fits, or write to another table");
            }
        }
    }
    match go_on(spec, state, topics) {
        Ok(at) => Check::ok(name, format!("{} rows, {at}{columns}", state.rows)),
        Err((found, remedy)) => Check::failed(name, found, remedy),
    }
}

/// Where the table goes on, decided as a running one decides; else why it cannot, and the remedy.
fn go_on(
    spec: &TableSpec,
    state: &TableState,
    topics: &BTreeMap<String, TopicNow>,
) -> Result<String, (String, String)> {
    let table = &spec.settings.table;
    let mut wanted = BTreeSet::new();
    let mut survey =
        Survey { state: state.clone(), topics: BTreeMap::new(), watermarks: BTreeMap::new(), at_time: BTreeMap::new() };
    for (topic, now) in topics.iter().filter(|(topic, _)| spec.settings.topics.contains(topic)) {
        wanted.extend(now.facts.partitions.iter().map(|partition| TopicPartition::new(topic.as_str(), *partition)));
        survey.topics.insert(topic.clone(), Some(now.facts.clone()));
        survey.watermarks.extend(now.ranges.clone());
    }
    match decide(&spec.settings, &survey, &wanted) {
        Decision::Halt(text) => Err((text, "choose as the message says".to_owned())),
        Decision::Suspended(reason) => {
            let remedy = format!("remove the cause, then `frazil tables resume {table}`");
            Err((format!("it is suspended: {reason}"), remedy))
        }
        Decision::Wait(text) => Err((text, "look at the topic and its brokers".to_owned())),
        Decision::Start(_) | Decision::CommitFirst(_) if wanted.is_empty() => {
            Ok("its topics cannot be asked".to_owned())
        }
        Decision::Start(_) | Decision::CommitFirst(_) => Ok(match state.recovery {
            Recovery::Fresh => "nothing was read into it yet".to_owned(),
            Recovery::At(_) | Recovery::Halted(_) => "it goes on from its ledger".to_owned(),
        }),
    }
}
