//! The role `index`: one follower for each table that has `index`, on threads of their own, and the search over them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connect;
use super::spec;
use crate::config::{Config, TableConfig};
use crate::error::{Error, Result};
use crate::lake::IcebergLake;
use crate::model::ids::{TableName, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::ports::{Embedder, Search};
use crate::runtime::budget::Budget;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::lane::Lane;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{self, Task, TaskKind};
use crate::seam::Seam;
use crate::telemetry::metrics::Metrics;
use crate::vector::{self, Follower, IndexSpec, Place, Searcher, Sources, StaticEmbedder, TableIndex};

/// Everything that the role has.
pub(super) struct Indexing {
    lane: Arc<Lane>,
    place: Place,
    embedder: Arc<dyn Embedder>,
    searcher: Arc<Searcher>,
    hot: Budget,
    compute: Compute,
    background: Compute,
    clock: Clock,
    running: BTreeMap<TableName, Running>,
}

struct Running {
    spec: IndexSpec,
    index: Arc<TableIndex>,
    stop: Shutdown,
    follower: Task,
}

impl Indexing {
    /// The role without any table yet.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no more threads.
    pub(super) fn new(config: &Config, compute: Compute, metrics: &Metrics, clock: &Clock) -> Result<Self> {
        let (threads, shares) = (connect::threads(config), connect::shares(config.memory_budget, config.tables.len()));
        let embedder: Arc<dyn Embedder> = Arc::new(StaticEmbedder);
        let hot = Budget::new("hot", shares.hot_bytes);
        metrics.watch_budget(&hot);
        Ok(Self {
            lane: Arc::new(Lane::new("index", threads)?),
            place: Place::new(&config.index.folder, shares.index_bytes),
            searcher: Arc::new(Searcher::new(Arc::clone(&embedder), threads, clock.clone())?),
            embedder,
            hot,
            compute,
            background: Compute::background(threads)?,
            clock: clock.clone(),
            running: BTreeMap::new(),
        })
    }

    /// The search over all its tables.
    pub(super) fn search(&self) -> Arc<dyn Search> {
        Arc::clone(&self.searcher) as Arc<dyn Search>
    }

    /// Begins with a table, where it is to be searched; begins anew where it is to be searched otherwise than before.
    pub(super) async fn add(
        &mut self,
        table: &TableConfig,
        lake: &Arc<IcebergLake>,
        seam: Option<Seam>,
        metrics: &Metrics,
    ) {
        let spec = spec::index_spec(table);
        if self.running.get(&table.table).map(|running| &running.spec) == spec.as_ref() {
            return;
        }
        self.remove(&table.table).await;
        let Some(spec) = spec else { return };
        let index = Arc::new(TableIndex::new(spec.clone(), self.hot.clone()));
        let sources = Sources {
            lake: Arc::clone(lake) as _,
            leases: Arc::clone(lake) as _,
            seam,
            embedder: Arc::clone(&self.embedder),
            compute: self.compute.clone(),
            background: self.background.clone(),
            clock: self.clock.clone(),
            metrics: metrics.table(&table.table),
        };
        let follower = Follower::new(Arc::clone(&index), self.place.clone(), sources);
        let (lane, stop) = (Arc::clone(&self.lane), Shutdown::new());
        let following = lane.run(follower.run(stop.clone()));
        let name = format!("index of {}", table.table);
        let follower = task::spawn(TaskKind::Background, name, async move { following.result().await? });
        self.searcher.add(Arc::clone(&index));
        self.running.insert(table.table.clone(), Running { spec, index, stop, follower });
    }

    /// Ends with a table.
    pub(super) async fn remove(&mut self, table: &TableName) {
        let Some(mut running) = self.running.remove(table) else { return };
        self.searcher.remove(table);
        running.stop.request();
        // What went wrong was logged where it did.
        let _ = running.follower.join().await;
    }

    /// Ends with tables that are not among `tables` any more.
    pub(super) async fn keep(&mut self, tables: &[TableConfig]) {
        let is_gone = |name: &&TableName| !tables.iter().any(|table| table.table == **name);
        let gone: Vec<TableName> = self.running.keys().filter(is_gone).cloned().collect();
        for table in gone {
            self.remove(&table).await;
        }
    }

    /// Ends with all.
    pub(super) async fn stop(mut self) {
        let tables: Vec<TableName> = self.running.keys().cloned().collect();
        for table in tables {
            self.remove(&table).await;
        }
    }

    /// Says where a table's index has ended by itself; the reason was logged.
    ///
    /// # Errors
    /// `Corrupt` for the first such table.
    pub(super) fn refuse_ended(&self) -> Result<()> {
        let ended = self.running.iter().find(|(_, running)| running.follower.is_finished());
        ended.map_or(Ok(()), |(table, _)| Err(Error::corrupt(format!("the index of `{table}` has ended, see the log"))))
    }

    /// Per partition the first offset that is not indexed; `None` for a table that is not to be.
    pub(super) fn indexed(&self, table: &TableName) -> Option<BTreeMap<TopicPartition, NextOffset>> {
        self.running.get(table).map(|running| running.index.indexed())
    }
}

/// Removes a table's index; a service with the role `index` makes it anew.
///
/// # Errors
/// `Unavailable` where its files cannot be removed.
pub async fn drop_index(config: &Config, table: &TableName) -> Result<()> {
    vector::drop_index(&config.index.folder, table).await
}
