//! The main job at its plainest: one topic becomes one table.

use std::time::Duration;

use serde_json::json;

use crate::avro::{Encoder, ORDER, order};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};
use crate::verify::Verify;

/// Produces `count` orders with keys, headers and times of their own, spread over `partitions`.
pub fn produce_orders(kafka: &Kafka, registry: &Registry, topic: &str, partitions: i32, count: i64) {
    let orders = Encoder::register(registry, &format!("{topic}-value"), ORDER);
    let producer = Producer::new(kafka);
    for n in 0..count {
        let (key, value) = (format!("customer-{}", n % 5_000), orders.encode(order(n)));
        let trace = n.to_be_bytes();
        let headers = [("trace", Some(&trace[..])), ("retry", None), ("trace", Some(b"again"))];
        producer.send(
            topic,
            &Record {
                key: Some(key.as_bytes()),
                value: Some(&value),
                partition: Some(i32::try_from(n % i64::from(partitions)).unwrap()),
                timestamp_ms: Some(1_767_225_600_000 + n * 17),
                headers: if n % 4 == 0 { &headers } else { &[] },
            },
        );
    }
    producer.flush();
}

#[test]
fn one_topic_one_table() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("one_topic_one_table"));
    create_topic(kafka, "smoke-orders", 3, &[]);
    produce_orders(kafka, registry, "smoke-orders", 3, 10_000);
    let tables = json!([{"topic": "smoke-orders", "table": "shop.orders", "key": {"format": "string"}}]);
    let config = lake.config(kafka, registry, "smoke", &tables);
    Frazil::until_caught_up(&lake.dir, &config, Duration::from_mins(1));
    let verify = Verify::new(kafka, registry, &lake, "smoke-orders", "shop.orders").with(&["--key", "string"]);
    assert_eq!(verify.assert_good(), 10_000);
}
