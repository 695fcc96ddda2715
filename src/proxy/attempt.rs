//! A client's request as it can begin, and begin anew.

use super::lock_wait::LockWait;
use super::tagged::TaggedRequest;
use super::view::View;
use crate::handover::{ClientRequest, Cookie};
use crate::metrics::RequestOutcome;
use crate::net::TimeSpent;
use crate::usage::{self, SampledSession};
use crate::wire::{self, Operation, RequestHead, Span};

/// A request before anybody was asked, or after nobody has done anything for it.
#[derive(Debug)]
pub(super) struct Attempt {
    /// What it asks for.
    pub(super) request: ClientRequest,
    /// Its bytes.
    pub(super) own: TaggedRequest,
    pub(super) progress: RequestProgress,
    /// Whether and how the account of sessions follows it.
    pub(super) sample: SampledSession,
    /// When its answer is due, of the worker's clock.
    pub(super) due_ms: u64,
}

/// How far a request is, for its metrics.
#[derive(Debug)]
pub(super) struct RequestProgress {
    /// How much of the time since its head was there was spent waiting for backends.
    pub(super) waited: TimeSpent,
    /// Whether the time that was not is known.
    pub(super) has_overhead: bool,
    /// Of the answer that is passed on.
    pub(super) outcome: RequestOutcome,
    /// While it waits for a lock, and when it asks after that.
    pub(super) lock_wait: Option<Box<LockWait>>,
    /// What a PUT asks for; 0 without a number that can be one.
    pub(super) timeout_minutes: u32,
}

impl Default for RequestProgress {
    fn default() -> Self {
        Self {
            waited: TimeSpent::default(),
            has_overhead: false,
            outcome: RequestOutcome::Failed,
            lock_wait: None,
            timeout_minutes: 0,
        }
    }
}

impl Attempt {
    /// The request with this head at the start of `received`, whose answer is due at `due_ms`: what it
    /// asks for, as far as the handover depends on it. One that is none of the six operations is
    /// answered alike everywhere, as a look is.
    pub(super) fn first(
        head: &RequestHead,
        operation: Operation,
        received: &[u8],
        view: &View,
        mut sample: SampledSession,
        due_ms: u64,
    ) -> Self {
        let number = |value: Option<Span>| value.and_then(|value| wire::signed(value.of(received)));
        let cookie = || {
            let cookie = number(head.lock_cookie).and_then(|cookie| u32::try_from(cookie).ok());
            let is_known = |backend_id| view.snapshot.backend_at(backend_id).is_some();
            Cookie::from_client(cookie.unwrap_or(0)).of_known(is_known)
        };
        let mut progress = RequestProgress::default();
        let request = match operation {
            Operation::Get => ClientRequest::Read,
            Operation::Acquire => ClientRequest::Acquire,
            Operation::Release => ClientRequest::Release(cookie()),
            Operation::Remove => ClientRequest::Remove(cookie()),
            Operation::Touch | Operation::Unknown => ClientRequest::Touch,
            Operation::Put => {
                let timeout = number(head.timeout);
                let minutes = timeout.and_then(|minutes| u32::try_from(minutes).ok());
                progress.timeout_minutes = minutes.unwrap_or(0);
                let is_create = number(head.extra_flags).is_some_and(|flags| flags & 1 == 1);
                // The request may be gone when its answer is there.
                if sample.is_followed() {
                    sample = sample.of_put(usage::minutes_or_default(timeout), is_create);
                }
                if is_create {
                    ClientRequest::Create
                } else {
                    ClientRequest::Put(cookie())
                }
            }
        };
        Self {
            request,
            own: TaggedRequest::new(head),
            progress,
            sample,
            due_ms,
        }
    }
}
