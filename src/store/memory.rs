//! The store in memory.
//!
//! All commands on a key are serialised by the lock of its shard, and the lock is held only for a
//! lookup and a few assignments: keys are hashed, commands parsed and bodies allocated before, and
//! whatever a command replaces or removes is freed after.
//!
//! Where the sources of the protocol leave a choice, this store
//! * slides the expiry on every lookup that finds the item, whatever the answer (5.4);
//! * never lets the lock counter go back while the item lives, also when a PUT changes the
//!   timeout (5.3), and starts it at 1 for every new item;
//! * never drops a live item: a full memory budget refuses new items only (5.4).

use std::fmt;
use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use siphasher::sip::SipHasher13;

use super::budget::{self, Budget};
use super::change::ItemChange;
use super::command::SessionCommand;
use super::item::{Item, ItemMarks, KeptItem, RestoredItem};
use super::outcome::{ItemSnapshot, Now, StoreOutcome};
use super::session_store::{CountedStore, SessionStore, StoreStats, SweepTurn};
use super::shard::{Address, Around, Put, Shard};
use super::wheel;

/// Items a sweep looks at before it lets go of a shard's lock: some 20 microseconds.
const SWEEP_ITEMS_PER_LOCK: usize = 128;

/// The most shards a store can have.
const MAX_SHARDS: usize = 1 << 16;

/// How to build a [`MemoryStore`].
#[derive(Clone)]
pub struct StoreOptions {
    /// Parts with a lock of their own; rounded up to a power of two, at least 1, at most 65536.
    /// An empty shard costs about 2 KB.
    pub shards: usize,
    /// The most bytes all items may cost when a new one is accepted, or `None` for no limit. An
    /// item costs its key and body lengths and [`MemoryStore::ITEM_OVERHEAD_BYTES`].
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

/// The items of a state server and the rules over them.
pub struct MemoryStore {
    /// As many as a power of two.
    shards: Box<[Aligned]>,
    hasher: SipHasher13,
    budget: Budget,
}

/// Two cache lines of its own for each lock, so that threads at work in neighbouring shards do
/// not slow each other down.
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

impl MemoryStore {
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

    /// As [`SessionStore::apply`], at once, and tells `observe` what changed.
    ///
    /// `observe` runs under the lock of the item's shard: it must be short, and must not use this
    /// store. An item that is found expired and stored anew makes two changes.
    pub fn apply_observed(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
        observe: impl FnMut(ItemChange<'_>),
    ) -> StoreOutcome {
        let (at, shard) = self.locate(key);
        // Declared before the guard, so dropped after it: memory is freed unlocked.
        let (mut retired, mut replaced) = (None, None);
        let around = &mut Around {
            now,
            budget: &self.budget,
            retired: &mut retired,
            observe,
        };
        let mut shard = lock(shard);
        match command {
            SessionCommand::Get => shard.visit(&at, around, |item| item.get(now)),
            SessionCommand::Acquire => shard.visit(&at, around, |item| item.acquire(now)),
            SessionCommand::Release { cookie } => {
                shard.visit(&at, around, |item| item.release(cookie, now))
            }
            SessionCommand::Touch => shard.visit(&at, around, |_| StoreOutcome::DONE),
            SessionCommand::Put {
                timeout,
                insert_only,
                cookie,
                body,
            } => {
                let put = Put {
                    timeout,
                    insert_only,
                    cookie,
                };
                shard.put(&at, &put, replaced.insert(body), around)
            }
            SessionCommand::Remove { cookie } => shard.remove(&at, cookie, around),
        }
    }

    /// As [`SessionStore::sweep`], and tells `expired` the key of every item that is dropped, under
    /// the lock of its shard.
    ///
    /// No lock is held for more than a fixed number of items, and no memory is freed under it.
    pub fn sweep_observed(
        &self,
        now: Now,
        max_items: usize,
        mut expired: impl FnMut(&[u8]),
    ) -> SweepTurn {
        let mut sweep = SweepTurn {
            expired: 0,
            kept: 0,
            complete: true,
        };
        let mut retired = Vec::new();
        for shard in &self.shards {
            loop {
                let max = (max_items - sweep.expired - sweep.kept).min(SWEEP_ITEMS_PER_LOCK);
                let mut locked = lock(shard);
                let turn = locked.sweep(now.unix_ms, max, &self.budget, &mut retired);
                retired.iter().for_each(|slot| expired(slot.key()));
                drop(locked);
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

    /// The state of a live item. Not a command of the protocol: nothing slides, no flag is
    /// cleared.
    pub fn inspect(&self, key: &[u8], now: Now) -> Option<ItemSnapshot> {
        let (at, shard) = self.locate(key);
        lock(shard).inspect(&at, now.unix_ms)
    }

    /// Puts back an item that was kept elsewhere, in the place of one that is there. It is not
    /// refused for lack of memory: it was accepted before.
    pub fn restore(&self, key: &[u8], item: &RestoredItem<'_>) {
        let (at, shard) = self.locate(key);
        let item = Item::restored(item);
        let mut shard = lock(shard);
        shard.forget(&at, &self.budget);
        shard.restore(&at, item, &self.budget);
    }

    /// Changes expiry, counter and flag of an item that was put back, if it is there.
    pub fn restore_marks(&self, key: &[u8], marks: impl FnOnce(&Item) -> ItemMarks) {
        let (at, shard) = self.locate(key);
        lock(shard).restore_marks(&at, marks);
    }

    /// Takes away an item that was put back, if it is there.
    pub fn forget(&self, key: &[u8]) {
        let (at, shard) = self.locate(key);
        lock(shard).forget(&at, &self.budget);
    }

    /// An item as it is, whether its time is up or not, for whoever keeps a second record.
    pub fn peek(&self, key: &[u8]) -> Option<KeptItem> {
        let (at, shard) = self.locate(key);
        lock(shard).peek(&at)
    }

    /// Shows every item to `see`, under the lock of its shard, until one is too much.
    ///
    /// # Errors
    /// The first of `see`.
    pub fn try_for_each<E>(
        &self,
        mut see: impl FnMut(&[u8], &Item) -> Result<(), E>,
    ) -> Result<(), E> {
        for shard in &self.shards {
            lock(shard).try_for_each(&mut see)?;
        }
        Ok(())
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

impl SessionStore for MemoryStore {
    fn apply(
        &self,
        key: &[u8],
        command: SessionCommand,
        now: Now,
    ) -> impl Future<Output = StoreOutcome> + use<'_> {
        ready(self.apply_observed(key, command, now, |_change| ()))
    }

    fn sweep(&self, now: Now, max_items: usize) -> SweepTurn {
        self.sweep_observed(now, max_items, |_key| ())
    }
}

impl CountedStore for MemoryStore {
    fn stats(&self) -> StoreStats {
        let mut stats = StoreStats {
            bytes: self.budget.used_bytes(),
            ..StoreStats::default()
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
}

impl fmt::Debug for MemoryStore {
    /// The number of shards only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

/// No code panics while it holds a shard, so a poisoned lock means nothing and is taken as it is.
fn lock(shard: &Aligned) -> MutexGuard<'_, Shard> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}
