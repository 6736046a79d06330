//! The rules that exactly-once rests on, by name. In production each of them holds; the simulation's mutation check
//! breaks one at a time and shows that it is needed. What the rules do stands where they are asked for.

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A commit starts where the ledger of its base stands.
    LedgerCheck,
    /// After a conflict the ledger is compared again, and the manifests are made for the new base.
    LedgerRecheck,
    /// A commit whose answer was lost is looked for in the history.
    OwnCommitFound,
    /// While a commit's outcome is unknown, nothing of it is deleted.
    UnknownDeletesNothing,
    /// Start positions are committed before anything is read.
    StartCommitted,
    /// A partition that came after the table's first ledger is read from 0.
    NewPartitionFromZero,
    /// The ids of topic and ledger are compared.
    TopicIdentity,
    /// Records that retention took are a gap, which the policy decides about.
    GapPolicy,
    /// A revoke is acknowledged after the commits that wait or are under way.
    RevokeWaits,
    /// A lost assignment drops what is not committed.
    LostAbandons,
    /// What an earlier reading brought is ignored.
    AttemptNumbers,
    /// The end of a partition advances the ledger over holes.
    EofAdvances,
    /// A tagged ledger outside of `main`'s history stops the table.
    RollbackDetected,
    /// A suspended table takes no commit of any replica.
    SuspensionSeen,
    /// Rows and dead letters are one commit.
    DeadLettersTogether,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::LedgerCheck,
        Self::LedgerRecheck,
        Self::OwnCommitFound,
        Self::UnknownDeletesNothing,
        Self::StartCommitted,
        Self::NewPartitionFromZero,
        Self::TopicIdentity,
        Self::GapPolicy,
        Self::RevokeWaits,
        Self::LostAbandons,
        Self::AttemptNumbers,
        Self::EofAdvances,
        Self::RollbackDetected,
        Self::SuspensionSeen,
        Self::DeadLettersTogether,
    ];
}

#[cfg(any(test, feature = "testing"))]
std::thread_local! {
    static BROKEN: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// True where the rule holds: always, but for a mutation on this thread.
#[cfg(any(test, feature = "testing"))]
#[must_use]
pub fn holds(rule: Rule) -> bool {
    BROKEN.get() != Some(rule)
}

/// True.
#[cfg(not(any(test, feature = "testing")))]
#[must_use]
pub const fn holds(_: Rule) -> bool {
    true
}

/// Breaks a rule on this thread, or mends them all.
#[cfg(any(test, feature = "testing"))]
pub fn break_on_this_thread(rule: Option<Rule>) {
    BROKEN.set(rule);
}
