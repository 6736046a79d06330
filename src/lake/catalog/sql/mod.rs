//! The embedded catalog in a SQL database: a commit is a compare-and-swap of each table's metadata location, all in
//! one transaction. The schema is the JDBC catalog's, so that PyIceberg and Java open the same database.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use iceberg::TableCreation;
use iceberg::io::FileIO;
use iceberg::spec::{FormatVersion, MetadataLog, TableMetadata, TableMetadataRef};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::error::{Error, Result};
use crate::lake::storage::{Stores, from_iceberg};
use crate::lake::view::plain;
use crate::model::ids::TableName;
use crate::ports::Properties;
use crate::runtime::clock::Clock;
use crate::runtime::crash;
use crate::runtime::task::{self, TaskKind};

use super::apply::{self, Next};
use super::{Applied, Catalog, LoadedTable, TableChange};

mod database;
#[cfg(test)]
mod tests;

use database::{BUSY_TIMEOUT, Database, EXISTS, Lease, STATEMENT_LIMIT, Swap, Swapped, answered, is_busy};

/// The pause before a database that is locked is opened again.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// One metadata file, read or written.
const FILE_LIMIT: Duration = Duration::from_secs(30);
/// Metadata kept in memory, newest use last: a writer's own chain is not read back. Each is up to a few megabytes.
const CACHED_METADATA_MAX: usize = 16;
const DELETE_AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";

/// What a [`SqlCatalog`] is opened with. `Debug` leaves out the address, which may hold a password.
#[derive(Clone)]
pub struct SqlOptions {
    /// `sqlite://path` (made where it lacks, with its folder) or `postgres://user@host/database?sslmode=…`.
    pub uri: String,
    /// Name of the catalog inside the database, by which other clients open it too; `frazil` by default.
    pub name: String,
    /// Location below which new tables lie.
    pub warehouse: String,
    /// Where the files are.
    pub stores: Stores,
}

impl fmt::Debug for SqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("SqlOptions");
        shown.field("name", &self.name).field("warehouse", &self.warehouse).finish_non_exhaustive()
    }
}

/// A catalog in SQLite or Postgres. It connects when first used, and again whenever the connection was lost.
#[derive(Debug)]
pub struct SqlCatalog {
    database: Database,
    prepared: OnceCell<()>,
    name: String,
    warehouse: String,
    stores: Stores,
    io: FileIO,
    clock: Clock,
    cache: Mutex<VecDeque<(String, TableMetadataRef)>>,
}

/// A change whose new metadata is ready to be written.
struct Staged {
    table: TableName,
    old: String,
    new: iceberg::MetadataLocation,
    metadata: Box<TableMetadata>,
    expired: Vec<MetadataLog>,
}

impl SqlCatalog {
    /// A catalog that has not connected yet.
    ///
    /// # Errors
    /// `InvalidConfig` for an address that is none, or a warehouse that is no location.
    pub fn open(options: SqlOptions, clock: Clock) -> Result<Self> {
        Ok(Self {
            database: Database::open(&options.uri)?,
            prepared: OnceCell::new(),
            name: options.name,
            warehouse: options.stores.normalise(&options.warehouse)?,
            io: options.stores.file_io(),
            stores: options.stores,
            clock,
            cache: Mutex::default(),
        })
    }

    async fn database(&self) -> Result<&Database> {
        let prepare = || async {
            let deadline = self.clock.elapsed() + BUSY_TIMEOUT;
            loop {
                match self.clock.timeout(STATEMENT_LIMIT, self.database.prepare()).await {
                    // Two processes make one database: SQLite does not wait by itself for a change of the journal's mode.
                    Some(Err(error)) if is_busy(&error) && self.clock.elapsed() < deadline => {
                        self.clock.sleep(BUSY_PAUSE).await;
                    }
                    prepared => return answered("open the catalog's database", prepared),
                }
            }
        };
        self.prepared.get_or_try_init(prepare).await?;
        Ok(&self.database)
    }

    async fn pointer(&self, table: &TableName) -> Result<Option<String>> {
        let database = self.database().await?;
        let found = self.clock.timeout(STATEMENT_LIMIT, database.pointer(&self.name, table)).await;
        answered(&format!("look up table `{table}`"), found)
    }

    async fn metadata(&self, location: &str) -> Result<TableMetadataRef> {
        if let Some(cached) = self.cached(location) {
            return Ok(cached);
        }
        let read = self.clock.timeout(FILE_LIMIT, TableMetadata::read_from(&self.io, location)).await;
        let metadata = from_file(&format!("read table metadata `{location}`"), read)?;
        self.check_kept(location, &metadata).await?;
        let metadata = TableMetadataRef::new(metadata);
        self.keep(location, &metadata);
        Ok(metadata)
    }

    /// Refuses metadata of which iceberg's own types drop a column's default, as they do where they know no way to read
    /// one: with the next commit it would be gone, and older rows would have another value.
    async fn check_kept(&self, location: &str, metadata: &TableMetadata) -> Result<()> {
        if metadata.format_version() < FormatVersion::V3 {
            return Ok(());
        }
        let read = self.clock.timeout(FILE_LIMIT, self.stores.read(location)).await;
        let Some(bytes) = read.transpose()?.flatten() else { return Ok(()) };
        let unreadable = |e| Error::corrupt(format!("read table metadata `{location}`")).with_source(e);
        let stored: Value = serde_json::from_slice(&plain(location, bytes)?).map_err(unreadable)?;
        let kept = serde_json::to_value(metadata).map_err(unreadable)?;
        if defaults(&stored["schemas"]) > defaults(&kept["schemas"]) {
            let text = format!("table metadata `{location}` has a default of a column that frazil cannot read");
            return Err(Error::corrupt(text));
        }
        Ok(())
    }

    fn cached(&self, location: &str) -> Option<TableMetadataRef> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cache.iter().position(|(held, _)| held == location)?;
        let entry = cache.remove(at)?;
        let metadata = TableMetadataRef::clone(&entry.1);
        cache.push_back(entry);
        Some(metadata)
    }

    fn keep(&self, location: &str, metadata: &TableMetadataRef) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED_METADATA_MAX {
            cache.pop_front();
        }
        cache.push_back((location.to_owned(), TableMetadataRef::clone(metadata)));
    }

    async fn write(&self, metadata: &TableMetadata, location: &iceberg::MetadataLocation) -> Result<()> {
        let written = self.clock.timeout(FILE_LIMIT, metadata.write_to(&self.io, location)).await;
        from_file(&format!("write table metadata `{location}`"), written)
    }

    /// Removes metadata files that nothing refers to. One that stays is an orphan, which maintenance finds.
    async fn discard(&self, files: Vec<String>) {
        for file in files {
            let deleted = self.clock.timeout(FILE_LIMIT, self.stores.delete(&file)).await;
            let deleted = deleted.unwrap_or_else(|| Err(Error::unavailable("no answer")));
            if let Err(error) = deleted {
                tracing::debug!(file, error = %error.chain(), "a metadata file that nothing refers to is left behind");
            }
        }
    }

    /// Applies each change to its table as it is now; the text is the conflict.
    async fn stage(&self, changes: &[TableChange]) -> Result<Result<Vec<Staged>, String>> {
        let mut staged = Vec::with_capacity(changes.len());
        for change in changes {
            let Some(current) = self.load(&change.table).await? else {
                return Ok(Err(format!("table `{}` does not exist", change.table)));
            };
            let (metadata, expired) = match apply::apply(&current, change)? {
                Next::Metadata(metadata, expired) => (metadata, expired),
                Next::Conflict(found) => return Ok(Err(found)),
            };
            let old = current.metadata_location;
            let new = apply::next_file(&metadata, Some(&old), self.clock.fresh_id())
                .map_err(|e| Error::invalid_request(format!("change table `{}`", change.table)).with_source(e))?;
            staged.push(Staged { table: change.table.clone(), old, new, metadata, expired });
        }
        Ok(Ok(staged))
    }

    /// Writes the metadata files and swaps the pointers.
    async fn swap(&self, staged: &[Staged], new: &[String]) -> Result<Swapped> {
        for change in staged {
            self.write(&change.metadata, &change.new).await?;
        }
        crash::point(crash::METADATA_WRITTEN);
        let mut swaps: Vec<Swap<'_>> =
            staged.iter().zip(new).map(|(change, new)| Swap { table: &change.table, old: &change.old, new }).collect();
        swaps.sort_by_key(|swap| swap.table);
        self.database().await?.swap(&self.clock, &self.name, &swaps).await
    }

    /// What is left to do once the pointers are swapped.
    fn landed(&self, staged: Vec<Staged>, new: Vec<String>) -> Vec<LoadedTable> {
        let mut expired = Vec::new();
        let mut tables = Vec::with_capacity(staged.len());
        for (change, metadata_location) in staged.into_iter().zip(new) {
            if change.metadata.properties().get(DELETE_AFTER_COMMIT).is_some_and(|value| value == "true") {
                expired.extend(change.expired.into_iter().map(|log| log.metadata_file));
            }
            let metadata = TableMetadataRef::from(change.metadata);
            self.keep(&metadata_location, &metadata);
            tables.push(LoadedTable { metadata, metadata_location });
        }
        if !expired.is_empty() {
            let (stores, clock) = (self.stores.clone(), self.clock.clone());
            task::spawn(TaskKind::Background, "delete old table metadata", async move {
                for file in expired {
                    clock.timeout(FILE_LIMIT, stores.delete(&file)).await.transpose()?;
                }
                Ok(())
            });
        }
        tables
    }
}

/// How many defaults there are in schemas, at any depth.
fn defaults(json: &Value) -> usize {
    match json {
        Value::Object(members) => {
            let is_default = |(name, value): (&String, &Value)| name.ends_with("-default") && !value.is_null();
            members.iter().filter(|member| is_default(*member)).count() + members.values().map(defaults).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(defaults).sum(),
        _ => 0,
    }
}

/// The end of a file access that had a time limit.
fn from_file<T>(context: &str, result: Option<iceberg::Result<T>>) -> Result<T> {
    match result {
        Some(result) => result.map_err(|e| from_iceberg(context, e)),
        None => Err(Error::unavailable(format!("{context}: no answer in {} s", FILE_LIMIT.as_secs()))),
    }
}

#[async_trait]
impl Catalog for SqlCatalog {
    async fn load(&self, table: &TableName) -> Result<Option<LoadedTable>> {
        let Some(mut location) = self.pointer(table).await? else { return Ok(None) };
        loop {
            let error = match self.metadata(&location).await {
                Ok(metadata) => return Ok(Some(LoadedTable { metadata, metadata_location: location })),
                Err(error) => error,
            };
            // A writer that deletes old metadata may have overtaken this load; each turn means that it has committed.
            match self.pointer(table).await? {
                Some(now) if now != location => location = now,
                Some(_) => return Err(error),
                None => return Ok(None),
            }
        }
    }

    async fn create(&self, table: &TableName, mut creation: TableCreation) -> Result<LoadedTable> {
        if let Some(existing) = self.load(table).await? {
            return Ok(existing);
        }
        let id = self.clock.fresh_id();
        creation.location.get_or_insert_with(|| apply::new_location(&self.warehouse, table, id));
        let metadata = apply::create(table, creation, id)?;
        let file = apply::next_file(&metadata, None, self.clock.fresh_id())
            .map_err(|e| Error::invalid_config(format!("create table `{table}`")).with_source(e))?;
        self.write(&metadata, &file).await?;
        let metadata_location = file.to_string();
        let database = self.database().await?;
        // After an error the row may be there all the same, so the file stays; a new call then loads that table.
        let inserted =
            self.clock.timeout(STATEMENT_LIMIT, database.insert(&self.name, table, &metadata_location)).await;
        if answered(&format!("create table `{table}`"), inserted)? {
            let metadata = TableMetadataRef::new(metadata);
            self.keep(&metadata_location, &metadata);
            return Ok(LoadedTable { metadata, metadata_location });
        }
        self.discard(vec![metadata_location]).await;
        let winner = self.load(table).await?;
        winner.ok_or_else(|| {
            Error::unavailable(format!("table `{table}` is neither there nor can be made; a view may have its name"))
        })
    }

    async fn commit(&self, changes: Vec<TableChange>) -> Result<Applied> {
        let staged = match self.stage(&changes).await? {
            Ok(staged) => staged,
            Err(conflict) => return Ok(Applied::Conflict(conflict)),
        };
        let new: Vec<String> = staged.iter().map(|change| change.new.to_string()).collect();
        match self.swap(&staged, &new).await {
            Ok(Swapped::Done) => {
                crash::point(crash::ANSWER_RECEIVED);
                Ok(Applied::Done(self.landed(staged, new)))
            }
            Ok(Swapped::Lost(table)) => {
                self.discard(new).await;
                Ok(Applied::Conflict(format!("table `{table}`: another commit came first")))
            }
            // The files may be the tables' current ones.
            Ok(Swapped::Unknown(error)) => Ok(Applied::Unknown(error)),
            Err(error) => {
                self.discard(new).await;
                Err(error)
            }
        }
    }

    async fn list(&self) -> Result<Vec<TableName>> {
        let database = self.database().await?;
        let found = self.clock.timeout(STATEMENT_LIMIT, database.tables(&self.name)).await;
        let found = answered("list the catalog's tables", found)?;
        let name = |(namespace, name): (String, String)| TableName { namespace: levels(&namespace), name };
        let mut tables: Vec<TableName> = found.into_iter().map(name).collect();
        // Here and not there, since databases sort by their own locale.
        tables.sort();
        Ok(tables)
    }

    async fn take_lease(&self, name: &str, owner: &str, now_ms: i64, until_ms: i64) -> Result<bool> {
        let database = self.database().await?;
        let lease = Lease { catalog: &self.name, name, owner, now_ms, until_ms };
        answered("take a lease", self.clock.timeout(STATEMENT_LIMIT, database.lease(&lease)).await)
    }

    async fn location(&self, table: &TableName) -> Result<Option<String>> {
        self.pointer(table).await
    }

    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>> {
        let database = self.database().await?;
        let found = self.clock.timeout(STATEMENT_LIMIT, database.namespaces(&self.name)).await;
        let mut namespaces: BTreeMap<Vec<String>, Properties> = BTreeMap::new();
        for (namespace, key, value) in answered("list the catalog's namespaces", found)? {
            let properties = namespaces.entry(levels(&namespace)).or_default();
            // The row that says that the namespace exists is none of its properties.
            if key != EXISTS {
                properties.insert(key, value.unwrap_or_default());
            }
        }
        Ok(namespaces)
    }
}

/// The levels of a namespace as the database has them in one text.
fn levels(namespace: &str) -> Vec<String> {
    namespace.split('.').map(str::to_owned).collect()
}
