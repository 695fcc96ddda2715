//! One request whose item may be at either of two places: does what `handover::RequestDriver` says.

mod copying;

use tokio::sync::SemaphorePermit;

use self::copying::WholeBody;
use super::cleanup;
use super::error::{ProxyError, Unanswered};
use super::forward::{Exchange, Forwarded, RunFailed};
use super::refresh;
use super::request_log::Answered;
use super::subrequest::{Call, CallFailed, Caller, SubrequestAnswer};
use super::untidy::Untidy;
use crate::backend::RetryPolicy;
use crate::handover::copy_refresh::Keeping;
use crate::handover::request_driver::{BodySource, ItemMove, MOVE_PAUSE};
use crate::handover::{
    BackendId, CopyKind, DriverTask, Heard, NoReply, Question, QuestionForm, Refusal,
    RequestDriver, RequestEnd, Subrequest, SubrequestReply,
};
use crate::metrics::MoveStep;
use crate::net::Buffer;
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Parsed, Request, ResponseHead, Unfit, WireError};

/// Runs the request at the start of `received` from its first question to its end, by `due_ms` of
/// the worker's clock. On success `received` holds what came behind the request.
pub(super) async fn run(
    exchange: Exchange<'_>,
    driver: RequestDriver,
    received: &mut Buffer,
    due_ms: u64,
) -> Result<Answered, Unanswered> {
    let service = exchange.service;
    let now_ms = service.now_ms();
    let mut trail = service
        .lines
        .follow(exchange.subject, service.worker.index, now_ms);
    let mut task = driver.task();
    let mut seek = Seek {
        exchange,
        driver,
        due_ms,
        held: None,
        kept: None,
        failed: None,
        insert_status: None,
        body: None,
    };
    loop {
        let heard = match task {
            DriverTask::Send(question) => match seek.put(question, received).await {
                Ok(heard) => heard,
                Err(Stopped::Refused(reason)) => {
                    let end = seek.driver.refused(reason);
                    return seek.end(end, received).await;
                }
                Err(Stopped::Failed(failed)) => return Err(failed),
            },
            DriverTask::Pause => {
                service.worker.deadlines.sleep(MOVE_PAUSE).await;
                task = seek.driver.task();
                continue;
            }
            DriverTask::NoteDelete(to) => Heard::Reply(seek.note_delete(to, received).await),
            DriverTask::NoteMiss => Heard::Reply(seek.miss()),
            DriverTask::End(end) => {
                if seek.joins_queue(end) {
                    seek.release_held();
                    return Ok(seek.exchange.queued());
                }
                seek.count_failed_move(end);
                return seek.end(end, received).await;
            }
        };
        let ask = seek.driver.ask();
        task = seek.driver.heard(heard);
        if let Some(trail) = trail.as_mut().filter(|_| task != DriverTask::Pause) {
            trail.asked(seek.exchange.view, ask, heard.reply());
            trail.decided(seek.exchange.view, task);
        }
    }
}

struct Seek<'a> {
    exchange: Exchange<'a>,
    driver: RequestDriver,
    due_ms: u64,
    held: Option<Held>,
    /// What the held answer was before its item was to be stored elsewhere.
    kept: Option<Kept<'a>>,
    /// The last question that was not answered.
    failed: Option<Unanswered>,
    /// The answer to the item that was to be moved; `None` while there is no whole one.
    insert_status: Option<u16>,
    /// What the client stores, if it did not come whole and two servers get it.
    body: Option<WholeBody<'a>>,
}

/// An answer to the client's own request that may be passed on.
struct Held {
    answered: SubrequestAnswer,
    backend: BackendIndex,
}

/// An answer whose item was to be stored elsewhere.
struct Kept<'a> {
    head: Buffer,
    /// Ends with the item's body, of this length.
    bytes: Vec<u8>,
    body_bytes: usize,
    backend: BackendIndex,
    _memory: Option<SemaphorePermit<'a>>,
}

/// A question that was not put.
enum Stopped {
    /// The slot has changed since the request came, or another proxy is not heard.
    Refused(Refusal),
    /// What was to be sent cannot be had: the request fails.
    Failed(Unanswered),
}

/// A question without an answer.
struct Lost {
    error: ProxyError,
    /// No byte of it could be sent.
    is_unsent: bool,
}

impl From<ProxyError> for Lost {
    fn from(error: ProxyError) -> Self {
        let is_unsent = false;
        Self { error, is_unsent }
    }
}

impl<'a> Seek<'a> {
    /// Puts one question and says what came of it.
    async fn put(&mut self, question: Question, received: &mut Buffer) -> Result<Heard, Stopped> {
        let Some(backend) = self.exchange.view.snapshot.backend_at(question.at) else {
            let unknown = ProxyError::from(Refusal::Unknown);
            return Ok(self.hear(self.exchange.backend, Err(unknown.into())));
        };
        let heard = match question.form {
            QuestionForm::Own { counter } => self.ask_as_client(backend, counter, received).await,
            QuestionForm::Get => self.fetch(backend, Operation::Get, received).await,
            QuestionForm::Acquire => self.fetch(backend, Operation::Acquire, received).await,
            QuestionForm::Touch => {
                let retry = RetryPolicy::of_own(question.is_repeatable());
                self.ask_alone(backend, (Operation::Touch, 0), retry, received)
                    .await
            }
            QuestionForm::Release(cookie) => {
                let retry = RetryPolicy::of_own(question.is_repeatable());
                self.ask_alone(backend, (Operation::Release, cookie), retry, received)
                    .await
            }
            QuestionForm::Remove(cookie) => {
                return self.remove(question, backend, cookie, received).await;
            }
            QuestionForm::Store { body, .. } => {
                return match body {
                    BodySource::Client => self.copy(question, backend, received).await,
                    BodySource::Held => self.store_held(question, backend, received).await,
                };
            }
        };
        Ok(self.hear(backend, heard))
    }

    /// What a decision has to know of what came of a question.
    fn hear(&mut self, backend: BackendIndex, heard: Result<SubrequestReply, Lost>) -> Heard {
        match heard {
            Ok(reply) => Heard::Reply(reply),
            Err(Lost { error, is_unsent }) => {
                let is_out_of_reach = error.is_out_of_reach();
                self.failed = Some(Unanswered::new(error, backend));
                Heard::Nothing(NoReply {
                    is_unsent,
                    is_out_of_reach,
                })
            }
        }
    }

    /// Sends the client's own request and holds the answer.
    async fn ask_as_client(
        &mut self,
        backend: BackendIndex,
        counter: Option<u32>,
        received: &mut Buffer,
    ) -> Result<SubrequestReply, Lost> {
        self.release_held();
        let head = self.exchange.head;
        let request = self.exchange.attempt.own.untag(received, counter);
        let mut body = self.body.take();
        let bytes = match &mut body {
            Some(body) => Some(body.behind(request.head(head.body_bytes))),
            None => request.whole(),
        };
        let bytes = bytes.ok_or(ProxyError::Unrepeatable)?;
        let call = Call {
            bytes,
            operation: head.operation(),
            body_bytes: head.body_bytes,
            retry: RetryPolicy::of(head.operation()),
        };
        let answered = self.caller().call(backend, call).await;
        self.body = body;
        self.hold(answered, backend, received)
    }

    /// Sends a request of our own that has no body.
    async fn ask_alone(
        &self,
        backend: BackendIndex,
        (operation, lock_cookie): (Operation, u32),
        retry: RetryPolicy,
        received: &Buffer,
    ) -> Result<SubrequestReply, Lost> {
        let mut bytes = Vec::new();
        wire::encode_request(
            &mut bytes,
            &self.request(operation, lock_cookie, received.filled()),
        );
        let call = Call {
            bytes: &bytes,
            operation,
            body_bytes: 0,
            retry,
        };
        Ok(self.send(backend, call).await?.0)
    }

    /// Gets the item, with a lock or without, for a request that asked for something else, and holds
    /// the answer.
    async fn fetch(
        &mut self,
        backend: BackendIndex,
        operation: Operation,
        received: &Buffer,
    ) -> Result<SubrequestReply, Lost> {
        self.release_held();
        let mut bytes = Vec::new();
        wire::encode_request(&mut bytes, &self.request(operation, 0, received.filled()));
        let call = Call {
            bytes: &bytes,
            operation,
            body_bytes: 0,
            retry: RetryPolicy::of(operation),
        };
        let answered = self.caller().call(backend, call).await;
        self.hold(answered, backend, received)
    }

    /// Holds an answer that may be passed on. The lock of one that is late is given back.
    fn hold(
        &mut self,
        answered: Result<SubrequestAnswer, CallFailed>,
        backend: BackendIndex,
        received: &Buffer,
    ) -> Result<SubrequestReply, Lost> {
        let answered = answered.map_err(|failed| {
            if let Some(left) = failed.left {
                self.tidy_at(backend, left.into(), received);
            }
            Lost {
                error: failed.error,
                is_unsent: failed.is_unsent,
            }
        })?;
        let seen = answered.seen();
        self.held = Some(Held { answered, backend });
        Ok(seen)
    }

    /// Removes what is behind, or the copy at the replica.
    async fn remove(
        &mut self,
        question: Question,
        backend: BackendIndex,
        lock_cookie: u32,
        received: &Buffer,
    ) -> Result<Heard, Stopped> {
        let under_way = self.begin_copy(question)?;
        let due_ms = self.limit(question);
        let what = (Operation::Remove, lock_cookie);
        let removed = self.ask_alone(
            backend,
            what,
            RetryPolicy::of_own(question.is_repeatable()),
            received,
        );
        let removed = removed.await;
        self.due_ms = due_ms;
        let heard = self.hear(backend, removed);
        self.copy_ended(under_way, heard.reply(), 0);
        Ok(heard)
    }

    /// Stores the item of the held answer: unless there is one, or at the replica.
    async fn store_held(
        &mut self,
        question: Question,
        backend: BackendIndex,
        received: &Buffer,
    ) -> Result<Heard, Stopped> {
        self.insert_status = None;
        let due_ms = self.limit(question);
        let stored = self.store_held_in_time(question, backend, received).await;
        self.due_ms = due_ms;
        stored
    }

    async fn store_held_in_time(
        &mut self,
        question: Question,
        backend: BackendIndex,
        received: &Buffer,
    ) -> Result<Heard, Stopped> {
        let held = self.held.as_ref();
        let timeout_minutes = held.map_or(0, |held| held.answered.timeout_minutes());
        let memory = match self.memory_of_held().await {
            Ok(memory) => memory,
            // The page goes on without a copy; the replica is not relied on any more.
            Err(_) if is_copy(question) && self.is_acquire() => {
                return Ok(Heard::Reply(SubrequestReply::Refused));
            }
            Err(crowded) => {
                let failed = self.stays_behind(crowded, received);
                return self.not_stored(question, failed);
            }
        };
        if let Err(failed) = self.keep_whole(question, memory, received).await {
            return self.not_stored(question, failed);
        }
        let under_way = self.begin_copy(question)?;
        let call = self.call_with_kept(RetryPolicy::of_own(question.is_repeatable()));
        let sent = self.send(backend, call).await;
        let seen = sent
            .as_ref()
            .map_or(SubrequestReply::Unknown, |sent| sent.0);
        self.copy_ended(under_way, seen, timeout_minutes);
        let is_restore = question.copy.is_some_and(CopyKind::is_restore);
        if is_restore && matches!(seen, SubrequestReply::Done { .. }) {
            self.exchange.view.shard(backend).restored.increment();
        }
        if is_copy(question) {
            return Ok(self.hear(backend, sent.map(|sent| sent.0)));
        }
        let sent = sent.or_else(|lost| match refusal(&lost.error) {
            Some(status) => Ok((SubrequestReply::Refused, status)),
            None => Err(lost),
        });
        if let Ok((_, status)) = sent {
            self.insert_status = Some(status);
        }
        Ok(self.hear(backend, sent.map(|sent| sent.0)))
    }

    /// What was to be stored could not be had whole, and nothing of it was sent. A move has failed; a
    /// request whose copy cannot be made goes no further.
    fn not_stored(&mut self, question: Question, failed: Unanswered) -> Result<Heard, Stopped> {
        match is_copy(question) {
            true => Err(Stopped::Failed(failed)),
            false => Ok(self.hear(failed.backend, Err(failed.error.into()))),
        }
    }

    /// Waits until there is room for the item of the held answer.
    async fn memory_of_held(&self) -> Result<Option<SemaphorePermit<'a>>, ProxyError> {
        let held = self.held.as_ref();
        let body_bytes = held.map_or(0, |held| held.answered.head.body_bytes);
        let taking = self.exchange.view.snapshot.moves.take(body_bytes);
        self.exchange.deadline.arm_at(self.due_ms);
        let memory = self.exchange.deadline.guard(taking).await;
        memory.map_err(|_| ProxyError::Crowded)
    }

    /// Reads the item of the held answer whole, as the body of what `question` is sent as. What the
    /// answer was is kept, to be passed on.
    async fn keep_whole(
        &mut self,
        question: Question,
        memory: Option<SemaphorePermit<'a>>,
        received: &Buffer,
    ) -> Result<(), Unanswered> {
        let Some(mut held) = self.held.take() else {
            let backend = self.exchange.backend;
            return Err(Unanswered::refused(Refusal::Unknown, backend));
        };
        let timeout_minutes = held.answered.timeout_minutes();
        let request = self.store_request(question, timeout_minutes, received);
        let mut bytes = Vec::new();
        let body_bytes = held.answered.head.body_bytes;
        wire::encode_request_head(&mut bytes, &request, body_bytes as usize);
        let from = held.backend;
        let caller = self.caller();
        let head = held.answered.copy_head(&caller);
        let read = held.answered.read_body(&caller, from, &mut bytes);
        read.await
            .map_err(|error| self.stays_behind(error, received))?;
        caller.finish(from, held.answered);
        self.kept = Some(Kept {
            head,
            bytes,
            body_bytes: body_bytes as usize,
            backend: from,
            _memory: memory,
        });
        Ok(())
    }

    /// The head of a PUT of our own.
    fn store_request<'r>(
        &self,
        question: Question,
        timeout_minutes: u32,
        received: &'r Buffer,
    ) -> Request<'r> {
        let (lock_cookie, unless_there) = match question.form {
            QuestionForm::Store {
                lock_cookie,
                unless_there,
                ..
            } => (lock_cookie, unless_there),
            _ => (0, false),
        };
        Request {
            timeout_minutes,
            extra_flags: unless_there.into(),
            ..self.request(Operation::Put, lock_cookie, received.filled())
        }
    }

    /// The PUT with the item that is kept.
    fn call_with_kept(&self, retry: RetryPolicy) -> Call<'_> {
        let kept = self.kept.as_ref();
        Call {
            bytes: kept.map_or(&[], |kept| &kept.bytes),
            operation: Operation::Put,
            body_bytes: kept.map_or(0, |kept| kept.body_bytes as u64),
            retry,
        }
    }

    /// The item could not be had whole in time. Nothing of it has been sent anywhere: it stays where
    /// it is, without the lock.
    fn stays_behind(&self, error: ProxyError, received: &Buffer) -> Unanswered {
        let behind = self.driver.lock_in_hand();
        self.tidy(behind, received);
        let at = behind.and_then(|behind| match behind {
            Subrequest::Release { at, .. } => self.exchange.view.snapshot.backend_at(at),
            _ => None,
        });
        Unanswered::new(error, at.unwrap_or(self.exchange.backend))
    }

    /// What came of it, and the status that said so.
    async fn send(
        &self,
        backend: BackendIndex,
        call: Call<'_>,
    ) -> Result<(SubrequestReply, u16), Lost> {
        let caller = self.caller();
        let answered = caller.call(backend, call).await;
        let answered = answered.map_err(
            |CallFailed {
                 error, is_unsent, ..
             }| Lost { error, is_unsent },
        )?;
        let (seen, status) = (answered.seen(), answered.head.status);
        caller.finish(backend, answered);
        Ok((seen, status))
    }

    async fn note_delete(&self, to: BackendId, received: &Buffer) -> SubrequestReply {
        let target = self.exchange.head.target.of(received.filled()).to_vec();
        let noting = self.exchange.service.shared.note_delete(to, target);
        self.exchange.deadline.arm_at(self.due_ms);
        match self.exchange.deadline.guard(noting).await {
            Ok(true) => SubrequestReply::Done {
                counter: 0,
                flag: false,
            },
            Ok(false) | Err(_) => SubrequestReply::Unknown,
        }
    }

    /// Ends the request.
    async fn end(mut self, end: RequestEnd, received: &mut Buffer) -> Result<Answered, Unanswered> {
        match end {
            RequestEnd::Forward { at, counter } => self.forward(at, counter, received).await,
            RequestEnd::Pass { clear_flag, behind } => {
                self.tidy(behind, received);
                self.pass(clear_flag, received).await
            }
            RequestEnd::Fail {
                reason,
                behind,
                may_repeat,
            } => {
                self.tidy(behind, received);
                let failed = self.refused(reason);
                Err(Unanswered {
                    may_repeat,
                    ..failed
                })
            }
        }
    }

    /// Hands the rest over to an ordinary exchange.
    async fn forward(
        mut self,
        at: BackendId,
        counter: Option<u32>,
        received: &mut Buffer,
    ) -> Result<Answered, Unanswered> {
        self.exchange.backend = self.backend(at)?;
        self.exchange.may_queue = self.driver.is_untouched();
        match self.exchange.run(received, counter, self.due_ms).await {
            Ok(Forwarded::PassedOn) => Ok(self.exchange.answered()),
            Ok(Forwarded::Queued) => Ok(self.exchange.queued()),
            Err(failed) => {
                let may_repeat = failed.may_repeat && self.driver.may_begin_anew();
                let failed = RunFailed {
                    may_repeat,
                    ..failed
                };
                Err(self.exchange.unanswered(failed))
            }
        }
    }

    /// Whether the request waits for the lock that the held answer speaks of.
    fn joins_queue(&mut self, end: RequestEnd) -> bool {
        let RequestEnd::Pass { behind: None, .. } = end else {
            return false;
        };
        self.exchange.may_queue = self.driver.is_untouched();
        match &self.held {
            Some(Held { answered, backend }) if answered.head.status == 423 => {
                self.exchange.backend = *backend;
                let (head, bytes) = (&answered.head, answered.bytes.filled());
                self.exchange.joins_queue(head, bytes)
            }
            _ => false,
        }
    }

    /// Passes the held answer on.
    async fn pass(
        mut self,
        clear_flag: bool,
        received: &mut Buffer,
    ) -> Result<Answered, Unanswered> {
        let (backend, passed) = match (self.held.take(), self.kept.take()) {
            (Some(Held { answered, backend }), _) => {
                self.exchange.backend = backend;
                (
                    backend,
                    self.pass_answer(answered, clear_flag, received).await,
                )
            }
            (None, Some(kept)) => {
                self.exchange.backend = kept.backend;
                (kept.backend, self.pass_kept(kept, received).await)
            }
            (None, None) => return Err(self.refused(Refusal::Unknown)),
        };
        passed.map_err(|error| Unanswered::new(error, backend))?;
        // A part of it may have come past this buffer.
        let came = received.len() as u64;
        received.consume(self.exchange.attempt.own.bytes().min(came) as usize);
        Ok(self.exchange.answered())
    }

    async fn pass_answer(
        &mut self,
        answered: SubrequestAnswer,
        clear_flag: bool,
        received: &Buffer,
    ) -> Result<(), ProxyError> {
        let SubrequestAnswer {
            conn,
            mut bytes,
            mut head,
            keeps_connection,
            ..
        } = answered;
        if let Some(flags) = head.action_flags.filter(|_| clear_flag) {
            bytes.remove_line(flags);
            // What follows the line has moved.
            head = self.parse_again(&bytes)?;
        }
        let request = Some(received);
        let remaining = self
            .exchange
            .remaining(&head, keeps_connection, &mut bytes, request)?;
        let mut conn = Some(conn);
        let passed_on = self
            .exchange
            .pass_on(&mut conn, &mut bytes, remaining, self.due_ms);
        passed_on
            .await
            .inspect_err(|_| self.exchange.take_back(remaining, request))
    }

    /// The answer with which the item was to be moved, as that of the place where it stays. The lock
    /// that a read did not ask for is not its business.
    async fn pass_kept(&mut self, kept: Kept<'_>, received: &Buffer) -> Result<(), ProxyError> {
        let Kept {
            mut head, bytes, ..
        } = kept;
        let mut parsed = self.parse_again(&head)?;
        let is_acquire = self.is_acquire();
        if let Some(cookie) = parsed.lock_cookie.filter(|_| !is_acquire) {
            head.remove_line(cookie);
            parsed = self.parse_again(&head)?;
        }
        let request = Some(received);
        // The connection that it came over is free already.
        let keeps_connection = false;
        let remaining = self
            .exchange
            .remaining(&parsed, keeps_connection, &mut head, request)?;
        let body = &bytes[bytes.len() - kept.body_bytes..];
        let passed_on = self.exchange.pass_on_whole(&head, body, remaining).await;
        passed_on.inspect_err(|_| self.exchange.take_back(remaining, request))
    }

    fn parse_again(&self, bytes: &Buffer) -> Result<ResponseHead, ProxyError> {
        let max_head_bytes = self.exchange.view.snapshot.head_limits.max_head_bytes;
        let is_head = self.exchange.head.operation() == Operation::Touch;
        match ResponseHead::parse(bytes.filled(), max_head_bytes, is_head) {
            Ok(Parsed::Complete(head)) => Ok(head),
            Ok(Parsed::Partial) => Err(ProxyError::Garbage(WireError::BadHeaderLine)),
            Err(error) => Err(ProxyError::Garbage(error)),
        }
    }

    /// Sends what nobody waits for.
    fn tidy(&self, behind: Option<Subrequest>, received: &Buffer) {
        let (at, untidy) = match behind {
            Some(Subrequest::Release { at, counter }) => (at, Untidy::Lock(counter)),
            Some(Subrequest::Remove { at, counter }) => {
                self.count_move();
                (at, Untidy::Moved(counter))
            }
            Some(behind) => {
                if let Some(keeping) = Keeping::of(behind) {
                    self.keep_copy(keeping, received);
                }
                return;
            }
            None => return,
        };
        if let Ok(backend) = self.backend(at) {
            self.tidy_at(backend, untidy, received);
        }
    }

    fn keep_copy(&self, keeping: Keeping, received: &Buffer) {
        let Exchange {
            service,
            view,
            subject,
            head,
            ..
        } = &self.exchange;
        let target = head.target.of(received.filled());
        refresh::keep_copy(service, view, subject, target, keeping);
    }

    fn tidy_at(&self, backend: BackendIndex, untidy: Untidy, received: &Buffer) {
        let target = self.exchange.head.target.of(received.filled());
        cleanup::tidy(
            self.exchange.service,
            self.exchange.view,
            backend,
            target,
            untidy,
        );
    }

    /// Counts the move that fails with this end of the request.
    fn count_failed_move(&self, end: RequestEnd) {
        let Some(moving) = self.driver.failed_move(&end) else {
            return;
        };
        let metrics = &self.exchange.service.metrics;
        if moving.is_stored {
            return metrics.failed_moves(MoveStep::Take).increment();
        }
        metrics.failed_moves(MoveStep::Insert).increment();
        let ItemMove {
            from, to, is_gone, ..
        } = moving;
        let view = self.exchange.view;
        if let (Ok(old), Ok(new)) = (self.backend(from), self.backend(to)) {
            let status = match is_gone {
                true => Some(404),
                false => self.insert_status,
            };
            let from_metrics = &view.backend(old).metrics;
            view.shard(new)
                .count_failed_move(from_metrics, from, status);
        }
    }

    /// The held answer is the one of the place the item has just been moved to.
    fn count_move(&self) {
        if let (Some(held), Some(ItemMove { from, .. })) = (&self.held, self.driver.moving())
            && let Ok(old) = self.backend(from)
        {
            let view = self.exchange.view;
            let from_metrics = &view.backend(old).metrics;
            view.shard(held.backend).count_move(from_metrics, from);
        }
    }

    /// Lets go of an answer that will not be passed on.
    fn release_held(&mut self) {
        self.kept = None;
        if let Some(Held { answered, backend }) = self.held.take() {
            self.caller().finish(backend, answered);
        }
    }

    /// Why there is no answer: the question that failed says more than what followed from it.
    fn refused(&mut self, reason: Refusal) -> Unanswered {
        let backend = self.exchange.backend;
        self.failed
            .take()
            .filter(|_| reason == Refusal::Unknown)
            .unwrap_or_else(|| Unanswered::refused(reason, backend))
    }

    fn is_acquire(&self) -> bool {
        self.exchange.head.operation() == Operation::Acquire
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            service: self.exchange.service,
            view: self.exchange.view,
            deadline: self.exchange.deadline,
            due_ms: self.due_ms,
            waited: &self.exchange.attempt.progress.waited,
        }
    }

    fn backend(&self, at: BackendId) -> Result<BackendIndex, Unanswered> {
        let known = self.exchange.view.snapshot.backend_at(at);
        known.ok_or_else(|| Unanswered::refused(Refusal::Unknown, self.exchange.backend))
    }

    fn request<'r>(
        &self,
        operation: Operation,
        lock_cookie: u32,
        received: &'r [u8],
    ) -> Request<'r> {
        Request {
            operation,
            target: self.exchange.head.target.of(received),
            lock_cookie,
            timeout_minutes: 0,
            extra_flags: 0,
            body: &[],
        }
    }
}

/// Whether it is a copy for the replica, and not the move of an item.
fn is_copy(question: Question) -> bool {
    question.copy == Some(CopyKind::Item)
}

/// The status with which no state server refuses to store the copy of a moved session, but something
/// else does: nothing else is taken from that answer. Not those of something in between that does
/// not know what has become of a request (408, 500, 502 to 504).
fn refusal(error: &ProxyError) -> Option<u16> {
    match error {
        ProxyError::Unfit(Unfit::Unversioned) => Some(404),
        ProxyError::Unfit(Unfit::Status(status)) => {
            let is_refusal = matches!(status, 401..=407 | 409..=499 | 501 | 505 | 507);
            is_refusal.then_some(*status)
        }
        _ => None,
    }
}
