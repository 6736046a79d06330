//! The seam checker: queries without a pause while rows are produced and committed, a schema evolves, and partitions
//! change hands between replicas that leave and die. Every answer is each partition's prefix up to its `as_of`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kafka::create_topic;
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry, ports};
use crate::smoke::produce_orders;
use crate::sql::{ask, await_table, count};
use crate::traffic::{Mix, Random, Traffic, seed};
use crate::verify::Verify;
use crate::wait::eventually;

const MINUTE: Duration = Duration::from_mins(1);

/// The query that finds any gap or double: per partition rows, distinct offsets, least and greatest offset.
const CONTIGUITY: &str = "SELECT kafka_partition p, count(*) n, count(DISTINCT kafka_offset) d, min(kafka_offset) first, \
                          max(kafka_offset) last FROM shop.orders GROUP BY 1";
const TAIL: &str = "SELECT sum(visible - committed) n FROM shop.\"orders$ledger\"";

/// How long the checks go on: `FRAZIL_SEAM_SECONDS`, or a time that fits into all tests.
fn duration(default: u64) -> Duration {
    Duration::from_secs(std::env::var("FRAZIL_SEAM_SECONDS").map_or(default, |seconds| seconds.parse().unwrap()))
}

/// A configuration with one table of orders; members that die are noticed soon.
fn config(kafka: &Kafka, registry: &Registry, lake: &Lake, topic: &str, commit_interval: &str) -> Value {
    let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}, "commit_interval": commit_interval}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["kafka"]["properties"] = json!({"session.timeout.ms": "3000", "heartbeat.interval.ms": "500"});
    config
}

/// A replica, with a listener of its own.
fn replica(lake: &Lake, config: &Value, arguments: &[&str]) -> Frazil {
    let mut config = config.clone();
    config["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
    Frazil::run(&lake.dir, &config, arguments, &[])
}

/// One reader's session with one process, and what it has seen.
struct Session {
    topic: String,
    seen: BTreeMap<String, i64>,
    snapshots: BTreeSet<i64>,
    answers: usize,
    with_tail: usize,
}

impl Session {
    fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), seen: BTreeMap::new(), snapshots: BTreeSet::new(), answers: 0, with_tail: 0 }
    }

    /// Asks for no less than was seen, and compares the answer with its `as_of`.
    #[track_caller]
    fn check(&mut self, frazil: &Frazil) {
        let answer = ask(frazil, &json!({"sql": CONTIGUITY, "at_least": {self.topic.as_str(): &self.seen}}));
        let as_of = &answer["as_of"]["shop.orders"];
        // Before its first ledger a table reaches nowhere.
        let nowhere = serde_json::Map::new();
        let offsets = as_of["offsets"][&self.topic].as_object().unwrap_or(&nowhere);
        let rows: BTreeMap<String, &Value> =
            answer["rows"].as_array().unwrap().iter().map(|row| (row["p"].to_string(), row)).collect();
        for (partition, upto) in offsets {
            let upto = upto.as_i64().unwrap();
            let n = |name: &str| rows.get(partition).map_or(0, |row| row[name].as_i64().unwrap());
            assert_eq!((n("n"), n("d"), n("first")), (upto, upto, 0), "{answer}");
            let before = self.seen.insert(partition.clone(), upto).unwrap_or(0);
            assert!(before <= upto, "an answer went back from {before}: {answer}");
        }
        assert!(rows.keys().all(|partition| offsets.contains_key(partition)), "{answer}");
        self.answers += 1;
        self.snapshots.extend(as_of["snapshot_id"].as_i64());
        let tail = ask(frazil, &json!({"sql": TAIL}));
        self.with_tail += usize::from(tail["rows"][0]["n"].as_i64().is_some_and(|n| n > 0));
    }

    fn report(&self, who: &str) {
        let Self { answers, with_tail, snapshots, .. } = self;
        eprintln!("{who}: {answers} answers over {} snapshots, {with_tail} of them with a tail", snapshots.len());
    }
}

#[test]
fn every_answer_is_a_prefix_while_commits_go_on() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("seam"));
    create_topic(kafka, "seam", 3, &[]);
    let mut frazil = Frazil::run(&lake.dir, &config(kafka, registry, &lake, "seam", "200ms"), &[], &[]);
    let traffic = Traffic::start(kafka, registry, "seam", Mix::GOOD, 7);
    await_table(&frazil);
    let (mut session, begun) = (Session::new("seam"), Instant::now());
    while begun.elapsed() < duration(15) {
        if session.answers % 100 == 50 {
            traffic.evolve();
        }
        session.check(&frazil);
    }
    traffic.finish();
    session.report("one process");
    assert!(session.answers > 100 && session.with_tail > 20 && session.snapshots.len() > 20);
    assert!(frazil.terminate(MINUTE).success());
    Verify::new(kafka, registry, &lake, "seam", "shop.orders").with(&["--key", "string"]).assert_good();
}

#[test]
fn what_others_read_is_seen_before_they_commit_it() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("seam_others"));
    create_topic(kafka, "seam-others", 4, &[]);
    produce_orders(kafka, registry, "seam-others", 4, 400);
    let config = config(kafka, registry, &lake, "seam-others", "1h");
    let replicas: Vec<Frazil> = (0..2).map(|_| replica(&lake, &config, &["--roles", "ingest,serve"])).collect();
    replicas.iter().for_each(await_table);
    // Only reads, and is in no group.
    let reader = replica(&lake, &config, &["--roles", "serve"]);
    await_table(&reader);
    for frazil in replicas.iter().chain([&reader]) {
        eventually("all rows are seen", MINUTE, || (count(frazil, "fresh") == 400).then_some(()));
    }
    produce_orders(kafka, registry, "seam-others", 4, 400);
    let least = json!({"seam-others": {"0": 200, "1": 200, "2": 200, "3": 200}});
    for frazil in replicas.iter().chain([&reader]) {
        let sql = "SELECT count(*) n, count(DISTINCT kafka_partition * 1000 + kafka_offset) d FROM shop.orders";
        assert_eq!(ask(frazil, &json!({"sql": sql, "at_least": least}))["rows"], json!([{"n": 800, "d": 800}]));
        // At most what was there when the second replica came: the first commits before it gives a partition away.
        assert!(count(frazil, "committed") <= 400);
    }
}

#[test]
fn answers_stay_whole_while_partitions_change_hands() {
    let topic = "seam-hands";
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("seam_hands"));
    create_topic(kafka, topic, 4, &[]);
    let config = config(kafka, registry, &lake, topic, "500ms");
    let traffic = Traffic::start(kafka, registry, topic, Mix::GOOD, 11);
    let mut stays = replica(&lake, &config, &["--roles", "ingest,serve"]);
    let reader = replica(&lake, &config, &["--roles", "serve"]);
    await_table(&stays);
    await_table(&reader);
    let (mut of_stays, mut of_reader) = (Session::new(topic), Session::new(topic));
    let (mut random, mut changes, begun) = (Random(seed(topic)), 0, Instant::now());
    while begun.elapsed() < duration(40) {
        let mut other = replica(&lake, &config, &["--roles", "ingest,serve"]);
        let until = Instant::now() + random.millis(3_000, 6_000);
        while Instant::now() < until {
            of_stays.check(&stays);
            of_reader.check(&reader);
        }
        if random.below(2) == 0 {
            other.kill();
        } else {
            assert!(other.terminate(MINUTE).success());
        }
        changes += 2;
        if changes % 4 == 0 {
            traffic.evolve();
        }
        let until = Instant::now() + random.millis(1_000, 4_000);
        while Instant::now() < until {
            of_stays.check(&stays);
            of_reader.check(&reader);
        }
    }
    traffic.finish();
    of_stays.report("the replica that stays");
    of_reader.report("the one that only reads");
    eprintln!("{changes} changes of replicas");
    for session in [&of_stays, &of_reader] {
        assert!(session.answers > 50 && session.with_tail > 20 && session.snapshots.len() > 20);
    }
    assert!(stays.terminate(MINUTE).success());
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    Verify::new(kafka, registry, &lake, topic, "shop.orders").with(&["--key", "string"]).assert_good();
}
