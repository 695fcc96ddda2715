//! A status for tests: two backends, and nothing wrong.

use super::{
    AccountingStatus, BackendHealth, BackendLoad, BackendStatus, EngineStatus, HandoverProgress,
    ServiceState, StageCounts, Status,
};
use crate::control::report::replication::{CopiesStatus, ReplicaCounts};
use crate::handover::Stage;

pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        instance: "a".to_owned(),
        host: "web-1".to_owned(),
        listen: "0.0.0.0:42424".to_owned(),
        started_ms: 400_000,
        now_ms: 1_000_000,
        findings: Vec::new(),
        map_version: 7,
        last_reload: None,
        backends: vec![backend("state-a", 1), backend("state-b", 2)],
        applications: Vec::new(),
        accounting: AccountingStatus::default(),
        slots: StageCounts::default(),
        replication: None,
        last_failover: None,
        under_way: Vec::new(),
        longest_session_timeout_minutes: 20,
        peers: Vec::new(),
    }
}

pub(crate) fn backend(name: &str, id: u8) -> BackendStatus {
    BackendStatus {
        name: name.to_owned(),
        id,
        address: format!("10.0.0.{id}:42424"),
        address_in_use: Some(format!("10.0.0.{id}:42424")),
        state: ServiceState::Active,
        overridden: None,
        weight: 100,
        verdict: BackendHealth::Up,
        reason: None,
        since_ms: 500_000,
        slots_owned: 8192,
        slots_first: 8192,
        slots_waiting: 0,
        slots_refused: 0,
        waits_until_ms: None,
        empty_ms: None,
        slots_in: StageCounts {
            steady: 8192,
            ..StageCounts::default()
        },
        slots_as_replica: ReplicaCounts::default(),
        copies: CopiesStatus::default(),
        slots_unprotected: 8192,
        pending_deletes: 0,
        moved_here: 0,
        absent_while_away: 0,
        engine: None,
        load: BackendLoad::default(),
    }
}

/// A quarter of the slots, between `state-a` (second) and `state-b` (first).
pub(crate) fn under_way(
    stage: Stage,
    began_ms: u64,
    stage_ends_ms: u64,
    ends_ms: Option<u64>,
) -> HandoverProgress {
    HandoverProgress {
        stage,
        label: stage.label().to_owned(),
        means: "state-a -> state-b".to_owned(),
        first: "state-b".to_owned(),
        second: "state-a".to_owned(),
        slots: 4096,
        began_ms,
        stage_ends_ms,
        ends_ms,
        failing: None,
    }
}

/// The engine of a backend.
pub(crate) fn engine() -> EngineStatus {
    EngineStatus {
        memory_bytes: 1,
        max_memory_bytes: Some(1),
        fullest_server: Some("redis-a:6379".to_owned()),
        fullest_percent: Some(1.5),
    }
}
