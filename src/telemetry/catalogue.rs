//! Every metric's name, labels, unit and meaning: what `docs/metrics.md` shows and what may be rendered at all.

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

impl MetricKind {
    /// Its name in the text format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric, as it is documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricDoc {
    /// Full name.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// Unit of the value; `1` for flags.
    pub unit: &'static str,
    /// What it counts.
    pub help: &'static str,
}

const TABLE: &[&str] = &["table"];
const PARTITION: &[&str] = &["table", "topic", "partition"];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    unit: &'static str,
    help: &'static str,
) -> MetricDoc {
    MetricDoc { name, kind: MetricKind::Counter, labels, unit, help }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    unit: &'static str,
    help: &'static str,
) -> MetricDoc {
    MetricDoc { name, kind: MetricKind::Gauge, labels, unit, help }
}

/// All metrics, those of tables first.
pub const CATALOGUE: &[MetricDoc] = &[
    counter("frazil_records_polled_total", TABLE, "records", "Records read from Kafka, each reading counted"),
    counter("frazil_bytes_polled_total", TABLE, "bytes", "Keys, values and headers of the records read from Kafka"),
    counter("frazil_decode_seconds_total", TABLE, "seconds", "Compute time spent on decoding"),
    counter("frazil_encode_seconds_total", TABLE, "seconds", "Compute time spent on encoding files"),
    counter("frazil_rows_committed_total", TABLE, "rows", "Rows in commits that are in the table's history"),
    counter("frazil_files_committed_total", TABLE, "files", "Data files in those commits"),
    counter("frazil_bytes_committed_total", TABLE, "bytes", "Size of those data files"),
    counter(
        "frazil_commits_total",
        &["table", "outcome"],
        "commits",
        "Commits by outcome: `committed`; `stale` (another writer had moved a partition, the batch was dropped and is read \
         again); `outdated` (schema or layout changed, the rows were written anew); `conflict_retry` (a try lost against \
         another writer and was made again on the new base)",
    ),
    MetricDoc {
        name: "frazil_commit_duration_seconds",
        kind: MetricKind::Histogram,
        labels: TABLE,
        unit: "seconds",
        help: "Time from asking for a commit until its outcome is known",
    },
    gauge(
        "frazil_commit_last_timestamp_seconds",
        TABLE,
        "seconds",
        "Time of the last commit by this process, since the epoch; NaN before the first",
    ),
    counter(
        "frazil_dead_letters_total",
        &["table", "reason"],
        "records",
        "Dead letters committed, by why they are no rows",
    ),
    counter(
        "frazil_dead_letters_sent_total",
        TABLE,
        "records",
        "Dead letters sent to the topic of `dead_letter_topic`, committed there",
    ),
    counter(
        "frazil_skipped_records_total",
        &["table", "reason"],
        "records",
        "Records left out by `on_error: skip`, committed with the ledger, by why they are no rows",
    ),
    counter(
        "frazil_filtered_records_total",
        TABLE,
        "records",
        "Records for which the table's `where` is false, which left them out; committed with the ledger",
    ),
    gauge("frazil_lag_records", PARTITION, "records", "Offsets between the ledger and the end of the log"),
    gauge(
        "frazil_lag_stable_records",
        PARTITION,
        "records",
        "Offsets between the ledger and the last stable offset; 0 is caught up. A lag above it that stays is an open \
         transaction",
    ),
    gauge(
        "frazil_retention_left_records",
        PARTITION,
        "records",
        "Offsets between the start of the log and the ledger; below 0 records are gone that were never committed",
    ),
    gauge(
        "frazil_lag_seconds",
        TABLE,
        "seconds",
        "Age of the newest committed record while there is stable lag, 0 when caught up; NaN until it is known",
    ),
    counter("frazil_rebalances_total", TABLE, "rebalances", "Assignments and revocations by the consumer group"),
    counter("frazil_compactions_total", TABLE, "compactions", "Compactions that are in the table's history"),
    counter("frazil_compacted_files_total", TABLE, "files", "Data files that they replaced"),
    counter("frazil_compacted_bytes_total", TABLE, "bytes", "Size of the data files that they replaced"),
    counter(
        "frazil_compaction_written_bytes_total",
        TABLE,
        "bytes",
        "Size of the data files that they wrote; over `frazil_bytes_committed_total` it is the write amplification",
    ),
    counter("frazil_expired_snapshots_total", TABLE, "snapshots", "Snapshots dropped by maintenance"),
    counter("frazil_deleted_files_total", TABLE, "files", "Files of dropped snapshots, and orphans, that were deleted"),
    counter(
        "frazil_maintenance_failures_total",
        TABLE,
        "errors",
        "Steps of maintenance that ended with an error; they are tried again",
    ),
    gauge(
        "frazil_data_files",
        TABLE,
        "files",
        "Data files of the current snapshot; NaN where another replica maintains the table",
    ),
    gauge("frazil_small_files", TABLE, "files", "Data files below three quarters of `maintenance.target_file_size`"),
    gauge(
        "frazil_delete_files",
        TABLE,
        "files",
        "Delete files and deletion vectors of the current snapshot, which other engines wrote",
    ),
    gauge("frazil_snapshots", TABLE, "snapshots", "Snapshots retained"),
    counter(
        "frazil_index_applied_total",
        TABLE,
        "applications",
        "Times that commits were brought into the search index",
    ),
    counter(
        "frazil_index_failures_total",
        TABLE,
        "errors",
        "Steps of indexing that ended with an error; they are tried again",
    ),
    gauge("frazil_index_entries", TABLE, "entries", "Pieces of text in the search index; NaN where there is none"),
    gauge(
        "frazil_index_lag_records",
        TABLE,
        "records",
        "Committed offsets that are not in the search index yet; NaN where there is none",
    ),
    gauge("frazil_table_suspended", TABLE, "1", "1 while the table takes no records until somebody resumes it"),
    gauge("frazil_table_stopped", TABLE, "1", "1 where the table ended and needs a human"),
    gauge(
        "frazil_table_waiting",
        &["table", "on"],
        "1",
        "1 while the table waits for `registry`, `kafka`, `catalog` or `store`; it goes on by itself",
    ),
    gauge("frazil_budget_used_bytes", &["budget"], "bytes", "Bytes taken from a memory budget"),
    gauge("frazil_budget_limit_bytes", &["budget"], "bytes", "Bytes that a memory budget has"),
    counter(
        "frazil_invariant_broken_total",
        &["invariant"],
        "violations",
        "How often an invariant was found broken; anything but 0 is a bug",
    ),
    gauge("frazil_build_info", &["version"], "1", "Always 1; the label is the version that runs"),
    gauge("process_resident_memory_bytes", &[], "bytes", "Resident memory of the process (Linux only)"),
    counter("process_cpu_seconds_total", &[], "seconds", "User and system time of the process (Linux only)"),
];
