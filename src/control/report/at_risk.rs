//! How far the sessions are kept twice, and what a failure would cost now.

use super::replication::{ReplicaCounts, ReplicationStatus};
use super::status::BackendStatus;
use crate::handover::{ReplicaPhase, SlotState};

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
        // Whatever is not kept twice is no session less than one.
        Some(sessions.ceil() as u64)
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
