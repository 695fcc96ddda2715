//! Every rule is needed: without it, some run breaks an invariant.

use staterouter::handover::Stage::*;

use super::check::{breaks, holds};
use super::config::{A, B, Broken, Config};
use super::legs::{add, failure, home, path};

fn session(rounds: &[u8], broken: Broken) -> Config {
    Config::new(add(), rounds).session(A).broken(broken)
}

#[test]
fn the_first_place_is_asked_again() {
    breaks(
        "no second look",
        &session(&[1, 1], Broken::NoSecondLook),
        "I3",
    );
}

#[test]
fn cookies_name_their_place() {
    breaks(
        "no tags",
        &session(&[2, 1], Broken::NoTags).takeovers(1),
        "I2",
    );
}

#[test]
fn a_move_that_may_have_happened_is_not_answered() {
    breaks("old lock", &session(&[1, 1], Broken::OldLock).lost(1), "I2");
}

#[test]
fn the_flag_of_a_copy_is_not_believed() {
    breaks(
        "flag believed",
        &session(&[1, 1], Broken::FlagBelieved),
        "I7",
    );
}

#[test]
fn a_read_cannot_tell_a_copy_from_a_new_item() {
    breaks(
        "reads pass flags",
        &session(&[1, 1], Broken::ReadsPassFlags).reads(),
        "I7",
    );
}

#[test]
fn young_debris_stays() {
    breaks(
        "force young",
        &session(&[1, 1], Broken::ForceYoung).deletes(),
        "I3",
    );
}

#[test]
fn a_removal_clears_the_second_place_first() {
    let config = Config::new(path(&[(B, Move1, A)]), &[2, 1])
        .session(A)
        .broken(Broken::NoClearing);
    breaks("no clearing", &config.deletes().lost(1).takeovers(1), "I4");
}

#[test]
fn new_items_are_created_at_the_second_place_until_all_move() {
    let legs = path(&[(A, Steady, A), (B, Settle, A), (B, Move2, A)]);
    breaks("no move 1", &Config::new(legs, &[1, 1]), "I3");
    let config = Config::new(add(), &[1, 1]).broken(Broken::CreateAtFirst);
    breaks("create at first in move 1", &config, "I3");
}

#[test]
fn a_stage_outlasts_requests() {
    breaks("short stages", &session(&[1, 1], Broken::ShortStages), "I3");
}

/// A request was told in move 1 that there is no session, while an acquire of a proxy in settle was
/// still running; in move 2 it creates one elsewhere.
#[test]
fn move_1_lasts_twice_as_long() {
    let legs = path(&[(B, Settle, A), (B, Move1, A), (B, Move2, A)]);
    breaks("move 1 once", &Config::new(legs, &[2, 1]).delayed(1), "I3");
}

/// An item that is created late at the second place, after the session has moved, must not be met
/// by an acquire that found nothing at the first place before.
#[test]
fn settle_confirms() {
    let legs = path(&[(B, Settle, A), (B, Move1, A)]);
    let config = Config::new(legs, &[2, 1]).delayed(1);
    breaks(
        "no confirmation in settle",
        &config.broken(Broken::NoConfirm(&[Settle])),
        "I3",
    );
}

/// A handover need not wait for what is only read: reads move it.
#[test]
fn a_session_that_is_only_read_is_not_left_behind() {
    holds(
        "short lifetime",
        &session(&[1, 1], Broken::ShortLifetime).reads(),
    );
}

#[test]
fn the_way_back_waits() {
    let legs = path(&[(B, Settle, A), (B, Move1, A), (A, Settle, B), (A, Move1, B)]);
    breaks("back at once", &Config::new(legs, &[2, 1]).session(A), "I6");
}

/// An item that is created late at the old owner would come before the session that has moved.
#[test]
fn a_handover_is_called_off_only_before_anything_moves() {
    let legs = path(&[(B, Move1, A), (B, Settle, A), (A, Wait, B), (A, Move2, B)]);
    breaks("called off late", &Config::new(legs, &[1, 1]), "I3");
}

#[test]
fn a_failure_needs_all_proxies() {
    let legs = path(&[(A, Steady, A), (B, Away, A)]);
    breaks("no suspect", &Config::new(legs, &[1, 1]).session(A), "I3");
    let legs = path(&[(A, Steady, A), (B, Suspect, A), (B, Away, A)]);
    let config = Config::new(legs, &[1, 1])
        .session(A)
        .broken(Broken::NoAgreement);
    breaks("no agreement", &config, "I3");
}

#[test]
fn what_is_under_way_at_a_server_that_is_down_is_broken_off() {
    let config = Config::new(failure(), &[1, 1]).session(A).alone();
    breaks("no break off", &config.broken(Broken::NoBreakOff), "I2");
}

#[test]
fn a_server_that_is_back_is_not_served_from_at_once() {
    let legs = path(&[(B, Away, A), (B, Wait, A)]);
    breaks("no back", &Config::new(legs, &[2, 1]).session(A), "I3");
}

#[test]
fn outdated_copies_die_before_a_slot_goes_home() {
    let legs = path(&[(B, Away, A), (B, Back, A), (A, Settle, B)]);
    breaks("no wait", &Config::new(legs, &[2, 1]).session(A), "I1");
}

#[test]
fn removals_are_owed_to_a_server_that_is_away() {
    let config = |broken| {
        Config::new(home(), &[1, 1])
            .session(A)
            .deletes()
            .broken(broken)
    };
    breaks("nothing owed", &config(Broken::NoOwed), "I4");
    breaks("own removals only", &config(Broken::OwnOwedOnly), "I4");
}

/// The first place may have the item although it refuses to store it: then that one is the true one.
#[test]
fn a_refusal_does_not_say_that_nothing_is_there() {
    let legs = path(&[(B, Move1, A), (B, Move2, A)]);
    let config = Config::new(legs, &[2, 1]).delayed(1).refused(1);
    breaks(
        "no look after a refusal",
        &config.broken(Broken::NoConfirm(&[Move1, Move2])),
        "I3",
    );
}

#[test]
fn what_a_stand_in_has_is_no_copy() {
    let config = Config::new(failure(), &[1]).session(A).starts();
    let broken = config.broken(Broken::OutdatedIsCopied);
    breaks("outdated items pass for copied ones", &broken, "I8");
}
