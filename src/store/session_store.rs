//! The seam between the state server's service and whatever keeps the sessions.

use super::command::SessionCommand;
use super::outcome::{Now, StoreOutcome};

/// Keeps sessions by the rules of protocol 5.
///
/// The service knows nothing else about a store, and a store nothing about the wire. To write a
/// new store is to implement this trait; `tests/store` runs the state table, the wire vectors, the
/// scenarios and the model against everything that does.
pub trait SessionStore: Send + Sync + 'static {
    /// Carries out one command on the item with this key and says what to answer.
    ///
    /// `key` is the canonical key: the decoded target, compared byte by byte (protocol 2.2). The
    /// caller bounds the lengths of key and body. The checks happen in the protocol's order (5.2),
    /// so that a request with several faults gets the stock server's answer.
    ///
    /// By the time this returns, the command has its place in the order of all commands on the
    /// key. The future only says when the answer may be given; it is ready at once in a store
    /// that waits for nothing, and dropping it takes nothing back. It holds neither `key` nor
    /// `command`, so the caller's buffers are free while it waits.
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_, Self>;

    /// Drops expired items, looking at no more than `max_items` whose time may have come. To be
    /// called several times a second, by one task. A late sweep costs memory only: an expired item
    /// is absent for every command from the very millisecond of its expiry.
    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn;

    /// The counters. Cheap enough for once a second.
    fn stats(&self) -> StoreStats;
}

/// Counters of a store since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Items held now, including expired ones that no sweep or lookup has met yet.
    pub items: u64,
    /// Length of their bodies together.
    pub body_bytes: u64,
    /// What these items cost, as [`StoreOptions::max_memory_bytes`] counts.
    ///
    /// [`StoreOptions::max_memory_bytes`]: super::StoreOptions::max_memory_bytes
    pub bytes: u64,
    /// PUTs of new items refused for lack of memory.
    pub refused_new: u64,
    /// Items dropped because they expired.
    pub expired: u64,
}

/// What a call of [`SessionStore::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepTurn {
    /// Expired items dropped.
    pub expired: usize,
    /// Items looked at that are still alive.
    pub kept: usize,
    /// Nothing more is due; if false, the item limit was reached and the next call does the rest.
    pub complete: bool,
}
