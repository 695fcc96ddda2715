//! How a slot leaves a server that was given up.
//!
//! What it holds is lost: its sessions begin anew elsewhere. A proxy that still served from it would
//! bring outdated items back. So nobody goes on before every other proxy has let go of it, too; until
//! then the slot is suspect, and its requests are refused.

use super::super::{BackendId, SlotState, Stage};
use super::{Joined, PeerSlot, Surroundings, restored};

impl Surroundings<'_> {
    /// The slot at the one of its places that is left, unless that one may have outdated items.
    pub(super) fn without_gone(&self, slot: SlotState, second: BackendId) -> Option<SlotState> {
        if self.standing(second).gone {
            let may_rest = self.all_let_go(second, slot.first);
            return may_rest.then(|| self.at_rest(slot, slot.first));
        }
        let is_left = self.standing(slot.first).gone
            && !self.is_outdated(&slot, second)
            && self.all_let_go(slot.first, second);
        is_left.then(|| self.at_rest(slot, second))
    }

    /// What becomes of a suspect slot one of whose places is gone; nothing has been done at a
    /// stand-in yet.
    pub(super) fn without_gone_before(
        &self,
        slot: SlotState,
        before: SlotState,
        failed: BackendId,
    ) -> Option<SlotState> {
        if let Some(second) = before.second {
            return self.without_gone(before, second);
        }
        if self.standing(failed).gone
            && let Some(rest) = self.rest_without(&slot, failed)
        {
            let may_rest = self.may_get(&slot, rest) && self.all_let_go(failed, rest);
            return may_rest.then(|| self.at_rest(slot, rest));
        }
        let is_alone = self.standing(slot.first).gone && self.stand_in_for(&slot).is_none();
        is_alone.then_some(before)
    }

    /// Where the items of a suspect slot begin anew that was at `gone` alone: where another proxy has
    /// them already, else where the map wants them. `None` if it was at two places.
    pub(super) fn rest_without(&self, slot: &SlotState, gone: BackendId) -> Option<BackendId> {
        if restored(*slot).second.is_some() {
            return None;
        }
        let elsewhere = self.peers.iter().flatten().find_map(|peer| {
            let has_left = peer.slot.places().all(|backend_id| backend_id != gone);
            let is_known = |backend_id| !self.standing(backend_id).gone;
            let there = has_left.then(|| Joined::new(peer.slot, is_known, self.now_ms));
            there.flatten().map(|there| there.slot.first)
        });
        let wanted = match self.standing(self.target).gone {
            true => self.stand_in_for(slot),
            false => Some(self.target).filter(|target| self.may_get(slot, *target)),
        };
        elsewhere
            .or(wanted)
            .filter(|backend_id| *backend_id != gone)
    }

    /// No other proxy serves from `gone`, nor will: all have gone on without it, or refuse until they
    /// go on at `rest` as well.
    pub(super) fn all_let_go(&self, gone: BackendId, rest: BackendId) -> bool {
        let lets_go = |peer: &Option<PeerSlot>| {
            let peer = peer.as_ref();
            peer.is_some_and(|peer| lets_go(peer, gone, rest))
        };
        self.standing(gone).insisted || self.peers.iter().all(lets_go)
    }
}

fn lets_go(peer: &PeerSlot, gone: BackendId, rest: BackendId) -> bool {
    let there = &peer.slot;
    if there.places().all(|backend_id| backend_id != gone) {
        return true;
    }
    let served = restored(*there);
    let goes_to = match there.stage {
        // What is away is not asked.
        Stage::Away if there.second == Some(gone) => Some(there.first),
        Stage::Suspect => match served.second {
            None => Some(there.first),
            Some(second) if second == gone => Some(served.first),
            Some(second) => Some(second),
        },
        _ => None,
    };
    peer.gone.contains(gone) && goes_to == Some(rest)
}
