//! A run of records of one partition as they came from the broker: one arena of bytes and an index over it.

use super::ids::{Attempt, TopicPartition};
use super::offsets::NextOffset;

/// Records of one partition in offset order, bytes back to back in one arena.
#[derive(Debug)]
pub struct RawBatch {
    /// Where the records come from.
    pub source: TopicPartition,
    /// The reading that they belong to.
    pub attempt: Attempt,
    /// The position before this batch: the `next` of the batch before it, or the start position.
    pub first: NextOffset,
    /// The position behind this batch, holes after the last record included.
    pub next: NextOffset,
    /// Key, value and headers of each record, back to back.
    pub bytes: Vec<u8>,
    /// One entry per record, in offset order.
    pub records: Vec<RawRecord>,
}

/// Where one record lies in its batch's arena: key, then value, then headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since the epoch; -1 where the broker gave none.
    pub timestamp_ms: i64,
    /// Epoch of the leader that wrote it; -1 where unknown.
    pub leader_epoch: i32,
    /// First byte in the arena.
    pub start: u32,
    /// Bytes of the key; -1 for no key.
    pub key_len: i32,
    /// Bytes of the value; -1 for no value (a tombstone).
    pub value_len: i32,
    /// Bytes of the headers in the encoding of [`Headers`].
    pub headers_len: u32,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
}

/// Who set a record's timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// No timestamp.
    NotAvailable,
    /// The producer, when it made the record.
    CreateTime,
    /// The broker, when it appended the record.
    LogAppendTime,
}

impl TimestampType {
    /// The name as Kafka's clients spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAvailable => "NO_TIMESTAMP_TYPE",
            Self::CreateTime => "CREATE_TIME",
            Self::LogAppendTime => "LOG_APPEND_TIME",
        }
    }
}

impl RawRecord {
    /// Bytes of key, value and headers, which lie back to back.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a record of no bytes is a record")]
    pub fn len(&self) -> usize {
        let side = |len: i32| usize::try_from(len).unwrap_or(0);
        side(self.key_len) + side(self.value_len) + self.headers_len as usize
    }
}

impl RawBatch {
    /// An empty batch at `first`.
    #[must_use]
    pub fn new(source: TopicPartition, attempt: Attempt, first: NextOffset) -> Self {
        Self { source, attempt, first, next: first, bytes: Vec::new(), records: Vec::new() }
    }

    /// Bytes that this batch holds in memory, for budgets.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.records.capacity() * size_of::<RawRecord>()
    }

    /// The key of `record`, `None` where it has none.
    #[must_use]
    pub fn key(&self, record: &RawRecord) -> Option<&[u8]> {
        let len = usize::try_from(record.key_len).ok()?;
        let start = record.start as usize;
        Some(&self.bytes[start..start + len])
    }

    /// The value of `record`, `None` for a tombstone.
    #[must_use]
    pub fn value(&self, record: &RawRecord) -> Option<&[u8]> {
        let len = usize::try_from(record.value_len).ok()?;
        let start = record.start as usize + usize::try_from(record.key_len).unwrap_or(0);
        Some(&self.bytes[start..start + len])
    }

    /// The headers of `record`, in order, repeats kept.
    #[must_use]
    pub fn headers(&self, record: &RawRecord) -> Headers<'_> {
        let start = record.start as usize
            + usize::try_from(record.key_len).unwrap_or(0)
            + usize::try_from(record.value_len).unwrap_or(0);
        Headers { bytes: &self.bytes[start..start + record.headers_len as usize] }
    }

    /// The batch in two, each with half of its records.
    #[must_use]
    pub fn halves(self) -> (Self, Self) {
        let (first, second) = self.records.split_at(self.records.len() / 2);
        let middle = second.first().map_or(self.next, |record| NextOffset(record.offset));
        let half = |records: &[RawRecord], first, next| {
            let mut half = Self { next, ..Self::new(self.source.clone(), self.attempt, first) };
            for record in records {
                let at = record.start as usize;
                // No longer than the whole, whose places are 32 bits wide.
                let start = u32::try_from(half.bytes.len()).unwrap_or(u32::MAX);
                half.bytes.extend_from_slice(&self.bytes[at..at + record.len()]);
                half.records.push(RawRecord { start, ..*record });
            }
            half
        };
        (half(first, self.first, middle), half(second, middle, self.next))
    }

    /// The epoch of the last record's leader, for the ledger.
    #[must_use]
    pub fn last_epoch(&self) -> Option<i32> {
        self.records.last().map(|record| record.leader_epoch).filter(|epoch| *epoch >= 0)
    }
}

/// Iterator over a record's headers in the arena's encoding: per header `u32` key length, key,
/// `i32` value length (-1 for none), value; little endian.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    bytes: &'a [u8],
}

impl Headers<'_> {
    /// Appends one header to an arena.
    pub fn push(arena: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
        arena.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        arena.extend_from_slice(key);
        let len = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
        arena.extend_from_slice(&len.to_le_bytes());
        arena.extend_from_slice(value.unwrap_or_default());
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key_len, rest) = self.bytes.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let value_len = i32::from_le_bytes(*value_len);
        let (value, rest) = rest.split_at_checked(usize::try_from(value_len).unwrap_or(0))?;
        self.bytes = rest;
        Some((key, (value_len >= 0).then_some(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_repeats_and_nulls() {
        let mut arena = Vec::new();
        Headers::push(&mut arena, b"a", Some(b"1"));
        Headers::push(&mut arena, b"a", None);
        Headers::push(&mut arena, b"", Some(b""));
        let read: Vec<_> = Headers { bytes: &arena }.collect();
        assert_eq!(read, vec![(&b"a"[..], Some(&b"1"[..])), (&b"a"[..], None), (&b""[..], Some(&b""[..]))]);
    }
}
