//! A second set of async threads, for work that keeps them busy (queries): ingestion's own never wait for it.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// Threads of their own.
#[derive(Debug)]
pub struct Lane {
    runtime: Option<Runtime>,
}

impl Lane {
    /// Starts `threads` threads called `name`.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no more threads.
    pub fn new(name: &str, threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build();
        let runtime =
            runtime.map_err(|e| Error::unavailable(format!("start {threads} `{name}` threads")).with_source(e))?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs `future` there; it ends when what is given back is dropped.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Running<T> {
        // The runtime is there until `drop`.
        Running(self.runtime.as_ref().map(|runtime| runtime.spawn(future)))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Waiting for the threads would block the async thread that drops.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Work on a lane.
#[derive(Debug)]
pub struct Running<T>(Option<JoinHandle<T>>);

impl<T> Running<T> {
    /// Its result.
    ///
    /// # Errors
    /// `Bug` where it panicked.
    pub async fn result(mut self) -> Result<T> {
        match &mut self.0 {
            Some(handle) => handle.await.map_err(|_| Error::bug("work on a lane panicked")),
            None => Err(Error::bug("work on a lane that has ended")),
        }
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}
