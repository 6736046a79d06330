//! Questions to the brokers on behalf of a command. They join no consumer group, so that a running service keeps its
//! partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::view::span;
use crate::app;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kafka::{Kafka, TableSource};
use crate::model::ids::TopicPartition;
use crate::ports::{Source as _, TopicFacts, Watermarks};
use crate::runtime::budget::Budget;
use crate::runtime::clock::Clock;

/// How long a service may take for one answer: several round trips of a slow network, and short for who waits.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The brokers, for questions only.
pub(super) struct Topics {
    kafka: Kafka,
    source: Arc<TableSource>,
    clock: Clock,
}

/// A topic as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicNow {
    /// Identity and partitions.
    pub(super) facts: TopicFacts,
    /// What can be read of each partition that has a leader.
    pub(super) ranges: BTreeMap<TopicPartition, Watermarks>,
}

impl Topics {
    /// # Errors
    /// `InvalidConfig` where librdkafka refuses a property.
    pub(super) fn open(config: &Config, clock: &Clock) -> Result<Self> {
        let kafka = Kafka::open(&app::kafka_options(config, 1), clock.clone())?;
        // A table without topics subscribes to nothing and so joins no group.
        let (source, _) = kafka.add_table(Vec::new(), Budget::new("questions", 1))?;
        Ok(Self { kafka, source, clock: clock.clone() })
    }

    /// Whether a broker answers.
    ///
    /// # Errors
    /// `Unavailable` or `Denied`, with what librdkafka complains of.
    pub(super) async fn ping(&self) -> Result<()> {
        let answer = limited(&self.clock, "kafka brokers", self.kafka.ping()).await;
        answer.map_err(|error| match self.kafka.broker_trouble() {
            Some(trouble) if !error.to_string().contains(&trouble) => {
                Error::new(error.kind(), format!("{error}: {trouble}"))
            }
            _ => error,
        })
    }

    /// The names of all topics.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    pub(super) async fn all(&self) -> Result<BTreeSet<String>> {
        limited(&self.clock, "kafka brokers", self.source.topics()).await
    }

    /// A topic as it is now; `None` where there is none.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    pub(super) async fn now(&self, topic: &str) -> Result<Option<TopicNow>> {
        let what = format!("topic `{topic}`");
        let Some(facts) = limited(&self.clock, &what, self.source.topic(topic)).await? else { return Ok(None) };
        let partitions: Vec<_> =
            facts.partitions.iter().map(|partition| TopicPartition::new(topic, *partition)).collect();
        let ranges = limited(&self.clock, &what, self.source.watermarks(&partitions)).await?;
        Ok(Some(TopicNow { facts, ranges }))
    }
}

/// The answer, waited for [`ANSWER_LIMIT`] at most.
pub(super) async fn limited<T>(clock: &Clock, what: &str, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let waited = clock.timeout(ANSWER_LIMIT, answer).await;
    waited.unwrap_or_else(|| Err(Error::unavailable(format!("{what}: no answer within {}", span(ANSWER_LIMIT)))))
}
