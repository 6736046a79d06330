//! Iceberg tables: one storage stack, catalogs, schema, files, and the fenced commit.

pub mod catalog;
pub mod storage;
