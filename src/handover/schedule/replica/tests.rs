//! The replica of a slot: when it is chosen, filled, full and dropped, and how the slot goes on with
//! it when one of its places fails.

use super::super::copies::backend_id;
use super::super::tests::{Moment, TIMES, pair, steady, suspect, without};
use super::super::*;
use crate::handover::Replica;
use crate::handover::Stage::*;
use ReplicaPhase::{Chosen, Dropping, Filling, Full, Joining};

/// Long enough after everything.
const NOW_MS: u64 = 5_000_000;
/// A slot that is suspect since then has been so for long enough.
const FALL_MS: u64 = NOW_MS - TIMES.failover_after_ms;

/// The slot with its replica at place 4.
fn copied(slot: SlotState, phase: ReplicaPhase, since_ms: u64) -> SlotState {
    let replica = Some(Replica {
        backend_id: backend_id(4),
        phase,
        since_ms,
    });
    SlotState { replica, ..slot }
}

/// Place 1 is where the map wants the slot, place 4 may keep its copies.
fn pool() -> Moment {
    Moment::new(1).copied_to(&[4])
}

fn down(id: u8) -> Moment {
    pool().with(id, Standing::down())
}

/// The slot at place 1, which fell a while ago.
fn fallen(phase: ReplicaPhase) -> SlotState {
    copied(suspect(4, 1, steady(1, 0), FALL_MS), phase, 0)
}

#[test]
fn a_replica_that_all_copy_to_is_full_after_a_lifetime() {
    let rested = steady(1, NOW_MS - TIMES.overlap_ms);
    let filling = copied(rested, Filling, NOW_MS);
    pool().assert_due(rested, NOW_MS, filling);
    let full_ms = NOW_MS + TIMES.lifetime_ms;
    pool().assert_due(filling, full_ms, copied(rested, Full, full_ms));
}

#[test]
fn nothing_is_copied_before_all_know_nor_counted_before_all_copy() {
    let rested = steady(1, 0);
    let with = |there, here| pool().peer(there, true).advance(here, NOW_MS);
    let chosen = copied(rested, Chosen, NOW_MS);
    assert_eq!(with(rested, rested), chosen);
    assert_eq!(
        with(copied(rested, Chosen, 0), chosen).replica_in(Joining),
        Some(backend_id(4))
    );
    assert_eq!(
        with(copied(rested, Joining, 0), chosen).replica_in(Filling),
        Some(backend_id(4))
    );
    let joining = copied(rested, Joining, 0);
    assert_eq!(with(copied(rested, Chosen, 0), joining), joining);
    assert_eq!(pool().silent_peer().advance(rested, NOW_MS), rested);
    let filling = copied(rested, Filling, NOW_MS - TIMES.lifetime_ms);
    let young = copied(rested, Filling, NOW_MS - TIMES.lifetime_ms + 1);
    assert_eq!(with(young, filling), filling);
    assert_eq!(with(filling, filling).replica_in(Full), Some(backend_id(4)));
    assert_eq!(with(joining, filling), filling, "it copies what it writes");
    assert_eq!(
        with(copied(rested, Chosen, 0), filling).replica_in(Joining),
        Some(backend_id(4))
    );
}

/// A fill takes as long as a session lives: what does no harm must not make it begin anew.
#[test]
fn filling_goes_on_while_a_proxy_is_silent() {
    let filling = |since_ms| copied(steady(1, 0), Filling, since_ms);
    let begun_ms = NOW_MS - TIMES.lifetime_ms;
    let silent = pool().silent_peer();
    assert_eq!(
        silent.advance(filling(NOW_MS - 1), NOW_MS),
        filling(NOW_MS - 1)
    );
    // Nobody says that it is full there, too.
    assert_eq!(silent.advance(filling(begun_ms), NOW_MS), filling(begun_ms));
    // Whether every worker goes by all that is in force counts when it begins, and never again.
    assert_eq!(
        pool().waiting().advance(filling(NOW_MS - 1), NOW_MS),
        filling(NOW_MS - 1)
    );
    let here = filling(begun_ms - 1_000);
    let heard = |there| pool().peer(there, true).advance(here, NOW_MS);
    assert_eq!(heard(filling(NOW_MS - 1_001)), here);
}

/// It may have dropped the replica and begun to copy to it again.
#[test]
fn filling_begins_anew_when_a_proxy_that_was_silent_may_have_stopped_copying() {
    let filling = |since_ms| copied(steady(1, 0), Filling, since_ms);
    let here = filling(NOW_MS - TIMES.lifetime_ms - 1_000);
    let heard = |there| {
        let after = pool().peer(there, true).advance(here, NOW_MS);
        after
            .replica
            .map(|replica| (replica.phase, replica.since_ms))
    };
    assert_eq!(heard(filling(NOW_MS - 1_000)), Some((Filling, NOW_MS)));
    assert_eq!(
        heard(copied(steady(1, 0), Chosen, 0)),
        Some((Joining, NOW_MS))
    );
    let dropped = without(&[4], NOW_MS - 1_000, steady(1, 0));
    assert_eq!(heard(dropped), None);
}

#[test]
fn a_replica_is_none_of_the_places_nor_the_target_nor_outdated() {
    let rested = steady(1, 0);
    let chooses = |moment: Moment| moment.advance(rested, NOW_MS).replica;
    assert_eq!(chooses(Moment::new(1).copied_to(&[1])), None);
    assert_eq!(chooses(pool().with(4, Standing::down())), None);
    let left = pool().peer(without(&[4], NOW_MS - 1, rested), true);
    assert_eq!(chooses(left), None);
    let to_four = Moment::new(4).copied_to(&[4]).with(4, Standing::down());
    assert_eq!(chooses(to_four), None);
    // A request of the handover before may still look for items at its old owner.
    let arrived = steady(1, NOW_MS - TIMES.overlap_ms + 1);
    assert_eq!(pool().advance(arrived, NOW_MS), arrived);
    let chosen = Moment::new(1).copied_to(&[3, 4]).advance(rested, NOW_MS);
    assert_eq!(chosen.replica.unwrap().backend_id, backend_id(3));
    let elsewhere = Moment::new(1)
        .copied_to(&[3, 4])
        .peer(copied(rested, Chosen, 0), true);
    let joined = elsewhere.advance(rested, NOW_MS).replica.unwrap();
    assert_eq!(
        joined.backend_id,
        backend_id(4),
        "as the other proxy has chosen"
    );
}

#[test]
fn a_replica_that_has_missed_something_is_dropped_once_nobody_relies_on_it() {
    let full = copied(steady(1, 0), Full, 0);
    let dropping = missed(full, &[], &TIMES, NOW_MS);
    assert_eq!(dropping.replica_in(Dropping), Some(backend_id(4)));
    assert!(dropping.outdated.contains(backend_id(4)));
    let with = |there: SlotState, here| pool().peer(there, true).advance(here, NOW_MS);
    assert_eq!(with(full, dropping), dropping);
    assert_eq!(with(dropping, dropping).replica, None);
    assert_eq!(
        with(dropping, full).replica_in(Dropping),
        None,
        "it follows at once"
    );
    assert_eq!(with(dropping, full).replica, None);
    assert_eq!(
        missed(
            copied(steady(1, 0), Filling, NOW_MS - 1),
            &[],
            &TIMES,
            NOW_MS
        )
        .replica,
        None
    );
    assert_eq!(missed(steady(1, 0), &[], &TIMES, NOW_MS), steady(1, 0));
}

/// The copies under way to a server that has just failed end badly after the replica is dropped for
/// that failure.
#[test]
fn a_copy_missed_while_the_replica_is_dropped_ends_no_wait() {
    let full = copied(steady(1, 0), Full, 0);
    let dropping = down(4).peer(full, true).advance(full, NOW_MS - 1);
    assert_eq!(dropping.replica_in(Dropping), Some(backend_id(4)));
    let again = missed(dropping, &[], &TIMES, NOW_MS);
    assert_eq!(again.replica, dropping.replica);
    let relied_on = down(4).peer(full, true).advance(again, NOW_MS);
    assert_eq!(relied_on.replica, dropping.replica);
}

/// One that is not heard stores nothing anew any more once it has not heard this proxy for as long.
#[test]
fn a_replica_is_not_dropped_before_a_proxy_that_is_silent_relies_on_it_no_more() {
    let dropping = copied(steady(1, 0), Dropping, NOW_MS);
    let silent = pool().silent_peer();
    silent.assert_due(
        dropping,
        NOW_MS + TIMES.silence_ms,
        without(&[4], NOW_MS + TIMES.silence_ms, steady(1, 0)),
    );
    assert_eq!(pool().advance(dropping, NOW_MS).replica, None, "alone");
}

#[test]
fn what_another_proxy_may_call_full_already_is_not_left_at_once() {
    let filled = copied(steady(1, 0), Filling, NOW_MS - TIMES.lifetime_ms);
    let dropping = missed(filled, &[], &TIMES, NOW_MS);
    assert_eq!(dropping.replica_in(Dropping), Some(backend_id(4)));
    let full = copied(steady(1, 0), Full, NOW_MS - 1);
    let relied_on = pool().peer(full, true).advance(dropping, NOW_MS);
    assert_eq!(relied_on, dropping);
    let down = down(4).peer(full, true).advance(filled, NOW_MS);
    assert_eq!(down.replica_in(Dropping), Some(backend_id(4)));
}

/// It called the replica full in the moment in which this proxy began to fill it anew.
#[test]
fn a_replica_that_is_filled_anew_is_waited_for_while_another_proxy_may_call_it_full() {
    let at_rest = |phase, since_ms| copied(steady(1, 0), phase, since_ms);
    let full = pool().peer(at_rest(Full, NOW_MS - 1), true);
    let long_ms = NOW_MS + TIMES.silence_ms - TIMES.lifetime_ms;
    let old = pool().peer(at_rest(Filling, long_ms), true);
    let young = pool().peer(at_rest(Filling, long_ms + 1), true);
    let dropped = without(&[4], NOW_MS, steady(1, 0));
    for phase in [Joining, Filling] {
        let here = at_rest(phase, NOW_MS - 1);
        let after_a_miss = |moment: &Moment| {
            let slot = missed(here, &moment.peers(), &TIMES, NOW_MS);
            moment.advance(slot, NOW_MS)
        };
        let dropping = without(&[4], NOW_MS, at_rest(Dropping, NOW_MS));
        for relied_on in [&full, &old, &pool().silent_peer()] {
            assert_eq!(after_a_miss(relied_on), dropping, "{phase:?}");
        }
        for free in [&young, &pool()] {
            assert_eq!(after_a_miss(free), dropped, "{phase:?}");
        }
        // So it is whatever the replica is dropped for.
        let down = down(4).peer(at_rest(Full, 0), true);
        let after = down.advance(here, NOW_MS);
        assert_eq!(after.replica_in(Dropping), Some(backend_id(4)), "{phase:?}");
    }
    let called_off = copied(pair(Settle, 3, 1, NOW_MS - 1), Joining, NOW_MS - 1);
    let after = full.advance(called_off, NOW_MS);
    assert_eq!(after.stage, Settle);
    assert_eq!(after.replica_in(Dropping), Some(backend_id(4)));
    assert_eq!(young.advance(called_off, NOW_MS).stage, Wait);
}

/// It goes by what it has heard until now.
#[test]
fn what_another_proxy_is_about_to_call_full_is_not_left_before_it_has_heard_of_that() {
    let dropping = copied(steady(1, 0), Dropping, NOW_MS);
    let filling = copied(steady(1, 0), Filling, 0);
    let due_ms = NOW_MS + TIMES.silence_ms;
    let heard = pool().peer(filling, true);
    heard.assert_due(dropping, due_ms, without(&[4], due_ms, steady(1, 0)));
    let follows = pool().peer(copied(steady(1, 0), Dropping, NOW_MS), true);
    assert_eq!(follows.advance(dropping, NOW_MS).replica, None);
}

/// The map that began the handover is taken back, and another proxy has not had it.
#[test]
fn a_handover_that_is_called_off_waits_until_nobody_relies_on_the_replica() {
    let settle = copied(pair(Settle, 3, 1, NOW_MS - 1), Full, 0);
    let full = copied(steady(1, 0), Full, 0);
    let relied_on = pool().peer(full, true).advance(settle, NOW_MS);
    assert_eq!(relied_on.stage, Settle);
    assert_eq!(relied_on.replica_in(Dropping), Some(backend_id(4)));
    let follows = copied(steady(1, 0), Dropping, NOW_MS);
    let after = pool().peer(follows, true).advance(relied_on, NOW_MS);
    assert_eq!((after.stage, after.replica), (Wait, None));
}

#[test]
fn a_replica_that_is_down_or_drained_or_gets_the_slot_is_dropped() {
    let full = copied(steady(1, 0), Full, 0);
    for moment in [down(4), Moment::new(1), Moment::new(4).copied_to(&[4])] {
        let after = moment.advance(full, NOW_MS);
        assert_eq!(after, without(&[4], NOW_MS, steady(1, 0)));
    }
    // The handover to it begins when its copies have died.
    let to_four = Moment::new(4).copied_to(&[4]);
    let dropped = without(&[4], NOW_MS, steady(1, 0));
    let due_ms = NOW_MS + TIMES.lifetime_ms;
    to_four.assert_due(dropped, due_ms, pair(Settle, 4, 1, due_ms));
    let copies_there = to_four.peer(full, true).advance(steady(1, 0), NOW_MS);
    assert_eq!(copies_there, steady(1, 0));
}

#[test]
fn a_slot_at_rest_goes_on_with_its_replica() {
    let recovered = without(&[1], NOW_MS, steady(4, NOW_MS));
    down(1).assert_due(fallen(Full), NOW_MS, recovered);
    let waiting = down(1).waiting();
    assert_eq!(waiting.advance(fallen(Full), NOW_MS), fallen(Full));
    // The one that returns holds nothing that may be served for a lifetime.
    let due_ms = NOW_MS + TIMES.lifetime_ms;
    Moment::new(1).assert_due(recovered, due_ms, pair(Settle, 1, 4, due_ms));
}

/// The server may answer again before the replica turns out to be down as well.
#[test]
fn a_slot_does_not_go_on_with_a_replica_that_is_failing() {
    let doubted = Standing {
        is_doubted: true,
        ..Standing::up(0)
    };
    let failing = down(1).with(4, doubted);
    assert_eq!(failing.advance(fallen(Full), NOW_MS), fallen(Full));
    let returned = pool()
        .with(4, Standing::down())
        .advance(fallen(Full), NOW_MS);
    assert_eq!(returned.first, backend_id(1));
}

#[test]
fn proxies_go_on_with_a_replica_together_or_not_at_all() {
    let full = fallen(Full);
    let recovered = without(&[1], NOW_MS, steady(4, NOW_MS));
    let with = |there, second_up| down(1).peer(there, second_up).advance(full, NOW_MS);
    assert_eq!(with(full, false), recovered);
    assert_eq!(with(full, true), full, "it reaches the server");
    let young = copied(suspect(4, 1, steady(1, 0), FALL_MS + 1), Full, 0);
    assert_eq!(with(young, false), full);
    assert_eq!(with(copied(steady(1, 0), Full, 0), true), full, "it serves");
    let there = without(&[1], NOW_MS, steady(4, NOW_MS));
    assert_eq!(with(there, true), recovered, "it was first");
    let later = suspect(
        4,
        3,
        without(&[1], NOW_MS, pair(Settle, 3, 4, NOW_MS)),
        NOW_MS,
    );
    assert_eq!(
        with(later, true),
        recovered,
        "and has lost another one since"
    );
    assert_eq!(down(1).silent_peer().advance(full, NOW_MS), full);
    // Who calls it full no more stays with that, and no proxy goes on with it.
    let dropping = copied(suspect(4, 1, steady(1, 0), FALL_MS), Dropping, NOW_MS);
    let after = with(dropping, false);
    assert_ne!(after.first, backend_id(4));
    assert!(after.outdated.contains(backend_id(4)));
    let back = down(1).peer(full, false).advance(dropping, NOW_MS);
    assert_eq!(back.replica_in(Dropping), Some(backend_id(4)));
}

#[test]
fn a_slot_in_a_handover_goes_on_where_its_locks_are() {
    let full = |slot| copied(slot, Full, 0);
    // Its old owner has failed: what has not moved comes from the copies.
    for stage in [Settle, Move1, Move2] {
        let slot = full(suspect(3, 1, pair(stage, 3, 1, 0), FALL_MS));
        let expected = without(&[1], NOW_MS, pair(stage, 3, 4, NOW_MS));
        down(1).assert_due(slot, NOW_MS, expected);
    }
    // Its new owner has failed: what has moved comes back from the copies.
    for stage in [Move1, Move2] {
        let slot = full(suspect(1, 3, pair(stage, 3, 1, 0), FALL_MS));
        let expected = without(&[3], NOW_MS, pair(Move2, 1, 4, NOW_MS));
        down(3).assert_due(slot, NOW_MS, expected);
    }
    // Nothing has moved yet.
    let slot = full(suspect(1, 3, pair(Settle, 3, 1, 0), FALL_MS));
    down(3).assert_due(slot, NOW_MS, copied(steady(1, NOW_MS), Full, 0));
}

#[test]
fn a_handover_that_another_proxy_has_not_begun_or_has_ended_goes_to_rest_there() {
    let slot = copied(suspect(1, 3, pair(Settle, 3, 1, 0), FALL_MS), Full, 0);
    let unbegun = copied(steady(1, 0), Full, 0);
    let after = down(3).peer(unbegun, false).advance(slot, NOW_MS);
    assert_eq!(after, copied(steady(1, NOW_MS), Full, 0));
    let ahead = copied(suspect(1, 3, pair(Move1, 3, 1, 0), FALL_MS), Full, 0);
    let after = down(3).peer(ahead, false).advance(slot, NOW_MS);
    assert_eq!(after, without(&[3], NOW_MS, pair(Move2, 1, 4, NOW_MS)));
    let slot = copied(suspect(3, 1, pair(Move2, 3, 1, 0), FALL_MS), Full, 0);
    let ended = copied(steady(3, 0), Full, 0);
    let after = Moment::new(3)
        .copied_to(&[4])
        .with(1, Standing::down())
        .peer(ended, false)
        .advance(slot, NOW_MS);
    let rested = without(&[1], NOW_MS, steady(3, NOW_MS));
    assert_eq!(after, copied(rested, Full, 0));
}

/// It was cut off for longer than anything lives, and still waits for the server that failed.
#[test]
fn what_was_left_is_remembered_until_all_have_left_it() {
    let left = without(&[1], 0, steady(4, 0));
    let home = Moment::new(4).copied_to(&[3]);
    let behind = copied(suspect(4, 1, steady(1, 0), 0), Full, 0);
    let with = |there| home.clone().peer(there, false).advance(left, NOW_MS);
    assert!(with(behind).outdated.contains(backend_id(1)));
    assert!(with(steady(4, 0)).outdated.is_empty());
    let silent = home.clone().silent_peer().advance(left, NOW_MS);
    assert!(silent.outdated.contains(backend_id(1)));
    let follows = home.peer(left, false).advance(behind, NOW_MS);
    assert_eq!(follows.first, backend_id(4));
}
