//! A table as people look at it: layout, figures, snapshots, files. Reads only; what is made of it is shown elsewhere.

use std::collections::BTreeMap;
use std::str::FromStr;

use iceberg::spec::{ManifestContentType, ManifestList, Operation, Snapshot, SnapshotRef, TableMetadata, Transform};
use serde::Serialize;

use super::catalog::LoadedTable;
use super::progress;
use super::schema::from_iceberg_schema;
use super::storage::{Stores, from_iceberg};
use crate::error::{Error, Result};
use crate::model::schema::{Field, TableSchema};
use crate::ports::SnapshotInfo;

/// What a table is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layout {
    /// Its identity.
    pub uuid: String,
    /// Where its files lie.
    pub location: String,
    /// Its current metadata file.
    pub metadata_location: String,
    /// Iceberg format version.
    pub format_version: u8,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Partition fields, as in `day(ts)`.
    pub partition_by: Vec<String>,
    /// Sort fields, as in `id ascending`.
    pub sort_by: Vec<String>,
    /// Table properties but the ledger, which is shown decoded.
    pub properties: BTreeMap<String, String>,
}

/// A top-level column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// Iceberg's field id.
    pub id: i32,
    /// Name.
    pub name: String,
    /// Type in Iceberg's words.
    #[serde(rename = "type")]
    pub kind: String,
    /// True where null is no value.
    pub required: bool,
}

/// What a table holds. Counts are those of the current snapshot's summary, `None` where its writer gave none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Figures {
    /// The current snapshot of `main`.
    pub snapshot_id: Option<i64>,
    /// Snapshots retained.
    pub snapshots: usize,
    /// Rows.
    pub rows: Option<u64>,
    /// Data files.
    pub data_files: Option<u64>,
    /// Bytes of the data files.
    pub size_bytes: Option<u64>,
    /// When Frazil committed last, milliseconds since the epoch.
    pub last_commit_ms: Option<i64>,
    /// Timestamp of the newest record of the newest commit that had any, milliseconds since the epoch.
    pub newest_record_ms: Option<i64>,
}

/// A data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Its location.
    pub path: String,
    /// Its partition, as in `ts_day=2024-01-01`; empty where the table has none.
    pub partition: String,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub size_bytes: u64,
}

/// What a table is.
///
/// # Errors
/// `Corrupt` where its metadata cannot be understood.
pub fn layout(table: &LoadedTable) -> Result<Layout> {
    let metadata = &table.metadata;
    let schema = metadata.current_schema();
    let column = |id| schema.name_by_field_id(id).map_or_else(|| format!("#{id}"), str::to_owned);
    let transformed = |transform: Transform, id| match transform {
        Transform::Identity => column(id),
        Transform::Bucket(n) => format!("bucket({n}, {})", column(id)),
        Transform::Truncate(n) => format!("truncate({n}, {})", column(id)),
        other => format!("{other}({})", column(id)),
    };
    let spec = metadata.default_partition_spec();
    let order = metadata.default_sort_order();
    let properties = metadata.properties().iter().filter(|(key, _)| *key != progress::PROPERTY);
    Ok(Layout {
        uuid: metadata.uuid().to_string(),
        location: metadata.location().to_owned(),
        metadata_location: table.metadata_location.clone(),
        format_version: metadata.format_version() as u8,
        columns: columns(&from_iceberg_schema(schema)?),
        partition_by: spec.fields().iter().map(|field| transformed(field.transform, field.source_id)).collect(),
        sort_by: order
            .fields
            .iter()
            .map(|field| format!("{} {}", transformed(field.transform, field.source_id), field.direction))
            .collect(),
        properties: properties.map(|(key, value)| (key.clone(), value.clone())).collect(),
    })
}

/// A schema's top-level columns.
#[must_use]
pub fn columns(schema: &TableSchema) -> Vec<Column> {
    let column = |field: &Field| Column {
        id: field.id,
        name: field.name.clone(),
        kind: field.kind.to_string(),
        required: field.required,
    };
    schema.fields.iter().map(column).collect()
}

/// What a table holds.
#[must_use]
pub fn figures(metadata: &TableMetadata) -> Figures {
    let current = metadata.current_snapshot();
    let total = |key| current.map_or(Some(0), |snapshot| number(snapshot, key));
    // Maintenance carries the ledger on; what it does is no commit of records.
    let ours = |snapshot: &&SnapshotRef| {
        snapshot.summary().operation != Operation::Replace
            && (has(snapshot, progress::LEDGER) || has(snapshot, progress::COMMIT_ID))
    };
    Figures {
        snapshot_id: metadata.current_snapshot_id(),
        snapshots: metadata.snapshots().len(),
        rows: total("total-records"),
        data_files: total("total-data-files"),
        size_bytes: total("total-files-size"),
        last_commit_ms: progress::ancestry(metadata).find(ours).map(|snapshot| snapshot.timestamp_ms()),
        newest_record_ms: progress::ancestry(metadata).find_map(|snapshot| number(snapshot, progress::NEWEST)),
    }
}

/// All retained snapshots, the newest first.
///
/// # Errors
/// `Bug` where the metadata has no JSON form.
pub fn snapshots(metadata: &TableMetadata) -> Result<Vec<SnapshotInfo>> {
    let refs = refs(metadata)?;
    let main: Vec<i64> = progress::ancestry(metadata).map(|snapshot| snapshot.snapshot_id()).collect();
    let mut all: Vec<_> = metadata.snapshots().collect();
    all.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence_number()));
    let info = |snapshot: &SnapshotRef| SnapshotInfo {
        id: snapshot.snapshot_id(),
        parent_id: snapshot.parent_snapshot_id(),
        time_ms: snapshot.timestamp_ms(),
        operation: snapshot.summary().operation.as_str().to_owned(),
        added_rows: number(snapshot, "added-records").unwrap_or(0),
        added_files: number(snapshot, "added-data-files").unwrap_or(0),
        rows: number(snapshot, "total-records"),
        on_main: main.contains(&snapshot.snapshot_id()),
        has_ledger: has(snapshot, progress::LEDGER),
        refs: refs.get(&snapshot.snapshot_id()).cloned().unwrap_or_default(),
    };
    Ok(all.into_iter().map(info).collect())
}

/// The data files of the current snapshot, in the order of its manifests.
///
/// # Errors
/// `Unavailable` where the store does not answer, `Corrupt` where a manifest cannot be read.
pub async fn files(stores: &Stores, metadata: &TableMetadata) -> Result<Vec<FileInfo>> {
    let Some(snapshot) = metadata.current_snapshot() else { return Ok(Vec::new()) };
    let location = snapshot.manifest_list();
    let bytes = stores.read(location).await?;
    let bytes = bytes.ok_or_else(|| Error::corrupt(format!("manifest list `{location}` is missing")))?;
    let list = ManifestList::parse_with_version(&bytes, metadata.format_version())
        .map_err(|e| from_iceberg(format!("read manifest list `{location}`"), e))?;
    let io = stores.file_io();
    let mut files = Vec::new();
    for manifest in list.entries().iter().filter(|manifest| manifest.content == ManifestContentType::Data) {
        let context = || format!("read manifest `{}`", manifest.manifest_path);
        let loaded = manifest.load_manifest(&io).await.map_err(|e| from_iceberg(context(), e))?;
        let (spec, schema) = (&loaded.metadata().partition_spec, &loaded.metadata().schema);
        // `partition_to_path` panics where this fails.
        spec.partition_type(schema).map_err(|e| from_iceberg(context(), e))?;
        for entry in loaded.entries().iter().filter(|entry| entry.is_alive()) {
            let file = entry.data_file();
            files.push(FileInfo {
                path: file.file_path().to_owned(),
                partition: spec.partition_to_path(file.partition(), schema.clone()),
                rows: file.record_count(),
                size_bytes: file.file_size_in_bytes(),
            });
        }
    }
    Ok(files)
}

fn has(snapshot: &Snapshot, key: &str) -> bool {
    snapshot.summary().additional_properties.contains_key(key)
}

fn number<T: FromStr>(snapshot: &Snapshot, key: &str) -> Option<T> {
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

/// Names of branches and tags by the snapshot that they are on. The metadata has no accessor for them; its JSON has.
fn refs(metadata: &TableMetadata) -> Result<BTreeMap<i64, Vec<String>>> {
    let json =
        serde_json::to_value(metadata).map_err(|e| Error::bug("table metadata has no json form").with_source(e))?;
    let mut refs: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (name, reference) in json["refs"].as_object().into_iter().flatten() {
        if let Some(id) = reference["snapshot-id"].as_i64() {
            refs.entry(id).or_default().push(name.clone());
        }
    }
    Ok(refs)
}
