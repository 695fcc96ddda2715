//! All numbers, summed up and written down.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::admin::AdminRefusals;
use super::backend::{BACKEND_BOUNDS_NS, BackendShard, Outcomes};
use super::counter::HistogramTotals;
use super::exposition::Exposition;
use super::labels::{
    self, AdminRefusal, BackendStateLabel, ClientRefusal, FailureReason, LockWaitEnd, MoveStep,
    RequestOutcome,
};
use super::pool::{PoolApplication, PoolBackend, PoolMetrics};
use super::process;
use super::shards::Shards;
use super::table::{self, Family};
use super::web_server::{WebServerMetrics, WebServers};
use super::worker::{HeldRequests, OVERHEAD_BOUNDS_NS, WorkerShard};
use crate::handover::Stage;
use crate::health::{Failure, HealthState};
use crate::wire::Operation;

/// The text cannot be written: two metrics are declared in a way that cannot be shown.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be written: {0}")]
pub struct ScrapeError(#[from] prometheus::Error);

/// What the workers count, and when the program was started.
#[derive(Debug)]
pub struct Metrics {
    workers: Shards<WorkerShard>,
    admin: Arc<AdminRefusals>,
    web_servers: Arc<WebServers>,
    started_ms: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            workers: Shards::default(),
            admin: Arc::default(),
            web_servers: Arc::default(),
            started_ms: started.map_or(0, |started| started.as_millis() as u64),
        }
    }
}

impl Metrics {
    /// The part of the worker with this number.
    pub fn worker(&self, index: usize) -> Arc<WorkerShard> {
        self.workers.of_worker(index)
    }

    /// What the admin server counts.
    pub fn admin_refusals(&self) -> Arc<AdminRefusals> {
        Arc::clone(&self.admin)
    }

    /// What is counted per web server.
    pub fn web_servers(&self) -> &Arc<WebServers> {
        &self.web_servers
    }

    /// Requests of clients that no backend answered or failed: all of them, and those whose users
    /// saw a failure.
    pub fn unplaced(&self) -> (u64, u64) {
        let workers = self.workers.all();
        let all = workers.iter().map(|worker| worker.unplaced.total());
        let failed = workers.iter().map(|worker| worker.unplaced_failed.get());
        (all.sum(), failed.sum())
    }

    /// Requests that have waited for a backend.
    pub fn held(&self) -> HeldRequests {
        let workers = self.workers.all();
        let sum = |number: &dyn Fn(&WorkerShard) -> u64| -> u64 {
            workers.iter().map(|worker| number(worker)).sum()
        };
        // In this order: what ends in between has begun before.
        let answered = sum(&|worker| worker.held_answered.get());
        let failed = sum(&|worker| worker.held_failed.get());
        HeldRequests {
            begun: sum(&|worker| worker.held.get()),
            answered,
            failed,
        }
    }

    /// Whether every worker goes by the snapshot with this number or a later one.
    pub fn go_by(&self, number: u64) -> bool {
        let workers = self.workers.all();
        workers.iter().all(|worker| worker.snapshot.get() >= number)
    }

    /// Everything as `GET /metrics` answers it, in Prometheus' text format.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub fn scrape(&self, pool: &PoolMetrics) -> Result<String, ScrapeError> {
        let mut out = Exposition::default();
        let version = env!("CARGO_PKG_VERSION");
        out.count(&table::BUILD_INFO, [version], 1);
        self.expose_workers(&mut out);
        expose_map(&mut out, pool);
        for backend in &pool.backends {
            expose_requests(&mut out, backend);
            expose_traffic(&mut out, backend);
            expose_standing(&mut out, backend);
            expose_load(&mut out, backend);
            expose_moves(&mut out, backend, &pool.backends);
        }
        for application in &pool.applications {
            expose_application(&mut out, application);
        }
        for of_app in &pool.contents {
            let app = of_app.application.as_str();
            out.value(&table::CONTENTS_APPLICATION_RATIO, [app], of_app.ratio);
            for (item, ratio) in &of_app.items {
                let labels = [app, item.as_str()];
                out.value(&table::CONTENTS_ITEM_RATIO, labels, *ratio);
            }
        }
        for web_server in self.web_servers.all() {
            expose_web_server(&mut out, &web_server);
        }
        for reason in AdminRefusal::ALL {
            let count = self.admin.get(reason);
            out.count(&table::ADMIN_REFUSED, [reason.name()], count);
        }
        process::expose(&mut out, self.started_ms);
        Ok(out.encode()?)
    }

    fn expose_workers(&self, out: &mut Exposition) {
        let workers = self.workers.all();
        let sum = |number: &dyn Fn(&WorkerShard) -> u64| -> u64 {
            workers.iter().map(|worker| number(worker)).sum()
        };
        for operation in Operation::ALL {
            for outcome in [RequestOutcome::BadRequest, RequestOutcome::Failed] {
                let count = sum(&|worker| worker.unplaced.get(operation, outcome));
                let labels = ["", operation.name(), outcome.name()];
                out.count(&table::REQUESTS, labels, count);
            }
        }
        for reason in FailureReason::ALL {
            let count = sum(&|worker| worker.failures(reason).get());
            out.count(&table::FAILED_REQUESTS, [reason.name()], count);
        }
        let held = self.held();
        out.count(&table::HELD_REQUESTS, ["answered"], held.answered);
        out.count(&table::HELD_REQUESTS, ["failed"], held.failed);
        out.count(&table::WAITING_REQUESTS, [], held.waiting());
        let mut waited = 0;
        for end in LockWaitEnd::ALL {
            let count = sum(&|worker| worker.lock_waits(end).get());
            out.count(&table::LOCK_WAITS, [end.name()], count);
            waited += if end.has_waited() { count } else { 0 };
        }
        // Read last: what ended meanwhile has begun before.
        let begun = sum(&|worker| worker.lock_waits_begun.get());
        let waiting = begun.saturating_sub(waited);
        out.count(&table::LOCK_WAITING_REQUESTS, [], waiting);
        for reason in ClientRefusal::ALL {
            let count = sum(&|worker| worker.refused(reason).get());
            out.count(&table::CLIENT_CONNECTIONS_REFUSED, [reason.name()], count);
        }
        for step in MoveStep::ALL {
            let count = sum(&|worker| worker.failed_moves(step).get());
            out.count(&table::SESSION_MOVES_FAILED, [step.name()], count);
        }
        let large_stored = sum(&|worker| worker.large_stored.get());
        out.count(&table::LARGE_SESSIONS_STORED, [], large_stored);
        // In this order: what ends in between has begun before.
        let closed = sum(&|worker| worker.closed.get());
        let opened = sum(&|worker| worker.opened.get());
        let open = opened.saturating_sub(closed);
        out.count(&table::CLIENT_CONNECTIONS, [], open);
        out.count(&table::CLIENT_CONNECTIONS_OPENED, [], opened);
        let received = sum(&|worker| worker.received_bytes.get());
        out.count(&table::CLIENT_RECEIVED_BYTES, [], received);
        let sent = sum(&|worker| worker.sent_bytes.get());
        out.count(&table::CLIENT_SENT_BYTES, [], sent);
        let mut overhead = HistogramTotals::default();
        for worker in &workers {
            worker.overhead.add_to(&mut overhead);
        }
        out.histogram(&table::PROXY_OVERHEAD, [], &OVERHEAD_BOUNDS_NS, &overhead);
    }
}

fn expose_web_server(out: &mut Exposition, web_server: &WebServerMetrics) {
    let address = web_server.address.map(|address| address.to_string());
    let label = address.as_deref().unwrap_or("other");
    for (family, count) in [
        (&table::WEB_SERVER_REQUESTS, web_server.requests()),
        (
            &table::WEB_SERVER_ABANDONED,
            web_server.sum(|shard| shard.abandoned.get()),
        ),
    ] {
        out.count(family, [label], count);
    }
}

fn expose_application(out: &mut Exposition, shown: &PoolApplication) {
    let application = &shown.metrics;
    let name = application.name.as_str();
    if let Some(found) = shown.found {
        out.count(&table::APPLICATION_SESSIONS, [name], found.sessions);
        out.count(&table::APPLICATION_SESSION_BYTES, [name], found.bytes);
    }
    for operation in Operation::ALL {
        for outcome in RequestOutcome::ALL {
            let count = application.sum(|shard| shard.requests.get(operation, outcome));
            let labels = [name, operation.name(), outcome.name()];
            out.count(&table::APPLICATION_REQUESTS, labels, count);
        }
    }
    let renamed = application.sum(|shard| shard.renamed.get());
    out.count(&table::APPLICATION_RENAMED, [name], renamed);
}

fn expose_map(out: &mut Exposition, pool: &PoolMetrics) {
    out.count(&table::MAP_VERSION, [], pool.map_version);
    let reloads = &pool.reloads;
    for (result, count) in [
        ("applied", reloads.applied),
        ("unchanged", reloads.unchanged),
        ("refused", reloads.refused),
    ] {
        out.count(&table::MAP_RELOADS, [result], count);
    }
    let at_ms = pool.last_reload.map_or(0, |last| last.at_ms);
    out.value(&table::MAP_LAST_RELOAD, [], at_ms as f64 / 1e3);
    let ok = pool.last_reload.is_none_or(|last| last.ok);
    out.count(&table::MAP_LAST_RELOAD_SUCCESS, [], ok.into());
    let mut moving = 0;
    for (stage, slots) in Stage::ALL.into_iter().zip(pool.slots) {
        out.count(&table::SLOTS, [stage.name()], slots as u64);
        if stage.is_handover() {
            moving += slots;
        }
    }
    out.count(&table::HANDOVER_ACTIVE, [], (moving > 0).into());
    if let Some(replication) = &pool.replication {
        for (phase, slots) in replication.slots {
            out.count(&table::REPLICA_SLOTS, [phase], slots as u64);
        }
        if let Some(sessions) = replication.at_risk_sessions {
            out.count(&table::SESSIONS_UNPROTECTED, [], sessions);
        }
    }
    let contended = pool.contended_sessions as u64;
    out.count(&table::CONTENDED_SESSIONS, [], contended);
    for finding in &pool.findings {
        let labels = [finding.code, finding.level];
        out.count(&table::FINDINGS, labels, finding.count as u64);
    }
    for (certificate, until_s) in &pool.certificates {
        out.value(&table::CERTIFICATE_EXPIRY, [certificate], *until_s as f64);
    }
}

fn expose_requests(out: &mut Exposition, backend: &PoolBackend) {
    let name = backend.name.as_str();
    let mut all = |family, of: fn(&BackendShard) -> &Outcomes| {
        for operation in Operation::ALL {
            for outcome in RequestOutcome::ALL {
                let count = backend
                    .metrics
                    .sum(|shard| of(shard).get(operation, outcome));
                // The six operations are there from the start, so that their first increase shows.
                if count > 0 || operation != Operation::Unknown {
                    let labels = [name, operation.name(), outcome.name()];
                    out.count(family, labels, count);
                }
            }
        }
    };
    all(&table::REQUESTS, |shard| &shard.requests);
    all(&table::BACKEND_REQUESTS, |shard| &shard.exchanges);
    let durations = backend.metrics.durations();
    let family = &table::BACKEND_REQUEST_DURATION;
    out.histogram(family, [name], &BACKEND_BOUNDS_NS, &durations);
}

/// A metric and its number.
type Number = (&'static Family, fn(&BackendShard) -> u64);

fn expose_traffic(out: &mut Exposition, backend: &PoolBackend) {
    const NUMBERS: [Number; 10] = [
        (&table::LOST_WRITES, |shard| shard.lost_writes.get()),
        (&table::OVERDUE_LOCKS, |shard| shard.overdue_locks.get()),
        (&table::SESSIONS_OUT_OF_REACH, |shard| {
            shard.absent_while_away.get()
        }),
        (&table::SESSIONS_RESTORED, |shard| shard.restored.get()),
        (&table::BACKEND_RETRIES, |shard| shard.retries.get()),
        (&table::BACKEND_UNFIT_ANSWERS, |shard| shard.unfit.get()),
        (&table::BACKEND_CONNECTIONS_OPENED, |shard| {
            shard.connects.get()
        }),
        (&table::BACKEND_CONNECT_FAILURES, |shard| {
            shard.failed_connects.get()
        }),
        (&table::BACKEND_RECEIVED_BYTES, |shard| {
            shard.received_bytes.get()
        }),
        (&table::BACKEND_SENT_BYTES, |shard| shard.sent_bytes.get()),
    ];
    let name = backend.name.as_str();
    for (family, number) in NUMBERS {
        out.count(family, [name], backend.metrics.sum(number));
    }
    // In this order: what ends in between has begun before.
    let ended = |shard: &BackendShard| shard.exchanges.total() + shard.broken_off.get();
    let ended = backend.metrics.sum(ended);
    let begun = backend.metrics.sum(|shard| shard.begun.get());
    let busy = begun.saturating_sub(ended);
    let idle = backend.metrics.sum(|shard| shard.idle.get());
    out.count(&table::BACKEND_CONNECTIONS, [name, "busy"], busy);
    out.count(&table::BACKEND_CONNECTIONS, [name, "idle"], idle);
}

fn expose_standing(out: &mut Exposition, backend: &PoolBackend) {
    let name = backend.name.as_str();
    let is_up = backend.verdict != HealthState::Down;
    out.count(&table::BACKEND_UP, [name], is_up.into());
    if let Some(address) = &backend.address {
        out.count(&table::BACKEND_ADDRESS, [name, address.as_str()], 1);
    }
    let current = BackendStateLabel::of(backend.state, backend.verdict);
    for state in BackendStateLabel::ALL {
        let is_current = state == current;
        let labels = [name, state.name()];
        out.count(&table::BACKEND_STATE, labels, is_current.into());
    }
    for verdict in labels::VERDICTS {
        let labels = [name, labels::verdict_name(verdict)];
        let count = backend.metrics.health_changes(verdict);
        out.count(&table::BACKEND_HEALTH_CHANGES, labels, count);
    }
    for result in [Ok(())].into_iter().chain(Failure::ALL.map(Err)) {
        let labels = [name, labels::probe_name(result)];
        let count = backend.metrics.probes(result);
        out.count(&table::BACKEND_PROBES, labels, count);
    }
    for (family, count) in [
        (&table::BACKEND_SLOTS_OWNED, backend.slots_owned),
        (&table::BACKEND_SLOTS_SERVED, backend.slots_first),
        (&table::BACKEND_PENDING_DELETES, backend.pending_deletes),
    ] {
        out.count(family, [name], count as u64);
    }
}

/// What is unknown has no series: nobody takes a 0 for a figure.
fn expose_load(out: &mut Exposition, backend: &PoolBackend) {
    let name = backend.name.as_str();
    let capacity = &backend.capacity;
    let found = backend.load.map(|load| load.found);
    let saturation = backend.load.map(|load| load.saturation);
    for (family, count) in [
        (&table::BACKEND_SESSIONS, found.map(|found| found.sessions)),
        (
            &table::BACKEND_SESSION_BYTES,
            found.map(|found| found.bytes),
        ),
        (&table::BACKEND_COPIES, backend.copies.sessions),
        (&table::BACKEND_COPY_BYTES, backend.copies.bytes),
        (&table::BACKEND_CAPACITY_SESSIONS, capacity.sessions),
        (&table::BACKEND_CAPACITY_BYTES, capacity.memory_bytes),
        (
            &table::ENGINE_MEMORY_BYTES,
            backend.engine.map(|engine| engine.memory_bytes),
        ),
        (
            &table::ENGINE_MAX_MEMORY_BYTES,
            backend.engine.and_then(|engine| engine.max_memory_bytes),
        ),
    ] {
        if let Some(count) = count {
            out.count(family, [name], count);
        }
    }
    for (family, value) in [
        (
            &table::BACKEND_USED_RATIO,
            saturation.and_then(|saturation| saturation.used),
        ),
        (
            &table::BACKEND_SECONDS_TO_FULL,
            saturation.and_then(|saturation| saturation.seconds_to_full),
        ),
    ] {
        if let Some(value) = value {
            out.value(family, [name], value);
        }
    }
}

/// Only pairs between which sessions have moved: there are too many others.
fn expose_moves(out: &mut Exposition, to: &PoolBackend, all: &[PoolBackend]) {
    for from in all {
        let sessions = to.metrics.moved_from(&from.metrics, from.backend_id);
        if sessions > 0 {
            let labels = [from.name.as_str(), to.name.as_str()];
            out.count(&table::SESSIONS_MOVED, labels, sessions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MapState, PoolCopies, PoolLoad};
    use super::*;
    use crate::handover::BackendId;
    use crate::usage::{Capacity, Estimate, Saturation};

    /// The value of a gauge of the backend `a` that `load` is said of, if it has any.
    fn gauge(load: Option<PoolLoad>, family: &Family) -> Option<f64> {
        let backend = PoolBackend {
            name: "a".to_owned(),
            address: Some("10.0.0.1:42424".to_owned()),
            backend_id: BackendId::new(1).unwrap(),
            state: MapState::Active,
            verdict: HealthState::Up,
            slots_owned: 0,
            slots_first: 0,
            pending_deletes: 0,
            capacity: Capacity::default(),
            engine: None,
            copies: PoolCopies::default(),
            load,
            metrics: Arc::default(),
        };
        let pool = PoolMetrics {
            backends: vec![backend],
            ..PoolMetrics::default()
        };
        let text = Metrics::default().scrape(&pool).unwrap();
        let series = format!("{}{{backend=\"a\"}} ", family.name);
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.map(|value| value.parse().unwrap())
    }

    #[test]
    fn a_backend_that_does_not_fill_up_takes_for_ever_and_what_is_unknown_has_no_series() {
        let load = |used, seconds_to_full| PoolLoad {
            found: Estimate {
                sessions: 30,
                sessions_error: 0.0,
                bytes: 9_000,
                bytes_error: 0.0,
            },
            saturation: Saturation {
                used,
                seconds_to_full,
            },
        };
        let calm = Some(load(Some(0.3), Some(f64::INFINITY)));
        let to_full = &table::BACKEND_SECONDS_TO_FULL;
        assert_eq!(gauge(calm, to_full), Some(f64::INFINITY));
        assert_eq!(gauge(calm, &table::BACKEND_USED_RATIO), Some(0.3));
        assert_eq!(gauge(Some(load(Some(0.3), None)), to_full), None);

        let unlimited = Some(load(None, None));
        assert_eq!(gauge(unlimited, &table::BACKEND_SESSIONS), Some(30.0));
        assert_eq!(gauge(unlimited, &table::BACKEND_USED_RATIO), None);
        assert_eq!(gauge(None, &table::BACKEND_SESSIONS), None);
    }
}
