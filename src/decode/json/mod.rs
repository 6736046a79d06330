//! JSON, with a JSON Schema or without, decoded in one pass straight into the table's columns.

mod compile;
mod cursor;
mod documents;
pub mod infer;
mod map;
pub mod mapping;
mod number;
pub mod program;
mod read;
mod reader;
mod rescue;
pub mod schema;
mod temporal;
#[cfg(test)]
mod tests;
mod trim;
mod union;

pub use crate::model::schema::RESCUED;
