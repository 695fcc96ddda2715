//! The golden wire vectors and scenarios at store level: a tiny request reader and answer writer
//! (protocol 2.2, 3 and 4) around `SessionStore::apply`, compared byte for byte.

#![expect(clippy::expect_used, reason = "a broken fixture must stop the test")]

use serde_json::Value;
use staterouter::store::{Body, Now, SessionCommand, StoreOptions, StoreOutcome};

use crate::stores::{Ask, TestStore, for_every_store};

for_every_store! {
    every_wire_vector_gives_its_answer_and_its_state,
    every_scenario_gives_its_answers,
}

const LOCAL_TICKS: u64 = 638_000_000_000_000_000;

fn every_wire_vector_gives_its_answer_and_its_state<S: TestStore>() {
    let vectors = lines("wire.jsonl");
    assert_eq!(vectors.len(), 42);
    for vector in vectors {
        let store = S::build(&StoreOptions::new([1; 16]));
        let name = format!("vector {} {}", vector["n"], vector["name"]);
        for item in array(&vector["given"]) {
            put_into_state(&store, item);
            assert_state(&store, item, &format!("{name}, given"), None);
        }
        let answer = answer(&store, &bytes(&vector["request"]), now(5000));
        assert_answer::<S>(&answer, &bytes(&vector["response"]), &name);

        // The stock server restarts the counter in vector 24; this store never lets it go back.
        let cookie = (vector["n"] == 24).then_some(6);
        for item in array(&vector["then"]) {
            assert_state(&store, item, &name, cookie);
        }
        assert_eq!(
            store.stats().items,
            array(&vector["then"]).len() as u64,
            "{name}"
        );
    }
}

fn every_scenario_gives_its_answers<S: TestStore>() {
    let target = text(&lines("targets.jsonl")[0]["raw"]);
    let other = target.replace("q3m1zt0xk4vdw2hn5sbyr0ac", "b5k2ye1tqz0mh3wdcx4nvs1g");
    assert_ne!(target, other);
    let scenarios = lines("scenarios.jsonl");
    assert_eq!(scenarios.len(), 6);
    for scenario in scenarios {
        let store = S::build(&StoreOptions::new([2; 16]));
        for (index, step) in array(&scenario["steps"]).iter().enumerate() {
            let request = text(&step["request"])
                .replace("{T1}", &target)
                .replace("{T2}", &other);
            let answer = answer(&store, &latin1(&request), now(index as u64 * 700));
            let name = format!("{} step {}", scenario["name"], index + 1);
            assert_answer::<S>(&answer, &bytes(&step["response"]), &name);
        }
    }
}

/// Brings an item into a state with operations alone.
fn put_into_state<S: TestStore>(store: &S, item: &Value) {
    let key = bytes(&item["key"]);
    let timeout = item["timeout"].to_string();
    let flags: &[u8] = if item["uninit"] == true { b"1" } else { b"0" };
    let put = SessionCommand::put(
        Some(timeout.as_bytes()),
        Some(flags),
        Some(b"0"),
        Body::from(bytes(&item["body"])),
    );
    let _ = store.ask(&key, put, now(0));
    let locks = item["cookie"].as_u64().expect("a cookie") - 1;
    for lock in 1..=locks {
        let _ = store.ask(&key, SessionCommand::Acquire, now(0));
        if lock < locks || item["locked"] == false {
            let cookie = (lock + 1).to_string();
            let _ = store.ask(
                &key,
                SessionCommand::release(Some(cookie.as_bytes())),
                now(0),
            );
        }
    }
}

fn assert_state<S: TestStore>(store: &S, item: &Value, name: &str, cookie: Option<u32>) {
    let found = store.look(&bytes(&item["key"]), now(5000)).expect(name);
    assert_eq!(u64::from(found.timeout_minutes), item["timeout"], "{name}");
    match cookie {
        Some(cookie) => assert_eq!(found.cookie, cookie, "{name}"),
        None => assert_eq!(u64::from(found.cookie), item["cookie"], "{name}"),
    }
    assert_eq!(found.locked, item["locked"], "{name}");
    assert_eq!(found.uninit, item["uninit"], "{name}");
    assert_eq!(&*found.body, bytes(&item["body"]).as_slice(), "{name}");
}

/// Reads one request, applies it and writes the whole answer.
fn answer<S: TestStore>(store: &S, request: &[u8], now: Now) -> Vec<u8> {
    let end = request
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("an empty line");
    let head = std::str::from_utf8(&request[..end]).expect("an ASCII head");
    let mut lines = head.split("\r\n");
    let line = lines.next().expect("a request line");
    let (method, rest) = line.split_once(' ').expect("a method");
    let (target, _version) = rest.rsplit_once(' ').expect("a version");
    let headers: Vec<(&str, &[u8])> = lines
        .map(|line| line.split_once(':').expect("a header"))
        .map(|(name, value)| (name, value.trim().as_bytes()))
        .collect();
    let header = |name: &str| headers.iter().find(|h| h.0 == name).map(|h| h.1);
    let cookie = header("LockCookie");
    let command = match (
        method,
        header("Exclusive")
            .map(<[u8]>::to_ascii_lowercase)
            .as_deref(),
    ) {
        ("GET", None) => Ok(SessionCommand::Get),
        ("GET", Some(b"acquire")) => Ok(SessionCommand::Acquire),
        ("GET", Some(b"release")) => Ok(SessionCommand::release(cookie)),
        ("PUT", None) => SessionCommand::put(
            header("Timeout"),
            header("ExtraFlags"),
            cookie,
            Body::from(&request[end + 4..]),
        ),
        ("DELETE", None) => Ok(SessionCommand::remove(cookie)),
        ("HEAD", None) => Ok(SessionCommand::Touch),
        _ => return written("400 Bad Request", "", b""),
    };
    render(&store.ask(&canonical_key(target), command, now))
}

fn render(outcome: &StoreOutcome) -> Vec<u8> {
    let flags = |set: bool| if set { "ActionFlags: 1\r\n" } else { "" };
    match outcome {
        StoreOutcome::Found {
            body,
            timeout_minutes,
            cookie,
            action_flags,
        } => {
            let cookie = cookie.map_or(String::new(), |c| format!("LockCookie: {c}\r\n"));
            let flags = flags(*action_flags);
            written(
                "200 OK",
                &format!("{flags}{cookie}Timeout: {timeout_minutes}\r\n"),
                body,
            )
        }
        StoreOutcome::Done { action_flags, .. } => written("200 OK", flags(*action_flags), b""),
        StoreOutcome::Absent => written("404 Not Found", "", b""),
        StoreOutcome::Locked {
            lock_date_ticks,
            lock_age_s,
            cookie,
        } => {
            let date = format!("LockDate: {lock_date_ticks}\r\nLockAge: {lock_age_s}\r\n");
            written(
                "423 Locked",
                &format!("{date}LockCookie: {cookie}\r\n"),
                b"",
            )
        }
        StoreOutcome::Invalid(_) | StoreOutcome::Refused(_) | StoreOutcome::Unknown => {
            written("400 Bad Request", "", b"")
        }
    }
}

fn written(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let version = "X-AspNet-Version: 4.0.30319";
    let end = format!("Cache-Control: private\r\nContent-Length: {}", body.len());
    let mut answer = format!("{status}\r\n{version}\r\n{headers}{end}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// Compares with a response in which `{LOCKDATE}` and `{LOCKAGE}` stand for digits.
fn assert_answer<S: TestStore>(answer: &[u8], expected: &[u8], name: &str) {
    let slack_ticks = S::SLACK_MS * 10_000;
    let expected: Vec<&[u8]> = expected.split_inclusive(|&b| b == b'\n').collect();
    let answer: Vec<&[u8]> = answer.split_inclusive(|&b| b == b'\n').collect();
    assert_eq!(answer.len(), expected.len(), "{name}");
    for (line, expected) in answer.iter().zip(expected) {
        let shown = String::from_utf8_lossy(line);
        match expected {
            b"LockDate: {LOCKDATE}\r\n" => {
                let ticks = digits(&shown, "LockDate: ").expect(name);
                assert!(
                    (LOCAL_TICKS - slack_ticks..=LOCAL_TICKS + 50_000_000).contains(&ticks),
                    "{name}"
                );
            }
            b"LockAge: {LOCKAGE}\r\n" => {
                assert!(digits(&shown, "LockAge: ").expect(name) <= 5, "{name}");
            }
            _ => assert_eq!(*line, expected, "{name}: {shown}"),
        }
    }
}

fn digits(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.strip_suffix("\r\n")?.parse().ok()
}

/// Protocol 2.2, as far as the fixtures need it.
fn canonical_key(target: &str) -> Vec<u8> {
    let target = if target.starts_with("//") {
        &target[1..]
    } else {
        target
    };
    let mut rest = target.as_bytes();
    let mut key = Vec::new();
    while let [first, tail @ ..] = rest {
        let escape = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                key.push(byte);
                rest = &tail[2..];
            }
            _ => {
                key.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    key
}

/// A time some milliseconds after the start of the test.
fn now(ms: u64) -> Now {
    Now {
        unix_ms: 1_000_000 + ms,
        local_ticks: LOCAL_TICKS + ms * 10_000,
    }
}

fn lines(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let content = std::fs::read_to_string(path).expect("the fixtures");
    content
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().expect("an array")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn bytes(value: &Value) -> Vec<u8> {
    latin1(&text(value))
}

/// The fixtures write the bytes 0x80 to 0xFF as U+0080 to U+00FF.
fn latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
        .collect()
}
