//! The mapping that a table was made with, as it keeps it in its properties, and what has changed since.

use std::collections::BTreeMap;

/// Beginning of the table properties that hold the mapping.
pub const PREFIX: &str = "frazil.mapping.";

/// Table properties that hold what the format `auto` of keys and of values was decided to be. Once decided it stays.
pub const AUTO_KEY: &str = "frazil.auto.key";
/// As [`AUTO_KEY`].
pub const AUTO_VALUE: &str = "frazil.auto.value";

/// Table property: what columns are in the schemas of records, where that is more than a field of their name.
pub const IDENTITY: &str = "frazil.identity";

/// What differs between the mapping in a table's properties and the one wanted, a line for people each. Other
/// properties are ignored, and so are settings that only one of them has: another tool may have made the table.
#[must_use]
pub fn difference(stored: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<String> {
    let differs = |(key, is): (&String, &String)| {
        let setting = key.strip_prefix(PREFIX)?;
        let was = stored.get(key).filter(|was| *was != is)?;
        Some(format!("`{setting}`: the table was made with `{was}`, the configuration has `{is}`"))
    };
    wanted.iter().filter_map(differs).collect()
}
