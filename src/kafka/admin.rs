//! Questions to the brokers: topics, readable ranges, offsets by time. Each blocks a thread of tokio's blocking pool.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;

use super::native::{Consumer, OffsetSpec, add_brokers, describe_topic, list_offsets};
use super::table::kind;
use crate::error::{Error, Result};
use crate::model::ids::TopicPartition;
use crate::model::offsets::NextOffset;
use crate::ports::{TopicFacts, Watermarks};

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What the broker says of `topic`.
pub(super) fn topic(consumer: &Arc<Consumer>, topic: &str) -> Result<Option<TopicFacts>> {
    let metadata =
        metadata(consumer, Some(topic)).map_err(|code| failed(code, &format!("fetch metadata of topic `{topic}`")))?;
    let description = match describe_topic(consumer, topic, metadata.orig_broker_id(), LIMIT) {
        Ok(description) => description,
        Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Err(code) => return Err(failed(code, &format!("describe topic `{topic}`"))),
    };
    consumer.context().clear_trouble();
    let cluster_id = consumer.client().fetch_cluster_id(LIMIT).unwrap_or_default();
    Ok(Some(TopicFacts { cluster_id, topic_id: description.topic_id, partitions: description.partitions }))
}

/// The readable ranges of the partitions that the brokers know.
pub(super) fn watermarks(
    consumer: &Arc<Consumer>,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, Watermarks>> {
    // The low end first and the high end last: what is written between the answers widens the range.
    let low = offsets(consumer, partitions, OffsetSpec::Earliest, false)?;
    let stable = offsets(consumer, partitions, OffsetSpec::Latest, true)?;
    let high = offsets(consumer, partitions, OffsetSpec::Latest, false)?;
    let range = |(source, low): (TopicPartition, NextOffset)| {
        let (stable, high) = (*stable.get(&source)?, *high.get(&source)?);
        Some((source, Watermarks { low, stable, high }))
    };
    Ok(low.into_iter().filter_map(range).collect())
}

/// Per partition the first stable offset at or after that time, or the stable end where there is none: records of
/// transactions that are still open lie behind it and will be read.
pub(super) fn offsets_at(
    consumer: &Arc<Consumer>,
    partitions: &[TopicPartition],
    timestamp_ms: i64,
) -> Result<BTreeMap<TopicPartition, NextOffset>> {
    // The ends first: a record written between the two answers is then found by its time or lies behind the end.
    let mut found = offsets(consumer, partitions, OffsetSpec::Latest, true)?;
    let at = offsets(consumer, partitions, OffsetSpec::Timestamp(timestamp_ms.max(0)), true)?;
    found.extend(at.into_iter().filter(|(_, next)| next.0 >= 0));
    Ok(found)
}

/// The names of all topics.
pub(super) fn topics(consumer: &Arc<Consumer>) -> Result<BTreeSet<String>> {
    let metadata = metadata(consumer, None).map_err(|code| failed(code, "fetch the list of topics"))?;
    Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
}

/// Whether a broker answers.
pub(super) fn ping(consumer: &Arc<Consumer>) -> Result<()> {
    let metadata = metadata(consumer, None).map_err(|code| {
        let trouble = consumer.context().trouble().unwrap_or_else(|| code.to_string());
        Error::new(kind(code), format!("kafka brokers do not answer: {trouble}"))
    })?;
    consumer.context().clear_trouble();
    tracing::debug!(brokers = metadata.brokers().len(), "kafka answers");
    Ok(())
}

/// Asks any broker. Where none can be asked, the client is told of the bootstrap servers again: a broker that starts
/// answers before it counts itself among the brokers, librdkafka then drops all that the answer does not name, and
/// never comes back by itself (<https://github.com/confluentinc/librdkafka/issues/5301>).
fn metadata(consumer: &Arc<Consumer>, topic: Option<&str>) -> Result<Metadata, RDKafkaErrorCode> {
    consumer.fetch_metadata(topic, LIMIT).map_err(|error| {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        if code == RDKafkaErrorCode::BrokerTransportFailure {
            add_brokers(consumer, consumer.context().bootstrap_servers());
        }
        code
    })
}

fn offsets(
    consumer: &Arc<Consumer>,
    partitions: &[TopicPartition],
    spec: OffsetSpec,
    committed: bool,
) -> Result<BTreeMap<TopicPartition, NextOffset>> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let answers = list_offsets(consumer, partitions, spec, committed, LIMIT)
        .map_err(|code| failed(code, &format!("list offsets of {} partitions", partitions.len())))?;
    let mut found = BTreeMap::new();
    for (source, answer) in answers {
        match answer {
            Ok(next) => drop(found.insert(source, next)),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownPartition) => {}
            Err(code) => return Err(failed(code, &format!("list offsets of `{source}`"))),
        }
    }
    consumer.context().clear_trouble();
    Ok(found)
}

fn failed(code: RDKafkaErrorCode, what: &str) -> Error {
    Error::new(kind(code), format!("{what}: {code}"))
}
