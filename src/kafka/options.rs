//! What the adapter is opened with, and the librdkafka properties made of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use tokio::runtime::Handle;

use super::auth::MskIam;
use crate::error::{Error, Result};
use crate::runtime::clock::Clock;

/// How to take part in the group.
///
/// `properties` are librdkafka's, and two of Frazil's own for Amazon MSK: `sasl.oauthbearer.method=aws_msk_iam` (or
/// `frazil.aws.msk.iam=true`) signs in by IAM with the standard credential chain, `frazil.aws.region` overrides the
/// chain's region.
#[derive(Clone)]
pub struct Options {
    /// `host:port`, several by commas.
    pub bootstrap_servers: String,
    /// The consumer group.
    pub group_id: String,
    /// Further properties; secret.
    pub properties: BTreeMap<String, String>,
    /// Tables that share `read_budget_bytes`; one added beyond takes another share.
    pub tables: usize,
    /// Bytes that librdkafka may hold fetched ahead, of all tables together.
    pub read_budget_bytes: usize,
    /// An arena is handed on when it has this many bytes …
    pub batch_bytes: usize,
    /// … or its first record has waited this long.
    pub batch_linger: Duration,
    /// How long a revoke waits for the drivers.
    pub revoke_timeout: Duration,
}

/// Set by Frazil because its correctness rests on them.
const OWNED: [(&str, &str); 5] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
];

/// Better than librdkafka's defaults for this use; properties override them.
const DEFAULTS: [(&str, &str); 7] = [
    ("client.id", "frazil"),
    ("isolation.level", "read_committed"),
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "100"),
    // How long a partition rests once the queue was full: a second by default, far too long for a small queue.
    ("fetch.queue.backoff.ms", "10"),
    // New partitions are seen within this time.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("reconnect.backoff.max.ms", "5000"),
];

/// Properties that a producer has no use for.
const CONSUMERS_ONLY: [&str; 19] = [
    "allow.auto.create.topics",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "session.timeout.ms",
];

const MSK_IAM: &str = "frazil.aws.msk.iam";
const AWS_REGION: &str = "frazil.aws.region";
const OAUTH_METHOD: &str = "sasl.oauthbearer.method";

impl Options {
    /// Defaults for everything but the address and the group.
    #[must_use]
    pub fn new(bootstrap_servers: impl Into<String>, group_id: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            group_id: group_id.into(),
            properties: BTreeMap::new(),
            tables: 1,
            read_budget_bytes: 64 << 20,
            batch_bytes: 1 << 20,
            batch_linger: Duration::from_millis(20),
            revoke_timeout: Duration::from_secs(30),
        }
    }

    /// The IAM sign-in, where it is asked for.
    pub(super) fn msk_iam(&self, clock: &Clock) -> Result<Option<MskIam>> {
        if !self.is_msk_iam() {
            return Ok(None);
        }
        let runtime = Handle::try_current().map_err(|e| Error::bug("kafka opened outside a runtime").with_source(e))?;
        Ok(Some(MskIam::new(self.properties.get(AWS_REGION).cloned(), clock.clone(), runtime)))
    }

    fn is_msk_iam(&self) -> bool {
        let is = |key: &str, value: &str| self.properties.get(key).is_some_and(|held| held == value);
        is(MSK_IAM, "true") || is(OAUTH_METHOD, "aws_msk_iam")
    }

    pub(super) fn client_config(&self) -> Result<ClientConfig> {
        let mut config = ClientConfig::new();
        // Logs go through `Context::log`, which filters them.
        config.set_log_level(RDKafkaLogLevel::Info);
        for (key, value) in DEFAULTS {
            config.set(key, value);
        }
        self.set_memory(&mut config);
        if self.properties.get("group.protocol").is_none_or(|protocol| protocol == "classic") {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        if self.is_msk_iam() {
            config.set("security.protocol", "SASL_SSL").set("sasl.mechanism", "OAUTHBEARER");
        }
        for (key, value) in &self.properties {
            if [MSK_IAM, AWS_REGION].contains(&key.as_str()) || (key == OAUTH_METHOD && value == "aws_msk_iam") {
                continue;
            }
            if let Some((_, needed)) = OWNED.iter().find(|(owned, needed)| owned == key && needed != value) {
                return Err(Error::invalid_config(format!("kafka property `{key}` must be `{needed}`; leave it out")));
            }
            if key == "bootstrap.servers" || key == "group.id" {
                return Err(Error::invalid_config(format!(
                    "kafka property `{key}` has a setting of its own; use that"
                )));
            }
            config.set(key, value);
        }
        for (key, value) in OWNED {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers).set("group.id", &self.group_id);
        Ok(config)
    }

    /// The same for a producer, which does not know what only consumers have.
    pub(super) fn producer_config(&self) -> Result<ClientConfig> {
        let mut config = self.client_config()?;
        for key in CONSUMERS_ONLY {
            config.remove(key);
        }
        Ok(config)
    }

    /// Shares the read budget out. librdkafka counts what it holds per queue, of which there is one per table: it
    /// fetches while there is less than `queued.max.messages.kbytes`, so a fetch of each partition may come on top.
    /// Half of a table's share is for the queue, half for what comes on top; compressed batches count unpacked.
    fn set_memory(&self, config: &mut ClientConfig) {
        let share = self.read_budget_bytes / self.tables.max(1);
        let queue_kib = (share / 2 / 1024).clamp(64, 1 << 20);
        let partition = (share / 16).clamp(64 << 10, 1 << 20);
        // Not below `message.max.bytes`, as librdkafka demands.
        let fetch = (share / 2).clamp(1 << 20, 50 << 20);
        config
            .set("queued.max.messages.kbytes", queue_kib.to_string())
            .set("max.partition.fetch.bytes", partition.to_string())
            .set("fetch.max.bytes", fetch.to_string());
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("group_id", &self.group_id)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("read_budget_bytes", &self.read_budget_bytes)
            .finish_non_exhaustive()
    }
}

/// The configuration error in librdkafka's words, which name the property; never its value, which may be secret.
pub(super) fn refused(error: &KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, _, key, _) => {
            Error::invalid_config(format!("kafka property `{key}` is unknown or its value is refused"))
        }
        KafkaError::ClientCreation(reason) => Error::invalid_config(format!("kafka properties: {reason}")),
        other => Error::invalid_config("kafka properties").with_source(other.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_override_defaults_but_not_what_is_owned() {
        let with = |key: &str, value: &str| {
            let mut options = Options::new("b:1", "g");
            options.properties.insert(key.to_owned(), value.to_owned());
            options.client_config()
        };
        assert_eq!(with("fetch.wait.max.ms", "7").unwrap().get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(with("auto.offset.reset", "error").unwrap().get("auto.offset.reset"), Some("error"));
        for key in ["auto.offset.reset", "enable.auto.commit", "group.id"] {
            let text = with(key, "earliest").unwrap_err().to_string();
            assert!(text.contains(key), "{text}");
        }
        assert_eq!(with("group.protocol", "consumer").unwrap().get("partition.assignment.strategy"), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut options = Options::new("b:1", "g");
        options.properties.insert("sasl.password".to_owned(), "hunter2".to_owned());
        let text = format!("{options:?}");
        assert!(text.contains("sasl.password") && !text.contains("hunter2"), "{text}");
    }
}
