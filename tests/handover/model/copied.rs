//! A slot with a replica: the real rules keep every invariant, whichever server fails.

use staterouter::handover::Stage::*;

use super::check::holds;
use super::config::{A, C, Config};
use super::legs::{
    Legs, dropped, dropped_early, filled, kept_alive, moves_copied, new_owner_gives_up,
    new_owner_promoted, old_owner_promoted, promoted, promoted_in_the_end,
};

fn session(legs: Legs, rounds: &[u8]) -> Config {
    Config::new(legs(), rounds).session(A)
}

#[test]
fn copies_change_nothing_for_a_slot_at_rest() {
    holds(
        "copied 1+1, session, deletes",
        &session(dropped, &[1, 1]).deletes(),
    );
    holds(
        "copied 1+1, session, 1 lost",
        &session(dropped, &[1, 1]).lost(1),
    );
    holds("copied 1+1, new", &Config::new(dropped(), &[1, 1]).fresh());
}

#[test]
fn a_slot_goes_on_with_its_copies() {
    let alone = |rounds: &[u8]| session(promoted_in_the_end, rounds).alone();
    holds("promoted 1+1, session", &session(promoted, &[1, 1]));
    holds(
        "promoted 1+1, session, reads, deletes, alone",
        &alone(&[1, 1]).reads().deletes(),
    );
    holds(
        "promoted 1+1, session, 1 takeover, alone",
        &alone(&[1, 1]).takeovers(1),
    );
    holds(
        "promoted 1+1, session, 1 lost, alone",
        &alone(&[1, 1]).lost(1),
    );
    holds(
        "promoted 1+1, session, 1 crash, alone",
        &alone(&[1, 1]).crashes(1),
    );
    holds(
        "promoted 1+1, new, starts, alone",
        &Config::new(promoted(), &[1, 1]).starts().alone(),
    );
}

#[test]
fn a_replica_that_was_filled_has_everything() {
    let alone = |rounds: &[u8]| session(filled, rounds).alone();
    holds(
        "filled 1+1, session, reads, alone",
        &alone(&[1, 1]).reads().outdated(C),
    );
    holds(
        "filled 1, session, reads",
        &session(filled, &[1]).reads().outdated(C),
    );
    holds(
        "kept alive 1+1, session, alone",
        &session(kept_alive, &[1, 1]).reads().idle().alone(),
    );
}

#[test]
fn a_handover_goes_on_with_copies() {
    for stage in [Settle, Move2] {
        let config = Config::new(old_owner_promoted(stage), &[1, 1])
            .session(A)
            .alone();
        holds(
            &format!("old owner fails in {stage:?} 1+1, session, alone"),
            &config,
        );
    }
    let config = Config::new(new_owner_promoted(Move1), &[1, 1])
        .session(A)
        .alone();
    holds("new owner fails in Move1 1+1, session, alone", &config);
    holds(
        "new owner fails in Settle 1+1, session",
        &session(new_owner_gives_up, &[1, 1]),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_copied() {
    holds(
        "copied 1+1, session, deletes, 1 crash",
        &session(dropped, &[1, 1]).deletes().crashes(1),
    );
    // Nobody waits for the others before it writes without a copy.
    holds(
        "dropped early 2+1, session, deletes",
        &session(dropped_early, &[2, 1]).deletes(),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_promoted() {
    let two = |rounds: &[u8]| session(promoted, rounds);
    holds("promoted 2+1, session", &two(&[2, 1]));
    holds(
        "promoted 1+1, session, reads, deletes",
        &two(&[1, 1]).reads().deletes(),
    );
    holds(
        "promoted 1+1, session, deletes, 1 takeover",
        &two(&[1, 1]).deletes().takeovers(1),
    );
    holds("promoted 1+1, session, 1 delayed", &two(&[1, 1]).delayed(1));
    holds("promoted 1+1, session, 1 crash", &two(&[1, 1]).crashes(1));
    let alone = |rounds: &[u8]| session(promoted_in_the_end, rounds).deletes().alone();
    holds(
        "promoted 1+2, session, deletes, 1 takeover, alone",
        &alone(&[1, 2]).takeovers(1),
    );
    holds(
        "promoted 2+1, session, deletes, 1 lost, alone",
        &alone(&[2, 1]).lost(1),
    );
    holds(
        "promoted 2+1, session, deletes, 1 delayed, alone",
        &alone(&[2, 1]).delayed(1),
    );
    holds(
        "promoted 2+1, session, deletes, 1 death, alone",
        &alone(&[2, 1]).deaths(1),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_copied_handover() {
    holds("moves copied 1+1, session", &session(moves_copied, &[1, 1]));
    for stage in [Settle, Move1, Move2] {
        let config = || {
            Config::new(old_owner_promoted(stage), &[1, 1])
                .session(A)
                .alone()
                .deletes()
        };
        holds(
            &format!("old owner fails in {stage:?} 1+1, session, deletes, 1 takeover, alone"),
            &config().takeovers(1),
        );
        holds(
            &format!("old owner fails in {stage:?} 1+1, session, deletes, 1 lost, alone"),
            &config().lost(1),
        );
    }
    // A lock broken in a handover can bring back what a mover left behind (docs/handover-proof.md 5).
    for stage in [Move1, Move2] {
        let config = |rounds: &[u8]| Config::new(new_owner_promoted(stage), rounds).session(A);
        holds(
            &format!("new owner fails in {stage:?} 1+1+1, session, alone"),
            &config(&[1, 1, 1]).alone(),
        );
        holds(
            &format!("new owner fails in {stage:?} 1+1, session, deletes"),
            &config(&[1, 1]).deletes(),
        );
    }
}
