//! Which of some records a table has already: read from the columns of their identity, in the files whose bounds let
//! them be there.

use std::ops::RangeInclusive;

use futures::{FutureExt, TryStreamExt};

use crate::error::Result;
use crate::lake::maintain::gather;
use crate::lake::tables::IcebergLake;
use crate::model::file::WrittenFile;
use crate::model::ids::TopicPartition;
use crate::model::record::{RecordColumns, RecordId, Records};
use crate::model::schema::TableSchema;
use crate::ports::TableState;

/// Files read at once.
const FILES_AT_ONCE: usize = 4;

impl IcebergLake {
    /// Those of `records` that have a row in that state of the table. A row that a delete file takes away counts: it was
    /// there, and whoever deleted it does not want it back.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; `Corrupt` where the state's snapshot has expired or a file cannot be read.
    pub async fn present(&self, of: &TableState, columns: &RecordColumns, records: &Records) -> Result<Records> {
        let Some(id) = of.snapshot_id.filter(|_| !records.is_empty()) else { return Ok(Records::default()) };
        let metadata = self.metadata_with(of, id).await?;
        let Some(snapshot) = metadata.snapshot_by_id(id) else { return Ok(Records::default()) };
        let list = self.committer.manifests.list(&metadata, snapshot).await?;
        let files: Vec<WrittenFile> = self.data_files(&list).await?.iter().flat_map(|f| f.iter().cloned()).collect();
        self.among(of, columns, records, &files).await
    }

    /// Those of `records` that have a row in one of `files`.
    pub(super) async fn among(
        &self,
        of: &TableState,
        columns: &RecordColumns,
        records: &Records,
        files: &[WrittenFile],
    ) -> Result<Records> {
        let names = columns.names();
        let fields: Vec<_> = of.schema.fields.iter().filter(|field| names.contains(&*field.name)).cloned().collect();
        let id = |name: &str| fields.iter().find(|field| field.name == name).map(|field| field.id);
        let (Some(partition), Some(offset)) = (id(&columns.partition), id(&columns.offset)) else {
            // A table of another engine that no record of ours has come into yet.
            return Ok(Records::default());
        };
        let wanted = TableSchema { schema_id: of.schema.schema_id, ..TableSchema::of(fields) };
        let may_have = |file: &&WrittenFile| {
            let partitions = bounds::<4>(file, partition)
                .map(|[low, high]| RangeInclusive::new(i32::from_le_bytes(low), i32::from_le_bytes(high)));
            let offsets = bounds::<8>(file, offset)
                .map(|[low, high]| RangeInclusive::new(i64::from_le_bytes(low), i64::from_le_bytes(high)));
            records.meets(&partitions.unwrap_or(i32::MIN..=i32::MAX), &offsets.unwrap_or(i64::MIN..=i64::MAX))
        };
        let reads = files.iter().filter(may_have);
        let reads = reads.map(|file| self.held(of, wanted.clone(), file, columns, records).boxed());
        let found: Vec<Vec<RecordId>> = gather(reads.collect(), FILES_AT_ONCE).await?;
        let mut present = Records::default();
        for id in found.iter().flatten() {
            present.insert(id);
        }
        Ok(present)
    }

    /// Those of `records` that a file has.
    async fn held(
        &self,
        of: &TableState,
        wanted: TableSchema,
        file: &WrittenFile,
        columns: &RecordColumns,
        records: &Records,
    ) -> Result<Vec<RecordId>> {
        let mut rows = self.rows_of(of, wanted, &file.path, file.size_bytes).await?;
        let mut found = Vec::new();
        while let Some(rows) = rows.try_next().await? {
            let ids = columns.ids(&rows)?;
            let held =
                (0..rows.num_rows()).filter_map(|row| ids.at(row)).filter(|(topic, partition, incarnation, offset)| {
                    records.contains(topic, *partition, *incarnation, *offset)
                });
            found.extend(held.map(|(topic, partition, incarnation, offset)| RecordId {
                source: TopicPartition::new(topic, partition),
                incarnation,
                offset,
            }));
        }
        Ok(found)
    }
}

/// The least and the greatest value of a column in a file; `None` where its writer gave none.
fn bounds<const N: usize>(file: &WrittenFile, column: i32) -> Option<[[u8; N]; 2]> {
    let stats = file.columns.get(&column)?;
    let bound = |bytes: &Option<Vec<u8>>| bytes.as_deref()?.try_into().ok();
    Some([bound(&stats.lower)?, bound(&stats.upper)?])
}
