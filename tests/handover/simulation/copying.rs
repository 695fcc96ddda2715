//! What a proxy does for the replicas of its slots, as `proxy::two_places::copying`, `proxy::refresh`
//! and `proxy::copies` do over sockets.

use std::collections::{BTreeMap, BTreeSet};

use staterouter::handover::{
    BackendId, COPY_LOCK, ReplicaPhase, SlotRoute, SlotState, Stage, Subrequest, SubrequestReply,
};
use staterouter::health::Failure;

use super::control::places;
use super::net::{Message, Op, Purpose, Reply};
use super::plan::SERVERS;
use super::proxy::{ANSWER_MS, Job};
use super::trace::Scope;
use super::world::{Event, World};

/// A copy needs a keep-alive when it was written or touched longer ago than this.
const REFRESH_AFTER_MS: u64 = 60_000;
/// How often, and how long each time, a copy waits that is to be written anew.
const MAX_PAUSES: u32 = 10;
const PAUSE_MS: u64 = 1_000;
/// Control notices this much later that a copy was missed.
const TICK_MS: u64 = 250;

/// What a proxy knows of the copies it makes.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// Copies under way, by the place of what is copied.
    under_way: [u32; SERVERS as usize + 1],
    /// Slots whose replica has missed something.
    missed: BTreeSet<usize>,
    /// When the copy of a session was written or touched last.
    known: BTreeMap<usize, u64>,
    refreshes: BTreeMap<u64, Refresh>,
}

/// A copy that is being kept alive, or written anew.
#[derive(Debug, Clone, Copy)]
struct Refresh {
    session: usize,
    route: SlotRoute,
    at: BackendId,
    from: Option<BackendId>,
    is_anew: bool,
    pauses: u32,
    step: u32,
    stage: RefreshStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefreshStage {
    Touch,
    Fetch,
    Store { counter: u32 },
    Pause,
}

/// What a request has under way at the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnderWay {
    /// An item, which was missed unless it was stored.
    Copy,
    /// A removal, of which the request itself takes care.
    Removal,
    /// An item that is moved: it was missed unless there is an answer.
    Move,
}

/// What is not certain of the copy of a session, so that a failure may show it.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// Versions that the replica may have although they were refused or not acknowledged.
    versions: BTreeSet<(usize, u64)>,
    /// Sessions whose copy was removed, and not written since.
    lacking: BTreeSet<usize>,
    /// Sessions whose server has lost its memory, so that only the replica has them.
    pub(crate) alone: BTreeSet<usize>,
    /// Sessions that were stored, and not just created.
    stored: BTreeSet<usize>,
}

impl Copies {
    pub(crate) fn has_missed(&self, slot: usize) -> bool {
        self.missed.contains(&slot)
    }

    fn begin(&mut self, places: [Option<BackendId>; 2]) {
        for place in places.into_iter().flatten() {
            self.under_way[usize::from(place.id())] += 1;
        }
    }

    fn end(&mut self, places: [Option<BackendId>; 2]) {
        for place in places.into_iter().flatten() {
            self.under_way[usize::from(place.id())] -= 1;
        }
    }
}

const fn places_of(route: SlotRoute) -> [Option<BackendId>; 2] {
    [Some(route.first), route.second]
}

impl World {
    /// What is known of the copy of a session.
    pub(crate) fn recall_copy(&self, p: usize, session: usize, route: &mut SlotRoute) {
        let Some(replica) = &mut route.replica else {
            return;
        };
        if let Some(&at_ms) = self.proxies[p].copies.known.get(&session) {
            replica.has_copy |= at_ms > replica.since_ms;
            replica.is_fresh = self.now_ms < at_ms + REFRESH_AFTER_MS;
        }
    }

    /// Whether the slot is still as this route says, and may be copied to `at`.
    fn may_copy(&self, p: usize, session: usize, route: SlotRoute, at: BackendId) -> bool {
        let proxy = &self.proxies[p];
        let table = &proxy.in_force.table;
        let now = table.route(table.lookup(self.farm.sessions[session].slot));
        let is_kept = now
            .replica
            .is_some_and(|replica| replica.at == at && replica.phase.is_copied());
        let is_same =
            (now.first, now.second, now.stage) == (route.first, route.second, route.stage);
        let mut places = places_of(route).into_iter().flatten();
        is_kept && is_same && places.all(|place| proxy.in_force.is_up(place))
    }

    /// Notes that a copy is about to be sent; false if the slot has changed since the request came.
    pub(crate) fn begin_copy(&mut self, p: usize, job: &Job, ask: Subrequest) -> Option<UnderWay> {
        let replica = job.route.replica?;
        let (kind, at) = match ask {
            Subrequest::Copy { at } | Subrequest::CopyHeld { at } => (UnderWay::Copy, at),
            Subrequest::Remove { at, .. } if at == replica.at => (UnderWay::Removal, at),
            Subrequest::Insert { .. } => (UnderWay::Move, replica.at),
            _ => return None,
        };
        let is_move = kind == UnderWay::Move;
        if !is_move && !self.may_copy(p, job.session, job.route, at) {
            return None;
        }
        self.proxies[p].copies.begin(places_of(job.route));
        Some(kind)
    }

    /// Whether this question must not be put unless its copy may be made.
    pub(crate) fn is_copy(job: &Job, ask: Subrequest) -> bool {
        let replica = job.route.replica.map(|replica| replica.at);
        match ask {
            Subrequest::Copy { .. } | Subrequest::CopyHeld { .. } => true,
            Subrequest::Remove { at, .. } => replica == Some(at),
            _ => false,
        }
    }

    /// What became of a copy.
    pub(crate) fn end_copy(&mut self, p: usize, id: u64, kind: UnderWay, seen: SubrequestReply) {
        let Some(job) = self.proxies[p].jobs.get(&id) else {
            return;
        };
        let (session, route) = (job.session, job.route);
        let slot = self.farm.sessions[session].slot;
        let is_done = matches!(seen, SubrequestReply::Done { .. });
        let is_missed = match kind {
            UnderWay::Copy => !is_done,
            UnderWay::Removal => false,
            UnderWay::Move => seen == SubrequestReply::Unknown,
        };
        let now_ms = self.now_ms;
        let copies = &mut self.proxies[p].copies;
        copies.end(places_of(route));
        match kind {
            UnderWay::Copy if is_done => {
                copies.known.insert(session, now_ms);
            }
            UnderWay::Removal => {
                copies.known.remove(&session);
            }
            _ => {}
        }
        if is_missed {
            self.miss(p, slot);
        }
    }

    pub(crate) fn note_missed(&mut self, p: usize, session: usize) {
        let slot = self.farm.sessions[session].slot;
        self.proxies[p].copies.known.remove(&session);
        self.miss(p, slot);
    }

    fn miss(&mut self, p: usize, slot: usize) {
        self.say(Scope::Slot(slot), || {
            format!("proxy {p}: a copy was missed")
        });
        self.proxies[p].copies.missed.insert(slot);
        let at_ms = self.now_ms + TICK_MS;
        self.round_by(p, at_ms);
    }

    /// Tells the brain what was missed, and whether the others may be told of what is in force.
    pub(crate) fn follow_copies(&mut self, p: usize) {
        if !self.plan.class.replicas {
            self.proxies[p].brain.set_followed(true);
            return;
        }
        let proxy = &mut self.proxies[p];
        let has_ended = places().all(|place| {
            proxy.in_force.is_up(place) || proxy.copies.under_way[usize::from(place.id())] == 0
        });
        let is_followed = has_ended && proxy.copies.missed.is_empty();
        proxy.brain.set_followed(is_followed);
        let missed: Vec<usize> = std::mem::take(&mut proxy.copies.missed)
            .into_iter()
            .collect();
        let now_ms = self.now_ms;
        self.proxies[p].brain.copies_missed(&missed, now_ms);
        if !is_followed {
            let at_ms = now_ms + TICK_MS;
            self.round_by(p, at_ms);
        }
    }

    /// Keeps a copy alive, or writes it anew, behind an answer.
    pub(crate) fn refresh(&mut self, p: usize, session: usize, route: SlotRoute, ask: Subrequest) {
        let (at, from, is_anew) = match ask {
            Subrequest::Refresh { at, from } => (at, from, false),
            Subrequest::CopyAnew { at, from } => (at, Some(from), true),
            _ => return,
        };
        let now_ms = self.now_ms;
        if !is_anew {
            self.proxies[p].copies.known.insert(session, now_ms);
        }
        let id = self.next_job();
        let refresh = Refresh {
            session,
            route,
            at,
            from,
            is_anew,
            pauses: 0,
            step: 0,
            stage: RefreshStage::Touch,
        };
        self.proxies[p].copies.refreshes.insert(id, refresh);
        self.go_on(p, id, RefreshStage::Touch, at, Op::Touch);
    }

    fn go_on(&mut self, p: usize, id: u64, stage: RefreshStage, to: BackendId, op: Op) {
        let boot = self.proxies[p].boot;
        let Some(refresh) = self.proxies[p].copies.refreshes.get_mut(&id) else {
            return;
        };
        refresh.step += 1;
        refresh.stage = stage;
        let (step, session) = (refresh.step, refresh.session);
        self.after(ANSWER_MS, Event::RefreshDue(p, boot, id, step));
        self.send(Message {
            proxy: p,
            boot,
            purpose: Purpose::Refresh { id, step },
            backend_id: to,
            session,
            op,
        });
    }

    pub(crate) fn refresh_due(&mut self, p: usize, boot: u32, id: u64, step: u32) {
        if self.proxies[p].boot == boot {
            self.refreshed(p, id, step, Err(Failure::Late));
        }
    }

    /// What keeps a copy alive has an answer, or none.
    pub(crate) fn refreshed(
        &mut self,
        p: usize,
        id: u64,
        step: u32,
        result: Result<Reply, Failure>,
    ) {
        let known = self.proxies[p].copies.refreshes.get(&id).copied();
        let Some(refresh) = known.filter(|refresh| refresh.step == step) else {
            return;
        };
        let seen = result.map_or(SubrequestReply::Unknown, |reply| reply.seen());
        match (refresh.stage, refresh.from) {
            (RefreshStage::Pause, _) => {
                self.go_on(p, id, RefreshStage::Touch, refresh.at, Op::Touch);
            }
            (RefreshStage::Touch, from) => match (seen, from) {
                (SubrequestReply::Done { .. } | SubrequestReply::Locked { .. }, _) => {
                    self.proxies[p].copies.refreshes.remove(&id);
                }
                (SubrequestReply::Absent, Some(from)) => {
                    self.go_on(p, id, RefreshStage::Fetch, from, Op::Acquire);
                }
                (SubrequestReply::Absent, None) => self.end_refresh(p, id, false),
                _ => self.end_refresh(p, id, true),
            },
            (RefreshStage::Fetch, Some(from)) => self.fetched(p, id, refresh, (from, seen, result)),
            (RefreshStage::Fetch, None) => self.end_refresh(p, id, false),
            (RefreshStage::Store { counter }, from) => {
                let slot = self.farm.sessions[refresh.session].slot;
                let copies = &mut self.proxies[p].copies;
                copies.end([from, None]);
                let is_stored = matches!(seen, SubrequestReply::Done { .. });
                if is_stored {
                    let now_ms = self.now_ms;
                    let copies = &mut self.proxies[p].copies;
                    copies.known.insert(refresh.session, now_ms);
                    copies.refreshes.remove(&id);
                } else {
                    self.miss(p, slot);
                    self.end_refresh(p, id, true);
                }
                if let Some(from) = from {
                    self.send_alone(p, from, refresh.session, Op::Release(counter));
                }
            }
        }
    }

    fn fetched(
        &mut self,
        p: usize,
        id: u64,
        refresh: Refresh,
        (from, seen, result): (BackendId, SubrequestReply, Result<Reply, Failure>),
    ) {
        let Refresh {
            session,
            route,
            at,
            is_anew,
            ..
        } = refresh;
        let version = result.map_or(0, |reply| reply.version);
        match seen {
            SubrequestReply::Done { counter, .. } if self.may_copy(p, session, route, at) => {
                self.proxies[p].copies.begin([Some(from), None]);
                let cookie = COPY_LOCK;
                let stage = RefreshStage::Store { counter };
                self.go_on(p, id, stage, at, Op::Put { cookie, version });
            }
            SubrequestReply::Done { counter, .. } => {
                self.send_alone(p, from, session, Op::Release(counter));
                self.wait_or_miss(p, id, refresh, !self.is_failing(p, session, from));
            }
            SubrequestReply::Absent => self.end_refresh(p, id, false),
            SubrequestReply::Locked { .. } | SubrequestReply::Unknown if is_anew => {
                self.wait_or_miss(p, id, refresh, false);
            }
            _ => self.end_refresh(p, id, true),
        }
    }

    fn wait_or_miss(&mut self, p: usize, id: u64, refresh: Refresh, is_missed: bool) {
        if is_missed || !refresh.is_anew || refresh.pauses == MAX_PAUSES {
            return self.end_refresh(p, id, true);
        }
        let boot = self.proxies[p].boot;
        if let Some(refresh) = self.proxies[p].copies.refreshes.get_mut(&id) {
            refresh.pauses += 1;
            refresh.step += 1;
            refresh.stage = RefreshStage::Pause;
            let step = refresh.step;
            self.after(PAUSE_MS, Event::RefreshDue(p, boot, id, step));
        }
    }

    fn is_failing(&self, p: usize, session: usize, place: BackendId) -> bool {
        let proxy = &self.proxies[p];
        let slot = proxy.slots()[self.farm.sessions[session].slot];
        slot.stage == Stage::Suspect || !proxy.in_force.is_up(place)
    }

    fn end_refresh(&mut self, p: usize, id: u64, is_missed: bool) {
        let copies = &mut self.proxies[p].copies;
        let Some(refresh) = copies.refreshes.remove(&id) else {
            return;
        };
        copies.known.remove(&refresh.session);
        let from = refresh.from.unwrap_or(refresh.route.first);
        let counts = is_missed && refresh.is_anew && !self.is_failing(p, refresh.session, from);
        if counts {
            self.note_missed(p, refresh.session);
        }
    }

    /// What a message has just changed at a replica, and what is not certain of that.
    pub(crate) fn doubt_copy(&mut self, message: &Message, reply: &Reply) {
        if !self.plan.class.replicas || reply.status != 200 {
            return;
        }
        let session = message.session;
        if reply.flag && self.is_borrowed(message) {
            self.retire(
                session,
                "is not announced as new, because it was copied before its first page",
            );
        }
        match (message.op, message.purpose) {
            (Op::Put { cookie, version }, Purpose::Job { job, .. }) if cookie == COPY_LOCK => {
                self.doubts.lacking.remove(&session);
                let job = self.proxies[message.proxy].jobs.get(&job);
                let is_clients = job.is_none_or(|job| matches!(job.op, Op::Put { .. }));
                if is_clients {
                    // Certain once its place has taken it under a lock that holds.
                    self.doubts.versions.insert((session, version));
                }
            }
            (Op::Put { cookie, .. }, Purpose::Refresh { .. }) if cookie == COPY_LOCK => {
                self.doubts.lacking.remove(&session);
            }
            (Op::Remove(cookie), _) if cookie == COPY_LOCK => {
                self.doubts.lacking.insert(session);
            }
            _ => {}
        }
    }

    /// Whether a lock is taken only to make a copy, for nobody who is told that the item is new.
    fn is_borrowed(&self, message: &Message) -> bool {
        let job = match message.purpose {
            Purpose::Job { job, .. } => self.proxies[message.proxy].jobs.get(&job),
            _ => None,
        };
        let is_touch = job.is_some_and(|job| job.op == Op::Touch);
        let is_refresh = matches!(message.purpose, Purpose::Refresh { .. });
        message.op == Op::Acquire && (is_refresh || is_touch)
    }

    /// A write was made at its place: its copy is what everybody may see, if its lock held until then.
    pub(crate) fn trust_copy(&mut self, message: &Message, lock: Option<u32>) {
        match message.op {
            Op::Put { .. } => {
                self.doubts.stored.insert(message.session);
            }
            Op::Remove(_) => {
                self.doubts.stored.remove(&message.session);
            }
            _ => {}
        }
        if let Op::Put { cookie, version } = message.op {
            let is_of_holder = lock == Some(cookie) || cookie == 0;
            if is_of_holder {
                self.doubts.versions.remove(&(message.session, version));
            }
        }
    }

    /// A slot goes on with its replica, where it was refused before: what users had there goes on, but
    /// for the locks of the server that has failed.
    pub(crate) fn look_at_promotion(&mut self, slot: usize, before: SlotState, after: SlotState) {
        let (Some(replica), Some(failed)) = (before.replica, before.second) else {
            return;
        };
        let was_place = before.before.is_some_and(|then| {
            then.first == replica.backend_id || then.second == Some(replica.backend_id)
        });
        let is_served = matches!(
            after.stage,
            Stage::Steady | Stage::Settle | Stage::Move1 | Stage::Move2 | Stage::Turned
        ) && after.places().any(|place| place == replica.backend_id);
        if before.stage != Stage::Suspect || was_place || !is_served {
            if before.replica != after.replica && replica.phase != ReplicaPhase::Chosen {
                self.left_behind.remove(&(slot, replica.backend_id));
            }
            return;
        }
        self.left_behind.remove(&(slot, failed));
        self.promotions += 1;
        for session in 0..self.farm.sessions.len() {
            if self.farm.sessions[session].slot == slot {
                self.go_on_with_copy(session, after, (failed, replica.backend_id));
            }
        }
    }

    /// A slot goes on without its replica and the server that failed: what only the replica had is
    /// lost.
    pub(crate) fn give_up_copies(&mut self, slot: usize) {
        for session in std::mem::take(&mut self.doubts.alone) {
            if self.farm.sessions[session].slot == slot {
                self.retire(session, "was at two servers that have failed");
            } else {
                self.doubts.alone.insert(session);
            }
        }
    }

    fn go_on_with_copy(
        &mut self,
        session: usize,
        after: SlotState,
        (failed, copies): (BackendId, BackendId),
    ) {
        self.doubts.alone.remove(&session);
        self.break_locks(session, failed);
        let server = |place: BackendId| &self.servers[usize::from(place.id()) - 1];
        let key = &self.farm.sessions[session].key;
        let copy = server(copies).version(key, self.now_ms);
        let is_doubted = match copy {
            Some(version) => self.doubts.versions.contains(&(session, version)),
            None => {
                let is_stored = self.doubts.stored.contains(&session);
                self.doubts.lacking.contains(&session) || !is_stored
            }
        };
        // What a mover has left at the old owner passes for the truth.
        let other = after.places().find(|place| *place != copies);
        let is_masked = other.is_some_and(|other| server(other).has(key, self.now_ms))
            && server(failed).has(key, self.now_ms);
        if is_doubted {
            self.retire(session, "has a copy that is not certain");
        } else if is_masked {
            self.retire(session, "has debris at its old owner");
        }
    }

    /// The locks of a server are gone.
    pub(crate) fn break_locks(&mut self, session: usize, at: BackendId) {
        let calls = self.farm.calls.values();
        let given_back = calls.filter(|call| call.session == session);
        let given_back = given_back.filter_map(|call| match call.op {
            Op::Put { cookie, .. } | Op::Remove(cookie) | Op::Release(cookie) => Some(cookie),
            _ => None,
        });
        let held = self.farm.locks(session).into_iter();
        let locks: Vec<u32> = held
            .chain(given_back)
            .filter(|cookie| cookie >> 24 == u32::from(at.id()))
            .collect();
        let now_ms = self.now_ms;
        self.farm.sessions[session].break_locks(&locks, now_ms);
    }

    /// Whether a session at a server that loses its memory lives on at its replica.
    pub(crate) fn has_whole_copy(&self, session: usize, lost: BackendId) -> bool {
        let known = &self.farm.sessions[session];
        let mut proxies = self.proxies.iter();
        let replica = self.proxies[0].slots()[known.slot].replica;
        let Some(replica) = replica.filter(|replica| replica.backend_id != lost) else {
            return false;
        };
        let is_full = proxies.all(|proxy| {
            let full = proxy.slots()[known.slot].replica_in(ReplicaPhase::Full);
            proxy.is_on && full == Some(replica.backend_id) && !proxy.copies.has_missed(known.slot)
        });
        let slot = self.proxies[0].slots()[known.slot];
        let server = &self.servers[usize::from(replica.backend_id.id()) - 1];
        let version = server.version(&known.key, self.now_ms);
        let is_certain =
            version.is_some_and(|version| !self.doubts.versions.contains(&(session, version)));
        is_full && slot.stage == Stage::Steady && is_certain
    }

    /// Whether a server only keeps the copies of a slot.
    pub(crate) fn only_copies(&self, slot: usize, at: BackendId) -> bool {
        let mut proxies = self.proxies.iter();
        self.plan.class.replicas
            && proxies.all(|proxy| {
                let state = proxy.slots()[slot];
                state.places().all(|place| place != at)
            })
    }

    /// A proxy dies: nobody knows what became of the copies that it had under way.
    pub(crate) fn lose_copies(&mut self, p: usize) {
        let copies = std::mem::take(&mut self.proxies[p].copies);
        let jobs = self.proxies[p].jobs.values();
        let jobs =
            jobs.filter(|job| job.under_way.is_some() || !matches!(job.op, Op::Read | Op::Touch));
        let jobs = jobs.map(|job| job.session);
        let refreshes = copies.refreshes.values();
        let anew =
            refreshes.filter(|refresh| refresh.is_anew || refresh.stage != RefreshStage::Touch);
        let sessions: Vec<usize> = jobs.chain(anew.map(|refresh| refresh.session)).collect();
        if self.plan.class.replicas {
            for session in sessions {
                self.retire(session, "was under way at a proxy that died");
            }
        }
    }
}
