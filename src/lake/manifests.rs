//! Manifests and manifest lists of a commit: new files in, small manifests merged so that the list stays short.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, FormatVersion, Literal, Manifest,
    ManifestContentType, ManifestEntry, ManifestEntryRef, ManifestFile, ManifestList, ManifestListWriter,
    ManifestWriter, ManifestWriterBuilder, PartitionSpec, PrimitiveType, SchemaRef, SnapshotRef, Struct, TableMetadata,
    Type,
};
use uuid::Uuid;

use super::storage::from_iceberg;
use crate::error::{Error, Result};
use crate::model::file::WrittenFile;

/// Manifests of about one size are merged once there are that many of them. With it, an entry is rewritten about
/// log₁₂ of the table's age in commits times, and a list has at most about eleven manifests of each size.
const MERGE_AT: usize = 12;
/// Manifests are not merged beyond this size: Iceberg's own target.
const MANIFEST_BYTES_TARGET: i64 = 8 << 20;
/// Lists kept in memory: a table's own and that of its dead letters, for some tables.
const LISTS_KEPT: usize = 64;

/// Reads and writes manifests; remembers the lists that it wrote last.
pub(super) struct Manifests {
    io: FileIO,
    lists: Mutex<HashMap<String, Arc<Vec<ManifestFile>>>>,
}

/// A written manifest list, and everything written for it that nothing else refers to.
pub(super) struct WrittenList {
    pub(super) location: String,
    pub(super) next_row_id: Option<u64>,
    pub(super) files: Vec<String>,
    manifests: Arc<Vec<ManifestFile>>,
}

/// What a new snapshot is, as far as its manifests go.
pub(super) struct NewSnapshot<'a> {
    pub(super) metadata: &'a TableMetadata,
    pub(super) id: i64,
    pub(super) sequence: i64,
    /// Distinguishes the files of this attempt from those of any other.
    pub(super) attempt: Uuid,
}

impl Manifests {
    pub(super) fn new(io: FileIO) -> Self {
        Self { io, lists: Mutex::default() }
    }

    /// Writes manifests for `files` and the list of all manifests of the new snapshot.
    pub(super) async fn write(&self, new: &NewSnapshot<'_>, files: &[WrittenFile]) -> Result<WrittenList> {
        let mut manifests = self.inherited(new.metadata).await?;
        let mut written = Vec::new();
        manifests.extend(self.fresh(new, files, &mut written).await?);
        let lineage = Lineage::begin(new.metadata, &mut manifests);
        if let Some(group) = to_merge(&manifests) {
            let merged = self.merge(new, &group, &mut written).await?;
            manifests.retain(|manifest| group.iter().all(|old| old.manifest_path != manifest.manifest_path));
            manifests.push(merged);
        }
        self.write_list_of(new, manifests, written, &lineage).await
    }

    /// Manifests with `files`, which came with the new snapshot.
    pub(super) async fn fresh(
        &self,
        new: &NewSnapshot<'_>,
        files: &[WrittenFile],
        written: &mut Vec<String>,
    ) -> Result<Vec<ManifestFile>> {
        let mut by_spec: BTreeMap<i32, Vec<&WrittenFile>> = BTreeMap::new();
        files.iter().for_each(|file| by_spec.entry(file.spec_id).or_default().push(file));
        let mut manifests = Vec::new();
        for (spec_id, files) in by_spec {
            let mut writer = self.writer(new, spec_id, written.len(), written)?;
            for file in files {
                writer
                    .add_file(data_file(new.metadata, file)?, -1)
                    .map_err(|e| from_iceberg("add file to manifest", e))?;
            }
            manifests.push(writer.write_manifest_file().await.map_err(|e| from_iceberg("write manifest", e))?);
        }
        Ok(manifests)
    }

    /// The current snapshot's manifests that have live files; the others only say what an older snapshot removed.
    pub(super) async fn inherited(&self, metadata: &TableMetadata) -> Result<Vec<ManifestFile>> {
        let Some(snapshot) = metadata.current_snapshot() else { return Ok(Vec::new()) };
        let list = self.list(metadata, snapshot).await?;
        Ok(list
            .iter()
            .filter(|manifest| manifest.has_added_files() || manifest.has_existing_files())
            .cloned()
            .collect())
    }

    /// A manifest's entries.
    pub(super) async fn load(&self, manifest: &ManifestFile) -> Result<Manifest> {
        let loaded = manifest.load_manifest(&self.io).await;
        loaded.map_err(|e| from_iceberg(format!("read manifest `{}`", manifest.manifest_path), e))
    }

    /// Remembers the list of a commit that is in, for the next one.
    pub(super) fn remember(&self, list: &WrittenList) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if lists.len() >= LISTS_KEPT {
            lists.clear();
        }
        lists.insert(list.location.clone(), Arc::clone(&list.manifests));
    }

    /// A snapshot's manifests.
    pub(super) async fn list(
        &self,
        metadata: &TableMetadata,
        snapshot: &SnapshotRef,
    ) -> Result<Arc<Vec<ManifestFile>>> {
        let location = snapshot.manifest_list();
        let known = self.lists.lock().unwrap_or_else(PoisonError::into_inner).get(location).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let context = || format!("read manifest list `{location}`");
        let input = self.io.new_input(location).map_err(|e| from_iceberg(context(), e))?;
        let bytes = input.read().await.map_err(|e| from_iceberg(context(), e))?;
        let list = ManifestList::parse_with_version(&bytes, metadata.format_version())
            .map_err(|e| from_iceberg(context(), e))?;
        Ok(Arc::new(list.consume_entries().into_iter().collect()))
    }

    pub(super) fn writer(
        &self,
        new: &NewSnapshot<'_>,
        spec_id: i32,
        n: usize,
        written: &mut Vec<String>,
    ) -> Result<ManifestWriter> {
        let metadata = new.metadata;
        let location = format!("{}/metadata/{}-m{n}.avro", metadata.location(), new.attempt);
        let output = self.io.new_output(&location).map_err(|e| from_iceberg("write manifest", e))?;
        written.push(location);
        let spec = spec(metadata, spec_id)?.clone();
        let builder = ManifestWriterBuilder::new(output, Some(new.id), Arc::clone(metadata.current_schema()), spec);
        Ok(match metadata.format_version() {
            FormatVersion::V1 => builder.build_v1(),
            FormatVersion::V2 => builder.build_v2_data(),
            FormatVersion::V3 => builder.build_v3_data(),
        })
    }

    async fn merge(
        &self,
        new: &NewSnapshot<'_>,
        group: &[ManifestFile],
        written: &mut Vec<String>,
    ) -> Result<ManifestFile> {
        let mut writer = self.writer(new, group[0].partition_spec_id, written.len(), written)?;
        for manifest in group {
            let context = || format!("merge manifest `{}`", manifest.manifest_path);
            let is_new = manifest.added_snapshot_id == new.id;
            for (entry, first_row_id) in self.alive(manifest).await? {
                let file = with_first_row_id(&entry, first_row_id, group[0].partition_spec_id)?;
                let result = if is_new {
                    writer.add_file(file, -1)
                } else {
                    let (Some(snapshot), Some(sequence)) = (entry.snapshot_id(), entry.sequence_number()) else {
                        return Err(Error::corrupt(format!("{}: an entry has no sequence number", context())));
                    };
                    writer.add_existing_file(file, snapshot, sequence, entry.file_sequence_number)
                };
                result.map_err(|e| from_iceberg(context(), e))?;
            }
        }
        let mut merged = writer.write_manifest_file().await.map_err(|e| from_iceberg("write manifest", e))?;
        // Each of its files says itself where its rows' ids begin.
        merged.first_row_id = group.iter().filter_map(|manifest| manifest.first_row_id).min();
        Ok(merged)
    }

    /// The live entries of a manifest; in format 3 each with the id of its first row, which it may say itself or have
    /// from its place (spec, "First Row ID Inheritance").
    pub(super) async fn alive(&self, manifest: &ManifestFile) -> Result<Vec<(ManifestEntryRef, Option<i64>)>> {
        let (entries, _) = self.load(manifest).await?.into_parts();
        let mut next = manifest.first_row_id.and_then(|id| i64::try_from(id).ok());
        let alive = entries.into_iter().filter(|entry| entry.is_alive()).map(|entry| {
            let own = entry.data_file().first_row_id().filter(|_| next.is_some());
            let first_row_id = own.or(next);
            if own.is_none() {
                next = next.map(|next| next + i64::try_from(entry.record_count()).unwrap_or(0));
            }
            (entry, first_row_id)
        });
        Ok(alive.collect())
    }

    /// Writes the list. Data manifests of a table of format 3 that have no row ids get theirs.
    pub(super) async fn write_list(
        &self,
        new: &NewSnapshot<'_>,
        mut manifests: Vec<ManifestFile>,
        written: Vec<String>,
    ) -> Result<WrittenList> {
        let lineage = Lineage::begin(new.metadata, &mut manifests);
        self.write_list_of(new, manifests, written, &lineage).await
    }

    async fn write_list_of(
        &self,
        new: &NewSnapshot<'_>,
        manifests: Vec<ManifestFile>,
        mut written: Vec<String>,
        lineage: &Lineage,
    ) -> Result<WrittenList> {
        let metadata = new.metadata;
        let location = format!("{}/metadata/snap-{}-0-{}.avro", metadata.location(), new.id, new.attempt);
        let context = || format!("write manifest list `{location}`");
        let output = self.io.new_output(&location).map_err(|e| from_iceberg(context(), e))?;
        let out = output.writer().await.map_err(|e| from_iceberg(context(), e))?;
        let parent = metadata.current_snapshot_id();
        let mut writer = match metadata.format_version() {
            FormatVersion::V1 => ManifestListWriter::v1(out, new.id, parent),
            FormatVersion::V2 => ManifestListWriter::v2(out, new.id, parent, new.sequence),
            FormatVersion::V3 => {
                ManifestListWriter::v3(out, new.id, parent, new.sequence, Some(metadata.next_row_id()))
            }
        };
        writer.add_manifests(manifests.iter().cloned()).map_err(|e| from_iceberg(context(), e))?;
        writer.close().await.map_err(|e| from_iceberg(context(), e))?;
        written.push(location.clone());
        let assigned = manifests.into_iter().map(|manifest| with_sequence(manifest, new.sequence)).collect();
        Ok(WrittenList { location, next_row_id: lineage.next_row_id, files: written, manifests: Arc::new(assigned) })
    }
}

/// Row ids of a snapshot's manifests (spec, "Row Lineage"), each at most once: those from the table's next one on.
struct Lineage {
    /// `None` before format 3.
    next_row_id: Option<u64>,
}

impl Lineage {
    /// Gives ids to those of `manifests` that have none yet: new ones, and older ones of a table that was upgraded.
    fn begin(metadata: &TableMetadata, manifests: &mut [ManifestFile]) -> Self {
        let has_lineage = metadata.format_version() >= FormatVersion::V3;
        let mut lineage = Self { next_row_id: has_lineage.then(|| metadata.next_row_id()) };
        manifests.iter_mut().for_each(|manifest| lineage.assign(manifest));
        lineage
    }

    fn assign(&mut self, manifest: &mut ManifestFile) {
        if let Some(next) = &mut self.next_row_id
            && manifest.content == ManifestContentType::Data
            && manifest.first_row_id.is_none()
        {
            manifest.first_row_id = Some(*next);
            *next += rows(manifest);
        }
    }
}

/// Rows of a manifest's live files.
fn rows(manifest: &ManifestFile) -> u64 {
    manifest.added_rows_count.unwrap_or(0) + manifest.existing_rows_count.unwrap_or(0)
}

/// An entry's file that says itself where its rows' ids begin; as it is where that is not known.
pub(super) fn with_first_row_id(entry: &ManifestEntry, first_row_id: Option<i64>, spec_id: i32) -> Result<DataFile> {
    let file = entry.data_file();
    if first_row_id.is_none() || first_row_id == file.first_row_id() {
        return Ok(file.clone());
    }
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .partition_spec_id(spec_id)
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(first_row_id);
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|e| Error::bug("build manifest entry").with_source(e))
}

/// The manifest as the list says it: the list's writer gives new ones their sequence number.
fn with_sequence(mut manifest: ManifestFile, sequence: i64) -> ManifestFile {
    if manifest.sequence_number < 0 {
        manifest.sequence_number = sequence;
    }
    if manifest.min_sequence_number < 0 {
        manifest.min_sequence_number = sequence;
    }
    manifest
}

/// Data manifests of one spec and about one size, once there are enough of them.
fn to_merge(manifests: &[ManifestFile]) -> Option<Vec<ManifestFile>> {
    let mut groups: BTreeMap<(u32, i32), Vec<&ManifestFile>> = BTreeMap::new();
    for manifest in manifests {
        // Sizes of one group lie within a factor of MERGE_AT; what is below 4 KiB is one size.
        let class = (manifest.manifest_length.max(4096) / 4096).unsigned_abs().ilog(MERGE_AT as u64);
        let small = manifest.manifest_length < MANIFEST_BYTES_TARGET / 2;
        if manifest.content == ManifestContentType::Data && small {
            groups.entry((class, manifest.partition_spec_id)).or_default().push(manifest);
        }
    }
    let group = groups.into_values().find(|group| group.len() >= MERGE_AT)?;
    Some(group.into_iter().cloned().collect())
}

pub(super) fn spec(metadata: &TableMetadata, spec_id: i32) -> Result<&PartitionSpec> {
    let spec = metadata.partition_spec_by_id(spec_id).map(AsRef::as_ref);
    spec.ok_or_else(|| Error::corrupt(format!("the table has no partition spec {spec_id}")))
}

/// A written file as Iceberg's manifest entry holds it.
fn data_file(metadata: &TableMetadata, file: &WrittenFile) -> Result<DataFile> {
    let schema = metadata.current_schema();
    let kinds =
        spec(metadata, file.spec_id)?.partition_type(schema).map_err(|e| from_iceberg("read partition spec", e))?;
    let values = file.partition.iter().zip(kinds.fields()).map(|(value, field)| {
        let Type::Primitive(kind) = field.field_type.as_ref() else { return Ok(None) };
        let Some(bytes) = value else { return Ok(None) };
        let datum = Datum::try_from_bytes(bytes, kind.clone()).map_err(|e| from_iceberg("read partition value", e))?;
        Ok(Some(Literal::Primitive(datum.literal().clone())))
    });
    let partition: Struct = values.collect::<Result<Vec<Option<Literal>>>>()?.into_iter().collect();
    data_file_of(metadata, file, partition)
}

/// The same where the partition value is at hand in Iceberg's own form; that in `file` is not looked at.
pub(super) fn data_file_of(metadata: &TableMetadata, file: &WrittenFile, partition: Struct) -> Result<DataFile> {
    let schema = metadata.current_schema();
    let mut builder = DataFileBuilder::default();
    builder
        .content(DataContentType::Data)
        .file_path(file.path.clone())
        .file_format(DataFileFormat::Parquet)
        .partition(partition)
        .partition_spec_id(file.spec_id)
        .record_count(file.rows)
        .file_size_in_bytes(file.size_bytes)
        .column_sizes(file.columns.iter().map(|(id, column)| (*id, column.size_bytes)).collect())
        .value_counts(file.columns.iter().map(|(id, column)| (*id, column.values)).collect())
        .null_value_counts(file.columns.iter().map(|(id, column)| (*id, column.nulls)).collect())
        .lower_bounds(bounds(schema, file, |column| column.lower.as_ref())?)
        .upper_bounds(bounds(schema, file, |column| column.upper.as_ref())?)
        .split_offsets(Some(file.split_offsets.clone()));
    if let Some(order) = file.sort_order_id {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|e| Error::bug("build manifest entry").with_source(e))
}

fn bounds<'a>(
    schema: &SchemaRef,
    file: &'a WrittenFile,
    bound: impl Fn(&'a crate::model::file::ColumnStats) -> Option<&'a Vec<u8>>,
) -> Result<HashMap<i32, Datum>> {
    let mut bounds = HashMap::new();
    for (id, column) in &file.columns {
        let Some(bytes) = bound(column) else { continue };
        let Some(Type::Primitive(kind)) = schema.field_by_id(*id).map(|field| field.field_type.as_ref()) else {
            continue;
        };
        // A bound that the current type cannot read belongs to a column that was promoted meanwhile.
        let kind: PrimitiveType = kind.clone();
        if let Ok(datum) = Datum::try_from_bytes(bytes, kind) {
            bounds.insert(*id, datum);
        }
    }
    Ok(bounds)
}
