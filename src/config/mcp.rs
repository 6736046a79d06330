//! The section `mcp`, checked. What it leads to is `mcp`'s.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::resolve::{invalid, positive};
use super::settings::McpSettings;
use super::units::{Number, Size, Span};
use crate::error::Result;

/// The MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpConfig {
    /// Host names that requests may carry, beside those of loopback and the listener's own address.
    pub allowed_hosts: Vec<String>,
    /// Origins of browsers that may call, beside those of loopback.
    pub allowed_origins: Vec<String>,
    /// Where every call and refusal is written down.
    pub audit_file: PathBuf,
    /// Calls of one principal in a minute.
    pub calls_per_minute: u32,
    /// Calls of one principal at once.
    pub calls_at_once: u32,
    /// How long one call may take.
    pub timeout: Duration,
    /// Bytes of data files that one call may read.
    pub max_scan: u64,
}

pub(super) fn resolve_mcp(written: &McpSettings) -> Result<McpConfig> {
    let number =
        |key: &str, written: Option<Number<u32>>, default| positive(key, written.map(|Number(number)| number), default);
    let allowed_hosts = written.allowed_hosts.clone().unwrap_or_default();
    if let Some(host) = allowed_hosts.iter().find(|host| host.is_empty() || host.contains(['/', '*', ' '])) {
        let problem = format!("`{host}` is no host; write a name, or a name and a port, as in `frazil.example.com`");
        return Err(invalid("mcp.allowed_hosts", &problem));
    }
    let allowed_origins = written.allowed_origins.clone().unwrap_or_default();
    if let Some(origin) = allowed_origins.iter().find(|origin| !is_origin(origin)) {
        let problem = format!(
            "`{origin}` is no origin with a port; write scheme, host and port, as in `https://app.example.com:443`, \
             with `*` for any port"
        );
        return Err(invalid("mcp.allowed_origins", &problem));
    }
    Ok(McpConfig {
        allowed_hosts,
        allowed_origins,
        audit_file: written.audit_file.as_deref().unwrap_or("frazil/audit.jsonl").into(),
        calls_per_minute: number("mcp.calls_per_minute", written.calls_per_minute, 240)?,
        calls_at_once: number("mcp.calls_at_once", written.calls_at_once, 8)?,
        timeout: positive("mcp.timeout", written.timeout.map(|Span(span)| span), Duration::from_secs(30))?,
        max_scan: positive("mcp.max_scan", written.max_scan.map(|Size(bytes)| bytes), 10 << 30)?,
    })
}

fn is_origin(text: &str) -> bool {
    let Some((base, port)) = text.rsplit_once(':') else { return false };
    let port = port == "*" || port.parse::<u16>().is_ok();
    let url = Url::parse(base).ok().filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
    port && url.is_some_and(|url| url.path() == "/" && url.query().is_none() && !base.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_a_scheme_and_a_port() {
        for (text, is) in [
            ("https://app.example.com:443", true),
            ("http://localhost:*", true),
            ("http://[::1]:8080", true),
            ("https://app.example.com", false),
            ("app.example.com:443", false),
            ("ftp://app.example.com:21", false),
            ("https://app.example.com/x:443", false),
            ("*", false),
        ] {
            assert_eq!(is_origin(text), is, "{text}");
        }
    }
}
