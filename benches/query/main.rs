//! Measures SQL against DuckDB on the very same table, and how soon SQL sees what was produced; each figure within one
//! run. Not a timed test.
//!
//! `cargo bench --bench query [-- NAME…]` with NAME among: scans visible. `FRAZIL_BENCH_RECORDS` sets the table's rows.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints and may fail loudly"
)]
#![allow(clippy::disallowed_methods, reason = "a bench reads the machine's own clock")]
#![allow(
    clippy::cast_precision_loss,
    unreachable_pub,
    dead_code,
    reason = "a bench, over a part of the tests' harness"
)]

#[path = "../../tests/it/avro.rs"]
mod avro;
#[path = "../../tests/it/kafka.rs"]
mod kafka;
#[path = "../../tests/it/lake.rs"]
mod lake;
#[path = "../ingest/orders.rs"]
mod orders;
#[path = "../../tests/it/process.rs"]
mod process;
#[path = "../../tests/it/services.rs"]
mod services;
#[path = "../../tests/it/wait.rs"]
mod wait;

mod scans;
mod visible;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let benches: [(&str, fn()); 2] = [("scans", scans::run), ("visible", visible::run)];
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            bench();
        }
    }
}
