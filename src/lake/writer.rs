//! Rows into data files: by partition value, sorted where asked, with a bounded number of files open at once.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use iceberg::spec::{Datum, Literal, PartitionSpec, PrimitiveType, SchemaRef, Struct, TableMetadata, Type};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use uuid::Uuid;

use super::derived::Derived;
use super::encode::Encoder;
use super::schema::to_iceberg_schema;
use super::storage::{Stores, Upload, from_iceberg};
use crate::error::{Error, Result};
use crate::model::file::WrittenFile;
use crate::model::ids::CommitId;
use crate::model::schema::{Field, TableSchema, Type as ColumnType};
use crate::ports::FileWriter;
use crate::runtime::compute::Compute;

/// Files open at once; beyond it the one that has waited longest is completed.
const OPEN_FILES_MAX: usize = 16;
/// Encoded bytes that are handed to the upload at once.
const HAND_OVER_BYTES: usize = 1 << 20;

/// What a writer is made of.
pub(super) struct WriterOptions {
    pub(super) schema: Arc<TableSchema>,
    pub(super) commit: CommitId,
    /// The writer's own: a commit has several writers where rows of several schemas meet in it.
    pub(super) id: Uuid,
    pub(super) stores: Stores,
    pub(super) compute: Compute,
    /// What the writer may keep in memory: a third is one file's open row group, half is all open files, a quarter is
    /// rows of a partitioned or sorted table that are gathered to be split and sorted together.
    pub(super) memory_bytes: usize,
}

/// Writes one table's rows; see [`FileWriter`].
pub(super) struct TableWriter {
    options: WriterOptions,
    layout: Arc<Layout>,
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    open: HashMap<Vec<u8>, OpenFile>,
    complete: Vec<WrittenFile>,
    files: u32,
    writes: u64,
}

/// Where and how a table's files are written.
pub(super) struct Layout {
    location: String,
    spec: PartitionSpec,
    iceberg: SchemaRef,
    /// Per partition field: what its values are made of, and their type.
    partition: Vec<(Derived, PrimitiveType)>,
    sort: Vec<(Derived, arrow::compute::SortOptions)>,
    sort_order_id: Option<i32>,
    compression: Compression,
}

struct OpenFile {
    encoder: Encoder,
    upload: Option<Upload>,
    path: String,
    partition: Vec<Option<Vec<u8>>>,
    last_write: u64,
}

impl TableWriter {
    /// A writer for rows in `options.schema`, by the table's default spec and sort order.
    pub(super) fn new(metadata: &TableMetadata, options: WriterOptions) -> Result<Self> {
        let layout = Arc::new(Layout::new(metadata, &options.schema)?);
        Ok(Self {
            options,
            layout,
            gathered: Vec::new(),
            gathered_bytes: 0,
            open: HashMap::new(),
            complete: Vec::new(),
            files: 0,
            writes: 0,
        })
    }

    /// Splits and sorts what was gathered, and encodes each partition value's rows.
    async fn flush(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let gathered = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let layout = Arc::clone(&self.layout);
        let pieces = self.options.compute.run(move || layout.split(&gathered)).await??;
        for piece in pieces {
            self.encode(piece.key, piece.partition, piece.rows).await?;
            // A sorted file is one sorted run; the next run gets files of its own.
            if self.layout.sort_order_id.is_some() {
                self.complete_all().await?;
            } else {
                self.bound_open().await?;
            }
        }
        Ok(())
    }

    async fn encode(&mut self, key: Vec<u8>, partition: Vec<Option<Vec<u8>>>, rows: RecordBatch) -> Result<()> {
        self.writes += 1;
        let mut file = match self.open.remove(&key) {
            Some(file) => file,
            None => self.begin(partition, &rows)?,
        };
        file.last_write = self.writes;
        let parallel = self.options.compute.threads() > 1;
        let (mut file, result) = self
            .options
            .compute
            .run(move || {
                let result = file.encoder.write(&rows, parallel);
                (file, result)
            })
            .await?;
        result?;
        if file.encoder.ready() >= HAND_OVER_BYTES {
            let bytes = file.encoder.take();
            hand_over(&self.options.stores, &mut file, bytes).await?;
        }
        self.open.insert(key, file);
        Ok(())
    }

    fn begin(&mut self, partition: Vec<Option<Vec<u8>>>, sample: &RecordBatch) -> Result<OpenFile> {
        let folder = self.layout.folder(&partition)?;
        let Self { layout, options, .. } = self;
        let path = format!(
            "{}/data/{folder}{}-{}-{}.parquet",
            layout.location,
            options.commit,
            options.id.simple(),
            self.files
        );
        self.files += 1;
        let encoder = Encoder::new(sample, self.layout.compression, self.options.memory_bytes / 3)?;
        Ok(OpenFile { encoder, upload: None, path, partition, last_write: 0 })
    }

    async fn bound_open(&mut self) -> Result<()> {
        while self.open.len() > OPEN_FILES_MAX {
            let oldest = self.open.iter().min_by_key(|(_, file)| file.last_write).map(|(key, _)| key.clone());
            self.complete_one(oldest).await?;
        }
        while self.open.len() > 1
            && self.open.values().map(|file| file.encoder.memory_bytes()).sum::<usize>() > self.options.memory_bytes / 2
        {
            let largest =
                self.open.iter().max_by_key(|(_, file)| file.encoder.memory_bytes()).map(|(key, _)| key.clone());
            self.complete_one(largest).await?;
        }
        Ok(())
    }

    async fn complete_all(&mut self) -> Result<()> {
        let mut keys: Vec<Vec<u8>> = self.open.keys().cloned().collect();
        keys.sort();
        for key in keys {
            self.complete_one(Some(key)).await?;
        }
        Ok(())
    }

    async fn complete_one(&mut self, key: Option<Vec<u8>>) -> Result<()> {
        let Some(mut file) = key.and_then(|key| self.open.remove(&key)) else { return Ok(()) };
        let parallel = self.options.compute.threads() > 1;
        let schema = Arc::clone(&self.options.schema);
        let (footer, upload) = self
            .options
            .compute
            .run(move || {
                let upload = file.upload.take();
                (file.encoder.finish(&schema.fields, parallel), (upload, file.path, file.partition))
            })
            .await?;
        let (footer, (upload, path, partition)) = (footer?, upload);
        let mut upload = match upload {
            Some(upload) => upload,
            None => self.options.stores.upload(&path).await?,
        };
        upload.write(footer.bytes).await?;
        let size_bytes = upload.finish().await?;
        self.complete.push(WrittenFile {
            path,
            size_bytes,
            rows: footer.rows,
            spec_id: self.layout.spec.spec_id(),
            partition,
            sort_order_id: self.layout.sort_order_id,
            split_offsets: footer.split_offsets,
            columns: footer.columns,
        });
        Ok(())
    }
}

async fn hand_over(stores: &Stores, file: &mut OpenFile, bytes: bytes::Bytes) -> Result<()> {
    let upload = match &mut file.upload {
        Some(upload) => upload,
        upload => upload.insert(stores.upload(&file.path).await?),
    };
    upload.write(bytes).await
}

#[async_trait]
impl FileWriter for TableWriter {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        if self.layout.partition.is_empty() && self.layout.sort.is_empty() {
            return self.encode(Vec::new(), Vec::new(), rows).await;
        }
        self.gathered_bytes += rows.get_array_memory_size();
        self.gathered.push(rows);
        if self.gathered_bytes >= self.options.memory_bytes / 4 { self.flush().await } else { Ok(()) }
    }

    async fn finish(mut self: Box<Self>) -> Result<Vec<WrittenFile>> {
        self.flush().await?;
        self.complete_all().await?;
        Ok(std::mem::take(&mut self.complete))
    }

    fn file_bytes(&self) -> u64 {
        let complete: u64 = self.complete.iter().map(|file| file.size_bytes).sum();
        let open = self.open.values().map(|file| {
            let handed = file.upload.as_ref().map_or(0, Upload::written);
            handed + file.encoder.memory_bytes() as u64
        });
        complete + open.sum::<u64>()
    }
}

/// Rows of one partition value.
struct Piece {
    key: Vec<u8>,
    partition: Vec<Option<Vec<u8>>>,
    rows: RecordBatch,
}

impl Layout {
    /// How files of rows in `schema` are written.
    ///
    /// # Errors
    /// `Corrupt` where they cannot be: the text says what the table asks for.
    pub(super) fn new(metadata: &TableMetadata, schema: &TableSchema) -> Result<Self> {
        if let Some(field) = schema.fields.iter().find(|field| has_default_within(&field.kind)) {
            let text = format!("column `{}` has a default to be written inside, which frazil cannot do", field.name);
            return Err(Error::corrupt(text));
        }
        let iceberg = Arc::new(to_iceberg_schema(schema)?);
        let spec = metadata.default_partition_spec().as_ref().clone();
        let kinds = spec.partition_type(&iceberg).map_err(|e| from_iceberg("read partition spec", e))?;
        let mut partition = Vec::new();
        for (field, kind) in spec.fields().iter().zip(kinds.fields()) {
            let Type::Primitive(kind) = kind.field_type.as_ref() else { continue };
            partition.push((Derived::new(schema, field.source_id, field.transform)?, kind.clone()));
        }
        let order = metadata.default_sort_order();
        let mut sort = Vec::new();
        for field in &order.fields {
            let descending = field.direction == iceberg::spec::SortDirection::Descending;
            let nulls_first = field.null_order == iceberg::spec::NullOrder::First;
            let by = Derived::new(schema, field.source_id, field.transform)?;
            sort.push((by, arrow::compute::SortOptions { descending, nulls_first }));
        }
        let sort_order_id = (!sort.is_empty()).then(|| i32::try_from(order.order_id).ok()).flatten();
        let compression = compression(metadata.properties())?;
        let location = metadata.location().trim_end_matches('/').to_owned();
        Ok(Self { location, spec, iceberg, partition, sort, sort_order_id, compression })
    }

    /// The folder of a partition value below `data/`, with a slash at its end; empty without partitions.
    fn folder(&self, partition: &[Option<Vec<u8>>]) -> Result<String> {
        if partition.is_empty() {
            return Ok(String::new());
        }
        let mut values = Vec::with_capacity(partition.len());
        for (value, (_, kind)) in partition.iter().zip(&self.partition) {
            values.push(match value {
                None => None,
                Some(bytes) => {
                    let datum = Datum::try_from_bytes(bytes, kind.clone())
                        .map_err(|e| from_iceberg("read partition value", e))?;
                    Some(Literal::Primitive(datum.literal().clone()))
                }
            });
        }
        let data: Struct = values.into_iter().collect();
        Ok(format!("{}/", self.spec.partition_to_path(&data, Arc::clone(&self.iceberg))))
    }

    /// The rows of `gathered` by partition value, each value's rows in sort order.
    fn split(&self, gathered: &[RecordBatch]) -> Result<Vec<Piece>> {
        let broken = |e: arrow::error::ArrowError| Error::bug("split rows by partition").with_source(e);
        let Some(first) = gathered.first() else { return Ok(Vec::new()) };
        let rows = concat_batches(&first.schema(), gathered).map_err(broken)?;
        let values = self.partition.iter().map(|(by, _)| by.values(&rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let keys = if values.is_empty() {
            None
        } else {
            let fields = values.iter().map(|array| SortField::new(array.data_type().clone())).collect();
            Some(RowConverter::new(fields).map_err(broken)?.convert_columns(&values).map_err(broken)?)
        };
        let sort_columns = self.sort.iter().map(|(by, _)| by.values(&rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let sort_rows = if self.sort.is_empty() {
            None
        } else {
            let field = |(column, (_, options)): (&ArrayRef, &(Derived, arrow::compute::SortOptions))| {
                SortField::new_with_options(column.data_type().clone(), *options)
            };
            let fields = sort_columns.iter().zip(&self.sort).map(field).collect();
            Some(RowConverter::new(fields).map_err(broken)?.convert_columns(&sort_columns).map_err(broken)?)
        };
        let count = u32::try_from(rows.num_rows()).map_err(|e| Error::bug("split too many rows").with_source(e))?;
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by(|a, b| {
            let (a, b) = (*a as usize, *b as usize);
            let by_key = keys.as_ref().map_or(std::cmp::Ordering::Equal, |keys| keys.row(a).cmp(&keys.row(b)));
            by_key.then_with(|| {
                sort_rows.as_ref().map_or(std::cmp::Ordering::Equal, |rows| rows.row(a).cmp(&rows.row(b)))
            })
        });
        let sorted = take_record_batch(&rows, &UInt32Array::from(order.clone())).map_err(broken)?;
        let Some(keys) = keys else {
            return Ok(vec![Piece { key: Vec::new(), partition: Vec::new(), rows: sorted }]);
        };
        let mut pieces = Vec::new();
        let mut start = 0;
        for end in 1..=order.len() {
            let here = order[start] as usize;
            if end < order.len() && keys.row(order[end] as usize) == keys.row(here) {
                continue;
            }
            let partition =
                values.iter().zip(&self.partition).map(|(array, (_, kind))| single_value(array, here, kind));
            let partition = partition.collect::<Result<Vec<_>>>()?;
            pieces.push(Piece {
                key: keys.row(here).data().to_vec(),
                partition,
                rows: sorted.slice(start, end - start),
            });
            start = end;
        }
        Ok(pieces)
    }
}

/// True for a type with a field inside that is to be filled with a default.
fn has_default_within(kind: &ColumnType) -> bool {
    let has = |field: &Field| field.marks.write_default.is_some() || has_default_within(&field.kind);
    match kind {
        ColumnType::Struct(fields) => fields.iter().any(has),
        ColumnType::List(element) => has(element),
        ColumnType::Map(key, value) => has(key) || has(value),
        _ => false,
    }
}

/// One value of an array in Iceberg's single-value binary form.
fn single_value(array: &ArrayRef, row: usize, kind: &PrimitiveType) -> Result<Option<Vec<u8>>> {
    use arrow::array::AsArray;
    use arrow::datatypes as t;
    if array.is_null(row) {
        return Ok(None);
    }
    let bytes = match array.data_type() {
        t::DataType::Boolean => vec![u8::from(array.as_boolean().value(row))],
        t::DataType::Int32 => array.as_primitive::<t::Int32Type>().value(row).to_le_bytes().to_vec(),
        t::DataType::Date32 => array.as_primitive::<t::Date32Type>().value(row).to_le_bytes().to_vec(),
        t::DataType::Int64 => array.as_primitive::<t::Int64Type>().value(row).to_le_bytes().to_vec(),
        t::DataType::Time64(_) => array.as_primitive::<t::Time64MicrosecondType>().value(row).to_le_bytes().to_vec(),
        t::DataType::Timestamp(t::TimeUnit::Nanosecond, _) => {
            array.as_primitive::<t::TimestampNanosecondType>().value(row).to_le_bytes().to_vec()
        }
        t::DataType::Timestamp(..) => {
            array.as_primitive::<t::TimestampMicrosecondType>().value(row).to_le_bytes().to_vec()
        }
        t::DataType::Float32 => array.as_primitive::<t::Float32Type>().value(row).to_le_bytes().to_vec(),
        t::DataType::Float64 => array.as_primitive::<t::Float64Type>().value(row).to_le_bytes().to_vec(),
        t::DataType::Decimal128(..) => {
            let bytes = array.as_primitive::<t::Decimal128Type>().value(row).to_be_bytes();
            super::encode::minimal(bytes.to_vec())
        }
        t::DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes().to_vec(),
        t::DataType::Binary => array.as_binary::<i32>().value(row).to_vec(),
        t::DataType::LargeBinary => array.as_binary::<i64>().value(row).to_vec(),
        t::DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row).to_vec(),
        other => return Err(Error::corrupt(format!("a partition value of {kind} came as `{other}`"))),
    };
    Ok(Some(bytes))
}

/// The compression that the table's properties name.
pub(super) fn compression(properties: &HashMap<String, String>) -> Result<Compression> {
    let wrong = |what: &str| {
        Error::corrupt(format!("property `write.parquet.compression-{what}` has a value that is not known"))
    };
    let level = properties.get("write.parquet.compression-level").map(|text| text.parse::<u32>());
    let level = level.transpose().map_err(|_| wrong("level"))?;
    let of = |level: Option<u32>, usual: u32| level.unwrap_or(usual);
    let codec = properties.get("write.parquet.compression-codec").map_or("zstd".to_owned(), |text| text.to_lowercase());
    let codec = match codec.as_str() {
        "zstd" => ZstdLevel::try_new(of(level, 1).cast_signed()).map(Compression::ZSTD),
        "gzip" => GzipLevel::try_new(of(level, 6)).map(Compression::GZIP),
        "brotli" => BrotliLevel::try_new(of(level, 1)).map(Compression::BROTLI),
        "lz4" => Ok(Compression::LZ4_RAW),
        "snappy" => Ok(Compression::SNAPPY),
        "none" | "uncompressed" => Ok(Compression::UNCOMPRESSED),
        _ => return Err(wrong("codec")),
    };
    codec.map_err(|_| wrong("level"))
}
