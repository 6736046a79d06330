//! What operators and orchestrators ask: `/livez`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use prometheus::TEXT_FORMAT;

use crate::http::auth::{self, Scope};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// `/livez` and `/readyz`, open to all, and `/metrics`, for [`Scope::Metrics`].
pub fn operations(health: Health, metrics: Metrics) -> Router {
    let open = Router::new().route("/livez", get(|| async { "ok" })).route("/readyz", get(readyz)).with_state(health);
    let metrics = Router::new().route("/metrics", get(render)).with_state(metrics);
    open.merge(auth::require(Scope::Metrics, metrics))
}

/// 200 where all tables take records, else 503; either way each table's state and what it waits for.
async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let snapshot = health.snapshot();
    let status = if snapshot.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(snapshot))
}

async fn render(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, TEXT_FORMAT)], metrics.render())
}
