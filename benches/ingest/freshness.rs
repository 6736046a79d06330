//! From produce to readable by another engine, with commits every second.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::avro::{Encoder, ORDER, order};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};

const RATE: u32 = 1_000;
const SECONDS: u32 = 40;

/// Measures and prints.
pub fn run() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_freshness"));
    let topic = "bench-fresh";
    create_topic(kafka, topic, 4, &[]);
    let encoder = Encoder::register(registry, &format!("{topic}-value"), ORDER);
    let tables = json!([{"topic": topic, "table": "shop.fresh", "commit_interval": "1s"}]);
    let config = lake.config(kafka, registry, "bench-fresh", &tables);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    frazil.await_log("polling", Duration::from_secs(20));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let reader = Command::new(format!("{root}tests/services/python.sh"))
        .args([&format!("{root}benches/ingest/freshness.py"), &lake.catalog, "shop.fresh"])
        .arg((SECONDS - 5).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let producer = Producer::new(kafka);
    let values: Vec<Vec<u8>> = (0..1_000).map(|n| encoder.encode(order(n))).collect();
    let begun = Instant::now();
    for n in 0..RATE * SECONDS {
        let due = Duration::from_secs_f64(f64::from(n) / f64::from(RATE));
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let record = Record {
            key: None,
            value: Some(&values[n as usize % values.len()]),
            partition: Some((n % 4).cast_signed()),
            timestamp_ms: Some(i64::try_from(now).unwrap()),
            headers: &[],
        };
        producer.send(topic, &record);
    }
    producer.flush();
    let output = reader.wait_with_output().unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "the reader failed");
    frazil.terminate(Duration::from_secs(30));
}
