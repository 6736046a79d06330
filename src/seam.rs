//! The seam between history and now: a table's newest committed version and, per partition, the decoded batches that
//! lie behind its ledger. Both are taken together, so that a reader sees each record once. What reads them is elsewhere.
//!
//! A batch enters when the brain has accepted it for a commit and leaves when a version's ledger covers it; a reader
//! that took it keeps it. Bytes are bounded: beyond the budget the oldest batches are let go, and a fresh view waits
//! for the commit that covers them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{TableName, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::schema::TableSchema;
use crate::model::version::{AsOf, Consistency, Offsets};
use crate::ports::TableState;
use crate::runtime::budget::{Budget, Permit};
use crate::runtime::clock::Clock;

/// A run of one partition's rows that is decoded and not known to be committed.
#[derive(Debug, Clone)]
pub struct TailBatch {
    /// Partition.
    pub source: TopicPartition,
    /// The position before it.
    pub first: NextOffset,
    /// The position behind it, records that gave no row included.
    pub next: NextOffset,
    /// Timestamp of its newest record, milliseconds since the epoch.
    pub newest_ms: Option<i64>,
    /// The schema that the rows are in.
    pub schema: Arc<TableSchema>,
    /// Rows in offset order.
    pub rows: RecordBatch,
}

/// A table at one moment: what is committed and what comes behind it.
#[derive(Debug, Clone)]
pub struct View {
    /// The version that is committed.
    pub version: Arc<TableState>,
    /// What lies behind its ledger, per partition in order.
    pub tail: Vec<TailBatch>,
    /// How far both reach.
    pub as_of: AsOf,
}

impl View {
    /// A version alone.
    #[must_use]
    pub fn committed(version: Arc<TableState>) -> Self {
        let as_of = version.as_of();
        Self { version, tail: Vec::new(), as_of }
    }
}

/// Views of all tables.
#[async_trait]
pub trait Views: Send + Sync {
    /// A table as asked for; `None` where there is none of that name.
    ///
    /// # Errors
    /// As [`Seam::fresh`] and [`crate::ports::LakeReader::at`].
    async fn view(&self, table: &TableName, consistency: &Consistency) -> Result<Option<View>>;
}

/// One table's seam. Clones share it.
#[derive(Debug, Clone)]
pub struct Seam {
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<u64>,
    budget: Budget,
}

#[derive(Debug, Default)]
struct Inner {
    version: Option<Arc<TableState>>,
    tail: BTreeMap<TopicPartition, VecDeque<(TailBatch, Permit)>>,
}

impl Seam {
    /// A seam before its table was seen. Batches of all seams with this `budget` share its bytes.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self { inner: Arc::default(), changed: watch::Sender::new(0), budget }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Takes a version that is in the catalog; an older one than that held is passed over. What its ledger covers
    /// leaves the tail.
    pub fn publish(&self, state: &TableState) {
        let mut inner = self.inner();
        if let Some(held) = &inner.version {
            if held.uuid == state.uuid && held.sequence_number > state.sequence_number {
                return;
            }
            if held.uuid == state.uuid && held.snapshot_id == state.snapshot_id && held.schema == state.schema {
                return;
            }
            if held.uuid != state.uuid {
                inner.tail.clear();
            }
        }
        inner.version = Some(Arc::new(state.clone()));
        let covered = state.offsets();
        inner.tail.retain(|source, batches| {
            let at = covered.get(source);
            while batches.front().is_some_and(|(batch, _)| at.is_some_and(|at| batch.next <= *at)) {
                batches.pop_front();
            }
            !batches.is_empty()
        });
        drop(inner);
        self.notify();
    }

    /// Takes a batch that continues its partition. Where it does not, what is held of the partition is let go.
    pub fn append(&self, batch: TailBatch) {
        let permit = self.budget.take(batch.rows.get_array_memory_size());
        let mut inner = self.inner();
        let batches = inner.tail.entry(batch.source.clone()).or_default();
        if batches.back().is_some_and(|(last, _)| last.next != batch.first) {
            batches.clear();
        }
        batches.push_back((batch, permit));
        while !self.budget.has_room() && batches.len() > 1 {
            batches.pop_front();
        }
        drop(inner);
        self.notify();
    }

    /// Forgets everything behind the ledger: it will be read again.
    pub fn clear(&self) {
        self.inner().tail.clear();
        self.notify();
    }

    /// Forgets what lies behind the ledger of partitions that belong to somebody else now.
    pub fn release(&self, partitions: &[TopicPartition]) {
        let mut inner = self.inner();
        partitions.iter().for_each(|source| {
            inner.tail.remove(source);
        });
        drop(inner);
        self.notify();
    }

    /// The version that is committed; `None` before the table was seen.
    #[must_use]
    pub fn version(&self) -> Option<Arc<TableState>> {
        self.inner().version.clone()
    }

    /// Version and tail as they are now; `None` before the table was seen, or while batches that were let go are not
    /// committed yet.
    #[must_use]
    pub fn now(&self) -> Option<View> {
        let inner = self.inner();
        let version = Arc::clone(inner.version.as_ref()?);
        let (mut offsets, mut newest_ms, mut tail) = (version.offsets(), version.newest_ms, Vec::new());
        for (source, batches) in &inner.tail {
            let (Some((front, _)), Some((back, _))) = (batches.front(), batches.back()) else { continue };
            match offsets.get(source) {
                Some(at) if front.first > *at => return None,
                // A version that ends inside a batch is another writer's: this process's reading is void, and the
                // brain is about to drop it.
                Some(at) if front.first < *at => continue,
                Some(_) => {}
                None => continue,
            }
            offsets.insert(source.clone(), back.next);
            newest_ms = newest_ms.max(batches.iter().filter_map(|(batch, _)| batch.newest_ms).max());
            tail.extend(batches.iter().map(|(batch, _)| batch.clone()));
        }
        let as_of = AsOf { snapshot_id: version.snapshot_id, offsets, newest_ms };
        Some(View { version, tail, as_of })
    }

    /// The tail as far as it is held, whole or not, and per partition the position behind it.
    #[must_use]
    pub fn held(&self) -> (Offsets, Vec<TailBatch>) {
        let inner = self.inner();
        let mut offsets = inner.version.as_ref().map(|version| version.offsets()).unwrap_or_default();
        for (source, batches) in &inner.tail {
            if let (Some(at), Some((back, _))) = (offsets.get_mut(source), batches.back()) {
                *at = back.next.max(*at);
            }
        }
        (offsets, inner.tail.values().flatten().map(|(batch, _)| batch.clone()).collect())
    }

    /// Version and tail, as soon as they are whole and reach `least`.
    ///
    /// # Errors
    /// `Unavailable` where that takes longer than `limit`.
    pub async fn fresh(&self, least: &Offsets, clock: &Clock, limit: Duration) -> Result<View> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                let view = self.now().filter(|view| {
                    least.iter().all(|(source, next)| view.as_of.offsets.get(source).is_some_and(|at| at >= next))
                });
                if let Some(view) = view {
                    return Some(view);
                }
                changed.changed().await.ok()?;
            }
        };
        let view = clock.timeout(limit, wait).await.flatten();
        view.ok_or_else(|| {
            let what = if self.version().is_none() {
                "the table was not seen yet"
            } else if least.is_empty() {
                "what is not committed outgrew its memory, and the commit that covers it has not ended"
            } else {
                "the offsets asked for are not visible yet"
            };
            Error::new(
                ErrorKind::Unavailable,
                format!("no fresh answer within {limit:?}: {what}; ask for `committed`, or later"),
            )
        })
    }

    /// Says each change: a version, a batch, something let go.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests;
