//! Tells backends that have come back what they missed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::pending_deletes::PendingDeletes;
use crate::backend::{Connector, RemoveError, Remover};
use crate::handover::BackendId;

/// Results that wait for control at most; a task with one more waits itself.
const MAX_RESULTS: usize = 256;

/// Pause after a failure.
pub const PAUSE_MS: u64 = 2_000;

/// What one task reports.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) backend_id: BackendId,
    pub(crate) event: ReplayEvent,
}

#[derive(Debug)]
pub(crate) enum ReplayEvent {
    /// This one is gone, or the backend will never take it.
    Removed(Vec<u8>),
    /// The task has ended.
    Ended(Result<(), RemoveError>),
}

/// The tasks, one per backend at most. They end with this.
#[derive(Debug)]
pub(crate) struct Replays {
    tasks: JoinSet<()>,
    /// When the next may begin; never while one runs.
    next_ms: HashMap<BackendId, u64>,
    /// Whose task has reported what could not be noted down.
    unnoted: HashSet<BackendId>,
    results: mpsc::Sender<Replayed>,
}

impl Replays {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Replayed>) {
        let (results, received) = mpsc::channel(MAX_RESULTS);
        let replays = Self {
            tasks: JoinSet::new(),
            next_ms: HashMap::new(),
            unnoted: HashSet::new(),
            results,
        };
        (replays, received)
    }

    /// Begins to tell the backend at `place` what it has missed, unless that is under way or has just
    /// failed. Needs a runtime.
    pub(crate) fn begin(
        &mut self,
        backend_id: BackendId,
        server: Connector,
        timeout: Duration,
        pending_deletes: &PendingDeletes,
        now_ms: u64,
    ) {
        if self
            .next_ms
            .get(&backend_id)
            .is_some_and(|next| now_ms < *next)
        {
            return;
        }
        self.next_ms.insert(backend_id, u64::MAX);
        let targets = pending_deletes.of(backend_id).map(<[u8]>::to_vec).collect();
        let remover = Remover::new(server, timeout);
        self.tasks
            .spawn_local(replay(backend_id, remover, targets, self.results.clone()));
        while self.tasks.try_join_next().is_some() {}
    }

    /// What the task of this backend has done cannot be noted down and will be done again: however
    /// it ends, it has failed.
    pub(crate) fn not_noted(&mut self, backend_id: BackendId) {
        self.unnoted.insert(backend_id);
    }

    /// The task of this backend has ended. Returns whether all that it did is noted down.
    pub(crate) fn ended(&mut self, backend_id: BackendId, is_failure: bool, now_ms: u64) -> bool {
        let is_noted = !self.unnoted.remove(&backend_id);
        if is_failure || !is_noted {
            self.next_ms.insert(backend_id, now_ms + PAUSE_MS);
        } else {
            self.next_ms.remove(&backend_id);
        }
        is_noted
    }
}

async fn replay(
    backend_id: BackendId,
    mut remover: Remover,
    targets: Vec<Vec<u8>>,
    results: mpsc::Sender<Replayed>,
) {
    let report = async |event| results.send(Replayed { backend_id, event }).await.is_ok();
    for target in targets {
        match remover.remove(&target).await {
            // It will not take this one next time either, and must not stay away for that.
            Ok(()) | Err(RemoveError::Status(400)) => {
                if !report(ReplayEvent::Removed(target)).await {
                    return;
                }
            }
            Err(error) => {
                report(ReplayEvent::Ended(Err(error))).await;
                return;
            }
        }
    }
    report(ReplayEvent::Ended(Ok(()))).await;
}
