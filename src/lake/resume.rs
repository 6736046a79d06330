//! Lifting what stops a table: a commit of an empty snapshot that carries the chosen ledger, without suspension.
//!
//! The choice is durable and seen by every replica, since it is a snapshot like any other: tag and property move with
//! it, and the next one who looks finds the ledger in `main`'s history again.

use std::time::Duration;

use iceberg::spec::TableMetadata;

use super::catalog::Applied;
use super::commit::{Committer, carry_ledger};
use super::progress;
use super::tables::IcebergLake;
use crate::error::{Error, Result};
use crate::model::ids::{CommitId, TableName};
use crate::ports::{Progress, Recovery};
use crate::runtime::backoff::Backoff;

/// Which side a rolled-back table goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeFrom {
    /// The newest ledger ever committed: what `main` does not show stays out of the table.
    Ledger,
    /// `main`'s newest ledger: what `main` does not show is read again.
    Snapshot,
}

/// What resuming a table came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Why it was stopped.
    pub reason: String,
    /// The newest ledger ever committed; `None` where it is not known any more.
    pub ledger: Option<Progress>,
    /// `main`'s newest; empty where `main`'s whole history has none, `None` where that history is expired.
    pub snapshot: Option<Progress>,
    /// Where it goes on.
    pub chosen: Progress,
}

impl IcebergLake {
    /// Lifts a table's suspension, or settles where a rolled-back one goes on. `from` may be left out where both
    /// sides are the same.
    ///
    /// # Errors
    /// `InvalidRequest` where nothing stops the table, there is no such table, or a choice is needed; `Corrupt`
    /// where the chosen side is lost; `Unavailable` where the outcome may not be known: asking again is safe.
    pub async fn resume(&self, table: &TableName, from: Option<ResumeFrom>) -> Result<Resumed> {
        self.committer.settle(table, from).await
    }
}

impl Committer {
    async fn settle(&self, table: &TableName, from: Option<ResumeFrom>) -> Result<Resumed> {
        let commit = CommitId(self.clock.fresh_id()).to_string();
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(5));
        let mut sent: Option<Resumed> = None;
        loop {
            let base = self.catalog.load(table).await?;
            let base = base.ok_or_else(|| Error::invalid_request(format!("there is no table `{table}`")))?;
            let metadata = &base.metadata;
            if let Some(resumed) = sent
                && progress::contains_commit(metadata, &commit)
            {
                return Ok(resumed);
            }
            let resumed = choose(table, metadata, from)?;
            let mut entries = progress::summary(&resumed.chosen);
            entries.insert(progress::COMMIT_ID.to_owned(), commit.clone());
            let (mut change, list) = self.append(table, metadata, &[], entries).await?;
            carry_ledger(&mut change, &resumed.chosen)?;
            match self.catalog.commit(vec![change]).await? {
                Applied::Done(_) => return Ok(resumed),
                Applied::Conflict(_) => self.delete(list.files.iter()).await,
                Applied::Unknown(error) => {
                    tracing::warn!(%table, error = %error.chain(), "commit's answer was lost, looking for it");
                }
            }
            sent = Some(resumed);
            self.clock.sleep(backoff.pause()).await;
        }
    }
}

/// What stops the table, both sides, and the one chosen.
fn choose(table: &TableName, metadata: &TableMetadata, from: Option<ResumeFrom>) -> Result<Resumed> {
    let (reason, ledger, snapshot) = match progress::recovery(&table.to_string(), metadata)? {
        Recovery::At(Progress { suspension: Some(suspension), ledger, gaps }) => {
            let at = Progress { ledger, suspension: None, gaps };
            (suspension.reason, Some(at.clone()), Some(at))
        }
        Recovery::At(_) | Recovery::Fresh => {
            return Err(Error::invalid_request(format!("table `{table}` is neither suspended nor rolled back")));
        }
        Recovery::Halted(reason) => (reason, newest(metadata)?, of_main(metadata)?),
    };
    let side = match from {
        Some(ResumeFrom::Ledger) => &ledger,
        Some(ResumeFrom::Snapshot) => &snapshot,
        None if ledger == snapshot => &ledger,
        None => return Err(Error::invalid_request(reason)),
    };
    let chosen = side.clone().ok_or_else(|| {
        Error::corrupt(format!(
            "resume table `{table}`: that side's ledger was expired with its snapshots; choose the other"
        ))
    })?;
    Ok(Resumed { reason, ledger, snapshot, chosen: Progress { suspension: None, ..chosen } })
}

/// The newest progress ever committed, wherever `main` is.
fn newest(metadata: &TableMetadata) -> Result<Option<Progress>> {
    let tagged = metadata.snapshot_for_ref(progress::TAG).map(progress::read_summary).transpose()?.flatten();
    Ok(tagged.or_else(|| progress::marker_progress(metadata)))
}

/// The newest progress in `main`'s history. A history that is whole and has none is one before the first ledger.
fn of_main(metadata: &TableMetadata) -> Result<Option<Progress>> {
    let mut is_whole = true;
    for snapshot in progress::ancestry(metadata) {
        if let Some(progress) = progress::read_summary(snapshot)? {
            return Ok(Some(progress));
        }
        is_whole = snapshot.parent_snapshot_id().is_none();
    }
    Ok(is_whole.then(Progress::default))
}

#[cfg(test)]
mod tests;
