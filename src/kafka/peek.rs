//! Looks into topics with a consumer of their own each, which is assigned its partitions, joins no group and stores
//! nothing. What the bytes mean is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::metadata::MetadataPartition;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::{Semaphore, oneshot};

use super::context::Context;
use super::native::Consumer;
use super::table::kind;
use super::{Options, admin, options};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::record::RecordId;
use crate::ports::{Peek, PeekAnswer, PeekEnd, PeekRequest, PeekStart, PeekedRecord, Watermarks};
use crate::runtime::clock::Clock;

/// Looks at once; others wait within their time.
const AT_ONCE: usize = 4;
/// What one look may have fetched ahead.
const READ_AHEAD_BYTES: usize = 8 << 20;
/// How long one question to the brokers may take.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How often a look that waits notices that nobody wants it any more.
const TICK: Duration = Duration::from_millis(50);
/// Topics named where one is not known.
const NAMED_MAX: usize = 3;
/// Bytes before the payload in Confluent's wire format.
const WIRE_PREFIX: usize = 5;

/// Looks into the topics of one cluster.
pub struct Peeker {
    options: Options,
    clock: Clock,
    turns: Arc<Semaphore>,
}

impl Peeker {
    /// Nothing is connected before the first look.
    #[must_use]
    pub fn new(options: &Options, clock: Clock) -> Self {
        let options = Options { tables: 1, read_budget_bytes: READ_AHEAD_BYTES, ..options.clone() };
        Self { options, clock, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

#[async_trait]
impl Peek for Peeker {
    async fn peek(&self, request: PeekRequest) -> Result<PeekAnswer> {
        let deadline = self.clock.elapsed() + request.time;
        let turn = self.clock.timeout(request.time, Arc::clone(&self.turns).acquire_owned()).await;
        let Some(Ok(turn)) = turn else {
            return Err(Error::unavailable(format!("{AT_ONCE} looks into topics are under way; try again")));
        };
        let context = Context::new(&self.options.bootstrap_servers, self.options.msk_iam(&self.clock)?);
        let config = self.options.client_config()?;
        let wanted = Arc::new(AtomicBool::new(true));
        let _unwanted = Unwanted(Arc::clone(&wanted));
        let (answered, answer) = oneshot::channel();
        let clock = self.clock.clone();
        tokio::task::spawn_blocking(move || {
            let consumer = Consumer::from_config_and_context(&config, context).map_err(|e| options::refused(&e));
            let consumer = match consumer {
                Ok(consumer) => Arc::new(consumer),
                Err(error) => return drop(answered.send(Err(error))),
            };
            let look = Look { consumer: &consumer, request: &request, clock: &clock, deadline, wanted: &wanted };
            // Letting go of the consumer takes a moment that nobody needs to wait for.
            let _ = answered.send(look.run());
            drop(consumer);
            drop(turn);
        });
        answer.await.unwrap_or_else(|_| Err(Error::bug("a look into a topic panicked")))
    }
}

/// Ends the look when the future that wants it is dropped.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// One look, on a thread that may block.
struct Look<'a> {
    consumer: &'a Arc<Consumer>,
    request: &'a PeekRequest,
    clock: &'a Clock,
    deadline: Duration,
    wanted: &'a AtomicBool,
}

impl Look<'_> {
    fn run(&self) -> Result<PeekAnswer> {
        let partitions = self.partitions()?;
        let watermarks = admin::watermarks(self.consumer, &partitions)?;
        let from = self.starts(&watermarks)?;
        let waits = !self.request.wait.is_zero();
        let open: BTreeMap<TopicPartition, NextOffset> =
            from.iter().filter(|(source, at)| waits || watermarks[*source].stable > **at).map(own).collect();
        let mut seen = Seen::default();
        let end = if open.is_empty() { PeekEnd::Reached } else { self.read(&open, &watermarks, &mut seen)? };
        let mut records = seen.records;
        if matches!(self.request.start, PeekStart::Tail(_)) {
            // Each partition was begun as far back as all of them together reach.
            records.sort_by_key(|record| (record.timestamp_ms, record.id.offset));
            records.reverse();
            records.truncate(self.request.records);
        }
        Ok(PeekAnswer { records, from, watermarks, scanned: seen.scanned, scanned_bytes: seen.bytes as u64, end })
    }

    fn partitions(&self) -> Result<Vec<TopicPartition>> {
        let topic = &self.request.topic;
        // A consumer that has just begun knows its brokers by their addresses alone, and can ask them no more than this.
        let metadata = self.consumer.fetch_metadata(Some(topic), self.left().min(ASK_LIMIT)).map_err(|e| broken(&e))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = match found.map(|found| (found, found.error().map(RDKafkaErrorCode::from))) {
            None | Some((_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))) => {
                return Err(self.no_topic());
            }
            Some((_, Some(code))) => return Err(failed(code)),
            Some((found, None)) => found,
        };
        let partitions: Vec<i32> = found.partitions().iter().map(MetadataPartition::id).collect();
        let wrong = |what: String| Error::new(ErrorKind::InvalidRequest, what);
        let chosen = match self.request.partition {
            Some(partition) if !partitions.contains(&partition) => {
                let last = partitions.len().saturating_sub(1);
                return Err(wrong(format!("topic `{topic}` has no partition {partition}; it has 0 to {last}")));
            }
            Some(partition) => vec![partition],
            None => partitions,
        };
        if matches!(self.request.start, PeekStart::Offset(_)) && chosen.len() > 1 {
            let text = format!("an offset is one partition's, and topic `{topic}` has {}; name one", chosen.len());
            return Err(wrong(text));
        }
        Ok(chosen.into_iter().map(|partition| TopicPartition::new(topic.as_str(), partition)).collect())
    }

    fn no_topic(&self) -> Error {
        let topic = &self.request.topic;
        let known = self.consumer.fetch_metadata(None, self.left().min(ASK_LIMIT)).map(|metadata| {
            let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
            names.filter(|name| !name.starts_with("__")).collect::<Vec<_>>()
        });
        let mut known = known.unwrap_or_default();
        known.sort_by(|a, b| strsim::jaro_winkler(topic, b).total_cmp(&strsim::jaro_winkler(topic, a)));
        let near: Vec<String> = known.into_iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
        let hint = if near.is_empty() { "there are none".to_owned() } else { format!("there is {}", near.join(", ")) };
        Error::new(ErrorKind::InvalidRequest, format!("there is no topic `{topic}`; {hint}"))
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.clock.elapsed()).max(TICK)
    }

    fn starts(
        &self,
        watermarks: &BTreeMap<TopicPartition, Watermarks>,
    ) -> Result<BTreeMap<TopicPartition, NextOffset>> {
        let at = |range: &Watermarks| match self.request.start {
            PeekStart::Earliest | PeekStart::Timestamp(_) => range.low.0,
            PeekStart::Latest => range.stable.0,
            PeekStart::Offset(offset) => offset,
            PeekStart::Tail(count) => range.stable.0.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)),
        };
        if let PeekStart::Timestamp(ms) = self.request.start {
            let partitions: Vec<_> = watermarks.keys().cloned().collect();
            return admin::offsets_at(self.consumer, &partitions, ms);
        }
        Ok(watermarks.iter().map(|(source, range)| (source.clone(), NextOffset(at(range).max(range.low.0)))).collect())
    }

    /// Reads from `from` until there is enough, or no more.
    fn read(
        &self,
        from: &BTreeMap<TopicPartition, NextOffset>,
        watermarks: &BTreeMap<TopicPartition, Watermarks>,
        seen: &mut Seen,
    ) -> Result<PeekEnd> {
        let mut list = TopicPartitionList::with_capacity(from.len());
        for (source, at) in from {
            list.add_partition_offset(&source.topic, source.partition, Offset::Offset(at.0)).map_err(|e| broken(&e))?;
        }
        self.consumer.assign(&list).map_err(|e| broken(&e))?;
        let is_tail = matches!(self.request.start, PeekStart::Tail(_));
        let mut behind: BTreeSet<i32> = from.keys().map(|source| source.partition).collect();
        behind.retain(|partition| {
            let source = TopicPartition::new(self.request.topic.as_str(), *partition);
            from[&source] < watermarks[&source].stable
        });
        let mut patience = None;
        loop {
            let now = self.clock.elapsed();
            if behind.is_empty() && now >= *patience.get_or_insert(now + self.request.wait) {
                return Ok(PeekEnd::Reached);
            }
            if now >= self.deadline || !self.wanted.load(Ordering::Relaxed) {
                return Ok(PeekEnd::Time);
            }
            match self.consumer.poll(TICK.min(self.left())) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(behind.remove(&partition)),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(message)) => {
                    let stable = watermarks
                        .get(&TopicPartition::new(self.request.topic.as_str(), message.partition()))
                        .map_or(0, |range| range.stable.0);
                    if message.offset() + 1 >= stable {
                        behind.remove(&message.partition());
                    }
                    seen.take(&message, self.request);
                    if seen.records.len() >= self.request.records && (!is_tail || behind.is_empty()) {
                        return Ok(PeekEnd::Full);
                    }
                    if seen.bytes >= self.request.bytes {
                        return Ok(PeekEnd::Bytes);
                    }
                }
            }
        }
    }
}

fn own((source, at): (&TopicPartition, &NextOffset)) -> (TopicPartition, NextOffset) {
    (source.clone(), *at)
}

fn broken(error: &KafkaError) -> Error {
    failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail))
}

fn failed(code: RDKafkaErrorCode) -> Error {
    Error::new(kind(code), format!("look into a topic: {code}"))
}

/// What a look has seen so far.
#[derive(Default)]
struct Seen {
    records: Vec<PeekedRecord>,
    scanned: u64,
    bytes: usize,
}

impl Seen {
    fn take(&mut self, message: &BorrowedMessage<'_>, request: &PeekRequest) {
        let (key, value) = (message.key(), message.payload());
        self.scanned += 1;
        self.bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        let has = |text: &String| [key, value].into_iter().flatten().any(|bytes| find(bytes, text.as_bytes()));
        let fits = request.contains.as_ref().is_none_or(has)
            && request.key_equals.as_ref().is_none_or(|text| key.is_some_and(|key| is_text(key, text.as_bytes())));
        if !fits {
            return;
        }
        let owned = |bytes: &[u8]| bytes.to_vec();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        self.records.push(PeekedRecord {
            // How often the topic was made anew only its table knows.
            id: RecordId {
                incarnation: 0,
                source: TopicPartition::new(message.topic(), message.partition()),
                offset: message.offset(),
            },
            timestamp_ms: message.timestamp().to_millis().filter(|ms| *ms >= 0),
            key: key.map(owned),
            value: value.map(owned),
            headers: headers.map(|header| (header.key.to_owned(), header.value.map(owned))).collect(),
        });
    }
}

/// Whether `bytes` have `text` somewhere; Avro, JSON and text keep strings as their UTF-8.
fn find(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

/// Whether a key is `text`: as it is, or in Confluent's framing as an Avro string (zigzag length, then UTF-8).
fn is_text(key: &[u8], text: &[u8]) -> bool {
    if key == text {
        return true;
    }
    let (Some(0), Some(framed)) = (key.first(), key.get(WIRE_PREFIX..)) else { return false };
    let mut length = Vec::new();
    let mut rest = text.len() << 1;
    while rest >= 0x80 {
        length.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
        rest >>= 7;
    }
    length.push(u8::try_from(rest).unwrap_or(0));
    framed.strip_prefix(length.as_slice()) == Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_with_and_without_framing() {
        let long = "x".repeat(200);
        let framed = [&[0, 0, 0, 0, 7, 0x90, 0x03][..], long.as_bytes()].concat();
        for (key, text, same) in [
            (&b"k1"[..], "k1", true),
            (b"k12", "k1", false),
            (b"\0\0\0\0\x07\x04k1", "k1", true),
            (b"\0\0\0\0\x07\x06k12", "k1", false),
            (b"\0", "k1", false),
            (b"", "", true),
            (&framed, &long, true),
        ] {
            assert_eq!(is_text(key, text.as_bytes()), same, "{key:?} {text}");
        }
        assert!(find(b"hello", b"ell") && !find(b"hello", b"elo") && find(b"", b""));
    }
}
