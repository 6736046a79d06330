//! The comparison at the end: every row and every dead letter against the logs, every retained snapshot against its
//! ledger. By content, not by count alone.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use iceberg::spec::{ManifestList, ManifestStatus, SnapshotRef, TableMetadata};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::broker::{Entry, Fate, Partition};
use super::existing;
use super::history::Incarnation;
use super::operator::Operator;
use super::scenario::Scenario;
use super::world::World;
use crate::error::{Error, Result};
use crate::lake::catalog::Catalog as _;
use crate::lake::progress;
use crate::lake::storage::{Stores, from_iceberg};
use crate::model::ids::TableName;
use crate::pipeline::event::{OnError, StartAt};
use crate::ports::Gap;

/// Topic, incarnation, partition.
type Key = (String, u32, i32);
/// Column `value`, or columns `id` and `extra`.
type Content = (Option<String>, Option<String>);

/// Compares the table with the logs; answers its rows.
///
/// # Errors
/// Where something cannot be read. What is wrong is told to the world.
pub async fn verify(world: &World, stores: &Stores, operator: &Operator, scenario: &Scenario) -> Result<usize> {
    let metadata = operator.metadata().await.ok_or_else(|| Error::bug("there is no table"))?;
    let mut reader = Reader { stores, metadata: &metadata, manifests: BTreeMap::new(), files: BTreeMap::new() };
    if scenario.spec.adopts {
        check_existing(world, &mut reader).await?;
    }
    let mut table: BTreeMap<Key, BTreeMap<i64, Content>> = BTreeMap::new();
    let mut rows = 0;
    for path in reader.paths(metadata.current_snapshot()).await? {
        for (key, offset, content) in reader.rows(&path).await? {
            rows += 1;
            if table.entry(key.clone()).or_default().insert(offset, content).is_some() {
                world.wrong(format!("I1: {key:?} at {offset} is there twice, again in `{path}`"));
            }
        }
    }
    let letters = dead_letters(stores, operator).await?;
    let head = metadata.current_snapshot_id();
    let (incarnations, gaps) = {
        let history = world.history();
        (history.incarnations(head), history.progress(head).map(|progress| progress.gaps.clone()).unwrap_or_default())
    };
    let mut comparison = Comparison { world, scenario, operator, gaps, table, letters: BTreeMap::new() };
    for ((topic, number), incarnation) in &incarnations {
        comparison.incarnation(topic, *number, incarnation);
    }
    comparison.nothing_else(&incarnations);
    comparison.compare_letters(&letters);
    let table = std::mem::take(&mut comparison.table);
    snapshots(world, &mut reader, &table).await?;
    Ok(rows)
}

/// What another tool had written before is in every snapshot, once.
async fn check_existing(world: &World, reader: &mut Reader<'_>) -> Result<()> {
    for snapshot in progress::ancestry(reader.metadata) {
        let paths = reader.paths(Some(snapshot)).await?;
        let found = paths.iter().filter(|path| *path == existing::FILE).count();
        if found != 1 {
            let id = snapshot.snapshot_id();
            world.wrong(format!("snapshot {id} has what was there before {found} times"));
        }
    }
    // Its rows are of no record.
    reader.files.insert(existing::FILE.to_owned(), Vec::new());
    Ok(())
}

/// I3: the rows of every retained snapshot are those below its own ledger.
async fn snapshots(
    world: &World,
    reader: &mut Reader<'_>,
    table: &BTreeMap<Key, BTreeMap<i64, Content>>,
) -> Result<()> {
    let metadata = reader.metadata;
    for snapshot in progress::ancestry(metadata) {
        let id = snapshot.snapshot_id();
        let incarnations = world.history().incarnations(Some(id));
        let mut held: BTreeMap<Key, usize> = BTreeMap::new();
        for path in reader.paths(Some(snapshot)).await? {
            for (key, offset, _) in reader.rows(&path).await? {
                let end = incarnations
                    .get(&(key.0.clone(), key.1))
                    .and_then(|found| found.ranges.get(&key.2))
                    .map(|range| range.1);
                if end.is_none_or(|end| offset >= end) {
                    world.wrong(format!("I3: snapshot {id} has {key:?} at {offset}, its ledger says {end:?}"));
                }
                *held.entry(key).or_default() += 1;
            }
        }
        for ((topic, number), incarnation) in incarnations {
            for (partition, (_, end)) in incarnation.ranges {
                let key = (topic.clone(), number, partition);
                let wanted = table.get(&key).map_or(0, |rows| rows.range(..end).count());
                let found = held.get(&key).copied().unwrap_or(0);
                if wanted != found {
                    world.wrong(format!("I3: snapshot {id} has {found} rows of {key:?} below {end}, not {wanted}"));
                }
            }
        }
    }
    Ok(())
}

struct Comparison<'a> {
    world: &'a World,
    scenario: &'a Scenario,
    operator: &'a Operator,
    gaps: Vec<Gap>,
    table: BTreeMap<Key, BTreeMap<i64, Content>>,
    /// Least and most dead letters that there may be.
    letters: BTreeMap<(String, i32, i64), (usize, usize)>,
}

impl Comparison<'_> {
    fn incarnation(&mut self, topic: &str, number: u32, incarnation: &Incarnation) {
        let broker = self.world.broker();
        let Some(model) = incarnation.id.and_then(|id| broker.by_id(id)) else {
            return self.world.wrong(format!("`{topic}` has an id that no topic has had: {:?}", incarnation.id));
        };
        for (partition, (start, end)) in &incarnation.ranges {
            let key = (topic.to_owned(), number, *partition);
            let Some(log) = model.partitions.get(*partition as usize) else {
                self.world.wrong(format!("there is no partition {key:?}"));
                continue;
            };
            let late = number > 0 || !incarnation.first.contains(partition);
            let right = match self.scenario.spec.settings.start {
                _ if incarnation.chosen.contains(partition) => true,
                _ if late => *start == 0,
                StartAt::Earliest => log.lows.contains(start),
                _ => *start <= log.high(),
            };
            if !right {
                self.world.wrong(format!("{key:?} begins at {start}"));
            }
            for offset in *start..*end {
                self.offset(&key, offset, log);
            }
            let outside =
                self.table.get(&key).and_then(|rows| rows.keys().find(|offset| !(*start..*end).contains(*offset)));
            if let Some(offset) = outside {
                self.world.wrong(format!("{key:?} at {offset} lies outside of {start}..{end}"));
            }
        }
    }

    fn offset(&mut self, key: &Key, offset: i64, log: &Partition) {
        let found = self.table.get(key).and_then(|rows| rows.get(&offset));
        let Some((entry, _)) = log.log.get(offset as usize) else {
            return self.world.wrong(format!("I2: the ledger of {key:?} is beyond {offset}, the log is not"));
        };
        let given_up = self.operator.given_up.iter().any(|(topic, number, partition, from, to)| {
            (topic, number, partition) == (&key.0, &key.1, &key.2) && (*from..*to).contains(&offset)
        });
        let gap = self.gaps.iter().any(|gap| {
            gap.topic == key.0
                && gap.partition == key.2
                && (gap.from.0..gap.to.0).contains(&offset)
                && log.lows.contains(&gap.to.0)
        });
        let optional = given_up || gap || matches!(entry, Entry::Compacted(_));
        let (Entry::Record(record) | Entry::Compacted(record)) = entry else {
            if found.is_some() {
                self.world.wrong(format!("{key:?} at {offset} is a row, the log has {entry:?}"));
            }
            return;
        };
        let verdict = self.scenario.filter.map_or(Some(true), |filter| filter.verdict(offset));
        let content = match (&record.fate, verdict) {
            (Fate::Row(first, second), Some(true)) => (first.clone(), second.clone()),
            (Fate::RejectUntilRegistered(_, text), Some(true)) => (Some(text.clone()), None),
            (Fate::Row(..) | Fate::RejectUntilRegistered(..), Some(false)) => {
                if found.is_some() {
                    self.world.wrong(format!("{key:?} at {offset} is a row and is to be left out"));
                }
                return;
            }
            (Fate::Reject, _) | (_, None) => {
                if found.is_some() {
                    self.world.wrong(format!("{key:?} at {offset} is a row and cannot be one"));
                }
                if self.scenario.spec.settings.on_error == OnError::DeadLetter {
                    let range = self.letters.entry((key.0.clone(), key.2, offset)).or_default();
                    range.0 += usize::from(!optional);
                    range.1 += 1;
                }
                return;
            }
        };
        match found {
            Some(found) if *found == content => {}
            Some(found) => self.world.wrong(format!("{key:?} at {offset} is {found:?}, the log has {content:?}")),
            None if optional => {}
            None => self.world.wrong(format!("I2: {key:?} at {offset} is missing")),
        }
    }

    fn nothing_else(&self, incarnations: &BTreeMap<(String, u32), Incarnation>) {
        for key in self.table.keys() {
            let known =
                incarnations.get(&(key.0.clone(), key.1)).is_some_and(|found| found.ranges.contains_key(&key.2));
            if !known {
                self.world.wrong(format!("no ledger speaks of {key:?}, which has rows"));
            }
        }
    }

    fn compare_letters(&self, letters: &BTreeMap<(String, i32, i64), usize>) {
        for (key, found) in letters {
            let (least, most) = self.letters.get(key).copied().unwrap_or_default();
            // Letters stay of records that were given up before their partition had a ledger that is left.
            let most = most + self.operator.given_up_at(&key.0, key.1, key.2);
            if *found < least || (*found > most && !self.operator.read_again) {
                self.world.wrong(format!("{found} dead letters of {key:?}, not {least} to {most}"));
            }
        }
        for (key, (least, _)) in &self.letters {
            if *least > 0 && !letters.contains_key(key) {
                self.world.wrong(format!("I2: the dead letter of {key:?} is missing"));
            }
        }
    }
}

/// Reads data files, each once.
struct Reader<'a> {
    stores: &'a Stores,
    metadata: &'a TableMetadata,
    /// Data files by manifest.
    manifests: BTreeMap<String, Vec<String>>,
    files: BTreeMap<String, Vec<(Key, i64, Content)>>,
}

impl Reader<'_> {
    /// The data files of a snapshot; a file that is listed twice is a row twice.
    async fn paths(&mut self, snapshot: Option<&SnapshotRef>) -> Result<Vec<String>> {
        let Some(snapshot) = snapshot else { return Ok(Vec::new()) };
        let io = self.stores.file_io();
        let list = read(self.stores, snapshot.manifest_list()).await?;
        let list = ManifestList::parse_with_version(&list, self.metadata.format_version())
            .map_err(|e| from_iceberg("read manifest list", e))?;
        let mut all = Vec::new();
        for manifest in list.entries() {
            if !self.manifests.contains_key(&manifest.manifest_path) {
                let loaded = manifest.load_manifest(&io).await.map_err(|e| from_iceberg("I8: read manifest", e))?;
                let alive = loaded.entries().iter().filter(|entry| entry.status() != ManifestStatus::Deleted);
                let paths = alive.map(|entry| entry.file_path().to_owned()).collect();
                self.manifests.insert(manifest.manifest_path.clone(), paths);
            }
            all.extend(self.manifests[&manifest.manifest_path].iter().cloned());
        }
        Ok(all)
    }

    async fn rows(&mut self, path: &str) -> Result<Vec<(Key, i64, Content)>> {
        if let Some(rows) = self.files.get(path) {
            return Ok(rows.clone());
        }
        let mut rows = Vec::new();
        for batch in batches(self.stores, path).await? {
            data_rows(&batch, &mut rows).ok_or_else(|| Error::bug(format!("file `{path}` lacks columns")))?;
        }
        self.files.insert(path.to_owned(), rows.clone());
        Ok(rows)
    }
}

async fn read(stores: &Stores, path: &str) -> Result<bytes::Bytes> {
    stores.read(path).await?.ok_or_else(|| Error::bug(format!("I8: file `{path}` is gone")))
}

async fn batches(stores: &Stores, path: &str) -> Result<Vec<RecordBatch>> {
    let wrong = |e: parquet::errors::ParquetError| Error::bug(format!("read file `{path}`")).with_source(e);
    let reader = ParquetRecordBatchReaderBuilder::try_new(read(stores, path).await?)
        .and_then(ParquetRecordBatchReaderBuilder::build);
    let batches: std::result::Result<_, _> = reader.map_err(wrong)?.collect();
    batches.map_err(|e| Error::bug(format!("read file `{path}`")).with_source(e))
}

fn data_rows(batch: &RecordBatch, rows: &mut Vec<(Key, i64, Content)>) -> Option<()> {
    let topics = batch.column_by_name("kafka_topic")?.as_string::<i32>();
    let partitions = batch.column_by_name("kafka_partition")?.as_primitive::<Int32Type>();
    let incarnations = batch.column_by_name("kafka_incarnation")?.as_primitive::<Int32Type>();
    let offsets = batch.column_by_name("kafka_offset")?.as_primitive::<Int64Type>();
    for row in 0..batch.num_rows() {
        let first = match (batch.column_by_name("value"), batch.column_by_name("id")) {
            (Some(value), _) => text(value.as_string::<i32>(), row),
            (None, Some(id)) if id.is_valid(row) => Some(id.as_primitive::<Int64Type>().value(row).to_string()),
            _ => None,
        };
        let second = batch.column_by_name("extra").and_then(|extra| text(extra.as_string::<i32>(), row));
        let key = (topics.value(row).to_owned(), incarnations.value(row).cast_unsigned(), partitions.value(row));
        rows.push((key, offsets.value(row), (first, second)));
    }
    Some(())
}

fn text(column: &arrow::array::StringArray, row: usize) -> Option<String> {
    column.is_valid(row).then(|| column.value(row).to_owned())
}

/// How often each record is in the dead-letter table.
async fn dead_letters(stores: &Stores, operator: &Operator) -> Result<BTreeMap<(String, i32, i64), usize>> {
    let name: TableName = operator.table.dead_letters();
    let mut found = BTreeMap::new();
    let Some(loaded) = operator.catalog.load(&name).await? else { return Ok(found) };
    let metadata = &loaded.metadata;
    let mut reader = Reader { stores, metadata, manifests: BTreeMap::new(), files: BTreeMap::new() };
    let paths = reader.paths(metadata.current_snapshot()).await?;
    let distinct: BTreeSet<&String> = paths.iter().collect();
    if distinct.len() != paths.len() {
        return Err(Error::bug("I1: a file of dead letters is listed twice"));
    }
    for path in distinct {
        for batch in batches(stores, path).await? {
            let record = batch.column_by_name("source_record").map(AsArray::as_struct);
            let record = record.ok_or_else(|| Error::bug("dead letters lack `source_record`"))?;
            let (topics, partitions, offsets) = (
                record.column(0).as_string::<i32>(),
                record.column(1).as_primitive::<Int32Type>(),
                record.column(2).as_primitive::<Int64Type>(),
            );
            for row in 0..batch.num_rows() {
                let key = (topics.value(row).to_owned(), partitions.value(row), offsets.value(row));
                *found.entry(key).or_default() += 1;
            }
        }
    }
    Ok(found)
}
