//! Decimals as Avro and Protobuf have them: two's complement, big endian, of any length, as a number or as text.

use std::io::Write as _;

use crate::decode::Failure;
use crate::model::decoded::Reason;

/// As many bytes as 1,000 digits need, and some more.
const TEXT_BYTES_MAX: usize = 512;

/// Digits of nine places that as many bytes come to.
const LIMBS_MAX: usize = TEXT_BYTES_MAX * 8 / 29 + 1;

const LIMB: u64 = 1_000_000_000;

/// The unscaled value, of at most `precision` digits.
#[inline]
pub(super) fn unscaled(bytes: &[u8], precision: u8) -> Result<i128, Failure> {
    const OUT: Failure = (Reason::ValueOutOfRange, "a decimal has more digits than its precision");
    let (negative, fill) = sign(bytes);
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
    if high.iter().any(|byte| *byte != fill) {
        return Err(OUT);
    }
    let mut wide = [fill; 16];
    wide[16 - low.len()..].copy_from_slice(low);
    let value = i128::from_be_bytes(wide);
    if (value < 0) != negative || value.unsigned_abs() >= 10_u128.pow(u32::from(precision)) {
        return Err(OUT);
    }
    Ok(value)
}

/// Appends the exact value with `scale` digits behind the point, whatever the precision: Connect's converter writes 64
/// where nobody said one.
pub(super) fn write(bytes: &[u8], scale: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let (negative, fill) = sign(bytes);
    let spare = bytes.iter().take_while(|byte| **byte == fill).count();
    let bytes = &bytes[spare..];
    if bytes.len() > TEXT_BYTES_MAX {
        return Err((Reason::ValueOutOfRange, "a decimal has more than 1,000 digits"));
    }
    let (mut limbs, mut used) = ([0_u64; LIMBS_MAX], 1);
    let mut multiply_and_add = |factor: u64, add: u64| {
        let mut carry = add;
        for limb in &mut limbs[..used] {
            let value = *limb * factor + carry;
            (*limb, carry) = (value % LIMB, value / LIMB);
        }
        if carry > 0 {
            limbs[used] = carry;
            used += 1;
        }
    };
    bytes.iter().for_each(|byte| multiply_and_add(256, u64::from(byte ^ fill)));
    if negative {
        multiply_and_add(1, 1);
        out.push(b'-');
    }
    let start = out.len();
    let (last, rest) = limbs[..used].split_last().unwrap_or((&0, &[]));
    let _ = write!(out, "{last}");
    rest.iter().rev().for_each(|limb| drop(write!(out, "{limb:09}")));
    let missing = (scale + 1).saturating_sub(out.len() - start);
    out.splice(start..start, std::iter::repeat_n(b'0', missing));
    if scale > 0 {
        out.insert(out.len() - scale, b'.');
    }
    Ok(())
}

/// Whether the value is below 0, and the byte that may stand in front as often as the writer likes.
#[inline]
fn sign(bytes: &[u8]) -> (bool, u8) {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    (negative, if negative { 0xff } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], scale: usize, expected: &str) {
        let mut out = b"x".to_vec();
        write(bytes, scale, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("x{expected}"));
    }

    #[test]
    fn decimals_of_any_length_have_their_exact_text() {
        check(&[], 0, "0");
        check(&[], 3, "0.000");
        check(&[0], 2, "0.00");
        check(&[0xff], 2, "-0.01");
        check(&[0xff, 0xff, 0x00], 0, "-256");
        check(&[0x07, 0xcf], 2, "19.99");
        check(&[0x07, 0xcf], 6, "0.001999");
        for value in [i128::MIN, i128::MAX, 999_999_999, 1_000_000_000, -1_000_000_000, -(1 << 64)] {
            check(&value.to_be_bytes(), 0, &value.to_string());
        }
        // 2^(8 * 511), whose 1,231 digits begin and end like this.
        let mut bytes = vec![0; TEXT_BYTES_MAX];
        bytes[0] = 1;
        let mut out = Vec::new();
        write(&bytes, 0, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!((text.len(), &text[..6], text.ends_with("056")), (1231, "407964", true));
        bytes.fill(0xfe);
        write(&bytes, 0, &mut Vec::new()).unwrap();
        bytes[0] = 0x7f;
        write(&bytes, 0, &mut Vec::new()).unwrap();
        bytes.push(0);
        assert_eq!(write(&bytes, 0, &mut Vec::new()).unwrap_err().0, Reason::ValueOutOfRange);
    }
}
