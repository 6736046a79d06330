//! Dead letters as people see them: which there are and what they say. The replay, which makes rows of them, is beside.

mod replay;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;

pub use replay::{Looked, Replay, Replayer, Still};

use super::legible::RegistryReader;
use crate::decode::dead_letters::{Letters, heads};
use crate::error::{Error, Result};
use crate::lake::IcebergLake;
use crate::lake::letters::LetterFile;
use crate::model::ids::{Attempt, TableName};
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, TimestampType};
use crate::model::record::RecordId;
use crate::model::schema::TableSchema;
use crate::ports::{Legible, Reading, Registry, TableState};

/// Which letters are meant: those for which all that is said holds.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Of one of these reasons; empty: of any.
    pub reasons: BTreeSet<String>,
    /// Of this topic.
    pub topic: Option<String>,
    /// Of one of these records; empty: of any.
    pub records: BTreeSet<RecordId>,
    /// Rejected at or after this time, milliseconds since the epoch.
    pub since_ms: Option<i64>,
}

impl Choice {
    fn takes(&self, letters: &Letters, row: usize, id: &RecordId) -> bool {
        (self.reasons.is_empty() || self.reasons.contains(letters.reason(row)))
            && self.topic.as_ref().is_none_or(|topic| *topic == *id.source.topic)
            && (self.records.is_empty() || self.records.contains(id))
            && self.since_ms.is_none_or(|since| letters.rejected_ms(row).is_some_and(|at| at >= since))
    }
}

/// The letters of a table that share reason and topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Why they are letters.
    pub reason: String,
    /// Their topic.
    pub topic: String,
    /// How many.
    pub letters: u64,
    /// The record that was rejected first, as `topic/partition/offset`.
    pub first: String,
    /// When, milliseconds since the epoch.
    pub first_ms: Option<i64>,
    /// The record that was rejected last.
    pub newest: String,
    /// When.
    pub newest_ms: Option<i64>,
}

/// A letter, whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Letter {
    /// The record, as `topic/partition/offset`.
    pub record: String,
    /// Why it is a letter.
    pub reason: String,
    /// The detail in words.
    pub message: String,
    /// When it was rejected, milliseconds since the epoch.
    pub rejected_ms: Option<i64>,
    /// The record's timestamp, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Who set it.
    pub timestamp_type: &'static str,
    /// What else is known of it.
    pub details: BTreeMap<String, String>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// Bytes of its key; `None`: it has none.
    pub key_bytes: Option<usize>,
    /// Bytes of its value; `None`: it has none.
    pub value_bytes: Option<usize>,
    /// Key and value; `None` where they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// A record's header.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Bytes of its value; `None`: it has none.
    pub bytes: Option<usize>,
    /// Its value, where contents were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Shown>,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Content {
    /// Its key.
    pub key: Option<Shown>,
    /// Its value.
    pub value: Option<Shown>,
}

/// Bytes as people read them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// How they were read.
    pub encoding: &'static str,
    /// What they say.
    pub content: Value,
    /// Why they were not read better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The letters of `table` by reason and topic, the most frequent first; `None` where it never had a letter.
///
/// # Errors
/// `Unavailable`, `Denied`; `Corrupt` where the dead-letter table cannot be read.
pub async fn tally(lake: &IcebergLake, table: &TableName, choice: &Choice) -> Result<Option<Vec<Tally>>> {
    let Some((state, files)) = lake.letter_files(&table.dead_letters()).await? else { return Ok(None) };
    let mut tallies: BTreeMap<(String, Arc<str>), (u64, Moment, Moment)> = BTreeMap::new();
    for file in &files {
        each_head(lake, &state, file, |letters, row, id| {
            if choice.takes(letters, row, &id) {
                let key = (letters.reason(row).to_owned(), Arc::clone(&id.source.topic));
                let moment = (letters.rejected_ms(row), id);
                let entry = tallies.entry(key).or_insert_with(|| (0, moment.clone(), moment.clone()));
                entry.0 += 1;
                entry.1 = entry.1.clone().min(moment.clone());
                entry.2 = entry.2.clone().max(moment);
            }
        })
        .await?;
    }
    let tally = |((reason, topic), (letters, first, newest)): ((String, Arc<str>), (u64, Moment, Moment))| Tally {
        reason,
        topic: topic.to_string(),
        letters,
        first: first.1.to_string(),
        first_ms: first.0,
        newest: newest.1.to_string(),
        newest_ms: newest.0,
    };
    let mut all: Vec<Tally> = tallies.into_iter().map(tally).collect();
    all.sort_by_key(|tally| std::cmp::Reverse(tally.letters));
    Ok(Some(all))
}

/// When a record was rejected, and which.
type Moment = (Option<i64>, RecordId);

/// Up to `limit` letters of `table`. With `contents` their keys, values and headers are in them, read by the schemas of
/// that registry where they name one.
///
/// # Errors
/// As [`tally`]; `InvalidRequest` where the table never had a letter.
pub async fn find(
    lake: &IcebergLake,
    table: &TableName,
    choice: &Choice,
    limit: usize,
    contents: Option<Option<Arc<dyn Registry>>>,
) -> Result<Vec<Letter>> {
    let (state, files) = lake.letter_files(&table.dead_letters()).await?.ok_or_else(|| none(table))?;
    let reader = contents.map(RegistryReader::new);
    let mut found = Vec::new();
    for file in &files {
        // Most files have none of them, and their records need not be read.
        let mut wanted = false;
        each_head(lake, &state, file, |letters, row, id| wanted |= choice.takes(letters, row, &id)).await?;
        if !wanted {
            continue;
        }
        let mut rows = lake.letters(&state, file, TableSchema::clone(&state.schema)).await?;
        while let Some(rows) = rows.try_next().await? {
            let letters = Letters::of(&rows)?;
            for row in 0..letters.len() {
                let Some(id) = letters.id(row).filter(|id| choice.takes(&letters, row, id)) else { continue };
                if found.len() == limit {
                    return Ok(found);
                }
                found.push(letter(&letters, row, &id, reader.as_ref()).await?);
            }
        }
    }
    Ok(found)
}

fn none(table: &TableName) -> Error {
    Error::invalid_request(format!("table `{table}` has no dead letters: there is no table `{}`", table.dead_letters()))
}

/// Tells `each` letter of a file that says its record, by what [`heads`] has of it.
async fn each_head(
    lake: &IcebergLake,
    letters: &TableState,
    file: &LetterFile,
    mut each: impl FnMut(&Letters, usize, RecordId),
) -> Result<()> {
    let mut rows = lake.letters(letters, file, heads(&letters.schema)).await?;
    while let Some(rows) = rows.try_next().await? {
        let letters = Letters::of(&rows)?;
        for row in 0..letters.len() {
            if let Some(id) = letters.id(row) {
                each(&letters, row, id);
            }
        }
    }
    Ok(())
}

async fn letter(letters: &Letters, row: usize, id: &RecordId, reader: Option<&RegistryReader>) -> Result<Letter> {
    let mut batch = RawBatch::new(id.source.clone(), Attempt::default(), NextOffset(id.offset));
    letters.push(row, &mut batch)?;
    let record = batch.records.first().copied().ok_or_else(|| Error::bug("a letter without a record"))?;
    let (key, value) = (batch.key(&record), batch.value(&record));
    let headers: Vec<(&[u8], Option<&[u8]>)> = batch.headers(&record).collect();
    let has_time = record.timestamp_type != TimestampType::NotAvailable && record.timestamp_ms >= 0;
    let mut shown = match reader {
        Some(reader) => {
            let bytes = [key, value].into_iter().chain(headers.iter().map(|(_, value)| *value));
            let given: Vec<Vec<u8>> = bytes.clone().flatten().map(<[u8]>::to_vec).collect();
            let mut readings = reader.read(given).await.into_iter();
            bytes.map(|bytes| bytes.and_then(|_| readings.next()).map(Shown::from)).collect()
        }
        None => Vec::new(),
    }
    .into_iter();
    let (first, second) = (shown.next(), shown.next());
    let content = first.zip(second).map(|(key, value)| Content { key, value });
    let headers = headers.iter().map(|(name, value)| Header {
        name: String::from_utf8_lossy(name).into_owned(),
        bytes: value.map(<[u8]>::len),
        value: shown.next().flatten(),
    });
    Ok(Letter {
        record: id.to_string(),
        reason: letters.reason(row).to_owned(),
        message: letters.message(row).to_owned(),
        rejected_ms: letters.rejected_ms(row),
        timestamp_ms: has_time.then_some(record.timestamp_ms),
        timestamp_type: record.timestamp_type.as_str(),
        details: letters.details(row),
        headers: headers.collect(),
        key_bytes: key.map(<[u8]>::len),
        value_bytes: value.map(<[u8]>::len),
        content,
    })
}

impl From<Reading> for Shown {
    fn from(reading: Reading) -> Self {
        Self { encoding: reading.encoding.as_str(), content: reading.value, note: reading.note }
    }
}
