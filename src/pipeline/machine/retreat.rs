//! The brain's ways back: partitions taken away, suspension, and forgetting what is not committed.

use crate::model::ids::TopicPartition;
use crate::pipeline::event::{Command, Condition, Ticket};

use super::{Epoch, Looking, Machine, Revoke};
use crate::rule::{self, Rule};

impl Machine {
    // Partitions taken away.

    pub(super) fn revoked(&mut self, partitions: Vec<TopicPartition>, lost: bool, ticket: Ticket) {
        for source in &partitions {
            self.assigned.remove(source);
            if let Some(lane) = self.lanes.get_mut(source) {
                lane.revoking = true;
            }
        }
        if self.first.as_ref().is_some_and(|plan| partitions.iter().any(|source| plan.advances.contains_key(source))) {
            self.first = None;
            self.look();
        }
        if lost && rule::holds(Rule::LostAbandons) && partitions.iter().any(|source| self.is_pending(source)) {
            self.abandon();
            self.look();
        }
        let deadline = self.now + self.settings.revoke_timeout;
        self.revokes.push(Revoke { ticket, partitions, deadline });
    }

    /// True while a commit that is not decided moves the partition.
    pub(super) fn is_pending(&self, source: &TopicPartition) -> bool {
        let flight = self.in_flight.as_ref().filter(|flight| !flight.is_first);
        self.open.plan.advances.contains_key(source)
            || flight.is_some_and(|flight| flight.plan.advances.contains_key(source))
    }

    pub(super) fn settle_revokes(&mut self) {
        let (waiting, settled): (Vec<_>, Vec<_>) = std::mem::take(&mut self.revokes).into_iter().partition(|revoke| {
            rule::holds(Rule::RevokeWaits) && revoke.partitions.iter().any(|source| self.is_pending(source))
        });
        self.revokes = waiting;
        for revoke in settled {
            for source in &revoke.partitions {
                // It may have been assigned again meanwhile, but is not read before the next survey.
                self.lanes.remove(source);
            }
            if revoke.partitions.iter().any(|source| self.assigned.contains(source)) {
                self.look();
            }
            self.out.push(Command::Acknowledge(revoke.ticket));
        }
    }

    pub(super) fn tick(&mut self) {
        if self.revokes.iter().any(|revoke| revoke.deadline <= self.now) {
            tracing::warn!(table = %self.settings.table, "commit was not done before the revoke's deadline, dropping it");
            self.abandon();
            self.look();
        }
        if let Looking::At(at) = self.looking
            && at <= self.now
        {
            self.look();
        }
    }

    // Ways out.

    /// Commits what came before the record, then takes no more.
    pub(super) fn suspend(&mut self, reason: String) {
        if self.suspending.is_none() {
            self.halt_all();
            self.suspending = Some(reason);
        }
    }

    /// Forgets what is not committed; looks again after a while, and begins at the ledger if nothing forbids it then.
    pub(super) fn start_over(&mut self, condition: Condition) {
        self.set(condition);
        self.abandon();
        self.look_later();
    }

    pub(super) fn abandon(&mut self) {
        self.halt_all();
        self.out.push(Command::Abandon);
        self.held.clear();
        self.open = Epoch::new(self.next_epoch());
        self.in_flight = None;
        self.first = None;
        self.suspending = None;
    }

    fn halt_all(&mut self) {
        let (revoking, reading): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lanes).into_iter().partition(|(_, lane)| lane.revoking);
        self.lanes = revoking.into_iter().collect();
        if !reading.is_empty() {
            self.out.push(Command::Halt(reading.into_iter().map(|(source, _)| source).collect()));
        }
    }
}
