//! Runs the real decisions: carries a request's steps to the servers and their answers back.

use staterouter::handover::request_driver::BodySource;
use staterouter::handover::{
    COPY_LOCK, ClientRequest, Cookie, NO_LOCK, Question, QuestionForm, RequestMachine, Stage, Step,
    Subrequest, SubrequestReply,
};

use super::backend::{self, Answer, NO_VERSION, Status, Verb};
use super::config::{Broken, C, Config, Gone, PLACES, REQUESTS, backend_id};
use super::copies::{DONE, copy_lock, copying, fetching, is_left_out, lock_in_hand};
use super::state::{
    Kind, LATE, Late, Lock, Message, NO_LEG, Now, Op, Page, Refresh, Role, Sender, State,
};

/// Longest time of one request in seconds, as the decisions are told.
const MOVER_S: u64 = 10;

/// What happens to a message and its answer on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    RequestLost,
    AnswerLost,
    Delayed,
    /// The server answers that it does not do it.
    Refused,
}

impl State {
    /// The request starts an operation at a proxy. `lock` is whose lock it gives back or breaks.
    pub(crate) fn start(
        &mut self,
        config: &Config,
        request: usize,
        proxy: usize,
        kind: Kind,
        lock: Option<Lock>,
    ) {
        let leg = self.legs[proxy];
        let mut route = self.route(config, proxy);
        if config.broken == Broken::CreateAtFirst
            && route.stage == Stage::Move1
            && kind == Kind::Create
        {
            route.stage = Stage::Move2;
        }
        let cookie = lock.map_or(Cookie::Untagged(0), |lock| {
            Cookie::from_client(client_cookie(config, lock))
        });
        let (search, step) = RequestMachine::start(route, request_of(kind, cookie), MOVER_S);
        let mut op = Op {
            kind,
            lock,
            proxy: if config.has_owed() { proxy as u8 } else { 0 },
            leg,
            search: Some(search),
            now: Now::Dropped,
            held: None,
            version: NO_VERSION,
            mask: 0,
            acked: 0,
            existed: false,
            undisturbed: false,
            outdated: false,
            inside: false,
        };
        self.note_start(request, &mut op);
        if kind == Kind::Acquire && self.requests[request].page == Page::Begin {
            self.requests[request].chain = leg;
        }
        self.requests[request].op = Some(op);
        self.follow(config, request, step);
    }

    /// The message under way meets its fate. `old` says whether a lock in its way is old.
    pub(crate) fn deliver(&mut self, config: &Config, request: usize, fate: Fate, old: bool) {
        let Some(Op {
            now: Now::Sent(message),
            leg,
            kind,
            outdated,
            proxy,
            ..
        }) = self.requests[request].op
        else {
            return;
        };
        let old_lock = self.requests[request].outdated && message.role != Role::Proxy;
        if outdated || old_lock {
            if let Some(op) = &mut self.requests[request].op {
                op.now = Now::Dropped;
                op.search = None;
                op.held = None;
            }
            return;
        }
        let was_session = config.true_place(self) == Some(usize::from(message.to));
        let answer = match fate {
            Fate::RequestLost => None,
            Fate::Delayed => {
                self.push_late(
                    Late {
                        message,
                        leg,
                        removal: kind == Kind::Delete && message.role != Role::Copy,
                        sender: Sender::GaveUp,
                        proxy,
                        refresh: Refresh::Nothing,
                    },
                    Some(request),
                );
                None
            }
            Fate::Refused => Some(Answer::refused(message.to)),
            Fate::Arrives => Some(self.apply(config, leg, message, old)),
            Fate::AnswerLost => {
                self.apply(config, leg, message, old);
                None
            }
        };
        let took_effect = answer.is_some() || fate == Fate::AnswerLost;
        if took_effect && kind == Kind::Delete && (message.is_clients() || was_session) {
            self.note_removed(request);
        }
        let status = answer.map(|answer| answer.status);
        self.note_tainted(request, message, (took_effect, status));
        self.note_copied(config, proxy, message, answer);
        self.answered(config, request, message, answer);
    }

    /// `leg` is the one in which the operation began.
    pub(super) fn apply(
        &mut self,
        config: &Config,
        leg: u8,
        message: Message,
        old: bool,
    ) -> Answer {
        let active = self.active();
        let Message {
            to, verb, version, ..
        } = message;
        let is_counted = self.is_use_counted(config, leg, to);
        let slot = &mut self.items[usize::from(to)];
        let answer = backend::answer(slot, to, verb, version, active, old);
        let reads = matches!(verb, Verb::Read | Verb::Acquire) && answer.status == Status::Done;
        match (slot, config.gone_after(leg)) {
            (Some(item), Some((Gone::Session, left))) => {
                item.touched |= reads || (to != left && !item.uninit);
            }
            (Some(item), _) if is_counted => {
                let uses = !matches!(verb, Verb::Release(_));
                item.touched |= uses && answer.status == Status::Done;
            }
            _ => {}
        }
        answer
    }

    /// Whether the use of an item counts for a stage that lasts as long as unused ones live: who
    /// began before that stage may use it without a copy, shortly after its beginning.
    fn is_use_counted(&self, config: &Config, began: u8, to: u8) -> bool {
        let counts = |leg: &u8| matches!(config.gone_after(*leg), Some((Gone::Unused, _)));
        let is_copy = to == C;
        counts(&began) || (is_copy && self.legs[..config.proxies].iter().any(counts))
    }

    /// The proxy has the answer, or none.
    fn answered(
        &mut self,
        config: &Config,
        request: usize,
        message: Message,
        answer: Option<Answer>,
    ) {
        let Some(op) = &mut self.requests[request].op else {
            return;
        };
        if message.role == Role::Forward {
            op.now = answer.map_or(Now::Dropped, Now::Answered);
            return;
        }
        let mut seen = answer.map_or(SubrequestReply::Unknown, Answer::seen);
        if message.is_copy() && config.broken == Broken::NoMiss && answer.is_none() {
            seen = DONE;
        }
        let before = op.held;
        let gets = matches!(message.verb, Verb::Acquire | Verb::Read);
        let fetched = message.role == Role::Proxy && gets;
        if (message.role == Role::Client || fetched) && answer.is_some() {
            op.held = answer;
        }
        let Some(search) = &mut op.search else {
            // A broken variant has put a copy in between.
            op.now = op.held.map_or(Now::Dropped, Now::Answered);
            return;
        };
        let mut step = search.next(force_young(config, seen));
        if let Some(broken) = break_step(config, op, before, message, seen, step) {
            step = broken;
        }
        self.follow(config, request, step);
    }

    /// Carries out a step as far as no message is needed.
    fn follow(&mut self, config: &Config, request: usize, mut step: Step) {
        loop {
            let seen = match step {
                Step::Ask(ask) => self.seen_at_once(config, request, ask),
                _ => None,
            };
            let may_ask = self.may_ask(config, request, step);
            let is_put_off = self.copies_first(config, request, step);
            let Some(op) = &mut self.requests[request].op else {
                return;
            };
            if is_put_off {
                op.search = None;
                return;
            }
            let behind = match step {
                step if !may_ask => {
                    op.now = Now::Dropped;
                    lock_in_hand(op, step)
                }
                Step::Ask(ask) => {
                    if let (Some(seen), Some(search)) = (seen, &mut op.search) {
                        step = search.next(seen);
                        continue;
                    }
                    op.now = Now::Sent(message(config, op, ask));
                    None
                }
                Step::Forward { at, counter } => {
                    op.now = Now::Sent(Message {
                        role: Role::Forward,
                        ..clients_message(config, op, at.id() - 1, counter)
                    });
                    op.search = None;
                    None
                }
                Step::Pass { clear_flag, behind } => {
                    op.now = op.held.map_or(Now::Dropped, |held| {
                        Now::Answered(Answer {
                            flag: held.flag && !clear_flag,
                            ..held
                        })
                    });
                    behind
                }
                Step::Drop { behind, .. } => {
                    op.now = Now::Dropped;
                    behind
                }
            };
            if let Some(ask) = behind.filter(|ask| !is_left_out(config, *ask)) {
                let message = message(config, op, ask);
                let late = Late {
                    message,
                    leg: op.leg,
                    removal: op.kind == Kind::Delete && message.role != Role::Copy,
                    sender: Sender::Behind,
                    proxy: op.proxy,
                    refresh: Refresh::of(config, op, ask),
                };
                self.push_late(late, Some(request));
                self.note_refreshing(late);
            }
            if let Some(op) = &mut self.requests[request].op
                && !matches!(op.now, Now::Sent(_))
            {
                op.search = None;
                op.held = None;
            }
            return;
        }
    }

    /// The client gets its answer, or its connection closed.
    pub(crate) fn tell(&mut self, request: usize) {
        let Some(op) = self.requests[request].op else {
            return;
        };
        let Now::Answered(answer) = op.now else {
            self.end_op(request);
            self.requests[request].end_page();
            return;
        };
        self.note_answer(request, &op, answer);
        self.end_op(request);
        let web_request = &mut self.requests[request];
        match (op.kind, answer.status) {
            (Kind::Break, _) => {
                web_request.outdated = false;
                web_request.page = Page::Begin;
            }
            (Kind::Acquire | Kind::Read, Status::Locked) => {
                web_request.chain = NO_LEG;
                web_request.page = Page::Begin;
            }
            (Kind::Acquire, Status::Done) => {
                web_request.chain = NO_LEG;
                web_request.page = Page::Runs;
                web_request.outdated = op.outdated;
                web_request.lock = Some(Lock {
                    at: answer.at,
                    counter: answer.counter,
                });
            }
            (Kind::Acquire, Status::Absent) if web_request.page == Page::Begin => {
                web_request.page = Page::Absent;
            }
            (Kind::Create, _) => web_request.page = Page::Created,
            (Kind::Fresh, _) => {
                web_request.chain = NO_LEG;
                web_request.end_page();
            }
            _ => web_request.end_page(),
        }
    }

    /// The page has been refused for long enough: it breaks the lock in its way.
    pub(crate) fn break_lock(&mut self, config: &Config, request: usize, proxy: usize) {
        let Some(Op {
            now: Now::Answered(answer),
            ..
        }) = self.requests[request].op
        else {
            return;
        };
        self.budget.takeovers -= 1;
        self.tell(request);
        let lock = Lock {
            at: answer.at,
            counter: answer.counter,
        };
        for other in &mut self.requests {
            other.taken |= other
                .lock
                .is_some_and(|held| client_cookie(config, held) == client_cookie(config, lock));
        }
        self.note_broken();
        self.start(config, request, proxy, Kind::Break, Some(lock));
    }

    /// The proxy dies in the middle of the operation. What it had just sent may still arrive.
    pub(crate) fn kill(&mut self, request: usize) {
        let Some(op) = self.requests[request].op else {
            return;
        };
        let outdated = self.requests[request].outdated;
        if let Now::Sent(message) = op.now
            && !(outdated && message.role != Role::Proxy)
        {
            let late = Late {
                message,
                leg: op.leg,
                removal: op.kind == Kind::Delete && message.role != Role::Copy,
                sender: Sender::Dead,
                proxy: op.proxy,
                refresh: Refresh::Nothing,
            };
            self.push_late(late, Some(request));
        }
        self.end_op(request);
        self.requests[request].end_page();
    }

    /// The proxy gives up what it has under way at the one server of a slot that is down. What it had
    /// sent may still be executed there.
    pub(crate) fn break_off(&mut self, proxy: usize, failed: Option<u8>) {
        for request in 0..REQUESTS {
            let Some(op) = &mut self.requests[request].op else {
                continue;
            };
            let is_elsewhere = matches!(op.now, Now::Sent(message) if Some(message.to) != failed);
            if usize::from(op.proxy) != proxy || is_elsewhere {
                continue;
            }
            let (now, leg, removal) = (op.now, op.leg, op.kind == Kind::Delete);
            (op.now, op.search, op.held) = (Now::Dropped, None, None);
            if let Now::Sent(message) = now {
                let late = Late {
                    message,
                    leg,
                    removal: removal && message.role != Role::Copy,
                    sender: Sender::BrokenOff,
                    proxy: proxy as u8,
                    refresh: Refresh::Nothing,
                };
                self.push_late(late, Some(request));
            }
        }
    }

    /// A late message arrives.
    pub(crate) fn land(&mut self, config: &Config, index: usize) {
        if let Some(late) = self.remove_late(index) {
            let answer = self.apply(config, late.leg, late.message, false);
            self.note_late_gone(late);
            self.go_on_refreshing(config, late, Some(answer));
        }
    }

    /// A late message never arrives.
    pub(crate) fn lose_late(&mut self, config: &Config, index: usize) {
        if let Some(late) = self.remove_late(index) {
            self.note_late_gone(late);
            self.go_on_refreshing(config, late, None);
        }
    }

    /// The server's connections break, and what is on its way there is lost.
    pub(crate) fn lose_messages(&mut self, config: &Config, backend_id: usize) {
        for index in 0..LATE {
            if self.late[index].is_some_and(|late| usize::from(late.message.to) == backend_id) {
                self.lose_late(config, index);
            }
        }
    }

    fn note_late_gone(&mut self, late: Late) {
        if late.message.is_clients_write() {
            self.note_late_end(late.message.version);
        }
        if late.removal && late.message.is_clients() {
            self.note_removed(REQUESTS);
        }
    }

    fn end_op(&mut self, request: usize) {
        if let Some(op) = self.requests[request].op.take() {
            self.note_end(&op);
        }
        self.forget_active(request);
    }

    /// A bit for each operation and late message under way.
    fn active(&self) -> u16 {
        let requests = (0..REQUESTS).filter(|&i| self.requests[i].op.is_some());
        let late = (0..LATE).filter(|&i| self.late[i].is_some());
        requests
            .chain(late.map(|i| REQUESTS + i))
            .fold(0, |mask, i| mask | 1 << i)
    }

    fn forget_active(&mut self, index: usize) {
        for item in self.items.iter_mut().flatten() {
            item.young &= !(1 << index);
        }
    }

    /// `of` is the operation it belonged to: a lock taken during that one is young as long as the
    /// message is under way.
    pub(super) fn push_late(&mut self, late: Late, of: Option<usize>) {
        let free = self.late.iter().position(Option::is_none);
        let index = free.expect("more late messages than there is room for");
        self.late[index] = Some(late);
        for item in self.items.iter_mut().flatten() {
            if of.is_some_and(|request| item.young & 1 << request != 0) {
                item.young |= 1 << (REQUESTS + index);
            }
        }
    }

    fn remove_late(&mut self, index: usize) -> Option<Late> {
        let late = self.late[index].take();
        self.forget_active(REQUESTS + index);
        late
    }

    /// Orders what has no order, so that equal worlds are equal states.
    pub(crate) fn normalise(&mut self, config: &Config) {
        self.compact_versions();
        let mut order: [usize; LATE] = std::array::from_fn(|i| i);
        order.sort_by_key(|&i| (self.late[i].is_none(), self.late[i]));
        let late = self.late;
        self.late = order.map(|i| late[i]);
        let requests = (1 << REQUESTS) - 1;
        for item in self.items.iter_mut().flatten() {
            let old = item.young;
            item.young &= requests;
            for (to, &from) in order.iter().enumerate() {
                if old & 1 << (REQUESTS + from) != 0 {
                    item.young |= 1 << (REQUESTS + to);
                }
            }
            item.touched &= self
                .legs
                .iter()
                .any(|&leg| config.gone_after(leg).is_some());
        }
        if !config.has_owed() {
            self.legs.sort_unstable();
        }
    }
}

fn request_of(kind: Kind, cookie: Cookie) -> ClientRequest {
    match kind {
        Kind::Acquire => ClientRequest::Acquire,
        Kind::Read => ClientRequest::Read,
        Kind::Touch => ClientRequest::Touch,
        Kind::Create => ClientRequest::Create,
        Kind::Put | Kind::Fresh => ClientRequest::Put(cookie),
        Kind::Release | Kind::Break => ClientRequest::Release(cookie),
        Kind::Delete => ClientRequest::Remove(cookie),
    }
}

/// The cookie of a lock as clients see it.
pub(super) fn client_cookie(config: &Config, lock: Lock) -> u32 {
    let counter = u32::from(lock.counter);
    if config.broken == Broken::NoTags {
        return counter;
    }
    backend_id(lock.at).tag(counter).unwrap()
}

/// The client's own request as it goes to a server.
fn clients_message(config: &Config, op: &Op, to: u8, counter: Option<u32>) -> Message {
    let sent = op.lock.map_or(0, |lock| client_cookie(config, lock));
    let counter = counter.unwrap_or(sent);
    let verb = match op.kind {
        Kind::Acquire => Verb::Acquire,
        Kind::Read => Verb::Read,
        Kind::Touch => Verb::Look,
        Kind::Create => Verb::Insert,
        Kind::Put | Kind::Fresh => Verb::Put(counter),
        Kind::Release | Kind::Break => Verb::Release(counter),
        Kind::Delete => Verb::Delete(counter),
    };
    Message {
        to,
        verb,
        version: op.version,
        role: Role::Client,
    }
}

pub(super) fn message(config: &Config, op: &Op, ask: Subrequest) -> Message {
    let own = |at: staterouter::handover::BackendId, verb| Message {
        to: at.id() - 1,
        verb,
        version: NO_VERSION,
        role: Role::Proxy,
    };
    let held = op.held.map_or(NO_VERSION, |held| held.version);
    let Some(Question { at, form, .. }) = Question::of(ask, None) else {
        // Begins with a look at the copy, or is no message.
        let (Subrequest::NoteDelete { to: at }
        | Subrequest::Refresh { at, .. }
        | Subrequest::CopyAnew { at, .. }
        | Subrequest::Miss { at }
        | Subrequest::Look { at }) = ask
        else {
            unreachable!("{ask:?} is a question");
        };
        return own(at, Verb::Look);
    };
    match form {
        QuestionForm::Own { counter } => clients_message(config, op, at.id() - 1, counter),
        QuestionForm::Acquire => own(at, fetching(config)),
        QuestionForm::Get => own(at, Verb::Read),
        QuestionForm::Touch => own(at, Verb::Look),
        QuestionForm::Store {
            body: BodySource::Client,
            ..
        } => Message {
            version: op.version,
            role: Role::Copy,
            ..own(at, Verb::Put(copy_lock(config, op)))
        },
        QuestionForm::Store {
            unless_there: true, ..
        } => Message {
            version: held,
            ..own(at, Verb::Insert)
        },
        QuestionForm::Store { .. } => Message {
            version: held,
            ..own(at, copying(config))
        },
        QuestionForm::Remove(COPY_LOCK) if op.kind == Kind::Delete => Message {
            role: Role::Copy,
            ..own(at, Verb::Delete(COPY_LOCK))
        },
        QuestionForm::Release(counter) => own(at, Verb::Release(counter)),
        QuestionForm::Remove(counter) => own(at, Verb::Delete(counter)),
    }
}

/// What a broken variant takes for the answer to a question it does not ask.
pub(super) fn skipped(config: &Config, op: &Op, ask: Subrequest) -> Option<SubrequestReply> {
    let finds = matches!(op.kind, Kind::Acquire | Kind::Read);
    let route = config.legs[usize::from(op.leg)].route;
    let free_removal = matches!(
        ask,
        Subrequest::Remove {
            counter: NO_LOCK,
            ..
        }
    );
    let skips = match config.broken {
        Broken::NoClearing => op.kind == Kind::Delete && free_removal,
        Broken::FlagBelieved => finds && free_removal,
        Broken::NoConfirm(stages) => {
            finds && ask == Subrequest::Look { at: route.first } && stages.contains(&route.stage)
        }
        _ => false,
    };
    skips.then_some(SubrequestReply::Absent)
}

fn force_young(config: &Config, seen: SubrequestReply) -> SubrequestReply {
    match seen {
        SubrequestReply::Locked { counter, .. } if config.broken == Broken::ForceYoung => {
            SubrequestReply::Locked {
                counter,
                age_s: MOVER_S,
            }
        }
        _ => seen,
    }
}

/// What a broken variant does instead.
fn break_step(
    config: &Config,
    op: &mut Op,
    before: Option<Answer>,
    message: Message,
    seen: SubrequestReply,
    step: Step,
) -> Option<Step> {
    let route = config.legs[usize::from(op.leg)].route;
    let pass = Step::Pass {
        clear_flag: false,
        behind: None,
    };
    let first = route.first.id() - 1;
    match config.broken {
        Broken::NoSecondLook => {
            let again = Step::Ask(Subrequest::Client {
                at: route.first,
                counter: None,
            });
            (step == again && seen == SubrequestReply::Absent && message.to != first)
                .then_some(pass)
        }
        Broken::ReadsPassFlags => {
            let Step::Pass { behind, .. } = step else {
                return None;
            };
            let clear_flag = false;
            (op.kind == Kind::Read).then_some(Step::Pass { clear_flag, behind })
        }
        Broken::OutdatedIsCopied => {
            let is_check = message.verb == Verb::Delete(NO_LOCK) && op.kind == Kind::Acquire;
            let was_there = matches!(seen, SubrequestReply::Done { .. });
            let clear_flag = true;
            let behind = None;
            (is_check && was_there).then_some(Step::Pass { clear_flag, behind })
        }
        Broken::OldLock => {
            let moves = op.kind == Kind::Acquire && message.to == first;
            let failed = matches!(step, Step::Drop { .. });
            let old = before.filter(|held| held.at != first && held.status == Status::Done)?;
            (moves && failed).then(|| {
                op.held = Some(old);
                pass
            })
        }
        _ => None,
    }
}

impl Config {
    /// What is gone after this leg, if it lasts a lifetime.
    pub(crate) fn gone_after(&self, leg: u8) -> Option<(Gone, u8)> {
        let mut next = self.legs[usize::from(leg)].next.iter();
        next.find_map(|&next| self.legs[usize::from(next)].gone)
    }

    pub(crate) fn places(&self) -> std::ops::Range<usize> {
        0..PLACES
    }
}
