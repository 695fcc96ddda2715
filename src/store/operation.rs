//! What can be asked of the store and what it answers.

use super::body::Body;
use super::values::BadHeader;

/// The time of a request, read once by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since an origin of the caller's choice that stays the same for the life of
    /// the store. Must not run backwards by more than the skew between threads. Drives expiry
    /// and lock ages.
    pub monotonic_ms: u64,
    /// 100 ns ticks since 0001-01-01 00:00 in local time: what `LockDate` reports (protocol 4).
    pub local_ticks: u64,
}

/// One request of the protocol, without its key (protocol 3).
///
/// Header values are the raw bytes of the request head, blanks around them removed; `None` means
/// the header is missing. The store parses them, at the moment the protocol wants (5.2).
#[derive(Debug)]
pub enum Operation<'a> {
    /// `GET`: shared read.
    Get,
    /// `GET` with `Exclusive: acquire`: read and lock.
    Acquire,
    /// `GET` with `Exclusive: release`: unlock.
    Release {
        /// `LockCookie`.
        cookie: Option<&'a [u8]>,
    },
    /// `PUT`: store and unlock.
    Put {
        /// `Timeout`, minutes.
        timeout: Option<&'a [u8]>,
        /// `ExtraFlags`.
        extra_flags: Option<&'a [u8]>,
        /// `LockCookie`.
        cookie: Option<&'a [u8]>,
        /// The bytes to store; may be empty.
        body: Body,
    },
    /// `DELETE`: remove.
    Remove {
        /// `LockCookie`.
        cookie: Option<&'a [u8]>,
    },
    /// `HEAD`: keep the item alive.
    Touch,
}

/// The answer to an [`Operation`]: just what the response head needs (protocol 4).
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
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
    /// 400: a new item found no room in the memory budget (protocol 5.4). Worth a warning: the
    /// operator has to act.
    Refused,
}

impl Outcome {
    /// 200 without a body and without anything to report.
    pub(super) const DONE: Self = Self::Done {
        action_flags: false,
        zero_timeout: false,
    };
}

/// The state of one item, for inspection (protocol 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
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
    /// [`Now::monotonic_ms`] at which the item expires unless something touches it.
    pub expires_ms: u64,
}
