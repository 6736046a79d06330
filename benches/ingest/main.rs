//! Measures ingestion against a real broker and registry, each figure as a ratio within one run. Not a timed test:
//! machines are noisy, and CPU-seconds are steadier than seconds.
//!
//! `cargo bench --bench ingest [-- NAME…]` with NAME among: throughput memory commits start freshness topics
//! change.
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
#![allow(clippy::unchecked_time_subtraction, clippy::zombie_processes, reason = "times go forward; wait4 waits")]

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
#[path = "../../tests/it/verify.rs"]
mod verify;
#[path = "../../tests/it/wait.rs"]
mod wait;

mod change;
mod commits;
mod freshness;
mod measure;
mod memory;
mod orders;
mod start;
mod throughput;
mod topics;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let benches: [(&str, fn()); 7] = [
        ("throughput", throughput::run),
        ("memory", memory::run),
        ("commits", commits::run),
        ("start", start::run),
        ("freshness", freshness::run),
        ("topics", topics::run),
        ("change", change::run),
    ];
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            bench();
        }
    }
}
