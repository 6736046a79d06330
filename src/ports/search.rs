//! Contracts of search: text in, records out, by word and by meaning, over what is indexed and what has just come.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::ids::{TableName, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::record::RecordId;
use crate::model::version::AsOf;

/// What is looked for, where, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// Words, a sentence, or a record's id (`topic/partition/offset`).
    pub query: String,
    /// The tables to look in; empty: all that are indexed.
    pub tables: BTreeSet<TableName>,
    /// Which arms to use.
    pub mode: SearchMode,
    /// A SQL predicate over the index's filter columns, `_topic`, `_partition`, `_offset` and `_time`.
    pub filter: Option<String>,
    /// Only records from this time on, milliseconds since the epoch.
    pub time_from_ms: Option<i64>,
    /// Only records before this time, milliseconds since the epoch.
    pub time_to_ms: Option<i64>,
    /// How much newer records are preferred.
    pub recency: Recency,
    /// True where records that are not indexed yet are to be found, too.
    pub hot: bool,
    /// What must be findable before the search begins, for a reader of what it wrote.
    pub at_least: BTreeMap<TopicPartition, NextOffset>,
    /// Hits given at most.
    pub limit: usize,
    /// How long it may take; an arm that has not ended by then is named and left out.
    pub time: Duration,
}

/// Which arms a search uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchMode {
    /// Words and meaning; the record alone where the query is its id.
    #[default]
    Auto,
    /// Words, ranked by BM25.
    Keyword,
    /// Meaning: nearest vectors.
    Vector,
    /// Both, fused by reciprocal rank.
    Hybrid,
}

/// How much newer records are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recency {
    /// Not at all.
    #[default]
    None,
    /// A record loses up to a third of its score with age.
    Mild,
    /// A record loses up to nine tenths of its score with age.
    Strong,
}

/// One way of finding records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// The record's own id.
    Id,
    /// Words, in the index.
    Keyword,
    /// Meaning, in the index.
    Vector,
    /// Words, among records that are not indexed yet.
    HotKeyword,
    /// Meaning, among records that are not indexed yet.
    HotVector,
}

/// Where a hit was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Not indexed yet.
    Hot,
    /// In the index.
    Index,
}

/// A record found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Which record.
    pub id: RecordId,
    /// Its table.
    pub table: TableName,
    /// Where it was found.
    pub tier: Tier,
    /// Fused score; higher is better, comparable within one answer only.
    pub score: f64,
    /// The record's timestamp, milliseconds since the epoch.
    pub time_ms: Option<i64>,
    /// The part of its text that fits best.
    pub snippet: String,
    /// Where words of the query stand in `snippet`, in bytes.
    pub matches: Vec<Range<usize>>,
    /// Its rank in each arm that found it, from 1.
    pub ranks: BTreeMap<Arm, usize>,
}

/// How one arm went in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmReport {
    /// Table.
    pub table: TableName,
    /// Arm.
    pub arm: Arm,
    /// How it ended.
    pub status: ArmStatus,
    /// Records it found.
    pub hits: usize,
    /// How long it took.
    pub time: Duration,
}

/// How an arm ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArmStatus {
    /// It looked at everything.
    Done,
    /// It was not done in time; its records are missing.
    Late,
    /// It failed, for this reason; its records are missing.
    Failed(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAnswer {
    /// Records, the best first.
    pub hits: Vec<Hit>,
    /// How each arm went.
    pub arms: Vec<ArmReport>,
    /// How far the answer reaches, for each table that was searched.
    pub as_of: BTreeMap<TableName, AsOf>,
}

/// What is known of one table's index.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexFacts {
    /// Table.
    pub table: TableName,
    /// The snapshot that the index covers; its offsets are the first that are not indexed.
    pub indexed: AsOf,
    /// Per partition the first offset that cannot be found yet, records not indexed yet included.
    pub findable: BTreeMap<TopicPartition, NextOffset>,
    /// Pieces of text in it.
    pub entries: u64,
    /// The model that its vectors are of.
    pub model: String,
    /// The template that its text is made by.
    pub text: String,
    /// Columns that a filter may name.
    pub filters: Vec<String>,
}

/// Search over the tables that are indexed here.
#[async_trait]
pub trait Search: Send + Sync {
    /// Looks for records. An arm that fails or is late is named in the answer; the others' hits are given.
    ///
    /// # Errors
    /// `InvalidRequest` where a table is not indexed (with what is) or the filter cannot be understood (with the
    /// columns that there are); `Unavailable` where `at_least` is not findable in time.
    async fn search(&self, request: SearchRequest) -> Result<SearchAnswer>;

    /// Every index here.
    fn indexes(&self) -> Vec<IndexFacts>;
}

/// Turns text into vectors, so that texts of like meaning lie near each other.
pub trait Embedder: Send + Sync {
    /// Names the model and everything that changes its vectors: an index is of one such id.
    fn id(&self) -> &str;

    /// Numbers of one vector.
    fn dimension(&self) -> usize;

    /// One vector of length 1 (or 0, where nothing in the text is known) after the other, in the order of `texts`.
    ///
    /// # Errors
    /// `Unavailable` where the model is a service that is away.
    fn embed(&self, texts: &[String]) -> Result<Vec<f32>>;
}
