//! Who keeps a copy of each item of a slot, and what becomes of the slot when one of its places fails.
//!
//! Two laws are behind every rule. A replica is relied on only if every proxy has copied all that it
//! wrote since the replica held nothing, and for a lifetime all that it found. And a proxy that has
//! called it anything but full while it refuses the slot never calls it full again, so that one
//! proxy cannot go on with the replica while another goes on without. `docs/replicas.md` gives the
//! reasons.

use super::super::{BackendId, Before, Replica, ReplicaPhase, SlotState, Stage};
use super::{PeerSlot, Surroundings, Times, restored};

impl Surroundings<'_> {
    /// At most one transition of the slot's replica.
    pub(super) fn replica(&self, slot: SlotState) -> SlotState {
        let Some(replica) = slot.replica else {
            return self.with_replica(slot);
        };
        if slot.stage == Stage::Suspect {
            return self.in_doubt(slot, replica);
        }
        let phase = match replica.phase {
            ReplicaPhase::Dropping => {
                return match self.may_be_relied_on_elsewhere(replica) {
                    true => slot,
                    false => self.without_replica(slot),
                };
            }
            ReplicaPhase::Full
                if self.is_lost(&slot, replica) || self.is_left_elsewhere(replica) =>
            {
                ReplicaPhase::Dropping
            }
            ReplicaPhase::Full => ReplicaPhase::Full,
            _ if self.is_lost(&slot, replica) || self.is_another_chosen(replica) => {
                match self.may_be_called_full(replica) {
                    true => ReplicaPhase::Dropping,
                    false => return self.without_replica(slot),
                }
            }
            ReplicaPhase::Chosen if self.all_know(slot, replica) => ReplicaPhase::Joining,
            ReplicaPhase::Chosen => ReplicaPhase::Chosen,
            ReplicaPhase::Joining if self.is_broken_off && self.all_copy(slot, replica) => {
                ReplicaPhase::Filling
            }
            ReplicaPhase::Joining => ReplicaPhase::Joining,
            ReplicaPhase::Filling if self.may_lack_some(slot, replica) => ReplicaPhase::Joining,
            ReplicaPhase::Filling if self.is_filled(replica) => ReplicaPhase::Full,
            ReplicaPhase::Filling => ReplicaPhase::Filling,
        };
        self.in_phase(slot, replica, phase)
    }

    /// The slot with a replica, if one is wanted and somebody is fit.
    fn with_replica(&self, slot: SlotState) -> SlotState {
        // A request from before may still look for items where copies are to be.
        let is_due = slot.stage == Stage::Steady
            && self.has_lasted(slot, self.times.overlap_ms)
            && !self.copies.candidates.is_empty()
            && self.is_up(slot.first)
            && self.peers.iter().all(Option::is_some);
        if !is_due {
            return slot;
        }
        let is_fit = |backend_id: BackendId| {
            backend_id != slot.first
                && backend_id != self.target
                && self.is_up(backend_id)
                && self.may_get(&slot, backend_id)
                && self.copies.keepers.contains(backend_id)
        };
        let peers = self.peers.iter().flatten();
        let elsewhere = peers
            .filter_map(|peer| peer.slot.replica)
            .min_by_key(|replica| replica.backend_id);
        let chosen = match elsewhere {
            Some(replica) => {
                Some(replica.backend_id).filter(|_| replica.phase < ReplicaPhase::Full)
            }
            None => {
                let mut fit = self.copies.candidates.iter().copied();
                fit.find(|backend_id| is_fit(*backend_id))
            }
        };
        let replica = chosen
            .filter(|backend_id| is_fit(*backend_id))
            .map(|backend_id| Replica {
                backend_id,
                phase: ReplicaPhase::Chosen,
                since_ms: self.now_ms,
            });
        SlotState { replica, ..slot }
    }

    /// The slot without its replica, whose copies are outdated from now on.
    pub(super) fn without_replica(&self, slot: SlotState) -> SlotState {
        let left = slot.replica.map(|replica| replica.backend_id);
        let is_left = |backend_id: &BackendId| slot.places().all(|place| place != *backend_id);
        SlotState {
            replica: None,
            outdated: slot.outdated.with(left.filter(is_left), self.now_ms),
            ..slot
        }
    }

    pub(super) fn in_phase(
        &self,
        slot: SlotState,
        replica: Replica,
        phase: ReplicaPhase,
    ) -> SlotState {
        if phase == replica.phase {
            return slot;
        }
        let replica = Some(Replica {
            phase,
            since_ms: self.now_ms,
            ..replica
        });
        SlotState { replica, ..slot }
    }

    /// A suspect slot may go on with its replica only if it is full for all. Who calls it full no
    /// more, stays with that. One that is filling may hold what a proxy wrote again without a copy
    /// before it began to copy, so nobody goes on with it.
    fn in_doubt(&self, slot: SlotState, replica: Replica) -> SlotState {
        let failed = slot.second;
        let mut peers = self.peers.iter().flatten();
        let is_kept_elsewhere = peers.all(|peer| {
            let there = peer.slot.replica.filter(|there| is_at(*there, replica));
            let may_be_full =
                |there: Replica| matches!(there.phase, ReplicaPhase::Filling | ReplicaPhase::Full);
            there.is_some_and(may_be_full)
                || failed.is_some_and(|failed| has_recovered(peer, &slot, replica, failed))
        });
        let is_full = match replica.phase {
            ReplicaPhase::Filling => self.is_filled(replica),
            phase => phase == ReplicaPhase::Full,
        };
        if self.is_true_alone(replica) && !self.is_lost(&slot, replica) {
            return slot;
        }
        if is_full && is_kept_elsewhere && !self.is_lost(&slot, replica) {
            return self.in_phase(slot, replica, ReplicaPhase::Full);
        }
        let dropping = self.in_phase(slot, replica, ReplicaPhase::Dropping);
        let outdated = match slot.outdated.contains(replica.backend_id) {
            true => slot.outdated,
            false => slot.outdated.with([replica.backend_id], self.now_ms),
        };
        SlotState {
            outdated,
            ..dropping
        }
    }

    /// It has missed something, or will miss what is written next, or is not to be the replica.
    fn is_lost(&self, slot: &SlotState, replica: Replica) -> bool {
        let backend_id = replica.backend_id;
        !self.is_up(backend_id)
            || !self.copies.keepers.contains(backend_id)
            || (slot.stage == Stage::Steady && self.target == backend_id)
            || restored(*slot).places().any(|place| place == backend_id)
    }

    /// No proxy takes it for anything but the replica.
    fn all_know(&self, slot: SlotState, replica: Replica) -> bool {
        slot.stage == Stage::Steady
            && self.peers.iter().all(|peer| {
                let there = peer.as_ref().and_then(|peer| peer.slot.replica);
                there.is_some_and(|there| {
                    is_at(there, replica) && there.phase < ReplicaPhase::Dropping
                })
            })
    }

    /// Every proxy copies what it writes, so that time counts.
    fn all_copy(&self, slot: SlotState, replica: Replica) -> bool {
        slot.stage == Stage::Steady
            && self.peers.iter().all(|peer| {
                let there = peer.as_ref().and_then(|peer| peer.slot.copied_to());
                there == Some(replica.backend_id)
            })
    }

    /// Another proxy has written something without a copy since all copied, or may have: the time
    /// counts anew. One that is silent goes on as it did. If it has dropped the replica meanwhile, it
    /// takes it for outdated for a lifetime, and says so, or began to copy again later than that.
    fn may_lack_some(&self, slot: SlotState, replica: Replica) -> bool {
        let lifetime_ms = self.times.lifetime_ms;
        let began_anew = |there: &Replica| {
            let began_ms = match there.phase {
                ReplicaPhase::Full => there.since_ms.saturating_sub(lifetime_ms),
                _ => there.since_ms,
            };
            began_ms >= replica.since_ms.saturating_add(lifetime_ms)
        };
        let mut heard = self.peers.iter().flatten();
        slot.stage != Stage::Steady
            || self.is_left_elsewhere(replica)
            || heard.any(|peer| peer.slot.replica.as_ref().is_some_and(began_anew))
    }

    /// Every item has been used since all copy, or has died.
    fn is_filled(&self, replica: Replica) -> bool {
        let lifetime_ms = self.times.lifetime_ms;
        let has_lasted =
            |since_ms: u64, now_ms: u64| now_ms.saturating_sub(since_ms) >= lifetime_ms;
        has_lasted(replica.since_ms, self.now_ms)
            && self.peers.iter().all(|peer| {
                let Some(peer) = peer else {
                    return false;
                };
                peer.slot.replica.is_some_and(|there| match there.phase {
                    ReplicaPhase::Full => true,
                    ReplicaPhase::Filling => has_lasted(there.since_ms, peer.heard_ms),
                    ReplicaPhase::Chosen | ReplicaPhase::Joining | ReplicaPhase::Dropping => false,
                })
            })
    }

    /// Another proxy writes without copying to it.
    fn is_left_elsewhere(&self, replica: Replica) -> bool {
        self.peers
            .iter()
            .flatten()
            .any(|peer| peer.slot.copied_to() != Some(replica.backend_id))
    }

    /// Another proxy has dropped it, or has chosen one that counts more.
    fn is_another_chosen(&self, replica: Replica) -> bool {
        self.peers.iter().flatten().any(|peer| {
            let is_dropped =
                |there: Replica| is_at(there, replica) && there.phase == ReplicaPhase::Dropping;
            let counts_more = |there: Replica| there.backend_id < replica.backend_id;
            let there = peer.slot.replica;
            there.is_some_and(|there| is_dropped(there) || counts_more(there))
                || self.was_left(&peer.slot, replica.backend_id, peer.heard_ms)
        })
    }

    /// No proxy keeps copies at `target`, nor does one that has been silent since it did.
    pub(super) fn nobody_copies_to(&self, target: BackendId) -> bool {
        let has_replicas = !self.copies.keepers.is_empty();
        self.peers.iter().all(|peer| match peer {
            Some(peer) => peer
                .slot
                .replica
                .is_none_or(|replica| replica.backend_id != target),
            None => !has_replicas,
        })
    }

    /// Another proxy stores anew from its copies what a place has lost, or may do so. One that is not
    /// heard has stopped that by itself once it has not heard this one for long enough. One that fills
    /// it may call it full by what it heard before this one dropped it.
    fn may_be_relied_on_elsewhere(&self, replica: Replica) -> bool {
        let certain_ms = replica.since_ms.saturating_add(self.times.silence_ms);
        self.peers.iter().any(|peer| {
            let Some(peer) = peer else {
                return self.now_ms < certain_ms;
            };
            let there = peer.slot.replica.filter(|there| is_at(*there, replica));
            there.is_some_and(|there| match there.phase {
                ReplicaPhase::Full => true,
                ReplicaPhase::Filling => peer.heard_ms < certain_ms,
                _ => false,
            })
        })
    }

    /// This or another proxy calls it full, or may do so by what it has heard.
    pub(super) fn may_be_called_full(&self, replica: Replica) -> bool {
        may_be_called_full(replica, self.peers, self.times, self.now_ms)
    }

    /// What a replica has that a proxy without peers is filling is true, as far as it goes: sessions
    /// that were used lately go on there, if their server fails, and the others begin anew.
    fn is_true_alone(&self, replica: Replica) -> bool {
        replica.phase == ReplicaPhase::Filling && self.peers.is_empty()
    }

    /// Who stands in for the only place of a suspect slot, because it has copies of its items.
    pub(super) fn copied_stand_in(&self, suspect: &SlotState) -> Option<BackendId> {
        let is_alone = restored(*suspect).second.is_none();
        let replica = suspect.replica.filter(|replica| {
            replica.phase == ReplicaPhase::Full || self.is_true_alone(*replica)
        })?;
        is_alone.then_some(replica.backend_id)
    }

    /// The suspect slot with its replica in place of the server that failed, once all proxies agree.
    pub(super) fn recovered(&self, slot: SlotState, failed: BackendId) -> Option<SlotState> {
        let replica = slot.replica?;
        let mut peers = self.peers.iter().flatten();
        let is_followed = peers.any(|peer| has_recovered(peer, &slot, replica, failed));
        if is_followed {
            return Some(self.with_copies(self.as_ended(slot, replica, failed), replica, failed));
        }
        let is_due = replica.phase == ReplicaPhase::Full
            && self.is_failed(failed)
            && self.has_lasted(slot, self.times.of_refusal(slot))
            && self.is_broken_off;
        if let Some(rested) = self.at_rest_as_elsewhere(slot, failed).filter(|_| is_due) {
            return Some(rested);
        }
        let may_go_on = is_due
            && self.is_certain(replica.backend_id)
            && !self.standing(replica.backend_id).holds_stale
            && (self.standing(failed).insisted || self.peers_agree_to_recover(replica, failed));
        may_go_on.then(|| self.with_copies(self.as_ended(slot, replica, failed), replica, failed))
    }

    fn peers_agree_to_recover(&self, replica: Replica, failed: BackendId) -> bool {
        self.peers.iter().all(|peer| {
            let Some(peer) = peer else {
                return false;
            };
            let there = &peer.slot;
            let lasted_ms = peer.heard_ms.saturating_sub(there.since_ms);
            let is_full = there.replica_in(ReplicaPhase::Full) == Some(replica.backend_id);
            let refuses = there.stage == Stage::Suspect
                && there.second == Some(failed)
                && lasted_ms >= self.times.of_refusal(*there)
                && !peer.second_up;
            is_full && refuses
        })
    }

    /// The slot at the other one of its places, if its handover has not moved anything yet, or if
    /// another proxy has ended it, so that all is moved. The replica keeps what it has: a request from
    /// before the handover may still be copying to it.
    fn at_rest_as_elsewhere(&self, slot: SlotState, failed: BackendId) -> Option<SlotState> {
        let before = restored(slot);
        let rests = |peer: &PeerSlot, at: BackendId| {
            peer.slot.stage == Stage::Steady && peer.slot.first == at
        };
        let settles = |peer: &PeerSlot| {
            peer.slot.second == Some(failed) && restored(peer.slot).stage == Stage::Settle
        };
        let mut peers = self.peers.iter();
        let (other, left, is_so) = match (before.stage, before.second?) {
            (Stage::Settle, second) if second != failed => {
                let waits = |peer: &PeerSlot| rests(peer, second) || settles(peer);
                let all_wait = peers.all(|peer| peer.as_ref().is_some_and(waits));
                (second, None, all_wait)
            }
            (Stage::Move2, second) if second == failed => {
                let mut peers = peers.flatten();
                let has_ended = peers.any(|peer| rests(peer, before.first));
                (before.first, Some(failed), has_ended)
            }
            _ => return None,
        };
        is_so.then(|| {
            let outdated = slot.outdated.with(left, self.now_ms);
            self.at_rest(SlotState { outdated, ..slot }, other)
        })
    }

    /// A handover that another proxy has ended is over: its old owner has nothing any more.
    fn as_ended(&self, slot: SlotState, replica: Replica, failed: BackendId) -> SlotState {
        let is_ended = slot.before.is_some_and(|before| {
            before.stage == Stage::Move2
                && before.first == failed
                && self.peers.iter().flatten().any(|peer| {
                    let there = restored(peer.slot);
                    // It rests there, or is about to move on from there.
                    let has_moved = there.second.is_none() || there.stage == Stage::Settle;
                    let new_owner = there.second.unwrap_or(there.first);
                    let is_at_replica = has_recovered(peer, &slot, replica, failed)
                        && new_owner == replica.backend_id;
                    has_moved && (new_owner == failed || is_at_replica)
                })
        });
        let before = slot.before.map(|before| Before {
            second: before.second.filter(|_| !is_ended),
            stage: if is_ended {
                Stage::Steady
            } else {
                before.stage
            },
            ..before
        });
        SlotState { before, ..slot }
    }

    /// The replica takes the place of the server that failed. In a handover whose new owner failed it
    /// becomes the second place: what has not moved is locked at the old owner, and what has moved
    /// comes back from the replica.
    fn with_copies(&self, suspect: SlotState, replica: Replica, failed: BackendId) -> SlotState {
        let before = restored(suspect);
        let copies = replica.backend_id;
        let (first, second, stage) = match before.second {
            None => (copies, None, Stage::Steady),
            Some(second) if second == failed => (before.first, Some(copies), before.stage),
            Some(second) => (second, Some(copies), Stage::Move2),
        };
        SlotState {
            first,
            second,
            stage,
            since_ms: self.now_ms,
            before: None,
            outdated: suspect
                .outdated
                .without(copies)
                .without(first)
                .with([failed], self.now_ms),
            replica: None,
        }
    }
}

/// The slot once its replica has missed something. If another proxy may call it full, that one is waited
/// for. So it is if the replica is being dropped: what was missed may have ended behind the failure of
/// its server, by which it is dropped already.
#[must_use]
pub fn missed(
    slot: SlotState,
    peers: &[Option<PeerSlot>],
    times: &Times,
    now_ms: u64,
) -> SlotState {
    let Some(replica) = slot.replica else {
        return slot;
    };
    let dropping = Replica {
        phase: ReplicaPhase::Dropping,
        since_ms: now_ms,
        ..replica
    };
    let is_waited_for =
        slot.stage == Stage::Suspect || may_be_called_full(replica, peers, times, now_ms);
    let left = match replica.phase {
        ReplicaPhase::Dropping => Some(replica),
        _ => is_waited_for.then_some(dropping),
    };
    SlotState {
        replica: left,
        outdated: slot.outdated.with([replica.backend_id], now_ms),
        ..slot
    }
}

/// Whether a replica may be full for this or another proxy, also if it is filled anew here: another one
/// may have called it full before. One that is silent may, too, and one that has filled it for a
/// lifetime by the time at which it hears of what happens now.
fn may_be_called_full(
    replica: Replica,
    peers: &[Option<PeerSlot>],
    times: &Times,
    now_ms: u64,
) -> bool {
    let is_filled = |filling: Replica, at_ms: u64| {
        let lasted_ms = at_ms.saturating_sub(filling.since_ms);
        filling.phase == ReplicaPhase::Filling && lasted_ms >= times.lifetime_ms
    };
    let may_be_full_at = |peer: &Option<PeerSlot>| {
        let Some(peer) = peer else {
            return true;
        };
        let there = peer.slot.replica.filter(|there| is_at(*there, replica));
        let known_ms = now_ms.saturating_add(times.silence_ms);
        there.is_some_and(|there| there.phase == ReplicaPhase::Full || is_filled(there, known_ms))
    };
    match replica.phase {
        // Nothing has been copied to it since another proxy can have called it full.
        ReplicaPhase::Chosen => false,
        ReplicaPhase::Joining | ReplicaPhase::Filling => {
            is_filled(replica, now_ms) || peers.iter().any(may_be_full_at)
        }
        ReplicaPhase::Full | ReplicaPhase::Dropping => true,
    }
}

fn is_at(one: Replica, other: Replica) -> bool {
    one.backend_id == other.backend_id
}

/// Another proxy has gone on with the replica in place of the server that failed, since `suspect` is
/// refused here; meanwhile another place may have failed. What it has left before, it has left for
/// another reason.
fn has_recovered(
    peer: &PeerSlot,
    suspect: &SlotState,
    replica: Replica,
    failed: BackendId,
) -> bool {
    let there = &peer.slot;
    let served = restored(*there);
    let mut places = served.places();
    there.outdated.contains(failed)
        && there.outdated.since_ms() >= suspect.since_ms
        && served.places().all(|place| place != failed)
        && places.any(|place| place == replica.backend_id)
}

#[cfg(test)]
mod tests;
