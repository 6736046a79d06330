//! Which record: the identity that a row has from its topic, and its one spelling for people.

use std::fmt;
use std::str::FromStr;

use super::ids::TopicPartition;
use crate::error::{Error, ErrorKind};

/// A record's place in Kafka, written `topic/partition/offset`, or `topic@1/partition/offset` where the topic was made
/// anew once: `@` stands in no topic's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Topic and partition.
    pub source: TopicPartition,
    /// How often the topic was declared made anew before it.
    pub incarnation: i32,
    /// Its offset.
    pub offset: i64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source.topic)?;
        if self.incarnation > 0 {
            write!(f, "@{}", self.incarnation)?;
        }
        write!(f, "/{}/{}", self.source.partition, self.offset)
    }
}

impl FromStr for RecordId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            || Error::new(ErrorKind::InvalidRequest, format!("`{text}` is not of the form topic/partition/offset"));
        let mut parts = text.rsplitn(3, '/');
        let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
        let number = |part: Option<&str>| part.and_then(|part| part.parse::<i64>().ok()).filter(|number| *number >= 0);
        let (Some(offset), Some(partition)) = (number(offset), number(partition)) else { return Err(wrong()) };
        let (topic, incarnation) = match topic.and_then(|topic| topic.rsplit_once('@')) {
            Some((topic, incarnation)) => (Some(topic), number(Some(incarnation)).ok_or_else(wrong)?),
            None => (topic, 0),
        };
        let topic = topic.filter(|topic| !topic.is_empty()).ok_or_else(wrong)?;
        let small = |number: i64| i32::try_from(number).map_err(|_| wrong());
        let (partition, incarnation) = (small(partition)?, small(incarnation)?);
        Ok(Self { source: TopicPartition::new(topic, partition), incarnation, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        for (incarnation, text) in [(0, "shop.orders/3/42"), (2, "shop.orders@2/3/42")] {
            let id = RecordId { source: TopicPartition::new("shop.orders", 3), incarnation, offset: 42 };
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse::<RecordId>().unwrap(), id);
        }
        for wrong in ["", "orders", "orders/1", "/1/2", "orders/x/2", "orders/1/-2", "orders@x/1/2", "@1/1/2"] {
            assert!(wrong.parse::<RecordId>().is_err(), "{wrong}");
        }
    }
}
