//! Follows what other processes commit of a table: reads those partitions from the ledger on and shows their rows in the
//! seam, while fresh views are asked for. It writes nothing, and what it rejects is rejected for itself alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::resolve::{Decoded, Resolver};
use super::survey::check_mapping;
use super::{Ports, TableSpec, tail_batch};
use crate::decode::cut_at_reject;
use crate::error::{Error, Result};
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::ledger::Position;
use crate::model::raw::RawBatch;
use crate::pipeline::event::OnError;
use crate::ports::{Lake, Recovery, Registry, Source, SourceEvent, Start};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::seam::Seam;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::TableMetrics;

/// How often the catalog is asked for others' commits while somebody asks for fresh views.
const VERSION_POLL: Duration = Duration::from_millis(200);
/// How long a partition that nobody asks for any more is followed.
const IDLE: Duration = Duration::from_mins(5);
/// How long a partition must have been another's: assignments change hands.
const HAND_OVER: Duration = Duration::from_secs(1);
/// How long a partition that could not be followed is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// A source of the table's topics outside the group, and its events.
pub type Reader = (Arc<dyn Source>, mpsc::Receiver<SourceEvent>);

/// What a follower works with.
pub struct FollowPorts {
    /// Makes the reader, when it is first needed.
    pub open: Box<dyn Fn() -> Result<Reader> + Send + Sync>,
    /// Schemas by id; `None` where no registry is configured.
    pub registry: Option<Arc<dyn Registry>>,
    /// Tables.
    pub lake: Arc<dyn Lake>,
    /// Time.
    pub clock: Clock,
    /// Threads for decoding.
    pub compute: Compute,
    /// The table's figures.
    pub metrics: Arc<TableMetrics>,
    /// Where rows are shown.
    pub seam: Seam,
}

/// Follows one table for as long as it is polled.
///
/// # Errors
/// `Bug` only: everything else is tried again.
pub async fn follow(spec: Arc<TableSpec>, ports: FollowPorts) -> Result<()> {
    ports.seam.attend();
    let mut follower: Option<(Follower, mpsc::Receiver<SourceEvent>)> = None;
    loop {
        let now = ports.clock.elapsed();
        if ports.seam.asked_at().is_none_or(|at| now.saturating_sub(at) > IDLE) {
            if let Some((follower, _)) = &mut follower {
                follower.stop();
            }
            ports.seam.next_ask().await;
            continue;
        }
        // Where this process commits every partition, there is nothing to follow and no reader is made.
        if follower.is_none() && !ports.seam.others().is_empty() {
            follower = open(&spec, &ports);
        }
        let tick = ports.clock.sleep(VERSION_POLL);
        let Some((follower, events)) = &mut follower else {
            tick.await;
            continue;
        };
        follower.look_around().await?;
        tokio::pin!(tick);
        loop {
            tokio::select! {
                biased;
                () = &mut tick => break,
                event = events.recv() => match event {
                    Some(event) => follower.heard(event).await?,
                    None => return Err(Error::bug("the reader of a follower ended")),
                },
            }
        }
    }
}

fn open(spec: &Arc<TableSpec>, ports: &FollowPorts) -> Option<(Follower, mpsc::Receiver<SourceEvent>)> {
    let (source, events) = match (ports.open)() {
        Ok(reader) => reader,
        Err(error) => {
            tracing::warn!(table = %spec.settings.table, error = %error.chain(), "what others commit cannot be followed");
            return None;
        }
    };
    let resolver = Resolver::reader(
        Arc::clone(spec),
        Ports {
            source,
            registry: ports.registry.clone(),
            lake: Arc::clone(&ports.lake),
            clock: ports.clock.clone(),
            compute: ports.compute.clone(),
            // What a follower waits for says nothing of the table's condition.
            health: Health::new(),
            metrics: Arc::clone(&ports.metrics),
            seam: None,
        },
    );
    let follower = Follower {
        resolver,
        seam: ports.seam.clone(),
        seen: BTreeMap::new(),
        reading: BTreeMap::new(),
        last_attempt: 0,
    };
    Some((follower, events))
}

struct Follower {
    resolver: Resolver,
    seam: Seam,
    /// The partitions that others commit, and when each may be followed.
    seen: BTreeMap<TopicPartition, Duration>,
    reading: BTreeMap<TopicPartition, Attempt>,
    last_attempt: u64,
}

impl Follower {
    fn now(&self) -> Duration {
        self.resolver.ports.clock.elapsed()
    }

    /// Takes what is committed by now. A catalog that is away holds no reading back.
    async fn take_commits(&self) {
        if let Ok(Some(state)) = self.resolver.ports.lake.load(&self.resolver.spec.settings.table).await {
            self.resolver.seen(&state);
            self.seam.publish(&state);
        }
    }

    /// Takes others' commits, and begins or ends readings as partitions change hands.
    async fn look_around(&mut self) -> Result<()> {
        self.take_commits().await;
        let table = &self.resolver.spec.settings.table;
        let others = self.seam.others();
        let gone: Vec<_> = self.seen.keys().filter(|source| !others.contains_key(source)).cloned().collect();
        for source in gone {
            self.seen.remove(&source);
            if self.reading.remove(&source).is_some() {
                self.resolver.ports.source.stop(vec![source.clone()]);
            }
            self.seam.unfollow(&source);
        }
        let now = self.now();
        let mut due = Vec::new();
        for (source, at) in others {
            let from = *self.seen.entry(source.clone()).or_insert(now + HAND_OVER);
            if from <= now && !self.reading.contains_key(&source) {
                due.push((source, at));
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        match self.may_follow(&due).await {
            Ok(()) => self.begin(due),
            Err(error) => {
                tracing::warn!(%table, error = %error.chain(), "what others commit cannot be followed");
                due.iter().for_each(|(source, _)| self.leave(source));
            }
        }
        Ok(())
    }

    /// Refuses a table that another mapping made, and topics that are not those of its ledger.
    async fn may_follow(&self, due: &[(TopicPartition, Position)]) -> Result<()> {
        let version = self.seam.version().ok_or_else(|| Error::bug("follow a table before it was seen"))?;
        check_mapping(&self.resolver, &version)?;
        self.resolver.adopt(&version).await?;
        let Recovery::At(progress) = &version.recovery else { return Ok(()) };
        for (topic, held) in &progress.ledger.topics {
            if !due.iter().any(|(source, _)| source.topic.as_ref() == topic) {
                continue;
            }
            let facts = self.resolver.ports.source.topic(topic).await?;
            let same = |facts: &crate::ports::TopicFacts| held.topic_id.is_none() || facts.topic_id == held.topic_id;
            if !facts.as_ref().is_some_and(same) {
                return Err(Error::corrupt(format!("topic `{topic}` is gone, or was made anew")));
            }
        }
        Ok(())
    }

    fn begin(&mut self, due: Vec<(TopicPartition, Position)>) {
        let mut starts = Vec::with_capacity(due.len());
        for (source, at) in due {
            self.last_attempt += 1;
            let attempt = Attempt(self.last_attempt);
            self.reading.insert(source.clone(), attempt);
            starts.push(Start { source, at, attempt });
        }
        tracing::debug!(table = %self.resolver.spec.settings.table, partitions = starts.len(), "following");
        self.resolver.ports.source.start(starts);
    }

    /// Reads a partition no more for now. What is held of it stays, and its reading goes on behind that.
    fn leave(&mut self, source: &TopicPartition) {
        if self.reading.remove(source).is_some() {
            self.resolver.ports.source.stop(vec![source.clone()]);
        }
        self.seen.insert(source.clone(), self.now() + RETRY);
        self.seam.settle(source);
    }

    /// Follows nothing any more, until it is asked for again.
    fn stop(&mut self) {
        self.resolver.ports.source.stop(std::mem::take(&mut self.reading).into_keys().collect());
        for source in std::mem::take(&mut self.seen).into_keys() {
            self.seam.unfollow(&source);
        }
    }

    async fn heard(&mut self, event: SourceEvent) -> Result<()> {
        let current = |source: &TopicPartition, attempt| self.reading.get(source) == Some(&attempt);
        match event {
            SourceEvent::Batch(raw, charge) if current(&raw.source, raw.attempt) => {
                self.show(raw).await?;
                drop(charge);
            }
            SourceEvent::Eof { source, attempt, .. } if current(&source, attempt) => self.seam.settle(&source),
            SourceEvent::OutOfRange { source, attempt } | SourceEvent::Failed { source, attempt, .. }
                if current(&source, attempt) =>
            {
                self.leave(&source);
            }
            // Of an earlier reading. Outside a group nothing is assigned or revoked.
            _ => {}
        }
        Ok(())
    }

    /// Decodes a batch and shows its rows, as far as they are rows.
    async fn show(&mut self, raw: RawBatch) -> Result<()> {
        let source = raw.source.clone();
        let (spec, clock) = (Arc::clone(&self.resolver.spec), self.resolver.ports.clock.clone());
        let mut rows = match self.resolver.decode(raw).await {
            Ok(Decoded::Rows(rows)) => rows,
            Err(error) if error.kind() == crate::error::ErrorKind::Bug => return Err(error),
            // Columns that the table does not have yet are made by whoever commits.
            Ok(Decoded::Misfit(..)) | Err(_) => {
                self.leave(&source);
                return Ok(());
            }
        };
        let suspends = spec.settings.on_error == OnError::Suspend && !rows.rejects.is_empty();
        if suspends {
            cut_at_reject(&spec.layout, &mut rows);
        }
        while !self.seam.has_room() {
            // Commits make room.
            clock.sleep(VERSION_POLL).await;
            self.take_commits().await;
            // What cannot be shown holds no answer back.
            self.seam.settle(&source);
        }
        if let Some(batch) = tail_batch(&spec.layout, &rows) {
            self.seam.follow(batch);
        }
        if suspends {
            self.leave(&source);
        }
        Ok(())
    }
}
