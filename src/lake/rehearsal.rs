//! Tables as those see them who change nothing: columns that decoding asks for are there from then on, and nothing is committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::lake::schema::{numbered, to_iceberg_schema};
use crate::lake::tables::IcebergLake;
use crate::model::ids::{CommitId, TableName};
use crate::model::schema::TableSchema;
use crate::ports::{CommitOutcome, CommitRequest, FileWriter, Lake, TableLayout, TableState};

/// A lake that keeps changes of columns to itself.
pub struct Rehearsal {
    lake: Option<Arc<IcebergLake>>,
    changed: Mutex<HashMap<TableName, TableState>>,
}

impl Rehearsal {
    /// Over `lake`, as it is.
    #[must_use]
    pub fn new(lake: Arc<IcebergLake>) -> Self {
        Self { lake: Some(lake), changed: Mutex::default() }
    }

    /// Of one table that is nowhere else.
    #[must_use]
    pub fn of(table: TableState) -> Self {
        Self { lake: None, changed: Mutex::new([(table.table.clone(), table)].into()) }
    }

    fn changed(&self) -> MutexGuard<'_, HashMap<TableName, TableState>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Lake for Rehearsal {
    async fn load(&self, table: &TableName) -> Result<Option<TableState>> {
        let changed = self.changed().get(table).cloned();
        match &self.lake {
            Some(lake) if changed.is_none() => lake.load(table).await,
            _ => Ok(changed),
        }
    }

    async fn create(&self, table: &TableName, _: &TableLayout) -> Result<TableState> {
        Err(Error::bug(format!("a dry run makes table `{table}`")))
    }

    async fn evolve(
        &self,
        from: &TableState,
        wanted: &TableSchema,
        properties: &BTreeMap<String, String>,
    ) -> Result<TableState> {
        let table = &from.table;
        let state = self.load(table).await?;
        let mut state = state.ok_or_else(|| Error::corrupt(format!("table `{table}` has vanished")))?;
        if state.schema == from.schema {
            let last_id = to_iceberg_schema(&state.schema)?.highest_field_id();
            let (now, then) = (numbered(wanted, last_id), &state.schema);
            let schema_id = then.schema_id + i32::from(now.fields != then.fields);
            state.schema = Arc::new(TableSchema { schema_id, ..now });
        }
        let mut held = BTreeMap::clone(&state.properties);
        for (name, value) in properties {
            held.entry(name.clone()).or_insert_with(|| value.clone());
        }
        state.properties = Arc::new(held);
        self.changed().insert(table.clone(), state.clone());
        Ok(state)
    }

    fn writer(&self, state: &TableState, _: CommitId) -> Result<Box<dyn FileWriter>> {
        Err(Error::bug(format!("a dry run writes to table `{}`", state.table)))
    }

    async fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        Err(Error::bug(format!("a dry run commits to table `{}`", request.table)))
    }
}
