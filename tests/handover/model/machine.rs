//! The model as the checker sees it: which actions are possible, and what comes of them.

use stateright::{Model, Property};

use staterouter::handover::{ReplicaPhase, ReplicaRoute, Stage};

use super::backend::{Item, Status, Verb};
use super::config::{Broken, Config, Gone, PLACES, PROXIES, REQUESTS};
use super::driver::Fate;
use super::state::{
    Fault, Kind, LATE, Message, NO_LEG, Now, Op, Page, Role, Sender, State, Versions, WebRequest,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A proxy enters a leg.
    Advance { proxy: usize, leg: u8 },
    /// A web request sends an operation to a proxy.
    Start {
        request: usize,
        proxy: usize,
        kind: Kind,
    },
    /// A message reaches its server, and the answer the proxy.
    Deliver {
        request: usize,
        fate: Fate,
        old: bool,
    },
    /// The client gets its answer.
    Tell { request: usize },
    /// The client gets its answer and breaks the lock in its way.
    Break { request: usize, proxy: usize },
    /// The proxy dies in the middle of the operation.
    Kill { request: usize },
    /// A late message arrives.
    Land { late: usize },
    /// A late message does not.
    LoseLate { late: usize },
    /// A server loses its memory.
    Crash { backend_id: usize },
    /// An item that is not the session any more expires.
    Expire { backend_id: usize },
    /// An item expires that nobody has read in a stage that lasts a lifetime.
    Outlive { backend_id: usize },
}

impl Model for Config {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            legs: [0; PROXIES],
            owed: [false; PROXIES],
            items: [None; PLACES],
            requests: self.rounds.map(WebRequest::new),
            late: [None; LATE],
            versions: Versions::default(),
            exists: false,
            used: false,
            budget: self.budget,
            crashed: false,
            starts: self.starts,
            emptied: false,
            missed: false,
            tainted: false,
            copied: [false; PROXIES],
            fault: None,
        };
        if let Some(backend_id) = self.session {
            state.items[usize::from(backend_id)] = Some(Item::new(0, false));
            state.versions.count = 1;
            state.versions.finished = 1;
            state.exists = self.legs[0].route.stage != Stage::Away;
            state.used = state.exists;
            let replica = self.copies_in(0, ReplicaPhase::Full);
            if let Some(replica) = replica {
                state.items[usize::from(replica)] = Some(Item::new(0, false));
            }
        }
        if let Some(backend_id) = self.outdated {
            state.items[usize::from(backend_id)] = Some(Item::new(state.versions.count, false));
            state.versions.superseded |= 1 << state.versions.count;
            state.versions.finished |= 1 << state.versions.count;
            state.versions.count += 1;
        }
        state.normalise(self);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.fault.is_some() {
            return;
        }
        for request in 0..REQUESTS {
            match &state.requests[request].op {
                Some(op) => self.op_actions(state, request, op, actions),
                None => self.page_actions(state, request, actions),
            }
        }
        for late in (0..LATE).filter(|&late| state.late[late].is_some()) {
            if self.may_land(state, late) {
                actions.push(Action::Land { late });
            }
            let orphan = state.late[late].is_some_and(|late| late.sender == Sender::Dead);
            if orphan || state.budget.lost > 0 || state.budget.deaths > 0 {
                actions.push(Action::LoseLate { late });
            }
        }
        self.world_actions(state, actions);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Advance { proxy, leg } => state.advance(self, proxy, leg),
            Action::Start {
                request,
                proxy,
                kind,
            } => {
                let lock = state.requests[request].lock;
                state.start(self, request, proxy, kind, lock);
            }
            Action::Deliver { request, fate, old } => {
                match fate {
                    Fate::Arrives => {}
                    Fate::RequestLost | Fate::AnswerLost => state.budget.lost -= 1,
                    Fate::Delayed => state.budget.delayed -= 1,
                    Fate::Refused => state.budget.refused -= 1,
                }
                state.deliver(self, request, fate, old);
            }
            Action::Tell { request } => state.tell(request),
            Action::Break { request, proxy } => state.break_lock(self, request, proxy),
            Action::Kill { request } => {
                state.budget.deaths -= 1;
                state.kill(request);
            }
            Action::Land { late } => state.land(self, late),
            Action::LoseLate { late } => {
                if state.late[late].is_none_or(|late| late.sender != Sender::Dead) {
                    let budget = &mut state.budget;
                    let spent = if budget.lost > 0 {
                        &mut budget.lost
                    } else {
                        &mut budget.deaths
                    };
                    *spent -= 1;
                }
                state.lose_late(self, late);
            }
            Action::Crash { backend_id } => {
                state.budget.crashes -= 1;
                state.lose_messages(self, backend_id);
                state.crash(self, backend_id);
            }
            Action::Expire { backend_id } => {
                state.budget.expiries -= 1;
                state.lose_item(self, backend_id);
            }
            Action::Outlive { backend_id } => state.outlive(self, backend_id),
        }
        state.normalise(self);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1", |_, state: &State| state.fault != Some(Fault::I1)),
            Property::always("I2", |_, state: &State| state.fault != Some(Fault::I2)),
            Property::always("I3", |_, state: &State| state.fault != Some(Fault::I3)),
            Property::always("I4", |_, state: &State| state.fault != Some(Fault::I4)),
            Property::always("I5", |_, state: &State| state.fault != Some(Fault::I5)),
            Property::always("I6", |_, state: &State| state.fault != Some(Fault::I6)),
            Property::always("I7", |_, state: &State| state.fault != Some(Fault::I7)),
            Property::always("I8", |_, state: &State| state.fault != Some(Fault::I8)),
        ]
    }
}

impl Config {
    fn op_actions(&self, state: &State, request: usize, op: &Op, actions: &mut Vec<Action>) {
        match op.now {
            Now::Sent(message) => {
                for &old in self.ages(state, op, message) {
                    let fate = Fate::Arrives;
                    actions.push(Action::Deliver { request, fate, old });
                }
                if state.budget.lost > 0 {
                    for fate in [Fate::RequestLost, Fate::AnswerLost] {
                        actions.push(Action::Deliver {
                            request,
                            fate,
                            old: false,
                        });
                    }
                }
                let is_copy = message.role == Role::Proxy && message.verb == Verb::Insert;
                if is_copy && state.budget.refused > 0 && self.may_refuse(state, op) {
                    let (fate, old) = (Fate::Refused, false);
                    actions.push(Action::Deliver { request, fate, old });
                }
                if state.budget.delayed > 0 {
                    let fate = Fate::Delayed;
                    actions.push(Action::Deliver {
                        request,
                        fate,
                        old: false,
                    });
                }
            }
            Now::Answered(answer) => {
                actions.push(Action::Tell { request });
                let finds = matches!(op.kind, Kind::Acquire | Kind::Read);
                let refused = finds && answer.status == Status::Locked && answer.old;
                if refused && state.budget.takeovers > 0 {
                    for proxy in self.proxies(state) {
                        actions.push(Action::Break { request, proxy });
                    }
                }
            }
            Now::Dropped => actions.push(Action::Tell { request }),
        }
        if state.budget.deaths > 0 && op.now != Now::Dropped {
            actions.push(Action::Kill { request });
        }
    }

    /// Whether a lock in the message's way may be young, old, or both, as far as that matters.
    fn ages(&self, state: &State, op: &Op, message: Message) -> &'static [bool] {
        let Some(item) = state.items[usize::from(message.to)] else {
            return &[false];
        };
        let matters = match message.verb {
            Verb::Acquire | Verb::Read => state.budget.takeovers > 0,
            Verb::Delete(_) => op.search.is_some(),
            _ => false,
        };
        if matters && item.locked && item.young == 0 {
            &[false, true]
        } else {
            &[false]
        }
    }

    fn page_actions(&self, state: &State, request: usize, actions: &mut Vec<Action>) {
        let web_request = &state.requests[request];
        if web_request.rounds == 0 {
            return;
        }
        let mut start = |kind| {
            for proxy in self.proxies(state) {
                actions.push(Action::Start {
                    request,
                    proxy,
                    kind,
                });
            }
        };
        match web_request.page {
            Page::Begin => {
                if self.pages.acquire {
                    start(Kind::Acquire);
                }
                if self.pages.read {
                    start(Kind::Read);
                }
                if self.pages.touch {
                    start(Kind::Touch);
                }
            }
            Page::Absent if self.pages.fresh => start(Kind::Fresh),
            Page::Absent => start(Kind::Create),
            Page::Created => start(Kind::Acquire),
            Page::Runs => {
                start(Kind::Put);
                start(Kind::Release);
                if self.pages.delete {
                    start(Kind::Delete);
                }
            }
        }
    }

    fn world_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for proxy in 0..self.proxies {
            let leg = state.legs[proxy];
            for &next in &self.legs[usize::from(leg)].next {
                if self.may_advance(state, proxy, next) {
                    actions.push(Action::Advance { proxy, leg: next });
                }
            }
        }
        for backend_id in 0..PLACES {
            if state.items[backend_id].is_none() {
                continue;
            }
            if state.budget.crashes > 0 && self.may_crash(state, backend_id) {
                actions.push(Action::Crash { backend_id });
            }
            if self.may_outlive(state, backend_id) {
                actions.push(Action::Outlive { backend_id });
            }
            if state.budget.expiries > 0 && self.may_expire(state, backend_id) {
                actions.push(Action::Expire { backend_id });
            }
        }
    }

    /// The proxies it makes sense to choose from.
    fn proxies(&self, state: &State) -> std::ops::Range<usize> {
        let alike = !self.has_owed() && state.legs[0] == state.legs[1];
        0..if alike { 1 } else { self.proxies }
    }

    /// A stage outlasts the operations that began two stages before, and neighbours only overlap.
    fn may_advance(&self, state: &State, proxy: usize, next: u8) -> bool {
        let leg = state.legs[proxy];
        let recent = |began: u8| began == leg || began == next;
        let mut others = (0..self.proxies).filter(|&other| other != proxy);
        let agreed = others.all(|other| recent(state.legs[other]));
        let ended = state.requests.iter().all(|web_request| {
            let copies = |op: Op| matches!(op.now, Now::Sent(message) if message.is_copy());
            let is_left =
                self.broken == Broken::NoWaitForCopies && web_request.op.is_some_and(copies);
            let chain = web_request.chain == NO_LEG
                || recent(web_request.chain)
                || self.may_wait(web_request.chain, next)
                || is_left;
            let goes_on = |op: Op| {
                let is_waited_for =
                    self.broken == Broken::NoBreakOff && self.may_wait(op.leg, next);
                recent(op.leg) || op.now == Now::Dropped || is_waited_for || is_left
            };
            chain && web_request.op.is_none_or(goes_on)
        });
        let followed = state.legs[..self.proxies].contains(&next);
        let gone = self.legs[usize::from(next)]
            .gone
            .filter(|_| !followed)
            .is_none_or(|(gone, backend_id)| {
                let is_session = self.true_place(state) == Some(usize::from(backend_id));
                let left = state.items[usize::from(backend_id)];
                match gone {
                    Gone::Session => {
                        let quiet = state.requests.iter().all(|r| r.op.is_none());
                        let short = self.broken == Broken::ShortLifetime && quiet;
                        !is_session || (short && left.is_some_and(|item| item.touched))
                    }
                    Gone::Debris => left.is_none() || is_session,
                    Gone::All => left.is_none() || self.broken == Broken::ShortLifetime,
                    Gone::Unused => {
                        let mut items = state.items.iter().flatten();
                        items.all(|item| item.touched)
                    }
                }
            });
        let landed = state.late.iter().flatten().all(|late| {
            let is_broken_off = late.sender == Sender::BrokenOff;
            let is_there = self.has_left(next, late.message.to);
            let is_of_dead = late.sender == Sender::Dead && late.message.is_copy();
            recent(late.leg)
                || (is_of_dead && self.late_copies)
                || (0..PLACES as u8).any(|at| self.has_left(next, at) && late.waits_for(at))
                || (is_broken_off && (self.is_out_of_reach(next) || is_there))
        });
        gone && !self.is_held_up(state, next)
            && self.may_rely(state, leg, next)
            && (agreed || self.broken == Broken::NoAgreement)
            && (ended && landed || self.broken == Broken::ShortStages)
    }

    /// What a proxy had under way when it died arrives too late to be stored, unless somebody serves
    /// from the replica already: that is cut off as a limit.
    fn may_land(&self, state: &State, late: usize) -> bool {
        let Some(late) = state.late[late] else {
            return false;
        };
        let down = self.down_in(state.legs[usize::from(late.proxy)]);
        if late.sender != Sender::Dead {
            return down.is_none_or(|down| !late.waits_for(down));
        }
        let to = late.message.to;
        let is_served = |leg: &u8| {
            let route = self.legs[usize::from(*leg)].route;
            route.first.id() - 1 == to && route.stage != Stage::Suspect
        };
        let is_locked = state.items[usize::from(to)].is_some_and(|item| item.locked);
        let is_too_late =
            late.message.is_copy() && state.legs[..self.proxies].iter().any(is_served);
        !is_too_late || is_locked
    }

    /// A slot goes on with its replica only if that has missed nothing; and it is left at any time.
    fn may_rely(&self, state: &State, leg: u8, next: u8) -> bool {
        let is_served = |leg: u8, at| {
            let route = self.legs[usize::from(leg)].route;
            route.first == at || route.second == Some(at)
        };
        let replica = self.legs[usize::from(leg)].route.replica;
        let goes_on = replica.is_some_and(|replica| is_served(next, replica.at));
        let is_cut_off = state.tainted && self.broken != Broken::NoLimits;
        !goes_on || !(state.missed || is_cut_off)
    }

    /// A slot that was steady is not served from a server that is down, or has just returned, in this
    /// leg: what was under way there when it fell may be executed until then.
    fn is_out_of_reach(&self, leg: u8) -> bool {
        let stage = self.legs[usize::from(leg)].route.stage;
        matches!(stage, Stage::Suspect | Stage::Away | Stage::Back)
    }

    /// A page that began in `chain` and found nothing may still be waiting in `leg`.
    fn may_wait(&self, chain: u8, leg: u8) -> bool {
        let was_steady = self.legs[usize::from(chain)].route.stage == Stage::Steady;
        was_steady && self.is_out_of_reach(leg)
    }

    /// A new session whose copy is refused stays where it is while the next page of it, which was told
    /// in move 1 that there is none, begins one elsewhere in move 2: cut off as a limit.
    fn may_refuse(&self, state: &State, op: &Op) -> bool {
        let is_new = op.held.is_some_and(|held| held.flag);
        let legs = state.legs[..self.proxies].iter();
        let mut stages = legs.map(|&leg| self.legs[usize::from(leg)].route.stage);
        !is_new || stages.all(|stage| stage != Stage::Move2)
    }

    /// A copy was refused: move 1 begins anew, and so outlasts every start of a session that was under
    /// way.
    fn is_held_up(&self, state: &State, next: u8) -> bool {
        let is_refused = state.budget.refused < self.budget.refused;
        let creates_elsewhere = self.legs[usize::from(next)].route.stage == Stage::Move2;
        let is_starting = state.requests.iter().any(|r| r.chain != NO_LEG);
        is_refused && creates_elsewhere && is_starting
    }

    /// What is behind the session expires before it, but not in the middle of a move, and not before
    /// a copy that nobody has taken: that one is as old.
    fn may_expire(&self, state: &State, backend_id: usize) -> bool {
        let mut items = state.items.iter().flatten();
        self.true_place(state) != Some(backend_id)
            && items.all(|item| item.young == 0 && !item.uninit)
    }

    /// A server that loses the session while something older lies elsewhere brings that back: no
    /// rule helps against it.
    fn may_crash(&self, state: &State, backend_id: usize) -> bool {
        let version = |backend_id: usize| state.items[backend_id].map(|item| item.version);
        let mut others = (0..PLACES).filter(|&other| other != backend_id);
        self.true_place(state) != Some(backend_id)
            || others
                .all(|other| version(other).is_none_or(|older| Some(older) == version(backend_id)))
    }

    /// Whether an item may expire because a lifetime has passed. The session that is read lives on.
    fn may_outlive(&self, state: &State, backend_id: usize) -> bool {
        let leg = state.legs[0];
        let together = state.legs[..self.proxies].iter().all(|&other| other == leg);
        let quiet = state.requests.iter().all(|r| r.op.is_none());
        let landed = state.late.iter().all(Option::is_none);
        let is_session = self.true_place(state) == Some(backend_id);
        let read = state.items[backend_id].is_some_and(|item| item.touched);
        let dies = match self.gone_after(leg) {
            Some((gone, left)) if gone != Gone::Unused && usize::from(left) != backend_id => false,
            Some((Gone::Session, _)) => !(is_session && read),
            Some((Gone::Debris, _)) => !is_session,
            Some((Gone::All, _)) => true,
            Some((Gone::Unused, _)) => !read,
            None => false,
        };
        dies && together && quiet && landed
    }

    /// Where the session is: at the place that the furthest proxy asks first, if it has it. A proxy
    /// that refuses requests has not left the stage before.
    pub(crate) fn true_place(&self, state: &State) -> Option<usize> {
        let leg = usize::from(*state.legs[..self.proxies].iter().max()?);
        let is_refusing = self.legs[leg].route.stage == Stage::Suspect;
        let route = self.legs[leg - usize::from(is_refusing)].route;
        let places = [Some(route.first), route.second];
        let mut places = places
            .into_iter()
            .flatten()
            .map(|backend_id| usize::from(backend_id.id() - 1));
        places.find(|&backend_id| state.items[backend_id].is_some())
    }
}

impl State {
    fn advance(&mut self, config: &Config, proxy: usize, next: u8) {
        let leg = &config.legs[usize::from(next)];
        let is_first = !self.legs[..config.proxies].contains(&next);
        if leg.replay {
            self.replay(config, proxy);
        }
        if let (true, Some((_, backend_id))) = (is_first, leg.gone) {
            self.end_pages(config, backend_id);
        }
        let was_steady = config.legs[usize::from(self.legs[proxy])].route.stage == Stage::Steady;
        if was_steady && leg.route.stage == Stage::Suspect && config.broken != Broken::NoBreakOff {
            self.break_off(proxy, config.down_in(next));
        }
        let left = config.down_in(self.legs[proxy]);
        if let Some(left) = left.filter(|left| is_first && config.has_left(next, *left)) {
            self.note_left(config, left);
        }
        // Nobody asks for a copy of what its place has lost any more.
        if is_first && config.copies_in(next, ReplicaPhase::Dropping).is_some() && self.emptied {
            self.crashed = true;
            self.note_lost(usize::from(leg.route.first.id() - 1));
        }
        if config.copies_in(next, ReplicaPhase::Filling).is_some() {
            self.copied[proxy] = false;
        }
        self.legs[proxy] = next;
        if let (true, Stage::Away, Some(second)) = (is_first, leg.route.stage, leg.route.second) {
            self.note_away(usize::from(second.id() - 1));
        }
        if is_first && config.gone_after(next).is_some() {
            for item in self.items.iter_mut().flatten() {
                item.touched = false;
            }
        }
    }

    /// A lifetime has passed, and no page lasts that long: none has a lock of the place that has not
    /// had the session in all that time.
    fn end_pages(&mut self, config: &Config, backend_id: u8) {
        if config.true_place(self) == Some(usize::from(backend_id)) {
            return;
        }
        for web_request in &mut self.requests {
            web_request.outdated |= web_request.lock.is_some_and(|lock| lock.at == backend_id);
        }
    }

    /// A lifetime has passed: what nobody has asked for in it has died, wherever it was.
    fn outlive(&mut self, config: &Config, backend_id: usize) {
        // Nobody has taken a copy that is still flagged: it is as old as what it was made from.
        let wherever = matches!(config.gone_after(self.legs[0]), Some((Gone::Session, _)));
        for index in config.places() {
            let unread = |item: Item| item.uninit || (wherever && !item.touched);
            let also = self.items[index].is_some_and(unread);
            if index == backend_id || also {
                self.lose_item(config, index);
            }
        }
    }

    /// Carries out owed removals at the server that is back.
    fn replay(&mut self, config: &Config, proxy: usize) {
        for other in 0..config.proxies {
            if !self.owed[other] || (config.broken == Broken::OwnOwedOnly && other != proxy) {
                continue;
            }
            self.owed[other] = false;
            let leg = usize::from(self.legs[other]);
            if let Some(second) = config.legs[leg].route.second {
                self.items[usize::from(second.id() - 1)] = None;
            }
        }
    }

    /// A server loses its memory.
    fn crash(&mut self, config: &Config, backend_id: usize) {
        let at = backend_id as u8;
        let furthest = self.legs[..config.proxies].iter().max();
        let replica = furthest.and_then(|leg| config.legs[usize::from(*leg)].route.replica);
        let is_there = |replica: &ReplicaRoute| replica.at.id() - 1 == at;
        if replica.as_ref().is_some_and(is_there) {
            // Whoever keeps copies alive there finds out.
            self.missed = true;
            self.items[backend_id] = None;
        } else if replica.is_some_and(|replica| replica.phase == ReplicaPhase::Full) {
            self.emptied = true;
            self.note_emptied(at);
        } else {
            self.crashed = true;
            self.lose_item(config, backend_id);
        }
    }

    /// A server loses an item. If that was the session, it is gone.
    fn lose_item(&mut self, config: &Config, backend_id: usize) {
        if config.true_place(self) == Some(backend_id) {
            self.note_lost(backend_id);
        }
        self.items[backend_id] = None;
    }
}
