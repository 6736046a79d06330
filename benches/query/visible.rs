//! From produce to visible: a reader asks without pause for the newest timestamp that SQL sees, while records come at a
//! steady rate and commits go on every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::avro::{Encoder, ORDER, order};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};

const RATE: u32 = 20_000;
const SECONDS: u32 = 30;

/// Measures and prints.
pub fn run() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_visible"));
    let topic = "bench-visible";
    create_topic(kafka, topic, 4, &[]);
    let encoder = Encoder::register(registry, &format!("{topic}-value"), ORDER);
    let tables = json!([{"topic": topic, "table": "shop.visible", "commit_interval": "1s"}]);
    let config = lake.config(kafka, registry, "bench-visible", &tables);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    frazil.await_log("polling", Duration::from_secs(20));
    let values: Vec<Vec<u8>> = (0..1_000).map(|n| encoder.encode(order(n))).collect();
    let done = Arc::new(AtomicBool::new(false));
    let producer = {
        let (done, producer) = (Arc::clone(&done), Producer::with(kafka, &[("linger.ms", "1")]));
        std::thread::spawn(move || {
            let begun = Instant::now();
            for n in 0..RATE * SECONDS {
                let due = Duration::from_secs_f64(f64::from(n) / f64::from(RATE));
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
                let record = Record {
                    key: None,
                    value: Some(&values[n as usize % values.len()]),
                    partition: Some((n % 4).cast_signed()),
                    timestamp_ms: Some(now_ms()),
                    headers: &[],
                };
                producer.send(topic, &record);
            }
            producer.flush();
            done.store(true, Ordering::Relaxed);
        })
    };
    // How old the newest record is that an answer has seen, when the answer is there.
    let (mut ages, mut took) = (Vec::new(), Vec::new());
    let body = json!({"sql": "SELECT max(epoch) AS m FROM (SELECT date_part('epoch', max(kafka_timestamp)) * 1000 AS epoch FROM shop.visible WHERE kafka_partition = 0)"});
    let begun = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let Some((200, text)) = frazil.post("/api/sql", &body) else { continue };
        let answer: Value = serde_json::from_str(&text).unwrap();
        if let Some(newest) = answer["rows"][0]["m"].as_f64().filter(|_| begun.elapsed() > Duration::from_secs(5)) {
            ages.push(now_ms() as f64 - newest);
            took.push(asked.elapsed().as_secs_f64() * 1e3);
        }
    }
    producer.join().unwrap();
    println!(
        "visible: newest record in an answer is p50 {:.0} ms, p99 {:.0} ms old when the answer is there (a query takes p50 {:.0} ms, p99 {:.0} ms), {} answers at {RATE} records/s with a commit every second",
        at(&mut ages, 50),
        at(&mut ages, 99),
        at(&mut took, 50),
        at(&mut took, 99),
        ages.len()
    );
    frazil.terminate(Duration::from_secs(30));
}

fn at(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * percent / 100]
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
