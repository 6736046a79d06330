//! A commit's cost over a table's life: 200 Iceberg partitions, a ledger of 1,000 Kafka partitions, two replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use frazil::lake::catalog::Catalog;
use frazil::lake::catalog::sql::{SqlCatalog, SqlOptions};
use frazil::lake::storage::{StorageOptions, Stores};
use frazil::lake::{IcebergLake, LakeOptions};
use frazil::model::file::{ColumnStats, WrittenFile};
use frazil::model::ids::{CommitId, TopicPartition};
use frazil::model::ledger::{Advance, Advances, Ledger, Position, TopicLedger};
use frazil::model::offsets::NextOffset;
use frazil::model::schema::{Field, TableSchema, Type};
use frazil::ports::{
    CommitOutcome, CommitRequest, Lake as _, PartitionField, Recovery, TableLayout, TableState, Transform,
};
use frazil::runtime::clock::Clock;
use frazil::runtime::compute::Compute;

use crate::measure;
use crate::services::folder;
use crate::wait::block_on;

const COMMITS: usize = 2_000;
const ICEBERG_PARTITIONS: i64 = 200;
const KAFKA_PARTITIONS: i32 = 1_000;
const COLUMNS: usize = 12;

/// Cost of one commit.
#[derive(Clone, Copy)]
struct Cost {
    cpu_ms: f64,
    bytes: f64,
    requests: f64,
}

/// Measures and prints.
pub fn run() {
    let dir = folder("bench_commits");
    let costs = block_on(async {
        let replicas: Vec<_> = (0..2).map(|_| replica(&dir)).collect();
        let mut state = replicas[0].0.create(&"bench.commits".parse().unwrap(), &layout()).await.unwrap();
        let mut costs = Vec::with_capacity(COMMITS);
        for n in 0..COMMITS {
            let (lake, stores, clock) = &replicas[n % 2];
            let request = request(&state, n, CommitId(clock.fresh_id()));
            let traffic = stores.traffic();
            let counts = || {
                let bytes = traffic.bytes_read.load(Ordering::Relaxed) + traffic.bytes_written.load(Ordering::Relaxed);
                (bytes, traffic.requests.load(Ordering::Relaxed))
            };
            let (bytes, requests) = counts();
            let begun = measure::own_cpu();
            let outcome = lake.commit(&request).await.unwrap();
            let cpu = measure::own_cpu() - begun;
            let (bytes_after, requests_after) = counts();
            let CommitOutcome::Committed(after) = outcome else { panic!("commit {n} was not taken") };
            state = after;
            costs.push(Cost {
                cpu_ms: cpu.as_secs_f64() * 1e3,
                bytes: (bytes_after - bytes) as f64,
                requests: (requests_after - requests) as f64,
            });
        }
        let Recovery::At(progress) = &state.recovery else { panic!("no ledger") };
        println!(
            "commits: the ledger of {KAFKA_PARTITIONS} partitions takes {} bytes of a snapshot's summary",
            progress.ledger.encode().len()
        );
        costs
    });
    let (early, late) = (&costs[100..200], &costs[COMMITS - 100..]);
    for (name, value) in [
        ("cpu ms", (|cost: &Cost| cost.cpu_ms) as fn(&Cost) -> f64),
        ("bytes", |cost| cost.bytes),
        ("requests", |cost| cost.requests),
    ] {
        let (mean_early, p99_early) = spread(early, value);
        let (mean_late, p99_late) = spread(late, value);
        println!(
            "commits: {name}: mean {mean_late:.1} over the last 100 of {COMMITS} = {:.2} x {mean_early:.1} over 100-200; \
             p99 {p99_late:.1} = {:.2} x {p99_early:.1}",
            mean_late / mean_early,
            p99_late / p99_early
        );
    }
}

fn spread(costs: &[Cost], value: fn(&Cost) -> f64) -> (f64, f64) {
    let mut values: Vec<f64> = costs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    (values.iter().sum::<f64>() / values.len() as f64, values[values.len() * 99 / 100])
}

fn replica(dir: &std::path::Path) -> (IcebergLake, Stores, Clock) {
    let clock = Clock::system();
    let stores = Stores::new(StorageOptions { properties: BTreeMap::new() }).unwrap();
    let options = SqlOptions {
        uri: format!("sqlite://{}", dir.join("catalog.db").display()),
        name: "bench".to_owned(),
        warehouse: dir.join("warehouse").display().to_string(),
        stores: stores.clone(),
    };
    let catalog: Arc<dyn Catalog> = Arc::new(SqlCatalog::open(options, clock.clone()).unwrap());
    let compute = Compute::pool(1).unwrap();
    (
        IcebergLake::new(
            catalog,
            stores.clone(),
            compute,
            clock.clone(),
            &LakeOptions { keep_snapshots: 100, writer_bytes: 64 << 20 },
        ),
        stores,
        clock,
    )
}

fn layout() -> TableLayout {
    let mut fields = vec![Field::optional("tenant", Type::Long)];
    fields.extend((1..COLUMNS).map(|n| Field::optional(format!("c{n}"), Type::Long)));
    TableLayout {
        schema: TableSchema::of(fields),
        partition_by: vec![PartitionField { column: "tenant".to_owned(), transform: Transform::Identity }],
        sort_by: Vec::new(),
        format_version: 2,
        properties: BTreeMap::new(),
        location: None,
    }
}

/// A commit of one file per Iceberg partition; the files themselves are not looked at by a commit.
fn request(state: &TableState, n: usize, id: CommitId) -> CommitRequest {
    let column = |n: i64| ColumnStats {
        size_bytes: 1000,
        values: 100,
        nulls: 0,
        lower: Some(n.to_le_bytes().to_vec()),
        upper: Some((n + 100).to_le_bytes().to_vec()),
    };
    let files = (0..ICEBERG_PARTITIONS).map(|tenant| WrittenFile {
        path: format!("/bench/data/tenant={tenant}/{id}-{tenant}.parquet"),
        size_bytes: 100_000,
        rows: 100,
        spec_id: 0,
        partition: vec![Some(tenant.to_le_bytes().to_vec())],
        sort_order_id: None,
        split_offsets: vec![4],
        columns: state.schema.fields.iter().map(|field| (field.id, column(i64::try_from(n).unwrap() * 100))).collect(),
    });
    let at = |n: usize| NextOffset(i64::try_from(n).unwrap() * 20_000);
    let advances: Advances = (0..KAFKA_PARTITIONS)
        .map(|partition| {
            let to = Position { next: at(n + 1), leader_epoch: Some(3) };
            (TopicPartition::new("bench", partition), Advance { from: (n > 0).then(|| at(n)), to })
        })
        .collect();
    let topic = TopicLedger { topic_id: Some(uuid::Uuid::from_u128(7)), ..TopicLedger::default() };
    let identity = Ledger { cluster_id: "bench".to_owned(), topics: BTreeMap::from([("bench".to_owned(), topic)]) };
    CommitRequest {
        id,
        table: state.table.clone(),
        table_uuid: state.uuid,
        schema: Arc::clone(&state.schema),
        advances,
        identity,
        files: files.collect(),
        dead_letters: None,
        suspension: None,
        gaps: Vec::new(),
        newest_ms: Some(0),
        conflicts: Arc::default(),
    }
}
