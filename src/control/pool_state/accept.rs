//! Which partition map may follow the one in force.

use std::sync::Arc;

use super::decisions::{overridden, still_needed};
use super::persisted_state::Decision;
use super::{PoolMember, PoolState, places_known};
use crate::config::{BackendAddress, BackendSpec, BackendState, PartitionMap};
use crate::handover::BackendId;
use crate::proxy::ApplicationSet;
use crate::route::{Placement, PlacementError};

/// A map was put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Its version.
    pub version: u64,
    /// Slots that are to go to another backend than the one they were to be at before.
    pub moved_slots: usize,
}

/// A map was refused; the one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its version is lower.
    #[error(
        "version {version} of the partition map is older than version {in_force}, which is in force"
    )]
    Older {
        /// Its version.
        version: u64,
        /// The version in force.
        in_force: u64,
    },
    /// Its content is new and its version is not.
    #[error(
        "the partition map has changed and still says version {version}: raise the version with every change"
    )]
    SameVersion {
        /// The version.
        version: u64,
    },
    /// Its hash key is another one, under which all slots hold other sessions.
    #[error(
        "the hash key of the partition map cannot change while there are sessions: it would make every slot another one; docs/operations.md says how to change it while there are none"
    )]
    HashKey,
    /// A backend has another id than before.
    #[error(
        "backend {name} has id {id} now and had id {in_force}: locks that were handed out name it by that id"
    )]
    IdChanged {
        /// The backend.
        name: String,
        /// Its new id.
        id: u8,
        /// Its id until now.
        in_force: u8,
    },
    /// An id belongs to a backend that still holds sessions.
    #[error("id {id} of backend {name} belongs to {holder}, which still holds sessions")]
    IdTaken {
        /// The id.
        id: u8,
        /// The backend that wants it.
        name: String,
        /// The backend that has it.
        holder: String,
    },
    /// An address belongs to a backend that still holds sessions: one server under two names.
    #[error(
        "the address {address} of backend {name} belongs to {holder}, which still holds sessions: to rename a backend, give the new name a server of its own"
    )]
    AddressTaken {
        /// The address.
        address: BackendAddress,
        /// The backend that wants it.
        name: String,
        /// The backend that has it.
        holder: String,
    },
    /// It moves more slots than one change may.
    #[error(
        "version {version} of the partition map would move {percent} % of the slots at once, more than the {max_percent} % of handover.max_moved_share; if that is meant, write accept_moved_share: {percent} into the map"
    )]
    MovesTooMuch {
        /// Its version.
        version: u64,
        /// How much it moves, percent rounded up.
        percent: usize,
        /// How much it may.
        max_percent: usize,
    },
    /// An override moves more slots than one change may.
    #[error(
        "this would move {percent} % of the slots at once, more than the {max_percent} % of handover.max_moved_share; if that is meant, say so with accept_moved_share={percent}"
    )]
    OverrideMovesTooMuch {
        /// The backend that it is about.
        name: String,
        /// How much it moves, percent rounded up.
        percent: usize,
        /// How much it may.
        max_percent: usize,
    },
    /// Not every proxy of the farm can be told.
    #[error(
        "the proxy at {peer} {problem}, and would go on as before: a backend that only some proxies \
         give up serves outdated sessions. If that proxy serves nobody any more, insist with \
         --only-here (only_here=true); it takes the order over when it starts again"
    )]
    NotAgreed {
        /// The proxy.
        peer: BackendAddress,
        /// Why it cannot be told.
        problem: String,
    },
    /// A backend is said to hold nothing from before, and sessions are served from it.
    #[error(
        "{name} still serves sessions{}: it counts as fresh only once nobody serves from it",
        at(peer.as_ref())
    )]
    StillServes {
        /// The backend.
        name: String,
        /// The proxy at which it does; `None` for this one.
        peer: Option<BackendAddress>,
    },
    /// With the overrides in force, no backend would be left.
    #[error(
        "the pool would be empty: no backend is active by both the partition map and the overrides"
    )]
    NobodyActive,
    /// An override is about a backend that is not there.
    #[error("the partition map has no backend {name}")]
    UnknownBackend {
        /// The name.
        name: String,
    },
    /// It gives no placement.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

fn at(peer: Option<&BackendAddress>) -> String {
    peer.map_or_else(String::new, |peer| format!(" at the proxy {peer}"))
}

/// A change of the map or of the overrides that is not in force yet.
#[derive(Debug)]
pub(super) struct MapChange {
    pub(super) map: PartitionMap,
    pub(super) decisions: Vec<Decision>,
    /// The backends of the map with the states that they get.
    pub(super) specs: Vec<BackendSpec>,
    pub(super) placement: Arc<Placement>,
    pub(super) moved_slots: usize,
    /// Of so many.
    slots: usize,
}

impl MapChange {
    /// How much of all slots it moves, percent rounded up.
    pub(super) fn moved_percent(&self) -> usize {
        (self.moved_slots * 100).div_ceil(self.slots)
    }
}

impl PoolState {
    /// Puts a map in force; overrides that it makes needless end. `None` if it is the one that is
    /// in force.
    ///
    /// # Errors
    /// [`Refused`], with nothing changed.
    pub fn accept(&mut self, map: PartitionMap, now_ms: u64) -> Result<Option<Accepted>, Refused> {
        if map == self.map {
            return Ok(None);
        }
        self.check(&map)?;
        let decisions = still_needed(&self.decisions, &map);
        let change = self.change(map, decisions)?;
        self.check_share(&change)?;
        Ok(Some(self.put(change, now_ms)))
    }

    /// What another map and other overrides would make of the pool.
    pub(super) fn change(
        &self,
        map: PartitionMap,
        decisions: Vec<Decision>,
    ) -> Result<MapChange, Refused> {
        let in_force = overridden(&map, &decisions);
        let mut backends = in_force.backends.iter();
        if !backends.any(|spec| spec.state == BackendState::Active) {
            return Err(Refused::NobodyActive);
        }
        let placement = self.scope.place(&in_force)?;
        let moved_slots = self
            .scope()
            .filter(|&slot| {
                let backend_id =
                    BackendId::new(in_force.backends[placement.owner(slot).index()].id);
                backend_id != Some(self.target(slot))
            })
            .count();
        Ok(MapChange {
            map,
            decisions,
            specs: in_force.backends,
            placement,
            moved_slots,
            slots: self.scope.count(),
        })
    }

    /// Puts a change in force.
    pub(super) fn put(&mut self, change: MapChange, now_ms: u64) -> Accepted {
        self.members = self.members_of(&change.specs, now_ms);
        self.placement = change.placement;
        self.map = change.map;
        let before = self.applications.as_deref();
        self.applications = ApplicationSet::new(&self.map.applications, before);
        self.decisions = change.decisions;
        Accepted {
            version: self.map.version,
            moved_slots: change.moved_slots,
        }
    }

    pub(super) fn check(&self, map: &PartitionMap) -> Result<(), Refused> {
        let (version, in_force) = (map.version, self.map.version);
        if version < in_force {
            return Err(Refused::Older { version, in_force });
        }
        if version == in_force {
            return Err(Refused::SameVersion { version });
        }
        if map.hash_key != self.map.hash_key {
            return Err(Refused::HashKey);
        }
        for backend in &map.backends {
            for member in &self.members {
                let (name, id) = (backend.name.clone(), backend.id);
                let is_same = member.spec.name == name;
                if is_same && member.spec.id != id {
                    let in_force = member.spec.id;
                    return Err(Refused::IdChanged { name, id, in_force });
                }
                if !is_same && member.spec.id == id && self.is_needed(member) {
                    let holder = member.spec.name.clone();
                    return Err(Refused::IdTaken { id, name, holder });
                }
                // A handover between both would move every item to itself.
                let is_same_server =
                    member.spec.address == backend.address || member.identity() == backend.address;
                if !is_same && is_same_server && self.is_needed(member) {
                    let (address, holder) = (backend.address.clone(), member.spec.name.clone());
                    return Err(Refused::AddressTaken {
                        address,
                        name,
                        holder,
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn is_needed(&self, member: &PoolMember) -> bool {
        let mut places = self.slots.iter().flat_map(places_known);
        places.any(|backend_id| backend_id == member.backend_id)
    }

    pub(super) fn check_share(&self, change: &MapChange) -> Result<(), Refused> {
        let max_percent = self.config.handover.max_moved_percent;
        let max_percent = max_percent.max(change.map.accept_moved_percent.unwrap_or(0));
        let percent = change.moved_percent();
        if percent > usize::from(max_percent) {
            return Err(Refused::MovesTooMuch {
                version: change.map.version,
                percent,
                max_percent: max_percent.into(),
            });
        }
        Ok(())
    }

    /// The backends of a map, each with what is known of it, and those behind that left it.
    fn members_of(&mut self, specs: &[BackendSpec], now_ms: u64) -> Vec<PoolMember> {
        let mut before = std::mem::take(&mut self.members);
        let mut members = Vec::with_capacity(before.len());
        for spec in specs {
            let known = before
                .iter()
                .position(|member| member.spec.name == spec.name);
            let Some(known) = known else {
                members.extend(PoolMember::new(spec.clone(), &self.config, now_ms));
                continue;
            };
            let mut member = before.swap_remove(known);
            if member.spec.address != spec.address {
                self.readdress(&member, &spec.address);
                member.server.follow(&spec.address);
            }
            if member.is_off() {
                member.health.ask_anew(member.metrics.answered());
            }
            member.spec = spec.clone();
            member.in_map = true;
            members.push(member);
        }
        before.retain(|member| specs.iter().all(|spec| spec.id != member.spec.id));
        members.extend(before.into_iter().map(|member| PoolMember {
            in_map: false,
            ..member
        }));
        members
    }
}
