//! One table's index as searches and the follower share it: the dataset with its position, and what is hot behind it,
//! always changed together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lance::Dataset;
use tokio::sync::watch;

use super::IndexSpec;
use super::entries::Shape;
use super::hot::{Hot, HotBatch};
use super::position::Position;
use super::store::Stored;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::version::{AsOf, Offsets};
use crate::ports::IndexFacts;
use crate::runtime::budget::Budget;
use crate::runtime::clock::Clock;

/// One table's index.
#[derive(Debug)]
pub struct TableIndex {
    /// What is indexed.
    pub spec: IndexSpec,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    is_damaged: AtomicBool,
}

#[derive(Debug)]
struct State {
    shape: Option<Arc<Shape>>,
    dataset: Option<Arc<Dataset>>,
    position: Option<Position>,
    entries: u64,
    partitions: u64,
    hot: Hot,
}

/// An index at one moment.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) shape: Arc<Shape>,
    /// `None` before anything is indexed.
    pub(super) dataset: Option<Arc<Dataset>>,
    /// Partitions of its vector index; none without one.
    pub(super) partitions: u64,
    /// What the dataset does not have.
    pub(super) hot: Vec<Arc<HotBatch>>,
    pub(super) as_of: AsOf,
}

impl TableIndex {
    /// An index that was not opened yet. Hot entries of all indexes with this `budget` share its bytes.
    #[must_use]
    pub fn new(spec: IndexSpec, budget: Budget) -> Self {
        let state =
            State { shape: None, dataset: None, position: None, entries: 0, partitions: 0, hot: Hot::new(budget) };
        Self { spec, state: Mutex::new(state), changed: watch::Sender::new(0), is_damaged: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    /// What stands in the dataset from now on; hot entries that it has are let go in the same moment.
    pub(super) fn show(&self, stored: &Stored, shape: &Arc<Shape>, entries: u64) {
        self.change(|state| {
            if state.shape.as_ref() != Some(shape) {
                state.hot.clear();
            }
            state.shape = Some(Arc::clone(shape));
            state.position.clone_from(&stored.position);
            state.dataset = stored.position.as_ref().map(|_| Arc::new(stored.dataset.clone()));
            (state.entries, state.partitions) = (entries, stored.partitions);
            let indexed = state.indexed();
            state.hot.trim(&indexed.offsets);
        });
    }

    /// Takes entries of records that have just come.
    pub(super) fn heat(&self, batch: HotBatch, shape: &Arc<Shape>) {
        self.change(|state| {
            let known = state.shape.get_or_insert_with(|| Arc::clone(shape));
            if known == shape {
                state.hot.push(batch);
            }
        });
    }

    /// Lets go of hot entries behind `offsets`.
    pub(super) fn cut(&self, offsets: &Offsets) {
        self.change(|state| state.hot.cut(offsets));
    }

    /// True where a batch's entries are here: hot, or in the dataset.
    pub(super) fn has(&self, source: &TopicPartition, first: NextOffset, next: NextOffset) -> bool {
        let state = self.state();
        let is_indexed = state.indexed().offsets.get(source).is_some_and(|at| next <= *at);
        is_indexed || state.hot.has(source, first, next)
    }

    /// Shows nothing of the dataset any more: it is going to be removed.
    pub(super) fn withdraw(&self) {
        self.change(|state| {
            (state.dataset, state.position, state.entries) = (None, None, 0);
        });
        self.is_damaged.store(false, Ordering::Relaxed);
    }

    /// Says that a search could not read it.
    pub(super) fn report_damage(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    /// True where that was said since it was asked last.
    pub(super) fn take_damage(&self) -> bool {
        self.is_damaged.swap(false, Ordering::Relaxed)
    }

    /// Hot entries between two positions.
    pub(super) fn between(&self, from: &Offsets, to: &Offsets) -> Vec<Arc<HotBatch>> {
        self.state().hot.between(from, to)
    }

    /// Index and, where they are asked for, hot entries as they are now; `None` before its table was seen.
    pub(super) fn now(&self, with_hot: bool) -> Option<Moment> {
        let state = self.state();
        let indexed = state.indexed();
        if !with_hot {
            let (shape, dataset, partitions) = (state.shape.clone()?, state.dataset.clone(), state.partitions);
            return Some(Moment { shape, dataset, partitions, hot: Vec::new(), as_of: indexed });
        }
        let hot = state.hot.behind(&indexed.offsets);
        let newest = hot.iter().filter_map(|batch| batch.newest_ms).max();
        let as_of = AsOf {
            offsets: state.hot.findable(&indexed.offsets),
            newest_ms: indexed.newest_ms.max(newest),
            snapshot_id: indexed.snapshot_id,
        };
        let (shape, dataset, partitions) = (state.shape.clone()?, state.dataset.clone(), state.partitions);
        Some(Moment { shape, dataset, partitions, hot, as_of })
    }

    /// The same, once it reaches `least`.
    ///
    /// # Errors
    /// `Unavailable` where that takes longer than `limit`.
    pub(super) async fn reaching(
        &self,
        least: &Offsets,
        with_hot: bool,
        clock: &Clock,
        limit: Duration,
    ) -> Result<Option<Moment>> {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                let now = self.now(with_hot);
                let reaches = |now: &Moment| {
                    least.iter().all(|(source, next)| now.as_of.offsets.get(source).is_some_and(|at| at >= next))
                };
                if least.is_empty() || now.as_ref().is_some_and(reaches) {
                    return now;
                }
                if changed.changed().await.is_err() {
                    return now;
                }
            }
        };
        clock.timeout(limit, wait).await.ok_or_else(|| {
            let text = format!("the offsets asked for cannot be found in `{}` within {limit:?}", self.spec.table);
            Error::new(ErrorKind::Unavailable, text)
        })
    }

    /// Per partition the first offset that is not in the dataset.
    #[must_use]
    pub fn indexed(&self) -> Offsets {
        self.state().indexed().offsets
    }

    /// What is known of it, where its vectors are of `model`.
    #[must_use]
    pub fn facts(&self, model: &str) -> IndexFacts {
        let state = self.state();
        let indexed = state.indexed();
        IndexFacts {
            table: self.spec.table.clone(),
            findable: state.hot.findable(&indexed.offsets),
            indexed,
            entries: state.entries,
            model: model.to_owned(),
            text: self.spec.text.to_string(),
            filters: state.shape.as_ref().map(|shape| shape.filters()).unwrap_or_default(),
        }
    }
}

impl State {
    fn indexed(&self) -> AsOf {
        self.position.as_ref().map(Position::as_of).unwrap_or_default()
    }
}
