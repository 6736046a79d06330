//! Contracts of those who read: tables' files, the catalog as other engines see it, SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::Serialize;

use super::TableState;
use crate::error::Result;
use crate::model::file::WrittenFile;
use crate::model::ids::TableName;
use crate::model::version::{AsOf, Consistency, SnapshotAt};

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: i64,
    /// The one before it.
    pub parent_id: Option<i64>,
    /// When it was made, milliseconds since the epoch.
    pub time_ms: i64,
    /// `append`, `replace`, `overwrite` or `delete`.
    pub operation: String,
    /// Rows added.
    pub added_rows: u64,
    /// Data files added.
    pub added_files: u64,
    /// Rows after it, `None` where its writer gave no count.
    pub rows: Option<u64>,
    /// True where it is in `main`'s history.
    pub on_main: bool,
    /// True where it carries a ledger.
    pub has_ledger: bool,
    /// Branches and tags on it.
    pub refs: Vec<String>,
}

/// Tables, as readers see them.
#[async_trait]
pub trait LakeReader: Send + Sync {
    /// All tables, by name.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    async fn tables(&self) -> Result<Vec<TableName>>;

    /// The table at one of its snapshots; `None` where the catalog answers that there is no such table.
    ///
    /// # Errors
    /// As [`LakeReader::tables`]; `InvalidRequest` where it has no such snapshot, `Corrupt` where its metadata cannot
    /// be understood.
    async fn at(&self, table: &TableName, at: SnapshotAt) -> Result<Option<TableState>>;

    /// The live data files of that state's snapshot, a list for each manifest.
    ///
    /// # Errors
    /// As [`LakeReader::at`]; `Corrupt` where the snapshot has expired, or has delete files.
    async fn files(&self, of: &TableState) -> Result<Vec<Arc<Vec<WrittenFile>>>>;

    /// The data files that came into the table by the appends after snapshot `since`, oldest first; `None` where that
    /// cannot be told, since `since` is not in that state's history any more, or something after it did more than
    /// append rows or rewrite files.
    ///
    /// # Errors
    /// As [`LakeReader::at`].
    async fn added(&self, of: &TableState, since: i64) -> Result<Option<Vec<WrittenFile>>>;

    /// The rows of one of its files, in that state's schema: of its columns those in `columns`, in the schema's order.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where the file is gone or cannot be read.
    async fn rows(
        &self,
        of: &TableState,
        file: &WrittenFile,
        columns: &BTreeSet<&str>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>>;

    /// All retained snapshots, the newest first.
    ///
    /// # Errors
    /// As [`LakeReader::at`].
    async fn snapshots(&self, table: &TableName) -> Result<Vec<SnapshotInfo>>;

    /// Ranges of a file's bytes, in their order.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where the file is gone.
    async fn read(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>>;
}

/// A query, and what it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlRequest {
    /// One statement that reads.
    pub sql: String,
    /// What it sees.
    pub consistency: Consistency,
    /// What it may use.
    pub limits: SqlLimits,
}

/// Bounds of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlLimits {
    /// Rows given; the answer says where there were more.
    pub rows: u64,
    /// Memory for sorting, grouping and joining, beyond which it spills or fails.
    pub memory_bytes: usize,
    /// Bytes of data files that it may read.
    pub scanned_bytes: u64,
    /// Time until its last row.
    pub time: Duration,
}

/// A query's answer, as it comes.
pub struct SqlAnswer {
    /// Columns.
    pub schema: SchemaRef,
    /// Rows. An error ends them.
    pub rows: BoxStream<'static, Result<RecordBatch>>,
    /// How far the answer reaches, for each table in it.
    pub as_of: BTreeMap<TableName, AsOf>,
    /// What it used; complete once the rows have ended.
    pub used: Arc<SqlUse>,
}

/// What a query has used so far.
#[derive(Debug, Default)]
pub struct SqlUse {
    /// Bytes of data files read, footers included.
    pub scanned_bytes: AtomicU64,
    /// True where rows were left out by [`SqlLimits::rows`].
    pub truncated: AtomicBool,
}

/// SQL over tables and their tails.
#[async_trait]
pub trait Sql: Send + Sync {
    /// Plans a query and begins it. Dropping the answer stops it.
    ///
    /// # Errors
    /// `InvalidRequest` where it is no single reading statement, or names what is not there, with what is nearest;
    /// `Unavailable` where a fresh view or the store cannot be had in time; later, from the rows, also `InvalidRequest`
    /// for a limit that was met.
    async fn query(&self, request: SqlRequest) -> Result<SqlAnswer>;
}

/// Properties by name: of a namespace, or that tell an engine how to reach files.
pub type Properties = BTreeMap<String, String>;

/// A table's current metadata, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMetadata {
    /// The metadata file.
    pub location: String,
    /// Its JSON, byte for byte as its writer wrote it.
    pub json: Bytes,
}

/// The catalog as other engines read it: every namespace and table, whoever made them.
#[async_trait]
pub trait CatalogView: Send + Sync {
    /// Namespaces, outermost level first, with their properties: those that were made, and those that tables lie in.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>>;

    /// All tables, by name.
    ///
    /// # Errors
    /// As [`CatalogView::namespaces`].
    async fn tables(&self) -> Result<Vec<TableName>>;

    /// Where the table's metadata lies now; `None` where there is no such table. Reads no file.
    ///
    /// # Errors
    /// As [`CatalogView::namespaces`].
    async fn metadata_location(&self, table: &TableName) -> Result<Option<String>>;

    /// The table's metadata as it is now; `None` where there is no such table.
    ///
    /// # Errors
    /// As [`CatalogView::namespaces`]; `Corrupt` where the file is missing or cannot be read.
    async fn metadata(&self, table: &TableName) -> Result<Option<StoredMetadata>>;

    /// What an engine must be told to reach files beside `location`, by the names of the Iceberg REST specification.
    /// Never a secret.
    ///
    /// # Errors
    /// As [`CatalogView::namespaces`].
    async fn access(&self, location: &str) -> Result<Properties>;
}

/// Leases that processes take from each other, so that one of them does what one is to do at a time.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes or renews lease `name` for `owner`, for that long from now; false while another owner has it.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    async fn take(&self, name: &str, owner: &str, duration: Duration) -> Result<bool>;
}
