//! Row ids of format 3 through a rewriting: what a row had from its place in a file, it has in two columns of the new
//! one (spec, "Row Lineage"). Nothing here reads or writes files.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;

use crate::error::{Error, Result};
use crate::model::schema::{Field, Type};

/// The columns, by the names and ids that the specification reserves for them.
pub(super) fn fields() -> [Field; 2] {
    [("_row_id", 2_147_483_540), ("_last_updated_sequence_number", 2_147_483_539)]
        .map(|(name, id)| Field { id, ..Field::optional(name, Type::Long) })
}

/// Where rows come from, as they are read one batch after the other.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    next_row_id: i64,
    sequence: i64,
}

impl Origin {
    /// Rows of a file of this sequence number, of which the first has this id.
    pub(super) fn new(first_row_id: i64, sequence: i64) -> Self {
        Self { next_row_id: first_row_id, sequence }
    }

    /// The rows behind the first `rows`.
    pub(super) fn behind(&self, rows: i64) -> Self {
        Self { next_row_id: self.next_row_id + rows, ..self.clone() }
    }

    /// The next rows, whose last two columns are those of [`fields`]: what a row says itself there stands, what it does
    /// not it has from its place.
    ///
    /// # Errors
    /// `Bug` where they have no such columns.
    pub(super) fn name(&mut self, rows: &RecordBatch) -> Result<RecordBatch> {
        let broken = || Error::bug("rows without columns for their ids");
        let mut columns = rows.columns().to_vec();
        let at = columns.len().checked_sub(2).ok_or_else(broken)?;
        let column = |at: usize| rows.column(at).as_primitive_opt::<Int64Type>().ok_or_else(broken);
        let ids = column(at)?.iter().zip(self.next_row_id..).map(|(own, id)| own.unwrap_or(id));
        let numbers = column(at + 1)?.iter().map(|own| own.unwrap_or(self.sequence));
        let made: [ArrayRef; 2] =
            [Arc::new(Int64Array::from_iter_values(ids)), Arc::new(Int64Array::from_iter_values(numbers))];
        columns.splice(at.., made);
        self.next_row_id += i64::try_from(rows.num_rows()).unwrap_or(0);
        RecordBatch::try_new(rows.schema(), columns).map_err(|e| broken().with_source(e))
    }
}
