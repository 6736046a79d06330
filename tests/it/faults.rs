//! What Frazil stands on goes away, answers late or not at all, and comes back. The process never ends, says what it
//! waits for, goes on by itself, and the table is then exactly the topic.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::intercept::{Act, Interceptor};
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Postgres, Registry, S3, Toxiproxy, ports};
use crate::traffic::{Mix, Random, Traffic};
use crate::verify::Verify;
use crate::wait::eventually;

const CATALOG: &str = "\"on\":\"catalog\"";
const MINUTE: Duration = Duration::from_mins(1);

/// A table that is being filled while the test breaks things.
struct Scene {
    topic: &'static str,
    lake: Lake,
    config: Value,
    frazil: Frazil,
    traffic: Option<Traffic<'static>>,
}

impl Scene {
    /// `change` may change the configuration before Frazil starts.
    #[track_caller]
    fn new(topic: &'static str, lake: Lake, change: impl FnOnce(&mut Value)) -> Self {
        let (kafka, registry) = (Kafka::shared(), Registry::shared());
        create_topic(kafka, topic, 3, &[]);
        let traffic = Traffic::start(kafka, registry, topic, Mix::GOOD, 1);
        let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}}]);
        let mut config = lake.config(kafka, registry, topic, &tables);
        config["defaults"]["commit_interval"] = "300ms".into();
        config["kafka"]["properties"] = json!({"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"});
        change(&mut config);
        let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
        let scene = Self { topic, lake, config, frazil, traffic: Some(traffic) };
        scene.await_commits(2);
        scene
    }

    fn traffic(&self) -> &Traffic<'static> {
        self.traffic.as_ref().unwrap()
    }

    /// Waits until that many more commits are in.
    #[track_caller]
    fn await_commits(&self, count: u64) {
        let until = self.commits() + count;
        eventually("further commits are made", MINUTE, || (self.commits() >= until).then_some(()));
    }

    fn commits(&self) -> u64 {
        self.frazil.metric("frazil_commits_total", "outcome=\"committed\"").unwrap_or(0)
    }

    /// Waits until it says that it is not ready, and names what it waits for.
    #[track_caller]
    fn await_waiting(&mut self, name: &str) {
        await_waiting(&self.frazil, name);
        assert!(self.frazil.is_running());
    }

    #[track_caller]
    fn await_ready(&self) {
        await_ready(&self.frazil);
    }

    /// Stops, catches up with what is left, and compares; gives the number of rows.
    #[track_caller]
    fn finish(mut self) -> u64 {
        assert!(self.frazil.is_running());
        let produced = self.traffic.take().unwrap().finish();
        assert!(self.frazil.terminate(MINUTE).success());
        Frazil::until_caught_up(&self.lake.dir, &self.config, MINUTE);
        let verify = Verify::new(Kafka::shared(), Registry::shared(), &self.lake, self.topic, "shop.orders");
        let verify = verify.with(&["--key", "string", "--dead-letters", "shop.orders__dead_letters"]);
        let report = verify.report();
        assert!(report.is_good(), "{report:#?}");
        assert_eq!((report.count("rows"), report.count("dead_letters")), (produced, 0));
        produced
    }
}

#[track_caller]
fn await_waiting(frazil: &Frazil, name: &str) {
    eventually(&format!("/readyz names {name}"), 2 * MINUTE, || {
        let (status, text) = frazil.get("/readyz")?;
        (status == 503 && text.contains("\"state\":\"waiting\"") && text.contains(name)).then_some(())
    });
}

#[track_caller]
fn await_ready(frazil: &Frazil) {
    eventually("/readyz is good again", MINUTE, || (frazil.get("/readyz")?.0 == 200).then_some(()));
}

#[test]
fn requests_to_the_catalog_and_their_answers_get_lost() {
    let postgres = Postgres::shared();
    postgres.database("fault_commit");
    let proxy = Interceptor::before(postgres.port);
    let lake = Lake::over("fault_commit", Postgres::uri(proxy.port, "fault_commit"), S3::shared().port);
    let mut scene = Scene::new("fault-commit", lake, |_| {});
    for act in [Act::LoseRequest, Act::LoseAnswer] {
        proxy.arm("COMMIT", act, 5);
        proxy.await_struck(5);
        scene.await_commits(2);
    }
    scene.frazil.await_log("answer was lost", MINUTE);
    // The database goes away together with the answer: nobody knows yet whether the commit is in.
    proxy.arm("COMMIT", Act::LoseAnswer, 1);
    proxy.await_struck(1);
    proxy.refuse(true);
    scene.await_waiting(CATALOG);
    proxy.refuse(false);
    scene.await_ready();
    scene.await_commits(2);
    // Later than the 30 s after which a statement is given up.
    proxy.arm("COMMIT", Act::HoldAnswer(Duration::from_secs(35)), 1);
    proxy.await_struck(1);
    scene.await_commits(2);
    scene.finish();
}

#[test]
fn requests_to_the_store_and_their_answers_get_lost() {
    let proxy = Interceptor::before(S3::shared().port);
    let lake = Lake::over("fault_store", Postgres::shared().database("fault_store"), proxy.port);
    let scene = Scene::new("fault-store", lake, |_| {});
    for text in [".parquet", ".avro", ".metadata.json"] {
        for act in [Act::LoseRequest, Act::LoseAnswer, Act::CutAfter(500)] {
            proxy.arm(text, act, 2);
            proxy.await_struck(2);
            scene.await_commits(1);
        }
    }
    // Later than the 30 s after which a request is given up.
    proxy.arm(".parquet", Act::HoldAnswer(Duration::from_secs(35)), 1);
    proxy.await_struck(1);
    scene.await_commits(2);
    scene.finish();
}

#[test]
fn an_upload_is_cut_again_and_again() {
    const VALUE_BYTES: usize = 200_000;
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    let proxy = Interceptor::before(S3::shared().port);
    let lake = Lake::over("fault_upload", Postgres::shared().database("fault_upload"), proxy.port);
    let topic = "fault-upload";
    create_topic(kafka, topic, 1, &[("max.message.bytes", "1000000")]);
    let producer = Producer::with(kafka, &[("compression.type", "none")]);
    let mut random = Random(7);
    // Bytes that do not compress: 24 MB of them make a file of several parts.
    for _ in 0..120 {
        let value: Vec<u8> =
            std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(VALUE_BYTES).collect();
        producer.send(topic, &Record { key: Some(b"blob"), value: Some(&value), ..Record::default() });
    }
    producer.flush();
    let tables = json!([
        {"topic": topic, "table": "shop.blobs", "key": {"format": "bytes"}, "value": {"format": "bytes"}, "commit_interval": "5s"}
    ]);
    let config = lake.config(kafka, registry, topic, &tables);
    // More often than a request is tried: the write fails, and the records are read again.
    proxy.arm("partNumber=", Act::CutAfter(1_000_000), 30);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_waiting(&frazil, &format!("127.0.0.1:{}/", proxy.port));
    proxy.await_struck(30);
    let committed = || frazil.metric("frazil_rows_committed_total", "shop.blobs").unwrap_or(0);
    eventually("everything is committed", 2 * MINUTE, || (committed() == 120).then_some(()));
    assert!(frazil.terminate(MINUTE).success());
    let verify = Verify::new(kafka, registry, &lake, topic, "shop.blobs");
    assert_eq!(verify.with(&["--key", "bytes", "--value", "bytes"]).assert_good(), 120);
}

#[test]
fn postgres_and_the_store_go_away_and_come_back() {
    let (postgres, s3) = (Postgres::start("postgres-away"), S3::start("s3-away"));
    let lake = Lake::over("away", postgres.database("away"), s3.port);
    let mut scene = Scene::new("fault-away", lake, |_| {});
    let store = format!("127.0.0.1:{}/", s3.port);
    for _ in 0..2 {
        postgres.kill();
        scene.await_waiting(CATALOG);
        postgres.restart();
        scene.await_ready();
        scene.await_commits(2);
        s3.kill();
        scene.await_waiting(&store);
        s3.restart();
        scene.await_ready();
        scene.await_commits(2);
    }
    // A second replica comes while the catalog is away: both have to look at the table again.
    postgres.kill();
    scene.await_waiting(CATALOG);
    let mut second = scene.config.clone();
    second["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
    let mut second = Frazil::run(&scene.lake.dir, &second, &[], &[]);
    await_waiting(&second, CATALOG);
    postgres.restart();
    await_ready(&second);
    scene.await_ready();
    scene.await_commits(2);
    assert!(second.terminate(MINUTE).success());
    // Both, and a restart of Frazil meanwhile.
    postgres.kill();
    s3.kill();
    scene.frazil.kill();
    scene.frazil = Frazil::run(&scene.lake.dir, &scene.config, &[], &[]);
    scene.await_waiting(CATALOG);
    s3.restart();
    postgres.restart();
    scene.await_ready();
    scene.finish();
}

#[test]
fn records_wait_for_the_registry() {
    let registry = Registry::shared();
    let port = registry.url.split(['/', ':']).find_map(|part| part.parse().ok()).unwrap();
    let proxy = Toxiproxy::shared().proxy("fault-registry", port);
    let url = registry.url.replace(&port.to_string(), &proxy.port.to_string());
    let lake = Lake::local("fault_registry");
    let mut scene = Scene::new("fault-registry", lake, |config| config["schema_registry"]["url"] = url.as_str().into());
    for _ in 0..2 {
        proxy.enable(false);
        scene.traffic().evolve();
        scene.await_waiting("\"on\":\"registry\"");
        scene.traffic().pass(200);
        proxy.enable(true);
        scene.await_ready();
        scene.await_commits(2);
    }
    // Neither may an answer that is none be taken for one.
    proxy.add("limit_data", "downstream", &json!({"bytes": 20}));
    scene.traffic().evolve();
    scene.await_waiting("\"on\":\"registry\"");
    proxy.remove("limit_data", "downstream");
    scene.await_ready();
    scene.finish();
}

#[test]
fn a_full_disk_is_waited_for() {
    let lake = Lake::local("fault_disk");
    std::fs::create_dir(&lake.warehouse).unwrap();
    let mount =
        |arguments: &[&str]| Command::new("mount").args(arguments).arg(&lake.warehouse).status().unwrap().success();
    if !mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
        eprintln!("NOT TESTED: a full disk. This needs to mount a file system, as root");
        return;
    }
    let mounted = Mounted(lake.warehouse.clone());
    let mut scene = Scene::new("fault-disk", lake, |_| {});
    scene.await_waiting("No space left on device");
    scene.traffic().pass(500);
    assert!(Command::new("mount").args(["-o", "remount,size=256m", &mounted.0]).status().unwrap().success());
    scene.await_ready();
    scene.await_commits(2);
    scene.finish();
}

struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}
