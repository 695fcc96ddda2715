//! What an operator is told of the slots.

use std::collections::BTreeMap;

use super::wording::{lasting, share};
use super::{PoolMember, name_in};
use crate::config::LogLevel;
use crate::handover::{BackendId, Outdated, ReplicaPhase, SlotState, Stage};

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
    /// Slots that went on with their replicas, by the backend that failed and the one that had the
    /// copies.
    recovered: BTreeMap<(BackendId, BackendId), usize>,
    /// Slots whose copies count no more, by the backend that keeps them.
    dropped: BTreeMap<BackendId, usize>,
}

/// What there is to say of a slot before or after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Side {
    stage: Stage,
    first: BackendId,
    second: Option<BackendId>,
    /// Where its items may be outdated, whenever that began.
    outdated: Outdated,
}

impl Changes {
    pub(super) fn add(&mut self, before: SlotState, after: SlotState) {
        if before.stage == Stage::Suspect && after.stage == Stage::Suspect {
            // Who would stand in has changed, and nobody does yet: when a whole pool falls, these
            // would be a thousand lines.
            return;
        }
        let sides = (Side::new(before), Side::new(after));
        let has_recovered = before.stage == Stage::Suspect
            && before.replica.is_some_and(|replica| {
                before
                    .second
                    .is_some_and(|failed| after.outdated.contains(failed))
                    && after.places().any(|place| place == replica.backend_id)
            });
        if has_recovered && after.stage != Stage::Away {
            let way = before
                .second
                .zip(before.replica.map(|replica| replica.backend_id));
            if let Some(way) = way {
                *self.recovered.entry(way).or_default() += 1;
            }
            return;
        }
        if has_arrived(&before, &after) {
            // Told once for the whole handover.
            return;
        }
        if let Some(dropped) = dropped_replica(&before, &after) {
            *self.dropped.entry(dropped).or_default() += 1;
        }
        if (sides.0.stage, sides.0.places()) == (sides.1.stage, sides.1.places())
            && after.stage == Stage::Steady
        {
            // Only the copies have changed.
            return;
        }
        if sides.0 != sides.1 {
            *self.counts.entry(sides).or_default() += 1;
        }
    }

    /// Slots that went on with their replicas, by the backend that failed and the one that had the
    /// copies.
    pub(super) const fn recovered(&self) -> &BTreeMap<(BackendId, BackendId), usize> {
        &self.recovered
    }

    pub(super) fn notices(self, members: &[PoolMember]) -> Vec<Notice> {
        let name = |backend_id| name_in(members, backend_id);
        let line = |((before, after), slots): ((Side, Side), usize)| {
            notice(before.stage, after, slots, &name)
        };
        let recovered = self.recovered.into_iter().map(|((failed, replica), slots)| {
            let (failed, replica, share) = (name(failed), name(replica), share(slots));
            Notice {
                level: LogLevel::Warn,
                text: format!(
                    "{failed} has failed: the sessions of {share} go on at {replica}, which has a copy \
                     of each"
                ),
            }
        });
        let dropped = self.dropped.into_iter().map(|(replica, slots)| {
            let (replica, share) = (name(replica), share(slots));
            Notice {
                level: LogLevel::Warn,
                text: format!(
                    "the copies of {share} at {replica} count no more: it missed one, or is down, or \
                     leaves; these sessions are kept once until others are filled"
                ),
            }
        });
        let recovered = recovered.chain(dropped);
        recovered.chain(self.counts.into_iter().map(line)).collect()
    }
}

/// The replica that a slot relied on and does not any more, although its places are the same.
fn dropped_replica(before: &SlotState, after: &SlotState) -> Option<BackendId> {
    let full = before.replica_in(ReplicaPhase::Full)?;
    (after.replica_in(ReplicaPhase::Full) != Some(full)).then_some(full)
}

impl Side {
    fn places(self) -> (BackendId, Option<BackendId>) {
        (self.first, self.second)
    }

    fn new(slot: SlotState) -> Self {
        let left = slot.before.filter(|before| {
            let is_return = matches!(before.stage, Stage::Away | Stage::Back | Stage::Wait);
            is_return && before.second != slot.second
        });
        let left = left.and_then(|before| before.second);
        Self {
            stage: slot.stage,
            first: slot.first,
            second: slot.second,
            outdated: slot.outdated.with(left, 0).since(0),
        }
    }
}

impl Notice {
    pub(super) fn let_go(name: &str) -> Self {
        let text = format!("{name} holds no sessions any more and can be stopped");
        Self {
            level: LogLevel::Info,
            text,
        }
    }

    pub(super) fn joined(slots: usize) -> Self {
        let share = share(slots);
        Self {
            level: LogLevel::Info,
            text: format!("{share} are taken to be where the peers have them, not the map"),
        }
    }

    pub(super) fn awaited(name: &str) -> Self {
        let text = format!("{name} gets its share of the sessions once it answers");
        Self {
            level: LogLevel::Info,
            text,
        }
    }

    pub(in crate::control) fn copies_lost(name: &str) -> Self {
        Self {
            level: LogLevel::Warn,
            text: format!(
                "{name} has lost its memory, as after a restart: the copies that it kept count no more"
            ),
        }
    }

    pub(super) fn left_behind() -> Self {
        Self {
            level: LogLevel::Warn,
            text:
                "the other proxies have gone on without this one: where the sessions were by its \
                   state file counts no more"
                    .to_owned(),
        }
    }

    pub(super) fn fresh(name: &str) -> Self {
        Self {
            level: LogLevel::Warn,
            text: format!(
                "{name} gets sessions again: by order it holds nothing from before it was given up"
            ),
        }
    }

    pub(super) fn held_back(name: &str, left_ms: u64) -> Self {
        let left = lasting(left_ms);
        Self {
            level: LogLevel::Info,
            text: format!(
                "{name} gets no sessions for {left}: it was given up, and what it held until then \
                 is outdated"
            ),
        }
    }
}

fn notice<'m>(
    before: Stage,
    after: Side,
    slots: usize,
    name: &impl Fn(BackendId) -> &'m str,
) -> Notice {
    let share = share(slots);
    let here = name(after.first);
    let other = after.second.map_or(here, name);
    let (level, text) = match (before, after.stage) {
        (_, Stage::Suspect | Stage::Away) => {
            (LogLevel::Warn, of_failure(after, &share, here, other, name))
        }
        (_, Stage::Turned) => (
            LogLevel::Info,
            format!(
                "sessions of {share} move to {here} no more, as it is to be left: they stay where they are for a session timeout, then all go to {other}"
            ),
        ),
        (_, Stage::Settle) => (
            LogLevel::Info,
            format!("handover of {share} from {other} to {here} begins"),
        ),
        (_, Stage::Move1) => (
            LogLevel::Info,
            format!("sessions of {share} move from {other} to {here} when they are used"),
        ),
        (Stage::Move1, Stage::Move2) => (
            LogLevel::Info,
            format!("new sessions of {share} are created at {here} instead of {other}"),
        ),
        (Stage::Turned, Stage::Move2) => (
            LogLevel::Info,
            format!("sessions of {share} move from {other} to {here} again"),
        ),
        (_, Stage::Move2) => (
            LogLevel::Info,
            format!("sessions of {share} move from {other}, which is back, to {here}"),
        ),
        (_, Stage::Back) => (
            LogLevel::Info,
            format!(
                "{other} is back in {share}: sessions that only it has are refused until every proxy knows"
            ),
        ),
        (Stage::Settle, Stage::Wait) => (
            LogLevel::Info,
            format!("the handover of {share} from {here} to {other} is called off"),
        ),
        (_, Stage::Wait) => (
            LogLevel::Info,
            format!("{other} serves its sessions of {share} again, {here} those that began there"),
        ),
        (Stage::Away, _) => (
            LogLevel::Warn,
            format!(
                "{share} stay at {here}: what the backend before held has died or was given up"
            ),
        ),
        (Stage::Suspect, _) => (
            LogLevel::Info,
            format!("{share} are served again by {here}"),
        ),
        (_, Stage::Steady) => (
            LogLevel::Warn,
            format!("{share} go to {here} at once: what the backend before held is given up"),
        ),
    };
    Notice { level, text }
}

/// What becomes of slots of `other`, which has failed.
fn of_failure<'m>(
    after: Side,
    share: &str,
    here: &str,
    other: &str,
    name: &impl Fn(BackendId) -> &'m str,
) -> String {
    let outdated = after.outdated;
    if after.stage == Stage::Away {
        let stands_in = format!(
            "{here} stands in for {other} in {share}: sessions at {other} are out of reach"
        );
        let left: Vec<_> = outdated.places().map(name).collect();
        return match left.as_slice() {
            [] => stands_in,
            _ => format!(
                "{stands_in}, those at {} may be outdated",
                left.join(" and ")
            ),
        };
    }
    let refused = format!("{other} is down: requests for {share} are refused until it answers");
    if outdated.contains(after.first) {
        format!(
            "{refused}; what {here} holds may be outdated, and nobody else can stand in before that has died"
        )
    } else {
        format!("{refused} or {here} stands in")
    }
}

/// Whether this is the end that a handover is meant to have.
pub(super) fn has_arrived(before: &SlotState, after: &SlotState) -> bool {
    before.stage == Stage::Move2 && (after.stage, after.first) == (Stage::Steady, before.first)
}
