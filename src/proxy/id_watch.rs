//! Notices sessions that are used under two application ids, from the requests that pass.
//!
//! One in eight of the sessions that the account follows is watched. Such a request pays one load.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::route::{self, Fingerprint, KeyBuffer};

/// Sessions that are remembered at a time; a session that comes later takes the place of another.
const ENTRIES: usize = 1 << 13;

/// The bits of its hash that are clear if a session is watched.
const UNWATCHED: u64 = 0b111 << 40;

/// Longest id that is told.
const MAX_ID_BYTES: usize = 256;

/// Under which id each watched session was used last.
pub(super) struct IdWatch {
    /// The upper half of the session's hash, and that of the hash of what stands in front of its id.
    entries: Box<[AtomicU64]>,
}

/// A session that was used under another application id, or with another hash, than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedId {
    /// The session.
    pub session: Fingerprint,
    /// The application's id now.
    pub app: String,
    /// The hash behind it.
    pub hash: String,
    /// Which web server sent it.
    pub by: IpAddr,
}

impl Default for IdWatch {
    fn default() -> Self {
        Self {
            entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl fmt::Debug for IdWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdWatch")
    }
}

impl IdWatch {
    /// Whether the session was used under another id, or with another hash, before; `start` is the hash
    /// of what stands in front of its id now, 0 if that has not the usual form.
    #[inline]
    pub(super) fn has_changed(&self, session: u64, start: u64) -> bool {
        if session & UNWATCHED != 0 || start == 0 {
            return false;
        }
        let entry = &self.entries[session as usize % ENTRIES];
        let upper = session >> 32;
        let now = upper << 32 | start >> 32;
        let before = entry.load(Ordering::Relaxed);
        if before == now {
            return false;
        }
        entry.store(now, Ordering::Relaxed);
        before >> 32 == upper
    }
}

impl ChangedId {
    /// What the request target says; `None` if it has not the usual form.
    pub(super) fn of(target: &[u8], session: Fingerprint, by: IpAddr) -> Option<Self> {
        let mut buffer = KeyBuffer::new();
        let key = route::extract(target, &mut buffer).ok()?;
        let app = key.app().get(..MAX_ID_BYTES).unwrap_or(key.app());
        key.is_usual().then(|| Self {
            session,
            app: String::from_utf8_lossy(app).into_owned(),
            hash: String::from_utf8_lossy(&key.hash()).into_owned(),
            by,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: u64 = 0x0123_40ff_0000_0005;

    #[test]
    fn a_session_has_changed_when_it_comes_under_another_id_and_not_before() {
        let watch = IdWatch::default();
        let [one, other] = [7 << 32, 8 << 32];
        let seen = [one, one, other, other, one, 0, one].map(|id| watch.has_changed(SESSION, id));
        assert_eq!(seen, [false, false, true, false, true, false, false]);
        // Another session in its place, and one that is not watched.
        assert!(!watch.has_changed(SESSION ^ 1 << 60, other));
        assert!(!watch.has_changed(SESSION, other));
        let unwatched = SESSION | UNWATCHED;
        assert!(
            [one, other, one]
                .iter()
                .all(|&id| !watch.has_changed(unwatched, id))
        );
    }
}
