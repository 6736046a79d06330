//! What others do to the table: foreign writers, and the operator who rolls back, chooses and resumes.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, NestedField, Operation, PrimitiveType, Schema, Snapshot, SnapshotReference,
    SnapshotRetention, Summary, TableMetadata, Type,
};

use super::lake::observe;
use super::producer::register_late;
use super::world::World;
use crate::error::Result;
use crate::lake::catalog::Catalog as _;
use crate::lake::catalog::memory::MemoryCatalog;
use crate::lake::progress;
use crate::model::ids::TableName;
use crate::ports::{Progress, Recovery};

/// Offsets of one partition of an incarnation that were given up: topic, incarnation, partition, from, to.
pub type GivenUp = (String, u32, i32, i64, i64);

/// Others, with their way to the catalog.
pub struct Operator {
    /// The simulation.
    pub world: Arc<World>,
    /// The catalog, without faults.
    pub catalog: MemoryCatalog,
    /// The table.
    pub table: TableName,
    /// What resuming from the ledger has given up.
    pub given_up: Vec<GivenUp>,
    /// True once records were read again by choice: their dead letters come twice.
    pub read_again: bool,
}

impl Operator {
    /// The table's metadata, all of its snapshots noted.
    pub async fn metadata(&self) -> Option<Arc<TableMetadata>> {
        observe(&self.world, &self.catalog, &self.table).await;
        Some(self.catalog.load(&self.table).await.ok()??.metadata)
    }

    /// Looks at the table, and chooses where a choice is asked for. True where there was one.
    ///
    /// # Errors
    /// `InvalidRequest` where the table cannot be changed so.
    pub async fn attend(&mut self) -> Result<bool> {
        let Some(metadata) = self.metadata().await else { return Ok(false) };
        let main = metadata.current_snapshot_id();
        let (newest, at_main, suspended) = {
            let history = self.world.history();
            let at_main = history.lineage(main).find(|(_, seen)| seen.progress.is_some()).map(|(id, _)| id);
            let suspended = history.progress(main).filter(|progress| progress.suspension.is_some()).cloned();
            (history.newest, at_main, suspended)
        };
        // A history that another tool has cut off holds all rows: there is one choice.
        let cut_off =
            newest == at_main && matches!(progress::recovery("simulated", &metadata), Ok(Recovery::Halted(_)));
        if newest != at_main || cut_off {
            let from_ledger = cut_off || self.world.random().per_mille(500);
            let chosen = if from_ledger { newest } else { at_main };
            self.world.note(format!("operator: resume from {}", if from_ledger { "ledger" } else { "snapshot" }));
            if from_ledger {
                self.give_up(newest, main);
            } else {
                self.read_again = true;
            }
            let progress = self.world.history().progress(chosen).cloned();
            let progress = progress.unwrap_or_default();
            self.resume(&metadata, progress)?;
        } else if let Some(progress) = suspended {
            self.world.note("operator: mends and resumes");
            register_late(&self.world);
            self.resume(&metadata, progress)?;
        } else {
            return Ok(false);
        }
        self.metadata().await;
        Ok(true)
    }

    /// How many records at that place were given up, of all incarnations.
    pub fn given_up_at(&self, topic: &str, partition: i32, offset: i64) -> usize {
        let is_there =
            |(of, _, at, from, to): &&GivenUp| of == topic && *at == partition && (*from..*to).contains(&offset);
        self.given_up.iter().filter(is_there).count()
    }

    fn give_up(&mut self, newest: Option<i64>, main: Option<i64>) {
        let history = self.world.history();
        let (ledger, held) = (history.incarnations(newest), history.incarnations(main));
        for ((topic, number), incarnation) in ledger {
            for (partition, (start, end)) in incarnation.ranges {
                let held = held.get(&(topic.clone(), number)).and_then(|held| held.ranges.get(&partition));
                let from = held.map_or(start, |range| range.1);
                if from < end {
                    self.given_up.push((topic.clone(), number, partition, from, end));
                }
            }
        }
    }

    fn resume(&self, metadata: &TableMetadata, progress: Progress) -> Result<()> {
        let progress = Progress { suspension: None, ..progress };
        let snapshot = self.empty(metadata, progress::summary(&progress));
        let (id, sequence) = (snapshot.snapshot_id(), snapshot.sequence_number());
        self.world.history().by_operator.insert(id);
        let tag = SnapshotReference::new(id, SnapshotRetention::Tag { max_ref_age_ms: Some(i64::MAX) });
        let marker = HashMap::from([(progress::PROPERTY.to_owned(), progress::marker(id, sequence, &progress))]);
        self.catalog.edit(&self.table, |builder| {
            builder.set_branch_snapshot(snapshot, MAIN_BRANCH)?.set_ref(progress::TAG, tag)?.set_properties(marker)
        })
    }

    /// A snapshot with the files of the one before.
    fn empty(&self, metadata: &TableMetadata, entries: HashMap<String, String>) -> Snapshot {
        let (high, low) = self.world.clock.fresh_id().as_u64_pair();
        let now = self.world.clock.now_ms().max(metadata.last_updated_ms());
        let list = metadata.current_snapshot().map(|main| main.manifest_list().to_owned()).unwrap_or_default();
        let builder = Snapshot::builder()
            .with_snapshot_id(((high.rotate_left(17) ^ low) & (i64::MAX as u64)).cast_signed())
            .with_parent_snapshot_id(metadata.current_snapshot_id())
            .with_sequence_number(metadata.next_sequence_number())
            .with_timestamp_ms(now)
            .with_manifest_list(list)
            .with_summary(Summary { operation: Operation::Append, additional_properties: entries })
            .with_schema_id(metadata.current_schema_id());
        match metadata.format_version() {
            FormatVersion::V3 => builder.with_row_range(metadata.next_row_id(), 0).build(),
            _ => builder.build(),
        }
    }

    /// Somebody points `main` at an older snapshot that has a ledger.
    ///
    /// # Errors
    /// As [`Operator::attend`].
    pub async fn roll_back(&self) -> Result<()> {
        let Some(metadata) = self.metadata().await else { return Ok(()) };
        let history = self.world.history();
        let older: Vec<i64> =
            progress::ancestry(&metadata).skip(1).take(6).map(|snapshot| snapshot.snapshot_id()).collect();
        let older: Vec<i64> = older.into_iter().filter(|id| history.progress(Some(*id)).is_some()).collect();
        drop(history);
        if older.is_empty() {
            return Ok(());
        }
        let to = self.world.random().pick(&older);
        self.world.note(format!("somebody rolls back to {to}"));
        self.catalog.rollback(&self.table, to)
    }

    /// Another writer does something that it may do.
    ///
    /// # Errors
    /// As [`Operator::attend`].
    pub async fn foreign(&self) -> Result<()> {
        let Some(metadata) = self.metadata().await.filter(|metadata| metadata.current_snapshot().is_some()) else {
            return Ok(());
        };
        let choice = self.world.random().between(0, 4);
        self.world.note(format!(
            "foreign writer: {}",
            ["appends", "sets a property", "adds a column", "expires", "expires all"][choice as usize]
        ));
        match choice {
            0 => self.append(&metadata),
            1 => {
                let entry = HashMap::from([("owner".to_owned(), self.world.random().number().to_string())]);
                self.catalog.edit(&self.table, |builder| builder.set_properties(entry))
            }
            2 => self.add_column(&metadata),
            3 => {
                let tagged = metadata.snapshot_for_ref(progress::TAG).map(|snapshot| snapshot.snapshot_id());
                let kept = [metadata.current_snapshot_id(), tagged];
                let mut old: Vec<i64> = metadata.snapshots().map(|snapshot| snapshot.snapshot_id()).collect();
                old.sort_by_key(|id| metadata.snapshot_by_id(*id).map(|snapshot| snapshot.sequence_number()));
                old.truncate(old.len() / 2);
                old.retain(|id| !kept.contains(&Some(*id)));
                self.catalog.edit(&self.table, |builder| Ok(builder.remove_snapshots(&old)))
            }
            _ => self.expire_all(&metadata).await,
        }
    }

    fn append(&self, metadata: &TableMetadata) -> Result<()> {
        let snapshot = self.empty(metadata, HashMap::new());
        self.catalog.edit(&self.table, |builder| builder.set_branch_snapshot(snapshot, MAIN_BRANCH))
    }

    /// Appends, then expires everything before, the tag included: what remains names the ledger's snapshot as parent.
    async fn expire_all(&self, metadata: &TableMetadata) -> Result<()> {
        let tagged = metadata.snapshot_for_ref(progress::TAG).map(|snapshot| snapshot.snapshot_id());
        if tagged.is_none() || tagged != metadata.current_snapshot_id() {
            return Ok(());
        }
        self.append(metadata)?;
        let Some(metadata) = self.metadata().await else { return Ok(()) };
        let main = metadata.current_snapshot_id();
        let old: Vec<i64> =
            metadata.snapshots().map(|snapshot| snapshot.snapshot_id()).filter(|id| Some(*id) != main).collect();
        self.catalog.edit(&self.table, |builder| Ok(builder.remove_ref(progress::TAG).remove_snapshots(&old)))
    }

    fn add_column(&self, metadata: &TableMetadata) -> Result<()> {
        let id = metadata.last_column_id() + 1;
        let current = metadata.current_schema();
        let mut fields: Vec<_> = current.as_struct().fields().to_vec();
        fields.push(Arc::new(NestedField::optional(id, format!("foreign_{id}"), Type::Primitive(PrimitiveType::Long))));
        self.catalog.edit(&self.table, |builder| {
            let schema = Schema::builder().with_fields(fields).build()?;
            builder.add_current_schema(schema)
        })
    }

    /// True where the table can be gone on with, and stands at the end of everything.
    pub async fn is_settled(&self) -> bool {
        let Some(metadata) = self.metadata().await else { return false };
        let Ok(Recovery::At(progress)) = progress::recovery("simulated", &metadata) else { return false };
        let broker = self.world.broker();
        progress.suspension.is_none()
            && broker.names().iter().all(|name| {
                let (Some(topic), Some(held)) = (broker.topic(name), progress.ledger.topics.get(name)) else {
                    return false;
                };
                let at = |n: usize| held.partitions.get(&(n as i32)).map(|at| at.next.0);
                held.topic_id == Some(topic.id)
                    && topic.partitions.iter().enumerate().all(|(n, partition)| at(n) == Some(partition.stable()))
            })
    }
}
