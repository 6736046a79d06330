//! The section `maintenance`, checked. What it leads to is `lake::maintain`'s.

use std::time::Duration;

use super::resolve::{invalid, positive};
use super::settings::MaintenanceSettings;
use super::table::TableConfig;
use super::units::{Number, Size, Span};
use crate::error::Result;

/// How tables are kept healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceConfig {
    /// The size that data files should have, bytes.
    pub target_file_size: u64,
    /// Small files of a partition that are merged at least.
    pub min_files: usize,
    /// How often each table is looked at while nothing is due.
    pub interval: Duration,
    /// Memory that one compaction may take, bytes.
    pub memory: u64,
    /// Snapshots beyond this number expire once older than `keep_min_age`.
    pub keep_snapshots: u32,
    /// The newest snapshots that never expire.
    pub keep_min: u32,
    /// No snapshot expires before this age.
    pub keep_min_age: Duration,
    /// Every snapshot but the newest `keep_min` expires at this age.
    pub keep_for: Duration,
    /// Files that nothing refers to are deleted at this age.
    pub orphan_grace: Duration,
}

/// Below this one row group being read and one being written do not fit.
const COMPACTION_MEMORY_MIN_BYTES: u64 = 64 << 20;

pub(super) fn resolve_maintenance(written: &MaintenanceSettings) -> Result<MaintenanceConfig> {
    const HOUR: Duration = Duration::from_hours(1);
    let number =
        |key: &str, written: Option<Number<u32>>, default| positive(key, written.map(|Number(number)| number), default);
    let span = |key: &str, written: Option<Span>, default| positive(key, written.map(|Span(span)| span), default);
    let resolved = MaintenanceConfig {
        target_file_size: positive(
            "maintenance.target_file_size",
            written.target_file_size.map(|Size(bytes)| bytes),
            512 << 20,
        )?,
        min_files: number("maintenance.min_files", written.min_files, 5)? as usize,
        interval: span("maintenance.interval", written.interval, Duration::from_secs(10))?,
        memory: positive("maintenance.memory", written.memory.map(|Size(bytes)| bytes), 256 << 20)?,
        keep_snapshots: number("maintenance.keep_snapshots", written.keep_snapshots, 100)?,
        keep_min: number("maintenance.keep_min", written.keep_min, 10)?,
        keep_min_age: span("maintenance.keep_min_age", written.keep_min_age, HOUR)?,
        keep_for: span("maintenance.keep_for", written.keep_for, HOUR * 24 * 7)?,
        orphan_grace: span("maintenance.orphan_grace", written.orphan_grace, HOUR * 24 * 3)?,
    };
    if resolved.memory < COMPACTION_MEMORY_MIN_BYTES {
        return Err(invalid(
            "maintenance.memory",
            &format!("{} bytes are too few; write 64MiB or more", resolved.memory),
        ));
    }
    if resolved.keep_min > resolved.keep_snapshots {
        return Err(invalid("maintenance.keep_min", "it is above `keep_snapshots`; lower it, or raise the other"));
    }
    if resolved.keep_min_age > resolved.keep_for {
        return Err(invalid("maintenance.keep_min_age", "it is above `keep_for`; lower it, or raise the other"));
    }
    Ok(resolved)
}

/// A file may be as old as a commit's interval before anything refers to it; it must not look like an orphan by then.
pub(super) fn check_intervals(maintenance: &MaintenanceConfig, tables: &[TableConfig]) -> Result<()> {
    let slow = tables.iter().find(|table| table.commit_interval > maintenance.orphan_grace / 2);
    slow.map_or(Ok(()), |table| {
        let text = format!(
            "it is less than twice the `commit_interval` of table `{}`; raise it, or lower the other",
            table.table
        );
        Err(invalid("maintenance.orphan_grace", &text))
    })
}
