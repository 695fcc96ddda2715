//! The writes of a session: what may be seen of them, and what follows from having seen it.

use super::{Create, HolderRecord, SessionLedger, Unlock, Violation, Writing};

/// Length of the list of writes from which on settled ones are dropped.
pub(super) const PRUNE_FROM: usize = 8;
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Absent,
    Body,
}

#[derive(Debug, Clone)]
pub(super) struct WriteRecord {
    pub(super) version: u64,
    pub(super) value: Value,
    pub(super) is_insert: bool,
    /// An absence that only a wrong answer tells of.
    pub(super) is_alleged: bool,
    /// The holder that wrote it under its lock, unless its outcome is unknown.
    pub(super) holder: Option<u64>,
    pub(super) taken_over: bool,
    pub(super) begin: u64,
    /// When it had surely happened, if it happened at all; [`NEVER`] while it is under way.
    pub(super) end: u64,
    /// When it became certain that it happened.
    pub(super) certain_at: u64,
    /// When it became certain that another write came after it; 0 if it never took effect.
    pub(super) superseded_at: u64,
    pub(super) flag_given: bool,
}

// What is possible, and what follows from an answer.
impl SessionLedger {
    pub(super) fn is_current(&self, begin: u64, now: u64, version: u64) -> bool {
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
    pub(super) fn insert_is_possible(&self, begin: u64, insert: &WriteRecord) -> bool {
        let other = |write: &&WriteRecord| {
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

    pub(super) fn body_is_possible(&self, begin: u64, now: u64) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| write.value == Value::Body && write.could_be_seen(begin, now))
    }

    pub(super) fn absent_is_possible(&self, begin: u64, now: u64) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| write.value == Value::Absent && write.could_be_seen(begin, now))
    }

    pub(super) fn alleged_absence_is_possible(&self, begin: u64, now: u64) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| write.is_alleged && write.could_be_seen(begin, now))
    }

    /// `version` was read by a request from `begin` to `now`, rightly. Returns whether it is a new
    /// session that nobody had seen.
    pub(super) fn observe(&mut self, begin: u64, now: u64, version: u64) -> bool {
        let Some(write) = self.find(version) else {
            return false;
        };
        let is_new = write.is_insert && write.certain_at == NEVER;
        write.certain_at = write.certain_at.min(now);
        let after = write.begin.max(begin);
        self.supersede(version, after, now, |_| true);
        is_new
    }

    /// Everything chosen but `version` that had ended before `before` is superseded at `now`.
    pub(super) fn supersede(
        &mut self,
        version: u64,
        before: u64,
        now: u64,
        chosen: fn(Value) -> bool,
    ) {
        for write in &mut self.writes {
            if write.version != version && write.end < before && chosen(write.value) {
                write.superseded_at = write.superseded_at.min(now);
            }
        }
    }

    /// After a violation: `version` is possible again, and so is everything else.
    pub(super) fn revive(&mut self, begin: u64, now: u64, version: u64) {
        self.excuse_holders();
        if let Some(write) = self.find(version) {
            write.begin = write.begin.min(begin);
            write.end = now;
            write.superseded_at = NEVER;
            write.is_insert = false;
            return;
        }
        let mut write = WriteRecord::under_way(version, Value::Body, begin);
        write.end = now;
        self.writes.push(write);
    }

    pub(super) fn add_absence(&mut self, begin: u64, now: u64, is_alleged: bool) {
        self.excuse_holders();
        self.last_version += 1;
        let mut write = WriteRecord::under_way(self.last_version, Value::Absent, begin);
        write.end = now;
        write.is_alleged = is_alleged;
        self.writes.push(write);
    }

    /// Whoever holds a lock now may lose it through no fault of later answers.
    pub(super) fn excuse_holders(&mut self) {
        self.break_locks(|_| true);
    }

    fn break_locks(&mut self, chosen: impl Fn(&HolderRecord) -> bool) {
        for holder in self.holders.iter_mut().filter(|holder| chosen(holder)) {
            holder.taken_over = true;
            let theirs = |write: &&mut WriteRecord| write.holder == Some(holder.id);
            for write in self.writes.iter_mut().filter(theirs) {
                write.taken_over = true;
            }
        }
    }

    /// The write that an acquire from `begin` on must have come after although it saw `version`:
    /// it got the lock, so whoever held it before had given it up, which takes effect with the
    /// write.
    pub(super) fn overtaken(&self, begin: u64, version: u64) -> Option<Value> {
        let seen = self.writes.iter().find(|write| write.version == version)?;
        let mut writes = self.writes.iter();
        let later = writes.find(|write| {
            write.holder.is_some()
                && !write.taken_over
                && write.superseded_at > 0
                && write.end >= begin
                && write.begin > seen.end
        });
        later.map(|write| write.value)
    }

    pub(super) fn expire(&mut self, now: u64) {
        let expires_at = self.touched_at.saturating_add(self.rules.idle_limit_ns);
        if self.touched_at > 0 && now > expires_at && !self.absent_is_possible(now, now) {
            self.add_absence(expires_at, now, false);
        }
    }
}

// The course of a write.
impl SessionLedger {
    pub(super) fn write(
        &mut self,
        now: u64,
        value: Value,
        is_insert: bool,
        taken_over: bool,
    ) -> u64 {
        self.last_version += 1;
        let mut write = WriteRecord::under_way(self.last_version, value, now);
        write.is_insert = is_insert;
        write.taken_over = taken_over;
        self.writes.push(write);
        self.last_version
    }

    pub(super) fn acknowledge(
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
    pub(super) fn settle(&mut self, writing: &Writing, now: u64, taken_over: bool) {
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

    pub(super) fn leave_open(&mut self, writing: &Writing, now: u64, taken_over: bool) {
        let until = now.saturating_add(self.rules.late_effect_ns);
        match self.find(writing.version) {
            Some(write) => {
                write.end = until;
                write.holder = None;
                write.taken_over |= taken_over;
            }
            // A release may have taken the flag with it.
            None => self.unanswered_read_until = self.unanswered_read_until.max(until),
        }
    }

    pub(super) fn cancel(&mut self, version: u64) {
        if let Some(write) = self.find(version) {
            write.superseded_at = 0;
            write.end = 0;
        }
    }

    pub(super) fn is_put(&self, writing: &Writing) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| write.version == writing.version && write.value == Value::Body)
    }

    pub(super) fn find(&mut self, version: u64) -> Option<&mut WriteRecord> {
        let mut writes = self.writes.iter_mut().rev();
        writes.find(|write| version > 0 && write.version == version)
    }

    pub(super) fn give_flag(&mut self, version: u64) {
        if let Some(write) = self.find(version) {
            write.flag_given = true;
        }
    }

    /// Whether the flag of an insert that ran in this time is still to be given.
    pub(super) fn has_flag_between(&self, begin: u64, end: u64) -> bool {
        let mut writes = self.writes.iter();
        writes.any(|write| {
            write.is_insert
                && !write.flag_given
                && write.begin <= end
                && write.end >= begin
                && self.insert_is_possible(begin, write)
        })
    }

    pub(super) fn begin_unlock(&mut self, now: u64, cookie: u32, by: Option<u64>) {
        self.break_locks(|holder| holder.cookie == cookie && Some(holder.id) != by);
        self.unlocks.push(Unlock {
            cookie,
            begin: now,
            until: NEVER,
        });
    }

    pub(super) fn end_unlock(
        &mut self,
        begin: u64,
        cookie: Option<u32>,
        now: u64,
        is_unknown: bool,
    ) {
        let late_ns = if is_unknown {
            self.rules.late_effect_ns
        } else {
            0
        };
        for unlock in &mut self.unlocks {
            if unlock.begin == begin && Some(unlock.cookie) == cookie {
                unlock.until = now.saturating_add(late_ns);
            }
        }
        let oldest = self
            .in_flight
            .iter()
            .min()
            .map_or(now, |&begin| begin.min(now));
        self.unlocks.retain(|unlock| unlock.until >= oldest);
    }

    pub(super) fn remove_holder(&mut self, id: Option<u64>) -> bool {
        let Some(at) = self.holders.iter().position(|holder| Some(holder.id) == id) else {
            return false;
        };
        self.holders.swap_remove(at).taken_over
    }

    pub(super) fn finish(&mut self, begin: u64) {
        if let Some(at) = self.in_flight.iter().position(|&at| at == begin) {
            self.in_flight.swap_remove(at);
        }
    }

    /// Drops what no request under way or to come can see any more.
    pub(super) fn prune(&mut self) {
        if self.writes.len() < PRUNE_FROM {
            return;
        }
        let oldest = self.in_flight.iter().min().copied().unwrap_or(NEVER);
        let is_open = |write: &WriteRecord| write.end == NEVER || write.superseded_at >= oldest;
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

impl WriteRecord {
    pub(super) fn under_way(version: u64, value: Value, begin: u64) -> Self {
        Self {
            version,
            value,
            is_insert: false,
            is_alleged: false,
            holder: None,
            taken_over: false,
            begin,
            end: NEVER,
            certain_at: NEVER,
            superseded_at: NEVER,
            flag_given: false,
        }
    }

    /// Whether a request from `begin` to `now` may rightly see this value.
    pub(super) fn could_be_seen(&self, begin: u64, now: u64) -> bool {
        self.begin <= now && self.superseded_at >= begin
    }
}
