//! `frazil status`: how far each table is, from the catalog and the brokers alone; no service needs to run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::progress::{self, Health};
use super::topics::Topics;
use super::view::{Align, View, age, columns, number, or_dash, show, span, time};
use super::{ConfigFile, DONE, FAILED, clock};
use crate::app;
use crate::config::{Config, TableConfig};
use crate::error::{ErrorKind, Result};
use crate::lake::catalog::Catalog;
use crate::lake::inspect::{self, Figures};
use crate::lake::progress::recovery;
use crate::model::ids::TopicPartition;
use crate::ports::{Progress, Recovery, Watermarks};
use crate::runtime::clock::Clock;

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Moves to the top left and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil status -c frazil.yaml\n  frazil status --watch\n  \
                        frazil status --json | jq '.tables[] | {table, lag_stable_records}'")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Look again every two seconds
    #[arg(long)]
    watch: bool,
}

/// All configured tables.
#[derive(Debug, Serialize)]
struct Status {
    /// When it was looked, milliseconds since the epoch.
    now_ms: i64,
    tables: Vec<TableStatus>,
    /// Why lags are not known, where they are not.
    kafka_error: Option<String>,
}

/// One table.
#[derive(Debug, Serialize)]
struct TableStatus {
    table: String,
    topics: Vec<String>,
    /// As in `tables list`; `missing` where the table is not made yet.
    #[serde(flatten)]
    health: Health,
    #[serde(flatten)]
    figures: Figures,
    /// Rows of the dead-letter table; 0 where there is none.
    dead_letters: Option<u64>,
    #[serde(flatten)]
    lag: Distance,
    partitions: Vec<PartitionStatus>,
}

/// How far a table is behind; `None` where it is not known.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Distance {
    /// Offsets up to the last stable one: what can be read now.
    lag_stable_records: Option<i64>,
    /// Offsets up to the last one, open transactions included.
    lag_high_records: Option<i64>,
    /// Age of the newest committed record while there is more to read, else 0.
    lag_seconds: Option<f64>,
    /// Offsets until retention overtakes the ledger, of the partition where it is nearest; negative where it has.
    retention_left_records: Option<i64>,
}

/// One partition.
#[derive(Debug, PartialEq, Serialize)]
struct PartitionStatus {
    topic: String,
    partition: i32,
    /// The ledger's position.
    next_offset: i64,
    /// The oldest offset retained.
    low: i64,
    /// Behind the last stable record.
    stable: i64,
    /// Behind the last record.
    high: i64,
}

impl View for Status {
    fn text(&self) -> String {
        let row = |table: &TableStatus| {
            let (lag, figures) = (&table.lag, &table.figures);
            [
                table.table.clone(),
                table.health.state.to_owned(),
                or_dash(lag.lag_stable_records, number),
                or_dash(lag.lag_high_records, number),
                or_dash(lag.lag_seconds, |seconds| span(Duration::from_secs_f64(seconds))),
                or_dash(figures.rows, number),
                or_dash(table.dead_letters, number),
                or_dash(figures.data_files, number),
                figures.snapshots.to_string(),
                or_dash(figures.last_commit_ms, |ms| format!("{} ago", span(age(self.now_ms, ms)))),
                or_dash(lag.retention_left_records, number),
            ]
        };
        let headings = [
            ("TABLE", Align::Left),
            ("STATE", Align::Left),
            ("LAG", Align::Right),
            ("TO END", Align::Right),
            ("BEHIND", Align::Right),
            ("ROWS", Align::Right),
            ("DEAD", Align::Right),
            ("FILES", Align::Right),
            ("SNAPSHOTS", Align::Right),
            ("LAST COMMIT", Align::Right),
            ("RETENTION LEFT", Align::Right),
        ];
        let mut text = columns(headings, &self.tables.iter().map(row).collect::<Vec<_>>());
        for table in &self.tables {
            if let Some(reason) = &table.health.reason {
                let since = table.health.since_ms.map_or_else(String::new, |ms| format!(" since {}", time(ms)));
                let _ = writeln!(text, "{} is {}{since}: {reason}", table.table, table.health.state);
            }
            if let (Some(stable), Some(high)) = (table.lag.lag_stable_records, table.lag.lag_high_records)
                && high > stable
            {
                let _ = writeln!(text, "{}: {} offsets are of open transactions", table.table, number(high - stable));
            }
        }
        if let Some(error) = &self.kafka_error {
            let _ = writeln!(text, "lag is not known: {error}");
        }
        text
    }
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let (config, clock) = (args.config.load()?, clock());
    config.require_tables()?;
    let (catalog, _) = app::open_catalog(&config, &clock)?;
    let topics = Topics::open(&config, &clock)?;
    if !args.watch {
        let status = look(&config, catalog.as_ref(), &topics, &clock).await?;
        show(&status, json)?;
        return Ok(if status.kafka_error.is_none() { DONE } else { FAILED });
    }
    let clears = !json && std::io::stdout().is_terminal();
    loop {
        match look(&config, catalog.as_ref(), &topics, &clock).await {
            Ok(status) => {
                if clears {
                    // A terminal that is gone shows in the next write.
                    let _ = std::io::stdout().write_all(CLEAR.as_bytes());
                }
                show(&status, json)?;
            }
            // What is away may come back while it is watched.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied) => {
                let _ = writeln!(std::io::stderr(), "error: {}", error.chain());
            }
            Err(error) => return Err(error),
        }
        clock.sleep(WATCH_INTERVAL).await;
    }
}

async fn look(config: &Config, catalog: &dyn Catalog, topics: &Topics, clock: &Clock) -> Result<Status> {
    let mut kafka_error = topics.ping().await.err().map(|error| error.chain());
    let known = match topics.all().await {
        Ok(known) => known,
        Err(error) => {
            kafka_error.get_or_insert(error.chain());
            BTreeSet::new()
        }
    };
    let mut tables = Vec::new();
    for table in &app::with_routed(config.with_topics(&known)?.tables, catalog).await? {
        let mut ranges = BTreeMap::new();
        for topic in &table.topics {
            // One answer that fails is enough: each takes its time.
            if kafka_error.is_some() {
                break;
            }
            match topics.now(topic).await {
                Ok(now) => ranges.extend(now.into_iter().flat_map(|now| now.ranges)),
                Err(error) => kafka_error = Some(error.chain()),
            }
        }
        tables.push(table_status(table, catalog, &ranges, clock.now_ms()).await?);
    }
    Ok(Status { now_ms: clock.now_ms(), tables, kafka_error })
}

async fn table_status(
    config: &TableConfig,
    catalog: &dyn Catalog,
    ranges: &BTreeMap<TopicPartition, Watermarks>,
    now_ms: i64,
) -> Result<TableStatus> {
    let (table, topics) = (config.table.to_string(), config.topics.clone());
    let Some(loaded) = catalog.load(&config.table).await? else {
        let health = Health { state: "missing", reason: None, since_ms: None };
        let (figures, lag) = (Figures::default(), Distance::default());
        return Ok(TableStatus { table, topics, health, figures, dead_letters: None, lag, partitions: Vec::new() });
    };
    let recovery = recovery(&table, &loaded.metadata)?;
    let figures = inspect::figures(&loaded.metadata);
    let dead_letters = match catalog.load(&config.table.dead_letters()).await? {
        Some(loaded) => inspect::figures(&loaded.metadata).rows,
        None => Some(0),
    };
    let partitions = match &recovery {
        Recovery::At(progress) => partitions(progress, ranges),
        Recovery::Fresh | Recovery::Halted(_) => Vec::new(),
    };
    let lag = lag(&partitions, figures.newest_record_ms, now_ms);
    Ok(TableStatus { table, topics, health: progress::health(&recovery), figures, dead_letters, lag, partitions })
}

/// The partitions of topics that the ledger knows. One that came after the ledger will be read from its start.
fn partitions(progress: &Progress, ranges: &BTreeMap<TopicPartition, Watermarks>) -> Vec<PartitionStatus> {
    let known = ranges.iter().filter(|(source, _)| progress.ledger.topics.contains_key(source.topic.as_ref()));
    known
        .map(|(source, range)| PartitionStatus {
            topic: source.topic.to_string(),
            partition: source.partition,
            next_offset: progress.ledger.position(source).map_or(range.low, |at| at.next).0,
            low: range.low.0,
            stable: range.stable.0,
            high: range.high.0,
        })
        .collect()
}

fn lag(partitions: &[PartitionStatus], newest_record_ms: Option<i64>, now_ms: i64) -> Distance {
    if partitions.is_empty() {
        return Distance::default();
    }
    let behind = |end: fn(&PartitionStatus) -> i64| -> i64 {
        partitions.iter().map(|partition| (end(partition) - partition.next_offset).max(0)).sum()
    };
    let stable = behind(|partition| partition.stable);
    Distance {
        lag_stable_records: Some(stable),
        lag_high_records: Some(behind(|partition| partition.high)),
        lag_seconds: match (stable, newest_record_ms) {
            (0, _) => Some(0.0),
            (_, newest) => newest.map(|ms| age(now_ms, ms).as_secs_f64()),
        },
        retention_left_records: partitions.iter().map(|partition| partition.next_offset - partition.low).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ledger::{Position, TopicLedger};
    use crate::model::offsets::NextOffset;

    fn progress(positions: &[(i32, i64)]) -> Progress {
        let position = |next| Position { next: NextOffset(next), leader_epoch: None };
        let partitions = positions.iter().map(|(partition, next)| (*partition, position(*next))).collect();
        let mut progress = Progress::default();
        progress.ledger.topics.insert("orders".to_owned(), TopicLedger { partitions, ..TopicLedger::default() });
        progress
    }

    fn ranges(ranges: &[(&str, i32, [i64; 3])]) -> BTreeMap<TopicPartition, Watermarks> {
        let one = |(topic, partition, [low, stable, high]): &(&str, i32, [i64; 3])| {
            let (low, stable, high) = (NextOffset(*low), NextOffset(*stable), NextOffset(*high));
            (TopicPartition::new(*topic, *partition), Watermarks { low, stable, high })
        };
        ranges.iter().map(one).collect()
    }

    #[test]
    fn lag_is_shown_against_both_watermarks_and_retention() {
        let ranges = ranges(&[("orders", 0, [5, 100, 120]), ("orders", 1, [90, 95, 95]), ("other", 0, [0, 9, 9])]);
        let found = partitions(&progress(&[(0, 60)]), &ranges);
        assert_eq!(found.len(), 2, "the other topic is not the ledger's");
        assert_eq!(
            lag(&found, Some(1_000), 31_000),
            Distance {
                lag_stable_records: Some(45),
                lag_high_records: Some(65),
                lag_seconds: Some(30.0),
                retention_left_records: Some(0),
            }
        );
        let caught_up = partitions(&progress(&[(0, 120), (1, 95)]), &ranges);
        let lag_now = lag(&caught_up, Some(1_000), 31_000);
        assert_eq!((lag_now.lag_stable_records, lag_now.lag_seconds), (Some(0), Some(0.0)));
        let overtaken = partitions(&progress(&[(0, 120), (1, 80)]), &ranges);
        assert_eq!(lag(&overtaken, None, 0).retention_left_records, Some(-10));
        assert_eq!(lag(&[], Some(1), 2), Distance::default());
    }

    #[test]
    fn people_see_one_line_a_table_and_what_stops_it() {
        let table = |table: &str, health, lag| TableStatus {
            table: table.to_owned(),
            topics: vec!["orders".to_owned()],
            health,
            figures: Figures {
                snapshots: 7,
                rows: Some(1_234_567),
                data_files: Some(12),
                last_commit_ms: Some(1_700_000_000_000),
                ..Figures::default()
            },
            dead_letters: Some(3),
            lag,
            partitions: Vec::new(),
        };
        let ok = Health { state: "ok", reason: None, since_ms: None };
        let stopped =
            Health { state: "suspended", reason: Some("bad record".to_owned()), since_ms: Some(1_700_000_000_000) };
        let lag = Distance {
            lag_stable_records: Some(1_000),
            lag_high_records: Some(1_005),
            lag_seconds: Some(90.0),
            retention_left_records: Some(50_000),
        };
        let status = Status {
            now_ms: 1_700_000_012_000,
            tables: vec![table("shop.orders", ok, lag), table("shop.x", stopped, Distance::default())],
            kafka_error: Some("kafka brokers: no answer within 5 s".to_owned()),
        };
        let expected = "\
TABLE        STATE        LAG  TO END      BEHIND       ROWS  DEAD  FILES  SNAPSHOTS  LAST COMMIT  RETENTION LEFT
shop.orders  ok         1,000   1,005  1 min 30 s  1,234,567     3     12          7     12 s ago          50,000
shop.x       suspended      -       -           -  1,234,567     3     12          7     12 s ago               -
shop.orders: 5 offsets are of open transactions
shop.x is suspended since 2023-11-14T22:13:20.000Z: bad record
lag is not known: kafka brokers: no answer within 5 s
";
        assert_eq!(status.text(), expected);
        let json = serde_json::to_value(&status).unwrap();
        for (field, value) in [
            ("state", serde_json::json!("ok")),
            ("rows", 1_234_567.into()),
            ("lag_stable_records", 1_000.into()),
            ("lag_seconds", 90.0.into()),
            ("retention_left_records", 50_000.into()),
        ] {
            assert_eq!(json["tables"][0][field], value, "{field}");
        }
    }
}
