//! What a store answers, and what it changed.

use super::body::Body;
use super::command::BadHeader;

/// The time of a request, read once by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970-01-01 UTC, by a clock that is set once when the process starts and
    /// from then on follows the monotonic one: it runs on through a restart, and a step of the
    /// wall clock moves it at the next start only. Must not run backwards by more than the skew
    /// between threads. Drives expiry and lock ages.
    pub unix_ms: u64,
    /// 100 ns ticks since 0001-01-01 00:00 in local time: what `LockDate` reports (protocol 4).
    pub local_ticks: u64,
}

/// The answer to a [`SessionCommand`](super::SessionCommand): just what the response head needs
/// (protocol 4).
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutcome {
    /// 200 with the item.
    Found {
        /// The item's bytes; shared, not copied.
        body: Body,
        /// `Timeout`, 1 to 525600 minutes.
        timeout_minutes: u32,
        /// `LockCookie`: the new lock's cookie after an acquire, otherwise no such header.
        cookie: Option<u32>,
        /// The item was uninitialised until now: send `ActionFlags: 1`.
        action_flags: bool,
    },
    /// 200 without a body.
    Done {
        /// The item was uninitialised until now: send `ActionFlags: 1` (release only).
        action_flags: bool,
        /// The PUT asked for a timeout of 0 and got one minute: worth a log line (protocol 3).
        zero_timeout: bool,
    },
    /// 404: no such item, or it has expired.
    Absent,
    /// 423: the item is locked, or locked with another cookie.
    Locked {
        /// `LockDate`: [`Now::local_ticks`] of the acquire.
        lock_date_ticks: u64,
        /// `LockAge`: whole seconds since the acquire, 0 to 31535999 (protocol 4).
        lock_age_s: u32,
        /// `LockCookie` of the lock in force.
        cookie: u32,
    },
    /// 400: a header value is unusable.
    Invalid(BadHeader),
    /// 400: the store does not take this write. Worth a warning: the operator has to act.
    Refused(StoreRefusal),
    /// No answer: the store cannot say what became of the command, which may have been carried
    /// out. The connection is closed, because every status would claim to know (protocol 6).
    Unknown,
}

/// Why a store does not take a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreRefusal {
    /// A new item found no room in the memory budget (protocol 5.4).
    #[error("memory limit reached: a new session was refused, live ones stay")]
    MemoryFull,
    /// What keeps the sessions takes no writes.
    #[error("sessions cannot be stored now: a write was refused, reads go on")]
    NotWritable,
}

impl StoreOutcome {
    /// 200 without a body and without anything to report.
    pub(super) const DONE: Self = Self::Done {
        action_flags: false,
        zero_timeout: false,
    };
}

/// The state of one item, for inspection (protocol 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemSnapshot {
    /// The sliding timeout, 1 to 525600 minutes.
    pub timeout_minutes: u32,
    /// The lock counter, 1 to 2147483647: the cookie of the current or latest lock.
    pub cookie: u32,
    /// Whether the item is locked.
    pub locked: bool,
    /// Whether the next GET reports `ActionFlags: 1`.
    pub uninit: bool,
    /// The stored bytes.
    pub body: Body,
    /// [`Now::unix_ms`] at which the item expires unless something touches it.
    pub expires_ms: u64,
}
