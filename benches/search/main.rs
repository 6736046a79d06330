//! Measures the index and the search; each figure within one run. Not a timed test.
//!
//! `cargo bench --bench search [-- NAME…]` with NAME among: fill findable. `FRAZIL_BENCH_RECORDS` sets how many texts are
//! indexed (1,000,000).
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
#[path = "../../tests/it/process.rs"]
mod process;
#[path = "../../tests/it/services.rs"]
mod services;
#[path = "../../tests/it/wait.rs"]
mod wait;

mod fill;
mod findable;
mod texts;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let benches: [(&str, fn()); 2] = [("fill", fill::run), ("findable", findable::run)];
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            bench();
        }
    }
}
