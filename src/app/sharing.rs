//! Tables whose topics overlap, and how a route's tables are found and made: what a shared reading needs to know of the
//! configuration and of the catalog.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::config::TableConfig;
use crate::config::origin::RouteBy;
use crate::decode::MessagePath;
use crate::decode::schema::Schema;
use crate::error::{Error, Result};
use crate::lake::IcebergLake;
use crate::model::ids::TableName;
use crate::model::mapping::PREFIX;
use crate::model::version::Offsets;
use crate::ports::{Lake as _, LakeReader as _, Recovery, Registry, TableState};
use crate::route::Tables;
use crate::runtime::clock::Clock;
use crate::telemetry::health::{Dependency, Health, TableHealth};

/// Tables that share a reading of their topics, because they share topics.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    /// The tables.
    pub(super) tables: Vec<TableConfig>,
}

impl Group {
    /// Their topics.
    pub(super) fn topics(&self) -> Vec<String> {
        let all: BTreeSet<&String> = self.tables.iter().flat_map(|table| &table.topics).collect();
        all.into_iter().cloned().collect()
    }

    /// The entry that spreads its topics over tables, if there is one.
    pub(super) fn routed(&self) -> Option<&TableConfig> {
        self.tables.iter().find(|table| table.route.is_some())
    }

    /// True where it has the table by name.
    pub(super) fn has(&self, name: &TableName) -> bool {
        self.tables.iter().any(|table| table.table == *name)
    }
}

/// The groups of `tables`; a table that shares with no other, and spreads nothing, is in none.
///
/// # Errors
/// `InvalidConfig` where two of a group spread topics: there is one route to a reading.
pub(super) fn groups(tables: &[TableConfig]) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for table in tables {
        let overlaps = |group: &Group| group.topics().iter().any(|topic| table.topics.contains(topic));
        let (joined, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(overlaps);
        let mut tables: Vec<TableConfig> = joined.into_iter().flat_map(|group| group.tables).collect();
        tables.push(table.clone());
        groups = apart;
        groups.push(Group { tables });
    }
    groups.retain(|group| group.tables.len() > 1 || group.routed().is_some());
    for group in &groups {
        let routed: Vec<String> =
            group.tables.iter().filter(|t| t.route.is_some()).map(|t| format!("`{}`", t.topics.join(", "))).collect();
        if routed.len() > 1 {
            return Err(Error::invalid_config(format!(
                "the topics {} are spread over tables each, and some table has topics of both; spread them by one entry, or name other topics",
                routed.join(" and ")
            )));
        }
    }
    Ok(groups)
}

/// What is asked of the service while it runs.
pub(super) enum Request {
    /// Take up the table of a route's value.
    Join(Join),
    /// These topics exist.
    Topics(BTreeSet<String>),
}

/// A table of a route that is to be taken up.
pub(super) struct Join {
    /// The route's own table.
    pub(super) route: TableName,
    /// The table.
    pub(super) table: TableName,
    /// Whose records it takes.
    pub(super) value: String,
    /// The registry's subject of its records' type, where that is known.
    pub(super) subject: Option<String>,
    /// How far the route has looked: where the table begins if it is new.
    pub(super) looked: Offsets,
    /// Answered when it has joined.
    pub(super) done: oneshot::Sender<()>,
}

/// The tables of a route: in the catalog, told by their properties.
pub(super) struct RouteTables {
    pub(super) config: TableConfig,
    pub(super) lake: Arc<IcebergLake>,
    pub(super) registry: Option<Arc<dyn Registry>>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) health: Health,
    pub(super) clock: Clock,
}

impl RouteTables {
    fn value_of(&self, state: &TableState) -> Option<String> {
        route_value(&self.config, |name| state.properties.get(name).map(String::as_str))
    }

    /// The registry's subject of that type, by either of the strategies that name subjects by types.
    async fn subject_of(&self, value: &str) -> Result<Option<String>> {
        let by_name = self.config.route.as_ref().is_some_and(|route| route.by == RouteBy::RecordName);
        let Some(registry) = self.registry.as_ref().filter(|_| by_name) else { return Ok(None) };
        let topics = self.config.topics.iter().map(|topic| format!("{topic}-{value}"));
        for subject in topics.chain([value.to_owned()]) {
            let found = registry.latest(&subject).await?;
            // Of several messages in one schema the first would be taken.
            let schema = found.and_then(|found| Schema::parse(&found).ok());
            if schema.is_some_and(|schema| schema.name(MessagePath::FIRST) == Some(value)) {
                return Ok(Some(subject));
            }
        }
        Ok(None)
    }

    /// The table of `value`, by another name where that one is taken.
    async fn table_of(&self, value: &str) -> Result<TableName> {
        let Some(route) = &self.config.route else { return Err(Error::bug("a route without a template")) };
        let name = route.table(value, false)?;
        let taken = match self.lake.load(&name).await? {
            Some(state) => self.value_of(&state).as_deref() != Some(value),
            None => name == self.config.table,
        };
        if taken { route.table(value, true) } else { Ok(name) }
    }
}

#[async_trait]
impl Tables for RouteTables {
    async fn known(&self) -> Result<Vec<(String, bool)>> {
        let Some(route) = &self.config.route else { return Ok(Vec::new()) };
        let (before, _) = route.template.split_once("{}").unwrap_or_default();
        let mut known = Vec::new();
        for name in self.lake.tables().await?.into_iter().filter(|name| name.to_string().starts_with(before)) {
            let Some(state) = self.lake.load(&name).await? else { continue };
            if let Some(value) = self.value_of(&state) {
                // One that was rolled back is somebody's to mend, and has what it had.
                known.push((value, state.recovery != Recovery::Fresh));
            }
        }
        Ok(known)
    }

    async fn open(&self, value: &str) -> Result<()> {
        let table = self.table_of(value).await?;
        let own = self.lake.load(&self.config.table).await?;
        let Some(Recovery::At(progress)) = own.map(|state| state.recovery) else {
            let text = format!("table `{}` has no ledger yet, by which the route's tables begin", self.config.table);
            return Err(Error::unavailable(text));
        };
        let subject = self.subject_of(value).await?;
        let (done, is_done) = oneshot::channel();
        let (route, value) = (self.config.table.clone(), value.to_owned());
        let join = Join { route, table, value, subject, looked: progress.ledger.offsets(), done };
        // A service that stops takes up nothing more.
        let _ = self.requests.send(Request::Join(join)).await;
        is_done.await.map_err(|_| Error::unavailable("the service stops"))
    }

    fn waits(&self, reason: Option<String>) {
        let table = &self.config.table;
        match &reason {
            Some(reason) => tracing::warn!(%table, reason, "the route waits"),
            None => tracing::info!(%table, "the route goes on"),
        }
        let is_waiting = || matches!(self.health.snapshot().tables.get(table), Some(TableHealth::Waiting { .. }));
        match reason {
            Some(error) => {
                let (on, since_ms) = (Dependency::Registry, self.clock.now_ms());
                self.health.set_table(table, TableHealth::Waiting { on, since_ms, error });
            }
            None if is_waiting() => self.health.set_table(table, TableHealth::Ok),
            None => {}
        }
    }
}

/// The value whose table one with these properties is, if it is one of the route of `entry`.
pub(super) fn route_value<'a>(entry: &TableConfig, property: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let own = entry.mapping();
    let is_own = |name: &str| {
        let key = format!("{PREFIX}{name}");
        property(&key) == own.get(&key).map(String::as_str)
    };
    let value = property(&format!("{PREFIX}route_value"))?;
    (entry.route.is_some() && is_own("route") && is_own("topics")).then(|| value.to_owned())
}
