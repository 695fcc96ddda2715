//! One worker's side of the proxy.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use super::cleanup::Tidying;
use super::connection;
use super::error::{ProxyError, Unanswered};
use super::reports::{self, Feedback};
use super::request_log::LogLines;
use super::snapshot::{Backend, Snapshot};
use crate::backend::{AskLimits, ConnectionPool, PoolLimits, Upstream};
use crate::handover::SlotRoute;
use crate::metrics::{
    BackendShard, ClientRefusal, FailureReason, Metrics, RequestOutcome, WorkerShard,
};
use crate::net::{Conn, Deadline, Service, Worker};
use crate::route::{self, BackendIndex, Fingerprint, KeyBuffer, KeyError};
use crate::usage::SampledSession;
use crate::wire::Operation;

/// The longest timeout there is (protocol 3).
const MAX_TIMEOUT_MINUTES: u64 = 525_600;

/// The snapshot in force, shared by all workers: the one swap in the program.
pub type SharedSnapshot = Arc<ArcSwap<Snapshot>>;

/// Puts the first snapshot in force.
pub fn share(snapshot: Snapshot) -> SharedSnapshot {
    Arc::new(ArcSwap::from_pointee(snapshot))
}

/// The proxy as it runs on one worker.
#[derive(Debug)]
pub struct ProxyService {
    pub(super) worker: Rc<Worker>,
    pub(super) tidying: Tidying,
    pub(super) feedback: Arc<Feedback>,
    pub(super) metrics: Arc<WorkerShard>,
    current: RefCell<Cache<SharedSnapshot, Arc<Snapshot>>>,
    view: RefCell<Rc<View>>,
    key_buffer: RefCell<KeyBuffer>,
    pub(super) lines: LogLines,
}

/// A snapshot with this worker's connection pools and counters, one of each per backend, in the
/// snapshot's order.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pools: Vec<Rc<ConnectionPool>>,
    shards: Vec<Arc<BackendShard>>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestTarget {
    pub(super) route: SlotRoute,
    pub(super) fingerprint: Fingerprint,
    pub(super) sample: SampledSession,
}

impl View {
    /// Pools of backends that were there before keep their connections, unless they are asked at
    /// another address now: what is idle or under way at the one before is used no more.
    fn new(snapshot: Arc<Snapshot>, previous: Option<&Self>, worker: usize) -> Self {
        let limits = PoolLimits {
            max_idle: snapshot.max_idle_backend_connections,
            max_idle_ms: snapshot.timeouts.backend_idle.as_millis() as u64,
        };
        let pool = |backend: &Backend| {
            let kept = previous.and_then(|previous| previous.pool_of(backend));
            let pool = kept
                .unwrap_or_else(|| Rc::new(ConnectionPool::new(backend.server.clone(), limits)));
            pool.set_limits(limits);
            if !backend.up {
                // A stopped server must not find requests in its buffers when it goes on.
                pool.clear();
            }
            pool
        };
        let pools = snapshot.backends.iter().map(pool).collect();
        let shards = snapshot.backends.iter();
        let shards = shards.map(|backend| backend.metrics.shard(worker));
        Self {
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

    /// The way to a backend for one request.
    pub(super) fn upstream<'a>(
        &'a self,
        service: &'a ProxyService,
        index: BackendIndex,
        deadline: &'a Deadline,
        due_ms: u64,
        waited: &'a Cell<Duration>,
    ) -> Upstream<'a> {
        let timeouts = &self.snapshot.timeouts;
        Upstream {
            pool: self.pool(index),
            shard: self.shard(index),
            buffers: &service.worker.buffers,
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
}

impl ProxyService {
    /// The proxy on `worker`, following `snapshot`, reporting to `feedback` and counting in its
    /// part of `metrics`.
    pub fn new(
        worker: Rc<Worker>,
        snapshot: &SharedSnapshot,
        feedback: Arc<Feedback>,
        metrics: &Metrics,
    ) -> Self {
        let mut current = Cache::new(Arc::clone(snapshot));
        let view = View::new(Arc::clone(current.load()), None, worker.index);
        let metrics = metrics.worker(worker.index);
        Self {
            worker,
            tidying: Tidying::default(),
            feedback,
            metrics,
            current: RefCell::new(current),
            view: RefCell::new(Rc::new(view)),
            key_buffer: RefCell::new(KeyBuffer::new()),
            lines: LogLines::default(),
        }
    }

    /// What is in force now. Costs one atomic load and a compare.
    pub(super) fn view(&self) -> Rc<View> {
        let mut current = self.current.borrow_mut();
        let snapshot = current.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            let worker = self.worker.index;
            *view = Rc::new(View::new(Arc::clone(snapshot), Some(&view), worker));
        }
        Rc::clone(&view)
    }

    /// Finds where the session that a request target names can be.
    pub(super) fn locate(&self, view: &View, target: &[u8]) -> Result<RequestTarget, KeyError> {
        let mut key_buffer = self.key_buffer.borrow_mut();
        let key = route::extract(target, &mut key_buffer)?;
        let located = view.snapshot.hash_key.locate(key.session_id());
        Ok(RequestTarget {
            route: view.snapshot.slots.lookup(located.slot.index()),
            fingerprint: located.fingerprint,
            sample: self.feedback.account.sample(located.hash, key.key()),
        })
    }

    /// Takes note of the timeout of a session that lives: a handover lasts as long as the longest.
    pub(super) fn saw_timeout(&self, minutes: u64) {
        if minutes <= MAX_TIMEOUT_MINUTES {
            self.feedback.saw_timeout(minutes as u32);
        }
    }

    /// One line for what stays behind at a backend until its session's next request or its end.
    pub(super) fn log_untidy(&self, view: &View, backend: BackendIndex, reason: &str) {
        let backend = &view.backend(backend).name;
        self.lines.untidy(backend, reason, self.now_ms());
    }

    /// The worker's coarse clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.worker.deadlines.now_ms()
    }

    /// Counts a request without an answer, and reports its backend's failure.
    pub(super) fn failed(&self, view: &View, operation: Operation, failed: &Unanswered) {
        if !failed.error.has_backend() {
            return self.count_failure(operation, &failed.error);
        }
        let reason = failed.error.reason();
        self.metrics.failures(reason).increment();
        let shard = view.shard(failed.backend);
        if reason.is_of_client() {
            shard.left_by_client.increment();
        }
        shard.requests.count(operation, RequestOutcome::Failed);
        self.report(view, failed);
    }

    /// Counts a request that its backend has refused with a 400, which makes the page fail.
    pub(super) fn refused_by_backend(&self) {
        self.metrics
            .failures(FailureReason::RefusedByBackend)
            .increment();
    }

    /// Counts a request that has nothing to do with any backend, and got no answer or a 400.
    pub(super) fn count_failure(&self, operation: Operation, error: &ProxyError) {
        let reason = error.reason();
        self.metrics.failures(reason).increment();
        if !reason.is_of_client() {
            self.metrics.unplaced_failed.increment();
        }
        let outcome = match error.is_bad_request() {
            true => RequestOutcome::BadRequest,
            false => RequestOutcome::Failed,
        };
        self.metrics.unplaced.count(operation, outcome);
    }

    /// Reports a backend's failure to answer a request.
    fn report(&self, view: &View, failed: &Unanswered) {
        if let Some(failure) = reports::failure_of(&failed.error) {
            let backend_id = view.backend(failed.backend).backend_id;
            self.feedback.failed(backend_id, failure);
        }
    }
}

impl Service for ProxyService {
    fn serve(self: Rc<Self>, conn: Conn, peer: SocketAddr) -> impl Future<Output = ()> {
        connection::serve(self, conn, peer.ip())
    }

    fn admits(&self, peer: IpAddr) -> bool {
        let admits = self.view().snapshot.allow.allows(peer);
        if !admits {
            self.metrics.refused(ClientRefusal::NotAllowed).increment();
        }
        admits
    }

    fn turned_away(&self) {
        self.metrics.refused(ClientRefusal::NoPlace).increment();
    }

    fn tick(&self, now_ms: u64) {
        let view = self.view();
        for (pool, shard) in view.pools.iter().zip(&view.shards) {
            shard.unfit.add(pool.sweep(now_ms));
            shard.idle.set(pool.len() as u64);
        }
    }
}
