//! The replay: letters' records decoded again, those that are rows now appended with their own places in Kafka, and
//! their letters taken out, in one commit for each group of letters' files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::TryStreamExt;
use serde::Serialize;

use super::{Choice, each_head, none};
use crate::app::connect;
use crate::app::spec;
use crate::config::Config;
use crate::decode::dead_letters::Letters;
use crate::decode::layout::Metadata;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::IcebergLake;
use crate::lake::letters::{LetterFile, Settled, Settlement};
use crate::lake::rehearsal::Rehearsal;
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::file::WrittenFile;
use crate::model::ids::{Attempt, CommitId, TableName, TopicPartition};
use crate::model::offsets::NextOffset;
use crate::model::raw::RawBatch;
use crate::model::record::{RecordColumns, RecordId, Records, TopicOf};
use crate::model::schema::TableSchema;
use crate::pipeline::driver::{RedecodePorts, Redecoded, Redecoder, TableSpec};
use crate::ports::{FileWriter, Lake, Recovery, Registry, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::crash;

/// Small files of letters that leave together have this many bytes at most: what is done again where a commit is in vain.
const GROUP_BYTES: u64 = 64 << 20;
/// And they are this many at most.
const GROUP_FILES: usize = 500;
/// Groups in a row that are in vain, since others change the same files or records, before it is given up.
const STALE_MAX: u32 = 10;

/// Replays one table's letters.
pub struct Replayer {
    /// The tables.
    pub lake: Arc<IcebergLake>,
    /// The table.
    pub spec: Arc<TableSpec>,
    /// Schemas by id; `None` where no registry is configured.
    pub registry: Option<Arc<dyn Registry>>,
    /// Time.
    pub clock: Clock,
    /// Threads for decoding.
    pub compute: Compute,
}

/// What became of the letters that were chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Letters that are rows now.
    pub rows: u64,
    /// Letters that left since the table had their records as rows already.
    pub present: u64,
    /// Letters that left since the table is not to have their records.
    pub left_out: u64,
    /// Letters that are letters still, by why they are so today.
    pub still: Vec<Still>,
    /// Letters that were left alone: the table's ledger does not cover their records, so that they will be read again.
    pub ahead: u64,
    /// Commits.
    pub commits: u64,
}

/// Letters that are letters still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Still {
    /// Why, today.
    pub reason: &'static str,
    /// How many.
    pub letters: u64,
    /// One of them, as `topic/partition/offset`.
    pub record: String,
    /// Its detail in words.
    pub message: String,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Letters that were looked at.
    pub letters: u64,
    /// Letters in the table when it began.
    pub total: u64,
}

impl Replay {
    fn left(&self) -> u64 {
        self.rows + self.present + self.left_out
    }

    /// Letters that are letters still.
    #[must_use]
    pub fn still(&self) -> u64 {
        self.still.iter().map(|still| still.letters).sum()
    }

    fn stays(&mut self, still: Still) {
        match self.still.iter_mut().find(|known| known.reason == still.reason) {
            Some(known) => known.letters += still.letters,
            None => self.still.push(still),
        }
    }

    fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.present += other.present;
        self.left_out += other.left_out;
        self.ahead += other.ahead;
        self.commits += other.commits;
        other.still.into_iter().for_each(|still| self.stays(still));
    }
}

/// One run over a table's letters.
struct Rerun<'a> {
    by: &'a Replayer,
    choice: &'a Choice,
    dry_run: bool,
    decoder: Redecoder,
}

impl Replayer {
    /// For a configured table.
    ///
    /// # Errors
    /// `InvalidRequest` where the configuration has no such table; `InvalidConfig`.
    pub fn new(
        config: &Config,
        table: &TableName,
        lake: Arc<IcebergLake>,
        clock: Clock,
        compute: Compute,
    ) -> Result<Self> {
        let found = config.tables.iter().find(|known| known.table == *table).ok_or_else(|| {
            let known: Vec<String> = config.tables.iter().map(|known| known.table.to_string()).collect();
            let text = format!("table `{table}` is not in the configuration, which has: {}", known.join(", "));
            Error::invalid_request(text)
        })?;
        let spec = Arc::new(spec::table_spec(config, found)?);
        Ok(Self { lake, spec, registry: connect::registry(config, &clock)?, clock, compute })
    }

    /// Replays the letters that `choice` takes, and adds to `done` what became of them: also where it fails, since what
    /// is committed by then stays. A dry run changes nothing and says what a run would do.
    ///
    /// # Errors
    /// `InvalidRequest` where there is no letter's table; `Unavailable`, `Denied` or `Conflict` where asking again may
    /// help; `Corrupt` where the table is rolled back, or one of both cannot be read or written.
    pub async fn run(
        &self,
        choice: &Choice,
        dry_run: bool,
        done: &mut Replay,
        looked: &(dyn Fn(Looked) + Send + Sync),
    ) -> Result<()> {
        if dry_run {
            return Box::pin(self.run_beside(choice, true, done, looked)).await;
        }
        let work = Box::pin(self.run_beside(choice, false, done, looked));
        self.lake.alone_with(&self.letters(), work).await
    }

    /// As [`Replayer::run`], whoever else is at the letters.
    pub(super) async fn run_beside(
        &self,
        choice: &Choice,
        dry_run: bool,
        done: &mut Replay,
        looked: &(dyn Fn(Looked) + Send + Sync),
    ) -> Result<()> {
        let lake: Arc<dyn Lake> = if dry_run {
            Arc::new(Rehearsal::new(Arc::clone(&self.lake)))
        } else {
            Arc::<IcebergLake>::clone(&self.lake)
        };
        let (registry, clock, compute) = (self.registry.clone(), self.clock.clone(), self.compute.clone());
        let ports = RedecodePorts { registry, lake, clock, compute };
        let decoder = Redecoder::open(Arc::clone(&self.spec), ports).await?;
        let run = Rerun { by: self, choice, dry_run, decoder };
        let (mut backoff, mut stale) = (Backoff::new(Duration::from_millis(50), Duration::from_secs(2)), 0);
        while let Some(reason) = run.round(done, &mut stale, looked).await? {
            stale += 1;
            tracing::debug!(table = %self.table(), reason, "letters are looked for again");
            if stale > STALE_MAX {
                let text = format!("replay letters of table `{}`: others changed the same {stale} times", self.table());
                return Err(Error::new(ErrorKind::Conflict, format!("{text}, the last time: {reason}")));
            }
            self.clock.sleep(backoff.pause()).await;
        }
        Ok(())
    }

    fn table(&self) -> &TableName {
        &self.spec.settings.table
    }

    fn letters(&self) -> TableName {
        self.table().dead_letters()
    }

    /// Where the rows of the table say which records they are, as the table has it by now.
    pub(super) fn columns(&self, table: &TableSchema) -> RecordColumns {
        let name = |column: Metadata| column.name(self.spec.layout.names);
        let has = |column| Some(name(column)).filter(|name| table.field(name).is_some());
        let first = || self.spec.settings.topics.first().map(String::as_str).unwrap_or_default();
        RecordColumns {
            topic: has(Metadata::Topic).map_or_else(|| TopicOf::One(first().into()), TopicOf::Column),
            partition: name(Metadata::Partition),
            offset: name(Metadata::Offset),
            incarnation: has(Metadata::Incarnation),
        }
    }
}

/// Files that leave together, as far as they are small.
fn groups(files: Vec<LetterFile>) -> Vec<Vec<LetterFile>> {
    let mut groups: Vec<Vec<LetterFile>> = Vec::new();
    for file in files {
        match groups.last_mut() {
            Some(group)
                if group.len() < GROUP_FILES
                    && group.iter().all(|other| other.goes_with(&file))
                    && group.iter().map(LetterFile::size_bytes).sum::<u64>() + file.size_bytes() <= GROUP_BYTES =>
            {
                group.push(file);
            }
            _ => groups.push(vec![file]),
        }
    }
    groups
}

impl Rerun<'_> {
    /// All letters once, from the first file; why it is to begin anew where a commit was in vain.
    async fn round(
        &self,
        done: &mut Replay,
        stale: &mut u32,
        looked: &(dyn Fn(Looked) + Send + Sync),
    ) -> Result<Option<String>> {
        // What stays a letter is counted by the round that meets all of them.
        (done.still, done.ahead) = (Vec::new(), 0);
        let lake = &self.by.lake;
        let found = lake.letter_files(&self.by.letters()).await?;
        let (letters, files) = found.ok_or_else(|| none(self.by.table()))?;
        let total = files.iter().map(LetterFile::rows).sum();
        let mut seen = 0;
        looked(Looked { letters: 0, total });
        for group in groups(files) {
            match self.group(&letters, &group).await? {
                Ok(outcome) => {
                    if outcome.commits > 0 {
                        *stale = 0;
                    }
                    done.add(outcome);
                }
                Err(reason) => return Ok(Some(reason)),
            }
            seen += group.iter().map(LetterFile::rows).sum::<u64>();
            looked(Looked { letters: seen, total });
        }
        Ok(None)
    }

    /// One group of files; the inner error says why it was in vain.
    async fn group(&self, letters: &TableState, files: &[LetterFile]) -> Result<Result<Replay, String>> {
        let (lake, table) = (&self.by.lake, self.by.table());
        let base = Lake::load(lake.as_ref(), table).await?;
        let base = base.ok_or_else(|| Error::corrupt(format!("table `{table}` has vanished")))?;
        let (mut outcome, mut meant, mut holders) = (Replay::default(), Records::default(), Vec::new());
        for file in files {
            if self.meant_in(letters, file, &base, &mut meant, &mut outcome.ahead).await? {
                holders.push(file.clone());
            }
        }
        if holders.is_empty() {
            return Ok(Ok(outcome));
        }
        let columns = self.by.columns(&base.schema);
        let present = lake.present(&base, &columns, &meant).await?;
        self.decoder.seen(&base);
        let mut pass = Pass::new(self, meant, present, letters)?;
        for file in &holders {
            let mut rows = lake.letters(letters, file, TableSchema::clone(&letters.schema)).await?;
            while let Some(rows) = rows.try_next().await? {
                pass.take(&rows).await?;
            }
        }
        pass.outcome.ahead = outcome.ahead;
        pass.end(base, &columns, letters, holders).await
    }

    /// Notes the chosen letters of a file; true where there is one. Those that the table's ledger does not cover are
    /// counted and left alone: ingestion will read their records, so that they must not be rows before.
    async fn meant_in(
        &self,
        letters: &TableState,
        file: &LetterFile,
        base: &TableState,
        meant: &mut Records,
        ahead: &mut u64,
    ) -> Result<bool> {
        let progress = match &base.recovery {
            Recovery::At(progress) => Some(progress),
            Recovery::Fresh => None,
            Recovery::Halted(text) => return Err(Error::corrupt(text.clone())),
        };
        let mut any = false;
        let note = |letters: &Letters, row: usize, id: RecordId| {
            if !self.choice.takes(letters, row, &id) {
                return;
            }
            let topic = progress.and_then(|progress| progress.ledger.topics.get(id.source.topic.as_ref()));
            let is_first = topic.is_some_and(|topic| topic.incarnation == 0);
            let is_decided = progress.is_some_and(|progress| progress.ledger.covers(&id));
            if is_decided && (is_first || letters.says_incarnation(row)) {
                any = true;
                meant.insert(&id);
            } else {
                *ahead += 1;
            }
        };
        each_head(&self.by.lake, letters, file, note).await?;
        Ok(any)
    }
}

/// The letters of one partition and incarnation: their records, and per offset the rows that hold it. A table that was
/// rolled back may have a record twice.
type Lot = (RawBatch, BTreeMap<i64, Vec<usize>>);

/// The files of one group, read once: rows into one place, letters that stay into another.
struct Pass<'a> {
    run: &'a Rerun<'a>,
    commit: CommitId,
    meant: Records,
    present: Records,
    open: Option<(Arc<TableSchema>, Box<dyn FileWriter>)>,
    rows: Vec<WrittenFile>,
    /// `None` in a dry run.
    rest: Option<Box<dyn FileWriter>>,
    records: Records,
    outcome: Replay,
}

impl<'a> Pass<'a> {
    fn new(run: &'a Rerun<'a>, meant: Records, present: Records, letters: &TableState) -> Result<Self> {
        let commit = CommitId(run.by.clock.fresh_id());
        let rest = if run.dry_run { None } else { Some(run.by.lake.writer(letters, commit)?) };
        let (records, outcome) = (Records::default(), Replay::default());
        Ok(Self { run, commit, meant, present, open: None, rows: Vec::new(), rest, records, outcome })
    }

    async fn take(&mut self, rows: &RecordBatch) -> Result<()> {
        let letters = Letters::of(rows)?;
        let mut stays = vec![true; rows.num_rows()];
        let mut lots: BTreeMap<(TopicPartition, i32), Lot> = BTreeMap::new();
        for (row, stays) in stays.iter_mut().enumerate() {
            let Some(id) = letters.id(row).filter(|id| self.meant.has(id)) else { continue };
            if self.present.has(&id) || self.records.has(&id) {
                *stays = false;
                self.outcome.present += 1;
                continue;
            }
            let RecordId { source, incarnation, offset } = id;
            let batch = || RawBatch::new(source.clone(), Attempt::default(), NextOffset(offset));
            let (batch, held) = lots.entry((source.clone(), incarnation)).or_insert_with(|| (batch(), BTreeMap::new()));
            let rows = held.entry(offset).or_default();
            if rows.is_empty() {
                letters.push(row, batch)?;
            }
            rows.push(row);
        }
        for ((source, incarnation), (batch, held)) in lots {
            let Redecoded { rows, rejects, left_out } = self.run.decoder.decode(batch, incarnation).await?;
            let left_out: BTreeSet<i64> = left_out.into_iter().collect();
            let rejects: BTreeMap<i64, (Reason, String)> =
                rejects.into_iter().map(|(offset, reason, message)| (offset, (reason, message))).collect();
            for (offset, rows) in held {
                let id = RecordId { source: source.clone(), incarnation, offset };
                let count = rows.len() as u64;
                if let Some((reason, message)) = rejects.get(&offset) {
                    let (reason, message, record) = (reason.as_str(), message.clone(), id.to_string());
                    self.outcome.stays(Still { reason, letters: count, record, message });
                    continue;
                }
                rows.iter().for_each(|row| stays[*row] = false);
                if left_out.contains(&offset) {
                    self.outcome.left_out += count;
                    continue;
                }
                self.outcome.rows += 1;
                self.outcome.present += count - 1;
                self.records.insert(&id);
            }
            for batch in rows {
                self.write(batch).await?;
            }
        }
        let Some(rest) = &mut self.rest else { return Ok(()) };
        let rest_of = filter_record_batch(rows, &BooleanArray::from(stays));
        let rest_of = rest_of.map_err(|e| Error::bug("filter letters").with_source(e))?;
        if rest_of.num_rows() > 0 { rest.write(rest_of).await } else { Ok(()) }
    }

    async fn write(&mut self, batch: DecodedBatch) -> Result<()> {
        if self.run.dry_run || batch.rows.num_rows() == 0 {
            return Ok(());
        }
        // Rows that were decoded for another schema than those before them go into files of their own.
        if let Some((_, writer)) = self.open.take_if(|(schema, _)| *schema != batch.schema) {
            self.rows.extend(writer.finish().await?);
        }
        let (_, writer) = match &mut self.open {
            Some(open) => open,
            open => {
                let state = self.run.decoder.state().ok_or_else(|| Error::bug("replay before the table was seen"))?;
                let state = TableState { schema: Arc::clone(&batch.schema), ..state };
                open.insert((batch.schema, self.run.by.lake.writer(&state, self.commit)?))
            }
        };
        writer.write(batch.rows).await
    }

    /// Commits where a letter leaves; the inner error says why that was in vain.
    async fn end(
        mut self,
        base: TableState,
        columns: &RecordColumns,
        letters: &TableState,
        removed: Vec<LetterFile>,
    ) -> Result<Result<Replay, String>> {
        let Some(rest) = self.rest.take().filter(|_| self.outcome.left() > 0) else { return Ok(Ok(self.outcome)) };
        let mut schema = Arc::clone(&base.schema);
        if let Some((used, writer)) = self.open.take() {
            self.rows.extend(writer.finish().await?);
            schema = used;
        }
        let settlement = Settlement {
            id: self.commit,
            base,
            columns,
            schema,
            rows: self.rows,
            records: self.records,
            letters: letters.clone(),
            removed,
            rest: rest.finish().await?,
        };
        crash::point(crash::LETTERS_DECODED);
        match self.run.by.lake.settle(settlement).await? {
            Settled::Done(state) => {
                self.run.decoder.seen(&state);
                self.outcome.commits = 1;
                Ok(Ok(self.outcome))
            }
            Settled::Stale(reason) => Ok(Err(reason)),
        }
    }
}
