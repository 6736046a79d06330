//! Iceberg tables: one storage stack, catalogs, schema, files, and the fenced commit.

pub mod catalog;
mod commit;
mod encode;
mod manifests;
pub mod progress;
pub mod schema;
pub mod storage;
mod tables;
mod writer;

pub use tables::{IcebergLake, LakeOptions};
