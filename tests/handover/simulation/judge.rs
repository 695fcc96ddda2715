//! One session and what may rightly be answered about it.

use staterouter::farm::checker::{
    Begun, CheckedOutcome, Create, Holder, Leave, Rules, SeenContents, SessionLedger, Violation,
    ViolationKind, Writing,
};
use staterouter::route::{Fingerprint, HashKey};

use super::net::SESSION_TIMEOUT_MS;

/// An item may be this much older than the last request for it that was answered.
const MARGIN_MS: u64 = 40_000;

/// An answer as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `LockCookie`, 0 for none.
    pub(crate) cookie: u32,
    pub(crate) flag: bool,
    pub(crate) age_s: u64,
    /// What the body says.
    pub(crate) version: u64,
}

/// An operation under way, for the ledger.
#[derive(Debug)]
pub(crate) enum Ticket {
    Read(Begun),
    Acquire(Begun),
    Takeover(Begun),
    Write(Writing),
    Release(Writing),
}

/// How an operation ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Answered(Answer),
    /// Nobody took the request.
    NotSent,
    /// No answer.
    Unknown,
}

/// One session id.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: Vec<u8>,
    pub(crate) fingerprint: Fingerprint,
    /// Position of its slot in the plan.
    pub(crate) slot: usize,
    ledger: SessionLedger,
    /// Whether what is wrong with it counts.
    pub(crate) is_judged: bool,
    /// The last failover in which it has started anew.
    started_anew: u64,
    /// Operations under way.
    open: usize,
    /// Since it was created first: another operation was under way at the same time, it was read, or an
    /// operation had no answer.
    is_start_excused: bool,
    /// How long after it was begun a request may still take effect.
    late_effect_ms: u64,
    /// When two operations were under way at the same time last.
    overlap_ms: u64,
    /// When the last acquire began: a session that is created then is missed by it.
    acquire_ms: u64,
    /// Until when something without an answer may still happen.
    late_until_ms: u64,
    last_ns: u64,
}

impl Session {
    pub(crate) fn new(index: usize, slot: usize, late_effect_ms: u64) -> Self {
        let key = format!("session-{index}").into_bytes();
        Self {
            fingerprint: HashKey::DEFAULT.locate(&key).fingerprint,
            key,
            slot,
            ledger: SessionLedger::new(Rules {
                idle_limit_ns: (SESSION_TIMEOUT_MS - MARGIN_MS) * 1_000_000,
                late_effect_ns: late_effect_ms * 1_000_000,
            }),
            is_judged: true,
            started_anew: 0,
            open: 0,
            is_start_excused: false,
            late_effect_ms,
            overlap_ms: 0,
            acquire_ms: 0,
            late_until_ms: 0,
            last_ns: 0,
        }
    }

    pub(crate) fn begin_read(&mut self, now_ms: u64) -> Ticket {
        let now = self.time(now_ms);
        self.opened(now_ms);
        self.is_start_excused = true;
        Ticket::Read(self.ledger.begin(now))
    }

    pub(crate) fn begin_touch(&mut self, now_ms: u64) -> Ticket {
        let now = self.time(now_ms);
        self.opened(now_ms);
        Ticket::Read(self.ledger.begin(now))
    }

    pub(crate) fn begin_acquire(&mut self, now_ms: u64) -> Ticket {
        let now = self.time(now_ms);
        self.acquire_ms = now_ms;
        self.opened(now_ms);
        Ticket::Acquire(self.ledger.begin(now))
    }

    pub(crate) fn begin_takeover(&mut self, cookie: u32, now_ms: u64) -> Ticket {
        let now = self.time(now_ms);
        self.opened(now_ms);
        Ticket::Takeover(self.ledger.begin_takeover(now, cookie))
    }

    /// The ticket and the version to write.
    pub(crate) fn begin_leave(
        &mut self,
        holder: &Holder,
        leave: Leave,
        now_ms: u64,
    ) -> (Ticket, u64) {
        let now = self.time(now_ms);
        self.opened(now_ms);
        let writing = self.ledger.begin_leave(now, holder, leave);
        let version = writing.version;
        let ticket = match leave {
            Leave::Release => Ticket::Release(writing),
            Leave::Write | Leave::Remove => Ticket::Write(writing),
        };
        (ticket, version)
    }

    /// The ticket and the version to write.
    pub(crate) fn begin_create(&mut self, create: Create, now_ms: u64) -> (Ticket, u64) {
        let now = self.time(now_ms);
        let is_met = self.overlap_ms > 0 && self.overlap_ms >= self.acquire_ms;
        self.is_start_excused = is_met || now_ms < self.late_until_ms;
        self.opened(now_ms);
        let writing = self.ledger.begin_create(now, create);
        let version = writing.version;
        (Ticket::Write(writing), version)
    }

    fn opened(&mut self, now_ms: u64) {
        if self.open > 0 {
            self.is_start_excused = true;
            self.overlap_ms = now_ms;
        }
        self.open += 1;
    }

    /// Judges how an operation ended; the holder if it was an acquire that got the lock.
    pub(crate) fn end(
        &mut self,
        ticket: Ticket,
        end: End,
        now_ms: u64,
        found: &mut Vec<Violation>,
    ) -> Option<Holder> {
        let now = self.time(now_ms);
        let mut wrong = Vec::new();
        let mut holder = None;
        self.open -= 1;
        if end == End::Unknown {
            self.is_start_excused = true;
            self.late_until_ms = now_ms + self.late_effect_ms;
        }
        match ticket {
            Ticket::Read(begun) => {
                let _ = self.ledger.end_read(begun, now, seen(end), &mut wrong);
            }
            Ticket::Acquire(begun) => {
                let cookie = lock(end);
                let seen = seen(end);
                let (_, locked) = self
                    .ledger
                    .end_acquire(begun, now, seen, cookie, &mut wrong);
                holder = locked;
            }
            Ticket::Takeover(begun) => {
                let flag = matches!(end, End::Answered(answer) if answer.flag);
                // It went to where the lock was; the session may have left it since.
                let seen = match exists(end) {
                    SeenContents::Absent(_) => SeenContents::NotSent,
                    seen => seen,
                };
                self.ledger.end_takeover(begun, now, seen, flag, &mut wrong);
            }
            Ticket::Write(writing) => {
                self.ledger
                    .end_write(writing, now, outcome(end), &mut wrong);
            }
            Ticket::Release(writing) => {
                self.ledger
                    .end_write(writing, now, outcome(end), &mut wrong);
                // It may have opened a lock that is nobody's any more, at another server.
                wrong.retain(|violation| violation.kind != ViolationKind::StaleWrite);
            }
        }
        if self.is_judged {
            // What docs/handover.md admits (section 7, 7): a first use that is a read, and two that meet.
            let is_excused = self.is_start_excused;
            wrong.retain(|violation| !is_excused || violation.kind != ViolationKind::MissedStart);
            found.append(&mut wrong);
        }
        holder
    }

    /// Its server is out of reach in this failover, and another one answers that it is absent: it
    /// starts anew, and who holds a lock there holds it no more. Once per failover. False if it
    /// cannot be judged any more.
    pub(crate) fn start_anew(&mut self, failover: u64, locks: &[u32], now_ms: u64) -> bool {
        if self.started_anew == failover {
            return true;
        }
        self.started_anew = failover;
        let mut ignored = Vec::new();
        let now = self.time(now_ms);
        let begun = self.ledger.begin(now);
        let now = self.time(now_ms);
        let absent = SeenContents::Absent(404);
        let _ = self.ledger.end_read(begun, now, absent, &mut ignored);
        self.break_locks(locks, now_ms);
        // Otherwise the ledger takes it for the proof that an unanswered removal has happened.
        !ignored.is_empty()
    }

    /// Its server is out of reach in this failover, and another one has it.
    pub(crate) fn goes_on(&mut self, failover: u64) {
        self.started_anew = failover;
    }

    /// The server of these locks is gone, and whoever holds one holds it no more.
    pub(crate) fn break_locks(&mut self, locks: &[u32], now_ms: u64) {
        let mut ignored = Vec::new();
        for &cookie in locks {
            let now = self.time(now_ms);
            let begun = self.ledger.begin_takeover(now, cookie);
            let now = self.time(now_ms);
            self.ledger
                .end_takeover(begun, now, SeenContents::NotSent, false, &mut ignored);
        }
    }

    /// Every moment is another one: what happens in one millisecond happens in order.
    fn time(&mut self, now_ms: u64) -> u64 {
        self.last_ns = (now_ms * 1_000_000).max(self.last_ns + 1);
        self.last_ns
    }
}

fn lock(end: End) -> Option<u32> {
    match end {
        End::Answered(answer) if answer.status == 200 => Some(answer.cookie),
        _ => None,
    }
}

/// What the answer to a read says.
fn seen(end: End) -> SeenContents {
    match end {
        End::Answered(answer) if answer.status == 200 && answer.version > 0 => SeenContents::Body {
            version: answer.version,
            flag: answer.flag,
        },
        _ => exists(end),
    }
}

/// What an answer without a body says.
fn exists(end: End) -> SeenContents {
    match end {
        End::Answered(answer) if answer.status == 404 => SeenContents::Absent(404),
        End::Answered(_) => SeenContents::Exists,
        End::NotSent => SeenContents::NotSent,
        End::Unknown => SeenContents::Nothing,
    }
}

fn outcome(end: End) -> CheckedOutcome {
    match end {
        End::Answered(answer) => match answer.status {
            200 => CheckedOutcome::Done,
            404 => CheckedOutcome::Absent,
            // Nothing was done.
            400 => CheckedOutcome::NotSent,
            status => CheckedOutcome::Refused(status),
        },
        End::NotSent => CheckedOutcome::NotSent,
        End::Unknown => CheckedOutcome::Unknown,
    }
}
