//! Every configuration mistake with its exact message, and what settings mean. The example's tests are in `example`.

use std::time::Duration;

use url::Url;

use super::choices::{KeyColumns, MetadataNames, OnError, Scope, TimeAs};
use super::fields::{Start, TokenHash};
use super::resolve::{CatalogKind, RegistryAuth};
use super::table::SideFormat;
use super::*;
use crate::error::ErrorKind;
use crate::model::mapping::difference;
use crate::ports::{PartitionField, SchemaFormat, Transform};

const LEAST: &str = "kafka: {bootstrap_servers: b:9092}\ncatalog: {uri: 'sqlite://c.db', warehouse: /w}\n";
const HASH: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn no_env(_: &str) -> Option<String> {
    None
}

pub(super) fn load(rest: &str) -> Result<Config> {
    Config::from_yaml(&format!("{LEAST}{rest}"), &no_env)
}

pub(super) fn check_mistake(yaml: &str, expected: &str) {
    let error = load(yaml).expect_err(yaml);
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidConfig, expected), "{yaml}");
}

#[test]
fn every_mistake_in_a_table_names_its_key_and_remedy() {
    let table = |option: &str| format!("tables: [{{topic: t, {option}}}]");
    let field = "write a column, or year, month, day or hour of one, as in `day(created)`, or `bucket(16, id)`, or `truncate(4, code)`";
    let duration = "is not a duration; write a number and a unit (ms, s, m, h, d), as in `10s`";
    let size = "is not a size; write a number and a unit (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB), as in `512MiB`";
    let start = "is no start position; write earliest, latest, a time (2026-01-31T00:00:00Z, or milliseconds since the epoch), or offsets by partition, as in `{0: 1200}`";
    let above_0 = "it must be above 0; raise it, or remove it for its default";
    let cases = [
        ("topics: [u]", "setting `tables[0].topics`: `topic` is written too; keep one of them".to_owned()),
        (
            "index: {}",
            "setting `tables[0].index.text`: it is missing; write the columns that are searched, as in `text: \"{title}\\n{body}\"`".to_owned(),
        ),
        (
            "index: {text: 'no column'}",
            "setting `tables[0].index.text`: no column stands in it; write columns as `{title}`, and `{{` for a brace".to_owned(),
        ),
        (
            "index: {text: '{a}', filters: [_time]}",
            "setting `tables[0].index.filters`: `_time` begins with `_`, as the index's own columns do; such a column cannot be a filter".to_owned(),
        ),
        ("partitoned_by: []", "setting `tables[0].partitoned_by`: no setting of this name is known; did you mean `partition_by`?".to_owned()),
        ("table: '{field}'", "setting `tables[0].table`: `{field}` is no part of a name; write `{topic}`, `{record_name}`, `{header:name}` or `{field:path}`".to_owned()),
        ("table: a..b", "setting `tables[0].table`: `a..b` is no table name; write `namespace.name`".to_owned()),
        ("table: a/b.c", "setting `tables[0].table`: `a/b.c` has the character '/'; leave it out".to_owned()),
        ("key: {format: json}", "setting `tables[0].key.schema`: format `json` needs it; write the schema here, or its file under `schema_file`".to_owned()),
        ("value: {format: string, subject: s}", "setting `tables[0].value.subject`: format `string` asks no registry; remove it, or write format `registry`".to_owned()),
        ("key: {format: avro}", "setting `tables[0].key.schema`: format `avro` needs it; write the schema here, or its file under `schema_file`".to_owned()),
        ("key: {schema: x}", "setting `tables[0].key.schema`: format `auto` takes none; remove it, or write format `avro`, `protobuf` or `json`".to_owned()),
        ("key: {schema_file: x}", "setting `tables[0].key.schema_file`: format `auto` takes none; remove it, or write format `avro`, `protobuf` or `json`".to_owned()),
        ("key: {format: avro, schema: x, schema_file: y}", "setting `tables[0].key.schema_file`: `schema` is written too; keep one of them".to_owned()),
        ("key: {format: avro, schema: '{'}", "setting `tables[0].key.schema`: it is no JSON; write the schema's text".to_owned()),
        ("key: {format: avro, schema_file: /no/such}", "setting `tables[0].key.schema_file`: file `/no/such` cannot be read; mend the path or its permissions".to_owned()),
        ("key: {columns: flattened}", "setting `tables[0].key.columns`: `flattened` is not among its words; did you mean `flatten`?".to_owned()),
        ("key: flatten", "setting `tables[0].key`: invalid type: a string, expected settings, as in `name: value`".to_owned()),
        ("value: {format: protobuf}", "setting `tables[0].value.schema`: format `protobuf` needs it; write the schema here, or its file under `schema_file`".to_owned()),
        ("value: {format: xml}", "setting `tables[0].value.format`: `xml` is not among its words; write one of `auto`, `registry`, `avro`, `protobuf`, `json`, `string`, `bytes`".to_owned()),
        ("value: {format: registry}", "setting `schema_registry.url`: it is missing, and `tables[0].value` has format `registry`; write it".to_owned()),
        ("key: {format: registry}", "setting `schema_registry.url`: it is missing, and `tables[0].key` has format `registry`; write it".to_owned()),
        ("start: 17", format!("setting `tables[0].start`: `17` {start}")),
        ("start: oldest", format!("setting `tables[0].start`: `oldest` {start}")),
        ("start: {0: -1}", "setting `tables[0].start`: partitions and offsets count from 0".to_owned()),
        ("metadata_columns: {names: confluent}", "setting `tables[0].metadata_columns.names`: `confluent` is not among its words; write one of `kafka`, `tableflow`, `tableflow-portable`".to_owned()),
        ("metadata_columns: {include: [offset]}", "setting `tables[0].metadata_columns.include`: `partition` is part of a row's identity and cannot be left out; add it".to_owned()),
        ("metadata_columns: {include: [partition, offset, offset]}", "setting `tables[0].metadata_columns.include[2]`: it is written twice; remove one".to_owned()),
        ("partition_by: [a, dya(ts)]", format!("setting `tables[0].partition_by[1]`: `dya(ts)` is no partition field (no such transform); {field}")),
        ("partition_by: ['bucket(id)']", format!("setting `tables[0].partition_by[0]`: `bucket(id)` is no partition field (it takes a number and a column); {field}")),
        ("partition_by: [a, a]", "setting `tables[0].partition_by[1]`: it is written twice; remove one".to_owned()),
        ("sort_by: [a, b, a]", "setting `tables[0].sort_by[2]`: it is written twice; remove one".to_owned()),
        ("format_version: 4", "setting `tables[0].format_version`: `4` is no Iceberg format version; write 2 or 3".to_owned()),
        ("format_version: 1", "setting `tables[0].format_version`: `1` is no Iceberg format version; write 2 or 3".to_owned()),
        ("commit_interval: 10", format!("setting `tables[0].commit_interval`: `10` {duration}")),
        ("commit_interval: 0s", format!("setting `tables[0].commit_interval`: {above_0}")),
        ("commit_bytes: 5 megs", format!("setting `tables[0].commit_bytes`: `5 megs` {size}")),
        ("commit_bytes: 0", format!("setting `tables[0].commit_bytes`: {above_0}")),
        ("commit_rows: many", "setting `tables[0].commit_rows`: `many` is not a whole number in range".to_owned()),
        ("commit_rows: 0", format!("setting `tables[0].commit_rows`: {above_0}")),
        ("max_record_bytes: 0", format!("setting `tables[0].max_record_bytes`: {above_0}")),
        ("dead_letter_topic: t", "setting `tables[0].dead_letter_topic`: the table reads `t` itself; name another topic".to_owned()),
        ("dead_letter_topic: 'a b'", "setting `tables[0].dead_letter_topic`: `a b` cannot be a topic; names have 1 to 249 letters, digits, `.`, `_` and `-`".to_owned()),
        ("on_error: skip, dead_letter_topic: d", "setting `tables[0].dead_letter_topic`: without `on_error: dead_letter` there are no dead letters; remove it".to_owned()),
        ("on_error: deadletter", "setting `tables[0].on_error`: `deadletter` is not among its words; did you mean `dead_letter`?".to_owned()),
        ("on_gap: ignore", "setting `tables[0].on_gap`: `ignore` is not among its words; write one of `fail`, `continue`".to_owned()),
        ("compression: gzip", "setting `tables[0].compression`: `gzip` is no compression; write zstd, zstd(1) to zstd(22), lz4, snappy or none".to_owned()),
        ("properties: {frazil.x: y}", "setting `tables[0].properties.frazil.x`: properties that begin with `frazil.` are frazil's own; remove it".to_owned()),
    ];
    for (option, expected) in cases {
        check_mistake(&table(option), &expected);
    }
}

#[test]
fn every_mistake_between_tables_and_in_defaults_names_its_key_and_remedy() {
    let cases = [
        (
            "tables: [{table: a.b}]",
            "setting `tables[0].topic`: it is missing; name the topic, several under `topics`, or a `topic_pattern`",
        ),
        (
            "tables: [{topics: []}]",
            "setting `tables[0].topic`: it is missing; name the topic, several under `topics`, or a `topic_pattern`",
        ),
        (
            "tables: [{topic: 'a b'}]",
            "setting `tables[0].topic`: `a b` cannot be a topic; names have 1 to 249 letters, digits, `.`, `_` and `-`",
        ),
        ("tables: [{topics: [a, a], table: x}]", "setting `tables[0].topics[1]`: it is written twice; remove one"),
        (
            "tables: [{topics: [a, b]}]",
            "setting `tables[0].table`: the table has several topics; give it a name without `{topic}`",
        ),
        (
            "tables: [{topics: [a, b], table: x, metadata_columns: {include: [partition, offset]}}]",
            "setting `tables[0].metadata_columns.include`: `topic` is part of a row's identity and cannot be left out; add it",
        ),
        (
            "tables: [{topic: a.b}, {topic: a_b}]",
            "setting `tables[1].table`: table `lake.a_b` belongs to `tables[0]` already; name another, or list the topics together under `topics`",
        ),
        (
            "tables: [{topic: a}, {topic: a__dead_letters}]",
            "setting `tables[1].table`: table `lake.a__dead_letters` belongs to `tables[0]` already; name another, or list the topics together under `topics`",
        ),
        ("defaults: {topic: a}", "setting `defaults.topic`: no setting of this name is known; write one of "),
        (
            "defaults: {commit_interval: 0s}\ntables: [{topic: a}]",
            "setting `defaults.commit_interval`: it must be above 0; raise it, or remove it for its default",
        ),
        (
            "defaults: {key: {schema: x}}\ntables: [{topic: a}]",
            "setting `defaults.key.schema`: format `auto` takes none; remove it, or write format `avro`, `protobuf` or `json`",
        ),
        (
            "defaults: {metadata_columns: {include: []}}\ntables: [{topic: a}]",
            "setting `defaults.metadata_columns.include`: `partition` is part of a row's identity and cannot be left out; add it",
        ),
        (
            "defaults: {properties: {frazil.a: b}}\ntables: [{topic: a}]",
            "setting `defaults.properties.frazil.a`: properties that begin with `frazil.` are frazil's own; remove it",
        ),
    ];
    for (yaml, expected) in cases {
        if expected.ends_with(' ') {
            let error = load(yaml).expect_err(yaml).to_string();
            assert!(error.starts_with(expected), "{yaml}: {error}");
        } else {
            check_mistake(yaml, expected);
        }
    }
    let error = load("").unwrap().require_tables().unwrap_err();
    assert_eq!(
        error.to_string(),
        "setting `tables`: no table is named, so there is nothing to do; add one, as in `- topic: orders`"
    );
}

#[test]
fn every_mistake_at_the_top_and_in_the_registry_names_its_key_and_remedy() {
    let cases = [
        ("kafak: {}".to_owned(), "setting `kafak`: no setting of this name is known; did you mean `kafka`?"),
        (
            "index: {uri: 's3://bucket/index'}".to_owned(),
            "setting `index.uri`: `s3://bucket/index` is no folder; indexes in object stores come with a later version of frazil",
        ),
        (
            "schema_registry: {}".to_owned(),
            "setting `schema_registry.url`: it is missing; write it, as in `url: http://localhost:8081`",
        ),
        (
            "schema_registry: {url: nowhere}".to_owned(),
            "setting `schema_registry.url`: it is no address; write `http://host:port` or `https://host:port`",
        ),
        (
            "schema_registry: {url: 'localhost:8081'}".to_owned(),
            "setting `schema_registry.url`: it is no HTTP address; write `http://host:port` or `https://host:port`",
        ),
        (
            "schema_registry: {url: 'http://u:p@h'}".to_owned(),
            "setting `schema_registry.url`: it holds a user or a password; write them as `username` and `password` beside it",
        ),
        (
            "schema_registry: {url: 'http://h', password: p}".to_owned(),
            "setting `schema_registry.username`: it is missing beside `password`; write both or none",
        ),
        (
            "schema_registry: {url: 'http://h', username: u, bearer_token: p}".to_owned(),
            "setting `schema_registry.bearer_token`: `username` or `password` is written too; keep one kind of authentication",
        ),
        (
            "schema_registry: {url: 'http://h', tls: {cert: c}}".to_owned(),
            "setting `schema_registry.tls.key`: it is missing beside `cert`; write both or none",
        ),
        (
            "schema_registry: {url: 'http://h', password: 1e5}".to_owned(),
            "setting `schema_registry.password`: a number with a fraction or an exponent is not taken here; for a text put it into quotes",
        ),
        (
            "schema_registry: hunter2".to_owned(),
            "setting `schema_registry`: invalid type: a string, expected settings, as in `name: value`",
        ),
    ];
    for (yaml, expected) in cases {
        check_mistake(&yaml, expected);
    }
}

#[test]
fn every_mistake_in_maintenance_names_its_key_and_remedy() {
    let cases = [
        (
            "maintenance: {keep_snapshots: 5}",
            "setting `maintenance.keep_min`: it is above `keep_snapshots`; lower it, or raise the other",
        ),
        ("maintenance: {memory: 1MiB}", "setting `maintenance.memory`: 1048576 bytes are too few; write 64MiB or more"),
        (
            "maintenance: {orphan_grace: 1h}\ntables: [{topic: t, table: a.t, commit_interval: 31m}]",
            "setting `maintenance.orphan_grace`: it is less than twice the `commit_interval` of table `a.t`; raise it, or lower the other",
        ),
        (
            "maintenance: {keep_for: 1m}",
            "setting `maintenance.keep_min_age`: it is above `keep_for`; lower it, or raise the other",
        ),
    ];
    for (yaml, expected) in cases {
        check_mistake(yaml, expected);
    }
}

#[test]
fn every_mistake_in_limits_and_server_names_its_key_and_remedy() {
    let token = |rest: &str| format!("server: {{auth: {{tokens: [{{{rest}}}]}}}}");
    let no_hash = "setting `server.auth.tokens[0].hash`: this is no token hash; write `sha256:` and 64 hex digits, as `printf %s \"$TOKEN\" | sha256sum` prints them";
    let open = "setting `server.listen`: `0.0.0.0:80` is open to the network and needs `server.tls` and `server.auth.tokens`; write both, or listen on 127.0.0.1";
    let cases = [
        ("memory_budget: 1MiB".to_owned(), "setting `memory_budget`: 1048576 bytes are too few; write 32MiB or more"),
        (
            "log: {level: 'a=b=c'}".to_owned(),
            "setting `log.level`: `a=b=c` is no filter; write error, warn, info, debug or trace",
        ),
        ("log: {format: jsn}".to_owned(), "setting `log.format`: `jsn` is not among its words; did you mean `json`?"),
        (
            "shutdown_timeout: 0s".to_owned(),
            "setting `shutdown_timeout`: it must be above 0; raise it, or remove it for its default",
        ),
        (
            "sql: {max_rows: 0}".to_owned(),
            "setting `sql.max_rows`: it must be above 0; raise it, or remove it for its default",
        ),
        ("compute_threads: -1".to_owned(), "setting `compute_threads`: `-1` is not a whole number in range"),
        (
            "compute_threads: 0".to_owned(),
            "setting `compute_threads`: it must be above 0; raise it, or remove it for its default",
        ),
        (
            "server: {listen: 'localhost:80'}".to_owned(),
            "setting `server.listen`: `localhost:80` is no address and port; write them in numbers, as in `127.0.0.1:8181`",
        ),
        ("server: {listen: '0.0.0.0:80'}".to_owned(), open),
        ("server: {listen: '0.0.0.0:80', tls: {cert: c, key: k}}".to_owned(), open),
        (
            "server: {tls: {key: k}}".to_owned(),
            "setting `server.tls.cert`: it is missing beside `key`; write both or none",
        ),
        (token("name: a, hash: mytoken, scopes: [read]"), no_hash),
        (
            token("name: a, scopes: [read]"),
            "setting `server.auth.tokens[0].hash`: it is missing; write it, as in `hash: sha256:…`",
        ),
        (
            token(&format!("hash: '{HASH}', scopes: [read]")),
            "setting `server.auth.tokens[0].name`: it is missing; write it, as in `name: grafana`",
        ),
        (
            token(&format!("name: a, hash: '{HASH}'")),
            "setting `server.auth.tokens[0].scopes`: it is missing; write it, as in `scopes: [read]`",
        ),
        (
            token(&format!("name: a, hash: '{HASH}', scopes: [reed]")),
            "setting `server.auth.tokens[0].scopes[0]`: `reed` is not among its words; did you mean `read`?",
        ),
        (
            token(&format!("name: a, hash: '{HASH}', scopes: [read]}}, {{name: a, hash: '{HASH}', scopes: [read]")),
            "setting `server.auth.tokens[1].name`: `a` is written twice; name one of them otherwise",
        ),
    ];
    for (yaml, expected) in cases {
        check_mistake(&yaml, expected);
    }
}

#[test]
fn every_mistake_in_kafka_and_catalog_names_its_key_and_remedy() {
    let catalog = "catalog: {uri: 'sqlite://c.db', warehouse: /w}";
    let kafka = |rest: &str| format!("kafka: {{bootstrap_servers: b, {rest}}}\n{catalog}");
    let with_catalog = |rest: &str| format!("kafka: {{bootstrap_servers: b}}\ncatalog: {{{rest}}}");
    let cases = [
        (
            String::new(),
            "setting `kafka.bootstrap_servers`: it is missing; write it, as in `bootstrap_servers: localhost:9092`",
        ),
        (
            "kafka: {bootstrap_servers: 'a,,b'}".to_owned(),
            "setting `kafka.bootstrap_servers`: a server is empty; write `host:port`, separated by commas",
        ),
        (kafka("group_id: ''"), "setting `kafka.group_id`: it is empty; write a name, or remove it for its default"),
        (
            kafka("group_id: '${GROUP}'"),
            "setting `kafka.group_id`: environment variable `GROUP` is not set; set it or give a default, as in `${GROUP:-value}`",
        ),
        (
            kafka("properties: {group.id: x}"),
            "setting `kafka.properties.group.id`: frazil sets this property itself; write it as `kafka.group_id`",
        ),
        (
            kafka("properties: {auto.offset.reset: x}"),
            "setting `kafka.properties.auto.offset.reset`: frazil sets this property itself; remove it and use a table's `start` and `on_gap`",
        ),
        (
            kafka("properties: {isolation.level: x}"),
            "setting `kafka.properties.isolation.level`: it is neither `read_committed` nor `read_uncommitted`; write one of them",
        ),
        (
            with_catalog("warehouse: /w"),
            "setting `catalog.uri`: it is missing; write it, as in `uri: sqlite://frazil/catalog.db`",
        ),
        (
            with_catalog("uri: 'sqlite://x'"),
            "setting `catalog.warehouse`: it is missing; write it, as in `warehouse: frazil/warehouse`",
        ),
        (
            with_catalog("uri: 'mysql://x', warehouse: /w"),
            "setting `catalog.uri`: it is no address of a database; write `sqlite://path` or `postgres://user:password@host/database`",
        ),
        (
            with_catalog("type: rest"),
            "setting `catalog.type`: `rest` comes with a later version of frazil; leave it out",
        ),
        (
            with_catalog("uri: 'sqlite://x', warehouse: 'ftp://x'"),
            "setting `catalog.warehouse`: `ftp://` is no known store; write a path, or `file://`, `s3://`, `s3a://`, `gs://`, `az://`, `azure://`, `abfs://`, `abfss://`, `adl://`",
        ),
        ("a: [".to_owned(), "the configuration is no valid YAML"),
        ("- a".to_owned(), "the configuration: invalid type: sequence, expected settings, as in `name: value`"),
    ];
    for (yaml, expected) in cases {
        let error = Config::from_yaml(&yaml, &no_env).expect_err(&yaml);
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidConfig, expected), "{yaml}");
    }
}

#[test]
fn settings_mean_what_they_say() {
    let env = |name: &str| match name {
        "DIGITS" => Some("0123456789e5".to_owned()),
        "ROWS" => Some("700".to_owned()),
        _ => None,
    };
    let yaml = format!(
        "{LEAST}schema_registry: {{url: 'http://a:1, https://b', username: u, password: '${{DIGITS}}'}}
storage: {{aws_region: eu, aws_token: '${{NONE:-}}'}}
defaults: {{namespace: bronze, on_error: skip, commit_rows: '${{ROWS}}', key: {{columns: raw}}, metadata_columns: {{names: tableflow}}}}
server: {{listen: '0.0.0.0:80', tls: {{cert: c, key: k}}, auth: {{tokens: [{{name: a, hash: '{HASH}', scopes: [metrics, read]}}]}}}}
tables:
  - topic: shop.orders-v1
    start: {{0: 5}}
    partition_by: [day(ts), 'bucket(id, 16)']
  - {{topics: [a, b], table: x.y.z, on_error: suspend, commit_interval: 500ms, key: {{format: avro, schema: '\"long\"'}}, time_as: string, metadata_columns: {{}}}}
  - {{topic: c, table: 'raw_{{topic}}'}}"
    );
    let config = Config::from_yaml(&yaml, &env).unwrap();
    let registry = config.schema_registry.unwrap();
    assert_eq!(registry.urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1/", "https://b/"]);
    assert_eq!(registry.auth, RegistryAuth::Basic { username: "u".to_owned(), password: Secret::from("0123456789e5") });
    assert_eq!(config.storage, [("aws_region".to_owned(), Secret::from("eu"))].into());
    assert_eq!(config.catalog.kind, CatalogKind::Sql { uri: Secret::from("sqlite://c.db") });
    assert_eq!((config.catalog.warehouse.as_str(), config.memory_budget), ("/w", 512 << 20));
    assert_eq!(config.server.tokens[0].scopes, [Scope::Read, Scope::Metrics].into());
    assert_eq!(config.server.tokens[0].hash, TokenHash::of("test"));

    let [orders, xyz, c] = config.tables.as_slice() else { panic!("three tables") };
    assert_eq!(orders.table.to_string(), "bronze.shop_orders_v1");
    assert_eq!((orders.on_error, orders.commit_rows, orders.key.columns), (OnError::Skip, Some(700), KeyColumns::Raw));
    assert_eq!((orders.metadata.names, orders.time_as), (MetadataNames::Tableflow, TimeAs::Time));
    assert_eq!(orders.start, Start::Offsets([(0, 5)].into()));
    let bucket = PartitionField { column: "id".to_owned(), transform: Transform::Bucket(16) };
    assert_eq!(orders.partition_by, [PartitionField { column: "ts".to_owned(), transform: Transform::Day }, bucket]);
    assert_eq!(
        (xyz.table.to_string().as_str(), xyz.topics.as_slice()),
        ("x.y.z", ["a".to_owned(), "b".to_owned()].as_slice())
    );
    assert_eq!(
        (xyz.on_error, xyz.commit_interval, xyz.time_as),
        (OnError::Suspend, Duration::from_millis(500), TimeAs::String)
    );
    assert_eq!(
        (&xyz.key.side.format, xyz.key.columns),
        (&SideFormat::Given { language: SchemaFormat::Avro, schema: "\"long\"".to_owned() }, KeyColumns::Flatten)
    );
    assert_eq!(xyz.metadata.names, MetadataNames::Kafka);
    assert_eq!(c.table.to_string(), "bronze.raw_c");
}

#[test]
fn a_relative_warehouse_lies_below_the_current_directory() {
    let yaml = "kafka: {bootstrap_servers: b}\ncatalog: {uri: 'sqlite://c.db', warehouse: w/x}";
    let config = Config::from_yaml(yaml, &no_env).unwrap();
    assert_eq!(Path::new(&config.catalog.warehouse), std::env::current_dir().unwrap().join("w/x"));
}

#[test]
fn no_output_shows_a_secret() {
    let yaml = "kafka: {bootstrap_servers: b, properties: {sasl.password: hunter2}}
catalog: {uri: 'postgres://u:hunter2@h/d', warehouse: /w}
storage: {aws_secret_access_key: hunter2}
schema_registry: {url: 'http://h', bearer_token: hunter2}";
    let shown = format!("{:?}", Config::from_yaml(yaml, &no_env).unwrap());
    assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_changed_mapping_is_told_and_other_changes_are_not() {
    let mapping = |options: &str| load(&format!("tables: [{{topic: t, {options}}}]")).unwrap().tables[0].mapping();
    let stored = mapping("partition_by: [day(ts)]");
    assert_eq!(stored["frazil.mapping.version"], "1");
    assert_eq!(stored["frazil.mapping.partition_by"], "day(ts)");
    assert_eq!(
        difference(&stored, &mapping("partition_by: ['day(ts)'], commit_interval: 1s, on_error: skip")),
        Vec::<String>::new()
    );
    let mut properties = stored.clone();
    properties.insert("owner".to_owned(), "me".to_owned());
    properties.remove("frazil.mapping.sort_by");
    assert_eq!(
        difference(&properties, &mapping("partition_by: [day(ts), 'bucket(4, id)'], time_as: time")),
        [
            "`partition_by`: the table was made with `day(ts)`, the configuration has `day(ts), bucket(4, id)`",
            "`time_as`: the table was made with `long`, the configuration has `time`",
        ]
    );
}

#[test]
fn a_file_that_is_wrong_or_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("frazil.yaml");
    let missing = Config::load(&file, &no_env).unwrap_err().chain();
    assert!(
        missing.starts_with(&format!("read configuration file `{}`; give its path with -c: ", file.display())),
        "{missing}"
    );
    std::fs::write(&file, "kafak: {}").unwrap();
    let wrong = Config::load(&file, &no_env).unwrap_err().chain();
    assert!(wrong.starts_with(&format!("configuration file `{}`: setting `kafak`: ", file.display())), "{wrong}");
    std::fs::write(&file, LEAST).unwrap();
    assert_eq!(Config::load(&file, &no_env).unwrap(), load("").unwrap());
}
