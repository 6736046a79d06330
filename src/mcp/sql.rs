//! SQL for the tools: a statement in, JSON rows out, within the caller's limits; and errors that say what is right.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::{Value, json};

use super::call::Call;
use super::tools::{nearest, nearest_tables};
use super::view::{CHARS_MAX, Refused};
use crate::error::{Error, ErrorKind};
use crate::http::sql::{json_rows, no_json};
use crate::model::ids::TableName;
use crate::model::version::{AsOf, Consistency, SnapshotAt};
use crate::ports::{SqlLimits, SqlRequest};

/// Kept of a call's time for what comes after the last row.
const RESERVE: Duration = Duration::from_millis(500);
/// The engine stops a query between two of its batches, and says what it has read; it is not waited for any longer.
const GRACE: Duration = Duration::from_millis(250);
/// Characters of rows after which no more are fetched: more than any answer shows, texts that get cut included.
const FETCHED_CHARS_MAX: usize = 16 * CHARS_MAX;

/// Tables whose columns are told where one is not known.
const TABLES_MAX: usize = 3;

/// What a statement gave.
pub(super) struct Found {
    /// Name and type of each column.
    pub(super) columns: Vec<Value>,
    /// One object for each row.
    pub(super) rows: Vec<Value>,
    /// True where there are more.
    pub(super) truncated: bool,
    pub(super) as_of: BTreeMap<TableName, AsOf>,
    pub(super) scanned_bytes: u64,
}

/// Asks. Dropping the future stops the query.
pub(super) async fn ask(
    call: &Call<'_>,
    sql: &str,
    consistency: Consistency,
    rows: u64,
    time: Option<Duration>,
) -> Result<Found, Refused> {
    let left = call.time_left().saturating_sub(RESERVE);
    let time = time.map_or(left, |time| time.min(left));
    let limits = SqlLimits { rows, time, ..call.desk.options.sql };
    let sql = sql.trim().trim_end_matches(';').to_owned();
    let found = fetch(call, SqlRequest { sql: sql.clone(), consistency, limits });
    match call.desk.clock.timeout(time + GRACE, found).await {
        Some(Ok(rows)) => Ok(rows),
        Some(Err(error)) => Err(refusal(call, &sql, error).await),
        None => Err(timeout(format!("the query took longer than {time:?} and was stopped"))),
    }
}

async fn fetch(call: &Call<'_>, request: SqlRequest) -> Result<Found, Error> {
    let mut answer = call.desk.ports.sql.query(request).await?;
    let columns = answer.schema.fields().iter();
    let columns = columns.map(|field| json!({"name": field.name(), "type": field.data_type().to_string()})).collect();
    let (mut rows, mut chars, mut is_whole) = (Vec::new(), 0, true);
    while let Some(batch) = answer.rows.try_next().await? {
        if chars > FETCHED_CHARS_MAX {
            is_whole = false;
            break;
        }
        let text = json_rows(std::slice::from_ref(&batch)).map_err(no_json)?;
        chars += text.len();
        let parsed: Vec<Value> =
            serde_json::from_slice(&text).map_err(|e| Error::bug("read JSON back").with_source(e))?;
        rows.extend(parsed);
    }
    Ok(Found {
        columns,
        rows,
        truncated: !is_whole || answer.used.truncated.load(Ordering::Relaxed),
        as_of: answer.as_of,
        scanned_bytes: answer.used.scanned_bytes.load(Ordering::Relaxed),
    })
}

/// An error of a statement. Its kind says that the statement is wrong, its text what is: the words are those of the
/// engine, and where they change the code becomes `invalid_sql`, which is never wrong.
async fn refusal(call: &Call<'_>, sql: &str, error: Error) -> Refused {
    if error.kind() != ErrorKind::InvalidRequest {
        return error.into();
    }
    let text = error.chain();
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if let Some(name) = text.strip_prefix("there is no table `").and_then(|rest| rest.split('`').next()) {
        let near = nearest_tables(call, name).await;
        return Refused::new("unknown_table", &text).field("sql").did_you_mean(near).next("call list_datasets");
    }
    if has(&["took longer than"]) {
        return timeout(text);
    }
    if has(&["more memory than", "may read", "bytes of data files"]) {
        return Refused::new("too_much", text).next("filter by time or by a partition column, or select fewer columns");
    }
    if has(&["ddl not supported", "dml not supported", "statement not supported", "multiple statements"]) {
        return Refused::new("not_a_query", text).field("sql").next("send one SELECT; nothing here can write");
    }
    if let Some(column) = unknown_column(&text) {
        let columns = columns(call, sql).await;
        let near = nearest(column, columns.iter().map(String::as_str));
        return Refused::new("unknown_column", &text)
            .field("sql")
            .allowed(columns)
            .did_you_mean(near)
            .next("call describe_dataset for types and comments of the columns");
    }
    Refused::new("invalid_sql", &text)
        .field("sql")
        .position(position(&text))
        .next("mend the statement; the resource lake://sql-dialect has examples")
}

fn timeout(text: String) -> Refused {
    Refused::new("timeout", text).next("filter by time or by a partition column, or aggregate less at once")
}

/// The column that the engine's error says there is not, without the name of its table.
fn unknown_column(text: &str) -> Option<&str> {
    let name = text.split("No field named ").nth(1)?;
    let name = &name[..name.find([' ', '\n']).unwrap_or(name.len())];
    name.trim_end_matches('.').rsplit('.').next().map(|name| name.trim_matches('"'))
}

/// The columns of the tables that a statement names.
async fn columns(call: &Call<'_>, sql: &str) -> Vec<String> {
    let Ok(tables) = call.desk.ports.lake.tables().await else { return Vec::new() };
    let sql = sql.to_lowercase().replace('"', "");
    let mut columns = Vec::new();
    for table in tables.iter().filter(|table| sql.contains(&table.to_string().to_lowercase())).take(TABLES_MAX) {
        let Ok(Some(state)) = call.desk.ports.lake.at(table, SnapshotAt::Current).await else { continue };
        columns.extend(state.schema.fields.iter().map(|field| field.name.clone()));
    }
    columns
}

/// Line and column, from 1, as in `at Line: 1, Column: 8`.
fn position(text: &str) -> Option<(u64, u64)> {
    let number = |after: &str| {
        let rest = text.split(after).nth(1)?.trim_start();
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    };
    Some((number("Line:")?, number("Column:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_engine_are_read() {
        assert_eq!(position("ParserError(\"Expected: x, found: y at Line: 3, Column: 14\")"), Some((3, 14)));
        assert_eq!(position("no position"), None);
        for (text, column) in [
            ("Schema error: No field named custmer_id. Did you mean 'orders.customer_id'?.", Some("custmer_id")),
            ("Schema error: No field named o.\"Id\". Valid fields are o.id.", Some("Id")),
            ("Schema error: No field named x.", Some("x")),
            ("something else", None),
        ] {
            assert_eq!(unknown_column(text), column, "{text}");
        }
    }
}
