//! The section `sql`, checked. What it leads to is `query`'s.

use std::time::Duration;

use super::resolve::positive;
use super::settings::SqlSettings;
use super::units::{Number, Size, Span};
use crate::error::Result;

/// What one query may use, beside its share of the memory budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlConfig {
    /// How long one query may take.
    pub timeout: Duration,
    /// Rows that one query may give.
    pub max_rows: u64,
    /// Bytes of data files that one query may read.
    pub max_scan: u64,
    /// Queries at once; others wait for their turn.
    pub queries_at_once: u32,
}

pub(super) fn resolve_sql(written: &SqlSettings) -> Result<SqlConfig> {
    let queries = written.queries_at_once.map(|Number(queries)| queries);
    Ok(SqlConfig {
        timeout: positive("sql.timeout", written.timeout.map(|Span(span)| span), Duration::from_secs(60))?,
        max_rows: positive("sql.max_rows", written.max_rows.map(|Number(rows)| rows), 1_000_000)?,
        max_scan: positive("sql.max_scan", written.max_scan.map(|Size(bytes)| bytes), 1 << 40)?,
        queries_at_once: positive("sql.queries_at_once", queries, 8)?,
    })
}
