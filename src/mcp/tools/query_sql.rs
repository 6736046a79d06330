//! `query_sql`: one statement over tables and what has just come.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SQL, Tool, chars, max_chars, number, object, text, word};
use crate::mcp::call::Call;
use crate::mcp::sql;
use crate::mcp::view::{Answer, Refused, as_of};
use crate::model::version::{Consistency, SnapshotAt};

/// Rows where the caller names no number.
const ROWS: u64 = 100;

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "query_sql",
    description: "Run one SELECT over the tables, records of the last fraction of a second included. PostgreSQL-like \
                  dialect (DataFusion). Tables are namespace.table. Aggregate in SQL rather than fetching many rows.",
    scopes: SQL,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &["sql"],
        json!({
            "sql": text("One statement that reads, as in SELECT status, count(*) FROM shop.orders GROUP BY 1"),
            "max_rows": number(1, 1000, "Rows, default 100"),
            "timeout_ms": number(1, 600_000, "Time limit, default and at most that of the server"),
            "consistency": word(&["fresh", "committed"], "fresh (default): also what is not committed yet"),
            "snapshot_id": text("Read the tables at this snapshot, from list_snapshots"),
            "as_of_time": text("Read the tables as they were at this time, as in 2026-01-31T12:00:00Z"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    sql: String,
    max_rows: Option<u64>,
    timeout_ms: Option<u64>,
    consistency: Option<String>,
    snapshot_id: Option<String>,
    as_of_time: Option<String>,
    max_chars: Option<usize>,
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let consistency = consistency(&input)?;
    let time = input.timeout_ms.map(Duration::from_millis);
    let found = sql::ask(&call, &input.sql, consistency, input.max_rows.unwrap_or(ROWS), time).await?;
    let is_empty = found.rows.is_empty();
    let mut answer = Answer::new(as_of(&found.as_of))
        .with("scanned_bytes", found.scanned_bytes)
        .list("columns", found.columns)
        .list("rows", found.rows);
    answer.truncated = found.truncated;
    answer.scanned_bytes = found.scanned_bytes;
    answer.chars = chars(input.max_chars);
    answer.rest = "aggregate or filter more, select fewer columns, or page by ORDER BY with LIMIT and OFFSET";
    if is_empty {
        let tables = found.as_of.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        answer.warn(format!("no row fits in {tables}, as far as as_of says; loosen the filter, or check its values"));
    }
    Ok(answer)
}

fn consistency(input: &Input) -> Result<Consistency, Refused> {
    match (&input.snapshot_id, &input.as_of_time, input.consistency.as_deref()) {
        (Some(_), Some(_), _) => {
            Err(Refused::new("conflict", "`snapshot_id` and `as_of_time` exclude each other").field("as_of_time"))
        }
        (Some(id), None, _) => match id.parse() {
            Ok(id) => Ok(Consistency::At(SnapshotAt::Id(id))),
            Err(_) => Err(Refused::new("wrong_value", format!("`{id}` is no snapshot's id"))
                .field("snapshot_id")
                .next("call list_snapshots for the ids")),
        },
        (None, Some(time), _) => Ok(Consistency::At(SnapshotAt::Timestamp(moment("as_of_time", time)?))),
        (None, None, Some("committed")) => Ok(Consistency::Committed),
        (None, None, _) => Ok(Consistency::Fresh(BTreeMap::new())),
    }
}

/// Milliseconds since the epoch of a time as callers write it.
pub(super) fn moment(field: &str, text: &str) -> Result<i64, Refused> {
    DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis()).map_err(|_| {
        let message = format!("`{text}` is no time with a zone");
        Refused::new("wrong_value", message).field(field).allowed(["2026-01-31T12:00:00Z", "2026-01-31T12:00:00+02:00"])
    })
}
