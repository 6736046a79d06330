//! `frazil sql`: one statement, or a shell. It asks the running service, which sees what is not committed yet; without
//! one it reads what the catalog has.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;

use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::ipc::reader::StreamReader;
use arrow::json::writer::{LineDelimited, WriterBuilder as JsonBuilder};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt as _;
use serde_json::json;

use super::service::Service;
use super::{ConfigFile, DONE, FAILED, clock};
use crate::app;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::http::sql::{AS_OF, AsOfView, json_rows};
use crate::model::version::{Consistency, SnapshotAt};
use crate::ports::{Sql as _, SqlLimits, SqlRequest};
use crate::query::SqlEngine;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  frazil sql 'SELECT count(*) FROM shop.orders'\n  \
    frazil sql --format csv 'SELECT * FROM shop.orders LIMIT 10' > orders.csv\n  \
    frazil sql 'SELECT * FROM shop.orders FOR TIMESTAMP AS OF '\\''2026-01-01T00:00:00Z'\\'\n  \
    frazil sql 'SELECT * FROM shop.\"orders$snapshots\"'\n  \
    frazil sql                      # a shell; statements end with `;`\n\n\
    A listener that asks for a token gets the one in FRAZIL_TOKEN.")]
pub(super) struct Args {
    /// The statement; none: read statements from standard input
    statement: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// How rows are shown; by default a table
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What is seen; by default `fresh` where a service runs, else `committed`
    #[arg(long, value_enum)]
    consistency: Option<See>,
    /// A snapshot's id, or a time as in 2026-01-01T00:00:00Z
    #[arg(long, value_name = "SNAPSHOT|TIME", value_parser = at)]
    as_of: Option<SnapshotAt>,
    /// Rows shown at most
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
    Ndjson,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum See {
    Fresh,
    Committed,
}

fn at(text: &str) -> Result<SnapshotAt, String> {
    if let Ok(id) = text.parse() {
        return Ok(SnapshotAt::Id(id));
    }
    let time = chrono::DateTime::parse_from_rfc3339(text);
    time.map(|time| SnapshotAt::Timestamp(time.timestamp_millis()))
        .map_err(|_| "it is neither a snapshot's id nor a time as in 2026-01-01T00:00:00Z".to_owned())
}

/// What answers.
enum Answers {
    Service(Service),
    Here(Arc<SqlEngine>, SqlLimits),
}

/// An answer as it is shown.
struct Shown {
    rows: Vec<RecordBatch>,
    as_of: BTreeMap<String, AsOfView>,
}

pub(super) async fn execute(args: Args, json: bool) -> Result<u8> {
    let config = args.config.load()?;
    let format = args.format.unwrap_or(if json { Format::Json } else { Format::Table });
    let answers = answers(&config, args.consistency).await?;
    if let Some(statement) = &args.statement {
        let shown = answers.ask(statement, &args).await?;
        return show(&shown, format).map(|()| DONE);
    }
    shell(&answers, &args, format).await
}

/// The service where one listens, else the catalog itself.
async fn answers(config: &Config, see: Option<See>) -> Result<Answers> {
    let service = Service::of(config);
    if service.answers().await {
        return Ok(Answers::Service(service));
    }
    if see == Some(See::Fresh) {
        return Err(service.is_away("or ask for `--consistency committed`"));
    }
    let _ = writeln!(std::io::stderr(), "no service answers at {}: reading what is committed", service.url());
    let (engine, limits) = app::offline_sql(config, clock())?;
    Ok(Answers::Here(Arc::new(engine), limits))
}

impl Answers {
    async fn ask(&self, statement: &str, args: &Args) -> Result<Shown> {
        let statement = statement.trim().trim_end_matches(';');
        match self {
            Self::Service(service) => ask_service(service, statement, args).await,
            Self::Here(engine, limits) => {
                let limits = SqlLimits { rows: args.max_rows, ..*limits };
                let consistency = args.as_of.map_or(Consistency::Committed, Consistency::At);
                let request = SqlRequest { sql: statement.to_owned(), consistency, limits };
                let answer = engine.query(request).await?;
                let as_of = answer.as_of.iter().map(|(table, as_of)| (table.to_string(), as_of.into())).collect();
                let (schema, mut rows): (_, Vec<RecordBatch>) = (answer.schema, answer.rows.try_collect().await?);
                if rows.is_empty() {
                    rows.push(RecordBatch::new_empty(schema));
                }
                Ok(Shown { rows, as_of })
            }
        }
    }
}

async fn ask_service(service: &Service, statement: &str, args: &Args) -> Result<Shown> {
    let mut body = json!({"sql": statement, "max_rows": args.max_rows});
    match args.as_of {
        Some(SnapshotAt::Id(id)) => body["as_of"] = json!({"snapshot_id": id}),
        Some(SnapshotAt::Timestamp(ms)) => body["as_of"] = json!({"timestamp_ms": ms}),
        Some(SnapshotAt::Current) | None => {}
    }
    if args.consistency == Some(See::Committed) {
        body["consistency"] = "committed".into();
    }
    let response = service.post("/api/sql", &body, "application/vnd.apache.arrow.stream").await?;
    let header = response.headers().get(AS_OF).and_then(|value| value.to_str().ok()).unwrap_or("{}");
    let as_of = serde_json::from_str(header).unwrap_or_default();
    let bytes = response.bytes().await.map_err(|e| Error::unavailable("read the answer").with_source(e))?;
    let broken = |e| Error::unavailable("read the answer").with_source(e);
    let reader = StreamReader::try_new(bytes.as_ref(), None).map_err(broken)?;
    let schema = reader.schema();
    let mut rows = reader.collect::<Result<Vec<_>, _>>().map_err(broken)?;
    if rows.is_empty() {
        rows.push(RecordBatch::new_empty(schema));
    }
    Ok(Shown { rows, as_of })
}

/// Statements from standard input, each up to its `;`; a wrong one does not end it on a terminal.
async fn shell(answers: &Answers, args: &Args, format: Format) -> Result<u8> {
    let terminal = std::io::stdin().is_terminal();
    let (mut statement, mut code) = (String::new(), DONE);
    loop {
        if terminal {
            let _ = write!(std::io::stderr(), "{}", if statement.is_empty() { "frazil> " } else { "     -> " });
        }
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let ended = read.map_err(|e| Error::new(ErrorKind::InvalidRequest, "read standard input").with_source(e))? == 0;
        statement.push_str(&line);
        let whole = statement.trim_end().ends_with(';') || ended;
        if whole && !statement.trim().trim_end_matches(';').is_empty() {
            let result = answers.ask(&statement, args).await.and_then(|shown| show(&shown, format));
            match result {
                Err(error) if terminal => {
                    let _ = writeln!(std::io::stderr(), "error: {}", error.chain());
                    code = FAILED;
                }
                result => result?,
            }
        }
        if whole {
            statement.clear();
        }
        if ended {
            return Ok(code);
        }
    }
}

/// Rows to standard output; how far they reach to standard error, on a terminal.
fn show(shown: &Shown, format: Format) -> Result<()> {
    let broken =
        |e| Error::new(ErrorKind::InvalidRequest, "the rows cannot be shown so; choose another format").with_source(e);
    let mut out = Vec::new();
    match format {
        Format::Table => {
            let table = arrow::util::pretty::pretty_format_batches(&shown.rows).map_err(broken)?;
            out = format!("{table}\n").into_bytes();
        }
        Format::Json => {
            out = json_rows(&shown.rows).map_err(broken)?;
            out.push(b'\n');
        }
        Format::Ndjson => {
            let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
            shown.rows.iter().try_for_each(|rows| writer.write(rows)).map_err(broken)?;
            out = writer.into_inner();
        }
        Format::Csv => {
            let mut writer = CsvBuilder::new().with_header(true).build(out);
            shown.rows.iter().try_for_each(|rows| writer.write(rows)).map_err(broken)?;
            out = writer.into_inner();
        }
    }
    // Nothing can be done for a reader that is gone.
    let _ = std::io::stdout().write_all(&out);
    if format == Format::Table && std::io::stdout().is_terminal() {
        for (table, as_of) in &shown.as_of {
            let snapshot = as_of.snapshot_id.map_or_else(|| "no snapshot".to_owned(), |id| format!("snapshot {id}"));
            let _ = writeln!(std::io::stderr(), "{table}: {snapshot}, offsets {}", json!(as_of.offsets));
        }
    }
    Ok(())
}
