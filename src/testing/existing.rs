//! The table that another tool has made before: partitioned in its own way, with a file of its own, which stays in every
//! snapshot whatever comes.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::TableCreation;
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, FormatVersion, Literal, MAIN_BRANCH, ManifestListWriter,
    ManifestWriterBuilder, NestedField, Operation, PrimitiveType, Schema, Snapshot, Summary, Transform, Type,
    UnboundPartitionSpec,
};

use super::scenario::Scenario;
use crate::error::{Error, Result};
use crate::lake::catalog::Catalog as _;
use crate::lake::catalog::memory::MemoryCatalog;
use crate::lake::storage::{Stores, from_iceberg};

/// The other tool's data file, of one row. It is named, and never read.
pub const FILE: &str = "memory:///elsewhere/before.parquet";
const SNAPSHOT: i64 = 1;

/// Makes the scenario's table as another tool would.
///
/// # Errors
/// Where it cannot be made.
pub async fn make(catalog: &MemoryCatalog, stores: &Stores, scenario: &Scenario, now_ms: i64) -> Result<()> {
    let broken = |e| from_iceberg("make a table by another tool", e);
    // Records have this column too; the other one they leave empty.
    let shared = match scenario.avro {
        true => NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long)),
        false => NestedField::optional(1, "value", Type::Primitive(PrimitiveType::String)),
    };
    let note = NestedField::optional(7, "note", Type::Primitive(PrimitiveType::String));
    let fields = [Arc::new(note), Arc::new(shared)];
    let schema = Schema::builder().with_fields(fields).build().map_err(broken)?;
    let spec =
        UnboundPartitionSpec::builder().add_partition_field(1, "bucket", Transform::Bucket(2)).map_err(broken)?;
    let version = if scenario.spec.format_version >= 3 { FormatVersion::V3 } else { FormatVersion::V2 };
    let creation = TableCreation::builder()
        .name("by another tool".to_owned())
        .schema(schema)
        .partition_spec(spec.build())
        .format_version(version)
        .build();
    let table = &scenario.spec.settings.table;
    let metadata = catalog.create(table, creation).await?.metadata;

    let (io, list) = (stores.file_io(), "memory:///elsewhere/list.avro");
    let manifest = io.new_output("memory:///elsewhere/manifest.avro").map_err(broken)?;
    let spec = metadata.default_partition_spec().as_ref().clone();
    let schema = Arc::clone(metadata.current_schema());
    let builder = ManifestWriterBuilder::new(manifest, Some(SNAPSHOT), schema, spec);
    let mut writer = if version == FormatVersion::V3 { builder.build_v3_data() } else { builder.build_v2_data() };
    let file = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(FILE.to_owned())
        .file_format(DataFileFormat::Parquet)
        .partition([Some(Literal::int(0))].into_iter().collect())
        .partition_spec_id(metadata.default_partition_spec_id())
        .record_count(1)
        .file_size_in_bytes(1)
        .build();
    writer.add_file(file.map_err(|e| Error::bug("make a file's entry").with_source(e))?, -1).map_err(broken)?;
    let manifest = writer.write_manifest_file().await.map_err(broken)?;
    let out = io.new_output(list).map_err(broken)?.writer().await.map_err(broken)?;
    let mut writer = match version {
        FormatVersion::V3 => ManifestListWriter::v3(out, SNAPSHOT, None, 1, Some(0)),
        _ => ManifestListWriter::v2(out, SNAPSHOT, None, 1),
    };
    writer.add_manifests([manifest].into_iter()).map_err(broken)?;
    writer.close().await.map_err(broken)?;

    let snapshot = Snapshot::builder()
        .with_snapshot_id(SNAPSHOT)
        .with_sequence_number(1)
        .with_timestamp_ms(now_ms.max(metadata.last_updated_ms()))
        .with_manifest_list(list)
        .with_summary(Summary { operation: Operation::Append, additional_properties: HashMap::new() })
        .with_schema_id(metadata.current_schema_id());
    let snapshot = match version {
        FormatVersion::V3 => snapshot.with_row_range(0, 1).build(),
        _ => snapshot.build(),
    };
    catalog.edit(table, |builder| builder.set_branch_snapshot(snapshot, MAIN_BRANCH))
}
