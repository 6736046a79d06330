//! `search`: records by word and by meaning.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::query_sql::moment;
use super::{Tool, chars, max_chars, nearest, number, object, table, text, texts, word};
use crate::http::auth::Scope;
use crate::mcp::call::Call;
use crate::mcp::view::{Answer, Object, Refused, as_of, shortened, time};
use crate::ports::{ArmReport, ArmStatus, Hit, Recency, SearchMode, SearchRequest};

/// Hits where the caller names no number.
const LIMIT: usize = 10;
/// Characters of a snippet in a concise answer.
const SNIPPET_CHARS: usize = 400;
/// The part of a call's time that the search may take.
const TIME_SHARE: u32 = 2;

pub(in crate::mcp) const TOOL: Tool = Tool {
    name: "search",
    description: "Find records by words and meaning, those of the last second included. Give a question, words, or an id. \
                  get_records gives whole records, query_sql counts and aggregates.",
    scopes: &[Scope::ReadSearch],
    schema,
    is_there: |ports| ports.search.is_some(),
    run: |call| Box::pin(run(call)),
};

fn schema() -> Value {
    object(
        &["query"],
        json!({
            "query": text("What to look for: words, a sentence, or topic/partition/offset"),
            "sources": texts(20, "Tables to look in; default: all that are indexed"),
            "mode": word(&["auto", "keyword", "vector", "hybrid"], "auto (default), by word, by meaning, or both"),
            "time_from": text("Only records from this time on, as in 2026-01-31T12:00:00Z"),
            "time_to": text("Only records before this time"),
            "filter": text("SQL predicate over the index's filter columns (describe_dataset), _topic, _partition, _offset, _time"),
            "recency": word(&["none", "mild", "strong"], "How much newer records are preferred, default none"),
            "include_hot": json!({"type": "boolean", "description": "Also records not indexed yet, default true"}),
            "limit": number(1, 50, "Hits, default 10"),
            "response_format": word(&["concise", "detailed"], "detailed: ranks, arms and whole snippets"),
            "max_chars": max_chars(),
        }),
    )
}

#[derive(Deserialize)]
struct Input {
    query: String,
    sources: Option<Vec<String>>,
    mode: Option<SearchMode>,
    time_from: Option<String>,
    time_to: Option<String>,
    filter: Option<String>,
    recency: Option<Recency>,
    include_hot: Option<bool>,
    limit: Option<usize>,
    response_format: Option<String>,
    max_chars: Option<usize>,
}

async fn run(call: Call<'_>) -> Result<Answer, Refused> {
    let input: Input = call.input()?;
    let Some(search) = &call.desk.ports.search else {
        return Err(Refused::new("no_index", "no table is indexed here").next("use query_sql"));
    };
    let indexed: Vec<String> = search.indexes().into_iter().map(|index| index.table.to_string()).collect();
    let mut tables = Vec::new();
    for name in input.sources.iter().flatten() {
        let table = table(&call, "sources", name).await?;
        if !indexed.contains(&table.to_string()) {
            return Err(Refused::new("not_indexed", format!("table `{name}` is not indexed"))
                .field("sources")
                .did_you_mean(nearest(name, indexed.iter().map(String::as_str)))
                .allowed(indexed)
                .next("search the tables that are, or use query_sql with LIKE"));
        }
        tables.push(table);
    }
    let limit = input.limit.unwrap_or(LIMIT);
    let moment = |field, text: &Option<String>| text.as_ref().map(|text| moment(field, text)).transpose();
    let request = SearchRequest {
        query: input.query,
        tables: tables.into_iter().collect(),
        mode: input.mode.unwrap_or_default(),
        filter: input.filter,
        time_from_ms: moment("time_from", &input.time_from)?,
        time_to_ms: moment("time_to", &input.time_to)?,
        recency: input.recency.unwrap_or_default(),
        hot: input.include_hot.unwrap_or(true),
        at_least: BTreeMap::new(),
        // One more than asked for says whether there are more.
        limit: limit + 1,
        time: call.time_left() / TIME_SHARE,
    };
    let mut found = search.search(request).await?;
    let is_detailed = input.response_format.as_deref() == Some("detailed");
    let is_cut = found.hits.len() > limit;
    found.hits.truncate(limit);
    let arms = found.arms.iter().filter(|arm| is_detailed || arm.status != ArmStatus::Done).map(arm).collect();
    let mut answer = Answer::new(as_of(&found.as_of))
        .list("arms", arms)
        .list("hits", found.hits.iter().map(|one| hit(one, is_detailed)).collect());
    for arm in &found.arms {
        match &arm.status {
            ArmStatus::Done => {}
            ArmStatus::Late => answer.warn(format!("{:?} in {} was not done in time", arm.arm, arm.table)),
            ArmStatus::Failed(why) => answer.warn(format!("{:?} in {} failed: {why}", arm.arm, arm.table)),
        }
    }
    if found.hits.is_empty() {
        let looked = found.as_of.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        answer.warn(format!("nothing was found in {looked}; use other words, mode hybrid, or no filter and times"));
    }
    answer.truncated = is_cut;
    answer.chars = chars(input.max_chars);
    answer.rest = "raise limit, or narrow by time or filter";
    Ok(answer)
}

fn hit(hit: &Hit, is_detailed: bool) -> Value {
    let mut item = Object::new();
    let id = hit.id.to_string();
    item.insert("uri".to_owned(), format!("record://{id}").into());
    item.insert("id".to_owned(), id.into());
    item.insert("source".to_owned(), hit.table.to_string().into());
    item.insert("tier".to_owned(), json!(hit.tier));
    item.insert("score".to_owned(), json!((hit.score * 1e6).round() / 1e6));
    item.insert("time".to_owned(), hit.time_ms.map_or(Value::Null, time));
    if is_detailed {
        let ranks = hit.ranks.iter().map(|(arm, rank)| (word_of(json!(arm)), (*rank).into())).collect::<Object>();
        item.insert("ranks".to_owned(), ranks.into());
        item.insert("snippet".to_owned(), hit.snippet.clone().into());
    } else {
        item.insert("snippet".to_owned(), shortened(&hit.snippet, SNIPPET_CHARS).into());
    }
    item.into()
}

fn arm(report: &ArmReport) -> Value {
    let status = match report.status {
        ArmStatus::Done => "done",
        ArmStatus::Late => "late",
        ArmStatus::Failed(_) => "failed",
    };
    json!({
        "table": report.table.to_string(), "arm": report.arm, "status": status, "hits": report.hits,
        "ms": u64::try_from(report.time.as_millis()).unwrap_or(u64::MAX),
    })
}

fn word_of(value: Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
