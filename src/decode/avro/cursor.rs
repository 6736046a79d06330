//! Avro's binary encoding read value by value. What the values are for is not known here.

use crate::decode::Failure;
use crate::decode::rest::Rest;
use crate::model::decoded::Reason;

/// Elements of no bytes that one record may have: without a bound a short record could ask for 2^63 of them.
const EMPTY_ELEMENTS_MAX: u32 = 1 << 20;

/// What is left of a record's bytes.
pub(super) struct Cursor<'a> {
    rest: Rest<'a>,
    /// Elements of no bytes seen so far.
    empty: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: Rest::new(bytes), empty: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Failure> {
        self.rest.take(len)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        self.rest.array()
    }

    /// The index of a union's branch or an enum's symbol among `count`.
    pub(super) fn index(&mut self, otherwise: &'static str, count: usize) -> Result<usize, Failure> {
        let index = usize::try_from(self.long()?).ok().filter(|index| *index < count);
        index.ok_or((Reason::TypeMismatch, otherwise))
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Failure> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err((Reason::TypeMismatch, "a boolean is neither 0 nor 1")),
        }
    }

    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Failure> {
        self.rest.zigzag()
    }

    #[inline]
    pub(super) fn int(&mut self) -> Result<i32, Failure> {
        i32::try_from(self.long()?).map_err(|_| (Reason::ValueOutOfRange, "an int has more than 32 bits"))
    }

    /// A time of day as whole seconds and microseconds.
    pub(super) fn time(&mut self, per_second: i64, bits_32: bool) -> Result<(i64, i64), Failure> {
        let value = if bits_32 { i64::from(self.int()?) } else { self.long()? };
        let seconds = value.div_euclid(per_second);
        if !(0..86_400).contains(&seconds) {
            return Err((Reason::ValueOutOfRange, "a time of day lies outside the day"));
        }
        Ok((seconds, value.rem_euclid(per_second) * 1_000_000 / per_second))
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Failure> {
        let len = self.long()?;
        self.take(usize::try_from(len).map_err(|_| (Reason::TypeMismatch, "a length is negative"))?)
    }

    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes()?).map_err(|_| (Reason::TypeMismatch, "a string is not UTF-8"))
    }

    /// Calls `read` for each element of an array or map.
    pub(super) fn blocks(&mut self, mut read: impl FnMut(&mut Self) -> Result<(), Failure>) -> Result<(), Failure> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                count = count.checked_neg().ok_or((Reason::TypeMismatch, "a block has no count"))?;
                self.long()?; // The block's size in bytes, for readers that pass over it whole.
            }
            for _ in 0..count {
                let before = self.rest.len();
                read(self)?;
                self.empty += u32::from(self.rest.len() == before);
                if self.empty > EMPTY_ELEMENTS_MAX {
                    return Err((Reason::TooLarge, "the record has too many elements without bytes"));
                }
            }
        }
    }
}
