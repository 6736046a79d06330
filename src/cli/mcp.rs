//! `frazil mcp`: the MCP server on standard input and output, for clients that start it themselves; and the check of its
//! audit.

use serde::Serialize;

use super::view::{View, number, show};
use super::{ConfigFile, DONE, clock};
use crate::app;
use crate::error::Result;
use crate::mcp;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil mcp -c frazil.yaml\n  frazil mcp -c frazil.yaml --check-audit\n\n\
    It reads what is committed, and topics. The running service has MCP as well, at /mcp of its listener; there \
    queries see what is not committed yet, and search works.")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Follow the chain of hashes in `mcp.audit_file` instead, and say whether a line was changed
    #[arg(long)]
    check_audit: bool,
}

/// An audit whose chain is whole.
#[derive(Debug, Serialize)]
struct Whole {
    /// Lines in it.
    lines: u64,
    /// The hash of the last one: a later check with the same beginning has passed through it.
    last_hash: String,
}

impl View for Whole {
    fn text(&self) -> String {
        format!(
            "{} lines, each continues the one before; the last one's hash is {}\n",
            number(self.lines),
            self.last_hash
        )
    }
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let config = args.config.load()?;
    if args.check_audit {
        let (lines, last_hash) = mcp::verify_audit(&config.mcp.audit_file)?;
        show(&Whole { lines, last_hash }, json)?;
        return Ok(DONE);
    }
    app::mcp_stdio(config, clock()).await?;
    Ok(DONE)
}
