//! What a table's current snapshot holds, as far as maintenance cares: small files by partition, deletes, counts.
//! Manifests never change, so each is read once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::FutureExt;
use iceberg::spec::{
    DataContentType, DataFileFormat, ManifestContentType, ManifestEntry, ManifestFile, Struct, TableMetadata,
};

use super::gather;
use super::plan::Compaction;
use crate::error::Result;
use crate::lake::manifests::Manifests;

/// Manifests read at once.
const READS_MAX: usize = 8;

/// What files must share to become one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::lake) struct GroupKey {
    pub(super) spec_id: i32,
    pub(super) partition: Struct,
    /// The table's sort order, where the file has it.
    pub(super) sort_order: Option<i32>,
}

/// A data file that may be compacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::lake) struct SmallFile {
    pub(in crate::lake) path: String,
    pub(in crate::lake) size_bytes: u64,
    pub(in crate::lake) rows: u64,
    pub(super) sequence: i64,
    /// The id of its first row, in format 3.
    pub(super) first_row_id: Option<i64>,
    /// The manifest that it was found in.
    pub(super) manifest: Arc<str>,
}

/// A delete file, or a deletion vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeleteFile {
    pub(super) spec_id: i32,
    pub(super) partition: Struct,
    pub(super) sequence: i64,
    pub(super) is_equality: bool,
    pub(super) data_file: Option<String>,
}

/// What one manifest says.
#[derive(Debug, Default)]
struct Summary {
    data_files: u64,
    bytes: u64,
    rows: u64,
    small: Vec<(GroupKey, SmallFile)>,
    deletes: Vec<DeleteFile>,
}

/// What a snapshot holds.
#[derive(Debug, Default)]
pub(in crate::lake) struct Survey {
    pub(super) data_files: u64,
    pub(super) bytes: u64,
    pub(in crate::lake) rows: u64,
    pub(super) small_files: u64,
    /// Small files that stay as they are, since deletes may apply to them.
    pub(in crate::lake) held_by_deletes: u64,
    pub(super) deletes: Vec<DeleteFile>,
    pub(super) manifests: u64,
    /// Small files without deletes, by what they must share; each list in the order in which the rows came.
    pub(in crate::lake) groups: Vec<(GroupKey, Vec<SmallFile>)>,
}

/// The manifests that are known already.
#[derive(Debug, Default)]
pub(in crate::lake) struct Known {
    order: Option<i32>,
    manifests: HashMap<String, Arc<Summary>>,
}

impl Survey {
    /// True where another engine's delete files are in it.
    pub(in crate::lake) fn has_deletes(&self) -> bool {
        !self.deletes.is_empty()
    }
}

impl DeleteFile {
    pub(super) fn new(entry: &ManifestEntry, spec_id: i32) -> Self {
        let file = entry.data_file();
        Self {
            spec_id,
            partition: file.partition().clone(),
            sequence: entry.sequence_number().unwrap_or(i64::MAX),
            is_equality: file.content_type() == DataContentType::EqualityDeletes,
            data_file: file.referenced_data_file(),
        }
    }

    /// True unless it certainly leaves the data file alone (scan planning of the spec, wherever in doubt: true).
    pub(super) fn may_apply(&self, spec_id: i32, partition: &Struct, sequence: i64, path: &str) -> bool {
        let is_later = if self.is_equality { sequence < self.sequence } else { sequence <= self.sequence };
        // Deletes without partition values apply to every partition of every spec.
        let is_global = self.partition.fields().is_empty();
        let meets = is_global || (self.spec_id == spec_id && self.partition == *partition);
        is_later && meets && self.data_file.as_ref().is_none_or(|named| same_place(named, path))
    }
}

/// Scheme aliases and the forms of local paths are one place; anything else that differs is taken for the same too
/// where only the scheme's part differs.
fn same_place(a: &str, b: &str) -> bool {
    let key = |text: &str| {
        let scheme = text.find(':').filter(|end| text[..*end].chars().all(|c| c.is_ascii_alphanumeric()));
        text[scheme.map_or(0, |end| end + 1)..].trim_start_matches('/').to_owned()
    };
    key(a) == key(b)
}

impl Known {
    /// What `metadata`'s current snapshot holds.
    pub(in crate::lake) async fn survey(
        &mut self,
        manifests: &Manifests,
        metadata: &TableMetadata,
        compaction: &Compaction,
    ) -> Result<Survey> {
        let Some(snapshot) = metadata.current_snapshot() else { return Ok(Survey::default()) };
        let list = manifests.list(metadata, snapshot).await?;
        let order = metadata.default_sort_order();
        let order = (!order.is_unsorted()).then(|| i32::try_from(order.order_id).ok()).flatten();
        if self.order != order {
            *self = Self { order, ..Self::default() };
        }
        let unknown = list.iter().filter(|manifest| !self.manifests.contains_key(&key(manifest)));
        let reads = unknown.map(|manifest| read(manifests, manifest, compaction, order).boxed()).collect();
        let read: Vec<(String, Arc<Summary>)> = gather(reads, READS_MAX).await?;
        self.manifests.extend(read);
        self.manifests.retain(|known, _| list.iter().any(|manifest| key(manifest) == *known));
        Ok(self.total())
    }

    fn total(&self) -> Survey {
        let mut all = Survey { manifests: self.manifests.len() as u64, ..Survey::default() };
        for summary in self.manifests.values() {
            all.data_files += summary.data_files;
            all.bytes += summary.bytes;
            all.rows += summary.rows;
            all.small_files += summary.small.len() as u64;
            all.deletes.extend(summary.deletes.iter().cloned());
        }
        let mut groups: HashMap<&GroupKey, Vec<SmallFile>> = HashMap::new();
        for (key, file) in self.manifests.values().flat_map(|summary| &summary.small) {
            let applies =
                |delete: &DeleteFile| delete.may_apply(key.spec_id, &key.partition, file.sequence, &file.path);
            if all.deletes.iter().any(applies) {
                all.held_by_deletes += 1;
            } else {
                groups.entry(key).or_default().push(file.clone());
            }
        }
        // In an order that is the same each time: the fullest partition first, then by the oldest file.
        let mut ordered: BTreeMap<_, _> = BTreeMap::new();
        for (key, mut files) in groups {
            files.sort_by(|a, b| (a.sequence, &a.path).cmp(&(b.sequence, &b.path)));
            let first = files.first().map(|file| file.path.clone());
            ordered.insert((std::cmp::Reverse(files.len()), first), (key.clone(), files));
        }
        all.groups = ordered.into_values().collect();
        all
    }
}

/// What a manifest is known by: the list says where the ids of its rows begin, the file does not.
fn key(manifest: &ManifestFile) -> String {
    format!("{} {:?}", manifest.manifest_path, manifest.first_row_id)
}

async fn read(
    manifests: &Manifests,
    manifest: &ManifestFile,
    compaction: &Compaction,
    order: Option<i32>,
) -> Result<(String, Arc<Summary>)> {
    let path: Arc<str> = manifest.manifest_path.as_str().into();
    let mut summary = Summary::default();
    for (entry, first_row_id) in manifests.alive(manifest).await? {
        if manifest.content == ManifestContentType::Deletes {
            summary.deletes.push(DeleteFile::new(&entry, manifest.partition_spec_id));
            continue;
        }
        let file = entry.data_file();
        summary.data_files += 1;
        summary.bytes += file.file_size_in_bytes();
        summary.rows += file.record_count();
        let sequence = entry.sequence_number().filter(|_| file.file_format() == DataFileFormat::Parquet);
        if let Some(sequence) = sequence
            && !compaction.is_large(file.file_size_in_bytes())
        {
            let sort_order = file.sort_order_id().filter(|id| Some(*id) == order);
            let spec_id = manifest.partition_spec_id;
            let key = GroupKey { spec_id, partition: file.partition().clone(), sort_order };
            let small = SmallFile {
                path: file.file_path().to_owned(),
                size_bytes: file.file_size_in_bytes(),
                rows: file.record_count(),
                sequence,
                first_row_id,
                manifest: Arc::clone(&path),
            };
            summary.small.push((key, small));
        }
    }
    Ok((key(manifest), Arc::new(summary)))
}

#[cfg(test)]
mod tests {
    use iceberg::spec::Literal;

    use super::*;

    #[test]
    fn a_delete_applies_unless_it_certainly_does_not() {
        let partition = |n: i32| [Some(Literal::int(n))].into_iter().collect::<Struct>();
        let delete = |is_equality, sequence, of: Option<i32>, data_file: Option<&str>| DeleteFile {
            spec_id: 1,
            partition: of.map_or_else(Struct::empty, partition),
            sequence,
            is_equality,
            data_file: data_file.map(str::to_owned),
        };
        let applies = |delete: DeleteFile| delete.may_apply(1, &partition(7), 5, "s3://b/x");
        // By sequence: equality deletes take what came before, position deletes also what came with them.
        assert!(applies(delete(true, 6, Some(7), None)) && !applies(delete(true, 5, Some(7), None)));
        assert!(applies(delete(false, 5, Some(7), None)) && !applies(delete(false, 4, Some(7), None)));
        // By partition, and globally; another spec's values say nothing.
        assert!(!applies(delete(true, 6, Some(8), None)) && applies(delete(true, 6, None, None)));
        assert!(!delete(true, 6, Some(7), None).may_apply(2, &partition(7), 5, "s3://b/x"));
        assert!(delete(true, 6, None, None).may_apply(2, &partition(7), 5, "s3://b/x"));
        // By file, however its scheme is spelt.
        assert!(
            applies(delete(false, 6, Some(7), Some("s3a://b/x")))
                && !applies(delete(false, 6, Some(7), Some("s3://b/y")))
        );
        assert!(same_place("file:/a/b", "file:///a/b") && same_place("/a/b:c", "file:/a/b:c"));
    }
}
