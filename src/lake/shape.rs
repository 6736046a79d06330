//! How a table lies and whose it is, as its metadata say: what ingestion must know of a table that another tool made.

use iceberg::spec::{
    FormatVersion, NullOrder, PartitionSpec, Schema, SortDirection, SortOrder, TableMetadata, Transform as Iceberg,
};

use super::commit::number;
use super::progress;
use super::writer;
use crate::model::mapping;
use crate::model::schema::TableSchema;
use crate::ports::{PartitionField, TableShape, Transform};

/// The shape of a table whose current schema is `schema`.
pub(super) fn shape(metadata: &TableMetadata, schema: &TableSchema) -> TableShape {
    let is_foreign = !is_ours(metadata);
    let columns = metadata.current_schema();
    TableShape {
        is_foreign,
        format_version: metadata.format_version() as u8,
        location: metadata.location().to_owned(),
        partition_by: partition_by(metadata.default_partition_spec(), columns),
        sort_by: sort_by(metadata.default_sort_order(), columns),
        reserved: metadata
            .partition_specs_iter()
            .flat_map(|spec| spec.fields().iter().filter(|field| field.transform != Iceberg::Identity))
            .map(|field| field.name.clone())
            .collect(),
        delete_files: metadata
            .current_snapshot()
            .and_then(|snapshot| number(snapshot, "total-delete-files"))
            .unwrap_or(0),
        // Of a table that is written already the writer itself says it.
        unwritable: if is_foreign { unwritable(metadata, schema) } else { None },
    }
}

/// True where Frazil made the table or has taken it over, or keeps its dead letters in it.
pub(super) fn is_ours(metadata: &TableMetadata) -> bool {
    let mut properties = metadata.properties().keys();
    let has_property = properties.any(|key| key.starts_with(mapping::PREFIX) || key == progress::PROPERTY);
    let is_commit = |key: &String| key == progress::LEDGER || key == progress::COMMIT_ID;
    has_property
        || metadata.snapshot_for_ref(progress::TAG).is_some()
        || metadata.snapshots().any(|snapshot| snapshot.summary().additional_properties.keys().any(is_commit))
}

fn unwritable(metadata: &TableMetadata, schema: &TableSchema) -> Option<String> {
    if metadata.format_version() < FormatVersion::V2 {
        return Some("its format version is 1, which has no place for a ledger; upgrade it to 2".to_owned());
    }
    if metadata.properties().contains_key("encryption.key-id") {
        return Some("its files are encrypted, which frazil cannot do".to_owned());
    }
    writer::Layout::new(metadata, schema).err().map(|error| error.chain())
}

fn partition_by(spec: &PartitionSpec, schema: &Schema) -> Vec<PartitionField> {
    let field = |(source_id, transform): (i32, Iceberg)| {
        let transform = match transform {
            Iceberg::Identity => Transform::Identity,
            Iceberg::Year => Transform::Year,
            Iceberg::Month => Transform::Month,
            Iceberg::Day => Transform::Day,
            Iceberg::Hour => Transform::Hour,
            Iceberg::Bucket(count) => Transform::Bucket(count),
            Iceberg::Truncate(width) => Transform::Truncate(width),
            // A field that was dropped, and one that cannot be written.
            Iceberg::Void | Iceberg::Unknown => return None,
        };
        Some(PartitionField { column: name(schema, source_id), transform })
    };
    spec.fields().iter().filter_map(|of| field((of.source_id, of.transform))).collect()
}

fn sort_by(order: &SortOrder, schema: &Schema) -> Vec<String> {
    let words = |field: &iceberg::spec::SortField| {
        let column = name(schema, field.source_id);
        let column = match field.transform {
            Iceberg::Identity => column,
            Iceberg::Bucket(n) => format!("bucket({n}, {column})"),
            Iceberg::Truncate(n) => format!("truncate({n}, {column})"),
            other => format!("{other}({column})"),
        };
        match (field.direction, field.null_order) {
            (SortDirection::Ascending, NullOrder::First) => column,
            (direction, nulls) => format!("{column} {direction} {nulls}"),
        }
    };
    order.fields.iter().map(words).collect()
}

fn name(schema: &Schema, id: i32) -> String {
    schema.name_by_field_id(id).map_or_else(|| format!("#{id}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Int64Type, SchemaRef};
    use iceberg::TableCreation;
    use iceberg::spec::{
        Literal, NestedField, PrimitiveType, SortField, StructType, Type as IcebergType, UnboundPartitionSpec,
    };
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::lake::catalog::memory::MemoryCatalog;
    use crate::lake::catalog::{Catalog, LoadedTable};
    use crate::lake::inspect;
    use crate::lake::storage::Stores;
    use crate::lake::{IcebergLake, LakeOptions};
    use crate::model::ids::{CommitId, TableName};
    use crate::model::ledger::Ledger;
    use crate::model::schema::{Field, Type, UTC};
    use crate::ports::{CommitOutcome, CommitRequest, Lake as _, TableState};
    use crate::runtime::clock::Clock;
    use crate::runtime::compute::Compute;

    struct World {
        catalog: MemoryCatalog,
        stores: Stores,
        lake: IcebergLake,
        table: TableName,
    }

    impl World {
        fn new() -> Self {
            let (clock, stores) = (Clock::simulated(1), Stores::memory());
            let catalog = MemoryCatalog::new("memory:///warehouse", clock.clone());
            let options = LakeOptions { keep_snapshots: 100, writer_bytes: 64 << 20 };
            let lake = Arc::new(catalog.clone());
            let lake = IcebergLake::new(lake, stores.clone(), Compute::inline(), clock, &options);
            Self { catalog, stores, lake, table: "n.t".parse().unwrap() }
        }

        async fn loaded(&self) -> LoadedTable {
            self.catalog.load(&self.table).await.unwrap().unwrap()
        }

        async fn make(&self, schema: Schema, version: FormatVersion, properties: &[(&str, &str)]) {
            let spec = UnboundPartitionSpec::builder()
                .add_partition_field(5, "place_code", Iceberg::Truncate(2))
                .and_then(|spec| spec.add_partition_field(1, "id_bucket", Iceberg::Bucket(4)))
                .and_then(|spec| spec.add_partition_field(2, "nothing", Iceberg::Void))
                .unwrap()
                .build();
            let by =
                |source_id, transform, direction, null_order| SortField { source_id, transform, direction, null_order };
            let order = SortOrder::builder()
                .with_sort_field(by(3, Iceberg::Day, SortDirection::Descending, NullOrder::Last))
                .with_sort_field(by(1, Iceberg::Identity, SortDirection::Ascending, NullOrder::First))
                .build(&schema)
                .unwrap();
            let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let creation = TableCreation::builder()
                .name("t".to_owned())
                .location("memory:///elsewhere/t".to_owned())
                .schema(schema)
                .partition_spec(spec)
                .sort_order(order)
                .properties(properties.collect::<HashMap<_, _>>())
                .format_version(version)
                .build();
            self.catalog.create(&self.table, creation).await.unwrap();
        }
    }

    /// `id` tells rows apart, `name`, `at`, and `place` with `code`.
    fn schema(change: impl Fn(NestedField) -> NestedField) -> Schema {
        let primitive = IcebergType::Primitive;
        let code = NestedField::optional(5, "code", primitive(PrimitiveType::String));
        let fields = [
            NestedField::required(1, "id", primitive(PrimitiveType::Long)),
            NestedField::optional(2, "name", primitive(PrimitiveType::String)),
            NestedField::optional(3, "at", primitive(PrimitiveType::Timestamptz)),
            NestedField::optional(4, "place", IcebergType::Struct(StructType::new(vec![code.into()]))),
        ];
        let fields = fields.map(|field| change(field).into());
        Schema::builder().with_fields(fields).with_identifier_field_ids([1]).build().unwrap()
    }

    impl World {
        /// Appends [`rows`] to the table, which is in that state.
        async fn append(&self, state: TableState) {
            let rows = rows(&state.schema.to_arrow());
            let mut writer = self.lake.writer(&state, CommitId(uuid::Uuid::from_u128(7))).unwrap();
            writer.write(rows).await.unwrap();
            let files = writer.finish().await.unwrap();
            let request = CommitRequest {
                id: CommitId(uuid::Uuid::from_u128(7)),
                table: self.table.clone(),
                table_uuid: state.uuid,
                schema: state.schema,
                advances: BTreeMap::new(),
                identity: Ledger::default(),
                files,
                dead_letters: None,
                suspension: None,
                gaps: Vec::new(),
                newest_ms: None,
                conflicts: Arc::default(),
            };
            let outcome = self.lake.commit(&request).await.unwrap();
            assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_table_that_is_taken_over_keeps_what_it_has() {
        let world = World::new();
        let with_default = |field: NestedField| match field.id {
            2 => field.with_initial_default(Literal::string("before")).with_write_default(Literal::string("none")),
            _ => field,
        };
        let properties = [("write.parquet.compression-codec", "GZIP"), ("owner", "others")];
        world.make(schema(with_default), FormatVersion::V3, &properties).await;
        let before = world.loaded().await.metadata;
        let state = world.lake.load(&world.table).await.unwrap().unwrap();
        let shape = state.shape.as_ref();
        assert!(shape.is_foreign && shape.unwritable.is_none(), "{shape:?}");
        let partition_by: Vec<String> = shape.partition_by.iter().map(ToString::to_string).collect();
        assert_eq!(partition_by, ["truncate(2, place.code)", "bucket(4, id)"]);
        assert_eq!(shape.sort_by, ["day(at) descending last", "id"]);
        assert_eq!((shape.format_version, shape.location.as_str()), (3, "memory:///elsewhere/t"));

        let mut wanted = state.schema.as_ref().clone();
        wanted.fields.push(Field::optional("kafka_offset", Type::Long));
        let mapping = BTreeMap::from([(format!("{}version", mapping::PREFIX), "1".to_owned())]);
        let taken = world.lake.evolve(&state, &wanted, &mapping).await.unwrap();
        assert!(!taken.shape.is_foreign);
        let after = world.loaded().await.metadata;
        assert_eq!(after.current_schema().identifier_field_ids().collect::<Vec<_>>(), [1]);
        for field in before.current_schema().as_struct().fields() {
            assert_eq!(after.current_schema().field_by_id(field.id), Some(field));
        }
        assert_eq!(after.current_schema().field_by_name("kafka_offset").unwrap().id, 6);
        assert_eq!(after.default_partition_spec(), before.default_partition_spec());
        assert_eq!(after.default_sort_order(), before.default_sort_order());
        assert_eq!((after.location(), after.format_version()), (before.location(), before.format_version()));
        assert_eq!(after.properties()["owner"], "others");

        // An identifier stays required, whatever records are like.
        let mut relaxed = taken.schema.as_ref().clone();
        relaxed.fields[0].required = false;
        let refused = world.lake.evolve(&taken, &relaxed, &BTreeMap::new()).await.unwrap_err();
        assert!(refused.chain().to_lowercase().contains("identifier"), "{}", refused.chain());

        world.append(taken).await;
        let files = inspect::files(&world.stores, &world.loaded().await.metadata).await.unwrap();
        let mut found = Vec::new();
        for file in files {
            let bytes = world.stores.read(&file.path).await.unwrap().unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
            assert!(format!("{:?}", reader.metadata().row_group(0).column(0).compression()).contains("GZIP"));
            let rows = reader.build().unwrap();
            let rows = rows.flat_map(|rows| rows.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec());
            found.push((file.partition, rows.collect::<Vec<_>>()));
        }
        found.sort();
        // Newer days first, without a day last; within a day by id.
        let partition = |code: &str| format!("place_code={code}/id_bucket=0/nothing=null");
        assert_eq!(found, [(partition("ab"), vec![0, 12, 1, 2]), (partition("null"), vec![10])]);
    }

    /// Five rows of the one bucket, one of them without a place.
    fn rows(schema: &SchemaRef) -> RecordBatch {
        const DAY: i64 = 86_400_000_000;
        let codes: ArrayRef = Arc::new(StringArray::from(vec!["abc", "abd", "abe", "ab", "abz"]));
        let DataType::Struct(place) = schema.field(3).data_type() else { panic!("no struct") };
        let nulls = vec![true, true, true, true, false];
        let at = vec![Some(2 * DAY + 1), Some(DAY), None, Some(2 * DAY), Some(DAY)];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![12, 1, 2, 0, 10])),
            Arc::new(StringArray::from(vec![None::<&str>; 5])),
            Arc::new(TimestampMicrosecondArray::from(at).with_timezone(UTC)),
            Arc::new(StructArray::new(place.clone(), vec![codes], Some(nulls.into()))),
            Arc::new(Int64Array::from_iter_values(0..5)),
        ];
        RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_told() {
        let told = async |version, properties: &[(&str, &str)], field: fn(NestedField) -> NestedField| {
            let world = World::new();
            world.make(schema(field), version, properties).await;
            let state = world.lake.load(&world.table).await.unwrap().unwrap();
            state.shape.unwritable.clone().unwrap_or_default()
        };
        let same = |field| field;
        assert_eq!(told(FormatVersion::V2, &[], same).await, "");
        assert!(told(FormatVersion::V1, &[], same).await.contains("format version is 1"));
        assert!(told(FormatVersion::V2, &[("encryption.key-id", "k")], same).await.contains("encrypted"));
        let codec = [("write.parquet.compression-codec", "lzo")];
        assert!(told(FormatVersion::V2, &codec, same).await.contains("compression-codec"));
        let inside = |field: NestedField| match (field.id, *field.field_type.clone()) {
            (4, IcebergType::Struct(fields)) => {
                let code = fields.fields()[0].as_ref().clone().with_write_default(Literal::string("?"));
                NestedField::optional(4, "place", IcebergType::Struct(StructType::new(vec![code.into()])))
            }
            _ => field,
        };
        assert!(told(FormatVersion::V3, &[], inside).await.contains("`place` has a default"));
    }
}
