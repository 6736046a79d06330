//! One table: its formats, its columns, and whether it can go on where it stands. Asks nobody; everything is found.

use std::collections::{BTreeMap, BTreeSet};

use super::formats::{self, Chosen};
use super::rows;
use super::services::{States, Subjects};
use super::{Check, schema};
use crate::app;
use crate::cli::topics::TopicNow;
use crate::config::{Config, TableConfig};
use crate::decode::evolution::{self, Side, differences, evolved};
use crate::decode::layout::Layout;
use crate::decode::schema::Columns;
use crate::error::Result;
use crate::lake::inspect;
use crate::model::ids::TopicPartition;
use crate::model::mapping;
use crate::model::schema::TableSchema;
use crate::pipeline::driver::TableSpec;
use crate::pipeline::driver::takeover::{fit, layout_for};
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
    let state = states.and_then(|states| states.get(&table.table)?.as_ref());
    match (states, state) {
        (None, _) => checks.push(Check::skipped(name, "the catalog cannot be asked")),
        (_, Some(state)) if state.shape.is_foreign => checks.extend(foreign(name, &spec, state, chosen.as_ref())),
        (_, Some(state)) => checks.push(existing(name, &spec, state, topics, chosen.as_ref())),
        (_, None) => checks.push(new(name, &spec, chosen.as_ref())),
    }
    if let Some((key, value)) = &chosen {
        checks.extend(rows::checks(&spec, key, value, state));
    }
    checks
}

/// A table that another tool made: what taking it over would change, or each thing that is in the way.
fn foreign(name: String, spec: &TableSpec, state: &TableState, chosen: Option<&(Chosen, Chosen)>) -> Vec<Check> {
    let Some((key, value)) = chosen else { return vec![Check::skipped(name, "the records' columns are not known")] };
    let is_open = key.is_open() || value.is_open();
    // What cannot be read makes no columns, as where a table is made; its own check says so.
    let side = |side: &Chosen, layout: &Layout| side.columns(layout).unwrap_or(Columns::Nothing);
    let columns = |layout: &Layout| layout.table_schema(side(key, layout), side(value, layout));
    let is = format!("it has {} rows and was made by another tool", state.rows);
    match fit(spec, state, is_open, columns) {
        Err(misfits) => {
            let each = misfits.into_iter().map(|misfit| {
                let what = format!("{} of table `{}`", misfit.what, spec.settings.table);
                Check::failed(what, misfit.found, misfit.remedy)
            });
            let whole = Check::failed(
                name,
                format!("{is}; records do not fit"),
                "mend what is named, or write to another table",
            );
            each.chain([whole]).collect()
        }
        Ok(schema) => {
            let added = schema.fields.iter().filter(|field| state.schema.field(&field.name).is_none());
            let added: Vec<&str> = added.map(|field| field.name.as_str()).collect();
            let more = if is_open { ", and more with the first record" } else { "" };
            let deletes = match state.shape.delete_files {
                0 => String::new(),
                count => format!("; frazil's SQL and search cannot read it while it has its {count} delete files"),
            };
            let fits = format!("{is}; records fit, columns to be added: {}{more}{deletes}", added.join(", "));
            match spec.adopts {
                true => vec![Check::ok(name, format!("{fits}; it will be taken over"))],
                false => {
                    let remedy = "set `existing: adopt` to append to it, or write to another table";
                    vec![Check::failed(name, fits, remedy)]
                }
            }
        }
    }
}

/// A table that is to be made.
fn new(name: String, spec: &TableSpec, chosen: Option<&(Chosen, Chosen)>) -> Check {
    let Some((key, value)) = chosen else { return Check::skipped(name, "its columns are not known") };
    let schema = match wanted(&spec.layout, &TableSchema::default(), key, value) {
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

/// The columns that records want of `table`.
///
/// # Errors
/// Which field has no column type, or which two would have one column.
pub(super) fn wanted(layout: &Layout, table: &TableSchema, key: &Chosen, value: &Chosen) -> Result<TableSchema> {
    let side = |chosen: &Chosen| Ok(Side { columns: chosen.columns(layout)?, version: chosen.version() });
    evolution::wanted(table, layout, side(key)?, side(value)?)
}

pub(super) fn names(schema: &TableSchema) -> String {
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
    let settings = mapping::difference(&state.properties, &spec.properties);
    if !settings.is_empty() {
        let remedy = "set it back, write to another table, or see `frazil tables alter`";
        return Check::failed(name, settings.join("; "), remedy);
    }
    let mut columns = String::new();
    if let Some((key, value)) = chosen {
        let layout = layout_for(spec, state);
        let schema = wanted(&layout, &state.schema, key, value).map_err(|error| error.chain());
        match schema.and_then(|wanted| evolved(&state.schema, &wanted, &layout)) {
            Ok(None) => {}
            Ok(Some(schema)) => {
                let changes = differences(&state.schema, &schema);
                columns = changes.iter().flat_map(|change| [", ".to_owned(), schema::text(change)]).collect();
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
