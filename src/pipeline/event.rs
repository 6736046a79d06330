//! What the brain hears and what it orders: closed lists, at the grain of batches, never of records.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::ids::{Attempt, TableName, TopicPartition};
use crate::model::ledger::{Advances, Ledger};
use crate::model::offsets::NextOffset;
use crate::ports::{Gap, Start, Suspension, TableState, TopicFacts, Watermarks};

/// A table's part of the configuration, as far as the brain decides by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The table.
    pub table: TableName,
    /// Its topics.
    pub topics: Vec<String>,
    /// Where to begin with a topic that the table has never read.
    pub start: StartAt,
    /// What to do where offsets are gone before they were read.
    pub on_gap: OnGap,
    /// What to do where a topic is not the one that it was.
    pub on_topic_change: OnTopicChange,
    /// What to do with a record that cannot be a row.
    pub on_error: OnError,
    /// Commit when the oldest row waits that long …
    pub commit_interval: Duration,
    /// … or, where there is nothing but positions to commit, when these wait that long …
    pub idle_interval: Duration,
    /// … or when files reach that many bytes …
    pub commit_bytes: u64,
    /// … or when that many rows wait.
    pub commit_rows: u64,
    /// Commit as well whenever every partition has been read to its end, for a run that is to end there.
    pub commit_at_ends: bool,
    /// How long a revoke waits for commits.
    pub revoke_timeout: Duration,
    /// How often a table that cannot go on looks again.
    pub retry_interval: Duration,
    /// How often a table that goes on looks whether its topics are still the ones that they were.
    pub identity_interval: Duration,
}

/// Where to begin with a topic that the table has never read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record.
    Earliest,
    /// Behind the newest.
    Latest,
    /// At the first record from that time on, milliseconds since the epoch.
    Timestamp(i64),
    /// At these offsets; partitions that are not named begin at the oldest record.
    Offsets(BTreeMap<i32, i64>),
    /// At these positions; partitions that are not named begin at the oldest record.
    Positions(BTreeMap<TopicPartition, NextOffset>),
}

/// What to do where offsets are gone before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// Stop the table.
    Fail,
    /// Record the range with the ledger and go on behind it.
    Continue,
}

/// What to do where a topic is not the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTopicChange {
    /// Stop the table.
    Fail,
    /// Declare a new incarnation, which starts at 0.
    NewIncarnation,
}

/// What to do with a record that cannot be a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Write it to the dead-letter table.
    DeadLetter,
    /// Suspend the table before it.
    Suspend,
    /// Count it and go on.
    Skip,
}

/// Names a batch that the driver holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Names a run of batches that are committed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochId(pub u64);

/// Names a revoke that waits to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The table and its topics as they are, looked up together.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The table.
    pub state: TableState,
    /// Per topic what the broker says; `None` where it knows no such topic.
    pub topics: BTreeMap<String, Option<TopicFacts>>,
    /// The readable ranges of all partitions of all topics.
    pub watermarks: BTreeMap<TopicPartition, Watermarks>,
    /// Where `start` is a time: the offsets at it, for topics that the ledger does not know.
    pub at_time: BTreeMap<TopicPartition, NextOffset>,
}

/// What a decoded batch is, without its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedFacts {
    /// Partition.
    pub source: TopicPartition,
    /// Its reading.
    pub attempt: Attempt,
    /// The position before.
    pub first: NextOffset,
    /// The position behind.
    pub next: NextOffset,
    /// Epoch of the last record's leader.
    pub leader_epoch: Option<i32>,
    /// Timestamp of the newest record.
    pub newest_ms: Option<i64>,
    /// Rows.
    pub rows: u64,
    /// The first record that cannot be a row, described; where it suspends the table, the batch ends before it.
    pub reject: Option<String>,
}

/// What became of a commit, as the brain needs it.
#[derive(Debug)]
pub enum CommitEnd {
    /// It is in; the table's state.
    Committed(Box<TableState>),
    /// It is not and will not be.
    Dropped(String),
    /// The table cannot be gone on with.
    Halted(String),
}

/// What the brain hears.
#[derive(Debug)]
pub enum Event {
    /// The group gave partitions.
    Assigned(Vec<TopicPartition>),
    /// The group takes partitions.
    Revoked {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// They are gone already.
        lost: bool,
        /// Whom to answer.
        ticket: Ticket,
    },
    /// A survey is done.
    Surveyed(Box<Survey>),
    /// A survey showed that the table cannot be gone on with.
    SurveyHalted(String),
    /// A batch came in.
    Polled {
        /// The batch.
        batch: BatchId,
        /// Its partition.
        source: TopicPartition,
        /// Its reading.
        attempt: Attempt,
        /// The position before it.
        first: NextOffset,
        /// The position behind it.
        next: NextOffset,
    },
    /// All that is stable of a partition came in.
    Eof {
        /// Partition.
        source: TopicPartition,
        /// Its reading.
        attempt: Attempt,
        /// The position behind.
        next: NextOffset,
    },
    /// A partition cannot be read as started.
    ReadFailed {
        /// Partition.
        source: TopicPartition,
        /// Its reading.
        attempt: Attempt,
        /// Why.
        reason: String,
    },
    /// A batch is decoded. Batches of a partition come in order.
    Decoded(BatchId, DecodedFacts),
    /// A batch cannot be decoded, and not for reasons of single records: its schema does not fit the table.
    Undecodable(BatchId, Attempt, TopicPartition, String),
    /// A batch is in the epoch's files, which have that many bytes now.
    Written(EpochId, u64),
    /// The epoch's files are complete.
    Sealed(EpochId),
    /// The epoch's files could not be written; `passes` where trying again later may do.
    WriteFailed {
        /// The epoch.
        epoch: EpochId,
        /// True where it may pass.
        passes: bool,
        /// Why.
        reason: String,
    },
    /// A commit ended.
    CommitEnded(EpochId, CommitEnd),
    /// Time has passed.
    Tick,
    /// Finish what is begun, then end.
    Stop,
}

/// What a commit says besides its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitPlan {
    /// The ledger's steps.
    pub advances: Advances,
    /// Identities to record.
    pub identity: Ledger,
    /// Suspend or resume.
    pub suspension: Option<Option<Suspension>>,
    /// Ranges given up.
    pub gaps: Vec<Gap>,
    /// Timestamp of the newest record.
    pub newest_ms: Option<i64>,
}

/// What the brain orders.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Look up table and topics; make the table where it is missing and `create` says so. Answered by `Surveyed`.
    Survey {
        /// True until the table was seen once.
        create: bool,
    },
    /// Begin to read.
    Begin(Vec<Start>),
    /// Stop reading.
    Halt(Vec<TopicPartition>),
    /// Decode a batch. Answered by `Decoded`.
    Decode(BatchId),
    /// Forget a batch.
    Discard(BatchId),
    /// Write a decoded batch into an epoch. Answered by `Written`.
    Write(BatchId, EpochId),
    /// Complete an epoch's files, after all its batches. Answered by `Sealed`.
    Seal(EpochId),
    /// Commit an epoch. Answered by `CommitEnded`.
    Commit(EpochId, CommitPlan),
    /// Forget all batches and epochs, commits under way included: they may land, and are then the truth.
    Abandon,
    /// Nothing will be sent for the partitions of this revoke.
    Acknowledge(Ticket),
    /// Tell the group how far the table is.
    Hint(Vec<(TopicPartition, NextOffset)>),
    /// Say how the table is.
    Report(Condition),
    /// All is done after `Stop`.
    Finished,
}

/// How a table is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Looking up table and topics.
    Starting,
    /// Reading and committing, or nothing assigned.
    Running,
    /// Waiting for something that passes.
    Waiting(On, String),
    /// Suspended, durably.
    Suspended(String),
    /// Stopped; somebody must choose.
    Stopped(String),
}

/// What a table waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The schema registry.
    Registry,
    /// Brokers, topics, partitions.
    Kafka,
    /// The catalog.
    Catalog,
    /// The object store.
    Store,
}
