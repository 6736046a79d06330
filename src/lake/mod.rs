//! Iceberg tables: one storage stack, catalogs, schema, files, and the fenced commit.

pub mod alter;
pub mod catalog;
mod commit;
mod derived;
mod encode;
mod identity;
pub mod inspect;
pub mod letters;
mod literal;
pub mod maintain;
mod manifests;
pub mod progress;
mod read;
pub mod rehearsal;
mod resume;
mod rows;
pub mod schema;
mod shape;
pub mod storage;
mod tables;
mod view;
mod writer;

pub use resume::{ResumeFrom, Resumed};
pub use tables::{IcebergLake, LakeOptions};
