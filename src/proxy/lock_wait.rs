//! Requests for a locked session that wait for the lock here, instead of asking again after half a
//! second as ASP.NET does.
//!
//! What waits is an acquire or a read that its backend has answered with 423. As soon as this proxy
//! passes a release of the lock on, whoever came first asks again. When `locks.wait` is over it asks
//! once more, and that answer is passed on whatever it is: a lock that another proxy has seen
//! released is found then, and takeovers by age work as they do without waiting.
//!
//! A web server's thread waits as long, which it does not between two polls. So nobody waits in vain
//! if that can be told before: behind a lock that is older than [`MAX_LOCK_AGE_S`], or behind so many
//! that, by what others have met, the time is up before it is their turn. And a web server keeps
//! threads for other pages: a request may wait only while some are idle, and is called off when they
//! are not. Then it asks once more, as it does when its time is up.

use std::sync::Arc;

use super::lock_pace::LockPaces;
use super::lock_queue::{ItemHash, LockQueues, NoPlace, QueuePlace};
use crate::metrics::{LockWaitEnd, WaitingOfWebServer, WebServerConnection, WorkerShard};
use crate::net::{Conn, Deadline, Moment};

/// From this age on a lock is not waited for.
const MAX_LOCK_AGE_S: u64 = 1;

/// A request that wants a lock, and under which terms it may wait for it.
pub(super) struct LockTerms<'a> {
    pub(super) queues: &'a Arc<LockQueues>,
    pub(super) paces: &'a Arc<LockPaces>,
    pub(super) metrics: &'a Arc<WorkerShard>,
    pub(super) web_server: &'a WebServerConnection,
    pub(super) item: ItemHash,
    /// How long it may wait.
    pub(super) wait_ms: u64,
    /// Of the worker's clock.
    pub(super) now_ms: u64,
}

/// One request that waits, or asks after it has waited.
#[derive(Debug)]
pub(super) struct LockWait {
    place: QueuePlace,
    metrics: Arc<WorkerShard>,
    paces: Arc<LockPaces>,
    item: ItemHash,
    begun: Moment,
    wait_ms: u64,
    /// When it has waited long enough, of the worker's clock.
    until_ms: u64,
    end: LockWaitEnd,
    of_web_server: WaitingOfWebServer,
}

impl LockTerms<'_> {
    /// How many may be in front: each of them has the lock for a while, and so has its holder.
    fn most_ahead(&self) -> Result<usize, LockWaitEnd> {
        let Some(pace_ms) = self.paces.of(self.item, self.now_ms) else {
            return Ok(usize::MAX);
        };
        let turns = self.wait_ms / pace_ms.max(1);
        let ahead = turns.checked_sub(1).ok_or(LockWaitEnd::Hopeless)?;
        Ok(usize::try_from(ahead).unwrap_or(usize::MAX))
    }

    fn take(
        &self,
        place: impl FnOnce(usize) -> Result<QueuePlace, NoPlace>,
    ) -> Result<Box<LockWait>, LockWaitEnd> {
        let most_ahead = self.most_ahead()?;
        let of_web_server = self
            .web_server
            .wait(self.now_ms)
            .ok_or(LockWaitEnd::Refused)?;
        let place = place(most_ahead).map_err(|none| match none {
            NoPlace::TooFarBehind => LockWaitEnd::Hopeless,
            NoPlace::Full | NoPlace::NoQueue => LockWaitEnd::Refused,
        })?;
        self.metrics.lock_waits_begun.increment();
        Ok(Box::new(LockWait {
            place,
            metrics: Arc::clone(self.metrics),
            paces: Arc::clone(self.paces),
            item: self.item,
            begun: Moment::now(),
            wait_ms: self.wait_ms,
            until_ms: self.now_ms + self.wait_ms,
            end: LockWaitEnd::Left,
            of_web_server,
        }))
    }
}

impl LockWait {
    /// Begins to wait for an item that its backend says is locked, since `age_s` seconds. `None` if
    /// that is not worth it, or too many wait.
    pub(super) fn begin(terms: &LockTerms<'_>, age_s: Option<u64>) -> Option<Box<Self>> {
        if age_s.is_some_and(|age_s| age_s >= MAX_LOCK_AGE_S) {
            return None;
        }
        let taken = terms.take(|most_ahead| terms.queues.take_place(terms.item, most_ahead));
        taken
            .inspect_err(|why| terms.metrics.lock_waits(*why).increment())
            .ok()
    }

    /// Stands behind those that wait for the item, if any do: first come, first served. Who may not
    /// asks its backend.
    pub(super) fn behind_others(terms: &LockTerms<'_>) -> Option<Box<Self>> {
        let taken = terms.take(|most_ahead| terms.queues.behind_others(terms.item, most_ahead));
        taken.ok()
    }

    /// Whether it goes on waiting, its backend having said once more that the item is locked.
    pub(super) fn found_locked(&mut self) -> bool {
        self.place.found_locked();
        if self.end == LockWaitEnd::Expired {
            // Who has seen nobody go on thinks that the lock is held for twice as long.
            let (ahead, still_ahead) = self.place.ahead();
            let pages = ahead.saturating_sub(still_ahead) as u64 + 1;
            self.learn(2 * self.wait_ms / pages);
        }
        self.end == LockWaitEnd::Left
    }

    /// Its backend has answered something else, and the lock may be its own now.
    pub(super) fn is_over(&mut self, has_lock: bool) {
        // Its page keeps the thread from here on.
        self.of_web_server.waits_no_more();
        if has_lock {
            self.place.has_lock();
        }
        if self.end == LockWaitEnd::Left {
            self.end = LockWaitEnd::Released;
        }
        let waited_ms = self.waited_ms();
        if waited_ms > 0 {
            let pages = self.place.ahead().0 as u64 + 1;
            self.learn(waited_ms / pages);
        }
    }

    /// In whole milliseconds: who has the lock sooner has not waited for it.
    fn waited_ms(&self) -> u64 {
        self.begun.elapsed_ns() / 1_000_000
    }

    fn learn(&self, pace_ms: u64) {
        let now_ms = self.until_ms - self.wait_ms + self.waited_ms();
        self.paces.learn(self.item, pace_ms, now_ms);
    }

    /// Waits until it is its turn, its time is up, or its web server needs the thread. False if `client`
    /// has left.
    pub(super) async fn wait(
        &mut self,
        deadline: &Deadline,
        due_ms: u64,
        client: &mut Conn,
    ) -> bool {
        deadline.arm_at(self.until_ms.min(due_ms));
        tokio::select! {
            biased;
            called = deadline.guard(self.place.called()) => if called.is_err() {
                self.end = LockWaitEnd::Expired;
            },
            () = self.of_web_server.is_called_off() => self.end = LockWaitEnd::CalledOff,
            () = client.ended() => return false,
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
