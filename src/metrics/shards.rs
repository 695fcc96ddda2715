//! One block of numbers per worker.

use std::sync::{Arc, Mutex, PoisonError};

/// Blocks of numbers, each written by one worker. The lock is taken when a worker looks its block
/// up for good, by readers, and while requests wait for locks.
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

    /// A number over all of them.
    pub(super) fn sum(&self, number: impl Fn(&T) -> u64) -> u64 {
        let shards = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shards.iter().map(|shard| number(shard)).sum()
    }

    /// All there are.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        let shards = self.0.lock();
        shards.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
