//! Sessions that users have lost lately: they stay visible when the outage is over.

use std::collections::HashMap;

use super::finding::Finding;
use crate::handover::BackendId;

/// How long a loss is shown after the last request that met it.
const SHOWN_MS: u64 = 24 * 60 * 60 * 1000;

/// What has been lost at each backend.
#[derive(Debug, Default)]
pub(crate) struct Lost(HashMap<BackendId, Loss>);

#[derive(Debug, Clone, Copy, Default)]
struct Loss {
    /// What the backend had counted when the last loss before this one was over.
    before: u64,
    counted: u64,
    first_ms: u64,
    last_ms: u64,
}

impl Lost {
    /// Takes note of how many requests each backend's absence has cost a session since the start.
    pub(crate) fn follow(&mut self, counts: impl Iterator<Item = (BackendId, u64)>, now_ms: u64) {
        let mut known = HashMap::new();
        for (backend_id, counted) in counts {
            let mut loss = self.0.get(&backend_id).copied().unwrap_or_default();
            if counted < loss.counted {
                // Another backend has the place.
                loss = Loss::default();
            }
            if counted > loss.counted {
                if !loss.is_shown(now_ms) {
                    loss.before = loss.counted;
                    loss.first_ms = now_ms;
                }
                loss.counted = counted;
                loss.last_ms = now_ms;
            }
            known.insert(backend_id, loss);
        }
        self.0 = known;
    }

    /// The loss at one backend, as long as it is shown.
    pub(crate) fn finding(
        &self,
        backend_id: BackendId,
        backend: &str,
        now_ms: u64,
    ) -> Option<Finding> {
        let loss = self
            .0
            .get(&backend_id)
            .filter(|loss| loss.is_shown(now_ms))?;
        let requests = loss.counted - loss.before;
        Some(Finding::sessions_lost(backend, requests).since(loss.first_ms))
    }
}

impl Loss {
    fn is_shown(&self, now_ms: u64) -> bool {
        self.counted > self.before && now_ms.saturating_sub(self.last_ms) < SHOWN_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_shown_for_a_day_after_the_last_of_it_and_the_next_one_begins_at_nothing() {
        let backend_id = BackendId::new(1).unwrap();
        let mut lost = Lost::default();
        let mut shown = |counted, now_ms| {
            lost.follow([(backend_id, counted)].into_iter(), now_ms);
            let finding = lost.finding(backend_id, "a", now_ms);
            finding.map(|finding| {
                (
                    finding.says.contains(&format!(": {counted} ")),
                    finding.since_ms,
                )
            })
        };
        assert_eq!(shown(0, 1_000), None);
        assert_eq!(shown(3, 2_000), Some((true, Some(2_000))));
        assert_eq!(shown(5, 3_000), Some((true, Some(2_000))));
        assert_eq!(shown(5, 3_000 + SHOWN_MS - 1), Some((true, Some(2_000))));
        assert_eq!(shown(5, 3_000 + SHOWN_MS), None);
        let later_ms = 9_000 + SHOWN_MS;
        // Two more are two, not seven.
        assert_eq!(shown(7, later_ms), Some((false, Some(later_ms))));
        // Another backend at this place.
        assert_eq!(shown(1, later_ms + 1), Some((true, Some(later_ms + 1))));
    }
}
