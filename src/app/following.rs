//! The tails of tables as other processes commit them: one follower per table, over Kafka clients outside the group that
//! are made when they are needed: one, and further ones for tables that share topics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;
use crate::error::{Error, Result};
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

/// The clients outside the group.
struct Outside {
    config: Config,
    clock: Clock,
    clients: Mutex<Vec<Client>>,
}

/// A client, and what it reads: each topic for one table.
struct Client {
    kafka: Kafka,
    tables: BTreeMap<TableName, TableId>,
}

impl Following {
    pub(super) fn new(config: &Config, clock: &Clock) -> Self {
        let outside = Outside { config: config.clone(), clock: clock.clone(), clients: Mutex::default() };
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
        for client in &mut *self.outside.clients() {
            if let Some(id) = client.tables.remove(table) {
                client.kafka.remove_table(id);
            }
        }
    }
}

impl Outside {
    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self, spec: &TableSpec) -> Result<Reader> {
        let (name, topics) = (&spec.settings.table, &spec.settings.topics);
        let tables = self.config.tables.len();
        let mut clients = self.clients();
        let open = |client: &mut Client| {
            let budget = Budget::new("followed", connect::shares(self.config.memory_budget, tables).raw_bytes);
            let (source, events) = client.kafka.add_table(topics.clone(), budget)?;
            client.tables.insert(name.clone(), source.id());
            Ok::<Reader, Error>((source, events))
        };
        // One that has a topic of it for another table refuses.
        if let Some(reader) = clients.iter_mut().find_map(|client| open(client).ok()) {
            return Ok(reader);
        }
        let options = connect::kafka_options(&self.config, tables);
        let kafka = Kafka::open_outside(&options, self.clock.clone())?;
        let mut client = Client { kafka, tables: BTreeMap::new() };
        let reader = open(&mut client)?;
        clients.push(client);
        Ok(reader)
    }
}
