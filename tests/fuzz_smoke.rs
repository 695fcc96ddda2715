//! Runs every fuzz entry on mutated fixtures, for about a second.
//!
//! Every run uses another seed and prints it when an entry fails; `SEED=<number>` replays it.
//! `FUZZ_CORPUS=<dir>` also writes the unmutated inputs there, as `cargo fuzz` likes them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers")]

#[path = "fuzz/entry.rs"]
mod entry;
mod vectors;

use std::hash::{BuildHasher, RandomState};
use std::{env, fs, panic};

use staterouter::contents::{BodyItem, compress, encode};

const INPUTS: usize = 20_000;
/// Inputs stop growing here, so that one run always takes about as long as another.
const MAX_INPUT_BYTES: usize = 4096;

/// What means something to one of the parsers.
#[rustfmt::skip]
const TOKENS: &[&[u8]] = &[
    // Heads.
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\t", b" ", b":", b"\xff", b"-", b"0", b"HTTP/1.1 ",
    b"18446744073709551616", b"Content-Length: 1\r\n", b"LockCookie:\r\n", b"Exclusive: release\r\n",
    // Targets.
    b"/", b"//", b"%", b"%2f", b"%u00e9", b"%uD800", b"+", b"(", b")/", b"=",
    // Answers of Redis.
    b"$", b"*", b"*1\r\n", b"$-1\r\n", b"$536870913\r\n", b":1\r\n",
    // Files.
    b"- ", b"\n  ", b"[", b"{", b"}", b",", b"\"", b"'", b"#", b"&a ", b"*a", b"!!str ", b"|\n",
    b"---\n", b"null", b"ms", b"KiB", b"id: 3\n", b"hash_key: ", b"\xe2\x80\xae", b"\xef\xbb\xbf",
];

#[test]
fn request_head() {
    let seeds = vectors::exchanges()
        .into_iter()
        .map(|exchange| exchange.request);
    smoke("request_head", seeds.collect(), entry::request_head);
}

#[test]
fn response_head() {
    let seeds = vectors::exchanges()
        .into_iter()
        .map(|exchange| exchange.response);
    smoke("response_head", seeds.collect(), entry::response_head);
}

#[test]
fn target() {
    smoke("target", vectors::targets(), entry::target);
}

#[test]
fn renaming() {
    smoke("renaming", vectors::targets(), entry::renaming);
}

#[test]
fn redis_answers() {
    let seeds = [
        &b"+OK\r\n"[..],
        b"-MOVED 3999 10.0.0.2:6379\r\n",
        b"*5\r\n:200\r\n:20\r\n:2\r\n:0\r\n$5\r\nfirst\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$8\r\n10.0.0.1\r\n:6379\r\n$-1\r\n",
        b"*2\r\n$10\r\n1764425000\r\n$6\r\n123456\r\n",
    ];
    let seeds = seeds.map(<[u8]>::to_vec).to_vec();
    smoke("redis_answers", seeds, entry::redis_answers);
}

#[test]
fn session_body() {
    let item = |name: &str, bytes| BodyItem {
        name: name.to_owned(),
        bytes,
    };
    let bodies = [
        vec![],
        vec![item("Cart", 40)],
        vec![item("User", 9), item("", 1), item("Search Results", 300)],
    ];
    let plain = bodies.map(|items| encode(20, &items));
    let packed = plain.each_ref().map(|body| compress(body));
    let seeds = plain.into_iter().chain(packed).collect();
    smoke("session_body", seeds, entry::session_body);
}

#[test]
fn config() {
    let file = include_str!("../config/staterouter.yaml");
    smoke("config", vec![without_comments(file)], entry::config);
}

#[test]
fn partition_map() {
    let file = include_str!("../config/partition-map.yaml");
    let flow = r#"{version: 7, backends: [{name: a, address: "tcpip=[::1]:1", state: drain},
        {name: b, address: "x.example:2", weight: 1000, id: 127}]}"#;
    let seeds = vec![without_comments(file), flow.into()];
    smoke("partition_map", seeds, entry::partition_map);
}

/// Changes inside of comments would test nothing.
fn without_comments(yaml: &str) -> Vec<u8> {
    let lines = yaml
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .into()
}

fn smoke(name: &str, mut seeds: Vec<Vec<u8>>, entry: fn(&[u8]) -> bool) {
    seeds.sort();
    seeds.dedup();
    if let Ok(folder) = env::var("FUZZ_CORPUS") {
        let folder = format!("{folder}/{name}");
        fs::create_dir_all(&folder).unwrap();
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(format!("{folder}/{n:03}"), seed).unwrap();
        }
    }
    let seed = match env::var("SEED") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(name),
    };
    let mut random = Random(seed);
    let mut accepted = 0;
    for _ in 0..INPUTS {
        let input = mutated(&seeds, &mut random);
        match panic::catch_unwind(|| entry(&input)) {
            Ok(is_accepted) => accepted += usize::from(is_accepted),
            Err(_) => panic!("SEED={seed} breaks {name}: b\"{}\"", input.escape_ascii()),
        }
    }
    // Inputs that are all refused, or all accepted, would say little.
    assert!(
        (INPUTS / 100..INPUTS).contains(&accepted),
        "SEED={seed}: {accepted} accepted"
    );
}

/// One of the seeds with one to four changes.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = random.pick(seeds).clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(7) {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 if at < input.len() => input[at] = random.below(256) as u8,
            3 => input.truncate(at),
            4 => {
                let end = at + random.below(input.len() - at + 1);
                let copy = input[at..end].to_vec();
                splice(&mut input, random, &copy);
            }
            5 => {
                let other = random.pick(seeds);
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let token = random.pick(TOKENS);
                splice(&mut input, random, token);
            }
        }
        input.truncate(MAX_INPUT_BYTES);
    }
    input
}

fn splice(input: &mut Vec<u8>, random: &mut Random, bytes: &[u8]) {
    let at = random.below(input.len() + 1);
    input.splice(at..at, bytes.iter().copied());
}

/// SplitMix64: small, and the same on every platform.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1; the bias is of no matter here.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
