//! `frazil dead-letters`: records that could not be rows: which there are, what they say, and another try.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::Arc;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::view::{Align, View, age, columns, facts, number, or_dash, show, size, span, time};
use super::{ConfigFile, DONE, FAILED, clock};
use crate::app;
use crate::app::letters::{Choice, Letter, Looked, Replay, Replayer, Shown, Still, Tally};
use crate::config::Config;
use crate::config::units::Span;
use crate::error::{Error, Result, policy};
use crate::lake::IcebergLake;
use crate::model::decoded::Reason;
use crate::model::ids::TableName;
use crate::model::record::RecordId;
use crate::ports::Lake as _;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

const BAR: &str = "{bar:40} {percent:>3} %  {pos} of {len} letters  {per_sec}  {eta} left";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  frazil dead-letters list\n  frazil dead-letters show shop.orders orders/0/17 --value\n  \
                        frazil dead-letters replay shop.orders --reason unknown_schema_id --dry-run\n\n\
                        docs/dead-letters.md says of each reason what it means and whether a replay can help."
)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Letters by reason and topic: how many, the first and the newest
    #[command(after_help = "Examples:\n  frazil dead-letters list\n  frazil dead-letters list shop.orders --since 1h")]
    List {
        /// Table whose letters they are, as namespace.name; all of the configuration where none is named
        table: Option<TableName>,
        #[command(flatten)]
        which: Which,
        /// Lines at most, for each table
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Letters as they are, each whole
    #[command(after_help = "Examples:\n  frazil dead-letters show shop.orders orders/0/17 orders/2/4\n  \
                            frazil dead-letters show shop.orders --reason truncated --limit 3 --value\n\n\
                            Keys, values and headers may be secret: they are shown with --value only.")]
    Show {
        /// Table whose letters they are, as namespace.name
        table: TableName,
        /// Records, as topic/partition/offset
        records: Vec<RecordId>,
        #[command(flatten)]
        which: Which,
        /// Letters at most
        #[arg(long, value_name = "N", default_value_t = 10)]
        limit: usize,
        /// Show key, value and headers, too
        #[arg(long)]
        value: bool,
    },
    /// Decode the letters' records again, with today's schemas and settings; those that are rows now go into the table
    #[command(after_help = "Examples:\n  frazil dead-letters replay shop.orders --dry-run\n  \
                            frazil dead-letters replay shop.orders --reason unknown_schema_id --topic orders\n  \
                            frazil dead-letters replay shop.orders --offset orders/0/17 --offset orders/2/4\n\n\
                            Each record becomes a row once, also beside a running service, after a kill, and where it is\n\
                            done twice. What is no row still stays a letter.")]
    Replay {
        /// Table, as namespace.name
        table: TableName,
        /// A record, as topic/partition/offset; may be given several times
        #[arg(long = "offset", value_name = "TOPIC/PARTITION/OFFSET")]
        records: Vec<RecordId>,
        #[command(flatten)]
        which: Which,
        /// Say what would become of the letters, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which letters.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only letters of this reason; may be given several times
    #[arg(long = "reason", value_name = "REASON", value_parser = reason())]
    reasons: Vec<String>,
    /// Only letters of this topic
    #[arg(long)]
    topic: Option<String>,
    /// Only letters since then: a time, as in 2026-01-31T00:00:00Z, or how long ago, as in 2h
    #[arg(long, value_name = "TIME")]
    since: Option<Since>,
}

fn reason() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::as_str))
}

/// A time, or how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    At(i64),
    Ago(Span),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(time.timestamp_millis()));
        }
        let problem = || format!("`{text}` is neither a time, as in 2026-01-31T00:00:00Z, nor how long ago, as in 2h");
        text.parse().map(Self::Ago).map_err(|_| problem())
    }
}

impl Which {
    fn choice(self, records: Vec<RecordId>, clock: &Clock) -> Choice {
        let since_ms = self.since.map(|since| match since {
            Since::At(ms) => ms,
            Since::Ago(Span(ago)) => clock.now_ms().saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        });
        let records: BTreeSet<RecordId> = records.into_iter().collect();
        Choice { reasons: self.reasons.into_iter().collect(), topic: self.topic, records, since_ms }
    }
}

/// The letters of tables.
#[derive(Serialize)]
struct Lists {
    tables: Vec<List>,
    #[serde(skip)]
    now_ms: i64,
}

#[derive(Serialize)]
struct List {
    table: String,
    /// Letters, those of reasons that were left out included.
    letters: u64,
    reasons: Vec<Tally>,
}

impl View for Lists {
    fn text(&self) -> String {
        let ago = |ms: Option<i64>| or_dash(ms, |ms| format!("{} ago", span(age(self.now_ms, ms))));
        let row = |(list, tally): (&List, &Tally)| {
            [
                list.table.clone(),
                tally.reason.clone(),
                tally.topic.clone(),
                number(tally.letters),
                tally.first.clone(),
                ago(tally.first_ms),
                tally.newest.clone(),
                ago(tally.newest_ms),
            ]
        };
        let headings = [
            ("TABLE", Align::Left),
            ("REASON", Align::Left),
            ("TOPIC", Align::Left),
            ("LETTERS", Align::Right),
            ("FIRST", Align::Left),
            ("", Align::Right),
            ("NEWEST", Align::Left),
            ("", Align::Right),
        ];
        let rows: Vec<_> =
            self.tables.iter().flat_map(|list| list.reasons.iter().map(move |t| (list, t))).map(row).collect();
        let mut text = if rows.is_empty() { String::new() } else { columns(headings, &rows) };
        for list in &self.tables {
            let shown: u64 = list.reasons.iter().map(|tally| tally.letters).sum();
            if list.letters == 0 {
                let _ = writeln!(text, "{}: no dead letters", list.table);
            } else if shown < list.letters {
                let _ = writeln!(text, "{}: {} more; raise --limit", list.table, number(list.letters - shown));
            }
        }
        text
    }
}

/// Letters of one table.
#[derive(Serialize)]
struct Letters {
    table: String,
    letters: Vec<Letter>,
}

impl View for Letters {
    fn text(&self) -> String {
        let texts: Vec<String> = self.letters.iter().map(letter_text).collect();
        if texts.is_empty() { format!("{}: no such dead letter\n", self.table) } else { texts.join("\n") }
    }
}

fn letter_text(letter: &Letter) -> String {
    let bytes = |bytes: Option<usize>| bytes.map_or_else(|| "none".to_owned(), |bytes| size(bytes as u64));
    let timestamp = or_dash(letter.timestamp_ms, |ms| format!("{} ({})", time(ms), letter.timestamp_type));
    let mut lines = vec![
        ("record", letter.record.clone()),
        ("reason", letter.reason.clone()),
        ("message", letter.message.clone()),
        ("rejected", or_dash(letter.rejected_ms, time)),
        ("timestamp", timestamp),
    ];
    lines.extend(letter.details.iter().map(|(name, value)| (name.as_str(), value.clone())));
    match &letter.content {
        Some(content) => {
            lines.push(("key", shown_text(content.key.as_ref())));
            lines.push(("value", shown_text(content.value.as_ref())));
        }
        None => lines.extend([("key", bytes(letter.key_bytes)), ("value", bytes(letter.value_bytes))]),
    }
    let header = |header: &app::letters::Header| {
        let shown = header.value.as_ref().map_or_else(|| bytes(header.bytes), |value| shown_text(Some(value)));
        // As JSON, a name holds nothing that a terminal takes for a command.
        ("header", format!("{}: {shown}", serde_json::Value::from(header.name.as_str())))
    };
    lines.extend(letter.headers.iter().map(header));
    facts(&lines)
}

fn shown_text(shown: Option<&Shown>) -> String {
    let Some(Shown { encoding, content, note }) = shown else { return "none".to_owned() };
    let note = note.as_ref().map_or_else(String::new, |note| format!("; {note}"));
    format!("{content} ({encoding}{note})")
}

/// What became of a replay.
#[derive(Serialize)]
struct Replayed {
    table: String,
    dry_run: bool,
    #[serde(flatten)]
    replay: Replay,
    seconds: f64,
    /// Why it ended before its end; what it says until then is done.
    error: Option<String>,
}

impl View for Replayed {
    fn text(&self) -> String {
        let Replay { rows, present, left_out, still, ahead, commits } = &self.replay;
        let mut text = String::new();
        let (would, are) = if self.dry_run { ("would be", "would be") } else { ("became", "are") };
        let _ = writeln!(
            text,
            "{}: {} letters {would} rows, {} {are} letters still; {} commits in {}",
            self.table,
            number(*rows),
            number(self.replay.still()),
            number(*commits),
            span(std::time::Duration::from_secs_f64(self.seconds)),
        );
        if *present > 0 {
            let _ = writeln!(text, "{} had a row already, and are no letters any more", number(*present));
        }
        if *left_out > 0 {
            let _ = writeln!(text, "{} are left out by `where`, and are no letters any more", number(*left_out));
        }
        if *ahead > 0 {
            let _ = writeln!(text, "{} were left alone: the table will read their records again", number(*ahead));
        }
        if !still.is_empty() {
            let row = |still: &Still| {
                [still.reason.to_owned(), number(still.letters), still.record.clone(), still.message.clone()]
            };
            let headings = [
                ("REASON TODAY", Align::Left),
                ("LETTERS", Align::Right),
                ("FOR EXAMPLE", Align::Left),
                ("MESSAGE", Align::Left),
            ];
            text = text + "\n" + &columns(headings, &still.iter().map(row).collect::<Vec<_>>());
        }
        if self.dry_run {
            text.push_str("\nthis is what would be done; nothing was\n");
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "\nit ended before its end; what is said above is done: {error}");
        }
        text
    }
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let (config, clock) = (args.config.load()?, clock());
    let compute = Compute::pool(app::connect::threads(&config))?;
    let (catalog, stores) = app::open_catalog(&config, &clock)?;
    let lake = Arc::new(app::connect::lake(&config, Arc::clone(&catalog), stores, &compute, &clock));
    match args.command {
        Command::List { table, which, limit } => {
            if let Some(table) = &table
                && lake.load(table).await?.is_none()
            {
                let text = format!("there is no table `{table}`; `frazil tables list` shows all");
                return Err(Error::invalid_request(text));
            }
            let tables = match table {
                Some(table) => vec![table],
                None => app::tables(&config, &*catalog).await?.into_iter().map(|found| found.table).collect(),
            };
            let choice = which.choice(Vec::new(), &clock);
            show(&list(&lake, tables, &choice, limit, clock.now_ms()).await?, json)?;
        }
        Command::Show { table, records, which, limit, value } => {
            let registry = if value { Some(app::registry(&config, &clock)?) } else { None };
            let (limit, choice) = (limit.max(records.len()), which.choice(records, &clock));
            let letters = app::letters::find(&lake, &table, &choice, limit, registry).await?;
            let found = !letters.is_empty() || choice.records.is_empty();
            show(&Letters { table: table.to_string(), letters }, json)?;
            return Ok(if found { DONE } else { FAILED });
        }
        Command::Replay { table, records, which, dry_run } => {
            let choice = which.choice(records, &clock);
            let config = Config { tables: app::tables(&config, &*catalog).await?, ..config };
            let replayer = Replayer::new(&config, &table, lake, clock.clone(), compute)?;
            return replay(&replayer, &choice, dry_run, json, &clock).await;
        }
    }
    Ok(DONE)
}

async fn list(lake: &IcebergLake, tables: Vec<TableName>, choice: &Choice, limit: usize, now_ms: i64) -> Result<Lists> {
    let mut lists = Vec::new();
    for table in tables {
        let mut reasons = app::letters::tally(lake, &table, choice).await?.unwrap_or_default();
        let letters = reasons.iter().map(|tally| tally.letters).sum();
        reasons.truncate(limit);
        lists.push(List { table: table.to_string(), letters, reasons });
    }
    Ok(Lists { tables: lists, now_ms })
}

async fn replay(replayer: &Replayer, choice: &Choice, dry_run: bool, json: bool, clock: &Clock) -> Result<u8> {
    let visible = !json && std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    // The template is a constant; a test reads it.
    bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let looked = |looked: Looked| {
        bar.set_length(looked.total);
        bar.set_position(looked.letters);
    };
    let mut done = Replay::default();
    let result = replayer.run(choice, dry_run, &mut done, &looked).await;
    bar.finish_and_clear();
    let error = match result {
        Ok(()) => None,
        // Nothing was done, so there is nothing to tell but the error.
        Err(error) if done.commits == 0 => return Err(error),
        Err(error) => Some(format!("{} ({})", error.chain(), policy(error.kind()).1)),
    };
    let code = if error.is_none() { DONE } else { FAILED };
    let (table, seconds) = (replayer.spec.settings.table.to_string(), clock.elapsed().as_secs_f64());
    show(&Replayed { table, dry_run, replay: done, seconds, error }, json)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_template_can_be_read() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn a_replay_says_what_became_of_each_letter() {
        let still = Still {
            reason: "truncated",
            letters: 1_200,
            record: "orders/0/17".to_owned(),
            message: "ends early".to_owned(),
        };
        let replay = Replay { rows: 5, present: 1, left_out: 4, still: vec![still], ahead: 2, commits: 3 };
        let mut replayed =
            Replayed { table: "shop.orders".to_owned(), dry_run: false, replay, seconds: 1.5, error: None };
        let text = replayed.text();
        assert!(text.starts_with("shop.orders: 5 letters became rows, 1,200 are letters still; 3 commits in 1 s\n"));
        for part in ["1 had a row already", "2 were left alone", "truncated       1,200  orders/0/17  ends early"] {
            assert!(text.contains(part), "{text}");
        }
        replayed.dry_run = true;
        assert!(replayed.text().contains("5 letters would be rows") && replayed.text().contains("nothing was"));
        let json = serde_json::to_value(&replayed).unwrap();
        assert_eq!((&json["rows"], &json["still"][0]["letters"]), (&5.into(), &1_200.into()));
    }

    #[test]
    fn a_time_is_one_or_how_long_ago() {
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Since::At(1_000)));
        assert_eq!("2h".parse(), Ok(Since::Ago(Span(std::time::Duration::from_hours(2)))));
        assert!("yesterday".parse::<Since>().unwrap_err().contains("`yesterday`"));
    }

    #[test]
    fn a_letter_shows_sizes_unless_its_contents_were_asked_for() {
        let letter = Letter {
            record: "t/0/1".to_owned(),
            reason: "truncated".to_owned(),
            message: "ends early".to_owned(),
            rejected_ms: Some(0),
            timestamp_ms: None,
            timestamp_type: "NO_TIMESTAMP_TYPE",
            details: [("incarnation".to_owned(), "0".to_owned())].into(),
            headers: vec![app::letters::Header { name: "h\u{1b}[1m".to_owned(), bytes: Some(3), value: None }],
            key_bytes: None,
            value_bytes: Some(2048),
            content: None,
        };
        let text = letter_text(&letter);
        assert!(text.contains("value        2.0 KiB") && text.contains("key          none"), "{text}");
        assert!(text.contains(r#""h\u001b[1m": 3 B"#), "{text}");
    }
}
