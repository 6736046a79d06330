//! One table's entries as a Lance dataset: made, opened, appended to, kept quick. It is a folder `<table>.lance`, as
//! LanceDB has it; how far it has come stands in its configuration.
//!
//! LanceDB does none of this by itself: small fragments are merged here, rows are brought into the indexes, versions
//! that nobody reads are removed.

use std::collections::HashMap;
use std::io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::{RecordBatch, RecordBatchIterator};
use chrono::Duration;
use lance::Dataset;
use lance::dataset::builder::DatasetBuilder;
use lance::dataset::optimize::{CompactionOptions, compact_files};
use lance::dataset::{WriteMode, WriteParams};
use lance::index::DatasetIndexExt;
use lance::index::vector::VectorIndexParams;
use lance::session::Session;
use lance_index::IndexType;
use lance_index::optimize::OptimizeOptions;
use lance_index::vector::ivf::IvfBuildParams;
use lance_index::vector::sq::builder::SQBuildParams;
use lance_linalg::distance::MetricType;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entries::{BATCH, Shape, TEXT, VECTOR};
use super::keyword;
use super::position::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TableName;

const DEFINITION: &str = "frazil.definition";
const POSITION: &str = "frazil.position";
/// Which making of the index it is.
const MADE: &str = "frazil.made";
const TEXT_INDEX: &str = "text";
const VECTOR_INDEX: &str = "vector";
/// Entries from which on a vector index is quicker than looking at all vectors.
const VECTOR_INDEX_ENTRIES: u64 = 50_000;
/// Entries that an index may lack: they are looked at one by one.
const UNINDEXED_ENTRIES_MAX: u64 = 20_000;
/// Parts of an index, each of which a search looks into.
const INDEX_PARTS_MAX: usize = 4;
/// Fragments of one size that are merged: entries of the merged fragment, for each size.
const FRAGMENT_ENTRIES: [usize; 3] = [1 << 13, 1 << 17, 1 << 20];
/// Fragments of one size at most.
const FRAGMENTS_MAX: usize = 12;
/// Entries of one vector partition when the index is made: a search looks into a part of all partitions.
const VECTOR_PARTITION_ENTRIES: usize = 512;
/// How much larger partitions may have become when the index is made anew: their middles stay where they were.
const VECTOR_GROWTH_MAX: u64 = 4;
/// How the middles of partitions are found: by so many entries for each, in so many rounds at most.
const VECTOR_SAMPLE: usize = 64;
const VECTOR_ROUNDS: usize = 20;
/// How far vectors are from each other. They have length 1, so that it orders as their product does; Lance is quickest
/// at this one.
pub(super) const METRIC: MetricType = MetricType::L2;
/// How long a version is kept that is not the newest: longer than any search.
const VERSION_AGE_MAX: Duration = Duration::minutes(10);

/// A folder of indexes, and what is kept of them in memory.
#[derive(Debug, Clone)]
pub struct Place {
    folder: PathBuf,
    cache_bytes: usize,
    cache: Arc<Mutex<Cache>>,
}

/// What Lance keeps in memory of the datasets in a folder, by their paths and versions: one that is made anew at the same
/// path begins with the same versions, so nothing kept of the one before may be left.
#[derive(Debug)]
struct Cache {
    session: Arc<Session>,
    made: HashMap<TableName, Option<Uuid>>,
}

/// What an index is of. An index with another definition is made anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    /// Of this layout of entries.
    version: u32,
    model: String,
    text: String,
    columns: Vec<(String, String)>,
}

/// An index that is open.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) dataset: Dataset,
    made: Option<Uuid>,
    /// `None` before anything is in.
    pub(super) position: Option<Position>,
    /// Partitions of the vector index; none without one.
    pub(super) partitions: u64,
}

/// What Lance says of an index.
#[derive(Debug, Deserialize)]
struct Known {
    num_unindexed_rows: u64,
    num_indices: usize,
    indices: Vec<Part>,
}

/// The same of one of its parts.
#[derive(Debug, Deserialize)]
struct Part {
    num_partitions: Option<u64>,
}

impl Definition {
    pub(super) fn new(shape: &Shape, model: &str, text: String) -> Self {
        let column = |field: &Arc<arrow::datatypes::Field>| (field.name().clone(), field.data_type().to_string());
        let columns = shape.schema.fields().iter().map(column).collect();
        Self { version: 2, model: model.to_owned(), text, columns }
    }
}

impl Place {
    /// Indexes in `folder`, of which up to `cache_bytes` are kept in memory.
    #[must_use]
    pub fn new(folder: &Path, cache_bytes: usize) -> Self {
        let cache = Cache { session: session(cache_bytes), made: HashMap::new() };
        Self { folder: folder.to_owned(), cache_bytes, cache: Arc::new(Mutex::new(cache)) }
    }

    fn session(&self) -> Arc<Session> {
        Arc::clone(&self.cache.lock().unwrap_or_else(PoisonError::into_inner).session)
    }

    /// Notes which making of a table's index is open; false, and nothing is kept in memory any more, where it is another
    /// than before.
    fn is_same(&self, table: &TableName, made: Option<Uuid>) -> bool {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = cache.made.insert(table.clone(), made).is_none_or(|before| before == made);
        if !is_same {
            cache.session = session(self.cache_bytes);
        }
        is_same
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn uri(&self, table: &TableName) -> String {
        let path = path(&self.folder, table);
        std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// The index of `table`; `None` where there is none, or one with another definition.
    ///
    /// # Errors
    /// `Corrupt` where it is damaged, `Unavailable` where it cannot be read now.
    pub(super) async fn open(&self, table: &TableName, definition: &Definition) -> Result<Option<Stored>> {
        let Some(mut dataset) = self.load(table).await? else { return Ok(None) };
        let made: Option<Uuid> = noted(&dataset, MADE)?;
        if !self.is_same(table, made) {
            let Some(again) = self.load(table).await? else { return Ok(None) };
            dataset = again;
        }
        let found: Option<Definition> = noted(&dataset, DEFINITION)?;
        if found.as_ref() != Some(definition) {
            return Ok(None);
        }
        let mut stored = Stored { position: noted(&dataset, POSITION)?, made, partitions: 0, dataset };
        stored.look_over().await?;
        stored.count_partitions().await?;
        Ok(Some(stored))
    }

    async fn load(&self, table: &TableName) -> Result<Option<Dataset>> {
        match DatasetBuilder::from_uri(self.uri(table)).with_session(self.session()).load().await {
            Ok(dataset) => Ok(Some(dataset)),
            Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unreadable("open an index", error)),
        }
    }

    /// A new, empty index in place of what is there; `made` tells it from others at the same place.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be written.
    pub(super) async fn create(
        &self,
        table: &TableName,
        shape: &Shape,
        definition: &Definition,
        made: Uuid,
    ) -> Result<Stored> {
        drop_index(&self.folder, table).await?;
        self.is_same(table, Some(made));
        let nothing = RecordBatchIterator::new(std::iter::empty(), Arc::clone(&shape.schema));
        let session = Some(self.session());
        let params = WriteParams { mode: WriteMode::Create, session, ..WriteParams::default() };
        let written = Dataset::write(nothing, self.uri(table).as_str(), Some(params)).await;
        let mut dataset = written.map_err(|e| broken("make an index", e))?;
        note(&mut dataset, MADE, &made).await?;
        note(&mut dataset, DEFINITION, definition).await?;
        Ok(Stored { dataset, made: Some(made), position: None, partitions: 0 })
    }
}

fn session(cache_bytes: usize) -> Arc<Session> {
    Arc::new(Session::new(cache_bytes, cache_bytes / 8, Arc::default()))
}

/// Where a table's index lies.
fn path(folder: &Path, table: &TableName) -> PathBuf {
    folder.join(format!("{table}.lance"))
}

/// Removes a table's index; it is made anew when the service sees that.
///
/// # Errors
/// `Unavailable` where its files cannot be removed.
pub async fn drop_index(folder: &Path, table: &TableName) -> Result<()> {
    let path = path(folder, table);
    match tokio::fs::remove_dir_all(&path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::unavailable(format!("remove index `{}`", path.display())).with_source(error))
        }
        _ => Ok(()),
    }
}

impl Stored {
    /// Looks whether its files are there and can be understood.
    ///
    /// # Errors
    /// `Corrupt` where they are not.
    pub(super) async fn look_over(&self) -> Result<()> {
        self.dataset.validate().await.map_err(|e| unreadable("look an index over", e))
    }

    /// Removes entries of an application that was begun and not noted.
    pub(super) async fn truncate(&mut self) -> Result<()> {
        let noted = self.position.as_ref().map_or(0, |position| position.batch);
        let filter = format!("`{BATCH}` > {noted}");
        let left = self.dataset.count_rows(Some(filter.clone())).await;
        if left.map_err(|e| broken("count an index's entries", e))? > 0 {
            self.dataset.delete(&filter).await.map_err(|e| broken("remove index entries", e))?;
        }
        Ok(())
    }

    /// Adds entries; they count once a position is noted.
    pub(super) async fn append(&mut self, entries: Vec<RecordBatch>) -> Result<()> {
        let Some(first) = entries.iter().find(|batch| batch.num_rows() > 0) else { return Ok(()) };
        let schema = first.schema();
        let full = entries.into_iter().filter(|batch| batch.num_rows() > 0).map(Ok);
        let reader = RecordBatchIterator::new(full.collect::<Vec<_>>(), schema);
        self.dataset.append(reader, None).await.map_err(|e| broken("add to an index", e))
    }

    /// Notes how far it has come.
    pub(super) async fn note(&mut self, position: Position) -> Result<()> {
        note(&mut self.dataset, POSITION, &position).await?;
        self.position = Some(position);
        Ok(())
    }

    /// Takes what another process has written; false where it has made the index anew.
    pub(super) async fn refresh(&mut self) -> Result<bool> {
        let before = self.dataset.version().version;
        self.dataset.checkout_latest().await.map_err(|e| broken("open an index", e))?;
        self.position = noted(&self.dataset, POSITION)?;
        if self.dataset.version().version != before {
            self.count_partitions().await?;
        }
        Ok(noted(&self.dataset, MADE)? == self.made)
    }

    pub(super) async fn entries(&self) -> Result<u64> {
        Ok(self.dataset.count_rows(None).await.map_err(|e| broken("count an index's entries", e))? as u64)
    }

    /// One step towards an index that is quick to search; true where one was due.
    pub(super) async fn optimize(&mut self) -> Result<bool> {
        if self.merge_fragments().await? {
            self.remove_old().await?;
            return Ok(true);
        }
        let most = self.partitions * VECTOR_PARTITION_ENTRIES as u64 * VECTOR_GROWTH_MAX;
        if self.entries().await? >= most.max(VECTOR_INDEX_ENTRIES) {
            let name = Some(VECTOR_INDEX.to_owned());
            let made = self.dataset.create_index(&[VECTOR], IndexType::Vector, name, &vector_index(), true).await;
            made.map_err(|e| broken("index vectors", e))?;
            self.count_partitions().await?;
            return Ok(true);
        }
        for name in [TEXT_INDEX, VECTOR_INDEX] {
            if self.has(name).await? && self.optimize_index(name).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has(&self, index: &str) -> Result<bool> {
        let indexes = self.dataset.load_indices().await.map_err(|e| broken("list indexes", e))?;
        Ok(indexes.iter().any(|known| known.name == index))
    }

    /// Makes the full-text index, without which no word is found; entries that come later are found without it.
    pub(super) async fn index_text(&mut self) -> Result<()> {
        if self.has(TEXT_INDEX).await? || self.entries().await? == 0 {
            return Ok(());
        }
        let name = Some(TEXT_INDEX.to_owned());
        let made = self.dataset.create_index(&[TEXT], IndexType::Inverted, name, &keyword::analyzer(), false).await;
        made.map(|_| ()).map_err(|e| broken("index text", e))
    }

    async fn known(&self, index: &str) -> Result<Known> {
        let text = self.dataset.index_statistics(index).await.map_err(|e| broken("look at an index", e))?;
        serde_json::from_str(&text).map_err(|e| Error::bug("read index statistics").with_source(e))
    }

    async fn count_partitions(&mut self) -> Result<()> {
        self.partitions = match self.has(VECTOR_INDEX).await? {
            true => self.known(VECTOR_INDEX).await?.indices.iter().filter_map(|part| part.num_partitions).max(),
            false => None,
        }
        .unwrap_or(0);
        Ok(())
    }

    /// Brings new entries into an index, and its parts together where they are many.
    async fn optimize_index(&mut self, name: &str) -> Result<bool> {
        let known = self.known(name).await?;
        let options = if known.num_indices > INDEX_PARTS_MAX {
            OptimizeOptions::merge(known.num_indices)
        } else if known.num_unindexed_rows >= UNINDEXED_ENTRIES_MAX {
            OptimizeOptions::append()
        } else {
            return Ok(false);
        };
        let options = options.index_names(vec![name.to_owned()]);
        self.dataset.optimize_indices(&options).await.map_err(|e| broken("extend an index", e))?;
        Ok(true)
    }

    /// Merges the smallest fragments where there are many of them; each entry is rewritten once per size.
    async fn merge_fragments(&mut self) -> Result<bool> {
        let rows = self.dataset.iter_fragments().map(|fragment| fragment.num_rows().unwrap_or(0));
        let rows: Vec<usize> = rows.collect();
        let many = |most: &usize| rows.iter().filter(|rows| **rows < *most).count() > FRAGMENTS_MAX;
        let Some(target) = FRAGMENT_ENTRIES.into_iter().find(many) else { return Ok(false) };
        let options = CompactionOptions { target_rows_per_fragment: target, ..CompactionOptions::default() };
        let done = compact_files(&mut self.dataset, options, None).await;
        Ok(done.map_err(|e| broken("merge fragments", e))?.fragments_removed > 0)
    }

    async fn remove_old(&self) -> Result<()> {
        let removed = self.dataset.cleanup_old_versions(VERSION_AGE_MAX, None, None).await;
        removed.map(|_| ()).map_err(|e| broken("remove old versions", e))
    }
}

/// Vectors of 8 bits a number in partitions of near ones, the best of which are compared in full in the end. Not a graph:
/// in one, a text that is like no other is not reached among many that are like each other.
fn vector_index() -> VectorIndexParams {
    let ivf = IvfBuildParams {
        target_partition_size: Some(VECTOR_PARTITION_ENTRIES),
        sample_rate: VECTOR_SAMPLE,
        max_iters: VECTOR_ROUNDS,
        ..IvfBuildParams::default()
    };
    VectorIndexParams::with_ivf_sq_params(METRIC, ivf, SQBuildParams::default())
}

async fn note<T: Serialize>(dataset: &mut Dataset, key: &str, value: &T) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::bug("write an index's position").with_source(e))?;
    let values: HashMap<&str, &str> = HashMap::from([(key, text.as_str())]);
    dataset.update_config(values).await.map_err(|e| broken("note an index's position", e))?;
    Ok(())
}

fn noted<T: for<'de> Deserialize<'de>>(dataset: &Dataset, key: &str) -> Result<Option<T>> {
    let Some(text) = dataset.config().get(key) else { return Ok(None) };
    serde_json::from_str(text).map(Some).map_err(|e| Error::corrupt(format!("read `{key}` of an index")).with_source(e))
}

/// Lance's error as ours. Damage is what says so itself; anything else may pass.
pub(super) fn broken(context: &str, error: lance::Error) -> Error {
    let kind = match &error {
        lance::Error::CorruptFile { .. } | lance::Error::NotFound { .. } | lance::Error::DatasetNotFound { .. } => {
            ErrorKind::Corrupt
        }
        error if system_error(error) == Some(NotFound) => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, context).with_source(error)
}

/// The same of an index that is looked over: what the system does not refuse and yet cannot be understood is damage.
fn unreadable(context: &str, error: lance::Error) -> Error {
    match system_error(&error) {
        Some(NotFound | UnexpectedEof | InvalidData) | None => Error::corrupt(context).with_source(error),
        Some(_) => Error::unavailable(context).with_source(error),
    }
}

/// What the system said, where it was asked.
fn system_error(error: &lance::Error) -> Option<std::io::ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}
