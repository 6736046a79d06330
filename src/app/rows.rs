//! Which columns and rows of its records a table gets, from its configuration to what decoding and its driver take.

use std::sync::Arc;

use crate::config::TableConfig;
use crate::decode::layout::{Metadata, MetadataNames};
use crate::error::{Error, Result};
use crate::model::projection::Projection;
use crate::pipeline::driver::TableFilter;
use crate::query::SqlFilter;

/// Which fields have columns. Columns about the record are not among them.
///
/// # Errors
/// `InvalidConfig` where a metadata column is named as a field.
pub(super) fn projection(table: &TableConfig, names: MetadataNames) -> Result<Arc<Projection>> {
    let Projection { include, exclude, rename } = &table.columns;
    let columns = Metadata::ALL.map(|metadata| metadata.name(names));
    let is_metadata = |name: &&String| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    let mut named = include.iter().flatten().chain(exclude).chain(rename.keys()).chain(rename.values());
    if let Some(name) = named.find(is_metadata) {
        let text = format!("`columns` of table `{}` names `{name}`, a column about the record itself", table.table);
        return Err(Error::invalid_config(format!("{text}; `metadata_columns` says which of those it has")));
    }
    Ok(Arc::new(table.columns.clone()))
}

/// Which rows the table gets.
///
/// # Errors
/// `InvalidConfig` where that is no condition over a row.
pub(super) fn filter(table: &TableConfig) -> Result<Option<TableFilter>> {
    let Some(text) = &table.filter else { return Ok(None) };
    let condition = SqlFilter::new(text).map_err(|error| error.context(format!("table `{}`", table.table)))?;
    Ok(Some(TableFilter { text: text.clone(), condition: Arc::new(condition) }))
}
