//! The states of all slots, written down: slots in the same state stand together.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::handover::{
    BackendId, BackendMap, Before, Outdated, Replica, ReplicaPhase, SlotState, Stage,
};
use crate::route::SLOT_COUNT;

/// Slots in one state. Times are Unix time in milliseconds. Fields that a later version may add are
/// skipped: who reads decides what that means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotGroup {
    first: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<u8>,
    #[serde(with = "StageName")]
    stage: Stage,
    since_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<BeforeGroup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outdated: Option<OutdatedGroup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replica: Option<ReplicaGroup>,
    /// Ascending, as in `0-3,7`.
    slots: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BeforeGroup {
    first: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<u8>,
    #[serde(with = "StageName")]
    stage: Stage,
    since_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OutdatedGroup {
    places: Vec<u8>,
    since_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ReplicaGroup {
    place: u8,
    #[serde(with = "PhaseName")]
    phase: ReplicaPhase,
    since_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ReplicaPhase", rename_all = "lowercase")]
enum PhaseName {
    Chosen,
    Joining,
    Filling,
    Full,
    Dropping,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Stage", rename_all = "lowercase")]
pub(crate) enum StageName {
    Steady,
    Settle,
    Move1,
    Move2,
    Turned,
    Suspect,
    Away,
    Back,
    Wait,
}

/// Why groups are not the states of all slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The writer gave a place that no backend can have.
    #[error("{0} is not the id of a backend")]
    BadPlace(u8),
    /// The writer gave a stage with places or a past it cannot have.
    #[error("a group of slots at place {first} has places or a past that do not fit its stage")]
    BadStage {
        /// Its first place.
        first: u8,
    },
    /// The writer gave something that is no list of slots.
    #[error("{0:?} is not a list of slots")]
    BadSlots(String),
    /// The writer gave a slot twice.
    #[error("slot {0} is in two groups")]
    Twice(usize),
    /// The writer left a slot out.
    #[error("slot {0} is in no group")]
    Missing(usize),
}

/// Writes the states of all slots down.
#[must_use]
pub fn group(slots: &[SlotState]) -> Vec<SlotGroup> {
    let mut groups: Vec<(SlotState, Vec<usize>)> = Vec::new();
    let mut known: HashMap<SlotState, usize> = HashMap::new();
    // The next slot at a place is nearly always like the last one there, which saves hashing it.
    let mut latest = BackendMap::filled(usize::MAX);
    for (index, slot) in slots.iter().enumerate() {
        let latest = &mut latest[slot.first];
        if groups.get(*latest).is_none_or(|(alike, _)| alike != slot) {
            *latest = *known.entry(*slot).or_insert_with(|| {
                groups.push((*slot, Vec::new()));
                groups.len() - 1
            });
        }
        groups[*latest].1.push(index);
    }
    let write = |(slot, indices): (SlotState, Vec<usize>)| SlotGroup::new(&slot, &indices);
    groups.into_iter().map(write).collect()
}

/// Reads the states of all slots.
///
/// # Errors
/// [`GroupError`] unless every slot is there exactly once, in a state that exists.
pub fn ungroup(groups: &[SlotGroup]) -> Result<Vec<SlotState>, GroupError> {
    let mut slots: Vec<Option<SlotState>> = vec![None; SLOT_COUNT];
    for group in groups {
        let state = group.state()?;
        for index in group.indices()? {
            if slots[index].replace(state).is_some() {
                return Err(GroupError::Twice(index));
            }
        }
    }
    let found = |(index, slot): (usize, Option<SlotState>)| slot.ok_or(GroupError::Missing(index));
    slots.into_iter().enumerate().map(found).collect()
}

impl SlotGroup {
    fn new(slot: &SlotState, indices: &[usize]) -> Self {
        Self {
            first: slot.first.id(),
            second: slot.second.map(BackendId::id),
            stage: slot.stage,
            since_ms: slot.since_ms,
            before: slot.before.map(|before| BeforeGroup {
                first: before.first.id(),
                second: before.second.map(BackendId::id),
                stage: before.stage,
                since_ms: before.since_ms,
            }),
            outdated: (!slot.outdated.is_empty()).then(|| OutdatedGroup {
                places: slot.outdated.places().map(BackendId::id).collect(),
                since_ms: slot.outdated.since_ms(),
            }),
            replica: slot.replica.map(|replica| ReplicaGroup {
                place: replica.backend_id.id(),
                phase: replica.phase,
                since_ms: replica.since_ms,
            }),
            slots: write_ranges(indices),
        }
    }

    fn state(&self) -> Result<SlotState, GroupError> {
        let slot = SlotState {
            first: backend_id(self.first)?,
            second: self.second.map(backend_id).transpose()?,
            stage: self.stage,
            since_ms: self.since_ms,
            before: self.before.as_ref().map(BeforeGroup::state).transpose()?,
            outdated: self.outdated()?,
            replica: self.replica.as_ref().map(ReplicaGroup::state).transpose()?,
        };
        if fits(&slot) {
            Ok(slot)
        } else {
            Err(GroupError::BadStage { first: self.first })
        }
    }

    fn outdated(&self) -> Result<Outdated, GroupError> {
        let Some(OutdatedGroup { places, since_ms }) = &self.outdated else {
            return Ok(Outdated::NONE);
        };
        let places = places.iter().copied().map(backend_id);
        let places = places.collect::<Result<Vec<_>, _>>()?;
        Ok(Outdated::NONE.with(places, *since_ms))
    }

    fn indices(&self) -> Result<Vec<usize>, GroupError> {
        read_ranges(&self.slots).ok_or_else(|| {
            // It may be as long as the file.
            let start = self.slots.chars().take(40).collect();
            GroupError::BadSlots(start)
        })
    }
}

impl ReplicaGroup {
    fn state(&self) -> Result<Replica, GroupError> {
        Ok(Replica {
            backend_id: backend_id(self.place)?,
            phase: self.phase,
            since_ms: self.since_ms,
        })
    }
}

impl BeforeGroup {
    fn state(&self) -> Result<Before, GroupError> {
        Ok(Before {
            first: backend_id(self.first)?,
            second: self.second.map(backend_id).transpose()?,
            stage: self.stage,
            since_ms: self.since_ms,
        })
    }
}

fn backend_id(id: u8) -> Result<BackendId, GroupError> {
    BackendId::new(id).ok_or(GroupError::BadPlace(id))
}

/// Whether a slot can be like this: at two places unless it is steady, and suspect because one of
/// those that it had before has failed.
fn fits(slot: &SlotState) -> bool {
    let places_fit = |stage, first, second: Option<BackendId>| {
        second.is_none() == (stage == Stage::Steady) && second != Some(first)
    };
    let past_fits = match slot.before {
        Some(before) => {
            let failed = [Some(before.first), before.second];
            slot.stage == Stage::Suspect
                && before.stage != Stage::Suspect
                && places_fit(before.stage, before.first, before.second)
                && failed.contains(&slot.second)
        }
        None => slot.stage != Stage::Suspect,
    };
    // A replica is none of the places it stands for, and there is none while a server is away.
    let replica_fits = slot.replica.is_none_or(|replica| {
        let is_elsewhere = slot.places().all(|place| place != replica.backend_id);
        let stands_in = slot.stage == Stage::Suspect && slot.first == replica.backend_id;
        let has_stage = !matches!(slot.stage, Stage::Away | Stage::Back | Stage::Wait);
        has_stage && (is_elsewhere || stands_in)
    });
    past_fits && replica_fits && places_fit(slot.stage, slot.first, slot.second)
}

fn write_ranges(indices: &[usize]) -> String {
    let ranges = indices.chunk_by(|one, next| one + 1 == *next);
    let texts = ranges.map(|range| match range {
        [first, .., last] => format!("{first}-{last}"),
        _ => range.iter().map(usize::to_string).collect(),
    });
    texts.collect::<Vec<_>>().join(",")
}

/// The slots of a list; `None` unless it is ascending and all of them exist.
fn read_ranges(text: &str) -> Option<Vec<usize>> {
    let mut indices: Vec<usize> = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let is_next = indices.last().is_none_or(|before| *before < first);
        if !is_next || first > last || last >= SLOT_COUNT {
            return None;
        }
        indices.extend(first..=last);
    }
    Some(indices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_ascending_and_short() {
        assert_eq!(write_ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3,7,9-10");
        assert_eq!(read_ranges("0-3,7,9-10"), Some(vec![0, 1, 2, 3, 7, 9, 10]));
        for text in [
            "",
            "1,",
            "2,1",
            "1-3,3",
            "3-1",
            "16384",
            "0-99999999999",
            "+",
            "a",
            "-1",
        ] {
            assert_eq!(read_ranges(text), None, "{text}");
        }
    }

    fn read(fields: &str, slots: &str) -> Result<Vec<SlotState>, GroupError> {
        let text = format!(r#"[{{{fields}, "since_ms": 0, "slots": "{slots}"}}]"#);
        ungroup(&serde_json::from_str::<Vec<SlotGroup>>(&text).unwrap())
    }

    #[test]
    fn what_no_slot_can_be_is_refused() {
        let all = "0-16383";
        let before = |stage: &str, places: &str| {
            format!(
                r#""first": 1, "second": 2, "stage": "suspect", "before": {{{places}, "stage": "{stage}", "since_ms": 0}}"#
            )
        };
        for good in [
            r#""first": 1, "stage": "steady", "outdated": {"places": [2, 127], "since_ms": 0}"#,
            r#""first": 1, "stage": "steady", "replica": {"place": 2, "phase": "full", "since_ms": 0}"#,
            &before("steady", r#""first": 2"#),
            &before("wait", r#""first": 2, "second": 3"#),
        ] {
            assert!(read(good, all).is_ok(), "{good}");
        }
        for bad in [
            r#""first": 0, "stage": "steady""#,
            r#""first": 128, "stage": "steady""#,
            r#""first": 1, "second": 2, "stage": "steady""#,
            r#""first": 1, "stage": "settle""#,
            r#""first": 1, "second": 1, "stage": "settle""#,
            r#""first": 1, "second": 2, "stage": "suspect""#,
            r#""first": 1, "stage": "steady", "outdated": {"places": [128], "since_ms": 0}"#,
            r#""first": 1, "stage": "steady", "replica": {"place": 1, "phase": "full", "since_ms": 0}"#,
            r#""first": 1, "stage": "steady", "replica": {"place": 128, "phase": "full", "since_ms": 0}"#,
            r#""first": 1, "second": 2, "stage": "away", "replica": {"place": 3, "phase": "full", "since_ms": 0}"#,
            &before("steady", r#""first": 2"#).replace("suspect", "settle"),
            &before("suspect", r#""first": 1, "second": 2"#),
            &before("steady", r#""first": 1, "second": 2"#),
            &before("wait", r#""first": 1, "second": 3"#),
        ] {
            assert!(read(bad, all).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_slot_is_there_once() {
        let steady = r#""first": 1, "stage": "steady""#;
        let missing = read(steady, "0-8,10-16383");
        assert_eq!(missing, Err(GroupError::Missing(9)));
        let twice = r#""first": 1, "stage": "steady", "since_ms": 0, "slots": "0-9"}, {"first": 1, "stage": "steady""#;
        assert_eq!(read(twice, "9-16383"), Err(GroupError::Twice(9)));
    }

    proptest! {
        // Each case is all slots.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn slots_are_read_as_they_were_written(
            kinds in prop::collection::vec((1..=127_u8, 1..=127_u8, 0..8_usize, any::<u64>()), 1..50),
            order in prop::collection::vec(any::<prop::sample::Index>(), SLOT_COUNT),
        ) {
            let states: Vec<SlotState> = kinds.iter().map(any_state).collect();
            let slots: Vec<SlotState> = order.iter().map(|index| *index.get(&states)).collect();
            let text = serde_json::to_string(&group(&slots)).unwrap();
            let groups: Vec<SlotGroup> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(ungroup(&groups), Ok(slots));
        }
    }

    fn any_state(&(first, second, stage, since_ms): &(u8, u8, usize, u64)) -> SlotState {
        const STAGES: [Stage; 9] = [
            Stage::Steady,
            Stage::Settle,
            Stage::Move1,
            Stage::Move2,
            Stage::Turned,
            Stage::Suspect,
            Stage::Away,
            Stage::Back,
            Stage::Wait,
        ];
        let stage = STAGES[stage];
        let second = if second == first {
            first % 127 + 1
        } else {
            second
        };
        SlotState {
            first: BackendId::new(first).unwrap(),
            second: (stage != Stage::Steady).then(|| BackendId::new(second).unwrap()),
            stage,
            since_ms,
            before: (stage == Stage::Suspect).then(|| Before {
                first: BackendId::new(first).unwrap(),
                second: BackendId::new(second),
                stage: Stage::Move1,
                since_ms: since_ms / 2,
            }),
            outdated: Outdated::NONE.with(
                BackendId::new(second).filter(|_| since_ms % 2 == 0),
                since_ms / 3,
            ),
            replica: (stage < Stage::Suspect && since_ms % 3 == 0)
                .then(|| BackendId::new(if first.max(second) == 127 { 1 } else { 127 }))
                .flatten()
                .filter(|backend_id| ![first, second].contains(&backend_id.id()))
                .map(|backend_id| Replica {
                    backend_id,
                    phase: ReplicaPhase::ALL[(since_ms / 7 % 5) as usize],
                    since_ms: since_ms / 5,
                }),
        }
    }
}
