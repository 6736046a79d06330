//! Settings with a small grammar of their own: start position, partition field, compression, token hash. Syntax only.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

use super::units::{Number, from_scalar};
use crate::ports::{PartitionField, Transform};

/// Where a partition is read from when its table has no ledger entry for it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Its oldest record.
    Earliest,
    /// Behind its newest record.
    Latest,
    /// The first record with this timestamp or a later one, milliseconds since the epoch.
    Timestamp(i64),
    /// These offsets by partition; partitions that are not named start at their oldest record.
    Offsets(BTreeMap<i32, i64>),
}

/// Smaller numbers are before 1973: more likely an offset than a timestamp.
const EARLIEST_TIMESTAMP_MS: i64 = 100_000_000_000;

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let timestamp_ms = match text.parse::<i64>() {
            Ok(number) if number >= EARLIEST_TIMESTAMP_MS => Some(number),
            Ok(_) => None,
            Err(_) => chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis()),
        };
        timestamp_ms.map(Self::Timestamp).ok_or_else(|| {
            format!(
                "`{text}` is no start position; write earliest, latest, a time (2026-01-31T00:00:00Z, or milliseconds since the epoch), or offsets by partition, as in `{{0: 1200}}`"
            )
        })
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordTimeOrOffsets;
        impl<'de> Visitor<'de> for WordTimeOrOffsets {
            type Value = Start;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("earliest, latest, a time, or offsets by partition")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Start, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Start, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Start, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Start, A::Error> {
                let mut offsets = BTreeMap::new();
                while let Some((Number(partition), Number(offset))) = map.next_entry::<Number<i32>, Number<i64>>()? {
                    if partition < 0 || offset < 0 {
                        return Err(A::Error::custom("partitions and offsets count from 0"));
                    }
                    offsets.insert(partition, offset);
                }
                if offsets.is_empty() {
                    return Err(A::Error::custom(
                        "no partition is named; write offsets as in `{0: 1200}`, or earliest",
                    ));
                }
                Ok(Start::Offsets(offsets))
            }
        }
        deserializer.deserialize_any(WordTimeOrOffsets)
    }
}

impl JsonSchema for Start {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                {"enum": ["earliest", "latest"]},
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": EARLIEST_TIMESTAMP_MS},
                {"type": "object", "patternProperties": {"^[0-9]+$": {"type": "integer", "minimum": 0}}, "additionalProperties": false}
            ]
        })
    }
}

/// A partition field as written: `day(ts)`, `bucket(16, c)`, `truncate(4, c)` or a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioning(pub PartitionField);

impl FromStr for Partitioning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = |why: &str| {
            format!(
                "`{text}` is no partition field ({why}); write a column, or year, month, day or hour of one, as in `day(created)`, or `bucket(16, id)`, or `truncate(4, code)`"
            )
        };
        let text = text.trim();
        let Some((function, rest)) = text.split_once('(') else {
            if text.is_empty() || text.contains([')', ',']) {
                return Err(problem("unbalanced parentheses or no column"));
            }
            return Ok(Self(PartitionField { column: text.to_owned(), transform: Transform::Identity }));
        };
        let arguments = rest.strip_suffix(')').ok_or_else(|| problem("it does not end with a parenthesis"))?;
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        if arguments.iter().any(|argument| argument.is_empty() || argument.contains(['(', ')'])) {
            return Err(problem("an argument is empty or nested"));
        }
        let (column, transform) = match (function.trim(), arguments.as_slice()) {
            ("identity", &[column]) => (column, Transform::Identity),
            ("year", &[column]) => (column, Transform::Year),
            ("month", &[column]) => (column, Transform::Month),
            ("day", &[column]) => (column, Transform::Day),
            ("hour", &[column]) => (column, Transform::Hour),
            (name @ ("bucket" | "truncate"), &[one, two]) => {
                let width = |text: &str| text.parse::<i32>().ok().filter(|n| *n > 0).map(i32::unsigned_abs);
                let (width, column) = match (width(one), width(two)) {
                    (Some(width), _) => (width, two),
                    (None, Some(width)) => (width, one),
                    (None, None) => return Err(problem("it has no number above 0")),
                };
                (column, if name == "bucket" { Transform::Bucket(width) } else { Transform::Truncate(width) })
            }
            ("identity" | "year" | "month" | "day" | "hour", _) => return Err(problem("it takes one column")),
            ("bucket" | "truncate", _) => return Err(problem("it takes a number and a column")),
            _ => return Err(problem("no such transform")),
        };
        Ok(Self(PartitionField { column: column.to_owned(), transform }))
    }
}

impl fmt::Display for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How data files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard of this level, 1 to 22.
    Zstd(i32),
    /// LZ4 (raw).
    Lz4,
    /// Snappy.
    Snappy,
    /// None.
    None,
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zstd" => Ok(Self::Zstd(1)),
            "lz4" => Ok(Self::Lz4),
            "snappy" => Ok(Self::Snappy),
            "none" => Ok(Self::None),
            _ => text
                .strip_prefix("zstd(")
                .and_then(|rest| rest.strip_suffix(')')?.trim().parse().ok())
                .filter(|level| (1..=22).contains(level))
                .map(Self::Zstd)
                .ok_or_else(|| {
                    format!("`{text}` is no compression; write zstd, zstd(1) to zstd(22), lz4, snappy or none")
                }),
        }
    }
}

/// SHA-256 of a token's text, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// The digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for TokenHash {
    type Err = String;

    /// The text stays out of the message: it may be the token itself, put here by mistake.
    fn from_str(text: &str) -> Result<Self, String> {
        let problem = "this is no token hash; write `sha256:` and 64 hex digits, as `printf %s \"$TOKEN\" | sha256sum` prints them";
        let digits = text
            .strip_prefix("sha256:")
            .filter(|digits| digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .ok_or(problem)?;
        let mut hash = [0; 32];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).map_err(|_| problem)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:***")
    }
}

/// The Iceberg format version of a table: 2 or 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatVersion(pub u8);

impl FromStr for FormatVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "2" => Ok(Self(2)),
            "3" => Ok(Self(3)),
            _ => Err(format!("`{text}` is no Iceberg format version; write 2 or 3")),
        }
    }
}

from_scalar! {
    Partitioning: "string" like "day(created)";
    Compression: "string" like "zstd(1)";
    TokenHash: "string" like "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    FormatVersion: "integer" like 2;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_fields_read_in_both_orders_and_show_in_one() {
        let cases = [
            ("region", "region"),
            ("identity(region)", "region"),
            ("day(ts)", "day(ts)"),
            (" hour( $$timestamp ) ", "hour($$timestamp)"),
            ("bucket(16, id)", "bucket(16, id)"),
            ("bucket(id,16)", "bucket(16, id)"),
            ("bucket(16, 2)", "bucket(16, 2)"),
            ("truncate(4, code)", "truncate(4, code)"),
            ("truncate(code, 4)", "truncate(4, code)"),
        ];
        for (text, shown) in cases {
            assert_eq!(text.parse::<Partitioning>().map(|field| field.to_string()).as_deref(), Ok(shown), "{text}");
        }
        let wrong = [
            "",
            "dya(ts)",
            "day()",
            "day(ts",
            "day(a, b)",
            "bucket(id)",
            "bucket(0, id)",
            "bucket(-1, id)",
            "day(day(ts))",
            "a)",
            "day(ts))",
        ];
        for text in wrong {
            assert!(text.parse::<Partitioning>().is_err(), "{text}");
        }
    }

    #[test]
    fn starts_read() {
        let cases = [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("1767225600000", Start::Timestamp(1_767_225_600_000)),
            ("2026-01-01T01:00:00.5+01:00", Start::Timestamp(1_767_225_600_500)),
            ("{0: 12, '3': '4'}", Start::Offsets([(0, 12), (3, 4)].into())),
        ];
        for (yaml, expected) in cases {
            assert_eq!(yaml_serde::from_str::<Start>(yaml).unwrap(), expected, "{yaml}");
        }
        for yaml in ["5", "oldest", "2026-01-01", "{}", "{-1: 2}", "{0: -2}", "[1]", "{a: 1}"] {
            assert!(yaml_serde::from_str::<Start>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn compressions_read() {
        let cases = [("zstd", Compression::Zstd(1)), ("zstd(22)", Compression::Zstd(22)), ("none", Compression::None)];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["zstd(0)", "zstd(23)", "zstd(", "gzip", ""] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }

    #[test]
    fn token_hashes_round_trip_and_stay_quiet() {
        let hash = TokenHash::of("test");
        assert_eq!(hash.to_string(), "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(format!("{hash:?}"), "sha256:***");
        let error = "my-plain-token".parse::<TokenHash>().unwrap_err();
        assert!(!error.contains("my-plain-token"), "{error}");
        assert!(format!("sha256:{}", "+1".repeat(32)).parse::<TokenHash>().is_err());
    }
}
