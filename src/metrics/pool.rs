//! What control knows, as plain numbers: filled in by it, read at a scrape.

use std::sync::Arc;

use super::application::ApplicationMetrics;
use super::backend::BackendMetrics;
use super::labels::MapState;
use crate::handover::{BackendId, Stage};
use crate::health::HealthState;
use crate::usage::{Capacity, Estimate, Saturation};

/// The pool at one moment.
#[derive(Debug, Clone, Default)]
pub struct PoolMetrics {
    /// Version of the partition map in force.
    pub map_version: u64,
    /// How often the files were read again since the start.
    pub reloads: Reloads,
    /// The last time they were.
    pub last_reload: Option<LastReloadMetrics>,
    /// Number of slots by stage, in the order of [`Stage::ALL`].
    pub slots: [usize; Stage::ALL.len()],
    /// The second copies of the sessions; `None` if there are none.
    pub replication: Option<PoolReplication>,
    /// The backends of the map, behind them those that left it and still hold slots.
    pub backends: Vec<PoolBackend>,
    /// The applications of the map, behind them all others together; none without applications in the
    /// map.
    pub applications: Vec<PoolApplication>,
    /// What the sessions consist of; nothing while nobody looks into them.
    pub contents: Vec<PoolContents>,
    /// Every code, also those without a finding.
    pub findings: Vec<PoolFinding>,
    /// Sessions that are locked all the time.
    pub contended_sessions: usize,
    /// What each certificate is for, and until when it counts, Unix time in seconds.
    pub certificates: Vec<(String, i64)>,
}

/// One application of the map, or all others together.
#[derive(Debug, Clone)]
pub struct PoolApplication {
    /// Its sessions; `None` while nothing is counted.
    pub found: Option<Estimate>,
    /// What was counted of it.
    pub metrics: Arc<ApplicationMetrics>,
}

/// What the sessions of one application consist of.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolContents {
    /// Its id, as web servers send it.
    pub application: String,
    /// Its share of the bytes of all sessions.
    pub ratio: f64,
    /// Its items, and which share of its bytes each takes.
    pub items: Vec<(String, f64)>,
}

/// How many findings there are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFinding {
    /// The kind.
    pub code: &'static str,
    /// How much it matters.
    pub level: &'static str,
    /// How many.
    pub count: usize,
}

/// The second copies of the sessions.
#[derive(Debug, Clone)]
pub struct PoolReplication {
    /// Slots by how far their replicas are.
    pub slots: [(&'static str, usize); 5],
    /// Sessions that the worst failure would cost now; `None` while nobody counts them.
    pub at_risk_sessions: Option<u64>,
}

/// One backend.
#[derive(Debug, Clone)]
pub struct PoolBackend {
    /// Its name.
    pub name: String,
    /// Its place.
    pub backend_id: BackendId,
    /// Where it is asked; `None` while there is no address.
    pub address: Option<String>,
    /// What the map says of it.
    pub state: MapState,
    /// What its health says.
    pub verdict: HealthState,
    /// Slots that the map gives it.
    pub slots_owned: usize,
    /// Slots that it serves, or serves first.
    pub slots_first: usize,
    /// Removals that it has missed.
    pub pending_deletes: usize,
    /// What it can hold.
    pub capacity: Capacity,
    /// The memory of its engine, if that tells.
    pub engine: Option<PoolEngine>,
    /// What it keeps of what lives elsewhere.
    pub copies: PoolCopies,
    /// What lives there; `None` while nothing is counted.
    pub load: Option<PoolLoad>,
    /// What was counted of it.
    pub metrics: Arc<BackendMetrics>,
}

/// The memory of the engine that keeps the sessions of a backend, all servers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolEngine {
    /// In use.
    pub memory_bytes: u64,
    /// Its limit; `None` if a server has none.
    pub max_memory_bytes: Option<u64>,
}

/// The copies that a backend keeps; `None` while nobody counts them, or if it is to keep none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCopies {
    /// Sessions.
    pub sessions: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

/// What lives at a backend, and how full that and its copies make it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoolLoad {
    /// Sessions and bytes.
    pub found: Estimate,
    /// How much of its capacity that is.
    pub saturation: Saturation,
}

/// How often the files were read again, by how that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Something was new and came into force.
    pub applied: u64,
    /// Nothing was new.
    pub unchanged: u64,
    /// The files had faults or the change was not allowed.
    pub refused: u64,
}

/// The last time the files were read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastReloadMetrics {
    /// When, Unix time in milliseconds.
    pub at_ms: u64,
    /// Whether what they say is in force.
    pub ok: bool,
}
