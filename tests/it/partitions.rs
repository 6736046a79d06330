//! Partition transforms and sort order: values against PyIceberg's own transforms, filters that prune by them, and a
//! backfill over many values.

use std::time::Duration;

use apache_avro::Decimal;
use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::avro::Encoder;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};
use crate::verify::Verify;

const DEADLINE: Duration = Duration::from_mins(3);

const SCHEMA: &str = r#"{"type":"record","name":"Row","fields":[
    {"name":"i","type":["null","int"]},
    {"name":"l","type":["null","long"]},
    {"name":"s","type":["null","string"]},
    {"name":"d","type":["null",{"type":"int","logicalType":"date"}]},
    {"name":"ts","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
    {"name":"local","type":["null",{"type":"long","logicalType":"local-timestamp-micros"}]},
    {"name":"dec","type":["null",{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}]},
    {"name":"b","type":["null","bytes"]},
    {"name":"u","type":["null",{"type":"string","logicalType":"uuid"}]},
    {"name":"flag","type":["null","boolean"]}]}"#;

/// The `n`th row: every seventh value of a column is null, half of the numbers and times lie below zero.
fn row(n: i64) -> Avro {
    let sign = if n % 2 == 0 { 1 } else { -1 };
    let (number, day) = (sign * n * 37, sign * n * 11);
    let micros = day * 86_400_000_000 + n * 3_723_000_001;
    let letters = ["", "a", "ab", "abc", "ß水🦀x", "水水水水", "zebra", "zealous"];
    let text = letters[usize::try_from(n % 8).unwrap()];
    let values = [
        ("i", Avro::Int(i32::try_from(number).unwrap())),
        ("l", Avro::Long(number * 1_000_000_007)),
        ("s", Avro::String(text.to_owned())),
        ("d", Avro::Date(i32::try_from(day).unwrap())),
        ("ts", Avro::TimestampMicros(micros)),
        ("local", Avro::LocalTimestampMicros(-micros)),
        ("dec", Avro::Decimal(Decimal::from((number * 101).to_be_bytes()))),
        ("b", Avro::Bytes([text.as_bytes(), &[0xff, 0]].concat())),
        ("u", Avro::Uuid(uuid::Uuid::from_u64_pair(n.cast_unsigned().rotate_right(3), 7))),
        ("flag", Avro::Boolean(n % 3 == 0)),
    ];
    let fields = values.into_iter().enumerate().map(|(at, (name, value))| {
        let null = (n + i64::try_from(at).unwrap()) % 7 == 0;
        let value = if null { Avro::Union(0, Box::new(Avro::Null)) } else { Avro::Union(1, Box::new(value)) };
        (name.to_owned(), value)
    });
    Avro::Record(fields.collect())
}

/// Makes a topic of `rows` rows for each table given, verifies each by content, by filters and by its partition values;
/// gives what `partitions.py` found, by table.
fn partitioned(name: &str, rows: i64, tables: &[(&str, Value)]) -> Vec<Value> {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(name));
    let topic = |table: &str| format!("{name}-{table}").replace('_', "-");
    let producer = Producer::new(kafka);
    for (table, _) in tables {
        create_topic(kafka, &topic(table), 2, &[]);
        let encoder = Encoder::register(registry, &format!("{}-value", topic(table)), SCHEMA);
        for n in 0..rows {
            producer.send(
                &topic(table),
                &Record {
                    value: Some(&encoder.encode(row(n))),
                    partition: Some(i32::try_from(n % 2).unwrap()),
                    timestamp_ms: Some(1_767_225_600_000 + n * 1_800_000),
                    ..Record::default()
                },
            );
        }
    }
    producer.flush();
    let entries = tables.iter().map(|(table, more)| {
        let mut entry = json!({"topic": topic(table), "table": format!("parts.{table}"), "key": {"columns": "none"}});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    });
    let config = lake.config(kafka, registry, name, &entries.collect());
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let found = tables.iter().map(|(table, _)| {
        let name = format!("parts.{table}");
        let verify = Verify::new(kafka, registry, &lake, &topic(table), &name).with(&["--key", "none"]);
        assert_eq!(verify.assert_good(), u64::try_from(rows).unwrap(), "{name}");
        let run = |script: &str| {
            let output = verify.python(script, &[]);
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
            let found: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(found["faults"], json!([]), "{script} on {name}");
            found
        };
        let found = run("partitions.py");
        if rows <= 200 {
            run("pruning.py");
        }
        found
    });
    found.collect()
}

/// A table of 60 rows by the transforms given: both its partition values and what filters find by them are right.
fn transformed(name: &str, fields: &[&str]) {
    let found = partitioned(&format!("by_{name}"), 60, &[(name, json!({"partition_by": fields}))]);
    assert_eq!(found[0]["fields"].as_array().unwrap().len(), fields.len(), "{found:?}");
    assert!(found[0]["values"].as_u64().unwrap() > 1, "{found:?}");
}

/// One test for each way of partitioning: they run beside each other.
macro_rules! transforms {
    ($($name:ident: $fields:expr;)*) => {
        mod transforms {
            $(#[test]
            fn $name() {
                super::transformed(stringify!($name), &$fields);
            })*
        }
    };
}

transforms! {
    identity: ["s", "flag"];
    identity_number: ["i"];
    identity_date: ["d"];
    identity_decimal: ["dec"];
    year: ["year(ts)", "year(d)"];
    month: ["month(d)"];
    day: ["day(ts)"];
    hour: ["hour(local)"];
    bucket: ["bucket(7, l)", "bucket(3, s)"];
    bucket_more: ["bucket(5, dec)", "bucket(4, u)"];
    bucket_times: ["bucket(5, ts)", "bucket(4, d)", "bucket(3, b)", "bucket(2, i)"];
    truncate: ["truncate(3, s)", "truncate(50, i)"];
    truncate_more: ["truncate(1000, dec)", "truncate(2, b)"];
    truncate_long: ["truncate(1000000000, l)"];
    metadata: ["day(kafka_timestamp)", "kafka_partition"];
}

#[test]
fn rows_are_sorted_inside_their_files() {
    let tables = [
        ("one", json!({"sort_by": ["l"], "partition_by": ["bucket(2, i)"]})),
        ("two", json!({"sort_by": ["flag", "s", "ts"]})),
    ];
    let found = partitioned("partitions_sorted", 200, &tables);
    assert_eq!(found[0]["order"], json!(["l"]));
    assert_eq!(found[1]["order"], json!(["flag", "s", "ts"]));
    for found in found {
        assert_eq!(found["unsorted"], 0, "{found}");
    }
}

#[test]
fn a_backfill_over_thousands_of_values_makes_few_files_each() {
    let found = partitioned("partitions_backfill", 6_000, &[("many", json!({"partition_by": ["truncate(111, i)"]}))]);
    let (files, values) = (found[0]["files"].as_u64().unwrap(), found[0]["values"].as_u64().unwrap());
    assert!(values >= 2_000, "{values} partition values");
    assert!(files <= 3 * values, "{files} files for {values} partition values");
}
