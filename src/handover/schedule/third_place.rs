//! A stand-in that fails before what it stood in for has no outdated items left.

use super::copies::backend_id;
use super::tests::{Moment, TIMES, pair, steady, suspect, without};
use super::*;
use crate::handover::Stage::*;

const RETURN: [Stage; 3] = [Away, Back, Wait];

/// Place 1 is home and has returned, or not; 2, which stood in for it, is down.
fn down(stage: Stage) -> Moment {
    let moment = Moment::new(1).with(2, Standing::down());
    match stage {
        Away => moment.with(1, Standing::down()),
        _ => moment,
    }
}

#[test]
fn a_third_place_stands_in_and_what_has_returned_is_left_behind() {
    for stage in RETURN {
        let slot = pair(stage, 2, 1, 0);
        let suspected = down(stage).advance(slot, 1000);
        assert_eq!(suspected, suspect(3, 2, slot, 1000));
        let away = without(&[1], 16_000, pair(Away, 3, 2, 16_000));
        down(stage).assert_due(suspected, 16_000, away);
    }
}

#[test]
fn a_stand_in_that_answers_again_goes_on() {
    for stage in RETURN {
        let slot = pair(stage, 2, 1, 0);
        let up = down(stage).with(2, Standing::up(9000));
        assert_eq!(up.advance(suspect(3, 2, slot, 1000), 9000), slot);
    }
}

#[test]
fn without_a_third_place_requests_are_refused_until_the_outdated_items_have_died() {
    for stage in [Back, Wait] {
        let slot = pair(stage, 2, 1, 0);
        let nobody = down(stage).stood_in_by(&[1, 2]);
        let suspected = nobody.advance(slot, 1000);
        assert_eq!(suspected, suspect(1, 2, slot, 1000));
        let now_ms = TIMES.lifetime_ms;
        nobody.assert_due(suspected, now_ms, pair(Away, 1, 2, now_ms));
    }
}

#[test]
fn what_was_left_behind_gets_the_slot_after_a_lifetime() {
    let lifetime_ms = TIMES.lifetime_ms;
    let away = without(&[1], 0, pair(Away, 3, 2, 0));
    // The stand-in never comes back.
    let home = pair(Settle, 1, 3, lifetime_ms);
    down(Wait).assert_due(away, lifetime_ms, home);
    // It comes back: what it has goes to the third place first.
    let all_up = Moment::new(1);
    let back = without(&[1], 0, pair(Back, 3, 2, 50_000));
    assert_eq!(all_up.advance(away, 50_000), back);
    let emptied = without(&[1, 2], 60_000, pair(Move2, 3, 2, 60_000));
    all_up.assert_due(back, 60_000, emptied);
    let end_ms = 60_000 + lifetime_ms;
    all_up.assert_due(emptied, end_ms, pair(Settle, 1, 3, end_ms));
}

#[test]
fn each_place_that_fails_in_turn_is_left_behind() {
    let away = without(&[1], 0, pair(Away, 3, 2, 0));
    let third_down = down(Wait).with(3, Standing::down()).stood_in_by(&[1, 4]);
    let suspected = third_down.advance(away, 1000);
    assert_eq!(suspected, suspect(4, 3, away, 1000));
    let away_again = without(&[1, 2], 16_000, pair(Away, 4, 3, 16_000));
    third_down.assert_due(suspected, 16_000, away_again);
    // Nobody is left: 1 and 2 have outdated items.
    let nobody = third_down.stood_in_by(&[1, 2]);
    let refused = nobody.advance(away, 1000);
    assert_eq!(
        (refused.stage, refused.second),
        (Suspect, Some(backend_id(3)))
    );
    assert_eq!(nobody.advance(refused, TIMES.lifetime_ms - 1), refused);
}

/// One has ended the handover to 1 in wait, because the map was taken back, and the other is still
/// in it: what is at 1 is outdated for one of them, and so for both.
#[test]
fn proxies_that_hear_of_each_other_late_choose_the_same_stand_in() {
    let waiting = suspect(3, 2, pair(Wait, 2, 1, 0), 1000);
    let settling = suspect(1, 2, pair(Settle, 1, 2, 0), 1000);
    let choose = |slot, peer| {
        let now_ms = 16_000;
        down(Wait).peer(peer, false).advance(slot, now_ms).first
    };
    assert_eq!(choose(waiting, settling), backend_id(3));
    assert_eq!(choose(settling, waiting), backend_id(3));
}

#[test]
fn a_returned_server_that_is_being_emptied_does_not_stand_in() {
    let emptied = without(&[1], 0, pair(Move2, 2, 1, 0));
    let suspected = down(Wait).advance(emptied, 1000);
    assert_eq!(suspected, suspect(3, 2, emptied, 1000));
    // The earlier owner has what has not moved, and nothing that is outdated.
    let moving = pair(Move2, 2, 1, 0);
    let suspected = down(Wait).advance(moving, 1000);
    assert_eq!(suspected, suspect(1, 2, moving, 1000));
}

#[test]
fn a_stand_in_that_is_given_up_leaves_the_slot_to_a_third_place() {
    for stage in RETURN {
        let slot = pair(stage, 2, 1, 0);
        let gone = down(stage).with(2, Standing::gone());
        let suspected = gone.advance(slot, 1000);
        assert_eq!(suspected, suspect(3, 2, slot, 1000));
        let left = without(&[1], 16_000, steady(3, 16_000));
        gone.assert_due(suspected, 16_000, left);
    }
    let slot = pair(Wait, 2, 1, 0);
    let nobody = down(Wait).with(2, Standing::gone()).stood_in_by(&[1]);
    let refused = nobody.advance(slot, 1000);
    assert_eq!(refused, suspect(1, 2, slot, 1000));
    let now_ms = TIMES.lifetime_ms;
    nobody.assert_due(refused, now_ms, steady(1, now_ms));
    assert_eq!(Moment::new(1).advance(refused, 30_000), slot, "taken back");
}

/// Those that went on before the order came would wait for one that goes where the newest map wants the
/// slot, and it for them.
#[test]
fn a_proxy_that_gives_a_failed_server_up_goes_where_others_have_gone_on() {
    let refused = suspect(3, 1, steady(1, 0), 1000);
    let moment = || Moment::new(3).with(1, Standing::gone());
    for stage in RETURN {
        let there = pair(stage, 2, 1, 12_000);
        let follows = moment().peer(there, false).advance(refused, 16_000);
        assert_eq!(follows.first, backend_id(2), "{stage:?}");
    }
    let alone = moment().advance(refused, 16_000);
    assert_eq!(alone.first, backend_id(3));
}

/// One proxy had gone on at the stand-in before that was given up, too: it waits for the stand-in, and
/// the others for the server that failed first. Nothing is left at either.
#[test]
fn proxies_that_wait_for_different_servers_that_are_given_up_go_where_the_map_wants_the_slot() {
    let at_home = suspect(3, 1, steady(1, 0), 1000);
    let at_stand_in = suspect(3, 2, pair(Away, 2, 1, 5000), 6000);
    let moment = |gone: &[u8], there| {
        let moment = Moment::new(3).with(1, Standing::gone());
        let moment = moment.with(2, Standing::gone());
        moment.peer_without(gone, there, false)
    };
    let rests = steady(3, 9000);
    for (here, there) in [(at_home, at_stand_in), (at_stand_in, at_home)] {
        assert_eq!(moment(&[1, 2], there).advance(here, 9000), rests);
        assert_eq!(
            moment(&[], rests).advance(here, 9000),
            rests,
            "it was first"
        );
    }
    // The other one may still come back to one of them.
    assert_eq!(moment(&[2], at_stand_in).advance(at_home, 9000), at_home);
    assert_eq!(
        moment(&[2], at_home).advance(at_stand_in, 9000),
        at_stand_in
    );
    let serves = pair(Away, 2, 1, 5000);
    assert_eq!(moment(&[1], serves).advance(at_home, 9000), at_home);
    // Or it goes elsewhere.
    let elsewhere = suspect(4, 2, pair(Away, 2, 1, 5000), 6000);
    assert_eq!(moment(&[1, 2], elsewhere).advance(at_home, 9000), at_home);
}

#[test]
fn a_slot_does_not_fall_to_a_target_that_was_left_behind() {
    let left = without(&[1], 0, steady(3, 0));
    let third_gone = Moment::new(1)
        .with(3, Standing::gone())
        .stood_in_by(&[1, 4]);
    let refused = third_gone.advance(left, 1000);
    assert_eq!(refused, suspect(4, 3, left, 1000));
    let at_fourth = without(&[1], 0, steady(4, 16_000));
    third_gone.assert_due(refused, 16_000, at_fourth);
    let nobody = third_gone.stood_in_by(&[1]);
    let refused = nobody.advance(left, 1000);
    assert_eq!(refused.stage, Suspect);
    let now_ms = TIMES.lifetime_ms;
    nobody.assert_due(refused, now_ms, steady(1, now_ms));
}

#[test]
fn proxies_leave_a_stand_in_for_the_same_third_place() {
    let slot = pair(Wait, 2, 1, 0);
    let suspected = suspect(3, 2, slot, 0);
    let now_ms = 20_000;
    let away = without(&[1], now_ms, pair(Away, 3, 2, now_ms));
    let with = |there| down(Wait).peer(there, false).advance(suspected, now_ms);
    assert_eq!(with(suspected), away);
    assert_eq!(with(suspect(3, 2, pair(Back, 2, 1, 0), 0)), away, "it lags");
    assert_eq!(with(suspect(4, 2, slot, 0)), suspected, "another choice");
    assert_eq!(with(slot), suspected, "it serves");
    let left = without(&[1], 0, pair(Away, 4, 2, 0));
    let followed = without(&[1], now_ms, pair(Away, 4, 2, now_ms));
    assert_eq!(with(left), followed, "it was first");
    // One that reaches the stand-in again does not take it for the true one.
    let back = without(&[1], now_ms, pair(Back, 3, 2, now_ms));
    let up = Moment::new(1).peer(without(&[1], 0, pair(Away, 3, 2, 10_000)), true);
    assert_eq!(up.advance(suspected, now_ms), back);
}

#[test]
fn what_another_proxy_has_left_since_is_as_outdated() {
    let slot = pair(Wait, 2, 1, 0);
    let refused = suspect(1, 2, slot, 1000);
    let nobody = down(Wait).stood_in_by(&[1, 2]);
    let there = suspect(1, 2, pair(Away, 2, 1, 500_000), 600_000);
    let moment = nobody.peer(there, false);
    let due_ms = 500_000 + TIMES.lifetime_ms;
    moment.assert_due(refused, due_ms, pair(Away, 1, 2, due_ms));
}

#[test]
fn a_proxy_that_lost_its_state_does_not_serve_what_was_left_behind() {
    for there in [
        without(&[1], 5, pair(Away, 3, 2, 5)),
        without(&[1], 5, pair(Wait, 3, 2, 5)),
        without(&[1], 5, steady(3, 5)),
        without(&[1], 5, suspect(4, 3, steady(3, 5), 6)),
    ] {
        let moment = Moment::new(1).peer(there, true);
        let adopted = moment.advance(steady(1, 9), 9);
        let has_it = adopted.first == backend_id(1) || adopted.second == Some(backend_id(1));
        assert!(!has_it, "{there:?} -> {adopted:?}");
        assert!(adopted.outdated.contains(backend_id(1)), "{there:?}");
    }
}

#[test]
fn nobody_leaves_back_while_another_serves_the_returned_place_without_the_stand_in() {
    let back = without(&[1], 0, pair(Back, 3, 2, 0));
    let with = |there| Moment::new(1).peer(there, true).advance(back, 100_000);
    assert_eq!(with(pair(Wait, 2, 1, 0)), back);
    assert_ne!(with(pair(Wait, 3, 2, 0)), back);
}
