//! What the broker leaves between records: aborted transactions, control records, open transactions, compaction.

use std::time::Duration;

use serde_json::json;

use crate::avro::{Encoder, ORDER, order};
use crate::kafka::{Producer, Record, count_records, create_topic, watermarks};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};
use crate::verify::Verify;
use crate::wait::eventually;

const MINUTE: Duration = Duration::from_mins(1);

/// A topic, its table, and what makes rows of it.
struct Scene {
    topic: &'static str,
    lake: Lake,
    config: serde_json::Value,
    orders: Encoder,
}

impl Scene {
    fn new(topic: &'static str, partitions: i32, properties: &[(&str, &str)]) -> Self {
        let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(topic));
        create_topic(kafka, topic, partitions, properties);
        let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}}]);
        let config = lake.config(kafka, registry, topic, &tables);
        let orders = Encoder::register(registry, &format!("{topic}-value"), ORDER);
        Self { topic, lake, config, orders }
    }

    fn send(&self, producer: &Producer, partition: i32, n: i64) {
        let (key, value) = (format!("customer-{}", n % 50), self.orders.encode(order(n)));
        let (key, value) = (Some(key.as_bytes()), Some(&value[..]));
        producer.send(self.topic, &Record { key, value, partition: Some(partition), ..Record::default() });
    }

    fn tombstone(&self, producer: &Producer, partition: i32, n: i64) {
        let key = format!("customer-{}", n % 50);
        let record = Record { key: Some(key.as_bytes()), partition: Some(partition), ..Record::default() };
        producer.send(self.topic, &record);
    }

    #[track_caller]
    fn catch_up(&self) {
        Frazil::until_caught_up(&self.lake.dir, &self.config, MINUTE);
    }

    fn verify(&self) -> Verify<'_> {
        let verify = Verify::new(Kafka::shared(), Registry::shared(), &self.lake, self.topic, "shop.orders");
        verify.with(&["--key", "string"])
    }
}

#[test]
fn transactions_of_several_producers_interleave() {
    let scene = Scene::new("interleaved", 3, &[]);
    let kafka = Kafka::shared();
    let producers = ["one", "two", "three"].map(|id| Producer::transactional(kafka, &format!("interleaved-{id}")));
    let plain = Producer::new(kafka);
    let mut frazil = Frazil::run(&scene.lake.dir, &scene.config, &[], &[]);
    let mut n = 0;
    for round in 0..30 {
        producers.iter().for_each(Producer::begin);
        // The last producer's transactions span several rounds' worth of fetches.
        for count in [7, 20, 300] {
            for producer in &producers {
                for _ in 0..count {
                    scene.send(producer, i32::try_from(n % 3).unwrap(), n);
                    n += 1;
                }
            }
            scene.send(&plain, round % 3, n);
            n += 1;
        }
        plain.flush();
        for (i, producer) in producers.iter().enumerate() {
            if (usize::try_from(round).unwrap() + i) % 3 == 0 { producer.commit() } else { producer.abort() }
        }
    }
    assert!(frazil.terminate(MINUTE).success());
    scene.catch_up();
    assert_eq!(scene.verify().assert_good(), 30 * (7 + 20 + 300) + 30 * 3);
}

#[test]
fn a_topic_of_aborted_transactions_and_tombstones_is_read_once() {
    let scene = Scene::new("hollow", 3, &[]);
    let kafka = Kafka::shared();
    let producer = Producer::transactional(kafka, "hollow");
    let plain = Producer::new(kafka);
    for _ in 0..10 {
        producer.begin();
        (0..100).for_each(|n| scene.send(&producer, 0, n));
        (0..10).for_each(|n| scene.tombstone(&producer, 1, n));
        producer.abort();
        (0..10).for_each(|n| scene.tombstone(&plain, 2, n));
    }
    plain.flush();
    let metadata_files = || scene.lake.files(".metadata.json");
    scene.catch_up();
    // The verifier knows columns from the values that it finds, and there are none; Frazil asks the registry.
    let columns: serde_json::Value = serde_json::from_str(ORDER).unwrap();
    let columns: Vec<_> =
        columns["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    let ignored: Vec<_> = columns.iter().flat_map(|column| ["--ignore", column]).collect();
    assert_eq!(scene.verify().with(&ignored).assert_good(), 10 * 10, "the tombstones that nobody aborted");
    // The ledger is behind everything, aborted records and control records too: there is nothing left to commit.
    let before = metadata_files();
    assert!(!before.is_empty());
    scene.catch_up();
    assert_eq!(metadata_files(), before);
    let running = Frazil::run(&scene.lake.dir, &scene.config, &[], &[]);
    for partition in 0..3 {
        let label = format!("partition=\"{partition}\"");
        eventually("no lag is shown", MINUTE, || (running.metric("frazil_lag_records", &label)? == 0).then_some(()));
    }
    assert_eq!(running.metric("frazil_records_polled_total", ""), Some(0));
}

#[test]
fn an_open_transaction_bounds_what_is_caught_up() {
    let scene = Scene::new("hung", 1, &[]);
    let kafka = Kafka::shared();
    let (plain, hung) = (Producer::new(kafka), Producer::transactional(kafka, "hung"));
    (0..100).for_each(|n| scene.send(&plain, 0, n));
    plain.flush();
    hung.begin();
    (100..110).for_each(|n| scene.send(&hung, 0, n));
    hung.flush();
    (110..160).for_each(|n| scene.send(&plain, 0, n));
    plain.flush();
    assert_eq!(watermarks(kafka, scene.topic, 0), (0, 100));
    scene.catch_up();
    assert_eq!(scene.verify().assert_good(), 100);
    hung.commit();
    scene.catch_up();
    assert_eq!(scene.verify().assert_good(), 160);
}

#[test]
fn a_compacted_topic_is_read_with_its_holes() {
    let compact = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "500"),
        ("delete.retention.ms", "0"),
    ];
    let scene = Scene::new("compacted", 2, &compact);
    let kafka = Kafka::shared();
    let producer = Producer::new(kafka);
    let mut n = 0;
    // Compaction leaves the newest record of each key, and the segment being written as it is.
    eventually("the broker has compacted", Duration::from_mins(2), || {
        for _ in 0..200 {
            scene.send(&producer, i32::try_from(n % 2).unwrap(), n);
            n += 1;
        }
        scene.tombstone(&producer, 0, n);
        producer.flush();
        let there = count_records(kafka, scene.topic);
        let written: i64 = (0..2).map(|partition| watermarks(kafka, scene.topic, partition).1).sum();
        (n > 2_000 && i64::try_from(there).unwrap() < written / 2).then_some(())
    });
    scene.catch_up();
    // The broker may go on compacting between Frazil's read and the verifier's.
    let report = scene.verify().with(&["--allow-extra"]).report();
    assert!(report.is_good(), "{report:#?}");
    assert!(report.count("rows") < u64::try_from(n).unwrap());
}
