//! Messages as JSON text, by Protobuf's own rules (protobuf.dev/programming-guides/json): what a column holds of
//! messages whose shape no schema of columns can say. Fields that hold their default are left out.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};

use super::gather::gather;
use super::mapping::wrapped;
use super::schema::{Kind, Message, MessageField, Presence, Scalar};
use super::value::{duration, integer, timestamp};
use super::wire::{Cursor, DEPTH_MAX, TOO_DEEP};
use crate::decode::Failure;
use crate::model::decoded::Reason;

/// A message as JSON text.
///
/// An `Any` shows its type and its bytes, since the types that it may hold are in no schema:
/// `{"@type": …, "value": …}`. Numbers of a `Value` that are not finite are texts, as they are in other fields.
pub(super) fn text(message: &Message, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut out = String::new();
    write(message, bytes, &mut out, 0)?;
    Ok(out.into_bytes())
}

fn write(message: &Message, bytes: &[u8], out: &mut String, depth: usize) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err(TOO_DEEP);
    }
    match message.full_name() {
        "google.protobuf.Timestamp" => return write_timestamp(bytes, out),
        "google.protobuf.Duration" => return write_duration(bytes, out),
        _ => {}
    }
    let fields = message.fields();
    let found = gather(message, bytes)?;
    let whole = |field: &MessageField, values: &[_], out: &mut String| write_field(message, field, values, out, depth);
    match (message.full_name(), fields, found.as_slice()) {
        ("google.protobuf.Struct" | "google.protobuf.ListValue", [field], [values]) => whole(field, values, out),
        ("google.protobuf.Value", fields, found) => match fields.iter().zip(found).find(|(_, v)| !v.is_empty()) {
            Some((field, values)) if !matches!(field.kind, Kind::Enum(_)) => whole(field, values, out),
            _ => {
                out.push_str("null");
                Ok(())
            }
        },
        ("google.protobuf.FieldMask", _, [paths]) => {
            let paths = paths.iter().map(|path| utf8(path).map(camel)).collect::<Result<Vec<_>, _>>()?;
            quote(&paths.join(","), out);
            Ok(())
        }
        ("google.protobuf.Any", [_, value], [url, values]) => {
            out.push_str("{\"@type\":");
            quote(utf8(url.first().map_or(&[], |url| url))?, out);
            out.push_str(",\"value\":");
            write_value(message, value, values.first().map_or(&[], |value| value), out, depth)?;
            out.push('}');
            Ok(())
        }
        (name, [field], [values]) if wrapped(name).is_some() => {
            write_value(message, field, values.first().map_or(&[], |value| value), out, depth)
        }
        _ => {
            let mut open = '{';
            for (field, values) in fields.iter().zip(&found) {
                let zero = |value: &[u8]| field.presence == Presence::Implicit && is_zero(&field.kind, value);
                if values.first().is_none_or(|value| zero(value)) {
                    continue;
                }
                out.push(open);
                open = ',';
                quote(&field.json_name, out);
                out.push(':');
                whole(field, values, out)?;
            }
            out.push_str(if open == '{' { "{}" } else { "}" });
            Ok(())
        }
    }
}

/// True where a value is the zero of its type.
fn is_zero(kind: &Kind, value: &[u8]) -> bool {
    let number = |scalar| integer(scalar, &mut Cursor::new(value)).is_ok_and(|number| number == 0);
    match kind {
        Kind::Scalar(Scalar::String | Scalar::Bytes) => value.is_empty(),
        // By their bits: -0 is not 0.
        Kind::Scalar(Scalar::Double | Scalar::Float) => value.iter().all(|byte| *byte == 0),
        Kind::Scalar(scalar) => number(*scalar),
        Kind::Enum(_) => number(Scalar::Int32),
        _ => false,
    }
}

fn write_field<V: AsRef<[u8]>>(
    message: &Message,
    field: &MessageField,
    values: &[V],
    out: &mut String,
    depth: usize,
) -> Result<(), Failure> {
    if let Kind::Entry(index) = field.kind {
        return write_map(&message.of(index), values, out, depth);
    }
    if field.presence != Presence::Repeated {
        return values.first().map_or(Ok(()), |value| write_value(message, field, value.as_ref(), out, depth));
    }
    out.push('[');
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_value(message, field, value.as_ref(), out, depth)?;
    }
    out.push(']');
    Ok(())
}

fn write_map<V: AsRef<[u8]>>(entry: &Message, values: &[V], out: &mut String, depth: usize) -> Result<(), Failure> {
    out.push('{');
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        let mut parts = gather(entry, value.as_ref())?;
        let mut part = |number| {
            let at = entry.position(number).unwrap_or_default();
            let bytes = parts.get_mut(at).and_then(Vec::pop).unwrap_or_default();
            (&entry.fields()[at], bytes)
        };
        let ((key, key_bytes), (value, value_bytes)) = (part(1), part(2));
        let mut name = String::new();
        write_value(entry, key, &key_bytes, &mut name, depth)?;
        if name.starts_with('"') {
            out.push_str(&name);
        } else {
            quote(&name, out);
        }
        out.push(':');
        write_value(entry, value, &value_bytes, out, depth)?;
    }
    out.push('}');
    Ok(())
}

/// One value; no bytes are the zero of its type.
fn write_value(
    message: &Message,
    field: &MessageField,
    bytes: &[u8],
    out: &mut String,
    depth: usize,
) -> Result<(), Failure> {
    let scalar = match &field.kind {
        Kind::Message(index) | Kind::Group(index) | Kind::Entry(index) => {
            return write(&message.of(*index), bytes, out, depth + 1);
        }
        Kind::Enum(names) if names.full_name == "google.protobuf.NullValue" => {
            out.push_str("null");
            return Ok(());
        }
        Kind::Enum(names) => {
            let absent = names.default_number();
            let number =
                if bytes.is_empty() { absent } else { integer(Scalar::Int32, &mut Cursor::new(bytes))? as i32 };
            match names.name(number) {
                Some(name) => quote(name, out),
                None => out.push_str(&number.to_string()),
            }
            return Ok(());
        }
        Kind::Scalar(scalar) => *scalar,
    };
    match scalar {
        Scalar::String => quote(utf8(bytes)?, out),
        Scalar::Bytes => quote(&STANDARD.encode(bytes), out),
        Scalar::Double => write_float(bytes.try_into().map_or(0.0, f64::from_le_bytes), out),
        Scalar::Float => write_float(bytes.try_into().map_or(0.0, f32::from_le_bytes), out),
        _ => {
            let number = if bytes.is_empty() { 0 } else { integer(scalar, &mut Cursor::new(bytes))? };
            let _ = match scalar {
                Scalar::Bool => write!(out, "{}", number != 0),
                Scalar::Uint64 | Scalar::Fixed64 => write!(out, "\"{}\"", number.cast_unsigned()),
                Scalar::Int64 | Scalar::Sint64 | Scalar::Sfixed64 => write!(out, "\"{number}\""),
                _ => write!(out, "{number}"),
            };
        }
    }
    Ok(())
}

/// The shortest text that reads back as the same number; whole numbers without a point.
fn write_float<F: Into<f64> + Copy + serde::Serialize>(number: F, out: &mut String) {
    let wide: f64 = number.into();
    if wide.is_finite() {
        let text = serde_json::to_string(&number).unwrap_or_default();
        out.push_str(text.strip_suffix(".0").unwrap_or(&text));
    } else {
        out.push_str(if wide.is_nan() {
            "\"NaN\""
        } else if wide > 0.0 {
            "\"Infinity\""
        } else {
            "\"-Infinity\""
        });
    }
}

fn write_timestamp(bytes: &[u8], out: &mut String) -> Result<(), Failure> {
    const OUT: Failure = (Reason::ValueOutOfRange, "a timestamp lies outside years 1 to 9999");
    let (seconds, nanos) = timestamp(bytes)?;
    if !(-62_135_596_800..253_402_300_800).contains(&seconds) {
        return Err(OUT);
    }
    let time = DateTime::from_timestamp(seconds, u32::try_from(nanos).map_err(|_| OUT)?).ok_or(OUT)?;
    quote(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true), out);
    Ok(())
}

fn write_duration(bytes: &[u8], out: &mut String) -> Result<(), Failure> {
    let (seconds, nanos) = duration(bytes)?;
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1_000) => format!(".{:06}", nanos / 1_000),
        _ => format!(".{nanos:09}"),
    };
    let _ = write!(out, "\"{sign}{}{fraction}s\"", seconds.unsigned_abs());
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| (Reason::TypeMismatch, "a string is not UTF-8"))
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// A path of field names in the spelling of JSON.
fn camel(path: &str) -> String {
    let mut up = false;
    let mut name = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '_' => up = true,
            letter if up => {
                name.push(letter.to_ascii_uppercase());
                up = false;
            }
            letter => name.push(letter),
        }
    }
    name
}
