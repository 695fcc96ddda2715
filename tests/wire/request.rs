//! What the codec promises about requests (protocol 2.3, 3, 10 and 11).
#![expect(clippy::panic, reason = "a test helper stops its test")]

use crate::vectors;
use proptest::prelude::*;
use staterouter::wire::decimal;
use staterouter::wire::head::MAX_HEADERS;
use staterouter::wire::rewrite::HEADROOM_BYTES;
use staterouter::wire::{
    Exclusive, HeadLimits, Method, Operation, Parsed, Request, RequestHead, Span, WireError,
    encode_request, replace_value,
};

const PUT: &str = "PUT %2fLM%2fshop(hash%3d)%2fid HTTP/1.1\r\nHost: localhost\r\nTimeout:20\r\n\
    Content-Length:9\r\nExtraFlags:0\r\nLockCookie:2\r\n\r\n";

type Outcome = Result<Parsed<RequestHead>, WireError>;

fn parse(bytes: &[u8]) -> Outcome {
    RequestHead::parse(bytes, &HeadLimits::default())
}

fn complete(bytes: impl AsRef<[u8]>) -> RequestHead {
    match parse(bytes.as_ref()) {
        Ok(Parsed::Complete(head)) => head,
        other => panic!("{:?}: {other:?}", bytes.as_ref().escape_ascii().to_string()),
    }
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET x HTTP/1.1\r\n{headers}\r\n").into_bytes()
}

fn of(bytes: &[u8], span: Option<Span>) -> Option<&[u8]> {
    span.map(|span| span.of(bytes))
}

#[test]
fn spans_of_stock_requests_are_the_bytes_sent() {
    for vectors::Exchange { name, request, .. } in vectors::exchanges() {
        let head = complete(&request);
        assert!(request[..head.head_bytes].ends_with(b"\r\n\r\n"), "{name}");
        let all_bytes = head.head_bytes as u64 + head.body_bytes;
        assert_eq!(all_bytes, request.len() as u64, "{name}");
        let line = request.split(|&byte| byte == b'\r').next().unwrap();
        let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
        assert_eq!(head.target.of(&request), words[1], "{name}");
        for (span, header) in [
            (head.lock_cookie, "LockCookie"),
            (head.timeout, "Timeout"),
            (head.extra_flags, "ExtraFlags"),
        ] {
            assert_eq!(
                of(&request, span),
                vectors::header(&request, header),
                "{name}"
            );
        }
    }
}

#[test]
fn a_request_cut_anywhere_is_partial_and_then_always_the_same() {
    for vectors::Exchange { name, request, .. } in vectors::exchanges() {
        let head = complete(&request);
        for cut in 0..=request.len() {
            let expected = if cut < head.head_bytes {
                Parsed::Partial
            } else {
                Parsed::Complete(head)
            };
            assert_eq!(parse(&request[..cut]), Ok(expected), "{name} cut at {cut}");
        }
    }
}

#[test]
fn a_request_behind_the_first_one_is_left_alone() {
    let first = complete(PUT);
    let pipelined = format!("{PUT}\r\n\r\n\0bodyGET y HTTP/1.1\r\n\r\n");
    assert_eq!(complete(&pipelined), first);
    let second = &pipelined.as_bytes()[first.head_bytes + first.body_bytes as usize..];
    assert_eq!(complete(second).target.of(second), b"y");
}

#[test]
fn the_six_operations_come_from_method_and_exclusive() {
    for (method, exclusive, operation) in [
        ("GET", "", Operation::Get),
        ("GET", "Exclusive: acquire\r\n", Operation::Acquire),
        ("GET", "Exclusive: Acquire\r\n", Operation::Acquire),
        ("GET", "exclusive:RELEASE\r\n", Operation::Release),
        ("GET", "Exclusive: steal\r\n", Operation::Unknown),
        ("GET", "Exclusive:\r\n", Operation::Unknown),
        ("PUT", "", Operation::Put),
        ("DELETE", "", Operation::Remove),
        ("HEAD", "", Operation::Touch),
        ("POST", "", Operation::Unknown),
        ("get", "", Operation::Unknown),
    ] {
        let head = complete(format!("{method} x HTTP/1.1\r\n{exclusive}\r\n"));
        assert_eq!(head.operation(), operation, "{method} {exclusive:?}");
    }
}

#[test]
fn request_lines_are_split_at_the_first_and_the_last_space() {
    for (line, target) in [
        ("GET x HTTP/1.1", "x"),
        ("GET / HTTP/1.1", "/"),
        ("GET // HTTP/1.1", "//"),
        ("GET //a/b HTTP/1.0", "//a/b"),
        ("GET /my shop(h)/id HTTP/1.1", "/my shop(h)/id"),
        ("GET  two  HTTP/1.1", " two "),
        (
            "GET caf\u{e9}(h)/\u{e3}\u{81} HTTP/1.1",
            "caf\u{e9}(h)/\u{e3}\u{81}",
        ),
        ("GET x HTTP/2", "x"),
        ("GET http://h/x HTTP/1.1 HTTP/1.1", "http://h/x HTTP/1.1"),
        ("BREW|~ x HTTP/1.1", "x"),
    ] {
        let request = format!("{line}\r\n\r\n");
        let head = complete(&request);
        assert_eq!(head.target.of(request.as_bytes()), target.as_bytes());
        assert_eq!(head.method == Method::Get, line.starts_with("GET "));
    }
    for line in [
        "",
        " ",
        "GET",
        "GET x",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        " GET x HTTP/1.1",
        "GET x HTTP/1.1 ",
        "GET x http/1.1",
        "GET x XHTTP/1.1",
        "GET\tx HTTP/1.1",
        "GET x\ty HTTP/1.1",
        "G(T x HTTP/1.1",
        "G\u{e9}T x HTTP/1.1",
    ] {
        let outcome = parse(format!("{line}\r\n\r\n").as_bytes());
        assert_eq!(outcome, Err(WireError::BadRequestLine), "{line:?}");
    }
}

#[test]
fn header_names_are_read_in_any_case_with_any_blanks_in_any_order() {
    for line in [
        "Content-Length:30",
        "Content-Length: 30",
        "content-length:  30 ",
        "CONTENT-LENGTH:\t 30 \t",
        "cOnTeNt-lEnGtH: 0030",
    ] {
        assert_eq!(
            complete(get(&format!("{line}\r\n"))).body_bytes,
            30,
            "{line}"
        );
    }
    let request = get("EXTRAFLAGS: 1 \r\nlock-cookie:\t7\r\nX-Other: a:b\r\ntimeout:\r\n");
    let head = complete(&request);
    assert_eq!(of(&request, head.extra_flags), Some(&b"1"[..]));
    assert_eq!(of(&request, head.lock_cookie), Some(&b"7"[..]));
    assert_eq!(of(&request, head.timeout), Some(&b""[..]));
    assert_eq!(head.exclusive, Exclusive::None);
    assert_eq!(complete(get("")).lock_cookie, None);
}

#[test]
fn ambiguous_headers_are_refused() {
    let twice = |name| WireError::DuplicateHeader { name };
    for (headers, error) in [
        (
            "Content-Length: 3\r\nContent-Length: 3",
            twice("Content-Length"),
        ),
        (
            "Content-Length: 3\r\ncontent-length: 4",
            twice("Content-Length"),
        ),
        ("LockCookie: 3\r\nLockCookie: 3", twice("LockCookie")),
        ("LockCookie: 3\r\nLock-Cookie: 4", twice("LockCookie")),
        (
            "Exclusive: acquire\r\nexclusive: release",
            twice("Exclusive"),
        ),
        ("Timeout:20\r\nTimeout:20", twice("Timeout")),
        ("ExtraFlags:0\r\nExtraFlags:1", twice("ExtraFlags")),
        ("Content-Length:", WireError::BadContentLength),
        ("Content-Length: +1", WireError::BadContentLength),
        ("Content-Length: -1", WireError::BadContentLength),
        ("Content-Length: 1,1", WireError::BadContentLength),
        ("Content-Length: 1 1", WireError::BadContentLength),
        ("Content-Length: 0x1", WireError::BadContentLength),
        ("Content-Length: 1.0", WireError::BadContentLength),
        (
            "Content-Length: 99999999999999999999",
            WireError::BadContentLength,
        ),
        ("Transfer-Encoding: chunked", WireError::TransferEncoding),
        ("transfer-encoding:identity", WireError::TransferEncoding),
        ("Origin: http://attacker.example", WireError::FromWebPage),
        ("origin:null", WireError::FromWebPage),
        ("Content-Length : 3", WireError::BadHeaderLine),
        ("Content-Length\t: 3", WireError::BadHeaderLine),
        (" Content-Length: 3", WireError::BadHeaderLine),
        ("Host: a\r\n folded", WireError::BadHeaderLine),
        ("Host: a\r\n\tContent-Length: 3", WireError::BadHeaderLine),
        (": 3", WireError::BadHeaderLine),
        ("no colon", WireError::BadHeaderLine),
        ("Content-L\u{e9}ngth: 3", WireError::BadHeaderLine),
        ("Host: a\nContent-Length: 3", WireError::BareLineFeed),
        ("Host: a\r\n\n", WireError::BareLineFeed),
        ("Host: a\rContent-Length: 3", WireError::ControlByte),
        ("Host: a\r\r\nTimeout: 3", WireError::ControlByte),
    ] {
        let outcome = parse(&get(&format!("{headers}\r\n")));
        assert_eq!(outcome, Err(error), "{headers:?}");
    }
}

#[test]
fn a_control_byte_anywhere_in_a_head_is_refused() {
    let controls = (0..0x20).chain([0x7f]).filter(|&byte| byte != b'\t');
    // Only up to the last line feed: what stands behind it is body.
    for (control, at) in controls.flat_map(|byte| (0..PUT.len() - 1).map(move |at| (byte, at))) {
        let mut request = PUT.as_bytes().to_vec();
        request.insert(at, control);
        let outcome = parse(&request);
        assert!(outcome.is_err(), "{control:#x} at {at}: {outcome:?}");
    }
}

#[test]
fn the_head_limit_is_exact_whether_the_head_is_complete_or_not() {
    let head_bytes = PUT.len();
    for (max_head_bytes, fits) in [(head_bytes, true), (head_bytes - 1, false)] {
        let limits = HeadLimits {
            max_head_bytes,
            ..HeadLimits::default()
        };
        let too_large = Err(WireError::HeadTooLarge {
            max_bytes: max_head_bytes,
        });
        let with_body = format!("{PUT}body\r\n\r\n");
        for bytes in [PUT, &with_body] {
            let outcome = RequestHead::parse(bytes.as_bytes(), &limits);
            assert_eq!(outcome.is_ok(), fits);
            assert!(fits || outcome == too_large);
        }
        // A line that never ends, a head that never ends: refused as soon as the limit is reached.
        let endless_line = "a".repeat(max_head_bytes);
        let endless_head = format!("GET x HTTP/1.1\r\nHost: {endless_line}");
        for bytes in [endless_line.as_bytes(), endless_head.as_bytes()] {
            let parse = |bytes| RequestHead::parse(bytes, &limits);
            assert_eq!(parse(&bytes[..max_head_bytes - 1]), Ok(Parsed::Partial));
            assert_eq!(parse(&bytes[..max_head_bytes]), too_large);
            assert_eq!(parse(bytes), too_large);
        }
    }
}

#[test]
fn the_number_of_headers_is_bounded() {
    let headers = |count| get(&"A: b\r\n".repeat(count));
    complete(headers(MAX_HEADERS));
    let outcome = parse(&headers(MAX_HEADERS + 1));
    assert_eq!(outcome, Err(WireError::TooManyHeaders));
}

#[test]
fn the_body_limit_is_exact() {
    let limits = HeadLimits {
        max_body_bytes: 9,
        ..HeadLimits::default()
    };
    let outcome = |length: u64| {
        let request = get(&format!("Content-Length: {length}\r\n"));
        RequestHead::parse(&request, &limits)
    };
    for length in 0..=9 {
        assert!(matches!(outcome(length), Ok(Parsed::Complete(head)) if head.body_bytes == length));
    }
    for length in [10, u64::MAX] {
        let too_large = WireError::BodyTooLarge { max_bytes: 9 };
        assert_eq!(outcome(length), Err(too_large));
    }
}

#[test]
fn encoded_requests_are_those_of_the_stock_client() {
    let mut operations = Vec::new();
    for vectors::Exchange { name, request, .. } in vectors::exchanges() {
        let head = complete(&request);
        let number = |span| of(&request, span).and_then(decimal).map(|n| n as u32);
        let (cookie, timeout) = (number(head.lock_cookie), number(head.timeout));
        let flags = number(head.extra_flags);
        let whole = match head.operation() {
            Operation::Get | Operation::Acquire | Operation::Touch => true,
            Operation::Release | Operation::Remove => cookie.is_some(),
            Operation::Put => cookie.and(timeout).and(flags).is_some(),
            Operation::Unknown => false,
        };
        // Two fixtures spell a whole request in ways a stock client does not.
        if !whole || name.starts_with("wire 40:") || name.starts_with("wire 42:") {
            continue;
        }
        operations.push(head.operation());
        let mut encoded = Vec::new();
        encode_request(
            &mut encoded,
            &Request {
                operation: head.operation(),
                target: head.target.of(&request),
                lock_cookie: cookie.unwrap_or(0),
                timeout_minutes: timeout.unwrap_or(0),
                extra_flags: flags.unwrap_or(0),
                body: &request[head.head_bytes..],
            },
        );
        assert_eq!(encoded, request, "{name}");
    }
    for operation in [
        Operation::Get,
        Operation::Acquire,
        Operation::Release,
        Operation::Put,
        Operation::Remove,
        Operation::Touch,
    ] {
        assert!(operations.contains(&operation), "{operation:?}");
    }
}

/// Any bytes, and pieces of heads in any order: those get past the first line now and then.
fn bytes_like_requests() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "GET ", "PUT x HTTP/1.1\r\n", " HTTP/1.1\r\n", "\r\n", "\r\n\r\n", "\n", "\r", "a: b\r\n",
            "Content-Length:", "Content-Length: 7\r\n", "LockCookie: ", "Transfer-Encoding:", ":",
            " ", "\t", "Exclusive: acquire\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    let whole = pieces
        .clone()
        .prop_map(|p| [b"GET x HTTP/1.1\r\n", &p[..], b"\r\n\r\n"].concat());
    prop_oneof![pieces, whole, prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn a_complete_head_ends_where_it_says_and_no_prefix_reads_differently(
        bytes in bytes_like_requests(),
    ) {
        if let Ok(Parsed::Complete(head)) = parse(&bytes) {
            prop_assert!(bytes[..head.head_bytes].ends_with(b"\r\n\r\n"));
            prop_assert!(!head.target.of(&bytes).is_empty());
            for cut in 0..head.head_bytes {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Partial), "cut at {}", cut);
            }
            prop_assert_eq!(parse(&bytes[..head.head_bytes]), Ok(Parsed::Complete(head)));
        } else {
            for cut in 0..bytes.len() {
                let outcome = parse(&bytes[..cut]);
                prop_assert!(!matches!(outcome, Ok(Parsed::Complete(_))), "cut at {}", cut);
            }
        }
    }

    #[test]
    fn replacing_a_value_in_place_equals_rebuilding_the_request(
        old in "[0-9]{1,10}",
        new in "[0-9]{0,10}",
        room in 0..HEADROOM_BYTES,
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let request = |cookie: &str| {
            let head = PUT.replace("LockCookie:2", &format!("LockCookie:{cookie}"));
            [head.as_bytes(), &body].concat()
        };
        let mut buffer = [vec![b'#'; room], request(&old)].concat();
        let cookie = complete(&buffer[room..]).lock_cookie.unwrap();
        let buffer_bytes = buffer.len();
        match replace_value(&mut buffer, room, cookie, new.as_bytes()) {
            Ok(start) => {
                prop_assert_eq!(&buffer[start..], request(&new));
                prop_assert_eq!(&buffer[buffer_bytes - body.len()..], body);
                prop_assert_eq!(start + new.len(), room + old.len());
            }
            Err(refused) => {
                prop_assert_eq!(refused.needed_bytes, new.len() - old.len());
                prop_assert!(refused.needed_bytes > room);
                prop_assert_eq!(&buffer[room..], request(&old));
            }
        }
    }
}
