//! A table's progress as results show it: whether it can go on, and its ledger position by position.

use serde::Serialize;

use crate::ports::{Progress, Recovery};

/// Whether a table can be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Health {
    /// `ok`, `new` (no ledger yet), `suspended` or `halted`.
    pub(super) state: &'static str,
    /// What stops it.
    pub(super) reason: Option<String>,
    /// Since when it is suspended, milliseconds since the epoch.
    pub(super) since_ms: Option<i64>,
}

/// How far one partition has been taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LedgerEntry {
    /// Topic.
    pub(super) topic: String,
    /// Its id, where the broker tells one.
    pub(super) topic_id: Option<String>,
    /// How often the topic was declared made anew.
    pub(super) incarnation: u32,
    /// Partition.
    pub(super) partition: i32,
    /// The first offset that is not decided.
    pub(super) next_offset: i64,
    /// Epoch of the leader that wrote the last record taken.
    pub(super) leader_epoch: Option<i32>,
}

/// Whether a table can be gone on with.
pub(super) fn health(recovery: &Recovery) -> Health {
    let (state, reason, since_ms) = match recovery {
        Recovery::Fresh => ("new", None, None),
        Recovery::At(Progress { suspension: None, .. }) => ("ok", None, None),
        Recovery::At(Progress { suspension: Some(suspension), .. }) => {
            ("suspended", Some(suspension.reason.clone()), Some(suspension.since_ms))
        }
        Recovery::Halted(reason) => ("halted", Some(reason.clone()), None),
    };
    Health { state, reason, since_ms }
}

/// The ledger, topic by topic and partition by partition.
pub(super) fn entries(progress: &Progress) -> Vec<LedgerEntry> {
    let topics = progress.ledger.topics.iter();
    topics
        .flat_map(|(name, topic)| {
            topic.partitions.iter().map(move |(partition, at)| LedgerEntry {
                topic: name.clone(),
                topic_id: topic.topic_id.map(|id| id.to_string()),
                incarnation: topic.incarnation,
                partition: *partition,
                next_offset: at.next.0,
                leader_epoch: at.leader_epoch,
            })
        })
        .collect()
}
