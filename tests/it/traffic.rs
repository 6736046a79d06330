//! Records that keep coming while a test breaks things: good ones of several schema versions, some that cannot be
//! rows, tombstones, transactions that commit and that abort. What was sent is known to nobody: the topic says it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use apache_avro::types::Value;
use serde_json::json;

use crate::avro::{Encoder, ORDER, framed, order};
use crate::kafka::{Producer, Record};
use crate::services::{Kafka, Registry};
use crate::wait::eventually;

/// Pseudo-random numbers (SplitMix64): the same seed gives the same run, as far as clocks allow.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// The run's seed: that of `FRAZIL_SEED`, or a fixed one; printed with the test's name.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("FRAZIL_SEED").ok().map_or(20_260_723, |text| text.parse().unwrap());
    eprintln!("{test}: FRAZIL_SEED={seed}");
    seed
}

/// What is mixed into the good records.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Records that cannot be rows, and tombstones.
    pub bad: bool,
    /// Transactions, of which some abort.
    pub transactions: bool,
    /// The pause after each burst of some twenty records.
    pub pause: Duration,
}

impl Mix {
    /// Good records alone.
    pub const GOOD: Self = Self { bad: false, transactions: false, pause: Duration::from_millis(20) };
    /// Everything.
    pub const ALL: Self = Self { bad: true, transactions: true, pause: Duration::from_millis(20) };
}

/// A producer at work on a thread of its own.
pub struct Traffic<'a> {
    registry: &'a Registry,
    topic: String,
    versions: Arc<Mutex<Vec<Encoder>>>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> Traffic<'a> {
    /// Starts producing orders to a topic that is there, by key to all its partitions.
    pub fn start(kafka: &Kafka, registry: &'a Registry, topic: &str, mix: Mix, seed: u64) -> Self {
        let first = Encoder::register(registry, &format!("{topic}-value"), ORDER);
        let (versions, stop, sent) = (Arc::new(Mutex::new(vec![first])), Arc::default(), Arc::default());
        let refresh = [("topic.metadata.refresh.interval.ms", "500")];
        let plain = Producer::with(kafka, &refresh);
        let transactional = mix.transactions.then(|| Producer::transactional(kafka, &format!("{topic}-traffic")));
        let orders = Orders {
            topic: topic.to_owned(),
            versions: Arc::clone(&versions),
            random: Random(seed),
            bad: mix.bad,
            next: 0,
        };
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            produce(&plain, transactional.as_ref(), orders, mix.pause, &stopped, &counted);
        });
        let thread = Some(thread);
        Self { registry, topic: topic.to_owned(), versions, stop, sent, thread }
    }

    /// Registers a further version of the schema, with one more optional field; from now on it is among those used.
    #[track_caller]
    pub fn evolve(&self) {
        let mut versions = self.versions.lock().unwrap();
        let mut schema: serde_json::Value = serde_json::from_str(ORDER).unwrap();
        for extra in 0..versions.len() {
            let field = json!({"name": format!("extra_{extra}"), "type": ["null", "string"], "default": null});
            schema["fields"].as_array_mut().unwrap().push(field);
        }
        versions.push(Encoder::register(self.registry, &format!("{}-value", self.topic), &schema.to_string()));
    }

    /// Waits until this many more records are in the log.
    #[track_caller]
    pub fn pass(&self, count: u64) {
        let until = self.sent.load(Ordering::Relaxed) + count;
        eventually("further records are produced", Duration::from_mins(1), || {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the producer has failed");
            (self.sent.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Ends it and gives the number of records that are in the log for sure, aborted ones included.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Bursts, until it is to stop.
fn produce(
    plain: &Producer,
    transactional: Option<&Producer>,
    mut orders: Orders,
    pause: Duration,
    stop: &AtomicBool,
    sent: &AtomicU64,
) {
    while !stop.load(Ordering::Relaxed) {
        let count = 10 + orders.random.below(20);
        if let Some(producer) = transactional.filter(|_| orders.random.below(2) == 0) {
            producer.begin();
            (0..count).for_each(|_| orders.send(producer));
            if orders.random.below(3) == 0 { producer.abort() } else { producer.commit() }
        } else {
            (0..count).for_each(|_| orders.send(plain));
            plain.flush();
        }
        sent.fetch_add(count, Ordering::Relaxed);
        std::thread::sleep(pause);
    }
}

/// Makes one record after the other.
struct Orders {
    topic: String,
    versions: Arc<Mutex<Vec<Encoder>>>,
    random: Random,
    bad: bool,
    next: i64,
}

impl Orders {
    fn send(&mut self, producer: &Producer) {
        let n = self.next;
        self.next += 1;
        let key = format!("customer-{}", self.random.below(500));
        let good = self.good(n);
        let (key, value): (Option<&[u8]>, Option<Vec<u8>>) = match self.random.below(20) {
            0 if self.bad => (Some(key.as_bytes()), Some(self.spoilt(good))),
            1 if self.bad => (Some(key.as_bytes()), None),
            2 if self.bad && n % 5 == 0 => (Some(b"\xff\xfe not text"), Some(good)),
            3 if self.bad && n % 5 == 0 => (None, None),
            _ => (Some(key.as_bytes()), Some(good)),
        };
        let trace = n.to_be_bytes();
        let headers = [("trace", Some(&trace[..])), ("retry", None)];
        producer.send(
            &self.topic,
            &Record {
                key,
                value: value.as_deref(),
                partition: None,
                timestamp_ms: Some(1_767_225_600_000 + n * 17),
                headers: if n % 4 == 0 { &headers } else { &[] },
            },
        );
    }

    /// An order of one of the versions.
    fn good(&mut self, n: i64) -> Vec<u8> {
        let versions = Arc::clone(&self.versions);
        let versions = versions.lock().unwrap();
        // The newest is used most, so that a change is met soon.
        let newest = versions.len() - 1;
        let version =
            if self.random.below(4) == 0 { self.random.below(versions.len() as u64) as usize } else { newest };
        let Value::Record(mut fields) = order(n) else { unreachable!("an order is a record") };
        for extra in 0..version {
            let value = Value::Union(1, Box::new(Value::String(format!("extra {extra} of {n}"))));
            fields.push((format!("extra_{extra}"), value));
        }
        versions[version].encode(Value::Record(fields))
    }

    fn spoilt(&mut self, mut good: Vec<u8>) -> Vec<u8> {
        match self.random.below(5) {
            0 => b"garbage".to_vec(),
            1 => framed(999_999, b"unknown"),
            2 => Vec::new(),
            3 => {
                good.truncate(good.len() - 3);
                good
            }
            _ => [&good[..], b"trailing"].concat(),
        }
    }
}
