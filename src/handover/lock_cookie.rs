//! Which backend a lock cookie belongs to.
//!
//! Every state server counts the locks of an item from 1, so cookies of two servers look alike.
//! On its way to a client a cookie carries the number of the backend that issued it, always, and
//! loses it on the way back: a write finds the server that holds its lock, and no other server
//! takes it for its own.

use std::num::NonZeroU8;

/// Cookie that no server's counter reaches: it opens no lock.
///
/// A stock server takes the cookie of a PUT that changes the timeout of an unlocked item as the
/// item's new counter (protocol 5.3). So there is room for a million locks above it, and none of
/// those that were handed out before lies there.
pub const NO_LOCK: u32 = 0xf0_0000;

/// Cookie under which a copy is stored at a replica, or removed there.
///
/// No acquire hands it out: the first lock of an item is 2. An item that nobody has locked takes it,
/// and one that somebody has locked, because the replica serves by now, refuses it. A stock server
/// may take it for the item's new counter, as it may with [`NO_LOCK`]; counting goes on from there.
pub const COPY_LOCK: u32 = 1;

/// Cookie of the first lock that anybody takes of an item (protocol 5.1).
pub const FIRST_LOCK: u32 = 2;

/// Bits of a server's own counter in a tagged cookie.
const COUNTER_BITS: u32 = 24;

/// Where an item can be: a backend by its id in the partition map, 1 to 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(NonZeroU8);

/// A lock cookie as a client sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cookie {
    /// No lock, or one that was handed out without a tag.
    Untagged(u32),
    /// The lock `counter` of the server at `place`.
    Tagged {
        /// The server that issued it.
        backend_id: BackendId,
        /// The server's own cookie.
        counter: u32,
    },
}

/// The server's counter does not fit beside the tag: it has locked one item 16 million times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backend sent lock cookie {counter}, which leaves no room for its tag")]
pub struct CounterTooLarge {
    /// What the server sent.
    pub counter: u32,
}

impl BackendId {
    /// The place of the backend with this id; `None` unless it lies in 1 to 127.
    #[must_use]
    pub const fn new(id: u8) -> Option<Self> {
        match NonZeroU8::new(id) {
            Some(id) if id.get() <= 127 => Some(Self(id)),
            _ => None,
        }
    }

    /// The backend's id, 1 to 127.
    #[must_use]
    pub const fn id(self) -> u8 {
        self.0.get()
    }

    /// The cookie of this server's lock `counter` as clients see it.
    ///
    /// # Errors
    /// [`CounterTooLarge`] for a counter of more than 24 bits.
    pub const fn tag(self, counter: u32) -> Result<u32, CounterTooLarge> {
        if counter >> COUNTER_BITS != 0 {
            return Err(CounterTooLarge { counter });
        }
        Ok((self.0.get() as u32) << COUNTER_BITS | counter)
    }
}

impl Cookie {
    /// Reads a cookie that came from a client.
    #[must_use]
    pub const fn from_client(cookie: u32) -> Self {
        let id = (cookie >> COUNTER_BITS) as u8;
        match BackendId::new(id) {
            Some(backend_id) => Self::Tagged {
                backend_id,
                counter: cookie & ((1 << COUNTER_BITS) - 1),
            },
            None => Self::Untagged(cookie),
        }
    }

    /// The same, but for the lock of a backend that is not known any more: it opens none.
    #[must_use]
    pub fn of_known(self, is_known: impl FnOnce(BackendId) -> bool) -> Self {
        match self {
            Self::Tagged { backend_id, .. } if !is_known(backend_id) => Self::Untagged(NO_LOCK),
            cookie => cookie,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_off_as_it_went_on() {
        for id in 1..=127 {
            let backend_id = BackendId::new(id).unwrap();
            for counter in [0, 1, 2, 0xff_ffff] {
                let cookie = backend_id.tag(counter).unwrap();
                assert!(cookie <= 0x7fff_ffff, "clients know 31 bits");
                assert_eq!(
                    Cookie::from_client(cookie),
                    Cookie::Tagged {
                        backend_id,
                        counter
                    }
                );
            }
        }
    }

    #[test]
    fn small_cookies_have_no_tag_and_large_counters_no_room() {
        assert_eq!(Cookie::from_client(0), Cookie::Untagged(0));
        assert_eq!(Cookie::from_client(0xff_ffff), Cookie::Untagged(0xff_ffff));
        let backend_id = BackendId::new(1).unwrap();
        let counter = 0x100_0000;
        assert_eq!(backend_id.tag(counter), Err(CounterTooLarge { counter }));
    }

    #[test]
    fn ids_outside_the_tag_are_no_places() {
        assert_eq!(BackendId::new(0), None);
        assert_eq!(BackendId::new(128), None);
    }
}
