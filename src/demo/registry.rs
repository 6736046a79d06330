//! The demo's schema registry: the part of the Confluent REST API that producers and readers need, in memory, on
//! loopback. No compatibility rules, no deletion, no persistence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// All schemas and subjects; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Schemas {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The schema with id n is at n - 1.
    schemas: Vec<Registered>,
    /// Per subject the ids of its versions; version n is at n - 1.
    subjects: BTreeMap<String, Vec<u32>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    schema: String,
    /// Absent for Avro, as real registries do.
    #[serde(default, skip_serializing_if = "is_avro")]
    schema_type: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    references: Vec<Value>,
}

/// A refusal: HTTP status, the registry's own code, words.
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, u32, String);

#[expect(clippy::ref_option, reason = "serde calls it")]
fn is_avro(schema_type: &Option<String>) -> bool {
    schema_type.as_deref().is_none_or(|kind| kind == "AVRO")
}

impl Registered {
    /// Equal texts, up to white space where the schema is JSON, have one id.
    fn is_same_as(&self, other: &Self) -> bool {
        let json = |schema: &Self| serde_json::from_str::<Value>(&schema.schema).ok();
        let same_text = self.schema == other.schema || json(self).is_some_and(|value| json(other) == Some(value));
        let same_type =
            self.schema_type == other.schema_type || is_avro(&self.schema_type) && is_avro(&other.schema_type);
        same_text && same_type && self.references == other.references
    }
}

impl Schemas {
    /// Registers an Avro schema and answers its id.
    pub(super) fn register_avro(&self, subject: &str, text: &str) -> Result<u32, Refusal> {
        self.register(subject, Registered { schema: text.to_owned(), schema_type: None, references: Vec::new() })
    }

    fn register(&self, subject: &str, schema: Registered) -> Result<u32, Refusal> {
        let is_text = schema.schema_type.as_deref() == Some("PROTOBUF");
        if !is_text && serde_json::from_str::<Value>(&schema.schema).is_err() {
            return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, 42201, "Invalid schema".to_owned()));
        }
        let mut inner = self.lock();
        let known = inner.schemas.iter().position(|other| other.is_same_as(&schema));
        let index = known.unwrap_or_else(|| {
            inner.schemas.push(schema);
            inner.schemas.len() - 1
        });
        let id = index as u32 + 1;
        let versions = inner.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&id) {
            versions.push(id);
        }
        Ok(id)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The REST API over these schemas.
    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/schemas/ids/{id}", get(schema_by_id))
            .route("/subjects", get(subjects))
            .route("/subjects/{subject}/versions", post(register).get(versions))
            .route("/subjects/{subject}/versions/{version}", get(version))
            .with_state(self.clone())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error_code": self.1, "message": self.2}))).into_response()
    }
}

async fn schema_by_id(State(schemas): State<Schemas>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let inner = schemas.lock();
    let index = id.parse::<usize>().ok().and_then(|id| id.checked_sub(1));
    let schema = index.and_then(|index| inner.schemas.get(index));
    let schema = schema.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, 40403, format!("Schema {id} not found")))?;
    Ok(Json(schema).into_response())
}

async fn subjects(State(schemas): State<Schemas>) -> Json<Vec<String>> {
    Json(schemas.lock().subjects.keys().cloned().collect())
}

async fn versions(State(schemas): State<Schemas>, Path(subject): Path<String>) -> Result<Json<Vec<usize>>, Refusal> {
    let inner = schemas.lock();
    let ids = inner.subjects.get(&subject).ok_or_else(|| unknown_subject(&subject))?;
    Ok(Json((1..=ids.len()).collect()))
}

async fn version(
    State(schemas): State<Schemas>,
    Path((subject, version)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let inner = schemas.lock();
    let ids = inner.subjects.get(&subject).ok_or_else(|| unknown_subject(&subject))?;
    let number = match version.as_str() {
        "latest" | "-1" => ids.len(),
        text => text.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
            Refusal(
                StatusCode::UNPROCESSABLE_ENTITY,
                42202,
                format!("The specified version '{version}' is not a valid version id"),
            )
        })?,
    };
    let id = ids
        .get(number - 1)
        .ok_or_else(|| Refusal(StatusCode::NOT_FOUND, 40402, format!("Version {number} not found")))?;
    let mut body = json!(inner.schemas[*id as usize - 1]);
    body["subject"] = json!(subject);
    body["version"] = json!(number);
    body["id"] = json!(id);
    Ok(Json(body))
}

async fn register(
    State(schemas): State<Schemas>,
    Path(subject): Path<String>,
    body: Result<Json<Registered>, JsonRejection>,
) -> Result<Json<Value>, Refusal> {
    let Json(schema) = body.map_err(|e| Refusal(StatusCode::UNPROCESSABLE_ENTITY, 42201, e.body_text()))?;
    schemas.register(&subject, schema).map(|id| Json(json!({"id": id})))
}

fn unknown_subject(subject: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, 40401, format!("Subject '{subject}' not found."))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn check(schemas: &Schemas, method: &str, path: &str, body: &str, expected: (u16, Value)) {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let response = schemas.router().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert_eq!((status, serde_json::from_slice::<Value>(&body).unwrap()), expected, "{method} {path}");
    }

    #[tokio::test]
    async fn it_answers_as_confluents_does() {
        let schemas = Schemas::default();
        let post = r#"{"schema":"{\"type\":\"long\"}"}"#;
        let same = r#"{"schema":"{ \"type\": \"long\" }","schemaType":"AVRO"}"#;
        let other = r#"{"schema":"{\"type\":\"int\"}"}"#;
        check(&schemas, "POST", "/subjects/a%2Fb/versions", post, (200, json!({"id": 1}))).await;
        check(&schemas, "POST", "/subjects/c/versions", same, (200, json!({"id": 1}))).await;
        check(&schemas, "POST", "/subjects/c/versions", other, (200, json!({"id": 2}))).await;
        check(&schemas, "POST", "/subjects/c/versions", post, (200, json!({"id": 1}))).await;
        check(&schemas, "GET", "/subjects", "", (200, json!(["a/b", "c"]))).await;
        check(&schemas, "GET", "/subjects/c/versions", "", (200, json!([1, 2]))).await;
        check(&schemas, "GET", "/schemas/ids/1", "", (200, json!({"schema": "{\"type\":\"long\"}"}))).await;
        let latest = json!({"subject": "c", "version": 2, "id": 2, "schema": "{\"type\":\"int\"}"});
        check(&schemas, "GET", "/subjects/c/versions/latest", "", (200, latest.clone())).await;
        check(&schemas, "GET", "/subjects/c/versions/2", "", (200, latest)).await;
    }

    #[tokio::test]
    async fn it_refuses_as_confluents_does() {
        let schemas = Schemas::default();
        schemas.register_avro("a", "\"long\"").unwrap();
        let not_found = |code: u32, message: &str| (404, json!({"error_code": code, "message": message}));
        check(&schemas, "GET", "/schemas/ids/0", "", not_found(40403, "Schema 0 not found")).await;
        check(&schemas, "GET", "/schemas/ids/2", "", not_found(40403, "Schema 2 not found")).await;
        check(&schemas, "GET", "/subjects/b/versions/1", "", not_found(40401, "Subject 'b' not found.")).await;
        check(&schemas, "GET", "/subjects/a/versions/2", "", not_found(40402, "Version 2 not found")).await;
        let message = "The specified version 'x' is not a valid version id";
        check(&schemas, "GET", "/subjects/a/versions/x", "", (422, json!({"error_code": 42202, "message": message})))
            .await;
        let invalid = (422, json!({"error_code": 42201, "message": "Invalid schema"}));
        check(&schemas, "POST", "/subjects/a/versions", r#"{"schema":"{"}"#, invalid).await;
    }
}
