//! Session id extraction (protocol 2.3): fixtures, a naive second implementation, and the law that
//! every spelling of a key is that key.
#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

use proptest::prelude::*;
use serde_json::Value;
use staterouter::route::{HashKey, KeyBuffer, KeyError, extract};

/// Owned parts of a target: key, app, hash, session id.
type Parts = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>);

fn parts(target: &[u8]) -> Result<Parts, KeyError> {
    let mut buffer = KeyBuffer::new();
    let key = extract(target, &mut buffer)?;
    Ok((
        key.key().to_vec(),
        key.app().to_vec(),
        key.hash().into_owned(),
        key.session_id().to_vec(),
    ))
}

fn session_id(target: &[u8]) -> String {
    String::from_utf8(parts(target).unwrap().3).unwrap()
}

#[test]
fn every_fixture_target_gives_its_parts() {
    let lines: Vec<Value> = include_str!("../vectors/targets.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 25);

    let mut buffer = KeyBuffer::new();
    for line in &lines {
        let text = |field: &str| line[field].as_str().unwrap().as_bytes();
        let found = extract(text("raw"), &mut buffer);
        if text("sid").is_empty() {
            assert_eq!(found, Err(KeyError::EmptySessionId), "{}", line["name"]);
            continue;
        }
        let found = found.unwrap();
        assert_eq!(found.key(), text("key"), "key of {}", line["name"]);
        assert_eq!(found.app(), text("app"), "app of {}", line["name"]);
        assert_eq!(&*found.hash(), text("hash"), "hash of {}", line["name"]);
        assert_eq!(found.session_id(), text("sid"), "id of {}", line["name"]);
    }
}

#[test]
fn a_target_without_a_session_id_is_an_error() {
    assert_eq!(parts(b""), Err(KeyError::EmptyTarget));
    for target in ["/", "//", "///", "%2f", "/x/", "/x(abc)/", "a)/"] {
        assert_eq!(
            parts(target.as_bytes()),
            Err(KeyError::EmptySessionId),
            "{target}"
        );
    }
}

#[test]
fn escapes_are_decoded_once_and_only_when_complete() {
    for (target, id) in [
        ("a%2541", "a%41"),
        ("a%%41", "a%A"),
        ("%4", "%4"),
        ("a%", "a%"),
        ("%4g", "%4g"),
        ("%u", "%u"),
        ("%u00e", "%u00e"),
        ("%u00eg", "%u00eg"),
        ("%u00%41", "%u00A"),
        ("%U00e9", "%U00e9"),
        ("%u0041", "A"),
        ("%u002b%2b+", "++ "),
        ("a b", "a b"),
        ("%ud83d%ude00", "😀"),
        ("%uD83D%uDE00", "😀"),
        ("%ud83d", "\u{fffd}"),
        ("%ude00%ud83d", "\u{fffd}\u{fffd}"),
        ("%ud83d%ud83d%ude00", "\u{fffd}😀"),
        ("%ud83d%u0041", "\u{fffd}A"),
        ("%ud83dx%ude00", "\u{fffd}x\u{fffd}"),
        ("%ud83d%41", "\u{fffd}A"),
    ] {
        assert_eq!(session_id(target.as_bytes()), id, "{target}");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_kept() {
    assert_eq!(parts(b"/x/a\xff%fe\x80").unwrap().3, b"a\xff\xfe\x80");
}

#[test]
fn only_a_group_of_a_known_length_with_its_padding_is_a_hash() {
    let group = |digits: usize, padding: usize| {
        format!("/x({}{})/a/b", "Q".repeat(digits), "=".repeat(padding))
    };
    for (digits, padding) in [(22, 2), (27, 1), (43, 1), (64, 0), (86, 2)] {
        assert_eq!(session_id(group(digits, padding).as_bytes()), "a/b");
        // With something else in front of the slash it is not the mark.
        let (digits, padding) = ("Q".repeat(digits), "=".repeat(padding));
        let other = format!("/x({digits}{padding})y/a/b");
        assert_eq!(session_id(other.as_bytes()), "b");
        // The last `)/` decides when there is no hash, so a second group shows the difference.
        let first_wins = format!("/x({digits}{padding})/a(b)/c");
        assert_eq!(session_id(first_wins.as_bytes()), "a(b)/c");
        let bad_digit = format!("/x(-{}{padding})/a(b)/c", &digits[1..]);
        assert_eq!(session_id(bad_digit.as_bytes()), "c");
    }
    for (digits, padding) in [
        (24, 0),
        (23, 1),
        (26, 2),
        (28, 0),
        (63, 1),
        (87, 1),
        (88, 0),
    ] {
        let target = format!("/x({}{})/a(b)/c", "Q".repeat(digits), "=".repeat(padding));
        assert_eq!(
            session_id(target.as_bytes()),
            "c",
            "{digits} digits, {padding} padding"
        );
    }
}

#[test]
fn a_buffer_used_again_forgets_the_target_before() {
    let mut buffer = KeyBuffer::new();
    extract(b"/a/long/target/with/an/id", &mut buffer).unwrap();
    assert_eq!(extract(b"x", &mut buffer).unwrap().key(), b"x");
}

#[test]
fn nothing_printable_shows_a_session_id() {
    let id = "q3m1zt0xk4vdw2hn5sbyr0ac";
    let mut buffer = KeyBuffer::new();
    let key = extract(id.as_bytes(), &mut buffer).unwrap();
    let print = HashKey::DEFAULT.locate(key.session_id()).fingerprint;
    let shown = format!("{key:?} {key:#?} {print} {print:?}") + &format!("{buffer:?}");
    // Neither as text nor as a list of byte values.
    for start in 0..id.len() - 3 {
        assert!(!shown.contains(&id[start..start + 3]), "{shown}");
    }
    assert!(!shown.contains("113"), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_give_a_key_no_longer_than_the_target_or_an_error(
        target in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok((key, _, _, id)) = parts(&target) {
            prop_assert!(key.len() <= target.len());
            prop_assert!(!id.is_empty() && key.ends_with(&id));
        }
    }

    #[test]
    fn agrees_with_the_naive_implementation(target in hostile_target()) {
        prop_assert_eq!(parts(&target), naive::parts(&target));
    }

    #[test]
    fn every_spelling_of_a_key_is_the_same_key(
        key in key_text(),
        spelling_a in prop::collection::vec(0_u8..6, 150),
        spelling_b in prop::collection::vec(0_u8..6, 150),
    ) {
        let a = parts(&spell(&key, &spelling_a));
        let b = parts(&spell(&key, &spelling_b));
        prop_assert_eq!(&a, &b);
        if let Ok((decoded, ..)) = a {
            prop_assert_eq!(decoded, key.as_bytes());
        }
    }
}

/// Targets made of the pieces the rules are about.
fn hostile_target() -> impl Strategy<Value = Vec<u8>> {
    let marks = [
        "(",
        ")",
        "/",
        ")/",
        "//",
        "%2f",
        "%2F",
        "%28",
        "%29",
        "%29%2f",
        "=",
        "%3d",
        "==",
        "+",
        " ",
        "%20",
        "%2b",
        "%",
        "%%",
        "%u",
        "%4",
        "%zz",
        "%u0028",
        "%u0029%u002f",
        "%ud83d",
        "%uDE00",
        "%u00e9",
        "%u20ac",
        "%u12",
        "a",
        "id",
        "LM",
    ];
    let mark = prop::sample::select(marks.to_vec()).prop_map(|mark| mark.as_bytes().to_vec());
    let raw = any::<u8>().prop_map(|byte| vec![byte]);
    prop::collection::vec(prop_oneof![6 => mark, 1 => raw, 3 => group()], 0..12)
        .prop_map(|pieces| pieces.concat())
}

/// Something near a parenthesised hash.
fn group() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        5 => prop::sample::select(vec![24_usize, 28, 44, 64, 88]),
        1 => 0_usize..100,
    ];
    let digit = prop::sample::select(vec![
        "A", "z", "0", "9", "Q", "b", "/", "+", "%2b", "%2f", " ", "%20", "%41", "%u0042",
    ]);
    let close = prop::sample::select(vec![")/", "%29%2f", ")%2f", ")", ")x/", "/"]);
    let noise = prop_oneof![12 => Just(""), 1 => Just("-"), 1 => Just("("), 1 => Just("=")];
    (
        length,
        0_usize..4,
        prop::collection::vec(digit, 100),
        close,
        noise,
    )
        .prop_map(|(length, padding, digits, close, noise)| {
            let digits = digits[..length.saturating_sub(padding)].concat();
            format!("({noise}{digits}{}{close}", "=".repeat(padding)).into_bytes()
        })
}

/// Keys with all that needs encoding, with and without a usual hash.
fn key_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c/()+% =é€😀\\x00-\\x1f-]{1,40}",
        "/LM/W3SVC/[0-9]/ROOT\\([A-Z+/]{43}=\\)/[a-z0-5%+ é😀/()]{1,24}",
        ".{1,60}",
    ]
}

/// Writes `key` as a target, each character the way `how` says.
fn spell(key: &str, how: &[u8]) -> Vec<u8> {
    let mut target = Vec::new();
    for (i, character) in key.chars().enumerate() {
        let mut utf8 = [0; 4];
        let bytes = character.encode_utf8(&mut utf8).as_bytes();
        let would_be_dropped = i == 0 && character == '/';
        match (how[i % how.len()], character) {
            (0, _) => bytes
                .iter()
                .for_each(|b| target.extend(format!("%{b:02x}").bytes())),
            (1, _) => bytes
                .iter()
                .for_each(|b| target.extend(format!("%{b:02X}").bytes())),
            (2, _) => {
                let units = character.encode_utf16(&mut [0; 2]).to_vec();
                units
                    .iter()
                    .for_each(|unit| target.extend(format!("%u{unit:04x}").bytes()));
            }
            (3, ' ') => target.push(b'+'),
            (_, '%' | '+') => bytes
                .iter()
                .for_each(|b| target.extend(format!("%{b:x}").bytes())),
            (_, '/') if would_be_dropped => target.extend(b"%2F"),
            _ => target.extend(bytes),
        }
    }
    target
}

/// The rules of protocol 2.3 once more, as plainly as possible and without regard for cost.
mod naive {
    use super::{KeyError, Parts};

    enum Piece {
        Byte(u8),
        Utf16(u16),
    }

    pub(super) fn parts(target: &[u8]) -> Result<Parts, KeyError> {
        if target.is_empty() {
            return Err(KeyError::EmptyTarget);
        }
        let raw = target
            .strip_prefix(b"/")
            .filter(|rest| rest.starts_with(b"/"));
        let key = decode(raw.unwrap_or(target));
        let (app, hash, id) = split(&key);
        let hash = hash
            .iter()
            .map(|&b| if b == b' ' { b'+' } else { b })
            .collect();
        let found = (key.clone(), app.to_vec(), hash, id.to_vec());
        if found.3.is_empty() {
            Err(KeyError::EmptySessionId)
        } else {
            Ok(found)
        }
    }

    fn decode(raw: &[u8]) -> Vec<u8> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < raw.len() {
            let (piece, used) = if raw[at] == b'+' {
                (Piece::Byte(b' '), 1)
            } else if let Some(byte) = hex(raw, at, "%", 2) {
                (Piece::Byte(byte as u8), 3)
            } else if let Some(unit) = hex(raw, at, "%u", 4) {
                (Piece::Utf16(unit), 6)
            } else {
                (Piece::Byte(raw[at]), 1)
            };
            pieces.push(piece);
            at += used;
        }

        let mut bytes = Vec::new();
        let mut units = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Utf16(unit) => units.push(unit),
                Piece::Byte(byte) => {
                    bytes.extend(String::from_utf16_lossy(&units).bytes());
                    units.clear();
                    bytes.push(byte);
                }
            }
        }
        bytes.extend(String::from_utf16_lossy(&units).bytes());
        bytes
    }

    fn hex(raw: &[u8], at: usize, mark: &str, digits: usize) -> Option<u16> {
        let rest = raw[at..].strip_prefix(mark.as_bytes())?;
        let text = std::str::from_utf8(rest.get(..digits)?).ok()?;
        if text.contains('+') {
            None
        } else {
            u16::from_str_radix(text, 16).ok()
        }
    }

    fn split(key: &[u8]) -> (&[u8], &[u8], &[u8]) {
        for open in (0..key.len()).filter(|&i| key[i] == b'(') {
            let Some(close) = (open + 1..key.len()).find(|&i| key[i] == b')') else {
                break;
            };
            let text = &key[open + 1..close];
            if is_hash(text) && key.get(close + 1) == Some(&b'/') {
                return (&key[..open], text, &key[close + 2..]);
            }
        }
        for close in (0..key.len()).rev() {
            if key[close..].starts_with(b")/") {
                let id = &key[close + 2..];
                return match (0..close).rev().find(|&i| key[i] == b'(') {
                    Some(open) => (&key[..open], &key[open + 1..close], id),
                    None => (&key[..close], b"", id),
                };
            }
        }
        match (0..key.len()).rev().find(|&i| key[i] == b'/') {
            Some(slash) => (&key[..slash], b"", &key[slash + 1..]),
            None => (b"", b"", key),
        }
    }

    fn is_hash(text: &[u8]) -> bool {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/ ";
        let digits = text.iter().take_while(|b| alphabet.contains(b)).count();
        let padding = text.iter().rev().take_while(|&&b| b == b'=').count();
        digits + padding == text.len()
            && [(24, 2), (28, 1), (44, 1), (64, 0), (88, 2)].contains(&(text.len(), padding))
    }
}

/// Pieces of targets, among them such that mean something else when more follows.
fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
    let piece = prop::sample::select(vec![
        "/",
        "//",
        "%2f",
        "%2F",
        "%",
        "%2",
        "2f",
        "%u002f",
        "%ud83d",
        "%ude00",
        "%u",
        "%u00",
        "+",
        "(",
        ")",
        "%29%2f",
        "a",
        "8%3d)%2f",
        "%5",
        "cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK/nYS9aV3Zlad",
        "%2fLM(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)%2f",
        "(cAHkmVhipCLv/QnONQmPsKL+q/AjnK/nYS9aV3Zlad8=)/",
    ]);
    prop::collection::vec(piece, 0..7)
}

proptest! {
    /// A buffer keeps the start of one target for the next, and nothing of that may show.
    #[test]
    fn what_the_buffer_was_used_for_before_makes_no_difference(
        targets in prop::collection::vec((pieces(), pieces(), 0usize..4), 1..6),
    ) {
        let mut used = KeyBuffer::new();
        for (start, end, turns) in targets {
            for turn in 0..=turns {
                let end = end.iter().copied().cycle().skip(turn).take(end.len());
                let target: String = start.iter().copied().chain(end).collect();
                let mut fresh = KeyBuffer::new();
                let expected = extract(target.as_bytes(), &mut fresh);
                prop_assert_eq!(extract(target.as_bytes(), &mut used), expected, "{}", target);
            }
        }
    }
}
