//! One followed session in two words, each read and written as a whole.
//!
//! | word | bits | what |
//! |---|---|---|
//! | who | 63..41 | fingerprint of the item's key |
//! | | 40..36 | rank: how many zero bits the session's hash ends in, at most 31 |
//! | | 35 | 0 |
//! | | 34..27 | the application's number, 0 for none in particular |
//! | | 26..20 | the backend's id, 1 to 127 |
//! | | 19..0 | timeout in minutes, 1 to 525600 |
//! | what | 63..33 | bytes of the body |
//! | | 32..0 | when it expires, in ticks |
//!
//! Two threads may write one entry at the same time. Then one word may come from either, and a
//! session is counted wrongly until its next request: nothing that a lock would be worth.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of `who` that tell sessions apart: fingerprint and rank.
pub(super) const IDENTITY_SHIFT: u32 = 36;

/// The highest rank that is told apart from higher ones.
pub(super) const MAX_RANK: u32 = 31;

/// Milliseconds in a tick: 33 bits of them are 27 years.
const TICK_MS: u64 = 100;

const TICKS_PER_MINUTE: u64 = 60_000 / TICK_MS;
const TICK_BITS: u32 = 33;
const MAX_TICKS: u64 = (1 << TICK_BITS) - 1;
const MAX_BYTES: u64 = (1 << (u64::BITS - TICK_BITS)) - 1;
const APPLICATION_SHIFT: u32 = 27;
const PLACE_SHIFT: u32 = 20;
const PLACE_MASK: u64 = 0x7f;
const TIMEOUT_MASK: u64 = (1 << PLACE_SHIFT) - 1;

/// The longest timeout there is (protocol 3).
pub(super) const MAX_TIMEOUT_MINUTES: u32 = 525_600;

/// Where a session is, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsagePlace {
    /// The backend's id, 1 to 127.
    pub backend: u8,
    /// The application's number, 0 for none in particular.
    pub application: u8,
}

impl From<u8> for UsagePlace {
    /// At the backend with this id, of no application in particular.
    fn from(backend: u8) -> Self {
        Self {
            backend,
            application: 0,
        }
    }
}

/// A place in the table, free while `who` is 0.
#[derive(Debug, Default)]
pub(super) struct UsageEntry {
    who: AtomicU64,
    what: AtomicU64,
}

/// Which session, where, and for how long from its last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Who(u64);

/// How many bytes, until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct What(u64);

/// A time on the table's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tick(pub(super) u64);

impl Tick {
    pub(super) fn from_ms(since_origin_ms: u64) -> Self {
        Self((since_origin_ms / TICK_MS).min(MAX_TICKS))
    }
}

impl Who {
    pub(super) const NOBODY: Self = Self(0);

    /// `identity` gives the bits from [`IDENTITY_SHIFT`] on.
    pub(super) fn new(identity: u64, place: UsagePlace, timeout_minutes: u32) -> Self {
        let minutes = timeout_minutes.clamp(1, MAX_TIMEOUT_MINUTES);
        let application = u64::from(place.application) << APPLICATION_SHIFT;
        let place = u64::from(place.backend) & PLACE_MASK;
        let identity = identity >> IDENTITY_SHIFT << IDENTITY_SHIFT;
        Self(identity | application | place << PLACE_SHIFT | u64::from(minutes))
    }

    pub(super) fn is(self, identity: u64) -> bool {
        (self.0 ^ identity) >> IDENTITY_SHIFT == 0
    }

    pub(super) fn rank(self) -> u32 {
        (self.0 >> IDENTITY_SHIFT) as u32 & MAX_RANK
    }

    pub(super) fn place(self) -> u8 {
        (self.0 >> PLACE_SHIFT & PLACE_MASK) as u8
    }

    pub(super) fn application(self) -> u8 {
        (self.0 >> APPLICATION_SHIFT) as u8
    }

    pub(super) fn timeout_minutes(self) -> u32 {
        (self.0 & TIMEOUT_MASK) as u32
    }

    pub(super) fn moved_to(self, place: UsagePlace) -> Self {
        Self::new(self.0, place, self.timeout_minutes())
    }
}

impl What {
    /// Of an entry that somebody is just filling.
    pub(super) const UNKNOWN: Self = Self(0);

    /// A session used at `now`.
    pub(super) fn new(bytes: u64, timeout_minutes: u32, now: Tick) -> Self {
        let minutes = u64::from(timeout_minutes.clamp(1, MAX_TIMEOUT_MINUTES));
        let expires = (now.0 + minutes * TICKS_PER_MINUTE).min(MAX_TICKS);
        Self(bytes.min(MAX_BYTES) << TICK_BITS | expires)
    }

    pub(super) fn bytes(self) -> u64 {
        self.0 >> TICK_BITS
    }

    pub(super) fn is_expired(self, now: Tick) -> bool {
        self.0 & MAX_TICKS <= now.0
    }
}

impl UsageEntry {
    pub(super) fn who(&self) -> Who {
        Who(self.who.load(Ordering::Relaxed))
    }

    /// The same, in one order with all claims.
    pub(super) fn claimed(&self) -> Who {
        Who(self.who.load(Ordering::SeqCst))
    }

    pub(super) fn what(&self) -> What {
        What(self.what.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, who: Who, what: What) {
        self.who.store(who.0, Ordering::Relaxed);
        self.what.store(what.0, Ordering::Relaxed);
    }

    /// Takes the place of `before`, unless somebody else did; whether it has.
    pub(super) fn claim(&self, before: Who, who: Who, what: What) -> bool {
        let taken = self
            .who
            .compare_exchange(before.0, who.0, Ordering::SeqCst, Ordering::Relaxed);
        if taken.is_ok() {
            self.what.store(what.0, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Frees the place if it is still `who`'s.
    pub(super) fn free(&self, who: Who) {
        let freed =
            self.who
                .compare_exchange(who.0, Who::NOBODY.0, Ordering::Relaxed, Ordering::Relaxed);
        if freed.is_ok() {
            self.what.store(What::UNKNOWN.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_in_comes_out(
            identity: u64,
            backend in 1u8..=127,
            application: u8,
            minutes in 1..=MAX_TIMEOUT_MINUTES,
            bytes in 0..=MAX_BYTES,
            now in 0..1u64 << 32,
        ) {
            let place = |backend| UsagePlace { backend, application };
            let who = Who::new(identity, place(backend), minutes);
            prop_assert!(who.is(identity));
            prop_assert!(!who.is(identity ^ 1 << IDENTITY_SHIFT));
            prop_assert_eq!((who.place(), who.timeout_minutes()), (backend, minutes));
            prop_assert_eq!(who.application(), application);
            prop_assert_eq!(u64::from(who.rank()), identity >> IDENTITY_SHIFT & 31);
            let moved = who.moved_to(place(128 - backend));
            prop_assert!(moved.is(identity));
            prop_assert_eq!((moved.place(), moved.timeout_minutes()), (128 - backend, minutes));
            prop_assert_eq!(moved.application(), application);

            let what = What::new(bytes, minutes, Tick(now));
            let expires = now + u64::from(minutes) * 600;
            prop_assert_eq!(what.bytes(), bytes);
            prop_assert!(!what.is_expired(Tick(expires - 1)));
            prop_assert!(what.is_expired(Tick(expires)));
        }

        #[test]
        fn nothing_out_of_range_spoils_its_neighbours(place: u8, minutes: u32, bytes: u64, now: u64) {
            let now = Tick::from_ms(now);
            let who = Who::new(u64::MAX, place.into(), minutes);
            prop_assert!(who.is(u64::MAX));
            prop_assert!((1..=MAX_TIMEOUT_MINUTES).contains(&who.timeout_minutes()));
            prop_assert_eq!(What::new(bytes, minutes, now).bytes(), bytes.min(MAX_BYTES));
        }
    }

    #[test]
    fn a_place_that_somebody_took_first_is_left_to_him() {
        let entry = UsageEntry::default();
        let who = |identity: u64| Who::new(identity << IDENTITY_SHIFT, 1.into(), 20);
        let what = |bytes| What::new(bytes, 20, Tick(0));
        assert!(entry.claim(Who::NOBODY, who(1), what(10)));
        assert!(!entry.claim(Who::NOBODY, who(2), what(20)));
        assert_eq!((entry.who(), entry.what()), (who(1), what(10)));
        entry.free(who(2));
        assert_eq!(entry.who(), who(1));
        entry.free(who(1));
        assert_eq!((entry.who(), entry.what()), (Who::NOBODY, What::UNKNOWN));
    }
}
