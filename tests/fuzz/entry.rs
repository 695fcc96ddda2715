//! The fuzz entries. Each takes any bytes, checks what must hold for them, and says whether they
//! were accepted. Shared by the `cargo fuzz` targets beside this file and `tests/fuzz_smoke.rs`.
#![allow(dead_code, reason = "every fuzz target uses one entry")]

use std::collections::HashSet;
use std::time::Duration;

use staterouter::config::{
    BackendAddress, BackendState, Config, Faults, PartitionMap, application_hash,
};
use staterouter::contents;
use staterouter::redis::ReplyScanner;
use staterouter::route::{self, Application, KeyBuffer, MAX_MEMBERS, MAX_WEIGHT, extract};
use staterouter::wire::decimal;
use staterouter::wire::rewrite::HEADROOM_BYTES;
use staterouter::wire::{
    HeadLimits, Operation, Parsed, Request, RequestHead, ResponseHead, Span, WireError,
    encode_request, replace_value,
};

/// A request head from a client: exact limits, no second reading, and a rewrite that changes one
/// value only.
pub(crate) fn request_head(bytes: &[u8]) -> bool {
    let limits = HeadLimits::default();
    let parse = |bytes: &[u8]| RequestHead::parse(bytes, &limits);
    let head = match parse(bytes) {
        Ok(Parsed::Complete(head)) => head,
        Ok(Parsed::Partial) => {
            assert!(bytes.len() < limits.max_head_bytes);
            return false;
        }
        Err(_) => return false,
    };
    check_framing(bytes, head.head_bytes, head, parse);
    check_limit(head.head_bytes, head, |max_head_bytes| {
        let limits = HeadLimits {
            max_head_bytes,
            ..limits
        };
        RequestHead::parse(bytes, &limits)
    });
    assert!(head.body_bytes <= limits.max_body_bytes);
    assert!(!head.target.of(bytes).is_empty());
    if let Some(cookie) = head.lock_cookie {
        check_rewrite(bytes, &head, cookie);
    }
    check_encoding(bytes, &head);
    true
}

/// Answers of a Redis: the same wherever their bytes are cut, and none that is refused goes on.
pub(crate) fn redis_answers(bytes: &[u8]) -> bool {
    let mut whole = ReplyScanner::default();
    let followed = whole.follow(bytes);
    let step = bytes.first().map_or(1, |byte| usize::from(*byte) % 7 + 1);
    let mut in_parts = ReplyScanner::default();
    let parts = bytes
        .chunks(step)
        .try_for_each(|part| in_parts.follow(part));
    assert_eq!(parts, followed);
    if followed.is_ok() {
        assert_eq!(in_parts.is_between_answers(), whole.is_between_answers());
        // What is refused is refused without what comes behind it.
        for end in 0..bytes.len().min(64) {
            assert_eq!(ReplyScanner::default().follow(&bytes[..end]), Ok(()));
        }
    }
    followed.is_ok() && whole.is_between_answers()
}

/// The beginning of a session body: bounded, the same from a shorter beginning or not at all, and as
/// it was written.
pub(crate) fn session_body(bytes: &[u8]) -> bool {
    let Ok(found) = contents::decode(bytes) else {
        return false;
    };
    assert!(found.items.len() <= 10_000);
    assert!(found.items.iter().all(|item| item.name.len() <= 128));
    let sum: u64 = found.items.iter().map(|item| item.bytes).sum();
    assert_eq!(sum, found.values_bytes);
    if !found.compressed && !found.items.is_empty() {
        for end in [bytes.len() / 2, bytes.len() - 1] {
            if let Ok(shorter) = contents::decode(&bytes[..end]) {
                assert_eq!(shorter, found);
            }
        }
    }
    let nameless = found.items.iter().filter(|item| item.name.is_empty());
    if nameless.count() <= 1 && sum <= 1 << 20 {
        let written = contents::encode(20, &found.items);
        let again = contents::decode(&written);
        assert_eq!(again.as_ref().map(|again| &again.items), Ok(&found.items));
        let packed = contents::decode(&contents::compress(&written));
        assert_eq!(packed.map(|packed| packed.items), Ok(found.items));
    }
    true
}

/// A response head from a backend, as the answer to a HEAD and to anything else.
pub(crate) fn response_head(bytes: &[u8]) -> bool {
    let max_head_bytes = HeadLimits::default().max_head_bytes;
    let parse = |bytes: &[u8]| ResponseHead::parse(bytes, max_head_bytes, false);
    let to_head = ResponseHead::parse(bytes, max_head_bytes, true);
    let head = match parse(bytes) {
        Ok(Parsed::Complete(head)) => head,
        Ok(Parsed::Partial) => {
            assert!(bytes.len() < max_head_bytes);
            assert_eq!(to_head, Ok(Parsed::Partial));
            return false;
        }
        Err(WireError::MissingContentLength) => {
            assert!(matches!(to_head, Ok(Parsed::Complete(_))));
            return false;
        }
        Err(error) => {
            assert_eq!(to_head, Err(error));
            return false;
        }
    };
    check_framing(bytes, head.head_bytes, head, parse);
    check_limit(head.head_bytes, head, |max_head_bytes| {
        ResponseHead::parse(bytes, max_head_bytes, false)
    });
    let without_body = ResponseHead {
        body_bytes: 0,
        ..head
    };
    assert_eq!(to_head, Ok(Parsed::Complete(without_body)));
    assert!((200..600).contains(&head.status));
    assert!(!head.is_uninitialised(bytes) || head.action_flags.is_some());
    true
}

/// A request target: the key never grows, ends in the session id, and is found again from a
/// target that escapes every byte of it, and with a buffer that was used for another.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let mut buffer = KeyBuffer::new();
    let Ok(key) = extract(bytes, &mut buffer) else {
        return false;
    };
    assert!(key.key().len() <= bytes.len());
    assert!(key.key().starts_with(key.app()));
    assert!(key.key().ends_with(key.session_id()));
    assert!(!key.session_id().is_empty());

    let escaped: String = key
        .key()
        .iter()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let mut buffer = KeyBuffer::new();
    let again = extract(escaped.as_bytes(), &mut buffer);
    assert_eq!(again, Ok(key));

    // What a buffer was used for before makes no difference.
    let cut = bytes.len() / 2;
    for other in [&bytes[..cut], &[bytes, b"%2f"].concat(), bytes] {
        let fresh = &mut KeyBuffer::new();
        assert_eq!(extract(other, &mut buffer), extract(other, fresh));
    }
    true
}

/// The id of an application put in place of another: the session id stays as it was sent, the id is
/// the one that state servers know, and what has it already stays as it is.
pub(crate) fn renaming(bytes: &[u8]) -> bool {
    const ID: &str = "/LM/W3SVC/9/ROOT/New";
    let also = [
        "/LM/W3SVC/1/ROOT",
        "/LM/W3SVC/7/ROOT/shop",
        "/LM/W3SVC/2/ROOT/a b",
    ];
    let also = also.map(str::to_owned);
    let hash = application_hash(ID);
    let Ok(application) = Application::new(ID, &hash, &also, true) else {
        panic!("a start of usual length");
    };
    let applications = [application];
    let mut names = KeyBuffer::new();
    let found = match route::renaming(&applications, bytes, &mut names) {
        Ok(Some(found)) => found,
        Ok(None) => return false,
        Err(error) => {
            assert_eq!(extract(bytes, &mut KeyBuffer::new()), Err(error));
            return false;
        }
    };
    let mut before = KeyBuffer::new();
    let Ok(before) = extract(bytes, &mut before) else {
        panic!("renamed, and no target");
    };
    let sent = match found.start {
        None => bytes.to_vec(),
        Some((count, start)) => [start, &bytes[count..]].concat(),
    };
    let mut after = KeyBuffer::new();
    let Ok(after) = extract(&sent, &mut after) else {
        panic!("sent on, and no target: {}", sent.escape_ascii());
    };
    assert_eq!(after.session_id(), before.session_id());
    assert_eq!(after.app(), ID.as_bytes());
    assert_eq!(after.hash().as_ref(), hash.as_bytes());
    assert_eq!(found.start.is_none(), before.key() == after.key());
    let again = route::renaming(&applications, &sent, &mut names);
    assert!(matches!(again, Ok(Some(again)) if again.start.is_none()));
    true
}

/// A main file: what is accepted is within the promised ranges, what is refused is explained.
pub(crate) fn config(bytes: &[u8]) -> bool {
    let config = match Config::parse(bytes, "main.yaml") {
        Ok(config) => config,
        Err(faults) => {
            check_faults(&faults);
            return false;
        }
    };
    let Config {
        timeouts,
        limits,
        peers,
        health,
        handover,
        ..
    } = config;
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    for timeout in [
        timeouts.connect,
        timeouts.answer,
        timeouts.client_idle,
        timeouts.client_stall,
        timeouts.backend_idle,
        timeouts.accept_wait,
        timeouts.shutdown,
    ] {
        assert!(range.contains(&timeout));
    }
    assert!(timeouts.connect <= timeouts.answer);
    assert!((1024..=64 * 1024).contains(&limits.head_bytes));
    assert!(limits.body_bytes <= i32::MAX as u64);
    assert!(peers.len() <= 32);
    assert!(1 <= health.fall && 1 <= health.rise && health.rise <= health.max_rise);
    let operation = timeouts.connect + timeouts.answer;
    assert!(operation <= handover.settle && handover.hold <= Duration::from_secs(60));
    assert!(peers.is_empty() || operation + Duration::from_secs(3) <= handover.settle);
    assert!(handover.session_timeout <= handover.max_session_timeout);
    assert!((1..=100).contains(&handover.max_moved_percent));
    true
}

/// A partition map: what is accepted can be routed on, what is refused is explained.
pub(crate) fn partition_map(bytes: &[u8]) -> bool {
    let backends = match PartitionMap::parse(bytes, "map.yaml") {
        Ok(map) => map.backends,
        Err(faults) => {
            check_faults(&faults);
            return false;
        }
    };
    assert!((1..=MAX_MEMBERS).contains(&backends.len()));
    assert!(backends.iter().any(|b| b.state == BackendState::Active));
    let (mut names, mut ids, mut addresses) = (HashSet::new(), HashSet::new(), HashSet::new());
    for backend in &backends {
        assert!((1..=MAX_WEIGHT).contains(&backend.weight.into()));
        assert!((1..=127).contains(&backend.id));
        let address = BackendAddress::parse(&backend.address.to_string());
        assert_eq!(address.as_ref(), Ok(&backend.address));
        let is_new = names.insert(&backend.name) & ids.insert(backend.id);
        assert!(is_new && addresses.insert(&backend.address));
    }
    true
}

/// Faults are counted, have a place, and their text is fit for a terminal and holds no key.
fn check_faults(faults: &Faults) {
    let shown = faults.iter().count();
    assert!(shown > 0 && shown <= faults.total());
    for fault in faults {
        assert!(fault.line() > 0 && fault.column() > 0);
        assert!(!fault.problem().is_empty() && !fault.help().is_empty());
    }
    let text = faults.to_string();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    let mut words = text.split(|c: char| !c.is_ascii_hexdigit());
    assert!(words.all(|digits| digits.len() < 32), "a key in: {text}");
}

/// A complete head holds no control bytes and ends where it says; cut short it is partial, and
/// what follows it is not looked at.
fn check_framing<T: Copy + PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    head_bytes: usize,
    head: T,
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, WireError>,
) {
    assert!(bytes[..head_bytes].ends_with(b"\r\n\r\n"));
    for line in bytes[..head_bytes].split_inclusive(|&byte| byte == b'\n') {
        let (text, end) = line.split_at(line.len() - 2);
        assert_eq!(end, b"\r\n");
        assert!(
            !text
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        );
    }
    assert_eq!(parse(&bytes[..head_bytes]), Ok(Parsed::Complete(head)));
    for cut in [0, head_bytes / 2, head_bytes - 1] {
        assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Partial));
    }
}

/// A limit of exactly the head's length lets it pass, one byte less does not.
fn check_limit<T: PartialEq + std::fmt::Debug>(
    head_bytes: usize,
    head: T,
    parse: impl Fn(usize) -> Result<Parsed<T>, WireError>,
) {
    assert_eq!(parse(head_bytes), Ok(Parsed::Complete(head)));
    let max_bytes = head_bytes - 1;
    let too_large = WireError::HeadTooLarge { max_bytes };
    assert_eq!(parse(max_bytes), Err(too_large));
}

/// A lock cookie replaced in place: the new value is read back, everything else stays.
fn check_rewrite(bytes: &[u8], head: &RequestHead, cookie: Span) {
    for new_cookie in [&b"2147483647"[..], b"7"] {
        let mut buffer = [&[b'#'; HEADROOM_BYTES], bytes].concat();
        let Ok(start) = replace_value(&mut buffer, HEADROOM_BYTES, cookie, new_cookie) else {
            panic!("no room for ten digits");
        };
        let rewritten = &buffer[start..];
        let expected = [&bytes[..cookie.start()], new_cookie, &bytes[cookie.end()..]];
        assert_eq!(rewritten, expected.concat());
        match RequestHead::parse(rewritten, &HeadLimits::default()) {
            Ok(Parsed::Complete(new_head)) => {
                let found = new_head.lock_cookie.map(|span| span.of(rewritten));
                assert_eq!(found, Some(new_cookie));
                assert_eq!(new_head.target, head.target);
                assert_eq!(new_head.body_bytes, head.body_bytes);
                assert_eq!(new_head.operation(), head.operation());
            }
            // The head may have been within ten bytes of the limit.
            outcome => assert!(matches!(outcome, Err(WireError::HeadTooLarge { .. }))),
        }
    }
}

/// The same operation on the same target in stock spelling is read as that.
fn check_encoding(bytes: &[u8], head: &RequestHead) {
    let number = |span: Option<Span>| {
        let number = span.and_then(|span| decimal(span.of(bytes)));
        number.map_or(0, |number| number as u32)
    };
    let mut encoded = Vec::new();
    encode_request(
        &mut encoded,
        &Request {
            operation: head.operation(),
            target: head.target.of(bytes),
            lock_cookie: number(head.lock_cookie),
            timeout_minutes: number(head.timeout),
            extra_flags: number(head.extra_flags),
            body: b"body",
        },
    );
    let limits = HeadLimits {
        max_head_bytes: usize::MAX,
        ..HeadLimits::default()
    };
    let Ok(Parsed::Complete(again)) = RequestHead::parse(&encoded, &limits) else {
        panic!("encoded, then refused: {}", encoded.escape_ascii());
    };
    assert_eq!(again.target.of(&encoded), head.target.of(bytes));
    match head.operation() {
        Operation::Unknown => assert_eq!(again.operation(), Operation::Get),
        known => assert_eq!(again.operation(), known),
    }
    assert_eq!(
        encoded.len() as u64,
        again.head_bytes as u64 + again.body_bytes
    );
}
