//! Session ids, and where the placement puts them.

use std::net::SocketAddr;

use super::{ProxyFiles, run};

/// Session ids per call of `staterouter route`, well below the limit on a command line.
const IDS_PER_CALL: usize = 500;

/// What `staterouter route` says about one session.
pub struct Routed {
    pub id: String,
    /// Index of the backend that serves it, in the order of the map.
    pub owner: usize,
    /// How log lines name it.
    pub fingerprint: String,
}

/// `count` ids of the stock shape (24 of `a-z0-5`), the same in every run and different for
/// every `family`.
pub fn ids(family: u64, count: u64) -> Vec<String> {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz012345";
    let id = |number: u64| {
        let mut state = family << 32 | number;
        let character = |_| {
            // SplitMix64: neighbouring numbers give unrelated ids.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            char::from(alphabet[(mixed >> 59) as usize])
        };
        (0..24).map(character).collect()
    };
    (0..count).map(id).collect()
}

/// Asks `staterouter route` where a proxy over `backend_count` backends puts `ids`.
pub fn route(backend_count: u16, ids: &[String]) -> Vec<Routed> {
    // The placement knows backends by name: it is the same for every set of addresses.
    let nowhere: Vec<SocketAddr> = (1..=backend_count)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .collect();
    let files = ProxyFiles::new(&nowhere, "");
    let config = files.config();
    let mut routed = Vec::with_capacity(ids.len());
    for ids in ids.chunks(IDS_PER_CALL) {
        let mut args = vec!["route", "--config", &config];
        args.extend(ids.iter().map(String::as_str));
        let (exit, stdout, stderr) = run(&args);
        assert_eq!(exit, Some(0), "{stderr}");
        assert_eq!(stdout.lines().count(), ids.len(), "{stdout}");
        routed.extend(
            ids.iter()
                .zip(stdout.lines())
                .map(|(id, line)| parse(id, line)),
        );
    }
    routed
}

/// `count` sessions that the backend with index `owner` serves.
pub fn owned_by(owner: usize, backend_count: u16, family: u64, count: usize) -> Vec<String> {
    let candidates = ids(family, 20 * u64::from(backend_count) * count as u64);
    let owned = route(backend_count, &candidates).into_iter();
    let owned = owned.filter(|routed| routed.owner == owner);
    let found: Vec<String> = owned.map(|routed| routed.id).take(count).collect();
    assert_eq!(found.len(), count, "too few sessions on backend {owner}");
    found
}

/// `count` sessions that get another backend when one is added to `backend_count`.
pub fn moving(backend_count: u16, count: usize) -> Vec<String> {
    let candidates = ids(77, 20 * u64::from(backend_count) * count as u64);
    let [before, after] = [backend_count, backend_count + 1].map(|n| route(n, &candidates));
    let both = before.into_iter().zip(after);
    let moved = both.filter(|(before, after)| before.owner != after.owner);
    let found: Vec<String> = moved.map(|(before, _)| before.id).take(count).collect();
    assert_eq!(found.len(), count, "too few sessions move");
    found
}

fn parse(id: &str, line: &str) -> Routed {
    let mut words = line.split_whitespace();
    let mut after = |word: &str| {
        words.find(|&seen| seen == word).unwrap();
        words.next().unwrap().to_owned()
    };
    let fingerprint = after("fingerprint");
    after("slot");
    let name = words.next().unwrap();
    let number: usize = name.strip_prefix("state-").unwrap().parse().unwrap();
    Routed {
        id: id.to_owned(),
        owner: number - 1,
        fingerprint,
    }
}
