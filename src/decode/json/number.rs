//! Numbers from the text that JSON writes them in, which is known to be sound.

use super::cursor::Stop;

/// The nearest number of 64 bits.
#[inline]
pub(super) fn double(text: &[u8]) -> Result<f64, Stop> {
    match short(text) {
        Some(value) => Ok(value),
        None => parsed(text),
    }
}

/// The nearest number of 32 bits.
pub(super) fn float(text: &[u8]) -> Result<f32, Stop> {
    let value: f32 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Stop::NotJson)?;
    if value.is_finite() { Ok(value) } else { Err(Stop::OutOfRange) }
}

fn parsed(text: &[u8]) -> Result<f64, Stop> {
    let value: f64 = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Stop::NotJson)?;
    if value.is_finite() { Ok(value) } else { Err(Stop::OutOfRange) }
}

/// Up to 15 digits and no exponent: digits and power of ten are both exact, so that their quotient is the nearest
/// number (Clinger, "How to read floating point numbers accurately", 1990).
#[inline]
fn short(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 16 {
        return None;
    }
    let (mut value, mut point) = (0_u64, digits.len());
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value * 10 + u64::from(byte - b'0'),
            b'.' => point = at + 1,
            _ => return None,
        }
    }
    if value >= 1 << 53 {
        return None;
    }
    let value = value as f64 / POWERS[digits.len() - point];
    Some(if negative { -value } else { value })
}

/// The whole number, however it is written.
#[cold]
pub(super) fn long(text: &[u8]) -> Result<i64, Stop> {
    i64::try_from(decimal(text, 38, 0)?).map_err(|_| Stop::OutOfRange)
}

/// The number times ten to the power of `scale`, exact, of at most `precision` digits (38 at most).
pub(super) fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, Stop> {
    let split = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(split);
    let exponent = exponent.get(1..).map_or(0, |exponent| {
        let sign = if exponent.starts_with(b"-") { -1 } else { 1 };
        let digits = exponent.iter().filter(|byte| byte.is_ascii_digit());
        sign * digits.fold(0_i64, |value, byte| value.saturating_mul(10).saturating_add(i64::from(byte - b'0')))
    });
    let fraction = mantissa.iter().rev().position(|byte| *byte == b'.').unwrap_or(0);
    let digits = || mantissa.iter().filter(|byte| byte.is_ascii_digit());
    let Some(first) = digits().position(|byte| *byte != b'0') else { return Ok(0) };
    let zeros = digits().rev().position(|byte| *byte != b'0').unwrap_or(0);
    let significant = digits().count() - first - zeros;
    let len = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
    // The value is the significant digits times ten to the power of `shift`, once `scale` is in it.
    let shift = exponent.saturating_add(len(zeros)).saturating_sub(len(fraction)).saturating_add(i64::from(scale));
    if len(significant).saturating_add(shift) > i64::from(precision) {
        return Err(Stop::OutOfRange);
    }
    let Ok(shift) = u32::try_from(shift) else { return Err(Stop::Misfit) };
    let value = digits().skip(first).take(significant).fold(0_i128, |value, byte| value * 10 + i128::from(byte - b'0'));
    let value = value * 10_i128.pow(shift);
    Ok(if text.starts_with(b"-") { -value } else { value })
}

/// Two's complement, big endian, of at most `precision` digits: how Kafka Connect writes a decimal's digits.
pub(super) fn decimal_of_bytes(bytes: &[u8], precision: u8) -> Result<i128, Stop> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    let at = wide.len().checked_sub(bytes.len()).ok_or(Stop::OutOfRange)?;
    wide[at..].copy_from_slice(bytes);
    let value = i128::from_be_bytes(wide);
    if value.unsigned_abs() < 10_u128.pow(u32::from(precision)) { Ok(value) } else { Err(Stop::OutOfRange) }
}
