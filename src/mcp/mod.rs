//! The MCP server: what agents ask of tables, topics and indexes, over HTTP at [`PATH`] and over standard input and
//! output. Reading order: `server` (the protocol), `call` (one call from its arguments to its answer), `tools`, `view`
//! (what goes out, and how it is kept small), `guard` (who may use how much, and what is written down).
//!
//! It only reads, and knows data by ports alone. Roots, sampling, logging and sessions are not built on: the newest
//! protocol has none of them, and the older ones work without.

mod arguments;
mod call;
mod cursor;
mod guard;
mod resources;
mod server;
mod sql;
#[cfg(test)]
mod tests;
mod tools;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use rmcp::ServiceExt as _;
use rmcp::transport::io::stdio_pipes;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

use crate::error::{Error, Result};
use crate::http::auth::{Principal, Scope, require_any};
use crate::ports::{Datasets, LakeReader, Legible, Peek, Registry, Search, Sql, SqlLimits};
use crate::runtime::clock::Clock;

pub use guard::audit::verify as verify_audit;

use server::{Face, McpServer};

/// Where it is served.
pub const PATH: &str = "/mcp";

/// Bytes of a request; the longest is a SQL statement.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Whoever has one of these may use the server, each tool by its own.
const SCOPES: &[Scope] = &[Scope::ReadSearch, Scope::ReadSql, Scope::ReadKafka];

/// What the tools ask.
#[derive(Clone)]
pub struct Ports {
    /// SQL.
    pub sql: Arc<dyn Sql>,
    /// Tables' states and snapshots.
    pub lake: Arc<dyn LakeReader>,
    /// What tables there are and how far they have got.
    pub datasets: Arc<dyn Datasets>,
    /// Search, where there is an index.
    pub search: Option<Arc<dyn Search>>,
    /// Looks into topics.
    pub peek: Arc<dyn Peek>,
    /// Makes what is seen there legible.
    pub legible: Arc<dyn Legible>,
    /// The schema registry, where there is one.
    pub registry: Option<Arc<dyn Registry>>,
}

/// How it is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names and addresses that the `Host` of a request may have, against DNS rebinding.
    pub allowed_hosts: Vec<String>,
    /// Origins that a browser may call from, with `*` for any port.
    pub allowed_origins: Vec<String>,
    /// Where calls and refusals are written down; made with the first of them.
    pub audit_file: PathBuf,
    /// What one principal may use.
    pub limits: Limits,
    /// What one query may use.
    pub sql: SqlLimits,
    /// Said in every answer.
    pub note: Option<String>,
}

/// What one principal may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls in a minute.
    pub calls_per_minute: u32,
    /// Calls at once.
    pub calls_at_once: u32,
    /// Time of one call.
    pub time: Duration,
}

/// [`PATH`], for principals with one of the scopes that read.
///
/// Requests of the protocol from 2026-07-28 on are complete in themselves, and those of the older ones are answered
/// without sessions too: each carries its own token, and any replica can answer it.
pub fn routes(ports: Ports, options: Options, clock: Clock) -> Router {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(BODY_BYTES_MAX)
        .with_allowed_hosts(options.allowed_hosts.clone())
        .with_allowed_origins(options.allowed_origins.clone())
        .enforce_origin_validation();
    let server = McpServer::new(Face::Http, ports, options, clock);
    let answers = server.clone();
    let service =
        StreamableHttpService::new(move || Ok(answers.clone()), Arc::new(NeverSessionManager::default()), config);
    let routes = require_any(SCOPES, Router::new().route_service(PATH, service));
    routes.route_layer(from_fn(move |request: Request, next: Next| {
        let server = server.clone();
        async move {
            let principal = request.extensions().get::<Principal>().map(|principal| Arc::clone(&principal.name));
            let response = next.run(request).await;
            if [401, 403].contains(&response.status().as_u16()) {
                server.turned_away(principal.as_deref(), response.status().as_u16());
            }
            response
        }
    }))
}

/// Serves whoever started this process, on standard input and output, until they close it.
///
/// # Errors
/// `InvalidRequest` where what comes is not the protocol.
pub async fn stdio(ports: Ports, options: Options, clock: Clock) -> Result<()> {
    let server = McpServer::new(Face::Stdio, ports, options, clock);
    let begun = server.serve(stdio_pipes()).await;
    let running = begun.map_err(|e| Error::invalid_request("speak MCP on standard input").with_source(e))?;
    running.waiting().await.map_err(|e| Error::bug("the MCP server panicked").with_source(e))?;
    Ok(())
}
