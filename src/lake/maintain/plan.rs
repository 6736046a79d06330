//! What is worth doing to a table: sizes of files and ages of snapshots in, choices out. Pure: no clock, no I/O.
//!
//! Every choice converges: what an action made is not chosen again for the same reason.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Which files are compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// The size that data files should have, bytes. Files from three quarters of it on are left alone.
    pub target_bytes: u64,
    /// Files of a partition that are merged at least, unless fewer of them make a file of the target's size.
    pub min_files: usize,
    /// Files that are merged at once.
    pub max_files: usize,
}

/// Which snapshots are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Snapshots of `main` beyond this number expire once they are older than `keep_min_age`.
    pub keep_snapshots: usize,
    /// The newest snapshots of `main` that never expire.
    pub keep_min: usize,
    /// No snapshot expires before this age.
    pub keep_min_age: Duration,
    /// Every snapshot expires at this age, but for the newest `keep_min`.
    pub keep_for: Duration,
}

/// A snapshot, as far as expiry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Its id.
    pub id: i64,
    /// The one before it.
    pub parent: Option<i64>,
    /// When it was made, milliseconds since the epoch.
    pub made_ms: i64,
    /// True where a branch or tag points at it.
    pub is_referenced: bool,
    /// True where it names a ledger.
    pub has_ledger: bool,
}

impl Compaction {
    /// True for a file that is large enough to be left alone.
    #[must_use]
    pub fn is_large(&self, size_bytes: u64) -> bool {
        size_bytes >= self.enough()
    }

    fn enough(&self) -> u64 {
        self.target_bytes - self.target_bytes / 4
    }

    /// The files of one partition that are to become one file each, by their index in `sizes`.
    ///
    /// Small files go first. A group is worth it where it makes a large file, which is never looked at again, or where
    /// it has `min_files` files and is at least twice as large as its largest: so a row is rewritten at most about
    /// log₂(target / first size) times, and at most about as many small files stay as there are powers of two.
    #[must_use]
    pub fn groups(&self, sizes: &[u64]) -> Vec<Vec<usize>> {
        let mut small: Vec<usize> = (0..sizes.len()).filter(|index| !self.is_large(sizes[*index])).collect();
        small.sort_by_key(|index| (sizes[*index], *index));
        let mut rest = small.as_slice();
        let mut groups = Vec::new();
        while let Some(count) = self.worth(rest, sizes) {
            let (group, after) = rest.split_at(count);
            groups.push(group.to_vec());
            rest = after;
        }
        groups
    }

    /// How many of the files, which are sorted by size, are to be merged.
    fn worth(&self, files: &[usize], sizes: &[u64]) -> Option<usize> {
        let mut sum = 0;
        let mut best = None;
        for (before, index) in files.iter().take(self.max_files).enumerate() {
            let (size, count) = (sizes[*index], before + 1);
            if sum >= self.enough() && sum + size > self.target_bytes {
                break;
            }
            sum += size;
            let is_complete = self.is_large(sum) && count >= 2;
            let doubles = count >= self.min_files.max(2) && sum / 2 >= size;
            // A full group need not double: it is one of many, and so small that the next level takes it.
            if is_complete || doubles || count == self.max_files {
                best = Some(count);
            }
        }
        best
    }
}

/// The snapshots to expire, given the one that `main` is at; in no order.
///
/// Never one that a branch or tag points at, and never one between `main` and its newest ledger: recovery walks that
/// way. A snapshot's age counts from when the next one took its place, since readers may have begun with it until then.
/// What is not in `main`'s history, such as another branch's, expires at `keep_for` only.
#[must_use]
pub fn expired(snapshots: &[SnapshotFacts], main: Option<i64>, keep: &Retention, now_ms: i64) -> Vec<i64> {
    let by_id: HashMap<i64, &SnapshotFacts> = snapshots.iter().map(|snapshot| (snapshot.id, snapshot)).collect();
    let first = main.and_then(|id| by_id.get(&id).copied());
    let parent = |snapshot: &&SnapshotFacts| by_id.get(&snapshot.parent?).copied();
    let lineage: Vec<&SnapshotFacts> = std::iter::successors(first, parent).take(snapshots.len()).collect();
    let on_main: HashSet<i64> = lineage.iter().map(|snapshot| snapshot.id).collect();
    let ledger = lineage.iter().position(|snapshot| snapshot.has_ledger).map_or(0, |at| at + 1);
    let age = |since_ms: i64| Duration::from_millis(u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0));
    let mut gone = Vec::new();
    for (rank, pair) in lineage.windows(2).enumerate() {
        let (next, snapshot, rank) = (pair[0], pair[1], rank + 1);
        if rank < keep.keep_min || rank < ledger || snapshot.is_referenced {
            continue;
        }
        let age = age(next.made_ms.max(snapshot.made_ms));
        if age >= keep.keep_for || (rank >= keep.keep_snapshots && age >= keep.keep_min_age) {
            gone.push(snapshot.id);
        }
    }
    let elsewhere = snapshots.iter().filter(|snapshot| !on_main.contains(&snapshot.id) && !snapshot.is_referenced);
    gone.extend(elsewhere.filter(|snapshot| age(snapshot.made_ms) >= keep.keep_for).map(|snapshot| snapshot.id));
    gone
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: Compaction = Compaction { target_bytes: 1000, min_files: 5, max_files: 50 };

    #[track_caller]
    fn check(sizes: &[u64], expected: &[&[u64]]) {
        let groups = OPTIONS.groups(sizes);
        let found: Vec<Vec<u64>> =
            groups.iter().map(|group| group.iter().map(|index| sizes[*index]).collect()).collect();
        assert_eq!(found, expected, "{sizes:?}");
    }

    #[test]
    fn files_are_grouped_where_it_is_worth_it() {
        check(&[], &[]);
        check(&[1, 1, 1, 1], &[]);
        check(&[1, 1, 1, 1, 1], &[&[1, 1, 1, 1, 1]]);
        // One large file is not rewritten for a few small ones.
        check(&[600, 1, 1, 1, 1], &[]);
        check(&[600, 1, 1, 1, 1, 1], &[&[1, 1, 1, 1, 1]]);
        // Two that make a large one are enough.
        check(&[600, 200], &[&[200, 600]]);
        check(&[740, 740], &[&[740, 740]]);
        check(&[750, 900, 2000], &[]);
        // A large file is filled up to the target and not beyond it.
        check(&[300, 300, 300, 300], &[&[300, 300, 300]]);
        // Sizes that differ by much stay as they are.
        check(&[1, 3, 9, 27, 81], &[]);
    }

    proptest! {
        #[test]
        fn groups_are_small_files_once_each(sizes in prop::collection::vec(0_u64..2000, 0..200)) {
            let groups = OPTIONS.groups(&sizes);
            let mut seen = HashSet::new();
            for group in &groups {
                prop_assert!(group.len() >= 2 && group.len() <= OPTIONS.max_files);
                prop_assert!(group.iter().all(|index| !OPTIONS.is_large(sizes[*index]) && seen.insert(*index)));
                prop_assert!(group.iter().map(|index| sizes[*index]).sum::<u64>() < OPTIONS.target_bytes * 3 / 2);
            }
        }

        /// A table that gets file after file: after each, everything due is done. It comes to rest each time, few small
        /// files stay, and no byte is rewritten more often than the target is doubled from the first size.
        #[test]
        fn compaction_converges(added in prop::collection::vec(1_u64..20, 1..600)) {
            let (mut files, mut rewritten) = (Vec::new(), 0);
            for size in &added {
                files.push(*size);
                for round in 0.. {
                    prop_assert!(round < 12, "no rest: {files:?}");
                    let groups = OPTIONS.groups(&files);
                    if groups.is_empty() {
                        break;
                    }
                    let gone: HashSet<usize> = groups.iter().flatten().copied().collect();
                    let merged: Vec<u64> = groups.iter().map(|group| group.iter().map(|i| files[*i]).sum()).collect();
                    rewritten += merged.iter().sum::<u64>();
                    files = (0..files.len()).filter(|i| !gone.contains(i)).map(|i| files[i]).chain(merged).collect();
                }
                let small = files.iter().filter(|size| !OPTIONS.is_large(**size)).count();
                prop_assert!(small <= 14, "{files:?}");
            }
            prop_assert!(rewritten <= added.iter().sum::<u64>() * 11);
        }

        #[test]
        fn expiry_keeps_what_it_must(
            steps in prop::collection::vec((0_i64..200, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.2)), 1..80),
            keep_snapshots in 1_usize..30,
            keep_min in 1_usize..10,
        ) {
            let keep = Retention {
                keep_snapshots: keep_snapshots.max(keep_min), keep_min,
                keep_min_age: Duration::from_secs(1), keep_for: Duration::from_secs(5),
            };
            let (mut snapshots, mut now_ms, mut main) = (Vec::<SnapshotFacts>::new(), 0, None);
            for (id, (wait, has_ledger, is_referenced, aside)) in (1..).zip(&steps) {
                now_ms += wait;
                snapshots.push(SnapshotFacts { id, parent: main, made_ms: now_ms, is_referenced: *is_referenced, has_ledger: *has_ledger });
                if !aside || main.is_none() {
                    main = Some(id);
                }
                let gone: HashSet<i64> = expired(&snapshots, main, &keep, now_ms).into_iter().collect();
                let before = snapshots.clone();
                snapshots.retain(|snapshot| !gone.contains(&snapshot.id));
                let find = |all: &[SnapshotFacts], id: i64| all.iter().find(|s| s.id == id).copied();
                let lineage = |all: &[SnapshotFacts]| {
                    std::iter::successors(main.and_then(|id| find(all, id)), |s| find(all, s.parent?)).collect::<Vec<_>>()
                };
                let (long, short) = (lineage(&before), lineage(&snapshots));
                prop_assert!(short.len() >= keep_min.min(long.len()));
                prop_assert!(before.iter().all(|s| !gone.contains(&s.id) || (!s.is_referenced && now_ms - s.made_ms >= 1000)));
                // The newest ledger is still where recovery finds it.
                prop_assert_eq!(short.iter().find(|s| s.has_ledger), long.iter().find(|s| s.has_ledger));
                prop_assert_eq!(expired(&snapshots, main, &keep, now_ms), Vec::<i64>::new());
            }
        }
    }
}
