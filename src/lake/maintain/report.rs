//! What maintenance says: how a table is, and what was done to it. Values only.

use std::collections::HashMap;
use std::time::Duration;

use iceberg::spec::{FormatVersion, Operation, TableMetadata};
use serde::Serialize;

use super::survey::{GroupKey, SmallFile, Survey};
use crate::lake::storage::StoredFile;

/// Orphans that a report names; the others are counted.
const ORPHANS_NAMED: usize = 100;

/// One kind of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Small files of a partition become one.
    Compact,
    /// Small manifests become one.
    Manifests,
    /// Old snapshots are dropped, and the files that only they reach are deleted.
    Expire,
    /// Files that nothing refers to are deleted.
    Orphans,
}

impl Action {
    /// All of them, in the order in which they are best done.
    pub const ALL: [Self; 4] = [Self::Compact, Self::Manifests, Self::Expire, Self::Orphans];
}

/// How a table is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// Data files of the current snapshot.
    pub data_files: u64,
    /// Those that are smaller than they should be.
    pub small_files: u64,
    /// Small files that compaction would merge now.
    pub compactable_files: u64,
    /// Bytes of the data files.
    pub bytes: u64,
    /// Delete files and deletion vectors of the current snapshot.
    pub delete_files: u64,
    /// Manifests of the current snapshot.
    pub manifests: u64,
    /// Snapshots retained.
    pub snapshots: u64,
    /// Age of the oldest of them, seconds.
    pub oldest_snapshot_seconds: u64,
    /// Bytes written by all retained snapshots for each byte that came in; `None` where nothing came in.
    pub write_amplification: Option<f64>,
    /// What keeps files from being compacted, for people.
    pub held: Vec<String>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Compactions committed.
    pub compactions: u64,
    /// Files that they replaced.
    pub compacted_files: u64,
    /// Bytes of those files.
    pub compacted_bytes: u64,
    /// Bytes of the files that replaced them.
    pub written_bytes: u64,
    /// Seconds spent on reading and writing them.
    pub compaction_seconds: f64,
    /// Manifests that became fewer.
    pub merged_manifests: u64,
    /// Snapshots dropped.
    pub expired_snapshots: u64,
    /// Orphans found.
    pub orphan_files: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// The first of them.
    pub orphans: Vec<String>,
    /// Files deleted, those of dropped snapshots and orphans.
    pub deleted_files: u64,
    /// Why something was not done.
    pub notes: Vec<String>,
    /// How the table is: afterwards, or, where only the most urgent was done, before.
    pub health: Option<Health>,
}

impl Health {
    pub(super) fn new(
        metadata: &TableMetadata,
        survey: &Survey,
        due: &[(GroupKey, Vec<SmallFile>)],
        refused: &HashMap<String, String>,
        now_ms: i64,
    ) -> Self {
        let mut held = Vec::new();
        if metadata.format_version() < FormatVersion::V2 {
            held.push("format version 1: files are not rewritten".to_owned());
        }
        if survey.held_by_deletes > 0 {
            held.push(format!("{} small files: deletes of another engine may apply to them", survey.held_by_deletes));
        }
        if let Some(reason) = refused.values().next() {
            held.push(format!("{} small files: {reason}", refused.len()));
        }
        let oldest_ms = metadata.snapshots().map(|snapshot| snapshot.timestamp_ms()).min().unwrap_or(now_ms);
        Self {
            data_files: survey.data_files,
            small_files: survey.small_files,
            compactable_files: due.iter().map(|(_, files)| files.len() as u64).sum(),
            bytes: survey.bytes,
            delete_files: survey.deletes.len() as u64,
            manifests: survey.manifests,
            snapshots: metadata.snapshots().len() as u64,
            oldest_snapshot_seconds: u64::try_from(now_ms.saturating_sub(oldest_ms) / 1000).unwrap_or(0),
            write_amplification: write_amplification(metadata),
            held,
        }
    }
}

/// Bytes added by all retained snapshots, for each byte that one added which is no replacement.
fn write_amplification(metadata: &TableMetadata) -> Option<f64> {
    let (mut came, mut rewritten) = (0_u64, 0_u64);
    for snapshot in metadata.snapshots() {
        let added = snapshot.summary().additional_properties.get("added-files-size");
        let bytes = added.and_then(|text| text.parse().ok()).unwrap_or(0);
        match snapshot.summary().operation {
            Operation::Replace => rewritten += bytes,
            _ => came += bytes,
        }
    }
    (came > 0).then(|| (came + rewritten) as f64 / came as f64)
}

impl Report {
    /// True where it says that anything was done, so that more may be due.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.compactions + self.merged_manifests > 0
    }

    pub(super) fn note(&mut self, reason: String) {
        if !self.notes.contains(&reason) {
            self.notes.push(reason);
        }
    }

    pub(super) fn compacted(&mut self, files: u64, read: u64, written: u64, took: Duration) {
        self.compactions += 1;
        self.compacted_files += files;
        self.compacted_bytes += read;
        self.written_bytes += written;
        self.compaction_seconds += took.as_secs_f64();
    }

    pub(super) fn would_compact(&mut self, files: &[SmallFile]) {
        self.compactions += 1;
        self.compacted_files += files.len() as u64;
        self.compacted_bytes += files.iter().map(|file| file.size_bytes).sum::<u64>();
    }

    pub(super) fn orphans(&mut self, found: &[StoredFile]) {
        self.orphan_files += found.len() as u64;
        self.orphan_bytes += found.iter().map(|file| file.size_bytes).sum::<u64>();
        let room = ORPHANS_NAMED.saturating_sub(self.orphans.len());
        self.orphans.extend(found.iter().take(room).map(|file| file.location.clone()));
    }
}
