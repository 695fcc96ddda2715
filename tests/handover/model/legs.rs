//! The ways of a slot through its stages.

use staterouter::handover::{SlotRoute, Stage, Stage::*};

use super::config::{A, B, Gone, Leg, backend_id};

/// What gives the legs of a run.
pub(crate) type Legs = fn() -> Vec<Leg>;

/// One server and nothing else.
pub(crate) fn stock() -> Vec<Leg> {
    path(&[(A, Steady, A)])
}

/// From A to B. Stages that last twice as long as others stand here twice.
pub(crate) fn add() -> Vec<Leg> {
    path(&[
        (A, Steady, A),
        (B, Settle, A),
        (B, Move1, A),
        (B, Move1, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
    ])
}

/// From A to B and back, one handover after the other.
pub(crate) fn there_and_back() -> Vec<Leg> {
    path(&[
        (B, Move1, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
        (A, Settle, B),
        (A, Move1, B),
        (A, Move1, B),
        (A, Move2, B),
    ])
}

/// A fails, or seems to, and answers again sooner or later; B stands in.
pub(crate) fn failure() -> Vec<Leg> {
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

/// A returns and gets its slots back.
pub(crate) fn home() -> Vec<Leg> {
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

/// A returns and is emptied into its stand-in.
pub(crate) fn emptied() -> Vec<Leg> {
    path(&[
        (B, Away, A),
        (B, Back, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
    ])
}

/// The same, decided while the outdated copies at A were dying.
pub(crate) fn emptied_late() -> Vec<Leg> {
    path(&[
        (B, Away, A),
        (B, Back, A),
        (B, Wait, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Steady, B),
    ])
}

/// The new owner fails in the middle of a handover from A, and gets it back from the beginning.
pub(crate) fn owner_fails() -> Vec<Leg> {
    let mut legs = path(&[
        (B, Move1, A),
        (A, Suspect, B),
        (A, Away, B),
        (A, Back, B),
        (A, Wait, B),
        (B, Settle, A),
        (B, Move1, A),
    ]);
    legs[1].next.push(0);
    legs
}

/// The old owner fails in the middle of a handover to B.
pub(crate) fn old_owner_fails() -> Vec<Leg> {
    let mut legs = path(&[
        (B, Move1, A),
        (B, Suspect, A),
        (B, Away, A),
        (B, Back, A),
        (B, Move2, A),
    ]);
    legs[1].next.push(0);
    legs
}

/// A handover from A to B ends before anything has moved, because B is to be left.
pub(crate) fn called_off() -> Vec<Leg> {
    let mut legs = path(&[
        (A, Steady, A),
        (B, Settle, A),
        (A, Wait, B),
        (A, Move2, B),
        (A, Move2, B),
        (A, Steady, A),
    ]);
    // B has nothing that is outdated, and nobody waits for its death.
    legs[3].gone = None;
    legs
}

/// The same once items move: they stay where they are until what they have left behind has died.
pub(crate) fn turned() -> Vec<Leg> {
    let mut legs = path(&[
        (B, Move1, A),
        (B, Move2, A),
        (B, Move2, A),
        (B, Turned, A),
        (A, Settle, B),
        (A, Move1, B),
        (A, Move1, B),
        (A, Move2, B),
        (A, Move2, B),
        (A, Steady, A),
    ]);
    // Move 2 has lasted as long as move 1, and not a lifetime.
    legs[2].gone = None;
    legs
}

/// Stages one after the other, each as first place, stage, second place.
pub(crate) fn path(stages: &[(u8, Stage, u8)]) -> Vec<Leg> {
    let mut legs: Vec<Leg> = Vec::new();
    for &(first, stage, second) in stages {
        let steady = stage == Stage::Steady;
        let before = legs.last().map(|leg: &Leg| leg.route);
        let gone = match (before, stage) {
            (Some(route), _) if matches!(route.stage, Stage::Wait | Stage::Turned) => {
                route.second.map(|at| (Gone::Debris, at))
            }
            (Some(route), Stage::Move2) if route.stage == stage => {
                route.second.map(|at| (Gone::Session, at))
            }
            (Some(route), Stage::Steady) if route.stage == Stage::Move2 => {
                route.second.map(|at| (Gone::All, at))
            }
            _ => None,
        };
        let replay = before.is_some_and(|route| route.stage == Stage::Back);
        let index = legs.len() as u8;
        if let Some(last) = legs.last_mut() {
            last.next.push(index);
        }
        legs.push(Leg {
            route: SlotRoute {
                first: backend_id(first),
                second: (!steady).then(|| backend_id(second)),
                stage,
                left: staterouter::handover::Places::NONE,
                replica: None,
            },
            next: Vec::new(),
            gone: gone.map(|(gone, at)| (gone, at.id() - 1)),
            replay,
        });
    }
    legs
}
