//! Random schemas and values through the decoder, held against an encoder that is not ours: what is encoded comes out,
//! and a bad record is one reject and touches no other.

mod avro;
mod convergence;
mod evolution;
mod fuzz;
mod instants;
mod projection;
pub(super) mod shapes;
mod texts;
mod together;
mod versions;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType, TimestampNanosecondType,
};
use proptest::prelude::*;

use super::avro::names::parse_text;
use super::evolution::{Evolution, evolved};
use super::layout::{Format, Given, KeyColumns, Layout, MetadataNames, Tombstones};
use super::mapping::{MappingOptions, TimeAs};
use super::schema::{Columns, Schema};
use super::{Decoder, Decoding, MessagePath, SchemaKey, SchemaUse, Sides};
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, RawRecord, TimestampType};
use crate::model::schema::TableSchema;
use shapes::{Random, Shape};

const SIDES: Sides = Sides { key: Format::None, value: Format::Registry };

fn layout(time_as: TimeAs) -> Layout {
    Layout {
        key_format: Format::None,
        key_columns: KeyColumns::None,
        value_format: Format::Registry,
        projection: Arc::default(),
        names: MetadataNames::Kafka,
        metadata: vec![super::layout::Metadata::Offset],
        mapping: MappingOptions { time_as, ..MappingOptions::default() },
        tombstones: Tombstones::Keep,
        record_bytes_max: 1 << 20,
        evolution: Evolution::Extend,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
    }
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

fn batch(values: &[Option<Vec<u8>>]) -> RawBatch {
    let mut batch = RawBatch::new(TopicPartition::new("t", 0), Attempt(0), NextOffset(0));
    for (offset, value) in values.iter().enumerate() {
        let start = u32::try_from(batch.bytes.len()).unwrap();
        batch.bytes.extend_from_slice(value.as_deref().unwrap_or_default());
        batch.records.push(RawRecord {
            offset: i64::try_from(offset).unwrap(),
            timestamp_ms: 0,
            leader_epoch: 0,
            start,
            key_len: -1,
            value_len: value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap()),
            headers_len: 0,
            timestamp_type: TimestampType::CreateTime,
        });
    }
    batch
}

fn schema(text: &str) -> Arc<Schema> {
    Arc::new(Schema::Avro(parse_text(text).unwrap()))
}

/// The columns for values of `schema`.
fn columns_of(layout: &Layout, schema: &Schema) -> TableSchema {
    layout.table_schema(Columns::Nothing, schema.columns(MessagePath::FIRST, layout.mapping).unwrap()).unwrap()
}

/// The decoder of a table that has the columns of all `schemas`; their ids count from 1. Id 99 is unknown to the
/// registry.
fn decoder(layout: Layout, schemas: &[&str]) -> Decoder {
    let schemas: Vec<Arc<Schema>> = schemas.iter().map(|text| schema(text)).collect();
    let mut table = TableSchema::default();
    for schema in &schemas {
        table = evolved(&table, &columns_of(&layout, schema), &layout).unwrap().unwrap_or(table);
    }
    let mut uses: HashMap<SchemaKey, SchemaUse> =
        (1..).zip(schemas).map(|(id, schema)| (SchemaKey::Id(id), SchemaUse::Known(schema))).collect();
    uses.insert(SchemaKey::Id(99), SchemaUse::Rejected(Reason::UnknownSchemaId, "no such schema".to_owned()));
    Decoder::new(Arc::new(layout), Arc::new(table), SIDES, uses)
}

fn decide(decoder: &Decoder, values: &[Option<Vec<u8>>]) -> DecodedBatch {
    match decoder.decode(batch(values), 0).unwrap() {
        Decoding::Done(decoded) => decoded,
        Decoding::Needs(_, needs) => panic!("the decoder lacks {needs:?}"),
        Decoding::Misfit(_, misfit) => panic!("{misfit}"),
    }
}

/// A row but for its metadata, in the words of [`Shape::value`].
fn row(rows: &RecordBatch, index: usize) -> String {
    let shown =
        |(field, column): (&arrow::datatypes::FieldRef, &ArrayRef)| format!("{}={}", field.name(), show(column, index));
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns()).filter(|(field, _)| field.name() != "kafka_offset");
    format!("{{{}}}", columns.map(shown).collect::<Vec<_>>().join(","))
}

pub(super) fn show(array: &ArrayRef, index: usize) -> String {
    if array.is_null(index) {
        return "null".to_owned();
    }
    let all = |array: &ArrayRef| (0..array.len()).map(|i| show(array, i)).collect::<Vec<_>>().join(",");
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(index).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(index).to_string(),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(index).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(index).to_string(),
        DataType::Time64(_) => array.as_primitive::<Time64MicrosecondType>().value(index).to_string(),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(index).to_string(),
        // By their bits: NaN is to stay the NaN that it was, and -0 is not 0.
        DataType::Float32 => format!("{:x}", array.as_primitive::<Float32Type>().value(index).to_bits()),
        DataType::Float64 => format!("{:x}", array.as_primitive::<Float64Type>().value(index).to_bits()),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(index).to_string(),
        DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(index)),
        DataType::Binary => format!("{:?}", array.as_binary::<i32>().value(index)),
        DataType::FixedSizeBinary(_) => format!("{:?}", array.as_fixed_size_binary().value(index)),
        DataType::List(_) => format!("[{}]", all(&array.as_list::<i32>().value(index))),
        DataType::Map(..) => {
            // A map has no order.
            let entries = Arc::new(array.as_map().value(index)) as ArrayRef;
            let mut entries: Vec<_> = (0..entries.len()).map(|i| show(&entries, i)).collect();
            entries.sort();
            format!("[{}]", entries.join(","))
        }
        DataType::Struct(fields) => {
            let children = fields.iter().zip(array.as_struct().columns());
            let children: Vec<_> =
                children.map(|(f, column)| format!("{}={}", f.name(), show(column, index))).collect();
            format!("{{{}}}", children.join(","))
        }
        other => panic!("no column is {other}"),
    }
}

/// What is done to an encoded record before it is decoded.
#[derive(Debug, Clone, Copy)]
enum Treatment {
    Good,
    Truncated(usize),
    Trailing(u8),
    WrongMagic(u8),
    UnknownSchema,
    GarbageBody(u64),
    Empty,
    NoValue,
}

fn treatment() -> impl Strategy<Value = Treatment> {
    prop_oneof![
        6 => Just(Treatment::Good),
        1 => any::<usize>().prop_map(Treatment::Truncated),
        1 => any::<u8>().prop_map(Treatment::Trailing),
        1 => (1..=u8::MAX).prop_map(Treatment::WrongMagic),
        1 => Just(Treatment::UnknownSchema),
        1 => any::<u64>().prop_map(Treatment::GarbageBody),
        1 => Just(Treatment::Empty),
        1 => Just(Treatment::NoValue),
    ]
}

/// The bytes to decode, and why they are to be rejected; `None`: they may be good or not.
fn treated(good: &[u8], treatment: Treatment) -> (Option<Vec<u8>>, Option<Result<(), Reason>>) {
    let (head, body) = good.split_at(5);
    match treatment {
        Treatment::Good => (Some(good.to_vec()), Some(Ok(()))),
        Treatment::Truncated(at) => (Some(good[..at % good.len()].to_vec()), Some(Err(Reason::Truncated))),
        Treatment::Trailing(byte) => (Some([good, &[byte]].concat()), Some(Err(Reason::Truncated))),
        Treatment::WrongMagic(byte) => (Some([&[byte], &good[1..]].concat()), Some(Err(Reason::BadMagicByte))),
        Treatment::UnknownSchema => (Some(framed(99, body)), Some(Err(Reason::UnknownSchemaId))),
        Treatment::GarbageBody(seed) => {
            let mut random = Random(seed);
            let body: Vec<u8> = (0..random.below(40)).map(|_| random.next().to_le_bytes()[0]).collect();
            (Some([head, &body].concat()), None)
        }
        Treatment::Empty => (Some(Vec::new()), Some(Err(Reason::Truncated))),
        Treatment::NoValue => (None, Some(Err(Reason::NullValue))),
    }
}

fn offsets(decoded: &DecodedBatch) -> Vec<usize> {
    let offsets = decoded.rows.column_by_name("kafka_offset").unwrap().as_primitive::<Int64Type>();
    offsets.values().iter().map(|offset| usize::try_from(*offset).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_another_encoder_wrote_comes_out(fields in shapes::record(), seed: u64, as_time: bool) {
        let shape = Shape::Record(fields);
        let encoder = apache_avro::Schema::parse_str(&shape.text(false)).unwrap();
        let mut random = Random(seed);
        let made: Vec<_> = (0..8).map(|_| shape.value(&mut random)).collect();
        let encode = |value| Some(framed(1, &apache_avro::to_avro_datum(&encoder, value).unwrap()));
        let values: Vec<_> = made.iter().map(|(value, _)| encode(value.clone())).collect();
        let time_as = if as_time { TimeAs::Time } else { TimeAs::Long };
        let decoded = decide(&decoder(layout(time_as), &[&shape.text(true)]), &values);
        prop_assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects[0].message);
        for (index, (_, shown)) in made.iter().enumerate() {
            prop_assert_eq!(&row(&decoded.rows, index), shown);
        }
    }

    #[test]
    fn a_bad_record_is_one_reject_and_touches_no_other(
        fields in shapes::record(),
        seed: u64,
        treatments in proptest::collection::vec(treatment(), 1..30),
    ) {
        let shape = Shape::Record(fields);
        let encoder = apache_avro::Schema::parse_str(&shape.text(false)).unwrap();
        let mut random = Random(seed);
        let (mut values, mut expected) = (Vec::new(), Vec::new());
        for treatment in treatments {
            let (value, shown) = shape.value(&mut random);
            let good = framed(1, &apache_avro::to_avro_datum(&encoder, value).unwrap());
            let (bytes, verdict) = treated(&good, treatment);
            values.push(bytes);
            expected.push((verdict, shown));
        }
        let decoded = decide(&decoder(layout(TimeAs::Long), &[&shape.text(true)]), &values);
        let rows = offsets(&decoded);
        let rejects: HashMap<usize, Reason> =
            decoded.rejects.iter().map(|reject| (usize::try_from(reject.record.offset).unwrap(), reject.reason)).collect();
        prop_assert_eq!(rejects.len(), decoded.rejects.len(), "a record was rejected twice");
        prop_assert_eq!(rows.len() + rejects.len(), values.len());
        for (offset, (verdict, shown)) in expected.iter().enumerate() {
            let found = rows.iter().position(|row| *row == offset);
            match verdict {
                Some(Ok(())) => prop_assert_eq!(&row(&decoded.rows, found.unwrap()), shown),
                Some(Err(reason)) => prop_assert_eq!(rejects.get(&offset), Some(reason)),
                None => prop_assert!(found.is_some() != rejects.contains_key(&offset)),
            }
        }
        for reject in &decoded.rejects {
            prop_assert_eq!(&reject.value, &values[usize::try_from(reject.record.offset).unwrap()]);
        }
    }

    #[test]
    fn versions_interleave_record_by_record(old in shapes::record(), new in shapes::record(), seed: u64, order in proptest::collection::vec(any::<bool>(), 1..30)) {
        // The newer version has the older one's fields first and more behind them, as optional ones.
        let both: Vec<Shape> = old.iter().cloned().chain(new.into_iter().map(Shape::optional)).collect();
        let (added, old, new) = (both.len() - old.len(), Shape::Record(old), Shape::Record(both));
        let encoders = [&old, &new].map(|shape| apache_avro::Schema::parse_str(&shape.text(false)).unwrap());
        let mut random = Random(seed);
        let (mut values, mut expected) = (Vec::new(), Vec::new());
        for newer in order {
            let (value, mut shown) = if newer { new.value(&mut random) } else { old.value(&mut random) };
            if !newer {
                let Shape::Record(fields) = &new else { unreachable!() };
                let first = fields.len() - added;
                shown.pop();
                for (index, _) in fields.iter().enumerate().skip(first).filter(|(_, field)| !field.is_columnless()) {
                    shown += &format!("{}f{index}=null", if shown.len() > 1 { "," } else { "" });
                }
                shown.push('}');
            }
            let (id, encoder) = if newer { (2, &encoders[1]) } else { (1, &encoders[0]) };
            values.push(Some(framed(id, &apache_avro::to_avro_datum(encoder, value).unwrap())));
            expected.push(shown);
        }
        let decoded = decide(&decoder(layout(TimeAs::Long), &[&old.text(true), &new.text(true)]), &values);
        prop_assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects[0].message);
        for (index, shown) in expected.iter().enumerate() {
            prop_assert_eq!(&row(&decoded.rows, index), shown);
        }
    }
}

/// One record of one field `f` of type `schema`, whose bytes are `body`: the row, or why there is none.
#[track_caller]
fn check(time_as: TimeAs, schema: &str, body: &[u8], expected: Result<&str, Reason>) {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{schema}}}]}}"#);
    let decoded = decide(&decoder(layout(time_as), &[&text]), &[Some(framed(1, body))]);
    match expected {
        Ok(shown) => {
            assert!(decoded.rejects.is_empty(), "{schema}: {}", decoded.rejects[0].message);
            assert_eq!(row(&decoded.rows, 0), format!("{{{shown}}}"), "{schema}");
        }
        Err(reason) => assert_eq!(decoded.rejects.first().map(|reject| reject.reason), Some(reason), "{schema}"),
    }
}

#[test]
fn values_at_and_beyond_the_edges() {
    const OUT: Result<&str, Reason> = Err(Reason::ValueOutOfRange);
    const MISFIT: Result<&str, Reason> = Err(Reason::TypeMismatch);
    let long = |value: i64| {
        let schema = apache_avro::Schema::parse_str("\"long\"").unwrap();
        apache_avro::to_avro_datum(&schema, apache_avro::types::Value::Long(value)).unwrap()
    };
    let time = |kind: &str, base: &str| format!(r#"{{"type":"{base}","logicalType":"{kind}"}}"#);
    let (day_ms, day_us) = (86_400_000, 86_400_000_000_i64);
    for (as_, kind, base, value, expected) in [
        (TimeAs::Long, "time-millis", "int", day_ms - 1, Ok("f=86399999000")),
        (TimeAs::Time, "time-millis", "int", day_ms - 1, Ok("f=86399999000")),
        (TimeAs::Time, "time-millis", "int", day_ms, OUT),
        (TimeAs::Time, "time-micros", "long", -1, OUT),
        (TimeAs::Time, "time-micros", "long", day_us, OUT),
        (TimeAs::String, "time-micros", "long", day_us - 1, Ok(r#"f="23:59:59.999999""#)),
        (TimeAs::String, "time-millis", "int", 61_001, Ok(r#"f="00:01:01.001000""#)),
        (TimeAs::String, "time-millis", "int", -1, OUT),
        (TimeAs::Long, "timestamp-millis", "long", i64::MAX / 1000, Ok("f=9223372036854775000")),
        (TimeAs::Long, "timestamp-millis", "long", i64::MAX / 1000 + 1, OUT),
        (TimeAs::Long, "local-timestamp-millis", "long", i64::MIN, OUT),
        (TimeAs::Long, "timestamp-nanos", "long", -1, Ok("f=-1")),
    ] {
        check(as_, &time(kind, base), &long(value), expected);
    }
    check(TimeAs::Long, "\"int\"", &long(i64::from(i32::MAX) + 1), OUT);
    check(TimeAs::Long, "\"long\"", &[0xff; 11], MISFIT);
    check(TimeAs::Long, "\"boolean\"", &[2], MISFIT);
    check(TimeAs::Long, "\"string\"", &[2, 0xff], MISFIT);
    check(TimeAs::Long, "\"string\"", &long(-1), MISFIT);
    check(TimeAs::Long, "\"bytes\"", &long(i64::MAX), Err(Reason::Truncated));
    check(TimeAs::Long, r#"{"type":"enum","name":"E","symbols":["a"]}"#, &[2], MISFIT);
    check(TimeAs::Long, r#"["null","long"]"#, &[4], MISFIT);
    check(TimeAs::Long, &time("uuid", "string"), &[2, b'x'], MISFIT);
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":0}"#;
    let most = 10_i128.pow(38) - 1;
    let bytes = |value: i128| [&long(16)[..], &value.to_be_bytes()].concat();
    check(TimeAs::Long, decimal, &bytes(most), Ok(&format!("f={most}")));
    check(TimeAs::Long, decimal, &bytes(-most), Ok(&format!("f=-{most}")));
    check(TimeAs::Long, decimal, &bytes(most + 1), OUT);
    check(TimeAs::Long, decimal, &bytes(i128::MIN), OUT);
    check(TimeAs::Long, decimal, &long(0), Ok("f=0"));
}

#[test]
fn a_short_record_cannot_ask_for_many_elements() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]; // 2^63 - 1
    check(TimeAs::Long, r#"{"type":"array","items":"long"}"#, &huge, Err(Reason::Truncated));
    check(TimeAs::Long, r#"{"type":"array","items":"null"}"#, &huge, Err(Reason::TooLarge));
    let minimum = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]; // -2^63
    check(TimeAs::Long, r#"{"type":"array","items":"long"}"#, &minimum, Err(Reason::TypeMismatch));
    // Many lists in one, each with many elements of no bytes: the bound is the record's, not each list's.
    let million = [0x80, 0x89, 0x7a]; // 10^6
    let body = [&[40][..], &[&million[..], &[0]].concat().repeat(20), &[0]].concat();
    check(TimeAs::Long, r#"{"type":"array","items":{"type":"array","items":"null"}}"#, &body, Err(Reason::TooLarge));
}

#[test]
fn blocks_with_their_size_are_read_as_those_without() {
    // Two elements in a block with its size, one in a block without, the end.
    check(TimeAs::Long, r#"{"type":"array","items":"long"}"#, &[3, 4, 2, 4, 2, 6, 0], Ok("f=[1,2,3]"));
}

#[test]
fn arrays_of_entries_are_maps() {
    let entries = |marks: [&str; 3]| {
        let [array, record, name] = marks;
        format!(
            r#"{{"type":"array"{array},"items":{{"type":"record","name":"{name}"{record},"fields":[
                {{"name":"key","type":"long"}},{{"name":"value","type":["null","string"]}}]}}}}"#
        )
    };
    let body = [4, 2, 2, 2, b'a', 4, 0, 0];
    for marks in [
        [r#","logicalType":"map""#, "", "E"],
        ["", r#","connect.internal.type":"MapEntry""#, "E"],
        ["", "", "io.confluent.connect.avro.MapEntry"],
    ] {
        check(TimeAs::Long, &entries(marks), &body, Ok(r#"f=[{key=1,value="a"},{key=2,value=null}]"#));
        let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{}}}]}}"#, entries(marks));
        let decoder = decoder(layout(TimeAs::Long), &[&text]);
        assert!(matches!(decoder.table().fields[0].kind, crate::model::schema::Type::Map(..)));
    }
}

#[test]
fn required_columns_never_get_a_null() {
    let record = |fields: &str| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    let keep = Layout {
        mapping: MappingOptions { keep_required: true, ..layout(TimeAs::Long).mapping },
        ..layout(TimeAs::Long)
    };
    let table = |text: &str| columns_of(&keep, &schema(text));
    let inner = |fields: &str| format!(r#"{{"name":"r","type":{{"type":"record","name":"I","fields":[{fields}]}}}}"#);
    let (a, b) = (r#"{"name":"a","type":"long"}"#, r#"{"name":"b","type":"long"}"#);
    let optional = r#"{"name":"b","type":["null","long"]}"#;
    for (old, new, path) in [
        (record(b), record(optional), "b"),
        (record(&inner(b)), record(&inner(optional)), "r.b"),
        (record(&inner(&format!("{a},{b}"))), record(&inner(a)), "r.b"),
        (record(b), record(a), "b"),
    ] {
        let uses = HashMap::from([(SchemaKey::Id(1), SchemaUse::Known(schema(&new)))]);
        let decoder = Decoder::new(Arc::new(keep.clone()), Arc::new(table(&old)), SIDES, uses);
        let Decoding::Needs(_, needs) = decoder.decode(batch(&[Some(framed(1, &[0, 0]))]), 0).unwrap() else {
            panic!("{old} {new}: the column is not relaxed first");
        };
        let relaxed = needs.table.unwrap();
        let mut fields = &relaxed.fields;
        for name in path.split('.') {
            let field = fields.iter().find(|field| field.name == name).unwrap();
            if let crate::model::schema::Type::Struct(inner) = &field.kind {
                assert!(field.required, "{old} {new}");
                fields = inner;
            } else {
                assert!(!field.required, "{old} {new}");
            }
        }
    }
}

#[test]
fn a_batch_is_cut_before_its_first_reject() {
    let text = r#"{"type":"record","name":"R","fields":[{"name":"f","type":"long"}]}"#;
    let good = |n: u8| Some(framed(1, &[2 * n]));
    let decoder = decoder(layout(TimeAs::Long), &[text]);
    for (values, rows, next) in
        [(vec![good(0), good(1), Some(vec![7]), good(3), None], 2, 2), (vec![None, good(1)], 0, 0)]
    {
        let mut decoded = decide(&decoder, &values);
        super::cut_at_reject(&layout(TimeAs::Long), &mut decoded);
        assert_eq!((decoded.rows.num_rows(), decoded.next, decoded.rejects.len()), (rows, NextOffset(next), 0));
    }
}
