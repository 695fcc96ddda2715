//! Time limits without a timer per request.
//!
//! A timer per read and write costs a tenth of the whole data path. Instead every connection has
//! one slot in a table of its worker; arming it is a store, checking it a compare, and a sweep
//! every [`TICK_MS`] wakes the connections whose time is up.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How often a worker looks at its deadlines: the error of every time limit, in milliseconds.
pub const TICK_MS: u64 = 100;

/// A due time that never comes.
const NEVER_MS: u64 = u64::MAX;

/// The deadlines of one worker and its coarse clock.
#[derive(Debug, Default)]
pub struct Deadlines {
    now_ms: Cell<u64>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<usize>>,
}

#[derive(Debug)]
struct Slot {
    due_ms: u64,
    /// Who is awaited, if it is somebody who may be given up.
    party: Party,
    waker: Option<Waker>,
}

/// Somebody whom several connections may be waiting for, and who may be given up for all of them at
/// once: see [`Deadlines::give_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party(u32);

impl Party {
    /// Nobody.
    const NOBODY: Self = Self(0);

    /// Another one than all before.
    pub fn new() -> Self {
        static KNOWN: AtomicU32 = AtomicU32::new(1);
        Self(KNOWN.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Party {
    fn default() -> Self {
        Self::new()
    }
}

/// The time limit of a connection was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired;

impl Deadlines {
    /// An empty table at time 0.
    pub fn new() -> Rc<Self> {
        Rc::new(Self::default())
    }

    /// Milliseconds since the worker started, exact to [`TICK_MS`].
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// A new slot, not armed.
    pub fn register(self: &Rc<Self>) -> Deadline {
        let mut slots = self.slots.borrow_mut();
        let slot = Slot {
            due_ms: NEVER_MS,
            party: Party::NOBODY,
            waker: None,
        };
        let key = match self.free.borrow_mut().pop() {
            Some(key) => {
                slots[key] = slot;
                key
            }
            None => {
                slots.push(slot);
                slots.len() - 1
            }
        };
        Deadline {
            table: Rc::clone(self),
            key,
        }
    }

    /// Waits for `pause`, and up to two [`TICK_MS`] longer.
    pub async fn sleep(self: &Rc<Self>, pause: Duration) {
        let deadline = self.register();
        deadline.arm(pause);
        poll_fn(|cx| match deadline.poll_expired(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Moves the clock and wakes every connection whose time is up.
    pub fn advance(&self, now_ms: u64) {
        self.now_ms.set(now_ms);
        for slot in self.slots.borrow().iter() {
            if slot.due_ms <= now_ms {
                wake(slot);
            }
        }
    }

    /// Ends the time of every connection that waits for `party`.
    pub fn give_up(&self, party: Party) {
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.party == party {
                slot.due_ms = 0;
                wake(slot);
            }
        }
    }

    /// Wakes every connection, so that each can look whether the worker is stopping.
    pub fn wake_all(&self) {
        self.slots.borrow().iter().for_each(wake);
    }
}

fn wake(slot: &Slot) {
    if let Some(waker) = &slot.waker {
        waker.wake_by_ref();
    }
}

/// One connection's place in the table.
#[derive(Debug)]
pub struct Deadline {
    table: Rc<Deadlines>,
    key: usize,
}

impl Deadline {
    /// Sets the limit to `limit` from now.
    pub fn arm(&self, limit: Duration) {
        self.arm_at(self.after_ms(limit));
    }

    /// Sets the limit to a time of the worker's clock, see [`Self::after_ms`].
    pub fn arm_at(&self, due_ms: u64) {
        self.arm_for(Party::NOBODY, due_ms);
    }

    /// The same for a wait that is over as soon as `party` is given up.
    pub fn arm_for(&self, party: Party, due_ms: u64) {
        let slot = &mut self.table.slots.borrow_mut()[self.key];
        (slot.due_ms, slot.party) = (due_ms, party);
    }

    /// The time of the worker's clock at which `limit` from now has certainly passed.
    pub fn after_ms(&self, limit: Duration) -> u64 {
        self.now_ms() + limit.as_millis() as u64 + TICK_MS
    }

    /// The limit, as [`Self::arm_at`] set it.
    pub fn due_ms(&self) -> u64 {
        self.table.slots.borrow()[self.key].due_ms
    }

    /// The worker's coarse clock.
    pub fn now_ms(&self) -> u64 {
        self.table.now_ms()
    }

    /// One more of the same worker, not armed.
    pub fn another(&self) -> Self {
        self.table.register()
    }

    /// Whether the limit is reached; if not, the task of `cx` is woken when it is.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> bool {
        let slot = &mut self.table.slots.borrow_mut()[self.key];
        if slot.due_ms <= self.table.now_ms.get() {
            return true;
        }
        if !slot
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            slot.waker = Some(cx.waker().clone());
        }
        false
    }

    /// Runs `future` until it is done or the limit is reached.
    ///
    /// # Errors
    /// [`Expired`], with the future dropped.
    pub async fn guard<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if self.poll_expired(cx) => Poll::Ready(Err(Expired)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.table.slots.borrow_mut()[self.key] = Slot {
            due_ms: NEVER_MS,
            party: Party::NOBODY,
            waker: None,
        };
        self.table.free.borrow_mut().push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct CountWakes(AtomicUsize);

    impl std::task::Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_deadline_wakes_its_task_once_its_time_is_up_and_not_before() {
        let table = Deadlines::new();
        let wakes = Arc::new(CountWakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let deadline = table.register();
        assert!(!deadline.poll_expired(&mut cx));
        deadline.arm(Duration::from_secs(2));
        table.advance(2_000);
        assert!(!deadline.poll_expired(&mut cx));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
        table.advance(2_000 + TICK_MS);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(deadline.poll_expired(&mut cx));
    }

    #[test]
    fn who_waits_for_a_party_that_is_given_up_waits_no_longer_and_nobody_else_is_woken() {
        let table = Deadlines::new();
        let [given_up, other] = [Party::new(), Party::new()];
        let wakes = Arc::new(CountWakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let waiting = [(); 3].map(|()| table.register());
        waiting[0].arm_for(given_up, 60_000);
        waiting[1].arm_for(other, 60_000);
        waiting[2].arm_for(given_up, 60_000);
        // It has been heard, and the client is waited for now.
        waiting[2].arm_at(60_000);
        let mut expired = || waiting.each_ref().map(|one| one.poll_expired(&mut cx));
        assert_eq!(expired(), [false; 3]);
        table.give_up(given_up);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(expired(), [true, false, false]);
    }

    #[test]
    fn a_freed_slot_starts_unarmed() {
        let table = Deadlines::new();
        let first = table.register();
        first.arm(Duration::ZERO);
        drop(first);
        table.advance(10_000);
        let second = table.register();
        assert_eq!(second.key, 0);
        assert!(!second.poll_expired(&mut Context::from_waker(Waker::noop())));
    }
}
