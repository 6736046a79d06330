//! An index of many short texts: what filling it costs beside ingestion alone, how long a search by meaning takes then,
//! and how many of the nearest it finds.

use std::time::{Duration, Instant};

use frazil::ports::Embedder;
use frazil::vector::StaticEmbedder;
use serde_json::{Value, json};

use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};
use crate::texts::{PARTITIONS, Texts, Topic};
use crate::wait::eventually;

const QUERIES: u64 = 300;
const NEAREST: usize = 10;

/// Measures and prints.
pub fn run() {
    let count: u64 = std::env::var("FRAZIL_BENCH_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let (kafka, registry, texts) = (Kafka::shared(), Registry::shared(), Texts::new());
    let topic = Topic::new(kafka, registry, "bench-fill");
    for n in 0..count {
        topic.send(n.cast_signed(), texts.text(n));
    }
    topic.flush();
    let table = json!({"topic": topic.name, "table": "shop.texts", "commit_interval": "1s"});
    let caught_up = |lake: &Lake, table: &Value| {
        let mut config = lake.config(kafka, registry, &lake.dir.to_string_lossy(), &json!([table]));
        config["index"] = json!({"uri": lake.path("index")});
        config["memory_budget"] = "2GiB".into();
        let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
        let (begun, ends) = (Instant::now(), count / PARTITIONS.cast_unsigned());
        let name = if table.get("index").is_some() { "frazil_index_entries" } else { "frazil_rows_committed_total" };
        let minutes = Duration::from_mins(30);
        eventually("everything is in", minutes, || frazil.metric(name, "shop.texts").filter(|rows| *rows >= ends * 4));
        let cpu = cpu_seconds(&frazil);
        (frazil, begun.elapsed(), cpu)
    };
    let (alone, wall, cpu_alone) = caught_up(&Lake::local("bench_alone"), &table);
    println!("fill: {count} texts committed alone in {:.1} s, {cpu_alone:.1} CPU-s", wall.as_secs_f64());
    drop(alone);
    let mut indexed = table.clone();
    indexed["index"] = json!({"text": "{text}"});
    let lake = Lake::local("bench_fill");
    let (frazil, wall, cpu) = caught_up(&lake, &indexed);
    let per_second = count as f64 / (cpu - cpu_alone).max(0.1);
    println!(
        "fill: {count} texts committed and indexed in {:.1} s, {cpu:.1} CPU-s: {per_second:.0} texts per CPU-s beyond ingestion",
        wall.as_secs_f64()
    );
    // The vector index is made behind the entries: until the process rests.
    let mut seen = 0.0;
    let mut rested = Instant::now();
    let begun = Instant::now();
    while rested.elapsed() < Duration::from_secs(10) && begun.elapsed() < Duration::from_mins(20) {
        std::thread::sleep(Duration::from_secs(1));
        let cpu = cpu_seconds(&frazil);
        if cpu > seen + 0.5 {
            (seen, rested) = (cpu, Instant::now());
        }
    }
    println!("fill: at rest after {seen:.1} CPU-s");
    search(&frazil, &texts, count);
}

/// CPU time that the process has used.
fn cpu_seconds(frazil: &Frazil) -> f64 {
    let (_, text) = frazil.get("/metrics").expect("the listener answers");
    let line = text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    line.and_then(|seconds| seconds.parse().ok()).expect("the process counts its CPU time")
}

/// Latency, and how many of the nearest texts are among the hits.
fn search(frazil: &Frazil, texts: &Texts, count: u64) {
    let embedder = StaticEmbedder;
    let all: Vec<f32> = (0..count)
        .collect::<Vec<_>>()
        .chunks(10_000)
        .flat_map(|chunk| embedder.embed(&chunk.iter().map(|n| texts.text(*n)).collect::<Vec<_>>()).unwrap())
        .collect();
    let (mut took, mut right) = (Vec::new(), 0);
    for q in 0..QUERIES {
        let query = texts.text(u64::MAX / 2 + q);
        let vector = embedder.embed(std::slice::from_ref(&query)).unwrap();
        let score = |n: usize| -> f32 { all[n * 256..(n + 1) * 256].iter().zip(&vector).map(|(a, b)| a * b).sum() };
        let mut scores: Vec<f32> = (0..usize::try_from(count).unwrap()).map(score).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        let least = scores[NEAREST - 1] - 1e-5;
        let begun = Instant::now();
        let body = json!({"query": query, "mode": "vector", "limit": NEAREST});
        let (status, text) = frazil.post("/api/search", &body).unwrap();
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        for hit in answer["hits"].as_array().unwrap() {
            let mut id = hit["id"].as_str().unwrap().rsplit('/').map(str::parse::<i64>);
            let (offset, partition) = (id.next().unwrap().unwrap(), id.next().unwrap().unwrap());
            let n = usize::try_from(offset * PARTITIONS + partition).unwrap();
            right += usize::from(score(n) >= least);
        }
    }
    took.sort_by(f64::total_cmp);
    println!(
        "search: {QUERIES} by meaning over {count} texts: p50 {:.1} ms, p99 {:.1} ms, recall@{NEAREST} {:.3}",
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        right as f64 / (QUERIES as usize * NEAREST) as f64
    );
}
