//! `frazil maintain`: one round of maintenance by hand, beside a running service or without one.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::view::{Align, View, columns, number, show, size, span};
use super::{ConfigFile, DONE, FAILED, clock};
use crate::app;
use crate::config::units::Span;
use crate::error::{Error, Result, policy};
use crate::lake::maintain::{Action, Maintainer, Report};
use crate::model::ids::TableName;
use crate::runtime::compute::Compute;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil maintain --dry-run\n  frazil maintain shop.orders --compact --expire\n  \
                        frazil maintain shop.orders --orphans --older-than 7d\n\n\
                        Without --compact, --manifests, --expire and --orphans it does all of them.")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Tables, as namespace.name; all of frazil's in the catalog where none is named
    tables: Vec<TableName>,
    #[command(flatten)]
    asked: Asked,
    /// The age of orphans, instead of maintenance.orphan_grace; younger ones may belong to a commit under way
    #[arg(long, value_name = "AGE", requires = "orphans")]
    older_than: Option<Span>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "one flag for each action")]
struct Asked {
    /// Merge small data files
    #[arg(long)]
    compact: bool,
    /// Merge small manifests
    #[arg(long)]
    manifests: bool,
    /// Drop old snapshots and delete the files that only they reach
    #[arg(long)]
    expire: bool,
    /// Delete files below the table's location that nothing refers to
    #[arg(long)]
    orphans: bool,
}

impl Asked {
    fn actions(&self) -> Vec<Action> {
        let asked = |action: &Action| match action {
            Action::Compact => self.compact,
            Action::Manifests => self.manifests,
            Action::Expire => self.expire,
            Action::Orphans => self.orphans,
        };
        let actions: Vec<Action> = Action::ALL.into_iter().filter(asked).collect();
        if actions.is_empty() { Action::ALL.to_vec() } else { actions }
    }
}

/// What became of all tables.
#[derive(Serialize)]
struct Maintained {
    dry_run: bool,
    tables: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    table: String,
    #[serde(flatten)]
    report: Option<Report>,
    /// Why it failed.
    error: Option<String>,
}

impl View for Maintained {
    fn text(&self) -> String {
        let row = |(table, report): (&Outcome, &Report)| {
            [
                table.table.clone(),
                number(report.compacted_files),
                size(report.compacted_bytes),
                number(report.merged_manifests),
                number(report.expired_snapshots),
                number(report.orphan_files),
                size(report.orphan_bytes),
                number(report.deleted_files),
                if self.dry_run { "-".to_owned() } else { span(Duration::from_secs_f64(report.compaction_seconds)) },
            ]
        };
        let headings = [
            ("TABLE", Align::Left),
            ("COMPACTED", Align::Right),
            ("SIZE", Align::Right),
            ("MANIFESTS", Align::Right),
            ("EXPIRED", Align::Right),
            ("ORPHANS", Align::Right),
            ("SIZE", Align::Right),
            ("DELETED", Align::Right),
            ("COMPACTING", Align::Right),
        ];
        let done = self.tables.iter().filter_map(|table| Some((table, table.report.as_ref()?)));
        let mut text = columns(headings, &done.clone().map(row).collect::<Vec<_>>());
        if self.dry_run {
            text.push_str("\nthis is what would be done; nothing was\n");
            for orphan in done.clone().flat_map(|(_, report)| &report.orphans) {
                let _ = writeln!(text, "orphan: {orphan}");
            }
        }
        for (table, report) in done {
            let held = report.health.iter().flat_map(|health| &health.held);
            for note in report.notes.iter().chain(held) {
                let _ = writeln!(text, "{}: {note}", table.table);
            }
        }
        for table in &self.tables {
            if let Some(error) = &table.error {
                let _ = writeln!(text, "{} failed: {error}", table.table);
            }
        }
        text
    }
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let (config, clock) = (args.config.load()?, clock());
    let (catalog, stores) = app::open_catalog(&config, &clock)?;
    let tables = if args.tables.is_empty() { catalog.list().await? } else { args.tables.clone() };
    let lake = Arc::new(app::connect::lake(&config, catalog, stores, &Compute::inline(), &clock));
    let maintainer = app::maintainer(&config, lake)?;
    let mut done = Maintained { dry_run: args.dry_run, tables: Vec::new() };
    for table in tables {
        // A table that is not ours is touched where somebody names it, and only there.
        if args.tables.is_empty() && matches!(maintainer.is_ours(&table).await, Ok(false)) {
            continue;
        }
        let result = one(&maintainer, &table, &args).await;
        let (report, error) = match result {
            Ok(report) => (Some(report), None),
            Err(error) => (None, Some(error_text(&error))),
        };
        done.tables.push(Outcome { table: table.to_string(), report, error });
    }
    show(&done, json)?;
    Ok(if done.tables.iter().all(|table| table.error.is_none()) { DONE } else { FAILED })
}

async fn one(maintainer: &Maintainer, table: &TableName, args: &Args) -> Result<Report> {
    let grace = args.older_than.map(|Span(age)| age);
    maintainer.run(table, &args.asked.actions(), grace, args.dry_run).await
}

fn error_text(error: &Error) -> String {
    let (_, hint) = policy(error.kind());
    format!("{} ({hint})", error.chain())
}
