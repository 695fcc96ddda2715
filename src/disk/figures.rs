//! How large the log is, for those who do not write it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the writer tells of the log.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) file_bytes: AtomicU64,
    pub(super) live_bytes: AtomicU64,
}

impl Figures {
    pub(super) fn log(&self, (file_bytes, live_bytes): (u64, u64)) {
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
    }
}
