//! Values of well-known messages: from the bytes of one to what its column holds.

use chrono::{Datelike as _, NaiveDate};

use super::schema::Scalar;
use super::wire::{Cursor, LEN, VARINT};
use crate::decode::Failure;
use crate::model::decoded::Reason;

const NANOS: i64 = 1_000_000_000;
const UNREPRESENTABLE: Failure =
    (Reason::ValueOutOfRange, "a time lies outside of what its column can hold or is none");

/// An integer. Of unsigned ones of 64 bits the bits are given; shorter ones are cut off, as Google's runtimes do.
#[inline]
pub(super) fn integer(scalar: Scalar, cursor: &mut Cursor<'_>) -> Result<i64, Failure> {
    Ok(match scalar {
        Scalar::Int32 => i64::from((cursor.varint()? as u32).cast_signed()),
        Scalar::Uint32 => i64::from(cursor.varint()? as u32),
        Scalar::Sint32 => {
            let value = cursor.varint()? as u32;
            i64::from((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
        }
        Scalar::Int64 | Scalar::Uint64 => cursor.varint()?.cast_signed(),
        Scalar::Sint64 => cursor.zigzag()?,
        Scalar::Fixed32 => i64::from(u32::from_le_bytes(cursor.array()?)),
        Scalar::Sfixed32 => i64::from(i32::from_le_bytes(cursor.array()?)),
        Scalar::Fixed64 | Scalar::Sfixed64 => i64::from_le_bytes(cursor.array()?),
        Scalar::Bool => i64::from(cursor.varint()? != 0),
        Scalar::Double | Scalar::Float | Scalar::String | Scalar::Bytes => {
            return Err((Reason::TypeMismatch, "the field holds no integer"));
        }
    })
}

/// The fields 1 to `N` of a message of integers; of each the last, or 0.
#[inline]
fn numbers<const N: usize>(payload: &[u8]) -> Result<[i64; N], Failure> {
    let mut numbers = [0; N];
    let mut cursor = Cursor::new(payload);
    while !cursor.is_empty() {
        let tag = cursor.tag()?;
        match numbers.get_mut((tag >> 3) as usize - 1) {
            Some(number) if tag & 7 == VARINT => *number = cursor.varint()?.cast_signed(),
            _ => cursor.pass_over(tag)?,
        }
    }
    Ok(numbers)
}

/// Seconds and nanoseconds of a `google.protobuf.Timestamp`.
#[inline]
pub(super) fn timestamp(payload: &[u8]) -> Result<(i64, i64), Failure> {
    let [seconds, nanos] = numbers(payload)?;
    let nanos = i64::from(nanos as i32);
    if (0..NANOS).contains(&nanos) { Ok((seconds, nanos)) } else { Err(UNREPRESENTABLE) }
}

/// Seconds and nanoseconds of a `google.protobuf.Duration`, both of one sign.
pub(super) fn duration(payload: &[u8]) -> Result<(i64, i64), Failure> {
    let [seconds, nanos] = numbers(payload)?;
    let nanos = i64::from(nanos as i32);
    let agree = nanos.signum() * seconds.signum() >= 0;
    if agree && nanos.abs() < NANOS { Ok((seconds, nanos)) } else { Err(UNREPRESENTABLE) }
}

/// That many parts to a second; what is finer is cut off.
#[inline]
pub(super) fn ticks((seconds, nanos): (i64, i64), per_second: i64) -> Result<i64, Failure> {
    let whole = i128::from(seconds) * i128::from(per_second) + i128::from(nanos / (NANOS / per_second));
    i64::try_from(whole).map_err(|_| UNREPRESENTABLE)
}

/// Days since 1970-01-01 of a `google.type.Date`. Dates without year, month or day are no days.
pub(super) fn date(payload: &[u8]) -> Result<i32, Failure> {
    const NO_DAY: Failure = (Reason::ValueOutOfRange, "a date is no day of years 1 to 9999");
    const EPOCH_DAYS: i32 = 719_163;
    let [year, month, day] = numbers(payload)?.map(|number: i64| number as i32);
    let unsigned = |number: i32| u32::try_from(number).map_err(|_| NO_DAY);
    let day = NaiveDate::from_ymd_opt(year, unsigned(month)?, unsigned(day)?).ok_or(NO_DAY)?;
    if (1..=9999).contains(&year) { Ok(day.num_days_from_ce() - EPOCH_DAYS) } else { Err(NO_DAY) }
}

/// Microseconds since midnight of a `google.type.TimeOfDay`. The end of a day as 24:00 and leap seconds have none.
pub(super) fn time_of_day(payload: &[u8]) -> Result<i64, Failure> {
    let [hours, minutes, seconds, nanos] = numbers(payload)?.map(|number: i64| i64::from(number as i32));
    let fits = [(hours, 24), (minutes, 60), (seconds, 60), (nanos, NANOS)];
    if fits.iter().any(|(number, bound)| !(0..*bound).contains(number)) {
        return Err((Reason::ValueOutOfRange, "a time of day lies outside the day"));
    }
    Ok(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + nanos / 1000)
}

/// The unscaled number of a `confluent.type.Decimal` brought to `scale`, exactly, in at most `precision` digits.
pub(super) fn decimal(payload: &[u8], precision: u8, scale: u8) -> Result<i128, Failure> {
    const OUT: Failure = (Reason::ValueOutOfRange, "a decimal has more digits than its column");
    let (mut digits, mut own_scale) = (&[][..], 0);
    let mut cursor = Cursor::new(payload);
    while !cursor.is_empty() {
        match cursor.tag()? {
            tag if tag == 1 << 3 | LEN => digits = cursor.bytes()?,
            tag if tag == 3 << 3 | VARINT => own_scale = (cursor.varint()? as u32).cast_signed(),
            tag => cursor.pass_over(tag)?,
        }
    }
    let number = crate::decode::decimal::unscaled(digits, 38)?;
    if number == 0 {
        return Ok(0);
    }
    // No number of 38 digits is shifted by more places than that.
    let places = i64::from(scale) - i64::from(own_scale);
    let power = u32::try_from(places.unsigned_abs()).ok().filter(|places| *places <= 38).ok_or(OUT)?;
    let power = 10_i128.pow(power);
    let shifted = if places >= 0 {
        number.checked_mul(power).ok_or(OUT)?
    } else if number % power == 0 {
        number / power
    } else {
        return Err((Reason::ValueOutOfRange, "a decimal has more digits behind the point than its column"));
    };
    if shifted.unsigned_abs() < 10_u128.pow(u32::from(precision)) { Ok(shifted) } else { Err(OUT) }
}
