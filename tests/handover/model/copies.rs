//! What a replica adds to the world: copies under way, what was missed, keep-alives, the end of a
//! server whose slot goes on with its replica.

use staterouter::handover::{
    COPY_LOCK, FIRST_LOCK, ReplicaPhase, SlotRoute, Step, Subrequest, SubrequestReply,
};

use super::backend::{Answer, Status, Verb};
use super::config::{Broken, C, Config};
use super::driver::{client_cookie, message, skipped};
use super::state::{Kind, LATE, Late, Message, Now, Op, Refresh, Role, Sender, State};

/// 200 without anything.
pub(super) const DONE: SubrequestReply = SubrequestReply::Done {
    counter: 0,
    flag: false,
};

impl State {
    /// The slot as this proxy sees it.
    pub(super) fn route(&self, config: &Config, proxy: usize) -> SlotRoute {
        let mut route = config.legs[usize::from(self.legs[proxy])].route;
        if let Some(replica) = &mut route.replica {
            let is_filling = replica.phase == ReplicaPhase::Filling;
            let is_trusted = is_filling && config.broken == Broken::OldCopiesTrusted;
            let is_known = is_filling && self.copied[proxy];
            replica.has_copy = replica.phase == ReplicaPhase::Full || is_known || is_trusted;
            replica.is_fresh = !config.idle;
        }
        route
    }

    /// What is seen without a message.
    pub(super) fn seen_at_once(
        &mut self,
        config: &Config,
        request: usize,
        ask: Subrequest,
    ) -> Option<SubrequestReply> {
        let op = self.requests[request].op?;
        let proxy = usize::from(op.proxy);
        match ask {
            Subrequest::NoteDelete { .. } => {
                self.owed[proxy] = config.broken != Broken::NoOwed;
                return Some(DONE);
            }
            Subrequest::Miss { .. } => {
                self.missed = true;
                self.copied[proxy] = false;
                return Some(DONE);
            }
            _ => {}
        }
        // A copy that was missed may arrive late, after its session has been removed: cut off.
        if self.missed && matches!(ask, Subrequest::Recall { .. }) {
            return Some(SubrequestReply::Unknown);
        }
        let is_down = config.down_in(self.legs[proxy]) == Some(message(config, &op, ask).to);
        if is_down {
            return Some(SubrequestReply::Unknown);
        }
        let is_skipped = match (config.broken, ask) {
            (Broken::TruthFirst, Subrequest::Copy { .. }) => true,
            (Broken::NoFirstCopy, Subrequest::CopyHeld { .. }) => {
                let lock = op.held.map(|held| u32::from(held.counter));
                config.copies_in(op.leg, ReplicaPhase::Full).is_some() && lock == Some(FIRST_LOCK)
            }
            (Broken::NoUndo, Subrequest::Remove { counter, .. }) => {
                op.kind != Kind::Delete && counter == COPY_LOCK
            }
            (Broken::CopyWithoutLock, Subrequest::Release { counter, .. }) => counter == 0,
            _ => false,
        };
        self.tainted &= !(is_skipped && config.broken == Broken::NoUndo);
        is_skipped
            .then_some(DONE)
            .or_else(|| skipped(config, &op, ask))
    }

    /// Whether the slot is still as the operation takes it to be, where that is looked at.
    pub(super) fn may_ask(&self, config: &Config, request: usize, step: Step) -> bool {
        let Some(op) = self.requests[request].op else {
            return true;
        };
        let leg = self.legs[usize::from(op.proxy)];
        match step {
            Step::Forward { at, .. } => config.down_in(leg) != Some(at.id() - 1),
            Step::Ask(ask) if config.has_copies() && message(config, &op, ask).is_copy() => {
                let is_undone = matches!(ask, Subrequest::Remove { .. }) && op.kind == Kind::Put;
                is_undone || self.may_copy(config, op.leg, leg)
            }
            _ => true,
        }
    }

    /// Whether what was found in the leg `then` may be copied now.
    fn may_copy(&self, config: &Config, then: u8, now: u8) -> bool {
        let [then, now] = [then, now].map(|leg| config.legs[usize::from(leg)].route);
        let is_same = (then.first, then.second, then.stage) == (now.first, now.second, now.stage);
        is_same && now.replica.is_some_and(|replica| replica.phase.is_copied())
    }

    /// A broken variant copies what is about to be passed on.
    pub(super) fn copies_first(&mut self, config: &Config, request: usize, step: Step) -> bool {
        let (Step::Pass { .. }, Some(op)) = (step, self.requests[request].op) else {
            return false;
        };
        let leg = config.legs[usize::from(op.leg)].route;
        let replica = leg.replica.filter(|replica| replica.phase.is_copied());
        let (Some(replica), Some(held)) = (replica, op.held) else {
            return false;
        };
        let at = replica.at;
        let is_stored = op.kind == Kind::Put && held.status == Status::Done;
        match config.broken {
            Broken::TruthFirst if is_stored => {
                self.send_copy(request, message(config, &op, Subrequest::Copy { at }))
            }
            Broken::CopyAgain if is_stored => {
                let late = Late {
                    message: message(config, &op, Subrequest::Copy { at }),
                    leg: op.leg,
                    removal: false,
                    sender: Sender::Behind,
                    proxy: op.proxy,
                    refresh: Refresh::Nothing,
                };
                self.push_late(late, Some(request));
                return false;
            }
            _ => return false,
        }
        true
    }

    /// What a page whose lock was broken stores is at the replica until its place has refused it, and
    /// the true one has been copied.
    pub(super) fn note_tainted(
        &mut self,
        request: usize,
        message: Message,
        (took_effect, status): (bool, Option<Status>),
    ) {
        let is_changed = message.is_copy() && took_effect;
        if is_changed && matches!(message.verb, Verb::Delete(_)) {
            self.cut_off_recalled();
        }
        if is_changed {
            let is_of_broken_lock = message.role == Role::Copy && self.requests[request].taken;
            let is_removed = matches!(message.verb, Verb::Delete(_));
            let is_undone = is_removed && message.role == Role::Proxy;
            self.tainted = is_of_broken_lock || is_undone || (is_removed && self.tainted);
        }
        let is_refused = status.is_some_and(|status| status != Status::Done);
        let is_write = message.is_clients() && matches!(message.verb, Verb::Put(_));
        self.tainted |= is_write && is_refused && self.is_copied(message.version);
    }

    /// A copy is removed that somebody is about to store at its place, which has lost the session: that
    /// brings it back, and is cut off as a limit.
    fn cut_off_recalled(&mut self) {
        self.crashed |= self.emptied;
        for op in self
            .requests
            .iter_mut()
            .filter_map(|request| request.op.as_mut())
        {
            let is_recalled = op
                .held
                .is_some_and(|held| held.at == C && held.status == Status::Done);
            if is_recalled && self.items[usize::from(C)].is_none() {
                (op.now, op.search, op.held) = (Now::Dropped, None, None);
            }
        }
    }

    /// A lock was broken whose holder may have copied what it stores.
    pub(super) fn note_broken(&mut self) {
        let mut writes = self.requests.iter().filter_map(|request| {
            let version = request.op?.version;
            request.taken.then_some(version)
        });
        self.tainted |= writes.any(|version| self.is_copied(version));
    }

    fn is_copied(&self, version: u8) -> bool {
        let copy = self.items[usize::from(C)];
        copy.is_some_and(|copy| copy.version == version)
    }

    fn send_copy(&mut self, request: usize, message: Message) {
        if let Some(op) = &mut self.requests[request].op {
            op.now = Now::Sent(message);
        }
    }

    /// A proxy has the answer to a copy, or none.
    pub(super) fn note_copied(
        &mut self,
        config: &Config,
        proxy: u8,
        message: Message,
        answer: Option<Answer>,
    ) {
        let is_move = config.has_copies() && message.verb == Verb::Insert;
        let is_moved = is_move && message.role == Role::Proxy;
        if !message.is_copy() && !is_moved {
            return;
        }
        let is_done = answer.is_some_and(|answer| answer.status == Status::Done);
        let is_missed = match message.verb {
            // What became of it the request itself takes care of.
            Verb::Delete(_) => false,
            Verb::Insert => answer.is_none(),
            _ => !is_done,
        };
        self.missed |= is_missed && config.broken != Broken::NoMiss;
        if !is_move {
            self.copied[usize::from(proxy)] = is_done && !matches!(message.verb, Verb::Delete(_));
        }
    }

    /// A copy is being kept alive: others need not do it as well.
    pub(super) fn note_refreshing(&mut self, late: Late) {
        if let Refresh::Touched { anew: false, .. } = late.refresh {
            self.copied[usize::from(late.proxy)] = true;
        }
    }

    /// What keeps a copy alive goes on, if anything.
    pub(super) fn go_on_refreshing(&mut self, config: &Config, late: Late, answer: Option<Answer>) {
        let proxy = usize::from(late.proxy);
        let status = answer.map(|answer| answer.status);
        let next = match late.refresh {
            Refresh::Nothing => return,
            Refresh::Touched { .. } if matches!(status, Some(Status::Done | Status::Locked)) => {
                return;
            }
            Refresh::Touched {
                replica,
                from,
                anew,
            } => {
                let down = config.down_in(self.legs[proxy]);
                let from = from.filter(|from| down != Some(*from));
                if anew && status.is_none() {
                    self.note_not_anew(config, from);
                }
                let from = from.filter(|_| status.is_some());
                let fetched = Refresh::Fetched { replica, anew };
                from.map(|from| (own(from, fetching(config)), fetched))
            }
            Refresh::Fetched { replica, anew } => {
                self.fetched(config, late, answer, (replica, anew))
            }
            Refresh::Stored { from, counter } => {
                let is_stored = status == Some(Status::Done);
                self.tainted &= !is_stored;
                self.missed |= !is_stored;
                self.copied[proxy] = is_stored;
                let release = own(from, Verb::Release(counter.into()));
                let refresh = Refresh::Nothing;
                return self.push_next(late, release, refresh);
            }
        };
        self.copied[proxy] &= next.is_some();
        if let Some((message, refresh)) = next {
            self.push_next(late, message, refresh);
        }
    }

    /// What is to be copied was found, or not.
    fn fetched(
        &mut self,
        config: &Config,
        late: Late,
        answer: Option<Answer>,
        (replica, anew): (u8, bool),
    ) -> Option<(Message, Refresh)> {
        let proxy = usize::from(late.proxy);
        let found = answer?;
        if found.status == Status::Locked && anew {
            self.note_not_anew(config, Some(late.message.to));
            self.tainted = false;
        }
        if found.status != Status::Done {
            return None;
        }
        let (from, counter) = (late.message.to, found.counter);
        let leg = self.legs[proxy];
        if self.may_copy(config, late.leg, leg) {
            let message = Message {
                version: found.version,
                ..own(replica, copying(config))
            };
            return Some((message, Refresh::Stored { from, counter }));
        }
        if anew && config.down_in(leg) == Some(from) {
            let again = Refresh::Touched {
                replica,
                from: Some(from),
                anew,
            };
            self.push_next(late, own(replica, Verb::Look), again);
        } else if anew {
            self.note_not_anew(config, Some(from));
        }
        self.push_next(
            late,
            own(from, Verb::Release(counter.into())),
            Refresh::Nothing,
        );
        None
    }

    /// A copy could not be written anew; `from` unless its place is down.
    fn note_not_anew(&mut self, config: &Config, from: Option<u8>) {
        self.missed |= from.is_some() && config.broken != Broken::NotAnew;
    }

    /// Somebody has the session while its copy is written anew: until then it is served by nobody else
    /// if its place fails.
    pub(super) fn note_used(&mut self) {
        let mut late = self.late.iter().flatten();
        self.tainted |= late.any(Late::is_anew);
    }

    fn push_next(&mut self, late: Late, message: Message, refresh: Refresh) {
        let next = Late {
            message,
            refresh,
            ..late
        };
        self.push_late(next, None);
    }

    /// The first proxy goes on without a server: what is under way there is nobody's any more, and
    /// its locks are gone.
    pub(super) fn note_left(&mut self, config: &Config, failed: u8) {
        for index in 0..LATE {
            let is_there = |late: Late| late.message.to == failed || late.waits_for(failed);
            if self.late[index].is_some_and(is_there) {
                self.lose_late(config, index);
            }
        }
        for web_request in &mut self.requests {
            web_request.taken |= web_request.lock.is_some_and(|lock| lock.at == failed);
        }
        if self.is_never_stored(failed) {
            self.disturb();
        }
    }

    /// Whether what lies there is a new session that nobody has stored yet: it has nothing to lose.
    fn is_never_stored(&self, at: u8) -> bool {
        let item = self.items[usize::from(at)];
        item.is_some_and(|item| self.versions.created & 1 << item.version != 0)
    }

    /// A server whose slot has a full replica has lost its memory: its locks are gone, the session is
    /// not.
    pub(super) fn note_emptied(&mut self, at: u8) {
        if self.is_never_stored(at) {
            self.disturb();
        }
        self.items[usize::from(at)] = None;
        for web_request in &mut self.requests {
            // What its holder stores could be found at the replica before it is refused at its place:
            // cut off as a limit.
            web_request.outdated |= web_request.lock.is_some_and(|lock| lock.at == at);
            if let Some(op) = &mut web_request.op {
                let answered = match op.now {
                    Now::Answered(answer) => Some(answer),
                    _ => op.held,
                };
                op.outdated |= answered.is_some_and(|answer| answer.at == at);
            }
        }
    }
}

impl Late {
    fn is_anew(&self) -> bool {
        matches!(
            self.refresh,
            Refresh::Touched { anew: true, .. } | Refresh::Fetched { anew: true, .. }
        )
    }

    /// Whether it is to copy what is at a server, and waits until that is up again.
    pub(super) fn waits_for(&self, at: u8) -> bool {
        matches!(self.refresh, Refresh::Touched { anew: true, from: Some(from), .. } if from == at)
    }
}

impl Refresh {
    /// What follows on this.
    pub(super) fn of(config: &Config, op: &Op, ask: Subrequest) -> Self {
        let first = config.legs[usize::from(op.leg)].route.first;
        let is_forced = config.broken == Broken::NewIsCopied;
        match ask {
            Subrequest::Refresh { at, from } => Self::Touched {
                replica: at.id() - 1,
                from: from
                    .or(is_forced.then_some(first))
                    .map(|from| from.id() - 1),
                anew: false,
            },
            Subrequest::CopyAnew { at, from } => Self::Touched {
                replica: at.id() - 1,
                from: Some(from.id() - 1),
                anew: true,
            },
            _ => Self::Nothing,
        }
    }
}

/// The lock that comes with a copy of what the client stores.
pub(super) fn copy_lock(config: &Config, op: &Op) -> u32 {
    match (config.broken, op.lock) {
        (Broken::CopyWithItsLock, Some(lock)) => client_cookie(config, lock) & 0xff_ffff,
        _ => COPY_LOCK,
    }
}

/// How what was found is stored at the replica.
pub(super) fn copying(config: &Config) -> Verb {
    match config.broken {
        Broken::CopyWithFlag => Verb::Insert,
        _ => Verb::Put(COPY_LOCK),
    }
}

/// How what is to be copied is found.
pub(super) fn fetching(config: &Config) -> Verb {
    match config.broken {
        Broken::CopyWithoutLock => Verb::Read,
        _ => Verb::Acquire,
    }
}

pub(super) fn is_left_out(config: &Config, ask: Subrequest) -> bool {
    config.broken == Broken::NoKeepAlive && matches!(ask, Subrequest::Refresh { .. })
}

/// What gives back the lock that an operation has taken, if it is broken off before this step.
pub(super) fn lock_in_hand(op: &Op, step: Step) -> Option<Subrequest> {
    let held = op
        .held
        .filter(|held| held.status == Status::Done && held.counter > 0)?;
    let is_copied = matches!(step, Step::Ask(Subrequest::CopyHeld { .. }));
    is_copied.then(|| Subrequest::Release {
        at: super::config::backend_id(held.at),
        counter: held.counter.into(),
    })
}

fn own(to: u8, verb: Verb) -> Message {
    Message {
        to,
        verb,
        version: super::backend::NO_VERSION,
        role: Role::Proxy,
    }
}
