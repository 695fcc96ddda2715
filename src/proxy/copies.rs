//! The copies that replicas keep, as all workers of this proxy know of them: which were written or
//! touched when, which slots have missed one, and how many are under way.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::handover::{BackendId, ReplicaRoute};
use crate::route::{Fingerprint, SLOT_COUNT, Slot};

/// Sessions whose copies are remembered; a power of two. One that is forgotten costs one small
/// request when it is used next.
const REMEMBERED: usize = 1 << 20;

/// A copy is touched when it was last written or touched longer ago than this, or than a quarter of
/// its session's timeout.
const REFRESH_AFTER_S: u64 = 60;

/// What is remembered of a copy besides its fingerprint: when it was written or touched last, in
/// seconds since the start and from 1, and how soon it is touched, in steps of two seconds.
const SECONDS_BITS: u32 = 27;
const SECONDS_MASK: u64 = (1 << SECONDS_BITS) - 1;
const STEP_S: u64 = 2;
const STEPS_MASK: u64 = (1 << (32 - SECONDS_BITS)) - 1;

/// Shared by all workers and the control thread.
#[derive(Debug)]
pub struct CopyTracker {
    start: Instant,
    start_ms: u64,
    /// The fingerprint of a session in the upper half, and what is remembered of its copy. Eight
    /// megabytes, once there is a replica.
    known: OnceLock<Box<[AtomicU64]>>,
    /// A bit per slot whose replica has missed something.
    missed: Box<[AtomicU64]>,
    has_missed: AtomicBool,
    /// Copies under way, by the place of what is copied.
    under_way: Box<[AtomicU32]>,
    /// Keep-alives that found a copy, and that found none where one should be, by replica.
    kept: Box<[AtomicU32]>,
    gone: Box<[AtomicU32]>,
    /// Until when what is lost may be stored anew from its copy, in milliseconds since the start.
    restores_until_ms: AtomicU64,
}

/// So many copies that are gone are no accident, if more are gone than are there.
const MIN_GONE: u32 = 3;

/// A copy under way, of an item at these places. Dropped before its outcome is known, it was missed.
#[derive(Debug)]
pub(super) struct CopyUnderWay<'c> {
    copies: &'c CopyTracker,
    places: [Option<BackendId>; 2],
    slot: Slot,
    is_known: bool,
}

/// What is known of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCopy {
    /// When it was written or touched last, Unix time in whole seconds.
    pub at_s: u64,
    /// The time now, the same.
    pub now_s: u64,
    /// After how many seconds it is touched.
    pub refresh_after_s: u64,
}

impl CopyTracker {
    /// Nothing is copied yet.
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let per_backend = || (0..128).map(|_| AtomicU32::new(0)).collect();
        let counters = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            start: Instant::now(),
            start_ms: wall.map_or(0, |since| since.as_millis() as u64),
            known: OnceLock::new(),
            missed: counters(SLOT_COUNT.div_ceil(64)),
            has_missed: AtomicBool::new(false),
            under_way: per_backend(),
            kept: per_backend(),
            gone: per_backend(),
            restores_until_ms: AtomicU64::new(0),
        }
    }

    /// Unix time in whole seconds that never goes back, as control has it.
    fn now_s(&self) -> u64 {
        (self.start_ms + self.elapsed_ms()) / 1000
    }

    fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn entry(&self, slot: Slot, session: Fingerprint) -> &AtomicU64 {
        let known = self
            .known
            .get_or_init(|| (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect());
        let index = ((slot.index() << 6) ^ session.value() as usize) % REMEMBERED;
        &known[index]
    }

    /// What is known of the copy of a session.
    pub(super) fn known(&self, slot: Slot, session: Fingerprint) -> Option<KnownCopy> {
        let entry = self.entry(slot, session).load(Ordering::Relaxed);
        let is_of_it = (entry >> 32) as u32 == session.value();
        let since_start_s = entry & SECONDS_MASK;
        (is_of_it && since_start_s > 0).then_some(KnownCopy {
            at_s: self.start_ms / 1000 + since_start_s - 1,
            now_s: self.now_s(),
            refresh_after_s: (entry >> SECONDS_BITS & STEPS_MASK) * STEP_S,
        })
    }

    /// A copy of a session with this timeout was written just now.
    pub(super) fn was_written(&self, slot: Slot, session: Fingerprint, timeout_minutes: u32) {
        self.note(slot, session, refresh_after_s(timeout_minutes));
    }

    /// A copy is touched just now.
    pub(super) fn is_touched(&self, slot: Slot, session: Fingerprint) {
        let known = self.known(slot, session);
        let refresh_after_s = known.map_or(REFRESH_AFTER_S, |known| known.refresh_after_s);
        self.note(slot, session, refresh_after_s);
    }

    fn note(&self, slot: Slot, session: Fingerprint, refresh_after_s: u64) {
        let since_start_s = self.now_s() - self.start_ms / 1000 + 1;
        let entry = u64::from(session.value()) << 32
            | (refresh_after_s / STEP_S) << SECONDS_BITS
            | since_start_s.min(SECONDS_MASK);
        self.entry(slot, session).store(entry, Ordering::Relaxed);
    }

    /// A copy is gone, or may be.
    pub(super) fn forget(&self, slot: Slot, session: Fingerprint) {
        self.entry(slot, session).store(0, Ordering::Relaxed);
    }

    /// The replica of this slot has missed something.
    pub fn miss(&self, slot: Slot) {
        let index = slot.index();
        self.missed[index / 64].fetch_or(1 << (index % 64), Ordering::AcqRel);
        self.has_missed.store(true, Ordering::Release);
    }

    /// Whether there are slots whose replicas have missed something since the last call of
    /// [`Self::take_missed`].
    pub fn has_missed(&self) -> bool {
        self.has_missed.load(Ordering::Acquire)
    }

    /// The slots whose replicas have missed something since the last call.
    pub fn take_missed(&self) -> Vec<Slot> {
        if !self.has_missed.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut slots = Vec::new();
        for (word, base) in self.missed.iter().zip((0..).step_by(64)) {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                slots.extend(Slot::all().nth(base + bits.trailing_zeros() as usize));
                bits &= bits - 1;
            }
        }
        slots
    }

    /// A keep-alive has found the copy at this replica, or none.
    pub(super) fn was_touched(&self, replica: BackendId, is_there: bool) {
        let counters = if is_there { &self.kept } else { &self.gone };
        counters[usize::from(replica.id())].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether this replica has lost its memory, as far as keep-alives have found since the last call
    /// with `is_new_look`.
    pub fn has_lost_memory(&self, replica: BackendId, is_new_look: bool) -> bool {
        let index = usize::from(replica.id());
        let (kept, gone) = (&self.kept[index], &self.gone[index]);
        let (kept_now, gone_now) = (kept.load(Ordering::Relaxed), gone.load(Ordering::Relaxed));
        let is_lost = gone_now >= MIN_GONE && gone_now > kept_now;
        if is_lost || is_new_look {
            kept.store(0, Ordering::Relaxed);
            gone.store(0, Ordering::Relaxed);
        }
        is_lost
    }

    /// What is lost may be stored anew from its copy for so long; without an end if nobody else could
    /// do without the replica.
    pub fn allow_restores(&self, for_ms: Option<u64>) {
        let until_ms = for_ms.map_or(u64::MAX, |for_ms| self.elapsed_ms() + for_ms);
        self.restores_until_ms.store(until_ms, Ordering::Release);
    }

    /// Whether no other proxy can have dropped a replica that this one calls full.
    pub(super) fn may_restore(&self) -> bool {
        self.elapsed_ms() < self.restores_until_ms.load(Ordering::Acquire)
    }

    /// How many copies of items at this place are under way.
    pub fn under_way(&self, place: BackendId) -> u32 {
        self.under_way[usize::from(place.id())].load(Ordering::Acquire)
    }

    /// A copy of an item at one of these places is about to be sent.
    pub(super) fn begin(&self, slot: Slot, places: [Option<BackendId>; 2]) -> CopyUnderWay<'_> {
        for place in places.into_iter().flatten() {
            self.under_way[usize::from(place.id())].fetch_add(1, Ordering::AcqRel);
        }
        CopyUnderWay {
            copies: self,
            places,
            slot,
            is_known: true,
        }
    }
}

/// After how many seconds the copy of a session with this timeout is touched.
pub fn refresh_after_s(timeout_minutes: u32) -> u64 {
    let quarter_s = u64::from(timeout_minutes) * 60 / 4;
    quarter_s.min(REFRESH_AFTER_S)
}

impl Default for CopyTracker {
    fn default() -> Self {
        Self::new()
    }
}

impl CopyUnderWay<'_> {
    /// It is on its way.
    pub(super) fn is_sent(&mut self) {
        self.is_known = false;
    }

    /// What became of it is known, or is taken care of.
    pub(super) fn ends(mut self) {
        self.is_known = true;
    }
}

impl Drop for CopyUnderWay<'_> {
    fn drop(&mut self) {
        // Missed before it counts as ended: whoever sees that none is under way sees this, too.
        if !self.is_known {
            self.copies.miss(self.slot);
        }
        for place in self.places.into_iter().flatten() {
            let counter = &self.copies.under_way[usize::from(place.id())];
            counter.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl KnownCopy {
    /// Tells a request's route of it.
    pub fn recall(self, replica: &mut ReplicaRoute) {
        replica.has_copy |= self.is_since(replica.since_ms);
        replica.is_fresh = self.is_fresh();
    }

    /// Whether that was after `since_ms`, Unix time in milliseconds.
    fn is_since(self, since_ms: u64) -> bool {
        self.at_s > since_ms / 1000
    }

    /// Whether it needs no keep-alive yet.
    fn is_fresh(self) -> bool {
        self.now_s.saturating_sub(self.at_s) < self.refresh_after_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::HashKey;

    fn session(id: &str) -> (Slot, Fingerprint) {
        let located = HashKey::DEFAULT.locate(id.as_bytes());
        (located.slot, located.fingerprint)
    }

    #[test]
    fn a_copy_is_known_as_of_now_until_it_is_forgotten() {
        let copies = CopyTracker::new();
        let (slot, one) = session("one");
        assert_eq!(copies.known(slot, one), None);
        copies.was_written(slot, one, 20);
        let known = copies.known(slot, one).unwrap();
        assert!(known.is_fresh() && known.is_since(0));
        assert!(!known.is_since((copies.now_s() + 1) * 1000));
        let (other_slot, other) = session("other");
        assert_eq!(copies.known(other_slot, other), None);
        copies.forget(slot, one);
        assert_eq!(copies.known(slot, one), None);
    }

    #[test]
    fn nothing_is_stored_anew_before_all_others_are_heard_nor_after() {
        let copies = CopyTracker::new();
        assert!(!copies.may_restore());
        copies.allow_restores(Some(60_000));
        assert!(copies.may_restore());
        copies.allow_restores(Some(0));
        assert!(!copies.may_restore());
        copies.allow_restores(None);
        assert!(copies.may_restore());
    }

    /// A copy of a session of a minute would die between two keep-alives a minute apart.
    #[test]
    fn a_copy_is_kept_alive_four_times_in_the_life_of_its_session_or_once_a_minute() {
        let copies = CopyTracker::new();
        let (slot, one) = session("one");
        let refresh_after_s = || copies.known(slot, one).unwrap().refresh_after_s;
        for (minutes, expected_s) in [(1, 14), (2, 30), (3, 44), (4, 60), (20, 60), (525_600, 60)] {
            copies.was_written(slot, one, minutes);
            assert_eq!(refresh_after_s(), expected_s, "{minutes}");
            copies.is_touched(slot, one);
            assert_eq!(refresh_after_s(), expected_s, "{minutes}");
        }
        let known = copies.known(slot, one).unwrap();
        let later = |s| KnownCopy {
            now_s: known.at_s + s,
            ..known
        };
        assert!(later(59).is_fresh() && !later(60).is_fresh());
    }

    #[test]
    fn a_copy_that_is_given_up_half_way_was_missed_before_it_counts_as_ended() {
        let copies = CopyTracker::new();
        let (slot, _) = session("one");
        let place = BackendId::new(7);
        let known = copies.begin(slot, [place, None]);
        assert_eq!(copies.under_way(place.unwrap()), 1);
        drop(known);
        assert!(copies.take_missed().is_empty());
        let mut sent = copies.begin(slot, [place, None]);
        sent.is_sent();
        drop(sent);
        assert!(copies.has_missed());
        assert_eq!(copies.take_missed(), [slot]);
        assert!(!copies.has_missed());
        assert!(copies.take_missed().is_empty());
        assert_eq!(copies.under_way(place.unwrap()), 0);
    }
}
