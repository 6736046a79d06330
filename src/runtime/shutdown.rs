//! Stopping: one signal that everybody listens to.

use tokio_util::sync::CancellationToken;

/// The wish that the process stop, cloned to whoever must hear it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// True once asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until asked.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// A signal that this one triggers, and that can be triggered alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }
}
