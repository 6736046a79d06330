//! One search: its arms over every table asked for, side by side, and their hits in one order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::Semaphore;

use super::arms::{self, Ask, Found};
use super::index::{Moment, TableIndex};
use super::keyword;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TableName;
use crate::model::record::RecordId;
use crate::ports::{
    Arm, ArmReport, ArmStatus, Embedder, Hit, IndexFacts, Recency, Search, SearchAnswer, SearchMode, SearchRequest,
    Tier,
};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::runtime::lane::Lane;

/// Reciprocal rank fusion's constant (Cormack, Clarke, Büttcher 2009): how little the first ranks stand out.
const FUSION: f64 = 60.0;
/// Entries that an arm gives for each hit asked for: several may be of one record.
const ENTRIES_PER_HIT: usize = 3;
/// Searches at once; others wait for a turn.
const SEARCHES: usize = 8;
/// Bytes of a query at most.
const QUERY_BYTES_MAX: usize = 8 << 10;
const DAY_MS: f64 = 86_400_000.0;

/// Searches the indexes of this process.
pub struct Searcher {
    indexes: RwLock<BTreeMap<TableName, Arc<TableIndex>>>,
    embedder: Arc<dyn Embedder>,
    compute: Compute,
    lane: Lane,
    turns: Semaphore,
    clock: Clock,
}

/// One table in one search.
struct Table {
    index: Arc<TableIndex>,
    moment: Moment,
}

impl Table {
    fn name(&self) -> &TableName {
        &self.index.spec.table
    }
}

impl Searcher {
    /// A searcher without any index yet. It works on threads of its own, `threads` that wait and as many that compute.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no more threads.
    pub fn new(embedder: Arc<dyn Embedder>, threads: usize, clock: Clock) -> Result<Self> {
        let (lane, compute) = (Lane::new("search", threads)?, Compute::pool(threads)?);
        Ok(Self { indexes: RwLock::default(), embedder, compute, lane, turns: Semaphore::new(SEARCHES), clock })
    }

    /// Searches this index from now on.
    pub fn add(&self, index: Arc<TableIndex>) {
        let mut indexes = self.indexes.write().unwrap_or_else(PoisonError::into_inner);
        indexes.insert(index.spec.table.clone(), index);
    }

    /// Searches a table's index no more.
    pub fn remove(&self, table: &TableName) {
        self.indexes.write().unwrap_or_else(PoisonError::into_inner).remove(table);
    }

    fn chosen(&self, request: &SearchRequest) -> Result<Vec<Arc<TableIndex>>> {
        let indexes = self.indexes.read().unwrap_or_else(PoisonError::into_inner);
        if indexes.is_empty() {
            let text = "no table is indexed here, or not yet; give one `index: {text: \"{column}\"}`";
            return Err(Error::unavailable(text));
        }
        if request.tables.is_empty() {
            return Ok(indexes.values().cloned().collect());
        }
        let chosen = request.tables.iter().map(|table| {
            indexes.get(table).cloned().ok_or_else(|| {
                let known: Vec<String> = indexes.keys().map(ToString::to_string).collect();
                let text = format!("table `{table}` is not indexed; these are: {}", known.join(", "));
                Error::new(ErrorKind::InvalidRequest, text)
            })
        });
        chosen.collect()
    }

    /// The tables as they are, once they reach what was asked for; those that were not opened yet apart.
    async fn tables(&self, request: &SearchRequest, until: Duration) -> Result<(Vec<Table>, Vec<TableName>)> {
        let (mut tables, mut unopened) = (Vec::new(), Vec::new());
        let chosen = self.chosen(request)?;
        let is_known = |topic| chosen.iter().any(|index| index.spec.topics.contains(topic));
        if let Some(source) = request.at_least.keys().find(|source| !is_known(&source.topic)) {
            let text = format!("no table that is searched is filled by topic `{}`", source.topic);
            return Err(Error::new(ErrorKind::InvalidRequest, text));
        }
        for index in chosen {
            let least = request.at_least.iter().filter(|(source, _)| index.spec.topics.contains(&source.topic));
            let least = least.map(|(source, next)| (source.clone(), *next)).collect();
            let left = until.saturating_sub(self.clock.elapsed());
            match index.reaching(&least, request.hot, &self.clock, left).await? {
                Some(moment) => tables.push(Table { index, moment }),
                None => unopened.push(index.spec.table.clone()),
            }
        }
        Ok((tables, unopened))
    }

    /// One arm in one table, within the time that is left.
    async fn arm(&self, arm: Arm, table: &Table, ask: &Arc<Ask>, left: Duration) -> (ArmReport, Vec<Found>) {
        let begun = self.clock.elapsed();
        let (moment, asked) = (table.moment.clone(), Arc::clone(ask));
        let work = async {
            match arm {
                Arm::Keyword | Arm::Vector | Arm::Id => {
                    self.lane.run(arms::indexed(arm, moment, asked)).result().await?
                }
                Arm::HotKeyword | Arm::HotVector => self.compute.run(move || arms::hot(arm, &moment, &asked)).await?,
            }
        };
        let (status, found) = match self.clock.timeout(left, work).await {
            None => (ArmStatus::Late, Vec::new()),
            Some(Err(error)) => {
                if error.kind() == ErrorKind::Corrupt {
                    table.index.report_damage();
                }
                // What lies below may hold a record's values.
                tracing::warn!(table = %table.name(), ?arm, kind = ?error.kind(), %error, "a search arm failed");
                let reason = match error.kind() {
                    ErrorKind::InvalidRequest => "the filter cannot be applied to some record's value",
                    ErrorKind::Corrupt => "the index is damaged and being looked over",
                    _ => "the index cannot be read now",
                };
                (ArmStatus::Failed(reason.to_owned()), Vec::new())
            }
            Some(Ok(found)) => (ArmStatus::Done, found),
        };
        let hits = found.iter().map(|found| &found.id).collect::<HashSet<_>>().len();
        let time = self.clock.elapsed().saturating_sub(begun);
        (ArmReport { table: table.name().clone(), arm, status, hits, time }, found)
    }
}

#[async_trait]
impl Search for Searcher {
    async fn search(&self, request: SearchRequest) -> Result<SearchAnswer> {
        if request.query.len() > QUERY_BYTES_MAX {
            let text = format!("the query has {} bytes; {QUERY_BYTES_MAX} are allowed", request.query.len());
            return Err(Error::new(ErrorKind::InvalidRequest, text));
        }
        let until = self.clock.elapsed() + request.time;
        let turn = self.clock.timeout(request.time, self.turns.acquire()).await;
        let _turn = turn.ok_or_else(|| Error::unavailable("too many searches are under way; try again"))?;
        let (tables, unopened) = self.tables(&request, until).await?;
        let id = request.query.trim().parse::<RecordId>().ok();
        let id = id.filter(|_| matches!(request.mode, SearchMode::Auto | SearchMode::Keyword));
        let arms = arms(&request, id.is_some());
        let mut tokenizer = keyword::tokenizer()?;
        let (embedder, text) = (Arc::clone(&self.embedder), vec![request.query.clone()]);
        let has_vectors = arms.iter().any(|arm| matches!(arm, Arm::Vector | Arm::HotVector));
        let ask = Arc::new(Ask {
            words: keyword::words(&request.query, &mut tokenizer),
            identifiers: keyword::identifiers(&request.query),
            vector: if has_vectors { self.compute.run(move || embedder.embed(&text)).await?? } else { Vec::new() },
            query: request.query.clone(),
            filter: arms::filter(&request)?,
            id,
            limit: request.limit,
            most: request.limit.saturating_mul(ENTRIES_PER_HIT).max(1),
        });
        for table in &tables {
            arms::check_filter(&table.moment.shape, &ask)?;
        }
        let left = until.saturating_sub(self.clock.elapsed());
        let pairs = tables.iter().flat_map(|table| arms.iter().map(move |arm| (*arm, table)));
        let found = join_all(pairs.map(|(arm, table)| self.arm(arm, table, &ask, left))).await;
        let (mut reports, lists): (Vec<ArmReport>, Vec<Vec<Found>>) = found.into_iter().unzip();
        let lists = reports.iter().map(|report| (report.table.clone(), report.arm)).zip(lists).collect();
        for table in unopened {
            let status = ArmStatus::Failed("the index was not opened yet".to_owned());
            let report = |arm: &Arm| {
                let (table, status) = (table.clone(), status.clone());
                ArmReport { table, arm: *arm, status, hits: 0, time: Duration::ZERO }
            };
            reports.extend(arms.iter().map(report));
        }
        let mut hits = fuse(lists, request.recency, self.clock.now_ms());
        hits.truncate(request.limit);
        let hits = hits.into_iter().map(|(hit, text)| {
            let (snippet, matches) = keyword::snippet(&text, &ask.words, &mut tokenizer);
            Hit { snippet, matches, ..hit }
        });
        let hits = hits.collect();
        let as_of = tables.into_iter().map(|table| (table.name().clone(), table.moment.as_of)).collect();
        Ok(SearchAnswer { hits, arms: reports, as_of })
    }

    fn indexes(&self) -> Vec<IndexFacts> {
        let indexes = self.indexes.read().unwrap_or_else(PoisonError::into_inner);
        indexes.values().map(|index| index.facts(self.embedder.id())).collect()
    }
}

/// The arms that a request asks for.
fn arms(request: &SearchRequest, is_id: bool) -> Vec<Arm> {
    let mut arms = match request.mode {
        _ if is_id => vec![Arm::Id],
        SearchMode::Keyword => vec![Arm::Keyword, Arm::HotKeyword],
        SearchMode::Vector => vec![Arm::Vector, Arm::HotVector],
        SearchMode::Auto | SearchMode::Hybrid => vec![Arm::Keyword, Arm::Vector, Arm::HotKeyword, Arm::HotVector],
    };
    if !request.hot {
        arms.retain(|arm| matches!(arm, Arm::Id | Arm::Keyword | Arm::Vector));
    }
    arms
}

/// All lists in one order by reciprocal rank, each record once, with the text that fits best.
///
/// Scores of vectors are comparable wherever they were found, and make one list. Scores of words are not: how rare a
/// word is differs from table to table, and between what is indexed and what is hot. So the first of several lists are
/// alike, and more of the query's words decide. What has an identifier of the query comes before everything else.
fn fuse(lists: Vec<((TableName, Arm), Vec<Found>)>, recency: Recency, now_ms: i64) -> Vec<(Hit, String)> {
    let mut ranked: Vec<Vec<(TableName, Arm, Found)>> = Vec::new();
    let mut vectors = Vec::new();
    for ((table, arm), found) in lists {
        let found = found.into_iter().map(|found| (table.clone(), arm, found));
        match arm {
            Arm::Vector | Arm::HotVector => vectors.extend(found),
            Arm::Id | Arm::Keyword | Arm::HotKeyword => ranked.push(found.collect()),
        }
    }
    ranked.push(vectors);
    let mut hits: HashMap<(TableName, RecordId), Fused> = HashMap::new();
    for mut list in ranked {
        list.sort_by(|(_, _, a), (_, _, b)| b.score.total_cmp(&a.score).then_with(|| newer(a, b)));
        let (mut seen, mut rank) = (HashSet::new(), 0);
        for (table, arm, found) in list {
            let key = (table, found.id);
            if !seen.insert(key.clone()) {
                continue;
            }
            rank += 1;
            let tier = if found.is_hot { Tier::Hot } else { Tier::Index };
            let fused = hits.entry(key.clone()).or_insert_with(|| {
                let (table, id) = key;
                let (snippet, matches, ranks) = Default::default();
                let hit = Hit { id, table, tier, score: 0.0, time_ms: found.time_ms, snippet, matches, ranks };
                Fused { hit, text: found.text, words: found.words, identifiers: 0 }
            });
            fused.hit.score += 1.0 / (FUSION + rank as f64);
            fused.hit.ranks.insert(arm, rank);
            fused.words = fused.words.min(found.words);
            fused.identifiers = fused.identifiers.max(found.identifiers);
        }
    }
    let mut hits: Vec<Fused> = hits.into_values().collect();
    for Fused { hit, identifiers, .. } in &mut hits {
        // Ranks add up to less than a tenth, and recency takes nine tenths at most.
        hit.score = (hit.score + *identifiers as f64) * weight(recency, hit.time_ms, now_ms);
    }
    hits.sort_by(|a, b| {
        let by_time = || b.hit.time_ms.cmp(&a.hit.time_ms);
        let by_words = || b.words.cmp(&a.words);
        let by_score = b.hit.score.total_cmp(&a.hit.score);
        by_score.then_with(by_words).then_with(by_time).then_with(|| a.hit.id.cmp(&b.hit.id))
    });
    hits.into_iter().map(|fused| (fused.hit, fused.text)).collect()
}

/// A record on its way to its place.
struct Fused {
    hit: Hit,
    text: String,
    /// How many of the query's words, and of its identifiers, it has.
    words: usize,
    identifiers: usize,
}

fn newer(a: &Found, b: &Found) -> Ordering {
    b.time_ms.cmp(&a.time_ms).then_with(|| a.id.cmp(&b.id))
}

/// What is left of a score at that age: it nears its least by half every week, or every day. A record without a time
/// counts as old.
fn weight(recency: Recency, time_ms: Option<i64>, now_ms: i64) -> f64 {
    let (loss, half_days) = match recency {
        Recency::None => return 1.0,
        Recency::Mild => (1.0 / 3.0, 7.0),
        Recency::Strong => (0.9, 1.0),
    };
    let fresh = time_ms.map_or(0.0, |time| (-((now_ms - time).max(0) as f64) / (half_days * DAY_MS)).exp2());
    1.0 - loss * (1.0 - fresh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::TopicPartition;

    fn found(offset: i64, score: f32, time_ms: i64) -> Found {
        let id = RecordId { source: TopicPartition::new("t", 0), incarnation: 0, offset };
        Found { id, time_ms: Some(time_ms), text: String::new(), score, words: 1, identifiers: 0, is_hot: false }
    }

    fn fused(lists: Vec<(Arm, Vec<Found>)>, recency: Recency) -> Vec<i64> {
        let table: TableName = "a.b".parse().unwrap();
        let lists = lists.into_iter().map(|(arm, found)| ((table.clone(), arm), found)).collect();
        fuse(lists, recency, 1000).into_iter().map(|(hit, _)| hit.id.offset).collect()
    }

    #[test]
    fn what_both_arms_find_comes_first_and_each_record_once() {
        let words = vec![found(1, 9.0, 0), found(2, 8.0, 0), found(2, 7.0, 0)];
        let vectors = vec![found(3, 0.9, 0), found(2, 0.8, 0)];
        assert_eq!(fused(vec![(Arm::Keyword, words), (Arm::Vector, vectors)], Recency::None), [2, 1, 3]);
    }

    #[test]
    fn vectors_are_ranked_together_wherever_they_were_found() {
        let hot = vec![found(1, 0.2, 0)];
        let indexed = vec![found(2, 0.9, 0), found(3, 0.8, 0)];
        assert_eq!(fused(vec![(Arm::HotVector, hot), (Arm::Vector, indexed)], Recency::None), [2, 3, 1]);
    }

    #[test]
    fn of_the_first_in_two_lists_the_one_with_more_words_is_first() {
        let indexed = vec![Found { words: 2, ..found(1, 3.0, 5) }];
        let hot = vec![found(2, 9.0, 7)];
        assert_eq!(fused(vec![(Arm::Keyword, indexed), (Arm::HotKeyword, hot)], Recency::None), [1, 2]);
    }

    #[test]
    fn a_record_with_an_identifier_of_the_query_is_first_however_old() {
        let words = vec![found(1, 9.0, 1000), Found { identifiers: 1, ..found(2, 8.0, 1000 - 90 * 86_400_000) }];
        let vectors = vec![found(1, 0.9, 1000)];
        let lists = || vec![(Arm::Keyword, words.clone()), (Arm::Vector, vectors.clone())];
        assert_eq!(fused(lists(), Recency::None), [2, 1]);
        assert_eq!(fused(lists(), Recency::Strong), [2, 1]);
    }

    #[test]
    fn newer_records_win_ties_and_more_where_asked_for() {
        let day = 86_400_000;
        assert_eq!(fused(vec![(Arm::Keyword, vec![found(1, 1.0, 5), found(2, 1.0, 7)])], Recency::None), [2, 1]);
        let old_and_good = || vec![found(1, 2.0, 1000 - 30 * day), found(2, 1.0, 1000)];
        assert_eq!(fused(vec![(Arm::Keyword, old_and_good())], Recency::None), [1, 2]);
        assert_eq!(fused(vec![(Arm::Keyword, old_and_good())], Recency::Mild), [2, 1]);
        assert!((weight(Recency::Strong, None, 0) - 0.1).abs() < 1e-9);
    }
}
