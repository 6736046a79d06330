//! The integration tests: the real binary against a real Kafka, schema registry, Postgres and S3, tables read back by
//! DuckDB, PyIceberg, Spark and Trino. One binary, since each further one links everything again.
//!
//! `make test` sets up what they need. Services start with the first test that wants them and end with this process,
//! however it ends. `FRAZIL_TEST_KEEP=1` leaves their folders, logs included.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "everything here is a test")]
#![allow(
    clippy::float_cmp,
    clippy::unused_self,
    clippy::format_collect,
    reason = "exact values; a harness; short lists"
)]
#![allow(clippy::large_stack_arrays, clippy::redundant_closure_for_method_calls, reason = "tests that read plainly")]
#![allow(clippy::disallowed_methods, reason = "tests watch real processes by the machine's own clock")]
#![allow(unreachable_pub, dead_code, reason = "a harness for all tests, of which each build may use a part")]

mod avro;
mod bad_input;
mod broker;
mod crash;
mod dead_letters;
mod demo;
mod evolution;
mod existing;
mod faults;
mod format3;
mod formats;
mod index_more;
mod intercept;
mod kafka;
mod lake;
mod letter_topic;
mod maintain;
mod mcp;
mod mcp_clients;
mod partitions;
mod process;
mod recovery;
mod renames;
mod rest_catalog;
mod retrieval;
mod routing;
mod rows;
mod seam;
mod search;
mod security;
mod selftest;
mod services;
mod settings;
mod smoke;
mod sql;
mod sqllogic;
mod traffic;
mod transactions;
mod types;
mod verify;
mod wait;
