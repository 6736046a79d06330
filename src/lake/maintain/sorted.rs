//! Rows of several sorted runs in one sorted sequence. Knows nothing of files.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{SortOptions, interleave_record_batch};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use iceberg::spec::{NullOrder, SortDirection, SortOrder};

use crate::error::{Error, Result};
use crate::lake::derived::Derived;
use crate::model::schema::TableSchema;

/// Rows of one merged batch.
const BATCH_ROWS: usize = 8192;

/// One value that rows are sorted by.
#[derive(Debug, Clone)]
pub(super) struct SortKey {
    by: Derived,
    options: SortOptions,
}

impl SortKey {
    /// What a table's sort order sorts by.
    ///
    /// # Errors
    /// `Corrupt` where that is not in the schema, or not known.
    pub(super) fn of(order: &SortOrder, schema: &TableSchema) -> Result<Vec<Self>> {
        let key = |field: &iceberg::spec::SortField| {
            let by = Derived::new(schema, field.source_id, field.transform)?;
            let descending = field.direction == SortDirection::Descending;
            Ok(Self { by, options: SortOptions { descending, nulls_first: field.null_order == NullOrder::First } })
        };
        order.fields.iter().map(key).collect()
    }
}

/// A merge under way: runs that still have rows, the one with the least next row first, as in a binary heap.
pub(super) struct Merge<I> {
    /// Known with the first rows.
    converter: Option<RowConverter>,
    keys: Vec<SortKey>,
    runs: Vec<Run<I>>,
    heap: Vec<usize>,
}

struct Run<I> {
    rows: I,
    /// The batch being read; those before it that the next merged batch still needs.
    batches: Vec<RecordBatch>,
    sorted_by: Option<Rows>,
    next: usize,
}

/// Merges `runs`, each sorted by `keys`. Of equal rows those of the earlier run come first.
pub(super) fn merge_sorted<I>(runs: Vec<I>, keys: &[SortKey]) -> Result<Merge<I>>
where
    I: Iterator<Item = Result<RecordBatch>>,
{
    let runs = runs.into_iter().map(|rows| Run { rows, batches: Vec::new(), sorted_by: None, next: 0 });
    let mut merge = Merge { converter: None, keys: keys.to_vec(), runs: runs.collect(), heap: Vec::new() };
    for run in 0..merge.runs.len() {
        if merge.advance(run)? {
            merge.heap.push(run);
        }
    }
    for at in (0..merge.heap.len() / 2).rev() {
        merge.sink(at);
    }
    Ok(merge)
}

impl<I: Iterator<Item = Result<RecordBatch>>> Merge<I> {
    /// The next rows; `None` at the end.
    pub(super) fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        // Per run the number of batches that those of the runs before it take, known only at the end.
        let mut taken: Vec<(usize, usize, usize)> = Vec::with_capacity(BATCH_ROWS);
        while let Some(&run) = self.heap.first()
            && taken.len() < BATCH_ROWS
        {
            let least = &mut self.runs[run];
            taken.push((run, least.batches.len() - 1, least.next));
            least.next += 1;
            if least.next == least.batches.last().map_or(0, RecordBatch::num_rows) && !self.advance(run)? {
                let last = self.heap.len() - 1;
                self.heap.swap(0, last);
                self.heap.pop();
            }
            self.sink(0);
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let mut first = Vec::with_capacity(self.runs.len());
        let mut batches: Vec<&RecordBatch> = Vec::new();
        for run in &self.runs {
            first.push(batches.len());
            batches.extend(&run.batches);
        }
        let indices: Vec<(usize, usize)> = taken.iter().map(|(run, batch, row)| (first[*run] + batch, *row)).collect();
        let merged = interleave_record_batch(&batches, &indices).map_err(broken)?;
        for run in &mut self.runs {
            let read = run.batches.len().saturating_sub(usize::from(run.sorted_by.is_some()));
            run.batches.drain(..read);
        }
        Ok(Some(merged))
    }

    /// Reads a run's next batch that has rows; false at its end.
    fn advance(&mut self, run: usize) -> Result<bool> {
        let run = &mut self.runs[run];
        (run.sorted_by, run.next) = (None, 0);
        for rows in run.rows.by_ref() {
            let rows = rows?;
            if rows.num_rows() == 0 {
                continue;
            }
            let columns = self.keys.iter().map(|key| key.by.values(&rows)).collect::<Result<Vec<ArrayRef>>>()?;
            let converter = match &mut self.converter {
                Some(converter) => converter,
                converter => {
                    let field = |(key, column): (&SortKey, &ArrayRef)| {
                        SortField::new_with_options(column.data_type().clone(), key.options)
                    };
                    let fields = self.keys.iter().zip(&columns).map(field).collect();
                    converter.insert(RowConverter::new(fields).map_err(broken)?)
                }
            };
            run.sorted_by = Some(converter.convert_columns(&columns).map_err(broken)?);
            run.batches.push(rows);
            return Ok(true);
        }
        Ok(false)
    }

    fn is_less(&self, a: usize, b: usize) -> bool {
        let next = |run: usize| self.runs[run].sorted_by.as_ref().map(|rows| rows.row(self.runs[run].next));
        (next(a), a) < (next(b), b)
    }

    /// Moves the run at a place of the heap down to where it belongs.
    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.is_less(self.heap[child], self.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

fn broken(error: ArrowError) -> Error {
    Error::bug("merge sorted rows").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use proptest::prelude::*;

    use super::*;

    fn batch(rows: &[(Option<i32>, i32)]) -> RecordBatch {
        let fields = ["key", "run"].map(|name| Field::new(name, DataType::Int32, true));
        let key: Int32Array = rows.iter().map(|(key, _)| *key).collect();
        let run = Int32Array::from_iter_values(rows.iter().map(|(_, run)| *run));
        RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), vec![Arc::new(key), Arc::new(run)]).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn runs_become_one_sorted_sequence(
            runs in prop::collection::vec(prop::collection::vec(prop::option::of(0..40), 0..3000), 0..8),
            size in 1_usize..700,
            descending: bool,
            nulls_first: bool,
        ) {
            let options = SortOptions { descending, nulls_first };
            let rank = |key: &Option<i32>| match key {
                None => (if nulls_first { 0 } else { 2 }, 0),
                Some(key) => (1, if descending { -key } else { *key }),
            };
            let mut expected: Vec<(Option<i32>, i32)> = Vec::new();
            let mut batches = Vec::new();
            for (number, mut keys) in (0..).zip(runs) {
                keys.sort_by_key(&rank);
                let rows: Vec<_> = keys.into_iter().map(|key| (key, number)).collect();
                let pieces: Vec<_> = rows.chunks(size).map(|piece| Ok(batch(piece))).collect();
                batches.push(pieces.into_iter());
                expected.extend(rows);
            }
            expected.sort_by_key(|(key, run)| (rank(key), *run));
            let mut merge = merge_sorted(batches, &[SortKey { by: Derived::column(0), options }]).unwrap();
            let mut found = Vec::new();
            while let Some(rows) = merge.next_batch().unwrap() {
                let (keys, runs) = (rows.column(0).as_primitive::<Int32Type>(), rows.column(1).as_primitive::<Int32Type>());
                found.extend(keys.iter().zip(runs.values().iter().copied()));
            }
            prop_assert_eq!(found, expected);
        }
    }
}
