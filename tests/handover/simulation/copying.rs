//! What a proxy does for the replicas of its slots, as `proxy::two_places::copying`, `proxy::refresh`
//! and `proxy::copies` do over sockets.

use std::collections::{BTreeMap, BTreeSet};

use staterouter::handover::{
    BackendId, COPY_LOCK, Replica, ReplicaPhase, SlotRoute, SlotState, Stage, Subrequest,
    SubrequestReply,
};
use staterouter::health::Failure;
use staterouter::proxy::copies::{KnownCopy, refresh_after_s};

use super::broken::Broken;
use super::control::{Proxy, places};
use super::net::{Message, Op, Purpose, Reply, SESSION_TIMEOUT_MINUTES};
use super::plan::SERVERS;
use super::proxy::Job;
use super::trace::Scope;
use super::world::{Event, World};

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

/// A request whose answer something is sent behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    pub(crate) session: usize,
    pub(crate) route: SlotRoute,
    pub(crate) op: Op,
}

/// A copy that is being kept alive, or written anew.
#[derive(Debug, Clone, Copy)]
struct Refresh {
    session: usize,
    /// A keep-alive was answered before it.
    is_of_touch: bool,
    route: SlotRoute,
    at: BackendId,
    from: Option<BackendId>,
    is_anew: bool,
    pauses: usize,
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
    /// Those whose copy could not be written anew, because their place was failing.
    given_up: BTreeSet<usize>,
    /// Items that are copies, and that nobody has taken for anything else yet.
    copies: BTreeSet<(usize, BackendId)>,
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
            let known = KnownCopy {
                at_s: at_ms / 1000,
                now_s: self.now_ms / 1000,
                refresh_after_s: refresh_after_s(SESSION_TIMEOUT_MINUTES),
            };
            known.recall(replica);
        }
    }

    /// Whether the slot is still as this route says, and may be copied to `at`.
    fn may_copy(&self, p: usize, session: usize, route: SlotRoute, at: BackendId) -> bool {
        let proxy = &self.proxies[p];
        let table = &proxy.in_force.table;
        let now = table.route(table.lookup(self.farm.sessions[session].slot));
        let is_served = |place| proxy.in_force.is_up(place);
        now.may_copy(at, places_of(route), route.stage, is_served)
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
        let at_ms = self.now_ms + self.numbers.tick_ms;
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
            let at_ms = now_ms + self.numbers.tick_ms;
            self.round_by(p, at_ms);
        }
    }

    /// Keeps a copy alive, or writes it anew, behind an answer.
    pub(crate) fn refresh(&mut self, p: usize, behind: Behind, ask: Subrequest) {
        let Behind { session, route, op } = behind;
        let (at, from, is_anew) = match ask {
            Subrequest::Refresh { .. } if self.is_broken(Broken::NoKeepAlive) => return,
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
            is_of_touch: op == Op::Touch,
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
        self.after(self.numbers.answer_ms, Event::RefreshDue(p, boot, id, step));
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
        if is_missed || !refresh.is_anew || refresh.pauses == self.numbers.max_pauses {
            return self.end_refresh(p, id, true);
        }
        let boot = self.proxies[p].boot;
        if let Some(refresh) = self.proxies[p].copies.refreshes.get_mut(&id) {
            refresh.pauses += 1;
            refresh.step += 1;
            refresh.stage = RefreshStage::Pause;
            let step = refresh.step;
            self.after(self.numbers.pause_ms, Event::RefreshDue(p, boot, id, step));
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
        if !is_missed || !refresh.is_anew {
            return;
        }
        if self.is_failing(p, refresh.session, from) {
            self.doubts.given_up.insert(refresh.session);
        } else {
            self.note_missed(p, refresh.session);
        }
    }

    /// What a message has just changed at a replica, and what is not certain of that.
    pub(crate) fn doubt_copy(&mut self, message: &Message, reply: &Reply) {
        if !self.plan.class.replicas || reply.status != 200 {
            return;
        }
        let session = message.session;
        match message.op {
            Op::Put { cookie, .. } if cookie == COPY_LOCK => {
                self.doubts.copies.insert((session, message.backend_id));
                self.doubts.given_up.remove(&session);
            }
            Op::Put { .. } | Op::Insert { .. } | Op::Remove(_) => {
                self.doubts.copies.remove(&(session, message.backend_id));
            }
            _ => {}
        }
        if reply.flag && self.is_borrowed(message) {
            self.retire(
                session,
                "is not announced as new, because it was copied before its first page",
            );
        }
        match (message.op, message.purpose) {
            (Op::Read | Op::Touch, Purpose::Job { .. }) => self.look_at_recalled(message, reply),
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

    /// Whether there is a copy of what a request of a client writes.
    fn is_copied(&self, message: &Message) -> bool {
        let Purpose::Job { job, .. } = message.purpose else {
            return false;
        };
        let job = self.proxies[message.proxy].jobs.get(&job);
        let replica = job.and_then(|job| job.route.replica);
        replica
            .filter(|replica| replica.phase.is_copied())
            .is_some_and(|replica| {
                let server = &self.servers[usize::from(replica.at.id()) - 1];
                replica.at != message.backend_id
                    && server.has(&self.farm.sessions[message.session].key, self.now_ms)
            })
    }

    /// A copy is found because its place has nothing, or something that is marked as new.
    fn look_at_recalled(&mut self, message: &Message, reply: &Reply) {
        let Purpose::Job { job, .. } = message.purpose else {
            return;
        };
        let job = self.proxies[message.proxy].jobs.get(&job);
        let replica = job.and_then(|job| job.route.replica);
        if replica.is_none_or(|replica| replica.at != message.backend_id) {
            return;
        }
        let phase = replica.map(|replica| replica.phase);
        let (session, at) = (message.session, message.backend_id);
        let slot = self.farm.sessions[session].slot;
        if self.doubts.versions.contains(&(session, reply.version)) && message.op == Op::Read {
            self.retire(
                session,
                "comes back by a write that its place has not refused yet",
            );
        } else if self.left_unheard.contains(&(slot, at)) {
            self.retire(
                session,
                "has a copy that a proxy has left that is not heard",
            );
        } else if self.proxies[message.proxy].slots()[slot].copied_to() != Some(at) {
            self.retire(
                session,
                "has a copy that is asked for since before it was left",
            );
        } else if phase == Some(ReplicaPhase::Filling) && self.is_just_left(slot, at) {
            self.retire(session, "has a copy that another proxy has just left");
        }
    }

    /// Whether a proxy does not copy to this replica any more.
    fn is_just_left(&self, slot: usize, at: BackendId) -> bool {
        let mut proxies = self.proxies.iter().filter(|proxy| proxy.is_on);
        proxies.any(|proxy| proxy.slots()[slot].copied_to() != Some(at))
    }

    /// A proxy does without a replica while another one relies on it that it has not heard for too
    /// long to wait for it.
    pub(crate) fn look_at_left_copies(
        &mut self,
        p: usize,
        slot: usize,
        (before, after): (SlotState, SlotState),
    ) {
        let relies = |proxy: &Proxy, at| {
            let slot = proxy.slots()[slot];
            proxy.is_on && slot.replica_in(ReplicaPhase::Full) == Some(at)
        };
        let proxies = &self.proxies;
        self.left_unheard
            .retain(|(left, at)| *left != slot || proxies.iter().any(|proxy| relies(proxy, *at)));
        let Some(replica) = before.replica.filter(|_| after.replica.is_none()) else {
            return;
        };
        let others = (0..self.proxies.len()).filter(|other| *other != p);
        let is_left = others.enumerate().any(|(index, other)| {
            let heard_ms = self.proxies[p].heard_ms.get(index).copied().unwrap_or(0);
            let is_silent = self.now_ms >= heard_ms + self.numbers.silent_ms;
            is_silent && relies(&self.proxies[other], replica.backend_id)
        });
        if is_left {
            self.left_unheard.insert((slot, replica.backend_id));
        }
    }

    /// The copy of a write that was refused has been removed.
    pub(crate) fn undo(&mut self, session: usize, version: u64) {
        self.doubts.versions.remove(&(session, version));
    }

    /// Whether a lock is taken only to make a copy, for nobody who is told that the item is new.
    fn is_borrowed(&self, message: &Message) -> bool {
        let job = match message.purpose {
            Purpose::Job { job, .. } => self.proxies[message.proxy].jobs.get(&job),
            _ => None,
        };
        let is_touch = job.is_some_and(|job| job.op == Op::Touch);
        let refreshes = &self.proxies[message.proxy].copies.refreshes;
        let is_refresh = match message.purpose {
            // A keep-alive leaves a session that may be new alone, where all are copied.
            Purpose::Refresh { id, .. } => refreshes
                .get(&id)
                .is_none_or(|refresh| !refresh.is_of_touch),
            _ => false,
        };
        message.op == Op::Acquire && (is_refresh || is_touch)
    }

    /// A write was made at its place: its copy is what everybody may see, if its lock held until then.
    pub(crate) fn trust_copy(&mut self, message: &Message, lock: Option<u32>) {
        match message.op {
            Op::Put { .. } => {
                self.doubts.stored.insert(message.session);
            }
            Op::Remove(cookie) => {
                self.doubts.stored.remove(&message.session);
                if lock != Some(cookie) && self.is_copied(message) {
                    self.retire(
                        message.session,
                        "is written just as a broken lock removes it",
                    );
                }
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
            self.look_at_part(slot, replica, after);
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

    /// A replica that a proxy alone was still filling stands in: the sessions that it has go on there,
    /// but for their locks, and the others begin anew.
    fn look_at_part(&mut self, slot: usize, replica: Replica, after: SlotState) {
        let Some(failed) = after.second else {
            return;
        };
        let is_stand_in = after.stage == Stage::Away
            && after.first == replica.backend_id
            && replica.phase == ReplicaPhase::Filling;
        if !is_stand_in {
            return;
        }
        let failover = self.failovers[slot];
        for session in 0..self.farm.sessions.len() {
            let known = &self.farm.sessions[session];
            let server = &self.servers[usize::from(after.first.id()) - 1];
            if known.slot == slot && server.has(&known.key, self.now_ms) {
                self.go_on_with_copy(session, after, (failed, after.first));
                self.farm.sessions[session].goes_on(failover);
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
                self.may_lack_copy(session) || !is_stored
            }
        };
        // What a mover has left at the old owner passes for the truth.
        let other = after
            .places()
            .find(|place| ![copies, failed].contains(place));
        let is_masked = other.is_some_and(|other| server(other).has(key, self.now_ms))
            && server(failed).has(key, self.now_ms);
        if is_doubted {
            self.retire(session, "has a copy that is not certain");
        } else if is_masked {
            self.retire(session, "has debris at its old owner");
        }
    }

    /// Whether the copy of a session was removed, and is not written anew yet.
    fn may_lack_copy(&self, session: usize) -> bool {
        let is_anew = |proxy: &Proxy| {
            let mut refreshes = proxy.copies.refreshes.values();
            refreshes.any(|refresh| refresh.is_anew && refresh.session == session)
        };
        let is_removing = |proxy: &Proxy| {
            let mut jobs = proxy.jobs.values();
            jobs.any(|job| job.session == session && !matches!(job.op, Op::Read | Op::Touch))
        };
        let mut proxies = self.proxies.iter();
        self.doubts.lacking.contains(&session)
            && (self.doubts.given_up.contains(&session)
                || proxies.any(|proxy| is_anew(proxy) || is_removing(proxy)))
    }

    /// Whether what a session has at a server is nothing but a copy.
    pub(crate) fn is_copy_at(&self, session: usize, at: BackendId) -> bool {
        self.doubts.copies.contains(&(session, at))
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
