//! The numbered invariants: checked where they can break, counted in production, fatal in debug builds and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// What holds always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// Each (incarnation, partition, offset) is in its table at most once.
    I1,
    /// Each offset below the ledger is a row, a dead letter, a counted skip, a recorded gap or the broker's own hole.
    I2,
    /// Along a lineage the ledger never moves back; rows and ledger are one commit.
    I3,
    /// A maintenance commit changes no row and carries the ledger.
    I4,
    /// Nothing is sent for a partition after its revoke was acknowledged.
    I5,
    /// An answer equals rows(snapshot) and the tail of exactly that snapshot's ledger.
    I6,
    /// The index is never ahead of the lake.
    I7,
    /// A file is deleted only when no live snapshot refers to it and no commit's outcome is unknown.
    I8,
    /// Memory in queues, writers, tails and caches stays within the budget.
    I9,
    /// No record value and no secret in logs, errors, metrics.
    I10,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 10] =
        [Self::I1, Self::I2, Self::I3, Self::I4, Self::I5, Self::I6, Self::I7, Self::I8, Self::I9, Self::I10];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10"][self as usize]
    }

    /// How often it was found broken in this process.
    #[must_use]
    pub fn broken(self) -> u64 {
        BROKEN[self as usize].load(Ordering::Relaxed)
    }
}

static BROKEN: [AtomicU64; 10] = [const { AtomicU64::new(0) }; 10];

/// Counts a broken invariant; ends debug builds.
///
/// # Panics
/// In debug builds.
pub fn report(invariant: Invariant, detail: &str) {
    BROKEN[invariant as usize].fetch_add(1, Ordering::Relaxed);
    tracing::error!(invariant = invariant.as_str(), detail, "invariant broken");
    debug_assert!(false, "invariant {} broken: {detail}", invariant.as_str());
}

/// Checks an invariant: `check!(I3, condition, "detail {}", x)`.
#[macro_export]
macro_rules! check {
    ($invariant:ident, $condition:expr, $($detail:tt)+) => {
        if !$condition {
            $crate::invariant::report($crate::invariant::Invariant::$invariant, &format!($($detail)+));
        }
    };
}
