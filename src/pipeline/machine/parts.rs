//! What the brain keeps in mind: readings, epochs, revokes. No decisions.

use std::time::Duration;

use crate::model::ids::{Attempt, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::pipeline::event::{CommitPlan, EpochId, Ticket};

/// Reading of one partition.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) attempt: Attempt,
    /// Behind all that came in.
    pub(super) polled: NextOffset,
    /// Behind all that is in the open epoch or before it.
    pub(super) decoded: NextOffset,
    /// Where the open epoch starts.
    pub(super) base: NextOffset,
    pub(super) leader_epoch: Option<i32>,
    /// Batches being decoded.
    pub(super) decoding: u32,
    pub(super) revoking: bool,
    /// Whether nothing came since the broker told its end.
    pub(super) is_at_end: bool,
}

/// Batches that will be committed together.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) id: EpochId,
    pub(super) plan: CommitPlan,
    pub(super) rows: u64,
    pub(super) file_bytes: u64,
    /// When its first batch came.
    pub(super) since: Option<Duration>,
    /// When its first row came, or its first record that is none.
    pub(super) rows_since: Option<Duration>,
}

/// The epoch that is being completed and committed.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: EpochId,
    pub(super) plan: CommitPlan,
    /// A commit that only states where reading begins.
    pub(super) is_first: bool,
}

/// A revoke that waits for commits.
#[derive(Debug)]
pub(super) struct Revoke {
    pub(super) ticket: Ticket,
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) deadline: Duration,
}

/// Whether table and topics are being looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looking {
    No,
    /// `again`: something changed meanwhile.
    Now {
        again: bool,
    },
    At(Duration),
}

impl Epoch {
    pub(super) fn new(id: EpochId) -> Self {
        Self { id, plan: CommitPlan::default(), rows: 0, file_bytes: 0, since: None, rows_since: None }
    }
}
