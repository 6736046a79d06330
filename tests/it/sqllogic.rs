//! The queries of `tests/slt/*.slt` with the answers that stand there, asked of Frazil, over a snapshot with a tail
//! behind it and over a snapshot alone, and of DuckDB, which reads the same tables through the REST catalog. So each
//! run shows that the answers are DuckDB's; `FRAZIL_SLT_UPDATE=1` writes what it says into the files. What is asked
//! about, `tests/verify/slt_rows.py` produces.
//!
//! Both engines answer in Arrow, of whose values the same code makes texts, whoever gave them:
//!
//! | letter | type | text |
//! |---|---|---|
//! | `B` | boolean | `true`, `false` |
//! | `I` | integer of any width, decimal without fraction | `-12` |
//! | `N` | decimal | with all digits of its scale: `-12.50` |
//! | `R` | float, double | the shortest that reads back as the same: `0.1`, `2.0`, `1e16`, `-0.0`, `NaN`, `-inf` |
//! | `T` | text | as it is; empty, `NULL`, or with white space, control characters or any of `"\,:{}[]`: as JSON |
//! | `X` | bytes | `0x00ff` |
//! | `D` | date | `2026-01-31` |
//! | `P` | timestamp without time zone | `2026-01-31T10:00:00`, and `.250` or `.250001` |
//! | `Z` | timestamp with time zone | the same in UTC, and a `Z` |
//! | `C` | record, array, map | `{name:value}`, `[value,value]`, `{key:value}` |
//!
//! A null is `NULL`. Values of a row are separated by one space; types and texts must agree to the last character.

use std::future::ready;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use sqllogictest::{
    ColumnType, DB, DBOutput, MakeConnection, RecordOutput, Runner, default_validator, parse_file,
    strict_column_validator,
};

use crate::kafka::create_topic;
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry};
use crate::verify::Verify;
use crate::wait::{block_on, eventually};

const MINUTE: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "slt";
const TOPIC: &str = "slt";
const ARROW: &str = "application/vnd.apache.arrow.stream";
/// Rows of the table, a quarter of which is not committed at first.
const ROWS: u64 = 3_000;
/// What each engine is asked at least: files that were not found would be good ones.
const QUERIES_MIN: usize = 350;

/// A column's type by its letter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind(char);

impl ColumnType for Kind {
    fn from_char(letter: char) -> Option<Self> {
        "BINRTXDPZC".contains(letter).then_some(Self(letter))
    }

    fn to_char(&self) -> char {
        self.0
    }
}

/// Why an engine has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl From<ArrowError> for Refused {
    fn from(error: ArrowError) -> Self {
        Self(format!("the answer cannot be read: {error}"))
    }
}

type Ask = Box<dyn FnMut(&str) -> Result<Vec<u8>, Refused> + Send>;

/// One of those that are asked.
struct Engine {
    /// As `onlyif` and `skipif` say it.
    name: &'static str,
    /// Answers a query with a stream of Arrow.
    ask: Ask,
}

impl Engine {
    /// The running service at `listen`.
    fn frazil(listen: &str, consistency: &'static str) -> Self {
        let url = format!("http://{listen}/api/sql");
        let ask = move |sql: &str| {
            block_on(async {
                let body = json!({"sql": sql, "consistency": consistency});
                let client = reqwest::Client::new();
                let post = |accept: &'static str| client.post(&url).header("accept", accept).json(&body).send();
                let stream = async { post(ARROW).await?.error_for_status()?.bytes().await };
                match stream.await {
                    Ok(stream) => Ok(stream.to_vec()),
                    // A stream that breaks off cannot say why, a whole answer does.
                    Err(_) => Err(Refused(post("application/json").await.unwrap().text().await.unwrap())),
                }
            })
        };
        Self { name: "frazil", ask: Box::new(ask) }
    }

    /// A DuckDB that has attached the REST catalog of the service at `listen`.
    fn duckdb(listen: &str) -> Self {
        let mut duckdb = DuckDb::start(&format!("http://{listen}/iceberg"));
        Self { name: "duckdb", ask: Box::new(move |sql| duckdb.ask(sql)) }
    }
}

impl DB for Engine {
    type Error = Refused;
    type ColumnType = Kind;

    fn run(&mut self, sql: &str) -> Result<DBOutput<Kind>, Refused> {
        let stream = (self.ask)(sql)?;
        let answer = StreamReader::try_new(stream.as_slice(), None)?;
        let types = answer.schema().fields().iter().map(|field| kind(field.data_type())).collect::<Result<_, _>>()?;
        let mut rows: Vec<Vec<String>> = Vec::new();
        for batch in answer {
            let batch = batch?;
            let row = |row| batch.columns().iter().map(|column| text(column.as_ref(), row)).collect();
            rows.extend((0..batch.num_rows()).map(row));
        }
        Ok(DBOutput::Rows { types, rows })
    }

    fn engine_name(&self) -> &str {
        self.name
    }
}

/// `tests/verify/slt_duckdb.py` at work; it ends when its input does.
struct DuckDb {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl DuckDb {
    fn start(catalog: &str) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut child = Command::new(tests.join("services/python.sh"))
            .arg(tests.join("verify/slt_duckdb.py"))
            .args(["--rest", catalog, "--namespace", NAMESPACE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn ask(&mut self, sql: &str) -> Result<Vec<u8>, Refused> {
        writeln!(self.input, "{}", json!({"sql": sql})).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("DuckDB answers, and tells on standard error why not");
        match answer["error"].as_str() {
            Some(error) => Err(Refused(error.to_owned())),
            None => Ok(BASE64_STANDARD.decode(answer["arrow"].as_str().unwrap()).unwrap()),
        }
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kind(column: &DataType) -> Result<Kind, Refused> {
    Ok(Kind(match column {
        DataType::Boolean => 'B',
        // The integers of 128 bits that DuckDB sums to are such decimals in Arrow.
        DataType::Decimal128(_, 0) => 'I',
        integer if integer.is_integer() => 'I',
        DataType::Decimal128(..) => 'N',
        DataType::Float32 | DataType::Float64 => 'R',
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 'T',
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => 'X',
        DataType::Date32 => 'D',
        DataType::Timestamp(_, None) => 'P',
        DataType::Timestamp(_, Some(_)) => 'Z',
        DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => 'C',
        other => return Err(Refused(format!("{other} has no letter; cast it"))),
    }))
}

/// A value's text, as the head of this file has it.
fn text(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => quoted(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => quoted(array.as_string::<i64>().value(row)),
        DataType::Utf8View => quoted(array.as_string_view().value(row)),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => hex(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => hex(array.as_binary_view().value(row)),
        DataType::Timestamp(_, zone) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            let micros = cast(array.slice(row, 1).as_ref(), &micros).unwrap();
            let time = micros.as_primitive::<TimestampMicrosecondType>().value_as_datetime(0).unwrap();
            format!("{time:?}{}", if zone.is_some() { "Z" } else { "" })
        }
        DataType::Struct(fields) => {
            let parts = fields.iter().zip(array.as_struct().columns());
            let parts = parts.map(|(field, part)| format!("{}:{}", quoted(field.name()), text(part.as_ref(), row)));
            format!("{{{}}}", joined(parts))
        }
        DataType::List(_) => {
            let values = array.as_list::<i32>().value(row);
            format!("[{}]", joined((0..values.len()).map(|at| text(values.as_ref(), at))))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let part = |column: usize, at| text(entries.column(column).as_ref(), at);
            format!("{{{}}}", joined((0..entries.len()).map(|at| format!("{}:{}", part(0, at), part(1, at)))))
        }
        _ => ArrayFormatter::try_new(array, &FormatOptions::default()).unwrap().value(row).to_string(),
    }
}

fn quoted(value: &str) -> String {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || r#""\,:{}[]"#.contains(c));
    let alone = !value.is_empty() && value != "NULL" && value.chars().all(plain);
    if alone { value.to_owned() } else { Value::from(value).to_string() }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn hex(bytes: &[u8]) -> String {
    format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Asks whom `connect` gives, and compares to the last character.
fn runner(mut connect: impl FnMut() -> Engine) -> Runner<Engine, impl MakeConnection<Conn = Engine>> {
    let mut runner = Runner::new(move || ready(Ok::<_, Refused>(connect())));
    runner.with_normalizer(String::clone);
    runner.with_column_validator(strict_column_validator);
    runner
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|file| file.extension().is_some_and(|end| end == "slt")).collect();
    files.sort();
    files
}

/// All answers that are not those of the files, as `who` gives them.
fn differences(who: &str, connect: impl FnMut() -> Engine) -> Vec<String> {
    let mut runner = runner(connect);
    let (mut asked, mut wrong) = (0, Vec::new());
    for record in files().iter().flat_map(|file| parse_file(file).unwrap()) {
        match runner.run(record) {
            Ok(RecordOutput::Query { .. }) => asked += 1,
            Ok(_) => {}
            Err(error) => wrong.push(format!("{who}: {}", error.display(false))),
        }
    }
    asked += wrong.len();
    eprintln!("{who}: {} of {asked} answers differ", wrong.len());
    assert!(asked >= QUERIES_MIN, "{who} was asked only {asked} queries");
    wrong
}

/// Writes what DuckDB answers into the files, beside all that is asked of it.
fn update(listen: &str) {
    let mut runner = runner(|| Engine::duckdb(listen));
    for file in files() {
        let written =
            runner.update_test_file(file, " ", default_validator, String::clone, strict_column_validator::<Kind>);
        block_on(written).unwrap();
    }
}

/// The number of rows that the table has for a reader.
fn count(frazil: &Frazil, consistency: &str) -> Option<u64> {
    let sql = json!({"sql": "SELECT count(*) AS n FROM readings", "consistency": consistency});
    let (_, text) = frazil.post("/api/sql", &sql)?;
    serde_json::from_str::<Value>(&text).unwrap()["rows"][0]["n"].as_u64()
}

#[test]
fn frazil_answers_as_duckdb_does() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("sqllogic"));
    create_topic(kafka, TOPIC, 3, &[]);
    let stations = format!("{TOPIC}-stations");
    create_topic(kafka, &stations, 1, &[]);
    let include = ["topic", "partition", "headers", "offset", "timestamp"];
    let tables = json!([
        {"topic": TOPIC, "table": "readings", "key": {"format": "string"}, "partition_by": ["day(measured_at)"],
         "metadata_columns": {"names": "kafka", "include": include}},
        {"topic": stations, "table": "stations", "key": {"columns": "none"}, "partition_by": ["country"]},
    ]);
    let mut config = lake.config(kafka, registry, "sqllogic", &tables);
    config["defaults"]["namespace"] = NAMESPACE.into();
    let listen = config["server"]["listen"].as_str().unwrap().to_owned();
    let produce = |part: &str| {
        let rows = Verify::new(kafka, registry, &lake, TOPIC, "slt.readings").python("slt_rows.py", &["--part", part]);
        assert!(rows.status.success(), "slt_rows.py: {}", String::from_utf8_lossy(&rows.stderr));
    };
    // Three commits and a tail.
    for part in ["0/4", "1/4", "2/4"] {
        produce(part);
        Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    }
    produce("3/4");
    config["defaults"]["commit_interval"] = "1h".into();
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    eventually("all rows are seen", MINUTE, || (count(&frazil, "fresh")? == ROWS).then_some(()));
    let mut wrong = differences("Frazil over a tail", || Engine::frazil(&listen, "fresh"));
    assert_eq!(count(&frazil, "committed"), Some(ROWS / 4 * 3), "there is no tail");
    // Its end commits the tail.
    assert!(frazil.terminate(MINUTE).success());
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    eventually("all rows are committed", MINUTE, || (count(&frazil, "committed")? == ROWS).then_some(()));
    if std::env::var_os("FRAZIL_SLT_UPDATE").is_some() {
        update(&listen);
    }
    wrong.extend(differences("DuckDB", || Engine::duckdb(&listen)));
    wrong.extend(differences("Frazil over a snapshot", || Engine::frazil(&listen, "committed")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_value_has_one_text() {
    let check = |array: ArrayRef, wanted: &[&str]| {
        let texts: Vec<String> = (0..array.len()).map(|row| text(array.as_ref(), row)).collect();
        assert_eq!(texts, wanted, "{}", array.data_type());
    };
    let words = [Some("ß水"), Some(""), Some("a  b"), Some("NULL"), Some("x:\"y\""), None];
    let texts = ["ß水", "\"\"", "\"a  b\"", "\"NULL\"", "\"x:\\\"y\\\"\"", "NULL"];
    check(Arc::new(StringArray::from(words.to_vec())), &texts);
    check(Arc::new(StringViewArray::from(words.to_vec())), &texts);
    let doubles = vec![-0.0, 0.1, 2.0, 1e15, 1e16, 5e-324, f64::NAN, f64::NEG_INFINITY];
    let texts = ["-0.0", "0.1", "2.0", "1000000000000000.0", "1e16", "5e-324", "NaN", "-inf"];
    check(Arc::new(Float64Array::from(doubles)), &texts);
    let decimals = Decimal128Array::from(vec![-492_090, 0]).with_precision_and_scale(12, 2).unwrap();
    check(Arc::new(decimals), &["-4920.90", "0.00"]);
    let micros = vec![-62_135_596_800_000_000, -1, 0, 250_000];
    let texts = ["0001-01-01T00:00:00", "1969-12-31T23:59:59.999999", "1970-01-01T00:00:00", "1970-01-01T00:00:00.250"];
    check(Arc::new(TimestampMicrosecondArray::from(micros)), &texts);
    check(Arc::new(TimestampNanosecondArray::from(vec![1_000]).with_timezone("UTC")), &["1970-01-01T00:00:00.000001Z"]);
}

#[test]
fn a_wrong_answer_is_found() {
    let one = || {
        let columns: [(&str, ArrayRef); 2] =
            [("n", Arc::new(Int64Array::from(vec![1]))), ("t", Arc::new(StringArray::from(vec!["a b"])))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let stream = writer.into_inner().unwrap();
        Engine { name: "one", ask: Box::new(move |_| Ok(stream.clone())) }
    };
    let good = |script: &str| runner(one).run_script(script).is_ok();
    assert!(good("query IT\nSELECT\n----\n1 \"a b\"\n"));
    assert!(!good("query IT\nSELECT\n----\n1 \"a  b\"\n"));
    assert!(!good("query IT\nSELECT\n----\n1  \"a b\"\n"));
    assert!(!good("query IT\nSELECT\n----\n"));
    assert!(!good("query TT\nSELECT\n----\n1 \"a b\"\n"));
    assert!(!good("query error\nSELECT\n"));
    assert!(good("skipif one\nquery IT\nSELECT\n----\n2 b\n"));
}
