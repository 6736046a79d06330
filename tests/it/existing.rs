//! Tables that another tool made: taken over where the configuration says so and records fit, left as they are where
//! not; the rows that were there stay, whatever comes next.

use std::process::Output;
use std::time::Duration;

use frazil::runtime::crash::{METADATA_WRITTEN, REQUEST_SENT, STARTS_RESOLVED, TABLE_ADOPTED};
use serde_json::{Value, json};

use crate::kafka::create_topic;
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry};
use crate::smoke::produce_orders;
use crate::verify::Verify;
use crate::wait::eventually;

const TABLE: &str = "shop.orders";
const MINUTE: Duration = Duration::from_mins(1);
/// Rows that the other tool has written.
const BEFORE: u64 = 34;

/// A table by another tool, and a topic of orders that are to go into it.
struct Scene {
    topic: &'static str,
    lake: Lake,
    config: Value,
}

impl Scene {
    fn new(topic: &'static str, kind: &str, existing: Option<&str>) -> Self {
        let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(topic));
        create_topic(kafka, topic, 2, &[]);
        let mut table = json!({"topic": topic, "table": TABLE, "key": {"format": "string"}});
        if let Some(existing) = existing {
            table["existing"] = existing.into();
        }
        let config = lake.config(kafka, registry, topic, &json!([table]));
        let scene = Self { topic, lake, config };
        std::fs::create_dir_all(&scene.lake.warehouse).unwrap();
        let output = scene.script(&["--do", "make", "--kind", kind, "--warehouse", &scene.lake.warehouse]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        scene
    }

    fn produce(&self, count: i64) {
        produce_orders(Kafka::shared(), Registry::shared(), self.topic, 2, count);
    }

    fn verify(&self) -> Verify<'_> {
        let typed = ["--typed", "quantity=long", "--typed", "price=decimal(12,2)"];
        let theirs = ["--ignore", "theirs", "--ignore", "their_place", "--where", "kafka_offset IS NOT NULL"];
        Verify::new(Kafka::shared(), Registry::shared(), &self.lake, self.topic, TABLE)
            .with(&["--key", "string"])
            .with(&typed)
            .with(&theirs)
    }

    fn script(&self, arguments: &[&str]) -> Output {
        let verify = Verify::new(Kafka::shared(), Registry::shared(), &self.lake, self.topic, TABLE);
        verify.python("existing.py", arguments)
    }

    /// What was there before is there as it was, and every record beside it.
    #[track_caller]
    fn check(&self, records: u64) {
        let output = self.script(&["--do", "check"]);
        let found: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("existing.py: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(found["faults"], json!([]));
        assert_eq!(self.verify().assert_good(), records);
    }

    /// The table's newest metadata file.
    fn metadata(&self) -> String {
        let files = self.lake.files(".metadata.json").into_iter();
        files.map(|file| file.to_str().unwrap().to_owned()).filter(|file| file.contains("/orders/")).max().unwrap()
    }

    /// `frazil check`, with whether it went well: per check its outcome, and what was found with the remedy.
    fn checked(&self) -> (bool, Vec<(String, String, String)>) {
        let file = write_config(&self.lake.path("check.yaml"), &self.config);
        let output = frazil(&["check", "--json", "-c", file.to_str().unwrap()]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let checks = report["checks"].as_array().unwrap().iter().map(|check| {
            let found = format!("{}; {}", text(&check["found"]), text(&check["remedy"]));
            (text(&check["check"]), text(&check["outcome"]), found)
        });
        (output.status.success(), checks.filter(|(check, ..)| check.contains(TABLE)).collect())
    }

    fn run(&self) -> Frazil {
        Frazil::run(&self.lake.dir, &self.config, &[], &[])
    }
}

/// Waits until the table is stopped with these words.
#[track_caller]
fn await_stopped(frazil: &Frazil, words: &[&str]) {
    eventually(&format!("/readyz says {words:?}"), MINUTE, || {
        let (status, text) = frazil.get("/readyz")?;
        (status == 503 && words.iter().all(|words| text.contains(words))).then_some(())
    });
}

#[test]
fn records_are_appended_to_a_table_of_another_tool() {
    let mut scene = Scene::new("existing-fits", "fits", Some("adopt"));
    scene.config["tables"][0]["index"] = json!({"text": "{product}", "filters": ["country"]});
    scene.config["index"] = json!({"uri": scene.lake.path("index")});
    scene.produce(300);
    let before = scene.metadata();
    let (is_good, checks) = scene.checked();
    let (_, outcome, found) = checks.last().unwrap();
    assert!(is_good && outcome == "ok", "{checks:?}");
    assert!(found.contains("34 rows") && found.contains("will be taken over"), "{found}");
    assert!(found.contains("customer_id, product, currency") && found.contains("kafka_offset"), "{found}");
    assert_eq!(scene.metadata(), before, "a check changes nothing");

    let running = scene.run();
    let rows = |frazil: &Frazil| frazil.metric("frazil_rows_committed_total", TABLE).unwrap_or(0);
    eventually("all is committed", MINUTE, || (rows(&running) == 300).then_some(()));
    scene.check(300);
    // The rows of before are rows to SQL, and no records to search.
    let ask = |sql: &str| {
        let (status, text) = running.post("/api/sql", &json!({"sql": sql})).unwrap();
        assert_eq!(status, 200, "{sql}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["rows"].clone()
    };
    let count = "SELECT count(*) AS n, count(kafka_offset) AS records, count(theirs) AS theirs, \
                 count(their_place.shelf) AS shelves FROM shop.orders";
    assert_eq!(ask(count), json!([{"n": 334, "records": 300, "theirs": 34, "shelves": 24}]));
    let imported = "SELECT quantity, country, theirs FROM shop.orders WHERE order_id = 1000030";
    assert_eq!(ask(imported), json!([{"quantity": 5_000_000_030_i64, "country": "FR", "theirs": "2020-01-03"}]));
    eventually("the records are indexed", MINUTE, || {
        (running.metric("frazil_index_entries", TABLE)? == 300).then_some(())
    });
    drop(running);

    // Another run goes on from the ledger; merging files takes those of before with it.
    scene.produce(50);
    Frazil::until_caught_up(&scene.lake.dir, &scene.config, MINUTE);
    scene.config["maintenance"] = json!({"min_files": 2, "target_file_size": "1MiB"});
    let file = write_config(&scene.lake.path("maintain.yaml"), &scene.config);
    let arguments = ["maintain", TABLE, "--compact", "--manifests", "--json", "-c", file.to_str().unwrap()];
    let output = frazil(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Three of before in each of three countries; the imported one has no other to go with.
    assert!(report["tables"][0]["compacted_files"].as_u64().unwrap() >= 9, "{report:#}");
    assert_eq!(report["tables"][0]["health"]["held"], json!([]), "{report:#}");
    scene.check(350);
}

#[test]
fn a_take_over_that_is_killed_is_finished_by_the_next_run() {
    let scene = Scene::new("existing-killed", "fits", Some("adopt"));
    scene.produce(100);
    for point in [METADATA_WRITTEN, REQUEST_SENT, TABLE_ADOPTED, STARTS_RESOLVED] {
        let environment = [("FRAZIL_CRASH_AT", point)];
        let mut frazil = Frazil::run(&scene.lake.dir, &scene.config, &["--until-caught-up"], &environment);
        let status = frazil.wait(MINUTE);
        assert!(std::os::unix::process::ExitStatusExt::signal(&status) == Some(6), "{point}: {status}");
    }
    Frazil::until_caught_up(&scene.lake.dir, &scene.config, MINUTE);
    scene.check(100);
    let log = Frazil::run(&scene.lake.dir, &scene.config, &["--until-caught-up"], &[]);
    assert!(!log.log().contains("took over"), "a table is taken over once");
}

#[test]
fn a_table_is_not_taken_over_unless_that_is_asked_for() {
    let scene = Scene::new("existing-refused", "fits", None);
    scene.produce(10);
    let before = scene.metadata();
    let (is_good, checks) = scene.checked();
    let (_, outcome, found) = checks.last().unwrap();
    assert!(!is_good && outcome == "failed" && found.contains("set `existing: adopt`"), "{checks:?}");
    let running = scene.run();
    await_stopped(&running, &["is there already, and frazil did not make it", "existing: adopt"]);
    assert_eq!(scene.metadata(), before);
}

#[test]
fn a_table_that_does_not_fit_is_left_as_it_is_and_each_reason_told() {
    let mut scene = Scene::new("existing-misfit", "misfit", Some("adopt"));
    scene.config["tables"][0]["partition_by"] = json!(["day(kafka_timestamp)"]);
    scene.produce(10);
    let before = scene.metadata();
    let reasons = [
        (
            "`partition_by`",
            "is day(kafka_timestamp) in the configuration, bucket(3, order_id), day(created_at), truncate(1, country) in the table",
        ),
        ("column `product`", "is boolean in the table and string in the records"),
        ("column `theirs_always`", "is required, and the records have no such field"),
        ("column `note`", "is required, and the records may have none"),
        ("column `kafka_offset`", "is string in the table, and frazil's own column of that name is long"),
    ];
    let (is_good, checks) = scene.checked();
    assert!(!is_good);
    for (what, reason) in reasons {
        let name = format!("{what} of table `{TABLE}`");
        let one = checks.iter().find(|(check, ..)| *check == name).unwrap_or_else(|| panic!("{name}: {checks:?}"));
        assert!(one.1 == "failed" && one.2.contains(reason) && !one.2.ends_with("; "), "{one:?}");
    }
    let running = scene.run();
    await_stopped(&running, &reasons.map(|(_, reason)| reason));
    assert_eq!(scene.metadata(), before, "nothing is changed");
    assert_eq!(running.metric("frazil_rows_committed_total", TABLE).unwrap_or(0), 0);
}
