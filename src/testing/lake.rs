//! A replica's way to catalog, store and registry: it takes time, fails, is watched for what may not be sent, and is
//! where rules are broken that cannot be broken in a word inside the code that follows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use iceberg::spec::{MAIN_BRANCH, Snapshot};
use iceberg::{TableCreation, TableRequirement, TableUpdate};

use super::group::Member;
use super::world::{World, lock};
use crate::error::{Error, Result};
use crate::lake::catalog::memory::{Fault, MemoryCatalog};
use crate::lake::catalog::{Applied, Catalog, LoadedTable, TableChange};
use crate::lake::{IcebergLake, progress};
use crate::model::file::WrittenFile;
use crate::model::ids::{CommitId, TableName, TopicPartition};
use crate::model::ledger::Advances;
use crate::model::schema::TableSchema;
use crate::ports::{
    CommitOutcome, CommitRequest, FileWriter, Lake, Properties, Recovery, RegisteredSchema, Registry, TableLayout,
    TableState,
};
use crate::rule::{self, Rule};

/// Chooses a fault for a request to the catalog.
pub fn catalog_fault(world: &World, request: &str) -> Option<Fault> {
    if !world.fails() {
        return None;
    }
    let mut random = world.random();
    let time = Duration::from_millis(random.between(1, 3000));
    let fault = random.pick(&[
        Fault::Reject,
        Fault::FailAfterWrite,
        Fault::LoseRequest,
        Fault::Hold(time),
        Fault::Slow(time),
        Fault::Conflict,
    ]);
    drop(random);
    world.note(format!("catalog: {request} meets {fault:?}"));
    Some(fault)
}

/// The table's snapshots go into the history.
pub async fn observe(world: &World, catalog: &MemoryCatalog, table: &TableName) {
    if let Ok(Some(loaded)) = catalog.load(table).await {
        let wrong = world.history().observe(&loaded.metadata);
        for text in wrong {
            world.wrong(text);
        }
    }
}

/// The catalog as one replica reaches it.
pub struct WatchedCatalog {
    /// With this replica's faults.
    pub faulty: MemoryCatalog,
    /// Without.
    pub plain: MemoryCatalog,
    /// The simulation.
    pub world: Arc<World>,
    /// The replica.
    pub member: Arc<Member>,
    /// The main table.
    pub table: TableName,
    /// Commits of rows that this replica has asked for: what they move.
    pub asked: Arc<Mutex<BTreeMap<String, Vec<TopicPartition>>>>,
}

impl WatchedCatalog {
    /// Invariant I5: nothing is sent for a partition that was let go of.
    fn check_sent(&self, changes: &[TableChange]) {
        for id in
            changes.iter().filter_map(|change| added(change)?.summary().additional_properties.get(progress::COMMIT_ID))
        {
            for source in lock(&self.asked).get(id).into_iter().flatten() {
                if self.member.has_released(source) {
                    self.world.wrong(format!("I5: {} commits {source} after it let go of it", self.member.name));
                }
            }
        }
    }

    async fn send(&self, changes: Vec<TableChange>) -> Result<Applied> {
        if changes.len() > 1 && !rule::holds(Rule::DeadLettersTogether) {
            let mut apart = changes;
            let main = apart.remove(0);
            return match self.faulty.commit(apart).await? {
                Applied::Done(_) => self.faulty.commit(vec![main]).await,
                other => Ok(other),
            };
        }
        let answer = self.faulty.commit(changes.clone()).await?;
        match answer {
            Applied::Conflict(_) if !rule::holds(Rule::LedgerRecheck) => self.rebase(changes).await,
            Applied::Unknown(error) if !rule::holds(Rule::UnknownDeletesNothing) => {
                Ok(Applied::Conflict(error.chain()))
            }
            answer => Ok(answer),
        }
    }

    /// What a client does that retries without looking: the same snapshot on top of whatever there is.
    async fn rebase(&self, mut changes: Vec<TableChange>) -> Result<Applied> {
        for change in &mut changes {
            let Some(current) = self.plain.load(&change.table).await? else { continue };
            let main = current.metadata.current_snapshot_id();
            for requirement in &mut change.requirements {
                if let TableRequirement::RefSnapshotIdMatch { r#ref, snapshot_id } = requirement
                    && r#ref == MAIN_BRANCH
                {
                    *snapshot_id = main;
                }
            }
            for update in &mut change.updates {
                if matches!(update, TableUpdate::AddSnapshot { .. }) {
                    let mut json = serde_json::to_value(&*update).map_err(|e| Error::bug("rebase").with_source(e))?;
                    json["snapshot"]["parent-snapshot-id"] = main.into();
                    json["snapshot"]["sequence-number"] = current.metadata.next_sequence_number().into();
                    *update = serde_json::from_value(json).map_err(|e| Error::bug("rebase").with_source(e))?;
                }
            }
        }
        self.plain.commit(changes).await
    }
}

fn added(change: &TableChange) -> Option<&Snapshot> {
    change.updates.iter().find_map(|update| match update {
        TableUpdate::AddSnapshot { snapshot } => Some(snapshot),
        _ => None,
    })
}

#[async_trait]
impl Catalog for WatchedCatalog {
    async fn load(&self, table: &TableName) -> Result<Option<LoadedTable>> {
        self.world.travel(15).await;
        let loaded = self.faulty.load(table).await;
        observe(&self.world, &self.plain, &self.table).await;
        self.world.travel(15).await;
        loaded
    }

    async fn create(&self, table: &TableName, creation: TableCreation) -> Result<LoadedTable> {
        self.world.travel(15).await;
        self.faulty.create(table, creation).await
    }

    async fn commit(&self, changes: Vec<TableChange>) -> Result<Applied> {
        self.check_sent(&changes);
        self.world.travel(15).await;
        observe(&self.world, &self.plain, &self.table).await;
        let answer = self.send(changes).await;
        observe(&self.world, &self.plain, &self.table).await;
        self.world.travel(30).await;
        answer
    }

    async fn list(&self) -> Result<Vec<TableName>> {
        self.faulty.list().await
    }

    async fn take_lease(&self, name: &str, owner: &str, now_ms: i64, until_ms: i64) -> Result<bool> {
        self.faulty.take_lease(name, owner, now_ms, until_ms).await
    }

    async fn location(&self, table: &TableName) -> Result<Option<String>> {
        self.faulty.location(table).await
    }

    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>> {
        self.faulty.namespaces().await
    }
}

/// Tables as one replica reaches them.
pub struct WatchedLake {
    /// The real thing.
    pub lake: IcebergLake,
    /// Its catalog, without faults.
    pub plain: MemoryCatalog,
    /// The simulation.
    pub world: Arc<World>,
    /// The replica's name.
    pub name: String,
    /// See [`WatchedCatalog::asked`].
    pub asked: Arc<Mutex<BTreeMap<String, Vec<TopicPartition>>>>,
}

impl WatchedLake {
    /// The request with its steps made to start wherever the ledger stands.
    async fn unchecked(&self, request: &CommitRequest) -> Result<CommitRequest> {
        let mut request = request.clone();
        // A commit that says where to begin is right as it is, or a new incarnation would never begin.
        if request.files.is_empty() {
            return Ok(request);
        }
        let Some(loaded) = self.plain.load(&request.table).await? else { return Ok(request) };
        let recovery = progress::recovery("simulated", &loaded.metadata)?;
        let Recovery::At(progress) = recovery else { return Ok(request) };
        for (source, advance) in &mut request.advances {
            advance.from = progress.ledger.position(source).map(|at| at.next);
        }
        Ok(request)
    }
}

#[async_trait]
impl Lake for WatchedLake {
    async fn load(&self, table: &TableName) -> Result<Option<TableState>> {
        self.lake.load(table).await
    }

    async fn create(&self, table: &TableName, layout: &TableLayout) -> Result<TableState> {
        self.lake.create(table, layout).await
    }

    async fn evolve(
        &self,
        from: &TableState,
        wanted: &TableSchema,
        properties: &BTreeMap<String, String>,
    ) -> Result<TableState> {
        self.lake.evolve(from, wanted, properties).await
    }

    fn writer(&self, state: &TableState, commit: CommitId) -> Result<Box<dyn FileWriter>> {
        let writer = self.lake.writer(state, commit)?;
        Ok(Box::new(WatchedWriter { writer, world: Arc::clone(&self.world) }))
    }

    async fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        let (id, files) = (request.id.to_string(), request.files.len());
        self.world.note(format!("{} commits {id}: {} with {files} files", self.name, steps(&request.advances)));
        // A commit that only says where to begin carries nothing that could come twice.
        if !request.files.is_empty() || request.dead_letters.is_some() {
            lock(&self.asked).insert(id.clone(), request.advances.keys().cloned().collect());
        }
        let unchecked = if rule::holds(Rule::LedgerCheck) { None } else { Some(self.unchecked(request).await?) };
        let outcome = self.lake.commit(unchecked.as_ref().unwrap_or(request)).await;
        match &outcome {
            Ok(CommitOutcome::Committed(_)) => self.world.note(format!("{}: {id} is in", self.name)),
            Ok(CommitOutcome::Stale(_, reason)) => {
                self.world.note(format!("{}: {id} is stale: {reason}", self.name));
                if self.world.history().commits.contains(&id) {
                    self.world.wrong(format!("commit {id} is in the history and was answered as stale"));
                }
            }
            Ok(CommitOutcome::Outdated(_)) => self.world.note(format!("{}: {id} is outdated", self.name)),
            Err(error) => self.world.note(format!("{}: {id} failed: {}", self.name, error.chain())),
        }
        outcome
    }
}

fn steps(advances: &Advances) -> String {
    let step = |(source, advance): (&TopicPartition, &crate::model::ledger::Advance)| {
        format!("{source} {}..{}", advance.from.map_or(-1, |from| from.0), advance.to.next)
    };
    advances.iter().map(step).collect::<Vec<_>>().join(", ")
}

struct WatchedWriter {
    writer: Box<dyn FileWriter>,
    world: Arc<World>,
}

#[async_trait]
impl FileWriter for WatchedWriter {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.world.request("store").await?;
        self.writer.write(rows).await
    }

    async fn finish(self: Box<Self>) -> Result<Vec<WrittenFile>> {
        self.world.request("store").await?;
        let files = self.writer.finish().await?;
        self.world.request("store").await?;
        Ok(files)
    }

    fn file_bytes(&self) -> u64 {
        self.writer.file_bytes()
    }
}

/// The schema registry as a replica reaches it.
pub struct WatchedRegistry(pub Arc<World>);

#[async_trait]
impl Registry for WatchedRegistry {
    async fn schema(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>> {
        self.0.request("registry").await?;
        Ok(lock(&self.0.schemas).get(&id).cloned())
    }

    async fn schema_by_guid(&self, _: uuid::Uuid) -> Result<Option<Arc<RegisteredSchema>>> {
        Ok(None)
    }

    async fn latest(&self, subject: &str) -> Result<Option<Arc<RegisteredSchema>>> {
        self.0.request("registry").await?;
        // One subject; its first schema stands for what was there when the table was made.
        Ok(lock(&self.0.schemas).values().next().cloned().filter(|_| subject.ends_with("-value")))
    }
}
