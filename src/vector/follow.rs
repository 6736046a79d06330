//! What keeps one table's index: it takes the tail's batches as they come, and the commits that follow them.
//!
//! Several processes may follow one table; the one with the lease writes, the others take what it has written.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;

use super::entries::{self, Identity, Shape};
use super::hot::HotBatch;
use super::index::TableIndex;
use super::position::{Offsets, Position};
use super::store::{Definition, Place, Stored};
use crate::error::{Error, ErrorKind, Result, policy};
use crate::model::file::WrittenFile;
use crate::model::version::SnapshotAt;
use crate::ports::{Embedder, LakeReader, Leases, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::crash;
use crate::runtime::shutdown::Shutdown;
use crate::seam::{Seam, TailBatch, View};
use crate::telemetry::metrics::TableMetrics;

/// How often a table is looked at whose commits are made elsewhere.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long the lease on an index lasts that is not renewed.
const LEASE: Duration = Duration::from_secs(10);
/// Entries added before the position is noted while a table is read for the first time.
const NOTE_ENTRIES: usize = 200_000;
/// Entries of one append.
const APPEND_ENTRIES: usize = 50_000;

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
    owner: String,
    stored: Option<(Stored, Arc<Shape>)>,
    renewed: Option<Duration>,
}

impl Follower {
    /// A follower for `index` in `place`.
    #[must_use]
    pub fn new(index: Arc<TableIndex>, place: Place, sources: Sources) -> Self {
        let owner = sources.clock.fresh_id().to_string();
        Self { index, place, sources, owner, stored: None, renewed: None }
    }

    /// Follows the table until `stop`. Whatever is away is waited for; a damaged index is made anew.
    ///
    /// # Errors
    /// `InvalidConfig` where the table cannot be indexed as configured.
    pub async fn run(self, stop: Shutdown) -> Result<()> {
        let (index, sources) = (Arc::clone(&self.index), self.sources.clone());
        tokio::select! {
            () = stop.requested() => Ok(()),
            end = take_tail(&index, &sources) => end,
            end = self.take_commits() => end,
        }
    }

    async fn take_commits(mut self) -> Result<()> {
        let mut backoff = Backoff::service();
        let clock = self.sources.clock.clone();
        let mut changed = self.sources.seam.as_ref().map(Seam::changes);
        loop {
            match self.round().await {
                Ok(is_busy) => {
                    backoff = Backoff::service();
                    if is_busy {
                        continue;
                    }
                }
                Err(error) if error.kind() == ErrorKind::InvalidConfig => return Err(error),
                Err(error) => {
                    let (_, hint) = policy(error.kind());
                    tracing::warn!(table = %self.index.spec.table, error = %error.chain(), hint, "index is behind");
                    self.sources.metrics.index.failures.inc();
                    if error.kind() == ErrorKind::Corrupt {
                        self.forget().await;
                    }
                    clock.sleep(backoff.pause()).await;
                    continue;
                }
            }
            let committed = async {
                match &mut changed {
                    Some(changed) => drop(changed.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = clock.sleep(POLL_INTERVAL) => {}
                () = committed => {}
            }
        }
    }

    /// Drops an index that cannot be gone on with.
    async fn forget(&mut self) {
        self.stored = None;
        if let Err(error) = super::drop_index(self.place.folder(), &self.index.spec.table).await {
            tracing::warn!(error = %error.chain(), "a damaged index cannot be removed");
        }
    }

    /// One step; true where another may be due at once.
    async fn round(&mut self) -> Result<bool> {
        let Some(state) = self.state().await? else { return Ok(false) };
        let Some(snapshot) = state.snapshot_id else { return Ok(false) };
        if self.index.take_damage() {
            return Err(Error::corrupt("a search found the index damaged"));
        }
        if !self.may_write().await? {
            return self.look_on(&state).await;
        }
        let shape = self.opened(&state).await?;
        let Some((stored, _)) = &self.stored else { return Ok(false) };
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

    /// The table as it is committed.
    async fn state(&self) -> Result<Option<TableState>> {
        if let Some(view) = self.sources.seam.as_ref().and_then(Seam::committed) {
            return Ok(Some(TableState::clone(&view.version)));
        }
        self.sources.lake.at(&self.index.spec.table, SnapshotAt::Current).await
    }

    /// Takes or renews the lease; false while another process has it.
    async fn may_write(&mut self) -> Result<bool> {
        let now = self.sources.clock.elapsed();
        if self.renewed.is_some_and(|at| now.saturating_sub(at) < LEASE / 3) {
            return Ok(true);
        }
        let name = format!("index:{}", self.index.spec.table);
        let is_mine = self.sources.leases.take(&name, &self.owner, LEASE).await?;
        if is_mine && self.renewed.is_none() {
            // What the writer before this one left behind must be seen, and what it did not finish be removed.
            self.stored = None;
        }
        self.renewed = is_mine.then_some(now);
        Ok(is_mine)
    }

    fn definition(&self, shape: &Shape) -> Definition {
        Definition::new(shape, self.sources.embedder.id(), self.index.spec.text.to_string())
    }

    /// What another process has written.
    async fn look_on(&mut self, state: &TableState) -> Result<bool> {
        let shape = Arc::new(Shape::new(&self.index.spec, &state.schema, self.sources.embedder.dimension())?);
        match &mut self.stored {
            Some((stored, known)) if *known == shape => stored.refresh().await?,
            _ => {
                let stored = self.place.open(&self.index.spec.table, &self.definition(&shape)).await?;
                self.stored = stored.map(|stored| (stored, shape));
            }
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
                tracing::info!(%table, "making a new index");
                self.place.create(table, &shape, &definition).await?
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
        let Some((stored, _)) = &mut self.stored else { return Ok(false) };
        stored.optimize().await
    }

    /// Takes the rows that came after `at`: the hot entries where they are all there, else out of the files.
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
        let hot = self.index.between(&from, &to);
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        // Hot batches are whole batches of the very rows that were committed: where their number is right, they are
        // all of them, and nothing need be read or embedded again.
        let is_whole = is_contiguous(&hot, &from, &to) && hot.iter().map(|batch| batch.rows).sum::<u64>() == rows;
        let mut append = Append { of: self, batch: position.batch, waiting: Vec::new(), entries: 0 };
        for batch in &hot {
            append.take(entries::of_batch(&batch.entries, position.batch)?).await?;
        }
        if !is_whole {
            let known: Vec<Known<'_>> = hot.iter().filter_map(|batch| known(batch)).collect();
            for file in files {
                append.read(state, file, shape, &known).await?;
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
            append.read(&state, &files[next], shape, &[]).await?;
            next += 1;
        }
        append.flush().await?;
        let files_done = (next < files.len()).then_some(next);
        tracing::info!(table = %table, files = files.len(), done = next, "indexing what is in the table");
        self.note(Position::of(&state, snapshot, files_done, batch)).await
    }

    async fn note(&mut self, position: Position) -> Result<()> {
        let Some((stored, _)) = &mut self.stored else { return Ok(()) };
        crash::point(crash::INDEX_APPENDED);
        stored.index_text().await?;
        stored.note(position).await?;
        crash::point(crash::INDEX_NOTED);
        self.sources.metrics.index.applied.inc();
        Ok(())
    }
}

/// Committed offsets that are not in the index.
fn behind(state: &TableState, stored: &Stored) -> i64 {
    let indexed = stored.position.as_ref().map(Position::as_of).unwrap_or_default().offsets;
    let committed = View::committed(Arc::new(state.clone())).as_of.offsets;
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
        if self.waiting.iter().map(RecordBatch::num_rows).sum::<usize>() >= APPEND_ENTRIES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        // A lease that ran out meanwhile would let two processes write.
        if !self.of.may_write().await? {
            return Err(Error::unavailable("another process took over the index"));
        }
        let Some((stored, _)) = &mut self.of.stored else { return Ok(()) };
        stored.append(waiting).await
    }

    /// Takes the rows of a file, but for those of records in `known`.
    async fn read(
        &mut self,
        state: &TableState,
        file: &WrittenFile,
        shape: &Arc<Shape>,
        known: &[Known<'_>],
    ) -> Result<()> {
        let (index, sources) = (Arc::clone(&self.of.index), self.of.sources.clone());
        let mut rows = sources.lake.rows(state, file, &index.spec.needs()).await?;
        while let Some(rows) = rows.try_next().await? {
            let (index, shape, batch) = (Arc::clone(&index), Arc::clone(shape), self.batch);
            let embedder = Arc::clone(&sources.embedder);
            let make = move || entries::entries(&rows, &index.spec, &shape, &*embedder, batch);
            let made = sources.background.run(make).await??;
            self.take(without(&made, known)?).await?;
        }
        Ok(())
    }
}

/// Topic, incarnation and partition, and the offsets of a hot batch.
type Known<'a> = ((&'a str, i32, i32), Range<i64>);

/// The records of a hot batch; `None` where none has text.
fn known(batch: &HotBatch) -> Option<Known<'_>> {
    let ids = Identity::of(&batch.entries).ok().filter(|_| batch.entries.num_rows() > 0)?;
    let (topic, incarnation, partition, _) = ids.at(0);
    Some(((topic, incarnation, partition), batch.first.0..batch.next.0))
}

/// `entries` but for those of records in `known`.
fn without(entries: &RecordBatch, known: &[Known<'_>]) -> Result<RecordBatch> {
    if known.is_empty() {
        return Ok(entries.clone());
    }
    let ids = Identity::of(entries)?;
    let is_new = |row: usize| {
        let (topic, incarnation, partition, offset) = ids.at(row);
        let is_of = |known: &Known<'_>| known.0 == (topic, incarnation, partition) && known.1.contains(&offset);
        !known.iter().any(is_of)
    };
    let keep: BooleanArray = (0..entries.num_rows()).map(|row| Some(is_new(row))).collect();
    filter_record_batch(entries, &keep).map_err(|e| Error::bug("filter index entries").with_source(e))
}

/// True where `hot` is every offset between two positions, without a gap.
fn is_contiguous(hot: &[Arc<HotBatch>], from: &Offsets, to: &Offsets) -> bool {
    to.iter().all(|(source, end)| {
        let Some(begin) = from.get(source) else { return end.0 == 0 };
        let mut at = *begin;
        for batch in hot.iter().filter(|batch| batch.source == *source) {
            if batch.first != at {
                return false;
            }
            at = batch.next;
        }
        at == *end
    })
}

/// Takes the tail's batches as they come, for as long as there is one.
async fn take_tail(index: &Arc<TableIndex>, sources: &Sources) -> Result<()> {
    let Some(seam) = &sources.seam else { return std::future::pending().await };
    let mut changed = seam.changes();
    loop {
        changed.borrow_and_update();
        if let Some(view) = seam.now() {
            index.cut(&view.as_of.offsets);
            for batch in &view.tail {
                if index.taken(&batch.source).is_none_or(|taken| taken < batch.next) {
                    let (hot, shape) = heated(batch.clone(), &view, index, sources).await?;
                    index.heat(hot, &shape);
                }
            }
        }
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A tail batch as hot entries.
async fn heated(
    batch: TailBatch,
    view: &View,
    index: &Arc<TableIndex>,
    sources: &Sources,
) -> Result<(HotBatch, Arc<Shape>)> {
    let shape = Arc::new(Shape::new(&index.spec, &view.version.schema, sources.embedder.dimension())?);
    let (index, embedder, of) = (Arc::clone(index), Arc::clone(&sources.embedder), Arc::clone(&shape));
    let rows = batch.rows.clone();
    let make = move || entries::entries(&rows, &index.spec, &of, &*embedder, 0);
    let entries = sources.compute.run(make).await??;
    let hot = HotBatch {
        source: batch.source,
        first: batch.first,
        next: batch.next,
        rows: batch.rows.num_rows() as u64,
        newest_ms: batch.newest_ms,
        entries,
        words: OnceLock::new(),
    };
    Ok((hot, shape))
}
