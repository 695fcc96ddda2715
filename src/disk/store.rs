//! The store whose sessions outlive the process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::directory::Directory;
use super::error::DiskError;
use super::figures::Figures;
use super::journal::{DiskState, Journal};
use super::load::load;
use super::log::LogError;
use super::options::{DiskOptions, SyncMode};
use super::writer::Writer;
use crate::store::{
    CountedStore, ItemSnapshot, MemoryStore, Now, SessionCommand, SessionStore, StoreOutcome,
    StoreRefusal, StoreStats, SweepTurn,
};

/// So many turns of the event loop a write waits for more writes at most, as long as requests come.
const MAX_TURNS: usize = 16;

/// What the disk of a store is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStats {
    /// Whether it takes writes.
    pub state: DiskState,
    /// Length of all files.
    pub file_bytes: u64,
    /// The part of it that is in use.
    pub live_bytes: u64,
    /// How much more fits on the volume; `None` where it does not say.
    pub free_bytes: Option<u64>,
    /// How often it was synced.
    pub syncs: u64,
    /// How long that took, all of it.
    pub sync_ns: u64,
    /// How long a call that is under way has lasted; 0 for none.
    pub busy_ms: u64,
}

/// Sessions in memory, and on disk.
pub struct DiskStore {
    memory: Arc<MemoryStore>,
    journal: Arc<Journal>,
    figures: Arc<Figures>,
    sync: SyncMode,
    writer: Mutex<Option<JoinHandle<Result<(), LogError>>>>,
}

impl DiskStore {
    /// Loads what is in `directory`, unlocked, and goes on from there. Takes as long as it takes to
    /// read it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open<D: Directory>(
        directory: D,
        options: &DiskOptions,
        now: Now,
    ) -> Result<Self, DiskError> {
        let memory = Arc::new(MemoryStore::new(&options.memory));
        let loaded = load(directory, &memory, now, options.segment_bytes)?;
        let mut log = loaded.log;
        if loaded.cut_bytes > 0 {
            tracing::warn!(
                bytes = loaded.cut_bytes,
                "the end of the last file was cut off: it was being written when the state server \
                 or its machine stopped"
            );
        }
        let begun = match options.sync {
            // What is loaded must not come back after a crash, when it has long been overtaken.
            SyncMode::Shutdown => log.remove_all(),
            _ => log.begin_segment(),
        };
        begun.map_err(LogError::into_disk_error)?;
        let figures = Arc::new(Figures::default());
        figures.log(log.bytes());
        let journal = Arc::new(Journal::new());
        let writer = Writer {
            log,
            memory: Arc::clone(&memory),
            journal: Arc::clone(&journal),
            figures: Arc::clone(&figures),
            sync: options.sync,
            sync_every: options.sync_every,
        };
        let writer = writer.spawn()?;
        Ok(Self {
            memory,
            journal,
            figures,
            sync: options.sync,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// What the disk is like.
    pub fn disk_stats(&self) -> DiskStats {
        DiskStats {
            state: self.journal.state(),
            file_bytes: self.figures.file_bytes(),
            live_bytes: self.figures.live_bytes(),
            free_bytes: self.figures.free_bytes(),
            syncs: self.figures.syncs(),
            sync_ns: self.figures.sync_ns(),
            busy_ms: self.figures.busy_ms(),
        }
    }

    /// How long the slowest write or sync took since this was asked last, one that is under way
    /// included.
    pub fn take_slowest_ms(&self) -> u64 {
        self.figures.take_slowest_ms()
    }

    /// The state of a live item, as [`MemoryStore::inspect`].
    pub fn inspect(&self, key: &[u8], now: Now) -> Option<ItemSnapshot> {
        self.memory.inspect(key, now)
    }

    /// Writes what is still to be written. Commands after this are refused or lost.
    ///
    /// # Errors
    /// What keeps the disk from having it all.
    pub fn close(&self) -> Result<(), DiskError> {
        self.journal.close();
        let writer = self.writer.lock();
        let writer = writer.unwrap_or_else(PoisonError::into_inner).take();
        match writer.map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(error.into_disk_error()),
            Some(Err(_panic)) => Err(DiskError::Writer),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }
}

impl SessionStore for DiskStore {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_> {
        let (mut own, mut latest, mut call) = (0, 0, None);
        let outcome = if command.is_write() && self.journal.state() != DiskState::Writable {
            StoreOutcome::Refused(StoreRefusal::NotWritable)
        } else if self.sync == SyncMode::Shutdown {
            self.memory.apply_observed(key, command, now, |_change| ())
        } else {
            let outcome = self.memory.apply_observed(key, command, now, |change| {
                let noted = self.journal.note(key, change);
                own = noted.ticket.max(own);
                call = call.take().or(noted.call);
            });
            latest = self.journal.latest_write(key);
            outcome
        };
        async move {
            if let Some(call) = call {
                // What else is written meanwhile is written at one go with it. Reads count as well: a
                // turn without a write is not the end of them.
                let mut known = self.journal.asked();
                for _turn in 0..MAX_TURNS {
                    tokio::task::yield_now().await;
                    let asked = self.journal.asked();
                    if asked == known {
                        break;
                    }
                    known = asked;
                }
                drop(call);
            }
            // Also who only reads waits: what an answer has shown must not be gone after a crash.
            if latest == 0 || self.journal.settled(latest).await || own == 0 {
                outcome
            } else {
                StoreOutcome::Refused(StoreRefusal::NotWritable)
            }
        }
    }

    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        match self.sync {
            SyncMode::Shutdown => self.memory.sweep(now, max_items),
            _ => self
                .memory
                .sweep_observed(now, max_items, |key| self.journal.expired(key)),
        }
    }
}

impl CountedStore for DiskStore {
    fn stats(&self) -> StoreStats {
        self.memory.stats()
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        // Whoever wants to know whether it worked has called it before.
        let _ = self.close();
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore")
            .field("sync", &self.sync)
            .field("disk", &self.disk_stats())
            .finish_non_exhaustive()
    }
}
