//! Rows of data files: fetched by ranges, decoded, brought into a schema by field id. Memory is bounded by what is read
//! ahead and one row group being decoded.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use super::storage::Stores;
use crate::error::{Error, Result};
use crate::model::conform::conform;
use crate::model::names::{self, NameMapping};
use crate::model::schema::{FIELD_ID_KEY, Field, TableSchema, Type};
use crate::runtime::compute::Compute;

/// A file up to this size is fetched whole.
const WHOLE_BYTES: u64 = 8 << 20;
/// Bytes of a file's end that are fetched to find its footer.
const FOOTER_BYTES: u64 = 64 << 10;
/// Decoded bytes of one batch.
pub(super) const BATCH_BYTES: u64 = 16 << 20;
/// Row groups fetched ahead of the one that is decoded.
const GROUPS_AHEAD: usize = 1;

/// The rows of the file at `path` in the columns `wanted`, decoded on `compute`. A struct may be wanted with some of
/// its fields alone. Where the file's columns have no field ids, `mapping` has them.
pub(super) async fn rows(
    stores: Stores,
    compute: Compute,
    wanted: TableSchema,
    mapping: Option<Arc<NameMapping>>,
    path: &str,
    size_bytes: u64,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let wanted = Arc::new(wanted);
    let arrow: SchemaRef = wanted.to_arrow();
    let open = open(stores, path.to_owned(), size_bytes, mapping).await?;
    let open = open.project(&wanted);
    let groups = 0..open.metadata.metadata().num_row_groups();
    let fetching = futures::stream::iter(groups.map(move |group| open.clone().fetch(group).boxed()));
    let decoding = fetching.buffered(GROUPS_AHEAD + 1).and_then(move |fetched| {
        let (compute, wanted, arrow) = (compute.clone(), Arc::clone(&wanted), Arc::clone(&arrow));
        async move {
            let decode = move || {
                let batches = fetched.decode(None)?;
                batches.map(|rows| conform(&decoded(rows)?, &wanted.fields, &arrow)).collect::<Result<Vec<_>>>()
            };
            let batches = compute.run(decode).await??;
            Ok(futures::stream::iter(batches.into_iter().map(Ok)))
        }
    });
    Ok(decoding.try_flatten().boxed())
}

/// A data file whose footer is known.
#[derive(Clone)]
pub(super) struct Open {
    stores: Stores,
    path: String,
    pub(super) metadata: ArrowReaderMetadata,
    /// The columns that are read.
    columns: ProjectionMask,
    /// The whole file, where it is small.
    whole: Option<Window>,
    size_bytes: u64,
}

/// Opens a file. Where its columns have no field ids, `mapping` has them.
pub(super) async fn open(
    stores: Stores,
    path: String,
    size_bytes: u64,
    mapping: Option<Arc<NameMapping>>,
) -> Result<Open> {
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
    let mut metadata = ArrowReaderMetadata::try_new(metadata, options.clone()).map_err(unreadable)?;
    if let Some(mapping) = mapping.filter(|_| !names::has_ids(metadata.schema())) {
        let identified = options.with_schema(Arc::new(mapping.identify(metadata.schema())));
        metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), identified).map_err(unreadable)?;
    }
    let whole = (window.start == 0).then_some(window);
    Ok(Open { stores, path, metadata, columns: ProjectionMask::all(), whole, size_bytes })
}

impl Open {
    /// The same, of which only the columns of `schema` are read.
    fn project(self, schema: &TableSchema) -> Self {
        let (mut next, mut wanted) = (0, Vec::new());
        let roots = self.metadata.schema().fields();
        roots.iter().for_each(|root| choose(root, &schema.fields, &mut next, &mut wanted));
        Self { columns: ProjectionMask::leaves(self.metadata.parquet_schema(), wanted), ..self }
    }

    /// Where a row group's column chunks lie.
    fn range(&self, row_group: usize) -> Range<u64> {
        let group = self.metadata.metadata().row_group(row_group);
        let read = group.columns().iter().enumerate().filter(|(at, _)| self.columns.leaf_included(*at));
        let ranges = read.map(|(_, chunk)| ColumnChunkMetaData::byte_range(chunk));
        let start = ranges.clone().map(|(start, _)| start).min().unwrap_or(0);
        let end = ranges.map(|(start, length)| start + length).max().unwrap_or(start);
        start..end
    }

    pub(super) async fn fetch(self, row_group: usize) -> Result<Fetched> {
        let bytes = match self.whole {
            Some(whole) => whole,
            None => {
                let range = self.range(row_group);
                Window::fetch(&self.stores, &self.path, range, self.size_bytes).await?
            }
        };
        Ok(Fetched { metadata: self.metadata, columns: self.columns, row_group, bytes })
    }
}

/// Adds the leaves below `node` that `fields` ask for, the first of which is leaf number `next`.
fn choose(node: &FieldRef, fields: &[Field], next: &mut usize, wanted: &mut Vec<usize>) {
    let (first, before) = (*next, wanted.len());
    let id = node.metadata().get(FIELD_ID_KEY).and_then(|id| id.parse().ok());
    let field = fields.iter().find(|field| Some(field.id) == id);
    match (field.map(|field| &field.kind), node.data_type()) {
        (Some(Type::Struct(fields)), DataType::Struct(children)) => {
            children.iter().for_each(|child| choose(child, fields, next, wanted));
            // Any field tells where the struct itself is null.
            if wanted.len() == before && *next > first {
                wanted.push(first);
            }
        }
        (field, kind) => {
            *next += leaves(kind);
            wanted.extend(field.into_iter().flat_map(|_| first..*next));
        }
    }
}

fn leaves(kind: &DataType) -> usize {
    match kind {
        DataType::Struct(children) => children.iter().map(|child| leaves(child.data_type())).sum(),
        DataType::List(inner) | DataType::LargeList(inner) | DataType::Map(inner, _) => leaves(inner.data_type()),
        _ => 1,
    }
}

/// One row group, fetched, of a file that is open.
pub(super) struct Fetched {
    metadata: ArrowReaderMetadata,
    columns: ProjectionMask,
    row_group: usize,
    bytes: Window,
}

impl Fetched {
    /// Its rows, in batches of about `batch_bytes` decoded.
    pub(super) fn decode(self, batch_bytes: Option<u64>) -> Result<ParquetRecordBatchReader> {
        let group = self.metadata.metadata().row_group(self.row_group);
        let rows = u64::try_from(group.num_rows()).unwrap_or(1).max(1);
        let row_bytes = (u64::try_from(group.total_byte_size()).unwrap_or(0) / rows).max(1);
        // One row at a time where each is as large as a batch, as dead letters of too large records are.
        let batch = (batch_bytes.unwrap_or(BATCH_BYTES) / row_bytes).clamp(1, 65_536);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes, self.metadata)
            .with_projection(self.columns)
            .with_row_groups(vec![self.row_group])
            .with_batch_size(usize::try_from(batch).unwrap_or(1024));
        reader.build().map_err(|e| Error::corrupt("decode a data file").with_source(e))
    }
}

pub(super) fn decoded(rows: Result<RecordBatch, arrow::error::ArrowError>) -> Result<RecordBatch> {
    rows.map_err(|e| Error::corrupt("decode a data file").with_source(e))
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
