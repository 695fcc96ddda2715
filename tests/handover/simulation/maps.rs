//! Partition maps of a few backends, and the placements that follow from them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use staterouter::config::{BackendAddress, BackendSpec, BackendState, PartitionMap};
use staterouter::handover::BackendId;
use staterouter::route::{HashKey, Placement, PlacementError, Slot};
use staterouter::usage::Capacity;

use super::plan::SERVERS;
use super::random::Random;

/// A backend of a map: its id, its weight, its state.
pub(crate) type Listed = (u8, u16, BackendState);

/// The backends of a map, by id.
pub(crate) type Spec = Vec<Listed>;

/// Few virtual nodes: placements are built without optimisation.
const LIGHT: u16 = 4;
const HEAVY: u16 = 8;

/// A map without a past.
pub(crate) fn first(random: &mut Random) -> Spec {
    let count = random.between(2, 3) as u8;
    (1..=count).map(active).collect()
}

/// A map of so many backends.
pub(crate) fn first_of(count: u8) -> Spec {
    (1..=count).map(active).collect()
}

/// A map that may follow the newest of `maps`.
pub(crate) fn next(random: &mut Random, maps: &[Spec]) -> Spec {
    let newest = maps.last().unwrap();
    let mut spec = newest.clone();
    match random.below(6) {
        0 | 1 => {
            let absent = (1..=SERVERS).find(|id| spec.iter().all(|entry| entry.0 != *id));
            match absent {
                Some(id) => spec.push(active(id)),
                None => spec = drained(spec, random),
            }
            spec.sort_by_key(|entry| entry.0);
        }
        2 => spec = drained(spec, random),
        3 => {
            let (index, others) = pick_active(&spec, random);
            if others > 0 {
                spec.remove(index);
            }
        }
        4 => {
            for entry in spec.iter_mut().filter(|entry| entry.0 == 2) {
                entry.1 = if entry.1 == LIGHT { HEAVY } else { LIGHT };
            }
        }
        _ => spec.clone_from(&maps[maps.len().saturating_sub(2)]),
    }
    spec
}

/// The newest map with a backend off; `None` if there would be no other.
pub(crate) fn without(random: &mut Random, maps: &[Spec]) -> Option<Spec> {
    let mut spec = maps.last().unwrap().clone();
    let (index, others) = pick_active(&spec, random);
    spec[index].2 = BackendState::Off;
    (others > 0).then_some(spec)
}

/// Where a map wants a slot.
pub(crate) fn owner(spec: &Spec, slot: Slot) -> BackendId {
    candidate(spec, slot, 0).unwrap()
}

/// The server that is so many places behind that one.
pub(crate) fn candidate(spec: &Spec, slot: Slot, behind: usize) -> Option<BackendId> {
    let placement = placement(spec);
    let candidate = placement.candidates(slot).get(behind)?;
    BackendId::new(spec[candidate.index()].0)
}

/// Whether not all of `maps` agree about a slot.
pub(crate) fn moves(maps: &[Spec], slot: Slot) -> bool {
    let mut owners = maps.iter().map(|spec| owner(spec, slot));
    let first = owners.next();
    owners.any(|owner| Some(owner) != first)
}

/// The map as a proxy reads it.
pub(crate) fn map(spec: &Spec, version: u64) -> PartitionMap {
    let backend = |&(id, weight, state): &Listed| BackendSpec {
        name: name(id),
        id,
        id_is_derived: false,
        address: BackendAddress::parse(&format!("10.0.0.{id}:42424")).unwrap(),
        redis: None,
        tls: None,
        weight,
        state,
        capacity: Capacity::default(),
    };
    PartitionMap {
        applications: Vec::new(),
        version,
        hash_key: HashKey::DEFAULT,
        accept_moved_percent: Some(100),
        replicas: 0,
        backends: spec.iter().map(backend).collect(),
    }
}

/// The name of a backend.
pub(crate) fn name(id: u8) -> String {
    format!("state-{id}")
}

/// The placement of a map, built once in the whole run.
pub(crate) fn placement(spec: &Spec) -> Arc<Placement> {
    place(&map(spec, 1)).unwrap()
}

/// The same for a map as a proxy reads it.
pub(crate) fn place(map: &PartitionMap) -> Result<Arc<Placement>, PlacementError> {
    type Known = Mutex<HashMap<Vec<(u8, u16, bool)>, Arc<Placement>>>;
    static KNOWN: OnceLock<Known> = OnceLock::new();
    let backends = map.backends.iter();
    let key = backends
        .map(|spec| (spec.id, spec.weight, spec.state == BackendState::Active))
        .collect();
    let mut known = KNOWN
        .get_or_init(Known::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match known.entry(key) {
        Entry::Occupied(known) => Ok(Arc::clone(known.get())),
        Entry::Vacant(free) => Ok(Arc::clone(free.insert(Arc::new(map.placement()?)))),
    }
}

fn active(id: u8) -> Listed {
    (id, LIGHT, BackendState::Active)
}

fn drained(mut spec: Spec, random: &mut Random) -> Spec {
    let (index, others) = pick_active(&spec, random);
    if others > 0 {
        spec[index].2 = BackendState::Drain;
    }
    spec
}

/// The position of an active backend, and how many others there are.
fn pick_active(spec: &Spec, random: &mut Random) -> (usize, usize) {
    let is_active = |index: &usize| spec[*index].2 == BackendState::Active;
    let active: Vec<usize> = (0..spec.len()).filter(is_active).collect();
    (random.pick(&active), active.len() - 1)
}
