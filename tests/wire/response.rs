//! What the codec promises about answers (protocol 4, 10 and 11).
#![expect(clippy::panic, reason = "a test helper stops its test")]

use crate::vectors;
use proptest::prelude::*;
use staterouter::wire::decimal;
use staterouter::wire::head::MAX_HEADERS;
use staterouter::wire::{
    Answer, BAD_REQUEST, HeadLimits, Operation, Parsed, RequestHead, ResponseHead, Span, Unfit,
    WireError, encode_answer,
};

type Outcome = Result<Parsed<ResponseHead>, WireError>;

fn max_head_bytes() -> usize {
    HeadLimits::default().max_head_bytes
}

fn parse(bytes: &[u8]) -> Outcome {
    ResponseHead::parse(bytes, max_head_bytes(), false)
}

fn complete(bytes: impl AsRef<[u8]>) -> ResponseHead {
    match parse(bytes.as_ref()) {
        Ok(Parsed::Complete(head)) => head,
        other => panic!("{:?}: {other:?}", bytes.as_ref().escape_ascii().to_string()),
    }
}

fn ok(headers: &str) -> Vec<u8> {
    format!("200 OK\r\n{headers}\r\n").into_bytes()
}

fn of(bytes: &[u8], span: Option<Span>) -> Option<&[u8]> {
    span.map(|span| span.of(bytes))
}

#[test]
fn spans_of_stock_answers_are_the_bytes_sent() {
    for vectors::Exchange { name, response, .. } in vectors::exchanges() {
        let head = complete(&response);
        assert!(response[..head.head_bytes].ends_with(b"\r\n\r\n"), "{name}");
        let all_bytes = head.head_bytes as u64 + head.body_bytes;
        assert_eq!(all_bytes, response.len() as u64, "{name}");
        assert_eq!(decimal(&response[..3]), Some(head.status.into()), "{name}");
        for (span, header) in [
            (head.lock_cookie, "LockCookie"),
            (head.lock_age, "LockAge"),
            (head.timeout, "Timeout"),
            (head.action_flags, "ActionFlags"),
        ] {
            assert_eq!(
                of(&response, span),
                vectors::header(&response, header),
                "{name}"
            );
        }
    }
}

fn operation(request: &[u8]) -> Operation {
    match RequestHead::parse(request, &HeadLimits::default()) {
        Ok(Parsed::Complete(head)) => head.operation(),
        other => panic!("{:?}: {other:?}", request.escape_ascii().to_string()),
    }
}

#[test]
fn every_stock_answer_fits_its_request() {
    for vectors::Exchange {
        name,
        request,
        response,
        ..
    } in vectors::exchanges()
    {
        let head = complete(&response);
        assert!(head.has_version, "{name}");
        assert_eq!(head.fits(operation(&request)), Ok(()), "{name}");
        assert!(!head.is_one_of_two(&response), "{name}");
    }
}

#[test]
fn what_fits_only_another_request_is_told_apart() {
    let item = "Timeout: 20\r\nContent-Length: 1\r\n";
    let empty_item = "Timeout: 20\r\nContent-Length: 0\r\n";
    let locked = "LockCookie: 2\r\nTimeout: 20\r\nContent-Length: 1\r\n";
    let done = "Content-Length: 0\r\n";
    use Operation::{Acquire, Get, Put, Release, Remove, Touch};
    let cases = [
        (item, [Ok(()), Err(Unfit::NoLock), Err(Unfit::Body)]),
        (empty_item, [Ok(()), Err(Unfit::NoLock), Ok(())]),
        (locked, [Err(Unfit::Lock), Ok(()), Err(Unfit::Lock)]),
        (done, [Err(Unfit::NoItem), Err(Unfit::NoLock), Ok(())]),
    ];
    for (headers, [read, acquire, other]) in cases {
        let head = complete(ok(headers));
        assert_eq!(head.fits(Get), read, "{headers}");
        assert_eq!(head.fits(Acquire), acquire, "{headers}");
        for operation in [Put, Release, Remove] {
            assert_eq!(head.fits(operation), other, "{headers}");
        }
    }
    // Some servers announce what they would send to a GET.
    assert_eq!(complete(ok(item)).fits(Touch), Ok(()));
    assert_eq!(complete(ok(locked)).fits(Touch), Err(Unfit::Lock));
}

#[test]
fn a_status_that_says_nothing_about_a_session_fits_nothing() {
    for operation in Operation::ALL {
        let fits =
            |head: &str| complete(format!("{head}Content-Length: 0\r\n\r\n")).fits(operation);
        for status in [201, 204, 302, 401, 410, 500, 501, 503, 599] {
            let unfit = Err(Unfit::Status(status));
            assert_eq!(
                fits(&format!("{status} x\r\nX-AspNet-Version: 4.0\r\n")),
                unfit
            );
        }
        assert_eq!(fits("404 Not Found\r\n"), Err(Unfit::Unversioned));
        for head in [
            "404 Not Found\r\nX-AspNet-Version: 4.0\r\n",
            "404 Not Found\r\nx-aspnet-version:\r\n",
            // A native parser may refuse on its own account.
            "400 Bad Request\r\n",
            "423 Locked\r\n",
        ] {
            assert_eq!(fits(head), Ok(()), "{head}");
        }
    }
}

#[test]
fn an_answer_cut_anywhere_is_partial_and_then_always_the_same() {
    for vectors::Exchange { name, response, .. } in vectors::exchanges() {
        let head = complete(&response);
        for cut in 0..=response.len() {
            let expected = if cut < head.head_bytes {
                Parsed::Partial
            } else {
                Parsed::Complete(head)
            };
            assert_eq!(parse(&response[..cut]), Ok(expected), "{name} cut at {cut}");
        }
    }
}

#[test]
fn encoded_answers_are_those_of_the_stock_server() {
    for vectors::Exchange { name, response, .. } in vectors::exchanges() {
        let head = complete(&response);
        let number = |header| vectors::header(&response, header).and_then(decimal);
        let number_u32 = |header| number(header).map(|n| u32::try_from(n).unwrap());
        let uninitialised = head.is_uninitialised(&response);
        let answer = match head.status {
            200 if head.timeout.is_some() => Answer::Item {
                uninitialised,
                lock_cookie: number_u32("LockCookie"),
                timeout_minutes: number_u32("Timeout").unwrap(),
                body_bytes: head.body_bytes as usize,
            },
            200 => Answer::Done { uninitialised },
            404 => Answer::Absent,
            423 => Answer::Locked {
                lock_date_ticks: number("LockDate").unwrap(),
                lock_age_s: number_u32("LockAge").unwrap(),
                lock_cookie: number_u32("LockCookie").unwrap(),
            },
            400 => Answer::Invalid,
            other => panic!("{name}: status {other}"),
        };
        let mut encoded = b"kept".to_vec();
        encode_answer(&mut encoded, &answer);
        encoded.extend_from_slice(&response[head.head_bytes..]);
        assert_eq!(encoded, [b"kept", &response[..]].concat(), "{name}");
    }
}

#[test]
fn the_largest_numbers_are_written_in_full() {
    let mut encoded = Vec::new();
    encode_answer(
        &mut encoded,
        &Answer::Locked {
            lock_date_ticks: u64::MAX,
            lock_age_s: u32::MAX,
            lock_cookie: 0,
        },
    );
    let expected = "423 Locked\r\nX-AspNet-Version: 4.0.30319\r\n\
        LockDate: 18446744073709551615\r\nLockAge: 4294967295\r\nLockCookie: 0\r\n\
        Cache-Control: private\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(encoded, expected.as_bytes());
}

#[test]
fn a_release_that_clears_the_one_shot_flag_says_so() {
    for uninitialised in [true, false] {
        let mut encoded = Vec::new();
        encode_answer(&mut encoded, &Answer::Done { uninitialised });
        let head = complete(&encoded);
        assert_eq!(head.is_uninitialised(&encoded), uninitialised);
        assert_eq!((head.status, head.body_bytes), (200, 0));
    }
}

#[test]
fn the_answer_to_unframeable_requests_is_a_400_without_body() {
    let head = complete(BAD_REQUEST);
    let answer = (head.status, head.body_bytes, head.head_bytes);
    assert_eq!(answer, (400, 0, BAD_REQUEST.len()));
    assert!(vectors::header(BAD_REQUEST, "X-AspNet-Version").is_some());
}

#[test]
fn status_lines_are_read_with_and_without_version() {
    for (line, status) in [
        ("200 OK", 200),
        ("200", 200),
        ("200 ", 200),
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.1 200", 200),
        ("HTTP/1.0 404 Not Found", 404),
        ("423 Locked", 423),
        ("503 Service Unavailable", 503),
        ("599 x", 599),
        ("400 Ung\u{fc}ltig", 400),
    ] {
        let head = complete(format!("{line}\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(head.status, status, "{line}");
    }
    for line in [
        "",
        " 200 OK",
        "OK",
        "20",
        "2000",
        "200OK",
        "200\tOK",
        "1000 x",
        "99 x",
        "099 x",
        "100 Continue",
        "199 x",
        "600 x",
        "999 x",
        "+20 x",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1  200 OK",
        "HTTP/1.1200 OK",
        "HTTP/1. 200 OK",
        "HTTP/1.x 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/2 200",
        "HTTP/2.0 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 100 Continue",
    ] {
        let outcome = parse(format!("{line}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        assert_eq!(outcome, Err(WireError::BadStatusLine), "{line:?}");
    }
}

#[test]
fn no_body_is_awaited_after_head() {
    for (headers, body_bytes) in [
        ("Content-Length: 184\r\n", Some(184)),
        ("Content-Length: 0\r\n", Some(0)),
        ("", None),
    ] {
        let answer = ok(headers);
        let Ok(Parsed::Complete(head)) = ResponseHead::parse(&answer, max_head_bytes(), true)
        else {
            panic!("{headers:?}");
        };
        assert_eq!(head.body_bytes, 0);
        let otherwise = body_bytes.ok_or(WireError::MissingContentLength);
        let parsed = parse(&answer).map(|parsed| match parsed {
            Parsed::Complete(head) => head.body_bytes,
            Parsed::Partial => panic!("{headers:?}"),
        });
        assert_eq!(parsed, otherwise);
    }
}

#[test]
fn header_names_are_read_in_any_case_with_any_blanks_in_any_order() {
    let answer = ok("CONTENT-LENGTH:\t7 \r\nX: y\r\nlockcookie:3\r\nLOCKAGE:  -1\r\ntimeout: \r\n");
    let head = complete(&answer);
    assert_eq!(head.body_bytes, 7);
    assert_eq!(of(&answer, head.lock_cookie), Some(&b"3"[..]));
    assert_eq!(of(&answer, head.lock_age), Some(&b"-1"[..]));
    assert_eq!(of(&answer, head.timeout), Some(&b""[..]));
    assert_eq!(head.action_flags, None);
}

#[test]
fn only_bit_0_of_action_flags_means_uninitialised() {
    for (header, expected) in [
        ("", false),
        ("ActionFlags: 0\r\n", false),
        ("ActionFlags: 1\r\n", true),
        ("actionflags:1\r\n", true),
        ("ActionFlags: 2\r\n", false),
        ("ActionFlags: 3\r\n", true),
        ("ActionFlags: yes\r\n", false),
        ("ActionFlags: 1x\r\n", false),
        ("ActionFlags:\r\n", false),
    ] {
        let answer = ok(&format!("{header}Content-Length: 0\r\n"));
        let head = complete(&answer);
        assert_eq!(head.is_uninitialised(&answer), expected, "{header:?}");
    }
}

#[test]
fn ambiguous_headers_are_refused() {
    let twice = |name| WireError::DuplicateHeader { name };
    let twice_length = twice("Content-Length");
    for (headers, error) in [
        ("", WireError::MissingContentLength),
        ("Content-Length: 0\r\nContent-Length: 0", twice_length),
        ("Content-Length: 0\r\ncontent-length: 9", twice_length),
        ("LockCookie: 2\r\nlockcookie: 3", twice("LockCookie")),
        ("LockAge: 2\r\nLockAge: 3", twice("LockAge")),
        ("Timeout: 2\r\nTimeout: 3", twice("Timeout")),
        ("ActionFlags: 1\r\nActionFlags: 0", twice("ActionFlags")),
        ("Content-Length:", WireError::BadContentLength),
        ("Content-Length: +1", WireError::BadContentLength),
        ("Content-Length: 1,1", WireError::BadContentLength),
        (
            "Content-Length: 99999999999999999999",
            WireError::BadContentLength,
        ),
        ("Transfer-Encoding: chunked", WireError::TransferEncoding),
        ("Content-Length : 0", WireError::BadHeaderLine),
        (" Content-Length: 0", WireError::BadHeaderLine),
        ("Cache-Control: a\r\n b", WireError::BadHeaderLine),
        (": 0", WireError::BadHeaderLine),
        ("no colon", WireError::BadHeaderLine),
        ("X: a\nContent-Length: 0", WireError::BareLineFeed),
        ("X: a\rContent-Length: 0", WireError::ControlByte),
        ("X: a\0", WireError::ControlByte),
    ] {
        let headers = headers.to_owned() + if headers.is_empty() { "" } else { "\r\n" };
        assert_eq!(parse(&ok(&headers)), Err(error), "{headers:?}");
        // The same headers fail a HEAD too, but for the length that nobody needs.
        let to_head = ResponseHead::parse(&ok(&headers), max_head_bytes(), true);
        assert_eq!(to_head.is_err(), error != WireError::MissingContentLength);
    }
}

#[test]
fn a_control_byte_anywhere_in_a_head_is_refused() {
    let answer = ok("LockCookie: 3\r\nTimeout: 20\r\nContent-Length: 7\r\n");
    let controls = (0..0x20).chain([0x7f]).filter(|&byte| byte != b'\t');
    // Only up to the last line feed: what stands behind it is body.
    let places = controls.flat_map(|byte| (0..answer.len() - 1).map(move |at| (byte, at)));
    for (control, at) in places {
        let mut answer = answer.clone();
        answer.insert(at, control);
        let outcome = parse(&answer);
        assert!(outcome.is_err(), "{control:#x} at {at}: {outcome:?}");
    }
}

#[test]
fn head_bytes_and_header_lines_are_bounded() {
    let answer = ok("Content-Length: 4\r\n");
    let with_body = [&answer[..], b"body"].concat();
    for (max_bytes, fits) in [(answer.len(), true), (answer.len() - 1, false)] {
        for bytes in [&answer, &with_body] {
            let outcome = ResponseHead::parse(bytes, max_bytes, false);
            assert_eq!(outcome.is_ok(), fits);
            assert!(fits || outcome == Err(WireError::HeadTooLarge { max_bytes }));
        }
    }
    let endless = b"200 OK, and so on for ever";
    let unfinished = |max_bytes| ResponseHead::parse(endless, max_bytes, false);
    assert_eq!(unfinished(endless.len() + 1), Ok(Parsed::Partial));
    let max_bytes = endless.len();
    let too_large = WireError::HeadTooLarge { max_bytes };
    assert_eq!(unfinished(max_bytes), Err(too_large));
    let lines = |count| ok(&("A: b\r\n".repeat(count - 1) + "Content-Length: 0\r\n"));
    complete(lines(MAX_HEADERS));
    let outcome = parse(&lines(MAX_HEADERS + 1));
    assert_eq!(outcome, Err(WireError::TooManyHeaders));
}

/// Any bytes, and pieces of heads in any order: those get past the first line now and then.
fn bytes_like_answers() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "200 OK\r\n", "HTTP/1.1 ", "404", "\r\n", "\r\n\r\n", "\n", "\r", "a: b\r\n", ":", " ",
            "Content-Length:", "Content-Length: 7\r\n", "LockCookie: ", "ActionFlags: 1\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    let pieces = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    let whole = pieces
        .clone()
        .prop_map(|p| [b"200 OK\r\nContent-Length: 3\r\n", &p[..], b"\r\n\r\n"].concat());
    prop_oneof![pieces, whole, prop::collection::vec(any::<u8>(), 0..200)]
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let item = (
        any::<bool>(),
        any::<Option<u32>>(),
        any::<u32>(),
        any::<usize>(),
    );
    prop_oneof![
        item.prop_map(
            |(uninitialised, lock_cookie, timeout_minutes, body_bytes)| Answer::Item {
                uninitialised,
                lock_cookie,
                timeout_minutes,
                body_bytes,
            }
        ),
        any::<bool>().prop_map(|uninitialised| Answer::Done { uninitialised }),
        any::<(u64, u32, u32)>().prop_map(|(lock_date_ticks, lock_age_s, lock_cookie)| {
            Answer::Locked {
                lock_date_ticks,
                lock_age_s,
                lock_cookie,
            }
        }),
        Just(Answer::Absent),
        Just(Answer::Invalid),
    ]
}

proptest! {
    #[test]
    fn a_complete_head_ends_where_it_says_and_no_prefix_reads_differently(
        bytes in bytes_like_answers(),
        to_head in any::<bool>(),
    ) {
        let parse = |bytes| ResponseHead::parse(bytes, max_head_bytes(), to_head);
        if let Ok(Parsed::Complete(head)) = parse(&bytes) {
            prop_assert!(bytes[..head.head_bytes].ends_with(b"\r\n\r\n"));
            prop_assert!((200..600).contains(&head.status));
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
    fn what_is_encoded_is_read_back(answer in any_answer()) {
        let mut encoded = Vec::new();
        encode_answer(&mut encoded, &answer);
        let head = complete(&encoded);
        prop_assert_eq!(head.head_bytes, encoded.len());
        let number = |span| of(&encoded, span).and_then(decimal).map(|n| n as u32);
        let read = (head.status, head.body_bytes, number(head.lock_cookie), number(head.timeout));
        let flag = head.is_uninitialised(&encoded);
        match answer {
            Answer::Item { uninitialised, lock_cookie, timeout_minutes, body_bytes } => {
                let timeout = Some(timeout_minutes);
                prop_assert_eq!(read, (200, body_bytes as u64, lock_cookie, timeout));
                prop_assert_eq!(flag, uninitialised);
            }
            Answer::Done { uninitialised } => {
                prop_assert_eq!(read, (200, 0, None, None));
                prop_assert_eq!(flag, uninitialised);
            }
            Answer::Locked { lock_age_s, lock_cookie, .. } => {
                prop_assert_eq!(read, (423, 0, Some(lock_cookie), None));
                prop_assert_eq!(number(head.lock_age), Some(lock_age_s));
            }
            Answer::Absent => prop_assert_eq!(read, (404, 0, None, None)),
            Answer::Invalid => prop_assert_eq!(read, (400, 0, None, None)),
        }
    }
}
