//! What is in force: built as a whole, swapped as a whole, never changed.

use std::sync::Arc;
use std::time::Duration;

use super::applications::ApplicationSet;
use super::migration_budget::MigrationBudget;
use crate::backend::Connector;
use crate::config::{AllowList, Config, Timeouts};
use crate::handover::{BackendId, BackendMap, SlotTable};
use crate::metrics::BackendMetrics;
use crate::route::{BackendIndex, HashKey};
use crate::wire::HeadLimits;

/// Shortest time after which a lock is not held by a request that is moving its item, whatever
/// the timeouts of this proxy: others may have longer ones.
const MIN_MOVER_S: u64 = 10;

/// No backend has this place.
const NOBODY: u8 = u8::MAX;

/// One state server: of the map, or one that is no longer in it and still holds sessions.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its name: identity, log and report label.
    pub name: String,
    /// Its number in lock cookies.
    pub backend_id: BackendId,
    /// The way to it: one server for all workers.
    pub server: Connector,
    /// Whether it is asked at all. Requests that need one that is down fail at once.
    pub up: bool,
    /// What is counted of it, kept over all snapshots.
    pub metrics: Arc<BackendMetrics>,
}

/// Slots, backends, limits. A request sees exactly one of these from start to end.
#[derive(Debug)]
pub struct Snapshot {
    /// Higher than that of every one before: how control sees which one a worker goes by.
    pub number: u64,
    /// Version of the partition map.
    pub map_version: u64,
    /// The key under which session ids become slots.
    pub hash_key: HashKey,
    /// Where the items of each slot can be.
    pub slots: SlotTable,
    /// The backends; [`BackendIndex`] counts here.
    pub backends: Vec<Backend>,
    /// Position of each place in `backends`.
    index_of: BackendMap<u8>,
    /// Who may connect.
    pub allow: AllowList,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Limits on heads and bodies.
    pub head_limits: HeadLimits,
    /// What all workers together may hold of sessions that are being moved.
    pub moves: Arc<MigrationBudget>,
    /// Idle connections per backend and worker.
    pub max_idle_backend_connections: usize,
    /// Longest time one request takes, in whole seconds, streaming of bodies left out.
    pub mover_s: u64,
    /// Age in whole seconds from which ASP.NET breaks a lock.
    pub takeover_s: u64,
    /// How long a request waits for a backend that is down.
    pub hold: Duration,
    /// The applications that go by several ids, if there are any.
    pub applications: Option<Arc<ApplicationSet>>,
    /// How long a request waits for a lock, in milliseconds; 0 for not at all.
    pub lock_wait_ms: u64,
    /// A session of this length or more is a large one.
    pub large_session_bytes: u64,
}

impl Snapshot {
    /// `backends` as they stand now and the slots among them, under the limits of `config`.
    pub fn new(
        config: &Config,
        map_version: u64,
        hash_key: HashKey,
        slots: SlotTable,
        backends: Vec<Backend>,
        moves: Arc<MigrationBudget>,
        applications: Option<Arc<ApplicationSet>>,
    ) -> Self {
        let mut index_of = BackendMap::filled(NOBODY);
        for (backend, index) in backends.iter().zip(0..NOBODY) {
            index_of[backend.backend_id] = index;
        }
        Self {
            number: 0,
            map_version,
            hash_key,
            slots,
            backends,
            index_of,
            allow: config.allow.clone(),
            timeouts: config.timeouts,
            head_limits: HeadLimits {
                max_head_bytes: config.limits.head_bytes,
                max_body_bytes: config.limits.body_bytes,
            },
            moves,
            max_idle_backend_connections: config.limits.idle_backend_connections,
            mover_s: mover_s(&config.timeouts),
            takeover_s: config.handover.takeover.as_secs(),
            hold: config.handover.hold,
            applications,
            lock_wait_ms: config.locks.wait.as_millis() as u64,
            large_session_bytes: config.large_session_bytes,
        }
    }

    /// The backend at a place; `None` when the place is a tag of no backend known here.
    pub fn backend_at(&self, backend_id: BackendId) -> Option<BackendIndex> {
        let index = self.index_of[backend_id];
        (index != NOBODY).then(|| BackendIndex::new(index))
    }
}

/// Age in whole seconds from which a lock is not held by a request that is moving its item.
pub fn mover_s(timeouts: &Timeouts) -> u64 {
    let longest = timeouts.connect + timeouts.answer;
    let whole_s = u64::from(longest.subsec_nanos() > 0) + longest.as_secs();
    whole_s.max(MIN_MOVER_S)
}
