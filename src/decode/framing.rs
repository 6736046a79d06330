//! How a record names its schema: Confluent's wire format before the payload, or the same in a header.

use std::borrow::Cow;

use super::layout::Format;
use crate::model::decoded::Reason;
use crate::model::raw::Headers;

/// Bytes before the payload in Confluent's wire format: magic byte and schema id.
const WIRE_PREFIX: usize = 5;
/// Headers that name the schema instead (Confluent's `HeaderSchemaIdSerializer`).
const KEY_HEADER: &[u8] = b"__key_schema_id";
const VALUE_HEADER: &[u8] = b"__value_schema_id";

pub(super) type Failure = (Reason, Cow<'static, str>);

/// What names a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchemaKey {
    /// The registry's id.
    Id(u32),
    /// The registry's globally unique id.
    Guid(u128),
    /// The configuration gives it for keys.
    OfKeys,
    /// The configuration gives it for values.
    OfValues,
}

/// Shown as an operator would look for it.
impl std::fmt::Display for SchemaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "schema {id}"),
            Self::Guid(guid) => write!(f, "schema {}", uuid::Uuid::from_u128(*guid)),
            Self::OfKeys => f.write_str("the schema given for keys"),
            Self::OfValues => f.write_str("the schema given for values"),
        }
    }
}

/// The side of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Key,
    Value,
}

/// A schema's name and where the payload begins; where a header names it, what stands behind the name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framed<'a> {
    pub(super) key: SchemaKey,
    pub(super) start: usize,
    /// Where Protobuf's message indexes stand, if they are not before the payload.
    pub(super) behind: Option<&'a [u8]>,
}

/// The schema id in Confluent's wire format, where the bytes begin like it.
#[must_use]
pub fn wire_schema_id(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// How one side of a record names its schema, by the format that it has; `None` where that names none.
pub(super) fn framed<'a>(
    format: Format,
    which: Which,
    bytes: &[u8],
    headers: Headers<'a>,
) -> Result<Option<Framed<'a>>, Failure> {
    let key = match (format, which) {
        (Format::Given, Which::Key) => SchemaKey::OfKeys,
        (Format::Given, Which::Value) => SchemaKey::OfValues,
        (Format::Registry, _) => return by_registry(which, bytes, headers).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(Framed { key, start: 0, behind: None }))
}

fn by_registry<'a>(which: Which, bytes: &[u8], headers: Headers<'a>) -> Result<Framed<'a>, Failure> {
    let name = if which == Which::Key { KEY_HEADER } else { VALUE_HEADER };
    // The last one counts, as for Confluent's deserializers: whoever passes a record on may have added theirs.
    let header = headers.filter(|(key, _)| *key == name).last().and_then(|(_, value)| value);
    match header {
        Some([1, rest @ ..]) if rest.len() >= 16 => {
            let (guid, behind) = rest.split_at(16);
            let guid = guid.iter().fold(0, |all: u128, byte| all << 8 | u128::from(*byte));
            return Ok(Framed { key: SchemaKey::Guid(guid), start: 0, behind: Some(behind) });
        }
        Some(id) => {
            if let (Some(id), Some(behind)) = (wire_schema_id(id), id.get(WIRE_PREFIX..)) {
                return Ok(Framed { key: SchemaKey::Id(id), start: 0, behind: Some(behind) });
            }
            return Err((Reason::BadMagicByte, "the schema id header is neither an id nor a GUID".into()));
        }
        None => {}
    }
    match wire_schema_id(bytes) {
        Some(id) => Ok(Framed { key: SchemaKey::Id(id), start: WIRE_PREFIX, behind: None }),
        None if bytes.len() < WIRE_PREFIX && bytes.first().is_none_or(|magic| *magic == 0) => {
            Err((Reason::Truncated, "shorter than the wire format's prefix".into()))
        }
        None => Err((Reason::BadMagicByte, "the first byte is not 0".into())),
    }
}
