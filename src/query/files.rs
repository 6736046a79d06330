//! Data files through the lake's reader: footers remembered, bytes counted against the query's limit.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::basic::Type as PhysicalType;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use datafusion::parquet::file::page_index::column_index::ColumnIndexMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use moka::sync::Cache;

use crate::error::{Error, ErrorKind};
use crate::ports::{LakeReader, SqlUse};

/// Bytes read from a file's end at first: most footers fit.
const FOOTER_GUESS: usize = 64 << 10;

/// Footers with their page indexes, by path: files never change.
#[derive(Clone)]
pub(super) struct Footers(Cache<Arc<str>, Arc<ParquetMetaData>>);

impl Footers {
    /// Keeps at most that many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let weigh =
            |_: &Arc<str>, footer: &Arc<ParquetMetaData>| u32::try_from(footer.memory_size()).unwrap_or(u32::MAX);
        Self(Cache::builder().weigher(weigh).max_capacity(bytes as u64).build())
    }
}

/// The path of a file, in every location's own form.
#[derive(Debug, Clone)]
pub(super) struct FilePath(pub(super) Arc<str>);

/// Opens the files of one query.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) lake: Arc<dyn LakeReader>,
    pub(super) footers: Footers,
    pub(super) used: Arc<SqlUse>,
    pub(super) scanned_bytes_max: u64,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

impl ParquetFileReaderFactory for Files {
    fn create_reader(
        &self,
        _partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let path = file.extension::<FilePath>().cloned();
        let path = path.ok_or_else(|| DataFusionError::Internal("a file without its path".to_owned()))?;
        Ok(Box::new(Reader { files: self.clone(), path: path.0, size: file.object_meta.size }))
    }
}

/// The footer without what it says of floats: their bounds leave NaN out, which to SQL is above every number, and would
/// have rows passed over that it looks for.
fn without_float_bounds(footer: ParquetMetaData) -> Result<ParquetMetaData, ParquetError> {
    let columns = footer.file_metadata().schema_descr().columns();
    let floats: Vec<usize> = (0..columns.len())
        .filter(|at| matches!(columns[*at].physical_type(), PhysicalType::FLOAT | PhysicalType::DOUBLE))
        .collect();
    if floats.is_empty() {
        return Ok(footer);
    }
    let mut footer = footer.into_builder();
    let without = |group: RowGroupMetaData| {
        let mut group = group.into_builder();
        let columns = group.take_columns().into_iter().enumerate().map(|(at, column)| match floats.contains(&at) {
            true => column.into_builder().clear_statistics().build(),
            false => Ok(column),
        });
        let columns = columns.collect::<Result<Vec<_>, ParquetError>>()?;
        group.set_column_metadata(columns).build()
    };
    let groups = footer.take_row_groups().into_iter().map(without).collect::<Result<Vec<_>, ParquetError>>()?;
    let mut index = footer.take_column_index();
    for group in index.iter_mut().flatten() {
        floats.iter().for_each(|at| group[*at] = ColumnIndexMetaData::NONE);
    }
    Ok(footer.set_row_groups(groups).set_column_index(index).build())
}

struct Reader {
    files: Files,
    path: Arc<str>,
    size: u64,
}

impl Reader {
    async fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, ParquetError> {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let before = self.files.used.scanned_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.files.scanned_bytes_max {
            let text = format!(
                "the query would read more than {} bytes of data files; filter by a partition or another column, \
                 select fewer columns, or raise the limit",
                self.files.scanned_bytes_max
            );
            return Err(external(Error::new(ErrorKind::InvalidRequest, text)));
        }
        self.files.lake.read(&self.path, ranges).await.map_err(external)
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        Box::pin(async move { Ok(self.read(&[range]).await?.pop().unwrap_or_default()) })
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        Box::pin(async move { self.read(&ranges).await })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        Box::pin(async move {
            if let Some(footer) = self.files.footers.0.get(&self.path) {
                return Ok(footer);
            }
            let (path, size) = (Arc::clone(&self.path), self.size);
            let reader = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Optional)
                .with_prefetch_hint(Some(FOOTER_GUESS));
            let footer = Arc::new(without_float_bounds(reader.load_and_finish(&mut *self, size).await?)?);
            self.files.footers.0.insert(path, Arc::clone(&footer));
            Ok(footer)
        })
    }
}
