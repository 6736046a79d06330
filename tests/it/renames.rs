//! Renames while records of all versions arrive: one column per field, by whatever name a record has it, at every depth,
//! with two replicas, a crash right after the rename, and files of all names compacted into one. What other engines read
//! of renamed columns, `formats` compares.

use std::time::Duration;

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use crate::avro::Encoder;
use crate::evolution::await_rows;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry, ports};
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(2);
const TABLE: &str = "evolution.renames";

/// Version 1, 2 or 3 of a record: but for `id` each field is called after its version, and has the names that it had
/// as aliases.
fn schema(version: usize) -> String {
    let field = |name: &str, kind: &str| {
        let aliases: Vec<String> = (1..version).map(|before| format!("{name}{before}")).collect();
        format!(r#"{{"name":"{name}{version}","aliases":{aliases:?},"type":{kind}}}"#)
    };
    let record = |name: &str, child: &str| {
        format!(r#"{{"type":"record","name":"{name}","fields":[{}]}}"#, field(child, "\"long\""))
    };
    let list = format!(r#"{{"type":"array","items":{}}}"#, record("L", "l"));
    let map = format!(r#"{{"type":"map","values":{}}}"#, record("M", "m"));
    format!(
        r#"{{"type":"record","name":"Row","fields":[{{"name":"id","type":"long"}},{},{},{},{}]}}"#,
        field("top", "\"long\""),
        field("one", &record("S", "s")),
        field("list", &list),
        field("map", &map),
    )
}

fn row(version: usize, n: i64) -> Avro {
    let name = |name: &str| format!("{name}{version}");
    let record = |child: &str| Avro::Record(vec![(name(child), Avro::Long(n))]);
    Avro::Record(vec![
        ("id".to_owned(), Avro::Long(n)),
        (name("top"), Avro::Long(n)),
        (name("one"), record("s")),
        (name("list"), Avro::Array(vec![record("l")])),
        (name("map"), Avro::Map([("k".to_owned(), record("m"))].into())),
    ])
}

/// Sends rows, their versions in turn.
fn send(producer: &Producer, topic: &str, encoders: &[Encoder], versions: &[usize], rows: std::ops::Range<i64>) {
    for n in rows {
        let version = versions[usize::try_from(n).unwrap() % versions.len()];
        let value = encoders[version - 1].encode(row(version, n));
        let partition = Some(i32::try_from(n / 3 % 4).unwrap());
        producer.send(topic, &Record { value: Some(&value), partition, ..Record::default() });
    }
    producer.flush();
}

/// The table's columns, and the sums of all that is called by `version` now.
fn assert_holds(frazil: &Frazil, version: usize, rows: i64) {
    let sql = format!(
        "SELECT count(*) AS rows, count(DISTINCT id) AS ids, sum(top{version}) AS top, sum(one{version}['s{version}']) AS one,
         sum(list{version}[1]['l{version}']) AS list, sum(map{version}['k']['m{version}']) AS map FROM {TABLE}"
    );
    let ask = |sql: &str| {
        eventually("the table answers", DEADLINE, || {
            let (status, text) = frazil.post("/api/sql", &json!({"sql": sql}))?;
            assert!(status != 400, "{text}");
            (status == 200).then(|| serde_json::from_str::<Value>(&text).unwrap()["rows"].clone())
        })
    };
    let sum = rows * (rows - 1) / 2;
    let expected = json!([{"rows": rows, "ids": rows, "top": sum, "one": sum, "list": sum, "map": sum}]);
    assert_eq!(ask(&sql), expected);
    let first = ask(&format!(
        "SELECT * EXCLUDE (kafka_partition, kafka_headers, kafka_offset, kafka_timestamp) FROM {TABLE} LIMIT 1"
    ));
    let columns: Vec<&String> = first[0].as_object().unwrap().keys().collect();
    let expected = ["top", "one", "list", "map"].map(|name| format!("{name}{version}"));
    assert_eq!(columns[0], "id");
    assert!(columns[1..].iter().copied().eq(&expected), "{columns:?}");
}

#[test]
fn a_field_keeps_its_column_whatever_versions_call_it() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote("evolution_renames"));
    let topic = "evolution-renames";
    create_topic(kafka, topic, 4, &[]);
    let tables = json!([{"topic": topic, "table": TABLE, "key": {"columns": "none"}}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["kafka"]["properties"] = json!({"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"});
    let mut other = config.clone();
    other["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
    let register = |version| Encoder::register(registry, &format!("{topic}-value"), &schema(version));
    let producer = Producer::new(kafka);
    let mut encoders = vec![register(1)];
    send(&producer, topic, &encoders, &[1], 0..99);
    let one = Frazil::run(&lake.dir, &config, &[], &[]);
    await_rows(&[&one], TABLE, 99.0);
    assert_holds(&one, 1, 99);

    // What the second version will do is told before anybody writes it.
    let file = write_config(&lake.path("check.yaml"), &config);
    std::fs::write(lake.path("v2.avsc"), schema(2)).unwrap();
    let v2 = lake.path("v2.avsc");
    let told = frazil(&["check", "--table", TABLE, "--schema", v2.to_str().unwrap(), "-c", file.to_str().unwrap()]);
    let expected = "rename column `top1` to `top2`\nrename column `one1` to `one2`\nrename column `one2.s1` to `s2`\n\
        rename column `list1` to `list2`\nrename column `list2.element.l1` to `l2`\n\
        rename column `map1` to `map2`\nrename column `map2.value.m1` to `m2`\n";
    assert_eq!(String::from_utf8_lossy(&told.stdout), expected, "{}", String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success());

    // Both meet the second version at once; the one that renames first may die of it, before any row has the name.
    encoders.push(register(2));
    let mut two = Frazil::run(&lake.dir, &other, &[], &[("FRAZIL_CRASH_AT", "schema-evolved:1")]);
    send(&producer, topic, &encoders, &[1, 2], 99..300);
    eventually("all rows are there", DEADLINE, || {
        let (status, text) = one.post("/api/sql", &json!({"sql": format!("SELECT count(*) AS n FROM {TABLE}")}))?;
        (status == 200 && serde_json::from_str::<Value>(&text).unwrap()["rows"][0]["n"] == 300).then_some(())
    });
    assert_holds(&one, 2, 300);
    if two.is_running() {
        two.kill();
    }
    let two = Frazil::run(&lake.dir, &other, &[], &[]);
    encoders.push(register(3));
    send(&producer, topic, &encoders, &[3, 1, 2], 300..600);
    drop(one);
    drop(two);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);

    // A restart knows the old names, in any order of versions, and so does compaction.
    send(&producer, topic, &encoders, &[1, 2, 3], 600..699);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let one = Frazil::run(&lake.dir, &config, &[], &[]);
    assert_holds(&one, 3, 699);
    drop(one);
    let file = write_config(&lake.path("maintain.yaml"), &config);
    let output = frazil(&["maintain", TABLE, "--compact", "-c", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let one = Frazil::run(&lake.dir, &config, &[], &[]);
    assert_holds(&one, 3, 699);
}
