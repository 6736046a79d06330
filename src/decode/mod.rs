//! Bytes in, Arrow out: a raw batch becomes rows of the table and records that cannot be rows. No I/O.

pub mod adoption;
pub mod avro;
pub mod columns;
mod combo;
mod constant;
pub mod dead_letters;
mod decimal;
pub mod evolution;
mod filter;
mod framing;
mod identity;
pub mod json;
pub mod layout;
pub mod mapping;
pub mod metadata;
pub mod naming;
mod plan;
pub mod protobuf;
mod rest;
pub mod schema;
#[cfg(test)]
mod tests;

use crate::model::decoded::Reason;

/// Why one record's bytes are not what its schema says. The text shows none of them.
type Failure = (Reason, &'static str);

pub use framing::{SchemaKey, wire_schema_id};
pub use plan::{Decoder, Decoding, Needs, SchemaUse, Sides, cut_at_reject};
pub use protobuf::framing::MessagePath;
