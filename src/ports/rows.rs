//! The contract of what decides which rows a table gets.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::model::schema::TableSchema;

/// A condition that rows are to meet, over whatever columns their table has. It looks at one row at a time, and says
/// the same of the same row whenever it is asked.
pub trait RowFilter: Send + Sync {
    /// The condition for rows in `table`'s columns. A column that it names and the table does not have is null in every
    /// row, as it will be in such rows once the table has it.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no condition over columns of these types.
    fn plan(&self, table: &TableSchema) -> Result<Arc<dyn PlannedFilter>>;
}

/// A condition for rows in certain columns.
pub trait PlannedFilter: Send + Sync {
    /// What it says of each of `rows`, which have these columns. A row's verdict depends on no other row.
    ///
    /// # Errors
    /// `Bug` only: what fails of single rows is in the result.
    fn decide(&self, rows: &RecordBatch) -> Result<Verdicts>;

    /// The columns that it names and the table does not have, as it names them.
    fn missing(&self) -> &[String];
}

/// What a condition says of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdicts {
    /// Per row: true where the condition is, false where it is, null where it is neither or fails.
    pub kept: BooleanArray,
    /// Rows for which it fails, ascending, and how; never a value of theirs.
    pub failed: Vec<(usize, &'static str)>,
}
