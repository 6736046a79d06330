//! `peek_topic`: records as they are in Kafka, tables or none.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{KAFKA, Tool, chars, max_chars, number, object, text, word};
use crate::mcp::call::Call;
use crate::mcp::view::{Answer, Object, Refused, time};
use crate::model::ids::TopicPartition;
use crate::model::version::SnapshotAt;
use crate::ports::{PeekAnswer, PeekEnd, PeekRequest, PeekStart, PeekedRecord, Reading, Recovery, Watermarks};

/// Records where the caller names no number.
const RECORDS: usize = 20;
/// Offsets before the end of each partition that are looked through for records that fit a filter.
const TAIL_FILTERED: usize = 10_000;
/// Bytes that one look goes through at most.
const BYTES_MAX: usize = 64 << 20;
/// Kept of a call's time for what comes after the look.
const RESERVE: Duration = Duration::from_secs(2);

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "peek_topic",
    description: "Look at records of a Kafka topic, by default the newest, without joining a group. Avro of the registry, \
                  JSON and text are decoded. Does not wait unless max_wait_ms says so.",
    scopes: KAFKA,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &["topic"],
        json!({
            "topic": text("The topic"),
            "partition": number(0, i64::from(i32::MAX), "One partition; default: all"),
            "start": word(&["tail", "earliest", "latest"], "tail (default): the newest; latest: only what comes while waiting"),
            "offset": number(0, i64::MAX, "Start at this offset; needs partition where there are several"),
            "timestamp": text("Start at the first record of this time or later, as in 2026-01-31T12:00:00Z"),
            "max_records": number(1, 500, "Records, default 20"),
            "max_wait_ms": number(0, 10_000, "How long to wait for new records at the end, default 0"),
            "contains": text("Only records whose key or value has this text"),
            "key_equals": text("Only records with this key"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    topic: String,
    partition: Option<i32>,
    start: Option<String>,
    offset: Option<i64>,
    timestamp: Option<String>,
    max_records: Option<usize>,
    max_wait_ms: Option<u64>,
    contains: Option<String>,
    key_equals: Option<String>,
    max_chars: Option<usize>,
}

impl Input {
    fn start(&self) -> Result<PeekStart, Refused> {
        match (self.start.as_deref(), self.offset, &self.timestamp) {
            (None | Some("tail"), None, None) => {
                let is_filtered = self.contains.is_some() || self.key_equals.is_some();
                Ok(PeekStart::Tail(if is_filtered { TAIL_FILTERED } else { self.max_records.unwrap_or(RECORDS) }))
            }
            (Some("earliest"), None, None) => Ok(PeekStart::Earliest),
            (Some(_), None, None) => Ok(PeekStart::Latest),
            (None, Some(offset), None) => Ok(PeekStart::Offset(offset)),
            (None, None, Some(text)) => Ok(PeekStart::Timestamp(super::query_sql::moment("timestamp", text)?)),
            _ => Err(Refused::new("conflict", "`start`, `offset` and `timestamp` exclude each other").field("start")),
        }
    }
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let start = input.start()?;
    let request = PeekRequest {
        topic: input.topic.clone(),
        partition: input.partition,
        start,
        contains: input.contains.clone(),
        key_equals: input.key_equals.clone(),
        records: input.max_records.unwrap_or(RECORDS),
        bytes: BYTES_MAX,
        wait: Duration::from_millis(input.max_wait_ms.unwrap_or(0)),
        time: call.time_left().saturating_sub(RESERVE),
    };
    let seen = call.desk.ports.peek.peek(request).await.map_err(|error| unknown(error.into(), &input.topic))?;
    let ranges = ranges(&call, &input.topic, &seen).await;
    let sides = seen.records.iter().flat_map(|record| [record.key.clone(), record.value.clone()]).flatten().collect();
    let mut readings = call.desk.ports.legible.read(sides).await.into_iter();
    let mut records = Vec::with_capacity(seen.records.len());
    for record in &seen.records {
        records.push(one(record, &mut readings));
    }
    let mut answer = Answer::new(json!({"time": time(call.desk.clock.now_ms())}))
        .with("topic", input.topic)
        .with("order", if matches!(start, PeekStart::Tail(_)) { "newest first" } else { "as they came" })
        .with("records_looked_through", seen.scanned)
        .list("partitions", ranges)
        .list("records", records);
    warn(&mut answer, &seen, start);
    answer.scanned_bytes = seen.scanned_bytes;
    answer.chars = chars(input.max_chars);
    answer.rest = "go on with `partition` and `offset`, ask for fewer records, or raise max_chars";
    Ok(answer)
}

/// A name that is not known is said to be so, with those that are like it.
fn unknown(refused: Refused, topic: &str) -> Refused {
    let text = refused.view()["message"].as_str().unwrap_or_default().to_owned();
    let Some(named) = text.strip_prefix(&format!("there is no topic `{topic}`; there is ")) else { return refused };
    let near: Vec<String> = named.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
    Refused::new("unknown_topic", text).field("topic").did_you_mean(near).next("use one of these names")
}

fn one(record: &PeekedRecord, readings: &mut impl Iterator<Item = Reading>) -> Value {
    let mut item = Object::new();
    item.insert("id".to_owned(), record.id.to_string().into());
    item.insert("time".to_owned(), record.timestamp_ms.map_or(Value::Null, time));
    for (name, bytes) in [("key", &record.key), ("value", &record.value)] {
        let reading = bytes.as_ref().and_then(|_| readings.next());
        let Some(reading) = reading else {
            item.insert(name.to_owned(), Value::Null);
            continue;
        };
        item.insert(name.to_owned(), reading.value);
        item.insert(format!("{name}_encoding"), reading.encoding.as_str().into());
        if let Some(note) = reading.note {
            item.insert(format!("{name}_note"), note.into());
        }
    }
    let header = |(name, value): &(String, Option<Vec<u8>>)| {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap_or_else(|_| STANDARD.encode(bytes));
        json!({"name": name, "value": value.as_ref().map(text)})
    };
    if !record.headers.is_empty() {
        item.insert("headers".to_owned(), record.headers.iter().map(header).collect());
    }
    item.into()
}

/// What each partition holds, where the look began, and what of it is in the topic's table.
async fn ranges(call: &Call<'_>, topic: &str, seen: &PeekAnswer) -> Vec<Value> {
    let datasets = call.desk.ports.datasets.list().await.unwrap_or_default();
    let table = datasets.into_iter().find(|dataset| dataset.topics.iter().any(|name| name == topic));
    let state = match &table {
        Some(dataset) => call.desk.ports.lake.at(&dataset.table, SnapshotAt::Current).await.ok().flatten(),
        None => None,
    };
    let ledger = state.and_then(|state| match state.recovery {
        Recovery::At(progress) => Some(progress.ledger),
        Recovery::Fresh | Recovery::Halted(_) => None,
    });
    let committed = |source: &TopicPartition| ledger.as_ref()?.position(source).map(|position| position.next.0);
    let one = |(source, range): (&TopicPartition, &Watermarks)| {
        json!({
            "partition": source.partition, "low": range.low.0, "stable": range.stable.0, "high": range.high.0,
            "from": seen.from.get(source).map(|next| next.0), "committed_to_table": committed(source),
        })
    };
    seen.watermarks.iter().map(one).collect()
}

fn warn(answer: &mut Answer, seen: &PeekAnswer, start: PeekStart) {
    match seen.end {
        PeekEnd::Reached => {}
        PeekEnd::Full => answer.truncated = true,
        PeekEnd::Bytes => answer.warn("it stopped after 64 MiB; begin at a later offset or time"),
        PeekEnd::Time => answer.warn("its time was over before the end of the topic; begin at a later offset or time"),
    }
    if !seen.records.is_empty() {
        return;
    }
    let at_end =
        seen.from.iter().all(|(source, at)| seen.watermarks.get(source).is_some_and(|range| *at >= range.stable));
    let is_empty = seen.watermarks.values().all(|range| range.low == range.stable);
    answer.warn(match start {
        _ if is_empty => "the topic has no record",
        PeekStart::Timestamp(_) if at_end => "the time lies behind the newest record: there is nothing yet",
        PeekStart::Latest => "nothing came while it waited; raise max_wait_ms, or start at `tail`",
        _ if at_end => "the offset lies behind the newest record: there is nothing yet",
        PeekStart::Tail(_) => {
            "no record fits among the last 10,000 offsets of each partition; start at `earliest` or a time"
        }
        _ => "no record fits; loosen `contains` or `key_equals`, or start earlier",
    });
}
