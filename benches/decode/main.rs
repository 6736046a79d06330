//! Measures decoding alone, on one thread: records in the wire format of each language into Arrow columns, the same
//! orders in all of them. CPU time, best of several rounds; needs no service and no adapter.
//!
//! `cargo bench --no-default-features --bench decode`
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints and may fail loudly")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the machine's own clock")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(clippy::unchecked_time_subtraction, reason = "times go forward")]
#![allow(unreachable_pub, dead_code, reason = "a bench, over a part of another's measuring")]

#[path = "../ingest/measure.rs"]
mod measure;

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::types::Value as Avro;
use frazil::decode::evolution::Evolution;
use frazil::decode::layout::{Format, Given, KeyColumns, Layout, Metadata, MetadataNames, Tombstones};
use frazil::decode::mapping::MappingOptions;
use frazil::decode::schema::{Columns, Schema};
use frazil::decode::{Decoder, Decoding, MessagePath, SchemaKey, SchemaUse, Sides};
use frazil::model::ids::{Attempt, TopicPartition};
use frazil::model::offsets::NextOffset;
use frazil::model::raw::{RawBatch, RawRecord, TimestampType};
use frazil::ports::{RegisteredSchema, SchemaFormat};
use measure::own_cpu;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};

/// Records of a batch, and rounds of which the best counts.
const RECORDS: usize = 50_000;
const ROUNDS: usize = 15;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    println!("{:<22} {:>8} {:>12} {:>10}", "format, shape", "bytes", "M records/s", "MB/s");
    for (shape, make) in [("flat", flat as fn(i64) -> Value), ("nested", nested)] {
        let orders: Vec<Value> = (0..).take(RECORDS).map(make).collect();
        let is_nested = shape == "nested";
        measure("avro", shape, SchemaFormat::Avro, &avro_schema(is_nested), &avro(is_nested, &orders));
        measure("protobuf", shape, SchemaFormat::Protobuf, PROTOBUF, &protobuf(is_nested, &orders));
        let texts: Vec<Vec<u8>> = orders.iter().map(|order| framed(&[], order.to_string().as_bytes())).collect();
        measure("json schema", shape, SchemaFormat::Json, &json_schema(&orders[0]).to_string(), &texts);
    }
}

/// An order of twelve fields.
fn flat(n: i64) -> Value {
    json!({
        "order_id": 100_000_000 + n, "customer_id": format!("C{:07}", n % 100_000), "status": one_of(&["new", "paid", "sent"], n),
        "amount": n as f64 * 0.37, "quantity": n % 17, "gift": n % 5 == 0, "placed_at": 1_767_225_600_000_i64 + n,
        "country": one_of(&["DE", "FR", "US", "JP"], n), "note": format!("please ring twice at door {}", n % 900),
        "discount": (n % 30) as f64 / 100.0, "warehouse": n % 40, "email": format!("customer{}@example.com", n % 100_000),
    })
}

/// The same with two structs inside each other and a list of structs.
fn nested(n: i64) -> Value {
    let mut order = flat(n);
    let line =
        |m: i64| json!({"sku": format!("SKU-{:05}", (n + m) % 50_000), "price": m as f64 + 0.99, "pieces": m + 1});
    order["address"] = json!({"street": format!("Main Street {}", n % 300), "place": {"city": "Springfield", "zip": 10_000 + n % 80_000}});
    order["lines"] = (0..=n % 4).map(line).collect();
    order
}

fn one_of<'a>(words: &[&'a str], n: i64) -> &'a str {
    words[usize::try_from(n).unwrap() % words.len()]
}

fn framed(indexes: &[u8], body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, 1], indexes, body].concat()
}

const FIELDS: [(&str, &str); 12] = [
    ("order_id", "long"),
    ("customer_id", "string"),
    ("status", "string"),
    ("amount", "double"),
    ("quantity", "int"),
    ("gift", "boolean"),
    ("placed_at", "long"),
    ("country", "string"),
    ("note", "string"),
    ("discount", "double"),
    ("warehouse", "int"),
    ("email", "string"),
];

fn avro_schema(is_nested: bool) -> String {
    let field = |(name, kind): &(&str, &str)| json!({"name": name, "type": kind});
    let mut fields: Vec<Value> = FIELDS.iter().map(field).collect();
    fields[6]["type"] = json!({"type": "long", "logicalType": "timestamp-millis"});
    let record = |name: &str, fields: Value| json!({"type": "record", "name": name, "fields": fields});
    if is_nested {
        let place = record("Place", json!([{"name": "city", "type": "string"}, {"name": "zip", "type": "int"}]));
        let address = json!([{"name": "street", "type": "string"}, {"name": "place", "type": place}]);
        let line = json!([{"name": "sku", "type": "string"}, {"name": "price", "type": "double"}, {"name": "pieces", "type": "int"}]);
        fields.push(json!({"name": "address", "type": record("Address", address)}));
        fields.push(json!({"name": "lines", "type": {"type": "array", "items": record("Line", line)}}));
    }
    record("Order", fields.into()).to_string()
}

fn avro(is_nested: bool, orders: &[Value]) -> Vec<Vec<u8>> {
    let mut schema: Value = serde_json::from_str(&avro_schema(is_nested)).unwrap();
    schema["fields"][6]["type"] = "long".into();
    let schema = apache_avro::Schema::parse(&schema).unwrap();
    let encode = |order: &Value| {
        let value = Avro::from(order.clone()).resolve(&schema).unwrap();
        framed(&[], &apache_avro::to_avro_datum(&schema, value).unwrap())
    };
    orders.iter().map(encode).collect()
}

const PROTOBUF: &str = r#"syntax = "proto3";
message Order {
  int64 order_id = 1; string customer_id = 2; string status = 3; double amount = 4; int32 quantity = 5; bool gift = 6;
  int64 placed_at = 7; string country = 8; string note = 9; double discount = 10; int32 warehouse = 11; string email = 12;
  Address address = 13; repeated Line lines = 14;
}
message Address { string street = 1; Place place = 2; }
message Place { string city = 1; int32 zip = 2; }
message Line { string sku = 1; double price = 2; int32 pieces = 3; }
"#;

fn protobuf(is_nested: bool, orders: &[Value]) -> Vec<Vec<u8>> {
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(protox_parse::parse("order.proto", PROTOBUF).unwrap()).unwrap();
    let order = pool.get_message_by_name("Order").unwrap();
    let encode = |value: &Value| {
        let mut value = value.clone();
        // The JSON form of 64-bit numbers is text.
        for name in ["order_id", "placed_at"] {
            value[name] = value[name].to_string().into();
        }
        assert_eq!(is_nested, value.get("lines").is_some());
        let message = DynamicMessage::deserialize(order.clone(), value).unwrap();
        framed(&[0], &message.encode_to_vec())
    };
    orders.iter().map(encode).collect()
}

fn json_schema(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: serde_json::Map<_, _> =
                members.iter().map(|(name, value)| (name.clone(), json_schema(value))).collect();
            json!({"type": "object", "properties": members})
        }
        Value::Array(items) => json!({"type": "array", "items": json_schema(&items[0])}),
        Value::String(_) => json!({"type": "string"}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(number) => json!({"type": if number.is_f64() { "number" } else { "integer" }}),
        Value::Null => json!({}),
    }
}

fn measure(name: &str, shape: &str, format: SchemaFormat, text: &str, values: &[Vec<u8>]) {
    let schema = RegisteredSchema { id: 1, format, text: text.to_owned(), references: Vec::new() };
    let decoder = decoder(Schema::parse(&schema).unwrap());
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let batch = batch(values);
        let begun = own_cpu();
        let Decoding::Done(decoded) = decoder.decode(batch, 0).unwrap() else { panic!("the decoder lacks something") };
        best = best.min((own_cpu() - begun).as_secs_f64());
        assert_eq!((decoded.rows.num_rows(), decoded.rejects.len()), (values.len(), 0));
    }
    let bytes: usize = values.iter().map(Vec::len).sum();
    let (millions, megabytes) = (values.len() as f64 / best / 1e6, bytes as f64 / best / 1e6);
    println!("{:<22} {:>8} {millions:>12.2} {megabytes:>10.0}", format!("{name}, {shape}"), bytes / values.len());
}

fn decoder(schema: Schema) -> Decoder {
    let layout = Layout {
        key_format: Format::None,
        key_columns: KeyColumns::None,
        value_format: Format::Registry,
        projection: Arc::default(),
        names: MetadataNames::Kafka,
        metadata: vec![Metadata::Partition, Metadata::Offset, Metadata::Timestamp],
        mapping: MappingOptions::default(),
        tombstones: Tombstones::Keep,
        record_bytes_max: 1 << 20,
        evolution: Evolution::Extend,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
    };
    let table =
        layout.table_schema(Columns::Nothing, schema.columns(MessagePath::FIRST, layout.mapping).unwrap()).unwrap();
    let known = HashMap::from([(SchemaKey::Id(1), SchemaUse::Known(Arc::new(schema)))]);
    Decoder::new(Arc::new(layout), Arc::new(table), Sides { key: Format::None, value: Format::Registry }, known)
}

fn batch(values: &[Vec<u8>]) -> RawBatch {
    let mut batch = RawBatch::new(TopicPartition::new("t", 0), Attempt(0), NextOffset(0));
    for (offset, value) in (0..).zip(values) {
        batch.records.push(RawRecord {
            offset,
            timestamp_ms: 1_767_225_600_000,
            leader_epoch: 0,
            start: u32::try_from(batch.bytes.len()).unwrap(),
            key_len: -1,
            value_len: i32::try_from(value.len()).unwrap(),
            headers_len: 0,
            timestamp_type: TimestampType::CreateTime,
        });
        batch.bytes.extend_from_slice(value);
    }
    batch
}
