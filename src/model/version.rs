//! Which state of a table an answer is about.

use std::collections::BTreeMap;

use super::ids::TopicPartition;
use super::offsets::NextOffset;

/// Per partition an offset: the first that is not in what it is said of.
pub type Offsets = BTreeMap<TopicPartition, NextOffset>;

/// The same by topic, as it is written down and sent.
pub type OffsetsByTopic = BTreeMap<String, BTreeMap<i32, i64>>;

/// Offsets as they are written down and sent.
#[must_use]
pub fn by_topic(offsets: &Offsets) -> OffsetsByTopic {
    let mut topics = OffsetsByTopic::new();
    for (source, next) in offsets {
        topics.entry(source.topic.to_string()).or_default().insert(source.partition, next.0);
    }
    topics
}

/// Offsets that were written down or sent.
#[must_use]
pub fn from_topics(topics: &OffsetsByTopic) -> Offsets {
    let all = topics.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|(p, next)| (TopicPartition::new(topic.as_str(), *p), NextOffset(*next)))
    });
    all.collect()
}

/// Which snapshot of a table to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotAt {
    /// The current one of `main`.
    Current,
    /// The one with this id.
    Id(i64),
    /// The one that was current at that time, milliseconds since the epoch.
    Timestamp(i64),
}

/// What an answer is to contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// What is committed and what has come since; at least up to these positions, for a reader of what it wrote.
    Fresh(Offsets),
    /// What is committed.
    Committed,
    /// A snapshot.
    At(SnapshotAt),
}

/// How far an answer reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AsOf {
    /// The snapshot that it reads; `None` for a table without any.
    pub snapshot_id: Option<i64>,
    /// Per partition the first offset that is not in it.
    pub offsets: Offsets,
    /// Timestamp of the newest record in it, milliseconds since the epoch.
    pub newest_ms: Option<i64>,
}
