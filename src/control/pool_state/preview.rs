//! What a map would do, without doing it.

use std::collections::BTreeMap;

use super::accept::MapChange;
use super::decisions::still_needed;
use super::{Order, PoolState, Refused};
use crate::config::{BackendSpec, BackendState, PartitionMap};
use crate::handover::BackendId;
use crate::route::{Placement, Plan};
use crate::usage::Capacity;

/// What [`PoolState::accept`] would do with a map, or [`PoolState::steer`] with an order.
#[derive(Debug)]
pub struct Preview {
    /// Whether it would be put in force; `Ok(false)` for the one that is.
    pub verdict: Result<bool, Refused>,
    /// What it would change, also where it would be refused; `None` where the two maps cannot be
    /// compared.
    pub shift: Option<Shift>,
}

/// The difference of two maps with the overrides in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// Every backend that one of the two has, those of the new map first and in its order.
    pub backends: Vec<BackendShift>,
    /// Slots that go from one backend to another, by names.
    pub flows: Vec<SlotFlow>,
    /// Slots by the backend that was to have them and the one that is to keep their copies; empty if
    /// nobody is to.
    pub copies: Vec<SlotFlow>,
}

/// One backend before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendShift {
    /// Its name.
    pub name: String,
    /// Its state before, `None` where it is new.
    pub before: Option<BackendState>,
    /// Its state after, `None` where it leaves.
    pub after: Option<BackendState>,
    /// What it can hold by the new map; by the old one if it leaves.
    pub capacity: Capacity,
    /// Slots that were to be there.
    pub slots_before: usize,
    /// Slots that will be.
    pub slots_after: usize,
    /// Whether others have copies of all that it serves.
    pub is_copied: bool,
    /// Whether it answers, as far as anybody has asked it.
    pub is_up: bool,
    /// It joins, was off, or has another address: nobody asks it yet.
    pub is_new: bool,
}

/// Slots that go from one backend to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFlow {
    /// Name of the backend that was to have them.
    pub from: String,
    /// Name of the one that will.
    pub to: String,
    /// How many, at least 1.
    pub slots: usize,
}

impl PoolState {
    /// What [`Self::accept`] would do with `map`.
    pub fn preview(&self, map: PartitionMap) -> Preview {
        let is_new = map != self.map;
        let checked = if is_new { self.check(&map) } else { Ok(()) };
        let decisions = still_needed(&self.decisions, &map);
        match (self.change(map, decisions), checked) {
            (Err(refused), checked) => Preview {
                verdict: Err(checked.err().unwrap_or(refused)),
                shift: None,
            },
            (Ok(change), checked) => Preview {
                shift: self.shift(&change),
                verdict: checked
                    .and_then(|()| self.check_share(&change))
                    .map(|()| is_new),
            },
        }
    }

    /// What [`Self::steer`] would do with `order`.
    pub fn preview_order(&self, order: &Order, now_ms: u64) -> Preview {
        let refused = |refused| Preview {
            verdict: Err(refused),
            shift: None,
        };
        let decisions = self.decisions_with(order, now_ms);
        let is_new = matches!(decisions, Ok(Some(_)));
        let decisions = decisions.map(|new| new.unwrap_or_else(|| self.decisions.clone()));
        let change = decisions.and_then(|decisions| self.change(self.map.clone(), decisions));
        match change {
            Err(error) => refused(error),
            Ok(change) => Preview {
                shift: self.shift(&change),
                verdict: self.check_share_of_order(order, &change).map(|()| is_new),
            },
        }
    }

    fn shift(&self, change: &MapChange) -> Option<Shift> {
        let plan = Plan::between(&self.placement, &change.placement).ok()?;
        let flow = |flow: crate::route::Flow<'_>| SlotFlow {
            from: flow.from.to_owned(),
            to: flow.to.to_owned(),
            slots: flow.slots,
        };
        let before = slots_by_name(&self.placement);
        let after = slots_by_name(&change.placement);
        let backend = |spec: &BackendSpec, state: Option<BackendState>| {
            let name = spec.name.as_str();
            let mut members = self.members.iter();
            let member = members.find(|member| member.spec.name == name);
            BackendShift {
                name: name.to_owned(),
                before: member
                    .filter(|member| member.in_map)
                    .map(|member| member.spec.state),
                after: state,
                capacity: spec.capacity,
                slots_before: before.get(name).copied().unwrap_or(0),
                slots_after: after.get(name).copied().unwrap_or(0),
                is_copied: member.is_some_and(|member| self.is_copied(member.backend_id)),
                is_up: member.is_none_or(|member| {
                    let health = &member.health;
                    member.is_up() && (health.has_answered() || !health.is_known())
                }),
                is_new: member
                    .is_none_or(|member| member.is_off() || member.spec.address != spec.address),
            }
        };
        let stays = |spec: &BackendSpec| backend(spec, Some(spec.state));
        let leaves = self.members.iter().filter(|member| {
            let mut specs = change.specs.iter();
            member.in_map && specs.all(|spec| spec.name != member.spec.name)
        });
        let copies = self.copies_after(change);
        let mut backends: Vec<_> = change.specs.iter().map(stays).collect();
        backends.extend(leaves.map(|member| backend(&member.spec, None)));
        Some(Shift {
            backends,
            flows: plan.flows().into_iter().map(flow).collect(),
            copies,
        })
    }

    /// Where copies go by the new map. What a replica has already may stay there as well.
    fn copies_after(&self, change: &MapChange) -> Vec<SlotFlow> {
        let mut copies = BTreeMap::<(BackendId, usize), usize>::new();
        let after = &change.placement;
        for slot in self.scope().filter(|_| change.map.replicas > 0) {
            let candidates = after.candidates(slot);
            if let Some(replica) = candidates.get(2).or(candidates.get(1)) {
                *copies
                    .entry((self.target(slot), replica.index()))
                    .or_default() += 1;
            }
        }
        let name_after = |index: usize| after.shares()[index].name.to_owned();
        let flow = |((from, to), slots)| SlotFlow {
            from: self.name_of(from).to_owned(),
            to: name_after(to),
            slots,
        };
        copies.into_iter().map(flow).collect()
    }
}

fn slots_by_name(placement: &Placement) -> BTreeMap<&str, usize> {
    let shares = placement.shares().into_iter();
    shares.map(|share| (share.name, share.slots)).collect()
}
