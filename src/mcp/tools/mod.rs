//! The tools, one file each, in the order in which they are listed. What all of them share is in `call`.

mod describe_dataset;
mod explain_sql;
pub(super) mod get_freshness;
mod get_records;
mod get_schema;
pub(super) mod list_datasets;
mod list_snapshots;
mod peek_topic;
mod query_sql;
mod search;

use std::sync::Arc;

use futures::future::BoxFuture;
use rmcp::model::{Tool as WireTool, ToolAnnotations};
use serde_json::{Value, json};

use super::Ports;
use super::call::Call;
use super::view::{Answer, CHARS, CHARS_MAX, Refused};
use crate::http::auth::{Principal, Scope};
use crate::model::ids::TableName;
use crate::ports::{Dataset, Health};

/// Names suggested for one that is not known.
const NEAREST: usize = 3;
/// Below this two names have nothing in common.
const LIKENESS_MIN: f64 = 0.6;

/// A tool: what it is called, who may use it, what it takes, and what it does.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// Any of these suffices.
    pub(super) scopes: &'static [Scope],
    /// A JSON Schema in the words of `arguments`, which every client understands.
    pub(super) schema: fn() -> Value,
    /// Whether what it asks is there.
    pub(super) is_there: fn(&Ports) -> bool,
    pub(super) run: for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Answer, Refused>>,
}

/// All tools, in the order in which they are listed.
pub(super) const ALL: [&Tool; 10] = [
    &search::TOOL,
    &get_records::TOOL,
    &query_sql::TOOL,
    &explain_sql::TOOL,
    &peek_topic::TOOL,
    &list_datasets::TOOL,
    &describe_dataset::TOOL,
    &get_freshness::TOOL,
    &list_snapshots::TOOL,
    &get_schema::TOOL,
];

const SQL: &[Scope] = &[Scope::ReadSql];
const KAFKA: &[Scope] = &[Scope::ReadKafka];
const RECORDS: &[Scope] = &[Scope::ReadSql, Scope::ReadSearch];
const ANY: &[Scope] = &[Scope::ReadSql, Scope::ReadSearch, Scope::ReadKafka];

impl Tool {
    /// Whether `principal` may use it.
    pub(super) fn is_open_to(&self, principal: &Principal) -> bool {
        self.scopes.iter().any(|scope| principal.may(*scope))
    }
}

/// A tool as clients see it.
pub(super) fn wire(tool: &Tool, schema: &Value) -> WireTool {
    let schema = schema.as_object().cloned().unwrap_or_default();
    let hints = ToolAnnotations::new().read_only(true).open_world(false);
    WireTool::new(tool.name, tool.description, Arc::new(schema)).with_annotations(hints)
}

/// An object of these properties.
fn object(required: &[&str], properties: Value) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn word(words: &[&str], description: &str) -> Value {
    json!({"type": "string", "enum": words, "description": description})
}

fn number(least: i64, most: i64, description: &str) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most, "description": description})
}

fn texts(most: usize, description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "maxItems": most, "description": description})
}

/// The property by which a caller asks for a longer answer.
fn max_chars() -> Value {
    let description = format!("Characters of the answer, default {CHARS}");
    number(5_000, i64::try_from(CHARS_MAX).unwrap_or(i64::MAX), &description)
}

fn chars(asked: Option<usize>) -> usize {
    asked.unwrap_or(CHARS)
}

/// Those of `known` that are most like `name`, the nearest first.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let name = name.to_lowercase();
    let mut near: Vec<(f64, &str)> =
        known.into_iter().map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known)).collect();
    near.retain(|(likeness, _)| *likeness >= LIKENESS_MIN);
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(NEAREST).map(|(_, known)| known.to_owned()).collect()
}

/// The tables that are most like `name`, by their whole names or by their last parts.
pub(super) async fn nearest_tables(call: &Call<'_>, name: &str) -> Vec<String> {
    let Ok(datasets) = call.desk.ports.datasets.list().await else { return Vec::new() };
    let last = name.rsplit('.').next().unwrap_or_default().to_lowercase();
    let like = |dataset: &Dataset| {
        let whole = strsim::jaro_winkler(&name.to_lowercase(), &dataset.table.to_string().to_lowercase());
        whole.max(strsim::jaro_winkler(&last, &dataset.table.name.to_lowercase()))
    };
    let mut near: Vec<(f64, String)> = datasets.iter().map(|one| (like(one), one.table.to_string())).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().take(NEAREST).map(|(_, name)| name).collect()
}

/// The refusal of a table's name that is not known.
async fn no_table(call: &Call<'_>, field: &str, name: &str) -> Refused {
    Refused::new("unknown_table", format!("there is no table `{name}`"))
        .field(field)
        .did_you_mean(nearest_tables(call, name).await)
        .next("use one of these names, or call list_datasets")
}

/// A table's name as a caller writes it.
async fn table(call: &Call<'_>, field: &str, name: &str) -> Result<TableName, Refused> {
    match name.replace('"', "").parse() {
        Ok(table) => Ok(table),
        Err(_) => Err(no_table(call, field, name).await),
    }
}

/// How a table's ingestion is, in an answer.
fn health(dataset: &Dataset) -> Value {
    match &dataset.health {
        Health::NotHere => "not filled by this process".into(),
        Health::Ok => "ok".into(),
        Health::Not { word, reason } => format!("{word}: {reason}").into(),
    }
}

/// A name in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name in a statement.
fn quoted_table(table: &TableName) -> String {
    let levels = table.namespace.iter().map(|level| quoted(level)).collect::<Vec<_>>().join(".");
    format!("{levels}.{}", quoted(&table.name))
}
