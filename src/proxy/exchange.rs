//! One request against one backend.

use std::rc::Rc;

use super::error::ProxyError;
use super::orphan::{self, OrphanLock};
use super::service::{ProxyService, View};
use crate::backend::ConnectError;
use crate::net::{Buffer, Conn, Deadline, IoError, MIN_PROGRESS_BYTES};
use crate::route::BackendIndex;
use crate::wire::{Method, Operation, Parsed, RequestHead, ResponseHead, WireError};

/// A request with a whole head, its route, and the connection that waits for the answer.
pub(super) struct Exchange<'a> {
    pub(super) service: &'a Rc<ProxyService>,
    pub(super) view: &'a Rc<View>,
    pub(super) client: &'a mut Conn,
    pub(super) deadline: &'a Deadline,
    pub(super) head: &'a RequestHead,
    pub(super) backend: BackendIndex,
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
struct Remaining {
    bytes: u64,
    /// Its connection may serve the next request.
    keeps_connection: bool,
    /// The lock that the client will hold once it has all of it.
    lock: Option<u32>,
}

impl Exchange<'_> {
    /// Forwards the request at the start of `received` and relays its answer. On success
    /// `received` holds what came behind the request.
    pub(super) async fn run(mut self, received: &mut Buffer) -> Result<(), ProxyError> {
        let due_ms = self.deadline.after_ms(self.view.snapshot.timeouts.answer);
        if let Some(pooled) = self.view.pool(self.backend).take() {
            match self.attempt(pooled, received, due_ms).await {
                Ok(()) => return Ok(()),
                Err(failed) if self.may_try_again(&failed) => {}
                Err(failed) => return Err(failed.error),
            }
        }
        // The state of the connection attempt is large and rarely needed: it lives on the heap.
        let fresh = Box::pin(self.connect(due_ms)).await?;
        self.attempt(fresh, received, due_ms)
            .await
            .map_err(|failed| failed.error)
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
        self.view.pool(self.backend).connect(self.deadline).await
    }

    async fn attempt(
        &mut self,
        mut conn: Conn,
        received: &mut Buffer,
        mut due_ms: u64,
    ) -> Result<(), Failed> {
        self.deadline.arm_at(due_ms);
        let request_bytes = self.head.head_bytes as u64 + self.head.body_bytes;
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
        if at_hand == request_bytes {
            self.relay(conn, Some(received), due_ms).await?;
            received.consume(at_hand as usize);
            return Ok(());
        }
        received.clear();
        let rest = request_bytes - at_hand;
        self.stream_body(&mut conn, received, rest)
            .await
            .map_err(Failed::finally)?;
        // The answer's time starts when the whole request is out.
        due_ms = self.deadline.after_ms(self.view.snapshot.timeouts.answer);
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

    /// Reads the answer and passes it on. `request` starts with the request's head; it is gone
    /// when the body was streamed.
    async fn relay(
        &mut self,
        mut conn: Conn,
        request: Option<&Buffer>,
        due_ms: u64,
    ) -> Result<(), Failed> {
        self.deadline.arm_at(due_ms);
        let mut answer = match self.read_first(&mut conn).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.unanswered(error, conn, request)),
        };
        let read = self.read_head(&mut conn, &mut answer).await;
        let remaining = read.map_err(Failed::finally)?;
        let mut conn = Some(conn);
        let passed_on = self.pass_on(&mut conn, &mut answer, remaining, due_ms);
        passed_on.await.map_err(|error| {
            if let Some(cookie) = remaining.lock {
                self.give_back(OrphanLock::Known(cookie), request);
            }
            Failed::finally(error)
        })
    }

    fn read_first(&self, conn: &mut Conn) -> impl Future<Output = Result<Buffer, IoError>> {
        conn.read_first(&self.service.worker.buffers, self.deadline, || false)
    }

    /// No byte of an answer came.
    fn unanswered(&self, error: IoError, conn: Conn, request: Option<&Buffer>) -> Failed {
        let again = match error {
            IoError::Closed | IoError::Broken(_) => Again::NothingAnswered,
            IoError::TimedOut | IoError::Stopping => Again::No,
        };
        if matches!(error, IoError::TimedOut) && self.head.operation() == Operation::Acquire {
            self.give_back(OrphanLock::InLateAnswer(conn), request);
        }
        Failed {
            error: ProxyError::Answer(error),
            again,
        }
    }

    /// Passes the answer on, a buffer at a time; `answer` holds its head and what came with it.
    async fn pass_on(
        &mut self,
        conn: &mut Option<Conn>,
        answer: &mut Buffer,
        mut remaining: Remaining,
        mut due_ms: u64,
    ) -> Result<(), ProxyError> {
        loop {
            let part = remaining.bytes.min(answer.len() as u64);
            remaining.bytes -= part;
            if remaining.bytes == 0 && part == answer.len() as u64 {
                // Whole and nothing behind it: free for the next request before the client has
                // taken a byte.
                self.keep(conn.take().filter(|_| remaining.keeps_connection));
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
            let (1.., Some(conn)) = (remaining.bytes, &mut *conn) else {
                return Ok(());
            };
            answer.clear();
            // The backend's time does not run while the client is the slow one.
            due_ms += self.deadline.now_ms() - stalled_from_ms;
            self.deadline.arm_at(due_ms);
            let more = conn.read_more(answer, self.deadline).await;
            more.map_err(ProxyError::Answer)?;
        }
    }

    /// Reads until the head at the start of `answer` is complete; the body it announces must be
    /// within the limit. Returns plain numbers: what lives while the answer is passed on is paid
    /// for by every idle connection.
    async fn read_head(
        &self,
        conn: &mut Conn,
        answer: &mut Buffer,
    ) -> Result<Remaining, ProxyError> {
        let limits = &self.view.snapshot.head_limits;
        let to_head = self.head.method == Method::Head;
        loop {
            let parsed = ResponseHead::parse(answer.filled(), limits.max_head_bytes, to_head);
            match parsed.map_err(ProxyError::Garbage)? {
                Parsed::Complete(head) if head.body_bytes > limits.max_body_bytes => {
                    let max_bytes = limits.max_body_bytes;
                    return Err(ProxyError::Garbage(WireError::BodyTooLarge { max_bytes }));
                }
                Parsed::Complete(head) => return Ok(self.remaining(&head, answer.filled())),
                Parsed::Partial => {
                    let more = conn.read_more(answer, self.deadline).await;
                    more.map_err(ProxyError::Answer)?;
                }
            }
        }
    }

    fn remaining(&self, head: &ResponseHead, bytes: &[u8]) -> Remaining {
        let is_acquire = self.head.operation() == Operation::Acquire;
        Remaining {
            bytes: head.head_bytes as u64 + head.body_bytes,
            keeps_connection: self.leaves_nothing_behind(head),
            lock: head.lock_taken(bytes).filter(|_| is_acquire),
        }
    }

    fn keep(&self, conn: Option<Conn>) {
        if let Some(conn) = conn {
            let now_ms = self.deadline.now_ms();
            self.view.pool(self.backend).put(conn, now_ms);
        }
    }

    /// Whether the backend has certainly read the whole request and sent all it will send, so that
    /// nothing of this exchange can pass for the answer to the next one.
    ///
    /// Stock servers always do. One that overlooks a body where the protocol has none would take
    /// it for a request; one that sends a body after a HEAD sends it late.
    fn leaves_nothing_behind(&self, answer: &ResponseHead) -> bool {
        let stored_or_locked = matches!(answer.status, 200 | 423);
        let is_read = self.head.body_bytes == 0
            || self.head.operation() == Operation::Put && stored_or_locked;
        is_read && answer.announced_bytes == answer.body_bytes
    }

    /// The client of an acquire will not have the whole answer and so never learns of its lock.
    /// `request` is gone if it had a body that was streamed, which no real acquire has.
    fn give_back(&self, lock: OrphanLock, request: Option<&Buffer>) {
        if let Some(request) = request {
            let target = self.head.target.of(request.filled());
            orphan::give_back(self.service, self.view, self.backend, target, lock);
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
