//! The ledger: per source partition the next offset, and its compact encoding in a snapshot's summary.
//!
//! Positions below the ledger are decided; what lies at or above it has not happened as far as the table knows.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::TopicPartition;
use super::offsets::NextOffset;
use super::record::RecordId;
use super::version::Offsets;
use crate::error::{Error, Result};

/// Version of the encoding below; an older reader refuses a newer one.
const FORMAT_VERSION: u32 = 1;

/// What a table has taken from its sources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// The Kafka cluster's id; empty where the broker tells none.
    pub cluster_id: String,
    /// Per topic name: its identity and its partitions' positions.
    pub topics: BTreeMap<String, TopicLedger>,
}

/// One topic of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicLedger {
    /// The topic's id; `None` where the broker tells none.
    pub topic_id: Option<Uuid>,
    /// How often the topic was declared made anew; part of a row's identity.
    pub incarnation: u32,
    /// Per partition its position.
    pub partitions: BTreeMap<i32, Position>,
}

/// How far one partition has been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The first offset that is not decided.
    pub next: NextOffset,
    /// Epoch of the leader that wrote the last record taken.
    pub leader_epoch: Option<i32>,
}

/// One partition's step in a commit: from what the ledger must say to what it says afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// What the base's ledger must hold; `None`: it must not know the partition.
    pub from: Option<NextOffset>,
    /// What it holds after the commit.
    pub to: Position,
}

/// Steps of several partitions; they are committed together or not at all.
pub type Advances = BTreeMap<TopicPartition, Advance>;

/// A partition that somebody else moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The partition.
    pub source: TopicPartition,
    /// Where the commit starts; `None`: where the ledger does not know the partition.
    pub expected: Option<NextOffset>,
    /// What the ledger holds.
    pub held: Option<NextOffset>,
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text =
            |offset: Option<NextOffset>| offset.map_or_else(|| "nothing".to_owned(), |offset| offset.to_string());
        write!(f, "partition `{}` starts at {}, the ledger holds {}", self.source, text(self.expected), text(self.held))
    }
}

impl Ledger {
    /// The position of a partition, `None` where the ledger does not know it.
    #[must_use]
    pub fn position(&self, source: &TopicPartition) -> Option<Position> {
        self.topics.get(source.topic.as_ref())?.partitions.get(&source.partition).copied()
    }

    /// True where the record is decided: it lies below its partition's position, or its topic was made anew since.
    #[must_use]
    pub fn covers(&self, record: &RecordId) -> bool {
        let Some(topic) = self.topics.get(record.source.topic.as_ref()) else { return false };
        match i64::from(record.incarnation).cmp(&i64::from(topic.incarnation)) {
            Ordering::Less => true,
            Ordering::Equal => {
                topic.partitions.get(&record.source.partition).is_some_and(|at| record.offset < at.next.0)
            }
            Ordering::Greater => false,
        }
    }

    /// Where each partition stands.
    pub fn positions(&self) -> impl Iterator<Item = (TopicPartition, Position)> {
        self.topics.iter().flat_map(|(topic, held)| {
            held.partitions.iter().map(|(partition, at)| (TopicPartition::new(topic.as_str(), *partition), *at))
        })
    }

    /// Per partition the first offset that is not in.
    #[must_use]
    pub fn offsets(&self) -> Offsets {
        self.positions().map(|(source, at)| (source, at.next)).collect()
    }

    /// The ledger after a commit: `advances` applied, and the cluster and topic identities of `identity` taken over.
    /// A topic whose incarnation is greater in `identity` starts over: what is held of it counts as not known.
    ///
    /// # Errors
    /// The first partition whose position is not what its advance starts from, and both sides.
    pub fn apply(&self, identity: &Self, advances: &Advances) -> Result<Self, Stale> {
        let mut after = self.clone();
        if !identity.cluster_id.is_empty() {
            after.cluster_id.clone_from(&identity.cluster_id);
        }
        for (name, new) in &identity.topics {
            let topic = after.topics.entry(name.clone()).or_default();
            if new.incarnation > topic.incarnation {
                topic.partitions.clear();
            }
            topic.incarnation = topic.incarnation.max(new.incarnation);
            topic.topic_id = new.topic_id.or(topic.topic_id);
        }
        for (source, advance) in advances {
            let held = after.position(source);
            if held.map(|position| position.next) != advance.from {
                let held = held.map(|position| position.next);
                return Err(Stale { source: source.clone(), expected: advance.from, held });
            }
            let leader_epoch = advance.to.leader_epoch.or_else(|| held.and_then(|position| position.leader_epoch));
            let topic = after.topics.entry(source.topic.to_string()).or_default();
            topic.partitions.insert(source.partition, Position { next: advance.to.next, leader_epoch });
        }
        Ok(after)
    }

    /// True where no partition of this ledger lies behind `older` (invariant I3); a new incarnation starts over.
    #[must_use]
    pub fn not_behind(&self, older: &Self) -> bool {
        older.topics.iter().all(|(name, old)| {
            self.topics.get(name).is_some_and(|new| {
                new.incarnation > old.incarnation
                    || new.incarnation == old.incarnation
                        && old
                            .partitions
                            .iter()
                            .all(|(p, at)| new.partitions.get(p).is_some_and(|now| now.next >= at.next))
            })
        })
    }

    /// The ledger as one short JSON text: per topic a base64 run of variable-length integers.
    #[must_use]
    pub fn encode(&self) -> String {
        let topics = self
            .topics
            .iter()
            .map(|(name, topic)| WireTopic {
                name: name.clone(),
                id: topic.topic_id,
                inc: topic.incarnation,
                at: BASE64.encode(encode_positions(&topic.partitions)),
            })
            .collect();
        let wire = Wire { v: FORMAT_VERSION, cluster: self.cluster_id.clone(), topics };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads [`Ledger::encode`]'s text.
    ///
    /// # Errors
    /// `Corrupt` where the text is not a ledger of a version that this build knows.
    pub fn decode(text: &str) -> Result<Self> {
        let wire: Wire = serde_json::from_str(text)
            .map_err(|e| Error::corrupt("decode `ledger`: not the expected JSON").with_source(e))?;
        if wire.v != FORMAT_VERSION {
            return Err(Error::corrupt(format!("decode `ledger`: version {} is not known, update frazil", wire.v)));
        }
        let mut topics = BTreeMap::new();
        for topic in wire.topics {
            let bytes = BASE64.decode(&topic.at).map_err(|e| {
                Error::corrupt(format!("decode `ledger`: positions of topic `{}`", topic.name)).with_source(e)
            })?;
            let partitions = decode_positions(&bytes).ok_or_else(|| {
                Error::corrupt(format!("decode `ledger`: positions of topic `{}` end early", topic.name))
            })?;
            topics.insert(topic.name, TopicLedger { topic_id: topic.id, incarnation: topic.inc, partitions });
        }
        Ok(Self { cluster_id: wire.cluster, topics })
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: u32,
    cluster: String,
    topics: Vec<WireTopic>,
}

#[derive(Serialize, Deserialize)]
struct WireTopic {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<Uuid>,
    inc: u32,
    at: String,
}

fn encode_positions(partitions: &BTreeMap<i32, Position>) -> Vec<u8> {
    let mut out = Vec::with_capacity(partitions.len() * 5);
    let mut expected = 0_i64;
    for (partition, position) in partitions {
        let partition = i64::from(*partition);
        put_varint(&mut out, partition - expected);
        put_varint(&mut out, position.next.0);
        put_varint(&mut out, i64::from(position.leader_epoch.unwrap_or(-1)));
        expected = partition + 1;
    }
    out
}

fn decode_positions(mut bytes: &[u8]) -> Option<BTreeMap<i32, Position>> {
    let mut partitions = BTreeMap::new();
    let mut expected = 0_i64;
    while !bytes.is_empty() {
        let partition = expected.checked_add(get_varint(&mut bytes)?)?;
        let next = NextOffset(get_varint(&mut bytes)?);
        let epoch = i32::try_from(get_varint(&mut bytes)?).ok()?;
        partitions
            .insert(i32::try_from(partition).ok()?, Position { next, leader_epoch: (epoch >= 0).then_some(epoch) });
        expected = partition + 1;
    }
    Some(partitions)
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn get_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ledger(positions: &[(i32, i64, Option<i32>)]) -> Ledger {
        let partitions = positions
            .iter()
            .map(|(p, next, leader_epoch)| (*p, Position { next: NextOffset(*next), leader_epoch: *leader_epoch }))
            .collect();
        let topic = TopicLedger { topic_id: Some(Uuid::nil()), incarnation: 2, partitions };
        Ledger { cluster_id: "c".to_owned(), topics: BTreeMap::from([("t".to_owned(), topic)]) }
    }

    /// A golden text: tables in the field hold it, so it is never edited.
    #[test]
    fn version_1_reads_for_ever() {
        let text = r#"{"v":1,"cluster":"c","topics":[{"name":"t","id":"00000000-0000-0000-0000-000000000000","inc":2,"at":"AMgBAAIAAQ"}]}"#;
        let golden = ledger(&[(0, 100, Some(0)), (2, 0, None)]);
        assert_eq!(Ledger::decode(text).unwrap(), golden);
        assert_eq!(golden.encode(), text);
    }

    #[test]
    fn a_thousand_partitions_stay_short() {
        let rows: Vec<_> = (0..1000).map(|p| (p, 5_000_000 + i64::from(p), Some(7))).collect();
        assert!(ledger(&rows).encode().len() < 8_200);
    }

    #[test]
    fn one_stale_partition_stops_all() {
        let base = ledger(&[(0, 10, None), (1, 20, Some(3))]);
        let to = Position { next: NextOffset(30), leader_epoch: None };
        let none = Ledger::default();
        let mut advances = Advances::new();
        advances.insert(TopicPartition::new("t", 0), Advance { from: Some(NextOffset(10)), to });
        advances.insert(TopicPartition::new("t", 1), Advance { from: Some(NextOffset(20)), to });
        assert_eq!(base.apply(&none, &advances).unwrap(), ledger(&[(0, 30, None), (1, 30, Some(3))]));
        for from in [Some(NextOffset(19)), None] {
            advances.insert(TopicPartition::new("t", 1), Advance { from, to });
            let stale = base.apply(&none, &advances).unwrap_err();
            assert_eq!((stale.expected, stale.held), (from, Some(NextOffset(20))));
        }
    }

    #[test]
    fn a_new_incarnation_starts_over_and_is_not_behind() {
        let base = ledger(&[(0, 10, None), (1, 20, None)]);
        let mut identity = ledger(&[]);
        identity.topics.get_mut("t").unwrap().incarnation = 3;
        let to = Position { next: NextOffset(0), leader_epoch: None };
        let advances = Advances::from([(TopicPartition::new("t", 0), Advance { from: None, to })]);
        let after = base.apply(&identity, &advances).unwrap();
        assert_eq!(after.topics["t"].partitions.len(), 1);
        assert!(after.not_behind(&base) && !base.not_behind(&after));
        assert!(after.apply(&identity, &advances).is_err(), "declared once");
    }

    #[test]
    fn what_lies_below_a_position_is_decided() {
        let ledger = ledger(&[(0, 10, None)]);
        for (record, covered) in [
            ("t@2/0/9", true),
            ("t@2/0/10", false),
            ("t@1/7/99", true),
            ("t@3/0/1", false),
            ("t@2/1/0", false),
            ("u/0/0", false),
        ] {
            assert_eq!(ledger.covers(&record.parse().unwrap()), covered, "{record}");
        }
    }

    proptest! {
        #[test]
        fn decode_reads_what_encode_wrote(rows in proptest::collection::btree_map(0..5000_i32, (0..i64::MAX, -1..9_i32), 0..50)) {
            let rows: Vec<_> = rows.into_iter().map(|(p, (n, e))| (p, n, (e >= 0).then_some(e))).collect();
            let ledger = ledger(&rows);
            prop_assert_eq!(Ledger::decode(&ledger.encode()).unwrap(), ledger);
        }

        #[test]
        fn any_bytes_decode_or_refuse(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_positions(&bytes);
        }
    }
}
