//! Greatest resident memory under a budget of 256 MiB, where much is open at once.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::avro::Encoder;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::measure::{self, Took};
use crate::process::write_config;
use crate::services::{Kafka, Registry};

/// Measures and prints.
pub fn run() {
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    crate::orders::produce(kafka, registry, "bench-wide", 64, 1_000_000);
    report("64 partitions", pipeline("bench-wide", "bench_memory_wide", &json!({})), 1_000_000);
    columns(kafka, registry);
    report("300 columns", pipeline("bench-columns", "bench_memory_columns", &json!({})), 100_000);
    let by_order = json!({"partition_by": ["truncate(100, order_id)"]});
    report("10,000 Iceberg partition values", pipeline("bench-wide", "bench_memory_values", &by_order), 1_000_000);
}

fn report(what: &str, took: Took, records: i64) {
    println!(
        "memory: {what}: rss {} MB with a budget of 256 MiB; {:.2} CPU-s per million of {records} records",
        took.rss / 1_000_000,
        measure::per_million(took.cpu, records)
    );
}

fn pipeline(topic: &str, name: &str, options: &Value) -> Took {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(name));
    let mut table = json!({"topic": topic, "table": "shop.memory", "commit_interval": "5s"});
    table.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let mut config = lake.config(kafka, registry, name, &json!([table]));
    config["memory_budget"] = "256MiB".into();
    let file = write_config(&lake.path("memory.yaml"), &config);
    let log = std::fs::File::create(lake.path("memory.log")).unwrap();
    let begun = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["run", "-c", file.to_str().unwrap(), "--until-caught-up"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    measure::child(&child, begun)
}

/// Records of 300 columns: a hundred each of long, string and optional double.
fn columns(kafka: &Kafka, registry: &Registry) {
    let fields: Vec<Value> = (0..300)
        .map(|n| match n % 3 {
            0 => json!({"name": format!("c{n}"), "type": "long"}),
            1 => json!({"name": format!("c{n}"), "type": "string"}),
            _ => json!({"name": format!("c{n}"), "type": ["null", "double"]}),
        })
        .collect();
    let schema = json!({"type": "record", "name": "Wide", "fields": fields}).to_string();
    create_topic(kafka, "bench-columns", 8, &[]);
    let encoder = Encoder::register(registry, "bench-columns-value", &schema);
    let values: Vec<Vec<u8>> = (0..1_000_i64).map(|n| encoder.encode(wide(n))).collect();
    let producer = Producer::with(kafka, &[("compression.type", "lz4"), ("linger.ms", "20")]);
    for n in 0..100_000_usize {
        let record = Record {
            key: None,
            value: Some(&values[n % values.len()]),
            partition: Some(i32::try_from(n % 8).unwrap()),
            timestamp_ms: Some(1_767_225_600_000),
            headers: &[],
        };
        producer.send("bench-columns", &record);
    }
    producer.flush();
}

fn wide(n: i64) -> apache_avro::types::Value {
    use apache_avro::types::Value::{Double, Long, Record, String, Union};
    let fields = (0..300_i64).map(|c| {
        let value = match c % 3 {
            0 => Long(n * 31 + c),
            1 => String(format!("value {} of {c}", n % 97)),
            _ => Union(1, Box::new(Double(n as f64 / 7.0))),
        };
        (format!("c{c}"), value)
    });
    Record(fields.collect())
}
