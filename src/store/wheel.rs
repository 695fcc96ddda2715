//! A timing wheel: items filed by when they may expire, so that a sweep visits only those.
//!
//! Time is cut into ticks. An item sits in the bucket of the first tick at whose start it will be
//! expired, counted from the expiry it had when it was filed; ticks beyond the horizon share the
//! furthest bucket. Sliding an item's expiry does not move it: when its bucket comes due, the
//! item is dropped or filed anew. So an item is touched about once per timeout, however often it
//! is used. The buckets are doubly linked lists through the slots themselves, which makes filing
//! and unfiling O(1) without memory of their own.

use super::shard_entry::{Links, NONE, ShardEntry};

/// The width of a tick. An expired item is freed at most this long after its expiry.
pub(super) const TICK_MS: u64 = 4000;

/// Buckets of a wheel: 512 x 4 s = 34 minutes, more than the usual timeout of 20 minutes.
const BUCKETS: usize = 512;

/// The buckets and the tick up to which they have been swept.
///
/// Architecture invariant: the bucket of tick `t` is `t % BUCKETS`, and filed ticks lie in
/// `swept + 1 ..= swept + BUCKETS`, so one bucket never holds two different ticks.
pub(super) struct Wheel {
    heads: Box<[u32]>,
    swept: u64,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self {
            heads: vec![NONE; BUCKETS].into_boxed_slice(),
            swept: 0,
        }
    }

    /// Files a slot that is not filed, by the present expiry of its item.
    pub(super) fn file(&mut self, slots: &mut [ShardEntry], index: u32) {
        let due = due_tick(slots[index as usize].item.expires_ms());
        let tick = due.clamp(self.swept + 1, self.swept + BUCKETS as u64);
        let bucket = bucket_of(tick);
        let next = self.heads[bucket];
        slots[index as usize].links = Links {
            prev: NONE,
            next,
            bucket: bucket as u32,
        };
        if next != NONE {
            slots[next as usize].links.prev = index;
        }
        self.heads[bucket] = index;
    }

    /// Takes a slot out of its bucket.
    pub(super) fn unfile(&mut self, slots: &mut [ShardEntry], index: u32) {
        let Links { prev, next, bucket } =
            std::mem::replace(&mut slots[index as usize].links, Links::UNFILED);
        self.join(slots, bucket, prev, next);
        if next != NONE {
            slots[next as usize].links.prev = prev;
        }
    }

    /// Tells the neighbours that a filed slot now sits at `index`.
    pub(super) fn relocated(&mut self, slots: &mut [ShardEntry], index: u32) {
        let Links { prev, next, bucket } = slots[index as usize].links;
        self.join(slots, bucket, prev, index);
        if next != NONE {
            slots[next as usize].links.prev = index;
        }
    }

    /// Whether the item's expiry has come nearer than the bucket it is filed in.
    pub(super) fn is_filed_late(&self, slot: &ShardEntry) -> bool {
        let behind = bucket_of(self.swept + 1);
        let ahead = (slot.links.bucket as usize + BUCKETS - behind) % BUCKETS;
        due_tick(slot.item.expires_ms()) < self.swept + 1 + ahead as u64
    }

    /// Begins or resumes a sweep up to `now_ms`. After a gap longer than the wheel one round over
    /// all buckets is enough.
    pub(super) fn catch_up(&mut self, now_ms: u64) {
        self.swept = self
            .swept
            .max((now_ms / TICK_MS).saturating_sub(BUCKETS as u64));
    }

    /// The next slot that has to be looked at, or `None` if all buckets up to `now_ms` are empty.
    /// The caller must take the slot out of its bucket: drop it if it is expired at `now_ms`,
    /// else unfile and file it, which puts it into a later bucket.
    pub(super) fn next_due(&mut self, now_ms: u64) -> Option<u32> {
        while self.swept < now_ms / TICK_MS {
            let head = self.heads[bucket_of(self.swept + 1)];
            if head != NONE {
                return Some(head);
            }
            self.swept += 1;
        }
        None
    }

    /// Makes `to` the successor of `prev`, or the head of the bucket if there is no `prev`.
    fn join(&mut self, slots: &mut [ShardEntry], bucket: u32, prev: u32, to: u32) {
        if prev == NONE {
            self.heads[bucket as usize] = to;
        } else {
            slots[prev as usize].links.next = to;
        }
    }
}

/// The first tick at whose start an item with this expiry is expired.
fn due_tick(expires_ms: u64) -> u64 {
    expires_ms.div_ceil(TICK_MS)
}

fn bucket_of(tick: u64) -> usize {
    (tick % BUCKETS as u64) as usize
}
