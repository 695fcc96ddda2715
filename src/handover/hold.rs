//! How long a request waits that has changed nothing anywhere and whose backend does not answer: until
//! it may fare better, instead of failing at once.
//!
//! It waits for `handover.hold` at most, and no longer than that after its backend went down: one that
//! stays away must not bind the threads of the web farm. When another snapshot is in force, all who
//! wait try again, in the order in which they came.

use std::time::Duration;

use super::BackendId;

/// A backend that cannot be reached, and does not count as down yet, is tried again after this.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// What keeps a request from its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldReason {
    /// Nothing was asked, because of what is in force: only another snapshot can change that.
    pub is_refused: bool,
    /// When the backend in the way went down; `None` while it does not count as down.
    pub down_since_ms: Option<u64>,
}

/// How long a request may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldLimits {
    /// When it began to wait; now if it has not.
    pub since_ms: u64,
    /// `handover.hold`.
    pub hold_ms: u64,
    /// When its answer is due.
    pub due_ms: u64,
}

/// The backend because of which a request waits: the one that failed it, or, of a slot that is refused
/// as a whole, the second place if there is one.
pub fn backend_in_the_way(
    is_refused: bool,
    failed: BackendId,
    (first, second): (BackendId, Option<BackendId>),
) -> BackendId {
    match is_refused {
        true => second.unwrap_or(first),
        false => failed,
    }
}

impl HoldReason {
    /// Until when a request waits now, unless another snapshot comes into force before: then it tries
    /// again. `None` once it has waited long enough.
    pub fn waits_until_ms(self, limits: HoldLimits, now_ms: u64) -> Option<u64> {
        let HoldLimits {
            since_ms,
            hold_ms,
            due_ms,
        } = limits;
        // Counted from the fall of the backend, for whoever came later.
        let since_ms = self
            .down_since_ms
            .map_or(since_ms, |down_ms| down_ms.min(since_ms));
        let until_ms = (since_ms + hold_ms).min(due_ms);
        if now_ms >= until_ms {
            return None;
        }
        Some(match self.is_refused {
            true => until_ms,
            false => until_ms.min(now_ms + TRY_AGAIN.as_millis() as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HoldLimits = HoldLimits {
        since_ms: 1_000,
        hold_ms: 5_000,
        due_ms: 100_000,
    };

    fn reason(is_refused: bool, down_since_ms: Option<u64>) -> HoldReason {
        HoldReason {
            is_refused,
            down_since_ms,
        }
    }

    #[test]
    fn a_request_waits_for_another_snapshot_or_tries_a_backend_again() {
        let refused = reason(true, None);
        assert_eq!(refused.waits_until_ms(LIMITS, 1_500), Some(6_000));
        let failed = reason(false, None);
        assert_eq!(failed.waits_until_ms(LIMITS, 1_500), Some(1_700));
        assert_eq!(failed.waits_until_ms(LIMITS, 5_900), Some(6_000));
        assert_eq!(failed.waits_until_ms(LIMITS, 6_000), None);
    }

    #[test]
    fn the_time_counts_from_the_fall_of_the_backend_and_ends_when_the_answer_is_due() {
        let down = |since_ms| reason(true, Some(since_ms)).waits_until_ms(LIMITS, 1_500);
        assert_eq!(down(200), Some(5_200));
        assert_eq!(down(1_400), Some(6_000));
        let due_ms = 2_000;
        let limits = HoldLimits { due_ms, ..LIMITS };
        assert_eq!(
            reason(true, None).waits_until_ms(limits, 1_500),
            Some(2_000)
        );
        assert_eq!(reason(true, None).waits_until_ms(limits, 2_000), None);
    }

    #[test]
    fn a_slot_that_is_refused_waits_for_its_second_place() {
        let place = |id| BackendId::new(id).unwrap();
        let both = (place(1), Some(place(2)));
        assert_eq!(backend_in_the_way(true, place(1), both), place(2));
        assert_eq!(
            backend_in_the_way(true, place(3), (place(1), None)),
            place(1)
        );
        assert_eq!(backend_in_the_way(false, place(3), both), place(3));
    }
}
