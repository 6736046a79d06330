//! Table metadata on its way out: as it is stored, or with the snapshots alone that branches and tags are on. Fields
//! that this code does not know pass unread.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// The metadata in a file, checked to be JSON and nothing more.
pub(super) fn whole(json: &[u8]) -> Result<&RawValue> {
    serde_json::from_slice(json).map_err(|e| Error::corrupt("table metadata is no json").with_source(e))
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Pointer {
    snapshot_id: i64,
}

/// The metadata without the snapshots that no branch or tag is on.
pub(super) fn referenced(json: &[u8]) -> Result<Box<RawValue>> {
    let filtered = || -> serde_json::Result<Box<RawValue>> {
        let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(json)?;
        let mut kept: BTreeSet<i64> = BTreeSet::new();
        if let Some(refs) = fields.get("refs") {
            let refs: Option<BTreeMap<String, Pointer>> = serde_json::from_str(refs.get())?;
            kept.extend(refs.into_iter().flatten().map(|(_, pointer)| pointer.snapshot_id));
        }
        // Writers of old may leave `refs` out: `main` is on the current snapshot then. -1 is their word for none.
        if let Some(current) = fields.get("current-snapshot-id") {
            kept.extend(serde_json::from_str::<Option<i64>>(current.get())?);
        }
        if let Some(snapshots) = fields.get_mut("snapshots") {
            let mut all: Vec<Box<RawValue>> = serde_json::from_str::<Option<_>>(snapshots.get())?.unwrap_or_default();
            let mut error = None;
            all.retain(|snapshot| match serde_json::from_str::<Pointer>(snapshot.get()) {
                Ok(pointer) => kept.contains(&pointer.snapshot_id),
                Err(e) => {
                    error = Some(e);
                    false
                }
            });
            if let Some(error) = error {
                return Err(error);
            }
            *snapshots = serde_json::value::to_raw_value(&all)?;
        }
        serde_json::value::to_raw_value(&fields)
    };
    filtered().map_err(|e| Error::corrupt("table metadata is not as the specification has it").with_source(e))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(refs: Value, current: Value, kept: &[i64]) {
        // A number that would not survive being read, and a field of tomorrow.
        let metadata = format!(
            r#"{{"tomorrow":{{"x":1.0000000000000000001}},"refs":{refs},"current-snapshot-id":{current},
            "snapshots":[{{"snapshot-id":1,"new":1e400}},{{"snapshot-id":9007199254740993}},{{"snapshot-id":3}}]}}"#
        );
        let found = referenced(metadata.as_bytes()).unwrap();
        assert!(found.get().contains("1.0000000000000000001"), "{found}");
        let pointers: BTreeMap<String, Box<RawValue>> = serde_json::from_str(found.get()).unwrap();
        let left: Vec<Pointer> = serde_json::from_str(pointers["snapshots"].get()).unwrap();
        assert_eq!(left.iter().map(|pointer| pointer.snapshot_id).collect::<Vec<_>>(), kept);
        assert_eq!(found.get().contains("1e400"), kept.contains(&1), "a snapshot is kept as it is");
    }

    #[test]
    fn snapshots_without_a_branch_or_tag_are_left_out() {
        check(json!({"main": {"snapshot-id": 3, "type": "branch"}}), json!(3), &[3]);
        check(
            json!({"main": {"snapshot-id": 9_007_199_254_740_993_i64}, "tag": {"snapshot-id": 1}}),
            json!(9_007_199_254_740_993_i64),
            &[1, 9_007_199_254_740_993],
        );
        check(json!(null), json!(1), &[1]);
        check(json!({}), json!(-1), &[]);
        check(json!({}), json!(null), &[]);
    }

    #[test]
    fn a_table_without_snapshots_stays_as_it_is() {
        for text in [r#"{"location":"x"}"#, r#"{"snapshots":null}"#, r#"{"snapshots":[]}"#] {
            let snapshots = serde_json::from_str::<Value>(referenced(text.as_bytes()).unwrap().get()).unwrap();
            assert!(snapshots.get("snapshots").is_none_or(|list| list == &json!([])), "{snapshots}");
        }
    }

    #[test]
    fn what_is_no_metadata_is_corrupt() {
        for text in ["", "[1]", r#"{"snapshots":[{}]}"#, r#"{"refs":{"main":1}}"#] {
            assert_eq!(referenced(text.as_bytes()).unwrap_err().kind(), crate::error::ErrorKind::Corrupt, "{text}");
        }
        assert_eq!(whole(b"{").unwrap_err().kind(), crate::error::ErrorKind::Corrupt);
    }
}
