//! What the account of sessions learns from a request and its answer.

use super::exchange::Exchange;
use crate::account::{Sample, Sighting};
use crate::net::Buffer;
use crate::wire::{self, Operation, RequestHead, ResponseHead, Span};

/// What a state server takes when there is no `Timeout` (protocol 3).
const DEFAULT_TIMEOUT_MINUTES: u32 = 20;

/// What of a request is needed once its answer is there: its bytes may be gone then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Witness {
    sample: Sample,
    timeout_minutes: u32,
    is_create: bool,
}

impl Witness {
    /// `received` starts with the request.
    pub(super) fn new(sample: Sample, head: &RequestHead, received: &[u8]) -> Self {
        let stores = sample != Sample::NONE && head.operation() == Operation::Put;
        let number = |value: Option<Span>| {
            value
                .filter(|_| stores)
                .and_then(|value| wire::decimal(value.of(received)))
        };
        Self {
            sample,
            timeout_minutes: minutes(number(head.timeout)),
            is_create: number(head.extra_flags).is_some_and(|flags| flags & 1 == 1),
        }
    }
}

impl Exchange<'_> {
    /// Lets the account know what the final answer says about the session.
    pub(super) fn account_for(&self, head: &ResponseHead, answer: &Buffer) {
        let Witness { sample, .. } = self.witness;
        if sample == Sample::NONE {
            return;
        }
        if let Some(sighting) = self.sighting(head, answer) {
            let place = self.view.backend(self.backend).place.id();
            let account = &self.service.feedback.account;
            account.observe(sample, place, sighting);
        }
    }

    /// `None` when nothing can be concluded.
    fn sighting(&self, head: &ResponseHead, answer: &Buffer) -> Option<Sighting> {
        let operation = self.head.operation();
        let Witness {
            timeout_minutes,
            is_create,
            ..
        } = self.witness;
        let bytes = self.head.body_bytes;
        Some(match (head.status, operation) {
            (200, Operation::Get | Operation::Acquire) => Sighting::Read {
                bytes: head.body_bytes,
                timeout_minutes: minutes(
                    head.timeout
                        .and_then(|value| wire::decimal(value.of(answer.filled()))),
                ),
            },
            (200, Operation::Put) if is_create => Sighting::Created {
                bytes,
                timeout_minutes,
            },
            (200, Operation::Put) => Sighting::Stored {
                bytes,
                timeout_minutes,
            },
            (200, Operation::Remove) => Sighting::Gone,
            (200 | 423, _) => Sighting::Touched,
            // Whoever stands in says nothing about what is out of reach, and a write may have been
            // sent to where its lock was issued.
            (404, Operation::Get | Operation::Acquire | Operation::Touch)
                if self.away.is_none() =>
            {
                Sighting::Gone
            }
            (404, _) => Sighting::Absent,
            _ => return None,
        })
    }
}

fn minutes(value: Option<u64>) -> u32 {
    value.map_or(DEFAULT_TIMEOUT_MINUTES, |minutes| {
        u32::try_from(minutes).unwrap_or(u32::MAX)
    })
}
