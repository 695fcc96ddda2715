//! What an operator is told of the slots.

use std::collections::BTreeMap;

use super::Member;
use crate::config::LogLevel;
use crate::handover::{Place, SlotState, Stage};
use crate::route::SLOT_COUNT;

/// One line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How important it is.
    pub level: LogLevel,
    /// What happened.
    pub text: String,
}

/// Slots that changed alike, counted.
#[derive(Debug, Default)]
pub(super) struct Changes {
    counts: BTreeMap<(Side, Side), usize>,
}

/// Stage and places before or after a change.
type Side = (Stage, Place, Option<Place>);

impl Changes {
    pub(super) fn add(&mut self, before: SlotState, after: SlotState) {
        let side = |slot: SlotState| (slot.stage, slot.first, slot.second);
        *self.counts.entry((side(before), side(after))).or_default() += 1;
    }

    pub(super) fn notices(self, members: &[Member]) -> Vec<Notice> {
        let name = |place: Place| {
            let member = members.iter().find(|member| member.place == place);
            member.map_or("?", |member| &member.spec.name)
        };
        let line = |((before, after), slots)| notice(before, after, slots, &name);
        self.counts.into_iter().map(line).collect()
    }
}

impl Notice {
    fn new(level: LogLevel, text: String) -> Self {
        Self { level, text }
    }

    pub(super) fn let_go(name: &str) -> Self {
        let text = format!("{name} holds no sessions any more and can be stopped");
        Self::new(LogLevel::Info, text)
    }
}

fn notice<'m>(
    before: Side,
    (stage, first, second): Side,
    slots: usize,
    name: &impl Fn(Place) -> &'m str,
) -> Notice {
    let percent = slots as f64 * 100.0 / SLOT_COUNT as f64;
    let share = format!("{slots} slots ({percent:.1} %)");
    let here = name(first);
    let other = second.map_or(here, name);
    match (before.0, stage) {
        (_, Stage::Settle) => Notice::new(
            LogLevel::Info,
            format!("handover of {share} from {other} to {here} begins"),
        ),
        (_, Stage::Move1) => Notice::new(
            LogLevel::Info,
            format!("sessions of {share} move from {other} to {here} when they are used"),
        ),
        (Stage::Move1, Stage::Move2) => Notice::new(
            LogLevel::Info,
            format!("new sessions of {share} are created at {here} instead of {other}"),
        ),
        (_, Stage::Move2) => Notice::new(
            LogLevel::Info,
            format!("sessions of {share} move from {other}, which is back, to {here}"),
        ),
        (Stage::Move2, Stage::Steady) => Notice::new(
            LogLevel::Info,
            format!("handover of {share} to {here} has ended"),
        ),
        (_, Stage::Suspect) => Notice::new(
            LogLevel::Warn,
            format!(
                "{other} is down: requests for {share} are refused until it answers or {here} stands in"
            ),
        ),
        (Stage::Suspect, Stage::Away) => Notice::new(
            LogLevel::Warn,
            format!(
                "{here} stands in for {other} in {share}: sessions at {other} are out of reach"
            ),
        ),
        (_, Stage::Back) => Notice::new(
            LogLevel::Info,
            format!(
                "{other} is back in {share}: sessions that only it has are refused until every proxy knows"
            ),
        ),
        (_, Stage::Wait) => Notice::new(
            LogLevel::Info,
            format!("{other} serves its sessions of {share} again, {here} those that began there"),
        ),
        (Stage::Away, _) => Notice::new(
            LogLevel::Warn,
            format!(
                "{share} stay at {here}: what the backend before held has died or was given up"
            ),
        ),
        (Stage::Suspect, _) => Notice::new(
            LogLevel::Info,
            format!("{share} are served again by {here}"),
        ),
        (_, Stage::Steady) => Notice::new(
            LogLevel::Warn,
            format!("{share} go to {here} at once: what the backend before held is given up"),
        ),
        (_, Stage::Away) => Notice::new(
            LogLevel::Warn,
            format!("{here} stands in for {other} in {share}"),
        ),
    }
}
