//! What the data path has seen of copies: which replicas have missed some, and which have lost all.

use std::sync::Arc;

use super::pool_state::{Notice, PoolState};
use crate::proxy::WorkersShared;
use crate::route::Slot;

/// Keep-alives are counted anew after this long.
const LOOKS_ANEW_MS: u64 = 10_000;

/// Follows the copies.
#[derive(Debug)]
pub(super) struct CopyWatch {
    shared: Arc<WorkersShared>,
    since_ms: u64,
}

impl CopyWatch {
    pub(super) fn new(shared: Arc<WorkersShared>) -> Self {
        let since_ms = 0;
        Self { shared, since_ms }
    }

    /// Tells `next` what was missed; those slots, and what there is to say.
    pub(super) fn look(&mut self, next: &mut PoolState, now_ms: u64) -> (Vec<Slot>, Vec<Notice>) {
        let is_new_look = now_ms >= self.since_ms + LOOKS_ANEW_MS;
        if is_new_look {
            self.since_ms = now_ms;
        }
        let copies = &self.shared.copies;
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

    /// Says how long the data path may store anew what a place has lost.
    pub(super) fn allow_restores(&self, for_ms: Option<u64>) {
        self.shared.copies.allow_restores(for_ms);
    }

    /// They could not be written down: they count until they are.
    pub(super) fn keep(&self, missed: &[Slot]) {
        missed
            .iter()
            .for_each(|slot| self.shared.copies.miss(*slot));
    }

    /// No copy is under way any more of what is at a backend that is served from no more, and the slots
    /// say of all that ended badly that it was missed: whoever hears that they are refused goes on
    /// with the replica.
    pub(super) fn have_ended(&self, pool_state: &PoolState) -> bool {
        let copies = &self.shared.copies;
        let have_ended = pool_state.copies_have_ended(|place| copies.under_way(place) > 0);
        // In this order: a copy is missed before it is under way no more.
        have_ended && !copies.has_missed()
    }
}
