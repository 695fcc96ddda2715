//! The slots as the data path reads them.

use std::collections::HashMap;

use super::{BackendId, ReplicaPhase, ReplicaRoute, SlotRoute, SlotState, Stage};

/// Where the items of each slot are: one byte per slot while all its items are at one place, and a
/// second table only for the slots of which there is more to say. Immutable; a lookup allocates nothing.
#[derive(Debug, Clone)]
pub struct SlotTable {
    /// The id of the only place of a slot, else [`MORE`].
    places: Box<[u8]>,
    /// Index into `routes` per slot; empty when all slots are at one place.
    more: Box<[u16]>,
    /// Distinct routes of the slots that are not.
    routes: Box<[SlotRoute]>,
}

/// No place has this id.
const MORE: u8 = 0;

impl SlotTable {
    /// The table of these slots, in their order; at most 65,536 of them.
    #[must_use]
    pub fn new(slots: &[SlotState]) -> Self {
        let mut routes: Vec<SlotRoute> = Vec::new();
        let mut known: HashMap<SlotRoute, u16> = HashMap::new();
        let mut places = Vec::with_capacity(slots.len());
        let mut more = Vec::new();
        for (index, slot) in slots.iter().enumerate() {
            let route = SlotRoute::from(slot);
            if route == SlotRoute::steady(slot.first) {
                places.push(slot.first.id());
                continue;
            }
            places.push(MORE);
            // No more routes than slots, whose number fits.
            let next = routes.len() as u16;
            let route_index = *known.entry(route).or_insert_with(|| {
                routes.push(route);
                next
            });
            more.resize(slots.len(), 0);
            more[index] = route_index;
        }
        Self {
            places: places.into(),
            more: more.into(),
            routes: routes.into(),
        }
    }

    /// The places of a slot, by its index into the slots the table was built from.
    ///
    /// # Panics
    /// For an index beyond them.
    #[must_use]
    #[inline]
    pub fn lookup(&self, slot: usize) -> RouteRef {
        match BackendId::new(self.places[slot]) {
            Some(first) => RouteRef {
                first,
                second: None,
                stage: Stage::Steady,
                replica: None,
                more: None,
            },
            None => self.refer(self.more[slot]),
        }
    }

    #[cold]
    fn refer(&self, more: u16) -> RouteRef {
        let route = &self.routes[usize::from(more)];
        RouteRef {
            first: route.first,
            second: route.second,
            stage: route.stage,
            replica: route.replica.map(|replica| replica.at),
            more: Some(more),
        }
    }

    /// All there is to say of a slot that this table has looked up.
    ///
    /// # Panics
    /// For what another table, with more routes, has looked up.
    #[must_use]
    #[inline]
    pub fn route(&self, found: RouteRef) -> SlotRoute {
        match found.more {
            None => SlotRoute::steady(found.first),
            Some(more) => self.routes[usize::from(more)],
        }
    }
}

/// The route of a slot in a few bytes: what a request carries along, and where its table has the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRef {
    /// Asked first.
    pub first: BackendId,
    /// The other place, when there is one.
    pub second: Option<BackendId>,
    /// What is going on.
    pub stage: Stage,
    /// Who keeps a copy of each item, if anybody does.
    pub replica: Option<BackendId>,
    /// Index into the table's routes; `None` if there is no more to say.
    more: Option<u16>,
}

impl From<&SlotState> for SlotRoute {
    fn from(slot: &SlotState) -> Self {
        Self {
            first: slot.first,
            second: slot.second,
            stage: slot.stage,
            left: slot.outdated.set(),
            replica: slot
                .replica
                .filter(|replica| replica.phase > ReplicaPhase::Chosen)
                .map(ReplicaRoute::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handover::Stage::*;

    fn backend_id(id: u8) -> BackendId {
        BackendId::new(id).unwrap()
    }

    fn any_slot() -> impl Strategy<Value = SlotState> {
        let stage = prop::sample::select(vec![
            Steady, Settle, Move1, Move2, Turned, Suspect, Away, Back, Wait,
        ]);
        (1..=127_u8, 1..=127_u8, stage).prop_map(|(first, second, stage)| SlotState {
            second: (stage != Steady).then(|| backend_id(second)),
            stage,
            ..SlotState::steady(backend_id(first), 0)
        })
    }

    proptest! {
        #[test]
        fn every_slot_is_found_as_it_was_put_in(slots in prop::collection::vec(any_slot(), 1..600)) {
            let table = SlotTable::new(&slots);
            for (index, slot) in slots.iter().enumerate() {
                let expected = SlotRoute::from(slot);
                let found = table.lookup(index);
                prop_assert_eq!(
                    (found.first, found.second, found.stage),
                    (expected.first, expected.second, expected.stage)
                );
                prop_assert_eq!(found.replica, expected.replica.map(|replica| replica.at));
                prop_assert_eq!(table.route(found), expected);
            }
        }
    }

    #[test]
    fn slots_at_one_place_need_no_second_table() {
        let slots = [1, 2, 127].map(|id| SlotState::steady(backend_id(id), 7));
        let table = SlotTable::new(&slots);
        assert_eq!(table.route(table.lookup(2)), SlotRoute::from(&slots[2]));
        assert!(table.more.is_empty() && table.routes.is_empty());
    }

    #[test]
    fn slots_share_their_routes() {
        let moving = SlotState {
            second: Some(backend_id(2)),
            stage: Move1,
            ..SlotState::steady(backend_id(1), 0)
        };
        let table = SlotTable::new(&[moving; 100]);
        assert_eq!(table.routes.len(), 1);
    }
}
