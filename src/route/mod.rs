//! One reading of topics for several tables: each table takes the records that are its own, at its own pace, by its own
//! ledger. `board` keeps who reads how far, `split` makes a table's batches, `classify` finds which table a record
//! belongs to, `spread` has these tables made, `hub` is the task. What a table's records become is not decided here.
//!
//! A **route** spreads topics over tables that are made as their first records come. Nothing is lost on the way by one
//! rule: a record goes to nobody before its table has a ledger, which begins at or before it. The route's own table,
//! which takes what belongs to no other, is read along with all of them; its ledger is how far the route has looked,
//! and so where a new table begins.

mod board;
mod classify;
mod hub;
mod split;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use self::classify::{By, Classifier, FieldTexts};
pub use self::hub::Hub;
pub use self::spread::Route;

use crate::error::Result;
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::ports::{Source, SourceEvent, Start, TopicFacts, Watermarks};

/// Events under way to one driver; what they hold is charged to the one reading.
const EVENTS: usize = 64;

/// Names a table that shares the reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(u64);

/// Which records a table takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takes {
    /// All of its topics'.
    All,
    /// Those that the route gives this value.
    Value(Arc<str>),
    /// Those that the route gives none.
    Unrouted,
}

/// The tables of a route, as its hub has them made.
#[async_trait]
pub trait Tables: Send + Sync {
    /// The values that have a table, whichever process made it; true where the table has a ledger.
    ///
    /// # Errors
    /// `Unavailable` where the catalog is away.
    async fn known(&self) -> Result<Vec<(String, bool)>>;

    /// Has the table of `value` join, made if it is missing. It begins no later than where the route has looked.
    ///
    /// # Errors
    /// As [`Tables::known`].
    async fn open(&self, value: &str) -> Result<()>;

    /// The route cannot go on for that reason, or goes on.
    fn waits(&self, reason: Option<String>);
}

enum Command {
    Join(MemberId, hub::Member),
    Leave(MemberId),
    Start(MemberId, Vec<Start>),
    Stop(MemberId, Vec<TopicPartition>),
    Hint(MemberId, Vec<(TopicPartition, NextOffset)>),
}

/// A reading that tables can join.
pub struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    under: Arc<dyn Source>,
    last: AtomicU64,
}

impl Shared {
    /// Shares the reading of `under`, whose events are to be given to the [`Hub`].
    #[expect(clippy::disallowed_methods, reason = "tables ask a few times per event, and events are bounded")]
    pub fn new(under: Arc<dyn Source>) -> (Self, Commands) {
        let (commands, received) = mpsc::unbounded_channel();
        (Self { commands, under, last: AtomicU64::new(0) }, Commands(received))
    }

    /// A table that takes records of `topics`.
    pub fn join(&self, topics: Vec<String>, takes: Takes) -> (Arc<MemberSource>, mpsc::Receiver<SourceEvent>) {
        let id = MemberId(self.last.fetch_add(1, Ordering::Relaxed));
        let (events, receiver) = mpsc::channel(EVENTS);
        let source = MemberSource { id, commands: self.commands.clone(), under: Arc::clone(&self.under) };
        source.send(Command::Join(id, hub::Member::new(topics, takes, events)));
        (Arc::new(source), receiver)
    }

    /// The table takes nothing any more; its events end.
    pub fn leave(&self, member: MemberId) {
        // Without a hub nobody takes anything.
        let _ = self.commands.send(Command::Leave(member));
    }
}

/// What tables ask of the hub.
pub struct Commands(mpsc::UnboundedReceiver<Command>);

/// The topics as one of the tables reads them.
pub struct MemberSource {
    id: MemberId,
    commands: mpsc::UnboundedSender<Command>,
    under: Arc<dyn Source>,
}

impl MemberSource {
    /// For [`Shared::leave`].
    pub fn id(&self) -> MemberId {
        self.id
    }

    fn send(&self, command: Command) {
        // Without a hub nothing is read, and there is nothing to command.
        let _ = self.commands.send(command);
    }
}

#[async_trait]
impl Source for MemberSource {
    fn start(&self, starts: Vec<Start>) {
        self.send(Command::Start(self.id, starts));
    }

    fn stop(&self, partitions: Vec<TopicPartition>) {
        self.send(Command::Stop(self.id, partitions));
    }

    async fn topic(&self, topic: &str) -> Result<Option<TopicFacts>> {
        self.under.topic(topic).await
    }

    async fn watermarks(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Watermarks>> {
        self.under.watermarks(partitions).await
    }

    async fn offsets_at(
        &self,
        partitions: &[TopicPartition],
        timestamp_ms: i64,
    ) -> Result<BTreeMap<TopicPartition, NextOffset>> {
        self.under.offsets_at(partitions, timestamp_ms).await
    }

    fn hint(&self, positions: Vec<(TopicPartition, NextOffset)>) {
        self.send(Command::Hint(self.id, positions));
    }
}
