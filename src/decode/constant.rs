//! A column that a record has no value for: null, or the value that the table says to write instead.

use super::columns::Column;
use crate::model::schema::Field;

/// What is appended to a column that nothing fills.
#[derive(Debug)]
pub(super) struct Absent {
    column: usize,
    /// In Iceberg's single-value binary form; `None` is null.
    default: Option<Vec<u8>>,
}

impl Absent {
    /// For the column at `index` of `table`. Where a record has no value at all nulls are what it says, as far as the
    /// column takes them.
    pub(super) fn new(table: &[Field], index: usize, is_null: bool) -> Self {
        let field = &table[index];
        let default = field.marks.write_default.clone().filter(|_| field.required || !is_null);
        Self { column: index, default }
    }

    pub(super) fn fill(&self, columns: &mut [Column]) {
        let column = &mut columns[self.column];
        match &self.default {
            Some(default) => push(column, default),
            None => column.push_null(),
        }
    }
}

/// Appends a value in single-value form; null where the bytes are none of the column's type.
fn push(column: &mut Column, bytes: &[u8]) {
    let int = || Some(i32::from_le_bytes(bytes.try_into().ok()?));
    let float = || Some(f32::from_le_bytes(bytes.try_into().ok()?));
    let pushed = match column {
        Column::Boolean(c) => bytes.first().map(|byte| c.push(*byte != 0)),
        Column::Int32(c) => int().map(|value| c.push(value)),
        // A column that was promoted has a default of its old width.
        Column::Int64(c) => {
            let long = || Some(i64::from_le_bytes(bytes.try_into().ok()?));
            int().map(i64::from).or_else(long).map(|value| c.push(value))
        }
        Column::Float32(c) => float().map(|value| c.push(value)),
        Column::Float64(c) => {
            let double = || Some(f64::from_le_bytes(bytes.try_into().ok()?));
            float().map(f64::from).or_else(double).map(|value| c.push(value))
        }
        Column::Decimal(c) => super::decimal::unscaled(bytes, 38).ok().map(|value| c.push(value)),
        Column::Bytes(c) => {
            c.push(bytes);
            Some(())
        }
        Column::Fixed(c) => (bytes.len() == c.size()).then(|| c.push(bytes)),
        Column::Struct(_) | Column::List(_) | Column::Map(_) => None,
    };
    if pushed.is_none() {
        column.push_null();
    }
}
