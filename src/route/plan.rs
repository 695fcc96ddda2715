//! The difference of two placements: which slots change their owner.

use std::collections::BTreeMap;

use thiserror::Error;

use super::hash::{SLOT_COUNT, Slot};
use super::member::BackendIndex;
use super::placement::Placement;

/// Why two placements cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The caller's placements use different hash keys, so one slot number means different
    /// sessions in each and nearly every session moves.
    #[error("the two placements use different hash keys, their slots cannot be compared")]
    DifferentHashKeys,
}

/// Slots that go from one backend to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow<'p> {
    /// Name of the backend that owned the slots.
    pub from: &'p str,
    /// Name of the backend that will own them.
    pub to: &'p str,
    /// How many slots, at least 1.
    pub slots: usize,
}

/// One slot that changes its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The slot.
    pub slot: Slot,
    /// Its owner until now, as an index of the old placement.
    pub from: BackendIndex,
    /// Its new owner, as an index of the new placement.
    pub to: BackendIndex,
}

/// What replacing one placement by another moves. Backends are compared by name: an index may
/// mean another backend in the new placement.
#[derive(Debug)]
pub struct Plan<'p> {
    old: &'p Placement,
    new: &'p Placement,
    /// For each backend index of the old placement: the index of the same name in the new one.
    same_name: [Option<BackendIndex>; u8::MAX as usize + 1],
}

impl<'p> Plan<'p> {
    /// The difference from `old` to `new`.
    ///
    /// # Errors
    ///
    /// When the placements use different hash keys.
    pub fn between(old: &'p Placement, new: &'p Placement) -> Result<Self, PlanError> {
        if old.hash_key() != new.hash_key() {
            return Err(PlanError::DifferentHashKeys);
        }
        let new_indices: BTreeMap<&str, BackendIndex> = new.members().collect();
        let mut same_name = [None; u8::MAX as usize + 1];
        for (name, backend) in old.members() {
            same_name[backend.index()] = new_indices.get(name).copied();
        }
        Ok(Self {
            old,
            new,
            same_name,
        })
    }

    /// The slots that change their owner, ascending.
    pub fn moves(&self) -> impl Iterator<Item = Move> {
        Slot::all()
            .map(|slot| Move {
                slot,
                from: self.old.owner(slot),
                to: self.new.owner(slot),
            })
            .filter(|moved| self.same_name[moved.from.index()] != Some(moved.to))
    }

    /// The moved slots counted by old and new owner, ascending by their names.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow<'p>> {
        let mut counts: BTreeMap<(BackendIndex, BackendIndex), usize> = BTreeMap::new();
        for moved in self.moves() {
            *counts.entry((moved.from, moved.to)).or_default() += 1;
        }
        // Members come in the order of their names, so no sorting is needed.
        let pairs = self
            .old
            .members()
            .flat_map(|from| self.new.members().map(move |to| (from, to)));
        pairs
            .filter_map(|((from, from_index), (to, to_index))| {
                let slots = *counts.get(&(from_index, to_index))?;
                Some(Flow { from, to, slots })
            })
            .collect()
    }

    /// The part of all slots that changes its owner, 0.0 to 1.0.
    #[must_use]
    pub fn moved_share(&self) -> f64 {
        self.moves().count() as f64 / SLOT_COUNT as f64
    }
}
