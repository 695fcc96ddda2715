//! What one worker goes by: a snapshot, with its own connections to the backends.

use std::rc::Rc;
use std::sync::Arc;

use super::snapshot::{Backend, Snapshot};
use crate::backend::{AskLimits, ConnectionPool, PoolLimits, Upstream};
use crate::metrics::{ApplicationShard, BackendShard};
use crate::net::{Deadline, TimeSpent, Worker};
use crate::route::BackendIndex;

/// A snapshot with this worker's connection pools and counters, one of each per backend, in the
/// snapshot's order.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pools: Vec<Rc<ConnectionPool>>,
    shards: Vec<Arc<BackendShard>>,
    /// One for each application, and the last for all others; none where the map has none.
    pub(super) applications: Vec<Arc<ApplicationShard>>,
    /// How the account of sessions calls each of them.
    application_numbers: Vec<u8>,
}

impl View {
    /// Pools of backends that were there before keep their connections, unless they are asked at
    /// another address now: what is idle or under way at the one before is used no more. What is under
    /// way at a backend that is down is broken off.
    pub(super) fn new(snapshot: Arc<Snapshot>, previous: Option<&Self>, worker: &Worker) -> Self {
        let limits = PoolLimits {
            max_idle: snapshot.max_idle_backend_connections,
            max_idle_ms: snapshot.timeouts.backend_idle.as_millis() as u64,
        };
        let pool = |backend: &Backend| {
            let kept = previous.and_then(|previous| previous.pool_of(backend));
            let pool = kept
                .unwrap_or_else(|| Rc::new(ConnectionPool::new(backend.server.clone(), limits)));
            pool.set_limits(limits);
            match backend.up {
                true => pool.resume(),
                false => pool.break_off(&worker.deadlines),
            }
            pool
        };
        let pools = snapshot.backends.iter().map(pool).collect();
        let shards = snapshot.backends.iter();
        let shards = shards.map(|backend| backend.metrics.shard(worker.index));
        let applications = || {
            let applications = snapshot.applications.iter();
            applications.flat_map(|set| set.metrics())
        };
        let application_shards = applications().map(|metrics| metrics.shard(worker.index));
        Self {
            applications: application_shards.collect(),
            application_numbers: applications().map(|metrics| metrics.number).collect(),
            pools,
            shards: shards.collect(),
            snapshot,
        }
    }

    pub(super) fn backend(&self, index: BackendIndex) -> &Backend {
        &self.snapshot.backends[index.index()]
    }

    pub(super) fn pool(&self, index: BackendIndex) -> &Rc<ConnectionPool> {
        &self.pools[index.index()]
    }

    /// What this worker counts of a backend.
    pub(super) fn shard(&self, index: BackendIndex) -> &BackendShard {
        &self.shards[index.index()]
    }

    /// How the account of sessions calls an application.
    #[inline]
    pub(super) fn application_number(&self, index: usize) -> u8 {
        self.application_numbers.get(index).copied().unwrap_or(0)
    }

    /// The way to a backend for one request.
    pub(super) fn upstream<'a>(
        &'a self,
        worker: &'a Worker,
        index: BackendIndex,
        deadline: &'a Deadline,
        due_ms: u64,
        waited: &'a TimeSpent,
    ) -> Upstream<'a> {
        let timeouts = &self.snapshot.timeouts;
        Upstream {
            pool: self.pool(index),
            shard: self.shard(index),
            buffers: &worker.buffers,
            deadline,
            limits: AskLimits {
                connect: timeouts.connect,
                answer: timeouts.answer,
                max_head_bytes: self.snapshot.head_limits.max_head_bytes,
            },
            due_ms,
            waited,
        }
    }

    fn pool_of(&self, backend: &Backend) -> Option<Rc<ConnectionPool>> {
        let index = self
            .snapshot
            .backends
            .iter()
            .position(|known| known.name == backend.name && known.server == backend.server)?;
        Some(Rc::clone(&self.pools[index]))
    }

    /// Looks after the idle connections.
    pub(super) fn tick(&self, now_ms: u64) {
        for (pool, shard) in self.pools.iter().zip(&self.shards) {
            shard.unfit.add(pool.sweep(now_ms));
            shard.idle.set(pool.len() as u64);
        }
    }
}
