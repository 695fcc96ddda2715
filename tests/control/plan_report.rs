//! What a map would do: the laws of a plan, and what it warns of.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt::Write;

use proptest::prelude::*;
use proptest::sample::subsequence;
use staterouter::config::{BackendState, Config, PartitionMap};
use staterouter::control::pool_state::{Order, PoolState};
use staterouter::control::report::load::{Load, Loads};
use staterouter::control::report::plan::{
    PlanReport, PlanResult, PlannedBackend, plan, plan_order,
};
use staterouter::control::report::suggest::{SuggestError, suggest};
use staterouter::handover::BackendId;
use staterouter::health::Failure;
use staterouter::route::SLOT_COUNT;

const NOW_MS: u64 = 1_800_000_000_000;

/// A map of backends `NAME[/WEIGHT[/STATE]]` for 1000 sessions each; ids follow the letters.
fn text(version: u64, backends: &str) -> String {
    let mut text = format!("version: {version}\nbackends:\n");
    for backend in backends.split(' ') {
        let mut parts = backend.split('/');
        let name = parts.next().unwrap();
        let weight = parts.next().unwrap_or("100");
        let state = parts.next().unwrap_or("active");
        let id = name.as_bytes()[0] - b'a' + 1;
        let _ = writeln!(
            text,
            "  - {{name: {name}, id: {id}, address: '10.0.0.{id}:1', weight: {weight}, state: {state}, \
             capacity: {{sessions: 1000}}}}"
        );
    }
    text
}

fn pool_state(backends: &str) -> PoolState {
    let map = PartitionMap::parse(text(1, backends), "map").unwrap();
    PoolState::new(Config::new("map.yaml"), map, NOW_MS).unwrap()
}

/// Backends with so many sessions each, of 1000 bytes.
fn loads(sessions: &[(&str, u64)]) -> Loads {
    let backend = |(name, sessions): &(&str, u64)| {
        let load = Load {
            copies: None,
            copy_bytes: None,
            sessions: Some(*sessions),
            bytes: Some(sessions * 1000),
            room_bytes: None,
        };
        ((*name).to_owned(), load)
    };
    sessions.iter().map(backend).collect()
}

fn planned(pool_state: &PoolState, version: u64, backends: &str, loads: &Loads) -> PlanReport {
    plan(pool_state, text(version, backends).as_bytes(), "map", loads)
}

fn backend<'p>(plan: &'p PlanReport, name: &str) -> &'p PlannedBackend {
    let mut backends = plan.backends.iter();
    backends.find(|backend| backend.name == name).unwrap()
}

#[track_caller]
fn assert_warned(plan: &PlanReport, wanted: &str) {
    let mut warnings = plan.warnings.iter();
    assert!(
        warnings.any(|warning| warning.contains(wanted)),
        "{:?}",
        plan.warnings
    );
}

/// Some of the backends a to f with weights and states, the first of them active.
fn maps() -> impl Strategy<Value = String> {
    let names = subsequence(vec!["a", "b", "c", "d", "e", "f"], 1..=6);
    let states = prop::collection::vec((1..=300_u32, 0..6_usize), 6);
    (names, states).prop_map(|(names, states)| {
        let word = |state: usize| ["active", "drain", "off"][state.saturating_sub(3)];
        let mut parts = names.iter().zip(states).enumerate();
        let part = |(index, (name, (weight, state))): (usize, (&&str, (u32, usize)))| {
            let state = if index == 0 { 0 } else { state };
            format!("{name}/{weight}/{}", word(state))
        };
        let first = parts.next().map(part).unwrap();
        parts.map(part).fold(first, |map, part| map + " " + &part)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_plan_adds_up_and_says_what_will_be(old in maps(), new in maps()) {
        let mut pool_state = pool_state(&old);
        let counted: Vec<_> = "abcdef".split("").filter(|name| !name.is_empty())
            .zip([70, 10, 500, 333, 0, 900]).collect();
        let plan = planned(&pool_state, 2, &new, &loads(&counted));
        let sum = |of: fn(&PlannedBackend) -> usize| -> usize {
            plan.backends.iter().map(of).sum()
        };
        prop_assert_eq!(sum(|backend| backend.slots_before), SLOT_COUNT);
        prop_assert_eq!(sum(|backend| backend.slots_after), SLOT_COUNT);
        for backend in &plan.backends {
            let name = &backend.name;
            let flows = |is_end: &dyn Fn(&str, &str) -> bool| -> usize {
                let its = plan.flows.iter().filter(|flow| is_end(&flow.from, &flow.to));
                its.map(|flow| flow.slots).sum()
            };
            let (out, into) = (flows(&|from, _| from == name), flows(&|_, to| to == name));
            prop_assert_eq!(backend.slots_before - out + into, backend.slots_after);
            // Whoever has a smaller part of the slots has a smaller part of the sessions.
            let whole = backend.sessions_before.unwrap();
            prop_assert_eq!(backend.bytes_before, Some(whole * 1000));
            if into == 0 && backend.slots_before > 0 {
                let left = whole as f64 * backend.slots_after as f64 / backend.slots_before as f64;
                let difference = (left - backend.sessions_after.unwrap() as f64).abs();
                prop_assert!(difference <= plan.flows.len() as f64, "{backend:?}");
            }
        }

        let map = PartitionMap::parse(text(2, &new), "map").unwrap();
        let accepted = pool_state.accept(map, NOW_MS);
        let is_refused = plan.result == PlanResult::Refused;
        prop_assert_eq!(accepted.is_err(), is_refused, "{:?}", plan.refusal);
        if let Ok(accepted) = accepted {
            prop_assert_eq!(accepted.unwrap().moved_slots, plan.moved_slots);
            for backend in &plan.backends {
                let backend_id = BackendId::new(backend.name.as_bytes()[0] - b'a' + 1).unwrap();
                let slots = staterouter::route::Slot::all();
                let owned = slots.filter(|&slot| pool_state.target(slot) == backend_id).count();
                prop_assert_eq!(owned, backend.slots_after);
            }
        }
    }
}

#[test]
fn sessions_move_with_their_slots() {
    let pool_state = pool_state("a b");
    let counted = loads(&[("a", 600), ("b", 200)]);
    let plan = planned(&pool_state, 2, "a b c", &counted);
    assert_eq!(plan.result, PlanResult::Accepted);
    let sum: u64 = plan.flows.iter().map(|flow| flow.sessions.unwrap()).sum();
    assert_eq!(plan.sessions, Some(sum));
    assert_eq!(backend(&plan, "c").sessions_after, Some(sum));
    let a = backend(&plan, "a");
    let from_a = plan.flows.iter().find(|flow| flow.from == "a").unwrap();
    let wanted = 600.0 * from_a.slots as f64 / a.slots_before as f64;
    assert!((from_a.sessions.unwrap() as f64 - wanted).abs() <= 0.5);
    assert_eq!(a.sessions_after, Some(600 - from_a.sessions.unwrap()));
    assert!(a.used_percent_after.unwrap() < 60.0);
    // 30 s settle, twice that, then 20 min and 110 s.
    assert_eq!(plan.handover.unwrap().total_ms, 90_000 + 1_310_000);
    let asked = "c has not been asked yet: nothing moves there before it answers";
    assert_eq!(plan.warnings, [asked]);
}

#[test]
fn without_figures_there_are_none_in_the_plan() {
    let plan = planned(&pool_state("a b"), 2, "a b c", &Loads::default());
    assert_eq!((plan.sessions, plan.bytes), (None, None));
    assert!(
        plan.backends
            .iter()
            .all(|backend| backend.sessions_after.is_none())
    );
    assert!(plan.flows.iter().all(|flow| flow.sessions.is_none()));
}

#[test]
fn what_is_given_up_is_lost_and_does_not_move() {
    let pool_state = pool_state("a b c");
    let counted = loads(&[("a", 300), ("b", 300), ("c", 300)]);
    let plan = planned(&pool_state, 2, "a b c/100/off", &counted);
    assert!(plan.flows.iter().all(|flow| flow.from == "c" && flow.lost));
    assert_eq!((plan.sessions, plan.handover), (Some(0), None));
    assert_eq!(backend(&plan, "a").sessions_after, Some(300));
    assert_eq!(backend(&plan, "c").sessions_after, Some(0));
    assert_warned(&plan, "c would be given up, with its 300 sessions");
    let plan = planned(&pool_state, 2, "a b c/100/off d", &counted);
    let refused = "d has not been asked yet: what it gets of a backend that is off is refused";
    assert_warned(&plan, refused);
}

/// Everything would be refused until what it holds has died.
#[test]
fn a_backend_that_was_given_up_takes_nothing_of_one_that_is_off() {
    let mut pool_state = pool_state("a b");
    for (version, backends) in [(2, "a b/100/off"), (3, "a b")] {
        let map = PartitionMap::parse(text(version, backends), "map").unwrap();
        assert!(pool_state.accept(map, NOW_MS).unwrap().is_some());
        pool_state.tick(NOW_MS);
    }
    let warned =
        "b was given up and gets no sessions yet: what it gets of a backend that is off is refused";
    let plan = planned(&pool_state, 4, "a/100/off b", &Loads::default());
    assert_warned(&plan, warned);
    let plan = planned(&pool_state, 4, "a b/200", &Loads::default());
    assert!(
        plan.warnings
            .iter()
            .all(|warning| !warning.starts_with(warned)),
        "{plan:?}"
    );
}

#[test]
fn a_plan_warns_of_what_hurts_later() {
    let mut pool_state = pool_state("a b");
    let plan = planned(
        &pool_state,
        2,
        "a b/100/drain",
        &loads(&[("a", 800), ("b", 500)]),
    );
    assert_warned(&plan, "a would need 130 % of its capacity");
    assert_warned(&plan, "a would be the only backend");
    assert_warned(&plan, "of all sessions would move in one change");
    let plan = planned(&pool_state, 2, "a/300 b", &Loads::default());
    assert_warned(&plan, "a would serve 7");
    for _ in 0..pool_state.config().health.fall {
        pool_state.probed(BackendId::new(2).unwrap(), Err(Failure::Refused), NOW_MS);
    }
    let plan = planned(&pool_state, 2, "a b/200", &Loads::default());
    assert_warned(&plan, "b does not answer: nothing moves there");
    let plan = planned(&pool_state, 2, "a b/50", &Loads::default());
    assert_warned(&plan, "b does not answer: its sessions do not move");
    let new = PartitionMap::parse(text(2, "a b c"), "map").unwrap();
    assert!(pool_state.accept(new, NOW_MS).unwrap().is_some());
    pool_state.probed(BackendId::new(3).unwrap(), Err(Failure::Refused), NOW_MS);
    let plan = planned(&pool_state, 3, "a b c/200", &Loads::default());
    assert_warned(&plan, "c does not answer: nothing moves there");
}

#[test]
fn a_change_of_applications_names_the_ids_whose_sessions_are_not_found_any_more() {
    let pool_state = pool_state("a b c");
    let with = |pool_state: &PoolState, version, applications: &str| {
        let text = format!("{}\n{applications}\n", text(version, "a b c"));
        plan(pool_state, text.as_bytes(), "map", &Loads::default())
    };
    const SHOP: &str = "applications: [{name: shop, id: /LM/2, also: [/LM/3]}]";
    let first = with(&pool_state, 2, SHOP);
    assert!(first.is_dangerous);
    assert_warned(
        &first,
        "application shop: the sessions that web servers have stored under /LM/3 are",
    );
    let mut named = pool_state;
    let map = PartitionMap::parse(format!("{}\n{SHOP}\n", text(2, "a b c")), "map").unwrap();
    assert!(named.accept(map, NOW_MS).unwrap().is_some());
    let same = with(&named, 3, SHOP);
    assert!(
        !same.is_dangerous && same.warnings.is_empty(),
        "{:?}",
        same.warnings
    );
    assert_warned(&with(&named, 3, "applications: []"), "under /LM/3 are");
    let turned = "applications: [{name: shop, id: /LM/3, also: [/LM/2, /LM/4]}]";
    assert_warned(&with(&named, 3, turned), "under /LM/2, /LM/3, /LM/4 are");
}

/// Two copies of each session are in the pool then.
#[test]
fn a_plan_with_replicas_counts_what_each_backend_keeps_for_others() {
    let pool_state = pool_state("a b c");
    let counted = [("a", 400), ("b", 300), ("c", 200)];
    let with = |replicas: u8, backends: &str| {
        let text = format!("replicas: {replicas}\n{}", text(2, backends));
        plan(&pool_state, text.as_bytes(), "map", &loads(&counted))
    };
    let sum = |plan: &PlanReport, of: fn(&PlannedBackend) -> Option<u64>| {
        plan.backends.iter().filter_map(of).sum::<u64>()
    };
    let once = with(0, "a b c d");
    assert!(
        once.backends
            .iter()
            .all(|backend| backend.copies_after.is_none())
    );
    let twice = with(1, "a b c d");
    let sessions = sum(&twice, |backend| backend.sessions_after);
    let copies = sum(&twice, |backend| backend.copies_after);
    assert!((895..=900).contains(&sessions) && (895..=900).contains(&copies));
    for known in &twice.backends {
        let held = known.sessions_after.unwrap() + known.copies_after.unwrap();
        let used = known.used_percent_after.unwrap();
        assert!((used - held as f64 / 10.0).abs() < 0.01, "{known:?}");
    }
    // 900 sessions fit on two backends for 1000 each, their copies as well only just.
    let two = with(1, "a b c/100/drain");
    let kept = ["a", "b"].map(|name| backend(&two, name));
    assert!(
        kept.iter()
            .all(|known| known.used_percent_after.unwrap() > 85.0),
        "{kept:?}"
    );
    assert_eq!(backend(&two, "c").copies_after, Some(0));
    let suggested = |pool_state: &PoolState| suggest(pool_state, 80.0, &loads(&counted)).unwrap();
    let used = |pool_state: &PoolState| suggested(pool_state).now[0].used_percent;
    let mut doubled = PartitionMap::parse(text(1, "a b c"), "map").unwrap();
    doubled.replicas = 1;
    let doubled = PoolState::new(Config::new("map.yaml"), doubled, NOW_MS).unwrap();
    assert!((used(&doubled) - 2.0 * used(&pool_state)).abs() < 0.01);
}

#[test]
fn a_map_that_would_be_refused_says_why_and_what_it_would_do() {
    let pool_state = pool_state("a b c");
    for (text, refusal) in [
        (text(1, "a b"), "raise the version"),
        (text(2, "a/100/drain b/100/drain c"), "accept_moved_share"),
    ] {
        let plan = plan(&pool_state, text.as_bytes(), "map", &Loads::default());
        assert_eq!(plan.result, PlanResult::Refused);
        assert!(plan.refusal.unwrap().contains(refusal));
        assert!(plan.moved_slots > 0 && !plan.backends.is_empty());
    }
    let same = plan(
        &pool_state,
        text(1, "a b c").as_bytes(),
        "map",
        &Loads::default(),
    );
    assert_eq!((same.result, same.moved_slots), (PlanResult::Unchanged, 0));
    let other = "hash_key: \"00112233445566778899aabbccddeeff\"\n".to_owned() + &text(2, "a b c");
    let other = plan(&pool_state, other.as_bytes(), "map", &Loads::default());
    assert!(other.refusal.unwrap().contains("hash key"));
    assert!(other.backends.is_empty());
    let faulty = plan(
        &pool_state,
        b"version: 2\nbackends: 7\n",
        "map",
        &Loads::default(),
    );
    assert_eq!(
        (faulty.result, faulty.new_version),
        (PlanResult::Refused, None)
    );
    assert_eq!((faulty.faults[0].line, faulty.faults[0].column), (2, 11));
}

#[test]
fn a_plan_goes_by_the_overrides_that_stay() {
    let mut pool_state = pool_state("a b c");
    let order = Order {
        backend: "c".to_owned(),
        state: BackendState::Drain,
        accept_moved_percent: None,
        is_only_here: false,
        is_fresh: false,
    };
    assert!(pool_state.steer(&order, NOW_MS).unwrap().is_some());
    let plan = planned(&pool_state, 2, "a b c d", &Loads::default());
    assert_eq!(backend(&plan, "c").slots_after, 0);
    assert!(plan.flows.iter().all(|flow| flow.to == "d"));
    // What is on its way already goes on.
    for id in 1..=2 {
        pool_state.probed(BackendId::new(id).unwrap(), Ok(()), NOW_MS);
    }
    pool_state.tick(NOW_MS);
    let plan = planned(&pool_state, 2, "a b c d", &Loads::default());
    assert_warned(&plan, "are in a handover or a failover now");
}

#[test]
fn a_suggestion_brings_everybody_under_the_wanted_share() {
    let pool_state = pool_state("a b c");
    let counted = loads(&[("a", 700), ("b", 750), ("c", 650)]);
    let suggested = suggest(&pool_state, 60.0, &counted).unwrap();
    assert!(!suggested.fits);
    // 2100 sessions, 600 at each of 4 at best.
    assert_eq!(suggested.weights, None);
    let more = suggested.more.unwrap();
    assert!((1..=2).contains(&more.backends), "{more:?}");
    assert!(more.highest_used_percent <= 60.0, "{more:?}");

    let suggested = suggest(&pool_state, 71.0, &counted).unwrap();
    let weights = suggested.weights.unwrap();
    assert!(
        weights.iter().all(|backend| backend.used_percent <= 71.0),
        "{weights:?}"
    );
    // Saved as suggested, it is as suggested.
    let named = |backend: &staterouter::control::report::suggest::SuggestedBackend| {
        format!("{}/{}", backend.name, backend.weight)
    };
    let map: Vec<_> = weights.iter().map(named).collect();
    let map = PartitionMap::parse(text(1, &map.join(" ")), "map").unwrap();
    let pool_state = PoolState::new(Config::new("map.yaml"), map, NOW_MS).unwrap();
    let again = suggest(&pool_state, 71.0, &counted).unwrap();
    assert!(again.fits);
    assert_eq!(again.now, weights);
}

#[test]
fn nothing_is_suggested_without_figures() {
    let none = suggest(&pool_state("a b"), 60.0, &Loads::default());
    assert_eq!(none, Err(SuggestError::NothingCounted));

    let half = text(1, "a b").replacen("capacity: {sessions: 1000}", "capacity: {}", 1);
    let map = PartitionMap::parse(half, "map").unwrap();
    let pool_state = PoolState::new(Config::new("map.yaml"), map, NOW_MS).unwrap();
    let half = suggest(&pool_state, 60.0, &loads(&[("a", 5)]));
    let backend = "a".to_owned();
    assert_eq!(half, Err(SuggestError::NoCapacity { backend }));
}

/// An order about one backend.
fn ordered(
    pool_state: &PoolState,
    backend: &str,
    state: BackendState,
    loads: &Loads,
) -> PlanReport {
    let order = Order {
        backend: backend.to_owned(),
        state,
        accept_moved_percent: Some(100),
        is_only_here: false,
        is_fresh: false,
    };
    plan_order(pool_state, &order, loads, NOW_MS)
}

#[test]
fn an_order_is_planned_as_the_map_that_says_the_same() {
    let pool_state = pool_state("a b c");
    let loads = loads(&[("a", 600), ("b", 600), ("c", 600)]);
    for (state, map) in [
        (BackendState::Drain, "a b c/100/drain"),
        (BackendState::Off, "a b c/100/off"),
        (BackendState::Active, "a b c"),
    ] {
        let order = ordered(&pool_state, "c", state, &loads);
        let by_map = planned(&pool_state, 2, map, &loads);
        assert_eq!(order.backends, by_map.backends);
        assert_eq!(order.flows, by_map.flows);
        assert_eq!(order.warnings, by_map.warnings);
        assert_eq!(order.is_dangerous, state == BackendState::Off);
    }
    let same = ordered(&pool_state, "c", BackendState::Active, &loads);
    assert_eq!(same.result, PlanResult::Unchanged);
    let unknown = ordered(&pool_state, "d", BackendState::Off, &loads);
    assert_eq!(unknown.result, PlanResult::Refused);
    assert!(unknown.refusal.unwrap().contains("no backend d"));
}

#[test]
fn what_users_would_notice_is_dangerous() {
    let pool = pool_state("a b c");
    let light = loads(&[("a", 100), ("b", 100), ("c", 100)]);
    let heavy = loads(&[("a", 800), ("b", 800), ("c", 800)]);
    assert!(!ordered(&pool, "c", BackendState::Drain, &light).is_dangerous);
    assert!(ordered(&pool, "c", BackendState::Drain, &heavy).is_dangerous);
    assert!(ordered(&pool, "c", BackendState::Off, &light).is_dangerous);
    let pair = pool_state("a b");
    assert!(ordered(&pair, "b", BackendState::Drain, &light).is_dangerous);
    let uneven = pool_state("a/1 b/100 c/100");
    assert!(ordered(&uneven, "c", BackendState::Drain, &light).is_dangerous);
}
