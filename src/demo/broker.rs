//! The demo's Kafka: librdkafka's mock cluster, which speaks the real protocol on loopback and keeps records in
//! memory, and the producer that writes to it. What is produced is decided elsewhere.
//!
//! What it cannot do: topics are made by its own function only (no admin API), and it drops a partition's oldest
//! batches silently beyond 5 MiB or 100,000 batches, so whoever produces must wait for the reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::bindings::{rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::generate::{Record, Topic};
use crate::error::{Error, Result};

/// How long the group waits for more members before its first assignment. The mock's own 3 s are a real broker's;
/// nobody else joins a demo.
const FIRST_REBALANCE_MS: i32 = 0;

/// A mock cluster of one broker; it ends when this is dropped.
pub(super) struct Broker {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
}

#[derive(Debug, Clone, Default)]
struct Deliveries {
    failed: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Broker {
    /// Starts it with `topics`.
    pub(super) fn start(topics: &[Topic]) -> Result<Self> {
        let failed = |e: KafkaError| Error::unavailable("start the embedded broker").with_source(e);
        let deliveries = Deliveries::default();
        let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            // The mock's bound counts compressed bytes.
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set_log_level(RDKafkaLogLevel::Critical)
            .create_with_context(deliveries.clone())
            .map_err(failed)?;
        without_rebalance_delay(&producer)?;
        for topic in topics {
            let cluster = producer.client().mock_cluster().ok_or_else(no_cluster)?;
            cluster.create_topic(topic.name, topic.partitions, 1).map_err(failed)?;
        }
        Ok(Self { producer, deliveries })
    }

    /// `host:port` for clients.
    pub(super) fn bootstrap_servers(&self) -> Result<String> {
        Ok(self.producer.client().mock_cluster().ok_or_else(no_cluster)?.bootstrap_servers())
    }

    /// Hands a record to the producer; `false` where its queue is full, for now.
    pub(super) fn send(&self, record: &Record) -> Result<bool> {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
        let message = BaseRecord::<[u8], [u8]> {
            topic: record.topic,
            partition: Some(record.partition),
            payload: Some(&record.value),
            key: record.key.as_deref(),
            timestamp: Some(record.timestamp_ms),
            headers: Some(headers),
            delivery_opaque: (),
        };
        match self.producer.send(message) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => {
                Err(Error::unavailable(format!("produce to topic `{}` of the embedded broker", record.topic))
                    .with_source(error))
            }
        }
    }

    /// True once all that was sent is in the log.
    pub(super) fn is_flushed(&self) -> Result<bool> {
        match self.deliveries.failed.load(Ordering::Relaxed) {
            0 => Ok(self.producer.in_flight_count() == 0),
            failed => {
                Err(Error::unavailable(format!("produce to the embedded broker: {failed} records were not taken")))
            }
        }
    }
}

fn no_cluster() -> Error {
    Error::bug("the producer has no mock cluster")
}

#[expect(unsafe_code, reason = "rdkafka does not wrap the one call that sets the delay")]
fn without_rebalance_delay(producer: &ThreadedProducer<Deliveries>) -> Result<()> {
    // SAFETY: the pointer is the live handle of `producer`, which is borrowed for the whole call. The cluster that
    // it answers, if any, belongs to that handle and is destroyed with it; the setter takes the cluster's lock.
    unsafe {
        let cluster = rd_kafka_handle_mock_cluster(producer.client().native_ptr());
        if cluster.is_null() {
            return Err(no_cluster());
        }
        rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, FIRST_REBALANCE_MS);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::{Headers as _, Message as _};

    use super::super::generate::TOPICS;
    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn a_group_reads_what_was_sent_without_waiting_for_members() {
        let clock = Clock::system();
        let broker = Broker::start(&TOPICS).unwrap();
        let record = Record {
            topic: "payments",
            partition: 1,
            key: Some(b"k".to_vec()),
            value: b"v".to_vec(),
            timestamp_ms: 1_700_000_000_123,
            headers: vec![("h", b"x".to_vec())],
        };
        assert!(broker.send(&record).unwrap());
        while !broker.is_flushed().unwrap() {
            std::thread::yield_now();
        }
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers().unwrap())
            .set("group.id", "g")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&["payments"]).unwrap();
        // A poll that handles the assignment gives nothing.
        let message = (0..200).find_map(|_| consumer.poll(Duration::from_millis(100))).unwrap().unwrap();
        assert_eq!(
            (message.partition(), message.offset(), message.key(), message.payload()),
            (1, 0, Some(&b"k"[..]), Some(&b"v"[..]))
        );
        assert_eq!(message.timestamp().to_millis(), Some(1_700_000_000_123));
        assert_eq!(message.headers().unwrap().get(0).value, Some(&b"x"[..]));
        assert!(
            clock.elapsed() < Duration::from_millis(2_900),
            "{:?}: the first rebalance was delayed",
            clock.elapsed()
        );
        let cluster_id = consumer.client().fetch_cluster_id(Duration::from_secs(5)).unwrap();
        assert!(cluster_id.starts_with("mockCluster"), "{cluster_id}");
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(5)).unwrap();
        let mut found: Vec<_> =
            metadata.topics().iter().map(|topic| (topic.name(), topic.partitions().len())).collect();
        found.sort_unstable();
        assert_eq!(found, [("logs", 4), ("orders", 4), ("payments", 2), ("tickets", 1)]);
    }
}
