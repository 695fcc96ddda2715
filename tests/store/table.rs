//! The state table of the protocol (5.3), row by row, and the details below it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what is missing fails")]

use staterouter::store::{
    BadHeader, Body, MemoryStore, Now, SessionCommand, StoreOptions, StoreOutcome,
};

use crate::stores::{Ask, TestStore, for_every_own_store, for_every_store};

const KEY: &[u8] = b"/LM/W3SVC/7/ROOT(hash=)/q3m1zt0xk4vdw2hn5sbyr0ac";
const OLD: &[u8] = b"old body";
const NEW: &[u8] = b"a new and longer body";
const MINUTE_MS: u64 = 60_000;
const TICKS_AT_START: u64 = 638_000_000_000_000_000;

mod everywhere {
    use super::*;

    for_every_store! {
        every_cell_of_the_table, a_bad_timeout_or_flag_is_noticed_before_the_item_is_looked_for,
        the_internal_flag_bit_is_ignored,
        the_cookie_wraps_to_2_and_stays_in_its_range,
        an_empty_body_is_stored_and_served, a_body_handed_out_survives_its_replacement,
    }
}

mod to_the_millisecond {
    use super::*;

    for_every_own_store! {
        an_item_is_absent_from_the_millisecond_of_its_expiry,
        the_owners_put_after_expiry_creates_the_item_anew,
        a_timeout_of_zero_is_one_minute_and_reported,
        a_lock_tells_when_it_was_taken_and_how_old_it_is,
        a_clock_that_lags_behind_makes_no_negative_age,
    }
}

/// The columns of the table; a number is the cookie, 5 everywhere but in new items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Absent.
    A,
    /// Unlocked with this cookie.
    U(u32),
    /// Unlocked and uninitialised; operations reach it only with cookie 1.
    I,
    /// Locked with this cookie.
    L(u32),
}
use State::{A, I, L, U};

/// The answers of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// 200 with the old body: the cookie of an acquire, and whether `ActionFlags` is sent.
    Item(Option<u32>, bool),
    /// 200 without body, without `ActionFlags`.
    Ok,
    /// 200 without body, with `ActionFlags: 1`.
    Flags,
    /// 404.
    Gone,
    /// 423 with the cookie of the lock.
    Locked(u32),
    /// 400.
    Bad(BadHeader),
    /// 400 because the store takes no write: in no cell of the table.
    Refused,
    /// The store cannot say: in no cell of the table.
    Unknown,
}
use Answer::{Bad, Flags, Gone, Item, Locked, Ok};

/// What is stored afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Old,
    New,
}
use Stored::{New, Old};

/// One cell: the answer, the state afterwards, the body afterwards.
type Cell = (Answer, State, Stored);

/// The cookie of the lock the item was last locked with; the cookie is 1 in an item never locked.
#[derive(Clone, Copy)]
enum Cookie {
    Right,
    Wrong,
    Missing,
    Unusable,
}

/// The rows of the table.
#[derive(Clone, Copy)]
enum Request {
    Get,
    Acquire,
    Release(Cookie),
    /// Same timeout.
    Put(Cookie),
    /// Another timeout.
    PutTimeout(Cookie),
    PutInsertOnly(Cookie),
    Delete(Cookie),
    Head,
}
use Cookie::{Missing, Right, Unusable, Wrong};
use Request::{Acquire, Delete, Get, Head, Put, PutInsertOnly, PutTimeout, Release};

const NO_COOKIE: Answer = Bad(BadHeader::LockCookieMissing);
const BAD_COOKIE: Answer = Bad(BadHeader::LockCookie);

/// Request, then the cells for A, U(5), I and L(5).
const TABLE: &[(&str, Request, [Cell; 4])] = &[
    (
        "GET",
        Get,
        [
            (Gone, A, Old),
            (Item(None, false), U(5), Old),
            (Item(None, true), U(1), Old),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "GET acquire",
        Acquire,
        [
            (Gone, A, Old),
            (Item(Some(6), false), L(6), Old),
            (Item(Some(2), true), L(2), Old),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "release, right cookie",
        Release(Right),
        [
            (Gone, A, Old),
            (Ok, U(5), Old),
            (Flags, U(1), Old),
            (Ok, U(5), Old),
        ],
    ),
    (
        "release, wrong cookie",
        Release(Wrong),
        [
            (Gone, A, Old),
            (Ok, U(5), Old),
            (Flags, U(1), Old),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "release, no cookie: the flag is cleared all the same",
        Release(Missing),
        [
            (Gone, A, Old),
            (NO_COOKIE, U(5), Old),
            (NO_COOKIE, U(1), Old),
            (NO_COOKIE, L(5), Old),
        ],
    ),
    (
        "release, unusable cookie",
        Release(Unusable),
        [
            (Gone, A, Old),
            (BAD_COOKIE, U(5), Old),
            (BAD_COOKIE, U(1), Old),
            (BAD_COOKIE, L(5), Old),
        ],
    ),
    (
        "PUT, right cookie",
        Put(Right),
        [
            (Ok, U(1), New),
            (Ok, U(5), New),
            (Ok, I, New),
            (Ok, U(5), New),
        ],
    ),
    (
        "PUT, wrong cookie",
        Put(Wrong),
        [
            (Ok, U(1), New),
            (Ok, U(5), New),
            (Ok, I, New),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "PUT, no cookie",
        Put(Missing),
        [
            (Ok, U(1), New),
            (Ok, U(5), New),
            (Ok, I, New),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "PUT, unusable cookie: looked at only if the item exists",
        Put(Unusable),
        [
            (Ok, U(1), New),
            (BAD_COOKIE, U(5), Old),
            (BAD_COOKIE, I, Old),
            (BAD_COOKIE, L(5), Old),
        ],
    ),
    (
        "PUT with another timeout, right cookie: the flags come from the request",
        PutTimeout(Right),
        [
            (Ok, U(1), New),
            (Ok, U(5), New),
            (Ok, U(1), New),
            (Ok, U(5), New),
        ],
    ),
    (
        "PUT with another timeout, wrong cookie (3): the counter does not go back",
        PutTimeout(Wrong),
        [
            (Ok, U(1), New),
            (Ok, U(5), New),
            (Ok, U(3), New),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "PUT with another timeout, no cookie",
        PutTimeout(Missing),
        [
            (Ok, U(1), New),
            (Ok, U(5), New),
            (Ok, U(1), New),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "PUT insert only",
        PutInsertOnly(Wrong),
        [(Ok, I, New), (Ok, U(5), Old), (Ok, I, Old), (Ok, L(5), Old)],
    ),
    (
        "PUT insert only by the owner stores nothing either",
        PutInsertOnly(Right),
        [(Ok, I, New), (Ok, U(5), Old), (Ok, I, Old), (Ok, L(5), Old)],
    ),
    (
        "PUT insert only never looks at the cookie",
        PutInsertOnly(Unusable),
        [(Ok, I, New), (Ok, U(5), Old), (Ok, I, Old), (Ok, L(5), Old)],
    ),
    (
        "DELETE, right cookie",
        Delete(Right),
        [(Gone, A, Old), (Ok, A, Old), (Ok, A, Old), (Ok, A, Old)],
    ),
    (
        "DELETE, wrong cookie",
        Delete(Wrong),
        [
            (Gone, A, Old),
            (Ok, A, Old),
            (Ok, A, Old),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "DELETE, no cookie",
        Delete(Missing),
        [
            (Gone, A, Old),
            (Ok, A, Old),
            (Ok, A, Old),
            (Locked(5), L(5), Old),
        ],
    ),
    (
        "DELETE, unusable cookie",
        Delete(Unusable),
        [
            (Gone, A, Old),
            (BAD_COOKIE, U(5), Old),
            (BAD_COOKIE, I, Old),
            (BAD_COOKIE, L(5), Old),
        ],
    ),
    (
        "HEAD",
        Head,
        [
            (Gone, A, Old),
            (Ok, U(5), Old),
            (Ok, I, Old),
            (Ok, L(5), Old),
        ],
    ),
];

fn every_cell_of_the_table<S: TestStore>() {
    for (name, request, cells) in TABLE {
        for (before, (answer, after, stored)) in [A, U(5), I, L(5)].into_iter().zip(cells) {
            let name = format!("{name} on {before:?}");
            let store = store::<S>();
            bring(&store, before);
            let at = now(7 * MINUTE_MS);
            let outcome = send(&store, *request, before, at);
            assert_eq!(answer_of(&outcome), *answer, "{name}");
            assert_eq!(state_of(&store, at), *after, "{name}");
            if *after != A {
                let expected = if *stored == New { NEW } else { OLD };
                let found = store.look(KEY, at).unwrap();
                assert_eq!(&*found.body, expected, "{name}");
                let timeout = u64::from(found.timeout_minutes);
                let changed = matches!(request, PutTimeout(_)) && *stored == New;
                assert_eq!(timeout, if changed { 45 } else { 20 }, "{name}");
                // Every lookup that finds the item slides its expiry, whatever the answer.
                let late_ms = found.expires_ms.abs_diff(at.unix_ms + timeout * MINUTE_MS);
                assert!(late_ms <= S::SLACK_MS, "{name}: {late_ms}");
            }
        }
    }
}

fn an_item_is_absent_from_the_millisecond_of_its_expiry<S: TestStore>() {
    for before in [U(5), I, L(5)] {
        for (request, gone) in [
            (Get, Gone),
            (Acquire, Gone),
            (Release(Right), Gone),
            (Delete(Right), Gone),
            (Head, Gone),
        ] {
            let store = store::<S>();
            bring(&store, before);
            assert_eq!(
                answer_of(&send(&store, request, before, now(20 * MINUTE_MS))),
                gone
            );
            bring(&store, before);
            let last = answer_of(&send(&store, request, before, now(20 * MINUTE_MS - 1)));
            assert_ne!(last, gone, "{before:?}");
        }
    }
}

fn the_owners_put_after_expiry_creates_the_item_anew<S: TestStore>() {
    let store = store::<S>();
    bring(&store, L(5));
    let at = now(20 * MINUTE_MS);
    assert_eq!(answer_of(&send(&store, Put(Right), L(5), at)), Ok);
    assert_eq!(state_of(&store, at), U(1));
    assert_eq!(store.stats().items, 1);
    assert_eq!(store.stats().expired, 1);
}

fn a_bad_timeout_or_flag_is_noticed_before_the_item_is_looked_for<S: TestStore>() {
    for (timeout, flags, bad) in [
        (Some("525601"), Some("x"), BadHeader::Timeout),
        (Some("-1"), None, BadHeader::Timeout),
        (Some(""), None, BadHeader::Timeout),
        (Some("20"), Some("-2"), BadHeader::ExtraFlags),
        (None, Some("2147483648"), BadHeader::ExtraFlags),
    ] {
        for before in [A, L(5)] {
            let store = store::<S>();
            bring(&store, before);
            let put = put(timeout, flags, Some("x"), NEW);
            assert_eq!(
                store.ask(KEY, put, now(MINUTE_MS)),
                StoreOutcome::Invalid(bad)
            );
            assert_eq!(state_of(&store, now(0)), before);
            if before != A {
                // No lookup, so no sliding.
                let found = store.look(KEY, now(0)).unwrap();
                let expected_ms = now(20 * MINUTE_MS).unix_ms;
                assert!(found.expires_ms.abs_diff(expected_ms) <= S::SLACK_MS);
            }
        }
    }
}

fn a_timeout_of_zero_is_one_minute_and_reported<S: TestStore>() {
    let store = store::<S>();
    let outcome = store.ask(KEY, put(Some("0"), None, None, NEW), now(0));
    assert_eq!(
        outcome,
        StoreOutcome::Done {
            action_flags: false,
            zero_timeout: true
        }
    );
    assert_eq!(store.look(KEY, now(0)).unwrap().timeout_minutes, 1);
    assert_eq!(state_of(&store, now(MINUTE_MS - 1)), U(1));
    assert_eq!(state_of(&store, now(MINUTE_MS)), A);
}

fn the_internal_flag_bit_is_ignored<S: TestStore>() {
    let store = store::<S>();
    let _ = store.ask(KEY, put(None, Some("2"), None, NEW), now(0));
    assert_eq!(state_of(&store, now(0)), U(1));
    let _ = store.ask(b"other", put(None, Some("3"), None, NEW), now(0));
    assert!(store.look(b"other", now(0)).unwrap().uninit);
}

fn the_cookie_wraps_to_2_and_stays_in_its_range<S: TestStore>() {
    for (counter, next) in [(S::LAST_COOKIE - 1, S::LAST_COOKIE), (S::LAST_COOKIE, 2)] {
        let store = store::<S>();
        bring(&store, U(1));
        let text = counter.to_string();
        let _ = store.ask(KEY, put(Some("45"), None, Some(&text), NEW), now(0));
        assert_eq!(state_of(&store, now(0)), U(counter));
        let _ = store.ask(KEY, SessionCommand::Acquire, now(0));
        assert_eq!(state_of(&store, now(0)), L(next));
    }
}

/// One more than the last cookie comes from a client alone.
#[test]
fn no_client_takes_the_counter_out_of_its_range() {
    let store = store::<MemoryStore>();
    bring(&store, U(1));
    let _ = store.ask(KEY, put(Some("45"), None, Some("2147483647"), NEW), now(0));
    assert_eq!(state_of(&store, now(0)), U(2_147_483_647));
    let _ = store.ask(KEY, SessionCommand::Acquire, now(0));
    assert_eq!(state_of(&store, now(0)), L(2));
}

fn an_empty_body_is_stored_and_served<S: TestStore>() {
    let store = store::<S>();
    let _ = store.ask(KEY, put(None, None, None, b""), now(0));
    let StoreOutcome::Found { body, .. } = store.ask(KEY, SessionCommand::Get, now(0)) else {
        panic!("not found");
    };
    assert!(body.is_empty());
}

fn a_lock_tells_when_it_was_taken_and_how_old_it_is<S: TestStore>() {
    let store = store::<S>();
    let _ = store.ask(KEY, put(Some("525600"), None, None, NEW), now(0));
    let _ = store.ask(KEY, SessionCommand::Acquire, now(1000));
    let year_ms = 525_600 * MINUTE_MS;
    for (later_ms, age_s) in [
        (1000, 0),
        (1999, 0),
        (2000, 1),
        (111_000, 110),
        (year_ms, 31_535_999),
        (2 * year_ms - 1000, 31_535_999),
    ] {
        let expected = StoreOutcome::Locked {
            lock_date_ticks: now(1000).local_ticks,
            lock_age_s: age_s,
            cookie: 2,
        };
        assert_eq!(
            store.ask(KEY, SessionCommand::Get, now(later_ms)),
            expected,
            "{later_ms}"
        );
    }
}

fn a_clock_that_lags_behind_makes_no_negative_age<S: TestStore>() {
    let store = store::<S>();
    bring(&store, U(1));
    let _ = store.ask(KEY, SessionCommand::Acquire, now(1000));
    let outcome = store.ask(KEY, SessionCommand::Get, now(990));
    assert!(matches!(
        outcome,
        StoreOutcome::Locked { lock_age_s: 0, .. }
    ));
}

fn a_body_handed_out_survives_its_replacement<S: TestStore>() {
    let store = store::<S>();
    bring(&store, U(1));
    let StoreOutcome::Found { body, .. } = store.ask(KEY, SessionCommand::Get, now(0)) else {
        panic!("not found");
    };
    let _ = send(&store, Put(Right), U(1), now(0));
    let _ = send(&store, Delete(Right), U(1), now(0));
    assert_eq!(&*body, OLD);
}

fn store<S: TestStore>() -> S {
    S::build(&StoreOptions {
        shards: 4,
        ..StoreOptions::new([3; 16])
    })
}

/// Brings the item into a state, at time 0 and with a timeout of 20 minutes.
fn bring<S: TestStore>(store: &S, state: State) {
    let flags = if state == I { "1" } else { "0" };
    let acquires = match state {
        A => return,
        I => 0,
        U(cookie) | L(cookie) => cookie - 1,
    };
    let _ = store.ask(KEY, SessionCommand::remove(None), now(0));
    let _ = store.ask(KEY, put(Some("20"), Some(flags), Some("0"), OLD), now(0));
    for lock in 1..=acquires {
        let _ = store.ask(KEY, SessionCommand::Acquire, now(0));
        if lock < acquires || matches!(state, U(_)) {
            let cookie = (lock + 1).to_string();
            let _ = store.ask(
                KEY,
                SessionCommand::release(Some(cookie.as_bytes())),
                now(0),
            );
        }
    }
    assert_eq!(state_of(store, now(0)), state);
}

fn send<S: TestStore>(store: &S, request: Request, before: State, at: Now) -> StoreOutcome {
    let cookie = |cookie| match (cookie, before) {
        (Right, U(n) | L(n)) => Some(n.to_string()),
        (Right, A | I) => Some("1".into()),
        (Wrong, _) => Some("3".into()),
        (Missing, _) => None,
        (Unusable, _) => Some("-4".into()),
    };
    match request {
        Get => store.ask(KEY, SessionCommand::Get, at),
        Acquire => store.ask(KEY, SessionCommand::Acquire, at),
        Head => store.ask(KEY, SessionCommand::Touch, at),
        Release(c) => {
            let cookie = cookie(c);
            let cookie = cookie.as_ref().map(String::as_bytes);
            store.ask(KEY, SessionCommand::release(cookie), at)
        }
        Delete(c) => {
            let cookie = cookie(c);
            let cookie = cookie.as_ref().map(String::as_bytes);
            store.ask(KEY, SessionCommand::remove(cookie), at)
        }
        Put(c) => store.ask(KEY, put(None, None, cookie(c).as_deref(), NEW), at),
        PutTimeout(c) => store.ask(KEY, put(Some("45"), None, cookie(c).as_deref(), NEW), at),
        PutInsertOnly(c) => store.ask(
            KEY,
            put(Some("20"), Some("1"), cookie(c).as_deref(), NEW),
            at,
        ),
    }
}

fn put<'a>(
    timeout: Option<&'a str>,
    extra_flags: Option<&'a str>,
    cookie: Option<&'a str>,
    body: &[u8],
) -> Result<SessionCommand, BadHeader> {
    SessionCommand::put(
        timeout.map(str::as_bytes),
        extra_flags.map(str::as_bytes),
        cookie.map(str::as_bytes),
        Body::from(body),
    )
}

fn answer_of(outcome: &StoreOutcome) -> Answer {
    match outcome {
        StoreOutcome::Found {
            body,
            timeout_minutes,
            cookie,
            action_flags,
        } => {
            assert_eq!((&**body, *timeout_minutes), (OLD, 20));
            Item(*cookie, *action_flags)
        }
        StoreOutcome::Done {
            action_flags: true, ..
        } => Flags,
        StoreOutcome::Done {
            action_flags: false,
            ..
        } => Ok,
        StoreOutcome::Absent => Gone,
        StoreOutcome::Locked {
            lock_date_ticks,
            cookie,
            ..
        } => {
            // A store with a clock of its own is some milliseconds ahead.
            assert!(lock_date_ticks.abs_diff(TICKS_AT_START) < 50_000_000);
            Locked(*cookie)
        }
        StoreOutcome::Invalid(bad) => Bad(*bad),
        StoreOutcome::Refused(_) => Answer::Refused,
        StoreOutcome::Unknown => Answer::Unknown,
    }
}

fn state_of<S: TestStore>(store: &S, at: Now) -> State {
    match store.look(KEY, at) {
        None => A,
        Some(item) if item.locked => {
            assert!(!item.uninit);
            L(item.cookie)
        }
        Some(item) if item.uninit => {
            assert_eq!(item.cookie, 1);
            I
        }
        Some(item) => U(item.cookie),
    }
}

/// A time some milliseconds after the start of the test.
fn now(ms: u64) -> Now {
    Now {
        unix_ms: 50_000 + ms,
        local_ticks: TICKS_AT_START + ms * 10_000,
    }
}
