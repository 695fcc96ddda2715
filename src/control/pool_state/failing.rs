//! Moves that fail: which backend does not take the sessions of which, since when, and why.

use std::collections::{BTreeMap, BTreeSet};

use super::handovers::way;
use super::{Notice, PoolMember, PoolState, name_in};
use crate::config::LogLevel;
use crate::handover::{BackendId, SlotState};

/// Sessions that stay where they are although they are to move. They are served there, and their
/// handover does not end before they have moved or died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailingMoves {
    /// Where they are.
    pub from: BackendId,
    /// Where they are to go.
    pub to: BackendId,
    /// The status with which the last move was refused; `None` if it had no answer that says.
    pub status: Option<u16>,
    /// When the first move failed, Unix time in milliseconds.
    pub since_ms: u64,
    /// When the last one was seen to have failed, Unix time in milliseconds.
    pub last_ms: u64,
    /// Moves that have failed at this proxy since its start.
    pub moves: u64,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Failing {
    known: BTreeMap<Way, FailingMoves>,
    /// Of what the workers have counted, so much is known.
    counted: BTreeMap<Way, u64>,
    told: BTreeSet<Way>,
}

/// From where to where.
type Way = (BackendId, BackendId);

impl Failing {
    /// Those that were written down. When the last one failed is not known exactly: as late as can
    /// be.
    pub(super) fn resume(known: &[FailingMoves], now_ms: u64) -> Self {
        let one = |moves: &FailingMoves| {
            let moves = FailingMoves {
                since_ms: moves.since_ms.min(now_ms),
                last_ms: now_ms,
                moves: 0,
                ..*moves
            };
            ((moves.from, moves.to), moves)
        };
        Self {
            known: known.iter().map(one).collect(),
            ..Self::default()
        }
    }

    /// When a session last could not be moved as this slot wants it.
    pub(super) fn last_ms(&self, slot: &SlotState) -> Option<u64> {
        let moves = self.known.get(&(slot.second?, slot.first))?;
        Some(moves.last_ms)
    }

    /// Forgets those of handovers that are over, and says once of each other one that it fails.
    pub(super) fn notices(&mut self, slots: &[SlotState], members: &[PoolMember]) -> Vec<Notice> {
        let ways = ways(slots);
        self.known.retain(|way, _| ways.contains(way));
        self.told.retain(|way| ways.contains(way));
        let mut notices = Vec::new();
        for (way, moves) in &self.known {
            if self.told.insert(*way) {
                notices.push(notice(moves, members));
            }
        }
        notices
    }

    fn count(&mut self, way: Way, counted: u64, status: Option<u16>, now_ms: u64) {
        let before = self.counted.insert(way, counted).unwrap_or(0);
        // Another backend may be at that place since.
        let more = counted.checked_sub(before).unwrap_or(counted);
        if more == 0 {
            return;
        }
        let moves = self.known.entry(way).or_insert(FailingMoves {
            from: way.0,
            to: way.1,
            status,
            since_ms: now_ms,
            last_ms: now_ms,
            moves: 0,
        });
        moves.status = status;
        moves.last_ms = now_ms;
        moves.moves += more;
    }
}

impl PoolState {
    /// The moves that fail, by where the sessions are and where they are to go.
    pub fn failing_moves(&self) -> impl Iterator<Item = &FailingMoves> {
        self.failing.known.values()
    }

    /// Takes note of the moves that the workers have seen fail.
    pub fn look_for_failed_moves(&mut self, now_ms: u64) {
        for (from, to) in ways(&self.slots) {
            let (Some(old), Some(new)) = (self.member(from), self.member(to)) else {
                continue;
            };
            let failed = new.metrics.failed_moves_from(&old.metrics, from);
            self.failing
                .count((from, to), failed.moves, failed.last_status, now_ms);
        }
    }
}

/// The handovers under way.
fn ways(slots: &[SlotState]) -> BTreeSet<Way> {
    let mut last = None;
    let others = slots.iter().filter_map(way).filter(|way| {
        let is_other = last != Some(*way);
        last = Some(*way);
        is_other
    });
    others.collect()
}

/// Why moves fail, for people.
pub(in crate::control) fn reason(status: Option<u16>, to: &str) -> String {
    match status {
        Some(404) => format!("{to} does not have what it has stored, or answers 404 to it"),
        Some(status) => format!("{to} answers {status} to what is to be stored there"),
        None => format!("{to} does not say whether it has stored them"),
    }
}

fn notice(moves: &FailingMoves, members: &[PoolMember]) -> Notice {
    let name = |backend_id| name_in(members, backend_id);
    let (from, to) = (name(moves.from), name(moves.to));
    let reason = reason(moves.status, to);
    Notice {
        level: LogLevel::Warn,
        text: format!(
            "sessions cannot be moved from {from} to {to}: {reason}; they stay at {from}, and the \
             handover does not end before they have moved or expired"
        ),
    }
}
