//! Protobuf in Confluent framing, decoded by a compiled program straight into the table's columns.

mod compile;
pub mod framing;
mod gather;
mod json;
pub mod mapping;
mod op;
pub mod program;
pub mod schema;
mod source;
#[cfg(test)]
mod tests;
mod value;
mod well_known;
mod wire;
