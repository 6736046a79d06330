//! Orders on a topic, by the million: 142 bytes each, 12 columns, a key of 7 bytes, lz4 batches.

use crate::avro::{Encoder, ORDER, order};
use crate::kafka::{Producer, Record, create_topic};
use crate::services::{Kafka, Registry};

/// Encoded orders that are produced over and over: encoding millions one by one is not what is measured.
const DISTINCT: i64 = 50_000;

/// Makes `topic` and produces `count` orders over its partitions.
pub fn produce(kafka: &Kafka, registry: &Registry, topic: &str, partitions: i32, count: i64) {
    create_topic(kafka, topic, partitions, &[]);
    send(kafka, registry, topic, partitions, count);
}

/// Produces `count` more orders over the partitions of a topic that is there.
pub fn send(kafka: &Kafka, registry: &Registry, topic: &str, partitions: i32, count: i64) {
    let encoder = Encoder::register(registry, &format!("{topic}-value"), ORDER);
    let values: Vec<Vec<u8>> = (0..DISTINCT.min(count)).map(|n| encoder.encode(order(n))).collect();
    let bytes: usize = values.iter().map(Vec::len).sum();
    eprintln!("producing {count} orders of {} bytes to `{topic}`", bytes / values.len());
    let producer = Producer::with(kafka, &[("compression.type", "lz4"), ("linger.ms", "20"), ("batch.size", "262144")]);
    for n in 0..count {
        let key = format!("{:07}", n % 1_000_000);
        let record = Record {
            key: Some(key.as_bytes()),
            value: Some(&values[usize::try_from(n % DISTINCT.min(count)).unwrap()]),
            partition: Some(i32::try_from(n % i64::from(partitions)).unwrap()),
            timestamp_ms: Some(1_767_225_600_000 + n),
            headers: &[],
        };
        producer.send(topic, &record);
    }
    producer.flush();
}
