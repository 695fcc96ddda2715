//! When a slot goes from one stage to the next. `docs/handover.md` section 3 gives the reasons.
//!
//! Two laws are behind every rule. A stage lasts longer than the lag between proxies plus the
//! longest operation, and no proxy leaves one before all others have been in it that long, so that
//! two proxies are never two stages apart. And whoever does not know what another proxy does
//! stays where it is: refusing is safe, going on is not.

mod give_up;
mod peers;
mod replica;
mod stand_in;
mod turn;

use super::{BackendId, BackendMap, Outdated, Places, ReplicaPhase, SlotState, Stage};

pub use peers::{Joined, PeerSlot};
pub use replica::missed;

/// What counts for one slot at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where the newest placement wants the slot.
    pub target: BackendId,
    /// Who may stand in for a place that is down: the slot's candidates that are up, the next one
    /// first.
    pub stand_ins: &'a [BackendId],
    /// Where copies of the slot's items may be kept.
    pub copies: CopyPlaces<'a>,
    /// How the backends are.
    pub standings: &'a Standings,
    /// The same slot at every other proxy, `None` for one that does not say; empty for a proxy
    /// that is alone.
    pub peers: &'a [Option<PeerSlot>],
    /// How long things last.
    pub times: &'a Times,
    /// When this proxy last saw that a session could not be moved from the slot's second place to
    /// its first, Unix time in milliseconds.
    pub move_failed_ms: Option<u64>,
    /// Whether nothing that was sent to a server which is down is waited for any more: the data path
    /// goes by all that is in force.
    pub is_broken_off: bool,
    /// Unix time in milliseconds, never decreasing.
    pub now_ms: u64,
}

/// Where copies of a slot's items may be kept.
#[derive(Debug, Clone, Copy)]
pub struct CopyPlaces<'a> {
    /// Who may become the slot's replica, the one to prefer first; empty if none is wanted.
    pub candidates: &'a [BackendId],
    /// Who may go on as a replica.
    pub keepers: Places,
}

impl CopyPlaces<'_> {
    /// Nobody keeps copies.
    pub const NONE: Self = Self {
        candidates: &[],
        keepers: Places::NONE,
    };
}

/// How long the stages last, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Longer than the lag between proxies, the longest operation, and the pair of a 404 and the
    /// creation that follows it.
    pub settle_ms: u64,
    /// How long items have to move: at most `lifetime_ms`. What nobody uses for so long may stay
    /// behind and be lost.
    pub move_ms: u64,
    /// After this long an item that nobody has touched is gone.
    pub lifetime_ms: u64,
    /// How long a backend is down before its slots go to the next.
    pub failover_after_ms: u64,
    /// The longest operation.
    pub overlap_ms: u64,
    /// Whoever has not been heard by another proxy for so long does nothing any more that this one
    /// could contradict.
    pub silence_ms: u64,
    /// Whether slots of a failed backend go to another one at all.
    pub failover: bool,
}

/// How a backend is, as this proxy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The operator has given it up: what it holds is lost.
    pub gone: bool,
    /// The operator has said that no other proxy serves from it any more, whatever they say.
    pub insisted: bool,
    /// Since when it has been up, Unix time in milliseconds; `None` while it is down.
    pub up_since_ms: Option<u64>,
    /// It is up, and whatever was asked of it since has failed: whether it is down, is about to be
    /// certain, and no slot goes on there before.
    pub is_doubted: bool,
    /// It holds items that must never be served: removals that it missed have not been replayed
    /// yet, or it was given up with items that have not died yet.
    pub holds_stale: bool,
    /// It has not answered since it joined the pool: no handover to it begins before it does.
    pub is_new: bool,
    /// It is to be left: a handover to it that has moved nothing yet is called off.
    pub is_leaving: bool,
}

/// The standing of every place; a place nobody has told of is gone.
#[derive(Debug, Clone)]
pub struct Standings(BackendMap<Standing>);

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
            insisted: false,
            is_doubted: false,
            up_since_ms: Some(since_ms),
            holds_stale: false,
            is_new: false,
            is_leaving: false,
        }
    }

    /// A backend that does not answer.
    #[must_use]
    pub const fn down() -> Self {
        Self {
            gone: false,
            insisted: false,
            is_doubted: false,
            up_since_ms: None,
            holds_stale: false,
            is_new: false,
            is_leaving: false,
        }
    }

    /// A backend that the operator has given up.
    #[must_use]
    pub const fn gone() -> Self {
        Self {
            gone: true,
            insisted: false,
            is_doubted: false,
            up_since_ms: None,
            holds_stale: false,
            is_new: false,
            is_leaving: false,
        }
    }
}

impl Standings {
    /// Standings in which every place is gone.
    #[must_use]
    pub const fn new() -> Self {
        Self(BackendMap::filled(Standing::gone()))
    }

    /// Notes how the backend at `place` is.
    pub fn set(&mut self, backend_id: BackendId, standing: Standing) {
        self.0[backend_id] = standing;
    }

    /// How the backend at `place` is.
    #[must_use]
    pub fn get(&self, backend_id: BackendId) -> Standing {
        self.0[backend_id]
    }
}

impl Default for Standings {
    fn default() -> Self {
        Self::new()
    }
}

impl Times {
    /// How long a suspect slot is refused before it goes on elsewhere.
    ///
    /// A slot that was at rest has had one place, and what was under way there is broken off: nothing
    /// that its server still does is told to anybody, and nothing of it is under way elsewhere. In a
    /// slot that had two places, or has had until just now, a move may still be under way at the
    /// other one.
    fn of_refusal(&self, suspect: SlotState) -> u64 {
        let was_at_rest = suspect.before.is_some_and(|before| {
            let rested_ms = suspect.since_ms.saturating_sub(before.since_ms);
            before.second.is_none() && rested_ms >= self.overlap_ms
        });
        // What has to do with a copy is waited for by itself.
        let has_replica = suspect.replica_in(ReplicaPhase::Full).is_some();
        match was_at_rest || has_replica {
            true => self.failover_after_ms,
            false => self.failover_after_ms.max(self.overlap_ms),
        }
    }

    /// How long a proxy is at least in this stage of a handover.
    fn of_handover(&self, stage: Stage) -> u64 {
        match stage {
            Stage::Move1 => 2 * self.settle_ms,
            Stage::Move2 => self.move_ms,
            Stage::Turned => self.lifetime_ms,
            _ => self.settle_ms,
        }
    }
}

impl Surroundings<'_> {
    /// At most one transition.
    fn step(&self, slot: SlotState) -> SlotState {
        // While it is suspect, who may stand in does not change with time.
        if !slot.outdated.is_empty()
            && slot.stage != Stage::Suspect
            && !self.is_alive(slot.outdated.since_ms(), self.now_ms)
            && self.all_have_left(&slot)
        {
            let outdated = Outdated::NONE;
            return SlotState { outdated, ..slot };
        }
        let with_replica = self.replica(slot);
        if with_replica != slot {
            return with_replica;
        }
        let Some(second) = slot.second else {
            return self.steady(slot);
        };
        match slot.stage {
            Stage::Steady => self.steady(slot),
            Stage::Settle | Stage::Move1 | Stage::Move2 => self.handover(slot, second),
            Stage::Turned => self.turned(slot, second),
            Stage::Suspect => self.suspect(slot, second),
            Stage::Away => self.away(slot, second),
            Stage::Back | Stage::Wait => self.returning(slot, second),
        }
    }

    fn steady(&self, slot: SlotState) -> SlotState {
        let (backend_id, target) = (slot.first, self.target);
        let may_serve = target != backend_id
            && self.may_get(&slot, target)
            && self.nobody_copies_to(target)
            && self.nobody_waits_for(&slot, target);
        let is_copied = slot.replica_in(ReplicaPhase::Full).is_some();
        if self.standing(backend_id).gone
            && !is_copied
            && let Some(rest) = self.rest_without(&slot, backend_id)
            && self.may_get(&slot, rest)
            && self.all_let_go(backend_id, rest)
        {
            return self.at_rest(slot, rest);
        }
        if self.is_failed(backend_id)
            && let Some(suspect) = self.suspicion(slot, backend_id)
        {
            return suspect;
        }
        if let Some(under_way) = self.forgotten(slot) {
            return under_way;
        }
        if may_serve && self.is_up(target) && !self.standing(target).is_new {
            return self.pair(slot, target, backend_id, Stage::Settle);
        }
        slot
    }

    fn handover(&self, slot: SlotState, second: BackendId) -> SlotState {
        if let Some(changed) = self.without_failed(slot, second) {
            return changed;
        }
        if slot.stage == Stage::Settle && self.is_refused_elsewhere(slot, second) {
            // Both places may have items: the second may have stood in for the first.
            return self.back_in_wait(slot, second);
        }
        if let Some(called_off) = self.called_off(slot, second) {
            return called_off;
        }
        if let Some(again) = self.begun_again(slot) {
            return again;
        }
        let long_enough =
            self.has_lasted(slot, self.times.of_handover(slot.stage)) && self.peers_follow(slot);
        if self.turns_round(slot, second) {
            return self.pair(slot, slot.first, second, Stage::Turned);
        }
        match slot.stage {
            _ if !long_enough => slot,
            Stage::Move2 => self.arrived(slot, second),
            _ if !self.is_up(slot.first) => slot,
            Stage::Move1 => self.pair(slot, slot.first, second, Stage::Move2),
            _ => self.pair(slot, slot.first, second, Stage::Move1),
        }
    }

    /// The slot in the same stage, which begins anew, because sessions stay behind: what was used at
    /// the second place must move or die before the stage ends. In the first half nothing is lost
    /// by waiting, so that sessions that never move change the slot twice a lifetime and not with
    /// every request.
    fn begun_again(&self, slot: SlotState) -> Option<SlotState> {
        let since_ms = self.move_failed_ms?;
        let half_ms = self.times.of_handover(slot.stage) / 2;
        let is_moving = matches!(slot.stage, Stage::Move1 | Stage::Move2);
        let is_due = is_moving && since_ms > slot.since_ms && self.has_lasted(slot, half_ms);
        is_due.then_some(SlotState { since_ms, ..slot })
    }

    /// What becomes of a handover to a server that is to be left, as long as no proxy has moved
    /// anything there: it ends in *wait*, as one that the others never begin.
    ///
    /// Nobody goes on to move 1 who has not heard that all have been in *settle* long enough. So this
    /// proxy begins the stage anew until it is too young for that, and waits until whoever has heard
    /// it as it was before shows what came of it. Several proxies that do not know of each other, which
    /// they may be without failover, cannot tell: theirs goes on.
    fn called_off(&self, slot: SlotState, second: BackendId) -> Option<SlotState> {
        let is_leaving = self.standing(slot.first).is_leaving && self.target != slot.first;
        if slot.stage != Stage::Settle || !is_leaving || !self.nobody_is_ahead(slot, second) {
            return None;
        }
        let settle_ms = self.times.settle_ms;
        let is_alone = self.peers.is_empty();
        if is_alone && !self.times.failover {
            return None;
        }
        if !is_alone && self.has_lasted(slot, settle_ms / 4 * 3) {
            let since_ms = self.now_ms;
            return Some(SlotState { since_ms, ..slot });
        }
        let is_known = is_alone || self.has_lasted(slot, settle_ms / 2);
        Some(match is_known {
            true => self.back_in_wait(slot, second),
            false => slot,
        })
    }

    /// A handover that has moved nothing ends in *wait*, with its old owner first. In that stage nothing
    /// is copied, so nobody may rely on the replica any more.
    fn back_in_wait(&self, slot: SlotState, second: BackendId) -> SlotState {
        let replica = slot
            .replica
            .filter(|replica| self.may_be_called_full(*replica));
        match replica {
            Some(replica) => self.in_phase(slot, replica, ReplicaPhase::Dropping),
            None => self.pair(slot, second, slot.first, Stage::Wait),
        }
    }

    fn suspect(&self, slot: SlotState, failed: BackendId) -> SlotState {
        let before = restored(slot);
        if let Some(recovered) = self.recovered(slot, failed) {
            return recovered;
        }
        let is_copied = slot.replica_in(ReplicaPhase::Full).is_some();
        if !is_copied && let Some(changed) = self.without_gone_before(slot, before, failed) {
            return changed;
        }
        if self.standing(failed).gone
            && !is_copied
            && let Some(first) = self.rest_without(&slot, failed)
        {
            return SlotState { first, ..slot };
        }
        if let Some(up_since_ms) = self.up_since_ms(failed) {
            if let Some(there) = self.left_elsewhere(failed, slot.since_ms) {
                return self.leave(slot, there.first, Stage::Back);
            }
            return if self.nobody_can_have_left(slot, up_since_ms) {
                before
            } else {
                slot
            };
        }
        let Some(stand_in) = self.stand_in_for(&slot) else {
            return slot;
        };
        if stand_in != slot.first {
            return SlotState {
                first: stand_in,
                ..slot
            };
        }
        if self.is_failed(failed)
            && self.has_lasted(slot, self.times.of_refusal(slot))
            && self.is_broken_off
            && self.is_certain(stand_in)
            && !self.standing(stand_in).holds_stale
            && !is_copied
            && self.peers_agree_to_leave(slot, failed)
        {
            return self.leave(slot, stand_in, Stage::Away);
        }
        slot
    }

    fn away(&self, slot: SlotState, failed: BackendId) -> SlotState {
        if let Some(changed) = self.without_failed(slot, failed) {
            return changed;
        }
        if self.is_up(failed) {
            return self.pair(slot, slot.first, failed, Stage::Back);
        }
        // What the failed server holds has died meanwhile. If it returns, it gets the slot by an
        // ordinary handover.
        if self.has_lasted(slot, self.times.lifetime_ms) && self.peers_have_left(slot, failed) {
            return self.at_rest(slot, slot.first);
        }
        slot
    }

    fn returning(&self, slot: SlotState, returned: BackendId) -> SlotState {
        if let Some(changed) = self.without_failed(slot, returned) {
            return changed;
        }
        if !self.is_up(slot.first) || !self.is_up(returned) {
            return slot;
        }
        let goes_home = self.target == returned;
        if slot.stage == Stage::Wait {
            if self.moves_elsewhere(slot.first, returned) {
                return self.emptied(slot, returned);
            }
            let all_say = self.peers.iter().all(Option::is_some);
            let long_enough = self.has_lasted(slot, self.times.lifetime_ms) && all_say;
            return match (long_enough, goes_home) {
                (false, _) => slot,
                (true, true) => self.pair(slot, returned, slot.first, Stage::Settle),
                (true, false) => self.emptied(slot, returned),
            };
        }
        let alone = self.peers.is_empty();
        let known_ms = if alone {
            self.times.overlap_ms
        } else {
            self.times.settle_ms
        };
        if !self.has_lasted(slot, known_ms)
            || self.standing(returned).holds_stale
            || !self.peers_know_of_return(slot, returned)
        {
            return slot;
        }
        if goes_home {
            self.pair(slot, slot.first, returned, Stage::Wait)
        } else {
            self.emptied(slot, returned)
        }
    }

    /// The returned server hands over what it has to its stand-in, whose copies hide the outdated
    /// ones.
    fn emptied(&self, slot: SlotState, returned: BackendId) -> SlotState {
        let outdated =
            Some(returned).filter(|backend_id| self.was_left(&slot, *backend_id, self.now_ms));
        SlotState {
            outdated: slot.outdated.with(outdated, self.now_ms),
            ..self.pair(slot, slot.first, returned, Stage::Move2)
        }
    }

    /// The slot without a place that is gone, or suspect because one is down.
    fn without_failed(&self, slot: SlotState, second: BackendId) -> Option<SlotState> {
        let is_copied = slot.replica_in(ReplicaPhase::Full).is_some();
        if !is_copied && let Some(left) = self.without_gone(slot, second) {
            return Some(left);
        }
        let is_known = slot.stage == Stage::Away;
        let mut failed = [(slot.first, false), (second, is_known)].into_iter();
        let failed = failed.find(|(backend_id, is_known)| !is_known && self.is_failed(*backend_id));
        failed.and_then(|(backend_id, _)| self.suspicion(slot, backend_id))
    }

    /// The slot at the end of a handover. What did not move in time stays at `left`, and must not
    /// come back: its session has begun anew if it was used.
    fn arrived(&self, slot: SlotState, left: BackendId) -> SlotState {
        let stays = self.times.move_ms < self.times.lifetime_ms;
        let since_ms = slot.since_ms.max(slot.outdated.since_ms());
        let outdated = slot.outdated.with(stays.then_some(left), since_ms);
        self.at_rest(SlotState { outdated, ..slot }, slot.first)
    }

    /// The slot with all its items at `place`.
    fn at_rest(&self, slot: SlotState, backend_id: BackendId) -> SlotState {
        SlotState {
            outdated: slot.outdated.without(backend_id),
            replica: slot
                .replica
                .filter(|replica| replica.backend_id != backend_id),
            ..SlotState::steady(backend_id, self.now_ms)
        }
    }

    /// The slot at two places, in a stage that begins now.
    fn pair(
        &self,
        slot: SlotState,
        first: BackendId,
        second: BackendId,
        stage: Stage,
    ) -> SlotState {
        let paired = SlotState {
            first,
            second: Some(second),
            stage,
            since_ms: self.now_ms,
            before: None,
            // What it had once has died, or it would not be asked first.
            outdated: slot.outdated.without(first),
            replica: slot.replica,
        };
        match stage.is_handover() {
            true => paired,
            false => self.without_replica(paired),
        }
    }

    /// `place` holds nothing that would pass for true items of the slot.
    fn may_get(&self, slot: &SlotState, backend_id: BackendId) -> bool {
        !self.standing(backend_id).holds_stale && !self.is_outdated(slot, backend_id)
    }

    fn has_lasted(&self, slot: SlotState, min_ms: u64) -> bool {
        self.now_ms.saturating_sub(slot.since_ms) >= min_ms
    }

    fn is_up(&self, backend_id: BackendId) -> bool {
        self.up_since_ms(backend_id).is_some()
    }

    /// It is up, and nothing says that it is about to count as down.
    fn is_certain(&self, backend_id: BackendId) -> bool {
        self.is_up(backend_id) && !self.standing(backend_id).is_doubted
    }

    fn up_since_ms(&self, backend_id: BackendId) -> Option<u64> {
        let Standing {
            gone, up_since_ms, ..
        } = self.standing(backend_id);
        up_since_ms.filter(|_| !gone)
    }

    /// It is down, and another one is to stand in.
    fn is_failed(&self, backend_id: BackendId) -> bool {
        !self.is_up(backend_id) && (self.times.failover || self.standing(backend_id).gone)
    }

    fn standing(&self, backend_id: BackendId) -> Standing {
        self.standings.get(backend_id)
    }
}

/// What a suspect slot was before; any other slot as it is.
fn restored(slot: SlotState) -> SlotState {
    let Some(before) = slot.before else {
        return slot;
    };
    SlotState {
        first: before.first,
        second: before.second,
        stage: before.stage,
        since_ms: before.since_ms,
        before: None,
        outdated: slot.outdated,
        replica: slot.replica,
    }
}

#[cfg(test)]
mod copies;
#[cfg(test)]
mod several_proxies;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod third_place;
