//! The harness tested by itself, without Frazil: the services come up, and the verifier sees what is wrong.
//! The tables here are forged by PyIceberg (`tests/verify/forge.py`).

use std::time::Duration;

use serde_json::json;

use crate::avro::framed;
use crate::kafka::{Producer, Record, create_topic, watermarks};
use crate::lake::Lake;
use crate::services::{Kafka, Postgres, Proxy, Registry, S3, Toxiproxy};
use crate::smoke::produce_orders;
use crate::verify::{Report, Verify};
use crate::wait::{block_on, eventually};

/// Forges the table that the topic should become, spoiled in one way, and verifies it.
#[track_caller]
fn forged(verify: &Verify<'_>, lake: &Lake, spoil: &str) -> Report {
    let output = verify.python("forge.py", &["--warehouse", &lake.warehouse, "--spoil", spoil]);
    assert!(output.status.success(), "forge.py: {}", String::from_utf8_lossy(&output.stderr));
    verify.report()
}

/// A topic of 300 orders, verified against forged tables with the key as a string.
fn check(topic: &str, lake: &Lake, spoil: &str, expect: &[(&str, u64)]) {
    let (kafka, registry) = (Kafka::shared(), Registry::shared());
    create_topic(kafka, topic, 3, &[]);
    produce_orders(kafka, registry, topic, 3, 300);
    let verify = Verify::new(kafka, registry, lake, topic, "shop.orders").with(&["--key", "string"]);
    let report = forged(&verify, lake, spoil);
    assert_eq!(report.is_good(), spoil == "nothing", "{report:?}");
    for (name, count) in expect {
        assert_eq!(report.count(name), *count, "{name} in {report:?}");
    }
}

#[test]
fn a_table_of_exactly_the_topic_is_good() {
    check("selftest-good", &Lake::local("selftest_good"), "nothing", &[("rows", 300), ("records", 300)]);
}

#[test]
fn a_table_in_postgres_and_s3_is_read_by_both_engines() {
    check("selftest-remote", &Lake::remote("selftest_remote"), "nothing", &[("rows", 300), ("records", 300)]);
}

#[test]
fn a_changed_value_is_found() {
    check("selftest-change", &Lake::local("selftest_change"), "change", &[("different", 1), ("missing", 0)]);
}

#[test]
fn a_changed_header_is_found() {
    check("selftest-header", &Lake::local("selftest_header"), "header", &[("different", 1), ("missing", 0)]);
}

#[test]
fn a_missing_row_is_found() {
    check("selftest-drop", &Lake::local("selftest_drop"), "drop", &[("missing", 1), ("rows", 299)]);
}

#[test]
fn a_doubled_row_is_found() {
    check("selftest-double", &Lake::local("selftest_double"), "double", &[("doubled", 1), ("rows", 301)]);
}

#[test]
fn a_row_of_no_record_is_found() {
    check("selftest-extra", &Lake::local("selftest_extra"), "extra", &[("extra", 1), ("missing", 0)]);
}

#[test]
fn a_column_of_another_type_is_found() {
    check("selftest-type", &Lake::local("selftest_type"), "type", &[("columns", 1), ("different", 0)]);
}

#[test]
fn aborted_records_are_not_expected_and_bad_ones_must_be_dead_letters() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("selftest_transactions"));
    let topic = "selftest-transactions";
    create_topic(kafka, topic, 1, &[]);
    produce_orders(kafka, registry, topic, 1, 50);
    let producer = Producer::transactional(kafka, topic);
    for commit in [false, true] {
        producer.begin();
        producer.send(topic, &Record { key: Some(b"tombstone"), ..Record::default() });
        if commit { producer.commit() } else { producer.abort() }
    }
    // 50 orders, a tombstone and an abort marker, a tombstone and a commit marker.
    assert_eq!(watermarks(kafka, topic, 0), (0, 54));
    let verify = Verify::new(kafka, registry, &lake, topic, "shop.orders").with(&["--key", "string"]);
    let report = forged(&verify, &lake, "nothing");
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.count("rows"), 51);

    let garbage = Producer::new(kafka);
    for value in [&b"garbage"[..], &framed(999_999, b"unknown"), b""] {
        garbage.send(topic, &Record { value: Some(value), ..Record::default() });
    }
    garbage.flush();
    let report = verify.report();
    assert!(!report.is_good());
    assert_eq!(report.count("rejects_unaccounted"), 3);
    let skipped =
        Verify::new(kafka, registry, &lake, topic, "shop.orders").with(&["--key", "string", "--skip-rejects"]);
    assert_eq!(skipped.assert_good(), 51);
}

#[test]
fn the_proxy_cuts_and_restores() {
    let postgres = Postgres::shared();
    let proxy: Proxy = Toxiproxy::shared().proxy("selftest", S3::shared().port);
    let answers = || block_on(async { reqwest::get(format!("http://127.0.0.1:{}/", proxy.port)).await.is_ok() });
    assert!(answers());
    proxy.add("reset_peer", "downstream", &json!({"timeout": 0}));
    eventually("the proxy resets", Duration::from_secs(10), || (!answers()).then_some(()));
    proxy.remove("reset_peer", "downstream");
    eventually("the proxy passes again", Duration::from_secs(10), || answers().then_some(()));
    assert!(postgres.database("selftest_named").ends_with("/selftest_named"));
}

#[test]
fn the_configuration_of_docker_compose_loads() {
    let hash = format!("sha256:{}", "0".repeat(64));
    let environment = |name: &str| Some(if name == "FRAZIL_TOKEN_HASH" { hash.clone() } else { "secret".to_owned() });
    frazil::config::Config::from_yaml(include_str!("../../config/docker.yaml"), &environment).unwrap();
}
