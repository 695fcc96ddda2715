//! The last failure after which sessions went on with their copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::PoolState;
use crate::handover::{BackendId, Stage};

/// What goes on elsewhere this much later has gone on because of another failure.
const ONE_FAILURE_MS: u64 = 60_000;

/// Sessions that went on with their copies because a backend had failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// The backend that failed.
    pub backend: String,
    /// The backends that had the copies.
    pub to: Vec<String>,
    /// When the last of them went on, Unix time in milliseconds.
    pub at_ms: u64,
    /// In how many slots.
    pub slots: usize,
    /// About how many sessions; `None` if nobody counts them.
    pub sessions: Option<u64>,
}

impl PoolState {
    /// The last one since the start.
    pub fn last_failover(&self) -> Option<&Failover> {
        self.last_failover.as_deref()
    }

    /// Takes note of slots that have gone on, by the backend that failed and the one that had the
    /// copies.
    pub(super) fn note_failovers(
        &mut self,
        recovered: &BTreeMap<(BackendId, BackendId), usize>,
        now_ms: u64,
    ) {
        for ((failed, replica), slots) in recovered {
            let (backend, to) = (self.name_of(*failed), self.name_of(*replica));
            let sessions = self.sessions_in(*failed, *slots, recovered);
            let known = self
                .last_failover()
                .filter(|known| known.backend == backend && now_ms < known.at_ms + ONE_FAILURE_MS);
            let mut next = known.cloned().unwrap_or_else(|| Failover {
                backend: backend.to_owned(),
                to: Vec::new(),
                at_ms: now_ms,
                slots: 0,
                sessions: sessions.map(|_| 0),
            });
            next.at_ms = now_ms;
            next.slots += slots;
            next.sessions = next
                .sessions
                .zip(sessions)
                .map(|(known, more)| known + more);
            if !next.to.iter().any(|name| name == to) {
                next.to.push(to.to_owned());
            }
            self.last_failover = Some(Arc::new(next));
        }
    }

    /// About how many sessions of a backend that has failed are in so many of its slots.
    fn sessions_in(
        &self,
        failed: BackendId,
        slots: usize,
        recovered: &BTreeMap<(BackendId, BackendId), usize>,
    ) -> Option<u64> {
        let sessions = self.member(failed)?.server.sessions?;
        let gone: usize = recovered
            .iter()
            .filter(|((backend_id, _), _)| *backend_id == failed)
            .map(|(_, slots)| slots)
            .sum();
        let waits = |slot: &&crate::handover::SlotState| {
            slot.stage == Stage::Suspect && slot.second == Some(failed)
        };
        let left = self.slots.iter().filter(waits).count();
        let share = slots as f64 / (gone + left).max(1) as f64;
        Some((sessions as f64 * share).round() as u64)
    }
}
