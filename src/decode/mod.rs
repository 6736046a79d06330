//! Bytes in, Arrow out: a raw batch becomes rows of the table and records that cannot be rows. No I/O.

pub mod avro;
pub mod columns;
pub mod dead_letters;
pub mod layout;
pub mod metadata;
mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Decoder, Decoding, SchemaUse, Sides, cut_at_reject, wire_schema_id};
