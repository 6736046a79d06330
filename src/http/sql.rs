//! `POST /api/sql`: one reading statement in, rows out as JSON, NDJSON, CSV or an Arrow stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder as JsonBuilder};
use arrow::record_batch::RecordBatch;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};
use crate::http::auth::{self, Scope};
use crate::http::error::Refusal;
use crate::model::ids::TableName;
use crate::model::version::{AsOf, Consistency, OffsetsByTopic, SnapshotAt, by_topic, from_topics};
use crate::ports::{Sql, SqlAnswer, SqlLimits, SqlRequest};

/// Where streamed answers say how far they reach.
pub const AS_OF: HeaderName = HeaderName::from_static("frazil-as-of");

#[derive(Clone)]
struct Face {
    sql: Arc<dyn Sql>,
    limits: SqlLimits,
}

/// `/api/sql`, for [`Scope::ReadSql`]. `limits` holds where a caller asks for no less.
pub fn routes(sql: Arc<dyn Sql>, limits: SqlLimits) -> Router {
    let face = Face { sql, limits };
    auth::require(Scope::ReadSql, Router::new().route("/api/sql", post(query)).with_state(face))
}

/// The request's body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    sql: String,
    #[serde(default)]
    consistency: Word,
    #[serde(default)]
    as_of: Option<At>,
    /// Per topic and partition the offset that must be visible at least.
    #[serde(default)]
    at_least: OffsetsByTopic,
    max_rows: Option<u64>,
    timeout_ms: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    #[default]
    Fresh,
    Committed,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum At {
    SnapshotId(i64),
    TimestampMs(i64),
}

impl Ask {
    fn request(self, most: SqlLimits) -> SqlRequest {
        let consistency = match (self.as_of, self.consistency) {
            (Some(At::SnapshotId(id)), _) => Consistency::At(SnapshotAt::Id(id)),
            (Some(At::TimestampMs(ms)), _) => Consistency::At(SnapshotAt::Timestamp(ms)),
            (None, Word::Committed) => Consistency::Committed,
            (None, Word::Fresh) => Consistency::Fresh(from_topics(&self.at_least)),
        };
        let limits = SqlLimits {
            rows: self.max_rows.unwrap_or(most.rows).min(most.rows),
            time: self.timeout_ms.map_or(most.time, Duration::from_millis).min(most.time),
            ..most
        };
        SqlRequest { sql: self.sql, consistency, limits }
    }
}

/// How far an answer reaches, on the wire: offsets are the first that are not in it.
#[derive(Debug, Serialize, Deserialize)]
pub struct AsOfView {
    /// The snapshot read.
    pub snapshot_id: Option<i64>,
    /// Per topic and partition the first offset that is not in the answer.
    pub offsets: OffsetsByTopic,
    /// Timestamp of the newest record in it, milliseconds since the epoch.
    pub newest_record_ms: Option<i64>,
}

impl From<&AsOf> for AsOfView {
    fn from(as_of: &AsOf) -> Self {
        let offsets = by_topic(&as_of.offsets);
        Self { snapshot_id: as_of.snapshot_id, offsets, newest_record_ms: as_of.newest_ms }
    }
}

#[derive(Serialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    columns: Vec<Column>,
    rows: &'a RawValue,
    returned: usize,
    truncated: bool,
    scanned_bytes: u64,
    as_of: BTreeMap<String, AsOfView>,
}

async fn query(State(face): State<Face>, headers: HeaderMap, body: Result<Json<Ask>, JsonRejection>) -> Response {
    let ask = match body {
        Ok(Json(ask)) => ask,
        Err(wrong) => {
            return Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", wrong.body_text()).into_response();
        }
    };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let answer = match face.sql.query(ask.request(face.limits)).await {
        Ok(answer) => answer,
        Err(error) => return refusal(&error).into_response(),
    };
    if accept.contains("ndjson") {
        streamed(answer, "application/x-ndjson", |_| Ok(NdJson))
    } else if accept.contains("csv") {
        streamed(answer, "text/csv", |_| Ok(Csv { header: true }))
    } else if accept.contains("arrow") {
        streamed(answer, "application/vnd.apache.arrow.stream", |schema| {
            let writer = StreamWriter::try_new(Vec::new(), schema);
            Ok(Arrow(Some(writer.map_err(|e| Error::bug("begin an Arrow stream").with_source(e))?)))
        })
    } else {
        whole(answer).await.unwrap_or_else(|error| refusal(&error).into_response())
    }
}

/// The whole answer in one JSON object.
async fn whole(answer: SqlAnswer) -> Result<Response> {
    let (schema, used) = (answer.schema, answer.used);
    let batches: Vec<RecordBatch> = answer.rows.try_collect().await?;
    let text = json_rows(&batches).map_err(no_json)?;
    let text = String::from_utf8(text).map_err(|e| Error::bug("write JSON").with_source(e))?;
    let rows = RawValue::from_string(text).map_err(|e| Error::bug("write JSON").with_source(e))?;
    let body = Answer {
        columns: columns(&schema),
        rows: &rows,
        returned: batches.iter().map(RecordBatch::num_rows).sum(),
        truncated: used.truncated.load(Ordering::Relaxed),
        scanned_bytes: used.scanned_bytes.load(Ordering::Relaxed),
        as_of: views(&answer.as_of),
    };
    Ok(Json(body).into_response())
}

/// Rows as a JSON array with an object for each, nulls included.
///
/// # Errors
/// Where a value has no JSON form.
pub fn json_rows(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    batches.iter().try_for_each(|rows| writer.write(rows))?;
    writer.finish()?;
    let text = writer.into_inner();
    // Without any row it has written nothing.
    Ok(if text.is_empty() { b"[]".to_vec() } else { text })
}

/// What to say where [`json_rows`] cannot write the rows of a query.
pub fn no_json(error: ArrowError) -> Error {
    Error::new(ErrorKind::InvalidRequest, "the rows have no JSON form; cast them").with_source(error)
}

fn columns(schema: &SchemaRef) -> Vec<Column> {
    let column = |field: &Arc<arrow::datatypes::Field>| Column {
        name: field.name().clone(),
        kind: field.data_type().to_string(),
    };
    schema.fields().iter().map(column).collect()
}

fn views(as_of: &BTreeMap<TableName, AsOf>) -> BTreeMap<String, AsOfView> {
    as_of.iter().map(|(table, as_of)| (table.to_string(), as_of.into())).collect()
}

/// Rows in one of the formats that come as they are found.
trait Format: Send + 'static {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>>;

    fn end(&mut self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

struct NdJson;
struct Csv {
    header: bool,
}
struct Arrow(Option<StreamWriter<Vec<u8>>>);

impl Format for NdJson {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>> {
        let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        writer.write(rows).map_err(no_json)?;
        writer.finish().map_err(no_json)?;
        Ok(writer.into_inner())
    }
}

impl Format for Csv {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>> {
        let mut writer = CsvBuilder::new().with_header(std::mem::take(&mut self.header)).build(Vec::new());
        let broken =
            |e| Error::new(ErrorKind::InvalidRequest, "the rows have no CSV form; select plain columns").with_source(e);
        writer.write(rows).map_err(broken)?;
        Ok(writer.into_inner())
    }
}

impl Format for Arrow {
    fn rows(&mut self, rows: &RecordBatch) -> Result<Vec<u8>> {
        let Some(writer) = &mut self.0 else { return Ok(Vec::new()) };
        writer.write(rows).map_err(|e| Error::bug("write an Arrow stream").with_source(e))?;
        Ok(std::mem::take(writer.get_mut()))
    }

    fn end(&mut self) -> Result<Vec<u8>> {
        let Some(mut writer) = self.0.take() else { return Ok(Vec::new()) };
        let broken = |e| Error::bug("end an Arrow stream").with_source(e);
        writer.finish().map_err(broken)?;
        writer.into_inner().map_err(broken)
    }
}

/// The answer as it comes. After an error the connection breaks, so that nobody takes a part for the whole.
fn streamed<F: Format>(
    answer: SqlAnswer,
    kind: &'static str,
    format: impl FnOnce(&SchemaRef) -> Result<F>,
) -> Response {
    let format = match format(&answer.schema) {
        Ok(format) => format,
        Err(error) => return refusal(&error).into_response(),
    };
    let as_of = serde_json::to_string(&views(&answer.as_of)).unwrap_or_default();
    let bytes = futures::stream::unfold((answer.rows, Some(format)), |(mut rows, format)| async move {
        let mut format = format?;
        let (bytes, format) = match rows.next().await {
            Some(Ok(batch)) => (format.rows(&batch), Some(format)),
            Some(Err(error)) => (Err(error), None),
            None => (format.end(), None),
        };
        Some((bytes.map(Bytes::from).map_err(|error| std::io::Error::other(error.chain())), (rows, format)))
    });
    ([(CONTENT_TYPE, kind.to_owned()), (AS_OF, as_of)], Body::from_stream(bytes)).into_response()
}

/// An error as the listener says it.
pub(super) fn refusal(error: &Error) -> Refusal {
    let (status, code) = match error.kind() {
        ErrorKind::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request"),
        ErrorKind::Unavailable | ErrorKind::Conflict => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        ErrorKind::Denied => (StatusCode::BAD_GATEWAY, "denied_by_store"),
        ErrorKind::Corrupt => (StatusCode::CONFLICT, "corrupt"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    };
    Refusal::new(status, code, error.chain())
}
