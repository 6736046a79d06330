//! `list_snapshots`: a table's history.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{SQL, Tool, no_table, number, object, table, text};
use crate::mcp::call::Call;
use crate::mcp::view::{Answer, Refused, snapshot, time};
use crate::model::version::SnapshotAt;
use crate::ports::SnapshotInfo;

/// Snapshots where the caller names no number.
const LIMIT: usize = 20;

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "list_snapshots",
    description: "List a table's snapshots, the newest first, with what changed. query_sql reads at any of them.",
    scopes: SQL,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &["table"],
        json!({
            "table": text("The table, as in shop.orders"),
            "limit": number(1, 200, "Snapshots, default 20"),
            "cursor": text("next_cursor of the page before"),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    table: String,
    limit: Option<usize>,
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let table = table(&call, "table", &input.table).await?;
    let lake = &call.desk.ports.lake;
    if lake.at(&table, SnapshotAt::Current).await?.is_none() {
        return Err(no_table(&call, "table", &input.table).await);
    }
    let mut snapshots = lake.snapshots(&table).await?;
    let total = snapshots.len() as u64;
    if let Some(after) = call.cursor()? {
        // One that has expired meanwhile is the oldest: nothing lies behind it.
        let at = snapshots.iter().position(|snapshot| snapshot.id.to_string() == after);
        snapshots.drain(..at.map_or(snapshots.len(), |at| at + 1));
    }
    let limit = input.limit.unwrap_or(LIMIT);
    let is_cut = snapshots.len() > limit;
    snapshots.truncate(limit);
    let cursors = call.cursors(snapshots.iter().map(|snapshot| snapshot.id.to_string()));
    let mut answer = Answer::new(json!({"time": time(call.desk.clock.now_ms())}))
        .with("table", table.to_string())
        .list("snapshots", snapshots.iter().map(one).collect())
        .pages(cursors);
    (answer.truncated, answer.total) = (is_cut, Some(total));
    answer.rest = "go on with next_cursor and the same arguments";
    if total == 0 {
        answer.warn("nothing was committed to the table yet; query_sql sees what has come");
    }
    Ok(answer)
}

fn one(info: &SnapshotInfo) -> Value {
    json!({
        "snapshot_id": snapshot(Some(info.id)), "parent_id": snapshot(info.parent_id), "time": time(info.time_ms),
        "operation": info.operation, "added_rows": info.added_rows, "added_files": info.added_files,
        "rows": info.rows, "on_main": info.on_main, "refs": info.refs,
    })
}
