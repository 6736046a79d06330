//! Each row of the mapping's table, as schema and columns.

use super::super::mapping::{column_type, columns};
use super::super::schema::parse_text;
use super::shown;
use crate::decode::mapping::{JsonFormats, MappingOptions, TimeAs};

fn check(options: MappingOptions, properties: &str, expected: &str) {
    let schema = parse_text(&format!(r#"{{"type": "object", "properties": {{{properties}}}}}"#)).unwrap();
    assert_eq!(shown(&columns(&schema, options).unwrap().unwrap()), expected, "{properties}");
}

#[test]
fn scalars() {
    let connect = |what: &str, more: &str| format!(r#""x": {{"type": {what}, {more}}}"#);
    let cases = [
        (r#""x": {"type": "boolean"}"#, "x boolean"),
        (r#""x": {"type": "integer"}"#, "x long"),
        (r#""x": {"type": "number"}"#, "x double"),
        (r#""x": {"type": ["integer", "number"]}"#, "x double"),
        (r#""x": {"type": "integer", "enum": [1, 2]}"#, "x long"),
        (&connect("\"integer\"", r#""connect.type": "int8""#), "x int"),
        (&connect("\"integer\"", r#""connect.type": "int16""#), "x int"),
        (&connect("\"integer\"", r#""connect.type": "int32""#), "x int"),
        (&connect("\"integer\"", r#""connect.type": "int64""#), "x long"),
        (&connect("\"number\"", r#""connect.type": "float32""#), "x float"),
        (&connect("\"number\"", r#""connect.type": "float64""#), "x double"),
        (&connect("\"string\"", r#""connect.type": "bytes""#), "x binary"),
        (
            &connect("\"integer\"", r#""title": "org.apache.kafka.connect.data.Date", "connect.type": "int32""#),
            "x date",
        ),
        (
            &connect("\"integer\"", r#""title": "org.apache.kafka.connect.data.Time", "connect.type": "int32""#),
            "x long (microseconds since midnight)",
        ),
        (&connect("\"integer\"", r#""title": "org.apache.kafka.connect.data.Timestamp""#), "x timestamptz"),
        (
            &connect(
                "\"number\"",
                r#""title": "org.apache.kafka.connect.data.Decimal", "connect.type": "bytes",
                "connect.parameters": {"scale": "2", "connect.decimal.precision": "9"}"#,
            ),
            "x decimal(9, 2)",
        ),
        (
            &connect(
                "\"number\"",
                r#""title": "org.apache.kafka.connect.data.Decimal", "connect.parameters": {"scale": "4"}"#,
            ),
            "x decimal(38, 4)",
        ),
        (r#""x": {"type": "string", "description": "why"}"#, "x string (why)"),
        (r#""x": {"type": "string", "format": "date-time"}"#, "x string"),
    ];
    for (properties, expected) in cases {
        check(MappingOptions::default(), properties, expected);
    }
}

#[test]
fn what_is_made_of_others() {
    let cases = [
        (r#""x": {"enum": ["a", "b"]}, "y": {"const": "c"}"#, "x string, y string"),
        (r#""x": {"enum": ["a", 1]}"#, "x string (JSON text)"),
        (r#""x": {"oneOf": [{"const": "a", "title": "A"}, {"const": "b"}]}"#, "x string"),
        (r#""x": {"type": "array", "items": {"type": "string"}}"#, "x list<string>"),
        (r#""x": {"type": "array"}"#, "x list<string>"),
        (r#""x": {"type": "object", "properties": {"a": {"type": "integer"}}}"#, "x struct<a: long>"),
        (
            r#""c": {"type": "string"}, "b": {"type": "string", "connect.index": 1}, "a": {"oneOf": [{"type": "null"}, {"type": "string"}], "connect.index": 0}"#,
            "a string, b string, c string",
        ),
        (r#""x": {"type": "object", "additionalProperties": {"type": "integer"}}"#, "x map<string, long>"),
        (
            r#""x": {"type": "object", "connect.type": "map", "additionalProperties": {"oneOf": [{"type": "null"}, {"type": "number"}]}}"#,
            "x map<string, double>",
        ),
        (
            r#""x": {"type": "array", "connect.type": "map", "items": {"type": "object", "properties": {"key": {"type": "integer", "connect.type": "int32"}, "value": {"type": "string"}}}}"#,
            "x map<int, string>",
        ),
        (r#""x": {"oneOf": [{"type": "null"}, {"type": "integer"}]}"#, "x long"),
        (r#""x": {"anyOf": [{"type": "integer"}, {"type": "null"}]}"#, "x long"),
        (r#""x": {"type": ["string", "null"]}"#, "x string"),
        (
            r#""x": {"oneOf": [{"type": "string"}, {"title": "Amount", "type": "number"}, {"type": "boolean"}]}"#,
            "x struct<branch_0: string, Amount: double, branch_2: boolean>",
        ),
        (r#""x": {"type": ["string", "null", "integer"]}"#, "x struct<string: string, integer: long>"),
        (
            r#""x": {}, "y": true, "z": {"type": "object"}"#,
            "x string (JSON text), y string (JSON text), z string (JSON text)",
        ),
        (
            r#""x": {"type": "array", "items": [{"type": "integer"}]}, "y": {"prefixItems": [{}]}"#,
            "x string (JSON text), y string (JSON text)",
        ),
        (
            r#""x": {"if": {"type": "string"}, "then": {"minLength": 1}}, "y": {"not": {"type": "null"}}"#,
            "x string (JSON text), y string (JSON text)",
        ),
        (
            r##""x": {"type": "object", "properties": {"next": {"$ref": "#/properties/x"}, "v": {"type": "integer"}}}"##,
            "x struct<next: string, v: long>",
        ),
        (r#""x": {"type": "null"}, "y": false, "z": {"type": "string"}"#, "z string"),
        (
            r#""a": {"type": "string"}, "A": {"type": "string"}, "a_2": {"type": "string"}"#,
            "a string, A_2 string, a_2_2 string",
        ),
        (r#""": {"type": "string"}, "x.y": {"type": "string"}"#, "x.y string"),
    ];
    for (properties, expected) in cases {
        check(MappingOptions::default(), properties, expected);
    }
}

#[test]
fn formats_become_types_where_wanted() {
    let text = |format: &str| format!(r#""x": {{"type": "string", "format": "{format}"}}"#);
    let typed = MappingOptions { json_formats: JsonFormats::Typed, ..MappingOptions::default() };
    check(typed, &text("date-time"), "x timestamptz");
    check(typed, &text("date"), "x date");
    check(typed, &text("uuid"), "x uuid");
    check(typed, &text("email"), "x string");
    check(MappingOptions { uuid_as_string: true, ..typed }, &text("uuid"), "x string");
    check(typed, &text("time"), "x long (microseconds since midnight)");
    check(MappingOptions { time_as: TimeAs::Time, ..typed }, &text("time"), "x time");
    check(MappingOptions { time_as: TimeAs::String, ..typed }, &text("time"), "x string");
}

#[test]
fn required_members_are_required_where_wanted() {
    let schema = parse_text(
        r#"{"type": "object", "required": ["a", "b", "d"], "properties": {"a": {"type": "string"},
            "b": {"type": ["string", "null"]}, "c": {"type": "string"}, "d": {}}}"#,
    )
    .unwrap();
    let keep = MappingOptions { keep_required: true, ..MappingOptions::default() };
    let expected = "a string required, b string, c string, d string (JSON text)";
    assert_eq!(shown(&columns(&schema, keep).unwrap().unwrap()), expected);
    assert!(columns(&schema, MappingOptions::default()).unwrap().unwrap().iter().all(|field| !field.required));
}

#[test]
fn what_is_no_object_is_one_column() {
    for (text, kind) in [
        (r#"{"type": "integer"}"#, "long"),
        (r#"{"type": "array", "items": {"type": "integer"}}"#, "list<long>"),
        (r#"{"type": "object", "additionalProperties": {"type": "integer"}}"#, "map<string, long>"),
        ("true", "string"),
    ] {
        let schema = parse_text(text).unwrap();
        assert_eq!(columns(&schema, MappingOptions::default()).unwrap(), None);
        assert_eq!(column_type(&schema, MappingOptions::default()).unwrap().to_string(), kind);
    }
    let union =
        parse_text(r#"{"oneOf": [{"title": "A", "type": "string"}, {"title": "a", "type": "integer"}]}"#).unwrap();
    let columns = columns(&union, MappingOptions::default()).unwrap().unwrap();
    assert_eq!(shown(&columns), "A string, a_2 long");
}

#[test]
fn decimals_beyond_iceberg_are_refused() {
    for parameters in
        [r#"{"scale": "2", "connect.decimal.precision": "39"}"#, r#"{"scale": "-2"}"#, r#"{"scale": "39"}"#]
    {
        let text = format!(
            r#"{{"type": "object", "properties": {{"x": {{"type": "number",
                "title": "org.apache.kafka.connect.data.Decimal", "connect.parameters": {parameters}}}}}}}"#
        );
        let error = columns(&parse_text(&text).unwrap(), MappingOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("field `x`: decimal"), "{error}");
    }
}
