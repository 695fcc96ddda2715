//! What is known of the session from the answers that clients have, and the invariants.
//!
//! Every write gets a version. A version that was read, or whose write was acknowledged to a holder
//! whose lock nobody broke, supersedes what was finished before that write began.

use super::backend::{Answer, NO_VERSION, Status, Verb};
use super::config::REQUESTS;
use super::state::{Fault, Kind, Lock, Now, Op, Role, Sender, State, VERSIONS};

const fn bit(version: u8) -> u16 {
    1 << version
}

impl State {
    /// What is noted when the request starts an operation. Its other fields are kept.
    pub(crate) fn note_start(&mut self, request: usize, op: &mut Op) {
        let settled = !self.is_being_removed();
        op.undisturbed = settled;
        let web_request = &self.requests[request];
        let broken = web_request.taken;
        let other_holds = self.other_holds(request);
        if web_request.lock.is_some() && !broken && !web_request.outdated {
            self.end_insides();
        }
        match op.kind {
            Kind::Acquire | Kind::Read => {
                op.mask = self.versions.superseded;
                op.acked = self.versions.acked;
                op.existed = self.exists;
            }
            Kind::Put | Kind::Create | Kind::Fresh => {
                op.version = self.new_version();
                self.versions.before[usize::from(op.version)] = self.versions.finished;
                if op.kind == Kind::Create {
                    self.versions.created |= bit(op.version);
                    if self.used {
                        self.versions.masked |= bit(op.version);
                    }
                }
            }
            Kind::Delete => {
                op.mask = self.versions.finished;
                self.disturb();
            }
            Kind::Release | Kind::Break | Kind::Touch => {}
        }
        op.inside = broken && other_holds && matches!(op.kind, Kind::Put | Kind::Delete);
    }

    /// What is noted, and what must hold, when the client gets the answer to `op`.
    pub(crate) fn note_answer(&mut self, request: usize, op: &Op, answer: Answer) {
        let web_request = self.requests[request];
        let valid = !web_request.taken && !web_request.outdated;
        match (op.kind, answer.status) {
            (Kind::Acquire | Kind::Read, Status::Done) => self.note_found(request, op, answer),
            (Kind::Acquire | Kind::Read, Status::Absent) if op.existed => {
                self.set_fault(Fault::I3);
            }
            (Kind::Put | Kind::Release | Kind::Delete, Status::Locked) if valid => {
                self.set_fault(Fault::I6);
            }
            (Kind::Put, Status::Done) if valid => self.note_acked(op),
            (Kind::Fresh, Status::Done) => self.note_acked(op),
            (Kind::Create, Status::Done) if op.undisturbed => self.exists = true,
            (Kind::Delete, Status::Done) if op.inside => self.set_fault(Fault::I5),
            // A broken lock's DELETE that finds nothing may as well have been refused.
            (Kind::Delete, Status::Done | Status::Absent)
                if valid || answer.status == Status::Done =>
            {
                self.versions.superseded |= op.mask;
                self.versions.deleted |= op.mask;
            }
            _ => {}
        }
    }

    fn note_found(&mut self, request: usize, op: &Op, answer: Answer) {
        let found = bit(answer.version);
        let versions = &self.versions;
        let fault = if op.outdated {
            None
        } else if versions.hidden & found != 0 {
            Some(Fault::I5)
        } else if op.mask & versions.deleted & found != 0 {
            Some(Fault::I4)
        } else if op.mask & found != 0 {
            Some(Fault::I1)
        } else if versions.masked & found != 0 {
            Some(Fault::I3)
        } else if op.kind == Kind::Acquire && self.other_holds(request) {
            Some(Fault::I2)
        } else if answer.flag
            && !self.crashed
            && (!versions.created | versions.initialised) & found != 0
        {
            Some(Fault::I7)
        } else if self.is_start_missed(request, op, answer) {
            Some(Fault::I8)
        } else {
            None
        };
        if let Some(fault) = fault {
            self.set_fault(fault);
        }
        if answer.flag {
            self.versions.initialised |= found;
        }
        self.note_used();
        self.versions.finished |= found;
        // It was stored over all that had been acknowledged before somebody asked.
        self.versions.superseded |= op.acked & !found;
        self.note_stored(answer.version, op.undisturbed);
    }

    fn note_acked(&mut self, op: &Op) {
        self.versions.acked |= bit(op.version);
        self.note_stored(op.version, op.undisturbed);
    }

    /// A new session is found, nobody has been told that it is new, and nobody is about to.
    fn is_start_missed(&self, request: usize, op: &Op, answer: Answer) -> bool {
        let new = self.versions.created & !self.versions.initialised;
        let mut others = (0..REQUESTS).filter(|&other| other != request);
        let is_alone = others.all(|other| self.requests[other].op.is_none());
        let is_told = answer.flag || bit(answer.version) & new == 0;
        self.starts && op.kind == Kind::Acquire && is_alone && !is_told
    }

    /// The version has certainly been the session's. Then a create that has not reached its server
    /// will store nothing: it does so only where nothing is.
    fn note_stored(&mut self, version: u8, undisturbed: bool) {
        let before = std::mem::take(&mut self.versions.before[usize::from(version)]);
        self.versions.superseded |= before;
        if undisturbed {
            self.exists = true;
            self.used = true;
            self.versions.superseded |= self.versions.created & !bit(version);
            self.versions.masked |= self.undelivered_creates() & !bit(version);
        }
    }

    /// The operation is over, for its client at least.
    pub(crate) fn note_end(&mut self, op: &Op) {
        let is_late = |late: &super::state::Late| {
            late.message.version == op.version && late.message.is_clients_write()
        };
        if op.writes() && !self.late.iter().flatten().any(is_late) {
            self.versions.finished |= bit(op.version);
            if op.inside {
                self.versions.hidden |= bit(op.version);
            }
        }
    }

    /// The late write of this version has taken effect or never will.
    pub(crate) fn note_late_end(&mut self, version: u8) {
        self.versions.finished |= bit(version);
    }

    /// A client's DELETE took effect. What others still do with the locks of that session is cut
    /// off: a single server, too, would take them for locks of the next one. So are removals whose
    /// asker has given up: there, too, a late DELETE removes what was created after it.
    pub(crate) fn note_removed(&mut self, by: usize) {
        for (request, web_request) in self.requests.iter_mut().enumerate() {
            if request == by {
                continue;
            }
            let breaks = web_request.op.is_some_and(|op| op.kind == Kind::Break);
            web_request.outdated |= web_request.taken || breaks;
            if let Some(op) = &mut web_request.op {
                op.forget_old_lock();
            }
        }
        self.forget_late_locks(false);
    }

    /// The session, which was at this place, is gone without anybody's doing, and its locks are. A
    /// move that is under way could bring it back: that is cut off.
    pub(crate) fn note_lost(&mut self, backend_id: usize) {
        self.disturb();
        let is_there = |lock: Lock| usize::from(lock.at) == backend_id;
        for web_request in &mut self.requests {
            web_request.outdated |= web_request.taken || web_request.lock.is_some_and(is_there);
            if let Some(op) = &mut web_request.op {
                let answered = match op.now {
                    Now::Answered(answer) => Some(answer),
                    _ => op.held,
                };
                op.outdated |= answered.is_some_and(|answer| usize::from(answer.at) == backend_id);
                web_request.outdated |= op.kind == Kind::Break && op.lock.is_some_and(is_there);
                op.forget_old_lock();
            }
        }
        self.forget_late_locks(true);
    }

    /// The place is out of reach, what it holds counts as absent, and its locks as broken. In the
    /// middle of a handover the other place may have an older copy: that is the session then.
    pub(crate) fn note_away(&mut self, backend_id: usize) {
        self.disturb();
        for (other, item) in self.items.iter().enumerate() {
            if let (true, Some(item)) = (other != backend_id, item) {
                let versions = &mut self.versions;
                for mask in [
                    &mut versions.superseded,
                    &mut versions.masked,
                    &mut versions.hidden,
                ] {
                    *mask &= !bit(item.version);
                }
                // A copy that nobody has taken: what tells it from a new item is out of reach.
                if item.uninit {
                    versions.created |= bit(item.version);
                    versions.initialised &= !bit(item.version);
                }
            }
        }
        for web_request in &mut self.requests {
            web_request.taken |= web_request
                .lock
                .is_some_and(|lock| usize::from(lock.at) == backend_id);
        }
    }

    /// From now on it is not certain that there is a session, and creates under way may take
    /// effect again.
    pub(super) fn disturb(&mut self) {
        self.exists = false;
        self.used = false;
        let undelivered = self.undelivered_creates();
        self.versions.superseded &= !undelivered;
        self.versions.masked &= !undelivered;
        for op in self.requests.iter_mut().filter_map(|r| r.op.as_mut()) {
            op.existed = false;
            op.undisturbed = false;
            op.mask &= !undelivered;
        }
    }

    /// The empty items that are still on their way to a server.
    fn undelivered_creates(&self) -> u16 {
        let running = self.requests.iter().filter_map(|r| match r.op? {
            Op {
                kind: Kind::Create,
                now: Now::Sent(_),
                version,
                ..
            } => Some(version),
            _ => None,
        });
        let late = self.late.iter().flatten().map(|late| late.message);
        let late =
            late.filter(|message| message.is_clients_write() && message.verb == Verb::Insert);
        running
            .chain(late.map(|message| message.version))
            .fold(0, |mask, version| mask | bit(version))
    }

    fn is_being_removed(&self) -> bool {
        let removes = |op: &Op| op.kind == Kind::Delete;
        let running = self
            .requests
            .iter()
            .any(|r| r.op.is_some_and(|op| removes(&op)));
        running || self.late.iter().flatten().any(|late| late.removal)
    }

    pub(crate) fn other_holds(&self, request: usize) -> bool {
        (0..REQUESTS).any(|other| other != request && self.requests[other].holds())
    }

    /// A holder begins to give its lock back: what a broken lock does from now on may count.
    fn end_insides(&mut self) {
        for op in self.requests.iter_mut().filter_map(|r| r.op.as_mut()) {
            op.inside = false;
        }
    }

    fn forget_late_locks(&mut self, lost: bool) {
        for late in &mut self.late {
            let Some(message) = late.map(|late| late.message) else {
                continue;
            };
            let clients = message.role != Role::Proxy;
            let cut_off = match message.verb {
                Verb::Put(_) | Verb::Release(_) => clients,
                Verb::Insert => lost && !clients,
                Verb::Delete(_) => {
                    clients
                        || self.crashed
                        || late.is_some_and(|late| late.sender != Sender::Behind)
                }
                _ => false,
            };
            if cut_off {
                if message.is_clients_write() {
                    self.versions.finished |= bit(message.version);
                }
                *late = None;
            }
        }
    }

    fn set_fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    fn new_version(&mut self) -> u8 {
        let version = self.versions.count;
        assert!(
            usize::from(version) < VERSIONS,
            "more versions than there is room for"
        );
        self.versions.count += 1;
        version
    }

    /// Forgets the versions that nobody can meet any more and numbers the others anew, in order.
    pub(crate) fn compact_versions(&mut self) {
        let used = self.used_versions();
        let mut renamed = [NO_VERSION; VERSIONS];
        let mut count = 0;
        for version in 0..self.versions.count {
            if used & bit(version) != 0 {
                renamed[usize::from(version)] = count;
                count += 1;
            }
        }
        if count == self.versions.count {
            return;
        }
        self.each_version(&mut |version| *version = renamed[usize::from(*version)]);
        self.each_mask(&mut |mask| {
            let old = std::mem::take(mask);
            for (from, &to) in renamed.iter().enumerate() {
                if old & (1 << from) != 0 && to != NO_VERSION {
                    *mask |= bit(to);
                }
            }
        });
        let before = self.versions.before;
        self.versions.before = [0; VERSIONS];
        for (from, &to) in renamed.iter().enumerate() {
            if to != NO_VERSION {
                self.versions.before[usize::from(to)] = before[from];
            }
        }
        self.versions.count = count;
    }

    fn used_versions(&mut self) -> u16 {
        let mut used = 0;
        self.each_version(&mut |version| used |= bit(*version));
        used
    }

    fn each_version(&mut self, f: &mut impl FnMut(&mut u8)) {
        let mut visit = |version: &mut u8| {
            if *version != NO_VERSION {
                f(version);
            }
        };
        for item in self.items.iter_mut().flatten() {
            visit(&mut item.version);
        }
        for op in self.requests.iter_mut().filter_map(|r| r.op.as_mut()) {
            visit(&mut op.version);
            if let Some(held) = &mut op.held {
                visit(&mut held.version);
            }
            match &mut op.now {
                Now::Sent(message) => visit(&mut message.version),
                Now::Answered(answer) => visit(&mut answer.version),
                Now::Dropped => {}
            }
        }
        for late in self.late.iter_mut().flatten() {
            visit(&mut late.message.version);
        }
    }

    fn each_mask(&mut self, f: &mut impl FnMut(&mut u16)) {
        let versions = &mut self.versions;
        f(&mut versions.created);
        f(&mut versions.finished);
        f(&mut versions.superseded);
        f(&mut versions.masked);
        f(&mut versions.deleted);
        f(&mut versions.hidden);
        f(&mut versions.initialised);
        f(&mut versions.acked);
        for before in &mut versions.before {
            f(before);
        }
        for op in self.requests.iter_mut().filter_map(|r| r.op.as_mut()) {
            f(&mut op.mask);
            f(&mut op.acked);
        }
    }
}

impl Op {
    /// Nobody breaks the lock this was refused for: it was a lock of an earlier session.
    fn forget_old_lock(&mut self) {
        if let Some(held) = &mut self.held {
            held.old = false;
        }
        if let Now::Answered(answer) = &mut self.now {
            answer.old = false;
        }
    }
}
