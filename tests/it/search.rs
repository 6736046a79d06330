//! Search on the running service: a record is found by its words and by its meaning as soon as it was read, before and
//! after its commit, exactly once, whatever dies; and the index is made anew where it is lost.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use apache_avro::types::Value as Avro;
use frazil::runtime::crash::{INDEX_APPENDED, INDEX_NOTED};
use serde_json::{Value, json};

use crate::avro::Encoder;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil};
use crate::services::{Kafka, Registry};
use crate::wait::eventually;

pub const MINUTE: Duration = Duration::from_mins(1);

const TICKET: &str = r#"{"type": "record", "name": "Ticket", "fields": [
    {"name": "id", "type": "long"},
    {"name": "title", "type": "string"},
    {"name": "body", "type": ["null", "string"], "default": null},
    {"name": "severity", "type": "string"}
]}"#;

/// Tickets, each in the partition of its number.
pub struct Tickets {
    topic: String,
    encoder: Encoder,
    producer: Producer,
}

impl Tickets {
    pub fn new(kafka: &Kafka, registry: &Registry, topic: &str) -> Self {
        create_topic(kafka, topic, 3, &[]);
        let encoder = Encoder::register(registry, &format!("{topic}-value"), TICKET);
        Self { topic: topic.to_owned(), encoder, producer: Producer::new(kafka) }
    }

    pub fn send(&self, id: i64, title: &str, body: Option<&str>, severity: &str) {
        self.send_at(id, title, body, severity, 1_767_225_600_000 + id * 60_000);
    }

    pub fn send_at(&self, id: i64, title: &str, body: Option<&str>, severity: &str, time_ms: i64) {
        let text = |text: &str| Avro::String(text.to_owned());
        let body = body.map_or(Avro::Union(0, Box::new(Avro::Null)), |body| Avro::Union(1, Box::new(text(body))));
        let value = self.encoder.encode(Avro::Record(vec![
            ("id".to_owned(), Avro::Long(id)),
            ("title".to_owned(), text(title)),
            ("body".to_owned(), body),
            ("severity".to_owned(), text(severity)),
        ]));
        let partition = Some(i32::try_from(id % 3).unwrap());
        let timestamp_ms = Some(time_ms);
        self.producer.send(&self.topic, &Record { value: Some(&value), partition, timestamp_ms, ..Record::default() });
    }

    /// Tickets of the everyday, of which none is looked for.
    fn filler(&self, ids: std::ops::Range<i64>) {
        for id in ids {
            self.send(id, &format!("Question number {id} about an invoice"), Some("Where can I download it?"), "low");
        }
    }

    pub fn flush(&self) {
        self.producer.flush();
    }
}

/// A configuration with one table of tickets that can be searched.
pub fn config(kafka: &Kafka, registry: &Registry, lake: &Lake, topic: &str, commit_interval: &str) -> Value {
    let index = json!({"text": "{title}\n{body}", "filters": ["severity", "id"]});
    let tables = json!([{
        "topic": topic, "table": "shop.tickets", "key": {"format": "string"}, "commit_interval": commit_interval,
        "index": index,
    }]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["index"] = json!({"uri": lake.path("index")});
    config
}

/// The answer to a search; panics on a refusal.
#[track_caller]
pub fn search(frazil: &Frazil, body: &Value) -> Value {
    let (status, text) = frazil.post("/api/search", body).expect("the listener answers");
    assert_eq!(status, 200, "{body}: {text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    for arm in answer["arms"].as_array().unwrap() {
        assert_eq!(arm["status"], "done", "{answer}");
    }
    answer
}

pub fn ids(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

/// Waits until so much of each partition is in the index itself.
pub fn await_indexed(frazil: &Frazil, topic: &str, offsets: [i64; 3]) {
    let ask = json!({"query": "anything", "include_hot": false});
    eventually("the index has come that far", MINUTE, || {
        let (status, text) = frazil.post("/api/search", &ask)?;
        let answer: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
        let reached = &answer["as_of"]["shop.tickets"]["offsets"][topic];
        let is_there = (0..3).all(|p| reached[p.to_string()].as_i64().is_some_and(|at| at >= offsets[p]));
        is_there.then_some(())
    });
}

#[test]
fn a_ticket_is_found_by_word_and_by_meaning_before_and_after_its_commit() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("search_fresh"));
    let tickets = Tickets::new(kafka, registry, "search-fresh");
    let mut configured = config(kafka, registry, &lake, "search-fresh", "1h");
    let mut service = Frazil::run(&lake.dir, &configured, &[], &[]);
    eventually("the service answers", MINUTE, || service.post("/api/search", &json!({"query": "x"})));
    tickets.filler(0..60);
    tickets.send(
        60,
        "The parcel never arrived",
        Some("The courier says it was handed over. Nobody was at home."),
        "high",
    );
    tickets.send(61, "Crash at login", Some("After the update the app closes by itself when I sign in."), "high");
    tickets.send(62, "Nothing more to say", None, "low");
    tickets.flush();
    let least = json!({"search-fresh": {"0": 21, "1": 21, "2": 21}});
    let ask = |more: Value| {
        let mut body = json!({"query": "my delivery is missing", "at_least": least, "timeout_ms": 30_000});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let check = |service: &Frazil, tier: &str| {
        let by_meaning = search(service, &ask(json!({"mode": "vector"})));
        assert_eq!(ids(&by_meaning)[0], "search-fresh/0/20", "{by_meaning}");
        assert_eq!(by_meaning["hits"][0]["tier"], tier);
        assert_eq!(by_meaning["as_of"]["shop.tickets"]["offsets"], least, "{by_meaning}");
        let by_word = search(service, &ask(json!({"query": "parcels arriving", "mode": "keyword"})));
        assert_eq!(ids(&by_word), ["search-fresh/0/20"], "{by_word}");
        assert_eq!(by_word["hits"][0]["matches"], json!([[4, 10], [17, 24]]), "{by_word}");
        assert_eq!(by_word["hits"][0]["event_time"], "2026-01-01T01:00:00.000Z");
        let both = search(service, &ask(json!({"query": "the app closes when I sign in"})));
        assert_eq!(ids(&both)[0], "search-fresh/1/20", "{both}");
        assert_eq!(ids(&both).len(), 10);
        // Filters and time windows hold in every arm.
        let filtered = search(service, &ask(json!({"filter": "severity = 'high' AND id > 60", "limit": 50})));
        assert_eq!(ids(&filtered), ["search-fresh/1/20"], "{filtered}");
        let window = json!({"time_from": "2026-01-01T01:00:00Z", "time_to": "2026-01-01T01:01:00Z", "limit": 50});
        assert_eq!(ids(&search(service, &ask(window))), ["search-fresh/0/20"]);
        // Text of one column alone; and a record by its id.
        let half = search(service, &ask(json!({"query": "nothing more", "mode": "keyword"})));
        assert_eq!(ids(&half), ["search-fresh/2/20"], "{half}");
        assert_eq!(ids(&search(service, &ask(json!({"query": "search-fresh/1/20"})))), ["search-fresh/1/20"]);
        assert_eq!(ids(&search(service, &ask(json!({"query": "search-fresh/1/99"})))), [""; 0]);
    };
    check(&service, "hot");
    let refused = |body: Value, wanted: &str| {
        let (status, text) = service.post("/api/search", &body).unwrap();
        assert!(status == 400 && text.contains(wanted), "{body}: {status} {text}");
    };
    refused(json!({"query": " "}), "is empty");
    refused(json!({"query": "x", "tables": ["shop.orders"]}), "these are: shop.tickets");
    refused(json!({"query": "x", "filter": "colour = 'red'"}), "severity");
    refused(json!({"query": "x", "filter": "severity = 'x' OR"}), "filter");
    refused(json!({"query": "x", "time_from": "yesterday"}), "2026-01-31T00:00:00Z");
    refused(json!({"query": "x", "at_least": {"orders": {"0": 1}}}), "orders");
    refused(json!({"query": "x".repeat(10_000)}), "bytes");
    // Words that no text has, and that the model does not know, are near nothing.
    let nothing = search(&service, &ask(json!({"query": "\u{1F980}\u{1F980}", "limit": 50})));
    assert_eq!(ids(&nothing), [""; 0], "{nothing}");
    refused(json!({"query": "x", "quantity": 3}), "quantity");
    assert!(service.terminate(MINUTE).success());

    configured["tables"][0]["commit_interval"] = "300ms".into();
    let service = Frazil::run(&lake.dir, &configured, &[], &[]);
    await_indexed(&service, "search-fresh", [21, 21, 21]);
    check(&service, "index");
    let printed = frazil(&["search", "-c", service.config.to_str().unwrap(), "parcel never arrived"]);
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.starts_with("search-fresh/0/20  shop.tickets  2026-01-01T01:00:00.000Z"), "{printed}");
}

/// Each ticket has a word of its own, by which exactly it must be found.
pub fn word(id: i64) -> String {
    // Letters only: digits and hyphens would be taken apart.
    let letters: String = id.to_string().bytes().map(|digit| char::from(b'a' + digit - b'0')).collect();
    format!("zq{letters}qz")
}

#[test]
fn every_ticket_is_found_exactly_once_whatever_dies() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("search_once"));
    let tickets = Tickets::new(kafka, registry, "search-once");
    let mut configured = config(kafka, registry, &lake, "search-once", "300ms");
    // What was killed is given up soon, so that the next one gets its partitions.
    configured["kafka"]["properties"] = json!({"session.timeout.ms": "6000"});
    let mut sent = 0;
    let mut send = |count: i64| {
        for id in sent..sent + count {
            tickets.send(id, &format!("Ticket {}", word(id)), Some("Nothing else."), "low");
        }
        tickets.flush();
        sent += count;
        sent
    };
    // Killed at random, and at each point between an application's entries and its position.
    let blows = [Some((INDEX_APPENDED, 1)), None, Some((INDEX_NOTED, 2)), Some((INDEX_APPENDED, 3))];
    for blow in blows {
        let point = blow.map(|(point, times)| format!("{point}:{times}"));
        let environment: Vec<(&str, &str)> = point.iter().map(|point| ("FRAZIL_CRASH_AT", point.as_str())).collect();
        let mut service = Frazil::run(&lake.dir, &configured, &[], &environment);
        let until = Instant::now() + if blow.is_some() { MINUTE } else { Duration::from_secs(4) };
        while service.is_running() && Instant::now() < until {
            let total = send(30);
            let last = total - 1;
            let least = json!({"search-once": {(last % 3).to_string(): last / 3 + 1}});
            let ask = json!({"query": word(last), "mode": "keyword", "at_least": least, "timeout_ms": 20_000});
            match service.post("/api/search", &ask) {
                Some((200, text)) => {
                    let answer: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(ids(&answer), [format!("search-once/{}/{}", last % 3, last / 3)], "{answer}");
                }
                // It has died, or not begun.
                None | Some((503, _)) => {}
                Some(other) => panic!("{other:?}"),
            }
        }
        assert!(blow.is_none() || !service.is_running(), "{blow:?} was never reached: {}", service.log());
        service.kill();
    }
    let total = send(7);
    Frazil::until_caught_up(&lake.dir, &configured, 2 * MINUTE);
    let service = Frazil::run(&lake.dir, &configured, &[], &[]);
    let end = |p: i64| (total - p + 2) / 3;
    await_indexed(&service, "search-once", [end(0), end(1), end(2)]);
    let mut wrong = BTreeMap::new();
    for id in 0..total {
        let ask = json!({"query": word(id), "mode": "keyword", "include_hot": false});
        let answer = search(&service, &ask);
        if ids(&answer) != [format!("search-once/{}/{}", id % 3, id / 3)] {
            wrong.insert(id, answer["hits"].clone());
        }
    }
    assert!(wrong.is_empty(), "{total} tickets, wrong are {wrong:?}");
    let entries =
        eventually("the entries are counted", MINUTE, || service.metric("frazil_index_entries", "shop.tickets"));
    assert_eq!(entries, u64::try_from(total).unwrap());
    eprintln!("{total} tickets, each found once");
}

#[test]
fn an_index_bears_wrong_filters_and_comes_back_under_a_running_service() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("search_bears"));
    let tickets = Tickets::new(kafka, registry, "search-bears");
    tickets.filler(0..300);
    tickets.flush();
    let configured = config(kafka, registry, &lake, "search-bears", "300ms");
    let service = Frazil::run(&lake.dir, &configured, &[], &[]);
    await_indexed(&service, "search-bears", [100, 100, 100]);
    let ask = json!({"query": "invoice 7", "mode": "keyword", "include_hot": false, "limit": 300});
    let found = search(&service, &ask);
    assert_eq!(ids(&found).len(), 300, "{found}");
    // A filter that fails on a value of some record is named, and harms nothing.
    for filter in ["CAST(severity AS BIGINT) = 1", "id / (id - id) = 1"] {
        for mode in ["keyword", "vector"] {
            let body = json!({"query": "invoice", "mode": mode, "filter": filter});
            let (status, text) = service.post("/api/search", &body).unwrap();
            assert!(status == 400 || text.contains("the filter cannot be applied"), "{filter}: {status} {text}");
            assert!(!text.contains("low"), "a record's value: {text}");
        }
    }
    assert!(
        !service.log().contains("making a new index; ") || service.log().matches("making a new index").count() == 1
    );
    assert!(!service.log().contains("'low'"), "a record's value is in the log");
    // Dropped while it runs and while somebody searches: it is made anew.
    let rebuilt = frazil(&["index", "rebuild", "-c", service.config.to_str().unwrap(), "shop.tickets"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    eventually("all tickets are found again", MINUTE, || {
        let (status, text) = service.post("/api/search", &ask)?;
        let answer: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
        (ids(&answer).len() == 300).then_some(())
    });
    assert!(lake.path("index/shop.tickets.lance").exists());
    tickets.send(300, "The parcel never arrived", None, "high");
    tickets.flush();
    await_indexed(&service, "search-bears", [101, 100, 100]);
    assert_eq!(ids(&search(&service, &json!({"query": "parcel", "mode": "keyword"}))), ["search-bears/0/100"]);
}

/// Enough for indexes of vectors, with parts that are merged.
#[test]
fn a_large_index_finds_what_a_small_one_does() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("search_large"));
    let tickets = Tickets::new(kafka, registry, "search-large");
    let configured = config(kafka, registry, &lake, "search-large", "300ms");
    let texts = ["the invoice is wrong", "a parcel is late", "the screen flickers", "a refund was promised"];
    let send = |ids: std::ops::Range<i64>| {
        for id in ids {
            let text = texts[usize::try_from(id % 4).unwrap()];
            tickets.send(id, &format!("{text}, says number {id}"), None, if id % 2 == 0 { "low" } else { "high" });
        }
        tickets.flush();
    };
    send(0..60_000);
    let service = Frazil::run(&lake.dir, &configured, &[], &[]);
    await_indexed(&service, "search-large", [20_000; 3]);
    tickets.send(60_000, "smoke came out of the kettle", Some("It smells of burnt plastic."), "high");
    send(60_001..84_000);
    await_indexed(&service, "search-large", [28_000; 3]);
    let indices = lake.path("index/shop.tickets.lance/_indices");
    eventually("words and vectors are indexed", 2 * MINUTE, || {
        let made = fs::read_dir(&indices).ok()?.count();
        (made >= 3).then_some(())
    });
    let burnt = json!({"query": "my appliance caught fire", "mode": "vector", "include_hot": false, "limit": 5});
    let answer = search(&service, &burnt);
    assert_eq!(ids(&answer)[0], "search-large/0/20000", "{answer}");
    let narrow = json!({"query": "kettle", "mode": "vector", "filter": "severity = 'low' AND id < 10", "limit": 50});
    assert_eq!(ids(&search(&service, &narrow)).len(), 5);
    for id in [0, 59_999, 60_001, 83_999] {
        let body = json!({"query": format!("{id}"), "mode": "keyword", "include_hot": false});
        assert_eq!(ids(&search(&service, &body)), [format!("search-large/{}/{}", id % 3, id / 3)], "{id}");
    }
    let entries =
        eventually("the entries are counted", MINUTE, || service.metric("frazil_index_entries", "shop.tickets"));
    assert_eq!(entries, 84_000);
}

#[test]
fn an_index_that_is_lost_damaged_or_defined_otherwise_is_made_anew() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("search_anew"));
    let tickets = Tickets::new(kafka, registry, "search-anew");
    tickets.filler(0..300);
    tickets.send(300, "The parcel never arrived", None, "high");
    tickets.flush();
    let mut configured = config(kafka, registry, &lake, "search-anew", "300ms");
    Frazil::until_caught_up(&lake.dir, &configured, MINUTE);
    let folder = lake.path("index/shop.tickets.lance");
    let file = crate::process::write_config(&lake.path("anew.yaml"), &configured);
    let check = |configured: &Value| {
        Frazil::until_caught_up(&lake.dir, configured, MINUTE);
        let mut service = Frazil::run(&lake.dir, configured, &[], &[]);
        await_indexed(&service, "search-anew", [101, 100, 100]);
        let entries =
            eventually("entries are counted", MINUTE, || service.metric("frazil_index_entries", "shop.tickets"));
        assert_eq!(entries, 301);
        let answer = search(&service, &json!({"query": "parcel", "mode": "keyword", "include_hot": false}));
        assert_eq!(ids(&answer), ["search-anew/0/100"], "{answer}");
        assert!(service.terminate(MINUTE).success());
        service.log()
    };
    assert!(!check(&configured).contains("making a new index"), "an index that is whole is gone on with");
    fs::remove_dir_all(&folder).unwrap();
    check(&configured);
    // An operator drops it, entries are lost, versions are overwritten.
    let rebuilt = frazil(&["index", "rebuild", "-c", file.to_str().unwrap(), "shop.tickets"]);
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    assert!(!folder.exists());
    check(&configured);
    fs::remove_dir_all(folder.join("data")).unwrap();
    check(&configured);
    for version in fs::read_dir(folder.join("_versions")).unwrap() {
        fs::write(version.unwrap().path(), b"no manifest").unwrap();
    }
    check(&configured);
    // Another text: other entries.
    configured["tables"][0]["index"]["text"] = "{title}".into();
    check(&configured);
    let unknown = frazil(&["index", "rebuild", "-c", file.to_str().unwrap(), "shop.orders"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("shop.tickets"));
}
