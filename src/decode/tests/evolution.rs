//! Versions of a schema that alternate in a topic: what each kind of change does to the table, in each language and at
//! each place of a record, whichever version is met first.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, Fields, Float32Type, Float64Type};

use super::super::evolution::Evolution;
use super::super::layout::{Format, Layout};
use super::super::{SchemaKey, Sides};
use super::show;
use super::together::Table;
use super::versions::{F, Kind, LANGUAGES, PLACES, Place, f, record, text};
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};
use crate::ports::SchemaFormat;

use Evolution::{Branch, Extend, Full, Strict};
use Kind::{Double, Float, Int, Long, Text};

/// What is to become of two versions of a record. Columns are `name type`, sorted; rows the values that are not null,
/// of a record of each version.
#[derive(Clone, Copy)]
enum Outcome<'a> {
    Rows(&'a str, &'a [&'a str]),
    /// Records of the second version are dead letters.
    Rejects(&'a str),
    /// The second version suspends the table; the text names the column.
    Suspends(&'a str),
}

use Outcome::{Rejects, Rows, Suspends};

/// Both versions, the evolution, what follows with Avro and Protobuf, and with JSON where that is something else.
type Case<'a> = (&'a [F], &'a [F], Evolution, Outcome<'a>, Option<Outcome<'a>>);

/// The fields at `place` in a row.
fn at(rows: &RecordBatch, index: usize, place: Place) -> (Fields, Vec<ArrayRef>, usize) {
    let parts = |row: &StructArray, index| (row.fields().clone(), row.columns().to_vec(), index);
    let n = || rows.column_by_name("n").expect("a column `n`");
    match place {
        Place::Top => (rows.schema().fields().clone(), rows.columns().to_vec(), index),
        Place::Struct => parts(n().as_struct(), index),
        Place::List => parts(n().as_list::<i32>().value(index).as_struct(), 0),
        Place::Map => parts(n().as_map().value(index).column(1).as_struct(), 0),
    }
}

fn row(rows: &RecordBatch, index: usize, place: Place) -> String {
    let (fields, columns, index) = at(rows, index, place);
    let shown = fields.iter().zip(&columns).filter(|(field, column)| {
        !["kafka_offset", "_rescued"].contains(&field.name().as_str()) && column.is_valid(index)
    });
    let mut shown: Vec<String> = shown
        .map(|(field, column)| match column.data_type() {
            DataType::Float32 => format!("{}={}", field.name(), column.as_primitive::<Float32Type>().value(index)),
            DataType::Float64 => format!("{}={}", field.name(), column.as_primitive::<Float64Type>().value(index)),
            _ => format!("{}={}", field.name(), show(column, index).replace('"', "")),
        })
        .collect();
    shown.sort();
    shown.join(" ")
}

/// The columns at `place`, `name type`, sorted.
fn columns(table: &Table, place: Place) -> String {
    let n = || &table.columns.field("n").expect("a column `n`").kind;
    let fields: &[Field] = match (place, table.columns.field("n").map(|_| n())) {
        (Place::Top, _) => &table.columns.fields,
        (Place::Struct, Some(Type::Struct(fields))) => fields,
        (Place::List, Some(Type::List(element))) => match &element.kind {
            Type::Struct(fields) => fields,
            other => panic!("{other}"),
        },
        (Place::Map, Some(Type::Map(_, value))) => match &value.kind {
            Type::Struct(fields) => fields,
            other => panic!("{other}"),
        },
        (place, other) => panic!("{place:?} {other:?}"),
    };
    let shown = fields.iter().filter(|field| !["kafka_offset", "_rescued"].contains(&field.name.as_str()));
    let mut shown: Vec<String> = shown.map(|field| format!("{} {}", field.name, field.kind)).collect();
    shown.sort();
    shown.join(", ")
}

/// A table whose registry knows `versions`, ids from 1.
fn table(language: SchemaFormat, place: Place, versions: &[&[F]], evolution: Evolution) -> Table {
    let mut table = Table::new(Format::None, Format::Registry);
    table.layout = Layout { evolution, ..table.layout };
    table.sides = Sides { key: Format::None, value: Format::Registry };
    for (id, version) in (1..).zip(versions) {
        table = table.knows(SchemaKey::Id(id), language, &text(language, place, version));
    }
    table
}

/// A record of version `version`, which is also what tells its values from others'.
fn framed(language: SchemaFormat, place: Place, versions: &[&[F]], version: u32) -> Vec<u8> {
    let index: &[u8] = if language == SchemaFormat::Protobuf { &[0] } else { &[] };
    let body = record(language, place, versions[version as usize - 1], version);
    [&[0], &version.to_be_bytes()[..], index, &body].concat()
}

/// Decodes records of these versions, in this order.
fn decode(
    table: &mut Table,
    language: SchemaFormat,
    place: Place,
    versions: &[&[F]],
    order: &[u32],
) -> Result<DecodedBatch, String> {
    let values: Vec<_> = order.iter().map(|version| framed(language, place, versions, *version)).collect();
    table.try_decode(&values.into_iter().map(|value| (None, Some(value), &[][..])).collect::<Vec<_>>())
}

#[track_caller]
fn check(language: SchemaFormat, place: Place, (old, new, evolution, outcome, of_json): &Case<'_>) {
    let outcome = of_json.filter(|_| language == SchemaFormat::Json).unwrap_or(*outcome);
    let versions = [*old, *new];
    let say = format!("{language:?} {place:?} {evolution:?} {old:?} {new:?}");
    let orders: &[&[u32]] = if let Rows(..) = outcome { &[&[1, 2, 1, 2], &[2, 1, 1, 2]] } else { &[&[1, 2, 1, 2]] };
    for order in orders {
        let mut table = table(language, place, &versions, *evolution);
        let decoded = decode(&mut table, language, place, &versions, order);
        match outcome {
            Rows(expected, rows) => {
                let decoded = decoded.unwrap_or_else(|misfit| panic!("{say}: {misfit}"));
                assert!(decoded.rejects.is_empty(), "{say}: {}", decoded.rejects[0].message);
                assert_eq!(columns(&table, place), expected, "{say} {order:?}");
                for (index, version) in order.iter().enumerate() {
                    assert_eq!(row(&decoded.rows, index, place), rows[*version as usize - 1], "{say} {order:?}");
                }
            }
            Rejects(expected) => {
                let decoded = decoded.unwrap();
                assert_eq!(columns(&table, place), expected, "{say}");
                let offsets: Vec<_> = decoded.rejects.iter().map(|reject| reject.record.offset).collect();
                assert_eq!(offsets, [1, 3], "{say}");
                assert_eq!(decoded.rejects[0].reason, Reason::IncompatibleSchema, "{say}");
            }
            Suspends(text) => {
                let misfit = decoded.map(|_| ()).unwrap_err();
                assert!(misfit.contains(text), "{say}: {misfit}");
            }
        }
    }
}

#[test]
fn every_change_in_every_language_at_every_place() {
    let a = |kind| f(1, "a", kind);
    let b = |kind| f(2, "b", kind);
    let renamed = || f(1, "b", Long).alias("a");
    let cases: &[Case<'_>] = &[
        (&[a(Long)], &[a(Long), b(Text).optional()], Extend, Rows("a long, b string", &["a=11", "a=12 b=t22"]), None),
        (&[a(Long)], &[a(Long), b(Text)], Extend, Rows("a long, b string", &["a=11", "a=12 b=t22"]), None),
        (&[a(Int)], &[a(Long)], Extend, Rows("a long", &["a=11", "a=12"]), None),
        (&[a(Float)], &[a(Double)], Extend, Rows("a double", &["a=11.5", "a=12.5"]), None),
        (&[a(Long)], &[a(Long).optional()], Extend, Rows("a long", &["a=11", "a=12"]), None),
        (&[a(Long).optional()], &[a(Long)], Extend, Rows("a long", &["a=11", "a=12"]), None),
        (&[a(Long), b(Text)], &[a(Long)], Extend, Rows("a long, b string", &["a=11 b=t21", "a=12"]), None),
        (
            &[a(Long), b(Text)],
            &[b(Text), a(Long)],
            Extend,
            Rows("a long, b string", &["a=11 b=t21", "a=12 b=t22"]),
            None,
        ),
        // A rename, and a rename with a promotion. To JSON Schema these are two members.
        (
            &[a(Long)],
            &[renamed()],
            Extend,
            Rows("b long", &["b=11", "b=12"]),
            Some(Rows("a long, b long", &["a=11", "b=12"])),
        ),
        (
            &[a(Int)],
            &[renamed()],
            Extend,
            Rows("b long", &["b=11", "b=12"]),
            Some(Rows("a int, b long", &["a=11", "b=12"])),
        ),
        (
            &[a(Long)],
            &[renamed()],
            Branch,
            Rows("b long", &["b=11", "b=12"]),
            Some(Rows("a long, b long", &["a=11", "b=12"])),
        ),
        // Another field took over number and alias.
        (&[a(Long)], &[f(1, "b", Text).alias("a")], Extend, Rows("a long, b string", &["a=11", "b=t12"]), None),
        // Any other change of a type.
        (&[a(Long)], &[a(Text)], Extend, Rejects("a long"), None),
        (&[a(Long)], &[a(Text)], Full, Rejects("a long"), None),
        (&[a(Long)], &[a(Text)], Strict, Suspends("a` is long in the table and string"), None),
        // Below the top as well.
        (&[a(Long)], &[a(Long), b(Text)], Strict, Rows("a long, b string", &["a=11", "a=12 b=t22"]), None),
        (&[a(Int)], &[a(Long)], Strict, Rows("a long", &["a=11", "a=12"]), None),
    ];
    for language in LANGUAGES {
        for place in PLACES {
            cases.iter().for_each(|case| check(language, place, case));
        }
    }
}

#[test]
fn a_field_of_another_type_branches_off_and_is_found_under_its_new_name() {
    let versions =
        [&[f(1, "a", Long)][..], &[f(1, "a", Text)], &[f(1, "b", Long).alias("a")], &[f(1, "b", Text).alias("a")]];
    for language in [SchemaFormat::Avro, SchemaFormat::Protobuf] {
        for place in PLACES {
            let mut made = table(language, place, &versions, Branch);
            let first = decode(&mut made, language, place, &versions, &[1, 2]).unwrap();
            assert_eq!(row(&first.rows, 1, place), "a__string=t12", "{language:?} {place:?}");
            let decoded = decode(&mut made, language, place, &versions, &[1, 2, 3, 4]).unwrap();
            let rows: Vec<_> = (0..4).map(|index| row(&decoded.rows, index, place)).collect();
            assert_eq!(rows, ["b=11", "a__string=t12", "b=13", "a__string=t14"], "{language:?} {place:?}");
            assert_eq!(columns(&made, place), "a__string string, b long");
        }
    }
}

#[test]
fn renames_follow_each_other_in_any_order_of_versions() {
    let versions = [&[f(1, "a", Long)][..], &[f(1, "b", Long).alias("a")], &[f(1, "c", Long).alias("b").alias("a")]];
    for language in [SchemaFormat::Avro, SchemaFormat::Protobuf] {
        for place in PLACES {
            for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
                let mut table = table(language, place, &versions, Extend);
                for order in [order, [1, 2, 3]] {
                    let decoded = decode(&mut table, language, place, &versions, &order).unwrap();
                    assert_eq!(columns(&table, place), "c long", "{language:?} {place:?} {order:?}");
                    for (index, version) in order.into_iter().enumerate() {
                        assert_eq!(row(&decoded.rows, index, place), format!("c=1{version}"), "{language:?} {place:?}");
                    }
                }
                let changes = table.changes;
                decode(&mut table, language, place, &versions, &[3, 2, 1]).unwrap();
                assert_eq!(table.changes, changes, "{language:?} {place:?} {order:?}: no name is given twice");
            }
        }
    }
}

/// Renames at the top: old and new fields, columns that the configuration names, the columns and a new record's row.
#[test]
fn names_that_are_counted_on_or_taken_stay() {
    let (a, b) = (|| f(1, "a", Long), || f(2, "b", Long));
    let (one_is_b, two_is_a) = (f(1, "b", Long).alias("a"), f(2, "a", Long).alias("b"));
    for (language, old, new, pinned, columns_after, row_after) in [
        (SchemaFormat::Avro, vec![a()], vec![one_is_b.clone()], "a", "a long", "a=12"),
        (SchemaFormat::Protobuf, vec![a()], vec![one_is_b.clone()], "a", "a long", "a=12"),
        (SchemaFormat::Protobuf, vec![a()], vec![one_is_b.clone()], "a.b", "a long", "a=12"),
        (SchemaFormat::Protobuf, vec![a()], vec![one_is_b.clone()], "b", "b long", "b=12"),
        // To Avro the new `b` is the old one, whatever its aliases say; to Protobuf the old `a`, under its name.
        (SchemaFormat::Avro, vec![a(), b()], vec![one_is_b.clone()], "", "a long, b long", "b=12"),
        (SchemaFormat::Protobuf, vec![a(), b()], vec![one_is_b.clone()], "", "a long, b long", "a=12"),
        // Names change places, which Avro's aliases cannot say.
        (
            SchemaFormat::Avro,
            vec![a(), b()],
            vec![one_is_b.clone(), two_is_a.clone()],
            "",
            "a long, b long",
            "a=22 b=12",
        ),
        (SchemaFormat::Protobuf, vec![a(), b()], vec![one_is_b.clone(), two_is_a], "", "a long, b long", "a=22 b=12"),
        // The name goes to a new field.
        (SchemaFormat::Protobuf, vec![a()], vec![one_is_b.clone(), f(3, "a", Long)], "", "a long, b long", "a=32 b=12"),
        (SchemaFormat::Protobuf, vec![a()], vec![one_is_b, f(3, "a", Long)], "a", "a long, a_2 long", "a=12 a_2=32"),
        // A field that moved to another number.
        (SchemaFormat::Protobuf, vec![a()], vec![f(4, "a", Long)], "", "a long", "a=42"),
    ] {
        let versions = [&old[..], &new[..]];
        let mut table = table(language, Place::Top, &versions, Extend);
        table.layout.pinned = vec![pinned.to_owned()];
        for order in [[1, 2], [2, 1]] {
            let decoded = decode(&mut table, language, Place::Top, &versions, &order).unwrap();
            assert!(decoded.rejects.is_empty());
            let at = order.iter().position(|version| *version == 2).unwrap();
            let say = format!("{language:?} {old:?} {new:?} {pinned}");
            assert_eq!(row(&decoded.rows, at, Place::Top), row_after, "{say}");
            assert_eq!(columns(&table, Place::Top), columns_after, "{say}");
        }
        assert!(table.changes <= 3, "it comes to rest");
    }
}

#[test]
fn strict_refuses_a_rename_and_takes_older_versions() {
    for language in [SchemaFormat::Avro, SchemaFormat::Protobuf] {
        for place in PLACES {
            let versions = [&[f(1, "a", Long)][..], &[f(1, "b", Long).alias("a")]];
            let mut made = table(language, place, &versions, Strict);
            let misfit = decode(&mut made, language, place, &versions, &[1, 2]).map(|_| ()).unwrap_err();
            assert!(misfit.contains("a` is called `b` in the schema"), "{misfit}");
            let mut made = table(language, place, &versions, Strict);
            let decoded = decode(&mut made, language, place, &versions, &[2, 1]).unwrap();
            assert_eq!(row(&decoded.rows, 1, place), "b=11", "{language:?} {place:?}");
        }
    }
}

#[test]
fn full_drops_what_the_newest_version_has_no_more() {
    let versions =
        [&[f(1, "a", Long), f(2, "b", Text)][..], &[f(1, "a", Long)], &[f(1, "a", Long), f(3, "c", Text).optional()]];
    for language in LANGUAGES {
        for place in PLACES {
            let say = format!("{language:?} {place:?}");
            let mut made = table(language, place, &versions, Full);
            for (order, expected) in [
                (&[1][..], "a long, b string"),
                (&[1, 2], "a long, b string"),
                // Both were needed in one batch; on its own the second version has no use for `b`, but it had its turn.
                (&[2], "a long, b string"),
                (&[3], "a long, c string"),
                (&[3, 2], "a long, c string"),
                // An old record brings it back, and it is not dropped again by versions that are known.
                (&[1], "a long, b string, c string"),
                (&[2, 3, 1], "a long, b string, c string"),
            ] {
                let decoded = decode(&mut made, language, place, &versions, order).unwrap();
                assert!(decoded.rejects.is_empty(), "{say}");
                assert_eq!(columns(&made, place), expected, "{say} {order:?}");
                for (index, version) in order.iter().enumerate() {
                    let expected = ["a=11 b=t21", "a=12", "a=13 c=t33"][*version as usize - 1];
                    assert_eq!(row(&decoded.rows, index, place), expected, "{say} {order:?}");
                }
            }
            let mut made = table(language, place, &versions, Full);
            for (order, expected) in [(&[1][..], "a long, b string"), (&[2], "a long"), (&[3], "a long, c string")] {
                decode(&mut made, language, place, &versions, order).unwrap();
                assert_eq!(columns(&made, place), expected, "{say} {order:?}");
            }
        }
    }
}

#[test]
fn a_column_of_key_and_value_stays_one_when_the_value_renames_it() {
    let key = [f(1, "id", Long)];
    let old = [f(1, "id", Long), f(2, "x", Text)];
    let new = [f(1, "order_id", Long).alias("id"), f(2, "x", Text)];
    for language in [SchemaFormat::Avro, SchemaFormat::Protobuf] {
        let mut made = Table::new(Format::Registry, Format::Registry);
        for (id, fields) in (1..).zip([&key[..], &old, &new]) {
            let text = text(language, Place::Top, fields).replace('R', if id == 1 { "K" } else { "R" });
            made = made.knows(SchemaKey::Id(id), language, &text);
        }
        let written = |id: u32, fields: &[F], seed: u32| {
            let index: &[u8] = if language == SchemaFormat::Protobuf { &[0] } else { &[] };
            Some([&[0], &id.to_be_bytes()[..], index, &record(language, Place::Top, fields, seed)].concat())
        };
        let (first, second, gone) = (
            (written(1, &key, 1), written(2, &old, 2), &[][..]),
            (written(1, &key, 3), written(3, &new, 4), &[][..]),
            (written(1, &key, 5), None, &[][..]),
        );
        for (records, expected) in [
            (vec![first.clone(), gone.clone()], vec!["id=12 x=t22", "id=15"]),
            (
                vec![second.clone(), first.clone(), gone.clone()],
                vec!["order_id=14 x=t24", "order_id=12 x=t22", "order_id=15"],
            ),
            (vec![gone, first, second], vec!["order_id=15", "order_id=12 x=t22", "order_id=14 x=t24"]),
        ] {
            let decoded = made.try_decode(&records).unwrap();
            let rows: Vec<_> = (0..records.len()).map(|index| row(&decoded.rows, index, Place::Top)).collect();
            assert_eq!(rows, expected, "{language:?}");
        }
        assert_eq!(columns(&made, Place::Top), "order_id long, x string", "{language:?}");
    }
}

#[test]
fn a_choice_of_columns_goes_with_renames() {
    let old = [f(1, "a", Long), f(2, "secret", Text), f(3, "x", Long)];
    let new = [f(1, "b", Long).alias("a"), f(2, "hidden", Text).alias("secret"), f(3, "y", Long).alias("x")];
    let choice = |include: Option<&[&str]>, exclude: &[&str], place| {
        let inside = ["", "n.", "n.element.", ""][place as usize];
        let paths = |names: &[&str]| names.iter().map(|name| format!("{inside}{name}")).collect::<Vec<_>>();
        let rename = if place == Place::Top { vec![("a".to_owned(), "z".to_owned())] } else { Vec::new() };
        Projection { include: include.map(paths), exclude: paths(exclude), rename: rename.into_iter().collect() }
    };
    for place in [Place::Top, Place::Struct, Place::List] {
        let a = if place == Place::Top { "z" } else { "b" };
        for (include, exclude, has_x) in
            [(None, &["secret"][..], true), (Some(&["a"][..]), &[], false), (Some(&["a", "x"]), &[], true)]
        {
            for order in [[1, 2], [2, 1]] {
                let mut made = table(SchemaFormat::Avro, place, &[&old, &new], Extend);
                made.layout.projection = Arc::new(choice(include, exclude, place));
                let decoded = decode(&mut made, SchemaFormat::Avro, place, &[&old, &new], &order).unwrap();
                let say = format!("{place:?} {include:?} {exclude:?} {order:?}");
                assert!(decoded.rejects.is_empty(), "{say}");
                let mut expected = vec![format!("{a} long")];
                expected.extend(has_x.then(|| "y long".to_owned()));
                expected.sort();
                let expected = expected.join(", ");
                assert_eq!(columns(&made, place), expected, "{say}");
                for (index, version) in order.into_iter().enumerate() {
                    let row = row(&decoded.rows, index, place);
                    assert!(row.contains(&format!("{a}=1{version}")), "{say}: {row}");
                    assert_eq!(row.contains(&format!("y=3{version}")), has_x, "{say}: {row}");
                }
            }
        }
    }
    // A number's new name is no name of the choice; but the name that the configuration gives stays.
    for order in [[1, 2], [2, 1]] {
        let (language, versions) = (SchemaFormat::Protobuf, [&old[..1], &new[..1]]);
        let mut made = table(language, Place::Top, &versions, Extend);
        made.layout.projection = Arc::new(choice(None, &[], Place::Top));
        decode(&mut made, language, Place::Top, &versions, &[1]).unwrap();
        let decoded = decode(&mut made, language, Place::Top, &versions, &order).unwrap();
        assert_eq!(columns(&made, Place::Top), "z long");
        for (index, version) in order.into_iter().enumerate() {
            assert_eq!(row(&decoded.rows, index, Place::Top), format!("z=1{version}"));
        }
    }
}

#[test]
fn full_drops_nothing_that_is_only_left_out_or_of_the_other_side() {
    let versions = [&[f(1, "a", Long), f(2, "b", Text)][..], &[f(1, "a", Long), f(2, "b", Text), f(3, "c", Long)]];
    for language in LANGUAGES {
        let mut made = table(language, Place::Top, &versions, Full);
        decode(&mut made, language, Place::Top, &versions, &[1]).unwrap();
        made.layout.projection = Arc::new(Projection { exclude: vec!["b".to_owned()], ..Projection::default() });
        decode(&mut made, language, Place::Top, &versions, &[2]).unwrap();
        assert_eq!(columns(&made, Place::Top), "a long, b string, c long", "{language:?}");
    }
    // Keys and values of one type name, as Connect writes them; the newer key comes without a value.
    let (key, newer_key) = ([f(1, "k", Long)], [f(1, "k", Long), f(2, "l", Long)]);
    let value = [f(1, "a", Long)];
    let mut made = Table::new(Format::Registry, Format::Registry);
    made.layout = Layout { evolution: Full, ..made.layout };
    for (id, fields) in (1..).zip([&key[..], &value, &newer_key]) {
        made = made.knows(SchemaKey::Id(id), SchemaFormat::Avro, &text(SchemaFormat::Avro, Place::Top, fields));
    }
    let written = |id: u32, fields: &[F]| {
        Some([&[0], &id.to_be_bytes()[..], &record(SchemaFormat::Avro, Place::Top, fields, 1)].concat())
    };
    made.try_decode(&[(written(1, &key), written(2, &value), &[][..])]).unwrap();
    made.try_decode(&[(written(3, &newer_key), None, &[][..])]).unwrap();
    assert_eq!(columns(&made, Place::Top), "a long, k long, l long");
}
