//! Heads as stock peers spell them are told by a few words each. Every other case of a header name
//! is the slow way, and both must come to the same, whatever else is in the head.

use proptest::prelude::*;
use staterouter::wire::head::MAX_HEADERS;
use staterouter::wire::{HeadLimits, RequestHead, ResponseHead};

/// Name, what stands between it and its value, value, end of the line.
type Line = (&'static str, &'static str, &'static str, &'static str);

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let name = prop::sample::select(vec![
        "ActionFlags",
        "Cache-Control",
        "Content-Length",
        "Exclusive",
        "ExtraFlags",
        "Host",
        "Lock-Cookie",
        "LockAge",
        "LockCookie",
        "LockDate",
        "Timeout",
        "Transfer-Encoding",
        "X-AspNet-Version",
        "X-AspNet-Other",
        "Cache-Control-Not",
        "LockCookies",
        "Tim eout",
        "",
    ]);
    let colon = prop_oneof![
        6 => Just(": "), 6 => Just(":"), 1 => Just(":  "), 1 => Just(":\t"), 1 => Just(" :"),
        1 => Just(""),
    ];
    let value = prop::sample::select(vec![
        "0",
        "7",
        "20",
        "0020",
        "2048",
        "4294967296",
        "9999999999999999999",
        "18446744073709551616",
        "",
        "1 ",
        " 1",
        "1\t",
        "1\r",
        "1\x01",
        "-1",
        "0x1",
        "acquire",
        "release",
        "Acquire",
        "acquire ",
        "private",
        "private ",
        "4.0.30319",
        "4.0.30319x",
        "localhost",
        "localhost:1",
    ]);
    let end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r\r\n"), 1 => Just("")];
    prop::collection::vec((name, colon, value, end), 0..6)
}

/// Lines in the spelling of stock peers, with their usual values.
fn stock_lines() -> impl Strategy<Value = Vec<Line>> {
    let line = prop::sample::select(vec![
        ("X-AspNet-Version", ": ", "4.0.30319", "\r\n"),
        ("Cache-Control", ": ", "private", "\r\n"),
        ("Host", ": ", "localhost", "\r\n"),
        ("Exclusive", ": ", "acquire", "\r\n"),
        ("Exclusive", ": ", "release", "\r\n"),
        ("LockCookie", ": ", "65538", "\r\n"),
        ("LockCookie", ":", "7", "\r\n"),
        ("Timeout", ":", "20", "\r\n"),
        ("Content-Length", ": ", "2048", "\r\n"),
        ("ExtraFlags", ":", "0", "\r\n"),
        ("ActionFlags", ": ", "1", "\r\n"),
        ("LockAge", ": ", "12", "\r\n"),
    ]);
    prop::collection::vec(line, 0..6)
}

fn head(first: &str, lines: &[Line], spell: impl Fn(&str) -> String, end: &str) -> Vec<u8> {
    let lines = lines.iter();
    let lines = lines.map(|(name, colon, value, end)| spell(name) + colon + value + end);
    [first, &lines.collect::<String>(), end]
        .concat()
        .into_bytes()
}

fn other_case(name: &str) -> String {
    let swap = |letter: char| match letter.is_ascii_uppercase() {
        true => letter.to_ascii_lowercase(),
        false => letter.to_ascii_uppercase(),
    };
    name.chars().map(swap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_case_of_a_name_makes_no_difference(
        is_request: bool,
        lines in (stock_lines(), lines(), stock_lines()),
        repeated in prop_oneof![9 => Just(0), 1 => MAX_HEADERS - 3..MAX_HEADERS + 3],
        end in prop::sample::select(vec!["\r\n", "\r\n", "\r\n\r\n", "\n", "\r", "", "\r\nbody of it"]),
        cut in 0usize..400,
        max_head_bytes in prop_oneof![Just(16 * 1024), 8usize..300],
    ) {
        let mut lines = [lines.0, lines.1, lines.2].concat();
        lines.extend(vec![("Cache-Control", ": ", "private", "\r\n"); repeated]);
        let first = if is_request { "GET x(y)/z HTTP/1.1\r\n" } else { "200 OK\r\n" };
        let stock = head(first, &lines, str::to_owned, end);
        let other = head(first, &lines, other_case, end);
        let limits = HeadLimits { max_head_bytes, max_body_bytes: 4096 };
        for length in [stock.len(), cut.min(stock.len())] {
            let (stock, other) = (&stock[..length], &other[..length]);
            let shown = stock.escape_ascii();
            if is_request {
                let parse = |bytes: &[u8]| RequestHead::parse(bytes, &limits);
                prop_assert_eq!(parse(stock), parse(other), "{}", shown);
            } else {
                let parse = |bytes: &[u8]| ResponseHead::parse(bytes, max_head_bytes, false);
                prop_assert_eq!(parse(stock), parse(other), "{}", shown);
            }
        }
    }
}
