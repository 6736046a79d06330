//! `frazil demo`: everything in one process, and what to try next.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::view::{Align, View, columns, number, show};
use super::{DONE, stop_on_signals};
use crate::app::{self, DemoNews, DemoRunOptions, Found};
use crate::demo::commands;
use crate::error::Result;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil demo\n  frazil demo --rate 5000\n  frazil demo --once\n\n\
                        A second run in the same folder goes on in the same tables.")]
pub(super) struct Args {
    /// Where catalog and tables go
    #[arg(long, value_name = "DIR", default_value = "frazil-demo")]
    dir: PathBuf,
    /// Records a second, all topics together
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Materialise a fixed amount, check it, print a summary, and end
    #[arg(long)]
    once: bool,
}

/// What a demo came to.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// The demo's folder.
    dir: PathBuf,
    /// Rows per table.
    tables: Vec<TableRows>,
    /// What `--once` checked.
    checked: Option<Checked>,
    /// Commands that read the tables.
    commands: Vec<TryCommand>,
}

#[derive(Debug, Serialize)]
struct TableRows {
    table: String,
    rows: u64,
}

#[derive(Debug, Serialize)]
struct Checked {
    /// Records produced, all of them committed.
    records: u64,
    /// From the first record to the last commit.
    seconds: f64,
    /// Orders that were committed when SQL counted them, and that it saw.
    committed_orders: u64,
    seen_orders: u64,
    /// What was looked for by meaning, and the record that was found.
    query: String,
    found: String,
    snippet: String,
}

#[derive(Debug, Serialize)]
struct TryCommand {
    title: String,
    shell: String,
}

impl View for Summary {
    fn text(&self) -> String {
        let rows: Vec<_> = self.tables.iter().map(|table| [table.table.clone(), number(table.rows)]).collect();
        let mut text = columns([("TABLE", Align::Left), ("ROWS", Align::Right)], &rows);
        if let Some(checked) = &self.checked {
            let Checked { records, seconds, committed_orders, seen_orders, query, found, snippet } = checked;
            let (records, committed, seen) = (number(*records), number(*committed_orders), number(*seen_orders));
            let _ = write!(
                text,
                "\nchecked: {records} records produced, all of them committed, in {seconds:.1} s\n\
                 SQL: {seen} orders seen while {committed} were committed\n\
                 search: \"{query}\" finds {found}: {}\n",
                snippet.lines().next().unwrap_or_default()
            );
        }
        let _ = writeln!(text, "\nThe tables stay in {}. To read them with other engines:", self.dir.display());
        for command in &self.commands {
            let _ = writeln!(text, "\n# {}\n{}", command.title, command.shell);
        }
        text
    }
}

/// Takes note of the news, and tells it while the demo runs.
fn hear(summary: &mut Summary, news: DemoNews) -> String {
    match news {
        DemoNews::Up { bootstrap_servers, registry_url, listen, dir, config } => {
            summary.commands = try_commands(&dir);
            let config = config.display();
            let text = format!(
                "broker    {bootstrap_servers}\nregistry  {registry_url}\nmetrics   http://{listen}/metrics\n\
                 catalog   http://{listen}/iceberg, for DuckDB, PyIceberg, Spark and Trino\ntables    {}\n\n\
                 # SQL sees rows before they are committed; ask twice\n\
                 frazil sql -c {config} 'SELECT count(*) AS orders, max(kafka_timestamp) AS newest FROM shop.orders'\n\n\
                 # Search by word and by meaning, the newest tickets included\n\
                 frazil search -c {config} --recency strong 'appliance caught fire'\n\n\
                 # An agent asks all of this at one address; or paste {{\"mcpServers\": {{\"frazil\": {{\"url\": ...}}}}}} into its settings\n\
                 claude mcp add --transport http frazil http://{listen}/mcp\n\n\
                 # SQL for programs\n\
                 curl -s http://{listen}/api/sql -H 'content-type: application/json' -d '{{\"sql\": \"SELECT 1\"}}'\n\n\
                 Ctrl-C stops it and shows what to try next\n",
                dir.display()
            );
            summary.dir = dir;
            text
        }
        DemoNews::Rows(rows) => {
            let line: Vec<String> = rows.iter().map(|(table, rows)| format!("{table} {}", number(*rows))).collect();
            summary.tables = rows.into_iter().map(|(table, rows)| TableRows { table, rows }).collect();
            format!("rows: {}\n", line.join("  "))
        }
        DemoNews::Checked { records, seconds, counted, found } => {
            let (committed_orders, seen_orders) = counted;
            let Found { query, id, snippet } = found;
            let query = query.to_owned();
            summary.checked =
                Some(Checked { records, seconds, committed_orders, seen_orders, query, found: id, snippet });
            String::new()
        }
    }
}

fn try_commands(dir: &Path) -> Vec<TryCommand> {
    let commands = commands(dir).into_iter();
    commands.map(|command| TryCommand { title: command.title.to_owned(), shell: command.shell }).collect()
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let shutdown = stop_on_signals()?;
    let summary = Arc::new(Mutex::new(Summary::default()));
    let heard = Arc::clone(&summary);
    let say = move |news: DemoNews| {
        let text = hear(&mut heard.lock().unwrap_or_else(PoisonError::into_inner), news);
        // Nothing can be done for a reader that is gone.
        let _ = std::io::stderr().write_all(text.as_bytes());
    };
    let Args { dir, rate, once } = args;
    app::demo(DemoRunOptions { dir, rate, once, say: Arc::new(say) }, shutdown).await?;
    show(&*summary.lock().unwrap_or_else(PoisonError::into_inner), json)?;
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_rows_the_check_and_the_commands() {
        let mut summary = Summary::default();
        let listen = "127.0.0.1:8181".parse().unwrap();
        let (bootstrap_servers, registry_url) = ("127.0.0.1:1".to_owned(), "http://127.0.0.1:2/".to_owned());
        let up = hear(
            &mut summary,
            DemoNews::Up { bootstrap_servers, registry_url, listen, dir: "/d".into(), config: "/d/frazil.yaml".into() },
        );
        assert!(up.contains("metrics   http://127.0.0.1:8181/metrics\n"), "{up}");
        let rows = hear(&mut summary, DemoNews::Rows(vec![("shop.orders".to_owned(), 12_345)]));
        assert_eq!(rows, "rows: shop.orders 12,345\n");
        let found = Found { query: "fire", id: "tickets/0/7".to_owned(), snippet: "Smoke\nfrom it".to_owned() };
        let checked = DemoNews::Checked { records: 50_000, seconds: 1.25, counted: (9_000, 12_000), found };
        assert_eq!(hear(&mut summary, checked), "");
        summary.commands = vec![TryCommand { title: "count".to_owned(), shell: "run it".to_owned() }];
        assert_eq!(
            summary.text(),
            "TABLE          ROWS\nshop.orders  12,345\n\nchecked: 50,000 records produced, all of them committed, in 1.2 s\n\
             SQL: 12,000 orders seen while 9,000 were committed\nsearch: \"fire\" finds tickets/0/7: Smoke\n\n\
             The tables stay in /d. To read them with other engines:\n\n# count\nrun it\n"
        );
    }
}
