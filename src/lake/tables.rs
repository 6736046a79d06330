//! The [`Lake`] port over a catalog and a storage stack.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use iceberg::spec::{
    FormatVersion, NullOrder, Schema, SortDirection, SortField, SortOrder, TableMetadataRef,
    Transform as IcebergTransform, UnboundPartitionSpec,
};
use iceberg::{TableCreation, TableRequirement, TableUpdate};

use super::catalog::{Applied, Catalog, LoadedTable, TableChange};
use super::commit::{Committer, state};
use super::identity;
use super::manifests::Manifests;
use super::read::FileCache;
use super::schema::{self, numbered, to_iceberg_schema};
use super::storage::{Stores, from_iceberg};
use super::writer::{TableWriter, WriterOptions};
use crate::error::{Error, Result};
use crate::model::ids::{CommitId, TableName};
use crate::model::schema::TableSchema;
use crate::ports::{
    CommitOutcome, CommitRequest, FileWriter, Lake, PartitionField, TableLayout, TableState, Transform,
};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

/// How tables are kept.
#[derive(Debug, Clone)]
pub struct LakeOptions {
    /// Snapshots to keep; ingestion drops the oldest once there are twice as many.
    pub keep_snapshots: usize,
    /// Memory of one table's writer; a commit under way and the next one's files may each have as much.
    pub writer_bytes: usize,
}

/// Iceberg tables of one catalog.
pub struct IcebergLake {
    pub(super) committer: Committer,
    pub(super) compute: Compute,
    writer_bytes: usize,
    /// The newest metadata seen of each table, for writers.
    seen: Mutex<HashMap<TableName, TableMetadataRef>>,
    pub(super) files: FileCache,
}

impl IcebergLake {
    /// Tables of `catalog`, whose files lie in `stores`.
    #[must_use]
    pub fn new(
        catalog: Arc<dyn Catalog>,
        stores: Stores,
        compute: Compute,
        clock: Clock,
        options: &LakeOptions,
    ) -> Self {
        let manifests = Manifests::new(stores.file_io());
        let keep_snapshots = options.keep_snapshots.max(1);
        let committer = Committer { catalog, stores, manifests, clock, keep_snapshots };
        Self {
            committer,
            compute,
            writer_bytes: options.writer_bytes,
            seen: Mutex::default(),
            files: FileCache::default(),
        }
    }

    /// The newest metadata seen of a table, where it has that snapshot.
    pub(super) fn seen_with(&self, table: &TableName, snapshot_id: i64) -> Option<TableMetadataRef> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(table).filter(|metadata| metadata.snapshot_by_id(snapshot_id).is_some()).cloned()
    }

    pub(super) fn saw(&self, table: &TableName, loaded: &LoadedTable) -> Result<TableState> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(table.clone(), Arc::clone(&loaded.metadata));
        drop(seen);
        state(table, &loaded.metadata)
    }
}

#[async_trait]
impl Lake for IcebergLake {
    async fn load(&self, table: &TableName) -> Result<Option<TableState>> {
        let loaded = self.committer.catalog.load(table).await?;
        loaded.map(|loaded| self.saw(table, &loaded)).transpose()
    }

    async fn create(&self, table: &TableName, layout: &TableLayout) -> Result<TableState> {
        let loaded = self.committer.catalog.create(table, creation(table, layout)?).await?;
        self.saw(table, &loaded)
    }

    async fn evolve(
        &self,
        from: &TableState,
        wanted: &TableSchema,
        properties: &BTreeMap<String, String>,
    ) -> Result<TableState> {
        let table = &from.table;
        let mut backoff = Backoff::new(std::time::Duration::from_millis(10), std::time::Duration::from_secs(5));
        loop {
            let loaded = self.committer.catalog.load(table).await?;
            let loaded = loaded.filter(|loaded| loaded.metadata.uuid() == from.uuid);
            let loaded = loaded.ok_or_else(|| {
                Error::corrupt(format!("change columns of table `{table}`: it has vanished or was replaced"))
            })?;
            let metadata = &loaded.metadata;
            let is_new = |(name, _): &(&String, &String)| !metadata.properties().contains_key(*name);
            let mut new: HashMap<String, String> =
                properties.iter().filter(is_new).map(|(name, value)| (name.clone(), value.clone())).collect();
            let mut updates = Vec::new();
            // What was changed meanwhile, be it by a try of ours whose answer was lost, is not changed again.
            if *from.schema == schema::current(metadata)? {
                let wanted = numbered(wanted, metadata.last_column_id());
                let schema = to_iceberg_schema(&wanted)?;
                if schema.as_struct() != metadata.current_schema().as_struct() {
                    updates.push(TableUpdate::AddSchema { schema });
                    updates.push(TableUpdate::SetCurrentSchema { schema_id: -1 });
                }
                let identity = identity::write(&wanted).map(|text| (identity::PROPERTY.to_owned(), text));
                new.extend(identity.filter(|(name, text)| metadata.properties().get(name) != Some(text)));
            }
            if !new.is_empty() {
                updates.push(TableUpdate::SetProperties { updates: new });
            }
            if updates.is_empty() {
                return self.saw(table, &loaded);
            }
            let requirements = vec![
                TableRequirement::UuidMatch { uuid: metadata.uuid() },
                TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
                TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: metadata.last_column_id() },
            ];
            // What columns are to schemas is a property, and must be what `wanted` was worked out from.
            let known = metadata.properties().get(identity::PROPERTY).cloned();
            let properties = vec![(identity::PROPERTY.to_owned(), known)];
            let change = TableChange { table: table.clone(), requirements, properties, updates };
            if let Applied::Done(tables) = self.committer.catalog.commit(vec![change]).await? {
                let loaded = tables.first().ok_or_else(|| Error::bug("a commit answered without its table"))?;
                return self.saw(table, loaded);
            }
            self.committer.clock.sleep(backoff.pause()).await;
        }
    }

    fn writer(&self, state: &TableState, commit: CommitId) -> Result<Box<dyn FileWriter>> {
        let metadata = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&state.table).cloned();
        let metadata = metadata.filter(|metadata| metadata.uuid() == state.uuid);
        let metadata =
            metadata.ok_or_else(|| Error::bug(format!("write to table `{}` before it was loaded", state.table)))?;
        let options = WriterOptions {
            schema: Arc::clone(&state.schema),
            commit,
            id: self.committer.clock.fresh_id(),
            stores: self.committer.stores.clone(),
            compute: self.compute.clone(),
            memory_bytes: self.writer_bytes,
        };
        Ok(Box::new(TableWriter::new(&metadata, options)?))
    }

    async fn commit(&self, request: &CommitRequest) -> Result<CommitOutcome> {
        self.committer.commit(request).await
    }
}

fn creation(table: &TableName, layout: &TableLayout) -> Result<TableCreation> {
    let columns = numbered(&layout.schema, 0);
    let schema = to_iceberg_schema(&columns)?;
    let spec = partition_spec(table, &layout.partition_by, &schema)?;
    let order = sort_order(table, &layout.sort_by, &schema)?;
    let format_version = if layout.format_version >= 3 { FormatVersion::V3 } else { FormatVersion::V2 };
    let mut properties = layout.properties.clone();
    properties.extend(identity::write(&columns).map(|text| (identity::PROPERTY.to_owned(), text)));
    for (key, value) in [
        ("write.parquet.compression-codec", "zstd"),
        ("write.metadata.delete-after-commit.enabled", "true"),
        ("write.metadata.previous-versions-max", "20"),
    ] {
        properties.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    Ok(TableCreation::builder()
        .name(table.name.clone())
        .location_opt(layout.location.clone())
        .schema(schema)
        .partition_spec(spec)
        .sort_order(order)
        .properties(properties)
        .format_version(format_version)
        .build())
}

fn column_id(table: &TableName, schema: &Schema, column: &str, setting: &str) -> Result<i32> {
    let field = schema.as_struct().fields().iter().find(|field| field.name == column);
    let field = field.ok_or_else(|| {
        let known: Vec<&str> = schema.as_struct().fields().iter().map(|field| field.name.as_str()).collect();
        Error::invalid_config(format!(
            "`{setting}` of table `{table}`: there is no column `{column}` among {}",
            known.join(", ")
        ))
    })?;
    Ok(field.id)
}

pub(super) fn partition_spec(
    table: &TableName,
    fields: &[PartitionField],
    schema: &Schema,
) -> Result<UnboundPartitionSpec> {
    let mut builder = UnboundPartitionSpec::builder();
    for PartitionField { column, transform } in fields {
        let id = column_id(table, schema, column, "partition_by")?;
        let (transform, suffix) = match transform {
            Transform::Identity => (IcebergTransform::Identity, ""),
            Transform::Year => (IcebergTransform::Year, "_year"),
            Transform::Month => (IcebergTransform::Month, "_month"),
            Transform::Day => (IcebergTransform::Day, "_day"),
            Transform::Hour => (IcebergTransform::Hour, "_hour"),
            Transform::Bucket(count) => (IcebergTransform::Bucket(*count), "_bucket"),
            Transform::Truncate(width) => (IcebergTransform::Truncate(*width), "_trunc"),
        };
        builder = builder.add_partition_field(id, format!("{column}{suffix}"), transform).map_err(|e| {
            Error::invalid_config(format!("`partition_by` of table `{table}`: `{column}`")).with_source(e)
        })?;
    }
    let spec = builder.build();
    // Binding checks that each transform takes its column's type.
    spec.clone()
        .bind(schema.clone())
        .map_err(|e| Error::invalid_config(format!("`partition_by` of table `{table}`")).with_source(e))?;
    Ok(spec)
}

pub(super) fn sort_order(table: &TableName, columns: &[String], schema: &Schema) -> Result<SortOrder> {
    if columns.is_empty() {
        return Ok(SortOrder::unsorted_order());
    }
    let mut builder = SortOrder::builder();
    for column in columns {
        let field = SortField {
            source_id: column_id(table, schema, column, "sort_by")?,
            transform: IcebergTransform::Identity,
            direction: SortDirection::Ascending,
            null_order: NullOrder::First,
        };
        builder.with_sort_field(field);
    }
    builder.build(schema).map_err(|e| from_iceberg(format!("`sort_by` of table `{table}`"), e))
}
