//! Contracts between the brain and the world, as traits in prose. Adapters implement them; nothing here does anything.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::file::WrittenFile;
use crate::model::ids::{Attempt, CommitId, TableName, TopicPartition};
use crate::model::ledger::{Advances, Ledger, Position};
use crate::model::offsets::NextOffset;
use crate::model::raw::RawBatch;
use crate::model::schema::TableSchema;
use crate::model::version::{AsOf, Offsets};

mod datasets;
mod peek;
mod reading;
mod rows;
mod search;

pub use datasets::*;
pub use peek::*;
pub use reading::*;
pub use rows::*;
pub use search::*;

/// Bytes taken from a budget; they are given back when it is dropped.
pub type Charge = Box<dyn Any + Send + Sync>;

/// What a table's driver hears of its topics, in order.
pub enum SourceEvent {
    /// The group gave these partitions to this process. Nothing is read until [`Source::start`].
    Assigned(Vec<TopicPartition>),
    /// The group takes these partitions away.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// True where they are gone already: nothing may be sent for them any more.
        lost: bool,
        /// Send (or drop) when nothing will be sent for them afterwards; the source waits for it, within bounds.
        done: oneshot::Sender<()>,
    },
    /// Records of one partition; `first` continues the partition's batch before.
    Batch(RawBatch, Charge),
    /// Everything below `next` has been delivered; what lies between the last record and `next` is a hole.
    Eof {
        /// Partition.
        source: TopicPartition,
        /// Its reading.
        attempt: Attempt,
        /// The position behind all that was stable.
        next: NextOffset,
    },
    /// The start position lies outside the log: below its start, or above its end. The partition is not being read.
    OutOfRange {
        /// Partition.
        source: TopicPartition,
        /// Its reading.
        attempt: Attempt,
    },
    /// Reading a partition failed for good in this attempt (deleted topic, no permission …); it is not being read.
    Failed {
        /// Partition.
        source: TopicPartition,
        /// Its reading.
        attempt: Attempt,
        /// Why.
        error: Error,
    },
}

/// Where and as what a partition is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Partition.
    pub source: TopicPartition,
    /// The first offset to deliver, and the epoch of the record before it where known.
    pub at: Position,
    /// Stamped on all events of this reading.
    pub attempt: Attempt,
}

/// What the broker says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicFacts {
    /// The cluster's id; empty where the broker tells none.
    pub cluster_id: String,
    /// The topic's id; `None` where the broker tells none.
    pub topic_id: Option<Uuid>,
    /// Its partitions.
    pub partitions: Vec<i32>,
}

/// The readable range of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The oldest offset retained.
    pub low: NextOffset,
    /// The position behind the last stable record: open transactions lie at or above it.
    pub stable: NextOffset,
    /// The position behind the last record, stable or not.
    pub high: NextOffset,
}

/// Topics of one table, as its driver reads them.
///
/// Events come through the receiver made with the source, in order per partition. Reading is at least once across
/// attempts: after `start` with a new attempt, events of older attempts may still come and are to be ignored.
#[async_trait]
pub trait Source: Send + Sync {
    /// Begins (or begins anew) to read partitions that are assigned. Starting one that is not assigned is ignored.
    fn start(&self, starts: Vec<Start>);

    /// Stops reading; the partitions stay assigned. Events already on their way may still come.
    fn stop(&self, partitions: Vec<TopicPartition>);

    /// What the broker says of `topic`; `None` where it answers that there is no such topic.
    ///
    /// # Errors
    /// `Unavailable` where no broker answers, `Denied` where it refuses.
    async fn topic(&self, topic: &str) -> Result<Option<TopicFacts>>;

    /// The readable ranges of partitions; those that the broker does not know are left out.
    ///
    /// # Errors
    /// As [`Source::topic`].
    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Watermarks>>;

    /// Per partition the first offset whose timestamp is at or after `timestamp_ms`, or its end where there is none.
    ///
    /// # Errors
    /// As [`Source::topic`].
    async fn offsets_at(
        &self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<BTreeMap<TopicPartition, NextOffset>>;

    /// Tells the group how far the table is: a hint for lag tools, never read back. Best effort.
    fn hint(&self, positions: Vec<(TopicPartition, NextOffset)>);
}

/// The language of a registered schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaFormat {
    /// Apache Avro.
    Avro,
    /// Protocol Buffers.
    Protobuf,
    /// JSON Schema.
    Json,
}

/// A schema as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// Its id, as records carry it; 0 where it was asked for by its GUID.
    pub id: u32,
    /// Its language.
    pub format: SchemaFormat,
    /// Its text.
    pub text: String,
    /// The schemas that it refers to, each after those that it refers to itself: reference name and schema.
    pub references: Vec<(String, Arc<RegisteredSchema>)>,
}

/// The schema registry. Answers are cached by id for ever, "no such" for a short while.
#[async_trait]
pub trait Registry: Send + Sync {
    /// The schema with this id; `None` where the registry answers that there is none.
    ///
    /// # Errors
    /// `Unavailable` where it does not answer, `Denied` where it refuses: both mean wait, never reject.
    async fn schema(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>>;

    /// The schema with this globally unique id; `None` where the registry answers that there is none.
    ///
    /// # Errors
    /// As [`Registry::schema`].
    async fn schema_by_guid(&self, guid: Uuid) -> Result<Option<Arc<RegisteredSchema>>>;

    /// The newest schema of a subject; `None` where the registry answers that there is none.
    ///
    /// # Errors
    /// As [`Registry::schema`].
    async fn latest(&self, subject: &str) -> Result<Option<Arc<RegisteredSchema>>>;
}

/// Why a table takes no records for now; kept in its ledger snapshot, so that every replica sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// What happened and where, for people.
    pub reason: String,
    /// When, milliseconds since the epoch.
    pub since_ms: i64,
}

/// Offsets that were gone before they were read, and were given up by `on_gap: continue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// First offset given up.
    pub from: NextOffset,
    /// The position behind the last one.
    pub to: NextOffset,
}

/// What a table's snapshots say of its progress.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Next offsets.
    pub ledger: Ledger,
    /// Set while the table is suspended.
    pub suspension: Option<Suspension>,
    /// All ranges ever given up.
    pub gaps: Vec<Gap>,
}

/// How a table's history can be gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// No ledger was ever committed to it.
    Fresh,
    /// Go on from here.
    At(Progress),
    /// History and ledger contradict each other; the text names both positions and the commands that choose one.
    Halted(String),
}

/// A table at one point of its history.
#[derive(Debug, Clone)]
pub struct TableState {
    /// Its name.
    pub table: TableName,
    /// Its identity; a table made anew under the name has another.
    pub uuid: Uuid,
    /// The current snapshot of `main`.
    pub snapshot_id: Option<i64>,
    /// The number of the newest change; grows with each snapshot.
    pub sequence_number: i64,
    /// The current schema.
    pub schema: Arc<TableSchema>,
    /// Where to go on.
    pub recovery: Recovery,
    /// Rows, as the current snapshot counts them.
    pub rows: u64,
    /// Timestamp of the newest record of the newest commit that had any, milliseconds since the epoch.
    pub newest_ms: Option<i64>,
    /// All table properties.
    pub properties: Arc<BTreeMap<String, String>>,
    /// How it lies, and whose it is.
    pub shape: Arc<TableShape>,
}

/// How a table lies, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableShape {
    /// True where another tool made it and Frazil has not taken it over.
    pub is_foreign: bool,
    /// Iceberg format version.
    pub format_version: u8,
    /// Where it lies.
    pub location: String,
    /// Partition fields, outermost first; a field inside a struct by its path, with dots.
    pub partition_by: Vec<PartitionField>,
    /// What rows are sorted by inside a file: a column, or more words where it is not a column ascending, nulls first.
    pub sort_by: Vec<String>,
    /// Names that no column may get, since partition fields have them.
    pub reserved: Vec<String>,
    /// Delete files of other engines, which no query here can apply.
    pub delete_files: u64,
    /// Why Frazil cannot write to it; known of foreign tables only.
    pub unwritable: Option<String>,
}

impl TableState {
    /// How far it reaches.
    #[must_use]
    pub fn as_of(&self) -> AsOf {
        AsOf { snapshot_id: self.snapshot_id, offsets: self.offsets(), newest_ms: self.newest_ms }
    }

    /// Per partition the first offset that is not committed; none before its first ledger.
    #[must_use]
    pub fn offsets(&self) -> Offsets {
        match &self.recovery {
            Recovery::At(progress) => progress.ledger.offsets(),
            Recovery::Fresh | Recovery::Halted(_) => Offsets::new(),
        }
    }
}

/// How a table is made.
#[derive(Debug, Clone, PartialEq)]
pub struct TableLayout {
    /// Columns; ids are given on creation.
    pub schema: TableSchema,
    /// Partition fields, outermost first, as in `day(ts)`.
    pub partition_by: Vec<PartitionField>,
    /// Columns to sort rows by inside a file.
    pub sort_by: Vec<String>,
    /// Iceberg format version: 2 or 3.
    pub format_version: u8,
    /// Table properties.
    pub properties: BTreeMap<String, String>,
    /// Where the table lies; `None`: below the warehouse.
    pub location: Option<String>,
}

/// A partition field: a transform of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionField {
    /// Top-level column.
    pub column: String,
    /// What is made of it.
    pub transform: Transform,
}

/// As in the configuration: `day(ts)`, `bucket(16, id)`, or the column alone.
impl fmt::Display for PartitionField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = &self.column;
        match self.transform {
            Transform::Identity => f.write_str(column),
            Transform::Year => write!(f, "year({column})"),
            Transform::Month => write!(f, "month({column})"),
            Transform::Day => write!(f, "day({column})"),
            Transform::Hour => write!(f, "hour({column})"),
            Transform::Bucket(width) => write!(f, "bucket({width}, {column})"),
            Transform::Truncate(width) => write!(f, "truncate({width}, {column})"),
        }
    }
}

/// Iceberg's partition transforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transform {
    /// The value.
    Identity,
    /// Its year.
    Year,
    /// Its month.
    Month,
    /// Its day.
    Day,
    /// Its hour.
    Hour,
    /// Its hash modulo that number.
    Bucket(u32),
    /// Its first characters, or the number rounded down to that width.
    Truncate(u32),
}

/// One commit, all or nothing.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Names the commit in the summary.
    pub id: CommitId,
    /// The table.
    pub table: TableName,
    /// The identity that it must still have.
    pub table_uuid: Uuid,
    /// The schema that the files were written with.
    pub schema: Arc<TableSchema>,
    /// The ledger's steps.
    pub advances: Advances,
    /// Cluster id, topic ids and incarnations to record with the steps; positions in it are ignored.
    pub identity: Ledger,
    /// Data files, uploaded.
    pub files: Vec<WrittenFile>,
    /// Dead-letter files, uploaded, and the identity of the table that they belong to.
    pub dead_letters: Option<(Uuid, Vec<WrittenFile>)>,
    /// `Some(Some(_))` suspends the table, `Some(None)` resumes it.
    pub suspension: Option<Option<Suspension>>,
    /// Ranges given up in this commit.
    pub gaps: Vec<Gap>,
    /// Timestamp of the newest record in it.
    pub newest_ms: Option<i64>,
    /// Counts attempts that met another writer's commit and were made again on top of it.
    pub conflicts: Arc<AtomicU64>,
}

/// What became of a commit.
#[derive(Debug, Clone)]
pub enum CommitOutcome {
    /// It is in the table's history; the state right after it, or after others that came later.
    Committed(TableState),
    /// It is not and never will be: another writer had moved one of its partitions. The current state and the reason.
    Stale(TableState, String),
    /// It is not and never will be: the table's schema or layout changed in meaning; the rows must be written anew.
    Outdated(TableState),
}

/// Writes rows of one table into files; used by one task at a time. Dropping it gives up: unfinished uploads are
/// aborted, and files that are complete are orphans.
#[async_trait]
pub trait FileWriter: Send {
    /// Takes rows in the schema that the writer was made for. Returns when they are encoded or buffered within the
    /// writer's budget; may wait for uploads.
    ///
    /// # Errors
    /// `Unavailable` where the store does not take the bytes; the writer is then useless and is to be dropped.
    async fn write(&mut self, rows: RecordBatch) -> Result<()>;

    /// Completes all files.
    ///
    /// # Errors
    /// As [`FileWriter::write`].
    async fn finish(self: Box<Self>) -> Result<Vec<WrittenFile>>;

    /// Bytes of its files so far, complete or not, those waiting to be encoded included.
    fn file_bytes(&self) -> u64;
}

/// Tables, as ingestion sees them.
#[async_trait]
pub trait Lake: Send + Sync {
    /// The table's current state; `None` where the catalog answers that there is no such table.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where its metadata cannot be understood.
    async fn load(&self, table: &TableName) -> Result<Option<TableState>>;

    /// Makes the table, or loads it where another replica was faster.
    ///
    /// # Errors
    /// As [`Lake::load`]; `InvalidConfig` where the layout cannot be.
    async fn create(&self, table: &TableName, layout: &TableLayout) -> Result<TableState>;

    /// Makes `wanted` the columns of the table, where these are still the ones of `from`: columns go by their ids, those
    /// without one are new, and those that `wanted` lacks are dropped. Where they are others by now they are left as
    /// they are: the caller works out anew what is wanted of them. Either way sets those of `properties` that the table
    /// does not have yet. By a commit of its own; answers the state after it, whoever changed it.
    ///
    /// # Errors
    /// As [`Lake::load`]; `Corrupt` where the table was replaced or has vanished.
    async fn evolve(
        &self,
        from: &TableState,
        wanted: &TableSchema,
        properties: &BTreeMap<String, String>,
    ) -> Result<TableState>;

    /// A writer for rows in `state`'s schema. `commit` names its files.
    ///
    /// # Errors
    /// `Corrupt` where the table's layout cannot be written.
    fn writer(&self, state: &TableState, commit: CommitId) -> Result<Box<dyn FileWriter>>;

    /// Commits. Returns only with a definite outcome; where an answer was lost it finds out, however long it takes.
    ///
    /// # Errors
    /// `Unavailable` or `Denied` where it was certainly never applied and may be tried again as it is; `Corrupt`
    /// where the table was replaced, vanished or was rolled back.
    async fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome>;
}
