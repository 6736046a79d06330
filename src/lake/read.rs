//! Tables as readers see them: states at a snapshot or a time, their live files with statistics, ranges of bytes.
//! What is made of them is `query`'s matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, Datum, ManifestContentType, ManifestFile, ManifestStatus, Operation,
    SnapshotRef, TableMetadata,
};

use super::catalog::LoadedTable;
use super::commit::{number, state};
use super::inspect;
use super::progress;
use super::rows;
use super::schema::from_iceberg_schema;
use super::storage::from_iceberg;
use super::tables::IcebergLake;
use crate::error::{Error, ErrorKind, Result};
use crate::model::file::{ColumnStats, WrittenFile};
use crate::model::ids::TableName;
use crate::model::names::{self, NameMapping};
use crate::model::schema::TableSchema;
use crate::model::version::SnapshotAt;
use crate::ports::{LakeReader, Recovery, SnapshotInfo, TableState};

/// Manifests read at once.
const MANIFESTS_AT_ONCE: usize = 8;
/// Files of manifests kept in memory, all tables together: manifests never change, and most of them outlive many commits.
const FILES_KEPT: usize = 1 << 18;

/// Live files of manifests read before, by location.
#[derive(Default)]
pub(super) struct FileCache {
    manifests: Mutex<HashMap<String, Arc<Vec<WrittenFile>>>>,
}

#[async_trait]
impl LakeReader for IcebergLake {
    async fn tables(&self) -> Result<Vec<TableName>> {
        self.committer.catalog.list().await
    }

    async fn at(&self, table: &TableName, at: SnapshotAt) -> Result<Option<TableState>> {
        let Some(loaded) = self.committer.catalog.load(table).await? else { return Ok(None) };
        let now = state(table, &loaded.metadata)?;
        let Some(snapshot) = find(table, &loaded.metadata, at)? else { return Ok(Some(now)) };
        at_snapshot(now, &loaded.metadata, &snapshot).map(Some)
    }

    async fn files(&self, of: &TableState) -> Result<Vec<Arc<Vec<WrittenFile>>>> {
        let Some(id) = of.snapshot_id else { return Ok(Vec::new()) };
        let metadata = self.metadata_with(of, id).await?;
        let snapshot = metadata.snapshot_by_id(id).ok_or_else(|| expired(of))?;
        let list = self.committer.manifests.list(&metadata, snapshot).await?;
        if list.iter().any(|manifest| manifest.content == ManifestContentType::Deletes) {
            return Err(has_deletes(&of.table));
        }
        self.data_files(&list).await
    }

    async fn added(&self, of: &TableState, since: i64) -> Result<Option<Vec<WrittenFile>>> {
        let Some(id) = of.snapshot_id else { return Ok(None) };
        let metadata = self.metadata_with(of, id).await?;
        let snapshot = metadata.snapshot_by_id(id).ok_or_else(|| expired(of))?;
        let mut appends = Vec::new();
        let mut is_reached = false;
        for snapshot in progress::back_from(&metadata, snapshot) {
            if snapshot.snapshot_id() == since {
                is_reached = true;
                break;
            }
            match snapshot.summary().operation {
                Operation::Append => appends.push(snapshot),
                Operation::Replace => {}
                Operation::Overwrite | Operation::Delete => return Ok(None),
            }
        }
        if !is_reached {
            return Ok(None);
        }
        let mut files = Vec::new();
        for snapshot in appends.into_iter().rev() {
            files.extend(self.appended(&metadata, snapshot).await?);
        }
        Ok(Some(files))
    }

    async fn rows(
        &self,
        of: &TableState,
        file: &WrittenFile,
        columns: &BTreeSet<&str>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let fields = of.schema.fields.iter().filter(|field| columns.contains(field.name.as_str())).cloned().collect();
        let wanted = TableSchema { schema_id: of.schema.schema_id, ..TableSchema::of(fields) };
        self.rows_of(of, wanted, &file.path, file.size_bytes).await
    }

    async fn snapshots(&self, table: &TableName) -> Result<Vec<SnapshotInfo>> {
        let Some(loaded) = self.committer.catalog.load(table).await? else { return Ok(Vec::new()) };
        inspect::snapshots(&loaded.metadata)
    }

    async fn read(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.committer.stores.read_ranges(path, ranges).await
    }
}

/// What a table cannot be read with.
pub(super) fn has_deletes(table: &TableName) -> Error {
    Error::corrupt(format!(
        "table `{table}` has delete files of another engine, which cannot be applied yet; compact them away with that \
         engine"
    ))
}

impl IcebergLake {
    /// The live data files of a manifest list, a list for each manifest; delete files are passed over.
    pub(super) async fn data_files(&self, list: &[ManifestFile]) -> Result<Vec<Arc<Vec<WrittenFile>>>> {
        let live = list.iter().filter(|manifest| {
            manifest.content == ManifestContentType::Data
                && (manifest.has_added_files() || manifest.has_existing_files())
        });
        let files = live.cloned().collect::<Vec<_>>().into_iter().map(|manifest| self.manifest_files(manifest));
        futures::stream::iter(files).buffered(MANIFESTS_AT_ONCE).try_collect().await
    }

    /// The rows of a table's file at `path` in the columns `wanted`; a struct may be wanted with some of its fields alone.
    pub(super) async fn rows_of(
        &self,
        of: &TableState,
        wanted: TableSchema,
        path: &str,
        size_bytes: u64,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mapping = of.properties.get(names::PROPERTY).map(|text| NameMapping::parse(text)).transpose()?;
        let (stores, compute) = (self.committer.stores.clone(), self.compute.clone());
        rows::rows(stores, compute, wanted, mapping.map(Arc::new), path, size_bytes).await
    }

    /// Metadata that has snapshot `id` of the table.
    pub(super) async fn metadata_with(&self, of: &TableState, id: i64) -> Result<Arc<TableMetadata>> {
        match self.seen_with(&of.table, id) {
            Some(metadata) => Ok(metadata),
            None => Ok(self.reload(of).await?.metadata),
        }
    }

    /// The data files that `snapshot` added.
    pub(super) async fn appended(&self, metadata: &TableMetadata, snapshot: &SnapshotRef) -> Result<Vec<WrittenFile>> {
        let (id, io) = (snapshot.snapshot_id(), self.committer.stores.file_io());
        let mut files = Vec::new();
        for manifest in self.committer.manifests.list(metadata, snapshot).await?.iter() {
            let is_its = manifest.added_snapshot_id == id && manifest.content == ManifestContentType::Data;
            if !is_its || !manifest.has_added_files() {
                continue;
            }
            let context = || format!("read manifest `{}`", manifest.manifest_path);
            let loaded = manifest.load_manifest(&io).await.map_err(|e| from_iceberg(context(), e))?;
            for entry in loaded.entries() {
                if entry.status() == ManifestStatus::Added && entry.snapshot_id() == Some(id) {
                    files.push(written(manifest.partition_spec_id, entry.data_file())?);
                }
            }
        }
        Ok(files)
    }

    async fn reload(&self, of: &TableState) -> Result<LoadedTable> {
        let loaded = self.committer.catalog.load(&of.table).await?;
        loaded.filter(|loaded| loaded.metadata.uuid() == of.uuid).ok_or_else(|| expired(of))
    }

    async fn manifest_files(&self, manifest: ManifestFile) -> Result<Arc<Vec<WrittenFile>>> {
        let known =
            self.files.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(&manifest.manifest_path).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let context = || format!("read manifest `{}`", manifest.manifest_path);
        let io = self.committer.stores.file_io();
        let loaded = manifest.load_manifest(&io).await.map_err(|e| from_iceberg(context(), e))?;
        let alive = loaded.entries().iter().filter(|entry| entry.is_alive()).map(|entry| entry.data_file());
        let data = alive.filter(|file| file.content_type() == DataContentType::Data);
        let files = Arc::new(data.map(|file| written(manifest.partition_spec_id, file)).collect::<Result<Vec<_>>>()?);
        let mut manifests = self.files.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        if manifests.values().map(|files| files.len() + 1).sum::<usize>() > FILES_KEPT {
            manifests.clear();
        }
        manifests.insert(manifest.manifest_path, Arc::clone(&files));
        Ok(files)
    }
}

fn expired(of: &TableState) -> Error {
    let snapshot = of.snapshot_id.unwrap_or_default();
    Error::corrupt(format!("snapshot {snapshot} of table `{}` is not there any more; it has expired", of.table))
}

/// The snapshot asked for; `None` where it is the current one, or the table has none.
fn find(table: &TableName, metadata: &TableMetadata, at: SnapshotAt) -> Result<Option<SnapshotRef>> {
    let missing = |what: String| {
        let text =
            format!("table `{table}` has no snapshot {what}; `frazil tables snapshots {table}` lists those kept");
        Error::new(ErrorKind::InvalidRequest, text)
    };
    match at {
        SnapshotAt::Current => Ok(None),
        SnapshotAt::Id(id) => metadata.snapshot_by_id(id).cloned().map(Some).ok_or_else(|| missing(format!("{id}"))),
        SnapshotAt::Timestamp(ms) => progress::ancestry(metadata)
            .find(|snapshot| snapshot.timestamp_ms() <= ms)
            .cloned()
            .map(Some)
            .ok_or_else(|| missing(format!("as old as {ms} ms since the epoch"))),
    }
}

/// The table as it was at `snapshot`: its schema and its ledger then, where it carried one.
fn at_snapshot(now: TableState, metadata: &TableMetadata, snapshot: &SnapshotRef) -> Result<TableState> {
    let schema = snapshot.schema(metadata).map_err(|e| from_iceberg("read a snapshot's schema", e))?;
    let progress = progress::progress_at(metadata, snapshot)?;
    Ok(TableState {
        snapshot_id: Some(snapshot.snapshot_id()),
        sequence_number: snapshot.sequence_number(),
        schema: Arc::new(from_iceberg_schema(&schema)?),
        recovery: progress.map_or(Recovery::Fresh, Recovery::At),
        rows: number(snapshot, "total-records").unwrap_or(0),
        newest_ms: progress::back_from(metadata, snapshot).find_map(|snapshot| number(snapshot, progress::NEWEST)),
        ..now
    })
}

/// A manifest's entry as planning needs it.
fn written(spec_id: i32, file: &DataFile) -> Result<WrittenFile> {
    if file.file_format() != DataFileFormat::Parquet {
        let (path, format) = (file.file_path(), file.file_format());
        return Err(Error::corrupt(format!("data file `{path}` is in format {format}, which frazil cannot read")));
    }
    let mut columns: BTreeMap<i32, ColumnStats> = BTreeMap::new();
    for (id, values) in file.value_counts() {
        columns.entry(*id).or_default().values = *values;
    }
    for (id, nulls) in file.null_value_counts() {
        columns.entry(*id).or_default().nulls = *nulls;
    }
    for (id, bytes) in file.column_sizes() {
        columns.entry(*id).or_default().size_bytes = *bytes;
    }
    let bytes =
        |datum: &Datum| datum.to_bytes().map(|bytes| bytes.to_vec()).map_err(|e| from_iceberg("read a bound", e));
    for (id, datum) in file.lower_bounds() {
        columns.entry(*id).or_default().lower = Some(bytes(datum)?);
    }
    for (id, datum) in file.upper_bounds() {
        columns.entry(*id).or_default().upper = Some(bytes(datum)?);
    }
    // Without a count of nulls nobody knows whether there are any.
    columns.retain(|id, _| file.null_value_counts().contains_key(id));
    Ok(WrittenFile {
        path: file.file_path().to_owned(),
        size_bytes: file.file_size_in_bytes(),
        rows: file.record_count(),
        spec_id,
        // Partition values say no more than the bounds of the columns that they are made of.
        partition: Vec::new(),
        sort_order_id: file.sort_order_id(),
        split_offsets: file.split_offsets().map(<[i64]>::to_vec).unwrap_or_default(),
        columns,
    })
}
