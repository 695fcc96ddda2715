//! The threads that a web server runs its pages on.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How soon a server that has pages waiting for a thread gets one more.
const GROWTH: Duration = Duration::from_millis(500);

/// As many as ASP.NET has them: few at first, and more only slowly, one at a time, while pages wait
/// for one. A page keeps its thread while it asks the state server, and gives it back between two
/// polls.
#[derive(Debug)]
pub(crate) struct WebThreads {
    free: Arc<Semaphore>,
    /// Pages that wait for one.
    waiting: Cell<usize>,
}

impl WebThreads {
    /// So many at first.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(count)),
            waiting: Cell::new(0),
        }
    }

    /// A thread, first come, first served; it is free again when what is returned is dropped.
    pub(crate) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(thread) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(thread);
        }
        self.waiting.set(self.waiting.get() + 1);
        // It is never closed.
        let thread = Arc::clone(&self.free).acquire_owned().await.ok();
        self.waiting.set(self.waiting.get() - 1);
        thread
    }

    /// Adds threads while pages wait for one, until it is dropped.
    pub(crate) async fn grow(&self) {
        loop {
            tokio::time::sleep(GROWTH).await;
            if self.waiting.get() > 0 {
                self.free.add_permits(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_finds_no_thread_free_waits_for_one_that_is_given_back_or_added() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(async {
            let threads = WebThreads::new(1);
            let first = threads.take().await;
            let given_back = async {
                tokio::task::yield_now().await;
                drop(first);
            };
            let (second, ()) = tokio::join!(threads.take(), given_back);
            let third = tokio::select! {
                third = threads.take() => third,
                () = threads.grow() => None,
            };
            assert!(second.is_some() && third.is_some());
        });
    }
}
