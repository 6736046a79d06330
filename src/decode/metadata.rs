//! The metadata columns of the accepted records of a batch, built column by column.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::columns::Column;
use super::layout::{Metadata, MetadataNames};
use crate::error::{Error, Result};
use crate::model::raw::{RawBatch, RawRecord, TimestampType};
use crate::model::schema::UTC;

/// The column of `metadata` for `accepted`, records of `batch`, as an array of the table column's `data_type`.
///
/// # Errors
/// `Bug` where the column cannot be finished.
pub fn column(
    metadata: Metadata,
    names: MetadataNames,
    batch: &RawBatch,
    accepted: &[RawRecord],
    incarnation: i32,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let rows = accepted.len();
    let column: ArrayRef = match metadata {
        Metadata::Topic => {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(batch.source.topic.as_ref(), rows)))
        }
        Metadata::Partition => Arc::new(Int32Array::from_value(batch.source.partition, rows)),
        Metadata::Incarnation => Arc::new(Int32Array::from_value(incarnation, rows)),
        Metadata::Offset => Arc::new(Int64Array::from_iter_values(accepted.iter().map(|record| record.offset))),
        Metadata::LeaderEpoch => {
            Arc::new(accepted.iter().map(|r| (r.leader_epoch >= 0).then_some(r.leader_epoch)).collect::<Int32Array>())
        }
        Metadata::Timestamp => {
            let micros = accepted.iter().map(|record| timestamp_micros(record).unwrap_or(None));
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone(UTC))
        }
        Metadata::TimestampType => {
            Arc::new(StringArray::from_iter_values(accepted.iter().map(|record| record.timestamp_type.as_str())))
        }
        Metadata::RawKey => binary(accepted, |record| batch.key(record)),
        Metadata::RawValue => binary(accepted, |record| batch.value(record)),
        Metadata::Headers => headers(names, batch, accepted, data_type)?,
    };
    // A table that another tool made may have a wider column.
    cast(&column, data_type).map_err(|e| Error::bug(format!("make a metadata column of `{data_type}`")).with_source(e))
}

/// A record's timestamp in microseconds; `Err` where it lies outside of what they can say.
///
/// # Errors
/// The milliseconds.
pub fn timestamp_micros(record: &RawRecord) -> Result<Option<i64>, i64> {
    if record.timestamp_type == TimestampType::NotAvailable || record.timestamp_ms < 0 {
        return Ok(None);
    }
    record.timestamp_ms.checked_mul(1000).map(Some).ok_or(record.timestamp_ms)
}

fn binary<'a>(accepted: &'a [RawRecord], bytes: impl Fn(&'a RawRecord) -> Option<&'a [u8]>) -> ArrayRef {
    let mut builder = BinaryBuilder::new();
    accepted.iter().for_each(|record| builder.append_option(bytes(record)));
    Arc::new(builder.finish())
}

fn headers(names: MetadataNames, batch: &RawBatch, accepted: &[RawRecord], data_type: &DataType) -> Result<ArrayRef> {
    if accepted.iter().all(|record| record.headers_len == 0) {
        return Ok(new_null_array(data_type, accepted.len()));
    }
    let mut column = Column::new(&Metadata::Headers.kind(names));
    for record in accepted {
        if record.headers_len == 0 {
            column.push_null();
            continue;
        }
        let (Column::List(list) | Column::Map(list)) = &mut column else { continue };
        let all: Vec<_> = batch.headers(record).collect();
        for (index, (key, value)) in all.iter().enumerate() {
            // A map has each key once; the last header of a name is the one that clients look at.
            if names != MetadataNames::Kafka && all[index + 1..].iter().any(|(later, _)| later == key) {
                continue;
            }
            let Column::Struct(entry) = list.child.as_mut() else { continue };
            if let [Column::Bytes(keys), values] = entry.children.as_mut_slice() {
                keys.push(String::from_utf8_lossy(key).as_bytes());
                match (values, value) {
                    (Column::Bytes(values), Some(value)) => values.push(value),
                    (values, _) => values.push_null(),
                }
            }
            entry.close();
        }
        list.close();
    }
    column.finish(data_type)
}
