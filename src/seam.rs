//! The seam between history and now: a table's newest committed version and, per partition, the decoded batches that
//! lie behind its ledger. Both are taken together, so that a reader sees each record once. What reads them is elsewhere.
//!
//! A batch enters when the brain has accepted it for a commit and leaves when a version's ledger covers it; a reader
//! that took it keeps it. Bytes are bounded: beyond the budget the oldest batches are let go, and a fresh view waits
//! for the commit that covers them. Batches of partitions that other processes commit come from a follower, which reads
//! them while fresh views are asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{TableName, TopicPartition};
use crate::model::ledger::Position;
use crate::model::offsets::NextOffset;
use crate::model::schema::TableSchema;
use crate::model::version::{AsOf, Consistency, Offsets};
use crate::ports::{Recovery, TableState};
use crate::runtime::budget::{Budget, Permit};
use crate::runtime::clock::Clock;

/// How long a fresh view waits for a follower that has just begun.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(5);

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
    /// Where their offsets stand, as the number of a column of longs.
    pub offset_column: usize,
}

impl TailBatch {
    /// Lets go of what lies before `at`.
    fn cut(&mut self, at: NextOffset) {
        let offsets = self.rows.column(self.offset_column).as_primitive::<Int64Type>().values();
        let before = offsets.partition_point(|offset| *offset < at.0);
        self.rows = self.rows.slice(before, self.rows.num_rows() - before);
        self.first = at;
    }
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
    asked: Arc<Notify>,
    budget: Budget,
}

#[derive(Debug, Default)]
struct Inner {
    version: Option<Arc<TableState>>,
    tail: BTreeMap<TopicPartition, VecDeque<(TailBatch, Permit)>>,
    /// Partitions that this process commits.
    kept: BTreeSet<TopicPartition>,
    /// `None` where nobody follows the others.
    followed: Option<Followed>,
}

/// What a follower does.
#[derive(Debug, Default)]
struct Followed {
    /// Partitions that it reads, or has tried to, and whether nothing is to be waited for any more.
    partitions: BTreeMap<TopicPartition, bool>,
    /// When a fresh view was asked for last, by the process's clock.
    asked_at: Option<Duration>,
}

impl Inner {
    /// True where each partition's tail is here, as far as it can be.
    fn is_whole(&self) -> bool {
        let (Some(version), Some(followed)) = (&self.version, &self.followed) else { return true };
        let is_here = |source| self.kept.contains(source) || followed.partitions.get(source).is_some_and(|done| *done);
        version.offsets().keys().all(is_here)
    }

    fn is_followed(&self, source: &TopicPartition) -> bool {
        self.followed.as_ref().is_some_and(|followed| followed.partitions.contains_key(source))
    }
}

impl Seam {
    /// A seam before its table was seen. Batches of all seams with this `budget` share its bytes.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self { inner: Arc::default(), changed: watch::Sender::new(0), asked: Arc::default(), budget }
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
            let Some(at) = covered.get(source) else { return !batches.is_empty() };
            while batches.front().is_some_and(|(batch, _)| batch.next <= *at) {
                batches.pop_front();
            }
            // Another process's commit may end anywhere.
            if let Some((front, _)) = batches.front_mut().filter(|(front, _)| front.first < *at) {
                front.cut(*at);
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

    /// Takes partitions that this process commits from now on; what a follower had read of them is let go.
    pub fn keep<'a>(&self, partitions: impl Iterator<Item = &'a TopicPartition>) {
        let mut inner = self.inner();
        for source in partitions {
            let was_followed = inner.followed.as_mut().and_then(|followed| followed.partitions.remove(source));
            if was_followed.is_some() {
                inner.tail.remove(source);
            }
            inner.kept.insert(source.clone());
        }
        drop(inner);
        self.notify();
    }

    /// The partitions that this process commits.
    #[must_use]
    pub fn kept(&self) -> BTreeSet<TopicPartition> {
        self.inner().kept.clone()
    }

    /// Forgets everything behind the ledger that this process would have committed: it will be read again.
    pub fn clear(&self) {
        let mut inner = self.inner();
        let mut tail = std::mem::take(&mut inner.tail);
        tail.retain(|source, _| inner.is_followed(source));
        inner.tail = tail;
        drop(inner);
        self.notify();
    }

    /// Forgets what lies behind the ledger of partitions that belong to somebody else now.
    pub fn release(&self, partitions: &[TopicPartition]) {
        let mut inner = self.inner();
        partitions.iter().for_each(|source| {
            inner.kept.remove(source);
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

    /// The tail that this process commits as far as it is held, whole or not, and per partition the position behind it.
    #[must_use]
    pub fn held(&self) -> (Offsets, Vec<TailBatch>) {
        let inner = self.inner();
        let mut offsets = inner.version.as_ref().map(|version| version.offsets()).unwrap_or_default();
        let mut tail = Vec::new();
        for (source, batches) in inner.tail.iter().filter(|(source, _)| !inner.is_followed(source)) {
            if let (Some(at), Some((back, _))) = (offsets.get_mut(source), batches.back()) {
                *at = back.next.max(*at);
            }
            tail.extend(batches.iter().map(|(batch, _)| batch.clone()));
        }
        (offsets, tail)
    }

    /// Version and tail, as soon as they are whole and reach `least`. A follower that cannot read what others commit
    /// is waited for within bounds; the answer says how far it reaches.
    ///
    /// # Errors
    /// `Unavailable` where that takes longer than `limit`.
    pub async fn fresh(&self, least: &Offsets, clock: &Clock, limit: Duration) -> Result<View> {
        let mut changed = self.changed.subscribe();
        self.ask(clock.elapsed());
        let whole = async { while !self.inner().is_whole() && changed.changed().await.is_ok() {} };
        clock.timeout(FOLLOW_PATIENCE, whole).await;
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

    fn ask(&self, now: Duration) {
        if let Some(followed) = &mut self.inner().followed {
            followed.asked_at = Some(now);
            self.asked.notify_one();
        }
    }

    /// Says each change: a version, a batch, something let go.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// What a follower does: see [`crate::pipeline::driver::follow`].
impl Seam {
    /// Fresh views wait for a follower from now on.
    pub fn attend(&self) {
        self.inner().followed.get_or_insert_default();
    }

    /// When a fresh view was asked for last, by the process's clock.
    #[must_use]
    pub fn asked_at(&self) -> Option<Duration> {
        self.inner().followed.as_ref()?.asked_at
    }

    /// Waits until a fresh view is asked for.
    pub async fn next_ask(&self) {
        self.asked.notified().await;
    }

    /// The partitions that others commit, and where their reading goes on.
    #[must_use]
    pub fn others(&self) -> BTreeMap<TopicPartition, Position> {
        let inner = self.inner();
        let Some(Recovery::At(progress)) = inner.version.as_ref().map(|version| &version.recovery) else {
            return BTreeMap::new();
        };
        let others = progress.ledger.positions().filter(|(source, _)| !inner.kept.contains(source));
        let goes_on = |(source, at): (TopicPartition, Position)| {
            let back = inner.tail.get(&source).and_then(VecDeque::back).map(|(batch, _)| batch.next);
            let read = back.filter(|next| *next > at.next).map(|next| Position { next, leader_epoch: None });
            (source, read.unwrap_or(at))
        };
        others.map(goes_on).collect()
    }

    /// True while there is memory for another batch.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.budget.has_room()
    }

    /// Takes a batch of a partition that somebody else commits, as [`Seam::append`] does, but never at the cost of
    /// what is held.
    pub fn follow(&self, mut batch: TailBatch) {
        let permit = self.budget.take(batch.rows.get_array_memory_size());
        let mut inner = self.inner();
        let at = inner.version.as_ref().and_then(|version| version.offsets().get(&batch.source).copied());
        if inner.kept.contains(&batch.source) || at.is_none_or(|at| batch.next <= at) {
            return;
        }
        if let Some(at) = at.filter(|at| batch.first < *at) {
            batch.cut(at);
        }
        if let Some(followed) = &mut inner.followed {
            followed.partitions.entry(batch.source.clone()).or_insert(false);
        }
        let batches = inner.tail.entry(batch.source.clone()).or_default();
        if batches.back().is_some_and(|(last, _)| last.next != batch.first) {
            batches.clear();
        }
        batches.push_back((batch, permit));
        drop(inner);
        self.notify();
    }

    /// Nothing more of this partition is to be waited for: it was read to its end, or cannot be read now.
    pub fn settle(&self, source: &TopicPartition) {
        let mut inner = self.inner();
        if inner.kept.contains(source) {
            return;
        }
        let settled = inner.followed.as_mut().and_then(|followed| followed.partitions.insert(source.clone(), true));
        drop(inner);
        if settled != Some(true) {
            self.notify();
        }
    }

    /// Lets go of what was read of a partition that is followed no more.
    pub fn unfollow(&self, source: &TopicPartition) {
        let mut inner = self.inner();
        if inner.followed.as_mut().and_then(|followed| followed.partitions.remove(source)).is_some() {
            inner.tail.remove(source);
        }
        drop(inner);
        self.notify();
    }
}

#[cfg(test)]
mod tests;
