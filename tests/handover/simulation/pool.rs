//! The pool state for a handful of slots: it would take all 16,384 on at every tick and place them
//! anew at every map, which is too slow for thousands of worlds. Health, placements and what
//! becomes of a slot are the real ones; what is around them repeats `control::pool_state`, and
//! `whole_pool_states_decide_alike` holds the two together.

use std::collections::BTreeMap;
use std::time::Duration;

use staterouter::config::{BackendState, Config};
use staterouter::handover::schedule::{
    CopyPlaces, PeerSlot, Standing, Standings, Surroundings, Times, missed,
};
use staterouter::handover::{
    BackendId, Outdated, Places, Replica, ReplicaPhase, SlotState, Stage, advance,
};
use staterouter::health::{Failure, Health, HealthState};
use staterouter::route::Slot;

use super::brain::{Brain, Edition, Maker, Placed, Remembered, Seen, View};
use super::broken::Broken;
use super::maps::{self, Entry};

#[derive(Debug)]
pub(crate) struct Pool {
    config: Config,
    broken: Option<Broken>,
    edition: Edition,
    placement: Placed,
    members: Vec<Member>,
    /// Numbers of the slots, and where they are.
    numbers: Vec<Slot>,
    slots: Vec<SlotState>,
    peers: Vec<Option<View>>,
    /// Servers that are gone with what they hold, and since when.
    given_up: Vec<(BackendId, u64)>,
    /// When a session could not be moved last, by where it is and where it is to go.
    failing: BTreeMap<(BackendId, BackendId), u64>,
    replicas: bool,
    is_followed: bool,
    /// The slots as the others are told of them.
    told: Vec<SlotState>,
}

#[derive(Debug, Clone)]
struct Member {
    entry: Entry,
    backend_id: BackendId,
    in_map: bool,
    health: Health,
    owed: usize,
}

/// What survives a proxy.
#[derive(Debug, Clone)]
pub(crate) struct PoolMemory {
    edition: Edition,
    retired: Vec<Entry>,
    slots: Vec<SlotState>,
    given_up: Vec<(BackendId, u64)>,
    failing: Vec<(BackendId, BackendId)>,
}

impl Pool {
    pub(crate) fn new(maker: &Maker, edition: &Edition, now_ms: u64) -> Self {
        let config = maker.config.clone();
        let placement = maps::placement(&edition.spec);
        let member = |entry: &Entry| Member::new(*entry, &config, now_ms);
        let members: Vec<Member> = edition.spec.iter().map(member).collect();
        let owner = |slot: &Slot| members[placement.owner(*slot).index()].backend_id;
        let steady = |slot| SlotState::steady(owner(slot), now_ms);
        let mut pool = Self {
            replicas: maker.replicas,
            is_followed: true,
            told: Vec::new(),
            peers: vec![None; config.peers.len()],
            slots: maker.slots.iter().map(steady).collect(),
            numbers: maker.slots.clone(),
            edition: edition.clone(),
            config,
            broken: maker.broken,
            placement,
            members,
            given_up: Vec::new(),
            failing: BTreeMap::new(),
        };
        pool.begin_with_copies(now_ms);
        pool.told.clone_from(&pool.slots);
        pool
    }

    /// At the start nobody has a session, and every replica has all of them.
    fn begin_with_copies(&mut self, now_ms: u64) {
        for index in 0..self.slots.len() {
            self.slots[index].replica = self.copy_candidates(index).first().map(|at| Replica {
                backend_id: *at,
                phase: ReplicaPhase::Full,
                since_ms: now_ms,
            });
        }
    }

    fn keepers(&self) -> Places {
        let members = self.members.iter().filter(|member| {
            let is_active = member.in_map && member.entry.2 == BackendState::Active;
            is_active && !self.is_left(member) && !self.is_given_up(member.backend_id)
        });
        let keepers = members.filter(|_| self.replicas);
        keepers.map(|member| member.backend_id).collect()
    }

    fn copy_candidates(&self, index: usize) -> Vec<BackendId> {
        let keepers = self.keepers();
        let candidates = self.placement.candidates(self.numbers[index]).iter();
        let all: Vec<&Member> = candidates
            .map(|candidate| &self.members[candidate.index()])
            .collect();
        let heir = all.get(1).copied();
        let others = all.iter().skip(2).chain(all.iter().take(1)).copied();
        let fit = others.chain(heir).filter(|member| {
            let mut peers = self.peers.iter().flatten();
            member.is_up()
                && keepers.contains(member.backend_id)
                && peers.all(|peer| peer.up.contains(&member.backend_id))
        });
        let fit = fit.map(|member| member.backend_id);
        fit.filter(|at| *at != self.slots[index].first).collect()
    }

    pub(crate) fn resume(maker: &Maker, memory: PoolMemory, now_ms: u64) -> Self {
        let mut pool = Self::new(maker, &memory.edition, now_ms);
        for entry in memory.retired {
            pool.members.push(Member {
                in_map: false,
                ..Member::new(entry, &pool.config, now_ms)
            });
        }
        for slot in &memory.slots {
            if let (Stage::Suspect | Stage::Away, Some(second)) = (slot.stage, slot.second) {
                let fall = pool.config.health.fall;
                let member = pool.member_mut(second).filter(|member| member.is_up());
                if let Some(member) = member {
                    for _ in 0..fall {
                        member.health.probe_failed(Failure::Broken, 0, now_ms);
                    }
                }
            }
        }
        pool.slots = memory.slots;
        for replica in pool
            .slots
            .iter_mut()
            .filter_map(|slot| slot.replica.as_mut())
        {
            if replica.phase == ReplicaPhase::Filling {
                replica.since_ms = now_ms;
            }
        }
        pool.told.clone_from(&pool.slots);
        pool.given_up = memory.given_up;
        for way in memory.failing {
            pool.failing.insert(way, now_ms);
        }
        for index in 0..pool.slots.len() {
            let slot = pool.slots[index];
            if pool.move_failed_ms(&slot).is_some() && slot.stage.is_handover() {
                pool.slots[index].since_ms = now_ms;
            }
        }
        pool
    }

    fn move_failed_ms(&self, slot: &SlotState) -> Option<u64> {
        let known = self.failing.get(&(slot.second?, slot.first)).copied();
        known.filter(|_| self.broken != Some(Broken::NoHold))
    }

    fn standings(&self) -> Standings {
        let mut standings = Standings::new();
        for member in &self.members {
            standings.set(
                member.backend_id,
                Standing {
                    gone: self.is_gone(member),
                    insisted: self.broken == Some(Broken::NoAgreement),
                    up_since_ms: member.is_up().then(|| member.health.since_ms()),
                    holds_stale: member.owed > 0
                        || self.is_owed_by_peers(member.backend_id)
                        || self.is_given_up(member.backend_id),
                    is_new: !member.health.has_answered(),
                    is_leaving: !member.in_map || member.entry.2 != BackendState::Active,
                },
            );
        }
        standings
    }

    fn is_left(&self, member: &Member) -> bool {
        let is_lost = !member.in_map && !member.is_up() && !self.config.handover.failover;
        let mut newer = self.peers.iter().flatten();
        let is_off_elsewhere = newer.any(|peer| {
            peer.version > self.edition.version && peer.off.contains(&member.backend_id)
        });
        member.is_off() || is_lost || is_off_elsewhere
    }

    fn is_gone(&self, member: &Member) -> bool {
        let backend_id = member.backend_id;
        let is_bound =
            !self.peers.is_empty() && self.is_given_up(backend_id) && self.is_needed(backend_id);
        self.is_left(member) || is_bound
    }

    fn is_owed_by_peers(&self, backend_id: BackendId) -> bool {
        let mut heard = self.peers.iter().flatten();
        heard.any(|peer| peer.owed.contains(&backend_id))
    }

    fn is_given_up(&self, backend_id: BackendId) -> bool {
        self.given_up.iter().any(|server| server.0 == backend_id)
    }

    fn is_needed(&self, backend_id: BackendId) -> bool {
        let mut places = self.slots.iter().flat_map(|slot| slot.places());
        places.any(|served| served == backend_id)
    }

    fn give_up(&mut self, now_ms: u64) {
        let left = self.members.iter().filter(|member| self.is_left(member));
        for backend_id in left.map(|member| member.backend_id).collect::<Vec<_>>() {
            if self.is_needed(backend_id) {
                self.given_up.retain(|server| server.0 != backend_id);
                self.given_up.push((backend_id, now_ms));
            }
        }
    }

    fn stand_ins(&self, index: usize) -> Vec<BackendId> {
        let is_fit = |member: &&Member| {
            let mut peers = self.peers.iter().flatten();
            member.is_up()
                && member.health.has_answered()
                && !self.is_given_up(member.backend_id)
                && peers.all(|peer| peer.up.contains(&member.backend_id))
        };
        let candidates = self.placement.candidates(self.numbers[index]).iter();
        let members = candidates.map(|candidate| &self.members[candidate.index()]);
        let fit = members.filter(is_fit);
        fit.map(|member| member.backend_id).collect()
    }

    fn peer_slots(&self, index: usize, state: SlotState) -> Vec<Option<PeerSlot>> {
        let look = |peer: &Option<View>| {
            peer.as_ref().map(|peer| PeerSlot {
                slot: peer.slots[index],
                second_up: state.second.is_some_and(|second| peer.up.contains(&second)),
                gone: peer.gone,
                heard_ms: peer.heard_ms,
            })
        };
        self.peers.iter().map(look).collect()
    }

    fn let_go(&mut self) {
        let mut members = std::mem::take(&mut self.members);
        let is_known = |backend_id| {
            self.slots
                .iter()
                .any(|slot| slot.outdated.contains(backend_id))
        };
        let is_needed = |backend_id| self.is_needed(backend_id) || is_known(backend_id);
        members.retain(|member| member.in_map || is_needed(member.backend_id));
        self.members = members;
    }

    fn member_mut(&mut self, backend_id: BackendId) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.backend_id == backend_id)
    }
}

impl Brain for Pool {
    fn memory(&self) -> Remembered {
        let retired = self.members.iter().filter(|member| !member.in_map);
        Remembered::Pool(PoolMemory {
            edition: self.edition.clone(),
            retired: retired.map(|member| member.entry).collect(),
            slots: self.slots.clone(),
            given_up: self.given_up.clone(),
            failing: self.failing.keys().copied().collect(),
        })
    }

    fn version(&self) -> u64 {
        self.edition.version
    }

    fn accept(&mut self, edition: &Edition, now_ms: u64) {
        let mut before = std::mem::take(&mut self.members);
        for entry in &edition.spec {
            let known = before.iter().position(|member| member.entry.0 == entry.0);
            let member = known.map(|known| before.swap_remove(known));
            let mut member = member.unwrap_or_else(|| Member::new(*entry, &self.config, now_ms));
            if member.is_off() {
                member.health.ask_anew(0);
            }
            self.members.push(Member {
                entry: *entry,
                in_map: true,
                ..member
            });
        }
        let retire = |member| Member {
            in_map: false,
            ..member
        };
        self.members.extend(before.into_iter().map(retire));
        self.placement = maps::placement(&edition.spec);
        self.edition = edition.clone();
    }

    fn probed(&mut self, backend_id: BackendId, outcome: Result<(), Failure>, now_ms: u64) {
        if let Some(member) = self.member_mut(backend_id) {
            match outcome {
                Ok(()) => member.health.probe_ok(now_ms),
                Err(failure) => member.health.probe_failed(failure, 0, now_ms),
            };
        }
    }

    fn request_failed(&mut self, backend_id: BackendId, failure: Failure, now_ms: u64) {
        if let Some(member) = self.member_mut(backend_id) {
            member.health.request_failed(failure, 0, now_ms);
        }
    }

    fn set_peer(&mut self, index: usize, view: Option<View>) {
        self.peers[index] = view;
    }

    fn set_owed(&mut self, backend_id: BackendId, owed: usize) {
        if let Some(member) = self.member_mut(backend_id) {
            member.owed = owed;
        }
    }

    fn move_failed(&mut self, from: BackendId, to: BackendId, now_ms: u64) {
        if self
            .slots
            .iter()
            .filter_map(way)
            .any(|way| way == (from, to))
        {
            self.failing.insert((from, to), now_ms);
        }
    }

    fn copies_missed(&mut self, slots: &[usize], now_ms: u64) {
        for slot in slots {
            self.slots[*slot] = missed(self.slots[*slot], now_ms);
        }
    }

    fn set_followed(&mut self, is_followed: bool) {
        self.is_followed = is_followed;
        if is_followed {
            self.told.clone_from(&self.slots);
        }
    }

    fn tick(&mut self, now_ms: u64) {
        let times = times(&self.config);
        let is_dead = |since_ms: u64| now_ms.saturating_sub(since_ms) >= times.lifetime_ms;
        self.given_up.retain(|server| !is_dead(server.1));
        let standings = self.standings();
        self.give_up(now_ms);
        for index in 0..self.slots.len() {
            let mut before = self.slots[index];
            let mut peers = self.peer_slots(index, before);
            if self.broken == Some(Broken::NoOutdated) {
                let peers = peers.iter_mut().flatten().map(|peer| &mut peer.slot);
                for slot in peers.chain([&mut before]) {
                    forget_outdated(slot, &standings);
                }
            }
            let is_full = before.replica_in(ReplicaPhase::Full).is_some();
            if self.broken == Some(Broken::NoCopyAgreement)
                && is_full
                && before.stage == Stage::Suspect
            {
                peers.clear();
            }
            let after = advance(
                before,
                &Surroundings {
                    copies: CopyPlaces {
                        candidates: &self.copy_candidates(index),
                        keepers: self.keepers(),
                    },
                    target: self.target(index),
                    stand_ins: &self.stand_ins(index),
                    standings: &standings,
                    peers: &peers,
                    times: &times,
                    move_failed_ms: self.move_failed_ms(&before),
                    is_broken_off: self.is_followed,
                    now_ms,
                },
            );
            self.slots[index] = match self.broken {
                Some(broken) => broken.slot(before, after),
                None => after,
            };
        }
        let ways: Vec<_> = self.slots.iter().filter_map(way).collect();
        self.failing.retain(|known, _| ways.contains(known));
        self.let_go();
    }

    fn slots(&self) -> Vec<SlotState> {
        self.slots.clone()
    }

    fn target(&self, index: usize) -> BackendId {
        self.members[self.placement.owner(self.numbers[index]).index()].backend_id
    }

    fn members(&self) -> Vec<Seen> {
        let seen = |member: &Member| Seen {
            backend_id: member.backend_id,
            verdict: Seen::verdict(&member.health),
            owed: member.owed,
            is_off: member.is_off(),
        };
        self.members.iter().map(seen).collect()
    }

    fn view(&self) -> View {
        let members = self.members.iter();
        let up = members.filter(|member| member.is_up() && !member.is_off());
        let up = up.map(|member| member.backend_id).collect();
        let owing = self.members.iter();
        let owing = owing.filter(|member| member.owed > 0 || self.is_given_up(member.backend_id));
        let owed = owing.map(|member| member.backend_id).collect();
        let off = self.members.iter().filter(|member| member.is_off());
        let gone = self.members.iter().filter(|member| self.is_gone(member));
        View {
            off: off.map(|member| member.backend_id).collect(),
            gone: gone.map(|member| member.backend_id).collect::<Places>(),
            ..View::new(self.version(), self.told.clone(), up, owed)
        }
    }
}

/// The handover that a slot is in, also while it cannot go on: from where to where.
fn way(slot: &SlotState) -> Option<(BackendId, BackendId)> {
    let (stage, to, from) = match slot.before {
        Some(before) => (before.stage, before.first, before.second),
        None => (slot.stage, slot.first, slot.second),
    };
    Some((from.filter(|_| stage.is_handover())?, to))
}

/// Makes what a suspect slot was look as if its places had not been stood in for lately.
fn forget_outdated(slot: &mut SlotState, standings: &Standings) {
    slot.outdated = Outdated::NONE;
    let is_down = |backend_id| standings.get(backend_id).up_since_ms.is_none();
    if let (true, Some(before)) = (slot.second.is_some_and(is_down), &mut slot.before) {
        before.since_ms = 0;
    }
}

impl Member {
    fn new(entry: Entry, config: &Config, now_ms: u64) -> Self {
        Self {
            entry,
            backend_id: BackendId::new(entry.0).unwrap(),
            in_map: true,
            health: Health::new(config.health.thresholds(), now_ms),
            owed: 0,
        }
    }

    fn is_up(&self) -> bool {
        self.health.verdict() != HealthState::Down
    }

    fn is_off(&self) -> bool {
        self.in_map && self.entry.2 == BackendState::Off
    }
}

/// How long the stages last.
pub(crate) fn times(config: &Config) -> Times {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let handover = &config.handover;
    Times {
        settle_ms: ms(handover.settle),
        move_ms: ms(handover.session_timeout + handover.takeover),
        lifetime_ms: ms(handover.session_timeout + handover.takeover),
        failover_after_ms: ms(handover.failover_after),
        overlap_ms: ms(config.timeouts.connect + config.timeouts.answer),
        failover: handover.failover,
    }
}
