//! Every snapshot that the table has had, noted while it is there: what is dropped later can be compared still.
//! Rules that concern one snapshot and its parents are checked here.

use std::collections::{BTreeMap, BTreeSet};

use iceberg::spec::TableMetadata;
use uuid::Uuid;

use crate::lake::progress;
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::ports::Progress;

/// A snapshot as it was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The snapshot before it.
    pub parent: Option<i64>,
    /// What it says of progress, if anything.
    pub progress: Option<Progress>,
}

/// The table's snapshots.
#[derive(Debug, Default)]
pub struct History {
    snapshots: BTreeMap<i64, Seen>,
    /// Commits by id, of which some snapshot was seen.
    pub commits: BTreeSet<String>,
    /// The newest snapshot with a ledger.
    pub newest: Option<i64>,
    /// Snapshots that the operator made, whose choices are above the rules.
    pub by_operator: BTreeSet<i64>,
    positions: BTreeSet<(TopicPartition, NextOffset)>,
}

impl History {
    /// Takes note of the snapshots that are new; answers what is wrong with them.
    pub fn observe(&mut self, metadata: &TableMetadata) -> Vec<String> {
        let mut new: Vec<_> =
            metadata.snapshots().filter(|snapshot| !self.snapshots.contains_key(&snapshot.snapshot_id())).collect();
        new.sort_by_key(|snapshot| snapshot.sequence_number());
        let mut wrong = Vec::new();
        for snapshot in new {
            let id = snapshot.snapshot_id();
            let entries = &snapshot.summary().additional_properties;
            self.commits.extend(entries.get(progress::COMMIT_ID).cloned());
            let progress = match progress::read_summary(snapshot) {
                Ok(progress) => progress,
                Err(error) => {
                    wrong.push(error.chain());
                    None
                }
            };
            let parent = snapshot.parent_snapshot_id();
            if let Some(progress) = &progress {
                wrong.extend(self.check(id, parent, progress));
                self.newest = Some(id);
                for (topic, ledger) in &progress.ledger.topics {
                    let at = |(partition, at): (&i32, &crate::model::ledger::Position)| {
                        (TopicPartition::new(topic.as_str(), *partition), at.next)
                    };
                    self.positions.extend(ledger.partitions.iter().map(at));
                }
            }
            self.snapshots.insert(id, Seen { parent, progress });
        }
        wrong
    }

    fn check(&self, id: i64, parent: Option<i64>, progress: &Progress) -> Option<String> {
        if self.by_operator.contains(&id) {
            return None;
        }
        let (before_id, before) =
            self.lineage(parent).find_map(|(id, seen)| Some((id, seen.progress.as_ref()?))).unzip();
        if before_id != self.newest {
            return Some(format!("snapshot {id} goes on from {before_id:?}, the newest ledger is {:?}", self.newest));
        }
        let before = before?;
        if !progress.ledger.not_behind(&before.ledger) {
            return Some(format!(
                "I3: snapshot {id} moves the ledger back: {:?} after {:?}",
                progress.ledger, before.ledger
            ));
        }
        (before.suspension.is_some() && before.suspension == progress.suspension)
            .then(|| format!("snapshot {id} was committed while the table was suspended"))
    }

    /// The snapshots from this one back.
    pub fn lineage(&self, from: Option<i64>) -> impl Iterator<Item = (i64, &Seen)> {
        let get = |id: i64| self.snapshots.get(&id).map(|seen| (id, seen));
        std::iter::successors(from.and_then(get), move |(_, seen)| seen.parent.and_then(get))
    }

    /// What was said of progress last, going back from a snapshot.
    #[must_use]
    pub fn progress(&self, from: Option<i64>) -> Option<&Progress> {
        self.lineage(from).find_map(|(_, seen)| seen.progress.as_ref())
    }

    /// True where some ledger has said that a partition is at `at`.
    #[must_use]
    pub fn was_committed(&self, source: &TopicPartition, at: NextOffset) -> bool {
        self.positions.contains(&(source.clone(), at))
    }

    /// Per topic and incarnation: the topic's id, the first and the last position of each partition that the lineage
    /// of `head` gives, and the partitions of its first ledger.
    #[must_use]
    pub fn incarnations(&self, head: Option<i64>) -> BTreeMap<(String, u32), Incarnation> {
        let mut found: BTreeMap<(String, u32), Incarnation> = BTreeMap::new();
        let lineage: Vec<_> = self.lineage(head).collect();
        for (id, seen) in lineage.into_iter().rev() {
            for (name, topic) in seen.progress.iter().flat_map(|progress| &progress.ledger.topics) {
                let key = (name.clone(), topic.incarnation);
                let first = !found.contains_key(&key);
                let incarnation = found.entry(key).or_default();
                incarnation.id = topic.topic_id.or(incarnation.id);
                for (partition, at) in &topic.partitions {
                    if !incarnation.ranges.contains_key(partition) && self.by_operator.contains(&id) {
                        incarnation.chosen.insert(*partition);
                    }
                    let range = incarnation.ranges.entry(*partition).or_insert((at.next.0, at.next.0));
                    range.1 = at.next.0;
                    if first {
                        incarnation.first.insert(*partition);
                    }
                }
            }
        }
        found
    }
}

/// One incarnation of a topic, as the ledgers of a lineage have it.
#[derive(Debug, Default, Clone)]
pub struct Incarnation {
    /// The topic's id.
    pub id: Option<Uuid>,
    /// Per partition where it began and where it is.
    pub ranges: BTreeMap<i32, (i64, i64)>,
    /// Partitions of its first ledger.
    pub first: BTreeSet<i32>,
    /// Partitions that a ledger of the operator's choice brought in: after a rollback to before they were there.
    pub chosen: BTreeSet<i32>,
}
