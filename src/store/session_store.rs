//! The seam between the state server's service and whatever keeps the sessions.

use std::future::ready;
use std::sync::Arc;

use super::command::SessionCommand;
use super::outcome::{Now, StoreOutcome};
use super::survey::StoreSurvey;

/// Keeps sessions by the rules of protocol 5.
///
/// The service knows nothing else about a store, and a store nothing about the wire. To write a
/// new store is to implement this trait; `tests/store` runs the state table, the wire vectors, the
/// scenarios and the model against everything that does.
pub trait SessionStore: 'static {
    /// Carries out one command on the item with this key and says what to answer.
    ///
    /// `key` is the canonical key: the decoded target, compared byte by byte (protocol 2.2). The
    /// caller bounds the lengths of key and body. The checks happen in the protocol's order (5.2),
    /// so that a request with several faults gets the stock server's answer.
    ///
    /// A command has its place in the order of all commands on the key when its answer is there;
    /// in memory and on disk when this returns. The future says when the answer may be given. It is
    /// ready at once in a store that waits for nothing, and dropping it takes nothing back. It does
    /// not borrow `key`, so the caller's buffers are free while it waits.
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_, Self>;

    /// Waits until it can be asked.
    ///
    /// # Errors
    /// Why it cannot, in words: what keeps its sessions is out of reach, or not fit to keep them.
    fn ready(&self) -> impl Future<Output = Result<(), String>> {
        ready(Ok(()))
    }

    /// What there is to say about what keeps its sessions; nothing, if it does so itself.
    fn survey(&self) -> impl Future<Output = StoreSurvey> {
        ready(StoreSurvey::default())
    }

    /// Drops expired items, looking at no more than `max_items` whose time may have come. To be
    /// called several times a second, by one task. A late sweep costs memory only: an expired item
    /// is absent for every command from the very millisecond of its expiry.
    ///
    /// Nothing is left to do where items expire by themselves.
    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        let _ = (now, max_items);
        SweepTurn {
            expired: 0,
            kept: 0,
            complete: true,
        }
    }
}

/// A store that counts what it holds.
pub trait CountedStore: SessionStore {
    /// The counters. Cheap enough for once a second.
    fn stats(&self) -> StoreStats;
}

impl<S: SessionStore> SessionStore for Arc<S> {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_, S> {
        (**self).apply(key, command, now)
    }

    fn ready(&self) -> impl Future<Output = Result<(), String>> {
        (**self).ready()
    }

    fn survey(&self) -> impl Future<Output = StoreSurvey> {
        (**self).survey()
    }

    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        (**self).sweep(now, max_items)
    }
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
