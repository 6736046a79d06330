//! Many small manifests made into few, their entries clustered by partition so that a scan can leave some out.
//! Sequence numbers stay, so that deletes still apply to what they did.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::{FormatVersion, ManifestContentType, ManifestEntryRef, ManifestFile, TableMetadata};

use super::replace::{ENTRIES_MAX, add_entry, broken};
use crate::error::Result;
use crate::lake::commit::Committer;
use crate::lake::manifests::{NewSnapshot, spec, with_first_row_id};

/// Small manifests of a spec from which on they are merged by themselves.
pub(super) const MERGE_AT: usize = 100;
/// A manifest of half of Iceberg's target size is left alone.
const SMALL_BYTES: i64 = 4 << 20;
/// Manifests that are merged at once: bounds the entries in memory.
const MERGE_BYTES_MAX: i64 = 64 << 20;

/// The small data manifests of one spec, where there are at least `at_least`.
pub(super) fn choose(
    metadata: &TableMetadata,
    manifests: &[ManifestFile],
    at_least: usize,
) -> Option<Vec<ManifestFile>> {
    if metadata.format_version() < FormatVersion::V2 {
        return None;
    }
    let mut by_spec: BTreeMap<i32, Vec<&ManifestFile>> = BTreeMap::new();
    for manifest in manifests {
        if manifest.content == ManifestContentType::Data && manifest.manifest_length < SMALL_BYTES {
            by_spec.entry(manifest.partition_spec_id).or_default().push(manifest);
        }
    }
    let group = by_spec.into_values().find(|group| group.len() >= at_least.max(2))?;
    let mut bytes = 0;
    let fits = |manifest: &&&ManifestFile| {
        bytes += manifest.manifest_length;
        bytes <= MERGE_BYTES_MAX
    };
    Some(group.iter().take_while(fits).map(|&manifest| manifest.clone()).collect())
}

/// New manifests with all live entries of `sources`.
pub(super) async fn merge(
    committer: &Committer,
    new: &NewSnapshot<'_>,
    sources: &[ManifestFile],
    written: &mut Vec<String>,
) -> Result<Vec<ManifestFile>> {
    let Some(first) = sources.first() else { return Ok(Vec::new()) };
    let spec = spec(new.metadata, first.partition_spec_id)?;
    let schema = new.metadata.current_schema();
    // `partition_to_path` panics where this fails.
    spec.partition_type(schema).map_err(|e| broken("read partition spec", e))?;
    let mut entries: BTreeMap<String, Vec<(ManifestEntryRef, Option<i64>)>> = BTreeMap::new();
    for source in sources {
        for (entry, first_row_id) in committer.manifests.alive(source).await? {
            let partition = spec.partition_to_path(entry.data_file().partition(), Arc::clone(schema));
            entries.entry(partition).or_default().push((entry, first_row_id));
        }
    }
    let entries: Vec<_> = entries.into_values().flatten().collect();
    let mut merged = Vec::new();
    for part in entries.chunks(ENTRIES_MAX) {
        let mut writer = committer.manifests.writer(new, spec.spec_id(), written.len(), written)?;
        for (entry, first_row_id) in part {
            add_entry(&mut writer, entry, with_first_row_id(entry, *first_row_id, spec.spec_id())?, false)?;
        }
        let mut manifest = writer.write_manifest_file().await.map_err(|e| broken("write manifest", e))?;
        // Where each file says itself where its rows' ids begin, the manifest takes up no further ones.
        let ids: Option<Vec<i64>> = part.iter().map(|(_, first_row_id)| *first_row_id).collect();
        manifest.first_row_id = ids.and_then(|ids| u64::try_from(ids.into_iter().min()?).ok());
        merged.push(manifest);
    }
    Ok(merged)
}
