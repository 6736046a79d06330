//! Several tables from one topic, tables that are made as their first records come, and topics that are found by a
//! pattern: each record is in the table that it belongs to, once, whatever dies.

use std::collections::BTreeMap;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use frazil::runtime::crash::{ANSWER_RECEIVED, REQUEST_SENT, STARTS_RESOLVED, TABLE_CREATED};
use serde_json::{Value, json};

use crate::avro::Encoder;
use crate::evolution::ready;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry, ports};
use crate::verify::Verify;
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(2);

/// The answer to a query about what is committed.
#[track_caller]
fn committed(frazil: &Frazil, sql: &str) -> Value {
    let ask = json!({"sql": sql, "consistency": "committed"});
    eventually("the tables answer", DEADLINE, || {
        let (status, text) = frazil.post("/api/sql", &ask)?;
        assert!(status == 200 || status == 503, "{sql}: {text}");
        (status == 200).then(|| serde_json::from_str::<Value>(&text).unwrap()["rows"].clone())
    })
}

/// Where each record is that a routed table has: partition and offset, table and value.
fn placed(frazil: &Frazil, tables: &[&str]) -> BTreeMap<(i64, i64), (String, String)> {
    let mut all = BTreeMap::new();
    for table in tables {
        let rows = committed(frazil, &format!("SELECT kafka_partition AS p, kafka_offset AS o, value FROM {table}"));
        for row in rows.as_array().unwrap() {
            let at = (row["p"].as_i64().unwrap(), row["o"].as_i64().unwrap());
            let place = ((*table).to_owned(), row["value"].as_str().unwrap().to_owned());
            let before = all.insert(at, place);
            assert_eq!(before, None, "{at:?} is twice, in {table} too");
        }
    }
    all
}

/// Records `from..to`, of types in turn; new types come with higher numbers.
fn send(producer: &Producer, topic: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let to = match n % 7 {
            0 => None,
            1 | 2 => Some("eu-west".to_owned()),
            3 => Some("eu_west".to_owned()),
            _ => Some(format!("t{}", n / 50)),
        };
        let value = format!("{n} {}", to.as_deref().unwrap_or("-"));
        let headers = [("to", to.as_deref().map(str::as_bytes))];
        let record = Record {
            value: Some(value.as_bytes()),
            partition: Some(i32::try_from(n % 3).unwrap()),
            headers: if to.is_some() { &headers } else { &[] },
            ..Record::default()
        };
        producer.send(topic, &record);
    }
    producer.flush();
}

#[test]
fn one_topic_fills_tables_by_header_whoever_is_killed() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote("routing_header"));
    let topic = "routing-header";
    create_topic(kafka, topic, 3, &[]);
    let producer = Producer::new(kafka);
    let plain = json!({"format": "string"});
    let tables = json!([
        {"topic": topic, "table": "routing.by_{header:to}", "key": {"columns": "none"}, "value": plain},
        // The same topic once more, whole: what it has is compared with the topic, and the others with it.
        {"topic": topic, "table": "routing.whole", "key": {"columns": "none"}, "value": plain},
    ]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["defaults"]["commit_interval"] = "200ms".into();
    send(&producer, topic, 0..100);
    let run = |config: &mut Value, environment: &[(&str, &str)]| {
        config["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
        Frazil::run(&lake.dir, config, &[], environment)
    };
    // Killed before a new table's first commit, after it, and at some commit of theirs, while new values keep coming.
    let points = [
        format!("{TABLE_CREATED}:1"),
        format!("{STARTS_RESOLVED}:1"),
        format!("{TABLE_CREATED}:2"),
        format!("{STARTS_RESOLVED}:2"),
        format!("{ANSWER_RECEIVED}:6"),
        format!("{REQUEST_SENT}:9"),
    ];
    for (round, point) in points.iter().enumerate() {
        let mut frazil = run(&mut config, &[("FRAZIL_CRASH_AT", point.as_str())]);
        send(&producer, topic, 100 + round * 100..200 + round * 100);
        eventually("it is killed", DEADLINE, || (!frazil.is_running()).then_some(()));
    }
    // Two replicas meet the same new values, each in partitions of its own.
    let (mut one, mut two) = (run(&mut config, &[]), run(&mut config, &[]));
    send(&producer, topic, 700..900);
    one.kill();
    send(&producer, topic, 900..1000);
    assert!(two.terminate(DEADLINE).success());
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);

    let verify =
        Verify::new(kafka, registry, &lake, topic, "routing.whole").with(&["--key", "none", "--value", "string"]);
    assert_eq!(verify.assert_good(), 1000);
    let frazil = run(&mut config, &[]);
    let listed =
        committed(&frazil, "SELECT table_name AS t FROM information_schema.tables WHERE table_schema = 'routing'");
    let names = listed.as_array().unwrap().iter().map(|row| row["t"].as_str().unwrap().to_owned());
    let routed: Vec<String> = names
        .filter(|name| name.starts_with("by_") && !name.contains('$') && !name.ends_with("__dead_letters"))
        .collect();
    let tables: Vec<String> = routed.iter().map(|name| format!("routing.{name}")).collect();
    let placed = placed(&frazil, &tables.iter().map(String::as_str).collect::<Vec<_>>());
    let whole = committed(&frazil, "SELECT kafka_partition AS p, kafka_offset AS o, value FROM routing.whole");
    assert_eq!(placed.len(), whole.as_array().unwrap().len());
    // Values that make one name have a table each; which of them has the plain name is decided once.
    let mut table_of = BTreeMap::new();
    for row in whole.as_array().unwrap() {
        let at = (row["p"].as_i64().unwrap(), row["o"].as_i64().unwrap());
        let (table, value) = &placed[&at];
        assert_eq!(row["value"], **value);
        let to = value.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(table_of.entry(to).or_insert_with(|| table.clone()), table, "{value}");
    }
    assert_eq!(table_of["-"], "routing.by__unrouted");
    assert_eq!(table_of["t3"], "routing.by_t3");
    let (west, east) = (&table_of["eu-west"], &table_of["eu_west"]);
    assert!(west != east && [west, east].iter().any(|name| **name == "routing.by_eu_west"), "{west} {east}");
    assert_eq!(table_of.len(), 3 + 20);
}

#[test]
fn records_of_each_type_get_a_table_of_their_own() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("routing_names"));
    let topic = "routing-names";
    create_topic(kafka, topic, 2, &[]);
    let schema = |name: &str, field: &str| {
        format!(
            r#"{{"type":"record","name":"{name}","namespace":"com.acme","fields":[{{"name":"{field}","type":"long"}}]}}"#
        )
    };
    let register =
        |name: &str, field: &str| Encoder::register(registry, &format!("com.acme.{name}"), &schema(name, field));
    let (order, item) = (register("Order", "amount"), register("Item", "weight"));
    let producer = Producer::new(kafka);
    let send = |encoder: &Encoder, field: &str, numbers: std::ops::Range<i64>| {
        for n in numbers {
            let value = encoder.encode(Avro::Record(vec![(field.to_owned(), Avro::Long(n))]));
            let partition = Some(i32::try_from(n % 2).unwrap());
            producer.send(topic, &Record { value: Some(&value), partition, ..Record::default() });
        }
        producer.flush();
    };
    let tables = json!([{"topic": topic, "table": "names.{record_name}", "key": {"columns": "none"}}]);
    let config = lake.config(kafka, registry, topic, &tables);
    send(&order, "amount", 0..50);
    send(&item, "weight", 0..30);
    producer.send(topic, &Record { value: Some(b"\x00\x7f\xff\xff\xffno such schema"), ..Record::default() });
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    send(&order, "amount", 50..70);
    let parcel = register("Parcel", "length");
    send(&parcel, "length", 0..10);
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    // Seen before it is committed, as every table's rows are.
    let fresh = json!({"sql": "SELECT sum(length) AS s FROM names.\"Parcel\""});
    eventually("the new type's table answers", DEADLINE, || {
        let (status, text) = frazil.post("/api/sql", &fresh)?;
        (status == 200 && text.contains("45")).then_some(())
    });
    let sums = "SELECT (SELECT sum(amount) FROM names.\"Order\") AS amounts, (SELECT count(*) FROM names.\"Order\") AS orders,
        (SELECT sum(weight) FROM names.\"Item\") AS weights, (SELECT count(*) FROM names.routing_names__unrouted) AS unrouted,
        (SELECT count(*) FROM names.routing_names__unrouted__dead_letters) AS letters";
    let expected = json!([{"amounts": 2415, "orders": 70, "weights": 435, "unrouted": 0, "letters": 1}]);
    eventually("all is committed", DEADLINE, || (committed(&frazil, sums) == expected).then_some(()));
    assert_eq!(ready(&frazil, "names.Parcel")["state"], "ok");
}

#[test]
fn topics_of_a_pattern_are_taken_as_they_appear() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("routing_pattern"));
    let producer = Producer::new(kafka);
    let send = |topic: &str, numbers: std::ops::Range<i64>| {
        for n in numbers {
            producer.send(topic, &Record { value: Some(n.to_string().as_bytes()), ..Record::default() });
        }
        producer.flush();
    };
    let plain = json!({"format": "string"});
    let tables = json!([
        {"topic_pattern": "^routing-pattern-one-", "table": "pattern.{topic}", "key": {"columns": "none"}, "value": plain},
        {"topic_pattern": "^routing-pattern-all-", "table": "pattern.gathered", "key": {"columns": "none"}, "value": plain},
    ]);
    let config = lake.config(kafka, registry, "routing-pattern", &tables);
    for topic in ["routing-pattern-one-a", "routing-pattern-all-a"] {
        create_topic(kafka, topic, 1, &[]);
        send(topic, 0..10);
    }
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    for topic in ["routing-pattern-one-b", "routing-pattern-all-b"] {
        create_topic(kafka, topic, 1, &[]);
        send(topic, 10..30);
    }
    send("routing-pattern-one-a", 10..15);
    let sums = "SELECT (SELECT count(*) FROM pattern.routing_pattern_one_a) AS a, (SELECT count(*) FROM pattern.routing_pattern_one_b) AS b,
        (SELECT count(*) FROM pattern.gathered) AS gathered, (SELECT count(DISTINCT kafka_topic) FROM pattern.gathered) AS topics";
    let expected = json!([{"a": 15, "b": 20, "gathered": 30, "topics": 2}]);
    eventually("the new topics are committed", DEADLINE, || {
        let (status, text) = frazil.post("/api/sql", &json!({"sql": sums, "consistency": "committed"}))?;
        (status == 200 && serde_json::from_str::<Value>(&text).unwrap()["rows"] == expected).then_some(())
    });
}

#[test]
fn records_go_by_a_field_whatever_its_type() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("routing_field"));
    let (json, avro) = ("routing-field-json", "routing-field-avro");
    let producer = Producer::new(kafka);
    let send = |topic: &str, n: usize, value: &[u8]| {
        let partition = Some(i32::try_from(n % 2).unwrap());
        producer.send(topic, &Record { value: Some(value), partition, ..Record::default() });
    };
    let kinds = [json!("eu"), json!(7), json!(true), Value::Null, json!({"a": 1}), json!("west side"), json!(1.5)];
    let of_json = |numbers: std::ops::Range<usize>| {
        for n in numbers {
            let mut record = json!({"n": n, "who": {"kind": kinds[n % kinds.len()]}});
            if n % 8 == 7 {
                record["who"] = "nobody".into();
            }
            send(json, n, record.to_string().as_bytes());
        }
    };
    let schema = |kind: &str| {
        format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"n","type":"long"}},{{"name":"who","type":{{"type":"record",
                "name":"W","fields":[{{"name":"kind","type":"{kind}"}}]}}}}]}}"#
        )
    };
    let text = Encoder::register(registry, &format!("{avro}-value"), &schema("string"));
    let number = Encoder::register(registry, &format!("{avro}-other"), &schema("int"));
    let of_avro = |numbers: std::ops::Range<usize>| {
        for n in numbers {
            let (encoder, kind) = match n % 3 {
                0 => (&text, Avro::String("eu".to_owned())),
                1 => (&text, Avro::String("7".to_owned())),
                _ => (&number, Avro::Int(7)),
            };
            let who = Avro::Record(vec![("kind".to_owned(), kind)]);
            let fields = vec![("n".to_owned(), Avro::Long(n.try_into().unwrap())), ("who".to_owned(), who)];
            send(avro, n, &encoder.encode(Avro::Record(fields)));
        }
    };
    let tables = json!([
        {"topic": json, "table": "fields.j_{field:who.kind}", "key": {"columns": "none"}, "value": {"format": "json"}},
        {"topic": avro, "table": "fields.a_{field:who.kind}", "key": {"columns": "none"}, "evolution": "branch"},
    ]);
    let config = lake.config(kafka, registry, json, &tables);
    for topic in [json, avro] {
        create_topic(kafka, topic, 2, &[]);
    }
    // The second run begins with values of another type than the first one.
    for (of_json_to, of_avro_to, from) in [(29, 29, 0), (70, 60, 29)] {
        of_json(from..of_json_to);
        of_avro(from..of_avro_to);
        producer.flush();
        Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    }
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let numbers = |table: &str| -> Vec<usize> {
        let rows = committed(&frazil, &format!("SELECT n FROM fields.{table} ORDER BY n"));
        rows.as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap().try_into().unwrap()).collect()
    };
    let is_kind = |n: &usize, kind: usize| n % 8 != 7 && n % kinds.len() == kind;
    for (table, kind) in [("j_eu", 0), ("j_7", 1), ("j_true", 2), ("j_west_side", 5)] {
        assert_eq!(numbers(table), (0..70).filter(|n| is_kind(n, kind)).collect::<Vec<_>>(), "{table}");
    }
    let unrouted = |n: &usize| n % 8 == 7 || [3, 4, 6].contains(&(n % kinds.len()));
    assert_eq!(numbers("j__unrouted"), (0..70).filter(unrouted).collect::<Vec<_>>());
    assert_eq!(numbers("a_eu"), (0..60).filter(|n| n % 3 == 0).collect::<Vec<_>>());
    assert_eq!(numbers("a_7"), (0..60).filter(|n| n % 3 != 0).collect::<Vec<_>>());
}
