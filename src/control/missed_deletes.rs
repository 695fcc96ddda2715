//! The deletes that backends have missed: noted before the client has its answer, sent once the
//! backend answers again.

use super::persist::pending_deletes::PendingDeletes;
use super::persist::replay::{ReplayEvent, Replayed, Replays};
use super::pool_state::PoolState;
use crate::backend::RemoveError;
use crate::handover::BackendId;
use crate::log::LogLimit;
use crate::proxy::PendingDelete;

/// Invariant: the pool state knows of each backend how many the journal holds for it, so that no
/// slot goes back to one that would show what was deleted.
#[derive(Debug)]
pub(super) struct MissedDeletes {
    pub(super) journal: PendingDeletes,
    replays: Replays,
    /// Lines about removals that are refused: as many as clients ask for.
    refused: LogLimit,
}

impl MissedDeletes {
    pub(super) fn new(journal: PendingDeletes, replays: Replays) -> Self {
        Self {
            journal,
            replays,
            refused: LogLimit::default(),
        }
    }

    /// Notes one down, and tells the request that waits for it whether it is.
    pub(super) fn note(&mut self, pool_state: &mut PoolState, missed: PendingDelete, now_ms: u64) {
        let PendingDelete { to, target, noted } = missed;
        let kept = match pool_state.member(to) {
            None => true,
            Some(member) => match self.journal.append(to, &member.spec.name, &target) {
                Ok(()) => true,
                Err(error) => {
                    if let Some(suppressed) = self.refused.allow(now_ms) {
                        tracing::error!(
                            suppressed,
                            "a request that ends a session is refused, the pending delete cannot be noted: {error}"
                        );
                    }
                    false
                }
            },
        };
        pool_state.set_pending_deletes(to, self.journal.count(to));
        // The client may have left.
        let _ = noted.send(kept);
    }

    /// Writes anew what a disk did not take.
    pub(super) fn mend(&mut self) {
        // While it cannot be mended, each removal that is refused says so.
        let _ = self.journal.mend();
    }

    /// Tells the backends that answer what they missed.
    pub(super) fn replay(&mut self, pool_state: &PoolState, now_ms: u64) {
        let timeout = pool_state.config().timeouts.answer;
        for member in pool_state.gets_pending_deletes() {
            let way = pool_state.way_to(&member.spec, member.address());
            self.replays
                .begin(member.backend_id, way, timeout, &self.journal, now_ms);
        }
    }

    /// A backend has got one of them, or all that it will get now.
    pub(super) fn replayed(
        &mut self,
        pool_state: &mut PoolState,
        Replayed { backend_id, event }: Replayed,
        now_ms: u64,
    ) {
        match event {
            ReplayEvent::Removed(target) => {
                if let Err(error) = self.journal.replayed(backend_id, &target) {
                    tracing::warn!("{error}");
                    self.replays.not_noted(backend_id);
                }
                pool_state.set_pending_deletes(backend_id, self.journal.count(backend_id));
            }
            ReplayEvent::Ended(result) => {
                // What is not noted has been told of.
                if self.replays.ended(backend_id, result.is_err(), now_ms) || result.is_err() {
                    self.log(pool_state, backend_id, result);
                }
            }
        }
    }

    fn log(&self, pool_state: &PoolState, backend_id: BackendId, result: Result<(), RemoveError>) {
        let backend = pool_state.name_of(backend_id);
        match result {
            Ok(()) => tracing::info!(
                backend,
                "backend has got the pending deletes, which it had missed"
            ),
            Err(error) => tracing::warn!(
                backend,
                left = self.journal.count(backend_id),
                "backend does not take the pending deletes, and is not served from before: {error}"
            ),
        }
    }

    /// Those of backends that get none any more.
    pub(super) fn forget(&mut self, pool_state: &mut PoolState) {
        self.keep_those(pool_state, PoolState::keeps_pending_deletes);
    }

    /// The other proxies have gone on without this one: what it has still to delete may have begun
    /// anew since.
    pub(super) fn forget_all(&mut self, pool_state: &mut PoolState) {
        self.keep_those(pool_state, |_, _| false);
    }

    fn keep_those(
        &mut self,
        pool_state: &mut PoolState,
        keeps: impl Fn(&PoolState, BackendId) -> bool,
    ) {
        for backend_id in (1..=u8::MAX).filter_map(BackendId::new) {
            let member = pool_state.member(backend_id);
            let member = member.filter(|_| keeps(pool_state, backend_id));
            let backend = member.map(|member| member.spec.name.as_str());
            if let Err(error) = self.journal.keep(backend_id, backend) {
                tracing::warn!("{error}");
            }
            // It would wait for them for ever once it is turned on again.
            pool_state.set_pending_deletes(backend_id, self.journal.count(backend_id));
        }
    }
}
