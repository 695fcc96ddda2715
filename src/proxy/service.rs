//! One worker's side of the proxy.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::client;
use super::error::{ProxyError, Unanswered};
use super::feedback::{self, Feedback};
use super::snapshot::{Backend, Snapshot};
use super::tidy::Tidying;
use crate::backend::{Pool, PoolLimits};
use crate::handover::Route;
use crate::log::LogLimit;
use crate::net::{Conn, Service, Worker};
use crate::route::{self, BackendIndex, Fingerprint, KeyBuffer, KeyError};
use crate::wire::{self, Operation};

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
    longest_timeout_minutes: Cell<u32>,
    current: RefCell<Cache<SharedSnapshot, Arc<Snapshot>>>,
    view: RefCell<Rc<View>>,
    key_buffer: RefCell<KeyBuffer>,
    log_limit: LogLimit,
}

/// A snapshot with this worker's connection pools, one per backend, in the snapshot's order.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pools: Vec<Rc<Pool>>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Located {
    pub(super) route: Route,
    pub(super) fingerprint: Fingerprint,
}

impl View {
    /// Pools of backends that were there before keep their connections.
    fn new(snapshot: Arc<Snapshot>, previous: Option<&Self>) -> Self {
        let limits = PoolLimits {
            max_idle: snapshot.max_idle_backend_connections,
            max_idle_ms: snapshot.timeouts.backend_idle.as_millis() as u64,
        };
        let pool = |backend: &Backend| {
            let kept = previous.and_then(|previous| previous.pool_of(backend));
            let pool = kept.unwrap_or_else(|| Rc::new(Pool::new(backend.address.clone(), limits)));
            pool.set_limits(limits);
            if !backend.up {
                // A stopped server must not find requests in its buffers when it goes on.
                pool.clear();
            }
            pool
        };
        let pools = snapshot.backends.iter().map(pool).collect();
        Self { snapshot, pools }
    }

    pub(super) fn backend(&self, index: BackendIndex) -> &Backend {
        &self.snapshot.backends[index.index()]
    }

    pub(super) fn pool(&self, index: BackendIndex) -> &Rc<Pool> {
        &self.pools[index.index()]
    }

    /// Lets the control thread know that the backend has answered since this was done last.
    fn count_answered(&self, index: BackendIndex) {
        if self.pool(index).take_has_answered() {
            self.backend(index).counts.count_answered();
        }
    }

    fn pool_of(&self, backend: &Backend) -> Option<Rc<Pool>> {
        let index = self
            .snapshot
            .backends
            .iter()
            .position(|known| known.name == backend.name && known.address == backend.address)?;
        Some(Rc::clone(&self.pools[index]))
    }
}

impl ProxyService {
    /// The proxy on `worker`, following `snapshot` and reporting to `feedback`.
    pub fn new(worker: Rc<Worker>, snapshot: &SharedSnapshot, feedback: Arc<Feedback>) -> Self {
        let mut current = Cache::new(Arc::clone(snapshot));
        let view = View::new(Arc::clone(current.load()), None);
        Self {
            worker,
            tidying: Tidying::default(),
            feedback,
            longest_timeout_minutes: Cell::new(0),
            current: RefCell::new(current),
            view: RefCell::new(Rc::new(view)),
            key_buffer: RefCell::new(KeyBuffer::new()),
            log_limit: LogLimit::default(),
        }
    }

    /// What is in force now. Costs one atomic load and a compare.
    pub(super) fn view(&self) -> Rc<View> {
        let mut current = self.current.borrow_mut();
        let snapshot = current.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            *view = Rc::new(View::new(Arc::clone(snapshot), Some(&view)));
        }
        Rc::clone(&view)
    }

    /// Finds where the session that a request target names can be.
    pub(super) fn locate(&self, view: &View, target: &[u8]) -> Result<Located, KeyError> {
        let mut key_buffer = self.key_buffer.borrow_mut();
        let key = route::extract(target, &mut key_buffer)?;
        let located = view.snapshot.hash_key.locate(key.session_id());
        Ok(Located {
            route: view.snapshot.slots.lookup(located.slot.index()),
            fingerprint: located.fingerprint,
        })
    }

    /// Takes note of a session's timeout in decimal minutes: a handover lasts as long as the
    /// longest.
    pub(super) fn saw_timeout(&self, minutes: &[u8]) {
        let minutes = wire::decimal(minutes).and_then(|minutes| u32::try_from(minutes).ok());
        if let Some(minutes) = minutes
            && minutes > self.longest_timeout_minutes.get()
        {
            self.longest_timeout_minutes.set(minutes);
            self.feedback.saw_timeout(minutes);
        }
    }

    /// One line for what stays behind at a backend until its session's next request or its end.
    pub(super) fn log_untidy(&self, view: &View, backend: BackendIndex, reason: &str) {
        if let Some(suppressed) = self.log_limit.allow(self.worker.deadlines.now_ms()) {
            let backend = &view.backend(backend).name;
            tracing::warn!(
                backend,
                suppressed,
                "a lock that nobody holds stays: {reason}"
            );
        }
    }

    /// Reports a backend's failure to answer a request.
    pub(super) fn report(&self, view: &View, failed: &Unanswered) {
        if let Some(failure) = feedback::failure_of(&failed.error) {
            view.count_answered(failed.backend);
            let place = view.backend(failed.backend).place;
            self.feedback.failed(place, failure);
        }
    }

    /// One line for a request that failed, unless lines come too fast.
    pub(super) fn log_failure(
        &self,
        peer: IpAddr,
        (view, operation, fingerprint): (&View, Operation, Fingerprint),
        failed: &Unanswered,
    ) {
        if let Some(suppressed) = self.log_limit.allow(self.worker.deadlines.now_ms()) {
            tracing::warn!(
                operation = operation.name(),
                backend = view.backend(failed.backend).name,
                session = %fingerprint,
                peer = %peer,
                suppressed,
                "request failed: {}", failed.error
            );
        }
    }

    /// One line for bytes that are no request, unless lines come too fast.
    pub(super) fn log_refusal(&self, peer: IpAddr, error: &ProxyError) {
        if let Some(suppressed) = self.log_limit.allow(self.worker.deadlines.now_ms()) {
            tracing::warn!(peer = %peer, suppressed, "request refused: {error}");
        }
    }
}

impl Service for ProxyService {
    fn serve(self: Rc<Self>, conn: Conn, peer: SocketAddr) -> impl Future<Output = ()> {
        client::serve(self, conn, peer.ip())
    }

    fn admits(&self, peer: IpAddr) -> bool {
        self.view().snapshot.allow.allows(peer)
    }

    fn tick(&self, now_ms: u64) {
        let view = self.view();
        for (pool, index) in view.pools.iter().zip(0..=u8::MAX) {
            pool.sweep(now_ms);
            view.count_answered(BackendIndex::new(index));
        }
    }
}
