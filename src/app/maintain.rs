//! Continuous maintenance: one task for all tables, one step after the other. What a step does is `lake::maintain`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{ErrorKind, Result, policy};
use crate::lake::maintain::{Maintainer, Report};
use crate::model::ids::TableName;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;
use crate::telemetry::metrics::{Metrics, TableMetrics};

/// Pauses of a table whose maintenance failed.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// What maintenance runs on.
pub(super) struct Upkeep {
    pub(super) maintainer: Maintainer,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// How often each table is looked at while nothing is due.
    pub(super) interval: Duration,
}

/// A table that is left alone for a while.
struct Paused {
    until: Duration,
    backoff: Backoff,
}

impl Upkeep {
    /// Maintains `tables`, as they are at each moment, and their dead letters, until `stop`. A step under way is
    /// dropped then: what it has written is an orphan, or is in.
    pub(super) async fn run(self, tables: watch::Receiver<Vec<TableName>>, stop: Shutdown) -> Result<()> {
        tokio::select! {
            () = stop.requested() => Ok(()),
            never = self.rounds(tables) => never,
        }
    }

    async fn rounds(&self, tables: watch::Receiver<Vec<TableName>>) -> Result<()> {
        let mut paused: BTreeMap<TableName, Paused> = BTreeMap::new();
        loop {
            let names = tables.borrow().clone();
            let mut is_busy = false;
            for table in &names {
                for name in [table.clone(), table.dead_letters()] {
                    if paused.get(&name).is_some_and(|paused| self.clock.elapsed() < paused.until) {
                        continue;
                    }
                    is_busy |= self.step(table, &name, &mut paused).await;
                }
            }
            if !is_busy {
                self.clock.sleep(self.interval).await;
            }
        }
    }

    /// One step for `name`, which is `table` or its dead letters; true where more may be due at once.
    async fn step(&self, table: &TableName, name: &TableName, paused: &mut BTreeMap<TableName, Paused>) -> bool {
        match self.maintainer.step(name).await {
            Ok(report) => {
                paused.remove(name);
                let Some(report) = report else { return false };
                count(&self.metrics.table(table), &report, table == name);
                if report.is_busy() || report.expired_snapshots + report.deleted_files > 0 {
                    tracing::info!(
                        table = %name,
                        compacted_files = report.compacted_files,
                        compacted_bytes = report.compacted_bytes,
                        merged_manifests = report.merged_manifests,
                        expired_snapshots = report.expired_snapshots,
                        deleted_files = report.deleted_files,
                        "maintained"
                    );
                }
                for note in &report.notes {
                    tracing::debug!(table = %name, note, "maintenance");
                }
                report.is_busy()
            }
            // Not made yet; it is looked for again soon.
            Err(error) if error.kind() == ErrorKind::InvalidRequest => false,
            Err(error) => {
                let (_, hint) = policy(error.kind());
                tracing::warn!(table = %name, error = %error.chain(), hint, "maintenance failed, trying again later");
                self.metrics.table(table).maintenance.failures.inc();
                let pause = paused
                    .entry(name.clone())
                    .or_insert_with(|| Paused { until: Duration::ZERO, backoff: Backoff::new(PAUSE.0, PAUSE.1) });
                pause.until = self.clock.elapsed() + pause.backoff.pause();
                false
            }
        }
    }
}

fn count(metrics: &TableMetrics, report: &Report, is_main: bool) {
    let counters = &metrics.maintenance;
    counters.compactions.inc_by(report.compactions);
    counters.compacted_files.inc_by(report.compacted_files);
    counters.compacted_bytes.inc_by(report.compacted_bytes);
    counters.written_bytes.inc_by(report.written_bytes);
    counters.expired_snapshots.inc_by(report.expired_snapshots);
    counters.deleted_files.inc_by(report.deleted_files);
    if let Some(health) = report.health.as_ref().filter(|_| is_main) {
        counters.data_files.set(health.data_files as f64);
        counters.small_files.set(health.small_files as f64);
        counters.delete_files.set(health.delete_files as f64);
        counters.snapshots.set(health.snapshots as f64);
    }
}
