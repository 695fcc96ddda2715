//! Time limits without a timer per request.
//!
//! A timer per read and write costs a tenth of the whole data path. Instead every connection has
//! one slot in a table of its worker; arming it is a store, checking it a compare, and a sweep
//! every [`TICK_MS`] wakes the connections whose time is up.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
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
    waker: Option<Waker>,
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
        self.table.slots.borrow_mut()[self.key].due_ms = due_ms;
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
            waker: None,
        };
        self.table.free.borrow_mut().push(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
