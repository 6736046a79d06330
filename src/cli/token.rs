//! `frazil token`: random bearer tokens for the HTTP listener, of which the configuration keeps only the hash.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::view::{View, show};
use super::{DONE, clock};
use crate::config::fields::TokenHash;
use crate::error::Result;
use crate::runtime::clock::Clock;

/// A fresh id has at least 32 random bits beside its time and counter, so that many have 256.
const FRESH_IDS: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  frazil token new --name prometheus --scopes metrics")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a new random token, once, and the lines for `server.auth.tokens` that let it in
    #[command(after_help = "Example:\n  frazil token new --name prometheus --scopes metrics")]
    New {
        /// Whose it is, for logs
        #[arg(long, default_value = "default")]
        name: String,
        /// What it may do
        #[arg(long, value_delimiter = ',', default_value = "read", value_parser = ["read", "read:search", "read:sql", "read:kafka", "write", "admin", "metrics"])]
        scopes: Vec<String>,
    },
}

/// A new token.
#[derive(Debug, Serialize)]
struct NewToken {
    /// Its text: the secret itself.
    token: String,
    /// Whose it is.
    name: String,
    /// Its hash, as `server.auth.tokens` holds it.
    hash: String,
    /// What it may do.
    scopes: Vec<String>,
}

impl View for NewToken {
    fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.token);
        let name = serde_json::Value::from(self.name.as_str());
        let _ = writeln!(text, "# The token is shown this once. The configuration keeps its hash:");
        let _ = writeln!(text, "server:\n  auth:\n    tokens:");
        let _ =
            writeln!(text, "      - {{name: {name}, hash: \"{}\", scopes: [{}]}}", self.hash, self.scopes.join(", "));
        text
    }
}

pub(super) fn execute(args: &Args, json: bool) -> Result<u8> {
    let Command::New { name, scopes } = &args.command;
    show(&new(name, scopes, &clock()), json)?;
    Ok(DONE)
}

fn new(name: &str, scopes: &[String], clock: &Clock) -> NewToken {
    let mut hasher = Sha256::new();
    for _ in 0..FRESH_IDS {
        hasher.update(clock.fresh_id());
    }
    let token = URL_SAFE_NO_PAD.encode(hasher.finalize());
    let hash = TokenHash::of(&token).to_string();
    NewToken { token, name: name.to_owned(), hash, scopes: scopes.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn the_printed_lines_are_configuration_that_lets_the_token_in() {
        let clock = clock();
        let made = new("it's \"me\"", &["read".to_owned(), "metrics".to_owned()], &clock);
        assert_eq!(URL_SAFE_NO_PAD.decode(&made.token).unwrap().len(), 32);
        assert_ne!(made.token, new("x", &[], &clock).token);
        let (secret, lines) = made.text().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert_eq!(secret, made.token);
        let yaml =
            format!("kafka: {{bootstrap_servers: 'b:1'}}\ncatalog: {{uri: 'sqlite:///c.db', warehouse: /w}}\n{lines}");
        let config = Config::from_yaml(&yaml, &|_| None).unwrap();
        assert_eq!(config.server.tokens[0].name, "it's \"me\"");
        assert_eq!(config.server.tokens[0].hash, TokenHash::of(&secret));
    }
}
