//! Positions that no longer fit: a table set back, expired, dropped or replaced by others, a topic made anew, records
//! deleted before they were read. Each gives a clear stop, and the way out that it names works.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kafka::{create_topic, delete_records, delete_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil};
use crate::services::{Kafka, Registry};
use crate::smoke::produce_orders;
use crate::verify::{Report, Verify};
use crate::wait::eventually;

const MINUTE: Duration = Duration::from_mins(1);

/// A topic of one partition and its table.
struct Scene {
    topic: &'static str,
    lake: Lake,
    config: Value,
}

impl Scene {
    fn new(topic: &'static str) -> Self {
        let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(topic));
        create_topic(kafka, topic, 1, &[]);
        let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}}]);
        let config = lake.config(kafka, registry, topic, &tables);
        Self { topic, lake, config }
    }

    fn produce(&self, count: i64) {
        produce_orders(Kafka::shared(), Registry::shared(), self.topic, 1, count);
    }

    fn run(&self) -> Frazil {
        Frazil::run(&self.lake.dir, &self.config, &[], &[])
    }

    #[track_caller]
    fn catch_up(&self) {
        Frazil::until_caught_up(&self.lake.dir, &self.config, MINUTE);
    }

    fn verify(&self, further: &[&str]) -> Verify<'_> {
        let verify = Verify::new(Kafka::shared(), Registry::shared(), &self.lake, self.topic, "shop.orders");
        verify.with(&["--key", "string"]).with(further)
    }

    /// What another tool does; see `tests/verify/meddle.py`.
    #[track_caller]
    fn meddle(&self, what: &str) {
        let output = self.verify(&[]).python("meddle.py", &["--do", what]);
        assert!(output.status.success(), "meddle.py: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[track_caller]
    fn resume(&self, frazil_run: &Frazil, from: &str) {
        let config = frazil_run.config.to_str().unwrap();
        let output = frazil(&["tables", "resume", "shop.orders", "--from", from, "-c", config]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        await_ready(frazil_run);
    }
}

/// Waits until the table has stopped and `/readyz` says why in these words.
#[track_caller]
fn await_stopped(frazil: &Frazil, words: &[&str]) {
    eventually(&format!("/readyz says {words:?}"), MINUTE, || {
        let (status, text) = frazil.get("/readyz")?;
        let says = text.contains("\"state\":\"stopped\"") && words.iter().all(|words| text.contains(words));
        (status == 503 && says).then_some(())
    });
}

#[track_caller]
fn await_ready(frazil: &Frazil) {
    eventually("/readyz is good again", MINUTE, || (frazil.get("/readyz")?.0 == 200).then_some(()));
}

#[track_caller]
fn assert_sound(report: &Report, rows: u64, missing: u64) {
    let count = |name| report.count(name);
    assert_eq!(
        (count("rows"), count("missing"), count("doubled"), count("different")),
        (rows, missing, 0, 0),
        "{report:#?}"
    );
}

#[test]
fn a_table_that_was_rolled_back_stops_until_somebody_chooses() {
    let scene = Scene::new("rolled-back");
    let says = ["rolled back", "tables resume shop.orders --from ledger", "tables resume shop.orders --from snapshot"];
    scene.produce(100);
    scene.catch_up();
    scene.produce(50);
    scene.catch_up();
    // While nobody runs; what `main` does not show is read again.
    scene.meddle("rollback");
    let mut running = scene.run();
    await_stopped(&running, &says);
    scene.resume(&running, "snapshot");
    assert!(running.terminate(MINUTE).success());
    scene.catch_up();
    assert_eq!(scene.verify(&[]).assert_good(), 150);
    // Under a running process; what `main` does not show stays out.
    let mut running = scene.run();
    await_ready(&running);
    scene.meddle("rollback");
    scene.produce(30);
    await_stopped(&running, &says);
    scene.resume(&running, "ledger");
    assert!(running.terminate(MINUTE).success());
    scene.catch_up();
    assert_sound(&scene.verify(&[]).report(), 130, 50);
}

#[test]
fn a_table_whose_history_was_expired_by_another_tool_stops_until_somebody_chooses() {
    let scene = Scene::new("expired");
    scene.produce(100);
    scene.catch_up();
    // Another writer's snapshot is all that is left, and the tool has cleared which one came before it.
    scene.meddle("append");
    scene.meddle("expire");
    scene.produce(30);
    let mut running = scene.run();
    await_stopped(&running, &["expired by another tool", "tables resume shop.orders --from ledger"]);
    scene.resume(&running, "ledger");
    assert!(running.terminate(MINUTE).success());
    scene.catch_up();
    assert_eq!(scene.verify(&[]).assert_good(), 130);
}

#[test]
fn a_table_that_vanishes_or_is_replaced_is_not_made_anew() {
    let scene = Scene::new("vanished");
    scene.produce(100);
    let mut running = scene.run();
    let rows = |frazil: &Frazil| frazil.metric("frazil_rows_committed_total", "shop.orders").unwrap_or(0);
    eventually("rows are committed", MINUTE, || (rows(&running) == 100).then_some(()));
    scene.meddle("replace");
    scene.produce(10);
    await_stopped(&running, &["replaced by another one"]);
    scene.meddle("drop");
    await_stopped(&running, &["vanished", "restart frazil"]);
    assert!(running.terminate(MINUTE).success());
    // A restart is the choice to begin again.
    scene.catch_up();
    assert_eq!(scene.verify(&[]).assert_good(), 110);
}

#[test]
fn records_deleted_before_they_were_read_are_a_gap() {
    let mut scene = Scene::new("overtaken");
    scene.produce(100);
    scene.catch_up();
    scene.produce(100);
    delete_records(Kafka::shared(), scene.topic, 0, 160);
    let mut running = scene.run();
    await_stopped(&running, &["offsets 100 to 159", "deleted by retention", "on_gap: continue"]);
    assert!(running.terminate(MINUTE).success());
    scene.config["tables"][0]["on_gap"] = "continue".into();
    scene.catch_up();
    // The topic itself no longer has the first rows; all that it has is there.
    let report = scene.verify(&["--allow-extra"]).report();
    assert_sound(&report, 140, 0);
    assert_eq!(report.count("extra_allowed"), 100);
}

#[test]
fn a_topic_made_anew_is_another_one() {
    let mut scene = Scene::new("anew");
    scene.produce(100);
    let mut running = scene.run();
    let rows = |frazil: &Frazil| frazil.metric("frazil_rows_committed_total", "shop.orders").unwrap_or(0);
    eventually("rows are committed", MINUTE, || (rows(&running) == 100).then_some(()));
    delete_topic(Kafka::shared(), scene.topic);
    create_topic(Kafka::shared(), scene.topic, 1, &[]);
    // More than before: a position alone would not show it.
    scene.produce(150);
    await_stopped(&running, &["topic id", "on_topic_change: new_incarnation"]);
    assert!(running.terminate(MINUTE).success());
    scene.config["tables"][0]["on_topic_change"] = "new_incarnation".into();
    scene.catch_up();
    let ignore = ["--ignore", "kafka_incarnation"];
    let newer = scene.verify(&["--where", "kafka_incarnation = 1"]).with(&ignore);
    assert_eq!(newer.assert_good(), 150);
    let older = scene.verify(&["--where", "coalesce(kafka_incarnation, 0) = 0"]).with(&ignore);
    assert_eq!(older.report().count("rows"), 100);
}
