//! The state that is in force: on disk first, then shown to the data path, then told to the peers.

use std::sync::Arc;

use super::boot_moment::BootMoment;
use super::persist::state_file::StateFileError;
use super::persist::state_lock::StateLock;
use super::persist::state_writer::StateWriter;
use super::pool_state::PoolState;
use crate::handover::SlotState;
use crate::metrics::Metrics;
use crate::proxy::SharedSnapshot;

/// How often the state file is written while stages go on.
const WRITE_EVERY_MS: u64 = 60_000;

/// Architecture invariant: `slots` and the snapshot are never ahead of the state file.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) writer: StateWriter,
    /// As long as this proxy may write the file.
    _lock: StateLock,
    snapshot: SharedSnapshot,
    /// Of the newest snapshot.
    number: u64,
    slots: Arc<[SlotState]>,
    /// The same once every worker goes by them.
    followed: Arc<[SlotState]>,
    written_ms: u64,
}

impl InForce {
    /// `pool_state` as `writer` has written it and `snapshot` shows it.
    pub(super) fn new(
        writer: StateWriter,
        lock: StateLock,
        snapshot: SharedSnapshot,
        pool_state: &PoolState,
        now_ms: u64,
    ) -> Self {
        Self {
            writer,
            _lock: lock,
            snapshot,
            number: 0,
            slots: pool_state.shared_slots(),
            followed: pool_state.shared_slots(),
            written_ms: now_ms,
        }
    }

    /// Writes the next state down, then shows it to the data path.
    ///
    /// # Errors
    /// [`StateFileError`]: the one before stays in force.
    pub(super) fn put(
        &mut self,
        next: &PoolState,
        moment: BootMoment,
    ) -> Result<(), StateFileError> {
        let now_ms = moment.now_ms;
        self.write(next, moment)?;
        self.written_ms = now_ms;
        self.slots = next.shared_slots();
        self.show(next);
        Ok(())
    }

    /// Shows the data path what has changed of a state that is in force: who is up, and where.
    pub(super) fn show(&mut self, pool_state: &PoolState) {
        self.number += 1;
        let mut snapshot = pool_state.snapshot();
        snapshot.number = self.number;
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Whether every worker goes by all that is in force, so that nothing is under way any more at a
    /// backend that is down, nor a copy of what it holds. Only then the peers are told: they go on without a backend on the
    /// strength of it.
    pub(super) fn is_followed(
        &mut self,
        metrics: &Metrics,
        copies_have_ended: impl FnOnce() -> bool,
    ) -> bool {
        // In this order: who goes by it begins no copy any more.
        let is_followed = metrics.go_by(self.number) && copies_have_ended();
        if is_followed {
            self.followed = Arc::clone(&self.slots);
        }
        is_followed
    }

    /// The slots as every worker goes by them, for the peers.
    pub(super) fn followed(&self) -> &Arc<[SlotState]> {
        &self.followed
    }

    /// The slots as they are on disk.
    pub(super) fn slots(&self) -> &Arc<[SlotState]> {
        &self.slots
    }

    /// After the machine was down, what is not written down has taken no time.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.written_ms + WRITE_EVERY_MS
    }

    /// Writes what is in force already.
    ///
    /// # Errors
    /// [`StateFileError`].
    pub(super) fn write(
        &mut self,
        pool_state: &PoolState,
        moment: BootMoment,
    ) -> Result<(), StateFileError> {
        self.writer.write(pool_state.memory(), moment)
    }
}
