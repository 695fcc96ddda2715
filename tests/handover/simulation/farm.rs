//! The web farm: pages of users, each request through any proxy (protocol 6).

use std::collections::BTreeMap;

use staterouter::farm::checker::{Create, Holder, Leave};

use super::judge::{Answer, End, Session, Ticket};
use super::net::Op;
use super::random::Random;
use super::trace::Scope;
use super::world::{Event, Finding, World};

/// How long ASP.NET waits for an answer.
const CLIENT_TIMEOUT_MS: u64 = 10_000;
/// Age at which a page breaks a lock: more than three times `handover.settle` (docs/handover.md 7).
pub(crate) const TAKEOVER_S: u64 = 110;
/// How long a page waits for a lock.
const PATIENCE_MS: u64 = 130_000;

/// Everything clients know.
#[derive(Debug)]
pub(crate) struct Farm {
    pub(crate) sessions: Vec<Session>,
    /// The session id in use, by slot.
    current: Vec<Option<usize>>,
    lanes: Vec<Lane>,
    pub(crate) pages: BTreeMap<u64, Page>,
    pub(crate) calls: BTreeMap<u64, Call>,
    next: u64,
    /// Whether new pages begin.
    pub(crate) is_open: bool,
    /// Whether a page without an answer is wrong.
    pub(crate) is_strict: bool,
    pub(crate) finished_pages: u64,
    pub(crate) failed_pages: u64,
}

/// One user's browser.
#[derive(Debug)]
struct Lane {
    slot: usize,
    random: Random,
}

/// One web request of the farm.
#[derive(Debug)]
pub(crate) struct Page {
    /// `None` for the last ones, which nothing follows.
    lane: Option<usize>,
    pub(crate) session: usize,
    kind: Kind,
    pub(crate) began_ms: u64,
    pub(crate) holder: Option<Holder>,
    /// The proxy all its requests go to.
    pinned: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ReadWrite,
    ReadOnly,
    KeepAlive,
    /// A new session without a cookie: stored under an id nobody else knows.
    Fresh,
}

/// What a page asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Acquire,
    Create,
    Leave,
    Read,
    Touch,
    Takeover,
    Fresh,
}

/// A request of a client that has no answer yet.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) page: u64,
    doing: Doing,
    ticket: Ticket,
    pub(crate) proxy: usize,
    pub(crate) session: usize,
    pub(crate) op: Op,
}

impl Farm {
    pub(crate) fn new(slots: usize, lanes: usize, seed: u64) -> Self {
        let lane = |index: usize| Lane {
            slot: index % slots,
            random: Random::new(seed, 100 + index as u64),
        };
        Self {
            sessions: Vec::new(),
            current: vec![None; slots],
            lanes: (0..slots * lanes).map(lane).collect(),
            pages: BTreeMap::new(),
            calls: BTreeMap::new(),
            next: 0,
            is_open: true,
            is_strict: false,
            finished_pages: 0,
            failed_pages: 0,
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// The session is judged no more, and its users start others.
    pub(crate) fn retire(&mut self, session: usize) {
        self.sessions[session].is_judged = false;
        let slot = self.sessions[session].slot;
        if self.current[slot] == Some(session) {
            self.current[slot] = None;
        }
    }

    /// The locks that pages hold on a session.
    pub(crate) fn locks(&self, session: usize) -> Vec<u32> {
        let pages = self.pages.values().filter(|page| page.session == session);
        pages
            .filter_map(|page| page.holder.as_ref().map(|holder| holder.cookie))
            .collect()
    }

    fn new_session(&mut self, slot: usize, late_effect_ms: u64) -> usize {
        let index = self.sessions.len();
        self.sessions
            .push(Session::new(index, slot, late_effect_ms));
        index
    }
}

impl World {
    /// The next page of a browser.
    pub(crate) fn begin_page(&mut self, lane: usize) {
        if !self.farm.is_open {
            return;
        }
        let writes = 94 - self.plan.class.reads;
        let Lane { slot, random } = &mut self.farm.lanes[lane];
        let (slot, kind) = (*slot, random.below(100));
        let starts_anew = random.chance(40);
        let current = self.farm.current[slot].filter(|_| !starts_anew);
        let (session, kind) = match (current, kind) {
            (None, 0..50) => (self.new_session(slot), Kind::Fresh),
            (None, _) => {
                let session = self.new_session(slot);
                self.farm.current[slot] = Some(session);
                (session, Kind::ReadWrite)
            }
            (Some(session), kind) if kind < writes => (session, Kind::ReadWrite),
            (Some(session), 0..94) => (session, Kind::ReadOnly),
            (Some(session), _) => (session, Kind::KeepAlive),
        };
        self.open_page(Some(lane), session, kind, None);
    }

    /// One page of a session nobody has used, every request of it through one proxy.
    pub(crate) fn begin_last_page(&mut self, slot: usize, proxy: usize) {
        let session = self.new_session(slot);
        self.open_page(None, session, Kind::ReadWrite, Some(proxy));
    }

    fn new_session(&mut self, slot: usize) -> usize {
        let session = self.farm.new_session(slot, self.late_effect_ms());
        self.farm.sessions[session].is_judged = !self.is_blurred();
        session
    }

    fn open_page(
        &mut self,
        lane: Option<usize>,
        session: usize,
        kind: Kind,
        pinned: Option<usize>,
    ) {
        self.farm.next += 1;
        let page = self.farm.next;
        self.farm.pages.insert(
            page,
            Page {
                lane,
                session,
                kind,
                began_ms: self.now_ms,
                holder: None,
                pinned,
            },
        );
        match kind {
            Kind::ReadWrite => self.call(page, Doing::Acquire, 0),
            Kind::ReadOnly => self.call(page, Doing::Read, 0),
            Kind::KeepAlive => self.call(page, Doing::Touch, 0),
            Kind::Fresh => self.call(page, Doing::Fresh, 0),
        }
    }

    /// What a page does when it has waited: poll, or store what it has done.
    pub(crate) fn continue_page(&mut self, page: u64) {
        let Some(Page { kind, holder, .. }) = self.farm.pages.get(&page) else {
            return;
        };
        match (holder, kind) {
            (Some(_), _) => self.call(page, Doing::Leave, 0),
            (None, Kind::ReadOnly) => self.call(page, Doing::Read, 0),
            (None, _) => self.call(page, Doing::Acquire, 0),
        }
    }

    /// Sends a request of a page to a proxy. `cookie` is the lock that a takeover breaks.
    fn call(&mut self, page: u64, doing: Doing, cookie: u32) {
        let proxy = self.pick_proxy(page);
        let now_ms = self.now_ms;
        let leave = self.pick_leave(page);
        let known = self.farm.pages.get_mut(&page);
        let Some(Page {
            session, holder, ..
        }) = known
        else {
            return;
        };
        let index = *session;
        let session = &mut self.farm.sessions[index];
        let (ticket, op) = match doing {
            Doing::Acquire => (session.begin_acquire(now_ms), Op::Acquire),
            Doing::Read => (session.begin_read(now_ms), Op::Read),
            Doing::Touch => (session.begin_touch(now_ms), Op::Touch),
            Doing::Takeover => (session.begin_takeover(cookie, now_ms), Op::Release(cookie)),
            Doing::Create => {
                let (ticket, version) = session.begin_create(Create::Insert, now_ms);
                (ticket, Op::Insert { version })
            }
            Doing::Fresh => {
                let (ticket, version) = session.begin_create(Create::Plain, now_ms);
                (ticket, Op::Put { cookie: 0, version })
            }
            Doing::Leave => {
                let Some(holder) = holder.take() else {
                    return;
                };
                let cookie = holder.cookie;
                let (ticket, version) = session.begin_leave(&holder, leave, now_ms);
                let op = match leave {
                    Leave::Write => Op::Put { cookie, version },
                    Leave::Remove => Op::Remove(cookie),
                    Leave::Release => Op::Release(cookie),
                };
                (ticket, op)
            }
        };
        self.send_call(
            proxy,
            Call {
                page,
                doing,
                ticket,
                proxy,
                session: index,
                op,
            },
        );
    }

    fn send_call(&mut self, proxy: usize, call: Call) {
        self.farm.next += 1;
        let id = self.farm.next;
        self.say(Scope::Session(call.session), || {
            format!("page {} asks proxy {proxy}: {:?}", call.page, call.op)
        });
        self.farm.calls.insert(id, call);
        let near_ms = self.links.near_ms();
        self.after(near_ms, Event::CallAtProxy(id));
        self.after(CLIENT_TIMEOUT_MS, Event::Answered(id, End::Unknown, "late"));
    }

    fn pick_proxy(&mut self, page: u64) -> usize {
        let on: Vec<usize> = (0..self.proxies.len())
            .filter(|proxy| self.proxies[*proxy].is_on)
            .collect();
        let pinned = self.farm.pages.get(&page).and_then(|page| page.pinned);
        let random = self.random_of(page);
        pinned.unwrap_or_else(|| if on.is_empty() { 0 } else { random.pick(&on) })
    }

    fn pick_leave(&mut self, page: u64) -> Leave {
        let is_last = self
            .farm
            .pages
            .get(&page)
            .is_some_and(|page| page.lane.is_none());
        let removals = self.plan.class.removals;
        match self.random_of(page).below(100) {
            _ if is_last => Leave::Write,
            number if number + removals >= 100 => Leave::Remove,
            0..74 => Leave::Write,
            _ => Leave::Release,
        }
    }

    fn random_of(&mut self, page: u64) -> &mut Random {
        let lane = self.farm.pages.get(&page).and_then(|page| page.lane);
        &mut self.farm.lanes[lane.unwrap_or(0)].random
    }

    /// The client has an answer, or gives up.
    pub(crate) fn answered(&mut self, id: u64, end: End, why: &str) {
        let Some(call) = self.farm.calls.remove(&id) else {
            return;
        };
        let Call {
            page,
            doing,
            ticket,
            session,
            op,
            ..
        } = call;
        self.say(Scope::Session(session), || {
            format!("page {page} has for {op:?}: {} {why}", describe(end))
        });
        self.fold(id ^ u64::from(matches!(end, End::Answered(_))));
        let mut found = Vec::new();
        let holder = self.farm.sessions[session].end(ticket, end, self.now_ms, &mut found);
        for violation in found {
            self.find(Finding::wrong(session, &violation));
        }
        match end {
            End::Answered(answer) => self.follow(page, doing, answer, holder),
            End::NotSent | End::Unknown => {
                let is_last = self
                    .farm
                    .pages
                    .get(&page)
                    .is_some_and(|page| page.lane.is_none());
                if (self.farm.is_strict || is_last) && why != "moving" {
                    self.find(Finding::refused(session, format!("{op:?}: {why}")));
                }
                self.farm.failed_pages += 1;
                self.end_page(page);
            }
        }
    }

    /// What a page does after an answer.
    fn follow(&mut self, page: u64, doing: Doing, answer: Answer, holder: Option<Holder>) {
        match (doing, answer.status) {
            (Doing::Acquire, 200) => {
                let hold_ms = self.hold_ms(page);
                if let Some(page) = self.farm.pages.get_mut(&page) {
                    page.holder = holder;
                }
                self.after(hold_ms, Event::Page(page));
            }
            (Doing::Acquire, 404) => self.call(page, Doing::Create, 0),
            (Doing::Create, 400) => self.end_page(page),
            (Doing::Create, _) => self.call(page, Doing::Acquire, 0),
            (Doing::Acquire | Doing::Read, 423) if answer.age_s >= TAKEOVER_S => {
                self.call(page, Doing::Takeover, answer.cookie);
            }
            (Doing::Acquire | Doing::Takeover | Doing::Read, 423) | (Doing::Takeover, _) => {
                self.wait(page)
            }
            (Doing::Fresh, 400) => self.end_page(page),
            (Doing::Fresh, _) => {
                let session = self.farm.pages.get(&page).map(|page| page.session);
                if let Some(session) = session {
                    let slot = self.farm.sessions[session].slot;
                    self.farm.current[slot] = Some(session);
                }
                self.end_page(page);
            }
            _ => self.end_page(page),
        }
    }

    /// Polls again in a while, unless the page has waited too long.
    fn wait(&mut self, page: u64) {
        let began_ms = self.farm.pages.get(&page).map(|page| page.began_ms);
        let is_last = began_ms.is_some_and(|began| self.now_ms > began + PATIENCE_MS);
        if is_last {
            return self.end_page(page);
        }
        let wait_ms = self.random_of(page).between(500, 5_000);
        self.after(wait_ms, Event::Page(page));
    }

    fn hold_ms(&mut self, page: u64) -> u64 {
        let random = self.random_of(page);
        match random.below(100) {
            0..50 => random.between(1, 100),
            50..85 => random.between(100, 4_000),
            85..97 => random.between(1_000, 15_000),
            // Its lock is broken meanwhile, unless nobody wants it.
            _ => random.between(TAKEOVER_S * 1000, 170_000),
        }
    }

    fn end_page(&mut self, page: u64) {
        self.farm.finished_pages += 1;
        let think_ms = self.think_ms(page);
        let lane = self.farm.pages.remove(&page).and_then(|page| page.lane);
        if let Some(lane) = lane {
            self.after(think_ms, Event::Lane(lane));
        }
    }

    fn think_ms(&mut self, page: u64) -> u64 {
        let random = self.random_of(page);
        match random.below(100) {
            0..55 => random.between(5, 1_500),
            55..80 => random.between(1_000, 15_000),
            80..98 => random.between(10_000, 40_000),
            // The session may die.
            _ => random.between(60_000, 250_000),
        }
    }
}

fn describe(end: End) -> String {
    match end {
        End::Answered(answer) => {
            let Answer {
                status,
                cookie,
                flag,
                version,
                ..
            } = answer;
            let new = if flag { " new" } else { "" };
            let lock = format!("{}:{}", cookie >> 24, cookie & 0xff_ffff);
            format!("{status} v{version} lock {lock}{new}")
        }
        End::NotSent | End::Unknown => "no answer".to_owned(),
    }
}
