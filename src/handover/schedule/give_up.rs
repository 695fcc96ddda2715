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

    /// What becomes of a suspect slot one of whose places is gone, or both; nothing has been done at
    /// a stand-in yet.
    pub(super) fn without_gone_before(
        &self,
        slot: SlotState,
        before: SlotState,
        failed: BackendId,
    ) -> Option<SlotState> {
        if let Some(second) = before.second
            && !self.is_all_gone(before)
        {
            return self.without_gone(before, second);
        }
        if self.standing(failed).gone
            && let Some(rest) = self.rest_without(&slot, failed)
        {
            let mut left = before.places();
            let may_rest =
                self.may_get(&slot, rest) && left.all(|place| self.all_let_go(place, rest));
            return may_rest.then(|| self.at_rest(slot, rest));
        }
        if before.second.is_some() {
            return None;
        }
        let is_alone = self.standing(slot.first).gone && self.stand_in_for(&slot).is_none();
        // Back there it may be suspect at once: then it is refused until somebody is fit.
        let may_stay = is_alone && self.suspicion(before, failed).is_none();
        may_stay.then_some(before)
    }

    /// Where the items of a suspect slot begin anew that was at `gone` alone, or at two places that
    /// are both gone: where another proxy has them already, else where the map wants them. `None` if
    /// it has another place.
    pub(super) fn rest_without(&self, slot: &SlotState, gone: BackendId) -> Option<BackendId> {
        let before = restored(*slot);
        if before.second.is_some() && !self.is_all_gone(before) {
            return None;
        }
        let elsewhere = self.peers.iter().flatten().find_map(|peer| {
            let has_left = has_gone_on_without(&peer.slot, gone);
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
            .filter(|backend_id| before.places().all(|place| place != *backend_id))
    }

    fn is_all_gone(&self, slot: SlotState) -> bool {
        slot.places().all(|place| self.standing(place).gone)
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

/// The slot is served without `gone`, or somebody stands in for it there: a proxy that went on before
/// the order came waits for the others, and they have to go where it is.
fn has_gone_on_without(there: &SlotState, gone: BackendId) -> bool {
    let served = restored(*there);
    let is_return = matches!(served.stage, Stage::Away | Stage::Back | Stage::Wait);
    (is_return && served.second == Some(gone)) || there.places().all(|place| place != gone)
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
            _ if served.places().all(|place| peer.gone.contains(place)) => Some(there.first),
            Some(second) if second == gone => Some(served.first),
            Some(second) => Some(second),
        },
        _ => None,
    };
    peer.gone.contains(gone) && goes_to == Some(rest)
}
