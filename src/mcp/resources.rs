//! Resources: the catalog and its freshness, as the tools tell them, and what this SQL can do.

use rmcp::ErrorData;
use rmcp::model::Resource;
use serde_json::json;

use super::call::Desk;
use super::guard::{Caller, Used};
use super::tools::{get_freshness, list_datasets};
use super::view::{CHARS_MAX, Object, shortened};
use crate::http::auth::Principal;

const CATALOG: &str = "lake://catalog";
const FRESHNESS: &str = "lake://freshness";
const DIALECT: &str = "lake://sql-dialect";

const JSON: &str = "application/json";
const MARKDOWN: &str = "text/markdown";

/// All of them, in a fixed order.
pub(super) fn list() -> Vec<Resource> {
    [
        (CATALOG, "catalog", JSON, "The tables that there are, with their topics and health"),
        (FRESHNESS, "freshness", JSON, "How far each table is behind its topics"),
        (DIALECT, "sql-dialect", MARKDOWN, "What SQL can do here, with examples"),
    ]
    .map(|(uri, name, kind, description)| Resource::new(uri, name).with_mime_type(kind).with_description(description))
    .into()
}

/// One of them: its type and its text.
pub(super) async fn read(
    desk: &Desk,
    principal: &Principal,
    caller: &Caller,
    uri: &str,
) -> Result<(&'static str, String), ErrorData> {
    let (tool, arguments) = match uri {
        CATALOG => (&list_datasets::TOOL, Object::from_iter([("limit".to_owned(), 1000.into())])),
        FRESHNESS => (&get_freshness::TOOL, Object::new()),
        DIALECT => {
            written(desk, caller, uri, "ok")?;
            return Ok((MARKDOWN, include_str!("dialect.md").to_owned()));
        }
        _ => {
            written(desk, caller, &shortened(uri, 200), "unknown_resource")?;
            let text = format!("there is no such resource; there is {CATALOG}, {FRESHNESS}, {DIALECT}");
            return Err(ErrorData::resource_not_found(text, Some(json!({"uri": uri}))));
        }
    };
    let mut arguments = arguments;
    arguments.insert("max_chars".to_owned(), CHARS_MAX.into());
    let outcome = desk.call(tool, principal, caller, arguments).await;
    match outcome.is_error {
        false => Ok((JSON, outcome.value.to_string())),
        true => Err(ErrorData::internal_error(
            outcome.value["message"].as_str().unwrap_or_default().to_owned(),
            Some(outcome.value),
        )),
    }
}

fn written(desk: &Desk, caller: &Caller, uri: &str, verdict: &str) -> Result<(), ErrorData> {
    let written = desk.entry(caller, uri, &Object::new()).close(verdict, Used::default());
    written.map_err(|error| ErrorData::internal_error(error.chain(), None))
}
