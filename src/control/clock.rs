//! The time that stages and health go by.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::os;

/// Longest boot id that is taken for one.
const MAX_BOOT_ID_BYTES: usize = 64;

/// Unix time in milliseconds that never goes back: the wall clock is read once, so that nobody who
/// sets it makes a stage longer or shorter.
#[derive(Debug, Clone, Copy)]
pub struct ControlClock {
    start: Instant,
    start_ms: u64,
}

/// A moment of this machine: what of the past is certain when the wall clock may have been wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootMoment {
    /// By [`ControlClock`], Unix time in milliseconds.
    pub now_ms: u64,
    /// Drawn by the system when it booted; empty if it tells nobody.
    pub boot_id: String,
    /// Since then, in milliseconds, suspended or not.
    pub since_boot_ms: u64,
}

impl ControlClock {
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

    /// Now, as it can be written down.
    pub fn moment(&self) -> BootMoment {
        let (boot_id, since_boot_ms) = os::since_boot();
        BootMoment {
            now_ms: self.now_ms(),
            boot_id,
            since_boot_ms,
        }
    }
}

impl BootMoment {
    /// How long ago `then` was, in milliseconds; `None` if that was before the machine booted, or on
    /// another one. The wall clock is not asked: it may have been set since, or be wrong until it
    /// has heard of a time server.
    pub fn since(&self, then: &Self) -> Option<u64> {
        let is_told = !self.boot_id.is_empty() && self.boot_id.len() <= MAX_BOOT_ID_BYTES;
        let is_same = is_told && self.boot_id == then.boot_id;
        is_same
            .then(|| self.since_boot_ms.checked_sub(then.since_boot_ms))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(now_ms: u64, boot_id: &str, since_boot_ms: u64) -> BootMoment {
        BootMoment {
            now_ms,
            boot_id: boot_id.to_owned(),
            since_boot_ms,
        }
    }

    #[test]
    fn the_wall_clock_does_not_say_how_long_ago_something_was() {
        let then = moment(1_000_000, "a", 500);
        assert_eq!(moment(9_000_000, "a", 700).since(&then), Some(200));
        assert_eq!(moment(1, "a", 700).since(&then), Some(200));
        for elsewhere in [moment(1_000_100, "b", 700), moment(1_000_100, "a", 400)] {
            assert_eq!(elsewhere.since(&then), None);
        }
        assert_eq!(moment(9, "", 7).since(&moment(8, "", 6)), None);
    }

    #[test]
    fn this_machine_knows_when_it_was_booted() {
        let clock = ControlClock::start();
        let (one, other) = (clock.moment(), clock.moment());
        assert!(other.since(&one).is_some_and(|ms| ms < 60_000), "{one:?}");
    }
}
