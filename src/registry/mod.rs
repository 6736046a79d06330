//! The Schema Registry client: what is cached, for how long, and that one question is asked once at a time. How a
//! question is asked over HTTP lives in `client`; what a schema means does not live here.

mod client;
#[cfg(test)]
#[cfg(feature = "http")]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex as AsyncMutex;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::ports::{RegisteredSchema, Registry};
use crate::runtime::clock::Clock;

use client::Client;

/// Answers kept at once; beyond it all that nobody is waiting for are dropped. 10,000 schemas of 10 KiB are 100 MiB.
const ANSWERS_MAX: usize = 10_000;
/// How long "no such" is believed: a producer registers its schema right before its first record.
const ABSENT_TTL: Duration = Duration::from_secs(10);
/// How long the newest schema of a subject is believed to be the newest.
const LATEST_TTL: Duration = Duration::from_secs(5);
/// How long a failure answers: it is for those who waited for the same request, so that they do not each run into
/// the same time-out in turn. Shorter than any caller's backoff.
const FAILURE_TTL: Duration = Duration::from_millis(50);

/// Where the registry is and how to talk to it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Base addresses of one registry, in order of preference; paths are kept. User and password in an address are
    /// used for that address where `auth` is `None`.
    pub urls: Vec<Url>,
    /// Credentials.
    pub auth: Auth,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate chain, for mutual TLS.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Bound of one request to one address, connecting included.
    pub timeout: Duration,
}

/// Credentials for the registry. `Debug` never shows a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// None.
    None,
    /// HTTP basic authentication.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::Bearer(_) => "Bearer",
        })
    }
}

/// A [`Registry`] behind the Confluent REST API. Answers by id and GUID are kept for ever, "no such" for 10 s, the newest
/// schema of a subject for 5 s; concurrent questions for the same thing make one request.
pub struct RegistryClient {
    client: Client,
    /// [`Clock::elapsed`], or what a test says that it is.
    elapsed: Box<dyn Fn() -> Duration + Send + Sync>,
    slots: Mutex<HashMap<Question, Arc<Slot>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Question {
    Id(u32),
    Guid(Uuid),
    Latest(String),
}

/// One question's place: whoever asks holds the lock, and so all others wait for the one request in flight.
type Slot = AsyncMutex<Option<Known>>;
type Answer = Option<Arc<RegisteredSchema>>;

#[derive(Debug, Clone)]
struct Known {
    answer: Result<Answer, (ErrorKind, String)>,
    /// By [`Clock::elapsed`]; `None`: for ever.
    until: Option<Duration>,
}

impl RegistryClient {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// `InvalidConfig` where there is no address, an address is not http or https, or a TLS file cannot be used.
    pub fn new(options: &Options, clock: Clock) -> Result<Self> {
        Self::with_time(options, move || clock.elapsed())
    }

    fn with_time(options: &Options, elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Result<Self> {
        Ok(Self { client: Client::new(options)?, elapsed: Box::new(elapsed), slots: Mutex::default() })
    }

    async fn ask(&self, question: Question) -> Result<Answer> {
        let slot = self.slot(&question);
        let mut known = slot.lock().await;
        let now = (self.elapsed)();
        if let Some(Known { answer, until }) = known.as_ref()
            && until.is_none_or(|until| now < until)
        {
            return answer.clone().map_err(|(kind, text)| Error::new(kind, text));
        }
        let answer = match &question {
            Question::Id(id) => self.client.by_id(*id).await,
            Question::Guid(guid) => self.client.by_guid(*guid).await,
            Question::Latest(subject) => self.client.latest(subject).await,
        };
        let ttl = match (&question, &answer) {
            (Question::Id(_) | Question::Guid(_), Ok(Some(_))) => None,
            (Question::Latest(_), Ok(Some(_))) => Some(LATEST_TTL),
            (_, Ok(None)) => Some(ABSENT_TTL),
            (_, Err(_)) => Some(FAILURE_TTL),
        };
        let kept = answer.as_ref().map(Clone::clone).map_err(|error| (error.kind(), error.chain()));
        *known = Some(Known { answer: kept, until: ttl.map(|ttl| (self.elapsed)() + ttl) });
        answer
    }

    fn slot(&self, question: &Question) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= ANSWERS_MAX && !slots.contains_key(question) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(question.clone()).or_default())
    }
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryClient").field("client", &self.client).finish_non_exhaustive()
    }
}

#[async_trait]
impl Registry for RegistryClient {
    async fn schema(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>> {
        self.ask(Question::Id(id)).await
    }

    async fn schema_by_guid(&self, guid: Uuid) -> Result<Option<Arc<RegisteredSchema>>> {
        self.ask(Question::Guid(guid)).await
    }

    async fn latest(&self, subject: &str) -> Result<Option<Arc<RegisteredSchema>>> {
        self.ask(Question::Latest(subject.to_owned())).await
    }
}
