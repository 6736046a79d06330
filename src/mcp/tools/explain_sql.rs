//! `explain_sql`: what a statement would do, without doing it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{SQL, Tool, object, text, word};
use crate::error::Error;
use crate::mcp::call::Call;
use crate::mcp::sql;
use crate::mcp::view::{Answer, Refused, as_of};
use crate::model::version::{Consistency, SnapshotAt};

/// Lines of plans given at most.
const LINES: u64 = 200;

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "explain_sql",
    description: "Check a SELECT and show its plan, its tables, and how much they hold, without running it.",
    scopes: SQL,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &["sql"],
        json!({
            "sql": text("The statement, without EXPLAIN"),
            "response_format": word(&["concise", "detailed"], "detailed: the physical plan too"),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    sql: String,
    response_format: Option<String>,
}

/// The statement from its first word on. `EXPLAIN` in front of `ANALYZE` would run it.
fn without_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let after = if let Some(line) = rest.strip_prefix("--") {
            line.find('\n').map_or("", |end| &line[end..])
        } else if let Some(block) = rest.strip_prefix("/*") {
            let (mut depth, mut at) = (1_usize, 0);
            while depth > 0 && at < block.len() {
                let here = &block.as_bytes()[at..];
                let step = match here {
                    [b'/', b'*', ..] => (1, 2),
                    [b'*', b'/', ..] => (-1, 2),
                    _ => (0, 1),
                };
                depth = depth.saturating_add_signed(step.0);
                at += step.1;
            }
            block.get(at..).unwrap_or_default()
        } else {
            return rest;
        };
        rest = after.trim_start();
    }
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let first = without_comments(&input.sql).split_whitespace().next().unwrap_or_default().to_lowercase();
    if ["explain", "analyze", "verbose"].contains(&first.as_str()) {
        let text = format!("the statement begins with {first}");
        return Err(Refused::new("not_a_query", text).field("sql").next("send the SELECT alone"));
    }
    let found =
        sql::ask(&call, &format!("EXPLAIN {}", input.sql), Consistency::Fresh(BTreeMap::new()), LINES, None).await?;
    let (mut tables, mut bytes) = (Vec::new(), 0);
    for table in found.as_of.keys() {
        let lake = &call.desk.ports.lake;
        let Some(state) = lake.at(table, SnapshotAt::Current).await? else { continue };
        let files = lake.files(&state).await?;
        let files: Vec<_> = files.iter().flat_map(|files| files.iter()).collect();
        let size: u64 = files.iter().map(|file| file.size_bytes).sum();
        bytes += size;
        tables.push(json!({"table": table.to_string(), "rows": state.rows, "files": files.len(), "bytes": size}));
    }
    let is_detailed = input.response_format.as_deref() == Some("detailed");
    let wanted = |row: &&Value| is_detailed || row["plan_type"] == "logical_plan";
    let lines = found.rows.iter().filter(wanted).filter_map(|row| row["plan"].as_str()).flat_map(str::lines);
    let lines: Vec<Value> = lines.map(Value::from).collect();
    if lines.is_empty() {
        return Err(Error::bug("the engine gave no plan").into());
    }
    Ok(Answer::new(as_of(&found.as_of))
        .with("verdict", "it would run")
        .with("bytes_at_most", bytes)
        .list("tables", tables)
        .list("plan", lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_hide_no_word() {
        for sql in ["ANALYZE x", " /**/ANALYZE x", "-- a\n/* b /* c */ d */ ANALYZE x", "/* é */--\nANALYZE x"] {
            assert!(without_comments(sql).starts_with("ANALYZE"), "{sql}");
        }
        for sql in ["/* open", "--", ""] {
            assert_eq!(without_comments(sql), "", "{sql}");
        }
    }
}
