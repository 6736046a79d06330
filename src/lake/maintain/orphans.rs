//! Files below a table's location that nothing refers to: left by a crash, a lost upload, a commit that was declined.
//!
//! What refers to a file is the current metadata: itself, its log, and all that any retained snapshot reaches. A file
//! younger than the grace may belong to a commit under way and is left alone.

use std::collections::HashSet;

use futures::TryStreamExt;
use iceberg::spec::TableMetadata;

use super::expire::{Missing, live_files, manifests_of};
use crate::error::{Error, Result};
use crate::lake::catalog::LoadedTable;
use crate::lake::commit::Committer;
use crate::lake::storage::StoredFile;
use crate::model::ids::TableName;
use crate::runtime::crash;

/// Where other tables lie below a table's own location.
struct Neighbours {
    below: Vec<String>,
}

/// The orphans last written before `older_than_ms`, by location.
///
/// # Errors
/// `InvalidConfig` where the table lies inside another one, whose files could not be told from orphans; `Corrupt` where
/// a manifest is missing: what the table refers to is not known then.
pub(super) async fn find(committer: &Committer, table: &TableName, older_than_ms: i64) -> Result<Vec<StoredFile>> {
    let loaded = load(committer, table).await?;
    let stores = &committer.stores;
    let location = stores.normalise(loaded.metadata.location())?;
    let neighbours = neighbours(committer, table, &location).await?;
    let mut referenced = references(committer, &loaded).await?;
    let mut orphans = Vec::new();
    let mut files = stores.list(&location).await?;
    while let Some(file) = files.try_next().await? {
        let is_old = file.modified_ms <= older_than_ms;
        let is_own = neighbours.below.iter().all(|below| !file.location.starts_with(below.as_str()));
        if is_old && is_own && !referenced.contains(&file.location) {
            orphans.push(file);
        }
    }
    if !orphans.is_empty() {
        // A commit may have got in while the files were listed.
        let now = load(committer, table).await?;
        if now.metadata_location != loaded.metadata_location {
            referenced = references(committer, &now).await?;
            orphans.retain(|file| !referenced.contains(&file.location));
        }
    }
    orphans.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(orphans)
}

/// Deletes orphans one after the other; the number of them.
pub(super) async fn delete(committer: &Committer, orphans: &[StoredFile]) -> Result<u64> {
    for file in orphans {
        committer.stores.delete(&file.location).await?;
        crash::point(crash::ORPHAN_DELETED);
    }
    Ok(orphans.len() as u64)
}

async fn load(committer: &Committer, table: &TableName) -> Result<LoadedTable> {
    let loaded = committer.catalog.load(table).await?;
    loaded.ok_or_else(|| Error::fenced(format!("find orphans of table `{table}`: it has vanished")))
}

async fn neighbours(committer: &Committer, table: &TableName, location: &str) -> Result<Neighbours> {
    let mut below = Vec::new();
    let own = format!("{location}/");
    for name in committer.catalog.list().await?.into_iter().filter(|name| name != table) {
        let Some(other) = committer.catalog.load(&name).await? else { continue };
        let other = committer.stores.normalise(other.metadata.location())?;
        let theirs = format!("{other}/");
        if own.starts_with(&theirs) {
            return Err(Error::invalid_config(format!("table `{table}` lies inside table `{name}`, at `{other}`")));
        }
        if theirs.starts_with(&own) {
            below.push(theirs);
        }
    }
    Ok(Neighbours { below })
}

/// Everything that the table's metadata reaches, in canonical form.
async fn references(committer: &Committer, loaded: &LoadedTable) -> Result<HashSet<String>> {
    let metadata: &TableMetadata = &loaded.metadata;
    let lists: Vec<&str> = metadata.snapshots().map(|snapshot| snapshot.manifest_list()).collect();
    let manifests = manifests_of(committer, metadata, lists.iter().copied(), Missing::IsDamage).await?;
    let files = live_files(committer, manifests.values(), Missing::IsDamage).await?;
    let log = metadata.metadata_log().iter().map(|entry| entry.metadata_file.as_str());
    let statistics = metadata.statistics_iter().map(|file| file.statistics_path.as_str());
    let partitions = metadata.partition_statistics_iter().map(|file| file.statistics_path.as_str());
    // Engines that know no catalog find the metadata by it.
    let hint = format!("{}/metadata/version-hint.text", metadata.location().trim_end_matches('/'));
    let own = [loaded.metadata_location.as_str(), &hint];
    let all = own.into_iter().chain(log).chain(statistics).chain(partitions).chain(lists);
    let all = all.chain(manifests.keys().map(String::as_str)).chain(files.iter().map(String::as_str));
    all.map(|location| committer.stores.normalise(location)).collect()
}
