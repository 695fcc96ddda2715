//! The data path of a proxy: asks what `handover::RequestMachine` says, as `proxy::two_places` does
//! over sockets.

use std::rc::Rc;

use staterouter::handover::{
    BackendId, COPY_LOCK, ClientRequest, Cookie, Refusal, ReplicaPhase, RequestMachine, SlotRoute,
    SlotTable, Stage, Step, Subrequest, SubrequestReply,
};
use staterouter::health::Failure;

use super::broken::Broken;
use super::copying::{Behind, UnderWay};
use super::judge::{Answer, End};
use super::net::{Fate, Message, Op, Power, Purpose, Reply};
use super::trace::Scope;
use super::world::{Event, World};

/// What a note comes to.
const DONE: SubrequestReply = SubrequestReply::Done {
    counter: 0,
    flag: false,
};

/// What is in force on the data path.
#[derive(Debug, Clone)]
pub(crate) struct InForce {
    pub(crate) table: Rc<SlotTable>,
    /// Places that are known, and those that are up, by bit.
    pub(crate) known: u128,
    pub(crate) up: u128,
}

/// One request of a client that waits for its slot to go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    call: u64,
    slot: usize,
    since_ms: u64,
}

/// One request of a client under way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) call: u64,
    pub(crate) page: u64,
    pub(crate) session: usize,
    pub(crate) op: Op,
    request: ClientRequest,
    pub(crate) route: SlotRoute,
    /// `None` once nothing is left to decide.
    pub(crate) search: Option<RequestMachine>,
    in_force: InForce,
    due_ms: u64,
    held: Option<(BackendId, Reply)>,
    /// Number of the question under way.
    ask: u32,
    asked: Option<Subrequest>,
    /// The item's other copy was not there.
    is_absent_at_second: bool,
    /// The item that is being moved.
    moved: Option<(BackendId, Reply)>,
    /// What is under way at the replica.
    pub(crate) under_way: Option<UnderWay>,
}

impl Held {
    pub(crate) fn call(&self) -> u64 {
        self.call
    }
}

impl Job {
    /// Whether its question under way is the client's own, which nothing else is decided by but how it
    /// ends.
    pub(crate) fn is_clients(&self) -> bool {
        let is_copied = self.route.replica.is_some();
        self.search.is_none()
            || (is_copied && matches!(self.asked, Some(Subrequest::Client { .. })))
    }
}

impl InForce {
    pub(crate) fn is_up(&self, backend_id: BackendId) -> bool {
        self.up >> backend_id.id() & 1 == 1
    }

    /// Whether a request that began with this asks a server, by what is in force now. One that is
    /// forgotten by then is still asked.
    fn asks(&self, now: &Self, backend_id: BackendId) -> bool {
        self.is_up(backend_id) && (now.is_up(backend_id) || !now.knows(backend_id))
    }

    pub(crate) fn knows(&self, backend_id: BackendId) -> bool {
        self.known >> backend_id.id() & 1 == 1
    }
}

impl World {
    /// A client's request has reached a proxy, or has waited there since `since_ms`.
    pub(crate) fn begin_job(&mut self, call: u64, since_ms: u64) {
        let Some(known) = self.farm.calls.get(&call) else {
            return;
        };
        let (p, page, session, mut op) = (known.proxy, known.page, known.session, known.op);
        if !self.proxies[p].is_on {
            let near_ms = self.links.near_ms();
            self.after(near_ms, Event::Answered(call, End::NotSent, "proxy off"));
            return;
        }
        let in_force = self.proxies[p].in_force.clone();
        let slot = self.farm.sessions[session].slot;
        let mut route = in_force.table.route(in_force.table.lookup(slot));
        if let Some(broken) = self.broken {
            op = broken.read(op);
            route = broken.route(route);
        }
        self.recall_copy(p, session, &mut route);
        let waits = route.stage == Stage::Suspect || self.waits_for_copy(p, slot, route, op);
        if waits && self.now_ms < since_ms + self.numbers.hold_ms {
            return self.hold(
                p,
                Held {
                    call,
                    slot,
                    since_ms,
                },
            );
        }
        self.start_anew_if_away(p, session, route);
        let request = request(op, &in_force);
        let mover_s = if self.is_broken(Broken::YoungLocks) {
            0
        } else {
            self.numbers.mover_s
        };
        let (search, step) = RequestMachine::start(route, request, mover_s);
        let due_ms = since_ms + self.numbers.answer_ms;
        let job = Job {
            call,
            page,
            session,
            op,
            request,
            route,
            search: Some(search),
            in_force,
            due_ms,
            held: None,
            ask: 0,
            asked: None,
            is_absent_at_second: false,
            moved: None,
            under_way: None,
        };
        let id = self.next_job();
        self.proxies[p].jobs.insert(id, job);
        let boot = self.proxies[p].boot;
        self.at(due_ms, Event::Due(p, boot, id));
        self.take_step(p, id, step);
    }

    /// Whether what is to be written waits until nobody relies on the replica any more.
    fn waits_for_copy(&self, p: usize, slot: usize, route: SlotRoute, op: Op) -> bool {
        let writes = matches!(op, Op::Put { .. } | Op::Remove(_));
        let is_dropping = route
            .replica
            .is_some_and(|replica| replica.phase == ReplicaPhase::Dropping);
        writes && (is_dropping || self.proxies[p].copies.has_missed(slot))
    }

    /// The request begins anew once the slot has changed.
    fn hold_again(&mut self, p: usize, id: u64, why: &'static str) {
        let Some(job) = self.proxies[p].jobs.remove(&id) else {
            return;
        };
        let since_ms = job.due_ms - self.numbers.answer_ms;
        if self.now_ms >= since_ms + self.numbers.hold_ms {
            return self.drop_call(job.call, why);
        }
        let (call, slot) = (job.call, self.farm.sessions[job.session].slot);
        self.hold(
            p,
            Held {
                call,
                slot,
                since_ms,
            },
        );
        let at_ms = self.now_ms + 300;
        self.round_by(p, at_ms);
    }

    fn hold(&mut self, p: usize, held: Held) {
        let proxy = &mut self.proxies[p];
        proxy.held.push(held);
        let over = Event::HoldOver(p, proxy.boot, held.call);
        self.at(held.since_ms + self.numbers.hold_ms, over);
    }

    /// The slots have changed: those that waited for that go on, in the order in which they came.
    pub(crate) fn let_go(&mut self, p: usize) {
        for held in std::mem::take(&mut self.proxies[p].held) {
            let route = self.proxies[p].in_force.table.lookup(held.slot);
            if route.stage == Stage::Suspect || self.proxies[p].copies.has_missed(held.slot) {
                self.proxies[p].held.push(held);
            } else {
                self.begin_job(held.call, held.since_ms);
            }
        }
    }

    /// A request has waited long enough.
    pub(crate) fn hold_over(&mut self, p: usize, boot: u32, call: u64) {
        let proxy = &mut self.proxies[p];
        let before = proxy.held.len();
        proxy.held.retain(|held| held.call != call);
        if proxy.boot == boot && proxy.held.len() < before {
            self.drop_call(call, "suspect for too long");
        }
    }

    /// Nobody waits any more for what is under way at servers that are down, by bit.
    pub(crate) fn break_off(&mut self, p: usize, down: u128) {
        let is_there = |job: &Job| {
            let at = job.asked.and_then(place_of);
            at.is_some_and(|at| down >> at.id() & 1 == 1)
        };
        let jobs = self.proxies[p].jobs.iter();
        let broken: Vec<u64> = jobs
            .filter(|job| is_there(job.1))
            .map(|job| *job.0)
            .collect();
        for id in broken {
            let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
                continue;
            };
            job.ask += 1;
            if job.search.is_some() {
                self.see(p, id, SubrequestReply::Unknown);
            } else if let Some(job) = self.proxies[p].jobs.remove(&id) {
                self.drop_call(job.call, "broken off");
            }
        }
    }

    fn take_step(&mut self, p: usize, id: u64, step: Step) {
        match step {
            Step::Ask(ask) => self.ask(p, id, ask),
            Step::Forward { at, counter } => self.forward(p, id, at, counter),
            Step::Pass { clear_flag, behind } => {
                self.send_behind(p, id, behind);
                let Some(mut job) = self.proxies[p].jobs.remove(&id) else {
                    return;
                };
                match job.held.take().or(job.moved.take()) {
                    Some((backend_id, reply)) => {
                        self.end_write(p, &job, reply);
                        let is_believed =
                            self.is_broken(Broken::ReadsPassFlags) && job.op == Op::Read;
                        self.pass(p, &job, backend_id, reply, clear_flag && !is_believed);
                    }
                    None => self.drop_call(job.call, "nothing held"),
                }
            }
            Step::Drop {
                reason: Refusal::CopyMissed,
                ..
            } => self.hold_again(p, id, "copy missed"),
            Step::Drop { reason, behind } => {
                self.send_behind(p, id, behind);
                if let Some(job) = self.proxies[p].jobs.remove(&id) {
                    self.say(Scope::Session(job.session), || {
                        format!("proxy {p} drops {:?}: {reason}", job.op)
                    });
                    self.drop_call(job.call, refusal(reason));
                }
            }
        }
    }

    /// A write is answered: what its place has refused is at the replica no more.
    fn end_write(&mut self, p: usize, job: &Job, reply: Reply) {
        let Op::Put { version, .. } = job.op else {
            return;
        };
        let Some(replica) = job
            .route
            .replica
            .filter(|replica| replica.phase.is_copied())
        else {
            return;
        };
        if reply.status != 200 {
            return self.undo(job.session, version);
        }
        if self.is_broken(Broken::TruthFirst) || self.is_broken(Broken::CopyTwice) {
            let cookie = COPY_LOCK;
            self.send_alone(p, replica.at, job.session, Op::Put { cookie, version });
        }
    }

    fn ask(&mut self, p: usize, id: u64, ask: Subrequest) {
        let broken = self.broken;
        let now = self.proxies[p].in_force.clone();
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        if let Some(seen) = broken
            .and_then(|broken| broken.instead(ask, job.request, job.route, job.is_absent_at_second))
        {
            job.asked = Some(ask);
            return self.see(p, id, seen);
        }
        job.ask += 1;
        job.asked = Some(ask);
        let session = job.session;
        let (at, op) = match ask {
            Subrequest::Client { at, counter } => {
                (job.held, job.moved) = (None, None);
                (at, with_counter(job.op, counter))
            }
            Subrequest::Acquire { at } => {
                (job.held, job.moved) = (None, None);
                (at, Op::Acquire)
            }
            Subrequest::Look { at } => (at, Op::Touch),
            Subrequest::Release { at, counter } => (at, Op::Release(counter)),
            Subrequest::Remove { at, counter } => (at, Op::Remove(counter)),
            Subrequest::Insert { at } => {
                let Some(held) = job.held.take() else {
                    return self.see(p, id, SubrequestReply::Unknown);
                };
                job.moved = Some(held);
                let version = held.1.version;
                (at, Op::Insert { version })
            }
            Subrequest::Copy { at } => (at, with_counter(job.op, Some(COPY_LOCK))),
            Subrequest::CopyHeld { at } => {
                let Some((_, Reply { version, .. })) = job.held.or(job.moved) else {
                    return self.see(p, id, SubrequestReply::Unknown);
                };
                let cookie = COPY_LOCK;
                (at, Op::Put { cookie, version })
            }
            Subrequest::Recall { at } => {
                (job.held, job.moved) = (None, None);
                (at, Op::Read)
            }
            // Those are only ever sent behind an answer.
            Subrequest::Refresh { .. } | Subrequest::CopyAnew { .. } => {
                return self.see(p, id, SubrequestReply::Unknown);
            }
            Subrequest::Miss { .. } => {
                self.note_missed(p, session);
                return self.see(p, id, DONE);
            }
            Subrequest::NoteDelete { to } => {
                self.owe(p, to, session);
                return self.see(p, id, DONE);
            }
        };
        let op = broken.map_or(op, |broken| broken.ask(ask, op));
        if !job.in_force.asks(&now, at) || self.now_ms >= job.due_ms {
            return self.see(p, id, SubrequestReply::Unknown);
        }
        if !self.begin_question(p, id, ask) {
            return self.hold_again(p, id, "suspect");
        }
        self.limit_copy(p, id);
        self.send_question(p, id, at, op);
    }

    /// A replica that does not answer must not take the time in which the slot goes on without it.
    fn limit_copy(&mut self, p: usize, id: u64) {
        let (boot, now_ms) = (self.proxies[p].boot, self.now_ms);
        let job = self.proxies[p].jobs.get(&id);
        let is_copy =
            |job: &&Job| matches!(job.under_way, Some(UnderWay::Copy | UnderWay::Removal));
        if let Some(job) = job.filter(is_copy) {
            let half_ms = job.due_ms.saturating_sub(now_ms) / 2;
            self.after(half_ms, Event::CopyDue(p, boot, id, job.ask));
        }
    }

    /// Half of the time that its request had left is over.
    pub(crate) fn copy_due(&mut self, p: usize, boot: u32, id: u64, ask: u32) {
        let proxy = &self.proxies[p];
        let job = proxy.jobs.get(&id).filter(|job| job.ask == ask);
        if proxy.boot == boot && job.is_some() {
            self.due(p, boot, id);
        }
    }

    /// Notes what is under way at the replica; false if that must not be.
    fn begin_question(&mut self, p: usize, id: u64, ask: Subrequest) -> bool {
        let Some(job) = self.proxies[p].jobs.remove(&id) else {
            return false;
        };
        let under_way = self.begin_copy(p, &job, ask);
        let may_ask = under_way.is_some() || !Self::is_copy(&job, ask);
        let held = job.held.filter(|_| job.op == Op::Acquire);
        let session = job.session;
        let job = Job { under_way, ..job };
        self.proxies[p].jobs.insert(id, job);
        if let (false, Some((at, reply))) = (may_ask, held) {
            self.send_alone(p, at, session, Op::Release(reply.counter));
        }
        may_ask
    }

    fn forward(&mut self, p: usize, id: u64, at: BackendId, counter: Option<u32>) {
        let now = self.proxies[p].in_force.clone();
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        job.ask += 1;
        job.search = None;
        job.asked = Some(Subrequest::Client { at, counter });
        let op = with_counter(job.op, counter);
        if job.in_force.asks(&now, at) && self.now_ms < job.due_ms {
            return self.send_question(p, id, at, op);
        }
        let call = job.call;
        self.proxies[p].jobs.remove(&id);
        self.drop_call(call, "backend down");
    }

    fn send_question(&mut self, p: usize, id: u64, backend_id: BackendId, op: Op) {
        let proxy = &self.proxies[p];
        let Some(job) = proxy.jobs.get(&id) else {
            return;
        };
        let message = Message {
            proxy: p,
            boot: proxy.boot,
            purpose: Purpose::Job {
                job: id,
                ask: job.ask,
            },
            backend_id,
            session: job.session,
            op,
        };
        self.send(message);
    }

    /// Sends a request to a server.
    pub(crate) fn send(&mut self, message: Message) {
        if self.links.reaches(message.proxy, message.backend_id) {
            if let Fate::After(ms) = self.links.fate(message.purpose) {
                self.after(ms, Event::AtServer(message));
            } else {
                self.say(Scope::Session(message.session), || {
                    format!("lost on the way: {}", describe(&message))
                });
            }
        } else if self.links.random().chance(500) {
            // Otherwise it went out on a connection that was there already.
            self.after(
                self.numbers.connect_ms,
                Event::AtProxy(message, Err(Failure::ConnectTimedOut)),
            );
        }
    }

    /// A request has reached a server.
    pub(crate) fn at_server(&mut self, message: Message) {
        if !self.links.reaches(message.proxy, message.backend_id) {
            return;
        }
        let index = usize::from(message.backend_id.id()) - 1;
        match self.servers[index].power {
            Power::On => {}
            Power::Paused => return self.servers[index].buffered.push(message),
            Power::Off => {
                let near_ms = self.links.near_ms();
                return self.after(near_ms, Event::AtProxy(message, Err(Failure::Refused)));
            }
        }
        self.meet_limits(&message);
        let session = &self.farm.sessions[message.session];
        let (server, now_ms) = (&self.servers[index], self.now_ms);
        let lock = server.lock(&session.key, now_ms);
        let reply = server.apply(&session.key, message.op, now_ms);
        let items = |world: &Self| {
            let key = &world.farm.sessions[message.session].key;
            let servers = world.servers.iter();
            let items = servers.map(|server| server.describe(key, now_ms));
            items.collect::<Vec<_>>().join(" | ")
        };
        if self.trace.is_on {
            let line = format!(
                "{}: {}   [{}]",
                describe(&message),
                reply.status,
                items(self)
            );
            self.say(Scope::Session(message.session), || line);
        }
        self.doubt_copy(&message, &reply);
        if reply.status == 200 {
            self.trust_copy(&message, lock);
        }
        self.fold(u64::from(reply.status) ^ reply.version << 16);
        match self.links.fate(message.purpose) {
            Fate::After(ms) => self.after(ms, Event::AtProxy(message, Ok(reply))),
            Fate::Lost => self.say(Scope::Session(message.session), || {
                format!("answer lost: {}", describe(&message))
            }),
        }
    }

    /// An answer has reached a proxy.
    pub(crate) fn at_proxy(&mut self, message: Message, result: Result<Reply, Failure>) {
        let p = message.proxy;
        let proxy = &self.proxies[p];
        let is_reached = result.is_err() || self.links.reaches(p, message.backend_id);
        if proxy.boot != message.boot || !proxy.is_on || !is_reached {
            return;
        }
        match message.purpose {
            Purpose::Behind => {}
            Purpose::Refresh { id, step } => self.refreshed(p, id, step, result),
            Purpose::Replay { attempt } => self.replay_answered(p, message, attempt, result),
            Purpose::Job { job: id, ask } => {
                let job = proxy.jobs.get(&id).filter(|job| job.ask == ask);
                match (job, result) {
                    (None, Ok(reply)) => self.give_back_late(&message, reply),
                    (None, Err(_)) => {}
                    (Some(_), Ok(reply)) => self.hear(p, id, message.backend_id, reply),
                    (Some(_), Err(failure)) => self.fail(p, id, message.backend_id, failure),
                }
            }
        }
    }

    /// A request's time is up.
    pub(crate) fn due(&mut self, p: usize, boot: u32, id: u64) {
        let proxy = &mut self.proxies[p];
        if proxy.boot != boot {
            return;
        }
        if let Some(job) = proxy.jobs.get_mut(&id) {
            job.ask += 1;
            let at = job.asked.and_then(place_of);
            if let Some(at) = at {
                self.fail(p, id, at, Failure::Late);
            }
        }
    }

    fn fail(&mut self, p: usize, id: u64, backend_id: BackendId, failure: Failure) {
        self.request_failed(p, backend_id, failure);
        let Some(job) = self.proxies[p].jobs.get(&id) else {
            return;
        };
        if job.search.is_some() {
            return self.see(p, id, SubrequestReply::Unknown);
        }
        let call = job.call;
        self.proxies[p].jobs.remove(&id);
        self.drop_call(call, "backend does not answer");
    }

    /// An answer in time.
    fn hear(&mut self, p: usize, id: u64, backend_id: BackendId, reply: Reply) {
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        if job.search.is_none() {
            let job = self.proxies[p].jobs.remove(&id);
            if let Some(job) = job {
                self.pass(p, &job, backend_id, reply, false);
            }
            return;
        }
        if matches!(
            job.asked,
            Some(
                Subrequest::Client { .. } | Subrequest::Acquire { .. } | Subrequest::Recall { .. }
            )
        ) {
            job.held = Some((backend_id, reply));
            job.is_absent_at_second =
                reply.seen() == SubrequestReply::Absent && Some(backend_id) == job.route.second;
        }
        self.see(p, id, reply.seen());
    }

    fn see(&mut self, p: usize, id: u64, seen: SubrequestReply) {
        let is_old_lock = self.is_broken(Broken::OldLock);
        let job = self.proxies[p].jobs.get_mut(&id);
        let mut seen = seen;
        if let Some(kind) = job.and_then(|job| job.under_way.take()) {
            if self.is_broken(Broken::NoMiss) && kind != UnderWay::Move {
                seen = DONE;
            }
            self.end_copy(p, id, kind, seen);
        }
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        let is_insert = matches!(job.asked, Some(Subrequest::Insert { .. }));
        let is_done = matches!(seen, SubrequestReply::Done { .. });
        let stays = (is_insert && !is_done).then_some(job.route);
        if is_old_lock && is_insert && seen == SubrequestReply::Unknown {
            let job = self.proxies[p].jobs.remove(&id);
            if let Some((job, (backend_id, reply))) =
                job.and_then(|job| Some((job.moved?, job)).map(|(moved, job)| (job, moved)))
            {
                self.pass(p, &job, backend_id, reply, false);
            }
            return;
        }
        let step = job.search.as_mut().map(|search| search.next(seen));
        if let Some(SlotRoute {
            first,
            second: Some(second),
            ..
        }) = stays
        {
            let now_ms = self.now_ms;
            self.proxies[p].brain.move_failed(second, first, now_ms);
        }
        if let Some(step) = step {
            self.take_step(p, id, step);
        }
    }

    /// Passes an answer on to the client.
    fn pass(&mut self, p: usize, job: &Job, backend_id: BackendId, reply: Reply, clear_flag: bool) {
        let has_cookie = reply.status == 423 || job.op == Op::Acquire && reply.status == 200;
        let cookie = match backend_id.tag(reply.counter) {
            Ok(cookie) if has_cookie => cookie,
            _ if has_cookie => reply.counter,
            _ => 0,
        };
        let answer = Answer {
            status: reply.status,
            cookie,
            flag: reply.flag && !clear_flag,
            age_s: reply.age_s,
            version: reply.version,
        };
        if !self.farm.calls.contains_key(&job.call) {
            let took_lock = job.op == Op::Acquire && reply.status == 200;
            if took_lock && job.in_force.asks(&self.proxies[p].in_force, backend_id) {
                self.send_alone(p, backend_id, job.session, Op::Release(reply.counter));
            }
            return;
        }
        if self.links.is_lossy() && self.links.random().chance(5) {
            self.say(Scope::Session(job.session), || {
                format!("lost between proxy {p} and its client")
            });
            return;
        }
        let near_ms = self.links.near_ms();
        self.after(
            near_ms,
            Event::Answered(job.call, End::Answered(answer), ""),
        );
    }

    pub(crate) fn drop_call(&mut self, call: u64, why: &'static str) {
        let near_ms = self.links.near_ms();
        self.after(near_ms, Event::Answered(call, End::Unknown, why));
    }

    fn send_behind(&mut self, p: usize, id: u64, behind: Option<Subrequest>) {
        let Some(job) = self.proxies[p].jobs.get(&id) else {
            return;
        };
        let (at, op) = match behind {
            Some(Subrequest::Release { at, counter }) => (at, Op::Release(counter)),
            Some(Subrequest::Remove { at, counter }) => (at, Op::Remove(counter)),
            Some(ask) => {
                let (session, route) = (job.session, job.route);
                let op = job.op;
                return self.refresh(p, Behind { session, route, op }, ask);
            }
            None => return,
        };
        if job.in_force.asks(&self.proxies[p].in_force, at) {
            let session = job.session;
            self.send_alone(p, at, session, op);
        }
    }

    /// The answer to an acquire nobody waits for any more.
    fn give_back_late(&mut self, message: &Message, reply: Reply) {
        if message.op == Op::Acquire && reply.status == 200 {
            let release = Op::Release(reply.counter);
            self.send_alone(message.proxy, message.backend_id, message.session, release);
        }
    }

    pub(crate) fn send_alone(&mut self, p: usize, backend_id: BackendId, session: usize, op: Op) {
        self.send(Message {
            proxy: p,
            boot: self.proxies[p].boot,
            purpose: Purpose::Behind,
            backend_id,
            session,
            op,
        });
    }

    /// What a stand-in answers while the session is out of reach is not wrong.
    fn start_anew_if_away(&mut self, p: usize, session: usize, route: SlotRoute) {
        let away = route.second.filter(|_| route.stage == Stage::Away);
        let slot = self.farm.sessions[session].slot;
        let left = self.proxies[p].slots()[slot].outdated.places();
        let replicas = self.plan.class.replicas;
        let left: Vec<_> = left
            .filter(|place| !replicas || self.left_behind.contains(&(slot, *place)))
            .collect();
        for home in away.into_iter().chain(left) {
            self.start_anew_without(session, home);
        }
    }

    fn start_anew_without(&mut self, session: usize, home: BackendId) {
        let known = &self.farm.sessions[session];
        let server = &self.servers[usize::from(home.id()) - 1];
        if server.has(&known.key, self.now_ms) {
            let failover = self.failovers[known.slot];
            let locks: Vec<u32> = self
                .farm
                .locks(session)
                .into_iter()
                .filter(|cookie| cookie >> 24 == u32::from(home.id()))
                .collect();
            if !self.farm.sessions[session].start_anew(failover, &locks, self.now_ms) {
                self.retire(session, "may have been removed or be out of reach");
            }
        }
    }
}

/// What a client asks for, as the proxy reads it.
fn request(op: Op, in_force: &InForce) -> ClientRequest {
    let is_known = |backend_id| in_force.knows(backend_id);
    let cookie = |cookie| Cookie::from_client(cookie).of_known(is_known);
    match op {
        Op::Read => ClientRequest::Read,
        Op::Touch => ClientRequest::Touch,
        Op::Acquire => ClientRequest::Acquire,
        Op::Release(lock) => ClientRequest::Release(cookie(lock)),
        Op::Put { cookie: lock, .. } => ClientRequest::Put(cookie(lock)),
        Op::Insert { .. } => ClientRequest::Create,
        Op::Remove(lock) => ClientRequest::Remove(cookie(lock)),
    }
}

/// The client's request with another lock cookie.
fn with_counter(op: Op, counter: Option<u32>) -> Op {
    match (op, counter) {
        (Op::Release(_), Some(counter)) => Op::Release(counter),
        (Op::Remove(_), Some(counter)) => Op::Remove(counter),
        (Op::Put { version, .. }, Some(cookie)) => Op::Put { cookie, version },
        _ => op,
    }
}

fn place_of(ask: Subrequest) -> Option<BackendId> {
    match ask {
        Subrequest::Client { at, .. }
        | Subrequest::Acquire { at }
        | Subrequest::Look { at }
        | Subrequest::Insert { at }
        | Subrequest::Release { at, .. }
        | Subrequest::Remove { at, .. } => Some(at),
        Subrequest::Copy { at } | Subrequest::CopyHeld { at } => Some(at),
        Subrequest::Refresh { at, .. }
        | Subrequest::CopyAnew { at, .. }
        | Subrequest::Recall { at } => Some(at),
        Subrequest::NoteDelete { .. } | Subrequest::Miss { .. } => None,
    }
}

fn describe(message: &Message) -> String {
    let Message {
        proxy,
        backend_id,
        op,
        ..
    } = message;
    let behind = if message.purpose == Purpose::Behind {
        ", nobody waiting"
    } else {
        ""
    };
    format!(
        "proxy {proxy} at server {}: {op:?}{behind}",
        backend_id.id()
    )
}

fn refusal(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Unknown => "unknown",
        Refusal::Suspect => "suspect",
        Refusal::BegunAnew => "begun anew",
        Refusal::Returning => "returning",
        Refusal::LockOutOfReach => "lock out of reach",
        Refusal::Moving => "moving",
        Refusal::CopyMissed => "copy missed",
        Refusal::CopyLocked => "copy locked",
        Refusal::Restless => "restless",
    }
}
