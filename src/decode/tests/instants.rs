//! Instants of every precision into columns of every precision, exactly or cut, or out of range.

use super::*;
use crate::decode::mapping::TableFormat;
use crate::model::schema::{Field, Type};

/// What a value of a logical type becomes in a column, in the column's parts of a second; `None` where it is rejected.
fn through(logical: &str, value: i64, column: &Type) -> Option<i64> {
    let text = format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"at","type":{{"type":"long","logicalType":"{logical}"}}}}]}}"#
    );
    let mut layout = layout(TimeAs::Long);
    layout.mapping.format = TableFormat::V3;
    let fields = vec![Field::optional("at", column.clone()), Field::optional("kafka_offset", Type::Long)];
    let table = TableSchema::of(fields);
    let uses = HashMap::from([(SchemaKey::Id(1), SchemaUse::Known(schema(&text)))]);
    let decoder = Decoder::new(Arc::new(layout), Arc::new(table), SIDES, uses);
    let mut body = Vec::new();
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        body.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    body.push(rest as u8);
    let decoded = decide(&decoder, &[Some(framed(1, &body))]);
    if let [reject] = decoded.rejects.as_slice() {
        assert_eq!(reject.reason, Reason::ValueOutOfRange);
        return None;
    }
    let array = decoded.rows.column(0);
    assert_eq!(array.data_type(), &column.to_arrow());
    Some(match column.per_second() {
        Some(1_000_000) => array.as_primitive::<TimestampMicrosecondType>().value(0),
        _ => array.as_primitive::<TimestampNanosecondType>().value(0),
    })
}

#[test]
fn every_precision_goes_into_every_column() {
    let value = 1_767_225_600_123_456_789;
    for (local, micros, nanos) in
        [("", Type::TimestampTz, Type::TimestampTzNs), ("local-", Type::Timestamp, Type::TimestampNs)]
    {
        let check = |logical: &str, value, column: &Type, expected| {
            let logical = format!("{local}timestamp-{logical}");
            assert_eq!(through(&logical, value, column), expected, "{logical} {value} into {column}");
        };
        check("millis", value / 1_000_000, &micros, Some(1_767_225_600_123_000));
        check("micros", value / 1_000, &micros, Some(1_767_225_600_123_456));
        check("nanos", value, &micros, Some(1_767_225_600_123_456));
        check("nanos", -1, &micros, Some(-1));
        check("millis", value / 1_000_000, &nanos, Some(1_767_225_600_123_000_000));
        check("micros", value / 1_000, &nanos, Some(1_767_225_600_123_456_000));
        check("nanos", value, &nanos, Some(value));
        check("nanos", i64::MIN, &nanos, Some(i64::MIN));
        check("millis", i64::MAX / 1_000, &micros, Some(i64::MAX / 1_000 * 1_000));
        // The year 9999 is beyond nanoseconds.
        check("micros", 253_402_300_799_000_000, &micros, Some(253_402_300_799_000_000));
        check("micros", 253_402_300_799_000_000, &nanos, None);
        check("millis", 253_402_300_799_000, &nanos, None);
    }
}

#[test]
fn nanoseconds_have_columns_of_their_own_in_format_3_alone() {
    let field = |logical: &str| {
        format!(r#"{{"name":"{}","type":{{"type":"long","logicalType":"{logical}"}}}}"#, logical.replace('-', "_"))
    };
    let fields = ["timestamp-nanos", "local-timestamp-nanos", "timestamp-micros"].map(field).join(",");
    let text = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    for (format, expected) in [
        (TableFormat::V2, ["timestamptz", "timestamp", "timestamptz"]),
        (TableFormat::V3, ["timestamptz_ns", "timestamp_ns", "timestamptz"]),
    ] {
        let mut layout = layout(TimeAs::Long);
        layout.mapping.format = format;
        let columns = columns_of(&layout, &schema(&text));
        let kinds: Vec<String> = columns.fields[..3].iter().map(|field| field.kind.to_string()).collect();
        assert_eq!(kinds, expected);
        // What a table has of coarser columns stays: there is no promotion between them.
        let coarse = columns_of(&super::layout(TimeAs::Long), &schema(&text));
        assert_eq!(evolved(&coarse, &columns, &layout), Ok(None));
    }
}
