//! The tails of tables as other processes commit them: one follower per table, over one Kafka client outside the group
//! that is made when the first of them needs it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::error::Result;
use crate::kafka::{Kafka, TableId};
use crate::model::ids::TableName;
use crate::pipeline::driver::{FollowPorts, Reader, TableSpec, follow};
use crate::runtime::budget::Budget;
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, Task, TaskKind};

use super::connect;

/// The tables that are followed.
pub(super) struct Following {
    outside: Arc<Outside>,
    tables: BTreeMap<TableName, Task>,
}

/// The client outside the group.
struct Outside {
    config: Config,
    clock: Clock,
    /// The client, and what it reads.
    kafka: Mutex<Option<(Kafka, BTreeMap<TableName, TableId>)>>,
}

impl Following {
    pub(super) fn new(config: &Config, clock: &Clock) -> Self {
        let outside = Outside { config: config.clone(), clock: clock.clone(), kafka: Mutex::default() };
        Self { outside: Arc::new(outside), tables: BTreeMap::new() }
    }

    /// Makes a table's reader when it is asked to.
    pub(super) fn opener(&self, spec: &Arc<TableSpec>) -> Box<dyn Fn() -> Result<Reader> + Send + Sync> {
        let (outside, spec) = (Arc::clone(&self.outside), Arc::clone(spec));
        Box::new(move || outside.reader(&spec))
    }

    /// Follows a table from now on, in place of an earlier one of its name.
    pub(super) fn add(&mut self, spec: Arc<TableSpec>, ports: FollowPorts) {
        let name = spec.settings.table.clone();
        self.remove(&name);
        let task = task::spawn(TaskKind::Background, format!("follower of {name}"), follow(spec, ports));
        self.tables.insert(name, task);
    }

    pub(super) fn remove(&mut self, table: &TableName) {
        if let Some(task) = self.tables.remove(table) {
            task.abort();
        }
        if let Some((kafka, open)) = &mut *self.outside.kafka()
            && let Some(id) = open.remove(table)
        {
            kafka.remove_table(id);
        }
    }
}

impl Outside {
    fn kafka(&self) -> MutexGuard<'_, Option<(Kafka, BTreeMap<TableName, TableId>)>> {
        self.kafka.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self, spec: &TableSpec) -> Result<Reader> {
        let tables = self.config.tables.len();
        let mut kafka = self.kafka();
        let (kafka, open) = match &mut *kafka {
            Some(made) => made,
            none => {
                let options = connect::kafka_options(&self.config, tables);
                none.insert((Kafka::open_outside(&options, self.clock.clone())?, BTreeMap::new()))
            }
        };
        let budget = Budget::new("followed", connect::shares(self.config.memory_budget, tables).raw_bytes);
        let (source, events) = kafka.add_table(spec.settings.topics.clone(), budget)?;
        open.insert(spec.settings.table.clone(), source.id());
        Ok((source, events))
    }
}
