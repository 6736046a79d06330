//! What the tests of replays work on: a table and its letters over a catalog and a store in memory, filled as ingestion
//! does it and compared with all that was read.

mod cases;
mod given;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use futures::future::BoxFuture;
use iceberg::TableCreation;
use iceberg::spec::{MAIN_BRANCH, ManifestFile, ManifestList, ManifestListWriter, Operation, Snapshot, Summary};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use self::given::*;
use super::*;
use crate::decode::evolution::Evolution;
use crate::decode::layout::{Format, Given, KeyColumns, Layout, Metadata, MetadataNames, Tombstones};
use crate::decode::mapping::MappingOptions;
use crate::decode::schema::Schema;
use crate::decode::{Decoder, Decoding, SchemaKey, SchemaUse, Sides, dead_letters};
use crate::lake::LakeOptions;
use crate::lake::catalog::memory::MemoryCatalog;
use crate::lake::catalog::{Applied, Catalog, LoadedTable, TableChange};
use crate::lake::inspect;
use crate::lake::maintain::plan::{Compaction, Retention};
use crate::lake::maintain::{Action, MaintainOptions, Maintainer};
use crate::lake::storage::Stores;
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::file::WrittenFile;
use crate::model::ids::{CommitId, TopicPartition};
use crate::model::ledger::{Advance, Ledger, Position, TopicLedger};
use crate::model::raw::{Headers, RawRecord};
use crate::pipeline::driver::{Subjects, TableSpec};
use crate::pipeline::event::{OnError, OnGap, OnTopicChange, Settings, StartAt};
use crate::ports::{
    CommitOutcome, CommitRequest, Lake as _, Properties, Recovery, RegisteredSchema, SchemaFormat, TableLayout,
};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

/// A table, its letters, and what was read for them.
#[derive(Clone)]
struct World {
    catalog: MemoryCatalog,
    stores: Stores,
    lake: Arc<IcebergLake>,
    clock: Clock,
    registry: Arc<Learning>,
    spec: Arc<TableSpec>,
    /// Every record ever read.
    read: Arc<Mutex<BTreeMap<RecordId, Body>>>,
    /// Records whose rows somebody deleted.
    deleted: Arc<Mutex<BTreeSet<RecordId>>>,
}

fn lake(catalog: Arc<dyn Catalog>, stores: &Stores, clock: &Clock) -> Arc<IcebergLake> {
    let options = LakeOptions { keep_snapshots: 1000, writer_bytes: 64 << 20 };
    Arc::new(IcebergLake::new(catalog, stores.clone(), Compute::inline(), clock.clone(), &options))
}

impl World {
    async fn new(evolution: Evolution) -> Self {
        let (clock, stores) = (Clock::system(), Stores::memory());
        let catalog = MemoryCatalog::new("memory:///warehouse", clock.clone());
        let lake = lake(Arc::new(catalog.clone()), &stores, &clock);
        let (registry, spec) = (Arc::new(Learning::default()), Arc::new(spec(evolution)));
        registry.learn(schema(1));
        let world =
            Self { catalog, stores, lake, clock, registry, spec, read: Arc::default(), deleted: Arc::default() };
        let known = Schema::parse(&schema(1)).unwrap();
        let columns = known.columns(crate::decode::MessagePath::FIRST, world.spec.layout.mapping).unwrap();
        let key = crate::decode::schema::Columns::One(crate::model::schema::Type::String);
        world.create(world.table(), world.spec.layout.table_schema(key, columns).unwrap()).await;
        world.create(&world.table().dead_letters(), dead_letters::table_schema()).await;
        world
    }

    async fn create(&self, table: &TableName, schema: TableSchema) {
        let layout = TableLayout {
            schema,
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            format_version: 2,
            properties: BTreeMap::new(),
            location: None,
        };
        self.lake.create(table, &layout).await.unwrap();
    }

    fn table(&self) -> &TableName {
        &self.spec.settings.table
    }

    async fn state(&self) -> TableState {
        self.lake.load(self.table()).await.unwrap().unwrap()
    }

    fn ledger(state: &TableState) -> Ledger {
        match &state.recovery {
            Recovery::At(progress) => progress.ledger.clone(),
            Recovery::Fresh => Ledger::default(),
            Recovery::Halted(text) => panic!("{text}"),
        }
    }

    /// What ingestion does: rows, letters and ledger in one commit.
    async fn ingest(&self, topic: &str, partition: i32, values: &[Body]) {
        let source = TopicPartition::new(topic, partition);
        let mut state = self.state().await;
        let ledger = Self::ledger(&state);
        let from = ledger.position(&source).map(|at| at.next);
        let incarnation = ledger.topics.get(topic).map_or(0, |topic| topic.incarnation);
        let first = from.unwrap_or_default();
        let decoded = loop {
            match self.decoder(&state).decode(batch(&source, first, values), incarnation.cast_signed()).unwrap() {
                Decoding::Done(decoded) => break decoded,
                Decoding::Needs(_, needs) => {
                    let wanted = needs.table.expect("all schemas are known or unknown");
                    state = self.lake.evolve(&state, &wanted, &BTreeMap::new()).await.unwrap();
                }
                Decoding::Misfit(_, text) => panic!("{text}"),
            }
        };
        let next = decoded.next;
        for (value, offset) in values.iter().zip(first.0..) {
            let id = RecordId { source: source.clone(), incarnation: incarnation.cast_signed(), offset };
            self.read.lock().unwrap().insert(id, *value);
        }
        let mut identity = Ledger::default();
        identity.topics.insert(topic.to_owned(), TopicLedger { incarnation, ..TopicLedger::default() });
        let advance = Advance { from, to: Position { next, leader_epoch: None } };
        self.commit(&state, decoded, (source, advance), identity).await;
    }

    fn decoder(&self, state: &TableState) -> Decoder {
        let known = self.registry.0.lock().unwrap().clone();
        let of = |id: u32| match known.get(&id) {
            Some(schema) => SchemaUse::Known(Arc::new(Schema::parse(schema).unwrap())),
            None => SchemaUse::Rejected(Reason::UnknownSchemaId, format!("schema {id}")),
        };
        let schemas = (1..10).map(|id| (SchemaKey::Id(id), of(id))).collect();
        let sides = Sides { key: Format::String, value: Format::Registry };
        Decoder::new(Arc::new(self.spec.layout.clone()), Arc::clone(&state.schema), sides, schemas)
    }

    async fn commit(
        &self,
        state: &TableState,
        decoded: DecodedBatch,
        advance: (TopicPartition, Advance),
        identity: Ledger,
    ) {
        let id = CommitId(self.clock.fresh_id());
        let mut dead = None;
        if !decoded.rejects.is_empty() {
            let letters = self.lake.load(&self.table().dead_letters()).await.unwrap().unwrap();
            let rows = dead_letters::rows(&letters.schema, &decoded, self.clock.now_ms()).unwrap();
            dead = Some((letters.uuid, self.files(&letters, id, rows).await));
        }
        let files = self.files(state, id, decoded.rows).await;
        let request = CommitRequest {
            id,
            table: self.table().clone(),
            table_uuid: state.uuid,
            schema: Arc::clone(&state.schema),
            advances: [advance].into(),
            identity,
            files,
            dead_letters: dead,
            suspension: None,
            gaps: Vec::new(),
            newest_ms: Some(self.clock.now_ms()),
            conflicts: Arc::default(),
        };
        let outcome = self.lake.commit(&request).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    }

    async fn files(&self, state: &TableState, id: CommitId, rows: RecordBatch) -> Vec<WrittenFile> {
        if rows.num_rows() == 0 {
            return Vec::new();
        }
        let mut writer = self.lake.writer(state, id).unwrap();
        writer.write(rows).await.unwrap();
        writer.finish().await.unwrap()
    }

    /// Somebody declares that a topic was made anew.
    async fn renew(&self, topic: &str) {
        let state = self.state().await;
        let mut identity = Ledger::default();
        let incarnation = Self::ledger(&state).topics[topic].incarnation + 1;
        identity.topics.insert(topic.to_owned(), TopicLedger { incarnation, ..TopicLedger::default() });
        let source = TopicPartition::new(topic, 0);
        let nothing = self.decoder(&state).decode(batch(&source, NextOffset(0), &[]), 0).unwrap();
        let Decoding::Done(nothing) = nothing else { panic!("{nothing:?}") };
        let to = Position { next: NextOffset(0), leader_epoch: None };
        self.commit(&state, nothing, (source, Advance { from: None, to }), identity).await;
    }

    fn replayer(&self, lake: &Arc<IcebergLake>) -> Replayer {
        Replayer {
            lake: Arc::clone(lake),
            spec: Arc::clone(&self.spec),
            registry: Some(Arc::<Learning>::clone(&self.registry)),
            clock: self.clock.clone(),
            compute: Compute::inline(),
        }
    }

    /// Another process, with its way to the catalog.
    fn beside(&self) -> (Arc<IcebergLake>, Arc<Interference>) {
        let by = Arc::<Interference>::default();
        let catalog = Interfered { inner: self.catalog.clone(), by: Arc::clone(&by) };
        (lake(Arc::new(catalog), &self.stores, &self.clock), by)
    }

    async fn replay_by(&self, lake: &Arc<IcebergLake>, choice: &Choice) -> Result<Replay> {
        let mut done = Replay::default();
        self.replayer(lake).run_beside(choice, false, &mut done, &|_| {}).await.map(|()| done)
    }

    /// A replay by a process that may die on the way; `None` where it did.
    async fn replay_until_dead(&self, lake: &Arc<IcebergLake>, by: &Interference) -> Option<Result<Replay>> {
        let choice = Choice::default();
        tokio::select! {
            biased;
            () = by.died.notified() => None,
            done = self.replay_by(lake, &choice) => Some(done),
        }
    }

    async fn replay(&self) -> Replay {
        self.replay_by(&self.lake, &Choice::default()).await.unwrap()
    }

    async fn compact(&self, table: &TableName) {
        let options = MaintainOptions {
            compaction: Compaction { target_bytes: 1 << 20, min_files: 2, max_files: 100 },
            retention: Retention {
                keep_snapshots: 1000,
                keep_min: 1,
                keep_min_age: std::time::Duration::ZERO,
                keep_for: std::time::Duration::from_hours(1),
            },
            orphan_grace: std::time::Duration::from_hours(1),
            memory_bytes: 64 << 20,
        };
        let maintainer = Maintainer::new(Arc::clone(&self.lake), Compute::inline(), options);
        maintainer.run(table, &[Action::Compact], None, false).await.unwrap();
    }

    /// Rows of the table by their records; fails where one is there twice.
    async fn rows(&self) -> BTreeMap<RecordId, Row> {
        let loaded = self.catalog.load(self.table()).await.unwrap().unwrap();
        let mut found = BTreeMap::new();
        for file in inspect::files(&self.stores, &loaded.metadata).await.unwrap() {
            for (id, row) in self.rows_of(&file.path).await {
                assert!(found.insert(id.clone(), row).is_none(), "{id} is a row twice");
            }
        }
        found
    }

    async fn rows_of(&self, path: &str) -> Vec<(RecordId, Row)> {
        let columns = self.replayer(&self.lake).columns(&self.state().await.schema);
        let mut found = Vec::new();
        let bytes = self.stores.read(path).await.unwrap().unwrap();
        for rows in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let rows = rows.unwrap();
            let ids = columns.ids(&rows).unwrap();
            for row in 0..rows.num_rows() {
                let (topic, partition, incarnation, offset) = ids.at(row).unwrap();
                let id = RecordId { source: TopicPartition::new(topic, partition), incarnation, offset };
                check_metadata(&rows, row, &id);
                let n = rows.column_by_name("n").unwrap().as_primitive::<Int64Type>().value(row);
                let texts = (2..10).filter_map(|id| rows.column_by_name(&format!("s{id}")));
                let text = texts.map(AsArray::as_string::<i32>).find(|c| c.is_valid(row));
                found.push((id, (n, text.map(|c| c.value(row).to_owned()))));
            }
        }
        found
    }

    /// What another engine does: deletes the rows that came last, as far as they share a manifest.
    async fn foreign_delete(&self) {
        let loaded = self.catalog.load(self.table()).await.unwrap().unwrap();
        let metadata = &loaded.metadata;
        let current = metadata.current_snapshot().unwrap();
        let list = self.stores.read(current.manifest_list()).await.unwrap().unwrap();
        let list = ManifestList::parse_with_version(&list, metadata.format_version()).unwrap();
        let live = |manifest: &&ManifestFile| manifest.has_added_files() || manifest.has_existing_files();
        let mut kept: Vec<ManifestFile> = list.entries().iter().filter(live).cloned().collect();
        kept.sort_by_key(|manifest| manifest.sequence_number);
        let Some(gone) = kept.pop() else { return };
        let manifest = gone.load_manifest(&self.stores.file_io()).await.unwrap();
        let mut rows = self.state().await.rows;
        for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
            for (id, _) in self.rows_of(entry.file_path()).await {
                self.deleted.lock().unwrap().insert(id);
                rows -= 1;
            }
        }
        let id = i64::from_le_bytes(self.clock.fresh_id().into_bytes()[8..].try_into().unwrap()) & i64::MAX;
        let (location, sequence) =
            (format!("{}/metadata/{id}.avro", metadata.location()), metadata.next_sequence_number());
        let out = self.stores.file_io().new_output(&location).unwrap().writer().await.unwrap();
        let mut writer = ManifestListWriter::v2(out, id, Some(current.snapshot_id()), sequence);
        writer.add_manifests(kept.into_iter()).unwrap();
        writer.close().await.unwrap();
        let additional_properties = [("total-records".to_owned(), rows.to_string())].into();
        let snapshot = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(Some(current.snapshot_id()))
            .with_sequence_number(sequence)
            .with_timestamp_ms(current.timestamp_ms().max(self.clock.now_ms()))
            .with_manifest_list(location)
            .with_summary(Summary { operation: Operation::Delete, additional_properties })
            .with_schema_id(metadata.current_schema_id())
            .build();
        self.catalog.edit(self.table(), |builder| builder.set_branch_snapshot(snapshot, MAIN_BRANCH)).unwrap();
    }

    /// The records of all letters; fails where one is there twice.
    async fn letters(&self) -> BTreeSet<RecordId> {
        let found = find(&self.lake, self.table(), &Choice::default(), usize::MAX, None).await.unwrap();
        let count = found.len();
        let letters: BTreeSet<RecordId> = found.iter().map(|letter| letter.record.parse().unwrap()).collect();
        assert_eq!(letters.len(), count, "a letter is there twice");
        letters
    }

    /// Every record is a row as it should be, or a letter, and never both; those that are deleted are neither.
    async fn check(&self) -> (usize, usize) {
        let (rows, letters) = (self.rows().await, self.letters().await);
        let (read, deleted) = (self.read.lock().unwrap().clone(), self.deleted.lock().unwrap().clone());
        for (id, value) in &read {
            let is = (rows.contains_key(id), letters.contains(id), deleted.contains(id));
            assert!(matches!(is, (true, false, false) | (false, true, false) | (false, false, true)), "{id} is {is:?}");
            if let Some(row) = rows.get(id) {
                assert_eq!(*row, value.row(), "{id}");
            }
        }
        assert_eq!(rows.len() + letters.len() + deleted.len(), read.len());
        let state = self.state().await;
        assert!(matches!(state.recovery, Recovery::At(_)), "{:?}", state.recovery);
        assert_eq!(state.rows, rows.len() as u64);
        let held = self.lake.load(&self.table().dead_letters()).await.unwrap().unwrap();
        assert_eq!(held.rows, letters.len() as u64);
        (rows.len(), letters.len())
    }
}
