//! One request against one backend.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::cleanup;
use super::error::{ProxyError, Unanswered};
use super::request_log::{Answered, Subject};
use super::service::ProxyService;
use super::tagged::TaggedRequest;
use super::untidy::Untidy;
use super::view::View;
use crate::backend::{AskFailed, BodyStream, Outgoing, RetryPolicy};
use crate::handover::{BackendId, ClientRequest, Cookie, NO_LOCK};
use crate::metrics::{BackendShard, RequestOutcome};
use crate::net::{Buffer, Conn, Deadline, IoError};
use crate::route::BackendIndex;
use crate::usage::{self, SampledSession};
use crate::wire::{self, Digits, Operation, RequestHead, ResponseHead, Span, Unfit, WireError};

/// A client that takes so much in its time is not stalled.
const PART_BYTES: usize = 64 * 1024;

/// A request with a whole head, its route, and the connection that waits for the answer.
pub(super) struct Exchange<'a> {
    pub(super) service: &'a Rc<ProxyService>,
    pub(super) view: &'a Rc<View>,
    pub(super) client: &'a mut Conn,
    pub(super) deadline: &'a Deadline,
    pub(super) head: &'a RequestHead,
    pub(super) subject: &'a Subject,
    pub(super) backend: BackendIndex,
    pub(super) own: TaggedRequest,
    /// The server that `backend` stands in for.
    pub(super) away: Option<BackendId>,
    pub(super) progress: RequestProgress,
    /// Whether and how the account of sessions follows it.
    pub(super) sample: SampledSession,
}

/// How far a request is, for its metrics.
#[derive(Debug)]
pub(super) struct RequestProgress {
    /// How much of the time since its head was there was spent waiting for backends.
    pub(super) waited: Cell<Duration>,
    /// Whether the time that was not is known.
    has_overhead: bool,
    /// Of the answer that is passed on.
    outcome: RequestOutcome,
    /// What a PUT asks for; 0 without a number that can be one.
    pub(super) timeout_minutes: u32,
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
    pub(super) lock: Option<u32>,
}

impl Default for RequestProgress {
    fn default() -> Self {
        Self {
            waited: Cell::default(),
            has_overhead: false,
            outcome: RequestOutcome::Failed,
            timeout_minutes: 0,
        }
    }
}

impl Exchange<'_> {
    /// What the request at the start of `received` asks for, as far as the handover depends on it.
    /// One that is none of the six operations is answered alike everywhere, as a look is.
    pub(super) fn request(&mut self, received: &[u8]) -> ClientRequest {
        let number = |value: Option<Span>| value.and_then(|value| wire::signed(value.of(received)));
        let cookie = || {
            let cookie =
                number(self.head.lock_cookie).and_then(|cookie| u32::try_from(cookie).ok());
            match Cookie::from_client(cookie.unwrap_or(0)) {
                // The tag of a backend that is gone: its lock is gone, too.
                Cookie::Tagged { backend_id, .. }
                    if self.view.snapshot.backend_at(backend_id).is_none() =>
                {
                    Cookie::Untagged(NO_LOCK)
                }
                cookie => cookie,
            }
        };
        match self.head.operation() {
            Operation::Get => ClientRequest::Read,
            Operation::Acquire => ClientRequest::Acquire,
            Operation::Release => ClientRequest::Release(cookie()),
            Operation::Remove => ClientRequest::Remove(cookie()),
            Operation::Touch | Operation::Unknown => ClientRequest::Touch,
            Operation::Put => {
                let timeout = number(self.head.timeout);
                let minutes = timeout.and_then(|minutes| u32::try_from(minutes).ok());
                self.progress.timeout_minutes = minutes.unwrap_or(0);
                let is_create = number(self.head.extra_flags).is_some_and(|flags| flags & 1 == 1);
                // The request may be gone when its answer is there.
                if self.sample.is_followed() {
                    self.sample = self
                        .sample
                        .of_put(usage::minutes_or_default(timeout), is_create);
                }
                if is_create {
                    ClientRequest::Create
                } else {
                    ClientRequest::Put(cookie())
                }
            }
        }
    }

    /// Forwards the client's request at the start of `received`, under the lock `counter` of the
    /// backend if one is given, and relays its answer, which is due at `due_ms` of the worker's clock.
    /// On success `received` holds what came behind the request.
    pub(super) async fn run(
        &mut self,
        received: &mut Buffer,
        counter: Option<u32>,
        due_ms: u64,
    ) -> Result<(), ProxyError> {
        if !self.view.backend(self.backend).up {
            return Err(ProxyError::Down);
        }
        let operation = self.head.operation();
        let mut request = self.own.untag(received, counter);
        let body = BodyStream {
            from: self.client,
            rest: 0,
            stall: self.view.snapshot.timeouts.client_stall,
            received_bytes: &self.service.metrics.received_bytes,
        };
        let outgoing = Outgoing {
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
            &self.progress.waited,
        );
        let asked = upstream.ask(outgoing).await;
        let reply = asked.map_err(|failed| self.failed(failed, received))?;
        let (conn, mut answer, due_ms) = (reply.conn, reply.bytes, reply.due_ms);
        let is_gone = reply.is_request_gone;
        let request = Some(&*received).filter(|_| !is_gone);
        let remaining =
            self.remaining(&reply.head, reply.keeps_connection, &mut answer, request)?;
        let mut conn = Some(conn);
        let passed_on = self.pass_on(&mut conn, &mut answer, remaining, due_ms);
        if let Err(error) = passed_on.await {
            self.give_back(remaining.lock, Some(&*received).filter(|_| !is_gone));
            return Err(error);
        }
        if !is_gone {
            received.consume(self.own.bytes() as usize);
        }
        Ok(())
    }

    /// Why there is no answer; the lock that nobody knows of is given back.
    #[cold]
    fn failed(&self, failed: AskFailed, received: &Buffer) -> ProxyError {
        let (error, left) = ProxyError::of(failed);
        if let Some(left) = left {
            self.tidy(left.into(), Some(received));
        }
        error
    }

    /// The request whose answer was passed on.
    pub(super) fn answered(&self) -> Answered {
        Answered {
            backend: self.backend,
            outcome: self.progress.outcome,
        }
    }

    /// The request that this exchange left unanswered.
    pub(super) fn unanswered(&self, error: ProxyError) -> Unanswered {
        Unanswered {
            error,
            backend: self.backend,
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
            if remaining.lock.is_some() && self.client.has_ended() {
                return Err(ProxyError::Client(IoError::Closed));
            }
            let stalled_from_ms = self.deadline.now_ms();
            self.deadline.arm(self.view.snapshot.timeouts.client_stall);
            let bytes = &answer.filled()[..part as usize];
            let written = self.client.write_all(bytes, &mut 0, self.deadline).await;
            written.map_err(ProxyError::Client)?;
            self.service.metrics.sent_bytes.add(part);
            self.note_overhead();
            let (1.., Some(conn)) = (remaining.bytes, &mut *conn) else {
                return Ok(());
            };
            answer.clear();
            // The backend's time does not run while the client is the slow one.
            due_ms += self.deadline.now_ms() - stalled_from_ms;
            self.deadline.arm_at(due_ms);
            let more = conn.read_more(answer, self.deadline).await;
            more.map_err(ProxyError::Answer)?;
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
            self.deadline.arm(self.view.snapshot.timeouts.client_stall);
            let mut sent_bytes = 0;
            let written = self
                .client
                .write_two(head, part, &mut sent_bytes, self.deadline);
            written.await.map_err(ProxyError::Client)?;
            self.service.metrics.sent_bytes.add(sent_bytes);
            self.note_overhead();
            if parts.peek().is_none() {
                return Ok(());
            }
            head = &[];
        }
    }

    #[cold]
    fn two_answers(&self) -> ProxyError {
        let upstream = self.view.upstream(
            &self.service.worker,
            self.backend,
            self.deadline,
            0,
            &self.progress.waited,
        );
        upstream.note_unfit(Unfit::Two);
        Unfit::Two.into()
    }

    /// Takes note of the time that was spent here, once per request.
    fn note_overhead(&mut self) {
        if !std::mem::replace(&mut self.progress.has_overhead, true) {
            let taken = self.subject.started.elapsed();
            let overhead = taken.saturating_sub(self.progress.waited.get());
            self.service.metrics.overhead.observe(overhead);
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
        let operation = self.head.operation();
        let counter = head.lock_counter(answer.filled());
        let takes_lock = operation == Operation::Acquire && head.status == 200;
        let lock = counter.filter(|_| takes_lock);
        let max_bytes = self.view.snapshot.head_limits.max_body_bytes;
        if head.body_bytes > max_bytes {
            self.give_back(lock, request);
            return Err(ProxyError::Garbage(WireError::BodyTooLarge { max_bytes }));
        }
        self.observe(head, answer.filled());
        self.progress.outcome = RequestOutcome::of_status(head.status);
        let before = answer.len() as u64;
        self.tag(head, counter, answer)
            .inspect_err(|_| self.give_back(lock, request))?;
        let after = answer.len() as u64;
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
    pub(super) fn give_back(&self, lock: Option<u32>, request: Option<&Buffer>) {
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
