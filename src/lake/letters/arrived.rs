//! Letters by the commits that they came with, for whoever takes each of them once.

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use iceberg::spec::Operation;

use crate::error::Result;
use crate::lake::progress;
use crate::lake::tables::IcebergLake;
use crate::model::file::WrittenFile;
use crate::model::ids::TableName;
use crate::model::schema::TableSchema;
use crate::ports::TableState;

/// What came into a dead-letter table.
#[derive(Debug)]
pub struct Arrivals {
    /// The table.
    pub table: TableState,
    /// The commits, oldest first; the last one is the table's newest.
    pub commits: Vec<Arrived>,
    /// True where snapshots in between have expired, so that nobody knows what came with them.
    pub has_hole: bool,
}

/// The letters that came with a commit.
#[derive(Debug, Default)]
pub struct Arrived {
    /// The commit's number; it grows.
    pub sequence_number: i64,
    /// Files with them; none where letters were only moved or taken out.
    pub files: Vec<WrittenFile>,
}

impl IcebergLake {
    /// What came into the dead-letter table of that name after the commit with that number; with `None` all that it
    /// has, as if it came with its newest commit. `None` where there is no such table.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where a manifest cannot be read.
    pub async fn letters_after(&self, letters: &TableName, after: Option<i64>) -> Result<Option<Arrivals>> {
        let Some(loaded) = self.committer.catalog.load(letters).await? else { return Ok(None) };
        let (metadata, table) = (&loaded.metadata, self.saw(letters, &loaded)?);
        let mut arrivals = Arrivals { table, commits: Vec::new(), has_hole: false };
        let Some(newest) = metadata.current_snapshot() else { return Ok(Some(arrivals)) };
        let Some(after) = after else {
            let list = self.committer.manifests.list(metadata, newest).await?;
            let files = self.data_files(&list).await?.iter().flat_map(|files| files.iter().cloned()).collect();
            arrivals.commits.push(Arrived { sequence_number: newest.sequence_number(), files });
            return Ok(Some(arrivals));
        };
        let newer: Vec<_> =
            progress::ancestry(metadata).take_while(|snapshot| snapshot.sequence_number() > after).collect();
        arrivals.has_hole = newer.last().is_some_and(|oldest| {
            let is_gone = |id| metadata.snapshot_by_id(id).is_none();
            oldest.parent_snapshot_id().is_some_and(is_gone) && oldest.sequence_number() > after + 1
        });
        for snapshot in newer.into_iter().rev() {
            let is_append = snapshot.summary().operation == Operation::Append;
            let files = if is_append { self.appended(metadata, snapshot).await? } else { Vec::new() };
            arrivals.commits.push(Arrived { sequence_number: snapshot.sequence_number(), files });
        }
        Ok(Some(arrivals))
    }

    /// The letters of one of these files.
    ///
    /// # Errors
    /// As [`IcebergLake::letters`].
    pub async fn letters_in(
        &self,
        table: &TableState,
        file: &WrittenFile,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.rows_of(table, TableSchema::clone(&table.schema), &file.path, file.size_bytes).await
    }
}
