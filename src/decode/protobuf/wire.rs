//! Protobuf's wire format read value by value. What the values are for is not known here.

use super::schema::{Kind, Scalar};
use crate::decode::Failure;
pub(super) use crate::decode::rest::Rest as Cursor;
use crate::decode::rest::SHORT;
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

const NO_TAG: Failure = (Reason::TypeMismatch, "a field has no valid tag");

impl<'a> Cursor<'a> {
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
        let mut start = self.clone();
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            let before = self.len();
            let tag = self.tag()?;
            match tag & 7 {
                GROUP if open.len() >= DEPTH_MAX => return Err(TOO_DEEP),
                GROUP => open.push(tag >> 3),
                END_GROUP if tag >> 3 != *innermost => return Err(NO_TAG),
                END_GROUP => {
                    open.pop();
                    if open.is_empty() {
                        return start.take(start.len() - before);
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
                self.take(self.len() - rest.len())
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
