//! Namespaces: those of the catalog and the levels above them, by path, parent and page.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pages::{ListQuery, page};
use super::{Asked, Catalog, Refusal};
use crate::error::Result;
use crate::ports::Properties;

/// Between the levels of a namespace in paths and queries, where no other separator is advertised.
const SEPARATOR: char = '\u{1f}';

/// A namespace as paths and queries name it.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "String")]
pub(super) struct Namespace(pub(super) Vec<String>);

impl From<String> for Namespace {
    fn from(text: String) -> Self {
        Self(text.split(SEPARATOR).map(str::to_owned).collect())
    }
}

/// All namespaces; those that lie above others are there whether they were made or not.
type Namespaces = BTreeMap<Vec<String>, Properties>;

async fn all(catalog: &Catalog) -> Result<Namespaces> {
    let mut all = catalog.view.namespaces().await?;
    let above: Vec<Vec<String>> =
        all.keys().flat_map(|levels| (1..levels.len()).map(|depth| levels[..depth].to_vec())).collect();
    for levels in above {
        all.entry(levels).or_default();
    }
    Ok(all)
}

/// The namespace's properties, or the refusal that names it.
pub(super) async fn find(catalog: &Catalog, levels: &[String]) -> Result<Properties, Refusal> {
    all(catalog).await?.remove(levels).ok_or_else(|| Refusal::no_namespace(levels))
}

pub(super) async fn list(
    State(catalog): State<Catalog>,
    Asked(Query(query)): Asked<Query<ListQuery>>,
) -> Result<Json<Value>, Refusal> {
    let all = all(&catalog).await?;
    let parent = query.parent.clone().filter(|parent| !parent.is_empty());
    let parent = parent.map_or_else(Vec::new, |parent| Namespace::from(parent).0);
    if !parent.is_empty() && !all.contains_key(&parent) {
        return Err(Refusal::no_namespace(&parent));
    }
    let below = all.into_keys().filter(|levels| levels.len() == parent.len() + 1 && levels.starts_with(&parent));
    let names: BTreeSet<String> = below.filter_map(|mut levels| levels.pop()).collect();
    let (names, next) = page(names.into_iter().collect(), &query)?;
    let whole = |name| parent.iter().cloned().chain([name]).collect::<Vec<String>>();
    let namespaces: Vec<Vec<String>> = names.into_iter().map(whole).collect();
    Ok(Json(json!({"namespaces": namespaces, "next-page-token": next})))
}

pub(super) async fn load(
    State(catalog): State<Catalog>,
    Asked(Path(Namespace(levels))): Asked<Path<Namespace>>,
) -> Result<Json<Value>, Refusal> {
    let properties = find(&catalog, &levels).await?;
    Ok(Json(json!({"namespace": levels, "properties": properties})))
}

pub(super) async fn exists(
    State(catalog): State<Catalog>,
    Asked(Path(Namespace(levels))): Asked<Path<Namespace>>,
) -> Result<StatusCode, Refusal> {
    find(&catalog, &levels).await.map(|_| StatusCode::NO_CONTENT)
}

/// There are no views: of an existing namespace the list is empty.
pub(super) async fn views(
    State(catalog): State<Catalog>,
    Asked(Path(Namespace(levels))): Asked<Path<Namespace>>,
) -> Result<Json<Value>, Refusal> {
    find(&catalog, &levels).await?;
    Ok(Json(json!({"identifiers": [], "next-page-token": null})))
}
