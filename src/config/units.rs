//! Durations, sizes and numbers as people write them (`10s`, `512MiB`). Syntax only: bounds are checked in `resolve`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

/// Any scalar as text. A placeholder's value stays text until the setting's own type reads it, so that a password of
/// digits stays a password and a number may still come from the environment.
pub(super) struct Scalar(pub(super) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;
        impl Visitor<'_> for AsText {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single value")
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }

            // YAML reads `1e5` as a number already; its spelling is lost, and the value may be a secret.
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Scalar, E> {
                Err(E::custom(
                    "a number with a fraction or an exponent is not taken here; for a text put it into quotes",
                ))
            }
        }
        deserializer.deserialize_any(AsText)
    }
}

/// A whole number that may come from a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number<T>(pub T);

impl<'de, T: FromStr> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(deserializer)?.0;
        let number = text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not a whole number in range")))?;
        Ok(Self(number))
    }
}

impl<T: JsonSchema> JsonSchema for Number<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A length of time, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is not a duration; write a number and a unit (ms, s, m, h, d), as in `10s`");
        let (number, unit) = split_unit(text).ok_or_else(problem)?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(problem()),
        };
        let span_ms: u64 = number.checked_mul(unit_ms).ok_or_else(problem)?;
        Ok(Self(Duration::from_millis(span_ms)))
    }
}

/// A number of bytes: with a unit, or without one as plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || {
            format!(
                "`{text}` is not a size; write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), as in `512MiB`"
            )
        };
        let (number, unit) = split_unit(text).ok_or_else(problem)?;
        let unit_bytes = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(problem()),
        };
        number.checked_mul(unit_bytes).map(Self).ok_or_else(problem)
    }
}

/// `512 MiB` as `(512, "MiB")`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Gives types that are read from one written scalar their `Deserialize` and their place in the schema.
macro_rules! from_scalar {
    ($($kind:ty: $types:tt like $example:literal;)*) => {
        $(
            impl<'de> serde::Deserialize<'de> for $kind {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = $crate::config::units::Scalar::deserialize(deserializer)?.0;
                    text.parse().map_err(serde::de::Error::custom)
                }
            }

            impl schemars::JsonSchema for $kind {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> std::borrow::Cow<'static, str> {
                    stringify!($kind).into()
                }

                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    schemars::json_schema!({"type": $types, "examples": [$example]})
                }
            }
        )*
    };
}
pub(super) use from_scalar;

from_scalar! {
    Span: "string" like "10s";
    Size: ["string", "integer"] like "512MiB";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("7d", 604_800_000), (" 2 s ", 2000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["10", "", "s", "-1s", "1.5s", "10 weeks", "99999999999999999999d", "18446744073709551615d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        let sizes =
            [("512MiB", 512 << 20), ("64MB", 64_000_000), ("1GiB", 1 << 30), ("1 KiB", 1024), ("10", 10), ("3B", 3)];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "1mib", "1Gb", "18446744073709551615KiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
