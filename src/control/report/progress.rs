//! What is going on in the slots, in few lines.

use std::collections::BTreeMap;

use super::status::{FailingStatus, HandoverProgress};
use crate::control::pool_state::{PoolState, failing};
use crate::handover::schedule::Times;
use crate::handover::{BackendId, BackendMap, SlotState, Stage};
use crate::route::Slot;

/// Slots with the same places in the same stage.
#[derive(Debug, Clone, Copy)]
struct Group {
    slots: usize,
    /// When the first and the last of them got into the stage.
    since_ms: (u64, u64),
    /// Some of them are to go on to another place from where they are going.
    goes_on: bool,
}

/// Everything that is not steady, by stage and places.
pub(crate) fn under_way(pool_state: &PoolState, slots: &[SlotState]) -> Vec<HandoverProgress> {
    let failing = |first, second| {
        let mut moves = pool_state.failing_moves();
        moves.find(|moves| (moves.from, moves.to) == (second, first))
    };
    let targets = Slot::all().map(|slot| pool_state.target(slot));
    let mut lines = lines(slots, targets, &pool_state.times(), |backend_id| {
        pool_state.name_of(backend_id).to_owned()
    });
    for (line, (first, second)) in &mut lines {
        let Some(moves) = failing(*first, *second).filter(|_| line.stage.is_handover()) else {
            continue;
        };
        line.ends_ms = None;
        line.means = format!(
            "sessions stay at {}: {} does not take them",
            line.second, line.first
        );
        line.failing = Some(FailingStatus {
            reason: failing::reason(moves.status, &line.first),
            since_ms: moves.since_ms,
            last_ms: moves.last_ms,
            moves: moves.moves,
        });
    }
    lines.into_iter().map(|(line, _)| line).collect()
}

/// When each place holds nothing any more that is to hold nothing: by its id, `None` where nobody can
/// say; 0 where nothing is.
pub(crate) fn empty_ms(
    pool_state: &PoolState,
    slots: &[SlotState],
    now_ms: u64,
) -> BackendMap<Option<u64>> {
    let times = pool_state.times();
    let mut empty = BackendMap::filled(Some(0));
    let missed_until_ms = pool_state.missed_until_ms();
    for (slot, state) in Slot::all().zip(slots) {
        let target = pool_state.target(slot);
        for backend_id in state.places().filter(|backend_id| *backend_id != target) {
            let latest = &mut empty[backend_id];
            let left_ms = left_ms(pool_state, state, backend_id, &times, now_ms);
            *latest = latest.zip(left_ms).map(|(latest, left)| latest.max(left));
        }
    }
    // One that leaves is waited for until what it kept copies of has others.
    for member in pool_state
        .members()
        .iter()
        .filter(|member| member.is_leaving())
    {
        let latest = &mut empty[member.backend_id];
        let until_ms = missed_until_ms[member.backend_id].unwrap_or(0);
        *latest = latest.map(|latest| latest.max(until_ms));
    }
    empty
}

/// When a slot that is to leave `place` has left it.
fn left_ms(
    pool_state: &PoolState,
    slot: &SlotState,
    backend_id: BackendId,
    times: &Times,
    now_ms: u64,
) -> Option<u64> {
    let handover_ms = handover_ms(times);
    let mut failing = pool_state.failing_moves();
    let way = (slot.second, slot.first);
    if failing.any(|moves| (Some(moves.from), moves.to) == way) {
        return None;
    }
    let end_ms = match slot.stage {
        Stage::Steady => now_ms,
        stage => slot.since_ms + lasts_ms(stage, times) + around(stage, times).1?,
    };
    let is_left_by_then = slot.stage.is_handover() && slot.first != backend_id;
    Some(if is_left_by_then {
        end_ms
    } else {
        end_ms + handover_ms
    })
}

fn lines(
    slots: &[SlotState],
    targets: impl Iterator<Item = BackendId>,
    times: &Times,
    name: impl Fn(BackendId) -> String,
) -> Vec<(HandoverProgress, (BackendId, BackendId))> {
    let mut groups: BTreeMap<(Stage, BackendId, BackendId), Group> = BTreeMap::new();
    for (slot, target) in slots.iter().zip(targets) {
        let Some(second) = slot.second else {
            continue;
        };
        let since_ms = slot.since_ms;
        let goes_on = slot.stage.is_handover() && slot.first != target;
        let group = groups
            .entry((slot.stage, slot.first, second))
            .or_insert(Group {
                slots: 0,
                since_ms: (since_ms, since_ms),
                goes_on: false,
            });
        group.slots += 1;
        group.goes_on |= goes_on;
        let (first_ms, last_ms) = group.since_ms;
        group.since_ms = (first_ms.min(since_ms), last_ms.max(since_ms));
    }
    let line = |((stage, first, second), group): ((Stage, BackendId, BackendId), Group)| {
        let lasts_ms = lasts_ms(stage, times);
        let (before_ms, behind_ms) = around(stage, times);
        let (first_ms, last_ms) = group.since_ms;
        let next_ms = if group.goes_on { handover_ms(times) } else { 0 };
        let line = HandoverProgress {
            stage,
            label: stage.label().to_owned(),
            means: means(stage, &name(first), &name(second)),
            first: name(first),
            second: name(second),
            slots: group.slots,
            began_ms: first_ms.saturating_sub(before_ms),
            stage_ends_ms: first_ms + lasts_ms,
            ends_ms: behind_ms.map(|behind_ms| last_ms + lasts_ms + behind_ms + next_ms),
            failing: None,
        };
        (line, (first, second))
    };
    groups.into_iter().map(line).collect()
}

/// What a stage means for the sessions of its slots.
pub(crate) fn means(stage: Stage, first: &str, second: &str) -> String {
    match stage {
        Stage::Steady => format!("{first} serves its sessions"),
        Stage::Settle => {
            format!("{second} serves its sessions until every proxy knows that they move")
        }
        Stage::Move1 => {
            format!("sessions move to {first} when they are used, new ones begin at {second}")
        }
        Stage::Move2 => {
            format!("sessions move to {first} when they are used, new ones begin there")
        }
        Stage::Turned => format!(
            "{first} and {second} serve the sessions that they have, new ones begin at {first}; then all move to {second}"
        ),
        Stage::Suspect => {
            format!(
                "{second} is down or off: requests are refused until it is back or {first} stands in"
            )
        }
        Stage::Away => format!("{first} stands in for {second}, whose users start new sessions"),
        Stage::Back => format!(
            "{second} answers again: sessions that only it has are refused until every proxy knows"
        ),
        Stage::Wait => {
            format!(
                "{second} and {first} serve the sessions that they have, new ones begin at {first}"
            )
        }
    }
}

/// How long a whole handover takes.
fn handover_ms(times: &Times) -> u64 {
    3 * times.settle_ms + times.lifetime_ms
}

/// How long a stage lasts if nothing holds it up.
fn lasts_ms(stage: Stage, times: &Times) -> u64 {
    match stage {
        Stage::Settle | Stage::Back => times.settle_ms,
        Stage::Move1 => 2 * times.settle_ms,
        Stage::Suspect => times.failover_after_ms,
        Stage::Move2 => times.move_ms,
        Stage::Turned | Stage::Away | Stage::Wait => times.lifetime_ms,
        Stage::Steady => 0,
    }
}

/// How long the stages of a handover before this one take, and those after it; `None` when nobody
/// can say.
fn around(stage: Stage, times: &Times) -> (u64, Option<u64>) {
    let settle_ms = times.settle_ms;
    match stage {
        Stage::Settle => (0, Some(2 * settle_ms + times.move_ms)),
        Stage::Move1 => (settle_ms, Some(times.move_ms)),
        Stage::Move2 => (3 * settle_ms, Some(0)),
        Stage::Turned | Stage::Wait => (0, Some(0)),
        Stage::Steady | Stage::Suspect | Stage::Away | Stage::Back => (0, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        settle_ms: 30,
        move_ms: 1000,
        lifetime_ms: 1000,
        failover_after_ms: 15,
        overlap_ms: 10,
        silence_ms: 10,
        failover: true,
    };

    fn backend_id(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    fn slot(stage: Stage, first: u8, second: u8, since_ms: u64) -> SlotState {
        SlotState {
            stage,
            second: Some(backend_id(second)),
            ..SlotState::steady(backend_id(first), since_ms)
        }
    }

    #[test]
    fn every_stage_of_a_handover_knows_its_beginning_and_its_end() {
        for (stage, since_ms) in [
            (Stage::Settle, 10_000),
            (Stage::Move1, 10_030),
            (Stage::Move2, 10_090),
        ] {
            let slots = [slot(stage, 1, 2, since_ms)];
            let targets = || slots.iter().map(|slot| slot.first);
            let name = |_| "x".to_owned();
            let line = &lines(&slots, targets(), &TIMES, name)[0].0;
            assert_eq!((line.began_ms, line.ends_ms), (10_000, Some(11_090)));
            assert!((since_ms + 30..=11_090).contains(&line.stage_ends_ms));
        }
    }

    #[test]
    fn slots_that_do_the_same_are_one_line() {
        let slots = [
            SlotState::steady(backend_id(1), 1),
            slot(Stage::Move2, 1, 2, 500),
            slot(Stage::Move2, 2, 1, 300),
            slot(Stage::Move2, 1, 2, 700),
            slot(Stage::Away, 1, 2, 300),
        ];
        let names = ["", "a", "b"];
        let targets = slots.iter().map(|slot| slot.first);
        let name = |backend_id: BackendId| names[usize::from(backend_id.id())].to_owned();
        let lines = lines(&slots, targets, &TIMES, name);
        let lines: Vec<_> = lines.into_iter().map(|(line, _)| line).collect();
        let shown =
            |line: &HandoverProgress| (line.first.clone() + &line.second, line.slots, line.ends_ms);
        let shown: Vec<_> = lines.iter().map(shown).collect();
        let expected = [
            ("ab", 2, Some(1700)),
            ("ba", 1, Some(1300)),
            ("ab", 1, None),
        ];
        assert_eq!(
            shown,
            expected.map(|(ends, slots, ms)| (ends.to_owned(), slots, ms))
        );
        assert_eq!(lines[0].began_ms, 410);
    }

    /// The end that is told is the last one: nobody is told of an end that is put off then.
    #[test]
    fn slots_that_go_on_from_where_they_are_going_end_with_the_next_handover() {
        let slots = [slot(Stage::Move2, 1, 2, 500), slot(Stage::Move2, 1, 2, 500)];
        let ends = |targets: [u8; 2]| {
            let targets = targets.into_iter().map(backend_id);
            lines(&slots, targets, &TIMES, |_| String::new())[0]
                .0
                .ends_ms
        };
        assert_eq!(ends([1, 1]), Some(1500));
        assert_eq!(ends([1, 3]), Some(1500 + 1090));
    }
}
