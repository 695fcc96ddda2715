//! How a store on disk is opened.

use std::time::Duration;

use crate::store::StoreOptions;

/// When a write is answered, and what a failure costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// Once the file has it; when the disk gets it is the system's business.
    Off,
    /// At once. The file is written when the server stops in good order, and not before.
    Shutdown,
    /// Once the file has it; the disk gets it every second.
    EverySec,
    /// Once the disk has it.
    Always,
}

/// How to open a [`DiskStore`](super::DiskStore).
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// How items are kept in memory.
    pub memory: StoreOptions,
    /// When a write is answered.
    pub sync: SyncMode,
    /// A segment of the log is complete at so many bytes.
    pub segment_bytes: u64,
    /// How often [`SyncMode::EverySec`] syncs.
    pub sync_every: Duration,
}

impl DiskOptions {
    /// Segments of 32 MiB and a second between syncs.
    pub fn new(memory: StoreOptions, sync: SyncMode) -> Self {
        Self {
            memory,
            sync,
            segment_bytes: 32 << 20,
            sync_every: Duration::from_secs(1),
        }
    }
}
