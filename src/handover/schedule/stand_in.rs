//! Who may stand in for a place that has failed, and whose items are outdated.
//!
//! Once a place has stood in for another one, the other's items may be outdated: their sessions have
//! gone on elsewhere. While the stand-in is asked first, that does not show. When the stand-in fails,
//! it would: so the next one to stand in is a third place, or nobody before the outdated items have
//! died.

use super::super::{BackendId, Before, SlotState, Stage};
use super::peers::has_places;
use super::{Surroundings, restored};

impl Surroundings<'_> {
    /// What was used last at `since_ms` may still be there at `now_ms`.
    pub(super) fn is_alive(&self, since_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(since_ms) < self.times.lifetime_ms
    }

    /// `place` may hold outdated items of the slot, as this or another proxy sees it: while this one
    /// has refused the slot, another may have left `place` once more.
    pub(super) fn is_outdated(&self, slot: &SlotState, backend_id: BackendId) -> bool {
        let mut peers = self.peers.iter().flatten();
        self.was_left(slot, backend_id, self.now_ms)
            || peers.any(|peer| self.was_left(&peer.slot, backend_id, peer.heard_ms))
    }

    /// This or another proxy that refuses the slot has chosen it: some may go on with it already, also
    /// if one that is to be preferred has come back since.
    fn is_chosen(&self, suspect: &SlotState, failed: BackendId, backend_id: BackendId) -> bool {
        let mut peers = self.peers.iter().flatten().map(|peer| &peer.slot);
        suspect.first == backend_id
            || peers.any(|there| {
                there.stage == Stage::Suspect && has_places(*there, backend_id, failed)
            })
    }

    /// When this or another proxy has left it; 0 for one that nobody remembers to have left. All
    /// prefer the one that was left first, so that nobody's choice changes when the next is fit, too.
    fn last_left_ms(&self, slot: &SlotState, backend_id: BackendId) -> u64 {
        let peers = self.peers.iter().flatten().map(|peer| peer.slot);
        let left_ms = |slot: SlotState| {
            let served = restored(slot);
            let is_return = matches!(served.stage, Stage::Away | Stage::Back | Stage::Wait);
            let is_returned = is_return && served.second == Some(backend_id);
            let is_outdated = slot.outdated.contains(backend_id);
            let left = [
                is_returned.then_some(served.since_ms),
                is_outdated.then(|| slot.outdated.since_ms()),
            ];
            left.into_iter().flatten().max()
        };
        let left = peers.chain([*slot]).filter_map(left_ms);
        left.max().unwrap_or(0)
    }

    /// Whoever has the slot in this state has left `place` less than a lifetime before `now_ms`.
    pub(super) fn was_left(&self, slot: &SlotState, backend_id: BackendId, now_ms: u64) -> bool {
        let served = restored(*slot);
        let is_return = matches!(served.stage, Stage::Away | Stage::Back | Stage::Wait);
        let is_returned = is_return && served.second == Some(backend_id);
        let outdated = slot.outdated;
        (is_returned && self.is_alive(served.since_ms, now_ms))
            || (outdated.contains(backend_id) && self.is_alive(outdated.since_ms(), now_ms))
    }

    /// No other proxy is still where this one has outdated items, or may be. What is remembered until
    /// then tells such a one where the slot has gone.
    pub(super) fn all_have_left(&self, slot: &SlotState) -> bool {
        self.peers.iter().all(|peer| {
            let is_left = |backend_id| slot.outdated.contains(backend_id);
            peer.is_some_and(|peer| {
                let replica = peer.slot.replica.map(|replica| replica.backend_id);
                !peer.slot.places().chain(replica).any(is_left)
            })
        })
    }

    /// The slot as suspect because `failed`, one of its places, is down; `None` if all its items are
    /// there, and nobody could stand in.
    pub(super) fn suspicion(&self, slot: SlotState, failed: BackendId) -> Option<SlotState> {
        let suspect = SlotState {
            second: Some(failed),
            stage: Stage::Suspect,
            since_ms: self.now_ms,
            before: Some(Before {
                first: slot.first,
                second: slot.second,
                stage: slot.stage,
                since_ms: slot.since_ms,
            }),
            ..slot
        };
        let is_gone = self.standing(failed).gone;
        let placeholder = Some(self.target).filter(|target| is_gone && *target != failed);
        let other = other_than(&slot, failed).or(placeholder);
        let first = self.stand_in_for(&suspect).or(other)?;
        Some(SlotState { first, ..suspect })
    }

    /// Who stands in for the failed place of a suspect slot, if anybody may.
    pub(super) fn stand_in_for(&self, suspect: &SlotState) -> Option<BackendId> {
        let failed = suspect.second?;
        if let Some(replica) = self.copied_stand_in(suspect) {
            return Some(replica);
        }
        let elsewhere = self.stand_in_elsewhere(suspect, failed);
        let bound = elsewhere.or(self.partner(suspect));
        bound.or_else(|| {
            let fit = self.stand_ins.iter().copied().filter(|&backend_id| {
                backend_id != failed && !self.is_outdated(suspect, backend_id)
            });
            let chosen = fit
                .clone()
                .filter(|backend_id| self.is_chosen(suspect, failed, *backend_id));
            chosen
                .min()
                .or_else(|| fit.min_by_key(|backend_id| self.last_left_ms(suspect, *backend_id)))
        })
    }

    /// The other place of a slot that was at two when it became suspect: nobody else may stand in,
    /// as it has true items, too. Not so if they may be outdated.
    pub(super) fn partner(&self, suspect: &SlotState) -> Option<BackendId> {
        let served = restored(*suspect);
        let other = other_than(&served, suspect.second?)?;
        let is_served = served.stage != Stage::Away;
        (is_served && !self.is_outdated(suspect, other)).then_some(other)
    }

    /// The slot in a stage without the place that failed. What it has left besides is outdated from
    /// now on.
    pub(super) fn leave(&self, suspect: SlotState, stand_in: BackendId, stage: Stage) -> SlotState {
        let left = suspect
            .second
            .and_then(|failed| other_than(&restored(suspect), failed))
            .filter(|backend_id| *backend_id != stand_in);
        self.without_replica(SlotState {
            first: stand_in,
            stage,
            since_ms: self.now_ms,
            before: None,
            outdated: suspect.outdated.with(left, self.now_ms).without(stand_in),
            ..suspect
        })
    }
}

/// The other place of a slot that is at two.
fn other_than(slot: &SlotState, backend_id: BackendId) -> Option<BackendId> {
    let places = [Some(slot.first), slot.second];
    places
        .into_iter()
        .flatten()
        .find(|other| *other != backend_id)
}
