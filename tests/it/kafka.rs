//! Topics and producers: what tests do to a broker. Reading back is the verifier's part.

use std::ffi::CString;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::services::Kafka;
use crate::wait::block_on;

const DEADLINE: Duration = Duration::from_mins(1);

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("message.max.bytes", "33554432");
    config
}

fn admin(kafka: &Kafka) -> AdminClient<DefaultClientContext> {
    client(kafka).create().unwrap()
}

/// Makes a topic, replicated to all nodes; `config` as in `("cleanup.policy", "compact")`. Records are kept for ever
/// unless it says otherwise: those of tests have old timestamps, which retention would take for their age.
#[track_caller]
pub fn create_topic(kafka: &Kafka, name: &str, partitions: i32, config: &[(&str, &str)]) {
    create_topics(kafka, &[name.to_owned()], partitions, config);
}

/// The same for several at once.
#[track_caller]
pub fn create_topics(kafka: &Kafka, names: &[String], partitions: i32, config: &[(&str, &str)]) {
    let topic = |name| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
        config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
    };
    let topics: Vec<NewTopic<'_>> = names.iter().map(|name| topic(name)).collect();
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    for result in block_on(admin(kafka).create_topics(&topics, &options)).unwrap() {
        result.unwrap();
    }
}

/// Deletes a topic and waits until the brokers have forgotten it.
#[track_caller]
pub fn delete_topic(kafka: &Kafka, name: &str) {
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    for result in block_on(admin(kafka).delete_topics(&[name], &options)).unwrap() {
        result.unwrap();
    }
    let consumer: BaseConsumer = client(kafka).create().unwrap();
    crate::wait::eventually("the topic is gone", DEADLINE, || {
        let metadata = consumer.fetch_metadata(None, DEADLINE).unwrap();
        metadata.topics().iter().all(|topic| topic.name() != name).then_some(())
    });
}

/// Deletes a partition's records below `before`, as retention does.
#[track_caller]
pub fn delete_records(kafka: &Kafka, topic: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    block_on(admin(kafka).delete_records(&offsets, &options)).unwrap();
    assert_eq!(watermarks(kafka, topic, partition).0, before);
}

/// Lets a topic grow to `total` partitions.
#[track_caller]
pub fn add_partitions(kafka: &Kafka, name: &str, total: usize) {
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    for result in block_on(admin(kafka).create_partitions(&[NewPartitions::new(name, total)], &options)).unwrap() {
        result.unwrap();
    }
}

/// The oldest offset of a partition and the position behind its last stable record.
#[track_caller]
pub fn watermarks(kafka: &Kafka, topic: &str, partition: i32) -> (i64, i64) {
    let consumer: BaseConsumer = client(kafka).set("isolation.level", "read_committed").create().unwrap();
    consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap()
}

/// The number of records that a topic still has, read uncommitted; compaction and retention make it smaller.
#[track_caller]
pub fn count_records(kafka: &Kafka, topic: &str) -> u64 {
    let mut count = 0;
    each_record(kafka, topic, "read_uncommitted", |_| count += 1);
    count
}

/// All records of a topic that no transaction has taken back.
#[track_caller]
pub fn read_all(kafka: &Kafka, topic: &str) -> Vec<OwnedMessage> {
    let mut all = Vec::new();
    each_record(kafka, topic, "read_committed", |message| all.push(message.detach()));
    all
}

#[track_caller]
fn each_record(kafka: &Kafka, topic: &str, isolation: &str, mut take: impl FnMut(&BorrowedMessage<'_>)) {
    let mut config = client(kafka);
    config.set("group.id", "frazil-reads").set("enable.partition.eof", "true").set("isolation.level", isolation);
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
    let mut wanted = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        wanted.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&wanted).unwrap();
    let mut ended = 0;
    while ended < wanted.count() {
        match consumer.poll(DEADLINE).unwrap() {
            Ok(message) => take(&message),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("read {topic}: {error}"),
        }
    }
}

/// What is produced; a missing value is a tombstone, a missing partition is chosen by the key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub partition: Option<i32>,
    pub timestamp_ms: Option<i64>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Deliveries that failed; a test must never go on as if a record were there that is not.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Vec<String>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().unwrap().push(error.to_string());
        }
    }
}

/// An idempotent producer, with lz4 batches.
pub struct Producer {
    inner: BaseProducer<Deliveries>,
    bootstrap: String,
}

impl Producer {
    pub fn new(kafka: &Kafka) -> Self {
        Self::with(kafka, &[])
    }

    /// One that writes in transactions under this id, and fences the one before it.
    pub fn transactional(kafka: &Kafka, id: &str) -> Self {
        let this = Self::with(kafka, &[("transactional.id", id)]);
        this.inner.init_transactions(DEADLINE).unwrap();
        this
    }

    /// One with further librdkafka properties.
    pub fn with(kafka: &Kafka, properties: &[(&str, &str)]) -> Self {
        let mut config = client(kafka);
        config.set("enable.idempotence", "true").set("compression.type", "lz4").set("linger.ms", "5");
        for (key, value) in properties {
            config.set(*key, *value);
        }
        Self { inner: config.create_with_context(Deliveries::default()).unwrap(), bootstrap: kafka.bootstrap() }
    }

    /// Hands a record over; it is there for sure after `flush`.
    #[track_caller]
    pub fn send(&self, topic: &str, record: &Record<'_>) {
        let mut message = BaseRecord::<[u8], [u8]>::to(topic);
        message.key = record.key;
        message.payload = record.value;
        message.partition = record.partition;
        message.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message.headers = Some(
                record.headers.iter().fold(headers, |all, (key, value)| all.insert(Header { key, value: *value })),
            );
        }
        loop {
            match self.inner.send(message) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    self.inner.poll(Duration::from_millis(100));
                }
                Err((error, _)) => panic!("produce to {topic}: {error}"),
            }
        }
    }

    /// Waits until everything handed over is in the log.
    #[track_caller]
    pub fn flush(&self) {
        let start = Instant::now();
        while let Err(error) = self.inner.flush(Duration::from_secs(10)) {
            assert!(start.elapsed() < DEADLINE, "{error}");
            self.find_brokers_again();
        }
        let failed = self.inner.context().failed.lock().unwrap();
        assert!(failed.is_empty(), "{} records were not produced: {}", failed.len(), failed[0]);
    }

    /// A client that asks a broker while that starts may lose all that it knows, as `frazil` knows too
    /// (<https://github.com/confluentinc/librdkafka/issues/5301>).
    #[expect(unsafe_code, reason = "rdkafka does not wrap it")]
    fn find_brokers_again(&self) {
        let servers = CString::new(self.bootstrap.as_str()).unwrap();
        // SAFETY: the client lives as long as `self`; the text is copied.
        unsafe { rdkafka::bindings::rd_kafka_brokers_add(self.inner.client().native_ptr(), servers.as_ptr()) };
    }

    pub fn begin(&self) {
        self.inner.begin_transaction().unwrap();
    }

    pub fn commit(&self) {
        self.flush();
        self.inner.commit_transaction(DEADLINE).unwrap();
    }

    /// Aborts after the records have reached the log, so that aborted batches lie there.
    pub fn abort(&self) {
        self.flush();
        self.inner.abort_transaction(DEADLINE).unwrap();
    }
}
