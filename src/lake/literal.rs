//! Iceberg's values in their single-value binary form (spec, appendix D), and back: defaults of columns in metadata.

use iceberg::spec::{Datum, Literal, PrimitiveLiteral, Type};

use super::encode::minimal;
use super::storage::from_iceberg;
use crate::error::{Error, Result};

/// A value of a primitive type in binary form; `None` for any other.
pub(super) fn bytes_of(literal: &Literal) -> Option<Vec<u8>> {
    let Literal::Primitive(value) = literal else { return None };
    Some(match value {
        PrimitiveLiteral::Boolean(value) => vec![u8::from(*value)],
        PrimitiveLiteral::Int(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::Long(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::Float(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::Double(value) => value.to_le_bytes().to_vec(),
        PrimitiveLiteral::String(value) => value.as_bytes().to_vec(),
        PrimitiveLiteral::Binary(value) => value.clone(),
        PrimitiveLiteral::Int128(value) => minimal(value.to_be_bytes().to_vec()),
        PrimitiveLiteral::UInt128(value) => value.to_be_bytes().to_vec(),
        PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => return None,
    })
}

/// The value of type `kind` that `bytes` are.
///
/// # Errors
/// `Bug` where they are none.
pub(super) fn literal_of(bytes: &[u8], kind: &Type) -> Result<Literal> {
    let Type::Primitive(kind) = kind else { return Err(Error::bug("a default of a nested type")) };
    let datum = Datum::try_from_bytes(bytes, kind.clone()).map_err(|e| from_iceberg("read a default", e))?;
    Ok(Literal::Primitive(datum.literal().clone()))
}

#[cfg(test)]
mod tests {
    use iceberg::spec::PrimitiveType;

    use super::*;

    #[test]
    fn values_come_back_from_bytes_and_from_metadata() {
        let check = |kind: PrimitiveType, bytes: &[u8], json: serde_json::Value| {
            let kind = Type::Primitive(kind);
            let literal = literal_of(bytes, &kind).unwrap();
            assert_eq!(bytes_of(&literal).as_deref(), Some(bytes), "{kind}");
            // As table metadata has them (spec, appendix C).
            assert_eq!(literal.clone().try_into_json(&kind).unwrap(), json);
            assert_eq!(Literal::try_from_json(json, &kind).unwrap(), Some(literal));
        };
        let decimal = |precision, scale| PrimitiveType::Decimal { precision, scale };
        check(PrimitiveType::Boolean, &[1], true.into());
        check(PrimitiveType::Int, &(-7_i32).to_le_bytes(), (-7).into());
        check(PrimitiveType::Long, &i64::MAX.to_le_bytes(), i64::MAX.into());
        check(PrimitiveType::Double, &0.5_f64.to_le_bytes(), 0.5.into());
        check(PrimitiveType::Date, &19_782_i32.to_le_bytes(), "2024-02-29".into());
        check(PrimitiveType::Timestamptz, &1_500_000_i64.to_le_bytes(), "1970-01-01T00:00:01.500+00:00".into());
        check(PrimitiveType::String, "ß".as_bytes(), "ß".into());
        check(PrimitiveType::Binary, &[0, 0xff], "00ff".into());
        check(PrimitiveType::Fixed(2), &[1, 2], "0102".into());
        check(PrimitiveType::Uuid, &[0x11; 16], "11111111-1111-1111-1111-111111111111".into());
        check(decimal(4, 2), &[0xff, 0x38], "-2.00".into());
        // As Rust's decimals are written; Java and Python read it as the same number.
        check(decimal(38, 10), &[1], "1E-10".into());
        check(decimal(9, 0), &[0x0f, 0x42, 0x40], "1000000".into());
        assert_eq!(bytes_of(&Literal::List(Vec::new())), None);
    }
}
