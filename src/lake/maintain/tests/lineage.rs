//! Row ids of format 3: each row keeps its own, and the number of the commit that brought it, whatever is merged.

use arrow::datatypes::Int64Type;

use super::*;

/// By `id`, a row's id of lineage and the sequence number of its last change.
pub(super) type Names = BTreeMap<i32, (i64, i64)>;

impl World {
    /// What each row is called now, by the rules for readers (spec, "Row Lineage").
    async fn names(&self) -> Names {
        let metadata = self.loaded().await.metadata;
        let manifests = &self.lake.committer.manifests;
        let mut names = Names::new();
        for manifest in manifests.inherited(&metadata).await.unwrap() {
            if manifest.content == iceberg::spec::ManifestContentType::Deletes {
                continue;
            }
            for (entry, first) in manifests.alive(&manifest).await.unwrap() {
                let bytes = self.stores.read(entry.file_path()).await.unwrap().unwrap();
                let (first, sequence) = (first.unwrap(), entry.sequence_number().unwrap());
                let rows = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
                let mut place = 0;
                for rows in rows.map(Result::unwrap) {
                    let own = |name: &str, row: usize| {
                        let column = rows.column_by_name(name)?.as_primitive::<Int64Type>().clone();
                        arrow::array::Array::is_valid(&column, row).then(|| column.value(row))
                    };
                    for (row, id) in rows.column(0).as_primitive::<Int32Type>().values().iter().enumerate() {
                        let row_id = own("_row_id", row).unwrap_or(first + place);
                        let changed = own("_last_updated_sequence_number", row).unwrap_or(sequence);
                        assert!(names.insert(*id, (row_id, changed)).is_none());
                        place += 1;
                    }
                }
            }
        }
        names
    }

    /// No row is called otherwise than when it was seen first, and no two the same.
    pub(super) async fn check_names(&self) {
        let metadata = self.loaded().await.metadata;
        if metadata.format_version() < FormatVersion::V3 {
            return;
        }
        let now = self.names().await;
        let distinct: BTreeSet<i64> = now.values().map(|(row_id, _)| *row_id).collect();
        assert_eq!(distinct.len(), now.len());
        assert!(distinct.last().is_none_or(|last| u64::try_from(*last).unwrap() < metadata.next_row_id()));
        let mut known = self.names.lock().unwrap();
        for (id, name) in known.iter() {
            assert_eq!(now.get(id), Some(name), "row {id}");
        }
        *known = now;
    }
}

#[tokio::test]
async fn rows_keep_their_ids_through_every_merge() {
    for (partitioned, sorted) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::of(3, partitioned, sorted).await;
        // Enough commits that ingestion merges manifests by itself.
        for rows in [7, 1, 5].into_iter().cycle().take(30) {
            world.append(rows).await;
            world.check().await;
        }
        let metadata = world.loaded().await.metadata;
        assert_eq!(metadata.next_row_id(), u64::try_from(world.next).unwrap(), "no id is spent for nothing");
        assert_eq!(metadata.current_snapshot().unwrap().row_range(), Some((metadata.next_row_id() - 5, 5)));
        assert!(world.run(Action::Compact).await.compactions > 0);
        world.check().await;
        // What was merged once is merged again with what comes.
        for _ in 0..4 {
            world.append(400).await;
        }
        assert!(world.run(Action::Compact).await.compactions > 0);
        world.check().await;
        let before = world.loaded().await.metadata.next_row_id();
        world.run(Action::Manifests).await;
        assert_eq!(world.loaded().await.metadata.next_row_id(), before, "manifests alone bring no rows");
        world.check().await;
        world.append(3).await;
        world.check().await;
    }
}

#[tokio::test]
async fn an_upgraded_tables_rows_have_ids_from_the_next_commit_on() {
    let mut world = World::of(2, false, false).await;
    for _ in 0..5 {
        world.append(4).await;
    }
    world.catalog.edit(&world.table, |builder| builder.upgrade_format_version(FormatVersion::V3)).unwrap();
    assert_eq!(world.run(Action::Compact).await.compactions, 0, "rows without ids are not rewritten");
    world.append(2).await;
    world.check().await;
    assert_eq!(world.loaded().await.metadata.next_row_id(), 22);
    assert!(world.run(Action::Compact).await.compactions > 0);
    world.check().await;
    world.append(2).await;
    world.check().await;
}
