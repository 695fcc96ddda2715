//! What is counted per application.

use std::sync::Arc;

use super::backend::Outcomes;
use super::counter::Counter;
use super::shards::Shards;

/// What is counted of one application of the partition map, or of all others together.
#[derive(Debug)]
pub struct ApplicationMetrics {
    /// Its label.
    pub name: String,
    /// How the account of sessions calls it; 0 for all that are not in the map.
    pub number: u8,
    shards: Shards<ApplicationShard>,
}

/// The part of one worker. No other thread writes here.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ApplicationShard {
    /// Its requests.
    pub requests: Outcomes,
    /// Those of them whose target was changed.
    pub renamed: Counter,
}

/// What was counted of one application.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplicationCounts {
    /// Its requests, however they ended.
    pub requests: u64,
    /// Those of them that made the page fail.
    pub failed: u64,
    /// Those whose target was changed.
    pub renamed: u64,
}

impl ApplicationMetrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            number,
            shards: Shards::default(),
        }
    }

    /// The part of the worker with this number. To be asked for when a snapshot is taken over, and
    /// not per request.
    pub fn shard(&self, worker: usize) -> Arc<ApplicationShard> {
        self.shards.of_worker(worker)
    }

    /// What was counted so far.
    pub fn counts(&self) -> ApplicationCounts {
        let mut counts = ApplicationCounts::default();
        for shard in self.shards.all() {
            counts.requests += shard.requests.total();
            counts.failed += shard.requests.failed();
            counts.renamed += shard.renamed.get();
        }
        counts
    }

    /// A number over all workers.
    pub(super) fn sum(&self, number: impl Fn(&ApplicationShard) -> u64) -> u64 {
        self.shards.sum(number)
    }
}
