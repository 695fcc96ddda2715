//! What a store says about what keeps its sessions.

/// What was found out about what keeps the sessions of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreSurvey {
    /// What may lose sessions, or keeps them from being stored. The worst stands first.
    pub dangers: Vec<StoreDanger>,
    /// How much is in use, all of its servers together; `None` where they do not say.
    pub memory: Option<StoreMemory>,
    /// Of the servers with a limit, the one that is nearest to it.
    pub fullest: Option<FullestServer>,
}

/// Memory of what keeps the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreMemory {
    /// In use, for whatever.
    pub used_bytes: u64,
    /// Its limit; `None` for none.
    pub max_bytes: Option<u64>,
}

impl StoreMemory {
    /// The part of the limit that is in use; `None` without one.
    #[must_use]
    pub fn used_ratio(self) -> Option<f64> {
        let max_bytes = self.max_bytes.filter(|max| *max > 0)?;
        Some(self.used_bytes as f64 / max_bytes as f64)
    }
}

/// The memory of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullestServer {
    /// The server.
    pub server: String,
    /// Its memory.
    pub memory: StoreMemory,
}

/// What may lose sessions, or keeps them from being stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreDanger {
    /// It cannot be used at all.
    Unusable {
        /// Why, with the server's name.
        reason: String,
    },
    /// A server may drop sessions that are alive to make room.
    Evicts {
        /// The server.
        server: String,
        /// Its `maxmemory-policy`.
        policy: String,
        /// How many keys it has dropped since it was started.
        evicted: u64,
    },
    /// A server cannot write to its disk, and may refuse to store anything.
    DiskFails {
        /// The server.
        server: String,
        /// What it cannot write.
        what: &'static str,
    },
    /// A server has fewer replicas than every change has to reach.
    TooFewReplicas {
        /// The server.
        server: String,
        /// Replicas that follow it.
        have: u64,
        /// How many it takes.
        wanted: u64,
        /// The setting that says so.
        rule: &'static str,
    },
    /// Nobody serves these hash slots of a Cluster.
    Unserved {
        /// How many.
        slots: usize,
    },
    /// A replica is behind its server.
    Lags {
        /// The server.
        server: String,
        /// The replica.
        replica: String,
        /// For how long it has said nothing, in seconds.
        behind_s: u64,
    },
    /// A server writes nothing to a disk and has no replica.
    Unkept {
        /// The server.
        server: String,
    },
    /// A server that does not run scripts alone unless it is told to.
    Unproven {
        /// The server.
        server: String,
        /// What it is.
        engine: &'static str,
    },
}
