//! A running service: one driver per table over shared connections, and the listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::agents;
use super::connect;
use super::datasets::LiveDatasets;
use super::following::Following;
use super::indexing::Indexing;
use super::keeping::{Discovery, Feed, SharedReading, stop_senders, stop_table};
use super::maintain::Upkeep;
use super::sharing::Request;
use super::views::TableViews;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::http::auth::{Scope, require_with};
use crate::http::{self, Server};
use crate::kafka::Kafka;
use crate::lake::IcebergLake;
use crate::mcp;
use crate::model::ids::{TableName, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::pipeline::driver::TableSpec;
use crate::ports::{CatalogView, Lake, Recovery, Registry, Search, Source, Sql, SqlLimits, TableState};
use crate::rest_catalog;
use crate::runtime::budget::Budget;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{self, Task, TaskKind};
use crate::seam::Seam;
use crate::telemetry::health::{Health, TableHealth};
use crate::telemetry::metrics::Metrics;

/// Requests under way to the service itself.
const REQUESTS: usize = 16;

/// A table being kept.
pub struct TableHandle {
    /// What it is to be.
    pub spec: Arc<TableSpec>,
    /// Its topics.
    pub source: Arc<dyn Source>,
    /// Its newest state seen.
    pub state: watch::Receiver<Option<TableState>>,
    pub(super) feed: Feed,
    pub(super) stop: Shutdown,
    pub(super) driver: Task,
    pub(super) lag: Task,
    /// What sends its dead letters to their topic, and what ends that.
    pub(super) letters: Option<(Shutdown, Task)>,
    pub(super) seam: Seam,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a process has any of them")]
pub struct Roles {
    /// Reads topics and commits tables.
    pub ingest: bool,
    /// Keeps tables healthy.
    pub maintain: bool,
    /// Keeps search indexes.
    pub index: bool,
    /// Shows in fresh answers what other processes have not committed yet.
    pub serve: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { ingest: true, maintain: true, index: true, serve: true }
    }
}

/// Everything that runs.
pub struct Service {
    pub(super) config: Config,
    pub(super) roles: Roles,
    /// Whether it is to end where its topics end.
    pub(super) until_caught_up: bool,
    pub(super) clock: Clock,
    pub(super) compute: Compute,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) lake: Arc<IcebergLake>,
    pub(super) views: Arc<TableViews<IcebergLake>>,
    sql: Arc<dyn Sql>,
    pub(super) datasets: Arc<LiveDatasets>,
    pub(super) tail: Budget,
    pub(super) registry: Option<Arc<dyn Registry>>,
    pub(super) kafka: Kafka,
    pub(super) tables: BTreeMap<TableName, TableHandle>,
    /// Readings that several tables share.
    pub(super) readings: Vec<SharedReading>,
    pub(super) discovery: Discovery,
    /// What tasks of the service ask of it.
    pub(super) requests: (mpsc::Sender<Request>, mpsc::Receiver<Request>),
    pub(super) following: Option<Following>,
    pub(super) indexing: Option<Indexing>,
    /// The tables to maintain, and the task that does it.
    pub(super) maintained: watch::Sender<Vec<TableName>>,
    upkeep: Option<Task>,
    upkeep_stop: Shutdown,
    listener: Task,
    listener_stop: Shutdown,
    pub(super) listener_tls: Option<http::tls::Tls>,
    /// Where the listener listens.
    pub listen: std::net::SocketAddr,
}

/// Where the topics ended when it was asked.
pub struct Ends {
    stable: BTreeMap<TableName, BTreeMap<TopicPartition, NextOffset>>,
    /// Offsets between the ledgers and these ends, when it was asked.
    pub total: u64,
}

impl Service {
    /// Starts everything. Services that are away are waited for afterwards, by each table.
    ///
    /// # Errors
    /// `InvalidConfig` where something cannot be as configured, the address in use included.
    pub async fn start(config: Config, roles: Roles, until_caught_up: bool, clock: Clock) -> Result<Self> {
        let discovery = Discovery::new(config.clone());
        let compute = Compute::pool(connect::threads(&config))?;
        let health = Health::new();
        let metrics = Metrics::new(health.clone());
        let (catalog, stores) = connect::open_catalog(&config, &clock)?;
        let lake = Arc::new(connect::lake(&config, catalog, stores, &compute, &clock));
        let views = Arc::new(TableViews::new(Arc::clone(&lake), clock.clone()));
        let sql: Arc<dyn Sql> = Arc::new(connect::sql(&config, Arc::clone(&views), Arc::clone(&lake), &clock)?);
        let registry = connect::registry(&config, &clock)?;
        let engines =
            rest_catalog::routes(Arc::clone(&lake) as Arc<dyn CatalogView>, connect::rest_catalog_options(&config));
        let indexing = roles.index.then(|| Indexing::new(&config, compute.clone(), &metrics, &clock)).transpose()?;
        let search = indexing.as_ref().map(Indexing::search);
        let datasets = agents::datasets(&lake, &views, search.clone(), &health, &clock);
        let asked =
            agents::ports(&config, sql.clone(), &lake, datasets.clone(), search.clone(), registry.clone(), &clock);
        let routes = http::operations(health.clone(), metrics.clone())
            .merge(http::search::routes(search))
            .merge(http::sql::routes(Arc::clone(&sql), connect::sql_limits(&config)))
            .merge(mcp::routes(asked, agents::options(&config), clock.clone()))
            .merge(require_with(Scope::Read, engines, |no| rest_catalog::refuse(no.status, no.message)));
        let options = connect::http_options(&config.server, config.shutdown_timeout / 2);
        let server = Server::bind(&options, routes, clock.clone()).await?;
        let (listen, listener_tls) = (server.local_addr(), server.tls());
        let (listener_stop, upkeep_stop) = (Shutdown::new(), Shutdown::new());
        let listener = task::spawn(TaskKind::Server, "listener", server.serve(listener_stop.clone()));
        let tail = Budget::new("tail", connect::shares(config.memory_budget, config.tables.len()).tail_bytes);
        metrics.watch_budget(&tail);
        let kafka = Kafka::open(&connect::kafka_options(&config, config.tables.len()), clock.clone())?;
        tracing::info!(%listen, tables = config.tables.len(), "started");
        let (maintained, tables) = watch::channel(Vec::new());
        let upkeep = match roles.maintain {
            true => Some(upkeep(&config, &lake, &metrics, &clock)?.run(tables, upkeep_stop.clone())),
            false => None,
        };
        let upkeep = upkeep.map(|run| task::spawn(TaskKind::Background, "maintenance", run));
        let following = roles.serve.then(|| Following::new(&config, &clock));
        let mut service = Self {
            config,
            roles,
            until_caught_up,
            maintained,
            upkeep,
            upkeep_stop,
            clock,
            compute,
            health,
            metrics,
            lake,
            views,
            sql,
            datasets,
            tail,
            registry,
            kafka,
            tables: BTreeMap::new(),
            readings: Vec::new(),
            discovery,
            requests: mpsc::channel(REQUESTS),
            following,
            indexing,
            listener,
            listener_stop,
            listener_tls,
            listen,
        };
        service.begin().await?;
        Ok(service)
    }

    /// The tables being kept.
    #[must_use]
    pub fn tables(&self) -> &BTreeMap<TableName, TableHandle> {
        &self.tables
    }

    /// Its SQL, and what one query may use.
    pub(super) fn sql(&self) -> (Arc<dyn Sql>, SqlLimits) {
        (Arc::clone(&self.sql), connect::sql_limits(&self.config))
    }

    /// Its search, where it has the role.
    pub(super) fn search(&self) -> Option<Arc<dyn Search>> {
        self.indexing.as_ref().map(Indexing::search)
    }

    /// Where all topics end now; `None` while a topic or its table is not there yet.
    ///
    /// # Errors
    /// `Corrupt` where a table stopped or was suspended.
    pub async fn ends(&self) -> Result<Option<Ends>> {
        self.refuse_stopped()?;
        if !self.discovery.has_asked {
            return Ok(None);
        }
        let mut stable = BTreeMap::new();
        let mut total = 0;
        for (name, handle) in &self.tables {
            let Some(state) = handle.state.borrow().clone() else { return Ok(None) };
            let mut partitions = Vec::new();
            for topic in &handle.spec.settings.topics {
                let Some(facts) = waited(handle.source.topic(topic).await)?.flatten() else { return Ok(None) };
                partitions
                    .extend(facts.partitions.iter().map(|partition| TopicPartition::new(topic.as_str(), *partition)));
            }
            let Some(ranges) = waited(handle.source.watermarks(&partitions).await)? else { return Ok(None) };
            for source in &partitions {
                let Some(range) = ranges.get(source) else { return Ok(None) };
                let from = position(&state, source).unwrap_or(range.low).max(range.low);
                total += u64::try_from(range.stable.0 - from.0).unwrap_or(0);
            }
            stable.insert(name.clone(), ranges.into_iter().map(|(source, range)| (source, range.stable)).collect());
        }
        Ok(Some(Ends { stable, total }))
    }

    /// Offsets between the ledgers and `ends`.
    ///
    /// # Errors
    /// `Corrupt` where a table stopped or was suspended.
    pub async fn left(&self, ends: &Ends) -> Result<u64> {
        self.refuse_stopped()?;
        let mut left = 0;
        for (name, handle) in &self.tables {
            // A route's table may have come since: its records end where the route's do.
            let of_route = || ends.stable.get(self.leader(name)?);
            let Some(ends) = ends.stable.get(name).or_else(of_route) else { continue };
            let mut state = handle.state.borrow().clone();
            let behind = |state: &Option<TableState>| {
                let at = |source: &TopicPartition| state.as_ref().and_then(|state| position(state, source));
                // A partition that the ledger does not know is behind even where there is nothing to read.
                let one = |(source, end): (&TopicPartition, &NextOffset)| match at(source) {
                    Some(at) => u64::try_from(end.0 - at.0).unwrap_or(0),
                    None => u64::try_from(end.0).unwrap_or(0).max(1),
                };
                ends.iter().map(one).sum::<u64>()
            };
            if behind(&state) > 0 {
                // Another replica may be the one that commits some of the partitions.
                if let Some(newer) = waited(self.lake.load(name).await)?.flatten() {
                    state = Some(newer);
                }
            }
            left += behind(&state);
            if let Some(indexed) = self.indexing.as_ref().and_then(|indexing| indexing.indexed(name)) {
                let at = |source: &TopicPartition| indexed.get(source).map_or(0, |next| next.0);
                let one = |(source, end): (&TopicPartition, &NextOffset)| end.0 - at(source);
                left += u64::try_from(ends.iter().map(one).map(|left| left.max(0)).sum::<i64>()).unwrap_or(0);
            }
        }
        Ok(left)
    }

    fn refuse_stopped(&self) -> Result<()> {
        self.indexing.as_ref().map_or(Ok(()), Indexing::refuse_ended)?;
        self.refuse_ended_readings()?;
        for (name, health) in self.health.snapshot().tables {
            if let TableHealth::Suspended { reason } | TableHealth::Stopped { reason } = health {
                return Err(Error::corrupt(format!("table `{name}` cannot catch up: {reason}")));
            }
        }
        Ok(())
    }

    /// Stops: commits what is begun, leaves the group, closes the listener. Who is late is named.
    pub async fn stop(mut self) {
        let timeout = self.config.shutdown_timeout;
        self.upkeep_stop.request();
        let indexing = self.indexing.take();
        for handle in self.tables.values() {
            handle.stop.request();
        }
        let mut senders = Vec::new();
        for (name, mut handle) in std::mem::take(&mut self.tables) {
            senders.extend(handle.letters.take().map(|sender| (name.clone(), sender)));
            stop_table(&name, handle, timeout, &self.clock).await;
        }
        stop_senders(senders, timeout, &self.clock).await;
        self.stop_reading();
        if self.clock.timeout(timeout, self.kafka.close()).await.is_none() {
            tracing::warn!("leaving the consumer group took too long; the broker will notice by itself");
        }
        if let Some(indexing) = indexing
            && self.clock.timeout(timeout, indexing.stop()).await.is_none()
        {
            tracing::warn!("indexing did not stop in time; what it had not noted is indexed again next time");
        }
        if let Some(upkeep) = &mut self.upkeep
            && self.clock.timeout(timeout, upkeep.join()).await.is_none()
        {
            tracing::warn!("maintenance did not stop in time; what it had not committed is done again next time");
        }
        self.listener_stop.request();
        if self.clock.timeout(timeout, self.listener.join()).await.is_none() {
            tracing::warn!("the listener did not close in time");
        }
        tracing::info!("stopped");
    }
}

fn upkeep(config: &Config, lake: &Arc<IcebergLake>, metrics: &Metrics, clock: &Clock) -> Result<Upkeep> {
    let maintainer = connect::maintainer(config, Arc::clone(lake))?;
    Ok(Upkeep { maintainer, metrics: metrics.clone(), clock: clock.clone(), interval: config.maintenance.interval })
}

/// The ledger's position of a partition.
pub(super) fn position(state: &TableState, source: &TopicPartition) -> Option<NextOffset> {
    let Recovery::At(progress) = &state.recovery else { return None };
    progress.ledger.position(source).map(|position| position.next)
}

/// The answer; `None` where it is to be asked for again.
fn waited<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}
