//! How far an index has come: what is noted beside its entries, once they are in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::version::AsOf;
use crate::ports::TableState;
use crate::seam::View;

/// Per partition the first offset that is not in.
pub(super) type Offsets = BTreeMap<TopicPartition, NextOffset>;

/// A place in a table's history, as it is stored with the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The table; another one under the same name has other rows.
    pub(super) table_uuid: Uuid,
    /// The snapshot whose rows are in.
    pub(super) snapshot_id: i64,
    /// The number of its files whose rows are in, while it is read for the first time; `None` once all are.
    pub(super) files_done: Option<usize>,
    /// Entries of later batches are left over from an application that was not noted.
    pub(super) batch: i64,
    offsets: BTreeMap<String, BTreeMap<i32, i64>>,
    newest_ms: Option<i64>,
}

impl Position {
    /// All of `state` at `snapshot_id`.
    pub(super) fn of(state: &TableState, snapshot_id: i64, files_done: Option<usize>, batch: i64) -> Self {
        let as_of = View::committed(state.clone().into()).as_of;
        let mut offsets: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (source, next) in as_of.offsets {
            offsets.entry(source.topic.to_string()).or_default().insert(source.partition, next.0);
        }
        Self { table_uuid: state.uuid, snapshot_id, files_done, batch, offsets, newest_ms: as_of.newest_ms }
    }

    /// What can be found in the index alone: nothing for certain before its first reading is done.
    pub(super) fn as_of(&self) -> AsOf {
        if self.files_done.is_some() {
            return AsOf { snapshot_id: None, offsets: BTreeMap::new(), newest_ms: None };
        }
        let all = self.offsets.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(p, next)| (TopicPartition::new(topic.as_str(), *p), NextOffset(*next)))
        });
        AsOf { snapshot_id: Some(self.snapshot_id), offsets: all.collect(), newest_ms: self.newest_ms }
    }
}
