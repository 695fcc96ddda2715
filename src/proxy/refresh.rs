//! Keeps the copy of a session alive at its replica, in the background.
//!
//! Reads slide the expiry of the true item only: a copy that nobody touches would die while its
//! session lives. One that is gone, because its server has lost it or a removal was refused, is
//! written anew, under the lock of the true one.

use std::rc::Rc;
use std::time::Duration;

use super::cleanup;
use super::request_log::Subject;
use super::service::ProxyService;
use super::subrequest::{Call, Caller, SubrequestAnswer};
use super::untidy::Untidy;
use super::view::View;
use crate::backend::RetryPolicy;
use crate::handover::{BackendId, COPY_LOCK, Stage, SubrequestReply};
use crate::net::{Deadline, TimeSpent};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Request};

/// How often a copy waits that is to be written anew, and whose item somebody has locked, or whose
/// place does not answer.
pub const MAX_PAUSES: usize = 10;
/// How long each of these times.
pub const PAUSE: Duration = Duration::from_secs(1);

/// What is to be done for a copy.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keeping {
    /// It is touched, and written anew if there is none.
    Alive {
        /// The replica.
        at: BackendId,
        /// The place of the true item; `None` if it may be new, and is not to be looked at.
        from: Option<BackendId>,
    },
    /// It is gone, and written anew: if it cannot be, the replica has missed it.
    Anew {
        /// The replica.
        at: BackendId,
        /// The place of the true item.
        from: BackendId,
    },
}

/// How it is with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    There,
    /// There is none, and nothing to be copied.
    Gone,
    /// There is none, and somebody has locked the true one.
    Locked,
    /// The replica does not have what it should.
    Missed,
}

/// One session's copy.
struct Refresh {
    service: Rc<ProxyService>,
    view: Rc<View>,
    target: Vec<u8>,
    subject: Subject,
    keeping: Keeping,
}

/// Does what is to be done for the copy of a session.
pub(super) fn keep_copy(
    service: &Rc<ProxyService>,
    view: &Rc<View>,
    subject: &Subject,
    target: &[u8],
    keeping: Keeping,
) {
    let copies = &service.shared.copies;
    let Some(under_way) = service.tidying.begin(&Untidy::Copy) else {
        // The next request keeps it alive.
        if let Keeping::Anew { .. } = keeping {
            copies.miss(subject.slot);
        }
        return;
    };
    let busy = service.worker.keep_busy();
    let refresh = Refresh {
        service: Rc::clone(service),
        view: Rc::clone(view),
        target: target.to_vec(),
        subject: *subject,
        keeping,
    };
    // Others need not do it as well.
    if let Keeping::Alive { .. } = keeping {
        copies.is_touched(subject.slot, subject.session);
    }
    tokio::task::spawn_local(async move {
        let _under_way = under_way;
        let _busy = busy;
        refresh.run().await;
    });
}

impl Keeping {
    fn at(self) -> BackendId {
        let (Self::Alive { at, .. } | Self::Anew { at, .. }) = self;
        at
    }

    fn from(self) -> Option<BackendId> {
        match self {
            Self::Alive { from, .. } => from,
            Self::Anew { from, .. } => Some(from),
        }
    }
}

impl Refresh {
    async fn run(&self) {
        let deadlines = &self.service.worker.deadlines;
        let deadline = deadlines.register();
        let is_anew = matches!(self.keeping, Keeping::Anew { .. });
        let mut kept = self.keep(&deadline).await;
        let mut pauses = 0;
        while is_anew && matches!(kept, None | Some(Kept::Locked)) && pauses < MAX_PAUSES {
            deadlines.sleep(PAUSE).await;
            kept = self.keep(&deadline).await;
            pauses += 1;
        }
        let copies = &self.service.shared.copies;
        let (slot, session) = (self.subject.slot, self.subject.session);
        if kept != Some(Kept::There) {
            copies.forget(slot, session);
        }
        // If the place is about to be left, the replica is all there is.
        let is_missed = is_anew && !matches!(kept, Some(Kept::There | Kept::Gone));
        if is_missed
            && self
                .keeping
                .from()
                .is_some_and(|from| !self.is_failing(from))
        {
            copies.miss(slot);
        }
    }

    /// How it is with the copy now; `None` if the place of the item did not answer.
    async fn keep(&self, deadline: &Deadline) -> Option<Kept> {
        let waited = TimeSpent::default();
        let caller = Caller {
            service: &self.service,
            view: &self.view,
            deadline,
            due_ms: deadline.after_ms(self.view.snapshot.timeouts.answer),
            waited: &waited,
        };
        let at = self.keeping.at();
        let replica = self.view.snapshot.backend_at(at)?;
        let Some(touched) = self.ask(&caller, replica, Operation::Touch, 0).await else {
            return Some(Kept::Missed);
        };
        let seen = touched.seen();
        caller.finish(replica, touched);
        let copies = &self.service.shared.copies;
        if let Keeping::Alive { from, .. } = self.keeping {
            match seen {
                SubrequestReply::Absent if from.is_some() => copies.was_touched(at, false),
                SubrequestReply::Done { .. } => copies.was_touched(at, true),
                _ => {}
            }
        }
        match (seen, self.keeping.from()) {
            (SubrequestReply::Done { .. } | SubrequestReply::Locked { .. }, _) => Some(Kept::There),
            (SubrequestReply::Absent, Some(from)) => self.copy(&caller, replica, from).await,
            (SubrequestReply::Absent, None) => Some(Kept::Gone),
            (SubrequestReply::Refused | SubrequestReply::Unknown, _) => Some(Kept::Missed),
        }
    }

    /// Copies the item under its lock. Whoever has locked it copies it with what it stores.
    async fn copy(
        &self,
        caller: &Caller<'_>,
        replica: BackendIndex,
        from: BackendId,
    ) -> Option<Kept> {
        let truth = self.view.snapshot.backend_at(from)?;
        let mut found = self.ask(caller, truth, Operation::Acquire, 0).await?;
        let seen = found.seen();
        let SubrequestReply::Done { counter, .. } = seen else {
            caller.finish(truth, found);
            return Some(match seen {
                SubrequestReply::Absent => Kept::Gone,
                SubrequestReply::Locked { .. } => Kept::Locked,
                _ => Kept::Missed,
            });
        };
        let timeout_minutes = found.timeout_minutes();
        let request = Request {
            timeout_minutes,
            ..self.request(Operation::Put, COPY_LOCK)
        };
        let mut bytes = Vec::new();
        let body_bytes = found.head.body_bytes;
        wire::encode_request_head(&mut bytes, &request, body_bytes as usize);
        let taking = self.view.snapshot.moves.take(body_bytes);
        caller.deadline.arm_at(caller.due_ms);
        let memory = caller.deadline.guard(taking).await;
        let mut kept = memory.is_err().then_some(Kept::Missed);
        if let Ok(_memory) = memory
            && found.read_body(caller, truth, &mut bytes).await.is_ok()
        {
            caller.finish(truth, found);
            let item = (bytes.as_slice(), body_bytes);
            kept = self.store(caller, replica, item, from).await;
        }
        if kept == Some(Kept::There) {
            let copies = &self.service.shared.copies;
            copies.was_written(self.subject.slot, self.subject.session, timeout_minutes);
        }
        let target = &self.target;
        cleanup::tidy(
            &self.service,
            &self.view,
            truth,
            target,
            Untidy::Lock(counter),
        );
        kept
    }

    async fn store(
        &self,
        caller: &Caller<'_>,
        replica: BackendIndex,
        (bytes, body_bytes): (&[u8], u64),
        from: BackendId,
    ) -> Option<Kept> {
        let copies = &self.service.shared.copies;
        let mut under_way = copies.begin(self.subject.slot, [Some(from), None]);
        if !self.service.may_copy(&self.subject, self.keeping.at()) {
            under_way.ends();
            return (!self.is_failing(from)).then_some(Kept::Missed);
        }
        under_way.is_sent();
        let call = Call {
            bytes,
            operation: Operation::Put,
            body_bytes,
            retry: RetryPolicy::Unanswered,
        };
        let answered = caller.call(replica, call).await.ok()?;
        let is_stored = matches!(answered.seen(), SubrequestReply::Done { .. });
        caller.finish(replica, answered);
        if !is_stored {
            return Some(Kept::Missed);
        }
        under_way.ends();
        Some(Kept::There)
    }

    /// Whether the place of the item is about to be left: then the replica is all there is.
    fn is_failing(&self, place: BackendId) -> bool {
        let view = self.service.view();
        let slot = view.snapshot.slots.lookup(self.subject.slot.index());
        let backend = view.snapshot.backend_at(place);
        slot.stage == Stage::Suspect || backend.is_none_or(|backend| view.pool(backend).is_down())
    }

    async fn ask(
        &self,
        caller: &Caller<'_>,
        to: BackendIndex,
        operation: Operation,
        lock_cookie: u32,
    ) -> Option<SubrequestAnswer> {
        let mut bytes = Vec::new();
        wire::encode_request(&mut bytes, &self.request(operation, lock_cookie));
        let call = Call {
            bytes: &bytes,
            operation,
            body_bytes: 0,
            retry: RetryPolicy::of(operation),
        };
        match caller.call(to, call).await {
            Ok(answered) => Some(answered),
            Err(failed) => {
                if let Some(left) = failed.left {
                    cleanup::tidy(&self.service, &self.view, to, &self.target, left.into());
                }
                None
            }
        }
    }

    fn request(&self, operation: Operation, lock_cookie: u32) -> Request<'_> {
        Request {
            operation,
            target: &self.target,
            lock_cookie,
            timeout_minutes: 0,
            extra_flags: 0,
            body: &[],
        }
    }
}
