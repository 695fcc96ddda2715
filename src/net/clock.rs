//! The system's clock, and the ticks of the workers.
//!
//! Workers go without the runtime's timers: for a single one it looks at the clock twice per turn
//! of the event loop and walks through its wheel. A thread of its own ticks for all of them.

use std::cell::Cell;
use std::io;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::os;

/// A moment of the monotonic clock, in one word: cheaper to take and to compare than
/// [`std::time::Instant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    ns: u64,
}

impl Moment {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self {
            ns: os::monotonic_ns(),
        }
    }

    /// The time since an earlier moment in nanoseconds; zero if it was later.
    #[must_use]
    pub const fn since_ns(self, earlier: Self) -> u64 {
        self.ns.saturating_sub(earlier.ns)
    }

    /// The time that has passed since, in nanoseconds.
    #[must_use]
    pub fn elapsed_ns(self) -> u64 {
        Self::now().since_ns(self)
    }
}

/// Unix time in milliseconds that never goes back: the wall clock is read once, so that nobody who
/// sets it makes a stage longer or shorter.
#[derive(Debug, Clone, Copy)]
pub struct UnixClock {
    start: Moment,
    start_ms: u64,
}

impl UnixClock {
    /// Starts with the wall clock.
    #[must_use]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            start: Moment::now(),
            start_ms: wall.map_or(0, |since| since.as_millis() as u64),
        }
    }

    /// Unix time in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.start_ms + self.start.elapsed_ns() / 1_000_000
    }
}

/// Time that adds up, in one word.
#[derive(Debug, Default)]
pub struct TimeSpent {
    ns: Cell<u64>,
}

impl TimeSpent {
    /// Adds so many nanoseconds.
    pub fn add_ns(&self, ns: u64) {
        self.ns.set(self.ns.get() + ns);
    }

    /// All of it in nanoseconds.
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.ns.get()
    }
}

/// Sends a tick per `period` for as long as anybody listens; several that were missed are one.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn ticks(period: Duration) -> io::Result<watch::Receiver<()>> {
    let (tick, ticks) = watch::channel(());
    let run = move || {
        while tick.send(()).is_ok() {
            thread::sleep(period);
        }
    };
    thread::Builder::new().name("clock".into()).spawn(run)?;
    Ok(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ticks_come_until_nobody_listens() {
        let mut ticks = ticks(Duration::from_millis(1)).unwrap();
        for _ in 0..3 {
            ticks.changed().await.unwrap();
        }
    }

    #[test]
    fn time_does_not_run_backwards() {
        let (first, second) = (Moment::now(), Moment::now());
        assert!(second >= first);
        assert_eq!(first.since_ns(second).min(first.since_ns(first)), 0);
        assert!(first.elapsed_ns() >= second.since_ns(first));
    }
}
