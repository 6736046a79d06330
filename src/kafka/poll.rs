//! The thread that polls librdkafka: group membership, what is fetched, and records into arenas. It never waits for
//! a driver, so back-pressure never meets `max.poll.interval.ms`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::context::Rebalance;
use super::native::{Consumer, Message, start_list};
use super::table::{BatchLimits, Table, TableId};
use crate::error::Error;
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::ports::{SourceEvent, Start};
use crate::runtime::clock::Clock;

/// Messages taken by one call.
const BATCH_MESSAGES: usize = 10_000;
/// How long the loop waits for group events where no table had a full batch waiting.
const IDLE: Duration = Duration::from_millis(5);
/// How long tables are waited for that come or go together: each change of the subscription is a rebalance.
const SUBSCRIBE_DELAY: Duration = Duration::from_millis(20);
/// How long leaving the group may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// What others ask of the thread.
pub(super) enum Command {
    Add(TableId, Table),
    Remove(TableId),
    Start(TableId, Vec<Start>),
    Stop(TableId, Vec<TopicPartition>),
    Hint(Vec<(TopicPartition, NextOffset)>),
    Close,
}

/// A revoke that waits for the drivers.
struct Revoke {
    partitions: Vec<TopicPartition>,
    waiting: Vec<(TableId, oneshot::Receiver<()>)>,
    deadline: Duration,
}

/// The thread's state.
pub(super) struct Poller {
    pub(super) consumer: Arc<Consumer>,
    pub(super) commands: Receiver<Command>,
    pub(super) clock: Clock,
    pub(super) limits: BatchLimits,
    pub(super) revoke_timeout: Duration,
    /// False where partitions are read without a group, as they are started.
    grouped: bool,
    tables: BTreeMap<TableId, Table>,
    /// What librdkafka has been told to fetch.
    fetched: BTreeSet<TopicPartition>,
    /// Set where readings and `fetched` may differ.
    changed: bool,
    /// When the subscription is changed to the tables' topics.
    subscribe_at: Option<Duration>,
    revoke: Option<Revoke>,
    messages: Vec<Message>,
}

impl Poller {
    pub(super) fn new(
        consumer: Arc<Consumer>,
        commands: Receiver<Command>,
        clock: Clock,
        limits: BatchLimits,
        revoke_timeout: Duration,
        grouped: bool,
    ) -> Self {
        Self {
            consumer,
            commands,
            clock,
            limits,
            revoke_timeout,
            grouped,
            tables: BTreeMap::new(),
            fetched: BTreeSet::new(),
            changed: false,
            subscribe_at: None,
            revoke: None,
            messages: Vec::with_capacity(BATCH_MESSAGES),
        }
    }

    /// Polls until asked to close, then leaves the group.
    pub(super) fn run(mut self) {
        let mut busy = false;
        while self.obey() {
            self.poll(if busy { Duration::ZERO } else { IDLE });
            self.rebalance();
            self.reconcile();
            busy = self.read();
        }
        self.close();
    }

    /// Carries commands out. False once the end is asked for, or nobody is left to ask.
    fn obey(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Add(id, table)) => {
                    self.tables.insert(id, table);
                    self.subscribe_at = Some(self.clock.elapsed() + SUBSCRIBE_DELAY);
                }
                Ok(Command::Remove(id)) => {
                    self.tables.remove(&id);
                    self.changed = true;
                    self.subscribe_at = Some(self.clock.elapsed() + SUBSCRIBE_DELAY);
                }
                Ok(Command::Start(id, starts)) => {
                    let Some(table) = self.tables.get_mut(&id) else { continue };
                    for start in starts {
                        if !self.grouped {
                            table.assigned.insert(start.source.clone());
                        }
                        self.changed |= table.start(start);
                    }
                }
                Ok(Command::Stop(id, partitions)) => {
                    let Some(table) = self.tables.get_mut(&id) else { continue };
                    for source in &partitions {
                        table.stop(source);
                    }
                    self.changed = true;
                }
                Ok(Command::Hint(positions)) => self.hint(&positions),
                Err(TryRecvError::Empty) => {
                    if self.subscribe_at.take_if(|at| *at <= self.clock.elapsed()).is_some() {
                        self.subscribe();
                    }
                    return true;
                }
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn subscribe(&self) {
        if !self.grouped {
            return;
        }
        let topics: Vec<&str> = self.tables.values().flat_map(|table| &table.topics).map(AsRef::as_ref).collect();
        if topics.is_empty() {
            return self.consumer.unsubscribe();
        }
        match self.consumer.subscribe(&topics) {
            Ok(()) => tracing::info!(topics = topics.len(), "polling"),
            Err(error) => tracing::error!(%error, ?topics, "subscribe"),
        }
    }

    fn hint(&self, positions: &[(TopicPartition, NextOffset)]) {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (source, next) in positions {
            if let Err(error) = list.add_partition_offset(&source.topic, source.partition, Offset::Offset(next.0)) {
                tracing::debug!(%source, %error, "store the group's offset");
            }
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "store the group's offsets");
        }
    }

    /// Serves librdkafka's events: rebalances, errors, logs, commits.
    fn poll(&mut self, limit: Duration) {
        let Some(Ok(message)) = self.consumer.poll(limit) else { return };
        // Records come through the tables' queues. Should one come this way, its partition is read anew from the
        // position behind the last record taken, and nothing is lost or out of order.
        for table in self.tables.values_mut() {
            if let Some(reading) = table.reading(message.topic(), message.partition()) {
                tracing::debug!(source = %reading.source, "a record came through the group's queue");
                reading.fetched = false;
                self.changed = true;
            }
        }
    }

    /// Acts on what the group decided. A revoke is acknowledged when the drivers are done, or at the deadline.
    fn rebalance(&mut self) {
        loop {
            if let Some(revoke) = &mut self.revoke {
                let waits =
                    |done: &mut oneshot::Receiver<()>| done.try_recv() == Err(oneshot::error::TryRecvError::Empty);
                revoke.waiting.retain_mut(|(_, done)| waits(done));
                if !revoke.waiting.is_empty() && self.clock.elapsed() < revoke.deadline {
                    return;
                }
                self.acknowledge_revoke();
            }
            match self.consumer.context().next_rebalance() {
                Some(Rebalance::Assign(partitions)) => self.assigned(&partitions),
                Some(Rebalance::Revoke { partitions, lost }) => self.revoked(partitions, lost),
                None => return,
            }
        }
    }

    fn assigned(&mut self, partitions: &[TopicPartition]) {
        self.consumer.context().clear_trouble();
        // Nothing is fetched before the driver says where: an empty list acknowledges.
        let none = TopicPartitionList::new();
        let done =
            if self.is_cooperative() { self.consumer.incremental_assign(&none) } else { self.consumer.assign(&none) };
        report(done, "acknowledge an assignment");
        self.restart_at_end();
        for table in self.tables.values_mut() {
            let mine: Vec<_> = partitions.iter().filter(|source| table.has_topic(source)).cloned().collect();
            table.assigned.extend(mine.iter().cloned());
            if !mine.is_empty() {
                table.push(SourceEvent::Assigned(mine));
            }
        }
    }

    fn revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool) {
        let mut waiting = Vec::new();
        for (id, table) in &mut self.tables {
            let mine: Vec<_> = partitions.iter().filter(|source| table.assigned.remove(source)).cloned().collect();
            if mine.is_empty() {
                continue;
            }
            for source in &mine {
                table.stop(source);
            }
            let (done, told) = oneshot::channel();
            table.push(SourceEvent::Revoked { partitions: mine, lost, done });
            table.send();
            waiting.push((*id, told));
        }
        self.changed = true;
        self.revoke = Some(Revoke { partitions, waiting, deadline: self.clock.elapsed() + self.revoke_timeout });
    }

    fn acknowledge_revoke(&mut self) {
        let Some(revoke) = self.revoke.take() else { return };
        for (id, _) in &revoke.waiting {
            let topics = self.tables.get(id).map(|table| table.topics.clone());
            tracing::warn!(?topics, limit = ?self.revoke_timeout, "a table did not let go of its partitions in time");
        }
        if self.is_cooperative() {
            let gone: Vec<_> = revoke.partitions.into_iter().filter(|source| self.fetched.remove(source)).collect();
            report(self.consumer.incremental_unassign(&plain_list(&gone)), "acknowledge a revocation");
            self.restart_at_end();
        } else {
            // The eager protocol revokes everything.
            self.fetched.clear();
            report(self.consumer.unassign(), "acknowledge a revocation");
        }
    }

    fn restart_at_end(&mut self) {
        for table in self.tables.values_mut() {
            self.changed |= table.restart_at_end();
        }
    }

    /// Tells librdkafka what to fetch, where that has changed.
    ///
    /// While a revoke waits this waits too, since an unassign call would acknowledge it. (One that librdkafka has
    /// decided on but not yet reported can still be acknowledged a moment early; the ledger's check covers that.)
    fn reconcile(&mut self) {
        // Stopping a partition clears its forward later, on librdkafka's thread, and starting it anew does not bring
        // that back (`rd_kafka_toppar_fetch_stop`, `RD_KAFKA_Q_F_FWD_APP`). So it is set again until the new reading
        // is heard of, when the stop is certainly over; what came meanwhile moves along, in order.
        self.tables.values_mut().for_each(Table::forward_unheard);
        if !std::mem::take(&mut self.changed) {
            return;
        }
        if self.revoke.is_some() {
            self.changed = true;
            return;
        }
        let cooperative = self.is_cooperative();
        let wanted =
            |table: &mut Table| table.readings().filter(|r| r.fetched).map(|r| r.source.clone()).collect::<Vec<_>>();
        let kept: BTreeSet<_> = self.tables.values_mut().flat_map(wanted).collect();
        let gone: Vec<_> = self.fetched.difference(&kept).cloned().collect();
        let fresh = self.tables.values_mut().any(|table| table.readings().any(|reading| !reading.fetched));
        if gone.is_empty() && !fresh {
            return;
        }
        if cooperative {
            if !gone.is_empty() && !self.unassign(&gone) {
                return;
            }
        } else {
            // The eager protocol knows whole assignments only: all begin anew, each at its position.
            self.fetched.clear();
            self.tables.values_mut().flat_map(Table::readings).for_each(|reading| reading.fetched = false);
        }
        self.fetch(cooperative);
    }

    fn unassign(&mut self, gone: &[TopicPartition]) -> bool {
        let done = report(self.consumer.incremental_unassign(&plain_list(gone)), "stop reading");
        if done {
            self.fetched.retain(|source| !gone.contains(source));
        } else {
            self.changed = true;
        }
        done
    }

    /// Has librdkafka fetch all readings that it does not fetch yet.
    fn fetch(&mut self, cooperative: bool) {
        let mut starts = Vec::new();
        for table in self.tables.values_mut() {
            starts.extend(table.begin(&self.consumer));
        }
        let list = start_list(starts.iter().map(|(source, at)| (source, *at)));
        let done = if cooperative { self.consumer.incremental_assign(&list) } else { self.consumer.assign(&list) };
        match done {
            Ok(()) => self.fetched.extend(starts.into_iter().map(|(source, _)| source)),
            Err(error) => {
                for table in self.tables.values_mut() {
                    for (source, _) in &starts {
                        table.fail(source, Error::unavailable(format!("start reading `{source}`: {error}")));
                    }
                }
                self.changed = true;
            }
        }
    }

    /// Moves records into arenas and events to the drivers. True where there is more.
    fn read(&mut self) -> bool {
        let mut busy = false;
        for table in self.tables.values_mut() {
            table.send();
            let now = self.clock.elapsed();
            if table.has_room() {
                table.take_batch(&mut self.messages);
                if !self.messages.is_empty() {
                    self.consumer.context().clear_trouble();
                }
                busy |= self.messages.len() == self.messages.capacity();
                for run in self.messages.chunk_by(Message::same_partition) {
                    self.changed |= table.take_run(run, now, self.limits);
                }
                self.messages.clear();
            }
            table.flush(now, self.limits);
            table.send();
        }
        busy
    }

    fn close(self) {
        self.consumer.context().set_closing();
        drop(self.tables);
        report(self.consumer.close_queue(), "leave the group");
        if self.revoke.is_some() {
            report(self.consumer.unassign(), "let go of partitions");
        }
        let deadline = self.clock.elapsed() + CLOSE_LIMIT;
        while !self.consumer.closed() && self.clock.elapsed() < deadline {
            drop(self.consumer.poll(Duration::from_millis(20)));
        }
    }

    fn is_cooperative(&self) -> bool {
        matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
    }
}

fn plain_list(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for source in partitions {
        list.add_partition(&source.topic, source.partition);
    }
    list
}

/// Logs a failed group call; librdkafka's own state decides what comes of it. True where it did not fail.
fn report(result: KafkaResult<()>, what: &str) -> bool {
    result.inspect_err(|error| tracing::warn!(%error, "{what}")).is_ok()
}
