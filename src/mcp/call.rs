//! One call: may the caller use the tool, are there too many calls, are the arguments right, what does the tool find,
//! how long may that take; and whatever comes of it is written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cursor::Sealer;
use super::guard::audit::Audit;
use super::guard::limits::Usage;
use super::guard::{Caller, Entry, Used};
use super::tools::{self, Tool};
use super::view::{Answer, Object, Refused};
use super::{Options, Ports, arguments};
use crate::http::auth::{Principal, Scope};
use crate::model::ids::TableName;
use crate::runtime::clock::Clock;

/// What all calls share.
pub(super) struct Desk {
    pub(super) ports: Ports,
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) tools: Vec<&'static Tool>,
    pub(super) schemas: BTreeMap<&'static str, Value>,
    pub(super) sealer: Sealer,
    pub(super) audit: Arc<Audit>,
    usage: Usage,
}

/// One call, as its tool sees it.
pub(super) struct Call<'a> {
    pub(super) desk: &'a Desk,
    pub(super) tool: &'a Tool,
    pub(super) principal: &'a Principal,
    /// Checked against the tool's schema.
    pub(super) arguments: Object,
    /// When it must have ended, on the clock.
    deadline: Duration,
}

/// What goes out: the value, and whether it is a refusal.
pub(super) struct Outcome {
    pub(super) value: Value,
    pub(super) is_error: bool,
}

impl Desk {
    pub(super) fn new(ports: Ports, options: Options, clock: Clock) -> Self {
        let tools: Vec<&'static Tool> = tools::ALL.iter().copied().filter(|tool| (tool.is_there)(&ports)).collect();
        let schemas = tools.iter().map(|tool| (tool.name, (tool.schema)())).collect();
        let (sealer, audit) = (Sealer::new(&clock), Arc::new(Audit::new(options.audit_file.clone())));
        let usage = Usage::new(options.limits, clock.clone());
        Self { ports, options, clock, tools, schemas, sealer, audit, usage }
    }

    /// Opens the record of a call.
    pub(super) fn entry(&self, caller: &Caller, tool: &str, arguments: &Object) -> Entry {
        Entry::open(&self.audit, &self.clock, caller, tool, arguments)
    }

    /// Carries a call out. Dropping the future ends what it began.
    pub(super) async fn call(&self, tool: &Tool, principal: &Principal, caller: &Caller, arguments: Object) -> Outcome {
        let entry = self.entry(caller, tool.name, &arguments);
        let answered = self.answer(tool, principal, arguments).await;
        let (value, verdict, used) = match answered {
            Ok(answer) => {
                let scanned_bytes = answer.scanned_bytes;
                let sent = answer.send();
                let bytes = sent.value.to_string().len();
                (sent.value, "ok", Used { rows: sent.returned, bytes, scanned_bytes })
            }
            Err(refused) => (refused.view(), refused.code, Used::default()),
        };
        match entry.close(verdict, used) {
            Ok(()) => Outcome { value, is_error: verdict != "ok" },
            Err(error) => {
                tracing::error!(error = %error.chain(), "a call was not written down, so its answer is not given");
                let no = Refused::new("no_audit", "the call could not be written down, so its answer is not given");
                let no = no.next("tell the operator: the audit file cannot be written");
                Outcome { value: no.view(), is_error: true }
            }
        }
    }

    async fn answer(&self, tool: &Tool, principal: &Principal, arguments: Object) -> Result<Answer, Refused> {
        if !tool.is_open_to(principal) {
            let scopes = tool.scopes.iter().map(|scope| scope.as_str());
            let text = format!(
                "`{}` may not use `{}`: it needs one of the scopes given as allowed",
                principal.name, tool.name
            );
            return Err(Refused::new("forbidden", text)
                .allowed(scopes)
                .next("use another tool, or ask the operator for a token with that scope"));
        }
        let _turn = self.usage.admit(&principal.name)?;
        let schema = &self.schemas[tool.name];
        let arguments = arguments::check(schema, arguments)?;
        let limit = self.options.limits.time;
        let deadline = self.clock.elapsed() + limit;
        let call = Call { desk: self, tool, principal, arguments, deadline };
        let Some(answer) = self.clock.timeout(limit, (tool.run)(call)).await else {
            let text = format!("the call took longer than {limit:?} and was stopped");
            return Err(
                Refused::new("timeout", text).next("ask for less: fewer names, a narrower filter, a lower limit")
            );
        };
        let mut answer = answer?;
        if let Some(note) = &self.options.note {
            answer.warnings.insert(0, note.clone());
        }
        Ok(answer)
    }
}

impl Call<'_> {
    /// True where the caller may read whole rows of `table`: all tables with SQL, those that are indexed with search.
    pub(super) fn may_read(&self, table: &TableName) -> bool {
        let indexes = || self.desk.ports.search.iter().flat_map(|search| search.indexes());
        self.principal.may(Scope::ReadSql) || indexes().any(|index| index.table == *table)
    }

    /// The arguments in the tool's own type.
    pub(super) fn input<T: DeserializeOwned>(&self) -> Result<T, Refused> {
        serde_json::from_value(Value::Object(self.arguments.clone()))
            .map_err(|error| Refused::new("wrong_arguments", error.to_string()))
    }

    /// The time that is left for it.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_sub(self.desk.clock.elapsed())
    }

    /// What a cursor is bound to: who asks what.
    pub(super) fn question(&self) -> String {
        let asked: BTreeMap<&String, &Value> = self.arguments.iter().filter(|(name, _)| *name != "cursor").collect();
        format!("{}\n{}\n{}", self.principal.name, self.tool.name, serde_json::json!(asked))
    }

    /// Behind what the page asked for begins; none: it is the first.
    pub(super) fn cursor(&self) -> Result<Option<String>, Refused> {
        let cursor = self.arguments.get("cursor").and_then(Value::as_str);
        cursor.map(|cursor| self.desk.sealer.open(&self.question(), cursor)).transpose()
    }

    /// Cursors behind each of `names`.
    pub(super) fn cursors<T: AsRef<str>>(&self, names: impl IntoIterator<Item = T>) -> Vec<String> {
        let question = self.question();
        names.into_iter().map(|name| self.desk.sealer.seal(&question, name.as_ref())).collect()
    }
}
