//! Tables as readers see them: through the seam where this process keeps the table, else as the catalog has them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::ids::TableName;
use crate::model::version::{Consistency, SnapshotAt};
use crate::ports::{Lake, LakeReader};
use crate::runtime::clock::Clock;
use crate::seam::{Seam, View, Views};

/// How long an answer may be behind other writers' commits.
const VERSION_POLL: Duration = Duration::from_millis(200);
/// How long a fresh view may take to become whole.
const FRESH_PATIENCE: Duration = Duration::from_secs(15);

/// All tables of the catalog, those that are kept here with their tails.
pub struct TableViews<L> {
    lake: Arc<L>,
    clock: Clock,
    seams: RwLock<BTreeMap<TableName, Seam>>,
    /// When the catalog was asked last for each.
    asked: Mutex<BTreeMap<TableName, Duration>>,
}

impl<L: Lake + LakeReader> TableViews<L> {
    /// Views of the tables in `lake`; none is kept here yet.
    pub fn new(lake: Arc<L>, clock: Clock) -> Self {
        Self { lake, clock, seams: RwLock::default(), asked: Mutex::default() }
    }

    /// Shows a table's tail from now on.
    pub fn add(&self, table: &TableName, seam: Seam) {
        self.seams.write().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), seam);
    }

    /// Shows a table as committed only.
    pub fn remove(&self, table: &TableName) {
        self.seams.write().unwrap_or_else(PoisonError::into_inner).remove(table);
    }

    fn seam(&self, table: &TableName) -> Option<Seam> {
        self.seams.read().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    fn is_due(&self, table: &TableName) -> bool {
        let now = self.clock.elapsed();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = asked.get(table).is_none_or(|at| now.saturating_sub(*at) >= VERSION_POLL);
        if due {
            asked.insert(table.clone(), now);
        }
        due
    }
}

#[async_trait]
impl<L: Lake + LakeReader> Views for TableViews<L> {
    async fn view(&self, table: &TableName, consistency: &Consistency) -> Result<Option<View>> {
        let at = match consistency {
            Consistency::At(at) => *at,
            Consistency::Committed | Consistency::Fresh(_) => SnapshotAt::Current,
        };
        if let (Consistency::Fresh(least), Some(seam)) = (consistency, self.seam(table)) {
            // Partitions that another process reads move only in the catalog. One that is away holds no answer back:
            // what was seen last is committed all the same, and the answer says how far it reaches.
            if self.is_due(table)
                && let Ok(Some(state)) = self.lake.load(table).await
            {
                seam.publish(&state);
            }
            return seam.fresh(least, &self.clock, FRESH_PATIENCE).await.map(Some);
        }
        Ok(self.lake.at(table, at).await?.map(|state| View::committed(Arc::new(state))))
    }
}
