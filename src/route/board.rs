//! Who reads which partition, and how far: what the one reading is to do for all of them. No channels, no records.

use std::collections::BTreeMap;

use super::MemberId;
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::ledger::Position;
use crate::model::offsets::NextOffset;
use crate::ports::Start;

/// The partitions that the group gave this process.
#[derive(Debug, Default)]
pub(super) struct Board {
    partitions: BTreeMap<TopicPartition, Partition>,
    last_attempt: u64,
}

#[derive(Debug, Default)]
struct Partition {
    reading: Option<Reading>,
    takers: BTreeMap<MemberId, Taker>,
}

/// The one reading of a partition.
#[derive(Debug)]
struct Reading {
    attempt: Attempt,
    /// Behind all that was given.
    at: NextOffset,
}

/// A table's reading of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taker {
    /// Its own attempt.
    pub(super) attempt: Attempt,
    /// Behind all that it was given, and the epoch of the last record before it.
    pub(super) at: Position,
    /// Behind all that was looked at for it: what lies between is not its own.
    pub(super) looked: NextOffset,
    /// True where it was given records since it was told of the partition's end.
    pub(super) has_news: bool,
}

/// What the one reading is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    pub(super) start: Vec<Start>,
    pub(super) stop: Vec<TopicPartition>,
}

impl Board {
    pub(super) fn assign(&mut self, partitions: &[TopicPartition]) {
        for source in partitions {
            self.partitions.entry(source.clone()).or_default();
        }
    }

    pub(super) fn assigned(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    pub(super) fn revoke(&mut self, partitions: &[TopicPartition]) {
        for source in partitions {
            self.partitions.remove(source);
        }
    }

    /// A table begins to read; partitions that are not assigned are ignored.
    pub(super) fn start(&mut self, member: MemberId, start: &Start) {
        if let Some(partition) = self.partitions.get_mut(&start.source) {
            let taker = Taker { attempt: start.attempt, at: start.at, looked: start.at.next, has_news: true };
            partition.takers.insert(member, taker);
        }
    }

    pub(super) fn stop(&mut self, member: MemberId, source: &TopicPartition) {
        if let Some(partition) = self.partitions.get_mut(source) {
            partition.takers.remove(&member);
        }
    }

    pub(super) fn leave(&mut self, member: MemberId) {
        for partition in self.partitions.values_mut() {
            partition.takers.remove(&member);
        }
    }

    /// What the reading has to change: each partition is read from its hindmost table on, and not at all where no table
    /// reads it.
    pub(super) fn orders(&mut self) -> Orders {
        let mut orders = Orders::default();
        for (source, partition) in &mut self.partitions {
            let from = |taker: &Taker| Position { next: taker.looked, leader_epoch: taker.at.leader_epoch };
            let hindmost = partition.takers.values().map(from).min_by_key(|at| at.next);
            match (hindmost, &partition.reading) {
                (None, Some(_)) => {
                    partition.reading = None;
                    orders.stop.push(source.clone());
                }
                (Some(at), reading) if reading.as_ref().is_none_or(|reading| reading.at > at.next) => {
                    self.last_attempt += 1;
                    let attempt = Attempt(self.last_attempt);
                    partition.reading = Some(Reading { attempt, at: at.next });
                    orders.start.push(Start { source: source.clone(), at, attempt });
                }
                _ => {}
            }
        }
        orders
    }

    /// Whether events of this reading still count.
    pub(super) fn is_current(&self, source: &TopicPartition, attempt: Attempt) -> bool {
        let reading = self.partitions.get(source).and_then(|partition| partition.reading.as_ref());
        reading.is_some_and(|reading| reading.attempt == attempt)
    }

    /// Everything below `next` was given to whoever takes it.
    pub(super) fn gave(&mut self, source: &TopicPartition, next: NextOffset) {
        if let Some(reading) = self.partitions.get_mut(source).and_then(|partition| partition.reading.as_mut()) {
            reading.at = reading.at.max(next);
        }
    }

    /// The tables that can take what comes next of a partition. One that has just begun further behind cannot: what lies
    /// between is read for it first.
    pub(super) fn takers(&mut self, source: &TopicPartition) -> impl Iterator<Item = (MemberId, &mut Taker)> {
        let partition = self.partitions.get_mut(source);
        let reading = partition.and_then(|partition| Some((partition.reading.as_ref()?.at, &mut partition.takers)));
        reading.into_iter().flat_map(|(at, takers)| {
            let in_step = takers.iter_mut().filter(move |(_, taker)| taker.looked >= at);
            in_step.map(|(member, taker)| (*member, taker))
        })
    }

    /// The reading of a partition has ended by itself: whose readings end with it. Where it was `out_of_range` these are
    /// the hindmost alone, and the others go on.
    pub(super) fn ended(&mut self, source: &TopicPartition, out_of_range: bool) -> Vec<(MemberId, Attempt)> {
        let Some(partition) = self.partitions.get_mut(source) else { return Vec::new() };
        let Some(reading) = partition.reading.take() else { return Vec::new() };
        let ends = |taker: &Taker| !out_of_range || taker.looked <= reading.at;
        let ended = partition.takers.iter().filter(|(_, taker)| ends(taker));
        let ended: Vec<_> = ended.map(|(member, taker)| (*member, taker.attempt)).collect();
        partition.takers.retain(|_, taker| !ends(taker));
        ended
    }
}
