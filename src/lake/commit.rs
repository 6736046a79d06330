//! The fenced commit: rows and ledger in one snapshot, applied once or provably never.
//!
//! Requirements alone do not fence: a stale writer that reloads and retries would pass them. So every attempt first
//! compares the ledger of the base with where each partition of the batch starts, and rebuilds its manifests on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iceberg::spec::{
    MAIN_BRANCH, Operation, Snapshot, SnapshotRef, SnapshotReference, SnapshotRetention, Summary, TableMetadata,
};
use iceberg::{TableRequirement, TableUpdate};

use super::catalog::{Applied, Catalog, LoadedTable, TableChange};
use super::manifests::{Manifests, NewSnapshot, WrittenList};
use super::progress;
use super::schema::{self, from_iceberg_schema};
use super::shape::shape;
use super::storage::Stores;
use crate::check;
use crate::error::{Error, Result};
use crate::model::file::WrittenFile;
use crate::model::ids::TableName;
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::{CommitOutcome, CommitRequest, Progress, Recovery, TableState};
use crate::rule::{self, Rule};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::crash;

/// How the names of the lists end that say which snapshots were dropped and not yet cleaned up after.
pub(super) const DROPPED_SUFFIX: &str = "-dropped.json";

/// Commits to tables of one catalog.
pub(super) struct Committer {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) stores: Stores,
    pub(super) manifests: Manifests,
    pub(super) clock: Clock,
    /// Ingestion drops snapshots once there are twice as many.
    pub(super) keep_snapshots: usize,
}

/// What preparing an attempt came to.
enum Prepared {
    Attempt(Box<Attempt>),
    Stale(String),
    Outdated,
}

/// One attempt, its files written.
struct Attempt {
    changes: Vec<TableChange>,
    lists: Vec<WrittenList>,
    before: Progress,
    after: Progress,
}

impl Committer {
    /// Commits; see [`crate::ports::Lake::commit`].
    pub(super) async fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        let id = request.id.to_string();
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
        // Once an answer was lost, some attempt may be in, or may still come in: from then on nothing is deleted,
        // and no error that would make the caller forget it leaves this loop.
        let mut unknown = false;
        let mut attempts = 0_u32;
        loop {
            let base = match self.load(request).await {
                Ok(base) => base,
                Err(error) if unknown && passes(&error) => {
                    self.clock.sleep(backoff.pause()).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if attempts > 0 && rule::holds(Rule::OwnCommitFound) && progress::contains_commit(&base.metadata, &id) {
                return Ok(CommitOutcome::Committed(state(&request.table, &base.metadata)?));
            }
            let attempt = match self.prepare(request, &base).await {
                Ok(Prepared::Attempt(attempt)) => attempt,
                Ok(Prepared::Stale(reason)) => {
                    self.discard(request, unknown).await;
                    return Ok(CommitOutcome::Stale(state(&request.table, &base.metadata)?, reason));
                }
                Ok(Prepared::Outdated) => {
                    self.discard(request, unknown).await;
                    return Ok(CommitOutcome::Outdated(state(&request.table, &base.metadata)?));
                }
                Err(error) if unknown && passes(&error) => {
                    self.clock.sleep(backoff.pause()).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            check!(I3, attempt.is_forward(request), "commit {id} moves the ledger of `{}` back", request.table);
            attempts += 1;
            crash::point(crash::MANIFEST_LIST_WRITTEN);
            match self.catalog.commit(attempt.changes.clone()).await {
                Ok(Applied::Done(tables)) => {
                    attempt.lists.iter().for_each(|list| self.manifests.remember(list));
                    let table = tables.first().ok_or_else(|| Error::bug("a commit answered without its table"))?;
                    return Ok(CommitOutcome::Committed(state(&request.table, &table.metadata)?));
                }
                Ok(Applied::Conflict(reason)) => {
                    tracing::debug!(table = %request.table, commit = id, reason, "commit conflict, rebasing");
                    request.conflicts.fetch_add(1, Ordering::Relaxed);
                    self.delete(attempt.lists.iter().flat_map(|list| &list.files)).await;
                    self.clock.sleep(backoff.pause()).await;
                }
                Ok(Applied::Unknown(error)) => {
                    tracing::warn!(table = %request.table, commit = id, error = %error.chain(), "commit's answer was lost, looking for it");
                    unknown = true;
                    self.clock.sleep(backoff.pause()).await;
                }
                Err(error) if unknown && passes(&error) => self.clock.sleep(backoff.pause()).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn load(&self, request: &CommitRequest) -> Result<LoadedTable> {
        let table = &request.table;
        let base = self.catalog.load(table).await?;
        let base = base.ok_or_else(|| Error::corrupt(format!("commit to table `{table}`: the table has vanished")))?;
        if base.metadata.uuid() != request.table_uuid {
            return Err(Error::corrupt(format!(
                "commit to table `{table}`: it was replaced by another one of that name"
            )));
        }
        Ok(base)
    }

    async fn prepare(&self, request: &CommitRequest, base: &LoadedTable) -> Result<Prepared> {
        let metadata = &base.metadata;
        let before = match progress::recovery(&request.table.to_string(), metadata)? {
            Recovery::Fresh => Progress::default(),
            Recovery::At(progress) => progress,
            Recovery::Halted(text) => return Err(Error::corrupt(text)),
        };
        if before.suspension.is_some() && request.suspension.is_none() && rule::holds(Rule::SuspensionSeen) {
            return Ok(Prepared::Stale("the table is suspended".to_owned()));
        }
        let ledger = match before.ledger.apply(&request.identity, &request.advances) {
            Ok(ledger) => ledger,
            Err(stale) => return Ok(Prepared::Stale(stale.to_string())),
        };
        let current = from_iceberg_schema(metadata.current_schema())?;
        let specs_known = request.files.iter().all(|file| metadata.partition_spec_by_id(file.spec_id).is_some());
        let fits = request.files.is_empty() || (specs_known && still_means(&request.schema, &current));
        if !fits {
            return Ok(Prepared::Outdated);
        }
        let mut after = Progress { ledger, ..before.clone() };
        after.gaps.extend(request.gaps.iter().cloned());
        if let Some(suspension) = &request.suspension {
            after.suspension.clone_from(suspension);
        }
        let mut entries = progress::summary(&after);
        entries.insert(progress::COMMIT_ID.to_owned(), request.id.to_string());
        if let Some(newest) = request.newest_ms {
            entries.insert(progress::NEWEST.to_owned(), newest.to_string());
        }
        let (mut main, list) = self.append(&request.table, metadata, &request.files, entries).await?;
        carry_ledger(&mut main, &after)?;
        let (mut changes, mut lists) = (vec![main], vec![list]);
        if let Some((uuid, files)) = &request.dead_letters {
            let (change, list) = self.append_dead_letters(request, *uuid, files).await?;
            changes.push(change);
            lists.push(list);
        }
        Ok(Prepared::Attempt(Box::new(Attempt { changes, lists, before, after })))
    }

    async fn append_dead_letters(
        &self,
        request: &CommitRequest,
        uuid: uuid::Uuid,
        files: &[WrittenFile],
    ) -> Result<(TableChange, WrittenList)> {
        let table = request.table.dead_letters();
        let loaded = self.catalog.load(&table).await?.filter(|loaded| loaded.metadata.uuid() == uuid);
        let loaded = loaded.ok_or_else(|| Error::corrupt(format!("table `{table}` has vanished or was replaced")))?;
        let entries = HashMap::from([(progress::COMMIT_ID.to_owned(), request.id.to_string())]);
        self.append(&table, &loaded.metadata, files, entries).await
    }

    /// An append of `files` (none: of nothing) as a change of the table, with `entries` in the snapshot's summary.
    pub(super) async fn append(
        &self,
        table: &TableName,
        metadata: &TableMetadata,
        files: &[WrittenFile],
        mut entries: HashMap<String, String>,
    ) -> Result<(TableChange, WrittenList)> {
        let attempt = self.clock.fresh_id();
        let new =
            NewSnapshot { metadata, id: snapshot_id(attempt), sequence: metadata.next_sequence_number(), attempt };
        let list = self.manifests.write(&new, files).await?;
        entries.extend(totals(metadata, &Delta::adding(files)));
        let mut change = self.advance(table, &new, &list, Operation::Append, entries);
        change.updates.extend(self.drop_old(metadata, attempt).await?);
        Ok((change, list))
    }

    /// `main` moved on by a snapshot, as a change of the table.
    pub(super) fn advance(
        &self,
        table: &TableName,
        new: &NewSnapshot<'_>,
        list: &WrittenList,
        operation: Operation,
        entries: HashMap<String, String>,
    ) -> TableChange {
        let metadata = new.metadata;
        let now = self.clock.now_ms().max(metadata.last_updated_ms());
        let now = now.max(metadata.snapshots().map(|snapshot| snapshot.timestamp_ms()).max().unwrap_or(now));
        let parent = metadata.current_snapshot_id();
        let builder = Snapshot::builder()
            .with_snapshot_id(new.id)
            .with_parent_snapshot_id(parent)
            .with_sequence_number(new.sequence)
            .with_timestamp_ms(now)
            .with_manifest_list(list.location.clone())
            .with_summary(Summary { operation, additional_properties: entries })
            .with_schema_id(metadata.current_schema_id());
        let snapshot = match list.next_row_id {
            Some(next) => builder.with_row_range(metadata.next_row_id(), next - metadata.next_row_id()).build(),
            None => builder.build(),
        };
        let requirements = vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_owned(), snapshot_id: parent },
            TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
            TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
        ];
        let branch = SnapshotReference::new(new.id, SnapshotRetention::branch(None, None, None));
        let updates = vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: MAIN_BRANCH.to_owned(), reference: branch },
        ];
        TableChange { table: table.clone(), requirements, properties: Vec::new(), updates }
    }

    /// Drops the oldest half of the snapshots once there are twice as many as are to be kept, so that a commit's cost
    /// does not grow with the table's age. Their manifest lists go into a durable list for maintenance.
    async fn drop_old(&self, metadata: &TableMetadata, attempt: uuid::Uuid) -> Result<Option<TableUpdate>> {
        let count = metadata.snapshots().len();
        if count < self.keep_snapshots * 2 {
            return Ok(None);
        }
        let protected = referenced(metadata)?;
        let mut old: Vec<_> =
            metadata.snapshots().filter(|snapshot| !protected.contains(&snapshot.snapshot_id())).collect();
        old.sort_by_key(|snapshot| snapshot.sequence_number());
        old.truncate(count - self.keep_snapshots);
        let lists: Vec<&str> = old.iter().map(|snapshot| snapshot.manifest_list()).collect();
        self.note_dropped(metadata, attempt, &lists).await?;
        let snapshot_ids = old.iter().map(|snapshot| snapshot.snapshot_id()).collect();
        Ok(Some(TableUpdate::RemoveSnapshots { snapshot_ids }))
    }

    /// Writes the durable list of manifest lists whose snapshots are about to go, and answers where.
    pub(super) async fn note_dropped(
        &self,
        metadata: &TableMetadata,
        attempt: uuid::Uuid,
        lists: &[&str],
    ) -> Result<String> {
        let text =
            serde_json::to_vec(lists).map_err(|e| Error::bug("write list of dropped snapshots").with_source(e))?;
        let location = format!("{}/metadata/{attempt}{DROPPED_SUFFIX}", metadata.location());
        self.stores.write(&location, text.into()).await?;
        Ok(location)
    }

    /// Deletes the data files of a request that is certainly not in and never will be.
    async fn discard(&self, request: &CommitRequest, unknown: bool) {
        if !unknown {
            let dead = request.dead_letters.iter().flat_map(|(_, files)| files);
            self.delete(request.files.iter().chain(dead).map(|file| &file.path)).await;
        }
    }

    /// Best effort: what stays is an orphan that maintenance removes.
    pub(super) async fn delete<'a>(&self, locations: impl Iterator<Item = &'a String>) {
        for location in locations {
            if let Err(error) = self.stores.delete(location).await {
                tracing::debug!(location, error = %error.chain(), "unused file stays for orphan removal");
            }
        }
    }
}

impl Attempt {
    /// The ledger moves forward, but for a human's own choice (a commit that changes the suspension).
    fn is_forward(&self, request: &CommitRequest) -> bool {
        request.suspension.is_some() || self.after.ledger.not_behind(&self.before.ledger)
    }
}

/// The tag and the property go with every snapshot that carries a ledger, never without one.
pub(super) fn carry_ledger(change: &mut TableChange, after: &Progress) -> Result<()> {
    let added = change.updates.iter().find_map(|update| match update {
        TableUpdate::AddSnapshot { snapshot } => Some((snapshot.snapshot_id(), snapshot.sequence_number())),
        _ => None,
    });
    let (id, sequence) = added.ok_or_else(|| Error::bug("a commit without snapshot"))?;
    let tag = SnapshotReference::new(id, SnapshotRetention::Tag { max_ref_age_ms: Some(i64::MAX) });
    change.updates.push(TableUpdate::SetSnapshotRef { ref_name: progress::TAG.to_owned(), reference: tag });
    let updates = HashMap::from([(progress::PROPERTY.to_owned(), progress::marker(id, sequence, after))]);
    change.updates.push(TableUpdate::SetProperties { updates });
    Ok(())
}

pub(super) fn passes(error: &Error) -> bool {
    use crate::error::ErrorKind::{Conflict, Denied, Unavailable};
    matches!(error.kind(), Unavailable | Denied | Conflict)
}

/// A positive id from fresh randomness; Iceberg's ids are positive longs.
pub(super) fn snapshot_id(attempt: uuid::Uuid) -> i64 {
    let (high, low) = attempt.as_u64_pair();
    ((high.rotate_left(17) ^ low) & (i64::MAX as u64)).cast_signed().max(1)
}

/// A table at the point of its metadata.
pub(super) fn state(table: &TableName, metadata: &TableMetadata) -> Result<TableState> {
    let schema = schema::current(metadata)?;
    Ok(TableState {
        shape: Arc::new(shape(metadata, &schema)),
        table: table.clone(),
        uuid: metadata.uuid(),
        snapshot_id: metadata.current_snapshot_id(),
        sequence_number: metadata.last_sequence_number(),
        schema: Arc::new(schema),
        recovery: progress::recovery(&table.to_string(), metadata)?,
        rows: metadata.current_snapshot().and_then(|snapshot| number(snapshot, "total-records")).unwrap_or(0),
        newest_ms: progress::ancestry(metadata).find_map(|snapshot| number(snapshot, progress::NEWEST)),
        properties: Arc::new(metadata.properties().iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
    })
}

pub(super) fn number<T: std::str::FromStr>(snapshot: &SnapshotRef, key: &str) -> Option<T> {
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

/// Ids of snapshots that a branch or tag points at, and of `main`'s newest.
pub(super) fn referenced(metadata: &TableMetadata) -> Result<Vec<i64>> {
    // The metadata has no accessor for its references; their JSON form does.
    let json =
        serde_json::to_value(metadata).map_err(|e| Error::bug("table metadata has no json form").with_source(e))?;
    let refs = json.get("refs").and_then(serde_json::Value::as_object);
    let ids = refs.into_iter().flatten().filter_map(|(_, reference)| reference.get("snapshot-id")?.as_i64());
    Ok(ids.chain(metadata.current_snapshot_id()).collect())
}

/// What a snapshot adds to the data files, and what it removes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) files: (u64, u64),
    pub(super) rows: (u64, u64),
    pub(super) bytes: (u64, u64),
}

impl Delta {
    fn adding(files: &[WrittenFile]) -> Self {
        let rows = files.iter().map(|file| file.rows).sum();
        let bytes = files.iter().map(|file| file.size_bytes).sum();
        Self { files: (files.len() as u64, 0), rows: (rows, 0), bytes: (bytes, 0) }
    }
}

/// The counts of a snapshot's summary: what it adds and removes, and all there is after it.
pub(super) fn totals(metadata: &TableMetadata, delta: &Delta) -> HashMap<String, String> {
    let counts = [
        ("data-files", "deleted-data-files", delta.files),
        ("records", "deleted-records", delta.rows),
        ("files-size", "removed-files-size", delta.bytes),
        ("delete-files", "removed-delete-files", (0, 0)),
        ("position-deletes", "removed-position-deletes", (0, 0)),
        ("equality-deletes", "removed-equality-deletes", (0, 0)),
    ];
    let parent = metadata.current_snapshot().map(|snapshot| &snapshot.summary().additional_properties);
    let mut entries = HashMap::new();
    for (name, removal, (added, removed)) in counts {
        if added > 0 {
            entries.insert(format!("added-{name}"), added.to_string());
        }
        if removed > 0 {
            entries.insert(removal.to_owned(), removed.to_string());
        }
        let total = format!("total-{name}");
        let before = match parent {
            None => Some(0),
            Some(parent) => parent.get(&total).and_then(|text| text.parse::<u64>().ok()),
        };
        // Where the parent's writer gave no total, none can be given.
        if let Some(before) = before {
            entries.insert(total, (before + added).saturating_sub(removed).to_string());
        }
    }
    entries
}

/// True where files written under `written` still mean the same under `current`: each of their columns is there, by
/// id, with its type. Added columns and other names change nothing.
pub(super) fn still_means(written: &TableSchema, current: &TableSchema) -> bool {
    fields_mean(&written.fields, &current.fields)
}

fn fields_mean(written: &[Field], current: &[Field]) -> bool {
    let held =
        written.iter().all(|field| current.iter().any(|now| now.id == field.id && kind_means(&field.kind, &now.kind)));
    held && current.iter().all(|now| !now.required || written.iter().any(|field| field.id == now.id))
}

fn kind_means(written: &Type, current: &Type) -> bool {
    match (written, current) {
        (Type::Struct(written), Type::Struct(current)) => fields_mean(written, current),
        (Type::List(written), Type::List(current)) => {
            fields_mean(std::slice::from_ref(written), std::slice::from_ref(current))
        }
        (Type::Map(key, value), Type::Map(key_now, value_now)) => {
            fields_mean(std::slice::from_ref(key), std::slice::from_ref(key_now))
                && fields_mean(std::slice::from_ref(value), std::slice::from_ref(value_now))
        }
        _ => written == current,
    }
}
