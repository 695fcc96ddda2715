//! The frozen placement: the same ids on the same backends in every version.
#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

use staterouter::route::{BackendIndex, HashKey, KeyBuffer, Member, Placement, extract};

const FROZEN: &str = include_str!("../golden/placement-v1.csv");

/// Names and weights of the two maps of the file; a backend's index is its position.
const EQUAL: [(&str, u32); 3] = [("state-a", 100), ("state-b", 100), ("state-c", 100)];
const MIXED: [(&str, u32); 5] = [
    ("state-a", 50),
    ("state-b", 100),
    ("state-c", 200),
    ("state-d", 100),
    ("state-e", 150),
];

#[test]
fn every_frozen_session_is_still_on_its_backend() {
    let equal = placement(&EQUAL);
    let mixed = placement(&MIXED);
    let rows: Vec<&str> = FROZEN
        .lines()
        .skip_while(|line| line.starts_with('#'))
        .skip(1)
        .collect();
    assert!(rows.len() >= 2_000, "only {} rows", rows.len());

    let mut buffer = KeyBuffer::new();
    for row in rows {
        let (id, expected) = row.split_once(',').unwrap();
        let target = format!(
            "%2fLM%2fW3SVC%2f7%2fROOT%2fshop(Jm6ty1cajOuzgqZzg9R7dzIu2QqSsb6LymzfuVMEdFI%3d)%2f{id}"
        );
        let key = extract(target.as_bytes(), &mut buffer).unwrap();
        let slot = equal.slot(key.session_id());
        assert_eq!(mixed.slot(key.session_id()), slot);

        let name = |map: &[(&'static str, u32)], backend: BackendIndex| map[backend.index()].0;
        let in_equal = equal.candidates(slot);
        let in_mixed = mixed.candidates(slot);
        let found = [
            slot.to_string().as_str(),
            name(&EQUAL, in_equal[0]),
            name(&EQUAL, in_equal[1]),
            name(&MIXED, in_mixed[0]),
            name(&MIXED, in_mixed[1]),
        ]
        .join(",");
        assert_eq!(found, expected, "session {id}");
        assert_eq!(equal.owner(slot), in_equal[0]);
        assert_eq!(mixed.owner(slot), in_mixed[0]);
    }
}

fn placement(map: &[(&str, u32)]) -> Placement {
    let members: Vec<Member<'_>> = map
        .iter()
        .enumerate()
        .map(|(i, &(name, weight))| Member {
            name,
            weight,
            backend: BackendIndex::new(i as u8),
        })
        .collect();
    Placement::build(HashKey::DEFAULT, &members).unwrap()
}
