//! What is going on in the slots, in few lines.

use std::collections::BTreeMap;

use super::status::UnderWay;
use crate::handover::schedule::Times;
use crate::handover::{Place, SlotState, Stage};

/// Slots with the same places in the same stage.
#[derive(Debug, Clone, Copy)]
struct Group {
    slots: usize,
    /// When the first and the last of them got into the stage.
    since_ms: (u64, u64),
}

/// Everything that is not steady, by stage and places. `name` gives the name of a backend.
pub(super) fn under_way<'m>(
    slots: &[SlotState],
    times: &Times,
    name: impl Fn(Place) -> &'m str,
) -> Vec<UnderWay> {
    let mut groups: BTreeMap<(Stage, Place, Place), Group> = BTreeMap::new();
    for slot in slots {
        let Some(second) = slot.second else {
            continue;
        };
        let since_ms = slot.since_ms;
        let group = groups
            .entry((slot.stage, slot.first, second))
            .or_insert(Group {
                slots: 0,
                since_ms: (since_ms, since_ms),
            });
        group.slots += 1;
        let (first_ms, last_ms) = group.since_ms;
        group.since_ms = (first_ms.min(since_ms), last_ms.max(since_ms));
    }
    let line = |((stage, first, second), group): ((Stage, Place, Place), Group)| {
        let lasts_ms = lasts_ms(stage, times);
        let (before_ms, behind_ms) = around(stage, times);
        let (first_ms, last_ms) = group.since_ms;
        UnderWay {
            stage,
            label: stage.label().to_owned(),
            means: means(stage, name(first), name(second)),
            first: name(first).to_owned(),
            second: name(second).to_owned(),
            slots: group.slots,
            began_ms: first_ms.saturating_sub(before_ms),
            stage_ends_ms: first_ms + lasts_ms,
            ends_ms: behind_ms.map(|behind_ms| last_ms + lasts_ms + behind_ms),
        }
    };
    groups.into_iter().map(line).collect()
}

/// What a stage means for the sessions of its slots.
pub(super) fn means(stage: Stage, first: &str, second: &str) -> String {
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
        Stage::Suspect => {
            format!("{second} is down: requests are refused until it answers or {first} stands in")
        }
        Stage::Away => format!("{first} stands in for {second}, whose users start new sessions"),
        Stage::Back => format!(
            "{second} answers again: sessions that only it has are refused until every proxy knows"
        ),
        Stage::Wait => {
            format!("{second} and {first}, which stood in, serve the sessions that they have")
        }
    }
}

/// How long a stage lasts if nothing holds it up.
fn lasts_ms(stage: Stage, times: &Times) -> u64 {
    match stage {
        Stage::Settle | Stage::Back => times.settle_ms,
        Stage::Move1 => 2 * times.settle_ms,
        Stage::Suspect => times.failover_after_ms.max(times.overlap_ms),
        Stage::Move2 | Stage::Away | Stage::Wait => times.lifetime_ms,
        Stage::Steady => 0,
    }
}

/// How long the stages of a handover before this one take, and those after it; `None` when nobody
/// can say.
fn around(stage: Stage, times: &Times) -> (u64, Option<u64>) {
    let settle_ms = times.settle_ms;
    match stage {
        Stage::Settle => (0, Some(2 * settle_ms + times.lifetime_ms)),
        Stage::Move1 => (settle_ms, Some(times.lifetime_ms)),
        Stage::Move2 => (3 * settle_ms, Some(0)),
        Stage::Wait => (0, Some(0)),
        Stage::Steady | Stage::Suspect | Stage::Away | Stage::Back => (0, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        settle_ms: 30,
        lifetime_ms: 1000,
        failover_after_ms: 15,
        overlap_ms: 10,
        failover: true,
    };

    fn place(id: u8) -> Place {
        Place::new(id).unwrap()
    }

    fn slot(stage: Stage, first: u8, second: u8, since_ms: u64) -> SlotState {
        SlotState {
            stage,
            second: Some(place(second)),
            ..SlotState::steady(place(first), since_ms)
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
            let line = &under_way(&slots, &TIMES, |_| "x")[0];
            assert_eq!((line.began_ms, line.ends_ms), (10_000, Some(11_090)));
            assert!((since_ms + 30..=11_090).contains(&line.stage_ends_ms));
        }
    }

    #[test]
    fn slots_that_do_the_same_are_one_line() {
        let slots = [
            SlotState::steady(place(1), 1),
            slot(Stage::Move2, 1, 2, 500),
            slot(Stage::Move2, 2, 1, 300),
            slot(Stage::Move2, 1, 2, 700),
            slot(Stage::Away, 1, 2, 300),
        ];
        let names = ["", "a", "b"];
        let lines = under_way(&slots, &TIMES, |place| names[usize::from(place.id())]);
        let shown = |line: &UnderWay| (line.first.clone() + &line.second, line.slots, line.ends_ms);
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
}
