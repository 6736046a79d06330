//! `frazil run`: the service, until it is told to stop or has caught up.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::view::{View, number, show, span};
use super::{ConfigFile, DONE, clock, stop_on_signals};
use crate::app::{self, Progress, Roles, RunOptions};
use crate::config::Config;
use crate::error::{Error, Result};

/// `40 %` and so on; no colours.
const BAR: &str = "{bar:40} {percent:>3} %  {pos} of {len} records  {per_sec}  {eta} left";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil run -c frazil.yaml\n  frazil run -c frazil.yaml --until-caught-up\n\n\
                        SIGHUP takes changed tables from the configuration; SIGTERM commits what is begun and ends.")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// What this process does
    #[arg(long, value_delimiter = ',', default_value = "ingest,maintain,index,serve")]
    roles: Vec<Role>,
    /// Stop with exit code 0 once everything that was in the topics at the start is committed
    #[arg(long)]
    until_caught_up: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Read topics and commit tables
    Ingest,
    /// Compact, expire, delete orphans
    Maintain,
    /// Keep search indexes
    Index,
    /// Show in fresh answers what other replicas have read and not committed yet
    Serve,
}

impl Args {
    /// # Errors
    /// `InvalidRequest` for roles that cannot catch up.
    pub(super) fn check(&self) -> Result<()> {
        if self.until_caught_up && !self.roles.contains(&Role::Ingest) {
            return Err(Error::invalid_request("`--until-caught-up` needs the role `ingest`"));
        }
        Ok(())
    }

    pub(super) fn shows_progress(&self, json: bool) -> bool {
        self.until_caught_up && !json && std::io::stderr().is_terminal()
    }
}

/// The result of `--until-caught-up`.
#[derive(Debug, Serialize)]
struct Batch {
    /// False where it was stopped before.
    caught_up: bool,
    /// Offsets between the ledgers and the ends of the topics when it began; 0 where it was stopped before that.
    offsets: u64,
    /// How long it took.
    seconds: f64,
}

impl View for Batch {
    fn text(&self) -> String {
        let took = span(Duration::from_secs_f64(self.seconds));
        if self.caught_up {
            format!("caught up: {} offsets in {took}\n", number(self.offsets))
        } else {
            format!("stopped after {took}, before it had caught up\n")
        }
    }
}

pub(super) async fn execute(args: Args, config: Config, json: bool) -> Result<u8> {
    let shutdown = stop_on_signals()?;
    let clock = clock();
    let (seen, bar) = (Arc::new(Mutex::new(None)), bar(args.shows_progress(json)));
    let progress = {
        let (seen, bar) = (Arc::clone(&seen), bar.clone());
        move |progress: Progress| {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
            bar.set_length(progress.total);
            bar.set_position(progress.total.saturating_sub(progress.left));
        }
    };
    let has = |role| args.roles.contains(&role);
    let roles = Roles {
        ingest: has(Role::Ingest),
        maintain: has(Role::Maintain),
        index: has(Role::Index),
        serve: has(Role::Serve),
    };
    let options = RunOptions {
        roles,
        until_caught_up: args.until_caught_up,
        config_path: Some(args.config.path),
        progress: Some(Arc::new(progress)),
    };
    let result = app::run(config, options, shutdown).await;
    bar.finish_and_clear();
    result?;
    if args.until_caught_up {
        let seen = *seen.lock().unwrap_or_else(PoisonError::into_inner);
        let caught_up = seen.is_some_and(|progress: Progress| progress.left == 0);
        let offsets = seen.map_or(0, |progress| progress.total);
        show(&Batch { caught_up, offsets, seconds: clock.elapsed().as_secs_f64() }, json)?;
    }
    Ok(DONE)
}

fn bar(visible: bool) -> ProgressBar {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    // The template is a constant; a test reads it.
    bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_template_can_be_read() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn a_batch_says_how_it_ended() {
        let done = Batch { caught_up: true, offsets: 1_234_567, seconds: 83.4 };
        assert_eq!(done.text(), "caught up: 1,234,567 offsets in 1 min 23 s\n");
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"caught_up":true,"offsets":1234567,"seconds":83.4}"#);
        assert_eq!(Batch { caught_up: false, ..done }.text(), "stopped after 1 min 23 s, before it had caught up\n");
    }
}
