//! What the writer tells of the log and of the disk, for those who do not write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The volume does not say how much room it has.
const UNKNOWN: u64 = u64::MAX;

/// Numbers of the writer. Each is read on its own.
#[derive(Debug)]
pub(super) struct Figures {
    file_bytes: AtomicU64,
    live_bytes: AtomicU64,
    free_bytes: AtomicU64,
    syncs: AtomicU64,
    sync_ns: AtomicU64,
    /// The slowest call since somebody asked.
    slowest_ms: AtomicU64,
    /// When the call that is under way began, in milliseconds after `origin`, plus one; 0 for none.
    busy_since_ms: AtomicU64,
    origin: Instant,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            file_bytes: AtomicU64::new(0),
            live_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(UNKNOWN),
            syncs: AtomicU64::new(0),
            sync_ns: AtomicU64::new(0),
            slowest_ms: AtomicU64::new(0),
            busy_since_ms: AtomicU64::new(0),
            origin: Instant::now(),
        }
    }
}

impl Figures {
    /// How long all files are, and the part of them that is in use.
    pub(super) fn log(&self, (file_bytes, live_bytes): (u64, u64)) {
        self.file_bytes.store(file_bytes, Ordering::Relaxed);
        self.live_bytes.store(live_bytes, Ordering::Relaxed);
    }

    /// How much room the volume has; `None` where it does not say.
    pub(super) fn free(&self, free_bytes: Option<u64>) {
        let free_bytes = free_bytes.unwrap_or(UNKNOWN);
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
    }

    /// Runs a call that the disk may hold up.
    pub(super) fn time<T>(&self, call: impl FnOnce() -> T) -> T {
        self.timed(call).0
    }

    /// The same for one that syncs.
    pub(super) fn time_sync<T>(&self, call: impl FnOnce() -> T) -> T {
        let (returned, took) = self.timed(call);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let took_ns = took.as_nanos() as u64;
        self.sync_ns.fetch_add(took_ns, Ordering::Relaxed);
        returned
    }

    fn timed<T>(&self, call: impl FnOnce() -> T) -> (T, Duration) {
        let began = self.origin.elapsed();
        let began_ms = began.as_millis() as u64;
        // Rounded up: no call seems to last longer while it does than it is said to have lasted.
        self.busy_since_ms.store(began_ms + 1, Ordering::Relaxed);
        let returned = call();
        self.busy_since_ms.store(0, Ordering::Relaxed);
        let took = self.origin.elapsed().saturating_sub(began);
        let took_ms = took.as_millis() as u64;
        self.slowest_ms.fetch_max(took_ms, Ordering::Relaxed);
        (returned, took)
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        let free_bytes = self.free_bytes.load(Ordering::Relaxed);
        (free_bytes != UNKNOWN).then_some(free_bytes)
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(super) fn sync_ns(&self) -> u64 {
        self.sync_ns.load(Ordering::Relaxed)
    }

    /// The slowest call since this was asked last, one that is under way included.
    pub(super) fn take_slowest_ms(&self) -> u64 {
        let ended_ms = self.slowest_ms.swap(0, Ordering::Relaxed);
        ended_ms.max(self.busy_ms())
    }

    /// How long the call that is under way has lasted; 0 for none.
    pub(super) fn busy_ms(&self) -> u64 {
        match self.busy_since_ms.load(Ordering::Relaxed) {
            0 => 0,
            since_ms => (self.origin.elapsed().as_millis() as u64).saturating_sub(since_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_call_is_told_of_once_and_while_it_lasts() {
        let figures = Figures::default();
        figures.time_sync(|| {
            let since = Instant::now();
            while figures.busy_ms() < 3 {
                assert!(since.elapsed() < Duration::from_secs(30));
                std::thread::yield_now();
            }
            assert!(figures.take_slowest_ms() >= 3);
        });
        assert_eq!(figures.busy_ms(), 0);
        assert!(figures.take_slowest_ms() >= 3);
        assert_eq!(figures.take_slowest_ms(), 0);
        assert_eq!(figures.syncs(), 1);
        assert!(figures.sync_ns() >= 3_000_000);
    }
}
