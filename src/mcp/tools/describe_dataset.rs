//! `describe_dataset`: all that is needed to ask a table something.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{RECORDS, Tool, chars, get_freshness, health, max_chars, no_table, number, object, quoted, quoted_table};
use super::{table, text};
use crate::http::auth::Scope;
use crate::mcp::call::Call;
use crate::mcp::sql;
use crate::mcp::view::{Answer, Object, Refused, as_of, time};
use crate::model::ids::TableName;
use crate::model::schema::Field;
use crate::model::version::{Consistency, SnapshotAt};
use crate::ports::{IndexFacts, TableState};

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "describe_dataset",
    description: "Describe a table: columns, partitions, freshness, index, a query that works, and sample rows if asked.",
    scopes: RECORDS,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &["name"],
        json!({
            "name": text("The table, as in shop.orders"),
            "sample_rows": number(0, 5, "Newest rows to show, default 0; needs the scope read:sql"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    name: String,
    sample_rows: Option<u64>,
    max_chars: Option<usize>,
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let samples = input.sample_rows.unwrap_or(0);
    if samples > 0 && !call.principal.may(Scope::ReadSql) {
        let refused = Refused::new("forbidden", "sample rows need the scope `read:sql`").field("sample_rows");
        return Err(refused.allowed(["0"]).next("leave `sample_rows` out"));
    }
    let name = table(&call, "name", &input.name).await?;
    let state = call.desk.ports.lake.at(&name, SnapshotAt::Current).await?;
    let found = call.desk.ports.datasets.freshness(&name).await?;
    let Some(found) = found else { return Err(no_table(&call, "name", &input.name).await) };
    let Some(state) = state else {
        let reason = health(&found.dataset);
        return Err(Refused::new("not_there_yet", format!("table `{name}` is configured and not made yet ({reason})"))
            .retry_after(2000)
            .next("it is made with the first records of its topics; peek_topic shows whether there are any"));
    };
    let mut reached = as_of(&BTreeMap::new());
    let (mut rows, mut scanned_bytes) = (Vec::new(), 0);
    let newest = example(&name, &state);
    if samples > 0 {
        let shown = sql::ask(&call, &newest, Consistency::Fresh(BTreeMap::new()), samples, None).await?;
        (reached, rows, scanned_bytes) = (as_of(&shown.as_of), shown.rows, shown.scanned_bytes);
    }
    reached["time"] = time(call.desk.clock.now_ms());
    let mut answer = Answer::new(reached).with("table", name.to_string()).with("topics", found.dataset.topics.clone());
    if let Some(description) = state.properties.get("comment") {
        answer = answer.with("description", description.clone());
    }
    answer = answer
        .with("partition_by", found.dataset.partition_by.clone())
        .with("freshness", get_freshness::one(&found, false, call.desk.clock.now_ms()))
        .with("index", index(&call, &name))
        .with("example_sql", newest)
        .list("partitions", get_freshness::partitions(&found));
    if samples > 0 {
        answer = answer.list("sample_rows", rows);
    }
    for unknown in found.unknown {
        answer.warn(unknown);
    }
    answer.scanned_bytes = scanned_bytes;
    answer.chars = chars(input.max_chars);
    answer.rest = "raise max_chars";
    Ok(answer.list("columns", state.schema.fields.iter().map(column).collect()))
}

/// A query that shows the newest rows.
fn example(table: &TableName, state: &TableState) -> String {
    let columns = super::get_records::RecordColumns::of(&state.schema);
    let order = columns
        .and_then(|columns| columns.timestamp)
        .map_or_else(String::new, |timestamp| format!(" ORDER BY {} DESC", quoted(&timestamp)));
    format!("SELECT * FROM {}{order} LIMIT 5", quoted_table(table))
}

fn index(call: &Call<'_>, table: &TableName) -> Value {
    let indexes = call.desk.ports.search.as_ref().map_or_else(Vec::new, |search| search.indexes());
    let one = |index: IndexFacts| json!({"text": index.text, "model": index.model, "entries": index.entries, "filters": index.filters});
    indexes.into_iter().find(|index| index.table == *table).map_or(Value::Null, one)
}

fn column(field: &Field) -> Value {
    let mut column = Object::new();
    column.insert("name".to_owned(), field.name.clone().into());
    column.insert("type".to_owned(), field.kind.to_string().into());
    if field.required {
        column.insert("required".to_owned(), true.into());
    }
    if let Some(doc) = &field.doc {
        column.insert("doc".to_owned(), doc.clone().into());
    }
    column.into()
}
