//! Which message of its schema a record holds: the indexes between schema id and payload in Confluent's wire format.

use super::wire::Cursor;
use crate::decode::Failure;
use crate::model::decoded::Reason;

/// The way to a message type: its index among the messages of the file, then among those nested in that one, and so
/// on. Messages that stand for a map's entries count where the schema is a descriptor or writes them out, as they do for
/// whoever registered it; those that a text's `map<…>` implies do not.
///
/// Packed: each index plus one in base 128, lowest digits first, the high bit on all digits but the last; zeroes behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessagePath([u8; 8]);

const TOO_DEEP: Failure = (Reason::TooLarge, "the message's index among the types of its schema is too long");

impl MessagePath {
    /// The first message of the file.
    pub const FIRST: Self = Self([1, 0, 0, 0, 0, 0, 0, 0]);

    /// The path of these indexes; `None` where they take more room than eight bytes: seven levels of up to 127
    /// messages always fit.
    #[must_use]
    pub fn new(indexes: &[u32]) -> Option<Self> {
        let mut packed = [0; 8];
        let mut at = 0;
        for index in indexes {
            let mut rest = u64::from(*index) + 1;
            loop {
                let more = rest >= 0x80;
                *packed.get_mut(at)? = (rest & 0x7f) as u8 | if more { 0x80 } else { 0 };
                at += 1;
                rest >>= 7;
                if !more {
                    break;
                }
            }
        }
        Some(Self(packed))
    }
}

/// The message path at the beginning of `bytes`, which are those behind magic byte and schema id, and how many bytes
/// it takes. The single byte 0 stands for the first message.
///
/// # Errors
/// `Truncated` where the bytes end inside, `TypeMismatch` where a count or index is none, `TooLarge` where the path
/// does not fit a [`MessagePath`].
pub fn read(bytes: &[u8]) -> Result<(MessagePath, usize), Failure> {
    const NO_INDEX: Failure = (Reason::TypeMismatch, "a message index is negative or beyond 32 bits");
    let mut cursor = Cursor::new(bytes);
    let mut number = || cursor.zigzag().and_then(|number| u32::try_from(number).map_err(|_| NO_INDEX));
    let count = number()?;
    let mut indexes = [0; 8];
    let taken = indexes.get_mut(..count as usize).ok_or(TOO_DEEP)?;
    for index in taken.iter_mut() {
        *index = number()?;
    }
    let path = if count == 0 { MessagePath::FIRST } else { MessagePath::new(taken).ok_or(TOO_DEEP)? };
    Ok((path, bytes.len() - cursor.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_serializers_write_them() {
        let path = |indexes: &[u32]| MessagePath::new(indexes).unwrap();
        for (bytes, expected) in [
            (&[0_u8, 9][..], Ok((MessagePath::FIRST, 1))),
            (&[2, 0, 9], Ok((MessagePath::FIRST, 2))),
            (&[4, 2, 0], Ok((path(&[1, 0]), 3))),
            (&[2, 0x80, 0x02], Ok((path(&[128]), 3))),
            (&[], Err(Reason::Truncated)),
            (&[4, 2], Err(Reason::Truncated)),
            (&[1], Err(Reason::TypeMismatch)),
            (&[2, 1], Err(Reason::TypeMismatch)),
            (&[18, 0, 0, 0, 0, 0, 0, 0, 0, 0], Err(Reason::TooLarge)),
            (&[0xfe, 0xff, 0x03], Err(Reason::TooLarge)),
        ] {
            assert_eq!(read(bytes).map_err(|(reason, _)| reason), expected, "{bytes:?}");
        }
    }

    #[test]
    fn different_paths_are_different_values() {
        let paths = [&[0][..], &[0, 0], &[1], &[0, 1], &[127], &[128], &[0, 127], &[16_383, 16_383, 3], &[0; 8]];
        for (i, a) in paths.iter().enumerate() {
            for b in &paths[..i] {
                assert_ne!(MessagePath::new(a).unwrap(), MessagePath::new(b).unwrap(), "{a:?} {b:?}");
            }
        }
        assert_eq!(MessagePath::new(&[0]), Some(MessagePath::FIRST));
        assert_eq!(MessagePath::new(&[u32::MAX, 0, 0, 0, 0]), None);
    }
}
