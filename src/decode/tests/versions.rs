//! Versions of a record in all three languages, at the top of a record or inside a struct, a list or a map: the schema's
//! text, and records as their serializers write them.

use crate::ports::SchemaFormat;

/// Where in a record the fields stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Top,
    Struct,
    List,
    Map,
}

pub(super) const PLACES: [Place; 4] = [Place::Top, Place::Struct, Place::List, Place::Map];
pub(super) const LANGUAGES: [SchemaFormat; 3] = [SchemaFormat::Avro, SchemaFormat::Protobuf, SchemaFormat::Json];

/// Types of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Long,
    Float,
    Double,
    Text,
}

/// A field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct F {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) optional: bool,
    pub(super) aliases: Vec<String>,
}

/// A required field.
pub(super) fn f(number: u32, name: &str, kind: Kind) -> F {
    F { name: name.to_owned(), number, kind, optional: false, aliases: Vec::new() }
}

impl F {
    pub(super) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    pub(super) fn alias(mut self, alias: &str) -> Self {
        self.aliases.push(alias.to_owned());
        self
    }
}

/// The schema of a record with these fields.
pub(super) fn text(language: SchemaFormat, place: Place, fields: &[F]) -> String {
    match language {
        SchemaFormat::Avro => avro(place, fields),
        SchemaFormat::Protobuf => protobuf(place, fields),
        SchemaFormat::Json => json(place, fields),
    }
}

fn avro(place: Place, fields: &[F]) -> String {
    let field = |field: &F| {
        let kind = match field.kind {
            Kind::Int => "\"int\"",
            Kind::Long => "\"long\"",
            Kind::Float => "\"float\"",
            Kind::Double => "\"double\"",
            Kind::Text => "\"string\"",
        };
        let kind = if field.optional { format!("[\"null\",{kind}]") } else { kind.to_owned() };
        format!(r#"{{"name":"{}","aliases":{:?},"type":{kind}}}"#, field.name, field.aliases)
    };
    let fields = fields.iter().map(field).collect::<Vec<_>>().join(",");
    let record = |name: &str, fields: &str| format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#);
    let inner = record("V", &fields);
    let kind = match place {
        Place::Top => return record("R", &fields),
        Place::Struct => inner,
        Place::List => format!(r#"{{"type":"array","items":{inner}}}"#),
        Place::Map => format!(r#"{{"type":"map","values":{inner}}}"#),
    };
    record("R", &format!(r#"{{"name":"n","type":{kind}}}"#))
}

fn protobuf(place: Place, fields: &[F]) -> String {
    let field = |field: &F| {
        let kind = match field.kind {
            Kind::Int => "int32",
            Kind::Long => "int64",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::Text => "string",
        };
        let optional = if field.optional { "optional " } else { "" };
        format!("{optional}{kind} {} = {};", field.name, field.number)
    };
    let fields: String = fields.iter().map(field).collect();
    let kind = match place {
        Place::Top => return format!("syntax = \"proto3\"; message R {{ {fields} }}"),
        Place::Struct => "V",
        Place::List => "repeated V",
        Place::Map => "map<string, V>",
    };
    format!("syntax = \"proto3\"; message R {{ {kind} n = 1; }} message V {{ {fields} }}")
}

fn json(place: Place, fields: &[F]) -> String {
    let kind = |field: &F| match field.kind {
        Kind::Int => r#"{"type":"integer","connect.type":"int32"}"#,
        Kind::Long => r#"{"type":"integer"}"#,
        Kind::Float => r#"{"type":"number","connect.type":"float32"}"#,
        Kind::Double => r#"{"type":"number"}"#,
        Kind::Text => r#"{"type":"string"}"#,
    };
    let properties = fields.iter().map(|field| format!("{:?}:{}", field.name, kind(field))).collect::<Vec<_>>();
    let required: Vec<&str> = fields.iter().filter(|field| !field.optional).map(|field| field.name.as_str()).collect();
    let object = |title: &str, properties: &str, required: &str| {
        format!(r#"{{"type":"object","title":"{title}","properties":{{{properties}}},"required":{required}}}"#)
    };
    let inner = object(if place == Place::Top { "R" } else { "V" }, &properties.join(","), &format!("{required:?}"));
    let kind = match place {
        Place::Top => return inner,
        Place::Struct => inner,
        Place::List => format!(r#"{{"type":"array","items":{inner}}}"#),
        Place::Map => format!(r#"{{"type":"object","additionalProperties":{inner}}}"#),
    };
    object("R", &format!("\"n\":{kind}"), r#"["n"]"#)
}

/// What a field of number `number` holds in record `seed`.
fn number(field: &F, seed: u32) -> u32 {
    field.number * 10 + seed
}

/// A record whose values say which field they are of, by its number, and which record.
pub(super) fn record(language: SchemaFormat, place: Place, fields: &[F], seed: u32) -> Vec<u8> {
    match language {
        SchemaFormat::Avro => {
            let body: Vec<u8> = fields.iter().flat_map(|field| avro_value(field, seed)).collect();
            match place {
                Place::Top | Place::Struct => body,
                Place::List => [&[2], &body[..], &[0]].concat(),
                Place::Map => [&[2, 2, b'k'], &body[..], &[0]].concat(),
            }
        }
        SchemaFormat::Protobuf => {
            let body: Vec<u8> = fields.iter().flat_map(|field| protobuf_value(field, seed)).collect();
            let message = |body: &[u8], number: u8| [&[number << 3 | 2], &varint(body.len() as u64)[..], body].concat();
            match place {
                Place::Top => body,
                Place::Struct | Place::List => message(&body, 1),
                Place::Map => message(&[message(b"k", 1), message(&body, 2)].concat(), 1),
            }
        }
        SchemaFormat::Json => {
            let member = |field: &F| {
                let number = number(field, seed);
                match field.kind {
                    Kind::Int | Kind::Long => format!("{:?}:{number}", field.name),
                    Kind::Float | Kind::Double => format!("{:?}:{number}.5", field.name),
                    Kind::Text => format!("{:?}:\"t{number}\"", field.name),
                }
            };
            let object = format!("{{{}}}", fields.iter().map(member).collect::<Vec<_>>().join(","));
            let text = match place {
                Place::Top => object,
                Place::Struct => format!("{{\"n\":{object}}}"),
                Place::List => format!("{{\"n\":[{object}]}}"),
                Place::Map => format!("{{\"n\":{{\"k\":{object}}}}}"),
            };
            text.into_bytes()
        }
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn avro_value(field: &F, seed: u32) -> Vec<u8> {
    let number = number(field, seed);
    let float = f64::from(number) + 0.5;
    let mut bytes = if field.optional { vec![2] } else { Vec::new() };
    match field.kind {
        Kind::Int | Kind::Long => bytes.extend(varint(u64::from(number) << 1)),
        Kind::Float => bytes.extend((float as f32).to_le_bytes()),
        Kind::Double => bytes.extend(float.to_le_bytes()),
        Kind::Text => {
            let text = format!("t{number}");
            bytes.extend(varint((text.len() as u64) << 1));
            bytes.extend(text.into_bytes());
        }
    }
    bytes
}

fn protobuf_value(field: &F, seed: u32) -> Vec<u8> {
    let number = number(field, seed);
    let float = f64::from(number) + 0.5;
    let (wire, value) = match field.kind {
        Kind::Int | Kind::Long => (0, varint(u64::from(number))),
        Kind::Float => (5, (float as f32).to_le_bytes().to_vec()),
        Kind::Double => (1, float.to_le_bytes().to_vec()),
        Kind::Text => {
            let text = format!("t{number}");
            (2, [varint(text.len() as u64), text.into_bytes()].concat())
        }
    };
    [varint(u64::from(field.number << 3 | wire)), value].concat()
}
