//! The task of a shared reading: events in, each table's own events out. Decisions are `board`'s.
//!
//! It waits for no table: their drivers empty their channels whatever they wait for themselves, and what they hold is
//! charged to the one reading until they have written it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use super::board::{Board, Taker};
use super::classify::Classes;
use super::split::part;
use super::spread::{Head, Route, Spread, Work};
use super::{Command, Commands, MemberId, Takes};
use crate::error::{Error, Result};
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::raw::RawBatch;
use crate::ports::{Source, SourceEvent};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;

/// How long tables are waited for that begin together: each that begins further behind is a reading begun anew.
const SETTLE: Duration = Duration::from_millis(20);
/// How often tables that took nothing are told how far the reading is, and the catalog is asked for tables that other
/// processes made.
const TICK: Duration = Duration::from_secs(30);

/// A table that shares the reading.
pub(super) struct Member {
    topics: Vec<String>,
    takes: Takes,
    events: mpsc::Sender<SourceEvent>,
    hinted: BTreeMap<TopicPartition, NextOffset>,
}

impl Member {
    pub(super) fn new(topics: Vec<String>, takes: Takes, events: mpsc::Sender<SourceEvent>) -> Self {
        Self { topics, takes, events, hinted: BTreeMap::new() }
    }

    fn of<'a>(&self, partitions: impl Iterator<Item = &'a TopicPartition>) -> Vec<TopicPartition> {
        let is_mine = |source: &&TopicPartition| self.topics.iter().any(|topic| **topic == *source.topic);
        partitions.filter(is_mine).cloned().collect()
    }

    async fn tell(&self, event: SourceEvent) {
        // A table that has ended is about to leave.
        let _ = self.events.send(event).await;
    }
}

/// The task's state.
pub struct Hub {
    under: Arc<dyn Source>,
    clock: Clock,
    /// Ends are told to all tables, also to those that took nothing: a run is to end there.
    tells_ends: bool,
    spread: Option<Spread>,
    board: Board,
    members: BTreeMap<MemberId, Member>,
    queue: VecDeque<SourceEvent>,
    head: Option<Head>,
    revoking: FuturesUnordered<Work<()>>,
    settle_at: Option<Duration>,
    tick_at: Duration,
}

impl Hub {
    /// The task that shares `under`'s events.
    pub fn new(under: Arc<dyn Source>, route: Option<Route>, tells_ends: bool, clock: Clock) -> Self {
        Self {
            tick_at: clock.elapsed() + TICK,
            under,
            tells_ends,
            spread: route.map(|route| Spread::new(route, clock.clone())),
            clock,
            board: Board::default(),
            members: BTreeMap::new(),
            queue: VecDeque::new(),
            head: None,
            revoking: FuturesUnordered::new(),
            settle_at: None,
        }
    }

    /// Shares until `shutdown`, or until the events end.
    ///
    /// # Errors
    /// `Bug` only.
    pub async fn run(
        mut self,
        commands: Commands,
        mut events: mpsc::Receiver<SourceEvent>,
        shutdown: Shutdown,
    ) -> Result<()> {
        let Commands(mut commands) = commands;
        loop {
            self.give().await?;
            // Nothing is read before the tables are known that there are: each begins where it is.
            let settle_at = self.settle_at.filter(|_| self.spread.as_ref().is_none_or(|spread| spread.has_looked));
            let wake = settle_at.unwrap_or(self.tick_at).min(self.tick_at).saturating_sub(self.clock.elapsed());
            tokio::select! {
                biased;
                () = shutdown.requested() => return Ok(()),
                Some(command) = commands.recv() => self.obey(command).await,
                Some(()) = self.revoking.next(), if !self.revoking.is_empty() => {}
                event = events.recv() => match event {
                    Some(event) => self.heard(event).await,
                    None => return Ok(()),
                },
                head = next_of(&mut self.spread) => {
                    let is_current = |head: &Head| self.board.is_current(&head.batch.source, head.batch.attempt);
                    self.head = head.filter(is_current).or(self.head.take());
                }
                () = self.clock.sleep(wake) => {
                    let now = self.clock.elapsed();
                    if settle_at.is_some_and(|at| at <= now) {
                        self.settle_at = None;
                        self.settle();
                    }
                    if self.tick_at <= now {
                        self.tick_at = now + TICK;
                        self.tick().await;
                    }
                }
            }
        }
    }

    // What tables ask.

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Join(id, member) => {
                if let (Takes::Value(value), Some(spread)) = (&member.takes, &mut self.spread) {
                    spread.joined(value, id);
                }
                let mine = member.of(self.board.assigned());
                if !mine.is_empty() {
                    member.tell(SourceEvent::Assigned(mine)).await;
                }
                self.members.insert(id, member);
            }
            Command::Leave(id) => {
                let member = self.members.remove(&id);
                if let (Some(Takes::Value(value)), Some(spread)) = (member.map(|m| m.takes), &mut self.spread) {
                    spread.left(&value);
                }
                self.board.leave(id);
                self.settle_at = Some(self.clock.elapsed() + SETTLE);
            }
            Command::Start(id, starts) => {
                for start in &starts {
                    self.board.start(id, start);
                }
                let member = self.members.get(&id);
                if let (Some(Takes::Value(value)), Some(spread)) = (member.map(|m| &m.takes), &mut self.spread) {
                    spread.began(value);
                }
                self.settle_at = Some(self.clock.elapsed() + SETTLE);
            }
            Command::Stop(id, partitions) => {
                partitions.iter().for_each(|source| self.board.stop(id, source));
                self.settle_at = Some(self.clock.elapsed() + SETTLE);
            }
            Command::Hint(id, positions) => self.hint(id, positions),
        }
    }

    /// The group is told of the hindmost table: nothing below is to be read again.
    fn hint(&mut self, id: MemberId, positions: Vec<(TopicPartition, NextOffset)>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.hinted.extend(positions.iter().cloned());
        let hindmost = |source: &TopicPartition| {
            let takes = |member: &&Member| member.topics.iter().any(|topic| **topic == *source.topic);
            let all = self.members.values().filter(takes).map(|member| member.hinted.get(source).copied());
            all.collect::<Option<Vec<_>>>()?.into_iter().min()
        };
        let hints: Vec<_> =
            positions.into_iter().filter_map(|(source, _)| hindmost(&source).map(|next| (source, next))).collect();
        if !hints.is_empty() {
            self.under.hint(hints);
        }
    }

    fn settle(&mut self) {
        let orders = self.board.orders();
        self.drop_stale();
        if !orders.stop.is_empty() {
            self.under.stop(orders.stop);
        }
        if !orders.start.is_empty() {
            self.under.start(orders.start);
        }
    }

    /// Tells tables that took nothing for a while how far the reading is, so that their ledgers go along.
    async fn tick(&mut self) {
        let sources: Vec<TopicPartition> = self.board.assigned().cloned().collect();
        for source in sources {
            let behind = self.board.takers(&source).filter(|(_, taker)| taker.at.next < taker.looked);
            for (id, taker) in behind {
                let mut empty = RawBatch::new(source.clone(), taker.attempt, taker.at.next);
                (empty.next, taker.at.next) = (taker.looked, taker.looked);
                if let Some(member) = self.members.get(&id) {
                    member.tell(SourceEvent::Batch(empty, Box::new(()))).await;
                }
            }
        }
        if let Some(spread) = &mut self.spread {
            spread.look();
        }
    }

    // What the group and the topics say.

    async fn heard(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Assigned(partitions) => {
                self.board.assign(&partitions);
                for member in self.members.values() {
                    let mine = member.of(partitions.iter());
                    if !mine.is_empty() {
                        member.tell(SourceEvent::Assigned(mine)).await;
                    }
                }
            }
            SourceEvent::Revoked { partitions, lost, done } => self.revoked(partitions, lost, done).await,
            other => self.queue.push_back(other),
        }
    }

    /// Passes a revoke on at once, whatever waits: what is queued of its partitions is not given to anybody.
    async fn revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool, done: oneshot::Sender<()>) {
        self.board.revoke(&partitions);
        self.drop_stale();
        let mut told = Vec::new();
        for member in self.members.values_mut() {
            let mine = member.of(partitions.iter());
            if mine.is_empty() {
                continue;
            }
            member.hinted.retain(|source, _| !mine.contains(source));
            let (done, is_done) = oneshot::channel();
            member.tell(SourceEvent::Revoked { partitions: mine, lost, done }).await;
            told.push(is_done);
        }
        self.revoking.push(Box::pin(async move {
            join_all(told).await;
            let _ = done.send(());
        }));
    }

    fn drop_stale(&mut self) {
        let board = &self.board;
        let is_current = |event: &SourceEvent| reading_of(event).is_some_and(|(s, a)| board.is_current(s, a));
        self.queue.retain(is_current);
        self.head = self.head.take().filter(|head| board.is_current(&head.batch.source, head.batch.attempt));
    }

    // Giving out.

    /// Gives out what can be given, in the order in which it came.
    async fn give(&mut self) -> Result<()> {
        loop {
            if let Some(head) = &self.head {
                if self.spread.as_mut().is_some_and(|spread| !spread.is_open(&head.classes.values)) {
                    return Ok(());
                }
                let Some(head) = self.head.take() else { continue };
                self.give_batch(head).await;
            }
            if self.spread.as_ref().is_some_and(Spread::is_busy) {
                return Ok(());
            }
            let Some(event) = self.queue.pop_front() else { return Ok(()) };
            if !reading_of(&event).is_some_and(|(source, attempt)| self.board.is_current(source, attempt)) {
                continue;
            }
            match event {
                SourceEvent::Batch(batch, charge) => match &mut self.spread {
                    Some(spread) if spread.takes(&batch.source) => spread.classify(batch, charge)?,
                    _ => self.head = Some(Head { batch, charge, classes: Classes::default() }),
                },
                SourceEvent::Eof { source, next, .. } => self.give_end(&source, next).await,
                SourceEvent::OutOfRange { source, .. } => {
                    let told = |source, attempt| SourceEvent::OutOfRange { source, attempt };
                    self.give_failure(&source, true, told).await;
                }
                SourceEvent::Failed { source, error, .. } => {
                    let (kind, text) = (error.kind(), error.chain());
                    let told = |source, attempt| SourceEvent::Failed {
                        source,
                        attempt,
                        error: Error::new(kind, text.clone()),
                    };
                    self.give_failure(&source, false, told).await;
                }
                SourceEvent::Assigned(_) | SourceEvent::Revoked { .. } => {}
            }
        }
    }

    async fn give_batch(&mut self, head: Head) {
        let Head { batch, charge, classes } = head;
        let charge = Arc::new(charge);
        let routed = classes.records();
        let mut of_value = HashMap::new();
        let mut unrouted = routed.first().cloned().unwrap_or_default();
        for (value, records) in classes.values.iter().zip(routed.iter().skip(1)) {
            match self.spread.as_ref().and_then(|spread| spread.member(value)) {
                Some(member) => drop(of_value.insert(member, records)),
                // There are too many.
                None => unrouted.extend(records),
            }
        }
        unrouted.sort_unstable();
        let pick = |indexes: &[usize], taker: &Taker| {
            let records = indexes.iter().map(|index| &batch.records[*index]);
            part(&batch, records, taker.looked, taker.at.next, taker.attempt)
        };
        for (id, taker) in self.board.takers(&batch.source) {
            let Some(member) = self.members.get(&id).filter(|_| taker.looked < batch.next) else { continue };
            let own = match &member.takes {
                Takes::All => Some(part(&batch, batch.records.iter(), taker.looked, taker.at.next, taker.attempt)),
                Takes::Unrouted => Some(pick(&unrouted, taker)),
                Takes::Value(_) => of_value.get(&id).map(|records| pick(records, taker)),
            };
            taker.looked = batch.next;
            // A hole goes along with the next records, or with a tick.
            let Some(own) = own.filter(|own| !own.records.is_empty()) else { continue };
            taker.at.next = own.next;
            taker.at.leader_epoch = own.last_epoch().or(taker.at.leader_epoch);
            taker.has_news = true;
            member.tell(SourceEvent::Batch(own, Box::new(Arc::clone(&charge)))).await;
        }
        self.board.gave(&batch.source, batch.next);
    }

    async fn give_end(&mut self, source: &TopicPartition, next: NextOffset) {
        for (id, taker) in self.board.takers(source) {
            taker.looked = taker.looked.max(next);
            if !(self.tells_ends || std::mem::take(&mut taker.has_news)) {
                continue;
            }
            taker.at.next = taker.looked;
            let end = SourceEvent::Eof { source: source.clone(), attempt: taker.attempt, next: taker.at.next };
            if let Some(member) = self.members.get(&id) {
                member.tell(end).await;
            }
        }
        self.board.gave(source, next);
    }

    async fn give_failure(
        &mut self,
        source: &TopicPartition,
        out_of_range: bool,
        told: impl Fn(TopicPartition, Attempt) -> SourceEvent,
    ) {
        for (id, attempt) in self.board.ended(source, out_of_range) {
            if let Some(member) = self.members.get(&id) {
                member.tell(told(source.clone(), attempt)).await;
            }
        }
        self.settle_at = Some(self.clock.elapsed() + SETTLE);
    }
}

/// The reading that an event is of; `None` where it is of the group.
fn reading_of(event: &SourceEvent) -> Option<(&TopicPartition, Attempt)> {
    match event {
        SourceEvent::Batch(batch, _) => Some((&batch.source, batch.attempt)),
        SourceEvent::Eof { source, attempt, .. }
        | SourceEvent::OutOfRange { source, attempt }
        | SourceEvent::Failed { source, attempt, .. } => Some((source, *attempt)),
        SourceEvent::Assigned(_) | SourceEvent::Revoked { .. } => None,
    }
}

/// What the spread has ready next, or never where there is none.
async fn next_of(spread: &mut Option<Spread>) -> Option<Head> {
    match spread {
        Some(spread) => spread.next().await,
        None => std::future::pending().await,
    }
}
