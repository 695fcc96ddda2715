use super::*;
use crate::handover::{Cookie, ReplicaPhase, ReplicaRoute, SlotRoute, Stage};

const DONE: Heard = Heard::Reply(SubrequestReply::Done {
    counter: 3,
    flag: false,
});
const ABSENT: Heard = Heard::Reply(SubrequestReply::Absent);
const BROKEN: NoReply = NoReply {
    is_unsent: false,
    is_out_of_reach: true,
};
const UNSENT: NoReply = NoReply {
    is_unsent: true,
    is_out_of_reach: true,
};

fn place(id: u8) -> BackendId {
    BackendId::new(id).unwrap()
}

fn of_first(counter: u32) -> Cookie {
    let backend_id = place(1);
    Cookie::Tagged {
        backend_id,
        counter,
    }
}

/// Sessions move from the second place to the first.
fn moving() -> SlotRoute {
    SlotRoute {
        second: Some(place(2)),
        stage: Stage::Move2,
        ..SlotRoute::steady(place(1))
    }
}

/// The third place has all copies.
fn copied() -> SlotRoute {
    SlotRoute {
        replica: Some(ReplicaRoute {
            at: place(3),
            phase: ReplicaPhase::Full,
            since_ms: 0,
            has_copy: true,
            is_fresh: true,
        }),
        ..SlotRoute::steady(place(1))
    }
}

fn begin(route: SlotRoute, request: ClientRequest) -> RequestDriver {
    let (machine, step) = RequestMachine::start(route, request, 10);
    let Step::Ask(first) = step else {
        panic!("{step:?}");
    };
    let is_repeatable = matches!(request, ClientRequest::Read | ClientRequest::Touch);
    let replica = route.replica.map(|replica| replica.at);
    RequestDriver::new(machine, first, replica, request, is_repeatable)
}

fn question(task: DriverTask) -> Question {
    match task {
        DriverTask::Send(question) => question,
        task => panic!("{task:?}"),
    }
}

fn may_repeat(task: DriverTask) -> bool {
    match task {
        DriverTask::End(RequestEnd::Fail { may_repeat, .. }) => may_repeat,
        task => panic!("{task:?}"),
    }
}

#[test]
fn a_request_that_was_only_looked_for_begins_anew_and_one_that_may_have_locked_does_not() {
    for (request, lost, begins_anew) in [
        (ClientRequest::Read, BROKEN, true),
        (ClientRequest::Acquire, BROKEN, false),
        (ClientRequest::Acquire, UNSENT, true),
    ] {
        let mut driver = begin(moving(), request);
        let task = driver.heard(Heard::Nothing(lost));
        assert_eq!(may_repeat(task), begins_anew, "{request:?} {lost:?}");
    }
}

/// The next request of the connection would pass for the body that is gone.
#[test]
fn a_request_whose_body_was_taken_never_begins_anew() {
    for has_taken_body in [false, true] {
        let mut driver = begin(copied(), ClientRequest::Put(of_first(3)));
        if has_taken_body {
            driver.took_body();
        }
        assert_eq!(question(driver.heard(DONE)).at, place(1));
        let task = driver.heard(Heard::Nothing(UNSENT));
        assert_eq!(may_repeat(task), !has_taken_body);
    }
}

#[test]
fn what_a_replica_has_missed_is_stored_anew() {
    let mut driver = begin(copied(), ClientRequest::Put(of_first(3)));
    let copy = question(driver.task());
    assert_eq!((copy.at, copy.copy), (place(3), Some(CopyKind::Item)));
    assert_eq!(driver.heard(Heard::Nothing(BROKEN)), DriverTask::NoteMiss);
    assert!(may_repeat(driver.heard(DONE)));
}

#[test]
fn a_copy_gets_half_of_the_time_and_a_move_all_of_it() {
    assert_eq!(CopyKind::Item.due_ms(1_000, 5_000), 3_000);
    assert_eq!(CopyKind::Removal.due_ms(1_000, 5_000), 3_000);
    assert_eq!(CopyKind::Move.due_ms(1_000, 5_000), 5_000);
}

#[test]
fn the_lock_of_a_held_item_goes_back_when_its_copy_must_not_be_made() {
    let route = SlotRoute {
        replica: copied().replica.map(|replica| ReplicaRoute {
            has_copy: false,
            ..replica
        }),
        ..copied()
    };
    let mut driver = begin(route, ClientRequest::Read);
    assert_eq!(question(driver.task()).form, QuestionForm::Acquire);
    let copy = question(driver.heard(DONE));
    assert_eq!(copy.copy, Some(CopyKind::Item));
    let (at, counter) = (place(1), 3);
    let stopped = driver.refused(Refusal::Suspect);
    let RequestEnd::Fail { reason, behind, .. } = stopped else {
        panic!("{stopped:?}");
    };
    assert_eq!(reason, Refusal::Suspect);
    assert_eq!(behind, Some(Subrequest::Release { at, counter }));
}

#[test]
fn a_removal_gives_a_mover_the_time_to_remove_what_it_has_moved() {
    let mut driver = begin(moving(), ClientRequest::Remove(of_first(3)));
    let clearing = question(driver.task());
    assert_eq!(
        (clearing.at, clearing.form),
        (place(2), QuestionForm::Remove(NO_LOCK))
    );
    let locked = |age_s| Heard::Reply(SubrequestReply::Locked { counter: 7, age_s });
    for _ in 0..MAX_MOVE_PAUSES {
        assert_eq!(driver.heard(locked(1)), DriverTask::Pause);
        assert_eq!(question(driver.task()), clearing);
    }
    assert_ne!(driver.heard(locked(1)), DriverTask::Pause);
    let mut driver = begin(moving(), ClientRequest::Remove(of_first(3)));
    assert_ne!(driver.heard(locked(10)), DriverTask::Pause);
}

#[test]
fn a_move_has_failed_when_its_item_is_not_where_it_was_to_go() {
    let mut driver = begin(moving(), ClientRequest::Acquire);
    driver.heard(ABSENT);
    let insert = question(driver.heard(DONE));
    assert_eq!(
        insert.form,
        QuestionForm::Store {
            body: BodySource::Held,
            lock_cookie: 0,
            unless_there: true,
        }
    );
    let mut task = driver.heard(Heard::Reply(SubrequestReply::Refused));
    while let DriverTask::Send(_) = task {
        task = driver.heard(ABSENT);
    }
    let DriverTask::End(end) = task else {
        panic!("{task:?}");
    };
    let failed = driver.failed_move(&end).unwrap();
    assert_eq!((failed.from, failed.to), (place(2), place(1)));
    assert!(!failed.is_stored);
}
