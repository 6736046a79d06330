//! A field's default in Iceberg's single-value binary form (spec, appendix D): the value of rows that are older than
//! the field, and of records whose schema lacks it.

use serde_json::Value;

use super::mapping::split_optional;
use super::schema::{Kind, Logical, Node};
use crate::model::schema::Type;

/// Years 1 to 9999: what table metadata can write of an instant.
const SECONDS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// The default `value` of a field of type `node` whose column is of type `kind`; `None` where it is null, of a nested
/// type, or none of its type.
pub(super) fn default(node: &Node, kind: &Type, value: &Value) -> Option<Vec<u8>> {
    let (node, _) = split_optional(node);
    let number = || value.as_i64();
    Some(match (kind, &node.kind) {
        (Type::Boolean, Kind::Boolean) => vec![u8::from(value.as_bool()?)],
        (Type::Int | Type::Date, Kind::Int) => i32::try_from(number()?).ok()?.to_le_bytes().to_vec(),
        (Type::Long | Type::Time, Kind::Int | Kind::Long) => time_of_day(node, number()?)?.to_le_bytes().to_vec(),
        (Type::Timestamp | Type::TimestampTz, Kind::Long) => instant(node, number()?)?.to_le_bytes().to_vec(),
        (Type::Float, Kind::Float) => {
            let float = value.as_f64()? as f32;
            float.is_finite().then(|| float.to_le_bytes().to_vec())?
        }
        (Type::Double, Kind::Double) => value.as_f64()?.to_le_bytes().to_vec(),
        (Type::String, Kind::String | Kind::Enum(_)) if node.logical.is_none() => value.as_str()?.as_bytes().to_vec(),
        (Type::Uuid, Kind::String) => uuid::Uuid::try_parse(value.as_str()?).ok()?.as_bytes().to_vec(),
        (Type::Binary, Kind::Bytes) => bytes(value)?,
        (Type::Uuid | Type::Fixed(_), Kind::Fixed(size)) => bytes(value).filter(|bytes| bytes.len() == *size)?,
        (Type::Decimal(precision, _), Kind::Bytes | Kind::Fixed(_)) => {
            let unscaled = crate::decode::decimal::unscaled(&bytes(value)?, *precision).ok()?;
            unscaled.to_be_bytes().to_vec()
        }
        _ => return None,
    })
}

/// A number as it is, or a time of day in microseconds.
fn time_of_day(node: &Node, value: i64) -> Option<i64> {
    match node.logical {
        None | Some(Logical::TimeMicros) => Some(value),
        Some(Logical::TimeMillis) => value.checked_mul(1_000),
        Some(Logical::TimeNanos) => Some(value.div_euclid(1_000)),
        Some(_) => None,
    }
}

/// Microseconds since the epoch. Those of nanoseconds have columns whose defaults no reader of metadata keeps.
fn instant(node: &Node, value: i64) -> Option<i64> {
    let micros = match node.logical? {
        Logical::TimestampMillis | Logical::LocalTimestampMillis => value.checked_mul(1_000)?,
        Logical::TimestampMicros | Logical::LocalTimestampMicros => value,
        _ => return None,
    };
    SECONDS.contains(&micros.div_euclid(1_000_000)).then_some(micros)
}

/// Bytes as Avro's JSON has them: characters of code points up to 255.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::avro::mapping::column_type;
    use crate::decode::avro::names::parse_text;
    use crate::decode::mapping::{MappingOptions, TableFormat};

    #[test]
    fn defaults_are_values_of_their_columns() {
        let check = |schema: Value, value: Value, expected: Option<&[u8]>| {
            let root = parse_text(&schema.to_string()).unwrap().root;
            let options = MappingOptions { format: TableFormat::V3, ..MappingOptions::default() };
            let (kind, _) = column_type(&root, options, "").unwrap();
            assert_eq!(default(&root, &kind, &value).as_deref(), expected, "{schema} {value}");
        };
        let logical = |kind: &str, logical: &str| json!({"type": kind, "logicalType": logical});
        check(json!("boolean"), json!(true), Some(&[1]));
        check(json!("int"), json!(-2), Some(&(-2_i32).to_le_bytes()));
        check(json!("int"), json!(1_i64 << 40), None);
        check(json!("long"), json!(1_i64 << 40), Some(&(1_i64 << 40).to_le_bytes()));
        check(json!("float"), json!(1e300), None);
        check(json!("double"), json!(0), Some(&0_f64.to_le_bytes()));
        check(json!("string"), json!("ß"), Some("ß".as_bytes()));
        check(json!("string"), json!(7), None);
        check(json!("bytes"), json!("\u{0}\u{ff}"), Some(&[0, 0xff]));
        check(json!("bytes"), json!("\u{100}"), None);
        check(json!({"type": "fixed", "name": "f", "size": 2}), json!("ab"), Some(b"ab"));
        check(json!({"type": "fixed", "name": "f", "size": 3}), json!("ab"), None);
        check(json!({"type": "enum", "name": "e", "symbols": ["A", "B"]}), json!("B"), Some(b"B"));
        check(json!(["null", "int"]), json!(null), None);
        check(json!(["int", "null"]), json!(7), Some(&7_i32.to_le_bytes()));
        check(logical("int", "date"), json!(1), Some(&1_i32.to_le_bytes()));
        check(logical("int", "time-millis"), json!(2), Some(&2_000_i64.to_le_bytes()));
        check(logical("long", "timestamp-millis"), json!(3), Some(&3_000_i64.to_le_bytes()));
        check(logical("long", "timestamp-micros"), json!(i64::MAX), None);
        check(logical("long", "timestamp-nanos"), json!(3), None);
        let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2});
        check(decimal.clone(), json!("\u{ff}\u{38}"), Some(&(-200_i128).to_be_bytes()));
        check(decimal, json!("\u{7f}\u{ff}"), None);
        check(json!({"type": "array", "items": "int"}), json!([]), None);
    }
}
