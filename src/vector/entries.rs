//! From a table's rows to the entries of its index: identity, time, text, filter columns, vector. What is stored and
//! searched is elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float32Array, Int32Array, Int64Array, StringArray,
    UInt32Array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, filter_record_batch, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::IndexSpec;
use super::chunk::pieces;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TopicPartition;
use crate::model::record::TopicOf;
use crate::model::schema::{TableSchema, Type};
use crate::model::template::{Part, Template};
use crate::ports::Embedder;

pub(super) const TOPIC: &str = "_topic";
pub(super) const PARTITION: &str = "_partition";
pub(super) const OFFSET: &str = "_offset";
pub(super) const INCARNATION: &str = "_incarnation";
/// The record's timestamp, microseconds since the epoch.
pub(super) const TIME: &str = "_time";
/// Which piece of the record's text, from 0.
pub(super) const CHUNK: &str = "_chunk";
pub(super) const TEXT: &str = "_text";
/// The first 8 bytes of the text's SHA-256.
pub(super) const HASH: &str = "_hash";
pub(super) const VECTOR: &str = "_vector";
/// Which application of rows to the index brought it.
pub(super) const BATCH: &str = "_batch";

/// What an index's entries look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// Columns of an entry as it is stored.
    pub(super) schema: SchemaRef,
    filters: Vec<(String, DataType)>,
}

impl Shape {
    /// The shape of `table`'s entries. A filter column that the table does not have yet is not in it.
    ///
    /// # Errors
    /// `InvalidConfig` where a filter column has a type that filters cannot use.
    pub(super) fn new(spec: &IndexSpec, table: &TableSchema, dimension: usize) -> Result<Self> {
        let mut filters = Vec::new();
        for name in &spec.filters {
            let Some(field) = table.field(name) else { continue };
            let kind = filter_type(&field.kind).ok_or_else(|| {
                let text = format!(
                    "filter column `{name}` of table `{}` is nested or binary; name plain columns in `index.filters`",
                    spec.table
                );
                Error::new(ErrorKind::InvalidConfig, text)
            })?;
            filters.push((name.clone(), kind));
        }
        let (item, numbers) = vector_parts(dimension);
        let mut fields = vec![
            Field::new(TOPIC, DataType::Utf8, false),
            Field::new(PARTITION, DataType::Int32, false),
            Field::new(OFFSET, DataType::Int64, false),
            Field::new(INCARNATION, DataType::Int32, false),
            Field::new(TIME, DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new(CHUNK, DataType::Int32, false),
            Field::new(TEXT, DataType::Utf8, false),
            Field::new(HASH, DataType::Int64, false),
            Field::new(VECTOR, DataType::FixedSizeList(item, numbers), true),
            Field::new(BATCH, DataType::Int64, false),
        ];
        fields.extend(filters.iter().map(|(name, kind)| Field::new(name, kind.clone(), true)));
        Ok(Self { schema: Arc::new(Schema::new(fields)), filters })
    }

    /// Columns that a search may filter by.
    pub(super) fn filters(&self) -> Vec<String> {
        let own = [TOPIC, PARTITION, OFFSET, TIME].map(str::to_owned);
        own.into_iter().chain(self.filters.iter().map(|(name, _)| name.clone())).collect()
    }
}

/// The numbers of a vector, and how many they are.
fn vector_parts(dimension: usize) -> (FieldRef, i32) {
    (Arc::new(Field::new("item", DataType::Float32, true)), i32::try_from(dimension).unwrap_or(i32::MAX))
}

/// How a filter column is kept: widened, so that no promotion of the table's column changes it.
fn filter_type(kind: &Type) -> Option<DataType> {
    match kind {
        Type::Boolean => Some(DataType::Boolean),
        Type::Int | Type::Long => Some(DataType::Int64),
        Type::Float | Type::Double | Type::Decimal(..) => Some(DataType::Float64),
        Type::Date => Some(DataType::Date32),
        Type::Timestamp | Type::TimestampTz | Type::TimestampNs | Type::TimestampTzNs => {
            Some(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        Type::String | Type::Uuid | Type::Time => Some(DataType::Utf8),
        Type::Fixed(_) | Type::Binary | Type::Struct(_) | Type::List(_) | Type::Map(..) => None,
    }
}

/// Offsets of records that need not be taken again, in order, per partition of an incarnation of its topic.
pub(super) type Covered = BTreeMap<(TopicPartition, i32), Vec<i64>>;

impl IndexSpec {
    /// `rows` but for those of records that are `covered`, and those that are of no record, as other engines may write.
    pub(super) fn rows_but(&self, rows: &RecordBatch, covered: &Covered) -> Result<RecordBatch> {
        let ids = self.columns.ids(rows)?;
        let keep = |row: usize| {
            ids.at(row).is_some_and(|(topic, partition, incarnation, offset)| {
                let is_of = |((source, of), _): &(&(TopicPartition, i32), &Vec<i64>)| {
                    *source.topic == *topic && source.partition == partition && *of == incarnation
                };
                !covered.iter().filter(is_of).any(|(_, taken)| taken.binary_search(&offset).is_ok())
            })
        };
        let keep: BooleanArray = (0..rows.num_rows()).map(|row| Some(keep(row))).collect();
        filter_record_batch(rows, &keep).map_err(|e| Error::bug("filter rows").with_source(e))
    }
}

/// One entry for each piece of text in `rows`, in their order; rows without text have none. `batch` is noted in each.
///
/// # Errors
/// `Corrupt` where `rows` lack the columns of a record's identity; the embedder's.
pub(super) fn entries(
    rows: &RecordBatch,
    spec: &IndexSpec,
    shape: &Shape,
    embedder: &dyn Embedder,
    batch: i64,
) -> Result<RecordBatch> {
    let texts = render(&spec.text, rows)?;
    let (mut of, mut chunks, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    for (row, text) in texts.iter().enumerate() {
        for (chunk, piece) in pieces(text).into_iter().enumerate() {
            of.push(u32::try_from(row).unwrap_or(u32::MAX));
            chunks.push(i32::try_from(chunk).unwrap_or(i32::MAX));
            cut.push(piece.to_owned());
        }
    }
    let vectors = embedder.embed(&cut)?;
    let of = UInt32Array::from(of);
    let broken = |e| Error::bug("make index entries").with_source(e);
    let taken = |column: &ArrayRef, kind: &DataType| take(&plain(column, kind)?, &of, None).map_err(broken);
    let required = |name: &str, kind: &DataType| {
        let column = rows.column_by_name(name);
        let column = column.ok_or_else(|| Error::corrupt(format!("rows of `{}` have no `{name}`", spec.table)))?;
        taken(column, kind)
    };
    let optional = |name: Option<&str>, kind: &DataType| match name.and_then(|name| rows.column_by_name(name)) {
        Some(column) => taken(column, kind),
        None => Ok(new_null_array(kind, of.len())),
    };
    let topic: ArrayRef = match &spec.columns.topic {
        TopicOf::One(topic) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, of.len()))),
        TopicOf::Column(name) => required(name, &DataType::Utf8)?,
    };
    let (item, dimension) = vector_parts(embedder.dimension());
    // A text of which the model knows nothing is near nothing.
    let is_known = vectors.chunks_exact(embedder.dimension().max(1)).map(|vector| vector.iter().any(|n| *n != 0.0));
    let is_known: NullBuffer = is_known.collect();
    let vectors = FixedSizeListArray::try_new(item, dimension, Arc::new(Float32Array::from(vectors)), Some(is_known));
    let mut columns: Vec<ArrayRef> = vec![
        topic,
        required(&spec.columns.partition, &DataType::Int32)?,
        required(&spec.columns.offset, &DataType::Int64)?,
        match &spec.columns.incarnation {
            // Rows from before the table had the column are of the first one.
            Some(name) => {
                let taken = required(name, &DataType::Int32)?;
                let taken = taken.as_primitive::<Int32Type>().iter().map(|incarnation| incarnation.unwrap_or(0));
                Arc::new(Int32Array::from_iter_values(taken))
            }
            None => Arc::new(Int32Array::from_value(0, of.len())),
        },
        optional(spec.time.as_deref(), &DataType::Timestamp(TimeUnit::Microsecond, None))?,
        Arc::new(Int32Array::from(chunks)),
        Arc::new(StringArray::from_iter_values(&cut)),
        Arc::new(Int64Array::from_iter_values(cut.iter().map(|text| hash(text)))),
        Arc::new(vectors.map_err(broken)?),
        Arc::new(Int64Array::from_iter_values(std::iter::repeat_n(batch, of.len()))),
    ];
    for (name, kind) in &shape.filters {
        columns.push(optional(Some(name), kind)?);
    }
    RecordBatch::try_new(Arc::clone(&shape.schema), columns).map_err(broken)
}

/// The same entries, brought by another application.
///
/// # Errors
/// `Bug` where they are no entries.
pub(super) fn of_batch(entries: &RecordBatch, batch: i64) -> Result<RecordBatch> {
    let at = entries.schema().index_of(BATCH).map_err(|e| Error::bug("find an entry's batch").with_source(e))?;
    let mut columns = entries.columns().to_vec();
    columns[at] = Arc::new(Int64Array::from_iter_values(std::iter::repeat_n(batch, entries.num_rows())));
    let made = RecordBatch::try_new(entries.schema(), columns);
    made.map_err(|e| Error::bug("make index entries").with_source(e))
}

/// A column as entries keep it.
fn plain(column: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    if let (DataType::FixedSizeBinary(16), DataType::Utf8) = (column.data_type(), kind) {
        let bytes = column.as_fixed_size_binary();
        let text = |value: Option<&[u8]>| value.and_then(|value| Uuid::from_slice(value).ok()).map(|id| id.to_string());
        return Ok(Arc::new(bytes.iter().map(text).collect::<StringArray>()));
    }
    cast(column, kind).map_err(|e| Error::bug("make an index column").with_source(e))
}

fn hash(text: &str) -> i64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

/// The text of each row; empty where no column of the template has a value.
fn render(template: &Template, rows: &RecordBatch) -> Result<Vec<String>> {
    let mut texts = vec![String::new(); rows.num_rows()];
    let mut has_value = vec![false; rows.num_rows()];
    let options = FormatOptions::default();
    for part in &template.parts {
        let path = match part {
            Part::Literal(literal) => {
                texts.iter_mut().for_each(|text| text.push_str(literal));
                continue;
            }
            Part::Column(path) => path,
        };
        let Some(column) = at(rows, path) else { continue };
        let values = ArrayFormatter::try_new(&column, &options);
        let values = values.map_err(|e| Error::bug("format a column").with_source(e))?;
        for (row, text) in texts.iter_mut().enumerate().filter(|(row, _)| column.is_valid(*row)) {
            let before = text.len();
            // A value without a text of its own, as a time beyond all calendars, is left out.
            if values.value(row).write(text).is_err() {
                text.truncate(before);
            }
            has_value[row] |= !text[before..].trim().is_empty();
        }
    }
    texts.iter_mut().zip(has_value).filter(|(_, has)| !has).for_each(|(text, _)| text.clear());
    Ok(texts)
}

/// The column at `path`; `None` where there is none.
fn at(rows: &RecordBatch, path: &[String]) -> Option<ArrayRef> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(Arc::clone(rows.column_by_name(first)?), |column, name| {
        Some(Arc::clone(column.as_struct_opt()?.column_by_name(name)?))
    })
}

/// An entry's identity.
pub(super) struct Identity<'a> {
    topics: &'a StringArray,
    partitions: &'a Int32Array,
    offsets: &'a Int64Array,
    incarnations: &'a Int32Array,
}

impl<'a> Identity<'a> {
    /// Of all `entries`.
    ///
    /// # Errors
    /// `Corrupt` where they are no entries.
    pub(super) fn of(entries: &'a RecordBatch) -> Result<Self> {
        let missing = || Error::corrupt("index entries lack a record's identity");
        let column = |name: &str| entries.column_by_name(name).ok_or_else(missing);
        Ok(Self {
            topics: column(TOPIC)?.as_string_opt().ok_or_else(missing)?,
            partitions: column(PARTITION)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?,
            offsets: column(OFFSET)?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?,
            incarnations: column(INCARNATION)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?,
        })
    }

    /// Topic, incarnation, partition and offset of one.
    pub(super) fn at(&self, row: usize) -> (&'a str, i32, i32, i64) {
        let (topic, partition) = (self.topics.value(row), self.partitions.value(row));
        (topic, self.incarnations.value(row), partition, self.offsets.value(row))
    }
}
