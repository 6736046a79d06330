//! Tests of resuming: each way a table stops, each side, and an answer that is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::ErrorKind;
use crate::lake::LakeOptions;
use crate::lake::catalog::Catalog as _;
use crate::lake::catalog::memory::{Fault, MemoryCatalog};
use crate::lake::storage::Stores;
use crate::model::ids::TopicPartition;
use crate::model::ledger::{Advance, Ledger, Position};
use crate::model::offsets::NextOffset;
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::{CommitOutcome, CommitRequest, Lake as _, Suspension, TableLayout, TableState};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

struct World {
    catalog: MemoryCatalog,
    stores: Stores,
    lake: IcebergLake,
    clock: Clock,
    table: TableName,
}

fn lake(catalog: &MemoryCatalog, stores: &Stores, clock: &Clock) -> IcebergLake {
    let options = LakeOptions { keep_snapshots: 100, writer_bytes: 64 << 20 };
    IcebergLake::new(Arc::new(catalog.clone()), stores.clone(), Compute::inline(), clock.clone(), &options)
}

/// A table with ledgers at 10, 20 and 30, each in a snapshot of its own.
async fn world() -> (World, Vec<i64>) {
    let (clock, stores) = (Clock::simulated(1), Stores::memory());
    let catalog = MemoryCatalog::new("memory:///warehouse", clock.clone());
    let table: TableName = "n.t".parse().unwrap();
    let world = World { lake: lake(&catalog, &stores, &clock), catalog, stores, clock, table };
    let layout = TableLayout {
        schema: TableSchema::of(vec![Field::optional("v", Type::Long)]),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        format_version: 2,
        properties: BTreeMap::new(),
        location: None,
    };
    world.lake.create(&world.table, &layout).await.unwrap();
    let mut snapshots = Vec::new();
    for next in [10, 20, 30] {
        snapshots.push(world.commit(next, None).await.snapshot_id.unwrap());
    }
    (world, snapshots)
}

impl World {
    async fn state(&self) -> TableState {
        self.lake.load(&self.table).await.unwrap().unwrap()
    }

    async fn commit(&self, next: i64, suspension: Option<Suspension>) -> TableState {
        let state = self.state().await;
        let source = TopicPartition::new("topic", 0);
        let from = match &state.recovery {
            Recovery::At(progress) => progress.ledger.position(&source).map(|at| at.next),
            _ => None,
        };
        let advance = Advance { from, to: Position { next: NextOffset(next), leader_epoch: None } };
        let request = CommitRequest {
            id: CommitId(self.clock.fresh_id()),
            table: self.table.clone(),
            table_uuid: state.uuid,
            schema: state.schema,
            advances: [(source, advance)].into(),
            identity: Ledger::default(),
            files: Vec::new(),
            dead_letters: None,
            suspension: suspension.map(Some),
            gaps: Vec::new(),
            newest_ms: None,
            conflicts: Arc::default(),
        };
        match self.lake.commit(&request).await.unwrap() {
            CommitOutcome::Committed(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// The ledger that the table goes on from; `None` where it is halted.
    async fn at(&self) -> Option<i64> {
        match self.state().await.recovery {
            Recovery::At(progress) => {
                assert_eq!(progress.suspension, None);
                Some(next(&progress))
            }
            _ => None,
        }
    }
}

fn next(progress: &Progress) -> i64 {
    progress.ledger.position(&TopicPartition::new("topic", 0)).map_or(-1, |at| at.next.0)
}

#[tokio::test]
async fn a_rolled_back_table_goes_on_from_either_side() {
    for (from, expected) in [(ResumeFrom::Ledger, 30), (ResumeFrom::Snapshot, 10)] {
        let (world, snapshots) = world().await;
        world.catalog.rollback(&world.table, snapshots[0]).unwrap();
        assert_eq!(world.at().await, None, "it is halted");
        let error = world.lake.resume(&world.table, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(error.to_string().contains("--from ledger"), "{error}");
        let resumed = world.lake.resume(&world.table, Some(from)).await.unwrap();
        assert_eq!(resumed.ledger.as_ref().map(next), Some(30));
        assert_eq!(resumed.snapshot.as_ref().map(next), Some(10));
        assert_eq!(world.at().await, Some(expected));
        world.commit(40, None).await;
        assert_eq!(world.at().await, Some(40), "it goes on");
    }
}

#[tokio::test]
async fn rolled_back_before_the_first_ledger_the_snapshot_side_is_empty() {
    let (world, _) = world().await;
    world.catalog.edit(&world.table, |builder| Ok(builder.remove_ref("main"))).unwrap();
    assert_eq!(world.at().await, None);
    world.lake.resume(&world.table, Some(ResumeFrom::Snapshot)).await.unwrap();
    assert_eq!(world.at().await, Some(-1));
}

#[tokio::test]
async fn where_history_was_expired_by_another_tool_only_the_ledger_is_left() {
    let (world, snapshots) = world().await;
    // A foreign snapshot without a ledger on top, whose parent expires together with the tag's snapshot and its parents.
    let metadata = world.catalog.load(&world.table).await.unwrap().unwrap().metadata;
    let add = |builder: iceberg::spec::TableMetadataBuilder, id: i64, parent: i64, after: i64| {
        let snapshot = iceberg::spec::Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(Some(parent))
            .with_sequence_number(metadata.next_sequence_number() + after)
            .with_timestamp_ms(metadata.last_updated_ms() + after)
            .with_manifest_list("memory:///foreign.avro")
            .with_summary(iceberg::spec::Summary {
                operation: iceberg::spec::Operation::Append,
                additional_properties: std::collections::HashMap::new(),
            })
            .with_schema_id(0)
            .build();
        builder.set_branch_snapshot(snapshot, "main")
    };
    world
        .catalog
        .edit(&world.table, |builder| {
            let builder = add(add(builder, 7, snapshots[2], 0)?, 8, 7, 1)?;
            let gone: Vec<i64> = snapshots.iter().copied().chain([7]).collect();
            Ok(builder.remove_ref(progress::TAG).remove_snapshots(&gone))
        })
        .unwrap();
    assert_eq!(world.at().await, None);
    let loaded = world.catalog.load(&world.table).await.unwrap().unwrap();
    let error = choose(&world.table, &loaded.metadata, Some(ResumeFrom::Snapshot)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let resumed = choose(&world.table, &loaded.metadata, Some(ResumeFrom::Ledger)).unwrap();
    assert_eq!((next(&resumed.chosen), resumed.snapshot), (30, None));
}

#[tokio::test]
async fn a_suspended_table_needs_no_choice_and_a_running_one_no_resuming() {
    let (world, _) = world().await;
    let error = world.lake.resume(&world.table, Some(ResumeFrom::Ledger)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    world.commit(31, Some(Suspension { reason: "bad record".to_owned(), since_ms: 1 })).await;
    let resumed = world.lake.resume(&world.table, None).await.unwrap();
    assert_eq!(resumed.reason, "bad record");
    assert_eq!(world.at().await, Some(31));
    let unknown: TableName = "n.unknown".parse().unwrap();
    assert_eq!(world.lake.resume(&unknown, None).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn each_fault_ends_in_one_commit() {
    for fault in [Fault::FailAfterWrite, Fault::LoseRequest, Fault::Conflict, Fault::Hold(Duration::from_mins(1))] {
        let (world, snapshots) = world().await;
        world.catalog.rollback(&world.table, snapshots[1]).unwrap();
        let mut once = Some(fault);
        let faults = move |request: &str| if request == "commit" { once.take() } else { None };
        let faulty = world.catalog.with_faults(Arc::new(Mutex::new(faults)));
        lake(&faulty, &world.stores, &world.clock).resume(&world.table, Some(ResumeFrom::Snapshot)).await.unwrap();
        world.catalog.land_held();
        assert_eq!(world.at().await, Some(20), "{fault:?}");
        let metadata = world.catalog.load(&world.table).await.unwrap().unwrap().metadata;
        assert_eq!(metadata.snapshots().len(), 4, "{fault:?}");
    }
}
