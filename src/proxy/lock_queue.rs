//! The requests that wait for a lock: a queue for each item, over all workers.
//!
//! While nobody waits, a request pays one relaxed load. Only requests for items of a shard in which
//! somebody waits take its lock.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Requests that wait for the lock of one item, at most.
const MAX_PER_ITEM: usize = 32;

/// Requests of all workers that wait for a lock, at most. Each holds one buffer of 64 KiB.
const MAX_WAITING: usize = 1024;

const SHARDS: usize = 64;

/// An item, as far as the queues tell items apart: a hash of session id and application. Two that
/// collide share a queue, which costs a question more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ItemHash(u64);

impl ItemHash {
    /// Of the hashes of the session's id and of what stands in front of it.
    #[inline]
    pub(super) fn new(session: u64, application: u64) -> Self {
        Self(session ^ application)
    }

    /// It as a number.
    pub(super) fn bits(self) -> u64 {
        self.0
    }
}

/// All queues of the proxy.
#[derive(Debug)]
pub(super) struct LockQueues {
    waiting: AtomicUsize,
    shards: [Shard; SHARDS],
}

/// Why there is no place in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Nobody waits that one could stand behind.
    NoQueue,
    /// Too many wait already.
    Full,
    /// There are more in front than are worth to be waited for.
    TooFarBehind,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    /// Requests in its queues: all that a request reads while nobody waits in them.
    waiting: AtomicUsize,
    queues: Mutex<HashMap<ItemHash, VecDeque<Arc<Waiter>>>>,
}

/// One request in a queue.
#[derive(Debug)]
struct Waiter {
    /// How often it was its turn. Changes under the shard's lock alone.
    calls: AtomicUsize,
    called: Notify,
}

/// The place of a request in a queue. Whoever leaves it without the lock, although it was its turn,
/// calls the next.
#[derive(Debug)]
pub(super) struct QueuePlace {
    queues: Arc<LockQueues>,
    item: ItemHash,
    /// Requests that stood in front of it when it came.
    ahead: usize,
    waiter: Arc<Waiter>,
    /// The calls that its questions have answered.
    heard: usize,
    last: LastQuestion,
}

/// What has become of the last question for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastQuestion {
    /// The lock was still held, or nothing was asked yet.
    Locked,
    /// No answer so far, or one that leaves no lock behind.
    Open,
    /// The lock was taken.
    Taken,
}

impl Default for LockQueues {
    fn default() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            shards: std::array::from_fn(|_| Shard::default()),
        }
    }
}

impl LockQueues {
    /// Whether anybody may be waiting for the item.
    #[inline]
    pub(super) fn may_be_awaited(&self, item: ItemHash) -> bool {
        self.is_anybody_waiting() && self.shard(item).waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether anybody waits for any lock.
    #[inline]
    pub(super) fn is_anybody_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A place behind those that wait for the item, if they are at most `most_ahead`.
    pub(super) fn behind_others(
        self: &Arc<Self>,
        item: ItemHash,
        most_ahead: usize,
    ) -> Result<QueuePlace, NoPlace> {
        let mut queues = self.shard(item).lock();
        let queue = queues.get_mut(&item).ok_or(NoPlace::NoQueue)?;
        self.append(queue, item, most_ahead, 0)
    }

    /// A place for a request that has just found the item locked, if at most `most_ahead` wait. It is
    /// its turn at once: the lock may have been released before anybody could see it waiting.
    pub(super) fn take_place(
        self: &Arc<Self>,
        item: ItemHash,
        most_ahead: usize,
    ) -> Result<QueuePlace, NoPlace> {
        let mut queues = self.shard(item).lock();
        let queue = queues.entry(item).or_default();
        let place = self.append(queue, item, most_ahead, 1);
        if queue.is_empty() {
            queues.remove(&item);
        }
        place
    }

    fn append(
        self: &Arc<Self>,
        queue: &mut VecDeque<Arc<Waiter>>,
        item: ItemHash,
        most_ahead: usize,
        calls: usize,
    ) -> Result<QueuePlace, NoPlace> {
        if queue.len() > most_ahead {
            return Err(NoPlace::TooFarBehind);
        }
        let is_full = queue.len() >= MAX_PER_ITEM;
        if is_full || self.waiting.fetch_add(1, Ordering::SeqCst) >= MAX_WAITING {
            if !is_full {
                self.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            return Err(NoPlace::Full);
        }
        self.shard(item).waiting.fetch_add(1, Ordering::SeqCst);
        let waiter = Arc::new(Waiter {
            calls: AtomicUsize::new(calls),
            called: Notify::new(),
        });
        let ahead = queue.len();
        queue.push_back(Arc::clone(&waiter));
        Ok(QueuePlace {
            queues: Arc::clone(self),
            item,
            ahead,
            waiter,
            heard: 0,
            last: LastQuestion::Locked,
        })
    }

    /// The item may be free: whoever came first asks for it.
    #[cold]
    pub(super) fn released(&self, item: ItemHash) {
        let queues = self.shard(item).lock();
        if let Some(first) = queues.get(&item).and_then(VecDeque::front) {
            first.call();
        }
    }

    #[inline]
    fn shard(&self, item: ItemHash) -> &Shard {
        &self.shards[item.0 as usize % SHARDS]
    }
}

impl Shard {
    /// What a panicking thread left is whole: nothing in here panics half-way.
    fn lock(&self) -> MutexGuard<'_, HashMap<ItemHash, VecDeque<Arc<Waiter>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    fn call(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.called.notify_one();
    }
}

impl QueuePlace {
    /// Waits for its turn.
    pub(super) async fn called(&self) {
        while !self.is_called() {
            self.waiter.called.notified().await;
        }
    }

    /// Requests that stood in front of it when it came, and those that do now.
    pub(super) fn ahead(&self) -> (usize, usize) {
        let queues = self.queues.shard(self.item).lock();
        let queue = queues.get(&self.item).into_iter().flatten();
        let now = queue.take_while(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        (self.ahead, now.count())
    }

    /// The lock is about to be asked for.
    pub(super) fn asks(&mut self) {
        self.heard = self.waiter.calls.load(Ordering::SeqCst);
        self.last = LastQuestion::Open;
    }

    /// It was still held.
    pub(super) fn found_locked(&mut self) {
        self.last = LastQuestion::Locked;
    }

    /// It belongs to this request now: the next one's turn comes when it is released.
    pub(super) fn has_lock(&mut self) {
        self.last = LastQuestion::Taken;
    }

    fn is_called(&self) -> bool {
        self.waiter.calls.load(Ordering::SeqCst) != self.heard
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let shard = self.queues.shard(self.item);
        let mut queues = shard.lock();
        if let Some(queue) = queues.get_mut(&self.item) {
            queue.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            let is_nexts_turn = match self.last {
                LastQuestion::Taken => false,
                LastQuestion::Open => true,
                LastQuestion::Locked => self.is_called(),
            };
            match queue.front() {
                Some(next) if is_nexts_turn => next.call(),
                Some(_) => {}
                None => {
                    queues.remove(&self.item);
                }
            }
        }
        drop(queues);
        shard.waiting.fetch_sub(1, Ordering::SeqCst);
        self.queues.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    const ITEM: ItemHash = ItemHash(7);
    const OTHER: ItemHash = ItemHash(7 + SHARDS as u64);

    fn queues() -> Arc<LockQueues> {
        Arc::new(LockQueues::default())
    }

    /// A place whose request has asked once more since it took it, in vain.
    fn waiting(queues: &Arc<LockQueues>, item: ItemHash) -> QueuePlace {
        let mut place = queues.take_place(item, usize::MAX).unwrap();
        assert!(is_its_turn(&place), "whoever takes a place asks again");
        place.asks();
        place.found_locked();
        place
    }

    fn is_its_turn(place: &QueuePlace) -> bool {
        let called = pin!(place.called());
        called
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn a_release_calls_whoever_came_first_and_nobody_else() {
        let queues = queues();
        let mut first = waiting(&queues, ITEM);
        let second = queues.behind_others(ITEM, usize::MAX).unwrap();
        let other = waiting(&queues, OTHER);
        queues.released(ITEM);
        assert!(is_its_turn(&first) && !is_its_turn(&second) && !is_its_turn(&other));
        first.asks();
        first.has_lock();
        drop(first);
        assert!(!is_its_turn(&second), "the lock is held");
        queues.released(ITEM);
        assert!(is_its_turn(&second));
    }

    #[test]
    fn a_release_during_a_question_is_heard_after_it() {
        let queues = queues();
        let mut place = waiting(&queues, ITEM);
        queues.released(ITEM);
        place.asks();
        assert!(!is_its_turn(&place));
        queues.released(ITEM);
        place.found_locked();
        assert!(is_its_turn(&place));
    }

    #[test]
    fn who_leaves_without_the_lock_in_its_turn_calls_the_next() {
        type Leaves = fn(&mut QueuePlace);
        let leave: [(&str, Leaves, bool); 4] = [
            ("its client has left while it waited", |_| {}, false),
            (
                "left before it could ask",
                |place| place.queues.released(ITEM),
                true,
            ),
            (
                "it read, or found nothing, or failed",
                QueuePlace::asks,
                true,
            ),
            (
                "its time was up",
                |place| {
                    place.asks();
                    place.found_locked();
                },
                false,
            ),
        ];
        for (why, leaves, calls_next) in leave {
            let queues = queues();
            let mut first = waiting(&queues, ITEM);
            let second = queues.behind_others(ITEM, usize::MAX).unwrap();
            leaves(&mut first);
            drop(first);
            assert_eq!(is_its_turn(&second), calls_next, "{why}");
        }
    }

    #[test]
    fn nobody_stands_behind_nobody_and_empty_queues_are_gone() {
        let queues = queues();
        assert!(queues.behind_others(ITEM, usize::MAX).is_err());
        assert!(!queues.may_be_awaited(ITEM));
        let place = waiting(&queues, ITEM);
        assert!(queues.may_be_awaited(ITEM) && queues.is_anybody_waiting());
        drop(place);
        assert!(!queues.may_be_awaited(ITEM) && !queues.is_anybody_waiting());
        assert!(queues.shard(ITEM).lock().is_empty());
    }

    #[test]
    fn the_queues_have_bounds() {
        let queues = queues();
        let mut places: Vec<_> = (0..MAX_PER_ITEM)
            .map(|_| queues.take_place(ITEM, usize::MAX).unwrap())
            .collect();
        assert!(queues.take_place(ITEM, usize::MAX).is_err());
        assert!(queues.behind_others(ITEM, usize::MAX).is_err());
        let others =
            (0..).map_while(|number| queues.take_place(ItemHash(number + 1000), usize::MAX).ok());
        places.extend(others.take(2 * MAX_WAITING));
        assert_eq!(places.len(), MAX_WAITING);
        drop(places);
        assert!(queues.shards.iter().all(|shard| shard.lock().is_empty()));
        assert!(queues.take_place(ITEM, usize::MAX).is_ok());
    }

    #[test]
    fn a_place_too_far_behind_is_none_and_the_others_know_how_many_are_ahead() {
        let queues = queues();
        assert_eq!(queues.behind_others(ITEM, 9).unwrap_err(), NoPlace::NoQueue);
        let first = waiting(&queues, ITEM);
        let second = queues.behind_others(ITEM, 1).unwrap();
        let third = queues.take_place(ITEM, 2).unwrap();
        for refused in [queues.behind_others(ITEM, 2), queues.take_place(ITEM, 2)] {
            assert_eq!(refused.unwrap_err(), NoPlace::TooFarBehind);
        }
        assert_eq!((first.ahead(), third.ahead()), ((0, 0), (2, 2)));
        drop(second);
        assert_eq!(third.ahead(), (2, 1));
    }
}
