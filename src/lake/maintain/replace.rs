//! Commits of maintenance: files replaced by files with the same rows, manifests by merged ones, snapshots dropped.
//! Each is made anew on whatever the table has become meanwhile, or declined where it does not fit any more. Letters
//! leave their table in the same way, as a part of a commit of two tables (`lake::letters`).
//!
//! Ingestion never waits for these: who loses a compare-and-swap tries again, and after some tries gives up.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use iceberg::TableRequirement;
use iceberg::TableUpdate;
use iceberg::spec::{
    DataFile, FormatVersion, MAIN_BRANCH, ManifestContentType, ManifestFile, ManifestStatus, Operation, TableMetadata,
    TableMetadataRef,
};
use uuid::Uuid;

use super::plan::Retention;
use super::survey::{DeleteFile, GroupKey, SmallFile};
use super::{expire, manifests};
use crate::check;
use crate::error::{Error, Result};
use crate::lake::catalog::{Applied, LoadedTable, TableChange};
use crate::lake::commit::{Committer, Delta, carry_ledger, passes, snapshot_id, totals};
use crate::lake::manifests::{NewSnapshot, WrittenList, data_file_of, with_first_row_id};
use crate::lake::progress;
use crate::model::file::WrittenFile;
use crate::model::ids::TableName;
use crate::ports::Recovery;
use crate::runtime::backoff::Backoff;
use crate::runtime::crash;

/// Tries that lose against other commits before maintenance leaves the table alone for now.
const CONFLICTS_MAX: u32 = 40;
/// Manifests that a merge writes end at this many entries: about 8 MiB.
pub(super) const ENTRIES_MAX: usize = 40_000;

/// What is to become of a table.
pub(in crate::lake) enum Work {
    /// Data files are replaced.
    Files(Files),
    /// Manifests are replaced; no file is.
    Manifests(Vec<ManifestFile>),
    /// Snapshots are dropped.
    Expire(Retention),
}

/// Data files to replace, and what replaces them.
pub(in crate::lake) struct Files {
    pub(in crate::lake) key: GroupKey,
    /// The data sequence number of what is added: that of the snapshot whose deletes were looked at. `None` where it
    /// does not have all rows of what is removed; it comes with the new snapshot then.
    pub(in crate::lake) base_sequence: Option<i64>,
    /// By path.
    pub(in crate::lake) removed: HashMap<String, SmallFile>,
    pub(in crate::lake) added: Vec<WrittenFile>,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Landed {
    /// It is in; the table right after it, or later. With it the manifest lists of dropped snapshots, and where they
    /// are noted.
    Done(TableMetadataRef, Vec<expire::Dropped>),
    /// It is not and never will be, for this reason. What was written for it is deleted.
    Declined(String),
}

enum Prepared {
    Change { change: Box<TableChange>, list: Option<WrittenList>, dropped: Option<expire::Dropped> },
    Declined(String),
}

/// One piece of work on its way into a table.
pub(in crate::lake) struct Replace<'a> {
    committer: &'a Committer,
    table: &'a TableName,
    uuid: Uuid,
    work: Work,
    /// Names the commit in the summary, its snapshot and its manifests: the same for all tries, so that a manifest
    /// that was written for one serves the next.
    id: Uuid,
    /// Per manifest looked at, what replaces it; `None` where it stays.
    rewritten: HashMap<String, Option<ManifestFile>>,
    /// Manifests with what is added.
    fresh: Option<Vec<ManifestFile>>,
    written: Vec<String>,
    dropped: Vec<expire::Dropped>,
}

impl<'a> Replace<'a> {
    pub(in crate::lake) fn new(committer: &'a Committer, table: &'a TableName, uuid: Uuid, work: Work) -> Self {
        Self::named(committer.clock.fresh_id(), committer, table, uuid, work)
    }

    /// As [`Replace::new`], for a commit that has a name already.
    pub(in crate::lake) fn named(
        id: Uuid,
        committer: &'a Committer,
        table: &'a TableName,
        uuid: Uuid,
        work: Work,
    ) -> Self {
        Self {
            committer,
            table,
            uuid,
            work,
            id,
            rewritten: HashMap::new(),
            fresh: None,
            written: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Brings it in. Returns only with a definite outcome, as [`crate::ports::Lake::commit`] does.
    pub(super) async fn land(mut self) -> Result<Landed> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let (mut unknown, mut conflicts) = (false, 0);
        let result = loop {
            match self.attempt(unknown).await {
                Ok(Some(landed)) => break Ok(landed),
                Ok(None) => {}
                Err((error, lost)) => {
                    unknown |= lost;
                    if !unknown || !passes(&error) {
                        break Err(error);
                    }
                    tracing::warn!(table = %self.table, error = %error.chain(), "maintenance commit's answer was lost, looking for it");
                }
            }
            conflicts += 1;
            if conflicts > CONFLICTS_MAX && !unknown {
                break Ok(Landed::Declined("other commits came first each time".to_owned()));
            }
            self.committer.clock.sleep(backoff.pause()).await;
        };
        match &result {
            Ok(Landed::Done(..)) => self.delete_leftovers().await,
            _ if !unknown => self.discard().await,
            _ => {}
        }
        result
    }

    /// One try; `None` where another commit came first. With an error, whether its answer was lost.
    async fn attempt(&mut self, unknown: bool) -> Result<Option<Landed>, (Error, bool)> {
        let known = |error| (error, false);
        let base = self.load().await.map_err(known)?;
        if unknown && progress::contains_commit(&base.metadata, &self.id.simple().to_string()) {
            return Ok(Some(Landed::Done(base.metadata, std::mem::take(&mut self.dropped))));
        }
        let (change, list) = match self.prepare(&base).await.map_err(known)? {
            Prepared::Change { change, list, dropped } => {
                self.dropped.extend(dropped);
                (change, list)
            }
            // Nothing is left to drop where an earlier try did it.
            Prepared::Declined(_) if unknown && matches!(self.work, Work::Expire(_)) => {
                return Ok(Some(Landed::Done(base.metadata, std::mem::take(&mut self.dropped))));
            }
            Prepared::Declined(reason) => return Ok(Some(Landed::Declined(reason))),
        };
        crash::point(self.prepared_point());
        match self.committer.catalog.commit(vec![*change]).await.map_err(known)? {
            Applied::Done(tables) => {
                crash::point(crash::MAINTENANCE_COMMITTED);
                list.iter().for_each(|list| self.committer.manifests.remember(list));
                let table = tables.into_iter().next();
                let table = table.ok_or_else(|| known(Error::bug("a commit answered without its table")))?;
                Ok(Some(Landed::Done(table.metadata, std::mem::take(&mut self.dropped))))
            }
            Applied::Conflict(reason) => {
                tracing::debug!(table = %self.table, reason, "maintenance conflict, rebasing");
                let unused = list.iter().map(|list| &list.location);
                self.committer.delete(unused).await;
                let noted: Vec<_> = self.dropped.drain(..).map(|dropped| dropped.noted_at).collect();
                self.committer.delete(noted.iter()).await;
                Ok(None)
            }
            Applied::Unknown(error) => Err((error, true)),
        }
    }

    fn prepared_point(&self) -> &'static str {
        match self.work {
            Work::Files(_) => crash::REPLACE_WRITTEN,
            Work::Manifests(_) => crash::MANIFESTS_WRITTEN,
            Work::Expire(_) => crash::DROPPED_NOTED,
        }
    }

    pub(in crate::lake) async fn load(&self) -> Result<LoadedTable> {
        let base = self.committer.catalog.load(self.table).await?;
        let base = base.filter(|base| base.metadata.uuid() == self.uuid);
        base.ok_or_else(|| Error::fenced(format!("maintain table `{}`: it has vanished or was replaced", self.table)))
    }

    /// The change of its table on that base, and the manifest list written for it; or why it no longer fits. For files.
    pub(in crate::lake) async fn change(
        &mut self,
        base: &LoadedTable,
    ) -> Result<Result<(TableChange, Option<WrittenList>), String>> {
        Ok(match self.prepare(base).await? {
            Prepared::Change { change, list, .. } => Ok((*change, list)),
            Prepared::Declined(reason) => Err(reason),
        })
    }

    async fn prepare(&mut self, base: &LoadedTable) -> Result<Prepared> {
        let metadata = &base.metadata;
        let progress = match progress::recovery(&self.table.to_string(), metadata)? {
            Recovery::Fresh => None,
            Recovery::At(progress) => Some(progress),
            Recovery::Halted(_) => return Ok(Prepared::Declined("the table's history is rolled back".to_owned())),
        };
        if let Work::Expire(retention) = &self.work {
            return self.expire(metadata, retention).await;
        }
        if metadata.format_version() < FormatVersion::V2 {
            return Ok(Prepared::Declined("format version 1 is not rewritten".to_owned()));
        }
        let id = snapshot_id(self.id);
        let new = NewSnapshot { metadata, id, sequence: metadata.next_sequence_number(), attempt: self.id };
        let (manifests, delta) = match self.replaced(&new).await? {
            Ok(replaced) => replaced,
            Err(reason) => return Ok(Prepared::Declined(reason)),
        };
        let attempt = NewSnapshot { attempt: self.committer.clock.fresh_id(), ..new };
        let list = self.committer.manifests.write_list(&attempt, manifests, Vec::new()).await?;
        let mut entries = totals(metadata, &delta);
        entries.insert(progress::COMMIT_ID.to_owned(), self.id.simple().to_string());
        entries.extend(progress::newest(metadata));
        entries.extend(progress.as_ref().map(progress::summary).unwrap_or_default());
        let operation = match &self.work {
            Work::Files(Files { base_sequence: None, added, .. }) if added.is_empty() => Operation::Delete,
            Work::Files(Files { base_sequence: None, .. }) => Operation::Overwrite,
            _ => Operation::Replace,
        };
        let mut change = self.committer.advance(self.table, &attempt, &list, operation, entries);
        if let Some(progress) = &progress {
            // The ledger goes on as it is: the tag and the property move to the new snapshot.
            carry_ledger(&mut change, progress)?;
        }
        Ok(Prepared::Change { change: Box::new(change), list: Some(list), dropped: None })
    }

    /// The new snapshot's manifests, or why the work no longer fits.
    async fn replaced(&mut self, new: &NewSnapshot<'_>) -> Result<Result<(Vec<ManifestFile>, Delta), String>> {
        let inherited = self.committer.manifests.inherited(new.metadata).await?;
        let added = match &self.work {
            Work::Files(files) => {
                if let Some(reason) = self.deletes_apply(&inherited, files).await? {
                    return Ok(Err(reason));
                }
                files.added.len()
            }
            Work::Manifests(sources) => {
                let live: HashSet<&str> = inherited.iter().map(|manifest| manifest.manifest_path.as_str()).collect();
                if !sources.iter().all(|source| live.contains(source.manifest_path.as_str())) {
                    return Ok(Err("another commit merged the manifests first".to_owned()));
                }
                0
            }
            Work::Expire(_) => 0,
        };
        let Some(kept) = self.rewrite(new, inherited).await? else {
            return Ok(Err("another commit removed a file first".to_owned()));
        };
        if self.fresh.is_none() {
            self.fresh = Some(self.write_fresh(new).await?);
        }
        let manifests = self.fresh.iter().flatten().cloned().chain(kept).collect();
        let delta = match &self.work {
            Work::Files(files) => self.delta(files, added),
            _ => Delta::default(),
        };
        Ok(Ok((manifests, delta)))
    }

    fn delta(&self, files: &Files, added: usize) -> Delta {
        let sum = |count: fn(&WrittenFile) -> u64| files.added.iter().map(count).sum::<u64>();
        let removed = self.rewritten.values().flatten();
        let rows = removed.map(|manifest| manifest.deleted_rows_count.unwrap_or(0)).sum();
        let is_same = files.base_sequence.is_none() || rows == sum(|file| file.rows);
        check!(I4, is_same, "replacing files of `{}` changes its rows", self.table);
        Delta {
            files: (added as u64, files.removed.len() as u64),
            rows: (sum(|file| file.rows), rows),
            bytes: (sum(|file| file.size_bytes), files.removed.values().map(|file| file.size_bytes).sum()),
        }
    }

    /// The rule of rebasing: no delete file, whenever it was added, may apply to a file that is replaced.
    async fn deletes_apply(&self, inherited: &[ManifestFile], files: &Files) -> Result<Option<String>> {
        for manifest in inherited.iter().filter(|manifest| manifest.content == ManifestContentType::Deletes) {
            let loaded = self.committer.manifests.load(manifest).await?;
            for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
                let delete = DeleteFile::new(entry, manifest.partition_spec_id);
                let GroupKey { spec_id, partition, .. } = &files.key;
                let mut removed = files.removed.iter();
                if removed.any(|(path, file)| delete.may_apply(*spec_id, partition, file.sequence, path)) {
                    return Ok(Some("another engine deleted rows of the files meanwhile".to_owned()));
                }
            }
        }
        Ok(None)
    }

    /// The inherited manifests, those with removed files in their new form; `None` where a removed file is gone.
    async fn rewrite(
        &mut self,
        new: &NewSnapshot<'_>,
        inherited: Vec<ManifestFile>,
    ) -> Result<Option<Vec<ManifestFile>>> {
        let removed = match &self.work {
            Work::Files(files) => files,
            Work::Manifests(sources) => {
                let gone: HashSet<&str> = sources.iter().map(|source| source.manifest_path.as_str()).collect();
                return Ok(Some(inherited.into_iter().filter(|m| !gone.contains(m.manifest_path.as_str())).collect()));
            }
            Work::Expire(_) => return Ok(Some(inherited)),
        };
        // Where the files were last seen is looked at first; mostly they are still there.
        let hints: HashSet<&str> = removed.removed.values().map(|file| file.manifest.as_ref()).collect();
        let (likely, rest): (Vec<&ManifestFile>, Vec<&ManifestFile>) = inherited
            .iter()
            .filter(|manifest| {
                manifest.content == ManifestContentType::Data && manifest.partition_spec_id == removed.key.spec_id
            })
            .partition(|manifest| hints.contains(manifest.manifest_path.as_str()));
        let mut missing = removed.removed.len();
        for manifest in likely.into_iter().chain(rest) {
            if missing == 0 {
                break;
            }
            if !self.rewritten.contains_key(&manifest.manifest_path) {
                let replacement = without(self.committer, new, manifest, &removed.removed, &mut self.written).await?;
                self.rewritten.insert(manifest.manifest_path.clone(), replacement);
            }
            let found = self.rewritten.get(&manifest.manifest_path).into_iter().flatten();
            missing -=
                found.map(|manifest| manifest.deleted_files_count.unwrap_or(0) as usize).sum::<usize>().min(missing);
        }
        if missing > 0 {
            return Ok(None);
        }
        // A rewritten manifest whose original is no longer there belongs to an earlier try.
        let live: HashSet<&str> = inherited.iter().map(|manifest| manifest.manifest_path.as_str()).collect();
        self.rewritten.retain(|path, _| live.contains(path.as_str()));
        let kept =
            |manifest: ManifestFile| self.rewritten.get(&manifest.manifest_path).cloned().flatten().unwrap_or(manifest);
        Ok(Some(inherited.into_iter().map(kept).collect()))
    }

    async fn write_fresh(&mut self, new: &NewSnapshot<'_>) -> Result<Vec<ManifestFile>> {
        match &self.work {
            Work::Files(Files { added, base_sequence: None, .. }) => {
                self.committer.manifests.fresh(new, added, &mut self.written).await
            }
            Work::Files(Files { key, base_sequence: Some(sequence), added, .. }) if !added.is_empty() => {
                let n = self.written.len();
                let mut writer = self.committer.manifests.writer(new, key.spec_id, n, &mut self.written)?;
                for file in added {
                    let file = data_file_of(new.metadata, file, key.partition.clone())?;
                    writer.add_file(file, *sequence).map_err(|e| broken("add file to manifest", e))?;
                }
                Ok(vec![writer.write_manifest_file().await.map_err(|e| broken("write manifest", e))?])
            }
            Work::Manifests(sources) => manifests::merge(self.committer, new, sources, &mut self.written).await,
            _ => Ok(Vec::new()),
        }
    }

    async fn expire(&self, metadata: &TableMetadata, retention: &Retention) -> Result<Prepared> {
        let gone = expire::choose(metadata, retention, self.committer.clock.now_ms())?;
        if gone.is_empty() {
            return Ok(Prepared::Declined("no snapshot is to be dropped any more".to_owned()));
        }
        let lists: Vec<&str> = gone
            .iter()
            .filter_map(|id| metadata.snapshot_by_id(*id))
            .map(|snapshot| snapshot.manifest_list())
            .collect();
        let attempt = self.committer.clock.fresh_id();
        let noted_at = self.committer.note_dropped(metadata, attempt, &lists).await?;
        let dropped = expire::Dropped { noted_at, lists: lists.iter().map(|&list| list.to_owned()).collect() };
        let requirements = vec![
            TableRequirement::UuidMatch { uuid: metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch {
                r#ref: MAIN_BRANCH.to_owned(),
                snapshot_id: metadata.current_snapshot_id(),
            },
        ];
        let mut updates: Vec<TableUpdate> = Vec::new();
        for id in &gone {
            updates.extend(
                metadata.statistics_for_snapshot(*id).map(|_| TableUpdate::RemoveStatistics { snapshot_id: *id }),
            );
            let partitions = metadata.partition_statistics_for_snapshot(*id);
            updates.extend(partitions.map(|_| TableUpdate::RemovePartitionStatistics { snapshot_id: *id }));
        }
        updates.push(TableUpdate::RemoveSnapshots { snapshot_ids: gone });
        let change = TableChange { table: self.table.clone(), requirements, properties: Vec::new(), updates };
        Ok(Prepared::Change { change: Box::new(change), list: None, dropped: Some(dropped) })
    }

    /// Deletes manifests of earlier tries that the one which is in has no use for.
    pub(in crate::lake) async fn delete_leftovers(&self) {
        let used = self.rewritten.values().flatten().chain(self.fresh.iter().flatten());
        let used: HashSet<&str> = used.map(|manifest| manifest.manifest_path.as_str()).collect();
        self.committer.delete(self.written.iter().filter(|path| !used.contains(path.as_str()))).await;
    }

    /// Deletes what was written for work that is certainly not in and never will be.
    pub(in crate::lake) async fn discard(&self) {
        let Work::Files(files) = &self.work else { return self.committer.delete(self.written.iter()).await };
        self.committer.delete(self.written.iter().chain(files.added.iter().map(|file| &file.path))).await;
    }
}

/// The manifest with the removed files marked so; `None` where it has none of them.
async fn without(
    committer: &Committer,
    new: &NewSnapshot<'_>,
    manifest: &ManifestFile,
    removed: &HashMap<String, SmallFile>,
    written: &mut Vec<String>,
) -> Result<Option<ManifestFile>> {
    let alive = committer.manifests.alive(manifest).await?;
    if !alive.iter().any(|(entry, _)| removed.contains_key(entry.file_path())) {
        return Ok(None);
    }
    let spec_id = manifest.partition_spec_id;
    let mut writer = committer.manifests.writer(new, spec_id, written.len(), written)?;
    for (entry, first_row_id) in &alive {
        let file = with_first_row_id(entry, *first_row_id, spec_id)?;
        add_entry(&mut writer, entry, file, removed.contains_key(entry.file_path()))?;
    }
    let mut rewritten = writer.write_manifest_file().await.map_err(|e| broken("write manifest", e))?;
    rewritten.first_row_id = manifest.first_row_id;
    Ok(Some(rewritten))
}

/// Writes an entry on, with its file as it is to stand there, as existing or as removed by this snapshot.
pub(super) fn add_entry(
    writer: &mut iceberg::spec::ManifestWriter,
    entry: &iceberg::spec::ManifestEntry,
    file: DataFile,
    is_removed: bool,
) -> Result<()> {
    debug_assert_ne!(entry.status(), ManifestStatus::Deleted);
    let (Some(snapshot), Some(sequence)) = (entry.snapshot_id(), entry.sequence_number()) else {
        return Err(Error::corrupt("an entry of a manifest has no sequence number"));
    };
    let added = if is_removed {
        writer.add_delete_file(file, sequence, entry.file_sequence_number)
    } else {
        writer.add_existing_file(file, snapshot, sequence, entry.file_sequence_number)
    };
    added.map_err(|e| broken("add file to manifest", e))
}

pub(super) fn broken(context: &str, error: iceberg::Error) -> Error {
    crate::lake::storage::from_iceberg(context, error)
}
