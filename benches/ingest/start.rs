//! How soon the service runs, and how soon the demo has rows.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lake::Lake;
use crate::process::write_config;
use crate::services::{Kafka, Registry, folder};

/// Measures and prints.
pub fn run() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_start"));
    crate::orders::produce(kafka, registry, "bench-start", 4, 1_000);
    let config = lake.config(kafka, registry, "bench-start", &json!([{"topic": "bench-start", "table": "shop.start"}]));
    let file = write_config(&lake.path("start.yaml"), &config);
    let mut times: Vec<Duration> = (0..5).map(|_| until(&["run", "-c", file.to_str().unwrap()], "polling")).collect();
    times.sort();
    println!("start: `frazil run` polls {} ms after it was started (median of 5)", times[2].as_millis());
    let dir = folder("bench_demo");
    let rows = until(&["demo", "--dir", dir.to_str().unwrap()], "rows");
    println!("start: `frazil demo` shows its first committed rows after {:.1} s", rows.as_secs_f64());
}

/// Time from start until a line of the process's output contains `text`.
fn until(arguments: &[&str], text: &str) -> Duration {
    let begun = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$0\" \"$@\" 2>&1", env!("CARGO_BIN_EXE_frazil")])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.map_while(Result::ok).find(|line| line.contains(text));
    let took = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.is_some(), "the process ended without a line that contains `{text}`");
    took
}
