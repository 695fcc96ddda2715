//! The memory of sessions that are being moved: the only bodies that are held whole.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Bodies up to this length take no more than any request in progress, and are not counted.
const FREE_BYTES: u64 = 64 << 10;

/// So many of the largest sessions may be moved at a time.
const LARGEST_AT_A_TIME: u64 = 4;

/// What is counted, so that 32 bits are enough.
const UNIT_BYTES: u64 = 1 << 10;

/// What all workers together may hold of sessions that are being moved.
#[derive(Debug)]
pub struct MigrationBudget {
    max_body_bytes: u64,
    units: u32,
    free: Semaphore,
}

impl MigrationBudget {
    /// Room for four sessions of `max_body_bytes`.
    pub fn new(max_body_bytes: u64) -> Arc<Self> {
        let units = units(max_body_bytes.saturating_mul(LARGEST_AT_A_TIME));
        Arc::new(Self {
            max_body_bytes,
            units,
            free: Semaphore::new(units as usize),
        })
    }

    /// The longest body it was made for.
    pub fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes
    }

    /// Waits until there is room for a body, which counts until the permit is dropped. Who came
    /// first is served first. `None` if it takes none worth counting.
    pub(super) async fn take(&self, body_bytes: u64) -> Option<SemaphorePermit<'_>> {
        if body_bytes <= FREE_BYTES {
            return None;
        }
        let taken = self.free.acquire_many(units(body_bytes).min(self.units));
        // It is never closed.
        taken.await.ok()
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// What is there at once, or nobody gets it.
    fn now<F: Future>(future: F) -> Option<F::Output> {
        match poll(pin!(future)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn four_of_the_largest_fit_and_the_next_waits_for_one_of_them() {
        for max_body_bytes in [100 << 10, 64 << 20, 2047 << 20] {
            let memory = MigrationBudget::new(max_body_bytes);
            let take = || now(memory.take(max_body_bytes)).flatten();
            let mut held: Vec<_> = (0..4).map(|_| take().unwrap()).collect();
            let mut next = pin!(memory.take(max_body_bytes));
            assert!(poll(next.as_mut()).is_pending());
            held.pop();
            assert!(poll(next.as_mut()).is_ready());
        }
    }

    #[test]
    fn small_sessions_wait_for_nobody_and_a_small_limit_for_itself() {
        let memory = MigrationBudget::new(1024);
        let _all = now(memory.take(FREE_BYTES + 1)).flatten().unwrap();
        assert!(now(memory.take(FREE_BYTES + 1)).is_none());
        assert!(now(memory.take(FREE_BYTES)).is_some());
    }
}
