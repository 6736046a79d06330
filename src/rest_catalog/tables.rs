//! Tables: lists by page, the metadata with what an engine needs to read the files, and entity tags.

use std::borrow::Cow;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::metadata::{referenced, whole};
use super::namespaces::{self, Namespace};
use super::pages::{ListQuery, page};
use super::{Asked, Catalog, Refusal};
use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::ports::Properties;

/// Which snapshots the metadata is to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Snapshots {
    #[default]
    All,
    /// Those that branches and tags are on.
    Refs,
}

#[derive(Debug, Deserialize)]
pub(super) struct LoadQuery {
    #[serde(default)]
    snapshots: Snapshots,
}

/// A loaded table, as the specification writes it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct LoadTableResult<'a> {
    metadata_location: &'a str,
    metadata: Cow<'a, RawValue>,
    config: &'a Properties,
}

pub(super) async fn list(
    State(catalog): State<Catalog>,
    Asked(Path(Namespace(levels))): Asked<Path<Namespace>>,
    Asked(Query(query)): Asked<Query<ListQuery>>,
) -> Result<Json<Value>, Refusal> {
    namespaces::find(&catalog, &levels).await?;
    let tables = catalog.view.tables().await?;
    let names = tables.into_iter().filter(|table| table.namespace == levels).map(|table| table.name).collect();
    let (names, next) = page(names, &query)?;
    let identifier = |name| json!({"namespace": levels, "name": name});
    let identifiers: Vec<Value> = names.into_iter().map(identifier).collect();
    Ok(Json(json!({"identifiers": identifiers, "next-page-token": next})))
}

pub(super) async fn exists(
    State(catalog): State<Catalog>,
    Asked(Path((Namespace(namespace), name))): Asked<Path<(Namespace, String)>>,
) -> Result<StatusCode, Refusal> {
    let table = TableName { namespace, name };
    let location = catalog.view.metadata_location(&table).await?;
    location.map(|_| StatusCode::NO_CONTENT).ok_or_else(|| Refusal::no_table(&table))
}

pub(super) async fn load(
    State(catalog): State<Catalog>,
    Asked(Path((Namespace(namespace), name))): Asked<Path<(Namespace, String)>>,
    Asked(Query(query)): Asked<Query<LoadQuery>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (view, table) = (&catalog.view, TableName { namespace, name });
    let location = view.metadata_location(&table).await?.ok_or_else(|| Refusal::no_table(&table))?;
    let tag = tag(&location, query.snapshots, &view.access(&location).await?);
    if known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    // It may be newer than the location above.
    let stored = view.metadata(&table).await?.ok_or_else(|| Refusal::no_table(&table))?;
    let config = view.access(&stored.location).await?;
    let metadata = match query.snapshots {
        Snapshots::All => whole(&stored.json).map(Cow::Borrowed),
        Snapshots::Refs => referenced(&stored.json).map(Cow::Owned),
    };
    let metadata = metadata.map_err(|e| e.context(format!("read `{}` of table `{table}`", stored.location)))?;
    let result = LoadTableResult { metadata_location: &stored.location, metadata, config: &config };
    let body = serde_json::to_vec(&result).map_err(|e| Error::bug("write table metadata").with_source(e))?;
    let tag = self::tag(&stored.location, query.snapshots, &config);
    Ok(([(CONTENT_TYPE, "application/json".to_owned()), (ETAG, tag)], body).into_response())
}

/// The entity tag of an answer: it has the location, which is another for every version of a table, and all else that
/// the answer depends on.
fn tag(location: &str, snapshots: Snapshots, config: &Properties) -> String {
    let hash = Sha256::digest(format!("{location}\n{snapshots:?}\n{config:?}"));
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(hash))
}

/// True where the client has that answer already. Tags are compared weakly, as RFC 9110 has it for `If-None-Match`.
fn known(headers: &HeaderMap, tag: &str) -> bool {
    let sent = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut tags = sent.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|sent| sent == "*" || sent.strip_prefix("W/").unwrap_or(sent) == tag)
}
