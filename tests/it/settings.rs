//! Settings that differ from those that a table was made with: that table refuses, the others go on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
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
