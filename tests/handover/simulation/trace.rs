//! What happened, for somebody who reads it.

use super::random::mix;

/// Whom a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    World,
    /// Position of the slot in the plan.
    Slot(usize),
    Session(usize),
}

/// The lines, if somebody wants them, and a number that stands for all that happened.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) is_on: bool,
    lines: Vec<(u64, Scope, String)>,
    pub(crate) digest: u64,
}

impl Trace {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            lines: Vec::new(),
            digest: 0,
        }
    }

    pub(crate) fn say(&mut self, at_ms: u64, scope: Scope, text: impl FnOnce() -> String) {
        if self.is_on {
            self.lines.push((at_ms, scope, text()));
        }
    }

    pub(crate) fn fold(&mut self, at_ms: u64, number: u64) {
        self.digest = mix(self.digest ^ mix(at_ms) ^ number);
    }

    /// What happened to a slot and in the world, and the last `count` lines about a session.
    pub(crate) fn about(&self, session: Option<usize>, slot: usize, count: usize) -> String {
        let is_session = |scope: Scope| session.is_some_and(|id| scope == Scope::Session(id));
        let lines = || self.lines.iter().enumerate();
        let of_session = lines().filter(|(_, line)| is_session(line.1));
        let skipped = of_session.clone().count().saturating_sub(count);
        let from = of_session.map(|(index, _)| index).nth(skipped).unwrap_or(0);
        let concerns = |index: usize, scope: Scope| match scope {
            Scope::World => true,
            Scope::Slot(other) => other == slot,
            Scope::Session(_) => is_session(scope) && index >= from,
        };
        lines()
            .filter(|(index, line)| concerns(*index, line.1))
            .map(|(_, (at_ms, _, text))| format!("  {:>9.3} s  {text}\n", *at_ms as f64 / 1000.0))
            .collect()
    }
}
