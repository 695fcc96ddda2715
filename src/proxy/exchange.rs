//! One request against one backend.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::call;
use super::error::{ProxyError, Unanswered};
use super::service::{ProxyService, View};
use super::tidy::{self, Untidy};
use super::trail::Subject;
use crate::account::Sample;
use crate::backend::ConnectError;
use crate::handover::{Cookie, NO_LOCK, Place, Request};
use crate::metrics::{BackendShard, Outcome};
use crate::net::{Buffer, Conn, Deadline, IoError, MIN_PROGRESS_BYTES, Moment};
use crate::route::BackendIndex;
use crate::wire::{self, Digits, Method, Operation, Parsed, RequestHead, ResponseHead, Span};
use crate::wire::{Unfit, WireError};

/// From here on the sessions that are being written would drive each other out of the caches.
const LARGE_BYTES: u64 = 8 * 1024;

/// A request with a whole head, its route, and the connection that waits for the answer.
pub(super) struct Exchange<'a> {
    pub(super) service: &'a Rc<ProxyService>,
    pub(super) view: &'a Rc<View>,
    pub(super) client: &'a mut Conn,
    pub(super) deadline: &'a Deadline,
    pub(super) head: &'a RequestHead,
    pub(super) subject: &'a Subject,
    pub(super) backend: BackendIndex,
    /// The lock cookie to send in place of the client's tagged one.
    pub(super) counter: Option<u32>,
    /// The server that `backend` stands in for.
    pub(super) away: Option<Place>,
    pub(super) progress: Progress,
    /// Whether and how the account of sessions follows it.
    pub(super) sample: Sample,
}

/// How far a request is, for its metrics.
#[derive(Debug)]
pub(super) struct Progress {
    /// How much of the time since its head was there was spent waiting for backends.
    pub(super) waited: Cell<Duration>,
    /// Whether the time that was not is known.
    has_overhead: bool,
    /// Since when the answer of the exchange under way is awaited.
    asked: Option<Moment>,
    /// Of the answer that is passed on.
    outcome: Outcome,
    /// What a PUT asks for; 0 without a number that can be one.
    pub(super) timeout_minutes: u32,
}

/// A request whose answer was passed on.
pub(super) struct Answered {
    /// Who gave the answer.
    pub(super) backend: BackendIndex,
    pub(super) outcome: Outcome,
}

/// A failed attempt, and when the request may be sent again on a fresh connection.
struct Failed {
    error: ProxyError,
    again: Again,
}

/// When a request may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// No byte of it can have reached the backend: always.
    NothingSent,
    /// It was sent whole and no byte of an answer came: when a second one harms nobody.
    NothingAnswered,
    /// Never.
    No,
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

impl Default for Progress {
    fn default() -> Self {
        Self {
            waited: Cell::default(),
            has_overhead: false,
            asked: None,
            outcome: Outcome::Failed,
            timeout_minutes: 0,
        }
    }
}

impl Exchange<'_> {
    /// What the request at the start of `received` asks for, as far as the handover depends on it.
    /// One that is none of the six operations is answered alike everywhere, as a look is.
    pub(super) fn request(&mut self, received: &[u8]) -> Request {
        let number = |value: Option<Span>| value.and_then(|value| wire::signed(value.of(received)));
        let cookie = || {
            let cookie =
                number(self.head.lock_cookie).and_then(|cookie| u32::try_from(cookie).ok());
            match Cookie::from_client(cookie.unwrap_or(0)) {
                // The tag of a backend that is gone: its lock is gone, too.
                Cookie::Tagged { place, .. } if self.view.snapshot.backend_at(place).is_none() => {
                    Cookie::Untagged(NO_LOCK)
                }
                cookie => cookie,
            }
        };
        match self.head.operation() {
            Operation::Get => Request::Read,
            Operation::Acquire => Request::Acquire,
            Operation::Release => Request::Release(cookie()),
            Operation::Remove => Request::Remove(cookie()),
            Operation::Touch | Operation::Unknown => Request::Touch,
            Operation::Put => {
                let minutes = number(self.head.timeout);
                let minutes = minutes.and_then(|minutes| u32::try_from(minutes).ok());
                self.progress.timeout_minutes = minutes.unwrap_or(0);
                let is_create = number(self.head.extra_flags).is_some_and(|flags| flags & 1 == 1);
                if is_create {
                    Request::Create
                } else {
                    Request::Put(cookie())
                }
            }
        }
    }

    /// Forwards the request at the start of `received` and relays its answer, which is due at
    /// `due_ms` of the worker's clock. On success `received` holds what came behind the request.
    pub(super) async fn run(
        &mut self,
        received: &mut Buffer,
        due_ms: u64,
    ) -> Result<(), ProxyError> {
        if !self.view.backend(self.backend).up {
            return Err(ProxyError::Down);
        }
        let request_bytes = self.untag(received);
        self.progress.asked = Some(Moment::now());
        self.shard().begun.increment();
        if let Some(pooled) = self.view.pool(self.backend).take() {
            match self.attempt(pooled, received, request_bytes, due_ms).await {
                Ok(()) => return Ok(()),
                Err(failed) if self.may_try_again(&failed) => self.shard().retries.increment(),
                Err(failed) => return Err(failed.error),
            }
        }
        // The state of the connection attempt is large and rarely needed: it lives on the heap.
        let fresh = Box::pin(self.connect(due_ms)).await?;
        self.attempt(fresh, received, request_bytes, due_ms)
            .await
            .map_err(|failed| failed.error)
    }

    /// The request whose answer was passed on.
    pub(super) fn answered(&self) -> Answered {
        Answered {
            backend: self.backend,
            outcome: self.progress.outcome,
        }
    }

    /// The request that this exchange left unanswered.
    pub(super) fn unanswered(&mut self, error: ProxyError) -> Unanswered {
        self.view
            .note_unfit(self.backend, &error, self.deadline.now_ms());
        if self.progress.asked.take().is_some() {
            let operation = self.head.operation();
            match error {
                ProxyError::Client(_) => self.shard().broken_off.increment(),
                _ => self.shard().exchanges.count(operation, Outcome::Failed),
            }
        }
        Unanswered {
            error,
            backend: self.backend,
        }
    }

    pub(super) fn shard(&self) -> &BackendShard {
        self.view.shard(self.backend)
    }

    /// Puts the server's own lock cookie in place of the tagged one; the length of the request
    /// afterwards. To be done once: afterwards the head's spans behind the cookie are outdated.
    /// What is no number stays as it is, for the server to refuse.
    pub(super) fn untag(&self, received: &mut Buffer) -> u64 {
        let request_bytes = self.head.head_bytes as u64 + self.head.body_bytes;
        let (Some(counter), Some(value)) = (self.counter, self.head.lock_cookie) else {
            return request_bytes;
        };
        if wire::signed(value.of(received.filled())).is_none() {
            return request_bytes;
        }
        let digits = Digits::of(counter.into());
        let before = received.len();
        match received.replace_value(value, digits.as_bytes()) {
            Ok(()) => request_bytes + received.len() as u64 - before as u64,
            Err(_no_room) => request_bytes,
        }
    }

    fn may_try_again(&self, failed: &Failed) -> bool {
        match failed.again {
            Again::NothingSent => true,
            Again::NothingAnswered => self.head.operation().is_repeatable(),
            Again::No => false,
        }
    }

    async fn connect(&self, due_ms: u64) -> Result<Conn, ConnectError> {
        let connect_ms = self.deadline.after_ms(self.view.snapshot.timeouts.connect);
        self.deadline.arm_at(connect_ms.min(due_ms));
        self.view.connect(self.backend, self.deadline).await
    }

    async fn attempt(
        &mut self,
        mut conn: Conn,
        received: &mut Buffer,
        request_bytes: u64,
        mut due_ms: u64,
    ) -> Result<(), Failed> {
        self.deadline.arm_at(due_ms);
        let at_hand = request_bytes.min(received.len() as u64);
        let mut sent = 0;
        let sending = conn.write_all(
            &received.filled()[..at_hand as usize],
            &mut sent,
            self.deadline,
        );
        if let Err(error) = sending.await {
            let again = match error {
                IoError::Broken(_) if sent == 0 => Again::NothingSent,
                IoError::Broken(_) if at_hand == request_bytes => Again::NothingAnswered,
                _ => Again::No,
            };
            return Err(Failed {
                error: ProxyError::Send(error),
                again,
            });
        }
        self.shard().sent_bytes.add(at_hand);
        if at_hand == request_bytes {
            // What was written is never sent again, and needs no memory while its answer is awaited.
            let is_over = request_bytes >= LARGE_BYTES
                && received.len() as u64 == request_bytes
                && self.head.operation() == Operation::Put;
            if is_over {
                received.release();
            }
            let request = Some(&*received).filter(|_| !is_over);
            self.relay(conn, request, due_ms).await?;
            received.consume(at_hand as usize);
            return Ok(());
        }
        received.clear();
        let rest = request_bytes - at_hand;
        self.stream_body(&mut conn, received, rest)
            .await
            .map_err(Failed::finally)?;
        if received.is_empty() {
            received.release();
        }
        self.wait_anew();
        // The answer's time starts when the whole request is out.
        due_ms = self.deadline.after_ms(self.view.snapshot.timeouts.answer);
        self.deadline.arm_at(due_ms);
        // The request is no longer at hand: whatever happens now, it cannot be sent again.
        let answered = self.relay(conn, None, due_ms).await;
        answered.map_err(|failed| Failed::finally(failed.error))
    }

    /// Passes on the part of the body that has not been received yet, a buffer at a time.
    async fn stream_body(
        &mut self,
        conn: &mut Conn,
        received: &mut Buffer,
        mut rest: u64,
    ) -> Result<(), ProxyError> {
        let timeouts = &self.view.snapshot.timeouts;
        let mut due_ms = self.deadline.after_ms(timeouts.client_stall);
        let mut since_armed = 0;
        loop {
            self.deadline.arm_at(due_ms);
            let more = self.client.read_more(received, self.deadline).await;
            more.map_err(ProxyError::Client)?;
            let part = rest.min(received.len() as u64);
            let written_from_ms = self.deadline.now_ms();
            self.deadline.arm(timeouts.answer);
            let bytes = &received.filled()[..part as usize];
            let written = conn.write_all(bytes, &mut 0, self.deadline).await;
            written.map_err(ProxyError::Send)?;
            self.service.metrics.received_bytes.add(part);
            self.shard().sent_bytes.add(part);
            received.consume(part as usize);
            rest -= part;
            if rest == 0 {
                return Ok(());
            }
            received.clear();
            since_armed += part;
            if since_armed >= MIN_PROGRESS_BYTES {
                since_armed = 0;
                due_ms = self.deadline.after_ms(timeouts.client_stall);
            } else {
                // The client's time does not run while the backend is the slow one.
                due_ms += self.deadline.now_ms() - written_from_ms;
            }
        }
    }

    /// Reads the answer, for which the deadline is armed, and passes it on. `request` starts with
    /// the request's head; it is gone when its body was streamed, or was a large session.
    async fn relay(
        &mut self,
        mut conn: Conn,
        request: Option<&Buffer>,
        due_ms: u64,
    ) -> Result<(), Failed> {
        let mut answer = match self.read_first(&mut conn).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.nothing_came(error, conn, request)),
        };
        let remaining = match self.read_head(&mut conn, &mut answer, request).await {
            Ok(remaining) => remaining,
            Err(error) => return Err(self.no_answer(error, conn, &answer, request)),
        };
        self.head_came();
        let mut conn = Some(conn);
        let passed_on = self.pass_on(&mut conn, &mut answer, remaining, due_ms);
        passed_on.await.map_err(|error| {
            self.give_back(remaining.lock, request);
            Failed::finally(error)
        })
    }

    fn read_first(&self, conn: &mut Conn) -> impl Future<Output = Result<Buffer, IoError>> {
        conn.read_first(&self.service.worker.buffers, self.deadline, || false)
    }

    /// No byte of an answer came.
    fn nothing_came(&self, error: IoError, conn: Conn, request: Option<&Buffer>) -> Failed {
        let again = match error {
            IoError::Closed | IoError::Broken(_) => Again::NothingAnswered,
            IoError::TimedOut | IoError::Stopping => Again::No,
        };
        if matches!(error, IoError::TimedOut) && self.head.operation() == Operation::Acquire {
            self.tidy(Untidy::LateAnswer(conn), request);
        }
        Failed {
            error: ProxyError::Answer(error),
            again,
        }
    }

    /// What came is no answer to pass on. The one that an acquire should have had may still be on its
    /// way behind it, with the lock.
    #[cold]
    fn no_answer(
        &self,
        error: ProxyError,
        conn: Conn,
        answer: &Buffer,
        request: Option<&Buffer>,
    ) -> Failed {
        let is_acquire = self.head.operation() == Operation::Acquire;
        if is_acquire && matches!(error, ProxyError::Unfit(_)) && call::is_whole(answer.filled()) {
            self.tidy(Untidy::LateAnswer(conn), request);
        }
        Failed::finally(error)
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
                    return Err(Unfit::Two.into());
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

    /// Takes note of an answer, as far as it is known now.
    fn head_came(&mut self) {
        if let Some(asked) = self.progress.asked.take() {
            let took = asked.elapsed();
            let shard = self.view.shard(self.backend);
            shard.duration.observe(took);
            let outcome = self.progress.outcome;
            shard.exchanges.count(self.head.operation(), outcome);
            let waited = self.progress.waited.get_mut();
            *waited += took;
        }
    }

    /// The answer is awaited from now on only: the client was still sending.
    fn wait_anew(&mut self) {
        let now = Moment::now();
        if let Some(asked) = self.progress.asked.replace(now) {
            *self.progress.waited.get_mut() += now.since(asked);
        }
    }

    /// Takes note of the time that was spent here, once per request.
    fn note_overhead(&mut self) {
        if !std::mem::replace(&mut self.progress.has_overhead, true) {
            let taken = self.subject.started.elapsed();
            let overhead = taken.saturating_sub(self.progress.waited.get());
            self.service.metrics.overhead.observe(overhead);
        }
    }

    /// Reads until the head at the start of `answer` is complete and makes it fit to pass on.
    /// Returns plain numbers: what lives while the answer is passed on is paid for by every idle
    /// connection.
    async fn read_head(
        &mut self,
        conn: &mut Conn,
        answer: &mut Buffer,
        request: Option<&Buffer>,
    ) -> Result<Remaining, ProxyError> {
        let limits = &self.view.snapshot.head_limits;
        let to_head = self.head.method == Method::Head;
        loop {
            let parsed = ResponseHead::parse(answer.filled(), limits.max_head_bytes, to_head);
            match parsed.map_err(ProxyError::Garbage)? {
                Parsed::Complete(head) => {
                    self.shard().received_bytes.add(answer.len() as u64);
                    head.fits(self.head.operation())?;
                    return self.remaining(&head, answer, request);
                }
                Parsed::Partial => {
                    let more = conn.read_more(answer, self.deadline).await;
                    more.map_err(ProxyError::Answer)?;
                }
            }
        }
    }

    /// Tags the lock cookie of a whole head; the body it announces must be within the limit. The lock
    /// of an answer that cannot be passed on is given back. `request` starts with the request's head,
    /// if it is still there.
    pub(super) fn remaining(
        &mut self,
        head: &ResponseHead,
        answer: &mut Buffer,
        request: Option<&Buffer>,
    ) -> Result<Remaining, ProxyError> {
        let operation = self.head.operation();
        let lock = head.lock_taken(answer.filled());
        let lock = lock.filter(|_| operation == Operation::Acquire);
        let max_bytes = self.view.snapshot.head_limits.max_body_bytes;
        if head.body_bytes > max_bytes {
            self.give_back(lock, request);
            return Err(ProxyError::Garbage(WireError::BodyTooLarge { max_bytes }));
        }
        self.observe(head, answer.filled());
        self.progress.outcome = Outcome::of_status(head.status);
        let body_bytes = self.head.body_bytes;
        let keeps_connection = call::leaves_nothing_behind(operation, body_bytes, head);
        let before = answer.len() as u64;
        self.tag(head, answer)
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
    fn tag(&self, head: &ResponseHead, answer: &mut Buffer) -> Result<(), ProxyError> {
        let Some(value) = head.lock_cookie else {
            return Ok(());
        };
        let counter = wire::decimal(value.of(answer.filled()));
        let Some(counter) = counter.and_then(|counter| u32::try_from(counter).ok()) else {
            return Ok(());
        };
        let cookie = self.view.backend(self.backend).place.tag(counter)?;
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
            tidy::tidy(self.service, self.view, self.backend, target, untidy);
        }
    }
}

impl Failed {
    fn finally(error: ProxyError) -> Self {
        Self {
            error,
            again: Again::No,
        }
    }
}
