//! An item as a shard keeps it.

use super::budget::cost_bytes;
use super::item::Item;

/// An item, its key, and where it is filed.
pub(super) struct ShardEntry {
    pub(super) item: Item,
    pub(super) key: Box<[u8]>,
    pub(super) hash: u32,
    pub(super) links: Links,
}

/// [`MemoryStore::ITEM_OVERHEAD_BYTES`](super::MemoryStore::ITEM_OVERHEAD_BYTES) counts on it.
const _: () = assert!(size_of::<ShardEntry>() <= 88);

impl ShardEntry {
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn cost_bytes(&self) -> u64 {
        cost_bytes(self.key.len(), self.item.body_bytes())
    }
}

/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Where a slot is filed.
pub(super) struct Links {
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(super) bucket: u32,
}

impl Links {
    /// Not filed yet.
    pub(super) const UNFILED: Self = Self {
        prev: NONE,
        next: NONE,
        bucket: NONE,
    };

    /// Slot numbers are below this.
    pub(super) const MAX_SLOTS: u32 = NONE;
}
