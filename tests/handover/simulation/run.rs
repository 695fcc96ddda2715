//! Plays seed after seed and reports the first that fails, as short as it gets.

use std::env;

use super::broken::Broken;
use super::plan::{Class, Plan};
use super::world::{Finding, Options, Outcome, World};

/// What many worlds amounted to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) worlds: u64,
    pub(crate) pages: u64,
    pub(crate) failed_pages: u64,
    pub(crate) events: u64,
    /// How often a proxy has gone on with a replica.
    pub(crate) promotions: u64,
}

/// Plays the world of a seed.
pub(crate) fn play(plan: &Plan, options: Options) -> Outcome {
    World::new(plan, options).play()
}

/// Plays `count` seeds of a class, or the one of the variable `SEED`.
///
/// # Panics
/// With a trace, when something is wrong.
pub(crate) fn holds(class: Class, count: u64) -> Totals {
    let mut totals = Totals::default();
    if let Some(seed) = number("SEED") {
        let plan = Plan::new(class, seed);
        let traced = Options {
            is_traced: true,
            ..Options::default()
        };
        let outcome = play(&plan, traced);
        println!("{}", report(&plan, &outcome));
        assert!(outcome.finding.is_none(), "seed {seed} of {}", class.name);
        return totals;
    }
    let first = number("FIRST_SEED").unwrap_or(1);
    for seed in first..first + number("SEEDS").unwrap_or(count) {
        let plan = Plan::new(class, seed);
        let outcome = play(&plan, Options::default());
        totals.worlds += 1;
        totals.pages += outcome.pages;
        totals.failed_pages += outcome.failed_pages;
        totals.events += outcome.events;
        totals.promotions += outcome.promotions;
        if let Some(finding) = outcome.finding {
            panic!("{}", explain(&plan, &finding));
        }
    }
    println!("{}: {totals:?}", class.name);
    totals
}

/// Plays one world that has once gone wrong.
///
/// # Panics
/// When it does again.
pub(crate) fn plays(class: Class, seed: u64) {
    let plan = Plan::new(class, seed);
    if let Some(finding) = play(&plan, Options::default()).finding {
        panic!("{}", explain(&plan, &finding));
    }
}

/// Plays worlds of a class without one rule until one goes wrong that is well with it.
///
/// # Panics
/// When there is none among the first `most`.
pub(crate) fn notices(broken: Broken, class: Class, most: u64) {
    let without = Options {
        broken: Some(broken),
        ..Options::default()
    };
    for seed in 1..=most {
        let plan = Plan::new(class, seed);
        let found = play(&plan, without).finding.filter(Finding::is_loss);
        let Some(found) = found else {
            continue;
        };
        if play(&plan, Options::default()).finding.is_none() {
            println!("{broken:?} in {}: seed {seed}, {}", class.name, found.kind);
            return;
        }
    }
    panic!(
        "{most} worlds of {} are well without what {broken:?} leaves out",
        class.name
    );
}

/// Whether a seed stands for one world: who replays one wants to see it again.
///
/// # Panics
/// When the world differs from time to time.
pub(crate) fn plays_alike(class: Class, seed: u64) {
    let plan = Plan::new(class, seed);
    let [one, other] = [(); 2].map(|()| play(&plan, Options::default()));
    assert_eq!(
        (one.digest, one.events),
        (other.digest, other.events),
        "{} {seed}",
        class.name
    );
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The finding with the least that is needed for one of its kind, and the trace of that.
fn explain(plan: &Plan, finding: &Finding) -> String {
    let mut least = plan.clone();
    let mut index = 0;
    while index < least.faults.len() {
        let mut fewer = least.clone();
        fewer.faults.remove(index);
        if fails_alike(&fewer, finding) {
            least = fewer;
        } else {
            index += 1;
        }
    }
    for lanes in 1..least.lanes {
        let fewer = Plan {
            lanes,
            ..least.clone()
        };
        if fails_alike(&fewer, finding) {
            least = fewer;
            break;
        }
    }
    let traced = Options {
        is_traced: true,
        ..Options::default()
    };
    let outcome = play(&least, traced);
    format!(
        "class {}, SEED={}: {} ({})\n{}",
        plan.class.name,
        plan.seed,
        finding.kind,
        finding.text,
        report(&least, &outcome)
    )
}

fn fails_alike(plan: &Plan, finding: &Finding) -> bool {
    let again = play(plan, Options::default()).finding;
    again.is_some_and(|again| again.kind == finding.kind)
}

fn report(plan: &Plan, outcome: &Outcome) -> String {
    let Plan {
        proxies,
        lanes,
        maps,
        ..
    } = plan;
    let faults: Vec<String> = plan
        .faults
        .iter()
        .map(|fault| format!("  {fault:?}"))
        .collect();
    let slots: Vec<u16> = plan.slots.iter().map(|slot| slot.number()).collect();
    format!(
        "{proxies} proxies, {lanes} lanes a slot, slots {slots:?}, first map {:?}\n{}\n{}\n{:?}",
        maps[0],
        faults.join("\n"),
        outcome.trace,
        outcome.finding
    )
}
