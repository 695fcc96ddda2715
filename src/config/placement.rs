//! The placement that a partition map describes.

use super::partition_map::{BackendState, PartitionMap};
use crate::route::{BackendIndex, Member, Placement, PlacementError};

impl PartitionMap {
    /// Which backend of the map is to serve which slot, counted by position in the map. Only active
    /// backends are given slots.
    ///
    /// # Errors
    /// [`PlacementError`] for a map that no check has seen.
    pub fn placement(&self) -> Result<Placement, PlacementError> {
        let members: Vec<Member<'_>> = self
            .backends
            .iter()
            .zip(0..=u8::MAX)
            .filter(|(backend, _)| backend.state == BackendState::Active)
            .map(|(backend, index)| Member {
                name: &backend.name,
                weight: backend.weight.into(),
                backend: BackendIndex::new(index),
            })
            .collect();
        Placement::build(self.hash_key, &members)
    }
}
