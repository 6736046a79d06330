//! What a table's metadata says of its progress: ledger, suspension and gaps in snapshot summaries, the tag that
//! protects the newest of them, and whether history can be gone on with.

use std::collections::HashMap;

use iceberg::spec::{SnapshotRef, TableMetadata};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::ledger::Ledger;
use crate::ports::{Gap, Progress, Recovery, Suspension};
use crate::rule::{self, Rule};

/// Summary key: the whole ledger.
pub const LEDGER: &str = "frazil.ledger";
/// Summary key: the commit's id.
pub const COMMIT_ID: &str = "frazil.commit-id";
/// Summary key: the suspension, where there is one.
pub const SUSPENSION: &str = "frazil.suspension";
/// Summary key: all gaps, where there are any.
pub const GAPS: &str = "frazil.gaps";
/// Summary key: timestamp of the newest record in the commit, milliseconds since the epoch.
pub const NEWEST: &str = "frazil.newest-record-ms";
/// Summary key: how many dead letters became rows in the commit.
pub const REPLAYED: &str = "frazil.replayed-letters";
/// The tag on the newest snapshot with a ledger, so that no respectful expiry removes it.
pub const TAG: &str = "frazil-ledger";
/// Table property: the ledger again, with the snapshot that it belongs to.
pub const PROPERTY: &str = "frazil.ledger";

/// The property's text: which snapshot holds which ledger.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    snapshot: i64,
    sequence: i64,
    ledger: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspension: Option<Suspension>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<Gap>,
}

/// The property's text for a commit.
pub fn marker(snapshot: i64, sequence: i64, progress: &Progress) -> String {
    let marker = Marker {
        snapshot,
        sequence,
        ledger: progress.ledger.encode(),
        suspension: progress.suspension.clone(),
        gaps: progress.gaps.clone(),
    };
    serde_json::to_string(&marker).unwrap_or_default()
}

/// The summary entries of a commit.
pub fn summary(progress: &Progress) -> HashMap<String, String> {
    let mut entries = HashMap::from([(LEDGER.to_owned(), progress.ledger.encode())]);
    if let Some(suspension) = &progress.suspension {
        entries.insert(SUSPENSION.to_owned(), serde_json::to_string(suspension).unwrap_or_default());
    }
    if !progress.gaps.is_empty() {
        entries.insert(GAPS.to_owned(), serde_json::to_string(&progress.gaps).unwrap_or_default());
    }
    entries
}

/// The snapshots from `main`'s current one back, as far as they are retained.
pub fn ancestry(metadata: &TableMetadata) -> impl Iterator<Item = &SnapshotRef> {
    metadata.current_snapshot().into_iter().flat_map(|current| back_from(metadata, current))
}

/// A snapshot and those before it, as far as they are retained.
pub fn back_from<'a>(metadata: &'a TableMetadata, snapshot: &'a SnapshotRef) -> impl Iterator<Item = &'a SnapshotRef> {
    let parent = |snapshot: &&'a SnapshotRef| metadata.snapshot_by_id(snapshot.parent_snapshot_id()?);
    std::iter::successors(Some(snapshot), parent)
}

/// The progress that a snapshot stands at; `None` where it and those before it say none.
///
/// # Errors
/// `Corrupt` where a ledger cannot be read.
pub fn progress_at(metadata: &TableMetadata, snapshot: &SnapshotRef) -> Result<Option<Progress>> {
    back_from(metadata, snapshot).find_map(|snapshot| read_summary(snapshot).transpose()).transpose()
}

/// The summary entry of the newest record, for a commit that brings none: it is looked for going back, and older
/// snapshots expire.
pub fn newest(metadata: &TableMetadata) -> Option<(String, String)> {
    let held = |snapshot: &SnapshotRef| snapshot.summary().additional_properties.get(NEWEST).cloned();
    ancestry(metadata).find_map(held).map(|newest| (NEWEST.to_owned(), newest))
}

/// True where a snapshot of `main`'s retained history was made by that commit.
pub fn contains_commit(metadata: &TableMetadata, commit: &str) -> bool {
    ancestry(metadata)
        .any(|snapshot| snapshot.summary().additional_properties.get(COMMIT_ID).is_some_and(|id| id == commit))
}

/// Whether and from where a table can be gone on with.
///
/// # Errors
/// `Corrupt` where a ledger cannot be read.
pub fn recovery(table: &str, metadata: &TableMetadata) -> Result<Recovery> {
    // Our own commits carry the ledger in each snapshot, so the first one found going back is the newest.
    for snapshot in ancestry(metadata) {
        if let Some(progress) = read_summary(snapshot)? {
            return newest_or_rolled_back(table, metadata, snapshot, progress);
        }
    }
    let tagged = metadata.snapshot_for_ref(TAG);
    let Some(marker) = read_marker(metadata)? else {
        return match tagged {
            None => Ok(Recovery::Fresh),
            Some(tagged) => Ok(Recovery::Halted(rolled_back(table, metadata, tagged.snapshot_id()))),
        };
    };
    if let Some(tagged) = tagged {
        return Ok(Recovery::Halted(rolled_back(table, metadata, tagged.snapshot_id())));
    }
    let oldest_parent = ancestry(metadata).last().and_then(|oldest| oldest.parent_snapshot_id());
    if oldest_parent == Some(marker.snapshot) {
        let ledger = Ledger::decode(&marker.ledger)?;
        return Ok(Recovery::At(Progress { ledger, suspension: marker.suspension, gaps: marker.gaps }));
    }
    Ok(Recovery::Halted(rolled_back(table, metadata, marker.snapshot)))
}

/// The tag is on the newest snapshot with a ledger wherever it is. Where it is not an ancestor of `main`, somebody
/// set `main` back (or to another line) after it.
fn newest_or_rolled_back(
    table: &str,
    metadata: &TableMetadata,
    found: &SnapshotRef,
    progress: Progress,
) -> Result<Recovery> {
    let tagged = metadata.snapshot_for_ref(TAG).map(|snapshot| snapshot.snapshot_id());
    let marked = read_marker(metadata)?.map(|marker| marker.snapshot);
    match tagged.or(marked) {
        Some(newest) if newest != found.snapshot_id() && rule::holds(Rule::RollbackDetected) => {
            Ok(Recovery::Halted(rolled_back(table, metadata, newest)))
        }
        _ => Ok(Recovery::At(progress)),
    }
}

fn rolled_back(table: &str, metadata: &TableMetadata, newest: i64) -> String {
    let current = metadata.current_snapshot_id().map_or_else(|| "none".to_owned(), |id| id.to_string());
    let positions = |progress: Option<Progress>| {
        progress.map_or_else(|| "not known".to_owned(), |progress| positions_text(&progress.ledger))
    };
    let at_ledger = metadata.snapshot_by_id(newest).and_then(|snapshot| read_summary(snapshot).ok().flatten());
    let at_ledger = at_ledger.or_else(|| marker_progress(metadata));
    let at_main = ancestry(metadata).find_map(|snapshot| read_summary(snapshot).ok().flatten());
    format!(
        "the ledger's snapshot {newest} is not in the history of `main` (current snapshot {current}): the table was rolled \
         back or its history was expired by another tool; ledger: {}; `main`: {}; to keep what `main` shows and go on \
         behind the ledger: `frazil tables resume {table} --from ledger`; to read again what `main` does not show: \
         `frazil tables resume {table} --from snapshot`",
        positions(at_ledger),
        positions(at_main),
    )
}

fn positions_text(ledger: &Ledger) -> String {
    const SHOWN: usize = 8;
    let all: Vec<String> = ledger
        .topics
        .iter()
        .flat_map(|(topic, held)| held.partitions.iter().map(move |(p, at)| format!("{topic}[{p}]@{}", at.next)))
        .collect();
    let more = all.len().saturating_sub(SHOWN);
    let shown = all[..all.len().min(SHOWN)].join(" ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The snapshot that the table's property names as the one with the newest ledger.
pub fn marked(metadata: &TableMetadata) -> Option<i64> {
    read_marker(metadata).ok().flatten().map(|marker| marker.snapshot)
}

/// The progress in the table's property.
pub fn marker_progress(metadata: &TableMetadata) -> Option<Progress> {
    let marker = read_marker(metadata).ok().flatten()?;
    let ledger = Ledger::decode(&marker.ledger).ok()?;
    Some(Progress { ledger, suspension: marker.suspension, gaps: marker.gaps })
}

fn read_marker(metadata: &TableMetadata) -> Result<Option<Marker>> {
    let Some(text) = metadata.properties().get(PROPERTY) else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|e| Error::corrupt(format!("read property `{PROPERTY}`")).with_source(e))
}

/// The progress in a snapshot's summary; `None` where it has none.
///
/// # Errors
/// `Corrupt` where it cannot be read.
pub fn read_summary(snapshot: &SnapshotRef) -> Result<Option<Progress>> {
    let entries = &snapshot.summary().additional_properties;
    let Some(ledger) = entries.get(LEDGER) else { return Ok(None) };
    let corrupt = |key: &str| {
        let text = format!("read `{key}` of snapshot {}", snapshot.snapshot_id());
        move |e: serde_json::Error| Error::corrupt(text).with_source(e)
    };
    let suspension =
        entries.get(SUSPENSION).map(|text| serde_json::from_str(text)).transpose().map_err(corrupt(SUSPENSION))?;
    let gaps = entries.get(GAPS).map(|text| serde_json::from_str(text)).transpose().map_err(corrupt(GAPS))?;
    Ok(Some(Progress { ledger: Ledger::decode(ledger)?, suspension, gaps: gaps.unwrap_or_default() }))
}
