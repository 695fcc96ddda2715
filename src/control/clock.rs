//! The time that stages and health go by.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix time in milliseconds that never goes back: the wall clock is read once, so that nobody who
/// sets it makes a stage longer or shorter.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    /// Starts with the wall clock.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            start: Instant::now(),
            start_ms: wall.map_or(0, |since| since.as_millis() as u64),
        }
    }

    /// Unix time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.start_ms + self.start.elapsed().as_millis() as u64
    }
}
