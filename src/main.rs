//! Arguments to exit code; everything else is in the library.

use std::process::ExitCode;

/// Returns memory to the system sooner and holds less of it than the system's allocator under many threads.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    frazil::cli::main()
}
