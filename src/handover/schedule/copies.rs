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
}

impl Copies {
    pub(super) fn new(item_ms: u64) -> Self {
        Self {
            item_ms,
            alive_until: [0; END],
            outdated_until: [[0; END]; END],
        }
    }

    pub(super) fn are_at(&self, place: Place, now: u64) -> bool {
        self.alive_until[index(place)] > now
    }

    /// Clients create and use sessions wherever a proxy in this state lets them.
    pub(super) fn serve(&mut self, slot: &SlotState, now: u64) {
        let until = now + self.item_ms;
        if let Some(place) = creates_at(slot) {
            self.begin_anew(slot, index(place), now);
            self.alive_until[index(place)] = until;
        }
        for place in serves(slot) {
            let moves = matches!(slot.stage, Stage::Move1 | Stage::Move2);
            let at = if moves && Some(place) == slot.second {
                self.go_on_at(index(slot.first), index(place));
                slot.first
            } else {
                place
            };
            if self.are_at(place, now) {
                self.alive_until[index(at)] = until;
            }
        }
    }

    /// Sessions that this proxy does not find are begun anew.
    fn begin_anew(&mut self, slot: &SlotState, at: usize, now: u64) {
        let unseen = (1..END).filter(|id| !sees(slot, place(*id as u8)));
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
        for place in serves(slot) {
            let outdated_until = self.outdated_until[index(place)];
            for (by, until) in outdated_until.into_iter().enumerate() {
                let is_hidden = by == index(slot.first) || by == index(place);
                prop_assert!(
                    is_hidden || until <= now,
                    "at {now}: {slot:?} serves items of {place:?} that went on at {by}"
                );
            }
        }
        Ok(())
    }
}

pub(super) fn place(id: u8) -> Place {
    Place::new(id).unwrap()
}

fn index(place: Place) -> usize {
    usize::from(place.id())
}

pub(super) fn creates_at(slot: &SlotState) -> Option<Place> {
    match slot.stage {
        Stage::Suspect => None,
        Stage::Settle | Stage::Move1 => slot.second,
        Stage::Steady | Stage::Move2 | Stage::Away | Stage::Back | Stage::Wait => Some(slot.first),
    }
}

pub(super) fn serves(slot: &SlotState) -> impl Iterator<Item = Place> + use<> {
    let stage = slot.stage;
    let first = (stage != Stage::Suspect).then_some(slot.first);
    let second = slot
        .second
        .filter(|_| !matches!(stage, Stage::Suspect | Stage::Away | Stage::Back));
    first.into_iter().chain(second)
}

/// Whether a session whose items are at `place` is found, or refused.
pub(super) fn sees(slot: &SlotState, place: Place) -> bool {
    slot.first == place || (slot.stage != Stage::Away && slot.second == Some(place))
}
