//! Copies for the replica of a slot.

use tokio::sync::SemaphorePermit;

use super::{Call, Seek, Stopped};
use crate::backend::RetryPolicy;
use crate::handover::{Heard, Question, SubrequestReply};
use crate::net::Buffer;
use crate::proxy::copies::{CopyTracker, CopyUnderWay};
use crate::proxy::error::{ProxyError, Unanswered};
use crate::proxy::reports::WorkersShared;
use crate::route::BackendIndex;
use crate::wire::{self, Operation};

/// What a question has under way at the replica.
pub(super) type BegunCopy<'c> = Option<CopyUnderWay<&'c CopyTracker>>;

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
        question: Question,
        backend: BackendIndex,
        received: &mut Buffer,
    ) -> Result<Heard, Stopped> {
        self.take_body(received).await.map_err(Stopped::Failed)?;
        let timeout_minutes = self.timeout_minutes();
        let request = self.store_request(question, timeout_minutes, received);
        let body_bytes = self.exchange.head.body_bytes;
        let mut bytes = Vec::new();
        wire::encode_request_head(&mut bytes, &request, body_bytes as usize);
        let under_way = self.begin_copy(question)?;
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
            retry: RetryPolicy::of_own(question.is_repeatable()),
        };
        let due_ms = self.limit(question);
        let sent = self.send(backend, call).await;
        (self.body, self.due_ms) = (body, due_ms);
        let heard = self.hear(backend, sent.map(|sent| sent.0));
        self.copy_ended(under_way, heard.reply(), timeout_minutes);
        Ok(heard)
    }

    /// Limits the time of what has to do with a copy; when the request itself is due.
    pub(super) fn limit(&mut self, question: Question) -> u64 {
        let (due_ms, now_ms) = (self.due_ms, self.exchange.service.now_ms());
        if let Some(kind) = question.copy {
            self.due_ms = kind.due_ms(now_ms, due_ms);
        }
        due_ms
    }

    /// The replica has missed something.
    pub(super) fn miss(&self) -> SubrequestReply {
        let subject = self.exchange.subject;
        self.shared().copies.miss_session(subject.copied());
        SubrequestReply::Done {
            counter: 0,
            flag: false,
        }
    }

    /// Counts what is under way at the replica with a question, which is sent now. Not if its slot has
    /// changed since the request came.
    pub(super) fn begin_copy(&self, question: Question) -> Result<BegunCopy<'a>, Stopped> {
        let Some(kind) = question.copy else {
            return Ok(None);
        };
        let (subject, service) = (self.exchange.subject, self.exchange.service);
        let places = [Some(subject.route.first), subject.route.second];
        let shared = self.shared();
        let begun = CopyUnderWay::begin(
            &shared.copies,
            (subject.copied(), places),
            (kind, question.at),
            |replica| service.may_copy(subject, replica),
            |copies| copies.may_restore(shared.clock.now_ms()),
        );
        begun.map(Some).map_err(Stopped::Refused)
    }

    /// What became of a copy of a session with this timeout.
    pub(super) fn copy_ended(
        &self,
        under_way: BegunCopy<'_>,
        reply: SubrequestReply,
        timeout_minutes: u32,
    ) {
        if let Some(under_way) = under_way {
            let clock = self.shared().clock;
            under_way.ended(reply, timeout_minutes, || clock.now_ms());
        }
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
        self.driver.took_body();
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

    fn shared(&self) -> &'a WorkersShared {
        &self.exchange.service.shared
    }
}

/// So much of a body has to come in the client's time.
const PART_BYTES: usize = 64 * 1024;
