//! What a proxy has to remember over a restart.

use crate::config::{BackendSpec, PartitionMap};
use crate::handover::SlotState;

/// The pool as it was when it was last written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The partition map in force.
    pub map: PartitionMap,
    /// Backends that are no longer in it and still hold slots.
    pub retired: Vec<BackendSpec>,
    /// The longest session timeout seen, 0 for none.
    pub longest_timeout_minutes: u32,
    /// Every slot, in order.
    pub slots: Vec<SlotState>,
}
