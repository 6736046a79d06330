//! What Avro types mean beyond their bytes: the specification's `logicalType`, else Kafka Connect's `connect.name`,
//! where Connect's and Debezium's temporal types and decimals stand. An annotation counts only where it fits its base
//! type; any other is ignored, as the specification demands of `logicalType`.

use serde_json::{Map, Value};

use super::schema::Kind;

/// A decimal of more digits is taken as the bytes that it is.
const DIGITS_MAX: u32 = 1_000;

/// The precision of Connect's decimals where none is written (`CONNECT_AVRO_DECIMAL_PRECISION_DEFAULT` of its
/// converter).
const CONNECT_PRECISION: u32 = 64;

/// Meanings of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logical {
    /// Days since the epoch.
    Date,
    /// Milliseconds since midnight.
    TimeMillis,
    /// Microseconds since midnight.
    TimeMicros,
    /// Nanoseconds since midnight.
    TimeNanos,
    /// Milliseconds since the epoch, UTC.
    TimestampMillis,
    /// Microseconds since the epoch, UTC.
    TimestampMicros,
    /// Nanoseconds since the epoch, UTC.
    TimestampNanos,
    /// Milliseconds since the epoch, no zone.
    LocalTimestampMillis,
    /// Microseconds since the epoch, no zone.
    LocalTimestampMicros,
    /// Nanoseconds since the epoch, no zone.
    LocalTimestampNanos,
    /// ISO 8601 text with an offset from UTC.
    ZonedTimestamp,
    /// Two's complement, big endian: precision, scale.
    Decimal(u32, u32),
    /// Canonical text or 16 bytes.
    Uuid,
}

/// What values of `kind` mean by the attributes of their type.
pub(super) fn logical(kind: &Kind, object: &Map<String, Value>) -> Option<Logical> {
    match object.get("logicalType") {
        Some(name) => specified(kind, name.as_str()?, object),
        None => connect(kind, object.get("connect.name")?.as_str()?, object),
    }
}

fn specified(kind: &Kind, name: &str, object: &Map<String, Value>) -> Option<Logical> {
    match (name, kind) {
        ("date", Kind::Int) => Some(Logical::Date),
        ("time-millis", Kind::Int) => Some(Logical::TimeMillis),
        ("time-micros", Kind::Long) => Some(Logical::TimeMicros),
        ("timestamp-millis", Kind::Long) => Some(Logical::TimestampMillis),
        ("timestamp-micros", Kind::Long) => Some(Logical::TimestampMicros),
        ("timestamp-nanos", Kind::Long) => Some(Logical::TimestampNanos),
        ("local-timestamp-millis", Kind::Long) => Some(Logical::LocalTimestampMillis),
        ("local-timestamp-micros", Kind::Long) => Some(Logical::LocalTimestampMicros),
        ("local-timestamp-nanos", Kind::Long) => Some(Logical::LocalTimestampNanos),
        ("uuid", Kind::String | Kind::Fixed(16)) => Some(Logical::Uuid),
        ("decimal", Kind::Bytes | Kind::Fixed(_)) => decimal(number(object.get("precision")?), object.get("scale")),
        _ => None,
    }
}

/// Connect's timestamps are instants (its converter writes `timestamp-millis` beside them); Debezium's are without time
/// zone, but for the zoned ones (`io.debezium.time`, in the documents of each class). Its `ZonedTime`, `Year`,
/// `Interval` and durations have no column type of their own and stay what they are.
fn connect(kind: &Kind, name: &str, object: &Map<String, Value>) -> Option<Logical> {
    match (name, kind) {
        ("org.apache.kafka.connect.data.Date" | "io.debezium.time.Date", Kind::Int) => Some(Logical::Date),
        ("org.apache.kafka.connect.data.Time" | "io.debezium.time.Time", Kind::Int) => Some(Logical::TimeMillis),
        ("io.debezium.time.MicroTime", Kind::Long) => Some(Logical::TimeMicros),
        ("io.debezium.time.NanoTime", Kind::Long) => Some(Logical::TimeNanos),
        ("org.apache.kafka.connect.data.Timestamp", Kind::Long) => Some(Logical::TimestampMillis),
        ("io.debezium.time.Timestamp", Kind::Long) => Some(Logical::LocalTimestampMillis),
        ("io.debezium.time.MicroTimestamp", Kind::Long) => Some(Logical::LocalTimestampMicros),
        ("io.debezium.time.NanoTimestamp", Kind::Long) => Some(Logical::LocalTimestampNanos),
        ("io.debezium.time.ZonedTimestamp", Kind::String) => Some(Logical::ZonedTimestamp),
        ("org.apache.kafka.connect.data.Decimal", Kind::Bytes | Kind::Fixed(_)) => {
            let parameters = object.get("connect.parameters");
            let parameter = |name: &str| parameters.and_then(|parameters| parameters.get(name));
            let precision = parameter("connect.decimal.precision").map_or(Some(CONNECT_PRECISION), number);
            decimal(precision, parameter("scale").or_else(|| object.get("scale")))
        }
        _ => None,
    }
}

fn decimal(precision: Option<u32>, scale: Option<&Value>) -> Option<Logical> {
    let (precision, scale) = (precision?, scale.map_or(Some(0), number)?);
    ((1..=DIGITS_MAX).contains(&precision) && scale <= precision).then_some(Logical::Decimal(precision, scale))
}

/// A number, or text that is one, as Connect writes parameters.
fn number(value: &Value) -> Option<u32> {
    match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().and_then(|number| u32::try_from(number).ok()),
    }
}
