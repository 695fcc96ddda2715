//! The pages of a state server.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::access::Guard;
use super::pages::METRICS;
use super::refusals::Refusals;
use super::respond::{json, respond, text};
use super::routes::{AdminRoute, Site};
use super::store_watch::{StoreEye, StoreLook};
use crate::control::handle::AdminAccess;
use crate::control::report::finding::{Finding, counted_of_state_server};
use crate::disk::{DiskState, DiskStats};
use crate::metrics::{self, AdminRefusals, DiskMetrics, StateServerMetrics};

/// An embedded state server.
#[derive(Clone)]
pub struct StoreSite {
    /// How it is.
    eye: StoreEye,
    /// Names that its admin server is known under.
    hosts: Vec<String>,
    /// What was refused so far.
    refusals: Refusals,
    counts: Arc<AdminRefusals>,
    started_ms: u64,
}

/// What a state server says about itself: `GET /status`. More fields may come, those that are here
/// keep their meaning.
#[derive(Debug, Serialize)]
struct StoreStatus {
    /// Version of the program.
    version: &'static str,
    /// When it was started, Unix time in milliseconds.
    started_ms: u64,
    /// What is wrong, the worst first: as in the status of a proxy.
    findings: Vec<Finding>,
    /// Sessions held, those included that have expired in the last few seconds.
    sessions: u64,
    /// Bytes of their bodies.
    session_bytes: u64,
    /// What they cost with keys and administration: what the limit counts.
    memory_bytes: u64,
    /// The limit; `null` for none.
    max_memory_bytes: Option<u64>,
    /// Memory that the process holds, for whatever; `null` where the system does not say.
    process_bytes: Option<u64>,
    /// New sessions refused since the start because of the limit.
    refused_new: u64,
    /// Sessions expired since the start.
    expired: u64,
    /// The disk; `null` if sessions are in memory only.
    disk: Option<DiskStatus>,
}

/// What a state server says about its disk.
#[derive(Debug, Serialize)]
struct DiskStatus {
    /// `writable`; `paused`: it has refused a write, and is tried every second; `failed`: it is not
    /// tried again before a restart. Writes are answered 400 in both.
    state: &'static str,
    /// Length of all files.
    file_bytes: u64,
    /// The part of it that sessions need.
    live_bytes: u64,
    /// How much more fits on the volume; `null` where it does not say.
    free_bytes: Option<u64>,
    /// Syncs since the start.
    syncs: u64,
    /// How long they took, all of them.
    sync_ms: u64,
}

impl Site for StoreSite {
    const ROUTES: &'static [AdminRoute<Self>] = &[
        AdminRoute::get("/healthz", Guard::Open, |_, _| {
            Box::pin(async { text(StatusCode::OK, "ok") })
        }),
        AdminRoute::get("/readyz", Guard::Open, |site, _| {
            Box::pin(async { readiness(&site.eye.look()) })
        }),
        AdminRoute::get("/status", Guard::Read, |site, _| {
            Box::pin(async { json(StatusCode::OK, &site.status()) })
        }),
        AdminRoute::get("/metrics", Guard::Read, |site, _| {
            Box::pin(async { site.scrape() })
        }),
    ];

    fn access(&self) -> AdminAccess {
        AdminAccess {
            token: None,
            hosts: self.hosts.clone(),
        }
    }

    fn refusals(&self) -> &Refusals {
        &self.refusals
    }
}

impl StoreSite {
    /// A state server that is looked at through `eye`, and whose admin server is known under these
    /// names.
    pub fn new(eye: StoreEye, hosts: Vec<String>) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        let counts = Arc::<AdminRefusals>::default();
        Self {
            eye,
            hosts,
            refusals: Refusals::new(Arc::clone(&counts)),
            counts,
            started_ms: started.map_or(0, |started| started.as_millis() as u64),
        }
    }

    fn status(&self) -> StoreStatus {
        let look = self.eye.look();
        StoreStatus {
            version: env!("CARGO_PKG_VERSION"),
            started_ms: self.started_ms,
            sessions: look.stats.items,
            session_bytes: look.stats.body_bytes,
            memory_bytes: look.stats.bytes,
            max_memory_bytes: self.eye.max_memory_bytes(),
            process_bytes: metrics::resident_bytes(),
            refused_new: look.stats.refused_new,
            expired: look.stats.expired,
            disk: look.disk.map(DiskStatus::of),
            findings: look.findings,
        }
    }

    fn scrape(&self) -> Response<Full<Bytes>> {
        let look = self.eye.look();
        let certificates = look.certificates.into_iter();
        let metrics = StateServerMetrics {
            sessions: look.stats.items,
            session_bytes: look.stats.body_bytes,
            memory_bytes: look.stats.bytes,
            max_memory_bytes: self.eye.max_memory_bytes(),
            refused_new: look.stats.refused_new,
            expired: look.stats.expired,
            disk: look.disk.map(|disk| DiskMetrics {
                is_writable: disk.state == DiskState::Writable,
                file_bytes: disk.file_bytes,
                live_bytes: disk.live_bytes,
                free_bytes: disk.free_bytes,
                syncs: disk.syncs,
                sync_ns: disk.sync_ns,
            }),
            findings: counted_of_state_server(&look.findings),
            certificates: certificates
                .map(|state| (state.what.clone(), state.until_s()))
                .collect(),
            refused_requests: Arc::clone(&self.counts),
            started_ms: self.started_ms,
        };
        match metrics.scrape() {
            Ok(text) => respond(StatusCode::OK, METRICS, text.into()),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

/// 503 while nothing can be stored. Full memory leaves it at 200, as sessions that live go on; the
/// text says so.
fn readiness(look: &StoreLook) -> Response<Full<Bytes>> {
    match (look.refusal(), look.trouble()) {
        (Some(refusal), _) => text(StatusCode::SERVICE_UNAVAILABLE, refusal),
        (None, Some(trouble)) => text(StatusCode::OK, &format!("ready, but {trouble}")),
        (None, None) => text(StatusCode::OK, "ready"),
    }
}

impl DiskStatus {
    fn of(disk: DiskStats) -> Self {
        Self {
            state: match disk.state {
                DiskState::Writable => "writable",
                DiskState::Paused => "paused",
                DiskState::Failed => "failed",
            },
            file_bytes: disk.file_bytes,
            live_bytes: disk.live_bytes,
            free_bytes: disk.free_bytes,
            syncs: disk.syncs,
            sync_ms: disk.sync_ns / 1_000_000,
        }
    }
}
