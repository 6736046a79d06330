//! JSON text (RFC 8259) read value by value from one record's bytes. What the values are for is not known here.

use super::number;
use crate::decode::Failure;
use crate::model::decoded::Reason;

/// Arrays and objects inside each other that one record may have.
const DEPTH_MAX: u8 = 128;

/// Why reading stops; one byte, so that results stay in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes are no JSON text.
    NotJson,
    /// They end inside the text.
    Short,
    /// They go on behind it.
    Trailing,
    /// Deeper than [`DEPTH_MAX`].
    Deep,
    /// A value is not of its column's type.
    Misfit,
    /// A number lies outside what its column holds.
    OutOfRange,
    /// Null or nothing for a column that is required.
    Required,
}

impl Stop {
    /// True where the text is sound so far and only a column cannot take the value.
    pub(super) fn is_misfit(self) -> bool {
        matches!(self, Self::Misfit | Self::OutOfRange | Self::Required)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::NotJson => (Reason::TypeMismatch, "the text is not JSON"),
            Stop::Short => (Reason::Truncated, "bytes end inside the record"),
            Stop::Trailing => (Reason::Truncated, "bytes go on behind the record"),
            Stop::Deep => (Reason::TooLarge, "the record has too many arrays and objects inside each other"),
            Stop::Misfit => (Reason::TypeMismatch, "a value is not of its column's type"),
            Stop::OutOfRange => (Reason::ValueOutOfRange, "a number lies outside what its column holds"),
            Stop::Required => (Reason::TypeMismatch, "a required column has no value"),
        }
    }
}

/// What is left of a record's text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u8,
}

/// The way back to a value. A copy of the whole cursor would be one, were it not that a processor waits for the writes
/// of single fields before it reads them in one piece.
pub(super) type Position = (usize, u8);

/// A string's inside as it is written; its escapes are sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    /// What stands between the quotes.
    pub(super) raw: &'a [u8],
    /// True where there is a backslash in it.
    pub(super) escaped: bool,
}

impl<'a> Cursor<'a> {
    /// The beginning of `bytes`, which are checked to be UTF-8 here, once.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Stop> {
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(Self { bytes, at: 0, depth: 0 }),
            Err(error) => Err(if error.error_len().is_none() { Stop::Short } else { Stop::NotJson }),
        }
    }

    /// The first byte of what comes next, behind white space.
    #[inline]
    pub(super) fn peek(&mut self) -> Result<u8, Stop> {
        loop {
            match self.bytes.get(self.at) {
                Some(byte) if *byte > b' ' => return Ok(*byte),
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(_) => return Err(Stop::NotJson),
                None => return Err(Stop::Short),
            }
        }
    }

    /// Nothing but white space may be left.
    pub(super) fn end(&mut self) -> Result<(), Stop> {
        match self.peek() {
            Err(Stop::Short) => Ok(()),
            _ => Err(Stop::Trailing),
        }
    }

    /// Passes over `text` if it is exactly what comes next.
    #[inline]
    pub(super) fn eat(&mut self, text: &[u8]) -> bool {
        let here = self.bytes[self.at..].starts_with(text) && !text.is_empty();
        self.at += if here { text.len() } else { 0 };
        here
    }

    #[inline]
    pub(super) fn position(&self) -> Position {
        (self.at, self.depth)
    }

    pub(super) fn go_back(&mut self, (at, depth): Position) {
        (self.at, self.depth) = (at, depth);
    }

    /// What was written from `start` up to here.
    pub(super) fn since(&self, (start, _): Position) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The `len` bytes from `start` on, which have been read.
    #[inline]
    pub(super) fn read(&self, (start, _): Position, len: usize) -> &'a [u8] {
        &self.bytes[start..start + len]
    }

    /// Passes over the bracket that opens an array or an object.
    #[inline]
    pub(super) fn open(&mut self, bracket: u8) -> Result<(), Stop> {
        if self.peek()? != bracket {
            return Err(self.other());
        }
        if self.depth == DEPTH_MAX {
            return Err(Stop::Deep);
        }
        self.at += 1;
        self.depth += 1;
        Ok(())
    }

    /// True where one more element or member comes; passes over the comma before it, or over the closing bracket.
    #[inline]
    pub(super) fn more(&mut self, close: u8, first: bool) -> Result<bool, Stop> {
        let byte = self.peek()?;
        if byte == close {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if !first {
            if byte != b',' {
                return Err(Stop::NotJson);
            }
            self.at += 1;
            self.peek()?;
        }
        Ok(true)
    }

    /// A member's name and the colon behind it.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Text<'a>, Stop> {
        if self.peek()? != b'"' {
            return Err(Stop::NotJson);
        }
        let key = self.text()?;
        if self.peek()? != b':' {
            return Err(Stop::NotJson);
        }
        self.at += 1;
        Ok(key)
    }

    /// The string that is the next value.
    #[inline]
    pub(super) fn text(&mut self) -> Result<Text<'a>, Stop> {
        if self.peek()? != b'"' {
            return Err(self.other());
        }
        let start = self.at + 1;
        let escaped = self.pass_text(start)?;
        Ok(Text { raw: &self.bytes[start..self.at - 1], escaped })
    }

    /// Passes over the string whose inside begins at `start`, and says whether it has escapes.
    fn pass_text(&mut self, start: usize) -> Result<bool, Stop> {
        let mut at = special(self.bytes, start);
        let mut escaped = false;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => at += self.escape(at)?,
                Some(_) => return Err(Stop::NotJson),
                None => return Err(Stop::Short),
            }
            escaped = true;
            at = special(self.bytes, at);
        }
        self.at = at + 1;
        Ok(escaped)
    }

    /// Bytes of the escape at `at`. Half a surrogate pair is no character, and so no text that a column could hold.
    fn escape(&self, at: usize) -> Result<usize, Stop> {
        let unit = |at: usize| {
            let digits = self.bytes.get(at..at + 4).ok_or(Stop::Short)?;
            code_unit(digits).ok_or(Stop::NotJson)
        };
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
            Some(b'u') => match unit(at + 2)? {
                0xd800..0xdc00 => {
                    let pair = self.bytes.get(at + 6..at + 8).ok_or(Stop::Short)? == b"\\u";
                    if pair && (0xdc00..0xe000).contains(&unit(at + 8)?) { Ok(12) } else { Err(Stop::NotJson) }
                }
                0xdc00..0xe000 => Err(Stop::NotJson),
                _ => Ok(6),
            },
            Some(_) => Err(Stop::NotJson),
            None => Err(Stop::Short),
        }
    }

    /// Passes over `word` (`null`, `true`, `false`), of which the first letter is known to come next.
    #[inline]
    pub(super) fn word(&mut self, word: &[u8]) -> Result<(), Stop> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(if word.starts_with(rest) { Stop::Short } else { Stop::NotJson })
    }

    /// The boolean that is the next value.
    pub(super) fn boolean(&mut self) -> Result<bool, Stop> {
        match self.peek()? {
            b't' => self.word(b"true").map(|()| true),
            b'f' => self.word(b"false").map(|()| false),
            _ => Err(self.other()),
        }
    }

    /// The number that is the next value, as it is written.
    #[inline]
    pub(super) fn number(&mut self) -> Result<&'a [u8], Stop> {
        if !matches!(self.peek()?, b'-' | b'0'..=b'9') {
            return Err(self.other());
        }
        let start = self.at;
        let mut at = start + usize::from(self.bytes[start] == b'-');
        at = if self.bytes.get(at) == Some(&b'0') { at + 1 } else { self.digits(at)? };
        if self.bytes.get(at) == Some(&b'.') {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(at) {
            at += 1 + usize::from(matches!(self.bytes.get(at + 1), Some(b'+' | b'-')));
            at = self.digits(at)?;
        }
        self.at = at;
        Ok(&self.bytes[start..at])
    }

    /// The position behind the digits from `at` on, of which there is at least one.
    #[inline]
    fn digits(&self, at: usize) -> Result<usize, Stop> {
        let rest = self.bytes.get(at..).unwrap_or_default();
        match rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len()) {
            0 => Err(if rest.is_empty() { Stop::Short } else { Stop::NotJson }),
            len => Ok(at + len),
        }
    }

    /// The whole number that is the next value; `1.0` and `1e3` are whole, as JSON Schema has it.
    #[inline]
    pub(super) fn long(&mut self) -> Result<i64, Stop> {
        self.peek()?;
        let rest = &self.bytes[self.at..];
        let sign = usize::from(rest[0] == b'-');
        let digits = &rest[sign..];
        let (mut value, mut len) = (0_i64, 0);
        while let Some(byte @ b'0'..=b'9') = digits.get(len)
            && len < 18
        {
            value = value * 10 + i64::from(byte - b'0');
            len += 1;
        }
        let whole = !matches!(digits.get(len), Some(b'0'..=b'9' | b'.' | b'e' | b'E'));
        if len > 0 && whole && (len == 1 || digits[0] != b'0') {
            self.at += sign + len;
            return Ok(if sign == 1 { -value } else { value });
        }
        number::long(self.number()?)
    }

    /// Passes over the next value, whatever it is, and gives what was written.
    pub(super) fn skip(&mut self) -> Result<&'a [u8], Stop> {
        let first = self.peek()?;
        let start = self.position();
        match first {
            b'"' => drop(self.text()?),
            b'{' => {
                self.open(b'{')?;
                let mut first = true;
                while self.more(b'}', first)? {
                    first = false;
                    self.key()?;
                    self.skip()?;
                }
            }
            b'[' => {
                self.open(b'[')?;
                let mut first = true;
                while self.more(b']', first)? {
                    first = false;
                    self.skip()?;
                }
            }
            b't' | b'f' => drop(self.boolean()?),
            b'n' => self.word(b"null")?,
            _ => drop(self.number()?),
        }
        Ok(self.since(start))
    }

    /// Why the next value is not of the wanted type: it is of another, or it is none.
    #[cold]
    pub(super) fn other(&self) -> Stop {
        match self.bytes.get(self.at) {
            Some(b'"' | b'{' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => Stop::Misfit,
            Some(_) => Stop::NotJson,
            None => Stop::Short,
        }
    }
}

impl Text<'_> {
    /// Hands the text to `sink` piece by piece, escapes resolved.
    pub(super) fn pieces(self, mut sink: impl FnMut(&[u8])) {
        let mut rest = self.raw;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            sink(&rest[..at]);
            let (character, len) = unescaped(&rest[at..]);
            sink(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = rest.get(at + len..).unwrap_or_default();
        }
        sink(rest);
    }

    /// The text itself.
    pub(super) fn to_vec(self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.raw.len());
        self.pieces(|piece| text.extend_from_slice(piece));
        text
    }
}

/// The character that a sound escape stands for, and the escape's bytes.
fn unescaped(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| escape.get(at..at + 4).and_then(code_unit).unwrap_or(0xfffd);
    match escape.get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => match unit(2) {
            high @ 0xd800..0xdc00 => {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (unit(8) & 0x3ff);
                (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
            }
            code => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        },
        Some(other) => (char::from(*other), 2),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// Four hexadecimal digits.
fn code_unit(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// The position of the first quote, backslash or control character from `at` on; the length where there is none.
///
/// Eight bytes at a time: a byte of a word is zero where `word - 0x01… & !word` has its highest bit, and the lowest
/// such bit is never a false one.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5c);
        let zero = (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash);
        let hit = (zero | (word.wrapping_sub(ONES * 0x20) & !word)) & HIGH;
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}
