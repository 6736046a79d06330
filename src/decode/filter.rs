//! What becomes of the rows of a batch by the verdicts of its table's filter. The verdicts come from outside.

use arrow::compute::filter_record_batch;

use super::plan::reject;
use crate::error::{Error, Result};
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::raw::RawBatch;
use crate::ports::Verdicts;

/// Takes those rows out of `batch`, decoded from `raw`, that its table is not to have: they are left out, or rejected
/// where the filter does not say.
///
/// # Errors
/// `Bug` where there are not as many verdicts as rows.
pub(super) fn sift(batch: &mut DecodedBatch, raw: &RawBatch, verdicts: &Verdicts) -> Result<()> {
    let kept = &verdicts.kept;
    if kept.len() == kept.true_count() {
        return Ok(());
    }
    let mut out = batch.rejects.iter().map(|reject| reject.record.offset).peekable();
    let of_rows = raw.records.iter().filter(|record| out.next_if_eq(&record.offset).is_none());
    let mut failed = verdicts.failed.iter().peekable();
    let mut undecided = Vec::new();
    for (row, (record, verdict)) in of_rows.zip(kept).enumerate() {
        let message = failed.next_if(|(at, _)| *at == row).map_or("`where` is null", |(_, how)| how);
        match verdict {
            Some(true) => {}
            Some(false) => batch.filtered.push(record.offset),
            None => undecided.push(reject(raw, *record, (Reason::FilterUndecided, message.into()))),
        }
    }
    batch.rows = filter_record_batch(&batch.rows, kept).map_err(|e| Error::bug("take rows out").with_source(e))?;
    if !undecided.is_empty() {
        batch.rejects.extend(undecided);
        batch.rejects.sort_by_key(|reject| reject.record.offset);
    }
    Ok(())
}
