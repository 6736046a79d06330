//! The cursor against serde_json: it takes the same texts, and finds the same values in them.

use proptest::prelude::*;
use serde_json::Value;

use super::super::cursor::{Cursor, Stop};
use super::super::number;
use crate::decode::Failure;
use crate::model::decoded::Reason;

fn read(bytes: &[u8]) -> Result<&[u8], Stop> {
    let mut cursor = Cursor::new(bytes)?;
    let value = cursor.skip()?;
    cursor.end()?;
    Ok(value)
}

/// What serde_json says of the text; nothing where it gives up at the size of a number.
fn serde_takes(bytes: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(_) => Some(true),
        Err(error) => (!error.to_string().starts_with("number out of range")).then_some(false),
    }
}

fn takes(bytes: &[u8]) -> bool {
    read(bytes).is_ok()
}

#[test]
fn each_wrong_text_stops_for_its_reason() {
    let cases: [(&str, Stop); 26] = [
        ("", Stop::Short),
        (" ", Stop::Short),
        ("{\"a\":1", Stop::Short),
        ("[1,", Stop::Short),
        ("\"abc", Stop::Short),
        ("\"abc\\", Stop::Short),
        ("\"\\u00", Stop::Short),
        ("tru", Stop::Short),
        ("-", Stop::Short),
        ("1.", Stop::Short),
        ("1e", Stop::Short),
        ("1 2", Stop::Trailing),
        ("{}}", Stop::Trailing),
        ("01", Stop::Trailing),
        ("+1", Stop::NotJson),
        (".5", Stop::NotJson),
        ("NaN", Stop::NotJson),
        ("[1,]", Stop::NotJson),
        ("{\"a\":1,}", Stop::NotJson),
        ("{a:1}", Stop::NotJson),
        ("{\"a\" 1}", Stop::NotJson),
        ("'a'", Stop::NotJson),
        ("\"a\nb\"", Stop::NotJson),
        ("\"\\x\"", Stop::NotJson),
        ("\"\\ud800x\"", Stop::NotJson),
        ("\"\\udc00\"", Stop::NotJson),
    ];
    for (text, stop) in cases {
        assert_eq!(read(text.as_bytes()), Err(stop), "{text:?}");
        assert_eq!(serde_takes(text.as_bytes()), Some(false), "{text:?}");
    }
    assert_eq!(read(b"\"\xff\""), Err(Stop::NotJson));
    assert_eq!(read(b"\"\xc3"), Err(Stop::Short));
}

#[test]
fn depth_has_a_bound() {
    let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert!(read(&deep(128)).is_ok());
    assert_eq!(read(&deep(129)), Err(Stop::Deep));
    assert_eq!(Failure::from(Stop::Deep).0, Reason::TooLarge);
    // A text that only opens, however often, does not reach the end of the stack.
    assert_eq!(read(&vec![b'['; 1_000_000]), Err(Stop::Deep));
}

#[test]
fn whole_numbers_are_whole_however_they_are_written() {
    let cases: [(&str, Result<i64, Stop>); 20] = [
        ("0", Ok(0)),
        ("-0", Ok(0)),
        ("-17", Ok(-17)),
        ("1.0", Ok(1)),
        ("1e3", Ok(1_000)),
        ("1.50e1", Ok(15)),
        ("1200e-2", Ok(12)),
        ("999999999999999999", Ok(999_999_999_999_999_999)),
        ("9223372036854775807", Ok(i64::MAX)),
        ("-9223372036854775808", Ok(i64::MIN)),
        ("9223372036854775808", Err(Stop::OutOfRange)),
        ("1e400", Err(Stop::OutOfRange)),
        ("1e99999999999999999999", Err(Stop::OutOfRange)),
        ("0e99999999999999999999", Ok(0)),
        ("1e-99999999999999999999", Err(Stop::Misfit)),
        ("1.5", Err(Stop::Misfit)),
        ("12e-1", Err(Stop::Misfit)),
        ("\"1\"", Err(Stop::Misfit)),
        ("null", Err(Stop::Misfit)),
        ("x", Err(Stop::NotJson)),
    ];
    for (text, value) in cases {
        assert_eq!(Cursor::new(text.as_bytes()).unwrap().long(), value, "{text}");
    }
}

#[test]
fn decimals_are_exact() {
    let cases: [(&str, u8, u8, Result<i128, Stop>); 10] = [
        ("12.5", 5, 2, Ok(1_250)),
        ("-0.01", 5, 2, Ok(-1)),
        ("1.250e1", 5, 2, Ok(1_250)),
        ("999.99", 5, 2, Ok(99_999)),
        ("1000", 5, 2, Err(Stop::OutOfRange)),
        ("0.001", 5, 2, Err(Stop::Misfit)),
        ("0.0010e1", 5, 2, Ok(1)),
        ("0.000", 1, 0, Ok(0)),
        ("99999999999999999999999999999999999999", 38, 0, Ok(10_i128.pow(38) - 1)),
        ("0.00000000000000000000000000000000000001", 38, 38, Ok(1)),
    ];
    for (text, precision, scale, value) in cases {
        assert_eq!(number::decimal(text.as_bytes(), precision, scale), value, "{text}");
    }
    assert_eq!(number::decimal_of_bytes(&[0xff, 0x38], 5), Ok(-200));
    assert_eq!(number::decimal_of_bytes(&[], 5), Ok(0));
    assert_eq!(number::decimal_of_bytes(&[1; 17], 38), Err(Stop::OutOfRange));
    assert_eq!(number::decimal_of_bytes(&[0x7f; 16], 38), Err(Stop::OutOfRange));
}

/// Any JSON value as serde_json writes it, with or without white space.
fn written() -> impl Strategy<Value = String> {
    (any_json(), any::<bool>()).prop_map(|(value, pretty)| match pretty {
        true => serde_json::to_string_pretty(&value).unwrap(),
        false => value.to_string(),
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn it_takes_what_serde_json_takes(text in r#"([\[\]{}":,\\utfn0-9eE.\- a-f]|true|false|null|\\u[dD][89c]0[0f]|[\x00-\x20é𝄞]){0,12}"#) {
        let takes = takes(text.as_bytes());
        prop_assert_eq!(takes, serde_takes(text.as_bytes()).unwrap_or(takes), "{:?}", text);
    }

    #[test]
    fn it_takes_changed_texts_as_serde_json_does(text in written(), at in any::<usize>(), byte in any::<u8>(), cut in any::<bool>()) {
        prop_assert_eq!(read(text.as_bytes()), Ok(text.as_bytes()));
        let mut bytes = text.into_bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let takes = takes(&bytes);
        prop_assert_eq!(takes, serde_takes(&bytes).unwrap_or(takes), "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn texts_are_those_that_serde_json_reads(text in prop_oneof![any::<String>().prop_map(|s| Value::from(s).to_string()), r#""([a-z"]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|\\ud83d\\ude00){0,20}""#]) {
        let Ok(expected) = serde_json::from_str::<String>(&text) else { return Ok(()) };
        let read = Cursor::new(text.as_bytes()).unwrap().text().unwrap();
        prop_assert_eq!(String::from_utf8(read.to_vec()).unwrap(), expected);
        prop_assert_eq!(read.escaped, text.contains('\\'));
    }

    #[test]
    fn numbers_are_the_nearest(value in any::<f64>().prop_filter("JSON has no others", |v| v.is_finite()), digits in "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?") {
        for text in [value.to_string(), format!("{value:e}"), digits] {
            let nearest: f64 = text.parse().unwrap();
            prop_assert_eq!(number::double(text.as_bytes()).map(f64::to_bits), Ok(nearest.to_bits()), "{}", text);
            prop_assert_eq!(Cursor::new(text.as_bytes()).unwrap().number(), Ok(text.as_bytes()));
        }
    }

    #[test]
    fn whole_numbers_are_exact(value in any::<i64>()) {
        for text in [value.to_string(), format!("{value}.0"), format!("{value}0e-1")] {
            prop_assert_eq!(Cursor::new(text.as_bytes()).unwrap().long(), Ok(value), "{}", text);
        }
    }
}
