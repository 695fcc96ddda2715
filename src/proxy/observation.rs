//! What is to be learned from a request and its answer: about the session for the account, and
//! about what users lose.

use super::farm_signs::FarmSignKind;
use super::forward::Exchange;
use super::subrequest::ABSURD_AGE_S;
use crate::usage::{self, Observation, UsagePlace};
use crate::wire::{self, Operation, ResponseHead, Span};

impl Exchange<'_> {
    /// Takes note of the final answer, whose head `answer` begins with.
    pub(super) fn observe(&self, head: &ResponseHead, answer: &[u8]) {
        let timeout_minutes = number(head.timeout, answer);
        if let Some(minutes) = timeout_minutes {
            self.service.saw_timeout(minutes);
        }
        match (head.status, self.subject.operation) {
            // Nobody has to wait for the timeout of what was not stored.
            (200, Operation::Put) => {
                let minutes = self.attempt.progress.timeout_minutes;
                self.service.saw_timeout(minutes.into());
                if self.head.body_bytes >= self.view.snapshot.large_session_bytes {
                    let bytes = self.head.body_bytes;
                    self.service.metrics.large_stored.increment();
                    self.service
                        .shows(self.subject, FarmSignKind::StoredLarge { bytes });
                }
            }
            (404, Operation::Acquire | Operation::Get) => {
                let away = self
                    .away
                    .and_then(|away| self.view.snapshot.backend_at(away));
                if let Some(away) = away {
                    self.view.shard(away).absent_while_away.increment();
                }
            }
            (423, Operation::Put) => {
                self.shard().lost_writes.increment();
                self.service.shows(self.subject, FarmSignKind::WriteRefused);
            }
            (423, Operation::Acquire) => {
                let age_s = number(head.lock_age, answer);
                let takeover_s = self.view.snapshot.takeover_s;
                if age_s.is_some_and(|age_s| (takeover_s..ABSURD_AGE_S).contains(&age_s)) {
                    self.shard().overdue_locks.increment();
                }
            }
            _ => {}
        }
        self.account_for(head, timeout_minutes);
    }

    /// Lets the account know what the final answer says about the session.
    fn account_for(&self, head: &ResponseHead, timeout_minutes: Option<u64>) {
        if self.attempt.sample.is_followed()
            && let Some(observation) = self.observation(head, timeout_minutes)
        {
            let place = UsagePlace {
                backend: self.view.backend(self.backend).backend_id.id(),
                application: self.view.application_number(self.subject.application),
            };
            let account = &self.service.shared.account;
            account.observe(self.attempt.sample, place, observation);
        }
    }

    /// `None` when nothing can be concluded.
    fn observation(
        &self,
        head: &ResponseHead,
        timeout_minutes: Option<u64>,
    ) -> Option<Observation> {
        Some(match (head.status, self.subject.operation) {
            (200, Operation::Get | Operation::Acquire) => Observation::Read {
                bytes: head.body_bytes,
                timeout_minutes: usage::minutes_or_default(timeout_minutes),
            },
            (200, Operation::Put) => Observation::Stored {
                bytes: self.head.body_bytes,
            },
            (200, Operation::Remove) => Observation::Gone,
            (200 | 423, _) => Observation::Touched,
            // Whoever stands in says nothing about what is out of reach, and a write may have been
            // sent to where its lock was issued.
            (404, Operation::Get | Operation::Acquire | Operation::Touch)
                if self.away.is_none() =>
            {
                Observation::Gone
            }
            (404, _) => Observation::Absent,
            _ => return None,
        })
    }
}

fn number(value: Option<Span>, bytes: &[u8]) -> Option<u64> {
    value.and_then(|value| wire::decimal(value.of(bytes)))
}
