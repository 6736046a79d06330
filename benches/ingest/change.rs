//! What a schema change costs in mid-stream: commits that it adds, and how much longer than usual nothing is committed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::avro::{Encoder, ORDER, order};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};

const RATE: u32 = 20_000;
const SECONDS: u32 = 20;
const POLL: Duration = Duration::from_millis(10);

/// Measures and prints.
pub fn run() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_change"));
    let topic = "bench-change";
    create_topic(kafka, topic, 4, &[]);
    let mut wider: Value = serde_json::from_str(ORDER).unwrap();
    let field = json!({"name": "late", "type": ["null", "string"], "default": null});
    wider["fields"].as_array_mut().unwrap().push(field);
    let old = Encoder::register(registry, &format!("{topic}-value"), ORDER);
    let new = Encoder::register(registry, &format!("{topic}-other"), &wider.to_string());
    let late = |n: i64| {
        let Avro::Record(mut fields) = order(n) else { unreachable!("an order is a record") };
        fields.push(("late".to_owned(), Avro::Union(1, Box::new(Avro::String("new".to_owned())))));
        new.encode(Avro::Record(fields))
    };
    let values: [Vec<Vec<u8>>; 2] =
        [(0..1_000).map(|n| old.encode(order(n))).collect(), (0..1_000).map(late).collect()];
    let tables = json!([{"topic": topic, "table": "shop.change", "commit_interval": "1s"}]);
    let config = lake.config(kafka, registry, "bench-change", &tables);
    let mut frazil = Frazil::run(&lake.dir, &config, &["--roles", "ingest"], &[]);
    frazil.await_log("polling", Duration::from_secs(20));
    let (is_over, begun) = (AtomicBool::new(false), Instant::now());
    let steps = std::thread::scope(|scope| {
        let watched = scope.spawn(|| committed(&frazil, begun, &is_over));
        let producer = Producer::with(kafka, &[("linger.ms", "5")]);
        for n in 0..RATE * SECONDS {
            let due = Duration::from_secs_f64(f64::from(n) / f64::from(RATE));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            // Both versions from the middle on, record by record.
            let version = usize::from(n > RATE * SECONDS / 2 && n % 2 == 0);
            let value = &values[version][n as usize % 1_000];
            let partition = Some((n % 4).cast_signed());
            producer.send(topic, &Record { value: Some(value), partition, ..Record::default() });
        }
        producer.flush();
        is_over.store(true, Ordering::Relaxed);
        watched.join().unwrap()
    });
    frazil.terminate(Duration::from_secs(30));
    let mut gaps: Vec<Duration> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort();
    let (usual, longest) = (gaps[gaps.len() / 2], *gaps.last().unwrap());
    let modified = |file: &std::path::PathBuf| file.metadata().unwrap().modified().unwrap();
    let newest = lake.files(".metadata.json").into_iter().max_by_key(modified).unwrap();
    let metadata: Value = serde_json::from_slice(&std::fs::read(newest).unwrap()).unwrap();
    println!(
        "change: {} commits of rows {:.2} s apart, {:.2} s at most: {:.2} s more than usual; {} commit of the schema",
        steps.len(),
        usual.as_secs_f64(),
        longest.as_secs_f64(),
        longest.saturating_sub(usual).as_secs_f64(),
        metadata["schemas"].as_array().unwrap().len() - 1,
    );
}

/// When the count of committed rows grew, since `begun`.
fn committed(frazil: &Frazil, begun: Instant, is_over: &AtomicBool) -> Vec<Duration> {
    let (mut steps, mut last) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        if let Some(rows) = frazil.metric("frazil_rows_committed_total", "shop.change").filter(|rows| *rows > last) {
            steps.push(begun.elapsed());
            last = rows;
        }
        std::thread::sleep(POLL);
    }
    steps
}
