//! Handovers as a whole, for the log: each is many slots, which need not end together.

use std::collections::BTreeMap;

use super::notice::has_arrived;
use super::wording::{lasting, share};
use super::{Notice, PoolMember, member_in, name_in};
use crate::config::LogLevel;
use crate::handover::{BackendId, SlotState};

/// The handovers under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Handovers(BTreeMap<Way, Handover>);

/// From where to where.
type Way = (BackendId, BackendId);

#[derive(Debug, Clone, Copy)]
struct Handover {
    /// `None` when that was before this proxy started.
    begun_ms: Option<u64>,
    /// Sessions that this proxy had moved this way before.
    moved_before: u64,
    /// Slots that have arrived.
    ended: usize,
}

impl Handovers {
    /// Takes note of a slot that goes from `before` to `after`.
    pub(super) fn changed(
        &mut self,
        before: &SlotState,
        after: &SlotState,
        members: &[PoolMember],
        now_ms: u64,
    ) {
        match (way(before), way(after)) {
            (before, Some(after)) if before != Some(after) => {
                let moved_before = || moved(after, members);
                self.0.entry(after).or_insert_with(|| Handover {
                    begun_ms: Some(now_ms),
                    moved_before: moved_before(),
                    ended: 0,
                });
            }
            (Some(way), None) if has_arrived(before, after) => {
                let from_before_the_start = Handover {
                    begun_ms: None,
                    moved_before: 0,
                    ended: 0,
                };
                self.0.entry(way).or_insert(from_before_the_start).ended += 1;
            }
            _ => {}
        }
    }

    /// Forgets those of which nothing is under way any more, and tells of those that have brought
    /// slots to where they were to go.
    pub(super) fn ended(
        &mut self,
        slots: &[SlotState],
        members: &[PoolMember],
        now_ms: u64,
    ) -> Vec<Notice> {
        let mut over = std::mem::take(&mut self.0);
        for way in slots.iter().filter_map(way) {
            if over.is_empty() {
                break;
            }
            if let Some(handover) = over.remove(&way) {
                self.0.insert(way, handover);
            }
        }
        over.retain(|_, handover| handover.ended > 0);
        let notice = |(way, handover)| notice(way, handover, members, now_ms);
        over.into_iter().map(notice).collect()
    }
}

/// The handover that a slot is in, also while it cannot go on.
pub(super) fn way(slot: &SlotState) -> Option<Way> {
    let (stage, to, from) = match slot.before {
        Some(before) => (before.stage, before.first, before.second),
        None => (slot.stage, slot.first, slot.second),
    };
    from.filter(|_| stage.is_handover()).map(|from| (from, to))
}

/// Sessions that this proxy has moved this way since its start.
fn moved((from, to): Way, members: &[PoolMember]) -> u64 {
    let member = |backend_id| member_in(members, backend_id);
    let moved = |(from, to): (&PoolMember, &PoolMember)| {
        to.metrics.moved_from(&from.metrics, from.backend_id)
    };
    member(from).zip(member(to)).map_or(0, moved)
}

fn notice(way: Way, handover: Handover, members: &[PoolMember], now_ms: u64) -> Notice {
    let name = |backend_id| name_in(members, backend_id);
    let (from, to) = (name(way.0), name(way.1));
    let share = share(handover.ended);
    let took = handover.begun_ms.map_or_else(String::new, |begun_ms| {
        format!(" after {}", lasting(now_ms.saturating_sub(begun_ms)))
    });
    let moved = moved(way, members).saturating_sub(handover.moved_before);
    Notice {
        level: LogLevel::Info,
        text: format!(
            "handover of {share} from {from} to {to} has ended{took}; \
             this proxy has moved {moved} sessions"
        ),
    }
}
