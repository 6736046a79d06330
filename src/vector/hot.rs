//! Entries of records that the index does not have yet, in memory. Bytes are bounded: beyond the budget the oldest are
//! let go, and are found again once the index has them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use arrow::record_batch::RecordBatch;

use super::keyword::Words;
use super::position::Offsets;
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::runtime::budget::{Budget, Permit};

/// Entries of one tail batch.
#[derive(Debug)]
pub(super) struct HotBatch {
    pub(super) source: TopicPartition,
    /// The position before its records, and the one behind them.
    pub(super) first: NextOffset,
    pub(super) next: NextOffset,
    /// The table's rows in it, those without text included.
    pub(super) rows: u64,
    pub(super) newest_ms: Option<i64>,
    pub(super) entries: RecordBatch,
    /// Its words, counted when the first search asks.
    pub(super) words: OnceLock<Words>,
}

/// What is hot of one table.
#[derive(Debug)]
pub(super) struct Hot {
    partitions: BTreeMap<TopicPartition, VecDeque<(Arc<HotBatch>, Permit)>>,
    budget: Budget,
}

impl Hot {
    pub(super) fn new(budget: Budget) -> Self {
        Self { partitions: BTreeMap::new(), budget }
    }

    /// Takes a batch. Where it does not continue its partition, what is held of that is let go.
    pub(super) fn push(&mut self, batch: HotBatch) {
        let permit = self.budget.take(batch.entries.get_array_memory_size());
        let held = self.partitions.entry(batch.source.clone()).or_default();
        if held.back().is_some_and(|(last, _)| last.next != batch.first) {
            held.clear();
        }
        held.push_back((Arc::new(batch), permit));
        while !self.budget.has_room() && held.len() > 1 {
            held.pop_front();
        }
    }

    /// The position behind what is held of a partition.
    pub(super) fn end(&self, source: &TopicPartition) -> Option<NextOffset> {
        Some(self.partitions.get(source)?.back()?.0.next)
    }

    /// Lets go of what lies before `offsets`: the index has it.
    pub(super) fn trim(&mut self, offsets: &Offsets) {
        self.partitions.retain(|source, held| {
            let at = offsets.get(source);
            while held.front().is_some_and(|(batch, _)| at.is_some_and(|at| batch.next <= *at)) {
                held.pop_front();
            }
            !held.is_empty()
        });
    }

    /// Lets go of what lies behind `offsets`, or is of a partition that is not among them: it is not there any more.
    pub(super) fn cut(&mut self, offsets: &Offsets) {
        self.partitions.retain(|source, held| {
            let end = offsets.get(source);
            while held.back().is_some_and(|(batch, _)| end.is_none_or(|end| batch.next > *end)) {
                held.pop_back();
            }
            !held.is_empty()
        });
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        self.partitions.clear();
    }

    /// All that lies behind `offsets`.
    pub(super) fn behind(&self, offsets: &Offsets) -> Vec<Arc<HotBatch>> {
        let behind = |batch: &HotBatch| offsets.get(&batch.source).is_none_or(|at| batch.first >= *at);
        self.batches().filter(|batch| behind(batch)).cloned().collect()
    }

    /// All that lies entirely between two positions.
    pub(super) fn between(&self, from: &Offsets, to: &Offsets) -> Vec<Arc<HotBatch>> {
        let inside = |batch: &HotBatch| {
            from.get(&batch.source).is_none_or(|at| batch.first >= *at)
                && to.get(&batch.source).is_some_and(|at| batch.next <= *at)
        };
        self.batches().filter(|batch| inside(batch)).cloned().collect()
    }

    /// Per partition how far records can be found, where the index reaches `indexed`.
    pub(super) fn findable(&self, indexed: &Offsets) -> Offsets {
        let mut offsets = indexed.clone();
        for (source, held) in &self.partitions {
            let (Some((front, _)), Some((back, _))) = (held.front(), held.back()) else { continue };
            // What lies between was let go, or another process reads it: only the index can say that it is in.
            if offsets.get(source).is_some_and(|at| front.first <= *at && back.next > *at) {
                offsets.insert(source.clone(), back.next);
            }
        }
        offsets
    }

    fn batches(&self) -> impl Iterator<Item = &Arc<HotBatch>> {
        self.partitions.values().flatten().map(|(batch, _)| batch)
    }
}
