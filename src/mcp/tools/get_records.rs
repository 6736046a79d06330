//! `get_records`: whole records by their identity.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{RECORDS, Tool, chars, max_chars, nearest, object, quoted, quoted_table, texts};
use crate::mcp::call::Call;
use crate::mcp::sql;
use crate::mcp::view::{Answer, Object, Refused, as_of};
use crate::model::ids::{TableName, TopicPartition};
use crate::model::record::RecordId;
use crate::model::schema::TableSchema;
use crate::model::version::{AsOf, Consistency, SnapshotAt};

/// Records of one call.
const IDS: usize = 20;
/// A whole record is what is asked for: its texts may be as long as the answer.
const CELL_BYTES: usize = 64 << 10;
/// Rows of one table: a record may be in it once for each time that its topic was made anew.
const ROWS: u64 = 100;
/// In front of ids in the addresses of records.
const SCHEME: &str = "record://";

/// How the columns begin that identify a record, one naming scheme each.
const SCHEMES: [&str; 3] = ["kafka_", "$$", "cflt_metadata_"];

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "get_records",
    description: "Get whole records by id (topic/partition/offset), as search and peek_topic name them.",
    scopes: RECORDS,
    schema,
    is_there: |_| true,
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &["ids"],
        json!({
            "ids": texts(IDS, "Ids, as in orders/0/42 or record://orders/0/42"),
            "fields": texts(50, "Columns to give; default: all"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    ids: Vec<String>,
    fields: Option<Vec<String>>,
    max_chars: Option<usize>,
}

/// The columns by which a table's rows are records.
pub(super) struct RecordColumns {
    topic: Option<String>,
    partition: String,
    offset: String,
    incarnation: Option<String>,
    pub(super) timestamp: Option<String>,
}

impl RecordColumns {
    pub(super) fn of(schema: &TableSchema) -> Option<Self> {
        SCHEMES.iter().find_map(|scheme| {
            let named = |name: &str| schema.field(&format!("{scheme}{name}")).map(|field| field.name.clone());
            let (partition, offset) = (named("partition")?, named("offset")?);
            let (topic, incarnation, timestamp) = (named("topic"), named("incarnation"), named("timestamp"));
            Some(Self { topic, partition, offset, incarnation, timestamp })
        })
    }

    /// The predicate of these records.
    fn filter(&self, ids: &[RecordId]) -> String {
        let mut sources: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for id in ids {
            sources.entry((&id.source, id.incarnation)).or_default().push(id.offset.to_string());
        }
        let one = |((source, incarnation), offsets): (&(&TopicPartition, i32), &Vec<String>)| {
            let topic = self.topic.as_ref().map_or_else(String::new, |topic| {
                format!("{} = '{}' AND ", quoted(topic), source.topic.replace('\'', "''"))
            });
            let (partition, offset) = (quoted(&self.partition), quoted(&self.offset));
            let incarnation = match &self.incarnation {
                Some(name) => format!("coalesce({}, 0) = {incarnation} AND ", quoted(name)),
                // Without the column all rows are of the first one.
                None if *incarnation > 0 => "false AND ".to_owned(),
                None => String::new(),
            };
            format!("({incarnation}{topic}{partition} = {} AND {offset} IN ({}))", source.partition, offsets.join(", "))
        };
        sources.iter().map(one).collect::<Vec<_>>().join(" OR ")
    }
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let ids = ids(&input.ids)?;
    let datasets = call.desk.ports.datasets.list().await?;
    let mut tables: BTreeMap<TableName, Vec<RecordId>> = BTreeMap::new();
    for id in &ids {
        let topic = id.source.topic.as_ref();
        let Some(dataset) = datasets.iter().find(|dataset| dataset.topics.iter().any(|name| name == topic)) else {
            let topics = datasets.iter().flat_map(|dataset| &dataset.topics).map(String::as_str);
            return Err(Refused::new("unknown_topic", format!("no table is filled by topic `{topic}`"))
                .field("ids")
                .did_you_mean(nearest(topic, topics))
                .next("peek_topic reads a topic that fills no table"));
        };
        if !call.may_read(&dataset.table) {
            let text = format!("table `{}` is not indexed, and the token may only search", dataset.table);
            return Err(Refused::new("forbidden", text).field("ids").next("ask for a token with the scope read:sql"));
        }
        tables.entry(dataset.table.clone()).or_default().push(id.clone());
    }
    let (mut records, mut found, mut reached, mut scanned_bytes) = (Vec::new(), BTreeSet::new(), BTreeMap::new(), 0);
    for (table, ids) in tables {
        let rows = read(&call, &table, &ids, input.fields.as_deref()).await?;
        reached.extend(rows.as_of);
        scanned_bytes += rows.scanned_bytes;
        for (id, record) in rows.records {
            found.insert(id.clone());
            records.push(json!({"id": id, "table": table.to_string(), "record": record}));
        }
    }
    let missing: Vec<String> = ids.iter().map(ToString::to_string).filter(|id| !found.contains(id)).collect();
    let mut answer = Answer::new(as_of(&reached)).list("records", records);
    if !missing.is_empty() {
        answer.warn(format!(
            "not in their tables: {}; they lie at or beyond the offsets of as_of, were no rows (see the table's dead \
             letters), or never existed; peek_topic with partition and offset shows what is in Kafka",
            missing.join(", ")
        ));
    }
    (answer.cell_bytes, answer.chars, answer.scanned_bytes) = (CELL_BYTES, chars(input.max_chars), scanned_bytes);
    answer.rest = "ask for fewer ids or fields, or raise max_chars";
    Ok(answer)
}

fn ids(texts: &[String]) -> Result<Vec<RecordId>, Refused> {
    if texts.is_empty() {
        return Err(Refused::new("missing_argument", "no id is named").field("ids"));
    }
    let parse = |text: &String| {
        text.strip_prefix(SCHEME).unwrap_or(text).parse().map_err(|_| {
            Refused::new("wrong_value", format!("`{text}` is no record's id"))
                .field("ids")
                .allowed(["topic/partition/offset", "record://topic/partition/offset"])
        })
    };
    texts.iter().map(parse).collect()
}

struct Read {
    records: Vec<(String, Value)>,
    as_of: BTreeMap<TableName, AsOf>,
    scanned_bytes: u64,
}

async fn read(
    call: &Call<'_>,
    table: &TableName,
    ids: &[RecordId],
    fields: Option<&[String]>,
) -> Result<Read, Refused> {
    let state = call.desk.ports.lake.at(table, SnapshotAt::Current).await?;
    let schema = state.map(|state| state.schema).unwrap_or_default();
    let Some(columns) = RecordColumns::of(&schema) else {
        let text = format!("table `{table}` has no columns that identify a record");
        return Err(Refused::new("no_identity", text).field("ids").next("use query_sql on its other columns"));
    };
    for field in fields.into_iter().flatten() {
        if schema.field(field).is_none() {
            let known: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
            return Err(Refused::new("unknown_column", format!("table `{table}` has no column `{field}`"))
                .field("fields")
                .did_you_mean(nearest(field, known.iter().copied()))
                .allowed(known));
        }
    }
    let statement = format!("SELECT * FROM {} WHERE {}", quoted_table(table), columns.filter(ids));
    let rows = sql::ask(call, &statement, Consistency::Fresh(BTreeMap::new()), ROWS, None).await?;
    let records = rows.rows.into_iter().filter_map(|row| {
        let Value::Object(row) = row else { return None };
        let (partition, offset) = (row.get(&columns.partition)?.as_i64()?, row.get(&columns.offset)?.as_i64()?);
        let topic = columns.topic.as_ref().and_then(|topic| row.get(topic)?.as_str());
        let topic = topic.map_or_else(|| ids[0].source.topic.to_string(), str::to_owned);
        let incarnation = columns.incarnation.as_ref().and_then(|name| row.get(name)?.as_i64()).unwrap_or(0);
        let source = TopicPartition::new(topic, i32::try_from(partition).ok()?);
        let id = RecordId { source, incarnation: i32::try_from(incarnation).ok()?, offset };
        let kept = |name: &String| fields.is_none_or(|fields| fields.contains(name));
        let row: Object = row.into_iter().filter(|(name, _)| kept(name)).collect();
        Some((id.to_string(), row.into()))
    });
    Ok(Read { records: records.collect(), as_of: rows.as_of, scanned_bytes: rows.scanned_bytes })
}
