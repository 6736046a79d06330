//! Tests of maintenance over a catalog and a store in memory: rows, ledger and files through every action, through
//! commits that come in between, lost answers and foreign deletes. The store is compared file by file.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, Int32Array, RecordBatch};
use arrow::datatypes::Int32Type;
use futures::TryStreamExt;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, ManifestWriterBuilder, Operation, Struct};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;
use crate::lake::LakeOptions;
use crate::lake::catalog::memory::{Fault, MemoryCatalog};
use crate::lake::catalog::{Applied, Catalog as _};
use crate::lake::commit::{Delta, snapshot_id, totals};
use crate::lake::manifests::NewSnapshot;
use crate::lake::storage::Stores;
use crate::model::ids::{CommitId, TopicPartition};
use crate::model::ledger::{Advance, Ledger, Position};
use crate::model::offsets::NextOffset;
use crate::model::schema::{Field, TableSchema, Type};
use crate::ports::{
    CommitOutcome, CommitRequest, Lake as _, PartitionField, Progress, TableLayout, TableState, Transform,
};
use crate::runtime::clock::Clock;

struct World {
    catalog: MemoryCatalog,
    stores: Stores,
    lake: Arc<IcebergLake>,
    maintainer: Maintainer,
    clock: Clock,
    table: TableName,
    /// The ledger's position, and so the rows that were committed: 0, 1, 2 …
    next: i64,
}

fn options() -> MaintainOptions {
    MaintainOptions {
        compaction: Compaction { target_bytes: 1 << 20, min_files: 3, max_files: 100 },
        retention: Retention {
            keep_snapshots: 3,
            keep_min: 1,
            keep_min_age: Duration::ZERO,
            keep_for: Duration::from_hours(1),
        },
        orphan_grace: Duration::from_hours(1),
        memory_bytes: 64 << 20,
    }
}

fn lake(catalog: &MemoryCatalog, stores: &Stores, clock: &Clock) -> Arc<IcebergLake> {
    let options = LakeOptions { keep_snapshots: 100 };
    Arc::new(IcebergLake::new(Arc::new(catalog.clone()), stores.clone(), Compute::inline(), clock.clone(), &options))
}

impl World {
    /// An empty table with columns `id` and `bucket` = id % 2. Rows come in with falling ids, so that sorting shows.
    async fn new(partitioned: bool, sorted: bool) -> Self {
        let (clock, stores) = (Clock::system(), Stores::memory());
        let catalog = MemoryCatalog::new("memory:///warehouse", clock.clone());
        let lake = lake(&catalog, &stores, &clock);
        let fields = ["id", "bucket"].map(|name| Field::optional(name, Type::Int)).to_vec();
        let bucket = PartitionField { column: "bucket".to_owned(), transform: Transform::Identity };
        let layout = TableLayout {
            schema: TableSchema { schema_id: -1, fields },
            partition_by: if partitioned { vec![bucket] } else { Vec::new() },
            sort_by: if sorted { vec!["id".to_owned()] } else { Vec::new() },
            format_version: 2,
            properties: BTreeMap::new(),
            location: None,
        };
        let table: TableName = "n.t".parse().unwrap();
        lake.create(&table, &layout).await.unwrap();
        let maintainer = Maintainer::new(Arc::clone(&lake), Compute::inline(), options());
        Self { catalog, stores, lake, maintainer, clock, table, next: 0 }
    }

    async fn state(&self) -> TableState {
        self.lake.load(&self.table).await.unwrap().unwrap()
    }

    async fn loaded(&self) -> LoadedTable {
        self.catalog.load(&self.table).await.unwrap().unwrap()
    }

    /// What ingestion does: rows and ledger in one commit.
    async fn append(&mut self, rows: i64) {
        let state = self.state().await;
        let commit = CommitId(self.clock.fresh_id());
        let mut files = Vec::new();
        if rows > 0 {
            let mut writer = self.lake.writer(&state, commit).unwrap();
            let ids = (self.next..self.next + rows).rev().map(|id| i32::try_from(id).unwrap());
            let id = Int32Array::from_iter_values(ids.clone());
            let bucket = Int32Array::from_iter_values(ids.map(|id| id % 2));
            let mut columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(id), Arc::new(bucket)];
            let schema = state.schema.to_arrow();
            let added = schema.fields().iter().skip(2);
            columns.extend(added.map(|f| arrow::array::new_null_array(f.data_type(), usize::try_from(rows).unwrap())));
            let rows = RecordBatch::try_new(schema, columns);
            writer.write(rows.unwrap()).await.unwrap();
            files = writer.finish().await.unwrap();
        }
        let source = TopicPartition::new("topic", 0);
        let from = match &state.recovery {
            Recovery::At(progress) => progress.ledger.position(&source).map(|at| at.next),
            _ => None,
        };
        self.next += rows;
        let advance = Advance { from, to: Position { next: NextOffset(self.next), leader_epoch: None } };
        let request = CommitRequest {
            id: commit,
            table: self.table.clone(),
            table_uuid: state.uuid,
            schema: state.schema,
            advances: [(source, advance)].into(),
            identity: Ledger::default(),
            files,
            dead_letters: None,
            suspension: None,
            gaps: Vec::new(),
            newest_ms: Some(self.next),
            conflicts: Arc::default(),
        };
        let outcome = self.lake.commit(&request).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    }

    async fn run(&self, action: Action) -> Report {
        self.maintainer.run(&self.table, &[action], Some(Duration::ZERO), false).await.unwrap()
    }

    /// All ids of a snapshot's rows, file by file.
    async fn rows(&self) -> Vec<Vec<i32>> {
        let loaded = self.loaded().await;
        let mut files = Vec::new();
        for file in crate::lake::inspect::files(&self.stores, &loaded.metadata).await.unwrap() {
            let bytes = self.stores.read(&file.path).await.unwrap().unwrap_or_else(|| panic!("{} is gone", file.path));
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
            let rows = reader.flat_map(|rows| rows.unwrap().column(0).as_primitive::<Int32Type>().values().to_vec());
            files.push(rows.collect());
        }
        files
    }

    /// The table is what was committed: each row once, and the ledger behind the last.
    async fn check(&self) {
        let mut rows: Vec<i32> = self.rows().await.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..i32::try_from(self.next).unwrap()).collect::<Vec<_>>());
        let state = self.state().await;
        assert_eq!(state.rows, u64::try_from(self.next).unwrap());
        let Recovery::At(progress) = state.recovery else { panic!("{:?}", state.recovery) };
        assert_eq!(position(&progress), self.next);
        assert_eq!(state.newest_ms, Some(self.next));
    }

    /// What the table's metadata reaches, and what is in the store; the metadata files themselves are the catalog's.
    async fn files(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let loaded = self.loaded().await;
        let lists: Vec<&str> = loaded.metadata.snapshots().map(|snapshot| snapshot.manifest_list()).collect();
        let committer = &self.lake.committer;
        let damage = expire::Missing::IsDamage;
        let manifests = expire::manifests_of(committer, &loaded.metadata, lists.iter().copied(), damage).await.unwrap();
        let data = expire::live_files(committer, manifests.values(), damage).await.unwrap();
        let reached = lists.into_iter().map(str::to_owned).chain(manifests.into_keys()).chain(data).collect();
        let found = self.stores.list("memory:///warehouse").await.unwrap();
        let found = found.map_ok(|file| file.location).try_collect().await.unwrap();
        (reached, found)
    }
}

fn position(progress: &Progress) -> i64 {
    progress.ledger.position(&TopicPartition::new("topic", 0)).map_or(-1, |at| at.next.0)
}

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
        for rows in [7, 40, 11, 9000, 2] {
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
    let mut wanted = world.state().await.schema.as_ref().clone();
    wanted.fields.push(Field::optional("more", Type::List(Box::new(Field::optional("element", Type::String)))));
    world.lake.evolve(&world.table, &wanted).await.unwrap();
    world.append(5).await;
    world.append(5).await;
    assert_eq!(world.run(Action::Compact).await.compacted_files, 3);
    world.check().await;
}

/// A compaction that was read, written, and not committed yet.
async fn compacted(world: &World) -> Work {
    let loaded = world.loaded().await;
    let mut memory = Remembered::default();
    let survey = world.maintainer.look(&mut memory, &loaded.metadata).await.unwrap();
    let (key, files) = world.maintainer.groups(&loaded.metadata, &survey, &memory).remove(0);
    let tools = Tools { stores: &world.stores, compute: &Compute::inline(), id: world.clock.fresh_id() };
    let written = compact(&tools, &loaded.metadata, &key, &files).await.unwrap();
    let base_sequence = loaded.metadata.current_snapshot().unwrap().sequence_number();
    let removed = files.into_iter().map(|file| (file.path.clone(), file)).collect();
    Work::Files(Files { key, base_sequence, removed, added: written.into_iter().collect() })
}

async fn land(world: &World, lake: &IcebergLake, work: Work) -> Landed {
    let uuid = world.loaded().await.metadata.uuid();
    Replace::new(&lake.committer, &world.table, uuid, work).land().await.unwrap()
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

/// What another engine does: an equality delete on `partition`, as a snapshot of its own.
async fn foreign_delete(world: &World) {
    let loaded = world.loaded().await;
    let (metadata, committer) = (&loaded.metadata, &world.lake.committer);
    let attempt = world.clock.fresh_id();
    let new = NewSnapshot { metadata, id: snapshot_id(attempt), sequence: metadata.next_sequence_number(), attempt };
    let output =
        world.stores.file_io().new_output(format!("{}/metadata/{attempt}-d.avro", metadata.location())).unwrap();
    let spec = metadata.default_partition_spec().as_ref().clone();
    let mut writer = ManifestWriterBuilder::new(output, Some(new.id), Arc::clone(metadata.current_schema()), spec)
        .build_v2_deletes();
    let file = DataFileBuilder::default()
        .content(DataContentType::EqualityDeletes)
        .file_path(format!("{}/data/{attempt}.parquet", metadata.location()))
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .record_count(1)
        .file_size_in_bytes(1)
        .equality_ids(Some(vec![1]))
        .build();
    writer.add_file(file.unwrap(), -1).unwrap();
    let mut manifests = committer.manifests.inherited(metadata).await.unwrap();
    manifests.push(writer.write_manifest_file().await.unwrap());
    let list = committer.manifests.write_list(&new, manifests, Vec::new()).await.unwrap();
    let change = committer.advance(&world.table, &new, &list, Operation::Delete, totals(metadata, &Delta::default()));
    assert!(matches!(world.catalog.commit(vec![change]).await, Ok(Applied::Done(_))));
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
    let report = world.run(Action::Expire).await;
    assert!(report.expired_snapshots >= 5 && report.deleted_files > 8, "{report:?}");
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
    let refused = other.run(&world.table, &Action::ALL, None, false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    lease.release().await;
    assert!(other.step(&world.table).await.unwrap().unwrap().compactions > 0);
    world.check().await;
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Append(i64),
    Compact,
    StaleCompact,
    Manifests,
    Expire,
    DropOnly,
    Sweep,
    Orphans,
    ForeignTag,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_i64..6).prop_map(Step::Append),
        2 => Just(Step::Compact),
        1 => Just(Step::StaleCompact),
        1 => Just(Step::Manifests),
        1 => Just(Step::Expire),
        1 => Just(Step::DropOnly),
        1 => Just(Step::Sweep),
        1 => Just(Step::Orphans),
        1 => Just(Step::ForeignTag),
    ]
}

async fn walk(steps: &[Step], partitioned: bool, sorted: bool) {
    let mut world = World::new(partitioned, sorted).await;
    world.append(1).await;
    let mut held: Option<Work> = None;
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Append(rows) => world.append(*rows).await,
            Step::Compact => drop(world.run(Action::Compact).await),
            // Written now, committed when the next one comes by.
            Step::StaleCompact => {
                if let Some(work) = held.take() {
                    land(&world, &world.lake, work).await;
                } else if world.maintainer.health(&world.table).await.unwrap().compactable_files > 0 {
                    held = Some(compacted(&world).await);
                }
            }
            Step::Manifests => drop(world.run(Action::Manifests).await),
            Step::Expire => drop(world.run(Action::Expire).await),
            Step::DropOnly => drop(land(&world, &world.lake, Work::Expire(options().retention)).await),
            Step::Sweep => {
                let metadata = world.loaded().await.metadata;
                expire::sweep(&world.lake.committer, &metadata, i64::MAX).await.unwrap();
            }
            // What waits to be committed is younger than any grace would be.
            Step::Orphans if held.is_none() => {
                world.run(Action::Orphans).await;
                let (reached, found) = world.files().await;
                assert_eq!(reached, found);
            }
            Step::Orphans => {}
            Step::ForeignTag => {
                let id = world.loaded().await.metadata.current_snapshot_id().unwrap();
                let retention = iceberg::spec::SnapshotRetention::Tag { max_ref_age_ms: None };
                let reference = iceberg::spec::SnapshotReference::new(id, retention);
                world
                    .catalog
                    .edit(&world.table, |builder| builder.set_ref(&format!("tag-{number}"), reference))
                    .unwrap();
            }
        }
        // Whatever any retained snapshot reaches is there, and the table is what was committed.
        let (reached, found) = world.files().await;
        let missing: Vec<_> = reached.difference(&found).collect();
        assert!(missing.is_empty(), "{step:?}: {missing:?}");
        world.check().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// I4 and I8 under every order of commits and actions, interrupted ones among them.
    #[test]
    fn no_order_of_actions_loses_a_row_or_a_file(
        steps in prop::collection::vec(step(), 1..30),
        partitioned: bool,
        sorted: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(walk(&steps, partitioned, sorted));
    }
}
