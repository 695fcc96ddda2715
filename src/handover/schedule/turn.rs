//! How a handover to a server that is to be left goes back.
//!
//! Nothing may move into such a server, and what has moved there is not lost: the slot stays at both
//! places, each session where it is, until what moves have left behind at the old owner has died.
//! Only then may the old owner be asked first again.

use super::super::{BackendId, SlotState, Stage};
use super::Surroundings;
use super::peers::has_places;

impl Surroundings<'_> {
    /// Whether a handover that has begun to move stops, because its new owner is to be left. In the
    /// second half of move 2 it goes on to its end: most of what is used has moved by then.
    ///
    /// Several proxies that do not know of each other, which they may be without failover, cannot tell
    /// whether the others have ended it.
    pub(super) fn turns_round(
        &self,
        slot: SlotState,
        second: BackendId,
        long_enough: bool,
    ) -> bool {
        let half_ms = self.times.move_ms / 2;
        let is_time = match slot.stage {
            Stage::Move1 => long_enough,
            Stage::Move2 => !self.has_lasted(slot, half_ms),
            _ => false,
        };
        is_time
            && self.is_to_be_left(slot.first)
            && !self.standing(second).is_leaving
            && (self.times.failover || !self.peers.is_empty())
            && self.peers.iter().all(|peer| {
                peer.is_some_and(|peer| {
                    let has_begun = match peer.slot.stage {
                        Stage::Move2 => !peer.has_lasted(half_ms),
                        Stage::Move1 | Stage::Turned => true,
                        _ => false,
                    };
                    has_begun && has_places(peer.slot, slot.first, second)
                })
            })
    }

    /// A handover that has stopped: it goes back once no proxy has moved anything for a lifetime, and
    /// on if its new owner is not to be left after all.
    pub(super) fn turned(&self, slot: SlotState, second: BackendId) -> SlotState {
        if let Some(changed) = self.without_failed(slot, second) {
            return changed;
        }
        let (first, lifetime_ms) = (slot.first, self.times.lifetime_ms);
        let goes_back = |there: SlotState| {
            has_places(there, second, first) && there.stage.is_handover()
                || there.first == second && there.stage == Stage::Steady
        };
        let mut heard = self.peers.iter().flatten();
        if heard.any(|peer| goes_back(peer.slot)) {
            return self.pair(slot, second, first, Stage::Settle);
        }
        if self.target == first && !self.standing(first).is_leaving {
            return self.pair(slot, first, second, Stage::Move2);
        }
        let is_over = self.has_lasted(slot, lifetime_ms)
            && self.peers.iter().all(|peer| {
                peer.is_some_and(|peer| {
                    peer.slot.stage == Stage::Turned
                        && has_places(peer.slot, first, second)
                        && peer.has_lasted(lifetime_ms)
                })
            });
        match is_over && self.is_up(first) && self.is_up(second) {
            true => self.pair(slot, second, first, Stage::Settle),
            false => slot,
        }
    }

    fn is_to_be_left(&self, backend_id: BackendId) -> bool {
        self.standing(backend_id).is_leaving && self.target != backend_id
    }
}
