//! What librdkafka calls back: rebalances, errors, logs, tokens. It only notes them; the poll thread acts.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;

use super::auth::MskIam;
use crate::model::ids::TopicPartition;

/// What the group decided and the process has not acknowledged yet.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke { partitions: Vec<TopicPartition>, lost: bool },
}

/// State shared by librdkafka's callbacks and the rest of this adapter.
pub(super) struct Context {
    rebalances: Mutex<VecDeque<Rebalance>>,
    trouble: Mutex<Option<String>>,
    in_trouble: AtomicBool,
    closing: AtomicBool,
    bootstrap_servers: String,
    iam: Option<MskIam>,
}

impl Context {
    pub(super) fn new(bootstrap_servers: &str, iam: Option<MskIam>) -> Self {
        Self {
            rebalances: Mutex::default(),
            trouble: Mutex::default(),
            in_trouble: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            bootstrap_servers: bootstrap_servers.to_owned(),
            iam,
        }
    }

    /// Where the brokers are found that say which others there are.
    pub(super) fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// The oldest rebalance that waits to be acted on. librdkafka sends no next one before it is acknowledged, unless
    /// the assignment was lost meanwhile.
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        lock(&self.rebalances).pop_front()
    }

    /// From now on rebalances are acknowledged at once.
    pub(super) fn set_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// What keeps the process from its brokers, as far as known.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Notes that brokers cannot be used; logged once until they can.
    pub(super) fn set_trouble(&self, reason: &str) {
        let before = lock(&self.trouble).replace(reason.to_owned());
        if !self.in_trouble.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "kafka cannot be used for now, waiting");
        } else if before.as_deref() != Some(reason) {
            tracing::debug!(reason, "kafka still cannot be used");
        }
    }

    /// Notes that a broker has just answered. Called per batch: one load in the usual case.
    pub(super) fn clear_trouble(&self) {
        if self.in_trouble.load(Ordering::Relaxed) && self.in_trouble.swap(false, Ordering::Relaxed) {
            *lock(&self.trouble) = None;
            tracing::info!("kafka answers again");
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // Connection failures are repeated per broker and try; what matters of them comes through `error`.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{text}");
            }
            _ => tracing::debug!(target: "librdkafka", facility, "{text}"),
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.set_trouble(&format!("{}: {reason}", code_name(&error)));
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        let Some(iam) = &self.iam else {
            return Err("set `sasl.oauthbearer.method` to `oidc` or `aws_msk_iam`".into());
        };
        Ok(iam.token().inspect_err(|error| self.set_trouble(&error.chain()))?)
    }
}

impl ConsumerContext for Context {
    /// Only notes it. librdkafka waits for the assign call that acknowledges it, which comes from the poll loop: so a
    /// revoke can wait for the tables' drivers while that loop goes on polling and delivering.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Relaxed) {
            // While it terminates, librdkafka takes any assign call as "unassign all", under either protocol.
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "unassign on close");
            }
            return;
        }
        let partitions: Vec<_> =
            partitions.elements().iter().map(|p| TopicPartition::new(p.topic(), p.partition())).collect();
        let rebalance = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(partitions),
            _ => Rebalance::Revoke { partitions, lost: consumer.assignment_lost() },
        };
        lock(&self.rebalances).push_back(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "the group's offsets, a hint for lag tools, were not stored");
        }
    }
}

fn code_name(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| format!("{code:?}"))
}

/// The value, whatever panicked while it was locked: each of these is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
