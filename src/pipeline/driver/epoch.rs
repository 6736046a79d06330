//! The files of one epoch: rows into the table's writer, rejects into the dead-letter table's.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::Ports;
use super::resolve::Resolver;
use crate::decode::dead_letters;
use crate::error::{Error, Result};
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::file::WrittenFile;
use crate::model::ids::CommitId;
use crate::model::mapping;
use crate::model::schema::TableSchema;
use crate::pipeline::event::{EpochId, OnError};
use crate::ports::{CommitRequest, FileWriter, TableLayout, TableState};

/// Files being written.
pub(super) struct EpochFiles {
    pub(super) epoch: EpochId,
    commit: CommitId,
    /// The writer, and the schema that it was made for.
    open: Option<(Arc<TableSchema>, Box<dyn FileWriter>)>,
    complete: Vec<WrittenFile>,
    dead: Option<(Uuid, Arc<TableSchema>, Box<dyn FileWriter>)>,
    counts: Counts,
}

/// What an epoch has beside its files.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    rejects: BTreeMap<Reason, u64>,
    filtered: u64,
}

/// Files complete, and what a commit needs of them.
pub(super) struct SealedFiles {
    pub(super) commit: CommitId,
    pub(super) schema: Option<Arc<TableSchema>>,
    pub(super) files: Vec<WrittenFile>,
    pub(super) dead_letters: Option<(Uuid, Vec<WrittenFile>)>,
    pub(super) counts: Counts,
}

impl SealedFiles {
    /// No files: a commit of the ledger alone.
    pub(super) fn none(id: Uuid) -> Self {
        Self { commit: CommitId(id), schema: None, files: Vec::new(), dead_letters: None, counts: Counts::default() }
    }
}

impl EpochFiles {
    pub(super) fn new(epoch: EpochId, id: Uuid) -> Self {
        Self { epoch, commit: CommitId(id), open: None, complete: Vec::new(), dead: None, counts: Counts::default() }
    }

    /// Bytes in files, complete or not.
    pub(super) fn file_bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |(_, writer)| writer.file_bytes());
        open + self.complete.iter().map(|file| file.size_bytes).sum::<u64>()
    }

    pub(super) async fn write(&mut self, resolver: &Resolver, batch: DecodedBatch) -> Result<()> {
        let spec = &resolver.spec;
        for reject in &batch.rejects {
            *self.counts.rejects.entry(reject.reason).or_default() += 1;
        }
        self.counts.filtered += batch.filtered.len() as u64;
        if !batch.rejects.is_empty() && spec.settings.on_error == OnError::DeadLetter {
            self.write_dead_letters(resolver, &batch).await?;
        }
        if batch.rows.num_rows() == 0 {
            return Ok(());
        }
        // Rows that were decoded for another schema than those before them go into files of their own.
        if let Some((_, writer)) = self.open.take_if(|(schema, _)| *schema != batch.schema) {
            self.complete.extend(writer.finish().await?);
        }
        let (_, writer) = match &mut self.open {
            Some(open) => open,
            open => {
                let state = resolver.state().ok_or_else(|| Error::bug("write before the table was seen"))?;
                let state = TableState { schema: Arc::clone(&batch.schema), ..state };
                open.insert((batch.schema, resolver.ports.lake.writer(&state, self.commit)?))
            }
        };
        writer.write(batch.rows).await
    }

    async fn write_dead_letters(&mut self, resolver: &Resolver, batch: &DecodedBatch) -> Result<()> {
        let lake = &resolver.ports.lake;
        let (_, schema, writer) = match &mut self.dead {
            Some(dead) => dead,
            dead => {
                let name = resolver.spec.settings.table.dead_letters();
                let state = match lake.load(&name).await? {
                    Some(state) => state,
                    None => lake.create(&name, &dead_letter_layout(resolver)).await?,
                };
                let writer = lake.writer(&state, self.commit)?;
                dead.insert((state.uuid, state.schema, writer))
            }
        };
        writer.write(dead_letters::rows(schema, batch, resolver.ports.clock.now_ms())?).await
    }

    /// Completes all files.
    pub(super) async fn finish(mut self) -> Result<SealedFiles> {
        let mut schema = None;
        if let Some((used, writer)) = self.open.take() {
            self.complete.extend(writer.finish().await?);
            schema = Some(used);
        }
        let dead_letters = match self.dead.take() {
            Some((uuid, _, writer)) => Some((uuid, writer.finish().await?)),
            None => None,
        };
        Ok(SealedFiles { commit: self.commit, schema, files: self.complete, dead_letters, counts: self.counts })
    }
}

fn dead_letter_layout(resolver: &Resolver) -> TableLayout {
    let keep = |key: &&String| !key.starts_with(mapping::PREFIX);
    let properties = &resolver.spec.properties;
    TableLayout {
        schema: dead_letters::table_schema(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        // Whatever the table's own is: letters leave by rewriting their files, which keeps no row ids.
        format_version: 2,
        properties: properties.keys().filter(keep).map(|key| (key.clone(), properties[key].clone())).collect(),
        location: None,
    }
}

impl Counts {
    /// Shows what a commit has brought in.
    pub(super) fn count(&self, ports: &Ports, request: &CommitRequest, dead_letters: bool) {
        let metrics = &ports.metrics;
        metrics.rows_committed.inc_by(request.files.iter().map(|file| file.rows).sum());
        metrics.bytes_committed.inc_by(request.files.iter().map(|file| file.size_bytes).sum());
        metrics.files_committed.inc_by(request.files.len() as u64);
        metrics.records_filtered.inc_by(self.filtered);
        for (reason, records) in &self.rejects {
            if dead_letters {
                metrics.count_dead_letters(reason.as_str(), *records);
            } else {
                metrics.count_skipped(reason.as_str(), *records);
            }
        }
    }
}
