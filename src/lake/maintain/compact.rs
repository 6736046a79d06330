//! Many data files into one: read by ranges, decoded, made to fit the current schema, merged where they are sorted,
//! and encoded again. Memory is bounded by what is read ahead, one row group being decoded, and one being encoded.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use iceberg::spec::{FormatVersion, Struct, TableMetadata};
use parquet::basic::Compression;
use parquet::file::metadata::RowGroupMetaData;
use uuid::Uuid;

use super::lineage::{self, Origin};
use super::sorted::{SortKey, merge_sorted};
use super::survey::{GroupKey, SmallFile};
use crate::error::{Error, Result};
use crate::lake::encode::Encoder;
use crate::lake::manifests::spec;
use crate::lake::rows::{BATCH_BYTES, Fetched, Open, decoded, open};
use crate::lake::schema::from_iceberg_schema;
use crate::lake::storage::{Stores, Upload, from_iceberg};
use crate::lake::writer::compression;
use crate::model::conform::conform;
use crate::model::file::WrittenFile;
use crate::model::names::{self, NameMapping};
use crate::model::schema::{Field, TableSchema};
use crate::runtime::compute::Compute;
use crate::runtime::crash;

/// Encoded bytes of a row group of a compacted file.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Files being opened ahead of the one that is decoded.
const OPEN_AHEAD: usize = 4;
/// Row groups of large files fetched ahead.
const GROUPS_AHEAD: usize = 1;
/// Encoded bytes that are handed to the upload at once.
const HAND_OVER_BYTES: usize = 1 << 20;

/// What compaction works with.
pub(super) struct Tools<'a> {
    pub(super) stores: &'a Stores,
    pub(super) compute: &'a Compute,
    /// Names the file.
    pub(super) id: Uuid,
}

/// How the rows of the new file are written.
struct Target {
    schema: Arc<TableSchema>,
    /// The columns of the file: the table's, and in format 3 the two that keep rows' ids.
    fields: Vec<Field>,
    arrow: SchemaRef,
    compression: Compression,
    path: String,
    sort: Vec<SortKey>,
    /// Ids of columns in files that have none.
    names: Option<Arc<NameMapping>>,
}

/// The new file, as far as it is.
#[derive(Default)]
struct Output {
    encoder: Option<Encoder>,
    upload: Option<Upload>,
}

/// One file with the rows of `files`, in their order or in the table's sort order; `None` where they have no rows.
///
/// # Errors
/// `Corrupt` where a file cannot be read as the table's schema says; `Unavailable`, `Denied`.
pub(super) async fn compact(
    tools: &Tools<'_>,
    metadata: &TableMetadata,
    key: &GroupKey,
    files: &[SmallFile],
) -> Result<Option<WrittenFile>> {
    let target = Arc::new(Target::new(metadata, key, tools.id)?);
    let expected: u64 = files.iter().map(|file| file.rows).sum();
    let mut output = Output::default();
    let filled = match target.sort.is_empty() {
        true => append_all(tools, &target, files, &mut output).await,
        false => merge_all(tools, &target, files, &mut output).await,
    };
    if let Err(error) = filled {
        output.abort().await;
        return Err(error);
    }
    let Some(encoder) = output.encoder.take() else { return Ok(None) };
    let upload = match output.upload.take() {
        Some(upload) => upload,
        None => tools.stores.upload(&target.path).await?,
    };
    let written = finish(tools, &target, encoder, upload, key).await?;
    if written.rows != expected {
        let _ = tools.stores.delete(&written.path).await;
        return Err(Error::corrupt(format!(
            "{} data files have {} rows where their manifests say {expected}",
            files.len(),
            written.rows
        )));
    }
    crash::point(crash::COMPACTED);
    Ok(Some(written))
}

impl Target {
    fn new(metadata: &TableMetadata, key: &GroupKey, id: Uuid) -> Result<Self> {
        let schema = Arc::new(from_iceberg_schema(metadata.current_schema())?);
        let folder = folder(metadata, key.spec_id, &key.partition)?;
        let location = metadata.location().trim_end_matches('/');
        let sort = match key.sort_order {
            Some(_) => SortKey::of(metadata.default_sort_order(), &schema)?,
            None => Vec::new(),
        };
        let own = (metadata.format_version() >= FormatVersion::V3).then(lineage::fields);
        let fields = schema.fields.iter().cloned().chain(own.into_iter().flatten()).collect();
        let file = TableSchema { schema_id: schema.schema_id, ..TableSchema::of(fields) };
        let names = metadata.properties().get(names::PROPERTY).map(|text| NameMapping::parse(text));
        Ok(Self {
            arrow: file.to_arrow(),
            fields: file.fields,
            schema,
            compression: compression(metadata.properties())?,
            path: format!("{location}/data/{folder}{}-0.parquet", id.simple()),
            sort,
            names: names.transpose()?.map(Arc::new),
        })
    }

    /// Rows of a file as rows of the new one.
    fn conform(&self, rows: &RecordBatch, origin: &mut Option<Origin>) -> Result<RecordBatch> {
        let rows = conform(rows, &self.fields, &self.arrow)?;
        match origin {
            Some(origin) => origin.name(&rows),
            None => Ok(rows),
        }
    }
}

/// The folder of a partition value below `data/`, with a slash at its end; empty without partitions.
fn folder(metadata: &TableMetadata, spec_id: i32, partition: &Struct) -> Result<String> {
    let (spec, schema) = (spec(metadata, spec_id)?, metadata.current_schema());
    if spec.is_unpartitioned() {
        return Ok(String::new());
    }
    // `partition_to_path` panics where this fails, as where the column was dropped.
    spec.partition_type(schema).map_err(|e| from_iceberg("read partition spec", e))?;
    Ok(format!("{}/", spec.partition_to_path(partition, Arc::clone(schema))))
}

async fn finish(
    tools: &Tools<'_>,
    target: &Arc<Target>,
    encoder: Encoder,
    mut upload: Upload,
    key: &GroupKey,
) -> Result<WrittenFile> {
    let schema = Arc::clone(&target.schema);
    let parallel = tools.compute.threads() > 1;
    let footer = tools.compute.run(move || encoder.finish(&schema.fields, parallel)).await??;
    upload.write(footer.bytes).await?;
    let size_bytes = upload.finish().await?;
    Ok(WrittenFile {
        path: target.path.clone(),
        size_bytes,
        rows: footer.rows,
        spec_id: key.spec_id,
        partition: Vec::new(),
        sort_order_id: key.sort_order,
        split_offsets: footer.split_offsets,
        columns: footer.columns,
    })
}

/// Row group after row group, fetched ahead while the one before is decoded and encoded.
async fn append_all(tools: &Tools<'_>, target: &Arc<Target>, files: &[SmallFile], output: &mut Output) -> Result<()> {
    let mut fetched = fetched(tools.stores, target, files);
    while let Some((fetched, mut origin)) = fetched.try_next().await? {
        let (target, parallel) = (Arc::clone(target), tools.compute.threads() > 1);
        let encoder = output.encoder.take();
        let path = target.path.clone();
        let encode = move || {
            let mut encoder = encoder;
            for rows in fetched.decode(None)? {
                let rows = target.conform(&decoded(rows)?, &mut origin)?;
                encode(&mut encoder, &rows, target.compression, parallel)?;
            }
            Ok::<_, Error>(encoder)
        };
        output.encoder = tools.compute.run(encode).await??;
        output.hand_over(tools.stores, &path).await?;
    }
    Ok(())
}

/// All files at once in memory, which the planner bounds for sorted tables; then row after row by the sort order.
async fn merge_all(tools: &Tools<'_>, target: &Arc<Target>, files: &[SmallFile], output: &mut Output) -> Result<()> {
    let fetching: Vec<_> =
        opening(tools.stores, target, files).into_iter().map(|opening| fetch_all(opening).boxed()).collect();
    let runs: Vec<Vec<Group>> = futures::stream::iter(fetching).buffered(OPEN_AHEAD).try_collect().await?;
    let rows = (BATCH_BYTES / runs.len().max(1) as u64).max(256 << 10);
    let rows_of = |target: &Arc<Target>, run: Vec<Group>| {
        let target = Arc::clone(target);
        let decoded_groups = run.into_iter().map(move |(fetched, origin)| (fetched.decode(Some(rows)), origin));
        decoded_groups.flat_map(move |(reader, mut origin)| {
            let target = Arc::clone(&target);
            let (reader, failed) = match reader {
                Ok(reader) => (Some(reader), None),
                Err(error) => (None, Some(Err(error))),
            };
            let conformed = reader.into_iter().flatten().map(move |rows| target.conform(&decoded(rows)?, &mut origin));
            failed.into_iter().chain(conformed)
        })
    };
    let runs: Vec<_> = runs.into_iter().map(|run| rows_of(target, run)).collect();
    let (merging, parallel) = (Arc::clone(target), tools.compute.threads() > 1);
    // A step per merged batch, so that encoded bytes leave memory in between.
    let mut merge = Some(tools.compute.run(move || merge_sorted(runs, &merging.sort)).await??);
    while let Some(mut merging) = merge.take() {
        let encoder = output.encoder.take();
        let compression = target.compression;
        let step = move || {
            let mut encoder = encoder;
            let Some(rows) = merging.next_batch()? else { return Ok((None, encoder)) };
            encode(&mut encoder, &rows, compression, parallel)?;
            Ok::<_, Error>((Some(merging), encoder))
        };
        (merge, output.encoder) = tools.compute.run(step).await??;
        output.hand_over(tools.stores, &target.path).await?;
    }
    Ok(())
}

fn encode(encoder: &mut Option<Encoder>, rows: &RecordBatch, compression: Compression, parallel: bool) -> Result<()> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    match encoder {
        Some(encoder) => encoder.write(rows, parallel),
        None => encoder.insert(Encoder::new(rows, compression, ROW_GROUP_BYTES)?).write(rows, parallel),
    }
}

impl Output {
    async fn hand_over(&mut self, stores: &Stores, path: &str) -> Result<()> {
        let Some(encoder) = self.encoder.as_mut().filter(|encoder| encoder.ready() >= HAND_OVER_BYTES) else {
            return Ok(());
        };
        let bytes = encoder.take();
        let upload = match &mut self.upload {
            Some(upload) => upload,
            upload => upload.insert(stores.upload(path).await?),
        };
        upload.write(bytes).await
    }

    async fn abort(self) {
        if let Some(upload) = self.upload {
            upload.abort().await;
        }
    }
}

/// A file that is open, and where the ids of its rows begin.
type Source = (Open, Option<Origin>);
/// A row group, fetched, and where the ids of its rows begin.
type Group = (Fetched, Option<Origin>);

fn opening(stores: &Stores, target: &Target, files: &[SmallFile]) -> Vec<BoxFuture<'static, Result<Source>>> {
    let one = |file: &SmallFile| {
        let has_ids = target.fields.len() > target.schema.fields.len();
        let origin = file.first_row_id.filter(|_| has_ids).map(|id| Origin::new(id, file.sequence));
        let open = open(stores.clone(), file.path.clone(), file.size_bytes, target.names.clone());
        async move { Ok((open.await?, origin)) }.boxed()
    };
    files.iter().map(one).collect()
}

/// Row groups of one file after the other, fetched ahead.
fn fetched(stores: &Stores, target: &Target, files: &[SmallFile]) -> BoxStream<'static, Result<Group>> {
    let opened = futures::stream::iter(opening(stores, target, files)).buffered(OPEN_AHEAD);
    let groups = opened.map_ok(|source| futures::stream::iter(groups(&source).into_iter().map(Ok)));
    groups.try_flatten().try_buffered(GROUPS_AHEAD + 1).boxed()
}

async fn fetch_all(opening: BoxFuture<'static, Result<Source>>) -> Result<Vec<Group>> {
    futures::stream::iter(groups(&opening.await?)).buffered(GROUPS_AHEAD + 1).try_collect().await
}

fn groups((open, origin): &Source) -> Vec<BoxFuture<'static, Result<Group>>> {
    let mut before = 0;
    let rows = open.metadata.metadata().row_groups().iter().map(RowGroupMetaData::num_rows);
    let fetch = rows.enumerate().map(|(group, rows)| {
        let (fetched, origin) = (open.clone().fetch(group), origin.as_ref().map(|origin| origin.behind(before)));
        before += rows;
        async move { Ok((fetched.await?, origin)) }.boxed()
    });
    fetch.collect()
}
