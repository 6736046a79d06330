//! Writes Avro's binary encoding straight into bytes, with the registry's framing in front. Knows no schemas: the
//! caller writes the fields in the schema's order.

/// One value in the making.
#[derive(Debug)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// A value under the schema with this id: magic byte 0 and the id, big endian.
    pub(super) fn framed(schema_id: u32) -> Self {
        let mut bytes = Vec::with_capacity(192);
        bytes.push(0);
        bytes.extend_from_slice(&schema_id.to_be_bytes());
        Self { bytes }
    }

    /// `int` and `long`, and the index of an enum's symbol or of a union's branch.
    pub(super) fn long(&mut self, value: i64) -> &mut Self {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
        self
    }

    pub(super) fn boolean(&mut self, value: bool) -> &mut Self {
        self.bytes.push(u8::from(value));
        self
    }

    pub(super) fn double(&mut self, value: f64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn string(&mut self, value: &str) -> &mut Self {
        self.long(value.len().cast_signed() as i64);
        self.bytes.extend_from_slice(value.as_bytes());
        self
    }

    /// A `decimal` on `bytes`: the unscaled value in the shortest two's complement form, big endian.
    pub(super) fn decimal(&mut self, unscaled: i64) -> &mut Self {
        let bytes = unscaled.to_be_bytes();
        let sign = if unscaled < 0 { 0xff } else { 0 };
        let padding = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
        self.long((bytes.len() - padding).cast_signed() as i64);
        self.bytes.extend_from_slice(&bytes[padding..]);
        self
    }

    /// `["null", T]`: the branch, then the value if there is one.
    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.long(i64::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_as_short_as_they_can_be() {
        fn check(unscaled: i64, expected: &[u8]) {
            assert_eq!(Encoder { bytes: Vec::new() }.decimal(unscaled).finish()[1..], *expected, "{unscaled}");
        }
        check(0, &[0]);
        check(-1, &[0xff]);
        check(127, &[0x7f]);
        check(128, &[0, 0x80]);
        check(-128, &[0x80]);
        check(-129, &[0xff, 0x7f]);
        check(1999, &[0x07, 0xcf]);
        check(i64::MIN, &i64::MIN.to_be_bytes());
    }
}
