//! What is counted per backend.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::counter::{Bounds, Counter, Histogram, HistogramTotals};
use super::labels::RequestOutcome;
use super::shards::Shards;
use crate::handover::BackendId;
use crate::health::{Failure, HealthState};
use crate::wire::Operation;

/// From 50 us, which only a backend on the same machine is below, to 10 s, which is beyond what the
/// web farm waits.
pub const BACKEND_BOUNDS_NS: Bounds = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

const OPERATIONS: usize = Operation::ALL.len();
const OUTCOMES: usize = RequestOutcome::ALL.len();
/// Ids of places are below this.
const PLACES: usize = 128;

/// Numbers of requests by operation and outcome.
#[derive(Debug, Default)]
pub struct Outcomes([[Counter; OUTCOMES]; OPERATIONS]);

impl Outcomes {
    /// Counts one.
    #[inline]
    pub fn count(&self, operation: Operation, outcome: RequestOutcome) {
        self.0[operation as usize][outcome as usize].increment();
    }

    /// How many there were.
    pub fn get(&self, operation: Operation, outcome: RequestOutcome) -> u64 {
        self.0[operation as usize][outcome as usize].get()
    }

    /// How many ended without an answer, or with a 400 although they are requests of the protocol:
    /// either makes the page fail (protocol 6).
    pub fn failed(&self) -> u64 {
        let of = |operation| {
            let is_known = operation != Operation::Unknown;
            let refused = self.get(operation, RequestOutcome::BadRequest);
            self.get(operation, RequestOutcome::Failed) + if is_known { refused } else { 0 }
        };
        Operation::ALL.into_iter().map(of).sum()
    }

    /// How many ended, in whatever way.
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().map(Counter::get).sum()
    }
}

/// What one worker counts of one backend. No other thread writes here; the alignment keeps others
/// off its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct BackendShard {
    /// Requests of clients, by their final answer.
    pub requests: Outcomes,
    /// Exchanges that ended, but for those that are broken off.
    pub exchanges: Outcomes,
    /// Requests without an answer because their client left or stalled.
    pub left_by_client: Counter,
    /// Exchanges that began.
    pub begun: Counter,
    /// Exchanges that the client broke off before the backend had the whole request: they say nothing
    /// about the backend.
    pub broken_off: Counter,
    /// Answers that no state server gives to what was asked, and connections on which something came
    /// that nobody has asked for.
    pub unfit: Counter,
    /// Connections that could not be opened because this machine had nothing left for them.
    pub shortages: Counter,
    /// Exchanges that were tried again on a fresh connection.
    pub retries: Counter,
    /// From the request going out to the head of its answer, connecting and a retry included.
    pub duration: Histogram,
    /// Bytes that came from it.
    pub received_bytes: Counter,
    /// Bytes that went to it.
    pub sent_bytes: Counter,
    /// Connections opened.
    pub connects: Counter,
    /// Connections that could not be opened.
    pub failed_connects: Counter,
    /// Idle connections now.
    pub idle: Counter,
    /// Writes of clients that it refused because of a lock.
    pub lost_writes: Counter,
    /// Sessions of its that were called absent while another backend stood in.
    pub absent_while_away: Counter,
    /// Sessions that it had lost, and that were stored here anew from their copies.
    pub restored: Counter,
    /// Acquires it refused because of a lock that ASP.NET breaks next.
    pub overdue_locks: Counter,
    moved_here: Counter,
    moves: OnceLock<Box<[MovedFrom; PLACES]>>,
}

impl Default for BackendShard {
    fn default() -> Self {
        Self {
            requests: Outcomes::default(),
            exchanges: Outcomes::default(),
            left_by_client: Counter::default(),
            begun: Counter::default(),
            broken_off: Counter::default(),
            unfit: Counter::default(),
            shortages: Counter::default(),
            retries: Counter::default(),
            duration: Histogram::new(&BACKEND_BOUNDS_NS),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            connects: Counter::default(),
            failed_connects: Counter::default(),
            idle: Counter::default(),
            lost_writes: Counter::default(),
            absent_while_away: Counter::default(),
            restored: Counter::default(),
            overdue_locks: Counter::default(),
            moved_here: Counter::default(),
            moves: OnceLock::new(),
        }
    }
}

/// Sessions moved from the backend at one place. A place may get another backend later, so it says
/// which one is meant.
#[derive(Debug, Default)]
struct MovedFrom {
    serial: Counter,
    sessions: Counter,
    /// Moves after which the session was still there.
    failed: Counter,
    /// The last answer to such a move, 0 for none.
    last_status: Counter,
}

impl MovedFrom {
    /// The counters of `from`, whatever was counted of another backend before.
    fn of(&self, from: &BackendMetrics) -> &Self {
        if self.serial.get() != from.serial {
            self.sessions.set(0);
            self.failed.set(0);
            self.last_status.set(0);
            self.serial.set(from.serial);
        }
        self
    }
}

/// Moves from one backend to another after which the session was still where it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailedMoves {
    /// How many.
    pub moves: u64,
    /// The status with which the last of them was refused; `None` if it was not answered.
    pub last_status: Option<u16>,
}

impl BackendShard {
    /// A session was moved here from `from`, which is at `place`.
    pub fn count_move(&self, from: &BackendMetrics, backend_id: BackendId) {
        self.moves_of(backend_id).of(from).sessions.increment();
        self.moved_here.increment();
    }

    /// A session was to be moved here from `from`, which is at `place`, and stays there. `status` is
    /// the answer that refused it, if there was one.
    pub fn count_failed_move(
        &self,
        from: &BackendMetrics,
        backend_id: BackendId,
        status: Option<u16>,
    ) {
        let moved = self.moves_of(backend_id).of(from);
        moved.last_status.set(status.unwrap_or(0).into());
        moved.failed.increment();
    }

    fn moves_of(&self, backend_id: BackendId) -> &MovedFrom {
        let moves = self
            .moves
            .get_or_init(|| Box::new(std::array::from_fn(|_| MovedFrom::default())));
        &moves[usize::from(backend_id.id())]
    }

    fn known_moves(&self, from: &BackendMetrics, backend_id: BackendId) -> Option<&MovedFrom> {
        let moved = &self.moves.get()?[usize::from(backend_id.id())];
        (moved.serial.get() == from.serial).then_some(moved)
    }

    fn moved_from(&self, from: &BackendMetrics, backend_id: BackendId) -> u64 {
        let moved = self.known_moves(from, backend_id);
        moved.map_or(0, |moved| moved.sessions.get())
    }
}

/// What is counted of one backend, kept over reloads and changes of its health for as long as it
/// is in the map or holds slots.
#[derive(Debug)]
pub struct BackendMetrics {
    /// No other backend of this process has it.
    serial: u64,
    shards: Shards<BackendShard>,
    health_changes: [AtomicU64; 3],
    probes_ok: AtomicU64,
    probes_failed: [AtomicU64; Failure::ALL.len()],
}

impl Default for BackendMetrics {
    fn default() -> Self {
        static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            shards: Shards::default(),
            health_changes: Default::default(),
            probes_ok: AtomicU64::default(),
            probes_failed: Default::default(),
        }
    }
}

impl BackendMetrics {
    /// The part of the worker with this number. To be asked for when a snapshot is taken over, and
    /// not per request.
    pub fn shard(&self, worker: usize) -> Arc<BackendShard> {
        self.shards.of_worker(worker)
    }

    /// Its health has changed to `to`.
    pub fn count_health_change(&self, to: HealthState) {
        self.health_changes[to as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A probe has ended.
    pub fn count_probe(&self, result: Result<(), Failure>) {
        let counter = match result {
            Ok(()) => &self.probes_ok,
            Err(failure) => &self.probes_failed[failure as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How often its health changed to `to`.
    pub fn health_changes(&self, to: HealthState) -> u64 {
        self.health_changes[to as usize].load(Ordering::Relaxed)
    }

    /// How many probes ended like this.
    pub fn probes(&self, result: Result<(), Failure>) -> u64 {
        let counter = match result {
            Ok(()) => &self.probes_ok,
            Err(failure) => &self.probes_failed[failure as usize],
        };
        counter.load(Ordering::Relaxed)
    }

    /// Requests of clients whose users saw a failure: not those whose client left.
    pub fn failed(&self) -> u64 {
        self.sum(|shard| {
            let left = shard.left_by_client.get();
            shard.requests.failed().saturating_sub(left)
        })
    }

    /// Number of requests and questions that it has answered.
    pub fn answered(&self) -> u64 {
        self.sum(|shard| shard.duration.count())
    }

    /// Writes and acquires that it has refused with a 400.
    pub fn refused(&self) -> u64 {
        self.sum(|shard| {
            let of = |operation| shard.requests.get(operation, RequestOutcome::BadRequest);
            of(Operation::Put) + of(Operation::Acquire)
        })
    }

    /// Connections to it, of requests and of probes, that this machine had nothing left for.
    pub fn shortages(&self) -> u64 {
        let of_requests = self.sum(|shard| shard.shortages.get());
        of_requests + self.probes(Err(Failure::Shortage))
    }

    /// Requests for its sessions that were answered "absent" while it was out of reach and another
    /// backend stood in.
    pub fn absent_while_away(&self) -> u64 {
        self.sum(|shard| shard.absent_while_away.get())
    }

    /// Sessions that it had lost, and that were stored there anew from their copies.
    pub fn restored(&self) -> u64 {
        self.sum(|shard| shard.restored.get())
    }

    /// Sessions moved to it.
    pub fn moved_here(&self) -> u64 {
        self.sum(|shard| shard.moved_here.get())
    }

    /// Sessions moved to it from `from`, which is at `place`.
    pub fn moved_from(&self, from: &Self, backend_id: BackendId) -> u64 {
        self.sum(|shard| shard.moved_from(from, backend_id))
    }

    /// Sessions that were to be moved to it from `from`, which is at `place`, and are still there.
    pub fn failed_moves_from(&self, from: &Self, backend_id: BackendId) -> FailedMoves {
        let shards = self.shards.all();
        let known = shards
            .iter()
            .filter_map(|shard| shard.known_moves(from, backend_id));
        known.fold(FailedMoves::default(), |all, moved| FailedMoves {
            moves: all.moves + moved.failed.get(),
            last_status: u16::try_from(moved.last_status.get())
                .ok()
                .filter(|status| *status > 0)
                .or(all.last_status),
        })
    }

    /// One number of all workers.
    pub fn sum(&self, number: impl Fn(&BackendShard) -> u64) -> u64 {
        self.shards.sum(number)
    }

    /// How long it took to answer.
    pub fn durations(&self) -> HistogramTotals {
        let mut all = HistogramTotals::default();
        for shard in self.shards.all() {
            shard.duration.add_to(&mut all);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend_id(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    #[test]
    fn workers_count_apart_and_are_read_as_one() {
        let metrics = BackendMetrics::default();
        for (worker, count) in [(0, 3), (2, 5), (0, 1)] {
            metrics.shard(worker).sent_bytes.add(count);
        }
        assert_eq!(metrics.sum(|shard| shard.sent_bytes.get()), 9);
        assert_eq!(metrics.shard(2).sent_bytes.get(), 5);
        assert_eq!(metrics.shard(1).sent_bytes.get(), 0);
    }

    #[test]
    fn what_a_backend_refuses_with_400_has_failed() {
        let outcomes = Outcomes::default();
        for outcome in RequestOutcome::ALL {
            outcomes.count(Operation::Put, outcome);
        }
        assert_eq!((outcomes.failed(), outcomes.total()), (2, 5));
    }

    #[test]
    fn a_move_counts_for_the_backend_it_came_from_and_for_no_later_one_at_that_place() {
        let (to, old, other) = <(BackendMetrics, BackendMetrics, BackendMetrics)>::default();
        to.shard(0).count_move(&old, backend_id(3));
        to.shard(1).count_move(&old, backend_id(3));
        to.shard(0).count_move(&other, backend_id(4));
        assert_eq!(to.moved_from(&old, backend_id(3)), 2);
        assert_eq!(to.moved_from(&other, backend_id(4)), 1);
        assert_eq!(to.moved_here(), 3);

        let new = BackendMetrics::default();
        assert_eq!(to.moved_from(&new, backend_id(3)), 0);
        to.shard(0).count_move(&new, backend_id(3));
        assert_eq!(to.moved_from(&new, backend_id(3)), 1);
        assert_eq!(to.moved_here(), 4);
    }

    #[test]
    fn failed_moves_are_counted_by_where_the_session_stays() {
        let (to, old, new) = <(BackendMetrics, BackendMetrics, BackendMetrics)>::default();
        let of = |from| to.failed_moves_from(from, backend_id(3));
        to.shard(0)
            .count_failed_move(&old, backend_id(3), Some(400));
        to.shard(1).count_failed_move(&old, backend_id(3), None);
        assert_eq!((of(&old).moves, of(&old).last_status), (2, Some(400)));
        assert_eq!(of(&new), FailedMoves::default());
        to.shard(0).count_failed_move(&new, backend_id(3), None);
        assert_eq!((of(&new).moves, of(&new).last_status), (1, None));
        assert_eq!(to.moved_here(), 0);
    }
}
