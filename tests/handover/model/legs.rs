//! The ways of a slot through its stages.

use staterouter::handover::{
    Places, Replica, ReplicaPhase, ReplicaPhase::*, SlotRoute, Stage, Stage::*,
};

use super::config::{A, B, C, Gone, Leg, backend_id};

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
    let routes = stages
        .iter()
        .map(|&(first, stage, second)| route(first, stage, second));
    chain(routes.collect())
}

fn route(first: u8, stage: Stage, second: u8) -> SlotRoute {
    SlotRoute {
        first: backend_id(first),
        second: (stage != Steady).then(|| backend_id(second)),
        stage,
        left: Places::NONE,
        replica: None,
    }
}

fn chain(routes: Vec<SlotRoute>) -> Vec<Leg> {
    let mut legs: Vec<Leg> = Vec::new();
    for route in routes {
        let before = legs.last().map(|leg: &Leg| leg.route);
        let gone = match (before, route.stage) {
            (Some(route), _) if matches!(route.stage, Stage::Wait | Stage::Turned) => {
                route.second.map(|at| (Gone::Debris, at))
            }
            (Some(route), Stage::Move2) if route.stage == Stage::Move2 => {
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
            route,
            next: Vec::new(),
            gone: gone.map(|(gone, at)| (gone, at.id() - 1)),
            replay,
        });
    }
    legs
}

/// A slot of which C keeps copies.
fn copied(first: u8, stage: Stage, second: u8, phase: ReplicaPhase) -> SlotRoute {
    let replica = Replica {
        backend_id: backend_id(C),
        phase,
        since_ms: 0,
    };
    SlotRoute {
        replica: Some(replica.into()),
        ..route(first, stage, second)
    }
}

/// A slot that has left a server with items that are outdated.
fn left(at: u8, route: SlotRoute) -> SlotRoute {
    SlotRoute {
        left: [backend_id(at)].into_iter().collect(),
        ..route
    }
}

/// C keeps copies, and is dropped.
pub(crate) fn dropped() -> Vec<Leg> {
    chain(vec![
        copied(A, Steady, A, Full),
        copied(A, Steady, A, Dropping),
        left(C, route(A, Steady, A)),
    ])
}

/// A fails, or seems to, and the slot goes on at C.
pub(crate) fn promoted() -> Vec<Leg> {
    let mut legs = chain(vec![
        copied(A, Steady, A, Full),
        copied(C, Suspect, A, Full),
        left(A, route(C, Steady, C)),
    ]);
    legs[1].next.push(0);
    legs
}

/// A seems to fail once, and then fails.
pub(crate) fn promoted_in_the_end() -> Vec<Leg> {
    let mut legs = chain(vec![
        copied(A, Steady, A, Full),
        copied(C, Suspect, A, Full),
        copied(A, Steady, A, Full),
        copied(C, Suspect, A, Full),
        left(A, route(C, Steady, C)),
    ]);
    legs[1].next.push(4);
    legs
}

/// C is filled, and then A fails.
pub(crate) fn filled() -> Vec<Leg> {
    let mut legs = chain(vec![
        route(A, Steady, A),
        copied(A, Steady, A, Joining),
        copied(A, Steady, A, Filling),
        copied(A, Steady, A, Full),
        copied(C, Suspect, A, Full),
        left(A, route(C, Steady, C)),
    ]);
    legs[3].gone = Some((Gone::Unused, C));
    legs
}

/// C is filled, and dropped before it is full.
pub(crate) fn dropped_early() -> Vec<Leg> {
    chain(vec![
        copied(A, Steady, A, Filling),
        left(C, route(A, Steady, A)),
    ])
}

/// C has kept copies for longer than a session lives that nobody uses, and then A fails.
pub(crate) fn kept_alive() -> Vec<Leg> {
    let mut legs = chain(vec![
        copied(A, Steady, A, Full),
        copied(A, Steady, A, Full),
        copied(C, Suspect, A, Full),
        left(A, route(C, Steady, C)),
    ]);
    legs[1].gone = Some((Gone::Unused, C));
    legs
}

/// A handover from A to B while C keeps copies.
pub(crate) fn moves_copied() -> Vec<Leg> {
    let mut legs = add();
    for leg in &mut legs {
        leg.route.replica = copied(A, Steady, A, Full).replica;
    }
    legs
}

/// The old owner fails in this stage of a handover from A to B: C takes its place.
pub(crate) fn old_owner_promoted(stage: Stage) -> Vec<Leg> {
    let behind: &[Stage] = match stage {
        Settle => &[Settle, Move1, Move1, Move2, Move2, Steady],
        Move1 => &[Move1, Move1, Move2, Move2, Steady],
        _ => &[Move2, Move2, Steady],
    };
    let mut routes = vec![copied(B, stage, A, Full), copied(B, Suspect, A, Full)];
    routes.extend(behind.iter().map(|&stage| left(A, route(B, stage, C))));
    let mut legs = chain(routes);
    legs[1].next.push(0);
    legs
}

/// The new owner fails in this stage of a handover from A to B: what has moved comes back from C.
pub(crate) fn new_owner_promoted(stage: Stage) -> Vec<Leg> {
    let behind: &[Stage] = &[Move2, Move2, Steady];
    let mut routes = vec![copied(B, stage, A, Full), copied(A, Suspect, B, Full)];
    routes.extend(behind.iter().map(|&stage| left(B, route(A, stage, C))));
    let mut legs = chain(routes);
    legs[1].next.push(0);
    legs
}

/// The new owner fails before anything has moved.
pub(crate) fn new_owner_gives_up() -> Vec<Leg> {
    chain(vec![
        copied(B, Settle, A, Full),
        copied(A, Suspect, B, Full),
        left(B, copied(A, Steady, A, Full)),
    ])
}

/// A fails, the slot goes on at C, and A gets it back: `waits` says whether what it has died before.
pub(crate) fn promoted_and_home(waits: bool) -> Vec<Leg> {
    let mut legs = chain(vec![
        copied(A, Steady, A, Full),
        copied(C, Suspect, A, Full),
        left(A, route(C, Steady, C)),
        route(A, Settle, C),
        route(A, Move1, C),
        route(A, Move1, C),
        route(A, Move2, C),
    ]);
    legs[3].gone = waits.then_some((Gone::All, A));
    legs
}

/// A handover to where the copies are: `waits` says whether they die before.
pub(crate) fn moves_to_copies(waits: bool) -> Vec<Leg> {
    let mut legs = chain(vec![
        copied(A, Steady, A, Full),
        copied(A, Steady, A, Dropping),
        left(C, route(A, Steady, A)),
        route(C, Settle, A),
        route(C, Move1, A),
        route(C, Move1, A),
        route(C, Move2, A),
    ]);
    legs[3].gone = waits.then_some((Gone::All, C));
    legs
}

/// The new owner fails, and C takes its place as if nothing had been left at A.
pub(crate) fn replica_asked_first() -> Vec<Leg> {
    chain(vec![
        copied(B, Settle, A, Full),
        copied(B, Move1, A, Full),
        copied(A, Suspect, B, Full),
        left(B, route(C, Move2, A)),
    ])
}
