//! The tables as those see them who look for data: the catalog's, with what this process knows of those that it fills.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use crate::config::fields::Partitioning;
use crate::error::Result;
use crate::model::ids::{TableName, TopicPartition};
use crate::model::version::{Consistency, SnapshotAt};
use crate::pipeline::driver::TableSpec;
use crate::ports::{Dataset, Datasets, Freshness, Health as Reported, LakeReader, Reached, Search, Source};
use crate::runtime::clock::Clock;
use crate::seam::Views;
use crate::telemetry::health::{Health, TableHealth};

/// How long brokers, and a view of the tail, may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A table that this process fills, or that its configuration names.
struct Fed {
    spec: Arc<TableSpec>,
    /// Its topics, where this process reads them.
    source: Option<Arc<dyn Source>>,
}

/// The catalog's tables.
pub(super) struct LiveDatasets {
    lake: Arc<dyn LakeReader>,
    views: Arc<dyn Views>,
    search: Option<Arc<dyn Search>>,
    health: Health,
    clock: Clock,
    fed: RwLock<BTreeMap<TableName, Arc<Fed>>>,
}

impl LiveDatasets {
    /// The tables of `lake`; none is filled here yet.
    pub(super) fn new(
        lake: Arc<dyn LakeReader>,
        views: Arc<dyn Views>,
        search: Option<Arc<dyn Search>>,
        health: Health,
        clock: Clock,
    ) -> Self {
        Self { lake, views, search, health, clock, fed: RwLock::default() }
    }

    /// A table that the configuration names and another process may fill.
    pub(super) fn name(&self, spec: Arc<TableSpec>) {
        self.put(Fed { spec, source: None });
    }

    /// A table that this process fills from now on.
    pub(super) fn add(&self, spec: Arc<TableSpec>, source: Arc<dyn Source>) {
        self.put(Fed { spec, source: Some(source) });
    }

    /// This process has let go of the table.
    pub(super) fn remove(&self, table: &TableName) {
        self.fed.write().unwrap_or_else(PoisonError::into_inner).remove(table);
    }

    fn put(&self, fed: Fed) {
        let table = fed.spec.settings.table.clone();
        self.fed.write().unwrap_or_else(PoisonError::into_inner).insert(table, Arc::new(fed));
    }

    fn fed(&self, table: &TableName) -> Option<Arc<Fed>> {
        self.fed.read().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }

    fn dataset(&self, table: TableName, health: Option<&TableHealth>) -> Dataset {
        let fed = self.fed(&table);
        let health = match (&fed, health) {
            (Some(fed), Some(health)) if fed.source.is_some() => reported(health),
            _ => Reported::NotHere,
        };
        let spec = fed.as_ref().map(|fed| &fed.spec);
        Dataset {
            table,
            topics: spec.map_or_else(Vec::new, |spec| spec.settings.topics.clone()),
            partition_by: spec.map_or_else(Vec::new, |spec| {
                spec.partition_by.iter().map(|field| Partitioning(field.clone()).to_string()).collect()
            }),
            health,
        }
    }

    /// The ends of a table's topics in Kafka.
    async fn ends(&self, fed: &Fed, reached: &mut Partitions, unknown: &mut Vec<String>) {
        let Some(source) = &fed.source else {
            return unknown.push("this process does not read the topics: their ends are not known".to_owned());
        };
        let ask = async {
            let mut partitions = Vec::new();
            for topic in &fed.spec.settings.topics {
                let facts = source.topic(topic).await?;
                let numbers = facts.into_iter().flat_map(|facts| facts.partitions);
                partitions.extend(numbers.map(|number| TopicPartition::new(topic.as_str(), number)));
            }
            source.watermarks(&partitions).await
        };
        match self.clock.timeout(PATIENCE, ask).await {
            Some(Ok(ranges)) => {
                for (source, range) in ranges {
                    let reached = reached.entry(source).or_default();
                    (reached.high, reached.stable) = (Some(range.high), Some(range.stable));
                }
            }
            Some(Err(error)) => unknown.push(format!("the ends of the topics: {}", error.chain())),
            None => unknown.push(format!("the ends of the topics: the brokers did not answer within {PATIENCE:?}")),
        }
    }

    /// What queries see beyond what is committed.
    async fn visible(&self, table: &TableName, found: &mut Freshness) {
        let fresh = Consistency::Fresh(BTreeMap::new());
        match self.clock.timeout(PATIENCE, self.views.view(table, &fresh)).await {
            Some(Ok(Some(view))) => {
                for (source, next) in view.as_of.offsets {
                    found.partitions.entry(source).or_default().visible = Some(next);
                }
                found.newest_ms = view.as_of.newest_ms;
            }
            Some(Ok(None)) => {}
            Some(Err(error)) => found.unknown.push(format!("what queries see: {}", error.chain())),
            None => found.unknown.push(format!("what queries see: no whole view within {PATIENCE:?}")),
        }
    }
}

type Partitions = BTreeMap<TopicPartition, Reached>;

fn reported(health: &TableHealth) -> Reported {
    let (word, reason) = match health {
        TableHealth::Ok => return Reported::Ok,
        TableHealth::Starting => ("starting", "it has not reached its topics and its table yet".to_owned()),
        TableHealth::Waiting { on, error, .. } => ("waiting", format!("for {}: {error}", on.as_str())),
        TableHealth::Suspended { reason } => ("suspended", reason.clone()),
        TableHealth::Stopped { reason } => ("stopped", reason.clone()),
    };
    Reported::Not { word, reason }
}

#[async_trait]
impl Datasets for LiveDatasets {
    async fn list(&self) -> Result<Vec<Dataset>> {
        let mut names = self.lake.tables().await?;
        let fed = self.fed.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect::<Vec<_>>();
        names.extend(fed);
        names.sort();
        names.dedup();
        let health = self.health.snapshot().tables;
        Ok(names.into_iter().map(|table| self.dataset(table.clone(), health.get(&table))).collect())
    }

    async fn freshness(&self, table: &TableName) -> Result<Option<Freshness>> {
        let fed = self.fed(table);
        let state = self.lake.at(table, SnapshotAt::Current).await?;
        if state.is_none() && fed.is_none() {
            return Ok(None);
        }
        let health = self.health.snapshot().tables;
        let mut found = Freshness {
            dataset: self.dataset(table.clone(), health.get(table)),
            snapshot_id: state.as_ref().and_then(|state| state.snapshot_id),
            rows: state.as_ref().map_or(0, |state| state.rows),
            newest_ms: state.as_ref().and_then(|state| state.newest_ms),
            partitions: BTreeMap::new(),
            unknown: Vec::new(),
        };
        if let Some(state) = &state {
            for (source, next) in state.offsets() {
                found.partitions.entry(source).or_default().committed = Some(next);
            }
            self.visible(table, &mut found).await;
        }
        if let Some(fed) = &fed {
            self.ends(fed, &mut found.partitions, &mut found.unknown).await;
        }
        let indexes = self.search.as_ref().map_or_else(Vec::new, |search| search.indexes());
        for index in indexes.into_iter().filter(|index| index.table == *table) {
            for (source, next) in index.indexed.offsets {
                found.partitions.entry(source).or_default().indexed = Some(next);
            }
        }
        Ok(Some(found))
    }
}
