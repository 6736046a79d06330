//! Iceberg's format 3: instants of nanoseconds, defaults of columns that were added, and rows that keep their ids, as
//! DuckDB, PyIceberg and Spark find them.

use std::ops::Range;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use apache_avro::{Decimal, Schema, to_avro_datum};
use serde_json::{Value, json};

use crate::avro::{framed, register};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Postgres, Registry, spark_copies};
use crate::verify::Verify;
use crate::wait::eventually;

const TABLE: &str = "shop.readings";
/// The same without instants: of nanoseconds neither DuckDB nor Spark has any.
const PLAIN: &str = "shop.plain";
const TOPIC: &str = "format3-readings";
const MINUTE: Duration = Duration::from_mins(1);
const EPOCH_NANOS: i64 = 1_767_225_600_000_000_000;

/// The first version of a record, or the second with what was added.
fn schema(version: usize) -> String {
    let added = r#",{"name":"grade","type":"int","default":7},
        {"name":"label","type":"string","default":"none"},
        {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":6,"scale":2},"default":"\u00ff8"},
        {"name":"extra","type":["null","string"],"default":null}"#;
    format!(
        r#"{{"type":"record","name":"Reading","fields":[{{"name":"id","type":"long"}},
            {{"name":"at","type":{{"type":"long","logicalType":"timestamp-nanos"}}}},
            {{"name":"local_at","type":{{"type":"long","logicalType":"local-timestamp-nanos"}}}}{}]}}"#,
        if version == 1 { "" } else { added }
    )
}

fn send(version: usize, numbers: Range<i64>) {
    let id = register(Registry::shared(), &format!("{TOPIC}-value"), &schema(version));
    // The library takes no text for a default of bytes; what it writes does not depend on it.
    let schema = Schema::parse_str(&schema(version).replace(r#","default":"\u00ff8""#, "")).unwrap();
    let producer = Producer::new(Kafka::shared());
    for n in numbers {
        let nanos = EPOCH_NANOS + n * 1_000_000_007;
        let mut fields = vec![
            ("id", Avro::Long(n)),
            ("at", Avro::TimestampNanos(nanos)),
            ("local_at", Avro::LocalTimestampNanos(nanos + 1)),
        ];
        if version == 2 {
            let extra = match n % 2 {
                0 => Avro::Union(1, Box::new(Avro::String(format!("extra {n}")))),
                _ => Avro::Union(0, Box::new(Avro::Null)),
            };
            fields.extend([
                ("grade", Avro::Int(i32::try_from(n).unwrap())),
                ("label", Avro::String(format!("label {n}"))),
                ("price", Avro::Decimal(Decimal::from(n.to_be_bytes()))),
                ("extra", extra),
            ]);
        }
        let record = Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let value = framed(id, &to_avro_datum(&schema, record).unwrap());
        let partition = Some(i32::try_from(n % 2).unwrap());
        producer.send(TOPIC, &Record { value: Some(&value), partition, ..Record::default() });
    }
    producer.flush();
}

#[track_caller]
fn assert_no_faults(verify: &Verify<'_>, arguments: &[&str]) -> Value {
    let output = verify.python("format3.py", arguments);
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("format3.py: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(found["faults"], json!([]), "{arguments:?}");
    found
}

fn snapshot(frazil: &Frazil, table: &str) -> (i64, Value) {
    let (_, text) = frazil.get(&format!("/iceberg/v1/namespaces/shop/tables/{table}")).unwrap();
    let metadata = serde_json::from_str::<Value>(&text).unwrap()["metadata"].clone();
    (metadata["current-snapshot-id"].as_i64().unwrap(), metadata)
}

/// Merges files and manifests of both tables until each has one file in a partition.
fn maintain(lake: &Lake, mut config: Value) {
    config["maintenance"] = json!({"min_files": 2});
    let file = write_config(&lake.path("maintain.yaml"), &config);
    let arguments = ["maintain", TABLE, PLAIN, "--compact", "--manifests", "--json", "-c", file.to_str().unwrap()];
    let output = frazil(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for table in report["tables"].as_array().unwrap() {
        assert_eq!(table["health"]["data_files"], 2, "{report:#}");
    }
}

#[test]
fn nanoseconds_defaults_and_row_ids_as_engines_read_them() {
    let (kafka, registry, mut lake) = (Kafka::shared(), Registry::shared(), Lake::local("format3"));
    // Beside the service a command maintains the table.
    lake.catalog = Postgres::shared().database("format3");
    create_topic(kafka, TOPIC, 2, &[]);
    let table = json!({"topic": TOPIC, "table": TABLE, "partition_by": ["bucket(2, id)", "hour(at)"]});
    let plain = json!({"topic": TOPIC, "table": PLAIN, "partition_by": ["bucket(2, id)"], "columns": {"exclude": ["at", "local_at"]}});
    let mut config = lake.config(kafka, registry, "format3", &json!([table, plain]));
    config["defaults"]["format_version"] = 3.into();
    config["defaults"]["key"] = json!({"format": "none"});
    config["defaults"]["commit_interval"] = "300ms".into();
    let service = Frazil::run(&lake.dir, &config, &["--roles", "ingest,serve"], &[]);
    let committed = |rows: u64| {
        for table in [TABLE, PLAIN] {
            eventually(&format!("{rows} rows of {table} are committed"), MINUTE, || {
                (service.metric("frazil_rows_committed_total", table)? >= rows).then_some(())
            });
        }
    };
    send(1, 0..60);
    committed(60);
    send(1, 60..100);
    committed(100);
    send(2, 100..200);
    committed(200);
    // Records of the first version that come later have the defaults too.
    send(1, 200..220);
    committed(220);

    let verify = Verify::new(kafka, registry, &lake, TOPIC, TABLE);
    let verify_plain = Verify::new(kafka, registry, &lake, TOPIC, PLAIN);
    let both_are_read = || {
        assert_no_faults(&verify, &["--do", "rows", "--engine", "pyiceberg"]);
        assert_no_faults(&verify_plain, &["--do", "rows", "--engine", "duckdb,pyiceberg"]);
    };
    both_are_read();
    let (before, metadata) = snapshot(&service, "plain");
    for metadata in [metadata, snapshot(&service, "readings").1] {
        assert_eq!((&metadata["format-version"], &metadata["next-row-id"]), (&json!(3), &json!(220)));
    }
    let ask = |sql: &str| {
        let (status, text) = service.post("/api/sql", &json!({"sql": sql})).unwrap();
        assert_eq!(status, 200, "{sql}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["rows"].clone()
    };
    let by_grade = "SELECT count(*) AS n, count(DISTINCT at) AS times, min(price) = -2.00 AS is_price, \
                    count(extra) AS extras FROM shop.readings WHERE grade = 7 AND label = 'none'";
    let defaults = json!([{"n": 120, "times": 120, "is_price": true, "extras": 0}]);
    assert_eq!(ask(by_grade), defaults);
    let nanos = "SELECT id FROM shop.readings WHERE at = TIMESTAMP '2026-01-01T00:00:03.000000021Z'";
    assert_eq!(ask(nanos), json!([{"id": 3}]));

    maintain(&lake, config.clone());
    both_are_read();
    assert_eq!(ask(by_grade), defaults);

    let tables = [format!("{PLAIN}@{before}+lineage"), format!("{PLAIN}+lineage"), PLAIN.to_owned()];
    let uri = format!("uri=http://{}/iceberg", config["server"]["listen"].as_str().unwrap());
    let copies = spark_copies(&tables.each_ref().map(String::as_str), &[&uri]);
    let copies = copies.to_str().unwrap();
    assert_no_faults(&verify_plain, &["--do", "rows", "--engine", "spark", "--spark", copies]);
    let before = before.to_string();
    let found = assert_no_faults(&verify_plain, &["--do", "lineage", "--spark", copies, "--before", &before]);
    assert!(found["numbers"].as_array().unwrap().len() >= 4, "each commit's own: {found}");
}
