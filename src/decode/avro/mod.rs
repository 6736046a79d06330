//! Avro in Confluent framing, decoded by a compiled program straight into the table's columns.

mod choice;
mod compile;
mod cursor;
mod default;
mod json;
mod logical;
pub mod mapping;
pub mod names;
pub mod program;
pub mod schema;
mod skip;
