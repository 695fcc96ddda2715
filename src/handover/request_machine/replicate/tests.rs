//! What a replica adds to each request, question by question.

use super::super::{Cookie, SlotRoute};
use super::*;
use crate::handover::NO_LOCK;

/// The place of the slot, its other one, and its replica.
const FIRST: u8 = 1;
const SECOND: u8 = 2;
const COPIES: u8 = 3;

fn place(id: u8) -> BackendId {
    BackendId::new(id).unwrap()
}

fn replica(phase: ReplicaPhase) -> ReplicaRoute {
    ReplicaRoute {
        at: place(COPIES),
        phase,
        since_ms: 0,
        has_copy: phase == ReplicaPhase::Full,
        is_fresh: true,
    }
}

fn steady(replica: ReplicaRoute) -> SlotRoute {
    SlotRoute {
        replica: Some(replica),
        ..SlotRoute::steady(place(FIRST))
    }
}

fn pair(stage: Stage, replica: ReplicaRoute) -> SlotRoute {
    SlotRoute {
        second: Some(place(SECOND)),
        stage,
        ..steady(replica)
    }
}

fn lock(id: u8, counter: u32) -> Cookie {
    Cookie::Tagged {
        backend_id: place(id),
        counter,
    }
}

const fn done(counter: u32, flag: bool) -> SubrequestReply {
    SubrequestReply::Done { counter, flag }
}

const TAKEN: SubrequestReply = SubrequestReply::Locked {
    counter: 9,
    age_s: 1,
};

/// What a request asks, given these answers, and how it ends.
fn run(
    route: SlotRoute,
    request: ClientRequest,
    replies: &[SubrequestReply],
) -> (Vec<Subrequest>, Step) {
    let (mut machine, mut step) = RequestMachine::start(route, request, 10);
    let mut asked = Vec::new();
    for reply in replies {
        let Step::Ask(ask) = step else { break };
        asked.push(ask);
        step = machine.next(*reply);
    }
    (asked, step)
}

fn client(id: u8, counter: Option<u32>) -> Subrequest {
    let at = place(id);
    Subrequest::Client { at, counter }
}

fn remove_copy() -> Subrequest {
    let (at, counter) = (place(COPIES), COPY_LOCK);
    Subrequest::Remove { at, counter }
}

fn refresh(from: Option<u8>) -> Option<Subrequest> {
    let (at, from) = (place(COPIES), from.map(place));
    Some(Subrequest::Refresh { at, from })
}

fn anew() -> Option<Subrequest> {
    let (at, from) = (place(COPIES), place(FIRST));
    Some(Subrequest::CopyAnew { at, from })
}

fn pass(behind: Option<Subrequest>) -> Step {
    let clear_flag = false;
    Step::Pass { clear_flag, behind }
}

const COPIED: [ReplicaPhase; 3] = [
    ReplicaPhase::Joining,
    ReplicaPhase::Filling,
    ReplicaPhase::Full,
];

#[test]
fn a_write_reaches_the_replica_before_its_place() {
    let at = place(COPIES);
    let puts = ClientRequest::Put(lock(FIRST, 7));
    let removes = ClientRequest::Remove(lock(FIRST, 7));
    for phase in COPIED {
        let route = steady(replica(phase));
        let (asked, step) = run(route, puts, &[done(0, false); 2]);
        assert_eq!(asked, [Subrequest::Copy { at }, client(FIRST, Some(7))]);
        assert_eq!(step, pass(None));
        for copy in [done(0, false), SubrequestReply::Absent] {
            let (asked, step) = run(route, removes, &[copy, done(0, false)]);
            assert_eq!(asked, [remove_copy(), client(FIRST, Some(7))]);
            assert_eq!(step, pass(None));
        }
    }
}

#[test]
fn a_write_whose_copy_is_not_certain_is_not_made_before_the_replica_is_dropped() {
    let at = place(COPIES);
    let route = steady(replica(ReplicaPhase::Full));
    for request in [
        ClientRequest::Put(lock(FIRST, 7)),
        ClientRequest::Remove(lock(FIRST, 7)),
    ] {
        for copy in [SubrequestReply::Unknown, SubrequestReply::Refused] {
            let (asked, step) = run(route, request, &[copy, done(0, false)]);
            assert_eq!(asked[1], Subrequest::Miss { at });
            assert_eq!(step, Step::dropped(Refusal::CopyMissed));
        }
        let (asked, step) = run(route, request, &[TAKEN, done(0, false)]);
        assert_eq!(asked[1], Subrequest::Miss { at });
        assert_eq!(step, Step::dropped(Refusal::CopyLocked));
        let dropping = steady(replica(ReplicaPhase::Dropping));
        let (asked, step) = run(dropping, request, &[]);
        assert!(asked.is_empty());
        assert_eq!(step, Step::dropped(Refusal::CopyMissed));
    }
}

#[test]
fn a_write_that_is_refused_leaves_the_true_item_at_the_replica() {
    let at = place(COPIES);
    let route = steady(replica(ReplicaPhase::Full));
    let puts = ClientRequest::Put(lock(FIRST, 7));
    for refusal in [TAKEN, SubrequestReply::Absent, SubrequestReply::Refused] {
        let replies = [done(0, false), refusal, done(0, false)];
        let (asked, step) = run(route, puts, &replies);
        assert_eq!(asked[2], remove_copy());
        assert_eq!(step, pass(anew()));
        let replies = [
            done(0, false),
            refusal,
            SubrequestReply::Unknown,
            done(0, false),
        ];
        let (asked, step) = run(route, puts, &replies);
        assert_eq!(asked[3], Subrequest::Miss { at });
        assert_eq!(step, pass(None));
    }
    let removes = ClientRequest::Remove(lock(FIRST, 7));
    let (_, step) = run(route, removes, &[done(0, false), TAKEN]);
    assert_eq!(step, pass(anew()));
    let (_, step) = run(route, removes, &[done(0, false), SubrequestReply::Absent]);
    assert_eq!(step, pass(None), "nothing is left to copy");
    let (_, step) = run(route, removes, &[done(0, false), SubrequestReply::Unknown]);
    let (reason, behind) = (Refusal::Unknown, anew());
    assert_eq!(step, Step::Drop { reason, behind }, "it may live on");
    let (_, step) = run(route, puts, &[done(0, false), SubrequestReply::Unknown]);
    assert_eq!(step, Step::dropped(Refusal::Unknown));
}

#[test]
fn the_first_lock_of_a_session_and_what_fills_a_replica_are_copied_before_the_answer() {
    let at = place(COPIES);
    let held = Subrequest::CopyHeld { at };
    let acquires = ClientRequest::Acquire;
    let full = steady(replica(ReplicaPhase::Full));
    let (asked, step) = run(full, acquires, &[done(FIRST_LOCK, false), done(0, false)]);
    assert_eq!((asked[1], step), (held, pass(None)));
    let (asked, step) = run(full, acquires, &[done(3, false)]);
    assert_eq!((asked.len(), step), (1, pass(None)));
    let filling = steady(replica(ReplicaPhase::Filling));
    let (asked, step) = run(filling, acquires, &[done(3, false), done(0, false)]);
    assert_eq!((asked[1], step), (held, pass(None)));
    // A new session has nothing to lose, and its copy would have no flag.
    let (asked, _) = run(filling, acquires, &[done(2, true)]);
    assert_eq!(asked.len(), 1);
    // A read borrows the lock.
    let (at, counter) = (place(FIRST), 3);
    let replies = [done(3, false), done(0, false), done(0, false)];
    let (asked, step) = run(filling, ClientRequest::Read, &replies);
    let release = Subrequest::Release { at, counter };
    assert_eq!(asked, [Subrequest::Acquire { at }, held, release]);
    assert_eq!(step, pass(None));
}

#[test]
fn what_is_only_read_is_kept_alive_at_the_replica() {
    let stale = ReplicaRoute {
        is_fresh: false,
        ..replica(ReplicaPhase::Full)
    };
    for (request, from) in [
        (ClientRequest::Read, Some(FIRST)),
        (ClientRequest::Acquire, Some(FIRST)),
        (ClientRequest::Touch, None),
    ] {
        let (_, step) = run(steady(stale), request, &[done(3, false)]);
        assert_eq!(step, pass(refresh(from)), "{request:?}");
        let fresh = steady(replica(ReplicaPhase::Full));
        let (_, step) = run(fresh, request, &[done(3, false)]);
        assert_eq!(step, pass(None), "{request:?}");
    }
}

/// A handover lasts longer than an item lives.
#[test]
fn what_is_only_read_in_a_handover_is_kept_alive_as_well() {
    let stale = ReplicaRoute {
        is_fresh: false,
        ..replica(ReplicaPhase::Full)
    };
    for stage in [Stage::Settle, Stage::Move1, Stage::Move2] {
        for request in [
            ClientRequest::Read,
            ClientRequest::Acquire,
            ClientRequest::Touch,
        ] {
            let route = pair(stage, stale);
            let (_, step) = run(route, request, &[done(3, false)]);
            assert_eq!(step, pass(refresh(None)), "{stage:?} {request:?}");
            let fresh = pair(stage, replica(ReplicaPhase::Full));
            let (_, step) = run(fresh, request, &[done(3, false)]);
            assert_eq!(step, pass(None), "{stage:?} {request:?}");
        }
    }
    // What is moved is kept alive before its old copy is removed.
    let route = pair(Stage::Move2, stale);
    let replies = [
        SubrequestReply::Absent,
        done(3, false),
        done(0, false),
        done(4, true),
        done(0, false),
    ];
    let (asked, step) = run(route, ClientRequest::Acquire, &replies);
    let at = place(COPIES);
    assert_eq!(asked[4], Subrequest::Look { at });
    let (at, counter) = (place(SECOND), 3);
    let behind = Some(Subrequest::Remove { at, counter });
    let clear_flag = true;
    assert_eq!(step, Step::Pass { clear_flag, behind });
}

/// Each time that somebody asks for a locked item, it lives on.
#[test]
fn what_somebody_waits_for_is_kept_alive_as_long_as_it_is_locked() {
    let stale = ReplicaRoute {
        is_fresh: false,
        ..replica(ReplicaPhase::Full)
    };
    let locked = |age_s| SubrequestReply::Locked { counter: 9, age_s };
    for route in [steady, |replica| pair(Stage::Move2, replica)] {
        for request in [ClientRequest::Read, ClientRequest::Acquire] {
            let ends = |replica, age_s| run(route(replica), request, &[locked(age_s)]).1;
            assert_eq!(ends(stale, LOCKED_REFRESH_S), pass(refresh(None)));
            let full = replica(ReplicaPhase::Full);
            assert_eq!(ends(full, LOCKED_REFRESH_S), pass(None));
            // Who has locked it has just kept it alive.
            assert_eq!(ends(stale, LOCKED_REFRESH_S - 1), pass(None));
        }
    }
    // One that has been copied while all are copied is kept alive until they are.
    let known = ReplicaRoute {
        has_copy: true,
        is_fresh: false,
        ..replica(ReplicaPhase::Filling)
    };
    let filling = |replica, answer| run(steady(replica), ClientRequest::Acquire, &[answer]).1;
    let old = locked(LOCKED_REFRESH_S);
    assert_eq!(filling(known, old), pass(refresh(None)));
    assert_eq!(filling(replica(ReplicaPhase::Filling), old), pass(None));
}

#[test]
fn nothing_of_a_replica_that_is_dropped_is_kept_alive() {
    let stale = ReplicaRoute {
        is_fresh: false,
        ..replica(ReplicaPhase::Dropping)
    };
    let route = pair(Stage::Move2, stale);
    let (_, step) = run(route, ClientRequest::Read, &[done(3, false)]);
    assert_eq!(step, pass(None));
    let (asked, step) = run(steady(stale), ClientRequest::Read, &[]);
    assert!(asked.is_empty());
    assert_eq!(step, Step::forward(place(FIRST), None));
}

#[test]
fn a_write_in_a_handover_is_copied_where_its_lock_is() {
    let copies = place(COPIES);
    let route = pair(Stage::Move2, replica(ReplicaPhase::Full));
    let puts = ClientRequest::Put(lock(SECOND, 7));
    let replies = [SubrequestReply::Absent, done(0, false), done(0, false)];
    let (asked, step) = run(route, puts, &replies);
    let look = Subrequest::Look { at: place(FIRST) };
    let copy = Subrequest::Copy { at: copies };
    assert_eq!(asked, [look, copy, client(SECOND, Some(7))]);
    assert_eq!(step, pass(None));
    // Its lock was broken, and the item has moved.
    let replies = [
        done(0, false),
        done(0, false),
        TAKEN,
        done(0, false),
        done(0, false),
    ];
    let (asked, step) = run(route, puts, &replies);
    let refused = client(FIRST, Some(NO_LOCK));
    let miss = Subrequest::Miss { at: copies };
    let expected = vec![look, copy, refused, remove_copy(), miss];
    assert_eq!((asked, step), (expected, pass(None)));
}
