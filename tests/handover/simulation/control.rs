//! The control thread of a proxy: probes, peers, maps, ticks, removals that were missed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use staterouter::config::BackendState;
use staterouter::control::pool_state::PoolState;
use staterouter::control::pool_state::persisted_state::PersistedState;
use staterouter::control::probing::coalesced_failures::CoalescedFailures;
use staterouter::control::steps::ControlSteps;
use staterouter::handover::{BackendId, NO_LOCK, ReplicaPhase, SlotState, SlotTable, Stage, Times};
use staterouter::health::{Change, Failure, HealthState, pause_ms};

use super::brain::{Brain, Edition, Told};
use super::broken::Broken;
use super::copying::Copies;
use super::hand::Hand;
use super::hold::Held;
use super::net::{Message, Op, Power, Purpose, Reply};
use super::plan::{SERVERS, START_MS};
use super::proxy::{InForce, Job};
use super::trace::Scope;
use super::world::{Event, Finding, World};

/// How often while nothing is expected.
const SLOW_ROUND_MS: u64 = 15_000;
const NEVER: u64 = u64::MAX;

/// One proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) brain: Brain,
    /// How often it has been started.
    pub(crate) boot: u32,
    pub(crate) is_on: bool,
    /// What survives it.
    pub(crate) on_disk: PersistedState,
    /// Position of the newest map that has reached it.
    newest_map: usize,
    /// Removals that servers have missed; survives the process.
    pub(crate) owed: BTreeSet<(BackendId, usize)>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    /// Requests that wait, in the order in which they came.
    pub(crate) held: Vec<Held>,
    pub(crate) in_force: InForce,
    /// When each server went down last, as far as it is in force.
    pub(crate) down_since_ms: [u64; SERVERS as usize],
    pub(crate) copies: Copies,
    /// When each of the others was asked what it has said last.
    pub(crate) heard_ms: Vec<u64>,
    /// The slots that the data path goes by.
    slots: Vec<SlotState>,
    /// Another snapshot, which it does not go by yet.
    pub(crate) shown: Option<Shown>,
    pub(crate) is_followed: bool,
    /// The slots as of when all was followed.
    pub(crate) followed: Vec<SlotState>,
    /// What the others can hear of it.
    pub(crate) told: Told,
    probing: [bool; SERVERS as usize],
    failures: CoalescedFailures,
    replays: BTreeMap<BackendId, Replay>,
    round_ms: u64,
    tick_ms: u64,
}

/// What the data path is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    slots: Vec<SlotState>,
    /// Places that are known, and those that are up, by bit.
    known: u128,
    up: u128,
}

/// Removals that one server is being told of.
#[derive(Debug)]
struct Replay {
    attempt: u64,
    session: usize,
    tries: u64,
    /// Nothing is sent before this.
    next_ms: u64,
    is_under_way: bool,
}

impl Proxy {
    pub(crate) fn new(brain: Brain, peers: usize, now_ms: u64) -> Self {
        let pool_state = &brain.pool_state;
        Self {
            slots: brain.slots(),
            on_disk: pool_state.memory(),
            shown: None,
            is_followed: true,
            followed: brain.slots(),
            told: Told::of(pool_state, brain.slots()),
            in_force: InForce::new(Shown::of(pool_state), 0),
            brain,
            boot: 0,
            is_on: true,
            newest_map: 0,
            owed: BTreeSet::new(),
            jobs: BTreeMap::new(),
            held: Vec::new(),
            down_since_ms: [0; SERVERS as usize],
            copies: Copies::new(now_ms),
            heard_ms: vec![now_ms; peers],
            probing: [false; SERVERS as usize],
            failures: CoalescedFailures::default(),
            replays: BTreeMap::new(),
            round_ms: NEVER,
            tick_ms: NEVER,
        }
    }

    pub(crate) fn slots(&self) -> &[SlotState] {
        &self.slots
    }

    pub(crate) fn owes_nothing(&self) -> bool {
        self.owed.is_empty()
    }

    pub(crate) fn reaches_all(&self) -> bool {
        let members = self.brain.members();
        let mut used = members.iter().filter(|member| !member.is_off);
        used.all(|member| member.verdict == HealthState::Up)
    }

    /// Tells the pool state how much is owed to each server.
    pub(crate) fn count_owed(&mut self) {
        for backend_id in places() {
            let owed = self.owed.iter().filter(|owed| owed.0 == backend_id);
            let pool_state = &mut self.brain.pool_state;
            pool_state.set_pending_deletes(backend_id, owed.count());
        }
    }
}

impl Shown {
    pub(crate) fn of(pool_state: &PoolState) -> Self {
        let (mut known, mut up) = (0, 0);
        for member in pool_state.members() {
            known |= 1 << member.backend_id.id();
            up |= u128::from(member.is_up()) << member.backend_id.id();
        }
        Self {
            slots: pool_state.slots().to_vec(),
            known,
            up,
        }
    }
}

impl InForce {
    fn new(shown: Shown, number: u64) -> Self {
        Self {
            table: Rc::new(SlotTable::new(&shown.slots)),
            known: shown.known,
            up: shown.up,
            number,
        }
    }
}

impl World {
    /// Control of a proxy takes steps; then the data path goes by what has come into force.
    fn control(&mut self, p: usize, steps: impl FnOnce(&mut Hand<'_>)) {
        steps(&mut Hand { world: self, p });
        self.go_by_snapshot(p);
        if !self.proxies[p].is_followed {
            self.tick_soon(p);
        }
    }

    /// The data path goes by another snapshot, if there is one.
    fn go_by_snapshot(&mut self, p: usize) {
        let now_ms = self.now_ms;
        let proxy = &mut self.proxies[p];
        let Some(shown) = proxy.shown.take() else {
            return;
        };
        proxy.is_followed = false;
        let after = shown.slots.clone();
        let before = std::mem::replace(&mut proxy.slots, after.clone());
        let was_up = proxy.in_force.up;
        let number = proxy.in_force.number + 1;
        proxy.in_force = InForce::new(shown, number);
        let down = was_up & proxy.in_force.known & !proxy.in_force.up;
        for backend_id in places().filter(|at| down >> at.id() & 1 == 1) {
            proxy.down_since_ms[usize::from(backend_id.id()) - 1] = now_ms;
        }
        if down != 0 {
            self.break_off(p, down);
        }
        for (slot, (before, after)) in before.into_iter().zip(after).enumerate() {
            if before != after {
                self.slot_changed(p, slot, before, after);
            }
        }
        self.let_go(p);
    }

    /// Looks what the time has changed, as soon as production does.
    pub(crate) fn tick_soon(&mut self, p: usize) {
        self.tick_by(p, self.now_ms);
    }

    /// Looks with the first tick after this time.
    pub(crate) fn tick_by(&mut self, p: usize, time_ms: u64) {
        let tick_ms = self.numbers.tick_ms;
        // Each proxy has a beat of its own.
        let shift_ms = p as u64 * 83;
        let at_ms = (time_ms + shift_ms) / tick_ms * tick_ms + tick_ms - shift_ms;
        let proxy = &mut self.proxies[p];
        if proxy.is_on && at_ms < proxy.tick_ms {
            proxy.tick_ms = at_ms;
            let event = Event::Tick(p, proxy.boot);
            self.at(at_ms, event);
        }
    }

    pub(crate) fn tick(&mut self, p: usize, boot: u32) {
        let proxy = &mut self.proxies[p];
        if proxy.boot == boot && proxy.is_on && proxy.tick_ms == self.now_ms {
            proxy.tick_ms = NEVER;
            self.control(p, |control| control.tick());
            self.look_at_copies_later(p);
        }
    }

    fn slot_changed(&mut self, p: usize, slot: usize, before: SlotState, after: SlotState) {
        self.say(Scope::Slot(slot), || {
            format!("proxy {p}: {} -> {}", describe(before), describe(after))
        });
        self.fold(u64::from(after.first.id()) << 8 ^ after.stage as u64);
        self.changed_ms = self.now_ms;
        if after.stage == Stage::Away && before.stage != Stage::Away {
            self.left(p, slot, before, after);
            self.left_behind
                .extend(after.second.map(|left| (slot, left)));
        }
        self.look_at_promotion(slot, before, after);
        self.look_at_left_copies(p, slot, (before, after));
        let full = |slot: SlotState| slot.replica_in(ReplicaPhase::Full);
        if full(before).is_some() && full(after).is_none() {
            self.give_up_copies(slot);
        }
        self.look_at_given_up(p, slot, before, after);
        if before.stage == Stage::Move2 && after.stage == Stage::Steady {
            self.look_for_left_locks(slot, before);
        }
        if after.stage == Stage::Away && self.is_any_place_unknown_elsewhere(slot) {
            self.split();
        }
        if after.stage == Stage::Settle && before.stage != Stage::Settle {
            self.look_for_debris(slot, after.first);
        }
        self.hasten();
    }

    /// Once a proxy has gone on without a server that was given up, nobody serves from it.
    fn look_at_given_up(&mut self, p: usize, slot: usize, before: SlotState, after: SlotState) {
        for member in self.proxies[p].brain.members() {
            let has = |slot: SlotState| {
                slot.places()
                    .any(|backend_id| backend_id == member.backend_id)
            };
            // Nobody is served by what is only to stand in for a place of a suspect slot.
            let has_served = before.before.is_none_or(|served| {
                [Some(served.first), served.second].contains(&Some(member.backend_id))
            });
            if member.is_off && has_served && has(before) && !has(after) {
                self.given_up.push((slot, member.backend_id, self.now_ms));
            }
        }
        let lifetime_ms = self.times(p).lifetime_ms;
        let now_ms = self.now_ms;
        self.given_up
            .retain(|(_, _, left_ms)| now_ms < left_ms + lifetime_ms);
        let serves = |proxy: &Proxy, slot: usize, backend_id: BackendId| {
            let at = proxy.slots[slot];
            let is_second = at.second == Some(backend_id) && at.stage != Stage::Away;
            // Where nothing has moved to, it is asked, and nobody is served from it.
            let is_first = at.first == backend_id
                && (at.stage != Stage::Settle || self.has_any(slot, backend_id));
            proxy.is_on && at.stage != Stage::Suspect && (is_first || is_second)
        };
        let served = self.given_up.iter().find(|(slot, backend_id, _)| {
            self.proxies
                .iter()
                .any(|proxy| serves(proxy, *slot, *backend_id))
        });
        if let Some((slot, backend_id, _)) = served.filter(|_| !self.is_torn()) {
            let text = format!("slot {slot} is served by {backend_id:?}, which was given up");
            self.find(Finding::outdated(text));
        }
    }

    /// A proxy goes on without a server.
    fn left(&mut self, p: usize, slot: usize, before: SlotState, state: SlotState) {
        self.give_up_copies(slot);
        let others = self.proxies.iter().enumerate();
        let is_first = others
            .filter(|(other, proxy)| *other != p && proxy.is_on)
            .all(|(_, proxy)| {
                let there = proxy.slots[slot];
                there.stage != Stage::Away || there.second != state.second
            });
        if is_first {
            self.failovers[slot] += 1;
        }
        let served = before.before.map_or(before.stage, |before| before.stage);
        if served.is_handover() {
            self.hide_truth(slot, state);
        }
    }

    /// Something has changed: everybody looks around soon.
    pub(crate) fn hasten(&mut self) {
        for p in 0..self.proxies.len() {
            let at_ms = self.now_ms + 100 + self.links.near_ms() * 30;
            self.round_by(p, at_ms);
        }
    }

    pub(crate) fn round_by(&mut self, p: usize, at_ms: u64) {
        let proxy = &mut self.proxies[p];
        if proxy.is_on && at_ms < proxy.round_ms {
            proxy.round_ms = at_ms;
            let event = Event::Round(p, proxy.boot);
            self.at(at_ms, event);
        }
    }

    /// Looks around: peers, time, removals to repeat.
    pub(crate) fn round(&mut self, p: usize, boot: u32) {
        let proxy = &mut self.proxies[p];
        if proxy.boot != boot || !proxy.is_on || proxy.round_ms != self.now_ms {
            return;
        }
        proxy.round_ms = NEVER;
        self.ask_peers(p);
        self.tick_soon(p);
        if let Some(next_ms) = self.next_round_ms(p) {
            self.round_by(p, next_ms);
        }
    }

    fn ask_peers(&mut self, p: usize) {
        if !self.plan.class.peers || self.is_broken(Broken::NoPeers) {
            return;
        }
        let others: Vec<usize> = (0..self.proxies.len())
            .filter(|other| *other != p)
            .collect();
        for (index, other) in others.into_iter().enumerate() {
            let boot = self.proxies[p].boot;
            let is_lost = self.links.is_lossy() && self.links.random().chance(20);
            let peer = &self.proxies[other];
            let now_ms = self.now_ms;
            let heard = peer.is_on && self.links.hears(p, other) && !is_lost;
            let told = heard.then(|| Box::new(peer.told.clone()));
            let answer_ms = match &told {
                Some(_) => self.links.near_ms(),
                None => self.numbers.peer_timeout_ms,
            };
            self.after(answer_ms, Event::Told(p, boot, index, now_ms, told));
        }
    }

    /// A peer that was asked at `asked_ms` has answered, or not.
    pub(crate) fn told(
        &mut self,
        p: usize,
        boot: u32,
        index: usize,
        (asked_ms, told): (u64, Option<Told>),
    ) {
        let now_ms = self.now_ms;
        let is_old = now_ms >= asked_ms + self.numbers.silent_ms;
        let proxy = &mut self.proxies[p];
        if proxy.boot == boot && proxy.is_on && !is_old {
            // What it has said last counts until it is silent.
            if let Some(told) = told {
                proxy.heard_ms[index] = asked_ms;
                proxy.brain.hear(index, Some(told.read(asked_ms, now_ms)));
            }
            self.tick_soon(p);
        }
    }

    /// When to look around next; `None` once nothing is going on.
    fn next_round_ms(&mut self, p: usize) -> Option<u64> {
        let is_owing = !self.proxies[p].owes_nothing();
        if self.is_at_rest(p)
            && !is_owing
            && self.now_ms > self.changed_ms + 4 * self.numbers.round_ms
        {
            return None;
        }
        let soon_ms = self.now_ms + self.numbers.round_ms + self.links.near_ms() * 10;
        if is_owing || self.now_ms < self.changed_ms + 3 * self.numbers.round_ms {
            return Some(soon_ms);
        }
        let times = self.times(p);
        let lengths_ms = [
            times.overlap_ms,
            times.failover_after_ms,
            times.settle_ms / 2,
            times.settle_ms,
            2 * times.settle_ms,
            times.lifetime_ms,
        ];
        let mut next_ms = self.now_ms + SLOW_ROUND_MS;
        for proxy in self.proxies.iter().filter(|proxy| proxy.is_on) {
            for slot in &proxy.slots {
                let copied_ms = slot
                    .replica
                    .map_or(slot.since_ms, |replica| replica.since_ms);
                let ends = lengths_ms.iter().flat_map(|length| {
                    [slot.since_ms, copied_ms].map(|since_ms| since_ms + length)
                });
                let next = ends.filter(|end| *end > self.now_ms).min();
                next_ms = next_ms.min(next.unwrap_or(soon_ms));
            }
        }
        Some(next_ms.max(soon_ms))
    }

    fn times(&self, p: usize) -> Times {
        self.proxies[p].brain.pool_state.times()
    }

    /// Whether all slots of a proxy are where the map wants them.
    pub(crate) fn is_at_rest(&self, p: usize) -> bool {
        let proxy = &self.proxies[p];
        let mut slots = proxy.slots.iter().enumerate();
        slots.all(|(index, slot)| {
            let is_copied = slot.replica_in(ReplicaPhase::Full).is_some();
            slot.stage == Stage::Steady
                && slot.first == proxy.brain.target(index)
                && (is_copied || !self.can_copy())
        })
    }

    /// Whether the newest map has somebody who can keep copies, and no copy gets lost.
    fn can_copy(&self) -> bool {
        let is_active = |entry: &&super::maps::Listed| entry.2 == BackendState::Active;
        let newest = self.plan.maps.last().unwrap();
        self.plan.class.replicas
            && !self.links.is_lossy()
            && newest.iter().filter(is_active).count() > 1
    }

    /// A map has reached a proxy.
    pub(crate) fn load(&mut self, p: usize, map: usize) {
        let proxy = &mut self.proxies[p];
        proxy.newest_map = proxy.newest_map.max(map);
        if proxy.is_on {
            self.accept(p);
        }
    }

    fn accept(&mut self, p: usize) {
        let map = self.proxies[p].newest_map;
        let edition = self.edition(map);
        if edition.version <= self.proxies[p].brain.version() {
            return;
        }
        self.say(Scope::World, || {
            format!(
                "proxy {p} takes map {}: {:?}",
                edition.version, edition.spec
            )
        });
        let map = self.maker.map(&edition);
        self.control(p, |control| {
            let now_ms = control.now_ms();
            control.forget_silent_peers(now_ms);
            let mut next = control.pool_state().clone();
            next.accept(map, now_ms).unwrap();
            let Ok(_) = control.put_changed(next);
            control.publish();
        });
        self.changed_ms = self.now_ms;
        self.hasten();
    }

    pub(crate) fn kill(&mut self, p: usize) {
        let proxy = &mut self.proxies[p];
        if !proxy.is_on {
            return;
        }
        proxy.is_on = false;
        proxy.boot += 1;
        (proxy.round_ms, proxy.tick_ms) = (NEVER, NEVER);
        proxy.replays.clear();
        self.lose_copies(p);
        let proxy = &mut self.proxies[p];
        proxy.probing = [false; SERVERS as usize];
        let jobs = std::mem::take(&mut proxy.jobs);
        for job in jobs.into_values() {
            self.drop_call(job.call, "proxy killed");
        }
        for held in std::mem::take(&mut self.proxies[p].held) {
            self.drop_call(held.call(), "proxy killed");
        }
        self.changed_ms = self.now_ms;
        self.hasten();
    }

    pub(crate) fn restart(&mut self, p: usize) {
        let now_ms = self.now_ms;
        if self.proxies[p].is_on {
            return;
        }
        let brain = if self.is_broken(Broken::NoMemory) {
            self.maker.begin(&self.edition(0), now_ms)
        } else {
            self.maker.resume(self.proxies[p].on_disk.clone(), now_ms)
        };
        let proxy = &mut self.proxies[p];
        proxy.brain = brain;
        proxy.is_on = true;
        proxy.count_owed();
        proxy.on_disk = proxy.brain.pool_state.memory();
        proxy.slots = proxy.brain.slots();
        proxy.followed = proxy.brain.slots();
        proxy.told = Told::of(&proxy.brain.pool_state, proxy.brain.slots());
        let number = proxy.in_force.number + 1;
        proxy.in_force = InForce::new(Shown::of(&proxy.brain.pool_state), number);
        proxy.heard_ms.fill(now_ms);
        self.accept(p);
        self.control(p, |control| control.tick());
        self.changed_ms = now_ms;
        self.hasten();
        self.probe_all(p);
    }

    pub(crate) fn edition(&self, map: usize) -> Edition {
        Edition {
            version: map as u64 + 1,
            spec: self.plan.maps[map].clone(),
        }
    }

    /// Probes are only sent while they may say something new.
    pub(crate) fn probe_all(&mut self, p: usize) {
        for member in self.proxies[p].brain.members() {
            self.begin_probing(p, member.backend_id);
        }
    }

    pub(crate) fn begin_probing(&mut self, p: usize, backend_id: BackendId) {
        let index = usize::from(backend_id.id()) - 1;
        let is_needed = self.needs_probe(p, backend_id);
        let proxy = &mut self.proxies[p];
        if proxy.is_on && is_needed && !proxy.probing[index] {
            proxy.probing[index] = true;
            let boot = proxy.boot;
            let wait_ms = self.links.random().below(self.numbers.probe_ms);
            self.after(wait_ms, Event::Probe(p, boot, backend_id));
        }
    }

    fn needs_probe(&self, p: usize, backend_id: BackendId) -> bool {
        let members = self.proxies[p].brain.members();
        let Some(member) = members
            .iter()
            .find(|member| member.backend_id == backend_id)
        else {
            return false;
        };
        let server = &self.servers[usize::from(backend_id.id()) - 1];
        let is_well = server.power == Power::On && self.links.reaches(p, backend_id);
        !member.is_off && (!is_well || member.verdict != HealthState::Up)
    }

    pub(crate) fn probe(&mut self, p: usize, boot: u32, backend_id: BackendId) {
        if self.proxies[p].boot != boot {
            return;
        }
        let is_lost = self.links.is_lossy() && self.links.random().chance(30);
        let server = &self.servers[usize::from(backend_id.id()) - 1];
        let (after_ms, outcome) = match server.power {
            _ if !self.links.reaches(p, backend_id) => {
                (self.numbers.probe_timeout_ms, Err(Failure::ConnectTimedOut))
            }
            Power::Paused => (self.numbers.probe_timeout_ms, Err(Failure::Late)),
            Power::Off => (self.links.near_ms(), Err(Failure::Refused)),
            Power::On if is_lost => (self.numbers.probe_timeout_ms, Err(Failure::Late)),
            Power::On => (self.links.near_ms(), Ok(())),
        };
        self.after(after_ms, Event::Probed(p, boot, backend_id, outcome));
    }

    pub(crate) fn probed(
        &mut self,
        p: usize,
        boot: u32,
        backend_id: BackendId,
        outcome: Result<(), Failure>,
    ) {
        let now_ms = self.now_ms;
        let proxy = &mut self.proxies[p];
        if proxy.boot != boot || !proxy.is_on {
            return;
        }
        let change = proxy.brain.pool_state.probed(backend_id, outcome, now_ms);
        self.health_changed(p, backend_id, change);
        if self.needs_probe(p, backend_id) {
            let noise = self.links.random().below(1 << 30);
            let members = self.proxies[p].brain.members();
            let mut members = members
                .iter()
                .filter(|member| member.backend_id == backend_id);
            let is_suspect = members.any(|member| member.verdict == HealthState::Suspect);
            let pause_ms = pause_ms(self.numbers.probe_ms, is_suspect, noise);
            self.after(pause_ms, Event::Probe(p, boot, backend_id));
        } else {
            self.proxies[p].probing[usize::from(backend_id.id()) - 1] = false;
        }
    }

    /// The data path reports that a request has failed because of a server.
    pub(crate) fn reported(
        &mut self,
        p: usize,
        boot: u32,
        backend_id: BackendId,
        failure: Failure,
    ) {
        let now_ms = self.now_ms;
        let proxy = &mut self.proxies[p];
        if proxy.boot != boot || !proxy.is_on || !proxy.failures.counts(backend_id, now_ms) {
            return;
        }
        let pool_state = &mut proxy.brain.pool_state;
        let change = pool_state.request_failed(backend_id, failure, now_ms);
        self.health_changed(p, backend_id, change);
        self.begin_probing(p, backend_id);
    }

    fn health_changed(&mut self, p: usize, backend_id: BackendId, change: Option<Change>) {
        let Some(change) = change else {
            return;
        };
        self.say(Scope::World, || {
            format!("proxy {p}: server {} is {}", backend_id.id(), change.to)
        });
        self.control(p, |control| control.follow_health(&change));
        if [change.from, change.to].contains(&HealthState::Down) {
            self.changed_ms = self.now_ms;
            self.hasten();
        }
    }

    /// Keeps a removal that a server out of reach has missed.
    pub(crate) fn owe(&mut self, p: usize, to: BackendId, session: usize) {
        let proxy = &mut self.proxies[p];
        let mut members = proxy.brain.members().into_iter();
        if members.any(|member| member.backend_id == to) {
            proxy.owed.insert((to, session));
            proxy.count_owed();
        }
    }

    pub(crate) fn begin_replays(&mut self, p: usize) {
        let members = self.proxies[p].brain.pool_state.gets_pending_deletes();
        let told: Vec<BackendId> = members.map(|member| member.backend_id).collect();
        for backend_id in told {
            self.replay_next(p, backend_id, 0);
        }
    }

    /// Tells a server of the next removal that it has missed.
    fn replay_next(&mut self, p: usize, backend_id: BackendId, pause_ms: u64) {
        let now_ms = self.now_ms;
        let proxy = &mut self.proxies[p];
        let Some(&(_, session)) = proxy.owed.iter().find(|owed| owed.0 == backend_id) else {
            return;
        };
        let replay = proxy.replays.entry(backend_id).or_insert(Replay {
            attempt: 0,
            session,
            tries: 0,
            next_ms: 0,
            is_under_way: false,
        });
        if pause_ms > 0 {
            replay.is_under_way = false;
            replay.next_ms = now_ms + pause_ms;
            return;
        }
        if !replay.is_under_way && now_ms >= replay.next_ms {
            replay.session = session;
            replay.tries = 0;
            self.replay(p, backend_id, NO_LOCK);
        }
    }

    fn replay(&mut self, p: usize, backend_id: BackendId, counter: u32) {
        let Some(replay) = self.proxies[p].replays.get_mut(&backend_id) else {
            return;
        };
        replay.attempt += 1;
        replay.tries += 1;
        replay.is_under_way = true;
        let (attempt, session) = (replay.attempt, replay.session);
        let boot = self.proxies[p].boot;
        self.after(
            self.numbers.answer_ms,
            Event::ReplayDue(p, boot, backend_id, attempt),
        );
        self.send(Message {
            proxy: p,
            boot,
            purpose: Purpose::Replay { attempt },
            backend_id,
            session,
            op: Op::Remove(counter),
        });
    }

    pub(crate) fn replay_answered(
        &mut self,
        p: usize,
        message: Message,
        attempt: u64,
        result: Result<Reply, Failure>,
    ) {
        let backend_id = message.backend_id;
        let proxy = &mut self.proxies[p];
        let replay = proxy.replays.get_mut(&backend_id);
        let Some(replay) = replay.filter(|replay| replay.attempt == attempt) else {
            return;
        };
        let tries = replay.tries;
        match result {
            Ok(reply) if matches!(reply.status, 200 | 404) => {
                replay.is_under_way = false;
                proxy.owed.remove(&(backend_id, message.session));
                proxy.count_owed();
                self.replay_next(p, backend_id, 0);
            }
            Ok(reply) if reply.status == 423 && tries < self.numbers.max_locks => {
                self.replay(p, backend_id, reply.counter);
            }
            _ => self.replay_next(p, backend_id, self.numbers.replay_pause_ms),
        }
    }

    pub(crate) fn replay_due(&mut self, p: usize, boot: u32, backend_id: BackendId, attempt: u64) {
        let proxy = &mut self.proxies[p];
        let replay = proxy.replays.get_mut(&backend_id);
        let is_waiting = proxy.boot == boot
            && replay.is_some_and(|replay| replay.attempt == attempt && replay.is_under_way);
        if is_waiting {
            self.replay_next(p, backend_id, self.numbers.replay_pause_ms);
        }
    }
}

/// All places there can be.
pub(crate) fn places() -> impl Iterator<Item = BackendId> {
    (1..=SERVERS).filter_map(BackendId::new)
}

fn describe(slot: SlotState) -> String {
    let second = slot
        .second
        .map_or(String::new(), |second| format!(" {}", second.id()));
    let since_s = slot.since_ms.saturating_sub(START_MS) as f64 / 1000.0;
    let replica = slot.replica.map_or(String::new(), |replica| {
        format!(", {} at {}", replica.phase.name(), replica.backend_id.id())
    });
    format!(
        "{:?} {}{second} since {since_s}{replica}",
        slot.stage,
        slot.first.id()
    )
}
