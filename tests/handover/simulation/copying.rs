//! What a proxy does for the replicas of its slots, as `proxy::two_places::copying` and
//! `proxy::refresh` do over sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use staterouter::control::copy_watch::{CopyWatch, LOOKS_ANEW_MS};
use staterouter::handover::copy_refresh::{
    CopyRefresh, Keeping, REFRESH_PAUSE, RefreshEnd, RefreshNews, RefreshTask, is_about_to_be_left,
};
use staterouter::handover::{
    BackendId, COPY_LOCK, CopyKind, LOCKED_REFRESH_S, Question, QuestionForm, Refusal, Replica,
    ReplicaPhase, SlotRoute, SlotState, Stage, Subrequest, SubrequestReply,
};
use staterouter::health::Failure;
use staterouter::proxy::copies::{CopiedSession, CopyTracker, CopyUnderWay, refresh_after_s};

use super::broken::Broken;
use super::control::Proxy;
use super::net::{Message, Op, Purpose, Reply, SESSION_TIMEOUT_MINUTES, SESSION_TIMEOUT_MS};
use super::trace::Scope;
use super::world::{Event, World};

/// So many sessions a proxy remembers the copies of: few, so that some are forgotten.
const REMEMBERED: usize = 64;

/// What a proxy knows of the copies it makes.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) tracker: Rc<CopyTracker>,
    pub(crate) watch: CopyWatch,
    refreshes: BTreeMap<u64, Refresh>,
}

/// A copy that a proxy has under way.
pub(crate) type MadeCopy = CopyUnderWay<Rc<CopyTracker>>;

/// A request whose answer something is sent behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    pub(crate) session: usize,
    pub(crate) route: SlotRoute,
    pub(crate) op: Op,
}

/// A copy that is being kept alive, or written anew.
#[derive(Debug)]
struct Refresh {
    session: usize,
    /// A keep-alive was answered before it.
    is_of_touch: bool,
    route: SlotRoute,
    copy: CopyRefresh,
    step: u32,
    /// When its round is due.
    due_ms: u64,
    /// The item that is to be copied.
    version: u64,
    /// What is under way at the replica.
    under_way: Option<MadeCopy>,
}

impl Refresh {
    fn is_anew(&self) -> bool {
        self.copy.keeping().is_anew()
    }

    /// Whether it has only looked so far.
    fn is_looking(&self) -> bool {
        let is_touch = |question: Question| question.form == QuestionForm::Touch;
        matches!(self.copy.task(), RefreshTask::Send(question) if is_touch(question))
    }
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
    /// How old the copies of sessions are.
    used: BTreeMap<usize, CopyUse>,
}

/// A copy, and the session itself while it was there.
#[derive(Debug, Clone, Copy)]
struct CopyUse {
    at: BackendId,
    /// When the copy was written or touched last.
    copied_ms: u64,
    /// When the session was asked for last.
    used_ms: u64,
}

impl Copies {
    /// Nothing is copied yet.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self {
            tracker: Rc::new(CopyTracker::new(now_ms, REMEMBERED)),
            watch: CopyWatch::default(),
            refreshes: BTreeMap::new(),
        }
    }
}

pub(crate) const fn places_of(route: SlotRoute) -> [Option<BackendId>; 2] {
    [Some(route.first), route.second]
}

impl World {
    /// What is known of the copy of a session.
    pub(crate) fn recall_copy(&self, p: usize, session: usize, route: &mut SlotRoute) {
        let Some(replica) = &mut route.replica else {
            return;
        };
        if let Some(known) = self.proxies[p].copies.tracker.known(self.copied(session)) {
            known.recall(replica, self.now_ms);
            replica.has_copy |= self.is_broken(Broken::OldCopies);
        }
    }

    /// A session, as its copy is noted.
    fn copied(&self, session: usize) -> CopiedSession {
        let known = &self.farm.sessions[session];
        CopiedSession {
            slot: self.plan.slots[known.slot],
            fingerprint: known.fingerprint,
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

    /// Counts what is about to be sent as under way, unless its slot has changed since the request came,
    /// or it is to be stored anew while other proxies are not heard.
    pub(crate) fn begin_copy(
        &self,
        p: usize,
        (session, route): (usize, SlotRoute),
        places: [Option<BackendId>; 2],
        (kind, at): (CopyKind, BackendId),
    ) -> Result<MadeCopy, Refusal> {
        let is_late = kind.is_restore() && self.is_broken(Broken::RestoreLate);
        CopyUnderWay::begin(
            Rc::clone(&self.proxies[p].copies.tracker),
            (self.copied(session), places),
            (kind, at),
            |replica| is_late || self.may_copy(p, session, route, replica),
            |copies| self.may_restore(p, copies),
        )
    }

    /// Whether no other proxy can have dropped a replica that this one calls full. Nobody is asked here
    /// while nothing changes.
    fn may_restore(&self, p: usize, copies: &CopyTracker) -> bool {
        let proxy = &self.proxies[p];
        let mut others = (0..self.proxies.len()).filter(|other| *other != p);
        let hears_all = proxy.brain.pool_state.peers().iter().all(Option::is_some)
            && others.all(|other| self.proxies[other].is_on && self.links.hears(p, other));
        let is_quiet = hears_all && proxy.brain.pool_state.went_by_ms() >= self.changed_ms;
        self.is_broken(Broken::RestoreUnheard) || is_quiet || copies.may_restore(self.now_ms)
    }

    /// What became of a copy.
    pub(crate) fn end_copy(
        &mut self,
        p: usize,
        session: usize,
        (under_way, reply): (MadeCopy, SubrequestReply),
    ) {
        under_way.ended(reply, SESSION_TIMEOUT_MINUTES, || self.now_ms);
        self.look_for_misses(p, session);
    }

    pub(crate) fn note_missed(&mut self, p: usize, session: usize) {
        let copied = self.copied(session);
        self.proxies[p].copies.tracker.miss_session(copied);
        self.look_for_misses(p, session);
    }

    /// What was missed is seen with the next tick.
    fn look_for_misses(&mut self, p: usize, session: usize) {
        if self.proxies[p].copies.tracker.has_missed() {
            let slot = self.farm.sessions[session].slot;
            self.say(Scope::Slot(slot), || {
                format!("proxy {p}: a copy was missed")
            });
            self.tick_soon(p);
        }
    }

    /// Keep-alives are looked at as often as production does that while nothing happens.
    pub(crate) fn look_at_copies_later(&mut self, p: usize) {
        if self.plan.class.replicas {
            self.tick_by(p, self.now_ms + LOOKS_ANEW_MS);
        }
    }

    /// Keeps a copy alive, or writes it anew, behind an answer.
    pub(crate) fn refresh(&mut self, p: usize, behind: Behind, keeping: Keeping) {
        let Behind { session, route, op } = behind;
        if !keeping.is_anew() {
            if self.is_broken(Broken::NoKeepAlive) {
                return;
            }
            let (copied, now_ms) = (self.copied(session), self.now_ms);
            self.proxies[p].copies.tracker.is_touched(copied, now_ms);
        }
        let id = self.next_job();
        let refresh = Refresh {
            session,
            is_of_touch: op == Op::Touch,
            route,
            copy: CopyRefresh::new(keeping),
            step: 0,
            due_ms: self.now_ms + self.numbers.answer_ms,
            version: 0,
            under_way: None,
        };
        self.proxies[p].copies.refreshes.insert(id, refresh);
        self.go_on_refreshing(p, id);
    }

    fn go_on_refreshing(&mut self, p: usize, id: u64) {
        let boot = self.proxies[p].boot;
        let Some(refresh) = self.proxies[p].copies.refreshes.get_mut(&id) else {
            return;
        };
        refresh.step += 1;
        let (step, due_ms) = (refresh.step, refresh.due_ms);
        match refresh.copy.task() {
            RefreshTask::Send(question) => {
                self.at(due_ms, Event::RefreshDue(p, boot, id, step));
                self.ask_refreshing(p, id, question);
            }
            RefreshTask::Pause => {
                let wait_ms = REFRESH_PAUSE.as_millis() as u64;
                self.after(wait_ms, Event::RefreshDue(p, boot, id, step));
            }
            RefreshTask::End(end) => self.end_refresh(p, id, end),
        }
    }

    fn ask_refreshing(&mut self, p: usize, id: u64, question: Question) {
        let Some(refresh) = self.proxies[p].copies.refreshes.get(&id) else {
            return;
        };
        let Refresh {
            session,
            route,
            copy,
            version,
            step,
            ..
        } = *refresh;
        let op = match question.form {
            QuestionForm::Acquire => Op::Acquire,
            QuestionForm::Store {
                lock_cookie: cookie,
                ..
            } => Op::Put { cookie, version },
            _ => Op::Touch,
        };
        if let Some(kind) = question.copy {
            let whose = (session, route);
            let Ok(begun) = self.begin_copy(p, whose, copy.places(), (kind, question.at)) else {
                let from = copy.keeping().from();
                let is_left = from.is_none_or(|from| self.is_about_to_be_left(p, session, from));
                return self.tell_refresh(p, id, |copy| copy.slot_changed(is_left));
            };
            if let Some(refresh) = self.proxies[p].copies.refreshes.get_mut(&id) {
                refresh.under_way = Some(begun);
            }
        }
        if !self.proxies[p].in_force.is_up(question.at) {
            return self.hear_refresh(p, id, None);
        }
        self.send(Message {
            proxy: p,
            boot: self.proxies[p].boot,
            purpose: Purpose::Refresh { id, step },
            backend_id: question.at,
            session,
            op,
        });
    }

    /// A round, or a pause, is over.
    pub(crate) fn refresh_due(&mut self, p: usize, boot: u32, id: u64, step: u32) {
        let due_ms = self.now_ms + self.numbers.answer_ms;
        if self.proxies[p].boot != boot {
            return;
        }
        let refresh = self.proxies[p].copies.refreshes.get_mut(&id);
        let Some(refresh) = refresh.filter(|refresh| refresh.step == step) else {
            return;
        };
        if refresh.copy.task() == RefreshTask::Pause {
            refresh.copy.paused();
            refresh.due_ms = due_ms;
            return self.go_on_refreshing(p, id);
        }
        self.hear_refresh(p, id, None);
    }

    /// What keeps a copy alive has an answer, or none.
    pub(crate) fn refreshed(
        &mut self,
        p: usize,
        id: u64,
        step: u32,
        result: Result<Reply, Failure>,
    ) {
        let known = self.proxies[p].copies.refreshes.get_mut(&id);
        let Some(refresh) = known.filter(|refresh| refresh.step == step) else {
            return;
        };
        if let Ok(reply) = result {
            refresh.version = reply.version;
        }
        self.hear_refresh(p, id, result.ok().map(|reply| reply.seen()));
    }

    fn hear_refresh(&mut self, p: usize, id: u64, reply: Option<SubrequestReply>) {
        let Some(refresh) = self.proxies[p].copies.refreshes.get_mut(&id) else {
            return;
        };
        let session = refresh.session;
        if let Some(under_way) = refresh.under_way.take() {
            let reply = reply.unwrap_or(SubrequestReply::Unknown);
            self.end_copy(p, session, (under_way, reply));
        }
        self.tell_refresh(p, id, |copy| copy.heard(reply));
    }

    fn tell_refresh(
        &mut self,
        p: usize,
        id: u64,
        tell: impl FnOnce(&mut CopyRefresh) -> RefreshNews,
    ) {
        let copies = &mut self.proxies[p].copies;
        let Some(refresh) = copies.refreshes.get_mut(&id) else {
            return;
        };
        let (session, at) = (refresh.session, refresh.copy.keeping().at());
        let news = tell(&mut refresh.copy);
        if let Some(was_there) = news.was_there {
            copies.tracker.was_touched(at, was_there);
            self.tick_soon(p);
        }
        if let Some(Subrequest::Release { at, counter }) = news.release {
            self.send_alone(p, at, session, Op::Release(counter));
        }
        self.go_on_refreshing(p, id);
    }

    fn is_about_to_be_left(&self, p: usize, session: usize, place: BackendId) -> bool {
        let proxy = &self.proxies[p];
        let slot = proxy.slots()[self.farm.sessions[session].slot];
        is_about_to_be_left(slot.stage, proxy.in_force.is_up(place))
    }

    fn end_refresh(&mut self, p: usize, id: u64, end: RefreshEnd) {
        let copies = &mut self.proxies[p].copies;
        let Some(refresh) = copies.refreshes.remove(&id) else {
            return;
        };
        let (session, copied) = (refresh.session, self.copied(refresh.session));
        let mut is_left = false;
        let tracker = &self.proxies[p].copies.tracker;
        tracker.refresh_ended(copied, end, |from| {
            is_left = self.is_about_to_be_left(p, session, from);
            is_left
        });
        if is_left {
            self.doubts.given_up.insert(session);
        }
        self.look_for_misses(p, session);
    }

    /// What a message has just changed at a replica, and what is not certain of that.
    pub(crate) fn doubt_copy(&mut self, message: &Message, reply: &Reply) {
        if !self.plan.class.replicas {
            return;
        }
        if reply.status == 404 {
            return self.look_at_removed_copy(message);
        }
        if reply.status != 200 {
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

    /// A page removes a session of which only the copy is left. The copy is gone already, so its place
    /// says that there is none.
    fn look_at_removed_copy(&mut self, message: &Message) {
        let session = message.session;
        let is_removal = matches!(message.op, Op::Remove(cookie) if cookie != COPY_LOCK);
        let is_of_page = matches!(message.purpose, Purpose::Job { .. });
        if is_removal
            && is_of_page
            && self.doubts.alone.contains(&session)
            && self.doubts.lacking.contains(&session)
        {
            self.retire(session, "is removed where only its copy was left");
        }
    }

    /// What slides the expiry of a session, or of its copy.
    pub(crate) fn note_use(&mut self, message: &Message, reply: &Reply) {
        if !self.plan.class.replicas || !matches!(reply.status, 200 | 423) {
            return;
        }
        let (session, at, now_ms) = (message.session, message.backend_id, self.now_ms);
        let slot = self.proxies[message.proxy].slots()[self.farm.sessions[session].slot];
        if slot.replica.is_some_and(|replica| replica.backend_id == at) {
            let used = CopyUse {
                at,
                copied_ms: now_ms,
                used_ms: now_ms,
            };
            self.doubts.used.insert(session, used);
            return;
        }
        let known = self.doubts.used.get_mut(&session);
        let alive = known.filter(|used| now_ms < used.copied_ms + SESSION_TIMEOUT_MS);
        if let Some(used) =
            alive.filter(|_| matches!(message.op, Op::Read | Op::Touch | Op::Acquire))
        {
            used.used_ms = now_ms;
        }
    }

    /// Whether the copy of a session has expired before the session, by no more than docs/replicas.md
    /// admits (section 7, 4).
    fn has_expired_early(&self, session: usize, at: BackendId) -> bool {
        let late_ms = refresh_after_s(SESSION_TIMEOUT_MINUTES) * 1000
            + LOCKED_REFRESH_S * 1000
            + self.numbers.answer_ms;
        let used = self.doubts.used.get(&session).filter(|used| used.at == at);
        used.is_some_and(|used| {
            self.now_ms >= used.copied_ms + SESSION_TIMEOUT_MS
                && used.used_ms <= used.copied_ms + late_ms
        })
    }

    /// Which version the copy has of what a request of a client writes.
    fn copied_version(&self, message: &Message) -> Option<u64> {
        let Purpose::Job { job, .. } = message.purpose else {
            return None;
        };
        let job = self.proxies[message.proxy].jobs.get(&job)?;
        let replica = job.route.replica?;
        if !replica.phase.is_copied() || replica.at == message.backend_id {
            return None;
        }
        let server = &self.servers[usize::from(replica.at.id()) - 1];
        server.version(&self.farm.sessions[message.session].key, self.now_ms)
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
        }
        // What is read is stored anew only while all are known to rely on it.
        if message.op == Op::Read {
            return;
        }
        if self.left_unheard.contains(&(slot, at)) {
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
                if lock != Some(cookie) && self.copied_version(message).is_some() {
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
            } else if self
                .copied_version(message)
                .is_some_and(|copied| copied != version)
            {
                let why = "is written just as a broken lock writes it";
                self.retire(message.session, why);
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
        // It may be suspect again at once, because its other place is down as well.
        let (places, stage) = match after.before {
            Some(served) => ([Some(served.first), served.second], served.stage),
            None => ([Some(after.first), after.second], after.stage),
        };
        let is_served = matches!(
            stage,
            Stage::Steady | Stage::Settle | Stage::Move1 | Stage::Move2 | Stage::Turned
        ) && places.contains(&Some(replica.backend_id));
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
                self.may_lack_copy(session) || !is_stored || self.has_expired_early(session, copies)
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
            refreshes.any(|refresh| refresh.is_anew() && refresh.session == session)
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
            proxy.is_on && full == Some(replica.backend_id) && !proxy.copies.tracker.has_missed()
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
        let copies = std::mem::replace(&mut self.proxies[p].copies, Copies::new(self.now_ms));
        let jobs = self.proxies[p].jobs.values();
        let jobs =
            jobs.filter(|job| job.under_way.is_some() || !matches!(job.op, Op::Read | Op::Touch));
        let jobs = jobs.map(|job| job.session);
        let refreshes = copies.refreshes.values();
        let anew = refreshes.filter(|refresh| refresh.is_anew() || !refresh.is_looking());
        let sessions: Vec<usize> = jobs.chain(anew.map(|refresh| refresh.session)).collect();
        if self.plan.class.replicas {
            for session in sessions {
                self.retire(session, "was under way at a proxy that died");
            }
        }
    }
}
