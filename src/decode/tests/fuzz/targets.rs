//! What is fuzzed: for each target a function that takes any bytes and panics where decoding breaks a promise, and valid
//! inputs to begin with. Records are decoded as a table's are, by its public API, once with all fields and once with a
//! choice of them. With what bytes, and how often, is the caller's.
//!
//! The promises: no input makes decoding panic, overflow a stack of 2 MiB, or go on for ever; each record of a batch is
//! a row or a reject; and memory is within [`Target::bytes_max`].

use std::collections::HashMap;
use std::sync::Arc;

use crate::decode::evolution::{Evolution, Side, evolved, founded, wanted};
use crate::decode::layout::{Format, Given, KeyColumns, Layout, Metadata, MetadataNames, Tombstones};
use crate::decode::mapping::MappingOptions;
use crate::decode::schema::{Columns, Schema};
use crate::decode::{Decoder, Decoding, SchemaKey, SchemaUse, Sides};
use crate::model::decoded::Reason;
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::projection::Projection;
use crate::model::raw::{Headers, RawBatch, RawRecord, TimestampType};
use crate::model::schema::TableSchema;
use crate::ports::{RegisteredSchema, SchemaFormat};

/// One thing to fuzz.
pub(super) struct Target {
    /// Its name.
    pub(super) name: &'static str,
    /// Takes any bytes; panics where a promise is broken.
    pub(super) run: fn(&[u8]),
    /// Valid inputs.
    pub(super) seeds: fn() -> Vec<Vec<u8>>,
    /// Bytes of memory that a run may have at once, by the input's length: a fixed part, and a part per byte. A byte of
    /// a record may be a row of all columns, or an element of a list of structs.
    pub(super) bytes_max: (i64, i64),
}

/// All of them.
pub(super) const TARGETS: [Target; 6] = [
    Target { name: "avro", run: avro, seeds: || seeds(&AVRO, AVRO_RECORDS), bytes_max: (2 << 20, 4 << 10) },
    Target {
        name: "protobuf",
        run: protobuf,
        seeds: || seeds(&PROTOBUF, PROTOBUF_RECORDS),
        bytes_max: (2 << 20, 4 << 10),
    },
    Target {
        name: "json_schema",
        run: json_schema,
        seeds: || seeds(&JSON, JSON_RECORDS),
        bytes_max: (2 << 20, 4 << 10),
    },
    Target { name: "json", run: json, seeds: || packed(JSON_RECORDS), bytes_max: (4 << 20, 16 << 10) },
    Target { name: "framing", run: framing, seeds: framing_seeds, bytes_max: (2 << 20, 4 << 10) },
    Target { name: "schemas", run: schemas, seeds: schema_seeds, bytes_max: (16 << 20, 16 << 10) },
];

const AVRO: [&str; 3] = [
    r#"{"type":"record","name":"R","fields":[
        {"name":"a","type":"boolean"},{"name":"b","type":"int"},{"name":"c","type":["null","long"]},
        {"name":"d","type":"float"},{"name":"e","type":"double"},{"name":"f","type":"bytes"},
        {"name":"g","type":["string","null"]},{"name":"h","type":{"type":"fixed","name":"F","size":3}},
        {"name":"i","type":{"type":"enum","name":"E","symbols":["x","y"]}},
        {"name":"j","type":{"type":"array","items":["null","int"]}},{"name":"k","type":{"type":"map","values":"string"}},
        {"name":"l","type":["null","int","string",{"type":"record","name":"B","fields":[{"name":"x","type":"long"}]}]},
        {"name":"m","type":{"type":"array","items":"null"}},
        {"name":"n","type":{"type":"array","items":{"type":"array","items":"B"}}}]}"#,
    r#"{"type":"record","name":"Node","fields":[{"name":"n","type":"int"},{"name":"next","type":["null","Node"]},
        {"name":"many","type":{"type":"map","values":{"type":"array","items":"Node"}}}]}"#,
    r#"["null",{"type":"record","name":"L","fields":[
        {"name":"date","type":{"type":"int","logicalType":"date"}},
        {"name":"time","type":{"type":"int","logicalType":"time-millis"}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"nanos","type":{"type":"long","logicalType":"timestamp-nanos"}},
        {"name":"cost","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}},
        {"name":"wide","type":{"type":"bytes","logicalType":"decimal","precision":60,"scale":4}},
        {"name":"id","type":{"type":"string","logicalType":"uuid"}},
        {"name":"zoned","type":{"type":"string","connect.name":"io.debezium.time.ZonedTimestamp"}},
        {"name":"pairs","type":{"type":"array","items":{"type":"record","name":"io.confluent.connect.avro.MapEntry",
            "fields":[{"name":"key","type":"int"},{"name":"value","type":"double"}]}}}]}]"#,
];

const AVRO_RECORDS: &[&[u8]] = &[
    &[
        1, 2, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, b'a', b'b', 0, 2, b'c', 1, 2, 3, 2, 3, 8, 2, 5, 0, 0, 2, 2,
        b'k', 2, b'v', 0, 6, 7, 4, 0, 2, 2, 9, 0, 0,
    ],
    &[2, 2, 4, 0, 0, 2, 2, b'k', 2, 6, 0, 0, 0, 0],
    &[
        2, 2, 4, 6, 8, 2, 5, 2, 5, 72, b'0', b'0', b'0', b'0', b'0', b'0', b'0', b'0', b'-', b'0', b'0', b'0', b'0',
        b'-', b'0', b'0', b'0', b'0', b'-', b'0', b'0', b'0', b'0', b'-', b'0', b'0', b'0', b'0', b'0', b'0', b'0',
        b'0', b'0', b'0', b'0', b'0', 40, b'2', b'0', b'2', b'6', b'-', b'0', b'1', b'-', b'0', b'1', b'T', b'0', b'0',
        b':', b'0', b'0', b':', b'0', b'0', b'Z', 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ],
];

const PROTOBUF: [&str; 2] = [
    r#"syntax = "proto3";
    import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto"; import "google/protobuf/struct.proto";
    import "google/protobuf/wrappers.proto"; import "google/protobuf/any.proto";
    message M {
      int32 a = 1; optional sint64 b = 2; fixed64 c = 3; float d = 4; bool e = 5; string f = 6; bytes g = 7; E h = 8;
      repeated int32 i = 9; repeated In j = 10; map<string, In> k = 11; oneof o { string p = 12; In q = 13; uint64 r = 14; }
      google.protobuf.Timestamp s = 15; google.protobuf.Duration t = 16; google.protobuf.Struct u = 17;
      google.protobuf.Int64Value v = 18; google.protobuf.Any w = 19; Node x = 20; map<int64, double> y = 2000;
    }
    message In { double a = 1; repeated string b = 2; }
    message Node { int32 n = 1; repeated Node children = 2; map<string, Node> named = 3; }
    enum E { Z = 0; Y = 1; }"#,
    r#"syntax = "proto2";
    message M { required int32 a = 1; optional group G = 2 { optional string x = 1; repeated group H = 3 { optional int32 y = 1; } }
      repeated sfixed32 b = 4 [packed = true]; }"#,
];

const PROTOBUF_RECORDS: &[&[u8]] = &[
    &[
        8, 1, 16, 3, 49, 1, 0, 0, 0, 0, 0, 0, 0, 50, 1, b'f', 64, 1, 74, 2, 1, 2, 82, 2, 18, 0, 90, 5, 10, 1, b'k', 18,
        0, 98, 1, b'p', 122, 2, 8, 1,
    ],
    &[8, 1, 19, 10, 1, b'x', 27, 8, 1, 28, 20, 34, 4, 1, 0, 0, 0],
    &[162, 1, 6, 8, 1, 18, 2, 8, 2, 138, 1, 9, 10, 7, 10, 1, b'k', 18, 2, 32, 1],
];

const JSON: [&str; 2] = [
    r#"{"type":"object","title":"R","properties":{
        "a":{"type":"boolean"},"b":{"type":"integer"},"c":{"type":"number"},"d":{"type":"string","format":"date-time"},
        "e":{"oneOf":[{"type":"null"},{"type":"integer","connect.type":"int32"}]},"f":{"type":"array","items":{"type":"string"}},
        "g":{"type":"object","additionalProperties":{"type":"number"}},
        "h":{"oneOf":[{"type":"object","title":"x","properties":{"p":{"type":"integer"}},"required":["p"]},
            {"type":"object","title":"y","properties":{"q":{"type":"string"}}},{"type":"string"}]},
        "i":{},"j":{"enum":["u","v"]},
        "k":{"type":"object","properties":{"l":{"type":"object","properties":{"m":{"type":"integer"}}}}}},"required":["a"]}"#,
    r##"{"type":"object","properties":{"cost":{"title":"org.apache.kafka.connect.data.Decimal","type":"number","connect.type":"bytes",
        "connect.parameters":{"connect.decimal.precision":"9","scale":"2"}},
        "bytes":{"type":"string","connect.type":"bytes"},"node":{"$ref":"#/definitions/Node"}},
        "definitions":{"Node":{"type":"object","properties":{"next":{"$ref":"#/definitions/Node"},"n":{"type":"integer"}}}}}"##,
];

const JSON_RECORDS: &[&[u8]] = &[
    br#"{"a":true,"b":1,"c":-2.5e3,"d":"2026-01-01T00:00:00Z","e":null,"f":["x","\u00e9\ud83e\udd80"],"g":{"k":1,"k":2},"h":{"p":1},"i":[1,{"z":null}],"j":"u","k":{"l":{"m":1}},"extra":[[]]}"#,
    br#"{"cost":12.34,"bytes":"AQID","node":{"n":1,"next":{"n":2}}}"#,
    br#" { "a" : false , "h" : "text" , "h" : {"q":"\"\\"} , "c" : 123456789012345678901234567890 } "#,
];

/// Inputs that name the schema, by its number, and hold one record.
fn seeds(schemas: &[&str], records: &[&[u8]]) -> Vec<Vec<u8>> {
    let of = |schema: usize| records.iter().map(move |record| [&[schema as u8], *record].concat());
    (0..schemas.len()).flat_map(of).collect()
}

/// Inputs of several records, each but the last behind its length.
fn packed(records: &[&[u8]]) -> Vec<Vec<u8>> {
    let with_len = |record: &&[u8]| [&[record.len() as u8], *record].concat();
    let all: Vec<u8> = records.iter().flat_map(with_len).collect();
    records.iter().map(with_len).chain([all]).collect()
}

/// The records that an input holds: a length of one byte and so many bytes, or what there is.
fn unpacked(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [len, rest @ ..] = bytes {
        let (record, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        records.push(record);
        bytes = rest;
    }
    records
}

fn avro(data: &[u8]) {
    by_schema(SchemaFormat::Avro, &AVRO, data);
}

fn protobuf(data: &[u8]) {
    by_schema(SchemaFormat::Protobuf, &PROTOBUF, data);
}

fn json_schema(data: &[u8]) {
    by_schema(SchemaFormat::Json, &JSON, data);
}

/// The first byte picks the schema, the rest is one record and, once more, several.
fn by_schema(language: SchemaFormat, schemas: &[&str], data: &[u8]) {
    let Some((pick, rest)) = data.split_first() else { return };
    let at = usize::from(*pick) % schemas.len();
    let known = known(language, schemas);
    let framed = |record: &[u8]| {
        let index: &[u8] = if language == SchemaFormat::Protobuf { &[0] } else { &[] };
        [&[0, 0, 0, 0, at as u8], index, record].concat()
    };
    let values: Vec<Vec<u8>> = std::iter::once(rest).chain(unpacked(rest)).map(framed).collect();
    let records: Vec<Record<'_>> = values.iter().map(|value| (None, Some(value.as_slice()), Vec::new())).collect();
    decode(Sides { key: Format::None, value: Format::Registry }, known, &records);
}

fn json(data: &[u8]) {
    let records = std::iter::once(data).chain(unpacked(data)).map(|value| (None, Some(value), Vec::new()));
    decode(Sides { key: Format::None, value: Format::Json }, HashMap::new(), &records.collect::<Vec<_>>());
}

/// Keys, values and headers as they come, before anything is known of them: four parts in turn make a record.
fn framing(data: &[u8]) {
    let mut known = HashMap::new();
    for (from, language, schemas) in
        [(0, SchemaFormat::Avro, &AVRO[..]), (3, SchemaFormat::Protobuf, &PROTOBUF), (5, SchemaFormat::Json, &JSON)]
    {
        for (id, schema) in (from..).zip(schemas) {
            known.insert(SchemaKey::Id(id), parsed(language, schema));
            known.insert(SchemaKey::Guid(u128::from(id)), parsed(language, schema));
        }
    }
    let names: [&[u8]; 4] = [b"__key_schema_id", b"__value_schema_id", b"other", b""];
    let parts = unpacked(data);
    let mut records: Vec<Record<'_>> = Vec::new();
    for parts in parts.chunks(4) {
        let headers = parts.iter().skip(2).filter_map(|bytes| bytes.split_first()).map(|(name, value)| {
            (names[usize::from(*name) % names.len()], Some(value).filter(|value| !value.is_empty()))
        });
        records.push((parts.first().copied(), parts.get(1).copied(), headers.collect()));
    }
    decode(Sides { key: Format::Registry, value: Format::Registry }, known, &records);
}

fn framing_seeds() -> Vec<Vec<u8>> {
    let guid = |id: u8| [&[1][..], &[0; 15], &[id]].concat();
    let framed = |id: u8, record: &[u8]| [&[0, 0, 0, 0, id], record].concat();
    let headers = [[&[1][..], &guid(4), &[2, 0]].concat(), [&[1][..], &framed(0, &[])].concat(), vec![0, 7]];
    let mut seeds = Vec::new();
    for (id, record) in [(0, AVRO_RECORDS[0]), (3, &[&[0], PROTOBUF_RECORDS[0]].concat()), (5, JSON_RECORDS[1])] {
        for header in &headers {
            let parts = [&framed(1, AVRO_RECORDS[1]), &framed(id, record), header, &Vec::new()];
            seeds.push(parts.into_iter().flat_map(|part| [&[part.len() as u8], &part[..]].concat()).collect());
        }
    }
    seeds
}

/// The first byte picks the language, the rest is a schema's text: columns and a program are made of it, and it is also
/// read as a record of its own.
fn schemas(data: &[u8]) {
    let Some((pick, rest)) = data.split_first() else { return };
    let language = [SchemaFormat::Avro, SchemaFormat::Protobuf, SchemaFormat::Json][usize::from(*pick) % 3];
    let text = String::from_utf8_lossy(rest);
    let known = HashMap::from([(SchemaKey::Id(1), parsed(language, &text))]);
    let SchemaUse::Known(_) = &known[&SchemaKey::Id(1)] else { return };
    let value = [&[0, 0, 0, 0, 1], rest].concat();
    let sides = Sides { key: Format::None, value: Format::Registry };
    decode(sides, known, &[(None, Some(&value), Vec::new()), (None, Some(&[0, 0, 0, 0, 1, 0, 0]), Vec::new())]);
}

fn schema_seeds() -> Vec<Vec<u8>> {
    let of = |(at, texts): (u8, &[&str])| -> Vec<Vec<u8>> {
        texts.iter().map(|text| [&[at], text.as_bytes()].concat()).collect()
    };
    [(0, &AVRO[..]), (1, &PROTOBUF), (2, &JSON)].into_iter().flat_map(of).collect()
}

fn parsed(format: SchemaFormat, text: &str) -> SchemaUse {
    let registered = RegisteredSchema { id: 1, format, text: text.to_owned(), references: Vec::new() };
    match Schema::parse(&registered) {
        Ok(schema) => SchemaUse::Known(Arc::new(schema)),
        Err(error) => SchemaUse::Rejected(Reason::IncompatibleSchema, error.chain()),
    }
}

fn known(format: SchemaFormat, texts: &[&str]) -> HashMap<SchemaKey, SchemaUse> {
    (0..).map(SchemaKey::Id).zip(texts.iter().map(|text| parsed(format, text))).collect()
}

/// Key, value and headers.
type Record<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, Vec<(&'a [u8], Option<&'a [u8]>)>);

fn decode(sides: Sides, known: HashMap<SchemaKey, SchemaUse>, records: &[Record<'_>]) {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let exclude = ["c", "k.l.m", "l.B", "n.element", "q.b", "h.x", "u", "next.n", "extra"];
    let rename = [("b", "A"), ("a", "z")].map(|(from, to)| (from.to_owned(), to.to_owned()));
    let choice = Projection { include: None, exclude: names(&exclude), rename: rename.into() };
    decode_chosen(sides, Projection::default(), known.clone(), records);
    decode_chosen(sides, choice, known, records);
}

/// Decodes records as a table of these formats does, which changes as they need it.
fn decode_chosen(sides: Sides, choice: Projection, mut known: HashMap<SchemaKey, SchemaUse>, records: &[Record<'_>]) {
    let layout = Arc::new(Layout { projection: Arc::new(choice), ..layout(sides) });
    let nothing = || Side { columns: Columns::Nothing, version: None };
    let nothing = wanted(&TableSchema::default(), &layout, nothing(), nothing()).expect("no column twice");
    let mut table = Arc::new(founded(&nothing, &layout));
    let mut batch = batch(records);
    for round in 0.. {
        assert!(round < 64, "the table never fits");
        let decoder = Decoder::new(Arc::clone(&layout), Arc::clone(&table), sides, known.clone());
        match decoder.decode(batch, 0).expect("a bug") {
            Decoding::Done(decoded) => {
                let (rows, rejects) = (decoded.rows.num_rows(), decoded.rejects.len());
                assert_eq!(rows + rejects, records.len(), "each record is a row or a reject");
                assert_eq!(decoded.rows.num_columns(), table.fields.len());
                return;
            }
            Decoding::Needs(same, needs) => {
                batch = same;
                for key in needs.schemas {
                    known.insert(key, SchemaUse::Rejected(Reason::UnknownSchemaId, "no such schema".to_owned()));
                }
                if let Some(next) = needs.table {
                    assert!(evolved(&next, &table, &layout).is_ok(), "what was there still fits");
                    table = Arc::new(next);
                }
            }
            Decoding::Misfit(_, misfit) => panic!("nothing suspends this table: {misfit}"),
        }
    }
}

fn layout(sides: Sides) -> Layout {
    Layout {
        key_format: sides.key,
        key_columns: KeyColumns::Flatten,
        value_format: sides.value,
        projection: Arc::default(),
        names: MetadataNames::Kafka,
        metadata: vec![Metadata::Headers, Metadata::Offset, Metadata::RawKey],
        mapping: MappingOptions::default(),
        tombstones: Tombstones::Keep,
        record_bytes_max: 16 << 20,
        evolution: Evolution::Full,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
    }
}

fn batch(records: &[Record<'_>]) -> RawBatch {
    let mut batch = RawBatch::new(TopicPartition::new("t", 0), Attempt(0), NextOffset(0));
    let len = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("a short input"));
    for (offset, (key, value, headers)) in (0..).zip(records) {
        let start = u32::try_from(batch.bytes.len()).expect("a short input");
        batch.bytes.extend([key, value].into_iter().flatten().copied().flatten());
        let before = batch.bytes.len();
        headers.iter().for_each(|(name, value)| Headers::push(&mut batch.bytes, name, *value));
        batch.records.push(RawRecord {
            offset,
            timestamp_ms: 0,
            leader_epoch: 0,
            start,
            key_len: len(*key),
            value_len: len(*value),
            headers_len: u32::try_from(batch.bytes.len() - before).expect("a short input"),
            timestamp_type: TimestampType::CreateTime,
        });
    }
    batch
}
