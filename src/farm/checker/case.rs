//! A ledger and its clock, for the tests.

use super::*;

pub(super) const IDLE_LIMIT: u64 = 1_000_000;
pub(super) const LATE: u64 = 10_000;

/// A ledger with a clock that moves by one with every call, and what it found so far.
pub(super) struct Case {
    pub(super) ledger: SessionLedger,
    pub(super) now: u64,
    pub(super) found: Vec<Violation>,
}

impl Case {
    pub(super) fn new() -> Self {
        let rules = Rules {
            idle_limit_ns: IDLE_LIMIT,
            late_effect_ns: LATE,
        };
        Self {
            ledger: SessionLedger::new(rules),
            now: 0,
            found: Vec::new(),
        }
    }

    /// A session stored by one plain PUT, version 1.
    pub(super) fn stored() -> Self {
        let mut case = Self::new();
        case.create(Create::Plain);
        case
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn begin(&mut self) -> Begun {
        let now = self.tick();
        self.ledger.begin(now)
    }

    pub(super) fn end(&mut self, begun: Begun, seen: SeenContents) -> bool {
        let now = self.tick();
        let verdict = self.ledger.end_read(begun, now, seen, &mut self.found);
        verdict.session_start
    }

    pub(super) fn read(&mut self, seen: SeenContents) -> bool {
        let begun = self.begin();
        self.end(begun, seen)
    }

    pub(super) fn end_acquire(&mut self, begun: Begun, seen: SeenContents, cookie: u32) -> Holder {
        let now = self.tick();
        let found = &mut self.found;
        let (_, holder) = self
            .ledger
            .end_acquire(begun, now, seen, Some(cookie), found);
        holder.unwrap()
    }

    pub(super) fn acquire(&mut self, version: u64, cookie: u32) -> Holder {
        let begun = self.begin();
        self.end_acquire(begun, body(version), cookie)
    }

    pub(super) fn begin_leave(&mut self, holder: &Holder, leave: Leave) -> Writing {
        let now = self.tick();
        self.ledger.begin_leave(now, holder, leave)
    }

    pub(super) fn begin_create(&mut self, create: Create) -> Writing {
        let now = self.tick();
        self.ledger.begin_create(now, create)
    }

    pub(super) fn end_write(&mut self, writing: Writing, outcome: CheckedOutcome) {
        let now = self.tick();
        self.ledger
            .end_write(writing, now, outcome, &mut self.found);
    }

    pub(super) fn leave(&mut self, holder: &Holder, leave: Leave, outcome: CheckedOutcome) -> u64 {
        let writing = self.begin_leave(holder, leave);
        let version = writing.version;
        self.end_write(writing, outcome);
        version
    }

    pub(super) fn create(&mut self, create: Create) -> u64 {
        let writing = self.begin_create(create);
        let version = writing.version;
        self.end_write(writing, CheckedOutcome::Done);
        version
    }

    /// Acquire `version`, then PUT; returns the version written.
    pub(super) fn change(&mut self, version: u64, cookie: u32) -> u64 {
        let holder = self.acquire(version, cookie);
        self.leave(&holder, Leave::Write, CheckedOutcome::Done)
    }

    pub(super) fn remove(&mut self, version: u64, cookie: u32) {
        let holder = self.acquire(version, cookie);
        self.leave(&holder, Leave::Remove, CheckedOutcome::Done);
    }

    pub(super) fn take_over(&mut self, cookie: u32) {
        let now = self.tick();
        let begun = self.ledger.begin_takeover(now, cookie);
        let now = self.tick();
        let found = &mut self.found;
        self.ledger
            .end_takeover(begun, now, SeenContents::Exists, false, found);
    }

    #[track_caller]
    pub(super) fn assert_found(&self, kinds: &[ViolationKind]) {
        let found: Vec<_> = self.found.iter().map(|violation| violation.kind).collect();
        assert_eq!(found, kinds, "{:#?}", self.found);
    }
}

pub(super) fn body(version: u64) -> SeenContents {
    SeenContents::Body {
        version,
        flag: false,
    }
}

pub(super) fn flagged(version: u64) -> SeenContents {
    SeenContents::Body {
        version,
        flag: true,
    }
}

pub(super) const ABSENT: SeenContents = SeenContents::Absent(404);
