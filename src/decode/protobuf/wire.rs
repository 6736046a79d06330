//! Protobuf's wire format read value by value. What the values are for is not known here.

use super::schema::{Kind, Scalar};
use crate::decode::Failure;
use crate::model::decoded::Reason;

/// A varint.
pub(super) const VARINT: u32 = 0;
/// Eight bytes.
pub(super) const FIXED64: u32 = 1;
/// A length and that many bytes.
pub(super) const LEN: u32 = 2;
/// The beginning of a group.
pub(super) const GROUP: u32 = 3;
/// The end of a group.
pub(super) const END_GROUP: u32 = 4;
/// Four bytes.
pub(super) const FIXED32: u32 = 5;

/// Messages and groups inside each other that are read; the limit of Google's runtimes.
pub(super) const DEPTH_MAX: usize = 100;
pub(super) const TOO_DEEP: Failure = (Reason::TooLarge, "messages lie more than 100 levels inside each other");

const SHORT: Failure = (Reason::Truncated, "bytes end inside the message");
const NO_TAG: Failure = (Reason::TypeMismatch, "a field has no valid tag");

/// What is left of a message's bytes.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Failure> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(SHORT)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(SHORT)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// A varint; bits beyond 64 are dropped, as Google's runtimes do.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Failure> {
        if let [first, rest @ ..] = self.bytes
            && *first < 0x80
        {
            self.bytes = rest;
            return Ok(u64::from(*first));
        }
        self.varint_of_many()
    }

    fn varint_of_many(&mut self) -> Result<u64, Failure> {
        let mut value = 0;
        for (at, byte) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if *byte < 0x80 {
                self.bytes = &self.bytes[at + 1..];
                return Ok(value);
            }
        }
        Err(if self.bytes.len() < 10 { SHORT } else { (Reason::TypeMismatch, "an integer does not end") })
    }

    #[inline]
    pub(super) fn zigzag(&mut self) -> Result<i64, Failure> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A field's number and wire type: the number times eight plus the type, which is none of the two undefined ones.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<u32, Failure> {
        let tag = u32::try_from(self.varint()?).map_err(|_| NO_TAG)?;
        if tag < 8 || tag & 7 > FIXED32 { Err(NO_TAG) } else { Ok(tag) }
    }

    /// A length and that many bytes.
    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Failure> {
        let len = self.varint()?;
        self.take(usize::try_from(len).map_err(|_| SHORT)?)
    }

    /// The bytes of a group's fields; its beginning has been read.
    pub(super) fn group(&mut self, number: u32) -> Result<&'a [u8], Failure> {
        let start = self.bytes;
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            let before = self.left();
            let tag = self.tag()?;
            match tag & 7 {
                GROUP if open.len() >= DEPTH_MAX => return Err(TOO_DEEP),
                GROUP => open.push(tag >> 3),
                END_GROUP if tag >> 3 != *innermost => return Err(NO_TAG),
                END_GROUP => {
                    open.pop();
                    if open.is_empty() {
                        return Ok(&start[..start.len() - before]);
                    }
                }
                _ => self.pass_over(tag)?,
            }
        }
        Err(NO_TAG)
    }

    /// The bytes of a value whose tag has been read, without those that say how long it is.
    #[inline]
    pub(super) fn value(&mut self, tag: u32) -> Result<&'a [u8], Failure> {
        match tag & 7 {
            LEN => self.bytes(),
            GROUP => self.group(tag >> 3),
            _ => {
                let mut rest = self.clone();
                rest.pass_over(tag)?;
                self.take(self.left() - rest.left())
            }
        }
    }

    /// Passes over a field whose tag has been read.
    pub(super) fn pass_over(&mut self, tag: u32) -> Result<(), Failure> {
        match tag & 7 {
            VARINT => drop(self.varint()?),
            FIXED64 => drop(self.take(8)?),
            LEN => drop(self.bytes()?),
            FIXED32 => drop(self.take(4)?),
            GROUP => drop(self.group(tag >> 3)?),
            _ => return Err(NO_TAG),
        }
        Ok(())
    }
}

/// The wire type of one value.
pub(super) fn wire_type(kind: &Kind) -> u32 {
    match kind {
        Kind::Scalar(Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64) => FIXED64,
        Kind::Scalar(Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32) => FIXED32,
        Kind::Scalar(Scalar::String | Scalar::Bytes) | Kind::Message(_) | Kind::Entry(_) => LEN,
        Kind::Group(_) => GROUP,
        Kind::Scalar(_) | Kind::Enum(_) => VARINT,
    }
}

/// Appends a varint.
pub(super) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
