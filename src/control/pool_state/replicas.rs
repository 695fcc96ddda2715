//! Who may keep copies of whose sessions, and what replicas have missed.

use std::sync::Arc;

use super::{PeerView, PoolState};
use crate::config::{BackendState, PEER_SILENCE};
use crate::handover::schedule::missed;
use crate::handover::{BackendId, BackendMap, Places, ReplicaPhase};
use crate::route::Slot;

/// So long after what it last heard of the others a proxy stores anew from a copy: what it sends then
/// arrives before another one does without the replica.
const RESTORES_MS: u64 = PEER_SILENCE.as_millis() as u64 - 1000;

impl PoolState {
    /// The replicas of these slots have missed something.
    pub fn copies_missed(&mut self, slots: &[Slot], now_ms: u64) {
        let times = self.times();
        let mut peers = vec![None; self.peers.len()];
        for slot in slots {
            let Some(index) = self.scope.position(*slot) else {
                continue;
            };
            let before = self.slots[index];
            self.look_at_peers(before, index, &mut peers);
            let after = missed(before, &peers, &times, now_ms);
            if after != before {
                Arc::make_mut(&mut self.slots)[index] = after;
            }
        }
    }

    /// Until when no other proxy can have dropped a replica that this one calls full, Unix time in
    /// milliseconds: each waits [`PEER_SILENCE`] for a proxy that it does not hear. `None` for a proxy
    /// alone, which knows.
    ///
    /// What was heard counts once the slots have gone by it: it may say that a replica is dropped.
    pub fn restores_until_ms(&self) -> Option<u64> {
        (!self.peers.is_empty()).then(|| self.went_by_ms + RESTORES_MS)
    }

    /// Since when all peers have been heard; 0 if one is not.
    pub(super) fn heard_all_ms(&self) -> u64 {
        let heard_ms = |peer: &Option<Arc<PeerView>>| peer.as_ref().map_or(0, |peer| peer.heard_ms);
        self.peers.iter().map(heard_ms).min().unwrap_or(0)
    }

    /// What the peers said at this time or later the slots have gone by; 0 if one was not heard.
    pub const fn went_by_ms(&self) -> u64 {
        self.went_by_ms
    }

    /// Whether no session of this slot would be lost with a backend: every proxy that is heard calls
    /// the same replica full.
    pub fn is_protected(&self, slot: Slot) -> bool {
        let index = self.scope.position(slot);
        index.is_some_and(|index| self.is_protected_at(index))
    }

    fn is_protected_at(&self, index: usize) -> bool {
        let full = self.slots[index].replica_in(ReplicaPhase::Full);
        let is_full_there = |peer: &Arc<PeerView>| {
            let there = peer.slots.get(index);
            there.and_then(|there| there.replica_in(ReplicaPhase::Full)) == full
        };
        full.is_some() && self.peers.iter().flatten().all(is_full_there)
    }

    /// Whether no session of this backend would be lost with it.
    pub fn is_copied(&self, backend_id: BackendId) -> bool {
        let mut slots = self.slots.iter().enumerate();
        slots.all(|(index, state)| {
            let is_served = state.places().any(|place| place == backend_id);
            !is_served || self.is_protected_at(index)
        })
    }

    /// The slots whose replica this backend is.
    pub fn copied_to(&self, backend_id: BackendId) -> Vec<Slot> {
        let slots = self.scope().zip(self.slots.iter());
        let kept = slots.filter(|(_, state)| {
            let replica = state.replica.map(|replica| replica.backend_id);
            replica == Some(backend_id)
        });
        kept.map(|(slot, _)| slot).collect()
    }

    /// Until when at the latest slots that a backend has left or kept copies of have no other copies;
    /// `None` for one whose copies are replaced, or that has kept none.
    pub fn missed_until_ms(&self) -> BackendMap<Option<u64>> {
        let mut until_ms = BackendMap::filled(None);
        if self.map.replicas == 0 {
            return until_ms;
        }
        let lifetime_ms = self.times().lifetime_ms;
        for (index, state) in self.slots.iter().enumerate() {
            if state.outdated.is_empty() || self.is_protected_at(index) {
                continue;
            }
            let end_ms = state.outdated.since_ms() + lifetime_ms;
            for backend_id in state.outdated.places() {
                until_ms[backend_id] = until_ms[backend_id].max(Some(end_ms));
            }
        }
        until_ms
    }

    /// The backends that may go on as replicas: those that are to keep sessions.
    pub(super) fn keepers(&self) -> Places {
        if self.map.replicas == 0 {
            return Places::NONE;
        }
        let members = self.members.iter().filter(|member| {
            let is_active = member.in_map && member.spec.state == BackendState::Active;
            is_active && !self.is_left(member) && !self.is_given_up(member)
        });
        members.map(|member| member.backend_id).collect()
    }

    /// The backends that may become the replica of a slot, the one to prefer first. Not the one that
    /// the slot goes to when its owner leaves, if there is another: the target of a handover must
    /// hold no copies.
    pub(super) fn look_for_replicas(
        &self,
        slot: Slot,
        fit: &BackendMap<bool>,
        keepers: Places,
        out: &mut Vec<BackendId>,
    ) {
        out.clear();
        if self.map.replicas == 0 {
            return;
        }
        let heir = self.candidates(slot).nth(1);
        let others = self
            .candidates(slot)
            .skip(2)
            .chain(self.candidates(slot).take(1));
        let all = others.chain(heir);
        out.extend(all.filter(|backend_id| fit[*backend_id] && keepers.contains(*backend_id)));
    }
}
