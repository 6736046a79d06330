//! Waiting for something to become true, and for futures. Nothing here sleeps for a fixed time and hopes.

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    // The HTTP client is built without a provider of cryptography, so that the process chooses one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// Runs a future to its end on the tests' runtime.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// Polls until `condition` gives a value; panics with `what` once the deadline has passed.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "after {deadline:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
