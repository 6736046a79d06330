//! Settings that differ from those that a table was made with: that table refuses, the others go on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry};
use crate::verify::Verify;
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(1);

#[test]
fn a_table_made_with_other_settings_refuses_and_the_others_go_on() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("settings"));
    let producer = Producer::new(kafka);
    let topics = ["settings-changed", "settings-kept"];
    let send = || {
        for topic in topics {
            producer.send(topic, &Record { key: Some(b"k"), value: Some(b"v"), ..Record::default() });
        }
        producer.flush();
    };
    topics.iter().for_each(|topic| create_topic(kafka, topic, 1, &[]));
    send();
    let tables = json!([
        {"topic": topics[0], "table": "settings.changed", "value": {"format": "string"}, "partition_by": ["day(kafka_timestamp)"]},
        {"topic": topics[1], "table": "settings.kept", "value": {"format": "string"}},
    ]);
    let mut config = lake.config(kafka, registry, "settings", &tables);
    // Killed members of the group are forgotten soon.
    config["kafka"]["properties"] = json!({"session.timeout.ms": "6000"});
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    send();
    let verify = |topic, table, rows| {
        let verify = Verify::new(kafka, registry, &lake, topic, table).with(&["--value", "string", "--key", "bytes"]);
        assert_eq!(verify.report().count("rows"), rows, "{:?}", verify.report());
    };
    for (setting, changed, words) in [
        (
            "partition_by",
            json!(["hour(kafka_timestamp)"]),
            ["`partition_by`", "`hour(kafka_timestamp)`", "`day(kafka_timestamp)`"],
        ),
        ("metadata_columns", json!({"names": "tableflow"}), ["`metadata_columns.names`", "`tableflow`", "`kafka`"]),
        ("key", json!({"columns": "raw"}), ["`key.columns`", "`raw`", "`flatten`"]),
    ] {
        let kept = config["tables"][0].clone();
        config["tables"][0][setting] = changed;
        let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
        let health = eventually("the changed table stops", DEADLINE, || {
            let (_, body) = frazil.get("/readyz")?;
            let health = serde_json::from_str::<Value>(&body).ok()?["tables"].clone();
            (health["settings.changed"]["state"] == "stopped" && health["settings.kept"]["state"] == "ok")
                .then_some(health)
        });
        let reason = health["settings.changed"]["reason"].as_str().unwrap();
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        config["tables"][0] = kept;
        eventually("the other table goes on", DEADLINE, || {
            let (_, body) = frazil.get("/metrics")?;
            body.contains("frazil_lag_records{partition=\"0\",table=\"settings.kept\",topic=\"settings-kept\"} 0")
                .then_some(())
        });
    }
    verify(topics[0], "settings.changed", 1);
    verify(topics[1], "settings.kept", 2);
    // Set back, it goes on where it was.
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    verify(topics[0], "settings.changed", 2);
}

#[test]
fn partitioning_order_and_topics_can_be_altered() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("settings_alter"));
    let producer = Producer::new(kafka);
    let topics = ["alter-one", "alter-two"];
    topics.iter().for_each(|topic| create_topic(kafka, topic, 1, &[]));
    let send = |topic: &str, numbers: std::ops::Range<i64>| {
        for n in numbers {
            let (key, value) = (format!("k{}", n % 10), format!("v{n}"));
            let record = Record { key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..Record::default() };
            producer.send(topic, &record);
        }
        producer.flush();
    };
    let plain = json!({"format": "string"});
    let tables = json!([{
        "topic": topics[0], "table": "alter.rows", "key": plain, "value": plain,
        "metadata_columns": {"include": ["topic", "partition", "offset", "timestamp"]},
    }]);
    let mut config = lake.config(kafka, registry, "alter", &tables);
    let alter = |config: &Value, more: &[&str]| {
        let file = write_config(&lake.path("alter.yaml"), config);
        let arguments = [&["tables", "alter", "alter.rows", "-c", file.to_str().unwrap()], more].concat();
        let output = frazil(&arguments);
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    send(topics[0], 0..100);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    assert_eq!(alter(&config, &[]), (true, "alter.rows is as the configuration says\n".to_owned()));

    let table = &mut config["tables"][0];
    table["partition_by"] = json!(["bucket(4, key)", "day(kafka_timestamp)"]);
    table["sort_by"] = json!(["value"]);
    table.as_object_mut().unwrap().remove("topic");
    table["topics"] = json!(topics);
    let (done, text) = alter(&config, &["--dry-run"]);
    assert!(done && text.starts_with("alter.rows would be changed:") && text.contains("`partition_by`"), "{text}");
    // Tried only: the service still refuses the table.
    let frazil_run = Frazil::run(&lake.dir, &config, &[], &[]);
    eventually("the changed table stops", DEADLINE, || {
        let (_, body) = frazil_run.get("/readyz")?;
        let health = serde_json::from_str::<Value>(&body).ok()?["tables"]["alter.rows"].clone();
        (health["state"] == "stopped" && health["reason"].as_str()?.contains("frazil tables alter alter.rows"))
            .then_some(())
    });
    drop(frazil_run);
    let (done, text) = alter(&config, &[]);
    assert!(done && text.starts_with("alter.rows was changed:") && text.contains("`topics`"), "{text}");
    send(topics[0], 100..200);
    send(topics[1], 0..100);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    // What decides what columns mean is not altered.
    let mut other = config.clone();
    other["tables"][0]["key"] = json!({"format": "bytes"});
    let (done, text) = alter(&other, &[]);
    assert!(!done && text.contains("cannot be changed so: `key.format`"), "{text}");

    let file = write_config(&lake.path("alter.yaml"), &config);
    let compacted = frazil(&["maintain", "alter.rows", "-c", file.to_str().unwrap()]);
    assert!(compacted.status.success(), "{}", String::from_utf8_lossy(&compacted.stderr));
    let frazil_run = Frazil::run(&lake.dir, &config, &[], &[]);
    let sql = "SELECT count(*) AS rows, count(DISTINCT value) AS v, count(DISTINCT kafka_topic) AS topics,
        count(DISTINCT concat(kafka_topic, '/', kafka_offset)) AS records,
        count(*) FILTER (WHERE key = 'k3') AS k3 FROM alter.rows";
    let rows = eventually("the table answers", DEADLINE, || {
        let (status, text) = frazil_run.post("/api/sql", &json!({"sql": sql}))?;
        (status == 200).then(|| serde_json::from_str::<Value>(&text).unwrap()["rows"].clone())
    });
    assert_eq!(rows, json!([{"rows": 300, "v": 200, "topics": 2, "records": 300, "k3": 30}]));
}
