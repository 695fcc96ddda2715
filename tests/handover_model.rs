//! Visits every state of small worlds in which the real decisions run, and holds what a client may
//! rely on in each of them. `docs/handover-proof.md` says what is run and what was found.

#[path = "handover_model/backend.rs"]
mod backend;
#[path = "handover_model/check.rs"]
mod check;
#[path = "handover_model/config.rs"]
mod config;
#[path = "handover_model/driver.rs"]
mod driver;
#[path = "handover_model/known.rs"]
mod known;
#[path = "handover_model/model.rs"]
mod model;
#[path = "handover_model/state.rs"]
mod state;

use check::{breaks, holds};
use config::{A, Broken, Config, add, stock};

#[test]
fn one_server_keeps_the_invariants() {
    holds("stock 2+2", &Config::new(stock(), &[2, 2]).reads());
    holds(
        "stock 2+2 takeover",
        &Config::new(stock(), &[2, 2]).takeovers(1),
    );
    holds(
        "stock 2+2 deletes takeover",
        &Config::new(stock(), &[2, 2]).deletes().takeovers(1),
    );
    holds(
        "stock 2+2 lost takeovers",
        &Config::new(stock(), &[2, 2]).lost(1).takeovers(2),
    );
    holds(
        "stock 1+1+1 delayed takeover",
        &Config::new(stock(), &[1, 1, 1])
            .delayed(1)
            .takeovers(1)
            .deletes(),
    );
    holds(
        "stock 1+1+1 death",
        &Config::new(stock(), &[1, 1, 1])
            .deaths(1)
            .takeovers(1)
            .deletes(),
    );
    holds(
        "stock 2+1 crash",
        &Config::new(stock(), &[2, 1])
            .crashes(1)
            .takeovers(1)
            .deletes(),
    );
}

#[test]
fn add_without_faults() {
    holds("add 1+1", &Config::new(add(), &[1, 1]));
    holds(
        "add 1+1 session deletes",
        &Config::new(add(), &[1, 1]).session(A).deletes(),
    );
    holds("add 2+1", &Config::new(add(), &[2, 1]));
    holds("add 2+1 session", &Config::new(add(), &[2, 1]).session(A));
}

#[test]
fn add_reads() {
    holds(
        "add 1+1 session deletes reads",
        &Config::new(add(), &[1, 1]).session(A).deletes().reads(),
    );
}

#[test]
fn add_faults() {
    holds(
        "add 1+1+1 session",
        &Config::new(add(), &[1, 1, 1]).session(A),
    );
    holds(
        "add 1+1 takeover",
        &Config::new(add(), &[1, 1]).takeovers(1),
    );
    holds("add 1+1 lost", &Config::new(add(), &[1, 1]).lost(1));
    holds("add 1+1 delayed", &Config::new(add(), &[1, 1]).delayed(1));
    holds("add 1+1 death", &Config::new(add(), &[1, 1]).deaths(1));
    holds(
        "add 1+1 session takeover",
        &Config::new(add(), &[1, 1]).takeovers(1).session(A),
    );
    holds(
        "add 1+1 session lost",
        &Config::new(add(), &[1, 1]).lost(1).session(A),
    );
    holds(
        "add 1+1 session delayed",
        &Config::new(add(), &[1, 1]).delayed(1).session(A),
    );
    holds(
        "add 1+1 session death",
        &Config::new(add(), &[1, 1]).deaths(1).session(A),
    );
}

#[test]
fn x_reads() {
    holds(
        "add 1+1 session reads",
        &Config::new(add(), &[1, 1]).session(A).reads(),
    );
    holds(
        "add 2+1 session reads",
        &Config::new(add(), &[2, 1]).session(A).reads(),
    );
    holds("add 2+1 reads", &Config::new(add(), &[2, 1]).reads());
    holds(
        "add 1+1+1 session reads",
        &Config::new(add(), &[1, 1, 1]).session(A).reads(),
    );
}
#[test]
fn x_lifetime() {
    holds(
        "add 1+1 session short lifetime",
        &Config::new(add(), &[1, 1])
            .session(A)
            .broken(config::Broken::ShortLifetime),
    );
    holds(
        "add 1+1 session reads short lifetime",
        &Config::new(add(), &[1, 1])
            .session(A)
            .reads()
            .broken(config::Broken::ShortLifetime),
    );
}
#[test]
fn x_deletes() {
    holds(
        "add 2+1 session deletes",
        &Config::new(add(), &[2, 1]).session(A).deletes(),
    );
    holds(
        "add 1+1 session deletes takeover",
        &Config::new(add(), &[1, 1])
            .session(A)
            .deletes()
            .takeovers(1),
    );
    holds(
        "add 1+1 session deletes lost",
        &Config::new(add(), &[1, 1]).session(A).deletes().lost(1),
    );
    holds(
        "add 1+1 session deletes delayed",
        &Config::new(add(), &[1, 1]).session(A).deletes().delayed(1),
    );
    holds(
        "add 1+1 session deletes death",
        &Config::new(add(), &[1, 1]).session(A).deletes().deaths(1),
    );
    holds(
        "add 2+1 session deletes lost",
        &Config::new(add(), &[2, 1]).session(A).deletes().lost(1),
    );
    holds(
        "add 2+1 session deletes takeover",
        &Config::new(add(), &[2, 1])
            .session(A)
            .deletes()
            .takeovers(1),
    );
    holds(
        "add 2+1 session deletes delayed",
        &Config::new(add(), &[2, 1]).session(A).deletes().delayed(1),
    );
}
#[test]
fn x_deletes2() {
    holds(
        "add 1+1 session deletes death takeover",
        &Config::new(add(), &[1, 1])
            .session(A)
            .deletes()
            .deaths(1)
            .takeovers(1),
    );
    holds(
        "add 1+1 session deletes lost takeover",
        &Config::new(add(), &[1, 1])
            .session(A)
            .deletes()
            .lost(1)
            .takeovers(1),
    );
    holds(
        "add 1+1 session deletes delayed takeover",
        &Config::new(add(), &[1, 1])
            .session(A)
            .deletes()
            .delayed(1)
            .takeovers(1),
    );
}
#[test]
fn x_crash() {
    holds(
        "add 2+1 session crash",
        &Config::new(add(), &[2, 1]).session(A).crashes(1),
    );
    holds(
        "add 2+1 session crash deletes takeover",
        &Config::new(add(), &[2, 1])
            .session(A)
            .crashes(1)
            .deletes()
            .takeovers(1),
    );
    holds(
        "add 2+1 session expiry deletes takeover",
        &Config::new(add(), &[2, 1])
            .session(A)
            .expiries(1)
            .deletes()
            .takeovers(1),
    );
}
#[test]
fn x_delayed() {
    holds("add 2+1 delayed", &Config::new(add(), &[2, 1]).delayed(1));
    holds(
        "add 2+1 session delayed takeover",
        &Config::new(add(), &[2, 1])
            .session(A)
            .delayed(1)
            .takeovers(1),
    );
    holds(
        "add 2+1 session lost takeover",
        &Config::new(add(), &[2, 1]).session(A).lost(1).takeovers(1),
    );
    holds(
        "add 2+1 session death takeover",
        &Config::new(add(), &[2, 1])
            .session(A)
            .deaths(1)
            .takeovers(1),
    );
    holds("add 2+1 lost", &Config::new(add(), &[2, 1]).lost(1));
}

use config::{B, Leg, path};
use staterouter::handover::Stage::{self, *};

fn failure() -> Vec<Leg> {
    let mut legs = path(&[
        (A, Steady, A),
        (B, Suspect, A),
        (B, Away, A),
        (B, Back, A),
        (B, Wait, A),
    ]);
    legs[1].next.push(0);
    legs
}
fn home() -> Vec<Leg> {
    path(&[
        (B, Away, A),
        (B, Back, A),
        (B, Wait, A),
        (A, Settle, B),
        (A, Move1, B),
        (A, Move1, B),
        (A, Move2, B),
        (A, Move2, B),
        (A, Steady, A),
    ])
}
fn elsewhere() -> Vec<Leg> {
    path(&[
        (B, Away, A),
        (B, Back, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
    ])
}
fn elsewhere_late() -> Vec<Leg> {
    path(&[
        (B, Away, A),
        (B, Back, A),
        (B, Wait, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
    ])
}
fn rounds(name: &str, legs: Vec<Leg>) {
    let c = |rounds: &[u8]| Config::new(legs.clone(), rounds).session(A);
    holds(&format!("{name} 1+1"), &c(&[1, 1]));
    holds(
        &format!("{name} 1+1 new"),
        &Config::new(legs.clone(), &[1, 1]),
    );
    holds(
        &format!("{name} 1+1 deletes reads"),
        &c(&[1, 1]).deletes().reads(),
    );
    holds(&format!("{name} 2+1"), &c(&[2, 1]));
    holds(&format!("{name} 2+1 deletes"), &c(&[2, 1]).deletes());
    holds(
        &format!("{name} 1+1 deletes takeover"),
        &c(&[1, 1]).deletes().takeovers(1),
    );
    holds(
        &format!("{name} 1+1 deletes lost"),
        &c(&[1, 1]).deletes().lost(1),
    );
    holds(
        &format!("{name} 1+1 deletes delayed"),
        &c(&[1, 1]).deletes().delayed(1),
    );
    holds(
        &format!("{name} 1+1 deletes death"),
        &c(&[1, 1]).deletes().deaths(1),
    );
    holds(&format!("{name} 2+1 delayed"), &c(&[2, 1]).delayed(1));
}
#[test]
fn y_failure() {
    rounds("failure", failure());
}
#[test]
fn y_home() {
    rounds("home", home());
}
#[test]
fn y_elsewhere() {
    rounds("elsewhere", elsewhere());
}
#[test]
fn y_elsewhere_late() {
    rounds("elsewhere late", elsewhere_late());
}

fn move1_once() -> Vec<Leg> {
    path(&[
        (A, Steady, A),
        (B, Settle, A),
        (B, Move1, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
    ])
}
fn no_move1() -> Vec<Leg> {
    path(&[
        (A, Steady, A),
        (B, Settle, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
    ])
}
#[test]
fn z1() {
    let c = |r: &[u8]| Config::new(add(), r).session(A);
    breaks(
        "no second look",
        &c(&[1, 1]).broken(Broken::NoSecondLook),
        &["I3"],
    );
    breaks(
        "no move1",
        &Config::new(no_move1(), &[2, 1]),
        &["I6", "I1", "I3", "I2"],
    );
    breaks(
        "no tags",
        &c(&[2, 1]).broken(Broken::NoTags).takeovers(1),
        &["I5", "I6"],
    );
    breaks(
        "short stages",
        &c(&[1, 1]).broken(Broken::ShortStages),
        &["I3"],
    );
    breaks(
        "old lock",
        &c(&[1, 1]).broken(Broken::OldLock).lost(1),
        &["I2"],
    );
    breaks(
        "flag believed",
        &c(&[1, 1]).broken(Broken::FlagBelieved),
        &["I7"],
    );
    breaks(
        "no clearing",
        &c(&[2, 1])
            .deletes()
            .broken(Broken::NoClearing)
            .takeovers(1)
            .lost(1),
        &["I4"],
    );
    breaks(
        "create at first",
        &Config::new(add(), &[1, 1]).broken(Broken::CreateAtFirst),
        &["I6", "I1", "I3", "I2"],
    );
}
#[test]
fn z2() {
    let c = |r: &[u8]| Config::new(add(), r).session(A);
    breaks(
        "force young",
        &c(&[1, 1]).deletes().broken(Broken::ForceYoung),
        &["I4"],
    );
    breaks(
        "force young lost takeover",
        &c(&[2, 1])
            .deletes()
            .broken(Broken::ForceYoung)
            .lost(1)
            .takeovers(1),
        &["I4"],
    );
}
#[test]
fn z3() {
    let h = || Config::new(home(), &[1, 1]).session(A).deletes();
    breaks("no owed", &h().broken(Broken::NoOwed), &["I4"]);
    breaks("own owed only", &h().broken(Broken::OwnOwedOnly), &["I4"]);
    let no_back = path(&[(B, Away, A), (B, Wait, A)]);
    breaks(
        "no back",
        &Config::new(no_back, &[2, 1]).session(A),
        &["I3"],
    );
    let no_wait = path(&[
        (B, Away, A),
        (B, Back, A),
        (A, Settle, B),
        (A, Move1, B),
        (A, Move1, B),
        (A, Move2, B),
    ]);
    breaks(
        "no wait",
        &Config::new(no_wait, &[2, 1]).session(A),
        &["I1", "I6"],
    );
    let fork = path(&[(A, Steady, A), (B, Away, A)]);
    breaks(
        "no agreement",
        &Config::new(fork, &[1, 1]).session(A),
        &["I3"],
    );
    let aba = path(&[
        (A, Steady, A),
        (B, Settle, A),
        (B, Move1, A),
        (B, Move1, A),
        (A, Settle, B),
        (A, Move1, B),
    ]);
    breaks(
        "aba at once",
        &Config::new(aba, &[2, 1]).session(A),
        &["I6", "I1", "I2"],
    );
}
#[test]
fn z4() {
    const S: &[Stage] = &[Settle];
    const M: &[Stage] = &[Move1, Move2];
    holds(
        "no confirm in move, reads",
        &Config::new(add(), &[2, 1])
            .session(A)
            .reads()
            .delayed(1)
            .broken(Broken::NoConfirm(M)),
    );
    holds(
        "no confirm in move, reads new",
        &Config::new(add(), &[2, 1])
            .reads()
            .delayed(1)
            .broken(Broken::NoConfirm(M)),
    );
    breaks(
        "no confirm 2+1 delayed",
        &Config::new(add(), &[2, 1])
            .delayed(1)
            .broken(Broken::NoConfirm(S)),
        &["I3", "I2", "I1"],
    );
}
#[test]
fn z5() {
    breaks(
        "move1 once 2+1 delayed",
        &Config::new(move1_once(), &[2, 1]).delayed(1),
        &["I3", "I2", "I1"],
    );
}
#[test]
fn z6() {
    breaks(
        "move1 once 1+1+1",
        &Config::new(move1_once(), &[1, 1, 1]),
        &["I3", "I2", "I1"],
    );
}
#[test]
fn z7() {
    const S: &[Stage] = &[Settle];
    breaks(
        "no confirm 1+1+1",
        &Config::new(add(), &[1, 1, 1]).broken(Broken::NoConfirm(S)),
        &["I3", "I2", "I1"],
    );
}
