//! Placeholder.
use super::ConfigFile;
use crate::error::Result;
#[derive(Debug, clap::Args)]
pub(super) struct Args { #[command(flatten)] config: ConfigFile }
pub(super) async fn execute(_args: Args, _json: bool) -> Result<u8> { Ok(0) }
