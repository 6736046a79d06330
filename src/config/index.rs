//! The sections `index`, of all and of one table, checked. What they lead to is `vector`'s.

use std::path::PathBuf;

use super::choices::IndexModel;
use super::resolve::invalid;
use super::settings::{IndexSettings, TableIndexSettings};
use crate::error::Result;
use crate::model::template::Template;

/// Search indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexConfig {
    /// The folder that they lie in, absolute.
    pub folder: PathBuf,
    /// The model that turns text into vectors.
    pub model: IndexModel,
}

/// What of a table can be searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableIndexConfig {
    /// The text that is found.
    pub text: Template,
    /// Columns that a search may filter by.
    pub filters: Vec<String>,
}

pub(super) fn resolve_index(written: &IndexSettings) -> Result<IndexConfig> {
    let key = "index.uri";
    let uri = written.uri.as_deref().unwrap_or("frazil/index");
    if uri.contains("://") {
        let text = format!("`{uri}` is no folder; indexes in object stores come with a later version of frazil");
        return Err(invalid(key, &text));
    }
    let folder = std::path::absolute(uri);
    let folder = folder.map_err(|error| invalid(key, "it is no path; write a folder").with_source(error))?;
    Ok(IndexConfig { folder, model: written.model.unwrap_or(IndexModel::Static) })
}

/// `at` is the section's dotted key.
pub(super) fn resolve_table_index(at: &str, written: &TableIndexSettings) -> Result<TableIndexConfig> {
    let key = format!("{at}.text");
    let text = written.text.as_deref().ok_or_else(|| {
        invalid(&key, "it is missing; write the columns that are searched, as in `text: \"{title}\\n{body}\"`")
    })?;
    let text = text.parse().map_err(|error: crate::error::Error| invalid(&key, &error.to_string()))?;
    let filters = written.filters.clone().unwrap_or_default();
    if let Some(name) = filters.iter().find(|name| name.starts_with('_')) {
        let text = format!("`{name}` begins with `_`, as the index's own columns do; such a column cannot be a filter");
        return Err(invalid(&format!("{at}.filters"), &text));
    }
    Ok(TableIndexConfig { text, filters })
}
