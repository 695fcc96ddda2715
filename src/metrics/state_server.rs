//! What a state server says to Prometheus.

use std::sync::Arc;

use super::admin::AdminRefusals;
use super::exposition::Exposition;
use super::labels::AdminRefusal;
use super::pool::PoolFinding;
use super::process;
use super::scrape::ScrapeError;
use super::table;

/// Nanoseconds in a second.
const NS_PER_S: f64 = 1e9;

/// A state server at one moment.
#[derive(Debug, Clone, Default)]
pub struct StateServerMetrics {
    /// Sessions held.
    pub sessions: u64,
    /// Bytes of their bodies.
    pub session_bytes: u64,
    /// What the limit on memory counts.
    pub memory_bytes: u64,
    /// That limit.
    pub max_memory_bytes: Option<u64>,
    /// New sessions refused for lack of memory.
    pub refused_new: u64,
    /// Sessions expired.
    pub expired: u64,
    /// The disk, if there is one.
    pub disk: Option<DiskMetrics>,
    /// Every code that it can have, also those without a finding.
    pub findings: Vec<PoolFinding>,
    /// What each certificate is for, and until when it counts, Unix time in seconds.
    pub certificates: Vec<(String, i64)>,
    /// Requests to its admin server that were refused.
    pub refused_requests: Arc<AdminRefusals>,
    /// When it was started, Unix time in milliseconds.
    pub started_ms: u64,
}

/// The disk of a state server.
#[derive(Debug, Clone, Copy)]
pub struct DiskMetrics {
    /// Whether it takes writes.
    pub is_writable: bool,
    /// Length of all files.
    pub file_bytes: u64,
    /// The part of it that sessions need.
    pub live_bytes: u64,
    /// How much more fits on the volume.
    pub free_bytes: Option<u64>,
    /// How often it was synced.
    pub syncs: u64,
    /// How long that took.
    pub sync_ns: u64,
}

impl StateServerMetrics {
    /// Everything as `GET /metrics` answers it, in Prometheus' text format.
    ///
    /// # Errors
    /// [`ScrapeError`].
    pub fn scrape(&self) -> Result<String, ScrapeError> {
        let mut out = Exposition::default();
        out.count(&table::BUILD_INFO, [env!("CARGO_PKG_VERSION")], 1);
        out.count(&table::STATE_SERVER_SESSIONS, [], self.sessions);
        out.count(&table::STATE_SERVER_SESSION_BYTES, [], self.session_bytes);
        out.count(&table::STATE_SERVER_MEMORY_BYTES, [], self.memory_bytes);
        if let Some(max_bytes) = self.max_memory_bytes {
            out.count(&table::STATE_SERVER_MAX_MEMORY_BYTES, [], max_bytes);
        }
        out.count(&table::STATE_SERVER_REFUSED, [], self.refused_new);
        out.count(&table::STATE_SERVER_EXPIRED, [], self.expired);
        if let Some(disk) = &self.disk {
            disk.expose(&mut out);
        }
        for finding in &self.findings {
            let labels = [finding.code, finding.level];
            out.count(&table::FINDINGS, labels, finding.count as u64);
        }
        for (what, until_s) in &self.certificates {
            out.value(&table::CERTIFICATE_EXPIRY, [what], *until_s as f64);
        }
        for reason in AdminRefusal::ALL {
            let count = self.refused_requests.get(reason);
            out.count(&table::ADMIN_REFUSED, [reason.name()], count);
        }
        process::expose(&mut out, self.started_ms);
        Ok(out.encode()?)
    }
}

impl DiskMetrics {
    fn expose(&self, out: &mut Exposition) {
        let is_writable = u64::from(self.is_writable);
        out.count(&table::STATE_SERVER_DISK_WRITABLE, [], is_writable);
        out.count(&table::STATE_SERVER_DISK_FILE_BYTES, [], self.file_bytes);
        out.count(&table::STATE_SERVER_DISK_LIVE_BYTES, [], self.live_bytes);
        if let Some(free_bytes) = self.free_bytes {
            out.count(&table::STATE_SERVER_DISK_FREE_BYTES, [], free_bytes);
        }
        out.count(&table::STATE_SERVER_DISK_SYNCS, [], self.syncs);
        let sync_s = self.sync_ns as f64 / NS_PER_S;
        out.value(&table::STATE_SERVER_DISK_SYNC_SECONDS, [], sync_s);
    }
}
