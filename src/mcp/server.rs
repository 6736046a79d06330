//! The protocol: both of its eras through rmcp, who calls, and which tools and resources that one sees.

use std::sync::Arc;

use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, ListResourcesResult,
    ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ResourceContents, ServerCapabilities, ServerConfig, Tool as WireTool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::call::Desk;
use super::guard::limits::{Turn, Usage};
use super::guard::{Caller, Used};
use super::resources;
use super::tools::{self, Tool, nearest};
use super::view::{Object, shortened};
use super::{Limits, Options, Ports};
use crate::http::auth::{Principal, Scope};
use crate::runtime::clock::Clock;

/// How long clients may keep the lists of tools and resources.
const LIST_TTL_MS: u64 = 60_000;
/// Characters kept of what a client calls itself.
const CLIENT_CHARS: usize = 100;
/// Requests turned away at the door that are written down in a minute; a flood is not to fill the disk.
const TURNED_AWAY_PER_MINUTE: u32 = 60;

const INSTRUCTIONS: &str = "Frazil turns Kafka topics into Iceberg tables; all tools only read. Begin with list_datasets, then \
                            describe_dataset for the columns of a table and a query that works. query_sql sees records within \
                            a fraction of a second after they are produced. Every answer says how far it reaches (as_of) and \
                            what was left out (truncated, warnings). Errors say what to do next.";

/// Where a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    /// Behind the listener, which says who calls.
    Http,
    /// By whoever started the process, who may do what the process may.
    Stdio,
}

/// The server; clones share it.
#[derive(Clone)]
pub(super) struct McpServer {
    face: Face,
    desk: Arc<Desk>,
    turned_away: Usage,
}

impl McpServer {
    pub(super) fn new(face: Face, ports: Ports, options: Options, clock: Clock) -> Self {
        let limits =
            Limits { calls_per_minute: TURNED_AWAY_PER_MINUTE, calls_at_once: u32::MAX, time: options.limits.time };
        let turned_away = Usage::new(limits, clock.clone());
        Self { face, desk: Arc::new(Desk::new(ports, options, clock)), turned_away }
    }

    /// Writes down that a request was turned away before it was read.
    pub(super) fn turned_away(&self, principal: Option<&str>, status: u16) {
        let Ok(_turn) = self.turned_away.admit(&"".into()) as Result<Turn, _> else { return };
        let caller = Caller { principal: principal.unwrap_or_default().into(), client: String::new(), trace: None };
        let verdict = if status == 401 { "unauthorized" } else { "turned_away" };
        if let Err(error) = self.desk.entry(&caller, "", &Object::new()).close(verdict, Used::default()) {
            tracing::error!(error = %error.chain(), "a request that was turned away was not written down");
        }
    }

    fn principal(&self, context: &RequestContext<RoleServer>) -> Result<Principal, ErrorData> {
        if self.face == Face::Stdio {
            return Ok(Principal { name: "stdio".into(), scopes: [Scope::Admin].into() });
        }
        let known = context.extensions.get::<Parts>().and_then(|parts| parts.extensions.get::<Principal>());
        known.cloned().ok_or_else(|| ErrorData::invalid_request("nobody has said who calls", None))
    }

    fn tool(&self, name: &str) -> Option<&'static Tool> {
        self.desk.tools.iter().copied().find(|tool| tool.name == name)
    }

    fn wire(&self, tool: &Tool) -> WireTool {
        tools::wire(tool, &self.desk.schemas[tool.name])
    }
}

/// Who calls, for the audit.
fn caller(principal: &Principal, context: &RequestContext<RoleServer>) -> Caller {
    // Over HTTP without sessions a request of the older protocol says who its client is by this header alone.
    let parts = context.extensions.get::<Parts>();
    let info = if parts.is_some() { context.meta.client_info() } else { context.client_info() };
    let agent = || parts?.headers.get(USER_AGENT)?.to_str().ok().map(str::to_owned);
    let client = info.map(|info| format!("{} {}", info.name, info.version)).or_else(agent);
    let trace = context.meta.get("traceparent").and_then(|trace| trace.as_str());
    Caller {
        principal: Arc::clone(&principal.name),
        client: shortened(&client.unwrap_or_default(), CLIENT_CHARS),
        trace: trace.map(|trace| shortened(trace, CLIENT_CHARS)),
    }
}

fn cancelled() -> ErrorData {
    ErrorData::internal_error("cancelled", None)
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        let name = Implementation::new("frazil", env!("CARGO_PKG_VERSION")).with_title("Frazil");
        ServerConfig::new(capabilities).with_server_info(name).with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<WireTool> {
        self.tool(name).map(|tool| self.wire(tool))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let principal = self.principal(&context)?;
        let tools = self.desk.tools.iter().filter(|tool| tool.is_open_to(&principal)).map(|tool| self.wire(tool));
        // What is listed depends on who asks.
        Ok(ListToolsResult::with_all_items(tools.collect())
            .with_ttl_ms(LIST_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let principal = self.principal(&context)?;
        let caller = caller(&principal, &context);
        let arguments = request.arguments.unwrap_or_default();
        let Some(tool) = self.tool(&request.name) else {
            let name = shortened(&request.name, CLIENT_CHARS);
            let near = nearest(&name, self.desk.tools.iter().map(|tool| tool.name));
            let written = self.desk.entry(&caller, &name, &arguments).close("unknown_tool", Used::default());
            written.map_err(|error| ErrorData::internal_error(error.chain(), None))?;
            let text = match near.is_empty() {
                true => format!("unknown tool `{name}`; tools/list names those that there are"),
                false => format!("unknown tool `{name}`; there is {}", near.join(", ")),
            };
            return Err(ErrorData::invalid_params(text, None));
        };
        // A client that is gone, or has cancelled, ends what its call has begun.
        let call = context.ct.run_until_cancelled(self.desk.call(tool, &principal, &caller, arguments));
        let outcome = call.await.ok_or_else(cancelled)?;
        let result = match outcome.is_error {
            false => CallToolResult::structured(outcome.value),
            true => CallToolResult::structured_error(outcome.value),
        };
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        self.principal(&context)?;
        Ok(ListResourcesResult::with_all_items(resources::list())
            .with_ttl_ms(LIST_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let principal = self.principal(&context)?;
        let caller = caller(&principal, &context);
        let read = context.ct.run_until_cancelled(resources::read(&self.desk, &principal, &caller, &request.uri));
        let (kind, text) = read.await.ok_or_else(cancelled)??;
        let contents = ResourceContents::text(text, request.uri).with_mime_type(kind);
        Ok(ReadResourceResult::new(vec![contents]).with_cache_scope(CacheScope::Private).into())
    }
}
