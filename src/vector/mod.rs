//! The index: records' texts as words and vectors, in Lance datasets that LanceDB opens, and the search over them and
//! over what has just come.
//!
//! One record's way: a tail batch is cut into texts, embedded (`tail`), and kept in memory (`hot`), where a search finds
//! it at once. When its commit is seen, `follow` appends those very entries to the dataset (`store`) and notes how far it
//! came; what was not seen in the tail is read from the table's files. The dataset is derived: dropped, damaged or of
//! another model, it is made anew from the table.
//!
//! Architecture invariant: nothing here holds a commit back, and a position is noted after its entries, never before.

mod arms;
mod chunk;
mod embed;
mod entries;
mod follow;
mod hot;
mod index;
mod keyword;
mod lease;
mod position;
mod search;
mod store;
mod tail;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use embed::StaticEmbedder;
pub use follow::{Follower, Sources};
pub use index::TableIndex;
pub use search::Searcher;
pub use store::{Place, drop_index};

use crate::model::ids::TableName;
use crate::model::record::RecordColumns;
use crate::model::template::Template;

/// What of a table is indexed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSpec {
    /// Table.
    pub table: TableName,
    /// The topics that fill it.
    pub topics: BTreeSet<Arc<str>>,
    /// Where its rows say which records they are.
    pub columns: RecordColumns,
    /// Column of the timestamp, where the table has one.
    pub time: Option<String>,
    /// The text that is found.
    pub text: Template,
    /// Columns that a search may filter by.
    pub filters: Vec<String>,
}

impl IndexSpec {
    /// The top-level columns that entries are made of.
    #[must_use]
    pub fn needs(&self) -> BTreeSet<&str> {
        let mut names = self.text.columns();
        names.extend(self.filters.iter().map(String::as_str));
        names.extend(self.columns.names());
        names.extend(self.time.as_deref());
        names
    }
}
