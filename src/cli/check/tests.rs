//! Tests of `check` against nothing at all, and of what one table's checks say.

use super::*;
use crate::cli::in_runtime;

/// Ports that nobody listens on: the discard service of no machine that runs tests.
fn config(dir: &Path, more: &str) -> std::path::PathBuf {
    let blocker = dir.join("file");
    std::fs::write(&blocker, "not a folder").unwrap();
    let yaml = format!(
        "kafka: {{bootstrap_servers: '127.0.0.1:9'}}\n\
         schema_registry: {{url: 'http://127.0.0.1:9'}}\n\
         catalog: {{uri: 'postgres://nobody@127.0.0.1:9/none', warehouse: '{}/below'}}\n\
         tables: [{{topic: orders, table: shop.orders}}]\n{more}",
        blocker.display()
    );
    let path = dir.join("frazil.yaml");
    std::fs::write(&path, yaml).unwrap();
    path
}

#[test]
fn against_nothing_each_check_fails_in_one_line_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = config(dir.path(), &format!("server: {{listen: '{}'}}\n", taken.local_addr().unwrap()));
    let lines = std::sync::Mutex::new(Vec::new());
    let took = std::sync::Mutex::new(std::time::Duration::ZERO);
    let code = in_runtime(async {
        let clock = clock();
        let report = report(&path, &clock).await;
        *took.lock().unwrap() = clock.elapsed();
        *lines.lock().unwrap() = report.text().lines().map(str::to_owned).collect();
        Ok(report.exit_code())
    });
    assert_eq!(code.unwrap(), FAILED);
    let lines = lines.into_inner().unwrap();
    let text = lines.join("\n");
    let begins: Vec<&str> = lines.iter().filter_map(|line| line.split_once(": ")).map(|(begin, _)| begin).collect();
    let warehouse = format!("failed   warehouse `{}/file/below`", dir.path().display());
    let listener = format!("failed   listener `{}`", taken.local_addr().unwrap());
    assert_eq!(
        begins,
        [
            "ok       configuration",
            "failed   kafka",
            "skipped  topic `orders`",
            "failed   schema registry",
            "failed   catalog",
            &warehouse,
            &listener,
            "skipped  formats of table `shop.orders`",
            "skipped  table `shop.orders`",
        ],
        "{text}"
    );
    for line in lines.iter().filter(|line| line.starts_with("failed")) {
        assert!(line.contains("; remedy: "), "{line}");
    }
    // Once the limit of an answer, with room for a machine that is busy.
    let took = *took.lock().unwrap();
    assert!(took < crate::cli::topics::ANSWER_LIMIT * 3, "{took:?}");
}

#[test]
fn a_wrong_configuration_is_the_only_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "tabels: []\n");
    let report = in_runtime_report(&path);
    assert_eq!(report.exit_code(), FAILED);
    let text = report.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.starts_with("failed   configuration: ") && text.contains("tabels") && text.contains("remedy"),
        "{text}"
    );
}

fn in_runtime_report(path: &Path) -> Report {
    let mut found = None;
    in_runtime(async {
        found = Some(report(path, &clock()).await);
        Ok(DONE)
    })
    .unwrap();
    found.unwrap()
}

mod tables {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use uuid::Uuid;

    use super::super::services::{States, Subjects};
    use super::super::{Outcome, table};
    use crate::cli::topics::TopicNow;
    use crate::config::Config;
    use crate::config::fields::Partitioning;
    use crate::model::ids::TopicPartition;
    use crate::model::ledger::{Position, TopicLedger};
    use crate::model::offsets::NextOffset;
    use crate::model::schema::{Field, TableSchema, Type};
    use crate::ports::{
        Progress, Recovery, RegisteredSchema, SchemaFormat, Suspension, TableShape, TableState, TopicFacts, Watermarks,
    };

    const SCHEMA: &str =
        r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"note","type":"string"}]}"#;

    fn subjects(text: &str) -> Subjects {
        let format = SchemaFormat::Avro;
        let schema = RegisteredSchema { id: 7, format, text: text.to_owned(), references: Vec::new() };
        Subjects::from([("orders-value".to_owned(), Some(Arc::new(schema)))])
    }

    /// The table with columns `id` and `note`, its ledger at 50.
    fn state(change: impl FnOnce(&mut TableState)) -> States {
        let partitions = BTreeMap::from([(0, Position { next: NextOffset(50), leader_epoch: None })]);
        let mut progress = Progress::default();
        progress.ledger.topics.insert("orders".to_owned(), TopicLedger { partitions, ..TopicLedger::default() });
        let fields = vec![Field::optional("id", Type::Long), Field::optional("note", Type::String)];
        let mut state = TableState {
            table: "shop.orders".parse().unwrap(),
            uuid: Uuid::nil(),
            snapshot_id: Some(1),
            sequence_number: 0,
            schema: Arc::new(TableSchema { schema_id: 0, ..TableSchema::of(fields) }),
            recovery: Recovery::At(progress),
            rows: 50,
            newest_ms: None,
            properties: Arc::default(),
            shape: Arc::default(),
        };
        change(&mut state);
        States::from([(state.table.clone(), Some(state))])
    }

    /// The last check of the table, with offsets from `low` to 100 in the topic.
    fn check(yaml: &str, low: i64, schema: &str, states: &States) -> (Outcome, String) {
        let yaml = format!(
            "kafka: {{bootstrap_servers: 'b:1'}}\nschema_registry: {{url: 'http://r:1'}}\n\
             catalog: {{uri: 'sqlite:///c.db', warehouse: /w}}\n\
             tables: [{{topic: orders, table: shop.orders, key: {{format: none}}, {yaml}}}]\n"
        );
        let config = Config::from_yaml(&yaml, &|_| None).unwrap();
        let facts = TopicFacts { cluster_id: "c".to_owned(), topic_id: None, partitions: vec![0] };
        let range = Watermarks { low: NextOffset(low), stable: NextOffset(100), high: NextOffset(100) };
        let ranges = BTreeMap::from([(TopicPartition::new("orders", 0), range)]);
        let topics = BTreeMap::from([("orders".to_owned(), TopicNow { facts, ranges })]);
        let checks = table::checks(&config, &config.tables[0], &topics, Some(&subjects(schema)), Some(states));
        let last = checks.last().unwrap();
        (last.outcome, format!("{} {}", last.found, last.remedy.clone().unwrap_or_default()))
    }

    #[test]
    fn a_new_table_shows_its_columns_and_refuses_unknown_ones() {
        let none = States::new();
        let (outcome, text) = check("", 0, SCHEMA, &none);
        assert_eq!(outcome, Outcome::Ok, "{text}");
        assert!(text.starts_with("will be made with columns id long, note string, kafka_partition int"), "{text}");
        let (outcome, text) = check("partition_by: [day(nowhere)]", 0, SCHEMA, &none);
        assert!(outcome == Outcome::Failed && text.contains("`partition_by` names column `nowhere`"), "{text}");
    }

    #[test]
    fn columns_and_rows_that_cannot_be_as_meant_are_told() {
        let check = |options: &str, schema: &str, states: &States| check(options, 0, schema, states);
        for states in [States::new(), state(|_| {})] {
            for (options, outcome, expected) in [
                ("columns: {rename: {note: text}}, where: text <> ''", Outcome::Ok, "text <> ''"),
                (
                    "columns: {rename: {note: text}}, where: note <> ''",
                    Outcome::Failed,
                    "neither table nor schema has `note`",
                ),
                ("where: note > now()", Outcome::Failed, "`now` does not always answer the same"),
                ("where: id + 1", Outcome::Failed, "neither true nor false"),
                ("columns: {exclude: [ID, later.x]}", Outcome::Warning, "no field is called `later.x`"),
                ("columns: {rename: {note: id}}", Outcome::Failed, "fields `id` and `note` would both be column `id`"),
                (
                    "columns: {exclude: [kafka_offset]}",
                    Outcome::Failed,
                    "names `kafka_offset`, a column about the record itself",
                ),
                ("columns: {rename: {note: KAFKA_OFFSET}}", Outcome::Failed, "names `KAFKA_OFFSET`, a column about"),
            ] {
                // The table of the first and second case has what was renamed under its old name as well.
                if !states.is_empty() && options.starts_with("columns: {rename: {note: text}}, where: note") {
                    continue;
                }
                let (found, text) = check(options, SCHEMA, &states);
                assert!(found == outcome && text.contains(expected), "{options}: {found:?} {text}");
            }
        }
        // Where columns come with the records, nobody knows yet.
        let (found, text) = check("value: {format: json}, where: status = 1", SCHEMA, &States::new());
        assert!(found == Outcome::Warning && text.contains("`status` is not there yet"), "{text}");
        let (found, text) = check("columns: {include: [id]}", SCHEMA, &States::new());
        assert!(
            found == Outcome::Ok && text.starts_with("will be made with columns id long, kafka_partition int"),
            "{text}"
        );
    }

    #[test]
    fn a_table_that_is_there_goes_on_or_says_why_not() {
        let ok = |text: &str, (outcome, found): (Outcome, String)| {
            assert!(outcome == Outcome::Ok && found.contains(text), "{outcome:?} {found}");
        };
        let failed = |text: &str, (outcome, found): (Outcome, String)| {
            assert!(outcome == Outcome::Failed && found.contains(text), "{outcome:?} {found}");
        };
        let as_made = state(|_| {});
        ok("50 rows, it goes on from its ledger", check("", 0, SCHEMA, &as_made));
        failed("deleted by retention", check("", 60, SCHEMA, &as_made));
        ok("goes on", check("on_gap: continue", 60, SCHEMA, &as_made));
        let more = SCHEMA.replace("]}", r#",{"name":"country","type":"string"}]}"#);
        ok("goes on from its ledger, add column `country` (string)", check("", 0, &more, &as_made));
        failed("id", check("", 0, &SCHEMA.replace("long", "boolean"), &as_made));
        let suspend = |state: &mut TableState| {
            let Recovery::At(progress) = &mut state.recovery else { return };
            progress.suspension = Some(Suspension { reason: "bad record".to_owned(), since_ms: 1 });
        };
        failed("frazil tables resume shop.orders", check("", 0, SCHEMA, &state(suspend)));
        let halted = state(|state| state.recovery = Recovery::Halted("rolled back".to_owned()));
        failed("rolled back", check("", 0, SCHEMA, &halted));
        let other = state(|state| {
            state.properties = Arc::new(BTreeMap::from([("frazil.mapping.time_as".to_owned(), "string".to_owned())]));
        });
        failed("`time_as`", check("", 0, SCHEMA, &other));
    }

    #[test]
    fn a_table_of_another_tool_is_shown_as_it_would_be_taken_over() {
        let foreign = |fields: Vec<Field>| {
            state(|state| {
                state.recovery = Recovery::Fresh;
                state.schema = Arc::new(TableSchema::of(fields));
                let partition_by = vec!["day(at)".parse::<Partitioning>().unwrap().0];
                let shape = TableShape { is_foreign: true, format_version: 2, partition_by, ..TableShape::default() };
                state.shape = Arc::new(shape);
            })
        };
        let fits = foreign(vec![Field::required("id", Type::Long), Field::optional("theirs", Type::Date)]);
        let (outcome, text) = check("", 0, SCHEMA, &fits);
        assert!(outcome == Outcome::Failed && text.contains("`existing: adopt`"), "{text}");
        let (outcome, text) = check("existing: adopt", 0, SCHEMA, &fits);
        assert_eq!(outcome, Outcome::Ok, "{text}");
        assert!(text.contains("columns to be added: note, kafka_partition"), "{text}");
        let (outcome, _) = check("existing: adopt, partition_by: [day(at)]", 0, SCHEMA, &fits);
        assert_eq!(outcome, Outcome::Ok);
        let (outcome, text) = check("existing: adopt, partition_by: [at]", 0, SCHEMA, &fits);
        assert!(outcome == Outcome::Failed && text.contains("records do not fit"), "{text}");
        let (outcome, text) = check("existing: adopt", 0, SCHEMA, &foreign(vec![Field::optional("id", Type::Int)]));
        assert!(outcome == Outcome::Failed && text.contains("records do not fit"), "{text}");
    }
}
