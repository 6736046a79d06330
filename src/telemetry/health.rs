//! What each table is doing, as `/readyz`, `status` and the metrics say it. The drivers tell; nothing here asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::model::ids::TableName;

/// What a table can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dependency {
    /// The schema registry.
    Registry,
    /// The Kafka brokers.
    Kafka,
    /// The Iceberg catalog.
    Catalog,
    /// The object store or folder of the warehouse.
    Store,
}

impl Dependency {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Registry, Self::Kafka, Self::Catalog, Self::Store];

    /// Its name in metrics and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Kafka => "kafka",
            Self::Catalog => "catalog",
            Self::Store => "store",
        }
    }
}

/// The state of one table. In JSON an object whose `state` is the variant's name in snake case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TableHealth {
    /// It has not reached its topics and its table yet.
    Starting,
    /// It takes records, or would if there were any.
    Ok,
    /// Something it needs is away; it goes on by itself.
    Waiting {
        /// What is away.
        on: Dependency,
        /// Since when, milliseconds since the epoch.
        since_ms: i64,
        /// What came back at the last try.
        error: String,
    },
    /// It takes no records until somebody resumes it.
    Suspended {
        /// Why.
        reason: String,
    },
    /// It ended and needs a human.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// All states at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthSnapshot {
    /// True where the service has started and every table is [`TableHealth::Ok`]. A suspended or stopped table makes
    /// it false: its records are not arriving, and only the operator can change that.
    pub ready: bool,
    /// True once start-up is over and all configured tables are known.
    pub started: bool,
    /// By table.
    pub tables: BTreeMap<TableName, TableHealth>,
}

/// The states of this process's tables; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    tables: BTreeMap<TableName, TableHealth>,
}

impl Health {
    /// Not started, no table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Start-up is over: every configured table has been told of by [`Health::set_table`].
    pub fn set_started(&self) {
        self.lock().started = true;
    }

    /// Tells a table's state. While it goes on waiting for the same thing, it has waited since the first telling.
    pub fn set_table(&self, table: &TableName, mut health: TableHealth) {
        let tables = &mut self.lock().tables;
        if let TableHealth::Waiting { on, since_ms, .. } = &mut health
            && let Some(TableHealth::Waiting { on: before, since_ms: since, .. }) = tables.get(table)
            && on == before
        {
            *since_ms = *since;
        }
        tables.insert(table.clone(), health);
    }

    /// Forgets a table that this process no longer runs.
    pub fn remove_table(&self, table: &TableName) {
        self.lock().tables.remove(table);
    }

    /// All states now.
    #[must_use]
    pub fn snapshot(&self) -> HealthSnapshot {
        let state = self.lock();
        let ready = state.started && state.tables.values().all(|health| *health == TableHealth::Ok);
        HealthSnapshot { ready, started: state.started, tables: state.tables.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_started_and_every_table_ok() {
        let (orders, logs): (TableName, TableName) = ("shop.orders".parse().unwrap(), "ops.logs".parse().unwrap());
        let health = Health::new();
        assert!(!health.snapshot().ready, "not started");
        health.set_table(&orders, TableHealth::Ok);
        health.set_started();
        assert!(health.snapshot().ready);

        let away = TableHealth::Waiting { on: Dependency::Kafka, since_ms: 1, error: "refused".into() };
        let suspended = TableHealth::Suspended { reason: "type changed".into() };
        for bad in [TableHealth::Starting, away, suspended, TableHealth::Stopped { reason: "rolled back".into() }] {
            health.set_table(&logs, bad.clone());
            assert!(!health.snapshot().ready, "{bad:?}");
        }
        health.remove_table(&logs);
        assert!(health.snapshot().ready);
    }

    #[test]
    fn waiting_goes_on_since_it_began() {
        let table: TableName = "shop.orders".parse().unwrap();
        let health = Health::new();
        let since = |on, since_ms| {
            health.set_table(&table, TableHealth::Waiting { on, since_ms, error: "refused".into() });
            match &health.snapshot().tables[&table] {
                TableHealth::Waiting { since_ms, .. } => *since_ms,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(since(Dependency::Kafka, 1), 1);
        assert_eq!(since(Dependency::Kafka, 2), 1);
        assert_eq!(since(Dependency::Catalog, 3), 3);
        health.set_table(&table, TableHealth::Ok);
        assert_eq!(since(Dependency::Catalog, 4), 4);
    }

    #[test]
    fn json_names_the_state_and_what_it_waits_for() {
        let health = Health::new();
        let table = "shop.orders".parse().unwrap();
        health
            .set_table(&table, TableHealth::Waiting { on: Dependency::Registry, since_ms: 7, error: "refused".into() });
        assert_eq!(
            serde_json::to_value(health.snapshot()).unwrap(),
            serde_json::json!({"ready": false, "started": false, "tables": {
                "shop.orders": {"state": "waiting", "on": "registry", "since_ms": 7, "error": "refused"}}})
        );
    }
}
