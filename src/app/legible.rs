//! Bytes of keys and values as people read them: Avro by the registry's schema, JSON, text, else base64.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::decode::avro::mapping::{MappingOptions, TimeAs};
use crate::decode::avro::schema::{Kind, Schema, parse};
use crate::decode::layout::{Format, KeyColumns, Layout, MetadataNames, Side, Tombstones};
use crate::decode::{Decoder, Decoding, SchemaUse, Sides, wire_schema_id};
use crate::error::{Error, Result};
use crate::http::sql::json_rows;
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, RawRecord, TimestampType};
use crate::ports::{Encoding, Legible, Reading, Registry, SchemaFormat};

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
        if found.format != SchemaFormat::Avro {
            return Err(format!("schema {id} is {:?}, which cannot be read yet", found.format));
        }
        parse(&found).map(Some).map_err(|error| format!("schema {id}: {}", error.chain()))
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
            let read = match self.schema(id).await {
                Ok(None) => continue,
                Ok(Some(schema)) => {
                    let values: Vec<&[u8]> = indexes.iter().map(|index| bytes[*index].as_slice()).collect();
                    decode(id, schema, &values).map_err(|error| error.chain())
                }
                Err(note) => Err(note),
            };
            for (at, index) in indexes.into_iter().enumerate() {
                match &read {
                    Ok(values) => match &values[at] {
                        Ok(value) => {
                            readings[index] = Reading { value: value.clone(), encoding: Encoding::Avro, note: None };
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
fn decode(id: u32, schema: Schema, values: &[&[u8]]) -> Result<Vec<Result<Value, String>>> {
    let layout = Layout {
        key_format: Format::None,
        key_columns: KeyColumns::None,
        value_format: Format::Registry,
        names: MetadataNames::Kafka,
        metadata: Vec::new(),
        mapping: MappingOptions { time_as: TimeAs::String, uuid_as_string: true, keep_required: false },
        tombstones: Tombstones::Keep,
        record_bytes_max: usize::MAX,
    };
    let is_record = matches!(schema.kind, Kind::Record(_));
    let table = Arc::new(layout.table_schema(Side::Nothing, Side::Avro(&schema))?);
    let sides = Sides { key: Format::None, value: Format::Registry };
    let known = HashMap::from([(id, SchemaUse::Known(Arc::new(schema)))]);
    let decoder = Decoder::new(Arc::new(layout), table, sides, known);
    let Decoding::Done(decoded) = decoder.decode(batch(values)?, 0)? else {
        return Err(Error::bug("a decoder with its only schema needs more"));
    };
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
        let row = rows.next().unwrap_or_default();
        read.push(Ok(if is_record { row } else { row.get("value").cloned().unwrap_or_default() }));
    }
    Ok(read)
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
    use crate::ports::RegisteredSchema;

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
                3 => (SchemaFormat::Protobuf, ""),
                4 => return Err(Error::unavailable("the registry is away")),
                _ => return Ok(None),
            };
            Ok(Some(Arc::new(RegisteredSchema { id, format, text: text.to_owned(), references: Vec::new() })))
        }

        async fn latest(&self, _: &str) -> Result<Option<Arc<RegisteredSchema>>> {
            Ok(None)
        }
    }

    #[tokio::test]
    async fn bytes_are_read_as_well_as_they_can_be() {
        let framed = |id: u8, body: &[u8]| [&[0, 0, 0, 0, id][..], body].concat();
        let cases: [(Vec<u8>, Encoding, Value, &str); 10] = [
            (framed(1, &[14, 2, 4, b'h', b'i']), Encoding::Avro, json!({"n": 7, "s": "hi"}), ""),
            (framed(1, &[14]), Encoding::Base64, json!("AAAAAAEO"), "truncated"),
            (framed(1, &[2, 0]), Encoding::Avro, json!({"n": 1, "s": null}), ""),
            (framed(2, &[4, b'h', b'i']), Encoding::Avro, json!("hi"), ""),
            (framed(3, &[1]), Encoding::Base64, json!("AAAAAAMB"), "Protobuf"),
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
