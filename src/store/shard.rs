//! One shard: a dense vector of slots, an index from key to slot, and the wheel that expires them.
//!
//! A removed slot is filled with the last one, so there are no holes to keep track of and the
//! vector can shrink at any time. The key is kept once, in the slot; the index holds only slot
//! numbers, and 32 bits of the hash in the slot make growing the index and comparing keys cheap.

use std::mem;

use hashbrown::HashTable;

use super::body::Body;
use super::budget::{Budget, cost_bytes};
use super::change::ItemChange;
use super::command::{LockCookie, Timeout};
use super::item::{Item, ItemMarks, KeptItem, Stored};
use super::outcome::{ItemSnapshot, Now, StoreOutcome, StoreRefusal};
use super::shard_entry::{Links, ShardEntry};
use super::wheel::Wheel;

/// Below this many slots a shard's memory is not worth giving back.
const MIN_SLOTS_KEPT: usize = 32;

/// A key with its hash, computed before the shard is locked.
pub(super) struct Address<'a> {
    pub(super) key: &'a [u8],
    pub(super) hash: u32,
}

/// A PUT without its body.
pub(super) struct Put {
    pub(super) timeout: Timeout,
    pub(super) insert_only: bool,
    pub(super) cookie: LockCookie,
}

/// What one turn of [`Shard::sweep`] did.
#[derive(Default)]
pub(super) struct ShardSweep {
    /// Slots filed anew because their items are still alive.
    pub(super) kept: usize,
    /// Nothing more is due.
    pub(super) done: bool,
}

/// What a command touches besides the shard.
pub(super) struct Around<'a, O> {
    pub(super) now: Now,
    pub(super) budget: &'a Budget,
    /// What was taken out, to be freed after unlocking.
    pub(super) retired: &'a mut Option<ShardEntry>,
    /// Told what changed.
    pub(super) observe: O,
}

/// A part of the store under one lock.
///
/// Whatever an operation takes out of the shard goes to the caller, who frees it after unlocking:
/// giving back a long body can take longer than all the rest.
pub(super) struct Shard {
    slots: Vec<ShardEntry>,
    index: HashTable<u32>,
    wheel: Wheel,
    body_bytes: u64,
    expired: u64,
    refused_new: u64,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            index: HashTable::new(),
            wheel: Wheel::new(),
            body_bytes: 0,
            expired: 0,
            refused_new: 0,
        }
    }

    pub(super) fn items(&self) -> usize {
        self.slots.len()
    }

    /// Length of all items' bodies.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Items found expired, by lookups and sweeps.
    pub(super) fn expired(&self) -> u64 {
        self.expired
    }

    /// PUTs refused because of the memory budget.
    pub(super) fn refused_new(&self) -> u64 {
        self.refused_new
    }

    /// Finds a live item and slides its expiry; drops it if it is expired (protocol 5.4).
    pub(super) fn visit(
        &mut self,
        at: &Address<'_>,
        around: &mut Around<'_, impl FnMut(ItemChange<'_>)>,
        visit: impl FnOnce(&mut Item) -> StoreOutcome,
    ) -> StoreOutcome {
        let Some(slot) = self.lookup(at, around) else {
            return StoreOutcome::Absent;
        };
        let item = &mut self.slots[slot as usize].item;
        let before = item.marks();
        item.slide(around.now);
        let outcome = visit(item);
        (around.observe)(ItemChange::Used { before, item });
        outcome
    }

    /// Stores `body`, or leaves it where it is; afterwards `body` is what has to be freed.
    pub(super) fn put(
        &mut self,
        at: &Address<'_>,
        put: &Put,
        body: &mut Body,
        around: &mut Around<'_, impl FnMut(ItemChange<'_>)>,
    ) -> StoreOutcome {
        let done = StoreOutcome::Done {
            action_flags: false,
            zero_timeout: put.timeout.was_zero,
        };
        let Some(slot) = self.lookup(at, around) else {
            let Some(item) = self.insert(at, put, body, around.now, around.budget) else {
                return StoreOutcome::Refused(StoreRefusal::MemoryFull);
            };
            (around.observe)(ItemChange::Stored(item));
            return done;
        };
        let item = &mut self.slots[slot as usize].item;
        let before = item.marks();
        item.slide(around.now);
        if put.insert_only {
            (around.observe)(ItemChange::Used { before, item });
            return done;
        }
        match item.store(body, put.timeout.minutes, put.cookie, around.now) {
            Stored::No(outcome) => {
                (around.observe)(ItemChange::Used { before, item });
                outcome
            }
            Stored::Yes { timeout_changed } => {
                (around.observe)(ItemChange::Stored(item));
                around.budget.resize(body.len(), item.body_bytes());
                self.body_bytes += item.body_bytes() as u64;
                self.body_bytes -= body.len() as u64;
                if timeout_changed && self.wheel.is_filed_late(&self.slots[slot as usize]) {
                    self.wheel.unfile(&mut self.slots, slot);
                    self.wheel.file(&mut self.slots, slot);
                }
                done
            }
        }
    }

    /// Removes an item if it is unlocked or the cookie is its lock's.
    pub(super) fn remove(
        &mut self,
        at: &Address<'_>,
        cookie: LockCookie,
        around: &mut Around<'_, impl FnMut(ItemChange<'_>)>,
    ) -> StoreOutcome {
        let Some(slot) = self.lookup(at, around) else {
            return StoreOutcome::Absent;
        };
        let item = &mut self.slots[slot as usize].item;
        let before = item.marks();
        item.slide(around.now);
        if let Err(outcome) = item.check_removal(cookie, around.now) {
            (around.observe)(ItemChange::Used { before, item });
            return outcome;
        }
        (around.observe)(ItemChange::Removed);
        *around.retired = Some(self.take(slot, around.budget));
        StoreOutcome::DONE
    }

    /// A live item's state; touches nothing.
    pub(super) fn inspect(&self, at: &Address<'_>, now_ms: u64) -> Option<ItemSnapshot> {
        let item = &self.slots[self.find(at)? as usize].item;
        (!item.is_expired(now_ms)).then(|| item.snapshot())
    }

    /// Looks at up to `max_items` items whose time may have come; moves the expired ones to
    /// `retired`. When nothing more is due, memory far above the need is given back.
    pub(super) fn sweep(
        &mut self,
        now_ms: u64,
        max_items: usize,
        budget: &Budget,
        retired: &mut Vec<ShardEntry>,
    ) -> ShardSweep {
        let mut turn = ShardSweep::default();
        self.wheel.catch_up(now_ms);
        while let Some(slot) = self.wheel.next_due(now_ms) {
            if retired.len() + turn.kept == max_items {
                return turn;
            }
            if self.slots[slot as usize].item.is_expired(now_ms) {
                self.expired += 1;
                retired.push(self.take(slot, budget));
            } else {
                self.wheel.unfile(&mut self.slots, slot);
                self.wheel.file(&mut self.slots, slot);
                turn.kept += 1;
            }
        }
        self.shrink();
        turn.done = true;
        turn
    }

    /// The slot of a live item, which the caller slides; an expired one is dropped.
    fn lookup(
        &mut self,
        at: &Address<'_>,
        around: &mut Around<'_, impl FnMut(ItemChange<'_>)>,
    ) -> Option<u32> {
        let slot = self.find(at)?;
        if self.slots[slot as usize]
            .item
            .is_expired(around.now.unix_ms)
        {
            self.expired += 1;
            *around.retired = Some(self.take(slot, around.budget));
            (around.observe)(ItemChange::Expired);
            return None;
        }
        Some(slot)
    }

    fn find(&self, at: &Address<'_>) -> Option<u32> {
        let is_it = |&slot: &u32| {
            let slot = &self.slots[slot as usize];
            slot.hash == at.hash && *slot.key == *at.key
        };
        self.index.find(spread(at.hash), is_it).copied()
    }

    /// `None`, and counted, if there is no room.
    fn insert(
        &mut self,
        at: &Address<'_>,
        put: &Put,
        body: &mut Body,
        now: Now,
        budget: &Budget,
    ) -> Option<&Item> {
        let slot = match u32::try_from(self.slots.len()) {
            Ok(slot)
                if slot < Links::MAX_SLOTS
                    && budget.reserve(cost_bytes(at.key.len(), body.len())) =>
            {
                slot
            }
            _ => {
                self.refused_new += 1;
                return None;
            }
        };
        let item = Item::new(mem::take(body), put.timeout.minutes, put.insert_only, now);
        self.push(at, item, slot);
        Some(&self.slots[slot as usize].item)
    }

    /// Adds an item at `slot`, the first that is free.
    fn push(&mut self, at: &Address<'_>, item: Item, slot: u32) {
        self.body_bytes += item.body_bytes() as u64;
        // By an eighth and not by doubling: with millions of items the spare slots add up.
        if self.slots.len() == self.slots.capacity() {
            self.slots
                .reserve_exact((self.slots.len() / 8).max(MIN_SLOTS_KEPT / 4));
        }
        self.slots.push(ShardEntry {
            item,
            key: Box::from(at.key),
            hash: at.hash,
            links: Links::UNFILED,
        });
        let slots = &self.slots;
        self.index.insert_unique(spread(at.hash), slot, |&slot| {
            spread(slots[slot as usize].hash)
        });
        self.wheel.file(&mut self.slots, slot);
    }

    /// Adds an item that is not there, whatever the budget says.
    pub(super) fn restore(&mut self, at: &Address<'_>, item: Item, budget: &Budget) {
        if let Ok(slot) = u32::try_from(self.slots.len())
            && slot < Links::MAX_SLOTS
        {
            budget.charge(cost_bytes(at.key.len(), item.body_bytes()));
            self.push(at, item, slot);
        }
    }

    /// Changes an item as it was restored, if it is there.
    pub(super) fn restore_marks(
        &mut self,
        at: &Address<'_>,
        marks: impl FnOnce(&Item) -> ItemMarks,
    ) {
        if let Some(slot) = self.find(at) {
            self.wheel.unfile(&mut self.slots, slot);
            let item = &mut self.slots[slot as usize].item;
            let marks = marks(item);
            item.restore_marks(&marks);
            self.wheel.file(&mut self.slots, slot);
        }
    }

    /// Takes an item away, if it is there.
    pub(super) fn forget(&mut self, at: &Address<'_>, budget: &Budget) {
        if let Some(slot) = self.find(at) {
            self.take(slot, budget);
        }
    }

    /// An item as it is.
    pub(super) fn peek(&self, at: &Address<'_>) -> Option<KeptItem> {
        Some(self.slots[self.find(at)? as usize].item.kept())
    }

    /// Shows all items, until one is too much.
    pub(super) fn try_for_each<E>(
        &self,
        see: &mut impl FnMut(&[u8], &Item) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut slots = self.slots.iter();
        slots.try_for_each(|slot| see(&slot.key, &slot.item))
    }

    /// Removes a slot and fills the hole with the last one.
    fn take(&mut self, slot: u32, budget: &Budget) -> ShardEntry {
        self.wheel.unfile(&mut self.slots, slot);
        let hash = spread(self.slots[slot as usize].hash);
        if let Ok(entry) = self.index.find_entry(hash, |&found| found == slot) {
            entry.remove();
        }
        let taken = self.slots.swap_remove(slot as usize);
        if let Some(moved) = self.slots.get(slot as usize) {
            let last = self.slots.len() as u32;
            if let Some(found) = self
                .index
                .find_mut(spread(moved.hash), |&found| found == last)
            {
                *found = slot;
            }
            self.wheel.relocated(&mut self.slots, slot);
        }
        self.body_bytes -= taken.item.body_bytes() as u64;
        budget.release(taken.cost_bytes());
        taken
    }

    /// Gives memory back when less than a quarter is in use, down to twice the use, so that a
    /// store that goes up and down does not move its slots all the time.
    fn shrink(&mut self) {
        let wanted = (self.slots.len() * 2).max(MIN_SLOTS_KEPT);
        if self.slots.capacity() > wanted * 2 {
            self.slots.shrink_to(wanted);
        }
        if self.index.capacity() > wanted * 4 {
            let slots = &self.slots;
            self.index
                .shrink_to(wanted, |&slot| spread(slots[slot as usize].hash));
        }
    }
}

/// The index takes the group from the low bits and a 7-bit tag from the high bits of 64; the kept
/// 32 bits serve as both halves.
fn spread(hash: u32) -> u64 {
    (u64::from(hash) << 32) | u64::from(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around<'a>(
        now: Now,
        budget: &'a Budget,
        retired: &'a mut Option<ShardEntry>,
    ) -> Around<'a, impl FnMut(ItemChange<'_>)> {
        let observe = |_change: ItemChange<'_>| ();
        Around {
            now,
            budget,
            retired,
            observe,
        }
    }

    #[test]
    fn slots_and_index_shrink_after_mass_expiry() {
        const ITEMS: u32 = 20_000;
        let budget = Budget::new(None);
        let mut shard = Shard::new();
        let now = |unix_ms| Now {
            unix_ms,
            local_ticks: 0,
        };
        let minutes = |hash| if hash % 100 == 0 { 60 } else { 1 };
        for hash in 0..ITEMS {
            let timeout = Timeout {
                minutes: minutes(hash),
                was_zero: false,
            };
            let put = Put {
                timeout,
                insert_only: false,
                cookie: LockCookie::Missing,
            };
            let key = hash.to_le_bytes();
            let at = Address { key: &key, hash };
            let mut retired = None;
            let around = &mut around(now(0), &budget, &mut retired);
            let _ = shard.put(&at, &put, &mut Body::default(), around);
        }
        assert_eq!(shard.items(), ITEMS as usize);

        let mut retired = Vec::new();
        assert!(
            shard
                .sweep(10 * 60_000, usize::MAX, &budget, &mut retired)
                .done
        );
        let left = shard.items();
        assert_eq!((left, retired.len()), (200, ITEMS as usize - 200));
        assert!(
            shard.slots.capacity() <= 4 * left,
            "{}",
            shard.slots.capacity()
        );
        assert!(
            shard.index.capacity() <= 8 * left,
            "{}",
            shard.index.capacity()
        );
        for hash in 0..ITEMS {
            let key = hash.to_le_bytes();
            let found = shard
                .inspect(&Address { key: &key, hash }, 10 * 60_000)
                .is_some();
            assert_eq!(found, minutes(hash) == 60, "{hash}");
        }
    }

    #[test]
    fn keys_with_one_hash_stay_apart() {
        let budget = Budget::new(None);
        let mut shard = Shard::new();
        let now = Now {
            unix_ms: 0,
            local_ticks: 0,
        };
        let put = Put {
            timeout: Timeout {
                minutes: 20,
                was_zero: false,
            },
            insert_only: false,
            cookie: LockCookie::Missing,
        };
        let mut retired = None;
        let around = &mut around(now, &budget, &mut retired);
        let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
        for key in keys {
            let at = Address { key, hash: 7 };
            let _ = shard.put(&at, &put, &mut Body::from(key), around);
        }
        let first = Address { key: b"a", hash: 7 };
        assert_eq!(
            shard.remove(&first, LockCookie::Missing, around),
            StoreOutcome::DONE
        );
        assert!(shard.inspect(&first, 0).is_none());
        for key in [b"b", b"c"] {
            let found = shard
                .inspect(&Address { key, hash: 7 }, 0)
                .map(|item| item.body);
            assert_eq!(found, Some(Body::from(key.as_slice())));
        }
    }
}
