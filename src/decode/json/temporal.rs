//! Dates and times from the texts that RFC 3339 and ISO 8601 share.

use chrono::{Datelike as _, NaiveDate};

const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// Days since 1970-01-01 of `2026-07-29`.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let (year, month, day) = match text {
        [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] => {
            (digits(&[*y1, *y2, *y3, *y4])?, digits(&[*m1, *m2])?, digits(&[*d1, *d2])?)
        }
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?);
    date.map(|date| date.num_days_from_ce() - 719_163)
}

/// Microseconds since midnight of `12:30:45.5` or `12:30:45.5Z`; a time of another zone has no place in a column
/// without zone.
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let (micros, zone) = clock(text, MICROS)?;
    (zone.is_empty() || offset(zone) == Some(0)).then_some(micros)
}

/// Parts of a second, of which each has `per_second`, since the epoch at `2026-07-29T12:30:45.5Z`; with a zone where
/// `zoned`, else without.
pub(super) fn timestamp(text: &[u8], zoned: bool, per_second: i64) -> Option<i64> {
    let (day, rest) = text.split_at_checked(10)?;
    let [b'T' | b't' | b' ', rest @ ..] = rest else { return None };
    let (ticks, zone) = clock(rest, per_second)?;
    let offset = match zone.is_empty() {
        true if !zoned => 0,
        false if zoned => offset(zone)?,
        _ => return None,
    };
    (i64::from(date(day)?) * DAY - offset).checked_mul(per_second)?.checked_add(ticks)
}

/// `12:30:45` with any fraction, of which `per_second` parts are kept; these parts and what follows.
fn clock(text: &[u8], per_second: i64) -> Option<(i64, &[u8])> {
    let (hour, minute, second, mut rest) = match text {
        [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] => {
            (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?, rest)
        }
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut parts = 0;
    if let [b'.', fraction @ ..] = rest {
        let len = fraction.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(fraction.len());
        let (fraction, zone) = fraction.split_at(len);
        let kept = &fraction[..len.min(per_second.ilog10() as usize)];
        parts = digits(kept)? * (per_second / 10_i64.pow(u32::try_from(kept.len()).ok()?));
        rest = zone;
    }
    Some((((hour * 60 + minute) * 60 + second) * per_second + parts, rest))
}

/// Seconds east of Greenwich of `Z` or `+02:00`.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
            let seconds = (hours * 60 + minutes) * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_chrono_reads_them() {
        for text in ["1970-01-01T00:00:00Z", "2026-07-29T23:59:59.999999+05:30", "0001-01-01T00:00:00.5-23:59"] {
            let micros = chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
            assert_eq!(timestamp(text.as_bytes(), true, MICROS), Some(micros), "{text}");
        }
        let fine = b"2026-07-29T12:00:00.1234567";
        assert_eq!(timestamp(fine, false, MICROS), Some(1_785_326_400_123_456));
        assert_eq!(timestamp(fine, false, 1_000_000_000), Some(1_785_326_400_123_456_700));
        assert_eq!(timestamp(b"2262-04-11T23:47:16.854775808", false, 1_000_000_000), None);
        assert_eq!(time(b"00:00:01.5Z"), Some(1_500_000));
        assert_eq!(date(b"2024-02-29"), Some(19_782));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["2026-02-30", "2026-2-3", "+026-01-01", "2026-07-29T", ""] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
        for text in ["24:00:00", "12:60:00", "12:00", "12:00:00.", "12:00:00+02:00", "12:00:60"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
        assert_eq!(timestamp(b"2026-07-29T12:00:00", true, MICROS), None);
        assert_eq!(timestamp(b"2026-07-29T12:00:00Z", false, MICROS), None);
        assert_eq!(timestamp("2026-07-2\u{e9}T12:00:00Z".as_bytes(), true, MICROS), None);
    }
}
