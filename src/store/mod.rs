//! The rules of the ASP.NET state server (protocol 5) over an in-memory store of millions of
//! items, for all cores.
//!
//! [`Store::apply`] is the whole server: one [`Operation`] on one key gives one [`Outcome`]. All
//! operations on a key are serialised by the lock of its shard, and the lock is held only for a
//! lookup and a few assignments: keys are hashed, `Timeout` and `ExtraFlags` parsed and bodies
//! allocated before, and whatever an operation replaces or removes is freed after.
//!
//! Pure: no clock, no socket, no file, no task. The caller passes [`Now`] in and calls
//! [`Store::sweep`] several times a second. A late sweep costs memory only: an expired item is absent
//! for every operation from the very millisecond of its expiry.
//!
//! Where the sources of the protocol leave a choice, this store
//! * slides the expiry on every lookup that finds the item, whatever the answer (5.4);
//! * never lets the lock counter go back while the item lives, also when a PUT changes the
//!   timeout (5.3), and starts it at 1 for every new item;
//! * never drops a live item: a full memory budget refuses new items only (5.4).

mod body;
mod budget;
mod item;
mod operation;
mod shard;
mod values;
mod wheel;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use siphasher::sip::SipHasher13;

pub use body::Body;
pub use operation::{Now, Operation, Outcome, Snapshot};
pub use values::BadHeader;

use budget::Budget;
use item::Item;
use shard::{Address, Put, Shard};

/// Items a sweep looks at before it lets go of a shard's lock: some 20 microseconds.
const SWEEP_ITEMS_PER_LOCK: usize = 128;

/// The most shards a store can have.
const MAX_SHARDS: usize = 1 << 16;

/// How to build a [`Store`].
#[derive(Clone)]
pub struct StoreOptions {
    /// Parts with a lock of their own; rounded up to a power of two, at least 1, at most 65536.
    /// An empty shard costs about 2 KB.
    pub shards: usize,
    /// The most bytes all items may cost when a new one is accepted, or `None` for no limit. An
    /// item costs its key and body lengths and [`Store::ITEM_OVERHEAD_BYTES`].
    pub max_memory_bytes: Option<u64>,
    /// Key of the hash over item keys. Must be random for each process and secret: clients choose
    /// the item keys and could otherwise aim them all at one place.
    pub hash_key: [u8; 16],
}

impl StoreOptions {
    /// 256 shards and no memory limit.
    pub fn new(hash_key: [u8; 16]) -> Self {
        Self {
            shards: 256,
            max_memory_bytes: None,
            hash_key,
        }
    }
}

impl fmt::Debug for StoreOptions {
    /// Without the hash key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("shards", &self.shards)
            .field("max_memory_bytes", &self.max_memory_bytes)
            .finish_non_exhaustive()
    }
}

/// Counters of a [`Store`] since it was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Items held now, including expired ones that no sweep or lookup has met yet.
    pub items: u64,
    /// Length of their bodies together.
    pub body_bytes: u64,
    /// What these items cost, as [`StoreOptions::max_memory_bytes`] counts.
    pub bytes: u64,
    /// PUTs of new items refused for lack of memory.
    pub refused_new: u64,
    /// Items dropped because they expired.
    pub expired: u64,
}

/// What a call of [`Store::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// Expired items dropped.
    pub expired: usize,
    /// Items looked at that are still alive.
    pub kept: usize,
    /// Nothing more is due; if false, the item limit was reached and the next call does the rest.
    pub complete: bool,
}

/// The items of a state server and the rules over them.
pub struct Store {
    /// As many as a power of two.
    shards: Box<[Aligned]>,
    hasher: SipHasher13,
    budget: Budget,
}

/// Two cache lines of its own for each lock, so that threads at work in neighbouring shards do
/// not slow each other down.
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

impl Store {
    /// What an item costs beyond its key and its body: slot, index, reference counters, allocator.
    pub const ITEM_OVERHEAD_BYTES: u64 = budget::ITEM_OVERHEAD_BYTES;

    /// A complete sweep this many milliseconds after an item's expiry, or later, frees it.
    pub const SWEEP_LAG_MS: u64 = wheel::TICK_MS;

    /// An empty store.
    pub fn new(options: &StoreOptions) -> Self {
        let shards = options.shards.clamp(1, MAX_SHARDS).next_power_of_two();
        Self {
            shards: (0..shards)
                .map(|_| Aligned(Mutex::new(Shard::new())))
                .collect(),
            hasher: SipHasher13::new_with_key(&options.hash_key),
            budget: Budget::new(options.max_memory_bytes),
        }
    }

    /// Carries out one request on the item with this key and says what to answer.
    ///
    /// `key` is the canonical key: the decoded target, compared byte by byte (protocol 2.2). The
    /// caller bounds the lengths of key and body. The checks happen in the protocol's order (5.2),
    /// so that a request with several faults gets the stock server's answer.
    pub fn apply(&self, key: &[u8], operation: Operation<'_>, now: Now) -> Outcome {
        match operation {
            Operation::Get => self.visit(key, now, |item| item.get(now)),
            Operation::Acquire => self.visit(key, now, |item| item.acquire(now)),
            Operation::Release { cookie } => self.visit(key, now, |item| item.release(cookie, now)),
            Operation::Touch => self.visit(key, now, |_| Outcome::DONE),
            Operation::Put {
                timeout,
                extra_flags,
                cookie,
                body,
            } => match parse_put(timeout, extra_flags, cookie) {
                Ok(put) => self.put(key, &put, body, now),
                Err(bad) => Outcome::Invalid(bad),
            },
            Operation::Remove { cookie } => self.remove(key, cookie, now),
        }
    }

    /// Drops expired items, looking at no more than `max_items` whose time may have come. To be
    /// called several times a second, by one task.
    ///
    /// No lock is held for more than a fixed number of items, and no memory is freed under it.
    pub fn sweep(&self, now: Now, max_items: usize) -> Sweep {
        let mut sweep = Sweep {
            expired: 0,
            kept: 0,
            complete: true,
        };
        let mut retired = Vec::new();
        for shard in &self.shards {
            loop {
                let max = (max_items - sweep.expired - sweep.kept).min(SWEEP_ITEMS_PER_LOCK);
                let turn = lock(shard).sweep(now.monotonic_ms, max, &self.budget, &mut retired);
                sweep.expired += retired.len();
                sweep.kept += turn.kept;
                retired.clear();
                if turn.done {
                    break;
                }
                if sweep.expired + sweep.kept == max_items {
                    sweep.complete = false;
                    return sweep;
                }
            }
        }
        sweep
    }

    /// The counters. Takes each shard's lock for a moment: cheap enough for once a second.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            bytes: self.budget.used_bytes(),
            ..Stats::default()
        };
        for shard in &self.shards {
            let shard = lock(shard);
            stats.items += shard.items() as u64;
            stats.body_bytes += shard.body_bytes();
            stats.refused_new += shard.refused_new();
            stats.expired += shard.expired();
        }
        stats
    }

    /// The state of a live item. Not an operation of the protocol: nothing slides, no flag is
    /// cleared.
    pub fn inspect(&self, key: &[u8], now: Now) -> Option<Snapshot> {
        let (at, shard) = self.locate(key);
        lock(shard).inspect(&at, now.monotonic_ms)
    }

    fn visit(&self, key: &[u8], now: Now, visit: impl FnOnce(&mut Item) -> Outcome) -> Outcome {
        let (at, shard) = self.locate(key);
        // Declared before the guard, here and below: dropped after it, so memory is freed unlocked.
        let mut retired = None;
        let mut shard = lock(shard);
        shard
            .lookup(&at, now, &self.budget, &mut retired)
            .map_or(Outcome::Absent, visit)
    }

    fn put(&self, key: &[u8], put: &Put<'_>, mut body: Body, now: Now) -> Outcome {
        let (at, shard) = self.locate(key);
        let mut retired = None;
        let mut shard = lock(shard);
        shard.put(&at, put, &mut body, now, &self.budget, &mut retired)
    }

    fn remove(&self, key: &[u8], cookie: Option<&[u8]>, now: Now) -> Outcome {
        let (at, shard) = self.locate(key);
        let mut retired = None;
        let mut shard = lock(shard);
        shard.remove(&at, cookie, now, &self.budget, &mut retired)
    }

    /// The high half of the hash picks the shard, the low half the place in it.
    fn locate<'k>(&self, key: &'k [u8]) -> (Address<'k>, &Aligned) {
        let hash = self.hasher.hash(key);
        let shard = (hash >> 32) as usize & (self.shards.len() - 1);
        (
            Address {
                key,
                hash: hash as u32,
            },
            &self.shards[shard],
        )
    }
}

impl fmt::Debug for Store {
    /// The number of shards only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

/// `Timeout` before `ExtraFlags`, both before the item is looked for; the cookie later, and only
/// if it matters (protocol 5.2).
fn parse_put<'a>(
    timeout: Option<&[u8]>,
    extra_flags: Option<&[u8]>,
    cookie: Option<&'a [u8]>,
) -> Result<Put<'a>, BadHeader> {
    let timeout = values::timeout(timeout)?;
    let insert_only = values::insert_only(extra_flags)?;
    Ok(Put {
        timeout,
        insert_only,
        cookie,
    })
}

/// No code panics while it holds a shard, so a poisoned lock means nothing and is taken as it is.
fn lock(shard: &Aligned) -> MutexGuard<'_, Shard> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}
