//! What is configured for one table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::layout::Layout;
use crate::pipeline::event::Settings;
use crate::ports::{PartitionField, RowFilter};

/// One table: what is configured for it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSpec {
    /// What the brain decides by.
    pub settings: Settings,
    /// How records become rows.
    pub layout: Layout,
    /// Which rows the table gets; `None`: all.
    pub filter: Option<TableFilter>,
    /// True where a table that another tool made is taken over; else it is refused.
    pub adopts: bool,
    /// Partition fields of a new table.
    pub partition_by: Vec<PartitionField>,
    /// Sort order of a new table.
    pub sort_by: Vec<String>,
    /// Iceberg format version of a new table.
    pub format_version: u8,
    /// Properties of a new table, those that state its mapping (`frazil.mapping.*`) included.
    pub properties: BTreeMap<String, String>,
    /// Where a new table lies; `None`: below the warehouse.
    pub location: Option<String>,
    /// A topic that takes the dead letters, too.
    pub dead_letter_topic: Option<String>,
    /// Whose newest schemas decide the columns of a new table.
    pub subjects: Subjects,
}

/// Which rows a table gets. Two are the same where their texts are.
#[derive(Clone)]
pub struct TableFilter {
    /// The condition as it is written.
    pub text: String,
    /// It.
    pub condition: Arc<dyn RowFilter>,
}

impl PartialEq for TableFilter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl std::fmt::Debug for TableFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

/// The registry's subjects of a table's records; empty where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subjects {
    /// Of keys.
    pub key: String,
    /// Of values.
    pub value: String,
}
