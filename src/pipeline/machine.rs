//! One table's brain: `step` takes an event and gives commands. No clock, no randomness, no I/O.
//!
//! Batches flow through lanes (one per partition being read) into the open epoch; a due epoch is sealed and committed
//! while the next one fills. At most one commit is under way. Whatever goes wrong ends in the same place: forget what
//! is not committed, look at table and topics again, and begin at the ledger (`retreat`).

mod parts;
mod retreat;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use self::parts::{Epoch, InFlight, Lane, Looking, Revoke};
use super::event::{
    BatchId, Command, CommitEnd, CommitPlan, Condition, DecodedFacts, EpochId, Event, On, OnError, Settings, Survey,
};
use super::recovery::{Decision, changed_topic, decide};
use crate::check;
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::ledger::{Advance, Position};
use crate::model::offsets::NextOffset;
use crate::ports::{Start, Suspension};
use crate::rule::{self, Rule};

/// The brain of one table.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    /// The table's identity, once seen.
    uuid: Option<Uuid>,
    /// What the group gave this process.
    assigned: BTreeSet<TopicPartition>,
    /// Partitions being read.
    lanes: BTreeMap<TopicPartition, Lane>,
    looking: Looking,
    /// A ledger-only commit that must come before anything is read.
    first: Option<CommitPlan>,
    open: Epoch,
    in_flight: Option<InFlight>,
    /// Batches that wait because the open epoch is full while the one before it is still being committed.
    held: VecDeque<BatchId>,
    revokes: Vec<Revoke>,
    /// Why the table is being suspended, until that is committed.
    suspending: Option<String>,
    stopping: bool,
    finished: bool,
    condition: Condition,
    last_epoch: u64,
    last_attempt: u64,
    now: Duration,
    now_ms: i64,
    out: Vec<Command>,
}

impl Machine {
    /// A brain that has heard nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            uuid: None,
            assigned: BTreeSet::new(),
            lanes: BTreeMap::new(),
            // Not only when partitions come: a topic that is not there yet, or a broker that refuses, never brings any.
            looking: Looking::At(Duration::ZERO),
            first: None,
            open: Epoch::new(EpochId(0)),
            in_flight: None,
            held: VecDeque::new(),
            revokes: Vec::new(),
            suspending: None,
            stopping: false,
            finished: false,
            condition: Condition::Starting,
            last_epoch: 0,
            last_attempt: 0,
            now: Duration::ZERO,
            now_ms: 0,
            out: Vec::new(),
        }
    }

    /// Takes an event at a time (monotonic, and milliseconds since the epoch) and orders what follows from it.
    pub fn step(&mut self, now: Duration, now_ms: i64, event: Event) -> Vec<Command> {
        self.now = now;
        self.now_ms = now_ms;
        match event {
            Event::Assigned(partitions) => {
                self.assigned.extend(partitions);
                self.look();
            }
            Event::Revoked { partitions, lost, ticket } => self.revoked(partitions, lost, ticket),
            Event::Surveyed(survey) => self.surveyed(&survey),
            Event::SurveyHalted(text) => {
                self.looking = Looking::No;
                self.start_over(Condition::Stopped(text));
            }
            Event::Polled { batch, source, attempt, first, next } => self.polled(batch, &source, attempt, first, next),
            Event::Eof { source, attempt, next } => self.eof(&source, attempt, next),
            Event::ReadFailed { source, attempt, reason } => {
                if self.lane(&source, attempt).is_some() {
                    self.start_over(Condition::Waiting(On::Kafka, format!("reading `{source}`: {reason}")));
                }
            }
            Event::Decoded(batch, facts) => self.decoded(batch, &facts),
            Event::Undecodable(batch, attempt, source, reason) => {
                self.out.push(Command::Discard(batch));
                if self.lane(&source, attempt).is_some() {
                    self.suspend(reason);
                }
            }
            Event::Written(epoch, file_bytes) => {
                if self.open.id == epoch {
                    self.open.file_bytes = file_bytes;
                }
            }
            Event::Sealed(epoch) => {
                if let Some(flight) = self.in_flight.as_ref().filter(|flight| flight.id == epoch) {
                    self.out.push(Command::Commit(epoch, flight.plan.clone()));
                }
            }
            Event::WriteFailed { epoch, passes, reason } => {
                if self.open.id == epoch || self.in_flight.as_ref().is_some_and(|flight| flight.id == epoch) {
                    let text = format!("writing files: {reason}");
                    self.start_over(if passes {
                        Condition::Waiting(On::Store, text)
                    } else {
                        Condition::Stopped(text)
                    });
                }
            }
            Event::CommitEnded(epoch, end) => self.commit_ended(epoch, end),
            Event::Tick => self.tick(),
            Event::Stop => {
                self.stopping = true;
                let reading: Vec<_> = self.lanes.keys().cloned().collect();
                self.out.push(Command::Halt(reading));
            }
        }
        self.settle_revokes();
        self.commit_what_is_due();
        self.release_held();
        std::mem::take(&mut self.out)
    }

    /// When `Tick` is wanted, if nothing else happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let due = self.due_at().filter(|_| self.in_flight.is_none());
        let look = if let Looking::At(at) = self.looking { Some(at) } else { None };
        self.revokes.iter().map(|revoke| revoke.deadline).chain(due).chain(look).min()
    }

    fn lane(&mut self, source: &TopicPartition, attempt: Attempt) -> Option<&mut Lane> {
        self.lanes
            .get_mut(source)
            .filter(|lane| !lane.revoking && (lane.attempt == attempt || !rule::holds(Rule::AttemptNumbers)))
    }

    fn set(&mut self, condition: Condition) {
        if self.condition != condition {
            self.condition = condition.clone();
            self.out.push(Command::Report(condition));
        }
    }

    // Looking up table and topics.

    fn look(&mut self) {
        match &mut self.looking {
            _ if self.stopping => {}
            Looking::Now { again } => *again = true,
            Looking::No | Looking::At(_) => {
                self.looking = Looking::Now { again: false };
                self.out.push(Command::Survey { create: self.uuid.is_none() });
            }
        }
    }

    fn look_later(&mut self) {
        if !matches!(self.looking, Looking::Now { .. }) {
            self.looking = Looking::At(self.now + self.settings.retry_interval);
        }
    }

    fn surveyed(&mut self, survey: &Survey) {
        let again = self.looking == (Looking::Now { again: true });
        self.looking = Looking::No;
        if self.uuid.is_some_and(|uuid| uuid != survey.state.uuid) {
            let (table, uuid) = (&self.settings.table, survey.state.uuid);
            let text = format!(
                "table `{table}` was replaced by another one (uuid {uuid}); restart frazil to take it as it is"
            );
            return self.start_over(Condition::Stopped(text));
        }
        self.uuid = Some(survey.state.uuid);
        if again {
            return self.look();
        }
        if self.stopping || self.suspending.is_some() || self.first.is_some() || self.first_in_flight() {
            return;
        }
        if let Some(change) = changed_topic(survey).filter(|_| !self.lanes.is_empty()) {
            // What is read of it belongs to another topic; the next survey decides what becomes of the table.
            self.start_over(Condition::Waiting(On::Kafka, change));
            return self.look();
        }
        let wanted: BTreeSet<_> =
            self.assigned.iter().filter(|source| !self.lanes.contains_key(*source)).cloned().collect();
        match decide(&self.settings, survey, &wanted) {
            Decision::Start(starts) => self.begin(starts),
            Decision::CommitFirst(plan) if rule::holds(Rule::StartCommitted) => self.first = Some(plan),
            Decision::CommitFirst(plan) => {
                self.begin(plan.advances.into_iter().map(|(source, step)| (source, step.to)).collect());
            }
            Decision::Wait(text) => {
                self.set(Condition::Waiting(On::Kafka, text));
                self.look_later();
            }
            Decision::Suspended(text) => self.start_over(Condition::Suspended(text)),
            Decision::Halt(text) => self.start_over(Condition::Stopped(text)),
        }
    }

    fn first_in_flight(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|flight| flight.is_first)
    }

    fn begin(&mut self, starts: BTreeMap<TopicPartition, Position>) {
        self.set(Condition::Running);
        self.looking = Looking::At(self.now + self.settings.identity_interval);
        let mut orders = Vec::with_capacity(starts.len());
        for (source, at) in starts {
            self.last_attempt += 1;
            let attempt = Attempt(self.last_attempt);
            let lane = Lane {
                attempt,
                polled: at.next,
                decoded: at.next,
                base: at.next,
                leader_epoch: at.leader_epoch,
                decoding: 0,
                revoking: false,
                is_at_end: false,
            };
            self.lanes.insert(source.clone(), lane);
            orders.push(Start { source, at, attempt });
        }
        if !orders.is_empty() {
            self.out.push(Command::Begin(orders));
        }
    }

    // Records on their way.

    fn polled(
        &mut self,
        batch: BatchId,
        source: &TopicPartition,
        attempt: Attempt,
        first: NextOffset,
        next: NextOffset,
    ) {
        let refuse = self.stopping || self.suspending.is_some();
        let Some(lane) = self.lane(source, attempt).filter(|_| !refuse) else {
            self.out.push(Command::Discard(batch));
            return;
        };
        if first != lane.polled || next < first {
            check!(I2, false, "batch of `{source}` is {first}..{next}, {} was expected", lane.polled);
            self.out.push(Command::Discard(batch));
            return self.start_over(Condition::Waiting(On::Kafka, format!("`{source}` came out of order")));
        }
        lane.polled = next;
        lane.is_at_end = false;
        lane.decoding += 1;
        self.held.push_back(batch);
    }

    /// Passes batches on while the open epoch has room: a commit that takes long must not let the next one grow
    /// without bound.
    fn release_held(&mut self) {
        let full = self.open.file_bytes >= self.settings.commit_bytes || self.open.rows >= self.settings.commit_rows;
        if !(full && self.in_flight.is_some()) {
            self.out.extend(self.held.drain(..).map(Command::Decode));
        }
    }

    fn eof(&mut self, source: &TopicPartition, attempt: Attempt, next: NextOffset) {
        if self.stopping || self.suspending.is_some() {
            return;
        }
        let Some(lane) = self.lane(source, attempt) else { return };
        lane.is_at_end = true;
        if next > lane.polled && rule::holds(Rule::EofAdvances) {
            lane.polled = next;
            if lane.decoding == 0 {
                lane.decoded = next;
                self.advance(source);
            }
        }
    }

    fn decoded(&mut self, batch: BatchId, facts: &DecodedFacts) {
        let suspends = self.settings.on_error == OnError::Suspend;
        let refuse = self.suspending.is_some();
        let Some(lane) = self.lane(&facts.source, facts.attempt).filter(|_| !refuse) else {
            self.out.push(Command::Discard(batch));
            return;
        };
        lane.decoding -= 1;
        check!(
            I2,
            facts.first >= lane.decoded,
            "batch of `{}` at {} is behind {}",
            facts.source,
            facts.first,
            lane.decoded
        );
        let suspends = facts.reject.as_ref().filter(|_| suspends);
        // Behind the last batch come only holes that the broker itself left.
        lane.decoded = if lane.decoding == 0 && suspends.is_none() { lane.polled } else { facts.next };
        lane.leader_epoch = facts.leader_epoch.or(lane.leader_epoch);
        self.open.rows += facts.rows;
        if facts.rows > 0 || facts.reject.is_some() {
            self.open.rows_since.get_or_insert(self.now);
        }
        self.open.plan.newest_ms = self.open.plan.newest_ms.max(facts.newest_ms);
        self.out.push(Command::Write(batch, self.open.id));
        self.advance(&facts.source);
        if let Some(reject) = suspends {
            self.suspend(reject.clone());
        }
    }

    fn advance(&mut self, source: &TopicPartition) {
        let Some(lane) = self.lanes.get(source) else { return };
        let to = Position { next: lane.decoded, leader_epoch: lane.leader_epoch };
        self.open.plan.advances.insert(source.clone(), Advance { from: Some(lane.base), to });
        self.open.since.get_or_insert(self.now);
    }

    // Commits.

    fn commit_what_is_due(&mut self) {
        if self.in_flight.is_some() || self.finished {
            return;
        }
        if let Some(plan) = self.first.take() {
            let id = self.next_epoch();
            self.out.push(Command::Commit(id, plan.clone()));
            self.in_flight = Some(InFlight { id, plan, is_first: true });
        } else if self.is_due() {
            self.seal();
        } else if self.stopping && self.lanes.values().all(|lane| lane.decoding == 0) {
            self.finished = true;
            self.out.push(Command::Finished);
        }
    }

    /// When the open epoch is to be committed, if nothing asks for it before.
    fn due_at(&self) -> Option<Duration> {
        let idle = self.open.since? + self.settings.idle_interval;
        Some(self.open.rows_since.map_or(idle, |since| (since + self.settings.commit_interval).min(idle)))
    }

    fn is_due(&self) -> bool {
        if self.suspending.is_some() {
            return true;
        }
        let Some(due) = self.due_at() else { return false };
        let drained = self.stopping && self.lanes.values().all(|lane| lane.decoding == 0);
        let at_ends =
            self.settings.commit_at_ends && self.lanes.values().all(|lane| lane.is_at_end && lane.decoding == 0);
        drained
            || at_ends
            || !self.revokes.is_empty()
            || self.now >= due
            || self.open.file_bytes >= self.settings.commit_bytes
            || self.open.rows >= self.settings.commit_rows
    }

    fn seal(&mut self) {
        let id = self.next_epoch();
        let mut sealed = std::mem::replace(&mut self.open, Epoch::new(id));
        for (source, advance) in &sealed.plan.advances {
            if let Some(lane) = self.lanes.get_mut(source) {
                lane.base = advance.to.next;
            }
        }
        if let Some(reason) = self.suspending.take() {
            self.set(Condition::Suspended(reason.clone()));
            sealed.plan.suspension = Some(Some(Suspension { reason, since_ms: self.now_ms }));
        }
        self.out.push(Command::Seal(sealed.id));
        self.in_flight = Some(InFlight { id: sealed.id, plan: sealed.plan, is_first: false });
    }

    fn next_epoch(&mut self) -> EpochId {
        self.last_epoch += 1;
        EpochId(self.last_epoch)
    }

    fn commit_ended(&mut self, epoch: EpochId, end: CommitEnd) {
        let Some(flight) = self.in_flight.take_if(|flight| flight.id == epoch) else { return };
        match end {
            CommitEnd::Committed(state) => {
                self.uuid = Some(state.uuid);
                let positions = flight.plan.advances.iter().map(|(source, advance)| (source.clone(), advance.to.next));
                self.out.push(Command::Hint(positions.collect()));
                if flight.is_first {
                    self.look();
                } else if flight.plan.suspension.is_some() {
                    self.look_later();
                }
            }
            CommitEnd::Dropped(reason) => {
                tracing::info!(table = %self.settings.table, reason, "commit dropped, beginning again at the ledger");
                self.abandon();
                self.look();
            }
            CommitEnd::Halted(text) => self.start_over(Condition::Stopped(text)),
        }
    }
}
