//! Carries out one table's commands: the only async part of the pipeline, and the only one that touches ports.
//!
//! One task per table. Decoding runs in order but side by side on the compute pool; writing is one job after the
//! other (parallel by column inside); sealing and committing an epoch overlap with writing the next one.

mod commit;
mod epoch;
mod filter;
mod follow;
mod redecode;
mod resolve;
mod shown;
mod spec;
mod survey;
pub mod takeover;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use futures::stream::{FuturesOrdered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};

use self::commit::{commit, other_topic};
use self::epoch::{EpochFiles, SealedFiles};
pub use self::follow::{FollowPorts, Reader, follow};
pub use self::redecode::{RedecodePorts, Redecoded, Redecoder};
use self::resolve::{Decoded, Resolver};
pub use self::spec::{Subjects, TableFilter, TableSpec};
use super::event::{BatchId, Command, CommitEnd, CommitPlan, Condition, DecodedFacts, EpochId, Event, OnError, Ticket};
use super::machine::Machine;
use crate::decode::cut_at_reject;
use crate::decode::layout::{Layout, Metadata};
use crate::error::{Error, ErrorKind, Result};
use crate::model::decoded::DecodedBatch;
use crate::model::ids::{Attempt, TopicPartition};
use crate::model::raw::RawBatch;
use crate::ports::{Charge, Lake, Registry, Source, SourceEvent, TableState};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::crash;
use crate::runtime::shutdown::Shutdown;
use crate::seam::{Seam, TailBatch};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::TableMetrics;

/// What a driver works with.
#[derive(Clone)]
pub struct Ports {
    /// The table's topics.
    pub source: Arc<dyn Source>,
    /// Schemas by id; `None` where no registry is configured.
    pub registry: Option<Arc<dyn Registry>>,
    /// Tables.
    pub lake: Arc<dyn Lake>,
    /// Time and ids.
    pub clock: Clock,
    /// Threads for decoding.
    pub compute: Compute,
    /// Where the table's condition is shown.
    pub health: Health,
    /// Where its figures are shown.
    pub metrics: Arc<TableMetrics>,
    /// Where rows are shown before they are committed; `None` where nobody reads them.
    pub seam: Option<Seam>,
}

/// Runs one table until `shutdown`, then commits what is begun and ends. `state` shows each state of the table seen.
///
/// # Errors
/// `Bug` only: everything else is waited for, or shown as the table's condition.
pub async fn run(
    spec: Arc<TableSpec>,
    ports: Ports,
    events: mpsc::Receiver<SourceEvent>,
    state: watch::Sender<Option<TableState>>,
    shutdown: Shutdown,
) -> Result<()> {
    let machine = Machine::new(spec.settings.clone());
    let resolver = Arc::new(Resolver::new(Arc::clone(&spec), ports.clone()));
    let mut driver = Driver {
        machine,
        resolver,
        spec,
        ports,
        state,
        batches: HashMap::new(),
        last_batch: 0,
        tickets: HashMap::new(),
        last_ticket: 0,
        to_decode: VecDeque::new(),
        decoding: FuturesOrdered::new(),
        decoded: HashMap::new(),
        jobs: VecDeque::new(),
        files: None,
        writing: None,
        sealing: None,
        sealed: None,
        committing: None,
        surveying: None,
        finished: false,
    };
    let result = driver.work(events, shutdown).await;
    if let Err(error) = &result {
        driver.resolver.shown.set(Condition::Stopped(error.chain()));
    }
    result
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

struct Driver {
    machine: Machine,
    resolver: Arc<Resolver>,
    spec: Arc<TableSpec>,
    ports: Ports,
    state: watch::Sender<Option<TableState>>,
    /// Batches that came in and are not yet being decoded.
    batches: HashMap<BatchId, (RawBatch, Charge)>,
    last_batch: u64,
    tickets: HashMap<Ticket, (Vec<TopicPartition>, oneshot::Sender<()>)>,
    last_ticket: u64,
    to_decode: VecDeque<BatchId>,
    decoding: FuturesOrdered<Work<Decode>>,
    /// Decoded batches that wait for the brain's word and for the writer; their charge is held until written.
    decoded: HashMap<BatchId, (DecodedBatch, Charge)>,
    jobs: VecDeque<Job>,
    /// The open epoch's files, unless a write has them.
    files: Option<EpochFiles>,
    writing: Option<Work<(EpochFiles, Result<()>)>>,
    sealing: Option<Work<(EpochId, Result<SealedFiles>)>>,
    sealed: Option<(EpochId, SealedFiles)>,
    committing: Option<Work<(EpochId, CommitEnd)>>,
    surveying: Option<Work<Event>>,
    finished: bool,
}

/// What a decoding task ends with.
struct Decode {
    batch: BatchId,
    attempt: Attempt,
    source: TopicPartition,
    charge: Charge,
    result: Result<Decoded>,
}

enum Job {
    Write(BatchId, EpochId),
    Seal(EpochId),
}

/// Decoded batches that may wait for the writer, beside those being decoded.
const DECODED_WAITING_MAX: usize = 4;

impl Driver {
    async fn work(&mut self, mut events: mpsc::Receiver<SourceEvent>, shutdown: Shutdown) -> Result<()> {
        self.feed(Event::Assigned(Vec::new()));
        let mut stopping = false;
        let mut closed = false;
        while !self.finished {
            self.start_work();
            let clock = self.ports.clock.clone();
            let wake = self.machine.wake_at().map(|at| at.saturating_sub(clock.elapsed()));
            let event = tokio::select! {
                biased;
                () = shutdown.requested(), if !stopping => {
                    stopping = true;
                    Some(Event::Stop)
                }
                (epoch, end) = pending(&mut self.committing) => {
                    self.committing = None;
                    Some(Event::CommitEnded(epoch, end))
                }
                (epoch, result) = pending(&mut self.sealing) => {
                    self.sealing = None;
                    Some(self.sealed(epoch, result))
                }
                (files, result) = pending(&mut self.writing) => {
                    self.writing = None;
                    Some(self.written(files, result))
                }
                Some(decode) = self.decoding.next(), if !self.decoding.is_empty() => Some(self.finish_decode(decode)?),
                event = pending(&mut self.surveying) => {
                    self.surveying = None;
                    Some(event)
                }
                event = events.recv(), if !closed => if let Some(event) = event { Some(self.heard(event)) } else {
                    closed = true;
                    (!stopping).then_some(Event::Stop)
                },
                () = clock.sleep(wake.unwrap_or_default()), if wake.is_some() => Some(Event::Tick),
            };
            if let Some(event) = event {
                self.feed(event);
            }
        }
        Ok(())
    }

    /// Gives the brain an event and carries out what it orders.
    fn feed(&mut self, event: Event) {
        if let Event::CommitEnded(_, CommitEnd::Committed(state)) = &event {
            self.state.send_replace(Some(TableState::clone(state)));
            self.resolver.seen(state);
            self.show(|seam| seam.publish(state));
        }
        if let Event::Surveyed(survey) = &event {
            self.state.send_replace(Some(survey.state.clone()));
            self.show(|seam| seam.publish(&survey.state));
        }
        let clock = &self.ports.clock;
        for command in self.machine.step(clock.elapsed(), clock.now_ms(), event) {
            self.execute(command);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Survey { create } => {
                self.surveying = Some(Box::pin(survey::survey(Arc::clone(&self.resolver), create)));
            }
            Command::Begin(starts) => self.ports.source.start(starts),
            Command::Halt(partitions) => self.ports.source.stop(partitions),
            Command::Decode(batch) => self.to_decode.push_back(batch),
            Command::Discard(batch) => {
                self.batches.remove(&batch);
                self.decoded.remove(&batch);
            }
            Command::Write(batch, epoch) => {
                if let Some(batch) =
                    self.decoded.get(&batch).and_then(|(batch, _)| tail_batch(&self.spec.layout, batch))
                {
                    self.show(|seam| seam.append(batch));
                }
                self.jobs.push_back(Job::Write(batch, epoch));
            }
            Command::Seal(epoch) => self.jobs.push_back(Job::Seal(epoch)),
            Command::Commit(epoch, plan) => self.committing = Some(self.commit(epoch, plan)),
            Command::Abandon => self.abandon(),
            Command::Acknowledge(ticket) => {
                if let Some((partitions, done)) = self.tickets.remove(&ticket) {
                    self.show(|seam| seam.release(&partitions));
                    let _ = done.send(());
                    crash::point(crash::REVOKE_ACKNOWLEDGED);
                }
            }
            Command::Hint(positions) => self.ports.source.hint(positions),
            Command::Report(condition) => self.resolver.shown.set(condition),
            Command::Finished => self.finished = true,
        }
    }

    fn show(&self, how: impl FnOnce(&Seam)) {
        self.ports.seam.as_ref().map(how);
    }

    fn abandon(&mut self) {
        self.show(Seam::clear);
        self.batches.clear();
        self.to_decode.clear();
        self.decoding = FuturesOrdered::new();
        self.decoded.clear();
        self.jobs.clear();
        // Dropping unfinished files aborts their uploads; a commit under way may land, and is then the truth.
        self.files = None;
        self.writing = None;
        self.sealing = None;
        self.sealed = None;
        self.committing = None;
    }

    fn heard(&mut self, event: SourceEvent) -> Event {
        match event {
            SourceEvent::Assigned(partitions) => {
                self.ports.metrics.rebalances.inc();
                self.show(|seam| seam.keep(partitions.iter()));
                Event::Assigned(partitions)
            }
            SourceEvent::Revoked { partitions, lost, done } => {
                partitions.iter().for_each(|source| self.ports.metrics.remove_partition(source));
                self.last_ticket += 1;
                let ticket = Ticket(self.last_ticket);
                self.tickets.insert(ticket, (partitions.clone(), done));
                Event::Revoked { partitions, lost, ticket }
            }
            SourceEvent::Batch(raw, charge) => {
                self.ports.metrics.records_polled.inc_by(raw.records.len() as u64);
                self.ports.metrics.bytes_polled.inc_by(raw.bytes.len() as u64);
                self.last_batch += 1;
                let batch = BatchId(self.last_batch);
                let (source, attempt, first, next) = (raw.source.clone(), raw.attempt, raw.first, raw.next);
                self.batches.insert(batch, (raw, charge));
                Event::Polled { batch, source, attempt, first, next }
            }
            SourceEvent::Eof { source, attempt, next } => Event::Eof { source, attempt, next },
            SourceEvent::OutOfRange { source, attempt } => {
                Event::ReadFailed { source, attempt, reason: "the position lies outside the log".to_owned() }
            }
            SourceEvent::Failed { source, attempt, error } => {
                Event::ReadFailed { source, attempt, reason: error.chain() }
            }
        }
    }

    /// Begins whatever has room: decoding, and the next job of the writer.
    fn start_work(&mut self) {
        let most = self.ports.compute.threads() + 1;
        while self.decoding.len() < most && self.decoded.len() < DECODED_WAITING_MAX {
            let Some(batch) = self.to_decode.pop_front() else { break };
            let Some((raw, charge)) = self.batches.remove(&batch) else { continue };
            let resolver = Arc::clone(&self.resolver);
            let (attempt, source) = (raw.attempt, raw.source.clone());
            self.decoding.push_back(Box::pin(async move {
                let result = resolver.decode(raw).await;
                Decode { batch, attempt, source, charge, result }
            }));
        }
        while self.writing.is_none()
            && let Some(job) = self.jobs.pop_front()
        {
            self.start_job(job);
        }
    }

    fn start_job(&mut self, job: Job) {
        match job {
            Job::Write(batch, epoch) => {
                let Some((rows, charge)) = self.decoded.remove(&batch) else { return };
                let mut files =
                    self.files.take().unwrap_or_else(|| EpochFiles::new(epoch, self.ports.clock.fresh_id()));
                let resolver = Arc::clone(&self.resolver);
                self.writing = Some(Box::pin(async move {
                    let result = files.write(&resolver, rows).await;
                    drop(charge);
                    (files, result)
                }));
            }
            Job::Seal(epoch) => {
                let files = self.files.take().unwrap_or_else(|| EpochFiles::new(epoch, self.ports.clock.fresh_id()));
                self.sealing = Some(Box::pin(async move { (epoch, files.finish().await) }));
            }
        }
    }

    fn finish_decode(&mut self, decode: Decode) -> Result<Event> {
        let Decode { batch, attempt, source, charge, result } = decode;
        match result {
            Ok(Decoded::Rows(mut rows)) => {
                let reject = rows.rejects.first().map(|reject| {
                    let (reason, offset) = (reject.reason.as_str(), reject.record.offset);
                    format!("record {offset} of `{}` cannot be a row: {reason}: {}", rows.source, reject.message)
                });
                if self.resolver.spec.settings.on_error == OnError::Suspend {
                    cut_at_reject(&self.resolver.spec.layout, &mut rows);
                }
                let facts = DecodedFacts {
                    source,
                    attempt,
                    first: rows.first,
                    next: rows.next,
                    leader_epoch: rows.leader_epoch,
                    newest_ms: rows.newest_ms,
                    rows: rows.rows.num_rows() as u64,
                    reject,
                };
                self.decoded.insert(batch, (rows, charge));
                Ok(Event::Decoded(batch, facts))
            }
            Ok(Decoded::Misfit(_, reason)) => Ok(Event::Undecodable(batch, attempt, source, reason)),
            Err(error) if error.kind() == ErrorKind::Bug => Err(error),
            // Whatever passes has been waited for; this is a table that cannot take the batch's columns.
            Err(error) => Ok(Event::Undecodable(batch, attempt, source, error.chain())),
        }
    }

    fn written(&mut self, files: EpochFiles, result: Result<()>) -> Event {
        let epoch = files.epoch;
        match result {
            Ok(()) => {
                let bytes = files.file_bytes();
                self.files = Some(files);
                Event::Written(epoch, bytes)
            }
            Err(error) => Event::WriteFailed { epoch, passes: waits(&error), reason: error.chain() },
        }
    }

    fn sealed(&mut self, epoch: EpochId, result: Result<SealedFiles>) -> Event {
        match result {
            Ok(files) => {
                crash::point(crash::FILES_UPLOADED);
                self.sealed = Some((epoch, files));
                Event::Sealed(epoch)
            }
            Err(error) => Event::WriteFailed { epoch, passes: waits(&error), reason: error.chain() },
        }
    }

    fn commit(&mut self, epoch: EpochId, plan: CommitPlan) -> Work<(EpochId, CommitEnd)> {
        let files = self.sealed.take_if(|(sealed, _)| *sealed == epoch).map(|(_, files)| files);
        let (resolver, ports, spec) = (Arc::clone(&self.resolver), self.ports.clone(), Arc::clone(&self.spec));
        if files.is_none() {
            crash::point(crash::STARTS_RESOLVED);
        }
        Box::pin(async move {
            let files = files.unwrap_or_else(|| SealedFiles::none(ports.clock.fresh_id()));
            let counts = files.counts.clone();
            let Some(request) = resolver.request(plan, files) else {
                return (epoch, CommitEnd::Halted("commit before the table was seen".to_owned()));
            };
            if let Some(change) = other_topic(&resolver, &request).await {
                return (epoch, CommitEnd::Dropped(change));
            }
            let begun = ports.clock.elapsed();
            let end = commit(&ports, &resolver.shown, &request).await;
            if let CommitEnd::Committed(_) = &end {
                counts.count(&ports, &request, spec.settings.on_error == OnError::DeadLetter);
                ports
                    .metrics
                    .commit_duration_seconds
                    .observe(ports.clock.elapsed().saturating_sub(begun).as_secs_f64());
                ports.metrics.commit_last_timestamp_seconds.set(ports.clock.now_ms() as f64 / 1000.0);
            }
            (epoch, end)
        })
    }
}

/// The batch as readers see it; every layout has a column of offsets.
fn tail_batch(layout: &Layout, batch: &DecodedBatch) -> Option<TailBatch> {
    let offset_column = batch.rows.schema_ref().index_of(&Metadata::Offset.name(layout.names)).ok()?;
    Some(TailBatch {
        source: batch.source.clone(),
        first: batch.first,
        next: batch.next,
        newest_ms: batch.newest_ms,
        schema: Arc::clone(&batch.schema),
        rows: batch.rows.clone(),
        offset_column,
    })
}

/// True where the error's kind says that it passes.
fn waits(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Conflict)
}

/// The work's output, or never where there is none.
async fn pending<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
