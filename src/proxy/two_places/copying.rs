//! Copies for the replica of a slot.

use tokio::sync::SemaphorePermit;

use super::{Call, Seek};
use crate::backend::RetryPolicy;
use crate::handover::{BackendId, COPY_LOCK, Refusal, SubrequestReply};
use crate::net::Buffer;
use crate::proxy::copies::{CopyTracker, CopyUnderWay};
use crate::proxy::error::{ProxyError, Unanswered};
use crate::wire::{self, Operation, Request};

/// What the client stores, held whole because two servers get it.
pub(super) struct WholeBody<'a> {
    /// Ends with it; in front of it there is room for a head.
    bytes: Vec<u8>,
    starts_at: usize,
    _memory: Option<SemaphorePermit<'a>>,
}

/// Room for a head in front of a body: the client's own, with another lock cookie.
const MORE_HEAD_BYTES: usize = 64;

impl WholeBody<'_> {
    /// The body behind `head`.
    pub(super) fn behind(&mut self, head: &[u8]) -> &[u8] {
        let from = self.starts_at - head.len();
        self.bytes[from..self.starts_at].copy_from_slice(head);
        &self.bytes[from..]
    }
}

impl<'a> Seek<'a> {
    /// Stores what the client stores at the replica.
    pub(super) async fn copy(
        &mut self,
        at: BackendId,
        received: &mut Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let backend = self.backend(at)?;
        self.take_body(received).await?;
        let request = Request {
            timeout_minutes: self.timeout_minutes(),
            ..self.request(Operation::Put, COPY_LOCK, received.filled())
        };
        let body_bytes = self.exchange.head.body_bytes;
        let mut bytes = Vec::new();
        wire::encode_request_head(&mut bytes, &request, body_bytes as usize);
        let mut under_way = self.begin_copy(at)?;
        under_way.is_sent();
        let mut body = self.body.take();
        let call = Call {
            bytes: match &mut body {
                Some(body) => body.behind(&bytes),
                None => {
                    let head_bytes = self.exchange.attempt.own.bytes() - body_bytes;
                    let whole = received.filled().get(head_bytes as usize..);
                    let content = whole.and_then(|rest| rest.get(..body_bytes as usize));
                    bytes.extend_from_slice(content.unwrap_or_default());
                    &bytes
                }
            },
            operation: Operation::Put,
            body_bytes,
            retry: RetryPolicy::Unanswered,
        };
        let due_ms = self.leave_time_without_copy();
        let sent = self.send(backend, call).await;
        (self.body, self.due_ms) = (body, due_ms);
        Ok(self.copied(under_way, sent, self.timeout_minutes()))
    }

    /// Stores the item of the held answer at the replica.
    pub(super) async fn copy_held(
        &mut self,
        at: BackendId,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let due_ms = self.leave_time_without_copy();
        let copied = self.copy_held_in_time(at, received).await;
        self.due_ms = due_ms;
        copied
    }

    async fn copy_held_in_time(
        &mut self,
        at: BackendId,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let backend = self.backend(at)?;
        let held = self.held.as_ref();
        let (from, lock, timeout_minutes) = held.map_or((backend, None, 0), |held| {
            let answer = &held.answered;
            let lock = answer.head.lock_taken(answer.bytes.filled());
            (held.backend, lock, answer.timeout_minutes())
        });
        let memory = match self.memory_of_held().await {
            Ok(memory) => memory,
            // The page goes on without a copy; the replica is not relied on any more.
            Err(_) if self.exchange.head.operation() == Operation::Acquire => {
                return Ok(SubrequestReply::Refused);
            }
            Err(crowded) => return Err(self.stays_behind(from, lock, crowded, received)),
        };
        self.keep_whole(COPY_LOCK, 0, memory, received).await?;
        let mut under_way = self.begin_copy(at).inspect_err(|_| {
            if let Some(cookie) = lock {
                self.tidy_at(from, super::Untidy::Lock(cookie), received);
            }
        })?;
        under_way.is_sent();
        let call = self.call_with_kept(RetryPolicy::Unanswered);
        let sent = self.send(backend, call).await;
        Ok(self.copied(under_way, sent, timeout_minutes))
    }

    /// Removes the copy at the replica.
    pub(super) async fn clear_copy(
        &mut self,
        at: BackendId,
        received: &Buffer,
    ) -> Result<SubrequestReply, Unanswered> {
        let mut under_way = self.begin_copy(at)?;
        under_way.is_sent();
        let due_ms = self.leave_time_without_copy();
        let removing = self.ask_alone(at, Operation::Remove, COPY_LOCK, received);
        let removed = removing.await;
        self.due_ms = due_ms;
        let seen = removed.unwrap_or_else(|failed| {
            self.failed = Some(failed);
            SubrequestReply::Unknown
        });
        let subject = self.exchange.subject;
        self.copies().forget(subject.slot, subject.session);
        // Without an answer the machine says that it was missed.
        under_way.ends();
        Ok(seen)
    }

    /// A replica that does not answer must not take the time in which the slot goes on without it: it
    /// gets half of what is left, until the request is due again at what this returns.
    fn leave_time_without_copy(&mut self) -> u64 {
        let (due_ms, now_ms) = (self.due_ms, self.exchange.service.now_ms());
        self.due_ms = now_ms + due_ms.saturating_sub(now_ms) / 2;
        due_ms
    }

    /// The replica has missed something.
    pub(super) fn miss(&self) -> SubrequestReply {
        let subject = self.exchange.subject;
        self.copies().miss(subject.slot);
        self.copies().forget(subject.slot, subject.session);
        SubrequestReply::Done {
            counter: 0,
            flag: false,
        }
    }

    fn copied(
        &mut self,
        under_way: CopyUnderWay<'_>,
        sent: Result<SubrequestReply, Unanswered>,
        timeout_minutes: u32,
    ) -> SubrequestReply {
        let subject = self.exchange.subject;
        let seen = sent.unwrap_or_else(|failed| {
            self.failed = Some(failed);
            SubrequestReply::Unknown
        });
        if let SubrequestReply::Done { .. } = seen {
            self.copies()
                .was_written(subject.slot, subject.session, timeout_minutes);
            under_way.ends();
        }
        // Whatever else came of it, the replica does not have it: it was missed.
        seen
    }

    /// The same for an item that is moved, if there are copies of it.
    pub(super) fn begin_insert(&self) -> Option<CopyUnderWay<'a>> {
        let subject = self.exchange.subject;
        let route = subject.route;
        let places = [Some(route.first), route.second];
        route
            .replica
            .map(|_| self.copies().begin(subject.slot, places))
    }

    /// Counts a copy to `at` as under way, unless the slot has changed since the request came: what
    /// is written late would cover what others have written at the replica.
    fn begin_copy(&self, at: BackendId) -> Result<CopyUnderWay<'a>, Unanswered> {
        let subject = self.exchange.subject;
        let route = subject.route;
        let under_way = self
            .copies()
            .begin(subject.slot, [Some(route.first), route.second]);
        // Looked at only now: from here on nobody goes on without this copy.
        if self.exchange.service.may_copy(subject, at) {
            return Ok(under_way);
        }
        Err(Unanswered::refused(Refusal::Suspect, self.exchange.backend))
    }

    /// Holds the client's body if it has not come whole.
    async fn take_body(&mut self, received: &mut Buffer) -> Result<(), Unanswered> {
        let head = self.exchange.head;
        let has_come = self.exchange.attempt.own.bytes() <= received.len() as u64;
        if has_come || self.body.is_some() {
            return Ok(());
        }
        let failed = |error| Unanswered::new(error, self.exchange.backend);
        let taking = self.exchange.view.snapshot.moves.take(head.body_bytes);
        self.exchange.deadline.arm_at(self.due_ms);
        let memory = self.exchange.deadline.guard(taking).await;
        let memory = memory.map_err(|_| failed(ProxyError::Crowded))?;
        let head_bytes = (self.exchange.attempt.own.bytes() - head.body_bytes) as usize;
        let starts_at = head_bytes + MORE_HEAD_BYTES + self.longest_head_bytes(received);
        let mut bytes = vec![0; starts_at];
        bytes.reserve_exact(head.body_bytes as usize);
        let at_hand = received.filled().get(head_bytes..).unwrap_or_default();
        bytes.extend_from_slice(at_hand);
        let mut filled = bytes.len();
        bytes.resize(starts_at + head.body_bytes as usize, 0);
        let stall = self.exchange.view.snapshot.timeouts.client_stall;
        let mut due_at = filled;
        while filled < bytes.len() {
            // The client's time begins anew with each part, and not with each byte.
            if filled >= due_at {
                self.exchange.deadline.arm(stall);
                due_at = filled + PART_BYTES;
            }
            let room = &mut bytes[filled..];
            let part = room.len().min(PART_BYTES);
            let reading = self
                .exchange
                .client
                .read_some(&mut room[..part], self.exchange.deadline);
            let count = reading.await.map_err(|error| {
                Unanswered::new(ProxyError::Client(error), self.exchange.backend)
            })?;
            self.exchange
                .service
                .metrics
                .received_bytes
                .add(count as u64);
            filled += count;
        }
        // The backend's time does not run while the client is the slow one.
        let answer = self.exchange.view.snapshot.timeouts.answer;
        self.due_ms = self.exchange.deadline.after_ms(answer);
        self.body = Some(WholeBody {
            bytes,
            starts_at,
            _memory: memory,
        });
        Ok(())
    }

    /// A head of our own is no longer than this.
    fn longest_head_bytes(&self, received: &Buffer) -> usize {
        self.exchange.head.target.of(received.filled()).len() + 256
    }

    /// What the client's PUT says, or what a server takes when it says nothing (protocol 3).
    fn timeout_minutes(&self) -> u32 {
        match self.exchange.attempt.progress.timeout_minutes {
            0 => 20,
            minutes => minutes,
        }
    }

    fn copies(&self) -> &'a CopyTracker {
        &self.exchange.service.shared.copies
    }
}

/// So much of a body has to come in the client's time.
const PART_BYTES: usize = 64 * 1024;
