//! What the other proxies do with the same slot, and what this one may conclude from it.

use super::super::{BackendId, Places, Replica, ReplicaPhase, SlotState, Stage};
use super::{Surroundings, restored};

/// The slot at another proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSlot {
    /// Its state there, with times of this proxy's clock.
    pub slot: SlotState,
    /// Whether that proxy sees the slot's second place up.
    pub second_up: bool,
    /// The backends that proxy has given up: it serves from none of them again before what they
    /// held has died.
    pub gone: Places,
    /// When it said so: how long it has been in a stage counts up to here, as it may have left it
    /// since.
    pub heard_ms: u64,
}

/// A slot at another proxy as one that remembers nothing takes it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The slot with all its items where a handover is to bring them, or where those of a server
    /// that has failed were, or at its other place if this proxy does not know that one. What else
    /// is under way, a look at the peers then tells.
    pub slot: SlotState,
    /// Since when it has been in its stage there.
    pub since_ms: u64,
}

impl Joined {
    /// What to make of `there`; `None` if it is nowhere where this proxy knows a server.
    #[must_use]
    pub fn new(
        there: SlotState,
        is_known: impl Fn(BackendId) -> bool,
        now_ms: u64,
    ) -> Option<Self> {
        let served = restored(there);
        let is_return = matches!(served.stage, Stage::Away | Stage::Back | Stage::Wait);
        let failed = served.second.filter(|_| is_return);
        let places = [failed, Some(served.first), served.second].into_iter();
        let backend_id = places.flatten().find(|backend_id| is_known(*backend_id))?;
        Some(Self {
            slot: SlotState {
                outdated: served.outdated.without(backend_id),
                replica: served
                    .replica
                    .filter(|replica| replica.backend_id != backend_id)
                    .map(|replica| Replica {
                        since_ms: now_ms,
                        ..replica
                    }),
                ..SlotState::steady(backend_id, now_ms)
            },
            since_ms: served.since_ms,
        })
    }
}

impl PeerSlot {
    pub(super) fn has_lasted(&self, min_ms: u64) -> bool {
        self.heard_ms.saturating_sub(self.slot.since_ms) >= min_ms
    }
}

impl Surroundings<'_> {
    /// What another proxy has under way with a slot that is steady here, and could not have without
    /// this one: this proxy has lost its state.
    pub(super) fn forgotten(&self, slot: SlotState) -> Option<SlotState> {
        let backend_id = slot.first;
        let handover = self.peers.iter().flatten().find(|peer| {
            let SlotState { first, stage, .. } = peer.slot;
            let is_early = stage != Stage::Move2 || !peer.has_lasted(self.times.move_ms);
            first == backend_id && stage.is_handover() && is_early
        });
        let mut peers = self.peers.iter().flatten();
        let left = peers.find(|peer| {
            self.was_left(&peer.slot, backend_id, peer.heard_ms) && !is_behind(&peer.slot, &slot)
        });
        let return_of_place = self.left_elsewhere(backend_id, 0).map(|there| SlotState {
            stage: Stage::Back,
            since_ms: self.now_ms,
            ..there
        });
        let under_way = return_of_place.or(handover.or(left).map(|peer| peer.slot))?;
        let is_gone = |backend_id| self.standing(backend_id).gone;
        let may_follow = under_way.places().all(|backend_id| !is_gone(backend_id));
        may_follow.then(|| self.with_own_notes(slot, under_way))
    }

    /// The slot as it is under way elsewhere. What this proxy has left or copied, and no other has,
    /// is outdated all the same.
    fn with_own_notes(&self, here: SlotState, under_way: SlotState) -> SlotState {
        let there = under_way.replica.map(|replica| replica.backend_id);
        let is_left = |backend_id: &BackendId| {
            Some(*backend_id) != there && under_way.places().all(|place| place != *backend_id)
        };
        let left = self.without_replica(here).outdated;
        let is_alive = self.is_alive(left.since_ms(), self.now_ms);
        let noted = left.places().filter(is_left).filter(|_| is_alive);
        let since_ms = left.since_ms().max(under_way.outdated.since_ms());
        SlotState {
            outdated: under_way.outdated.with(noted, since_ms),
            ..under_way
        }
    }

    /// Every other proxy has been in the slot's stage of the handover long enough, or is further.
    pub(super) fn peers_follow(&self, slot: SlotState) -> bool {
        let min_ms = self.times.of_handover(slot.stage);
        self.peers.iter().all(|peer| {
            let Some(peer) = peer else {
                return false;
            };
            let there = peer.slot;
            if there.first != slot.first {
                // It has ended this handover and begun the next.
                return slot.stage == Stage::Move2
                    && there.stage.is_handover()
                    && there.second == Some(slot.first)
                    && (slot.second != Some(there.first) || self.follows(there, slot));
            }
            match there.stage {
                Stage::Steady => true,
                // What it leaves behind at the second place has not moved.
                Stage::Turned => slot.stage < Stage::Move2,
                stage if stage.is_handover() && stage == slot.stage => peer.has_lasted(min_ms),
                stage => stage.is_handover() && stage > slot.stage,
            }
        })
    }

    /// Another proxy is not in this handover, so that nobody can be further in it than this one,
    /// and would have this one wait for ever: it never had the map that began it, and this proxy's
    /// target has changed, too, or it has just begun to move items the other way.
    pub(super) fn is_refused_elsewhere(&self, slot: SlotState, second: BackendId) -> bool {
        let first = slot.first;
        let is_obsolete = self.target != first;
        self.peers.iter().flatten().any(|peer| {
            let there = &peer.slot;
            match there.stage {
                Stage::Steady => is_obsolete && there.first == second,
                Stage::Settle => {
                    is_obsolete && there.second == Some(second) && there.first != first
                }
                Stage::Wait => is_obsolete && has_places(*there, second, first),
                Stage::Move2 => has_places(*there, second, first) && !self.follows(slot, *there),
                _ => false,
            }
        })
    }

    /// No other proxy has gone beyond *settle* in the slot's handover from `second`.
    pub(super) fn nobody_is_ahead(&self, slot: SlotState, second: BackendId) -> bool {
        self.peers.iter().all(|peer| {
            let Some(PeerSlot { slot: there, .. }) = peer else {
                return false;
            };
            match there.stage {
                Stage::Steady => there.first == second,
                Stage::Settle => has_places(*there, slot.first, second),
                Stage::Wait => has_places(*there, second, slot.first),
                _ => false,
            }
        })
    }

    /// No other proxy refuses the slot until `target`, which this one has left, is back: it would go on
    /// there as if nothing had been left.
    pub(super) fn nobody_waits_for(&self, slot: &SlotState, target: BackendId) -> bool {
        let waits = |peer: &PeerSlot| {
            let there = &peer.slot;
            let served = restored(*there);
            let is_in_handover = has_places(served, target, slot.first);
            let is_at_target = served.places().any(|place| place == target);
            there.stage == Stage::Suspect && is_at_target && !is_in_handover
        };
        let mut peers = self.peers.iter();
        !slot.outdated.contains(target)
            || peers.all(|peer| peer.as_ref().is_some_and(|peer| !waits(peer)))
    }

    /// The handover `later` can have begun because the move `earlier`, the other way, had ended.
    fn follows(&self, later: SlotState, earlier: SlotState) -> bool {
        later.since_ms >= earlier.since_ms.saturating_add(self.times.move_ms)
    }

    /// Another proxy moves items from `second` to `first` already.
    pub(super) fn moves_elsewhere(&self, first: BackendId, second: BackendId) -> bool {
        self.peers
            .iter()
            .flatten()
            .any(|peer| peer.slot.stage == Stage::Move2 && has_places(peer.slot, first, second))
    }

    /// Every other proxy refuses the slot or has left `failed`, for the same stand-in. One that
    /// reaches `failed` again does not agree, although it may refuse for a while yet.
    pub(super) fn peers_agree_to_leave(&self, slot: SlotState, failed: BackendId) -> bool {
        self.peers.iter().all(|peer| {
            let Some(peer) = peer else {
                return false;
            };
            let relies_on_copies = peer.slot.replica_in(ReplicaPhase::Full).is_some();
            let refuses = peer.slot.stage == Stage::Suspect
                && !relies_on_copies
                && has_places(peer.slot, slot.first, failed)
                && peer.has_lasted(self.times.of_refusal(peer.slot))
                && !peer.second_up;
            refuses || has_left(peer.slot, slot.first, failed)
        })
    }

    /// Every other proxy has gone on without `failed` for the lifetime of an item, too.
    pub(super) fn peers_have_left(&self, slot: SlotState, failed: BackendId) -> bool {
        self.peers.iter().all(|peer| {
            let Some(peer) = peer else {
                return false;
            };
            has_left(peer.slot, slot.first, failed)
                && (peer.slot.stage != Stage::Away || peer.has_lasted(self.times.lifetime_ms))
        })
    }

    /// The slot at another proxy that has gone on without `failed` after `after_ms`.
    pub(super) fn left_elsewhere(&self, failed: BackendId, after_ms: u64) -> Option<SlotState> {
        self.peers.iter().flatten().find_map(|peer| {
            let there = restored(peer.slot);
            let is_away = matches!(there.stage, Stage::Away | Stage::Back | Stage::Wait);
            let left = is_away && there.second == Some(failed) && there.since_ms >= after_ms;
            left.then_some(there)
        })
    }

    /// The stand-in for the failed place of `suspect` that another proxy has gone on with, or that
    /// it has to choose: not so if what is there may be outdated as this one sees it.
    pub(super) fn stand_in_elsewhere(
        &self,
        suspect: &SlotState,
        failed: BackendId,
    ) -> Option<BackendId> {
        self.peers.iter().flatten().find_map(|peer| {
            let PeerSlot { slot: there, .. } = peer;
            let stand_in = match there.stage {
                Stage::Suspect => {
                    let partner = self.partner(there);
                    partner.filter(|backend_id| !self.is_outdated(suspect, *backend_id))
                }
                stage => (!stage.is_handover()).then_some(there.first),
            };
            let is_for_it = there.second == Some(failed) && stand_in != Some(failed);
            stand_in.filter(|_| is_for_it)
        })
    }

    /// No other proxy went on without a place that is up again.
    pub(super) fn nobody_can_have_left(&self, slot: SlotState, up_since_ms: u64) -> bool {
        // Others go by what this proxy says only once it has refused for this long.
        let refused_ms = up_since_ms.saturating_sub(slot.since_ms);
        let is_short = refused_ms < self.times.of_refusal(slot);
        let all_say = self.peers.iter().all(Option::is_some);
        let is_settled = self.now_ms.saturating_sub(up_since_ms) >= self.times.settle_ms;
        self.peers.is_empty() || is_short || (all_say && is_settled)
    }

    /// No other proxy is still away from `returned`, nor has been until just now, nor serves it
    /// without the stand-in.
    pub(super) fn peers_know_of_return(&self, slot: SlotState, returned: BackendId) -> bool {
        self.peers.iter().all(|peer| {
            let Some(peer) = peer else {
                return false;
            };
            let there = &peer.slot;
            match there.stage {
                Stage::Suspect => false,
                Stage::Away => there.second != Some(returned),
                Stage::Back => peer.has_lasted(self.times.settle_ms),
                _ => there.first != returned || there.second == Some(slot.first),
            }
        })
    }
}

pub(super) fn has_places(slot: SlotState, first: BackendId, second: BackendId) -> bool {
    slot.first == first && slot.second == Some(second)
}

/// The slot `there` still waits for a server without which `here` has gone on with its replica.
fn is_behind(there: &SlotState, here: &SlotState) -> bool {
    let replica = there.replica.map(|replica| replica.backend_id);
    let mut failed = there.second.into_iter();
    there.stage == Stage::Suspect
        && replica == Some(here.first)
        && failed.any(|failed| here.outdated.contains(failed))
}

/// The slot is served by `stand_in` without `failed`.
fn has_left(slot: SlotState, stand_in: BackendId, failed: BackendId) -> bool {
    if has_places(slot, stand_in, failed) {
        return slot.stage == Stage::Away;
    }
    let without_failed = slot.first != failed && slot.second != Some(failed);
    // What is suspect there may become what it was before.
    slot.stage != Stage::Suspect
        && without_failed
        && (slot.first == stand_in || slot.second == Some(stand_in))
}
