//! What a proxy has to remember over a restart.

use std::sync::Arc;

use super::engine::{FailingMoves, InUse};
use crate::config::{BackendAddress, BackendSpec, BackendState, PartitionMap};
use crate::handover::SlotState;

/// The pool as it was when it was last written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The partition map in force, as the file says it.
    pub map: PartitionMap,
    /// What an operator has decided about its backends besides, by name.
    pub overrides: Vec<Override>,
    /// Backends that are no longer in it and still hold slots.
    pub retired: Vec<BackendSpec>,
    /// Servers that were given up with what they held, as long as that may live.
    pub given_up: Vec<GivenUp>,
    /// The longest session timeout seen, 0 for none.
    pub longest_timeout_minutes: u32,
    /// Where backends are asked, if that is not what the map says.
    pub servers: Vec<ServerMemory>,
    /// Moves that fail, by where the sessions are and where they are to go.
    pub failing: Vec<FailingMoves>,
    /// Every slot, in order.
    pub slots: Arc<[SlotState]>,
}

/// A state that a backend has by an operator's order, whatever the partition map says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The backend's name.
    pub backend: String,
    /// Its state.
    pub state: BackendState,
    /// When the order came, Unix time in milliseconds.
    pub since_ms: u64,
}

/// The address at which a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerMemory {
    /// The backend's name.
    pub backend: String,
    /// The address.
    pub in_use: InUse,
    /// The operator wants another one, also while this one answers.
    pub is_ordered: bool,
}

/// A server whose slots went to others at once: what it held is lost, and must not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// The server, whatever its name in the map.
    pub address: BackendAddress,
    /// When it was last served from, Unix time in milliseconds.
    pub since_ms: u64,
}
