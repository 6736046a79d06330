//! A table's part of a batch: its own records, over the same range of offsets. No channels.

use crate::model::ids::Attempt;
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, RawRecord};

/// Those of the `records` of `batch` that lie at or behind `from`, as the batch of a table's reading that stands at
/// `first`: what lies between them is a hole.
pub(super) fn part<'a>(
    batch: &RawBatch,
    records: impl Iterator<Item = &'a RawRecord> + Clone,
    from: NextOffset,
    first: NextOffset,
    attempt: Attempt,
) -> RawBatch {
    let mut part = RawBatch::new(batch.source.clone(), attempt, first);
    part.next = batch.next;
    let records = records.filter(|record| record.offset >= from.0);
    part.records.reserve_exact(records.clone().count());
    part.bytes.reserve_exact(records.clone().map(RawRecord::len).sum());
    for record in records {
        // No longer than the batch's arena, whose places are 32 bits wide.
        let start = u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        let at = record.start as usize;
        part.bytes.extend_from_slice(&batch.bytes[at..at + record.len()]);
        part.records.push(RawRecord { start, ..*record });
    }
    part
}
