//! Rows into Parquet bytes, parallel by column, with the statistics that Iceberg keeps of them.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::model::file::ColumnStats;
use crate::model::schema::{Field, Type};

/// Characters, or bytes, that a bound in the manifest keeps: Iceberg's `truncate(16)`.
const BOUND_LENGTH: usize = 16;
/// Values looked at to decide whether a column gets a dictionary.
const SAMPLE: usize = 1024;
/// A column gets a dictionary where at most one in that many sampled values is distinct.
const DICTIONARY_REPEATS: usize = 4;

/// A Parquet file being encoded. Bytes come out as row groups end.
pub(super) struct Encoder {
    arrow: SchemaRef,
    file: SerializedFileWriter<Sink>,
    factory: ArrowRowGroupWriterFactory,
    sink: Sink,
    /// Encoded bytes of the open row group at which it is closed: what one open file keeps in memory.
    row_group_bytes: usize,
    columns: Vec<ArrowColumnWriter>,
    row_groups: usize,
    rows: u64,
}

/// Encoded bytes that nobody has taken yet.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file's footer, as far as manifests need it.
pub(super) struct Footer {
    pub(super) bytes: Bytes,
    pub(super) rows: u64,
    pub(super) split_offsets: Vec<i64>,
    pub(super) columns: BTreeMap<i32, ColumnStats>,
}

impl Encoder {
    /// An encoder for rows like `sample`, which decides about dictionaries.
    pub(super) fn new(sample: &RecordBatch, compression: Compression, row_group_bytes: usize) -> Result<Self> {
        let arrow = sample.schema();
        let broken = |e: ParquetError| Error::bug("begin Parquet file").with_source(e);
        let descriptor = ArrowSchemaConverter::new().schema_root("table").convert(&arrow).map_err(broken)?;
        let mut properties = WriterProperties::builder()
            .set_compression(compression)
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_statistics_truncate_length(Some(64))
            .set_max_row_group_row_count(None)
            .set_created_by(concat!("frazil version ", env!("CARGO_PKG_VERSION")).to_owned());
        for (column, field) in sample.columns().iter().zip(arrow.fields()) {
            if !repeats(column) {
                properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().clone()), false);
            }
        }
        let sink = Sink::default();
        let root = descriptor.root_schema_ptr();
        let file = SerializedFileWriter::new(sink.clone(), root, Arc::new(properties.build())).map_err(broken)?;
        let factory = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&arrow));
        Ok(Self { arrow, file, factory, sink, row_group_bytes, columns: Vec::new(), row_groups: 0, rows: 0 })
    }

    /// Encodes rows; side by side for each top-level column where `parallel`.
    pub(super) fn write(&mut self, rows: &RecordBatch, parallel: bool) -> Result<()> {
        let broken = |e: ParquetError| Error::bug("encode rows").with_source(e);
        if self.columns.is_empty() {
            self.columns = self.factory.create_column_writers(self.row_groups).map_err(broken)?;
            self.row_groups += 1;
        }
        let mut writers = self.columns.as_mut_slice();
        let mut work = Vec::with_capacity(rows.num_columns());
        for (field, column) in self.arrow.fields().iter().zip(rows.columns()) {
            let leaves = compute_leaves(field, column).map_err(broken)?;
            let (own, rest) = writers.split_at_mut(leaves.len());
            writers = rest;
            work.push((leaves, own));
        }
        let encode = |(leaves, writers): (Vec<_>, &mut [ArrowColumnWriter])| {
            leaves.iter().zip(writers).try_for_each(|(leaf, writer)| writer.write(leaf))
        };
        if parallel {
            work.into_par_iter().try_for_each(encode).map_err(broken)?;
        } else {
            work.into_iter().try_for_each(encode).map_err(broken)?;
        }
        self.rows += rows.num_rows() as u64;
        if self.open_bytes() >= self.row_group_bytes {
            self.close_row_group(parallel)?;
        }
        Ok(())
    }

    /// Bytes of the open row group, estimated.
    pub(super) fn open_bytes(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.ready() + self.columns.iter().map(ArrowColumnWriter::memory_size).sum::<usize>()
    }

    /// Bytes that are ready to be taken.
    pub(super) fn ready(&self) -> usize {
        self.sink.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The bytes that are ready.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut *self.sink.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }

    fn close_row_group(&mut self, parallel: bool) -> Result<()> {
        let broken = |e: ParquetError| Error::bug("close row group").with_source(e);
        let columns = std::mem::take(&mut self.columns);
        if columns.is_empty() {
            return Ok(());
        }
        let chunks: Vec<ArrowColumnChunk> = if parallel {
            columns.into_par_iter().map(ArrowColumnWriter::close).collect::<Result<_, _>>().map_err(broken)?
        } else {
            columns.into_iter().map(ArrowColumnWriter::close).collect::<Result<_, _>>().map_err(broken)?
        };
        let mut group = self.file.next_row_group().map_err(broken)?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group).map_err(broken)?;
        }
        group.close().map_err(broken)?;
        Ok(())
    }

    /// Ends the file.
    pub(super) fn finish(mut self, fields: &[Field], parallel: bool) -> Result<Footer> {
        self.close_row_group(parallel)?;
        let metadata = self.file.finish().map_err(|e| Error::bug("end Parquet file").with_source(e))?;
        let split_offsets =
            metadata.row_groups().iter().filter_map(parquet::file::metadata::RowGroupMetaData::file_offset).collect();
        let columns = column_stats(&metadata, fields);
        Ok(Footer { bytes: self.take(), rows: self.rows, split_offsets, columns })
    }
}

/// True where a sample of the column has each value several times. Nested columns keep their dictionaries: a
/// column writer that gains nothing from one gives it up by itself.
fn repeats(column: &ArrayRef) -> bool {
    let len = column.len().min(SAMPLE);
    let sample = column.slice(0, len);
    let state = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let mut seen = HashSet::with_capacity(len);
    match sample.data_type() {
        DataType::Utf8 => seen.extend(sample.as_string::<i32>().iter().flatten().map(|text| state.hash_one(text))),
        DataType::Binary => seen.extend(sample.as_binary::<i32>().iter().flatten().map(|bytes| state.hash_one(bytes))),
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) | DataType::Boolean => return true,
        _ => {
            let data = sample.to_data();
            let Some(width) = data.data_type().primitive_width().or(match data.data_type() {
                DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
                _ => None,
            }) else {
                return true;
            };
            let bytes = &data.buffers()[0].as_slice()[data.offset() * width..];
            seen.extend(bytes.chunks_exact(width.max(1)).take(len).map(|value| state.hash_one(value)));
        }
    }
    seen.len() * DICTIONARY_REPEATS <= len
}

/// Per leaf field id the statistics of all row groups together.
fn column_stats(metadata: &ParquetMetaData, fields: &[Field]) -> BTreeMap<i32, ColumnStats> {
    let mut kinds = BTreeMap::new();
    leaf_kinds(fields, &mut kinds);
    let mut all: BTreeMap<i32, ColumnStats> = BTreeMap::new();
    let mut unbounded = HashSet::new();
    for chunk in metadata.row_groups().iter().flat_map(parquet::file::metadata::RowGroupMetaData::columns) {
        let info = chunk.column_descr().self_type().get_basic_info();
        if !info.has_id() {
            continue;
        }
        let id = info.id();
        // What is no column of the table, as the ids of its rows, has no place in manifests.
        let Some(kind) = kinds.get(&id) else { continue };
        let stats = all.entry(id).or_default();
        stats.size_bytes += u64::try_from(chunk.compressed_size()).unwrap_or(0);
        stats.values += u64::try_from(chunk.num_values()).unwrap_or(0);
        let chunk_stats = chunk.statistics();
        stats.nulls += chunk_stats.and_then(Statistics::null_count_opt).unwrap_or(0);
        let all_null = chunk_stats.is_some_and(|s| s.null_count_opt() == u64::try_from(chunk.num_values()).ok());
        if chunk.column_descr().max_rep_level() > 0 {
            continue;
        }
        match bounds(chunk, kind) {
            Some((lower, upper)) => {
                merge_bound(&mut stats.lower, lower, |a, b| less(kind, b, a));
                merge_bound(&mut stats.upper, upper, |a, b| less(kind, a, b));
            }
            None if all_null => {}
            None => drop(unbounded.insert(id)),
        }
    }
    for (id, stats) in &mut all {
        if unbounded.contains(id) {
            (stats.lower, stats.upper) = (None, None);
            continue;
        }
        let cut = kinds.get(id).map(|kind| (cut_lower(kind, stats.lower.take()), cut_upper(kind, stats.upper.take())));
        (stats.lower, stats.upper) = cut.unwrap_or_default();
    }
    all
}

fn leaf_kinds<'a>(fields: &'a [Field], kinds: &mut BTreeMap<i32, &'a Type>) {
    for field in fields {
        match &field.kind {
            Type::Struct(inner) => leaf_kinds(inner, kinds),
            Type::List(element) => leaf_kinds(std::slice::from_ref(element), kinds),
            Type::Map(key, value) => {
                leaf_kinds(std::slice::from_ref(key), kinds);
                leaf_kinds(std::slice::from_ref(value), kinds);
            }
            kind => drop(kinds.insert(field.id, kind)),
        }
    }
}

fn merge_bound(held: &mut Option<Vec<u8>>, new: Vec<u8>, replaces: impl Fn(&[u8], &[u8]) -> bool) {
    if held.as_ref().is_none_or(|held| replaces(held, &new)) {
        *held = Some(new);
    }
}

/// A chunk's least and greatest value in Iceberg's single-value form, not cut yet.
fn bounds(chunk: &ColumnChunkMetaData, kind: &Type) -> Option<(Vec<u8>, Vec<u8>)> {
    let statistics = chunk.statistics()?;
    let (min, max) = (statistics.min_bytes_opt()?, statistics.max_bytes_opt()?);
    if let Type::Decimal(..) = kind {
        let little = matches!(chunk.column_type(), PhysicalType::INT32 | PhysicalType::INT64);
        let decimal = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if little {
                bytes.reverse();
            }
            minimal(bytes)
        };
        return Some((decimal(min), decimal(max)));
    }
    Some((min.to_vec(), max.to_vec()))
}

/// Two's complement, big endian, without bytes that only repeat the sign.
pub(super) fn minimal(bytes: Vec<u8>) -> Vec<u8> {
    let spare = bytes
        .windows(2)
        .take_while(|pair| (pair[0] == 0 && pair[1] & 0x80 == 0) || (pair[0] == 0xff && pair[1] & 0x80 != 0));
    let spare = spare.count();
    bytes[spare..].to_vec()
}

/// The order of two values in single-value form.
fn less(kind: &Type, a: &[u8], b: &[u8]) -> bool {
    fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap_or([0; N])
    }
    match kind {
        Type::Boolean => a < b,
        Type::Int | Type::Date => i32::from_le_bytes(number(a)) < i32::from_le_bytes(number(b)),
        Type::Long | Type::Time | Type::Timestamp | Type::TimestampTz | Type::TimestampNs | Type::TimestampTzNs => {
            i64::from_le_bytes(number(a)) < i64::from_le_bytes(number(b))
        }
        Type::Float => f32::from_le_bytes(number(a)) < f32::from_le_bytes(number(b)),
        Type::Double => f64::from_le_bytes(number(a)) < f64::from_le_bytes(number(b)),
        Type::Decimal(..) => wide(a) < wide(b),
        _ => a < b,
    }
}

fn wide(bytes: &[u8]) -> i128 {
    let fill = if bytes.first().is_some_and(|first| first & 0x80 != 0) { 0xff } else { 0 };
    let mut all = [fill; 16];
    all[16 - bytes.len().min(16)..].copy_from_slice(&bytes[bytes.len().saturating_sub(16)..]);
    i128::from_be_bytes(all)
}

fn cut_lower(kind: &Type, bound: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut bound = bound?;
    match kind {
        Type::String => bound.truncate(char_end(&bound)?),
        Type::Binary => bound.truncate(BOUND_LENGTH),
        _ => {}
    }
    Some(bound)
}

/// Cut and rounded up; `None` where nothing greater of that length exists.
fn cut_upper(kind: &Type, bound: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let bound = bound?;
    match kind {
        Type::String => {
            let end = char_end(&bound)?;
            if end == bound.len() {
                return Some(bound);
            }
            let mut chars: Vec<char> = std::str::from_utf8(&bound[..end]).ok()?.chars().collect();
            while let Some(last) = chars.pop() {
                let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
                if let Some(next) = next {
                    chars.push(next);
                    return Some(chars.into_iter().collect::<String>().into_bytes());
                }
            }
            None
        }
        Type::Binary if bound.len() > BOUND_LENGTH => {
            let mut cut = bound[..BOUND_LENGTH].to_vec();
            while let Some(last) = cut.pop() {
                if last < 0xff {
                    cut.push(last + 1);
                    return Some(cut);
                }
            }
            None
        }
        _ => Some(bound),
    }
}

/// Where the first [`BOUND_LENGTH`] characters end; Parquet itself may have cut the text within a character.
fn char_end(bytes: &[u8]) -> Option<usize> {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?,
    };
    Some(valid.char_indices().nth(BOUND_LENGTH).map_or(valid.len(), |(at, _)| at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_cut_to_what_still_bounds() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(cut_lower(&Type::String, text("abcdefghijklmnopq")), text("abcdefghijklmnop"));
        assert_eq!(cut_upper(&Type::String, text("abcdefghijklmnopq")), text("abcdefghijklmnoq"));
        assert_eq!(cut_upper(&Type::String, text("short")), text("short"));
        assert_eq!(cut_upper(&Type::String, text(&"\u{10FFFF}".repeat(17))), None);
        assert_eq!(
            cut_upper(&Type::String, text(&"\u{D7FF}".repeat(17))),
            text(&format!("{}\u{E000}", "\u{D7FF}".repeat(15)))
        );
        assert_eq!(cut_upper(&Type::Binary, Some(vec![0xff; 17])), None);
        assert_eq!(minimal(vec![0, 0, 0x7f]), vec![0x7f]);
        assert_eq!(minimal(vec![0xff, 0xff, 0x80]), vec![0x80]);
        assert_eq!(minimal(vec![0, 0x80]), vec![0, 0x80]);
        assert!(less(&Type::Decimal(38, 0), &[0x80], &[0x7f]));
    }
}
