//! The catalog port in the REST catalog's own words: load, commit(requirements, updates). Its faces are one function.

use std::collections::BTreeMap;

use async_trait::async_trait;
use iceberg::spec::TableMetadataRef;
use iceberg::{TableCreation, TableRequirement, TableUpdate};

use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::ports::Properties;

mod apply;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod sql;
#[cfg(test)]
pub(super) mod tables;

/// A table's metadata and the file that holds it.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// Metadata as of `metadata_location`.
    pub metadata: TableMetadataRef,
    /// Location of the metadata file.
    pub metadata_location: String,
}

/// What one table must be and what becomes of it.
#[derive(Debug, Clone)]
pub struct TableChange {
    /// The table.
    pub table: TableName,
    /// All must hold on the current metadata.
    pub requirements: Vec<TableRequirement>,
    /// Properties that must be as said here, or not be there; REST has no such requirement.
    pub properties: Vec<(String, Option<String>)>,
    /// Applied in order where they do.
    pub updates: Vec<TableUpdate>,
}

/// What the catalog knows about a commit when the call returns.
#[derive(Debug)]
pub enum Applied {
    /// All changes are in; the tables right after them, in the order of the changes.
    Done(Vec<LoadedTable>),
    /// None is in and none will be: a requirement does not hold, or another commit came first.
    Conflict(String),
    /// Nobody knows: the request may be applied, may be on its way, may be lost.
    Unknown(Error),
}

/// A catalog. Every method may be called again after `Unavailable`.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// The table as it is now, read from the catalog itself; `None` where it answers that there is none.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where the metadata cannot be read.
    async fn load(&self, table: &TableName) -> Result<Option<LoadedTable>>;

    /// Makes a table (and its namespace where it lacks); where one of that name exists already, loads that one.
    ///
    /// # Errors
    /// As [`Catalog::load`]; `InvalidConfig` where the creation makes no valid table.
    async fn create(&self, table: &TableName, creation: TableCreation) -> Result<LoadedTable>;

    /// Applies all changes or none.
    ///
    /// # Errors
    /// `Unavailable` or `Denied` only where certainly nothing was sent; `InvalidRequest` where updates do not apply.
    async fn commit(&self, changes: Vec<TableChange>) -> Result<Applied>;

    /// All tables, by name.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    async fn list(&self) -> Result<Vec<TableName>>;

    /// Takes or renews the lease `name` for `owner` until `until_ms`; false where another owner's has not run out at
    /// `now_ms`. Both are milliseconds since the epoch by the caller's clock, so a lease may be held twice for as long
    /// as clocks differ.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    async fn take_lease(&self, name: &str, owner: &str, now_ms: i64, until_ms: i64) -> Result<bool>;

    /// Where the table's metadata lies, without reading it; `None` where the catalog answers that there is no table.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    async fn location(&self, table: &TableName) -> Result<Option<String>>;

    /// The namespaces that were made, tables or not, with their properties.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>>;
}
