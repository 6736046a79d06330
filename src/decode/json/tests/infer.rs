//! Columns inferred from records, and records read into the columns of a table alone.

use serde_json::json;

use super::super::infer::Inferred;
use super::super::program::Program;
use super::{decode, rescue_column, shown};
use crate::model::decoded::Reason;
use crate::model::projection::ALL;
use crate::model::schema::{Field, Type};

fn inferred(table: &[Field], records: &[&str]) -> Vec<Field> {
    let open: Vec<usize> = (0..table.len()).collect();
    let mut inferred = Inferred::new(table, &open, &ALL);
    records.iter().for_each(|record| inferred.see(record.as_bytes()));
    inferred.columns()
}

#[test]
fn types_are_those_that_take_all_values_seen() {
    let cases: [(&[&str], &str); 16] = [
        (&[r#"{"a": true, "b": 1, "c": 1.5, "d": "x"}"#], "a boolean, b long, c double, d string"),
        (&[r#"{"a": 1}"#, r#"{"a": 1.5}"#, r#"{"a": 2}"#], "a double"),
        (&[r#"{"a": 1e3}"#, r#"{"a": 2}"#], "a double"),
        (&[r#"{"a": 1}"#, r#"{"a": "x"}"#, r#"{"a": 2}"#], "a string (JSON text)"),
        (&[r#"{"a": {"b": 1}}"#, r#"{"a": [1]}"#], "a string (JSON text)"),
        (&[r#"{"a": null, "b": [], "c": {}, "d": [null, []], "e": {"f": null}}"#], ""),
        (&[r#"{"a": null}"#, r#"{"a": 1}"#, r#"{"a": null}"#], "a long"),
        (&[r#"{"a": []}"#, r#"{"a": {"b": 1}}"#, r#"{"a": {}}"#], "a struct<b: long>"),
        (&[r#"{"a": {"b": 1}}"#, r#"{"a": {"c": {"d": "x"}}}"#], "a struct<b: long, c: struct<d: string>>"),
        (&[r#"{"a": [{"b": 1}, {"c": 2.5}, null]}"#, r#"{"a": [{"b": 0.5}]}"#], "a list<struct<b: double, c: double>>"),
        (&[r#"{"a": [1, "x"]}"#], "a string (JSON text)"),
        (&[r#"{"a": [1]}"#, r#"{"a": ["x"]}"#], "a string (JSON text)"),
        (&[r#"{"a": {"b": [1, "x"]}}"#], "a struct<b: string>"),
        (&[r#"{"d": "2026-07-29", "u": "00010203-0405-0607-0809-0a0b0c0d0e0f"}"#], "d string, u string"),
        (&["[1]", "3", "nope", r#"{"a": 1"#, r#"{"b": 1} 2"#], ""),
        (&[r#"{"": 1, "x y": 2, "\u0061": 3}"#], "x y long, a long"),
    ];
    for (records, expected) in cases {
        assert_eq!(shown(&inferred(&[], records)), expected, "{records:?}");
    }
}

#[test]
fn what_the_table_has_stays() {
    let element = Field { id: 7, ..Field::required("element", Type::Struct(vec![Field::optional("x", Type::Int)])) };
    let table = [
        Field::optional("n", Type::Long),
        Field::optional("s", Type::Struct(vec![Field::optional("a", Type::String)])),
        Field::optional("l", Type::List(Box::new(element.clone()))),
        Field::optional("t", Type::TimestampTz),
    ];
    let records = [
        r#"{"n": 1.5, "t": {"x": 1}, "s": 3, "l": "x"}"#,
        r#"{"n": [2], "s": {"b": 1, "a": 2}, "l": [{"y": true}, 1], "new": 1}"#,
    ];
    let columns = inferred(&table, &records);
    assert_eq!(
        shown(&columns),
        "n long, s struct<a: string, b: long>, l list<struct<x: int, y: boolean>>, t timestamptz, new long"
    );
    let Type::List(kept) = &columns[2].kind else { panic!("no list") };
    assert_eq!((kept.id, kept.required), (element.id, element.required));
}

#[test]
fn a_member_keeps_its_column_whatever_comes_later() {
    let first = inferred(&[], &[r#"{"a": 1, "A": 2, "A_2": 3}"#]);
    assert_eq!(shown(&first), r#"a long, A_2 long (of member "A"), A_2_2 long (of member "A_2")"#);
    // The other order of arrival, once the table has the columns, changes nothing.
    let later = inferred(&first, &[r#"{"A_2_2": 5, "A_2": 3, "A": 2, "a": 1}"#, r#"{"A": "x"}"#]);
    assert_eq!(shown(&later[..3]), shown(&first));
    assert_eq!(shown(&later[3..]), r#"A_2_2_2 long (of member "A_2_2")"#);
    let program = Program::schemaless(&later, &[0, 1, 2, 3], &ALL, None).unwrap();
    let row = decode(&program, &later, &[r#"{"A_2_2": 4, "A_2": 3, "A": 2, "a": 1}"#]).remove(0);
    assert_eq!(row, Ok(json!({"a": 1, "A": 2, "A_2": 3, "A_2_2": 4})));
    let mixed = inferred(&first, &[r#"{"B": 1, "b": [1, "x"]}"#]);
    assert_eq!(shown(&mixed[3..]), r#"B long, b_2 string (JSON text of member "b")"#);
}

#[test]
fn names_of_other_columns_are_taken() {
    let table = [Field::optional("kafka_offset", Type::Long), Field::optional("a", Type::Long)];
    let mut seen = Inferred::new(&table, &[1], &ALL);
    seen.see(br#"{"kafka_offset": "x", "a": 1}"#);
    assert_eq!(shown(&seen.columns()), r#"a long, kafka_offset_2 string (of member "kafka_offset")"#);
}

#[test]
fn columns_and_depth_have_bounds() {
    let many: Vec<String> = (0..1_200).map(|n| format!(r#""c{n}": {{"x": {n}}}"#)).collect();
    let columns = inferred(&[], &[&format!(r#"{{{}, "last": 1}}"#, many.join(","))]);
    let count = |fields: &[Field]| fields.len() * 2;
    assert_eq!(count(&columns), 1_000);
    let deep = format!("{}1{}", r#"{"a": "#.repeat(40), "}".repeat(40));
    assert_eq!(shown(&inferred(&[], &[&deep])), "");
    let within = format!("{}1{}", r#"{"a": "#.repeat(16), "}".repeat(16));
    assert_eq!(shown(&inferred(&[], &[&within])).matches("a: ").count(), 15);
    // Records that do not fit a settled column take nothing from the bound.
    let table = [Field::optional("s", Type::String)];
    let records: Vec<String> =
        (0..2_000).map(|n| format!(r#"{{"s": {{"k{n}": 1}}}}"#)).chain([r#"{"new": 1}"#.to_owned()]).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    assert_eq!(shown(&inferred(&table, &records)), "s string, new long");
}

#[test]
fn columns_of_any_type_take_what_they_can() {
    let of = |name: &str, kind: Type| Field::optional(name, kind);
    let map = |key: Type, value: Type| Type::Map(Box::new(Field::required("key", key)), Box::new(of("value", value)));
    let table = [
        of("i", Type::Int),
        of("f", Type::Float),
        of("n", Type::Decimal(5, 2)),
        of("d", Type::Date),
        of("t", Type::Time),
        of("ts", Type::Timestamp),
        of("tz", Type::TimestampTz),
        of("u", Type::Uuid),
        of("b", Type::Binary),
        of("x", Type::Fixed(2)),
        of("m", map(Type::String, Type::Long)),
        of("k", map(Type::Long, Type::Long)),
        Field { doc: Some("JSON text".to_owned()), ..of("j", Type::String) },
        of("s", Type::String),
        rescue_column(),
    ];
    let open: Vec<usize> = (0..table.len()).collect();
    let program = Program::schemaless(&table, &open, &ALL, Some(14)).unwrap();
    let good = r#"{"i": 1, "f": 0.5, "n": "1.25", "d": "1970-01-02", "t": "00:00:01", "ts": "1970-01-01T00:00:01", "tz":
        "1970-01-01T01:00:00+01:00", "u": "00010203-0405-0607-0809-0a0b0c0d0e0f", "b": "AQ==", "x": "AQI=", "m": {"a": 1},
        "j": "x", "s": "y"}"#;
    let bad = r#"{"i": 1.5, "n": "x", "d": "1970-02-30", "t": 1, "ts": "1970-01-01T00:00:01Z", "tz": "1970-01-01T00:00:01",
        "u": "x", "b": "=", "x": "AQ==", "m": {"a": "1"}, "k": {"1": 1}, "s": 1}"#;
    let rows = decode(&program, &table, &[good, bad, r#"{"n": 1.25, "j": [1]}"#, "[]"]);
    let expected = json!({"i": 1, "f": 0.5, "n": "125", "d": 1, "t": 1_000_000, "ts": 1_000_000, "tz": 0,
        "u": (0..16).collect::<Vec<_>>(), "b": [1], "x": [1, 2], "m": {"a": 1}, "k": null, "j": "x", "s": "y", "_rescued": null});
    assert_eq!(rows[0], Ok(expected));
    let row = rows[1].as_ref().unwrap();
    assert_eq!(row["_rescued"], serde_json::from_str::<serde_json::Value>(bad).unwrap());
    assert!(row.as_object().unwrap().iter().all(|(name, value)| name == "_rescued" || value.is_null()));
    let row = rows[2].as_ref().unwrap();
    assert_eq!((&row["n"], &row["j"], &row["_rescued"]), (&json!("125"), &json!([1]), &json!(null)));
    assert_eq!(rows[3].as_ref().unwrap_err().0, Reason::TypeMismatch);
}
