//! What keeps one table's index: it takes the tail's batches as they come, and the commits that follow them.
//!
//! Several processes may follow one table; the one with the lease writes, the others take what it has written.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;

use super::entries::{self, Covered, Identity, Shape};
use super::hot::HotBatch;
use super::index::TableIndex;
use super::lease::Lease;
use super::position::Position;
use super::store::{Definition, Place, Stored};
use super::tail::take_tail;
use crate::error::{Error, ErrorKind, Result, policy};
use crate::model::file::WrittenFile;
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::version::SnapshotAt;
use crate::ports::{Embedder, LakeReader, Leases, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::crash;
use crate::runtime::shutdown::Shutdown;
use crate::seam::Seam;
use crate::telemetry::metrics::TableMetrics;

/// How often a table is looked at whose commits are made elsewhere.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Entries added before the position is noted while a table is read for the first time.
const NOTE_ENTRIES: usize = 200_000;
/// Bytes of entries of one append.
const APPEND_BYTES: usize = 32 << 20;

/// What a follower works with.
#[derive(Clone)]
pub struct Sources {
    /// Where tables are read.
    pub lake: Arc<dyn LakeReader>,
    /// Who may write the index.
    pub leases: Arc<dyn Leases>,
    /// The table's tail, where this process keeps it.
    pub seam: Option<Seam>,
    /// Makes vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Makes entries of what has just come.
    pub compute: Compute,
    /// Makes entries of what was committed before, below ingestion in priority.
    pub background: Compute,
    /// Time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<TableMetrics>,
}

/// Keeps one table's index.
pub struct Follower {
    index: Arc<TableIndex>,
    place: Place,
    sources: Sources,
    lease: Lease,
    stored: Option<(Stored, Arc<Shape>)>,
    /// When the catalog was asked last.
    polled: Option<Duration>,
    /// False once nothing was left to do for the index's speed.
    is_unkempt: bool,
}

impl Follower {
    /// A follower for `index` in `place`.
    #[must_use]
    pub fn new(index: Arc<TableIndex>, place: Place, sources: Sources) -> Self {
        let name = format!("index:{}", index.spec.table);
        let lease = Lease::new(name, Arc::clone(&sources.leases), sources.clock.clone());
        Self { index, place, sources, lease, stored: None, polled: None, is_unkempt: true }
    }

    /// Follows the table until `stop`. Whatever is away is waited for; a damaged index is made anew.
    ///
    /// # Errors
    /// `InvalidConfig` where the table cannot be indexed as configured.
    pub async fn run(self, stop: Shutdown) -> Result<()> {
        let (index, sources, lease) = (Arc::clone(&self.index), self.sources.clone(), self.lease.clone());
        let end = tokio::select! {
            () = stop.requested() => Ok(()),
            end = take_tail(&index, &sources) => end,
            end = self.take_commits() => end,
            end = lease.keep() => end,
        };
        lease.release().await;
        end
    }

    async fn take_commits(mut self) -> Result<()> {
        let mut backoff = Backoff::service();
        let clock = self.sources.clock.clone();
        loop {
            match self.round().await {
                Ok(true) => backoff = Backoff::service(),
                Ok(false) => {
                    backoff = Backoff::service();
                    clock.timeout(POLL_INTERVAL, committed(self.sources.seam.as_ref())).await;
                }
                Err(error) if error.kind() == ErrorKind::InvalidConfig => return Err(error),
                Err(error) => {
                    let (_, hint) = policy(error.kind());
                    tracing::warn!(table = %self.index.spec.table, error = %error.chain(), hint, "index is behind");
                    self.sources.metrics.index.failures.inc();
                    // What was begun and not noted is removed where the index is opened again.
                    self.stored = None;
                    if error.kind() == ErrorKind::Corrupt && self.lease.is_held() {
                        self.forget().await;
                    }
                    clock.sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Drops an index that cannot be gone on with.
    async fn forget(&mut self) {
        self.stored = None;
        self.index.withdraw();
        if let Err(error) = super::drop_index(self.place.folder(), &self.index.spec.table).await {
            tracing::warn!(error = %error.chain(), "a damaged index cannot be removed");
        }
    }

    /// One step; true where another may be due at once.
    async fn round(&mut self) -> Result<bool> {
        let Some(state) = self.state().await? else { return Ok(false) };
        let Some(snapshot) = state.snapshot_id else { return Ok(false) };
        if !self.may_write().await? {
            return self.look_on(&state).await;
        }
        let shape = self.opened(&state).await?;
        let Some((stored, _)) = &self.stored else { return Ok(false) };
        if self.index.take_damage() {
            stored.look_over().await?;
        }
        self.sources.metrics.index.lag_records.set(behind(&state, stored) as f64);
        match stored.position.clone() {
            Some(at) if at.files_done.is_none() && at.snapshot_id == snapshot => {
                if !self.optimized().await? {
                    return Ok(false);
                }
            }
            Some(at) if at.files_done.is_none() => match self.sources.lake.added(&state, at.snapshot_id).await? {
                Some(files) => self.apply(&state, snapshot, &at, &files, &shape).await?,
                None => {
                    tracing::warn!(
                        table = %state.table,
                        "rows were removed or the index was away for too long: making it anew"
                    );
                    self.forget().await;
                    return Ok(true);
                }
            },
            at => self.read_all(&state, at.as_ref(), &shape).await?,
        }
        self.show().await?;
        Ok(true)
    }

    /// The table as it is committed, by this process or, at most a poll ago, by others.
    async fn state(&mut self) -> Result<Option<TableState>> {
        let now = self.sources.clock.elapsed();
        let is_due = self.polled.is_none_or(|at| now.saturating_sub(at) >= POLL_INTERVAL);
        match self.sources.seam.as_ref().filter(|_| !is_due).and_then(Seam::version) {
            Some(version) => Ok(Some(TableState::clone(&version))),
            None => {
                let state = self.sources.lake.at(&self.index.spec.table, SnapshotAt::Current).await?;
                self.polled = Some(now);
                if let (Some(seam), Some(state)) = (&self.sources.seam, &state) {
                    seam.publish(state);
                }
                Ok(state)
            }
        }
    }

    /// Takes the lease where it is not held; false while another process has it.
    async fn may_write(&mut self) -> Result<bool> {
        if self.lease.is_held() {
            return Ok(true);
        }
        let is_taken = self.lease.take().await?;
        if is_taken {
            // What the writer before this one left behind must be seen, and what it did not finish be removed.
            self.stored = None;
        }
        Ok(is_taken)
    }

    fn definition(&self, shape: &Shape) -> Definition {
        Definition::new(shape, self.sources.embedder.id(), self.index.spec.text.to_string())
    }

    /// What another process has written.
    async fn look_on(&mut self, state: &TableState) -> Result<bool> {
        let shape = Arc::new(Shape::new(&self.index.spec, &state.schema, self.sources.embedder.dimension())?);
        let is_current = match &mut self.stored {
            Some((stored, known)) if *known == shape => stored.refresh().await?,
            _ => false,
        };
        if !is_current {
            let stored = self.place.open(&self.index.spec.table, &self.definition(&shape)).await?;
            self.stored = stored.map(|stored| (stored, shape));
        }
        self.show().await?;
        Ok(false)
    }

    /// Opens the index, or makes one where there is none that goes on from here.
    async fn opened(&mut self, state: &TableState) -> Result<Arc<Shape>> {
        let shape = Arc::new(Shape::new(&self.index.spec, &state.schema, self.sources.embedder.dimension())?);
        let is_of = |stored: &Stored| stored.position.as_ref().is_none_or(|at| at.table_uuid == state.uuid);
        if self.stored.as_ref().is_some_and(|(stored, known)| *known == shape && is_of(stored)) {
            return Ok(shape);
        }
        let (table, definition) = (&self.index.spec.table, self.definition(&shape));
        let stored = match self.place.open(table, &definition).await? {
            Some(mut stored) if is_of(&stored) => {
                stored.truncate().await?;
                stored
            }
            _ => {
                let missing: Vec<&str> =
                    self.index.spec.needs().into_iter().filter(|name| state.schema.field(name).is_none()).collect();
                tracing::info!(%table, ?missing, "making a new index; columns that are missing are empty until they come");
                self.place.create(table, &shape, &definition, self.sources.clock.fresh_id()).await?
            }
        };
        self.stored = Some((stored, Arc::clone(&shape)));
        self.show().await?;
        Ok(shape)
    }

    async fn show(&self) -> Result<()> {
        let Some((stored, shape)) = &self.stored else { return Ok(()) };
        let entries = stored.entries().await?;
        self.index.show(stored, shape, entries);
        self.sources.metrics.index.entries.set(entries as f64);
        Ok(())
    }

    async fn optimized(&mut self) -> Result<bool> {
        let Some((stored, _)) = self.stored.as_mut().filter(|_| self.is_unkempt) else { return Ok(false) };
        self.is_unkempt = stored.optimize().await?;
        Ok(self.is_unkempt)
    }

    /// Takes the rows that came after `at`: of a partition the hot entries where they are all there, else out of the files.
    async fn apply(
        &mut self,
        state: &TableState,
        snapshot: i64,
        at: &Position,
        files: &[WrittenFile],
        shape: &Arc<Shape>,
    ) -> Result<()> {
        let position = Position::of(state, snapshot, None, at.batch + 1);
        let (from, to) = (at.as_of().offsets, position.as_of().offsets);
        let mut hot = self.index.between(&from, &to);
        let mut covered = Covered::default();
        let mut is_all = true;
        for (source, end) in &to {
            let begin = from.get(source).copied().unwrap_or(NextOffset(0));
            if begin == *end {
                continue;
            }
            match incarnation(&hot, source, begin, *end) {
                Some(of) => {
                    let batches = hot.iter().filter(|batch| batch.source == *source);
                    let offsets = batches.flat_map(|batch| &batch.offsets).copied();
                    covered.insert((source.clone(), of), offsets.collect());
                }
                None => {
                    is_all = false;
                    hot.retain(|batch| batch.source != *source);
                }
            }
        }
        // Hot batches are whole batches of the very rows that were committed: where their number is right, they are
        // all of them, and nothing need be read or embedded again.
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        let is_all = is_all && hot.iter().map(|batch| batch.offsets.len() as u64).sum::<u64>() == rows;
        let mut append = Append { of: self, batch: position.batch, waiting: Vec::new(), entries: 0 };
        for batch in &hot {
            append.take(entries::of_batch(&batch.entries, position.batch)?).await?;
        }
        if !is_all {
            let covered = Arc::new(covered);
            for file in files {
                append.read(state, file, shape, &covered).await?;
            }
        }
        append.flush().await?;
        self.note(position).await
    }

    /// Reads the whole table at one snapshot, from where that was left off.
    async fn read_all(&mut self, state: &TableState, at: Option<&Position>, shape: &Arc<Shape>) -> Result<()> {
        let (lake, table) = (Arc::clone(&self.sources.lake), state.table.clone());
        let begun = match at {
            Some(at) => lake.at(&table, SnapshotAt::Id(at.snapshot_id)).await,
            None => Ok(Some(state.clone())),
        };
        let gone = || Error::corrupt("the snapshot that was being indexed has expired");
        let state = match begun {
            Ok(state) => state.ok_or_else(gone)?,
            Err(error) if error.kind() == ErrorKind::InvalidRequest => return Err(gone()),
            Err(error) => return Err(error),
        };
        let Some(snapshot) = state.snapshot_id else { return Ok(()) };
        let files: Vec<WrittenFile> =
            lake.files(&state).await?.iter().flat_map(|files| files.iter().cloned()).collect();
        let done = at.and_then(|at| at.files_done).unwrap_or(0);
        let batch = at.map_or(0, |at| at.batch) + 1;
        let mut append = Append { of: self, batch, waiting: Vec::new(), entries: 0 };
        let mut next = done;
        while next < files.len() && append.entries < NOTE_ENTRIES {
            append.read(&state, &files[next], shape, &Arc::default()).await?;
            next += 1;
        }
        append.flush().await?;
        let files_done = (next < files.len()).then_some(next);
        tracing::info!(table = %table, files = files.len(), done = next, "indexing what is in the table");
        self.note(Position::of(&state, snapshot, files_done, batch)).await
    }

    async fn note(&mut self, position: Position) -> Result<()> {
        let is_held = self.lease.is_held();
        let Some((stored, _)) = self.stored.as_mut().filter(|_| is_held) else { return Err(taken_over()) };
        crash::point(crash::INDEX_APPENDED);
        stored.index_text().await?;
        stored.note(position).await?;
        crash::point(crash::INDEX_NOTED);
        self.is_unkempt = true;
        self.sources.metrics.index.applied.inc();
        Ok(())
    }
}

/// Committed offsets that are not in the index.
fn behind(state: &TableState, stored: &Stored) -> i64 {
    let indexed = stored.position.as_ref().map(Position::as_of).unwrap_or_default().offsets;
    let committed = state.offsets();
    let at = |source| indexed.get(source).map_or(0, |next| next.0);
    committed.iter().map(|(source, next)| (next.0 - at(source)).max(0)).sum()
}

/// Entries on their way into the index.
struct Append<'a> {
    of: &'a mut Follower,
    batch: i64,
    waiting: Vec<RecordBatch>,
    /// Entries taken so far.
    entries: usize,
}

impl Append<'_> {
    async fn take(&mut self, entries: RecordBatch) -> Result<()> {
        self.entries += entries.num_rows();
        self.waiting.push(entries);
        if self.waiting.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() >= APPEND_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        let is_held = self.of.lease.is_held();
        let Some((stored, _)) = self.of.stored.as_mut().filter(|_| is_held) else { return Err(taken_over()) };
        stored.append(waiting).await
    }

    /// Takes the rows of a file, but for those of records that are `covered`.
    async fn read(
        &mut self,
        state: &TableState,
        file: &WrittenFile,
        shape: &Arc<Shape>,
        covered: &Arc<Covered>,
    ) -> Result<()> {
        let (index, sources) = (Arc::clone(&self.of.index), self.of.sources.clone());
        let mut rows = sources.lake.rows(state, file, &index.spec.needs()).await?;
        while let Some(rows) = rows.try_next().await? {
            let (index, shape, batch) = (Arc::clone(&index), Arc::clone(shape), self.batch);
            let (embedder, covered) = (Arc::clone(&sources.embedder), Arc::clone(covered));
            let make = move || {
                let rows = index.spec.rows_but(&rows, &covered)?;
                entries::entries(&rows, &index.spec, &shape, &*embedder, batch)
            };
            let made = sources.background.run(make).await??;
            self.take(made).await?;
        }
        Ok(())
    }
}

fn taken_over() -> Error {
    Error::unavailable("another process took over the index")
}

/// Which incarnation of its topic `hot` has all records of, in one partition between two offsets; `None` where it does
/// not have all, or none of them has text.
fn incarnation(hot: &[Arc<HotBatch>], source: &TopicPartition, begin: NextOffset, end: NextOffset) -> Option<i32> {
    let (mut at, mut incarnation) = (begin, None);
    for batch in hot.iter().filter(|batch| batch.source == *source) {
        if batch.first != at {
            return None;
        }
        at = batch.next;
        if incarnation.is_none() && batch.entries.num_rows() > 0 {
            incarnation = Identity::of(&batch.entries).ok().map(|ids| ids.at(0).1);
        }
    }
    incarnation.filter(|_| at == end)
}

/// Waits for a commit that this process makes or sees.
async fn committed(seam: Option<&Seam>) {
    let Some(seam) = seam else { return std::future::pending().await };
    let mut changed = seam.changes();
    let seen = |seam: &Seam| seam.version().and_then(|version| version.snapshot_id);
    let before = seen(seam);
    while seen(seam) == before {
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
