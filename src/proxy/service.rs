//! One worker's side of the proxy.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};

use super::app_names::ToldApps;
use super::error::{ProxyError, Unanswered};
use super::farm_signs::{FarmSign, FarmSignKind, FarmSignLimits, PATIENCE};
use super::holding::Holding;
use super::lock_queue::{ItemHash, LockQueues};
use super::lock_wait::LockTerms;
use super::reports::{self, WorkersShared};
use super::request_log::{LogLines, Subject};
use super::snapshot::Snapshot;
use super::untidy::Tidying;
use super::view::View;
use crate::handover::{BackendId, ReplicaRoute, RouteRef};
use crate::log::LogLimit;
use crate::metrics::{
    FailureReason, Metrics, RequestOutcome, WebServerConnection, WebServers, WorkerShard,
};
use crate::net::Worker;
use crate::route::{self, BackendIndex, Fingerprint, KeyBuffer, KeyError, Slot};
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
    pub(super) holding: Holding,
    pub(super) lock_queues: Arc<LockQueues>,
    pub(super) shared: Arc<WorkersShared>,
    pub(super) metrics: Arc<WorkerShard>,
    web_servers: Arc<WebServers>,
    current: RefCell<Cache<SharedSnapshot, Arc<Snapshot>>>,
    view: RefCell<Rc<View>>,
    key_buffer: RefCell<KeyBuffer>,
    /// For targets as they came, where state servers know applications by other ids.
    pub(super) names_buffer: RefCell<KeyBuffer>,
    pub(super) lines: LogLines,
    /// How many changes of an application id are told, ...
    pub(super) changed_ids: LogLimit,
    /// ... and how many users of one, which changes must not crowd out.
    pub(super) id_users: LogLimit,
    told_apps: ToldApps,
    farm_sign_limits: FarmSignLimits,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestTarget {
    pub(super) slot: Slot,
    pub(super) route: RouteRef,
    pub(super) fingerprint: Fingerprint,
    /// Hash of what stands in front of the session id.
    pub(super) start_hash: u64,
    /// Its place among the applications of the view, of which there may be none.
    pub(super) application: usize,
    pub(super) sample: SampledSession,
    /// Of the session id.
    pub(super) hash: u64,
}

impl RequestTarget {
    /// What the queues for locks know it by.
    #[inline]
    pub(super) fn item(&self) -> ItemHash {
        ItemHash::new(self.hash, self.start_hash)
    }
}

impl ProxyService {
    /// The proxy on `worker`, following `snapshot`, reporting to `shared` and counting in its
    /// part of `metrics`.
    pub fn new(
        worker: Rc<Worker>,
        snapshot: &SharedSnapshot,
        shared: Arc<WorkersShared>,
        metrics: &Metrics,
    ) -> Self {
        let mut current = Cache::new(Arc::clone(snapshot));
        let view = View::new(Arc::clone(current.load()), None, &worker);
        let web_servers = Arc::clone(metrics.web_servers());
        let metrics = metrics.worker(worker.index);
        metrics.snapshot.set(view.snapshot.number);
        Self {
            worker,
            tidying: Tidying::default(),
            holding: Holding::default(),
            lock_queues: Arc::clone(&shared.lock_queues),
            shared,
            metrics,
            web_servers,
            current: RefCell::new(current),
            view: RefCell::new(Rc::new(view)),
            key_buffer: RefCell::new(KeyBuffer::new()),
            names_buffer: RefCell::new(KeyBuffer::new()),
            lines: LogLines::default(),
            changed_ids: LogLimit::default(),
            id_users: LogLimit::default(),
            told_apps: ToldApps::default(),
            farm_sign_limits: FarmSignLimits::default(),
        }
    }

    /// What is in force now. Costs one atomic load and a compare.
    pub(super) fn view(&self) -> Rc<View> {
        let mut current = self.current.borrow_mut();
        let snapshot = current.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            *view = Rc::new(View::new(Arc::clone(snapshot), Some(&view), &self.worker));
            self.metrics.snapshot.set(snapshot.number);
            self.holding.go_on();
        }
        Rc::clone(&view)
    }

    /// Finds where the session that a request target names can be.
    #[inline(always)]
    pub(super) fn locate(&self, view: &View, target: &[u8]) -> Result<RequestTarget, KeyError> {
        let mut key_buffer = self.key_buffer.borrow_mut();
        let key = route::extract(target, &mut key_buffer)?;
        self.told_apps.note(&key, &self.shared.app_names);
        let located = view.snapshot.hash_key.locate(key.session_id());
        Ok(RequestTarget {
            slot: located.slot,
            route: view.snapshot.slots.lookup(located.slot.index()),
            fingerprint: located.fingerprint,
            start_hash: key.start_hash(),
            application: 0,
            sample: self.shared.account.sample(located.hash, key.start_hash()),
            hash: located.hash,
        })
    }

    /// Whether what belongs to this request may still be copied to `at`: its slot is as it was when the
    /// request came, and served. Once it is counted as under way, that stays so until it ends.
    pub(super) fn may_copy(&self, subject: &Subject, at: BackendId) -> bool {
        let view = self.view();
        let route = subject.route;
        let slots = &view.snapshot.slots;
        let now = slots.route(slots.lookup(subject.slot.index()));
        let places = [Some(route.first), route.second];
        now.may_copy(at, places, route.stage, |place| {
            let index = view.snapshot.backend_at(place);
            index.is_some_and(|index| !view.pool(index).is_down())
        })
    }

    /// What all workers know of the copy of a session.
    #[cold]
    pub(super) fn recall_copy(&self, subject: &Subject, replica: &mut ReplicaRoute) {
        if let Some(known) = self.shared.copies.known(subject.copied()) {
            known.recall(replica, self.shared.clock.now_ms());
        }
    }

    /// Calls whoever waits for the session: a lock was given back of which no client knew.
    pub(super) fn gave_back(&self, target: &[u8]) {
        if self.lock_queues.is_anybody_waiting()
            && let Ok(located) = self.locate(&self.view(), target)
        {
            self.lock_queues.released(located.item());
        }
    }

    /// Takes note of the timeout of a session that lives: a handover lasts as long as the longest.
    pub(super) fn saw_timeout(&self, minutes: u64) {
        if minutes <= MAX_TIMEOUT_MINUTES {
            self.shared.saw_timeout(minutes as u32);
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

    /// A connection of a web server, as it is counted.
    pub(super) fn connected(&self, address: IpAddr) -> WebServerConnection {
        self.web_servers.connected(address, self.worker.index)
    }

    /// Under which a request may wait for the lock of its session.
    pub(super) fn lock_terms<'a>(
        &'a self,
        subject: &Subject,
        web_server: &'a WebServerConnection,
        wait_ms: u64,
    ) -> LockTerms<'a> {
        LockTerms {
            queues: &self.lock_queues,
            paces: &self.shared.lock_paces,
            metrics: &self.metrics,
            web_server,
            item: subject.item,
            wait_ms,
            now_ms: self.now_ms(),
        }
    }

    /// A request that is not in line for the lock has found its session locked.
    #[cold]
    pub(super) fn found_locked(&self, subject: &Subject) {
        let counts = &self.shared.locked_counts;
        if counts.count(subject.item, self.now_ms()) {
            self.shows(subject, FarmSignKind::Contended);
        }
    }

    /// The client of a whole request has left before it was answered.
    #[cold]
    pub(super) fn abandoned(&self, subject: &Subject, web_server: &WebServerConnection) {
        let after = Duration::from_nanos(subject.started.elapsed_ns());
        if after >= PATIENCE && web_server.is_left() {
            self.shows(subject, FarmSignKind::Abandoned { after });
        }
    }

    /// What a request shows of the web farm is told, unless there is too much of it.
    #[cold]
    pub(super) fn shows(&self, subject: &Subject, kind: FarmSignKind) {
        if let Some(left_out) = self.farm_sign_limits.allow(kind, self.now_ms()) {
            self.shared.farm_sign(FarmSign {
                kind,
                by: subject.peer.to_canonical(),
                start_hash: subject.start_hash,
                session: subject.session,
                left_out,
            });
        }
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
    pub(super) fn report(&self, view: &View, failed: &Unanswered) {
        if let Some(failure) = reports::failure_of(&failed.error) {
            let backend_id = view.backend(failed.backend).backend_id;
            self.shared.failed(backend_id, failure);
        }
    }
}
