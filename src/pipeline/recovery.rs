//! Where reading begins: pure decisions over ledger, topics and settings. Start positions are facts that are
//! committed before the first record is polled, never options that are looked up twice.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{CommitPlan, OnGap, OnTopicChange, Settings, StartAt, Survey};
use crate::model::ids::TopicPartition;
use crate::model::ledger::{Advance, Ledger, Position, TopicLedger};
use crate::model::offsets::NextOffset;
use crate::ports::{Gap, Recovery, TopicFacts, Watermarks};
use crate::rule::{self, Rule};

/// What is to be done before partitions can be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Read them from these positions.
    Start(BTreeMap<TopicPartition, Position>),
    /// Commit this first, then survey again.
    CommitFirst(CommitPlan),
    /// Wait for this and survey again.
    Wait(String),
    /// The table is suspended.
    Suspended(String),
    /// Somebody must choose.
    Halt(String),
}

/// Decides for the partitions `wanted`.
#[must_use]
pub fn decide(settings: &Settings, survey: &Survey, wanted: &BTreeSet<TopicPartition>) -> Decision {
    let progress = match &survey.state.recovery {
        Recovery::Halted(text) => return Decision::Halt(text.clone()),
        Recovery::At(progress) => progress.clone(),
        Recovery::Fresh => crate::ports::Progress::default(),
    };
    if let Some(suspension) = &progress.suspension {
        return Decision::Suspended(suspension.reason.clone());
    }
    let missing = survey.topics.iter().find(|(_, facts)| facts.is_none()).map(|(topic, _)| topic);
    if let Some(topic) = missing.filter(|_| wanted.is_empty()) {
        return Decision::Wait(format!("topic `{topic}` does not exist"));
    }
    let mut plan = CommitPlan::default();
    let mut starts = BTreeMap::new();
    let topics: BTreeSet<&str> = wanted.iter().map(|source| source.topic.as_ref()).collect();
    for topic in topics {
        let Some(facts) = survey.topics.get(topic).and_then(Option::as_ref) else {
            return Decision::Wait(format!("topic `{topic}` does not exist"));
        };
        let partitions: Vec<TopicPartition> =
            wanted.iter().filter(|source| source.topic.as_ref() == topic).cloned().collect();
        let one = Topic { settings, survey, ledger: &progress.ledger, name: topic, facts };
        if let Err(decision) = one.decide(&partitions, &mut plan, &mut starts) {
            return decision;
        }
    }
    if plan == CommitPlan::default() { Decision::Start(starts) } else { Decision::CommitFirst(plan) }
}

/// What shows that a topic of the ledger is another one now: its id, or the cluster's.
#[must_use]
pub fn changed_topic(survey: &Survey) -> Option<String> {
    let Recovery::At(progress) = &survey.state.recovery else { return None };
    progress.ledger.topics.iter().find_map(|(name, known)| {
        let facts = survey.topics.get(name)?.as_ref()?;
        identity_change(&progress.ledger, known, facts).map(|change| format!("topic `{name}`: {change}"))
    })
}

fn identity_change(ledger: &Ledger, known: &TopicLedger, facts: &TopicFacts) -> Option<String> {
    let (old, new) = (&ledger.cluster_id, &facts.cluster_id);
    if !old.is_empty() && !new.is_empty() && old != new {
        return Some(format!("the ledger is of cluster `{old}`, this is cluster `{new}`"));
    }
    let (old, new) = (known.topic_id?, facts.topic_id?);
    let changed = old != new && rule::holds(Rule::TopicIdentity);
    changed.then(|| format!("the ledger is of topic id {old}, the topic now has id {new}"))
}

struct Topic<'a> {
    settings: &'a Settings,
    survey: &'a Survey,
    ledger: &'a Ledger,
    name: &'a str,
    facts: &'a TopicFacts,
}

impl Topic<'_> {
    fn decide(
        &self,
        wanted: &[TopicPartition],
        plan: &mut CommitPlan,
        starts: &mut BTreeMap<TopicPartition, Position>,
    ) -> Result<(), Decision> {
        let Some(known) = self.ledger.topics.get(self.name) else {
            return self.first_time(plan);
        };
        if let Some(change) = self.change(known, wanted) {
            return self.changed(known, plan, &change);
        }
        for source in wanted {
            let range = self.range(source)?;
            let Some(position) = known.partitions.get(&source.partition) else {
                // The partition came after the table's first ledger: all of it is new, whatever `start` says.
                let next = if rule::holds(Rule::NewPartitionFromZero) { NextOffset(0) } else { range.stable };
                plan.advances.insert(source.clone(), Advance { from: None, to: Position { next, leader_epoch: None } });
                self.identify(plan, known.incarnation);
                continue;
            };
            if position.next < range.low && rule::holds(Rule::GapPolicy) {
                self.gap(source, position.next, range.low, plan)?;
            } else {
                starts.insert(source.clone(), *position);
            }
        }
        Ok(())
    }

    fn range(&self, source: &TopicPartition) -> Result<Watermarks, Decision> {
        let range = self.survey.watermarks.get(source).copied();
        range.ok_or_else(|| Decision::Wait(format!("partition `{source}` has no leader yet")))
    }

    fn identify(&self, plan: &mut CommitPlan, incarnation: u32) {
        plan.identity.cluster_id.clone_from(&self.facts.cluster_id);
        let topic = TopicLedger { topic_id: self.facts.topic_id, incarnation, ..TopicLedger::default() };
        plan.identity.topics.insert(self.name.to_owned(), topic);
    }

    /// Positions of all partitions at once, also of those that other replicas read: `start` is resolved one time.
    fn first_time(&self, plan: &mut CommitPlan) -> Result<(), Decision> {
        for partition in &self.facts.partitions {
            let source = TopicPartition::new(self.name, *partition);
            let range = self.range(&source)?;
            let next = match &self.settings.start {
                StartAt::Earliest => range.low,
                StartAt::Latest => range.stable,
                StartAt::Timestamp(_) => self.survey.at_time.get(&source).copied().unwrap_or(range.stable),
                StartAt::Offsets(offsets) => offsets.get(partition).map_or(range.low, |offset| NextOffset(*offset)),
                StartAt::Positions(all) => all.get(&source).map_or(range.low, |next| range.low.max(*next)),
            };
            plan.advances.insert(source, Advance { from: None, to: Position { next, leader_epoch: None } });
        }
        self.identify(plan, 0);
        Ok(())
    }

    /// What shows that the topic is not the one that the ledger speaks of.
    fn change(&self, known: &TopicLedger, wanted: &[TopicPartition]) -> Option<String> {
        if let Some(change) = identity_change(self.ledger, known, self.facts) {
            return Some(change);
        }
        wanted.iter().find_map(|source| {
            let (position, range) = (known.partitions.get(&source.partition)?, self.survey.watermarks.get(source)?);
            (position.next > range.high)
                .then(|| format!("the ledger of `{source}` is at {}, the log ends at {}", position.next, range.high))
        })
    }

    fn changed(&self, known: &TopicLedger, plan: &mut CommitPlan, change: &str) -> Result<(), Decision> {
        if self.settings.on_topic_change == OnTopicChange::Fail {
            return Err(Decision::Halt(format!(
                "topic `{}` is not the one that table `{}` has read: {change}; if it was made anew on purpose set \
                 `on_topic_change: new_incarnation` for the table, which reads it from 0 as a new incarnation",
                self.name, self.settings.table
            )));
        }
        for partition in &self.facts.partitions {
            let source = TopicPartition::new(self.name, *partition);
            plan.advances.insert(source, Advance { from: None, to: Position::default() });
        }
        self.identify(plan, known.incarnation + 1);
        Ok(())
    }

    fn gap(
        &self,
        source: &TopicPartition,
        from: NextOffset,
        to: NextOffset,
        plan: &mut CommitPlan,
    ) -> Result<(), Decision> {
        if self.settings.on_gap == OnGap::Fail {
            return Err(Decision::Halt(format!(
                "offsets {from} to {} of `{source}` were deleted by retention before they were read; set `on_gap: continue` \
                 for table `{}` to record the gap and go on at {to}",
                to.0 - 1,
                self.settings.table
            )));
        }
        let to_position = Position { next: to, leader_epoch: None };
        plan.advances.insert(source.clone(), Advance { from: Some(from), to: to_position });
        plan.gaps.push(Gap { topic: self.name.to_owned(), partition: source.partition, from, to });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
