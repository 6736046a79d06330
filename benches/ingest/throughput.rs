//! Throughput: the whole process against the sum of its parts measured alone, in one run.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use frazil::decode::avro::schema::parse_text;
use frazil::decode::evolution::Evolution;
use frazil::decode::layout::{Format, Given, KeyColumns, Layout, Metadata, MetadataNames, Tombstones};
use frazil::decode::mapping::MappingOptions;
use frazil::decode::schema::{Columns, Schema};
use frazil::decode::{Decoder, Decoding, MessagePath, SchemaKey, SchemaUse, Sides, wire_schema_id};
use frazil::kafka::{Kafka as Source, Options};
use frazil::lake::catalog::Catalog;
use frazil::lake::catalog::sql::{SqlCatalog, SqlOptions};
use frazil::lake::storage::{StorageOptions, Stores};
use frazil::lake::{IcebergLake, LakeOptions};
use frazil::model::ids::{Attempt, CommitId};
use frazil::model::ledger::Position;
use frazil::model::raw::RawBatch;
use frazil::ports::{Lake as _, Source as _, SourceEvent, Start, TableLayout};
use frazil::runtime::budget::Budget;
use frazil::runtime::clock::Clock;
use frazil::runtime::compute::Compute;
use serde_json::json;

use crate::avro::ORDER;
use crate::lake::Lake;
use crate::measure::{self, Took, per_million};
use crate::process::write_config;
use crate::services::{Kafka, Registry};
use crate::verify::Verify;
use crate::wait::block_on;

const PARTITIONS: i32 = 4;

/// Measures and prints.
pub fn run() {
    let records: i64 = std::env::var("FRAZIL_BENCH_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_throughput"));
    let topic = "bench-orders";
    crate::orders::produce(kafka, registry, topic, PARTITIONS, records);
    let (batches, consume) = measure::here(|| consume(kafka, topic, records));
    let schema_id = batches.iter().find_map(|b| wire_schema_id(b.value(b.records.first()?)?)).unwrap();
    let (rows, decode) = measure::here(|| decode(batches, schema_id));
    let (bytes, encode) = measure::here(|| encode(&lake, rows));
    let whole = pipeline(kafka, registry, &lake, topic, records);
    let part = |took: &Took| per_million(took.cpu, records);
    let sum = part(&consume) + part(&decode) + part(&encode);
    println!(
        "throughput: {:.2} CPU-s per million records = {:.2} x the sum of its parts {sum:.2} (consume {:.2}, decode {:.2}, \
         encode and upload {:.2}); wall {:.2} s per million = {:.2} x CPU; rss {} MB; {:.1} MB of files; {} records",
        part(&whole),
        part(&whole) / sum,
        part(&consume),
        part(&decode),
        part(&encode),
        per_million(whole.wall, records),
        whole.wall.as_secs_f64() / whole.cpu.as_secs_f64(),
        whole.rss / 1_000_000,
        bytes as f64 / 1e6,
        records,
    );
    let verify =
        Verify::new(kafka, registry, &lake, topic, "shop.orders").with(&["--key", "string", "--engine", "duckdb"]);
    assert_eq!(verify.assert_good(), u64::try_from(records).unwrap());
    println!("throughput: the table was compared with the topic, every field of every record");
}

/// The process, from start to end of topic.
fn pipeline(kafka: &Kafka, registry: &Registry, lake: &Lake, topic: &str, records: i64) -> Took {
    let tables =
        json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}, "commit_interval": "5s"}]);
    let mut config = lake.config(kafka, registry, "bench", &tables);
    config["memory_budget"] = "256MiB".into();
    let file = write_config(&lake.path("throughput.yaml"), &config);
    let log = std::fs::File::create(lake.path("throughput.log")).unwrap();
    let begun = Instant::now();
    let child = std::process::Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["run", "-c", file.to_str().unwrap(), "--until-caught-up"])
        .stdout(std::process::Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    eprintln!("the pipeline reads {records} records");
    measure::child(&child, begun)
}

/// The consume loop alone; the batches are kept for the next part.
fn consume(kafka: &Kafka, topic: &str, records: i64) -> Vec<RawBatch> {
    block_on(async {
        let source =
            Source::open(&Options::new(kafka.bootstrap(), "bench-consume".to_owned()), Clock::system()).unwrap();
        let budget = Budget::new("raw", usize::MAX);
        let (table, mut events) = source.add_table(vec![topic.to_owned()], budget).unwrap();
        let mut batches = Vec::new();
        let mut left = records;
        while left > 0 {
            match events.recv().await.unwrap() {
                SourceEvent::Assigned(partitions) => table.start(
                    partitions
                        .into_iter()
                        .map(|source| Start { source, at: Position::default(), attempt: Attempt(1) })
                        .collect(),
                ),
                SourceEvent::Batch(batch, _) => {
                    left -= i64::try_from(batch.records.len()).unwrap();
                    batches.push(batch);
                }
                _ => {}
            }
        }
        source.close().await;
        batches
    })
}

fn layout() -> Layout {
    Layout {
        key_format: Format::String,
        key_columns: KeyColumns::Flatten,
        value_format: Format::Registry,
        projection: Arc::default(),
        names: MetadataNames::Kafka,
        metadata: vec![Metadata::Partition, Metadata::Headers, Metadata::Offset, Metadata::Timestamp],
        mapping: MappingOptions::default(),
        tombstones: Tombstones::Keep,
        record_bytes_max: 16 << 20,
        evolution: Evolution::Extend,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
    }
}

/// Decoding alone, on one thread.
fn decode(
    batches: Vec<RawBatch>,
    schema_id: u32,
) -> (frazil::model::schema::TableSchema, Vec<arrow::array::RecordBatch>) {
    let schema = Schema::Avro(parse_text(ORDER).unwrap());
    let layout = Arc::new(layout());
    let value = schema.columns(MessagePath::FIRST, layout.mapping).unwrap();
    let table = layout.table_schema(Columns::One(frazil::model::schema::Type::String), value).unwrap();
    let mut ids = 0;
    let fields = table.fields.into_iter().map(|f| number(f, &mut ids)).collect();
    let table = frazil::model::schema::TableSchema { schema_id: 0, ..frazil::model::schema::TableSchema::of(fields) };
    let sides = Sides { key: Format::String, value: Format::Registry };
    let schemas = HashMap::from([(SchemaKey::Id(schema_id), SchemaUse::Known(Arc::new(schema)))]);
    let decoder = Decoder::new(layout, Arc::new(table.clone()), sides, schemas);
    let rows = batches.into_iter().map(|batch| match decoder.decode(batch, 0).unwrap() {
        Decoding::Done(decoded) => decoded.rows,
        lacking => panic!("the decoder knows all schemas: {lacking:?}"),
    });
    let rows = rows.collect();
    (table, rows)
}

fn number(mut field: frazil::model::schema::Field, ids: &mut i32) -> frazil::model::schema::Field {
    use frazil::model::schema::Type;
    *ids += 1;
    field.id = *ids;
    field.kind = match field.kind {
        Type::Struct(fields) => Type::Struct(fields.into_iter().map(|field| number(field, ids)).collect()),
        Type::List(element) => Type::List(Box::new(number(*element, ids))),
        kind => kind,
    };
    field
}

/// Encoding and upload to a local folder alone, in files of about five seconds' rows.
fn encode(lake: &Lake, (schema, rows): (frazil::model::schema::TableSchema, Vec<arrow::array::RecordBatch>)) -> u64 {
    block_on(async {
        let clock = Clock::system();
        let stores = Stores::new(StorageOptions { properties: std::collections::BTreeMap::new() }).unwrap();
        let options = SqlOptions {
            uri: format!("sqlite://{}", lake.path("encode.db").display()),
            name: "bench".to_owned(),
            warehouse: lake.path("encode").display().to_string(),
            stores: stores.clone(),
        };
        let catalog: Arc<dyn Catalog> = Arc::new(SqlCatalog::open(options, clock.clone()).unwrap());
        let compute = Compute::pool(2).unwrap();
        let tables = IcebergLake::new(
            catalog,
            stores,
            compute,
            clock.clone(),
            &LakeOptions { keep_snapshots: 100, writer_bytes: 64 << 20 },
        );
        let layout = TableLayout {
            schema,
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            format_version: 2,
            properties: std::collections::BTreeMap::new(),
            location: None,
        };
        let state = tables.create(&"bench.encode".parse().unwrap(), &layout).await.unwrap();
        let mut bytes = 0;
        for rows in rows.chunks(rows.len().div_ceil(2).max(1)) {
            let mut writer = tables.writer(&state, CommitId(clock.fresh_id())).unwrap();
            for rows in rows {
                writer.write(rows.clone()).await.unwrap();
            }
            bytes += writer.finish().await.unwrap().iter().map(|file| file.size_bytes).sum::<u64>();
        }
        bytes
    })
}
