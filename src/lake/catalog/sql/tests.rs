//! Tests of the SQL catalog on SQLite: what every catalog does, races, files written and removed, older databases.

use futures::TryStreamExt;
use iceberg::spec::MAIN_BRANCH;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tempfile::TempDir;

use super::super::tables::{append, check_catalog, creation, done, name, set};
use super::*;
use crate::error::ErrorKind;
use crate::lake::storage::StorageOptions;

fn open(folder: &TempDir) -> SqlCatalog {
    let path = folder.path().to_str().unwrap();
    open_at(&format!("sqlite://{path}/new/catalog.db"), &format!("{path}/warehouse"))
}

fn open_at(uri: &str, warehouse: &str) -> SqlCatalog {
    let stores = Stores::new(StorageOptions::default()).unwrap();
    let options =
        SqlOptions { uri: uri.to_owned(), name: "frazil".to_owned(), warehouse: warehouse.to_owned(), stores };
    SqlCatalog::open(options, Clock::system()).unwrap()
}

/// Names of all files of a table's metadata, in order.
async fn metadata_files(catalog: &SqlCatalog, table: &LoadedTable) -> Vec<String> {
    let folder = format!("{}/metadata", table.metadata.location());
    let files: Vec<_> = catalog.stores.list(&folder).await.unwrap().try_collect().await.unwrap();
    let mut locations: Vec<String> = files.into_iter().map(|file| file.location).collect();
    locations.sort();
    locations
}

#[tokio::test]
async fn it_is_a_catalog() {
    let folder = TempDir::new().unwrap();
    check_catalog(&open(&folder)).await;
}

#[tokio::test]
async fn what_is_committed_is_read_by_another_process() {
    let folder = TempDir::new().unwrap();
    let (catalog, table) = (open(&folder), name("n.t"));
    let created = catalog.create(&table, creation()).await.unwrap();
    let after = done(catalog.commit(vec![append(&table, &created, MAIN_BRANCH, 7)]).await.unwrap());
    let read = open(&folder).load(&table).await.unwrap().unwrap();
    assert_eq!(read.metadata, after[0].metadata);
    let file = read.metadata_location.rsplit('/').next().unwrap();
    assert!(file.starts_with("00001-") && file.ends_with(".metadata.json"), "{file}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_exactly_one_wins_each_round() {
    let folder = TempDir::new().unwrap();
    let (catalogs, table) = ([open(&folder), open(&folder)], name("n.t"));
    let (one, two) = tokio::join!(catalogs[0].create(&table, creation()), catalogs[1].create(&table, creation()));
    assert_eq!(one.unwrap().metadata_location, two.unwrap().metadata_location);
    for round in 0..20 {
        let base = catalogs[0].load(&table).await.unwrap().unwrap();
        let change = |side: i64| append(&table, &base, MAIN_BRANCH, round * 2 + side + 1);
        let (one, two) = tokio::join!(catalogs[0].commit(vec![change(0)]), catalogs[1].commit(vec![change(1)]));
        let (winner, loser) = match (one.unwrap(), two.unwrap()) {
            (Applied::Done(tables), other) | (other, Applied::Done(tables)) => (tables, other),
            neither => panic!("nobody won round {round}: {neither:?}"),
        };
        assert!(matches!(loser, Applied::Conflict(_)), "round {round}: {loser:?}");
        let now = catalogs[1].load(&table).await.unwrap().unwrap();
        assert_eq!(now.metadata_location, winner[0].metadata_location);
    }
    // The losers' files are gone: one file per version.
    let last = catalogs[0].load(&table).await.unwrap().unwrap();
    assert_eq!(metadata_files(&catalogs[0], &last).await.len(), 21);
}

#[tokio::test]
async fn a_swap_of_several_tables_is_undone_as_a_whole() {
    let folder = TempDir::new().unwrap();
    let catalog = open(&folder);
    let (a, b) = (name("n.a"), name("n.b"));
    let old_a = catalog.create(&a, creation()).await.unwrap().metadata_location;
    catalog.create(&b, creation()).await.unwrap();
    // The first swap fits and the second does not: the database itself must take the first one back.
    let swaps = [
        Swap { table: &a, old: &old_a, new: "memory:///new-a" },
        Swap { table: &b, old: "memory:///not-so", new: "memory:///new-b" },
    ];
    let swapped = catalog.database().await.unwrap().swap(&catalog.clock, "frazil", &swaps).await.unwrap();
    assert!(matches!(&swapped, Swapped::Lost(table) if *table == b), "{swapped:?}");
    assert_eq!(catalog.pointer(&a).await.unwrap(), Some(old_a));
}

#[tokio::test]
async fn a_locked_database_is_unavailable_and_leaves_no_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    // A pool that does not wait for locks, so that the test does not either.
    let mut catalog = open(&folder);
    let table = name("n.t");
    let created = catalog.create(&table, creation()).await.unwrap();
    let uri = format!("sqlite://{path}/new/catalog.db");
    let options = uri.parse::<sqlx::sqlite::SqliteConnectOptions>().unwrap().busy_timeout(Duration::ZERO);
    catalog.database = Database::Sqlite { pool: sqlx::SqlitePool::connect_lazy_with(options), folder: None };
    let mut other = SqliteConnection::connect(&uri).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let refused = catalog.commit(vec![set(&table, &created, "k", "v")]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(metadata_files(&catalog, &created).await.len(), 1);
    lock.rollback().await.unwrap();
    done(catalog.commit(vec![set(&table, &created, "k", "v")]).await.unwrap());
}

#[tokio::test]
async fn a_database_of_version_0_is_brought_up() {
    let folder = TempDir::new().unwrap();
    let uri = format!("sqlite://{}/old.db?mode=rwc", folder.path().display());
    let mut old = SqliteConnection::connect(&uri).await.unwrap();
    let statements = [
        "CREATE TABLE iceberg_tables (catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL,
         table_name VARCHAR(255) NOT NULL, metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000),
         PRIMARY KEY (catalog_name, table_namespace, table_name))",
        "INSERT INTO iceberg_tables VALUES ('frazil', 'old', 't', 'memory:///x', NULL), ('other', 'old', 'u', 'y', NULL)",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut old).await.unwrap();
    }
    let catalog = open_at(&uri, "memory:///warehouse");
    assert_eq!(catalog.list().await.unwrap(), [name("old.t")]);
    let table = name("n.t");
    let created = catalog.create(&table, creation()).await.unwrap();
    done(catalog.commit(vec![set(&table, &created, "k", "v")]).await.unwrap());
    sqlx::query("UPDATE iceberg_tables SET iceberg_type = 'VIEW' WHERE table_name = 't' AND table_namespace = 'n'")
        .execute(&mut old)
        .await
        .unwrap();
    assert_eq!(catalog.list().await.unwrap(), [name("old.t")], "a view is no table");
    assert_eq!(catalog.load(&name("old.t")).await.unwrap_err().kind(), ErrorKind::Corrupt, "its file is missing");
}

#[tokio::test]
async fn metadata_is_compressed_and_removed_as_properties_say() {
    let folder = TempDir::new().unwrap();
    let (catalog, table) = (open(&folder), name("n.t"));
    let mut creation = creation();
    creation.properties = [
        ("write.metadata.compression-codec", "gzip"),
        ("write.metadata.delete-after-commit.enabled", "true"),
        ("write.metadata.previous-versions-max", "2"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let mut current = catalog.create(&table, creation).await.unwrap();
    for round in 0..5 {
        current =
            done(catalog.commit(vec![set(&table, &current, "round", &round.to_string())]).await.unwrap()).remove(0);
    }
    assert!(current.metadata_location.ends_with(".gz.metadata.json"));
    assert_eq!(open(&folder).load(&table).await.unwrap().unwrap().metadata, current.metadata);
    // Removal runs beside the commits.
    while metadata_files(&catalog, &current).await.len() > 3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable_until_it_is_back() {
    let folder = TempDir::new().unwrap();
    // A file where the folder should be.
    let blocked = folder.path().join("new");
    std::fs::write(&blocked, "").unwrap();
    let catalog = open(&folder);
    assert_eq!(catalog.load(&name("n.t")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    std::fs::remove_file(&blocked).unwrap();
    assert!(catalog.load(&name("n.t")).await.unwrap().is_none());
}

#[test]
fn addresses_are_checked_at_once() {
    for uri in ["mysql://host/db", "sqlite://x.db?mode=odd", "postgres://host:port/db"] {
        let stores = Stores::memory();
        let options = SqlOptions { uri: uri.to_owned(), name: "n".to_owned(), warehouse: "/w".to_owned(), stores };
        assert_eq!(SqlCatalog::open(options, Clock::system()).unwrap_err().kind(), ErrorKind::InvalidConfig, "{uri}");
    }
}

#[tokio::test]
async fn metadata_with_a_default_that_would_be_lost_is_refused() {
    for (kind, default, is_kept) in [
        ("long", serde_json::json!(7), true),
        ("timestamptz_ns", serde_json::json!("2026-01-01T00:00:00.000000001+00:00"), false),
    ] {
        let folder = TempDir::new().unwrap();
        let (catalog, table) = (open(&folder), name("n.t"));
        let mut of_format_3 = creation();
        of_format_3.format_version = FormatVersion::V3;
        let location = catalog.create(&table, of_format_3).await.unwrap().metadata_location;
        let stored = catalog.stores.read(&location).await.unwrap().unwrap();
        let mut json: Value = serde_json::from_slice(&stored).unwrap();
        let field =
            serde_json::json!({"id": 2, "name": "at", "required": false, "type": kind, "initial-default": default});
        json["schemas"][0]["fields"].as_array_mut().unwrap().push(field);
        json["last-column-id"] = 2.into();
        catalog.stores.write(&location, json.to_string().into()).await.unwrap();
        let loaded = open(&folder).load(&table).await;
        assert_eq!(loaded.as_ref().is_ok(), is_kept, "{kind}: {loaded:?}");
        let text = loaded.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(is_kept || text.contains("has a default of a column that frazil cannot read"), "{text}");
    }
}
