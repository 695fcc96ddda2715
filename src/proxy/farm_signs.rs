//! What single requests show of the web farm: pages that run too long, web servers that do not wait for
//! answers, sessions that are always locked, and large ones.
//!
//! It is told from rare paths alone, at most ten times a second of each kind and worker; what is left
//! out is counted.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lock_queue::ItemHash;
use crate::log::LogLimit;
use crate::route::Fingerprint;

/// Sessions whose locks are counted at a time; one that comes later takes the place of another.
const ENTRIES: usize = 1 << 12;

/// For how long the requests that find a session locked are counted.
pub const CONTENTION_ROUND: Duration = Duration::from_secs(10);

/// So many of them in a round are told of.
const CONTENDED: u64 = 10;

/// A client that leaves earlier has not lost its patience: its process has ended.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

const COUNT_BITS: u32 = 16;
const ROUND_BITS: u32 = 16;

/// Something that one request shows of the web farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FarmSign {
    /// What it shows.
    pub kind: FarmSignKind,
    /// Which web server sent it.
    pub by: IpAddr,
    /// Its application, for [`super::AppNames`].
    pub start_hash: u64,
    /// Its session.
    pub session: Fingerprint,
    /// How many of the kind were not told since the last one.
    pub left_out: u64,
}

/// What a request shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FarmSignKind {
    /// A write was refused because somebody else has the lock now: its page had taken too long.
    WriteRefused,
    /// The client left before it was answered, at this time after its request at the latest.
    Abandoned {
        /// That time.
        after: Duration,
    },
    /// Many requests of one [`CONTENTION_ROUND`] have found the session locked.
    Contended,
    /// A session of `large_session` or more was stored.
    StoredLarge {
        /// The length of its body.
        bytes: u64,
    },
}

/// How much one worker tells.
#[derive(Debug, Default)]
pub(super) struct FarmSignLimits {
    refused_writes: LogLimit,
    abandoned: LogLimit,
    contended: LogLimit,
    stored_large: LogLimit,
}

/// How many requests found which session locked in this round.
///
/// | bits of an entry | what |
/// |---|---|
/// | 63..32 | of the item's hash |
/// | 31..16 | the round |
/// | 15..0 | requests |
pub(super) struct LockedCounts(Box<[AtomicU64]>);

impl Default for LockedCounts {
    fn default() -> Self {
        Self((0..ENTRIES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl fmt::Debug for LockedCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedCounts")
    }
}

impl LockedCounts {
    /// A request has found the item locked. True for one of them in each round, if they are many.
    pub(super) fn count(&self, item: ItemHash, now_ms: u64) -> bool {
        let hash = item.bits();
        let entry = &self.0[hash as usize % ENTRIES];
        let round = now_ms / CONTENTION_ROUND.as_millis() as u64;
        let round = (round % (1 << ROUND_BITS)) << COUNT_BITS;
        let upper = hash >> (COUNT_BITS + ROUND_BITS) << (COUNT_BITS + ROUND_BITS);
        let now = upper | round;
        let before = entry.load(Ordering::Relaxed);
        let is_known = before >> COUNT_BITS == now >> COUNT_BITS;
        let count = if is_known { before - now } else { 0 };
        if count < CONTENDED {
            // Two at the same time count as one.
            entry.store(now + count + 1, Ordering::Relaxed);
        }
        count + 1 == CONTENDED
    }
}

impl FarmSignLimits {
    /// Whether one more may be told; if so, how many were not since the last one.
    pub(super) fn allow(&self, kind: FarmSignKind, now_ms: u64) -> Option<u64> {
        let limit = match kind {
            FarmSignKind::WriteRefused => &self.refused_writes,
            FarmSignKind::Abandoned { .. } => &self.abandoned,
            FarmSignKind::Contended => &self.contended,
            FarmSignKind::StoredLarge { .. } => &self.stored_large,
        };
        limit.allow(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_many_requests_find_locked_is_told_of_once_a_round() {
        let counts = LockedCounts::default();
        let (item, other) = (ItemHash::new(7 << 40, 9), ItemHash::new(8 << 40, 9));
        let told = |item: ItemHash, times: u64, now_ms| {
            let told = (0..times).filter(|_| counts.count(item, now_ms));
            told.count()
        };
        assert_eq!(told(item, CONTENDED - 1, 0), 0);
        assert_eq!(told(item, 100_000, 9_999), 1);
        assert_eq!(told(item, CONTENDED - 1, 10_000), 0);
        // In the place of the first one, which begins anew.
        assert_eq!(told(other, CONTENDED, 10_000), 1);
        assert_eq!(told(item, CONTENDED - 1, 10_000), 0);
    }
}
