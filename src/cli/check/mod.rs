//! `frazil check`: tries the configuration, every connection and every permission, a line each with a remedy. Opening
//! the catalog makes its database where it lacks; below the warehouse one small object is made and deleted again. With
//! `--schema`, what a new version of a schema would change (`schema`).

mod formats;
mod rows;
mod schema;
mod services;
mod table;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::view::{View, show};
use super::{ConfigFile, DONE, FAILED, clock};
use crate::config::{Config, process_env};
use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::runtime::clock::Clock;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil check -c frazil.yaml\n  \
                        frazil check --json | jq '.checks[] | select(.outcome == \"failed\")'\n  \
                        frazil check --table shop.orders --schema order-v2.avsc")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Says what a new version of this table's schema would change; nothing else is tried.
    #[arg(long, requires = "schema", value_name = "TABLE")]
    table: Option<TableName>,
    /// The new version: Avro (`.avsc`), Protobuf (`.proto`, its first message) or JSON Schema (`.json`).
    #[arg(long, requires = "table", value_name = "FILE")]
    schema: Option<PathBuf>,
    /// It is the schema of keys, not of values.
    #[arg(long, requires = "schema")]
    key: bool,
}

/// All that was tried.
#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// What: `kafka`, ``topic `orders` `` …
    #[serde(rename = "check")]
    what: String,
    outcome: Outcome,
    /// What was found.
    found: String,
    /// What to do about it, where something is to be done.
    remedy: Option<String>,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    /// It goes on, but perhaps not as meant.
    Warning,
    Failed,
    /// It depends on something that failed.
    Skipped,
}

impl Check {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), outcome: Outcome::Ok, found: found.into(), remedy: None }
    }

    fn warning(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, ..Self::failed(what, found, remedy) }
    }

    fn failed(what: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (what, found, remedy) = (what.into(), found.into(), Some(remedy.into()));
        Self { what, outcome: Outcome::Failed, found, remedy }
    }

    fn skipped(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), outcome: Outcome::Skipped, found: found.into(), remedy: None }
    }

    /// An answer, or the error with its remedy.
    fn of(what: impl Into<String>, answer: Result<String, Error>, remedy: &str) -> Self {
        match answer {
            Ok(found) => Self::ok(what, found),
            Err(error) => Self::failed(what, error.chain(), remedy),
        }
    }
}

impl View for Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for Check { what, outcome, found, remedy } in &self.checks {
            let outcome = match outcome {
                Outcome::Ok => "ok",
                Outcome::Warning => "warning",
                Outcome::Failed => "failed",
                Outcome::Skipped => "skipped",
            };
            // One line each, whatever a driver's message looks like.
            let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = write!(text, "{outcome:<9}{what}: {found}");
            let _ = match remedy {
                Some(remedy) => writeln!(text, "; remedy: {remedy}"),
                None => writeln!(text),
            };
        }
        text
    }
}

impl Report {
    fn exit_code(&self) -> u8 {
        if self.checks.iter().any(|check| check.outcome == Outcome::Failed) { FAILED } else { DONE }
    }
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    if let (Some(table), Some(file)) = (&args.table, &args.schema) {
        let forecast = schema::forecast(&args.config.path, table, file, args.key, &clock()).await?;
        show(&forecast, json)?;
        return Ok(forecast.exit_code());
    }
    let report = report(&args.config.path, &clock()).await;
    show(&report, json)?;
    Ok(report.exit_code())
}

async fn report(path: &Path, clock: &Clock) -> Report {
    let config = Config::load(path, &process_env).and_then(|config| config.require_tables().map(|()| config));
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let remedy = "mend the named setting; `frazil config example` shows all of them";
            return Report { checks: vec![Check::failed("configuration", error.chain(), remedy)] };
        }
    };
    let found = format!("`{}` names {} tables", path.display(), config.tables.len());
    let mut checks = vec![Check::ok("configuration", found)];
    let config = match services::expanded(&config, clock, &mut checks).await {
        Some(expanded) => expanded,
        None => config,
    };
    // All at once, so that services that are away cost their time limit only once.
    let (kafka, registry, lake, warehouse, listener) = tokio::join!(
        services::kafka(&config, clock),
        services::registry(&config, clock),
        services::catalog(&config, clock),
        services::warehouse(&config, clock),
        services::listener(&config, clock),
    );
    let topics = kafka.found;
    let (subjects, states) = (registry.found, lake.found);
    checks.extend(kafka.checks);
    checks.extend(registry.checks);
    checks.extend(lake.checks);
    checks.push(warehouse);
    checks.push(listener);
    for table in &config.tables {
        checks.extend(table::checks(&config, table, &topics, subjects.as_ref(), states.as_ref()));
    }
    Report { checks }
}

#[cfg(test)]
mod tests;
