//! Time and fresh ids, injected so that the simulation owns them.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// The process's clock. Under tokio's paused time both readings stand still and move together.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    origin_ms: i64,
    ids: IdSource,
}

#[derive(Debug, Clone)]
enum IdSource {
    Random,
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "made by the simulation only"))]
    Seeded(std::sync::Arc<std::sync::atomic::AtomicU64>),
}

impl Clock {
    /// The machine's clock and random ids.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    #[must_use]
    pub fn system() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), origin_ms: millis(since), ids: IdSource::Random }
    }

    /// A clock that starts at a fixed time and counts ids from `seed`: the same run gives the same times and ids.
    #[cfg(any(test, feature = "testing"))]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    #[must_use]
    pub fn simulated(seed: u64) -> Self {
        let ids = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(seed << 32));
        Self { origin: Instant::now(), origin_ms: 1_700_000_000_000, ids: IdSource::Seeded(ids) }
    }

    /// Monotonic time since the clock was made.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(self.origin)
    }

    /// Milliseconds since the epoch; moves with [`Clock::elapsed`], so it never goes back.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.origin_ms + millis(self.elapsed())
    }

    /// Waits.
    #[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// `future`'s output, or `None` once `limit` has passed.
    #[expect(clippy::disallowed_methods, reason = "the one place that times out")]
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(limit, future).await.ok()
    }

    /// A fresh id, time-ordered outside of simulations.
    #[must_use]
    pub fn fresh_id(&self) -> Uuid {
        match &self.ids {
            IdSource::Random => Uuid::now_v7(),
            IdSource::Seeded(next) => {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Uuid::from_u64_pair(n.rotate_left(32) ^ 0x5eed, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
