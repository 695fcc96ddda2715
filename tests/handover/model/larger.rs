//! Larger worlds:
//! `cargo test --release --test handover model:: -- --ignored --nocapture --test-threads=1`.

use super::check::holds;
use super::config::{A, Config};
use super::legs::{
    Legs, add, called_off, emptied, emptied_late, failure, home, old_owner_fails, owner_fails,
    stock, there_and_back, turned,
};

fn session(legs: Legs, rounds: &[u8]) -> Config {
    Config::new(legs(), rounds).session(A)
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_stock() {
    let new = |rounds: &[u8]| Config::new(stock(), rounds);
    holds(
        "stock 1+1+1, deletes, 1 delayed, 1 takeover",
        &new(&[1, 1, 1]).deletes().delayed(1).takeovers(1),
    );
    holds(
        "stock 1+1+1, deletes, 1 death, 1 takeover",
        &new(&[1, 1, 1]).deletes().deaths(1).takeovers(1),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_add() {
    holds("add 1+1+1, session", &session(add, &[1, 1, 1]));
    holds("add 2+1, new", &Config::new(add(), &[2, 1]));
    holds("add 2+2, session", &session(add, &[2, 2]));
    holds(
        "add 2+1, session, reads, deletes",
        &session(add, &[2, 1]).reads().deletes(),
    );
    holds("add 2+1, new, reads", &Config::new(add(), &[2, 1]).reads());
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_called_off() {
    let deletes = || session(called_off, &[1, 1]).deletes();
    holds("called off 2+1, session", &session(called_off, &[2, 1]));
    holds(
        "called off 1+1, session, deletes, 1 takeover",
        &deletes().takeovers(1),
    );
    holds(
        "called off 1+1, session, deletes, 1 lost",
        &deletes().lost(1),
    );
    holds(
        "called off 1+1, session, deletes, 1 delayed",
        &deletes().delayed(1),
    );
    holds(
        "called off 1+1, session, deletes, 1 death",
        &deletes().deaths(1),
    );
    holds(
        "called off 1+1, session, 1 crash",
        &session(called_off, &[1, 1]).crashes(1),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_add_one_fault() {
    let deletes = || session(add, &[2, 1]).deletes();
    holds(
        "add 2+1, session, deletes, 1 takeover",
        &deletes().takeovers(1),
    );
    holds("add 2+1, session, deletes, 1 lost", &deletes().lost(1));
    holds(
        "add 2+1, session, deletes, 1 delayed",
        &deletes().delayed(1),
    );
    holds("add 2+1, session, deletes, 1 death", &deletes().deaths(1));
    holds(
        "add 2+1, session, deletes, 1 expiry",
        &deletes().expiries(1),
    );
    holds(
        "add 2+1, session, 1 crash",
        &session(add, &[2, 1]).crashes(1),
    );
    let new = || Config::new(add(), &[2, 1]);
    holds("add 2+1, new, 1 takeover", &new().takeovers(1));
    holds("add 2+1, new, 1 lost", &new().lost(1));
    holds("add 2+1, new, 1 delayed", &new().delayed(1));
    holds("add 2+1, new, 1 death", &new().deaths(1));
    let reads = || Config::new(add(), &[1, 1]).reads();
    holds("add 1+1, new, reads, 1 lost", &reads().lost(1));
    holds("add 1+1, new, reads, 1 delayed", &reads().delayed(1));
    holds("add 1+1, new, reads, 1 death", &reads().deaths(1));
    holds("add 1+1, new, reads, 1 takeover", &reads().takeovers(1));
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_add_two_faults() {
    let session = || session(add, &[2, 1]);
    holds(
        "add 2+1, session, 1 delayed, 1 takeover",
        &session().delayed(1).takeovers(1),
    );
    holds(
        "add 2+1, session, 1 lost, 1 takeover",
        &session().lost(1).takeovers(1),
    );
    holds(
        "add 2+1, session, 1 death, 1 takeover",
        &session().deaths(1).takeovers(1),
    );
    holds(
        "add 2+1, session, 1 crash, 1 takeover",
        &session().crashes(1).takeovers(1),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_refusals() {
    let session = || session(add, &[1, 1]).refused(2);
    holds(
        "add 1+1, session, reads, deletes, 2 refused",
        &session().reads().deletes(),
    );
    holds(
        "add 1+1, session, 1 takeover, 2 refused",
        &session().takeovers(1),
    );
    holds("add 1+1, session, 1 lost, 2 refused", &session().lost(1));
    holds(
        "add 1+1, session, 1 crash, 2 refused",
        &session().crashes(1),
    );
    holds(
        "add 1+1, new, 2 refused",
        &Config::new(add(), &[1, 1]).refused(2),
    );
    holds(
        "add 1+1, new, 1 delayed, 1 refused",
        &Config::new(add(), &[1, 1]).delayed(1).refused(1),
    );
    holds(
        "emptied 1+1, session, 1 refused",
        &Config::new(emptied(), &[1, 1]).session(A).refused(1),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_there_and_back() {
    holds(
        "there and back 2+1, session",
        &session(there_and_back, &[2, 1]),
    );
    holds(
        "there and back 1+1, session, deletes, 1 lost",
        &session(there_and_back, &[1, 1]).deletes().lost(1),
    );
    holds(
        "there and back 1+1, session, deletes, 1 delayed",
        &session(there_and_back, &[1, 1]).deletes().delayed(1),
    );
    holds(
        "there and back 1+1, session, 1 death, 1 takeover",
        &session(there_and_back, &[1, 1]).deaths(1).takeovers(1),
    );
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_turns() {
    every_fault("turned", turned);
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_failures() {
    every_fault("failure", failure);
    every_fault("home", home);
    every_fault("emptied", emptied);
    every_fault("emptied late", emptied_late);
}

#[test]
#[ignore = "millions of states, minutes optimised"]
fn larger_failures_in_a_handover() {
    every_fault("owner fails", owner_fails);
    every_fault("old owner fails", old_owner_fails);
}

fn every_fault(name: &str, legs: Legs) {
    holds(
        &format!("{name} 2+1, session, deletes"),
        &session(legs, &[2, 1]).deletes(),
    );
    holds(&format!("{name} 1+1, new"), &Config::new(legs(), &[1, 1]));
    let one = || session(legs, &[1, 1]).deletes();
    holds(
        &format!("{name} 1+1, session, reads, deletes"),
        &one().reads(),
    );
    holds(
        &format!("{name} 1+1, session, deletes, 1 takeover"),
        &one().takeovers(1),
    );
    holds(
        &format!("{name} 1+1, session, deletes, 1 lost"),
        &one().lost(1),
    );
    holds(
        &format!("{name} 1+1, session, deletes, 1 delayed"),
        &one().delayed(1),
    );
    holds(
        &format!("{name} 1+1, session, deletes, 1 death"),
        &one().deaths(1),
    );
    holds(
        &format!("{name} 1+1, session, deletes, 1 crash"),
        &one().crashes(1),
    );
    holds(
        &format!("{name} 2+1, session, deletes, alone"),
        &session(legs, &[2, 1]).deletes().alone(),
    );
}

#[test]
#[ignore = "tens of millions of states, some minutes each optimised"]
fn larger_three_requests() {
    holds("add 1+1+1, new", &Config::new(add(), &[1, 1, 1]));
    holds(
        "add 1+1+1, session, deletes",
        &session(add, &[1, 1, 1]).deletes(),
    );
    holds(
        "add 1+1+1, session, reads",
        &session(add, &[1, 1, 1]).reads(),
    );
    holds("home 1+1+1, session", &session(home, &[1, 1, 1]));
    holds("emptied 1+1+1, session", &session(emptied, &[1, 1, 1]));
}
