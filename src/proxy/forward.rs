//! One request against one backend.

use std::rc::Rc;
use std::time::Duration;

use super::attempt::Attempt;
use super::cleanup;
use super::error::{ProxyError, Unanswered};
use super::farm_signs::PATIENCE;
use super::lock_wait::LockWait;
use super::request_log::{Answered, Subject};
use super::service::ProxyService;
use super::untidy::Untidy;
use super::view::View;
use crate::backend::{
    AskFailed, BodyStream, BrokenReason, ConnectError, Outgoing, RetryPolicy, Unsent,
};
use crate::handover::{BackendId, NoReply};
use crate::metrics::{BackendShard, RequestOutcome, WebServerConnection};
use crate::net::{self, Buffer, Conn, Deadline, IoError};
use crate::route::BackendIndex;
use crate::wire::{self, Digits, Operation, RequestHead, ResponseHead, Unfit, WireError};

/// A client that takes so much in its time is not stalled.
const PART_BYTES: usize = 64 * 1024;

/// A request with a whole head, its route, and the connection that waits for the answer.
pub(super) struct Exchange<'a> {
    pub(super) service: &'a Rc<ProxyService>,
    pub(super) view: &'a Rc<View>,
    pub(super) client: &'a mut Conn,
    pub(super) web_server: &'a WebServerConnection,
    pub(super) deadline: &'a Deadline,
    pub(super) head: &'a RequestHead,
    pub(super) subject: &'a Subject,
    pub(super) backend: BackendIndex,
    pub(super) attempt: &'a mut Attempt,
    /// The server that `backend` stands in for.
    pub(super) away: Option<BackendId>,
    /// Whether the request may wait for the lock of its session: it has changed nothing anywhere.
    pub(super) may_queue: bool,
}

/// What has become of the client's own request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarded {
    /// Its answer was passed on.
    PassedOn,
    /// The session is locked, and the request has a place in the queue for the lock.
    Queued,
}

/// The client's own request got no answer that could be passed on.
pub(super) struct RunFailed {
    pub(super) error: ProxyError,
    /// Nothing has been done for it, or nothing that harms when it is done twice.
    pub(super) may_repeat: bool,
}

impl RunFailed {
    /// No byte of it was sent.
    fn untouched(error: ProxyError) -> Self {
        Self {
            error,
            may_repeat: true,
        }
    }
}

impl From<ProxyError> for RunFailed {
    fn from(error: ProxyError) -> Self {
        Self {
            error,
            may_repeat: false,
        }
    }
}

/// What is left of an answer to pass on, and what follows from its head.
#[derive(Clone, Copy)]
pub(super) struct Remaining {
    bytes: u64,
    /// Its connection may serve the next request.
    keeps_connection: bool,
    /// Nothing that belongs to it can follow.
    is_alone: bool,
    /// The lock that the client will hold once it has all of it.
    lock: Option<u32>,
}

impl Exchange<'_> {
    /// Forwards the client's request at the start of `received`, under the lock `counter` of the
    /// backend if one is given, and relays its answer, which is due at `due_ms` of the worker's clock.
    /// An error says whether the request may be sent again, nothing having been done for it.
    /// On success `received` holds what came behind the request.
    pub(super) async fn run(
        &mut self,
        received: &mut Buffer,
        counter: Option<u32>,
        due_ms: u64,
    ) -> Result<Forwarded, RunFailed> {
        if self.view.pool(self.backend).is_down() {
            return Err(RunFailed::untouched(ProxyError::Down));
        }
        let operation = self.subject.operation;
        let mut request = self.attempt.own.untag(received, counter);
        let body = BodyStream {
            from: self.client,
            rest: 0,
            stall: self.view.snapshot.timeouts.client_stall,
            received_bytes: &self.service.metrics.received_bytes,
        };
        let mut outgoing = Outgoing {
            operation,
            content: request.content(body),
            body_bytes: self.head.body_bytes,
            retry: RetryPolicy::of(operation),
        };
        let upstream = self.view.upstream(
            &self.service.worker,
            self.backend,
            self.deadline,
            due_ms,
            &self.attempt.progress.waited,
        );
        let mut reply = match upstream.ask(&mut outgoing).await {
            Ok(reply) => reply,
            Err(failed) => return Err(self.failed(failed, received)),
        };
        if reply.head.status == 423 && self.joins_queue(&reply.head, reply.bytes.filled()) {
            if reply.is_whole() && reply.keeps_connection {
                self.keep(Some(reply.conn));
            }
            return Ok(Forwarded::Queued);
        }
        let is_gone = reply.is_request_gone;
        let request = Some(&*received).filter(|_| !is_gone);
        let keeps_connection = reply.keeps_connection;
        let remaining = self.remaining(&reply.head, keeps_connection, &mut reply.bytes, request)?;
        let mut conn = Some(reply.conn);
        let passed_on = self.pass_on(&mut conn, &mut reply.bytes, remaining, reply.due_ms);
        if let Err(error) = passed_on.await {
            self.take_back(remaining, Some(&*received).filter(|_| !is_gone));
            return Err(error.into());
        }
        if !is_gone {
            received.consume(self.attempt.own.bytes() as usize);
        }
        Ok(Forwarded::PassedOn)
    }

    /// Whether the request, whose answer is 423, waits for the lock instead of passing that on.
    #[cold]
    pub(super) fn joins_queue(&mut self, head: &ResponseHead, answer: &[u8]) -> bool {
        let asks_for_contents =
            matches!(self.subject.operation, Operation::Acquire | Operation::Get);
        if !asks_for_contents {
            return false;
        }
        if self.attempt.progress.lock_wait.is_none() {
            self.service.found_locked(self.subject);
        }
        if self.view.snapshot.lock_wait_ms == 0 {
            return false;
        }
        let waits = self.may_queue && self.waits_for_lock(head, answer);
        if !waits {
            self.web_server.polls(self.deadline.now_ms());
        }
        waits
    }

    /// Whether it goes on waiting for the lock, or begins to.
    fn waits_for_lock(&mut self, head: &ResponseHead, answer: &[u8]) -> bool {
        if let Some(lock_wait) = &mut self.attempt.progress.lock_wait {
            return lock_wait.found_locked();
        }
        if self.head.body_bytes > 0 {
            return false;
        }
        let age = head.lock_age.and_then(|age| wire::decimal(age.of(answer)));
        let wait_ms = self.view.snapshot.lock_wait_ms;
        let terms = self
            .service
            .lock_terms(self.subject, self.web_server, wait_ms);
        self.attempt.progress.lock_wait = LockWait::begin(&terms, age);
        self.attempt.progress.lock_wait.is_some()
    }

    /// The request once more, which has a place in the queue for the lock.
    pub(super) fn queued(&self) -> Answered {
        Answered {
            backend: self.backend,
            outcome: RequestOutcome::Locked,
            is_queued: true,
        }
    }

    /// Why there is no answer; the lock that nobody knows of is given back.
    #[cold]
    fn failed(&self, failed: AskFailed, received: &Buffer) -> RunFailed {
        let is_down = self.view.pool(self.backend).is_down();
        let may_repeat = may_repeat(&failed, self.head, is_down);
        let (error, left) = ProxyError::of(failed, is_down);
        if let Some(left) = left {
            self.tidy(left.into(), Some(received));
        }
        RunFailed { error, may_repeat }
    }

    /// The request whose answer was passed on.
    pub(super) fn answered(&self) -> Answered {
        Answered {
            backend: self.backend,
            outcome: self.attempt.progress.outcome,
            is_queued: false,
        }
    }

    /// The request that this exchange left unanswered.
    #[cold]
    pub(super) fn unanswered(&self, failed: RunFailed) -> Unanswered {
        Unanswered {
            error: failed.error,
            backend: self.backend,
            may_repeat: failed.may_repeat,
        }
    }

    pub(super) fn shard(&self) -> &BackendShard {
        self.view.shard(self.backend)
    }

    /// Passes the answer on, a buffer at a time; `answer` holds its head and what came with it.
    pub(super) async fn pass_on(
        &mut self,
        conn: &mut Option<Conn>,
        answer: &mut Buffer,
        mut remaining: Remaining,
        mut due_ms: u64,
    ) -> Result<(), ProxyError> {
        loop {
            let part = remaining.bytes.min(answer.len() as u64);
            remaining.bytes -= part;
            if remaining.bytes == 0 {
                if part == answer.len() as u64 {
                    // Whole and nothing behind it: free for the next request before the client has
                    // taken a byte.
                    self.keep(conn.take().filter(|_| remaining.keeps_connection));
                } else if remaining.is_alone
                    && wire::begins_answer(&answer.filled()[part as usize..])
                {
                    return Err(self.two_answers());
                }
            }
            // ASP.NET never half-closes: who stopped sending has stopped listening, although the
            // kernel would still take the bytes.
            if (remaining.lock.is_some() || self.is_late()) && self.client.has_ended() {
                if remaining.lock.is_some() {
                    return Err(ProxyError::Client(IoError::Closed));
                }
                self.service.abandoned(self.subject, self.web_server);
            }
            let stalled_from_ms = self.deadline.now_ms();
            self.arm(self.view.snapshot.timeouts.client_stall);
            let bytes = &answer.filled()[..part as usize];
            let written = self.client.write_all(bytes, &mut 0, self.deadline).await;
            written.map_err(|error| self.cut_short(ProxyError::Client(error)))?;
            self.service.metrics.sent_bytes.add(part);
            self.note_overhead();
            let (1.., Some(conn)) = (remaining.bytes, &mut *conn) else {
                return Ok(());
            };
            answer.clear();
            // The backend's time does not run while the client is the slow one.
            due_ms += self.deadline.now_ms() - stalled_from_ms;
            self.view.pool(self.backend).arm(self.deadline, due_ms);
            let more = conn.read_more(answer, self.deadline).await;
            more.map_err(|error| self.cut_short(ProxyError::Answer(error)))?;
            self.shard().received_bytes.add(answer.len() as u64);
        }
    }

    /// Passes an answer on that is there whole.
    pub(super) async fn pass_on_whole(
        &mut self,
        head: &Buffer,
        body: &[u8],
        remaining: Remaining,
    ) -> Result<(), ProxyError> {
        if remaining.lock.is_some() && self.client.has_ended() {
            return Err(ProxyError::Client(IoError::Closed));
        }
        let mut head = head.filled();
        let mut parts = body.chunks(PART_BYTES).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            self.arm(self.view.snapshot.timeouts.client_stall);
            let mut sent_bytes = 0;
            let written = self
                .client
                .write_two(head, part, &mut sent_bytes, self.deadline);
            let written = written.await;
            written.map_err(|error| self.cut_short(ProxyError::Client(error)))?;
            self.service.metrics.sent_bytes.add(sent_bytes);
            self.note_overhead();
            if parts.peek().is_none() {
                return Ok(());
            }
            head = &[];
        }
    }

    /// Limits a step of passing the answer on. What a backend has answered that is down by then is
    /// passed on no more: others may have gone on without it.
    #[inline]
    fn arm(&self, limit: Duration) {
        let due_ms = self.deadline.after_ms(limit);
        self.view.pool(self.backend).arm(self.deadline, due_ms);
    }

    /// Why an answer was not passed on whole.
    #[cold]
    fn cut_short(&self, error: ProxyError) -> ProxyError {
        let is_time_up = matches!(
            error,
            ProxyError::Client(IoError::TimedOut) | ProxyError::Answer(IoError::TimedOut)
        );
        match is_time_up && self.view.pool(self.backend).is_down() {
            true => ProxyError::Down,
            false => error,
        }
    }

    #[cold]
    fn two_answers(&self) -> ProxyError {
        let upstream = self.view.upstream(
            &self.service.worker,
            self.backend,
            self.deadline,
            0,
            &self.attempt.progress.waited,
        );
        upstream.note_unfit(Unfit::Two);
        Unfit::Two.into()
    }

    /// Whether the client may have lost its patience before there was anything for it.
    fn is_late(&self) -> bool {
        let progress = &self.attempt.progress;
        progress.waited.ns() >= PATIENCE.as_nanos() as u64 && !progress.has_overhead
    }

    /// Takes note of the time that was spent here, once per request.
    fn note_overhead(&mut self) {
        if !std::mem::replace(&mut self.attempt.progress.has_overhead, true) {
            let taken_ns = self.subject.started.elapsed_ns();
            let overhead_ns = taken_ns.saturating_sub(self.attempt.progress.waited.ns());
            self.service.metrics.overhead.observe_ns(overhead_ns);
        }
    }

    /// Tags the lock cookie of a whole head; the body it announces must be within the limit. The lock
    /// of an answer that cannot be passed on is given back. `request` starts with the request's head,
    /// if it is still there.
    pub(super) fn remaining(
        &mut self,
        head: &ResponseHead,
        keeps_connection: bool,
        answer: &mut Buffer,
        request: Option<&Buffer>,
    ) -> Result<Remaining, ProxyError> {
        let operation = self.subject.operation;
        let counter = head.lock_counter(answer.filled());
        let takes_lock = operation == Operation::Acquire && head.status == 200;
        let lock = counter.filter(|_| takes_lock);
        let max_bytes = self.view.snapshot.head_limits.max_body_bytes;
        if head.body_bytes > max_bytes {
            self.give_back(lock, request);
            return Err(ProxyError::Garbage(WireError::BodyTooLarge { max_bytes }));
        }
        if let Some(lock_wait) = &mut self.attempt.progress.lock_wait {
            // Before its client can release what it has got.
            lock_wait.is_over(takes_lock);
        }
        self.observe(head, answer.filled());
        self.attempt.progress.outcome = RequestOutcome::of_status(head.status);
        let before = answer.len() as u64;
        self.tag(head, counter, answer)
            .inspect_err(|_| self.give_back(lock, request))?;
        let after = answer.len() as u64;
        if lock.is_some() {
            // Before its client can give it up.
            self.web_server.takes_lock(self.deadline.now_ms());
        }
        Ok(Remaining {
            bytes: head.head_bytes as u64 + head.body_bytes + after - before,
            keeps_connection,
            is_alone: head.announced_bytes == head.body_bytes,
            lock,
        })
    }

    /// Writes the backend's number into the lock cookie, so that the client's next write finds it.
    fn tag(
        &self,
        head: &ResponseHead,
        counter: Option<u32>,
        answer: &mut Buffer,
    ) -> Result<(), ProxyError> {
        let (Some(value), Some(counter)) = (head.lock_cookie, counter) else {
            return Ok(());
        };
        let cookie = self.view.backend(self.backend).backend_id.tag(counter)?;
        let digits = Digits::of(cookie.into());
        answer
            .replace_value(value, digits.as_bytes())
            .map_err(|_no_room| ProxyError::Garbage(WireError::HeadTooLarge { max_bytes: 0 }))
    }

    fn keep(&self, conn: Option<Conn>) {
        if let Some(conn) = conn {
            let now_ms = self.deadline.now_ms();
            self.view.pool(self.backend).put(conn, now_ms);
        }
    }

    /// Gives back the lock of an answer whose client did not get all of it.
    #[cold]
    pub(super) fn take_back(&self, remaining: Remaining, request: Option<&Buffer>) {
        if remaining.lock.is_some() {
            self.web_server.locks_given_up.increment();
        }
        self.give_back(remaining.lock, request);
    }

    /// Gives back the lock of an answer that cannot be passed on.
    fn give_back(&self, lock: Option<u32>, request: Option<&Buffer>) {
        if let Some(cookie) = lock {
            self.tidy(Untidy::Lock(cookie), request);
        }
    }

    /// `request` is gone only if it had a body, which no real acquire has.
    fn tidy(&self, untidy: Untidy, request: Option<&Buffer>) {
        if let Some(request) = request {
            let target = self.head.target.of(request.filled());
            cleanup::tidy(self.service, self.view, self.backend, target, untidy);
        }
    }
}

/// Whether a request that its backend has not answered may be sent again later, there or elsewhere,
/// because the backend cannot be reached. This proxy being out of ports is no reason to wait.
fn may_repeat(failed: &AskFailed, head: &RequestHead, is_down: bool) -> bool {
    let is_unsent = match failed {
        AskFailed::Unsent(Unsent::Connect(ConnectError::Shortage(_))) => false,
        AskFailed::Unsent(Unsent::Send(IoError::Broken(error))) => !net::is_shortage(error),
        AskFailed::Unsent(_) => true,
        AskFailed::Broken(_) => false,
    };
    let is_out_of_reach = match failed {
        AskFailed::Unsent(_) => is_unsent,
        AskFailed::Broken(broken) => matches!(
            broken.reason,
            BrokenReason::Send(_) | BrokenReason::Answer(_)
        ),
    };
    let failed = NoReply {
        is_unsent,
        is_out_of_reach,
    };
    // What was streamed is not there any more.
    let is_repeatable = head.body_bytes == 0 && head.operation().is_repeatable();
    failed.may_begin_anew(is_down, is_repeatable)
}
