//! What backends have cost sessions lately: it stays visible when the outage is over.

use std::collections::HashMap;

use crate::handover::BackendId;

/// How long a count is shown after it has grown last.
const SHOWN_MS: u64 = 24 * 60 * 60 * 1000;

/// What has grown lately at each backend.
#[derive(Debug, Default)]
pub(crate) struct RecentCounts(HashMap<BackendId, Growth>);

#[derive(Debug, Clone, Copy, Default)]
struct Growth {
    /// What the backend had counted when it was shown no more.
    before: u64,
    counted: u64,
    first_ms: u64,
    last_ms: u64,
}

impl RecentCounts {
    /// Takes note of what each backend has counted since the start.
    pub(crate) fn follow(&mut self, counts: impl Iterator<Item = (BackendId, u64)>, now_ms: u64) {
        let mut known = HashMap::new();
        for (backend_id, counted) in counts {
            let mut growth = self.0.get(&backend_id).copied().unwrap_or_default();
            if counted < growth.counted {
                // Another backend has the place.
                growth = Growth::default();
            }
            if counted > growth.counted {
                if !growth.is_shown(now_ms) {
                    growth.before = growth.counted;
                    growth.first_ms = now_ms;
                }
                growth.counted = counted;
                growth.last_ms = now_ms;
            }
            known.insert(backend_id, growth);
        }
        self.0 = known;
    }

    /// How often it has happened at one backend, and since when, as long as that is shown.
    pub(crate) fn shown(&self, backend_id: BackendId, now_ms: u64) -> Option<(u64, u64)> {
        let growth = self.0.get(&backend_id)?;
        let count = growth.counted - growth.before;
        growth.is_shown(now_ms).then_some((count, growth.first_ms))
    }
}

impl Growth {
    fn is_shown(&self, now_ms: u64) -> bool {
        self.counted > self.before && now_ms.saturating_sub(self.last_ms) < SHOWN_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_shown_for_a_day_after_it_has_grown_and_then_begins_at_nothing() {
        let backend_id = BackendId::new(1).unwrap();
        let mut recent = RecentCounts::default();
        let mut shown = |counted, now_ms| {
            recent.follow([(backend_id, counted)].into_iter(), now_ms);
            recent.shown(backend_id, now_ms)
        };
        assert_eq!(shown(0, 1_000), None);
        assert_eq!(shown(3, 2_000), Some((3, 2_000)));
        assert_eq!(shown(5, 3_000), Some((5, 2_000)));
        assert_eq!(shown(5, 3_000 + SHOWN_MS - 1), Some((5, 2_000)));
        assert_eq!(shown(5, 3_000 + SHOWN_MS), None);
        let later_ms = 9_000 + SHOWN_MS;
        assert_eq!(shown(7, later_ms), Some((2, later_ms)));
        // Another backend at this place.
        assert_eq!(shown(1, later_ms + 1), Some((1, later_ms + 1)));
    }
}
