//! What an admin server can be about: a proxy, or a state server.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;

use super::access::Guard;
use super::refusals::Refusals;
use super::respond::{json, text};
use super::routes::{AdminRoute, Site};
use crate::control::handle::AdminAccess;
use crate::disk::{DiskState, DiskStats};
use crate::metrics;
use crate::store::StoreStats;

/// Asks a store for its counters.
pub type ReadStats = Arc<dyn Fn() -> StoreStats + Send + Sync>;

/// Asks a store what its disk is like.
pub type ReadDisk = Arc<dyn Fn() -> DiskStats + Send + Sync>;

/// An embedded state server.
#[derive(Clone)]
pub struct StoreSite {
    /// What its store counts.
    stats: ReadStats,
    /// What its disk is like; `None` without one.
    disk: Option<ReadDisk>,
    /// Its limit on their memory.
    max_memory_bytes: Option<u64>,
    /// Names that its admin server is known under.
    hosts: Vec<String>,
    /// What was refused so far.
    refusals: Refusals,
}

/// What a state server says about itself: `GET /status`. More fields may come, those that are here
/// keep their meaning.
#[derive(Debug, Serialize)]
struct StoreStatus {
    /// Version of the program.
    version: &'static str,
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
}

impl Site for StoreSite {
    const ROUTES: &'static [AdminRoute<Self>] = &[
        AdminRoute::get("/healthz", Guard::Open, |_, _| {
            Box::pin(async { text(StatusCode::OK, "ok") })
        }),
        AdminRoute::get("/readyz", Guard::Open, |site, _| {
            Box::pin(async {
                match site.trouble() {
                    None => text(StatusCode::OK, "ok"),
                    Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, trouble),
                }
            })
        }),
        AdminRoute::get("/status", Guard::Read, |site, _| {
            Box::pin(async { json(StatusCode::OK, &site.status()) })
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
    /// A state server whose store counts this, and whose admin server is known under these names.
    pub fn new(
        stats: ReadStats,
        disk: Option<ReadDisk>,
        max_memory_bytes: Option<u64>,
        hosts: Vec<String>,
    ) -> Self {
        Self {
            stats,
            disk,
            max_memory_bytes,
            hosts,
            refusals: Refusals::default(),
        }
    }

    fn status(&self) -> StoreStatus {
        let stats = (self.stats)();
        StoreStatus {
            version: env!("CARGO_PKG_VERSION"),
            sessions: stats.items,
            session_bytes: stats.body_bytes,
            memory_bytes: stats.bytes,
            max_memory_bytes: self.max_memory_bytes,
            process_bytes: metrics::resident_bytes(),
            refused_new: stats.refused_new,
            expired: stats.expired,
            disk: self.disk.as_ref().map(|disk| DiskStatus::of(disk())),
        }
    }

    /// Why users see errors.
    fn trouble(&self) -> Option<&'static str> {
        self.disk.as_ref()?().state.trouble()
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
        }
    }
}
