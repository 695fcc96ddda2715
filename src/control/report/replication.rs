//! What is shown of the second copies of the sessions.

use serde::{Deserialize, Serialize};

use crate::handover::ReplicaPhase;

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

/// The copies that one backend keeps of what others serve: estimates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CopiesStatus {
    /// Sessions of which it has a copy; `null` while nobody counts sessions.
    pub sessions: Option<u64>,
    /// Bytes of those copies.
    pub bytes: Option<u64>,
    /// How much it has of what it is to keep copies of; `null` if it is to keep none.
    pub filled_percent: Option<f64>,
    /// When it should have all of them, Unix time in milliseconds; `null` when none are being filled.
    pub full_ms: Option<u64>,
}

/// The last time that sessions went on with their copies because a backend had failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverStatus {
    /// The backend that failed.
    pub backend: String,
    /// The backends that had the copies.
    pub to: Vec<String>,
    /// When the last of the sessions went on.
    pub at_ms: u64,
    /// In how many slots.
    pub slots: usize,
    /// About how many sessions; `null` while nobody counted them.
    pub sessions: Option<u64>,
    /// How long requests had to wait at this proxy; `null` until they wait no more.
    pub pause_ms: Option<u64>,
    /// How many waited and were answered.
    pub waited: Option<u64>,
    /// How many failed meanwhile.
    pub failed: Option<u64>,
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
