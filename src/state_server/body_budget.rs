//! Bodies that are still arriving, and the bound on all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for a body is taken in steps that double, from here on.
const FIRST_STEP_BYTES: usize = 64 * 1024;

/// The memory that all workers of a state server may spend on bodies still arriving.
///
/// The store counts an item only once its body is whole. Without a bound of its own, what comes
/// before that is as much as clients care to send.
#[derive(Debug)]
pub struct BodyBudget {
    used_bytes: AtomicU64,
    max_bytes: u64,
}

/// The bodies that are arriving have used up their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bodies that are arriving exceed {max_bytes} bytes together")]
pub struct BudgetExceeded {
    /// The bound.
    pub max_bytes: u64,
}

impl BodyBudget {
    /// Room for `max_bytes`.
    pub fn new(max_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            used_bytes: AtomicU64::new(0),
            max_bytes,
        })
    }

    /// One compare-exchange decides and takes, so workers cannot exceed the bound together.
    fn take(&self, bytes: u64) -> Result<(), BudgetExceeded> {
        let taken = |used: u64| {
            used.checked_add(bytes)
                .filter(|total| *total <= self.max_bytes)
        };
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .map(drop)
            .map_err(|_used| BudgetExceeded {
                max_bytes: self.max_bytes,
            })
    }
}

/// A body as far as it has arrived. Its memory grows with what comes, not with what was announced,
/// and counts until this is dropped.
#[derive(Debug)]
pub(super) struct ArrivingBody<'a> {
    bytes: Vec<u8>,
    announced_bytes: usize,
    taken_bytes: u64,
    budget: &'a BodyBudget,
}

impl<'a> ArrivingBody<'a> {
    pub(super) fn new(budget: &'a BodyBudget, announced_bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            announced_bytes,
            taken_bytes: 0,
            budget,
        }
    }

    /// Adds `part`; with all parts before it, it must not be longer than announced.
    pub(super) fn append(&mut self, part: &[u8]) -> Result<(), BudgetExceeded> {
        let needed = self.bytes.len() + part.len();
        if needed > self.bytes.capacity() {
            let step = (2 * self.bytes.capacity()).max(FIRST_STEP_BYTES);
            let capacity = step.min(self.announced_bytes).max(needed);
            self.budget.take(capacity as u64 - self.taken_bytes)?;
            self.taken_bytes = capacity as u64;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// The bytes, whose memory counts on until the body is dropped.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for ArrivingBody<'_> {
    fn drop(&mut self) {
        self.budget
            .used_bytes
            .fetch_sub(self.taken_bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_bytes(budget: &BodyBudget) -> u64 {
        budget.used_bytes.load(Ordering::Relaxed)
    }

    #[test]
    fn memory_follows_what_arrives_and_never_exceeds_what_was_announced() {
        const ANNOUNCED_BYTES: usize = 1_000_000;
        let budget = BodyBudget::new(ANNOUNCED_BYTES as u64);
        let sent: Vec<u8> = (0..ANNOUNCED_BYTES).map(|i| (i % 251) as u8).collect();
        let mut body = ArrivingBody::new(&budget, ANNOUNCED_BYTES);
        let mut arrived = 0;
        for part in sent.chunks(7_777) {
            body.append(part).unwrap();
            arrived += part.len();
            assert!(body.bytes.capacity() as u64 <= used_bytes(&budget));
            let at_most = (2 * arrived).max(FIRST_STEP_BYTES) as u64;
            assert!(used_bytes(&budget) <= at_most);
        }
        assert_eq!(body.take_bytes(), sent);
        assert_eq!(used_bytes(&budget), ANNOUNCED_BYTES as u64);
        drop(body);
        assert_eq!(used_bytes(&budget), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_until_another_body_is_done() {
        let budget = BodyBudget::new(100);
        let mut first = ArrivingBody::new(&budget, 60);
        first.append(&[1; 10]).unwrap();
        let mut second = ArrivingBody::new(&budget, 60);
        assert_eq!(
            second.append(&[2; 10]),
            Err(BudgetExceeded { max_bytes: 100 })
        );
        assert_eq!(used_bytes(&budget), 60);
        drop(first);
        second.append(&[2; 10]).unwrap();
        assert_eq!(second.take_bytes(), [2; 10]);
    }
}
