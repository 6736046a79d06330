//! The arms of a search in one table: in the dataset by Lance's indexes, among hot entries by looking at all of them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Float32Array};
use arrow::datatypes::{Float32Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use chrono::DateTime;
use futures::TryStreamExt;
use lance::Dataset;
use lance_datafusion::planner::Planner;
use lance_index::scalar::FullTextSearchQuery;

use super::entries::{INCARNATION, Identity, OFFSET, PARTITION, Shape, TEXT, TIME, TOPIC, VECTOR};
use super::hot::HotBatch;
use super::index::Moment;
use super::keyword::{self, Words};
use super::store::{METRIC, broken};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TopicPartition;
use crate::model::record::RecordId;
use crate::ports::{Arm, SearchRequest};

/// Vector partitions that a search looks into, the nearest first: this part of all of them, and so many at least. With a
/// filter as many as it takes.
const PARTITIONS_PART: usize = 4;
const PARTITIONS_MIN: usize = 32;
/// Entries compared by their full vectors, for each entry asked for.
const REFINE: u32 = 1;

/// What all arms of a search ask.
pub(super) struct Ask {
    pub(super) query: String,
    pub(super) words: BTreeSet<String>,
    /// Identifiers among the words.
    pub(super) identifiers: Vec<String>,
    pub(super) vector: Vec<f32>,
    pub(super) filter: Option<String>,
    pub(super) id: Option<RecordId>,
    /// Records asked for.
    pub(super) limit: usize,
    /// Entries that an arm gives at most.
    pub(super) most: usize,
}

impl Ask {
    /// False where the query has no word that counts, or none that the model knows.
    fn has_something_for(&self, arm: Arm) -> bool {
        match arm {
            Arm::Id => true,
            Arm::Keyword | Arm::HotKeyword => !self.words.is_empty(),
            Arm::Vector | Arm::HotVector => self.vector.iter().any(|number| *number != 0.0),
        }
    }
}

/// Why a search of an index failed. With a filter it is the filter's fault, unless files are missing.
fn failed(ask: &Ask, error: lance::Error) -> Error {
    let error = broken("search an index", error);
    if ask.filter.is_some() && error.kind() != ErrorKind::Corrupt {
        return Error::new(ErrorKind::InvalidRequest, "use a filter").with_source(error);
    }
    error
}

/// The columns of a hit.
const HIT: [&str; 6] = [TOPIC, INCARNATION, PARTITION, OFFSET, TIME, TEXT];

/// An entry that an arm found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) id: RecordId,
    pub(super) time_ms: Option<i64>,
    pub(super) text: String,
    /// Higher is better, among those of one arm.
    pub(super) score: f32,
    /// How many of the query's words it has; all, where it was found by its meaning.
    pub(super) words: usize,
    /// How many of the query's identifiers it has, where it was found by words.
    pub(super) identifiers: usize,
    pub(super) is_hot: bool,
}

/// The request's predicate and time window in one.
///
/// # Errors
/// `InvalidRequest` where a time is none.
pub(super) fn filter(request: &SearchRequest) -> Result<Option<String>> {
    let time = |ms: i64| {
        let time = DateTime::from_timestamp_millis(ms);
        let time = time.ok_or_else(|| Error::new(ErrorKind::InvalidRequest, format!("{ms} ms is no time")))?;
        Ok::<_, Error>(format!("timestamp '{}'", time.format("%Y-%m-%d %H:%M:%S%.3f")))
    };
    let mut all: Vec<String> = request.filter.iter().map(|filter| format!("({filter})")).collect();
    if let Some(from) = request.time_from_ms {
        all.push(format!("{TIME} >= {}", time(from)?));
    }
    if let Some(to) = request.time_to_ms {
        all.push(format!("{TIME} < {}", time(to)?));
    }
    Ok((!all.is_empty()).then(|| all.join(" AND ")))
}

/// Refuses a filter that an index of this shape cannot use.
///
/// # Errors
/// `InvalidRequest`, with the columns that there are.
pub(super) fn check_filter(shape: &Shape, ask: &Ask) -> Result<()> {
    let Some(filter) = &ask.filter else { return Ok(()) };
    let planner = Planner::new(Arc::clone(&shape.schema));
    let wrong = |why: String| {
        let text = format!("the filter cannot be used: {why}; columns are {}", shape.filters().join(", "));
        Error::new(ErrorKind::InvalidRequest, text)
    };
    let parsed = planner.parse_filter(filter).map_err(|e| wrong(e.to_string()))?;
    let known = shape.filters();
    match Planner::column_names_in_expr(&parsed).into_iter().find(|name| !known.contains(name)) {
        Some(name) => Err(wrong(format!("there is no filter column `{name}`"))),
        None => Ok(()),
    }
}

/// An arm over what the dataset has; that of an id looks at hot entries as well.
pub(super) async fn indexed(arm: Arm, moment: Moment, ask: Arc<Ask>) -> Result<Vec<Found>> {
    if let Some(id) = ask.id.as_ref().filter(|_| arm == Arm::Id) {
        let mut found = match &moment.dataset {
            Some(dataset) => by_id(dataset, id, &ask).await?,
            None => Vec::new(),
        };
        found.extend(hot_by_id(&moment, id, &ask)?);
        return Ok(found);
    }
    let Some(dataset) = moment.dataset else { return Ok(Vec::new()) };
    if !ask.has_something_for(arm) {
        return Ok(Vec::new());
    }
    let mut scan = dataset.scan();
    let asked = |e| failed(&ask, e);
    let score = if arm == Arm::Keyword { "_score" } else { "_distance" };
    scan.disable_scoring_autoprojection();
    scan.project(&[&HIT[..], &[score]].concat()).map_err(asked)?;
    if let Some(filter) = &ask.filter {
        scan.filter(filter).map_err(asked)?.prefilter(true);
    }
    if arm == Arm::Keyword {
        let most = i64::try_from(ask.most).unwrap_or(i64::MAX);
        let query = FullTextSearchQuery::new(ask.query.clone()).with_column(TEXT.to_owned()).map_err(asked)?;
        scan.full_text_search(query.limit(Some(most))).map_err(asked)?;
        scan.limit(Some(most), None).map_err(asked)?;
    } else {
        let query = Float32Array::from(ask.vector.clone());
        let scan = scan.nearest(VECTOR, &query, ask.most).map_err(asked)?.distance_metric(METRIC);
        scan.minimum_nprobes(PARTITIONS_MIN).refine(REFINE);
        if ask.filter.is_none() {
            let all = usize::try_from(moment.partitions).unwrap_or(usize::MAX);
            scan.maximum_nprobes((all / PARTITIONS_PART).max(PARTITIONS_MIN));
        }
    }
    let rows: Vec<RecordBatch> = scan.try_into_stream().await.map_err(asked)?.try_collect().await.map_err(asked)?;
    let mut found = Vec::new();
    for rows in &rows {
        let scores = column(rows, score)?;
        for row in 0..rows.num_rows() {
            let score = scores.value(row);
            // The product of two vectors of length 1, out of the square of their distance.
            let score = if arm == Arm::Keyword { score } else { 1.0 - score / 2.0 };
            found.push(entry(rows, row, score, false)?);
        }
    }
    if arm == Arm::Keyword {
        leave_chance_out(&mut found, &ask);
    }
    compare(arm, &mut found, &ask)?;
    Ok(found)
}

/// Of texts with the same score it is chance which come into a full list, and others do the next time. Those at its end
/// are left out, where enough records are left without them.
fn leave_chance_out(found: &mut Vec<Found>, ask: &Ask) {
    let least = found.iter().map(|found| found.score).min_by(f32::total_cmp).unwrap_or_default();
    let above = found.iter().filter(|found| found.score > least).map(|found| &found.id);
    let is_enough = above.collect::<HashSet<_>>().len() >= ask.limit;
    if found.len() >= ask.most && is_enough {
        found.retain(|found| found.score > least);
    }
}

/// Notes how much of the query is in what was found.
fn compare(arm: Arm, found: &mut [Found], ask: &Ask) -> Result<()> {
    if !matches!(arm, Arm::Keyword | Arm::HotKeyword) {
        found.iter_mut().for_each(|found| found.words = ask.words.len());
        return Ok(());
    }
    let mut tokenizer = keyword::tokenizer()?;
    for found in found {
        found.words = keyword::count(&found.text, &ask.words, &mut tokenizer);
        found.identifiers = ask.identifiers.iter().filter(|name| keyword::names(&found.text, name)).count();
    }
    Ok(())
}

async fn by_id(dataset: &Dataset, id: &RecordId, ask: &Ask) -> Result<Vec<Found>> {
    let topic = id.source.topic.replace('\'', "''");
    let (partition, incarnation, offset) = (id.source.partition, id.incarnation, id.offset);
    let mut filter = format!(
        "{TOPIC} = '{topic}' AND {PARTITION} = {partition} AND {OFFSET} = {offset} AND {INCARNATION} = {incarnation}"
    );
    if let Some(more) = &ask.filter {
        filter = format!("{filter} AND {more}");
    }
    let asked = |e| failed(ask, e);
    let mut scan = dataset.scan();
    scan.project(&HIT).map_err(asked)?.filter(&filter).map_err(asked)?;
    let rows: Vec<RecordBatch> = scan.try_into_stream().await.map_err(asked)?.try_collect().await.map_err(asked)?;
    let all = rows.iter().flat_map(|rows| (0..rows.num_rows()).map(move |row| entry(rows, row, 1.0, false)));
    all.collect()
}

fn hot_by_id(moment: &Moment, id: &RecordId, ask: &Ask) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for batch in moment.hot.iter().filter(|batch| batch.source == id.source) {
        let allowed = allowed(&moment.shape, &batch.entries, ask)?;
        let ids = Identity::of(&batch.entries)?;
        for row in
            (0..batch.entries.num_rows()).filter(|row| (ids.at(*row).1, ids.at(*row).3) == (id.incarnation, id.offset))
        {
            if allowed.as_ref().is_none_or(|allowed| is_true(allowed, row)) {
                found.push(entry(&batch.entries, row, 1.0, true)?);
            }
        }
    }
    Ok(found)
}

/// An arm over hot entries.
pub(super) fn hot(arm: Arm, moment: &Moment, ask: &Ask) -> Result<Vec<Found>> {
    if !ask.has_something_for(arm) {
        return Ok(Vec::new());
    }
    let batches: Vec<&Arc<HotBatch>> = moment.hot.iter().filter(|batch| batch.entries.num_rows() > 0).collect();
    let mut scores = match arm {
        Arm::HotKeyword => by_words(&batches, ask)?,
        _ => by_vector(&batches, ask)?,
    };
    if ask.filter.is_some() {
        let allowed: Vec<Option<BooleanArray>> =
            batches.iter().map(|batch| allowed(&moment.shape, &batch.entries, ask)).collect::<Result<_>>()?;
        scores.retain(|(at, row, _)| allowed[*at].as_ref().is_none_or(|allowed| is_true(allowed, *row)));
    }
    // Of two that are alike the later is first, so that the same question has the same answer.
    scores.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| (b.0, b.1).cmp(&(a.0, a.1))));
    scores.truncate(ask.most);
    let found = scores.into_iter().map(|(at, row, score)| entry(&batches[at].entries, row, score, true));
    let mut found: Vec<Found> = found.collect::<Result<_>>()?;
    compare(arm, &mut found, ask)?;
    Ok(found)
}

fn by_words(batches: &[&Arc<HotBatch>], ask: &Ask) -> Result<Vec<(usize, usize, f32)>> {
    let mut tokenizer = keyword::tokenizer()?;
    let mut words = Vec::with_capacity(batches.len());
    for batch in batches {
        let texts = text(&batch.entries)?;
        words.push(batch.words.get_or_init(|| Words::of(texts, &mut tokenizer)));
    }
    Ok(keyword::score(&ask.words, &words))
}

fn by_vector(batches: &[&Arc<HotBatch>], ask: &Ask) -> Result<Vec<(usize, usize, f32)>> {
    let mut scores = Vec::new();
    for (at, batch) in batches.iter().enumerate() {
        let missing = || Error::corrupt("hot entries have no vectors");
        let vectors = batch.entries.column_by_name(VECTOR).ok_or_else(missing)?;
        let values = vectors.as_fixed_size_list().values().as_primitive_opt::<Float32Type>().ok_or_else(missing)?;
        let rows = values.values().chunks_exact(ask.vector.len().max(1));
        scores.extend(rows.enumerate().map(|(row, vector)| (at, row, dot(vector, &ask.vector))));
    }
    Ok(scores)
}

/// In eight sums, so that the compiler may use wide registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest = a.as_chunks::<8>().1.iter().zip(b.as_chunks::<8>().1).map(|(a, b)| a * b);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// Which entries the filter lets through; `None` where there is no filter.
fn allowed(shape: &Shape, entries: &RecordBatch, ask: &Ask) -> Result<Option<BooleanArray>> {
    let Some(filter) = &ask.filter else { return Ok(None) };
    let wrong = |e: lance::Error| Error::new(ErrorKind::InvalidRequest, "use a filter").with_source(e);
    let planner = Planner::new(Arc::clone(&shape.schema));
    let parsed = planner.parse_filter(filter).and_then(|parsed| planner.optimize_expr(parsed)).map_err(wrong)?;
    let predicate = planner.create_physical_expr(&parsed).map_err(wrong)?;
    let values = predicate.evaluate(entries).and_then(|values| values.into_array(entries.num_rows()));
    let values = values.map_err(|e| Error::new(ErrorKind::InvalidRequest, "use a filter").with_source(e))?;
    let values = values.as_boolean_opt();
    values.cloned().map(Some).ok_or_else(|| Error::new(ErrorKind::InvalidRequest, "the filter is no condition"))
}

fn is_true(values: &BooleanArray, row: usize) -> bool {
    values.is_valid(row) && values.value(row)
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Float32Array> {
    let column = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Float32Type>());
    column.ok_or_else(|| Error::bug(format!("a search gave no `{name}`")))
}

fn text(rows: &RecordBatch) -> Result<&arrow::array::StringArray> {
    let column = rows.column_by_name(TEXT).and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| Error::corrupt("index entries have no text"))
}

fn entry(rows: &RecordBatch, row: usize, score: f32, is_hot: bool) -> Result<Found> {
    let (topic, incarnation, partition, offset) = Identity::of(rows)?.at(row);
    let id = RecordId { source: TopicPartition::new(topic, partition), incarnation, offset };
    let times = rows.column_by_name(TIME).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let time = times.filter(|times| times.is_valid(row)).map(|times| times.value(row).div_euclid(1000));
    let text = text(rows)?.value(row).to_owned();
    Ok(Found { id, time_ms: time, text, score, words: 0, identifiers: 0, is_hot })
}
