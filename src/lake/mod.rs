//! Iceberg tables: one storage stack, catalogs, schema, files, and the fenced commit.

pub mod alter;
pub mod catalog;
mod commit;
mod conform;
mod encode;
pub mod inspect;
pub mod maintain;
mod manifests;
pub mod progress;
mod read;
mod resume;
mod rows;
pub mod schema;
pub mod storage;
mod tables;
mod view;
mod writer;

pub use resume::{ResumeFrom, Resumed};
pub use tables::{IcebergLake, LakeOptions};
