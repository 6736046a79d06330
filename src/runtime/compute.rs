//! Threads for work that keeps a core busy: decoding, encoding, compression.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// A pool of compute threads, or the calling thread where results must come in a fixed order.
#[derive(Debug, Clone)]
pub struct Compute {
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Compute {
    /// A pool of `threads`.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no more threads.
    pub fn pool(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("compute-{n}"))
            .build()
            .map_err(|e| Error::unavailable(format!("start {threads} compute threads")).with_source(e))?;
        Ok(Self { pool: Some(Arc::new(pool)) })
    }

    /// A pool of `threads` that other threads go before: the system runs them where a core would idle, and a little
    /// beside what keeps all cores busy. Where the system has no such priorities it is a pool like any other.
    ///
    /// # Errors
    /// As [`Compute::pool`].
    pub fn background(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|n| format!("background-{n}"))
            .start_handler(|_| yield_to_others())
            .build()
            .map_err(|e| Error::unavailable(format!("start {threads} background threads")).with_source(e))?;
        Ok(Self { pool: Some(Arc::new(pool)) })
    }

    /// Runs everything at once on the caller's thread: for simulations.
    #[must_use]
    pub fn inline() -> Self {
        Self { pool: None }
    }

    /// Threads of the pool; 1 where it runs inline.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Runs `work` on the pool. Work on one pool may use rayon's parallel iterators inside.
    ///
    /// # Errors
    /// `Bug` where `work` panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let Some(pool) = &self.pool else { return Ok(work()) };
        let (done, result) = oneshot::channel();
        pool.spawn(move || {
            // The pool ends the process where a panic reaches it; a sender that is dropped says the same.
            if let Ok(value) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = done.send(value);
            }
        });
        result.await.map_err(|_| Error::bug("a compute task panicked"))
    }
}

/// The least weight among the system's threads, for the calling thread alone. Lowering it needs no right, and where it
/// fails all the same the thread is one like the others.
#[cfg(target_os = "linux")]
fn yield_to_others() {
    const LEAST: i32 = 19;
    if let Err(error) = rustix::process::setpriority_process(None, LEAST) {
        tracing::warn!(%error, "background threads have the priority of all others");
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others() {}
