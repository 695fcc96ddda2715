//! Every rule of a replica is needed: without it, some run breaks an invariant.
//!
//! The names are those of the ways in which obvious versions fail.

use super::check::{breaks, holds};
use super::config::{A, Broken, C, Config};
use super::legs::{
    Legs, filled, kept_alive, moves_to_copies, promoted, promoted_and_home, replica_asked_first,
};

fn session(legs: Legs, rounds: &[u8], broken: Broken) -> Config {
    Config::new(legs(), rounds).session(A).broken(broken)
}

#[test]
fn the_copy_comes_before_the_truth() {
    let broken = session(promoted, &[1, 2], Broken::TruthFirst);
    breaks("truth first", &broken.alone(), "I1");
}

#[test]
fn a_copy_opens_no_lock() {
    let config = |broken| {
        session(promoted, &[1, 2], broken)
            .deaths(1)
            .alone()
            .late_copies()
    };
    holds("late copies", &config(Broken::Nothing));
    breaks("copy with its lock", &config(Broken::CopyWithItsLock), "I2");
}

#[test]
fn a_copy_is_not_repeated_once_its_truth_is_stored() {
    let broken = session(promoted, &[1, 2], Broken::CopyAgain);
    breaks("copy again", &broken.alone(), "I1");
}

#[test]
fn a_copy_is_kept_alive() {
    let broken = session(kept_alive, &[1, 1], Broken::NoKeepAlive);
    breaks("no keep-alive", &broken.reads().idle().alone(), "I3");
}

#[test]
fn a_copy_from_before_is_not_trusted() {
    let broken = session(filled, &[1, 1], Broken::OldCopiesTrusted);
    breaks(
        "old copies trusted",
        &broken.outdated(C).reads().idle().alone(),
        "I1",
    );
}

#[test]
fn what_is_read_is_copied_under_its_lock() {
    let broken = session(filled, &[1, 2], Broken::CopyWithoutLock);
    breaks("copy without lock", &broken.reads().alone(), "I1");
}

#[test]
fn a_replica_serves_once_nobody_is_served_by_its_place() {
    let broken = session(promoted, &[1, 1], Broken::NoAgreement);
    breaks("no agreement", &broken, "I2");
}

#[test]
fn a_replica_is_full_once_all_has_been_used_or_has_died() {
    let mut legs = filled();
    legs[3].gone = None;
    let config = Config::new(legs, &[1, 1]).session(A).outdated(C);
    breaks("full at once", &config.alone(), "I1");
}

#[test]
fn a_copy_that_was_missed_holds_up_its_write() {
    let broken = session(promoted, &[1, 1], Broken::NoMiss);
    breaks("no miss", &broken.lost(1).alone(), "I1");
}

#[test]
fn the_copy_of_a_refused_write_is_removed() {
    let broken = session(promoted, &[1, 2], Broken::NoUndo);
    breaks("no undo", &broken.takeovers(1).alone(), "I5");
}

#[test]
fn a_copy_that_cannot_be_written_anew_was_missed() {
    let broken = session(promoted, &[1, 2], Broken::NotAnew);
    breaks("not anew", &broken.takeovers(1).deletes().alone(), "I3");
}

#[test]
fn a_server_that_returns_waits_for_its_items_to_die() {
    let config = Config::new(promoted_and_home(false), &[1, 2]).session(A);
    breaks("home at once", &config.alone(), "I2");
}

#[test]
fn copies_die_before_their_server_gets_the_slot() {
    let config = Config::new(moves_to_copies(false), &[1, 1]).session(A);
    breaks("to the copies at once", &config.alone(), "I2");
}

#[test]
fn a_copy_has_no_flag() {
    let broken = session(filled, &[1, 1], Broken::CopyWithFlag);
    breaks("copy with flag", &broken.reads().alone(), "I7");
}

#[test]
fn a_slot_goes_on_once_no_copy_is_under_way() {
    let broken = session(promoted, &[1, 2], Broken::NoWaitForCopies);
    breaks("no wait for copies", &broken.alone(), "I2");
}

#[test]
fn a_replica_takes_the_second_place_where_locks_are_at_the_other_one() {
    let config = Config::new(replica_asked_first(), &[1, 1]).session(A);
    breaks("replica asked first", &config.alone(), "I2");
}

#[test]
fn a_new_session_is_not_copied_by_a_keep_alive() {
    let config = Config::new(promoted(), &[1, 1]).broken(Broken::NewIsCopied);
    breaks(
        "new is copied",
        &config.touches().idle().starts().alone(),
        "I8",
    );
}

#[test]
fn the_first_lock_of_a_session_copies_it() {
    let config = Config::new(promoted(), &[1, 2]).broken(Broken::NoFirstCopy);
    breaks("no first copy", &config.fresh().alone(), "I1");
}

/// What no rule can hold (docs/replicas.md): a write whose lock was broken is at the replica until its
/// place has refused it.
#[test]
fn a_refused_write_is_served_if_its_place_fails_at_once() {
    let broken = session(promoted, &[1, 2], Broken::NoLimits);
    breaks("refused write", &broken.takeovers(1).alone(), "I5");
}
