//! Measures maintenance: how much Parquet one busy core compacts by merge in a minute, and the memory that it takes.
//! CPU-seconds of a process of its own, since they are steadier than seconds.
//!
//! `cargo bench --bench maintain [-- MIB]`, with the size of the input; 512 where it is not named.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints and may fail loudly")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the machine's own clock")]
#![allow(clippy::cast_precision_loss, clippy::zombie_processes, reason = "figures for people; wait4 waits")]
#![allow(clippy::unchecked_time_subtraction, reason = "times go forward")]
#![allow(unreachable_pub, dead_code, reason = "a bench, over a part of another's measuring")]

#[path = "../ingest/measure.rs"]
mod measure;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use frazil::lake::catalog::sql::{SqlCatalog, SqlOptions};
use frazil::lake::storage::{StorageOptions, Stores};
use frazil::lake::{IcebergLake, LakeOptions};
use frazil::model::ids::{CommitId, TableName, TopicPartition};
use frazil::model::ledger::{Advance, Ledger, Position};
use frazil::model::offsets::NextOffset;
use frazil::model::schema::{Field, TableSchema, Type, UTC};
use frazil::ports::{CommitOutcome, CommitRequest, Lake as _, Recovery, TableLayout, TableState};
use frazil::runtime::clock::Clock;
use frazil::runtime::compute::Compute;
use serde_json::json;

/// Rows of one commit, and so of one file.
const ROWS: i64 = 150_000;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let asked = std::env::args().skip(1).find_map(|arg| arg.parse::<u64>().ok());
    let wanted_bytes = asked.unwrap_or(512) << 20;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (what, sort_by) in [("unsorted", None), ("sorted", Some("customer_id"))] {
        let dir = tempfile::tempdir().unwrap();
        let input = runtime.block_on(fill(dir.path(), sort_by, wanted_bytes));
        compact(dir.path(), what, &input);
    }
}

/// What lies there to be compacted.
struct Input {
    files: usize,
    bytes: u64,
    rows: i64,
}

async fn fill(dir: &Path, sort_by: Option<&str>, wanted_bytes: u64) -> Input {
    let (clock, stores) = (Clock::system(), Stores::new(StorageOptions::default()).unwrap());
    let options = SqlOptions {
        uri: format!("sqlite://{}/catalog.db", dir.display()),
        name: "frazil".to_owned(),
        warehouse: format!("{}/warehouse", dir.display()),
        stores: stores.clone(),
    };
    let catalog = Arc::new(SqlCatalog::open(options, clock.clone()).unwrap());
    let options = LakeOptions { keep_snapshots: 1000, writer_bytes: 64 << 20 };
    let lake = IcebergLake::new(catalog, stores, Compute::pool(2).unwrap(), clock.clone(), &options);
    let table: TableName = "bench.orders".parse().unwrap();
    let mut state = lake.create(&table, &layout(sort_by)).await.unwrap();
    let mut input = Input { files: 0, bytes: 0, rows: 0 };
    while input.bytes < wanted_bytes {
        let commit = CommitId(clock.fresh_id());
        let mut writer = lake.writer(&state, commit).unwrap();
        writer.write(orders(&state.schema, input.rows)).await.unwrap();
        let files = writer.finish().await.unwrap();
        input.files += files.len();
        input.bytes += files.iter().map(|file| file.size_bytes).sum::<u64>();
        input.rows += ROWS;
        let request = CommitRequest { files, ..request(&state, commit, input.rows) };
        let CommitOutcome::Committed(after) = lake.commit(&request).await.unwrap() else { panic!("not committed") };
        state = after;
    }
    input
}

fn layout(sort_by: Option<&str>) -> TableLayout {
    let column = |name: &str, kind| Field::optional(name, kind);
    let mut fields = vec![column("order_id", Type::Long), column("customer_id", Type::Long)];
    fields.extend(["status", "currency", "country", "channel", "note"].map(|name| column(name, Type::String)));
    fields.extend(["amount", "discount"].map(|name| column(name, Type::Double)));
    fields.extend(["created", "updated"].map(|name| column(name, Type::TimestampTz)));
    fields.push(column("kafka_offset", Type::Long));
    TableLayout {
        schema: TableSchema::of(fields),
        partition_by: Vec::new(),
        sort_by: sort_by.map(str::to_owned).into_iter().collect(),
        format_version: 2,
        properties: BTreeMap::new(),
        location: None,
    }
}

/// Rows like those of the ingestion benches: ids, a few words, amounts, times, and a note that hardly repeats.
fn orders(schema: &TableSchema, first: i64) -> RecordBatch {
    let ids = first..first + ROWS;
    let mix = |n: i64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed()).unsigned_abs();
    let longs = |of: &dyn Fn(i64) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(ids.clone().map(of))) };
    let words = |words: &[&str], salt: i64| -> ArrayRef {
        let pick = |n: i64| words[(mix(n + salt) % words.len() as u64) as usize].to_owned();
        Arc::new(StringArray::from_iter_values(ids.clone().map(pick)))
    };
    let cents = |salt: i64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(ids.clone().map(|n| (mix(n + salt) % 100_000) as f64 / 100.0)))
    };
    let times = |later: i64| -> ArrayRef {
        let micros = ids.clone().map(|n| 1_767_225_600_000_000 + n * 17_000 + later);
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone(UTC))
    };
    let notes = StringArray::from_iter_values(ids.clone().map(|n| format!("order {n} of {:x}", mix(n))));
    let columns: Vec<ArrayRef> = vec![
        longs(&|n| n),
        longs(&|n| i64::try_from(mix(n) % 50_000).unwrap()),
        words(&["new", "paid", "shipped", "returned"], 1),
        words(&["EUR", "USD", "CHF"], 2),
        words(&["DE", "FR", "CH", "AT", "US", "GB"], 3),
        words(&["web", "app", "store"], 4),
        Arc::new(notes),
        cents(5),
        cents(6),
        times(0),
        times(40_000),
        longs(&|n| n),
    ];
    RecordBatch::try_new(schema.to_arrow(), columns).unwrap()
}

fn request(state: &TableState, id: CommitId, next: i64) -> CommitRequest {
    let source = TopicPartition::new("orders", 0);
    let from = match &state.recovery {
        Recovery::At(progress) => progress.ledger.position(&source).map(|at| at.next),
        _ => None,
    };
    let advance = Advance { from, to: Position { next: NextOffset(next), leader_epoch: None } };
    CommitRequest {
        id,
        table: state.table.clone(),
        table_uuid: state.uuid,
        schema: Arc::clone(&state.schema),
        advances: [(source, advance)].into(),
        identity: Ledger::default(),
        files: Vec::new(),
        dead_letters: None,
        suspension: None,
        gaps: Vec::new(),
        newest_ms: None,
        conflicts: Arc::default(),
    }
}

/// Compacts in a process of its own and prints what it took.
fn compact(dir: &Path, what: &str, input: &Input) {
    let config = json!({
        "kafka": {"bootstrap_servers": "localhost:9092"},
        "catalog": {"uri": format!("sqlite://{}/catalog.db", dir.display()), "warehouse": format!("{}/warehouse", dir.display())},
    });
    let file = dir.join("frazil.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["maintain", "bench.orders", "--compact", "-c"])
        .arg(&file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let took = measure::child(&child, begun);
    println!(
        "compaction, {what}: {:.2} GB of Parquet a minute and busy core; {} files, {} MB, {} rows in {:.1} CPU-s, {:.1} s; rss {} MB",
        input.bytes as f64 / 1e9 * 60.0 / took.cpu.as_secs_f64(),
        input.files,
        input.bytes >> 20,
        input.rows,
        took.cpu.as_secs_f64(),
        took.wall.as_secs_f64(),
        took.rss >> 20
    );
}
