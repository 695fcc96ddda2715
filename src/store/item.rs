//! One item and the state table of the protocol (5.3).
//!
//! The methods assume that the item was found, is not expired and has just been slid. They change
//! the item alone; where items live and what they cost is the shard's business.

use std::{fmt, mem};

use super::body::Body;
use super::command::{BadHeader, LockCookie};
use super::outcome::{ItemSnapshot, Now, StoreOutcome};

/// The lock counter of a new item: the first lock seen on the wire is one higher (protocol 5.1).
const FIRST_COOKIE: u32 = 1;

/// After this cookie the counter starts over, below what a client could take for negative
/// (protocol 5.3).
const LAST_COOKIE: u32 = 2_147_483_646;

/// The cookie that follows [`LAST_COOKIE`].
const WRAPPED_COOKIE: u32 = 2;

/// The largest lock age told: the client takes a year or more for zero (protocol 4).
const MAX_LOCK_AGE_S: u64 = 31_535_999;

/// Milliseconds per minute of timeout.
const MINUTE_MS: u64 = 60_000;

/// An item as protocol 5.1 describes it.
pub struct Item {
    body: Body,
    expires_ms: u64,
    locked_since_ms: u64,
    lock_date_ticks: u64,
    cookie: u32,
    timeout_minutes: u32,
    locked: bool,
    uninit: bool,
}

/// What of an item a use of it may change, but for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemMarks {
    /// [`Now::unix_ms`] at which the item expires unless something touches it.
    pub expires_ms: u64,
    /// The lock counter: the cookie of the current or latest lock.
    pub cookie: u32,
    /// Whether the next GET reports `ActionFlags: 1`.
    pub uninit: bool,
}

/// What is worth keeping of an item beyond this process.
#[derive(Debug, Clone)]
pub struct KeptItem {
    /// Expiry, counter and flag.
    pub marks: ItemMarks,
    /// The sliding timeout, 1 to 525600 minutes.
    pub timeout_minutes: u32,
    /// The stored bytes; shared.
    pub body: Body,
}

/// An item that was kept elsewhere. It comes back unlocked.
#[derive(Debug, Clone, Copy)]
pub struct RestoredItem<'a> {
    /// Expiry, counter and flag.
    pub marks: ItemMarks,
    /// The sliding timeout, 1 to 525600 minutes.
    pub timeout_minutes: u32,
    /// The stored bytes.
    pub body: &'a [u8],
}

/// What became of a PUT to an existing item.
pub(super) enum Stored {
    /// The body was exchanged.
    Yes {
        /// The timeout differs from the one before, so the expiry may have come nearer.
        timeout_changed: bool,
    },
    /// Nothing was stored.
    No(StoreOutcome),
}

impl KeptItem {
    /// The same, with the bytes borrowed.
    pub fn borrowed(&self) -> RestoredItem<'_> {
        RestoredItem {
            marks: self.marks,
            timeout_minutes: self.timeout_minutes,
            body: &self.body,
        }
    }
}

impl Item {
    pub(super) fn new(body: Body, timeout_minutes: u32, uninit: bool, now: Now) -> Self {
        let mut item = Self {
            body,
            expires_ms: 0,
            locked_since_ms: 0,
            lock_date_ticks: 0,
            cookie: FIRST_COOKIE,
            timeout_minutes,
            locked: false,
            uninit,
        };
        item.slide(now);
        item
    }

    /// What is worth keeping beyond this process.
    pub fn kept(&self) -> KeptItem {
        KeptItem {
            marks: self.marks(),
            timeout_minutes: self.timeout_minutes,
            body: self.body.clone(),
        }
    }

    pub(super) fn restored(item: &RestoredItem<'_>) -> Self {
        Self {
            body: Body::from(item.body),
            expires_ms: item.marks.expires_ms,
            locked_since_ms: 0,
            lock_date_ticks: 0,
            cookie: item.marks.cookie,
            timeout_minutes: item.timeout_minutes,
            locked: false,
            uninit: item.marks.uninit,
        }
    }

    pub(super) fn restore_marks(&mut self, marks: &ItemMarks) {
        self.expires_ms = marks.expires_ms;
        self.cookie = marks.cookie;
        self.uninit = marks.uninit;
    }

    /// The stored bytes.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The sliding timeout, 1 to 525600 minutes.
    pub fn timeout_minutes(&self) -> u32 {
        self.timeout_minutes
    }

    /// Expiry, counter and flag.
    pub fn marks(&self) -> ItemMarks {
        ItemMarks {
            expires_ms: self.expires_ms,
            cookie: self.cookie,
            uninit: self.uninit,
        }
    }

    pub(super) fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms <= now_ms
    }

    /// Every lookup that finds the item does this, whatever its answer will be (protocol 5.4).
    pub(super) fn slide(&mut self, now: Now) {
        let timeout_ms = u64::from(self.timeout_minutes) * MINUTE_MS;
        self.expires_ms = now.unix_ms.saturating_add(timeout_ms);
    }

    pub(super) fn get(&mut self, now: Now) -> StoreOutcome {
        let action_flags = mem::take(&mut self.uninit);
        if self.locked {
            return self.locked_outcome(now);
        }
        self.found(None, action_flags)
    }

    pub(super) fn acquire(&mut self, now: Now) -> StoreOutcome {
        let action_flags = mem::take(&mut self.uninit);
        if self.locked {
            return self.locked_outcome(now);
        }
        self.locked = true;
        self.locked_since_ms = now.unix_ms;
        self.lock_date_ticks = now.local_ticks;
        self.cookie = next_cookie(self.cookie);
        self.found(Some(self.cookie), action_flags)
    }

    /// The uninitialised flag goes before the cookie is looked at, so even a release answered 400
    /// clears it (protocol 5.2).
    pub(super) fn release(&mut self, cookie: LockCookie, now: Now) -> StoreOutcome {
        let action_flags = mem::take(&mut self.uninit);
        let cookie = match cookie.number() {
            Ok(Some(cookie)) => cookie,
            Ok(None) => return StoreOutcome::Invalid(BadHeader::LockCookieMissing),
            Err(bad) => return StoreOutcome::Invalid(bad),
        };
        if self.is_locked_against(Some(cookie)) {
            return self.locked_outcome(now);
        }
        self.locked = false;
        StoreOutcome::Done {
            action_flags,
            zero_timeout: false,
        }
    }

    /// Exchanges the body with `body`, so that the caller can free the old one after unlocking.
    pub(super) fn store(
        &mut self,
        body: &mut Body,
        timeout_minutes: u32,
        cookie: LockCookie,
        now: Now,
    ) -> Stored {
        let cookie = match cookie.number() {
            Ok(cookie) => cookie,
            Err(bad) => return Stored::No(StoreOutcome::Invalid(bad)),
        };
        if self.is_locked_against(cookie) {
            return Stored::No(self.locked_outcome(now));
        }
        mem::swap(&mut self.body, body);
        self.locked = false;
        let timeout_changed = timeout_minutes != self.timeout_minutes;
        if timeout_changed {
            self.replace_entry(timeout_minutes, cookie);
        }
        self.slide(now);
        Stored::Yes { timeout_changed }
    }

    /// Whether a DELETE may go ahead; if not, its answer.
    pub(super) fn check_removal(&self, cookie: LockCookie, now: Now) -> Result<(), StoreOutcome> {
        let cookie = cookie.number().map_err(StoreOutcome::Invalid)?;
        if self.is_locked_against(cookie) {
            return Err(self.locked_outcome(now));
        }
        Ok(())
    }

    pub(super) fn snapshot(&self) -> ItemSnapshot {
        ItemSnapshot {
            timeout_minutes: self.timeout_minutes,
            cookie: self.cookie,
            locked: self.locked,
            uninit: self.uninit,
            body: self.body.clone(),
            expires_ms: self.expires_ms,
        }
    }

    /// A PUT with another timeout makes a new entry in the stock server: its flags come from the
    /// request, which is not insert only if it gets here. The counter never goes back, so that no
    /// old cookie fits a later lock (protocol 5.3).
    fn replace_entry(&mut self, timeout_minutes: u32, cookie: Option<u32>) {
        self.timeout_minutes = timeout_minutes;
        self.uninit = false;
        self.cookie = self.cookie.max(cookie.unwrap_or(self.cookie));
    }

    /// An unlocked item takes any cookie; a locked one only its own, and a missing one never is.
    fn is_locked_against(&self, cookie: Option<u32>) -> bool {
        self.locked && cookie != Some(self.cookie)
    }

    fn found(&self, cookie: Option<u32>, action_flags: bool) -> StoreOutcome {
        StoreOutcome::Found {
            body: self.body.clone(),
            timeout_minutes: self.timeout_minutes,
            cookie,
            action_flags,
        }
    }

    fn locked_outcome(&self, now: Now) -> StoreOutcome {
        let age_s = now.unix_ms.saturating_sub(self.locked_since_ms) / 1000;
        StoreOutcome::Locked {
            lock_date_ticks: self.lock_date_ticks,
            lock_age_s: age_s.min(MAX_LOCK_AGE_S) as u32,
            cookie: self.cookie,
        }
    }
}

impl fmt::Debug for Item {
    /// Without the contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.marks().fmt(f)
    }
}

/// A PUT with another timeout may have set the counter to 2147483647, one past the last cookie.
fn next_cookie(cookie: u32) -> u32 {
    if cookie >= LAST_COOKIE {
        WRAPPED_COOKIE
    } else {
        cookie + 1
    }
}
