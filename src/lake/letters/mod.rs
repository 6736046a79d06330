//! Dead letters that become rows after all: the files that hold them, which of their records the table has already,
//! and the one commit of both tables. What a letter says and what its record decodes to is known elsewhere.

mod arrived;
mod present;
mod settle;

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;

pub use arrived::{Arrivals, Arrived};
pub use settle::{Settled, Settlement};

use super::maintain::lease::Lease;
use super::maintain::lease_name;
use super::maintain::plan::Compaction;
use super::maintain::survey::{GroupKey, Known, SmallFile};
use super::read::has_deletes;
use super::tables::IcebergLake;
use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::model::schema::TableSchema;
use crate::ports::TableState;

/// How long a replay waits for others that are at the same letters.
const PATIENCE: Duration = Duration::from_mins(2);

/// A file of a dead-letter table.
#[derive(Debug, Clone)]
pub struct LetterFile {
    key: GroupKey,
    file: SmallFile,
}

impl LetterFile {
    /// Bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.file.size_bytes
    }

    /// True where both may leave the table in one commit.
    #[must_use]
    pub fn goes_with(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Letters in it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.file.rows
    }
}

impl IcebergLake {
    /// The dead-letter table of that name and its files, those that go with each other in a row; `None` where there is no
    /// such table.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where the table has delete files of another engine.
    pub async fn letter_files(&self, letters: &TableName) -> Result<Option<(TableState, Vec<LetterFile>)>> {
        /// Files of any size.
        const ALL: Compaction = Compaction { target_bytes: u64::MAX, min_files: 1, max_files: usize::MAX };
        let Some(loaded) = self.committer.catalog.load(letters).await? else { return Ok(None) };
        let survey = Known::default().survey(&self.committer.manifests, &loaded.metadata, &ALL).await?;
        if survey.has_deletes() {
            return Err(has_deletes(letters));
        }
        let files = survey
            .groups
            .into_iter()
            .flat_map(|(key, files)| files.into_iter().map(move |file| LetterFile { key: key.clone(), file }));
        Ok(Some((self.saw(letters, &loaded)?, files.collect())))
    }

    /// The letters of a file of that table in the columns `wanted`; a struct may be wanted with some of its fields alone.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where the file is gone or cannot be read.
    pub async fn letters(
        &self,
        of: &TableState,
        file: &LetterFile,
        wanted: TableSchema,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.rows_of(of, wanted, &file.file.path, file.file.size_bytes).await
    }

    /// Does `work` while nobody maintains the dead-letter table of that name or takes letters out of it. That saves work
    /// and nothing more: every commit is right without it.
    ///
    /// # Errors
    /// `Unavailable` where another process is at it and goes on being so; else those of `work`.
    pub async fn alone_with<T>(&self, letters: &TableName, work: impl Future<Output = Result<T>>) -> Result<T> {
        let (catalog, clock) = (&self.committer.catalog, &self.committer.clock);
        let owner = clock.fresh_id().simple().to_string();
        let lease = Lease::wait(&Arc::clone(catalog), clock, &lease_name(letters), &owner, PATIENCE).await?;
        let lease = lease.ok_or_else(|| {
            Error::unavailable(format!("another process maintains table `{letters}`, or replays its letters, now"))
        })?;
        let done = lease.hold(work).await;
        lease.release().await;
        done
    }
}
