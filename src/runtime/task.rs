//! Spawning: each kind of task declares what its failure means.

use std::future::Future;

use tokio::task::JoinHandle;

use crate::error::{Error, Result};

/// What a task is for, and so what its end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// One table's driver. An error stops that table; others go on.
    Table,
    /// A server on the listener. An error is logged; the service goes on without it only if asked to stop.
    Server,
    /// Upkeep that may be late: metrics, status. An error is logged.
    Background,
}

impl TaskKind {
    /// Its name in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Server => "server",
            Self::Background => "background",
        }
    }
}

/// Runs `future` on its own. Its error is logged here, once; its result can be waited for.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<F>(kind: TaskKind, name: impl Into<String>, future: F) -> Task
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let name = name.into();
    let label = name.clone();
    let handle = tokio::spawn(async move {
        let result = future.await;
        if let Err(error) = &result {
            tracing::error!(task = kind.as_str(), name = %label, error = %error.chain(), "task ended with an error");
        }
        result
    });
    Task { kind, name, handle }
}

/// A running task.
#[derive(Debug)]
pub struct Task {
    /// What it is for.
    pub kind: TaskKind,
    /// Its name in logs.
    pub name: String,
    handle: JoinHandle<Result<()>>,
}

impl Task {
    /// True once it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Ends it where it waits.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The task's own error; `Bug` where it panicked.
    pub async fn join(&mut self) -> Result<()> {
        match (&mut self.handle).await {
            Ok(result) => result,
            Err(error) if error.is_cancelled() => Ok(()),
            Err(_) => Err(Error::bug(format!("task `{}` panicked", self.name))),
        }
    }
}
