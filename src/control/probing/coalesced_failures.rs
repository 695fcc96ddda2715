//! Failures that belong together.

use std::collections::HashMap;

use crate::handover::BackendId;

/// Requests of one backend that fail within this time fail for one reason: a hundred connections
/// that break at once say no more than one.
const BURST_MS: u64 = 100;

/// When a failure of each backend last counted.
#[derive(Debug, Default)]
pub struct CoalescedFailures(HashMap<BackendId, u64>);

impl CoalescedFailures {
    /// Whether a failure of the backend at `place` counts, or belongs to one that has counted.
    pub fn counts(&mut self, backend_id: BackendId, now_ms: u64) -> bool {
        let last_ms = self.0.get(&backend_id);
        let counts = last_ms.is_none_or(|last_ms| now_ms >= last_ms + BURST_MS);
        if counts {
            self.0.insert(backend_id, now_ms);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_counts_once_for_each_backend() {
        let [one, other] = [1, 2].map(|id| BackendId::new(id).unwrap());
        let mut bursts = CoalescedFailures::default();
        assert!(bursts.counts(one, 1_000));
        assert!(!bursts.counts(one, 1_000));
        assert!(bursts.counts(other, 1_000));
        assert!(!bursts.counts(one, 1_099));
        assert!(bursts.counts(one, 1_100), "what goes on failing does count");
        assert!(!bursts.counts(one, 1_199));
    }
}
