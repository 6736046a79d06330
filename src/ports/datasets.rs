//! Contracts of those who look for data: which tables there are, what fills them, and how far each has got.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::ids::{TableName, TopicPartition};
use crate::model::offsets::NextOffset;

/// A table and what is known of it without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub table: TableName,
    /// The topics that fill it, as configured here; none for tables of others.
    pub topics: Vec<String>,
    /// Its partition fields, as in `day(ts)`, as configured here.
    pub partition_by: Vec<String>,
    /// How its ingestion is.
    pub health: Health,
}

/// How a table's ingestion is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// This process does not fill it.
    NotHere,
    /// It takes records, or would if there were any.
    Ok,
    /// It does not take records now, for this reason; the word says whether it will by itself.
    Not {
        /// `starting`, `waiting`, `suspended` or `stopped`.
        word: &'static str,
        /// Why.
        reason: String,
    },
}

/// How far one partition has got. What is not known is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// The position behind the newest record in Kafka, stable or not.
    pub high: Option<NextOffset>,
    /// The position behind the newest stable record.
    pub stable: Option<NextOffset>,
    /// The first offset that is not committed to the table.
    pub committed: Option<NextOffset>,
    /// The first offset that a query does not see.
    pub visible: Option<NextOffset>,
    /// The first offset that is not in the index.
    pub indexed: Option<NextOffset>,
}

/// How far a table has got.
#[derive(Debug, Clone, PartialEq)]
pub struct Freshness {
    /// The table.
    pub dataset: Dataset,
    /// The snapshot that is current.
    pub snapshot_id: Option<i64>,
    /// Rows that are committed.
    pub rows: u64,
    /// Timestamp of the newest record that a query sees, milliseconds since the epoch.
    pub newest_ms: Option<i64>,
    /// Each partition that is in the table or in its topics.
    pub partitions: BTreeMap<TopicPartition, Reached>,
    /// What could not be found out, and why.
    pub unknown: Vec<String>,
}

/// The tables that there are.
#[async_trait]
pub trait Datasets: Send + Sync {
    /// All of them, by name.
    ///
    /// # Errors
    /// `Unavailable`, `Denied` where the catalog does not answer.
    async fn list(&self) -> Result<Vec<Dataset>>;

    /// How far one has got; `None` where there is no such table. What cannot be asked within seconds is left out and
    /// said so.
    ///
    /// # Errors
    /// As [`Datasets::list`]; `Corrupt` where the table's metadata cannot be understood.
    async fn freshness(&self, table: &TableName) -> Result<Option<Freshness>>;
}
