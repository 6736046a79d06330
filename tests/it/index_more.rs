//! The index where others have a part in it: a table of two topics, replicas that share a folder, rows that another
//! engine writes, changes and deletes. Each record is found once, and what is gone is found no more.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

use crate::evolution::metric;
use crate::kafka::{Producer, Record};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::search::{MINUTE, Tickets, await_indexed, ids, search, word};
use crate::services::{Kafka, Registry, ports};
use crate::verify::Verify;
use crate::wait::eventually;

const TABLE: &str = "shop.tickets";

/// A configuration with one table of tickets from these topics that can be searched.
fn config(lake: &Lake, topics: &[&str]) -> Value {
    let tables = json!([{
        "topics": topics, "table": TABLE, "key": {"format": "string"}, "commit_interval": "300ms",
        "metadata_columns": {"names": "kafka", "include": ["topic", "partition", "offset", "timestamp"]},
        "index": {"text": "{title}\n{body}", "filters": ["severity", "id"]},
    }]);
    let mut config = lake.config(Kafka::shared(), Registry::shared(), topics[0], &tables);
    config["index"] = json!({"uri": lake.path("index")});
    config
}

/// The same for a process beside that one.
fn beside(config: &Value) -> Value {
    let mut config = config.clone();
    config["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
    config
}

/// Sends tickets with these numbers, each with its word, to every topic.
fn send(senders: &[Tickets], numbers: Range<i64>) {
    for tickets in senders {
        numbers.clone().for_each(|number| tickets.send(number, &format!("Ticket {}", word(number)), None, "low"));
        tickets.flush();
    }
}

fn new_topics<const N: usize>(topics: [&str; N]) -> [Tickets; N] {
    topics.map(|topic| Tickets::new(Kafka::shared(), Registry::shared(), topic))
}

/// Commits what is in the topics without an index, so that one that begins then reads it out of the table's files.
#[track_caller]
fn commit_unindexed(lake: &Lake, config: &Value) {
    let mut ingest = Frazil::run(&lake.dir, config, &["--until-caught-up", "--roles", "ingest"], &[]);
    assert!(ingest.wait(MINUTE).success());
}

/// A service whose index has read the first 30 tickets of a new topic out of the table's files.
#[track_caller]
fn indexed_later(lake: &Lake, topic: &'static str) -> ([Tickets; 1], Frazil) {
    let (senders, configured) = (new_topics([topic]), config(lake, &[topic]));
    send(&senders, 0..30);
    commit_unindexed(lake, &configured);
    let service = Frazil::run(&lake.dir, &configured, &["--roles", "ingest,index"], &[]);
    await_total(&service, &[topic], 30);
    (senders, service)
}

/// Per partition the offset behind the first `total` tickets of a topic.
fn ends(total: i64) -> [i64; 3] {
    [0, 1, 2].map(|partition| (total - partition + 2) / 3)
}

/// Waits until so many tickets of each topic are in the index itself.
#[track_caller]
fn await_total(service: &Frazil, topics: &[&str], total: i64) {
    topics.iter().for_each(|topic| await_indexed(service, topic, ends(total)));
}

/// The same as a search asks for it.
fn at_least(topics: &[&str], total: i64) -> Value {
    let [a, b, c] = ends(total);
    topics.iter().map(|topic| ((*topic).to_owned(), json!({"0": a, "1": b, "2": c}))).collect()
}

#[track_caller]
fn await_entries(service: &Frazil, count: i64) {
    eventually(&format!("the index has {count} entries"), MINUTE, || {
        (service.metric("frazil_index_entries", TABLE)? == count.cast_unsigned()).then_some(())
    });
}

/// The records of the `number`th ticket, one of each topic, in the order of their names.
fn records(topics: &[&str], number: i64) -> Vec<String> {
    let mut records: Vec<_> = topics.iter().map(|topic| format!("{topic}/{}/{}", number % 3, number / 3)).collect();
    records.sort();
    records
}

/// A search for words, or for a record by its id, in the index alone.
fn indexed(query: &str) -> Value {
    json!({"query": query, "mode": "keyword", "include_hot": false, "limit": 50})
}

/// A search for a ticket's word that sees everything below these offsets, whether it is in the index yet or not.
fn fresh(number: i64, least: Value) -> Value {
    json!({"query": word(number), "mode": "keyword", "at_least": least, "timeout_ms": 30_000})
}

/// The records that a search finds, in the order of their names.
#[track_caller]
fn found(service: &Frazil, body: &Value) -> Vec<String> {
    let answer = search(service, body);
    let mut found: Vec<_> = ids(&answer).into_iter().map(str::to_owned).collect();
    found.sort();
    found
}

/// Each of these tickets is in the index, as one record of each topic.
#[track_caller]
fn assert_found_once(service: &Frazil, topics: &[&str], numbers: impl Iterator<Item = i64>) {
    let found = numbers.map(|number| (number, found(service, &indexed(&word(number)))));
    let wrong: BTreeMap<i64, Vec<String>> = found.filter(|(number, ids)| *ids != records(topics, *number)).collect();
    assert!(wrong.is_empty(), "found otherwise: {wrong:?}");
}

/// What another engine does to the table, as `tests/verify/foreign.py` has it; gives the snapshot.
#[track_caller]
fn foreign(lake: &Lake, topic: &str, arguments: &[&str]) -> i64 {
    let verify = Verify::new(Kafka::shared(), Registry::shared(), lake, topic, TABLE);
    let output = verify.python("foreign.py", arguments);
    assert!(output.status.success(), "foreign.py: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Waits until the index is of this snapshot.
#[track_caller]
fn await_snapshot(service: &Frazil, snapshot: i64) {
    eventually("the index has the snapshot", MINUTE, || {
        let (status, text) = service.post("/api/search", &indexed("anything"))?;
        let answer: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
        (answer["as_of"][TABLE]["snapshot_id"] == snapshot).then_some(())
    });
}

#[test]
fn records_of_two_topics_are_told_apart() {
    let lake = Lake::local("index_topics");
    let topics = ["index-calls", "index-letters"];
    let senders = new_topics(topics);
    let configured = config(&lake, &topics);
    // Both topics have the same texts at the same offsets: nothing but the topic tells their records apart.
    send(&senders, 0..60);
    commit_unindexed(&lake, &configured);
    let service = Frazil::run(&lake.dir, &configured, &[], &[]);
    await_total(&service, &topics, 60);
    // Those were read out of files; these are taken as they come.
    send(&senders, 60..120);
    let fresh = fresh(119, at_least(&topics, 120));
    assert_eq!(found(&service, &fresh), records(&topics, 119));
    await_total(&service, &topics, 120);
    assert_found_once(&service, &topics, 0..120);
    await_entries(&service, 240);
    for topic in topics {
        let mut of_topic = indexed(&word(77));
        of_topic["filter"] = format!("_topic = '{topic}'").into();
        assert_eq!(found(&service, &of_topic), records(&[topic], 77));
        let id = format!("{topic}/2/25");
        assert_eq!(found(&service, &indexed(&id)), std::slice::from_ref(&id));
    }
    assert_eq!(found(&service, &indexed("index-calls/2/40")), [""; 0], "no record has that offset");
}

#[test]
fn replicas_share_an_index_and_one_inherits_it() {
    let lake = Lake::remote("index_replicas");
    let topics = ["index-blue", "index-red"];
    let senders = new_topics(topics);
    let mut configured = config(&lake, &topics);
    // Who was killed is given up soon.
    configured["kafka"]["properties"] = json!({"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"});
    let roles = ["--roles", "ingest,index"];
    let mut sent = 4;
    send(&senders, 0..sent);
    let mut writer = Frazil::run(&lake.dir, &configured, &roles, &[]);
    await_total(&writer, &topics, sent);
    let heir = Frazil::run(&lake.dir, &beside(&configured), &roles, &[]);
    await_total(&heir, &topics, sent);
    let rebalances = format!("frazil_rebalances_total{{table=\"{TABLE}\"}}");
    eventually("the second replica is in the group", MINUTE, || (metric(&heir, &rebalances) > 0.0).then_some(()));
    let mut probe = |replicas: &[&Frazil]| {
        // One more than there are partitions, so that the last ticket lies in another one each time.
        send(&senders, sent..sent + 4);
        sent += 4;
        let last = sent - 1;
        let ask = fresh(last, at_least(&topics, sent));
        for replica in replicas {
            assert_eq!(found(replica, &ask), records(&topics, last), "of {sent}");
        }
        sent
    };
    for _ in 0..4 {
        probe(&[&writer, &heir]);
    }
    for replica in [&writer, &heir] {
        assert!(replica.metric("frazil_rows_committed_total", TABLE).is_some_and(|rows| rows > 0), "both have a part");
    }
    writer.kill();
    // Records go on being found, some of them once the lease of the dead one has run out.
    for _ in 0..2 {
        probe(&[&heir]);
    }
    let total = probe(&[&heir]);
    await_total(&heir, &topics, total);
    assert_found_once(&heir, &topics, 0..total);
    await_entries(&heir, 2 * total);
    let returned = Frazil::run(&lake.dir, &configured, &roles, &[]);
    await_total(&returned, &topics, total);
    assert_found_once(&returned, &topics, 0..total);
    // The index is made anew under both of them: under who writes it and under who looks on.
    let snapshot = foreign(&lake, topics[0], &["--delete", "id = 1"]);
    for replica in [&heir, &returned] {
        await_snapshot(replica, snapshot);
        assert_eq!(found(replica, &indexed(&word(1))), [""; 0]);
        assert_found_once(replica, &topics, (0..1).chain(2..total));
    }
}

#[test]
fn what_another_engine_writes_changes_and_deletes_is_followed() {
    let (lake, topic) = (Lake::local("index_foreign"), "index-foreign");
    let (senders, service) = indexed_later(&lake, topic);
    let write = |arguments: &[&str]| await_snapshot(&service, foreign(&lake, topic, arguments));

    // A row that names a record is found as that one, wherever the ledger stands; a row that names none is not.
    let rows = json!([
        {"id": 100, "title": "Foreign beyond the ledger", "kafka_partition": 0, "kafka_offset": 1_000_000},
        {"id": 101, "title": "Foreign of no record"},
    ]);
    write(&["--append", &rows.to_string()]);
    let beyond = format!("{topic}/0/1000000");
    assert_eq!(found(&service, &indexed("foreign")), std::slice::from_ref(&beyond));
    assert_eq!(found(&service, &indexed(&beyond)), [beyond]);
    await_entries(&service, 31);

    // A row that is changed is found by its new text, and by nothing of the old one.
    let row = json!([{"id": 7, "title": "Changed elsewhere", "kafka_partition": 1, "kafka_offset": 2}]);
    write(&["--delete", "id = 7", "--append", &row.to_string()]);
    assert_eq!(found(&service, &indexed("changed")), records(&[topic], 7));
    assert_eq!(found(&service, &indexed(&word(7))), [""; 0]);

    // A row that is deleted is found no more, those beside it in its file still are.
    write(&["--delete", "id = 8"]);
    assert_eq!(found(&service, &indexed(&word(8))), [""; 0]);
    assert_eq!(found(&service, &indexed(&records(&[topic], 8)[0])), [""; 0]);
    assert_found_once(&service, &[topic], (0..7).chain(9..30));
    await_entries(&service, 30);

    send(&senders, 30..36);
    await_total(&service, &[topic], 36);
    assert_found_once(&service, &[topic], 30..36);
    await_entries(&service, 36);
}

#[test]
fn words_are_found_in_a_table_that_was_emptied() {
    let (lake, topic) = (Lake::local("index_emptied"), "index-emptied");
    let (senders, service) = indexed_later(&lake, topic);
    await_snapshot(&service, foreign(&lake, topic, &["--delete", "id >= 0"]));
    assert_eq!(found(&service, &indexed(&word(3))), [""; 0]);
    await_entries(&service, 0);
    // The new index must not be taken for the one that lay in its place, with words of its own.
    send(&senders, 30..31);
    await_total(&service, &[topic], 31);
    assert_found_once(&service, &[topic], 30..31);
}

#[test]
fn a_dead_letter_that_another_engine_mends_is_found() {
    let (lake, topic) = (Lake::remote("index_mended"), "index-mended");
    let senders = new_topics([topic]);
    let configured = config(&lake, &[topic]);
    let roles = ["--roles", "ingest,index"];
    send(&senders, 0..30);
    let mut service = Frazil::run(&lake.dir, &configured, &roles, &[]);
    await_total(&service, &[topic], 30);
    assert!(service.terminate(MINUTE).success());
    // The lease is the table's: while a process with a folder of its own has it, the other one's index stands still.
    let mut other = beside(&configured);
    other["index"]["uri"] = json!(lake.path("index-elsewhere"));
    let mut holder = Frazil::run(&lake.dir, &other, &["--roles", "index"], &[]);
    await_total(&holder, &[topic], 30);
    let service = Frazil::run(&lake.dir, &configured, &roles, &[]);
    await_total(&service, &[topic], 30);
    let producer = Producer::new(Kafka::shared());
    let bad = Record { key: Some(b"bad"), value: Some(b"no ticket"), partition: Some(0), ..Record::default() };
    producer.send(topic, &bad);
    producer.flush();
    send(&senders, 30..31);
    let fresh = fresh(30, json!({topic: {"0": 12}}));
    let ticket = format!("{topic}/0/11");
    assert_eq!(found(&service, &fresh), std::slice::from_ref(&ticket));
    await_indexed(&holder, topic, [12, 10, 10]);
    // Its row belongs between the tickets' that this process still has in memory.
    let row = json!([{"title": "Mended by hand", "kafka_partition": 0, "kafka_offset": 10}]);
    let snapshot = foreign(&lake, topic, &["--append", &row.to_string()]);
    await_snapshot(&holder, snapshot);
    let mended = format!("{topic}/0/10");
    assert_eq!(found(&holder, &indexed("mended")), std::slice::from_ref(&mended), "read out of the files");
    let behind = search(&service, &indexed("mended"));
    assert_eq!(behind["as_of"][TABLE]["offsets"][topic]["0"], 10, "{behind}");
    assert!(holder.terminate(MINUTE).success());
    await_snapshot(&service, snapshot);
    assert_eq!(found(&service, &indexed(&word(30))), [ticket]);
    assert_eq!(found(&service, &indexed("mended")), [mended], "taken from memory and files together");
    await_entries(&service, 32);
}
