//! The machine's clocks and name.

use std::fs;

use rustix::time::{ClockId, Timespec, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Nanoseconds of a clock that never goes back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    ns(clock_gettime(ClockId::Monotonic))
}

/// What the system has drawn when it booted, empty if it tells nobody, and the milliseconds since
/// then, suspended or not.
#[must_use]
pub fn since_boot() -> (String, u64) {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let since_ms = ns(clock_gettime(ClockId::Boottime)) / NS_PER_MS;
    (boot_id.trim().to_owned(), since_ms)
}

/// The name that this machine gives itself.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

fn ns(time: Timespec) -> u64 {
    (time.tv_sec as u64) * NS_PER_S + time.tv_nsec as u64
}
