//! How a handover to a server that is to be left goes back.
//!
//! Nothing may move into such a server, and what has moved there is not lost: the slot stays at both
//! places, each session where it is, until what moves have left behind at the old owner has died.
//! Only then may the old owner be asked first again.

use super::super::{BackendId, SlotState, Stage};
use super::Surroundings;
use super::peers::{PeerSlot, has_places};

impl Surroundings<'_> {
    /// Whether a handover that has begun to move stops, because its new owner is to be left.
    ///
    /// That is so in the first half of move 2, and not at its very beginning: sessions that began at both
    /// places, as may happen between move 1 and move 2, are one again after as long as move 1 lasts. In
    /// the second half the handover goes on to its end, as most of what is used has moved by then, unless
    /// another proxy has stopped before: that one has never said that it may end. Several proxies that do
    /// not know of each other, which they may be without failover, cannot tell whether the others have
    /// ended it.
    pub(super) fn turns_round(&self, slot: SlotState, second: BackendId) -> bool {
        let min_ms = self.times.of_handover(Stage::Move1);
        let has_stopped = |peer: &PeerSlot| {
            peer.slot.stage == Stage::Turned && has_places(peer.slot, slot.first, second)
        };
        let another_has = self.peers.iter().flatten().any(has_stopped);
        let may_begin = !self.standing(second).is_leaving && self.may_get(&slot, second);
        let max_ms = match (another_has, may_begin) {
            (true, _) => u64::MAX,
            (false, true) => self.times.move_ms / 2,
            (false, false) => 0,
        };
        slot.stage == Stage::Move2
            && self.is_to_be_left(slot.first)
            && (self.times.failover || !self.peers.is_empty())
            && self.has_lasted(slot, min_ms)
            && !self.has_lasted(slot, max_ms)
            && self.peers.iter().all(|peer| {
                peer.is_some_and(|peer| {
                    let moves = peer.slot.stage == Stage::Move2
                        && has_places(peer.slot, slot.first, second)
                        && peer.has_lasted(min_ms)
                        && !peer.has_lasted(max_ms);
                    moves || has_stopped(&peer)
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
        let moves_on =
            |there: SlotState| there.stage == Stage::Move2 && has_places(there, first, second);
        let is_wanted =
            self.target == first || self.peers.iter().flatten().any(|peer| moves_on(peer.slot));
        if is_wanted && !self.standing(first).is_leaving {
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
        let may_serve = self.is_up(second) && self.may_get(&slot, second);
        match is_over && self.is_up(first) && may_serve {
            true => self.pair(slot, second, first, Stage::Settle),
            false => slot,
        }
    }

    fn is_to_be_left(&self, backend_id: BackendId) -> bool {
        self.standing(backend_id).is_leaving && self.target != backend_id
    }
}
