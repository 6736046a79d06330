//! The REST catalog at `/iceberg`: other engines read what Frazil keeps, by content; who may; what is refused.

use std::ops::Range;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::avro::{Encoder, ORDER, order};
use crate::evolution::ready;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Postgres, Registry, Trino, spark_copies};
use crate::smoke::produce_orders;
use crate::verify::Verify;
use crate::wait::{block_on, eventually};

const DEADLINE: Duration = Duration::from_mins(1);

/// A running service and the way to ask its catalog. Most tests have `shop.orders` in it, with its dead letters.
struct Served {
    frazil: Frazil,
    lake: Lake,
    url: String,
    topic: String,
    token: Option<&'static str>,
}

/// An answer of the catalog.
struct Answer {
    status: u16,
    etag: Option<String>,
    body: Value,
}

impl Answer {
    /// Status and type of a refusal.
    #[track_caller]
    fn refusal(&self) -> (u16, &str) {
        assert_eq!(self.body["error"]["code"], self.status, "{}", self.body);
        (self.status, self.body["error"]["type"].as_str().unwrap())
    }
}

impl Served {
    /// Starts the service on a topic of three partitions with `count` orders and one record that is none.
    fn start(name: &str, lake: Lake, count: i64, tokens: &Value, token: Option<&'static str>) -> Self {
        let (kafka, registry, topic) = (Kafka::shared(), Registry::shared(), name.replace('_', "-"));
        create_topic(kafka, &topic, 3, &[]);
        produce_orders(kafka, registry, &topic, 3, count);
        let producer = Producer::new(kafka);
        producer.send(&topic, &Record { key: Some(b"bad"), value: Some(b"no order"), ..Record::default() });
        producer.flush();
        let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}}]);
        let mut config = lake.config(kafka, registry, name, &tables);
        config["server"]["auth"] = json!({"tokens": tokens});
        let served = Self::run(lake, &config, &[], topic, token);
        served.await_rows("orders", count);
        served
    }

    /// Starts the service with these arguments on what is configured.
    fn run(lake: Lake, config: &Value, arguments: &[&str], topic: String, token: Option<&'static str>) -> Self {
        let url = format!("http://{}/iceberg", config["server"]["listen"].as_str().unwrap());
        let frazil = Frazil::run(&lake.dir, config, arguments, &[]);
        Self { frazil, lake, url, topic, token }
    }

    /// Waits until the catalog's answer counts that many rows of a table in `shop`.
    fn await_rows(&self, table: &str, count: i64) {
        let count = &count.to_string();
        eventually("the table is ready", DEADLINE, || {
            (ready(&self.frazil, &format!("shop.{table}"))["state"] == "ok").then_some(())
        });
        eventually("all rows are committed", DEADLINE, || {
            let loaded = self.get(&format!("/v1/namespaces/shop/tables/{table}?snapshots=refs"));
            (current(&loaded.body)?["summary"]["total-records"] == *count).then_some(())
        });
    }

    fn ask(&self, method: Method, path: &str, token: Option<&str>, headers: &[(&str, &str)]) -> Answer {
        block_on(async {
            let request = reqwest::Client::new().request(method, format!("{}{path}", self.url));
            let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            let answer = request.send().await.unwrap();
            let (status, etag) = (answer.status().as_u16(), answer.headers().get("etag").cloned());
            let body = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
            Answer { status, etag: etag.map(|etag| etag.to_str().unwrap().to_owned()), body }
        })
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, self.token, &[])
    }

    /// A table in `shop` as the catalog gives it.
    fn load(&self, table: &str) -> Value {
        self.get(&format!("/v1/namespaces/shop/tables/{table}")).body
    }

    /// Sends one more batch of orders to the topic of each of these states, and waits until they are committed.
    fn commit(&self, states: &[&str], round: i64, schema: &str) {
        for state in states {
            send_orders(&format!("{}-{state}", self.topic), schema, round * BATCH..(round + 1) * BATCH);
        }
        states.iter().for_each(|state| self.await_rows(state, (round + 1) * BATCH));
    }

    /// The verifier, reading through the catalog alone.
    fn verify(&self, further: &[&str]) -> Verify<'_> {
        let verify = Verify::new(Kafka::shared(), Registry::shared(), &self.lake, &self.topic, "shop.orders")
            .with(&["--key", "string", "--rest", &self.url])
            .with(further);
        if let Some(token) = self.token { verify.with(&["--token", token]) } else { verify }
    }
}

/// The current snapshot of a table as it was loaded; `None` before its first commit.
fn current(loaded: &Value) -> Option<&Value> {
    let metadata = &loaded["metadata"];
    let mut snapshots = metadata["snapshots"].as_array()?.iter();
    snapshots.find(|snapshot| snapshot["snapshot-id"] == metadata["current-snapshot-id"])
}

fn token(name: &str, scope: &str) -> Value {
    let hash: String = Sha256::digest(format!("{name}-token")).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"name": name, "hash": format!("sha256:{hash}"), "scopes": [scope]})
}

#[test]
fn duckdb_and_pyiceberg_read_local_tables_through_the_catalog() {
    let served = Served::start("rest_local", Lake::local("rest_local"), 5_000, &json!([]), None);
    let report = served.verify(&["--dead-letters", "shop.orders__dead_letters"]).report();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.count("rows"), report.count("dead_letters")), (5_000, 1));
    let table = served.get("/v1/namespaces/shop/tables/orders");
    assert_eq!(table.body["config"], json!({}), "local files need no settings");
}

#[test]
fn with_tokens_and_s3_engines_are_told_all_but_secrets() {
    let tokens = json!([token("reader", "read"), token("grafana", "metrics")]);
    let served = Served::start("rest_remote", Lake::remote("rest_remote"), 3_000, &tokens, Some("reader-token"));
    assert_eq!(served.verify(&["--skip-rejects"]).assert_good(), 3_000);

    let table = served.get("/v1/namespaces/shop/tables/orders");
    let config = table.body["config"].as_object().unwrap();
    assert!(config["s3.endpoint"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{config:?}");
    assert_eq!((&config["client.region"], &config["s3.path-style-access"]), (&json!("us-east-1"), &json!("true")));
    assert_eq!(config.len(), 3, "{config:?}");
    assert!(!table.body.to_string().contains("frazil-secret"));

    for path in ["/v1/config", "/v1/namespaces", "/v1/namespaces/shop/tables/orders", "/v1/nothing"] {
        let ask = |token| served.ask(Method::GET, path, token, &[]);
        assert_eq!(ask(None).refusal(), (401, "NotAuthorizedException"), "{path}");
        assert_eq!(ask(Some("wrong-token")).refusal(), (401, "NotAuthorizedException"), "{path}");
        assert_eq!(ask(Some("grafana-token")).refusal(), (403, "ForbiddenException"), "{path}");
    }
    let written = served.ask(Method::POST, "/v1/transactions/commit", Some("reader-token"), &[]);
    assert_eq!(written.refusal(), (403, "ForbiddenException"));
}

#[test]
fn spark_reads_tables_in_s3_through_the_catalog() {
    let tokens = json!([token("spark", "read")]);
    let served = Served::start("rest_spark", Lake::remote("rest_spark"), 2_000, &tokens, Some("spark-token"));
    let uri = format!("uri={}", served.url);
    let keys = ["s3.access-key-id=frazil", "s3.secret-access-key=frazil-secret"];
    let copies = spark_copies(&["shop.orders"], &[&uri, "token=spark-token", keys[0], keys[1]]);
    let engine = ["--skip-rejects", "--engine", "spark", "--spark", copies.to_str().unwrap()];
    assert_eq!(served.verify(&engine).assert_good(), 2_000);
}

/// The states that a table gets into, each after the one before: several small commits; an optional column more, which
/// older files lack; small files merged; old snapshots gone, and with them the files that only they reached.
const STATES: [&str; 4] = ["fresh", "evolved", "compacted", "expired"];
/// Orders of one commit, a third of them in each partition.
const BATCH: i64 = 90;

/// A service with a table in each state, every one filled by a topic of its own.
struct States {
    served: Served,
    /// The snapshot of `shop.compacted` before it had the new column, when its files were still small.
    early: i64,
}

impl States {
    fn prepare(name: &str, format_version: u8) -> Self {
        let (kafka, registry, prefix) = (Kafka::shared(), Registry::shared(), name.replace('_', "-"));
        let mut lake = Lake::local(name);
        // Another process does the maintenance; SQLite is for one alone.
        lake.catalog = Postgres::shared().database(name);
        let tables = STATES.iter().map(|state| {
            let topic = format!("{prefix}-{state}");
            create_topic(kafka, &topic, 3, &[]);
            // Known before the table is made, which else gets its columns later.
            Encoder::register(registry, &format!("{topic}-value"), ORDER);
            json!({"topic": topic, "table": format!("shop.{state}"), "key": {"format": "string"}})
        });
        let mut config = lake.config(kafka, registry, name, &tables.collect());
        config["defaults"]["commit_interval"] = "300ms".into();
        config["defaults"]["format_version"] = format_version.into();
        // Nothing is maintained but by hand.
        let served = Served::run(lake, &config, &["--roles", "ingest"], prefix, None);
        for round in 0..3 {
            served.commit(&STATES, round, ORDER);
        }
        let early = current(&served.load("compacted")).unwrap()["snapshot-id"].as_i64().unwrap();
        let mut evolved: Value = serde_json::from_str(ORDER).unwrap();
        let coupon = json!({"name": "coupon", "type": ["null", "string"], "default": null});
        evolved["fields"].as_array_mut().unwrap().push(coupon);
        for round in 3..5 {
            served.commit(&STATES[1..], round, &evolved.to_string());
        }
        config["maintenance"] = json!({"min_files": 2, "keep_snapshots": 1, "keep_min": 1, "keep_min_age": "1ms"});
        let file = write_config(&served.lake.path("maintain.yaml"), &config);
        let maintain = |arguments: &[&str]| {
            let command = ["maintain", "-c", file.to_str().unwrap()];
            let output = frazil(&[&command[..], arguments].concat());
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        maintain(&["shop.compacted", "shop.expired", "--compact", "--manifests"]);
        maintain(&["shop.expired", "--expire"]);
        let states = Self { served, early };
        states.check();
        states
    }

    /// Each table must be in its state, or the engines would read the same four times.
    fn check(&self) {
        let files = self.served.lake.files(".parquet");
        let facts = STATES.map(|state| {
            let loaded = self.served.load(state);
            let count = |name: &str| loaded["metadata"][name].as_array().unwrap().len();
            let live = current(&loaded).unwrap()["summary"]["total-data-files"].as_str().unwrap();
            let stored = files.iter().filter(|file| file.to_str().unwrap().contains(&format!("/{state}-"))).count();
            (live.parse::<usize>().unwrap(), stored, count("schemas"), count("snapshots"))
        });
        let [fresh, evolved, compacted, expired] = facts;
        assert!(fresh.0 >= 3 && fresh.1 == fresh.0 && fresh.2 == 1, "fresh: {fresh:?}");
        assert!(evolved.0 >= 5 && evolved.1 == evolved.0 && evolved.2 == 2, "evolved: {evolved:?}");
        assert!(compacted.0 == 1 && compacted.1 >= 6 && compacted.3 >= 6, "compacted: {compacted:?}");
        assert_eq!(expired, (1, 1, 2, 1), "live files, stored files, schemas and snapshots");
    }

    /// Compares each table with its topic, and the early snapshot with the first three batches.
    #[track_caller]
    fn assert_read_by(&self, engines: &[&str]) {
        let verify = |state: &str| {
            let (topic, table) = (format!("{}-{state}", self.served.topic), format!("shop.{state}"));
            let verify = Verify::new(Kafka::shared(), Registry::shared(), &self.served.lake, &topic, &table);
            verify.with(&["--key", "string", "--rest", &self.served.url]).with(engines)
        };
        for state in STATES {
            let batches = if state == "fresh" { 3 } else { 5 };
            assert_eq!(verify(state).assert_good(), batches * BATCH.cast_unsigned(), "{state}");
        }
        let end = [0, 1, 2].map(|partition| format!("{partition}={BATCH}")).join(",");
        let early = verify("compacted").with(&["--snapshot", &self.early.to_string(), "--end", &end]);
        assert_eq!(early.assert_good(), 3 * BATCH.cast_unsigned(), "the early snapshot");
    }
}

/// Sends orders to three partitions in turn; those of a schema with coupons have them.
fn send_orders(topic: &str, schema: &str, numbers: Range<i64>) {
    let encoder = Encoder::register(Registry::shared(), &format!("{topic}-value"), schema);
    let producer = Producer::new(Kafka::shared());
    for n in numbers {
        let Avro::Record(mut fields) = order(n) else { unreachable!("an order is a record") };
        if schema.contains("coupon") {
            let coupon = Avro::Union(1, Box::new(Avro::String(format!("coupon {n}"))));
            fields.push(("coupon".to_owned(), coupon));
        }
        let (key, value) = (format!("customer-{}", n % 7), encoder.encode(Avro::Record(fields)));
        producer.send(
            topic,
            &Record {
                key: Some(key.as_bytes()),
                value: Some(&value),
                partition: Some(i32::try_from(n % 3).unwrap()),
                timestamp_ms: Some(1_767_225_600_000 + n * 17),
                ..Record::default()
            },
        );
    }
    producer.flush();
}

/// Spark starts slowly: it copies all at once.
fn every_state_is_read(name: &str, format_version: u8) {
    let states = States::prepare(name, format_version);
    let early = format!("shop.compacted@{}", states.early);
    let tables = ["shop.fresh", "shop.evolved", "shop.compacted", "shop.expired", early.as_str()];
    let copies = spark_copies(&tables, &[&format!("uri={}", states.served.url)]);
    states.assert_read_by(&["--engine", "duckdb,pyiceberg,spark", "--spark", copies.to_str().unwrap()]);
}

#[test]
fn duckdb_pyiceberg_and_spark_read_every_state_of_a_table() {
    every_state_is_read("rest_states", 2);
}

#[test]
fn duckdb_pyiceberg_and_spark_read_every_state_of_a_table_of_format_3() {
    every_state_is_read("rest_states_3", 3);
}

#[test]
#[ignore = "needs a JDK 25 with jdk.incubator.vector; `make test` runs it where there is one"]
fn trino_reads_every_state_of_a_table() {
    let states = States::prepare("rest_states_trino", 2);
    let trino = Trino::start("trino", &states.served.url);
    states.assert_read_by(&["--engine", "trino", "--trino", &trino.url]);
}

#[test]
fn tags_change_with_commits_and_with_nothing_else() {
    let served = Served::start("rest_tags", Lake::local("rest_tags"), 100, &json!([]), None);
    let path = "/v1/namespaces/shop/tables/orders";
    let first = served.get(path);
    let tag = first.etag.unwrap();
    let again = served.ask(Method::GET, path, None, &[("if-none-match", &tag)]);
    assert_eq!((again.status, again.etag.as_ref(), &again.body), (304, Some(&tag), &Value::Null));

    produce_orders(Kafka::shared(), Registry::shared(), &served.topic, 3, 50);
    served.await_rows("orders", 150);
    let changed = served.ask(Method::GET, path, None, &[("if-none-match", &tag)]);
    assert_eq!(changed.status, 200);
    assert_ne!(changed.body["metadata-location"], first.body["metadata-location"]);
    assert!(changed.etag.is_some_and(|changed| changed != tag));
    let snapshots = |path: &str| served.get(path).body["metadata"]["snapshots"].as_array().unwrap().len();
    assert!(snapshots(path) > snapshots(&format!("{path}?snapshots=refs")));
}

#[test]
fn what_others_made_is_there_and_every_write_is_refused() {
    let lake = Lake::local("rest_others");
    let served = Served::start("rest_others", lake, 10, &json!([]), None);
    // PyIceberg makes a table beside Frazil's, and a namespace without any.
    let verify = Verify::new(Kafka::shared(), Registry::shared(), &served.lake, &served.topic, "other.deep.forged");
    let forged = verify.with(&["--key", "string"]);
    let output = forged.python("forge.py", &["--warehouse", &served.lake.warehouse, "--spoil", "nothing"]);
    assert!(output.status.success(), "forge.py: {}", String::from_utf8_lossy(&output.stderr));

    let namespaces = |query: &str| served.get(&format!("/v1/namespaces{query}")).body["namespaces"].clone();
    assert_eq!(namespaces(""), json!([["other"], ["shop"]]));
    assert_eq!(namespaces("?parent=other"), json!([["other", "deep"]]));
    let tables = served.get("/v1/namespaces/other%1Fdeep/tables").body["identifiers"].clone();
    assert_eq!(tables, json!([{"namespace": ["other", "deep"], "name": "forged"}]));
    let stored = served.get("/v1/namespaces/other%1Fdeep/tables/forged").body;
    let file = stored["metadata-location"].as_str().unwrap().trim_start_matches("file://").to_owned();
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(stored["metadata"], written, "PyIceberg's metadata, as it wrote it");

    let (mut pages, mut token) = (Vec::new(), Some(String::new()));
    while let Some(at) = token {
        let page = served.get(&format!("/v1/namespaces/shop/tables?pageSize=1&pageToken={at}")).body;
        pages
            .push(page["identifiers"].as_array().unwrap().iter().map(|table| table["name"].clone()).collect::<Value>());
        token = page["next-page-token"].as_str().map(str::to_owned);
    }
    assert_eq!(pages, [json!(["orders"]), json!(["orders__dead_letters"])]);

    assert_eq!(served.get("/v1/namespaces/none").refusal(), (404, "NoSuchNamespaceException"));
    assert_eq!(served.get("/v1/namespaces/shop/tables/none").refusal(), (404, "NoSuchTableException"));
    assert_eq!(served.ask(Method::HEAD, "/v1/namespaces/shop/tables/orders", None, &[]).status, 204);
    let metrics = served.ask(Method::POST, "/v1/namespaces/shop/tables/orders/metrics", None, &[]);
    assert_eq!(metrics.status, 204);
    for (method, path) in [
        (Method::POST, "/v1/namespaces"),
        (Method::DELETE, "/v1/namespaces/shop"),
        (Method::POST, "/v1/namespaces/shop/properties"),
        (Method::POST, "/v1/namespaces/shop/tables"),
        (Method::POST, "/v1/namespaces/shop/register"),
        (Method::POST, "/v1/namespaces/shop/tables/orders"),
        (Method::DELETE, "/v1/namespaces/shop/tables/orders"),
        (Method::POST, "/v1/tables/rename"),
        (Method::POST, "/v1/transactions/commit"),
        (Method::POST, "/v1/namespaces/shop/views"),
    ] {
        let refused = served.ask(method.clone(), path, None, &[("content-type", "application/json")]);
        assert_eq!(refused.refusal(), (403, "ForbiddenException"), "{method} {path}");
    }
    served.await_rows("orders", 10);
}
