//! How far the sessions are kept twice, and what a failure would cost now.

use serde::{Deserialize, Serialize};

use super::status::BackendStatus;
use crate::handover::{ReplicaPhase, SlotState};

/// The second copies of the pool's sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// On how many backends each session is to be kept besides its own.
    pub replicas: u8,
    /// All slots, by how far their replicas are.
    pub slots: ReplicaCounts,
    /// Sessions that would be lost if the one backend failed now whose failure would cost most;
    /// `null` while nobody counts sessions.
    pub at_risk_sessions: Option<u64>,
    /// That backend; `null` if no failure would cost a session.
    pub at_risk_backend: Option<String>,
    /// When every slot should have a full replica that has one by now, Unix time in milliseconds;
    /// `null` when none is filling.
    pub full_ms: Option<u64>,
}

/// How many slots have a replica that is how far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaCounts {
    /// No replica.
    pub none: usize,
    /// It is chosen, and not every proxy copies what it writes yet.
    pub joining: usize,
    /// Sessions are copied when they are used.
    pub filling: usize,
    /// It has all of them.
    pub full: usize,
    /// It has missed something, and is given up.
    pub dropping: usize,
}

impl ReplicaCounts {
    /// One more slot in this phase.
    pub fn count(&mut self, phase: Option<ReplicaPhase>) {
        *match phase {
            None => &mut self.none,
            Some(ReplicaPhase::Chosen | ReplicaPhase::Joining) => &mut self.joining,
            Some(ReplicaPhase::Filling) => &mut self.filling,
            Some(ReplicaPhase::Full) => &mut self.full,
            Some(ReplicaPhase::Dropping) => &mut self.dropping,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.none + self.joining + self.filling + self.full + self.dropping
    }
}

/// How far the replicas of all slots are; `None` if there are none and none are wanted.
/// `lifetime_ms` is how long one fills.
pub(crate) fn replication(
    replicas: u8,
    slots: &[SlotState],
    backends: &[BackendStatus],
    lifetime_ms: u64,
) -> Option<ReplicationStatus> {
    let mut counts = ReplicaCounts::default();
    let mut full_ms = None;
    for slot in slots {
        counts.count(slot.replica.map(|replica| replica.phase));
        let filling = slot
            .replica
            .filter(|replica| replica.phase == ReplicaPhase::Filling);
        full_ms = full_ms.max(filling.map(|replica| replica.since_ms + lifetime_ms));
    }
    if replicas == 0 && counts.none == slots.len() {
        return None;
    }
    let at_risk = |backend: &BackendStatus| {
        let share = backend.slots_unprotected as f64 / backend.slots_first.max(1) as f64;
        let sessions = backend.load.sessions? as f64 * share.min(1.0);
        Some(sessions.round() as u64)
    };
    let unprotected = backends
        .iter()
        .filter(|backend| backend.slots_unprotected > 0);
    let worst = unprotected.max_by_key(|backend| (at_risk(backend), backend.slots_unprotected));
    let is_counted = backends
        .iter()
        .any(|backend| backend.load.sessions.is_some());
    Some(ReplicationStatus {
        replicas,
        slots: counts,
        at_risk_sessions: match worst {
            Some(backend) => at_risk(backend),
            None => is_counted.then_some(0),
        },
        at_risk_backend: worst.map(|backend| backend.name.clone()),
        full_ms,
    })
}
