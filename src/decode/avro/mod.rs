//! Avro in Confluent framing, decoded by a compiled program straight into the table's columns.

mod cursor;
pub mod mapping;
pub mod program;
pub mod schema;
