//! What a store says about what keeps its sessions.

/// What was found out about what keeps the sessions of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreSurvey {
    /// What may lose sessions, or keeps them from being stored. The worst stands first.
    pub dangers: Vec<StoreDanger>,
    /// How much is in use; `None` where it does not say.
    pub memory: Option<StoreMemory>,
}

/// The memory of what keeps the sessions, all of its servers together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreMemory {
    /// In use, for whatever.
    pub used_bytes: u64,
    /// Its limit; `None` for none.
    pub max_bytes: Option<u64>,
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
