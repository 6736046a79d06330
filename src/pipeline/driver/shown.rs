//! A table's condition as operators see it: the brain's, and on top of it what some work is waiting for.

use std::sync::{Mutex, PoisonError};

use crate::model::ids::TableName;
use crate::pipeline::event::{Condition, On};
use crate::runtime::clock::Clock;
use crate::telemetry::health::{Dependency, Health, TableHealth};

/// Shows one table's condition, and logs its changes.
pub(super) struct Shown {
    table: TableName,
    health: Health,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    /// As the brain last said.
    condition: Condition,
    /// What work waits for meanwhile.
    waiting: Option<(On, String)>,
}

impl Shown {
    pub(super) fn new(table: TableName, health: Health, clock: Clock) -> Self {
        let state = State { condition: Condition::Starting, waiting: None };
        Self { table, health, clock, state: Mutex::new(state) }
    }

    /// The brain's condition has changed.
    pub(super) fn set(&self, condition: Condition) {
        let table = &self.table;
        match &condition {
            Condition::Starting | Condition::Running => tracing::debug!(%table, ?condition, "table"),
            Condition::Waiting(on, reason) => tracing::warn!(%table, ?on, reason, "table waits"),
            Condition::Suspended(reason) => {
                tracing::error!(%table, reason, "table suspended; mend the cause, then `frazil tables resume {table}`");
            }
            Condition::Stopped(reason) => tracing::error!(%table, reason, "table stopped"),
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.condition = condition;
        self.show(&state);
    }

    /// Some work cannot go on for now.
    pub(super) fn waits(&self, on: On, reason: String) {
        tracing::warn!(table = %self.table, ?on, reason, "table waits");
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting = Some((on, reason));
        self.show(&state);
    }

    /// The work goes on.
    pub(super) fn goes_on(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.take().is_some() {
            tracing::info!(table = %self.table, "table goes on");
            self.show(&state);
        }
    }

    fn show(&self, state: &State) {
        let since_ms = self.clock.now_ms();
        let health = match (&state.condition, &state.waiting) {
            (Condition::Suspended(reason), _) => TableHealth::Suspended { reason: reason.clone() },
            (Condition::Stopped(reason), _) => TableHealth::Stopped { reason: reason.clone() },
            (_, Some((on, error))) | (Condition::Waiting(on, error), None) => {
                TableHealth::Waiting { on: dependency(*on), since_ms, error: error.clone() }
            }
            (Condition::Starting, None) => TableHealth::Starting,
            (Condition::Running, None) => TableHealth::Ok,
        };
        self.health.set_table(&self.table, health);
    }
}

fn dependency(on: On) -> Dependency {
    match on {
        On::Registry => Dependency::Registry,
        On::Kafka => Dependency::Kafka,
        On::Catalog => Dependency::Catalog,
        On::Store => Dependency::Store,
    }
}
