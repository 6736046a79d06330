//! A filter that goes by the offset alone, so that everybody can tell what is to become of a record.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use crate::error::{Error, Result};
use crate::model::schema::TableSchema;
use crate::pipeline::driver::TableFilter;
use crate::ports::{PlannedFilter, RowFilter, Verdicts};

/// Keeps some records and leaves others out; of some it cannot say, where that does not suspend the table for good.
#[derive(Debug, Clone, Copy)]
pub struct ByOffset {
    /// True where it says something of each record.
    pub decides_all: bool,
}

impl ByOffset {
    /// What it says of the record at an offset.
    #[must_use]
    pub fn verdict(self, offset: i64) -> Option<bool> {
        match offset % 5 {
            2 => Some(false),
            4 if !self.decides_all => None,
            _ => Some(true),
        }
    }

    /// It as a table's.
    #[must_use]
    pub fn of_table(self) -> TableFilter {
        TableFilter { text: "by offset".to_owned(), condition: Arc::new(self) }
    }
}

impl RowFilter for ByOffset {
    fn plan(&self, _: &TableSchema) -> Result<Arc<dyn PlannedFilter>> {
        Ok(Arc::new(*self))
    }
}

impl PlannedFilter for ByOffset {
    fn decide(&self, rows: &RecordBatch) -> Result<Verdicts> {
        let offsets = rows.column_by_name("kafka_offset").ok_or_else(|| Error::bug("rows without offsets"))?;
        let offsets = offsets.as_primitive::<Int64Type>().values();
        Ok(Verdicts { kept: offsets.iter().map(|offset| self.verdict(*offset)).collect(), failed: Vec::new() })
    }

    fn missing(&self) -> &[String] {
        &[]
    }
}
