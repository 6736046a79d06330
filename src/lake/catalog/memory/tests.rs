//! Tests of the catalog in memory: what every catalog does, each fault, foreign writers.

use iceberg::spec::MAIN_BRANCH;

use super::super::tables::{append, check_catalog, creation, done, name, set};
use super::*;

fn catalog() -> MemoryCatalog {
    MemoryCatalog::new("memory:///warehouse", Clock::simulated(1))
}

/// A view on which the next commit has `fault`.
fn once(catalog: &MemoryCatalog, fault: Fault) -> MemoryCatalog {
    let mut next = Some(fault);
    catalog.with_faults(Arc::new(Mutex::new(move |request: &str| if request == "commit" { next.take() } else { None })))
}

#[tokio::test]
async fn it_is_a_catalog() {
    check_catalog(&catalog()).await;
}

#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    Conflict,
    Unknown,
    Unavailable,
}

/// `fault` gives `answer`, and whether the change is there at once and once nothing is in flight.
async fn check(fault: Fault, answer: Answer, at_once: bool, later: bool) {
    let (catalog, table) = (catalog(), name("n.t"));
    let created = catalog.create(&table, creation()).await.unwrap();
    let found = match once(&catalog, fault).commit(vec![set(&table, &created, "k", "v")]).await {
        Ok(Applied::Done(_)) => Answer::Done,
        Ok(Applied::Conflict(_)) => Answer::Conflict,
        Ok(Applied::Unknown(_)) => Answer::Unknown,
        Err(error) => {
            assert_eq!(error.kind(), crate::error::ErrorKind::Unavailable);
            Answer::Unavailable
        }
    };
    assert_eq!(found, answer, "{fault:?}");
    let is_there = async || catalog.load(&table).await.unwrap().unwrap().metadata.properties().contains_key("k");
    assert_eq!(is_there().await, at_once, "{fault:?} at once");
    catalog.land_held();
    assert_eq!(is_there().await, later, "{fault:?} later");
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    check(Fault::Reject, Answer::Unavailable, false, false).await;
    check(Fault::FailAfterWrite, Answer::Unknown, true, true).await;
    check(Fault::LoseRequest, Answer::Unknown, false, false).await;
    check(Fault::Hold(Duration::from_mins(1)), Answer::Unknown, false, true).await;
    check(Fault::Hold(Duration::ZERO), Answer::Unknown, true, true).await;
    check(Fault::Slow(Duration::from_millis(1)), Answer::Done, true, true).await;
    check(Fault::Conflict, Answer::Conflict, false, false).await;
}

#[tokio::test]
async fn a_held_request_conflicts_where_another_came_first() {
    let (catalog, table) = (catalog(), name("n.t"));
    let created = catalog.create(&table, creation()).await.unwrap();
    let held = once(&catalog, Fault::Hold(Duration::from_secs(9)));
    let unknown = held.commit(vec![append(&table, &created, MAIN_BRANCH, 1)]).await;
    assert!(matches!(unknown, Ok(Applied::Unknown(_))));
    done(catalog.commit(vec![append(&table, &created, MAIN_BRANCH, 2)]).await.unwrap());
    catalog.land_held();
    let loaded = catalog.load(&table).await.unwrap().unwrap();
    assert_eq!(loaded.metadata.current_snapshot_id(), Some(2));
    assert!(loaded.metadata.snapshot_by_id(1).is_none());
}

#[tokio::test]
async fn foreign_writers_roll_back_edit_and_drop() {
    let (catalog, table) = (catalog(), name("n.t"));
    let created = catalog.create(&table, creation()).await.unwrap();
    let first = done(catalog.commit(vec![append(&table, &created, MAIN_BRANCH, 1)]).await.unwrap());
    done(catalog.commit(vec![append(&table, &first[0], MAIN_BRANCH, 2)]).await.unwrap());
    catalog.rollback(&table, 1).unwrap();
    catalog.edit(&table, |builder| Ok(builder.remove_snapshots(&[2]))).unwrap();
    let loaded = catalog.load(&table).await.unwrap().unwrap();
    assert_eq!(loaded.metadata.current_snapshot_id(), Some(1));
    assert!(loaded.metadata.snapshot_by_id(2).is_none());
    catalog.drop_table(&table);
    assert!(catalog.load(&table).await.unwrap().is_none());
}
