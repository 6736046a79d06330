//! The commit that makes rows of letters: rows into the table and the letters out of theirs, both or neither.
//!
//! A letter that is in its table has not become a row, and one that has become a row is not in it: that alone makes a
//! replay exactly once, whatever was lost, killed, repeated or deleted since. Each try starts from both tables as they
//! are, and looks at what has come into the table since the identities were looked for in it.

use std::sync::Arc;
use std::time::Duration;

use super::LetterFile;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::catalog::{Applied, LoadedTable, TableChange};
use crate::lake::commit::{carry_ledger, passes, still_means};
use crate::lake::maintain::replace::{Files, Replace, Work};
use crate::lake::manifests::WrittenList;
use crate::lake::progress;
use crate::lake::schema::from_iceberg_schema;
use crate::lake::tables::IcebergLake;
use crate::model::file::WrittenFile;
use crate::model::ids::CommitId;
use crate::model::record::{RecordColumns, Records};
use crate::model::schema::TableSchema;
use crate::ports::{LakeReader, Recovery, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::crash;

/// Tries that lose against other commits before it is given up.
const CONFLICTS_MAX: u32 = 40;

/// Letters that became rows, or that the table has as rows already, about to be committed.
#[derive(Debug)]
pub struct Settlement<'a> {
    /// Names the commit in the summaries of both tables.
    pub id: CommitId,
    /// The table at the state in which the records were looked for; they are not there.
    pub base: TableState,
    /// Where its rows say which records they are.
    pub columns: &'a RecordColumns,
    /// The schema that the rows were written with, the newest where there are several.
    pub schema: Arc<TableSchema>,
    /// Data files with the rows, uploaded; none where no letter became one.
    pub rows: Vec<WrittenFile>,
    /// The records that they hold.
    pub records: Records,
    /// The dead-letter table.
    pub letters: TableState,
    /// Its files that held the letters. They share what makes them leave it together.
    pub removed: Vec<LetterFile>,
    /// Files with the other letters of those files, uploaded.
    pub rest: Vec<WrittenFile>,
}

/// What became of it.
#[derive(Debug)]
pub enum Settled {
    /// It is in; the table's state right before or after it.
    Done(Box<TableState>),
    /// It is not and never will be, for this reason: what it was planned for has changed. Its files are deleted.
    Stale(String),
}

impl IcebergLake {
    /// Commits. Returns only with a definite outcome, as [`crate::ports::Lake::commit`] does.
    ///
    /// # Errors
    /// `Unavailable`, `Denied` or `Conflict` where it was certainly never applied; `Corrupt` or `Fenced` where a table was
    /// replaced, vanished or was rolled back.
    pub async fn settle(&self, mut settlement: Settlement<'_>) -> Result<Settled> {
        let key = settlement.removed.first().map(|file| file.key.clone());
        let key = key.ok_or_else(|| Error::bug("a commit of letters without any"))?;
        let removed = settlement.removed.drain(..).map(|file| (file.file.path.clone(), file.file)).collect();
        let files = Files { key, base_sequence: None, removed, added: std::mem::take(&mut settlement.rest) };
        let (name, uuid) = (settlement.letters.table.clone(), settlement.letters.uuid);
        let mut letters = Replace::named(settlement.id.0, &self.committer, &name, uuid, Work::Files(files));
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        // From the first lost answer on the commit may be in, or may still come in: nothing is deleted then.
        let (mut unknown, mut tries) = (false, 0);
        let result = loop {
            match self.attempt(&mut settlement, &mut letters, unknown).await {
                Ok(Some(settled)) => break Ok(settled),
                Ok(None) => {}
                Err((error, lost)) => {
                    unknown |= lost;
                    if !unknown || !passes(&error) {
                        break Err(error);
                    }
                    tracing::warn!(table = %name, error = %error.chain(), "commit's answer was lost, looking for it");
                }
            }
            tries += 1;
            if tries > CONFLICTS_MAX && !unknown {
                let text = format!("take letters out of table `{name}`: other commits came first {tries} times");
                break Err(Error::new(ErrorKind::Conflict, text));
            }
            self.committer.clock.sleep(backoff.pause()).await;
        };
        match &result {
            Ok(Settled::Done(_)) => letters.delete_leftovers().await,
            _ if !unknown => {
                letters.discard().await;
                self.committer.delete(settlement.rows.iter().map(|file| &file.path)).await;
            }
            _ => {}
        }
        result
    }

    /// One try; `None` where another commit came first. With an error, whether its answer was lost.
    async fn attempt(
        &self,
        settlement: &mut Settlement<'_>,
        letters: &mut Replace<'_>,
        unknown: bool,
    ) -> Result<Option<Settled>, (Error, bool)> {
        let (known, committer) = (|error| (error, false), &self.committer);
        // The letters' table is looked at last: where it does not have the commit, the other one did not have it either.
        let main = self.table_of(settlement).await.map_err(known)?;
        let base = letters.load().await.map_err(known)?;
        if unknown && progress::contains_commit(&base.metadata, &settlement.id.to_string()) {
            return Ok(Some(self.done(settlement, &main).map_err(known)?));
        }
        let appended = match self.append(settlement, &main).await.map_err(known)? {
            Ok(appended) => appended,
            Err(reason) => return Ok(Some(Settled::Stale(reason))),
        };
        let (mut changes, mut lists): (Vec<_>, Vec<_>) = appended.into_iter().unzip();
        let unused: Vec<String> = lists.iter().flat_map(|list: &WrittenList| list.files.iter().cloned()).collect();
        let (change, list) = match letters.change(&base).await.map_err(known)? {
            Ok(change) => change,
            Err(reason) => {
                committer.delete(unused.iter()).await;
                return Ok(Some(Settled::Stale(reason)));
            }
        };
        changes.push(change);
        lists.extend(list);
        crash::point(crash::LETTERS_PREPARED);
        match committer.catalog.commit(changes).await.map_err(known)? {
            Applied::Done(tables) => {
                crash::point(crash::LETTERS_SETTLED);
                lists.iter().for_each(|list| committer.manifests.remember(list));
                let table = tables.first().filter(|_| tables.len() > 1).unwrap_or(&main);
                Ok(Some(self.done(settlement, table).map_err(known)?))
            }
            Applied::Conflict(reason) => {
                tracing::debug!(table = %settlement.base.table, reason, "letters' commit conflict, rebasing");
                // Manifests of the letters' table serve the next try.
                let list = lists.last().map(|list| &list.location);
                committer.delete(unused.iter().chain(list)).await;
                Ok(None)
            }
            Applied::Unknown(error) => Err((error, true)),
        }
    }

    fn done(&self, settlement: &Settlement<'_>, main: &LoadedTable) -> Result<Settled> {
        Ok(Settled::Done(Box::new(self.saw(&settlement.base.table, main)?)))
    }

    async fn table_of(&self, settlement: &Settlement<'_>) -> Result<LoadedTable> {
        let TableState { table, uuid, .. } = &settlement.base;
        let loaded = self.committer.catalog.load(table).await?;
        let loaded = loaded.filter(|loaded| loaded.metadata.uuid() == *uuid);
        loaded.ok_or_else(|| Error::corrupt(format!("replay letters of table `{table}`: it vanished or was replaced")))
    }

    /// The rows' change of the table as it is now, where there are any; or why it no longer fits.
    async fn append(
        &self,
        settlement: &mut Settlement<'_>,
        main: &LoadedTable,
    ) -> Result<Result<Option<(TableChange, WrittenList)>, String>> {
        let (table, metadata) = (settlement.base.table.clone(), &main.metadata);
        let progress = match progress::recovery(&table.to_string(), metadata)? {
            Recovery::At(progress) => progress,
            Recovery::Fresh => return Ok(Err("the table has no ledger any more".to_owned())),
            Recovery::Halted(text) => return Err(Error::corrupt(text)),
        };
        if settlement.rows.is_empty() {
            return Ok(Ok(None));
        }
        let state = self.saw(&table, main)?;
        if state.snapshot_id != settlement.base.snapshot_id {
            if !self.came_since(settlement, &state).await?.is_empty() {
                return Ok(Err("records came into the table as rows meanwhile".to_owned()));
            }
            settlement.base = state;
        }
        if !settlement.records.last().all(|id| progress.ledger.covers(&id)) {
            return Ok(Err("the table's ledger went back meanwhile".to_owned()));
        }
        let specs_known = settlement.rows.iter().all(|file| metadata.partition_spec_by_id(file.spec_id).is_some());
        if !specs_known || !still_means(&settlement.schema, &from_iceberg_schema(metadata.current_schema())?) {
            return Ok(Err("the table's columns changed meanwhile".to_owned()));
        }
        let mut entries = progress::summary(&progress);
        entries.insert(progress::COMMIT_ID.to_owned(), settlement.id.to_string());
        let rows: u64 = settlement.rows.iter().map(|file| file.rows).sum();
        entries.insert(progress::REPLAYED.to_owned(), rows.to_string());
        entries.extend(progress::newest(metadata));
        let (mut change, list) = self.committer.append(&table, metadata, &settlement.rows, entries).await?;
        // What is read of the topics stays as it was: the tag and the property move to the new snapshot.
        carry_ledger(&mut change, &progress)?;
        Ok(Ok(Some((change, list))))
    }

    /// Those of the records that came into the table after the settlement's base. What ingestion appends lies above the
    /// ledger of the base, so that bounds mostly tell.
    async fn came_since(&self, settlement: &Settlement<'_>, state: &TableState) -> Result<Records> {
        let Settlement { columns, records, .. } = settlement;
        let added = match settlement.base.snapshot_id {
            Some(since) => self.added(state, since).await?,
            None => None,
        };
        match added {
            Some(files) => self.among(state, columns, records, &files).await,
            None => self.present(state, columns, records).await,
        }
    }
}
