//! The pace of producing: no faster than asked for, and never so far ahead of the tables that the mock broker would
//! drop what nobody has committed yet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::broker::Broker;
use super::generate::{Generator, Record};
use crate::error::Result;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;

/// Per partition, how many records may wait for their commit: half of the batches that the mock keeps, if each
/// record were a batch of its own.
const AHEAD_RECORDS_MAX: usize = 50_000;
/// Per partition, how many bytes may wait for their commit; the mock keeps 5 MiB.
const AHEAD_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What a record weighs in a batch besides its bytes, a batch's own header included.
const RECORD_OVERHEAD_BYTES: usize = 96;
/// Between two looks at a pace, a commit or a queue.
const PAUSE: Duration = Duration::from_millis(10);
/// Records between two chances for other tasks, where nothing makes this one wait.
const TURN_RECORDS: u64 = 256;

/// The next offset that a table has committed of a partition (topic, partition) of this run; 0 before its first commit.
/// A ledger that still speaks of an earlier run's topic counts as 0: its offsets would let the broker drop records
/// that nobody has read.
pub type Committed = Arc<dyn Fn(&str, i32) -> i64 + Send + Sync>;

/// What was produced: per topic and partition the offset behind the last record.
pub type Produced = BTreeMap<(&'static str, i32), i64>;

/// How much and how fast.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Records per second; `None`: as the tables can take it.
    pub(super) rate: Option<u32>,
    /// Records in all; `None`: until the shutdown.
    pub(super) count: Option<u64>,
}

/// Sends records until there are enough or `shutdown` is requested, and returns when all are in the log.
pub(super) async fn produce(
    broker: &Broker,
    mut generator: Generator,
    pace: Pace,
    committed: Committed,
    clock: &Clock,
    shutdown: &Shutdown,
) -> Result<Produced> {
    let mut windows: BTreeMap<(&'static str, i32), Window> = BTreeMap::new();
    let mut allowance = Allowance { rate: pace.rate, records: 0.0, at: clock.elapsed() };
    let mut sent = 0;
    'records: while pace.count.is_none_or(|count| sent < count) {
        while !allowance.take(clock.elapsed()) {
            if shutdown.is_requested() {
                break 'records;
            }
            clock.sleep(PAUSE).await;
        }
        if pace.rate.is_some() {
            generator.not_before(clock.now_ms());
        }
        let record = generator.next();
        let window = windows.entry((record.topic, record.partition)).or_default();
        while !window.has_room(committed(record.topic, record.partition)) || !broker.send(&record)? {
            if shutdown.is_requested() {
                break 'records;
            }
            clock.sleep(PAUSE).await;
        }
        window.push(&record);
        sent += 1;
        if sent % TURN_RECORDS == 0 {
            tokio::task::yield_now().await;
        }
    }
    while !broker.is_flushed()? {
        clock.sleep(PAUSE).await;
    }
    Ok(windows.into_iter().map(|(partition, window)| (partition, window.next_offset())).collect())
}

/// Records of one partition that were sent and are not committed, as far as known.
#[derive(Debug, Default)]
struct Window {
    first_offset: i64,
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl Window {
    fn has_room(&mut self, committed: i64) -> bool {
        while self.first_offset < committed
            && let Some(size) = self.sizes.pop_front()
        {
            self.bytes -= size;
            self.first_offset += 1;
        }
        self.sizes.len() < AHEAD_RECORDS_MAX && self.bytes < AHEAD_BYTES_MAX
    }

    fn push(&mut self, record: &Record) {
        let headers: usize = record.headers.iter().map(|(key, value)| key.len() + value.len()).sum();
        let size = RECORD_OVERHEAD_BYTES + record.key.as_ref().map_or(0, Vec::len) + record.value.len() + headers;
        self.sizes.push_back(size);
        self.bytes += size;
    }

    fn next_offset(&self) -> i64 {
        self.first_offset + self.sizes.len().cast_signed() as i64
    }
}

/// Records that may be sent now. What is not used is kept for a second at most, so that a pause is not made up for
/// by a flood.
#[derive(Debug)]
struct Allowance {
    rate: Option<u32>,
    records: f64,
    at: Duration,
}

impl Allowance {
    fn take(&mut self, now: Duration) -> bool {
        let Some(rate) = self.rate.map(f64::from) else { return true };
        self.records = (self.records + now.saturating_sub(self.at).as_secs_f64() * rate).min(rate.max(1.0));
        self.at = now;
        let enough = self.records >= 1.0;
        self.records -= f64::from(u8::from(enough));
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::generate::TOPICS;
    use super::*;

    #[test]
    fn a_rate_is_kept_and_a_pause_is_not_made_up_for() {
        let mut allowance = Allowance { rate: Some(100), records: 0.0, at: Duration::ZERO };
        let mut taken = |at_ms| (0..1_000).take_while(|_| allowance.take(Duration::from_millis(at_ms))).count();
        assert_eq!(taken(0), 0);
        assert_eq!(taken(500), 50);
        assert_eq!(taken(505), 0);
        assert_eq!(taken(1_000), 50);
        assert_eq!(taken(60_000), 100);
    }

    #[test]
    fn a_window_is_bounded_in_bytes_and_moves_with_the_commits() {
        let record = Record {
            topic: "t",
            partition: 0,
            key: None,
            value: vec![0; 1024 * 1024],
            timestamp_ms: 0,
            headers: vec![],
        };
        let mut window = Window::default();
        let mut pushed = 0;
        while window.has_room(0) {
            window.push(&record);
            pushed += 1;
        }
        assert_eq!(pushed, 3);
        assert!(window.has_room(1));
        assert!(window.has_room(1_000), "a commit beyond what was sent empties the window");
        assert_eq!(window.next_offset(), 3);
    }

    #[test]
    fn a_window_is_bounded_in_records() {
        let record = Record { topic: "t", partition: 0, key: None, value: vec![], timestamp_ms: 0, headers: vec![] };
        let mut window = Window { bytes: 0, first_offset: 0, sizes: vec![0; AHEAD_RECORDS_MAX].into() };
        assert!(!window.has_room(0));
        assert!(window.has_room(1));
        window.push(&record);
        assert!(!window.has_room(1));
    }

    #[tokio::test]
    async fn nothing_is_produced_that_the_broker_would_drop() {
        let broker = Broker::start(&TOPICS).unwrap();
        let (clock, shutdown) = (Clock::system(), Shutdown::new());
        // Nothing is ever committed. The first full partition is asked for again and again: then stop.
        let asked = Mutex::new((0, String::new(), -1));
        let stop = shutdown.clone();
        let committed: Committed = Arc::new(move |topic, partition| {
            let mut asked = asked.lock().unwrap();
            let again = (asked.1.as_str(), asked.2) == (topic, partition);
            *asked = (if again { asked.0 + 1 } else { 0 }, topic.to_owned(), partition);
            if asked.0 >= 30 {
                stop.request();
            }
            0
        });
        let generator = Generator::new(1, [1, 2, 3, 4], 0, 1);
        let pace = Pace { rate: None, count: Some(1_000_000) };
        let produced = produce(&broker, generator, pace, committed, &clock, &shutdown).await.unwrap();
        let fullest = produced.into_values().max().unwrap();
        assert!((1_000..=50_000).contains(&fullest), "{fullest}");
    }

    #[tokio::test]
    async fn a_fixed_number_is_produced_in_full() {
        let broker = Broker::start(&TOPICS).unwrap();
        let generator = Generator::new(1, [1, 2, 3, 4], 0, 1);
        let pace = Pace { rate: None, count: Some(5_000) };
        let committed: Committed = Arc::new(|_, _| 0);
        let produced = produce(&broker, generator, pace, committed, &Clock::system(), &Shutdown::new()).await.unwrap();
        assert_eq!(produced.values().sum::<i64>(), 5_000);
        assert_eq!(produced.len(), 11);
    }
}
