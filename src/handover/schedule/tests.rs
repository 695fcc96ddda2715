//! The stages of one slot: a table of what follows what, and laws under random pasts.

use proptest::prelude::*;

use super::copies::{Copies, PLACES, backend_id};
use super::*;
use crate::handover::Before;
use crate::handover::Stage::*;

pub(super) const TIMES: Times = Times {
    settle_ms: 30_000,
    move_ms: 1_310_000,
    lifetime_ms: 1_310_000,
    failover_after_ms: 15_000,
    overlap_ms: 10_000,
    silence_ms: 3_000,
    failover: true,
};

/// How long an item lives that nobody uses.
const ITEM_MS: u64 = 1_200_000;

/// Which stage may follow which.
const EDGES: &[(Stage, &[Stage])] = &[
    (Steady, &[Steady, Settle, Suspect]),
    (Settle, &[Steady, Move1, Suspect, Wait]),
    (Move1, &[Steady, Move2, Suspect]),
    (Move2, &[Steady, Turned, Suspect]),
    (Turned, &[Steady, Settle, Move2, Suspect]),
    (
        Suspect,
        &[
            Steady, Settle, Move1, Move2, Turned, Suspect, Away, Back, Wait,
        ],
    ),
    (Away, &[Steady, Suspect, Back]),
    (Back, &[Steady, Suspect, Move2, Wait]),
    (Wait, &[Steady, Suspect, Settle, Move2]),
];

pub(super) fn pair(stage: Stage, first: u8, second: u8, since_ms: u64) -> SlotState {
    SlotState {
        first: backend_id(first),
        second: Some(backend_id(second)),
        stage,
        since_ms,
        before: None,
        outdated: Outdated::NONE,
        replica: None,
    }
}

pub(super) fn suspect(first: u8, second: u8, before: SlotState, since_ms: u64) -> SlotState {
    SlotState {
        before: Some(Before {
            first: before.first,
            second: before.second,
            stage: before.stage,
            since_ms: before.since_ms,
        }),
        outdated: before.outdated,
        ..pair(Suspect, first, second, since_ms)
    }
}

pub(super) fn without(places: &[u8], since_ms: u64, slot: SlotState) -> SlotState {
    let places = places.iter().copied().map(backend_id);
    SlotState {
        outdated: Outdated::NONE.with(places, since_ms),
        ..slot
    }
}

pub(super) fn steady(first: u8, since_ms: u64) -> SlotState {
    SlotState::steady(backend_id(first), since_ms)
}

/// A moment of a proxy that is alone. Places 1, 2 and 3 are up unless said otherwise.
#[derive(Clone)]
pub(super) struct Moment {
    target: u8,
    stand_ins: Vec<BackendId>,
    standings: Standings,
    times: Times,
    peers: Vec<Option<PeerSlot>>,
    move_failed_ms: Option<u64>,
    is_broken_off: bool,
    copies: Vec<BackendId>,
}

impl Moment {
    pub(super) fn new(target: u8) -> Self {
        let mut standings = Standings::new();
        for id in 1..=PLACES {
            standings.set(backend_id(id), Standing::up(0));
        }
        Self {
            target,
            stand_ins: vec![backend_id(3)],
            standings,
            times: TIMES,
            peers: Vec::new(),
            move_failed_ms: None,
            is_broken_off: true,
            copies: Vec::new(),
        }
    }

    /// These may keep copies, the first one to be preferred.
    pub(super) fn copied_to(mut self, ids: &[u8]) -> Self {
        self.copies = ids.iter().copied().map(backend_id).collect();
        self
    }

    /// What was sent to a server that is down, or copied from it, is still waited for.
    pub(super) fn waiting(mut self) -> Self {
        self.is_broken_off = false;
        self
    }

    /// One more peer, which does not answer.
    pub(super) fn silent_peer(mut self) -> Self {
        self.peers.push(None);
        self
    }

    pub(super) fn with(mut self, id: u8, standing: Standing) -> Self {
        self.standings.set(backend_id(id), standing);
        self
    }

    pub(super) fn stood_in_by(mut self, ids: &[u8]) -> Self {
        self.stand_ins = ids.iter().copied().map(backend_id).collect();
        self
    }

    pub(super) fn peer(self, slot: SlotState, second_up: bool) -> Self {
        self.peer_without(&[], slot, second_up)
    }

    /// One more peer, which has given these places up.
    pub(super) fn peer_without(mut self, gone: &[u8], slot: SlotState, second_up: bool) -> Self {
        self.peers.push(Some(PeerSlot {
            slot,
            second_up,
            gone: gone.iter().copied().map(backend_id).collect(),
            heard_ms: 0,
        }));
        self
    }

    pub(super) fn peers(&self) -> Vec<Option<PeerSlot>> {
        self.peers.clone()
    }

    pub(super) fn surroundings(&self, now_ms: u64) -> Surroundings<'_> {
        Surroundings {
            target: backend_id(self.target),
            stand_ins: &self.stand_ins,
            copies: CopyPlaces {
                candidates: &self.copies,
                keepers: self.copies.iter().copied().collect(),
            },
            standings: &self.standings,
            peers: &self.peers,
            times: &self.times,
            move_failed_ms: self.move_failed_ms,
            is_broken_off: self.is_broken_off,
            now_ms,
        }
    }

    /// The peers have just been heard.
    pub(super) fn advance(&self, slot: SlotState, now_ms: u64) -> SlotState {
        let mut moment = self.clone();
        for peer in moment.peers.iter_mut().flatten() {
            peer.heard_ms = now_ms;
        }
        advance(slot, &moment.surroundings(now_ms))
    }

    /// The slot becomes `next` at `due_ms` and not a millisecond sooner.
    #[track_caller]
    pub(super) fn assert_due(&self, slot: SlotState, due_ms: u64, next: SlotState) {
        assert_eq!(self.advance(slot, due_ms - 1), slot, "too soon");
        assert_eq!(self.advance(slot, due_ms), next);
    }
}

#[test]
fn a_handover_takes_its_time() {
    let to_two = Moment::new(2);
    let settle = to_two.advance(steady(1, 0), 1000);
    assert_eq!(settle, pair(Settle, 2, 1, 1000));
    let move1 = pair(Move1, 2, 1, 31_000);
    to_two.assert_due(settle, 31_000, move1);
    let move2 = pair(Move2, 2, 1, 91_000);
    to_two.assert_due(move1, 91_000, move2);
    to_two.assert_due(move2, 1_401_000, steady(2, 1_401_000));
}

#[test]
fn a_changed_target_waits_for_the_handover_to_end() {
    let to_three = Moment::new(3);
    let move2 = pair(Move2, 2, 1, 0);
    to_three.assert_due(
        move2,
        TIMES.lifetime_ms,
        pair(Settle, 3, 2, TIMES.lifetime_ms),
    );
}

#[test]
fn a_handover_to_a_server_that_is_to_be_left_is_called_off_before_anything_moves() {
    let is_leaving = Standing {
        is_leaving: true,
        ..Standing::up(0)
    };
    let leaving = Moment::new(1).with(2, is_leaving);
    let settle = pair(Settle, 2, 1, 1_000);
    assert_eq!(leaving.advance(settle, 1_001), pair(Wait, 1, 2, 1_001));
    // Wherever else the slot is to go now, and not if it is to go there all the same.
    let elsewhere = Moment::new(3).with(2, is_leaving);
    assert_eq!(elsewhere.advance(settle, 1_001), pair(Wait, 1, 2, 1_001));
    let wanted = Moment::new(2).with(2, is_leaving);
    wanted.assert_due(settle, 31_000, pair(Move1, 2, 1, 31_000));
    let mut unknown = leaving;
    unknown.times.failover = false;
    unknown.assert_due(settle, 31_000, pair(Move1, 2, 1, 31_000));
}

/// What has moved is there, and what it left behind must die before the old owner is asked first.
#[test]
fn a_handover_that_moves_to_a_server_that_is_to_be_left_turns_round() {
    let is_leaving = Standing {
        is_leaving: true,
        ..Standing::up(0)
    };
    let leaving = Moment::new(1).with(2, is_leaving);
    let (begun_ms, half_ms) = (60_000, TIMES.move_ms / 2);
    let moving = pair(Move2, 2, 1, 0);
    leaving.assert_due(moving, begun_ms, pair(Turned, 2, 1, begun_ms));
    // Most has moved by then: the handover goes on to its end.
    assert_eq!(leaving.advance(moving, half_ms), moving);
    assert_eq!(leaving.advance(moving, half_ms - 1).stage, Turned);
    let turned = pair(Turned, 2, 1, 0);
    let back = pair(Settle, 1, 2, TIMES.lifetime_ms);
    leaving.assert_due(turned, TIMES.lifetime_ms, back);
    // Wherever the slot is to go then.
    let elsewhere = Moment::new(3).with(2, is_leaving);
    elsewhere.assert_due(turned, TIMES.lifetime_ms, back);
    // It is wanted after all.
    assert_eq!(
        Moment::new(2).advance(turned, 1_000),
        pair(Move2, 2, 1, 1_000)
    );
    // Both are to be left: to which of them the sessions go makes no difference.
    let both = leaving.clone().with(1, is_leaving);
    assert_eq!(both.advance(moving, begun_ms), moving);
    let mut unknown = leaving;
    unknown.times.failover = false;
    assert_eq!(unknown.advance(moving, begun_ms), moving);
}

#[test]
fn proxies_turn_a_handover_round_together() {
    let is_leaving = Standing {
        is_leaving: true,
        ..Standing::up(0)
    };
    let leaving = Moment::new(1).with(2, is_leaving);
    let lifetime_ms = TIMES.lifetime_ms;
    let moving = pair(Move2, 2, 1, 0);
    let turns = |there| {
        let heard = leaving.clone().peer(there, true);
        heard.advance(moving, 200_000).stage == Turned
    };
    assert!(turns(pair(Move2, 2, 1, 10_000)) && turns(pair(Turned, 2, 1, 10_000)));
    for other in [
        pair(Move1, 2, 1, 10_000),
        pair(Move2, 2, 1, 190_000),
        steady(2, 10_000),
        pair(Settle, 3, 2, 10_000),
        pair(Suspect, 2, 1, 10_000),
    ] {
        assert!(!turns(other), "{other:?}");
    }
    // Nobody goes back before the last one has moved nothing for a lifetime.
    let turned = pair(Turned, 2, 1, 0);
    let goes_back = |there, now_ms| {
        let heard = leaving.clone().peer(there, true);
        heard.advance(turned, now_ms) == pair(Settle, 1, 2, now_ms)
    };
    let late = pair(Turned, 2, 1, 100_000);
    assert!(!goes_back(late, lifetime_ms + 99_999) && goes_back(late, lifetime_ms + 100_000));
    assert!(!goes_back(moving, 2 * lifetime_ms));
    assert!(
        goes_back(pair(Settle, 1, 2, 1_000), 2_000),
        "another one knows"
    );
    // And nobody ends the handover while another one keeps sessions at the old owner.
    let wanted = Moment::new(2).peer(turned, true);
    assert_eq!(wanted.advance(moving, 2 * lifetime_ms), moving);
}

/// Another proxy goes on to move 1 by what it has heard of this one.
#[test]
fn a_handover_is_called_off_only_when_no_other_proxy_can_be_ahead() {
    let is_leaving = Standing {
        is_leaving: true,
        ..Standing::up(0)
    };
    let leaving = Moment::new(1).with(2, is_leaving);
    let settle = pair(Settle, 2, 1, 0);
    let off = pair(Wait, 1, 2, 15_000);
    for there in [
        pair(Settle, 2, 1, 9_000),
        steady(1, 0),
        pair(Wait, 1, 2, 9_000),
    ] {
        if there.stage == Settle {
            leaving
                .clone()
                .peer(there, true)
                .assert_due(settle, 15_000, off);
        }
        let heard = leaving.clone().peer(there, true);
        let old = heard.advance(settle, 22_500);
        let expected = match there.stage {
            Settle => pair(Settle, 2, 1, 22_500),
            // It is not in the handover, and this one neither any more.
            _ => pair(Wait, 1, 2, 22_500),
        };
        assert_eq!(old, expected, "{there:?}");
    }
    for there in [pair(Move1, 2, 1, 9_000), pair(Suspect, 2, 1, 9_000)] {
        let ahead = leaving.clone().peer(there, true);
        assert_eq!(ahead.advance(settle, 15_000), settle, "{there:?}");
    }
    let mut silent = leaving;
    silent.peers.push(None);
    assert_eq!(silent.advance(settle, 15_000), settle);
}

#[test]
fn nothing_goes_to_a_server_that_is_down() {
    let away = Moment::new(2).with(2, Standing::down());
    assert_eq!(away.advance(steady(1, 0), 1000), steady(1, 0));
    let mut stuck = away.clone();
    stuck.times.failover = false;
    for stage in [Settle, Move1] {
        let slot = pair(stage, 2, 1, 0);
        assert_eq!(stuck.advance(slot, 1_000_000), slot);
    }
    let home = pair(Wait, 1, 2, 0);
    assert_eq!(stuck.advance(home, TIMES.lifetime_ms), home);
}

#[test]
fn a_server_that_is_gone_leaves_its_slots_at_once() {
    let without = |id| Moment::new(3).with(id, Standing::gone());
    assert_eq!(without(1).advance(steady(1, 0), 5), steady(3, 5));
    for stage in [Settle, Move1, Move2, Away, Back, Wait] {
        // What is left goes on to the target, as any steady slot.
        let slot = pair(stage, 2, 1, 0);
        let goes_on = without(1).advance(slot, 5);
        assert_eq!(goes_on, pair(Settle, 3, 2, 5), "{stage:?}");
    }
    for stage in [Settle, Move1, Move2] {
        let slot = pair(stage, 2, 1, 0);
        let goes_on = without(2).advance(slot, 5);
        assert_eq!(goes_on, pair(Settle, 3, 1, 5), "{stage:?}");
    }
    let stand_in = suspect(2, 1, steady(1, 0), 0);
    assert_eq!(without(1).advance(stand_in, 5), steady(3, 5));
    let half_moved = suspect(2, 1, pair(Move1, 2, 1, 0), 0);
    assert_eq!(without(1).advance(half_moved, 5), pair(Settle, 3, 2, 5));
}

/// The map wants the slot at a server that this proxy has said to leave as well. It used to be refused
/// and served by turns.
#[test]
fn a_slot_whose_servers_are_all_gone_is_refused_until_one_is_fit() {
    let mut nobody = Moment::new(2).stood_in_by(&[]);
    for id in 1..=PLACES {
        nobody = nobody.with(id, Standing::gone());
    }
    let refused = suspect(2, 1, steady(1, 0), 5);
    assert_eq!(nobody.advance(steady(1, 0), 5), refused);
    assert_eq!(nobody.surroundings(6).step(refused), refused);
    let one = nobody.with(2, Standing::up(7));
    assert_eq!(one.advance(refused, 8), steady(2, 8));
}

#[test]
fn a_short_failure_leaves_no_trace() {
    for (slot, failed) in [
        (steady(1, 7), 1),
        (pair(Settle, 2, 1, 7), 1),
        (pair(Settle, 2, 1, 7), 2),
        (pair(Move1, 2, 1, 7), 1),
        (pair(Move1, 2, 1, 7), 2),
        (pair(Move2, 2, 1, 7), 1),
        (pair(Move2, 2, 1, 7), 2),
        (pair(Back, 2, 1, 7), 1),
        (pair(Back, 2, 1, 7), 2),
        (pair(Wait, 2, 1, 7), 1),
        (pair(Wait, 2, 1, 7), 2),
    ] {
        let target = slot.first.id();
        let down = Moment::new(target).with(failed, Standing::down());
        let suspected = down.advance(slot, 8);
        assert_eq!(suspected.stage, Suspect, "{slot:?}");
        assert_eq!(suspected.second, Some(backend_id(failed)));
        assert_eq!(down.advance(suspected, 15_007), suspected);
        let up = Moment::new(target).with(failed, Standing::up(9000));
        assert_eq!(up.advance(suspected, 9000), slot);
    }
}

#[test]
fn a_slot_goes_on_once_nothing_is_under_way_at_its_server_or_at_the_other_one() {
    let mut down = Moment::new(1).with(1, Standing::down());
    down.times.failover_after_ms = 3_000;
    let at_rest = suspect(3, 1, steady(1, 0), 100_000);
    down.assert_due(at_rest, 103_000, pair(Away, 3, 1, 103_000));
    let just_arrived = suspect(3, 1, steady(1, 90_001), 100_000);
    down.assert_due(just_arrived, 110_000, pair(Away, 3, 1, 110_000));
    let half_moved = suspect(2, 1, pair(Move1, 2, 1, 0), 100_000);
    down.assert_due(half_moved, 110_000, pair(Away, 2, 1, 110_000));
    // Workers that still wait for the server may tell what it answers.
    let waiting = Moment {
        is_broken_off: false,
        ..down.clone()
    };
    assert_eq!(waiting.advance(at_rest, 200_000), at_rest);
    // So may another proxy.
    let with = |slot| down.clone().peer(slot, false).advance(at_rest, 104_000);
    let refuses = |since_ms| suspect(3, 1, steady(1, 0), since_ms);
    assert_eq!(with(refuses(101_001)), at_rest);
    assert_eq!(with(refuses(101_000)), pair(Away, 3, 1, 104_000));
    let is_moving = suspect(3, 1, pair(Move2, 1, 3, 0), 95_000);
    assert_eq!(with(is_moving), at_rest);
}

#[test]
fn a_long_failure_goes_to_the_stand_in_and_home_again() {
    let down = Moment::new(1).with(1, Standing::down());
    let suspected = down.advance(steady(1, 0), 1000);
    assert_eq!(suspected, suspect(3, 1, steady(1, 0), 1000));
    let away = pair(Away, 3, 1, 16_000);
    down.assert_due(suspected, 16_000, away);
    let up = Moment::new(1);
    let back = pair(Back, 3, 1, 50_000);
    assert_eq!(up.advance(away, 50_000), back);
    let wait = pair(Wait, 3, 1, 60_000);
    up.assert_due(back, 60_000, wait);
    up.assert_due(wait, 1_370_000, pair(Settle, 1, 3, 1_370_000));
}

#[test]
fn a_failure_that_outlives_all_sessions_is_over() {
    let down = Moment::new(1).with(1, Standing::down());
    let away = pair(Away, 3, 1, 0);
    down.assert_due(away, TIMES.lifetime_ms, steady(3, TIMES.lifetime_ms));
}

#[test]
fn a_returned_server_that_is_not_the_target_any_more_hands_over() {
    let elsewhere = Moment::new(3);
    let emptied = pair(Move2, 3, 1, 10_000);
    let emptied = without(&[1], 10_000, emptied);
    elsewhere.assert_due(pair(Back, 3, 1, 0), 10_000, emptied);
    let now_ms = TIMES.lifetime_ms;
    elsewhere.assert_due(pair(Wait, 3, 1, 0), now_ms, pair(Move2, 3, 1, now_ms));
}

#[test]
fn missed_removals_are_replayed_first() {
    let stale = |id| {
        let standing = Standing {
            holds_stale: true,
            ..Standing::up(0)
        };
        Moment::new(1).with(id, standing)
    };
    let back = pair(Back, 3, 1, 0);
    assert_eq!(stale(1).advance(back, 1_000_000), back);
    let turned = suspect(1, 3, pair(Move2, 3, 1, 0), 0);
    let turned_down = stale(1).with(3, Standing::down());
    assert_eq!(turned_down.advance(turned, 1_000_000), turned);
}

#[test]
fn without_failover_a_dead_server_keeps_its_slots() {
    let mut down = Moment::new(1).with(1, Standing::down());
    down.times.failover = false;
    assert_eq!(down.advance(steady(1, 0), 1_000_000), steady(1, 0));
    let suspected = suspect(3, 1, steady(1, 0), 0);
    assert_eq!(down.advance(suspected, 1_000_000), suspected);
}

#[test]
fn nobody_goes_away_while_the_stand_in_is_down() {
    let both = Moment::new(1)
        .with(1, Standing::down())
        .with(3, Standing::down());
    let suspected = suspect(3, 1, steady(1, 0), 0);
    assert_eq!(both.advance(suspected, 1_000_000), suspected);
    let expected = pair(Away, 2, 1, 1_000_000);
    let other = both.stood_in_by(&[2]);
    assert_eq!(other.advance(suspected, 1_000_000), expected);
}

/// The failed server may answer again before the stand-in turns out to be down as well.
#[test]
fn nobody_goes_away_to_a_stand_in_that_is_failing() {
    let doubted = Standing {
        is_doubted: true,
        ..Standing::up(0)
    };
    let suspected = suspect(3, 1, steady(1, 0), 0);
    let down = Moment::new(1).with(1, Standing::down());
    let failing = down.clone().with(3, doubted);
    assert_eq!(failing.advance(suspected, 1_000_000), suspected);
    let expected = pair(Away, 3, 1, 1_000_000);
    assert_eq!(down.advance(suspected, 1_000_000), expected);
}

#[test]
fn a_handover_waits_for_the_other_proxies() {
    let later = 2_000_000;
    for (stage, next) in [(Settle, Move1), (Move1, Move2)] {
        let slot = pair(stage, 2, 1, 0);
        let moved = pair(next, 2, 1, later);
        let with = |peer| Moment::new(2).peer(peer, true).advance(slot, later);
        assert_eq!(with(steady(1, 0)), slot, "it has not begun");
        assert_eq!(with(pair(stage, 2, 1, later - 1000)), slot, "too young");
        assert_eq!(with(pair(stage, 2, 1, later - 60_000)), moved);
        assert_eq!(with(pair(next, 2, 1, later)), moved);
        assert_eq!(with(suspect(1, 2, slot, 0)), slot);
        let mut silent = Moment::new(2);
        silent.peers.push(None);
        assert_eq!(silent.advance(slot, later), slot, "it does not say");
    }
}

#[test]
fn proxies_go_away_together_or_not_at_all() {
    let suspected = suspect(3, 1, steady(1, 0), 0);
    let now_ms = 20_000;
    let away = pair(Away, 3, 1, now_ms);
    let down = Moment::new(1).with(1, Standing::down());
    let with = |slot, second_up| {
        let moment = down.clone().peer(slot, second_up);
        moment.advance(suspected, now_ms)
    };
    assert_eq!(with(suspected, false), away);
    assert_eq!(with(suspected, true), suspected, "it reaches the server");
    assert_eq!(with(pair(Away, 3, 1, 19_000), false), away);
    let young = suspect(3, 1, steady(1, 0), now_ms - 14_999);
    assert_eq!(with(young, false), suspected);
    let other = suspect(2, 1, steady(1, 0), 0);
    assert_eq!(with(other, false), suspected, "another stand-in");
    assert_eq!(with(steady(1, 0), true), suspected, "it serves");
    assert_eq!(with(steady(3, 0), true), away, "it has ended this");
    let mut silent = down.clone();
    silent.peers.push(None);
    assert_eq!(silent.advance(suspected, now_ms), suspected);
    let other = pair(Away, 2, 1, 0);
    assert_eq!(with(other, false), pair(Away, 2, 1, now_ms), "it was first");
}

#[test]
fn whoever_sees_the_return_first_waits_for_the_others() {
    let now_ms = 100_000;
    let back = pair(Back, 3, 1, 0);
    let with = |slot| Moment::new(1).peer(slot, true).advance(back, now_ms);
    for peer in [
        pair(Away, 3, 1, 0),
        suspect(3, 1, steady(1, 0), 0),
        pair(Back, 3, 1, now_ms - 29_999),
    ] {
        assert_eq!(with(peer), back, "{peer:?}");
    }
    for peer in [pair(Back, 3, 1, now_ms - 30_000), pair(Wait, 3, 1, 0)] {
        assert_eq!(with(peer), pair(Wait, 3, 1, now_ms), "{peer:?}");
    }
}

#[test]
fn a_return_that_another_proxy_did_not_wait_for_is_no_return_to_normal() {
    let suspected = suspect(3, 1, steady(1, 7), 0);
    let up = |since_ms| Moment::new(1).with(1, Standing::up(since_ms));
    let left = up(20_000).peer(pair(Away, 3, 1, 19_000), false);
    assert_eq!(left.advance(suspected, 20_000), pair(Back, 3, 1, 20_000));
    let refusing = up(20_000).peer(suspect(3, 1, steady(1, 7), 0), false);
    refusing.assert_due(suspected, 50_000, steady(1, 7));
    // Too short for anybody to have counted on it.
    let brief = up(14_999).peer(suspect(3, 1, steady(1, 7), 0), false);
    assert_eq!(brief.advance(suspected, 14_999), steady(1, 7));
    let mut silent = up(20_000);
    silent.peers.push(None);
    assert_eq!(silent.advance(suspected, 1_000_000), suspected);
}

#[test]
fn a_proxy_that_lost_its_state_learns_of_a_failover() {
    for stage in [Away, Back, Wait] {
        let moment = Moment::new(1).peer(pair(stage, 3, 1, 0), true);
        assert_eq!(moment.advance(steady(1, 0), 9), pair(Back, 3, 1, 9));
    }
}

#[test]
fn what_a_peer_said_a_while_ago_may_not_last() {
    let suspected = suspect(3, 1, steady(1, 0), 0);
    let mut moment = Moment::new(1)
        .with(1, Standing::down())
        .peer(suspected, false);
    let heard_at = |heard_ms| {
        moment.peers[0].as_mut().unwrap().heard_ms = heard_ms;
        advance(suspected, &moment.surroundings(20_000)).stage
    };
    assert_eq!([14_999, 15_000].map(heard_at), [Suspect, Away]);
}

#[test]
fn a_proxy_that_lost_its_state_learns_of_a_handover() {
    let now_ms = TIMES.lifetime_ms;
    for (stage, since_ms) in [(Settle, 0), (Move1, 0), (Move2, 1)] {
        let there = pair(stage, 2, 1, since_ms);
        let moment = Moment::new(2).peer(there, true);
        assert_eq!(
            moment.advance(steady(2, 5), now_ms).second,
            Some(backend_id(1))
        );
    }
    // It has only not ended yet.
    let lagging = Moment::new(2).peer(pair(Move2, 2, 1, 0), true);
    assert_eq!(lagging.advance(steady(2, 5), now_ms), steady(2, 5));
    let given_up = Moment::new(2)
        .peer(pair(Move1, 2, 1, 0), true)
        .with(1, Standing::gone());
    assert_eq!(given_up.advance(steady(2, 5), now_ms), steady(2, 5));
}

/// What may happen to a slot between two looks.
#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Target(u8),
    Down(u8),
    Up(u8),
    Gone(u8),
    Stale(u8),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => prop_oneof![0..2000_u64, 0..100_000_u64, 0..3_000_000_u64].prop_map(Event::Pass),
        2 => (1..=PLACES).prop_map(Event::Target),
        2 => (1..=PLACES).prop_map(Event::Down),
        3 => (1..=PLACES).prop_map(Event::Up),
        1 => (1..=PLACES).prop_map(Event::Gone),
        1 => (1..=PLACES).prop_map(Event::Stale),
    ]
}

/// A slot, what is around it, and the time.
struct World {
    slot: SlotState,
    moment: Moment,
    now_ms: u64,
    copies: Copies,
    /// When each place was given up last.
    given_up_ms: [Option<u64>; PLACES as usize + 1],
}

impl World {
    fn new(failover: bool) -> Self {
        let mut moment = Moment::new(1);
        moment.times.failover = failover;
        Self {
            slot: steady(1, 0),
            moment,
            now_ms: 0,
            copies: Copies::new(ITEM_MS),
            given_up_ms: [None; PLACES as usize + 1],
        }
    }

    fn apply(&mut self, event: &Event) {
        let standings = &mut self.moment.standings;
        match *event {
            Event::Pass(ms) => {
                self.now_ms += ms;
                self.copies.serve(&self.slot, self.now_ms);
            }
            Event::Target(id) => self.moment.target = id,
            Event::Down(id) => standings.set(backend_id(id), Standing::down()),
            Event::Up(id) => standings.set(backend_id(id), Standing::up(self.now_ms)),
            Event::Gone(id) => {
                standings.set(backend_id(id), Standing::gone());
                self.given_up_ms[usize::from(id)] = Some(self.now_ms);
            }
            Event::Stale(id) => {
                let stale = Standing {
                    holds_stale: true,
                    ..standings.get(backend_id(id))
                };
                standings.set(backend_id(id), stale);
            }
        }
        // A map gives slots only to servers it has.
        if standings.get(backend_id(self.moment.target)).gone {
            let target = backend_id(self.moment.target);
            standings.set(target, Standing::down());
        }
        self.remember_what_was_given_up();
        let standings = &self.moment.standings;
        let fits =
            |id: &u8| standings.get(backend_id(*id)).up_since_ms.is_some() && !self.is_barred(*id);
        let stand_ins: Vec<u8> = (1..=PLACES).filter(fits).collect();
        self.moment.stand_ins = stand_ins.into_iter().map(backend_id).collect();
    }

    /// What was given up may be outdated for a lifetime, and the pool sees to it.
    fn remember_what_was_given_up(&mut self) {
        let barred: Vec<u8> = (1..=PLACES).filter(|id| self.is_barred(*id)).collect();
        for id in barred {
            let stale = Standing {
                holds_stale: true,
                ..self.moment.standings.get(backend_id(id))
            };
            self.moment.standings.set(backend_id(id), stale);
        }
    }

    fn is_barred(&self, id: u8) -> bool {
        let given_up_ms = self.given_up_ms[usize::from(id)];
        given_up_ms.is_some_and(|at_ms| self.now_ms - at_ms < TIMES.lifetime_ms)
    }

    /// One transition at a time, each of them checked; then the same in one call.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        let around = self.moment.surroundings(self.now_ms);
        let at_once = advance(self.slot, &around);
        for steps in 0.. {
            prop_assert!(steps < MAX_STEPS, "no end: {:?}", self.slot);
            let next = around.step(self.slot);
            if next == self.slot {
                break;
            }
            check_step(&self.moment, self.slot, next, self.now_ms)?;
            self.slot = next;
        }
        prop_assert_eq!(at_once, self.slot);
        prop_assert_eq!(advance(self.slot, &around), self.slot);
        self.copies.check(&self.slot, self.now_ms)
    }
}

fn check_step(
    moment: &Moment,
    from: SlotState,
    to: SlotState,
    now_ms: u64,
) -> Result<(), TestCaseError> {
    let outdated = to.outdated;
    if to == (SlotState { outdated, ..from }) {
        // It knows that they have died.
        prop_assert!(outdated.is_empty());
        prop_assert!(now_ms - from.outdated.since_ms() >= TIMES.lifetime_ms);
        return Ok(());
    }
    let allowed = EDGES.iter().find(|(stage, _)| *stage == from.stage);
    prop_assert!(
        allowed.is_some_and(|(_, next)| next.contains(&to.stage)),
        "{from:?} -> {to:?}"
    );
    prop_assert_eq!(to.second.is_none(), to.stage == Steady);
    prop_assert_eq!(to.before.is_some(), to.stage == Suspect);
    prop_assert_ne!(to.second, Some(to.first));
    let is_up = |backend_id| moment.standings.get(backend_id).up_since_ms.is_some();
    let moves_on = from.stage != Suspect && to.stage.is_handover();
    prop_assert!(
        !moves_on || is_up(to.first),
        "towards a server that is down"
    );
    prop_assert!(to.stage != Away || is_up(to.first));
    let spent_ms = now_ms - from.since_ms;
    let min_ms = match (from.stage, to.stage) {
        (Settle, Move1) => TIMES.settle_ms,
        (Move1, Move2) => 2 * TIMES.settle_ms,
        (Suspect, Away) if to != restored(from) => TIMES.failover_after_ms,
        (Back, Move2 | Wait) => TIMES.overlap_ms,
        (Wait, Settle | Move2) => TIMES.lifetime_ms,
        (Move2 | Away, Steady) => {
            let places = [Some(from.first), from.second];
            let lost = places
                .iter()
                .flatten()
                .any(|p| moment.standings.get(*p).gone);
            if lost { 0 } else { TIMES.lifetime_ms }
        }
        _ => 0,
    };
    prop_assert!(spent_ms >= min_ms, "{from:?} -> {to:?} after {spent_ms}");
    Ok(())
}

proptest! {
    #[test]
    fn the_laws_hold_whatever_happens(
        failover: bool,
        events in prop::collection::vec(any_event(), 1..80),
    ) {
        let mut world = World::new(failover);
        for event in &events {
            world.apply(event);
            world.settle()?;
        }
        // With all servers up and a target that stays, the slot gets there.
        for id in 1..=PLACES {
            world.moment.standings.set(backend_id(id), Standing::up(world.now_ms));
        }
        for _ in 0..20 {
            world.apply(&Event::Pass(TIMES.lifetime_ms));
            world.settle()?;
        }
        prop_assert_eq!(world.slot.stage, Steady);
        prop_assert_eq!(world.slot.first, backend_id(world.moment.target));
    }
}

/// What could not be moved is still where it was: no proxy ends the stage before that has died.
#[test]
fn a_stage_begins_anew_when_moves_fail_but_only_in_its_second_half() {
    for (stage, lasts_ms) in [(Move1, 2 * TIMES.settle_ms), (Move2, TIMES.lifetime_ms)] {
        let slot = pair(stage, 1, 2, 1_000);
        let failed = |failed_ms, now_ms| {
            let moment = Moment {
                move_failed_ms: Some(failed_ms),
                ..Moment::new(1)
            };
            moment.advance(slot, now_ms)
        };
        let half_ms = 1_000 + lasts_ms / 2;
        assert_eq!(
            failed(half_ms - 2, half_ms - 1),
            slot,
            "nothing is written down yet"
        );
        let again = SlotState {
            since_ms: half_ms - 2,
            ..slot
        };
        assert_eq!(failed(half_ms - 2, half_ms), again);
        assert_eq!(
            failed(half_ms - 2, 1_000 + lasts_ms),
            again,
            "the stage does not end"
        );
        let next = |slot: SlotState| slot.stage != stage;
        assert!(next(failed(1_000, 1_000 + lasts_ms)), "before the stage");
        assert!(
            next(failed(half_ms, half_ms + lasts_ms)),
            "and nothing has failed since"
        );
    }
}

#[test]
fn a_stage_that_moves_nothing_does_not_wait_for_moves() {
    let moment = Moment {
        move_failed_ms: Some(TIMES.settle_ms),
        ..Moment::new(1)
    };
    let next = moment.advance(pair(Settle, 1, 2, 0), TIMES.settle_ms);
    assert_eq!(next, pair(Move1, 1, 2, TIMES.settle_ms));
}

/// The others hear of it as of everything: the stage is younger than they thought.
#[test]
fn a_peer_whose_moves_fail_holds_up_the_end() {
    let now_ms = 10 * TIMES.lifetime_ms;
    let slot = pair(Move2, 1, 2, 0);
    let ends = |since_ms| {
        let moment = Moment::new(1).peer(pair(Move2, 1, 2, since_ms), true);
        moment.advance(slot, now_ms) != slot
    };
    assert!(ends(now_ms - TIMES.lifetime_ms));
    assert!(!ends(now_ms - TIMES.lifetime_ms + 1));
}
