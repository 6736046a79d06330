//! The composition root: puts adapters, drivers and listener together, and owns the order in which they start and
//! stop. The only module that names concrete adapters.

mod agents;
mod alter;
pub mod connect;
mod datasets;
mod demo;
mod following;
mod indexing;
mod keeping;
mod lag;
mod legible;
mod letter_topic;
pub mod letters;
mod maintain;
mod route_field;
mod rows;
mod service;
mod sharing;
mod spec;
mod tables;
mod views;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use agents::mcp_stdio;
pub use alter::alteration;
pub use connect::{kafka_options, maintainer, offline_sql, open_catalog, registry};
pub use demo::{DemoNews, DemoRunOptions, Found, demo};
pub use indexing::drop_index;
pub use service::{Roles, Service, TableHandle};
pub use spec::{subjects, table_spec};
pub use tables::{tables, with_routed};
pub use views::TableViews;

use crate::config::{Config, process_env};
use crate::error::{Error, Result};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;

/// How often progress towards the end of the topics is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How far `--until-caught-up` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Offsets between the ledger and the ends seen at the start.
    pub left: u64,
    /// The same when it began.
    pub total: u64,
}

/// How to run.
#[derive(Clone, Default)]
pub struct RunOptions {
    /// What this process does.
    pub roles: Roles,
    /// Stop once every partition's last stable offset seen at the start is committed.
    pub until_caught_up: bool,
    /// Where the configuration is read from again on SIGHUP.
    pub config_path: Option<PathBuf>,
    /// Told how far it is, a few times a second, where `until_caught_up`.
    pub progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
}

/// Runs the service until `shutdown`, or until it has caught up.
///
/// # Errors
/// `InvalidConfig` where it cannot start; `Corrupt` where it was to catch up and a table stopped or was suspended.
pub async fn run(config: Config, options: RunOptions, shutdown: Shutdown) -> Result<()> {
    config.require_tables()?;
    let clock = Clock::system();
    let mut service = Service::start(config, options.roles, options.until_caught_up, clock.clone()).await?;
    let result = work(&mut service, &options, &clock, &shutdown).await;
    service.stop().await;
    result
}

async fn work(service: &mut Service, options: &RunOptions, clock: &Clock, shutdown: &Shutdown) -> Result<()> {
    let mut hangup = hangups()?;
    let mut targets = None;
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            _ = hangup.recv() => reload(service, options).await,
            request = service.request() => service.serve(request).await,
            () = clock.sleep(PROGRESS_INTERVAL), if options.until_caught_up => {
                if targets.is_none() {
                    targets = service.ends().await?;
                }
                let Some(ends) = &targets else { continue };
                let left = service.left(ends).await?;
                let total = ends.total;
                if let Some(progress) = &options.progress {
                    progress(Progress { left, total });
                }
                if left == 0 {
                    tracing::info!(total, "caught up");
                    return Ok(());
                }
            }
            () = std::future::pending::<()>(), if !options.until_caught_up => {}
        }
    }
}

/// Takes what can be taken of a changed configuration; a wrong one changes nothing.
async fn reload(service: &mut Service, options: &RunOptions) {
    let Some(path) = &options.config_path else { return };
    tracing::info!(path = %path.display(), "reloading the configuration");
    let result = match Config::load(path, &process_env) {
        Ok(config) => service.reload(config).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::error!(error = %error.chain(), "configuration not taken, going on with the old one");
    }
}

#[cfg(unix)]
fn hangups() -> Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
        .map_err(|e| Error::unavailable("listen for SIGHUP").with_source(e))
}
