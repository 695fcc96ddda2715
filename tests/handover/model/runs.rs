//! The real rules keep every invariant. Sizes are such that all runs take a minute or two
//! unoptimised; `larger` has those that take longer.

use staterouter::handover::Stage::Move1;

use super::check::{breaks, holds};
use super::config::{A, B, Config};
use super::legs::{
    add, called_off, emptied, emptied_late, failure, home, old_owner_fails, owner_fails, path,
    stock, there_and_back, turned,
};

/// What is asked of the proxies holds for one server alone: the invariants ask no more than that.
#[test]
fn one_server_keeps_the_invariants() {
    let new = |rounds: &[u8]| Config::new(stock(), rounds);
    holds("stock 2+2, reads", &new(&[2, 2]).reads());
    holds(
        "stock 2+2, deletes, 1 takeover",
        &new(&[2, 2]).deletes().takeovers(1),
    );
    holds(
        "stock 2+2, 1 lost, 2 takeovers",
        &new(&[2, 2]).lost(1).takeovers(2),
    );
    holds(
        "stock 2+1, deletes, 1 crash, 1 takeover",
        &new(&[2, 1]).deletes().crashes(1).takeovers(1),
    );
    holds(
        "stock 2+1, deletes, 1 delayed, 1 takeover",
        &new(&[2, 1]).deletes().delayed(1).takeovers(1),
    );
    holds("stock 1+1+1, deletes", &new(&[1, 1, 1]).deletes());
}

#[test]
fn a_session_moves() {
    let session = |rounds: &[u8]| Config::new(add(), rounds).session(A);
    holds("add 2+1, session", &session(&[2, 1]));
    holds(
        "add 1+1, session, reads, deletes",
        &session(&[1, 1]).reads().deletes(),
    );
    holds(
        "add 1+1, session, deletes, 1 expiry",
        &session(&[1, 1]).deletes().expiries(1),
    );
}

#[test]
fn a_session_begins_in_a_handover() {
    holds("add 1+1, new", &Config::new(add(), &[1, 1]));
    holds(
        "add 1+1, new, 1 takeover",
        &Config::new(add(), &[1, 1]).takeovers(1),
    );
}

#[test]
fn a_session_moves_with_one_fault() {
    let session = || Config::new(add(), &[1, 1]).session(A);
    holds(
        "add 1+1, session, deletes, 1 takeover",
        &session().deletes().takeovers(1),
    );
    holds(
        "add 1+1, session, deletes, 1 lost",
        &session().deletes().lost(1),
    );
    holds("add 1+1, session, 1 delayed", &session().delayed(1));
    holds(
        "add 1+1, session, deletes, 1 death",
        &session().deletes().deaths(1),
    );
    holds("add 1+1, session, 1 crash", &session().crashes(1));
}

#[test]
fn a_session_moves_there_and_back() {
    holds(
        "there and back 1+1, session",
        &Config::new(there_and_back(), &[1, 1]).session(A),
    );
}

#[test]
fn a_handover_is_called_off_before_anything_moves() {
    let session = || Config::new(called_off(), &[1, 1]).session(A);
    holds(
        "called off 1+1, session, reads, deletes",
        &session().reads().deletes(),
    );
    holds(
        "called off 1+1, session, deletes, 1 lost",
        &session().deletes().lost(1),
    );
    holds("called off 1+1, new", &Config::new(called_off(), &[1, 1]));
}

#[test]
fn a_handover_turns_round_once_items_move() {
    let session = || Config::new(turned(), &[1, 1]).session(A);
    holds("turned 1+1, session, deletes", &session().deletes());
    holds("turned 1+1, new", &Config::new(turned(), &[1, 1]));
}

#[test]
fn a_stand_in_serves() {
    let session = || Config::new(failure(), &[1, 1]).session(A);
    holds(
        "failure 1+1, session, reads, deletes",
        &session().reads().deletes(),
    );
    holds(
        "failure 2+1, session",
        &Config::new(failure(), &[2, 1]).session(A),
    );
    holds(
        "failure 1+1, session, deletes, alone",
        &session().deletes().alone(),
    );
    holds("failure 1+1, session, 1 lost", &session().lost(1));
}

#[test]
fn a_server_comes_back() {
    let session = || Config::new(home(), &[1, 1]).session(A);
    holds("home 1+1, session, deletes", &session().deletes());
    holds(
        "home 1+1, session, deletes, 1 lost, alone",
        &session().deletes().lost(1).alone(),
    );
    holds(
        "emptied 1+1, session",
        &Config::new(emptied(), &[1, 1]).session(A),
    );
    holds(
        "emptied late 1+1, session",
        &Config::new(emptied_late(), &[1, 1]).session(A),
    );
}

#[test]
fn a_server_fails_in_a_handover() {
    holds(
        "owner fails 1+1, session",
        &Config::new(owner_fails(), &[1, 1]).session(A),
    );
    holds(
        "old owner fails 1+1, session",
        &Config::new(old_owner_fails(), &[1, 1]).session(A),
    );
}

/// What its new place does not take stays where it is, and is served there.
#[test]
fn a_session_stays_that_its_new_place_refuses() {
    let session = || Config::new(add(), &[1, 1]).session(A).refused(1);
    holds(
        "add 1+1, session, reads, deletes, 1 refused",
        &session().reads().deletes(),
    );
    holds(
        "add 1+1, session, 1 takeover, 1 refused",
        &session().takeovers(1),
    );
    holds("add 1+1, session, 1 lost, 1 refused", &session().lost(1));
    holds(
        "add 1+1, new, 1 refused",
        &Config::new(add(), &[1, 1]).refused(1),
    );
}

/// Whoever creates a session and then acquires it is told that it is new, wherever its slot is, and
/// whatever a server that was away has of an earlier one.
#[test]
fn a_new_session_is_announced_as_new() {
    for (name, legs) in [
        ("called off", called_off()),
        ("failure", failure()),
        ("home", home()),
        ("emptied", emptied()),
        ("emptied late", emptied_late()),
        ("owner fails", owner_fails()),
        ("old owner fails", old_owner_fails()),
    ] {
        for (what, config) in [
            ("new", Config::new(legs.clone(), &[1])),
            ("session", Config::new(legs, &[1]).session(A)),
        ] {
            holds(&format!("{name} 1, {what}, starts"), &config.starts());
        }
    }
    holds("add 2, new, starts", &Config::new(add(), &[2]).starts());
}

/// The two ways in which it is not (docs/handover.md 7). Who takes a copy that another page's request
/// is just making cannot know that it is of a new session; and an old lock at a returned server may
/// be a dead mover's.
#[test]
fn a_new_session_may_not_be_announced_when_somebody_else_has_a_lock() {
    let two_pages = Config::new(path(&[(B, Move1, A)]), &[1, 1]);
    breaks("two first pages", &two_pages.starts(), "I8");
    let outdated_lock = Config::new(failure(), &[2]);
    breaks("a lock from before", &outdated_lock.starts(), "I8");
}
