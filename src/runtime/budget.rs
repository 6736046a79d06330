//! Byte budgets: a number of bytes that may be in memory at once, handed out as permits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A bound in bytes that several holders share.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: &'static str,
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Permit {
    inner: Arc<Inner>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes; `name` is its label in metrics.
    #[must_use]
    pub fn new(name: &'static str, limit: usize) -> Self {
        Self { inner: Arc::new(Inner { name, limit, used: AtomicUsize::new(0), freed: Notify::new() }) }
    }

    /// Its label in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.inner.name
    }

    /// The bound.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.inner.limit
    }

    /// Bytes out now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// True while another piece may be taken. One piece may overshoot the bound, so that a record larger than the
    /// whole budget still passes, alone.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.used() < self.inner.limit
    }

    /// Takes `bytes` whatever is left; the caller has asked [`Budget::has_room`] or waited.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Permit {
        self.inner.used.fetch_add(bytes, Ordering::Relaxed);
        Permit { inner: Arc::clone(&self.inner), bytes }
    }

    /// Waits until there is room, then takes `bytes`.
    pub async fn acquire(&self, bytes: usize) -> Permit {
        loop {
            let freed = self.inner.freed.notified();
            if self.has_room() {
                return self.take(bytes);
            }
            freed.await;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.inner.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_budget_waits_for_a_drop() {
        let budget = Budget::new("test", 10);
        let first = budget.take(12);
        assert!(!budget.has_room());
        let waiting = {
            let budget = budget.clone();
            async move { budget.acquire(3).await }
        };
        let (_permit, ()) = tokio::join!(waiting, async { drop(first) });
        assert_eq!(budget.used(), 3);
    }
}
