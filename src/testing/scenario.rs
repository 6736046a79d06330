//! What one seed stands for: the table, its topics, its policies, and what goes wrong how often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::filter::ByOffset;
use super::random::Random;
use crate::decode::evolution::Evolution;
use crate::decode::layout::{Format, Given, KeyColumns, Layout, Metadata, MetadataNames, Tombstones};
use crate::decode::mapping::MappingOptions;
use crate::pipeline::driver::{Subjects, TableSpec};
use crate::pipeline::event::{OnError, OnGap, OnTopicChange, Settings, StartAt};
use crate::ports::{PartitionField, Transform};

/// Something that happens to the table or its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// Records are produced.
    Produce,
    /// A transaction begins, goes on or ends.
    Transaction,
    /// Compaction removes records.
    Compact,
    /// Retention removes records, possibly before they are read.
    Retain,
    /// Another leader.
    Elect,
    /// A topic gets another partition.
    Grow,
    /// A topic is deleted and made anew.
    Recreate,
    /// The group rebalances.
    Rebalance,
    /// A replica's process is killed.
    Crash,
    /// A replica is asked to end.
    Stop,
    /// A replica starts.
    Start,
    /// The group thinks that a replica is dead, which goes on.
    Zombie,
    /// Another writer appends, sets a property, adds a column or expires.
    Foreign,
    /// Somebody rolls the table back.
    RollBack,
    /// The operator looks and chooses.
    Attend,
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Topics and their partitions at the start.
    pub topics: Vec<(String, usize)>,
    /// Values are Avro with evolving schemas; else text.
    pub avro: bool,
    /// Replicas at most.
    pub replicas: usize,
    /// Partitions move without being revoked first.
    pub cooperative: bool,
    /// Requests out of a thousand that fail.
    pub fault_per_mille: u64,
    /// How many things happen.
    pub steps: u64,
    /// What can happen, by weight.
    pub happenings: BTreeMap<Happening, u64>,
    /// Records out of a thousand that cannot be rows.
    pub bad_per_mille: u64,
    /// Snapshots to keep.
    pub keep_snapshots: usize,
    /// Which records the table gets; `None`: all.
    pub filter: Option<ByOffset>,
    /// The table. Where it adopts one, another tool has made it, with a row.
    pub spec: TableSpec,
    /// Whether the table reads its topics through a reading that others could share.
    pub shared: bool,
}

impl Scenario {
    /// A scenario by chance.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let topics: Vec<_> =
            (0..random.between(1, 3)).map(|n| (format!("t{n}"), random.between(1, 4) as usize)).collect();
        let avro = random.per_mille(500);
        let on_error = random.pick(&[OnError::DeadLetter, OnError::DeadLetter, OnError::Skip, OnError::Suspend]);
        let mends = avro || on_error != OnError::Suspend;
        let names: Vec<String> = topics.iter().map(|(name, _)| name.clone()).collect();
        let filter = ByOffset { decides_all: on_error == OnError::Suspend };
        let filter = random.per_mille(300).then_some(filter);
        let mut spec = spec(random, names, avro, on_error);
        spec.filter = filter.map(ByOffset::of_table);
        if random.per_mille(250) {
            spec.adopts = true;
            spec.partition_by.clear();
        }
        Self {
            topics,
            avro,
            replicas: random.between(1, 3) as usize,
            cooperative: random.per_mille(500),
            fault_per_mille: random.pick(&[0, 10, 40, 100]),
            steps: random.between(30, 90),
            happenings: happenings(random),
            bad_per_mille: if mends { random.pick(&[0, 20, 100]) } else { 0 },
            keep_snapshots: random.between(20, 60) as usize,
            filter,
            spec,
            shared: false,
        }
    }

    /// The table with policies that let it go on, as an operator sets them who has understood what happened.
    #[must_use]
    pub fn permissive(&self) -> Arc<TableSpec> {
        let mut spec = self.spec.clone();
        spec.settings.on_gap = OnGap::Continue;
        spec.settings.on_topic_change = OnTopicChange::NewIncarnation;
        Arc::new(spec)
    }
}

fn happenings(random: &mut Random) -> BTreeMap<Happening, u64> {
    use Happening::{
        Attend, Compact, Crash, Elect, Foreign, Grow, Produce, Rebalance, Recreate, Retain, RollBack, Start, Stop,
        Transaction, Zombie,
    };
    let mut weights = BTreeMap::from([(Produce, 400), (Attend, 40), (Start, 60)]);
    let some = [
        (Transaction, 100),
        (Compact, 40),
        (Retain, 25),
        (Elect, 20),
        (Grow, 15),
        (Recreate, 10),
        (Rebalance, 60),
        (Crash, 60),
        (Stop, 30),
        (Zombie, 50),
        (Foreign, 60),
        (RollBack, 15),
    ];
    for (happening, weight) in some {
        if random.per_mille(450) {
            weights.insert(happening, weight);
        }
    }
    weights
}

fn spec(random: &mut Random, topics: Vec<String>, avro: bool, on_error: OnError) -> TableSpec {
    let mut settings = Settings {
        table: crate::model::ids::TableName { namespace: vec!["lake".to_owned()], name: "events".to_owned() },
        topics,
        start: random.pick(&[
            StartAt::Earliest,
            StartAt::Earliest,
            StartAt::Latest,
            StartAt::Timestamp(1_700_000_001_000),
        ]),
        on_gap: random.pick(&[OnGap::Fail, OnGap::Continue]),
        on_topic_change: random.pick(&[OnTopicChange::Fail, OnTopicChange::NewIncarnation]),
        on_error,
        commit_interval: Duration::from_millis(random.between(50, 1500)),
        idle_interval: Duration::ZERO,
        commit_bytes: 1 << 20,
        commit_rows: random.between(10, 200),
        revoke_timeout: Duration::from_millis(random.between(100, 3000)),
        retry_interval: Duration::from_millis(random.between(100, 2000)),
        identity_interval: Duration::from_secs(10),
        commit_at_ends: false,
    };
    settings.idle_interval = settings.commit_interval;
    let layout = Layout {
        key_format: Format::None,
        key_columns: KeyColumns::None,
        value_format: if avro { Format::Registry } else { Format::String },
        projection: Arc::default(),
        names: MetadataNames::Kafka,
        metadata: vec![
            Metadata::Topic,
            Metadata::Partition,
            Metadata::Offset,
            Metadata::Timestamp,
            Metadata::Incarnation,
        ],
        mapping: MappingOptions::default(),
        tombstones: if on_error == OnError::Suspend {
            Tombstones::Keep
        } else {
            random.pick(&[Tombstones::Keep, Tombstones::DeadLetter])
        },
        record_bytes_max: 1 << 20,
        evolution: Evolution::Extend,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
    };
    let by_partition = PartitionField { column: "kafka_partition".to_owned(), transform: Transform::Identity };
    TableSpec {
        settings,
        layout,
        filter: None,
        adopts: false,
        partition_by: if random.per_mille(300) { vec![by_partition] } else { Vec::new() },
        sort_by: Vec::new(),
        format_version: random.pick(&[2, 2, 3]),
        properties: BTreeMap::from([("frazil.mapping.version".to_owned(), "1".to_owned())]),
        location: None,
        dead_letter_topic: None,
        subjects: Subjects { key: "topic-key".to_owned(), value: "topic-value".to_owned() },
    }
}
