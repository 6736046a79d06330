//! Each row of the mapping, each rule of the wire, each error: schemas as text, values in Protobuf's text format.

mod random;
mod wire;

use std::sync::Arc;

use arrow::array::ArrayRef;
use base64::Engine as _;
use prost_reflect::prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::framing::MessagePath;
use super::mapping::columns;
use super::program::Program;
use super::schema::{Message, parse};
use super::source::link;
use crate::decode::columns::Column;
use crate::decode::mapping::{MappingOptions, OneofAs, TimeAs};
use crate::decode::tests::show;
use crate::error::Result;
use crate::model::decoded::Reason;
use crate::model::projection::ALL;
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::{RegisteredSchema, SchemaFormat};

fn registered(text: &str) -> RegisteredSchema {
    RegisteredSchema { id: 1, format: SchemaFormat::Protobuf, text: text.to_owned(), references: Vec::new() }
}

/// A schema's first message, and its descriptor for the encoder.
fn first(registered: &RegisteredSchema) -> (Arc<Message>, MessageDescriptor) {
    let file = parse(registered).unwrap();
    let descriptor = link(registered).unwrap().file.messages().next().unwrap();
    (Arc::clone(file.message(MessagePath::FIRST).unwrap()), descriptor)
}

/// A schema with the usual imports.
fn proto3(body: &str) -> RegisteredSchema {
    let imports = [
        "google/protobuf/any",
        "google/protobuf/duration",
        "google/protobuf/empty",
        "google/protobuf/field_mask",
        "google/protobuf/struct",
        "google/protobuf/timestamp",
        "google/protobuf/wrappers",
        "google/type/date",
        "google/type/timeofday",
        "confluent/meta",
        "confluent/type/decimal",
    ];
    let imports = imports.map(|path| format!("import \"{path}.proto\"; ")).concat();
    registered(&format!("syntax = \"proto3\"; {imports} {body}"))
}

fn encode(descriptor: &MessageDescriptor, value: &str) -> Vec<u8> {
    DynamicMessage::parse_text_format(descriptor.clone(), value).unwrap().encode_to_vec()
}

/// The rows that `records` come to in a table of these columns, in the words of [`show`], or why they do not.
fn rows(program: &Program, table: &[Field], records: &[Vec<u8>]) -> Vec<Result<String, Reason>> {
    let mut columns: Vec<Column> = table.iter().map(|field| Column::new(&field.kind)).collect();
    let filled: Vec<usize> = program.filled().collect();
    let mut good = 0;
    let mut failures = Vec::new();
    for record in records {
        let result = program.run(record, &mut columns);
        match &result {
            Ok(()) => {
                (0..columns.len()).filter(|index| !filled.contains(index)).for_each(|i| columns[i].push_null());
                good += 1;
            }
            Err(_) => columns.iter_mut().for_each(|column| column.truncate(good)),
        }
        failures.push(result.err().map(|(reason, _)| reason));
        assert!(columns.iter().all(|column| column.len() == good));
    }
    let finish = |(column, field): (Column, &Field)| column.finish(&field.kind.to_arrow()).unwrap();
    let arrays: Vec<ArrayRef> = columns.into_iter().zip(table).map(finish).collect();
    let mut row = 0..;
    let shown = |failure: Option<Reason>| match failure {
        Some(reason) => Err(reason),
        None => {
            let row = row.next().unwrap();
            let values = table.iter().zip(&arrays).map(|(field, array)| format!("{}={}", field.name, show(array, row)));
            Ok(values.collect::<Vec<_>>().join(","))
        }
    };
    failures.into_iter().map(shown).collect()
}

fn decode(message: &Message, options: MappingOptions, records: &[Vec<u8>]) -> Vec<Result<String, Reason>> {
    let table = columns(message, options).unwrap();
    let open: Vec<usize> = (0..table.len()).collect();
    rows(&Program::compile(message, &table, &open, options, &ALL).unwrap(), &table, records)
}

fn types(fields: &[Field]) -> String {
    let type_of = |field: &Field| format!("{} {}{}", field.name, field.kind, if field.required { "!" } else { "" });
    fields.iter().map(type_of).collect::<Vec<_>>().join(", ")
}

/// Fields of a message, their columns, and what values come to; after a `!` the reason that one is refused for.
fn check(options: MappingOptions, fields: &str, expected: &str, values: &[(&str, &str)]) {
    let (message, descriptor) = first(&proto3(&format!("message M {{ {fields} }}")));
    assert_eq!(types(&columns(&message, options).unwrap()), expected, "{fields}");
    let records: Vec<_> = values.iter().map(|(value, _)| encode(&descriptor, value)).collect();
    for (decoded, (value, expected)) in decode(&message, options, &records).into_iter().zip(values) {
        let decoded = decoded.map_err(Reason::as_str);
        assert_eq!(decoded, expected.strip_prefix('!').map_or(Ok((*expected).to_owned()), Err), "{fields} {value}");
    }
}

#[test]
fn scalars_are_zero_or_null_where_absent() {
    let usual = MappingOptions::default();
    for kind in ["int32", "sint32", "sfixed32"] {
        let values = [("", "a=0"), ("a: -2147483648", "a=-2147483648"), ("a: 2147483647", "a=2147483647")];
        check(usual, &format!("{kind} a = 1;"), "a int", &values);
    }
    for kind in ["uint32", "fixed32"] {
        check(usual, &format!("{kind} a = 1;"), "a long", &[("a: 4294967295", "a=4294967295")]);
    }
    for kind in ["int64", "sint64", "sfixed64"] {
        let values = [("a: -9223372036854775808", "a=-9223372036854775808"), ("", "a=0")];
        check(usual, &format!("{kind} a = 1;"), "a long", &values);
    }
    let long = MappingOptions { uint64_as_long: true, ..usual };
    for kind in ["uint64", "fixed64"] {
        let most = ("a: 18446744073709551615", "a=18446744073709551615");
        check(usual, &format!("{kind} a = 1;"), "a decimal(20, 0)", &[most, ("", "a=0")]);
        let values =
            [("a: 9223372036854775807", "a=9223372036854775807"), (most.0, "!value_out_of_range"), ("", "a=0")];
        check(long, &format!("{kind} a = 1;"), "a long", &values);
    }
    check(usual, "float a = 1;", "a float", &[("a: -0.5", "a=bf000000"), ("", "a=0")]);
    check(usual, "double a = 1;", "a double", &[("a: -2.0", "a=c000000000000000"), ("", "a=0")]);
    check(usual, "bool a = 1;", "a boolean", &[("a: true", "a=true"), ("", "a=false")]);
    check(usual, "string a = 1;", "a string", &[("a: 'ü'", "a=\"ü\""), ("", "a=\"\"")]);
    check(usual, "bytes a = 1;", "a binary", &[("a: '\\377'", "a=[255]"), ("", "a=[]")]);
    check(usual, "E a = 1; enum E { Z = 0; X = 7; }", "a string", &[("a: X", "a=\"X\""), ("", "a=\"Z\"")]);
    check(usual, "optional int32 a = 1;", "a int", &[("a: 0", "a=0"), ("", "a=null")]);
    check(usual, "optional string a = 1;", "a string", &[("a: ''", "a=\"\""), ("", "a=null")]);
}

#[test]
fn messages_lists_and_oneofs() {
    let usual = MappingOptions::default();
    let struct_values = [("a {}", "a={b=0,c=[]}"), ("a { b: 2 c: [3, 4] }", "a={b=2,c=[3,4]}"), ("", "a=null")];
    check(
        usual,
        "N a = 1; message N { int32 b = 1; repeated int32 c = 2; }",
        "a struct<b: int, c: list<int>>",
        &struct_values,
    );
    check(usual, "Empty a = 1; int32 b = 2; message Empty {}", "b int", &[("a {} b: 1", "b=1")]);
    check(usual, "repeated string a = 1;", "a list<string>", &[("a: ['x', '']", "a=[\"x\",\"\"]"), ("", "a=[]")]);
    check(
        usual,
        "oneof g { int32 a = 1; Empty b = 2; string c = 4; } int32 d = 3; message Empty {}",
        "d int, g struct<a: int, c: string>",
        &[
            ("a: 0", "d=0,g={a=0,c=null}"),
            ("b {}", "d=0,g={a=null,c=null}"),
            ("c: ''", "d=0,g={a=null,c=\"\"}"),
            ("", "d=0,g=null"),
        ],
    );
    let flat = MappingOptions { oneof: OneofAs::Flat, ..usual };
    let values = [("a: 0", "a=0,c=null,d=0"), ("", "a=null,c=null,d=0"), ("c: 'x' d: 1", "a=null,c=\"x\",d=1")];
    check(flat, "oneof g { int32 a = 1; string c = 4; } int32 d = 3;", "a int, c string, d int", &values);
    let any = "a { type_url: 't' value: '\\001' }";
    check(
        usual,
        "google.protobuf.Any a = 1;",
        "a struct<type_url: string, value: binary>",
        &[(any, "a={type_url=\"t\",value=[1]}")],
    );
    let required = MappingOptions { keep_required: true, ..usual };
    check(
        required,
        "int32 a = 1; optional int32 b = 2; repeated int32 c = 3; map<string, int32> d = 4; N e = 5;
        oneof g { int32 h = 6; } message N { int32 x = 1; }",
        "a int!, b int, c list<int>!, d map<string, int>!, e struct<x: int>, g struct<h: int>",
        &[("", "a=0,b=null,c=[],d=[],e=null,g=null")],
    );
}

#[test]
fn times_become_times() {
    let usual = MappingOptions::default();
    let timestamps = [
        ("a { seconds: -1 nanos: 999999999 }", "a=-1"),
        ("a { seconds: 9223372036854 nanos: 775807999 }", "a=9223372036854775807"),
        ("a { seconds: 9223372036854 nanos: 775808000 }", "!value_out_of_range"),
        ("a { nanos: -1 }", "!value_out_of_range"),
        ("a {}", "a=0"),
        ("", "a=null"),
    ];
    check(usual, "google.protobuf.Timestamp a = 1;", "a timestamptz", &timestamps);
    let durations = [
        ("a { seconds: -1 nanos: -500001999 }", "a=-1500001"),
        ("a { nanos: -1999 }", "a=-1"),
        ("a { seconds: 1 nanos: -1 }", "!value_out_of_range"),
        ("", "a=null"),
    ];
    check(usual, "google.protobuf.Duration a = 1;", "a long", &durations);
    let dates = [
        ("a { year: 1969 month: 12 day: 31 }", "a=-1"),
        ("a { year: 9999 month: 12 day: 31 }", "a=2932896"),
        ("a { year: 2023 month: 2 day: 29 }", "!value_out_of_range"),
        ("a { year: 2023 }", "!value_out_of_range"),
        ("", "a=null"),
    ];
    check(usual, "google.type.Date a = 1;", "a date", &dates);
    let time = "a { hours: 23 minutes: 59 seconds: 59 nanos: 999999999 }";
    let bad = ("a { hours: 24 }", "!value_out_of_range");
    check(usual, "google.type.TimeOfDay a = 1;", "a long", &[(time, "a=86399999999"), bad, ("", "a=null")]);
    let as_time = MappingOptions { time_as: TimeAs::Time, ..usual };
    check(as_time, "google.type.TimeOfDay a = 1;", "a time", &[(time, "a=86399999999"), ("a {}", "a=0")]);
    let as_text = MappingOptions { time_as: TimeAs::String, ..usual };
    check(as_text, "google.type.TimeOfDay a = 1;", "a string", &[(time, "a=\"23:59:59.999999\"")]);
}

#[test]
fn wrappers_become_what_they_wrap() {
    let usual = MappingOptions::default();
    for (wrapper, kind, value, shown) in [
        ("Double", "double", "1.0", "3ff0000000000000"),
        ("Float", "float", "1.0", "3f800000"),
        ("Int64", "long", "-1", "-1"),
        ("UInt64", "decimal(20, 0)", "18446744073709551615", "18446744073709551615"),
        ("Int32", "int", "-1", "-1"),
        ("UInt32", "long", "4294967295", "4294967295"),
        ("Bool", "boolean", "true", "true"),
        ("String", "string", "'x'", "\"x\""),
        ("Bytes", "binary", "'x'", "[120]"),
    ] {
        let zero = match kind {
            "boolean" => "a=false",
            "string" => "a=\"\"",
            "binary" => "a=[]",
            _ => "a=0",
        };
        let (value, shown) = (format!("a {{ value: {value} }}"), format!("a={shown}"));
        let values = [(value.as_str(), shown.as_str()), ("a {}", zero), ("", "a=null")];
        check(usual, &format!("google.protobuf.{wrapper}Value a = 1;"), &format!("a {kind}"), &values);
    }
}

#[test]
fn decimals_have_the_scale_of_their_column() {
    let usual = MappingOptions::default();
    let decimals = [
        ("a { value: '\\x04\\xD2' scale: 2 }", "a=12340"),
        ("a { value: '\\xFF' scale: 3 }", "a=-1"),
        ("a { value: '\\x14' scale: 4 }", "a=2"),
        ("a { value: '\\x15' scale: 4 }", "!value_out_of_range"),
        ("a { value: '\\x01' scale: -1 }", "a=10000"),
        ("a { value: '\\x01' scale: -2 }", "!value_out_of_range"),
        ("a { scale: 2147483647 }", "a=0"),
        ("a { value: '\\x01' scale: -2147483648 }", "!value_out_of_range"),
        ("a {}", "a=0"),
        ("", "a=null"),
    ];
    let meta = "[(confluent.field_meta) = { params: [{ key: 'precision' value: '5' }, { key: 'scale' value: '3' }] }]";
    check(usual, &format!("confluent.type.Decimal a = 1 {meta};"), "a decimal(5, 3)", &decimals);
    let meta = "[(confluent.field_meta).params = { key: 'precision' value: '5' }]";
    check(usual, &format!("confluent.type.Decimal a = 1 {meta};"), "a decimal(5, 0)", &[]);
    let value = ("a { value: '\\x01' scale: 2 }", "a=10000000000000000");
    check(usual, "confluent.type.Decimal a = 1;", "a decimal(38, 18)", &[value]);
}

#[test]
fn maps_have_all_kinds_of_keys_and_shapeless_messages_are_json() {
    let usual = MappingOptions::default();
    let keys =
        [("int32", "int", "-1", "-1"), ("bool", "boolean", "true", "true"), ("string", "string", "'k'", "\"k\"")];
    let more = [("uint64", "decimal(20, 0)", "7", "7"), ("fixed32", "long", "7", "7"), ("sint64", "long", "-7", "-7")];
    for (key, kind, value, shown) in keys.into_iter().chain(more) {
        let (value, shown) = (format!("a {{ key: {value} }}"), format!("a=[{{key={shown},value=0}}]"));
        let values = [(value.as_str(), shown.as_str()), ("", "a=[]")];
        check(usual, &format!("map<{key}, int32> a = 1;"), &format!("a map<{kind}, int>"), &values);
    }
    let structs =
        "a { fields { key: 'x' value { list_value { values { number_value: 1 } values { null_value: 0 } } } } }";
    let expected = "a=\"{\\\"x\\\":[1,null]}\"";
    check(
        usual,
        "google.protobuf.Struct a = 1;",
        "a string",
        &[(structs, expected), ("a {}", "a=\"{}\""), ("", "a=null")],
    );
    check(usual, "google.protobuf.Value a = 1;", "a string", &[("a { null_value: 0 }", "a=\"null\""), ("", "a=null")]);
    check(usual, "repeated google.protobuf.ListValue a = 1;", "a list<string>", &[("a {}", "a=[\"[]\"]")]);
    let tree = [("i: 1 kids { i: 2 kids { } } kids {}", "i=1,kids=[\"{\\\"i\\\":2,\\\"kids\\\":[{}]}\",\"{}\"]")];
    check(usual, "int32 i = 1; repeated M kids = 2;", "i int, kids list<string>", &tree);
    check(
        usual,
        "N n = 1; message N { M m = 1; int32 i = 2; }",
        "n struct<m: string, i: int>",
        &[("n { m { n { i: 3 } } }", "n={m=\"{\\\"n\\\":{\\\"i\\\":3}}\",i=0}")],
    );
}

#[test]
fn json_is_as_the_language_says() {
    let body = "message M { int32 number = 1; R r = 2; }
        message R { M m = 1; int64 big = 2; double d = 3; bytes raw_bytes = 4; E e = 5; repeated E es = 6;
        map<int64, bool> flags = 7; google.protobuf.Timestamp at = 8; google.protobuf.Duration lasts = 9;
        google.protobuf.FieldMask mask = 10; google.protobuf.StringValue text = 11; google.protobuf.Any any = 12;
        optional int32 zero = 13; float f = 14; google.protobuf.Empty none = 15; oneof g { uint64 u = 16; string s = 17; }
        fixed32 odd = 18; } enum E { A = 0; B = 1; }";
    let (message, descriptor) = first(&proto3(body));
    let json = |value: &str| {
        let inner = encode(&descriptor, &format!("r {{ m {{ r {{ {value} }} }} }}"));
        let row = decode(&message, MappingOptions::default(), &[inner]).remove(0).unwrap();
        let text = row.split_once("r={m=").unwrap().1.split_once(",big=").unwrap().0.to_owned();
        let text: String = serde_json::from_str(&text).unwrap();
        text.strip_prefix("{\"r\":").unwrap().strip_suffix('}').unwrap().to_owned()
    };
    for (value, expected) in [
        ("big: -5", r#"{"big":"-5"}"#),
        ("d: 5.0", r#"{"d":5}"#),
        ("d: 1e300", r#"{"d":1e+300}"#),
        ("d: nan f: inf", r#"{"d":"NaN","f":"Infinity"}"#),
        ("f: 0.1", r#"{"f":0.1}"#),
        ("raw_bytes: '\\377'", r#"{"rawBytes":"/w=="}"#),
        ("raw_bytes: '\\000'", r#"{"rawBytes":"AA=="}"#),
        ("e: B es: [A, B]", r#"{"e":"B","es":["A","B"]}"#),
        ("flags { key: -1 value: true }", r#"{"flags":{"-1":true}}"#),
        ("at { seconds: -1 nanos: 500000000 }", r#"{"at":"1969-12-31T23:59:59.500Z"}"#),
        ("lasts { seconds: -3 nanos: -1000 } ", r#"{"lasts":"-3.000001s"}"#),
        ("mask { paths: ['a_b.c', 'd'] }", r#"{"mask":"aB.c,d"}"#),
        ("text { value: '\"\\n' }", r#"{"text":"\"\n"}"#),
        ("any { type_url: 'x/y' value: '1' }", r#"{"any":{"@type":"x/y","value":"MQ=="}}"#),
        ("zero: 0 none {}", r#"{"zero":0,"none":{}}"#),
        ("u: 18446744073709551615", r#"{"u":"18446744073709551615"}"#),
        ("s: ''", r#"{"s":""}"#),
        ("odd: 2147483648", r#"{"odd":2147483648}"#),
    ] {
        assert_eq!(json(value), expected, "{value}");
    }
}

#[test]
fn texts_descriptors_and_references_are_read() {
    use base64::Engine as _;
    let with = |text: &str, references: &[(&str, &str)]| {
        let references = references.iter().map(|(path, text)| ((*path).to_owned(), Arc::new(registered(text))));
        RegisteredSchema { references: references.collect(), ..registered(text) }
    };
    let shown = |schema: &RegisteredSchema| {
        parse(schema)
            .and_then(|file| Ok(types(&columns(file.message(MessagePath::FIRST)?, MappingOptions::default())?)))
    };
    let other = "syntax = \"proto3\"; package o; message Other { int32 x = 1; }";
    let text = "syntax = \"proto3\"; import \"dir/o.proto\"; message M { o.Other a = 1; }";
    assert_eq!(shown(&with(text, &[("dir/o.proto", other)])).unwrap(), "a struct<x: int>");
    let named = shown(&with(text, &[])).unwrap_err().chain();
    assert!(named.contains("o.Other"), "{named}");
    // Options whose definitions are nowhere do not matter.
    let text = "syntax = \"proto3\"; import \"buf/validate.proto\"; message M { option (x.y) = 1;
        int32 a = 1 [(buf.field).int32.gt = 3]; } service S { rpc R(Nowhere) returns (Nowhere); }";
    assert_eq!(shown(&registered(text)).unwrap(), "a int");
    let base64 = |text: &str| {
        let linked = link(&registered(text)).unwrap();
        base64::engine::general_purpose::STANDARD.encode(linked.file.encode_to_vec())
    };
    let meta = "[(confluent.field_meta).params = { key: 'scale' value: '3' }]";
    let text = format!(
        "syntax = \"proto3\"; import \"confluent/type/decimal.proto\"; message M {{ confluent.type.Decimal a = 1 {meta}; }}"
    );
    assert_eq!(shown(&registered(&text)).unwrap(), "a decimal(38, 3)");
    assert_eq!(shown(&registered(&base64(&text))).unwrap(), "a decimal(38, 3)");
    let reference = base64(other);
    let text = "syntax = \"proto3\"; import \"dir/o.proto\"; message M { o.Other a = 1; }";
    assert_eq!(shown(&with(text, &[("dir/o.proto", &reference)])).unwrap(), "a struct<x: int>");
    for text in ["{\"type\": \"string\"}", "syntax = \"proto3\"; message M { int32 a = 1 }", "", "AAAA"] {
        assert_eq!(shown(&registered(text)).unwrap_err().kind(), crate::error::ErrorKind::InvalidRecord, "{text}");
    }
}

#[test]
fn editions_proto2_and_comments_are_read() {
    let strict = MappingOptions { keep_required: true, ..MappingOptions::default() };
    let text = "// Comment.\nedition = \"2023\"; option features.field_presence = IMPLICIT;
        message M { int32 a = 1; int32 b = 2 [features.field_presence = EXPLICIT];
        int32 c = 3 [features.field_presence = LEGACY_REQUIRED]; N n = 4 [features.message_encoding = DELIMITED]; }
        message N { int32 x = 1; }";
    let (message, _) = first(&registered(text));
    assert_eq!(types(&columns(&message, strict).unwrap()), "a int!, b int, c int!, n struct<x: int>");
    assert_eq!(decode(&message, strict, &[vec![24, 1, 35, 8, 2, 36]]), [Ok("a=0,b=null,c=1,n={x=2}".to_owned())]);
    let text = "syntax = \"proto2\"; message M {
        // A first
        // line.
        required int32 a = 1; optional int32 b = 2 [default = 5]; // behind
        repeated group G = 3 { optional string s = 4; extensions 100 to max; }
        optional E e = 5; enum E { option allow_alias = true; X = 3; Y = 3; W = -1; } }";
    let (message, _) = first(&registered(text));
    let fields = columns(&message, strict).unwrap();
    assert_eq!(types(&fields), "a int!, b int, g list<struct<s: string>>!, e string");
    assert_eq!(fields[0].doc.as_deref(), Some("A first line."));
    assert_eq!(fields[1].doc.as_deref(), Some("behind"));
    let records = [vec![8, 1, 27, 34, 1, b'x', 28, 27, 28, 40, 3], vec![16, 1], vec![8, 1, 40, 9], vec![8, 1, 34, 0]];
    let rows = decode(&message, strict, &records);
    assert_eq!(rows[0], Ok("a=1,b=null,g=[{s=\"x\"},{s=null}],e=\"X\"".to_owned()));
    assert_eq!(rows[1], Err(Reason::TypeMismatch), "a required field is absent");
    assert_eq!(rows[2], Ok("a=1,b=null,g=[],e=\"9\"".to_owned()));
    let text = "syntax = \"proto2\"; message M { map<int32, E> m = 1; enum E { X = 3; W = -1; } }";
    let (message, _) = first(&registered(text));
    assert_eq!(decode(&message, strict, &[vec![10, 0]]), [Ok("m=[{key=0,value=\"X\"}]".to_owned())]);
}

#[test]
fn messages_are_chosen_by_path() {
    let text = "syntax = \"proto3\"; message A { map<string, int32> m = 1; message B { message C { int32 c = 1; } } }
        enum E { Z = 0; } message D { int32 d = 1; }";
    let file = parse(&registered(text)).unwrap();
    let name = |indexes: &[u32]| {
        file.message(MessagePath::new(indexes).unwrap()).map(|message| message.full_name().to_owned())
    };
    // The entry type of the map, though nested before `B`, does not count.
    assert_eq!([&[0][..], &[0, 0], &[0, 0, 0], &[1]].map(|path| name(path).unwrap()), ["A", "A.B", "A.B.C", "D"]);
    assert!(name(&[2]).is_err() && name(&[0, 1]).is_err());
}

#[test]
fn entries_of_maps_count_where_they_are_written() {
    let entry = "message MEntry { option map_entry = true; string key = 1; int32 value = 2; }";
    let java = registered(&format!(
        "syntax = \"proto3\"; message A {{ repeated MEntry m = 1; {entry} message B {{ int32 b = 1; }} }}"
    ));
    let descriptor =
        link(&registered("syntax = \"proto3\"; message A { map<string, int32> m = 1; message B { int32 b = 1; } }"));
    let descriptor = descriptor.unwrap().file.file_descriptor_proto().encode_to_vec();
    for registered in [java, registered(&base64::engine::general_purpose::STANDARD.encode(descriptor))] {
        let file = parse(&registered).unwrap();
        let message = |indexes: &[u32]| file.message(MessagePath::new(indexes).unwrap()).unwrap();
        let columns = columns(message(&[0]), MappingOptions::default()).unwrap();
        assert_eq!(columns[0].kind.to_string(), "map<string, int>");
        assert_eq!(message(&[0, 1]).full_name(), "A.B");
    }
}

#[test]
fn tables_may_be_wider_and_lack_columns() {
    let (message, descriptor) = first(&proto3(
        "message M { int32 a = 1; float b = 2; N n = 3; uint64 u = 4; oneof g { int32 x = 5; int32 y = 6; } int32 out = 7; }
        message N { int32 c = 1; int32 lacking = 2; }",
    ));
    let more = |name: &str| Field::optional(name, Type::Binary);
    let table = [
        more("other"),
        Field::optional("n", Type::Struct(vec![more("more"), Field::optional("c", Type::Long)])),
        Field::optional("a", Type::Long),
        Field::optional("b", Type::Double),
        Field::optional("u", Type::Decimal(38, 0)),
        Field::optional("g", Type::Struct(vec![Field::optional("y", Type::Long), more("z")])),
        more("out"),
    ];
    let open = [0, 1, 2, 3, 4, 5];
    let options = MappingOptions::default();
    let program = Program::compile(&message, &table, &open, options, &ALL).unwrap();
    let mut filled: Vec<usize> = program.filled().collect();
    filled.sort_unstable();
    assert_eq!(filled, [1, 2, 3, 4, 5], "other is not the message's and out is not open");
    let values = ["a: -1 b: 0.5 n { c: 2 lacking: 3 } u: 4 y: 6", "x: 1 n {}", "out: 3"];
    let records: Vec<_> = values.iter().map(|value| encode(&descriptor, value)).collect();
    let rows = rows(&program, &table, &records);
    let expected = [
        "other=null,n={more=null,c=2},a=-1,b=3fe0000000000000,u=4,g={y=6,z=null},out=null",
        "other=null,n={more=null,c=0},a=0,b=0,u=0,g={y=null,z=null},out=null",
        "other=null,n=null,a=0,b=0,u=0,g=null,out=null",
    ];
    assert_eq!(rows, expected.map(|row| Ok(row.to_owned())));
    let error = |field: Field| Program::compile(&message, &[field], &[0], options, &ALL).unwrap_err().chain();
    assert!(error(Field::optional("a", Type::String)).contains("`a`"));
    assert!(error(Field::required("n", Type::Struct(Vec::new()))).contains("optional in the schema"));
    let strict = Field::optional("n", Type::Struct(vec![Field::required("z", Type::Int)]));
    assert!(error(strict).contains("`n.z` is required in the table"));
}

#[test]
fn a_message_may_go_into_one_column() {
    let (message, descriptor) = first(&proto3("message M { int32 a = 1; map<string, int32> m = 2; }"));
    let options = MappingOptions::default();
    let kind = super::mapping::column_type(&message, options).unwrap();
    let table = TableSchema::of(vec![Field::optional("x", Type::Int), Field::optional("key", kind)]);
    let program = Program::compile_single(&message, &table.fields, 1, options, &ALL).unwrap();
    // A key that comes twice needs a second pass.
    let records = [encode(&descriptor, "a: 5"), vec![18, 0, 18, 2, 16, 7], vec![8]];
    let rows = rows(&program, &table.fields, &records);
    assert_eq!(rows[0], Ok("x=null,key={a=5,m=[]}".to_owned()));
    assert_eq!(rows[1], Ok("x=null,key={a=0,m=[{key=\"\",value=7}]}".to_owned()));
    assert_eq!(rows[2], Err(Reason::Truncated));
    assert!(Program::compile_single(&message, &table.fields, 0, options, &ALL).is_err());
}
