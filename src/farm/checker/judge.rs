//! Judging answers.

use super::history::Value;
use super::{
    CheckedOutcome, Holder, HolderRecord, SeenContents, SessionEvents, SessionLedger, Violation,
    ViolationKind, Writing,
};

impl SessionLedger {
    pub(super) fn judge(
        &mut self,
        begin: u64,
        now: u64,
        seen: SeenContents,
        found: &mut Vec<Violation>,
    ) -> SessionEvents {
        let mut verdict = SessionEvents::default();
        match seen {
            SeenContents::Body { version, flag } => {
                self.touched_at = self.touched_at.max(begin);
                if let Some(new_session) = self.judge_body(begin, now, version, found) {
                    verdict.new_session = new_session;
                    verdict.session_start = self.judge_flag(version, flag, found);
                }
            }
            SeenContents::Corrupt(reason) => {
                self.touched_at = self.touched_at.max(begin);
                // Its flag, if it had one, is used up, and nobody knows of which write.
                self.unanswered_read_until = self.unanswered_read_until.max(now);
                found.push(Violation {
                    kind: ViolationKind::Corrupt,
                    expected: "a body that was written for this session".to_owned(),
                    got: reason.to_owned(),
                });
            }
            SeenContents::Exists => {
                self.touched_at = self.touched_at.max(begin);
                self.judge_existence(begin, now, found);
            }
            SeenContents::Absent(status) => self.judge_absence(begin, now, status, found),
            SeenContents::Nothing => {
                let until = now.saturating_add(self.rules.late_effect_ns);
                self.unanswered_read_until = self.unanswered_read_until.max(until);
            }
            SeenContents::NotSent => {}
        }
        self.prune();
        verdict
    }

    /// Returns whether `version` is a new session that nobody had seen; `None` if it was wrong to
    /// answer it.
    pub(super) fn judge_body(
        &mut self,
        begin: u64,
        now: u64,
        version: u64,
        found: &mut Vec<Violation>,
    ) -> Option<bool> {
        if version == 0 || version > self.last_version {
            found.push(Violation {
                kind: ViolationKind::Corrupt,
                expected: format!("a version up to {}", self.last_version),
                got: format!("version {version}, which was never written"),
            });
            return None;
        }
        if self.is_current(begin, now, version) {
            return Some(self.observe(begin, now, version));
        }
        found.push(self.outdated(begin, now, &format!("version {version}")));
        self.revive(begin, now, version);
        None
    }

    pub(super) fn judge_existence(&mut self, begin: u64, now: u64, found: &mut Vec<Violation>) {
        if !self.body_is_possible(begin, now) {
            found.push(self.outdated(begin, now, "a session"));
            let bodies = self.writes.iter().filter(|w| w.value == Value::Body);
            let newest = bodies.map(|write| write.version).max();
            self.revive(begin, now, newest.unwrap_or(self.last_version));
        }
    }

    pub(super) fn judge_absence(
        &mut self,
        begin: u64,
        now: u64,
        status: u16,
        found: &mut Vec<Violation>,
    ) {
        if self.absent_is_possible(begin, now) {
            if self.alleged_absence_is_possible(begin, now) {
                return;
            }
            // Whatever had ended before this request began is gone.
            for write in &mut self.writes {
                if write.value == Value::Body && write.end < begin {
                    write.superseded_at = write.superseded_at.min(now);
                }
            }
            return;
        }
        found.push(Violation {
            kind: ViolationKind::Lost,
            expected: format!("the session, version {}", self.newest_certain()),
            got: format!("no session (status {status})"),
        });
        self.add_absence(begin, now, true);
    }

    /// Judges the one-shot flag and returns whether Session_Start runs.
    pub(super) fn judge_flag(
        &mut self,
        version: u64,
        flag: bool,
        found: &mut Vec<Violation>,
    ) -> bool {
        let unanswered_until = self.unanswered_read_until;
        let others_in_flight = !self.in_flight.is_empty();
        let Some(write) = self.find(version) else {
            return flag;
        };
        let new_session = write.is_insert && !write.flag_given;
        let (begin, taken_over) = (write.begin, write.taken_over);
        if flag {
            write.flag_given = true;
            let end = write.end;
            // A write without a lock keeps the flag of the new session it lands on.
            if !new_session && !taken_over && !self.has_flag_between(begin, end) {
                found.push(Violation {
                    kind: ViolationKind::FalseStart,
                    expected: "no ActionFlags: the session had been started".to_owned(),
                    got: format!("version {version} with ActionFlags: 1"),
                });
            }
            return true;
        }
        // A request whose answer is not here yet, or was lost, may have taken the flag.
        let excused = others_in_flight || unanswered_until >= begin;
        if new_session && !excused {
            self.give_flag(version);
            found.push(Violation {
                kind: ViolationKind::MissedStart,
                expected: "ActionFlags: 1 for a new session".to_owned(),
                got: format!("version {version} without it"),
            });
        }
        false
    }

    /// Whether a lock with this cookie, handed out since `begin`, may have been broken already.
    pub(super) fn is_broken(&self, begin: u64, cookie: u32) -> bool {
        let mut unlocks = self.unlocks.iter();
        unlocks.any(|unlock| unlock.cookie == cookie && unlock.until >= begin)
    }

    /// Judges an acquired body against the holders before it; returns whether it is a violation.
    pub(super) fn judge_order(
        &mut self,
        begin: u64,
        now: u64,
        seen: SeenContents,
        found: &mut Vec<Violation>,
    ) -> bool {
        let SeenContents::Body { version, .. } = seen else {
            return false;
        };
        let Some(later) = self.overtaken(begin, version) else {
            return false;
        };
        let (kind, expected) = match later {
            Value::Absent => (
                ViolationKind::Resurrected,
                "no session: its last holder removed it",
            ),
            Value::Body => (ViolationKind::Stale, "what the last holder wrote"),
        };
        found.push(Violation {
            kind,
            expected: expected.to_owned(),
            got: format!("version {version}"),
        });
        self.touched_at = self.touched_at.max(begin);
        self.revive(begin, now, version);
        true
    }

    /// Judges a write, removal or release that was done although its lock had been broken: under
    /// another web request's lock no server does it.
    pub(super) fn judge_stale_write(&mut self, writing: &Writing, found: &mut Vec<Violation>) {
        let held_throughout = |holder: &&HolderRecord| {
            !holder.taken_over
                && !holder.leaving
                && holder.locked_at < writing.at
                && Some(holder.cookie) != writing.cookie
        };
        if let Some(held) = self.holders.iter().find(held_throughout) {
            found.push(Violation {
                kind: ViolationKind::StaleWrite,
                expected: format!("423: cookie {} is held by another web request", held.cookie),
                got: "200 for a holder whose lock had been broken".to_owned(),
            });
            self.excuse_holders();
        }
    }

    pub(super) fn lock(
        &mut self,
        now: u64,
        cookie: u32,
        is_broken: bool,
        found: &mut Vec<Violation>,
    ) -> Holder {
        self.last_holder += 1;
        let mut taken_over = is_broken;
        let is_held = |holder: &HolderRecord| !holder.taken_over && !holder.leaving;
        if !taken_over && let Some(held) = self.holders.iter().find(|holder| is_held(holder)) {
            found.push(Violation {
                kind: ViolationKind::DoubleLock,
                expected: format!("423: cookie {} is held by another web request", held.cookie),
                got: format!("the lock, cookie {cookie}"),
            });
            taken_over = true;
            self.excuse_holders();
        }
        self.holders.push(HolderRecord {
            id: self.last_holder,
            cookie,
            locked_at: now,
            taken_over,
            leaving: false,
        });
        Holder {
            id: self.last_holder,
            cookie,
        }
    }

    pub(super) fn outdated(&self, begin: u64, now: u64, got: &str) -> Violation {
        let (kind, expected) = if self.body_is_possible(begin, now) {
            let newest = self.newest_certain();
            (
                ViolationKind::Stale,
                format!("version {newest} or a later one"),
            )
        } else {
            (
                ViolationKind::Resurrected,
                "no session: it was removed".to_owned(),
            )
        };
        Violation {
            kind,
            expected,
            got: got.to_owned(),
        }
    }
}

pub(super) fn refused(outcome: CheckedOutcome) -> Violation {
    let status = match outcome {
        CheckedOutcome::Refused(status) => status,
        _ => 404,
    };
    Violation {
        kind: ViolationKind::RefusedWrite,
        expected: "200: the holder was not taken over".to_owned(),
        got: format!("status {status}"),
    }
}
