//! Which tables a service keeps: those of the configuration, of patterns as topics come, and of routes as values come;
//! how each is taken up and let go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::connect;
use super::lag;
use super::letter_topic::LetterSender;
use super::route_field::RouteField;
use super::service::{Service, TableHandle};
use super::sharing::{Group, Join, Request, RouteTables, groups};
use super::spec;
use crate::config::origin::RouteBy;
use crate::config::{Config, TableConfig};
use crate::error::{Error, Result};
use crate::http;
use crate::kafka::TableId;
use crate::model::ids::TableName;
use crate::pipeline::driver::{self, FollowPorts, Ports, TableSpec};
use crate::pipeline::event::StartAt;
use crate::ports::{Lake, Source, SourceEvent};
use crate::route::{By, Classifier, Hub, MemberId, Route, Shared, Takes};
use crate::runtime::budget::Budget;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{self, Task, TaskKind};
use crate::seam::Seam;
use crate::telemetry::health::TableHealth;

/// How often the brokers are asked for new topics, where patterns look for them.
const TOPICS_INTERVAL: Duration = Duration::from_secs(10);

/// Whence a table's records come.
pub(super) enum Feed {
    /// From a reading of its own.
    Own(TableId),
    /// From one that it shares.
    Shared(Arc<Shared>, MemberId),
}

/// A reading that several tables share.
pub(super) struct SharedReading {
    group: Group,
    shared: Arc<Shared>,
    id: TableId,
    hub: Task,
    stop: Shutdown,
    /// The route's tables among those that it feeds.
    of_values: Vec<TableConfig>,
}

/// The topics that patterns look among.
pub(super) struct Discovery {
    /// The configuration as written.
    written: Config,
    /// All topics ever seen: one that is deleted keeps its table.
    topics: BTreeSet<String>,
    /// False until the brokers were asked once.
    pub(super) has_asked: bool,
    asker: Option<Task>,
}

impl Discovery {
    pub(super) fn new(written: Config) -> Self {
        Self { has_asked: written.patterns.is_empty(), written, topics: BTreeSet::new(), asker: None }
    }
}

impl Service {
    fn spec(&self, config: &Config, table: &TableConfig) -> Result<Arc<TableSpec>> {
        let mut spec = spec::table_spec(config, table)?;
        // Nothing is waited for that would make a later commit larger.
        spec.settings.commit_at_ends = self.until_caught_up;
        Ok(Arc::new(spec))
    }

    /// Takes up all tables.
    pub(super) async fn begin(&mut self) -> Result<()> {
        let config = self.config.clone();
        self.take_up(&config.tables).await?;
        self.look_for_topics()?;
        self.health.set_started();
        Ok(())
    }

    /// Takes up those of `tables` that are not kept yet.
    async fn take_up(&mut self, tables: &[TableConfig]) -> Result<()> {
        let config = self.config.clone();
        if self.roles.ingest {
            for group in groups(tables)? {
                if !self.readings.iter().any(|reading| reading.group == group) {
                    self.share(group)?;
                }
            }
        }
        for table in tables {
            let name = &table.table;
            let seam = match self.tables.get(name) {
                Some(handle) => Some(handle.seam.clone()),
                None => {
                    let spec = self.spec(&config, table)?;
                    self.datasets.name(Arc::clone(&spec));
                    match self.roles.ingest {
                        true => Some(self.add(spec)?),
                        // A follower reads whole topics: it cannot tell which records are a route's table's.
                        false if table.route.is_some() => None,
                        false => self.only_follow(spec),
                    }
                }
            };
            self.index(table, seam).await;
        }
        self.show_maintained();
        Ok(())
    }

    fn show_maintained(&self) {
        let of_values = self.readings.iter().flat_map(|reading| &reading.of_values);
        let all = self.config.tables.iter().chain(of_values).map(|table| table.table.clone());
        self.maintained.send_replace(all.collect());
    }

    async fn index(&mut self, table: &TableConfig, seam: Option<Seam>) {
        if let Some(indexing) = &mut self.indexing {
            indexing.add(table, &self.lake, seam, &self.metrics).await;
        }
    }

    // Readings.

    /// Begins the reading that a group shares; its tables join it one by one.
    fn share(&mut self, group: Group) -> Result<()> {
        let bytes = self.raw_bytes() * group.tables.len();
        let (source, id, events) = self.read(group.topics(), bytes)?;
        let (shared, commands) = Shared::new(Arc::clone(&source));
        let route = group.routed().map(|table| self.route(table)).transpose()?;
        let hub = Hub::new(source, route, self.until_caught_up, self.clock.clone());
        let stop = Shutdown::new();
        let name = format!("reading of {}", group.topics().join(", "));
        let hub = task::spawn(TaskKind::Table, name, hub.run(commands, events, stop.clone()));
        let shared = Arc::new(shared);
        self.readings.push(SharedReading { group, shared, id, hub, stop, of_values: Vec::new() });
        Ok(())
    }

    fn route(&self, table: &TableConfig) -> Result<Route> {
        let Some(route) = &table.route else { return Err(Error::bug("a route without a template")) };
        let (registry, compute, clock) = (self.registry.clone(), self.compute.clone(), self.clock.clone());
        let tables = RouteTables {
            config: table.clone(),
            lake: Arc::clone(&self.lake),
            registry: registry.clone(),
            requests: self.requests.0.clone(),
            health: self.health.clone(),
            clock: clock.clone(),
        };
        let by = match &route.by {
            RouteBy::RecordName => By::RecordName,
            RouteBy::Header(name) => By::Header(name.clone()),
            RouteBy::Field(path) => {
                let spec = spec::table_spec(&self.config, table)?;
                By::Field(Arc::new(RouteField::new(&spec, path, registry.clone(), clock.clone(), compute.clone())?))
            }
        };
        Ok(Route {
            classifier: Classifier::new(by, registry, compute, clock)?,
            tables: Arc::new(tables),
            topics: table.topics.clone(),
        })
    }

    fn raw_bytes(&self) -> usize {
        connect::shares(self.config.memory_budget, self.config.tables.len()).raw_bytes
    }

    fn read(
        &self,
        topics: Vec<String>,
        bytes: usize,
    ) -> Result<(Arc<dyn Source>, TableId, mpsc::Receiver<SourceEvent>)> {
        let budget = Budget::new("raw", bytes);
        self.metrics.watch_budget(&budget);
        let (source, events) = self.kafka.add_table(topics, budget)?;
        let id = source.id();
        Ok((source, id, events))
    }

    /// The records of a table: from the reading that it shares, or from one of its own.
    fn feed(&self, spec: &TableSpec, takes: Takes) -> Result<(Arc<dyn Source>, mpsc::Receiver<SourceEvent>, Feed)> {
        let (name, topics) = (&spec.settings.table, spec.settings.topics.clone());
        let has = |reading: &&SharedReading| {
            reading.group.has(name) || reading.of_values.iter().any(|table| table.table == *name)
        };
        if let Some(reading) = self.readings.iter().find(has) {
            let (source, events) = reading.shared.join(topics, takes);
            let feed = Feed::Shared(Arc::clone(&reading.shared), source.id());
            return Ok((source, events, feed));
        }
        let (source, id, events) = self.read(topics, self.raw_bytes())?;
        Ok((source, events, Feed::Own(id)))
    }

    // Tables.

    fn add(&mut self, spec: Arc<TableSpec>) -> Result<Seam> {
        let name = &spec.settings.table;
        let spreads = |reading: &SharedReading| reading.group.routed().is_some_and(|table| table.table == *name);
        let takes = if self.readings.iter().any(spreads) { Takes::Unrouted } else { Takes::All };
        self.add_taking(spec, takes)
    }

    fn add_taking(&mut self, spec: Arc<TableSpec>, takes: Takes) -> Result<Seam> {
        let name = spec.settings.table.clone();
        let is_of_value = matches!(takes, Takes::Value(_) | Takes::Unrouted);
        let (source, events, feed) = self.feed(&spec, takes)?;
        let metrics = self.metrics.table(&name);
        let seam = Seam::new(self.tail.clone());
        let ports = Ports {
            source: Arc::clone(&source),
            registry: self.registry.clone(),
            lake: Arc::clone(&self.lake) as Arc<dyn Lake>,
            clock: self.clock.clone(),
            compute: self.compute.clone(),
            health: self.health.clone(),
            metrics: Arc::clone(&metrics),
            seam: Some(seam.clone()),
        };
        self.health.set_table(&name, TableHealth::Starting);
        let (sender, state) = watch::channel(None);
        let stop = Shutdown::new();
        let run = driver::run(Arc::clone(&spec), ports, events, sender, stop.clone());
        let driver = task::spawn(TaskKind::Table, name.to_string(), run);
        let watch = lag::watch(Arc::clone(&source), seam.clone(), state.clone(), metrics, self.clock.clone());
        let lag = task::spawn(TaskKind::Background, format!("lag of {name}"), watch);
        self.views.add(&name, seam.clone());
        if !is_of_value {
            self.follow(&spec, &seam);
        }
        self.datasets.add(Arc::clone(&spec), Arc::clone(&source));
        let letters = spec.dead_letter_topic.as_ref().map(|topic| self.send_letters(&name, topic));
        let handle = TableHandle { spec, source, state, feed, stop, driver, lag, letters, seam: seam.clone() };
        self.tables.insert(name, handle);
        Ok(seam)
    }

    fn send_letters(&self, table: &TableName, topic: &str) -> (Shutdown, Task) {
        let sender = LetterSender {
            table: table.clone(),
            topic: topic.to_owned(),
            options: connect::kafka_options(&self.config, 1),
            lake: Arc::clone(&self.lake),
            clock: self.clock.clone(),
            metrics: self.metrics.table(table),
            until_caught_up: self.until_caught_up,
        };
        let stop = Shutdown::new();
        let run = sender.run(stop.clone());
        (stop, task::spawn(TaskKind::Background, format!("dead letters of {table}"), run))
    }

    /// A table that other processes ingest; `None` without the role.
    fn only_follow(&mut self, spec: Arc<TableSpec>) -> Option<Seam> {
        self.following.as_ref()?;
        let seam = Seam::new(self.tail.clone());
        self.views.add(&spec.settings.table, seam.clone());
        self.follow(&spec, &seam);
        Some(seam)
    }

    fn follow(&mut self, spec: &Arc<TableSpec>, seam: &Seam) {
        let Some(following) = &mut self.following else { return };
        let ports = FollowPorts {
            open: following.opener(spec),
            registry: self.registry.clone(),
            lake: Arc::clone(&self.lake) as Arc<dyn Lake>,
            clock: self.clock.clone(),
            compute: self.compute.clone(),
            metrics: self.metrics.table(&spec.settings.table),
            seam: seam.clone(),
        };
        following.add(Arc::clone(spec), ports);
    }

    // Changes while it runs.

    /// The next thing that is asked of the service.
    pub(super) async fn request(&mut self) -> Request {
        match self.requests.1.recv().await {
            Some(request) => request,
            // It holds a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Does what is asked.
    pub(super) async fn serve(&mut self, request: Request) {
        let result = match request {
            Request::Join(join) => self.join(join).await,
            Request::Topics(topics) => self.found(topics).await,
        };
        if let Err(error) = result {
            tracing::error!(error = %error.chain(), "tables not taken up");
        }
    }

    /// Takes up the table of a route's value.
    async fn join(&mut self, join: Join) -> Result<()> {
        let Join { route, table, value, subject, looked, done } = join;
        if !self.tables.contains_key(&table) {
            let Some(reading) = self.readings.iter_mut().find(|reading| reading.group.has(&route)) else {
                return Ok(());
            };
            let Some(entry) = reading.group.routed().filter(|entry| entry.table == route) else { return Ok(()) };
            let config = entry.of_value(table.clone(), &value);
            reading.of_values.push(config.clone());
            let mut spec = TableSpec::clone(&*self.spec(&self.config, &config)?);
            spec.settings.start = StartAt::Positions(looked);
            spec.subjects.value = subject.unwrap_or(spec.subjects.value);
            tracing::info!(%table, %route, "a route's table joins");
            let seam = self.add_taking(Arc::new(spec), Takes::Value(value.into()))?;
            self.index(&config, Some(seam)).await;
            self.show_maintained();
        }
        let _ = done.send(());
        Ok(())
    }

    /// Has the brokers asked for topics from now on, where patterns look for them.
    fn look_for_topics(&mut self) -> Result<()> {
        if self.discovery.written.patterns.is_empty() || self.discovery.asker.is_some() {
            return Ok(());
        }
        let (source, _) = self.kafka.add_table(Vec::new(), Budget::new("questions", 1))?;
        let (clock, requests) = (self.clock.clone(), self.requests.0.clone());
        let ask = async move {
            loop {
                match source.topics().await {
                    Ok(topics) => drop(requests.send(Request::Topics(topics)).await),
                    Err(error) => tracing::warn!(error = %error.chain(), "topics of patterns are not looked for"),
                }
                clock.sleep(TOPICS_INTERVAL).await;
            }
        };
        self.discovery.asker = Some(task::spawn(TaskKind::Background, "topics", ask));
        Ok(())
    }

    async fn found(&mut self, mut topics: BTreeSet<String>) -> Result<()> {
        let discovery = &mut self.discovery;
        topics.extend(discovery.topics.iter().cloned());
        if discovery.has_asked && topics == discovery.topics {
            return Ok(());
        }
        let expanded = discovery.written.with_topics(&topics)?;
        (discovery.topics, discovery.has_asked) = (topics, true);
        self.change(expanded).await
    }

    /// Takes tables added, removed and changed; says what else changed and needs a restart.
    ///
    /// # Errors
    /// `InvalidConfig` where the new configuration cannot be taken; nothing is changed then.
    pub async fn reload(&mut self, config: Config) -> Result<()> {
        let expanded = config.with_topics(&self.discovery.topics)?;
        if let (Some(tls), Some(files)) = (&self.listener_tls, &config.server.tls) {
            tls.reload(&http::tls::TlsFiles { cert: files.cert.clone(), key: files.key.clone() })?;
        }
        let rest = |config: &Config| Config { tables: Vec::new(), patterns: Vec::new(), ..config.clone() };
        if rest(&config) != rest(&self.config) {
            tracing::warn!("settings outside of `tables` changed: they are taken at the next restart");
        }
        self.change(expanded).await?;
        self.discovery.written = config;
        self.look_for_topics()
    }

    /// Keeps the tables of `config` from now on.
    async fn change(&mut self, config: Config) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for table in &config.tables {
            wanted.insert(table.table.clone(), self.spec(&config, table)?);
        }
        let groups = groups(&config.tables)?;
        // A reading whose group changes is begun anew, with all its tables.
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.readings).into_iter().partition(|reading| groups.contains(&reading.group));
        self.readings = kept;
        let is_regrouped = |name: &TableName| {
            gone.iter()
                .any(|reading| reading.group.has(name) || reading.of_values.iter().any(|table| table.table == *name))
                || groups.iter().any(|group| group.has(name) && !self.readings.iter().any(|r| r.group == *group))
        };
        let is_of_value = |name: &TableName| {
            self.readings.iter().flat_map(|reading| &reading.of_values).any(|table| table.table == *name)
        };
        let leaves = |(name, handle): &(&TableName, &TableHandle)| {
            is_regrouped(name) || !is_of_value(name) && wanted.get(*name).is_none_or(|spec| *spec != handle.spec)
        };
        let leaving: Vec<TableName> = self.tables.iter().filter(leaves).map(|(name, _)| name.clone()).collect();
        for name in leaving {
            self.let_go(&name).await;
        }
        for reading in gone {
            reading.stop.request();
            self.kafka.remove_table(reading.id);
        }
        let named = self.config.tables.iter().map(|table| table.table.clone());
        for name in named.filter(|name| !wanted.contains_key(name)).collect::<Vec<_>>() {
            self.hide(&name);
        }
        let of_values: Vec<TableConfig> = self.readings.iter().flat_map(|r| r.of_values.clone()).collect();
        if let Some(indexing) = &mut self.indexing {
            let all: Vec<TableConfig> = config.tables.iter().cloned().chain(of_values).collect();
            indexing.keep(&all).await;
        }
        self.config.tables = config.tables;
        let tables = self.config.tables.clone();
        self.take_up(&tables).await
    }

    /// Stops a table and forgets it.
    async fn let_go(&mut self, name: &TableName) {
        let Some(handle) = self.tables.remove(name) else { return };
        tracing::info!(table = %name, "table leaves");
        let feed = stop_table(name, handle, self.config.shutdown_timeout, &self.clock).await;
        match feed {
            Feed::Own(id) => self.kafka.remove_table(id),
            Feed::Shared(shared, id) => shared.leave(id),
        }
        self.health.remove_table(name);
        self.hide(name);
        if let Some(indexing) = &mut self.indexing {
            indexing.remove(name).await;
        }
        self.metrics.remove_table(name);
    }

    /// Shows a table as the catalog has it, if at all.
    fn hide(&mut self, table: &TableName) {
        self.views.remove(table);
        self.datasets.remove(table);
        if let Some(following) = &mut self.following {
            following.remove(table);
        }
    }

    /// Ends what keeps readings going, after the tables.
    pub(super) fn stop_reading(&mut self) {
        for reading in self.readings.drain(..) {
            reading.stop.request();
        }
        if let Some(asker) = self.discovery.asker.take() {
            asker.abort();
        }
    }

    /// The table whose topics tell how far `name` has to go: its route's own, where it is a route's.
    pub(super) fn leader(&self, name: &TableName) -> Option<&TableName> {
        let of = |reading: &&SharedReading| reading.of_values.iter().any(|table| table.table == *name);
        self.readings.iter().find(of)?.group.routed().map(|table| &table.table)
    }

    /// Says where a shared reading has ended by itself; the reason was logged.
    pub(super) fn refuse_ended_readings(&self) -> Result<()> {
        let ended = self.readings.iter().find(|reading| reading.hub.is_finished());
        ended.map_or(Ok(()), |reading| Err(Error::corrupt(format!("{} has ended, see the log", reading.hub.name))))
    }
}

/// Stops a table's tasks; answers whence its records came.
pub(super) async fn stop_table(name: &TableName, mut handle: TableHandle, timeout: Duration, clock: &Clock) -> Feed {
    handle.stop.request();
    handle.lag.abort();
    if clock.timeout(timeout, handle.driver.join()).await.is_none() {
        tracing::warn!(table = %name, "table did not stop in time; what it had not committed is read again next time");
        handle.driver.abort();
    }
    stop_senders(handle.letters.map(|sender| (name.clone(), sender)).into_iter().collect(), timeout, clock).await;
    handle.feed
}

/// Has what the tables have committed by now sent to their topics, within one limit for all.
pub(super) async fn stop_senders(senders: Vec<(TableName, (Shutdown, Task))>, limit: Duration, clock: &Clock) {
    senders.iter().for_each(|(_, (stop, _))| stop.request());
    let deadline = clock.elapsed() + limit;
    for (table, (_, mut sender)) in senders {
        if clock.timeout(deadline.saturating_sub(clock.elapsed()), sender.join()).await.is_none() {
            tracing::warn!(%table, "dead letters did not reach their topic in time; they are sent next time");
            sender.abort();
        }
    }
}
