//! The names that one query can use: each table is looked up when the query names it, once, so that it is the same
//! everywhere in the query.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result};

use super::files::Files;
use super::provider::SeamTable;
use super::system;
use super::travel;
use crate::error::Error;
use crate::model::ids::TableName;
use crate::model::version::{AsOf, Consistency};
use crate::seam::Views;

/// Name of the one catalog.
pub(super) const CATALOG: &str = "frazil";

/// What one query sees.
#[derive(Clone)]
pub(super) struct QueryCatalog {
    inner: Arc<Inner>,
}

struct Inner {
    views: Arc<dyn Views>,
    files: Files,
    consistency: Consistency,
    /// All tables, for `information_schema`.
    names: Vec<TableName>,
    seen: tokio::sync::Mutex<BTreeMap<(String, String), Arc<dyn TableProvider>>>,
    as_of: Mutex<BTreeMap<TableName, AsOf>>,
}

impl fmt::Debug for QueryCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryCatalog").finish_non_exhaustive()
    }
}

impl QueryCatalog {
    pub(super) fn new(views: Arc<dyn Views>, files: Files, consistency: Consistency, names: Vec<TableName>) -> Self {
        let (seen, as_of) = Default::default();
        Self { inner: Arc::new(Inner { views, files, consistency, names, seen, as_of }) }
    }

    /// How far each table reaches that was looked up.
    pub(super) fn as_of(&self) -> BTreeMap<TableName, AsOf> {
        self.inner.as_of.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn provide(&self, namespace: &str, name: &str) -> Result<Option<Arc<dyn TableProvider>>, Error> {
        let (plain, system) = match name.split_once('$') {
            Some((plain, system)) => (plain, Some(system)),
            None => (name, None),
        };
        let (plain, at) = travel::split(plain)?;
        let Ok(table) = format!("{namespace}.{plain}").parse::<TableName>() else { return Ok(None) };
        let consistency = at.map_or_else(|| self.inner.consistency.clone(), Consistency::At);
        let Some(view) = self.inner.views.view(&table, &consistency).await? else { return Ok(None) };
        if let Some(system) = system {
            return system::table(&*self.inner.files.lake, &view, system).await;
        }
        self.inner.as_of.lock().unwrap_or_else(PoisonError::into_inner).insert(table, view.as_of.clone());
        let provider = SeamTable::new(view, self.inner.files.clone()).await.map_err(super::engine::ours)?;
        Ok(Some(Arc::new(provider)))
    }
}

impl CatalogProviderList for QueryCatalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for QueryCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.inner.names.iter().map(TableName::namespace_text).collect();
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(Namespace { catalog: self.clone(), name: name.to_owned() }))
    }
}

#[derive(Debug)]
struct Namespace {
    catalog: QueryCatalog,
    name: String,
}

#[async_trait]
impl SchemaProvider for Namespace {
    fn table_names(&self) -> Vec<String> {
        let all = self.catalog.inner.names.iter();
        all.filter(|table| table.namespace_text() == self.name).map(|table| table.name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut seen = self.catalog.inner.seen.lock().await;
        let key = (self.name.clone(), name.to_owned());
        if let Some(table) = seen.get(&key) {
            return Ok(Some(Arc::clone(table)));
        }
        let found = self.catalog.provide(&self.name, name).await;
        let found = found.map_err(|error| DataFusionError::External(Box::new(error)))?;
        if let Some(table) = &found {
            seen.insert(key, Arc::clone(table));
        }
        Ok(found)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}
