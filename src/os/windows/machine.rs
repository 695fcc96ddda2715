//! The machine's clocks and name.

use std::env;
use std::sync::LazyLock;
use std::time::Instant;

/// A moment before every other that is asked about.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds of a clock that never goes back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    START.elapsed().as_nanos() as u64
}

/// What the system has drawn when it booted: it tells nobody, so that nothing of the time before
/// this process is certain.
#[must_use]
pub fn since_boot() -> (String, u64) {
    (String::new(), 0)
}

/// The name that this machine gives itself.
#[must_use]
pub fn host_name() -> String {
    env::var("COMPUTERNAME").unwrap_or_default()
}
