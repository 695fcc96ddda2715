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
//! * An answer that shows a value superseded before its request began is wrong: [`Kind::Lost`],
//!   [`Kind::Stale`] or [`Kind::Resurrected`].
//! * A write without an answer may have happened, may not have happened, or may happen within
//!   [`Rules::late_effect_ns`]; it supersedes nothing until it is read.
//! * A holder whose lock was broken by a takeover may still overwrite newer data, or be refused:
//!   the state server has that flaw itself (protocol 5.3). Such a write is acceptable and proves
//!   nothing.
//! * An insert (`ExtraFlags: 1`) takes effect only where the session was absent.
//!
//! After a violation the ledger takes both the answer and what it believed as possible, so that
//! one fault of a server is counted once and not with every later request.
//!
//! Pure: time is an argument, in nanoseconds since any fixed moment, starting at 1.

use std::fmt;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

/// The kinds of wrong answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
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
    /// `ActionFlags: 1` for a session that had been started already.
    FalseStart,
    /// A new session came without `ActionFlags: 1`, so its Session_Start never runs.
    MissedStart,
}

impl Kind {
    /// All kinds, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::Lost,
        Self::Stale,
        Self::Resurrected,
        Self::Corrupt,
        Self::DoubleLock,
        Self::RefusedWrite,
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
            Self::FalseStart => "false_start",
            Self::MissedStart => "missed_start",
        }
    }
}

/// One wrong answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong with it.
    pub kind: Kind,
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
pub enum Seen {
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
pub enum Outcome {
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
    create: Option<Create>,
}

/// What a read or an acquire meant, besides its violations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Session_Start runs in the web request that asked.
    pub session_start: bool,
}

/// The ledger of one session.
#[derive(Debug)]
pub struct SessionLedger {
    rules: Rules,
    writes: Vec<Write>,
    last_version: u64,
    holders: Vec<HolderRecord>,
    last_holder: u64,
    takeovers: [(u32, u64); REMEMBERED_TAKEOVERS],
    last_takeover: usize,
    in_flight: Vec<u64>,
    touched_at: u64,
    unanswered_read_until: u64,
}

/// Takeovers remembered for acquires that were under way when their lock was broken.
const REMEMBERED_TAKEOVERS: usize = 8;
/// Length of the list of writes from which on settled ones are dropped.
const PRUNE_FROM: usize = 8;
const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Absent,
    Body,
}

#[derive(Debug, Clone)]
struct Write {
    version: u64,
    value: Value,
    is_insert: bool,
    taken_over: bool,
    begin: u64,
    /// When it had surely happened, if it happened at all; [`NEVER`] while it is under way.
    end: u64,
    /// When it became certain that it happened.
    certain_at: u64,
    /// When it became certain that another write came after it; 0 if it never took effect.
    superseded_at: u64,
    flag_given: bool,
}

#[derive(Debug)]
struct HolderRecord {
    id: u64,
    cookie: u32,
    taken_over: bool,
    leaving: bool,
}

impl SessionLedger {
    /// A session that does not exist yet.
    pub fn new(rules: Rules) -> Self {
        let nothing = Write {
            version: 0,
            value: Value::Absent,
            is_insert: false,
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
            takeovers: [(0, 0); REMEMBERED_TAKEOVERS],
            last_takeover: 0,
            in_flight: Vec::new(),
            touched_at: 0,
            unanswered_read_until: 0,
        }
    }

    /// A GET, acquire or HEAD is about to be sent.
    pub fn begin(&mut self, now: u64) -> Begun {
        self.expire(now);
        self.in_flight.push(now);
        Begun { at: now }
    }

    /// A release with the cookie of somebody else's lock, read from a 423, is about to be sent.
    pub fn begin_takeover(&mut self, now: u64, cookie: u32) -> Begun {
        for holder in &mut self.holders {
            holder.taken_over |= holder.cookie == cookie;
        }
        self.last_takeover = (self.last_takeover + 1) % REMEMBERED_TAKEOVERS;
        self.takeovers[self.last_takeover] = (cookie, now);
        self.begin(now)
    }

    /// The answer to a shared GET or a HEAD.
    pub fn end_read(
        &mut self,
        begun: Begun,
        now: u64,
        seen: Seen,
        found: &mut Vec<Violation>,
    ) -> Verdict {
        self.finish(begun.at);
        self.judge(begun.at, now, seen, found)
    }

    /// The answer to a takeover. Its flag is nobody's Session_Start: clients do not look at it.
    pub fn end_takeover(
        &mut self,
        begun: Begun,
        now: u64,
        seen: Seen,
        flag: bool,
        found: &mut Vec<Violation>,
    ) {
        self.finish(begun.at);
        if flag {
            self.give_any_flag();
        }
        let _ = self.judge(begun.at, now, seen, found);
    }

    /// The answer to an acquire; `cookie` is the lock it handed out, if it did.
    pub fn end_acquire(
        &mut self,
        begun: Begun,
        now: u64,
        seen: Seen,
        cookie: Option<u32>,
        found: &mut Vec<Violation>,
    ) -> (Verdict, Option<Holder>) {
        self.finish(begun.at);
        let verdict = self.judge(begun.at, now, seen, found);
        let holder = cookie.map(|cookie| self.lock(begun.at, cookie, found));
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
        Writing {
            at: now,
            version,
            holder: Some(holder.id),
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
            create: Some(create),
        }
    }

    /// The answer to what `begin_leave` or `begin_create` announced.
    pub fn end_write(
        &mut self,
        writing: Writing,
        now: u64,
        outcome: Outcome,
        found: &mut Vec<Violation>,
    ) {
        self.finish(writing.at);
        let taken_over = self.remove_holder(writing.holder);
        match outcome {
            Outcome::Done => {
                self.touched_at = self.touched_at.max(writing.at);
                self.acknowledge(&writing, now, taken_over, found);
            }
            Outcome::Absent if writing.holder.is_some() && !self.is_put(&writing) => {
                // An answer about the session like any other; the removal itself did nothing.
                self.cancel(writing.version);
                let _ = self.judge(writing.at, now, Seen::Absent(404), found);
            }
            Outcome::Refused(_) | Outcome::Absent => {
                self.cancel(writing.version);
                if !taken_over {
                    found.push(refused(outcome));
                }
            }
            Outcome::Unknown => self.leave_open(&writing, now, taken_over),
            Outcome::NotSent => self.cancel(writing.version),
        }
        self.prune();
    }

    /// Newest version that is certain to have been written; 0 if there is none.
    pub fn newest_certain(&self) -> u64 {
        let certain = |write: &&Write| write.value == Value::Body && write.certain_at != NEVER;
        let newest = self.writes.iter().filter(certain);
        newest.map(|write| write.version).max().unwrap_or(0)
    }
}

// Judging answers.
impl SessionLedger {
    fn judge(&mut self, begin: u64, now: u64, seen: Seen, found: &mut Vec<Violation>) -> Verdict {
        let mut verdict = Verdict::default();
        match seen {
            Seen::Body { version, flag } => {
                self.touched_at = self.touched_at.max(begin);
                if self.judge_body(begin, now, version, found) {
                    verdict.session_start = self.judge_flag(version, flag, found);
                }
            }
            Seen::Corrupt(reason) => {
                self.touched_at = self.touched_at.max(begin);
                // Its flag, if it had one, is used up, and nobody knows of which write.
                self.unanswered_read_until = self.unanswered_read_until.max(now);
                found.push(Violation {
                    kind: Kind::Corrupt,
                    expected: "a body that was written for this session".to_owned(),
                    got: reason.to_owned(),
                });
            }
            Seen::Exists => {
                self.touched_at = self.touched_at.max(begin);
                self.judge_existence(begin, now, found);
            }
            Seen::Absent(status) => self.judge_absence(begin, now, status, found),
            Seen::Nothing => {
                let until = now.saturating_add(self.rules.late_effect_ns);
                self.unanswered_read_until = self.unanswered_read_until.max(until);
            }
            Seen::NotSent => {}
        }
        self.prune();
        verdict
    }

    /// Returns whether it was right to answer `version`.
    fn judge_body(
        &mut self,
        begin: u64,
        now: u64,
        version: u64,
        found: &mut Vec<Violation>,
    ) -> bool {
        if version == 0 || version > self.last_version {
            found.push(Violation {
                kind: Kind::Corrupt,
                expected: format!("a version up to {}", self.last_version),
                got: format!("version {version}, which was never written"),
            });
            return false;
        }
        if self.is_current(begin, now, version) {
            self.observe(begin, now, version);
            return true;
        }
        found.push(self.outdated(begin, now, &format!("version {version}")));
        self.revive(begin, now, version);
        false
    }

    fn judge_existence(&mut self, begin: u64, now: u64, found: &mut Vec<Violation>) {
        if !self.body_is_possible(begin, now) {
            found.push(self.outdated(begin, now, "a session"));
            let bodies = self.writes.iter().filter(|w| w.value == Value::Body);
            let newest = bodies.map(|write| write.version).max();
            self.revive(begin, now, newest.unwrap_or(self.last_version));
        }
    }

    fn judge_absence(&mut self, begin: u64, now: u64, status: u16, found: &mut Vec<Violation>) {
        if self.absent_is_possible(begin, now) {
            // Whatever had ended before this request began is gone.
            for write in &mut self.writes {
                if write.value == Value::Body && write.end < begin {
                    write.superseded_at = write.superseded_at.min(now);
                }
            }
            return;
        }
        found.push(Violation {
            kind: Kind::Lost,
            expected: format!("the session, version {}", self.newest_certain()),
            got: format!("no session (status {status})"),
        });
        self.add_absence(begin, now);
    }

    /// Judges the one-shot flag and returns whether Session_Start runs.
    fn judge_flag(&mut self, version: u64, flag: bool, found: &mut Vec<Violation>) -> bool {
        let unanswered_until = self.unanswered_read_until;
        let others_in_flight = !self.in_flight.is_empty();
        let Some(write) = self.find(version) else {
            return flag;
        };
        let (new_session, taken_over) = (write.is_insert && !write.flag_given, write.taken_over);
        if flag {
            write.flag_given = true;
            // An outdated holder's write onto a new session keeps that session's flag.
            if !new_session && !taken_over {
                found.push(Violation {
                    kind: Kind::FalseStart,
                    expected: "no ActionFlags: the session had been started".to_owned(),
                    got: format!("version {version} with ActionFlags: 1"),
                });
            }
            return true;
        }
        // A request whose answer is not here yet, or was lost, may have taken the flag.
        let excused = others_in_flight || unanswered_until >= write.begin;
        if new_session && !excused {
            write.flag_given = true;
            found.push(Violation {
                kind: Kind::MissedStart,
                expected: "ActionFlags: 1 for a new session".to_owned(),
                got: format!("version {version} without it"),
            });
        }
        false
    }

    fn lock(&mut self, begin: u64, cookie: u32, found: &mut Vec<Violation>) -> Holder {
        self.last_holder += 1;
        let broken = |&(old, at): &(u32, u64)| at >= begin && old == cookie;
        let mut taken_over = self.takeovers.iter().any(broken);
        let is_held = |holder: &HolderRecord| !holder.taken_over && !holder.leaving;
        if !taken_over && let Some(held) = self.holders.iter().find(|holder| is_held(holder)) {
            found.push(Violation {
                kind: Kind::DoubleLock,
                expected: format!("423: cookie {} is held by another web request", held.cookie),
                got: format!("the lock, cookie {cookie}"),
            });
            taken_over = true;
            self.excuse_holders();
        }
        self.holders.push(HolderRecord {
            id: self.last_holder,
            cookie,
            taken_over,
            leaving: false,
        });
        Holder {
            id: self.last_holder,
            cookie,
        }
    }

    fn outdated(&self, begin: u64, now: u64, got: &str) -> Violation {
        let (kind, expected) = if self.body_is_possible(begin, now) {
            let newest = self.newest_certain();
            (Kind::Stale, format!("version {newest} or a later one"))
        } else {
            (Kind::Resurrected, "no session: it was removed".to_owned())
        };
        Violation {
            kind,
            expected,
            got: got.to_owned(),
        }
    }
}

// What is possible, and what follows from an answer.
impl SessionLedger {
    fn is_current(&self, begin: u64, now: u64, version: u64) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| {
            write.version == version
                && write.value == Value::Body
                && write.could_be_seen(begin, now)
                && (!write.is_insert || self.insert_is_possible(begin, write))
        })
    }

    /// An insert beside a session that existed already took effect only if there was a moment
    /// without a session after that one began and before the insert ended.
    fn insert_is_possible(&self, begin: u64, insert: &Write) -> bool {
        let other = |write: &&Write| {
            write.value == Value::Body
                && write.version != insert.version
                && write.certain_at < begin
        };
        let absent_between = |after: u64| {
            self.writes.iter().any(|write| {
                write.value == Value::Absent
                    && write.superseded_at > 0
                    && write.end > after
                    && write.begin < insert.end
            })
        };
        let mut others = self.writes.iter().filter(other);
        others.all(|write| absent_between(write.begin))
    }

    fn body_is_possible(&self, begin: u64, now: u64) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| write.value == Value::Body && write.could_be_seen(begin, now))
    }

    fn absent_is_possible(&self, begin: u64, now: u64) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| write.value == Value::Absent && write.could_be_seen(begin, now))
    }

    /// `version` was read by a request from `begin` to `now`, rightly.
    fn observe(&mut self, begin: u64, now: u64, version: u64) {
        let Some(write) = self.find(version) else {
            return;
        };
        write.certain_at = write.certain_at.min(now);
        let after = write.begin.max(begin);
        self.supersede(version, after, now, |_| true);
    }

    /// Everything chosen but `version` that had ended before `before` is superseded at `now`.
    fn supersede(&mut self, version: u64, before: u64, now: u64, chosen: fn(Value) -> bool) {
        for write in &mut self.writes {
            if write.version != version && write.end < before && chosen(write.value) {
                write.superseded_at = write.superseded_at.min(now);
            }
        }
    }

    /// After a violation: `version` is possible again, and so is everything else.
    fn revive(&mut self, begin: u64, now: u64, version: u64) {
        self.excuse_holders();
        if let Some(write) = self.find(version) {
            write.begin = write.begin.min(begin);
            write.end = now;
            write.superseded_at = NEVER;
            write.is_insert = false;
            return;
        }
        let mut write = Write::under_way(version, Value::Body, begin);
        write.end = now;
        self.writes.push(write);
    }

    fn add_absence(&mut self, begin: u64, now: u64) {
        self.excuse_holders();
        self.last_version += 1;
        let mut write = Write::under_way(self.last_version, Value::Absent, begin);
        write.end = now;
        self.writes.push(write);
    }

    /// Whoever holds a lock now may lose it through no fault of later answers.
    fn excuse_holders(&mut self) {
        for holder in &mut self.holders {
            holder.taken_over = true;
        }
    }

    fn expire(&mut self, now: u64) {
        let expires_at = self.touched_at.saturating_add(self.rules.idle_limit_ns);
        if self.touched_at > 0 && now > expires_at && !self.absent_is_possible(now, now) {
            self.add_absence(expires_at, now);
        }
    }
}

// The course of a write.
impl SessionLedger {
    fn write(&mut self, now: u64, value: Value, is_insert: bool, taken_over: bool) -> u64 {
        self.last_version += 1;
        let mut write = Write::under_way(self.last_version, value, now);
        write.is_insert = is_insert;
        write.taken_over = taken_over;
        self.writes.push(write);
        self.last_version
    }

    fn acknowledge(
        &mut self,
        writing: &Writing,
        now: u64,
        taken_over: bool,
        found: &mut Vec<Violation>,
    ) {
        if writing.version == 0 {
            return self.judge_existence(writing.at, now, found);
        }
        self.settle(writing, now, taken_over);
        if writing.create == Some(Create::Insert) {
            // Inserted or not: from now on there is a session.
            self.supersede(writing.version, writing.at, now, |value| {
                value == Value::Absent
            });
        }
    }

    /// The write has happened; it proves something unless its holder had been taken over or it
    /// was an insert, which is acknowledged even if it did nothing.
    fn settle(&mut self, writing: &Writing, now: u64, taken_over: bool) {
        let Some(write) = self.find(writing.version) else {
            return;
        };
        write.end = now;
        write.taken_over |= taken_over;
        if taken_over || writing.create == Some(Create::Insert) {
            return;
        }
        write.certain_at = write.certain_at.min(now);
        self.supersede(writing.version, writing.at, now, |_| true);
    }

    fn leave_open(&mut self, writing: &Writing, now: u64, taken_over: bool) {
        let until = now.saturating_add(self.rules.late_effect_ns);
        match self.find(writing.version) {
            Some(write) => {
                write.end = until;
                write.taken_over |= taken_over;
            }
            // A release may have taken the flag with it.
            None => self.unanswered_read_until = self.unanswered_read_until.max(until),
        }
    }

    fn cancel(&mut self, version: u64) {
        if let Some(write) = self.find(version) {
            write.superseded_at = 0;
            write.end = 0;
        }
    }

    fn is_put(&self, writing: &Writing) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| write.version == writing.version && write.value == Value::Body)
    }

    fn find(&mut self, version: u64) -> Option<&mut Write> {
        let mut writes = self.writes.iter_mut().rev();
        writes.find(|write| version > 0 && write.version == version)
    }

    fn give_any_flag(&mut self) {
        for write in &mut self.writes {
            write.flag_given = true;
        }
    }

    fn remove_holder(&mut self, id: Option<u64>) -> bool {
        let Some(at) = self.holders.iter().position(|holder| Some(holder.id) == id) else {
            return false;
        };
        self.holders.swap_remove(at).taken_over
    }

    fn finish(&mut self, begin: u64) {
        if let Some(at) = self.in_flight.iter().position(|&at| at == begin) {
            self.in_flight.swap_remove(at);
        }
    }

    /// Drops what no request under way or to come can see any more.
    fn prune(&mut self) {
        if self.writes.len() < PRUNE_FROM {
            return;
        }
        let oldest = self.in_flight.iter().min().copied().unwrap_or(NEVER);
        let is_open = |write: &Write| write.end == NEVER || write.superseded_at >= oldest;
        // What an insert may have seen decides whether it took effect.
        let inserts = self.writes.iter();
        let last_insert_end = inserts
            .filter(|write| write.is_insert && is_open(write))
            .map(|write| write.end)
            .max();
        self.writes.retain(|write| {
            is_open(write)
                || write.value == Value::Absent
                    && last_insert_end.is_some_and(|end| write.begin < end)
        });
    }
}

impl Write {
    fn under_way(version: u64, value: Value, begin: u64) -> Self {
        Self {
            version,
            value,
            is_insert: false,
            taken_over: false,
            begin,
            end: NEVER,
            certain_at: NEVER,
            superseded_at: NEVER,
            flag_given: false,
        }
    }

    /// Whether a request from `begin` to `now` may rightly see this value.
    fn could_be_seen(&self, begin: u64, now: u64) -> bool {
        self.begin <= now && self.superseded_at >= begin
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            expected,
            got,
        } = self;
        write!(f, "{}: expected {expected}, got {got}", kind.name())
    }
}

fn refused(outcome: Outcome) -> Violation {
    let status = match outcome {
        Outcome::Refused(status) => status,
        _ => 404,
    };
    Violation {
        kind: Kind::RefusedWrite,
        expected: "200: the holder was not taken over".to_owned(),
        got: format!("status {status}"),
    }
}
