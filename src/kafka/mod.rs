//! Kafka: one librdkafka consumer per process, in one group for all tables. Reading order: `poll` (the thread and the
//! group), `table` (records into arenas), `native` (the unsafe calls), `admin`, `auth`, `context`; `peek` and `letters`
//! stand alone. No policy lives here: where to read from, what a gap or a vanished topic means is the driver's.

mod admin;
mod auth;
mod context;
mod letters;
mod native;
mod options;
mod peek;
mod poll;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::Consumer as _;
use tokio::sync::{mpsc, oneshot};

pub use self::letters::{LetterMessage, LetterTopic, LettersAt};
pub use self::options::Options;
pub use self::peek::Peeker;
pub use self::table::TableId;

use self::context::Context;
use self::native::{Consumer, Queue};
use self::poll::{Command, Poller};
use self::table::{BatchLimits, Table};
use crate::error::{Error, Result};
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::ports::{Source, SourceEvent, Start, TopicFacts, Watermarks};
use crate::runtime::budget::Budget;
use crate::runtime::clock::Clock;

/// Events under way to one driver; their bytes are bounded by the table's budget.
const EVENTS: usize = 64;
/// Commands under way to the poll thread, which empties them every few milliseconds whatever the drivers do.
const COMMANDS: usize = 1024;
/// How long [`Kafka::close`] waits for the poll thread, which gives up leaving the group a little earlier.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);

/// The process's membership in the consumer group, and the thread that polls for it.
pub struct Kafka {
    consumer: Arc<Consumer>,
    commands: SyncSender<Command>,
    tables: Mutex<BTreeMap<TableId, Vec<String>>>,
    next_table: AtomicU64,
    closed: oneshot::Receiver<()>,
    clock: Clock,
}

/// The topics of one table.
pub struct TableSource {
    id: TableId,
    consumer: Arc<Consumer>,
    commands: SyncSender<Command>,
}

impl Kafka {
    /// Makes the consumer and its thread. No broker needs to be up. MSK IAM needs a tokio runtime around.
    ///
    /// # Errors
    /// `InvalidConfig` names the property that librdkafka or Frazil refuses.
    pub fn open(options: &Options, clock: Clock) -> Result<Self> {
        Self::connect(options, clock, true)
    }

    /// The same outside any group: what a [`TableSource`] starts is read, whoever else reads it, and nothing is ever
    /// assigned or revoked.
    ///
    /// # Errors
    /// As [`Kafka::open`].
    pub fn open_outside(options: &Options, clock: Clock) -> Result<Self> {
        Self::connect(options, clock, false)
    }

    fn connect(options: &Options, clock: Clock, grouped: bool) -> Result<Self> {
        let context = Context::new(&options.bootstrap_servers, options.msk_iam(&clock)?);
        let consumer = Consumer::from_config_and_context(&options.client_config()?, context)
            .map_err(|error| options::refused(&error))?;
        let consumer = Arc::new(consumer);
        let (commands, received) = sync_channel(COMMANDS);
        let limits = BatchLimits { bytes: options.batch_bytes, linger: options.batch_linger };
        let poller =
            Poller::new(Arc::clone(&consumer), received, clock.clone(), limits, options.revoke_timeout, grouped);
        let (ended, closed) = oneshot::channel();
        std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || {
                poller.run();
                // Whoever waits may have given up.
                let _ = ended.send(());
            })
            .map_err(|error| Error::unavailable("start the kafka thread").with_source(error))?;
        Ok(Self { consumer, commands, tables: Mutex::default(), next_table: AtomicU64::new(0), closed, clock })
    }

    /// Subscribes to a table's topics as well. `budget` bounds the bytes of its events under way.
    ///
    /// # Errors
    /// `InvalidConfig` where a topic is a pattern, or belongs to another table already.
    pub fn add_table(
        &self,
        topics: Vec<String>,
        budget: Budget,
    ) -> Result<(Arc<TableSource>, mpsc::Receiver<SourceEvent>)> {
        let id = TableId(self.next_table.fetch_add(1, Ordering::Relaxed));
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in &topics {
            if topic.starts_with('^') {
                return Err(Error::invalid_config(format!("topic `{topic}`: patterns are not supported")));
            }
            if tables.values().flatten().any(|taken| taken == topic) {
                return Err(Error::invalid_config(format!("topic `{topic}` belongs to two tables")));
            }
        }
        let queue = Queue::new(&self.consumer).ok_or_else(|| Error::bug("librdkafka gives no queue"))?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let names = topics.iter().map(|topic| topic.as_str().into()).collect();
        send(&self.commands, Command::Add(id, Table::new(names, queue, budget, events)));
        tables.insert(id, topics);
        let source = TableSource { id, consumer: Arc::clone(&self.consumer), commands: self.commands.clone() };
        Ok((Arc::new(source), receiver))
    }

    /// Stops reading a table's topics and unsubscribes from them; its events end.
    pub fn remove_table(&self, table: TableId) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(&table);
        send(&self.commands, Command::Remove(table));
    }

    /// Why the brokers cannot be used for now, `None` where nothing is known to be wrong.
    pub fn broker_trouble(&self) -> Option<String> {
        self.consumer.context().trouble()
    }

    /// Asks a broker for an answer.
    ///
    /// # Errors
    /// `Unavailable` where none answers, `Denied` where it refuses.
    pub async fn ping(&self) -> Result<()> {
        ask(&self.consumer, admin::ping).await
    }

    /// Leaves the group and ends the thread. Drivers are to be done before: nothing is waited for but the brokers,
    /// and these within bounds.
    pub async fn close(self) {
        send(&self.commands, Command::Close);
        if self.clock.timeout(CLOSE_LIMIT, self.closed).await.is_none() {
            tracing::warn!("kafka: the group was not left in time; the brokers will notice by its session timeout");
        }
    }
}

impl TableSource {
    /// For [`Kafka::remove_table`].
    pub fn id(&self) -> TableId {
        self.id
    }

    /// The names of all topics that the brokers show.
    ///
    /// # Errors
    /// As [`Source::topic`].
    pub async fn topics(&self) -> Result<BTreeSet<String>> {
        ask(&self.consumer, admin::topics).await
    }
}

#[async_trait]
impl Source for TableSource {
    fn start(&self, starts: Vec<Start>) {
        send(&self.commands, Command::Start(self.id, starts));
    }

    fn stop(&self, partitions: Vec<TopicPartition>) {
        send(&self.commands, Command::Stop(self.id, partitions));
    }

    async fn topic(&self, topic: &str) -> Result<Option<TopicFacts>> {
        let topic = topic.to_owned();
        ask(&self.consumer, move |consumer| admin::topic(consumer, &topic)).await
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Watermarks>> {
        let partitions = partitions.to_vec();
        ask(&self.consumer, move |consumer| admin::watermarks(consumer, &partitions)).await
    }

    async fn offsets_at(
        &self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<BTreeMap<TopicPartition, NextOffset>> {
        let partitions = partitions.to_vec();
        ask(&self.consumer, move |consumer| admin::offsets_at(consumer, &partitions, timestamp_ms)).await
    }

    fn hint(&self, positions: Vec<(TopicPartition, NextOffset)>) {
        send(&self.commands, Command::Hint(positions));
    }
}

/// Hands a command to the poll thread. Once it has ended nothing is read, and there is nothing to command.
fn send(commands: &SyncSender<Command>, command: Command) {
    let _ = commands.send(command);
}

/// Runs a question to the brokers where it may block.
async fn ask<T: Send + 'static>(
    consumer: &Arc<Consumer>,
    question: impl FnOnce(&Arc<Consumer>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let consumer = Arc::clone(consumer);
    tokio::task::spawn_blocking(move || question(&consumer))
        .await
        .unwrap_or_else(|_| Err(Error::bug("a question to kafka panicked")))
}
