//! Slot → ordered candidates, as an immutable table.

use std::collections::HashSet;
use std::fmt;

use thiserror::Error;

use super::hash::{HashKey, SLOT_COUNT, Slot};
use super::member::{BackendIndex, MAX_WEIGHT, Member};
use super::ring::Ring;

/// Most members of one placement: lock cookie tags have 7 bits and 0 is no tag.
pub const MAX_MEMBERS: usize = 127;

/// Candidates kept per slot when there are that many members.
pub const MAX_CANDIDATES: usize = 8;

/// Why a list of members gives no placement.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// The caller gave no members, so nobody could serve a slot.
    #[error("a placement needs at least one backend")]
    NoMembers,
    /// The caller gave more than [`MAX_MEMBERS`] members.
    #[error("{count} backends are more than the {MAX_MEMBERS} a placement can hold")]
    TooManyMembers {
        /// Number of members given.
        count: usize,
    },
    /// A member has an empty name.
    #[error("a backend has an empty name")]
    EmptyName,
    /// Two members have the same name.
    #[error("two backends are named {name:?}")]
    DuplicateName {
        /// The name they share.
        name: String,
    },
    /// Two members have the same backend index.
    #[error("backend {name:?} has the index {index} of another backend")]
    DuplicateIndex {
        /// The later of the two members.
        name: String,
        /// The index they share.
        index: usize,
    },
    /// A member's weight is not within 1 to [`MAX_WEIGHT`].
    #[error("backend {name:?} has weight {weight}, not 1 to {MAX_WEIGHT}")]
    WeightOutOfRange {
        /// The member.
        name: String,
        /// The weight it was given.
        weight: u32,
    },
}

/// Slots that one backend owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share<'p> {
    /// The backend's name.
    pub name: &'p str,
    /// Its position in the caller's list.
    pub backend: BackendIndex,
    /// Slots it owns, 0 to [`SLOT_COUNT`].
    pub slots: usize,
}

/// Which backends serve each slot. Immutable; a lookup reads a table and allocates nothing.
///
/// It depends on the hash key and on the members' names and weights, not on their order.
pub struct Placement {
    key: HashKey,
    /// Ascending by name.
    members: Box<[NamedMember]>,
    /// One per slot; a repetition of the first candidates in 16 KiB, because nearly every lookup
    /// wants the owner alone.
    owners: Box<[BackendIndex]>,
    /// `candidates_per_slot` for each slot, slot after slot.
    candidates: Box<[BackendIndex]>,
    candidates_per_slot: usize,
}

struct NamedMember {
    name: Box<str>,
    backend: BackendIndex,
}

impl Placement {
    /// Builds the table from the ring.
    ///
    /// # Errors
    ///
    /// When there are no members or more than [`MAX_MEMBERS`], when names or indices repeat, or
    /// when a name is empty or a weight out of range.
    pub fn build(key: HashKey, members: &[Member<'_>]) -> Result<Self, PlacementError> {
        check(members)?;

        let ring = Ring::new(key, members);
        let candidates_per_slot = members.len().min(MAX_CANDIDATES);
        let mut candidates = Vec::with_capacity(SLOT_COUNT * candidates_per_slot);
        let mut found = Vec::with_capacity(candidates_per_slot);
        for slot in Slot::all() {
            ring.candidates(slot, candidates_per_slot, &mut found);
            candidates.extend_from_slice(&found);
        }
        let candidates = candidates.into_boxed_slice();
        let owners = candidates
            .iter()
            .copied()
            .step_by(candidates_per_slot)
            .collect();

        let mut members: Box<[NamedMember]> = members
            .iter()
            .map(|member| NamedMember {
                name: member.name.into(),
                backend: member.backend,
            })
            .collect();
        members.sort_unstable_by(|a, b| a.name.cmp(&b.name));

        Ok(Self {
            key,
            members,
            owners,
            candidates,
            candidates_per_slot,
        })
    }

    /// The slot of a session, from its decoded id bytes.
    #[must_use]
    pub fn slot(&self, session_id: &[u8]) -> Slot {
        self.key.slot(session_id)
    }

    /// The backend that serves a slot.
    #[must_use]
    pub fn owner(&self, slot: Slot) -> BackendIndex {
        self.owners[slot.index()]
    }

    /// The backends that serve a slot, in order: the owner, then the backend that would own the
    /// slot if the owner were not a member, and so on. Distinct; [`MAX_CANDIDATES`] of them, or
    /// all members if there are fewer.
    #[must_use]
    pub fn candidates(&self, slot: Slot) -> &[BackendIndex] {
        let start = slot.index() * self.candidates_per_slot;
        &self.candidates[start..start + self.candidates_per_slot]
    }

    /// The key under which session ids become slots.
    #[must_use]
    pub fn hash_key(&self) -> HashKey {
        self.key
    }

    /// The members as (name, index), ascending by name.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, BackendIndex)> {
        self.members
            .iter()
            .map(|member| (&*member.name, member.backend))
    }

    /// The slots each member owns, ascending by name. They add up to [`SLOT_COUNT`].
    #[must_use]
    pub fn shares(&self) -> Vec<Share<'_>> {
        let mut slots = [0; u8::MAX as usize + 1];
        for owner in &self.owners {
            slots[owner.index()] += 1;
        }
        self.members()
            .map(|(name, backend)| Share {
                name,
                backend,
                slots: slots[backend.index()],
            })
            .collect()
    }
}

impl fmt::Debug for Placement {
    /// Shows the shares; the tables are too long to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placement")
            .field("shares", &self.shares())
            .finish_non_exhaustive()
    }
}

fn check(members: &[Member<'_>]) -> Result<(), PlacementError> {
    if members.is_empty() {
        return Err(PlacementError::NoMembers);
    }
    if members.len() > MAX_MEMBERS {
        return Err(PlacementError::TooManyMembers {
            count: members.len(),
        });
    }
    let mut names = HashSet::new();
    let mut indices = HashSet::new();
    for &Member {
        name,
        weight,
        backend,
    } in members
    {
        if name.is_empty() {
            return Err(PlacementError::EmptyName);
        }
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return Err(PlacementError::WeightOutOfRange {
                name: name.to_owned(),
                weight,
            });
        }
        if !names.insert(name) {
            return Err(PlacementError::DuplicateName {
                name: name.to_owned(),
            });
        }
        if !indices.insert(backend) {
            let index = backend.index();
            return Err(PlacementError::DuplicateIndex {
                name: name.to_owned(),
                index,
            });
        }
    }
    Ok(())
}
