//! The laws of placement and of the difference of two placements.
#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use staterouter::route::{
    BackendIndex, HashKey, MAX_CANDIDATES, MAX_MEMBERS, MAX_WEIGHT, Member, Placement,
    PlacementError, Plan, PlanError, SLOT_COUNT, Slot,
};

type Map = Vec<(String, u32)>;

/// A placement whose backend indices are the positions in `map`, counted from `first_index`.
fn build_with(key: HashKey, map: &[(String, u32)], first_index: u8) -> Placement {
    let members: Vec<Member<'_>> = (first_index..)
        .zip(map)
        .map(|(i, (name, weight))| Member {
            name,
            weight: *weight,
            backend: BackendIndex::new(i),
        })
        .collect();
    Placement::build(key, &members).unwrap()
}

fn build(map: &[(String, u32)]) -> Placement {
    build_with(HashKey::DEFAULT, map, 0)
}

fn equal_map(prefix: &str, count: usize) -> Map {
    (0..count).map(|i| (format!("{prefix}{i}"), 100)).collect()
}

/// The names that serve a slot, for a placement whose indices start at 0.
fn names<'m>(map: &'m [(String, u32)], placement: &Placement, slot: Slot) -> Vec<&'m str> {
    placement
        .candidates(slot)
        .iter()
        .map(|backend| map[backend.index()].0.as_str())
        .collect()
}

/// Maps of `count` backends of any weight; few steps, because each case builds whole tables.
fn maps(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Map> {
    let weight = prop_oneof![3 => Just(100_u32), 2 => 1_u32..=200, 1 => 1_u32..=MAX_WEIGHT];
    prop::collection::btree_map("[a-zé0-9.:-]{1,12}", weight, count)
        .prop_map(|map| map.into_iter().collect::<Map>())
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_the_members_is_irrelevant(
        (map, shuffled) in maps(1..=10).prop_flat_map(|map| (Just(map.clone()), Just(map).prop_shuffle())),
    ) {
        let (a, b) = (build(&map), build(&shuffled));
        for slot in Slot::all() {
            prop_assert_eq!(names(&map, &a, slot), names(&shuffled, &b, slot));
        }
        prop_assert_eq!(Plan::between(&a, &b).unwrap().moves().count(), 0);
    }

    #[test]
    fn candidates_are_distinct_members_and_the_owner_is_the_first(map in maps(1..=10)) {
        let placement = build(&map);
        for slot in Slot::all() {
            let candidates = placement.candidates(slot);
            prop_assert_eq!(candidates.len(), map.len().min(MAX_CANDIDATES));
            prop_assert_eq!(candidates[0], placement.owner(slot));
            let distinct: BTreeSet<_> = candidates.iter().map(|b| b.index()).collect();
            prop_assert_eq!(distinct.len(), candidates.len());
            prop_assert!(distinct.iter().all(|&i| i < map.len()));
        }
    }

    /// The mirror image is a backend that is added: it takes slots and no others move.
    #[test]
    fn a_removed_backend_leaves_all_others_in_their_order(
        map in maps(2..=10),
        gone in any::<prop::sample::Index>(),
    ) {
        let mut smaller = map.clone();
        let (gone, _) = smaller.remove(gone.index(map.len()));
        let (with, without) = (build(&map), build(&smaller));
        for slot in Slot::all() {
            let mut expected = names(&map, &with, slot);
            expected.retain(|name| *name != gone);
            // The shorter list of more than eight members has one new name at its end.
            prop_assert!(names(&smaller, &without, slot).starts_with(&expected));
        }
        let removal = Plan::between(&with, &without).unwrap();
        let addition = Plan::between(&without, &with).unwrap();
        prop_assert!(removal.flows().iter().all(|flow| flow.from == gone && flow.to != gone));
        prop_assert!(addition.flows().iter().all(|flow| flow.to == gone && flow.from != gone));
        let owned = with.shares().iter().find(|share| share.name == gone).unwrap().slots;
        prop_assert_eq!(removal.moves().count(), owned);
        prop_assert_eq!(addition.moves().count(), owned);
    }

    #[test]
    fn a_greater_weight_only_gains_slots(
        map in maps(2..=8),
        changed in any::<prop::sample::Index>(),
        weight in 1..=MAX_WEIGHT,
    ) {
        let changed = changed.index(map.len());
        let mut other = map.clone();
        other[changed].1 = weight;
        let (light, heavy) = if weight < map[changed].1 { (&other, &map) } else { (&map, &other) };
        let name = &map[changed].0;

        let (light, heavy) = (build(light), build(heavy));
        let raised = Plan::between(&light, &heavy).unwrap();
        prop_assert!(raised.flows().iter().all(|flow| flow.to == name && flow.from != name));
        let lowered = Plan::between(&heavy, &light).unwrap();
        prop_assert!(lowered.flows().iter().all(|flow| flow.from == name && flow.to != name));
        prop_assert_eq!(raised.moves().count(), lowered.moves().count());
    }

    #[test]
    fn shares_and_flows_count_the_slots(map in maps(1..=6), other in maps(1..=6)) {
        // Other indices for the same names, to tell names and indices apart.
        let (old, new) = (build(&map), build_with(HashKey::DEFAULT, &other, 100));
        for share in old.shares() {
            let owned = Slot::all().filter(|&slot| old.owner(slot) == share.backend).count();
            prop_assert_eq!(share.slots, owned);
            prop_assert_eq!(&map[share.backend.index()].0, share.name);
        }

        let plan = Plan::between(&old, &new).unwrap();
        let old_name = |slot| map[old.owner(slot).index()].0.as_str();
        let new_name = |slot| other[new.owner(slot).index() - 100].0.as_str();
        let moved: Vec<Slot> = Slot::all().filter(|&s| old_name(s) != new_name(s)).collect();
        prop_assert_eq!(plan.moves().map(|m| m.slot).collect::<Vec<_>>(), moved.clone());
        prop_assert!(plan.moves().all(|m| m.from == old.owner(m.slot) && m.to == new.owner(m.slot)));
        prop_assert_eq!(plan.moved_share(), moved.len() as f64 / SLOT_COUNT as f64);

        let flows = plan.flows();
        prop_assert!(flows.is_sorted_by(|a, b| (a.from, a.to) < (b.from, b.to)));
        prop_assert_eq!(flows.iter().map(|flow| flow.slots).sum::<usize>(), moved.len());
        for flow in flows {
            let pair = |&&slot: &&Slot| (old_name(slot), new_name(slot)) == (flow.from, flow.to);
            prop_assert_eq!(flow.slots, moved.iter().filter(pair).count());
        }
    }
}

#[test]
fn one_backend_more_takes_its_fair_share_and_no_more() {
    for key in [
        HashKey::DEFAULT,
        HashKey::new([1; 16]),
        HashKey::new(*b"another key 1234"),
    ] {
        let all = equal_map("state-", 17);
        let placements: Vec<Placement> = (1..=17)
            .map(|count| build_with(key, &all[..count], 0))
            .collect();
        for (n, pair) in (1..).zip(placements.windows(2)) {
            let plan = Plan::between(&pair[0], &pair[1]).unwrap();
            let of_fair = plan.moved_share() * (n + 1) as f64;
            assert!(
                (0.75..1.3).contains(&of_fair),
                "{n} to {} moves {of_fair}",
                n + 1
            );
            let newcomer = &all[n as usize].0;
            assert!(plan.flows().iter().all(|flow| flow.to == newcomer));
        }
    }
}

#[test]
fn equal_backends_own_about_equal_shares() {
    for prefix in ["state-", "10.0.0.", "b", "ZÜRICH/"] {
        let placement = build(&equal_map(prefix, 8));
        for share in placement.shares() {
            let of_fair = share.slots as f64 * 8.0 / SLOT_COUNT as f64;
            assert!(
                (0.85..1.15).contains(&of_fair),
                "{} owns {of_fair}",
                share.name
            );
        }
    }
}

#[test]
fn shares_follow_the_weights() {
    let map: Map = [("a", 50), ("b", 100), ("c", 200), ("d", 400)]
        .map(|(name, weight)| (name.to_owned(), weight))
        .into();
    for (share, (name, weight)) in build(&map).shares().iter().zip(&map) {
        assert_eq!(share.name, name);
        let of_fair = share.slots as f64 / SLOT_COUNT as f64 * 750.0 / f64::from(*weight);
        assert!((0.85..1.15).contains(&of_fair), "{name} owns {of_fair}");
    }
}

#[test]
fn another_hash_key_is_another_placement() {
    let map = equal_map("state-", 3);
    let (a, b) = (build(&map), build_with(HashKey::new([9; 16]), &map, 0));
    assert!(Slot::all().any(|slot| a.candidates(slot) != b.candidates(slot)));
    assert_eq!(
        Plan::between(&a, &b).unwrap_err(),
        PlanError::DifferentHashKeys
    );
}

#[test]
fn a_placement_holds_the_most_members_and_the_greatest_weight() {
    let mut map = equal_map("state-", MAX_MEMBERS);
    map[0].1 = MAX_WEIGHT;
    map[1].1 = 1;
    let placement = build(&map);
    assert_eq!(placement.members().len(), MAX_MEMBERS);
    assert_eq!(
        placement
            .shares()
            .iter()
            .map(|share| share.slots)
            .sum::<usize>(),
        SLOT_COUNT
    );
}

#[test]
fn unusable_members_are_refused_by_name() {
    let member = |name, weight, index| Member {
        name,
        weight,
        backend: BackendIndex::new(index),
    };
    let refusal = |members: &[Member<'_>]| {
        Placement::build(HashKey::DEFAULT, members)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(refusal(&[]), PlacementError::NoMembers);
    assert_eq!(refusal(&[member("", 100, 0)]), PlacementError::EmptyName);
    assert_eq!(
        refusal(&[member("a", 100, 0), member("b", 100, 1), member("a", 50, 2)]),
        PlacementError::DuplicateName { name: "a".into() },
    );
    assert_eq!(
        refusal(&[member("a", 100, 7), member("b", 100, 7)]),
        PlacementError::DuplicateIndex {
            name: "b".into(),
            index: 7
        },
    );
    for weight in [0, 1001, u32::MAX] {
        assert_eq!(
            refusal(&[member("a", weight, 0)]),
            PlacementError::WeightOutOfRange {
                name: "a".into(),
                weight
            },
        );
    }
    let map = equal_map("state-", MAX_MEMBERS + 1);
    let members: Vec<Member<'_>> = (0..)
        .zip(&map)
        .map(|(i, (name, weight))| member(name, *weight, i))
        .collect();
    assert_eq!(
        refusal(&members),
        PlacementError::TooManyMembers {
            count: MAX_MEMBERS + 1
        }
    );
}
