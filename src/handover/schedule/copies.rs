//! What may lie where and how old it may be: the worst that requests can do to one slot.

use proptest::prelude::*;

use super::*;

/// Places are 1 to this.
pub(super) const PLACES: u8 = 4;
const END: usize = PLACES as usize + 1;

/// The items of a slot at all places.
pub(super) struct Copies {
    /// How long an item lives that nobody uses.
    item_ms: u64,
    /// Until when something may live at each place.
    alive_until: [u64; END],
    /// Until when each place may hold items whose sessions have gone on at each other place.
    outdated_until: [[u64; END]; END],
    /// Until when there may be items that each place does not have as they were written last.
    lacking_until: [u64; END],
}

impl Copies {
    pub(super) fn new(item_ms: u64) -> Self {
        Self {
            item_ms,
            alive_until: [0; END],
            outdated_until: [[0; END]; END],
            lacking_until: [0; END],
        }
    }

    pub(super) fn are_at(&self, backend_id: BackendId, now: u64) -> bool {
        self.alive_until[index(backend_id)] > now
    }

    /// A copy for the replica has come to nothing.
    pub(super) fn miss(&mut self, backend_id: BackendId, now: u64) {
        self.lacking_until[index(backend_id)] = now + self.item_ms;
    }

    /// The replica has every item as it was written last.
    pub(super) fn check_whole(&self, backend_id: BackendId, now: u64) -> Result<(), TestCaseError> {
        let until = self.lacking_until[index(backend_id)];
        prop_assert!(
            until <= now,
            "at {now}: {backend_id:?} is gone on with and lacks items until {until}"
        );
        Ok(())
    }

    /// What is written and found in this state is copied, or not.
    fn copy(&mut self, slot: &SlotState, now: u64) {
        let until = now + self.item_ms;
        for id in (1..END).filter(|id| serves(slot).all(|place| index(place) != *id)) {
            let replica = slot
                .replica
                .filter(|it| index(it.backend_id) == id && it.phase != ReplicaPhase::Chosen);
            let lacks = self.lacking_until[id] > now;
            let lasts = match replica.map(|replica| replica.phase) {
                // Written without a copy.
                None => true,
                // Found without one, and used.
                Some(ReplicaPhase::Filling) => lacks && slot.stage != Stage::Steady,
                Some(_) => lacks,
            };
            if lasts {
                self.lacking_until[id] = until;
            }
            let phase = replica.map(|replica| replica.phase);
            if phase.is_some_and(ReplicaPhase::is_copied) {
                self.alive_until[id] = until;
            }
            if phase == Some(ReplicaPhase::Full) {
                // Whatever it has is kept alive.
                let outdated = self.outdated_until[id].iter_mut();
                outdated
                    .filter(|until| **until > now)
                    .for_each(|it| *it = until);
            }
        }
    }

    /// Clients create and use sessions wherever a proxy in this state lets them.
    pub(super) fn serve(&mut self, slot: &SlotState, now: u64) {
        let until = now + self.item_ms;
        if slot.stage != Stage::Suspect {
            self.copy(slot, now);
        }
        if let Some(backend_id) = creates_at(slot) {
            self.begin_anew(slot, index(backend_id), now);
            self.alive_until[index(backend_id)] = until;
        }
        for backend_id in serves(slot) {
            let moves = matches!(slot.stage, Stage::Move1 | Stage::Move2);
            let at = if moves && Some(backend_id) == slot.second {
                self.go_on_at(index(slot.first), index(backend_id));
                slot.first
            } else {
                backend_id
            };
            if self.are_at(backend_id, now) {
                self.alive_until[index(at)] = until;
            }
        }
    }

    /// Sessions that this proxy does not find are begun anew.
    fn begin_anew(&mut self, slot: &SlotState, at: usize, now: u64) {
        let copies = slot
            .replica
            .filter(|replica| replica.phase != ReplicaPhase::Chosen)
            .map(|replica| replica.backend_id);
        let unseen = (1..END).filter(|id| {
            let place = backend_id(*id as u8);
            !sees(slot, place) && copies != Some(place)
        });
        for unseen in unseen.filter(|unseen| self.alive_until[*unseen] > now) {
            let until = &mut self.outdated_until[unseen][at];
            *until = (*until).max(self.alive_until[unseen]);
        }
    }

    fn go_on_at(&mut self, first: usize, second: usize) {
        for by in &mut self.outdated_until {
            by[first] = by[first].max(by[second]);
        }
    }

    /// No proxy in this state serves what is outdated.
    pub(super) fn check(&self, slot: &SlotState, now: u64) -> Result<(), TestCaseError> {
        for backend_id in serves(slot) {
            let outdated_until = self.outdated_until[index(backend_id)];
            for (by, until) in outdated_until.into_iter().enumerate() {
                let is_hidden = by == index(slot.first) || by == index(backend_id);
                prop_assert!(
                    is_hidden || until <= now,
                    "at {now}: {slot:?} serves items of {backend_id:?} that went on at {by}"
                );
            }
        }
        Ok(())
    }
}

pub(super) fn backend_id(id: u8) -> BackendId {
    BackendId::new(id).unwrap()
}

fn index(backend_id: BackendId) -> usize {
    usize::from(backend_id.id())
}

pub(super) fn creates_at(slot: &SlotState) -> Option<BackendId> {
    match slot.stage {
        Stage::Suspect => None,
        Stage::Settle | Stage::Move1 => slot.second,
        Stage::Steady | Stage::Move2 | Stage::Turned | Stage::Away | Stage::Back | Stage::Wait => {
            Some(slot.first)
        }
    }
}

pub(super) fn serves(slot: &SlotState) -> impl Iterator<Item = BackendId> + use<> {
    let stage = slot.stage;
    let first = (stage != Stage::Suspect).then_some(slot.first);
    let second = slot
        .second
        .filter(|_| !matches!(stage, Stage::Suspect | Stage::Away | Stage::Back));
    first.into_iter().chain(second)
}

/// Whether a session whose items are at `place` is found, or refused.
pub(super) fn sees(slot: &SlotState, backend_id: BackendId) -> bool {
    slot.first == backend_id || (slot.stage != Stage::Away && slot.second == Some(backend_id))
}
