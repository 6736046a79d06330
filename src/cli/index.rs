//! `frazil index`: what an operator does to search indexes.

use serde::Serialize;

use super::view::{View, show};
use super::{ConfigFile, DONE};
use crate::app;
use crate::error::{Error, Result};
use crate::model::ids::TableName;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil index rebuild shop.tickets\n\n\
    An index is derived from its table: dropping it loses nothing.")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Drop a table's index; a running service, or the next one, makes it anew from the table
    #[command(after_help = "Example:\n  frazil index rebuild shop.tickets")]
    Rebuild {
        /// Table
        table: TableName,
    },
}

#[derive(Serialize)]
struct Dropped {
    dropped: TableName,
}

impl View for Dropped {
    fn text(&self) -> String {
        format!("index of {} dropped; a service with the role `index` makes it anew\n", self.dropped)
    }
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let config = args.config.load()?;
    let Command::Rebuild { table } = args.command;
    let is_indexed = |name: &TableName| config.tables.iter().any(|known| known.table == *name && known.index.is_some());
    if !is_indexed(&table) {
        let known = config.tables.iter().filter(|known| known.index.is_some());
        let known: Vec<String> = known.map(|known| known.table.to_string()).collect();
        let text = format!("table `{table}` has no `index` in the configuration; these have: {}", known.join(", "));
        return Err(Error::invalid_request(text));
    }
    app::drop_index(&config, &table).await?;
    show(&Dropped { dropped: table }, json)?;
    Ok(DONE)
}
