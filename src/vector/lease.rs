//! The right to write an index: one process has it, renews it while it lives, and gives it back where it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::Result;
use crate::ports::Leases;
use crate::runtime::clock::Clock;

/// How long the lease on an index lasts that is not renewed.
const LEASE: Duration = Duration::from_secs(10);

/// The right to write an index.
#[derive(Clone)]
pub(super) struct Lease {
    name: String,
    owner: String,
    is_held: Arc<AtomicBool>,
    leases: Arc<dyn Leases>,
    clock: Clock,
}

impl Lease {
    /// The lease `name`, for an owner of its own, not taken yet.
    pub(super) fn new(name: String, leases: Arc<dyn Leases>, clock: Clock) -> Self {
        Self { name, owner: clock.fresh_id().to_string(), is_held: Arc::default(), leases, clock }
    }

    /// Takes or renews it; false while another owner has it.
    pub(super) async fn take(&self) -> Result<bool> {
        let is_held = self.leases.take(&self.name, &self.owner, LEASE).await?;
        self.is_held.store(is_held, Ordering::Relaxed);
        Ok(is_held)
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Renews it for as long as it is held. One that cannot be renewed is lost, as far as this process knows.
    pub(super) async fn keep(&self) -> Result<()> {
        loop {
            self.clock.sleep(LEASE / 4).await;
            if self.is_held() && !matches!(self.clock.timeout(LEASE / 4, self.take()).await, Some(Ok(true))) {
                self.is_held.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Gives it back. Where that fails it runs out by itself.
    pub(super) async fn release(&self) {
        if self.is_held() {
            let _ = self.clock.timeout(LEASE / 4, self.leases.take(&self.name, &self.owner, Duration::ZERO)).await;
        }
    }
}
