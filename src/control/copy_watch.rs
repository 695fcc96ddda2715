//! What the data path has seen of copies: which replicas have missed some, and which have lost all.

use super::pool_state::{Notice, PoolState};
use crate::proxy::CopyTracker;
use crate::route::Slot;

/// Keep-alives are counted anew after this long, in milliseconds.
pub const LOOKS_ANEW_MS: u64 = 10_000;

/// Follows the copies.
#[derive(Debug, Default)]
pub struct CopyWatch {
    /// Since when keep-alives are counted.
    since_ms: u64,
}

impl CopyWatch {
    /// Tells `next` what was missed at `now_ms`; those slots, and what there is to say.
    pub fn look(
        &mut self,
        copies: &CopyTracker,
        next: &mut PoolState,
        now_ms: u64,
    ) -> (Vec<Slot>, Vec<Notice>) {
        let is_new_look = now_ms >= self.since_ms + LOOKS_ANEW_MS;
        if is_new_look {
            self.since_ms = now_ms;
        }
        let mut notices = Vec::new();
        for member in next.members() {
            if copies.has_lost_memory(member.backend_id, is_new_look) {
                let slots = next.copied_to(member.backend_id);
                slots.iter().for_each(|slot| copies.miss(*slot));
                let is_replica = !slots.is_empty();
                notices.extend(is_replica.then(|| Notice::copies_lost(&member.spec.name)));
            }
        }
        let missed = copies.take_missed();
        next.copies_missed(&missed, now_ms);
        (missed, notices)
    }
}

/// They could not be written down: they count until they are.
pub fn keep(copies: &CopyTracker, missed: &[Slot]) {
    missed.iter().for_each(|slot| copies.miss(*slot));
}

/// No copy is under way any more of what is at a backend that is served from no more, and the slots say
/// of all that ended badly that it was missed: whoever hears that they are refused goes on with the
/// replica.
pub fn have_ended(copies: &CopyTracker, pool_state: &PoolState) -> bool {
    let have_ended = pool_state.copies_have_ended(|place| copies.under_way(place) > 0);
    // In this order: a copy is missed before it is under way no more.
    have_ended && !copies.has_missed()
}
