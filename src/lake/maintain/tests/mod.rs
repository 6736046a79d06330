//! What the tests of maintenance work on: a table over a catalog and a store in memory, filled as ingestion does it and
//! compared row by row and file by file.

mod actions;
mod lineage;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, Int32Array, RecordBatch};
use arrow::datatypes::Int32Type;
use futures::TryStreamExt;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, ManifestWriterBuilder, Operation, Struct};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::lake::LakeOptions;
use crate::lake::catalog::memory::MemoryCatalog;
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
    /// Of format 3 what each row was called when it was seen first.
    names: Mutex<lineage::Names>,
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
    let options = LakeOptions { keep_snapshots: 100, writer_bytes: 64 << 20 };
    Arc::new(IcebergLake::new(Arc::new(catalog.clone()), stores.clone(), Compute::inline(), clock.clone(), &options))
}

impl World {
    /// An empty table with columns `id` and `bucket` = id % 2. Rows come in with falling ids, so that sorting shows.
    async fn new(partitioned: bool, sorted: bool) -> Self {
        Self::of(2, partitioned, sorted).await
    }

    /// The same of an Iceberg format version.
    async fn of(format_version: u8, partitioned: bool, sorted: bool) -> Self {
        let (clock, stores) = (Clock::system(), Stores::memory());
        let catalog = MemoryCatalog::new("memory:///warehouse", clock.clone());
        let lake = lake(&catalog, &stores, &clock);
        let fields = ["id", "bucket"].map(|name| Field::optional(name, Type::Int)).to_vec();
        let bucket = PartitionField { column: "bucket".to_owned(), transform: Transform::Identity };
        let layout = TableLayout {
            schema: TableSchema::of(fields),
            partition_by: if partitioned { vec![bucket] } else { Vec::new() },
            sort_by: if sorted { vec!["id".to_owned()] } else { Vec::new() },
            format_version,
            properties: BTreeMap::new(),
            location: None,
        };
        let table: TableName = "n.t".parse().unwrap();
        lake.create(&table, &layout).await.unwrap();
        let maintainer = Maintainer::new(Arc::clone(&lake), Compute::inline(), options());
        Self { catalog, stores, lake, maintainer, clock, table, next: 0, names: Mutex::default() }
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
        self.check_names().await;
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
    let (base_sequence, added) = (Some(base_sequence), written.into_iter().collect());
    Work::Files(Files { key, base_sequence, removed, added })
}

async fn land(world: &World, lake: &IcebergLake, work: Work) -> Landed {
    let uuid = world.loaded().await.metadata.uuid();
    Replace::new(&lake.committer, &world.table, uuid, work).land().await.unwrap()
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
    let builder = ManifestWriterBuilder::new(output, Some(new.id), Arc::clone(metadata.current_schema()), spec);
    let has_lineage = metadata.format_version() == FormatVersion::V3;
    let mut writer = if has_lineage { builder.build_v3_deletes() } else { builder.build_v2_deletes() };
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
