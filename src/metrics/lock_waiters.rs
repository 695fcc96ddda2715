//! The requests of one web server that wait for locks, and how they are called off.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Those that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct LockWaiters(Vec<Arc<LockWaiter>>);

/// One of them.
#[derive(Debug, Default)]
pub(super) struct LockWaiter(Mutex<CallOff>);

/// Whether it is called off, and who is to hear of it.
#[derive(Debug, Default)]
struct CallOff {
    is_called_off: bool,
    waker: Option<Waker>,
}

impl LockWaiters {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self) -> Arc<LockWaiter> {
        let waiter = Arc::<LockWaiter>::default();
        self.0.push(Arc::clone(&waiter));
        waiter
    }

    pub(super) fn remove(&mut self, waiter: &Arc<LockWaiter>) {
        self.0.retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// Calls those off that came last: the others have waited for longer, and most of them stand in
    /// front of these.
    pub(super) fn call_off(&mut self, count: usize) {
        let from = self.0.len().saturating_sub(count);
        for waiter in self.0.drain(from..) {
            waiter.call_off();
        }
    }
}

impl LockWaiter {
    /// Completes once it is called off.
    pub(super) async fn is_called_off(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.is_called_off {
                return Poll::Ready(());
            }
            state.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn call_off(&self) {
        let mut state = self.lock();
        state.is_called_off = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// What a panicking thread left is whole: nothing in here panics half-way.
    fn lock(&self) -> MutexGuard<'_, CallOff> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_came_last_is_called_off_first_and_is_woken() {
        let mut waiters = LockWaiters::default();
        let [first, left, second, last] = [(); 4].map(|()| waiters.add());
        waiters.remove(&left);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut is_called_off = |waiter: &LockWaiter| {
            let called_off = pin!(waiter.is_called_off());
            called_off.poll(&mut context).is_ready()
        };
        assert!(!is_called_off(&second) && !is_called_off(&last));
        waiters.call_off(2);
        assert_eq!((waiters.len(), woken.0.load(Ordering::Relaxed)), (1, 2));
        let called_off = [&first, &left, &second, &last].map(|waiter| is_called_off(waiter));
        assert_eq!(called_off, [false, false, true, true]);
        waiters.call_off(7);
        assert!(is_called_off(&first), "there is no other");
    }
}
