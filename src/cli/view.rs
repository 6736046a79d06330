//! How results look: aligned columns and readable quantities for people, one JSON document a line for machines.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

use crate::error::{Error, Result};

/// Between two columns.
const GAP: &str = "  ";

/// A result. Its serialised form is an interface: fields are only added.
pub(super) trait View: Serialize {
    /// For people; lines end with a line feed.
    fn text(&self) -> String;
}

/// Prints a result to standard output. A reader that has gone away (`| head`) is no failure.
pub(super) fn show(view: &impl View, json: bool) -> Result<()> {
    let text = if json {
        serde_json::to_string(view).map_err(|e| Error::bug("a result has no json form").with_source(e))? + "\n"
    } else {
        view.text()
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::unavailable("write to standard output").with_source(e))
        }
        _ => Ok(()),
    }
}

/// Where a column's values stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under a line of headings, each column as wide as its widest value.
pub(super) fn columns<const N: usize>(headings: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(|(heading, _)| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let first = headings.map(|(heading, _)| heading.to_owned());
    for row in std::iter::once(&first).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(widths).zip(headings) {
            let _ = match align {
                Align::Left => write!(line, "{cell:<width$}{GAP}"),
                Align::Right => write!(line, "{cell:>width$}{GAP}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `name  value` lines, values aligned.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    facts.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<width$}{GAP}{value}");
        text
    })
}

/// `-` where there is nothing to show.
pub(super) fn or_dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// A whole number with its thousands apart: `1,234,567`.
pub(super) fn number(value: impl Into<i128>) -> String {
    let value = value.into();
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes: `512 B`, `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span in its two largest units: `850 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {small_unit}"),
    };
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// Milliseconds since the epoch as RFC 3339 in UTC.
pub(super) fn time(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// From `then_ms` to `now_ms`, 0 where clocks differ.
pub(super) fn age(now_ms: i64, then_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567"), (-12_345, "-12,345")]
        {
            assert_eq!(number(value), text);
        }
        for (bytes, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (1 << 20, "1.0 MiB"), ((1 << 20) - 1, "1.0 MiB")]
        {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        for (ms, text) in [
            (850, "850 ms"),
            (12_900, "12 s"),
            (200_000, "3 min 20 s"),
            (3_600_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (349_200_000, "4 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text, "{ms}");
        }
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(age(5, 9), Duration::ZERO);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_value_and_lines_have_no_tail() {
        let rows = [["orders".to_owned(), "7".to_owned()], ["ä".to_owned(), "1,000".to_owned()]];
        let text = columns([("table", Align::Left), ("rows", Align::Right)], &rows);
        assert_eq!(text, "table    rows\norders      7\nä       1,000\n");
        assert_eq!(facts(&[("a", "1".to_owned()), ("long", "2".to_owned())]), "a     1\nlong  2\n");
    }
}
