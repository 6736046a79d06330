//! From produce to findable: one text after the other is produced among 2,000 a second, and searched for by its meaning
//! until it is found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};
use crate::texts::{PARTITIONS, Texts, Topic};

const RATE: i64 = 2_000;
const SECONDS: i64 = 60;

/// Measures and prints.
pub fn run() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_findable"));
    let topic = Topic::new(kafka, registry, "bench-findable");
    let index = json!({"text": "{text}"});
    let table = json!([{"topic": topic.name, "table": "shop.texts", "commit_interval": "1s", "index": index}]);
    let mut config = lake.config(kafka, registry, "bench-findable", &table);
    config["index"] = json!({"uri": lake.path("index")});
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    frazil.await_log("polling", Duration::from_secs(20));
    let (done, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
    let name = topic.name;
    let producer = {
        let (done, sent) = (Arc::clone(&done), Arc::clone(&sent));
        std::thread::spawn(move || {
            let (texts, begun) = (Texts::new(), Instant::now());
            for n in 0..RATE * SECONDS {
                let due = Duration::from_secs_f64(n as f64 / RATE as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
                topic.send(n, texts.text(n.cast_unsigned()));
                sent.store(n + 1, Ordering::Release);
            }
            topic.flush();
            done.store(true, Ordering::Release);
        })
    };
    let (texts, mut took) = (Texts::new(), Vec::new());
    let begun = Instant::now();
    while !done.load(Ordering::Acquire) {
        let n = sent.load(Ordering::Acquire);
        while sent.load(Ordering::Acquire) == n && !done.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        if sent.load(Ordering::Acquire) == n {
            break;
        }
        let (produced, id) = (Instant::now(), format!("{name}/{}/{}", n % PARTITIONS, n / PARTITIONS));
        let body = json!({"query": texts.text(n.cast_unsigned()), "mode": "vector", "limit": 3});
        let found = loop {
            let Some((200, text)) = frazil.post("/api/search", &body) else { break false };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["hits"].as_array().unwrap().iter().any(|hit| hit["id"] == id.as_str()) {
                break true;
            }
            assert!(produced.elapsed() < Duration::from_secs(30), "{id} is not found");
        };
        if found && begun.elapsed() > Duration::from_secs(5) {
            took.push(produced.elapsed().as_secs_f64() * 1e3);
        }
    }
    producer.join().unwrap();
    took.sort_by(f64::total_cmp);
    println!(
        "findable: {} texts among {RATE} a second: from produce to found by meaning p50 {:.0} ms, p99 {:.0} ms",
        took.len(),
        took[took.len() / 2],
        took[took.len() * 99 / 100]
    );
    assert!(frazil.terminate(Duration::from_mins(1)).success());
}
