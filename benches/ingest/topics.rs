//! A thousand topics, each with a small table of its own: how soon all run and are committed, and in how much memory.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::kafka::{Producer, Record, create_topics};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};
use crate::wait::eventually;

const TOPICS: u64 = 1_000;
const RECORDS: u64 = 10;
const COMMIT_INTERVAL: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_mins(10);

/// Measures and prints.
pub fn run() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_topics"));
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("bench-many-{n}")).collect();
    topics.chunks(100).for_each(|some| create_topics(kafka, some, 1, &[]));
    let producer = Producer::new(kafka);
    for topic in topics.iter().cycle().take(usize::try_from(TOPICS * RECORDS).unwrap()) {
        producer.send(topic, &Record { value: Some(br#"{"id":7,"name":"small"}"#), ..Record::default() });
    }
    producer.flush();
    let tables = json!([{
        "topic_pattern": "^bench-many-", "table": "many.{topic}", "key": {"columns": "none"}, "value": {"format": "json"},
        "commit_interval": format!("{}s", COMMIT_INTERVAL.as_secs()),
    }]);
    let config = lake.config(kafka, registry, "bench-many", &tables);
    let begun = Instant::now();
    let mut frazil = Frazil::run(&lake.dir, &config, &["--roles", "ingest"], &[]);
    let sum = |frazil: &Frazil, name: &str| -> u64 {
        let metrics = frazil.get("/metrics").map_or_else(String::new, |(_, text)| text);
        let of_tables = metrics.lines().filter(|line| line.starts_with(name) && !line.contains("__dead_letters"));
        of_tables.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    let mut started = None;
    eventually("all topics are committed", DEADLINE, || {
        if sum(&frazil, "frazil_records_polled_total{") == TOPICS * RECORDS {
            started.get_or_insert_with(|| begun.elapsed());
        }
        (sum(&frazil, "frazil_rows_committed_total{") == TOPICS * RECORDS).then_some(())
    });
    let committed = begun.elapsed();
    println!(
        "topics: {TOPICS} tables: all records read after {:.1} s, all committed after {:.1} s ({:.2} x the commit interval), \
         rss {} MB",
        started.unwrap_or(committed).as_secs_f64(),
        committed.as_secs_f64(),
        committed.as_secs_f64() / COMMIT_INTERVAL.as_secs_f64(),
        crate::measure::greatest_rss(frazil.id()).unwrap_or_default() / 1_000_000,
    );
    frazil.terminate(Duration::from_mins(2));
}
