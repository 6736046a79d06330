//! Values in Iceberg's single-value binary form (spec, appendix D) as Arrow arrays: what stands for a column that files
//! lack.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int32Array, Int64Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};

use super::schema::{Type, UTC};

/// `rows` times the value of type `kind` that `bytes` are; `None` where they are none, and for nested types.
#[must_use]
pub fn array(kind: &Type, bytes: &[u8], rows: usize) -> Option<ArrayRef> {
    let int = || Some(i32::from_le_bytes(bytes.try_into().ok()?));
    let float = || Some(f32::from_le_bytes(bytes.try_into().ok()?));
    // A column that was promoted may have a value of its old width.
    let long = || int().map(i64::from).or_else(|| Some(i64::from_le_bytes(bytes.try_into().ok()?)));
    let double = || float().map(f64::from).or_else(|| Some(f64::from_le_bytes(bytes.try_into().ok()?)));
    let fixed = || FixedSizeBinaryArray::try_from_iter(std::iter::repeat_n(bytes, rows)).ok();
    Some(match kind {
        Type::Boolean => Arc::new(BooleanArray::from(vec![*bytes.first()? != 0; rows])),
        Type::Int => Arc::new(Int32Array::from_value(int()?, rows)),
        Type::Date => Arc::new(Date32Array::from_value(int()?, rows)),
        Type::Long => Arc::new(Int64Array::from_value(long()?, rows)),
        Type::Time => Arc::new(Time64MicrosecondArray::from_value(long()?, rows)),
        Type::Timestamp => Arc::new(TimestampMicrosecondArray::from_value(long()?, rows)),
        Type::TimestampTz => Arc::new(TimestampMicrosecondArray::from_value(long()?, rows).with_timezone(UTC)),
        Type::TimestampNs => Arc::new(TimestampNanosecondArray::from_value(long()?, rows)),
        Type::TimestampTzNs => Arc::new(TimestampNanosecondArray::from_value(long()?, rows).with_timezone(UTC)),
        Type::Float => Arc::new(Float32Array::from_value(float()?, rows)),
        Type::Double => Arc::new(Float64Array::from_value(double()?, rows)),
        Type::Decimal(precision, scale) => {
            let mut wide = [if bytes.first()? & 0x80 == 0 { 0 } else { 0xff }; 16];
            wide.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
            let values = Decimal128Array::from_value(i128::from_be_bytes(wide), rows);
            Arc::new(values.with_precision_and_scale(*precision, scale.cast_signed()).ok()?)
        }
        Type::String => {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(std::str::from_utf8(bytes).ok()?, rows)))
        }
        Type::Binary => Arc::new(BinaryArray::from_iter_values(std::iter::repeat_n(bytes, rows))),
        Type::Uuid => Arc::new(fixed().filter(|_| bytes.len() == 16)?),
        Type::Fixed(size) => Arc::new(fixed().filter(|_| bytes.len() == *size as usize)?),
        Type::Struct(_) | Type::List(_) | Type::Map(..) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_of_its_type_or_none() {
        let check = |kind: Type, bytes: &[u8], expected: Option<&str>| {
            let array = array(&kind, bytes, 2);
            assert!(array.iter().all(|array| array.len() == 2 && *array.data_type() == kind.to_arrow()), "{kind}");
            let shown = array.map(|array| arrow::util::display::array_value_to_string(&array, 1).unwrap());
            assert_eq!(shown.as_deref(), expected, "{kind} {bytes:?}");
        };
        check(Type::Boolean, &[1], Some("true"));
        check(Type::Int, &7_i32.to_le_bytes(), Some("7"));
        check(Type::Int, &7_i64.to_le_bytes(), None);
        check(Type::Long, &(-7_i32).to_le_bytes(), Some("-7"));
        check(Type::Long, &(-7_i64).to_le_bytes(), Some("-7"));
        check(Type::Double, &0.5_f32.to_le_bytes(), Some("0.5"));
        check(Type::Decimal(9, 2), &[0xff, 0x38], Some("-2.00"));
        check(Type::Decimal(9, 2), &[], None);
        check(Type::Date, &1_i32.to_le_bytes(), Some("1970-01-02"));
        check(Type::TimestampTz, &1_i64.to_le_bytes(), Some("1970-01-01T00:00:00.000001Z"));
        check(Type::String, "ß".as_bytes(), Some("ß"));
        check(Type::String, &[0xff], None);
        check(Type::Uuid, &[0; 16], Some("00000000000000000000000000000000"));
        check(Type::Fixed(3), &[1, 2], None);
        check(Type::Binary, &[], Some(""));
        check(Type::Struct(Vec::new()), &[], None);
    }
}
