//! A model of Kafka's logs: offsets with every kind of hole, open transactions, retention, leader epochs, topics that
//! are made anew under their name. It forgets nothing, so that a table can be compared with it. Groups are elsewhere.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::model::raw::{RawBatch, RawRecord, TimestampType};

/// A record as it was produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Counts records of the whole simulation: what a row is recognised by.
    pub serial: i64,
    /// What the table must make of it.
    pub fate: Fate,
}

/// What a table must make of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// A row with these texts: of column `value`, or of `id` and `extra`.
    Row(Option<String>, Option<String>),
    /// It cannot be a row.
    Reject,
    /// It cannot be a row before the registry knows the schema with that id.
    RejectUntilRegistered(u32, String),
}

/// What an offset holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A record that is there.
    Record(Record),
    /// A record of a transaction that is neither committed nor aborted.
    Pending(Record),
    /// A record of an aborted transaction, or a control record: no client sees it.
    Hidden,
    /// A record that compaction removed, possibly after it was read.
    Compacted(Record),
}

/// One partition.
#[derive(Debug, Clone, Default)]
pub struct Partition {
    /// From offset 0 on, retained or not.
    pub log: Vec<(Entry, i32)>,
    /// The oldest offset retained.
    pub low: i64,
    /// Every value that `low` has had.
    pub lows: Vec<i64>,
    /// First offset of the open transaction.
    pub open: Option<i64>,
    epoch: i32,
}

/// One life of a topic.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Its id.
    pub id: Uuid,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

/// What a fetch answers.
#[derive(Debug)]
pub enum Fetched {
    /// Records, in the batch.
    Records(RawBatch),
    /// Nothing between the position and this one, which is the end of what is stable.
    End(i64),
    /// The position lies outside the log.
    OutOfRange,
    /// The topic is not the one that was asked for.
    Gone,
}

/// All topics, and those that were before them.
#[derive(Debug, Default)]
pub struct Broker {
    topics: BTreeMap<String, Topic>,
    past: Vec<Topic>,
}

impl Topic {
    /// Another partition, empty.
    pub fn grow(&mut self) {
        self.partitions.push(Partition { lows: vec![0], ..Partition::default() });
    }
}

impl Partition {
    /// Behind the last record.
    #[must_use]
    pub fn high(&self) -> i64 {
        self.log.len() as i64
    }

    /// Behind the last stable record.
    #[must_use]
    pub fn stable(&self) -> i64 {
        self.open.unwrap_or_else(|| self.high())
    }

    /// Appends a record, in the open transaction where there is one and `transactional` says so.
    pub fn append(&mut self, record: Record, transactional: bool) {
        let entry = if transactional && self.open.is_some() { Entry::Pending(record) } else { Entry::Record(record) };
        self.log.push((entry, self.epoch));
    }

    /// Opens a transaction, whose first record is this.
    pub fn begin(&mut self, record: Record) {
        if self.open.is_none() {
            self.open = Some(self.high());
        }
        self.append(record, true);
    }

    /// Ends the open transaction.
    pub fn end(&mut self, commit: bool) {
        let Some(first) = self.open.take() else { return };
        for (entry, _) in self.log.iter_mut().skip(first as usize) {
            if let Entry::Pending(record) = entry {
                *entry = if commit { Entry::Record(record.clone()) } else { Entry::Hidden };
            }
        }
        self.log.push((Entry::Hidden, self.epoch));
    }

    /// Removes one record, as compaction does; never the newest.
    pub fn compact(&mut self, offset: i64) {
        if offset + 1 < self.stable()
            && let Some((entry, _)) = self.log.get_mut(offset as usize)
            && let Entry::Record(record) = entry
        {
            *entry = Entry::Compacted(record.clone());
        }
    }

    /// Removes what lies before `low`, as retention does.
    pub fn retain_from(&mut self, low: i64) {
        self.low = self.low.max(low.min(self.stable()));
        self.lows.push(self.low);
    }

    /// Another leader.
    pub fn elect(&mut self) {
        self.epoch += 1;
    }
}

impl Broker {
    /// Makes a topic; one of that name becomes past.
    pub fn create(&mut self, name: &str, id: Uuid, partitions: usize) {
        let topic = Topic { id, partitions: vec![Partition { lows: vec![0], ..Partition::default() }; partitions] };
        self.past.extend(self.topics.insert(name.to_owned(), topic));
    }

    /// A topic as it is.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// A topic as it is, to be changed.
    pub fn topic_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.topics.get_mut(name)
    }

    /// A topic by its id, also one that is past.
    #[must_use]
    pub fn by_id(&self, id: Uuid) -> Option<&Topic> {
        self.topics.values().chain(&self.past).find(|topic| topic.id == id)
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// At most `most` records behind the position of `batch`, in it.
    pub fn fetch(&self, mut batch: RawBatch, id: Uuid, most: usize) -> Fetched {
        let Some(topic) = self.topics.get(batch.source.topic.as_ref()).filter(|topic| topic.id == id) else {
            return Fetched::Gone;
        };
        let Some(partition) = topic.partitions.get(batch.source.partition as usize) else { return Fetched::Gone };
        let (at, stable) = (batch.first.0, partition.stable());
        if at < partition.low || at > partition.high() {
            return Fetched::OutOfRange;
        }
        for offset in at..stable {
            let (Entry::Record(record), epoch) = &partition.log[offset as usize] else { continue };
            push(&mut batch, offset, *epoch, record);
            if batch.records.len() == most {
                break;
            }
        }
        match batch.records.last() {
            Some(last) => {
                batch.next.0 = last.offset + 1;
                Fetched::Records(batch)
            }
            None => Fetched::End(stable.max(at)),
        }
    }
}

fn push(batch: &mut RawBatch, offset: i64, leader_epoch: i32, record: &Record) {
    let start = batch.bytes.len() as u32;
    let mut put = |bytes: &Option<Vec<u8>>| {
        batch.bytes.extend(bytes.iter().flatten());
        bytes.as_ref().map_or(-1, |bytes| bytes.len() as i32)
    };
    let (key_len, value_len) = (put(&record.key), put(&record.value));
    batch.records.push(RawRecord {
        offset,
        timestamp_ms: record.timestamp_ms,
        leader_epoch,
        start,
        key_len,
        value_len,
        headers_len: 0,
        timestamp_type: TimestampType::CreateTime,
    });
}
