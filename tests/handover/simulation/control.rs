//! The control thread of a proxy: probes, peers, maps, ticks, removals that were missed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use staterouter::config::BackendState;
use staterouter::control::probing::coalesced_failures::CoalescedFailures;
use staterouter::handover::{BackendId, NO_LOCK, ReplicaPhase, SlotState, SlotTable, Stage};
use staterouter::health::{Failure, HealthState, pause_ms};

use super::brain::{Brain, Edition, Remembered, View};
use super::broken::Broken;
use super::copying::Copies;
use super::net::{Message, Op, Power, Purpose, Reply};
use super::plan::{SERVERS, START_MS};
use super::pool;
use super::proxy::{Held, InForce, Job};
use super::trace::Scope;
use super::world::{Event, Finding, World};

/// How often while nothing is expected.
const SLOW_ROUND_MS: u64 = 15_000;
const NEVER: u64 = u64::MAX;

/// One proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) brain: Box<dyn Brain>,
    /// How often it has been started.
    pub(crate) boot: u32,
    pub(crate) is_on: bool,
    remembered: Option<Remembered>,
    /// Position of the newest map that has reached it.
    newest_map: usize,
    /// Removals that servers have missed; survives the process.
    owed: BTreeSet<(BackendId, usize)>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    /// Requests that wait, in the order in which they came.
    pub(crate) held: Vec<Held>,
    pub(crate) in_force: InForce,
    pub(crate) copies: Copies,
    /// When each of the others was heard last.
    pub(crate) heard_ms: Vec<u64>,
    slots: Vec<SlotState>,
    probing: [bool; SERVERS as usize],
    failures: CoalescedFailures,
    replays: BTreeMap<BackendId, Replay>,
    round_ms: u64,
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
    pub(crate) fn new(brain: Box<dyn Brain>) -> Self {
        let in_force = in_force(brain.as_ref());
        Self {
            slots: brain.slots(),
            brain,
            boot: 0,
            is_on: true,
            remembered: None,
            newest_map: 0,
            owed: BTreeSet::new(),
            jobs: BTreeMap::new(),
            held: Vec::new(),
            in_force,
            copies: Copies::default(),
            heard_ms: Vec::new(),
            probing: [false; SERVERS as usize],
            failures: CoalescedFailures::default(),
            replays: BTreeMap::new(),
            round_ms: NEVER,
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

    fn owed_to(&self, backend_id: BackendId) -> usize {
        self.owed.iter().filter(|owed| owed.0 == backend_id).count()
    }
}

fn in_force(brain: &dyn Brain) -> InForce {
    let (mut known, mut up) = (0, 0);
    for member in brain.members() {
        known |= 1 << member.backend_id.id();
        up |= u128::from(member.verdict != HealthState::Down) << member.backend_id.id();
    }
    InForce {
        table: Rc::new(SlotTable::new(&brain.slots())),
        known,
        up,
    }
}

impl World {
    /// Takes the slots of a proxy on to where they are now, and puts that in force.
    pub(crate) fn tick(&mut self, p: usize) {
        let now_ms = self.now_ms;
        self.follow_copies(p);
        let proxy = &mut self.proxies[p];
        proxy.brain.tick(now_ms);
        let before = std::mem::replace(&mut proxy.slots, proxy.brain.slots());
        let was_up = proxy.in_force.up;
        proxy.in_force = in_force(proxy.brain.as_ref());
        let down = was_up & proxy.in_force.known & !proxy.in_force.up;
        let after = proxy.slots.clone();
        if down != 0 {
            self.break_off(p, down);
        }
        self.forget_owed(p);
        for (slot, (before, after)) in before.into_iter().zip(after).enumerate() {
            if before != after {
                self.slot_changed(p, slot, before, after);
            }
        }
        self.follow_copies(p);
        self.let_go(p);
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
        let lifetime_ms = pool::times(&self.maker.config).lifetime_ms;
        let now_ms = self.now_ms;
        self.given_up
            .retain(|(_, _, left_ms)| now_ms < left_ms + lifetime_ms);
        let serves = |proxy: &Proxy, slot: usize, backend_id: BackendId| {
            let at = proxy.slots[slot];
            let is_second = at.second == Some(backend_id) && at.stage != Stage::Away;
            proxy.is_on && at.stage != Stage::Suspect && (at.first == backend_id || is_second)
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
        self.tick(p);
        self.begin_replays(p);
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
            if peer.is_on && self.links.hears(p, other) && !is_lost {
                let near_ms = self.links.near_ms();
                let now_ms = self.now_ms;
                let view = self.proxies[other].brain.view();
                let view = view.heard(now_ms, now_ms + near_ms);
                self.after(near_ms, Event::View(p, boot, index, Some(Box::new(view))));
            } else {
                self.after(
                    self.numbers.peer_timeout_ms,
                    Event::View(p, boot, index, None),
                );
            }
        }
    }

    /// A peer has answered, or not.
    pub(crate) fn view(&mut self, p: usize, boot: u32, index: usize, view: Option<View>) {
        let (now_ms, replicas) = (self.now_ms, self.plan.class.replicas);
        let proxy = &mut self.proxies[p];
        if proxy.boot == boot && proxy.is_on {
            proxy
                .heard_ms
                .resize(proxy.heard_ms.len().max(index + 1), 0);
            let is_heard_of = now_ms < proxy.heard_ms[index] + self.numbers.silent_ms;
            if view.is_some() {
                proxy.heard_ms[index] = now_ms;
            } else if replicas && is_heard_of {
                return;
            }
            proxy.brain.set_peer(index, view);
            self.tick(p);
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
        let times = pool::times(&self.maker.config);
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
        let is_active = |entry: &&super::maps::Entry| entry.2 == BackendState::Active;
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
        let now_ms = self.now_ms;
        let proxy = &mut self.proxies[p];
        let version = proxy.newest_map as u64 + 1;
        if version > proxy.brain.version() {
            let edition = Edition {
                version,
                spec: self.plan.maps[proxy.newest_map].clone(),
            };
            proxy.brain.accept(&edition, now_ms);
            self.say(Scope::World, || {
                format!("proxy {p} takes map {version}: {:?}", edition.spec)
            });
            self.tick(p);
            self.changed_ms = now_ms;
            self.hasten();
            self.probe_all(p);
        }
    }

    pub(crate) fn kill(&mut self, p: usize) {
        let proxy = &mut self.proxies[p];
        if !proxy.is_on {
            return;
        }
        proxy.is_on = false;
        proxy.boot += 1;
        proxy.remembered = Some(proxy.brain.memory());
        proxy.round_ms = NEVER;
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
        let Some(remembered) = self.proxies[p].remembered.take() else {
            return;
        };
        let brain = if self.is_broken(Broken::NoMemory) {
            self.maker.begin(&self.edition(0), now_ms)
        } else {
            self.maker.resume(remembered, now_ms)
        };
        let proxy = &mut self.proxies[p];
        proxy.brain = brain;
        proxy.is_on = true;
        proxy.slots = proxy.brain.slots();
        for backend_id in places() {
            let owed = proxy.owed_to(backend_id);
            proxy.brain.set_owed(backend_id, owed);
        }
        proxy.in_force = in_force(proxy.brain.as_ref());
        self.accept(p);
        self.tick(p);
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
        let before = proxy.brain.members();
        proxy.brain.probed(backend_id, outcome, now_ms);
        self.health_may_have_changed(p, backend_id, &before);
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

    /// A request has failed because of a server.
    pub(crate) fn request_failed(&mut self, p: usize, backend_id: BackendId, failure: Failure) {
        let now_ms = self.now_ms;
        let proxy = &mut self.proxies[p];
        if !proxy.failures.counts(backend_id, now_ms) {
            return;
        }
        let before = proxy.brain.members();
        proxy.brain.request_failed(backend_id, failure, now_ms);
        self.health_may_have_changed(p, backend_id, &before);
        self.begin_probing(p, backend_id);
    }

    fn health_may_have_changed(
        &mut self,
        p: usize,
        backend_id: BackendId,
        before: &[super::brain::Seen],
    ) {
        let verdict = |members: &[super::brain::Seen]| {
            let member = members
                .iter()
                .find(|member| member.backend_id == backend_id);
            member.map(|member| member.verdict)
        };
        let after = self.proxies[p].brain.members();
        let [before, after] = [before, &after].map(verdict);
        if before != after {
            self.say(Scope::World, || {
                format!("proxy {p}: server {} is {after:?}", backend_id.id())
            });
            if before == Some(HealthState::Down) || after == Some(HealthState::Down) {
                self.tick(p);
                self.changed_ms = self.now_ms;
                self.hasten();
            }
        }
    }

    /// Keeps a removal that a server out of reach has missed.
    pub(crate) fn owe(&mut self, p: usize, to: BackendId, session: usize) {
        let proxy = &mut self.proxies[p];
        let mut members = proxy.brain.members().into_iter();
        if members.any(|member| member.backend_id == to) {
            proxy.owed.insert((to, session));
            let owed = proxy.owed_to(to);
            proxy.brain.set_owed(to, owed);
        }
    }

    /// Nothing is owed to a server that no slot needs, or that was given up.
    fn forget_owed(&mut self, p: usize) {
        let proxy = &mut self.proxies[p];
        if proxy.owed.is_empty() {
            return;
        }
        let members = proxy.brain.members();
        let is_needed = |backend_id: BackendId| {
            let mut members = members.iter();
            members.any(|member| member.backend_id == backend_id && !member.is_off)
        };
        proxy.owed.retain(|(backend_id, _)| is_needed(*backend_id));
        for backend_id in places() {
            let owed = proxy.owed_to(backend_id);
            proxy.brain.set_owed(backend_id, owed);
        }
    }

    fn begin_replays(&mut self, p: usize) {
        for member in self.proxies[p].brain.members() {
            if member.owed > 0 && member.verdict != HealthState::Down {
                self.replay_next(p, member.backend_id, 0);
            }
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
                let owed = proxy.owed_to(backend_id);
                proxy.brain.set_owed(backend_id, owed);
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
