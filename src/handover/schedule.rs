//! When a slot goes from one stage to the next. `docs/handover.md` section 3 gives the reasons.
//!
//! Two laws are behind every rule. A stage lasts longer than the lag between proxies plus the
//! longest operation, and no proxy leaves one before all others have been in it that long, so that
//! two proxies are never two stages apart. And whoever does not know what another proxy does
//! stays where it is: refusing is safe, going on is not.

mod peers;

use super::{Before, Place, SlotState, Stage};

pub use peers::PeerSlot;

/// What counts for one slot at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where the newest placement wants the slot.
    pub target: Place,
    /// Who would stand in for the slot's place that is down: the next candidate that is up.
    pub stand_in: Option<Place>,
    /// How the backends are.
    pub standings: &'a Standings,
    /// The same slot at every other proxy, `None` for one that does not say; empty for a proxy
    /// that is alone.
    pub peers: &'a [Option<PeerSlot>],
    /// How long things last.
    pub times: &'a Times,
    /// Unix time in milliseconds, never decreasing.
    pub now_ms: u64,
}

/// How long the stages last, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Longer than the lag between proxies, the longest operation, and the pair of a 404 and the
    /// creation that follows it.
    pub settle_ms: u64,
    /// After this long an item that nobody has touched is gone.
    pub lifetime_ms: u64,
    /// How long a backend is down before its slots go to the next.
    pub failover_after_ms: u64,
    /// The longest operation.
    pub overlap_ms: u64,
    /// Whether slots of a failed backend go to another one at all.
    pub failover: bool,
}

/// How a backend is, as this proxy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The operator has given it up: what it holds is lost.
    pub gone: bool,
    /// Since when it has been up, Unix time in milliseconds; `None` while it is down.
    pub up_since_ms: Option<u64>,
    /// It holds items that must never be served: removals that it missed have not been replayed
    /// yet, or it was given up with items that have not died yet.
    pub owed: bool,
}

/// The standing of every place; a place nobody has told of is gone.
#[derive(Debug, Clone)]
pub struct Standings([Standing; 128]);

/// Enough for the longest way that takes no time.
const MAX_STEPS: usize = 16;

/// The state of a slot now, given what it was: the same for whoever asks, as often as they ask.
#[must_use]
pub fn advance(slot: SlotState, around: &Surroundings<'_>) -> SlotState {
    let mut slot = slot;
    for _ in 0..MAX_STEPS {
        let next = around.step(slot);
        if next == slot {
            break;
        }
        slot = next;
    }
    slot
}

impl Standing {
    /// A backend that serves, and has done so since then.
    #[must_use]
    pub const fn up(since_ms: u64) -> Self {
        Self {
            gone: false,
            up_since_ms: Some(since_ms),
            owed: false,
        }
    }

    /// A backend that does not answer.
    #[must_use]
    pub const fn down() -> Self {
        Self {
            gone: false,
            up_since_ms: None,
            owed: false,
        }
    }

    /// A backend that the operator has given up.
    #[must_use]
    pub const fn gone() -> Self {
        Self {
            gone: true,
            up_since_ms: None,
            owed: false,
        }
    }
}

impl Standings {
    /// Standings in which every place is gone.
    #[must_use]
    pub const fn new() -> Self {
        Self([Standing::gone(); 128])
    }

    /// Notes how the backend at `place` is.
    pub fn set(&mut self, place: Place, standing: Standing) {
        self.0[usize::from(place.id())] = standing;
    }

    /// How the backend at `place` is.
    #[must_use]
    pub fn get(&self, place: Place) -> Standing {
        self.0[usize::from(place.id())]
    }
}

impl Default for Standings {
    fn default() -> Self {
        Self::new()
    }
}

impl Times {
    /// How long a proxy is at least in this stage of a handover.
    fn of_handover(&self, stage: Stage) -> u64 {
        match stage {
            Stage::Move1 => 2 * self.settle_ms,
            Stage::Move2 => self.lifetime_ms,
            _ => self.settle_ms,
        }
    }
}

impl Surroundings<'_> {
    /// At most one transition.
    fn step(&self, slot: SlotState) -> SlotState {
        let Some(second) = slot.second else {
            return self.steady(slot);
        };
        match slot.stage {
            Stage::Steady => self.steady(slot),
            Stage::Settle | Stage::Move1 | Stage::Move2 => self.handover(slot, second),
            Stage::Suspect => self.suspect(slot, second),
            Stage::Away => self.away(slot, second),
            Stage::Back | Stage::Wait => self.returning(slot, second),
        }
    }

    fn steady(&self, slot: SlotState) -> SlotState {
        let (place, target) = (slot.first, self.target);
        if self.standing(place).gone && target != place {
            return SlotState::steady(target, self.now_ms);
        }
        if self.is_down(place)
            && self.times.failover
            && let Some(stand_in) = self.stand_in
            && stand_in != place
        {
            return SlotState {
                first: stand_in,
                second: Some(place),
                ..self.suspicion(slot, true)
            };
        }
        if let Some(under_way) = self.forgotten(place) {
            return under_way;
        }
        if target != place && self.is_up(target) && !self.standing(target).owed {
            return self.pair(target, place, Stage::Settle);
        }
        slot
    }

    fn handover(&self, slot: SlotState, second: Place) -> SlotState {
        if let Some(changed) = self.without_failed(slot, second) {
            return changed;
        }
        if slot.stage == Stage::Settle && self.is_refused_elsewhere(slot, second) {
            // Both places may have items: the second may have stood in for the first.
            return self.pair(second, slot.first, Stage::Wait);
        }
        let long_enough =
            self.has_lasted(slot, self.times.of_handover(slot.stage)) && self.peers_follow(slot);
        match slot.stage {
            _ if !long_enough => slot,
            Stage::Move2 => SlotState::steady(slot.first, self.now_ms),
            _ if !self.is_up(slot.first) => slot,
            Stage::Move1 => self.pair(slot.first, second, Stage::Move2),
            _ => self.pair(slot.first, second, Stage::Move1),
        }
    }

    fn suspect(&self, slot: SlotState, failed: Place) -> SlotState {
        let before = restored(slot);
        if self.standing(failed).gone {
            // Nothing has been done at a stand-in yet.
            return match before.stage {
                Stage::Steady => before,
                _ => SlotState::steady(slot.first, self.now_ms),
            };
        }
        if let Some(up_since_ms) = self.standing(failed).up_since_ms {
            if let Some(stand_in) = self.left_elsewhere(failed, slot.since_ms) {
                return self.pair(stand_in, failed, Stage::Back);
            }
            return if self.nobody_can_have_left(slot, up_since_ms) {
                before
            } else {
                slot
            };
        }
        // For the same reason the stand-in may still be another one.
        if before.stage == Stage::Steady
            && let Some(stand_in) = self
                .stand_in_elsewhere(failed)
                .or(self.stand_in)
                .filter(|stand_in| *stand_in != failed && *stand_in != slot.first)
        {
            return SlotState {
                first: stand_in,
                ..slot
            };
        }
        if self.standing(slot.first).gone {
            return SlotState::steady(failed, self.now_ms);
        }
        let refused_ms = self.times.failover_after_ms.max(self.times.overlap_ms);
        if self.times.failover
            && self.has_lasted(slot, refused_ms)
            && self.is_up(slot.first)
            && !self.standing(slot.first).owed
            && self.peers_agree_to_leave(slot, failed)
        {
            return self.pair(slot.first, failed, Stage::Away);
        }
        slot
    }

    fn away(&self, slot: SlotState, failed: Place) -> SlotState {
        if let Some(left) = self.without_gone(slot, failed) {
            return left;
        }
        if self.is_up(failed) {
            return self.pair(slot.first, failed, Stage::Back);
        }
        // What the failed server holds has died meanwhile. If it returns, it gets the slot by an
        // ordinary handover.
        if self.has_lasted(slot, self.times.lifetime_ms) && self.peers_have_left(slot, failed) {
            return SlotState::steady(slot.first, self.now_ms);
        }
        slot
    }

    fn returning(&self, slot: SlotState, returned: Place) -> SlotState {
        if let Some(changed) = self.without_failed(slot, returned) {
            return changed;
        }
        if !self.is_up(slot.first) || !self.is_up(returned) {
            return slot;
        }
        let goes_home = self.target == returned;
        if slot.stage == Stage::Wait {
            if self.moves_elsewhere(slot.first, returned) {
                return self.pair(slot.first, returned, Stage::Move2);
            }
            let all_say = self.peers.iter().all(Option::is_some);
            let long_enough = self.has_lasted(slot, self.times.lifetime_ms) && all_say;
            return match (long_enough, goes_home) {
                (false, _) => slot,
                (true, true) => self.pair(returned, slot.first, Stage::Settle),
                (true, false) => self.pair(slot.first, returned, Stage::Move2),
            };
        }
        let alone = self.peers.is_empty();
        let known_ms = if alone {
            self.times.overlap_ms
        } else {
            self.times.settle_ms
        };
        if !self.has_lasted(slot, known_ms)
            || self.standing(returned).owed
            || !self.peers_know_of_return(returned)
        {
            return slot;
        }
        let next = if goes_home { Stage::Wait } else { Stage::Move2 };
        self.pair(slot.first, returned, next)
    }

    /// The slot without a place that is gone, or suspect because one is down.
    fn without_failed(&self, slot: SlotState, second: Place) -> Option<SlotState> {
        if let Some(left) = self.without_gone(slot, second) {
            return Some(left);
        }
        if !self.times.failover {
            return None;
        }
        // In a return the second is the one that has failed already.
        if slot.stage.is_handover() && self.is_down(slot.first) {
            return Some(swapped(self.suspicion(slot, true)));
        }
        if self.is_down(second) {
            return Some(self.suspicion(slot, false));
        }
        self.is_down(slot.first)
            .then(|| swapped(self.suspicion(slot, true)))
    }

    fn without_gone(&self, slot: SlotState, second: Place) -> Option<SlotState> {
        if self.standing(slot.first).gone {
            return Some(SlotState::steady(second, self.now_ms));
        }
        self.standing(second)
            .gone
            .then(|| SlotState::steady(slot.first, self.now_ms))
    }

    /// The slot as suspect, its places unchanged.
    fn suspicion(&self, slot: SlotState, swapped: bool) -> SlotState {
        SlotState {
            stage: Stage::Suspect,
            since_ms: self.now_ms,
            before: Some(Before {
                stage: slot.stage,
                since_ms: slot.since_ms,
                swapped,
            }),
            ..slot
        }
    }

    /// Two places in a stage that begins now.
    fn pair(&self, first: Place, second: Place, stage: Stage) -> SlotState {
        SlotState {
            first,
            second: Some(second),
            stage,
            since_ms: self.now_ms,
            before: None,
        }
    }

    fn has_lasted(&self, slot: SlotState, min_ms: u64) -> bool {
        self.now_ms.saturating_sub(slot.since_ms) >= min_ms
    }

    fn is_up(&self, place: Place) -> bool {
        self.standing(place).up_since_ms.is_some()
    }

    fn is_down(&self, place: Place) -> bool {
        !self.is_up(place)
    }

    fn standing(&self, place: Place) -> Standing {
        self.standings.get(place)
    }
}

/// The slot with its places exchanged.
fn swapped(slot: SlotState) -> SlotState {
    match slot.second {
        Some(second) => SlotState {
            first: second,
            second: Some(slot.first),
            ..slot
        },
        None => slot,
    }
}

/// What a suspect slot was before; any other slot as it is.
fn restored(slot: SlotState) -> SlotState {
    let (Some(before), Some(failed)) = (slot.before, slot.second) else {
        return slot;
    };
    if before.stage == Stage::Steady {
        return SlotState::steady(failed, before.since_ms);
    }
    let restored = SlotState {
        stage: before.stage,
        since_ms: before.since_ms,
        before: None,
        ..slot
    };
    if before.swapped {
        swapped(restored)
    } else {
        restored
    }
}

#[cfg(test)]
mod several_proxies;
#[cfg(test)]
mod tests;
