//! All languages through the decoder of a table: keys beside values, tables that grow by what they lack, and what
//! becomes of what fits no column.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;

use super::super::evolution::{Evolution, evolved};
use super::super::layout::{Format, KeyColumns, Layout};
use super::super::mapping::TimeAs;
use super::super::schema::{Columns, Schema};
use super::super::{Decoder, Decoding, SchemaKey, SchemaUse, Sides};
use super::{layout, row};
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::raw::{Headers, RawBatch, RawRecord, TimestampType};
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::{RegisteredSchema, SchemaFormat};

type Bytes = Option<Vec<u8>>;
/// Key, value and headers.
pub(super) type Written<'a> = (Bytes, Bytes, &'a [(&'a str, &'a [u8])]);

/// A table, and the schemas that its registry knows.
pub(super) struct Table {
    pub(super) layout: Layout,
    pub(super) sides: Sides,
    schemas: HashMap<SchemaKey, SchemaUse>,
    pub(super) columns: Arc<TableSchema>,
    /// How often it has changed.
    pub(super) changes: usize,
}

impl Table {
    pub(super) fn new(key: Format, value: Format) -> Self {
        let layout = Layout { key_format: key, key_columns: KeyColumns::Flatten, ..layout(TimeAs::Long) };
        let columns = Arc::new(layout.table_schema(Columns::Nothing, Columns::Nothing).unwrap());
        Self { layout, sides: Sides { key, value }, schemas: HashMap::new(), columns, changes: 0 }
    }

    pub(super) fn knows(mut self, key: SchemaKey, format: SchemaFormat, text: &str) -> Self {
        let registered = RegisteredSchema { id: 0, format, text: text.to_owned(), references: Vec::new() };
        self.schemas.insert(key, SchemaUse::Known(Arc::new(Schema::parse(&registered).unwrap())));
        self
    }

    /// Decodes records, changing the table as they need it.
    pub(super) fn decode(&mut self, records: &[Written<'_>]) -> DecodedBatch {
        self.try_decode(records).unwrap_or_else(|misfit| panic!("{misfit}"))
    }

    /// As [`Table::decode`]; the misfit that suspends the table.
    pub(super) fn try_decode(&mut self, records: &[Written<'_>]) -> Result<DecodedBatch, String> {
        let mut batch = batch(records);
        loop {
            let layout = Arc::new(self.layout.clone());
            let decoder = Decoder::new(layout, Arc::clone(&self.columns), self.sides, self.schemas.clone());
            batch = match decoder.decode(batch, 0).unwrap() {
                Decoding::Done(decoded) => return Ok(decoded),
                Decoding::Misfit(_, misfit) => return Err(misfit),
                Decoding::Needs(batch, needs) => {
                    self.columns = Arc::new(needs.table.expect("all schemas are known"));
                    self.changes += 1;
                    assert!(self.changes < 20, "the table never fits");
                    batch
                }
            };
        }
    }

    /// The rows of values without keys, and the reasons of those that are none.
    pub(super) fn values(&mut self, values: &[&[u8]]) -> (Vec<String>, Vec<Reason>) {
        let records: Vec<_> = values.iter().map(|value| (None, Some(value.to_vec()), &[][..])).collect();
        rows(&self.decode(&records))
    }
}

pub(super) fn rows(decoded: &DecodedBatch) -> (Vec<String>, Vec<Reason>) {
    let shown = (0..decoded.rows.num_rows()).map(|index| row(&decoded.rows, index)).collect();
    (shown, decoded.rejects.iter().map(|reject| reject.reason).collect())
}

fn batch(records: &[Written<'_>]) -> RawBatch {
    let mut batch = RawBatch::new(TopicPartition::new("t", 0), Attempt(0), NextOffset(0));
    let len = |bytes: &Bytes| bytes.as_ref().map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap());
    for (offset, (key, value, headers)) in (0..).zip(records) {
        let start = u32::try_from(batch.bytes.len()).unwrap();
        batch.bytes.extend([key, value].into_iter().flatten().flatten());
        let before = batch.bytes.len();
        headers.iter().for_each(|(name, value)| Headers::push(&mut batch.bytes, name.as_bytes(), Some(value)));
        batch.records.push(RawRecord {
            offset,
            timestamp_ms: 0,
            leader_epoch: 0,
            start,
            key_len: len(key),
            value_len: len(value),
            headers_len: u32::try_from(batch.bytes.len() - before).unwrap(),
            timestamp_type: TimestampType::CreateTime,
        });
    }
    batch
}

pub(super) fn framed(id: u8, body: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 0, id], body].concat()
}

#[test]
fn json_without_a_schema_makes_columns_and_loses_nothing() {
    let mut table = Table::new(Format::None, Format::Json);
    let (rows, rejects) = table.values(&[br#"{"a":1,"b":{"c":"x"}}"#, br#"{"a":2}"#, b"[1]", b"{"]);
    assert_eq!(rows, [r#"{a=1,b={c="x"},_rescued=null}"#, "{a=2,b=null,_rescued=null}"]);
    assert_eq!(rejects, [Reason::TypeMismatch, Reason::Truncated]);
    // Another type does not fit; a new member makes a column.
    let (rows, _) = table.values(&[br#"{"a":1.5,"d":true}"#, br#"{"a":"x","b":{"c":"y","e":[1]}}"#]);
    assert_eq!(rows[0], r#"{a=null,b=null,d=true,_rescued="{\"a\":1.5}"}"#);
    assert!(rows[1].contains("e=[1]") && rows[1].contains(r#"{\"a\":\"x\"}"#), "{}", rows[1]);
    // Members whose columns Iceberg could not tell apart are kept none the less, and hold no others up.
    let (rows, rejects) = table.values(&[br#"{"a":3,"b.c":"z","f":1}"#]);
    assert!(
        rows[0].contains("a=3,") && rows[0].contains("f=1,") && rows[0].contains(r#"{\"b.c\":\"z\"}"#),
        "{}",
        rows[0]
    );
    assert!(rejects.is_empty());
}

#[test]
fn members_of_json_do_not_take_the_columns_of_keys() {
    let mut table = Table::new(Format::String, Format::Json);
    let record = |key: &str, value: &str| (Some(key.as_bytes().to_vec()), Some(value.as_bytes().to_vec()), &[][..]);
    let decoded = table.decode(&[record("k1", r#"{"a":1}"#), record("k2", r#"{"key":"other","a":2}"#)]);
    let (rows, _) = rows(&decoded);
    assert!(
        rows[0].contains(r#"key="k1""#) && rows[1].contains(r#"key="k2""#) && rows[1].contains("other"),
        "{rows:?}"
    );
}

#[test]
fn each_message_of_a_file_has_its_columns() {
    let file = r#"syntax = "proto3"; message A { int32 n = 1; } message B { message C { string s = 1; } }"#;
    let mut table = Table::new(Format::None, Format::Registry).knows(SchemaKey::Id(1), SchemaFormat::Protobuf, file);
    let (rows, rejects) = table.values(&[
        &framed(1, &[0, 8, 7]),
        &framed(1, &[4, 2, 0, 10, 1, b'x']),
        &framed(1, &[2, 0, 8, 9]),
        &framed(1, &[2, 18]),
        &framed(1, &[8, 7]),
    ]);
    assert_eq!(rows, ["{n=7,s=null}", r#"{n=null,s="x"}"#, "{n=9,s=null}"]);
    assert_eq!(rejects.len(), 2, "{rejects:?}");
}

#[test]
fn a_header_names_the_schema_and_the_last_one_counts() {
    let long = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"}]}"#;
    let text = r#"{"type":"record","name":"R","fields":[{"name":"s","type":"string"}]}"#;
    let guid = |low: u8| [&[1][..], &[0; 15], &[low]].concat();
    let mut table = Table::new(Format::None, Format::Registry)
        .knows(SchemaKey::Guid(1), SchemaFormat::Avro, long)
        .knows(SchemaKey::Guid(2), SchemaFormat::Avro, text)
        .knows(SchemaKey::Id(3), SchemaFormat::Avro, long);
    let (one, two) = (guid(1), guid(2));
    let name = "__value_schema_id";
    let decoded = table.decode(&[
        (None, Some(vec![14]), &[(name, &one)]),
        (None, Some(vec![2, b'x']), &[(name, &one), ("other", b""), (name, &two)]),
        (None, Some(vec![16]), &[(name, &[0, 0, 0, 0, 3])]),
        (None, Some(framed(3, &[18])), &[]),
        (None, Some(vec![18]), &[(name, &[7])]),
    ]);
    let (rows, rejects) = rows(&decoded);
    assert_eq!(rows, ["{n=7,s=null}", r#"{n=null,s="x"}"#, "{n=8,s=null}", "{n=9,s=null}"]);
    assert_eq!(rejects, [Reason::BadMagicByte]);
}

#[test]
fn a_tombstone_keeps_what_of_its_key_has_columns() {
    let key = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"string"},{"name":"k","type":"int"}]}"#;
    let value = r#"{"type":"record","name":"V","fields":[{"name":"id","type":"long"}]}"#;
    let mut table = Table::new(Format::Registry, Format::Registry)
        .knows(SchemaKey::Id(1), SchemaFormat::Avro, key)
        .knows(SchemaKey::Id(2), SchemaFormat::Avro, value);
    let key = framed(1, &[2, b'a', 6]);
    let decoded = table.decode(&[(Some(key.clone()), Some(framed(2, &[14])), &[]), (Some(key), None, &[])]);
    let (rows, rejects) = rows(&decoded);
    assert_eq!(rows, ["{k=3,id=7}", "{k=3,id=null}"]);
    assert!(rejects.is_empty());
}

fn columns(fields: Vec<Field>) -> TableSchema {
    TableSchema { schema_id: 0, ..TableSchema::of(fields) }
}

/// What becomes of a table with the columns `table` for a schema with `wanted`.
fn change(layout: &Layout, table: &[Field], wanted: &[Field]) -> Result<Option<Vec<String>>, String> {
    let changed = evolved(&columns(table.to_vec()), &columns(wanted.to_vec()), layout)?;
    let show = |field: &Field| format!("{} {}{}", field.name, field.kind, if field.required { "!" } else { "" });
    Ok(changed.map(|table| table.fields.iter().map(show).collect()))
}

#[test]
fn what_a_schema_changes() {
    let extend = layout(TimeAs::Long);
    let branch = Layout { evolution: Evolution::Branch, ..layout(TimeAs::Long) };
    let partitioned = Layout { partitioned: vec!["a".to_owned()], ..layout(TimeAs::Long) };
    let a = |kind: Type| Field::optional("a", kind);
    let map =
        |key: Type| Type::Map(Box::new(Field::required("key", key)), Box::new(Field::optional("value", Type::Int)));
    let record = |names: &[&str]| Type::Struct(names.iter().map(|name| Field::optional(*name, Type::Int)).collect());
    let decimal = |precision| Type::Decimal(precision, 2);
    for (layout, table, wanted, expected) in [
        (&extend, a(Type::Int), a(Type::Int), Ok(None)),
        (&extend, a(Type::Long), a(Type::Int), Ok(None)),
        (&extend, a(Type::Int), a(Type::Long), Ok(Some("a long"))),
        (&extend, a(Type::Float), a(Type::Double), Ok(Some("a double"))),
        (&extend, a(decimal(9)), a(decimal(10)), Ok(Some("a decimal(10, 2)"))),
        (&extend, Field::required("a", Type::Int), a(Type::Int), Ok(Some("a int"))),
        (&extend, Field::required("a", Type::Int), Field::required("a", Type::Int), Ok(None)),
        // One column to engines, and so to us.
        (&extend, a(Type::Int), Field::optional("A", Type::Int), Ok(None)),
        (&extend, a(record(&["x"])), a(record(&["x", "y"])), Ok(Some("a struct<x: int, y: int>"))),
        // Keys that lose a field could become the same key.
        (&extend, a(map(record(&["x"]))), a(map(record(&["x", "y"]))), Err("column `a`")),
        (&extend, a(Type::Int), a(Type::String), Err("column `a` is int in the table and string in the schema")),
        (&extend, a(Type::Long), a(Type::Double), Err("column `a`")),
        (&partitioned, a(Type::Int), a(Type::Long), Err("column `a`")),
        (&branch, a(Type::Int), a(Type::String), Ok(Some("a int; a__string string"))),
        (&branch, a(Type::Int), a(Type::Long), Ok(Some("a long"))),
        (&branch, a(Type::Int), a(record(&["x"])), Ok(Some("a int; a__struct struct<x: int>"))),
    ] {
        let found = change(layout, slice::from_ref(&table), slice::from_ref(&wanted));
        match expected {
            Ok(expected) => {
                let found = found.map(|columns| columns.map(|columns| columns.join("; ")));
                assert_eq!(found, Ok(expected.map(str::to_owned)), "{table:?} {wanted:?}");
            }
            Err(text) => assert!(found.as_ref().is_err_and(|found| found.contains(text)), "{found:?}"),
        }
    }
    // No two columns of one name, and no two fields into one column.
    let (dotted, nested) = (Field::optional("a.x", Type::Int), a(record(&["x"])));
    assert_eq!(change(&extend, &[nested], &[dotted]).unwrap_err(), "two columns would be called `a.x`");
    let both = [a(Type::String), Field::optional("a__string", Type::String)];
    assert!(change(&branch, &[a(Type::Int)], &both).is_err());
}
