//! Moments that can be told apart after a restart.

use crate::net::UnixClock;
use crate::os;

/// Longest boot id that is taken for one.
const MAX_BOOT_ID_BYTES: usize = 64;

/// A moment of this machine: what of the past is certain when the wall clock may have been wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootMoment {
    /// By [`UnixClock`], Unix time in milliseconds.
    pub now_ms: u64,
    /// Drawn by the system when it booted; empty if it tells nobody.
    pub boot_id: String,
    /// Since then, in milliseconds, suspended or not.
    pub since_boot_ms: u64,
}

impl BootMoment {
    /// Now, as it can be written down.
    pub fn of(clock: UnixClock) -> Self {
        let (boot_id, since_boot_ms) = os::since_boot();
        Self {
            now_ms: clock.now_ms(),
            boot_id,
            since_boot_ms,
        }
    }

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
        let clock = UnixClock::start();
        let (one, other) = (BootMoment::of(clock), BootMoment::of(clock));
        assert!(other.since(&one).is_some_and(|ms| ms < 60_000), "{one:?}");
    }
}
