//! Each action, and what may come between its parts: other commits, lost answers, foreign deletes, a crash.

use super::*;
use crate::lake::catalog::memory::Fault;

#[tokio::test]
async fn small_files_become_one_and_the_ledger_goes_on() {
    let mut world = World::new(false, false).await;
    for _ in 0..5 {
        world.append(10).await;
    }
    let dry = world.maintainer.run(&world.table, &Action::ALL, None, true).await.unwrap();
    assert_eq!((dry.compactions, dry.compacted_files), (1, 5));
    assert_eq!(world.rows().await.len(), 5, "nothing was done");
    let report = world.run(Action::Compact).await;
    assert_eq!((report.compactions, report.compacted_files), (1, 5));
    let files = world.rows().await;
    assert_eq!(files.len(), 1);
    let loaded = world.loaded().await;
    let summary = loaded.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.operation, Operation::Replace);
    for (key, value) in [
        ("added-data-files", "1"),
        ("deleted-data-files", "5"),
        ("added-records", "50"),
        ("deleted-records", "50"),
        ("total-data-files", "1"),
        ("total-records", "50"),
    ] {
        assert_eq!(summary.additional_properties[key], value, "{key}");
    }
    world.check().await;
    assert_eq!(world.run(Action::Compact).await.compactions, 0, "it comes to rest");
    // Ingestion goes on from the ledger that was carried.
    world.append(3).await;
    world.check().await;
    let health = world.maintainer.health(&world.table).await.unwrap();
    assert_eq!((health.data_files, health.small_files, health.delete_files), (2, 2, 0));
    assert!(health.write_amplification.is_some_and(|times| times > 1.0 && times < 2.0), "{health:?}");
}

#[tokio::test]
async fn partitions_stay_apart_and_sorted_files_stay_sorted() {
    for (partitioned, sorted) in [(true, false), (false, true), (true, true)] {
        let mut world = World::new(partitioned, sorted).await;
        for rows in [700, 640, 911, 900, 802] {
            world.append(rows).await;
        }
        world.run(Action::Compact).await;
        let files = world.rows().await;
        assert_eq!(files.len(), if partitioned { 2 } else { 1 });
        for file in files {
            assert!(!sorted || file.is_sorted());
            assert!(!partitioned || file.iter().all(|id| id % 2 == file[0] % 2));
        }
        world.check().await;
    }
}

#[tokio::test]
async fn columns_added_since_are_null_in_old_rows() {
    let mut world = World::new(false, false).await;
    world.append(5).await;
    let from = world.state().await;
    let mut wanted = from.schema.as_ref().clone();
    wanted.fields.push(Field::optional("more", Type::List(Box::new(Field::optional("element", Type::String)))));
    world.lake.evolve(&from, &wanted, &BTreeMap::new()).await.unwrap();
    world.append(5).await;
    world.append(5).await;
    assert_eq!(world.run(Action::Compact).await.compacted_files, 3);
    world.check().await;
}

#[tokio::test]
async fn a_replacement_is_rebased_on_what_came_meanwhile() {
    let mut world = World::new(false, false).await;
    for _ in 0..4 {
        world.append(10).await;
    }
    let work = compacted(&world).await;
    // Enough commits that the manifests of the replaced files are merged into others.
    for _ in 0..20 {
        world.append(1).await;
    }
    assert!(matches!(land(&world, &world.lake, work).await, Landed::Done(..)));
    assert_eq!(world.rows().await.len(), 21);
    world.check().await;
    // Manifests merged by ingestion afterwards keep what is removed removed.
    for _ in 0..30 {
        world.append(1).await;
    }
    world.check().await;
}

#[tokio::test]
async fn a_second_replacement_of_the_same_files_is_declined_and_leaves_nothing() {
    let mut world = World::new(false, false).await;
    for _ in 0..4 {
        world.append(10).await;
    }
    let (first, second) = (compacted(&world).await, compacted(&world).await);
    assert!(matches!(land(&world, &world.lake, first).await, Landed::Done(..)));
    let declined = land(&world, &world.lake, second).await;
    assert!(matches!(&declined, Landed::Declined(reason) if reason.contains("removed a file")), "{declined:?}");
    world.check().await;
    let (reached, found) = world.files().await;
    assert_eq!(reached, found);
}

#[tokio::test]
async fn faults_of_the_catalog_change_nothing() {
    for faults in [
        vec![Fault::FailAfterWrite],
        vec![Fault::LoseRequest],
        vec![Fault::Conflict, Fault::Conflict],
        vec![Fault::Conflict, Fault::LoseRequest, Fault::FailAfterWrite],
        vec![Fault::Hold(Duration::from_millis(1))],
    ] {
        let mut world = World::new(false, false).await;
        for _ in 0..4 {
            world.append(10).await;
        }
        let work = compacted(&world).await;
        let mut left = faults.clone().into_iter();
        let choose = move |request: &str| if request == "commit" { left.next() } else { None };
        let faulty = world.catalog.with_faults(Arc::new(Mutex::new(choose)));
        let landed = land(&world, &lake(&faulty, &world.stores, &world.clock), work).await;
        world.catalog.land_held();
        assert!(matches!(landed, Landed::Done(..) | Landed::Declined(_)), "{faults:?}: {landed:?}");
        world.check().await;
        assert_eq!(world.rows().await.len(), 1, "{faults:?}");
        world.append(5).await;
        world.check().await;
    }
}

#[tokio::test]
async fn rows_that_another_engine_deletes_are_not_brought_back() {
    let mut world = World::new(false, false).await;
    for _ in 0..4 {
        world.append(10).await;
    }
    let work = compacted(&world).await;
    foreign_delete(&world).await;
    let declined = land(&world, &world.lake, work).await;
    assert!(matches!(&declined, Landed::Declined(reason) if reason.contains("deleted rows")), "{declined:?}");
    // From then on these files are left alone, those that came later are not.
    assert_eq!(world.run(Action::Compact).await.compactions, 0);
    let health = world.maintainer.health(&world.table).await.unwrap();
    assert_eq!((health.small_files, health.delete_files, health.compactable_files), (4, 1, 0));
    assert!(health.held.iter().any(|held| held.contains("4 small files: deletes")), "{health:?}");
    for _ in 0..3 {
        world.append(10).await;
    }
    assert_eq!(world.run(Action::Compact).await.compacted_files, 3);
    assert_eq!(world.rows().await.len(), 5);
    world.check().await;
}

#[tokio::test]
async fn expiry_deletes_exactly_what_nothing_reaches() {
    let mut world = World::new(true, false).await;
    for _ in 0..8 {
        world.append(4).await;
    }
    world.run(Action::Compact).await;
    for _ in 0..4 {
        world.append(4).await;
    }
    let report = world.run(Action::Expire).await;
    // Sixteen small files are reached no more, beside manifests and lists.
    assert!(report.expired_snapshots == 11 && report.deleted_files > 16 + 11, "{report:?}");
    let (reached, found) = world.files().await;
    assert_eq!(reached, found);
    assert_eq!(world.loaded().await.metadata.snapshots().len(), 3);
    world.check().await;
    world.append(1).await;
    world.check().await;
}

#[tokio::test]
async fn the_way_to_the_ledger_is_kept_behind_foreign_commits() {
    let mut world = World::new(false, false).await;
    world.append(5).await;
    for _ in 0..10 {
        foreign_delete(&world).await;
    }
    world.run(Action::Expire).await;
    let Recovery::At(progress) = world.state().await.recovery else { panic!("halted") };
    assert_eq!(position(&progress), 5);
    assert_eq!(world.loaded().await.metadata.snapshots().len(), 11, "all of them lie between `main` and the ledger");
}

#[tokio::test]
async fn a_rolled_back_table_is_left_alone() {
    let mut world = World::new(false, false).await;
    for _ in 0..5 {
        world.append(4).await;
    }
    let loaded = world.loaded().await;
    let oldest = loaded.metadata.snapshots().min_by_key(|s| s.sequence_number()).unwrap().snapshot_id();
    world.catalog.rollback(&world.table, oldest).unwrap();
    let before = world.loaded().await;
    let report = world.maintainer.run(&world.table, &Action::ALL, Some(Duration::ZERO), false).await.unwrap();
    assert_eq!(report.notes.len(), 1, "{report:?}");
    assert_eq!(world.loaded().await.metadata_location, before.metadata_location);
}

#[tokio::test]
async fn an_interrupted_expiry_is_taken_up_again() {
    let mut world = World::new(false, false).await;
    for _ in 0..8 {
        world.append(4).await;
    }
    // Dropped, and nothing deleted: as after a crash.
    let work = Work::Expire(options().retention);
    let Landed::Done(metadata, dropped) = land(&world, &world.lake, work).await else { panic!("declined") };
    assert_eq!(dropped.len(), 1);
    // Data and manifests deleted, lists and notes not: as after another.
    let (reached, found) = world.files().await;
    for gone in found.difference(&reached).filter(|file| file.ends_with(".parquet") || file.contains("-m")) {
        world.stores.delete(gone).await.unwrap();
    }
    expire::sweep(&world.lake.committer, &metadata, i64::MAX).await.unwrap();
    let (reached, found) = world.files().await;
    assert_eq!(reached, found);
    world.check().await;
}

#[tokio::test]
async fn orphans_are_what_nothing_refers_to_and_old_enough() {
    let mut world = World::new(true, false).await;
    for _ in 0..4 {
        world.append(4).await;
    }
    let location = world.loaded().await.metadata.location().to_owned();
    let strays = ["data/stray.parquet", "data/bucket=1/x.parquet", "metadata/1-m0.avro", "metadata/version-hint.text"];
    for stray in strays {
        world.stores.write(&format!("{location}/{stray}"), "x".into()).await.unwrap();
    }
    // Another table's files below this one's location are that one's own.
    let layout = TableLayout {
        schema: world.state().await.schema.as_ref().clone(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        format_version: 2,
        properties: BTreeMap::new(),
        location: Some(format!("{location}/inside")),
    };
    let inside: TableName = "n.inside".parse().unwrap();
    world.lake.create(&inside, &layout).await.unwrap();
    world.stores.write(&format!("{location}/inside/data/own.parquet"), "x".into()).await.unwrap();
    let young = world.maintainer.run(&world.table, &[Action::Orphans], None, false).await.unwrap();
    assert_eq!((young.orphan_files, young.deleted_files), (0, 0), "all are younger than the grace");
    let report = world.run(Action::Orphans).await;
    assert_eq!((report.orphan_files, report.deleted_files), (3, 3), "{report:?}");
    let refused = world.maintainer.run(&inside, &[Action::Orphans], Some(Duration::ZERO), false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
    let (reached, found) = world.files().await;
    let left: Vec<&str> = found.difference(&reached).map(|file| &file[location.len()..]).collect();
    assert_eq!(left, ["/inside/data/own.parquet", "/metadata/version-hint.text"]);
    world.check().await;
}

#[tokio::test]
async fn manifests_are_merged_and_replicas_take_turns() {
    let mut world = World::new(true, false).await;
    for _ in 0..9 {
        world.append(4).await;
    }
    let report = world.run(Action::Manifests).await;
    assert_eq!(report.merged_manifests, 9);
    assert_eq!(report.health.unwrap().manifests, 1);
    world.check().await;
    world.append(1).await;
    world.check().await;
    let other = Maintainer::new(Arc::clone(&world.lake), Compute::inline(), options());
    let lease = world.maintainer.lease(&world.table).await.unwrap().unwrap();
    assert!(other.step(&world.table).await.unwrap().is_none());
    lease.release().await;
    assert!(other.step(&world.table).await.unwrap().unwrap().compactions > 0);
    world.check().await;
}
