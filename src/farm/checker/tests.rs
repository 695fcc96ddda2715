//! Every kind of violation is found, and every legal race is not.

use super::case::{ABSENT, Case, IDLE_LIMIT, LATE, body, flagged};
use super::history::PRUNE_FROM;
use super::*;

// Lost.

#[test]
fn a_session_that_existed_throughout_cannot_be_absent() {
    let mut case = Case::stored();
    case.read(ABSENT);
    case.assert_found(&[ViolationKind::Lost]);
    assert_eq!(case.found[0].expected, "the session, version 1");
}

#[test]
fn one_loss_is_counted_once_and_the_new_life_is_judged_again() {
    let mut case = Case::stored();
    case.read(ABSENT);
    case.read(ABSENT);
    let insert = case.create(Create::Insert);
    assert!(case.read(flagged(insert)));
    let version = case.change(insert, 2);
    case.assert_found(&[ViolationKind::Lost]);
    case.read(ABSENT);
    case.read(body(version));
    case.assert_found(&[ViolationKind::Lost, ViolationKind::Lost]);
}

#[test]
fn a_session_that_was_out_of_reach_may_be_there_again_unless_it_was_replaced_or_removed() {
    let mut case = Case::stored();
    case.read(ABSENT);
    case.read(ABSENT);
    case.read(body(1));
    case.assert_found(&[ViolationKind::Lost]);
    case.read(ABSENT);
    let created = case.create(Create::Plain);
    let version = case.change(created, 2);
    case.read(body(1));
    case.assert_found(&[
        ViolationKind::Lost,
        ViolationKind::Lost,
        ViolationKind::Stale,
    ]);
    case.read(body(version));
    case.remove(version, 3);
    case.read(body(1));
    assert_eq!(case.found.last().unwrap().kind, ViolationKind::Resurrected);
}

#[test]
fn a_holders_removal_or_release_that_finds_nothing_is_a_loss() {
    for leave in [Leave::Remove, Leave::Release] {
        let mut case = Case::stored();
        let holder = case.acquire(1, 2);
        case.leave(&holder, leave, CheckedOutcome::Absent);
        case.assert_found(&[ViolationKind::Lost]);
    }
}

#[test]
fn absence_is_right_before_the_first_write_and_while_it_runs() {
    let mut case = Case::new();
    case.read(ABSENT);
    let early = case.begin();
    let writing = case.begin_create(Create::Plain);
    case.read(ABSENT);
    case.end_write(writing, CheckedOutcome::Done);
    case.end(early, ABSENT);
    case.assert_found(&[]);
}

#[test]
fn absence_is_right_while_a_removal_runs_and_after_it() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    let early = case.begin();
    let writing = case.begin_leave(&holder, Leave::Remove);
    case.end(early, ABSENT);
    case.end_write(writing, CheckedOutcome::Done);
    case.read(ABSENT);
    case.assert_found(&[]);
}

#[test]
fn a_refused_removal_removes_nothing() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    case.take_over(2);
    case.leave(&holder, Leave::Remove, CheckedOutcome::Refused(423));
    case.read(ABSENT);
    case.assert_found(&[ViolationKind::Lost]);
}

#[test]
fn an_acknowledged_insert_ends_the_absence() {
    let mut case = Case::new();
    case.create(Create::Insert);
    case.read(ABSENT);
    case.assert_found(&[ViolationKind::Lost]);
}

#[test]
fn an_idle_session_may_be_gone_and_a_busy_one_not() {
    let mut case = Case::stored();
    case.now += IDLE_LIMIT - 10;
    case.read(SeenContents::Exists);
    case.now += IDLE_LIMIT - 10;
    case.read(ABSENT);
    case.assert_found(&[ViolationKind::Lost]);

    let mut case = Case::stored();
    case.now += IDLE_LIMIT;
    case.read(ABSENT);
    let insert = case.create(Create::Insert);
    assert!(case.read(flagged(insert)));
    case.assert_found(&[]);
}

// Stale.

#[test]
fn contents_older_than_the_newest_acknowledged_are_stale() {
    let mut case = Case::stored();
    case.change(1, 2);
    case.read(body(1));
    case.assert_found(&[ViolationKind::Stale]);
    assert_eq!(case.found[0].got, "version 1");
}

#[test]
fn one_stale_answer_is_counted_once() {
    for then in [1, 2] {
        let mut case = Case::stored();
        assert_eq!(case.change(1, 2), 2);
        case.read(body(1));
        case.read(body(then));
        case.read(body(then));
        case.assert_found(&[ViolationKind::Stale]);
        case.change(then, 3);
        case.read(body(then));
        case.assert_found(&[ViolationKind::Stale, ViolationKind::Stale]);
    }
}

#[test]
fn a_read_beside_a_write_may_see_either_but_not_go_back() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    let early = case.begin();
    let late = case.begin();
    let writing = case.begin_leave(&holder, Leave::Write);
    let version = writing.version;
    case.read(body(1));
    case.read(body(version));
    case.end_write(writing, CheckedOutcome::Done);
    case.end(early, body(1));
    case.end(late, body(version));
    case.assert_found(&[]);
    case.read(body(1));
    case.assert_found(&[ViolationKind::Stale]);
}

#[test]
fn what_was_read_before_the_acknowledgement_counts_as_written() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    let writing = case.begin_leave(&holder, Leave::Write);
    case.read(body(writing.version));
    case.read(body(1));
    case.assert_found(&[ViolationKind::Stale]);
    case.end_write(writing, CheckedOutcome::Done);
}

#[test]
fn a_write_without_an_answer_may_have_happened_or_not() {
    for seen in [1, 2] {
        let mut case = Case::stored();
        let holder = case.acquire(1, 2);
        assert_eq!(
            case.leave(&holder, Leave::Write, CheckedOutcome::Unknown),
            2
        );
        case.read(body(seen));
        case.assert_found(&[]);
    }
}

#[test]
fn a_write_without_an_answer_cannot_be_undone_once_it_was_read() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    let unknown = case.leave(&holder, Leave::Write, CheckedOutcome::Unknown);
    case.read(body(1));
    case.read(body(unknown));
    case.assert_found(&[]);
    case.read(body(1));
    case.assert_found(&[ViolationKind::Stale]);
}

#[test]
fn a_write_without_an_answer_cannot_happen_ever_so_late() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    let unknown = case.leave(&holder, Leave::Write, CheckedOutcome::Unknown);
    case.now += LATE + 10;
    case.read(body(1));
    case.read(body(unknown));
    case.assert_found(&[ViolationKind::Stale]);
}

#[test]
fn a_write_that_was_not_sent_or_was_refused_cannot_be_read() {
    for outcome in [CheckedOutcome::NotSent, CheckedOutcome::Refused(423)] {
        let mut case = Case::stored();
        let holder = case.acquire(1, 2);
        case.take_over(2);
        let version = case.leave(&holder, Leave::Write, outcome);
        case.read(body(version));
        case.assert_found(&[ViolationKind::Stale]);
    }
}

#[test]
fn after_a_takeover_the_old_holders_write_may_win_or_not() {
    for seen in [2, 3] {
        let mut case = Case::stored();
        let slow = case.acquire(1, 2);
        case.take_over(2);
        assert_eq!(case.change(1, 3), 2);
        assert_eq!(case.leave(&slow, Leave::Write, CheckedOutcome::Done), 3);
        case.read(body(seen));
        case.assert_found(&[]);
        case.read(body(1));
        case.assert_found(&[ViolationKind::Stale]);
    }
}

#[test]
fn an_insert_beside_a_living_session_changes_nothing() {
    let mut case = Case::stored();
    let insert = case.create(Create::Insert);
    case.read(body(1));
    case.assert_found(&[]);
    case.read(flagged(insert));
    case.assert_found(&[ViolationKind::Stale]);
}

#[test]
fn of_two_inserts_at_once_one_takes_effect() {
    let mut case = Case::new();
    let first = case.begin_create(Create::Insert);
    let second = case.begin_create(Create::Insert);
    let (one, other) = (first.version, second.version);
    case.end_write(first, CheckedOutcome::Done);
    case.end_write(second, CheckedOutcome::Done);
    case.read(flagged(other));
    case.read(body(other));
    case.assert_found(&[]);
    case.read(flagged(one));
    case.assert_found(&[ViolationKind::Stale]);
}

#[test]
fn of_two_inserts_with_a_removal_between_both_may_take_effect() {
    let mut case = Case::new();
    let first = case.begin_create(Create::Insert);
    let second = case.begin_create(Create::Insert);
    let (one, other) = (first.version, second.version);
    case.end_write(first, CheckedOutcome::Done);
    case.read(flagged(one));
    case.remove(one, 2);
    case.end_write(second, CheckedOutcome::Done);
    case.read(flagged(other));
    case.assert_found(&[]);
}

#[test]
fn whoever_gets_the_lock_sees_what_its_last_holder_did() {
    for (leave, kind) in [
        (Leave::Write, ViolationKind::Stale),
        (Leave::Remove, ViolationKind::Resurrected),
    ] {
        let mut case = Case::stored();
        let holder = case.acquire(1, 2);
        let waiting = case.begin();
        let writing = case.begin_leave(&holder, leave);
        let _next = case.end_acquire(waiting, body(1), 3);
        case.assert_found(&[kind]);
        case.end_write(writing, CheckedOutcome::Done);
        case.read(body(1));
        case.assert_found(&[kind]);
    }
}

// Resurrected.

#[test]
fn a_removed_session_does_not_come_back() {
    for back in [body(1), SeenContents::Exists] {
        let mut case = Case::stored();
        case.remove(1, 2);
        case.read(ABSENT);
        case.read(back);
        case.assert_found(&[ViolationKind::Resurrected]);
        case.read(back);
        case.assert_found(&[ViolationKind::Resurrected]);
    }
}

#[test]
fn a_session_may_be_seen_while_its_removal_runs() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    let early = case.begin();
    let writing = case.begin_leave(&holder, Leave::Remove);
    case.read(body(1));
    case.end_write(writing, CheckedOutcome::Done);
    case.end(early, body(1));
    case.assert_found(&[]);
}

#[test]
fn a_removal_without_an_answer_may_have_happened_or_not() {
    for (seen, then) in [(body(1), ABSENT), (ABSENT, ABSENT), (body(1), body(1))] {
        let mut case = Case::stored();
        let holder = case.acquire(1, 2);
        case.leave(&holder, Leave::Remove, CheckedOutcome::Unknown);
        case.read(seen);
        case.read(then);
        case.assert_found(&[]);
    }
}

#[test]
fn a_removal_without_an_answer_stands_once_it_was_seen() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    case.leave(&holder, Leave::Remove, CheckedOutcome::Unknown);
    case.read(ABSENT);
    case.read(body(1));
    case.assert_found(&[ViolationKind::Resurrected]);
}

#[test]
fn a_removal_without_an_answer_cannot_happen_ever_so_late() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    case.leave(&holder, Leave::Remove, CheckedOutcome::Unknown);
    case.now += LATE + 10;
    case.read(body(1));
    case.read(ABSENT);
    case.assert_found(&[ViolationKind::Lost]);
}

#[test]
fn a_session_created_again_is_a_new_one_and_the_old_contents_stay_gone() {
    let mut case = Case::stored();
    case.remove(1, 2);
    let insert = case.create(Create::Insert);
    assert!(case.read(flagged(insert)));
    case.assert_found(&[]);
    case.read(body(1));
    case.assert_found(&[ViolationKind::Stale]);
}

/// The lock may be one of a server that failed: what that one still has is nobody's session.
#[test]
fn a_broken_lock_may_be_released_where_an_outdated_copy_is() {
    let mut case = Case::stored();
    let slow = case.acquire(1, 2);
    case.take_over(2);
    case.remove(1, 3);
    case.leave(&slow, Leave::Release, CheckedOutcome::Done);
    case.read(ABSENT);
    case.assert_found(&[]);
    // A holder whose lock holds is told of the session itself.
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    case.read(ABSENT);
    case.leave(&holder, Leave::Release, CheckedOutcome::Done);
    case.assert_found(&[ViolationKind::Lost]);
}

// Corrupt.

#[test]
fn a_version_nobody_wrote_and_a_broken_body_are_corrupt() {
    let mut case = Case::stored();
    case.read(body(2));
    case.read(body(0));
    case.read(SeenContents::Corrupt("the body of another session"));
    case.assert_found(&[
        ViolationKind::Corrupt,
        ViolationKind::Corrupt,
        ViolationKind::Corrupt,
    ]);
}

// Locks.

#[test]
fn two_holders_at_once_are_found_whichever_asked_first() {
    let mut case = Case::stored();
    let first = case.begin();
    let second = case.begin();
    let b = case.end_acquire(second, body(1), 2);
    let a = case.end_acquire(first, body(1), 3);
    case.assert_found(&[ViolationKind::DoubleLock]);
    // What follows from it is not counted again.
    case.leave(&a, Leave::Write, CheckedOutcome::Done);
    case.leave(&b, Leave::Write, CheckedOutcome::Refused(423));
    case.assert_found(&[ViolationKind::DoubleLock]);
}

#[test]
fn a_lock_is_free_from_the_moment_its_release_is_sent() {
    for leave in [Leave::Write, Leave::Remove, Leave::Release] {
        let mut case = Case::stored();
        let holder = case.acquire(1, 2);
        let waiting = case.begin();
        let writing = case.begin_leave(&holder, leave);
        let seen = match leave {
            Leave::Write => body(writing.version),
            Leave::Release => body(1),
            Leave::Remove => {
                case.create(Create::Insert);
                flagged(3)
            }
        };
        let _next = case.end_acquire(waiting, seen, 3);
        case.end_write(writing, CheckedOutcome::Done);
        case.assert_found(&[]);
    }
}

#[test]
fn a_lock_that_was_taken_over_may_be_handed_out() {
    let mut case = Case::stored();
    let _slow = case.acquire(1, 2);
    case.take_over(2);
    let _next = case.acquire(1, 3);
    case.assert_found(&[]);
}

#[test]
fn a_takeover_of_another_cookie_excuses_nothing() {
    let mut case = Case::stored();
    let _holder = case.acquire(1, 5);
    case.take_over(2);
    let _next = case.acquire(1, 6);
    case.assert_found(&[ViolationKind::DoubleLock]);
}

#[test]
fn a_lock_may_be_broken_before_its_holder_knows_of_it() {
    let mut case = Case::stored();
    let slow_answer = case.begin();
    case.take_over(2);
    let _next = case.acquire(1, 3);
    let slow = case.end_acquire(slow_answer, body(1), 2);
    case.leave(&slow, Leave::Write, CheckedOutcome::Refused(423));
    case.assert_found(&[]);
}

#[test]
fn a_lock_of_a_request_without_an_answer_harms_nobody() {
    let mut case = Case::stored();
    let begun = case.begin();
    let now = case.tick();
    let found = &mut case.found;
    let (_, holder) = case
        .ledger
        .end_acquire(begun, now, SeenContents::Nothing, None, found);
    assert!(holder.is_none());
    case.read(SeenContents::Exists);
    case.take_over(2);
    case.change(1, 3);
    case.assert_found(&[]);
}

#[test]
fn a_holder_that_was_not_taken_over_must_not_be_refused() {
    for leave in [Leave::Write, Leave::Remove, Leave::Release] {
        let mut case = Case::stored();
        let holder = case.acquire(1, 2);
        case.leave(&holder, leave, CheckedOutcome::Refused(423));
        case.assert_found(&[ViolationKind::RefusedWrite]);
    }
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    case.leave(&holder, Leave::Write, CheckedOutcome::Absent);
    case.assert_found(&[ViolationKind::RefusedWrite]);
}

#[test]
fn a_holder_may_be_refused_when_the_takeover_comes_while_it_writes() {
    let mut case = Case::stored();
    let holder = case.acquire(1, 2);
    let writing = case.begin_leave(&holder, Leave::Write);
    case.take_over(2);
    case.end_write(writing, CheckedOutcome::Refused(423));
    case.read(body(1));
    case.assert_found(&[]);
}

#[test]
fn a_broken_lock_writes_nothing_under_the_next_one() {
    for leave in [Leave::Write, Leave::Remove, Leave::Release] {
        let mut case = Case::stored();
        let slow = case.acquire(1, 2);
        case.take_over(2);
        let _next = case.acquire(1, 3);
        case.leave(&slow, leave, CheckedOutcome::Done);
        case.assert_found(&[ViolationKind::StaleWrite]);
    }
}

#[test]
fn a_broken_lock_may_write_where_no_other_was_held_all_the_time() {
    let mut case = Case::stored();
    let slow = case.acquire(1, 2);
    case.take_over(2);
    let writing = case.begin_leave(&slow, Leave::Write);
    let _next = case.acquire(1, 3);
    case.end_write(writing, CheckedOutcome::Done);
    case.assert_found(&[]);
}

// Session_Start.

#[test]
fn a_new_session_is_new_once() {
    let mut case = Case::new();
    let insert = case.create(Create::Insert);
    let is_new = [(); 2].map(|()| {
        let begun = case.begin();
        let now = case.tick();
        let found = &mut case.found;
        let verdict = case.ledger.end_read(begun, now, body(insert), found);
        verdict.new_session
    });
    assert_eq!(is_new, [true, false]);
}

#[test]
fn a_new_session_starts_once() {
    let mut case = Case::new();
    let insert = case.create(Create::Insert);
    assert!(case.read(flagged(insert)));
    assert!(!case.read(body(insert)));
    case.assert_found(&[]);
    case.read(flagged(insert));
    case.assert_found(&[ViolationKind::FalseStart]);
}

#[test]
fn contents_stored_by_a_page_never_come_with_the_flag() {
    let mut case = Case::stored();
    case.read(flagged(1));
    case.assert_found(&[ViolationKind::FalseStart]);
}

#[test]
fn a_new_session_without_the_flag_never_starts() {
    let mut case = Case::new();
    let insert = case.create(Create::Insert);
    case.read(body(insert));
    case.read(body(insert));
    case.assert_found(&[ViolationKind::MissedStart]);
}

#[test]
fn the_flag_may_be_in_another_answer_or_lost_with_one() {
    let mut case = Case::new();
    let insert = case.create(Create::Insert);
    let other = case.begin();
    case.read(body(insert));
    assert!(case.end(other, flagged(insert)));
    case.assert_found(&[]);

    let mut case = Case::new();
    let insert = case.create(Create::Insert);
    case.read(SeenContents::Nothing);
    case.read(body(insert));
    case.assert_found(&[]);
}

#[test]
fn a_takeover_may_swallow_the_flag() {
    let mut case = Case::new();
    let insert = case.create(Create::Insert);
    let now = case.tick();
    let begun = case.ledger.begin_takeover(now, 1);
    let now = case.tick();
    let found = &mut case.found;
    case.ledger
        .end_takeover(begun, now, SeenContents::Exists, true, found);
    case.read(body(insert));
    case.assert_found(&[]);
}

// The whole.

#[test]
fn a_long_life_needs_little_memory_and_is_still_judged() {
    let mut case = Case::stored();
    let mut version = 1;
    for cookie in 2..2000 {
        let seen = case.begin();
        let next = case.change(version, cookie);
        case.end(seen, body(next));
        if cookie % 100 == 0 {
            case.remove(next, cookie);
            version = case.create(Create::Plain);
        } else {
            version = next;
        }
    }
    case.assert_found(&[]);
    assert!(case.ledger.writes.len() <= PRUNE_FROM);
    assert!(case.ledger.in_flight.is_empty() && case.ledger.holders.is_empty());
    case.read(body(1));
    case.assert_found(&[ViolationKind::Stale]);
}
