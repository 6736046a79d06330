//! `frazil tables`: what the catalog holds, and what changes it: its layout, and what stops a table. Needs the
//! catalog and the warehouse only.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use super::progress::{self, Health, LedgerEntry};
use super::view::{Align, View, age, columns, facts, number, or_dash, show, size, span, time};
use super::{ConfigFile, DONE, clock};
use crate::app;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::lake::catalog::{Catalog, LoadedTable};
use crate::lake::inspect::{self, Figures, FileInfo, Layout};
use crate::lake::maintain;
use crate::lake::progress::recovery;
use crate::lake::storage::Stores;
use crate::lake::{IcebergLake, ResumeFrom, Resumed};
use crate::model::ids::TableName;
use crate::ports::{Lake as _, Progress, Recovery, SnapshotInfo};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil tables list\n  frazil tables describe shop.orders -c frazil.yaml\n  \
                        frazil tables files shop.orders --json | jq '.files[].path'")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// All tables of the catalog
    #[command(after_help = "Example:\n  frazil tables list -c frazil.yaml")]
    List,
    /// Columns, layout, properties and ledger of a table
    #[command(after_help = "Example:\n  frazil tables describe shop.orders")]
    Describe {
        /// Table, as namespace.name
        table: TableName,
    },
    /// The retained snapshots of a table, the newest first
    #[command(after_help = "Example:\n  frazil tables snapshots shop.orders")]
    Snapshots {
        /// Table, as namespace.name
        table: TableName,
    },
    /// The data files of a table's current snapshot
    #[command(after_help = "Example:\n  frazil tables files shop.orders")]
    Files {
        /// Table, as namespace.name
        table: TableName,
    },
    /// Change a table's partitioning, sort order or topics to what the configuration says now
    #[command(
        after_help = "Examples:\n  frazil tables alter shop.orders --dry-run\n  frazil tables alter shop.orders\n\n\
                            Files that are there stay as they are. A running service takes the change by SIGHUP."
    )]
    Alter {
        /// Table, as namespace.name
        table: TableName,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Lift a table's suspension, or choose where a rolled-back table goes on
    #[command(
        after_help = "Examples:\n  frazil tables resume shop.orders\n  frazil tables resume shop.orders --from ledger\n\n\
                            A running service goes on by itself afterwards."
    )]
    Resume {
        /// Table, as namespace.name
        table: TableName,
        /// Where a rolled-back table goes on; not needed where it is only suspended
        #[arg(long)]
        from: Option<From>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    /// Behind the newest ledger: what `main` does not show stays out
    Ledger,
    /// At the ledger of `main`'s newest snapshot: what `main` does not show is read again
    Snapshot,
}

/// All tables.
#[derive(Serialize)]
struct List {
    tables: Vec<ListEntry>,
    #[serde(skip)]
    now_ms: i64,
}

#[derive(Serialize)]
struct ListEntry {
    table: String,
    #[serde(flatten)]
    health: Health,
    #[serde(flatten)]
    figures: Figures,
}

impl View for List {
    fn text(&self) -> String {
        let row = |entry: &ListEntry| {
            let figures = &entry.figures;
            [
                entry.table.clone(),
                entry.health.state.to_owned(),
                or_dash(figures.rows, number),
                or_dash(figures.data_files, number),
                or_dash(figures.size_bytes, size),
                or_dash(figures.last_commit_ms, |ms| format!("{} ago", span(age(self.now_ms, ms)))),
            ]
        };
        let headings = [
            ("TABLE", Align::Left),
            ("STATE", Align::Left),
            ("ROWS", Align::Right),
            ("FILES", Align::Right),
            ("SIZE", Align::Right),
            ("LAST COMMIT", Align::Right),
        ];
        columns(headings, &self.tables.iter().map(row).collect::<Vec<_>>())
    }
}

/// One table.
#[derive(Serialize)]
struct Description {
    table: String,
    #[serde(flatten)]
    health: Health,
    #[serde(flatten)]
    layout: Layout,
    #[serde(flatten)]
    figures: Figures,
    maintenance: maintain::Health,
    ledger: Vec<LedgerEntry>,
    gaps: Vec<crate::ports::Gap>,
}

impl View for Description {
    fn text(&self) -> String {
        let (layout, figures) = (&self.layout, &self.figures);
        let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
        let mut text = facts(&[
            ("table", self.table.clone()),
            (
                "state",
                self.health.state.to_owned()
                    + &self.health.reason.as_ref().map_or_else(String::new, |r| format!(": {r}")),
            ),
            ("uuid", layout.uuid.clone()),
            ("format version", layout.format_version.to_string()),
            ("location", layout.location.clone()),
            ("metadata", layout.metadata_location.clone()),
            ("partitioned by", list(&layout.partition_by)),
            ("sorted by", list(&layout.sort_by)),
            ("rows", or_dash(figures.rows, number)),
            ("data files", or_dash(figures.data_files, number)),
            ("size", or_dash(figures.size_bytes, size)),
            ("snapshots", figures.snapshots.to_string()),
            ("small files", small_files(&self.maintenance)),
            ("delete files", number(self.maintenance.delete_files)),
            ("manifests", number(self.maintenance.manifests)),
            ("oldest snapshot", oldest(&self.maintenance)),
            ("write amplification", or_dash(self.maintenance.write_amplification, |times| format!("{times:.2}"))),
            ("last commit", or_dash(figures.last_commit_ms, time)),
            ("newest record", or_dash(figures.newest_record_ms, time)),
        ]);
        for held in &self.maintenance.held {
            let _ = writeln!(text, "not compacted: {held}");
        }
        let row = |column: &inspect::Column| {
            let required = if column.required { "required" } else { "" };
            [column.id.to_string(), column.name.clone(), column.kind.clone(), required.to_owned()]
        };
        let rows: Vec<_> = layout.columns.iter().map(row).collect();
        let headings = [("ID", Align::Right), ("COLUMN", Align::Left), ("TYPE", Align::Left), ("", Align::Left)];
        text = text + "\n" + &columns(headings, &rows);
        if !layout.properties.is_empty() {
            let properties: Vec<_> =
                layout.properties.iter().map(|(key, value)| [key.clone(), value.clone()]).collect();
            text = text + "\n" + &columns([("PROPERTY", Align::Left), ("VALUE", Align::Left)], &properties);
        }
        if !self.ledger.is_empty() {
            text = text + "\n" + &ledger_text(&self.ledger);
        }
        for gap in &self.gaps {
            let last = gap.to.0 - 1;
            let _ = writeln!(text, "given up: {}[{}] offsets {} to {last}", gap.topic, gap.partition, gap.from);
        }
        text
    }
}

fn small_files(health: &maintain::Health) -> String {
    format!("{}, {} to be compacted", number(health.small_files), number(health.compactable_files))
}

fn oldest(health: &maintain::Health) -> String {
    format!("{} ago", span(std::time::Duration::from_secs(health.oldest_snapshot_seconds)))
}

fn ledger_text(entries: &[LedgerEntry]) -> String {
    let row = |entry: &LedgerEntry| {
        [
            entry.topic.clone(),
            entry.partition.to_string(),
            number(entry.next_offset),
            or_dash(entry.leader_epoch, |epoch| epoch.to_string()),
            entry.incarnation.to_string(),
        ]
    };
    let headings = [
        ("TOPIC", Align::Left),
        ("PARTITION", Align::Right),
        ("NEXT OFFSET", Align::Right),
        ("EPOCH", Align::Right),
        ("INCARNATION", Align::Right),
    ];
    columns(headings, &entries.iter().map(row).collect::<Vec<_>>())
}

/// Snapshots of a table.
#[derive(Serialize)]
struct Snapshots {
    table: String,
    snapshots: Vec<SnapshotInfo>,
}

impl View for Snapshots {
    fn text(&self) -> String {
        let row = |snapshot: &SnapshotInfo| {
            let mut marks = snapshot.refs.clone();
            if !snapshot.on_main {
                marks.push("(not in main's history)".to_owned());
            }
            [
                snapshot.id.to_string(),
                time(snapshot.time_ms),
                snapshot.operation.clone(),
                number(snapshot.added_rows),
                number(snapshot.added_files),
                or_dash(snapshot.rows, number),
                if snapshot.has_ledger { "yes" } else { "no" }.to_owned(),
                marks.join(" "),
            ]
        };
        let headings = [
            ("SNAPSHOT", Align::Right),
            ("TIME", Align::Left),
            ("OPERATION", Align::Left),
            ("+ROWS", Align::Right),
            ("+FILES", Align::Right),
            ("ROWS", Align::Right),
            ("LEDGER", Align::Left),
            ("REFS", Align::Left),
        ];
        columns(headings, &self.snapshots.iter().map(row).collect::<Vec<_>>())
    }
}

/// Data files of a table.
#[derive(Serialize)]
struct Files {
    table: String,
    files: Vec<FileInfo>,
}

impl View for Files {
    fn text(&self) -> String {
        let row =
            |file: &FileInfo| [number(file.rows), size(file.size_bytes), file.partition.clone(), file.path.clone()];
        let headings =
            [("ROWS", Align::Right), ("SIZE", Align::Right), ("PARTITION", Align::Left), ("PATH", Align::Left)];
        columns(headings, &self.files.iter().map(row).collect::<Vec<_>>())
    }
}

/// What resuming came to.
#[derive(Serialize)]
struct ResumedView {
    table: String,
    /// Why it was stopped.
    reason: String,
    /// The newest ledger ever committed; `null` where it is lost.
    ledger: Option<Vec<LedgerEntry>>,
    /// The ledger of `main`'s newest snapshot that has one; `null` where it is lost.
    snapshot: Option<Vec<LedgerEntry>>,
    /// Where it goes on.
    chosen: Vec<LedgerEntry>,
}

impl ResumedView {
    fn new(table: &TableName, resumed: &Resumed) -> Self {
        let side = |side: &Option<Progress>| side.as_ref().map(progress::entries);
        Self {
            table: table.to_string(),
            reason: resumed.reason.clone(),
            ledger: side(&resumed.ledger),
            snapshot: side(&resumed.snapshot),
            chosen: progress::entries(&resumed.chosen),
        }
    }
}

impl View for ResumedView {
    fn text(&self) -> String {
        let side = |entries: &Option<Vec<LedgerEntry>>| match entries {
            None => "not known any more\n".to_owned(),
            Some(entries) if entries.is_empty() => "nothing was taken: topics are read from `start`\n".to_owned(),
            Some(entries) => ledger_text(entries),
        };
        let mut text = format!("{} was stopped: {}\n", self.table, self.reason);
        if self.ledger != self.snapshot {
            let (ledger, snapshot) = (side(&self.ledger), side(&self.snapshot));
            let _ = write!(text, "\nnewest ledger:\n{ledger}\nledger of main:\n{snapshot}");
        }
        text + "\nit goes on from:\n" + &side(&Some(self.chosen.clone()))
    }
}

/// What altering came to.
#[derive(Serialize)]
struct Altered {
    table: String,
    /// What differed between table and configuration.
    changes: Vec<String>,
    /// False where nothing differed, or nothing was to be changed.
    applied: bool,
}

impl View for Altered {
    fn text(&self) -> String {
        if self.changes.is_empty() {
            return format!("{} is as the configuration says\n", self.table);
        }
        let done = if self.applied { "was changed" } else { "would be changed" };
        format!("{} {done}:\n  {}\n", self.table, self.changes.join("\n  "))
    }
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let (config, clock) = (args.config.load()?, clock());
    let (catalog, stores) = app::open_catalog(&config, &clock)?;
    match args.command {
        Command::List => show(&list(catalog.as_ref(), &clock).await?, json)?,
        Command::Describe { table } => {
            let loaded = load(catalog.as_ref(), &table).await?;
            let lake = Arc::new(app::connect::lake(&config, catalog, stores, &Compute::inline(), &clock));
            let health = app::maintainer(&config, lake)?.health(&table).await?;
            show(&describe(&table, &loaded, health)?, json)?;
        }
        Command::Snapshots { table } => {
            let snapshots = inspect::snapshots(&load(catalog.as_ref(), &table).await?.metadata)?;
            show(&Snapshots { table: table.to_string(), snapshots }, json)?;
        }
        Command::Files { table } => show(&files(catalog.as_ref(), &stores, &table).await?, json)?,
        Command::Alter { table, dry_run } => {
            let lake = app::connect::lake(&config, catalog, stores, &Compute::inline(), &clock);
            show(&alter(&config, &lake, &table, dry_run).await?, json)?;
        }
        Command::Resume { table, from } => {
            let from = from.map(|from| match from {
                From::Ledger => ResumeFrom::Ledger,
                From::Snapshot => ResumeFrom::Snapshot,
            });
            let lake = app::connect::lake(&config, Arc::clone(&catalog), stores, &Compute::inline(), &clock);
            show(&ResumedView::new(&table, &lake.resume(&table, from).await?), json)?;
        }
    }
    Ok(DONE)
}

async fn alter(config: &Config, lake: &IcebergLake, table: &TableName, dry_run: bool) -> Result<Altered> {
    let configured = config.tables.iter().find(|known| known.table == *table);
    let configured = configured.ok_or_else(|| {
        Error::invalid_request(format!("the configuration names no table `{table}`; add it under `tables`"))
    })?;
    let state = lake.load(table).await?;
    let state = state.ok_or_else(|| Error::invalid_request(format!("there is no table `{table}` yet; run it")))?;
    let Some((changes, alteration)) = app::alteration(config, configured, &state)? else {
        return Ok(Altered { table: table.to_string(), changes: Vec::new(), applied: false });
    };
    if !dry_run {
        lake.alter(table, &alteration).await?;
    }
    Ok(Altered { table: table.to_string(), changes, applied: !dry_run })
}

async fn load(catalog: &dyn Catalog, table: &TableName) -> Result<LoadedTable> {
    let loaded = catalog.load(table).await?;
    loaded.ok_or_else(|| Error::invalid_request(format!("there is no table `{table}`; `frazil tables list` shows all")))
}

async fn list(catalog: &dyn Catalog, clock: &Clock) -> Result<List> {
    let mut tables = Vec::new();
    for name in catalog.list().await? {
        // One that vanished in between is not there.
        let Some(loaded) = catalog.load(&name).await? else { continue };
        let table = name.to_string();
        let health = progress::health(&recovery(&table, &loaded.metadata)?);
        tables.push(ListEntry { table, health, figures: inspect::figures(&loaded.metadata) });
    }
    Ok(List { tables, now_ms: clock.now_ms() })
}

fn describe(table: &TableName, loaded: &LoadedTable, maintenance: maintain::Health) -> Result<Description> {
    let table = table.to_string();
    let recovery = recovery(&table, &loaded.metadata)?;
    let (ledger, gaps) = match &recovery {
        Recovery::At(progress) => (progress::entries(progress), progress.gaps.clone()),
        _ => (Vec::new(), Vec::new()),
    };
    let health = progress::health(&recovery);
    Ok(Description {
        table,
        health,
        layout: inspect::layout(loaded)?,
        figures: inspect::figures(&loaded.metadata),
        maintenance,
        ledger,
        gaps,
    })
}

async fn files(catalog: &dyn Catalog, stores: &Stores, table: &TableName) -> Result<Files> {
    let loaded = load(catalog, table).await?;
    Ok(Files { table: table.to_string(), files: inspect::files(stores, &loaded.metadata).await? })
}
