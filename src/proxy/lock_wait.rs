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

use std::rc::Rc;
use std::sync::Arc;

use super::attempt::Attempt;
use super::error::{ProxyError, Unanswered};
use super::lock_queue::{ItemHash, QueuePlace};
use super::request_log::Subject;
use super::service::ProxyService;
use crate::metrics::{LockWaitEnd, RequestOutcome, WorkerShard};
use crate::net::{Conn, Deadline, IoError, Moment};
use crate::route::BackendIndex;
use crate::wire::Operation;

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
    /// Begins to wait for an item that its backend says is locked, since `age_s` seconds. `None` if
    /// that is not worth it, or too many wait.
    pub(super) fn begin(
        service: &ProxyService,
        item: ItemHash,
        age_s: Option<u64>,
        wait_ms: u64,
    ) -> Option<Box<Self>> {
        if age_s.is_some_and(|age_s| age_s >= MAX_LOCK_AGE_S) {
            return None;
        }
        let place = service.lock_queues.take_place(item);
        if place.is_none() {
            service.metrics.lock_waits(LockWaitEnd::Refused).increment();
        }
        place.map(|place| Self::at(place, service, wait_ms))
    }

    /// Stands behind those that wait for the item, if any do: first come, first served.
    pub(super) fn behind_others(
        service: &ProxyService,
        item: ItemHash,
        wait_ms: u64,
    ) -> Option<Box<Self>> {
        let place = service.lock_queues.behind_others(item)?;
        Some(Self::at(place, service, wait_ms))
    }

    fn at(place: QueuePlace, service: &ProxyService, wait_ms: u64) -> Box<Self> {
        service.metrics.lock_waits_begun.increment();
        Box::new(Self {
            place,
            metrics: Arc::clone(&service.metrics),
            until_ms: service.now_ms() + wait_ms,
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
    async fn wait(&mut self, deadline: &Deadline, due_ms: u64, client: &Conn) -> bool {
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

/// Waits for the turn of `attempt`, if it has a place in a queue. The time counts as spent on
/// backends.
///
/// # Errors
/// The client has left.
pub(super) async fn await_turn(
    attempt: &mut Attempt,
    deadline: &Deadline,
    client: &Conn,
    backend: BackendIndex,
) -> Result<(), Unanswered> {
    let Some(lock_wait) = &mut attempt.progress.lock_wait else {
        return Ok(());
    };
    let begun = Moment::now();
    let is_there = lock_wait.wait(deadline, attempt.due_ms, client).await;
    let waited = &attempt.progress.waited;
    waited.set(waited.get() + begun.elapsed());
    match is_there {
        true => Ok(()),
        false => {
            let left = ProxyError::Client(IoError::Closed);
            Err(Unanswered::new(left, backend))
        }
    }
}

/// Calls whoever waits for the session, if the answer that was passed on says that it may be free. A
/// request that had to look at two places may have locked it for a moment of its own.
#[cold]
pub(super) fn passed_on(service: &ProxyService, subject: &Subject, outcome: RequestOutcome) {
    let releases = matches!(
        subject.operation,
        Operation::Put | Operation::Release | Operation::Remove
    );
    let is_released = releases && outcome == RequestOutcome::Ok;
    if is_released || subject.route.second.is_some() {
        service.lock_queues.released(subject.item);
    }
}

/// A lock was given back of which no client knew.
pub(super) fn given_back(service: &Rc<ProxyService>, target: &[u8]) {
    if service.lock_queues.is_anybody_waiting()
        && let Ok(located) = service.locate(&service.view(), target)
    {
        service.lock_queues.released(located.item);
    }
}
