//! What is wrong with the engine that keeps the sessions of a backend.

use super::{Code, Finding};
use crate::store::{FullestServer, StoreDanger};

/// From here on a server counts as full: it needs room for what is under way.
const FULL_PERCENT: f64 = 98.0;

/// From here on it is said that a server fills up.
pub(crate) const FILLS_UP_PERCENT: f64 = 80.0;

impl Finding {
    /// What the engine of a backend says of itself.
    pub fn engine_danger(backend: &str, danger: &StoreDanger) -> Self {
        let finding = match danger {
            StoreDanger::Unusable { reason } => Self::engine_unusable(backend, reason),
            StoreDanger::Evicts {
                server,
                policy,
                evicted,
            } => Self::engine_evicts(backend, server, policy, *evicted),
            StoreDanger::DiskFails { server, what } => Self::new(
                Code::EngineDiskFails,
                format!("{backend}: {server} cannot write {what}"),
                "It may refuse to store sessions, and pages fail. A restart loses what it has not \
                 written.",
                format!("Look at the disk and the log of {server}."),
            ),
            StoreDanger::TooFewReplicas {
                server,
                have,
                wanted,
                rule,
            } => Self::engine_read_only(backend, server, (*have, *wanted), rule),
            StoreDanger::Unserved { slots } => Self::new(
                Code::EngineUnserved,
                format!("{backend}: no server of its Cluster has {slots} of the 16384 hash slots"),
                "Pages of the sessions in these slots fail. Nothing of them is lost.",
                "Start the servers that are down, or give the slots to another one: \
                 redis-cli --cluster fix.",
            ),
            StoreDanger::Unkept { server } => Self::new(
                Code::EngineUnkept,
                format!("{backend}: {server} writes nothing to a disk and has no replica"),
                format!("Nothing yet. A restart of {server} loses all sessions that it has."),
                "Give it a replica, or set `appendonly yes`.",
            ),
            StoreDanger::Lags {
                server,
                replica,
                behind_s,
            } => Self::new(
                Code::EngineLags,
                format!("{backend}: {replica}, a replica of {server}, is {behind_s} s behind"),
                "Nothing yet. If it has to take over, changes that it does not have are lost.",
                format!("Look at the load of {replica} and at its network to {server}."),
            ),
            StoreDanger::Unproven { server, engine } => Self::new(
                Code::EngineUnproven,
                format!("{backend}: {server} is {engine}, which may run scripts side by side"),
                "Two pages may then have the same session at once, and one loses what it stored.",
                format!(
                    "Make {engine} run scripts one at a time (Garnet: its switches for Lua \
                     transactions; Dragonfly: no `disable-atomicity`), or use Redis or Valkey."
                ),
            ),
        };
        finding.about(backend)
    }

    fn engine_unusable(backend: &str, reason: &str) -> Self {
        Self::new(
            Code::EngineUnusable,
            format!("{backend} cannot be used: {reason}"),
            "Users whose sessions it holds see error pages until it answers or another backend \
             stands in; then they start new sessions.",
            "Start it, or correct what the partition map says of it. Nothing in it is lost by that.",
        )
    }

    fn engine_evicts(backend: &str, server: &str, policy: &str, evicted: u64) -> Self {
        let so_far = match evicted {
            0 => "none so far".to_owned(),
            evicted => format!("{evicted} keys so far"),
        };
        Self::new(
            Code::EngineEvicts,
            format!("{backend}: {server} has maxmemory-policy {policy} ({so_far})"),
            "When its memory is full it drops sessions that are in use, without an error: their \
             users start anew.",
            "Set maxmemory-policy noeviction. With a managed service it is a setting of the \
             instance.",
        )
    }

    fn engine_read_only(backend: &str, server: &str, have: (u64, u64), rule: &str) -> Self {
        let (have, wanted) = have;
        Self::new(
            Code::EngineReadOnly,
            format!("{backend}: {server} has {have} of the {wanted} replicas that {rule} asks for"),
            "Pages that use a session fail until then. Nothing is lost.",
            format!(
                "Start the replicas of {server}, or look at their network. If there are to be \
                 fewer, lower {rule}."
            ),
        )
    }

    /// How full the fullest server of a backend's engine is, if it nearly is.
    pub fn engine_memory(backend: &str, fullest: &FullestServer) -> Option<Self> {
        let FullestServer { server, memory } = fullest;
        let used_percent = memory.used_ratio()? * 100.0;
        if used_percent >= FULL_PERCENT {
            let finding = Self::new(
                Code::BackendFull,
                format!("{backend} is full: {server} uses {used_percent:.0} % of its maxmemory"),
                "New sessions are refused, and their pages fail. Those that live go on.",
                format!("Raise maxmemory of {server}, or add a server or a backend."),
            );
            Some(finding.about(backend))
        } else if used_percent >= FILLS_UP_PERCENT {
            let used_percent = used_percent.floor();
            let finding = Self::new(
                Code::BackendFillsUp,
                format!("{backend} fills up: {server} uses {used_percent:.0} % of its maxmemory"),
                "Nothing yet. Once it is full, new sessions are refused, and their pages fail.",
                format!("Raise maxmemory of {server}, or add a server or a backend."),
            );
            Some(finding.about(backend))
        } else {
            None
        }
    }
}
