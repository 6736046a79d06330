//! What of a changed configuration can be applied to a table that was made with another one.

use std::collections::BTreeMap;

use super::spec;
use crate::config::{Config, TableConfig};
use crate::error::{Error, Result};
use crate::lake::alter::Alteration;
use crate::model::mapping::{PREFIX, difference};
use crate::ports::TableState;

/// What differs, a line for people each, and the alteration that brings the table there; `None` where nothing differs.
///
/// # Errors
/// `InvalidRequest` where something differs that cannot be changed: the settings that decide what existing columns mean.
pub fn alteration(
    config: &Config,
    table: &TableConfig,
    state: &TableState,
) -> Result<Option<(Vec<String>, Alteration)>> {
    let wanted = table.mapping();
    let lines = difference(&state.properties, &wanted);
    let differs = |name: &str| {
        let key = format!("{PREFIX}{name}");
        state.properties.get(&key).filter(|was| Some(*was) != wanted.get(&key))
    };
    let changeable = ["partition_by", "sort_by", "topics"];
    let fixed: Vec<&String> =
        lines.iter().filter(|line| !changeable.iter().any(|name| line.starts_with(&format!("`{name}`")))).collect();
    if !fixed.is_empty() {
        let fixed: Vec<&str> = fixed.iter().map(|line| line.as_str()).collect();
        return Err(Error::invalid_request(format!(
            "table `{}` cannot be changed so: {}; set it back, or write to another table",
            table.table,
            fixed.join("; ")
        )));
    }
    if lines.is_empty() {
        return Ok(None);
    }
    if let Some(was) = differs("topics") {
        check_topics(table, state, was)?;
    }
    let spec = spec::table_spec(config, table)?;
    let names = changeable.map(|name| format!("{PREFIX}{name}"));
    let properties: BTreeMap<String, String> =
        wanted.clone().into_iter().filter(|(name, _)| names.contains(name)).collect();
    let alteration = Alteration {
        partition_by: differs("partition_by").map(|_| spec.partition_by.clone()),
        sort_by: differs("sort_by").map(|_| spec.sort_by.clone()),
        properties,
    };
    Ok(Some((lines, alteration)))
}

/// Topics may be added where rows say which one they are of. Those that are not named any more are not read any more.
fn check_topics(table: &TableConfig, state: &TableState, was: &str) -> Result<()> {
    let column = spec::topic_column(table);
    if table.has_several_topics() && state.schema.field(&column).is_none() {
        return Err(Error::invalid_request(format!(
            "table `{}` was made for topic `{was}` and has no column `{column}`, so rows of several topics could not be told apart; \
             write to another table",
            table.table
        )));
    }
    Ok(())
}
