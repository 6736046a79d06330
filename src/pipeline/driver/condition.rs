//! How a table is, as logs, `/readyz` and metrics tell it.

use super::Ports;
use crate::pipeline::event::{Condition, On, Settings};
use crate::telemetry::health::{Dependency, TableHealth};

/// Shows a table's condition, and logs it.
pub(super) fn report(ports: &Ports, settings: &Settings, condition: &Condition) {
    let table = &settings.table;
    match condition {
        Condition::Starting | Condition::Running => {}
        Condition::Waiting(on, error) => tracing::warn!(%table, on = ?on, error, "table waits"),
        Condition::Suspended(reason) => {
            tracing::error!(%table, reason, "table suspended; mend the cause, then `frazil tables resume {table} --from ledger`");
        }
        Condition::Stopped(reason) => tracing::error!(%table, reason, "table stopped"),
    }
    show(ports, settings, condition);
}

/// Shows it, where it is no news.
pub(super) fn show(ports: &Ports, settings: &Settings, condition: &Condition) {
    let health = match condition {
        Condition::Starting => TableHealth::Starting,
        Condition::Running => TableHealth::Ok,
        Condition::Waiting(on, error) => {
            let on = match on {
                On::Registry => Dependency::Registry,
                On::Kafka => Dependency::Kafka,
                On::Catalog => Dependency::Catalog,
                On::Store => Dependency::Store,
            };
            TableHealth::Waiting { on, since_ms: ports.clock.now_ms(), error: error.clone() }
        }
        Condition::Suspended(reason) => TableHealth::Suspended { reason: reason.clone() },
        Condition::Stopped(reason) => TableHealth::Stopped { reason: reason.clone() },
    };
    ports.health.set_table(&settings.table, health);
}
