//! The pool and what becomes of it: which backends there are, how they are, where each slot is.
//!
//! No sockets, no files, no clock: what happens is told to it, with the time, and it says what is
//! new. The control thread (`control`) does the rest.

mod accept;
mod decisions;
pub(super) mod failing;
mod failovers;
mod give_up;
mod handovers;
mod join;
mod membership;
mod notice;
pub mod persisted_state;
mod preview;
mod replicas;
mod resume;
mod scope;
mod server;
mod server_fault;
mod servers;
mod steer;
mod told;
mod wording;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use failing::Failing;
use handovers::Handovers;

use self::persisted_state::{Decision, GivenUp, PersistedState, ServerMemory};
use super::probing::engines::Engines;
use super::session_timeouts::{MAX_TIMEOUT_MINUTES, SeenTimeout, SeenTimeouts};
use crate::backend::{Connector, TlsServer};
use crate::config::{
    BackendAddress, BackendSpec, BackendState, Config, HandoverConfig, PEER_SILENCE, PartitionMap,
    TlsTrust,
};
use crate::handover::schedule::{
    CopyPlaces, PeerSlot, Standing, Standings, Surroundings, Times, advance,
};
use crate::handover::{BackendId, BackendMap, Places, SlotState, SlotTable};
use crate::health::{Change, Failure, Health, HealthState};
use crate::metrics::BackendMetrics;
use crate::proxy::{ApplicationSet, Backend, MigrationBudget, Snapshot};
use crate::route::{MAX_CANDIDATES, Placement, Slot};
use crate::tls::{TlsError, TlsWatch};

pub use accept::{Accepted, Refused};
pub use failing::FailingMoves;
pub use failovers::Failover;
pub use membership::{KnownPeers, Membership, NotGone};
pub use notice::Notice;
pub use persisted_state::InUse;
pub use preview::{BackendShift, Preview, Shift, SlotFlow};
pub use resume::ResumeError;
pub use scope::PoolScope;
pub use server::Server;
pub use server_fault::{ServerFault, Wait};
pub use servers::PeerServer;
pub use steer::{Order, Override};
pub use told::ToldBackends;

/// The pool. A copy costs little: a step is tried on one, and kept once it is on disk.
#[derive(Debug, Clone)]
pub struct PoolState {
    scope: PoolScope,
    config: Config,
    /// As the file says it.
    map: PartitionMap,
    decisions: Vec<Decision>,
    placement: Arc<Placement>,
    /// The backends of the map in its order, behind them the retired ones.
    members: Vec<PoolMember>,
    /// Shared with all who read them, and copied when one changes: together they are a megabyte.
    slots: Arc<[SlotState]>,
    peers: Vec<Option<Arc<PeerView>>>,
    /// What the peers said at this time or later the slots have gone by; 0 if one was not heard.
    went_by_ms: u64,
    /// Where each peer of the main file is in `peers`; `None` for this proxy itself, and for one that is
    /// gone.
    peer_positions: Vec<Option<usize>>,
    membership: Membership,
    gone_peers: Vec<BackendAddress>,
    given_up: Vec<GivenUp>,
    timeouts: SeenTimeouts,
    handovers: Handovers,
    failing: Failing,
    last_failover: Option<Arc<Failover>>,
    moves: Arc<MigrationBudget>,
    /// The applications of the map, with what is counted of them.
    applications: Option<Arc<ApplicationSet>>,
    /// Whether every worker goes by all that is in force.
    is_followed: bool,
    engines: Engines,
}

/// One backend.
#[derive(Debug, Clone)]
pub struct PoolMember {
    /// What the map says of it, or said last, with the state that an override gives.
    pub spec: BackendSpec,
    /// Its number in lock cookies.
    pub backend_id: BackendId,
    /// Whether it is in the map.
    pub in_map: bool,
    /// Where it is asked.
    pub server: Server,
    /// Whether it answers there.
    pub health: Health,
    /// Removals that it has missed and has to be told of.
    pub pending_deletes: usize,
    /// What is counted of it.
    pub metrics: Arc<BackendMetrics>,
    /// It has been said that no slot needs it.
    is_let_go: bool,
    /// It has been said that it gets no slots yet.
    is_held_back: bool,
    /// It has been said that it gets its slots once it answers.
    is_awaited: bool,
}

/// What another proxy said of itself last.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// Version of its partition map.
    pub map_version: u64,
    /// Every slot there, in order, with times of this proxy's clock.
    pub slots: Vec<SlotState>,
    /// The backends it reaches.
    pub up: Vec<BackendId>,
    /// The backends that hold what must not be served: removals that they missed, or what was given
    /// up with them.
    pub pending: Vec<BackendId>,
    /// Where it asks its backends; `None` if it does not say.
    pub servers: Option<Vec<PeerServer>>,
    /// The backends that its map or its operators have given up, by name.
    pub off: Vec<String>,
    /// The backends that it serves from no more before what they held has died.
    pub gone: Places,
    /// What operators have decided about backends, whatever its map says, by name.
    pub decisions: Vec<Decision>,
    /// The session timeouts that it has seen, with times of this proxy's clock.
    pub timeouts: SeenTimeouts,
    /// The farm as it is part of it.
    pub membership: Membership,
    /// When it said so, by this proxy's clock.
    pub heard_ms: u64,
}

impl PoolState {
    /// What is in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The partition map in force, without the overrides.
    pub fn map(&self) -> &PartitionMap {
        &self.map
    }

    /// All backends, those of the map first and in its order.
    pub fn members(&self) -> &[PoolMember] {
        &self.members
    }

    /// Every slot, in order.
    pub fn slots(&self) -> &[SlotState] {
        &self.slots
    }

    /// Whether some slot waits for the end of a stage, or some server for the death of what it held.
    pub fn is_under_way(&self) -> bool {
        let waits = |slot: &SlotState| slot.second.is_some() || !slot.outdated.is_empty();
        !self.given_up.is_empty() || self.slots.iter().any(waits)
    }

    /// The same, to be kept.
    pub fn shared_slots(&self) -> Arc<[SlotState]> {
        Arc::clone(&self.slots)
    }

    /// The slots that it decides about, in order.
    pub fn scope(&self) -> impl Iterator<Item = Slot> + '_ {
        self.scope.slots().map(|(_, slot)| slot)
    }

    /// Where the map wants a slot.
    pub fn target(&self, slot: Slot) -> BackendId {
        self.members[self.placement.owner(slot).index()].backend_id
    }

    /// The places that serve a slot by the map, in order: the owner, then those that stand in.
    pub fn candidates(&self, slot: Slot) -> impl Iterator<Item = BackendId> {
        let candidates = self.placement.candidates(slot).iter();
        candidates.map(|index| self.members[index.index()].backend_id)
    }

    /// Name of the backend at `place`, `?` if there is none.
    pub fn name_of(&self, backend_id: BackendId) -> &str {
        name_in(&self.members, backend_id)
    }

    /// The backend with this id, if there is one.
    pub fn member(&self, backend_id: BackendId) -> Option<&PoolMember> {
        member_in(&self.members, backend_id)
    }

    /// The backends that the map gives slots to and that get none before what they hold has died, and
    /// when that is.
    pub fn held_back(&self) -> impl Iterator<Item = (&str, u64)> {
        let lifetime_ms = self.times().lifetime_ms;
        let held_back = self.members.iter().filter(|member| member.is_held_back);
        held_back.filter_map(move |member| {
            let mut given_up = self.given_up.iter();
            let server = given_up.find(|server| server.may_be(&member.spec, &member.identity()))?;
            Some((member.spec.name.as_str(), server.since_ms + lifetime_ms))
        })
    }

    /// How long the stages of a slot last.
    pub fn times(&self) -> Times {
        Times::from_config(&self.config.handover, self)
    }

    /// The longest session timeout that this proxy or a peer has seen, in minutes; 0 for none.
    pub fn longest_timeout_minutes(&self) -> u32 {
        self.timeouts.longest_minutes()
    }

    /// The longest session timeout seen, if sessions that have it may live longer than a handover
    /// lasts, in minutes.
    pub fn outlives_handovers(&self) -> Option<u32> {
        let minutes = self.longest_timeout_minutes();
        let longest = self.config.handover.max_session_timeout;
        (Duration::from_secs(60) * minutes > longest).then_some(minutes)
    }

    /// The session timeouts that this proxy or a peer has seen lately.
    pub fn timeouts(&self) -> &SeenTimeouts {
        &self.timeouts
    }

    /// What to write down.
    pub fn memory(&self) -> PersistedState {
        let retired = self.members.iter().filter(|member| !member.in_map);
        PersistedState {
            map: self.map.clone(),
            decisions: self.decisions.clone(),
            retired: retired.map(|member| member.spec.clone()).collect(),
            given_up: self.given_up.clone(),
            servers: self.server_memories(),
            failing: self.failing_moves().copied().collect(),
            timeouts: self.timeouts.clone(),
            known_peers: self.known_peers(),
            slots: self.shared_slots(),
        }
    }

    fn server_memories(&self) -> Vec<ServerMemory> {
        let members = self.members.iter();
        members
            .filter_map(|member| {
                member
                    .server
                    .memory(&member.spec.name, &member.spec.address)
            })
            .collect()
    }

    /// The ways to the engines of the map come from here.
    pub fn set_engines(&mut self, engines: Engines) {
        self.engines = engines;
    }

    /// The backends that are kept on engines and asked, with the ways there.
    pub fn engines(&self) -> impl Iterator<Item = (BackendId, Connector)> {
        let members = self.members.iter();
        let engines = members.filter(|member| member.spec.redis.is_some() && !member.is_off());
        engines.map(|member| {
            (
                member.backend_id,
                self.way_to(&member.spec, member.address()),
            )
        })
    }

    /// What the data path goes by.
    pub fn snapshot(&self) -> Snapshot {
        let engines = self.members.iter();
        let engines = engines.filter_map(|member| member.spec.redis.as_ref());
        self.engines.keep(engines, self.config.timeouts.answer);
        let backend = |member: &PoolMember| Backend {
            name: member.spec.name.clone(),
            backend_id: member.backend_id,
            server: self.way_to(&member.spec, member.address()),
            up: member.is_up(),
            metrics: Arc::clone(&member.metrics),
        };
        Snapshot::new(
            &self.config,
            self.map.version,
            self.map.hash_key,
            SlotTable::new(&self.slots),
            self.members.iter().map(backend).collect(),
            Arc::clone(&self.moves),
            self.applications.clone(),
        )
    }

    /// The applications of the map, with what is counted of them.
    pub fn applications(&self) -> Option<&ApplicationSet> {
        self.applications.as_deref()
    }

    /// The way to the backend `spec` at `address`. One that is to be reached with TLS is reached with
    /// TLS or not at all.
    pub fn way_to(&self, spec: &BackendSpec, address: Option<SocketAddr>) -> Connector {
        let Some(address) = address else {
            return Connector::Nowhere;
        };
        if let Some(redis) = &spec.redis
            && BackendAddress::from(address) == spec.address
        {
            return self.engines.way_to(redis, self.config.timeouts.answer);
        }
        let of_all = self.config.backend_tls.as_ref();
        let of_all = of_all.filter(|tls| !tls.plain.contains(&spec.name));
        let Some(trust) = spec.tls.as_ref().or(of_all.map(|tls| &tls.trust)) else {
            return Connector::Tcp(address);
        };
        match trust.target(spec.address.host()) {
            Some(target) => Connector::Tls(TlsServer { address, target }),
            None => Connector::Nowhere,
        }
    }

    /// How single backends are reached with TLS.
    fn trusts_mut(&mut self) -> impl Iterator<Item = &mut TlsTrust> {
        let members = self.members.iter_mut().map(|member| &mut member.spec);
        let specs = self.map.backends.iter_mut().chain(members);
        specs.filter_map(|spec| spec.tls.as_mut())
    }

    /// Has the certificates of single backends looked after by `watch`, as far as their files have been
    /// read.
    pub fn follow_certificates(&mut self, watch: &TlsWatch) {
        self.trusts_mut().for_each(|trust| trust.follow(watch));
    }

    /// Reads the files of backends that only the state file has told of. One whose files cannot be used is
    /// not reached: what keeps them from it.
    pub fn read_certificates(&mut self) -> Vec<TlsError> {
        let unread = self.trusts_mut().filter(|trust| trust.client.is_none());
        unread
            .filter_map(|trust| trust.load("backends of the last run").err())
            .collect()
    }

    /// The way to what is probed at `address` for the backend `backend_id`.
    pub fn way_to_probe(&self, backend_id: BackendId, address: SocketAddr) -> Connector {
        let mut members = self.members.iter();
        let member = members.find(|member| member.backend_id == backend_id);
        member.map_or(Connector::Nowhere, |member| {
            self.way_to(&member.spec, Some(address))
        })
    }

    /// Whether every worker goes by all that is in force, so that nothing is under way any more at a
    /// server that is down.
    pub fn set_followed(&mut self, is_followed: bool) {
        self.is_followed = is_followed;
    }

    /// Puts the live keys of another main file in force.
    pub fn set_config(&mut self, config: Config) {
        for member in &mut self.members {
            member.health.set_thresholds(config.health.thresholds());
        }
        let have_peers_changed = config.peers != self.config.peers;
        if have_peers_changed {
            // Nothing goes on before those that are new have said where they are.
            let known = |peer| {
                let index = self.config.peers.iter().position(|known| known == peer)?;
                let position = self.peer_positions.get(index).copied().flatten()?;
                self.peers.get(position)?.clone()
            };
            self.peers = config.peers.iter().map(known).collect();
            self.peer_positions = (0..config.peers.len()).map(Some).collect();
        }
        let max_body_bytes = config.limits.body_bytes;
        if max_body_bytes != self.moves.max_body_bytes() {
            self.moves = MigrationBudget::new(max_body_bytes);
        }
        self.config = config;
        if have_peers_changed {
            self.leave_gone_out();
        }
    }

    /// A probe of the backend at `place` has ended.
    pub fn probed(
        &mut self,
        backend_id: BackendId,
        outcome: Result<(), Failure>,
        now_ms: u64,
    ) -> Option<Change> {
        let member = self.member_mut(backend_id)?;
        member.server.probed(outcome);
        match outcome {
            Ok(()) => member.health.probe_ok(now_ms),
            Err(failure) => {
                let answered = member.metrics.answered();
                member.health.probe_failed(failure, answered, now_ms)
            }
        }
    }

    /// A request failed because of the backend at `place`.
    pub fn request_failed(
        &mut self,
        backend_id: BackendId,
        failure: Failure,
        now_ms: u64,
    ) -> Option<Change> {
        let member = self.member_mut(backend_id)?;
        let answered = member.metrics.answered();
        member.health.request_failed(failure, answered, now_ms)
    }

    /// The data path has seen a session with this timeout.
    pub fn saw_timeout(&mut self, minutes: u32, seen_ms: u64) {
        self.timeouts.saw(SeenTimeout { minutes, seen_ms });
    }

    /// Whether a session with this timeout is to be remembered over a restart: it makes the times of
    /// handovers longer, or will have been forgotten before it dies.
    pub fn is_timeout_news(&self, minutes: u32, now_ms: u64) -> bool {
        Duration::from_secs(60) * minutes > self.config.handover.session_timeout
            && self.timeouts.is_news(minutes, now_ms)
    }

    /// What the peer at this position of the main file says; `None` when it does not answer.
    pub fn set_peer(&mut self, index: usize, view: Option<PeerView>) {
        let position = self.peer_positions.get(index).copied().flatten();
        let Some(peer) = position.and_then(|position| self.peers.get_mut(position)) else {
            return;
        };
        *peer = view.map(Arc::new);
        let Some(peer) = peer else {
            return;
        };
        // Kept when the peer falls silent: the sessions are still there. They count in full, whatever
        // this proxy lets a handover last: outdated copies live as long as they do.
        for seen in peer.timeouts.iter() {
            let minutes = seen.minutes.min(MAX_TIMEOUT_MINUTES);
            let seen_ms = seen.seen_ms.min(peer.heard_ms);
            self.timeouts.saw(SeenTimeout { minutes, seen_ms });
        }
    }

    /// Whether nothing has to be agreed with the peer at this position of the main file, because it is
    /// this proxy itself or gone.
    pub fn set_left_out(&mut self, index: usize, is_left_out: bool) {
        let Some(known) = self.peer_positions.get_mut(index) else {
            return;
        };
        match *known {
            Some(position) if is_left_out => {
                *known = None;
                self.peers.remove(position);
                let later = self.peer_positions.iter_mut().flatten();
                later
                    .filter(|other| **other > position)
                    .for_each(|other| *other -= 1);
            }
            None if !is_left_out => {
                *known = Some(self.peers.len());
                self.peers.push(None);
            }
            _ => {}
        }
    }

    /// The peers that are other proxies.
    pub fn peers(&self) -> &[Option<Arc<PeerView>>] {
        &self.peers
    }

    /// How many removals the backend at `place` has to be told of.
    pub fn set_pending_deletes(&mut self, backend_id: BackendId, pending_deletes: usize) {
        if let Some(member) = self.member_mut(backend_id) {
            member.pending_deletes = pending_deletes;
        }
    }

    /// Takes every slot on to where it is now; what is new for the log. Slots may have changed
    /// without it.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Notice> {
        self.tick_by(advance, now_ms)
    }

    /// The same by other rules than those of [`advance`].
    pub fn tick_by(
        &mut self,
        advance: impl Fn(SlotState, &Surroundings<'_>) -> SlotState,
        now_ms: u64,
    ) -> Vec<Notice> {
        self.timeouts.forget_dead(now_ms);
        self.went_by_ms = self.heard_all_ms();
        let times = self.times();
        let mut notices = self.forget_given_up(now_ms);
        notices.extend(self.settle_servers(now_ms));
        let standings = self.standings();
        self.give_up(now_ms);
        let fit = self.fit_to_stand_in();
        let mut changes = notice::Changes::default();
        let mut is_wanted = BackendMap::filled(false);
        let mut peers = vec![None; self.peers.len()];
        let mut stand_ins = Vec::with_capacity(MAX_CANDIDATES);
        let keepers = self.keepers();
        let mut replicas = Vec::with_capacity(MAX_CANDIDATES);
        let scope = self.scope.clone();
        for (index, slot) in scope.slots() {
            let before = self.slots[index];
            let target = self.target(slot);
            let rests =
                self.map.replicas == 0 && before == SlotState::steady(target, before.since_ms);
            let is_elsewhere = before.second.is_none() && before.first != target;
            is_wanted[target] |= is_elsewhere;
            if rests && peers.is_empty() && standings.get(target).up_since_ms.is_some() {
                continue;
            }
            self.look_at_peers(before, index, &mut peers);
            self.look_for_stand_ins(slot, &fit, &mut stand_ins);
            self.look_for_replicas(slot, &fit, keepers, &mut replicas);
            let around = Surroundings {
                copies: CopyPlaces {
                    candidates: &replicas,
                    keepers,
                },
                target,
                stand_ins: &stand_ins,
                standings: &standings,
                peers: &peers,
                times: &times,
                move_failed_ms: self.failing.last_ms(&before),
                is_broken_off: self.is_followed,
                now_ms,
            };
            let after = advance(before, &around);
            if after != before {
                Arc::make_mut(&mut self.slots)[index] = after;
                changes.add(before, after);
                self.handovers
                    .changed(&before, &after, &self.members, now_ms);
            }
        }
        self.note_failovers(changes.recovered(), now_ms);
        notices.extend(changes.notices(&self.members));
        let ended = self.handovers.ended(&self.slots, &self.members, now_ms);
        notices.extend(ended);
        notices.extend(self.failing.notices(&self.slots, &self.members));
        self.hold_back(&times, now_ms, &mut notices);
        self.await_answers(&is_wanted, &mut notices);
        self.let_go(&mut notices);
        notices
    }

    fn standings(&self) -> Standings {
        let mut standings = Standings::new();
        let bound = self.bound_to_leave();
        for member in &self.members {
            let up_since_ms = member.is_up().then(|| member.health.since_ms());
            standings.set(
                member.backend_id,
                Standing {
                    gone: self.is_left(member) || bound.contains(member.backend_id),
                    insisted: self.is_insisted(member),
                    up_since_ms,
                    is_doubted: member.is_doubted(),
                    holds_stale: member.pending_deletes > 0
                        || self.is_owed_by_peers(member)
                        || self.is_given_up(member),
                    is_new: !member.health.has_answered(),
                    is_leaving: member.is_leaving(),
                },
            );
        }
        standings
    }

    /// Says once why a backend that the map gives slots to gets none, although it may answer.
    fn hold_back(&mut self, times: &Times, now_ms: u64, notices: &mut Vec<Notice>) {
        for member in &mut self.members {
            let is_wanted = member.in_map && member.spec.state == BackendState::Active;
            let mut given_up = self.given_up.iter();
            let given_up = given_up
                .find(|server| server.may_be(&member.spec, &member.identity()))
                .filter(|_| is_wanted);
            if let Some(server) = given_up.filter(|_| !member.is_held_back) {
                let end_ms = server.since_ms + times.lifetime_ms;
                let left_ms = end_ms.saturating_sub(now_ms);
                notices.push(Notice::held_back(&member.spec.name, left_ms));
            }
            member.is_held_back = given_up.is_some();
        }
    }

    /// Says once that a backend which is to have slots that are elsewhere has not answered yet.
    fn await_answers(&mut self, is_wanted: &BackendMap<bool>, notices: &mut Vec<Notice>) {
        for member in &mut self.members {
            let is_awaited = is_wanted[member.backend_id] && !member.health.has_answered();
            if is_awaited && !member.is_awaited {
                notices.push(Notice::awaited(&member.spec.name));
            }
            member.is_awaited = is_awaited;
        }
    }

    /// The places that may stand in: they have answered, and are up for this proxy and for all
    /// others, as far as they are heard, so that all choose the same one.
    fn fit_to_stand_in(&self) -> BackendMap<bool> {
        let mut fit = BackendMap::filled(false);
        let members = self.members.iter();
        let answers = |member: &&PoolMember| member.is_up() && member.health.has_answered();
        for member in members.filter(answers) {
            if self.is_given_up(member) {
                continue;
            }
            let mut peers = self.peers.iter().flatten();
            fit[member.backend_id] = peers.all(|peer| peer.up.contains(&member.backend_id));
        }
        fit
    }

    /// The candidates that are fit, the next one first.
    fn look_for_stand_ins(&self, slot: Slot, fit: &BackendMap<bool>, out: &mut Vec<BackendId>) {
        let places = self.candidates(slot);
        out.clear();
        out.extend(places.filter(|backend_id| fit[*backend_id]));
    }

    /// A removal that another proxy noted is as good a reason to wait: what is outdated is so for
    /// all.
    fn is_owed_by_peers(&self, member: &PoolMember) -> bool {
        let mut heard = self.peers.iter().flatten();
        heard.any(|peer| peer.pending.contains(&member.backend_id))
    }

    fn look_at_peers(&self, state: SlotState, index: usize, out: &mut [Option<PeerSlot>]) {
        for (out, peer) in out.iter_mut().zip(&self.peers) {
            *out = peer.as_ref().and_then(|peer| {
                Some(PeerSlot {
                    slot: *peer.slots.get(index)?,
                    second_up: state.second.is_some_and(|second| peer.up.contains(&second)),
                    gone: peer.gone,
                    heard_ms: peer.heard_ms,
                })
            });
        }
    }

    /// Forgets retired backends that no slot needs here or at another proxy: this one could not follow
    /// the other to a backend that it does not know. Says once that a drained one is free: it serves
    /// nothing, and what it kept copies of has others.
    fn let_go(&mut self, notices: &mut Vec<Notice>) {
        let is_needed = self.needed(places_known);
        let is_served = self.needed(|slot| slot.places());
        let missed_until_ms = self.missed_until_ms();
        for member in &mut self.members {
            let is_replaced = missed_until_ms[member.backend_id].is_none();
            let is_free = !is_served[member.backend_id] && is_replaced;
            let is_leaving = member.is_leaving();
            if is_free && is_leaving && !member.is_let_go {
                notices.push(Notice::let_go(&member.spec.name));
            }
            member.is_let_go = is_free && is_leaving;
        }
        let is_retired = |member: &PoolMember| !member.in_map && !is_needed[member.backend_id];
        if self.members.iter().any(is_retired) {
            let is_needed = self.needed_elsewhere();
            self.members
                .retain(|member| !is_retired(member) || is_needed[member.backend_id]);
        }
    }

    /// The places that another proxy may have slots at: it says so, or does not say.
    fn needed_elsewhere(&self) -> BackendMap<bool> {
        let mut is_needed = BackendMap::filled(self.peers.iter().any(Option::is_none));
        let slots = self.peers.iter().flatten().flat_map(|peer| &peer.slots);
        for backend_id in slots.flat_map(places_known) {
            is_needed[backend_id] = true;
        }
        is_needed
    }

    /// Which places are among those of a slot.
    fn needed<P: Iterator<Item = BackendId>>(
        &self,
        of: impl Fn(&SlotState) -> P,
    ) -> BackendMap<bool> {
        let mut is_needed = BackendMap::filled(false);
        for backend_id in self.slots.iter().flat_map(of) {
            is_needed[backend_id] = true;
        }
        is_needed
    }

    fn member_mut(&mut self, backend_id: BackendId) -> Option<&mut PoolMember> {
        self.members
            .iter_mut()
            .find(|member| member.backend_id == backend_id)
    }
}

fn member_in(members: &[PoolMember], backend_id: BackendId) -> Option<&PoolMember> {
    members
        .iter()
        .find(|member| member.backend_id == backend_id)
}

fn name_in(members: &[PoolMember], backend_id: BackendId) -> &str {
    member_in(members, backend_id).map_or("?", |member| &member.spec.name)
}

impl PoolMember {
    fn new(spec: BackendSpec, config: &Config, now_ms: u64) -> Option<Self> {
        Some(Self {
            backend_id: BackendId::new(spec.id)?,
            server: Server::at(&spec.address, now_ms),
            spec,
            in_map: true,
            health: Health::new(config.health.thresholds(), now_ms),
            pending_deletes: 0,
            metrics: Arc::default(),
            is_let_go: false,
            is_held_back: false,
            is_awaited: false,
        })
    }

    /// How it is: what its health says, and down without an address.
    pub fn verdict(&self) -> HealthState {
        match self.address() {
            Some(_) => self.health.verdict(),
            None => HealthState::Down,
        }
    }

    /// Whether it is asked at all.
    pub fn is_up(&self) -> bool {
        self.verdict() != HealthState::Down
    }

    /// Whether it is about to count as down, or wrongly suspected ([`Health::is_doubted`]).
    fn is_doubted(&self) -> bool {
        // Who has answered is added up over all workers.
        self.verdict() == HealthState::Suspect && self.health.is_doubted(self.metrics.answered())
    }

    /// Whether it is to be left: it is drained, off, or not in the map any more.
    pub fn is_leaving(&self) -> bool {
        !self.in_map || self.spec.state != BackendState::Active
    }

    /// Whether the operator has given it up.
    pub fn is_off(&self) -> bool {
        self.in_map && self.spec.state == BackendState::Off
    }
}

/// The places of a slot, and those that must not get it yet: what they hold has not died.
fn places_known(slot: &SlotState) -> impl Iterator<Item = BackendId> + use<> {
    let replica = slot.replica.map(|replica| replica.backend_id);
    slot.places().chain(slot.outdated.places()).chain(replica)
}

impl Times {
    fn from_config(config: &HandoverConfig, pool_state: &PoolState) -> Self {
        let timeouts = &pool_state.config.timeouts;
        let seen = Duration::from_secs(60) * pool_state.timeouts.longest_minutes();
        let lifetime = seen.max(config.session_timeout);
        let moving = lifetime.min(config.max_session_timeout);
        let ms = |duration: Duration| duration.as_millis() as u64;
        Self {
            settle_ms: ms(config.settle),
            move_ms: ms(moving + config.takeover),
            lifetime_ms: ms(lifetime + config.takeover),
            failover_after_ms: ms(config.failover_after),
            overlap_ms: ms(timeouts.connect + timeouts.answer),
            silence_ms: ms(PEER_SILENCE),
            failover: config.failover,
        }
    }
}

#[cfg(test)]
mod tests;
