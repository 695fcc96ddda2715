//! Keeps the copy of a session alive at its replica, in the background.
//!
//! Reads slide the expiry of the true item only: a copy that nobody touches would die while its
//! session lives. One that is gone, because its server has lost it or a removal was refused, is
//! written anew, under the lock of the true one.

use std::rc::Rc;

use super::cleanup;
use super::request_log::Subject;
use super::service::ProxyService;
use super::subrequest::{Call, Caller, SubrequestAnswer};
use super::untidy::Untidy;
use super::view::View;
use crate::backend::RetryPolicy;
use crate::handover::{BackendId, COPY_LOCK, SubrequestReply};
use crate::net::{Deadline, TimeSpent};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Request};

/// One session's copy.
struct Refresh {
    service: Rc<ProxyService>,
    view: Rc<View>,
    target: Vec<u8>,
    subject: Subject,
    /// The replica.
    at: BackendId,
    /// The place of the true item; `None` if it may be new, and is not to be looked at.
    from: Option<BackendId>,
}

/// Touches the copy at `at`, and writes it anew from `from` if there is none.
pub(super) fn refresh(
    service: &Rc<ProxyService>,
    view: &Rc<View>,
    subject: &Subject,
    target: &[u8],
    (at, from): (BackendId, Option<BackendId>),
) {
    let Some(under_way) = service.tidying.begin(&Untidy::Copy) else {
        // The next request does it.
        return;
    };
    let busy = service.worker.keep_busy();
    let refresh = Refresh {
        service: Rc::clone(service),
        view: Rc::clone(view),
        target: target.to_vec(),
        subject: *subject,
        at,
        from,
    };
    // Others need not do it as well.
    service
        .feedback
        .copies
        .is_touched(subject.slot, subject.session);
    tokio::task::spawn_local(async move {
        let _under_way = under_way;
        let _busy = busy;
        let deadline = refresh.service.worker.deadlines.register();
        let is_there = refresh.run(&deadline).await.unwrap_or(false);
        if !is_there {
            let subject = &refresh.subject;
            refresh
                .service
                .feedback
                .copies
                .forget(subject.slot, subject.session);
        }
    });
}

impl Refresh {
    /// Whether the replica has the copy now; `None` if somebody did not answer.
    async fn run(&self, deadline: &Deadline) -> Option<bool> {
        let waited = TimeSpent::default();
        let caller = Caller {
            service: &self.service,
            view: &self.view,
            deadline,
            due_ms: deadline.after_ms(self.view.snapshot.timeouts.answer),
            waited: &waited,
        };
        let replica = self.view.snapshot.backend_at(self.at)?;
        let touched = self.ask(&caller, replica, Operation::Touch, 0).await?;
        let seen = touched.seen();
        caller.finish(replica, touched);
        let copies = &self.service.feedback.copies;
        match seen {
            SubrequestReply::Absent if self.from.is_some() => copies.was_touched(self.at, false),
            SubrequestReply::Done { .. } => copies.was_touched(self.at, true),
            _ => {}
        }
        match seen {
            SubrequestReply::Done { .. } | SubrequestReply::Locked { .. } => Some(true),
            SubrequestReply::Absent => self.copy(&caller, replica).await,
            SubrequestReply::Refused | SubrequestReply::Unknown => None,
        }
    }

    /// Copies the item under its lock. Whoever has locked it copies it with what it stores.
    async fn copy(&self, caller: &Caller<'_>, replica: BackendIndex) -> Option<bool> {
        let truth = self.view.snapshot.backend_at(self.from?)?;
        let mut found = self.ask(caller, truth, Operation::Acquire, 0).await?;
        let SubrequestReply::Done { counter, .. } = found.seen() else {
            caller.finish(truth, found);
            return Some(false);
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
        let mut is_copied = None;
        if let Ok(_memory) = memory
            && found.read_body(caller, truth, &mut bytes).await.is_ok()
        {
            caller.finish(truth, found);
            is_copied = self.store(caller, replica, &bytes, body_bytes).await;
        }
        if is_copied == Some(true) {
            let copies = &self.service.feedback.copies;
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
        is_copied
    }

    async fn store(
        &self,
        caller: &Caller<'_>,
        replica: BackendIndex,
        bytes: &[u8],
        body_bytes: u64,
    ) -> Option<bool> {
        let copies = &self.service.feedback.copies;
        let mut under_way = copies.begin(self.subject.slot, [self.from, None]);
        if !self.service.may_copy(&self.subject, self.at) {
            under_way.ends();
            return None;
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
        if is_stored {
            under_way.ends();
        }
        Some(is_stored)
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
