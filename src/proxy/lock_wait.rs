//! Requests for a locked session that wait for the lock here, instead of asking again after half a
//! second as ASP.NET does.
//!
//! What waits is an acquire or a read that its backend has answered with 423. As soon as this proxy
//! passes a release of the lock on, whoever came first asks again. When `locks.wait` is over it asks
//! once more, and that answer is passed on whatever it is: a lock that another proxy has seen
//! released is found then, and takeovers by age work as they do without waiting.
//!
//! A web server's thread waits as long, which it does not between two polls. So nobody waits behind
//! a lock that is older than [`MAX_LOCK_AGE_S`]: its page is slow.

use std::sync::Arc;

use super::lock_queue::{ItemHash, LockQueues, QueuePlace};
use crate::metrics::{LockWaitEnd, WorkerShard};
use crate::net::{Conn, Deadline};

/// From this age on a lock is not waited for.
const MAX_LOCK_AGE_S: u64 = 1;

/// One request that waits, or asks after it has waited.
#[derive(Debug)]
pub(super) struct LockWait {
    place: QueuePlace,
    metrics: Arc<WorkerShard>,
    /// When it has waited long enough, of the worker's clock.
    until_ms: u64,
    end: LockWaitEnd,
}

impl LockWait {
    /// Begins to wait for an item that its backend says is locked, since `age_s` seconds, until
    /// `until_ms` of the worker's clock. `None` if that is not worth it, or too many wait.
    pub(super) fn begin(
        queues: &Arc<LockQueues>,
        metrics: &Arc<WorkerShard>,
        item: ItemHash,
        age_s: Option<u64>,
        until_ms: u64,
    ) -> Option<Box<Self>> {
        if age_s.is_some_and(|age_s| age_s >= MAX_LOCK_AGE_S) {
            return None;
        }
        let place = queues.take_place(item);
        if place.is_none() {
            metrics.lock_waits(LockWaitEnd::Refused).increment();
        }
        place.map(|place| Self::at(place, metrics, until_ms))
    }

    /// Stands behind those that wait for the item, if any do: first come, first served.
    pub(super) fn behind_others(
        queues: &Arc<LockQueues>,
        metrics: &Arc<WorkerShard>,
        item: ItemHash,
        until_ms: u64,
    ) -> Option<Box<Self>> {
        let place = queues.behind_others(item)?;
        Some(Self::at(place, metrics, until_ms))
    }

    fn at(place: QueuePlace, metrics: &Arc<WorkerShard>, until_ms: u64) -> Box<Self> {
        metrics.lock_waits_begun.increment();
        Box::new(Self {
            place,
            metrics: Arc::clone(metrics),
            until_ms,
            end: LockWaitEnd::Left,
        })
    }

    /// Whether it goes on waiting, its backend having said once more that the item is locked.
    pub(super) fn found_locked(&mut self) -> bool {
        self.place.found_locked();
        self.end != LockWaitEnd::Expired
    }

    /// Its backend has answered something else, and the lock may be its own now.
    pub(super) fn is_over(&mut self, has_lock: bool) {
        if has_lock {
            self.place.has_lock();
        }
        if self.end == LockWaitEnd::Left {
            self.end = LockWaitEnd::Released;
        }
    }

    /// Waits until it is its turn, or its time is up. False if `client` has left.
    pub(super) async fn wait(&mut self, deadline: &Deadline, due_ms: u64, client: &Conn) -> bool {
        deadline.arm_at(self.until_ms.min(due_ms));
        let is_called = tokio::select! {
            biased;
            called = deadline.guard(self.place.called()) => called.is_ok(),
            () = client.ended() => return false,
        };
        if !is_called {
            self.end = LockWaitEnd::Expired;
        }
        self.place.asks();
        true
    }
}

impl Drop for LockWait {
    fn drop(&mut self) {
        self.metrics.lock_waits(self.end).increment();
    }
}
