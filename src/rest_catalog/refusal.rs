//! How the catalog says no: the specification's body, `{"error": {"message", "type", "code"}}`, and its names of types.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::{Error, ErrorKind};
use crate::model::ids::TableName;

/// A refusal, as clients of the specification read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Name of the exception that Java throws for it.
    pub(super) kind: &'static str,
    /// For people.
    pub(super) message: String,
}

/// The catalog's answer to a caller that the listener does not let in: 401 for one that nobody knows, else 403.
pub fn refuse(status: StatusCode, message: String) -> Response {
    let refusal = match status {
        StatusCode::UNAUTHORIZED => Refusal::new(status, "NotAuthorizedException", message),
        _ => Refusal::forbidden(message),
    };
    refusal.into_response()
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    pub(super) fn not_served(endpoint: &str) -> Self {
        let message = format!("`{endpoint}` is not served; `GET /v1/config` lists the endpoints that are");
        Self::new(StatusCode::NOT_FOUND, "NotFoundException", message)
    }

    pub(super) fn no_warehouse(asked: &str, name: &str) -> Self {
        let message = format!("there is no warehouse `{asked}`; leave it out, or ask for `{name}`");
        Self::new(StatusCode::NOT_FOUND, "NoSuchWarehouseException", message)
    }

    pub(super) fn no_namespace(levels: &[String]) -> Self {
        let message = format!("namespace `{}` does not exist", levels.join("."));
        Self::new(StatusCode::NOT_FOUND, "NoSuchNamespaceException", message)
    }

    pub(super) fn no_table(table: &TableName) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchTableException", format!("table `{table}` does not exist"))
    }

    pub(super) fn no_view() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchViewException", "this catalog has no views")
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, kind) = match error.kind() {
            ErrorKind::InvalidRequest => (StatusCode::BAD_REQUEST, "BadRequestException"),
            // What passes by itself, so that clients try again. `Denied` is about Frazil's own credentials.
            ErrorKind::Unavailable | ErrorKind::Denied => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError"),
        };
        if status.is_server_error() {
            tracing::warn!(error = %error.chain(), "the catalog cannot answer");
        }
        Self::new(status, kind, error.chain())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"error": {"message": self.message, "type": self.kind, "code": self.status.as_u16()}});
        (self.status, Json(body)).into_response()
    }
}
