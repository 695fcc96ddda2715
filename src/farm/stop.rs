//! The handle that ends a run in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Ends a run: pages in progress finish, no new ones begin. Clones are the same handle. A run that
/// ends by itself sets it too.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    is_stopped: AtomicBool,
    stopped: Notify,
}

impl Stop {
    /// Ends the run.
    pub fn stop(&self) {
        self.inner.is_stopped.store(true, Ordering::SeqCst);
        self.inner.stopped.notify_waiters();
    }

    /// Whether the run has been ended.
    pub fn is_stopped(&self) -> bool {
        self.inner.is_stopped.load(Ordering::Relaxed)
    }

    /// Waits until the run is ended.
    pub async fn stopped(&self) {
        let notified = self.inner.stopped.notified();
        tokio::pin!(notified);
        // Listed as a waiter before looking, so that no stop falls between the two.
        notified.as_mut().enable();
        if !self.inner.is_stopped.load(Ordering::SeqCst) {
            notified.await;
        }
    }
}
