//! A topic that takes dead letters: those of a commit in one transaction with the note of how far the topic has them.
//! Which letters there are is known elsewhere.
//!
//! The note is the offset that the group `<consumer group>.<table>` has committed for partition 0 of the topic: the
//! number of the table's commit, with the table's identity as its metadata. The transactional id is the same name, so
//! whoever opens the topic for a table fences all others that had it open.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::context::Context;
use super::native::Consumer;
use super::options::{self, Options};
use super::table::kind;
use crate::error::{Error, Result};
use crate::runtime::clock::Clock;

/// How long brokers may take for each step.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// How long a transaction may take; brokers allow no more, unless they are told to.
const TRANSACTION_LIMIT: Duration = Duration::from_mins(15);
/// What is sent and not yet acknowledged, at most.
const QUEUE_KIB: &str = "16384";
/// librdkafka's limit at its highest: the topic's own decides what is too large.
const MESSAGE_BYTES_MAX: &str = "1000000000";
/// How long a full queue is waited for before it is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    // A message that is not delivered fails its transaction.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// How far a topic has a table's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LettersAt {
    /// The dead-letter table.
    pub table: Uuid,
    /// The number of its newest commit whose letters the topic has.
    pub sequence_number: i64,
}

/// A letter as a message.
#[derive(Debug)]
pub struct LetterMessage {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its timestamp, milliseconds since the epoch; `None`: it has none.
    pub timestamp_ms: Option<i64>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A topic, open for one table's letters.
#[derive(Clone)]
pub struct LetterTopic {
    inner: Arc<Inner>,
}

struct Inner {
    producer: ThreadedProducer<Context>,
    /// Never a member of its group: it has the group's offsets.
    group: Consumer,
    topic: String,
}

impl LetterTopic {
    /// Opens `topic` for the letters of `table`; whoever had it open can send no more.
    ///
    /// # Errors
    /// `InvalidConfig` for properties that cannot be; `Unavailable`, `Denied` where the brokers do not answer or refuse.
    pub async fn open(options: &Options, table: &str, topic: &str, clock: &Clock) -> Result<Self> {
        let name = format!("{}.{table}", options.group_id);
        let mut group = options.client_config()?;
        group.set("group.id", &name).set("isolation.level", "read_committed");
        let mut producer = options.producer_config()?;
        producer
            .set("transactional.id", &name)
            .set("transaction.timeout.ms", TRANSACTION_LIMIT.as_millis().to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KIB)
            .set("message.max.bytes", MESSAGE_BYTES_MAX);
        let context = || Ok::<_, Error>(Context::new(&options.bootstrap_servers, options.msk_iam(clock)?));
        let (of_group, of_producer, topic) = (context()?, context()?, topic.to_owned());
        blocking(move || {
            let group = Consumer::from_config_and_context(&group, of_group).map_err(|e| options::refused(&e))?;
            let producer = ThreadedProducer::from_config_and_context(&producer, of_producer);
            let producer: ThreadedProducer<Context> = producer.map_err(|e| options::refused(&e))?;
            producer.init_transactions(STEP_LIMIT).map_err(|e| failed("open", &topic, e))?;
            Ok(Self { inner: Arc::new(Inner { producer, group, topic }) })
        })
        .await
    }

    /// How far the topic has the letters; `None` where it has had none.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    pub async fn position(&self) -> Result<Option<LettersAt>> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&inner.topic, 0);
            let held = inner.group.committed_offsets(asked, STEP_LIMIT);
            let held = held.map_err(|e| failed("read how far dead letters were sent to", &inner.topic, e))?;
            let elements = held.elements();
            let Some(element) = elements.first() else { return Ok(None) };
            element.error().map_err(|e| failed("read how far dead letters were sent to", &inner.topic, e))?;
            Ok(match element.offset() {
                Offset::Offset(sequence_number) => {
                    element.metadata().parse().ok().map(|table| LettersAt { table, sequence_number })
                }
                _ => None,
            })
        })
        .await
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// `Unavailable` where it cannot: open the topic anew.
    pub fn begin(&self) -> Result<()> {
        self.inner.producer.begin_transaction().map_err(|e| failed("begin a transaction in", &self.inner.topic, e))
    }

    /// Sends letters in the transaction that is open.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; after an error open the topic anew, which takes back what was sent in the transaction.
    pub async fn send(&self, letters: Vec<LetterMessage>) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || letters.iter().try_for_each(|letter| inner.send(letter))).await
    }

    /// Commits the transaction, with the note that the topic has the letters as far as `position`.
    ///
    /// # Errors
    /// As [`LetterTopic::send`]; it may be in nevertheless, which [`LetterTopic::position`] of the topic opened anew says.
    pub async fn commit(&self, position: LettersAt) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.commit(position)).await
    }
}

impl Inner {
    fn send(&self, letter: &LetterMessage) -> Result<()> {
        let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len());
        for (key, value) in &letter.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = letter.key.as_deref();
        record.payload = letter.value.as_deref();
        record.timestamp = letter.timestamp_ms;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                    // An error of `flush` is that of the transaction, which the next call reports.
                    let _ = self.producer.flush(FULL_PAUSE);
                }
                Err((error, _)) => return Err(failed("send dead letters to", &self.topic, error)),
            }
        }
    }

    fn commit(&self, position: LettersAt) -> Result<()> {
        let context = |error| failed("commit dead letters to", &self.topic, error);
        let mut note = TopicPartitionList::new();
        note.add_partition_offset(&self.topic, 0, Offset::Offset(position.sequence_number)).map_err(context)?;
        if let Some(mut element) = note.find_partition(&self.topic, 0) {
            element.set_metadata(position.table.to_string());
        }
        let group = self.group.group_metadata().ok_or_else(|| Error::bug("a consumer without a group"))?;
        self.producer.flush(TRANSACTION_LIMIT).map_err(context)?;
        self.producer.send_offsets_to_transaction(&note, &group, STEP_LIMIT).map_err(context)?;
        self.producer.commit_transaction(STEP_LIMIT).map_err(context)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::bug("work for a dead-letter topic panicked")))
}

fn failed(what: &str, topic: &str, error: KafkaError) -> Error {
    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
    Error::new(kind(code), format!("{what} topic `{topic}`")).with_source(error)
}
