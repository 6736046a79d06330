//! Which state of a table an answer is about.

use std::collections::BTreeMap;

use super::ids::TopicPartition;
use super::offsets::NextOffset;

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
    Fresh(BTreeMap<TopicPartition, NextOffset>),
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
    pub offsets: BTreeMap<TopicPartition, NextOffset>,
    /// Timestamp of the newest record in it, milliseconds since the epoch.
    pub newest_ms: Option<i64>,
}
