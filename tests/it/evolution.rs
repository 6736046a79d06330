//! Schemas that change while records arrive, and records that cannot be rows: what becomes columns, what stops a table,
//! and how it goes on.

use std::path::Path;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::avro::{Encoder, framed};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry, ports};
use crate::verify::Verify;
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(2);

/// Version 1, 2 or 3 of a record with a struct, a list of structs and a map of structs: each version has one optional
/// field more at each of these places.
fn schema(version: usize) -> String {
    let more = |prefix: &str| {
        let field = |n: usize| format!(r#",{{"name":"{prefix}{n}","type":["null","string"],"default":null}}"#);
        (2..=version).map(field).collect::<String>()
    };
    let record = |name: &str| {
        let letter = name.to_lowercase();
        format!(
            r#"{{"type":"record","name":"{name}","fields":[{{"name":"{letter}1","type":"long"}}{}]}}"#,
            more(&letter)
        )
    };
    format!(
        r#"{{"type":"record","name":"Row","fields":[{{"name":"id","type":"long"}},
            {{"name":"one","type":["null",{}]}},
            {{"name":"list","type":{{"type":"array","items":{}}}}},
            {{"name":"map","type":{{"type":"map","values":{}}}}}{}]}}"#,
        record("S"),
        record("L"),
        record("M"),
        more("top")
    )
}

fn row(version: usize, n: i64) -> Avro {
    let more = |prefix: &str| -> Vec<(String, Avro)> {
        let value = |index: usize| {
            if n % 5 == 0 { Avro::Union(0, Box::new(Avro::Null)) } else { text(&format!("{prefix}{index}-{n}")) }
        };
        (2..=version).map(|index| (format!("{prefix}{index}"), value(index))).collect()
    };
    let record = |letter: &str| Avro::Record([vec![(format!("{letter}1"), Avro::Long(n))], more(letter)].concat());
    let one = if n % 7 == 0 { Avro::Union(0, Box::new(Avro::Null)) } else { Avro::Union(1, Box::new(record("s"))) };
    let list = (0..n % 3).map(|_| record("l")).collect();
    let map = (0..n % 2).map(|_| ("k".to_owned(), record("m"))).collect();
    let fields = vec![
        ("id".to_owned(), Avro::Long(n)),
        ("one".to_owned(), one),
        ("list".to_owned(), Avro::Array(list)),
        ("map".to_owned(), Avro::Map(map)),
    ];
    Avro::Record([fields, more("top")].concat())
}

fn text(text: &str) -> Avro {
    Avro::Union(1, Box::new(Avro::String(text.to_owned())))
}

/// The value of a metric, 0 while it is not there.
pub fn metric(frazil: &Frazil, name: &str) -> f64 {
    let (_, body) = frazil.get("/metrics").unwrap_or_default();
    let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until these processes together have committed so many rows.
#[track_caller]
pub fn await_rows(frazil: &[&Frazil], table: &str, rows: f64) {
    let name = format!("frazil_rows_committed_total{{table=\"{table}\"}}");
    eventually(&format!("{rows} rows are committed"), DEADLINE, || {
        (frazil.iter().map(|frazil| metric(frazil, &name)).sum::<f64>() >= rows).then_some(())
    });
}

/// Sends rows `from..to`, their versions in turn.
fn send(producer: &Producer, topic: &str, encoders: &[&Encoder], versions: &[usize], rows: std::ops::Range<i64>) {
    for n in rows {
        let version = versions[usize::try_from(n).unwrap() % versions.len()];
        let value = encoders[version - 1].encode(row(version, n));
        producer.send(
            topic,
            &Record { value: Some(&value), partition: Some(i32::try_from(n / 2 % 4).unwrap()), ..Record::default() },
        );
    }
    producer.flush();
}

#[test]
fn new_fields_become_columns_while_two_replicas_run() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote("evolution_fields"));
    let topic = "evolution-fields";
    create_topic(kafka, topic, 4, &[]);
    let subject = format!("{topic}-value");
    let table = "evolution.fields";
    let tables = json!([{"topic": topic, "table": table, "key": {"columns": "none"}}]);
    let config = lake.config(kafka, registry, topic, &tables);
    let producer = Producer::new(kafka);
    let first = Encoder::register(registry, &subject, &schema(1));
    send(&producer, topic, &[&first], &[1], 0..100);
    let mut one = Frazil::run(&lake.dir, &config, &[], &[]);
    await_rows(&[&one], table, 100.0);

    let second = Encoder::register(registry, &subject, &schema(2));
    send(&producer, topic, &[&first, &second], &[1, 2], 100..200);
    await_rows(&[&one], table, 200.0);

    // Both replicas meet the third version at once, each in partitions of its own.
    let mut other = config.clone();
    other["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
    let two = Frazil::run(&lake.dir, &other, &[], &[]);
    eventually("both replicas have partitions", DEADLINE, || {
        [&one, &two]
            .iter()
            .all(|frazil| metric(frazil, &format!("frazil_rebalances_total{{table=\"{table}\"}}")) > 0.0)
            .then_some(())
    });
    let third = Encoder::register(registry, &subject, &schema(3));
    send(&producer, topic, &[&first, &second, &third], &[3, 1, 2, 3], 200..600);
    await_rows(&[&one, &two], table, 400.0);

    // And after a crash the versions go on in any order.
    one.kill();
    send(&producer, topic, &[&first, &second, &third], &[2, 3, 1], 600..700);
    drop(two);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let verify = Verify::new(kafka, registry, &lake, topic, table).with(&["--key", "none"]);
    assert_eq!(verify.assert_good(), 700);
}

/// What `/readyz` says of a table.
pub fn ready(frazil: &Frazil, table: &str) -> Value {
    let (_, body) = frazil.get("/readyz").unwrap_or_default();
    serde_json::from_str::<Value>(&body).map_or(Value::Null, |body| body["tables"][table].clone())
}

#[track_caller]
fn await_suspended(frazil: &Frazil, table: &str) -> String {
    eventually(&format!("`{table}` is suspended"), DEADLINE, || {
        let health = ready(frazil, table);
        (health["state"] == "suspended").then(|| health["reason"].as_str().unwrap().to_owned())
    })
}

fn simple(field: &str) -> String {
    format!(r#"{{"type":"record","name":"Simple","fields":[{{"name":"a","type":{field}}}]}}"#)
}

fn simple_row(a: Avro) -> Avro {
    Avro::Record(vec![("a".to_owned(), a)])
}

#[test]
fn a_change_of_type_suspends_a_strict_table_alone() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("evolution_type"));
    let (topic, neighbour) = ("evolution-type", "evolution-neighbour");
    create_topic(kafka, topic, 1, &[]);
    create_topic(kafka, neighbour, 1, &[]);
    let long = Encoder::register(registry, &format!("{topic}-value"), &simple("\"long\""));
    let text = Encoder::register(registry, &format!("{topic}-corrupted"), &simple("\"string\""));
    let tables = json!([
        {"topic": topic, "table": "evolution.typed", "key": {"columns": "none"}, "evolution": "strict"},
        {"topic": neighbour, "table": "evolution.neighbour", "key": {"columns": "none"}, "value": {"format": "bytes"}},
    ]);
    let config = lake.config(kafka, registry, topic, &tables);
    let producer = Producer::new(kafka);
    let send = |encoder: &Encoder, value: Avro| {
        producer.send(topic, &Record { value: Some(&encoder.encode(simple_row(value))), ..Record::default() });
        producer.flush();
    };
    (0..10).for_each(|n| send(&long, Avro::Long(n)));
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_rows(&[&frazil], "evolution.typed", 10.0);
    let verify = Verify::new(kafka, registry, &lake, topic, "evolution.typed").with(&["--key", "none"]);
    assert_eq!(verify.assert_good(), 10);
    send(&text, Avro::String("other".to_owned()));
    let reason = await_suspended(&frazil, "evolution.typed");
    assert!(reason.contains("`a`") && reason.contains("string") && reason.contains("long"), "{reason}");

    producer.send(neighbour, &Record { value: Some(b"goes on"), ..Record::default() });
    producer.flush();
    await_rows(&[&frazil], "evolution.neighbour", 1.0);
    drop(frazil);
    // It stays so over a restart, and nothing behind the record was taken or lost.
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_suspended(&frazil, "evolution.typed");
    assert_eq!(metric(&frazil, "frazil_rows_committed_total{table=\"evolution.typed\"}"), 0.0);
}

/// Ten ints, ten longs, five texts, then five of each in turn; the table's answers by `sql`.
fn of_changing_type(evolution: &str, sql: &str) -> Value {
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    let lake = Lake::local(&format!("evolution_{evolution}"));
    let topic = format!("evolution-{evolution}");
    create_topic(kafka, &topic, 1, &[]);
    let register =
        |kind: &str| Encoder::register(registry, &format!("{topic}-{kind}"), &simple(&format!("\"{kind}\"")));
    let (int, long, text) = (register("int"), register("long"), register("string"));
    let producer = Producer::new(kafka);
    let send = |encoder: &Encoder, value: Avro| {
        producer.send(&topic, &Record { value: Some(&encoder.encode(simple_row(value))), ..Record::default() });
    };
    (0..10).for_each(|n| send(&int, Avro::Int(n)));
    producer.flush();
    let tables =
        json!([{"topic": topic, "table": "evolution.typed", "key": {"columns": "none"}, "evolution": evolution}]);
    let config = lake.config(kafka, registry, &topic, &tables);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let great = |n: i64| Avro::Long(n + (1 << 40));
    (10..20).for_each(|n| send(&long, great(n)));
    (20..25).for_each(|n| send(&text, Avro::String(n.to_string())));
    for n in 25..30 {
        send(&int, Avro::Int(n));
        send(&text, Avro::String(n.to_string()));
        send(&long, great(n.into()));
    }
    producer.flush();
    // The second run goes on in the files of the first one's schema.
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let ask = json!({"sql": sql});
    eventually("the table answers", DEADLINE, || {
        let (status, text) = frazil.post("/api/sql", &ask)?;
        (status == 200).then(|| serde_json::from_str::<Value>(&text).unwrap()["rows"].clone())
    })
}

#[test]
fn types_are_promoted_and_what_fits_no_column_is_a_dead_letter() {
    let sql = "SELECT count(*) AS rows, count(a) AS a, max(a) AS greatest, arrow_typeof(max(a)) AS type,
        (SELECT count(*) FROM evolution.typed__dead_letters WHERE error_code = 'incompatible_schema') AS letters
        FROM evolution.typed";
    let greatest = (1_i64 << 40) + 29;
    let expected = json!([{"rows": 30, "a": 30, "greatest": greatest, "type": "Int64", "letters": 10}]);
    assert_eq!(of_changing_type("extend", sql), expected);
}

#[test]
fn a_field_of_another_type_gets_a_column_of_its_own() {
    let sql = "SELECT count(*) AS rows, count(a) AS a, count(a__string) AS a__string,
        count(*) FILTER (WHERE a IS NULL AND a__string IS NULL) AS empty FROM evolution.typed";
    let expected = json!([{"rows": 40, "a": 30, "a__string": 10, "empty": 0}]);
    assert_eq!(of_changing_type("branch", sql), expected);
}

#[test]
fn json_is_found_out_and_nothing_of_it_is_lost() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("evolution_json"));
    let topic = "evolution-json";
    create_topic(kafka, topic, 4, &[]);
    let producer = Producer::new(kafka);
    let send = |rows: std::ops::Range<i64>| {
        for n in rows {
            // Partitions are read side by side, and each brings another type or another member.
            let value = match n % 4 {
                _ if n >= 400 => json!({"id": n, "late": true}),
                0 => json!({"id": n, "price": n}),
                1 => json!({"id": n, "price": n as f64 + 0.5}),
                2 => json!({"id": n, "http": {"status": 200}, "http.status": 200}),
                _ => json!({"id": n, "tags": ["a"], "nested": {"n": n}}),
            };
            let (value, partition) = (value.to_string(), i32::try_from(n % 4).unwrap());
            let record = Record { value: Some(value.as_bytes()), partition: Some(partition), ..Record::default() };
            producer.send(topic, &record);
        }
        producer.flush();
    };
    let tables = json!([{"topic": topic, "table": "evolution.json", "key": {"columns": "none"}}]);
    let config = lake.config(kafka, registry, topic, &tables);
    send(0..400);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    // What was found out stays, whatever comes first after a restart.
    producer.send(topic, &Record { value: Some(b"no json"), partition: Some(0), ..Record::default() });
    send(400..500);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let sql = "SELECT count(*) AS rows, sum(id) AS ids, count(late) AS late, count(nested) AS nested,
        count(*) FILTER (WHERE price IS NOT NULL OR _rescued LIKE '%price%') AS prices,
        count(*) FILTER (WHERE http IS NOT NULL AND _rescued LIKE '%http.status%') AS statuses,
        (SELECT count(*) FROM evolution.json__dead_letters) AS letters FROM evolution.json";
    let ask = json!({"sql": sql});
    let rows = eventually("the table answers", DEADLINE, || {
        let (status, text) = frazil.post("/api/sql", &ask)?;
        (status == 200).then(|| serde_json::from_str::<Value>(&text).unwrap()["rows"].clone())
    });
    let expected = json!([
        {"rows": 500, "ids": 124_750, "late": 100, "nested": 100, "prices": 200, "statuses": 100, "letters": 1}
    ]);
    assert_eq!(rows, expected);
    assert_ne!(ready(&frazil, "evolution.json")["state"], "suspended");
}

/// A topic of one partition: good, bad, good, with `on_error` as given.
fn with_a_bad_record(name: &str, on_error: &str) -> (Lake, Value, String) {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(name));
    let topic = name.replace('_', "-");
    create_topic(kafka, &topic, 1, &[]);
    let encoder = Encoder::register(registry, &format!("{topic}-value"), &simple("\"long\""));
    let producer = Producer::new(kafka);
    for n in 0..30 {
        let mut value = encoder.encode(simple_row(Avro::Long(n)));
        match n {
            10 => value = framed(encoder.id, &[]),
            20 => value = b"\x07garbage".to_vec(),
            _ => {}
        }
        producer.send(&topic, &Record { value: Some(&value), ..Record::default() });
    }
    producer.flush();
    let tables = json!([{"topic": topic, "table": "evolution.bad", "key": {"columns": "none"}, "on_error": on_error}]);
    let config = lake.config(kafka, registry, name, &tables);
    (lake, config, topic)
}

fn resume(dir: &Path, config: &Value, table: &str) {
    let file = write_config(&dir.join("resume.yaml"), config);
    let output = frazil(&["tables", "resume", table, "-c", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn suspend_commits_what_lies_before_and_resumes_with_another_policy() {
    let (lake, mut config, topic) = with_a_bad_record("evolution_suspend", "suspend");
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let reason = await_suspended(&frazil, "evolution.bad");
    assert!(reason.contains("10") && reason.contains("truncated"), "{reason}");
    let verify = Verify::new(kafka, registry, &lake, &topic, "evolution.bad").with(&["--key", "none"]);
    let report = verify.report();
    assert_eq!((report.count("rows"), report.count("extra")), (10, 0), "{report:?}");
    // Resumed without a change it stops at the same record again.
    resume(&lake.dir, &config, "evolution.bad");
    drop(frazil);
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_suspended(&frazil, "evolution.bad");
    assert_eq!(verify.report().count("rows"), 10);
    drop(frazil);
    resume(&lake.dir, &config, "evolution.bad");
    config["tables"][0]["on_error"] = "dead_letter".into();
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let verify = verify.with(&["--dead-letters", "evolution.bad__dead_letters"]);
    assert_eq!(verify.assert_good(), 28);
    assert_eq!(verify.report().count("dead_letters"), 2);
}

#[test]
fn skip_leaves_out_and_counts() {
    let (lake, config, topic) = with_a_bad_record("evolution_skip", "skip");
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_rows(&[&frazil], "evolution.bad", 28.0);
    for reason in ["truncated", "bad_magic_byte"] {
        let name = format!("frazil_skipped_records_total{{reason=\"{reason}\",table=\"evolution.bad\"}}");
        assert_eq!(metric(&frazil, &name), 1.0, "{reason}");
    }
    drop(frazil);
    let verify = Verify::new(Kafka::shared(), Registry::shared(), &lake, &topic, "evolution.bad");
    assert_eq!(verify.with(&["--key", "none", "--skip-rejects"]).assert_good(), 28);
}
