//! What is true about one session, and which answers contradict it.
//!
//! The ledger is told when every operation of the farm on a session began and how it ended, and
//! judges the answers. Several operations run at once, so the truth is not one value but the set
//! of values the session may have; an answer is a violation only if **no** order of the operations
//! that respects their begin and end times explains it.
//!
//! * Every write gets a number of its own, its *version*, which the body carries. "Absent" is a
//!   value like a version; it is written by a removal.
//! * A value is *superseded* at time t when, at t, it became certain that another write came after
//!   it. Certain are: a write acknowledged to a holder who was not taken over, and a value that
//!   was read. A write comes after a value if it began after that value's write had ended.
//! * An answer that shows a value superseded before its request began is wrong: [`ViolationKind::Lost`],
//!   [`ViolationKind::Stale`] or [`ViolationKind::Resurrected`].
//! * A write without an answer may have happened, may not have happened, or may happen within
//!   [`Rules::late_effect_ns`]; it supersedes nothing until it is read.
//! * A holder whose lock was broken by a takeover may still overwrite newer data, or be refused:
//!   the state server has that flaw itself (protocol 5.3). Such a write is acceptable and proves
//!   nothing.
//! * A late request frees any lock with its cookie, also one of a later life of the session, whose
//!   cookies start anew: that holder counts as taken over.
//! * An insert (`ExtraFlags: 1`) takes effect only where the session was absent.
//!
//! After a violation the ledger takes both the answer and what it believed as possible, so that
//! one fault of a server is counted once and not with every later request. An absence that was
//! wrong proves nothing: a session whose server was out of reach may be there again.
//!
//! Pure: time is an argument, in nanoseconds since any fixed moment, starting at 1.

use self::history::{NEVER, Value, WriteRecord};
use self::judge::refused;

#[cfg(test)]
mod case;
mod history;
mod judge;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// The kinds of wrong answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// "No such session" about a session that existed from begin to end of the request.
    Lost,
    /// Contents older than the newest that had been acknowledged before the request began.
    Stale,
    /// A session that had been removed before the request began, and that nobody created again.
    Resurrected,
    /// A body that was never written for this session.
    Corrupt,
    /// A lock handed out while another web request held it and had not been taken over.
    DoubleLock,
    /// A holder who was not taken over was refused its write, removal or release: ASP.NET ignores
    /// that answer, so the user's data is lost without a word.
    RefusedWrite,
    /// A holder whose lock had been broken wrote, removed or released under the lock of the next
    /// one.
    StaleWrite,
    /// `ActionFlags: 1` for a session that had been started already.
    FalseStart,
    /// A new session came without `ActionFlags: 1`, so its Session_Start never runs.
    MissedStart,
}

impl ViolationKind {
    /// All kinds, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::Stale,
        Self::Resurrected,
        Self::Corrupt,
        Self::DoubleLock,
        Self::RefusedWrite,
        Self::StaleWrite,
        Self::FalseStart,
        Self::MissedStart,
    ];

    /// Name in reports: lower case with underscores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Stale => "stale",
            Self::Resurrected => "resurrected",
            Self::Corrupt => "corrupt",
            Self::DoubleLock => "double_lock",
            Self::RefusedWrite => "refused_write",
            Self::StaleWrite => "stale_write",
            Self::FalseStart => "false_start",
            Self::MissedStart => "missed_start",
        }
    }
}

/// One wrong answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong with it.
    pub kind: ViolationKind,
    /// What would have been right.
    pub expected: String,
    /// What came.
    pub got: String,
}

/// The times the ledger reckons with, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Idle time after which a session may be gone: its timeout less a margin.
    pub idle_limit_ns: u64,
    /// How long after its connection broke a request may still take effect.
    pub late_effect_ns: u64,
}

/// What an answer to a GET, an acquire, a HEAD or somebody else's release said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenContents {
    /// 200 with a body that is whole and names this session.
    Body {
        /// The write it came from.
        version: u64,
        /// `ActionFlags: 1`.
        flag: bool,
    },
    /// 200 with a body that is not one of this session's; the text says what is wrong.
    Corrupt(&'static str),
    /// The session exists (423, or 200 without a body).
    Exists,
    /// No such session; with the status that said so.
    Absent(u16),
    /// No answer, or one that says nothing about the session.
    Nothing,
    /// The request was never sent.
    NotSent,
}

/// What an answer to a PUT, DELETE or the holder's release said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckedOutcome {
    /// 200.
    Done,
    /// Not done; with the status. ASP.NET ignores it.
    Refused(u16),
    /// No such session (404).
    Absent,
    /// No usable answer: it may have been done, or be done later.
    Unknown,
    /// The request was never sent.
    NotSent,
}

/// An operation under way that writes nothing.
#[derive(Debug)]
#[must_use]
pub struct Begun {
    at: u64,
    /// The lock a takeover breaks.
    cookie: Option<u32>,
}

/// A web request that holds the session's lock.
#[derive(Debug)]
#[must_use]
pub struct Holder {
    id: u64,
    /// The cookie of its lock.
    pub cookie: u32,
}

/// How a holder gives up its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// PUT: store and unlock.
    Write,
    /// DELETE.
    Remove,
    /// Release without storing.
    Release,
}

/// How a web request without a lock stores a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// `ExtraFlags: 1`: only if there is none.
    Insert,
    /// A new id nobody else knows: a plain PUT with cookie 0.
    Plain,
}

/// A PUT, DELETE or holder's release under way.
#[derive(Debug)]
#[must_use]
pub struct Writing {
    at: u64,
    /// Number of the write, to be put into the body; 0 for a release.
    pub version: u64,
    holder: Option<u64>,
    cookie: Option<u32>,
    create: Option<Create>,
}

/// What a read or an acquire meant, besides its violations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionEvents {
    /// Session_Start runs in the web request that asked.
    pub session_start: bool,
    /// Nobody has seen this session before: an insert took effect.
    pub new_session: bool,
}

/// The ledger of one session.
#[derive(Debug)]
pub struct SessionLedger {
    rules: Rules,
    writes: Vec<WriteRecord>,
    last_version: u64,
    holders: Vec<HolderRecord>,
    last_holder: u64,
    unlocks: Vec<Unlock>,
    in_flight: Vec<u64>,
    touched_at: u64,
    unanswered_read_until: u64,
}

#[derive(Debug)]
struct HolderRecord {
    id: u64,
    cookie: u32,
    /// When its answer came.
    locked_at: u64,
    taken_over: bool,
    leaving: bool,
}

/// A request that frees a lock of this cookie whenever it arrives. Cookies start anew with every
/// life of a session, so it may free a lock it was not meant for (protocol 5.3).
#[derive(Debug)]
struct Unlock {
    cookie: u32,
    begin: u64,
    /// Until when it may arrive; [`NEVER`] while it is under way.
    until: u64,
}

impl SessionLedger {
    /// A session that does not exist yet.
    pub fn new(rules: Rules) -> Self {
        let nothing = WriteRecord {
            version: 0,
            value: Value::Absent,
            is_insert: false,
            is_alleged: false,
            holder: None,
            taken_over: false,
            begin: 0,
            end: 0,
            certain_at: 0,
            superseded_at: NEVER,
            flag_given: false,
        };
        Self {
            rules,
            writes: vec![nothing],
            last_version: 0,
            holders: Vec::new(),
            last_holder: 0,
            unlocks: Vec::new(),
            in_flight: Vec::new(),
            touched_at: 0,
            unanswered_read_until: 0,
        }
    }

    /// A GET, acquire or HEAD is about to be sent.
    pub fn begin(&mut self, now: u64) -> Begun {
        self.expire(now);
        self.in_flight.push(now);
        Begun {
            at: now,
            cookie: None,
        }
    }

    /// A release with the cookie of somebody else's lock, read from a 423, is about to be sent.
    pub fn begin_takeover(&mut self, now: u64, cookie: u32) -> Begun {
        self.begin_unlock(now, cookie, None);
        Begun {
            cookie: Some(cookie),
            ..self.begin(now)
        }
    }

    /// The answer to a shared GET or a HEAD.
    pub fn end_read(
        &mut self,
        begun: Begun,
        now: u64,
        seen: SeenContents,
        found: &mut Vec<Violation>,
    ) -> SessionEvents {
        self.finish(begun.at);
        self.judge(begun.at, now, seen, found)
    }

    /// The answer to a takeover. Its flag is nobody's Session_Start: clients do not look at it.
    pub fn end_takeover(
        &mut self,
        begun: Begun,
        now: u64,
        seen: SeenContents,
        flag: bool,
        found: &mut Vec<Violation>,
    ) {
        self.finish(begun.at);
        self.end_unlock(begun.at, begun.cookie, now, seen == SeenContents::Nothing);
        if flag {
            self.unanswered_read_until = self.unanswered_read_until.max(now);
        }
        let _ = self.judge(begun.at, now, seen, found);
    }

    /// The answer to an acquire; `cookie` is the lock it handed out, if it did.
    pub fn end_acquire(
        &mut self,
        begun: Begun,
        now: u64,
        seen: SeenContents,
        cookie: Option<u32>,
        found: &mut Vec<Violation>,
    ) -> (SessionEvents, Option<Holder>) {
        self.finish(begun.at);
        let is_broken = cookie.is_some_and(|cookie| self.is_broken(begun.at, cookie));
        let verdict = if is_broken || !self.judge_order(begun.at, now, seen, found) {
            self.judge(begun.at, now, seen, found)
        } else {
            SessionEvents::default()
        };
        let holder = cookie.map(|cookie| self.lock(now, cookie, is_broken, found));
        (verdict, holder)
    }

    /// The holder's PUT, DELETE or release is about to be sent: from now on it holds no more.
    pub fn begin_leave(&mut self, now: u64, holder: &Holder, leave: Leave) -> Writing {
        self.expire(now);
        self.in_flight.push(now);
        let mut taken_over = true;
        for record in &mut self.holders {
            if record.id == holder.id {
                record.leaving = true;
                taken_over = record.taken_over;
            }
        }
        let version = match leave {
            Leave::Write => self.write(now, Value::Body, false, taken_over),
            Leave::Remove => self.write(now, Value::Absent, false, taken_over),
            Leave::Release => 0,
        };
        if let Some(write) = self.find(version) {
            write.holder = Some(holder.id);
        }
        self.begin_unlock(now, holder.cookie, Some(holder.id));
        Writing {
            at: now,
            version,
            holder: Some(holder.id),
            cookie: Some(holder.cookie),
            create: None,
        }
    }

    /// A PUT of a web request without a lock is about to be sent.
    pub fn begin_create(&mut self, now: u64, create: Create) -> Writing {
        self.expire(now);
        self.in_flight.push(now);
        Writing {
            at: now,
            version: self.write(now, Value::Body, create == Create::Insert, false),
            holder: None,
            cookie: None,
            create: Some(create),
        }
    }

    /// The answer to what `begin_leave` or `begin_create` announced.
    pub fn end_write(
        &mut self,
        writing: Writing,
        now: u64,
        outcome: CheckedOutcome,
        found: &mut Vec<Violation>,
    ) {
        self.finish(writing.at);
        let is_unknown = outcome == CheckedOutcome::Unknown;
        self.end_unlock(writing.at, writing.cookie, now, is_unknown);
        let taken_over = self.remove_holder(writing.holder);
        match outcome {
            // It says what the server has that issued the lock: the session may have left that one.
            CheckedOutcome::Done if taken_over && writing.version == 0 => {
                self.judge_stale_write(&writing, found);
            }
            CheckedOutcome::Done => {
                self.touched_at = self.touched_at.max(writing.at);
                if taken_over {
                    self.judge_stale_write(&writing, found);
                }
                self.acknowledge(&writing, now, taken_over, found);
            }
            CheckedOutcome::Absent if writing.holder.is_some() && !self.is_put(&writing) => {
                self.cancel(writing.version);
                // An answer about the session like any other, unless the lock was broken: the
                // session may have left the server that issued it.
                if !taken_over {
                    let _ = self.judge(writing.at, now, SeenContents::Absent(404), found);
                }
            }
            CheckedOutcome::Refused(_) | CheckedOutcome::Absent => {
                self.cancel(writing.version);
                if !taken_over {
                    found.push(refused(outcome));
                }
            }
            CheckedOutcome::Unknown => self.leave_open(&writing, now, taken_over),
            CheckedOutcome::NotSent => self.cancel(writing.version),
        }
        self.prune();
    }

    /// Newest version that is certain to have been written; 0 if there is none.
    pub fn newest_certain(&self) -> u64 {
        let certain =
            |write: &&WriteRecord| write.value == Value::Body && write.certain_at != NEVER;
        let newest = self.writes.iter().filter(certain);
        newest.map(|write| write.version).max().unwrap_or(0)
    }
}
