//! The JSON text that a value below the first level of a recursive record must have, by a second opinion on dates,
//! decimals and numbers.

use apache_avro::types::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::shapes::Shape;

impl Shape {
    pub(super) fn json_text(&self, value: &Value) -> String {
        match (self, value) {
            (_, Value::Null) => "null".to_owned(),
            (Self::Boolean, Value::Boolean(value)) => value.to_string(),
            (Self::Date, Value::Int(days)) => match civil(i64::from(*days)) {
                Some(date) => format!("\"{date}\""),
                None => days.to_string(),
            },
            (Self::TimeMillis, Value::Int(value)) => format!("\"{}\"", time(i64::from(*value) * 1_000_000)),
            (Self::TimeMicros, Value::Long(value)) => format!("\"{}\"", time(*value * 1000)),
            (Self::Timestamp(name, times, over), Value::Long(value)) => {
                let day = 86_400_000_000_000 / (i128::from(times * 1000) / i128::from(*over));
                let (days, rest) = (i128::from(*value).div_euclid(day), i128::from(*value).rem_euclid(day));
                let nanos = i64::try_from(rest * (86_400_000_000_000 / day)).unwrap();
                let zone = if name.starts_with("timestamp") { "Z" } else { "" };
                match civil(i64::try_from(days).unwrap()) {
                    Some(date) => format!("\"{date}T{}{zone}\"", time(nanos)),
                    None => value.to_string(),
                }
            }
            (Self::Int, Value::Int(value)) => value.to_string(),
            (Self::Long, Value::Long(value)) => value.to_string(),
            (Self::Float, Value::Float(value)) => float(f64::from(*value), format!("{value:?}")),
            (Self::Double, Value::Double(value)) => float(*value, format!("{value:?}")),
            (Self::Decimal(_, scale), Value::Bytes(bytes)) | (Self::DecimalFixed(_, scale), Value::Fixed(_, bytes)) => {
                decimal(bytes, usize::from(*scale))
            }
            (Self::UuidFixed, Value::Fixed(_, bytes)) => format!("\"{}\"", uuid::Uuid::from_slice(bytes).unwrap()),
            (_, Value::Bytes(bytes) | Value::Fixed(_, bytes)) => format!("\"{}\"", STANDARD.encode(bytes)),
            (_, Value::String(text) | Value::Enum(_, text)) => serde_json::to_string(text).unwrap(),
            _ => self.parts_text(value),
        }
    }

    fn parts_text(&self, value: &Value) -> String {
        match (self, value) {
            (Self::Optional(inner, _), Value::Union(_, value)) => inner.json_text(value),
            (Self::Union(branches, _), Value::Union(branch, value)) => {
                branches.get(*branch as usize).map_or("null".to_owned(), |branch| branch.json_text(value))
            }
            (Self::Array(items), Value::Array(values)) => list(values.iter().map(|value| items.json_text(value))),
            (Self::Map(shape), Value::Map(values)) => {
                object(values.iter().map(|(key, value)| (key.as_str(), shape.json_text(value))))
            }
            (Self::Record(fields), Value::Record(values)) => {
                let text = |(shape, (name, value)): (&Self, &(String, Value))| (name.clone(), shape.json_text(value));
                object(fields.iter().zip(values).map(text))
            }
            (Self::Twice(inner), Value::Record(values)) => {
                object(values.iter().map(|(name, value)| (name, inner.json_text(value))))
            }
            (Self::Tree(fields), Value::Record(values)) => {
                let text = |(index, (name, value)): (usize, &(String, Value))| {
                    let text = match value {
                        value if index < fields.len() => fields[index].json_text(value),
                        Value::Union(0, _) => "null".to_owned(),
                        Value::Union(_, value) => self.json_text(value),
                        Value::Array(values) => list(values.iter().map(|value| self.json_text(value))),
                        Value::Map(values) => object(values.iter().map(|(key, value)| (key, self.json_text(value)))),
                        other => panic!("{other:?} in a tree"),
                    };
                    (name.clone(), text)
                };
                object(values.iter().enumerate().map(text))
            }
            _ => panic!("{value:?} is no value of {self:?}"),
        }
    }
}

fn list(texts: impl Iterator<Item = String>) -> String {
    format!("[{}]", texts.collect::<Vec<_>>().join(","))
}

fn object<K: AsRef<str>>(entries: impl Iterator<Item = (K, String)>) -> String {
    let entries = entries.map(|(key, text)| format!("{}:{text}", serde_json::to_string(key.as_ref()).unwrap()));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

fn float(value: f64, text: String) -> String {
    match value {
        value if value.is_nan() => "\"NaN\"".to_owned(),
        f64::INFINITY => "\"Infinity\"".to_owned(),
        f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
        _ => text,
    }
}

fn decimal(bytes: &[u8], scale: usize) -> String {
    let start = if bytes.first().is_some_and(|byte| *byte >= 0x80) { -1 } else { 0_i128 };
    let value = bytes.iter().fold(start, |value, byte| (value << 8) | i128::from(*byte));
    let digits = format!("{:0>1$}", value.unsigned_abs(), scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    format!("\"{}{whole}{point}{part}\"", if value < 0 { "-" } else { "" })
}

/// Nanoseconds of a day.
fn time(nanos: i64) -> String {
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = match rest {
        0 => String::new(),
        rest if rest % 1_000_000 == 0 => format!(".{:03}", rest / 1_000_000),
        rest if rest % 1_000 == 0 => format!(".{:06}", rest / 1_000),
        rest => format!(".{rest:09}"),
    };
    format!("{:02}:{:02}:{:02}{fraction}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The date of a day since the epoch in the proleptic Gregorian calendar (Hinnant's `civil_from_days`).
fn civil(days: i64) -> Option<String> {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let year_text = if (0..=9999).contains(&year) { format!("{year:04}") } else { format!("{year:+05}") };
    (-262_143..=262_142).contains(&year).then(|| format!("{year_text}-{month:02}-{day:02}"))
}
