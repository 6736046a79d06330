//! Frazil turns Kafka topics into Apache Iceberg tables, exactly once.
//!
//! Reading order, as a record travels: [`kafka`] polls bytes into arenas, [`decode`] makes Arrow of them,
//! [`pipeline`] decides what is written and committed when, [`lake`] writes files and commits them together with the
//! ledger of offsets. What was committed, and what comes behind it, meets in [`seam`]; `query` and `vector` read there.
//! [`ports`] has the contracts between them and [`model`] the values that they exchange.
//! `app` puts it together; [`config`] and `cli` are what a user types.
//!
//! The core (`model`, `decode`, `pipeline` without its driver) does no I/O: it builds and tests with
//! `--no-default-features`. Feature gates live in this file only.

#[cfg(all(feature = "kafka", feature = "lake", feature = "query", feature = "vector", feature = "mcp"))]
pub mod app;
#[cfg(all(feature = "kafka", feature = "lake", feature = "query", feature = "vector", feature = "mcp"))]
pub mod cli;
pub mod config;
pub mod decode;
#[cfg(all(feature = "kafka", feature = "lake", feature = "query", feature = "vector", feature = "mcp"))]
pub mod demo;
pub mod error;
#[cfg(feature = "http")]
pub mod http;
pub mod invariant;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "lake")]
pub mod lake;
#[cfg(feature = "mcp")]
pub mod mcp;
pub mod model;
pub mod pipeline;
pub mod ports;
#[cfg(feature = "query")]
pub mod query;
pub mod registry;
#[cfg(feature = "http")]
pub mod rest_catalog;
pub mod route;
pub mod rule;
pub mod runtime;
pub mod seam;
pub mod telemetry;
#[cfg(all(feature = "lake", any(test, feature = "testing")))]
pub mod testing;
#[cfg(test)]
mod tidy;
#[cfg(feature = "vector")]
pub mod vector;
