//! The tables of a configuration as the catalog has them: those that are named, and those that patterns and routes made.

use std::collections::BTreeSet;

use super::sharing::route_value;
use crate::config::{Config, TableConfig};
use crate::error::Result;
use crate::lake::catalog::Catalog;
use crate::lake::progress::recovery;
use crate::ports::Recovery;

/// All of them, without asking the brokers: a pattern's topics are those that tables have been filled from.
///
/// # Errors
/// `Unavailable`, `Denied`; `Corrupt` where a table's properties cannot be read.
pub async fn tables(config: &Config, catalog: &dyn Catalog) -> Result<Vec<TableConfig>> {
    let mut topics = BTreeSet::new();
    if !config.patterns.is_empty() {
        for name in catalog.list().await? {
            let Some(loaded) = catalog.load(&name).await? else { continue };
            if let Ok(Recovery::At(progress)) = recovery(&name.to_string(), &loaded.metadata) {
                topics.extend(progress.ledger.topics.into_keys());
            }
        }
    }
    with_routed(config.with_topics(&topics)?.tables, catalog).await
}

/// `tables`, and behind each that spreads its records those that it spreads them over.
///
/// # Errors
/// `Unavailable`, `Denied`.
pub async fn with_routed(tables: Vec<TableConfig>, catalog: &dyn Catalog) -> Result<Vec<TableConfig>> {
    let mut all = Vec::with_capacity(tables.len());
    for entry in tables {
        all.push(entry.clone());
        if entry.route.is_none() {
            continue;
        }
        for name in catalog.list().await?.into_iter().filter(|name| name.namespace == entry.table.namespace) {
            let Some(loaded) = catalog.load(&name).await? else { continue };
            let properties = loaded.metadata.properties();
            if let Some(value) = route_value(&entry, |name| properties.get(name).map(String::as_str)) {
                all.push(entry.of_value(name, &value));
            }
        }
    }
    Ok(all)
}
