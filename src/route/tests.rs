//! A shared reading over a topic in memory: whoever joins, leaves or restarts, each table gets what is its own once, in
//! order, and nothing passes a record whose table has no ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::board::{Board, Orders};
use super::*;
use crate::model::ids::Attempt;
use crate::model::ledger::Position;
use crate::model::raw::{Headers, RawBatch, RawRecord, TimestampType};
use crate::ports::Charge;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{self, TaskKind};

/// A record for each value, at offsets 0, 1, …; an empty value is no header.
fn batch(source: &TopicPartition, attempt: Attempt, values: &[&str], from: i64, to: i64) -> RawBatch {
    let mut batch = RawBatch::new(source.clone(), attempt, NextOffset(from));
    for offset in from..to {
        let value = values[usize::try_from(offset).unwrap()];
        let start = u32::try_from(batch.bytes.len()).unwrap();
        let (key, body) = (format!("k{offset}"), format!("v{offset}"));
        batch.bytes.extend_from_slice(key.as_bytes());
        batch.bytes.extend_from_slice(body.as_bytes());
        let before = batch.bytes.len();
        if !value.is_empty() {
            Headers::push(&mut batch.bytes, b"to", Some(value.as_bytes()));
        }
        batch.records.push(RawRecord {
            offset,
            timestamp_ms: 0,
            leader_epoch: 0,
            start,
            key_len: i32::try_from(key.len()).unwrap(),
            value_len: i32::try_from(body.len()).unwrap(),
            headers_len: u32::try_from(batch.bytes.len() - before).unwrap(),
            timestamp_type: TimestampType::CreateTime,
        });
    }
    batch.next = NextOffset(to);
    batch
}

/// A topic of one partition in memory, read as it is started.
struct Memory {
    values: Vec<&'static str>,
    started: Mutex<Vec<Start>>,
}

#[async_trait]
impl Source for Memory {
    fn start(&self, starts: Vec<Start>) {
        self.started.lock().unwrap().extend(starts);
    }
    fn stop(&self, _: Vec<TopicPartition>) {}
    async fn topic(&self, _: &str) -> Result<Option<TopicFacts>> {
        Ok(None)
    }
    async fn watermarks(&self, _: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Watermarks>> {
        Ok(BTreeMap::new())
    }
    async fn offsets_at(&self, _: &[TopicPartition], _: i64) -> Result<BTreeMap<TopicPartition, NextOffset>> {
        Ok(BTreeMap::new())
    }
    fn hint(&self, _: Vec<(TopicPartition, NextOffset)>) {}
}

/// A table that keeps what it is given, and a ledger behind it.
#[derive(Default)]
struct Kept {
    offsets: BTreeSet<i64>,
    ledger: Option<i64>,
}

type Lake = Arc<Mutex<BTreeMap<String, Kept>>>;

/// A driver as simple as can be: begins at its ledger, notes what comes. Fails on a gap, a repeat, a wrong record.
async fn drive(
    name: String,
    source: Arc<MemberSource>,
    mut events: mpsc::Receiver<SourceEvent>,
    lake: Lake,
) -> Result<()> {
    let mut at = 0;
    while let Some(event) = events.recv().await {
        match event {
            SourceEvent::Assigned(partitions) => {
                at = {
                    let mut lake = lake.lock().unwrap();
                    // A route's table begins where the route has looked.
                    let looked = lake.get("unrouted").and_then(|kept| kept.ledger).unwrap_or(0);
                    *lake.entry(name.clone()).or_default().ledger.get_or_insert(looked)
                };
                let begin = |source: TopicPartition| Start {
                    source,
                    at: Position { next: NextOffset(at), leader_epoch: None },
                    attempt: Attempt(7),
                };
                source.start(partitions.into_iter().map(begin).collect());
            }
            SourceEvent::Revoked { done, .. } => {
                let _ = done.send(());
            }
            SourceEvent::Batch(batch, _charge) => {
                assert_eq!(batch.attempt, Attempt(7));
                assert_eq!(batch.first.0, at, "{name}: a gap or a repeat");
                at = batch.next.0;
                let mut lake = lake.lock().unwrap();
                let kept = lake.get_mut(&name).unwrap();
                for record in &batch.records {
                    assert_eq!(batch.key(record), Some(format!("k{}", record.offset).as_bytes()));
                    assert_eq!(batch.value(record), Some(format!("v{}", record.offset).as_bytes()));
                    assert!(kept.offsets.insert(record.offset), "{name}: {} twice", record.offset);
                }
                kept.ledger = Some(at);
            }
            SourceEvent::Eof { next, .. } => at = at.max(next.0),
            SourceEvent::OutOfRange { .. } | SourceEvent::Failed { .. } => panic!("{name}: unexpected end"),
        }
    }
    Ok(())
}

struct Opened {
    shared: Arc<Shared>,
    lake: Lake,
    /// Fails that often first.
    failures: Mutex<u32>,
    waits: Mutex<Vec<bool>>,
}

impl Opened {
    fn begin(&self, name: &str, takes: Takes) {
        let (source, events) = self.shared.join(vec!["t".to_owned()], takes);
        let run = drive(name.to_owned(), source, events, Arc::clone(&self.lake));
        drop(task::spawn(TaskKind::Table, name, run));
    }
}

#[async_trait]
impl Tables for Opened {
    async fn known(&self) -> Result<Vec<(String, bool)>> {
        let lake = self.lake.lock().unwrap();
        let routed = lake.iter().filter(|(name, _)| *name != "unrouted" && *name != "all");
        Ok(routed.map(|(name, kept)| (name.clone(), kept.ledger.is_some())).collect())
    }
    async fn open(&self, value: &str) -> Result<()> {
        let fails = {
            let mut failures = self.failures.lock().unwrap();
            *failures = failures.saturating_sub(1);
            *failures > 0
        };
        if fails {
            return Err(crate::error::Error::unavailable("the catalog is away"));
        }
        self.begin(value, Takes::Value(value.into()));
        Ok(())
    }
    fn waits(&self, reason: Option<String>) {
        self.waits.lock().unwrap().push(reason.is_some());
    }
}

struct Rig {
    under: Arc<Memory>,
    opened: Arc<Opened>,
    events: mpsc::Sender<SourceEvent>,
    stop: Shutdown,
    clock: Clock,
}

impl Rig {
    fn new(values: &[&'static str], lake: Lake) -> Self {
        let under = Arc::new(Memory { values: values.to_vec(), started: Mutex::default() });
        let clock = Clock::system();
        let (shared, commands) = Shared::new(Arc::clone(&under) as _);
        let shared = Arc::new(shared);
        let opened = Opened { shared, lake, failures: Mutex::new(3), waits: Mutex::default() };
        let opened = Arc::new(opened);
        let by = By::Header("to".to_owned());
        let classifier = Classifier::new(by, None, Compute::inline(), clock.clone()).unwrap();
        let route = Route { classifier, tables: Arc::clone(&opened) as _, topics: vec!["t".to_owned()] };
        let (events, received) = mpsc::channel(64);
        let stop = Shutdown::new();
        let hub = Hub::new(Arc::clone(&under) as _, Some(route), false, clock.clone());
        drop(task::spawn(TaskKind::Table, "hub", hub.run(commands, received, stop.clone())));
        Self { under, opened, events, stop, clock }
    }

    /// Reads as started, `size` records at a time, until everything below `to` was sent in the newest reading.
    async fn read(&self, to: i64, size: i64) {
        let (mut attempt, mut at) = (None, 0);
        loop {
            self.clock.sleep(Duration::from_millis(25)).await;
            let started = self.under.started.lock().unwrap().last().cloned();
            let Some(start) = started else { continue };
            if attempt != Some(start.attempt) {
                (attempt, at) = (Some(start.attempt), start.at.next.0);
            }
            let next = (at + size).min(to);
            if at >= to {
                // Nobody may have begun again meanwhile.
                self.clock.sleep(Duration::from_mins(3)).await;
                if self.under.started.lock().unwrap().last().map(|start| start.attempt) == attempt {
                    return;
                }
                continue;
            }
            let batch = batch(&start.source, start.attempt, &self.under.values, at, next);
            let charge: Charge = Box::new(());
            self.events.send(SourceEvent::Batch(batch, charge)).await.unwrap();
            at = next;
        }
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// The lake holds each record in the table of its value, and all of them in the one that takes all.
fn assert_spread(values: &[&str], lake: &Lake) {
    let lake = lake.lock().unwrap();
    for (offset, value) in values.iter().enumerate() {
        let offset = i64::try_from(offset).unwrap();
        let expected = if value.is_empty() { "unrouted" } else { value };
        let holders: BTreeSet<&str> =
            lake.iter().filter(|(_, kept)| kept.offsets.contains(&offset)).map(|(name, _)| name.as_str()).collect();
        assert_eq!(holders, BTreeSet::from(["all", expected]), "record {offset} of {value:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_record_goes_to_the_table_of_its_value() {
    let values = ["a", "b", "", "a", "c", "b", "a", "", "d", "a"];
    let lake = Lake::default();
    let rig = Rig::new(&values, Arc::clone(&lake));
    rig.opened.begin("unrouted", Takes::Unrouted);
    rig.opened.begin("all", Takes::All);
    rig.events.send(SourceEvent::Assigned(vec![partition()])).await.unwrap();
    rig.read(10, 3).await;
    assert_spread(&values, &lake);
    // The catalog that was away was said, and that it came back.
    assert_eq!(*rig.opened.waits.lock().unwrap(), [true, true, false]);
    rig.stop.request();
}

#[tokio::test(start_paused = true)]
async fn a_tick_takes_tables_along_that_got_nothing() {
    let values = ["a", "", "", "", "", ""];
    let lake = Lake::default();
    let rig = Rig::new(&values, Arc::clone(&lake));
    rig.opened.begin("unrouted", Takes::Unrouted);
    rig.opened.begin("all", Takes::All);
    rig.events.send(SourceEvent::Assigned(vec![partition()])).await.unwrap();
    rig.read(6, 2).await;
    rig.clock.sleep(Duration::from_secs(40)).await;
    assert_eq!(lake.lock().unwrap()["a"].ledger, Some(6));
}

#[tokio::test(start_paused = true)]
async fn holes_behind_an_end_keep_nobody_from_what_follows() {
    let values = ["", "", "", "", "", "a", ""];
    let lake = Lake::default();
    let rig = Rig::new(&values, Arc::clone(&lake));
    rig.opened.begin("unrouted", Takes::Unrouted);
    rig.opened.begin("all", Takes::All);
    rig.events.send(SourceEvent::Assigned(vec![partition()])).await.unwrap();
    rig.clock.sleep(Duration::from_millis(100)).await;
    let start = rig.under.started.lock().unwrap()[0].clone();
    let records = |from, to| {
        let charge: Charge = Box::new(());
        SourceEvent::Batch(batch(&start.source, start.attempt, &values, from, to), charge)
    };
    let end = |next| SourceEvent::Eof { source: partition(), attempt: start.attempt, next: NextOffset(next) };
    for event in [records(0, 2), end(2), end(5), records(5, 7)] {
        rig.events.send(event).await.unwrap();
    }
    rig.clock.sleep(Duration::from_mins(1)).await;
    // The new table begins where the route has looked, which is behind the reading.
    let again = rig.under.started.lock().unwrap()[1].clone();
    let mut rest = batch(&again.source, again.attempt, &values, 5, 7);
    rest.first = again.at.next;
    let charge: Charge = Box::new(());
    rig.events.send(SourceEvent::Batch(rest, charge)).await.unwrap();
    rig.clock.sleep(Duration::from_secs(1)).await;
    let lake = lake.lock().unwrap();
    let offsets = |name: &str| lake[name].offsets.iter().copied().collect::<Vec<_>>();
    assert_eq!((offsets("all"), offsets("a"), offsets("unrouted")), (vec![0, 1, 5, 6], vec![5], vec![0, 1, 6]));
}

#[tokio::test(start_paused = true)]
async fn a_revoke_is_passed_on_while_a_table_is_being_made() {
    let values = ["a"; 4];
    let rig = Rig::new(&values, Lake::default());
    *rig.opened.failures.lock().unwrap() = u32::MAX;
    rig.opened.begin("unrouted", Takes::Unrouted);
    rig.events.send(SourceEvent::Assigned(vec![partition()])).await.unwrap();
    rig.clock.sleep(Duration::from_millis(100)).await;
    let start = rig.under.started.lock().unwrap()[0].clone();
    let charge: Charge = Box::new(());
    let first = batch(&start.source, start.attempt, &values, 0, 4);
    rig.events.send(SourceEvent::Batch(first, charge)).await.unwrap();
    rig.clock.sleep(Duration::from_millis(100)).await;
    let (done, is_done) = oneshot::channel();
    rig.events.send(SourceEvent::Revoked { partitions: vec![partition()], lost: false, done }).await.unwrap();
    rig.clock.timeout(Duration::from_secs(1), is_done).await.unwrap().unwrap();
    // Nobody was given what lies behind a record without a table.
    assert_eq!(rig.opened.lake.lock().unwrap()["unrouted"].ledger, Some(0));
}

proptest! {
    /// Whatever the values and batches are, and wherever the process dies: after a restart from the ledgers alone each
    /// record is in exactly the table of its value.
    #[test]
    fn nothing_is_lost_or_doubled_over_restarts(
        picks in prop::collection::vec(0usize..5, 1..40),
        sizes in prop::collection::vec(1i64..9, 1..4),
        lost in prop::collection::vec(0i64..6, 0..5),
    ) {
        let names = ["", "a", "b", "c", "d"];
        let values: Vec<&'static str> = picks.iter().map(|pick| names[*pick]).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let lake = Lake::default();
            let end = i64::try_from(values.len()).unwrap();
            for (run, size) in sizes.iter().enumerate() {
                let rig = Rig::new(&values, Arc::clone(&lake));
                rig.opened.begin("unrouted", Takes::Unrouted);
                rig.opened.begin("all", Takes::All);
                rig.events.send(SourceEvent::Assigned(vec![partition()])).await.unwrap();
                let last = run + 1 == sizes.len();
                rig.read(if last { end } else { end.min(3 * (i64::try_from(run).unwrap() + 1)) }, *size).await;
                rig.stop.request();
                rig.clock.sleep(Duration::from_secs(1)).await;
                if !last {
                    forget(&lake, &lost);
                }
            }
            assert_spread(&values, &lake);
        });
    }
}

/// Each table loses its newest records, as if they had not been committed; one may not have been made at all, if
/// nobody's ledger has passed its first record.
fn forget(lake: &Lake, lost: &[i64]) {
    let mut lake = lake.lock().unwrap();
    for (kept, lost) in lake.values_mut().zip(lost) {
        let Some(ledger) = &mut kept.ledger else { continue };
        let first = kept.offsets.iter().rev().nth(usize::try_from(*lost).unwrap().saturating_sub(1)).copied();
        if let Some(first) = first.filter(|_| *lost > 0) {
            *ledger = first.min(*ledger);
            kept.offsets.retain(|offset| *offset < first);
        }
    }
}

#[test]
fn the_hindmost_table_decides_where_reading_begins() {
    let mut board = Board::default();
    let start = |next| Start {
        source: partition(),
        at: Position { next: NextOffset(next), leader_epoch: None },
        attempt: Attempt(1),
    };
    board.start(MemberId(0), &start(5));
    assert_eq!(board.orders(), Orders::default(), "nothing is assigned");
    board.assign(&[partition()]);
    board.start(MemberId(0), &start(5));
    board.start(MemberId(1), &start(9));
    assert_eq!(board.orders().start, [Start { attempt: Attempt(1), ..start(5) }]);
    let looked = |board: &mut Board, next: i64| {
        let source = partition();
        board.takers(&source).for_each(|(_, taker)| taker.looked = taker.looked.max(NextOffset(next)));
        board.gave(&source, NextOffset(next));
    };
    looked(&mut board, 7);
    // Behind the reading, one takes nothing until it begins anew.
    board.start(MemberId(3), &start(6));
    assert!(board.takers(&partition()).all(|(member, _)| member != MemberId(3)));
    board.leave(MemberId(3));
    // Ahead of the reading: it goes on. Behind it: it begins anew.
    board.start(MemberId(2), &start(8));
    assert_eq!(board.orders(), Orders::default());
    board.start(MemberId(2), &start(2));
    assert_eq!(board.orders().start, [Start { attempt: Attempt(2), ..start(2) }]);
    assert!(!board.is_current(&partition(), Attempt(1)));
    // What is gone is gone for those alone who would begin there.
    assert_eq!(board.ended(&partition(), true), [(MemberId(2), Attempt(1))]);
    assert_eq!(board.orders().start, [Start { attempt: Attempt(3), ..start(7) }]);
    board.leave(MemberId(0));
    board.leave(MemberId(1));
    assert_eq!(board.orders().stop, [partition()]);
}
