//! Records that cannot be rows, schemas that cannot be columns, and a topic that is not there.

use std::time::Duration;

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::avro::{Encoder, ORDER, framed, order, register};
use crate::evolution::{await_rows, metric, ready};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry};
use crate::smoke::produce_orders;
use crate::verify::Verify;
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(2);

/// Sends a value without key.
fn send(producer: &Producer, topic: &str, value: &[u8]) {
    producer.send(topic, &Record { value: Some(value), ..Record::default() });
}

/// A topic of good orders with a bad record between each two of them; gives the bad ones' reasons.
fn produce_mixed(topic: &str) -> Vec<&'static str> {
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    create_topic(kafka, topic, 1, &[("max.message.bytes", "33554432")]);
    let orders = Encoder::register(registry, &format!("{topic}-value"), ORDER);
    let list = r#"{"type":"record","name":"L","fields":[{"name":"list","type":{"type":"array","items":"long"}}]}"#;
    let list = register(registry, &format!("{topic}-list"), list);
    let good = orders.encode(order(1));
    let Avro::Record(mut fields) = order(2) else { unreachable!() };
    fields[2].1 = Avro::String("x".repeat(20_000_000));
    let two_to_the_63rd = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let bad = [
        ("bad_magic_byte", b"garbage".to_vec()),
        ("bad_magic_byte", [&[1], &good[1..]].concat()),
        ("bad_magic_byte", vec![0xff; 300]),
        ("truncated", Vec::new()),
        ("truncated", vec![0]),
        ("truncated", good[..4].to_vec()),
        ("truncated", good[..5].to_vec()),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("truncated", [&good[..], b"x"].concat()),
        ("truncated", framed(list, &two_to_the_63rd)),
        ("unknown_schema_id", framed(999_999, &good[5..])),
        ("too_large", orders.encode(Avro::Record(fields))),
    ];
    let producer = Producer::new(kafka);
    for (_, value) in &bad {
        send(&producer, topic, &good);
        send(&producer, topic, value);
    }
    send(&producer, topic, &good);
    producer.flush();
    bad.map(|(reason, _)| reason).into()
}

#[test]
fn bad_records_are_dead_letters_among_good_ones() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bad_input"));
    let topics = ["bad-strict", "bad-roomy"];
    let reasons = topics.map(produce_mixed);
    let tables = json!([
        {"topic": topics[0], "table": "bad.strict", "key": {"columns": "none"}},
        {"topic": topics[1], "table": "bad.roomy", "key": {"columns": "none"}, "max_record_bytes": "32MiB"},
    ]);
    let config = lake.config(kafka, registry, "bad-input", &tables);
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    for reason in &reasons[0] {
        let count = reasons[0].iter().filter(|other| *other == reason).count() as f64;
        let name = format!("frazil_dead_letters_total{{reason=\"{reason}\",table=\"bad.strict\"}}");
        eventually(&format!("{count} dead letters are {reason}"), DEADLINE, || {
            (metric(&frazil, &name) == count).then_some(())
        });
    }
    drop(frazil);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    for (topic, table, rows, letters, decodable) in
        [(topics[0], "bad.strict", 13, 12, "1"), (topics[1], "bad.roomy", 14, 11, "0")]
    {
        let dead = format!("{table}__dead_letters");
        let verify = Verify::new(kafka, registry, &lake, topic, table);
        // The list's field is a column although none of its records is a row.
        let verify = verify.with(&["--key", "none", "--dead-letters", &dead, "--good-dead-letters", decodable]);
        let verify = verify.with(&["--ignore", "list"]);
        assert_eq!(verify.assert_good(), rows, "{table}");
        assert_eq!(verify.report().count("dead_letters"), letters, "{table}");
    }
}

#[test]
fn schemas_that_fit_no_column_are_dead_letters_with_the_field_named() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bad_schemas"));
    let topic = "bad-schemas";
    create_topic(kafka, topic, 1, &[]);
    let record = |kind: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{kind}}}]}}"#);
    let row = |value: Avro| Avro::Record(vec![("a".to_owned(), value)]);
    let register = |name: &str, kind: &str| Encoder::register(registry, &format!("{topic}-{name}"), &record(kind));
    let good = register("value", "\"long\"");
    let text = register("text", "\"string\"");
    let list = register("list", r#"{"type":"array","items":"long"}"#);
    let producer = Producer::new(kafka);
    for n in 0..5 {
        send(&producer, topic, &text.encode(row(Avro::String("x".to_owned()))));
        send(&producer, topic, &good.encode(row(Avro::Long(n))));
        send(&producer, topic, &list.encode(row(Avro::Array(vec![Avro::Long(n)]))));
    }
    producer.flush();
    let tables = json!([{"topic": topic, "table": "bad.schemas", "key": {"columns": "none"}}]);
    let config = lake.config(kafka, registry, topic, &tables);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let letters = Verify::new(kafka, registry, &lake, topic, "bad.schemas__dead_letters").python("letters.py", &[]);
    let letters: Value = serde_json::from_slice(&letters.stdout).unwrap();
    let letters = letters.as_array().unwrap();
    assert_eq!(letters.len(), 10);
    for words in [["`a`", "string"], ["`a`", "list<long>"]] {
        let found = letters.iter().filter(|letter| {
            let message = letter["message"].as_str().unwrap();
            letter["code"] == "incompatible_schema" && words.iter().all(|word| message.contains(word))
        });
        assert_eq!(found.count(), 5, "{words:?} in {letters:?}");
    }
    let file = write_config(&lake.path("describe.yaml"), &config);
    let output = frazil(&["tables", "describe", "bad.schemas", "--json", "-c", file.to_str().unwrap()]);
    let table: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(table["rows"], 5, "{table}");
}

#[test]
fn a_topic_that_is_not_there_yet_is_waited_for() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("bad_topic"));
    let (topic, neighbour) = ("bad-topic-late", "bad-topic-neighbour");
    create_topic(kafka, neighbour, 1, &[]);
    let tables = json!([
        {"topic": topic, "table": "bad.late", "key": {"format": "string"}},
        {"topic": neighbour, "table": "bad.neighbour", "key": {"format": "string"}},
    ]);
    let config = lake.config(kafka, registry, topic, &tables);
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let error = eventually("the table waits for its topic", DEADLINE, || {
        let health = ready(&frazil, "bad.late");
        (health["state"] == "waiting" && health["on"] == "kafka").then(|| health["error"].as_str().unwrap().to_owned())
    });
    assert!(error.contains(topic), "{error}");
    assert_eq!(frazil.get("/readyz").unwrap().0, 503);
    produce_orders(kafka, registry, neighbour, 1, 50);
    await_rows(&[&frazil], "bad.neighbour", 50.0);
    create_topic(kafka, topic, 3, &[]);
    produce_orders(kafka, registry, topic, 3, 300);
    await_rows(&[&frazil], "bad.late", 300.0);
    eventually("all tables are ready", DEADLINE, || (frazil.get("/readyz")?.0 == 200).then_some(()));
    drop(frazil);
    let verify = Verify::new(kafka, registry, &lake, topic, "bad.late").with(&["--key", "string"]);
    assert_eq!(verify.assert_good(), 300);
}
