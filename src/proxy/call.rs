//! One small request to one backend, answered head and all: the steps of a search, and what is
//! tidied up in the background.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::error::ProxyError;
use super::service::{ProxyService, View};
use crate::handover::{NO_LOCK, Seen};
use crate::metrics::Outcome;
use crate::net::{Buffer, Conn, Deadline, IoError, Moment};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, Parsed, ResponseHead, Span, Unfit, WireError};

/// Ages of a year and more mean "just now": a server says so while it replaces an item
/// (protocol 4).
pub(super) const ABSURD_AGE_S: u64 = 31_536_000;

/// Who asks, and until when.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) service: &'a Rc<ProxyService>,
    pub(super) view: &'a Rc<View>,
    pub(super) deadline: &'a Deadline,
    /// When the whole request of the client has to be done, of the worker's clock.
    pub(super) due_ms: u64,
    /// Grows by the time that is spent waiting for backends.
    pub(super) waited: &'a Cell<Duration>,
}

/// A whole request.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) operation: Operation,
    /// Length of the body that `bytes` end with.
    pub(super) body_bytes: u64,
    /// Sending it twice harms nobody.
    pub(super) is_repeatable: bool,
}

/// The head of an answer, what came with it, and the connection that brings the rest.
pub(super) struct Answered {
    pub(super) conn: Conn,
    pub(super) bytes: Buffer,
    pub(super) head: ResponseHead,
    /// How much of it is still to be taken out of `bytes` and `conn`.
    unread_bytes: u64,
    /// Its connection may serve another request once it is read whole.
    keeps_connection: bool,
}

/// No answer.
pub(super) struct CallFailed {
    pub(super) error: ProxyError,
    /// The answer may still come here.
    pub(super) late: Option<Conn>,
    is_sent: bool,
}

impl Caller<'_> {
    /// Sends `call` and reads the head of its answer.
    pub(super) async fn call(
        &self,
        to: BackendIndex,
        call: Call<'_>,
    ) -> Result<Answered, CallFailed> {
        if !self.view.backend(to).up {
            return Err(ProxyError::Down.into());
        }
        let shard = self.view.shard(to);
        let asked = Moment::now();
        shard.begun.increment();
        let answered = self.exchange(to, call).await;
        let took = asked.elapsed();
        self.has_waited(took);
        let outcome = match &answered {
            Err(failed) => {
                let now_ms = self.deadline.now_ms();
                self.view.note_unfit(to, &failed.error, now_ms);
                Outcome::Failed
            }
            Ok(answered) => {
                shard.duration.observe(took);
                shard.received_bytes.add(answered.bytes.len() as u64);
                Outcome::of_status(answered.head.status)
            }
        };
        shard.exchanges.count(call.operation, outcome);
        answered
    }

    fn has_waited(&self, took: Duration) {
        self.waited.set(self.waited.get() + took);
    }

    async fn exchange(&self, to: BackendIndex, call: Call<'_>) -> Result<Answered, CallFailed> {
        if let Some(pooled) = self.view.pool(to).take() {
            match self.attempt(to, pooled, call).await {
                Err(failed) if failed.may_try_again(call) => {
                    self.view.shard(to).retries.increment();
                }
                done => return done,
            }
        }
        let connect = self.view.snapshot.timeouts.connect;
        let connect_ms = self.deadline.after_ms(connect);
        self.deadline.arm_at(connect_ms.min(self.due_ms));
        let fresh = self.view.connect(to, self.deadline).await;
        let fresh = fresh.map_err(ProxyError::from)?;
        self.attempt(to, fresh, call).await
    }

    async fn attempt(
        &self,
        to: BackendIndex,
        mut conn: Conn,
        call: Call<'_>,
    ) -> Result<Answered, CallFailed> {
        self.deadline.arm_at(self.due_ms);
        let mut sent_bytes = 0;
        let sent = conn.write_all(call.bytes, &mut sent_bytes, self.deadline);
        if let Err(error) = sent.await {
            return Err(CallFailed {
                error: ProxyError::Send(error),
                late: None,
                is_sent: sent_bytes > 0,
            });
        }
        self.view.shard(to).sent_bytes.add(sent_bytes);
        let buffers = &self.service.worker.buffers;
        let mut bytes = match conn.read_first(buffers, self.deadline, || false).await {
            Ok(bytes) => bytes,
            Err(IoError::TimedOut) => {
                return Err(CallFailed {
                    error: ProxyError::Answer(IoError::TimedOut),
                    late: Some(conn),
                    is_sent: true,
                });
            }
            Err(error) => return Err(ProxyError::Answer(error).into()),
        };
        let max_head_bytes = self.view.snapshot.head_limits.max_head_bytes;
        let is_head = call.operation == Operation::Touch;
        loop {
            let parsed = ResponseHead::parse(bytes.filled(), max_head_bytes, is_head);
            match parsed.map_err(ProxyError::Garbage)? {
                Parsed::Complete(head) => {
                    if let Err(unfit) = check(&head, call.operation, bytes.filled()) {
                        return Err(CallFailed {
                            error: unfit.into(),
                            late: Some(conn).filter(|_| is_whole(bytes.filled())),
                            is_sent: true,
                        });
                    }
                    return Ok(Answered {
                        conn,
                        bytes,
                        head,
                        unread_bytes: head.body_bytes.saturating_add(head.head_bytes as u64),
                        keeps_connection: leaves_nothing_behind(
                            call.operation,
                            call.body_bytes,
                            &head,
                        ),
                    });
                }
                Parsed::Partial => {
                    let more = conn.read_more(&mut bytes, self.deadline).await;
                    more.map_err(ProxyError::Answer)?;
                }
            }
        }
    }

    /// Puts the connection of an answer that is there whole, read or not, back for the next request.
    pub(super) fn finish(&self, to: BackendIndex, answered: Answered) {
        let is_whole = answered.bytes.len() as u64 == answered.unread_bytes;
        if is_whole && answered.keeps_connection {
            let now_ms = self.deadline.now_ms();
            self.view.pool(to).put(answered.conn, now_ms);
        }
    }
}

/// Whether a backend has certainly read the whole request and sent all it will send once the answer
/// is read, so that nothing of this exchange can pass for the answer to the next one. Every
/// connection that is to serve another request has to pass this, whoever asked.
///
/// Stock servers always do. One that overlooks a body where the protocol has none would take it for
/// a request; one that sends a body after a HEAD sends it late.
pub(super) fn leaves_nothing_behind(
    operation: Operation,
    request_body_bytes: u64,
    answer: &ResponseHead,
) -> bool {
    let stored_or_locked = matches!(answer.status, 200 | 423);
    let is_read = request_body_bytes == 0 || operation == Operation::Put && stored_or_locked;
    is_read && answer.announced_bytes == answer.body_bytes
}

/// Whether this can be the answer to the request, alone.
fn check(head: &ResponseHead, operation: Operation, bytes: &[u8]) -> Result<(), Unfit> {
    head.fits(operation)?;
    match head.is_one_of_two(bytes) {
        true => Err(Unfit::Two),
        false => Ok(()),
    }
}

/// Whether `bytes` are one answer from end to end, so that another one may follow on its connection.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let parsed = ResponseHead::parse(bytes, bytes.len().saturating_add(1), false);
    match parsed {
        Ok(Parsed::Complete(head)) => {
            let whole = head.body_bytes.checked_add(head.head_bytes as u64);
            whole == Some(bytes.len() as u64)
        }
        Ok(Parsed::Partial) | Err(_) => false,
    }
}

impl Answered {
    /// What a decision has to know of it.
    pub(super) fn seen(&self) -> Seen {
        let number = |value: Option<Span>| {
            value.and_then(|value| wire::decimal(value.of(self.bytes.filled())))
        };
        let counter = number(self.head.lock_cookie).and_then(|cookie| u32::try_from(cookie).ok());
        let counter = counter.unwrap_or(NO_LOCK);
        match self.head.status {
            200 => Seen::Done {
                counter,
                flag: self.head.is_uninitialised(self.bytes.filled()),
            },
            404 => Seen::Absent,
            423 => Seen::Locked {
                counter,
                age_s: number(self.head.lock_age)
                    .filter(|&age_s| age_s < ABSURD_AGE_S)
                    .unwrap_or(0),
            },
            _ => Seen::Unknown,
        }
    }

    /// `Timeout` in minutes, or what a server takes when there is none (protocol 3).
    pub(super) fn timeout_minutes(&self) -> u32 {
        let value = self.head.timeout;
        let minutes = value.and_then(|value| wire::decimal(value.of(self.bytes.filled())));
        minutes
            .and_then(|minutes| u32::try_from(minutes).ok())
            .unwrap_or(20)
    }

    /// Takes the body out and appends it to `out`.
    pub(super) async fn read_body(
        &mut self,
        caller: &Caller<'_>,
        from: BackendIndex,
        out: &mut Vec<u8>,
    ) -> Result<(), ProxyError> {
        let max_bytes = caller.view.snapshot.head_limits.max_body_bytes;
        if self.head.body_bytes > max_bytes {
            return Err(ProxyError::Garbage(WireError::BodyTooLarge { max_bytes }));
        }
        let mut rest = self.head.body_bytes as usize;
        out.reserve(rest);
        self.bytes.consume(self.head.head_bytes);
        loop {
            let part = rest.min(self.bytes.len());
            out.extend_from_slice(&self.bytes.filled()[..part]);
            self.bytes.consume(part);
            rest -= part;
            if rest == 0 {
                self.unread_bytes = 0;
                return Ok(());
            }
            self.bytes.clear();
            let asked = Moment::now();
            let more = self.conn.read_more(&mut self.bytes, caller.deadline).await;
            caller.has_waited(asked.elapsed());
            more.map_err(ProxyError::Answer)?;
            let received = self.bytes.len() as u64;
            caller.view.shard(from).received_bytes.add(received);
        }
    }
}

impl CallFailed {
    /// Whether a fresh connection may do better where a pooled one was dead.
    fn may_try_again(&self, call: Call<'_>) -> bool {
        match self.error {
            ProxyError::Send(IoError::Broken(_)) => !self.is_sent || call.is_repeatable,
            ProxyError::Answer(IoError::Closed | IoError::Broken(_)) => call.is_repeatable,
            _ => false,
        }
    }
}

impl From<ProxyError> for CallFailed {
    fn from(error: ProxyError) -> Self {
        Self {
            error,
            late: None,
            is_sent: true,
        }
    }
}
