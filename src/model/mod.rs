//! The nouns that everything shares: offsets, ledger, batches, schema, files. Values only: no I/O, no clock, no policy.

pub mod conform;
pub mod constant;
pub mod decoded;
pub mod file;
pub mod ids;
pub mod ledger;
pub mod mapping;
pub mod names;
pub mod offsets;
pub mod projection;
pub mod raw;
pub mod record;
pub mod schema;
pub mod template;
pub mod version;
