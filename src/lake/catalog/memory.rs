//! A catalog in memory that re-applies updates as REST servers do, with faults on request and foreign writers: for
//! tests and the simulation. Only its metadata is here; files lie in the stores of the test.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use iceberg::TableCreation;
use iceberg::spec::{
    MAIN_BRANCH, SnapshotReference, SnapshotRetention, TableMetadata, TableMetadataBuilder, TableMetadataRef,
};

use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::ports::Properties;
use crate::runtime::clock::Clock;

use super::apply::{self, Next};
use super::{Applied, Catalog, LoadedTable, TableChange};

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Refused before anything happens: `Unavailable`.
    Reject,
    /// Applied, and the answer is lost.
    FailAfterWrite,
    /// Lost on its way: not applied, no answer.
    LoseRequest,
    /// No answer; the request stays in flight and is applied, or conflicts, once this time has passed.
    Hold(Duration),
    /// Answered after this time.
    Slow(Duration),
    /// A commit is answered with a conflict, whatever it is. No fault for other requests.
    Conflict,
}

/// Chooses the fault of each request; its name is the method's: `load`, `create`, `commit`, `list`.
pub type Faults = Arc<Mutex<dyn FnMut(&str) -> Option<Fault> + Send>>;

/// The catalog. Clones share their tables.
#[derive(Clone)]
pub struct MemoryCatalog {
    warehouse: String,
    clock: Clock,
    faults: Option<Faults>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<TableName, LoadedTable>,
    leases: BTreeMap<String, (String, i64)>,
    held: Vec<Held>,
}

/// A request in flight that nobody waits for any more.
struct Held {
    due: Duration,
    request: Request,
}

enum Request {
    Create(TableName, Box<TableCreation>),
    Commit(Vec<TableChange>),
}

impl MemoryCatalog {
    /// An empty catalog; new tables lie below `warehouse`.
    #[must_use]
    pub fn new(warehouse: impl Into<String>, clock: Clock) -> Self {
        Self { warehouse: warehouse.into(), clock, faults: None, state: Arc::default() }
    }

    /// The same tables seen through `faults`: each replica of a simulation has its own view.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self { faults: Some(faults), ..self.clone() }
    }

    /// What another writer does: points `main` of a table at an older snapshot.
    ///
    /// # Errors
    /// As [`MemoryCatalog::edit`].
    pub fn rollback(&self, table: &TableName, snapshot_id: i64) -> Result<()> {
        let retention = SnapshotRetention::branch(None, None, None);
        self.edit(table, |builder| builder.set_ref(MAIN_BRANCH, SnapshotReference::new(snapshot_id, retention)))
    }

    /// What another writer does: any change of a table's metadata.
    ///
    /// # Errors
    /// `InvalidRequest` where there is no such table or the change does not apply.
    pub fn edit(
        &self,
        table: &TableName,
        change: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
    ) -> Result<()> {
        let mut state = self.state();
        let refused = || Error::invalid_request(format!("edit table `{table}`"));
        let current = state.tables.get(table).ok_or_else(refused)?;
        let builder = TableMetadata::clone(&current.metadata).into_builder(Some(current.metadata_location.clone()));
        let built = change(builder).and_then(TableMetadataBuilder::build).map_err(|e| refused().with_source(e))?;
        let next = self.stored(&built.metadata, Some(&current.metadata_location))?;
        state.tables.insert(table.clone(), next);
        Ok(())
    }

    /// What an operator does: removes a table.
    pub fn drop_table(&self, table: &TableName) {
        self.state().tables.remove(table);
    }

    /// Applies everything that is still in flight, however long it would be held.
    pub fn land_held(&self) {
        self.land(&mut self.state_as_is(), Duration::MAX);
    }

    /// The state after the held requests that are due.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state_as_is();
        self.land(&mut state, self.clock.elapsed());
        state
    }

    fn state_as_is(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn land(&self, state: &mut State, until: Duration) {
        state.held.sort_by_key(|held| held.due);
        let due = state.held.iter().take_while(|held| held.due <= until).count();
        for held in state.held.drain(..due).collect::<Vec<_>>() {
            // Nobody hears how it ends.
            match held.request {
                Request::Create(table, creation) => drop(self.create_now(state, &table, *creation)),
                Request::Commit(changes) => drop(self.commit_now(state, &changes)),
            }
        }
    }

    /// Chooses the fault of a request, and waits where it is slow.
    async fn fault(&self, request: &str) -> Result<Option<Fault>> {
        let fault = self.faults.as_ref().and_then(|faults| {
            let mut choose = faults.lock().unwrap_or_else(PoisonError::into_inner);
            choose(request)
        });
        match fault {
            Some(Fault::Reject) => Err(Error::unavailable(format!("catalog refuses `{request}`"))),
            Some(Fault::Slow(time)) => {
                self.clock.sleep(time).await;
                Ok(None)
            }
            fault => Ok(fault),
        }
    }

    /// A read has no effect that could be late: a lost answer is all that can happen to it.
    async fn read_fault(&self, request: &str) -> Result<()> {
        match self.fault(request).await? {
            Some(Fault::FailAfterWrite | Fault::LoseRequest | Fault::Hold(_)) => Err(lost(request)),
            _ => Ok(()),
        }
    }

    fn hold(&self, time: Duration, request: Request) {
        let due = self.clock.elapsed() + time;
        self.state().held.push(Held { due, request });
    }

    /// Metadata as a server keeps it: through its JSON form, so that nothing lives on that would not be stored.
    fn stored(&self, metadata: &TableMetadata, previous: Option<&str>) -> Result<LoadedTable> {
        let bug =
            |e: Box<dyn std::error::Error + Send + Sync>| Error::bug("table metadata has no json form").with_source(e);
        let file = apply::next_file(metadata, previous, self.clock.fresh_id()).map_err(|e| bug(e.into()))?;
        let mut json = serde_json::to_value(metadata).map_err(|e| bug(e.into()))?;
        // The builder takes the machine's time, which has nothing to do with a simulation's.
        let now_ms = self.clock.now_ms();
        json["last-updated-ms"] = now_ms.into();
        for entry in json["snapshot-log"].as_array_mut().into_iter().flatten() {
            if entry["timestamp-ms"].as_i64().is_some_and(|at_ms| at_ms > now_ms) {
                entry["timestamp-ms"] = now_ms.into();
            }
        }
        let metadata = TableMetadataRef::new(serde_json::from_value(json).map_err(|e| bug(e.into()))?);
        Ok(LoadedTable { metadata, metadata_location: file.to_string() })
    }

    fn create_now(&self, state: &mut State, table: &TableName, mut creation: TableCreation) -> Result<LoadedTable> {
        if let Some(existing) = state.tables.get(table) {
            return Ok(existing.clone());
        }
        let id = self.clock.fresh_id();
        creation.location.get_or_insert_with(|| apply::new_location(&self.warehouse, table, id));
        let created = self.stored(&apply::create(table, creation, id)?, None)?;
        state.tables.insert(table.clone(), created.clone());
        Ok(created)
    }

    fn commit_now(&self, state: &mut State, changes: &[TableChange]) -> Result<Applied> {
        let mut next: HashMap<&TableName, LoadedTable> = HashMap::new();
        for change in changes {
            let Some(current) = next.get(&change.table).or_else(|| state.tables.get(&change.table)) else {
                return Ok(Applied::Conflict(format!("table `{}` does not exist", change.table)));
            };
            match apply::apply(current, change)? {
                Next::Metadata(metadata, _) => {
                    let stored = self.stored(&metadata, Some(&current.metadata_location))?;
                    next.insert(&change.table, stored);
                }
                Next::Conflict(found) => return Ok(Applied::Conflict(found)),
            }
        }
        let after = changes.iter().filter_map(|change| next.get(&change.table).cloned()).collect();
        state.tables.extend(next.into_iter().map(|(table, loaded)| (table.clone(), loaded)));
        Ok(Applied::Done(after))
    }
}

fn lost(request: &str) -> Error {
    Error::unavailable(format!("catalog does not answer `{request}`"))
}

impl fmt::Debug for MemoryCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCatalog").field("warehouse", &self.warehouse).finish_non_exhaustive()
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn load(&self, table: &TableName) -> Result<Option<LoadedTable>> {
        self.read_fault("load").await?;
        Ok(self.state().tables.get(table).cloned())
    }

    async fn create(&self, table: &TableName, creation: TableCreation) -> Result<LoadedTable> {
        match self.fault("create").await? {
            Some(Fault::LoseRequest) => Err(lost("create")),
            Some(Fault::Hold(time)) => {
                self.hold(time, Request::Create(table.clone(), Box::new(creation)));
                Err(lost("create"))
            }
            Some(Fault::FailAfterWrite) => self.create_now(&mut self.state(), table, creation).and(Err(lost("create"))),
            _ => self.create_now(&mut self.state(), table, creation),
        }
    }

    async fn commit(&self, changes: Vec<TableChange>) -> Result<Applied> {
        match self.fault("commit").await? {
            Some(Fault::LoseRequest) => Ok(Applied::Unknown(lost("commit"))),
            Some(Fault::Hold(time)) => {
                self.hold(time, Request::Commit(changes));
                Ok(Applied::Unknown(lost("commit")))
            }
            Some(Fault::FailAfterWrite) => {
                // Whatever the server thought of it, nobody hears it.
                drop(self.commit_now(&mut self.state(), &changes));
                Ok(Applied::Unknown(lost("commit")))
            }
            Some(Fault::Conflict) => Ok(Applied::Conflict("another commit came first".to_owned())),
            _ => self.commit_now(&mut self.state(), &changes),
        }
    }

    async fn list(&self) -> Result<Vec<TableName>> {
        self.read_fault("list").await?;
        Ok(self.state().tables.keys().cloned().collect())
    }

    async fn take_lease(&self, name: &str, owner: &str, now_ms: i64, until_ms: i64) -> Result<bool> {
        self.read_fault("lease").await?;
        let mut state = self.state();
        let held = state.leases.get(name).is_some_and(|(other, until)| other != owner && *until > now_ms);
        if !held {
            state.leases.insert(name.to_owned(), (owner.to_owned(), until_ms));
        }
        Ok(!held)
    }

    async fn location(&self, table: &TableName) -> Result<Option<String>> {
        Ok(self.load(table).await?.map(|loaded| loaded.metadata_location))
    }

    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>> {
        let made = self.list().await?.into_iter().map(|table| (table.namespace, Properties::new()));
        Ok(made.collect())
    }
}

#[cfg(test)]
mod tests;
