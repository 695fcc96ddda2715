//! Which slots a pool state decides about, and where a map places them.

use std::sync::Arc;

use crate::config::PartitionMap;
use crate::route::{Placement, PlacementError, SLOT_COUNT, Slot};

/// Where a map places the slots.
type Place = fn(&PartitionMap) -> Result<Arc<Placement>, PlacementError>;

/// The slots of a pool state. A proxy decides about all of them; thousands of small worlds in virtual
/// time cannot afford to.
#[derive(Debug, Clone)]
pub struct PoolScope {
    slots: Arc<[Slot]>,
    place: Place,
}

impl PoolScope {
    /// These slots, each once, placed by `place`.
    pub fn of(slots: Vec<Slot>, place: Place) -> Self {
        let slots = slots.into();
        Self { slots, place }
    }

    /// The slots, each with its position.
    pub(super) fn slots(&self) -> impl Iterator<Item = (usize, Slot)> + '_ {
        self.slots.iter().copied().enumerate()
    }

    /// How many slots there are.
    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// The position of a slot.
    pub(super) fn position(&self, slot: Slot) -> Option<usize> {
        match self.count() {
            SLOT_COUNT => Some(slot.index()),
            _ => self.slots.iter().position(|known| *known == slot),
        }
    }

    pub(super) fn place(&self, map: &PartitionMap) -> Result<Arc<Placement>, PlacementError> {
        (self.place)(map)
    }
}

impl Default for PoolScope {
    /// All slots.
    fn default() -> Self {
        Self::of(Slot::all().collect(), |map| map.placement().map(Arc::new))
    }
}
