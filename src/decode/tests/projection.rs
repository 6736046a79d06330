//! Which of a record's fields become columns and what those are called, in all languages; and which rows are kept.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use proptest::prelude::*;

use super::super::evolution::Evolution;
use super::super::layout::{Format, KeyColumns, Layout};
use super::super::mapping::TimeAs;
use super::super::{Decoding, SchemaKey, cut_at_reject};
use super::together::{Table, framed, rows};
use super::{batch, decoder, layout, offsets};
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::offsets::NextOffset;
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};
use crate::ports::{SchemaFormat, Verdicts};

fn projection(include: Option<&[&str]>, exclude: &[&str], rename: &[(&str, &str)]) -> Arc<Projection> {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rename = rename.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    Arc::new(Projection { include: include.map(owned), exclude: owned(exclude), rename })
}

const AVRO: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},
    {"name":"who","type":{"type":"record","name":"W","fields":[{"name":"name","type":"string"},{"name":"mail","type":"string"}]}},
    {"name":"items","type":{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"sku","type":"string"},{"name":"note","type":"string"}]}}}]}"#;
const PROTOBUF: &str = r#"syntax = "proto3"; message R { int64 id = 1; W who = 2; repeated I items = 3;
    message W { string name = 1; string mail = 2; } message I { string sku = 1; string note = 2; } }"#;
const JSON: &str = r#"{"type":"object","properties":{"id":{"type":"integer"},
    "who":{"type":"object","properties":{"name":{"type":"string"},"mail":{"type":"string"}}},
    "items":{"type":"array","items":{"type":"object","properties":{"sku":{"type":"string"},"note":{"type":"string"}}}}}}"#;

/// The same record in every language: id 7, who n and m, one item of s and t.
fn tables() -> [(Table, Vec<u8>); 4] {
    let known = |format, text| Table::new(Format::None, Format::Registry).knows(SchemaKey::Id(1), format, text);
    let json = br#"{"id":7,"who":{"name":"n","mail":"m"},"items":[{"sku":"s","note":"t"}]}"#;
    [
        (known(SchemaFormat::Avro, AVRO), framed(1, b"\x0e\x02n\x02m\x02\x02s\x02t\x00")),
        (
            known(SchemaFormat::Protobuf, PROTOBUF),
            framed(1, b"\x00\x08\x07\x12\x06\x0a\x01n\x12\x01m\x1a\x06\x0a\x01s\x12\x01t"),
        ),
        (known(SchemaFormat::Json, JSON), framed(1, json)),
        (Table::new(Format::None, Format::Json), json.to_vec()),
    ]
}

#[test]
fn all_languages_have_the_columns_that_are_chosen() {
    type Choice<'a> = (Option<&'a [&'a str]>, &'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [(Choice<'_>, &str); 9] = [
        ((None, &[], &[]), r#"{id=7,who={name="n",mail="m"},items=[{sku="s",note="t"}]}"#),
        ((Some(&["ID", "items"]), &[], &[]), r#"{id=7,items=[{sku="s",note="t"}]}"#),
        ((None, &["who", "later"], &[]), r#"{id=7,items=[{sku="s",note="t"}]}"#),
        ((None, &["who.Mail", "items.element.note"], &[]), r#"{id=7,who={name="n"},items=[{sku="s"}]}"#),
        ((Some(&["who.mail"]), &[], &[]), r#"{who={mail="m"}}"#),
        (
            (Some(&["who", "items"]), &["who.mail"], &[("who", "customer")]),
            r#"{customer={name="n"},items=[{sku="s",note="t"}]}"#,
        ),
        ((None, &["who.name", "who.mail", "items.element"], &[]), "{id=7}"),
        ((None, &["items"], &[("id", "who"), ("who", "id")]), r#"{who=7,id={name="n",mail="m"}}"#),
        ((Some(&["nothing"]), &[], &[]), "{}"),
    ];
    for ((include, exclude, rename), expected) in cases {
        for (mut table, record) in tables() {
            table.layout.projection = projection(include, exclude, rename);
            // Before the table has its columns, and when it has them.
            for _ in 0..2 {
                let (rows, rejects) = table.values(&[&record]);
                assert!(rejects.is_empty(), "{exclude:?} {rename:?} {rejects:?}");
                let row = rows[0].replace(",_rescued=null", "").replace("_rescued=null", "");
                // Without a schema nobody knows that nothing is in there.
                let row = row.replace(r#",_rescued="{\"who\":{},\"items\":[]}""#, "");
                assert_eq!(row, expected, "{include:?} {exclude:?} {rename:?}");
            }
        }
    }
}

#[test]
fn what_is_left_out_later_is_null_from_there_on() {
    for (mut table, record) in tables() {
        table.values(&[&record]);
        table.layout.projection = projection(None, &["id", "who.mail", "items"], &[]);
        let (rows, _) = table.values(&[&record]);
        assert!(rows[0].starts_with(r#"{id=null,who={name="n",mail=null},items=null"#), "{}", rows[0]);
        assert!(!rows[0].contains("_rescued=\""), "{}", rows[0]);
    }
}

#[test]
fn a_new_field_has_a_column_where_it_is_chosen() {
    let more = |field: &str| AVRO.replace("]}}}]}", &format!(r#"]}}}}}},{{"name":"{field}","type":"long"}}]}}"#));
    let record = |id| framed(id, b"\x0e\x02n\x02m\x02\x02s\x02t\x00\x04");
    let mut table = Table::new(Format::None, Format::Registry)
        .knows(SchemaKey::Id(1), SchemaFormat::Avro, &more("added"))
        .knows(SchemaKey::Id(2), SchemaFormat::Avro, &more("other"));
    table.layout.projection = projection(Some(&["id", "added"]), &[], &[("added", "late")]);
    let (rows, rejects) = table.values(&[&record(2), &record(1)]);
    assert_eq!((rows, rejects), (vec!["{id=7,late=null}".to_owned(), "{id=7,late=2}".to_owned()], vec![]));

    // A second column for values of another type is called after the column, and belongs to the field.
    let text = AVRO.replace(r#""id","type":"long""#, r#""id","type":"string""#);
    let mut table = Table::new(Format::None, Format::Registry).knows(SchemaKey::Id(1), SchemaFormat::Avro, AVRO).knows(
        SchemaKey::Id(2),
        SchemaFormat::Avro,
        &text,
    );
    table.layout.evolution = Evolution::Branch;
    table.layout.projection = projection(Some(&["id"]), &[], &[("id", "number")]);
    let (rows, rejects) = table.values(&[&framed(1, b"\x0e\x02n\x02m\x00"), &framed(2, b"\x02x\x02n\x02m\x00")]);
    assert_eq!(rows, ["{number=7,number__string=null}", r#"{number=null,number__string="x"}"#]);
    assert!(rejects.is_empty());
}

#[test]
fn two_fields_of_a_record_cannot_be_one_column() {
    let both = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"},{"name":"B","type":"long"}]}"#;
    let one = |name: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"long"}}]}}"#);
    let mut table = Table::new(Format::None, Format::Registry)
        .knows(SchemaKey::Id(1), SchemaFormat::Avro, both)
        .knows(SchemaKey::Id(2), SchemaFormat::Avro, &one("a"))
        .knows(SchemaKey::Id(3), SchemaFormat::Avro, &one("b"));
    table.layout.projection = projection(None, &[], &[("a", "b")]);
    let (rows, rejects) = table.values(&[&framed(1, &[2, 4]), &framed(2, &[6]), &framed(3, &[8])]);
    assert_eq!((rows, rejects), (vec!["{b=3}".to_owned(), "{b=4}".to_owned()], vec![Reason::IncompatibleSchema]));
    // Members of JSON are told apart, whatever comes first.
    let mut table = Table::new(Format::None, Format::Json);
    table.layout.projection = projection(None, &[], &[("a", "b")]);
    let (rows, _) = table.values(&[br#"{"b":1}"#, br#"{"a":2}"#, br#"{"b":3,"a":4}"#]);
    let (rows, again) = (rows, table.values(&[br#"{"a":5,"b":6}"#]).0);
    assert_eq!(
        rows[2].replace(",_rescued=null", ""),
        again[0].replace(",_rescued=null", "").replace('5', "4").replace('6', "3")
    );
    assert!(rows[0].contains("b_2=1") && rows[0].contains("b=null"), "{rows:?}");
}

#[test]
fn keys_are_chosen_among_as_values_are() {
    let record = |columns: KeyColumns, include: Option<&[&str]>, exclude: &[&str], rename: &[(&str, &str)]| {
        let key = r#"{"type":"record","name":"K","fields":[{"name":"id","type":"string"},{"name":"k","type":"int"}]}"#;
        let value = r#"{"type":"record","name":"V","fields":[{"name":"id","type":"long"}]}"#;
        let mut table = Table::new(Format::Registry, Format::Registry)
            .knows(SchemaKey::Id(1), SchemaFormat::Avro, key)
            .knows(SchemaKey::Id(2), SchemaFormat::Avro, value);
        table.layout =
            Layout { key_columns: columns, projection: projection(include, exclude, rename), ..table.layout };
        let key = Some(framed(1, &[2, b'a', 6]));
        let decoded = table.decode(&[(key.clone(), Some(framed(2, &[14])), &[]), (key, None, &[])]);
        let (rows, rejects) = rows(&decoded);
        assert!(rejects.is_empty(), "{rejects:?}");
        rows.join(" ")
    };
    assert_eq!(record(KeyColumns::Flatten, None, &["k"], &[]), "{id=7} {id=null}");
    assert_eq!(
        record(KeyColumns::Flatten, None, &[], &[("k", "number"), ("id", "k")]),
        "{number=3,k=7} {number=3,k=null}"
    );
    // The value's field of a name has the name for itself, even where it is left out.
    assert_eq!(record(KeyColumns::Flatten, None, &["id"], &[]), "{k=3} {k=3}");
    assert_eq!(record(KeyColumns::Struct, None, &["key.id"], &[("key", "of")]), "{of={k=3},id=7} {of={k=3},id=null}");
    assert_eq!(record(KeyColumns::Struct, Some(&["id"]), &[], &[]), "{id=7} {id=null}");
    // Text in one column has the name of its side.
    let mut table = Table::new(Format::String, Format::String);
    table.layout.projection = projection(None, &["key"], &[("value", "line")]);
    let decoded = table.decode(&[(Some(b"k".to_vec()), Some(b"v".to_vec()), &[])]);
    assert_eq!(rows(&decoded).0, [r#"{line="v"}"#]);
}

#[test]
fn what_is_left_out_of_json_is_not_rescued() {
    let schema = r#"{"type":"object","properties":{"n":{"type":"integer"},"secret":{"type":"string"},"any":{},
        "o":{"type":"object","properties":{"x":{"type":"integer"},"secret":{"type":"string"}}},
        "l":{"type":"array","items":{"type":"object","properties":{"x":{"type":"integer"},"secret":{"type":"string"}}}},
        "u":{"oneOf":[{"title":"A","type":"object","properties":{"x":{"type":"integer"},"secret":{"type":"string"}},"required":["x"]},{"type":"integer"}]}}}"#;
    let exclude =
        ["secret", "more", "o.secret", "l.element.secret", "any.secret", "u.A.secret", "u.secret", "new.secret"];
    let records: [&[u8]; 9] = [
        br#"{"n":"x","secret":"SECRET"}"#,
        br#"{"n":1,"more":{"deep":"SECRET"},"kept":[1]}"#,
        br#"{"o":{"x":"y","secret":"SECRET"}}"#,
        br#"{"l":[{"x":1,"secret":"SECRET"},{"x":"y","secret":"SECRET","\u0073ecret":"SECRET"}]}"#,
        br#"{"any":{"secret":"SECRET","b":[1,2.50]}}"#,
        br#"{"new":{"secret":"SECRET","b":{"secret":"fine"}}}"#,
        br#"{"new":[{"secret":"fine"}],"o":7}"#,
        br#"{"u":{"x":"y","secret":"SECRET"}}"#,
        br#"{"\u0073ecret":"SECRET","Secret":"SECRET"}"#,
    ];
    for mut table in [
        Table::new(Format::None, Format::Registry).knows(SchemaKey::Id(1), SchemaFormat::Json, schema),
        Table::new(Format::None, Format::Json),
    ] {
        table.layout.projection = projection(None, &exclude, &[]);
        let framed: Vec<Vec<u8>> = records.iter().map(|record| framed(1, record)).collect();
        for record in 0..records.len() {
            let record = if table.sides.value == Format::Json { records[record] } else { &framed[record] };
            // By itself, when its columns are there, and after records of other types.
            for _ in 0..2 {
                let (rows, rejects) = table.values(&[record]);
                assert!(rejects.is_empty() && !rows[0].contains("SECRET"), "{}", rows[0]);
            }
        }
        let (rows, _) = table.values(&[if table.sides.value == Format::Json { records[3] } else { &framed[3] }]);
        assert!(rows[0].contains(r#"\"y\""#), "{}", rows[0]);
    }
}

/// Verdicts of a filter as arbitrary as they come.
fn verdict() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![3 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)]
}

fn verdicts(kept: &[Option<bool>], rows: &RecordBatch) -> Verdicts {
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| kept[row % kept.len()]).collect();
    let fails = |row: &usize| row.is_multiple_of(3) && kept.is_null(*row);
    Verdicts { failed: (0..rows.num_rows()).filter(fails).map(|row| (row, "it fails")).collect(), kept }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_a_row_or_a_reject_or_left_out(
        values in proptest::collection::vec(proptest::option::of(proptest::option::of(0..60_u8)), 1..40),
        kept in proptest::collection::vec(verdict(), 1..9),
    ) {
        let text = r#"{"type":"record","name":"R","fields":[{"name":"f","type":"long"}]}"#;
        // Good, bad, or without value.
        let records: Vec<_> = values.iter().map(|value| value.map(|value| value.map_or(vec![7], |n| framed(1, &[2 * n])))).collect();
        let decoder = decoder(layout(TimeAs::Long), &[text]);
        let plain = super::decide(&decoder, &records);
        let filter = |rows: &RecordBatch| Ok(Some(verdicts(&kept, rows)));
        let Decoding::Done(mut sifted) = decoder.decode_filtered(batch(&records), 0, &filter).unwrap() else { unreachable!() };
        let rejected = |batch: &DecodedBatch| batch.rejects.iter().map(|reject| usize::try_from(reject.record.offset).unwrap()).collect::<Vec<_>>();
        let left_out = |batch: &DecodedBatch| batch.filtered.iter().map(|offset| usize::try_from(*offset).unwrap()).collect::<Vec<_>>();
        let mut all = [offsets(&sifted), rejected(&sifted), left_out(&sifted)].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..records.len()).collect::<Vec<_>>(), "a record is lost or there twice");
        // Each row goes by its own verdict, with its own record.
        for (row, offset) in offsets(&plain).into_iter().enumerate() {
            let expected = kept[row % kept.len()];
            prop_assert_eq!(offsets(&sifted).contains(&offset), expected == Some(true));
            prop_assert_eq!(left_out(&sifted).contains(&offset), expected == Some(false));
            if let Some(reject) = sifted.rejects.iter().find(|reject| reject.record.offset == i64::try_from(offset).unwrap()) {
                prop_assert_eq!((reject.reason, &reject.value), (Reason::FilterUndecided, &records[offset]));
                let message = if row % 3 == 0 { "it fails" } else { "`where` is null" };
                prop_assert_eq!(reject.message.as_str(), message);
            }
        }
        prop_assert!(rejected(&sifted).is_sorted() && left_out(&sifted).is_sorted());
        // A table that is suspended at its first reject has read nothing behind it.
        let first = rejected(&sifted).first().copied();
        cut_at_reject(&layout(TimeAs::Long), &mut sifted);
        let mut before = [offsets(&sifted), left_out(&sifted)].concat();
        before.sort_unstable();
        prop_assert_eq!(before, (0..first.unwrap_or(records.len())).collect::<Vec<_>>());
        if let Some(first) = first {
            prop_assert_eq!(sifted.next, NextOffset(i64::try_from(first).unwrap()));
        }
    }
}

#[test]
fn nothing_is_copied_where_all_rows_are_kept() {
    let text = r#"{"type":"record","name":"R","fields":[{"name":"f","type":"long"}]}"#;
    let decoder = decoder(layout(TimeAs::Long), &[text]);
    let records: Vec<_> = (0..9).map(|n| Some(framed(1, &[2 * n]))).collect();
    let seen = std::cell::RefCell::new(None);
    let filter = |rows: &RecordBatch| {
        *seen.borrow_mut() = Some(rows.clone());
        Ok(Some(verdicts(&[Some(true)], rows)))
    };
    let Decoding::Done(decoded) = decoder.decode_filtered(batch(&records), 0, &filter).unwrap() else { unreachable!() };
    let address = |rows: &RecordBatch| rows.column(0).to_data().buffers()[0].as_ptr();
    assert_eq!(address(&decoded.rows), address(&seen.into_inner().unwrap()));
}

#[test]
fn names_that_no_field_has_are_told() {
    let inner = Type::Struct(vec![Field::optional("b", Type::Int)]);
    let list = Type::List(Box::new(Field::optional("element", inner.clone())));
    let fields = [Field::optional("a", inner), Field::optional("l", list)];
    let chosen = projection(Some(&["A.B", "l.element.b", "l.b", "x"]), &["a.c"], &[("L", "m"), ("y", "z")]);
    assert_eq!(chosen.unknown(&fields), ["l.b", "x", "a.c", "y"]);
}
