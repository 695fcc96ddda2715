//! How soon the locks of sessions are released, learned from the requests that waited for them: who
//! would wait in vain is told at once that the session is locked, as without waiting.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock_queue::ItemHash;

/// Sessions that are remembered at a time; one that comes later takes the place of another.
const ENTRIES: usize = 1 << 12;

/// For how long, in seconds.
const FORGET_S: u64 = 60;

/// How much a new sample counts, as a part: one in so many.
const WEIGHT: u64 = 4;

const PACE_BITS: u32 = 16;
const TIME_BITS: u32 = 16;

/// What each session's lock takes per page.
///
/// | bits of an entry | what |
/// |---|---|
/// | 63..32 | of the item's hash |
/// | 31..16 | when it was learned, in seconds |
/// | 15..0 | milliseconds per page, one more |
///
/// Two threads that write one entry at the same time leave the sample of one of them.
pub(super) struct LockPaces(Box<[AtomicU64]>);

impl Default for LockPaces {
    fn default() -> Self {
        Self((0..ENTRIES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl fmt::Debug for LockPaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockPaces")
    }
}

impl LockPaces {
    /// Milliseconds that a page keeps the lock of the item; `None` if nothing was learned lately.
    pub(super) fn of(&self, item: ItemHash, now_ms: u64) -> Option<u64> {
        let entry = self.entry(item).load(Ordering::Relaxed);
        let age_s = seconds(now_ms).wrapping_sub(entry >> PACE_BITS) % (1 << TIME_BITS);
        let is_known = is_of(entry, item) && age_s < FORGET_S;
        is_known.then(|| (entry % (1 << PACE_BITS)).saturating_sub(1))
    }

    /// A request has found out what a page keeps the lock of the item for.
    pub(super) fn learn(&self, item: ItemHash, sample_ms: u64, now_ms: u64) {
        let before = self.of(item, now_ms);
        let pace = before.map_or(sample_ms, |before| {
            (before * (WEIGHT - 1) + sample_ms) / WEIGHT
        });
        let pace = pace.min((1 << PACE_BITS) - 2) + 1;
        let upper = item.bits() >> (PACE_BITS + TIME_BITS) << (PACE_BITS + TIME_BITS);
        let entry = upper | seconds(now_ms) << PACE_BITS | pace;
        self.entry(item).store(entry, Ordering::Relaxed);
    }

    fn entry(&self, item: ItemHash) -> &AtomicU64 {
        &self.0[item.bits() as usize % ENTRIES]
    }
}

fn is_of(entry: u64, item: ItemHash) -> bool {
    entry != 0 && (entry ^ item.bits()) >> (PACE_BITS + TIME_BITS) == 0
}

fn seconds(now_ms: u64) -> u64 {
    now_ms / 1000 % (1 << TIME_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_learned_by_session_and_forgotten_after_a_minute() {
        let paces = LockPaces::default();
        let (item, other) = (ItemHash::new(7 << 40, 9), ItemHash::new(8 << 40, 9));
        assert_eq!(paces.of(item, 1_000), None);
        paces.learn(item, 0, 1_000);
        assert_eq!(paces.of(item, 1_000), Some(0));
        paces.learn(item, 400, 2_000);
        assert_eq!(paces.of(item, 2_000), Some(100));
        paces.learn(item, 500, 3_000);
        assert_eq!(paces.of(item, 62_999), Some(200));
        assert_eq!(paces.of(item, 63_000), None);
        // The seconds have begun anew in between.
        let late_ms = (1 << TIME_BITS) * 1000 - 1_000;
        paces.learn(item, u64::MAX / 8, late_ms);
        assert_eq!(paces.of(item, late_ms + 30_000), Some((1 << PACE_BITS) - 2));
        // Another one in its place.
        assert_eq!(paces.of(other, late_ms), None);
        paces.learn(other, 20, late_ms);
        assert_eq!(
            (paces.of(other, late_ms), paces.of(item, late_ms)),
            (Some(20), None)
        );
    }
}
