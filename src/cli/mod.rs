//! What a user types: arguments → configuration → log → runtime → command → exit code. One file per command; each
//! result is a [`view::View`]. Results go to standard output, everything else to standard error. Nothing is decided
//! here about tables or topics.

mod check;
mod config;
mod dead_letters;
mod demo;
mod index;
mod maintain;
mod mcp;
mod progress;
mod run;
mod search;
mod service;
mod sql;
mod status;
mod tables;
mod token;
mod topics;
mod view;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, process_env};
use crate::error::{Error, ErrorKind, Result, policy};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{self, TaskKind};
use crate::telemetry::logs::{self, LogFormat, LogOptions};

/// Done.
const DONE: u8 = 0;
/// Failed.
const FAILED: u8 = 1;
/// Wrong usage, as clap has it too.
const USAGE: u8 = 2;

/// After a command's end, for questions that still block a thread; nobody waits for their answers.
const RUNTIME_STOP_LIMIT: Duration = Duration::from_millis(100);

/// What one-shot commands log: what is wrong they say themselves.
const QUIET: &str = "error";

#[derive(Debug, Parser)]
#[command(
    name = "frazil",
    version,
    about = "Kafka topics as Apache Iceberg tables, exactly once",
    after_help = "Examples:\n  frazil demo\n  frazil config example > frazil.yaml\n  frazil check -c frazil.yaml\n  \
                  frazil run -c frazil.yaml\n\nExit codes: 0 done, 1 failed, 2 wrong usage."
)]
struct Args {
    /// Print results as JSON, one document a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Try it with nothing set up: embedded broker and registry, generated records, real tables
    Demo(demo::Args),
    /// Run the service
    Run(run::Args),
    /// Try the configuration, every connection and every permission
    Check(check::Args),
    /// Show how far each table is
    Status(status::Args),
    /// Ask with SQL: what is committed and what has come since
    Sql(sql::Args),
    /// Look for records by word and by meaning
    Search(search::Args),
    /// Rebuild search indexes
    Index(index::Args),
    /// Look at tables, and lift what stops them
    Tables(tables::Args),
    /// Look at records that could not be rows, and try them again
    DeadLetters(dead_letters::Args),
    /// Compact tables, drop old snapshots, delete what nothing refers to
    Maintain(maintain::Args),
    /// Serve MCP on standard input and output, for an AI agent that starts it
    Mcp(mcp::Args),
    /// Show what the configuration can hold
    Config(config::Args),
    /// Make tokens for the HTTP listener
    Token(token::Args),
}

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
struct ConfigFile {
    /// Configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "frazil.yaml", global = true)]
    path: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<Config> {
        Config::load(&self.path, &process_env)
    }
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let code = execute(args).unwrap_or_else(|error| {
        let (_, hint) = policy(error.kind());
        // Nothing can be done for a reader that is gone.
        let _ = writeln!(std::io::stderr(), "error: {}\nhint: {hint}", error.chain());
        if error.kind() == ErrorKind::InvalidRequest { USAGE } else { FAILED }
    });
    ExitCode::from(code)
}

fn execute(args: Args) -> Result<u8> {
    let json = args.json;
    match args.command {
        Command::Demo(args) => {
            start_log(LogFormat::Text, "warn")?;
            in_runtime(demo::execute(args, json))
        }
        Command::Run(args) => {
            args.check()?;
            let config = args.config.load()?;
            config.require_tables()?;
            let format = match config.log.format {
                crate::config::choices::LogFormat::Text => LogFormat::Text,
                crate::config::choices::LogFormat::Json => LogFormat::Json,
            };
            // A progress bar and a line per commit do not go together.
            let level = if args.shows_progress(json) { "warn" } else { &config.log.level };
            start_log(format, level)?;
            in_runtime(run::execute(args, config, json))
        }
        Command::Check(args) => {
            start_log(LogFormat::Text, "off")?;
            in_runtime(check::execute(args, json))
        }
        Command::Status(args) => {
            start_log(LogFormat::Text, QUIET)?;
            in_runtime(status::execute(args, json))
        }
        Command::Sql(args) => {
            start_log(LogFormat::Text, QUIET)?;
            in_runtime(sql::execute(args, json))
        }
        Command::Search(args) => {
            start_log(LogFormat::Text, QUIET)?;
            in_runtime(search::execute(args, json))
        }
        Command::Index(args) => {
            start_log(LogFormat::Text, QUIET)?;
            in_runtime(index::execute(args, json))
        }
        Command::Tables(args) => {
            start_log(LogFormat::Text, QUIET)?;
            in_runtime(tables::execute(args, json))
        }
        Command::DeadLetters(args) => {
            start_log(LogFormat::Text, "warn")?;
            in_runtime(dead_letters::execute(args, json))
        }
        Command::Maintain(args) => {
            start_log(LogFormat::Text, "warn")?;
            in_runtime(maintain::execute(args, json))
        }
        Command::Mcp(args) => {
            start_log(LogFormat::Text, QUIET)?;
            in_runtime(mcp::execute(args, json))
        }
        Command::Config(args) => config::execute(&args, json),
        Command::Token(args) => token::execute(&args, json),
    }
}

fn start_log(format: LogFormat, level: &str) -> Result<()> {
    logs::init(&LogOptions { format, level: level.to_owned(), color: has_color() })
}

/// Colours on a terminal only, and not where `NO_COLOR` says so (<https://no-color.org>).
fn has_color() -> bool {
    std::io::stderr().is_terminal() && process_env("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn in_runtime(command: impl Future<Output = Result<u8>>) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::unavailable("start the runtime's threads").with_source(e))?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(RUNTIME_STOP_LIMIT);
    result
}

/// The wish to stop, made by SIGTERM or Ctrl-C. A second one ends the process at once; that is safe at any moment,
/// since whatever was not committed is read again.
fn stop_on_signals() -> Result<Shutdown> {
    let failed = |e: std::io::Error| Error::unavailable("listen for signals").with_source(e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let shutdown = Shutdown::new();
    let asked = shutdown.clone();
    task::spawn(TaskKind::Background, "signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; a second signal ends the process at once");
        asked.request();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(i32::from(FAILED));
    });
    Ok(shutdown)
}

/// The clock of a command.
fn clock() -> Clock {
    Clock::system()
}

#[cfg(test)]
mod tests;
