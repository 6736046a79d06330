//! Dead letters after the fact: every reason listed and shown, records tried again once what was wrong is mended,
//! beside a running service and maintenance, and killed at each step. Each record ends as one row or one letter.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apache_avro::types::Value as Avro;
use frazil::runtime::crash::{
    ANSWER_RECEIVED, LETTERS_DECODED, LETTERS_PREPARED, LETTERS_SETTLED, METADATA_WRITTEN, REQUEST_SENT, SCHEMA_EVOLVED,
};
use serde_json::{Value, json};

use crate::avro::{Encoder, ORDER, framed, order};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, write_config};
use crate::services::{Kafka, Registry};
use crate::traffic::{Mix, Random, Traffic, seed};
use crate::verify::Verify;
use crate::wait::{block_on, eventually};

const MINUTE: Duration = Duration::from_mins(1);

/// The registry as somebody sees it who does not know some of its schemas yet.
struct Late {
    url: String,
    hidden: Arc<Mutex<BTreeSet<u32>>>,
}

impl Late {
    fn before(registry: &Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (upstream, hidden) = (registry.url.clone(), Arc::<Mutex<BTreeSet<u32>>>::default());
        let shared = Arc::clone(&hidden);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (upstream, hidden) = (upstream.clone(), Arc::clone(&shared));
                // A client that goes away is none of a test's business.
                std::thread::spawn(move || answer(&stream.unwrap(), &upstream, &hidden));
            }
        });
        Self { url, hidden }
    }

    /// Registers the orders' schema with a field more, that nobody behind this registry knows yet.
    fn schema(&self, registry: &Registry, subject: &str, field: &str) -> Encoder {
        let mut schema: Value = serde_json::from_str(ORDER).unwrap();
        let extra = json!({"name": field, "type": ["null", "string"], "default": null});
        schema["fields"].as_array_mut().unwrap().push(extra);
        let encoder = Encoder::register(registry, subject, &schema.to_string());
        self.hidden.lock().unwrap().insert(encoder.id);
        encoder
    }

    /// All schemas are known from now on.
    fn correct(&self) {
        self.hidden.lock().unwrap().clear();
    }
}

fn answer(stream: &TcpStream, upstream: &str, hidden: &Mutex<BTreeSet<u32>>) {
    let mut lines = BufReader::new(stream).lines();
    let Some(Ok(request)) = lines.next() else { return };
    lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).for_each(drop);
    let path = request.split(' ').nth(1).unwrap_or("/");
    let id = path.split('?').next().and_then(|path| path.rsplit_once("/schemas/ids/")?.1.parse().ok());
    let (status, body) = if id.is_some_and(|id| hidden.lock().unwrap().contains(&id)) {
        (404, r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned())
    } else {
        block_on(async {
            let answer = reqwest::get(format!("{upstream}{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    };
    let head = format!("HTTP/1.1 {status} answer\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
    let _ = write!(&mut &*stream, "{head}\r\nconnection: close\r\n\r\n{body}");
}

/// An order of a schema that has a field more.
fn late_order(n: i64, field: &str) -> Avro {
    let Avro::Record(mut fields) = order(n) else { unreachable!("an order is a record") };
    fields.push((field.to_owned(), Avro::Union(1, Box::new(Avro::String(format!("late {n}"))))));
    Avro::Record(fields)
}

fn command(config: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frazil"));
    command.args(["dead-letters", "--json", "-c"]).arg(config).args(arguments).envs(environment.iter().copied());
    command
}

/// Runs `frazil dead-letters`, which must end well, and gives what it printed.
#[track_caller]
fn letters(config: &Path, arguments: &[&str]) -> Value {
    result(&command(config, arguments, &[]).output().unwrap(), arguments)
}

#[track_caller]
fn result(output: &Output, arguments: &[&str]) -> Value {
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Letters of a table by reason.
#[track_caller]
fn by_reason(config: &Path, table: &str) -> BTreeMap<String, u64> {
    let list = letters(config, &["list", table]);
    let reasons = list["tables"][0]["reasons"].as_array().unwrap();
    reasons
        .iter()
        .map(|tally| (tally["reason"].as_str().unwrap().to_owned(), tally["letters"].as_u64().unwrap()))
        .collect()
}

fn counts(reasons: &[(&str, u64)]) -> BTreeMap<String, u64> {
    reasons.iter().map(|(reason, letters)| ((*reason).to_owned(), *letters)).collect()
}

/// A topic with a good record, then one of each reason, and again a good one behind each; gives the registry that does
/// not know one of their schemas.
fn produce_every_reason(topic: &str) -> Late {
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    let late = Late::before(registry);
    create_topic(kafka, topic, 1, &[]);
    let record = |fields: &str| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    let fields = r#"{"name":"n","type":"long"},{"name":"s","type":"string"},
        {"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}}"#;
    let row = |n: i64, s: &str, t: i64| {
        let s = Avro::String(s.to_owned());
        vec![("n".to_owned(), Avro::Long(n)), ("s".to_owned(), s), ("t".to_owned(), Avro::TimestampMillis(t))]
    };
    let good = Encoder::register(registry, &format!("{topic}-value"), &record(fields));
    let other = Encoder::register(registry, &format!("{topic}-other"), &record(r#"{"name":"n","type":"string"}"#));
    let more = format!(r#"{fields},{{"name":"late","type":["null","string"],"default":null}}"#);
    let unknown = Encoder::register(registry, &format!("{topic}-late"), &record(&more));
    late.hidden.lock().unwrap().insert(unknown.id);
    let late_row =
        [row(3, "late", 3_000), vec![("late".to_owned(), Avro::Union(1, Box::new(Avro::String("x".to_owned()))))]];
    let bad: [Option<Vec<u8>>; 8] = [
        Some(unknown.encode(Avro::Record(late_row.concat()))),
        Some(b"garbage".to_vec()),
        Some(good.encode(Avro::Record(row(5, "cut off", 5_000)))[..8].to_vec()),
        Some(framed(good.id, &[2, 4, 0xff, 0xfe, 0])),
        Some(other.encode(Avro::Record(vec![("n".to_owned(), Avro::String("text".to_owned()))]))),
        Some(good.encode(Avro::Record(row(11, "far", i64::MAX)))),
        None,
        Some(good.encode(Avro::Record(row(15, &"x".repeat(10_000), 15_000)))),
    ];
    let producer = Producer::new(kafka);
    for (bad, n) in bad.iter().zip((1..).step_by(2)) {
        for value in [Some(good.encode(Avro::Record(row(n, "good", n * 1000)))), bad.clone()] {
            let headers = [("about", Some(&b"secret"[..]))];
            let key = format!("key-{n}");
            let record = Record {
                key: Some(key.as_bytes()),
                value: value.as_deref(),
                timestamp_ms: Some(1_767_225_600_000 + n),
                headers: &headers,
                ..Record::default()
            };
            producer.send(topic, &record);
            producer.flush();
        }
    }
    late
}

#[test]
fn every_reason_is_listed_shown_and_tried_again() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("letters_reasons"));
    let (topic, table) = ("letters-reasons", "letters.reasons");
    let late = produce_every_reason(topic);
    let tables = json!([{
        "topic": topic, "table": table, "key": {"format": "string"},
        "max_record_bytes": "8KiB", "on_tombstone": "dead_letter",
    }]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["schema_registry"]["url"] = late.url.clone().into();
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    let file = write_config(&lake.path("letters.yaml"), &config);
    let reasons = [
        "unknown_schema_id",
        "bad_magic_byte",
        "truncated",
        "type_mismatch",
        "incompatible_schema",
        "value_out_of_range",
        "null_value",
        "too_large",
    ];
    assert_eq!(by_reason(&file, table), counts(&reasons.map(|reason| (reason, 1))));

    // What a record holds is shown to who asks for it, and to nobody else.
    let id = format!("{topic}/0/3");
    let shown = command(&file, &["show", table, &id], &[]).output().unwrap();
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("garbage"), "{shown:?}");
    let letter = &result(&shown, &["show"])["letters"][0];
    assert_eq!((&letter["reason"], &letter["value_bytes"]), (&json!("bad_magic_byte"), &json!(7)));
    let letter = &letters(&file, &["show", table, &id, "--value"])["letters"][0];
    assert_eq!(letter["content"]["value"]["content"], "garbage");
    assert_eq!(letter["content"]["key"]["content"], "key-3");
    assert_eq!(letter["headers"][0]["value"]["content"], "secret");
    let missing = command(&file, &["show", table, &format!("{topic}/0/2")], &[]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");

    // Nothing has changed: nothing becomes a row.
    let replay = letters(&file, &["replay", table]);
    assert_eq!((&replay["rows"], &replay["commits"]), (&json!(0), &json!(0)), "{replay:#}");
    assert_eq!(replay["still"].as_array().unwrap().len(), 8);

    late.correct();
    config["tables"][0]["max_record_bytes"] = "1MiB".into();
    config["tables"][0]["on_tombstone"] = "keep".into();
    let file = write_config(&lake.path("mended.yaml"), &config);
    let dry = letters(&file, &["replay", table, "--dry-run"]);
    assert_eq!((&dry["rows"], &dry["commits"]), (&json!(3), &json!(0)), "{dry:#}");
    let chosen = letters(&file, &["replay", table, "--reason", "too_large", "--topic", topic]);
    assert_eq!((&chosen["rows"], &chosen["still"]), (&json!(1), &json!([])), "{chosen:#}");
    let replay = letters(&file, &["replay", table]);
    assert_eq!((&replay["rows"], &replay["commits"]), (&json!(2), &json!(1)), "{replay:#}");
    assert_eq!(letters(&file, &["replay", table])["rows"], 0);
    let left: Vec<_> = reasons[1..6].iter().map(|reason| (*reason, 1)).collect();
    assert_eq!(by_reason(&file, table), counts(&left));
    let columns = "kafka_offset, epoch_ms(kafka_timestamp), key, n, length(s), epoch_ms(t), late, \
                   kafka_headers[1].key, CAST(kafka_headers[1].value AS VARCHAR)";
    let verify = Verify::new(kafka, registry, &lake, topic, table);
    let output = verify.python("rows.py", &["--columns", columns]);
    let rows: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("rows.py: {}", String::from_utf8_lossy(&output.stderr)));
    let row = |offset: i64, values: [Value; 4]| {
        let n = offset / 2 * 2 + 1;
        let [number, length, time, late] = values;
        json!([offset, 1_767_225_600_000_i64 + n, format!("key-{n}"), number, length, time, late, "about", "secret"])
    };
    let mut expected: Vec<Value> =
        (0..8).map(|n| row(2 * n, [json!(2 * n + 1), json!(4), json!((2 * n + 1) * 1000), Value::Null])).collect();
    expected.insert(1, row(1, [json!(3), json!(4), json!(3_000), json!("x")]));
    expected.insert(8, row(13, [Value::Null, Value::Null, Value::Null, Value::Null]));
    expected.push(row(15, [json!(15), json!(10_000), json!(15_000), Value::Null]));
    for engine in ["duckdb", "pyiceberg"] {
        assert_eq!(rows[engine], json!(expected), "{engine}");
    }
}

/// Points of a replay, and at which passing: the first commit of it is that of the schema.
const POINTS: [(&str, u32); 7] = [
    (SCHEMA_EVOLVED, 1),
    (LETTERS_DECODED, 1),
    (LETTERS_PREPARED, 1),
    (METADATA_WRITTEN, 2),
    (REQUEST_SENT, 2),
    (ANSWER_RECEIVED, 2),
    (LETTERS_SETTLED, 1),
];

#[test]
fn killed_at_every_step_of_a_replay() {
    let name = "killed_at_every_step_of_a_replay";
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote(name));
    let late = Late::before(registry);
    let tables: Vec<(String, String)> =
        (0..POINTS.len()).map(|n| (format!("letters-killed-{n}"), format!("letters.killed_{n}"))).collect();
    let producer = Producer::new(kafka);
    let produce = |topic: &str, numbers: std::ops::Range<i64>| {
        let good = Encoder::register(registry, &format!("{topic}-value"), ORDER);
        let unknown = late.schema(registry, &format!("{topic}-late"), "late");
        for n in numbers {
            let value = match n % 4 {
                0 => unknown.encode(late_order(n, "late")),
                1 if n % 3 == 0 => b"garbage".to_vec(),
                _ => good.encode(order(n)),
            };
            let partition = Some(i32::from(n % 3 == 0));
            producer.send(topic, &Record { key: Some(b"k"), value: Some(&value), partition, ..Record::default() });
        }
        producer.flush();
    };
    for (topic, _) in &tables {
        create_topic(kafka, topic, 2, &[]);
        produce(topic, 0..60);
    }
    let entries: Vec<Value> = tables
        .iter()
        .map(|(topic, table)| json!({"topic": topic, "table": table, "key": {"format": "string"}}))
        .collect();
    let mut config = lake.config(kafka, registry, "letters-killed", &json!(entries));
    config["schema_registry"]["url"] = late.url.clone().into();
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    late.correct();
    let file = write_config(&lake.path("letters.yaml"), &config);
    let verified = |(topic, table): &(String, String), decodable: &str| {
        let verify = Verify::new(kafka, registry, &lake, topic, table).with(&["--key", "string"]);
        let dead = format!("{table}__dead_letters");
        let verify = verify.with(&["--dead-letters", &dead, "--good-dead-letters", decodable]);
        // The column of their schema is there from the first step on.
        if decodable == "0" { verify } else { verify.with(&["--ignore", "late"]) }.assert_good()
    };
    for ((point, passing), names) in POINTS.iter().zip(&tables) {
        let armed = format!("{point}:{passing}");
        let output = command(&file, &["replay", &names.1], &[("FRAZIL_CRASH_AT", &armed)]).output().unwrap();
        assert_eq!(output.status.signal(), Some(6), "{armed}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for ((point, _), names) in POINTS.iter().zip(&tables) {
        let is_in = [ANSWER_RECEIVED, LETTERS_SETTLED].contains(point);
        assert_eq!(verified(names, if is_in { "0" } else { "15" }), if is_in { 55 } else { 40 }, "{point}");
        let replay = letters(&file, &["replay", &names.1]);
        assert_eq!(replay["rows"], if is_in { 0 } else { 15 }, "{point}: {replay:#}");
        assert_eq!(verified(names, "0"), 55, "{point}");
    }
    // What comes then goes on behind the ledger, which every one of these commits has carried.
    tables.iter().for_each(|(topic, _)| produce(topic, 60..80));
    late.correct();
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    tables.iter().for_each(|names| assert_eq!(verified(names, "0"), 74));
}

#[test]
fn replays_go_on_beside_ingestion_and_maintenance() {
    let name = "replays_go_on_beside_ingestion_and_maintenance";
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote(name));
    let (topic, table, dead) = ("letters-beside", "letters.beside", "letters.beside__dead_letters");
    let mut random = Random(seed(name));
    let late = Late::before(registry);
    create_topic(kafka, topic, 3, &[]);
    let tables = json!([{"topic": topic, "table": table, "key": {"format": "string"}}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["schema_registry"]["url"] = late.url.clone().into();
    config["defaults"]["commit_interval"] = "1s".into();
    config["maintenance"] = json!({
        "min_files": 2, "interval": "100ms", "keep_snapshots": 20, "keep_min": 5, "keep_min_age": "2s",
    });
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let traffic = Traffic::start(kafka, registry, topic, Mix { transactions: false, ..Mix::ALL }, random.next());
    let file = write_config(&lake.path("letters.yaml"), &config);
    let producer = Producer::new(kafka);
    let (mut killed, mut rows) = (0, 0);
    for round in 0..6 {
        let field = format!("late_{round}");
        let unknown = late.schema(registry, &format!("{topic}-{field}"), &field);
        for n in 0..40 {
            let (key, value) = (format!("late-{n}"), unknown.encode(late_order(n, &field)));
            producer.send(topic, &Record { key: Some(key.as_bytes()), value: Some(&value), ..Record::default() });
            producer.flush();
        }
        eventually("the letters are there", MINUTE, || {
            (by_reason(&file, table).get("unknown_schema_id").is_some_and(|letters| *letters >= 40)).then_some(())
        });
        late.correct();
        let arguments = ["replay", table, "--reason", "unknown_schema_id"];
        if round % 2 == 1 {
            let mut child = command(&file, &arguments, &[]).stdout(Stdio::null()).spawn().unwrap();
            std::thread::sleep(random.millis(50, 1500));
            killed += u32::from(child.try_wait().unwrap().is_none());
            let _ = child.kill();
            child.wait().unwrap();
        }
        // Two at once: one waits for the other, or for the lease of the one that was killed.
        let children = [0, 1]
            .map(|_| command(&file, &arguments, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        for child in children {
            let replay = result(&child.wait_with_output().unwrap(), &arguments);
            rows += replay["rows"].as_u64().unwrap();
        }
        traffic.pass(200);
    }
    eprintln!("{name}: {rows} letters became rows, {killed} replays were killed");
    let produced = traffic.finish();
    assert!(rows > 0 && produced > 0);
    let mut frazil = frazil;
    assert!(frazil.terminate(MINUTE).success());
    assert!(!frazil.log().contains("invariant broken"));
    drop(frazil);
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    letters(&file, &["replay", table]);
    let verify = Verify::new(kafka, registry, &lake, topic, table);
    let verify = verify.with(&["--key", "string", "--dead-letters", dead]);
    let report = verify.report();
    assert!(report.is_good(), "{report:#?}");
    assert!(report.count("dead_letters") > 20, "{report:#?}");
    // The letters' table is maintained as the other one is, also after a part of it was taken out.
    let output = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["maintain", dead, "--json", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    let maintained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(maintained["tables"][0]["health"]["data_files"].as_u64().unwrap() <= 3, "{maintained:#}");
    assert!(verify.report().is_good());
}
