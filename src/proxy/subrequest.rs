//! One small request to one backend, answered head and all: the steps of a search, and what is
//! tidied up in the background.

use std::rc::Rc;

use super::error::ProxyError;
use super::service::ProxyService;
use super::view::View;
use crate::backend::{AskFailed, Left, Outgoing, Reply, RequestContent, RetryPolicy, Upstream};
use crate::handover::{NO_LOCK, SubrequestReply};
use crate::net::{Buffer, Conn, Deadline, Moment, TimeSpent};
use crate::route::BackendIndex;
use crate::wire::{self, Operation, ResponseHead, Span, WireError};

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
    pub(super) waited: &'a TimeSpent,
}

/// A whole request.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) operation: Operation,
    /// Length of the body that `bytes` end with.
    pub(super) body_bytes: u64,
    /// When it may go out twice.
    pub(super) retry: RetryPolicy,
}

/// The head of an answer, what came with it, and the connection that brings the rest.
pub(super) struct SubrequestAnswer {
    pub(super) conn: Conn,
    pub(super) bytes: Buffer,
    pub(super) head: ResponseHead,
    /// How much of it is still to be taken out of `bytes` and `conn`.
    unread_bytes: u64,
    /// Its connection may serve another request once it is read whole.
    pub(super) keeps_connection: bool,
}

/// No answer.
pub(super) struct CallFailed {
    pub(super) error: ProxyError,
    /// What an acquire may have left behind.
    pub(super) left: Option<Left>,
    /// No byte of it was sent.
    pub(super) is_unsent: bool,
}

impl Caller<'_> {
    /// Sends `call` and reads the head of its answer.
    pub(super) async fn call(
        &self,
        to: BackendIndex,
        call: Call<'_>,
    ) -> Result<SubrequestAnswer, CallFailed> {
        if self.view.pool(to).is_down() {
            let error = ProxyError::Down;
            return Err(CallFailed {
                error,
                left: None,
                is_unsent: true,
            });
        }
        let mut outgoing = Outgoing {
            operation: call.operation,
            content: RequestContent::Whole(call.bytes),
            body_bytes: call.body_bytes,
            retry: call.retry,
        };
        match self.upstream(to).ask(&mut outgoing).await {
            Ok(Reply {
                conn,
                bytes,
                head,
                keeps_connection,
                ..
            }) => Ok(SubrequestAnswer {
                conn,
                bytes,
                head,
                unread_bytes: head.body_bytes.saturating_add(head.head_bytes as u64),
                keeps_connection,
            }),
            Err(failed) => {
                let is_unsent = matches!(failed, AskFailed::Unsent(_));
                let (error, left) = ProxyError::of(failed, self.view.pool(to).is_down());
                Err(CallFailed {
                    error,
                    left,
                    is_unsent,
                })
            }
        }
    }

    fn upstream(&self, to: BackendIndex) -> Upstream<'_> {
        self.view.upstream(
            &self.service.worker,
            to,
            self.deadline,
            self.due_ms,
            self.waited,
        )
    }

    fn has_waited(&self, ns: u64) {
        self.waited.add_ns(ns);
    }

    /// Puts the connection of an answer that is there whole, read or not, back for the next request.
    pub(super) fn finish(&self, to: BackendIndex, answered: SubrequestAnswer) {
        let is_whole = answered.bytes.len() as u64 == answered.unread_bytes;
        if is_whole && answered.keeps_connection {
            let now_ms = self.deadline.now_ms();
            self.view.pool(to).put(answered.conn, now_ms);
        }
    }
}

impl SubrequestAnswer {
    /// What a decision has to know of it.
    pub(super) fn seen(&self) -> SubrequestReply {
        let number = |value: Option<Span>| {
            value.and_then(|value| wire::decimal(value.of(self.bytes.filled())))
        };
        let counter = number(self.head.lock_cookie).and_then(|cookie| u32::try_from(cookie).ok());
        let counter = counter.unwrap_or(NO_LOCK);
        match self.head.status {
            200 => SubrequestReply::Done {
                counter,
                flag: self.head.is_uninitialised(self.bytes.filled()),
            },
            404 => SubrequestReply::Absent,
            423 => SubrequestReply::Locked {
                counter,
                age_s: number(self.head.lock_age)
                    .filter(|&age_s| age_s < ABSURD_AGE_S)
                    .unwrap_or(0),
            },
            400 => SubrequestReply::Refused,
            _ => SubrequestReply::Unknown,
        }
    }

    /// The head, to be kept while the rest goes elsewhere.
    pub(super) fn copy_head(&self, caller: &Caller<'_>) -> Buffer {
        let mut copy = caller.service.worker.buffers.take();
        let head = &self.bytes.filled()[..self.head.head_bytes];
        let room = copy.room_mut();
        let count = head.len().min(room.len());
        room[..count].copy_from_slice(&head[..count]);
        copy.grow(count);
        copy
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
            caller.has_waited(asked.elapsed_ns());
            more.map_err(ProxyError::Answer)?;
            let received = self.bytes.len() as u64;
            caller.view.shard(from).received_bytes.add(received);
        }
    }
}
