//! Many data files into one: read by ranges, decoded, made to fit the current schema, merged where they are sorted,
//! and encoded again. Memory is bounded by what is read ahead, one row group being decoded, and one being encoded.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use iceberg::spec::{Struct, TableMetadata};
use parquet::basic::Compression;
use uuid::Uuid;

use super::sorted::{SortKey, merge_sorted};
use super::survey::{GroupKey, SmallFile};
use crate::error::{Error, Result};
use crate::lake::conform::conform;
use crate::lake::encode::Encoder;
use crate::lake::manifests::spec;
use crate::lake::rows::{BATCH_BYTES, Fetched, Open, decoded, open};
use crate::lake::schema::from_iceberg_schema;
use crate::lake::storage::{Stores, Upload, from_iceberg};
use crate::lake::writer::compression;
use crate::model::file::WrittenFile;
use crate::model::schema::TableSchema;
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
    arrow: SchemaRef,
    compression: Compression,
    path: String,
    sort: Vec<SortKey>,
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
        Ok(Self {
            arrow: schema.to_arrow(),
            schema,
            compression: compression(metadata.properties())?,
            path: format!("{location}/data/{folder}{}-0.parquet", id.simple()),
            sort,
        })
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
    let opened = futures::stream::iter(opening(tools.stores, files)).buffered(OPEN_AHEAD);
    let groups = opened.map_ok(|open| {
        let groups = 0..open.metadata.metadata().num_row_groups();
        futures::stream::iter(groups.map(move |group| Ok(open.clone().fetch(group).boxed())))
    });
    let mut fetched = std::pin::pin!(groups.try_flatten().try_buffered(GROUPS_AHEAD + 1));
    while let Some(fetched) = fetched.try_next().await? {
        let (target, parallel) = (Arc::clone(target), tools.compute.threads() > 1);
        let encoder = output.encoder.take();
        let path = target.path.clone();
        let encode = move || {
            let mut encoder = encoder;
            for rows in fetched.decode(None)? {
                let rows = conform(&decoded(rows)?, &target.schema.fields, &target.arrow)?;
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
    let fetch = |opening: BoxFuture<'static, Result<Open>>| async move {
        let open = opening.await?;
        let groups = 0..open.metadata.metadata().num_row_groups();
        let fetch: Vec<_> = groups.map(|group| open.clone().fetch(group).boxed()).collect();
        futures::stream::iter(fetch).buffered(GROUPS_AHEAD + 1).try_collect::<Vec<Fetched>>().await
    };
    let fetching: Vec<_> = opening(tools.stores, files).into_iter().map(|opening| fetch(opening).boxed()).collect();
    let runs: Vec<Vec<Fetched>> = futures::stream::iter(fetching).buffered(OPEN_AHEAD).try_collect().await?;
    let rows = (BATCH_BYTES / runs.len().max(1) as u64).max(256 << 10);
    let rows_of = |target: &Arc<Target>, run: Vec<Fetched>| {
        let target = Arc::clone(target);
        let decoded_groups = run.into_iter().map(move |fetched| fetched.decode(Some(rows)));
        decoded_groups.flat_map(move |reader| {
            let target = Arc::clone(&target);
            let (reader, failed) = match reader {
                Ok(reader) => (Some(reader), None),
                Err(error) => (None, Some(Err(error))),
            };
            let conformed = reader
                .into_iter()
                .flatten()
                .map(move |rows| conform(&decoded(rows)?, &target.schema.fields, &target.arrow));
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

fn opening(stores: &Stores, files: &[SmallFile]) -> Vec<BoxFuture<'static, Result<Open>>> {
    files.iter().map(|file| open(stores.clone(), file.path.clone(), file.size_bytes).boxed()).collect()
}
