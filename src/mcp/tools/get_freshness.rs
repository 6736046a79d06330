//! `get_freshness`: how far tables have got.

use std::sync::Arc;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ANY, Tool, chars, health, max_chars, no_table, object, table, texts, word};
use crate::mcp::call::Call;
use crate::mcp::view::{Answer, Refused, snapshot, time};
use crate::model::ids::{TableName, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::ports::{Freshness, Reached};

/// Tables that are named at most, and looked at where none is.
const TABLES: usize = 20;
/// Tables looked at at once.
const AT_ONCE: usize = 4;

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "get_freshness",
    description: "How far tables are behind their topics: what is in Kafka, committed, visible to queries, indexed.",
    scopes: ANY,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &[],
        json!({
            "names": texts(TABLES, "Tables, as in shop.orders; default: the first 20"),
            "response_format": word(&["concise", "detailed"], "detailed: the offsets of each partition too"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    names: Option<Vec<String>>,
    response_format: Option<String>,
    max_chars: Option<usize>,
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let is_detailed = input.response_format.as_deref() == Some("detailed");
    let mut names: Vec<TableName> = Vec::new();
    let mut known = 0;
    if let Some(named) = &input.names {
        for name in named {
            names.push(table(&call, "names", name).await?);
        }
    } else {
        let datasets = call.desk.ports.datasets.list().await?;
        // Tables of dead letters move with their own tables.
        names.extend(datasets.into_iter().filter(|dataset| !dataset.topics.is_empty()).map(|dataset| dataset.table));
        known = names.len();
        names.truncate(TABLES);
    }
    let asked = names.into_iter().map(|name| {
        let datasets = Arc::clone(&call.desk.ports.datasets);
        async move {
            let found = datasets.freshness(&name).await;
            (name, found)
        }
    });
    let asked: Vec<_> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
    let mut answer = Answer::new(json!({"time": time(call.desk.clock.now_ms())}));
    let mut items = Vec::new();
    for (name, found) in asked {
        let Some(found) = found? else { return Err(no_table(&call, "names", &name.to_string()).await) };
        for unknown in &found.unknown {
            answer.warn(format!("{name}: {unknown}"));
        }
        items.push(one(&found, is_detailed, call.desk.clock.now_ms()));
    }
    if items.is_empty() {
        answer.warn("no table is filled by topics here; list_datasets has all tables");
    }
    let mut answer = answer.list("datasets", items);
    answer.truncated = known > TABLES;
    answer.rest = "name the tables";
    answer.chars = chars(input.max_chars);
    Ok(answer)
}

/// Offsets between the end of the stable log and a position, all partitions together; `None` where one is not known.
fn behind(found: &Freshness, position: fn(&Reached) -> Option<i64>) -> Option<i64> {
    let one = |reached: &Reached| Some((reached.stable?.0 - position(reached)?).max(0));
    found.partitions.values().map(one).sum()
}

pub(super) fn one(found: &Freshness, is_detailed: bool, now_ms: i64) -> Value {
    let mut item = json!({
        "table": found.dataset.table.to_string(),
        "health": health(&found.dataset),
        "snapshot_id": snapshot(found.snapshot_id),
        "rows_committed": found.rows,
        "newest_record": found.newest_ms.map_or(Value::Null, time),
        "newest_record_age_ms": found.newest_ms.map(|newest| (now_ms - newest).max(0)),
        "records_not_committed": behind(found, |reached| Some(reached.committed.map_or(0, |next| next.0))),
        "records_not_visible": behind(found, |reached| reached.visible.map(|next| next.0)),
    });
    if found.partitions.values().any(|reached| reached.indexed.is_some()) {
        item["records_not_indexed"] = json!(behind(found, |reached| Some(reached.indexed.map_or(0, |next| next.0))));
    }
    if is_detailed {
        item["partitions"] = partitions(found).into();
    }
    item
}

/// One object for each partition; offsets are the first that are not there yet.
pub(super) fn partitions(found: &Freshness) -> Vec<Value> {
    let number = |next: Option<NextOffset>| next.map(|next| next.0);
    let one = |(source, reached): (&TopicPartition, &Reached)| {
        let mut item = json!({
            "topic": source.topic.as_ref(), "partition": source.partition,
            "high": number(reached.high), "stable": number(reached.stable),
            "committed": number(reached.committed), "visible": number(reached.visible),
        });
        if let Some(indexed) = reached.indexed {
            item["indexed"] = indexed.0.into();
        }
        item
    };
    found.partitions.iter().map(one).collect()
}
