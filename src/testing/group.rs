//! A model of the consumer group protocol, and of one member's poll thread as its table's driver sees it.
//! Members join, leave, crash and are thought dead; partitions move eagerly or cooperatively.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::broker::Fetched;
use super::world::{World, lock};
use crate::error::{Error, Result};
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::raw::RawBatch;
use crate::ports::{Source, SourceEvent, Start, TopicFacts, Watermarks};
use crate::runtime::budget::Budget;

/// Bytes that one replica may hold.
pub const BUDGET_BYTES: usize = 16 << 10;
/// A revoke that is not acknowledged by then is a fault of the driver: its own bound is well below.
const ACKNOWLEDGED_BY: Duration = Duration::from_secs(8);

/// One replica as the group sees it.
pub struct Member {
    /// Its name in the trace: replica and life.
    pub name: String,
    world: Arc<World>,
    state: Mutex<State>,
    budget: Budget,
}

#[derive(Default)]
struct State {
    assigned: BTreeSet<TopicPartition>,
    readings: BTreeMap<TopicPartition, Reading>,
    outbox: VecDeque<SourceEvent>,
    /// Partitions for which nothing may be sent any more.
    released: BTreeSet<TopicPartition>,
    gone: bool,
}

struct Reading {
    start: Start,
    topic_id: Option<Uuid>,
    at: NextOffset,
    ended_at: Option<NextOffset>,
}

impl Member {
    /// A member that has nothing yet, and the events of its source.
    #[must_use]
    pub fn new(name: String, world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { name, world, state: Mutex::default(), budget: Budget::new("simulated", BUDGET_BYTES) })
    }

    /// The member's process is no more.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.gone = true;
        // Whoever waits for an answer to one of these hears that nobody is there.
        state.outbox.clear();
    }

    /// True once its process is no more.
    pub fn is_gone(&self) -> bool {
        lock(&self.state).gone
    }

    /// What it believes to have.
    pub fn assigned(&self) -> BTreeSet<TopicPartition> {
        lock(&self.state).assigned.clone()
    }

    /// True where nothing may be sent for the partition.
    pub fn has_released(&self, source: &TopicPartition) -> bool {
        lock(&self.state).released.contains(source)
    }

    fn give(&self, partitions: Vec<TopicPartition>) {
        if partitions.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        for source in &partitions {
            state.released.remove(source);
            state.assigned.insert(source.clone());
        }
        state.outbox.push_back(SourceEvent::Assigned(partitions));
    }

    fn take(&self, partitions: Vec<TopicPartition>, lost: bool) -> Option<oneshot::Receiver<()>> {
        let mut state = lock(&self.state);
        for source in &partitions {
            state.assigned.remove(source);
            state.readings.remove(source);
        }
        if partitions.is_empty() || state.gone {
            return None;
        }
        let (done, told) = oneshot::channel();
        state.outbox.push_back(SourceEvent::Revoked { partitions, lost, done });
        Some(told)
    }

    fn release(&self, partitions: &[TopicPartition]) {
        let mut state = lock(&self.state);
        for source in partitions {
            if !state.assigned.contains(source) {
                state.released.insert(source.clone());
            }
        }
    }

    /// The poll thread: passes events on and fetches, until the driver is gone.
    pub async fn poll(self: Arc<Self>, events: mpsc::Sender<SourceEvent>) {
        loop {
            let pause = self.world.random().between(1, 25);
            self.world.clock.sleep(Duration::from_millis(pause)).await;
            while let Some(event) = self.next_event() {
                let lost = match &event {
                    SourceEvent::Revoked { partitions, lost: true, .. } => Some(partitions.clone()),
                    _ => None,
                };
                if events.send(event).await.is_err() {
                    return self.end();
                }
                if let Some(partitions) = lost {
                    // The driver takes it as soon as it runs; from then on nothing is sent.
                    self.world.clock.sleep(Duration::from_millis(1)).await;
                    self.release(&partitions);
                }
            }
            if self.is_gone() || events.is_closed() {
                return self.end();
            }
            self.fetch();
        }
    }

    fn next_event(&self) -> Option<SourceEvent> {
        lock(&self.state).outbox.pop_front()
    }

    /// Fetches some of what is being read into the outbox.
    fn fetch(&self) {
        let world = &self.world;
        let mut state = lock(&self.state);
        let State { readings, outbox, .. } = &mut *state;
        let mut ended = Vec::new();
        for (source, reading) in readings.iter_mut() {
            let (skip, most) = {
                let mut random = world.random();
                (random.per_mille(300), random.between(1, 12))
            };
            if skip || !self.budget.has_room() {
                continue;
            }
            let attempt = reading.start.attempt;
            if world.fails() && world.fails() {
                let error = Error::unavailable(format!("read partition `{source}`: broker away"));
                outbox.push_back(SourceEvent::Failed { source: source.clone(), attempt, error });
                ended.push(source.clone());
                continue;
            }
            let broker = world.broker();
            let id = reading.topic_id.or_else(|| broker.topic(&source.topic).map(|topic| topic.id));
            reading.topic_id = id;
            let Some(id) = id else { continue };
            match broker.fetch(RawBatch::new(source.clone(), attempt, reading.at), id, most as usize) {
                Fetched::Records(batch) => {
                    reading.at = batch.next;
                    reading.ended_at = None;
                    let bytes = batch.memory_bytes();
                    let charge = self.budget.take(bytes);
                    if self.budget.used() > BUDGET_BYTES + bytes {
                        world.wrong(format!("I9: {} bytes in flight in {}", self.budget.used(), self.name));
                    }
                    outbox.push_back(SourceEvent::Batch(batch, Box::new(charge)));
                }
                Fetched::End(next) => {
                    reading.at = NextOffset(next);
                    if reading.ended_at != Some(reading.at) {
                        reading.ended_at = Some(reading.at);
                        outbox.push_back(SourceEvent::Eof { source: source.clone(), attempt, next: reading.at });
                    }
                }
                Fetched::OutOfRange => {
                    outbox.push_back(SourceEvent::OutOfRange { source: source.clone(), attempt });
                    ended.push(source.clone());
                }
                Fetched::Gone => {
                    let error = Error::unavailable(format!("read partition `{source}`: unknown topic id"));
                    outbox.push_back(SourceEvent::Failed { source: source.clone(), attempt, error });
                    ended.push(source.clone());
                }
            }
        }
        readings.retain(|source, _| !ended.contains(source));
    }
}

#[async_trait]
impl Source for Member {
    fn start(&self, starts: Vec<Start>) {
        let mut state = lock(&self.state);
        for start in starts {
            let (source, at) = (start.source.clone(), start.at.next);
            self.world.note(format!("{} reads {source} from {at}", self.name));
            if !self.world.history().was_committed(&source, at) {
                self.world.wrong(format!("start: {} reads {source} from {at}, which no ledger has said", self.name));
            }
            if state.assigned.contains(&source) {
                let reading = Reading { at, start, topic_id: None, ended_at: None };
                state.readings.insert(source, reading);
            }
        }
    }

    fn stop(&self, partitions: Vec<TopicPartition>) {
        let mut state = lock(&self.state);
        state.readings.retain(|source, _| !partitions.contains(source));
    }

    async fn topic(&self, topic: &str) -> Result<Option<TopicFacts>> {
        self.world.request("broker").await?;
        let broker = self.world.broker();
        Ok(broker.topic(topic).map(|found| TopicFacts {
            cluster_id: "cluster".to_owned(),
            topic_id: Some(found.id),
            partitions: (0..found.partitions.len() as i32).collect(),
        }))
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Watermarks>> {
        self.world.request("broker").await?;
        let broker = self.world.broker();
        let known = partitions.iter().filter_map(|source| {
            let found = broker.topic(&source.topic)?.partitions.get(source.partition as usize)?;
            let (low, stable, high) = (NextOffset(found.low), NextOffset(found.stable()), NextOffset(found.high()));
            Some((source.clone(), Watermarks { low, stable, high }))
        });
        Ok(known.collect())
    }

    async fn offsets_at(
        &self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<BTreeMap<TopicPartition, NextOffset>> {
        let ends = self.watermarks(partitions).await?;
        let broker = self.world.broker();
        let at = |source: &TopicPartition, end: &Watermarks| {
            let partition = broker.topic(&source.topic)?.partitions.get(source.partition as usize)?;
            let later = |(_, (entry, _)): &(usize, &(super::broker::Entry, i32))| matches!(entry, super::broker::Entry::Record(record) if record.timestamp_ms >= timestamp_ms);
            let found = partition.log.iter().enumerate().skip(partition.low as usize).find(later);
            Some(found.map_or(end.high, |(offset, _)| NextOffset(offset as i64)))
        };
        Ok(ends.iter().filter_map(|(source, end)| Some((source.clone(), at(source, end)?))).collect())
    }

    fn hint(&self, _: Vec<(TopicPartition, NextOffset)>) {}
}

/// The group's coordinator.
#[derive(Default)]
pub struct Group {
    members: Mutex<Vec<Arc<Member>>>,
    wanted: Mutex<bool>,
}

impl Group {
    /// A member joins.
    pub fn join(&self, member: Arc<Member>) {
        lock(&self.members).push(member);
        self.rebalance();
    }

    /// A member leaves, or is thought dead: what it has goes to others, whether it knows or not.
    pub fn remove(&self, member: &Member) {
        lock(&self.members).retain(|other| other.name != member.name);
        self.rebalance();
    }

    /// Asks for a rebalance.
    pub fn rebalance(&self) {
        *lock(&self.wanted) = true;
    }

    /// Tells a member that was thought dead; it may join again then.
    pub fn tell_lost(member: &Member) {
        let all: Vec<_> = member.assigned().into_iter().collect();
        drop(member.take(all, true));
    }

    /// Rebalances whenever it is asked for.
    pub async fn coordinate(self: Arc<Self>, world: Arc<World>, cooperative: bool) {
        loop {
            world.clock.sleep(Duration::from_millis(10)).await;
            if std::mem::take(&mut *lock(&self.wanted)) {
                self.rebalance_now(&world, cooperative).await;
            }
        }
    }

    async fn rebalance_now(&self, world: &Arc<World>, cooperative: bool) {
        let members = lock(&self.members).clone();
        let target = target(world, &members);
        let text: Vec<_> = target.iter().map(|(source, name)| format!("{source}->{name}")).collect();
        world.note(format!("rebalance: {}", text.join(" ")));
        let mut waiting = Vec::new();
        for member in &members {
            let stays = |source: &TopicPartition| cooperative && target.get(source) == Some(&member.name);
            let gone: Vec<_> = member.assigned().into_iter().filter(|source| !stays(source)).collect();
            if let Some(told) = member.take(gone.clone(), false) {
                waiting.push((Arc::clone(member), gone, told));
            }
        }
        let released = waiting.into_iter().map(async |(member, gone, told)| {
            // A sender that was dropped belongs to a driver that is no more.
            if world.clock.timeout(ACKNOWLEDGED_BY, told).await.is_none() {
                world.wrong(format!("{} does not let go of {gone:?}", member.name));
            }
            member.release(&gone);
        });
        futures::future::join_all(released).await;
        for member in &members {
            let had = member.assigned();
            let mine = target.iter().filter(|(source, name)| **name == member.name && !had.contains(*source));
            let still_in = lock(&self.members).iter().any(|other| other.name == member.name);
            if still_in {
                member.give(mine.map(|(source, _)| source.clone()).collect());
            }
        }
    }
}

/// Who gets what next: spread evenly, in an order by chance.
fn target(world: &World, members: &[Arc<Member>]) -> BTreeMap<TopicPartition, String> {
    let mut all = Vec::new();
    {
        let broker = world.broker();
        for name in broker.names() {
            let partitions = broker.topic(&name).map_or(0, |topic| topic.partitions.len());
            all.extend((0..partitions).map(|partition| TopicPartition::new(name.as_str(), partition as i32)));
        }
    }
    if members.is_empty() {
        return BTreeMap::new();
    }
    world.random().shuffle(&mut all);
    all.into_iter().enumerate().map(|(n, source)| (source, members[n % members.len()].name.clone())).collect()
}
