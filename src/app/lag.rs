//! How far a table is behind its topics, for metrics: each process shows the partitions that it reads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::service::position;
use crate::error::Result;
use crate::model::ids::TopicPartition;
use crate::ports::{Recovery, Source, TableState};
use crate::runtime::clock::Clock;
use crate::seam::Seam;
use crate::telemetry::metrics::{PartitionLag, TableMetrics};

/// How often the broker is asked where its topics end.
const INTERVAL: Duration = Duration::from_secs(5);

/// Shows lag until the task is ended.
pub(super) async fn watch(
    source: Arc<dyn Source>,
    seam: Seam,
    state: watch::Receiver<Option<TableState>>,
    metrics: Arc<TableMetrics>,
    clock: Clock,
) -> Result<()> {
    loop {
        clock.sleep(INTERVAL).await;
        let now = state.borrow().clone();
        let Some(now) = now else { continue };
        let Recovery::At(progress) = &now.recovery else { continue };
        let all = progress.ledger.offsets();
        let partitions: Vec<TopicPartition> = seam.kept().into_iter().filter(|mine| all.contains_key(mine)).collect();
        // Unreachable brokers show in the table's health; here the last figures stay.
        let Ok(ranges) = source.watermarks(&partitions).await else { continue };
        let mut behind = false;
        for (source, range) in ranges {
            let Some(at) = position(&now, &source) else { continue };
            behind |= at < range.stable;
            let lag = PartitionLag {
                records: (range.high.0 - at.0).max(0),
                stable_records: (range.stable.0 - at.0).max(0),
                retention_left_records: at.0 - range.low.0,
            };
            metrics.set_partition(&source, lag);
        }
        let newest =
            now.newest_ms.filter(|_| behind).map_or(0.0, |newest| (clock.now_ms() - newest).max(0) as f64 / 1000.0);
        metrics.lag_seconds.set(newest);
    }
}
