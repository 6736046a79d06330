//! Many data files into one: read by ranges, decoded, made to fit the current schema, merged where they are sorted,
//! and encoded again. Memory is bounded by what is read ahead, one row group being decoded, and one being encoded.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use iceberg::spec::{Struct, TableMetadata};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use uuid::Uuid;

use super::conform::conform;
use super::sorted::{SortKey, merge_sorted};
use super::survey::{GroupKey, SmallFile};
use crate::error::{Error, Result};
use crate::lake::encode::Encoder;
use crate::lake::manifests::spec;
use crate::lake::schema::from_iceberg_schema;
use crate::lake::storage::{Stores, Upload, from_iceberg};
use crate::lake::writer::compression;
use crate::model::file::WrittenFile;
use crate::model::schema::TableSchema;
use crate::runtime::compute::Compute;
use crate::runtime::crash;

/// Encoded bytes of a row group of a compacted file.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// A file up to this size is fetched whole.
const WHOLE_BYTES: u64 = 8 << 20;
/// Files being opened ahead of the one that is decoded.
const OPEN_AHEAD: usize = 4;
/// Row groups of large files fetched ahead.
const GROUPS_AHEAD: usize = 1;
/// Bytes of a file's end that are fetched to find its footer.
const FOOTER_BYTES: u64 = 64 << 10;
/// Decoded bytes of one batch.
const BATCH_BYTES: u64 = 16 << 20;
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

/// One row group, fetched, of a file that is open.
pub(super) struct Fetched {
    metadata: ArrowReaderMetadata,
    row_group: usize,
    bytes: Window,
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

fn decoded(rows: Result<RecordBatch, arrow::error::ArrowError>) -> Result<RecordBatch> {
    rows.map_err(|e| Error::corrupt("decode a data file").with_source(e))
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

/// A data file whose footer is known.
#[derive(Clone)]
struct Open {
    stores: Stores,
    path: String,
    metadata: ArrowReaderMetadata,
    /// The whole file, where it is small.
    whole: Option<Window>,
    size_bytes: u64,
}

fn opening(stores: &Stores, files: &[SmallFile]) -> Vec<BoxFuture<'static, Result<Open>>> {
    files.iter().map(|file| open(stores.clone(), file.path.clone(), file.size_bytes).boxed()).collect()
}

async fn open(stores: Stores, path: String, size_bytes: u64) -> Result<Open> {
    let unreadable = |e: ParquetError| Error::corrupt(format!("read data file `{path}`")).with_source(e);
    let start = if size_bytes <= WHOLE_BYTES { 0 } else { size_bytes - FOOTER_BYTES };
    let mut window = Window::fetch(&stores, &path, start..size_bytes, size_bytes).await?;
    let mut reader = ParquetMetaDataReader::new();
    match reader.try_parse_sized(&window.bytes, size_bytes) {
        // A footer larger than what was fetched says how large it is.
        Err(ParquetError::NeedMoreData(needed)) => {
            let start = size_bytes.saturating_sub(needed as u64);
            window = Window::fetch(&stores, &path, start..size_bytes, size_bytes).await?;
            reader.try_parse_sized(&window.bytes, size_bytes).map_err(unreadable)?;
        }
        parsed => parsed.map_err(unreadable)?,
    }
    let metadata = Arc::new(reader.finish().map_err(unreadable)?);
    // What an Arrow writer noted of its own types is nothing that other files of the table need share.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::try_new(metadata, options).map_err(unreadable)?;
    let whole = (window.start == 0).then_some(window);
    Ok(Open { stores, path, metadata, whole, size_bytes })
}

impl Open {
    async fn fetch(self, row_group: usize) -> Result<Fetched> {
        let bytes = match self.whole {
            Some(whole) => whole,
            None => {
                let range = range(self.metadata.metadata().row_group(row_group));
                Window::fetch(&self.stores, &self.path, range, self.size_bytes).await?
            }
        };
        Ok(Fetched { metadata: self.metadata, row_group, bytes })
    }
}

/// Where a row group's column chunks lie.
fn range(group: &RowGroupMetaData) -> Range<u64> {
    let ranges = group.columns().iter().map(ColumnChunkMetaData::byte_range);
    let start = ranges.clone().map(|(start, _)| start).min().unwrap_or(0);
    let end = ranges.map(|(start, length)| start + length).max().unwrap_or(start);
    start..end
}

impl Fetched {
    /// Its rows, in batches of about `batch_bytes` decoded.
    fn decode(self, batch_bytes: Option<u64>) -> Result<ParquetRecordBatchReader> {
        let group = self.metadata.metadata().row_group(self.row_group);
        let rows = u64::try_from(group.num_rows()).unwrap_or(1).max(1);
        let row_bytes = (u64::try_from(group.total_byte_size()).unwrap_or(0) / rows).max(1);
        let batch = (batch_bytes.unwrap_or(BATCH_BYTES) / row_bytes).clamp(256, 65_536);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes, self.metadata)
            .with_row_groups(vec![self.row_group])
            .with_batch_size(usize::try_from(batch).unwrap_or(1024));
        reader.build().map_err(|e| Error::corrupt("decode a data file").with_source(e))
    }
}

/// A part of a file in memory, addressed as the file is.
#[derive(Clone)]
struct Window {
    bytes: Bytes,
    start: u64,
    /// Of the whole file.
    length: u64,
}

impl Window {
    async fn fetch(stores: &Stores, path: &str, range: Range<u64>, length: u64) -> Result<Self> {
        let start = range.start;
        Ok(Self { bytes: stores.read_ranges(path, &[range]).await?.swap_remove(0), start, length })
    }

    fn part(&self, start: u64, length: Option<usize>) -> Result<Bytes, ParquetError> {
        let from = start.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let to = from.and_then(|from| length.map_or(Some(self.bytes.len()), |length| from.checked_add(length)));
        match (from, to) {
            (Some(from), Some(to)) if from <= to && to <= self.bytes.len() => Ok(self.bytes.slice(from..to)),
            _ => Err(ParquetError::General(format!("offset {start} lies outside of its row group"))),
        }
    }
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(bytes::Buf::reader(self.part(start, None)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.part(start, Some(length))
    }
}
