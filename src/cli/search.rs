//! `frazil search`: words or a sentence, asked of the running service.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use serde_json::Value;

use super::service::Service;
use super::view::{View, show};
use super::{ConfigFile, DONE};
use crate::error::{Error, Result};
use crate::http::search::Ask;
use crate::ports::{Recency, SearchMode};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil search 'parcel never arrived'\n  \
    frazil search --table shop.tickets --mode keyword 'invoice 4711'\n  \
    frazil search --filter \"severity = 'high'\" --since 2026-01-31T00:00:00Z 'login fails'\n  \
    frazil search tickets/0/42      # a record by its id\n\n\
    A listener that asks for a token gets the one in FRAZIL_TOKEN.")]
pub(super) struct Args {
    /// Words, a sentence, or a record's id (topic/partition/offset)
    query: String,
    #[command(flatten)]
    config: ConfigFile,
    /// The table to look in; may be given several times; by default all that are indexed
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// How to look
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    mode: Mode,
    /// Only records for which this SQL predicate over the index's filter columns holds
    #[arg(long, value_name = "PREDICATE")]
    filter: Option<String>,
    /// Only records from this time on, as in 2026-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only records before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// How much newer records are preferred
    #[arg(long, value_enum, default_value_t = Newer::None)]
    recency: Newer,
    /// Hits at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Auto,
    Keyword,
    Vector,
    Hybrid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Newer {
    None,
    Mild,
    Strong,
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let config = args.config.load()?;
    let service = Service::of(&config);
    if !service.answers().await {
        return Err(service.is_away("which keeps the indexes"));
    }
    let ask = Ask {
        query: args.query,
        tables: args.tables.into_iter().collect(),
        mode: match args.mode {
            Mode::Auto => SearchMode::Auto,
            Mode::Keyword => SearchMode::Keyword,
            Mode::Vector => SearchMode::Vector,
            Mode::Hybrid => SearchMode::Hybrid,
        },
        filter: args.filter,
        time_from: args.since,
        time_to: args.until,
        recency: match args.recency {
            Newer::None => Recency::None,
            Newer::Mild => Recency::Mild,
            Newer::Strong => Recency::Strong,
        },
        limit: Some(args.limit),
        ..Ask::default()
    };
    let response = service.post("/api/search", &ask, "application/json").await?;
    let answer: Value = response.json().await.map_err(|e| Error::unavailable("read the answer").with_source(e))?;
    show(&Found { answer, colour: std::io::stdout().is_terminal() }, json)?;
    Ok(DONE)
}

/// What was found.
#[derive(serde::Serialize)]
struct Found {
    #[serde(flatten)]
    answer: Value,
    #[serde(skip)]
    colour: bool,
}

impl View for Found {
    fn text(&self) -> String {
        let mut text = String::new();
        let hits = self.answer["hits"].as_array().map_or(&[][..], Vec::as_slice);
        for hit in hits {
            let word = |name: &str| hit[name].as_str().unwrap_or("-");
            let _ = writeln!(text, "{}  {}  {}", word("id"), word("table"), word("event_time"));
            let _ = writeln!(text, "  {}\n", self.snippet(hit).replace('\n', "\n  "));
        }
        if hits.is_empty() {
            text.push_str("nothing found\n");
        }
        for arm in self.answer["arms"].as_array().into_iter().flatten().filter(|arm| arm["status"] != "done") {
            let _ = writeln!(text, "arm {} in {} was {}: hits may be missing", arm["arm"], arm["table"], arm["status"]);
        }
        text
    }
}

impl Found {
    /// The snippet, with what was looked for in bold on a terminal.
    fn snippet(&self, hit: &Value) -> String {
        // A record may hold what a terminal takes for a command.
        let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
        let snippet: Vec<char> = hit["snippet"].as_str().unwrap_or_default().chars().map(plain).collect();
        if !self.colour {
            return snippet.into_iter().collect();
        }
        let matches: Vec<(usize, usize)> = serde_json::from_value(hit["matches"].clone()).unwrap_or_default();
        let mut text = String::new();
        for (at, c) in snippet.iter().enumerate() {
            if matches.iter().any(|(begin, _)| *begin == at) {
                text.push_str("\x1b[1m");
            }
            text.push(*c);
            if matches.iter().any(|(_, end)| *end == at + 1) {
                text.push_str("\x1b[0m");
            }
        }
        text
    }
}
