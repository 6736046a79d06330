//! Entries of records that the index does not have yet, in memory. Bytes are bounded: beyond the budget a partition
//! that gets more lets its oldest go, and they are found again once the index has them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use arrow::record_batch::RecordBatch;

use super::keyword::Words;
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::version::Offsets;
use crate::runtime::budget::{Budget, Permit};

/// Entries of one tail batch.
#[derive(Debug)]
pub(super) struct HotBatch {
    pub(super) source: TopicPartition,
    /// The position before its records, and the one behind them.
    pub(super) first: NextOffset,
    pub(super) next: NextOffset,
    /// The offsets of the table's rows in it, those without text included, in order.
    pub(super) offsets: Vec<i64>,
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

    /// Takes a batch. What is held of its records, or behind them, was read before and is let go; all that is held of
    /// its partition where there is a gap before it.
    pub(super) fn push(&mut self, batch: HotBatch) {
        let permit = self.budget.take(batch.entries.get_array_memory_size());
        let held = self.partitions.entry(batch.source.clone()).or_default();
        while held.back().is_some_and(|(last, _)| last.next > batch.first) {
            held.pop_back();
        }
        if held.back().is_some_and(|(last, _)| last.next != batch.first) {
            held.clear();
        }
        held.push_back((Arc::new(batch), permit));
        while !self.budget.has_room() && held.len() > 1 {
            held.pop_front();
        }
    }

    /// True where this very batch is held.
    pub(super) fn has(&self, source: &TopicPartition, first: NextOffset, next: NextOffset) -> bool {
        let mut held = self.partitions.get(source).into_iter().flatten();
        held.any(|(batch, _)| (batch.first, batch.next) == (first, next))
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
        for (source, at) in &mut offsets {
            // Behind a gap only the index can say that everything is in.
            for (batch, _) in self.partitions.get(source).into_iter().flatten() {
                if batch.first == *at {
                    *at = batch.next;
                }
            }
        }
        offsets
    }

    fn batches(&self) -> impl Iterator<Item = &Arc<HotBatch>> {
        self.partitions.values().flatten().map(|(batch, _)| batch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;

    fn source() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn batch(first: i64, next: i64) -> HotBatch {
        HotBatch {
            source: source(),
            first: NextOffset(first),
            next: NextOffset(next),
            offsets: (first..next).collect(),
            newest_ms: None,
            entries: RecordBatch::new_empty(Arc::new(Schema::empty())),
            words: OnceLock::new(),
        }
    }

    fn hot(batches: &[(i64, i64)]) -> Hot {
        let mut hot = Hot::new(Budget::new("hot", 1 << 20));
        batches.iter().for_each(|(first, next)| hot.push(batch(*first, *next)));
        hot
    }

    fn at(offset: i64) -> Offsets {
        [(source(), NextOffset(offset))].into()
    }

    fn held(batches: &[Arc<HotBatch>]) -> Vec<(i64, i64)> {
        batches.iter().map(|batch| (batch.first.0, batch.next.0)).collect()
    }

    #[test]
    fn what_is_read_again_takes_the_place_of_what_was_read() {
        let check = |batches: &[(i64, i64)], left: &[(i64, i64)]| {
            assert_eq!(held(&hot(batches).behind(&at(0))), left, "{batches:?}");
        };
        check(&[(0, 10), (10, 20)], &[(0, 10), (10, 20)]);
        check(&[(0, 100), (0, 60), (60, 130)], &[(0, 60), (60, 130)]);
        check(&[(0, 10), (10, 20), (10, 15)], &[(0, 10), (10, 15)]);
        check(&[(0, 10), (30, 40)], &[(30, 40)]);
    }

    #[test]
    fn only_what_follows_on_the_index_without_a_gap_is_findable() {
        let check = |batches: &[(i64, i64)], indexed: i64, findable: i64| {
            assert_eq!(hot(batches).findable(&at(indexed)), at(findable), "{batches:?} behind {indexed}");
        };
        check(&[], 5, 5);
        check(&[(0, 10), (10, 20)], 0, 20);
        check(&[(0, 10), (10, 20)], 10, 20);
        // The index ends inside a batch that another process has committed: none of its rest is searched.
        check(&[(0, 10)], 5, 5);
        check(&[(10, 20)], 5, 5);
    }

    #[test]
    fn a_batch_leaves_when_the_index_has_it_or_nobody_has() {
        let mut hot = hot(&[(0, 10), (10, 20), (20, 30)]);
        assert_eq!(held(&hot.between(&at(0), &at(20))), [(0, 10), (10, 20)]);
        hot.trim(&at(10));
        hot.cut(&at(25));
        assert_eq!(held(&hot.behind(&at(0))), [(10, 20)]);
        hot.cut(&Offsets::new());
        assert!(hot.behind(&at(0)).is_empty());
    }
}
