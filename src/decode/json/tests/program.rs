//! Single records under a schema: what becomes of each value, of what does not fit, and of what is no JSON.

use serde_json::{Value, json};

use super::super::mapping::{column_type, columns};
use super::super::program::Program;
use super::super::schema::{Schema, parse_text};
use super::{decode, rescue_column};
use crate::decode::mapping::{JsonFormats, MappingOptions, TimeAs};
use crate::model::decoded::Reason;
use crate::model::projection::ALL;
use crate::model::schema::{Field, Type};

fn schema(properties: &str) -> Schema {
    parse_text(&format!(r#"{{"type": "object", "properties": {{{properties}}}}}"#)).unwrap()
}

fn table(schema: &Schema, options: MappingOptions) -> Vec<Field> {
    let mut table = columns(schema, options).unwrap().unwrap();
    table.push(rescue_column());
    table
}

fn run(schema: &Schema, options: MappingOptions, rescue: bool, record: &str) -> Result<Value, Reason> {
    let table = table(schema, options);
    let open: Vec<usize> = (0..table.len()).collect();
    let rescued = rescue.then_some(table.len() - 1);
    let program = Program::compile(schema, &table, &open[..table.len() - 1], options, &ALL, rescued).unwrap();
    decode(&program, &table, &[record]).remove(0).map_err(|(reason, _)| reason)
}

/// The row, without members that are null.
fn row(properties: &str, record: &str) -> Value {
    rowed(&schema(properties), MappingOptions::default(), record)
}

fn rowed(schema: &Schema, options: MappingOptions, record: &str) -> Value {
    let Value::Object(mut row) = run(schema, options, true, record).unwrap() else { unreachable!() };
    row.retain(|_, value| !value.is_null());
    Value::Object(row)
}

const NESTED: &str = r#""a": {"type": "object", "properties": {"b": {"type": "integer"}, "c": {"type": "string"},
    "d": {"type": "object", "properties": {"e": {"type": "integer"}}}}}, "l": {"type": "array", "items":
    {"type": "object", "properties": {"x": {"type": "integer"}}}}, "m": {"type": "object", "additionalProperties":
    {"type": "integer"}}, "j": {}, "n": {"type": "integer"}"#;

#[test]
fn what_does_not_fit_is_rescued_in_its_place() {
    let cases = [
        ("{}", json!({})),
        (r#"{"n": 1, "u": [1, {"v": null}]}"#, json!({"n": 1, "_rescued": {"u": [1, {"v": null}]}})),
        (r#"{"n": "1"}"#, json!({"_rescued": {"n": "1"}})),
        (r#"{"n": 1.5}"#, json!({"_rescued": {"n": 1.5}})),
        (r#"{"n": 9223372036854775808}"#, json!({"_rescued": {"n": 9_223_372_036_854_775_808_u64}})),
        (
            r#"{"a": {"b": "x", "c": "y"}, "n": 1}"#,
            json!({"a": {"b": null, "c": "y", "d": null}, "n": 1, "_rescued": {"a": {"b": "x"}}}),
        ),
        (
            r#"{"u": 1, "a": {"v": 2, "b": "x", "d": {"e": [], "w": 3}, "c": 4}, "n": "z"}"#,
            json!({"a": {"b": null, "c": null, "d": {"e": null}},
                "_rescued": {"u": 1, "a": {"v": 2, "b": "x", "d": {"e": [], "w": 3}, "c": 4}, "n": "z"}}),
        ),
        (r#"{"a": 1}"#, json!({"_rescued": {"a": 1}})),
        (r#"{"a": {"d": []}}"#, json!({"a": {"b": null, "c": null, "d": null}, "_rescued": {"a": {"d": []}}})),
        (r#"{"l": [{"x": 1}, null, {}]}"#, json!({"l": [{"x": 1}, null, {"x": null}]})),
        (r#"{"l": [{"x": 1}, {"x": "y"}], "n": 1}"#, json!({"n": 1, "_rescued": {"l": [{"x": 1}, {"x": "y"}]}})),
        (r#"{"l": [{"x": 1, "y": 2}]}"#, json!({"l": [{"x": 1}], "_rescued": {"l": [{"x": 1, "y": 2}]}})),
        (r#"{"m": {"p": 1, "q": null}}"#, json!({"m": {"p": 1, "q": null}})),
        (r#"{"m": {"p": 1, "q": true}}"#, json!({"_rescued": {"m": {"p": 1, "q": true}}})),
        (r#"{"j": {"any": [1]}, "n": null}"#, json!({"j": {"any": [1]}})),
        (r#"{"\u006e": 1, "\"q\"": 2}"#, json!({"n": 1, "_rescued": {"\"q\"": 2}})),
        (r#"{"_rescued": 1}"#, json!({"_rescued": {"_rescued": 1}})),
        (r#"{"": 1}"#, json!({"_rescued": {"": 1}})),
    ];
    for (record, expected) in cases {
        assert_eq!(row(NESTED, record), expected, "{record}");
    }
}

#[test]
fn of_members_of_one_name_the_last_counts() {
    let cases = [
        (r#"{"n": 1, "n": 2}"#, json!({"n": 2})),
        (r#"{"n": 1, "n": null}"#, json!({})),
        (r#"{"n": 1, "n": "x"}"#, json!({"_rescued": {"n": "x"}})),
        (r#"{"n": "x", "n": 2}"#, json!({"n": 2, "_rescued": {"n": 2}})),
        (r#"{"a": {"b": 1}, "a": {"c": "y"}}"#, json!({"a": {"b": null, "c": "y", "d": null}})),
        (r#"{"l": [{"x": 1}], "l": [{"x": 2}, {"x": 3}]}"#, json!({"l": [{"x": 2}, {"x": 3}]})),
        (r#"{"m": {"p": 1, "q": 2, "p": 3}}"#, json!({"m": {"p": 3, "q": 2}})),
        (
            r#"{"m": {"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"\u0061":10}}"#,
            json!({"m": {"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"a":10}}),
        ),
    ];
    for (record, expected) in cases {
        assert_eq!(row(NESTED, record), expected, "{record}");
    }
}

#[test]
fn without_a_rescue_column_unknown_members_are_passed_over_and_misfits_are_dead_letters() {
    let run = |record: &str| run(&schema(NESTED), MappingOptions::default(), false, record).map(|row| row["n"].clone());
    assert_eq!(run(r#"{"u": 1, "n": 2, "l": [{"u": 3}]}"#), Ok(json!(2)));
    for (record, reason) in [
        (r#"{"n": "x"}"#, Reason::TypeMismatch),
        (r#"{"n": 1e30}"#, Reason::ValueOutOfRange),
        (r#"{"a": {"b": []}}"#, Reason::TypeMismatch),
    ] {
        assert_eq!(run(record), Err(reason), "{record}");
    }
}

#[test]
fn what_is_no_record_is_a_dead_letter_even_with_a_rescue_column() {
    for (record, reason) in [
        ("[]", Reason::TypeMismatch),
        ("null", Reason::TypeMismatch),
        ("3", Reason::TypeMismatch),
        ("nope", Reason::TypeMismatch),
        (r#"{"n": 1, "u": nope}"#, Reason::TypeMismatch),
        (r#"{"n": "x\q"}"#, Reason::TypeMismatch),
        (r#"{"n": 1"#, Reason::Truncated),
        ("", Reason::Truncated),
        (r#"{"n": 1} {}"#, Reason::Truncated),
    ] {
        assert_eq!(run(&schema(NESTED), MappingOptions::default(), true, record), Err(reason), "{record}");
    }
    let deep = format!(r#"{{"u": {}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(run(&schema(NESTED), MappingOptions::default(), true, &deep), Err(Reason::TooLarge));
}

#[test]
fn a_required_column_without_a_value_makes_a_dead_letter() {
    let text = r#"{"type": "object", "required": ["n", "s"], "properties": {"n": {"type": "integer"}, "s": {"type":
        "object", "required": ["t"], "properties": {"t": {"type": "string"}}}, "o": {"type": "object",
        "required": ["t"], "properties": {"t": {"type": "string"}}}, "l": {"type": "array", "items": {"type": "integer"}}}}"#;
    let schema = parse_text(text).unwrap();
    let keep = MappingOptions { keep_required: true, ..MappingOptions::default() };
    for record in [
        r#"{"n": 1}"#,
        r#"{"s": {"t": "x"}}"#,
        r#"{"n": null, "s": {"t": "x"}}"#,
        r#"{"n": "x", "s": {"t": "x"}}"#,
        r#"{"n": 1, "s": {}}"#,
        r#"{"n": 1, "s": {"t": 1}}"#,
    ] {
        assert_eq!(run(&schema, keep, true, record), Err(Reason::TypeMismatch), "{record}");
    }
    // What is required deeper down makes its struct misfit, and that one may be null.
    let expected = json!({"n": 1, "s": {"t": "x"}, "_rescued": {"o": {"u": 1}, "l": [1, null]}});
    assert_eq!(rowed(&schema, keep, r#"{"n": 1, "s": {"t": "x"}, "o": {"u": 1}, "l": [1, null]}"#), expected);
}

#[test]
fn connect_writes_its_types_so() {
    let connect = |kind: &str, title: &str| {
        format!(
            r#"{{"type": "{kind}", "title": "org.apache.kafka.connect.data.{title}",
                "connect.parameters": {{"scale": "2", "connect.decimal.precision": "6"}}}}"#
        )
    };
    let properties = format!(
        r#""d": {}, "t": {}, "ts": {}, "n": {}, "b": {{"type": "string", "connect.type": "bytes"}},
            "i": {{"type": "integer", "connect.type": "int32"}}, "f": {{"type": "number", "connect.type": "float32"}},
            "m": {{"type": "array", "connect.type": "map", "items": {{"type": "object", "properties": {{"key":
            {{"type": "integer"}}, "value": {{"type": "string"}}}}}}}}"#,
        connect("integer", "Date"),
        connect("integer", "Time"),
        connect("integer", "Timestamp"),
        connect("number", "Decimal"),
    );
    let record = r#"{"d": 20000, "t": 3723004, "ts": 1700000000001, "n": "/zg=", "b": "AQID", "i": -5, "f": 0.5,
        "m": [{"key": 7, "value": "x"}, {"value": null, "key": 8}]}"#;
    let expected = json!({"d": 20_000, "t": 3_723_004_000_i64, "ts": 1_700_000_000_001_000_i64, "n": "-200",
        "b": [1, 2, 3], "i": -5, "f": 0.5, "m": {"7": "x", "8": null}});
    assert_eq!(row(&properties, record), expected);
    assert_eq!(row(&properties, r#"{"n": 12.3}"#), json!({"n": "1230"}));
    for record in [
        r#"{"n": 1.234}"#,
        r#"{"n": 10000}"#,
        r#"{"n": "%"}"#,
        r#"{"i": 2147483648}"#,
        r#"{"f": 1e39}"#,
        r#"{"t": 86400000}"#,
        r#"{"ts": 9223372036854776}"#,
        r#"{"b": "x"}"#,
        r#"{"m": [{"value": "x"}]}"#,
        r#"{"m": {}}"#,
    ] {
        assert_eq!(row(&properties, record)["_rescued"], serde_json::from_str::<Value>(record).unwrap(), "{record}");
    }
    let as_text = MappingOptions { time_as: TimeAs::String, ..MappingOptions::default() };
    assert_eq!(rowed(&schema(&properties), as_text, r#"{"t": 3723004}"#), json!({"t": "01:02:03.004000"}));
}

#[test]
fn formats_are_read_where_they_are_types() {
    let typed = MappingOptions { json_formats: JsonFormats::Typed, ..MappingOptions::default() };
    let text = |format: &str| format!(r#"{{"type": "string", "format": "{format}"}}"#);
    let properties =
        format!(r#""ts": {}, "d": {}, "t": {}, "u": {}"#, text("date-time"), text("date"), text("time"), text("uuid"));
    let record = r#"{"ts": "2023-11-14T22:13:20.001+00:00", "d": "1970-01-02", "t": "00:00:01Z",
        "u": "00010203-0405-0607-0809-0a0b0c0d0e0f"}"#;
    let expected = json!({"ts": 1_700_000_000_001_000_i64, "d": 1, "t": 1_000_000, "u": (0..16).collect::<Vec<_>>()});
    assert_eq!(rowed(&schema(&properties), typed, record), expected);
    for record in
        [r#"{"ts": "2023-11-14"}"#, r#"{"d": 1}"#, r#"{"t": "1:00"}"#, r#"{"u": "000102030405060708090a0b0c0d0e0f"}"#]
    {
        let rescued = json!({"_rescued": serde_json::from_str::<Value>(record).unwrap()});
        assert_eq!(rowed(&schema(&properties), typed, record), rescued);
    }
    assert_eq!(row(&properties, r#"{"ts": "soon"}"#), json!({"ts": "soon"}));
}

#[test]
fn a_union_takes_the_branch_that_the_value_fits() {
    let properties = r#""x": {"oneOf": [{"title": "n", "type": "integer"}, {"title": "s", "type": "string"},
        {"title": "cat", "type": "object", "required": ["kind"], "properties": {"kind": {"const": "cat"}, "age": {"type": "integer"}}},
        {"title": "dog", "type": "object", "required": ["kind"], "properties": {"kind": {"const": "dog"}, "age": {"type": "integer"}}},
        {"title": "fish", "type": "object", "required": ["fins"], "properties": {"fins": {"type": "integer"}, "age": {"type": "integer"}}},
        {"title": "l", "type": "array", "items": {"type": "integer"}}]}, "any": {"oneOf": [{}, {"type": "integer"}]},
        "t": {"type": ["integer", "number", "string", "null"]}, "c": {"oneOf": [{"title": "a", "enum": ["a"]}, {"title": "rest", "type": "string"}]}"#;
    let taken = |record: &str| {
        let Value::Object(mut row) = row(properties, record) else { unreachable!() };
        row.values_mut().filter_map(Value::as_object_mut).for_each(|union| union.retain(|_, value| !value.is_null()));
        Value::Object(row)
    };
    let cases = [
        (r#"{"x": 1}"#, json!({"x": {"n": 1}})),
        (r#"{"x": "1"}"#, json!({"x": {"s": "1"}})),
        (r#"{"x": [1]}"#, json!({"x": {"l": [1]}})),
        (r#"{"x": {"age": 3, "kind": "dog"}}"#, json!({"x": {"dog": {"age": 3, "kind": "dog"}}})),
        (r#"{"x": {"kind": "\u0063at"}}"#, json!({"x": {"cat": {"age": null, "kind": "cat"}}})),
        (r#"{"x": {"fins": 2}}"#, json!({"x": {"fish": {"age": null, "fins": 2}}})),
        (r#"{"x": {"kind": "dog", "age": "old"}}"#, json!({"_rescued": {"x": {"kind": "dog", "age": "old"}}})),
        (r#"{"x": {"age": 3}}"#, json!({"_rescued": {"x": {"age": 3}}})),
        (r#"{"x": 1.5}"#, json!({"_rescued": {"x": 1.5}})),
        (
            r#"{"x": {"kind": "cat", "u": 1}}"#,
            json!({"x": {"cat": {"age": null, "kind": "cat"}}, "_rescued": {"x": {"kind": "cat", "u": 1}}}),
        ),
        (r#"{"any": 1}"#, json!({"any": {"branch_1": 1}})),
        (r#"{"any": "x"}"#, json!({"any": {"branch_0": "x"}})),
        (r#"{"t": 1}"#, json!({"t": {"number": 1.0}})),
        (r#"{"t": null}"#, json!({})),
        (r#"{"c": "a"}"#, json!({"c": {"a": "a"}})),
        (r#"{"c": "b"}"#, json!({"c": {"rest": "b"}})),
    ];
    for (record, expected) in cases {
        assert_eq!(taken(record), expected, "{record}");
    }
}

#[test]
fn branches_of_a_union_at_the_top_are_columns() {
    let text = r#"{"oneOf": [{"title": "a", "type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}},
        {"title": "b", "type": "object", "required": ["y"], "properties": {"y": {"type": "string"}}}]}"#;
    let union = parse_text(text).unwrap();
    let read = |record| rowed(&union, MappingOptions::default(), record);
    assert_eq!(read(r#"{"x": 1}"#), json!({"a": {"x": 1}}));
    assert_eq!(read(r#"{"y": "z"}"#), json!({"b": {"y": "z"}}));
    assert_eq!(read(r#"{"x": 1, "u": 2}"#), json!({"a": {"x": 1}, "_rescued": {"x": 1, "u": 2}}));
    assert_eq!(read(r#"{"x": "z"}"#), json!({"_rescued": {"x": "z"}}));
    assert_eq!(run(&union, MappingOptions::default(), true, "1"), Err(Reason::TypeMismatch));
    assert_eq!(run(&union, MappingOptions::default(), false, r#"{"x": "z"}"#), Err(Reason::TypeMismatch));
}

#[test]
fn a_value_that_is_no_object_has_one_column() {
    let numbers = parse_text(r#"{"type": "array", "items": {"type": "integer"}}"#).unwrap();
    let kind = column_type(&numbers, MappingOptions::default()).unwrap();
    let table = [Field::optional("val\"ue", kind), rescue_column()];
    let program = Program::compile_single(&numbers, &table, 0, MappingOptions::default(), &ALL, Some(1)).unwrap();
    assert_eq!(program.filled().collect::<Vec<_>>(), [0, 1]);
    let rows = decode(&program, &table, &["[1, 2]", "null", "[x]", "{}"]);
    assert_eq!(rows[0], Ok(json!({"val\"ue": [1, 2], "_rescued": null})));
    assert_eq!(rows[1], Ok(json!({"val\"ue": null, "_rescued": null})));
    assert_eq!(rows[2].as_ref().unwrap_err().0, Reason::TypeMismatch);
    assert_eq!(rows[3], Ok(json!({"val\"ue": null, "_rescued": {"val\"ue": {}}})));
    let plain = Program::compile_single(&numbers, &table, 0, MappingOptions::default(), &ALL, None).unwrap();
    assert_eq!(decode(&plain, &table, &["{}"])[0].as_ref().unwrap_err().0, Reason::TypeMismatch);
}

#[test]
fn a_table_takes_what_its_columns_promise_and_refuses_the_rest() {
    let narrow = schema(
        r#""n": {"type": "integer", "connect.type": "int32"}, "f": {"type": "number", "connect.type": "float32"}, "s": {"type": "object", "properties": {"a": {"type": "string"}}}"#,
    );
    let inner = vec![Field::optional("b", Type::String), Field::optional("a", Type::String)];
    let wide = [
        Field::optional("s", Type::Struct(inner.clone())),
        Field::optional("f", Type::Double),
        Field::optional("n", Type::Long),
        Field::optional("mine", Type::Long),
    ];
    let options = MappingOptions::default();
    let program = Program::compile(&narrow, &wide, &[0, 1, 2], options, &ALL, None).unwrap();
    assert_eq!(program.filled().collect::<Vec<_>>(), [2, 1, 0]);
    let row = decode(&program, &wide, &[r#"{"n": 3000000000, "f": 0.1, "s": {"a": "x"}, "mine": 1}"#]).remove(0);
    assert_eq!(row, Ok(json!({"s": {"b": null, "a": "x"}, "f": 0.1, "n": 3_000_000_000_i64, "mine": null})));
    for (column, name) in [
        (Field::optional("n", Type::String), "column `n` is"),
        (Field::required("n", Type::Long), "column `n` is required in the table and optional"),
        (
            Field::optional("s", Type::Struct(vec![inner[1].clone(), Field::required("b", Type::String)])),
            "column `s.b` is required",
        ),
    ] {
        let error = Program::compile(&narrow, &[column], &[0], options, &ALL, None).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
    }
    let rescued = [Field::optional("_rescued", Type::Binary)];
    assert!(Program::compile(&narrow, &rescued, &[], options, &ALL, Some(0)).is_err());
}
