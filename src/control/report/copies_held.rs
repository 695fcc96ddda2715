//! What each backend holds for others: the copies of their sessions.

use super::replication::CopiesStatus;
use crate::handover::{BackendId, BackendMap, ReplicaPhase, SlotState};

/// More than the highest id.
const IDS: usize = 128;

/// What lives in the slots of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Served {
    /// Sessions.
    pub(crate) sessions: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// The copies that each backend keeps. `served` says what a backend serves, `None` while nobody
/// counts; a session is taken to be as likely in any of its slots.
pub(crate) fn copies_held(
    slots: &[SlotState],
    served: impl Fn(BackendId) -> Option<Served>,
    lifetime_ms: u64,
    now_ms: u64,
) -> BackendMap<CopiesStatus> {
    let mut held = BackendMap::filled(CopiesStatus::default());
    let mut first = BackendMap::filled(0_u32);
    let mut kept = BackendMap::filled((0_u32, 0.0));
    // By the place of the sessions and the one of their copies.
    let mut parts = vec![0.0; IDS * IDS];
    for slot in slots {
        first[slot.first] += 1;
        let Some(replica) = slot.replica else {
            continue;
        };
        let part = match replica.phase {
            ReplicaPhase::Full => 1.0,
            ReplicaPhase::Filling => {
                let full_ms = replica.since_ms + lifetime_ms;
                let known = &mut held[replica.backend_id].full_ms;
                *known = (*known).max(Some(full_ms));
                let lasted_ms = now_ms.saturating_sub(replica.since_ms) as f64;
                (lasted_ms / lifetime_ms.max(1) as f64).min(1.0)
            }
            ReplicaPhase::Chosen | ReplicaPhase::Joining | ReplicaPhase::Dropping => 0.0,
        };
        let (slots, filled) = &mut kept[replica.backend_id];
        *slots += 1;
        *filled += part;
        let place = usize::from(slot.first.id()) * IDS + usize::from(replica.backend_id.id());
        parts[place] += part;
    }
    for id in 0..IDS {
        let Some(at) = BackendId::new(id as u8) else {
            continue;
        };
        let (slots, filled) = kept[at];
        if slots > 0 {
            held[at].filled_percent = Some(filled * 100.0 / f64::from(slots));
        }
        let mut copies = None;
        for from in 0..IDS {
            let place = BackendId::new(from as u8);
            let Some((place, served)) = place.and_then(|place| Some((place, served(place)?)))
            else {
                continue;
            };
            let share = parts[from * IDS + id] / f64::from(first[place].max(1));
            let (sessions, bytes) = copies.unwrap_or((0.0, 0.0));
            copies = Some((
                sessions + served.sessions as f64 * share,
                bytes + served.bytes as f64 * share,
            ));
        }
        held[at].sessions = copies.map(|(sessions, _)| sessions.round() as u64);
        held[at].bytes = copies.map(|(_, bytes)| bytes.round() as u64);
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::Replica;

    fn id(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    fn slot(first: u8, replica: Option<(u8, ReplicaPhase)>) -> SlotState {
        let replica = replica.map(|(at, phase)| Replica {
            backend_id: id(at),
            phase,
            since_ms: 1_000,
        });
        SlotState {
            replica,
            ..SlotState::steady(id(first), 0)
        }
    }

    #[test]
    fn a_backend_keeps_what_its_slots_are_full_of_and_a_part_of_what_is_filling() {
        let slots = [
            slot(1, Some((3, ReplicaPhase::Full))),
            slot(1, Some((3, ReplicaPhase::Filling))),
            slot(1, Some((2, ReplicaPhase::Joining))),
            slot(1, None),
            slot(2, Some((3, ReplicaPhase::Full))),
        ];
        let served = |at: BackendId| {
            let sessions = [0, 400, 10, 0].get(usize::from(at.id())).copied();
            sessions.map(|sessions| Served {
                sessions,
                bytes: 1_000 * sessions,
            })
        };
        let held = copies_held(&slots, served, 100, 1_050);
        // A quarter of 400 and half a quarter, and all of 10.
        let third = CopiesStatus {
            sessions: Some(160),
            bytes: Some(160_000),
            filled_percent: Some(2.5 * 100.0 / 3.0),
            full_ms: Some(1_100),
        };
        assert_eq!(held[id(3)], third);
        assert_eq!(held[id(2)].filled_percent, Some(0.0));
        assert_eq!(
            (held[id(2)].sessions, held[id(1)].sessions),
            (Some(0), Some(0))
        );
        assert_eq!(held[id(1)].filled_percent, None);
        let uncounted = copies_held(&slots, |_| None, 100, 1_050);
        assert_eq!(uncounted[id(3)].sessions, None);
        assert_eq!(uncounted[id(3)].full_ms, Some(1_100));
        let without = copies_held(&[slot(1, None)], served, 100, 1_050)[id(1)];
        assert_eq!((without.sessions, without.filled_percent), (Some(0), None));
    }
}
