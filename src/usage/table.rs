//! The sessions that are followed. Written by all workers without a lock.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::{
    IDENTITY_SHIFT, MAX_RANK, MAX_TIMEOUT_MINUTES, Tick, UsageEntry, UsagePlace, What, Who,
};

/// What a state server takes when there is no `Timeout` (protocol 3).
const DEFAULT_TIMEOUT_MINUTES: u32 = 20;

/// Sessions that have found no place since the last audit when the level rises without one. One in
/// a thousand of those that are followed then.
const MAX_MISSED: u64 = 64;

/// Entries that are found together: one cache line.
const BUCKET_ENTRIES: usize = 4;

const BUCKET_BITS: u32 = 15;
const BUCKETS: usize = 1 << BUCKET_BITS;
const BUCKET_SHIFT: u32 = IDENTITY_SHIFT - BUCKET_BITS;
const CREATE_SHIFT: u32 = BUCKET_SHIFT - 1;
const FINGERPRINT_SHIFT: u32 = IDENTITY_SHIFT + MAX_RANK.count_ones();

/// The mask of nothing: no hash but 0 has these bits clear.
const FOLLOW_NOTHING: u64 = u64::MAX;

/// The followed sessions of all backends.
///
/// A session has its place in one of two buckets of four, and takes the emptier one: so the table
/// can be well over half full before one finds no place.
pub struct Account {
    clock: Clock,
    counts: Counts,
    buckets: Box<[Bucket]>,
}

/// What every request reads and nearly nobody writes.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Clock {
    /// The bits of a hash that are clear if its session is followed: as many as the level.
    mask: AtomicU64,
    now: AtomicU64,
}

/// What few requests write.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    missed: AtomicU64,
    discovered: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([UsageEntry; BUCKET_ENTRIES]);

/// The item of a request, if it is followed, and what the request says if it is a PUT.
///
/// | bits | what |
/// |---|---|
/// | 63..41 | fingerprint of the item's key, never 0 |
/// | 40..36 | rank of its session |
/// | 35..21 | its bucket |
/// | 20 | the PUT stores only if there is no item |
/// | 19..0 | the timeout in minutes that the PUT sets |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledSession(u64);

/// What an answer says about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// It was stored, see [`SampledSession::of_put`].
    Stored {
        /// Length of its body.
        bytes: u64,
    },
    /// It was read.
    Read {
        /// Length of its body.
        bytes: u64,
        /// Its timeout.
        timeout_minutes: u32,
    },
    /// It is there, and its time starts anew.
    Touched,
    /// It is nowhere any more.
    Gone,
    /// It is not at the backend that was asked.
    Absent,
}

/// A timeout as the account keeps it.
#[must_use]
pub fn minutes_or_default(number: Option<u64>) -> u32 {
    number.map_or(DEFAULT_TIMEOUT_MINUTES, |minutes| {
        u32::try_from(minutes).unwrap_or(u32::MAX)
    })
}

impl SampledSession {
    /// An item that is not followed.
    pub const NONE: Self = Self(0);

    /// `hash` is the session's, which nobody can choose, `start_hash` that of what stands in front of
    /// its id: applications may share session ids.
    fn new(hash: u64, start_hash: u64) -> Self {
        let mixed = mix(hash, start_hash);
        let rank = u64::from(hash.trailing_zeros().min(MAX_RANK));
        let fingerprint = mixed >> FINGERPRINT_SHIFT << FINGERPRINT_SHIFT;
        let bucket = mixed & (BUCKETS as u64 - 1);
        Self(fingerprint | 1 << FINGERPRINT_SHIFT | rank << IDENTITY_SHIFT | bucket << BUCKET_SHIFT)
    }

    /// Whether there is anything to take note of.
    #[inline]
    #[must_use]
    pub fn is_followed(self) -> bool {
        self.0 >> FINGERPRINT_SHIFT != 0
    }

    /// The same for a PUT that sets this timeout; a create stores nothing where there is an item.
    #[must_use]
    pub fn of_put(self, timeout_minutes: u32, is_create: bool) -> Self {
        let minutes = timeout_minutes.clamp(1, MAX_TIMEOUT_MINUTES);
        let item = self.0 >> BUCKET_SHIFT << BUCKET_SHIFT;
        Self(item | u64::from(is_create) << CREATE_SHIFT | u64::from(minutes))
    }

    fn rank(self) -> u32 {
        (self.0 >> IDENTITY_SHIFT) as u32 & MAX_RANK
    }

    fn timeout_minutes(self) -> u32 {
        self.0 as u32 & ((1 << CREATE_SHIFT) - 1)
    }

    fn is_create(self) -> bool {
        self.0 >> CREATE_SHIFT & 1 == 1
    }

    /// Never the same one twice: the lowest bit of a fingerprint is set.
    fn buckets(self) -> [usize; 2] {
        let first = (self.0 >> BUCKET_SHIFT) as usize & (BUCKETS - 1);
        let step = (self.0 >> FINGERPRINT_SHIFT) as usize & (BUCKETS - 1);
        [first, first ^ step]
    }
}

impl Default for Account {
    fn default() -> Self {
        Self {
            clock: Clock::default(),
            counts: Counts::default(),
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
        }
    }
}

impl fmt::Debug for Account {
    /// Without the sessions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("clock", &self.clock)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// Sessions that can be followed at a time.
    pub const ENTRIES: usize = BUCKETS * BUCKET_ENTRIES;

    /// What it takes, whatever it is told.
    pub const MEMORY_BYTES: usize = size_of::<Self>() + BUCKETS * size_of::<Bucket>();

    /// Whether an item is followed, given the hashes of its session's id and of what stands in front of
    /// that. One load and a branch if it is not.
    #[inline]
    pub fn sample(&self, hash: u64, start_hash: u64) -> SampledSession {
        if hash & self.clock.mask.load(Ordering::Relaxed) != 0 {
            return SampledSession::NONE;
        }
        SampledSession::new(hash, start_hash)
    }

    /// Takes note of what the backend at `place` has answered.
    #[inline]
    pub fn observe(
        &self,
        sample: SampledSession,
        place: impl Into<UsagePlace>,
        observation: Observation,
    ) {
        if sample.is_followed() {
            self.note(sample, place.into(), observation);
        }
    }

    fn note(&self, sample: SampledSession, place: UsagePlace, observation: Observation) {
        let now = Tick(self.clock.now.load(Ordering::Relaxed));
        let entry = self.find(sample);
        match (observation, entry) {
            (Observation::Stored { .. }, Some(entry))
                if sample.is_create() && !entry.what().is_expired(now) =>
            {
                slide(entry, place, now);
            }
            (Observation::Stored { bytes }, _) => {
                let minutes = sample.timeout_minutes();
                let who = Who::new(sample.0, place, minutes);
                let what = What::new(bytes, minutes, now);
                match entry {
                    Some(entry) => entry.set(who, what),
                    None => self.follow(sample, who, what),
                }
            }
            (
                Observation::Read {
                    bytes,
                    timeout_minutes,
                },
                _,
            ) => {
                let who = Who::new(sample.0, place, timeout_minutes);
                let what = What::new(bytes, timeout_minutes, now);
                match entry {
                    Some(entry) => entry.set(who, what),
                    None => {
                        self.counts.discovered.fetch_add(1, Ordering::Relaxed);
                        self.follow(sample, who, what);
                    }
                }
            }
            (Observation::Touched, Some(entry)) => slide(entry, place, now),
            (Observation::Gone, Some(entry)) => entry.free(entry.who()),
            (Observation::Absent, Some(entry)) => {
                let who = entry.who();
                if who.place() == place.backend {
                    entry.free(who);
                }
            }
            // Without its length nothing can be said about it.
            (Observation::Touched | Observation::Gone | Observation::Absent, None) => {}
        }
    }

    fn find(&self, sample: SampledSession) -> Option<&UsageEntry> {
        let buckets = sample.buckets();
        let mut entries = buckets.iter().flat_map(|&at| &self.buckets[at].0);
        entries.find(|entry| entry.who().is(sample.0))
    }

    /// Gives a session a place, in the emptier of its buckets.
    fn follow(&self, sample: SampledSession, who: Who, what: What) {
        loop {
            let level = self.level();
            if sample.rank() < level {
                return;
            }
            let is_free = |entry: &&UsageEntry| {
                let who = entry.who();
                who == Who::NOBODY || who.rank() < level
            };
            let [first, second] = sample.buckets().map(|at| {
                let mut free = self.buckets[at].0.iter().filter(is_free);
                free.next().map(|entry| (free.count(), entry))
            });
            let emptier = match (first, second) {
                (Some(first), Some(second)) if second.0 > first.0 => Some(second),
                (first, second) => first.or(second),
            };
            if let Some((_, entry)) = emptier {
                if !entry.claim(entry.who(), who, what) {
                    continue;
                }
                self.settle(sample);
                return;
            }
            let missed = self.counts.missed.fetch_add(1, Ordering::Relaxed);
            if missed < MAX_MISSED || level >= MAX_RANK {
                return;
            }
            self.raise(level);
        }
    }

    /// Leaves the first place to a session that two requests have given one each at the same time:
    /// the claims have an order, so at least one of the two sees both.
    fn settle(&self, sample: SampledSession) {
        let buckets = sample.buckets();
        let entries = buckets.iter().flat_map(|&at| &self.buckets[at].0);
        let claims = entries.map(|entry| (entry, entry.claimed()));
        for (entry, who) in claims.filter(|(_, who)| who.is(sample.0)).skip(1) {
            entry.free(who);
        }
    }

    /// How many zero bits the hash of a followed session ends in; more than any has while nothing
    /// is followed.
    pub(super) fn level(&self) -> u32 {
        self.clock.mask.load(Ordering::Relaxed).count_ones()
    }

    pub(super) fn set_level(&self, level: u32) {
        let mask = (1 << level.min(MAX_RANK)) - 1;
        self.clock.mask.store(mask, Ordering::Relaxed);
    }

    /// Goes from `level` to the next, unless somebody else did.
    pub(super) fn raise(&self, level: u32) {
        if level < MAX_RANK {
            let mask = |level: u32| (1 << level) - 1;
            let raised = self.clock.mask.compare_exchange(
                mask(level),
                mask(level + 1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if raised.is_ok() {
                self.take_missed();
            }
        }
    }

    /// Follows nothing any more, and forgets what it has.
    pub(super) fn switch_off(&self) {
        self.clock.mask.store(FOLLOW_NOTHING, Ordering::Relaxed);
        for entry in self.entries() {
            entry.free(entry.who());
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.clock.mask.load(Ordering::Relaxed) != FOLLOW_NOTHING
    }

    pub(super) fn set_now(&self, now: Tick) {
        self.clock.now.store(now.0, Ordering::Relaxed);
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &UsageEntry> {
        self.buckets.iter().flat_map(|bucket| &bucket.0)
    }

    /// Sessions that found no place since this was asked last.
    pub(super) fn take_missed(&self) -> u64 {
        self.counts.missed.swap(0, Ordering::Relaxed)
    }

    /// Sessions first seen when they were read: they are older than what is known of them.
    pub(super) fn take_discovered(&self) -> u64 {
        self.counts.discovered.swap(0, Ordering::Relaxed)
    }
}

/// The item is there, unchanged, maybe at another backend than it was last.
fn slide(entry: &UsageEntry, place: UsagePlace, now: Tick) {
    let who = entry.who();
    let what = What::new(entry.what().bytes(), who.timeout_minutes(), now);
    entry.set(who.moved_to(place), what);
}

/// One hash of two, all of whose bits depend on both.
fn mix(hash: u64, start_hash: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (hash ^ start_hash.rotate_left(32)).wrapping_mul(ODD);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(ODD);
    mixed ^ mixed >> 29
}
