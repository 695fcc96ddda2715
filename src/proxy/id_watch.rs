//! Notices under which application ids sessions are used, by which web servers, and which sessions
//! change from one id to another, from the requests that pass.
//!
//! One in eight of the sessions that the account follows is watched. Such a request pays one load.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config;
use crate::route::{self, Fingerprint, KeyBuffer};

/// Sessions that are remembered at a time; a session that comes later takes the place of another.
const ENTRIES: usize = 1 << 13;

/// The bits of its hash that are clear if a session is watched.
const UNWATCHED: u64 = 0b111 << 40;

/// Users of ids that are remembered; two that share a place are told more often than they have to be.
const USERS: usize = 1 << 10;

/// Bits of a user's word that say in which minute it was told.
const MINUTE_BITS: u32 = 24;

/// Longest id that is told.
const MAX_ID_BYTES: usize = 256;

/// Under which id each watched session was used last.
pub(super) struct IdWatch {
    /// The upper half of the session's hash, and the [`StartId`] of what stands in front of its id.
    entries: Box<[AtomicU64]>,
    /// Which web servers use which ids: a hash of both, and when that was told last.
    users: Box<[AtomicU64]>,
}

/// Names what stands in front of a session's id: the application's id and the hash behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StartId(u32);

/// A web server uses a session under an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdUse {
    /// The session.
    pub session: Fingerprint,
    /// What stands in front of its id.
    pub start: StartId,
    /// What stood there when the session was used before, if that was something else.
    pub before: Option<StartId>,
    /// The application's id.
    pub app: String,
    /// The hash behind it.
    pub hash: String,
    /// The web server.
    pub by: IpAddr,
}

impl Default for IdWatch {
    fn default() -> Self {
        let words = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            entries: words(ENTRIES),
            users: words(USERS),
        }
    }
}

impl fmt::Debug for IdWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdWatch")
    }
}

impl IdWatch {
    /// Whether there is something to [`note`](Self::note): the session is watched and was not the last
    /// in its place, or was there under another id. `start` is the hash of what stands in front of its
    /// id, 0 if that has not the usual form.
    #[inline]
    pub(super) fn is_news(&self, session: u64, start: u64) -> bool {
        if session & UNWATCHED != 0 || start == 0 {
            return false;
        }
        self.place(session).load(Ordering::Relaxed) != entry(session, start)
    }

    /// Takes note of news. What stood in front of the session's id before, if that is known.
    pub(super) fn note(&self, session: u64, start: u64) -> Option<StartId> {
        let now = entry(session, start);
        let before = self.place(session).swap(now, Ordering::Relaxed);
        (before >> 32 == now >> 32 && before != now).then_some(StartId(before as u32))
    }

    /// Whether that the web server `by` uses what has the hash `start` was not told within the minute,
    /// as it is from now on.
    pub(super) fn is_new_user(&self, start: u64, by: IpAddr, now_ms: u64) -> bool {
        let address = match by {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                (bits >> 64) as u64 ^ bits as u64
            }
        };
        // An odd number near 2^64 divided by the golden ratio spreads neighbours.
        let hash = (start ^ address).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let minute = (now_ms / 60_000) & ((1 << MINUTE_BITS) - 1);
        let now = hash >> MINUTE_BITS << MINUTE_BITS | minute;
        let place = &self.users[(hash >> 32) as usize % USERS];
        place.load(Ordering::Relaxed) != now && place.swap(now, Ordering::Relaxed) != now
    }

    #[inline]
    fn place(&self, session: u64) -> &AtomicU64 {
        &self.entries[session as usize % ENTRIES]
    }
}

#[inline]
fn entry(session: u64, start: u64) -> u64 {
    session >> 32 << 32 | start >> 32
}

impl StartId {
    /// Of what has this hash.
    pub fn of(start_hash: u64) -> Self {
        Self((start_hash >> 32) as u32)
    }
}

impl IdUse {
    /// What the request target says; `None` if it has not the usual form.
    pub(super) fn of(
        target: &[u8],
        session: Fingerprint,
        by: IpAddr,
        before: Option<StartId>,
    ) -> Option<Self> {
        let mut buffer = KeyBuffer::new();
        let key = route::extract(target, &mut buffer).ok()?;
        let app = key.app().get(..MAX_ID_BYTES).unwrap_or(key.app());
        key.is_usual().then(|| Self {
            session,
            start: StartId::of(key.start_hash()),
            before,
            app: config::shown(&String::from_utf8_lossy(app)),
            hash: String::from_utf8_lossy(&key.hash()).into_owned(),
            by,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::HashKey;

    const SESSION: u64 = 0x0123_40ff_0000_0005;

    /// It is logged and shown on terminals, whoever has sent it.
    #[test]
    fn an_id_that_is_told_steers_no_terminal() {
        let target = b"%2fLM%0a%1b%5b2J(Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI=)/abc";
        let session = HashKey::new([1; 16]).locate(b"abc").fingerprint;
        let told = IdUse::of(target, session, IpAddr::from([10, 0, 0, 1]), None).unwrap();
        assert_eq!(told.app, "/LM\u{fffd}\u{fffd}[2J");
    }

    #[test]
    fn a_session_that_comes_under_another_id_is_news_with_the_id_before() {
        let watch = IdWatch::default();
        let look = |session, id| {
            let is_news = watch.is_news(session, id);
            is_news.then(|| watch.note(session, id))
        };
        let [one, other] = [7 << 32, 8 << 32];
        let seen = [one, one, other, other, one, 0, one].map(|id| look(SESSION, id));
        let [first, second] = [one, other].map(|id| Some(Some(StartId::of(id))));
        assert_eq!(seen, [Some(None), None, first, None, second, None, None]);
        // Another session in its place, and one that is not watched.
        assert_eq!(look(SESSION ^ 1 << 60, other), Some(None));
        assert_eq!(look(SESSION, other), Some(None));
        let unwatched = SESSION | UNWATCHED;
        assert_eq!([one, other].map(|id| look(unwatched, id)), [None, None]);
    }

    #[test]
    fn a_user_of_an_id_is_told_once_a_minute() {
        let watch = IdWatch::default();
        let addresses = [
            IpAddr::from([10, 0, 0, 1]),
            IpAddr::from([10, 0, 0, 2]),
            IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
        ];
        for minute in [1, 2, 500_000_000] {
            for by in addresses {
                for start in [7 << 32, 8 << 32] {
                    let told =
                        [0, 1, 59_999].map(|ms| watch.is_new_user(start, by, minute * 60_000 + ms));
                    assert_eq!(told, [true, false, false], "{by} {start}");
                }
            }
        }
    }
}
