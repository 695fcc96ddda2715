//! One worker's side of the proxy.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::client;
use super::error::ProxyError;
use super::orphan::Orphans;
use super::snapshot::{Backend, Snapshot};
use crate::backend::{Pool, PoolLimits};
use crate::log::LogLimit;
use crate::net::{Conn, Service, Worker};
use crate::route::{self, BackendIndex, Fingerprint, KeyBuffer, KeyError};
use crate::wire::Operation;

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
    pub(super) orphans: Orphans,
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
pub(super) struct Route {
    pub(super) backend: BackendIndex,
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

    fn pool_of(&self, backend: &Backend) -> Option<Rc<Pool>> {
        let index = self
            .snapshot
            .backends
            .iter()
            .position(|known| known == backend)?;
        Some(Rc::clone(&self.pools[index]))
    }
}

impl ProxyService {
    /// The proxy on `worker`, following `snapshot`.
    pub fn new(worker: Rc<Worker>, snapshot: &SharedSnapshot) -> Self {
        let mut current = Cache::new(Arc::clone(snapshot));
        let view = View::new(Arc::clone(current.load()), None);
        Self {
            worker,
            orphans: Orphans::default(),
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

    /// Finds the backend that serves the session a request target names.
    pub(super) fn route(&self, view: &View, target: &[u8]) -> Result<Route, KeyError> {
        let mut key_buffer = self.key_buffer.borrow_mut();
        let key = route::extract(target, &mut key_buffer)?;
        let placement = &view.snapshot.placement;
        let located = placement.hash_key().locate(key.session_id());
        Ok(Route {
            backend: placement.owner(located.slot),
            fingerprint: located.fingerprint,
        })
    }

    /// One line for a lock that stays until its session's next request breaks it.
    pub(super) fn log_orphan(&self, view: &View, backend: BackendIndex, reason: &str) {
        if let Some(suppressed) = self.log_limit.allow(self.worker.deadlines.now_ms()) {
            let backend = &view.backend(backend).name;
            tracing::warn!(
                backend,
                suppressed,
                "the lock of a vanished client stays: {reason}"
            );
        }
    }

    /// One line for a request that failed, unless lines come too fast.
    pub(super) fn log_failure(
        &self,
        peer: SocketAddr,
        request: Option<(&View, Operation, Route)>,
        error: &ProxyError,
    ) {
        let Some(suppressed) = self.log_limit.allow(self.worker.deadlines.now_ms()) else {
            return;
        };
        match request {
            Some((view, operation, route)) => tracing::warn!(
                operation = operation.name(),
                backend = view.backend(route.backend).name,
                session = %route.fingerprint,
                peer = %peer.ip(),
                suppressed,
                "request failed: {error}"
            ),
            None => tracing::warn!(peer = %peer.ip(), suppressed, "request refused: {error}"),
        }
    }
}

impl Service for ProxyService {
    async fn serve(self: Rc<Self>, conn: Conn, peer: SocketAddr) {
        client::serve(self, conn, peer).await;
    }

    fn admits(&self, peer: IpAddr) -> bool {
        self.view().snapshot.allow.allows(peer)
    }

    fn tick(&self, now_ms: u64) {
        for pool in &self.view().pools {
            pool.sweep(now_ms);
        }
    }
}
