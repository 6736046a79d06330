//! The Iceberg REST catalog at `/iceberg`, the half that reads: namespaces, tables, and empty answers about views.
//! Who may ask is the listener's matter; where tables come from is the [`CatalogView`]'s.
//!
//! Shapes and status codes are those of the specification, `open-api/rest-catalog-open-api.yaml` of Apache Iceberg.

mod metadata;
mod namespaces;
mod pages;
mod refusal;
mod tables;

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::map_request;
use axum::routing::{MethodFilter, MethodRouter, get, head, on, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::Layer;

use refusal::Refusal;
pub use refusal::refuse;

use crate::ports::CatalogView;

/// Where it is served, without a slash at the end.
pub const PATH: &str = "/iceberg";

/// What clients are told to do for now.
const READ_ONLY: &str = "this catalog is read only for now; to write, open the database of `catalog.uri` as a JDBC \
                         catalog or with PyIceberg's `SqlCatalog`, whose commits go beside those of Frazil";

/// The specification's endpoints that change something: each is refused by name.
const WRITES: [&str; 15] = [
    "POST /v1/{prefix}/namespaces",
    "DELETE /v1/{prefix}/namespaces/{namespace}",
    "POST /v1/{prefix}/namespaces/{namespace}/properties",
    "POST /v1/{prefix}/namespaces/{namespace}/register",
    "POST /v1/{prefix}/namespaces/{namespace}/register-view",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/unregister",
    "POST /v1/{prefix}/namespaces/{namespace}/views",
    "POST /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/views/rename",
    "POST /v1/{prefix}/transactions/commit",
];

/// How the catalog is called.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `warehouse` values that mean this catalog: its name, its warehouse's location. None and `""` mean it too.
    pub warehouses: Vec<String>,
}

/// What the handlers share.
#[derive(Clone)]
struct Catalog {
    view: Arc<dyn CatalogView>,
    options: Arc<Options>,
}

/// All routes below [`PATH`].
pub fn routes(view: Arc<dyn CatalogView>, options: Options) -> Router {
    let mut routes = Router::new().route("/v1/config", get(config));
    for (endpoint, handler) in reads() {
        routes = routes.route(&path(endpoint), handler);
    }
    for endpoint in WRITES {
        let method = if endpoint.starts_with("DELETE ") { MethodFilter::DELETE } else { MethodFilter::POST };
        routes = routes.route(&path(endpoint), on(method, || async { Refusal::forbidden(READ_ONLY) }));
    }
    let routes = routes
        .fallback(not_served)
        .method_not_allowed_fallback(not_served)
        .with_state(Catalog { view, options: Arc::new(options) });
    Router::new().nest_service(PATH, map_request(plus_is_space).layer(routes))
}

/// The specification's endpoints that are served, as `config` lists them, and what serves them.
fn reads() -> Vec<(&'static str, MethodRouter<Catalog>)> {
    vec![
        ("GET /v1/{prefix}/namespaces", get(namespaces::list)),
        ("GET /v1/{prefix}/namespaces/{namespace}", get(namespaces::load)),
        ("HEAD /v1/{prefix}/namespaces/{namespace}", head(namespaces::exists)),
        ("GET /v1/{prefix}/namespaces/{namespace}/tables", get(tables::list)),
        ("GET /v1/{prefix}/namespaces/{namespace}/tables/{table}", get(tables::load)),
        ("HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}", head(tables::exists)),
        ("POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics", post(|| async { StatusCode::NO_CONTENT })),
        ("GET /v1/{prefix}/namespaces/{namespace}/views", get(namespaces::views)),
        ("GET /v1/{prefix}/namespaces/{namespace}/views/{view}", get(|| async { Refusal::no_view() })),
        ("HEAD /v1/{prefix}/namespaces/{namespace}/views/{view}", head(|| async { Refusal::no_view() })),
    ]
}

/// The path of an endpoint; this catalog needs no prefix.
fn path(endpoint: &str) -> String {
    let path = endpoint.split_once(' ').map_or(endpoint, |(_, path)| path);
    path.replace("/{prefix}", "")
}

#[derive(Debug, Deserialize)]
struct ConfigQuery {
    warehouse: Option<String>,
}

async fn config(
    State(catalog): State<Catalog>,
    Asked(Query(query)): Asked<Query<ConfigQuery>>,
) -> Result<Json<Value>, Refusal> {
    let asked = query.warehouse.as_deref().unwrap_or_default().trim_end_matches('/');
    let known = catalog.options.warehouses.iter().any(|name| name.trim_end_matches('/') == asked);
    if !asked.is_empty() && !known {
        return Err(Refusal::no_warehouse(asked, catalog.options.warehouses.first().map_or("", String::as_str)));
    }
    let endpoints: Vec<&str> = reads().into_iter().map(|(endpoint, _)| endpoint).collect();
    Ok(Json(json!({"defaults": {}, "overrides": {}, "endpoints": endpoints})))
}

async fn not_served(method: Method, uri: Uri) -> Refusal {
    Refusal::not_served(&format!("{method} {}", uri.path()))
}

/// Java clients write a space in a path as in a form: `+`. A plus itself comes as `%2B` from every client.
async fn plus_is_space(mut request: Request) -> Request {
    let uri = request.uri();
    if uri.path().contains('+') {
        let path = uri.path().replace('+', "%20");
        let whole = uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        if let Ok(uri) = whole.parse() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// An extractor whose refusal has the specification's shape.
struct Asked<E>(E);

impl<S: Send + Sync, E: FromRequestParts<S, Rejection: std::fmt::Display>> FromRequestParts<S> for Asked<E> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let extracted = E::from_request_parts(parts, state).await;
        extracted.map(Asked).map_err(|rejection| Refusal::bad_request(rejection.to_string()))
    }
}

#[cfg(test)]
mod tests;
