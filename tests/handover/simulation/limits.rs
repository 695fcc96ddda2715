//! What no rule can hold with stock servers (docs/handover.md section 7): a session that meets one
//! of these is judged no more.

use staterouter::handover::{BackendId, COPY_LOCK, NO_LOCK, SlotRoute, SlotState, Stage};

use super::net::{Asked, Message, Op, Purpose, Server};
use super::proxy::Job;
use super::world::World;

impl World {
    /// Looks at a request that is about to be executed.
    pub(crate) fn meet_limits(&mut self, message: &Message) {
        self.look_at_late_touch(message);
        self.look_at_left_lock(message);
        self.look_at_old_lock(message);
        self.look_at_late_create(message);
        self.look_at_late_removal(message);
        self.look_at_late_question(message);
        self.look_at_lock_from_wait(message);
        self.look_at_lock_from_handover(message);
        self.look_at_lock_from_outage(message);
        self.look_at_late_store(message);
    }

    /// A page from before an outage stores its session at the returned server after it was removed, just
    /// as another page begins it anew at the stand-in.
    fn look_at_late_store(&mut self, message: &Message) {
        let Some(job) = self.job_of(message) else {
            return;
        };
        let session = message.session;
        let is_of_returned = job.is_clients()
            && job.route.stage == Stage::Wait
            && job.route.second == Some(message.backend_id)
            && matches!(message.op, Op::Put { .. });
        let mut calls = self.farm.calls.values();
        let begins =
            calls.any(|call| call.session == session && matches!(call.op, Op::Insert { .. }));
        if is_of_returned && begins && !self.has(session, message.backend_id) {
            self.retire(session, "is stored by a page from before as it begins anew");
        }
    }

    /// A session that has begun anew at a stand-in is taken while a page from before the outage has a
    /// lock of it at the returned server: that may as well be the lock of a mover that has died.
    fn look_at_lock_from_outage(&mut self, message: &Message) {
        let Some(job) = self.job_of(message) else {
            return;
        };
        let Op::Remove(cookie) = message.op else {
            return;
        };
        let is_returned = job.route.second == Some(message.backend_id)
            && matches!(job.route.stage, Stage::Back | Stage::Wait);
        // It has seen that lock, which a pending delete may have opened meanwhile, or sees it now.
        let was_locked =
            cookie != NO_LOCK || self.lock(message.session, message.backend_id).is_some();
        if job.op == Op::Acquire && is_returned && was_locked {
            self.retire(
                message.session,
                "is begun anew while a lock from before the outage holds",
            );
        }
    }

    /// A lock from before the session was removed: the removal of debris at the second place meets
    /// the session itself, as new as it is, and a removal without a lock would on one server, too.
    fn look_at_late_removal(&mut self, message: &Message) {
        let Some(job) = self.job_of(message) else {
            return;
        };
        let SlotRoute { first, second, .. } = job.route;
        let is_clearing = matches!(message.op, Op::Remove(_)) && !job.is_clients();
        let is_of_first =
            matches!(job.op, Op::Remove(cookie) if cookie >> 24 == u32::from(first.id()));
        if is_clearing
            && is_of_first
            && second == Some(message.backend_id)
            && !self.has(message.session, first)
            && self.has(message.session, message.backend_id)
        {
            self.retire(message.session, "is removed with a lock from before");
        }
    }

    /// A question that a proxy has given up arrives after all. The removal of debris meets the next
    /// session, as the debris is gone by then; a copy that is stored anew brings back what was removed.
    fn look_at_late_question(&mut self, message: &Message) {
        let Purpose::Job { job, ask, kind } = message.purpose else {
            return;
        };
        let (session, at) = (message.session, message.backend_id);
        let proxy = &self.proxies[message.proxy];
        let asked = proxy.jobs.get(&job).filter(|job| job.ask == ask);
        if proxy.boot == message.boot && asked.is_some() {
            return;
        }
        let first = proxy.slots()[self.farm.sessions[session].slot].first;
        let is_masked = first != at && self.has(session, first);
        match (kind, message.op) {
            // What belongs to copies ends before anybody is served from them.
            (Asked::Other, Op::Remove(cookie))
                if cookie != COPY_LOCK
                    && self.has(session, at)
                    && self.lock(session, at).is_none_or(|lock| lock == cookie)
                    && !is_masked =>
            {
                self.retire(session, "is removed by what was to clear debris before it");
            }
            (Asked::Restore, Op::Insert { .. }) if !self.has(session, at) => {
                self.retire(session, "is stored anew by a request that was given up");
            }
            _ => {}
        }
    }

    /// A lock of the old owner that was broken before its session moved. The old owner stands in for
    /// the new one, and the page comes back before the handover home.
    fn look_at_lock_from_handover(&mut self, message: &Message) {
        let Some(job) = self.job_of(message) else {
            return;
        };
        let Some(returned) = job.route.second else {
            return;
        };
        let is_of_stand_in = job.route.first == message.backend_id
            && matches!(job.route.stage, Stage::Back | Stage::Wait)
            && job.is_clients();
        let began_ms = self.farm.pages.get(&job.page).map(|page| page.began_ms);
        let slot = self.proxies[message.proxy].slots()[self.farm.sessions[message.session].slot];
        let is_older = began_ms.is_some_and(|began_ms| began_ms < slot.since_ms);
        if is_of_stand_in
            && is_older
            && matches!(message.op, Op::Put { .. })
            && !self.has(message.session, message.backend_id)
            && self.has(message.session, returned)
        {
            self.retire(message.session, "is hidden by an outdated write");
        }
    }

    /// A lock that was broken while its server waited, and whose page comes back on the way home,
    /// after the session was removed and begun anew at the stand-in.
    fn look_at_lock_from_wait(&mut self, message: &Message) {
        let Some(job) = self.job_of(message) else {
            return;
        };
        let is_first = job.route.first == message.backend_id && job.route.second.is_some();
        let began_ms = self.farm.pages.get(&job.page).map(|page| page.began_ms);
        let slot = self.proxies[message.proxy].slots()[self.farm.sessions[message.session].slot];
        let is_older = began_ms.is_some_and(|began_ms| began_ms < slot.since_ms);
        if is_first
            && is_older
            && job.is_clients()
            && matches!(job.route.stage, Stage::Settle | Stage::Move1)
            && matches!(message.op, Op::Put { .. })
            && !self.has(message.session, message.backend_id)
        {
            self.retire(message.session, "has an outdated write before it");
        }
    }

    /// Every attempt to move the session has failed until the slot is there.
    pub(crate) fn look_for_left_locks(&mut self, slot: usize, before: SlotState) {
        let Some(second) = before.second else {
            return;
        };
        for index in 0..self.farm.sessions.len() {
            let is_here = self.farm.sessions[index].slot == slot;
            let is_locked = self.lock(index, second).is_some();
            if is_here && is_locked && !self.has(index, before.first) {
                self.retire(index, "stays behind under a lock");
            }
        }
    }

    /// A request from before a failover keeps an outdated copy alive: it may outlive the true one.
    fn look_at_late_touch(&mut self, message: &Message) {
        let slot = self.farm.sessions[message.session].slot;
        let mut proxies = self.proxies.iter();
        let stand_in = proxies.find_map(|proxy| {
            let slot = proxy.slots()[slot];
            let is_away = slot.stage == Stage::Away && slot.second == Some(message.backend_id);
            is_away.then_some(slot.first)
        });
        let has = |backend_id: BackendId| self.has(message.session, backend_id);
        if stand_in.is_some_and(|stand_in| has(stand_in) && has(message.backend_id)) {
            self.retire(message.session, "has an outdated copy that was used late");
        }
    }

    /// A page writes under a lock of a server that was left behind: it is told so, but nobody will
    /// see it.
    fn look_at_left_lock(&mut self, message: &Message) {
        let slot = self.farm.sessions[message.session].slot;
        let slot = self.proxies[message.proxy].slots()[slot];
        let is_served = slot
            .places()
            .any(|backend_id| backend_id == message.backend_id);
        let is_left =
            slot.outdated.contains(message.backend_id) && !is_served && !self.plan.class.replicas;
        if is_left && self.has(message.session, message.backend_id) {
            self.retire(message.session, "is used where it was left behind");
        }
    }

    /// A lock from before the session was removed fits one that nobody knows of yet, because its
    /// acquire has no answer. One server alone takes it, too; but the proxy gives the lock back when
    /// its answer comes, and that fits the next one.
    fn look_at_old_lock(&mut self, message: &Message) {
        let Some(job) = self.job_of(message) else {
            return;
        };
        let (page, is_forwarded) = (job.page, job.is_clients());
        let lock = self.lock(message.session, message.backend_id);
        let at = (message.session, message.backend_id);
        match (message.op, job.op) {
            (Op::Acquire, _) if lock.is_none() => {
                self.takers.insert(at, page);
            }
            (Op::Remove(counter), Op::Remove(cookie))
            | (
                Op::Put {
                    cookie: counter, ..
                },
                Op::Put { cookie, .. },
            ) if is_forwarded
                && lock == Some(counter)
                && cookie >> 24 == u32::from(message.backend_id.id()) =>
            {
                let Some(taker) = self.takers.get(&at).filter(|taker| **taker != page) else {
                    return;
                };
                let holder = self
                    .farm
                    .pages
                    .get(taker)
                    .and_then(|page| page.holder.as_ref());
                if holder.is_none() {
                    self.retire(
                        message.session,
                        "is opened with a lock from before its removal",
                    );
                }
            }
            _ => {}
        }
    }

    /// A create that was under way while its session moved has put an empty item behind it: once
    /// the session is removed, that is the new one.
    fn look_at_late_create(&mut self, message: &Message) {
        let Some(job) = self.job_of(message) else {
            return;
        };
        let Some(second) = job.route.second else {
            return;
        };
        let is_removal = matches!(message.op, Op::Remove(_)) && job.is_clients();
        let known = &self.farm.sessions[message.session];
        if is_removal
            && second != message.backend_id
            && self.server(second).is_untouched(&known.key, self.now_ms)
        {
            self.retire(message.session, "has a late create behind it");
        }
    }

    /// A slot goes to a server where an earlier handover has left something: it is asked first from
    /// now on, and passes for the truth.
    pub(crate) fn look_for_debris(&mut self, slot: usize, first: BackendId) {
        for index in 0..self.farm.sessions.len() {
            let session = &self.farm.sessions[index];
            if session.slot == slot && self.has(index, first) && !self.is_copy_at(index, first) {
                self.retire(index, "goes back to where debris of it lies");
            }
        }
    }

    /// What is behind shows while the truth is out of reach.
    pub(crate) fn hide_truth(&mut self, slot: usize, state: SlotState) {
        let Some(second) = state.second else {
            return;
        };
        for index in 0..self.farm.sessions.len() {
            let is_here = self.farm.sessions[index].slot == slot;
            if is_here && self.has(index, state.first) && self.has(index, second) {
                self.retire(index, "has two copies, and the truth is out of reach");
            }
        }
    }

    /// The request of a client that a question belongs to.
    fn job_of(&self, message: &Message) -> Option<&Job> {
        let Purpose::Job { job, .. } = message.purpose else {
            return None;
        };
        self.proxies[message.proxy].jobs.get(&job)
    }

    /// Whether a server has an item of a slot.
    pub(crate) fn has_any(&self, slot: usize, backend_id: BackendId) -> bool {
        let mut sessions = self.farm.sessions.iter().enumerate();
        sessions.any(|(index, session)| session.slot == slot && self.has(index, backend_id))
    }

    fn has(&self, session: usize, backend_id: BackendId) -> bool {
        let known = &self.farm.sessions[session];
        self.server(backend_id).has(&known.key, self.now_ms)
    }

    fn lock(&self, session: usize, backend_id: BackendId) -> Option<u32> {
        let known = &self.farm.sessions[session];
        self.server(backend_id).lock(&known.key, self.now_ms)
    }

    fn server(&self, backend_id: BackendId) -> &Server {
        &self.servers[usize::from(backend_id.id()) - 1]
    }
}
