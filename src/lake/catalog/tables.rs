//! Tables and changes for the tests of the catalogs, and what every catalog must do.

use std::collections::HashMap;

use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, NestedField, Operation, PrimitiveType, Schema, Snapshot, SnapshotReference,
    SnapshotRetention, Summary, Type,
};
use iceberg::{TableCreation, TableRequirement, TableUpdate};

use super::{Applied, Catalog, LoadedTable, TableChange};
use crate::error::ErrorKind;
use crate::model::ids::TableName;

pub(in crate::lake) fn name(text: &str) -> TableName {
    text.parse().unwrap()
}

pub(in crate::lake) fn creation() -> TableCreation {
    let id = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long)).into();
    TableCreation::builder()
        .name("ignored".to_owned())
        .schema(Schema::builder().with_fields([id]).build().unwrap())
        .format_version(FormatVersion::V2)
        .build()
}

/// Sets a property of a table as it is in `current`: its main branch must not have moved.
pub(super) fn set(table: &TableName, current: &LoadedTable, key: &str, value: &str) -> TableChange {
    let snapshot_id = current.metadata.current_snapshot_id();
    TableChange {
        table: table.clone(),
        requirements: vec![
            TableRequirement::UuidMatch { uuid: current.metadata.uuid() },
            TableRequirement::RefSnapshotIdMatch { r#ref: MAIN_BRANCH.to_owned(), snapshot_id },
        ],
        properties: Vec::new(),
        updates: vec![TableUpdate::SetProperties { updates: HashMap::from([(key.to_owned(), value.to_owned())]) }],
    }
}

/// Adds a snapshot without files to `branch`, made for the table as it is in `current`.
pub(super) fn append(table: &TableName, current: &LoadedTable, branch: &str, snapshot_id: i64) -> TableChange {
    let metadata = &current.metadata;
    let parent = metadata.snapshot_for_ref(branch).map(|snapshot| snapshot.snapshot_id());
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(parent.or(metadata.current_snapshot_id()))
        .with_sequence_number(metadata.next_sequence_number())
        .with_timestamp_ms(metadata.last_updated_ms() + 1)
        .with_manifest_list(format!("memory:///list-{snapshot_id}.avro"))
        .with_schema_id(metadata.current_schema_id())
        .with_summary(Summary { operation: Operation::Append, additional_properties: HashMap::new() })
        .build();
    let reference = SnapshotReference::new(snapshot_id, SnapshotRetention::branch(None, None, None));
    TableChange {
        table: table.clone(),
        requirements: vec![TableRequirement::RefSnapshotIdMatch { r#ref: branch.to_owned(), snapshot_id: parent }],
        properties: Vec::new(),
        updates: vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: branch.to_owned(), reference },
        ],
    }
}

#[track_caller]
pub(super) fn done(applied: Applied) -> Vec<LoadedTable> {
    match applied {
        Applied::Done(tables) => tables,
        other => panic!("not applied: {other:?}"),
    }
}

pub(super) async fn check_catalog(catalog: &dyn Catalog) {
    let (a, b) = (name("n.m.a"), name("n.b"));
    assert!(catalog.load(&a).await.unwrap().is_none());
    let first = catalog.create(&a, creation()).await.unwrap();
    let again = catalog.create(&a, creation()).await.unwrap();
    assert_eq!(again.metadata.uuid(), first.metadata.uuid(), "an existing table is loaded");
    assert!(first.metadata.location().contains("/n/m/a-"), "{}", first.metadata.location());
    let second = catalog.create(&b, creation()).await.unwrap();
    assert_eq!(catalog.list().await.unwrap(), [b.clone(), a.clone()]);
    assert_eq!(catalog.location(&a).await.unwrap(), Some(first.metadata_location.clone()));
    assert_eq!(catalog.location(&name("n.gone")).await.unwrap(), None);
    let namespaces = catalog.namespaces().await.unwrap();
    assert_eq!(namespaces.into_keys().collect::<Vec<_>>(), [b.namespace.clone(), a.namespace.clone()]);

    // Both or none.
    let both = done(
        catalog.commit(vec![append(&a, &first, MAIN_BRANCH, 1), append(&b, &second, MAIN_BRANCH, 2)]).await.unwrap(),
    );
    assert_eq!(both[1].metadata.current_snapshot_id(), Some(2));
    let stale = catalog.commit(vec![append(&a, &both[0], MAIN_BRANCH, 3), append(&b, &second, MAIN_BRANCH, 4)]).await;
    assert!(matches!(stale, Ok(Applied::Conflict(_))), "{stale:?}");
    let loaded = catalog.load(&a).await.unwrap().unwrap();
    assert_eq!(loaded.metadata_location, both[0].metadata_location);
    assert_eq!(loaded.metadata.current_snapshot_id(), Some(1));

    // A snapshot made before another branch moved conflicts, though its own branch stands still.
    let side = done(catalog.commit(vec![append(&a, &loaded, "side", 5)]).await.unwrap());
    assert_eq!(side[0].metadata.current_snapshot_id(), Some(1));
    let overtaken = catalog.commit(vec![append(&a, &loaded, MAIN_BRANCH, 6)]).await;
    assert!(matches!(overtaken, Ok(Applied::Conflict(_))), "{overtaken:?}");

    // Updates that cannot be are the caller's mistake, and leave everything as it was.
    let mut wrong = set(&a, &side[0], "k", "v");
    wrong.updates.push(TableUpdate::SetCurrentSchema { schema_id: 99 });
    assert_eq!(catalog.commit(vec![wrong]).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    let gone = TableChange { table: name("n.gone"), requirements: vec![], properties: vec![], updates: vec![] };
    assert!(matches!(catalog.commit(vec![gone]).await, Ok(Applied::Conflict(_))));
    let same = catalog.load(&a).await.unwrap().unwrap();
    assert_eq!(same.metadata_location, side[0].metadata_location);

    // Properties that a change was worked out from must be as they were.
    let of = |text: Option<&str>| TableChange {
        properties: vec![("k".to_owned(), text.map(str::to_owned))],
        ..set(&a, &same, "k", "new")
    };
    assert!(matches!(catalog.commit(vec![of(Some("old"))]).await, Ok(Applied::Conflict(_))));
    let set = done(catalog.commit(vec![of(None)]).await.unwrap());
    assert_eq!(set[0].metadata.properties()["k"], "new");
    assert!(matches!(catalog.commit(vec![of(None)]).await, Ok(Applied::Conflict(_))));
    assert!(matches!(catalog.commit(vec![of(Some("new"))]).await, Ok(Applied::Done(_))));

    // A lease has one owner until it runs out or is given back.
    for (owner, now_ms, until_ms, taken) in [
        ("x", 0, 10, true),
        ("y", 9, 20, false),
        ("x", 9, 15, true),
        ("y", 14, 20, false),
        ("y", 15, 20, true),
        ("y", 16, 16, true),
        ("x", 16, 20, true),
    ] {
        assert_eq!(catalog.take_lease("l", owner, now_ms, until_ms).await.unwrap(), taken, "{owner} at {now_ms}");
    }
    assert!(catalog.take_lease("other", "y", 16, 20).await.unwrap());
}
