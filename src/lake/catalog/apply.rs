//! A change on a table's metadata, as every catalog applies it: requirements first, then updates. No I/O.

use iceberg::spec::{FormatVersion, MetadataLog, TableMetadata, TableMetadataBuilder};
use iceberg::{TableCreation, TableUpdate};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::model::ids::TableName;

use super::{LoadedTable, TableChange};

/// What a change makes of a table.
#[derive(Debug)]
pub(super) enum Next {
    /// The metadata after it, and the metadata files that dropped out of the log.
    Metadata(Box<TableMetadata>, Vec<MetadataLog>),
    /// The table is not what the change is for.
    Conflict(String),
}

/// Applies `change` to `current`.
///
/// # Errors
/// `InvalidRequest` where the requirements hold and the updates do not apply.
pub(super) fn apply(current: &LoadedTable, change: &TableChange) -> Result<Next> {
    let metadata = &current.metadata;
    for requirement in &change.requirements {
        if let Err(error) = requirement.check(Some(metadata)) {
            return Ok(Next::Conflict(format!("table `{}`: {error}", change.table)));
        }
    }
    let is_other = |(name, text): &&(String, Option<String>)| metadata.properties().get(name) != text.as_ref();
    if let Some((name, _)) = change.properties.iter().find(is_other) {
        return Ok(Next::Conflict(format!("table `{}`: property `{name}` has changed", change.table)));
    }
    if let Some(found) = change.updates.iter().find_map(|update| overtaken(metadata, update)) {
        return Ok(Next::Conflict(format!("table `{}`: {found}", change.table)));
    }
    let mut builder = TableMetadata::clone(metadata).into_builder(Some(current.metadata_location.clone()));
    for update in &change.updates {
        builder = update.clone().apply(builder).map_err(|e| refused(&change.table, e))?;
    }
    let built = builder.build().map_err(|e| refused(&change.table, e))?;
    Ok(Next::Metadata(Box::new(built.metadata), built.expired_metadata_logs))
}

/// A snapshot made for an older state: another branch has moved on meanwhile, which no requirement on a ref sees.
/// Rest catalogs answer this as a conflict too, since a new try on the current state succeeds.
fn overtaken(metadata: &TableMetadata, update: &TableUpdate) -> Option<String> {
    let TableUpdate::AddSnapshot { snapshot } = update else { return None };
    if metadata.format_version() >= FormatVersion::V2 && snapshot.sequence_number() <= metadata.last_sequence_number() {
        let (new, last) = (snapshot.sequence_number(), metadata.last_sequence_number());
        return Some(format!("snapshot has sequence number {new}, the table is at {last}"));
    }
    match snapshot.row_range() {
        Some((first, _)) if metadata.format_version() >= FormatVersion::V3 && first < metadata.next_row_id() => {
            Some(format!("snapshot starts at row id {first}, the table is at {}", metadata.next_row_id()))
        }
        _ => None,
    }
}

fn refused(table: &TableName, error: iceberg::Error) -> Error {
    Error::invalid_request(format!("change table `{table}`")).with_source(error)
}

/// The metadata of a new table.
///
/// # Errors
/// `InvalidConfig` where the creation makes no valid table.
pub(super) fn create(table: &TableName, creation: TableCreation, id: Uuid) -> Result<TableMetadata> {
    let built = TableMetadataBuilder::from_table_creation(creation)
        .and_then(|builder| builder.assign_uuid(id).build())
        .map_err(|e| Error::invalid_config(format!("create table `{table}`")).with_source(e))?;
    Ok(built.metadata)
}

/// Where a new table lies that names no place of its own: `<warehouse>/<levels>/<name>-<8 hex digits>`.
pub(super) fn new_location(warehouse: &str, table: &TableName, id: Uuid) -> String {
    let id = id.simple().to_string();
    // The last digits, since a time-ordered id begins with the time.
    let tail = id.get(24..).unwrap_or_default();
    format!("{}/{}/{}-{tail}", warehouse.trim_end_matches('/'), table.namespace.join("/"), table.name)
}

/// The next metadata file of a table: `<location>/metadata/<version>-<uuid>[.gz].metadata.json`.
pub(super) fn next_file(
    metadata: &TableMetadata,
    previous: Option<&str>,
    id: Uuid,
) -> iceberg::Result<iceberg::MetadataLocation> {
    // Names of other writers (Hadoop's `v3.metadata.json`) carry no version that goes on.
    let version = previous
        .and_then(|location| location.rsplit('/').next()?.split_once('-')?.0.parse::<i32>().ok())
        .map_or(0, |version| version.saturating_add(1));
    let folder = metadata.location().trim_end_matches('/');
    let location: iceberg::MetadataLocation = format!("{folder}/metadata/{version:05}-{id}.metadata.json").parse()?;
    Ok(location.with_new_metadata(metadata))
}
