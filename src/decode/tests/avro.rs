//! Avro's rows of the mapping, one case each: the column's type and what it shows of given bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::avro::names::parse_text;
use super::super::avro::program::Program;
use super::super::columns::Column;
use super::super::evolution::evolved;
use super::super::layout::Layout;
use super::super::mapping::{MappingOptions, TimeAs};
use super::super::{Decoder, Decoding, SchemaKey, SchemaUse};
use super::{SIDES, batch, columns_of, decide, decoder, framed, layout, row, schema};
use crate::model::decoded::Reason;
use crate::model::projection::ALL;
use crate::model::schema::{Field, Type};

/// One record of one field `f` of type `schema`, whose bytes are `body`: the column's type, and what it shows.
#[track_caller]
fn check(schema: &str, kind: &str, body: &[u8], expected: Result<&str, Reason>) {
    check_as(MappingOptions::default(), schema, kind, body, expected);
}

#[track_caller]
fn check_as(mapping: MappingOptions, schema: &str, kind: &str, body: &[u8], expected: Result<&str, Reason>) {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{schema}}}]}}"#);
    let decoder = decoder(Layout { mapping, ..layout(TimeAs::Long) }, &[&text]);
    assert_eq!(decoder.table().fields[0].kind.to_string(), kind, "{schema}");
    let decoded = decide(&decoder, &[Some(framed(1, body))]);
    match expected {
        Ok(shown) => {
            assert!(decoded.rejects.is_empty(), "{schema}: {}", decoded.rejects[0].message);
            assert_eq!(row(&decoded.rows, 0), format!("{{f={shown}}}"), "{schema}");
        }
        Err(reason) => assert_eq!(decoded.rejects.first().map(|reject| reject.reason), Some(reason), "{schema}"),
    }
}

/// A zigzag varint.
fn long(value: i64) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str("\"long\"").unwrap();
    apache_avro::to_avro_datum(&schema, apache_avro::types::Value::Long(value)).unwrap()
}

fn text(value: &str) -> Vec<u8> {
    [&long(i64::try_from(value.len()).unwrap()), value.as_bytes()].concat()
}

fn logical(base: &str, name: &str) -> String {
    format!(r#"{{"type":{base},"logicalType":"{name}"}}"#)
}

fn fixed(size: usize, more: &str) -> String {
    format!(r#"{{"type":"fixed","name":"F","size":{size}{more}}}"#)
}

#[test]
fn primitive_and_logical_types() {
    check("\"boolean\"", "boolean", &[1], Ok("true"));
    check("\"int\"", "int", &[3], Ok("-2"));
    check("\"long\"", "long", &[4], Ok("2"));
    check("\"float\"", "float", &1.5_f32.to_le_bytes(), Ok("3fc00000"));
    check("\"double\"", "double", &1.5_f64.to_le_bytes(), Ok("3ff8000000000000"));
    check("\"bytes\"", "binary", &[4, 1, 2], Ok("[1, 2]"));
    check("\"string\"", "string", &text("a"), Ok("\"a\""));
    check(r#"{"type":"enum","name":"E","symbols":["a","b"]}"#, "string", &[2], Ok("\"b\""));
    check(&fixed(2, ""), "fixed[2]", &[1, 2], Ok("[1, 2]"));
    check(
        &fixed(12, r#","logicalType":"duration""#),
        "fixed[12]",
        &[7; 12],
        Ok("[7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]"),
    );
    check(&logical("\"bytes\"", "big-decimal"), "binary", &[2, 9], Ok("[9]"));
    check(&logical("\"int\"", "date"), "date", &[2], Ok("1"));
    for (name, kind, shown) in [
        ("timestamp-millis", "timestamptz", "3000"),
        ("timestamp-micros", "timestamptz", "3"),
        ("timestamp-nanos", "timestamptz", "0"),
        ("local-timestamp-millis", "timestamp", "3000"),
        ("local-timestamp-micros", "timestamp", "3"),
        ("local-timestamp-nanos", "timestamp", "0"),
        ("time-micros", "long", "3"),
    ] {
        check(&logical("\"long\"", name), kind, &[6], Ok(shown));
    }
    let uuid = uuid::Uuid::from_u128(7).to_string();
    let seven = "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]";
    let as_text = MappingOptions { uuid_as_string: true, ..MappingOptions::default() };
    check(&logical("\"string\"", "uuid"), "uuid", &text(&uuid), Ok(seven));
    check_as(as_text, &logical("\"string\"", "uuid"), "string", &text(&uuid), Ok(&format!("{uuid:?}")));
    check(&fixed(16, r#","logicalType":"uuid""#), "uuid", &7_u128.to_be_bytes(), Ok(seven));
    check_as(
        as_text,
        &fixed(16, r#","logicalType":"uuid""#),
        "string",
        &7_u128.to_be_bytes(),
        Ok(&format!("{uuid:?}")),
    );
    // An annotation that does not fit is ignored.
    check(&logical("\"string\"", "date"), "string", &text("a"), Ok("\"a\""));
}

#[test]
fn decimals() {
    let of =
        |precision: u32, scale: i32| format!(r#","logicalType":"decimal","precision":{precision},"scale":{scale}"#);
    let bytes = |precision, scale| format!(r#"{{"type":"bytes"{}}}"#, of(precision, scale));
    check(&bytes(38, 2), "decimal(38, 2)", &[4, 0x07, 0xcf], Ok("1999"));
    check(&fixed(3, &of(6, 0)), "decimal(6, 0)", &[0xff, 0xff, 0xfe], Ok("-2"));
    check(&bytes(39, 2), "string", &[4, 0x07, 0xcf], Ok("\"19.99\""));
    check(&fixed(3, &of(64, 4)), "string", &[0xff, 0xff, 0xfe], Ok("\"-0.0002\""));
    // More digits than the precision says: nothing is cut.
    check(
        &bytes(40, 0),
        "string",
        &[&long(20)[..], &[1; 20]].concat(),
        Ok("\"5731378969925109483151705226338364782964441345\""),
    );
    check(&bytes(40, 0), "string", &[&long(600)[..], &[1; 600]].concat(), Err(Reason::ValueOutOfRange));
    for unfit in [bytes(2, 5), bytes(2, -1), bytes(0, 0), bytes(1001, 0)] {
        check(&unfit, "binary", &[2, 1], Ok("[1]"));
    }
}

#[test]
fn attributes_of_connect_and_debezium() {
    const DBZ: &str = "io.debezium.time";
    const CONNECT: &str = "org.apache.kafka.connect.data";
    let of = |base: &str, name: &str| format!(r#"{{"type":"{base}","connect.version":1,"connect.name":"{name}"}}"#);
    let zoned = "2024-03-01T12:00:00.5+02:00";
    for (base, name, kind, body, shown) in [
        ("int", format!("{CONNECT}.Date"), "date", long(3), "3"),
        ("int", format!("{CONNECT}.Time"), "long", long(3), "3000"),
        ("long", format!("{CONNECT}.Timestamp"), "timestamptz", long(3), "3000"),
        ("int", format!("{DBZ}.Date"), "date", long(3), "3"),
        ("int", format!("{DBZ}.Time"), "long", long(3), "3000"),
        ("long", format!("{DBZ}.MicroTime"), "long", long(3), "3"),
        ("long", format!("{DBZ}.NanoTime"), "long", long(-1), "-1"),
        ("long", format!("{DBZ}.Timestamp"), "timestamp", long(3), "3000"),
        ("long", format!("{DBZ}.MicroTimestamp"), "timestamp", long(3), "3"),
        ("long", format!("{DBZ}.NanoTimestamp"), "timestamp", long(2999), "2"),
        ("string", format!("{DBZ}.ZonedTimestamp"), "timestamptz", text(zoned), "1709287200500000"),
        ("string", format!("{DBZ}.ZonedTime"), "string", text("12:00Z"), "\"12:00Z\""),
        ("int", format!("{DBZ}.Year"), "int", long(2024), "2024"),
        ("string", format!("{DBZ}.Interval"), "string", text("P1D"), "\"P1D\""),
        // Where the base type does not fit, the name means nothing.
        ("long", format!("{DBZ}.Date"), "long", long(3), "3"),
        ("int", format!("{DBZ}.Timestamp"), "int", long(3), "3"),
        ("long", format!("{DBZ}.ZonedTimestamp"), "long", long(3), "3"),
    ] {
        check(&of(base, &name), kind, &body, Ok(shown));
        check(&format!(r#"["null",{}]"#, of(base, &name)), kind, &[&[2], &body[..]].concat(), Ok(shown));
    }
    for wrong in ["12:00", "2024-03-01", "2024-03-01T12:00:00", "2024-13-01T12:00:00Z", ""] {
        check(&of("string", &format!("{DBZ}.ZonedTimestamp")), "timestamptz", &text(wrong), Err(Reason::TypeMismatch));
    }
    let as_time = MappingOptions { time_as: TimeAs::Time, ..MappingOptions::default() };
    let as_text = MappingOptions { time_as: TimeAs::String, ..MappingOptions::default() };
    let nanos = of("long", &format!("{DBZ}.NanoTime"));
    check_as(as_time, &nanos, "time", &long(61_000_001_999), Ok("61000001"));
    check_as(as_text, &nanos, "string", &long(61_000_001_999), Ok("\"00:01:01.000001\""));
    check_as(as_time, &nanos, "time", &long(86_400_000_000_000), Err(Reason::ValueOutOfRange));

    let decimal = |more: &str| format!(r#"{{"type":"bytes","connect.name":"{CONNECT}.Decimal"{more}}}"#);
    let precise = r#","connect.parameters":{"scale":"2","connect.decimal.precision":"10"}"#;
    check(&decimal(precise), "decimal(10, 2)", &[4, 0x07, 0xcf], Ok("1999"));
    check(&decimal(r#","connect.parameters":{"scale":"2"}"#), "string", &[4, 0x07, 0xcf], Ok("\"19.99\""));
    // What stands in `logicalType` counts before what Connect says, also where it fits nothing.
    let both = format!(r#"{precise},"logicalType":"decimal","precision":12,"scale":1"#);
    check(&decimal(&both), "decimal(12, 1)", &[4, 0x07, 0xcf], Ok("1999"));
    check(&decimal(&format!(r#"{precise},"logicalType":"date""#)), "binary", &[2, 9], Ok("[9]"));
    for narrow in ["int8", "int16"] {
        check(&format!(r#"{{"type":"int","connect.type":"{narrow}"}}"#), "int", &[4], Ok("2"));
    }
    let commented =
        r#"{"type":"record","name":"R","fields":[{"name":"f","type":["null",{"type":"int","connect.doc":"d"}]}]}"#;
    let decoder = decoder(layout(TimeAs::Long), &[commented]);
    assert_eq!(decoder.table().fields[0].doc.as_deref(), Some("d"));
}

#[test]
fn unions_of_several_branches_are_structs() {
    let address = r#"{"type":"record","name":"n.Address","fields":[{"name":"city","type":"string"}]}"#;
    let empty = r#"{"type":"record","name":"Empty","fields":[]}"#;
    let array = r#"{"type":"array","items":"int"}"#;
    let kind = "struct<int: int, string: string>";
    check(r#"["int","string"]"#, kind, &[0, 4], Ok("{int=2,string=null}"));
    check(r#"["int","string"]"#, kind, &[2, 2, b'a'], Ok("{int=null,string=\"a\"}"));
    check(r#"["int","string"]"#, kind, &[4], Err(Reason::TypeMismatch));
    check(r#"["int","string"]"#, kind, &[1], Err(Reason::TypeMismatch));
    check(r#"["int","string"]"#, kind, &[2, 4, b'a'], Err(Reason::Truncated));
    check(r#"["int","null","string"]"#, kind, &[2], Ok("null"));
    check(r#"["int","null","string"]"#, kind, &[4, 2, b'a'], Ok("{int=null,string=\"a\"}"));
    let named = format!(r#"["null",{address},{array},{{"type":"map","values":"int"}},{}]"#, fixed(1, ""));
    let kind = "struct<Address: struct<city: string>, array: list<int>, map: map<string, int>, F: fixed[1]>";
    check(&named, kind, &[2, 2, b'a'], Ok("{Address={city=\"a\"},array=null,map=null,F=null}"));
    check(&named, kind, &[4, 2, 4, 0], Ok("{Address=null,array=[2],map=null,F=null}"));
    check(&named, kind, &[8, 9], Ok("{Address=null,array=null,map=null,F=[9]}"));
    // A logical type's branch is called by its base type.
    let date = r#"[{"type":"int","logicalType":"date"},"string"]"#;
    check(date, "struct<int: date, string: string>", &[0, 2], Ok("{int=1,string=null}"));
    // Names that clash are full ones; those that differ by case have a suffix.
    let other = |name: &str| address.replace("n.Address", name);
    let clash = format!("[{address},{},{}]", other("m.o.Address"), other("address"));
    let city = "struct<city: string>";
    let kind = format!("struct<n_Address: {city}, m_o_Address: {city}, address: {city}>");
    check(&clash, &kind, &[2, 2, b'a'], Ok("{n_Address=null,m_o_Address={city=\"a\"},address=null}"));
    let cased = format!("[{address},{}]", other("address"));
    let kind = format!("struct<Address: {city}, address_2: {city}>");
    check(&cased, &kind, &[2, 2, b'a'], Ok("{Address=null,address_2={city=\"a\"}}"));
    // A branch without columns leaves a struct of nulls, not a null.
    let hollow = format!(r#"["null",{empty},"int","string"]"#);
    check(&hollow, "struct<int: int, string: string>", &[2], Ok("{int=null,string=null}"));
    check(&format!(r#"[{empty},"int"]"#), "struct<int: int>", &[0], Ok("{int=null}"));
    check(r#"["int"]"#, "int", &[0, 4], Ok("2"));
    // In lists and maps, and in one another.
    let list = r#"{"type":"array","items":["null","int",{"type":"array","items":["int","string"]}]}"#;
    let kind = "list<struct<int: int, array: list<struct<int: int, string: string>>>>";
    check(
        list,
        kind,
        &[6, 0, 2, 4, 4, 2, 2, 2, b'a', 0, 0],
        Ok("[null,{int=2,array=null},{int=null,array=[{int=null,string=\"a\"}]}]"),
    );
    let nothing = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":[{empty},"null"]}},{{"name":"g","type":"int"}}]}}"#
    );
    let decoder = decoder(layout(TimeAs::Long), &[&nothing]);
    assert_eq!(row(&decide(&decoder, &[Some(framed(1, &[2, 4]))]).rows, 0), "{g=2}");
}

/// Values of the schema `text`: the row of each, or why there is none.
#[track_caller]
fn rows(text: &str, cases: &[(&[u8], Result<&str, Reason>)]) {
    let decoder = decoder(layout(TimeAs::Long), &[text]);
    let values: Vec<_> = cases.iter().map(|(body, _)| Some(framed(1, body))).collect();
    let decoded = decide(&decoder, &values);
    let offsets = super::offsets(&decoded);
    for (offset, (body, expected)) in cases.iter().enumerate() {
        let found = offsets.iter().position(|row| *row == offset).map(|index| row(&decoded.rows, index));
        let reject = decoded.rejects.iter().find(|reject| usize::try_from(reject.record.offset).unwrap() == offset);
        assert_eq!(found.as_deref(), expected.ok(), "{text} {body:?}");
        assert_eq!(reject.map(|reject| reject.reason), expected.err(), "{text} {body:?}");
    }
}

#[test]
fn a_union_at_the_top_is_columns() {
    const MISFIT: Result<&str, Reason> = Err(Reason::TypeMismatch);
    let a = r#"{"type":"record","name":"n.A","fields":[{"name":"x","type":"int"}]}"#;
    let b = r#"{"type":"record","name":"n.B","fields":[{"name":"y","type":"string"}]}"#;
    let empty = r#"{"type":"record","name":"Empty","fields":[]}"#;
    let both: [(&[u8], _); 5] = [
        (&[0, 2], Ok("{A={x=1},B=null}")),
        (&[2, 2, b'a'], Ok("{A=null,B={y=\"a\"}}")),
        (&[2, 4, b'a'], Err(Reason::Truncated)),
        (&[0, 2, 2], Err(Reason::Truncated)),
        (&[4], MISFIT),
    ];
    rows(&format!("[{a},{b}]"), &both);
    rows(
        &format!(r#"[{a},"null","string"]"#),
        &[(&[2], Ok("{A=null,string=null}")), (&[4, 0], Ok("{A=null,string=\"\"}"))],
    );
    rows(&format!(r#"["null",{a}]"#), &[(&[0], Ok("{x=null}")), (&[2, 2], Ok("{x=1}")), (&[4], MISFIT)]);
    rows(&format!(r#"[{a},"null"]"#), &[(&[2], Ok("{x=null}")), (&[0, 2], Ok("{x=1}"))]);
    rows(&format!("[{a}]"), &[(&[0, 2], Ok("{x=1}")), (&[2, 2], MISFIT)]);
    rows(&format!("[{a},{empty}]"), &[(&[2], Ok("{A=null}")), (&[0, 2], Ok("{A={x=1}}"))]);
    rows(r#"["null","string"]"#, &[(&[0], Ok("{value=null}")), (&[2, 2, b'a'], Ok("{value=\"a\"}"))]);
    for nothing in [empty, r#""null""#, &format!(r#"["null",{empty}]"#)] {
        rows(
            nothing,
            &[
                (if nothing.starts_with('[') { &[0] } else { &[] }, Ok("{}")),
                (&[9, 9], if nothing.starts_with('[') { MISFIT } else { Err(Reason::Truncated) }),
            ],
        );
    }
}

#[test]
fn a_union_may_gain_branches_and_lose_them() {
    let of = |branches: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{branches}}}]}}"#);
    let (old, new) = (of(r#"["int","string"]"#), of(r#"["boolean","null","string"]"#));
    let decoder = decoder(layout(TimeAs::Long), &[&old, &new]);
    let values = [(1, vec![0, 4]), (2, vec![0, 1]), (2, vec![2]), (1, vec![2, 0]), (2, vec![4, 0])];
    let values: Vec<_> = values.iter().map(|(id, body)| Some(framed(*id, body))).collect();
    let decoded = decide(&decoder, &values);
    let shown: Vec<_> = (0..decoded.rows.num_rows()).map(|index| row(&decoded.rows, index)).collect();
    assert_eq!(
        shown,
        [
            "{f={int=2,string=null,boolean=null}}",
            "{f={int=null,string=null,boolean=true}}",
            "{f=null}",
            "{f={int=null,string=\"\",boolean=null}}",
            "{f={int=null,string=\"\",boolean=null}}",
        ]
    );
}

#[test]
fn branches_are_optional_even_where_required_columns_are_kept() {
    let mapping = MappingOptions { keep_required: true, ..MappingOptions::default() };
    let keep = Layout { mapping, ..layout(TimeAs::Long) };
    let a = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]}"#;
    let table = |text: &str| columns_of(&keep, &schema(text));
    let required = |text: &str| table(text).fields.iter().map(|field| field.required).collect::<Vec<_>>();
    assert_eq!(required(a), [true, false]);
    assert_eq!(required(&format!(r#"["null",{a}]"#)), [false, false]);
    assert_eq!(required(&format!("[{a},\"int\"]")), [false, false, false]);
    // A table whose column is required is relaxed for a record that may be null, and cannot take a branch of its name.
    let decoding = |text: &str| {
        let uses = HashMap::from([(SchemaKey::Id(1), SchemaUse::Known(schema(text)))]);
        let decoder = Decoder::new(Arc::new(keep.clone()), Arc::new(table(a)), SIDES, uses);
        decoder.decode(batch(&[Some(framed(1, &[0, 0]))]), 0).unwrap()
    };
    let Decoding::Needs(_, needs) = decoding(&format!(r#"["null",{a}]"#)) else { panic!("nothing is relaxed") };
    assert!(!needs.table.unwrap().fields[0].required);
    let Decoding::Done(decoded) = decoding(r#"["int",{"type":"enum","name":"x","symbols":["a"]}]"#) else {
        panic!("not decided")
    };
    assert_eq!(decoded.rejects[0].reason, Reason::IncompatibleSchema);
    assert!(decoded.rejects[0].message.contains("column `x`"), "{}", decoded.rejects[0].message);
}

#[test]
fn a_misfit_names_the_path_of_its_field() {
    let of = |kind: &str| {
        format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":["int",{{"type":"array","items":{{"type":"record","name":"I","fields":[{{"name":"g","type":"{kind}"}}]}}}}]}}]}}"#
        )
    };
    let table = columns_of(&layout(TimeAs::Long), &schema(&of("int")));
    let uses = HashMap::from([(SchemaKey::Id(1), SchemaUse::Known(schema(&of("string"))))]);
    let decoder = Decoder::new(Arc::new(layout(TimeAs::Long)), Arc::new(table), SIDES, uses);
    let decoded = decide(&decoder, &[Some(framed(1, &[0, 0]))]);
    assert_eq!(decoded.rejects[0].message, "column `f.array.element.g` is int in the table and string in the schema");
}

const NODE: &str =
    r#"{"type":"record","name":"n.Node","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","Node"]}]}"#;

/// A list of so many nodes, each with the value 1.
fn nodes(count: usize) -> Vec<u8> {
    [&[2, 2].repeat(count - 1)[..], &[2, 0]].concat()
}

/// What reading so many nodes comes to where another side of the record has the column `next`.
fn without_next(count: usize) -> Result<(), Reason> {
    let mut columns = [Column::new(&Type::Int)];
    let table = [Field::optional("v", Type::Int)];
    let program = Program::compile(&parse_text(NODE).unwrap(), &table, &[0], MappingOptions::default(), &ALL).unwrap();
    program.run(&nodes(count), &mut columns).map_err(|(reason, _)| reason)?;
    assert_eq!(columns[0].len(), 1);
    Ok(())
}

#[test]
fn recursion_is_json_text_below_the_first_level() {
    let deep = |count: usize| {
        format!("{}{{\"v\":1,\"next\":null}}{}", "{\"v\":1,\"next\":".repeat(count - 1), "}".repeat(count - 1))
    };
    let shown = |count: usize| format!("{{v=1,next={:?}}}", deep(count));
    let hundred = shown(100);
    let two = shown(2);
    rows(
        NODE,
        &[
            (&nodes(1), Ok("{v=1,next=null}")),
            (&nodes(3), Ok(&two)),
            (&nodes(101), Ok(&hundred)),
            (&nodes(102), Err(Reason::TooLarge)),
            (&nodes(100_000), Err(Reason::TooLarge)),
            (&[2, 2, 2], Err(Reason::Truncated)),
            (&nodes(3), Ok(&two)),
        ],
    );
    assert_eq!([1, 2, 101].map(without_next), [Ok(()); 3]);
    assert_eq!([102, 100_000].map(without_next), [Err(Reason::TooLarge); 2]);
}

#[test]
fn recursion_leads_through_everything() {
    // Mutual, in an array, a map and a union; the second record refers to the first one and to itself.
    let a = r#"{"type":"record","name":"A","fields":[
        {"name":"b","type":["null",{"type":"record","name":"B","fields":[
            {"name":"all","type":{"type":"array","items":"A"}},
            {"name":"by","type":{"type":"map","values":["null","B"]}},
            {"name":"any","type":["string","A","B","null"]}]}]},
        {"name":"also","type":["null","B"]}]}"#;
    let decoder = decoder(layout(TimeAs::Long), &[a]);
    let b = "struct<all: list<string>, by: map<string, string>, any: struct<string: string, A: string, B: string>>";
    let kinds: Vec<_> = decoder.table().fields.iter().take(2).map(|field| field.kind.to_string()).collect();
    assert_eq!(kinds, [b, b], "a type has one mapping wherever it is referred to");
    let none = r#"{"b":null,"also":null}"#;
    let inner = r#"{"all":[],"by":{"k":null},"any":"s"}"#;
    let inner_bytes = [0, 2, 2, b'k', 0, 0, 0, 2, b's'];
    let body = [&[2, 4, 0, 0, 0, 0, 0, 2, 2, b'x', 2][..], &inner_bytes, &[0, 4], &inner_bytes, &[0]].concat();
    let shown = format!(
        "{{b={{all=[{none:?},{none:?}],by=[{{key=\"x\",value={inner:?}}}],any={{string=null,A=null,B={inner:?}}}}},also=null}}"
    );
    rows(a, &[(&body, Ok(&shown)), (&[0, 0], Ok("{b=null,also=null}"))]);
    // A record that has no end has no values.
    rows(r#"{"type":"record","name":"E","fields":[{"name":"e","type":"E"}]}"#, &[(&[], Err(Reason::TooLarge))]);
}

#[test]
fn json_text_of_every_type() {
    for (kind, body, json) in [
        ("\"null\"".to_owned(), vec![], "null"),
        ("\"boolean\"".to_owned(), vec![1], "true"),
        ("\"string\"".to_owned(), text("a\"\n"), r#""a\"\n""#),
        ("\"bytes\"".to_owned(), vec![4, 0xfb, 0xff], r#""+/8=""#),
        ("\"double\"".to_owned(), f64::NEG_INFINITY.to_le_bytes().to_vec(), r#""-Infinity""#),
        (logical("\"int\"", "date"), long(-1), r#""1969-12-31""#),
        (logical("\"int\"", "date"), long(i32::MAX.into()), "2147483647"),
        (logical("\"long\"", "time-micros"), long(61_000_001), r#""00:01:01.000001""#),
        (logical("\"long\"", "time-micros"), long(-1), "-1"),
        (logical("\"long\"", "timestamp-nanos"), long(-1), r#""1969-12-31T23:59:59.999999999Z""#),
        (logical("\"long\"", "local-timestamp-millis"), long(0), r#""1970-01-01T00:00:00""#),
        (logical("\"string\"", "uuid"), text("x"), r#""x""#),
        (r#"{"type":"bytes","logicalType":"decimal","precision":50,"scale":1}"#.to_owned(), vec![2, 0xff], r#""-0.1""#),
        (
            r#"{"type":"array","items":{"type":"record","name":"MapEntry","fields":[{"name":"key","type":"int"},{"name":"value","type":"int"}]}}"#.to_owned(),
            vec![2, 2, 4, 0],
            r#"[{"key":1,"value":2}]"#,
        ),
        (r#"{"type":"string","connect.name":"io.debezium.time.ZonedTimestamp"}"#.to_owned(), text("soon"), r#""soon""#),
    ] {
        let schema = format!(r#"{{"type":"record","name":"T","fields":[{{"name":"r","type":["null","T"]}},{{"name":"f","type":["int","float",{{"type":"record","name":"I","fields":[{{"name":"x","type":{kind}}}]}}]}}]}}"#);
        let body = [&[2, 0, 4], &body[..], &[0, 2]].concat();
        let decoder = decoder(layout(TimeAs::Long), &[&schema]);
        let decoded = decide(&decoder, &[Some(framed(1, &body))]);
        let shown = row(&decoded.rows, 0);
        let expected = format!("{{r={:?},", format!(r#"{{"r":null,"f":{{"x":{json}}}}}"#));
        assert!(shown.starts_with(&expected), "{kind}: {shown}");
    }
}

#[test]
fn json_text_has_a_bound() {
    let name = "n".repeat(10_000);
    let text = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"null"}},{{"name":"all","type":["int",{{"type":"array","items":"R"}}]}},{{"name":"one","type":["null","R"]}}]}}"#
    );
    // One record that holds as many as follow, each of three bytes.
    let of = |count: usize| {
        [&[0, 2, 2, 2][..], &long(i64::try_from(count).unwrap()), &[0, 2, 0].repeat(count), &[0, 0]].concat()
    };
    let decoder = decoder(layout(TimeAs::Long), &[&text]);
    let decoded = decide(&decoder, &[Some(framed(1, &of(1_000))), Some(framed(1, &of(2_000)))]);
    assert_eq!(decoded.rows.num_rows(), 1);
    assert_eq!(decoded.rejects[0].reason, Reason::TooLarge);
}

#[test]
fn columns_of_a_recursive_type_meet_those_of_the_table() {
    let wanted = columns_of(&layout(TimeAs::Long), &schema(NODE));
    assert_eq!(evolved(&wanted, &wanted, &layout(TimeAs::Long)), Ok(None));
}
