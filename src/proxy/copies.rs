//! The copies that replicas keep, as all workers of this proxy know of them: which were written or
//! touched when, which slots have missed one, and how many are under way.
//!
//! All times are Unix times of the clock that control goes by, which never goes back.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::handover::copy_refresh::RefreshEnd;
use crate::handover::{BackendId, CopyKind, Refusal, ReplicaRoute, SubrequestReply};
use crate::route::{Fingerprint, SLOT_COUNT, Slot};

/// Sessions whose copies a proxy remembers.
pub const REMEMBERED: usize = 1 << 20;

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
    /// When it began, in whole seconds.
    start_s: u64,
    /// So many sessions are remembered, a power of two.
    remembered: usize,
    /// The fingerprint of a session in the upper half, and what is remembered of its copy. Eight bytes
    /// for each, once there is a replica.
    known: OnceLock<Box<[AtomicU64]>>,
    /// A bit per slot whose replica has missed something.
    missed: Box<[AtomicU64]>,
    has_missed: AtomicBool,
    /// Copies under way, by the place of what is copied.
    under_way: Box<[AtomicU32]>,
    /// Keep-alives that found a copy, and that found none where one should be, by replica.
    kept: Box<[AtomicU32]>,
    gone: Box<[AtomicU32]>,
    /// Until when what is lost may be stored anew from its copy, in milliseconds.
    restores_until_ms: AtomicU64,
}

/// A session whose copy is noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedSession {
    /// Its slot.
    pub slot: Slot,
    /// Tells it from the others of its slot.
    pub fingerprint: Fingerprint,
}

/// So many copies that are gone are no accident, if more are gone than are there.
const MIN_GONE: u32 = 3;

/// A copy under way. Dropped before its outcome is known, it was missed. `T` is how whoever makes the
/// copy holds the tracker.
#[derive(Debug)]
pub struct CopyUnderWay<T: Deref<Target = CopyTracker>> {
    copies: T,
    session: CopiedSession,
    kind: CopyKind,
    /// Where the item itself may be.
    places: [Option<BackendId>; 2],
    /// Whether its outcome is known, or taken care of.
    is_known: bool,
}

/// What is known of one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCopy {
    /// When it was written or touched last, in whole seconds.
    at_s: u64,
    /// After how many seconds it is touched.
    refresh_after_s: u64,
}

impl CopyTracker {
    /// Nothing is copied yet at `now_ms`. So many sessions are remembered, rounded up to a power of two:
    /// one that is forgotten costs one small request when it is used next.
    pub fn new(now_ms: u64, remembered: usize) -> Self {
        let per_backend = || (0..128).map(|_| AtomicU32::new(0)).collect();
        Self {
            start_s: now_ms / 1000,
            remembered: remembered.next_power_of_two(),
            known: OnceLock::new(),
            missed: words(SLOT_COUNT.div_ceil(64)),
            has_missed: AtomicBool::new(false),
            under_way: per_backend(),
            kept: per_backend(),
            gone: per_backend(),
            restores_until_ms: AtomicU64::new(0),
        }
    }

    fn entry(&self, session: CopiedSession) -> &AtomicU64 {
        let CopiedSession { slot, fingerprint } = session;
        let known = self.known.get_or_init(|| words(self.remembered));
        let hash = (slot.index() << 6) ^ fingerprint.value() as usize;
        &known[hash & (known.len() - 1)]
    }

    /// What is known of the copy of a session.
    pub fn known(&self, session: CopiedSession) -> Option<KnownCopy> {
        let entry = self.entry(session).load(Ordering::Relaxed);
        let is_of_it = (entry >> 32) as u32 == session.fingerprint.value();
        let since_start_s = entry & SECONDS_MASK;
        (is_of_it && since_start_s > 0).then_some(KnownCopy {
            at_s: self.start_s + since_start_s - 1,
            refresh_after_s: (entry >> SECONDS_BITS & STEPS_MASK) * STEP_S,
        })
    }

    /// A copy of a session with this timeout was written just now.
    fn was_written(&self, session: CopiedSession, timeout_minutes: u32, now_ms: u64) {
        self.note(session, refresh_after_s(timeout_minutes), now_ms);
    }

    /// A copy is touched just now: others need not do it as well.
    pub fn is_touched(&self, session: CopiedSession, now_ms: u64) {
        let known = self.known(session);
        let refresh_after_s = known.map_or(REFRESH_AFTER_S, |known| known.refresh_after_s);
        self.note(session, refresh_after_s, now_ms);
    }

    fn note(&self, session: CopiedSession, refresh_after_s: u64, now_ms: u64) {
        let since_start_s = (now_ms / 1000).saturating_sub(self.start_s) + 1;
        let entry = u64::from(session.fingerprint.value()) << 32
            | (refresh_after_s / STEP_S) << SECONDS_BITS
            | since_start_s.min(SECONDS_MASK);
        self.entry(session).store(entry, Ordering::Relaxed);
    }

    /// A copy is gone, or may be.
    fn forget(&self, session: CopiedSession) {
        self.entry(session).store(0, Ordering::Relaxed);
    }

    /// The replica has missed something of a session.
    pub fn miss_session(&self, session: CopiedSession) {
        self.miss(session.slot);
        self.forget(session);
    }

    /// A copy was kept alive, or could not be.
    pub fn refresh_ended(
        &self,
        session: CopiedSession,
        end: RefreshEnd,
        is_about_to_be_left: impl FnOnce(BackendId) -> bool,
    ) {
        if !end.is_there {
            self.forget(session);
        }
        if end.is_missed(is_about_to_be_left) {
            self.miss(session.slot);
        }
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
    pub fn was_touched(&self, replica: BackendId, is_there: bool) {
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

    /// What is lost may be stored anew from its copy until this time in milliseconds; without an end if
    /// nobody else could do without the replica.
    pub fn allow_restores(&self, until_ms: Option<u64>) {
        let until_ms = until_ms.unwrap_or(u64::MAX);
        self.restores_until_ms.store(until_ms, Ordering::Release);
    }

    /// Whether no other proxy can have dropped a replica that this one calls full.
    pub fn may_restore(&self, now_ms: u64) -> bool {
        now_ms < self.restores_until_ms.load(Ordering::Acquire)
    }

    /// How many copies of items at this place are under way.
    pub fn under_way(&self, place: BackendId) -> u32 {
        self.under_way[usize::from(place.id())].load(Ordering::Acquire)
    }
}

fn words(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

/// After how many seconds the copy of a session with this timeout is touched.
pub fn refresh_after_s(timeout_minutes: u32) -> u64 {
    let quarter_s = u64::from(timeout_minutes) * 60 / 4;
    quarter_s.min(REFRESH_AFTER_S)
}

impl<T: Deref<Target = CopyTracker>> CopyUnderWay<T> {
    /// A copy of an item that may be at these places is sent to a server now. `may_copy` says whether the
    /// slot still has a replica, as it had when the request came, and `may_restore` whether no other
    /// proxy can have dropped it ([`CopyTracker::may_restore`]).
    ///
    /// # Errors
    /// Why it must not be sent.
    pub fn begin(
        copies: T,
        (session, places): (CopiedSession, [Option<BackendId>; 2]),
        (kind, at): (CopyKind, BackendId),
        may_copy: impl FnOnce(BackendId) -> bool,
        may_restore: impl FnOnce(&CopyTracker) -> bool,
    ) -> Result<Self, Refusal> {
        for place in places.into_iter().flatten() {
            copies.under_way[usize::from(place.id())].fetch_add(1, Ordering::AcqRel);
        }
        let mut begun = Self {
            copies,
            session,
            kind,
            places,
            is_known: true,
        };
        // Looked at only now: from here on nobody goes on without this copy.
        if kind
            .needs_replica(at)
            .is_some_and(|replica| !may_copy(replica))
        {
            return Err(Refusal::Suspect);
        }
        if kind.is_restore() && !may_restore(&begun.copies) {
            return Err(Refusal::Unheard);
        }
        begun.is_known = false;
        Ok(begun)
    }

    /// What became of it, of an item with this timeout. `now_ms` gives the time, if it was written.
    pub fn ended(
        mut self,
        reply: SubrequestReply,
        timeout_minutes: u32,
        now_ms: impl FnOnce() -> u64,
    ) {
        let end = self.kind.ended(reply);
        match end.is_there {
            Some(true) => self
                .copies
                .was_written(self.session, timeout_minutes, now_ms()),
            Some(false) => self.copies.forget(self.session),
            None => {}
        }
        self.is_known = !end.is_missed;
    }
}

impl<T: Deref<Target = CopyTracker>> Drop for CopyUnderWay<T> {
    fn drop(&mut self) {
        // Missed before it counts as ended: whoever sees that none is under way sees this, too.
        if !self.is_known {
            self.copies.miss(self.session.slot);
        }
        for place in self.places.into_iter().flatten() {
            let counter = &self.copies.under_way[usize::from(place.id())];
            counter.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl KnownCopy {
    /// Tells a request's route of it.
    pub fn recall(self, replica: &mut ReplicaRoute, now_ms: u64) {
        replica.has_copy |= self.is_since(replica.since_ms);
        replica.is_fresh = self.is_fresh(now_ms);
    }

    /// Whether that was after `since_ms`.
    fn is_since(self, since_ms: u64) -> bool {
        self.at_s > since_ms / 1000
    }

    /// Whether it needs no keep-alive yet.
    fn is_fresh(self, now_ms: u64) -> bool {
        (now_ms / 1000).saturating_sub(self.at_s) < self.refresh_after_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::copy_refresh::{CopyRefresh, Keeping, RefreshTask};
    use crate::route::HashKey;

    const START_MS: u64 = 1_000_000_500;
    const DONE: SubrequestReply = SubrequestReply::Done {
        counter: 1,
        flag: false,
    };

    fn copies() -> CopyTracker {
        CopyTracker::new(START_MS, REMEMBERED)
    }

    fn session(id: &str) -> CopiedSession {
        let located = HashKey::DEFAULT.locate(id.as_bytes());
        CopiedSession {
            slot: located.slot,
            fingerprint: located.fingerprint,
        }
    }

    fn place(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    /// A copy of an item at place 7 under way to place 9.
    fn begin(
        copies: &CopyTracker,
        kind: CopyKind,
        may_copy: bool,
    ) -> Result<CopyUnderWay<&CopyTracker>, Refusal> {
        CopyUnderWay::begin(
            copies,
            (session("one"), [Some(place(7)), None]),
            (kind, place(9)),
            |_| may_copy,
            |copies| copies.may_restore(START_MS),
        )
    }

    #[test]
    fn a_copy_is_known_as_of_its_time_until_it_is_forgotten() {
        let (copies, one) = (copies(), session("one"));
        assert_eq!(copies.known(one), None);
        let at_ms = START_MS + 2_700;
        copies.was_written(one, 20, at_ms);
        let known = copies.known(one).unwrap();
        assert!(known.is_since(0) && known.is_since(START_MS));
        assert!(!known.is_since(at_ms) && !known.is_since(at_ms + 1000));
        assert_eq!(copies.known(session("other")), None);
        copies.forget(one);
        assert_eq!(copies.known(one), None);
    }

    #[test]
    fn as_many_sessions_are_remembered_as_there_is_room_for() {
        let copies = CopyTracker::new(START_MS, 3);
        let sessions: Vec<_> = (0..100)
            .map(|index| session(&format!("s{index}")))
            .collect();
        for session in &sessions {
            copies.was_written(*session, 20, START_MS);
        }
        let known = |session: &&CopiedSession| copies.known(**session).is_some();
        assert_eq!(sessions.iter().filter(known).count(), 4);
        assert!(copies.known(sessions[99]).is_some());
    }

    #[test]
    fn nothing_is_stored_anew_before_all_others_are_heard_nor_after() {
        let copies = copies();
        assert!(!copies.may_restore(START_MS));
        copies.allow_restores(Some(START_MS + 3_000));
        assert!(copies.may_restore(START_MS + 2_999));
        assert!(!copies.may_restore(START_MS + 3_000));
        copies.allow_restores(None);
        assert!(copies.may_restore(START_MS + 3_000));
    }

    /// A copy of a session of a minute would die between two keep-alives a minute apart.
    #[test]
    fn a_copy_is_kept_alive_four_times_in_the_life_of_its_session_or_once_a_minute() {
        let (copies, one) = (copies(), session("one"));
        let refresh_after_s = || copies.known(one).unwrap().refresh_after_s;
        for (minutes, expected_s) in [(1, 14), (2, 30), (3, 44), (4, 60), (20, 60), (525_600, 60)] {
            copies.was_written(one, minutes, START_MS);
            assert_eq!(refresh_after_s(), expected_s, "{minutes}");
            copies.is_touched(one, START_MS);
            assert_eq!(refresh_after_s(), expected_s, "{minutes}");
        }
        let known = copies.known(one).unwrap();
        let is_fresh_after = |s| known.is_fresh((known.at_s + s) * 1000);
        assert!(is_fresh_after(59) && !is_fresh_after(60));
    }

    #[test]
    fn a_copy_that_is_given_up_half_way_was_missed_before_it_counts_as_ended() {
        let copies = copies();
        let sent = begin(&copies, CopyKind::Item, true).unwrap();
        assert_eq!(copies.under_way(place(7)), 1);
        assert!(!copies.has_missed());
        drop(sent);
        assert!(copies.has_missed());
        assert_eq!(copies.take_missed(), [session("one").slot]);
        assert!(!copies.has_missed());
        assert!(copies.take_missed().is_empty());
        assert_eq!(copies.under_way(place(7)), 0);
    }

    #[test]
    fn what_is_not_sent_is_not_missed() {
        let copies = copies();
        let restore = CopyKind::Restore { from: place(9) };
        for (kind, may_copy, refused) in [
            (CopyKind::Item, false, Refusal::Suspect),
            (CopyKind::Removal, false, Refusal::Suspect),
            (restore, false, Refusal::Suspect),
            (restore, true, Refusal::Unheard),
        ] {
            assert_eq!(begin(&copies, kind, may_copy).err(), Some(refused));
            assert_eq!(copies.under_way(place(7)), 0);
        }
        // What is moved is no business of the replica.
        assert!(begin(&copies, CopyKind::Move, false).is_ok());
        assert!(copies.has_missed());
    }

    #[test]
    fn what_became_of_a_copy_is_known() {
        let (copies, one) = (copies(), session("one"));
        let end = |kind, reply| {
            let under_way = begin(&copies, kind, true).unwrap();
            under_way.ended(reply, 20, || START_MS);
            (
                copies.known(one).is_some(),
                !copies.take_missed().is_empty(),
            )
        };
        assert_eq!(end(CopyKind::Item, DONE), (true, false));
        assert_eq!(end(CopyKind::Item, SubrequestReply::Unknown), (true, true));
        assert_eq!(end(CopyKind::Move, SubrequestReply::Refused), (true, false));
        assert_eq!(end(CopyKind::Move, SubrequestReply::Unknown), (true, true));
        assert_eq!(
            end(CopyKind::Removal, SubrequestReply::Unknown),
            (false, false)
        );
    }

    #[test]
    fn a_copy_that_could_not_be_kept_alive_is_forgotten() {
        let (copies, one) = (copies(), session("one"));
        copies.was_written(one, 20, START_MS);
        let (at, from) = (place(9), place(7));
        let mut refresh = CopyRefresh::new(Keeping::Anew { at, from });
        refresh.heard(Some(SubrequestReply::Refused));
        let RefreshTask::End(end) = refresh.task() else {
            panic!("{:?}", refresh.task());
        };
        copies.refresh_ended(one, end, |_| true);
        assert_eq!((copies.known(one), copies.has_missed()), (None, false));
        copies.refresh_ended(one, end, |_| false);
        assert_eq!(copies.take_missed(), [one.slot]);
    }
}
