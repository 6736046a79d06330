//! The running service, as commands ask it: at the listener that the configuration names.

use serde::Serialize;

use crate::config::{Config, process_env};
use crate::error::{Error, ErrorKind, Result};

/// The variable that holds a token for a listener that asks for one.
const TOKEN: &str = "FRAZIL_TOKEN";

/// A service that may be there.
pub(super) struct Service {
    url: String,
    token: Option<String>,
    client: reqwest::Client,
}

impl Service {
    pub(super) fn of(config: &Config) -> Self {
        let scheme = if config.server.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", config.server.listen);
        Self { url, token: process_env(TOKEN), client: reqwest::Client::new() }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// True where it lives.
    pub(super) async fn answers(&self) -> bool {
        let response = self.client.get(format!("{}/livez", self.url)).send().await;
        response.is_ok_and(|response| response.status().is_success())
    }

    /// What to say where it does not live; `instead` is what helps beside starting it.
    pub(super) fn is_away(&self, instead: &str) -> Error {
        Error::unavailable(format!("no service answers at {}; start it with `frazil run`, {instead}", self.url))
    }

    /// Its answer to `body`, where it is no refusal.
    ///
    /// # Errors
    /// `Unavailable`; `Denied` and `InvalidRequest` with the service's own words.
    pub(super) async fn post(&self, path: &str, body: &impl Serialize, accept: &str) -> Result<reqwest::Response> {
        let mut request = self.client.post(format!("{}{path}", self.url)).json(body).header("accept", accept);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await;
        let response = response.map_err(|e| Error::unavailable(format!("ask `{}`", self.url)).with_source(e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let told: serde_json::Value = response.json().await.unwrap_or_default();
        let message = told["error"]["message"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        let kind = match status.as_u16() {
            401 | 403 => ErrorKind::Denied,
            503 => ErrorKind::Unavailable,
            _ => ErrorKind::InvalidRequest,
        };
        Err(Error::new(kind, message))
    }
}
