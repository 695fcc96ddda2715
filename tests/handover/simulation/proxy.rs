//! The data path of a proxy: sends what `handover::RequestDriver` says, as `proxy::two_places` does
//! over sockets.

use std::rc::Rc;

use staterouter::handover::copy_refresh::Keeping;
use staterouter::handover::request_driver::{BodySource, MOVE_PAUSE};
use staterouter::handover::{
    BackendId, COPY_LOCK, ClientRequest, Cookie, CopyKind, DriverTask, Heard, NoReply, Question,
    QuestionForm, Refusal, RequestDriver, RequestEnd, RequestMachine, SlotRoute, SlotTable, Stage,
    Step, Subrequest, SubrequestReply,
};
use staterouter::health::Failure;

use super::broken::Broken;
use super::copying::{Behind, MadeCopy, places_of};
use super::hold::Waits;
use super::judge::{Answer, End};
use super::net::{Asked, Fate, Message, Op, Power, Purpose, Reply};
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
    /// Another one has another number.
    pub(crate) number: u64,
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
    /// `None` for one that is forwarded at once.
    driver: Option<RequestDriver>,
    /// Nothing is left to decide: the answer counts, whatever it is.
    is_forwarded: bool,
    pub(crate) in_force: InForce,
    pub(crate) waits: Waits,
    held: Option<(BackendId, Reply)>,
    /// The held answer whose item is stored elsewhere.
    kept: Option<(BackendId, Reply)>,
    /// Number of the question under way.
    pub(crate) ask: u32,
    asked: Option<Question>,
    /// The item's other copy was not there.
    is_absent_at_second: bool,
    /// What is under way at the replica.
    pub(crate) under_way: Option<MadeCopy>,
    /// The last question without an answer: whom it was for, and what has failed; `None` if that server
    /// counts as down.
    lost: Option<(BackendId, Option<Failure>)>,
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    pub(crate) why: &'static str,
    /// The server that was asked last, and what has failed there; `None` for a refusal.
    pub(crate) at: Option<(BackendId, Option<Failure>)>,
    pub(crate) may_repeat: bool,
}

impl Job {
    /// Whether its question under way is the client's own, which nothing else is decided by but how it
    /// ends.
    pub(crate) fn is_clients(&self) -> bool {
        let is_copied = self.route.replica.is_some();
        let is_own = |question: Question| matches!(question.form, QuestionForm::Own { .. });
        self.is_forwarded || (is_copied && self.asked.is_some_and(is_own))
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
    /// A client's request has reached a proxy, or goes on there after it has waited.
    pub(crate) fn begin_job(&mut self, call: u64, waits: Option<Waits>) {
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
        let request = request(op, &in_force);
        let (machine, step) = RequestMachine::start(route, request, self.mover_s());
        if !matches!(step, Step::Drop { .. }) {
            self.start_anew_if_away(p, session, route);
        }
        let waits = waits.unwrap_or(Waits::new(self.now_ms + self.numbers.answer_ms));
        let is_repeatable = matches!(op, Op::Read | Op::Touch);
        let replica = route.replica.map(|replica| replica.at);
        let driver = match step {
            Step::Ask(ask) => Some(RequestDriver::new(
                machine,
                ask,
                replica,
                request,
                is_repeatable,
            )),
            _ => None,
        };
        let job = Job {
            call,
            page,
            session,
            op,
            request,
            route,
            driver,
            is_forwarded: false,
            in_force,
            waits,
            held: None,
            kept: None,
            ask: 0,
            asked: None,
            is_absent_at_second: false,
            under_way: None,
            lost: None,
        };
        self.start_job(p, job, step);
    }

    fn start_job(&mut self, p: usize, job: Job, step: Step) {
        let due_ms = job.waits.due_ms;
        let id = self.next_job();
        self.proxies[p].jobs.insert(id, job);
        let boot = self.proxies[p].boot;
        self.at(due_ms, Event::Due(p, boot, id));
        match step {
            Step::Ask(_) => self.go_on_with_task(p, id),
            Step::Forward { at, counter } => self.forward(p, id, at, counter),
            Step::Drop { reason, .. } => {
                let may_repeat = reason.may_begin_anew();
                self.fail_job(p, id, Failed::refused(reason, may_repeat));
            }
            Step::Pass { .. } => self.fail_job(p, id, Failed::refused(Refusal::Unknown, false)),
        }
    }

    /// Younger locks may belong to a mover.
    fn mover_s(&self) -> u64 {
        match self.is_broken(Broken::YoungLocks) {
            true => 0,
            false => self.numbers.mover_s,
        }
    }

    /// Nobody waits any more for what is under way at servers that are down, by bit.
    pub(crate) fn break_off(&mut self, p: usize, down: u128) {
        let is_there = |job: &Job| {
            let at = job.asked.map(|question| question.at);
            at.is_some_and(|at| down >> at.id() & 1 == 1)
        };
        let jobs = self.proxies[p].jobs.iter();
        let broken: Vec<u64> = jobs
            .filter(|job| is_there(job.1))
            .map(|job| *job.0)
            .collect();
        for id in broken {
            self.lose(p, id, None);
        }
    }

    fn go_on_with_task(&mut self, p: usize, id: u64) {
        let job = self.proxies[p].jobs.get(&id);
        if let Some(driver) = job.and_then(|job| job.driver) {
            self.carry_out(p, id, driver.task());
        }
    }

    fn carry_out(&mut self, p: usize, id: u64, task: DriverTask) {
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        let session = job.session;
        let is_over = matches!(task, DriverTask::End(_));
        let broken = self.broken.filter(|_| !is_over);
        if let Some(seen) = broken.and_then(|broken| skipped(broken, job)) {
            return self.hear_job(p, id, Heard::Reply(seen));
        }
        match task {
            DriverTask::Send(question) => self.put(p, id, question),
            DriverTask::Pause => {
                job.ask += 1;
                let ask = job.ask;
                let boot = self.proxies[p].boot;
                let wait_ms = MOVE_PAUSE.as_millis() as u64;
                self.after(wait_ms, Event::PauseOver(p, boot, id, ask));
            }
            DriverTask::NoteDelete(to) => {
                self.owe(p, to, session);
                self.hear_job(p, id, Heard::Reply(DONE));
            }
            DriverTask::NoteMiss => {
                self.note_missed(p, session);
                self.hear_job(p, id, Heard::Reply(DONE));
            }
            DriverTask::End(end) => self.end_job(p, id, end),
        }
    }

    /// A request has waited for the end of a move.
    pub(crate) fn pause_over(&mut self, p: usize, boot: u32, id: u64, ask: u32) {
        let job = self.proxies[p].jobs.get(&id);
        if self.proxies[p].boot == boot && job.is_some_and(|job| job.ask == ask) {
            self.go_on_with_task(p, id);
        }
    }

    /// Puts a question.
    fn put(&mut self, p: usize, id: u64, question: Question) {
        let (broken, now) = (self.broken, self.proxies[p].in_force.clone());
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        job.ask += 1;
        job.asked = Some(question);
        if question.form.is_held() {
            (job.held, job.kept) = (None, None);
        }
        let Some(mut op) = op_of(job, question.form) else {
            return self.lose(p, id, None);
        };
        if let (Some(broken), Some(driver)) = (broken, job.driver) {
            op = broken.ask(driver.ask(), job.route, op);
        }
        let (asks, due_ms) = (job.in_force.asks(&now, question.at), job.waits.due_ms);
        let (session, route, ask) = (job.session, job.route, job.ask);
        if let Some(kind) = question.copy {
            let places = places_of(route);
            let begun = self.begin_copy(p, (session, route), places, (kind, question.at));
            let begun = match begun {
                Ok(begun) => begun,
                Err(reason) => return self.stop_copy(p, id, reason),
            };
            if let Some(job) = self.proxies[p].jobs.get_mut(&id) {
                job.under_way = Some(begun);
            }
            let boot = self.proxies[p].boot;
            let copy_due_ms = kind.due_ms(self.now_ms, due_ms);
            if copy_due_ms < due_ms {
                self.at(copy_due_ms, Event::CopyDue(p, boot, id, ask));
            }
        }
        if !asks || self.now_ms >= due_ms {
            return self.lose_unsent(p, id, question.at);
        }
        self.send_question(p, id, question.at, op);
    }

    /// The copy of a request must not be made, or must not be stored anew.
    fn stop_copy(&mut self, p: usize, id: u64, reason: Refusal) {
        let job = self.proxies[p].jobs.get(&id);
        let end = job.and_then(|job| Some(job.driver?.refused(reason)));
        if let Some(end) = end {
            self.end_job(p, id, end);
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

    fn forward(&mut self, p: usize, id: u64, at: BackendId, counter: Option<u32>) {
        let now = self.proxies[p].in_force.clone();
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        job.ask += 1;
        job.is_forwarded = true;
        let form = QuestionForm::Own { counter };
        job.asked = Some(Question {
            at,
            form,
            copy: None,
        });
        let op = with_counter(job.op, counter);
        if job.in_force.asks(&now, at) && self.now_ms < job.waits.due_ms {
            return self.send_question(p, id, at, op);
        }
        self.lose_unsent(p, id, at);
    }

    fn send_question(&mut self, p: usize, id: u64, backend_id: BackendId, op: Op) {
        let proxy = &self.proxies[p];
        let Some(job) = proxy.jobs.get(&id) else {
            return;
        };
        let kind = match job.asked {
            Some(Question {
                form: QuestionForm::Own { .. },
                ..
            }) => Asked::Own,
            Some(Question {
                copy: Some(kind), ..
            }) if kind.is_restore() => Asked::Restore,
            _ => Asked::Other,
        };
        let message = Message {
            proxy: p,
            boot: proxy.boot,
            purpose: Purpose::Job {
                job: id,
                ask: job.ask,
                kind,
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
        self.note_use(&message, &reply);
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
            Purpose::Job { job: id, ask, .. } => {
                let job = proxy.jobs.get(&id).filter(|job| job.ask == ask);
                match (job, result) {
                    (None, Ok(reply)) => self.give_back_late(&message, reply),
                    (None, Err(_)) => {}
                    (Some(_), Ok(reply)) => self.hear(p, id, message.backend_id, reply),
                    (Some(_), Err(failure)) => self.lose(p, id, Some(failure)),
                }
            }
        }
    }

    /// A request's time is up.
    pub(crate) fn due(&mut self, p: usize, boot: u32, id: u64) {
        if self.proxies[p].boot == boot {
            self.lose(p, id, Some(Failure::Late));
        }
    }

    /// The question under way has no answer: because of this failure, or because its server is down.
    fn lose(&mut self, p: usize, id: u64, failure: Option<Failure>) {
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        job.ask += 1;
        let Some(question) = job.asked else {
            return;
        };
        let is_unsent = matches!(failure, Some(Failure::Refused | Failure::ConnectTimedOut));
        self.lost(p, id, (question.at, failure), is_unsent);
    }

    /// Nothing is sent to a server that is down.
    fn lose_unsent(&mut self, p: usize, id: u64, at: BackendId) {
        self.lost(p, id, (at, None), true);
    }

    fn lost(
        &mut self,
        p: usize,
        id: u64,
        (at, failure): (BackendId, Option<Failure>),
        is_unsent: bool,
    ) {
        let is_down = !self.proxies[p].in_force.is_up(at);
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        job.lost = Some((at, failure));
        let failed = NoReply {
            is_unsent,
            is_out_of_reach: true,
        };
        if !job.is_forwarded {
            return self.hear_job(p, id, Heard::Nothing(failed));
        }
        let is_repeatable = matches!(job.op, Op::Read | Op::Touch);
        let may_repeat = match job.driver {
            Some(driver) => driver.forward_failed(failed, is_down),
            None => failed.may_begin_anew(is_down, is_repeatable),
        };
        let failed = Failed {
            why: "backend does not answer",
            at: Some((at, failure)),
            may_repeat,
        };
        self.fail_job(p, id, failed);
    }

    /// An answer in time.
    fn hear(&mut self, p: usize, id: u64, backend_id: BackendId, reply: Reply) {
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        if job.is_forwarded {
            let job = self.proxies[p].jobs.remove(&id);
            if let Some(job) = job {
                self.pass(p, &job, backend_id, reply, false);
            }
            return;
        }
        if job.asked.is_some_and(|question| question.form.is_held()) {
            job.held = Some((backend_id, reply));
            job.is_absent_at_second =
                reply.seen() == SubrequestReply::Absent && Some(backend_id) == job.route.second;
        }
        self.hear_job(p, id, Heard::Reply(reply.seen()));
    }

    /// Something came of the step under way.
    fn hear_job(&mut self, p: usize, id: u64, heard: Heard) {
        let mut heard = heard;
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        if let Some(under_way) = job.under_way.take() {
            let session = job.session;
            let kind = job.asked.and_then(|question| question.copy);
            if self.is_broken(Broken::NoMiss) && kind != Some(CopyKind::Move) {
                heard = Heard::Reply(DONE);
            }
            self.end_copy(p, session, (under_way, heard.reply()));
        }
        let is_old_lock = self.is_broken(Broken::OldLock);
        let Some(job) = self.proxies[p].jobs.get_mut(&id) else {
            return;
        };
        let Some(driver) = &mut job.driver else {
            return;
        };
        let is_insert = matches!(driver.ask(), Subrequest::Insert { .. });
        if is_old_lock && is_insert && heard.reply() == SubrequestReply::Unknown {
            let job = self.proxies[p].jobs.remove(&id);
            if let Some((job, (backend_id, reply))) = job
                .and_then(|job| Some((job.kept?, job)))
                .map(|(kept, job)| (job, kept))
            {
                self.pass(p, &job, backend_id, reply, false);
            }
            return;
        }
        let task = driver.heard(heard);
        self.carry_out(p, id, task);
    }

    fn end_job(&mut self, p: usize, id: u64, end: RequestEnd) {
        let Some(job) = self.proxies[p].jobs.get(&id) else {
            return;
        };
        let lost = job.lost;
        let failed_move = job.driver.and_then(|driver| driver.failed_move(&end));
        if let Some(failed) = failed_move.filter(|failed| !failed.is_stored) {
            self.proxies[p].brain.move_failed(failed.from, failed.to);
            self.tick_soon(p);
        }
        match end {
            RequestEnd::Forward { at, counter } => self.forward(p, id, at, counter),
            RequestEnd::Pass { clear_flag, behind } => {
                self.send_behind(p, id, behind);
                let Some(mut job) = self.proxies[p].jobs.remove(&id) else {
                    return;
                };
                match job.held.take().or(job.kept.take()) {
                    Some((backend_id, reply)) => {
                        self.end_write(p, &job, reply);
                        let is_believed =
                            self.is_broken(Broken::ReadsPassFlags) && job.op == Op::Read;
                        self.pass(p, &job, backend_id, reply, clear_flag && !is_believed);
                    }
                    None => self.drop_call(job.call, "nothing held"),
                }
            }
            RequestEnd::Fail {
                reason,
                behind,
                may_repeat,
            } => {
                let lost = lost.filter(|_| reason == Refusal::Unknown);
                self.send_behind(p, id, behind);
                let failed = Failed {
                    at: lost,
                    ..Failed::refused(reason, may_repeat)
                };
                self.fail_job(p, id, failed);
            }
        }
    }

    /// A request has no answer: it waits and begins anew, or its client is told.
    fn fail_job(&mut self, p: usize, id: u64, failed: Failed) {
        let Some(job) = self.proxies[p].jobs.remove(&id) else {
            return;
        };
        if let Some((at, Some(failure))) = failed.at {
            let boot = self.proxies[p].boot;
            self.after(1, Event::Reported(p, boot, at, failure));
        }
        if failed.may_repeat && self.hold(p, &job, failed) {
            return;
        }
        self.say(Scope::Session(job.session), || {
            format!("proxy {p} drops {:?}: {}", job.op, failed.why)
        });
        self.drop_call(job.call, failed.why);
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
            Some(behind) => {
                let (session, route) = (job.session, job.route);
                let op = job.op;
                if let Some(keeping) = Keeping::of(behind) {
                    self.refresh(p, Behind { session, route, op }, keeping);
                }
                return;
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

/// What a question is sent as; `None` if there is nothing to be stored.
fn op_of(job: &mut Job, form: QuestionForm) -> Option<Op> {
    Some(match form {
        QuestionForm::Own { counter } => with_counter(job.op, counter),
        QuestionForm::Get => Op::Read,
        QuestionForm::Acquire => Op::Acquire,
        QuestionForm::Touch => Op::Touch,
        QuestionForm::Release(counter) => Op::Release(counter),
        QuestionForm::Remove(counter) => Op::Remove(counter),
        QuestionForm::Store {
            body: BodySource::Client,
            lock_cookie,
            ..
        } => with_counter(job.op, Some(lock_cookie)),
        QuestionForm::Store {
            body: BodySource::Held,
            lock_cookie: cookie,
            unless_there,
        } => {
            job.kept = Some(job.held.take()?);
            let (_, Reply { version, .. }) = job.kept?;
            match unless_there {
                true => Op::Insert { version },
                false => Op::Put { cookie, version },
            }
        }
    })
}

/// What a broken variant takes for the answer to a step that it leaves out.
fn skipped(broken: Broken, job: &Job) -> Option<SubrequestReply> {
    let ask = job.driver?.ask();
    broken.instead(ask, job.request, job.route, job.is_absent_at_second)
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

impl Failed {
    fn refused(reason: Refusal, may_repeat: bool) -> Self {
        Self {
            why: refusal(reason),
            at: None,
            may_repeat,
        }
    }
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
        Refusal::Unheard => "peers unheard",
        Refusal::CopyLocked => "copy locked",
        Refusal::Restless => "restless",
    }
}
