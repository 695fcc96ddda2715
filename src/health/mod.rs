//! Whether a backend counts as up, pure: what its probes and requests met goes in, a verdict and
//! its changes come out. Time is an argument.
//!
//! * [`failure`]: what a probe or a request can meet.
//! * [`Health`]: the failures and good probes of one backend, counted in a row.
//! * [`pause_ms`]: when to probe next.
//!
//! What the partition map says (`drain`, `off`) is not part of the verdict.

pub mod failure;

use std::fmt;

pub use failure::Failure;

/// How many failures and good probes it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures in a row that make a backend count as down; at least 1.
    pub fall: u32,
    /// Good probes in a row that make it count as up again; at least 1.
    pub rise: u32,
    /// A backend that goes down within this time after it came up needs twice as many good probes.
    pub flap_window_ms: u64,
    /// What `rise` grows to at most by that; not less than `rise`.
    pub max_rise: u32,
}

/// What a backend counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthState {
    /// It serves.
    Up,
    /// It serves, but the last that was heard of it was a failure.
    Suspect,
    /// It is not asked.
    Down,
}

/// A verdict that has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The verdict before; never the same as `to`.
    pub from: HealthState,
    /// The verdict from now on.
    pub to: HealthState,
    /// What changed it.
    pub reason: Reason,
}

/// What changed a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// So many failures in a row.
    Failures {
        /// At least 1.
        count: u32,
        /// The one that made up the number.
        last: Failure,
    },
    /// So many good probes in a row.
    GoodProbes {
        /// At least 1.
        count: u32,
    },
}

/// The health of one backend at one address, as this proxy sees it. A new one counts as up: what
/// nobody has asked yet has not failed.
#[derive(Debug, Clone)]
pub struct Health {
    thresholds: Thresholds,
    state: State,
    is_known: bool,
    has_answered: bool,
    /// When it last came up or went down.
    since_ms: u64,
    has_been_down: bool,
    /// Falls in a row that came soon after a rise.
    flaps: u32,
    /// Requests it had answered in all when it last failed.
    answered: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Up,
    Suspect { failures: u32 },
    Down { good_probes: u32 },
}

impl Health {
    /// A backend that nothing is known of yet.
    #[must_use]
    pub const fn new(thresholds: Thresholds, now_ms: u64) -> Self {
        Self {
            thresholds,
            state: State::Up,
            is_known: false,
            has_answered: false,
            since_ms: now_ms,
            has_been_down: false,
            flaps: 0,
            answered: 0,
        }
    }

    /// What the backend counts as.
    #[must_use]
    pub const fn verdict(&self) -> HealthState {
        match self.state {
            State::Up => HealthState::Up,
            State::Suspect { .. } => HealthState::Suspect,
            State::Down { .. } => HealthState::Down,
        }
    }

    /// Whether nothing but failures has been seen of it for a moment: it is about to count as down, or
    /// wrongly suspected. `answered` as for [`probe_failed`](Self::probe_failed).
    #[must_use]
    pub fn is_doubted(&self, answered: u64) -> bool {
        self.verdict() == HealthState::Suspect && answered == self.answered
    }

    /// Whether a probe or a failed request has said anything of it.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Whether a probe was answered, or requests were while probes failed, since it was new or was
    /// last [to be asked anew](Self::ask_anew).
    #[must_use]
    pub const fn has_answered(&self) -> bool {
        self.has_answered
    }

    /// Nobody has probed it for a while: what it answered before says nothing any more. `answered` as
    /// for [`probe_failed`](Self::probe_failed). The verdict stays until the next event.
    pub const fn ask_anew(&mut self, answered: u64) {
        self.has_answered = false;
        self.answered = answered;
    }

    /// When it came up or went down, whichever was last; when it became known if neither was.
    /// Being suspect changes nothing here.
    #[must_use]
    pub const fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Other thresholds from now on; the verdict stays until the next event.
    pub const fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
    }

    /// A probe was answered as a state server answers.
    pub fn probe_ok(&mut self, now_ms: u64) -> Option<Change> {
        self.is_known = true;
        self.has_answered = true;
        let (state, count) = match self.state {
            State::Up => return None,
            State::Suspect { .. } => (State::Up, 1),
            State::Down { good_probes } => {
                let good_probes = good_probes.saturating_add(1);
                let is_enough = good_probes >= self.rise();
                let down = State::Down { good_probes };
                (if is_enough { State::Up } else { down }, good_probes)
            }
        };
        self.enter(state, Reason::GoodProbes { count }, now_ms)
    }

    /// A probe failed. `answered` is the number of requests that the backend has answered in all:
    /// one that serves others is not down because it was too slow or too busy for the probe.
    pub fn probe_failed(&mut self, failure: Failure, answered: u64, now_ms: u64) -> Option<Change> {
        if !failure.is_about_backend() {
            return None;
        }
        if let State::Down { good_probes } = &mut self.state {
            *good_probes = 0;
            return None;
        }
        // Whatever gives wrong answers to probes may give them to requests, too.
        let is_refuted = answered != self.answered && !failure.is_wrong_answer();
        self.fail(failure, is_refuted, answered, now_ms)
    }

    /// A request failed for a reason that lies with the backend. `answered` as for
    /// [`probe_failed`](Self::probe_failed).
    pub fn request_failed(
        &mut self,
        failure: Failure,
        answered: u64,
        now_ms: u64,
    ) -> Option<Change> {
        // A backend that is down is not asked: this request is from before.
        if self.verdict() == HealthState::Down || !failure.is_about_backend() {
            return None;
        }
        self.fail(failure, answered != self.answered, answered, now_ms)
    }

    /// Counts a failure, anew if what was answered since the one before refutes that one.
    fn fail(
        &mut self,
        failure: Failure,
        is_refuted: bool,
        answered: u64,
        now_ms: u64,
    ) -> Option<Change> {
        let before = match self.state {
            State::Suspect { failures } if !is_refuted => failures,
            _ => 0,
        };
        self.answered = answered;
        self.has_answered |= is_refuted;
        let count = before.saturating_add(1);
        // Its connections lead in circles: nobody waits for more of them.
        let is_certain = failure == Failure::Staterouter;
        let state = if is_certain || count >= self.thresholds.fall {
            State::Down { good_probes: 0 }
        } else {
            State::Suspect { failures: count }
        };
        let last = failure;
        self.enter(state, Reason::Failures { count, last }, now_ms)
    }

    fn enter(&mut self, state: State, reason: Reason, now_ms: u64) -> Option<Change> {
        self.is_known = true;
        let from = self.verdict();
        self.state = state;
        let to = self.verdict();
        if to == HealthState::Down && from != to {
            let up_for_ms = now_ms.saturating_sub(self.since_ms);
            let is_flap = self.has_been_down && up_for_ms < self.thresholds.flap_window_ms;
            self.flaps = if is_flap {
                self.flaps.saturating_add(1)
            } else {
                0
            };
            self.has_been_down = true;
        }
        if from != to && (from == HealthState::Down || to == HealthState::Down) {
            self.since_ms = now_ms;
        }
        (from != to).then_some(Change { from, to, reason })
    }

    /// Good probes that it takes to come up again.
    fn rise(&self) -> u32 {
        let Thresholds { rise, max_rise, .. } = self.thresholds;
        let factor = 1_u32.checked_shl(self.flaps).unwrap_or(u32::MAX);
        rise.saturating_mul(factor).min(max_rise)
    }
}

/// A suspect backend is probed no more often than this, unless all are.
const MIN_SUSPECT_PAUSE_MS: u64 = 250;

/// The time from one probe to the next: `interval_ms`, and a quarter of it while the backend is
/// suspect, because it is either down, or wrongly suspected. Up to a fifth more or less by a random
/// number, so that the probes of several proxies and backends do not fall together.
#[must_use]
pub fn pause_ms(interval_ms: u64, is_suspect: bool, random: u64) -> u64 {
    let soon_ms = (interval_ms / 4).max(MIN_SUSPECT_PAUSE_MS);
    let pause_ms = if is_suspect {
        interval_ms.min(soon_ms)
    } else {
        interval_ms
    };
    jittered(pause_ms, random)
}

const fn jittered(interval_ms: u64, random: u64) -> u64 {
    let spread_ms = interval_ms / 5;
    let shift_ms = random % (2 * spread_ms + 1);
    (interval_ms - spread_ms).saturating_add(shift_ms)
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { count: 1, last } => write!(f, "{last}"),
            Self::Failures { count, last } => write!(f, "{count} failures in a row, now {last}"),
            Self::GoodProbes { count: 1 } => f.write_str("a good probe"),
            Self::GoodProbes { count } => write!(f, "{count} good probes in a row"),
        }
    }
}

#[cfg(test)]
mod tests;
