//! Random schemas and values against an encoder and decoder that are not ours, with the bytes shuffled, repeated, cut
//! and spoiled.

use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, SerializeOptions, Value,
};

use super::{decode, first, registered};
use crate::decode::mapping::MappingOptions;
use crate::decode::protobuf::wire::{Cursor, LEN, write_varint};
use crate::decode::tests::shapes::Random;

const SCALARS: [&str; 15] = [
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
    "sfixed64", "bool", "string", "bytes",
];
const WELL_KNOWN: [&str; 8] = [
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.UInt64Value",
    "google.protobuf.BoolValue",
    "google.protobuf.Struct",
    "google.protobuf.Value",
];

/// Five messages that refer to each other, forwards and backwards.
fn schema(random: &mut Random) -> String {
    let proto2 = random.below(3) == 0;
    let imports: String = ["timestamp", "duration", "wrappers", "struct"]
        .map(|file| format!("import \"google/protobuf/{file}.proto\"; "))
        .concat();
    let syntax = if proto2 { "proto2" } else { "proto3" };
    let enums = "enum E { E0 = 0; E1 = 1; E7 = 7; EN = -3; }";
    let messages: String = (0..5).map(|index| message(random, index, proto2)).collect();
    format!("syntax = \"{syntax}\"; {imports}{enums} {messages}")
}

fn message(random: &mut Random, index: usize, proto2: bool) -> String {
    let mut number = 0;
    let mut body = String::new();
    // More fields than the set of those seen has room for on the stack.
    let wide = index == 0 && random.below(10) == 0;
    let kind = |random: &mut Random| match if wide { 8 } else { random.below(9) } {
        0 => "E".to_owned(),
        1 => WELL_KNOWN[random.below(8)].to_owned(),
        // Forwards mostly: else all is recursion.
        2 if index < 4 => format!("M{}", index + 1 + random.below(4 - index as u64)),
        3 if random.below(3) == 0 => format!("M{}", random.below(5)),
        _ => SCALARS[random.below(15)].to_owned(),
    };
    let count = if wide { 300 } else { random.below(8) };
    for at in 0..count {
        number += 1 + random.below(3) * random.below(60);
        let name = format!("f{at}_x");
        body += &match random.below(6) {
            0 => format!("repeated {} {name} = {number};", kind(random)),
            1 => {
                let key = ["int32", "uint64", "sint64", "fixed32", "bool", "string"][random.below(6)];
                format!("map<{key}, {}> {name} = {number};", kind(random))
            }
            2 => {
                let members = 0..=random.below(3);
                let members = members.map(|m| format!("{} o{at}_{m} = {};", kind(random), number + m));
                let members = members.collect::<Vec<_>>().concat();
                number += 3;
                format!("oneof {name} {{ {members} }}")
            }
            3 if proto2 && random.below(2) == 0 => {
                format!(
                    "repeated group Group{at} = {number} {{ optional {} a = 1; repeated int32 b = 2; }}",
                    kind(random)
                )
            }
            3 | 4 if !proto2 => format!("{} {name} = {number};", kind(random)),
            _ => format!("optional {} {name} = {number};", kind(random)),
        };
    }
    format!("message M{index} {{ {body} }}")
}

fn value(random: &mut Random, kind: &Kind, depth: usize) -> Value {
    match kind {
        Kind::Double => Value::F64([f64::NAN, -0.0, 0.0, 1e300, f64::from_bits(random.next())][random.below(5)]),
        Kind::Float => {
            Value::F32([f32::INFINITY, -0.0, 0.0, 0.1, f32::from_bits(random.next() as u32)][random.below(5)])
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(random.long(i32::MIN.into(), i32::MAX.into()) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(random.long(i64::MIN, i64::MAX)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32((random.next() >> [0, 32, 60][random.below(3)]) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(random.long(i64::MIN, i64::MAX).cast_unsigned()),
        Kind::Bool => Value::Bool(random.below(2) == 0),
        Kind::String => Value::String(random.text()),
        Kind::Bytes => Value::Bytes(random.bytes().into()),
        Kind::Enum(_) => Value::EnumNumber([0, 1, 7, -3, 99, i32::MIN][random.below(6)]),
        Kind::Message(message) => Value::Message(made(random, message, depth)),
    }
}

fn made(random: &mut Random, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
            let seconds = random.long(0, 253_402_300_799);
            message.set_field_by_number(1, Value::I64(seconds));
            message.set_field_by_number(2, Value::I32(random.long(0, 999_999_999) as i32));
            return message;
        }
        "google.protobuf.Value" => {
            match if depth > 3 { 1 } else { random.below(6) } {
                0 => message.set_field_by_number(1, Value::EnumNumber(0)),
                1 => message.set_field_by_number(2, Value::F64([0.0, -1.5, 1e20][random.below(3)])),
                2 => message.set_field_by_number(3, Value::String(random.text())),
                3 => message.set_field_by_number(4, Value::Bool(true)),
                number => {
                    let field = descriptor.get_field(number as u32 + 1).unwrap();
                    message.set_field(&field, value(random, &field.kind(), depth + 1));
                }
            }
            return message;
        }
        _ => {}
    }
    for field in descriptor.fields() {
        if random.below(3) == 0 || depth > 2 && field.kind().as_message().is_some() {
            continue;
        }
        let few = if depth > 2 { 2 } else { 5 };
        let made = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { unreachable!() };
            let (key, kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let count = if random.below(10) == 0 { 12 } else { random.below(few) };
            let entry = |_| {
                let key = match value(random, &key, depth) {
                    Value::Bool(key) => MapKey::Bool(key),
                    Value::I32(key) => MapKey::I32(key),
                    Value::I64(key) => MapKey::I64(key),
                    Value::U32(key) => MapKey::U32(key),
                    Value::U64(key) => MapKey::U64(key),
                    Value::String(key) => MapKey::String(key),
                    _ => unreachable!(),
                };
                (key, value(random, &kind, depth + 1))
            };
            Value::Map((0..count).map(entry).collect())
        } else if field.is_list() {
            Value::List((0..random.below(few)).map(|_| value(random, &field.kind(), depth + 1)).collect())
        } else {
            value(random, &field.kind(), depth + 1)
        };
        message.set_field(&field, made);
    }
    message
}

/// A message's columns, in the words of our tables; empty where it has none.
fn shown(message: &DynamicMessage, open: &mut Vec<String>) -> String {
    let descriptor = message.descriptor();
    open.push(descriptor.full_name().to_owned());
    let mut fields: Vec<_> = descriptor.fields().collect();
    fields.sort_by_key(|field| *field.path().last().unwrap());
    let mut parts = Vec::new();
    for field in fields.iter().filter(|field| field.containing_oneof().is_none_or(|oneof| oneof.is_synthetic())) {
        if let Some(text) = shown_field(message, field, open) {
            parts.push(format!("{}={text}", field.name()));
        }
    }
    for oneof in descriptor.oneofs().filter(|oneof| !oneof.is_synthetic()) {
        let set = oneof.fields().any(|field| message.has_field(&field));
        let mut members: Vec<_> = oneof.fields().collect();
        members.sort_by_key(|field| *field.path().last().unwrap());
        let members =
            members.iter().filter_map(|field| Some(format!("{}={}", field.name(), shown_field(message, field, open)?)));
        let members: Vec<_> = members.collect();
        if !members.is_empty() {
            let group = if set { format!("{{{}}}", members.join(",")) } else { "null".to_owned() };
            parts.push(format!("{}={group}", oneof.name()));
        }
    }
    open.pop();
    parts.join(",")
}

fn shown_field(message: &DynamicMessage, field: &FieldDescriptor, open: &mut Vec<String>) -> Option<String> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!() };
        let (key, kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        shown_value(&Value::default_value(&kind), &kind, open)?;
        let map = message.get_field(field);
        let entries = map.as_map().unwrap().iter().map(|(k, v)| {
            let k = shown_value(&Value::from(k.clone()), &key, open).unwrap();
            format!("{{key={k},value={}}}", shown_value(v, &kind, open).unwrap())
        });
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        return Some(format!("[{}]", entries.join(",")));
    }
    let kind = field.kind();
    shown_value(&Value::default_value(&kind), &kind, open)?;
    if field.is_list() {
        let list = message.get_field(field);
        let elements = list.as_list().unwrap().iter().map(|value| shown_value(value, &kind, open).unwrap());
        return Some(format!("[{}]", elements.collect::<Vec<_>>().join(",")));
    }
    if field.supports_presence() && !message.has_field(field) {
        return Some("null".to_owned());
    }
    shown_value(&message.get_field(field), &kind, open)
}

fn shown_value(value: &Value, kind: &Kind, open: &mut Vec<String>) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => format!("{:x}", value.to_bits()),
        Value::F64(value) => format!("{:x}", value.to_bits()),
        Value::String(value) => format!("{value:?}"),
        Value::Bytes(value) => format!("{:?}", value.to_vec()),
        Value::EnumNumber(number) => match kind.as_enum().unwrap().get_value(*number) {
            Some(value) => format!("{:?}", value.name()),
            None => format!("{:?}", number.to_string()),
        },
        Value::Message(message) => {
            let number = |at| message.get_field_by_number(at).unwrap().into_owned();
            let name = message.descriptor().full_name().to_owned();
            let micros = |seconds: Value, nanos: Value| {
                seconds.as_i64().unwrap() * 1_000_000 + i64::from(nanos.as_i32().unwrap() / 1000)
            };
            match name.as_str() {
                "google.protobuf.Timestamp" | "google.protobuf.Duration" => micros(number(1), number(2)).to_string(),
                "google.protobuf.Struct" | "google.protobuf.Value" => json(message),
                name if name.ends_with("Value") => shown_value(&number(1), kind, open)?,
                _ if open.contains(&name) => json(message),
                _ => match shown(message, open) {
                    fields if fields.is_empty() => return None,
                    fields => format!("{{{fields}}}"),
                },
            }
        }
        Value::List(_) | Value::Map(_) => unreachable!(),
    })
}

/// As another library writes it; see [`normal`].
fn json(message: &DynamicMessage) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut out);
    message.serialize_with_options(&mut serializer, &SerializeOptions::new()).unwrap();
    format!("{:?}", String::from_utf8(out).unwrap())
}

/// The row with all texts that are JSON in one form: order of keys and form of numbers are the writer's.
fn normal(row: &str) -> String {
    let mut out = String::new();
    let mut rest = row;
    while let Some(at) = rest.find('"') {
        out += &rest[..at];
        rest = &rest[at..];
        let mut escaped = false;
        let inside = |c: char| {
            let end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            end
        };
        let end = rest[1..].find(inside).unwrap() + 2;
        let (literal, behind) = rest.split_at(end);
        rest = behind;
        match literal.strip_prefix("\"{").or(literal.strip_prefix("\"[")).or(literal.strip_prefix("\"\\\"")) {
            Some(_) => {
                let json: String = unescaped(literal);
                match serde_json::from_str::<serde_json::Value>(&json) {
                    Ok(value) => out += &format!("\"{}\"", sorted(&value)),
                    Err(_) => out += literal,
                }
            }
            None => match literal.trim_matches('"').parse::<f64>() {
                Ok(number) => out += &format!("\"{number}\""),
                Err(_) => out += literal,
            },
        }
    }
    out + rest
}

/// What `{:?}` of a text stands for.
fn unescaped(literal: &str) -> String {
    let mut out = String::new();
    let mut letters = literal[1..literal.len() - 1].chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next().unwrap() {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '0' => out.push('\0'),
            'u' => {
                let code: String = letters.by_ref().skip(1).take_while(|c| *c != '}').collect();
                out.push(char::from_u32(u32::from_str_radix(&code, 16).unwrap()).unwrap());
            }
            letter => out.push(letter),
        }
    }
    out
}

fn sorted(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name:?}:{}", sorted(value))).collect();
            fields.sort();
            format!("{{{}}}", fields.join(","))
        }
        serde_json::Value::Array(values) => format!("[{}]", values.iter().map(sorted).collect::<Vec<_>>().join(",")),
        serde_json::Value::Number(number) => number.as_f64().unwrap().to_string(),
        other => other.to_string(),
    }
}

/// The fields of a message, each with its tag.
fn chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut cursor = Cursor::new(bytes);
    let mut chunks = Vec::new();
    while !cursor.is_empty() {
        let before = cursor.len();
        let tag = cursor.tag().unwrap();
        cursor.pass_over(tag).unwrap();
        let start = bytes.len() - before;
        chunks.push(bytes[start..bytes.len() - cursor.len()].to_vec());
    }
    chunks
}

/// The same fields, those inside of messages too, in another order, some twice, packed runs in pieces, and with fields
/// among them that nobody knows.
fn stirred(random: &mut Random, descriptor: &MessageDescriptor, bytes: &[u8]) -> Vec<u8> {
    let mut chunks = chunks(bytes);
    for at in (1..chunks.len()).rev() {
        chunks.swap(at, random.below(at as u64 + 1));
    }
    let mut out = Vec::new();
    for chunk in chunks {
        let mut cursor = Cursor::new(&chunk);
        let tag = cursor.tag().unwrap();
        let field = descriptor.get_field(tag >> 3).unwrap();
        if random.below(5) == 0 {
            // An unknown field of each wire type in turn; 536870911 is the largest number.
            write_varint(&mut out, u64::from(536_870_911_u32 << 3 | [0, 1, 2, 5][random.below(4)]));
            match out[out.len() - 5] & 7 {
                0 => out.push(7),
                1 => out.extend([0; 8]),
                2 => out.extend([1, 0xff]),
                _ => out.extend([0; 4]),
            }
        }
        match field.kind() {
            Kind::Message(inner) if tag & 7 == LEN => {
                let payload = stirred(random, &inner, cursor.bytes().unwrap());
                write_varint(&mut out, tag.into());
                write_varint(&mut out, payload.len() as u64);
                out.extend(payload);
            }
            Kind::Message(_) => out.extend(&chunk),
            _ if tag & 7 == LEN && field.is_list() && field.is_packed() => {
                let run = cursor.bytes().unwrap();
                let wire = match field.kind() {
                    Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
                    Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
                    _ => 0,
                };
                let mut rest = Cursor::new(run);
                while !rest.is_empty() {
                    let element = rest.value(wire).unwrap();
                    let alone = random.below(2) == 0;
                    write_varint(&mut out, u64::from(field.number() << 3 | if alone { wire } else { LEN }));
                    if !alone {
                        write_varint(&mut out, element.len() as u64);
                    }
                    out.extend(element);
                }
            }
            _ => out.extend(&chunk),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_another_encoder_wrote_comes_out(seed: u64) {
        let mut random = Random(seed);
        let text = schema(&mut random);
        let (message, descriptor) = first(&registered(&text));
        let mut records = Vec::new();
        for _ in 0..4 {
            let plain = made(&mut random, &descriptor, 0).encode_to_vec();
            let more = made(&mut random, &descriptor, 0).encode_to_vec();
            // One behind the other are one message of both.
            let both = [plain.clone(), more].concat();
            records.extend([stirred(&mut random, &descriptor, &plain), stirred(&mut random, &descriptor, &both), plain, both]);
        }
        let rows = decode(&message, MappingOptions::default(), &records);
        for (row, record) in rows.into_iter().zip(&records) {
            let other = DynamicMessage::decode(descriptor.clone(), record.as_slice()).unwrap();
            let expected = shown(&other, &mut Vec::new());
            prop_assert_eq!(normal(&row.unwrap()), normal(&expected), "{}", text);
        }
    }

    #[test]
    fn spoiled_bytes_touch_no_neighbour(seed: u64) {
        let mut random = Random(seed);
        let (message, descriptor) = first(&registered(&schema(&mut random)));
        let good = made(&mut random, &descriptor, 0).encode_to_vec();
        let mut records = Vec::new();
        for _ in 0..12 {
            let mut bad = made(&mut random, &descriptor, 0).encode_to_vec();
            match random.below(3) {
                0 => bad.truncate(random.below(bad.len() as u64 + 1)),
                1 => bad = (0..random.below(60)).map(|_| random.next().to_le_bytes()[0]).collect(),
                _ => (0..=random.below(3)).for_each(|_| if !bad.is_empty() {
                    let at = random.below(bad.len() as u64);
                    bad[at] = random.next().to_le_bytes()[0];
                }),
            }
            records.extend([good.clone(), bad]);
        }
        let rows = decode(&message, MappingOptions::default(), &records);
        let expected = normal(&shown(&DynamicMessage::decode(descriptor, good.as_slice()).unwrap(), &mut Vec::new()));
        for row in rows.into_iter().step_by(2) {
            prop_assert_eq!(&normal(&row.unwrap()), &expected);
        }
    }
}
