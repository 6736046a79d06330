//! Metrics in Prometheus' text format: made once, handed to whoever counts. Names and meanings are in `catalogue`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry, TextEncoder};

use crate::invariant::Invariant;
use crate::model::ids::{TableName, TopicPartition};
use crate::runtime::budget::Budget;
use crate::telemetry::catalogue::CATALOGUE;
use crate::telemetry::health::{Dependency, Health, TableHealth};
use crate::telemetry::process;

/// Upper bounds of commit durations in seconds: 10 ms to 82 s, each twice the one before, since a commit takes tens
/// of milliseconds against a local catalog and a minute in trouble.
const COMMIT_SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// All metrics of this process; clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    health: Health,
    tables: Mutex<BTreeMap<TableName, Arc<TableMetrics>>>,
    budgets: Mutex<Vec<Budget>>,
}

impl Metrics {
    /// Metrics of no table yet. The states of tables are read from `health` when they are rendered, so that
    /// `/metrics` and `/readyz` cannot disagree.
    #[must_use]
    pub fn new(health: Health) -> Self {
        Self { inner: Arc::new(Inner { health, tables: Mutex::default(), budgets: Mutex::default() }) }
    }

    /// The handles of a table: the same ones until it is removed.
    #[must_use]
    pub fn table(&self, table: &TableName) -> Arc<TableMetrics> {
        let mut tables = lock(&self.inner.tables);
        Arc::clone(tables.entry(table.clone()).or_insert_with(|| Arc::new(TableMetrics::new(table))))
    }

    /// Drops all series of a table. Handles still held count on unseen.
    pub fn remove_table(&self, table: &TableName) {
        lock(&self.inner.tables).remove(table);
    }

    /// Shows a budget's limit and use from now on.
    pub fn watch_budget(&self, budget: &Budget) {
        lock(&self.inner.budgets).push(budget.clone());
    }

    /// Everything in Prometheus' text format 0.0.4, families by name.
    #[must_use]
    pub fn render(&self) -> String {
        let tables: Vec<_> = lock(&self.inner.tables).values().cloned().collect();
        let registries = tables.iter().map(|table| table.registry.clone()).chain([self.read_now()]);
        let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
        for mut family in registries.flat_map(|registry| registry.gather()) {
            match families.get_mut(family.name()) {
                Some(first) => first.mut_metric().append(family.mut_metric()),
                None => {
                    families.insert(family.name().to_owned(), family);
                }
            }
        }
        let families: Vec<_> = families.into_values().collect();
        TextEncoder::new().encode_to_string(&families).expect("no gathered family is empty")
    }

    /// What is kept elsewhere, read for this one rendering.
    fn read_now(&self) -> Registry {
        let registry = Registry::new();
        for (table, health) in self.inner.health.snapshot().tables {
            let table = table.to_string();
            let flag = |name, labels: &[&str], on| series::<IntGauge>(&registry, name, labels).set(i64::from(on));
            flag("frazil_table_suspended", &[&table], matches!(health, TableHealth::Suspended { .. }));
            flag("frazil_table_stopped", &[&table], matches!(health, TableHealth::Stopped { .. }));
            for dependency in Dependency::ALL {
                let waiting = matches!(health, TableHealth::Waiting { on, .. } if on == dependency);
                flag("frazil_table_waiting", &[&table, dependency.as_str()], waiting);
            }
        }
        // Each table has a budget of its own under the same name; their sum is what bounds the process.
        let mut budgets: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let watched = lock(&self.inner.budgets).clone();
        for budget in &watched {
            let (used, limit) = budgets.entry(budget.name()).or_default();
            *used += budget.used() as f64;
            *limit += budget.limit() as f64;
        }
        for (name, (used, limit)) in budgets {
            series::<Gauge>(&registry, "frazil_budget_used_bytes", &[name]).set(used);
            series::<Gauge>(&registry, "frazil_budget_limit_bytes", &[name]).set(limit);
        }
        for invariant in Invariant::ALL {
            series::<IntCounter>(&registry, "frazil_invariant_broken_total", &[invariant.as_str()])
                .inc_by(invariant.broken());
        }
        series::<IntGauge>(&registry, "frazil_build_info", &[env!("CARGO_PKG_VERSION")]).set(1);
        if let Some(used) = process::read() {
            series::<Gauge>(&registry, "process_resident_memory_bytes", &[]).set(used.resident_bytes as f64);
            series::<Counter>(&registry, "process_cpu_seconds_total", &[]).inc_by(used.cpu_seconds);
        }
        registry
    }
}

/// One table's handles. Counting is one atomic addition; only what is said per partition or per reason looks up.
pub struct TableMetrics {
    /// Records read from Kafka.
    pub records_polled: IntCounter,
    /// Bytes read from Kafka.
    pub bytes_polled: IntCounter,
    /// Compute seconds of decoding.
    pub decode_seconds: Counter,
    /// Compute seconds of encoding.
    pub encode_seconds: Counter,
    /// Rows committed.
    pub rows_committed: IntCounter,
    /// Data files committed.
    pub files_committed: IntCounter,
    /// Records that the table's filter left out, committed with the ledger.
    pub records_filtered: IntCounter,
    /// Dead letters sent to their topic.
    pub letters_sent: IntCounter,
    /// Bytes of data files committed.
    pub bytes_committed: IntCounter,
    /// Commits by outcome.
    pub commits: CommitCounters,
    /// Seconds from asking for a commit to its outcome.
    pub commit_duration_seconds: Histogram,
    /// Seconds since the epoch of the last commit.
    pub commit_last_timestamp_seconds: Gauge,
    /// Age in seconds of the newest committed record, 0 when caught up.
    pub lag_seconds: Gauge,
    /// Assignments and revocations.
    pub rebalances: IntCounter,
    /// Upkeep.
    pub maintenance: MaintenanceMetrics,
    /// Its search index.
    pub index: IndexMetrics,
    table: String,
    registry: Registry,
    reasons: Mutex<BTreeMap<(&'static str, &'static str), IntCounter>>,
    partitions: Mutex<BTreeMap<TopicPartition, PartitionGauges>>,
}

/// Commits by outcome.
pub struct CommitCounters {
    /// In the table's history.
    pub committed: IntCounter,
    /// Dropped: another writer had moved a partition.
    pub stale: IntCounter,
    /// Dropped: schema or layout changed in meaning.
    pub outdated: IntCounter,
    /// Tries that lost against another writer and were made again.
    pub conflict_retry: IntCounter,
}

/// A table's upkeep by this process, dead letters included; the gauges are of the table itself.
pub struct MaintenanceMetrics {
    /// Compactions committed.
    pub compactions: IntCounter,
    /// Files that they replaced.
    pub compacted_files: IntCounter,
    /// Bytes of those files.
    pub compacted_bytes: IntCounter,
    /// Bytes of the files that replaced them.
    pub written_bytes: IntCounter,
    /// Snapshots dropped.
    pub expired_snapshots: IntCounter,
    /// Files deleted.
    pub deleted_files: IntCounter,
    /// Steps that ended with an error.
    pub failures: IntCounter,
    /// Data files.
    pub data_files: Gauge,
    /// Data files that are smaller than they should be.
    pub small_files: Gauge,
    /// Delete files and deletion vectors.
    pub delete_files: Gauge,
    /// Snapshots.
    pub snapshots: Gauge,
}

/// A table's search index, as this process keeps it.
pub struct IndexMetrics {
    /// Applications of commits to it.
    pub applied: IntCounter,
    /// Steps that ended with an error.
    pub failures: IntCounter,
    /// Pieces of text in it.
    pub entries: Gauge,
    /// Committed offsets that are not in it.
    pub lag_records: Gauge,
}

/// Where a partition's ledger stands in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// Offsets from the ledger to the end of the log.
    pub records: i64,
    /// Offsets from the ledger to the last stable offset.
    pub stable_records: i64,
    /// Offsets from the start of the log to the ledger.
    pub retention_left_records: i64,
}

struct PartitionGauges {
    records: IntGauge,
    stable_records: IntGauge,
    retention_left_records: IntGauge,
}

impl TableMetrics {
    fn new(table: &TableName) -> Self {
        let registry = Registry::new();
        let table = table.to_string();
        let labels = [table.as_str()];
        let counter = |name| series::<IntCounter>(&registry, name, &labels);
        let seconds = |name| series::<Counter>(&registry, name, &labels);
        let unknown = |name| {
            let gauge = series::<Gauge>(&registry, name, &labels);
            gauge.set(f64::NAN);
            gauge
        };
        let outcome = |outcome| series::<IntCounter>(&registry, "frazil_commits_total", &[&table, outcome]);
        Self {
            records_polled: counter("frazil_records_polled_total"),
            bytes_polled: counter("frazil_bytes_polled_total"),
            decode_seconds: seconds("frazil_decode_seconds_total"),
            encode_seconds: seconds("frazil_encode_seconds_total"),
            rows_committed: counter("frazil_rows_committed_total"),
            files_committed: counter("frazil_files_committed_total"),
            records_filtered: counter("frazil_filtered_records_total"),
            letters_sent: counter("frazil_dead_letters_sent_total"),
            bytes_committed: counter("frazil_bytes_committed_total"),
            commits: CommitCounters {
                committed: outcome("committed"),
                stale: outcome("stale"),
                outdated: outcome("outdated"),
                conflict_retry: outcome("conflict_retry"),
            },
            commit_duration_seconds: series(&registry, "frazil_commit_duration_seconds", &labels),
            commit_last_timestamp_seconds: unknown("frazil_commit_last_timestamp_seconds"),
            lag_seconds: unknown("frazil_lag_seconds"),
            rebalances: counter("frazil_rebalances_total"),
            maintenance: MaintenanceMetrics {
                compactions: counter("frazil_compactions_total"),
                compacted_files: counter("frazil_compacted_files_total"),
                compacted_bytes: counter("frazil_compacted_bytes_total"),
                written_bytes: counter("frazil_compaction_written_bytes_total"),
                expired_snapshots: counter("frazil_expired_snapshots_total"),
                deleted_files: counter("frazil_deleted_files_total"),
                failures: counter("frazil_maintenance_failures_total"),
                data_files: unknown("frazil_data_files"),
                small_files: unknown("frazil_small_files"),
                delete_files: unknown("frazil_delete_files"),
                snapshots: unknown("frazil_snapshots"),
            },
            index: IndexMetrics {
                applied: counter("frazil_index_applied_total"),
                failures: counter("frazil_index_failures_total"),
                entries: unknown("frazil_index_entries"),
                lag_records: unknown("frazil_index_lag_records"),
            },
            reasons: Mutex::default(),
            partitions: Mutex::default(),
            table,
            registry,
        }
    }

    /// Counts dead letters. `reason` is one of a closed set, never text of a record.
    pub fn count_dead_letters(&self, reason: &'static str, records: u64) {
        self.count_reason("frazil_dead_letters_total", reason, records);
    }

    /// Counts records left out. `reason` is one of a closed set, never text of a record.
    pub fn count_skipped(&self, reason: &'static str, records: u64) {
        self.count_reason("frazil_skipped_records_total", reason, records);
    }

    fn count_reason(&self, name: &'static str, reason: &'static str, records: u64) {
        lock(&self.reasons)
            .entry((name, reason))
            .or_insert_with(|| series(&self.registry, name, &[&self.table, reason]))
            .inc_by(records);
    }

    /// Shows where a partition stands; its series begin with the first call.
    pub fn set_partition(&self, source: &TopicPartition, lag: PartitionLag) {
        let mut partitions = lock(&self.partitions);
        let gauges = partitions.entry(source.clone()).or_insert_with(|| {
            let partition = source.partition.to_string();
            let gauge = |name| series::<IntGauge>(&self.registry, name, &[&self.table, &source.topic, &partition]);
            PartitionGauges {
                records: gauge("frazil_lag_records"),
                stable_records: gauge("frazil_lag_stable_records"),
                retention_left_records: gauge("frazil_retention_left_records"),
            }
        });
        gauges.records.set(lag.records);
        gauges.stable_records.set(lag.stable_records);
        gauges.retention_left_records.set(lag.retention_left_records);
    }

    /// Drops the series of a partition that this process no longer reads.
    pub fn remove_partition(&self, source: &TopicPartition) {
        let mut partitions = lock(&self.partitions);
        let Some(gauges) = partitions.remove(source) else { return };
        for gauge in [gauges.records, gauges.stable_records, gauges.retention_left_records] {
            self.registry.unregister(Box::new(gauge)).expect("registered when it was made");
        }
    }
}

/// A metric that can be made from its options.
trait Series: Collector + Clone + 'static {
    fn make(opts: Opts) -> prometheus::Result<Self>;
}

macro_rules! series {
    ($($kind:ident),*) => {
        $(impl Series for $kind {
            fn make(opts: Opts) -> prometheus::Result<Self> {
                $kind::with_opts(opts)
            }
        })*
    };
}

series!(IntCounter, Counter, IntGauge, Gauge);

impl Series for Histogram {
    fn make(opts: Opts) -> prometheus::Result<Self> {
        Histogram::with_opts(HistogramOpts::from(opts).buckets(COMMIT_SECONDS.to_vec()))
    }
}

/// Makes one series of a catalogued metric. Labels are constants of the series: the crate's vectors tell children
/// apart by a hash over label values without a separator, so that partition 1 of `t1` and 11 of `t` would be one.
fn series<M: Series>(registry: &Registry, name: &str, labels: &[&str]) -> M {
    let doc = CATALOGUE.iter().find(|doc| doc.name == name).expect("in the catalogue: a test renders every name");
    debug_assert_eq!(doc.labels.len(), labels.len(), "labels of {name}");
    let labels: HashMap<_, _> =
        doc.labels.iter().zip(labels).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let metric = M::make(Opts::new(doc.name, doc.help).const_labels(labels)).expect("catalogued names are well formed");
    registry.register(Box::new(metric.clone())).expect("each series is made once");
    metric
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::catalogue::MetricDoc;

    fn touch_everything() -> (Metrics, TableName, Budget) {
        let health = Health::new();
        let metrics = Metrics::new(health.clone());
        let name: TableName = "shop.orders".parse().unwrap();
        health.set_table(&name, TableHealth::Suspended { reason: "type changed".into() });
        let table = metrics.table(&name);
        table.count_dead_letters("truncated", 2);
        table.count_skipped("unknown_schema", 1);
        table.set_partition(
            &TopicPartition::new("orders", 0),
            PartitionLag { records: 5, stable_records: 3, retention_left_records: 100 },
        );
        let budget = Budget::new("ingest", 1000);
        metrics.watch_budget(&budget);
        (metrics, name, budget)
    }

    /// Name, kind and label names of every sample in a rendering; histograms' own suffixes and label are taken off.
    fn rendered(text: &str) -> BTreeSet<(String, String, BTreeSet<String>)> {
        let mut kind = (String::new(), String::new());
        let mut found = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, word) = rest.split_once(' ').unwrap();
                kind = (name.to_owned(), word.to_owned());
            } else if !line.starts_with('#') {
                let (series, _) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                assert!(name.starts_with(&kind.0), "{line} stands below {}", kind.0);
                let labels = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
                let labels = labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect();
                found.insert((kind.0.clone(), kind.1.clone(), labels));
            }
        }
        found
    }

    #[test]
    fn the_catalogue_is_exactly_what_is_rendered() {
        let linux_only = |doc: &&MetricDoc| cfg!(target_os = "linux") || !doc.name.starts_with("process_");
        let documented: BTreeSet<_> = CATALOGUE
            .iter()
            .filter(linux_only)
            .map(|doc| {
                let labels = doc.labels.iter().map(|label| (*label).to_owned()).collect();
                (doc.name.to_owned(), doc.kind.as_str().to_owned(), labels)
            })
            .collect();
        assert_eq!(rendered(&touch_everything().0.render()), documented);
    }

    #[test]
    fn the_page_documents_each_metric_as_the_catalogue_does() {
        let page = include_str!("../../docs/metrics.md").lines().take_while(|line| !line.starts_with("## "));
        let rows: Vec<_> = page.filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<_> = CATALOGUE
            .iter()
            .map(|doc| {
                let labels: Vec<_> = doc.labels.iter().map(|label| format!("`{label}`")).collect();
                let (kind, labels) = (doc.kind.as_str(), labels.join(", "));
                format!("| `{}` | {kind} | {labels} | {} | {} |", doc.name, doc.unit, doc.help)
            })
            .collect();
        assert!(rows == expected, "docs/metrics.md should have these rows:\n{}", expected.join("\n"));
    }

    #[test]
    fn values_are_shown_with_their_labels() {
        let (metrics, name, budget) = touch_everything();
        let table = metrics.table(&name);
        table.rows_committed.inc_by(7);
        table.commit_duration_seconds.observe(0.03);
        table.count_dead_letters("truncated", 1);
        let _permit = budget.take(10);
        let text = metrics.render();
        for line in [
            "frazil_rows_committed_total{table=\"shop.orders\"} 7",
            "frazil_commit_duration_seconds_bucket{table=\"shop.orders\",le=\"0.04\"} 1",
            "frazil_dead_letters_total{reason=\"truncated\",table=\"shop.orders\"} 3",
            "frazil_lag_stable_records{partition=\"0\",table=\"shop.orders\",topic=\"orders\"} 3",
            "frazil_lag_seconds{table=\"shop.orders\"} NaN",
            "frazil_table_suspended{table=\"shop.orders\"} 1",
            "frazil_table_waiting{on=\"kafka\",table=\"shop.orders\"} 0",
            "frazil_budget_used_bytes{budget=\"ingest\"} 10",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn partitions_are_told_apart_and_go_away() {
        let (metrics, name, _budget) = touch_everything();
        let table = metrics.table(&name);
        let (one, eleven) = (TopicPartition::new("t1", 1), TopicPartition::new("t", 11));
        let lag = |records| PartitionLag { records, stable_records: records, retention_left_records: 0 };
        table.set_partition(&one, lag(1));
        table.set_partition(&eleven, lag(2));
        let shown = |topic: &str| metrics.render().matches(&format!("topic=\"{topic}\"")).count();
        assert_eq!((shown("t1"), shown("t")), (3, 3));
        table.remove_partition(&one);
        assert_eq!((shown("t1"), shown("t")), (0, 3));
        table.set_partition(&one, lag(3));
        assert_eq!(shown("t1"), 3);
    }

    #[test]
    fn budgets_of_one_name_are_summed() {
        let metrics = Metrics::new(Health::new());
        let budgets = [Budget::new("raw", 10), Budget::new("raw", 20)];
        budgets.iter().for_each(|budget| metrics.watch_budget(budget));
        assert!(metrics.render().contains("frazil_budget_limit_bytes{budget=\"raw\"} 30\n"), "{}", metrics.render());
    }

    #[test]
    fn a_removed_table_leaves_nothing_and_starts_over() {
        let (metrics, name, _budget) = touch_everything();
        let other: TableName = "shop.payments".parse().unwrap();
        let old = metrics.table(&name);
        metrics.table(&other).rows_committed.inc();
        metrics.inner.health.remove_table(&name);
        metrics.remove_table(&name);
        old.rows_committed.inc();
        old.count_skipped("late", 1);
        let text = metrics.render();
        assert!(!text.contains("shop.orders"), "{text}");
        assert!(text.contains("frazil_rows_committed_total{table=\"shop.payments\"} 1"));
        assert_eq!(metrics.table(&name).rows_committed.get(), 0);
    }
}
