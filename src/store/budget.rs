//! The memory budget of a store: one counter for all shards.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes an item costs beyond its key and body.
///
/// Derived from the 64-bit layout, with the worst case of each part: the slot (88 bytes, and an
/// eighth more for spare capacity: 99), the index entry (5 bytes at a load down to 7/16: 12), the
/// body's reference counters (16), and for each of the two heap blocks, key and body, the rounding
/// up of a short one (16). A long body is rounded up by a tenth of its length on average, which is
/// not counted. A body kept in its own vector has one small block more, lost in the size of such a
/// body.
pub(super) const ITEM_OVERHEAD_BYTES: u64 = 160;

/// Counts what the items cost and refuses what would exceed the limit.
///
/// Aligned to two cache lines, because every PUT that changes a length writes it.
#[repr(align(128))]
pub(super) struct Budget {
    used_bytes: AtomicU64,
    max_bytes: u64,
}

impl Budget {
    /// No limit is a limit that cannot be reached.
    pub(super) fn new(max_bytes: Option<u64>) -> Self {
        Self {
            used_bytes: AtomicU64::new(0),
            max_bytes: max_bytes.unwrap_or(u64::MAX),
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Takes room for a new item; false and no change if the total would exceed the limit.
    ///
    /// One compare-exchange decides and takes, so threads that create items at the same time
    /// cannot exceed the limit together.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let taken = |used: u64| {
            used.checked_add(bytes)
                .filter(|total| *total <= self.max_bytes)
        };
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }

    /// Takes room for an item that was accepted before, limit or no limit.
    pub(super) fn charge(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Accounts for an existing item whose body changed length. Never refused: the write of a
    /// live session must not be lost (protocol 5.4).
    pub(super) fn resize(&self, old_body_bytes: usize, new_body_bytes: usize) {
        if new_body_bytes > old_body_bytes {
            let grown = (new_body_bytes - old_body_bytes) as u64;
            self.used_bytes.fetch_add(grown, Ordering::Relaxed);
        } else if new_body_bytes < old_body_bytes {
            self.release((old_body_bytes - new_body_bytes) as u64);
        }
    }

    /// Gives back what [`Self::reserve`] and [`Self::resize`] took.
    pub(super) fn release(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What an item costs.
pub(super) fn cost_bytes(key_bytes: usize, body_bytes: usize) -> u64 {
    key_bytes as u64 + body_bytes as u64 + ITEM_OVERHEAD_BYTES
}
