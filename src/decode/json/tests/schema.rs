//! Drafts, references and what is merged.

use std::sync::Arc;

use super::super::mapping::columns;
use super::super::schema::{Schema, parse, parse_text};
use super::shown;
use crate::decode::mapping::MappingOptions;
use crate::error::Result;
use crate::ports::{RegisteredSchema, SchemaFormat};

fn seen(schema: &Result<Schema>) -> String {
    shown(&columns(schema.as_ref().unwrap(), MappingOptions::default()).unwrap().unwrap())
}

fn registered(text: &str, references: &[(&str, &Arc<RegisteredSchema>)]) -> Arc<RegisteredSchema> {
    let references = references.iter().map(|(name, schema)| ((*name).to_owned(), Arc::clone(schema))).collect();
    Arc::new(RegisteredSchema { id: 1, format: SchemaFormat::Json, text: text.to_owned(), references })
}

#[test]
fn each_draft_has_its_own_words_for_the_same() {
    for text in [
        r##"{"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://x.y/order", "type": "object",
            "definitions": {"n": {"id": "number.json", "type": "integer"}, "t": {"id": "#text", "type": "string"}},
            "properties": {"a": {"$ref": "number.json"}, "b": {"$ref": "#text"}, "id": {"$ref": "#/definitions/n"}}}"##,
        r##"{"$schema": "http://json-schema.org/draft-06/schema#", "type": "object",
            "definitions": {"n": {"$id": "http://x.y/n", "type": "integer"}, "t": {"$id": "#text", "type": "string"}},
            "properties": {"a": {"$ref": "http://x.y/n#"}, "b": {"$ref": "#text"}, "id": {"$ref": "#/definitions/n"}}}"##,
        r##"{"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://x.y/order", "type": "object",
            "definitions": {"n m": {"type": "integer"}, "a/b~c": {"type": "string"}},
            "properties": {"a": {"$ref": "#/definitions/n%20m"}, "b": {"$ref": "#/definitions/a~1b~0c", "type": "integer"},
                "id": {"$ref": "order#/definitions/n m"}}}"##,
        r##"{"$schema": "https://json-schema.org/draft/2019-09/schema", "$id": "https://x.y/order", "type": "object",
            "$defs": {"n": {"$anchor": "num", "type": "integer"}, "t": {"$id": "t", "$defs": {"u": {"type": "string"}}}},
            "properties": {"a": {"$ref": "#num"}, "b": {"$ref": "t#/$defs/u"}, "id": {"$ref": "https://x.y/order#/$defs/n"}}}"##,
        r##"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "$defs": {"n": {"$dynamicAnchor": "num", "type": "integer"}, "t": {"type": ["string", "integer"]}},
            "properties": {"a": {"$dynamicRef": "#num"}, "b": {"$ref": "#/$defs/t", "type": "string"},
                "id": {"allOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}}}"##,
    ] {
        assert_eq!(seen(&parse_text(text)), "a long, b string, id long", "{text}");
    }
}

#[test]
fn references_are_found_by_the_name_that_the_schema_writes() {
    let zip = registered(r#"{"type": "string", "description": "zip code"}"#, &[]);
    let address = registered(
        r#"{"type": "object", "properties": {"zip": {"$ref": "zip.json"}, "city": {"type": "string"}}}"#,
        &[("zip.json", &zip)],
    );
    let people = registered(
        r##"{"$id": "http://x.y/people.json", "definitions": {"p": {"type": "object", "properties":
            {"boss": {"$ref": "#/definitions/p"}, "name": {"type": "string"}}}}}"##,
        &[],
    );
    let text = r#"{"$id": "http://x.y/order.json", "type": "object", "properties": {
        "a": {"$ref": "address.json"}, "b": {"$ref": "people.json#/definitions/p"}, "c": {"$ref": "com.x.Zip"}}}"#;
    let order = registered(text, &[("address.json", &address), ("people", &people), ("com.x.Zip", &zip)]);
    let expected = "a struct<zip: string, city: string>, b struct<boss: string, name: string>, c string (zip code)";
    assert_eq!(seen(&parse(&order)), expected);
}

#[test]
fn what_holds_in_one_place_is_merged() {
    let cases = [
        (
            r#"{"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "integer"}, "a": {"description": "both"}}}]}"#,
            "a string (both), b long",
        ),
        (
            r#"{"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string"}},
                "allOf": [{"properties": {"a": {"type": "integer"}}}], "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}"#,
            "a long, b string",
        ),
        (
            r#"{"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}, "if": {"properties": {"kind": {"const": "a"}}},
                "then": {"properties": {"x": {"type": "integer"}, "z": {"type": "string"}}},
                "else": {"properties": {"y": {"type": "integer"}, "z": {"type": "integer"}}}}"#,
            "kind string, x long, z string (JSON text), y long",
        ),
        (r#"{"properties": {"x": {"type": "string", "anyOf": [{"format": "email"}, {"maxLength": 3}]}}}"#, "x string"),
        (r#"{"properties": {"x": {"type": ["string", "null"], "enum": ["a"]}}}"#, "x string"),
    ];
    for (text, expected) in cases {
        assert_eq!(seen(&parse_text(text)), expected, "{text}");
    }
}

#[test]
fn recursion_ends_in_json_text() {
    let tree = r##"{"type": "object", "properties": {"v": {"type": "integer"},
        "left": {"oneOf": [{"type": "null"}, {"$ref": "#"}]}, "all": {"type": "array", "items": {"$ref": "#"}}}}"##;
    assert_eq!(seen(&parse_text(tree)), "v long, left string (JSON text), all list<string>");
    let loops = r##"{"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}"##;
    assert_eq!(seen(&parse_text(loops)), "x string (JSON text)");
}

#[test]
fn a_schema_that_is_none_says_why() {
    let twice = |n: usize| {
        let next = n + 1;
        format!(r##""d{n}": {{"properties": {{"a": {{"$ref": "#/d{next}"}}, "b": {{"$ref": "#/d{next}"}}}}}}"##)
    };
    let bomb = (0..40).map(twice).collect::<Vec<_>>().join(",");
    for (text, why) in [
        ("nope", "the text is not JSON"),
        ("[]", "a schema is an object or a boolean"),
        (r##"{"$ref": "#/$defs/x"}"##, "`$ref` leads nowhere: `#/$defs/x`"),
        (r#"{"properties": {"x": {"$ref": "other.json"}}}"#, "`$ref` leads nowhere: `other.json`"),
        (
            &format!(r##"{{{bomb}, "d40": {{}}, "$ref": "#/d0"}}"##),
            "references written out come to more than 20000 schemas",
        ),
    ] {
        let error = parse_text(text).unwrap_err();
        assert_eq!(error.to_string(), format!("read JSON Schema: {why}"));
    }
}
