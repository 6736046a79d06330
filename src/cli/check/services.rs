//! The services that a configuration names: reachable, and with the permissions that are needed. What is found there
//! is handed on to the checks of single tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;

use super::Check;
use crate::app;
use crate::cli::topics::{TopicNow, Topics, limited};
use crate::cli::view::number;
use crate::config::{Config, TableConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{self, Server};
use crate::lake::storage::Stores;
use crate::model::ids::TableName;
use crate::ports::{Lake as _, RegisteredSchema, Registry, TableState};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// Checks, and what they found for later ones.
pub(super) struct Found<T> {
    pub(super) checks: Vec<Check>,
    pub(super) found: T,
}

/// Newest schemas by subject; `None` where there is no such subject.
pub(super) type Subjects = BTreeMap<String, Option<Arc<RegisteredSchema>>>;

/// Tables by name; `None` where there is no such table.
pub(super) type States = BTreeMap<TableName, Option<TableState>>;

/// The configuration with the tables of patterns; `None` where the topics that there are cannot be asked for.
pub(super) async fn expanded(config: &Config, clock: &Clock, checks: &mut Vec<Check>) -> Option<Config> {
    let check = "topic patterns";
    if config.patterns.is_empty() {
        return None;
    }
    let topics = match Topics::open(config, clock) {
        Ok(topics) => topics.all().await,
        Err(error) => Err(error),
    };
    // Why is said where kafka is checked.
    let Ok(topics) = topics else {
        checks.push(Check::skipped(check, "kafka cannot be asked"));
        return None;
    };
    match config.with_topics(&topics) {
        Ok(expanded) => {
            let more = expanded.tables.len() - config.tables.len();
            checks.push(Check::ok(check, format!("{more} tables of {} topics", topics.len())));
            Some(expanded)
        }
        Err(error) => {
            checks.push(Check::failed(check, error.chain(), "name another table, or narrow the pattern"));
            None
        }
    }
}

/// The brokers, and each topic.
pub(super) async fn kafka(config: &Config, clock: &Clock) -> Found<BTreeMap<String, TopicNow>> {
    let remedy = "check `kafka.bootstrap_servers`, the network, and `kafka.properties` for sign-in and TLS";
    let names: Vec<&String> = config.tables.iter().flat_map(|table| &table.topics).collect();
    let topics = match Topics::open(config, clock) {
        Ok(topics) => topics.ping().await.map(|()| topics),
        Err(error) => Err(error),
    };
    let topics = match topics {
        Ok(topics) => topics,
        Err(error) => {
            let mut checks = vec![Check::failed("kafka", error.chain(), remedy)];
            checks.extend(names.iter().map(|name| Check::skipped(format!("topic `{name}`"), "kafka cannot be asked")));
            return Found { checks, found: BTreeMap::new() };
        }
    };
    let answers = join_all(names.iter().map(|name| topics.now(name))).await;
    let cluster = answers.iter().find_map(|answer| Some(&answer.as_ref().ok()?.as_ref()?.facts.cluster_id));
    let cluster = match cluster {
        Some(id) if !id.is_empty() => format!("answers, cluster id `{id}`"),
        _ => "answers; it tells no cluster id, so a change of cluster is noticed by topic ids and offsets only"
            .to_owned(),
    };
    let mut checks = vec![Check::ok("kafka", cluster)];
    let mut found = BTreeMap::new();
    for (name, answer) in names.into_iter().zip(answers) {
        checks.push(topic(name, &answer));
        if let Ok(Some(now)) = answer {
            found.insert(name.clone(), now);
        }
    }
    Found { checks, found }
}

fn topic(name: &str, answer: &Result<Option<TopicNow>>) -> Check {
    let check = format!("topic `{name}`");
    let now = match answer {
        Ok(Some(now)) => now,
        Ok(None) => return Check::failed(check, "it does not exist", "make it, or mend the table's `topic`"),
        Err(error) => {
            let remedy = match error.kind() {
                ErrorKind::Denied => "allow this principal to describe and read the topic, and to read with the group",
                _ => "look at the brokers that hold it",
            };
            return Check::failed(check, error.chain(), remedy);
        }
    };
    let (partitions, ranges) = (now.facts.partitions.len(), now.ranges.len());
    if ranges < partitions {
        let text = format!("{} of {partitions} partitions have no leader", partitions - ranges);
        return Check::failed(check, text, "look at the brokers that hold it");
    }
    let retained: i64 = now.ranges.values().map(|range| range.high.0 - range.low.0).sum();
    let id = now.facts.topic_id.map_or_else(
        || "no topic id, so a topic made anew is noticed by offsets and leader epochs only".to_owned(),
        |id| format!("topic id {id}"),
    );
    Check::ok(check, format!("{partitions} partitions, {} offsets retained, {id}", number(retained)))
}

/// The registry, asked for the newest schema of each subject that a table may need.
pub(super) async fn registry(config: &Config, clock: &Clock) -> Found<Option<Subjects>> {
    let check = "schema registry";
    let remedy = "check `schema_registry.url`, its user and password or token, and its TLS files";
    let registry = match app::registry(config, clock) {
        Ok(Some(registry)) => registry,
        Ok(None) => {
            let checks = vec![Check::ok(check, "none is configured; `auto` means bytes")];
            return Found { checks, found: Some(Subjects::new()) };
        }
        Err(error) => return Found { checks: vec![Check::failed(check, error.chain(), remedy)], found: None },
    };
    let answers = join_all(
        config
            .tables
            .iter()
            .flat_map(subjects)
            .filter(|name| !name.is_empty())
            .map(|name| latest(&registry, clock, name)),
    )
    .await;
    match answers.into_iter().collect::<Result<Subjects>>() {
        Ok(found) => {
            let there = found.values().flatten().count();
            let text = format!("answers; {there} of the {} subjects that may be needed are there", found.len());
            Found { checks: vec![Check::ok(check, text)], found: Some(found) }
        }
        Err(error) => Found { checks: vec![Check::failed(check, error.chain(), remedy)], found: None },
    }
}

/// The subjects that may decide a table's columns.
fn subjects(table: &TableConfig) -> [String; 2] {
    let subjects = app::subjects(table);
    [subjects.key, subjects.value]
}

async fn latest(
    registry: &Arc<dyn Registry>,
    clock: &Clock,
    subject: String,
) -> Result<(String, Option<Arc<RegisteredSchema>>)> {
    let schema = limited(clock, &format!("schema registry, subject `{subject}`"), registry.latest(&subject)).await?;
    Ok((subject, schema))
}

/// The catalog, and each table as it is there.
pub(super) async fn catalog(config: &Config, clock: &Clock) -> Found<Option<States>> {
    let remedy = "check `catalog.uri`: the database's address, its user and password, and the folder of a SQLite file; \
                  the user must be allowed to make tables once";
    let answer = async {
        let (catalog, stores) = app::open_catalog(config, clock)?;
        let tables = limited(clock, "catalog", catalog.list()).await?;
        let lake = app::connect::lake(config, catalog, stores, &Compute::inline(), clock);
        let mut states = States::new();
        for table in &config.tables {
            let state = limited(clock, &format!("table `{}`", table.table), lake.load(&table.table)).await?;
            states.insert(table.table.clone(), state);
        }
        Ok::<_, Error>((format!("answers; it holds {} tables", tables.len()), states))
    };
    match answer.await {
        Ok((text, states)) => Found { checks: vec![Check::ok("catalog", text)], found: Some(states) },
        Err(error) => Found { checks: vec![Check::failed("catalog", error.chain(), remedy)], found: None },
    }
}

/// The warehouse: makes, reads and deletes a small object, and sees that an object is not made twice.
pub(super) async fn warehouse(config: &Config, clock: &Clock) -> Check {
    let check = format!("warehouse `{}`", config.catalog.warehouse);
    let answer = async {
        let (_, stores) = app::open_catalog(config, clock)?;
        limited(clock, "warehouse", try_warehouse(&stores, &config.catalog.warehouse, clock)).await
    };
    let remedy =
        "check `catalog.warehouse`, `storage` and the credentials; they need to write, read, list and delete below it";
    Check::of(check, answer.await.map(|()| "can be written, read and deleted from".to_owned()), remedy)
}

async fn try_warehouse(stores: &Stores, warehouse: &str, clock: &Clock) -> Result<()> {
    let location = format!("{}/.frazil-check-{}", warehouse.trim_end_matches('/'), clock.fresh_id());
    let bytes = bytes::Bytes::from_static(b"frazil check");
    let made = stores.put_if_absent(&location, bytes.clone()).await?;
    let result = async {
        if !made || stores.put_if_absent(&location, bytes.clone()).await? {
            return Err(Error::unavailable("the store does not keep two writers from making one object"));
        }
        if stores.read(&location).await? != Some(bytes) {
            return Err(Error::unavailable("the store does not answer what was written"));
        }
        Ok(())
    };
    let result = result.await;
    stores.delete(&location).await?;
    result
}

/// The listener's address, certificate and tokens.
pub(super) async fn listener(config: &Config, clock: &Clock) -> Check {
    let health = Health::new();
    let routes = http::operations(health.clone(), Metrics::new(health));
    let options = app::connect::http_options(&config.server, config.shutdown_timeout);
    let bound = Server::bind(&options, routes, clock.clone()).await;
    let found = format!("can be had; the catalog is at {}", app::connect::catalog_url(&config.server));
    let remedy = "mend `server`; where the address is in use by a running frazil, nothing is wrong";
    Check::of(format!("listener `{}`", config.server.listen), bound.map(|_| found), remedy)
}
