//! Eight queries in the manner of TPC-H and ClickBench over one table of orders, through the running service, and by
//! DuckDB on the same metadata file, with as many threads.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};

/// Times that each query runs; the fastest counts.
const RUNS: usize = 3;
/// Rows in the tail when `fresh` is compared with `committed`.
const TAIL: i64 = 1_000_000;

const QUERIES: [(&str, &str); 8] = [
    ("count", "SELECT count(*) AS n FROM T"),
    ("sum", "SELECT sum(price) AS s, avg(discount) AS w, count(DISTINCT currency) AS c FROM T"),
    ("filter", "SELECT count(*) AS n, sum(quantity) AS q FROM T WHERE express AND quantity > 3 AND currency = 'EUR'"),
    (
        "group",
        "SELECT currency, status, count(*) AS n, sum(price) AS s, avg(discount) AS w FROM T GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "group_many",
        "SELECT customer_id, count(*) AS n, max(quantity) AS q FROM T GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
    ),
    ("like", "SELECT count(*) AS n FROM T WHERE note LIKE '%urgent%' OR note LIKE '%1234%'"),
    (
        "top",
        "SELECT order_id, customer_id, price, kafka_offset FROM T ORDER BY kafka_offset DESC, kafka_partition LIMIT 10",
    ),
    (
        "range",
        "SELECT date_trunc('minute', kafka_timestamp) AS m, count(*) AS n FROM T WHERE kafka_offset BETWEEN 100000 AND 300000 GROUP BY 1 ORDER BY 1",
    ),
];

/// Measures and prints.
pub fn run() {
    let records = std::env::var("FRAZIL_BENCH_RECORDS").map_or(10_000_000, |text| text.parse().unwrap());
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bench_scans"));
    crate::orders::produce(kafka, registry, "bench-scans", 4, records);
    let table = |interval: &str| json!([{"topic": "bench-scans", "table": "shop.scans", "key": {"format": "string"}, "commit_interval": interval, "commit_bytes": "64MiB"}]);
    let config = lake.config(kafka, registry, "bench-scans", &table("1h"));
    Frazil::until_caught_up(&lake.dir, &config, Duration::from_mins(10));
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    crate::wait::eventually("the service answers", Duration::from_mins(1), || {
        (frazil.post("/api/sql", &json!({"sql": "SELECT 1 FROM shop.scans LIMIT 1"}))?.0 == 200).then_some(())
    });
    let own = QUERIES.map(|(_, sql)| best(&frazil, sql, "committed"));
    let duck = duckdb(&lake);
    let mut product = 1.0;
    for (((name, _), own), duck) in QUERIES.iter().zip(own).zip(&duck) {
        let ratio = own.as_secs_f64() / duck;
        product *= ratio;
        println!("scans: {name}: {:.0} ms = {ratio:.2} x DuckDB's {:.0} ms", own.as_secs_f64() * 1e3, duck * 1e3);
    }
    println!("scans: geometric mean {:.2} x DuckDB over {records} rows", product.powf(1.0 / QUERIES.len() as f64));
    crate::orders::send(kafka, registry, "bench-scans", 4, TAIL);
    crate::wait::eventually("the tail is read", Duration::from_mins(2), || {
        let sql = json!({"sql": "SELECT sum(visible) AS n FROM shop.\"scans$ledger\""});
        let answer: serde_json::Value = serde_json::from_str(&frazil.post("/api/sql", &sql)?.1).ok()?;
        (answer["rows"][0]["n"].as_i64()? == records + TAIL).then_some(())
    });
    let mut product = 1.0;
    for (name, sql) in QUERIES {
        let (fresh, committed) = (best(&frazil, sql, "fresh"), best(&frazil, sql, "committed"));
        let ratio = fresh.as_secs_f64() / committed.as_secs_f64();
        product *= ratio;
        println!("scans: {name}: fresh {:.0} ms = {ratio:.2} x committed", fresh.as_secs_f64() * 1e3);
    }
    println!(
        "scans: fresh over a tail of {TAIL} rows: geometric mean {:.2} x committed",
        product.powf(1.0 / QUERIES.len() as f64)
    );
    frazil.kill();
}

fn best(frazil: &Frazil, sql: &str, consistency: &str) -> Duration {
    let body = json!({"sql": sql.replace("FROM T", "FROM shop.scans"), "consistency": consistency});
    let once = |_| {
        let begun = Instant::now();
        let (status, text) = frazil.post("/api/sql", &body).unwrap();
        assert_eq!(status, 200, "{text}");
        begun.elapsed()
    };
    (0..RUNS).map(once).min().unwrap()
}

/// Seconds of each query.
fn duckdb(lake: &Lake) -> Vec<f64> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let mut command = Command::new(format!("{root}tests/services/python.sh"));
    command.args([&format!("{root}benches/query/scans.py"), &lake.catalog, "shop.scans", &RUNS.to_string()]);
    let output = command.args(QUERIES.map(|(_, sql)| sql)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
