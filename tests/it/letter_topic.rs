//! Dead letters in a topic: each of them once, as it came, whoever is killed, fenced or late.

use std::collections::BTreeMap;
use std::time::Duration;

use frazil::runtime::crash::{ANSWER_RECEIVED, LETTERS_IN_TOPIC, LETTERS_SENT};
use rdkafka::Message as _;
use rdkafka::message::Headers as _;
use serde_json::json;

use crate::avro::{Encoder, ORDER, order};
use crate::kafka::{Producer, Record, create_topic, read_all};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry, ports};
use crate::verify::Verify;
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(1);

/// Sends records of which one in three can be read; number 10 of 3 partitions is offset 3 of partition 1.
fn send(topic: &str, good: &Encoder, numbers: std::ops::Range<i64>) {
    let producer = Producer::new(Kafka::shared());
    for n in numbers {
        let (key, about) = (format!("k{n}"), n.to_string());
        let value = if n % 3 == 0 { good.encode(order(n)) } else { format!("garbage {n}").into_bytes() };
        let partition = Some(i32::try_from(n / 3 % 3).unwrap());
        let headers = [("n", Some(about.as_bytes())), ("none", None)];
        let timestamp_ms = Some(1_767_225_600_000 + n);
        let record =
            Record { key: Some(key.as_bytes()), value: Some(&value), partition, timestamp_ms, headers: &headers };
        producer.send(topic, &record);
    }
    producer.flush();
}

#[test]
fn a_topic_has_each_dead_letter_once_whoever_is_killed() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote("letter_topic"));
    let (topic, taker, table) = ("letter-topic", "letter-topic.dead", "letters.sent");
    create_topic(kafka, topic, 3, &[]);
    create_topic(kafka, taker, 2, &[]);
    let good = Encoder::register(registry, &format!("{topic}-value"), ORDER);
    let tables = json!([{"topic": topic, "table": table, "key": {"format": "string"}}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["defaults"]["commit_interval"] = "200ms".into();
    // The group soon forgets members that were killed.
    config["kafka"]["properties"] = json!({"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"});
    config["maintenance"] = json!({"min_files": 2, "interval": "200ms"});
    // The topic is named later: it gets what the table has by then.
    send(topic, &good, 0..90);
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    config["tables"][0]["dead_letter_topic"] = taker.into();
    let mut run = |environment: &[(&str, &str)]| {
        config["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
        (Frazil::run(&lake.dir, &config, &[], environment), config.clone())
    };
    let points =
        [(LETTERS_SENT, 1), (LETTERS_IN_TOPIC, 1), (LETTERS_SENT, 2), (ANSWER_RECEIVED, 2), (LETTERS_IN_TOPIC, 2)];
    let mut sent = 90;
    for (point, passing) in points {
        let (mut frazil, _) = run(&[("FRAZIL_CRASH_AT", &format!("{point}:{passing}"))]);
        eventually("it is killed", DEADLINE, || {
            send(topic, &good, sent..sent + 9);
            sent += 9;
            (!frazil.is_running()).then_some(())
        });
    }
    // Of two, one sends; the other takes over when that one is killed.
    let ((mut one, _), (mut two, config)) = (run(&[]), run(&[]));
    for _ in 0..20 {
        send(topic, &good, sent..sent + 9);
        sent += 9;
    }
    one.kill();
    send(topic, &good, sent..sent + 90);
    sent += 90;
    assert!(two.terminate(DEADLINE).success());
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);

    let dead = format!("{table}__dead_letters");
    let verify = Verify::new(kafka, registry, &lake, topic, table).with(&["--key", "string", "--dead-letters", &dead]);
    assert_eq!(verify.assert_good(), u64::try_from(sent / 3).unwrap());
    let mut found: BTreeMap<i64, u32> = BTreeMap::new();
    for message in read_all(kafka, taker) {
        let headers = message.headers().unwrap();
        let text = |index: usize| headers.get(index).value.map(|value| String::from_utf8(value.to_vec()).unwrap());
        let n: i64 = text(0).unwrap().parse().unwrap();
        *found.entry(n).or_default() += 1;
        assert_eq!(message.key(), Some(format!("k{n}").as_bytes()));
        assert_eq!(message.payload(), Some(format!("garbage {n}").as_bytes()));
        assert_eq!(message.timestamp().to_millis(), Some(1_767_225_600_000 + n));
        assert_eq!((headers.get(1).key, text(1)), ("none", None));
        let about: Vec<(&str, String)> = (2..headers.count()).map(|i| (headers.get(i).key, text(i).unwrap())).collect();
        let about: Vec<(&str, &str)> = about.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let (partition, offset) = ((n / 3 % 3).to_string(), (n / 9 * 3 + n % 3).to_string());
        assert_eq!(about[..2], [("__frazil.errors.table", table), ("__frazil.errors.reason", "bad_magic_byte")]);
        assert!(about[2].0 == "__frazil.errors.message" && !about[2].1.is_empty());
        let place = [
            ("__frazil.errors.topic", topic),
            ("__frazil.errors.partition", partition.as_str()),
            ("__frazil.errors.offset", offset.as_str()),
        ];
        assert_eq!(about[3..], place);
    }
    let expected: BTreeMap<i64, u32> = (0..sent).filter(|n| n % 3 != 0).map(|n| (n, 1)).collect();
    assert_eq!(found, expected);
}
