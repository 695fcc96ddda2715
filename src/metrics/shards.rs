//! One block of numbers per worker.

use std::sync::{Arc, Mutex, PoisonError};

/// Blocks of numbers, each written by one worker. The lock is taken when a worker looks its block
/// up for good, and by readers; never per request.
#[derive(Debug, Default)]
pub(super) struct Shards<T>(Mutex<Vec<Arc<T>>>);

impl<T: Default> Shards<T> {
    /// The block of the worker with this number, the same at every call.
    pub(super) fn of_worker(&self, index: usize) -> Arc<T> {
        let mut shards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while shards.len() <= index {
            shards.push(Arc::default());
        }
        Arc::clone(&shards[index])
    }

    /// All there are.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        let shards = self.0.lock();
        shards.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
