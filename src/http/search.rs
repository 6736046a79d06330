//! `POST /api/search`: words or a sentence in, records out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::http::auth::{self, Scope};
use crate::http::error::Refusal;
use crate::http::sql::{AsOfView, refusal};
use crate::model::version::{OffsetsByTopic, from_topics};
use crate::ports::{Arm, ArmReport, ArmStatus, Hit, Recency, Search, SearchAnswer, SearchMode, SearchRequest, Tier};

/// Hits given where the request does not say how many, and at most.
const LIMIT: usize = 10;
const LIMIT_MAX: usize = 1000;
/// How long a search may take where the request does not say, and at most.
const TIME: Duration = Duration::from_secs(5);
const TIME_MAX: Duration = Duration::from_mins(1);

/// `/api/search`, for [`Scope::ReadSearch`]; without `search` it says that this process has no index.
pub fn routes(search: Option<Arc<dyn Search>>) -> Router {
    auth::require(Scope::ReadSearch, Router::new().route("/api/search", post(ask)).with_state(search))
}

/// The request's body.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// What is looked for. Required.
    pub query: String,
    /// Tables to look in; none: all that are indexed.
    pub tables: BTreeSet<String>,
    /// Which arms.
    pub mode: SearchMode,
    /// A SQL predicate.
    pub filter: Option<String>,
    /// Only records from this time on, RFC 3339.
    pub time_from: Option<String>,
    /// Only records before this time, RFC 3339.
    pub time_to: Option<String>,
    /// How much newer records are preferred.
    pub recency: Recency,
    /// False: only what is in the index.
    pub include_hot: Option<bool>,
    /// Per topic and partition the offset that must be findable at least.
    pub at_least: OffsetsByTopic,
    /// Hits at most.
    pub limit: Option<usize>,
    /// Time limit.
    pub timeout_ms: Option<u64>,
}

impl Ask {
    fn request(self) -> Result<SearchRequest> {
        let wrong = |text: String| Error::new(ErrorKind::InvalidRequest, text);
        if self.query.trim().is_empty() {
            return Err(wrong("`query` is empty; write words, a sentence, or a record's id".to_owned()));
        }
        let time = |name: &str, text: Option<String>| {
            let parsed = text.map(|text| DateTime::parse_from_rfc3339(&text).map(|time| time.timestamp_millis()));
            parsed.transpose().map_err(|_| wrong(format!("`{name}` is no time; write it as in 2026-01-31T00:00:00Z")))
        };
        let table = |name: &String| {
            name.parse().map_err(|_| wrong(format!("`{name}` is no table name; write `namespace.name`")))
        };
        Ok(SearchRequest {
            tables: self.tables.iter().map(table).collect::<Result<_>>()?,
            time_from_ms: time("time_from", self.time_from)?,
            time_to_ms: time("time_to", self.time_to)?,
            query: self.query,
            mode: self.mode,
            filter: self.filter,
            recency: self.recency,
            hot: self.include_hot.unwrap_or(true),
            at_least: from_topics(&self.at_least),
            limit: self.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX),
            time: self.timeout_ms.map_or(TIME, Duration::from_millis).min(TIME_MAX),
        })
    }
}

/// The answer's body.
#[derive(Debug, Serialize)]
pub struct Answer {
    hits: Vec<HitView>,
    returned: usize,
    arms: Vec<ArmView>,
    as_of: BTreeMap<String, AsOfView>,
}

#[derive(Debug, Serialize)]
struct HitView {
    id: String,
    table: String,
    tier: Tier,
    score: f64,
    /// RFC 3339.
    event_time: Option<String>,
    snippet: String,
    /// Where words of the query stand in the snippet: begin and end, in characters.
    matches: Vec<[usize; 2]>,
    ranks: BTreeMap<Arm, usize>,
}

#[derive(Debug, Serialize)]
struct ArmView {
    table: String,
    arm: Arm,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    hits: usize,
    ms: f64,
}

impl From<SearchAnswer> for Answer {
    fn from(answer: SearchAnswer) -> Self {
        Self {
            returned: answer.hits.len(),
            hits: answer.hits.into_iter().map(HitView::from).collect(),
            arms: answer.arms.into_iter().map(ArmView::from).collect(),
            as_of: answer.as_of.iter().map(|(table, as_of)| (table.to_string(), as_of.into())).collect(),
        }
    }
}

impl From<Hit> for HitView {
    fn from(hit: Hit) -> Self {
        let characters = |bytes: usize| hit.snippet[..bytes].chars().count();
        let time = hit.time_ms.and_then(DateTime::from_timestamp_millis);
        Self {
            id: hit.id.to_string(),
            table: hit.table.to_string(),
            tier: hit.tier,
            score: hit.score,
            event_time: time.map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            matches: hit.matches.iter().map(|span| [characters(span.start), characters(span.end)]).collect(),
            ranks: hit.ranks,
            snippet: hit.snippet,
        }
    }
}

impl From<ArmReport> for ArmView {
    fn from(report: ArmReport) -> Self {
        let (status, reason) = match report.status {
            ArmStatus::Done => ("done", None),
            ArmStatus::Late => ("late", None),
            ArmStatus::Failed(reason) => ("failed", Some(reason)),
        };
        let ms = report.time.as_secs_f64() * 1000.0;
        Self { table: report.table.to_string(), arm: report.arm, status, reason, hits: report.hits, ms }
    }
}

async fn ask(State(search): State<Option<Arc<dyn Search>>>, body: Result<Json<Ask>, JsonRejection>) -> Response {
    let Some(search) = search else {
        let text = "this process keeps no index; start it with the role `index`, or ask one that has it";
        return Refusal::new(StatusCode::NOT_FOUND, "no_index", text).into_response();
    };
    let ask = match body {
        Ok(Json(ask)) => ask,
        Err(wrong) => {
            return Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", wrong.body_text()).into_response();
        }
    };
    let found = async { search.search(ask.request()?).await }.await;
    match found {
        Ok(answer) => Json(Answer::from(answer)).into_response(),
        Err(error) => refusal(&error).into_response(),
    }
}
