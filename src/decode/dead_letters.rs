//! The dead-letter table: its columns, the rows that rejected records become in it, and what those rows say.

mod read;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::columns::{Column, Struct};
use super::metadata::timestamp_micros;
use crate::error::{Error, Result};
use crate::model::decoded::{DecodedBatch, Reject};
use crate::model::ids::TopicPartition;
use crate::model::raw::RawRecord;
use crate::model::schema::{Field, TableSchema, Type};

pub use read::Letters;

/// Keys of `error_details`: what of a record's identity and metadata has no field in `source_record`.
const INCARNATION: &str = "incarnation";
const LEADER_EPOCH: &str = "leader_epoch";
/// Only of a timestamp that the column cannot hold.
const TIMESTAMP_MS: &str = "timestamp_ms";

/// The columns of a dead-letter table, the layout of Flink's error log.
#[must_use]
pub fn table_schema() -> TableSchema {
    let text = |name: &str| Field::optional(name, Type::String);
    let pair =
        |value: Type| (Box::new(Field::required("key", Type::String)), Box::new(Field::optional("value", value)));
    let (key, value) = pair(Type::String);
    let details = Type::Map(key, value);
    let header = Type::Struct(vec![Field::required("key", Type::String), Field::optional("value", Type::Binary)]);
    let source = Type::Struct(vec![
        text("topic"),
        Field::optional("partition", Type::Int),
        Field::optional("offset", Type::Long),
        Field::optional("timestamp", Type::TimestampTz),
        text("timestamp_type"),
        Field::optional("headers", Type::List(Box::new(Field::optional("element", header)))),
        Field::optional("key", Type::Binary),
        Field::optional("value", Type::Binary),
    ]);
    let fields = vec![
        Field::optional("error_timestamp", Type::TimestampTz),
        text("error_code"),
        text("error_reason"),
        text("error_message"),
        Field::optional("error_details", details),
        text("processor"),
        text("affected_type"),
        text("affected_name"),
        Field::optional("source_record", source),
    ];
    TableSchema::of(fields)
}

/// The columns that say which records the letters of a table are of, why and since when they are letters: as much of
/// `table` as [`Letters::id`], [`Letters::reason`] and [`Letters::rejected_ms`] need.
#[must_use]
pub fn heads(table: &TableSchema) -> TableSchema {
    let mut fields = table.fields.clone();
    fields.retain(|field| ["error_timestamp", "error_code", "error_details", "source_record"].contains(&&*field.name));
    for field in &mut fields {
        if let Type::Struct(source) = &mut field.kind {
            source.retain(|field| ["topic", "partition", "offset"].contains(&&*field.name));
        }
    }
    TableSchema { schema_id: table.schema_id, ..TableSchema::of(fields) }
}

/// One row per reject of `batch`, in the columns of `table` (the dead-letter table's committed schema). `now_ms` is
/// when they were rejected.
///
/// # Errors
/// `Corrupt` where `table` does not have the layout of [`table_schema`].
pub fn rows(table: &TableSchema, batch: &DecodedBatch, now_ms: i64) -> Result<RecordBatch> {
    let DecodedBatch { source, incarnation, rejects, .. } = batch;
    let mut columns: Vec<Column> = table.fields.iter().map(|field| Column::new(&field.kind)).collect();
    for reject in rejects {
        for (field, column) in table.fields.iter().zip(&mut columns) {
            match (field.name.as_str(), column) {
                ("error_timestamp", Column::Int64(column)) => column.push(now_ms.saturating_mul(1000)),
                ("error_code" | "error_reason", Column::Bytes(column)) => {
                    column.push(reject.reason.as_str().as_bytes());
                }
                ("error_message", Column::Bytes(column)) => column.push(reject.message.as_bytes()),
                ("error_details", column) => put_details(column, *incarnation, &reject.record),
                ("processor", Column::Bytes(column)) => column.push(b"frazil"),
                ("affected_type", Column::Bytes(column)) => column.push(b"topic"),
                ("affected_name", Column::Bytes(column)) => column.push(source.topic.as_bytes()),
                ("source_record", Column::Struct(record)) => source_record(record, source, reject)?,
                (_, column) => column.push_null(),
            }
        }
    }
    let arrow = table.to_arrow();
    let arrays = columns
        .into_iter()
        .zip(arrow.fields())
        .map(|(column, field)| column.finish(field.data_type()))
        .collect::<Result<Vec<ArrayRef>>>()?;
    RecordBatch::try_new(Arc::clone(&arrow), arrays)
        .map_err(|e| Error::bug("put dead letters into a batch").with_source(e))
}

fn source_record(record: &mut Struct, source: &TopicPartition, reject: &Reject) -> Result<()> {
    let [topic, partition, offset, timestamp, timestamp_type, headers, key, value] = record.children.as_mut_slice()
    else {
        return Err(Error::corrupt("write dead letters: column `source_record` does not have the expected fields"));
    };
    put_bytes(topic, Some(source.topic.as_bytes()));
    if let Column::Int32(column) = partition {
        column.push(source.partition);
    }
    match offset {
        Column::Int64(column) => column.push(reject.record.offset),
        column => column.push_null(),
    }
    match (timestamp, timestamp_micros(&reject.record)) {
        (Column::Int64(column), Ok(Some(micros))) => column.push(micros),
        (column, _) => column.push_null(),
    }
    put_bytes(timestamp_type, Some(reject.record.timestamp_type.as_str().as_bytes()));
    put_headers(headers, &reject.headers);
    put_bytes(key, reject.key.as_deref());
    put_bytes(value, reject.value.as_deref());
    record.close();
    Ok(())
}

fn put_details(column: &mut Column, incarnation: i32, record: &RawRecord) {
    let Column::Map(map) = column else { return column.push_null() };
    let leader_epoch = (record.leader_epoch >= 0).then(|| i64::from(record.leader_epoch));
    let details = [
        (INCARNATION, Some(i64::from(incarnation))),
        (LEADER_EPOCH, leader_epoch),
        (TIMESTAMP_MS, timestamp_micros(record).err()),
    ];
    for (name, value) in details {
        let (Some(value), Column::Struct(entry)) = (value, map.child.as_mut()) else { continue };
        if let [key, text] = entry.children.as_mut_slice() {
            put_bytes(key, Some(name.as_bytes()));
            put_bytes(text, Some(value.to_string().as_bytes()));
        }
        entry.close();
    }
    map.close();
}

fn put_bytes(column: &mut Column, bytes: Option<&[u8]>) {
    match (column, bytes) {
        (Column::Bytes(column), Some(bytes)) => column.push(bytes),
        (column, _) => column.push_null(),
    }
}

fn put_headers(column: &mut Column, headers: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let Column::List(list) = column else { return column.push_null() };
    for (name, bytes) in headers {
        let Column::Struct(entry) = list.child.as_mut() else { continue };
        if let [key, value] = entry.children.as_mut_slice() {
            put_bytes(key, Some(String::from_utf8_lossy(name).as_bytes()));
            put_bytes(value, bytes.as_deref());
        }
        entry.close();
    }
    list.close();
}
