//! Leases: of several replicas, one does a table's maintenance at a time.
//!
//! They save work and nothing more. What a replica does after its lease has run out is still right: each of its commits
//! is a compare-and-swap on what it was planned for, and only files that no snapshot reaches are deleted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::lake::IcebergLake;
use crate::lake::catalog::Catalog;
use crate::ports::Leases;
use crate::runtime::clock::Clock;

/// How long a lease lasts that is not renewed: what others wait for where its owner was killed.
pub(super) const DURATION: Duration = Duration::from_secs(10);
/// How long to wait for a lease that nobody renews.
pub(super) const ABANDONED: Duration = DURATION.saturating_add(ASK_INTERVAL);
/// How often somebody who waits for a lease asks for it.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// A lease that is held, renewed while work goes on.
pub(in crate::lake) struct Lease {
    catalog: Arc<dyn Catalog>,
    clock: Clock,
    name: String,
    owner: String,
}

impl Lease {
    /// Takes the lease `name`; `None` while another owner holds it.
    pub(super) async fn take(
        catalog: &Arc<dyn Catalog>,
        clock: &Clock,
        name: String,
        owner: &str,
    ) -> Result<Option<Self>> {
        let lease = Self { catalog: Arc::clone(catalog), clock: clock.clone(), name, owner: owner.to_owned() };
        Ok(lease.renew().await?.then_some(lease))
    }

    /// The same, waiting for `patience`: for one of a process that was killed no less than [`ABANDONED`].
    pub(in crate::lake) async fn wait(
        catalog: &Arc<dyn Catalog>,
        clock: &Clock,
        name: &str,
        owner: &str,
        patience: Duration,
    ) -> Result<Option<Self>> {
        let deadline = clock.elapsed() + patience;
        loop {
            let lease = Self::take(catalog, clock, name.to_owned(), owner).await?;
            if lease.is_some() || clock.elapsed() >= deadline {
                return Ok(lease);
            }
            clock.sleep(ASK_INTERVAL).await;
        }
    }

    async fn renew(&self) -> Result<bool> {
        take(&self.catalog, &self.clock, &self.name, &self.owner, DURATION).await
    }

    /// Does `work` and renews meanwhile; a renewal that fails is tried again and ends nothing.
    pub(in crate::lake) async fn hold<T>(&self, work: impl Future<Output = T>) -> T {
        let renewing = async {
            loop {
                self.clock.sleep(DURATION / 3).await;
                if let Err(error) = self.renew().await {
                    tracing::debug!(lease = self.name, error = %error.chain(), "lease not renewed");
                }
            }
        };
        tokio::select! {
            done = work => done,
            never = renewing => never,
        }
    }

    /// Gives it back. Where that fails it runs out by itself.
    pub(in crate::lake) async fn release(self) {
        let now_ms = self.clock.now_ms();
        if let Err(error) = self.catalog.take_lease(&self.name, &self.owner, now_ms, now_ms).await {
            tracing::debug!(lease = self.name, error = %error.chain(), "lease not given back");
        }
    }
}

async fn take(catalog: &Arc<dyn Catalog>, clock: &Clock, name: &str, owner: &str, duration: Duration) -> Result<bool> {
    let now_ms = clock.now_ms();
    let until_ms = now_ms + i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    catalog.take_lease(name, owner, now_ms, until_ms).await
}

#[async_trait]
impl Leases for IcebergLake {
    async fn take(&self, name: &str, owner: &str, duration: Duration) -> Result<bool> {
        take(&self.committer.catalog, &self.committer.clock, name, owner, duration).await
    }
}
