//! What the brain orders, event by event.

use std::sync::Arc;

use super::*;
use crate::error::Result;
use crate::model::ids::TableName;
use crate::model::ledger::{Ledger, TopicLedger};
use crate::model::schema::TableSchema;
use crate::pipeline::event::{OnGap, OnTopicChange, StartAt, Ticket};
use crate::ports::{Progress, Recovery, TableState, TopicFacts, Watermarks};

const TABLE: &str = "lake.t";

fn table() -> Result<TableName> {
    TABLE.parse()
}

/// Settings of tests: one topic `t`, commits every ten seconds, revokes wait five.
pub(in crate::pipeline) fn settings() -> Settings {
    Settings {
        table: table().unwrap(),
        topics: vec!["t".to_owned()],
        start: StartAt::Earliest,
        on_gap: OnGap::Fail,
        on_topic_change: OnTopicChange::Fail,
        on_error: OnError::DeadLetter,
        commit_interval: Duration::from_secs(10),
        idle_interval: Duration::from_secs(10),
        commit_bytes: 1000,
        commit_rows: 1000,
        revoke_timeout: Duration::from_secs(5),
        retry_interval: Duration::from_secs(30),
        identity_interval: Duration::from_secs(3600),
        commit_at_ends: false,
    }
}

/// Partition `p` of topic `t`.
pub(in crate::pipeline) fn t(p: i32) -> TopicPartition {
    TopicPartition::new("t", p)
}

/// A survey of topic `t` with id 1, whose partitions hold `logs` (low, high), and of a table that says `recovery`.
pub(in crate::pipeline) fn survey(recovery: Recovery, logs: &[(i64, i64)]) -> Survey {
    let state = TableState {
        table: table().unwrap(),
        uuid: Uuid::from_u128(9),
        snapshot_id: None,
        sequence_number: 0,
        schema: Arc::new(TableSchema::default()),
        recovery,
        rows: 0,
        newest_ms: None,
        properties: Arc::default(),
        shape: Arc::default(),
    };
    let partitions: Vec<i32> = (0..).take(logs.len()).collect();
    let ranges = partitions.iter().zip(logs).map(|(p, (low, high))| {
        let (low, high) = (NextOffset(*low), NextOffset(*high));
        (t(*p), Watermarks { low, stable: high, high })
    });
    let watermarks = ranges.collect();
    let facts = TopicFacts { cluster_id: "c".to_owned(), topic_id: Some(Uuid::from_u128(1)), partitions };
    Survey { state, topics: BTreeMap::from([("t".to_owned(), Some(facts))]), watermarks, at_time: BTreeMap::new() }
}

/// A ledger of topic `t` with id 1.
pub(in crate::pipeline) fn at(positions: &[(i32, i64)]) -> Progress {
    let position = |next: &i64| Position { next: NextOffset(*next), leader_epoch: None };
    let partitions = positions.iter().map(|(p, next)| (*p, position(next))).collect();
    let topic = TopicLedger { topic_id: Some(Uuid::from_u128(1)), incarnation: 0, partitions };
    let ledger = Ledger { cluster_id: "c".to_owned(), topics: BTreeMap::from([("t".to_owned(), topic)]) };
    Progress { ledger, ..Progress::default() }
}

/// A brain and its time in seconds.
struct Brain {
    machine: Machine,
    now: u64,
}

impl Brain {
    fn new(settings: Settings) -> Self {
        Self { machine: Machine::new(settings), now: 0 }
    }

    /// One that reads partitions 0 and 1 of `t` from 0.
    fn reading(settings: Settings) -> Self {
        let mut brain = Self::new(settings);
        brain.hears(Event::Assigned(vec![t(0), t(1)]));
        let found = survey(Recovery::At(at(&[(0, 0), (1, 0)])), &[(0, 9), (0, 9)]);
        assert_eq!(brain.hears(Event::Surveyed(Box::new(found))), "running; begin t[0]@0 t[1]@0");
        brain
    }

    /// One with rows of partition 0 in its open epoch, which began at the time 0.
    fn filled(settings: Settings) -> Self {
        let mut brain = Self::reading(settings);
        assert_eq!(brain.hears(polled(1, 1, 0, 5)), "decode 1");
        assert_eq!(brain.hears(decoded(1, 1, 0, 5, None)), "write 1");
        brain
    }

    fn hears(&mut self, event: Event) -> String {
        let commands = self.machine.step(Duration::from_secs(self.now), 1, event);
        commands.iter().map(text).collect::<Vec<_>>().join("; ")
    }

    fn epoch(&self) -> EpochId {
        self.machine.in_flight.as_ref().unwrap().id
    }

    fn committed(&mut self) -> String {
        let state = survey(Recovery::At(at(&[(0, 5), (1, 0)])), &[]).state;
        self.hears(Event::CommitEnded(self.epoch(), CommitEnd::Committed(Box::new(state))))
    }
}

fn polled(batch: u64, attempt: u64, first: i64, next: i64) -> Event {
    let (first, next) = (NextOffset(first), NextOffset(next));
    Event::Polled { batch: BatchId(batch), source: t(0), attempt: Attempt(attempt), first, next }
}

fn decoded(batch: u64, attempt: u64, first: i64, next: i64, reject: Option<&str>) -> Event {
    let facts = DecodedFacts {
        source: t(0),
        attempt: Attempt(attempt),
        first: NextOffset(first),
        next: NextOffset(next),
        leader_epoch: None,
        newest_ms: None,
        rows: 5,
        reject: reject.map(str::to_owned),
    };
    Event::Decoded(BatchId(batch), facts)
}

fn revoked(lost: bool) -> Event {
    Event::Revoked { partitions: vec![t(0)], lost, ticket: Ticket(7) }
}

fn text(command: &Command) -> String {
    let list = |partitions: &[TopicPartition]| partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match command {
        Command::Survey { create } => if *create { "survey or create" } else { "survey" }.to_owned(),
        Command::Begin(starts) => {
            let start = |start: &Start| format!("{}@{}", start.source, start.at.next);
            format!("begin {}", starts.iter().map(start).collect::<Vec<_>>().join(" "))
        }
        Command::Halt(partitions) => format!("halt {}", list(partitions)),
        Command::Decode(batch) => format!("decode {}", batch.0),
        Command::Discard(batch) => format!("discard {}", batch.0),
        Command::Write(batch, _) => format!("write {}", batch.0),
        Command::Seal(_) => "seal".to_owned(),
        Command::Commit(_, plan) => {
            let step = |(source, step): (&TopicPartition, &Advance)| {
                format!(" {source} {}..{}", step.from.map_or(-1, |from| from.0), step.to.next)
            };
            let steps: String = plan.advances.iter().map(step).collect();
            format!("commit{steps}{}", if plan.suspension.is_some() { " suspended" } else { "" })
        }
        Command::Abandon => "abandon".to_owned(),
        Command::Acknowledge(ticket) => format!("acknowledge {}", ticket.0),
        Command::Hint(_) => "hint".to_owned(),
        Command::Report(Condition::Running) => "running".to_owned(),
        Command::Report(Condition::Suspended(_)) => "suspended".to_owned(),
        Command::Report(Condition::Stopped(_)) => "stopped".to_owned(),
        Command::Report(_) => "waiting".to_owned(),
        Command::Finished => "finished".to_owned(),
    }
}

#[test]
fn the_first_commit_states_where_reading_begins() {
    let mut brain = Brain::new(settings());
    assert_eq!(brain.hears(Event::Assigned(vec![t(0)])), "survey or create");
    let fresh = survey(Recovery::Fresh, &[(3, 9), (0, 4)]);
    assert_eq!(brain.hears(Event::Surveyed(Box::new(fresh))), "commit t[0] -1..3 t[1] -1..0");
    assert_eq!(brain.committed(), "hint; survey");
    let found = survey(Recovery::At(at(&[(0, 3), (1, 0)])), &[(3, 9), (0, 4)]);
    assert_eq!(brain.hears(Event::Surveyed(Box::new(found))), "running; begin t[0]@3");
}

#[test]
fn an_epoch_is_committed_when_it_is_due() {
    let mut brain = Brain::filled(settings());
    assert_eq!(brain.machine.wake_at(), Some(Duration::from_secs(10)));
    brain.now = 9;
    assert_eq!(brain.hears(Event::Tick), "");
    brain.now = 10;
    assert_eq!(brain.hears(Event::Tick), "seal");
    assert_eq!(brain.hears(Event::Sealed(brain.epoch())), "commit t[0] 0..5");
    assert_eq!(brain.hears(polled(2, 1, 5, 6)), "decode 2");
    assert_eq!(brain.hears(decoded(2, 1, 5, 6, None)), "write 2");
    brain.now = 30;
    assert_eq!(brain.hears(Event::Tick), "", "one commit at a time");
    assert_eq!(brain.committed(), "hint; seal");
    assert_eq!(brain.hears(Event::Sealed(brain.epoch())), "commit t[0] 5..6");
}

#[test]
fn a_revoke_waits_for_the_commit() {
    let mut brain = Brain::filled(settings());
    assert_eq!(brain.hears(revoked(false)), "seal");
    assert_eq!(brain.hears(polled(2, 1, 5, 6)), "discard 2", "nothing more is taken");
    assert_eq!(brain.hears(Event::Sealed(brain.epoch())), "commit t[0] 0..5");
    assert_eq!(brain.committed(), "hint; acknowledge 7");
}

#[test]
fn a_revoke_without_anything_pending_is_acknowledged_at_once() {
    assert_eq!(Brain::reading(settings()).hears(revoked(false)), "acknowledge 7");
}

#[test]
fn a_revoke_does_not_wait_beyond_its_deadline() {
    let mut brain = Brain::filled(settings());
    brain.hears(revoked(false));
    let epoch = brain.epoch();
    assert_eq!(brain.machine.wake_at(), Some(Duration::from_secs(5)));
    brain.now = 5;
    assert_eq!(brain.hears(Event::Tick), "halt t[1]; abandon; survey; acknowledge 7");
    assert_eq!(brain.hears(Event::Sealed(epoch)), "", "nothing is sent afterwards");
}

#[test]
fn a_lost_partition_takes_what_is_not_committed_with_it() {
    let mut brain = Brain::filled(settings());
    assert_eq!(brain.hears(revoked(true)), "halt t[1]; abandon; survey; acknowledge 7");
    let state = survey(Recovery::At(at(&[])), &[]).state;
    assert_eq!(brain.hears(Event::CommitEnded(EpochId(0), CommitEnd::Committed(Box::new(state)))), "");
}

#[test]
fn a_stale_commit_begins_again_at_the_ledger() {
    let mut brain = Brain::filled(settings());
    brain.now = 10;
    brain.hears(Event::Tick);
    brain.hears(Event::Sealed(brain.epoch()));
    let dropped = CommitEnd::Dropped("stale".to_owned());
    assert_eq!(brain.hears(Event::CommitEnded(brain.epoch(), dropped)), "halt t[0] t[1]; abandon; survey");
    let found = survey(Recovery::At(at(&[(0, 7), (1, 0)])), &[(0, 9), (0, 9)]);
    assert_eq!(brain.hears(Event::Surveyed(Box::new(found))), "begin t[0]@7 t[1]@0");
    assert_eq!(brain.hears(polled(2, 1, 5, 6)), "discard 2", "of the reading before");
    assert_eq!(brain.hears(polled(3, 3, 7, 8)), "decode 3");
}

#[test]
fn a_record_that_suspends_lets_what_came_before_it_in() {
    let mut brain = Brain::filled(Settings { on_error: OnError::Suspend, ..settings() });
    brain.hears(polled(2, 1, 5, 6));
    assert_eq!(brain.hears(decoded(2, 1, 5, 5, Some("bad"))), "write 2; halt t[0] t[1]; suspended; seal");
    assert_eq!(brain.hears(Event::Sealed(brain.epoch())), "commit t[0] 0..5 suspended");
    assert_eq!(brain.committed(), "hint");
    assert_eq!(brain.machine.wake_at(), Some(Duration::from_secs(30)), "it looks whether somebody has resumed it");
}

#[test]
fn stopping_commits_what_is_begun() {
    let mut brain = Brain::filled(settings());
    assert_eq!(brain.hears(polled(2, 1, 5, 6)), "decode 2");
    assert_eq!(brain.hears(Event::Stop), "halt t[0] t[1]", "a batch is being decoded");
    assert_eq!(brain.hears(decoded(2, 1, 5, 6, None)), "write 2; seal");
    assert_eq!(brain.hears(Event::Sealed(brain.epoch())), "commit t[0] 0..6");
    assert_eq!(brain.committed(), "hint; finished");
    assert_eq!(Brain::reading(settings()).hears(Event::Stop), "halt t[0] t[1]; finished");
}

#[test]
fn a_run_that_ends_where_its_topics_end_commits_there() {
    let mut brain = Brain::filled(Settings { commit_at_ends: true, ..settings() });
    let eof = |p, attempt, next| Event::Eof { source: t(p), attempt: Attempt(attempt), next: NextOffset(next) };
    assert_eq!(brain.hears(eof(0, 1, 5)), "", "the other partition has more");
    assert_eq!(brain.hears(eof(1, 2, 0)), "seal");
    assert_eq!(brain.hears(Event::Sealed(brain.epoch())), "commit t[0] 0..5");
    assert_eq!(brain.committed(), "hint");
    assert_eq!(brain.hears(polled(2, 1, 5, 7)), "decode 2");
    assert_eq!(brain.hears(decoded(2, 1, 5, 7, None)), "write 2", "there may be more");
    assert_eq!(brain.hears(eof(0, 1, 7)), "seal");
}

#[test]
fn the_end_of_a_partition_advances_over_holes() {
    let mut brain = Brain::filled(settings());
    brain.hears(Event::Eof { source: t(0), attempt: Attempt(1), next: NextOffset(8) });
    brain.now = 10;
    brain.hears(Event::Tick);
    assert_eq!(brain.hears(Event::Sealed(brain.epoch())), "commit t[0] 0..8");
}
