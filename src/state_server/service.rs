//! One connection of the embedded state server.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::body_budget::{ArrivingBody, BodyBudget, BudgetExceeded};
use super::clock::ServerClock;
use crate::config::AllowList;
use crate::log::LogLimit;
use crate::net::request::MIN_PROGRESS_BYTES;
use crate::net::{self, Buffer, Conn, Deadline, IoError, RequestError, Service, Worker};
use crate::route::{self, KeyBuffer, KeyError};
use crate::store::{BadHeader, Body, SessionCommand, SessionStore, StoreOutcome};
use crate::wire::{self, Answer, HeadLimits, RequestHead};

/// Items one sweep looks at, at most; it runs every tick, so this bounds its share of a core.
const SWEEP_MAX_ITEMS: usize = 5_000;

/// How often the offset of local time is looked up.
const OFFSET_REFRESH_MS: u64 = 60_000;

/// The time limit on a stall is set anew after so much of an answer: one limit for all of it would
/// cut off the slow reader of a large session.
const ANSWER_SLICE_BYTES: usize = 256 * 1024;

/// What all workers of a state server share.
#[derive(Clone)]
pub struct StateOptions<S> {
    /// The items.
    pub store: S,
    /// Memory for bodies that are still arriving.
    pub body_budget: Arc<BodyBudget>,
    /// Time.
    pub clock: Arc<ServerClock>,
    /// Who may connect besides loopback.
    pub allow: AllowList,
    /// Limits on heads and bodies.
    pub head_limits: HeadLimits,
    /// How long a connection may be idle.
    pub idle: Duration,
    /// How long a head, the next [`MIN_PROGRESS_BYTES`] of a body, or the next 256 KiB of
    /// an answer may take.
    pub stall: Duration,
}

/// The state server as it runs on one worker.
pub struct StateService<S> {
    worker: Rc<Worker>,
    options: StateOptions<S>,
    key_buffer: RefCell<KeyBuffer>,
    /// Recycled memory for the head of an answer.
    head_buffer: RefCell<Vec<u8>>,
    log_limit: LogLimit,
    offset_due_ms: Cell<u64>,
}

/// Why a connection ends before its client wanted.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("bad request: {0}")]
    BadTarget(#[from] KeyError),
    #[error("no memory for the body: {0}")]
    NoMemory(#[from] BudgetExceeded),
    #[error("client: {0}")]
    Io(#[from] IoError),
    #[error("the store cannot say what became of a request")]
    StoreUnsure,
    #[error("the store has not answered in time")]
    StoreLate,
}

impl ServeError {
    /// Whether the client is told by a 400 why its connection ends.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Request(RequestError::Malformed(_)) | Self::BadTarget(_) | Self::NoMemory(_)
        )
    }

    /// Whether the store is to blame.
    fn is_of_the_store(&self) -> bool {
        matches!(self, Self::StoreUnsure | Self::StoreLate)
    }
}

impl<S: SessionStore> StateService<S> {
    /// The state server on `worker`.
    pub fn new(worker: Rc<Worker>, options: StateOptions<S>) -> Self {
        Self {
            worker,
            options,
            key_buffer: RefCell::new(KeyBuffer::new()),
            head_buffer: RefCell::default(),
            log_limit: LogLimit::default(),
            offset_due_ms: Cell::new(OFFSET_REFRESH_MS),
        }
    }

    async fn answer(
        &self,
        conn: &mut Conn,
        received: &mut Buffer,
        deadline: &Deadline,
    ) -> Result<(), ServeError> {
        let (limits, stall) = (&self.options.head_limits, self.options.stall);
        let head = net::read_request_head(conn, received, deadline, limits, stall).await?;
        let request_bytes = head.head_bytes as u64 + head.body_bytes;
        let outcome = if request_bytes <= received.len() as u64 {
            let body = &received.filled()[head.head_bytes..request_bytes as usize];
            let body = || Body::from(body);
            let outcome = self.apply(&head, received.filled(), body, deadline).await?;
            received.consume(request_bytes as usize);
            outcome
        } else {
            let (outcome, behind) = self.apply_arriving(conn, received, deadline, &head).await?;
            *received = behind;
            outcome
        };
        self.write(conn, deadline, outcome).await?;
        Ok(())
    }

    /// Carries out a request whose body has not arrived as a whole yet. Also returns what came
    /// behind the body.
    async fn apply_arriving(
        &self,
        conn: &mut Conn,
        received: &Buffer,
        deadline: &Deadline,
        head: &RequestHead,
    ) -> Result<(Option<StoreOutcome>, Buffer), ServeError> {
        let part = &received.filled()[head.head_bytes..];
        let missing_bytes = head.body_bytes - part.len() as u64;
        if head.operation() != wire::Operation::Put {
            // Only a PUT has a use for its body (protocol 3).
            let behind = self
                .read_body(conn, deadline, missing_bytes, |_part| Ok(()))
                .await?;
            let outcome = self
                .apply(head, received.filled(), Body::default, deadline)
                .await?;
            return Ok((outcome, behind));
        }
        let mut body = ArrivingBody::new(&self.options.body_budget, head.body_bytes as usize);
        body.append(part)?;
        let behind = self
            .read_body(conn, deadline, missing_bytes, |part| body.append(part))
            .await?;
        let whole = || Body::from(body.take_bytes());
        let outcome = self.apply(head, received.filled(), whole, deadline).await?;
        Ok((outcome, behind))
    }

    /// Reads `missing_bytes` of a body and hands them on as they come. Returns what came behind.
    async fn read_body(
        &self,
        conn: &mut Conn,
        deadline: &Deadline,
        mut missing_bytes: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), BudgetExceeded>,
    ) -> Result<Buffer, ServeError> {
        let mut more = self.worker.buffers.take();
        let mut progress_bytes = MIN_PROGRESS_BYTES;
        while missing_bytes > 0 {
            if progress_bytes >= MIN_PROGRESS_BYTES {
                deadline.arm(self.options.stall);
                progress_bytes = 0;
            }
            more.clear();
            conn.read_more(&mut more, deadline).await?;
            let part = missing_bytes.min(more.len() as u64);
            take(&more.filled()[..part as usize])?;
            more.consume(part as usize);
            missing_bytes -= part;
            progress_bytes += part;
        }
        Ok(more)
    }

    /// Carries out a request. `None` for one that is none of the protocol's operations.
    async fn apply(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        body: impl FnOnce() -> Body,
        deadline: &Deadline,
    ) -> Result<Option<StoreOutcome>, ServeError> {
        let Some(command) = command(head, bytes, body) else {
            return Ok(None);
        };
        let answered = {
            let mut key_buffer = self.key_buffer.borrow_mut();
            let key = route::extract(head.target.of(bytes), &mut key_buffer)?;
            let command = match command {
                Ok(command) => command,
                Err(bad) => return Ok(Some(StoreOutcome::Invalid(bad))),
            };
            let now = self.options.clock.now();
            self.options.store.apply(key.key(), command, now)
        };
        // Pinned here: a guard would keep it twice.
        let answered = pin!(answered);
        deadline.arm(self.options.stall);
        match deadline.guard(answered).await {
            Ok(StoreOutcome::Unknown) => Err(ServeError::StoreUnsure),
            Ok(outcome) => Ok(Some(outcome)),
            Err(_expired) => Err(ServeError::StoreLate),
        }
    }

    async fn write(
        &self,
        conn: &mut Conn,
        deadline: &Deadline,
        outcome: Option<StoreOutcome>,
    ) -> Result<(), IoError> {
        // Taken out, not borrowed: other connections answer while this one waits.
        let mut head = self.head_buffer.take();
        head.clear();
        let body = self.encode(&mut head, outcome);
        let written = self.write_slices(conn, deadline, &head, &body).await;
        self.head_buffer.replace(head);
        written
    }

    async fn write_slices(
        &self,
        conn: &mut Conn,
        deadline: &Deadline,
        mut head: &[u8],
        mut body: &[u8],
    ) -> Result<(), IoError> {
        loop {
            let (slice, rest) = body.split_at(body.len().min(ANSWER_SLICE_BYTES));
            deadline.arm(self.options.stall);
            conn.write_two(head, slice, &mut 0, deadline).await?;
            if rest.is_empty() {
                return Ok(());
            }
            (head, body) = (&[], rest);
        }
    }

    /// Writes the head of the answer to `head` and returns its body.
    fn encode(&self, head: &mut Vec<u8>, outcome: Option<StoreOutcome>) -> Body {
        let mut answer_body = Body::default();
        let answer = match outcome {
            Some(StoreOutcome::Found {
                body,
                timeout_minutes,
                cookie,
                action_flags,
            }) => {
                let body_bytes = body.len();
                answer_body = body;
                Answer::Item {
                    uninitialised: action_flags,
                    lock_cookie: cookie,
                    timeout_minutes,
                    body_bytes,
                }
            }
            Some(StoreOutcome::Done {
                action_flags,
                zero_timeout,
            }) => {
                if zero_timeout {
                    self.warn("an item was stored with a timeout of 0 minutes: 1 is used");
                }
                Answer::Done {
                    uninitialised: action_flags,
                }
            }
            Some(StoreOutcome::Absent) => Answer::Absent,
            Some(StoreOutcome::Locked {
                lock_date_ticks,
                lock_age_s,
                cookie,
            }) => Answer::Locked {
                lock_date_ticks,
                lock_age_s,
                lock_cookie: cookie,
            },
            Some(StoreOutcome::Refused(refusal)) => {
                self.warn(&refusal.to_string());
                Answer::Invalid
            }
            // What is not known has ended the connection before.
            Some(StoreOutcome::Invalid(_) | StoreOutcome::Unknown) | None => Answer::Invalid,
        };
        wire::encode_answer(head, &answer);
        answer_body
    }

    fn warn(&self, message: &str) {
        if let Some(suppressed) = self.log_limit.allow(self.worker.deadlines.now_ms()) {
            tracing::warn!(suppressed, "{message}");
        }
    }
}

/// What the store is asked. `None` for a request that is none of the protocol's operations.
fn command(
    head: &RequestHead,
    bytes: &[u8],
    body: impl FnOnce() -> Body,
) -> Option<Result<SessionCommand, BadHeader>> {
    let value = |span: Option<wire::Span>| span.map(|span| span.of(bytes));
    let cookie = value(head.lock_cookie);
    Some(Ok(match head.operation() {
        wire::Operation::Get => SessionCommand::Get,
        wire::Operation::Acquire => SessionCommand::Acquire,
        wire::Operation::Release => SessionCommand::release(cookie),
        wire::Operation::Put => {
            let (timeout, extra_flags) = (value(head.timeout), value(head.extra_flags));
            return Some(SessionCommand::put(timeout, extra_flags, cookie, body()));
        }
        wire::Operation::Remove => SessionCommand::remove(cookie),
        wire::Operation::Touch => SessionCommand::Touch,
        wire::Operation::Unknown => return None,
    }))
}

impl<S: SessionStore> Service for StateService<S> {
    async fn serve(self: Rc<Self>, mut conn: Conn, peer: SocketAddr) {
        let deadline = self.worker.deadlines.register();
        let idle = self.options.idle;
        while let Some(mut received) =
            net::wait_for_request(&mut conn, &self.worker, &deadline, idle).await
        {
            loop {
                if let Err(error) = self.answer(&mut conn, &mut received, &deadline).await {
                    let peer = peer.ip();
                    if error.is_refusal() {
                        self.warn(&format!("connection of {peer} refused: {error}"));
                        net::refuse_request(conn, received, &deadline).await;
                    } else if error.is_of_the_store() {
                        self.warn(&format!("connection of {peer} closed unanswered: {error}"));
                    }
                    return;
                }
                if received.is_empty() {
                    break;
                }
                received.compact();
                // Nothing else makes who sends many requests at once wait for the others.
                tokio::task::consume_budget().await;
            }
        }
    }

    fn admits(&self, peer: IpAddr) -> bool {
        self.options.allow.allows(peer)
    }

    fn tick(&self, now_ms: u64) {
        // Any one worker can do this for all of them.
        if self.worker.index != 0 {
            return;
        }
        let _ = self
            .options
            .store
            .sweep(self.options.clock.now(), SWEEP_MAX_ITEMS);
        if now_ms >= self.offset_due_ms.get() {
            self.offset_due_ms.set(now_ms + OFFSET_REFRESH_MS);
            self.options.clock.refresh_offset();
        }
    }
}
