//! Runs the checker and says what it found.

use std::collections::BTreeMap;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::config::Config;
use super::machine::Action;
use super::state::State;

pub(crate) struct Found {
    /// Different states seen.
    pub(crate) states: usize,
    /// The invariants that do not hold, with a shortest way there.
    pub(crate) faults: BTreeMap<&'static str, Vec<String>>,
}

/// Visits every state of a run, or stops at the first that breaks an invariant.
pub(crate) fn check(name: &str, config: &Config) -> Found {
    let begun = Instant::now();
    let checker = config
        .clone()
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let faults: BTreeMap<_, _> = checker
        .discoveries()
        .into_iter()
        .map(|(name, path)| (name, describe(config, path.into_vec())))
        .collect();
    let states = checker.unique_state_count();
    println!(
        "| {name} | {} | {states} | {} | {:.1} s |",
        if faults.is_empty() {
            "holds".to_owned()
        } else {
            format!("{:?}", faults.keys())
        },
        checker.max_depth(),
        begun.elapsed().as_secs_f64()
    );
    Found { states, faults }
}

/// Every state of the run keeps every invariant.
pub(crate) fn holds(name: &str, config: &Config) {
    let found = check(name, config);
    print_ways(name, &found);
    assert!(
        found.faults.is_empty(),
        "{name} breaks {:?}",
        found.faults.keys()
    );
    assert!(found.states > 100, "{name} explores next to nothing");
}

/// The run breaks this invariant first.
pub(crate) fn breaks(name: &str, config: &Config, expected: &str) {
    let found = check(name, config);
    let broken: Vec<_> = found.faults.keys().copied().collect();
    if std::env::var_os("TRACE").is_some() || !broken.contains(&expected) {
        print_ways(name, &found);
    }
    assert!(broken.contains(&expected), "{name} breaks {broken:?}");
}

fn print_ways(name: &str, found: &Found) {
    for (invariant, steps) in &found.faults {
        println!("{name}: {invariant}\n{}", steps.join("\n"));
    }
}

fn describe(config: &Config, path: Vec<(State, Option<Action>)>) -> Vec<String> {
    path.into_iter()
        .map(|(state, action)| line(config, &state, action))
        .collect()
}

fn line(config: &Config, state: &State, action: Option<Action>) -> String {
    let stages: Vec<_> = state.legs[..config.proxies]
        .iter()
        .map(|&leg| format!("{:?}", config.legs[usize::from(leg)].route.stage))
        .collect();
    let items: Vec<_> = state
        .items
        .iter()
        .map(|item| {
            item.map_or("-".to_owned(), |item| {
                let kind = if item.locked {
                    "L"
                } else if item.uninit {
                    "I"
                } else {
                    "U"
                };
                format!("{kind}{} v{}", item.counter, item.version)
            })
        })
        .collect();
    let requests: Vec<_> = state
        .requests
        .iter()
        .filter_map(|r| r.op.map(|op| format!("{:?} {:?}", op.kind, op.now)))
        .collect();
    format!(
        "  {} [{}] {} late {} sup {:b} fin {:b}\n      {action:?}",
        stages.join("/"),
        items.join(", "),
        requests.join("; "),
        state.late.iter().flatten().count(),
        state.versions.superseded,
        state.versions.finished
    )
}
