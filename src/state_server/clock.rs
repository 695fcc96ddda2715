//! The time a request is served at.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;

use crate::store::Now;

/// 100 ns ticks from 0001-01-01 to 1970-01-01 (protocol 4, `LockDate`).
const UNIX_EPOCH_TICKS: i64 = 621_355_968_000_000_000;

/// Ticks in one second.
const TICKS_PER_SECOND: i64 = 10_000_000;

/// One origin of time for all workers of a state server.
#[derive(Debug)]
pub struct ServerClock {
    start: Instant,
    start_unix_ms: u64,
    offset_ticks: AtomicI64,
}

impl Default for ServerClock {
    fn default() -> Self {
        let clock = Self {
            start: Instant::now(),
            start_unix_ms: since_1970().as_millis() as u64,
            offset_ticks: AtomicI64::new(0),
        };
        clock.refresh_offset();
        clock
    }
}

impl ServerClock {
    /// The time now, for one request.
    pub fn now(&self) -> Now {
        let utc_ticks = UNIX_EPOCH_TICKS + (since_1970().as_nanos() / 100) as i64;
        let local_ticks = utc_ticks + self.offset_ticks.load(Ordering::Relaxed);
        Now {
            unix_ms: self.start_unix_ms + self.start.elapsed().as_millis() as u64,
            local_ticks: u64::try_from(local_ticks).unwrap_or(0),
        }
    }

    /// Looks up the local offset from UTC anew: it changes twice a year in many places.
    pub fn refresh_offset(&self) {
        let offset = TimeZone::system().to_offset(jiff::Timestamp::now());
        let ticks = i64::from(offset.seconds()) * TICKS_PER_SECOND;
        self.offset_ticks.store(ticks, Ordering::Relaxed);
    }
}

/// A clock that stands before 1970 counts as 1970.
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
