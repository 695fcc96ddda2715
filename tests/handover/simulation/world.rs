//! A farm, its proxies and their servers in virtual time: one queue of events, ordered by time.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use staterouter::config::{BackendState, Config};
use staterouter::farm::checker::Violation;
use staterouter::handover::BackendId;
use staterouter::health::Failure;

use super::brain::{self, Brain, Maker, Told};
use super::broken::Broken;
use super::control::{Proxy, places};
use super::copying::Doubts;
use super::farm::Farm;
use super::judge::End;
use super::net::{Links, Message, Power, Reply, SESSION_TIMEOUT_MS, Server};
use super::numbers::Numbers;
use super::plan::{Fault, Kind, Plan, START_MS, What};
use super::random::Random;
use super::trace::{Scope, Trace};

/// Everything has to be well again so long after the last fault: a failure, a return, two handovers,
/// and replicas that are filled anew once or twice because of a copy that was missed.
const HEALING_MS: u64 = 4_000_000;
/// Time for the last pages, which may have to break locks that were left.
const LAST_PAGES_MS: u64 = 400_000;
/// A map with a backend off reaches requests under way, too.
const BLUR_MS: u64 = 30_000;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    Fault {
        index: usize,
        begins: bool,
    },
    Load(usize, usize),
    AtServer(Message),
    AtProxy(Message, Result<Reply, Failure>),
    /// A proxy, its life, its request.
    Due(usize, u32, u64),
    /// The same, for its question: the copy that it makes.
    CopyDue(usize, u32, u64, u32),
    /// A request that waits at a proxy looks again.
    HoldOver(usize, u32, u64),
    /// A request has waited for the end of a move.
    PauseOver(usize, u32, u64, u32),
    Round(usize, u32),
    Tick(usize, u32),
    /// A proxy, its life, which of the others, when that was asked, what it says.
    Told(usize, u32, usize, u64, Option<Box<Told>>),
    /// A request has failed because of a server.
    Reported(usize, u32, BackendId, Failure),
    Probe(usize, u32, BackendId),
    Probed(usize, u32, BackendId, Result<(), Failure>),
    ReplayDue(usize, u32, BackendId, u64),
    RefreshDue(usize, u32, u64, u32),
    CallAtProxy(u64),
    Answered(u64, End, &'static str),
    Page(u64),
    Lane(usize),
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// One word for the kind.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    pub(crate) session: Option<usize>,
}

impl Finding {
    pub(crate) fn wrong(session: usize, violation: &Violation) -> Self {
        Self {
            kind: violation.kind.name(),
            text: format!("expected {}, got {}", violation.expected, violation.got),
            session: Some(session),
        }
    }

    pub(crate) fn refused(session: usize, text: String) -> Self {
        Self {
            kind: "refused",
            text,
            session: Some(session),
        }
    }

    /// Whether a client was told something wrong, and not just refused.
    pub(crate) fn is_loss(&self) -> bool {
        !matches!(self.kind, "refused" | "stuck")
    }

    pub(crate) fn outdated(text: String) -> Self {
        Self {
            kind: "given up",
            text,
            session: None,
        }
    }

    fn stuck(text: String) -> Self {
        Self {
            kind: "stuck",
            text,
            session: None,
        }
    }
}

/// What came of a world.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) finding: Option<Finding>,
    /// What happened, when a trace was wanted.
    pub(crate) trace: String,
    /// Stands for all that happened.
    pub(crate) digest: u64,
    pub(crate) pages: u64,
    pub(crate) failed_pages: u64,
    pub(crate) events: u64,
    pub(crate) promotions: u64,
}

/// How a world is played.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    pub(crate) broken: Option<Broken>,
    /// Proxies with whole engines.
    pub(crate) is_traced: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) broken: Option<Broken>,
    pub(crate) maker: Maker,
    pub(crate) numbers: Numbers,
    pub(crate) now_ms: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    next_job: u64,
    pub(crate) links: Links,
    pub(crate) servers: Vec<Server>,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) farm: Farm,
    /// The page that took the lock of a session at a server last.
    pub(crate) takers: BTreeMap<(usize, BackendId), u64>,
    /// Slots that have left a server that was given up, that server, and when.
    pub(crate) given_up: Vec<(usize, BackendId, u64)>,
    /// What is not certain of the copies that replicas have.
    pub(crate) doubts: Doubts,
    /// Slots that went on at a stand-in, without the items of this server.
    pub(crate) left_behind: BTreeSet<(usize, BackendId)>,
    /// How often a proxy has gone on with a replica.
    pub(crate) promotions: u64,
    /// Slots, and their replicas that a proxy has left while it did not hear one that relies on them.
    pub(crate) left_unheard: BTreeSet<(usize, BackendId)>,
    /// Failovers so far, by slot.
    pub(crate) failovers: Vec<u64>,
    /// When something last changed that peers have to know.
    pub(crate) changed_ms: u64,
    /// The newest map with a backend off, until it is in force everywhere.
    off_map: Option<usize>,
    blurred_until_ms: u64,
    /// A backend was given up while the proxies did not know the same backends, or another map
    /// came before all had that one.
    is_torn: bool,
    /// One proxy stands where another has never heard of: they may never agree again.
    is_split: bool,
    pub(crate) trace: Trace,
    finding: Option<Finding>,
}

#[derive(Debug)]
struct Scheduled {
    at_ms: u64,
    sequence: u64,
    event: Event,
}

impl World {
    pub(crate) fn new(plan: &Plan, options: Options) -> Self {
        let class = &plan.class;
        let maker = Maker {
            config: config(plan, options.broken),
            slots: plan.slots.clone(),
            broken: options.broken,
            replicas: class.replicas,
        };
        let first = brain::Edition {
            version: 1,
            spec: plan.maps[0].clone(),
        };
        let peers = maker.config.peers.len();
        let brains = maker.begin_all(plan.proxies, &first, START_MS);
        let are_copied = brains.iter().all(Brain::is_full);
        assert!(
            are_copied || !class.replicas || options.broken.is_some(),
            "a world begins without copies"
        );
        let proxies = brains
            .into_iter()
            .map(|brain| Proxy::new(brain, peers, START_MS));
        let mut world = Self {
            proxies: proxies.collect(),
            servers: places().map(|_| Server::new()).collect(),
            links: Links::new(class, plan.proxies, plan.seed),
            farm: Farm::new(plan.slots.len(), plan.lanes, plan.seed),
            takers: BTreeMap::new(),
            given_up: Vec::new(),
            doubts: Doubts::default(),
            left_behind: BTreeSet::new(),
            promotions: 0,
            left_unheard: BTreeSet::new(),
            failovers: vec![0; plan.slots.len()],
            plan: plan.clone(),
            broken: options.broken,
            numbers: Numbers::of(&maker.config),
            maker,
            now_ms: START_MS,
            queue: BinaryHeap::new(),
            sequence: 0,
            next_job: 0,
            changed_ms: START_MS,
            off_map: None,
            blurred_until_ms: 0,
            is_torn: false,
            is_split: false,
            trace: Trace::new(options.is_traced),
            finding: None,
        };
        world.farm.is_strict = class.strict;
        world.schedule_plan();
        world
    }

    fn schedule_plan(&mut self) {
        for index in 0..self.plan.faults.len() {
            let Fault {
                at_ms, lasts_ms, ..
            } = self.plan.faults[index];
            let begins = true;
            self.at(at_ms, Event::Fault { index, begins });
            let begins = false;
            self.at(at_ms + lasts_ms, Event::Fault { index, begins });
        }
        let mut random = Random::new(self.plan.seed, 3);
        for lane in 0..self.farm.lanes() {
            let wait_ms = random.below(3_000);
            self.after(wait_ms, Event::Lane(lane));
        }
        self.hasten();
    }

    /// Plays until everything is well again, or something is wrong.
    pub(crate) fn play(mut self) -> Outcome {
        let end_ms = self.plan.end_ms();
        let mut limit_ms = end_ms + HEALING_MS;
        let mut events = 0;
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now_ms = next.at_ms;
            events += 1;
            self.handle(next.event);
            if self.farm.is_open && self.now_ms > end_ms && self.is_healed() {
                self.begin_last_pages();
                limit_ms = self.now_ms + LAST_PAGES_MS;
            }
            let is_over = !self.farm.is_open && self.farm.pages.is_empty();
            if self.finding.is_some() || is_over || self.now_ms > limit_ms {
                break;
            }
        }
        if self.finding.is_none() && self.farm.is_open && !self.is_split {
            let slots = self.proxies.iter().map(Proxy::slots);
            self.finding = Some(Finding::stuck(format!(
                "not at rest: {:?}",
                slots.collect::<Vec<_>>()
            )));
        } else if self.finding.is_none() && !self.farm.is_open && !self.farm.pages.is_empty() {
            self.finding = Some(Finding::stuck("pages do not end".to_owned()));
        }
        self.outcome(events)
    }

    fn outcome(self, events: u64) -> Outcome {
        let session = self.finding.as_ref().and_then(|finding| finding.session);
        let slot = session.map_or(0, |session| self.farm.sessions[session].slot);
        Outcome {
            trace: self.trace.about(session, slot, 45),
            finding: self.finding,
            digest: self.trace.digest,
            pages: self.farm.finished_pages,
            failed_pages: self.farm.failed_pages,
            events,
            promotions: self.promotions,
        }
    }

    /// The last pages of a world that is well: none may be refused.
    fn begin_last_pages(&mut self) {
        self.say(Scope::World, || "everything is well again".to_owned());
        self.links.calm();
        self.farm.is_open = false;
        for slot in 0..self.plan.slots.len() {
            for proxy in 0..self.proxies.len() {
                self.begin_last_page(slot, proxy);
            }
        }
    }

    fn is_healed(&self) -> bool {
        let newest = self
            .plan
            .faults
            .iter()
            .rev()
            .find_map(|fault| match fault.what {
                What::Map(index, _) => Some(index),
                _ => None,
            });
        let version = newest.map_or(1, |index| index as u64 + 1);
        self.proxies.iter().enumerate().all(|(p, proxy)| {
            proxy.is_on
                && proxy.brain.version() == version
                && proxy.owes_nothing()
                && self.is_at_rest(p)
                && proxy.reaches_all()
        }) && self.now_ms > self.changed_ms + 12_000
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Fault { index, begins } => self.fault(index, begins),
            Event::Load(p, map) => {
                self.load(p, map);
                self.look_at_off();
            }
            Event::AtServer(message) => self.at_server(message),
            Event::AtProxy(message, result) => self.at_proxy(message, result),
            Event::Due(p, boot, job) => self.due(p, boot, job),
            Event::CopyDue(p, boot, job, ask) => self.copy_due(p, boot, job, ask),
            Event::HoldOver(p, boot, number) => self.hold_over(p, boot, number),
            Event::PauseOver(p, boot, job, ask) => self.pause_over(p, boot, job, ask),
            Event::Round(p, boot) => self.round(p, boot),
            Event::Tick(p, boot) => self.tick(p, boot),
            Event::Told(p, boot, index, asked_ms, told) => {
                let told = told.map(|told| *told);
                self.told(p, boot, index, (asked_ms, told));
            }
            Event::Reported(p, boot, backend_id, failure) => {
                self.reported(p, boot, backend_id, failure)
            }
            Event::Probe(p, boot, backend_id) => self.probe(p, boot, backend_id),
            Event::Probed(p, boot, backend_id, outcome) => {
                self.probed(p, boot, backend_id, outcome)
            }
            Event::ReplayDue(p, boot, backend_id, attempt) => {
                self.replay_due(p, boot, backend_id, attempt)
            }
            Event::RefreshDue(p, boot, id, step) => self.refresh_due(p, boot, id, step),
            Event::CallAtProxy(call) => self.begin_job(call, None),
            Event::Answered(call, end, why) => self.answered(call, end, why),
            Event::Page(page) => self.continue_page(page),
            Event::Lane(lane) => self.begin_page(lane),
        }
    }

    fn fault(&mut self, index: usize, begins: bool) {
        let what = self.plan.faults[index].what.clone();
        if begins || !matches!(what, What::Map(..)) {
            let verb = if begins { "begins" } else { "ends" };
            self.say(Scope::World, || format!("{what:?} {verb}"));
        }
        match what {
            What::Map(map, lags) if begins => self.publish(map, &lags),
            What::Map(..) => {}
            What::Cut { proxy, server } => self.links.cut(proxy, server, begins),
            What::Isolate { server } => {
                for proxy in 0..self.proxies.len() {
                    self.links.cut(proxy, server, begins);
                }
            }
            What::CutPeers { one, other } => self.links.cut_peers(one, other, begins),
            What::Pause { server } => self.pause(server, begins),
            What::Crash { server } => self.crash(server, begins),
            What::Full { server } => {
                self.servers[usize::from(server) - 1].is_full = begins;
            }
            What::Kill { proxy } if begins => self.kill(proxy),
            What::Kill { proxy } => {
                self.restart(proxy);
                self.look_at_off();
            }
        }
        self.changed_ms = self.now_ms;
        self.hasten();
        for p in 0..self.proxies.len() {
            self.probe_all(p);
        }
    }

    fn publish(&mut self, map: usize, lags: &[u64]) {
        for (p, lag) in lags.iter().enumerate() {
            self.after(*lag, Event::Load(p, map));
        }
        self.is_torn |= self.off_map.is_some();
        let mut entries = self.plan.maps[map].iter();
        if entries.any(|entry| entry.2 == BackendState::Off) {
            self.off_map = Some(map);
            let mut slots = 0..self.plan.slots.len();
            self.is_torn |= slots.any(|slot| self.is_any_place_unknown_elsewhere(slot));
            for index in 0..self.farm.sessions.len() {
                self.retire(index, "may be at a backend that is given up");
            }
        }
    }

    /// One proxy goes on with a stand-in that another has never heard of.
    pub(crate) fn split(&mut self) {
        self.is_torn = true;
        self.is_split = true;
        for index in 0..self.farm.sessions.len() {
            self.retire(index, "may be at a backend that not all proxies know");
        }
    }

    /// Whether a backend that was given up still serves at some proxy, or the proxies cannot agree
    /// any more where a slot is.
    pub(crate) fn is_blurred(&self) -> bool {
        self.off_map.is_some() || self.now_ms < self.blurred_until_ms || self.is_torn
    }

    pub(crate) fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// Whether a proxy has the slot at a backend that another one has let go of, or never knew.
    pub(crate) fn is_any_place_unknown_elsewhere(&self, slot: usize) -> bool {
        let mut places = self
            .proxies
            .iter()
            .flat_map(|proxy| proxy.slots()[slot].places());
        places.any(|backend_id| {
            self.proxies
                .iter()
                .any(|proxy| !proxy.in_force.knows(backend_id))
        })
    }

    fn look_at_off(&mut self) {
        let Some(map) = self.off_map else {
            return;
        };
        let version = map as u64 + 1;
        let mut proxies = self.proxies.iter();
        if proxies.all(|proxy| proxy.is_on && proxy.brain.version() >= version) {
            self.off_map = None;
            self.blurred_until_ms = self.now_ms + BLUR_MS;
        }
    }

    fn pause(&mut self, server: u8, begins: bool) {
        let index = usize::from(server) - 1;
        let server = &mut self.servers[index];
        match (server.power, begins) {
            (Power::On, true) => server.power = Power::Paused,
            (Power::Paused, false) => {
                server.power = Power::On;
                for message in std::mem::take(&mut server.buffered) {
                    let wait_ms = self.links.near_ms() * 10;
                    self.after(wait_ms, Event::AtServer(message));
                }
            }
            _ => {}
        }
    }

    /// A server loses its memory, and what it had is nobody's fault.
    fn crash(&mut self, server: u8, begins: bool) {
        let index = usize::from(server) - 1;
        if !begins {
            self.servers[index].power = Power::On;
            return;
        }
        let lost = BackendId::new(server).unwrap();
        for session in 0..self.farm.sessions.len() {
            let (key, slot) = (
                &self.farm.sessions[session].key,
                self.farm.sessions[session].slot,
            );
            if !self.servers[index].has(key, self.now_ms) || self.only_copies(slot, lost) {
                continue;
            }
            if self.has_whole_copy(session, lost) {
                self.break_locks(session, lost);
                self.doubts.alone.insert(session);
            } else {
                self.retire(session, "was at a server that lost its memory");
            }
        }
        self.servers[index] = Server::new();
        self.servers[index].power = Power::Off;
    }

    pub(crate) fn retire(&mut self, session: usize, why: &str) {
        if self.farm.sessions[session].is_judged {
            self.say(Scope::Session(session), || {
                format!("session {session} {why}: not judged any more")
            });
        }
        self.farm.retire(session);
    }

    /// How long a request that has no answer may still be executed.
    pub(crate) fn late_effect_ms(&self) -> u64 {
        let class = &self.plan.class;
        if class.kinds.contains(&Kind::Pause) {
            110_000
        } else if class.losses > 0 {
            50_000
        } else {
            20_000
        }
    }

    pub(crate) fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    pub(crate) fn next_job(&mut self) -> u64 {
        self.next_job += 1;
        self.next_job
    }

    pub(crate) fn find(&mut self, finding: Finding) {
        self.finding.get_or_insert(finding);
    }

    pub(crate) fn say(&mut self, scope: Scope, text: impl FnOnce() -> String) {
        self.trace.say(self.now_ms - START_MS, scope, text);
    }

    pub(crate) fn fold(&mut self, number: u64) {
        self.trace.fold(self.now_ms, number);
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now_ms + ms, event);
    }

    pub(crate) fn at(&mut self, at_ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled {
            at_ms,
            sequence: self.sequence,
            event,
        }));
    }
}

fn config(plan: &Plan, broken: Option<Broken>) -> Config {
    let mut config = Config::new("partition-map.yaml");
    config.handover.session_timeout = Duration::from_millis(SESSION_TIMEOUT_MS);
    config.handover.failover = plan.class.failover;
    if plan.class.peers && broken != Some(Broken::NoPeers) {
        config.peers = brain::peers(plan.proxies - 1);
    }
    if let Some(broken) = broken {
        broken.set_times(&mut config);
    }
    config
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at_ms, self.sequence).cmp(&(other.at_ms, other.sequence))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}
