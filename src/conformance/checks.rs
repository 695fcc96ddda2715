//! What the fixtures do not ask, and the open questions of docs/protocol.md.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::line::{NoAnswer, TargetAnswer};
use super::report::Outcome;
use super::scratch::{Ask, COUNTER_BITS, FIRST_LOCK, Talk};
use crate::wire::{Operation, decimal};

/// The server's part of a lock cookie, where a proxy has added the number of a backend.
const COUNTER: u32 = (1 << COUNTER_BITS) - 1;

/// One check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    /// Its name in reports and in docs/protocol.md.
    pub(super) id: &'static str,
    /// The section of docs/protocol.md.
    pub(super) section: &'static str,
    pub(super) question: &'static str,
    pub(super) run: fn(&mut Talk<'_>) -> Result<Outcome, NoAnswer>,
}

pub(super) const fn check(
    id: &'static str,
    section: &'static str,
    question: &'static str,
    run: fn(&mut Talk<'_>) -> Result<Outcome, NoAnswer>,
) -> Check {
    Check {
        id,
        section,
        question,
        run,
    }
}

/// Those that may be asked of a server with users, in the order of the sections.
pub(super) const CHECKS: &[Check] = &[
    check(
        "key-slashes",
        "2.2",
        "a target with two slashes in front names the item of the one with one",
        key_slashes,
    ),
    check(
        "key-hex",
        "2.2",
        "escapes in upper and lower case name one item",
        key_hex,
    ),
    check(
        "lock-spacing",
        "3",
        "release and removal read LockCookie without a space behind the colon",
        lock_spacing,
    ),
    check(
        "lock-plus",
        "3",
        "a lock cookie may have a plus sign",
        lock_plus,
    ),
    check(
        "lock-dash",
        "3",
        "whether Lock-Cookie is read as LockCookie",
        lock_dash,
    ),
    check(
        "header-case",
        "3",
        "whether header names are read in any case",
        header_case,
    ),
    check(
        "exclusive-other",
        "3",
        "the answer to another value of Exclusive",
        exclusive_other,
    ),
    check(
        "body-bytes",
        "3",
        "a body comes back byte by byte, whatever is in it",
        body_bytes,
    ),
    check(
        "lock-age",
        "4",
        "LockAge counts seconds, LockDate is the server's local time",
        lock_age,
    ),
    check(
        "first-lock",
        "5.1",
        "the first lock of an item is 2",
        first_lock,
    ),
    check(
        "lock-room",
        "8",
        "lock cookies leave room for the number of a backend",
        lock_room,
    ),
    check(
        "flag-once",
        "5.3",
        "a new item is announced as uninitialised once, and by a read, too",
        flag_once,
    ),
    check(
        "lock-race",
        "5.3",
        "of several acquires at the same time one gets the lock",
        lock_race,
    ),
    check(
        "counter-timeout",
        "5.3",
        "the lock counter after a PUT without a lock that changes the timeout",
        counter_timeout,
    ),
    check(
        "counter-no-cookie",
        "5.3",
        "the lock counter after such a PUT without LockCookie",
        counter_no_cookie,
    ),
    check("body-large", "5.5", "a body of 1 MiB is stored", body_large),
    check(
        "host-missing",
        "11",
        "a request without Host is answered",
        host_missing,
    ),
];

/// What a request without a fault was answered with instead of 200.
fn other_status(what: &str, answer: &TargetAnswer) -> Option<Outcome> {
    let status = answer.head.status;
    (status != 200)
        .then(|| Outcome::differs(format!("{what} was answered {status} instead of 200")))
}

/// The lock of an item that was just stored and locked.
fn locked_item(talk: &mut Talk<'_>) -> Result<(Vec<u8>, u32), NoAnswer> {
    let target = talk.own_target()?;
    talk.ask(&target, Ask::put(b"item"))?;
    let lock = talk.ask(&target, Ask::of(Operation::Acquire))?.lock();
    Ok((target, lock.unwrap_or(0)))
}

fn key_slashes(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let target = talk.own_target()?;
    let plain: Vec<u8> = String::from_utf8_lossy(&target).replace("%2f", "/").into();
    talk.ask(&plain, Ask::put(b"one"))?;
    let doubled = [b"/", &plain[..]].concat();
    let found = talk.ask(&doubled, Ask::of(Operation::Get))?;
    let encoded = talk.ask(&target, Ask::of(Operation::Get))?;
    let findings = [("two slashes", found), ("escapes for its slashes", encoded)];
    let findings = findings
        .iter()
        .filter(|(_, answer)| answer.body() != b"one");
    let findings = findings.map(|(how, answer)| {
        let status = answer.head.status;
        format!(
            "the item was not found under {how} (status {status}): those are two sessions there"
        )
    });
    Ok(Outcome::of(findings.collect()))
}

fn key_hex(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let target = talk.own_target()?;
    talk.ask(&target, Ask::put(b"one"))?;
    let upper = String::from_utf8_lossy(&target)
        .replace("%2f", "%2F")
        .replace("%3d", "%3D");
    let found = talk.ask(upper.as_bytes(), Ask::of(Operation::Get))?;
    Ok(match found.body() == b"one" {
        true => Outcome::fine(),
        false => Outcome::differs("targets with %2F and with %2f are two sessions there"),
    })
}

fn lock_spacing(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let (target, lock) = locked_item(talk)?;
    let target = String::from_utf8_lossy(&target).into_owned();
    let release = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nExclusive: release\r\nLockCookie:{lock}\r\n\r\n"
    );
    let released = talk.ask_raw(release.as_bytes())?;
    if let Some(differs) = other_status("a release with `LockCookie:n`", &released) {
        return Ok(differs);
    }
    let again = talk.ask(target.as_bytes(), Ask::of(Operation::Acquire))?;
    let lock = again.lock().unwrap_or(0);
    let remove =
        format!("DELETE {target} HTTP/1.1\r\nHost: localhost\r\nLockCookie:{lock}\r\n\r\n");
    let removed = talk.ask_raw(remove.as_bytes())?;
    Ok(other_status("a removal with `LockCookie:n`", &removed).unwrap_or_else(Outcome::fine))
}

fn release_with(talk: &mut Talk<'_>, line: impl Fn(u32) -> String) -> Result<u16, NoAnswer> {
    let (target, lock) = locked_item(talk)?;
    let target = String::from_utf8_lossy(&target).into_owned();
    let line = line(lock);
    let release =
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nExclusive: release\r\n{line}\r\n\r\n");
    Ok(talk.ask_raw(release.as_bytes())?.head.status)
}

fn lock_plus(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let status = release_with(talk, |lock| format!("LockCookie: +{lock}"))?;
    Ok(match status {
        200 => Outcome::fine(),
        _ => Outcome::differs(format!(
            "a release with `LockCookie: +n` was answered {status}"
        )),
    })
}

fn lock_dash(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let status = release_with(talk, |lock| format!("Lock-Cookie: {lock}"))?;
    Ok(Outcome::observed(match status {
        200 => "`Lock-Cookie` is read as `LockCookie`".to_owned(),
        _ => format!("a release with `Lock-Cookie` is answered {status}"),
    }))
}

fn header_case(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let status = release_with(talk, |lock| format!("lockcookie: {lock}"))?;
    Ok(Outcome::observed(match status {
        200 => "`lockcookie` is read as `LockCookie`".to_owned(),
        _ => format!("a release with `lockcookie` is answered {status}: its case counts"),
    }))
}

fn exclusive_other(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let target = talk.own_target()?;
    talk.ask(&target, Ask::put(b"item"))?;
    let target = String::from_utf8_lossy(&target).into_owned();
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nExclusive: shared\r\n\r\n");
    let status = talk.ask_raw(request.as_bytes())?.head.status;
    Ok(Outcome::observed(format!(
        "`Exclusive: shared` is answered {status}"
    )))
}

fn stores(talk: &mut Talk<'_>, body: &[u8]) -> Result<Outcome, NoAnswer> {
    let target = talk.own_target()?;
    let stored = talk.ask(&target, Ask::put(body))?;
    if let Some(differs) = other_status(&format!("a PUT of {} bytes", body.len()), &stored) {
        return Ok(differs);
    }
    let read = talk.ask(&target, Ask::of(Operation::Get))?;
    Ok(match read.body() == body {
        true => Outcome::fine(),
        false => Outcome::differs("what is read is not what was stored"),
    })
}

fn body_bytes(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let mut body: Vec<u8> = (0..=u8::MAX).collect();
    body.extend_from_slice(b"\r\n\r\n200 OK\r\nContent-Length: 5\r\n\r\n\0\xff");
    stores(talk, &body)
}

fn body_large(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    stores(talk, &vec![b'x'; 1 << 20])
}

fn lock_age(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    const SECONDS_TO_1970: i64 = 62_135_596_800;
    let (target, _) = locked_item(talk)?;
    talk.rest(Duration::from_millis(1100))?;
    let answer = talk.ask(&target, Ask::of(Operation::Get))?;
    let head = answer.head();
    let age = answer.head.lock_age.and_then(|age| decimal(age.of(head)));
    let mut findings = Vec::new();
    match age {
        Some(1..=30) => {}
        Some(age) => findings.push(format!(
            "LockAge is {age} after a second: ASP.NET breaks locks by it"
        )),
        None => findings.push("no LockAge that is a number: locks are never broken".to_owned()),
    }
    let text = String::from_utf8_lossy(head);
    let date = text.lines().find_map(|line| line.strip_prefix("LockDate:"));
    let ticks: Option<i64> = date.and_then(|date| date.trim().parse().ok());
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = since_1970.map_or(0, |now| now.as_secs() as i64);
    let off_s = ticks.map(|ticks| ticks / 10_000_000 - SECONDS_TO_1970 - now_s);
    if off_s.is_none_or(|off_s| off_s.abs() > 15 * 3600) {
        findings.push("LockDate is no time of today in 100 ns since the year 1".to_owned());
    }
    Ok(Outcome::of(findings))
}

fn first_lock(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let (_, lock) = locked_item(talk)?;
    let (counter, backend) = (lock & COUNTER, lock >> COUNTER_BITS);
    Ok(match lock {
        0 => Outcome::differs("an acquire has no LockCookie: nobody can give the lock back"),
        FIRST_LOCK => Outcome::fine(),
        _ if talk.is_proxy => Outcome::observed(format!(
            "lock {counter} of backend {backend}: a staterouter proxy adds that number"
        )),
        _ => Outcome::observed(format!(
            "the first lock is {lock}, which ASP.NET does not mind"
        )),
    })
}

fn lock_room(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let (target, first) = locked_item(talk)?;
    talk.ask(&target, Ask::under(Operation::Release, first))?;
    let second = talk.ask(&target, Ask::of(Operation::Acquire))?.lock();
    let second = second.unwrap_or(0);
    let highest = first.max(second);
    Ok(match highest >> COUNTER_BITS {
        _ if first == second => Outcome::differs(format!(
            "two locks one after the other are both {first}: a page whose lock was broken writes over the \
             next one's contents"
        )),
        1.. if !talk.is_proxy => Outcome::differs(format!(
            "lock cookies such as {highest} have more than 24 bits: staterouter refuses every lock of such \
             a backend, so it cannot be one"
        )),
        _ => Outcome::fine(),
    })
}

fn flag_once(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let mut findings = Vec::new();
    for operation in [Operation::Get, Operation::Acquire] {
        let target = talk.own_target()?;
        let create = Ask {
            extra_flags: 1,
            ..Ask::put(b"new")
        };
        talk.ask(&target, create)?;
        let name = operation.name();
        let first = talk.ask(&target, Ask::of(operation))?;
        if !first.has_flag() {
            findings.push(format!(
                "the first {name} has no ActionFlags: Session_Start does not run"
            ));
        }
        if let Some(lock) = first.lock() {
            talk.ask(&target, Ask::under(Operation::Release, lock))?;
        }
        if talk.ask(&target, Ask::of(Operation::Get))?.has_flag() {
            findings.push(format!(
                "a {name} does not clear the flag: Session_Start runs again, behind a proxy after every \
                 move of the session"
            ));
        }
    }
    Ok(Outcome::of(findings))
}

fn lock_race(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    const AT_ONCE: usize = 4;
    let target = talk.own_target()?;
    talk.ask(&target, Ask::put(b"item"))?;
    let target = String::from_utf8_lossy(&target).into_owned();
    let acquire = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nExclusive: acquire\r\n\r\n");
    let mut lines = Vec::new();
    for _ in 0..AT_ONCE {
        lines.push(talk.open()?);
    }
    for line in &mut lines {
        line.send(acquire.as_bytes())?;
    }
    talk.requests += AT_ONCE as u64;
    let mut got = 0;
    for line in &mut lines {
        got += usize::from(line.answer(false)?.head.status == 200);
    }
    Ok(match got {
        1 => Outcome::fine(),
        _ => Outcome::differs(format!(
            "of {AT_ONCE} acquires at the same time {got} got the lock instead of one"
        )),
    })
}

/// What becomes of the lock counter with a `put` without a lock.
fn counter_after(talk: &mut Talk<'_>, put: impl Fn(&str) -> Vec<u8>) -> Result<Outcome, NoAnswer> {
    let (target, before) = locked_item(talk)?;
    talk.ask(&target, Ask::under(Operation::Release, before))?;
    talk.ask_raw(&put(&String::from_utf8_lossy(&target)))?;
    let after = talk.ask(&target, Ask::of(Operation::Acquire))?.lock();
    Ok(Outcome::observed(match after {
        Some(after) if after > before => "the counter goes on".to_owned(),
        Some(after) => format!(
            "the counter starts anew: the next lock is {}",
            after & COUNTER
        ),
        None => "no lock is given afterwards".to_owned(),
    }))
}

fn counter_timeout(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    counter_after(talk, |target| {
        let head = format!("PUT {target} HTTP/1.1\r\nHost: localhost\r\nTimeout:2\r\n");
        format!("{head}Content-Length:3\r\nExtraFlags:0\r\nLockCookie:0\r\n\r\nnew").into_bytes()
    })
}

fn counter_no_cookie(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    counter_after(talk, |target| {
        let head = format!("PUT {target} HTTP/1.1\r\nHost: localhost\r\nTimeout:2\r\n");
        format!("{head}Content-Length:3\r\nExtraFlags:0\r\n\r\nnew").into_bytes()
    })
}

fn host_missing(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let target = talk.own_target()?;
    let target = String::from_utf8_lossy(&target).into_owned();
    let answer = talk.ask_raw(format!("HEAD {target} HTTP/1.1\r\n\r\n").as_bytes())?;
    Ok(match answer.head.status {
        404 => Outcome::fine(),
        status => Outcome::differs(format!("HEAD without Host is answered {status}")),
    })
}
