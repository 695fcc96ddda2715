//! Which servers are given up, and what follows from it: what they held is lost, and must not come
//! back.

use super::persisted_state::GivenUp;
use super::{Notice, PoolMember, PoolState, Refused};
use crate::config::BackendAddress;
use crate::handover::{BackendId, Places, SlotState};

impl PoolState {
    /// Whether what a backend held until lately may pass for living sessions.
    pub fn is_given_up(&self, member: &PoolMember) -> bool {
        let mut given_up = self.given_up.iter();
        given_up.any(|server| server.may_be(&member.spec, &member.identity()))
    }

    /// The backends that this proxy serves from no more before what they held has died.
    pub fn gone(&self) -> Vec<BackendId> {
        let standings = self.standings();
        let places = self.members.iter().map(|member| member.backend_id);
        places
            .filter(|backend_id| standings.get(*backend_id).gone)
            .collect()
    }

    /// Whether an order, the map, or a proxy with a newer map says that it is given up, or nobody
    /// would ever stand in for it because it was removed.
    pub(super) fn is_left(&self, member: &PoolMember) -> bool {
        let is_lost = !member.in_map && !member.is_up() && !self.config.handover.failover;
        let mut newer = self.peers.iter().flatten();
        let is_off_elsewhere = newer.any(|peer| {
            peer.map_version > self.map.version && peer.off.contains(&member.spec.name)
        });
        member.is_off() || is_lost || is_off_elsewhere
    }

    /// The operator has said that no other proxy has to be waited for.
    pub(super) fn is_insisted(&self, member: &PoolMember) -> bool {
        let mut decisions = self.decisions.iter();
        member.is_off()
            && decisions.any(|known| {
                known.backend == member.spec.name && known.is_only_here && !known.is_withdrawn
            })
    }

    /// Backends that have to be left although they are wanted again: another proxy may have gone on
    /// without them, because this one has said that it would.
    pub(super) fn bound_to_leave(&self) -> Places {
        if self.peers.is_empty() || self.given_up.is_empty() {
            return Places::default();
        }
        let is_needed = self.needed(|slot| slot.places());
        let members = self.members.iter().filter(|member| {
            let mut given_up = self.given_up.iter();
            is_needed[member.backend_id]
                && given_up.any(|server| server.id.is_some() && server.is_of(&member.spec))
        });
        members.map(|member| member.backend_id).collect()
    }

    /// Notes which servers are left with what they hold.
    pub(super) fn give_up(&mut self, now_ms: u64) {
        let is_needed = self.needed(|slot| slot.places());
        let left: Vec<GivenUp> = self
            .members
            .iter()
            .filter(|member| is_needed[member.backend_id] && self.is_left(member))
            .map(|member| GivenUp::backend(&member.spec, &member.identity(), now_ms))
            .collect();
        for server in left {
            let known = |known: &&mut GivenUp| known.id.is_some() && known.name == server.name;
            match self.given_up.iter_mut().find(known) {
                Some(known) => {
                    known.id = server.id;
                    known.since_ms = now_ms;
                    server
                        .addresses
                        .iter()
                        .for_each(|address| known.also_at(address));
                }
                None => self.given_up.push(server),
            }
        }
    }

    /// Forgets what has died, and what the operator has said to be gone since: the server is fresh.
    /// Not while slots are at it: another proxy may have left it because this one said that it would.
    pub(super) fn forget_given_up(&mut self, now_ms: u64) -> Vec<Notice> {
        let lifetime_ms = self.times().lifetime_ms;
        self.given_up
            .retain(|server| now_ms.saturating_sub(server.since_ms) < lifetime_ms);
        if self.given_up.is_empty() || self.decisions.iter().all(|known| known.fresh_ms.is_none()) {
            return Vec::new();
        }
        let is_needed = self.needed(|slot| slot.places());
        let mut notices = Vec::new();
        let members = self.members.iter();
        for member in members.filter(|member| !is_needed[member.backend_id]) {
            let Some(fresh_ms) = self.fresh_ms(&member.spec.name) else {
                continue;
            };
            let identity = member.identity();
            let is_gone = |server: &GivenUp| {
                server.since_ms <= fresh_ms && server.may_be(&member.spec, &identity)
            };
            let before = self.given_up.len();
            self.given_up.retain(|server| !is_gone(server));
            if self.given_up.len() < before {
                notices.push(Notice::fresh(&member.spec.name));
            }
        }
        notices
    }

    fn fresh_ms(&self, backend: &str) -> Option<u64> {
        let mut decisions = self.decisions.iter();
        decisions.find(|known| known.backend == backend)?.fresh_ms
    }

    /// Whether this proxy, or one that is heard, takes what this backend holds for outdated.
    pub(super) fn is_held_back_anywhere(&self, backend: &str) -> bool {
        let mut members = self.members.iter();
        let member = members.find(|member| member.spec.name == backend);
        member.is_some_and(|member| {
            let mut heard = self.peers.iter().flatten();
            self.is_given_up(member) || heard.any(|peer| peer.pending.contains(&member.backend_id))
        })
    }

    /// Nobody serves from this backend, as far as is heard.
    pub(super) fn check_is_left(&self, backend: &str) -> Result<(), Refused> {
        let mut members = self.members.iter();
        let Some(member) = members.find(|member| member.spec.name == backend) else {
            return Ok(());
        };
        let backend_id = member.backend_id;
        let is_there = |slots: &[SlotState]| {
            let mut places = slots.iter().flat_map(SlotState::places);
            places.any(|place| place == backend_id)
        };
        let still = |peer: Option<&BackendAddress>| Refused::StillServes {
            name: backend.to_owned(),
            peer: peer.cloned(),
        };
        if is_there(&self.slots) {
            return Err(still(None));
        }
        for (address, position) in self.config.peers.iter().zip(&self.peer_positions) {
            let peer = position.and_then(|position| self.peers.get(position)?.as_ref());
            if peer.is_some_and(|peer| is_there(&peer.slots)) {
                return Err(still(Some(address)));
            }
        }
        Ok(())
    }

    /// A backend gets another address in the map: if it was given up, that may be the same server's.
    pub(super) fn readdress(&mut self, member: &PoolMember, address: &BackendAddress) {
        for server in &mut self.given_up {
            if server.id.is_some() && server.may_be(&member.spec, &member.identity()) {
                server.also_at(address);
            }
        }
    }
}
