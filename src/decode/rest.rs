//! What is left of a record's bytes, and what Avro and Protobuf read of them alike: runs of bytes and varints.

use super::Failure;
use crate::model::decoded::Reason;

pub(super) const SHORT: Failure = (Reason::Truncated, "bytes end inside the record");

/// What is left of a record's bytes.
#[derive(Clone)]
pub(super) struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Failure> {
        self.0.split_off(..len).ok_or(SHORT)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A varint; bits beyond 64 are dropped, as the runtimes of both formats do.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Failure> {
        if let [first, rest @ ..] = self.0
            && *first < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(*first));
        }
        self.varint_of_many()
    }

    fn varint_of_many(&mut self) -> Result<u64, Failure> {
        let mut value = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 { SHORT } else { (Reason::TypeMismatch, "an integer does not end") })
    }

    /// A varint that alternates between positive and negative numbers.
    #[inline]
    pub(super) fn zigzag(&mut self) -> Result<i64, Failure> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }
}
