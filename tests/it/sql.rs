//! SQL on the running service: what is not committed yet is seen, each record once, whatever goes on meanwhile; and a
//! query can neither write nor use more than it may.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kafka::create_topic;
use crate::lake::Lake;
use crate::process::{Frazil, frazil};
use crate::services::{Kafka, Registry};
use crate::smoke::produce_orders;
use crate::wait::eventually;

const MINUTE: Duration = Duration::from_mins(1);

/// A configuration with one table of orders.
fn config(kafka: &Kafka, registry: &Registry, lake: &Lake, topic: &str, commit_interval: &str) -> Value {
    let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}, "commit_interval": commit_interval}]);
    lake.config(kafka, registry, topic, &tables)
}

/// The answer to a query; panics on a refusal.
#[track_caller]
pub fn ask(frazil: &Frazil, body: &Value) -> Value {
    let (status, text) = frazil.post("/api/sql", body).expect("the listener answers");
    assert_eq!(status, 200, "{body}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
pub fn count(frazil: &Frazil, consistency: &str) -> u64 {
    let answer = ask(frazil, &json!({"sql": "SELECT count(*) AS n FROM shop.orders", "consistency": consistency}));
    answer["rows"][0]["n"].as_u64().unwrap()
}

/// Waits until the table is there.
pub fn await_table(frazil: &Frazil) {
    let sql = json!({"sql": "SELECT 1 FROM shop.orders LIMIT 1"});
    eventually("the table answers", MINUTE, || (frazil.post("/api/sql", &sql)?.0 == 200).then_some(()));
}

#[test]
fn rows_are_seen_before_they_are_committed() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("sql_fresh"));
    create_topic(kafka, "sql-fresh", 3, &[]);
    produce_orders(kafka, registry, "sql-fresh", 3, 300);
    let frazil = Frazil::run(&lake.dir, &config(kafka, registry, &lake, "sql-fresh", "1h"), &[], &[]);
    await_table(&frazil);
    eventually("300 rows are seen", MINUTE, || (count(&frazil, "fresh") == 300).then_some(()));
    assert_eq!(count(&frazil, "committed"), 0);
    // A reader of what it wrote names the offsets and waits for them.
    produce_orders(kafka, registry, "sql-fresh", 3, 300);
    let least = json!({"sql-fresh": {"0": 200, "1": 200, "2": 200}});
    let sql = "SELECT kafka_partition p, count(*) n, min(kafka_offset) first, max(kafka_offset) last FROM shop.orders GROUP BY 1 ORDER BY 1";
    let answer = ask(&frazil, &json!({"sql": sql, "at_least": least}));
    let row = |p| json!({"p": p, "n": 200, "first": 0, "last": 199});
    assert_eq!(answer["rows"], json!([row(0), row(1), row(2)]));
    assert_eq!(answer["as_of"]["shop.orders"]["offsets"], least);
    // Filters, projections, expressions and several formats see the same rows.
    let csv = frazil.post_as(
        "/api/sql",
        &json!({"sql": "SELECT DISTINCT customer_id FROM shop.orders WHERE order_id = 7"}),
        "text/csv",
    );
    assert_eq!(csv.unwrap().1.lines().count(), 2);
}

#[test]
fn history_can_be_read_and_no_service_is_needed() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("sql_history"));
    create_topic(kafka, "sql-history", 2, &[]);
    let mut config = config(kafka, registry, &lake, "sql-history", "1s");
    config["server"]["listen"] = format!("127.0.0.1:{}", crate::services::ports(1)).into();
    for _ in 0..2 {
        produce_orders(kafka, registry, "sql-history", 2, 100);
        Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    }
    let file = crate::process::write_config(&lake.path("history.yaml"), &config);
    let sql = |statement: &str| {
        let output = frazil(&["sql", "--json", "-c", file.to_str().unwrap(), statement]);
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(sql("SELECT count(*) n FROM shop.orders")[0]["n"], 200);
    let snapshots =
        sql("SELECT snapshot_id s, rows FROM shop.\"orders$snapshots\" WHERE added_rows > 0 ORDER BY committed_at");
    assert_eq!(snapshots.as_array().unwrap().iter().map(|row| row["rows"].as_u64().unwrap()).max(), Some(200));
    let first = snapshots.as_array().unwrap().iter().find(|row| row["rows"] == 100).unwrap()["s"].as_i64().unwrap();
    assert_eq!(sql(&format!("SELECT count(*) n FROM shop.orders FOR VERSION AS OF {first}"))[0]["n"], 100);
    let both = format!(
        "SELECT (SELECT count(*) FROM shop.orders) - (SELECT count(*) FROM shop.orders FOR VERSION AS OF {first}) n"
    );
    assert_eq!(sql(&both)[0]["n"], 100);
    let files = sql("SELECT sum(rows) n FROM shop.\"orders$files\"");
    assert_eq!(files[0]["n"], 200);
    assert!(sql("SELECT table_name n FROM information_schema.tables").to_string().contains("orders"));
}

#[test]
fn a_query_can_only_read_and_only_so_much() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("sql_guard"));
    create_topic(kafka, "sql-guard", 2, &[]);
    produce_orders(kafka, registry, "sql-guard", 2, 1_000);
    let mut config = config(kafka, registry, &lake, "sql-guard", "300ms");
    config["sql"] = json!({"max_rows": 500});
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_table(&frazil);
    eventually("the rows are there", MINUTE, || (count(&frazil, "committed") == 1_000).then_some(()));
    let refused = |body: Value, wanted: &str| {
        let (status, text) = frazil.post("/api/sql", &body).unwrap();
        assert_eq!(status, 400, "{body}: {text}");
        assert!(text.to_lowercase().contains(wanted), "{body}: {text}");
    };
    for (statement, wanted) in ATTEMPTS {
        refused(json!({"sql": statement}), wanted);
    }
    let big = "SELECT count(*) FROM shop.orders a, shop.orders b, shop.orders c WHERE a.order_id + b.order_id + c.order_id < 0";
    let begun = Instant::now();
    refused(json!({"sql": big, "timeout_ms": 500}), "longer than 500ms");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    refused(json!({"sql": "SELECT array_agg(value) FROM generate_series(1, 100000000)"}), "memory");
    let cut = ask(&frazil, &json!({"sql": "SELECT * FROM shop.orders", "max_rows": 10}));
    assert_eq!((cut["returned"].as_u64(), cut["truncated"].as_bool()), (Some(10), Some(true)));
    let most = ask(&frazil, &json!({"sql": "SELECT * FROM shop.orders", "max_rows": 900}));
    assert_eq!((most["returned"].as_u64(), most["truncated"].as_bool()), (Some(500), Some(true)));
    let whole = ask(&frazil, &json!({"sql": "SELECT order_id FROM shop.orders LIMIT 10", "max_rows": 10}));
    assert_eq!((whole["returned"].as_u64(), whole["truncated"].as_bool()), (Some(10), Some(false)));
    // Nothing of it has hurt.
    assert_eq!(count(&frazil, "fresh"), 1_000);
}

/// Attempts to write, to leave the catalog, and to ask for what is not there, each with a part of its answer.
const ATTEMPTS: [(&str, &str); 64] = [
    ("DELETE FROM shop.orders", "dml"),
    ("UPDATE shop.orders SET order_id = 1", "dml"),
    ("INSERT INTO shop.orders SELECT * FROM shop.orders", "dml"),
    ("INSERT OVERWRITE shop.orders SELECT * FROM shop.orders", ""),
    ("TRUNCATE TABLE shop.orders", ""),
    ("MERGE INTO shop.orders USING shop.orders o ON true WHEN MATCHED THEN DELETE", ""),
    ("DROP TABLE shop.orders", "ddl"),
    ("DROP SCHEMA shop CASCADE", "ddl"),
    ("DROP VIEW shop.orders", "ddl"),
    ("CREATE TABLE shop.t AS SELECT 1", "ddl"),
    ("CREATE TABLE shop.t (a int)", "ddl"),
    ("CREATE VIEW shop.v AS SELECT 1", "ddl"),
    ("CREATE SCHEMA s", "ddl"),
    ("CREATE DATABASE d", "ddl"),
    ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", "ddl"),
    ("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'http://example.com/x'", "ddl"),
    ("CREATE UNBOUNDED EXTERNAL TABLE t STORED AS CSV LOCATION '/tmp/x'", "ddl"),
    ("CREATE FUNCTION f() RETURNS INT RETURN 1", "ddl"),
    ("CREATE INDEX i ON shop.orders (order_id)", ""),
    ("ALTER TABLE shop.orders ADD COLUMN x INT", ""),
    ("COPY shop.orders TO '/tmp/out.parquet'", "dml"),
    ("COPY (SELECT 1) TO '/tmp/out.csv' STORED AS CSV", "dml"),
    ("COPY (SELECT 1) TO 's3://bucket/out.csv'", ""),
    ("EXPLAIN ANALYZE DELETE FROM shop.orders", "dml"),
    ("EXPLAIN DROP TABLE shop.orders", "ddl"),
    ("WITH x AS (SELECT 1) INSERT INTO shop.orders SELECT * FROM x", ""),
    ("SET datafusion.execution.batch_size = 1", "statement"),
    ("SET datafusion.runtime.memory_limit = '100G'", "statement"),
    ("RESET datafusion.execution.batch_size", "statement"),
    ("BEGIN", "statement"),
    ("START TRANSACTION", "statement"),
    ("COMMIT", "statement"),
    ("ROLLBACK", "statement"),
    ("PREPARE p AS SELECT 1", "statement"),
    ("EXECUTE p", ""),
    ("DEALLOCATE p", "statement"),
    ("SELECT 1; SELECT 2", ""),
    ("SELECT 1; DROP TABLE shop.orders", ""),
    ("", ""),
    ("-- nothing", ""),
    ("SELECT", ""),
    ("SELEC 1", ""),
    ("SELECT * FROM '/etc/passwd'", ""),
    ("SELECT * FROM \"/etc/passwd\"", ""),
    ("SELECT * FROM '/etc/hosts.csv'", ""),
    ("SELECT * FROM 'file:///etc/passwd'", ""),
    ("SELECT * FROM 'https://example.com/x.parquet'", ""),
    ("SELECT * FROM 's3://bucket/x.parquet'", ""),
    ("SELECT * FROM read_csv('/etc/passwd')", ""),
    ("SELECT * FROM read_parquet('/tmp/x.parquet')", ""),
    ("SELECT * FROM parquet_metadata('/tmp/x.parquet')", ""),
    ("SELECT pg_read_file('/etc/passwd')", ""),
    ("SELECT load_extension('x')", ""),
    ("SELECT getenv('HOME')", ""),
    ("SELECT sleep(100)", ""),
    ("LOAD DATA INPATH '/etc/passwd' INTO TABLE shop.orders", ""),
    ("ATTACH DATABASE '/tmp/x.db' AS x", ""),
    ("CALL system.rollback('shop.orders', 1)", ""),
    ("GRANT ALL ON shop.orders TO public", ""),
    ("SELECT * FROM shop.ordrs", "there is `shop.orders`"),
    ("SELECT * FROM shop.\"orders$secrets\"", "$snapshots"),
    ("SELECT * FROM shop.orders FOR VERSION AS OF 1", "no snapshot 1"),
    ("SELECT custmer_id FROM shop.orders", "customer_id"),
    ("SELECT 1/0", ""),
];
