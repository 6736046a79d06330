//! Who may use how much, and what is written down of it. What a tool may be asked is the tool's matter.

pub(super) mod audit;
pub(super) mod clean;
pub(super) mod limits;
mod redact;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::view::Object;
use crate::error::Result;
use crate::runtime::clock::Clock;
use audit::{Audit, Line};
use redact::redacted;

/// Who calls.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The principal's name.
    pub(super) principal: Arc<str>,
    /// The program, as it calls itself.
    pub(super) client: String,
    /// The trace that the call belongs to, as it says.
    pub(super) trace: Option<String>,
}

/// A call under way. It is written down when it is closed, or as cancelled when it is dropped.
pub(super) struct Entry {
    audit: Arc<Audit>,
    clock: Clock,
    begun: Duration,
    line: Line,
    open: bool,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Items given.
    pub(super) rows: usize,
    /// Bytes of the answer.
    pub(super) bytes: usize,
    /// Bytes of data files read.
    pub(super) scanned_bytes: u64,
}

impl Entry {
    pub(super) fn open(audit: &Arc<Audit>, clock: &Clock, caller: &Caller, tool: &str, arguments: &Object) -> Self {
        let line = Line {
            time_ms: clock.now_ms(),
            id: clock.fresh_id().simple().to_string(),
            principal: caller.principal.to_string(),
            client: caller.client.clone(),
            trace: caller.trace.clone(),
            tool: tool.to_owned(),
            arguments: Value::Object(redacted(arguments)),
            digest: redact::digest(arguments),
            verdict: "cancelled".to_owned(),
            rows: 0,
            bytes: 0,
            scanned_bytes: 0,
            latency_ms: 0.0,
        };
        Self { audit: Arc::clone(audit), clock: clock.clone(), begun: clock.elapsed(), line, open: true }
    }

    /// Writes the call down.
    ///
    /// # Errors
    /// `Unavailable` where that is not possible: the answer is then not to be given.
    pub(super) fn close(mut self, verdict: &str, used: Used) -> Result<()> {
        verdict.clone_into(&mut self.line.verdict);
        (self.line.rows, self.line.bytes, self.line.scanned_bytes) = (used.rows, used.bytes, used.scanned_bytes);
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.open = false;
        let took = self.clock.elapsed().saturating_sub(self.begun);
        self.line.latency_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        self.audit.append(&self.line)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.open
            && let Err(error) = self.write()
        {
            tracing::error!(error = %error.chain(), "a cancelled call was not written down");
        }
    }
}
