//! The nouns that everything shares: offsets, ledger, batches, schema, files. Values only: no I/O, no clock, no policy.

pub mod decoded;
pub mod file;
pub mod ids;
pub mod ledger;
pub mod mapping;
pub mod offsets;
pub mod raw;
pub mod record;
pub mod schema;
pub mod template;
pub mod version;
