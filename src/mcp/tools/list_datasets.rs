//! `list_datasets`: which tables there are.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ANY, Tool, chars, health, max_chars, number, object, text};
use crate::mcp::call::Call;
use crate::mcp::view::{Answer, Object, Refused, time};
use crate::ports::Dataset;

/// Tables where the caller names no number.
const LIMIT: usize = 100;

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "list_datasets",
    description: "List the tables, with the topics that fill them and their health. Start here.",
    scopes: ANY,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &[],
        json!({
            "pattern": text("Part of a table's or a topic's name"),
            "limit": number(1, 1000, "Tables, default 100"),
            "cursor": text("next_cursor of the page before"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    pattern: Option<String>,
    limit: Option<usize>,
    max_chars: Option<usize>,
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let pattern = input.pattern.unwrap_or_default().to_lowercase();
    let fits = |dataset: &Dataset| {
        let mut names = dataset.topics.iter().cloned().chain([dataset.table.to_string()]);
        names.any(|name| name.to_lowercase().contains(&pattern))
    };
    let all = call.desk.ports.datasets.list().await?;
    let known = all.len();
    let mut found: Vec<Dataset> = all.into_iter().filter(fits).collect();
    let total = found.len();
    if let Some(after) = call.cursor()? {
        found.retain(|dataset| dataset.table.to_string() > after);
    }
    found.sort_by_key(|dataset| dataset.table.to_string());
    let limit = input.limit.unwrap_or(LIMIT);
    let is_cut = found.len() > limit;
    found.truncate(limit);
    let cursors = call.cursors(found.iter().map(|dataset| dataset.table.to_string()));
    let mut answer = Answer::new(json!({"time": time(call.desk.clock.now_ms())}))
        .list("datasets", found.iter().map(|dataset| Value::Object(one(dataset))).collect())
        .pages(cursors);
    (answer.truncated, answer.total) = (is_cut, Some(total as u64));
    answer.chars = chars(input.max_chars);
    answer.rest = "go on with next_cursor and the same arguments";
    if total == 0 {
        answer.warn(match known {
            0 => "the catalog has no table yet".to_owned(),
            known => format!("none of the {known} tables fits `{pattern}`; leave the pattern out to see all"),
        });
    }
    Ok(answer)
}

fn one(dataset: &Dataset) -> Object {
    let mut item = Object::new();
    item.insert("table".to_owned(), dataset.table.to_string().into());
    if !dataset.topics.is_empty() {
        item.insert("topics".to_owned(), dataset.topics.clone().into());
    }
    if dataset.table.name.ends_with("__dead_letters") {
        item.insert("kind".to_owned(), "records that could not be rows".into());
    }
    item.insert("health".to_owned(), health(dataset));
    item
}
