//! Brokers that restart or die, partitions that appear while Frazil runs, replicas that share a group in every way of
//! assignment, and a configuration that is read again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kafka::{add_partitions, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, write_config};
use crate::services::{Kafka, Registry, ports};
use crate::smoke::produce_orders;
use crate::traffic::{Mix, Random, Traffic, seed};
use crate::verify::Verify;
use crate::wait::eventually;

const MINUTE: Duration = Duration::from_mins(1);

/// How long a replica may take to leave: its commit under way may have to come after those of the others.
const LEAVE: Duration = Duration::from_secs(20);

/// A configuration with one table of orders, which commits often.
fn config(kafka: &Kafka, registry: &Registry, lake: &Lake, topic: &str) -> Value {
    let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["defaults"]["commit_interval"] = "300ms".into();
    config
}

/// The number of rows of a table that is exactly its topic.
#[track_caller]
fn rows(kafka: &Kafka, registry: &Registry, lake: &Lake, topic: &str, table: &str) -> u64 {
    let letters = format!("{table}__dead_letters");
    let verify =
        Verify::new(kafka, registry, lake, topic, table).with(&["--key", "string", "--dead-letters", &letters]);
    verify.assert_good()
}

fn committed(frazil: &Frazil, table: &str) -> u64 {
    frazil.metric("frazil_rows_committed_total", &format!("\"{table}\"")).unwrap_or(0)
}

#[track_caller]
fn await_rows(frazil: &Frazil, table: &str, more: u64) {
    // A broker that was killed looks over its logs first, which takes its time where other tests run beside.
    let until = committed(frazil, table) + more;
    eventually(&format!("further rows of {table}"), 3 * MINUTE, || (committed(frazil, table) >= until).then_some(()));
}

#[test]
fn a_broker_restarts() {
    let (kafka, registry, lake) = (Kafka::start("kafka-restart", 1, false), Registry::shared(), Lake::local("restart"));
    let topic = "restart-orders";
    create_topic(&kafka, topic, 3, &[]);
    let config = config(&kafka, registry, &lake, topic);
    let traffic = Traffic::start(&kafka, registry, topic, Mix::GOOD, 1);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_rows(&frazil, "shop.orders", 100);
    kafka.stop(1);
    kafka.restart(1);
    await_rows(&frazil, "shop.orders", 500);
    kafka.kill(1);
    kafka.restart(1);
    await_rows(&frazil, "shop.orders", 500);
    let produced = traffic.finish();
    assert!(frazil.is_running());
    assert!(frazil.terminate(MINUTE).success());
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    // A producer that lost an answer may have sent a burst twice: the topic itself says what is right.
    assert!(rows(&kafka, registry, &lake, topic, "shop.orders") >= produced);
}

#[test]
fn a_cluster_loses_its_leaders() {
    let (kafka, registry, lake) = (Kafka::start("kafka-three", 3, false), Registry::shared(), Lake::local("three"));
    let topic = "three-orders";
    create_topic(&kafka, topic, 6, &[("min.insync.replicas", "2")]);
    let config = config(&kafka, registry, &lake, topic);
    let traffic = Traffic::start(&kafka, registry, topic, Mix::GOOD, 1);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    await_rows(&frazil, "shop.orders", 100);
    // Each node leads two partitions and one of them the group; one after the other dies.
    for node in [1, 2, 3] {
        kafka.kill(node);
        await_rows(&frazil, "shop.orders", 500);
        kafka.restart(node);
        await_rows(&frazil, "shop.orders", 500);
    }
    let produced = traffic.finish();
    assert!(frazil.is_running());
    assert!(frazil.terminate(MINUTE).success());
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    // A producer that lost an answer may have sent a burst twice: the topic itself says what is right.
    assert!(rows(&kafka, registry, &lake, topic, "shop.orders") >= produced);
}

#[test]
fn partitions_grow_while_reading_from_latest() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("growing"));
    let topic = "growing-orders";
    create_topic(kafka, topic, 1, &[]);
    let mut config = config(kafka, registry, &lake, topic);
    config["tables"][0]["start"] = "latest".into();
    produce_orders(kafka, registry, topic, 1, 200);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let starts = || frazil.metric("frazil_commits_total", "outcome=\"committed\"");
    eventually("the start is committed", MINUTE, || (starts()? > 0).then_some(()));
    let traffic = Traffic::start(kafka, registry, topic, Mix::GOOD, 1);
    await_rows(&frazil, "shop.orders", 50);
    // The producer sees a new partition before the consumer does: what lies in it by then must not count as old.
    for partitions in [2, 5] {
        add_partitions(kafka, topic, partitions);
        traffic.pass(500);
    }
    assert!(frazil.terminate(MINUTE).success());
    // And while nobody reads.
    add_partitions(kafka, topic, 6);
    traffic.pass(500);
    let produced = traffic.finish();
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    let verify = Verify::new(kafka, registry, &lake, topic, "shop.orders");
    assert_eq!(verify.with(&["--key", "string", "--start", "0=200"]).assert_good(), produced);
}

/// Replicas come and go under load, by one strategy of assignment; every one that is asked to leave does so soon.
fn replicas(topic: &'static str, strategy: &str, places: usize) {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote(&topic.replace('-', "_")));
    let mut random = Random(seed(topic));
    create_topic(kafka, topic, 8, &[]);
    let mut config = config(kafka, registry, &lake, topic);
    config["defaults"]["commit_interval"] = "1s".into();
    config["kafka"]["properties"] = json!({
        "partition.assignment.strategy": strategy, "session.timeout.ms": "3000", "heartbeat.interval.ms": "500",
    });
    let start = |config: &mut Value| {
        config["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
        Frazil::run(&lake.dir, config, &[], &[])
    };
    let traffic = Traffic::start(kafka, registry, topic, Mix::ALL, random.next());
    let mut replicas: Vec<_> = (0..places).map(|_| start(&mut config)).collect();
    for replica in &replicas {
        // All take part: each has partitions of its own.
        await_rows(replica, "shop.orders", 20);
    }
    for round in 0..10 {
        let place = usize::try_from(random.below(places as u64)).unwrap();
        let begun = Instant::now();
        let status = replicas[place].terminate(LEAVE);
        assert!(status.success(), "{status}");
        eprintln!("{topic}: round {round}: left after {:?}", begun.elapsed());
        traffic.pass(100);
        replicas[place] = start(&mut config);
        await_rows(&replicas[place], "shop.orders", 20);
    }
    for replica in &mut replicas {
        assert!(replica.is_running());
        assert!(replica.terminate(LEAVE).success());
    }
    traffic.finish();
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    assert!(rows(kafka, registry, &lake, topic, "shop.orders") > 1_000);
}

#[test]
fn three_replicas_share_by_cooperative_assignment() {
    replicas("replicas-cooperative", "cooperative-sticky", 3);
}

#[test]
fn two_replicas_share_by_eager_assignment() {
    replicas("replicas-eager", "range", 2);
}

#[test]
fn tables_join_and_leave_by_sighup() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("sighup"));
    let topics = ["sighup-a", "sighup-b", "sighup-c"];
    for topic in topics {
        create_topic(kafka, topic, 2, &[]);
    }
    let traffic = topics.map(|topic| Traffic::start(kafka, registry, topic, Mix::GOOD, 1));
    let table = |topic: &str| json!({"topic": topic, "table": format!("shop.{topic}"), "key": {"format": "string"}});
    let mut config = config(kafka, registry, &lake, topics[0]);
    let mut tables = |names: &[&str]| {
        config["tables"] = names.iter().map(|name| table(name)).collect();
        config.clone()
    };
    let mut frazil = Frazil::run(&lake.dir, &tables(&topics[..2]), &[], &[]);
    await_rows(&frazil, "shop.sighup-a", 100);
    await_rows(&frazil, "shop.sighup-b", 100);
    // One leaves, one joins, one goes on.
    write_config(&frazil.config, &tables(&topics[1..]));
    frazil.signal("HUP");
    await_rows(&frazil, "shop.sighup-c", 100);
    await_rows(&frazil, "shop.sighup-b", 100);
    eventually("the table that left is gone from /readyz", MINUTE, || {
        (!frazil.get("/readyz")?.1.contains("shop.sighup-a")).then_some(())
    });
    // What cannot be taken changes nothing.
    std::fs::write(&frazil.config, "tables: [{topic: sighup-b, tabel: x}]").unwrap();
    frazil.signal("HUP");
    frazil.await_log("configuration not taken", MINUTE);
    await_rows(&frazil, "shop.sighup-b", 100);
    // It comes back and goes on where it was.
    write_config(&frazil.config, &tables(&topics));
    frazil.signal("HUP");
    await_rows(&frazil, "shop.sighup-a", 100);
    let produced = traffic.map(Traffic::finish);
    assert!(frazil.terminate(MINUTE).success());
    Frazil::until_caught_up(&lake.dir, &tables(&topics), MINUTE);
    for (topic, produced) in topics.into_iter().zip(produced) {
        assert_eq!(rows(kafka, registry, &lake, topic, &format!("shop.{topic}")), produced);
    }
}
