//! How many requests of one worker wait for a backend, and what they wait for.

use std::cell::Cell;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Requests of one worker that wait at a time, at most. Each holds one buffer of 64 KiB.
const MAX_HELD: usize = 1024;

/// Those of one worker.
#[derive(Debug, Default)]
pub(super) struct Holding {
    held: Cell<usize>,
    changed: Notify,
}

impl Holding {
    /// Whether one more may wait.
    pub(super) fn take_in(&self) -> bool {
        let may_wait = self.held.get() < MAX_HELD;
        self.held.set(self.held.get() + usize::from(may_wait));
        may_wait
    }

    /// One of them waits no more.
    pub(super) fn let_out(&self) {
        self.held.set(self.held.get() - 1);
    }

    /// Waits for another snapshot.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Another snapshot is in force: all look again, in the order in which they came.
    pub(super) fn go_on(&self) {
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::task::{Context, Wake, Waker};

    use super::*;

    /// Notes its number when it is woken.
    struct Noted(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Noted {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn who_came_first_goes_on_first() {
        let holding = Holding::default();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut waiting: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for number in 0..100 {
            let waker = Waker::from(Arc::new(Noted(number, Arc::clone(&woken))));
            let mut next = Box::pin(holding.changed());
            assert!(
                next.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
            waiting.push(next);
        }
        holding.go_on();
        assert_eq!(*woken.lock().unwrap(), Vec::from_iter(0..100));
    }
}
