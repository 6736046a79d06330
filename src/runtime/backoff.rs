//! Growing pauses between tries.

use std::time::Duration;

/// Pauses that double from `first` to `most`.
#[derive(Debug, Clone)]
pub struct Backoff {
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first`, doubling up to `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { most, next: first }
    }

    /// For services on a network: 100 ms to 10 s.
    #[must_use]
    pub fn service() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }

    /// The pause before the next try.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}
