//! Which columns and rows of its records a table gets: chosen and renamed fields, and a filter, over kills, schemas that
//! evolve and other processes that answer; every record is a row, a dead letter or left out.

use std::ops::Range;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use frazil::runtime::crash::{ANSWER_RECEIVED, FILES_UPLOADED, REQUEST_SENT, SCHEMA_EVOLVED};
use serde_json::{Value, json};

use crate::avro::Encoder;
use crate::evolution::ready;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry, ports};
use crate::sql::ask;
use crate::verify::Verify;
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(1);
const PARTITIONS: i64 = 4;

/// What is to become of a record.
enum Fate {
    Row(Value),
    /// A dead letter with this message.
    Letter(&'static str),
    LeftOut,
}

/// Version 1 or 2 of a record; of what the second one brings the table is to have `added`.
fn schema(version: usize) -> String {
    let more =
        ["", r#",{"name":"added","type":["null","string"],"default":null},{"name":"other","type":"long","default":0}"#];
    format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"id","type":"long"}},{{"name":"bucket","type":"int"}},
            {{"name":"status","type":["null","string"]}},
            {{"name":"who","type":{{"type":"record","name":"W","fields":[{{"name":"name","type":"string"}},
            {{"name":"mail","type":"string"}}]}}}},{{"name":"secret","type":"string"}}{}]}}"#,
        more[version - 1]
    )
}

fn status(n: i64) -> Option<&'static str> {
    [None, Some("test"), Some("paid"), Some("sent"), Some("paid")][usize::try_from(n % 5).unwrap()]
}

fn text(text: Option<&str>) -> Avro {
    text.map_or_else(|| Avro::Union(0, Avro::Null.into()), |text| Avro::Union(1, Avro::String(text.to_owned()).into()))
}

fn avro(version: usize, n: i64) -> Avro {
    let string = |text: &str| Avro::String(format!("{text}-{n}"));
    let who = [("name", string("n")), ("mail", string("m"))].map(|(name, value)| (name.to_owned(), value));
    let mut fields = vec![
        ("id", Avro::Long(n)),
        ("bucket", Avro::Int(i32::try_from(n % 7).unwrap())),
        ("status", text(status(n))),
        ("who", Avro::Record(who.into())),
        ("secret", string("s")),
    ];
    if version == 2 {
        fields.extend([("added", text(Some("new"))), ("other", Avro::Long(n))]);
    }
    Avro::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The same record as JSON; the first know no status, and of some the bucket is no number.
fn members(n: i64) -> Value {
    let mut record = json!({
        "id": n, "bucket": n % 7, "who": {"name": format!("n-{n}"), "mail": format!("m-{n}")}, "secret": "s", "any": [n],
    });
    if n >= 40 && n % 11 == 0 {
        record["bucket"] = "none".into();
        record["who"]["more"] = json!({"mail": n});
    }
    if let Some(status) = status(n).filter(|_| n >= 40) {
        record["status"] = status.into();
    }
    if n >= 200 {
        record["added"] = "new".into();
        record["other"] = n.into();
    }
    record
}

fn partition(n: i64) -> i32 {
    i32::try_from(n % PARTITIONS).unwrap()
}

/// Sends the values of these numbers, each to its partition: number 9 of 4 partitions is offset 2 of partition 1.
fn send(topic: &str, numbers: Range<i64>, value: impl Fn(i64) -> Vec<u8>) {
    let producer = Producer::new(Kafka::shared());
    for n in numbers {
        let value = value(n);
        producer.send(topic, &Record { value: Some(&value), partition: Some(partition(n)), ..Record::default() });
    }
    producer.flush();
}

/// A configuration whose group soon forgets members that were killed.
fn config(lake: &Lake, topic: &str, tables: &Value) -> Value {
    let mut config = lake.config(Kafka::shared(), Registry::shared(), topic, tables);
    config["kafka"]["properties"] = json!({"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"});
    config
}

/// Compares table and dead letters with what is to become of each number, as other engines read them.
#[track_caller]
fn check(lake: &Lake, topic: &str, table: &str, columns: &[&str], numbers: Range<i64>, fate: impl Fn(i64) -> Fate) {
    let letters_in = format!("{table}__dead_letters");
    let verify = Verify::new(Kafka::shared(), Registry::shared(), lake, topic, table);
    let output = verify.with(&["--dead-letters", &letters_in]).python("kept.py", &[]);
    assert!(output.status.success(), "kept.py: {}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut numbers: Vec<i64> = numbers.collect();
    numbers.sort_by_key(|n| (n % PARTITIONS, n / PARTITIONS));
    let (mut rows, mut letters) = (Vec::new(), Vec::new());
    for n in numbers {
        match fate(n) {
            Fate::Row(mut row) => {
                row["kafka_partition"] = partition(n).into();
                row["kafka_offset"] = (n / PARTITIONS).into();
                rows.push(row);
            }
            Fate::Letter(message) => {
                letters.push(json!(["filter_undecided", message, partition(n), n / PARTITIONS]));
            }
            Fate::LeftOut => {}
        }
    }
    for engine in ["duckdb", "pyiceberg"] {
        let found = &found["engines"][engine];
        assert_eq!(found["columns"], json!(columns), "{engine}");
        let found = found["rows"].as_array().unwrap();
        if let Some((found, row)) = found.iter().zip(&rows).find(|(found, row)| found != row) {
            panic!("{engine}: {found} is to be {row}");
        }
        assert_eq!(found.len(), rows.len(), "{engine}");
    }
    assert_eq!(found["letters"], json!(letters));
}

fn fate_of_avro(version: usize, n: i64) -> Fate {
    match (status(n), n % 7) {
        (Some("test"), _) => Fate::LeftOut,
        (_, 0) => Fate::Letter("`where` divides by zero"),
        (None, _) => Fate::Letter("`where` is null"),
        (status, bucket) => Fate::Row(json!({
            "order_id": n, "bucket": bucket, "status": status, "who": {"name": format!("n-{n}")},
            "later": (version == 2).then_some("new"),
        })),
    }
}

fn tables(topic: &str) -> Value {
    json!([{
        "topic": topic, "table": "rows.avro", "key": {"columns": "none"}, "commit_interval": "300ms",
        "metadata_columns": {"include": ["partition", "offset"]}, "sort_by": ["order_id"],
        "columns": {
            "include": ["id", "bucket", "status", "who", "added"], "exclude": ["who.mail"],
            "rename": {"id": "order_id", "added": "later"},
        },
        "where": "status <> 'test' AND 100 / bucket > kafka_partition",
    }])
}

#[test]
fn chosen_columns_and_rows_outlive_kills_and_evolution() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote("rows_avro"));
    let topic = "rows-avro";
    create_topic(kafka, topic, PARTITIONS.try_into().unwrap(), &[]);
    let subject = format!("{topic}-value");
    let first = Encoder::register(registry, &subject, &schema(1));
    let mut config = config(&lake, topic, &tables(topic));
    let version = |n: i64| if n >= 200 && n % 2 == 0 { 2 } else { 1 };
    send(topic, 0..200, |n| first.encode(avro(1, n)));
    // `added` is not known yet, which is nothing to stop at; the filter's columns are.
    let dies_at = |point: &str| {
        let armed = format!("{point}:1");
        let mut frazil = Frazil::run(&lake.dir, &config, &[], &[("FRAZIL_CRASH_AT", &armed)]);
        let status = frazil.wait(DEADLINE);
        assert!(!status.success(), "`{point}` was not met");
    };
    dies_at(FILES_UPLOADED);
    dies_at(REQUEST_SENT);
    let second = Encoder::register(registry, &subject, &schema(2));
    send(topic, 200..400, |n| if version(n) == 2 { second.encode(avro(2, n)) } else { first.encode(avro(1, n)) });
    dies_at(SCHEMA_EVOLVED);
    dies_at(ANSWER_RECEIVED);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let columns = ["order_id", "bucket", "status", "who", "later", "kafka_partition", "kafka_offset"];
    check(&lake, topic, "rows.avro", &columns, 0..400, |n| fate_of_avro(version(n), n));

    // Rows and fields may be chosen otherwise from here on; what columns are called may not.
    config["tables"][0]["where"] = "status = 'paid' IS TRUE".into();
    config["tables"][0]["columns"]["exclude"] = json!(["who"]);
    config["tables"][0]["columns"]["include"] = Value::Null;
    send(topic, 400..480, |n| second.encode(avro(2, n)));
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let columns =
        ["order_id", "bucket", "status", "who", "later", "secret", "other", "kafka_partition", "kafka_offset"];
    check(&lake, topic, "rows.avro", &columns, 0..480, |n| {
        let mut fate = match (n, status(n)) {
            (..400, _) => fate_of_avro(version(n), n),
            (_, Some("paid")) => Fate::Row(json!({
                "order_id": n, "bucket": n % 7, "status": "paid", "who": null, "later": "new",
            })),
            _ => Fate::LeftOut,
        };
        if let Fate::Row(row) = &mut fate {
            row["secret"] = if n < 400 { Value::Null } else { format!("s-{n}").into() };
            row["other"] = if n < 400 { Value::Null } else { n.into() };
        }
        fate
    });
    config["tables"][0]["columns"]["rename"]["id"] = "number".into();
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let reason = await_stopped(&frazil);
    assert!(reason.contains("`columns.rename`") && reason.contains("`added: later, id: order_id`"), "{reason}");
}

#[track_caller]
fn await_stopped(frazil: &Frazil) -> String {
    eventually("the table stops", DEADLINE, || {
        let health = ready(frazil, "rows.avro");
        (health["state"] == "stopped").then(|| health["reason"].as_str().unwrap().to_owned())
    })
}

#[test]
fn json_has_what_is_chosen_and_rescues_nothing_else() {
    let (kafka, lake) = (Kafka::shared(), Lake::local("rows_json"));
    let topic = "rows-json";
    create_topic(kafka, topic, PARTITIONS.try_into().unwrap(), &[]);
    let tables = json!([{
        "topic": topic, "table": "rows.json", "key": {"columns": "none"}, "value": {"format": "json"},
        "metadata_columns": {"include": ["partition", "offset"]},
        "columns": {"exclude": ["secret", "other", "who.mail", "who.more.mail", "any"], "rename": {"id": "number"}},
        "where": "status <> 'test' AND NUMBER >= 0",
    }]);
    let config = config(&lake, topic, &tables);
    let encode = |n: i64| members(n).to_string().into_bytes();
    // No record has a status yet, nor any the column: each is what it would be if there were one.
    send(topic, 0..40, encode);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    send(topic, 40..200, encode);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let left = || frazil.metric("frazil_filtered_records_total", "rows.json").filter(|left| *left >= 32);
    assert_eq!(eventually("records are left out", DEADLINE, left), 32);
    frazil.kill();
    send(topic, 200..400, encode);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let columns = ["number", "bucket", "who", "status", "added", "_rescued", "kafka_partition", "kafka_offset"];
    check(&lake, topic, "rows.json", &columns, 0..400, |n| match status(n).filter(|_| n >= 40) {
        Some("test") => Fate::LeftOut,
        None => Fate::Letter("`where` is null"),
        status => Fate::Row(json!({
            "number": n, "bucket": (n % 11 != 0).then_some(n % 7), "who": {"name": format!("n-{n}")},
            "status": status, "added": (n >= 200).then_some("new"),
            "_rescued": (n % 11 == 0).then_some(r#"{"bucket":"none","who":{"more":{}}}"#),
        })),
    });
}

#[test]
fn fresh_answers_have_the_rows_that_the_table_will_have() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("rows_fresh"));
    let topic = "rows-fresh";
    create_topic(kafka, topic, PARTITIONS.try_into().unwrap(), &[]);
    let encoder = Encoder::register(registry, &format!("{topic}-value"), &schema(1));
    let mut tables = tables(topic);
    tables[0]["commit_interval"] = "1h".into();
    let config = config(&lake, topic, &tables);
    send(topic, 0..200, |n| encoder.encode(avro(1, n)));
    let run = |roles: &str| {
        let mut config = config.clone();
        config["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
        Frazil::run(&lake.dir, &config, &["--roles", roles], &[])
    };
    // One fills the table, the other only reads, and is in no group.
    let mut processes = [run("ingest,serve"), run("serve")];
    let expected: Vec<i64> = (0..200).filter(|n| matches!(fate_of_avro(1, *n), Fate::Row(_))).collect();
    let sql = "SELECT order_id FROM rows.avro ORDER BY 1";
    let numbers = |answer: &Value| -> Vec<i64> {
        answer["rows"].as_array().unwrap().iter().map(|row| row["order_id"].as_i64().unwrap()).collect()
    };
    for frazil in &processes {
        let fresh = json!({"sql": sql, "consistency": "fresh"});
        eventually("all rows are seen", DEADLINE, || {
            let (status, text) = frazil.post("/api/sql", &fresh)?;
            let answer: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
            (numbers(&answer) == expected).then_some(())
        });
        // Nothing but these, and records that are left out are read all the same.
        let least = json!({topic: {"0": 50, "1": 50, "2": 50, "3": 50}});
        assert_eq!(numbers(&ask(frazil, &json!({"sql": sql, "at_least": least}))), expected);
        assert!(numbers(&ask(frazil, &json!({"sql": sql, "consistency": "committed"}))).is_empty());
    }
    assert!(processes[0].terminate(DEADLINE).success());
    let columns = ["order_id", "bucket", "status", "who", "kafka_partition", "kafka_offset"];
    check(&lake, topic, "rows.avro", &columns, 0..200, |n| match fate_of_avro(1, n) {
        Fate::Row(mut row) => {
            row.as_object_mut().unwrap().remove("later");
            Fate::Row(row)
        }
        fate => fate,
    });
}

#[test]
fn a_filter_that_cannot_be_right_is_refused_before_the_first_record() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("rows_refused"));
    let topic = "rows-refused";
    create_topic(kafka, topic, PARTITIONS.try_into().unwrap(), &[]);
    let subject = format!("{topic}-value");
    let first = Encoder::register(registry, &subject, &schema(1));
    send(topic, 0..40, |n| first.encode(avro(1, n)));
    let with_filter = |filter: &str| {
        let mut tables = tables(topic);
        tables[0]["where"] = filter.into();
        config(&lake, topic, &tables)
    };
    let checked = |config: &Value| {
        let file = write_config(&lake.path("check.yaml"), config);
        let output = frazil(&["check", "-c", file.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let config = with_filter("random() > 0.5");
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    assert_eq!(frazil.wait(DEADLINE).code(), Some(1));
    assert!(frazil.log().contains("`random` does not always answer the same"), "{}", frazil.log());
    let (code, text) = checked(&config);
    assert!(code == Some(1) && text.contains("`random` does not always answer the same"), "{text}");

    // A field that no schema has: the table waits for the schema.
    let config = with_filter("later = 'new' IS TRUE");
    let (code, text) = checked(&config);
    assert!(
        code == Some(1) && text.contains("filter of table `rows.avro`: neither table nor schema has `later`"),
        "{text}"
    );
    assert!(text.contains("warning  columns of table `rows.avro`: no field is called `added`"), "{text}");
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    assert!(await_stopped(&frazil).contains("names `later`, which neither table nor schema has"));
    let second = Encoder::register(registry, &subject, &schema(2));
    eventually("the table begins", DEADLINE, || (ready(&frazil, "rows.avro")["state"] == "ok").then_some(()));
    drop(frazil);
    send(topic, 40..80, |n| second.encode(avro(2, n)));
    let (code, text) = checked(&config);
    assert!(code == Some(0) && text.contains("ok       filter of table `rows.avro`: later = 'new' IS TRUE"), "{text}");
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let columns = ["order_id", "bucket", "status", "who", "later", "kafka_partition", "kafka_offset"];
    check(&lake, topic, "rows.avro", &columns, 0..80, |n| match n {
        ..40 => Fate::LeftOut,
        _ => Fate::Row(json!({
            "order_id": n, "bucket": n % 7, "status": status(n), "who": {"name": format!("n-{n}")}, "later": "new",
        })),
    });
}

#[test]
fn a_column_that_the_filter_cannot_be_asked_of_suspends_the_table() {
    let (kafka, lake) = (Kafka::shared(), Lake::local("rows_misfit"));
    let topic = "rows-misfit";
    create_topic(kafka, topic, PARTITIONS.try_into().unwrap(), &[]);
    let tables = |filter: &str| {
        json!([{
            "topic": topic, "table": "rows.avro", "key": {"columns": "none"}, "value": {"format": "json"}, "where": filter,
            "metadata_columns": {"include": ["partition", "offset"]},
        }])
    };
    let mut running = Frazil::run(&lake.dir, &config(&lake, topic, &tables("amount > 10")), &[], &[]);
    send(topic, 0..1, |_| br#"{"amount":{"cents":5}}"#.to_vec());
    let reason = eventually("the table is suspended", DEADLINE, || {
        let health = ready(&running, "rows.avro");
        (health["state"] == "suspended").then(|| health["reason"].as_str().unwrap().to_owned())
    });
    assert!(reason.contains("`where` cannot be `amount > 10`"), "{reason}");
    assert!(running.terminate(DEADLINE).success());
    // No record was decided by a condition that says nothing; all are once it does.
    let config = config(&lake, topic, &tables("amount.cents > 3"));
    let file = write_config(&lake.path("resume.yaml"), &config);
    let output = frazil(&["tables", "resume", "rows.avro", "-c", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let columns = ["amount", "_rescued", "kafka_partition", "kafka_offset"];
    check(&lake, topic, "rows.avro", &columns, 0..1, |_| Fate::Row(json!({"amount": {"cents": 5}, "_rescued": null})));
}
