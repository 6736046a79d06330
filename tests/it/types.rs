//! Every type, key mode and naming scheme, from another encoder's bytes to the rows that other engines read.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry};
use crate::verify::Verify;

const DEADLINE: Duration = Duration::from_mins(2);
const ROWS: u64 = 96;

/// Produces `tests/verify/everything.py` in three parts with a commit each and verifies the table by content, and by
/// filters whose answers depend on the statistics. Gives what `pruning.py` found.
fn everything(name: &str, key: Option<&str>, table: Value, verify_with: &[&str]) -> Value {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(name));
    let topic = name.replace('_', "-");
    create_topic(kafka, &topic, 2, &[]);
    let verify = Verify::new(kafka, registry, &lake, &topic, "types.everything").with(verify_with);
    let mut entry = json!({"topic": topic, "table": "types.everything"});
    entry.as_object_mut().unwrap().extend(table.as_object().unwrap().clone());
    let config = lake.config(kafka, registry, name, &json!([entry]));
    let key: Vec<&str> = key.map_or_else(Vec::new, |key| vec!["--key", key]);
    for part in ["0/3", "1/3", "2/3"] {
        let producer = Verify::new(kafka, registry, &lake, &topic, "types.everything");
        let output = producer.python("everything.py", &[&key[..], &["--part", part]].concat());
        assert!(output.status.success(), "everything.py: {}", String::from_utf8_lossy(&output.stderr));
        Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    }
    assert_eq!(verify.assert_good(), ROWS);
    let output = verify.python("pruning.py", &[]);
    assert!(output.status.success(), "pruning.py: {}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["faults"], json!([]), "filters do not give the rows that match");
    assert!(found["files"].as_u64().unwrap() >= 3, "nothing to prune: {found}");
    assert_compacted_alike(&lake, &config, &verify);
    found
}

/// Compaction decodes and encodes every type once more: rows and bounds stay.
fn assert_compacted_alike(lake: &Lake, config: &Value, verify: &Verify<'_>) {
    let mut config = config.clone();
    config["maintenance"] = json!({"min_files": 2});
    let file = write_config(&lake.path("compact.yaml"), &config);
    let output = frazil(&["maintain", "types.everything", "--compact", "--json", "-c", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["tables"][0]["health"]["data_files"], 1, "{report:#}");
    assert_eq!(verify.assert_good(), ROWS);
    let output = verify.python("pruning.py", &[]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["faults"], json!([]), "filters do not give the rows that match");
}

#[test]
fn every_type_comes_out_as_it_went_in() {
    let found = everything("types_everything", None, json!({}), &["--key", "bytes"]);
    // Nothing but nulls has no bounds, and what begins with the greatest of all characters has no upper one.
    assert_eq!(found["unbounded"], json!(["maybe_string", "null_last"]));
    assert_eq!(found["required"], json!([]));
}

#[test]
fn tableflow_names_and_a_string_key() {
    let names = json!({"metadata_columns": {"names": "tableflow"}});
    everything("types_tableflow", Some("string"), names, &["--key", "registry", "--names", "tableflow"]);
}

#[test]
fn portable_names_and_a_long_key() {
    let names = json!({"metadata_columns": {"names": "tableflow-portable"}});
    everything("types_portable", Some("long"), names, &["--key", "registry", "--names", "tableflow-portable"]);
}

#[test]
fn times_as_text_and_a_record_key_flattened() {
    let table = json!({"time_as": "string", "key": {"format": "registry", "columns": "flatten"}});
    everything("types_time_text", Some("record"), table, &["--key", "registry", "--time-as", "string"]);
}

#[test]
fn times_as_time_and_a_record_key_as_struct() {
    let table = json!({"time_as": "time", "key": {"format": "auto", "columns": "struct"}});
    everything("types_time", Some("record"), table, &["--key", "registry", "--key-struct", "--time-as", "time"]);
}

#[test]
fn required_fields_as_written_and_a_raw_key() {
    let table = json!({"nullability": "as_written", "key": {"columns": "raw"}});
    let found = everything("types_as_written", Some("record"), table, &["--key", "bytes"]);
    let required: Vec<_> = found["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["boolean", "decimal_wide", "uuid", "one_branch", "case_2"] {
        assert!(required.contains(&name), "`{name}` is not required");
    }
    for name in ["key", "maybe_boolean", "null_last", "kafka_offset"] {
        assert!(!required.contains(&name), "`{name}` is required");
    }
}

#[test]
fn all_metadata_and_no_key() {
    let all = "topic,partition,headers,leader_epoch,offset,timestamp,timestamp_type,raw_key,raw_value";
    let include: Vec<_> = all.split(',').collect();
    let table = json!({"key": {"columns": "none"}, "metadata_columns": {"names": "kafka", "include": include}});
    everything("types_metadata", Some("string"), table, &["--key", "none", "--include", all]);
}

/// A topic of plain values, keys and headers, tombstones among them, read as `format`.
fn plain(name: &str, format: &str, values: &[&[u8]]) {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(name));
    let topic = name.replace('_', "-");
    create_topic(kafka, &topic, 1, &[]);
    let producer = Producer::new(kafka);
    for value in values {
        producer.send(&topic, &Record { key: Some(b"k"), value: Some(value), ..Record::default() });
        producer.send(&topic, &Record { value: Some(value), ..Record::default() });
    }
    producer.send(&topic, &Record { key: Some(b""), ..Record::default() });
    producer.flush();
    let tables =
        json!([{"topic": topic, "table": "types.plain", "key": {"format": "string"}, "value": {"format": format}}]);
    Frazil::until_caught_up(&lake.dir, &lake.config(kafka, registry, name, &tables), DEADLINE);
    let verify = Verify::new(kafka, registry, &lake, &topic, "types.plain");
    let verify = verify.with(&["--key", "string", "--value", format, "--dead-letters", "types.plain__dead_letters"]);
    let good = if format == "string" {
        values.iter().filter(|value| std::str::from_utf8(value).is_ok()).count()
    } else {
        values.len()
    };
    let report = verify.report();
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.count("rows"), 2 * good as u64 + 1);
    assert_eq!(report.count("dead_letters"), 2 * (values.len() - good) as u64);
}

#[test]
fn strings_are_one_column() {
    plain("types_string", "string", &[b"", "ß水🦀".as_bytes(), b"\0", b"\xff not text", &[b'x'; 100_000]]);
}

#[test]
fn bytes_are_one_column() {
    plain("types_bytes", "bytes", &[b"", "ß水🦀".as_bytes(), b"\0", b"\xff\xfe", &[0xff; 100_000]]);
}

#[test]
fn a_key_beside_a_field_called_key() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("types_key_key"));
    let topic = "types-key-key";
    create_topic(kafka, topic, 1, &[]);
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"key","type":"long"},{"name":"b","type":"string"}]}"#;
    let encoder = crate::avro::Encoder::register(registry, &format!("{topic}-value"), schema);
    let producer = Producer::new(kafka);
    for n in 0..20 {
        let fields =
            [("key", apache_avro::types::Value::Long(n)), ("b", apache_avro::types::Value::String(n.to_string()))];
        let value = encoder.encode(apache_avro::types::Value::Record(fields.map(|(k, v)| (k.to_owned(), v)).into()));
        producer
            .send(topic, &Record { key: Some(format!("k{n}").as_bytes()), value: Some(&value), ..Record::default() });
    }
    producer.flush();
    let tables = json!([{"topic": topic, "table": "types.clash", "key": {"format": "string"}}]);
    Frazil::until_caught_up(&lake.dir, &lake.config(kafka, registry, "types-key-key", &tables), DEADLINE);
    let verify = Verify::new(kafka, registry, &lake, topic, "types.clash").with(&["--key", "string"]);
    assert_eq!(verify.assert_good(), 20);
}
