//! Keeps the copy of a session alive at its replica, in the background.
//!
//! Reads slide the expiry of the true item only: a copy that nobody touches would die while its
//! session lives. One that is gone, because its server has lost it or a removal was refused, is
//! written anew, under the lock of the true one.

use std::rc::Rc;

use super::cleanup;
use super::copies::CopyUnderWay;
use super::request_log::Subject;
use super::service::ProxyService;
use super::subrequest::{Call, Caller, SubrequestAnswer};
use super::untidy::Untidy;
use super::view::View;
use crate::backend::RetryPolicy;
use crate::handover::copy_refresh::{
    CopyRefresh, Keeping, REFRESH_PAUSE, RefreshNews, RefreshTask, is_about_to_be_left,
};
use crate::handover::{BackendId, CopyKind, Question, QuestionForm, Subrequest, SubrequestReply};
use crate::net::{Deadline, TimeSpent};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Request};

/// The answer that an item comes with, and the place it comes from.
struct Fetched(SubrequestAnswer, BackendIndex);

/// One session's copy.
struct Refresh {
    service: Rc<ProxyService>,
    view: Rc<View>,
    target: Vec<u8>,
    subject: Subject,
    copy: CopyRefresh,
    /// The true item, with its lock.
    fetched: Option<Fetched>,
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
        if keeping.is_anew() {
            copies.miss(subject.slot);
        }
        return;
    };
    let busy = service.worker.keep_busy();
    let mut refresh = Refresh {
        service: Rc::clone(service),
        view: Rc::clone(view),
        target: target.to_vec(),
        subject: *subject,
        copy: CopyRefresh::new(keeping),
        fetched: None,
    };
    // Others need not do it as well.
    if !keeping.is_anew() {
        copies.is_touched(subject.copied(), service.shared.clock.now_ms());
    }
    tokio::task::spawn_local(async move {
        let _under_way = under_way;
        let _busy = busy;
        refresh.run().await;
    });
}

impl Refresh {
    async fn run(&mut self) {
        let service = Rc::clone(&self.service);
        let deadlines = &service.worker.deadlines;
        let deadline = deadlines.register();
        let answer = self.view.snapshot.timeouts.answer;
        let mut due_ms = deadline.after_ms(answer);
        let end = loop {
            match self.copy.task() {
                RefreshTask::Send(question) => {
                    let news = self.put(question, &deadline, due_ms).await;
                    self.tell(news);
                }
                RefreshTask::Pause => {
                    deadlines.sleep(REFRESH_PAUSE).await;
                    self.copy.paused();
                    due_ms = deadline.after_ms(answer);
                }
                RefreshTask::End(end) => break end,
            }
        };
        let is_left = |from| self.is_about_to_be_left(from);
        let copies = &service.shared.copies;
        copies.refresh_ended(self.subject.copied(), end, is_left);
    }

    /// Puts a question, by `due_ms` of the worker's clock.
    async fn put(&mut self, question: Question, deadline: &Deadline, due_ms: u64) -> RefreshNews {
        let (service, view) = (Rc::clone(&self.service), Rc::clone(&self.view));
        let waited = TimeSpent::default();
        let caller = Caller {
            service: &service,
            view: &view,
            deadline,
            due_ms,
            waited: &waited,
        };
        let Some(to) = view.snapshot.backend_at(question.at) else {
            return self.copy.heard(None);
        };
        let operation = match question.form {
            QuestionForm::Touch => Operation::Touch,
            QuestionForm::Acquire => Operation::Acquire,
            _ => return self.store(&caller, question, to).await,
        };
        let Some(answered) = self.ask(&caller, to, operation).await else {
            return self.copy.heard(None);
        };
        let seen = answered.seen();
        match (operation, seen) {
            (Operation::Acquire, SubrequestReply::Done { .. }) => {
                self.fetched = Some(Fetched(answered, to));
            }
            _ => caller.finish(to, answered),
        }
        self.copy.heard(Some(seen))
    }

    /// Stores the item that was fetched at the replica.
    async fn store(
        &mut self,
        caller: &Caller<'_>,
        question: Question,
        replica: BackendIndex,
    ) -> RefreshNews {
        let Some((bytes, body_bytes, timeout_minutes)) = self.item(caller, question).await else {
            return self.copy.not_kept();
        };
        let shared = &caller.service.shared;
        let under_way = CopyUnderWay::begin(
            &shared.copies,
            (self.subject.copied(), self.copy.places()),
            (CopyKind::Item, question.at),
            |replica| self.service.may_copy(&self.subject, replica),
            |copies| copies.may_restore(shared.clock.now_ms()),
        );
        let Ok(under_way) = under_way else {
            let place = self.copy.keeping().from();
            let is_left = place.is_none_or(|place| self.is_about_to_be_left(place));
            return self.copy.slot_changed(is_left);
        };
        let call = Call {
            bytes: &bytes,
            operation: Operation::Put,
            body_bytes,
            retry: RetryPolicy::of_own(question.is_repeatable()),
        };
        let answered = caller.call(replica, call).await.ok();
        let seen = answered.as_ref().map(SubrequestAnswer::seen);
        if let Some(answered) = answered {
            caller.finish(replica, answered);
        }
        let reply = seen.unwrap_or(SubrequestReply::Unknown);
        under_way.ended(reply, timeout_minutes, || shared.clock.now_ms());
        self.copy.heard(seen)
    }

    /// The item that was fetched as the bytes of what `question` is sent as, with the length of its body
    /// and its timeout. `None` if there is no room for it, or it breaks off.
    async fn item(
        &mut self,
        caller: &Caller<'_>,
        question: Question,
    ) -> Option<(Vec<u8>, u64, u32)> {
        let Fetched(mut found, truth) = self.fetched.take()?;
        let QuestionForm::Store { lock_cookie, .. } = question.form else {
            return None;
        };
        let timeout_minutes = found.timeout_minutes();
        let request = Request {
            timeout_minutes,
            ..self.request(Operation::Put, lock_cookie)
        };
        let mut bytes = Vec::new();
        let body_bytes = found.head.body_bytes;
        wire::encode_request_head(&mut bytes, &request, body_bytes as usize);
        let taking = self.view.snapshot.moves.take(body_bytes);
        caller.deadline.arm_at(caller.due_ms);
        let _memory = caller.deadline.guard(taking).await.ok()?;
        found.read_body(caller, truth, &mut bytes).await.ok()?;
        caller.finish(truth, found);
        Some((bytes, body_bytes, timeout_minutes))
    }

    /// What was learned, and a lock that is not needed any more.
    fn tell(&self, news: RefreshNews) {
        if let Some(was_there) = news.was_there {
            let copies = &self.service.shared.copies;
            copies.was_touched(self.copy.keeping().at(), was_there);
        }
        if let Some(Subrequest::Release { at, counter }) = news.release
            && let Some(at) = self.view.snapshot.backend_at(at)
        {
            let lock = Untidy::Lock(counter);
            cleanup::tidy(&self.service, &self.view, at, &self.target, lock);
        }
    }

    fn is_about_to_be_left(&self, place: BackendId) -> bool {
        let view = self.service.view();
        let slot = view.snapshot.slots.lookup(self.subject.slot.index());
        let backend = view.snapshot.backend_at(place);
        let is_up = backend.is_some_and(|backend| !view.pool(backend).is_down());
        is_about_to_be_left(slot.stage, is_up)
    }

    async fn ask(
        &self,
        caller: &Caller<'_>,
        to: BackendIndex,
        operation: Operation,
    ) -> Option<SubrequestAnswer> {
        let mut bytes = Vec::new();
        wire::encode_request(&mut bytes, &self.request(operation, 0));
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
