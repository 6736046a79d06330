//! `frazil config`: what the configuration can hold. Needs no configuration file.

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use super::DONE;
use super::view::{View, show};
use crate::config;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil config example > frazil.yaml\n  frazil config schema > frazil.schema.json")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "Example:\n  frazil config schema > frazil.schema.json")]
    Schema,
    /// Print a commented example; it works as it is
    #[command(after_help = "Example:\n  frazil config example > frazil.yaml")]
    Example,
}

/// The schema is JSON for everybody.
#[derive(Serialize)]
#[serde(transparent)]
struct Schema(Value);

impl View for Schema {
    fn text(&self) -> String {
        format!("{:#}\n", self.0)
    }
}

/// `{"example": "…"}`
#[derive(Serialize)]
struct Example {
    /// The YAML text.
    example: &'static str,
}

impl View for Example {
    fn text(&self) -> String {
        self.example.to_owned()
    }
}

pub(super) fn execute(args: &Args, json: bool) -> Result<u8> {
    match args.command {
        Command::Schema => show(&Schema(config::json_schema()), json)?,
        Command::Example => show(&Example { example: config::example() }, json)?,
    }
    Ok(DONE)
}
