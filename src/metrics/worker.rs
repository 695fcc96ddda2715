//! What is counted per worker and belongs to no backend.

use super::backend::Outcomes;
use super::counter::{Bounds, Counter, Histogram};
use super::labels::{ClientRefusal, FailureReason, LockWaitEnd, MoveStep};

/// From 5 us to 1 s: what the proxy does to a request is a matter of microseconds.
pub(super) const OVERHEAD_BOUNDS_NS: Bounds = [
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// What one worker counts. No other thread writes here; the alignment keeps others off its cache
/// lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerShard {
    /// Requests that no backend answered or failed.
    pub unplaced: Outcomes,
    /// Those of them whose users saw a failure: not those whose client left, or sent no request.
    pub unplaced_failed: Counter,
    /// Requests that have begun to wait for a backend that is down.
    pub held: Counter,
    /// Those of them that were answered.
    pub held_answered: Counter,
    /// Those of them that failed all the same.
    pub held_failed: Counter,
    /// Requests that have begun to wait for a lock.
    pub lock_waits_begun: Counter,
    /// Sessions of `large_session` or more that were stored.
    pub large_stored: Counter,
    /// Number of the snapshot that the worker goes by.
    pub snapshot: Counter,
    /// Client connections taken.
    pub opened: Counter,
    /// Client connections that ended.
    pub closed: Counter,
    /// Bytes that came from clients.
    pub received_bytes: Counter,
    /// Bytes that went to clients.
    pub sent_bytes: Counter,
    /// Time of a request that was not spent waiting for backends.
    pub overhead: Histogram,
    refused: [Counter; ClientRefusal::ALL.len()],
    failures: [Counter; FailureReason::ALL.len()],
    failed_moves: [Counter; MoveStep::ALL.len()],
    lock_waits: [Counter; LockWaitEnd::ALL.len()],
}

/// Requests that have waited for a backend, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldRequests {
    /// All of them.
    pub begun: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that failed all the same.
    pub failed: u64,
}

impl HeldRequests {
    /// Those that are waiting now, or on their way after that.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.begun.saturating_sub(self.answered + self.failed)
    }
}

impl Default for WorkerShard {
    fn default() -> Self {
        Self {
            unplaced: Outcomes::default(),
            unplaced_failed: Counter::default(),
            held: Counter::default(),
            held_answered: Counter::default(),
            held_failed: Counter::default(),
            lock_waits_begun: Counter::default(),
            large_stored: Counter::default(),
            snapshot: Counter::default(),
            opened: Counter::default(),
            closed: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            overhead: Histogram::new(&OVERHEAD_BOUNDS_NS),
            refused: Default::default(),
            failures: Default::default(),
            failed_moves: Default::default(),
            lock_waits: Default::default(),
        }
    }
}

impl WorkerShard {
    /// Connections closed unserved, for this reason.
    pub fn refused(&self, reason: ClientRefusal) -> &Counter {
        &self.refused[reason as usize]
    }

    /// Requests without an answer, for this reason.
    pub fn failures(&self, reason: FailureReason) -> &Counter {
        &self.failures[reason.index()]
    }

    /// Waits for a lock that ended like this.
    pub fn lock_waits(&self, end: LockWaitEnd) -> &Counter {
        &self.lock_waits[end as usize]
    }

    /// Moves that came no further than this.
    pub fn failed_moves(&self, step: MoveStep) -> &Counter {
        &self.failed_moves[step as usize]
    }
}
