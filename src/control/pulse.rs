//! Whether a thread goes on: it says so again and again, and others look.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Silence after which a thread counts as stuck. It says something four times a second.
pub const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The last sign of life of one thread, for that thread and for those who look.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Mutex<Option<Beat>>>);

#[derive(Debug, Clone, Copy)]
struct Beat {
    at: Instant,
    doing: &'static str,
}

/// A thread has given no sign of life for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stuck {
    /// For how long.
    pub since: Duration,
    /// What it was about to do then: "writing the state file".
    pub doing: &'static str,
}

impl Pulse {
    /// The thread goes on, and is now `doing` this.
    pub fn beat(&self, doing: &'static str) {
        let at = Instant::now();
        // A beat is written whole, whoever panics.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Beat { at, doing });
    }

    /// Whether the thread is stuck. One that has not begun is not.
    pub fn stuck(&self) -> Option<Stuck> {
        self.stuck_at(Instant::now())
    }

    /// One whose thread gave a sign this long ago.
    #[cfg(test)]
    pub(super) fn silent_for(silence: Duration) -> Self {
        let at = Instant::now().checked_sub(silence).unwrap();
        let doing = "reading the files";
        Self(Arc::new(Mutex::new(Some(Beat { at, doing }))))
    }

    fn stuck_at(&self, now: Instant) -> Option<Stuck> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Beat { at, doing } = last?;
        let since = now.saturating_duration_since(at);
        (since >= STUCK_AFTER).then_some(Stuck { since, doing })
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.since.as_secs();
        write!(f, "stuck for {seconds} s while {}", self.doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_with_what_came_last() {
        let pulse = Pulse::default();
        let now = Instant::now();
        assert_eq!(pulse.stuck_at(now + 2 * STUCK_AFTER), None);
        pulse.beat("deciding");
        pulse.clone().beat("writing the state file");
        assert_eq!(pulse.stuck_at(now), None);
        let stuck = pulse.stuck_at(now + 10 * STUCK_AFTER).unwrap();
        assert_eq!(stuck.doing, "writing the state file");
        assert!(stuck.to_string().starts_with("stuck for 4"), "{stuck}");
    }
}
