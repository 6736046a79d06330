//! Arguments to exit code; everything else is in the library.

use std::process::ExitCode;

/// For librdkafka's memory too. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    frazil::cli::main()
}
