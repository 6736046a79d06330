//! The ports as tests need them: one table of orders, an index, a topic, a registry; and a query that never ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Int32Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::json;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::mcp::Ports;
use crate::model::file::WrittenFile;
use crate::model::ids::{TableName, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::record::RecordId;
use crate::model::schema::{Field, TableSchema, Type};
use crate::model::version::{AsOf, SnapshotAt};
use crate::ports::*;

/// Everything that a test can see of the fakes.
#[derive(Default)]
pub(super) struct Fakes {
    /// Statements asked.
    pub(super) statements: Mutex<Vec<SqlRequest>>,
    /// Searches asked.
    pub(super) searches: Mutex<Vec<SearchRequest>>,
    /// Looks asked.
    pub(super) looks: Mutex<Vec<PeekRequest>>,
    /// Queries under way.
    pub(super) running: Arc<AtomicUsize>,
    /// True: every query fails as if the store were away.
    pub(super) is_away: AtomicBool,
    /// What each row's note says.
    pub(super) note: Mutex<String>,
    /// Rows of the table.
    pub(super) rows: AtomicUsize,
}

pub(super) fn ports(fakes: &Arc<Fakes>) -> Ports {
    Ports {
        sql: fakes.clone(),
        lake: fakes.clone(),
        datasets: fakes.clone(),
        search: Some(fakes.clone()),
        peek: fakes.clone(),
        legible: fakes.clone(),
        registry: Some(fakes.clone()),
    }
}

pub(super) fn orders() -> TableName {
    "shop.orders".parse().unwrap()
}

fn source() -> TopicPartition {
    TopicPartition::new("orders", 0)
}

fn schema() -> TableSchema {
    let fields = vec![
        Field { doc: Some("the order".to_owned()), ..Field::required("order_id", Type::Long) },
        Field::optional("note", Type::String),
        Field::optional("kafka_partition", Type::Int),
        Field::optional("kafka_offset", Type::Long),
    ];
    TableSchema { schema_id: 0, ..TableSchema::of(fields) }
}

fn reached() -> AsOf {
    AsOf { snapshot_id: Some(1 << 60), offsets: [(source(), NextOffset(7))].into(), newest_ms: Some(1_000) }
}

/// Counts a query for as long as it lives.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Sql for Fakes {
    async fn query(&self, request: SqlRequest) -> Result<SqlAnswer> {
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.running));
        let (sql, limits) = (request.sql.clone(), request.limits);
        self.statements.lock().unwrap().push(request);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the store is away"));
        }
        for (part, error) in [
            ("ordrs", "there is no table `shop.ordrs`; there is `shop.orders`"),
            ("custmer", "Schema error: No field named custmer."),
            ("DROP", "Error during planning: DDL not supported: DropTable"),
            ("SELEC ", "SQL error: ParserError(\"Expected: an SQL statement, found: SELEC at Line: 1, Column: 1\")"),
            ("slow", "the query took longer than 1s and was stopped after reading 5 bytes; filter"),
        ] {
            if sql.contains(part) {
                return Err(Error::invalid_request(error));
            }
        }
        if sql.contains("forever") {
            futures::future::pending::<()>().await;
        }
        let used = Arc::new(SqlUse::default());
        used.scanned_bytes.store(123, Ordering::Relaxed);
        let schema = Arc::new(schema()).to_arrow();
        let all = self.rows.load(Ordering::SeqCst);
        let count = all.min(usize::try_from(limits.rows).unwrap());
        used.truncated.store(count < all, Ordering::Relaxed);
        let number = |index: usize| i64::try_from(index).unwrap();
        let batch = if sql.starts_with("EXPLAIN") {
            let columns: [(&str, arrow::array::ArrayRef); 2] = [
                ("plan_type", Arc::new(StringArray::from(vec!["logical_plan", "physical_plan"]))),
                ("plan", Arc::new(StringArray::from(vec!["Scan\n  orders", "Exec"]))),
            ];
            RecordBatch::try_from_iter(columns).unwrap()
        } else {
            let note = self.note.lock().unwrap().clone();
            RecordBatch::try_new(
                schema,
                vec![
                    Arc::new(Int64Array::from_iter_values((0..count).map(number))),
                    Arc::new(StringArray::from_iter_values((0..count).map(|_| note.clone()))),
                    Arc::new(Int32Array::from_value(0, count)),
                    Arc::new(Int64Array::from_iter_values((0..count).map(number))),
                ],
            )
            .unwrap()
        };
        let schema = batch.schema();
        let rows = futures::stream::once(async move {
            let _running = running;
            Ok(batch)
        });
        Ok(SqlAnswer { schema, rows: rows.boxed(), as_of: [(orders(), reached())].into(), used })
    }
}

#[async_trait]
impl LakeReader for Fakes {
    async fn tables(&self) -> Result<Vec<TableName>> {
        Ok(vec![orders()])
    }

    async fn at(&self, table: &TableName, _: SnapshotAt) -> Result<Option<TableState>> {
        Ok((*table == orders()).then(|| TableState {
            table: orders(),
            uuid: Uuid::nil(),
            snapshot_id: Some(1 << 60),
            sequence_number: 1,
            schema: Arc::new(schema()),
            recovery: Recovery::Fresh,
            rows: 5,
            newest_ms: Some(1_000),
            properties: Arc::new([("comment".to_owned(), "all orders".to_owned())].into()),
            shape: Arc::default(),
        }))
    }

    async fn files(&self, _: &TableState) -> Result<Vec<Arc<Vec<WrittenFile>>>> {
        Ok(Vec::new())
    }

    async fn added(&self, _: &TableState, _: i64) -> Result<Option<Vec<WrittenFile>>> {
        Err(Error::bug("no tool reads files"))
    }

    async fn rows(
        &self,
        _: &TableState,
        _: &WrittenFile,
        _: &BTreeSet<&str>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        Err(Error::bug("no tool reads files"))
    }

    async fn snapshots(&self, _: &TableName) -> Result<Vec<SnapshotInfo>> {
        let one = |id: i64| SnapshotInfo {
            id,
            parent_id: (id > 1).then(|| id - 1),
            time_ms: id * 1000,
            operation: "append".to_owned(),
            added_rows: 1,
            added_files: 1,
            rows: u64::try_from(id).ok(),
            on_main: true,
            has_ledger: true,
            refs: Vec::new(),
        };
        Ok((1..=30).rev().map(one).collect())
    }

    async fn read(&self, _: &str, _: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Ok(Vec::new())
    }
}

fn dataset() -> Dataset {
    let partition_by = vec!["day(kafka_timestamp)".to_owned()];
    Dataset { table: orders(), topics: vec!["orders".to_owned()], partition_by, health: Health::Ok }
}

#[async_trait]
impl Datasets for Fakes {
    async fn list(&self) -> Result<Vec<Dataset>> {
        let dead = Dataset {
            table: orders().dead_letters(),
            topics: Vec::new(),
            partition_by: Vec::new(),
            health: Health::NotHere,
        };
        Ok(vec![dataset(), dead])
    }

    async fn freshness(&self, table: &TableName) -> Result<Option<Freshness>> {
        let next = |offset| Some(NextOffset(offset));
        let reached =
            Reached { high: next(9), stable: next(8), committed: next(5), visible: next(7), indexed: next(4) };
        Ok((*table == orders()).then(|| Freshness {
            dataset: dataset(),
            snapshot_id: Some(1 << 60),
            rows: 5,
            newest_ms: Some(1_000),
            partitions: [(source(), reached)].into(),
            unknown: vec!["what the fake does not know".to_owned()],
        }))
    }
}

#[async_trait]
impl Search for Fakes {
    async fn search(&self, request: SearchRequest) -> Result<SearchAnswer> {
        if request.filter.as_deref() == Some("wrong") {
            return Err(Error::invalid_request("the filter cannot be understood; there is: status"));
        }
        let hit = |offset: i64| Hit {
            id: RecordId { source: source(), incarnation: 0, offset },
            table: orders(),
            tier: Tier::Hot,
            score: 1.0 / (offset as f64 + 1.0),
            time_ms: Some(1_000),
            snippet: "the kettle \u{202e}leaks".to_owned(),
            matches: Vec::new(),
            ranks: [(Arm::Keyword, 1)].into(),
        };
        let hits = (0..).take(request.limit.min(40)).map(hit).collect();
        self.searches.lock().unwrap().push(request);
        let report = |arm, status| ArmReport { table: orders(), arm, status, hits: 1, time: Duration::from_millis(3) };
        let arms = vec![report(Arm::Keyword, ArmStatus::Done), report(Arm::Vector, ArmStatus::Late)];
        Ok(SearchAnswer { hits, arms, as_of: [(orders(), reached())].into() })
    }

    fn indexes(&self) -> Vec<IndexFacts> {
        vec![IndexFacts {
            table: orders(),
            indexed: reached(),
            findable: BTreeMap::new(),
            entries: 5,
            model: "m".to_owned(),
            text: "{note}".to_owned(),
            filters: vec!["status".to_owned()],
        }]
    }
}

#[async_trait]
impl Peek for Fakes {
    async fn peek(&self, request: PeekRequest) -> Result<PeekAnswer> {
        if request.topic != "orders" {
            let text = format!("there is no topic `{}`; there is `orders`, `others`", request.topic);
            return Err(Error::invalid_request(text));
        }
        let is_late = matches!(request.start, PeekStart::Timestamp(ms) if ms > 1_000);
        self.looks.lock().unwrap().push(request);
        let record = |offset: i64| PeekedRecord {
            id: RecordId { source: source(), incarnation: 0, offset },
            timestamp_ms: Some(1_000),
            key: (offset == 1).then(|| b"k".to_vec()),
            value: (offset != 2).then(|| format!("value {offset}").into_bytes()),
            headers: vec![("trace".to_owned(), Some(b"t".to_vec()))],
        };
        let next = NextOffset;
        let watermarks = [(source(), Watermarks { low: next(0), stable: next(8), high: next(9) })].into();
        let from = [(source(), next(if is_late { 8 } else { 0 }))].into();
        let records = if is_late { Vec::new() } else { (0..3).map(record).collect() };
        Ok(PeekAnswer { records, from, watermarks, scanned: 3, scanned_bytes: 30, end: PeekEnd::Reached })
    }
}

#[async_trait]
impl Legible for Fakes {
    async fn read(&self, bytes: Vec<Vec<u8>>) -> Vec<Reading> {
        let read = |bytes: Vec<u8>| Reading {
            value: String::from_utf8(bytes).unwrap().into(),
            encoding: Encoding::Text,
            note: None,
        };
        bytes.into_iter().map(read).collect()
    }
}

#[async_trait]
impl Registry for Fakes {
    async fn schema(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>> {
        let text = json!({"type": "record", "name": "Order", "fields": []}).to_string();
        let schema = RegisteredSchema { id, format: SchemaFormat::Avro, text, references: Vec::new() };
        Ok((id == 7).then(|| Arc::new(schema)))
    }

    async fn schema_by_guid(&self, _: uuid::Uuid) -> Result<Option<Arc<RegisteredSchema>>> {
        Ok(None)
    }

    async fn latest(&self, subject: &str) -> Result<Option<Arc<RegisteredSchema>>> {
        if subject == "orders-value" { self.schema(7).await } else { Ok(None) }
    }
}

/// The tables that a search was limited to.
pub(super) fn tables(names: &[&str]) -> BTreeSet<TableName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}
