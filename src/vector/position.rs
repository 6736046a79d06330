//! How far an index has come: what is noted beside its entries, once they are in.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::version::{AsOf, OffsetsByTopic, by_topic, from_topics};
use crate::ports::TableState;

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
    offsets: OffsetsByTopic,
    newest_ms: Option<i64>,
}

impl Position {
    /// All of `state` at `snapshot_id`.
    pub(super) fn of(state: &TableState, snapshot_id: i64, files_done: Option<usize>, batch: i64) -> Self {
        let offsets = by_topic(&state.offsets());
        Self { table_uuid: state.uuid, snapshot_id, files_done, batch, offsets, newest_ms: state.newest_ms }
    }

    /// What can be found in the index alone: nothing for certain before its first reading is done.
    pub(super) fn as_of(&self) -> AsOf {
        if self.files_done.is_some() {
            return AsOf::default();
        }
        let offsets = from_topics(&self.offsets);
        AsOf { snapshot_id: Some(self.snapshot_id), offsets, newest_ms: self.newest_ms }
    }
}
