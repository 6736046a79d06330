//! Named points at which a test can end the process, as `kill -9` would: `FRAZIL_CRASH_AT=name[:count]`.
//! Compiled to nothing without the feature `testing`.

/// Data files are uploaded, nothing refers to them.
pub const FILES_UPLOADED: &str = "files-uploaded";
/// Manifests and manifest list are uploaded, the catalog knows nothing of them.
pub const MANIFEST_LIST_WRITTEN: &str = "manifest-list-written";
/// The new metadata file is uploaded, the catalog still points at the old one.
pub const METADATA_WRITTEN: &str = "metadata-written";
/// The request to the catalog is on its way.
pub const REQUEST_SENT: &str = "request-sent";
/// The catalog has applied the commit, nobody has acted on the answer.
pub const ANSWER_RECEIVED: &str = "answer-received";
/// A table is made, it has no ledger yet.
pub const TABLE_CREATED: &str = "table-created";
/// The start positions are resolved and not yet committed.
pub const STARTS_RESOLVED: &str = "starts-resolved";
/// The schema is evolved, no row uses it yet.
pub const SCHEMA_EVOLVED: &str = "schema-evolved";
/// A table that another tool made is taken over, it has no ledger yet.
pub const TABLE_ADOPTED: &str = "table-adopted";
/// A revoke was acknowledged.
pub const REVOKE_ACKNOWLEDGED: &str = "revoke-acknowledged";
/// Compacted files are uploaded, nothing refers to them.
pub const COMPACTED: &str = "compacted";
/// Manifests of a replacement are uploaded, the catalog knows nothing of them.
pub const REPLACE_WRITTEN: &str = "replace-written";
/// Merged manifests are uploaded, the catalog knows nothing of them.
pub const MANIFESTS_WRITTEN: &str = "manifests-written";
/// The snapshots that are to be dropped are noted, and still there.
pub const DROPPED_NOTED: &str = "dropped-noted";
/// A commit of maintenance is in, nobody has acted on the answer.
pub const MAINTENANCE_COMMITTED: &str = "maintenance-committed";
/// One kind of the files of dropped snapshots is deleted, the next is not.
pub const EXPIRED_FILES_DELETED: &str = "expired-files-deleted";
/// The first orphan is deleted, the others are not.
pub const ORPHAN_DELETED: &str = "orphan-deleted";
/// The rows that letters became are uploaded, and the letters that stay; nothing refers to them.
pub const LETTERS_DECODED: &str = "letters-decoded";
/// Manifests of both tables of a replay are uploaded, the catalog knows nothing of them.
pub const LETTERS_PREPARED: &str = "letters-prepared";
/// A replay's commit is in, nobody has acted on the answer.
pub const LETTERS_SETTLED: &str = "letters-settled";
/// Letters are in a topic's open transaction.
pub const LETTERS_SENT: &str = "letters-sent";
/// The transaction with letters is committed, nobody has acted on the answer.
pub const LETTERS_IN_TOPIC: &str = "letters-in-topic";
/// Entries are in a search index, its position does not say so.
pub const INDEX_APPENDED: &str = "index-appended";
/// An index's position is noted, no search sees it.
pub const INDEX_NOTED: &str = "index-noted";

/// All points, for tests that visit each.
pub const ALL: [&str; 24] = [
    FILES_UPLOADED,
    MANIFEST_LIST_WRITTEN,
    METADATA_WRITTEN,
    REQUEST_SENT,
    ANSWER_RECEIVED,
    TABLE_CREATED,
    STARTS_RESOLVED,
    SCHEMA_EVOLVED,
    TABLE_ADOPTED,
    REVOKE_ACKNOWLEDGED,
    COMPACTED,
    REPLACE_WRITTEN,
    MANIFESTS_WRITTEN,
    DROPPED_NOTED,
    MAINTENANCE_COMMITTED,
    EXPIRED_FILES_DELETED,
    ORPHAN_DELETED,
    LETTERS_DECODED,
    LETTERS_PREPARED,
    LETTERS_SETTLED,
    LETTERS_SENT,
    LETTERS_IN_TOPIC,
    INDEX_APPENDED,
    INDEX_NOTED,
];

/// Ends the process at once if this point was asked for and has been passed as often as asked.
#[cfg(feature = "testing")]
#[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting")]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    static ASKED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let asked = ASKED.get_or_init(|| {
        let text = std::env::var("FRAZIL_CRASH_AT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), count.parse().unwrap_or(1)))
    });
    if let Some((wanted, count)) = asked
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 >= *count
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(feature = "testing"))]
pub fn point(_name: &'static str) {}
