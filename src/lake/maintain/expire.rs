//! Dropping old snapshots, and deleting the files that only they referred to.
//!
//! The lists of what was dropped are noted before the drop is committed, by ingestion too: whoever ends in between
//! leaves a note, which [`sweep`] takes up. A file is deleted only once no retained snapshot reaches it.

use std::collections::{HashMap, HashSet};

use futures::{FutureExt, TryStreamExt};
use iceberg::spec::{Manifest, ManifestFile, ManifestList, TableMetadata};

use super::gather;
use super::plan::{self, Retention, SnapshotFacts};
use crate::error::{Error, Result};
use crate::lake::commit::{Committer, DROPPED_SUFFIX, referenced};
use crate::lake::progress;
use crate::lake::storage::from_iceberg;
use crate::runtime::crash;

/// Files read or deleted at once.
const REQUESTS_MAX: usize = 16;

/// Snapshots that were dropped: where that is noted, and their manifest lists.
#[derive(Debug, Clone)]
pub(super) struct Dropped {
    pub(super) noted_at: String,
    pub(super) lists: Vec<String>,
}

/// The snapshots to drop now.
pub(super) fn choose(metadata: &TableMetadata, retention: &Retention, now_ms: i64) -> Result<Vec<i64>> {
    let named: HashSet<i64> = referenced(metadata)?.into_iter().chain(progress::marked(metadata)).collect();
    let facts: Vec<SnapshotFacts> = metadata
        .snapshots()
        .map(|snapshot| SnapshotFacts {
            id: snapshot.snapshot_id(),
            parent: snapshot.parent_snapshot_id(),
            made_ms: snapshot.timestamp_ms(),
            is_referenced: named.contains(&snapshot.snapshot_id()),
            has_ledger: snapshot.summary().additional_properties.contains_key(progress::LEDGER),
        })
        .collect();
    Ok(plan::expired(&facts, metadata.current_snapshot_id(), retention, now_ms))
}

/// Takes up the notes of dropped snapshots written before `older_than_ms`: what a crash left, and what ingestion dropped.
pub(super) async fn sweep(committer: &Committer, metadata: &TableMetadata, older_than_ms: i64) -> Result<u64> {
    let folder = format!("{}/metadata", metadata.location().trim_end_matches('/'));
    let mut found = committer.stores.list(&folder).await?;
    let mut noted = Vec::new();
    while let Some(file) = found.try_next().await? {
        if file.location.ends_with(DROPPED_SUFFIX) && file.modified_ms <= older_than_ms {
            noted.push(file.location);
        }
    }
    let mut dropped = Vec::new();
    for noted_at in noted {
        let Some(text) = committer.stores.read(&noted_at).await? else { continue };
        let lists = serde_json::from_slice(&text)
            .map_err(|e| Error::corrupt(format!("read list of dropped snapshots `{noted_at}`")).with_source(e))?;
        dropped.push(Dropped { noted_at, lists });
    }
    clean(committer, metadata, &dropped).await
}

/// Deletes what only dropped snapshots referred to: data files first, then manifests, lists, and at last the notes,
/// so that whatever interrupts it can be taken up again.
pub(super) async fn clean(committer: &Committer, metadata: &TableMetadata, dropped: &[Dropped]) -> Result<u64> {
    if dropped.is_empty() {
        return Ok(0);
    }
    let retained: HashSet<&str> = metadata.snapshots().map(|snapshot| snapshot.manifest_list()).collect();
    // A list that is still retained was noted by a commit that did not get in.
    let lists: HashSet<&String> =
        dropped.iter().flat_map(|dropped| &dropped.lists).filter(|list| !retained.contains(list.as_str())).collect();
    let kept = manifests_of(committer, metadata, retained.iter().copied(), Missing::IsDamage).await?;
    let mut gone =
        manifests_of(committer, metadata, lists.iter().map(|list| list.as_str()), Missing::WasDeleted).await?;
    gone.retain(|path, _| !kept.contains_key(path));
    let mut data: HashMap<String, String> = HashMap::new();
    for path in live_files(committer, gone.values(), Missing::WasDeleted).await? {
        data.insert(committer.stores.normalise(&path)?, path);
    }
    if !data.is_empty() {
        for path in live_files(committer, kept.values(), Missing::IsDamage).await? {
            data.remove(&committer.stores.normalise(&path)?);
        }
    }
    let mut deleted = 0;
    let manifests = gone.keys().map(String::as_str);
    let notes = dropped.iter().map(|dropped| dropped.noted_at.as_str());
    for files in [
        data.values().map(String::as_str).collect::<Vec<_>>(),
        manifests.collect(),
        lists.iter().map(|list| list.as_str()).collect(),
        notes.collect(),
    ] {
        deleted += delete(committer, &files).await?;
        crash::point(crash::EXPIRED_FILES_DELETED);
    }
    Ok(deleted)
}

/// Deletes files; one that is gone already counts too.
pub(super) async fn delete(committer: &Committer, files: &[&str]) -> Result<u64> {
    let deletions = files.iter().map(|file| committer.stores.delete(file).boxed()).collect();
    gather(deletions, REQUESTS_MAX).await?;
    Ok(files.len() as u64)
}

/// What it means where a file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// A clean-up before was interrupted behind it.
    WasDeleted,
    /// The table is damaged: nothing may be concluded from the rest.
    IsDamage,
}

impl Missing {
    async fn read(self, committer: &Committer, location: &str) -> Result<Option<bytes::Bytes>> {
        match committer.stores.read(location).await? {
            None if self == Self::IsDamage => Err(Error::corrupt(format!("file `{location}` is missing"))),
            read => Ok(read),
        }
    }
}

/// All manifests of these lists by path.
pub(super) async fn manifests_of(
    committer: &Committer,
    metadata: &TableMetadata,
    lists: impl Iterator<Item = &str>,
    missing: Missing,
) -> Result<HashMap<String, ManifestFile>> {
    let version = metadata.format_version();
    let read = |list: String| async move {
        let Some(bytes) = missing.read(committer, &list).await? else { return Ok(Vec::new()) };
        let parsed = ManifestList::parse_with_version(&bytes, version);
        let parsed = parsed.map_err(|e| from_iceberg(format!("read manifest list `{list}`"), e))?;
        Ok(parsed.consume_entries().into_iter().collect::<Vec<_>>())
    };
    let reads = lists.map(|list| read(list.to_owned()).boxed()).collect();
    let lists: Vec<Vec<ManifestFile>> = gather(reads, REQUESTS_MAX).await?;
    Ok(lists.into_iter().flatten().map(|manifest| (manifest.manifest_path.clone(), manifest)).collect())
}

/// The paths of the live files of manifests, delete files included.
pub(super) async fn live_files(
    committer: &Committer,
    manifests: impl Iterator<Item = &ManifestFile>,
    missing: Missing,
) -> Result<Vec<String>> {
    let read = |path: String| async move {
        let Some(bytes) = missing.read(committer, &path).await? else { return Ok(Vec::new()) };
        let loaded = Manifest::parse_avro(&bytes).map_err(|e| from_iceberg(format!("read manifest `{path}`"), e))?;
        let alive = loaded.entries().iter().filter(|entry| entry.is_alive());
        Ok(alive.map(|entry| entry.file_path().to_owned()).collect::<Vec<_>>())
    };
    let reads = manifests.map(|manifest| read(manifest.manifest_path.clone()).boxed()).collect();
    let files: Vec<Vec<String>> = gather(reads, REQUESTS_MAX).await?;
    Ok(files.into_iter().flatten().collect())
}
