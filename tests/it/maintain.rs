//! Maintenance beside ingestion and other engines, and killed at each of its steps: the table stays what the topic says,
//! and what is left over is exactly what the orphan action removes.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use frazil::runtime::crash::{
    ANSWER_RECEIVED, COMPACTED, DROPPED_NOTED, EXPIRED_FILES_DELETED, MAINTENANCE_COMMITTED, MANIFESTS_WRITTEN,
    METADATA_WRITTEN, ORPHAN_DELETED, REPLACE_WRITTEN, REQUEST_SENT,
};
use serde_json::{Value, json};

use crate::kafka::create_topic;
use crate::lake::Lake;
use crate::process::{Frazil, write_config};
use crate::services::{Kafka, Registry};
use crate::smoke::produce_orders;
use crate::traffic::{Mix, Traffic};
use crate::verify::Verify;
use crate::wait::eventually;

const TABLE: &str = "shop.orders";

/// Runs `frazil maintain` on the table.
fn maintain(config: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["maintain", TABLE, "--json", "-c"])
        .arg(config)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// The same, which must end well; the table's part of the result.
#[track_caller]
fn maintained(config: &Path, arguments: &[&str]) -> Value {
    let output = maintain(config, arguments, &[]);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all["tables"][0].clone()
}

fn reachable(verify: &Verify<'_>) -> BTreeSet<String> {
    let output = verify.python("reachable.py", &[]);
    assert!(output.status.success(), "reachable.py: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All files of the table `orders` of a local warehouse.
fn on_disk(lake: &Lake) -> BTreeSet<String> {
    let files = lake.files("").into_iter().map(|file| file.to_str().unwrap().to_owned());
    files.filter(|file| file.contains("/orders-")).collect()
}

#[test]
fn killed_at_every_step_of_maintenance() {
    let name = "killed_at_every_step_of_maintenance";
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local(name));
    let topic = "maintain-killed";
    create_topic(kafka, topic, 2, &[]);
    let tables = json!([{"topic": topic, "table": TABLE, "key": {"format": "string"}}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["maintenance"] = json!({"min_files": 3, "keep_snapshots": 3, "keep_min": 2, "keep_min_age": "1ms"});
    let file = write_config(&lake.path("maintain.yaml"), &config);
    let verify = Verify::new(kafka, registry, &lake, topic, TABLE).with(&["--key", "string"]);
    let mut records = 0;
    // Each round is a file and a snapshot or more; without the role, maintenance has them all for itself.
    let mut ingest = |rounds: usize| {
        for _ in 0..rounds {
            records += 200;
            produce_orders(kafka, registry, topic, 2, 200);
            let mut frazil = Frazil::run(&lake.dir, &config, &["--until-caught-up", "--roles", "ingest"], &[]);
            assert!(frazil.wait(Duration::from_mins(1)).success());
        }
        records
    };
    let kill = |action: &str, point: &str, count: u32| {
        let armed = format!("{point}:{count}");
        let arguments: &[&str] = if action == "--orphans" { &[action, "--older-than", "1ms"] } else { &[action] };
        let output = maintain(&file, arguments, &[("FRAZIL_CRASH_AT", &armed)]);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.signal(), Some(6), "{action} at {armed}: {printed}");
        let missing: Vec<_> = reachable(&verify).difference(&on_disk(&lake)).cloned().collect();
        assert!(missing.is_empty(), "{action} killed at {armed}: {missing:?} are gone");
    };
    ingest(4);
    for point in [COMPACTED, REPLACE_WRITTEN, METADATA_WRITTEN, REQUEST_SENT] {
        kill("--compact", point, 1);
    }
    kill("--compact", ANSWER_RECEIVED, 1);
    ingest(4);
    kill("--compact", MAINTENANCE_COMMITTED, 1);
    ingest(1);
    kill("--manifests", MANIFESTS_WRITTEN, 1);
    kill("--manifests", MAINTENANCE_COMMITTED, 1);
    kill("--expire", DROPPED_NOTED, 1);
    kill("--expire", MAINTENANCE_COMMITTED, 1);
    for kinds in 1..=3 {
        kill("--expire", EXPIRED_FILES_DELETED, kinds);
    }
    let records = ingest(1);
    assert_eq!(verify.assert_good(), records);

    let (before, reached) = (on_disk(&lake), reachable(&verify));
    let orphans: BTreeSet<_> = before.difference(&reached).cloned().collect();
    assert!(orphans.len() >= 8, "each kill left something: {orphans:?}");
    let shown = maintained(&file, &["--orphans", "--older-than", "1ms", "--dry-run"]);
    assert_eq!(shown["orphan_files"].as_u64().unwrap() as usize, orphans.len(), "{shown:#}");
    assert_eq!(on_disk(&lake), before, "a dry run deletes nothing");
    kill("--orphans", ORPHAN_DELETED, 1);
    let report = maintained(&file, &["--orphans", "--older-than", "1ms"]);
    assert_eq!(report["deleted_files"].as_u64().unwrap() as usize, orphans.len() - 1, "{report:#}");
    assert_eq!(on_disk(&lake), reached);
    assert_eq!(verify.assert_good(), records);
    // And it still works.
    let all = maintained(&file, &[]);
    assert_eq!(all["error"], Value::Null, "{all:#}");
    assert_eq!(verify.assert_good(), records);
}

#[test]
fn commits_and_compaction_go_on_together() {
    let name = "commits_and_compaction_go_on_together";
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote(name));
    let topic = "maintain-together";
    create_topic(kafka, topic, 3, &[]);
    let tables = json!([{"topic": topic, "table": TABLE, "key": {"format": "string"}, "partition_by": ["bucket(2, kafka_offset)"]}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["defaults"]["commit_interval"] = "100ms".into();
    config["maintenance"] = json!({
        "min_files": 3, "interval": "100ms", "keep_snapshots": 20, "keep_min": 5, "keep_min_age": "2s",
    });
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let traffic = Traffic::start(kafka, registry, topic, Mix::GOOD, 7);
    let metric = |frazil: &Frazil, name: &str| frazil.metric(name, TABLE).unwrap_or(0);
    let verify = Verify::new(kafka, registry, &lake, topic, TABLE).with(&["--key", "string"]);
    let mut foreign = 0;
    for round in 1..=6 {
        eventually("compaction and commits advance", Duration::from_mins(2), || {
            let compactions = metric(&frazil, "frazil_compactions_total");
            let rows = metric(&frazil, "frazil_rows_committed_total");
            (compactions >= 4 * round && rows >= 300 * round).then_some(())
        });
        if round == 3 {
            traffic.evolve();
        }
        // Another engine commits too; where a commit of ours comes first, its try fails and is none of ours.
        foreign += u32::from(verify.python("meddle.py", &["--do", "append"]).status.success());
    }
    eventually("snapshots expire", Duration::from_mins(1), || {
        (metric(&frazil, "frazil_expired_snapshots_total") > 0).then_some(())
    });
    let mut produced = traffic.finish();
    let all_committed = |produced: u64| {
        eventually("everything is committed", Duration::from_mins(1), || {
            (metric(&frazil, "frazil_rows_committed_total") >= produced).then_some(())
        });
    };
    all_committed(produced);
    // Between commits so close to each other it may never have come first; now it does, and ours go on behind it.
    eventually("another engine's commit lands", Duration::from_mins(1), || {
        foreign += u32::from(verify.python("meddle.py", &["--do", "append"]).status.success());
        (foreign > 0).then_some(())
    });
    let traffic = Traffic::start(kafka, registry, topic, Mix::GOOD, 8);
    traffic.pass(300);
    produced += traffic.finish();
    all_committed(produced);
    let (commits, files) = (metric(&frazil, "frazil_files_committed_total"), metric(&frazil, "frazil_data_files"));
    eprintln!("{name}: {produced} rows in {commits} files became {files}; {foreign} foreign commits");
    assert!(commits > 50, "{commits} files");
    assert!(frazil.terminate(Duration::from_secs(30)).success());
    assert!(!frazil.log().contains("invariant broken"));
    assert_eq!(verify.assert_good(), produced);
    let file = write_config(&lake.path("maintain.yaml"), &config);
    let report = maintained(&file, &[]);
    assert!(report["health"]["data_files"].as_u64().unwrap() < 20, "{report:#}");
    assert!(report["health"]["snapshots"].as_u64().unwrap() <= 25, "{report:#}");
    assert_eq!(verify.assert_good(), produced);
}
