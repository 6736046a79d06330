//! Unions of several branches: which of the branches' columns take the value, the others being null.

use super::cursor::Cursor;
use super::program::Plan;
use super::skip::NO_BRANCH;
use crate::decode::Failure;
use crate::decode::columns::Column;

/// A compiled union whose branches are columns.
#[derive(Debug)]
pub(super) struct Choice {
    /// By branch; each leaves the others' columns null.
    pub branches: Vec<Plan>,
    /// The branch that is null, where there is one.
    pub null: Option<usize>,
    /// All columns.
    pub columns: Vec<usize>,
}

impl Choice {
    /// Reads a value into its branch's columns. `false`: it is null, and no column has got anything.
    #[cold]
    pub(super) fn run(&self, cursor: &mut Cursor<'_>, columns: &mut [Column]) -> Result<bool, Failure> {
        let branch = cursor.index(NO_BRANCH, self.branches.len())?;
        if self.null == Some(branch) {
            return Ok(false);
        }
        self.branches[branch].run(cursor, columns)?;
        Ok(true)
    }

    /// Reads a value that is a row: where it is null, all columns are.
    #[cold]
    pub(super) fn run_row(&self, cursor: &mut Cursor<'_>, columns: &mut [Column]) -> Result<(), Failure> {
        if !self.run(cursor, columns)? {
            self.columns.iter().for_each(|column| columns[*column].push_null());
        }
        Ok(())
    }
}
