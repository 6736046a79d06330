//! Tables kept healthy: small files compacted, manifests merged, old snapshots dropped, orphans deleted.
//!
//! [`plan`] decides and knows no I/O; this is who asks it and carries it out, one table at a time under a lease.
//! *Architecture invariant:* a commit made here changes no row and carries the ledger; ingestion never waits for it;
//! a file is deleted only when nothing reaches it.

mod compact;
mod expire;
pub(in crate::lake) mod lease;
mod lineage;
mod manifests;
mod orphans;
pub mod plan;
pub(in crate::lake) mod replace;
mod report;
mod sorted;
pub(in crate::lake) mod survey;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{FormatVersion, TableMetadata};

use self::compact::{Tools, compact};
use self::lease::{ABANDONED, Lease};
use self::plan::{Compaction, Retention};
use self::replace::{Files, Landed, Replace, Work};
use self::survey::{GroupKey, Known, SmallFile, Survey};
use super::catalog::LoadedTable;
use super::commit::Committer;
use super::progress;
use super::shape::is_ours;
use super::tables::IcebergLake;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TableName;
use crate::ports::Recovery;
use crate::runtime::compute::Compute;

pub use report::{Action, Health, Report};

#[cfg(test)]
mod tests;

/// Snapshots are dropped by themselves once a tenth more of them is there than is kept, so that not every commit of
/// ingestion brings one of maintenance.
const EXPIRE_SLACK: usize = 10;
/// How often notes of dropped snapshots, and orphans, are looked for by themselves: both list the store.
const SWEEP_INTERVAL: Duration = Duration::from_mins(10);
const ORPHAN_INTERVAL: Duration = Duration::from_hours(24);
/// Files of a sorted table are merged at once up to this share of the memory, since all of them are held in it.
const SORTED_SHARE: u64 = 2;

/// How tables are maintained.
#[derive(Debug, Clone)]
pub struct MaintainOptions {
    /// Which files are compacted.
    pub compaction: Compaction,
    /// Which snapshots are kept.
    pub retention: Retention,
    /// Files that nothing refers to are deleted at this age.
    pub orphan_grace: Duration,
    /// Memory that one compaction may take, bytes.
    pub memory_bytes: u64,
}

/// Maintains the tables of one lake.
pub struct Maintainer {
    lake: Arc<IcebergLake>,
    compute: Compute,
    options: MaintainOptions,
    /// This process, in leases.
    owner: String,
    tables: Mutex<HashMap<TableName, Remembered>>,
}

/// What is known of a table from before.
#[derive(Debug, Default)]
struct Remembered {
    known: Known,
    /// Files that could not be rewritten, with the reason; they are left alone until the process ends.
    refused: HashMap<String, String>,
    swept_at: Option<Duration>,
    orphans_at: Option<Duration>,
    /// Orphans shown by the round before: only these are deleted by the next.
    orphans_shown: HashSet<String>,
}

impl Maintainer {
    /// Maintenance of `lake`'s tables; rows are decoded and encoded on `compute`.
    #[must_use]
    pub fn new(lake: Arc<IcebergLake>, compute: Compute, options: MaintainOptions) -> Self {
        let owner = lake.committer.clock.fresh_id().simple().to_string();
        Self { lake, compute, options, owner, tables: Mutex::default() }
    }

    fn committer(&self) -> &Committer {
        &self.lake.committer
    }

    /// How a table is.
    ///
    /// # Errors
    /// `InvalidRequest` where there is no such table; `Unavailable`, `Denied`, `Corrupt`.
    pub async fn health(&self, table: &TableName) -> Result<Health> {
        let loaded = self.load(table).await?;
        let mut memory = self.recall(table);
        let health =
            self.look(&mut memory, &loaded.metadata).await.map(|survey| self.health_of(&loaded, &survey, &memory));
        self.remember(table, memory);
        health
    }

    /// True for a table that Frazil made or has taken over, and for one of its dead letters.
    ///
    /// # Errors
    /// As [`Maintainer::health`].
    pub async fn is_ours(&self, table: &TableName) -> Result<bool> {
        Ok(is_ours(&self.load(table).await?.metadata))
    }

    /// Does what is due by itself, at most one compaction; what was done, or `None` where nothing was or another replica
    /// is at it. What is due and how the table is afterwards is in the report.
    ///
    /// # Errors
    /// As [`Maintainer::health`]. What was done before the error is done.
    pub async fn step(&self, table: &TableName) -> Result<Option<Report>> {
        let Some(lease) = self.lease(table).await? else { return Ok(None) };
        let mut memory = self.recall(table);
        let report = lease.hold(self.step_held(table, &mut memory)).await;
        self.remember(table, memory);
        lease.release().await;
        report.map(Some)
    }

    async fn step_held(&self, table: &TableName, memory: &mut Remembered) -> Result<Report> {
        let mut report = Report::default();
        let loaded = self.load(table).await?;
        if let Some(reason) = left_alone(table, &loaded.metadata)? {
            report.note(reason);
            return Ok(report);
        }
        if !is_ours(&loaded.metadata) {
            report.note("another tool made it, and it is not taken over".to_owned());
            return Ok(report);
        }
        let now = self.committer().clock.elapsed();
        let may_delete = deletes_files(&loaded.metadata);
        let due = self.expirable(&loaded.metadata)?;
        let slack = self.options.retention.keep_snapshots / EXPIRE_SLACK;
        if may_delete && due > 0 && due >= slack {
            self.expire(table, &loaded, &mut report).await?;
        }
        if may_delete && memory.swept_at.is_none_or(|at| now >= at + SWEEP_INTERVAL) {
            memory.swept_at = Some(now);
            self.sweep(&loaded.metadata, &mut report).await?;
        }
        if may_delete && memory.orphans_at.is_none_or(|at| now >= at + ORPHAN_INTERVAL) {
            memory.orphans_at = Some(now);
            self.orphans_by_rounds(table, memory, &mut report).await?;
        }
        let loaded = self.load(table).await?;
        let survey = self.look(memory, &loaded.metadata).await?;
        if let Some((key, files)) = self.groups(&loaded.metadata, &survey, memory).into_iter().next() {
            self.compact(table, &loaded, memory, key, files, &mut report).await?;
        } else {
            self.merge_manifests(table, &loaded, manifests::MERGE_AT, &mut report).await?;
        }
        report.health = Some(self.health_of(&loaded, &survey, memory));
        Ok(report)
    }

    /// Does all of `actions` that there is to do now. With `dry_run` it says only what would be done. Orphans are those
    /// older than `orphan_grace`, or else the configured grace.
    ///
    /// # Errors
    /// As [`Maintainer::health`]; `Unavailable` where another replica maintains the table and goes on doing so.
    pub async fn run(
        &self,
        table: &TableName,
        actions: &[Action],
        orphan_grace: Option<Duration>,
        dry_run: bool,
    ) -> Result<Report> {
        let grace = orphan_grace.unwrap_or(self.options.orphan_grace);
        if dry_run {
            return self.rehearse(table, actions, grace).await;
        }
        let committer = self.committer();
        let lease =
            Lease::wait(&committer.catalog, &committer.clock, &lease_name(table), &self.owner, ABANDONED).await?;
        let lease =
            lease.ok_or_else(|| Error::unavailable(format!("another process maintains table `{table}` now")))?;
        let mut memory = self.recall(table);
        let report = lease.hold(self.run_held(table, actions, grace, &mut memory)).await;
        self.remember(table, memory);
        lease.release().await;
        report
    }

    async fn run_held(
        &self,
        table: &TableName,
        actions: &[Action],
        grace: Duration,
        memory: &mut Remembered,
    ) -> Result<Report> {
        let mut report = Report::default();
        if let Some(reason) = left_alone(table, &self.load(table).await?.metadata)? {
            report.note(reason);
            return Ok(report);
        }
        for action in actions {
            let loaded = self.load(table).await?;
            if !deletes_files(&loaded.metadata) && matches!(action, Action::Expire | Action::Orphans) {
                report.note("property `gc.enabled` is false: no files are deleted".to_owned());
                continue;
            }
            match action {
                Action::Compact => self.compact_all(table, memory, &mut report).await?,
                Action::Manifests => self.merge_manifests(table, &loaded, 2, &mut report).await?,
                Action::Expire => {
                    self.expire(table, &loaded, &mut report).await?;
                    self.sweep(&self.load(table).await?.metadata, &mut report).await?;
                }
                Action::Orphans => {
                    let found = orphans::find(self.committer(), table, self.before(grace)).await?;
                    report.orphans(&found);
                    report.deleted_files += orphans::delete(self.committer(), &found).await?;
                }
            }
        }
        let loaded = self.load(table).await?;
        let survey = self.look(memory, &loaded.metadata).await?;
        report.health = Some(self.health_of(&loaded, &survey, memory));
        Ok(report)
    }

    async fn rehearse(&self, table: &TableName, actions: &[Action], grace: Duration) -> Result<Report> {
        let mut report = Report::default();
        let loaded = self.load(table).await?;
        let mut memory = self.recall(table);
        let survey = self.look(&mut memory, &loaded.metadata).await?;
        if let Some(reason) = left_alone(table, &loaded.metadata)? {
            report.note(reason);
            return Ok(report);
        }
        for action in actions {
            match action {
                Action::Compact => {
                    for (_, files) in self.groups(&loaded.metadata, &survey, &memory) {
                        report.would_compact(&files);
                    }
                }
                Action::Manifests => {
                    let all = self.committer().manifests.inherited(&loaded.metadata).await?;
                    let chosen = manifests::choose(&loaded.metadata, &all, 2);
                    report.merged_manifests += chosen.map_or(0, |chosen| chosen.len() as u64);
                }
                Action::Expire => report.expired_snapshots += self.expirable(&loaded.metadata)? as u64,
                Action::Orphans => {
                    report.orphans(&orphans::find(self.committer(), table, self.before(grace)).await?);
                }
            }
        }
        report.health = Some(self.health_of(&loaded, &survey, &memory));
        self.remember(table, memory);
        Ok(report)
    }

    /// Compacts until nothing is worth it.
    async fn compact_all(&self, table: &TableName, memory: &mut Remembered, report: &mut Report) -> Result<()> {
        loop {
            let loaded = self.load(table).await?;
            let survey = self.look(memory, &loaded.metadata).await?;
            let Some((key, files)) = self.groups(&loaded.metadata, &survey, memory).into_iter().next() else {
                return Ok(());
            };
            let (before, refused) = (report.compactions, memory.refused.len());
            self.compact(table, &loaded, memory, key, files, report).await?;
            if report.compactions == before && memory.refused.len() == refused {
                return Ok(());
            }
        }
    }

    async fn compact(
        &self,
        table: &TableName,
        loaded: &LoadedTable,
        memory: &mut Remembered,
        key: GroupKey,
        files: Vec<SmallFile>,
        report: &mut Report,
    ) -> Result<()> {
        let (committer, metadata) = (self.committer(), &loaded.metadata);
        let begun = committer.clock.elapsed();
        let tools = Tools { stores: &committer.stores, compute: &self.compute, id: committer.clock.fresh_id() };
        let written = match compact(&tools, metadata, &key, &files).await {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%table, files = files.len(), error = %error.chain(), "files cannot be compacted");
                memory.refused.extend(files.into_iter().map(|file| (file.path, error.chain())));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let took = committer.clock.elapsed().saturating_sub(begun);
        if took > self.options.orphan_grace / 2 {
            // Another replica may take a file of that age for an orphan.
            committer.delete(written.iter().map(|file| &file.path)).await;
            return Err(Error::unavailable(format!("compaction of table `{table}` took too long to be committed")));
        }
        let base_sequence = metadata.current_snapshot().map_or(0, |snapshot| snapshot.sequence_number());
        let (read, count) = (files.iter().map(|file| file.size_bytes).sum::<u64>(), files.len() as u64);
        let removed = files.into_iter().map(|file| (file.path.clone(), file)).collect();
        let wrote = written.as_ref().map_or(0, |file| file.size_bytes);
        let (base_sequence, added) = (Some(base_sequence), written.into_iter().collect());
        let work = Work::Files(Files { key, base_sequence, removed, added });
        match Replace::new(committer, table, metadata.uuid(), work).land().await? {
            Landed::Done(..) => report.compacted(count, read, wrote, took),
            Landed::Declined(reason) => report.note(reason),
        }
        Ok(())
    }

    async fn merge_manifests(
        &self,
        table: &TableName,
        loaded: &LoadedTable,
        at_least: usize,
        report: &mut Report,
    ) -> Result<()> {
        let all = self.committer().manifests.inherited(&loaded.metadata).await?;
        let Some(chosen) = manifests::choose(&loaded.metadata, &all, at_least) else { return Ok(()) };
        let count = chosen.len() as u64;
        let work = Work::Manifests(chosen);
        match Replace::new(self.committer(), table, loaded.metadata.uuid(), work).land().await? {
            Landed::Done(..) => report.merged_manifests += count,
            Landed::Declined(reason) => report.note(reason),
        }
        Ok(())
    }

    async fn expire(&self, table: &TableName, loaded: &LoadedTable, report: &mut Report) -> Result<()> {
        let work = Work::Expire(self.options.retention);
        match Replace::new(self.committer(), table, loaded.metadata.uuid(), work).land().await? {
            Landed::Done(metadata, dropped) => {
                report.expired_snapshots += dropped.iter().map(|dropped| dropped.lists.len() as u64).sum::<u64>();
                report.deleted_files += expire::clean(self.committer(), &metadata, &dropped).await?;
            }
            Landed::Declined(_) => {}
        }
        Ok(())
    }

    async fn sweep(&self, metadata: &TableMetadata, report: &mut Report) -> Result<()> {
        let older_than_ms = self.before(self.options.retention.keep_min_age);
        report.deleted_files += expire::sweep(self.committer(), metadata, older_than_ms).await?;
        Ok(())
    }

    /// Orphans are shown in one round and deleted in the next, where they are orphans still.
    async fn orphans_by_rounds(&self, table: &TableName, memory: &mut Remembered, report: &mut Report) -> Result<()> {
        let found = orphans::find(self.committer(), table, self.before(self.options.orphan_grace)).await?;
        let (shown, new): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|file| memory.orphans_shown.contains(&file.location));
        let bytes: u64 = new.iter().map(|file| file.size_bytes).sum();
        if !new.is_empty() {
            tracing::info!(%table, files = new.len(), bytes, "orphans found; they are deleted in a day");
        }
        memory.orphans_shown = new.into_iter().map(|file| file.location).collect();
        report.orphans(&shown);
        report.deleted_files += orphans::delete(self.committer(), &shown).await?;
        Ok(())
    }

    /// The groups of files to compact, the fullest first.
    fn groups(
        &self,
        metadata: &TableMetadata,
        survey: &Survey,
        memory: &Remembered,
    ) -> Vec<(GroupKey, Vec<SmallFile>)> {
        if metadata.format_version() < FormatVersion::V2 {
            return Vec::new();
        }
        let mut all = Vec::new();
        for (key, files) in &survey.groups {
            // Rows of a table that was upgraded to format 3 have ids from its next commit on.
            let is_named =
                |file: &&SmallFile| metadata.format_version() < FormatVersion::V3 || file.first_row_id.is_some();
            let may = |file: &&SmallFile| !memory.refused.contains_key(&file.path);
            let files: Vec<&SmallFile> = files.iter().filter(is_named).filter(may).collect();
            let sizes: Vec<u64> = files.iter().map(|file| file.size_bytes).collect();
            for mut group in self.compaction(key).groups(&sizes) {
                group.sort_unstable();
                all.push((key.clone(), group.into_iter().map(|index| files[index].clone()).collect::<Vec<_>>()));
            }
        }
        all
    }

    /// Sorted files are merged in memory, which bounds how large they get.
    fn compaction(&self, key: &GroupKey) -> Compaction {
        let options = self.options.compaction;
        match key.sort_order {
            None => options,
            Some(_) => {
                let most = (self.options.memory_bytes / SORTED_SHARE).max(1);
                Compaction { target_bytes: options.target_bytes.min(most), ..options }
            }
        }
    }

    async fn look(&self, memory: &mut Remembered, metadata: &TableMetadata) -> Result<Survey> {
        memory.known.survey(&self.committer().manifests, metadata, &self.options.compaction).await
    }

    fn expirable(&self, metadata: &TableMetadata) -> Result<usize> {
        Ok(expire::choose(metadata, &self.options.retention, self.committer().clock.now_ms())?.len())
    }

    fn before(&self, age: Duration) -> i64 {
        self.committer().clock.now_ms().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
    }

    fn health_of(&self, loaded: &LoadedTable, survey: &Survey, memory: &Remembered) -> Health {
        let due = self.groups(&loaded.metadata, survey, memory);
        Health::new(&loaded.metadata, survey, &due, &memory.refused, self.committer().clock.now_ms())
    }

    async fn load(&self, table: &TableName) -> Result<LoadedTable> {
        let loaded = self.committer().catalog.load(table).await?;
        loaded.ok_or_else(|| Error::invalid_request(format!("there is no table `{table}`")))
    }

    async fn lease(&self, table: &TableName) -> Result<Option<Lease>> {
        let committer = self.committer();
        Lease::take(&committer.catalog, &committer.clock, lease_name(table), &self.owner).await
    }

    fn recall(&self, table: &TableName) -> Remembered {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(table).unwrap_or_default()
    }

    fn remember(&self, table: &TableName, memory: Remembered) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), memory);
    }
}

/// The lease under which a table is maintained, and under which letters are taken out of it.
pub(in crate::lake) fn lease_name(table: &TableName) -> String {
    format!("maintain {table}")
}

/// The results of all `work`, of which `limit` pieces are under way at once; in no order.
pub(in crate::lake) async fn gather<T>(work: Vec<BoxFuture<'_, Result<T>>>, limit: usize) -> Result<Vec<T>> {
    futures::stream::iter(work).buffer_unordered(limit).try_collect().await
}

/// Why nothing at all is done to a table.
fn left_alone(table: &TableName, metadata: &TableMetadata) -> Result<Option<String>> {
    Ok(match progress::recovery(&table.to_string(), metadata)? {
        Recovery::Halted(_) => Some("it is left alone until somebody chooses where it goes on".to_owned()),
        _ => None,
    })
}

/// False where the table's files may be shared with another table (Iceberg's `gc.enabled`).
fn deletes_files(metadata: &TableMetadata) -> bool {
    metadata.properties().get("gc.enabled").is_none_or(|value| value != "false")
}
