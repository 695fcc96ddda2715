//! What takes minutes, and what no web server sends: for a server without users.

use std::time::{Duration, Instant};

use super::checks::{Check, check};
use super::line::NoAnswer;
use super::report::Outcome;
use super::scratch::{Ask, Talk};
use crate::wire::Operation;

/// All of them.
pub(super) const CHECKS: &[Check] = &[
    check("idle", "1", "how long a quiet connection stays open", idle),
    check("pipelined", "1", "two requests in one write", pipelined),
    check("timeout-zero", "3", "an item with Timeout 0", timeout_zero),
    check("body-empty", "5.3", "a PUT without a body", body_empty),
    check(
        "sliding",
        "5.4",
        "every lookup that finds the item slides its expiry",
        sliding,
    ),
    check(
        "body-limit",
        "5.5",
        "the largest body that is stored, up to 64 MiB",
        body_limit,
    ),
    check("head-long", "5.5", "a head of 64 KiB", head_long),
    check(
        "bare-line-feed",
        "5.5",
        "lines that end without a carriage return",
        bare_line_feed,
    ),
    check("two-lengths", "5.5", "two different lengths", two_lengths),
    check("chunked", "5.5", "a body in chunks", chunked),
    check("get-with-body", "11", "a GET with a body", get_with_body),
];

/// How long a quiet connection is watched.
const LONGEST_QUIET: Duration = Duration::from_secs(75);

/// Sizes of bodies that are tried, in MiB.
const SIZES_MIB: [usize; 5] = [2, 4, 16, 32, 64];

fn head(talk: &Talk<'_>, method: &str) -> Result<String, NoAnswer> {
    let target = talk.own_target()?;
    let target = String::from_utf8_lossy(&target).into_owned();
    Ok(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n"))
}

/// What the server makes of bytes that are no request of this protocol.
fn reaction(talk: &mut Talk<'_>, request: &[u8]) -> Result<String, NoAnswer> {
    let mut line = talk.open()?;
    let what = match talk.ask_over(&mut line, request) {
        Ok(answer) => format!("answered {}", answer.head.status),
        Err(silence) => return Ok(silence.to_string()),
    };
    Ok(match line.is_closed_within(Duration::from_secs(1)) {
        true => format!("{what}, and the connection closed"),
        false => format!("{what}, and the connection stays open"),
    })
}

fn observe(talk: &mut Talk<'_>, request: &[u8]) -> Result<Outcome, NoAnswer> {
    reaction(talk, request).map(Outcome::observed)
}

fn idle(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let mut line = talk.open()?;
    let request = head(talk, "HEAD")? + "\r\n";
    talk.ask_over(&mut line, request.as_bytes())?;
    let begun = Instant::now();
    while begun.elapsed() < LONGEST_QUIET {
        talk.rest(Duration::ZERO)?;
        if line.is_closed_within(Duration::from_millis(500)) {
            return Ok(Outcome::observed(format!(
                "it closes a connection that has been quiet for {} s",
                begun.elapsed().as_secs_f64().round()
            )));
        }
    }
    Ok(Outcome::observed(format!(
        "a connection stays open for {} s at least",
        LONGEST_QUIET.as_secs()
    )))
}

fn pipelined(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let two = [head(talk, "HEAD")?, head(talk, "GET")?]
        .map(|head| head + "\r\n")
        .concat();
    let mut line = talk.open()?;
    line.send(two.as_bytes())?;
    talk.requests += 2;
    let answers = [line.answer(true), line.answer(false)];
    Ok(Outcome::observed(match answers {
        [Ok(first), Ok(second)] => format!(
            "both are answered, with {} and {}",
            first.head.status, second.head.status
        ),
        [Ok(_), Err(silence)] => format!("only the first is answered, then {silence}"),
        [Err(silence), _] => silence.to_string(),
    }))
}

fn timeout_zero(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let target = talk.own_target()?;
    let put = Ask {
        timeout_minutes: 0,
        ..Ask::put(b"item")
    };
    let status = talk.ask(&target, put)?.head.status;
    let read = talk.ask(&target, Ask::of(Operation::Get))?;
    let shown = read
        .head
        .timeout
        .map(|timeout| timeout.of(read.head()).to_vec());
    // It must not stay for ever if it cannot be removed.
    talk.ask(&target, Ask::put(b"item"))?;
    let shown = shown.map_or_else(
        || "no timeout".to_owned(),
        |timeout| format!("Timeout {}", timeout.escape_ascii()),
    );
    Ok(Outcome::observed(format!(
        "the PUT is answered {status}, a read {} with {shown}",
        read.head.status
    )))
}

fn body_empty(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let target = talk.own_target()?;
    let status = talk.ask(&target, Ask::put(b""))?.head.status;
    let read = talk.ask(&target, Ask::of(Operation::Get))?.head.status;
    Ok(Outcome::observed(format!(
        "the PUT is answered {status}, a read {read}"
    )))
}

/// Items that live one minute are looked up after 40 s and counted after 80 s.
fn sliding(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    const LOOKUPS: [(&str, bool, Operation); 5] = [
        ("HEAD", false, Operation::Touch),
        ("GET", false, Operation::Get),
        ("a GET of a locked item", true, Operation::Get),
        ("a refused PUT", true, Operation::Put),
        ("a refused release", true, Operation::Release),
    ];
    let mut targets = Vec::new();
    let begun = Instant::now();
    let untouched = talk.own_target()?;
    talk.ask(&untouched, Ask::put(b"item"))?;
    for (_, is_locked, _) in LOOKUPS {
        let target = talk.own_target()?;
        talk.ask(&target, Ask::put(b"item"))?;
        if is_locked {
            talk.ask(&target, Ask::of(Operation::Acquire))?;
        }
        targets.push(target);
    }
    let left = |s: u64| Duration::from_secs(s).saturating_sub(begun.elapsed());
    talk.rest(left(40))?;
    for (target, (_, _, operation)) in targets.iter().zip(LOOKUPS) {
        let lookup = Ask {
            operation,
            lock: 1,
            ..Ask::put(b"late")
        };
        talk.ask(target, lookup)?;
    }
    talk.rest(left(80))?;
    let mut findings = Vec::new();
    for (target, (name, ..)) in targets.iter().zip(LOOKUPS) {
        if talk.ask(target, Ask::of(Operation::Touch))?.head.status == 404 {
            findings.push(format!(
                "{name} does not slide the expiry: users who only do that lose their sessions"
            ));
        }
    }
    if talk.ask(&untouched, Ask::of(Operation::Touch))?.head.status != 404 {
        findings.push("an item that nobody used is there after 80 s of its one minute".to_owned());
    }
    Ok(Outcome::of(findings))
}

fn body_limit(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let mut largest = 1;
    for mib in SIZES_MIB {
        let target = talk.own_target()?;
        let body = vec![b'x'; mib << 20];
        let stored = talk
            .ask(&target, Ask::put(&body))
            .map(|answer| answer.head.status);
        if stored != Ok(200) {
            let why = stored.map_or_else(
                |silence| silence.to_string(),
                |status| format!("status {status}"),
            );
            return Ok(Outcome::observed(format!(
                "{largest} MiB are stored, {mib} MiB are not: {why}"
            )));
        }
        talk.clean();
        largest = mib;
    }
    Ok(Outcome::observed(format!("{largest} MiB are stored")))
}

fn head_long(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let request = head(talk, "HEAD")? + "X-Long: " + &"x".repeat(64 << 10) + "\r\n\r\n";
    observe(talk, request.as_bytes())
}

fn bare_line_feed(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let request = head(talk, "HEAD")?.replace("\r\n", "\n") + "\n";
    observe(talk, request.as_bytes())
}

fn two_lengths(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let request = head(talk, "PUT")?
        + "Timeout:1\r\nContent-Length:3\r\nContent-Length:4\r\nExtraFlags:0\r\nLockCookie:0\r\n\r\nitem";
    observe(talk, request.as_bytes())
}

fn chunked(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let request = head(talk, "PUT")?
        + "Timeout:1\r\nTransfer-Encoding: chunked\r\nExtraFlags:0\r\nLockCookie:0\r\n\r\n4\r\nitem\r\n0\r\n\r\n";
    observe(talk, request.as_bytes())
}

fn get_with_body(talk: &mut Talk<'_>) -> Result<Outcome, NoAnswer> {
    let request = head(talk, "GET")? + "Content-Length: 4\r\n\r\nitem";
    observe(talk, request.as_bytes())
}
