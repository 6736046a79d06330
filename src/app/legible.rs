//! Bytes of keys and values as people read them: by the registry's schema, JSON, text, else base64.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::decode::evolution::Evolution;
use crate::decode::json::RESCUED;
use crate::decode::layout::{Format, Given, KeyColumns, Layout, MetadataNames, Tombstones};
use crate::decode::mapping::{MappingOptions, TimeAs};
use crate::decode::schema::{Columns, Schema};
use crate::decode::{Decoder, Decoding, MessagePath, SchemaKey, SchemaUse, Sides, wire_schema_id};
use crate::error::{Error, Result};
use crate::http::sql::json_rows;
use crate::model::decoded::DecodedBatch;
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, RawRecord, TimestampType};
use crate::model::schema::TableSchema;
use crate::ports::{Encoding, Legible, Reading, Registry};

/// Schemas looked up for one call: bytes that are no schema ids may look like many.
const SCHEMAS_MAX: usize = 32;

/// Reads bytes with the schemas of a registry.
pub(super) struct RegistryReader {
    registry: Option<Arc<dyn Registry>>,
}

impl RegistryReader {
    /// With `registry`, or without any schema.
    pub(super) fn new(registry: Option<Arc<dyn Registry>>) -> Self {
        Self { registry }
    }

    /// The schema that bytes name; the inner error is why it does not help, and the value the registry's "no such".
    async fn schema(&self, id: u32) -> Result<Option<Schema>, String> {
        let Some(registry) = &self.registry else { return Ok(None) };
        let found = registry.schema(id).await.map_err(|error| format!("schema {id}: {}", error.chain()))?;
        let Some(found) = found else { return Ok(None) };
        Schema::parse(&found).map(Some).map_err(|error| format!("schema {id}: {}", error.chain()))
    }
}

#[async_trait]
impl Legible for RegistryReader {
    async fn read(&self, bytes: Vec<Vec<u8>>) -> Vec<Reading> {
        let mut readings: Vec<Reading> = bytes.iter().map(|bytes| plain(bytes)).collect();
        let mut framed: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, bytes) in bytes.iter().enumerate() {
            if let Some(id) = wire_schema_id(bytes) {
                framed.entry(id).or_default().push(index);
            }
        }
        for (id, indexes) in framed.into_iter().take(SCHEMAS_MAX) {
            let mut encoding = Encoding::Base64;
            let read = match self.schema(id).await {
                Ok(None) => continue,
                Ok(Some(schema)) => {
                    encoding = match schema {
                        Schema::Avro(_) => Encoding::Avro,
                        Schema::Protobuf(_) => Encoding::Protobuf,
                        Schema::Json(_) => Encoding::JsonSchema,
                    };
                    let values: Vec<&[u8]> = indexes.iter().map(|index| bytes[*index].as_slice()).collect();
                    decode(id, &Arc::new(schema), &values).map_err(|error| error.chain())
                }
                Err(note) => Err(note),
            };
            for (at, index) in indexes.into_iter().enumerate() {
                match &read {
                    Ok(values) => match &values[at] {
                        Ok(value) => {
                            readings[index] = Reading { value: value.clone(), encoding, note: None };
                        }
                        Err(note) => readings[index].note = Some(note.clone()),
                    },
                    Err(note) => readings[index].note = Some(note.clone()),
                }
            }
        }
        readings
    }
}

/// Bytes read without any schema.
fn plain(bytes: &[u8]) -> Reading {
    let (value, encoding) = match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => match serde_json::from_str::<Value>(text) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => (value, Encoding::Json),
            _ => (text.into(), Encoding::Text),
        },
        _ => (STANDARD.encode(bytes).into(), Encoding::Base64),
    };
    Reading { value, encoding, note: None }
}

/// Framed values of one schema, by the decoder that fills tables; per value what it says, or why it cannot be read.
fn decode(id: u32, schema: &Arc<Schema>, values: &[&[u8]]) -> Result<Vec<Result<Value, String>>> {
    // The messages of a Protobuf file share no columns: each value is a table of its own.
    if matches!(**schema, Schema::Protobuf(_)) && values.len() > 1 {
        let alone = |value| Ok(decode(id, schema, &[value])?.pop().unwrap_or_else(|| Ok(Value::Null)));
        return values.iter().copied().map(alone).collect();
    }
    let decoded = decoded(id, schema, batch(values)?)?;
    let is_row = decoded.schema.field("value").is_none_or(|_| matches!(columns(schema), Ok(Columns::Each(_))));
    let text = json_rows(&[decoded.rows]);
    let text = text.map_err(|e| Error::invalid_record("the value has no JSON form").with_source(e))?;
    let rows: Vec<Value> = serde_json::from_slice(&text).map_err(|e| Error::bug("read JSON back").with_source(e))?;
    let mut rows = rows.into_iter();
    let mut rejects = decoded.rejects.into_iter().peekable();
    let mut read = Vec::with_capacity(values.len());
    for index in 0..values.len() {
        let here = |offset: i64| usize::try_from(offset).is_ok_and(|offset| offset == index);
        if let Some(reject) = rejects.next_if(|reject| here(reject.record.offset)) {
            read.push(Err(format!("schema {id}: {}: {}", reject.reason.as_str(), reject.message)));
            continue;
        }
        let mut row = rows.next().unwrap_or_default();
        if let Some(row) = row.as_object_mut().filter(|row| row.get(RESCUED).is_some_and(Value::is_null)) {
            row.shift_remove(RESCUED);
        }
        read.push(Ok(if is_row { row } else { row.get("value").cloned().unwrap_or_default() }));
    }
    Ok(read)
}

fn columns(schema: &Schema) -> Result<Columns> {
    schema.columns(MessagePath::FIRST, mapping())
}

fn mapping() -> MappingOptions {
    MappingOptions { time_as: TimeAs::String, uuid_as_string: true, ..MappingOptions::default() }
}

/// A batch as rows of a table that has just the columns that it needs.
fn decoded(id: u32, schema: &Arc<Schema>, mut batch: RawBatch) -> Result<DecodedBatch> {
    let layout = Arc::new(Layout {
        key_format: Format::None,
        key_columns: KeyColumns::None,
        value_format: Format::Registry,
        projection: Arc::default(),
        names: MetadataNames::Kafka,
        metadata: Vec::new(),
        mapping: mapping(),
        tombstones: Tombstones::Keep,
        record_bytes_max: usize::MAX,
        evolution: Evolution::Extend,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
    });
    let sides = Sides { key: Format::None, value: Format::Registry };
    let mut table = Arc::new(TableSchema::default());
    loop {
        let known = HashMap::from([(SchemaKey::Id(id), SchemaUse::Known(Arc::clone(schema)))]);
        batch = match Decoder::new(Arc::clone(&layout), table, sides, known).decode(batch, 0)? {
            Decoding::Done(decoded) => return Ok(decoded),
            Decoding::Misfit(_, misfit) => return Err(Error::invalid_record(misfit)),
            Decoding::Needs(batch, needs) => {
                let wanted = needs.table.ok_or_else(|| Error::bug("a decoder with its only schema needs more"))?;
                table = Arc::new(wanted);
                batch
            }
        };
    }
}

/// `values` as a batch of records, whose offsets are their indexes.
fn batch(values: &[&[u8]]) -> Result<RawBatch> {
    let large = |_| Error::invalid_record("the values are larger than a batch can be");
    let mut batch = RawBatch::new(TopicPartition::new("", 0), Attempt::default(), NextOffset(0));
    for (offset, value) in (0..).zip(values) {
        batch.records.push(RawRecord {
            offset,
            timestamp_ms: -1,
            leader_epoch: -1,
            start: u32::try_from(batch.bytes.len()).map_err(large)?,
            key_len: -1,
            value_len: i32::try_from(value.len()).map_err(large)?,
            headers_len: 0,
            timestamp_type: TimestampType::NotAvailable,
        });
        batch.bytes.extend_from_slice(value);
        batch.next = NextOffset(offset + 1);
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ports::{RegisteredSchema, SchemaFormat};

    struct Two;

    #[async_trait]
    impl Registry for Two {
        async fn schema(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>> {
            let (format, text) = match id {
                1 => (
                    SchemaFormat::Avro,
                    r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"},{"name":"s","type":["null","string"]}]}"#,
                ),
                2 => (SchemaFormat::Avro, r#""string""#),
                3 => (
                    SchemaFormat::Protobuf,
                    "syntax = \"proto3\"; message M { int32 n = 1; } message O { string s = 1; }",
                ),
                5 => (SchemaFormat::Json, r#"{"type":"object","properties":{"n":{"type":"integer"}}}"#),
                6 => (SchemaFormat::Protobuf, "no schema"),
                4 => return Err(Error::unavailable("the registry is away")),
                _ => return Ok(None),
            };
            Ok(Some(Arc::new(RegisteredSchema { id, format, text: text.to_owned(), references: Vec::new() })))
        }

        async fn schema_by_guid(&self, _: uuid::Uuid) -> Result<Option<Arc<RegisteredSchema>>> {
            Ok(None)
        }

        async fn latest(&self, _: &str) -> Result<Option<Arc<RegisteredSchema>>> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn bytes_are_read_as_well_as_they_can_be() {
        let framed = |id: u8, body: &[u8]| [&[0, 0, 0, 0, id][..], body].concat();
        let cases: [(Vec<u8>, Encoding, Value, &str); 13] = [
            (framed(1, &[14, 2, 4, b'h', b'i']), Encoding::Avro, json!({"n": 7, "s": "hi"}), ""),
            (framed(1, &[14]), Encoding::Base64, json!("AAAAAAEO"), "truncated"),
            (framed(1, &[2, 0]), Encoding::Avro, json!({"n": 1, "s": null}), ""),
            (framed(2, &[4, b'h', b'i']), Encoding::Avro, json!("hi"), ""),
            (framed(3, &[0, 8, 7]), Encoding::Protobuf, json!({"n": 7}), ""),
            (framed(3, &[2, 2, 10, 1, b'x']), Encoding::Protobuf, json!({"s": "x"}), ""),
            (framed(5, br#"{"n":1,"x":2}"#), Encoding::JsonSchema, json!({"n": 1, "_rescued": "{\"x\":2}"}), ""),
            (framed(6, &[1]), Encoding::Base64, json!("AAAAAAYB"), "Protobuf"),
            (framed(4, &[1]), Encoding::Base64, json!("AAAAAAQB"), "away"),
            (framed(9, &[1]), Encoding::Base64, json!("AAAAAAkB"), ""),
            (b"plain".to_vec(), Encoding::Text, json!("plain"), ""),
            (b"{\"a\": 1}".to_vec(), Encoding::Json, json!({"a": 1}), ""),
            (vec![0xff, 0xfe], Encoding::Base64, json!("//4="), ""),
        ];
        let reader = RegistryReader::new(Some(Arc::new(Two)));
        let readings = reader.read(cases.iter().map(|case| case.0.clone()).collect()).await;
        for ((bytes, encoding, value, note), read) in cases.iter().zip(&readings) {
            assert_eq!((&read.encoding, &read.value), (encoding, value), "{bytes:?}: {read:?}");
            assert_eq!(read.note.is_some(), !note.is_empty(), "{read:?}");
            assert!(read.note.as_deref().unwrap_or_default().contains(note), "{read:?}");
        }
    }
}
