//! One table's side of the poll thread: its readings, their arenas, and the events on their way to its driver.
//! No calls to the group: see `poll`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;

use super::native::{Consumer, Message, Queue};
use crate::error::{Error, ErrorKind};
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::ledger::Position;
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, RawRecord};
use crate::ports::{SourceEvent, Start};
use crate::runtime::budget::Budget;

/// Names a table inside one [`super::Kafka`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub(super) u64);

/// When an arena is handed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) bytes: usize,
    pub(super) linger: Duration,
}

/// A table as the poll thread holds it.
pub(super) struct Table {
    pub(super) topics: Vec<Arc<str>>,
    queue: Queue,
    pub(super) assigned: BTreeSet<TopicPartition>,
    readings: HashMap<Arc<str>, BTreeMap<i32, Reading>>,
    budget: Budget,
    events: mpsc::Sender<SourceEvent>,
    /// Events that wait for room in the channel. While there are any, nothing is read: so one batch call bounds it.
    outbox: VecDeque<SourceEvent>,
}

/// One reading of one partition.
pub(super) struct Reading {
    pub(super) source: TopicPartition,
    attempt: Attempt,
    /// Behind the last record taken from librdkafka, and that record's epoch: where to begin anew.
    at: Position,
    /// Whether librdkafka has been told to fetch it in this attempt.
    pub(super) fetched: bool,
    /// The partition's queue until the first message came out of it; see `Poller::reconcile`.
    unheard: Option<Queue>,
    /// Whether the last thing heard was the end of the partition; see [`Table::restart_at_end`].
    at_end: bool,
    batch: RawBatch,
    /// Bytes and records of the batch before: room for as much is made when the next one begins.
    room: (usize, usize),
    /// When the batch's first record came.
    opened: Duration,
}

impl Table {
    pub(super) fn new(topics: Vec<Arc<str>>, queue: Queue, budget: Budget, events: mpsc::Sender<SourceEvent>) -> Self {
        Self {
            topics,
            queue,
            assigned: BTreeSet::new(),
            readings: HashMap::new(),
            budget,
            events,
            outbox: VecDeque::new(),
        }
    }

    pub(super) fn has_topic(&self, source: &TopicPartition) -> bool {
        self.topics.contains(&source.topic)
    }

    pub(super) fn readings(&mut self) -> impl Iterator<Item = &mut Reading> {
        self.readings.values_mut().flat_map(BTreeMap::values_mut)
    }

    pub(super) fn reading(&mut self, topic: &str, partition: i32) -> Option<&mut Reading> {
        self.readings.get_mut(topic)?.get_mut(&partition)
    }

    /// Takes a reading up, in place of an earlier one. False where the partition is not assigned.
    pub(super) fn start(&mut self, start: Start) -> bool {
        if !self.assigned.contains(&start.source) {
            return false;
        }
        let partitions = self.readings.entry(Arc::clone(&start.source.topic)).or_default();
        partitions.insert(start.source.partition, Reading::new(start));
        true
    }

    /// Forgets a reading and what it holds; whoever reads the partition next begins at the ledger.
    pub(super) fn stop(&mut self, source: &TopicPartition) {
        if let Some(partitions) = self.readings.get_mut(&source.topic) {
            partitions.remove(&source.partition);
        }
    }

    /// Marks all readings that librdkafka does not fetch yet as fetched, and answers where each begins.
    pub(super) fn begin(&mut self, consumer: &Arc<Consumer>) -> Vec<(TopicPartition, Position)> {
        let fresh = self.readings.values_mut().flat_map(BTreeMap::values_mut).filter(|reading| !reading.fetched);
        let begin = |reading: &mut Reading| {
            reading.fetched = true;
            reading.unheard = Queue::of_partition(consumer, &reading.source);
            (reading.source.clone(), reading.at)
        };
        let starts = fresh.map(begin).collect();
        self.forward_unheard();
        starts
    }

    /// Begins those readings anew that stand at their partition's end.
    ///
    /// librdkafka's batch call takes an end at offset n for a record at n and notes n + 1 as the position
    /// (`rd_kafka_q_serve_rkmessages`). It goes back to that position when it resumes partitions after a cooperative
    /// rebalance, and would skip the record at n. True where there are any.
    pub(super) fn restart_at_end(&mut self) -> bool {
        let mut any = false;
        for reading in self.readings().filter(|reading| reading.at_end) {
            reading.fetched = false;
            any = true;
        }
        any
    }

    /// Sends what is fetched of readings that nothing was heard of yet to the table's queue.
    pub(super) fn forward_unheard(&mut self) {
        let readings = self.readings.values().flat_map(BTreeMap::values);
        readings.filter_map(|reading| reading.unheard.as_ref()).for_each(|queue| queue.forward_to(&self.queue));
    }

    /// Queues an event; it goes out with [`Table::send`].
    pub(super) fn push(&mut self, event: SourceEvent) {
        self.outbox.push_back(event);
    }

    /// Queues that a reading ended, and forgets it.
    pub(super) fn fail(&mut self, source: &TopicPartition, error: Error) {
        if let Some(reading) = self.reading(&source.topic, source.partition) {
            let attempt = reading.attempt;
            self.stop(source);
            self.push(SourceEvent::Failed { source: source.clone(), attempt, error });
        }
    }

    /// Hands on what the channel takes, without waiting.
    pub(super) fn send(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(event)) => return self.outbox.push_front(event),
                // The driver is gone: dropping a `Revoked` tells that nothing will be sent any more.
                Err(mpsc::error::TrySendError::Closed(_)) => self.outbox.clear(),
            }
        }
    }

    /// Takes waiting messages of the table's partitions.
    pub(super) fn take_batch(&self, messages: &mut Vec<Message>) {
        self.queue.take_batch(messages);
    }

    /// False while records must stay in librdkafka, which then stops fetching by itself.
    pub(super) fn has_room(&self) -> bool {
        self.outbox.is_empty() && self.budget.has_room()
    }

    /// Takes messages of one partition. True where its reading ended by an error.
    pub(super) fn take_run(&mut self, run: &[Message], now: Duration, limits: BatchLimits) -> bool {
        let Some(first) = run.first() else { return false };
        let Some(reading) = self.readings.get_mut(first.topic()).and_then(|p| p.get_mut(&first.partition())) else {
            return false;
        };
        // Between a new start and telling librdkafka of it, messages of the reading before still come.
        if !reading.fetched {
            return false;
        }
        reading.unheard = None;
        for message in run {
            match message.error() {
                None => {
                    reading.append(message, now);
                    if reading.batch.bytes.len() >= limits.bytes {
                        self.outbox.push_back(reading.emit(&self.budget));
                    }
                }
                Some((RDKafkaErrorCode::PartitionEOF, _)) => {
                    if !reading.batch.records.is_empty() {
                        self.outbox.push_back(reading.emit(&self.budget));
                    }
                    self.outbox.push_back(reading.end_at(NextOffset(message.offset())));
                }
                // An error about another position than ours is a late one of an earlier reading.
                Some((RDKafkaErrorCode::AutoOffsetReset, _)) if message.offset() != reading.at.next.0 => {
                    reading.fetched = false;
                    return true;
                }
                Some((code, text)) => {
                    if !reading.batch.records.is_empty() {
                        self.outbox.push_back(reading.emit(&self.budget));
                    }
                    let (source, event) = (reading.source.clone(), reading.ended(code, text));
                    self.outbox.push_back(event);
                    self.stop(&source);
                    return true;
                }
            }
        }
        false
    }

    /// Hands on the batches whose first record has waited long enough.
    pub(super) fn flush(&mut self, now: Duration, limits: BatchLimits) {
        for reading in self.readings.values_mut().flat_map(BTreeMap::values_mut) {
            if !reading.batch.records.is_empty() && now >= reading.opened + limits.linger {
                self.outbox.push_back(reading.emit(&self.budget));
            }
        }
    }
}

impl Reading {
    fn new(start: Start) -> Self {
        let batch = RawBatch::new(start.source.clone(), start.attempt, start.at.next);
        let Start { source, at, attempt } = start;
        Self {
            source,
            attempt,
            at,
            fetched: false,
            unheard: None,
            at_end: false,
            batch,
            room: (0, 0),
            opened: Duration::ZERO,
        }
    }

    fn append(&mut self, message: &Message, now: Duration) {
        let offset = message.offset();
        if offset < self.at.next.0 {
            return;
        }
        self.at_end = false;
        let batch = &mut self.batch;
        if batch.records.is_empty() {
            self.opened = now;
            batch.bytes.reserve_exact(self.room.0);
            batch.records.reserve_exact(self.room.1);
        }
        let start = batch.bytes.len();
        let key_len = append_bytes(&mut batch.bytes, message.key());
        let value_len = append_bytes(&mut batch.bytes, message.value());
        let before_headers = batch.bytes.len();
        message.push_headers(&mut batch.bytes);
        let (timestamp_ms, timestamp_type) = message.timestamp();
        let leader_epoch = message.leader_epoch();
        batch.records.push(RawRecord {
            offset,
            timestamp_ms,
            leader_epoch,
            start: length(start),
            key_len,
            value_len,
            headers_len: length(batch.bytes.len() - before_headers),
            timestamp_type,
        });
        self.at = Position { next: NextOffset(offset + 1), leader_epoch: (leader_epoch >= 0).then_some(leader_epoch) };
        batch.next = self.at.next;
    }

    /// The batch so far; an empty one follows it.
    fn emit(&mut self, budget: &Budget) -> SourceEvent {
        let next = RawBatch::new(self.source.clone(), self.attempt, self.batch.next);
        let batch = std::mem::replace(&mut self.batch, next);
        // An eighth more, so that batches of like size do not double their arena at its very end.
        let roomy = |len: usize| len + len / 8;
        self.room = (roomy(batch.bytes.len()), roomy(batch.records.len()));
        let charge = budget.take(batch.memory_bytes());
        SourceEvent::Batch(batch, Box::new(charge))
    }

    fn end_at(&mut self, next: NextOffset) -> SourceEvent {
        self.at_end = true;
        self.at.next = self.at.next.max(next);
        self.batch.first = self.at.next;
        self.batch.next = self.at.next;
        SourceEvent::Eof { source: self.source.clone(), attempt: self.attempt, next: self.at.next }
    }

    /// What librdkafka's error means for this reading.
    fn ended(&self, code: RDKafkaErrorCode, text: &str) -> SourceEvent {
        let (source, attempt) = (self.source.clone(), self.attempt);
        // With `auto.offset.reset=error` the cause is in the text only, in the words of `rd_kafka_err2str`.
        let cause = match code {
            RDKafkaErrorCode::AutoOffsetReset if text.contains("Offset out of range") => {
                RDKafkaErrorCode::OffsetOutOfRange
            }
            RDKafkaErrorCode::AutoOffsetReset if text.contains("log truncation") => RDKafkaErrorCode::LogTruncation,
            code => code,
        };
        if cause == RDKafkaErrorCode::OffsetOutOfRange {
            return SourceEvent::OutOfRange { source, attempt };
        }
        let error = Error::new(kind(cause), format!("read partition `{source}` at {}: {text}", self.at.next));
        SourceEvent::Failed { source, attempt, error }
    }
}

/// What a caller does about librdkafka's or a broker's error.
pub(super) fn kind(code: RDKafkaErrorCode) -> ErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication => ErrorKind::Denied,
        Code::LogTruncation | Code::BadMessage | Code::BadCompression | Code::InvalidMessage => ErrorKind::Corrupt,
        // A topic unknown to one broker may be known to the next; whoever asks by `Source::topic` gets the answer.
        _ => ErrorKind::Unavailable,
    }
}

/// Appends and answers the length as records keep it: -1 for none.
fn append_bytes(arena: &mut Vec<u8>, bytes: Option<&[u8]>) -> i32 {
    let Some(bytes) = bytes else { return -1 };
    arena.extend_from_slice(bytes);
    // A record is far below 2 GiB: the protocol's lengths are i32.
    i32::try_from(bytes.len()).unwrap_or(i32::MAX)
}

/// Arenas end at the batch limit and one record, so they are below 4 GiB.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
