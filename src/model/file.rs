//! A written data file and its column statistics, in no format's own types.

use std::collections::BTreeMap;

/// A complete, uploaded Parquet file that no snapshot refers to yet.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenFile {
    /// Full location.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Rows.
    pub rows: u64,
    /// The partition spec that it was written with.
    pub spec_id: i32,
    /// One value per partition field, in Iceberg's single-value binary form; `None` is null.
    pub partition: Vec<Option<Vec<u8>>>,
    /// The sort order that its rows have; `None` where none was applied.
    pub sort_order_id: Option<i32>,
    /// Byte offsets of its row groups.
    pub split_offsets: Vec<i64>,
    /// Per field id of a leaf column its statistics.
    pub columns: BTreeMap<i32, ColumnStats>,
}

/// Statistics of one leaf column in one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ColumnStats {
    /// Compressed bytes.
    pub size_bytes: u64,
    /// Values, nulls included.
    pub values: u64,
    /// Nulls.
    pub nulls: u64,
    /// Least value in Iceberg's single-value binary form, possibly cut short.
    pub lower: Option<Vec<u8>>,
    /// Greatest value in the same form, possibly rounded up.
    pub upper: Option<Vec<u8>>,
}
