//! Contracts of a look into a topic: records as the broker has them, and their bytes as people read them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::Watermarks;
use crate::error::Result;
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::model::record::RecordId;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekRequest {
    /// Topic.
    pub topic: String,
    /// One of its partitions; `None`: all.
    pub partition: Option<i32>,
    /// Where to begin.
    pub start: PeekStart,
    /// Only records whose key or value has these bytes.
    pub contains: Option<String>,
    /// Only records with this text as their key, framed by a schema id or not.
    pub key_equals: Option<String>,
    /// Records given at most.
    pub records: usize,
    /// Bytes of keys, values and headers that are looked through at most.
    pub bytes: usize,
    /// How long to wait for further records once the end is reached.
    pub wait: Duration,
    /// How long it may take in all.
    pub time: Duration,
}

/// Where a look begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeekStart {
    /// At the oldest record retained.
    Earliest,
    /// Behind the newest record: only what comes while it waits.
    Latest,
    /// At that offset, or the oldest retained.
    Offset(i64),
    /// At the first record of that time or later, milliseconds since the epoch.
    Timestamp(i64),
    /// That many offsets before the end of each partition.
    Tail(usize),
}

/// A record as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekedRecord {
    /// Where it lies.
    pub id: RecordId,
    /// Milliseconds since the epoch; `None` where the broker gave none.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Why a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeekEnd {
    /// There was nothing more to see.
    Reached,
    /// It had as many records as asked for.
    Full,
    /// It had looked through as many bytes as allowed.
    Bytes,
    /// Its time was over.
    Time,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeekAnswer {
    /// Records: the newest first for [`PeekStart::Tail`], else as they came, in order within a partition.
    pub records: Vec<PeekedRecord>,
    /// Where each partition was begun.
    pub from: BTreeMap<TopicPartition, NextOffset>,
    /// The readable ranges when it began.
    pub watermarks: BTreeMap<TopicPartition, Watermarks>,
    /// Records looked through.
    pub scanned: u64,
    /// Bytes looked through.
    pub scanned_bytes: u64,
    /// Why it ended.
    pub end: PeekEnd,
}

/// Looks into topics. Takes part in no group and stores no offset: nobody else notices.
#[async_trait]
pub trait Peek: Send + Sync {
    /// Looks. Dropping the future ends it.
    ///
    /// # Errors
    /// `InvalidRequest` where there is no such topic or partition, with what there is; `Unavailable` where no broker
    /// answers, `Denied` where it refuses.
    async fn peek(&self, request: PeekRequest) -> Result<PeekAnswer>;
}

/// How bytes were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Avro, by the registry's schema that they name.
    Avro,
    /// Protobuf, by the registry's schema that they name.
    Protobuf,
    /// JSON, by the registry's schema that they name.
    JsonSchema,
    /// JSON text of an object or a list.
    Json,
    /// UTF-8 text.
    Text,
    /// None of these: base64.
    Base64,
}

impl Encoding {
    /// Its name in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
            Self::JsonSchema => "json_schema",
            Self::Json => "json",
            Self::Text => "text",
            Self::Base64 => "base64",
        }
    }
}

/// Bytes as people read them.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What they say.
    pub value: Value,
    /// How they were read.
    pub encoding: Encoding,
    /// Why they were not read better, where they name a schema that did not help.
    pub note: Option<String>,
}

/// Makes bytes of keys and values legible.
#[async_trait]
pub trait Legible: Send + Sync {
    /// One reading for each, in order. Never fails: what cannot be read is base64.
    async fn read(&self, bytes: Vec<Vec<u8>>) -> Vec<Reading>;
}
