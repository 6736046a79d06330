//! What decoding makes of a raw batch: rows in the table's schema, and the records that could not be rows.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::ids::{Attempt, TopicPartition};
use super::offsets::NextOffset;
use super::raw::RawRecord;
use super::schema::TableSchema;

/// One raw batch, decided: each of its records is a row, a reject or was skipped.
#[derive(Debug)]
pub struct DecodedBatch {
    /// Where the records come from.
    pub source: TopicPartition,
    /// The reading that they belong to.
    pub attempt: Attempt,
    /// The position before the batch.
    pub first: NextOffset,
    /// The position behind it.
    pub next: NextOffset,
    /// Epoch of the last record's leader.
    pub leader_epoch: Option<i32>,
    /// Timestamp of the newest record, milliseconds since the epoch.
    pub newest_ms: Option<i64>,
    /// How often its topic was declared made anew: part of each record's identity.
    pub incarnation: i32,
    /// The table schema that the rows are in.
    pub schema: Arc<TableSchema>,
    /// Rows in offset order.
    pub rows: RecordBatch,
    /// Records that cannot be rows, in offset order.
    pub rejects: Vec<Reject>,
    /// Offsets of records that the table's filter leaves out, ascending.
    pub filtered: Vec<i64>,
}

/// A record that cannot be a row, with all that a dead letter holds of it.
#[derive(Debug, Clone)]
pub struct Reject {
    /// Why.
    pub reason: Reason,
    /// The detail in words; never any of the record's values.
    pub message: String,
    /// Position and sizes.
    pub record: RawRecord,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers in order.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Why a record cannot be a row: the closed list that metrics, dead letters and documents share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The registry answered that it knows no schema with the record's id.
    UnknownSchemaId,
    /// The first byte is not the wire format's magic byte.
    BadMagicByte,
    /// The bytes end before the schema does, or go on behind it.
    Truncated,
    /// A value is not of the type that its place demands.
    TypeMismatch,
    /// The record's schema cannot be brought into the table's.
    IncompatibleSchema,
    /// A value lies outside what the column can hold.
    ValueOutOfRange,
    /// No value, where `on_tombstone: dead_letter` or there is no key either.
    NullValue,
    /// Larger than a record may be.
    TooLarge,
    /// The table's filter is neither true nor false of it.
    FilterUndecided,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::UnknownSchemaId,
        Self::BadMagicByte,
        Self::Truncated,
        Self::TypeMismatch,
        Self::IncompatibleSchema,
        Self::ValueOutOfRange,
        Self::NullValue,
        Self::TooLarge,
        Self::FilterUndecided,
    ];

    /// The name in dead letters, metrics and documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSchemaId => "unknown_schema_id",
            Self::BadMagicByte => "bad_magic_byte",
            Self::Truncated => "truncated",
            Self::TypeMismatch => "type_mismatch",
            Self::IncompatibleSchema => "incompatible_schema",
            Self::ValueOutOfRange => "value_out_of_range",
            Self::NullValue => "null_value",
            Self::TooLarge => "too_large",
            Self::FilterUndecided => "filter_undecided",
        }
    }
}
